"""The app's right map of other arrays, its drawn shapes, its keys, and a sample that is labelled one by one."""

import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from bokeh.events import SelectionGeometry

import geoemb_xr as gx
from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.display import app_widgets
from geoemb_xr.display.explorer import Explorer

SHAPE = (60, 50)


@pytest.fixture(scope="module")
def codes():
    return gx.testing.synthetic("alphaearth", shape=SHAPE, years=[2018, 2024], decode=False)


@pytest.fixture(scope="module")
def truth(codes):
    return gx.testing.scene().truth(geometry.geobox_of(codes, "test"), 2024)


@pytest.fixture
def display(codes):
    return gx.explore(codes, width=700).display()


def image(display, name):
    return np.asarray(display.sources[name].data["image"][0])[::-1]


def place(state, row, col):
    return float(state.array.x.values[col]), float(state.array.y.values[row])


def choose(display, name):
    display.widgets["name"].value = name
    display.widgets["add"].clicks += 1


# --- what the right map shows ---------------------------------------------------------------------------------


def test_the_right_map_shows_another_year_in_the_same_colours(display):
    w = display.widgets
    assert not w["other"].visible
    w["answer"].value = "year"
    assert w["other"].visible
    before = image(display, "picture")
    assert not np.array_equal(image(display, "answer"), before)
    w["period"].value = 0
    np.testing.assert_array_equal(image(display, "answer"), image(display, "picture"))
    w["other"].value = 1
    np.testing.assert_array_equal(image(display, "answer"), before)
    assert "Embedding 2024" in display._heads[1].object


def test_a_class_map_beside_lies_pixel_on_pixel(codes, truth):
    state = Explorer(codes, size=SHAPE[::-1], compare=truth)
    xr.testing.assert_equal(state.answer("compared").drop_attrs(), truth.drop_attrs())
    display = gx.explore(codes, compare=truth, width=700).display()
    display.widgets["answer"].value = "compared"
    assert len(np.unique(image(display, "answer"))) == len(np.unique(truth.values))


def test_another_product_of_another_grid_is_shown_in_its_own_colours_and_the_year_that_is_nearest(codes):
    grid = geometry.geobox_of(codes, "test")
    other = gx.testing.synthetic("tessera", grid=grid.pad(8), years=[2019, 2023])
    state = Explorer(codes, size=(25, 30), compare=other)
    found = state.answer("compared")
    assert dict(found.sizes) == {"y": 30, "x": 25, "rgb": 4}
    assert state.compared.year(state.times[state.step]) == "2023"
    # the middle one of each cell, in colours that its PCA gives it
    at = other.isel(time=-1).sel(x=state.picture().x, y=state.picture().y, method="nearest")
    palette = state.compared._palette
    np.testing.assert_array_equal(found.values[..., :3], palette.apply(at).values[..., :3])
    state.go_to(0)
    state.answer("compared")
    assert state.compared.year(state.times[0]) == "2019"


def test_what_cannot_lie_beside_is_refused(codes):
    with pytest.raises(EmbeddingError, match="select one step first of component"):
        gx.explore(codes, compare=codes.emb.pca(codes.emb.fit_pca(3)))


def test_the_swipe_is_there_when_it_is_wanted(display):
    assert not display.swipe.slider.visible
    display.widgets["swipe"].value = True
    assert display.swipe.slider.visible
    assert display.swipe.line.visible


# --- shapes ---------------------------------------------------------------------------------------------------


def drag(display, x0, y0, x1, y1):
    figure = display.figures["answer"]
    geometry = {"type": "rect", "x0": x0, "y0": y0, "x1": x1, "y1": y1}
    figure._trigger_event(SelectionGeometry(figure, geometry=geometry, final=True))


def test_a_box_labels_its_pixels_and_is_taken_back_at_once(display):
    state = display.state
    x, y = place(state, 30, 20)
    drag(display, x - 15, y - 15, x + 15, y + 15)
    assert "Choose a class first" in display._status.object
    choose(display, "field")
    display.widgets["shape"].value = "box"
    drag(display, x - 15, y - 15, x + 15, y + 15)
    assert {(p.row, p.col) for p, _ in state.labelled} == {(r, c) for r in (29, 30, 31) for c in (19, 20, 21)}
    assert len(display.sources["labels"].data["x"]) == 9
    display.widgets["undo"].clicks += 1
    assert state.counts() == {"field": 0}
    assert display.figures["picture"].toolbar.active_drag.__class__.__name__ == "BoxSelectTool"
    display.widgets["shape"].value = "pixel"
    assert display.figures["picture"].toolbar.active_drag.__class__.__name__ == "PanTool"


