"""Stores whose longitudes run from 0 to 360, or around the world, are cut by boxes in any writing of longitudes."""

import numpy as np
import pytest

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


def test_sides_that_do_not_meet_are_refused(tmp_path):
    x = -177.5 + 5.0 * np.arange(71)  # a column is missing
    held = gx.wrap(np.ones((2, 2, x.size)), gx.Product("gap", dims=2), x=x, y=[10.0, 5.0], crs=4326)
    path = held.emb.to_zarr(tmp_path / "gap.zarr")
    with pytest.raises(CoverageError, match=r"edges do not meet .* ends at 175 and goes on at 180"):
        gx.open(path, bbox=(160, 4, -160, 11))
    assert gx.open(path, bbox=(160, 4, 180, 11)).sizes["x"] == 3
