"""The app without a browser: what a window shows, what a click answers, what labels become."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core import errors, geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.display import app as app_module
from geoemb_xr.display import app_display, explorer, windows
from geoemb_xr.display.app import App
from geoemb_xr.display.explorer import Explorer
from geoemb_xr.display.windows import Span

YEARS = [2018, 2020, 2024]


@pytest.fixture(scope="module")
def codes():
    return gx.testing.synthetic("alphaearth", shape=(96, 80), years=YEARS, decode=False, missing=True)


@pytest.fixture
def state(codes):
    return Explorer(codes, size=(80, 96))


def place(state, row, col):
    """Coordinates of a pixel's centre."""
    x, y = state.array.x.values[col], state.array.y.values[row]
    return float(x), float(y)


# --- which pixels are shown -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 7, 64, 100])
@pytest.mark.parametrize("step", [1, 2, 3, 8, 130])
def test_cells_cover_what_is_looked_at_and_show_pixels_of_the_array(size, step):
    for start, stop in [(0, size), (size * 0.3, size * 0.6), (-50, size + 50), (size - 1.5, size + 9)]:
        span = Span.of(start, stop, size, step)
        shown = np.arange(size)[span.pixels]
        assert len(shown) == span.cells >= 1
        assert span.first % step == 0
        assert [span.cell(p) for p in shown] == list(range(span.cells))
        # all but the last half cell of the array is covered
        assert span.edges[0] <= max(start, 0)
        assert span.edges[1] >= min(stop, size) - step


def test_a_view_has_at_most_the_screens_pixels_and_shows_pixels_as_they_are(codes, state):
    picture = state.view(None, None, 30, 30)
    assert picture.sizes["y"] <= 31
    assert picture.sizes["x"] <= 31
    step = state.window.rows.step
    whole = codes.isel(time=-1).emb.rgb(state.model).transpose("y", "x", "rgb")
    expected = whole.sel(y=picture.y, x=picture.x)
    np.testing.assert_array_equal(picture.transpose("y", "x", "rgb").values, expected.values)
    assert step == 4


def test_zooming_in_shows_every_pixel_and_panning_shows_the_same_pixels(state):
    left, bottom, right, top = state.bounds
    middle = (left + 100, left + 400), (bottom + 100, bottom + 400)
    near = state.view(*middle, 80, 80)
    assert state.window.rows.step == 1
    assert near.sizes["x"] == 30
    state.view((left, right), (bottom, top), 20, 20)
    before = set(state.picture().x.values)
    state.view((left + 37, right + 37), (bottom, top), 20, 20)
    assert set(state.picture().x.values) <= before


def test_shown_bounds_are_the_edges_of_the_cells(state):
    state.view(None, None, 80, 96)
    assert state.shown == pytest.approx(state.bounds)


def test_lazy_arrays_are_not_computed_beyond_the_screen(codes):
    computed = []

    def noted(block):
        computed.append(block.shape)
        return block

    lazy = codes.chunk(time=1, y=24, x=20)
    lazy.data = lazy.data.map_blocks(noted, dtype=lazy.dtype, meta=np.empty((0,) * 4, lazy.dtype))
    state = Explorer(lazy, size=(20, 20), model=codes.emb.fit_pca(3))
    assert computed == []
    left, _, _, top = state.bounds
    state.view((left, left + 100), (top - 100, top), 20, 20)
    assert computed == [(1, 64, 24, 20)]  # the one block in view, of the one year shown
    state.click(left + 15, top - 15)
    assert len(computed) == 1


def test_lazy_and_loaded_show_the_same(codes, state):
    lazy = Explorer(codes.chunk(time=1, y=40, x=33), size=(80, 96), model=state.model)
    xr.testing.assert_identical(lazy.picture(), state.picture())


def test_a_view_that_would_read_too_much_shows_its_middle(codes, monkeypatch):
    lazy = codes.chunk(time=1, y=24, x=20)
    monkeypatch.setattr(windows, "READ_LIMIT", 2 * 64 * 24 * 2 * 20)
    state = Explorer(lazy, size=(80, 96))
    assert "would read over" in state.note
    rows, cols = state.window
    assert rows.edges[0] >= 24
    assert rows.edges[1] <= 72
    assert cols.edges[0] >= 20
    assert cols.edges[1] <= 60


