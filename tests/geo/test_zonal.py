"""Statistics of polygons, against exactextract and NumPy."""

import geopandas as gpd
import numpy as np
import pytest
import shapely

import geoemb_xr as gx
from geoemb_xr.core.errors import CoverageError
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
