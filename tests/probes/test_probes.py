"""Labels in, probes out: what is dropped, what is grouped, what is scored, what is saved."""

import dataclasses
import pathlib

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from affine import Affine
from sklearn.linear_model import Ridge

import geoemb_xr as gx
from geoemb_xr.core.errors import ComparabilityError, CoverageError, EmbeddingError, SourceError
from geoemb_xr.probes import applicability, labelling, streaming, validation
from geoemb_xr.probes import samples as drawing
from geoemb_xr.probes.heads import HEADS, Data
from geoemb_xr.probes.probe import _coverage, quantile, softmax

SCENE = gx.testing.scene()


def array(years=(2018,), **options):
    da = gx.testing.synthetic("alphaearth", shape=(96, 96), years=years, **options)
    return da.emb.year(years[0]) if len(years) == 1 else da


def points(n=150, **options):
    return SCENE.points(n, **{"radius": 440.0, **options})


def truth(da, year=2018):
    codes = SCENE.truth(da.emb.geobox, year)
    return np.array(SCENE.names)[codes.values - 1]


def named(labels, legend):
    return np.array(["", *legend.names], object)[np.searchsorted([0, *legend.values], labels.values)]


def test_a_class_for_nearly_every_label_is_no_classification():
    table = points(60).assign(number=range(60))
    with pytest.raises(EmbeddingError, match=r"60 labels are of 60 classes .* the column of labels\?"):
        array().emb.fit_probe(table, target="number")
    few = points(8).assign(place=list("abcdefgh"))
    assert len(array().emb.fit_probe(few, target="place", method="centroid", cv=0).legend.names) == 8


@pytest.mark.parametrize("method", ["logistic", "ridge", "knn", "centroid"])
@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
def test_few_labels_map_the_scene(method, product):
    da = gx.testing.synthetic(product, shape=(96, 96)).emb.year(2018)
    probe = da.emb.fit_probe(points(), target="land_cover", method=method)
    right = named(da.emb.predict(probe), probe.legend) == truth(da)
    assert right.mean() > 0.97
    assert probe.scores["random"]["balanced_accuracy"] > 0.9
    assert probe.confusion.sum() == 150


# --- labels however they come ---------------------------------------------------------------------------------


def test_files_tables_and_frames_are_the_same_labels(tmp_path):
    da, table = array(), points().drop(columns="year")
    frame = gpd.GeoDataFrame(
        table[["land_cover"]], geometry=gpd.points_from_xy(table.lon, table.lat), crs=4326
    )
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_parquet(tmp_path / "b.parquet")
    frame.to_parquet(tmp_path / "c.parquet")
    frame.to_file(tmp_path / "d.geojson")
    frame.to_file(tmp_path / "e.gpkg")
    expected = da.emb.fit_probe(table, target="land_cover", cv=0)
    for path in sorted(tmp_path.glob("*.*")):
        assert da.emb.fit_probe(path, cv=0) == expected, path.name  # the only column left is the target
    assert da.emb.fit_probe(frame, target="land_cover", cv=0) == expected
    assert da.emb.fit_probe(table.to_dict("list"), target="land_cover", cv=0) == expected


def test_codes_and_vectors_give_the_same_probe():
    codes = array(decode=False)
    assert codes.emb.fit_probe(points(), target="land_cover") == codes.emb.decode().emb.fit_probe(
        points(), target="land_cover"
    )


def test_only_blocks_with_labels_are_read():
    da = array(chunks=16)
    reads = []

    def spy(block, block_info=None):
        reads.append(block_info[0]["chunk-location"])
        return block

    spied = da.copy(data=da.data.map_blocks(spy, dtype=da.dtype, meta=da.data._meta))
    spied.emb.fit_probe(points(40, radius=100.0), target="land_cover", cv=0)
    assert len(reads) == len(set(reads)) < da.data.npartitions


def test_labels_without_data_are_dropped_and_counted():
    da = array(missing=True)
    table = points(100).drop(columns="year")
    table.loc[3, "land_cover"] = None
    table.loc[4, "lon"] = 0.0
    west, _, _, north = (float(v) for v in (da.x.min(), 0, 0, da.y.max()))
    lost = gpd.GeoSeries([shapely.Point(west, north)], crs=32632).to_crs(4326)[0]
    table.loc[5, ["lon", "lat"]] = lost.x, lost.y
    probe = da.emb.fit_probe(table, target="land_cover")
    dropped = dict(probe.dropped)
    assert dropped["outside the array"] == 1
    assert dropped["no label"] == 1
    assert dropped["no data there"] >= 1
    frame = gpd.GeoDataFrame(table, geometry=gpd.points_from_xy(table.lon, table.lat), crs=4326)
    frame.loc[7, "geometry"] = None
    assert da.emb.fit_probe(frame, target="land_cover", cv=0).dropped == {"no geometry": 1, **dropped}
    with pytest.raises(EmbeddingError, match="the table of labels has no rows"):
        da.emb.fit_probe(table.iloc[:0], target="land_cover")
    assert sum(probe.counts.values()) + sum(dropped.values()) == 100