@pytest.mark.parametrize("end", ["double click", "Enter"])
def test_a_polygon_is_drawn_corner_by_corner(display, end):
    state = display.state
    choose(display, "field")
    display.widgets["shape"].value = "polygon"
    corners = [place(state, 10, 10), place(state, 10, 30), place(state, 40, 30)]
    for corner in corners:
        display.tap(*corner)
    assert state.labelled == []
    if end == "Enter":
        display.press("Enter")
    else:
        display.tap(*corners[-1], twice=True)
    shape = shapely.Polygon(corners)
    assert 40 <= len(state.labelled) <= 50
    assert all(shape.buffer(1e-6).contains(shapely.Point(p.x, p.y)) for p, _ in state.labelled)
    assert display.shapes.corners == []
    display.tap(*corners[0])
    display.press("Escape")
    assert display.shapes.corners == []
    assert display.widgets["mode"].value == "field"


# --- keys -----------------------------------------------------------------------------------------------------


def test_keys_go_through_years_and_classes(display):
    state, w = display.state, display.widgets
    display.keys.data = {"key": ["ArrowLeft"], "count": [1]}
    assert state.period == "2018"
    assert w["period"].value == 0
    display.press("ArrowLeft")
    assert state.period == "2018"
    display.press("ArrowRight")
    assert state.period == "2024"
    for name in ("a", "b"):
        choose(display, name)
    display.press("1")
    assert w["mode"].value == "a"
    display.press("7")
    assert w["mode"].value == "a"
    display.press("Enter")
    assert state.counts() == {"a": 1, "b": 0}
    display.press("Escape")
    assert w["mode"].value == app_widgets.LOOK
    display.press("Enter")
    assert state.counts() == {"a": 1, "b": 0}


# --- a sample -------------------------------------------------------------------------------------------------


def test_a_sample_is_labelled_one_by_one_without_its_strata(codes, truth, tmp_path):
    design = gx.sample_design(truth, 12, least=2)
    app = gx.explore(codes, design=design, width=700)
    display = app.display()
    w, walk = display.widgets, app.state.walk
    assert "Place 1 of 12" in w["walk"].object
    cross = display.sources["place"].data
    lonlat = geometry.transformer(geometry.as_crs(app.state.grid.crs), geometry.as_crs(4326))
    np.testing.assert_allclose(lonlat.transform(cross["x"][0], cross["y"][0]), design[["lon", "lat"]].iloc[0])
    display.press("Enter")  # no class is chosen yet
    assert walk.left == 12
    names = sorted(design["stratum"].unique())
    assert list(app.state.classes) == names
    for at in range(12):
        if at == 3:
            w["skip"].clicks += 1
            w["back"].clicks += 1
        display.press(str(names.index(design["stratum"].iloc[at]) + 1))
    assert "All places are labelled" in w["walk"].object
    found = app.design
    pd.testing.assert_frame_equal(found.drop(columns="label"), design.drop(columns="label"))
    assert list(found["label"]) == list(design["stratum"])
    assert app.labels.empty  # what tests a map does not train it
    assert gx.area_estimate(truth, found).overall == 1.0
    # what is half done goes on
    found.loc[5:, "label"] = None
    found.to_csv(tmp_path / "half.csv", index=False)
    again = gx.explore(codes, design=tmp_path / "half.csv", width=700)
    assert again.state.walk.at == 5
    saved = again.display()._design_file().read()
    assert saved.splitlines()[0] == "lon,lat,stratum,stratum_ha,label,geometry"
    page = str(display.layout.select(lambda each: hasattr(each, "object")))
    assert "stratum" not in page


def test_a_sample_of_elsewhere_is_refused(codes):
    with pytest.raises(EmbeddingError, match="1 of 1 places of the design lie outside"):
        gx.explore(codes, design=pd.DataFrame({"lon": [0.0], "lat": [0.0]}))


# --- points ---------------------------------------------------------------------------------------------------


def test_points_are_explored_as_squares_as_wide_as_they_are_apart(codes):
    grid = geometry.geobox_of(codes, "test")
    xs, ys = np.meshgrid(
        grid.boundingbox.left + np.arange(5, 500, 100), grid.boundingbox.top - np.arange(5, 600, 100)
    )
    points = codes.emb.sample(geometry_points(xs, ys, grid.crs))
    app = gx.explore(points, width=700)
    state = app.state
    assert state.periods == ["2018", "2024"]
    assert abs(state.grid.resolution.x) == pytest.approx(100, rel=0.01)
    pixel = state.click(float(points.x[7]), float(points.y[7]))
    np.testing.assert_array_equal(pixel.vector, points.emb.decode().isel(time=-1, location=7).values)
    app.state.add_class("a")
    assert app.state.label(float(points.x[3]), float(points.y[3]), "a") is not None


def geometry_points(xs, ys, crs):
    import geopandas as gpd

    return gpd.GeoDataFrame(geometry=gpd.points_from_xy(xs.ravel(), ys.ravel()), crs=geometry.as_crs(crs))
