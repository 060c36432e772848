"""Statistics of polygons, against exactextract and NumPy."""

import dataclasses
import pickle

import dask
import geopandas as gpd
import numpy as np
import pytest
import shapely

import geoemb_xr as gx
from geoemb_xr.core.errors import CoverageError
from geoemb_xr.geo import polygons, zonal
from geoemb_xr.testing import raise_if_dask_computes

exactextract = pytest.importorskip("exactextract")


def scene(**options):
    return gx.testing.synthetic("alphaearth", shape=(64, 64), years=[2018, 2024], **options)


def zones(n=7, seed=0):
    grid = gx.testing.geobox((64, 64))
    rng = np.random.default_rng(seed)
    left, bottom, right, top = grid.boundingbox
    shapes = [
        shapely.Point(rng.uniform(left, right), rng.uniform(bottom, top)).buffer(
            rng.uniform(3, 150), quad_segs=5
        )
        for _ in range(n)
    ]
    return gpd.GeoDataFrame(
        {"field": [f"f{i}" for i in range(n)]}, geometry=shapes, crs=32632, index=range(10, 10 + n)
    )


def oracle(array, frame, ops):
    """exactextract on one band."""
    left, bottom, right, top = array.emb.geobox.boundingbox
    raster = exactextract.raster.NumPyRasterSource(
        array.values.astype("f8"), xmin=left, ymin=bottom, xmax=right, ymax=top, nodata=np.nan
    )
    return exactextract.exact_extract(raster, frame, ops, output="pandas")


def test_means_are_exactextracts():
    da, frame = scene(missing=True), zones()
    found = da.emb.zonal_stats(frame)
    assert found.dims == ("time", "location", "band")
    for band in (0, 17):
        expected = oracle(da[1, band], frame, "mean")["mean"]
        np.testing.assert_allclose(found[1, :, band], expected, rtol=0, atol=1e-5)


def test_stats_are_exactextracts():
    da, frame = scene(missing=True).emb.year(2018), zones()
    found = da.emb.zonal_stats(frame, stats="stats")
    assert found.dims == ("location", "component")
    assert "product" not in found.attrs
    expected = oracle(da[5], frame, ["min", "max", "mean", "stdev"])
    for ours, theirs in [("min", "min"), ("max", "max"), ("mean", "mean"), ("std", "stdev")]:
        got = found.sel(component=f"A05_{ours}")
        np.testing.assert_allclose(got, expected[theirs], rtol=0, atol=1e-5)


