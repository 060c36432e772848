"""Warps of maps that declare what marks their missing pixels, and grids that no graph can hold."""

import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError


@pytest.mark.parametrize("chunks", [None, {"y": 17}])
def test_the_nodata_that_a_class_map_declares_is_the_one_that_is_kept(chunks):
    grid = gx.testing.geobox((40, 40))
    plain = gx.testing.scene().truth(grid, 2018).drop_attrs(deep=False)
    codes = plain.values.copy()
    codes[:10], codes[20:30, :15] = 255, 0  # 0 is a class here
    declared = plain.copy(data=codes).assign_attrs(_FillValue=255)
    swapped = plain.copy(
        data=np.where(codes == 255, 0, codes + 1).astype(np.uint8)
    )  # our own way: 0 is missing
    if chunks:
        declared, swapped = declared.chunk(chunks), swapped.chunk(chunks)
    for call in (
        lambda a: gx.coarsen(a, 4),
        lambda a: gx.reproject(a, "EPSG:3035", resolution=10),
        lambda a: gx.reproject(a, "EPSG:3035", resolution=35, resampling="mode"),
    ):
        ours, theirs = call(swapped).values, call(declared)
        assert theirs.attrs["_FillValue"] == 255
        np.testing.assert_array_equal(np.where(theirs == 255, 0, theirs + 1), ours)
        assert {0, 255} <= set(np.unique(theirs))


def test_a_grid_of_more_blocks_than_a_graph_can_hold_is_refused():
    da = gx.testing.synthetic("alphaearth", shape=(64, 64), years=[2018]).emb.year(2018).chunk(y=32)
    with pytest.raises(EmbeddingError, match=r"a grid of .* blocks is more than.*coarser resolution"):
        da.emb.reproject("EPSG:3035", resolution=2e-4)


def test_arrays_of_one_mosaic_may_declare_other_nodata():
    plain = gx.testing.scene().truth(gx.testing.geobox((40, 40)), 2018).drop_attrs(deep=False)
    west, east = plain.isel(x=slice(0, 20)).copy(), plain.isel(x=slice(20, 40)).copy()
    west[:5], east[:5] = 255, 0
    parts = [west.assign_attrs(_FillValue=255), east.assign_attrs(_FillValue=0)]
    whole = gx.mosaic(parts, plain)
    assert (whole[:5] == 255).all()
    np.testing.assert_array_equal(whole[5:], plain[5:])


def test_floats_with_a_declared_nodata_are_mixed_without_it():
    plain = gx.testing.scene().truth(gx.testing.geobox((16, 16)), 2018).drop_attrs(deep=False).astype("f4")
    gaps = plain.copy()
    gaps[4:7, 5:9] = np.nan
    declared = gaps.fillna(-9999).assign_attrs(_FillValue=-9999.0)
    for how in ("bilinear", "average"):
        options = {"resolution": 20, "resampling": how}
        found = gx.reproject(declared, "EPSG:3035", **options)
        xr.testing.assert_identical(found, gx.reproject(gaps, "EPSG:3035", **options))


def test_a_nodata_that_the_dtype_cannot_hold_does_not_go_on():
    plain = gx.testing.scene().truth(gx.testing.geobox((12, 13)), 2018).drop_attrs(deep=False)
    for call in (lambda a: gx.coarsen(a, 4), lambda a: gx.reproject(a, "EPSG:3035", resolution=10)):
        assert "nodata" not in call(plain.assign_attrs(nodata=-9999)).attrs
        assert call(plain.assign_attrs(nodata=255)).attrs["nodata"] == 255