def test_windows_are_kept_within_memory(codes):
    state = Explorer(codes, size=(80, 96), memory=2 * 64 * 96 * 80)
    for step in range(3):
        state.go_to(step)
        state.picture()
    assert [key[0] for key in state._kept] == [1, 2]
    state.memory = 1
    state.view(None, None, 40, 40)
    assert len(state._kept) == 1


def test_south_up_is_shown_north_up(codes, state):
    flipped = Explorer(codes.isel(y=slice(None, None, -1)), size=(80, 96), model=state.model)
    np.testing.assert_array_equal(flipped.picture().values, state.picture().values)


# --- clicks ---------------------------------------------------------------------------------------------------


def test_a_click_answers_with_the_vector_its_course_and_its_like(codes, state):
    x, y = place(state, 60, 50)
    pixel = state.click(x, y)
    vectors = codes.emb.decode().isel(y=60, x=50)
    np.testing.assert_array_equal(pixel.vector, vectors.isel(time=-1).values)
    assert (pixel.row, pixel.col, pixel.x, pixel.y) == (60, 50, x, y)

    course = state.course(pixel)
    first = vectors.isel(time=0).values
    for i in range(3):
        v = vectors.isel(time=i).values
        cosine = v @ first / np.linalg.norm(v) / np.linalg.norm(first)
        assert course.iloc[i] == pytest.approx(np.degrees(np.arccos(min(cosine, 1))), abs=0.02)

    similar = state.answer("similarity")
    assert float(similar.sel(x=x, y=y)) == pytest.approx(1, abs=1e-6)
    assert float(similar.max()) <= 1 + 1e-6
    assert np.isnan(similar.values[0, 0])


def test_what_is_clicked_is_the_pixel_that_is_shown(state):
    state.view(None, None, 20, 20)
    x, y = place(state, 61, 50)
    pixel = state.click(x, y)
    picture = state.picture()
    assert pixel.x in picture.x.values
    assert pixel.y in picture.y.values
    assert abs(pixel.x - x) <= 10 * state.window.cols.step / 2
    assert abs(pixel.y - y) <= 10 * state.window.rows.step / 2


def test_a_click_beside_the_window_reads_that_pixel(codes, state):
    left, _, _, top = state.bounds
    state.look((left, left + 300), (top - 300, top), 30, 30)
    pixel = state.click(*place(state, 90, 70))
    np.testing.assert_array_equal(pixel.vector, codes.emb.decode().isel(time=-1, y=90, x=70).values)


def test_clicks_on_nothing_say_so_and_change_nothing(state):
    before = state.click(*place(state, 60, 50))
    assert state.click(*place(state, 2, 2)) is None
    assert state.note == "There is no data at that pixel."
    assert state.click(state.bounds[0] - 50, state.centre[1]) is None
    assert state.note == "That is outside of the array."
    assert state.pixel is before


def test_a_course_skips_years_without_data(codes):
    vectors = codes.emb.decode().copy()
    vectors[0, :, 60, 50] = np.nan
    state = Explorer(vectors, size=(80, 96))
    course = state.course(state.click(*place(state, 60, 50)))
    assert np.isnan(course.iloc[0])
    assert course.iloc[1] == 0
    assert course.iloc[2] > 0.5


def test_the_query_stays_while_the_year_changes(state):
    pixel = state.click(*place(state, 60, 50))
    now = state.answer("similarity")
    state.go_to(0)
    assert state.period == "2018"
    earlier = state.answer("similarity")
    assert state.pixel is pixel
    assert float(earlier.sel(x=pixel.x, y=pixel.y)) < float(now.sel(x=pixel.x, y=pixel.y))


def test_change_is_that_of_the_array(codes, state):
    expected = codes.emb.change(2018, 2024)
    found = state.answer("change")
    np.testing.assert_allclose(
        found.transpose("y", "x").values, expected.transpose("y", "x").values, atol=1e-4
    )
    state.go_to(0)
    assert state.answer("change") is None


