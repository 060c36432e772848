"""Mosaics: which array a pixel comes from, and seams."""

import numpy as np
import pytest
import xarray as xr
from affine import Affine

import geoemb_xr as gx
from geoemb_xr.core import geometry


def test_mosaic_of_two_halves_is_the_whole():
    whole = gx.testing.synthetic("alphaearth", shape=(20, 40), decode=False)
    halves = [whole.isel(x=slice(0, 22)), whole.isel(x=slice(18, 40))]
    for rule in ("first", "nearest-centre"):
        got = gx.mosaic(halves, geometry.geobox_of(whole), rule=rule)
        xr.testing.assert_identical(got, whole)


def test_a_mosaic_of_one_array_is_that_array_on_the_grid():
    da = gx.testing.synthetic("alphaearth", shape=(20, 20), years=[2018, 2024])
    alone = gx.mosaic(da, "EPSG:3035", resolution=10)
    xr.testing.assert_identical(alone, da.emb.reproject("EPSG:3035", resolution=10))


def test_seams_fall_midway_and_data_goes_before_nearness():
    box = gx.testing.geobox((4, 30))
    ones = xr.DataArray(np.ones((4, 20), "u1"), dims=("y", "x"), coords=geometry.grid_coords(box[:, :20]))
    twos = xr.DataArray(np.full((4, 20), 2, "u1"), dims=("y", "x"), coords=geometry.grid_coords(box[:, 10:]))
    got = gx.mosaic([ones, twos], box)
    np.testing.assert_array_equal(got, np.repeat([1, 2], 15)[None].repeat(4, 0))
    np.testing.assert_array_equal(gx.mosaic([twos, ones], box), got)
    np.testing.assert_array_equal(gx.mosaic([twos, ones], box, rule="first")[0], np.repeat([1, 2], [10, 20]))
    twos[:, :8] = 0
    np.testing.assert_array_equal(gx.mosaic([ones, twos], box)[0], np.repeat([1, 2], [18, 12]))


@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
@pytest.mark.parametrize("rule", ["first", "nearest-centre"])
def test_zones_on_one_grid(product, rule):
    """Two UTM zones at 12° E, lazily, codes and vectors, with pixels that one of them misses."""
    lon, lat = 12.0, 47.25
    grids = []
    for crs in (32632, 32633):
        x, y = geometry.transformer(geometry.as_crs(4326), geometry.as_crs(crs)).transform(lon, lat)
        shift = (round(x / 10) * 10, round(y / 10) * 10)
        grids.append(
            geometry.make_geobox((40, 50), Affine(10, 0, shift[0] - 250, 0, -10, shift[1] + 200), crs)
        )
    zones = [gx.testing.synthetic(product, grid=g, decode=False, missing=True) for g in grids]
    if product == "tessera":  # scales that were never filled: the other zone's codes come with their own
        zones[0].scale.values[..., 12:20, 22:30] = np.inf
        zones[1].scale.values[..., 24:30, 20:28] = 0
    target = grids[0].pad(5)
    got = gx.mosaic(zones, target, rule=rule)
    lazy = gx.mosaic([z.chunk(y=16, x=20) for z in zones], target, rule=rule, chunks=17)
    xr.testing.assert_identical(lazy.compute(), got)
    decoded = gx.mosaic([z.emb.decode() for z in zones], target, rule=rule)
    xr.testing.assert_identical(decoded, got.emb.decode())
    missing = [gx.reproject(z, target).emb.decode().isnull().all("band") for z in zones]
    np.testing.assert_array_equal(decoded.isnull().all("band"), missing[0] & missing[1])
    for how in ("bilinear", "average"):
        one = gx.mosaic(zones, target, rule=rule, resampling=how)
        again = gx.mosaic([z.chunk(y=16, x=20) for z in zones], target, rule=rule, resampling=how, chunks=13)
        xr.testing.assert_identical(one, again.compute())


def test_a_mosaic_of_a_crs_covers_all():
    parts = [
        gx.testing.synthetic("alphaearth", grid=gx.testing.geobox((8, 8), offset=(x, 0))) for x in (0, 300)
    ]
    got = gx.mosaic(parts, "EPSG:32632")
    assert got.sizes["x"] == 38
    assert got.isnull().all(("band", "y")).sum() == 22
