"""Computing what a function of ours needs, without looking for a cluster that cannot be there.

dask imports distributed at the first computation to look for a client, where it is installed, which takes half a
second. Nobody can have made a client in a process that has not imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import xarray as xr


def scheduler() -> Callable[..., Any] | None:
    """What to pass to dask as ``scheduler``: its threads where nothing else was chosen; None lets dask look.

    Examples
    --------
    >>> import dask
    >>> with dask.config.set(scheduler="synchronous"):
    ...     scheduler() is None
    True
    """
    import dask

    if "distributed" in sys.modules or dask.config.get("scheduler", None) or dask.config.get("get", None):
        return None
    from geoemb_xr.execution import internals

    threads: Callable[..., Any] = internals.get_threaded
    return threads


def compute(*collections: Any) -> tuple[Any, ...]:
    """``dask.compute``, which takes any collections in any nest."""
    import dask

    return tuple(dask.compute(*collections, scheduler=scheduler()))


def persisted[T: (xr.DataArray, xr.Dataset)](lazy: T) -> T:
    """``lazy.persist()``: the same chunks, which are in memory."""
    import dask

    held: tuple[T] = dask.persist(lazy, scheduler=scheduler())
    return held[0]


def computed[T: (xr.DataArray, xr.Dataset)](lazy: T) -> T:
    """``lazy.compute()``: the same values, in a new object.

    xarray asks each installed package whether it brings arrays in chunks, which takes 0.2 s: ours are dask's.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(8, 8)).chunk(y=4)
    >>> computed(da).chunks is None, da.chunks is None, computed(da).equals(da)
    (True, False, True)
    """
    found = lazy.copy(deep=False)
    chunked = [each for each in variables_of(found) if each.chunks is not None]
    for variable, values in zip(chunked, compute(*(each.data for each in chunked)), strict=True):
        variable.data = values
    return found.load()  # what a file's reader left for later, too


def variables_of(array: xr.DataArray | xr.Dataset) -> list[xr.Variable]:
    """All that holds values: of an array itself and its coordinates."""
    if isinstance(array, xr.Dataset):
        return list(array.variables.values())
    return [array.variable, *(each.variable for each in array.coords.values())]
