"""Patches on a raster, against footprints that geopandas looks up."""

import dask.optimization
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core import geometry, model
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.model import Product
from geoemb_xr.examples.patches import scene_patches
from geoemb_xr.geo.footprints import nearest_patch
from geoemb_xr.geo.gridding import to_grid

DIMS = 4
CHIPS = model.register(Product("test-chips", dims=DIMS, kind="patch", resolution=1000.0))


def patches(count=(6, 7), *, side=1000.0, seed=0, lon=11.37, lat=47.25, dates=None, product=CHIPS):
    x, y, shapes, _ = scene_patches(side, count, DIMS, 2020, lon=lon, lat=lat)
    rng = np.random.default_rng(seed)
    order = rng.permutation(x.size)
    vectors = rng.standard_normal((x.size, DIMS)).astype("f4")
    array = gx.wrap(vectors, product, x=x[order], y=y[order])
    if dates is not None:
        array = array.assign_coords(date=("location", np.asarray(dates, "datetime64[ns]")))
    return array, np.asarray(shapes)[order]


def footprint_of(shapes, lon, lat):
    """Which footprint holds each point, by geopandas' index; -1 where none does."""
    points = gpd.points_from_xy(np.ravel(lon), np.ravel(lat))
    which, found = gpd.GeoSeries(shapes).sindex.query(points, predicate="within")
    out = np.full(points.size, -1)
    out[which] = found
    return out


def test_each_patch_fills_its_cell():
    array, _ = patches()
    grid = to_grid(array)
    assert grid.dims == ("band", "y", "x")
    assert grid.shape == (DIMS, 6, 7)
    assert geometry.crs_of(grid).to_epsg() == 32632
    assert grid.attrs == array.attrs
    assert model.check_embedding(grid, "test") is CHIPS
    to_utm = geometry.transformer(geometry.as_crs(4326), geometry.as_crs(32632))
    x, y = to_utm.transform(array.coords["x"].values, array.coords["y"].values)
    for i in range(array.sizes["location"]):
        cell = grid.sel(x=x[i], y=y[i], method="nearest")
        assert abs(float(cell.x) - x[i]) < 0.01  # cells are in phase with the patches
        np.testing.assert_array_equal(cell.values, array.values[i])
    assert grid.emb.geobox.resolution.x == 1000


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:3035", "EPSG:4326"])
def test_a_finer_grid_shows_the_footprint_that_holds_each_cell(crs):
    array, shapes = patches()
    degrees = crs == "EPSG:4326"
    box = testing.geobox((90, 95), crs=crs, resolution=0.001 if degrees else 90.0)
    grid = to_grid(array, geobox=box)
    lon, lat = testing.lonlat_of(box)
    held = footprint_of(shapes, lon, lat)
    assert 0.1 < (held < 0).mean() < 0.9
    expected = np.where(held[:, None] >= 0, array.values[held], np.nan).T.reshape(grid.shape)
    np.testing.assert_array_equal(grid.values, expected)
    assert geometry.same_grid(grid.emb.geobox, box)


def test_resolution_is_in_metres_and_snaps():
    array, _ = patches()
    grid = to_grid(array, resolution=250)
    box = grid.emb.geobox
    assert abs(box.affine.c % 250) < 1e-6
    assert abs(box.affine.f % 250) < 1e-6
    # edges of the patches lie on multiples of their side: each is 4 × 4 whole cells
    values, counts = np.unique(grid.values[0][~np.isnan(grid.values[0])], return_counts=True)
    assert values.size == 42
    assert set(counts) == {16}