def test_points_that_were_sampled_carry_their_labels():
    da = array()
    sampled = da.emb.sample(points().drop(columns="year"))
    expected = da.emb.fit_probe(points().drop(columns="year"), target="land_cover", cv=0)
    assert sampled.emb.fit_probe(target="land_cover", cv=0) == expected
    assert "blocked" in sampled.emb.fit_probe(target="land_cover").scores
    by_value = sampled.emb.fit_probe(sampled.land_cover.values, cv=0)
    assert by_value.legend.names == sampled.emb.fit_probe(target="land_cover", cv=0).legend.names
    with pytest.raises(EmbeddingError, match="target='crop' is no coordinate along 'location'"):
        sampled.emb.fit_probe(target="crop")
    with pytest.raises(EmbeddingError, match=r"labels need shape \(150,\); got \(3,\)"):
        sampled.emb.fit_probe(np.zeros(3))


def test_a_vector_of_zeros_of_a_product_of_unit_vectors_is_no_data():
    da = array().copy()
    da[:, :, :40] = 0.0
    probe = da.emb.fit_probe(points(), target="land_cover", cv=0)
    assert probe.dropped["no data there"] == sum(
        array()[:, :, :40].emb.fit_probe(points(), target="land_cover", cv=0).counts.values()
    )
    assert (da.emb.predict(probe).values[:, :40] == 0).all()
    assert (da.emb.predict(probe).values[:, 40:] != 0).all()


def test_plain_arrays():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 5)).astype("f4")
    x[7, 2] = np.nan
    probe = gx.fit_probe(x, x[:, 0] > 0)
    assert probe.legend.names == ("False", "True")
    assert probe.dropped == {"no data there": 1}
    assert set(probe.scores) == {"random", "coverage"}  # no places, so no regions
    assert probe.product == ""
    with pytest.raises(EmbeddingError, match=r"shapes \(n, band\) and \(n,\); got \(200, 5\) and \(3,\)"):
        gx.fit_probe(x, [1, 2, 3])


def fields():
    """Squares of 60 m with the class of their middle."""
    grid = gx.testing.geobox((96, 96))
    left, bottom, _, _ = grid.boundingbox
    squares = [
        shapely.box(left + 80 * i + 10, bottom + 80 * j + 10, left + 80 * i + 70, bottom + 80 * j + 70)
        for i in range(11)
        for j in range(11)
    ]
    frame = gpd.GeoDataFrame(geometry=squares, crs=32632)
    middle = frame.centroid.to_crs(4326)
    codes = SCENE.classes(middle.x.to_numpy(), middle.y.to_numpy(), 2018)
    return frame.assign(crop=np.array(SCENE.names)[codes - 1], field=[f"f{i}" for i in range(len(frame))])


def test_polygons_give_their_pixels_as_one_group():
    samples, target = drawing.samples_of(array(), fields(), "crop", None, None, None)
    assert target == "crop"
    assert len(samples.labels) == 121 * 36
    assert np.bincount(samples.groups).tolist() == [36] * 121
    probe = array().emb.fit_probe(fields(), target="crop", cv=0)
    assert sum(probe.counts.values()) == 121 * 36


def test_a_pixel_in_two_polygons_is_left_out_and_a_small_polygon_has_one():
    frame = fields().iloc[:2].copy()
    frame.geometry = [
        shapely.box(*frame.geometry.iloc[0].bounds),
        shapely.box(*frame.geometry.iloc[0].bounds),
    ]
    with pytest.raises(CoverageError, match="no label lies in the array"):
        drawing.samples_of(array(), frame, "crop", None, None, None)
    tiny = fields().iloc[:2].copy()
    tiny.geometry = tiny.centroid.buffer(0.5)
    samples, _ = drawing.samples_of(array(), tiny, "crop", None, None, None)
    assert len(samples.labels) == 2


def test_large_polygons_are_thinned(monkeypatch):
    monkeypatch.setattr(drawing, "PIXELS_PER_POLYGON", 10)
    samples, _ = drawing.samples_of(array(), fields(), "crop", None, None, None)
    assert np.bincount(samples.groups).tolist() == [10] * 121
    shifted = array().isel(y=slice(1, None), x=slice(2, None))
    again, _ = drawing.samples_of(shifted, fields().iloc[40:60], "crop", None, None, None)
    kept = {tuple(p) for p in samples.places}
    assert {tuple(p) for p in again.places} <= kept  # the same pixels in any crop


# --- label rasters --------------------------------------------------------------------------------------------


def test_a_draw_is_stratified_and_the_same_however_chunked():
    raster = SCENE.truth(gx.testing.geobox((96, 96)), 2018)
    table = gx.labels(raster, per_class=50)
    counts = pd.Series(raster.values.ravel()).value_counts()
    assert table["land_cover"].value_counts().to_dict() == counts.clip(upper=50).to_dict()
    pd.testing.assert_frame_equal(gx.labels(raster.chunk(y=17, x=40), per_class=50), table)
    pd.testing.assert_frame_equal(gx.labels(raster.transpose("x", "y"), per_class=50), table)
    np.testing.assert_array_equal(raster.emb.sample(table).values, table["land_cover"])
    assert not gx.labels(raster, per_class=50, seed=1).equals(table)
    assert len(gx.labels(raster, per_class=50, seed=-1)) == len(table)  # any whole number is a seed
    assert len(gx.labels(raster, per_class=None)) == raster.size
    with pytest.raises(EmbeddingError, match="dims y and x"):
        gx.labels(raster.expand_dims("time"))


