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
        Any dtype, any strides.
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
    out = np.empty(view.shape, block.dtype)
    copy_band_last(block, axis, out)
    return out


def band_first(block: np.ndarray, axis: int) -> np.ndarray:
    """The inverse of :func:`band_last`: a band-last block with its bands moved to ``axis``, contiguous."""
    view = np.moveaxis(block, -1, axis)
    if view.flags.c_contiguous or not block.flags.c_contiguous:
        return np.ascontiguousarray(view)
    axis %= block.ndim
    outer = int(np.prod(block.shape[:axis], dtype=np.int64))
    out = np.empty(view.shape, block.dtype)
    # the same transpose, with pixels in the place of bands
    copy_band_last(block.reshape(outer, -1, block.shape[-1]), 1, out.reshape(outer, block.shape[-1], -1))
    return out


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
    bands, _, cols = planes.shape
    done = 0
    if block.dtype.itemsize == 1 and bands % 8 == 0 and planes.strides[2] == 1:
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


# --- decoding -------------------------------------------------------------------------------------------------


def as_bands(block: np.ndarray, axis: int) -> np.ndarray:
    """A block as ``(outer, band, inner)``, C-contiguous: the shape elementwise kernels take."""
    axis %= block.ndim
    block = np.ascontiguousarray(block)
    outer = int(np.prod(block.shape[:axis], dtype=np.int64))
    inner = int(np.prod(block.shape[axis + 1 :], dtype=np.int64))
    return block.reshape(outer, block.shape[axis], inner)


def decode_square(codes: np.ndarray, axis: int, nodata: int, factor: np.float32) -> np.ndarray:
    """``codes · |codes| · factor`` as float32, NaN in all bands where one is ``nodata``, the smallest code.

    The square is one of integers, so that a value is rounded once and has the same bits in any loop: of
    floats, "reassoc" would let the compiler multiply by the factor first.
    """
    bands = as_bands(codes, axis)
    out = np.empty(bands.shape, np.float32)
    if bands.shape[2] == 1:
        _decode_square_last(bands.reshape(bands.shape[:2]), nodata, factor, out.reshape(bands.shape[:2]))
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
def decode_square_less(codes: Any, nodata: Any, factor: Any, shift: Any, out: Any, valid: Any) -> None:
    """Decode ``(band, n)`` less a value a band, and say which vectors are valid; the others become zeros."""
    bands, n = codes.shape
    valid[:] = True
    for b in range(bands):
        for j in range(n):
            valid[j] &= codes[b, j] != nodata
    for b in range(bands):
        less = shift[b]
        for j in range(n):
            value = np.float32(codes[b, j])
            out[b, j] = value * abs(value) * factor - less
    if not valid.all():
        for b in range(bands):
            for j in range(n):
                out[b, j] = out[b, j] if valid[j] else np.float32(0)


@jit
def _decode_square_last(codes: Any, nodata: Any, factor: Any, out: Any) -> None:
    n, bands = codes.shape
    for i in range(n):
        least = np.int32(0)  # LLVM vectorises a minimum, not a search
        for b in range(bands):
            value = np.int32(codes[i, b])
            least = min(least, value)
            out[i, b] = np.float32(value * abs(value)) * factor
        if least == nodata:
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
                if abs(s) < np.inf and s != 0:  # isfinite is s - s == 0, which reassociation may fold
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
def square_factors(codes: Any, nodata: Any, factor: Any, out: Any) -> None:
    """``out`` (pixels) = ``factor``, 0 where a band of ``codes`` (pixels, bands) is ``nodata``, the least code."""
    n, bands = codes.shape
    for i in range(n):
        least = codes[i, 0]
        for b in range(bands):
            least = min(least, codes[i, b])
        out[i] = 0 if least == nodata else factor


@jit_exact
def _decoded(value: Any, factor: Any, power: Any) -> Any:
    """A stored value as a float: q · factor or q · |q| · factor; ``power`` is None where floats are stored.

    Exact here means that what it is multiplied by later is not moved into it: codes give what their decoded
    vectors give, to the bit.
    """
    if power is None:
        return value
    number = np.float32(value)
    if power == 2:
        number *= abs(number)
    return number * factor


@jit_exact
def _mixed(wa: Any, a: Any, wb: Any, b: Any, wc: Any, c: Any, wd: Any, d: Any) -> Any:
    """A weighted sum as written: with fast arithmetic, its bits depend on the processor and on what is stored."""
    return (wa * a + wb * b) + (wc * c + wd * d)


