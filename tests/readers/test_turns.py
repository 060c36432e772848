"""Stores whose longitudes run from 0 to 360, or around the world, are cut by boxes in any writing of longitudes."""

import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core.errors import CoverageError
from geoemb_xr.readers.geotiff import write_geotiff

KINDS = ("files", "zarr", "cog", "map", "map cog")


@pytest.fixture(scope="module", params=[0.0, -180.0], ids=["0 to 360", "-180 to 180"])
def world(request):
    """Vectors on a grid of the world, from a first edge on."""
    x = request.param + 2.5 + 5.0 * np.arange(72)
    y = 82.5 - 5.0 * np.arange(34)
    vectors = np.random.default_rng(0).normal(size=(64, y.size, x.size)).astype("f4")
    vectors /= np.linalg.norm(vectors, axis=0)
    return gx.wrap(vectors, "alphaearth", x=x, y=y, crs=4326, time=2020)


@pytest.fixture(scope="module", params=KINDS)
def stored(request, world, tmp_path_factory):
    """What is in a store, the store, and with what it opens."""
    folder = tmp_path_factory.mktemp("world")
    vectors = world.isel(time=0)
    if request.param == "files":
        write_geotiff(folder / "2020.tif", vectors.values, world.emb.geobox)
        return vectors, ("alphaearth", folder / "2020.tif")
    if request.param == "zarr":
        return vectors, (vectors.emb.to_zarr(folder / "a.zarr"),)
    if request.param == "cog":
        vectors.emb.to_cog(folder / "a.tif")
        return vectors, (folder / "a.tif",)
    alike = vectors.emb.similarity((2.5, 2.5)).compute()
    if request.param == "map":
        return alike, (alike.emb.to_zarr(folder / "m.zarr"),)
    alike.emb.to_cog(folder / "m.tif")
    return alike, (folder / "m.tif",)


@pytest.mark.parametrize(
    ("west", "east"), [(-30, -10), (10, 30), (-10, 10), (170, 190), (170, -170), (200, 220), (-160, -140)]
)
def test_a_box_is_cut_from_where_its_longitudes_are(stored, west, east):
    held, source = stored
    opened = gx.open(*source, bbox=(west, 0, east, 20))
    opened = opened.isel(time=0) if "time" in opened.dims else opened
    middles = np.arange(west, east if east > west else east + 360, 5) + 2.5
    np.testing.assert_allclose((opened.x - middles + 180) % 360 - 180, 0, atol=1e-9)
    first = float(held.x[0]) - 2.5
    there = held.sel(y=opened.y, x=first + (middles - first) % 360, method="nearest")
    np.testing.assert_array_equal(opened.values, there.values)


def test_what_lies_nowhere_in_a_store_is_said(world, tmp_path):
    part = world.isel(time=0, x=slice(0, 10))
    path = part.emb.to_zarr(tmp_path / "part.zarr")
    west = float(part.x[-1]) + 20
    with pytest.raises(CoverageError, match="does not cover"):
        gx.open(path, bbox=(west, 0, west + 20, 20))


@pytest.mark.parametrize("first", [0.0, -180.0])
def test_columns_that_a_grid_has_twice_come_once(tmp_path, first):
    x = first + 5.0 * np.arange(73)  # the last is the first, a turn further
    vectors = np.random.default_rng(0).normal(size=(2, 2, x.size))
    vectors[..., -1] = vectors[..., 0]
    held = gx.wrap(vectors, gx.Product("twice", dims=2), x=x, y=[10.0, 5.0], crs=4326)
    path = held.emb.to_zarr(tmp_path / "twice.zarr")
    for west, east in ((-10, 0), (0, 10), (-10, 10), (170, 180), (-180, -170), (170, 190)):
        part = gx.open(path, bbox=(west, 4, east, 11))
        middles = np.arange(west, east + 1, 5)  # pixels that an edge runs through are whole
        np.testing.assert_allclose((part.x - middles + 180) % 360 - 180, 0, atol=1e-9)
        np.testing.assert_allclose(np.diff(part.x), 5)
        np.testing.assert_array_equal(part, held.sel(x=first + (middles - first) % 360))