def test_a_label_raster_brings_its_names_and_colours(tmp_path):
    da, raster = array(), SCENE.truth(gx.testing.geobox((96, 96)), 2018)
    probe = da.emb.fit_probe(raster)
    assert set(probe.legend.names) <= set(SCENE.names)
    assert (named(da.emb.predict(probe), probe.legend) == truth(da)).mean() > 0.97
    assert probe.target == "land_cover"


def label_raster(missing=True):
    """Land cover with a class that only lies where there is no data, and one pixel without a label."""
    da = array().copy()
    da[:, 5:8, 5:8] = np.nan
    raster = SCENE.truth(gx.testing.geobox((96, 96)), 2018).copy()
    raster[0, 0] = 0
    raster[5:8, 5:8] = 1
    return da, raster


def test_ridge_of_every_pixel_is_scikit_learns():
    da, raster = label_raster()
    probe = da.chunk(y=40, x=32).emb.fit_probe(raster, method="ridge", n_samples="all", alpha=2.0)
    x, y = da.values.reshape(64, -1).T, raster.values.ravel()
    keep = ~np.isnan(x).any(axis=1) & (y != 0)
    centred = x[keep] - x[keep].mean(0, dtype=float)
    scale = np.sqrt((centred**2).mean())
    codes = np.unique(y[keep])
    model = Ridge(alpha=2.0).fit(centred / scale, (y[keep, None] == codes).astype(float))
    weights = model.coef_ / scale
    np.testing.assert_allclose(probe.parameters["weights"], weights, atol=1e-4 * abs(weights).max())
    assert probe.legend.values == tuple(codes)
    assert sum(probe.counts.values()) == keep.sum()
    assert list(probe.counts.values()) == [int((y[keep] == c).sum()) for c in codes]
    assert set(probe.scores) == {"blocked", "random", "coverage"}
    assert probe.scores["random"]["balanced_accuracy"] > 0.9
    assert "aoa" in probe.outputs()


def test_sums_do_not_depend_on_chunks():
    da, raster = label_raster()
    options = {"method": "ridge", "n_samples": "all", "alpha": [0.1, 10.0]}
    whole = da.emb.fit_probe(raster, **options)
    for chunks in ({"y": 40, "x": 96}, {"y": 33, "x": 17}):
        parts = da.chunk(chunks).emb.fit_probe(raster.chunk(y=50, x=31), **options)
        np.testing.assert_allclose(
            parts.parameters["weights"], whole.parameters["weights"], rtol=1e-5, atol=1e-6
        )
        assert (parts.counts, parts.scores, parts.options) == (whole.counts, whole.scores, whole.options)


