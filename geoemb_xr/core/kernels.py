"""The one door to band-last memory. What compiles its loops is in :mod:`~geoemb_xr.core.compiling`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from geoemb_xr.core import buffers
from geoemb_xr.core.compiling import Kernel as Kernel
from geoemb_xr.core.compiling import jit as jit
from geoemb_xr.core.compiling import jit_exact as jit_exact
from geoemb_xr.core.compiling import runs as runs

# --- the order of memory --------------------------------------------------------------------------------------


def band_last(block: np.ndarray, axis: int) -> np.ndarray:
    """A block with its bands last and contiguous: a view where it lies so already, else one transpose.

    Parameters
    ----------
    block : ndarray (…, band, …)
        Any dtype, any strides.
    axis : int
        Position of the band axis.

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
    out = buffers.empty(view.shape, block.dtype)
    copy_band_last(block, axis, out)
    return out


def band_first(block: np.ndarray, axis: int) -> np.ndarray:
    """The inverse of :func:`band_last`: a band-last block with its bands moved to ``axis``, contiguous."""
    view = np.moveaxis(block, -1, axis)
    if view.flags.c_contiguous or not block.flags.c_contiguous:
        return np.ascontiguousarray(view)
    axis %= block.ndim
    outer = math.prod(block.shape[:axis])
    out = buffers.empty(view.shape, block.dtype)
    # the same transpose, with pixels in place of bands
    copy_band_last(block.reshape(outer, -1, block.shape[-1]), 1, out.reshape(outer, block.shape[-1], -1))
    return out


def as_bands(block: np.ndarray, axis: int) -> np.ndarray:
    """A block as ``(outer, band, inner)``, C-contiguous: the shape elementwise kernels take."""
    axis %= block.ndim
    block = np.ascontiguousarray(block)
    outer = math.prod(block.shape[:axis])
    inner = math.prod(block.shape[axis + 1 :])
    return block.reshape(outer, block.shape[axis], inner)


def copy_band_last(block: np.ndarray, axis: int, out: np.ndarray) -> None:
    """Write a block into ``out`` (…, band), whose vectors are contiguous: pixels may be those of a window."""
    axis %= block.ndim
    planes = np.moveaxis(block, axis, 0)
    if planes.ndim == 1 or planes.strides[0] == block.dtype.itemsize:  # it lies band-last: rows of bytes
        out[...] = np.moveaxis(block, axis, -1)
        return
    while planes.ndim > 3:
        for i in range(planes.shape[1]):
            copy_band_last(planes[:, i], 0, out[i])
        return
    if planes.ndim == 2:
        planes, out = planes[:, None], out[None]
    elif planes[0].flags.c_contiguous and out.flags.c_contiguous:  # rows follow each other: one long row
        planes, out = planes.reshape(len(planes), 1, -1), out.reshape(1, -1, out.shape[-1])
    size = block.dtype.itemsize
    if size in (1, 2, 4, 8) and out.dtype == block.dtype:  # words: a loop is compiled for each type of values
        planes, out = planes.view(f"u{size}"), out.view(f"u{size}")
    bands, _, cols = planes.shape
    done = 0
    if size == 1 and bands % 8 == 0 and planes.strides[2] == 1:
        done = cols - cols % 8
        _transpose_bytes(planes[..., :done].view(np.uint64), out[:, :done].view(np.uint64))
    if done < cols:
        _transpose_values(planes[..., done:], out[:, done:])


@jit
def _transpose_bytes(source: Any, out: Any) -> None:
    """Transpose bytes in squares of 8 × 8, each held in eight 64-bit words (Hacker's Delight, 7-3).

    ``source`` is (band, row, column / 8), ``out`` (row, column, band / 8). Squares are walked along the longer
    side, 64 at a time: eight cache lines in a row, enough for the processor to see that more are coming, few
    enough to stay in its cache.
    """
    m1 = np.uint64(0x00FF00FF00FF00FF)
    m2 = np.uint64(0x0000FFFF0000FFFF)
    m4 = np.uint64(0x00000000FFFFFFFF)
    s1, s2, s4 = np.uint64(8), np.uint64(16), np.uint64(32)
    bands, rows, words = source.shape
    # a square's place: i along the shorter side, j along the longer one
    if words * 8 >= bands:
        shorter, longer, bi, bj, ci, cj = bands // 8, words, 8, 0, 0, 1
    else:
        shorter, longer, bi, bj, ci, cj = words, bands // 8, 0, 8, 1, 0
    for y in range(rows):
        for start in range(0, longer, 64):
            for i in range(shorter):
                for j in range(start, min(start + 64, longer)):
                    b, c = i * bi + j * bj, i * ci + j * cj
                    a0 = source[b, y, c]
                    a1 = source[b + 1, y, c]
                    a2 = source[b + 2, y, c]
                    a3 = source[b + 3, y, c]
                    a4 = source[b + 4, y, c]
                    a5 = source[b + 5, y, c]
                    a6 = source[b + 6, y, c]
                    a7 = source[b + 7, y, c]
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
                    q, k = b // 8, c * 8
                    out[y, k, q] = a0
                    out[y, k + 1, q] = a1
                    out[y, k + 2, q] = a2
                    out[y, k + 3, q] = a3
                    out[y, k + 4, q] = a4
                    out[y, k + 5, q] = a5
                    out[y, k + 6, q] = a6
                    out[y, k + 7, q] = a7


@jit
def _transpose_values(source: Any, out: Any) -> None:
    """Transpose values of any type, (band, row, column) to (row, column, band).

    Four lines at a time are walked along the longer side, 128 values of each.
    """
    bands, rows, cols = source.shape
    wide = cols >= bands
    shorter, longer = (bands, cols) if wide else (cols, bands)
    for y in range(rows):
        for start in range(0, longer, 128):
            stop = min(start + 128, longer)
            for i in range(0, shorter - 3, 4):
                for j in range(start, stop):
                    if wide:
                        out[y, j, i] = source[i, y, j]
                        out[y, j, i + 1] = source[i + 1, y, j]
                        out[y, j, i + 2] = source[i + 2, y, j]
                        out[y, j, i + 3] = source[i + 3, y, j]
                    else:
                        out[y, i, j] = source[j, y, i]
                        out[y, i + 1, j] = source[j, y, i + 1]
                        out[y, i + 2, j] = source[j, y, i + 2]
                        out[y, i + 3, j] = source[j, y, i + 3]
            for i in range(shorter - shorter % 4, shorter):
                for j in range(start, stop):
                    if wide:
                        out[y, j, i] = source[i, y, j]
                    else:
                        out[y, i, j] = source[j, y, i]


@_transpose_bytes.in_numpy_bitwise
def _transpose_bytes_numpy(source: Any, out: Any) -> None:
    out.view(np.uint8)[...] = np.moveaxis(source.view(np.uint8), 0, -1)


@_transpose_values.in_numpy_bitwise
def _transpose_values_numpy(source: Any, out: Any) -> None:
    out[...] = np.moveaxis(source, 0, -1)
