"""Compiled loops, and the one door to band-last memory.

Every kernel goes through :func:`jit`: compiled when first called, without the GIL, serial (the threads are
dask's), cached on disk where that can be written.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import numpy as np

#: ``True`` would add "nnan" and "ninf", with which LLVM deletes tests for NaN.
FASTMATH = frozenset({"reassoc", "contract", "nsz", "arcp"})
_compiling = threading.RLock()


class Kernel[**P, R]:
    """A function that numba compiles when it is first called (importing numba takes 0.4 s)."""

    def __init__(self, function: Callable[P, R], fastmath: frozenset[str] = FASTMATH) -> None:
        self.function = function
        self.fastmath = fastmath
        self._compiled: Callable[P, R] | None = None
        update_wrapper(self, function)

    @property
    def compiled(self) -> Callable[P, R]:
        """The numba dispatcher."""
        if self._compiled is None:
            with _compiling:
                if self._compiled is None:
                    self._compiled = _compile(self.function, self.fastmath)
        return self._compiled

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it, compiled."""
        return self.compiled(*args, **kwargs)

    def __reduce__(self) -> str:  # by name: a worker compiles, or loads, its own
        return self.function.__qualname__


def jit[**P, R](function: Callable[P, R]) -> Kernel[P, R]:
    """Mark a kernel; see :class:`Kernel`. Kernels may call other kernels of the same module."""
    return Kernel(function)


def jit_exact[**P, R](function: Callable[P, R]) -> Kernel[P, R]:
    """Like :func:`jit`, in the order of operations as written: for coordinates and areas."""
    return Kernel(function, frozenset())


def _compile(function: Callable[..., Any], fastmath: frozenset[str]) -> Any:
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
    options = {"nogil": True, "fastmath": set(fastmath), "error_model": "numpy"}
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

    The square is one of integers, so that a value is rounded once and has the same bits in any loop: of
    floats, "reassoc" would let the compiler multiply by the factor first.
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
                value = np.int32(codes[i, b, j])
                square = np.float32(value * abs(value))
                out[i, b, j] = np.float32(np.nan) if missing[j] else square * factor


@jit
def _decode_square_last(codes: Any, nodata: Any, factor: Any, out: Any) -> None:
    n, bands = codes.shape
    for i in range(n):
        missing = False
        for b in range(bands):
            missing |= codes[i, b] == nodata
        for b in range(bands):
            value = np.int32(codes[i, b])
            out[i, b] = np.float32(value * abs(value)) * factor
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


# --- warping --------------------------------------------------------------------------------------------------
#
# Source windows are (row, column, band), C-contiguous. Coordinates are whole numbers of 1/4096 source pixel,
# counted from the window's corner: a pixel covers 4096 of them, and its lower edge is its own.


@jit_exact
def fill_cells(cells: Any, size: Any, corners: Any, nowhere: Any, out: Any) -> None:
    """Interpolate square cells from the coordinates of their corners, rounded to 1/4096.

    ``cells`` (n, 2) is where they begin in ``out`` (2, rows, columns), and may be outside of it; ``corners`` is
    (n, 2, 2, 2), in pixels: coordinate, then row and column.
    """
    _, rows, cols = out.shape
    for n in range(len(cells)):
        top, left = cells[n, 0], cells[n, 1]
        for k in range(2):
            a, b = corners[n, k, 0, 0], corners[n, k, 0, 1]
            c, d = corners[n, k, 1, 0], corners[n, k, 1, 1]
            lost = np.isnan(a + b + c + d)
            for i in range(max(top, 0), min(top + size, rows)):
                fy = (i - top) / size
                west = a + (c - a) * fy
                east = b + (d - b) * fy
                for j in range(max(left, 0), min(left + size, cols)):
                    if lost:
                        out[k, i, j] = nowhere
                    else:
                        out[k, i, j] = np.int64(np.rint((west + (east - west) * ((j - left) / size)) * 4096))