def test_folds_of_sums_are_fits_without_them():
    """Random labels on the regions: what is left out was never seen, so it scores by chance."""
    da, raster = label_raster()
    streamed = streaming.stream(da, raster, 3, 0)
    inside = sum(streamed.sums[key].weight for key in streamed.sums if key[0] == 1)
    total = sum(each.weight for each in streamed.sums.values())
    assert 0 < inside < total
    rng = np.random.default_rng(0)
    side = len(streaming._regions(5, 0))
    cells = rng.integers(1, 5, (side, side))
    rows, cols = (np.arange(96) * side // 96 for _ in range(2))
    noise = raster.copy(data=cells[rows[:, None], cols].astype(raster.dtype))
    probe = da.emb.fit_probe(
        noise, method="ridge", n_samples="all", alpha=1e-3
    )  # so weak that it can learn noise
    assert probe.scores["blocked"]["balanced_accuracy"] < 0.45 < probe.scores["random"]["balanced_accuracy"]


@pytest.mark.parametrize("options", [{}, {"method": "ridge", "n_samples": "all"}])
def test_a_label_raster_holds_for_its_own_date(options):
    years = array(years=(2018, 2024))
    raster = SCENE.truth(gx.testing.geobox((96, 96)), 2024)
    dated = years.emb.fit_probe(raster, cv=0, **options)
    one = years.emb.year(2024).emb.fit_probe(raster.drop_vars("time"), cv=0, **options)
    np.testing.assert_array_equal(dated.parameters["weights"], one.parameters["weights"])
    with pytest.raises((CoverageError, EmbeddingError), match=r"other time|the labels are of 2024-01-01"):
        years.emb.year(2018).emb.fit_probe(raster, cv=0, **options)


@pytest.mark.parametrize("n", [0, -5, 2.5, "every", True])
def test_a_number_of_samples_is_a_number(n):
    with pytest.raises(EmbeddingError, match="n_samples is how many pixels of each class"):
        array().emb.fit_probe(SCENE.truth(gx.testing.geobox((96, 96)), 2018), n_samples=n)
    with pytest.raises(EmbeddingError, match=r"cv is a number of folds, 2 or more, or 0 for none; got 1"):
        array().emb.fit_probe(points(), target="land_cover", cv=1)


def test_sums_of_values_are_a_regression():
    da = array()
    raster = da.isel(band=3, drop=True).reset_coords("time", drop=True).rename("biomass")
    raster.attrs = {}
    probe = da.chunk(y=50).emb.fit_probe(raster, method="ridge", n_samples="all", alpha=1e-6)
    assert (probe.task, probe.target, probe.counts) == ("regression", "biomass", {"all": 96 * 96})
    np.testing.assert_allclose(da.emb.predict(probe), raster, atol=1e-4)
    assert probe.scores["blocked"]["r2"] > 0.999


def test_what_cannot_be_summed_is_refused():
    da, raster = label_raster()
    with pytest.raises(EmbeddingError, match=r"only method='ridge' is made of; got 'logistic'"):
        da.emb.fit_probe(raster, n_samples="all")
    with pytest.raises(EmbeddingError, match=r"takes a label raster .* got it with DataFrame"):
        da.emb.fit_probe(points(), method="ridge", n_samples="all")
    with pytest.raises(EmbeddingError, match=r"got it with \['group'\]"):
        da.emb.fit_probe(raster, method="ridge", n_samples="all", group="field")
    with pytest.raises(EmbeddingError, match="a table's labels are all used"):
        da.emb.fit_probe(points(), target="land_cover", n_samples=10)
    with pytest.raises(EmbeddingError, match="plain arrays are all used"):
        gx.fit_probe(np.eye(4), [1, 2, 1, 2], n_samples=10)
    years = gx.testing.synthetic("alphaearth", shape=(96, 96), years=[2018, 2024])
    with pytest.raises(EmbeddingError, match="a label raster holds for one time"):
        years.emb.fit_probe(raster.drop_vars("time"), method="ridge", n_samples="all")
    with pytest.raises(EmbeddingError, match="no labelled pixel has data"):
        da.emb.fit_probe(raster * 0, method="ridge", n_samples="all")
    assert da.emb.fit_probe(raster, n_samples=20, cv=0).counts == dict.fromkeys(
        da.emb.fit_probe(raster).counts, 20
    )


def test_float_rasters_are_regressed():
    da = array()
    raster = da.isel(band=3, drop=True).reset_coords("time", drop=True).rename("biomass")
    raster.attrs = {}
    probe = da.emb.fit_probe(raster, method="ridge", alpha=1e-6)
    assert probe.task == "regression"
    np.testing.assert_allclose(da.emb.predict(probe), raster, atol=1e-4)


# --- time -----------------------------------------------------------------------------------------------------


def test_labels_without_a_date_on_several_years_are_refused():
    da, table = array((2018, 2024)), points().drop(columns="year")
    with pytest.raises(EmbeddingError, match=r"2 times \(2018, 2024\).*no date.*time=2024"):
        da.emb.fit_probe(table, target="land_cover")
    assert da.emb.fit_probe(table, target="land_cover", time=2018, cv=0) == array().emb.fit_probe(
        table, target="land_cover", cv=0
    )


def test_each_label_is_taken_from_its_own_year():
    da = array((2018, 2024))
    both = pd.concat([points(80), points(80, year=2024, seed=1)])
    samples, _ = drawing.samples_of(da, both, "land_cover", None, None, None)
    for year in (2018, 2024):
        own, _ = drawing.samples_of(
            da.emb.year(year), both[both.year == year], "land_cover", None, None, None
        )
        np.testing.assert_array_equal(samples.vectors[both.year == year], own.vectors)
    both["year"] = both["year"].replace(2024, 2031)
    samples, _ = drawing.samples_of(da, both, "land_cover", None, None, None)
    assert samples.dropped == {"other time": 80}


def test_a_year_is_looked_at_even_where_the_array_has_one():
    da, table = array(), points(60)
    table.loc[:19, "year"] = 1999
    table.loc[20, "year"] = None
    probe = da.emb.fit_probe(table, target="land_cover", cv=0)
    assert probe.dropped == {"other time": 21}
    assert sum(probe.counts.values()) == 39
    with pytest.raises(
        CoverageError, match=r"no label lies in the array.* in 2018; dropped: \{'other time': 60\}"
    ):
        da.emb.fit_probe(table.assign(year=1999), target="land_cover")
    # said to hold for the array's year, they are taken at their word
    assert da.emb.fit_probe(table, target="land_cover", time=2018, cv=0).dropped == {}
    sampled = da.emb.sample(table.drop(columns="year")).assign_coords(
        year=("location", table.year.to_numpy())
    )
    assert sampled.emb.fit_probe(target="land_cover", cv=0).dropped == {"other time": 21}
    with pytest.raises(EmbeddingError, match=r"labels' column 'time' hold 'noon'.*neither a year nor a date"):
        da.emb.fit_probe(points(60).drop(columns="year").assign(time="noon"), target="land_cover")


def test_one_place_in_two_years_is_one_group():
    da, table = array((2018, 2024)), points(60)
    twice = pd.concat([table, table.assign(year=2024)])
    samples, _ = drawing.samples_of(da, twice, "land_cover", "year", None, None)
    np.testing.assert_array_equal(samples.groups[:60], samples.groups[60:])


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        ([2018, 2019, 2024, 2025], [0, -1, 1, -1]),
        (["2018-06-15", "2018-12-31", "2019-01-05", None], [0, 0, -1, -1]),
        (pd.to_datetime(["2024-02-29", "2017-12-31"]), [1, -1]),
        ([2018.0, np.nan], [0, -1]),
    ],
)
def test_dates_fall_into_periods(dates, expected):
    times = np.array(["2018-01-01", "2024-01-01"], "datetime64[ns]")
    assert drawing.period_of(times, dates).tolist() == expected


