"""Pictures: what is drawn, where, with which words; nothing beyond the screen is computed."""

import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core import errors, geometry

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")

from matplotlib import pyplot as plt  # noqa: E402

from geoemb_xr.display import furniture  # noqa: E402


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def scene(product="alphaearth", shape=(40, 50), years=(2018, 2024), **options):
    return gx.testing.synthetic(product, shape=shape, years=years, missing=True, **options)


def texts(figure):
    """All that is written on a figure."""
    figure.canvas.draw()
    return [t.get_text() for t in figure.findobj(plt.Text) if t.get_text() and t.get_visible()]


def test_an_embedding_is_drawn_as_the_rgb_of_its_components():
    da = scene(years=[2018], decode=False, chunks=16)
    ax = da.emb.plot()
    (image,) = ax.images
    expected = da.isel(time=0).emb.rgb(da.isel(time=0).emb.fit_pca(3)).transpose("y", "x", "rgb").values
    shown = np.asarray(image.get_array())
    assert np.abs(shown.astype(int) - expected).max() <= 1
    box = da.emb.geobox.boundingbox
    np.testing.assert_allclose(image.get_extent(), (box.left, box.right, box.bottom, box.top))
    assert ax.get_title(loc="left") == "alphaearth synthetic, 2018"
    assert "easting [m], EPSG:32632" in texts(ax.figure)
    assert "synthetic data in the form of alphaearth" in texts(ax.figure)
    assert "50 m" in texts(ax.figure)


def test_a_model_gives_one_palette():
    da = scene()
    pca = da.emb.fit_pca(3)
    ax = da.emb.year(2024).emb.plot(model=pca)
    expected = da.emb.year(2024).emb.rgb(pca).transpose("y", "x", "rgb").values
    np.testing.assert_array_equal(np.asarray(ax.images[0].get_array()), expected)


def test_years_are_panels():
    axes = scene(years=[2018, 2019, 2020, 2021, 2022]).emb.plot()
    assert [ax.get_title(loc="left") for ax in axes] == ["2018", "2019", "2020", "2021", "2022"]
    assert len({ax.figure for ax in axes}) == 1


def test_both_orientations_are_drawn_alike():
    da = scene(years=[2018])
    pca = da.emb.fit_pca(3)
    north, south = da.emb.rgb(pca), da.isel(y=slice(None, None, -1)).emb.rgb(pca)
    up, down = north.emb.plot(), south.emb.plot()
    assert up.images[0].get_extent() == pytest.approx(up.images[0].get_extent())
    up.figure.canvas.draw()
    down.figure.canvas.draw()
    assert down.get_ylim()[0] < down.get_ylim()[1]
    pictures = [np.asarray(ax.figure.canvas.buffer_rgba()) for ax in (up, down)]
    assert (pictures[0] != pictures[1]).mean() < 0.001


def test_class_maps_have_the_legend_of_what_is_shown():
    da = scene()
    truth = gx.testing.scene().truth(da.emb.geobox, 2018)
    ax = truth.emb.plot()
    shown = {truth.attrs["flag_meanings"].split()[v - 1] for v in np.unique(truth.values)}
    legend = ax.figure.legends[0]
    assert {t.get_text() for t in legend.get_texts()} == shown
    from geoemb_xr.core.legend import legend_of

    expected = legend_of(truth).rgba()[truth.values]
    np.testing.assert_array_equal(np.asarray(ax.images[0].get_array()), expected)


def test_angles_have_a_colour_bar_from_zero():
    ax = scene(decode=False, chunks=20).emb.change(2018, 2024).emb.plot()
    assert ax.get_title(loc="left") == "angle between 2018 and 2024"
    assert ax.images[0].get_clim()[0] == 0
    assert ax.images[0].get_cmap().name == "magma"
    assert "angle [°]" in texts(ax.figure)
    fixed = scene().emb.change(2018, 2024).emb.plot(limits=(2, 9), cmap="viridis", title="mine")
    assert fixed.images[0].get_clim() == (2, 9)
    assert fixed.get_title(loc="left") == "mine"


