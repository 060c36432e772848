"""The app without a browser: what a window shows, what a click answers, what labels become."""

from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from explored import label_truth, place

import geoemb_xr as gx
from geoemb_xr.core import errors, geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.display import app as app_module
from geoemb_xr.display import app_widgets
from geoemb_xr.display.app import App
from geoemb_xr.display.explorer import Explorer

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
        assert not display.widgets["period"].visible
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


def test_buttons_rename_recolour_and_delete_the_chosen_class(app, display):
    w = display.widgets
    assert not w["edit"].visible
    w["name"].value = "forest"
    w["add"].param.trigger("clicks")
    assert w["edit"].visible
    assert w["colour"].value == "#2f6b3a"
    display.tap(*place(app.state, 60, 50))
    w["name"].value = "wood"
    w["rename"].param.trigger("clicks")
    assert app.state.counts() == {"wood": 1}
    w["colour"].value = "#00ff00"
    assert display.sources["labels"].data["colour"] == ["#00ff00"]
    w["delete"].param.trigger("clicks")
    assert app.state.classes == {}
    assert w["mode"].value == app_widgets.LOOK
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
    shown = SimpleNamespace(layout=SimpleNamespace(_repr_mimebundle_=lambda include, exclude: {}))
    monkeypatch.setattr(app, "display", lambda: shown)  # Panel's own part, which takes seconds
    monkeypatch.setattr(app_module, "in_notebook", lambda: True)
    monkeypatch.setattr(pn, "extension", lambda **options: loaded.append(options))
    app._repr_mimebundle_()
    app._repr_mimebundle_()
    assert loaded == [{"inline": True}] * 2