def test_threads_share_what_is_drawn_of_many_pixels(codes, state, monkeypatch):
    whole = Explorer(codes, model=state.model)
    label_truth(whole)
    maps = [whole.picture(), *(whole.answer(kind) for kind in ("similarity", "change", "classes"))]
    monkeypatch.setattr(explorer, "STRIP", 7 * codes.sizes["x"])
    for before, after in zip(
        maps, [whole.picture(), *(whole.answer(k) for k in ("similarity", "change", "classes"))], strict=True
    ):
        assert after.chunks is None
        assert after.attrs == before.attrs
        xr.testing.assert_allclose(before, after, rtol=1e-6, atol=1e-6)


def test_products_without_unit_length_and_with_scales_work():
    codes = gx.testing.synthetic("tessera", shape=(40, 40), years=[2020, 2021], decode=False)
    state = Explorer(codes, size=(20, 20))
    pixel = state.click(*state.centre)
    assert pixel.vector.shape == (128,)
    assert np.linalg.norm(pixel.vector) > 20
    assert float(state.answer("similarity").max()) == pytest.approx(1, abs=1e-5)


# --- labels ---------------------------------------------------------------------------------------------------


def label_truth(state, n=4):
    """Label some pixels of the two commonest classes as the scene has them; the codes of those."""
    scene = gx.testing.scene()
    truth = scene.truth(state.grid, 2024).values
    codes = np.argsort(np.bincount(truth[40:].ravel()))[-2:]
    for code in codes:
        name = scene.names[code - 1]
        state.add_class(name)
        rows, cols = np.nonzero(truth[40:] == code)
        for i in np.linspace(0, len(rows) - 1, n).astype(int):
            state.label(*place(state, rows[i] + 40, cols[i]), name)
    return codes


def test_labels_become_a_probe_and_a_map(codes, state):
    assert state.probe is None
    assert state.answer("classes") is None
    codes = label_truth(state)
    scene, probe = gx.testing.scene(), state.probe
    assert dict(zip(probe.legend.names, probe.legend.colours, strict=True)) == state.classes
    truth = scene.truth(state.grid, 2024).values
    found = state.answer("classes").transpose("y", "x").values
    table = np.array([0, *(scene.names.index(name) + 1 for name in probe.legend.names)])
    known = np.isin(truth, codes) & (found > 0)
    assert (table[found][known] == truth[known]).mean() > 0.95
    assert (found[:20, :20] == 0).all()  # the corner without data


def test_labels_come_back_as_points_that_fit_the_same_probe(codes, state):
    label_truth(state)
    labels = state.labels
    assert labels.crs.to_epsg() == 32632
    assert list(labels.columns) == ["label", "time", "geometry"]
    assert (labels["time"] == np.datetime64("2024-01-01")).all()
    again = codes.emb.fit_probe(labels, target="label", time="time", cv=0)
    for name, values in state.probe.parameters.items():
        np.testing.assert_allclose(again.parameters[name], values, rtol=1e-3, atol=1e-3)


def test_a_pixel_has_one_label_a_year_and_the_last_can_be_undone(state):
    state.add_class("a")
    state.add_class("b")
    x, y = place(state, 60, 50)
    state.label(x, y, "a")
    state.label(x, y, "b")
    assert state.counts() == {"a": 0, "b": 1}
    state.go_to(0)
    state.label(x, y, "a")
    assert state.counts() == {"a": 1, "b": 1}
    assert state.probe is not None
    state.undo()
    assert state.counts() == {"a": 0, "b": 1}
    assert state.probe is None
    state.undo()
    state.undo()
    assert state.labels.empty


def test_classes_need_names_of_their_own(state):
    state.add_class(" a ")
    for name in ("a", "", "  "):
        with pytest.raises(ValueError, match="name of its own"):
            state.add_class(name)
    with pytest.raises(ValueError, match="class='c' is not known; valid are 'a'"):
        state.label(*state.centre, "c")


# --- patches --------------------------------------------------------------------------------------------------


def test_patches_are_explored_on_their_own_grid_and_asked_by_place():
    patches = gx.open("earth-index", gx.example("earth-index"))
    state = Explorer(patches, size=(64, 64))
    to_grid = geometry.transformer(geometry.as_crs(4326), geometry.as_crs(state.grid.crs))
    pixel = state.click(*to_grid.transform(float(patches.x[7]), float(patches.y[7])))
    np.testing.assert_array_equal(pixel.vector, patches[7].values)
    assert gx.explore(patches).state.array.sizes["band"] == 384


