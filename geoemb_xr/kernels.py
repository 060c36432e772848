"""Compiled loops, and the one door to band-last memory.

Every kernel goes through :func:`jit`: compiled when first called, without the GIL, serial (the threads are
dask's), cached on disk where that can be written.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

#: ``True`` would add "nnan" and "ninf", with which LLVM deletes tests for NaN.
FASTMATH = frozenset({"reassoc", "contract", "nsz", "arcp"})
_compiling = threading.RLock()


class Kernel(Generic[P, R]):
    """A function that numba compiles when it is first called (importing numba takes 0.4 s)."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self._compiled: Callable[P, R] | None = None
        update_wrapper(self, function)

    @property
    def compiled(self) -> Callable[P, R]:
        """The numba dispatcher."""
        if self._compiled is None:
            with _compiling:
                if self._compiled is None:
                    self._compiled = _compile(self.function)
        return self._compiled

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.compiled(*args, **kwargs)

    def __reduce__(self) -> str:  # by name: a worker compiles, or loads, its own
        return self.function.__qualname__


def jit(function: Callable[P, R]) -> Kernel[P, R]:
    """Mark a kernel; see :class:`Kernel`. Kernels may call other kernels of the same module."""
    return Kernel(function)


def _compile(function: Callable[..., Any]) -> Any:
    import numba

    # A kernel that calls another finds it in its globals, where numba must see the dispatcher.
    scope = {
        name: value.compiled if isinstance(value, Kernel) else value
        for name, value in function.__globals__.items()
        if name in function.__code__.co_names
    }
    plain = types.FunctionType(
        function.__code__, {**function.__globals__, **scope}, function.__name__, function.__defaults__
    )
    plain.__qualname__, plain.__module__ = function.__qualname__, function.__module__
    options = {"nogil": True, "fastmath": set(FASTMATH), "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(plain)
    except RuntimeError:  # nowhere to write the cache: compile anew in each process
        return numba.njit(**options)(plain)


# --- the order of memory --------------------------------------------------------------------------------------


def band_last(block: np.ndarray, axis: int) -> np.ndarray:
    """A block with its bands last and contiguous: a view where it lies so already, else one transpose.

    Parameters
    ----------
    block : ndarray (…, band, …)
        Any dtype.
    axis : int
        Where the bands are.

    Returns
    -------
    ndarray (…, band)
        C-contiguous.

    Examples
    --------
    >>> import numpy as np
    >>> band_last(np.zeros((64, 3, 5), np.int8), 0).shape
    (3, 5, 64)
    """
    view = np.moveaxis(block, axis, -1)
    if view.flags.c_contiguous:
        return view
    axis %= block.ndim
    if not block.flags.c_contiguous:
        return np.ascontiguousarray(view)
    outer = int(np.prod(block.shape[:axis], dtype=np.int64))
    bands = block.shape[axis]
    inner = int(np.prod(block.shape[axis + 1 :], dtype=np.int64))
    out = np.empty((outer, inner, bands), block.dtype)
    source = block.reshape(outer, bands, inner)
    for i in range(outer):
        _transpose(source[i], out[i])
    return out.reshape(view.shape)


def band_first(block: np.ndarray, axis: int) -> np.ndarray:
    """The inverse of :func:`band_last`: a band-last block with its bands moved to ``axis``, contiguous."""
    view = np.moveaxis(block, -1, axis)
    if view.flags.c_contiguous or not block.flags.c_contiguous:
        return np.ascontiguousarray(view)
    axis %= block.ndim
    outer = int(np.prod(block.shape[:axis], dtype=np.int64))
    inner = int(np.prod(block.shape[axis:-1], dtype=np.int64))
    out = np.empty((outer, block.shape[-1], inner), block.dtype)
    source = block.reshape(outer, inner, block.shape[-1])
    for i in range(outer):
        _transpose(source[i], out[i])
    return out.reshape(view.shape)


def _transpose(source: np.ndarray, out: np.ndarray) -> None:
    """Transpose a contiguous 2-D array into another."""
    rows, cols = source.shape
    if source.dtype.itemsize == 1 and rows % 8 == 0 and cols % 8 == 0:
        _transpose_bytes(source.view(np.uint64), out.view(np.uint64))
    else:
        _transpose_tiled(source, out)


@jit
def _transpose_bytes(source: Any, out: Any) -> None:
    """Transpose bytes in squares of 8 × 8, each held in eight 64-bit words (Hacker's Delight, 7-3)."""
    m1 = np.uint64(0x00FF00FF00FF00FF)
    m2 = np.uint64(0x0000FFFF0000FFFF)
    m4 = np.uint64(0x00000000FFFFFFFF)
    s1, s2, s4 = np.uint64(8), np.uint64(16), np.uint64(32)
    rows, words = source.shape
    for c0 in range(0, words, 8):  # 64 columns at a time: a cache line of every row
        c1 = min(c0 + 8, words)
        for r in range(0, rows, 8):
            for c in range(c0, c1):
                a0 = source[r, c]
                a1 = source[r + 1, c]
                a2 = source[r + 2, c]
                a3 = source[r + 3, c]
                a4 = source[r + 4, c]
                a5 = source[r + 5, c]
                a6 = source[r + 6, c]
                a7 = source[r + 7, c]
                # swap the off-diagonal 1 × 1, 2 × 2 and 4 × 4 byte squares of neighbouring rows
                t = ((a0 >> s1) ^ a1) & m1
                a1 ^= t
                a0 ^= t << s1
                t = ((a2 >> s1) ^ a3) & m1
                a3 ^= t
                a2 ^= t << s1
                t = ((a4 >> s1) ^ a5) & m1
                a5 ^= t
                a4 ^= t << s1
                t = ((a6 >> s1) ^ a7) & m1
                a7 ^= t
                a6 ^= t << s1
                t = ((a0 >> s2) ^ a2) & m2
                a2 ^= t
                a0 ^= t << s2
                t = ((a1 >> s2) ^ a3) & m2
                a3 ^= t
                a1 ^= t << s2
                t = ((a4 >> s2) ^ a6) & m2
                a6 ^= t
                a4 ^= t << s2
                t = ((a5 >> s2) ^ a7) & m2
                a7 ^= t
                a5 ^= t << s2
                t = ((a0 >> s4) ^ a4) & m4
                a4 ^= t
                a0 ^= t << s4
                t = ((a1 >> s4) ^ a5) & m4
                a5 ^= t
                a1 ^= t << s4
                t = ((a2 >> s4) ^ a6) & m4
                a6 ^= t
                a2 ^= t << s4
                t = ((a3 >> s4) ^ a7) & m4
                a7 ^= t
                a3 ^= t << s4
                q, k = r // 8, c * 8
                out[k, q] = a0
                out[k + 1, q] = a1
                out[k + 2, q] = a2
                out[k + 3, q] = a3
                out[k + 4, q] = a4
                out[k + 5, q] = a5
                out[k + 6, q] = a6
                out[k + 7, q] = a7


@jit
def _transpose_tiled(source: Any, out: Any) -> None:
    rows, cols = source.shape
    for c0 in range(0, cols, 32):
        c1 = min(c0 + 32, cols)
        for r0 in range(0, rows, 32):
            r1 = min(r0 + 32, rows)
            for c in range(c0, c1):
                for r in range(r0, r1):
                    out[c, r] = source[r, c]


# --- decoding -------------------------------------------------------------------------------------------------


def as_bands(block: np.ndarray, axis: int) -> np.ndarray:
    """A block as ``(outer, band, inner)``, C-contiguous: the shape elementwise kernels take."""
    axis %= block.ndim
    block = np.ascontiguousarray(block)
    outer = int(np.prod(block.shape[:axis], dtype=np.int64))
    inner = int(np.prod(block.shape[axis + 1 :], dtype=np.int64))
    return block.reshape(outer, block.shape[axis], inner)


def decode_square(codes: np.ndarray, axis: int, nodata: int, factor: np.float32) -> np.ndarray:
    """``codes · |codes| · factor`` as float32, NaN in all bands of a vector where one is ``nodata``.

    The product of two int8 is exact in float32, so a value is rounded once: the same bits in any loop order.
    """
    bands = as_bands(codes, axis)
    out = np.empty(bands.shape, np.float32)
    if bands.shape[2] == 1:
        _decode_square_last(bands[:, :, 0], nodata, factor, out[:, :, 0])
    else:
        _decode_square_first(bands, nodata, factor, out)
    return out.reshape(codes.shape)


@jit
def _decode_square_first(codes: Any, nodata: Any, factor: Any, out: Any) -> None:
    n, bands, m = codes.shape
    missing = np.empty(m, np.bool_)
    for i in range(n):
        missing[:] = False
        for b in range(bands):
            for j in range(m):
                missing[j] |= codes[i, b, j] == nodata
        for b in range(bands):
            for j in range(m):
                value = np.float32(codes[i, b, j])
                out[i, b, j] = np.float32(np.nan) if missing[j] else value * abs(value) * factor


@jit
def _decode_square_last(codes: Any, nodata: Any, factor: Any, out: Any) -> None:
    n, bands = codes.shape
    for i in range(n):
        missing = False
        for b in range(bands):
            missing |= codes[i, b] == nodata
        for b in range(bands):
            value = np.float32(codes[i, b])
            out[i, b] = value * abs(value) * factor
        if missing:
            for b in range(bands):
                out[i, b] = np.nan


@jit
def scale_codes(codes: Any, scale: Any, out: Any) -> None:
    """``out = codes * scale`` over ``(outer, band, inner)`` and ``(outer, inner)``; NaN without a scale.

    A scale that is not finite, or is 0, marks a pixel that was never embedded.
    """
    n, bands, m = codes.shape
    for i in range(n):
        for b in range(bands):
            for j in range(m):
                s = scale[i, j]
                if np.isfinite(s) and s != 0:
                    out[i, b, j] = codes[i, b, j] * s
                else:
                    out[i, b, j] = np.nan
