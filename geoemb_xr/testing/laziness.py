"""Assertions that a function is lazy and that chunks never show in its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core.model import BAND


@contextmanager
def raise_if_dask_computes(allowed: int = 0) -> Iterator[None]:
    """Fail if dask computes more than ``allowed`` times inside the block.

    Parameters
    ----------
    allowed : int
        Number of times it may compute.

    Raises
    ------
    AssertionError
        At the first computation beyond that.

    Examples
    --------
    >>> import dask.array as da
    >>> from geoemb_xr.testing import raise_if_dask_computes
    >>> with raise_if_dask_computes():
    ...     lazy = da.ones(3) + 1
    """
    import dask

    count = 0

    def counting(dsk: Any, keys: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count > allowed:
            raise AssertionError(f"dask computed {count} times, {allowed} allowed")
        return dask.get(dsk, keys, **kwargs)

    with dask.config.set(scheduler=counting):
        yield


def _chunk_sizes(array: xr.DataArray, blocks: int) -> dict[Any, Any]:
    """Uneven chunks along every dimension but ``band``: chunk edges must never show."""
    chunks: dict[Any, Any] = {}
    for dim, size in array.sizes.items():
        chunks[dim] = -1 if dim == BAND else max(1, -(-size // blocks))
    return chunks


def assert_lazy_identical(
    function: Callable[[xr.DataArray], xr.DataArray],
    array: xr.DataArray,
    *,
    blocks: Sequence[int] = (1, 2, 3),
    rtol: float = 0.0,
    transposed: bool = True,
    allowed_computes: int = 0,
) -> xr.DataArray:
    """Assert that a function is lazy and that chunking and the order of dimensions never change its result.

    Parameters
    ----------
    function : callable
        ``DataArray -> DataArray``.
    array : DataArray
        An array in memory.
    blocks : sequence of int
        Into how many blocks each dimension is cut, one dask run each.
    rtol : float
        0 compares bits; else relative to the largest value.
    transposed : bool
        Whether the array is also given with its dimensions reversed.
    allowed_computes : int
        Number of times dask may compute while the result is built.

    Returns
    -------
    DataArray
        The result in memory.

    Raises
    ------
    AssertionError
        If the function computes while it builds, if a result is not lazy, if computed blocks differ from what
        was declared, or if a result differs from the one in memory in values, attributes or coordinates.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> array = gx.testing.synthetic("alphaearth", shape=(4, 6))
    >>> largest = gx.testing.assert_lazy_identical(lambda each: each.max("band"), array)
    >>> largest.sizes
    Frozen({'time': 1, 'y': 4, 'x': 6})
    """
    expected = function(array)
    assert expected.chunks is None or not array.chunks, (
        "a function of an array in memory returns one in memory"
    )
    expected = expected.compute()
    for n in blocks:
        with raise_if_dask_computes(allowed_computes):
            lazy = function(array.chunk(_chunk_sizes(array, n)))
        _assert_lazy_equal(lazy, expected, rtol, f"{n} blocks per dimension")
    if transposed:
        turned = array.transpose(*reversed(array.dims))
        result = function(turned.chunk(_chunk_sizes(turned, 2)))
        _assert_lazy_equal(result.transpose(*expected.dims), expected, rtol, "dimensions reversed")
        result = function(turned).transpose(*expected.dims)
        _assert_close(result.compute(), expected, rtol, "dimensions reversed, in memory")
    return expected


def _assert_lazy_equal(lazy: xr.DataArray, expected: xr.DataArray, rtol: float, where: str) -> None:
    assert lazy.chunks is not None, f"not lazy ({where})"
    assert lazy.dtype == expected.dtype, f"declared {lazy.dtype}, in memory {expected.dtype} ({where})"
    block = lazy.data.blocks[(0,) * lazy.ndim].compute()
    assert block.dtype == lazy.dtype, f"declared {lazy.dtype}, computed {block.dtype} ({where})"
    expected_block = tuple(c[0] for c in lazy.chunks)
    assert block.shape == expected_block, f"declared block {expected_block}, computed {block.shape} ({where})"
    _assert_close(lazy.compute(), expected, rtol, where)


def _assert_close(actual: xr.DataArray, expected: xr.DataArray, rtol: float, where: str) -> None:
    if rtol == 0:
        try:
            xr.testing.assert_identical(actual, expected)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from None
        return
    assert actual.attrs == expected.attrs, where
    xr.testing.assert_identical(actual.coords.to_dataset(), expected.coords.to_dataset())
    scale = float(np.nanmax(np.abs(expected.values))) or 1.0
    np.testing.assert_allclose(actual.values, expected.values, rtol=0, atol=rtol * scale, err_msg=where)
