"""Whole arrays in memory: free memory, and loading with every thread."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core.machine import free_memory
from geoemb_xr.execution.computing import scheduler, variables_of
from geoemb_xr.execution.progress import shown


def check_room(nbytes: int, what: str, instead: str) -> None:
    """Raise if more than half of the free memory would be taken.

    Parameters
    ----------
    nbytes : int
        Bytes that the work would take.
    what : str
        Name in the message.
    instead : str
        Advice for the message.

    Raises
    ------
    MemoryError
        If it would.
    """
    free = free_memory()
    if free is not None and nbytes > free / 2:
        raise MemoryError(
            f"{what} of {nbytes / 1e9:.1f} GB would take more than half of the {free / 1e9:.1f} GB that are free: "
            f"{instead}"
        )


def load[T: (xr.DataArray, xr.Dataset)](array: T) -> T:
    """Compute an array into memory and return it, like its own ``load``, with every thread and a progress bar.

    ``compute()`` and ``load()`` of xarray put the blocks together at the end, on one thread. Here each task writes
    its block into the result itself. With a cluster, or any scheduler other than threads, this is ``load()``.

    Parameters
    ----------
    array : DataArray or Dataset
        Lazy, of any kind. It is changed in place, as by xarray's ``load``.

    Returns
    -------
    DataArray or Dataset
        The same object, with its values in memory. Their order in memory may be that of the blocks (bands last, for
        example), which is faster to fill; ``numpy.ascontiguousarray`` of them has the order of the dimensions.

    Raises
    ------
    MemoryError
        If it would take more than half of the free memory.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64)).chunk(y=16)
    >>> da.emb.load().chunks is None, da.chunks is None
    (True, True)
    """
    lazy = [each for each in variables_of(array) if each.chunks is not None]
    check_room(
        sum(each.nbytes for each in lazy),
        "an array",
        "crop or coarsen it first, or write it with .emb.to_zarr",
    )
    if lazy and not _on_threads(lazy):
        return array.load()
    targets = [_MemoryForBlocks(each.shape, each.dtype) for each in lazy]
    if lazy:
        import dask.array

        with shown("load"):
            dask.array.store([each.data for each in lazy], targets, lock=False, scheduler=scheduler())
    for variable, target in zip(lazy, targets, strict=True):
        variable.data = target.values()
    return array


def _on_threads(lazy: list[xr.Variable]) -> bool:
    """Whether dask would compute these in threads of this process, or in the calling one."""
    import dask.base

    from geoemb_xr.execution.internals import get_sync, get_threaded

    chosen = scheduler() or dask.base.get_scheduler(collections=[each.data for each in lazy])
    return chosen in (get_threaded, get_sync)


class _MemoryForBlocks:
    """Memory for an array, made when its first block comes, in the order in which that block lies in memory."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self._held: np.ndarray | None = None
        self._making = threading.Lock()
        self._token = uuid.uuid4().hex

    def __setitem__(self, key: Any, block: np.ndarray) -> None:
        self._like(block)[key] = block

    def values(self) -> np.ndarray:
        """What the tasks wrote."""
        return self._like(np.empty(self.shape, self.dtype)) if self._held is None else self._held

    def _like(self, block: np.ndarray) -> np.ndarray:
        with self._making:
            if self._held is None:
                slowest_first = np.argsort([-abs(stride) for stride in block.strides], kind="stable")
                memory = np.empty([self.shape[axis] for axis in slowest_first], self.dtype)
                self._held = memory.transpose(np.argsort(slowest_first))
            return self._held

    def __dask_tokenize__(self) -> str:
        return self._token
