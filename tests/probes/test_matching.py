"""Labels in whatever holds them mean the same to all verbs, and each is of the vector at its place."""

import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core.errors import CoverageError, EmbeddingError
from geoemb_xr.core.legend import Legend
from geoemb_xr.display import given_labels
from geoemb_xr.probes import label_values, matching


@pytest.fixture(scope="module")
def array():
    return gx.testing.synthetic("alphaearth", shape=(48, 48)).emb.year(2018).compute()


@pytest.fixture(scope="module")
def frame(array):
    truth = gx.testing.scene().truth(array.emb.geobox, 2018)
    rows, cols = np.random.default_rng(3).integers(2, 46, (2, 30))
    labels = np.where(truth.values[rows, cols] % 2, "odd", "even")
    x, y = array.x.values[cols], array.y.values[rows]
    return gpd.GeoDataFrame({"label": labels}, geometry=gpd.points_from_xy(x, y), crs=32632)


def geojson(frame):
    return json.loads(frame.to_crs(4326).to_json())


def table(frame):
    degrees = frame.to_crs(4326).geometry
    return pd.DataFrame({"label": frame.label, "lon": degrees.x, "lat": degrees.y})


def semicolons(frame, path):
    table(frame).to_csv(path / "a b.CSV", index=False, sep=";", decimal=",")
    return path / "a b.CSV"


def metres(frame):
    with_crs = json.loads(frame.to_json())  # as GDAL wrote GeoJSON before RFC 7946
    return {**with_crs, "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}}


SPATIAL_REF = gx.testing.synthetic("alphaearth", shape=(2, 2)).spatial_ref
FORMS = {
    "GeoJSON": lambda frame, path: geojson(frame),
    "features": lambda frame, path: geojson(frame)["features"],
    "metres": lambda frame, path: metres(frame),
    "records": lambda frame, path: table(frame).to_dict("records"),
    "index": lambda frame, path: table(frame).set_index(["lat", "lon"]),
    "file": semicolons,
    "points": lambda frame, path: xr.Dataset(
        {"label": ("location", frame.label)},
        {"x": ("location", frame.geometry.x), "y": ("location", frame.geometry.y), "spatial_ref": SPATIAL_REF},
    ),
}  # fmt: skip


def classes(array):
    return array.emb.predict(
        gx.fit_probe(array, gx.testing.scene().points(60, radius=200), target="land_cover", cv=0)
    )


def shown(array, labels):
    found, _ = given_labels.labelled_pixels(array, None, 0, labels, "label")
    return sorted((each.row, each.col, name) for each, name in found)


def compared(array, labels):
    options = {"methods": ["knn"], "n_labels": [None], "splits": ["random"]}
    return gx.evaluate({"a": array}, labels, target="label", **options).table().to_string()


VERBS = {
    "fit_probe": lambda array, labels: array.emb.fit_probe(labels, target="label", cv=0).parameters[
        "weights"
    ],
    "evaluate": compared,
    "area_estimate": lambda array, labels: gx.area_estimate(classes(array), labels, design="random").overall,
    "explore": shown,
}


@pytest.mark.usefixtures("no_location_encoder")
@pytest.mark.parametrize("verb", VERBS)
def test_labels_mean_the_same_in_every_form(array, frame, tmp_path, verb):
    expected = VERBS[verb](array, frame)
    for name, form in FORMS.items():
        np.testing.assert_array_equal(VERBS[verb](array, form(frame, tmp_path)), expected, name)


def test_a_file_is_named_where_its_labels_are_none(array, tmp_path):
    (tmp_path / "labels.csv").write_text("a,b\n1,2\n")
    for verb in VERBS:
        with pytest.raises(EmbeddingError, match="label"):
            VERBS[verb](array, tmp_path / "labels.csv")
    with pytest.raises(EmbeddingError, match=r"labels\.csv: a table of places needs columns"):
        array.emb.fit_probe(tmp_path / "labels.csv", target="a")
    with pytest.raises(EmbeddingError, match=r"labels are a table with lon and lat.*got int"):
        array.emb.fit_probe(3)


# --- what labels are ------------------------------------------------------------------------------------------

GAPS = {
    "texts": (["a", None, " ", "b"], ["a", None, None, "b"]),
    "bytes": (np.array([b"a", b"", b"b"]), ["a", None, "b"]),
    "strings of Arrow": (pd.array(["a", None, "b"], "string[pyarrow]"), ["a", None, "b"]),
    "categories": (pd.Categorical([1.0, None, 2.0]), ["1", None, "2"]),
    "whole numbers": (pd.array([1, None, 2], "Int64"), ["1", None, "2"]),
    "whole numbers of Arrow": (pd.array([1, None, 2], "int64[pyarrow]"), ["1", None, "2"]),
    "floats": (np.array([1, np.nan, 2]), ["1", None, "2"]),
    "booleans": (pd.array([True, None, False], "boolean"), ["True", None, "False"]),
    "infinite": (np.array([0.5, np.inf, 0.25]), ["0.5", None, "0.25"]),
    "nothing": ([None, np.nan], [None, None]),
}


@pytest.mark.parametrize("kind", GAPS)
def test_gaps_are_none_in_every_type(kind):
    given, expected = GAPS[kind]
    assert label_values.class_names(given).tolist() == expected


@pytest.mark.parametrize(
    ("given", "says"),
    [([[1], [2], [1, 2]], "one text, number or boolean each"), (np.array([1j]), "got complex128"),
     (np.array([[1], None], object), "got list"), (pd.to_timedelta([1], "D"), "got timedelta64")],
)  # fmt: skip
def test_what_is_no_label_is_refused(given, says):
    with pytest.raises(EmbeddingError, match=says):
        label_values.as_labels(given)


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["False", "True"], [True, False]),
        (["0", "1"], [1, 0]),
        (["oats", "rye"], [2, 1]),
        (["1", "2"], [2.0, 1.0]),
    ],
)
def test_references_mean_the_class_that_their_map_calls_so(array, names, labels):
    truth = gx.testing.scene().truth(array.emb.geobox, 2018)
    legend = Legend.of_names(names)
    halves = truth.copy(data=1 + (np.indices(truth.shape)[1] > 23)).astype("u1")
    halves.attrs = legend.attrs()
    x, y = [679_500.0, 679_100.0] * 2, [5_235_700.0] * 2 + [5_235_500.0] * 2
    table = gpd.GeoDataFrame({"label": labels * 2}, geometry=gpd.points_from_xy(x, y), crs=32632)
    assert gx.area_estimate(halves, table, design="stratified").overall == 1.0