def test_covariance_is_numpys():
    da = scene().emb.year(2018)
    left, bottom, *_ = da.emb.geobox.boundingbox
    box = gpd.GeoDataFrame(geometry=[shapely.box(left, bottom, left + 100, bottom + 80)], crs=32632)
    found = da.emb.zonal_stats(box, stats="covariance").values[0]
    vectors = da.values[:, -8:, :10].reshape(64, -1)
    expected = np.cov(vectors, bias=True)[np.triu_indices(64)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


def test_normalized_is_the_mean_direction():
    da, frame = scene().emb.year(2018), zones()
    mean = da.emb.zonal_stats(frame)
    found = da.emb.zonal_stats(frame, stats="normalized")
    np.testing.assert_allclose((found**2).sum("band"), 1, atol=1e-6)
    np.testing.assert_allclose(found, mean / np.sqrt((mean**2).sum("band")), atol=1e-6)


@pytest.mark.parametrize("stats", ["mean", "stats", "covariance"])
def test_lazy_and_the_same_however_chunked(stats):
    codes, frame = scene(decode=False, missing=True), zones()
    whole = codes.emb.zonal_stats(frame, stats=stats)
    for side in (64, 25, 17):
        chunked = codes.chunk({"time": 1, "y": side, "x": side})
        with raise_if_dask_computes():
            lazy = chunked.emb.zonal_stats(frame, stats=stats)
        assert lazy.chunks is not None
        np.testing.assert_allclose(lazy.values, whole.values, rtol=0, atol=1e-6)
        assert lazy.dtype == whole.dtype == np.float32


@pytest.mark.parametrize("product", ["alphaearth", "esd", "tessera"])
def test_codes_give_what_their_vectors_give_and_are_decoded_around_polygons_alone(product, monkeypatch):
    codes = gx.testing.synthetic(product, shape=(64, 64), years=[2018], decode=False, missing=True)
    frame = zones(3)
    expected = codes.emb.decode().emb.zonal_stats(frame)
    decoded = []
    codec = codes.emb.product.codec
    monkeypatch.setattr(
        zonal, "codec_of", lambda _: dataclasses.replace(codec, decode=counting(codec, decoded))
    )
    found = codes.chunk(y=32).emb.zonal_stats(frame).compute()
    assert found.copy(data=expected.values).identical(expected)
    # AlphaEarth's are added as integers, which decoding would have rounded one by one
    np.testing.assert_allclose(found, expected, rtol=0, atol=6e-8 if product == "alphaearth" else 0)
    pixels = codes.sizes["y"] * codes.sizes["x"]
    assert sum(decoded) < pixels / 2
    assert bool(decoded) == (product != "alphaearth")  # whose means come straight from codes


def counting(codec, sizes):
    """``decode``, and how many pixels it is given."""

    def decode(codes, scale, axis):
        sizes.append(codes.size // codes.shape[axis])
        return codec.decode(codes, scale, axis)

    return decode


def test_only_touched_blocks_are_read():
    da = scene(chunks=16)
    reads = []

    def spy(block, block_info=None):
        reads.append(block_info[0]["chunk-location"][2:])
        return block

    spied = da.copy(data=da.data.map_blocks(spy, dtype=da.dtype, meta=da.data._meta))
    left, bottom, *_ = da.emb.geobox.boundingbox
    corner = gpd.GeoDataFrame(geometry=[shapely.box(left, bottom, left + 150, bottom + 150)], crs=32632)
    spied.emb.zonal_stats(corner).compute()
    assert set(reads) == {(3, 0)}
    assert len(reads) == 2  # years


def test_all_touched_counts_pixels_whole():
    da = scene().emb.year(2018)
    left, bottom, *_ = da.emb.geobox.boundingbox
    sliver = gpd.GeoDataFrame(geometry=[shapely.box(left + 2, bottom + 2, left + 11, bottom + 8)], crs=32632)
    found = da.emb.zonal_stats(sliver, all_touched=True).values[0]
    np.testing.assert_allclose(found, da.values[:, -1, :2].mean(axis=1), atol=1e-6)
    exact = da.emb.zonal_stats(sliver).values[0]
    np.testing.assert_allclose(exact, da.values[:, -1, :2] @ [8 / 9, 1 / 9], atol=1e-6)


def test_index_columns_and_a_map_back_onto_the_fields():
    da, frame = scene().emb.year(2018), zones()
    pooled = da.emb.zonal_stats(frame.to_crs(4326), stats="normalized")
    assert pooled.field.values.tolist() == frame["field"].tolist()
    assert pooled.emb.kind == "points"
    probe = da.emb.fit_probe(gx.testing.scene().points(100, radius=300), target="land_cover", cv=0)
    frame["crop"] = pooled.emb.predict(probe).to_series()
    assert frame["crop"].notna().all()
    assert set(frame["crop"]) <= set(probe.legend.values)


def test_zones_without_data_are_missing():
    da, frame = scene().emb.year(2018), zones(3)
    left, bottom, *_ = da.emb.geobox.boundingbox
    far = [*frame.geometry.tolist()[:2], shapely.box(left - 500, bottom, left - 400, bottom + 50)]
    found = da.emb.zonal_stats(gpd.GeoSeries(far, crs=32632))
    assert np.isnan(found.values[2]).all()
    assert not np.isnan(found.values[:2]).any()
    with pytest.raises(CoverageError, match="no polygon overlaps the array, which covers"):
        da.emb.zonal_stats(gpd.GeoSeries(far[2:], crs=32632))
    with pytest.raises(ValueError, match="stats='median' is not known"):
        da.emb.zonal_stats(frame, stats="median")


def fields():
    """Many small squares, large ones over each other and every block, two in one with a hole, and none."""
    grid = gx.testing.geobox((64, 64))
    left, bottom, right, top = grid.boundingbox
    rng = np.random.default_rng(4)
    x, y = rng.uniform(left - 30, right + 30, 150), rng.uniform(bottom - 30, top + 30, 150)
    small = shapely.box(x, y, x + rng.uniform(2, 40, 150), y + rng.uniform(2, 40, 150)).tolist()
    whole = shapely.box(left - 99, bottom - 99, right + 99, top + 99)
    ring = whole - shapely.Point(left + 333, bottom + 222).buffer(111)
    pair = shapely.MultiPolygon([shapely.box(left, bottom, left + 55, bottom + 44), small[7]])
    tilted = shapely.Polygon([(left - 7, bottom), (right, top - 3), (left, top + 50)])
    return gpd.GeoDataFrame(geometry=[*small, whole, whole, ring, pair, None, tilted], crs=32632)


@pytest.mark.parametrize("how", ["codes", "band-last codes", "vectors", "band-last vectors", "cropped"])
def test_many_small_and_few_huge_polygons_in_blocks_of_any_order(how):
    frame = fields()
    codes = scene(missing=True, decode=False).emb.year(2024)
    expected = oracle(codes.emb.decode()[3], frame.dropna(), "mean")["mean"].to_numpy()
    array = codes if "codes" in how else codes.emb.decode()
    if "band-last" in how:
        array = array.copy(data=np.asfortranarray(array.values))
    if how == "cropped":  # neither order is contiguous
        wide = np.zeros((64, 70, 80), np.float32)
        wide[:, 3:67, 5:69] = array
        array = array.copy(data=wide[:, 3:67, 5:69])
    for chunks in (None, {"y": 23, "x": 64}, {"y": 64, "x": 19}):
        part = array if chunks is None else array.chunk(chunks)
        found = part.emb.zonal_stats(frame).values[:, 3]
        np.testing.assert_allclose(found[frame.geometry.notna()], expected, rtol=0, atol=1e-5)
        assert np.isnan(found[frame.geometry.isna()]).all()


def test_means_of_codes_have_the_same_bits_however_they_lie():
    codes, frame = scene(missing=True, decode=False).emb.year(2024), fields()
    whole = codes.emb.zonal_stats(frame).values
    vectors = codes.values.astype(np.float64) * np.abs(codes.values.astype(np.float64)) / 127.5**2
    everywhere = vectors[:, (codes.values > -128).all(axis=0)].mean(axis=1)
    np.testing.assert_allclose(whole[150], everywhere, rtol=2e-7, atol=0)  # the scene is inside of it
    last = codes.copy(data=np.asfortranarray(codes.values))
    for array in (codes.chunk(y=23), codes.chunk(x=19, y=40), last, last.chunk(x=31)):
        np.testing.assert_array_equal(array.emb.zonal_stats(frame), whole)


@pytest.mark.parametrize("chunks", [None, 21])
def test_all_touched_counts_the_pixels_that_geos_says_are_touched(chunks):
    frame, codes = fields(), scene(missing=True, decode=False).emb.year(2024)
    left, bottom, *_ = codes.emb.geobox.boundingbox
    aligned = [shapely.box(left + 100, bottom + 50, left + 150, bottom + 70)]  # edges along those of pixels
    over = np.nextafter([left + 150, bottom + 70], np.inf)  # by less than a share of a pixel that counts
    aligned.append(shapely.box(left + 50, bottom + 20, *over))
    shapes = gpd.GeoSeries([*frame.geometry[:40], *frame.geometry[150:154], *aligned], crs=32632)
    array = codes if chunks is None else codes.chunk({"y": chunks, "x": chunks})
    found = array.emb.zonal_stats(shapes, all_touched=True).values
    vectors, size = codes.emb.decode().values, (10.0, 10.0)
    for row, shape in enumerate(shapes):
        inside = polygons.covered_shares(shape, codes.y.values, codes.x.values, size, "touched") > 0
        own = vectors[:, inside & np.isfinite(vectors[0])]
        expected = own.mean(axis=1, dtype=np.float64) if own.size else np.nan
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-6)


def test_a_pickled_graph_gives_the_same_anywhere():
    lazy = scene(missing=True, decode=False, chunks=25).emb.zonal_stats(zones())
    again = pickle.loads(pickle.dumps(lazy))
    assert again.compute(scheduler="processes", num_workers=1).identical(lazy.compute())


@pytest.mark.parametrize("dtype", ["float16", ">f4", ">f8"])
@pytest.mark.parametrize("stats", ["mean", "stats"])
def test_any_floats_are_summed(dtype, stats):
    array = scene(missing=True).emb.year(2018).astype(dtype)
    same = array.astype("float64")
    np.testing.assert_array_equal(
        array.emb.zonal_stats(zones(), stats=stats), same.emb.zonal_stats(zones(), stats=stats)
    )
    patches = gx.open("earth-index", gx.example("earth-index"))
    area = shapely.Point(11.35, 47.275).buffer(0.012)
    found = patches.astype(dtype).emb.zonal_stats(area, stats=stats)
    tolerance = 1e-3 if dtype == "float16" else 0
    np.testing.assert_allclose(
        found, patches.emb.zonal_stats(area, stats=stats), atol=tolerance, rtol=tolerance
    )


# --- maps and patches -----------------------------------------------------------------------------------------


def truth(chunks=None):
    found = gx.testing.scene().truth(scene().emb.geobox, 2018)
    return found if chunks is None else found.chunk({"y": chunks, "x": chunks})


@pytest.mark.parametrize("chunks", [None, 17])
def test_shares_and_majority_of_classes_are_exactextracts(chunks):
    frame, array = zones(), truth(chunks)
    found = array.emb.zonal_stats(frame)
    legend = array.emb.legend
    np.testing.assert_allclose(found.sum("category"), 1, atol=1e-6)
    expected = oracle(truth(), frame, ["unique", "frac"])
    most = array.emb.zonal_stats(frame, stats="majority")
    for row, (values, shares) in enumerate(zip(expected["unique"], expected["frac"], strict=True)):
        names = legend.loc[np.asarray(values, int), "name"].to_numpy()
        np.testing.assert_allclose(found.sel(category=names)[row], shares, atol=1e-6)
        assert most.emb.names().values[row] == names[np.argmax(shares)]
    far = gpd.GeoSeries([frame.geometry.iloc[0], shapely.box(0, 0, 1, 1)], crs=32632)
    assert array.emb.zonal_stats(far, stats="majority").values.tolist() == [most.values[0], 0]
    assert found.dims == ("location", "category")
    assert most.dtype == truth().dtype


@pytest.mark.parametrize("chunks", [None, 17])
def test_means_and_quantiles_of_a_map_of_values(chunks):
    frame = zones()
    map_ = scene().emb.year(2018).emb.similarity((11.37, 47.25)).compute()
    expected = oracle(map_, frame, ["mean", "min", "max"])
    map_ = map_ if chunks is None else map_.chunk({"y": chunks, "x": chunks})
    mean = map_.emb.zonal_stats(frame)
    assert mean.dims == ("location",)
    assert mean.name == "similarity"
    np.testing.assert_allclose(mean, expected["mean"], atol=1e-6)
    stats = map_.emb.zonal_stats(frame, stats="stats")
    np.testing.assert_allclose(stats.sel(component="max"), expected["max"], atol=1e-6)
    found = map_.emb.zonal_stats(frame, stats="quantiles")
    assert found.component.values.tolist() == ["q05", "q25", "q50", "q75", "q95"]
    for row, shape in enumerate(frame.geometry):
        size = (10.0, 10.0)
        weights = polygons.covered_shares(shape, map_.y.values, map_.x.values, size, "exact")
        kept = weights > 0
        assert (weights[kept] @ (map_.values[kept] <= found.values[row, 2])) >= 0.5 * weights.sum() - 1e-6
        assert (weights[kept] @ (map_.values[kept] < found.values[row, 2])) <= 0.5 * weights.sum() + 1e-6
    with pytest.raises(
        ValueError, match="stats='shares' is not known; valid are 'mean', 'stats', 'quantiles'"
    ):
        map_.emb.zonal_stats(frame, stats="shares")


def test_patches_count_by_the_ground_they_share():
    patches = gx.open("earth-index", gx.example("earth-index"))
    frame = patches.emb.to_geodataframe()
    assert set(frame.geom_type) == {"Polygon"}
    np.testing.assert_allclose(frame.to_crs(32632).area, 320.0**2, rtol=1e-6)
    zone = gpd.GeoSeries([shapely.Point(11.35, 47.275).buffer(0.012), shapely.box(0, 0, 1, 1)], crs=4326)
    found = patches.emb.zonal_stats(zone)
    shared = frame.to_crs(32632).intersection(zone.to_crs(32632)[0].segmentize(5)).area.to_numpy()
    np.testing.assert_allclose(found[0], (shared / shared.sum()) @ patches.values, rtol=2e-3, atol=1e-5)
    assert np.isnan(found.values[1]).all()
    assert set(found.emb.to_geodataframe().geom_type) == {"Point"}
    chunked = patches.chunk({"location": 50}).emb.zonal_stats(zone)
    np.testing.assert_allclose(chunked, found, atol=1e-6)
    two = gx.wrap(np.float32([[1] * 384, [4] * 384]), "earth-index", x=[11.0, 11.1], y=[47.0, 47.0])
    two = two.assign_coords(patch_m=("location", [100.0, 200.0]))  # the second is four times as large
    whole = two.emb.zonal_stats(shapely.box(10.9, 46.9, 11.2, 47.1))
    assert whole.values[0, 0] == pytest.approx((1 + 4 * 4) / 5)
    with pytest.raises(CoverageError, match="no polygon overlaps one of the 440 patches"):
        patches.emb.zonal_stats(shapely.box(0, 0, 1, 1))


def test_patches_in_several_areas_are_told_apart_in_one_graph():
    patches = gx.open("earth-index", gx.example("earth-index")).chunk({"location": 100})
    one, other = (shapely.Point(x, 47.275).buffer(0.012) for x in (11.35, 11.38))
    ways = [([one], False), ([other], False), ([one], True), ([one, shapely.box(0, 0, 1, 1)], False)]
    lazy = [patches.emb.zonal_stats(gpd.GeoSeries(a, crs=4326), all_touched=t).data for a, t in ways]
    assert len({each.name for each in lazy}) == len(ways)
    for each, together in zip(lazy, dask.compute(*lazy), strict=True):
        np.testing.assert_array_equal(together, each.compute())
