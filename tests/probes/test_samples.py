"""Labels however they come, and the vectors that are drawn under them."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from affine import Affine
from labelled_scene import SCENE, array, fields, named, points, truth

import geoemb_xr as gx
from geoemb_xr.core.errors import CoverageError, EmbeddingError, SourceError
from geoemb_xr.probes import labelling
from geoemb_xr.probes import samples as drawing

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
    with pytest.raises(EmbeddingError, match="target='crop' is not a coordinate along 'location'"):
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


def test_a_series_beside_the_labels_goes_by_their_index():
    table = SCENE.points(40, radius=200)
    weights = pd.Series(np.linspace(0.1, 3, 40), table.index)
    options = {"target": "land_cover", "method": "ridge", "cv": 0}
    expected = array().emb.fit_probe(table, weights=weights.to_numpy(), **options).parameters["weights"]
    for given in (weights, weights[::-1]):
        found = array().emb.fit_probe(table, weights=given, **options).parameters["weights"]
        np.testing.assert_array_equal(found, expected)


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
    with pytest.raises(CoverageError, match=r"dropped: \{'all pixels in other polygons too': 2\}"):
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
        gx.labels(xr.concat([raster, raster], "time"))


def test_a_label_raster_brings_its_names_and_colours(tmp_path):
    da, raster = array(), SCENE.truth(gx.testing.geobox((96, 96)), 2018)
    probe = da.emb.fit_probe(raster)
    assert set(probe.legend.names) <= set(SCENE.names)
    assert (named(da.emb.predict(probe), probe.legend) == truth(da)).mean() > 0.97
    assert probe.target == "land_cover"


@pytest.mark.parametrize("options", [{}, {"method": "ridge", "n_samples": "all"}])
def test_a_label_raster_holds_for_its_own_date(options):
    years = array(years=(2018, 2024))
    raster = SCENE.truth(gx.testing.geobox((96, 96)), 2024)
    dated = years.emb.fit_probe(raster, cv=0, **options)
    one = years.emb.year(2024).emb.fit_probe(raster.drop_vars("time"), cv=0, **options)
    np.testing.assert_array_equal(dated.parameters["weights"], one.parameters["weights"])
    with pytest.raises((CoverageError, EmbeddingError), match=r"other time|the labels are of 2024-01-01"):
        years.emb.year(2018).emb.fit_probe(raster, cv=0, **options)


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
    assert drawing.period_index(times, dates).tolist() == expected


def test_months_end_where_the_next_starts():
    times = np.array(["2020-01-01", "2020-02-01", "2020-06-01"], "datetime64[ns]")
    dates = ["2020-01-31", "2020-02-03", "2020-04-15", "2020-06-30"]
    assert drawing.period_index(times, dates).tolist() == [0, 1, -1, 2]


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


def test_names_of_drawn_labels_are_of_their_column_alone():
    da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    drawn = gx.labels(SCENE.truth(gx.testing.geobox((64, 64)), 2018), per_class=15)
    drawn["kind"] = np.where(drawn.land_cover > 4, "field", "other")
    drawn["code"] = np.where(drawn.land_cover > 4, 2, 9)

    def names(table, target):
        return da.emb.fit_probe(table, target=target, method="centroid", cv=0).legend.names

    own = tuple(SCENE.names[code - 1] for code in np.unique(drawn.land_cover))
    assert names(drawn, "land_cover") == names(drawn.rename(columns={"land_cover": "lc"}), "lc") == own
    assert names(drawn, "kind") == ("field", "other")  # not the names of codes 1 and 2
    assert names(drawn, "code") == ("2", "9")
    spelt = drawn.assign(land_cover=np.array(SCENE.names)[drawn.land_cover - 1])
    probe = da.emb.fit_probe(spelt, target="land_cover", method="centroid", cv=0)
    assert set(probe.legend.names) == set(own)
    assert set(probe.legend.colours) <= set(SCENE.truth(gx.testing.geobox((8, 8)), 2018).emb.legend["colour"])


# --- label rasters on other grids --------------------------------------------------------------------------------


def half_of(da, codes):
    """A label raster of the eastern half of an array and of as much beyond it, with codes of the array's grid."""
    beyond = np.full(codes.shape, codes[0, -1])
    half = codes.shape[1] // 2
    values = np.concatenate([codes[:, half:], beyond[:, :half]], axis=1)
    x = da.x.values + 10 * half
    coords = {"y": da.y.values, "x": x, "spatial_ref": da.spatial_ref}
    return xr.DataArray(values, dims=("y", "x"), coords=coords)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int64"])