def test_the_latest_of_several_at_one_place_then_the_first():
    array, _ = patches((2, 2))
    later = array.copy(data=array.values + 10)
    again = array.copy(data=array.values + 20)
    days = ["2019-01-01"] * 4
    joined = xr.concat(
        [
            array.assign_coords(date=("location", np.array(days, "datetime64[ns]"))),
            later.assign_coords(date=("location", np.array(["2021-01-01"] * 4, "datetime64[ns]"))),
            again.assign_coords(date=("location", np.array(["2021-01-01"] * 4, "datetime64[ns]"))),
        ],
        "location",
    )
    np.testing.assert_array_equal(to_grid(joined).values, to_grid(later).values)
    turned = joined.isel(location=slice(None, None, -1))
    np.testing.assert_array_equal(to_grid(turned).values, to_grid(again).values)
    undated = joined.drop_vars("date")
    np.testing.assert_array_equal(to_grid(undated).values, to_grid(array).values)


def test_left_out_patches_are_said(caplog):
    array, _ = patches()
    with caplog.at_level("INFO", "geoemb_xr"):
        to_grid(xr.concat([array, array], "location"))
    assert "to_grid leaves out 42 of 84 patches" in caplog.text


def test_one_date_becomes_time():
    array, _ = patches(dates=["2020-06-01"] * 42)
    grid = to_grid(array)
    assert grid.dims == ("time", "band", "y", "x")
    assert grid.coords["time"].values == np.datetime64("2020-06-01")
    assert "time" not in to_grid(patches(dates=["2020-06-01"] * 41 + ["2021-06-01"])[0]).dims


def test_overlapping_patches_show_the_nearest():
    x, y, *_ = scene_patches(600.0, (4, 4), DIMS, 2020)  # patches of 1 km every 600 m
    array = gx.wrap(np.arange(16 * DIMS, dtype="f4").reshape(16, DIMS), CHIPS, x=x, y=y)
    assert nearest_patch(array, np.stack([x, y], axis=1)).tolist() == list(range(16))


def test_patches_of_several_sizes():
    x, y, *_ = scene_patches(1000.0, (1, 2), DIMS, 2020)
    array, _ = patches((1, 2))
    array = array.assign_coords(x=("location", x), y=("location", y), patch_m=("location", [200.0, 1700.0]))
    middle = (x[0] * 0.7 + x[1] * 0.3, y[0] * 0.7 + y[1] * 0.3)  # nearer to the small one, in the large one
    assert nearest_patch(array, [middle, (x[0], y[0]), (x[0], y[0] + 0.1)]).tolist() == [1, 0, -1]


def test_points_in_any_form():
    array, _ = patches()
    x, y = array.coords["x"].values, array.coords["y"].values
    table = pd.DataFrame({"lon": x[:3], "lat": y[:3]})
    frame = gpd.GeoDataFrame(geometry=gpd.points_from_xy(x[:3], y[:3]), crs=4326).to_crs(3035)
    for points in (table, frame, table.to_numpy()):
        assert nearest_patch(array, points).tolist() == [0, 1, 2]
    assert nearest_patch(array, [(np.nan, 47.0)]).tolist() == [-1]


@pytest.mark.parametrize(("lon", "lat"), [(179.99, -16.5), (12.0, 47.0), (24.0, -0.01), (11.0, 71.0)])
def test_seams(lon, lat):
    """The antimeridian, a zone's edge, the equator, the far north: each patch holds its own centre."""
    rng = np.random.default_rng(0)
    x = (lon + rng.uniform(-0.2, 0.2, 40) + 180) % 360 - 180
    y = lat + rng.uniform(-0.2, 0.2, 40)
    array = gx.wrap(rng.standard_normal((40, DIMS)).astype("f4"), CHIPS, x=x, y=y)
    assert nearest_patch(array, np.stack([x, y], axis=1)).tolist() == list(range(40))
    north = np.stack([x, y + 450 / 111_320], axis=1)
    found = nearest_patch(array, north)
    assert (found >= 0).all()


def test_lazy_and_the_same_however_it_is_cut():
    array, _ = patches((9, 8))
    box = testing.geobox((70, 60), resolution=150.0)
    testing.assert_lazy_identical(lambda a: to_grid(a, geobox=box), array, allowed_computes=1)