@jit
def gather(window: Any, at: Any, fill: Any, out: Any) -> None:
    """The nearest pixel's bytes, ``fill`` outside: ``window`` and ``out`` are words of any vector."""
    height, width, words = window.shape
    _, rows, cols = at.shape
    for i in range(rows):
        for j in range(cols):
            r, c = at[0, i, j] >> 12, at[1, i, j] >> 12
            if 0 <= r < height and 0 <= c < width:
                for k in range(words):
                    out[i, j, k] = window[r, c, k]
            else:
                for k in range(words):
                    out[i, j, k] = fill[k]


@jit
def bilinear(window: Any, at: Any, unit: Any, out: Any) -> None:
    """Weighted means of the valid ones of four neighbours, of unit length if ``unit``.

    A pixel is missing (NaN) where its nearest source pixel is: the mask is that of :func:`gather`.
    """
    height, width, bands = window.shape
    _, rows, cols = at.shape
    for i in range(rows):
        for j in range(cols):
            y, x = at[0, i, j], at[1, i, j]
            r, c = y >> 12, x >> 12
            if not (0 <= r < height and 0 <= c < width) or np.isnan(window[r, c, 0]):
                for b in range(bands):
                    out[i, j, b] = np.nan
                continue
            r, c = (y - 2048) >> 12, (x - 2048) >> 12
            fy, fx = np.float32((y - 2048) & 4095) / 4096, np.float32((x - 2048) & 4095) / 4096
            total = np.float32(0)
            first = True
            for k in range(4):
                rk, ck = r + (k >> 1), c + (k & 1)
                w = (fy if k >> 1 else 1 - fy) * (fx if k & 1 else 1 - fx)
                if w == 0 or not (0 <= rk < height and 0 <= ck < width) or np.isnan(window[rk, ck, 0]):
                    continue
                total += w
                if first:
                    for b in range(bands):
                        out[i, j, b] = w * window[rk, ck, b]
                    first = False
                else:
                    for b in range(bands):
                        out[i, j, b] += w * window[rk, ck, b]
            if unit:
                square = np.float32(0)
                for b in range(bands):
                    square += out[i, j, b] * out[i, j, b]
                total = np.sqrt(square)
            factor = 1 / total
            for b in range(bands):
                out[i, j, b] *= factor


@jit_exact
def _cover(y: Any, x: Any, row: Any, cover: Any) -> None:
    """Signed area that a polygon covers of each pixel of a row, exactly; ``cover`` is 0 at first.

    Each edge adds, pixel by pixel, the change of the area to its right, which a running sum turns into areas
    (the accumulation buffer of font rasterisers).
    """
    n = len(y)
    for e in range(n):
        y0, x0, y1, x1 = y[e], x[e], y[(e + 1) % n], x[(e + 1) % n]
        sign = 1.0
        if y0 > y1:
            y0, x0, y1, x1, sign = y1, x1, y0, x0, -1.0
        low, high = max(y0, row), min(y1, row + 1.0)
        if low >= high:
            continue
        slope = (x1 - x0) / (y1 - y0)
        xa, xb = x0 + (low - y0) * slope, x0 + (high - y0) * slope
        if xa > xb:
            xa, xb = xb, xa
        d = sign * (high - low)
        area_left, before = 0.0, 0.0
        for c in range(int(np.floor(xa)), int(np.floor(xb)) + 2):
            t = c + 1.0
            if t >= xb:
                left = t - (xa + xb) / 2
            elif t <= xa:
                left = 0.0
            else:
                left = (t - xa) ** 2 / (2 * (xb - xa))
            area = d * (left - area_left)
            cover[c] += area - before
            area_left, before = left, area
    for c in range(1, len(cover)):
        cover[c] += cover[c - 1]