def test_months_end_where_the_next_starts():
    times = np.array(["2020-01-01", "2020-02-01", "2020-06-01"], "datetime64[ns]")
    dates = ["2020-01-31", "2020-02-03", "2020-04-15", "2020-06-30"]
    assert drawing.period_of(times, dates).tolist() == [0, 1, -1, 2]


# --- what is learnt -------------------------------------------------------------------------------------------


def test_kinds_of_labels():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4)).astype("f4")
    code = np.where(x[:, 0] > 0, 40, 11)
    assert gx.fit_probe(x, code).legend.values == (11, 40)  # the user's codes
    assert gx.fit_probe(x, code - 11).legend.values == (1, 2)  # 0 is taken
    assert gx.fit_probe(x, code.astype(str)).legend.names == ("11", "40")
    assert gx.fit_probe(x, x[:, 0], method="ridge").task == "regression"
    with pytest.raises(EmbeddingError, match=r"method='logistic' does no regression.*\['ridge', 'knn'"):
        gx.fit_probe(x, x[:, 0])
    with pytest.raises(EmbeddingError, match="all 60 labels are of one class, '1'"):
        gx.fit_probe(x, np.ones(60, int))
    with pytest.raises(EmbeddingError, match=r"no option \['c'\]; it has \['C'"):
        gx.fit_probe(x, code, c=3)
    with pytest.raises(ValueError, match="method='forest' is not known"):
        gx.fit_probe(x, code, method="forest")


GAPS = {
    "nullable integers": (pd.array([1, 2, None], "Int64"), "class", ("1", "2")),
    "integers that a gap made floats": (np.array([1.0, 2.0, np.nan]), "class", ("1", "2")),
    "integers as objects": (np.array([1, 2, None], object), "class", ("1", "2")),
    "nullable booleans": (pd.array([True, False, None], "boolean"), "class", ("False", "True")),
    "booleans as objects": (np.array([True, False, None], object), "class", ("False", "True")),
    "texts": (pd.array(["oats", "rye", None], "string"), "class", ("oats", "rye")),
    "categories": (pd.Categorical(["oats", "rye", None]), "class", ("oats", "rye")),
    "numbers as categories": (pd.Categorical([11, 40, None]), "class", ("11", "40")),
    "floats as categories": (pd.Categorical([1.0, 2.0, None]), "class", ("1", "2")),
    "values": (np.array([1.5, 2.25, np.nan]), "value", None),
    "nullable values": (pd.array([1.5, 2.0, None], "Float64"), "value", None),
}


@pytest.mark.parametrize("kind", list(GAPS))
def test_a_gap_does_not_change_the_kind_of_labels(kind):
    values, what, names = GAPS[kind]
    column = pd.concat([pd.Series(values)] * 10, ignore_index=True)
    x = np.random.default_rng(0).standard_normal((30, 3)).astype("f4")
    probe = gx.fit_probe(x, column, method="ridge", cv=0)
    assert probe.dropped == {"no label": 10}
    assert probe.task == ("classification" if what == "class" else "regression")
    assert names is None or probe.legend.names == names


def test_no_fold_parts_a_group():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 600)
    groups = np.unique(groups, return_inverse=True)[1]
    data = Data(
        rng.standard_normal((600, 3)).astype("f4"), rng.integers(0, 3, 600), np.ones(600), groups, 3, 0,
        rng.uniform(0, 1000, (40, 2))[groups],
    )  # fmt: skip
    for folds in (validation.random_folds(data, 5), validation.blocked_folds(data, 5)):
        assert len(np.unique(folds)) == 5
        assert len(np.unique(np.stack([groups, folds]), axis=1).T) == 40


def test_tuning_never_sees_the_fold_it_is_scored_on(monkeypatch):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 4)).astype("f4")
    known = {row.tobytes(): i for i, row in enumerate(x)}
    seen = []
    tuned = validation.tuned

    def spy(head, data, options, k):
        seen.append({known[row.tobytes()] for row in data.x})
        return tuned(head, data, options, k)

    monkeypatch.setattr(validation, "tuned", spy)
    # the whole is tuned on all labels first, and on one fold less for each score
    gx.fit_probe(x, rng.integers(0, 2, 60), method="ridge", alpha=[0.1, 10.0], cv=3)
    assert len(seen) == 4
    assert seen[0] == set(range(60))
    left_out = [set(range(60)) - each for each in seen[1:]]
    assert sorted(i for each in left_out for i in each) == list(range(60))
    assert min(map(len, left_out)) > 0


def test_tuning_of_sums_never_sees_the_fold_it_is_scored_on(monkeypatch):
    da, raster = label_raster()
    streamed = streaming.stream(da, raster, 3, 0)
    rows = np.array([row.tobytes().hex() for row in streamed.samples.vectors])
    seen = []
    tuned = validation.tuned

    def spy(head, data, options, k):
        seen.append({row.tobytes().hex() for row in data.x})
        return tuned(head, data, options, k)

    monkeypatch.setattr(validation, "tuned", spy)
    da.emb.fit_probe(raster, method="ridge", n_samples="all", alpha=[0.1, 10.0], cv=3)
    others = [set(rows[folds != fold]) for folds in streamed.folds.values() for fold in np.unique(folds)]
    assert len(others) == 6
    assert seen == [set(rows), *others]