@jit
def bilinear(window: Any, factors: Any, power: Any, at: Any, unit: Any, out: Any) -> None:
    """Weighted means of the valid ones of four neighbours, of unit length if ``unit``.

    ``factors`` (row, column) is what values are multiplied by, 0 where a pixel is missing; ``power`` as in
    :func:`_decoded`. A pixel is missing (NaN) where its nearest source pixel is: the mask is that of
    :func:`gather`. Beyond an edge the pixels at the edge stand in.
    """
    height, width, bands = window.shape
    # Pixels are numbered in one row, and nothing is called with an array: such a call costs more than all else.
    vectors, factor = window.reshape(height * width, bands), factors.reshape(height * width)
    one, none, unit_share = np.float32(1), np.float32(0), np.float32(1 / 4096)
    for i in range(at.shape[1]):
        for j in range(at.shape[2]):
            y, x = at[0, i, j], at[1, i, j]
            r, c = y >> 12, x >> 12
            here, mean = r * width + c, out[i, j]
            if not (0 <= r < height and 0 <= c < width) or factor[here] == 0:
                for k in range(bands):
                    mean[k] = np.nan
                continue
            south, east = (
                np.float32((y - 2048) & 4095) * unit_share,
                np.float32((x - 2048) & 4095) * unit_share,
            )
            north, west = one - south, one - east
            r0, c0 = (y - 2048) >> 12, (x - 2048) >> 12
            top, bottom = max(r0, 0) * width, min(r0 + 1, height - 1) * width
            left, right = max(c0, 0), min(c0 + 1, width - 1)
            na, wa = top + left, north * west
            nb, wb = top + right, north * east
            nc, wc = bottom + left, south * west
            nd, wd = bottom + right, south * east
            # a missing one has no weight, and the nearest is read in its place
            if factor[na] == 0:
                na, wa = here, none
            if factor[nb] == 0:
                nb, wb = here, none
            if factor[nc] == 0:
                nc, wc = here, none
            if factor[nd] == 0:
                nd, wd = here, none
            va, vb, vc, vd = vectors[na], vectors[nb], vectors[nc], vectors[nd]
            fa, fb, fc, fd = factor[na], factor[nb], factor[nc], factor[nd]
            for k in range(bands):
                a, b = _decoded(va[k], fa, power), _decoded(vb[k], fb, power)
                c, d = _decoded(vc[k], fc, power), _decoded(vd[k], fd, power)
                mean[k] = _mixed(wa, a, wb, b, wc, c, wd, d)
            # a loop of its own over what is stored: its order of additions is the same for codes and for floats
            square = out.dtype.type(0)
            for k in range(bands):
                square += mean[k] * mean[k]
            share = one / (np.sqrt(square) if unit else wa + wb + wc + wd)
            for k in range(bands):
                mean[k] *= share


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
def average(
    window: Any, factors: Any, power: Any, corners: Any, lengths: Any, unit: Any, out: Any, stats: Any
) -> None:
    """Means over the true footprints of target pixels, weighted by area, of the valid source pixels.

    ``corners`` (2, rows + 1, columns + 1) are those of the target pixels; ``window``, ``factors`` and ``power`` as
    in :func:`bilinear`. ``stats`` (rows, columns, 2) is the resultant length (if ``lengths``) and the valid share
    of the footprint.
    """
    bands = window.shape[2]
    sums, row = np.empty(bands + 2), np.empty(bands, factors.dtype)
    y, x = np.empty(4), np.empty(4)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            sums[:] = 0
            area = _add_footprint(window, factors, power, corners, i, j, lengths, y, x, row, sums)
            _finish_mean(sums, area, unit, out[i, j], stats[i, j])


@jit
def add_footprints(window: Any, factors: Any, power: Any, corners: Any, sums: Any) -> None:
    """Add the sums of a window to those of all target pixels, (rows, columns, bands + 2)."""
    rows, cols = sums.shape[:2]
    row = np.empty(window.shape[2], factors.dtype)
    y, x = np.empty(4), np.empty(4)
    for i in range(rows):
        for j in range(cols):
            _add_footprint(window, factors, power, corners, i, j, True, y, x, row, sums[i, j])


@jit
def finish_means(sums: Any, corners: Any, unit: Any, out: Any, stats: Any) -> None:
    """Turn sums of :func:`add_footprints` into means."""
    rows, cols = sums.shape[:2]
    y, x = np.empty(4), np.empty(4)
    for i in range(rows):
        for j in range(cols):
            lost = _footprint(corners, i, j, y, x)[0]
            _finish_mean(sums[i, j], 0.0 if lost else _area(y, x), unit, out[i, j], stats[i, j])