@pytest.mark.parametrize("nodata", [None, "attrs _FillValue", "attrs nodata", "encoding _FillValue"])
def test_a_label_raster_says_nothing_of_what_it_does_not_reach(lazy, dtype, nodata):
    da = array()
    codes = (truth(da) == "grassland").astype(dtype)  # 0 is a class here
    raster = half_of(da, codes)
    if nodata is not None:
        raster[: codes.shape[0] // 2] = 2
        where, key = nodata.split()
        getattr(raster, where)[key] = 2  # one more than a class
    moved = drawing.aligned(raster.chunk(y=20, x=30) if lazy else raster, da)
    table = labelling.drawn_points(moved, per_class=None)
    half = codes.shape[1] // 2
    seen = codes[codes.shape[0] // 2 :, half:] if nodata is not None else codes[:, half:]
    assert len(table) == seen.size
    assert table.label.value_counts().to_dict() == dict(
        zip(*np.unique(seen, return_counts=True), strict=True)
    )


def test_codes_that_another_grid_does_not_take_are_refused():
    da = array()
    raster = half_of(da, SCENE.truth(da.emb.geobox, 2018).values.astype("i4"))
    with pytest.raises(EmbeddingError, match=r"codes from 0 to 65,534; got -3 to"):
        drawing.aligned(raster.where(raster != raster[0, 0], -3), da)
    away = raster.assign_coords(x=raster.x + 1e5)
    with pytest.raises(CoverageError, match="no label of the raster lies in the array, which covers"):
        da.emb.fit_probe(away, target="label")


def test_texts_are_drawn_by_class():
    da = array()
    raster = xr.DataArray(
        truth(da), dims=("y", "x"), coords={k: da.coords[k] for k in ("y", "x", "spatial_ref")}
    )
    table = gx.labels(raster.rename("kind"), per_class=4)
    assert set(table.kind.value_counts()) == {4}
    holes = raster.astype(object).copy()
    holes[:9] = None
    assert set(gx.labels(holes.rename("kind"), per_class=4).kind.value_counts()) == {4}


def on_degrees(values, **attrs):
    """A label raster of the scene as others hold it: axes lat and lon, no CRS."""
    lat, lon = np.linspace(47.2525, 47.2475, 30), np.linspace(11.3665, 11.3735, 30)
    return xr.DataArray(values, {"lat": lat, "lon": lon}, ("lat", "lon"), attrs=attrs)


def test_label_rasters_of_others_are_labels(tmp_path):
    codes = (np.arange(900).reshape(30, 30) // 30 % 3).astype("i2")
    raster, da = on_degrees(codes), array()
    expected = da.emb.fit_probe(raster, n_samples=30, cv=0)
    assert expected.legend.names == ("0", "1", "2")
    assert da.emb.fit_probe(raster.expand_dims(band=[1]), n_samples=30, cv=0) == expected
    named = da.emb.fit_probe(raster.rename("label").to_dataset(), n_samples=30, cv=0)
    assert named == expected
    with pytest.raises(EmbeddingError, match=r"has the variables \['a', 'b'\]: give one of them"):
        da.emb.fit_probe(xr.Dataset({"a": raster, "b": raster}), n_samples=30)


def test_a_nodata_of_64_bits_is_exact():
    codes = np.arange(900).reshape(30, 30) // 30 % 3
    codes[:9] = most = np.iinfo("i8").max
    probe = array().emb.fit_probe(on_degrees(codes, _FillValue=most), n_samples=30, cv=0)
    assert probe.legend.names == ("0", "1", "2")


@pytest.mark.parametrize("said", [{"nodata": "-9999"}, {"nodatavals": (-9999.0,)}, {"_FillValue": [-9999]}])
def test_a_nodata_in_any_writing_is_no_class(said):
    codes = (np.arange(900).reshape(30, 30) // 30 % 3).astype("i2")
    codes[:9] = -9999
    assert array().emb.fit_probe(on_degrees(codes, **said), n_samples=30, cv=0).legend.names == (
        "0",
        "1",
        "2",
    )


def test_codes_that_were_masked_when_read_are_classes_and_scaled_ones_are_refused():
    codes = (np.arange(900).reshape(30, 30) // 30 % 3).astype("f4")
    codes[:9] = np.nan
    raster = on_degrees(codes)
    raster.encoding["dtype"] = "uint8"
    probe = array().emb.fit_probe(raster, n_samples=30, cv=0)
    assert probe.legend.names == ("0", "1", "2")
    resampled = raster.copy(data=codes * 0.37)  # keeps what was said of the file
    assert array().emb.fit_probe(resampled, n_samples=30, cv=0, method="ridge").legend is None
    with pytest.raises(EmbeddingError, match=r"was read as whole numbers and holds 0\.37 now"):
        array().emb.fit_probe(resampled.chunk(), n_samples=30, cv=0, method="ridge")
    assert array().emb.fit_probe(raster.chunk(), n_samples=30, cv=0) == probe
    with pytest.raises(SourceError, match=r"declares a scale of 0.1"):
        array().emb.fit_probe(on_degrees(codes, scale_factor=0.1), n_samples=30)


def test_masked_labels_are_gaps_and_blanks_are_no_part_of_a_class():
    table = points()
    y = np.ma.masked_array(np.where(table.land_cover == "wheat", 1, 2), mask=np.arange(len(table)) < 3)
    probe = array().emb.fit_probe(table, target=y, cv=0)
    assert sum(probe.counts.values()) == len(table) - 3
    assert probe.legend.names == ("1", "2")
    spaced = table.assign(
        land_cover=[f" {each}" if i % 2 else each for i, each in enumerate(table.land_cover)]
    )
    expected = array().emb.fit_probe(table, target="land_cover", cv=0)
    assert array().emb.fit_probe(spaced, target="land_cover", cv=0) == expected
    places = table[["land_cover", "lon", "lat"]]
    for given, target in (
        (xr.Dataset.from_dataframe(pd.DataFrame(places)), "land_cover"),
        (table.drop(columns="land_cover"), table[["land_cover"]]),
    ):
        probe = array().emb.fit_probe(given, target=target, cv=0)
        np.testing.assert_array_equal(probe.parameters["weights"], expected.parameters["weights"])
    with pytest.raises(EmbeddingError, match=r"a value for each of the 150 rows; got shape \(2,\)"):
        array().emb.fit_probe(table, target=[1, 2])


def test_a_column_called_like_a_band_keeps_beside_it():
    table = array().emb.sample(points(5).assign(A00=1.0)).emb.to_dataframe()
    assert table.columns.is_unique
    assert (table["point_A00"] == 1).all()