def test_components_and_points():
    da = scene(years=[2018]).isel(time=0)
    pca = da.emb.fit_pca(4)
    assert np.asarray(da.emb.pca(pca).emb.plot().images[0].get_array()).shape == (40, 50, 4)
    two = da.emb.pca(da.emb.fit_pca(2)).emb.plot()
    assert [ax.get_title(loc="left") for ax in two] == ["PC1", "PC2"]
    places = da.emb.sample(gx.testing.scene().points(30, radius=150))
    ax = places.emb.plot()
    offsets = ax.collections[0].get_offsets()
    np.testing.assert_allclose(offsets, np.column_stack([places.x, places.y]))
    scores = places.emb.similarity(places.isel(location=0)).emb.plot()
    np.testing.assert_allclose(
        scores.collections[0].get_array(), places.emb.similarity(places.isel(location=0))
    )


def test_large_arrays_are_thinned_before_anything_is_computed():
    da = scene(years=[2018], shape=(90, 120), decode=False, chunks=30)
    ax = da.emb.plot(pixels=40)
    shown = np.asarray(ax.images[0].get_array())
    assert shown.shape == (30, 40, 4)
    every_third = da.isel(time=0, y=slice(1, None, 3), x=slice(1, None, 3))
    expected = every_third.emb.rgb(every_third.emb.fit_pca(3)).transpose("y", "x", "rgb").values
    assert np.abs(shown.astype(int) - expected).max() <= 1
    narrow = da.isel(time=0, y=slice(0, 2)).emb.plot(pixels=20)
    assert np.asarray(narrow.images[0].get_array()).shape[:2] == (1, 20)


def test_degrees_are_stretched_and_the_bar_is_true_on_the_ground():
    grid = gx.testing.geobox((40, 60), crs="EPSG:4326", resolution=1e-4)
    ax = gx.testing.synthetic("alphaearth", grid=grid).emb.plot()
    assert ax.get_aspect() == pytest.approx(1 / np.cos(np.radians(47.25)), rel=1e-3)
    assert {"longitude [°]", "latitude [°]"} <= set(texts(ax.figure))
    metres = furniture.metres_per_unit(geometry.as_crs("EPSG:3857"), 1.2657e6, 5.98e6, 1000.0)
    assert metres == pytest.approx(np.cos(np.radians(47.2)), rel=5e-3)  # Mercator stretches by 1 / cos


def test_own_axes_are_used():
    _, ax = plt.subplots()
    da = scene(years=[2018])
    assert da.emb.plot(ax=ax) is ax
    truth = gx.testing.scene().truth(da.emb.geobox, 2018)
    truth.emb.plot(ax=ax)
    assert ax.get_legend() is not None
    assert len(plt.get_fignums()) == 1
    with pytest.raises(errors.EmbeddingError, match="ax= takes one panel"):
        scene().emb.plot(ax=ax)


def test_what_has_no_place_or_too_many_panels_is_refused():
    with pytest.raises(errors.EmbeddingError, match="needs 'y' and 'x'"):
        xr.DataArray(np.ones(3), dims="band").emb.plot()
    with pytest.raises(errors.EmbeddingError, match="25 panels"):
        scene(shape=(3, 3), years=range(2000, 2025)).emb.plot()
    with pytest.raises(errors.EmbeddingError, match="wrap it with"):
        scene(shape=(3, 3), years=[2018]).isel(time=0).drop_attrs().emb.plot()


def test_empty_maps_are_drawn():
    da = scene(years=[2018, 2024], shape=(6, 7)) * np.nan
    assert da.emb.change(2018, 2024).emb.plot().images


def test_credit_is_the_attribution_of_real_data():
    da = scene(years=[2018])
    da.attrs["version"] = "v1"
    assert furniture.credit(da) == gx.product("alphaearth").attribution
    assert furniture.credit(da.emb.rgb(["A01", "A02", "A03"])) == gx.product("alphaearth").attribution


