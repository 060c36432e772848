"""Composites: what pandas and NumPy give month by month, lazily, the empty month missing."""

import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.embedding.composites import CLEAR

DATES = [
    "2024-03-28",
    "2024-01-03",
    "2024-01-20",
    "2024-01-31",
    "2024-03-05",
]  # in no order; none in February


@pytest.fixture
def images():
    """Five pictures as integers, 0 being no data."""
    numbers = (testing.images((6, 7), dates=DATES) * 10_000).astype("uint16")
    numbers.attrs["nodata"] = 0
    numbers[1, :, 2, 3] = 0
    return numbers


def test_the_median_of_a_month_is_numpy_s(images):
    found = testing.assert_lazy_identical(gx.composite, images)
    assert found.dtype == np.float32
    assert [str(t)[:10] for t in found.time.values] == ["2024-01-01", "2024-02-01", "2024-03-01"]
    valid = np.where(images.values == 0, np.nan, images.values.astype("f4"))
    np.testing.assert_array_equal(found.values[0], np.nanmedian(valid[[1, 2, 3]], axis=0))
    assert np.isnan(found.values[1]).all()
    np.testing.assert_array_equal(found.values[2], np.nanmedian(valid[[0, 4]], axis=0))


def test_the_scene_classification_masks_and_leaves(images):
    classes = np.random.default_rng(0).integers(0, 12, (5, 1, 6, 7)).astype("uint16")
    scl = xr.DataArray(classes, dims=images.dims, coords={**images.drop_vars("band").coords, "band": ["SCL"]})
    given = xr.concat([images, scl], "band", coords="minimal")
    clear = xr.DataArray(np.isin(classes[:, 0], CLEAR), dims=("time", "y", "x"))
    clear = clear.assign_coords({d: images[d] for d in ("time", "y", "x")})
    expected = gx.composite(images, mask=clear)
    found = gx.composite(given.chunk({"x": 3, "band": 1}))
    assert "SCL" not in found.band
    small = given.assign_coords(band=[str(b).lower() for b in given.band.values])
    np.testing.assert_array_equal(gx.composite(small).values, expected.values)
    np.testing.assert_array_equal(found.values, expected.values)
    assert np.isnan(expected.values[0]).sum() > 0
    assert not np.array_equal(expected.values[0], gx.composite(images).values[0], equal_nan=True)


def test_the_least_cloudy_picture_that_saw_a_pixel_gives_it(images):
    cloudy = images.assign_coords({"eo:cloud_cover": ("time", [10.0, 1.0, 50.0, 3.0, 20.0])})
    found = gx.composite(cloudy.chunk({"time": 2}), how="least_cloudy").values
    expected = images.values[1].astype("f4")
    expected[:, 2, 3] = images.values[3, :, 2, 3]  # the least cloudy one has no data there
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[2], images.values[0])
    with pytest.raises(EmbeddingError, match="needs a coordinate 'eo:cloud_cover'"):
        gx.composite(images, how="least_cloudy")


def test_what_is_no_series_or_lies_elsewhere_says_so(images):
    with pytest.raises(EmbeddingError, match="needs a dimension 'time' of dates"):
        gx.composite(images.isel(time=0, drop=True))
    with pytest.raises(EmbeddingError, match="freq='often' is not a period"):
        gx.composite(images, "often")
    mask = (images.isel(band=0, drop=True) > 0).assign_coords(x=images.x + 3)
    with pytest.raises(EmbeddingError, match="another grid"):
        gx.composite(images, mask=mask)
    with pytest.raises(ValueError, match="how='mean'"):
        gx.composite(images, how="mean")