# --- what cannot be explored ----------------------------------------------------------------------------------


def test_what_is_no_raster_embedding_is_refused(codes):
    with pytest.raises(EmbeddingError, match="explore needs an embedding"):
        gx.explore(codes.emb.change(2018, 2024))
    points = codes.isel(time=0).emb.sample([(gx.testing.scene().lon, gx.testing.scene().lat)])
    with pytest.raises(EmbeddingError, match="needs a raster"):
        gx.explore(points)
    with pytest.raises(EmbeddingError, match="shows dims time, band, y and x"):
        gx.explore(codes.expand_dims("model"))
    with pytest.raises(ValueError, match="there are 3 periods"):
        Explorer(codes).go_to(3)


def test_without_panel_the_extra_is_named(codes, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "panel", None)
    with pytest.raises(errors.MissingExtraError, match=r"pip install '\.\[viz\]'"):
        gx.explore(codes)


# --- the display ----------------------------------------------------------------------------------------------


@pytest.fixture
def app(codes):
    return gx.explore(codes, width=700)


@pytest.fixture
def display(app):
    return app.display()


def image(display, name):
    return display.sources[name].data["image"][0]


def test_the_first_display_has_a_picture_and_a_pixel(app, display):
    assert isinstance(app, App)
    assert image(display, "picture").dtype == np.uint32
    assert display.sources["ring"].data["x"] == [app.state.pixel.x]
    assert len(display.sources["vector"].data["value"]) == 64
    assert display.sources["course"].data["year"] == [2018, 2020, 2024]
    assert "synthetic" in display.layout[0].object
    assert "synthetic data in the form of alphaearth" in display.layout[-1].object


def test_the_picture_lies_as_the_array(app, display):
    data = display.sources["picture"].data
    left, bottom, right, top = app.state.shown
    assert (data["x"], data["y"]) == ([left], [bottom])
    assert data["dw"] == [right - left]
    assert data["dh"] == [top - bottom]
    alpha = image(display, "picture").view(np.uint8).reshape(*image(display, "picture").shape, 4)[..., 3]
    assert alpha[-1, 0] == 0  # Bokeh's rows run from south to north: the empty corner is the north-west
    assert alpha[0, 0] == 255


def test_a_tap_moves_the_ring_and_redraws_the_map(app, display):
    before = image(display, "answer").copy()
    x, y = place(app.state, 80, 20)
    display.tap(x, y)
    assert display.sources["ring"].data == {"x": [app.state.pixel.x], "y": [app.state.pixel.y]}
    assert not np.array_equal(before, image(display, "answer"))


def test_a_tap_does_not_send_the_picture_again(app, display):
    before = display.sources["picture"].data
    display.tap(*place(app.state, 80, 20))
    assert display.sources["picture"].data is before


def test_the_view_source_moves_the_window(app, display):
    left, bottom, _, _ = app.state.bounds
    display.sources["view"].data = {"x0": [left], "x1": [left + 200], "y0": [bottom], "y1": [bottom + 200]}
    assert display.sources["picture"].data["dw"] == [200]
    assert image(display, "picture").shape == (20, 20)


def test_the_slider_goes_through_the_years(app, display):
    before = image(display, "picture").copy()
    display.widgets["period"].value = 0
    assert app.state.period == "2018"
    assert not np.array_equal(before, image(display, "picture"))


def test_labelling_refits_and_shows_classes(app, display):
    for name, places in {"a": [(60, 50), (80, 20)], "b": [(50, 70), (90, 75)]}.items():
        display.widgets["name"].value = name
        display.widgets["add"].clicks += 1
        assert display.widgets["mode"].value == name
        for each in places:
            display.tap(*place(app.state, *each))
    assert display.widgets["answer"].value == "classes"
    assert set(app.probe.legend.names) == {"a", "b"}
    assert len(app.labels) == 4
    assert display.sources["labels"].data["colour"][0] == app.state.classes["a"]
    colours = np.unique(image(display, "answer").view(np.uint8).reshape(-1, 4), axis=0)
    assert len(colours) == 3  # two classes and nothing
    display.widgets["undo"].clicks += 1
    assert len(app.labels) == 3


