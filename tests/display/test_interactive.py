"""Interactive pictures: what they hold, that they compose, and that nothing is read beyond what is looked at."""

import lazily
import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx

hv = lazily.importorskip("holoviews")
lazily.importorskip("hvplot")


@pytest.fixture(scope="module")
def da():
    return gx.testing.synthetic("alphaearth", shape=(40, 50), years=[2018, 2020, 2024], missing=True)


@pytest.fixture(scope="module")
def classes(da):
    return gx.testing.scene().truth(da.emb.geobox, 2018)


def rendered(element):
    """The Bokeh figure."""
    return hv.render(element, backend="bokeh")


def test_years_of_an_embedding_are_a_slider_of_colours(da):
    pca = da.emb.fit_pca(3)
    shown = da.emb.plot(model=pca, interactive=True)
    assert list(shown.keys()) == [2018, 2020, 2024]
    assert shown.kdims[0].label == "year"
    expected = da.emb.rgb(pca).isel(time=1).transpose("y", "x", "rgb").values
    found = np.stack([shown[2020].dimension_values(i, flat=False) for i in range(2, 6)], -1)[::-1]
    np.testing.assert_array_equal(found, expected)
    box = da.emb.geobox.boundingbox
    assert shown[2020].bounds.lbrt() == pytest.approx((box.left, box.bottom, box.right, box.top))
    assert "synthetic data in the form of alphaearth" in [
        getattr(m, "text", "") for m in rendered(shown[2018]).below
    ]


def test_classes_have_names_in_the_legend_and_on_hover(classes):
    from bokeh.models import ColorBar, HoverTool

    odd = classes.where(classes != 6, 60).assign_attrs(classes.attrs, flag_values=[1, 2, 3, 4, 5, 60])
    figure = rendered(odd.emb.plot(interactive=True))
    names = classes.attrs["flag_meanings"].split()
    (bar,) = figure.select({"type": ColorBar})
    assert bar.major_label_overrides == dict(enumerate(names))
    (hover,) = figure.select({"type": HoverTool})
    assert hover.formatters["@image"].args["names"] == names
    image = figure.renderers[0].data_source.data["image"][0][::-1]
    np.testing.assert_array_equal(image, classes.values - 1.0)


def test_numbers_have_their_limits_and_unit(da):
    shown = da.emb.change(2018, 2024).emb.plot(interactive=True, vmax=50)
    low, high = hv.Store.lookup_options("bokeh", shown, "plot").kwargs["clim"]
    assert (low, high) == (0, 50)
    assert shown.vdims[0].label == "angle [°]"


def test_points_tell_what_rides_along_and_patches_are_squares(da):
    places = da.emb.year(2024).emb.sample(gx.testing.scene().points(20, radius=150))
    shown = places.emb.plot(interactive=True)
    assert isinstance(shown, hv.Points)
    assert "land_cover" in [d.name for d in shown.vdims]
    np.testing.assert_allclose(shown["x"], places.x)
    patches = gx.open("earth-index", gx.example("earth-index")).isel(location=slice(30))
    squares = patches.emb.similarity(patches.isel(location=0)).emb.plot(interactive=True)
    assert isinstance(squares, hv.Polygons)
    assert len(squares) == 30
    corners = squares.split()[3].array(["x", "y"]).astype(float)
    frame = patches.emb.to_geodataframe()
    np.testing.assert_allclose(corners.min(axis=0), frame.geometry.iloc[3].bounds[:2])


def test_a_large_lazy_array_is_read_where_it_is_looked_at(da):
    read = []

    def noted(block):
        read.append(block.shape)
        return block

    lazy = da.chunk(time=1, y=20, x=25)
    lazy.data = lazy.data.map_blocks(noted, dtype=lazy.dtype, meta=np.empty((0,) * 4, lazy.dtype))
    shown = lazy.emb.plot(model=da.emb.fit_pca(3), interactive=True, pixels=16)
    read.clear()
    whole = shown[2024]
    assert read == []  # all of it was read, thinned, for the colours
    box = lazy.emb.geobox.boundingbox
    assert whole.bounds.lbrt() == pytest.approx(tuple(box), abs=lazy.emb.geobox.resolution.x * 8)
    (stream,) = shown.streams
    stream.update(x_range=(box.left, box.left + 120), y_range=(box.top - 120, box.top))
    near = shown[2024]
    assert read == [(1, 64, 20, 25)]  # one block of one year
    assert near.dimension_values("x", expanded=False).size == 12
    assert whole.dimension_values("x", expanded=False).size <= 16
    expected = lazy.isel(time=-1, y=slice(12), x=slice(12)).compute().emb.rgb(da.emb.fit_pca(3))
    np.testing.assert_array_equal(near.dimension_values(2, flat=False)[::-1], expected.sel(rgb="r").values)


def test_pictures_compose_and_only_those_of_one_crs_are_linked(da, classes):
    places = da.emb.year(2024).emb.sample(gx.testing.scene().points(9, radius=150)).emb.plot(interactive=True)
    assert isinstance(classes.emb.plot(interactive=True) * places, hv.Overlay)
    degrees = da.emb.year(2024).emb.reproject("EPSG:4326").emb.plot(interactive=True)
    pictures = da.emb.year(2024).emb.plot(interactive=True), classes.emb.plot(interactive=True), degrees
    drawn = hv.renderer("bokeh").get_plot(hv.Layout(list(pictures)))
    first, second, third = [each.subplots["main"].state for each in drawn.subplots.values()]
    assert first.x_range is second.x_range
    assert first.x_range is not third.x_range
    maps = xr.Dataset({"cover": classes, "change": da.emb.change(2018, 2024)})
    side = maps.emb.plot(interactive=True)
    assert isinstance(side, hv.Layout)
    assert [type(each) for each in side] == [hv.Image, hv.Image]


