"""Memory for results of blocks, taken again once nothing refers to it.

New memory comes from the system page by page, and each page is cleared first, which for a decoded block of 64 MB
takes about as long as decoding it. Blocks are alike and come one after the other, so that the memory of one which
was consumed fits the next.
"""

from __future__ import annotations

import math
import threading
import weakref
from functools import cache
from typing import Any

import numpy as np

from geoemb_xr.core.machine import free_memory, worker_memory

#: Bytes of a result from which on its memory is kept; the allocator itself reuses what is smaller.
LEAST = 1 << 20
#: How many bytes are idle at most, where so much is a small share of the memory that this process may take.
MOST = 1 << 29
#: That share is one in so many. A dask worker cannot spill what is idle.
SHARE = 16

_idle: list[memoryview] = []  # the one that was given back last at the end
_moving = threading.Lock()


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A new array like that of :func:`numpy.empty`, in memory of an earlier one where that is free again.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    dtype : dtype
        Its data type. Of objects each array is new.

    Returns
    -------
    ndarray
        C-contiguous, of any values. Its memory is taken again once neither it nor a view of it is left.

    Examples
    --------
    >>> import numpy as np
    >>> empty((64, 3), np.float32).shape
    (64, 3)
    """
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < LEAST or dtype.hasobject:
        return np.empty(shape, dtype)
    _most()  # in a task of a worker, whose limit is known there
    memory = _idle_memory(nbytes)
    if memory is None:
        memory = memoryview(np.empty(_rounded(nbytes), np.uint8))
    # all views of the result have this array as their base: it goes when the last of them goes
    base = np.frombuffer(memory, np.uint8)
    weakref.finalize(base, _give_back, memory).atexit = False
    array: np.ndarray = base[:nbytes].view(dtype).reshape(shape)
    return array


def _rounded(nbytes: int) -> int:
    """At most an eighth more, so that blocks of nearly the same size fit each other's memory."""
    step = 1 << max(nbytes.bit_length() - 4, 0)
    return -(-nbytes // step) * step


def _idle_memory(nbytes: int) -> memoryview | None:
    """Idle memory of as many bytes or a little more; what was used last is likeliest in a cache."""
    if not _moving.acquire(blocking=False):
        return None
    try:
        for i in reversed(range(len(_idle))):
            if nbytes <= _idle[i].nbytes <= nbytes * 5 // 4:
                return _idle.pop(i)
    finally:
        _moving.release()
    return None


def _give_back(memory: memoryview) -> None:
    """Keep memory for later, and let go of what was idle longest.

    The garbage collector may call this anywhere, also within these functions: nothing here waits for the lock.
    """
    if not _moving.acquire(blocking=False):
        return
    try:
        _idle.append(memory)
        while sum(each.nbytes for each in _idle) > _most():
            _idle.pop(0)
    finally:
        _moving.release()


@cache
def _most() -> int:
    known = [each // SHARE for each in (free_memory(), worker_memory()) if each is not None]
    return min([MOST, *known])