# --- on points and patches ------------------------------------------------------------------------------------


def test_labels_of_patches_go_by_place_and_among_the_vectors_of_one_by_index():
    clay = gx.open("clay-v0", gx.example("clay-v0"))  # each place twice
    labels = gpd.GeoDataFrame(
        {"label": [*"ab" * 10] * 2}, geometry=gpd.points_from_xy(clay.x, clay.y), crs=4326
    )
    np.testing.assert_array_equal(matching.points_of(clay, labels), np.arange(40))
    moved = labels.iloc[:20][::-1].reset_index(drop=True)
    places = clay.isel(location=matching.points_of(clay, moved))
    np.testing.assert_array_equal(places.x, moved.geometry.x)
    probe = clay.emb.fit_probe(moved, target="label", cv=0)
    np.testing.assert_array_equal(probe.counts["a"], 10)
    own = clay.emb.to_geodataframe()[["geometry"]]
    np.testing.assert_array_equal(matching.points_of(clay, own), np.arange(40))


def test_labels_of_points_go_by_index_and_must_lie_there(array, frame):
    sampled = array.emb.sample(frame.geometry)
    expected = array.emb.fit_probe(frame, target="label", cv=0)
    assert sampled.emb.fit_probe(frame, target="label", cv=0).counts == expected.counts
    half = sampled.emb.fit_probe(frame.iloc[:20], target="label", cv=0)
    assert sum(half.counts.values()) == 20
    with pytest.raises(EmbeddingError, match="labels lie elsewhere than the points of the same index"):
        sampled.emb.fit_probe(frame[::-1].reset_index(drop=True), target="label")
    with pytest.raises(EmbeddingError, match="sample it at the points"):
        sampled.emb.fit_probe(gx.testing.scene().truth(array.emb.geobox, 2018))


def test_labels_of_points_whose_index_repeats_go_by_their_order(array, frame):
    half = array.emb.sample(frame.geometry[:10])
    other = array.emb.sample(frame.geometry[10:20].reset_index(drop=True))
    points = gx.concat([half, other], dim="location")
    labels = pd.concat([frame.iloc[:10], frame.iloc[10:20].reset_index(drop=True)])
    assert points.indexes["location"].equals(labels.index)
    np.testing.assert_array_equal(matching.points_of(points, labels), np.arange(20))
    with pytest.raises(EmbeddingError, match=r"the points' own \(location\) repeats: number them"):
        points.emb.fit_probe(labels[:5], target="label")
    with pytest.raises(CoverageError, match=r"which begins \['a'\]; location begins \[0, 1, 2\]"):
        half.emb.fit_probe(frame.iloc[:1].rename(index={0: "a"}), target="label")
