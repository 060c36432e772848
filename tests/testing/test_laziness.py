"""The assertions of laziness fail on functions that are not lazy or that let chunks show."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from geoemb_xr import testing

ARRAY = testing.synthetic("alphaearth", shape=(5, 7))


def eager(array):
    return array.max("band").compute()


def computes_first(array):
    array.max("band").compute()
    return array.max("band")


def of_blocks(array):
    """Subtract the mean of the block, which differs from the mean of the array."""
    out = array.max("band")
    if array.chunks is None:
        return out - out.mean()
    centred = out.data.map_blocks(lambda block: block - block.mean(), dtype=out.dtype)
    return out.copy(data=centred)


def in_order(array):
    """Number pixels as they lie in memory."""
    out = array.max("band")
    numbers = np.arange(out.size, dtype=np.float32).reshape(out.shape)
    return out.copy(data=numbers if array.chunks is None else da.from_array(numbers, out.data.chunks))


def another_dtype(array):
    out = array.max("band")
    if array.chunks is None:
        return out
    return out.copy(data=out.data.map_blocks(lambda block: block.astype("f8"), dtype=out.dtype))


def another_shape(array):
    out = array.max("band")
    if array.chunks is None:
        return out
    return out.copy(data=out.data.map_blocks(lambda block: block[..., :1], dtype=out.dtype))


def forgets_attributes(array):
    out = array.max("band", keep_attrs=True)
    return out if array.chunks is None else out.drop_attrs()


def forgets_coordinates(array):
    out = array.max("band", keep_attrs=True)
    return out if array.chunks is None else out.drop_vars("x")


@pytest.mark.parametrize("rtol", [0, 1e-3])
@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (eager, "dask computed 1 times, 0 allowed"),
        (computes_first, "dask computed 1 times, 0 allowed"),
        (of_blocks, "2 blocks per dimension"),
        (in_order, "dimensions reversed"),
        (another_dtype, "declared float32, computed float64"),
        (another_shape, r"declared block \(1, 5, 7\), computed \(1, 5, 1\)"),
        (forgets_attributes, "1 blocks per dimension"),
        (forgets_coordinates, "(?s)(1 blocks per dimension|not identical).*\\* x"),
    ],
)
def test_a_fault_is_found(function, complaint, rtol):
    with pytest.raises(AssertionError, match=complaint):
        testing.assert_lazy_identical(function, ARRAY, rtol=rtol)


def test_what_is_lazy_and_right_passes_and_comes_back():
    result = testing.assert_lazy_identical(lambda array: array.max("band"), ARRAY)
    xr.testing.assert_identical(result, ARRAY.max("band"))


def test_a_result_that_never_was_lazy_is_named():
    with pytest.raises(AssertionError, match="not lazy"):
        testing.assert_lazy_identical(lambda array: ARRAY.max("band"), ARRAY)


def test_a_computation_may_be_allowed():
    expected = testing.assert_lazy_identical(computes_first, ARRAY, allowed_computes=1)
    xr.testing.assert_identical(expected, ARRAY.max("band"))