def test_coverage_is_calibrated_on_the_other_folds():
    unlikely = np.repeat([0.9, 0.1, 0.2], 50).astype("f4")
    folds = np.repeat([0, 1, 2], 50)
    assert _coverage(unlikely, folds) == {"fold 1": 0.0, "fold 2": 1.0, "fold 3": 1.0}


def test_random_labels_on_fields_score_chance():
    # Design: pixels of a field are nearly copies, so random folds would reward memory.
    da = array()
    rng = np.random.default_rng(0)
    frame = fields().assign(crop=rng.integers(1, 5, 121))
    probe = da.emb.fit_probe(frame, target="crop", method="knn", n_neighbors=1)
    for kind in ("blocked", "random"):
        assert probe.scores[kind]["balanced_accuracy"] < 0.36, kind
    parted = da.emb.fit_probe(frame, target="crop", method="knn", n_neighbors=1, group=None)
    assert parted.scores == probe.scores


def test_random_labels_on_fields_of_the_real_chip(real_data):
    """Design rule 14: by pixel such labels seem to be learnt, by field they are not."""
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    da = gx.open("alphaearth", real_data / "alphaearth-raster" / "aef_wi_2024_int8_northup.tif").isel(time=0)
    grid = da.emb.geobox
    rng = np.random.default_rng(0)
    squares = [
        shapely.box(*(grid.affine * (10 * i, 10 * j + 10)), *(grid.affine * (10 * i + 10, 10 * j)))
        for i in range(10)
        for j in range(10)
    ]
    frame = gpd.GeoDataFrame({"crop": rng.integers(1, 5, 100)}, geometry=squares, crs=da.emb.crs)
    probe = da.emb.fit_probe(frame, target="crop", method="knn", n_neighbors=1)
    samples, _ = drawing.samples_of(da, frame, "crop", None, None, None)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    naive = cross_val_score(
        KNeighborsClassifier(1), samples.vectors, samples.labels, cv=folds, scoring="balanced_accuracy"
    ).mean()
    assert naive > 0.8
    assert probe.scores["random"]["balanced_accuracy"] < 0.4
    assert probe.scores["blocked"]["balanced_accuracy"] < 0.4


