"""Private API of dask and xarray in one place, so that a version that moves it is noticed here.

Tasks that refer to others, values handed to blocks by number, which scheduler computes, arrays that are read when
indexed or at hand, and a time axis encoded as xarray would: there is no public way to any of them. Modules import
these late, as they import dask.
"""

from __future__ import annotations

import dask
import numpy as np
import xarray as xr
from dask.tokenize import normalize_token

try:
    from dask._task_spec import DataNode, Task, TaskRef
    from dask.array.chunk import getitem
    from dask.blockwise import Blockwise, optimize_blockwise
    from dask.core import flatten
    from dask.layers import ArraySliceDep, ArrayValuesDep
    from dask.local import get_sync
    from dask.threaded import get as get_threaded
    from xarray.backends import BackendArray
    from xarray.coding.times import CFDatetimeCoder
    from xarray.core import indexing
except ImportError as error:  # pragma: no cover - no version that is allowed does
    raise ImportError(
        f"dask {dask.__version__} or xarray {xr.__version__} has moved what geoemb_xr stands on ({error}): install "
        "the versions before, or a newer geoemb_xr"
    ) from error

__all__ = [
    "ArraySliceDep",
    "ArrayValuesDep",
    "BackendArray",
    "BlockValues",
    "Blockwise",
    "CFDatetimeCoder",
    "DataNode",
    "Task",
    "TaskRef",
    "flatten",
    "get_sync",
    "get_threaded",
    "getitem",
    "indexing",
    "is_in_memory",
    "normalize_token",
    "optimize_blockwise",
]


def is_in_memory(variable: xr.Variable) -> bool:
    """Whether the values are at hand: neither dask's, nor read when indexed."""
    return isinstance(variable._data, np.ndarray)


class BlockValues(ArrayValuesDep):  # type: ignore[misc]  # of dask, which tells no types
    """A value for each block, told from others by a token.

    Dask takes the text of the values instead, in which arrays are shortened: of two arrays whose values read alike,
    one took the place of the other once their layers were fused.
    """

    def __init__(self, chunks: tuple[tuple[int, ...], ...], values: np.ndarray, token: str) -> None:
        super().__init__(chunks, values)
        self.token = token


normalize_token.register(BlockValues, lambda values: ("BlockValues", values.token))