def overlaps(figure):
    """Pairs of tick labels of one axis that touch."""
    figure.canvas.draw()
    found = []
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            labels = [tick.label1 for tick in ticks if tick.label1.get_visible() and tick.label1.get_text()]
            boxes = [label.get_window_extent() for label in labels]
            found += [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    return found


@pytest.mark.parametrize("shape", [(40, 50), (8, 80), (80, 8)])
@pytest.mark.parametrize("years", [(2018,), tuple(range(2017, 2025))])
def test_labels_do_not_overlap_and_a_picture_fits_a_screen(shape, years):
    figure = np.ravel(scene(shape=shape, years=years).emb.plot())[0].figure
    assert overlaps(figure) == []
    page = figure.bbox
    for text in figure.findobj(plt.Text):
        if text.get_text() and text.get_fontsize() >= 10:  # titles
            assert text.get_window_extent().x1 <= page.x1 + 1, text
    if len(years) == 1:
        assert figure.get_size_inches()[1] < 8.5


def test_years_of_change_are_drawn_as_years():
    da = scene(years=[2018, 2019, 2020, 2021])
    ax = da.emb.change_point()["year"].emb.plot()
    low, high = ax.images[0].get_clim()
    assert 2018 <= low < high <= 2021
    assert np.isnan(np.ma.filled(ax.images[0].get_array(), np.nan)[:5, :5]).all()
    bar = next(a for a in ax.figure.axes if a is not ax)
    ax.figure.canvas.draw()
    assert all(float(t.get_text()).is_integer() for t in bar.get_yticklabels() if t.get_text())


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_different_vectors_make_a_picture(n):
    data = np.zeros((64, 4, 6), np.float32)
    data[np.arange(6) % n, :, np.arange(6)] = 1
    da = gx.wrap(data, "alphaearth", geobox=gx.testing.geobox((4, 6)))
    shown = np.asarray(da.emb.plot().images[0].get_array())
    assert len(np.unique(shown.reshape(-1, 4), axis=0)) == n
    assert (shown[..., 3] == 255).all()
    assert da.emb.explore().state.picture().shape == (4, 6, 4)


@pytest.mark.parametrize("shape", [(64, 128), (128, 128), (128, 40)])
def test_titles_stay_inside_and_apart(shape):
    """At the first drawing, as ``savefig`` makes it."""
    import matplotlib.pyplot as plt

    da = gx.testing.synthetic("alphaearth", shape=shape, years=[2018, 2020, 2024])
    da.emb.aggregate("mean", groups={2018: "before", 2024: "after"}).emb.plot()
    for make in (None, lambda: da.emb.change_point()["year"].emb.plot()):
        if make is not None:
            make()
        figure = plt.gcf()
        figure.canvas.draw()
        panel = figure.axes[0]
        title = (panel.title if make else panel._left_title).get_window_extent()
        texts = [
            each.get_window_extent()
            for each in (panel._left_title, figure._suptitle)
            if each and each.get_text()
        ]
        assert all(each.y1 <= figure.bbox.height and each.y0 >= 0 for each in [*texts, title])
        if len(texts) == 2:
            assert not texts[0].overlaps(texts[1])
        assert not panel.xaxis.label.get_window_extent().overlaps(figure._supxlabel.get_window_extent())
        plt.close("all")


def test_what_others_drew_is_kept():
    figure, (left, right) = plt.subplots(1, 2, sharey=True)
    left.plot([678_700, 679_000], [5_236_000, 5_236_200], label="mine")
    legend = left.legend()
    left.set_title("my title")
    figure.canvas.draw()
    before = [t.get_text() for t in left.get_yticklabels()], left.yaxis.get_major_formatter()
    da = scene(years=[2018])
    gx.testing.scene().truth(da.emb.geobox, 2018).emb.plot(ax=right)
    da.emb.plot(ax=left)
    figure.canvas.draw()
    assert len(left.lines) == 1
    assert left.get_legend() is legend
    assert left.get_title() == "my title"
    assert left.yaxis.get_major_formatter() is before[1]
    _, (one, two) = plt.subplots(1, 2)
    da.emb.plot(ax=two)
    two.figure.canvas.draw()
    assert any(t.get_text() for t in two.get_yticklabels() if t.get_visible())
    gx.testing.scene().truth(da.emb.geobox, 2018).emb.plot(ax=one)
    first = one.get_legend()
    gx.testing.scene().truth(da.emb.geobox, 2018).emb.plot(ax=one)
    assert first in one.get_children()


def test_size_limits_and_the_name_of_a_band_are_as_in_matplotlib():
    da = scene(years=[2018]).isel(time=0)
    ax = da.sel(band="A05").emb.plot(figsize=(4, 3), vmin=-0.2, cmap=plt.get_cmap("cividis"))
    assert tuple(ax.figure.get_size_inches()) == (4, 3)
    low, high = ax.images[0].get_clim()
    assert (low, ax.images[0].get_cmap().name) == (-0.2, "cividis")
    assert high == pytest.approx(np.nanpercentile(da.sel(band="A05"), 98), rel=1e-5)
    assert ax.get_title(loc="left") == "embedding A05, 2018"
    with pytest.raises(ValueError, match="pass one of them"):
        da.sel(band="A05").emb.plot(limits=(0, 1), vmin=0)


def test_the_scale_bar_hides_nothing_of_the_map():
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    ax = scene(years=[2018]).emb.plot()
    ax.figure.canvas.draw()
    (bar,) = [each for each in ax.get_children() if isinstance(each, AnchoredSizeBar)]
    assert bar.get_window_extent().y1 < ax.get_window_extent().y0
    assert bar.get_window_extent().y0 > 0


def world(crs="EPSG:4326", reach=(175, 85)):
    places = {"y": np.linspace(reach[1], -reach[1], 18), "x": np.linspace(-reach[0], reach[0], 36)}
    made = xr.DataArray(np.zeros((18, 36)), dims=("y", "x"), coords=places).assign_coords(spatial_ref=0)
    made.spatial_ref.attrs["crs_wkt"] = geometry.as_crs(crs).to_wkt()
    return made


def test_a_world_map_has_a_graticule():
    ax = world().emb.plot()
    assert {float(line.get_xdata()[0]) for line in ax.lines} >= {-150.0, 0.0, 150.0}
    assert ax.get_xlim() == pytest.approx((-180, 180))
    assert not world(reach=(1.75, 0.85)).emb.plot().lines
    mercator = world("EPSG:3857", (1.9e7, 1.9e7)).emb.plot()
    meridian = next(
        line for line in mercator.lines if np.allclose(line.get_xdata(), 30 * 111319.49, rtol=1e-6)
    )
    assert np.ptp(meridian.get_ydata()) > 3e7


def test_a_world_map_has_coastlines_where_cartopy_is(monkeypatch, caplog):
    import sys
    from types import SimpleNamespace

    import shapely

    coast = shapely.LineString([(10.0, 50.0), (11.0, 51.0), (12.0, 50.5)])
    reader = SimpleNamespace(
        natural_earth=lambda **asked: f"{asked['resolution']} {asked['name']}",
        Reader=lambda path: SimpleNamespace(geometries=lambda: [coast] if path == "110m coastline" else []),
    )
    monkeypatch.setitem(sys.modules, "cartopy", SimpleNamespace(io=SimpleNamespace(shapereader=reader)))
    monkeypatch.setitem(sys.modules, "cartopy.io", SimpleNamespace(shapereader=reader))
    monkeypatch.setitem(sys.modules, "cartopy.io.shapereader", reader)
    lines = world().emb.plot().lines
    assert any(np.allclose(line.get_xydata(), coast.coords) for line in lines if len(line.get_xdata()) == 3)

    def offline(**asked):
        raise OSError("no network")

    reader.natural_earth = offline
    assert world().emb.plot().lines  # the graticule stays
    assert "draws no coastlines" in caplog.text


def test_a_basemap_lies_under_a_map_on_request(monkeypatch):
    contextily = pytest.importorskip("contextily")
    asked = []
    monkeypatch.setattr(contextily, "add_basemap", lambda ax, **options: asked.append(options))
    change = scene(shape=(12, 12)).emb.change(2018, 2024)
    ax = change.emb.plot(basemap="OpenStreetMap.Mapnik")
    assert asked[0]["source"].name == "OpenStreetMap.Mapnik"
    assert asked[0]["crs"] == change.emb.crs
    assert ax.images[0].get_alpha() < 1
    change.emb.plot(basemap=True)
    assert "World" in asked[1]["source"].name
    with pytest.raises(ValueError, match="is not a provider of tiles"):
        change.emb.plot(basemap="OpenStreetMup")
    with pytest.raises(ValueError, match="leave out ax= and basemap="):
        change.emb.plot(basemap=True, interactive=True)

    def offline(ax, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(contextily, "add_basemap", offline)
    with pytest.raises(errors.SourceError, match="no tiles came for basemap=True: no network"):
        change.emb.plot(basemap=True)
    monkeypatch.setitem(__import__("sys").modules, "contextily", None)
    with pytest.raises(errors.MissingExtraError, match="pip install contextily"):
        change.emb.plot(basemap=True)