@pytest.mark.parametrize("method", ["logistic", "ridge"])
def test_the_defaults_hold_abroad(real_data, method):
    """Balanced agreement with Dynamic World; on standardised bands it was 0.39 and 0.30 with a region left out."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

    files = sorted((real_data / "alphaearth-points").glob("*.csv"))
    table = pd.concat([pd.read_csv(path) for path in files], ignore_index=True)
    table = table[table.dw_label.isin([0, 1, 4, 6, 7])]  # the sound classes
    x, y = table[list(gx.product("alphaearth").bands)].to_numpy("f4"), table.dw_label.to_numpy()
    abroad = gx.fit_probe(x, y, method=method, group=table.region, cv=2).scores["random"]["balanced_accuracy"]
    plain = LogisticRegression(max_iter=1000)
    found = cross_val_predict(plain, x.astype("f8"), y, cv=LeaveOneGroupOut(), groups=table.region)
    assert abroad > max(0.64, balanced_accuracy_score(y, found) - 0.03)
    assert gx.fit_probe(x, y, method=method, cv=2).scores["random"]["balanced_accuracy"] > 0.84


def test_temperature_makes_probabilities_right():
    rng = np.random.default_rng(0)
    true = rng.standard_normal((4, 20_000))
    y = (true + rng.gumbel(size=true.shape)).argmax(0)  # Gumbel's trick: P(y) = softmax(true)
    data = Data(np.empty((20_000, 1), "f4"), y, np.ones(20_000), np.arange(20_000), 4, 0)
    assert validation.temperature_of(data, 5 * true) == pytest.approx(5, rel=0.03)
    assert validation.temperature_of(data, true / 3) == pytest.approx(1 / 3, rel=0.03)


def test_a_class_that_a_fold_never_saw_does_not_spoil_the_temperature():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 3)).astype("f4")
    y = np.repeat([0, 1, 2], 30)
    x[:, 0] += 3 * y
    probe = gx.fit_probe(x, np.array(["a", "b", "c"])[y], group=np.where(y == 2, 1000, np.arange(90)))
    assert 0.01 < probe.temperature < 20


# --- trust ----------------------------------------------------------------------------------------------------


def test_conformal_quantile_is_mapies():
    rng = np.random.default_rng(0)
    for n in (9, 10, 50, 333):
        scores = np.sort(rng.uniform(size=n))
        for level in (0.5, 0.8, 0.9):
            rank = int(np.ceil((n + 1) * level))
            expected = scores[rank - 1] if rank <= n else np.inf
            assert quantile(scores, level) == expected
    assert quantile(np.sort(rng.uniform(size=8)), 0.9) == np.inf  # too few: every class


def test_conformal_sets_are_mapies():
    mapie = pytest.importorskip("mapie.classification")
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.standard_normal((900, 4)).astype("f4")
    y = (x[:, :3] + 0.8 * rng.standard_normal((900, 3))).argmax(1)
    model = LogisticRegression().fit(x[:300], y[:300])
    oracle = mapie.SplitConformalClassifier(
        model, confidence_level=0.9, conformity_score="lac", prefit=True
    ).conformalize(x[300:600], y[300:600])
    _, sets = oracle.predict_set(x[600:])
    unlikely = np.sort(1 - model.predict_proba(x[300:600])[np.arange(300), y[300:600]])
    ours = 1 - model.predict_proba(x[600:]) <= quantile(unlikely, 0.9)
    np.testing.assert_array_equal(ours, sets[..., 0])


def test_sets_cover_what_is_exchangeable():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 4)).astype("f4")
    y = (x[:, :3] + 0.8 * rng.standard_normal((4000, 3))).argmax(1) + 1
    probe = gx.fit_probe(x[:2000], y[:2000])
    for coverage in (0.8, 0.95):
        model = dataclasses.replace(probe, coverage=coverage)
        sets = model.apply(x[2000:], "set")
        assert sets[np.arange(2000), y[2000:] - 1].mean() == pytest.approx(coverage, abs=0.025)
    assert all(0.8 < v <= 1 for v in probe.scores["coverage"].values())


def test_intervals_of_a_regression():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 4)).astype("f4")
    y = x[:, 0] + rng.standard_normal(4000)
    probe = gx.fit_probe(x[:2000], y[:2000], method="ridge")
    low, high = (probe.apply(x[2000:], end) for end in ("lower", "upper"))
    assert ((low <= y[2000:]) & (y[2000:] <= high)).mean() == pytest.approx(0.9, abs=0.02)
    assert probe.scores["random"]["r2"] == pytest.approx(0.5, abs=0.05)


def test_dissimilarity_is_its_published_definition():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((150, 5)) * [1, 2, 3, 4, 5]).astype("f4")
    folds = np.arange(150) % 4
    data = Data(x, np.zeros(150), np.ones(150), np.arange(150), 0, 0)
    found = applicability.fit_applicability(data, folds)
    z = (x - x.mean(0)) / x.std(0)
    pairs = np.linalg.norm(z[:, None] - z, axis=2)
    mean = pairs[np.triu_indices(150, 1)].mean()
    own = np.array([pairs[i, folds != folds[i]].min() for i in range(150)]) / mean
    low, high = np.quantile(own, [0.25, 0.75])
    assert found["threshold"] == pytest.approx(min(high + 1.5 * (high - low), own.max()), rel=1e-4)
    new = (rng.standard_normal((40, 5)) * 4).astype("f4")
    expected = np.linalg.norm((new - x.mean(0))[:, None] / x.std(0) - z, axis=2).min(1) / mean
    np.testing.assert_allclose(applicability.dissimilarity(found, new.T), expected, rtol=1e-4)


def test_what_is_unlike_the_labels_is_outside():
    da = array()
    table = points()
    grass = table[table.land_cover.isin(["grassland", "maize"])]
    probe = da.emb.fit_probe(grass, target="land_cover")
    inside = da.emb.predict(probe, output="aoa").values == 1
    known = np.isin(truth(da), ["grassland", "maize"])
    assert inside[known].mean() > 0.9
    assert inside[~known].mean() < 0.3


# --- one file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", list(HEADS))
def test_saved_and_loaded(method, tmp_path):
    options = {"max_iter": 5} if method == "mlp" else {}
    probe = array().emb.fit_probe(points(), target="land_cover", method=method, **options)
    again = gx.load_model(probe.save(tmp_path / "probe"))
    assert again == probe
    assert again.attribution == probe.attribution != ""
    xr.testing.assert_identical(array().emb.predict(again), array().emb.predict(probe))
    assert (tmp_path / "probe.npz").stat().st_size < 250_000


def test_probes_that_the_first_version_saved_predict_as_before():
    """Made by 0.1.0 on vectors of a seeded generator; its own labels, probabilities and sets are kept beside."""
    folder = pathlib.Path(__file__).with_name("saved_by_0_1")
    with np.load(folder / "expected.npz") as expected:
        for method in ("ridge", "logistic", "knn", "centroid", "mlp"):
            probe = gx.load_model(folder / f"{method}.npz")
            found = {
                name: probe.apply(expected["vectors"], name) for name in ("label", "set", "proba", "distance")
            }
            np.testing.assert_array_equal(found["label"], expected[method])
            np.testing.assert_array_equal(found["set"], expected[f"{method}_set"])
            np.testing.assert_allclose(found["proba"], expected[f"{method}_proba"], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found["distance"], expected[f"{method}_distance"], rtol=1e-5)
        values = gx.load_model(folder / "ridge_values.npz").apply(expected["vectors"], "value")
        np.testing.assert_allclose(values, expected["ridge_values"], rtol=1e-5, atol=1e-6)


def test_card_and_repr():
    probe = array().emb.fit_probe(points(), target="land_cover")
    assert "blocked" in repr(probe)
    html = probe._repr_html_()
    for text in ("land_cover", "optimistic", "left-out regions", "confusion", "grassland", "exchangeable"):
        assert text in html
    plain = gx.fit_probe(np.eye(6, dtype="f4"), ["<b>", "c"] * 3, cv=0)
    assert "<b>," not in plain._repr_html_().replace("<b>label</b>", "")
    assert "&lt;b&gt;" in plain._repr_html_()


def test_errors_say_the_way_out(tmp_path):
    da = array()
    with pytest.raises(EmbeddingError, match=r"target= must name the column of labels, one of \['a', 'b'\]"):
        da.emb.fit_probe(pd.DataFrame({"lon": [11.37], "lat": [47.25], "a": [1], "b": [2]}))
    with pytest.raises(EmbeddingError, match="target='crop' is no column"):
        da.emb.fit_probe(points(), target="crop")
    with pytest.raises(CoverageError, match="no label lies in the array, which covers"):
        da.emb.fit_probe(points().assign(lon=0.0), target="land_cover")
    with pytest.raises(SourceError, match=r"no such file of .*labels"):
        da.emb.fit_probe(tmp_path / "none.csv")
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(SourceError, match=r"tables in \.xlsx are not read"):
        da.emb.fit_probe(tmp_path / "a.xlsx")
    with pytest.raises(EmbeddingError, match=r"labels are a table with lon and lat.*got int"):
        da.emb.fit_probe(3)
    with pytest.raises(EmbeddingError, match="weights are 150 finite numbers"):
        da.emb.fit_probe(points(), target="land_cover", weights=-np.ones(150))
    with pytest.raises(EmbeddingError, match="group needs one value"):
        da.emb.fit_probe(points(), target="land_cover", group=[None] * 150)
    probe = da.emb.fit_probe(points(), target="land_cover", cv=0)
    with pytest.raises(ComparabilityError, match="cannot mix"):
        gx.testing.synthetic("tessera", shape=(4, 4)).emb.predict(probe)


def test_softmax_of_what_was_never_seen():
    np.testing.assert_allclose(softmax(np.array([[0.0], [-np.inf]], "f4")), [[1], [0]])


def label_file(path, labels, *, mask=None, crs="EPSG:32632", affine=None, **options):
    """A GeoTIFF of labels (band, y, x)."""
    import rasterio

    count, height, width = labels.shape
    affine = gx.testing.geobox((height, width)).affine if affine is None else affine
    profile = {"count": count, "height": height, "width": width, "dtype": str(labels.dtype), "crs": crs}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", transform=affine, **profile, **options) as file,
    ):
        file.write(labels)
        if mask is not None:
            file.write_mask(mask)
    return path


def test_a_label_file_is_believed(tmp_path):
    labels = np.tile(np.array([1, 2, 3, 4], "u1"), (1, 8, 2))
    mask = np.arange(64).reshape(8, 8) < 32
    masked = label_file(tmp_path / "mask.tif", labels, mask=mask)
    assert len(gx.labels(labelling.read_labels(masked))) == 32
    faded = np.concatenate([labels, np.where(mask, 255, 0).astype("u1")[None]])
    assert len(gx.labels(labelling.read_labels(label_file(tmp_path / "alpha.tif", faded, alpha="yes")))) == 32
    marked = label_file(tmp_path / "nodata.tif", labels, nodata=4)
    assert sorted(set(gx.labels(labelling.read_labels(marked)).iloc[:, 2])) == [1, 2, 3]
    endless = np.where(mask, labels, np.inf).astype("f4")
    assert len(gx.labels(labelling.read_labels(label_file(tmp_path / "inf.tif", endless)))) == 32


def test_a_label_file_that_is_none_is_refused_by_name(tmp_path):
    labels = np.ones((1, 4, 4), "u1")
    (tmp_path / "vrt.tif").write_text("<VRTDataset rasterXSize='1' rasterYSize='1'/>")
    label_file(tmp_path / "two.tif", np.concatenate([labels, labels]))
    label_file(tmp_path / "nowhere.tif", labels, crs=None)
    label_file(tmp_path / "unplaced.tif", labels, affine=Affine.identity())
    for name, what in {
        "vrt": "could not be opened as a GeoTIFF",
        "two": "have 2 bands",
        "nowhere": "do not say where they lie",
        "unplaced": "do not say where they lie",
        "gone": "no such file",
    }.items():
        with pytest.raises(SourceError, match=rf"{name}\.tif.*{what}|{what}.*{name}\.tif"):
            array().emb.fit_probe(tmp_path / f"{name}.tif", target="x")


def test_a_label_file_on_another_grid_is_aligned_by_the_most_frequent_class(tmp_path):
    import rasterio

    fine = SCENE.truth(gx.testing.geobox((240, 240), crs="EPSG:3035", resolution=5.0), 2018)
    path = tmp_path / "labels.tif"
    affine = fine.emb.geobox.affine
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=240,
        height=240,
        count=1,
        dtype="uint8",
        crs="EPSG:3035",
        transform=affine,
    ) as file:
        file.write(fine.values, 1)
    da = array()
    probe = da.emb.fit_probe(path, target="land_cover", cv=0)
    names = np.array(SCENE.names)[np.array(probe.legend.values) - 1]
    found = np.array(["", *names], object)[
        np.searchsorted([0, *probe.legend.values], da.emb.predict(probe).values)
    ]
    assert (found == truth(da)).mean() > 0.95
