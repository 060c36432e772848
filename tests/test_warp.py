"""Warping against PROJ pixel by pixel, GDAL, a slow float64 reference, and itself in other chunks."""

import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr import geometry
from geoemb_xr.testing import assert_lazy_identical


def proj_positions(source, target):
    """Row and column of the target's pixel centres in the source, by PROJ in double precision."""
    height, width = target.shape
    c, r = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = target.affine * (c, r)
    move = geometry.transformer(geometry.as_crs(target.crs), geometry.as_crs(source.crs))
    col, row = ~source.affine * move.transform(x, y)
    return np.asarray(row), np.asarray(col)


def test_nearest_moves_codes_where_proj_says():
    codes = gx.testing.synthetic("alphaearth", shape=(150, 140), decode=False, missing=True)
    got = codes.emb.reproject("EPSG:3035", resolution=10)
    row, col = proj_positions(geometry.geobox_of(codes), geometry.geobox_of(got))
    inside = (row >= 0) & (row < 150) & (col >= 0) & (col < 140)
    expected = np.full(got.shape[1:], -128, np.int8)
    expected[:, inside] = codes.values[0][:, row[inside].astype(int), col[inside].astype(int)]
    near_edge = (abs(row - np.round(row)) < 0.01) | (abs(col - np.round(col)) < 0.01)
    assert near_edge.mean() < 0.05
    np.testing.assert_array_equal(got.values[0][:, ~near_edge], expected[:, ~near_edge])
    assert got.dtype == np.int8
    assert got.attrs == codes.attrs


@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
@pytest.mark.parametrize("how", ["nearest", "bilinear", "average"])
@pytest.mark.parametrize("decode", [True, False])
def test_lazy_is_the_same(product, how, decode):
    array = gx.testing.synthetic(product, shape=(40, 50), years=[2018, 2019], decode=decode, missing=True)
    assert_lazy_identical(lambda a: gx.reproject(a, "EPSG:3035", resolution=9, resampling=how), array)


def test_nearest_of_codes_decodes_to_nearest_of_vectors():
    codes = gx.testing.synthetic("tessera", shape=(30, 30), decode=False, missing=True)
    target = gx.testing.geobox((30, 30), crs="EPSG:3035")
    xr.testing.assert_identical(
        gx.reproject(codes, target).emb.decode(), gx.reproject(codes.emb.decode(), target)
    )


def test_coarsen_is_the_mean_of_base_pixels():
    da = gx.testing.synthetic("alphaearth", shape=(12, 20))
    mean = da.coarsen(y=4, x=4).mean()
    mean = mean / np.sqrt((mean**2).sum("band"))
    got = da.emb.coarsen(4)
    np.testing.assert_allclose(got.values, mean.values, atol=1e-6)
    np.testing.assert_allclose(got.x, mean.x)


def test_mosaic_of_two_halves_is_the_whole():
    whole = gx.testing.synthetic("alphaearth", shape=(20, 40), decode=False)
    halves = [whole.isel(x=slice(0, 22)), whole.isel(x=slice(18, 40))]
    for rule in ("first", "nearest-centre"):
        got = gx.mosaic(halves, geometry.geobox_of(whole), rule=rule)
        xr.testing.assert_identical(got, whole)


def test_points_of_a_lazy_warp():
    """dask's vindex asks for blocks by NumPy's integers."""
    da = gx.testing.synthetic("alphaearth", shape=(64, 64), chunks=32).emb.year(2018)
    coarse = da.emb.coarsen(4)
    points = [(11.37, 47.25), (11.3695, 47.2501)]
    xr.testing.assert_identical(
        coarse.emb.sample(points).compute(), coarse.compute().emb.sample(points).compute()
    )