def test_a_block_of_the_grid_reads_only_the_blocks_it_needs(monkeypatch):
    x, y, *_ = scene_patches(1000.0, (80, 8), DIMS, 2020)
    array = gx.wrap(np.ones((640, DIMS), "f4"), CHIPS, x=x, y=y).chunk(location=8)
    monkeypatch.setattr("geoemb_xr.geo.gridding._BLOCK_BYTES", 0)  # blocks of 32 × 32 cells
    grid = to_grid(array)
    assert grid.chunks == ((DIMS,), (32, 32, 16), (8,))
    block = grid.data.blocks[0, 0, 0]
    culled, _ = dask.optimization.cull(dict(block.__dask_graph__()), block.__dask_keys__())
    read = {key[1] for key in culled if isinstance(key, tuple) and key[0] == array.data.name}
    assert set(range(32)) <= read <= set(range(35))  # row by row, and what may reach over the edge
    np.testing.assert_array_equal(grid.values, to_grid(array.compute()).values)


@pytest.mark.parametrize(
    "name", ["clay-v0", "clay-v1.5-naip", "clay-v1.5-sentinel2", "major-tom", "earth-index"]
)
def test_products_become_rasters(name):
    array = gx.open(name, gx.example(name))
    latest = array.isel(location=array.coords["date"].values == array.coords["date"].values.max())
    grid = latest.emb.to_grid()
    assert grid.chunks is not None
    assert grid.emb.kind == "raster"
    side = np.median(latest.patch_m) if "patch_m" in latest.coords else gx.product(name).resolution
    assert grid.emb.geobox.resolution.x == pytest.approx(side)
    shown = ~np.isnan(grid.transpose("band", "y", "x", ...).values[0])
    assert shown.sum() == latest.sizes["location"]


def test_the_real_clay_file(real_data):
    path = next((real_data / "clay-v0").glob("*.gpq"))
    array = gx.open("clay-v0", path)
    grid = array.emb.to_grid()
    assert int((~np.isnan(grid.values[0, 0])).sum()) == array.sizes["location"] == 417
    table = gpd.read_parquet(path)
    rng = np.random.default_rng(0)
    west, south, east, north = table.total_bounds
    lon, lat = rng.uniform(west, east, 3000), rng.uniform(south, north, 3000)
    held = footprint_of(table.geometry, lon, lat)
    found = nearest_patch(array, np.stack([lon, lat], axis=1))
    np.testing.assert_array_equal(np.where(found >= 0, table["index"].to_numpy()[found], -1), held)


def test_what_it_refuses():
    with pytest.raises(
        EmbeddingError, match=r"to_grid needs locations: dims .*; got \('time', 'band', 'y', 'x'\)"
    ):
        to_grid(testing.synthetic("alphaearth", shape=(4, 4)))
    array, _ = patches()
    with pytest.raises(EmbeddingError, match="to_grid needs the CRS"):
        to_grid(array.drop_vars("spatial_ref"))
    sizeless = model.register(Product("test-sizeless", dims=DIMS, kind="patch"))
    with pytest.raises(EmbeddingError, match=r"size of a patch, which 'test-sizeless' does not say.*patch_m"):
        nearest_patch(patches(product=sizeless)[0], [(11.0, 47.0)])
    with pytest.raises(EmbeddingError, match="got no patches"):
        to_grid(array.isel(location=slice(0)))
    assert nearest_patch(array.isel(location=slice(0)), [(11.0, 47.0)]).tolist() == [-1]
    with pytest.raises(EmbeddingError, match="all bands in one chunk"):
        to_grid(array.chunk(band=2))
    with pytest.raises(ValueError, match="resolution must be positive"):
        to_grid(array, resolution=0)


def test_footprints_tile_without_gaps():
    array, shapes = patches((10, 10))
    union = shapely.unary_union(shapes)
    rng = np.random.default_rng(1)
    west, south, east, north = union.bounds
    points = np.stack([rng.uniform(west, east, 4000), rng.uniform(south, north, 4000)], axis=1)
    inside = shapely.contains_xy(union.buffer(-1e-6), *points.T)
    assert (nearest_patch(array, points)[inside] >= 0).all()
