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