def test_a_second_display_shows_the_same_state(app, display):
    display.widgets["name"].value = "a <b>"
    display.widgets["add"].clicks += 1
    display.tap(*place(app.state, 60, 50))
    other = app.display()
    assert "a <b>" in other.widgets["mode"].options
    assert other.sources["labels"].data["x"] == display.sources["labels"].data["x"]
    assert "a &lt;b&gt;" in display._status.object


def test_colours_stay_while_the_view_moves(app, display):
    heading = display._heads[1].object
    left, bottom, _, _ = app.state.bounds
    display.sources["view"].data = {"x0": [left], "x1": [left + 300], "y0": [bottom], "y1": [bottom + 300]}
    assert display._heads[1].object == heading


def test_one_year_has_neither_slider_nor_course(codes):
    for array in (codes.isel(time=[0]), codes.isel(time=0), codes.isel(time=0, drop=True)):
        display = gx.explore(array).display()
        assert "period" not in display.widgets
        assert "course" not in display.figures
        assert "change" not in display.widgets["answer"].values


def test_frames_have_the_shape_of_the_ground(codes):
    grid = geometry.make_geobox((40, 80), gx.testing.Affine(1e-4, 0, 11.3, 0, -1e-4, 60.0), "EPSG:4326")
    flat = gx.testing.synthetic("alphaearth", grid=grid)
    width, height = app_module._map_size(flat, 1180)
    assert height / width == pytest.approx(0.5 / np.cos(np.radians(59.998)), rel=0.01)
    x_range, y_range = gx.explore(flat).display()._start()
    ratio = (y_range[1] - y_range[0]) / (x_range[1] - x_range[0])
    assert ratio == pytest.approx(height / width * np.cos(np.radians(59.998)), rel=0.01)


def test_tiles_lie_under_the_map_in_web_mercator(codes):
    app = gx.explore(codes, tiles=True)
    assert geometry.as_crs(app.state.grid.crs).to_epsg() == 3857
    kinds = [type(r).__name__ for r in app.display().figures["picture"].renderers]
    assert kinds[0] == "TileRenderer"


def test_no_tiles_and_no_other_host_unless_asked_for(display):
    kinds = [type(r).__name__ for figure in display.figures.values() for r in figure.renderers]
    assert "TileRenderer" not in kinds


def test_real_alphaearth_can_be_explored(real_data):
    files = sorted((real_data / "alphaearth-raster").glob("*.tif"))
    array = gx.open("alphaearth", str(files[0]), decode=False)
    state = Explorer(array, size=(60, 60))
    assert state.click(*state.centre) is not None
    similar = state.answer("similarity").values
    assert np.nanmax(similar) == pytest.approx(1, abs=1e-5)
    assert isinstance(array.data, da.Array)


# --- labels of one's own ---------------------------------------------------------------------------------------


def brought(state):
    """A pixel of a forest, and a box and a round of fields, of two years, and one far away."""
    import geopandas as gpd
    import shapely

    x, y = place(state, 60, 50)
    shapes = [
        shapely.box(x - 5, y - 5, x + 5, y + 5),
        shapely.box(x - 105, y - 105, x - 65, y - 65),
        shapely.Point(x + 60, y).buffer(25),
        shapely.Point(x + 1e5, y).buffer(20),
    ]
    names = ["forest", "field", "field", "field"]
    columns = {"class": names, "year": [2024, 2024, 2018, 2024]}
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=state.grid.crs)


def test_explore_starts_from_labels_of_any_shape(codes, caplog):
    frame = brought(Explorer(codes))
    app = gx.explore(codes, labels=frame.to_crs(4326), width=700)
    assert "1 of 4 labels" in caplog.text
    counts = app.state.counts()
    assert counts["forest"] == 1
    assert counts["field"] >= 16 + 12
    labels = app.labels
    assert set(labels["time"].dt.year) == {2018, 2024}
    box = frame.geometry.iloc[1]
    inside = labels[(labels["label"] == "field") & (labels["time"].dt.year == 2024)]
    assert inside.within(box).sum() == 16
    pixel, _ = app.state.labelled[0]
    np.testing.assert_array_equal(
        pixel.vector, codes.emb.decode().isel(time=-1, y=pixel.row, x=pixel.col).values
    )
    assert app.probe.legend.names == ("field", "forest")
    assert app.state.classes["forest"] == "#2f6b3a"  # the colour that readers expect