def test_sides_that_do_not_meet_in_whole_pixels_are_refused(tmp_path):
    x = -176.5 + 7.0 * np.arange(51)  # 357 degrees
    held = gx.wrap(np.ones((2, 2, x.size)), gx.Product("gap", dims=2), x=x, y=[10.0, 5.0], crs=4326)
    path = held.emb.to_zarr(tmp_path / "gap.zarr")
    with pytest.raises(CoverageError, match=r"edges do not meet .* ends at 177 and goes on at 180"):
        gx.open(path, bbox=(160, 4, -160, 11))


@pytest.mark.parametrize("decode", [True, False])
def test_columns_that_a_grid_around_the_world_lacks_are_missing_in_every_container(tmp_path, decode):
    codes = gx.testing.synthetic("alphaearth", shape=(2, 71), decode=False).isel(time=0)
    grid = {"x": -177.5 + 5.0 * np.arange(71), "y": np.array([10.0, 5.0])}  # all but the last 5 degrees
    held = gx.wrap(codes.values, "alphaearth", crs=4326, time=2020, **grid).isel(time=0)
    write_geotiff(tmp_path / "2020.tif", held.values, held.emb.geobox, nodata=-128)
    open_it = {"bbox": (160, 4, -160, 11), "decode": decode}
    of_others = gx.open("alphaearth", tmp_path / "2020.tif", **open_it).isel(time=0)
    held.emb.to_cog(tmp_path / "own.tif")
    for path in (held.emb.to_zarr(tmp_path / "own.zarr"), tmp_path / "own.tif"):
        found = gx.open(path, **open_it)
        assert found.dtype == of_others.dtype
        np.testing.assert_array_equal(found, of_others)
        np.testing.assert_allclose(found.x, 162.5 + 5.0 * np.arange(8), atol=1e-9)
        assert np.isnan(found.emb.decode() if not decode else found).all("band").sum("x").values.tolist() == [
            1,
            1,
        ]
        assert found.emb.geobox.shape == (2, 8)


def test_scales_and_classes_are_missing_where_a_grid_around_the_world_ends(tmp_path):
    grid = {"x": -177.5 + 5.0 * np.arange(71), "y": np.array([10.0, 5.0]), "crs": 4326}
    vectors = gx.wrap(np.ones((2, 2, 71), "f4"), gx.Product("scaled", dims=2), **grid)
    found = gx.open(gx.to_zarr(vectors, tmp_path / "codes.zarr", encode=True), bbox=(160, 4, -160, 11))
    assert found.dtype == np.float32
    assert np.isnan(found).all("band").values.tolist() == [[False] * 3 + [True] + [False] * 4] * 2
    classes = vectors.isel(band=0, drop=True).astype("uint8").drop_attrs(deep=False)
    classes.attrs = {"derived_from": "scaled", "flag_values": [1], "flag_meanings": "one", "nodata": 255}
    found = gx.open(gx.to_zarr(classes, tmp_path / "map.zarr"), bbox=(160, 4, -160, 11))
    assert found.dtype == np.uint8
    assert found.values.tolist() == [[1, 1, 1, 255, 1, 1, 1, 1]] * 2


@pytest.mark.parametrize("columns", [[0, 10, 20, 55, 65], [0, 10, 40, 50, 90], [0, 10, 25]])
def test_uneven_columns_of_others_are_no_grid_with_a_gap(tmp_path, columns):
    held = gx.wrap(np.ones((2, 2, 5), "f4"), gx.Product("uneven", dims=2), x=range(5), y=[10, 0], crs=32632)
    stored = xr.open_zarr(held.emb.to_zarr(tmp_path / "a.zarr")).drop_encoding().isel(x=slice(len(columns)))
    stored.assign_coords(x=columns).to_zarr(tmp_path / "uneven.zarr")
    assert gx.open(tmp_path / "uneven.zarr").x.values.tolist() == columns