@pytest.mark.complete  # datashader compiles its kernels anew in each process: 20 seconds
def test_many_points_are_brought_to_the_pixels_of_each_view(da, classes, monkeypatch):
    from geoemb_xr.display import interactive

    monkeypatch.setattr(interactive, "_MANY", 500)
    table = gx.testing.scene().points(600, radius=150)
    here = classes.emb.sample(table)
    shown = here.emb.plot(interactive=True, figsize=(10, 8))
    assert isinstance(shown, hv.DynamicMap)
    plot = hv.renderer("bokeh").get_plot(shown)
    box = classes.emb.geobox.boundingbox
    middle = (box.left + box.right) / 2
    ranges = {"x_range": (box.left, middle), "y_range": (box.bottom, box.top)}
    (view,) = [each for each in plot.streams if isinstance(each, hv.streams.RangeXY)]
    view.event(**ranges)
    pixels = shown[()].dimension_values(2, flat=False)
    inside = here[(here.x >= box.left).values & (here.x < middle).values]
    assert set(pixels[np.isfinite(pixels)]) == {int(each) - 1 for each in inside.values}
    there = [shown[()][x, y] for x, y in zip(inside.x.values, inside.y.values, strict=True)]
    assert np.mean(np.array(there) == inside.values - 1) > 0.95  # where two share a pixel, one is seen
    legend = hv.Store.lookup_options("bokeh", shown[()], "plot").kwargs["colorbar_opts"]
    assert legend["major_label_overrides"] == dict(enumerate(classes.attrs["flag_meanings"].split()))

    vectors = da.emb.sample(table)
    coloured = vectors.emb.plot(interactive=True, model=da.emb.fit_pca(3))
    assert coloured.kdims[0].label == "year"
    found = np.stack([coloured[2020].dimension_values(i) for i in range(2, 6)], -1)
    expected = vectors.emb.rgb(da.emb.fit_pca(3)).isel(time=1).transpose("location", "rgb").values
    seen = {tuple(each) for each in found[found[:, 3] > 0]}
    all_colours = {tuple(each) for each in expected}
    assert seen <= all_colours
    assert len(seen) > len(all_colours) / 2  # of points that share a pixel, one is seen


def test_scripts_in_a_notebook_come_from_the_installed_packages(monkeypatch):
    import sys

    import holoviews
    import hvplot
    import param

    from geoemb_xr.display import interactive

    class OfNotebooks(holoviews.extension):
        inline = param.Boolean(False)

    loaded = []
    monkeypatch.setattr(holoviews, "extension", OfNotebooks)
    monkeypatch.setattr(
        hvplot, "hvplot_extension", lambda *_, **__: loaded.append(holoviews.extension.inline)
    )
    monkeypatch.setattr(interactive, "in_notebook", lambda: True)
    monkeypatch.delitem(sys.modules, "hvplot.xarray", raising=False)  # as hvPlot does before each cell
    interactive.holoviews()
    interactive.holoviews()
    assert loaded == [True]
    assert not holoviews.extension.inline


def test_pictures_are_rasterised_by_what_users_know(classes):
    rasterize = pytest.importorskip("holoviews.operation.datashader").rasterize
    assert isinstance(rasterize(classes.emb.plot(interactive=True), dynamic=False), hv.Image)


def test_pictures_and_class_maps_work_in_plain_hvplot(da, classes):
    picture = da.emb.year(2024).emb.rgb(["A01", "A16", "A09"])
    assert isinstance(picture.hvplot.rgb(x="x", y="y", bands="rgb"), hv.RGB)
    assert isinstance(classes.hvplot.image(x="x", y="y"), hv.Image)


def test_options_that_do_not_go_together_are_refused(da):
    from matplotlib import pyplot as plt

    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="leave out ax="):
        da.emb.plot(interactive=True, ax=ax)
    plt.close("all")
    with pytest.raises(ValueError, match="pass one of them"):
        da.emb.change(2018, 2024).emb.plot(interactive=True, limits=(0, 1), vmax=3)
    with pytest.raises(ValueError, match="both vmin= and vmax="):
        da.emb.plot(interactive=True, vmax=3)


@pytest.mark.complete
@pytest.mark.parametrize("pixels", [1000, 40])
def test_a_saved_page_shows_every_year_without_a_network(da, tmp_path, pixels):
    """Its slider draws what the page holds, of small arrays and of those that are read as they are looked at."""
    import shutil

    import holoviews

    sync_api = pytest.importorskip("playwright.sync_api")
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("no Chromium: apt-get install chromium")
    path = tmp_path / "years.html"
    holoviews.save(da.emb.plot(interactive=True, pixels=pixels), path, resources="inline")
    told = "Bokeh.documents[0].roots().flatMap(r => [...r.references()])"
    title = f"{told}.filter(m => m.type == 'Title').map(m => m.text).join()"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.context.set_offline(True)
        page.goto(path.as_uri())
        page.locator(".noUi-handle").focus()
        pictures = []
        for i, year in enumerate(da.time.dt.year.values):
            if i:
                page.keyboard.press("ArrowRight")
            page.wait_for_function(f"{title}.includes('{year}')")
            pictures.append(
                page.evaluate(
                    f"{told}.filter(m => m.type == 'ColumnDataSource').map(s => ''+s.data.image)[0]"
                )
            )
        browser.close()
    assert len(set(pictures)) == len(pictures) == da.sizes["time"] > 1