def test_labels_are_saved_and_loaded_again(codes, tmp_path):
    app = gx.explore(codes, labels=brought(Explorer(codes)), width=700)
    path = app.save_labels(tmp_path / "labels.gpkg")
    again = gx.explore(codes, width=700)
    again.load_labels(path)
    assert again.state.counts() == app.state.counts()
    assert {p.key for p, _ in again.state.labelled} == {p.key for p, _ in app.state.labelled}
    display = again.display()
    written = display._labels_file().getvalue()
    third = gx.explore(codes, width=700).display()
    third.widgets["load"].param.update(filename="labels.geojson", value=written)
    assert third.state.note == f"Read {len(app.labels)} labelled pixels of labels.geojson."
    assert third.state.counts() == app.state.counts()
    third.widgets["load"].param.update(filename="labels.geojson", value=b"{}")
    assert third.state.counts() == app.state.counts()
    assert third.state.note


def test_explore_shows_a_probe_until_a_label_changes(codes, state):
    label_truth(state)
    app = gx.explore(codes, probe=state.probe, width=700)
    assert app.probe is state.probe
    assert app.state.classes == state.classes
    xr.testing.assert_equal(
        app.state.answer("classes"),
        Explorer(codes)
        .array.isel(time=-1)
        .emb.predict(state.probe)
        .isel(y=app.state.window.rows.pixels, x=app.state.window.cols.pixels),
    )
    app.state.label(*place(app.state, 60, 50), next(iter(state.classes)))
    assert app.probe is None


def test_classes_are_renamed_recoloured_and_deleted_and_labels_taken_back(state):
    label_truth(state)
    first, second = state.classes
    before = state.counts()
    assert state.probe is not None
    state.rename_class(first, "mine")
    assert list(state.classes) == ["mine", second]
    assert state.counts() == {"mine": before[first], second: before[second]}
    state.recolour_class("mine", "#123456")
    assert "#123456" in state.probe.legend.colours
    with pytest.raises(ValueError, match="#rrggbb"):
        state.recolour_class("mine", "blue")
    with pytest.raises(ValueError, match="no class has"):
        state.rename_class("mine", second)
    pixel, _ = state.labelled[0]
    assert state.unlabel(pixel.x + 5, pixel.y)
    assert not state.unlabel(pixel.x + 5000, pixel.y)
    assert state.counts()["mine"] == before[first] - 1
    state.remove_class(second)
    assert state.counts() == {"mine": before[first] - 1}
    assert state.probe is None


def test_buttons_rename_recolour_and_delete_the_chosen_class(app, display):
    w = display.widgets
    assert not display._edit.visible
    w["name"].value = "forest"
    w["add"].param.trigger("clicks")
    assert display._edit.visible
    assert w["colour"].value == "#2f6b3a"
    display.tap(*place(app.state, 60, 50))
    w["name"].value = "wood"
    w["rename"].param.trigger("clicks")
    assert app.state.counts() == {"wood": 1}
    w["colour"].value = "#00ff00"
    assert display.sources["labels"].data["colour"] == ["#00ff00"]
    w["delete"].param.trigger("clicks")
    assert app.state.classes == {}
    assert w["mode"].value == app_display._LOOK
    assert not display._busy.value


def test_a_display_holds_a_picture_for_where_no_script_runs(app):
    data, _ = app._repr_mimebundle_()
    page = data["text/html"]
    assert page.count('src="data:image/png;base64,iVBOR') == 1
    assert "This is a picture of the app" in page
    assert page.index("data:image/png") < page.index("data-root-id")


def test_the_scripts_are_loaded_at_every_display_in_a_notebook(app, monkeypatch):
    import panel as pn

    loaded = []
    monkeypatch.setattr(app_module, "in_notebook", lambda: True)
    monkeypatch.setattr(pn, "extension", lambda **options: loaded.append(options))
    app._repr_mimebundle_()
    app._repr_mimebundle_()
    assert loaded == [{"inline": True}] * 2