@jit
def _add_footprint(
    window: Any,
    factors: Any,
    power: Any,
    corners: Any,
    i: Any,
    j: Any,
    lengths: Any,
    y: Any,
    x: Any,
    row: Any,
    sums: Any,
) -> Any:
    """Add a target pixel's weighted sum of a window to ``sums``; return its area in source pixels.

    ``sums`` (bands + 2) ends with the weight of the valid pixels and, if ``lengths``, the sum of their lengths.
    Rows are summed in the type of ``row`` and added in float64, always from the upper left on.
    """
    height, width, bands = window.shape
    lost, top, left, bottom, right = _footprint(corners, i, j, y, x)
    if lost:
        return 0.0
    cover = np.empty(right - left + 3)
    for r in range(max(top, 0), min(bottom + 1, height)):
        cover[:] = 0
        _cover(y, x, r - top, cover)
        row[:] = 0
        for c in range(max(left, 0), min(right + 1, width)):
            w, factor = _weight(cover[c - left]), factors[r, c]
            if w == 0 or factor == 0:
                continue
            sums[bands] += w
            weight, vector = row.dtype.type(w), window[r, c]
            for b in range(bands):
                row[b] += weight * _decoded(vector[b], factor, power)
            if lengths:
                square = row.dtype.type(0)
                for b in range(bands):
                    square += _decoded(vector[b], factor, power) ** 2
                sums[bands + 1] += w * np.sqrt(square)
        for b in range(bands):
            sums[b] += row[b]
    return _area(y, x)


@jit
def _finish_mean(sums: Any, area: Any, unit: Any, out: Any, stats: Any) -> None:
    """Make a mean of sums, of unit length or divided by the weight; NaN where there is none."""
    bands = len(out)
    weight, length = sums[bands], sums[bands + 1]
    square = 0.0
    for b in range(bands):
        square += sums[b] * sums[b]
    factor = np.nan
    if weight > 0:
        factor = 1 / (np.sqrt(square) if unit else weight)
    for b in range(bands):
        out[b] = sums[b] * factor
    stats[0] = min(np.sqrt(square) / length, 1.0) if weight > 0 else np.nan
    stats[1] = min(weight / area, 1.0) if area > 0 else 0.0


@jit_exact
def _weight(covered: Any) -> Any:
    """A covered area in whole 2⁻²⁴: the rounding of a running sum is no weight."""
    return np.rint(abs(covered) * 16777216.0) / 16777216.0


@jit_exact
def _area(y: Any, x: Any) -> Any:
    total = 0.0
    for e in range(4):
        total += (x[e] * y[(e + 1) % 4] - x[(e + 1) % 4] * y[e]) / 2
    return abs(total)


@jit
def mode(window: Any, corners: Any, counts: Any, out: Any) -> None:
    """The class that covers most of each target pixel's footprint; 0 is no data, the smaller code wins a tie.

    ``window`` is (row, column) of small unsigned integers, ``counts`` an array of zeros, one a code.
    """
    height, width = window.shape
    rows, cols = out.shape
    y, x = np.empty(4), np.empty(4)
    for i in range(rows):
        for j in range(cols):
            out[i, j] = 0
            lost, top, left, bottom, right = _footprint(corners, i, j, y, x)
            if lost:
                continue
            cover = np.zeros(right - left + 3)
            first, last = max(left, 0), min(right + 1, width)
            for r in range(max(top, 0), min(bottom + 1, height)):
                cover[:] = 0
                _cover(y, x, r - top, cover)
                for c in range(first, last):
                    counts[window[r, c]] += np.int64(np.rint(abs(cover[c - left]) * 16777216.0))
            counts[0] = 0
            best = 0
            for r in range(max(top, 0), min(bottom + 1, height)):
                for c in range(first, last):
                    code = window[r, c]
                    if counts[code] > best or (counts[code] == best and best > 0 and code < out[i, j]):
                        best, out[i, j] = counts[code], code
            for r in range(max(top, 0), min(bottom + 1, height)):
                for c in range(first, last):
                    counts[window[r, c]] = 0


@jit_exact
def _footprint(corners: Any, i: Any, j: Any, y: Any, x: Any) -> Any:
    """Corners of a target pixel counted from its upper left source pixel, and the pixels that it spans."""
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