@jit
def average(window: Any, corners: Any, unit: Any, out: Any, stats: Any) -> None:
    """Means over the true footprints of target pixels, weighted by area, of the valid source pixels.

    ``corners`` (2, rows + 1, columns + 1) are those of the target pixels. ``stats`` (rows, columns, 2) is the
    resultant length and the valid share of the footprint, or empty.
    """
    height, width, bands = window.shape
    rows, cols = out.shape[:2]
    y, x = np.empty(4), np.empty(4)
    total = np.empty(bands)
    cover = np.zeros(8)
    for i in range(rows):
        for j in range(cols):
            lost, top, left, bottom, right = _footprint(corners, i, j, y, x)
            area = 0.0
            weight = 0.0
            length = 0.0
            total[:] = 0
            if not lost:
                for e in range(4):
                    area += (x[e] * y[(e + 1) % 4] - x[(e + 1) % 4] * y[e]) / 2
                if right - left + 3 > len(cover):
                    cover = np.zeros(right - left + 3)
                for r in range(max(top, 0), min(bottom + 1, height)):
                    cover[:] = 0
                    _cover(y, x, r - top, cover)
                    for c in range(max(left, 0), min(right + 1, width)):
                        # whole 2⁻²⁴: the rounding of the running sum is no weight
                        w = np.rint(abs(cover[c - left]) * 16777216.0) / 16777216.0
                        if w == 0 or np.isnan(window[r, c, 0]):
                            continue
                        weight += w
                        for b in range(bands):
                            total[b] += w * window[r, c, b]
                        if len(stats):
                            square = 0.0
                            for b in range(bands):
                                square += np.float64(window[r, c, b]) * window[r, c, b]
                            length += w * np.sqrt(square)
            square = 0.0
            for b in range(bands):
                square += total[b] * total[b]
            factor = np.nan
            if weight > 0:
                factor = 1 / np.sqrt(square) if unit else 1 / weight
            for b in range(bands):
                out[i, j, b] = total[b] * factor
            if len(stats):
                stats[i, j, 0] = np.sqrt(square) / length if weight > 0 else np.nan
                stats[i, j, 1] = weight / abs(area) if not lost else 0.0


@jit
def mode(window: Any, corners: Any, counts: Any, out: Any) -> None:
    """The class that covers most of each target pixel's footprint; 0 is no data, the smaller code wins a tie.

    ``window`` is (row, column) of small unsigned integers, ``counts`` an array of zeros, one a code.
    """
    height, width = window.shape
    rows, cols = out.shape
    y, x = np.empty(4), np.empty(4)
    cover = np.zeros(8)
    for i in range(rows):
        for j in range(cols):
            out[i, j] = 0
            lost, top, left, bottom, right = _footprint(corners, i, j, y, x)
            if lost:
                continue
            if right - left + 3 > len(cover):
                cover = np.zeros(right - left + 3)
            best = 0.0
            for wipe in range(2):
                for r in range(max(top, 0), min(bottom + 1, height)):
                    if not wipe:
                        cover[:] = 0
                        _cover(y, x, r - top, cover)
                    for c in range(max(left, 0), min(right + 1, width)):
                        code = window[r, c]
                        if code == 0:
                            continue
                        if wipe:
                            if counts[code] > best or (
                                counts[code] == best and best > 0 and code < out[i, j]
                            ):
                                best, out[i, j] = counts[code], code
                        else:
                            counts[code] += np.int64(np.rint(abs(cover[c - left]) * 16777216.0))
                for r in range(max(top, 0), min(bottom + 1, height) if wipe else 0):
                    for c in range(max(left, 0), min(right + 1, width)):
                        counts[window[r, c]] = 0


@jit_exact
def _footprint(corners: Any, i: Any, j: Any, y: Any, x: Any) -> Any:
    """Corners of a target pixel from its footprint's upper left source pixel, and the pixels it spans."""
    top = left = np.int64(2**62)
    bottom = right = np.int64(-(2**62))
    lost = False
    for e in range(4):
        di, dj = (e >> 1), (e >> 1) ^ (e & 1)
        ye, xe = corners[0, i + di, j + dj], corners[1, i + di, j + dj]
        lost |= ye < -(2**61)
        top, bottom = min(top, ye >> 12), max(bottom, ye >> 12)
        left, right = min(left, xe >> 12), max(right, xe >> 12)
    for e in range(4):
        di, dj = (e >> 1), (e >> 1) ^ (e & 1)
        y[e] = (corners[0, i + di, j + dj] - top * 4096) / 4096
        x[e] = (corners[1, i + di, j + dj] - left * 4096) / 4096
    return lost, top, left, bottom, right
