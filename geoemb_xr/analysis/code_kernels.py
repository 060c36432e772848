"""Compiled loops over years of codes ``q`` that stand for ``q · |q| · factor``, or for ``q`` times a scale.

``q · |q|`` is a whole number below 2¹⁴. Sums of such numbers, of their squares and of their products are exact, in
any order, and a float32 holds the sum of a thousand of them: a loop adds whole numbers, and the factor comes in at
the end. A ``piece`` is that of :mod:`geoemb_xr.analysis.year_kernels`; codes that are missing are zeros in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from geoemb_xr.analysis.year_kernels import (
    LANES,
    angles_of,
    degrees_of,
    extremes_in_numpy,
    kept_or_nan,
    medians_in_numpy,
)
from geoemb_xr.core.kernels import jit_exact

#: The most years that these loops take: 32 bits hold twelve times 127⁴, and float32 twelve times 127².
MOST = 12
#: Pixels that are looked at together: rows of so many codes are read twice as fast as rows of 1024.
_ROW = 4096
#: Bands whose products an int32 holds: eight times 127⁴ are less than 2³¹.
_BANDS = 8


def are_whole(weights: np.ndarray) -> bool:
    """Whether sums with these weights are whole numbers, of no more years than the loops take."""
    return bool(weights[0] > 0 and (weights == weights[0]).all() and len(weights) <= MOST)


@jit_exact
def _squared(code: Any) -> Any:
    """``q · |q|``, a whole number, as float32."""
    value = np.float32(code)
    return value * abs(value)


@jit_exact
def _short(code: Any) -> Any:
    """``q · |q|``, a whole number, as int16."""
    value = np.int16(code)
    return np.int16(value * np.int16(abs(value)))


@jit_exact
def _signed(code: Any) -> Any:
    """``q · |q|``, a whole number, as int32: in 16 bits first it takes two operations more."""
    value = np.int32(code)
    return np.int32(value * np.int32(abs(value)))


@jit_exact
def _sum_of(one: Any, other: Any) -> Any:
    """The sum of ``q · |q|`` of two codes, as int16."""
    return np.int16(_short(one) + _short(other))


def _whole(values: np.ndarray, square: bool = True) -> np.ndarray:
    """``q · |q|``, or ``q``, as int64: what twins work with."""
    whole: np.ndarray = values.astype(np.int64)
    return whole * np.abs(whole) if square else whole


# --- what years give together -----------------------------------------------------------------------------------


def together(planes: Sequence[np.ndarray], first: int, nodata: int) -> tuple[Any, ...]:
    """Codes of all years, where they lie: what the loops take that give one vector of them.

    Parameters
    ----------
    planes : sequence of ndarray of int8 (band, pixel)
        C-contiguous, up to :data:`MOST`. They are filled up to so many, for which loops are compiled once.
    first : int
        The first pixel.
    nodata : int
        The least code, that of missing ones.
    """
    return (*planes, *[planes[0]] * (MOST - len(planes))), len(planes), nodata, first


def _piece(codes: Any, factor: Any, size: int) -> tuple[Any, ...]:
    """The same as kernels of :mod:`~geoemb_xr.analysis.year_kernels` take it: what twins work with."""
    years, number, nodata, first = codes
    values = np.stack([each[:, first : first + size] for each in years[:number]], axis=1)
    there = (values != nodata).all(axis=0)
    return np.where(there, values, np.int8(0)), True, there * np.float32(factor), there


@jit_exact
def _known(codes: Any, at: Any, size: Any, needed: Any, there: Any, counts: Any, keep: Any) -> None:
    """All bits set for the years of pixels with data, how many these are, and 1 where they are enough, else NaN."""
    years, number, nodata, first = codes
    least, of, n = np.empty(_ROW, np.int8), np.uint64(first + at), np.uint64(size)
    counts[:] = 0
    there[:] = 0
    for t in range(number):
        own, to = years[t], np.uint64(t)
        least[:] = 0
        for b in range(own.shape[0]):
            for j in range(n):
                least[j] = min(least[j], own[b, of + j])
        for j in range(n):
            there[to, j] = -1 if least[j] > nodata else 0
            counts[j] -= there[to, j]
    for j in range(n):
        keep[j] = np.float32(1) if counts[j] >= needed else np.float32(np.nan)


@jit_exact
def mean_of_codes(codes: Any, factor: Any, unit: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    """Sums over their length, or over the number of years.

    Two years are added in 16 bits, which hold twice 127². Their number is made even by one that is not there.
    """
    years, number, _, first = codes
    there, counts = np.empty((number + number % 2, _ROW), np.int8), np.empty(_ROW, np.int8)
    keep, share, bands = np.empty(_ROW, np.float32), np.empty(_ROW), years[0].shape[0]
    for at in range(0, size, _ROW):
        some = min(_ROW, size - at)
        of, to, n = np.uint64(first + at), np.uint64(start + at), np.uint64(some)
        _known(codes, at, some, needed, there, counts, keep)
        share[:] = 0
        for b in range(bands):
            for t in range(0, number, 2):
                one, other, i, k = years[t], years[t + 1], np.uint64(t), np.uint64(t + 1)
                if t == 0:
                    for j in range(n):
                        out[b, to + j] = np.float32(
                            _sum_of(one[b, of + j] & there[i, j], other[b, of + j] & there[k, j])
                        )
                else:
                    for j in range(n):
                        out[b, to + j] += np.float32(
                            _sum_of(one[b, of + j] & there[i, j], other[b, of + j] & there[k, j])
                        )
            if unit:
                for j in range(n):
                    share[j] += np.float64(out[b, to + j]) * np.float64(out[b, to + j])
        if unit:
            for j in range(n):
                share[j] = np.sqrt(share[j])
        else:
            for j in range(n):
                share[j] = counts[j] / np.float64(factor)
        for j in range(n):
            share[j] = keep[j] / share[j] if share[j] > 0 else np.nan
        for b in range(bands):
            for j in range(n):
                out[b, to + j] = np.float64(out[b, to + j]) * share[j]


@mean_of_codes.in_numpy_bitwise
def _mean_of_codes_numpy(
    codes: Any, factor: Any, unit: Any, needed: Any, out: Any, start: Any, size: Any
) -> None:
    values, _, _, there = _piece(codes, factor, size)
    total = _whole(values).sum(axis=1)
    share = np.sqrt((total * total).sum(axis=0)) if unit else there.sum(axis=0) / np.float64(factor)
    out[: len(total), start : start + size] = total * (
        kept_or_nan(there, needed) / np.where(share > 0, share, np.nan)
    )


@jit_exact
def deviations_of_codes(codes: Any, factor: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    """Standard deviations of components (of the population): √(n·Σv² − (Σv)²) / n, exact under the root."""
    years, number, _, first = codes
    there, counts = np.empty((number + number % 2, _ROW), np.int8), np.empty(_ROW, np.int8)
    keep, share, count = np.empty(_ROW, np.float32), np.empty(_ROW, np.float32), np.empty(_ROW)
    # from the least number on, 32 bits hold twelve times 127⁴
    total, squares, least = np.empty(_ROW, np.int32), np.empty(_ROW, np.int32), -(1 << 31)
    for at in range(0, size, _ROW):
        some = min(_ROW, size - at)
        of, to, n = np.uint64(first + at), np.uint64(start + at), np.uint64(some)
        _known(codes, at, some, needed, there, counts, keep)
        for j in range(n):
            count[j] = counts[j]
            share[j] = keep[j] * np.float32(factor / max(count[j], 1.0))
        for b in range(years[0].shape[0]):
            total[:] = 0
            squares[:] = least
            for t in range(0, number, 2):
                one, other, i, k = years[t], years[t + 1], np.uint64(t), np.uint64(t + 1)
                for j in range(n):
                    u, v = _short(one[b, of + j] & there[i, j]), _short(other[b, of + j] & there[k, j])
                    total[j] += np.int32(np.int16(u + v))
                    squares[j] += np.int32(np.int32(u) * np.int32(u)) + np.int32(np.int32(v) * np.int32(v))
            for j in range(n):
                spread = count[j] * (np.float64(squares[j]) - least)
                spread -= np.float64(total[j]) * np.float64(total[j])
                out[b, to + j] = np.sqrt(np.float32(spread)) * share[j]


@deviations_of_codes.in_numpy_bitwise
def _deviations_of_codes_numpy(codes: Any, factor: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    values, _, _, there = _piece(codes, factor, size)
    count, whole = there.sum(axis=0), _whole(values)
    spread = count * (whole * whole).sum(axis=1) - whole.sum(axis=1) ** 2
    share = kept_or_nan(there, needed) * (factor / np.maximum(count, 1)).astype(np.float32)
    out[: len(spread), start : start + size] = np.sqrt(spread.astype(np.float32)) * share


@jit_exact
def extremes_of_codes(
    codes: Any, is_max: Any, factor: Any, needed: Any, out: Any, start: Any, size: Any
) -> None:
    """Smallest or largest components, those of the smallest or largest codes, with the bits of decoded ones."""
    years, number, _, first = codes
    there, counts = np.empty((number, _ROW), np.int8), np.empty(_ROW, np.int8)
    keep, best = np.empty(_ROW, np.float32), np.empty(_ROW, np.int8)
    beyond = np.int8(-128 if is_max else 127)
    for at in range(0, size, _ROW):
        some = min(_ROW, size - at)
        of, to, n = np.uint64(first + at), np.uint64(start + at), np.uint64(some)
        _known(codes, at, some, needed, there, counts, keep)
        for b in range(years[0].shape[0]):
            best[:] = beyond
            for t in range(number):
                own, i = years[t], np.uint64(t)
                if is_max:
                    for j in range(n):
                        best[j] = max(best[j], np.int8(own[b, of + j] & there[i, j] | beyond & ~there[i, j]))
                else:
                    for j in range(n):
                        best[j] = min(best[j], np.int8(own[b, of + j] & there[i, j] | beyond & ~there[i, j]))
            for j in range(n):
                out[b, to + j] = _squared(best[j]) * factor * keep[j]


@extremes_of_codes.in_numpy_bitwise
def _extremes_of_codes_numpy(
    codes: Any, is_max: Any, factor: Any, needed: Any, out: Any, start: Any, size: Any
) -> None:
    extremes_in_numpy(_piece(codes, factor, size), is_max, needed, out, start, size)


@jit_exact
def median_of_codes(
    codes: Any, pairs: Any, factor: Any, unit: Any, needed: Any, out: Any, start: Any, size: Any
) -> None:
    """Medians of components, of unit length if so, with the bits of those of decoded vectors.

    Codes are sorted by :func:`~geoemb_xr.analysis.year_kernels.exchanges`, many lists at once, and the two in the
    middle are decoded. Which two these are depends on how many years a pixel has: bits that pick them out of each
    list need no branch.
    """
    years, number, _, first = codes
    there, counts = np.empty((number, _ROW), np.int8), np.empty(_ROW, np.int8)
    below, above = np.empty((number, _ROW), np.int8), np.empty((number, _ROW), np.int8)
    keep, row, half = np.empty(_ROW, np.float32), np.empty((number, _ROW), np.int8), np.float32(0.5)
    low, high, total = np.empty(_ROW, np.int8), np.empty(_ROW, np.int8), np.empty(_ROW)
    beyond, bands = np.int8(127), years[0].shape[0]
    for at in range(0, size, _ROW):
        some = min(_ROW, size - at)
        of, to, n = np.uint64(first + at), np.uint64(start + at), np.uint64(some)
        _known(codes, at, some, needed, there, counts, keep)
        total[:] = 0
        for t in range(number):
            i = np.uint64(t)
            for j in range(n):
                below[i, j] = -1 if t == (counts[j] - 1) >> 1 else 0
                above[i, j] = -1 if (t == counts[j] >> 1) & (counts[j] > 0) else 0
        for b in range(bands):
            for t in range(number):
                own, i = years[t], np.uint64(t)
                for j in range(n):
                    row[i, j] = own[b, of + j] & there[i, j] | beyond & ~there[i, j]
            for p in range(len(pairs)):
                i, k = np.uint64(pairs[p, 0]), np.uint64(pairs[p, 1])
                for j in range(n):
                    one, other = row[i, j], row[k, j]
                    row[i, j] = min(one, other)
                    row[k, j] = max(one, other)
            low[:] = 0
            high[:] = 0
            for t in range(number):
                i = np.uint64(t)
                for j in range(n):
                    low[j] |= row[i, j] & below[i, j]
                    high[j] |= row[i, j] & above[i, j]
            for j in range(n):
                middle = _squared(low[j]) * factor * half + _squared(high[j]) * factor * half
                out[b, to + j] = middle
                total[j] += np.float64(middle) * np.float64(middle)
        if unit:
            for j in range(n):
                keep[j] *= np.float32(1 / np.sqrt(total[j]) if total[j] > 0 else np.nan)
        for b in range(bands):
            for j in range(n):
                out[b, to + j] *= keep[j]


@median_of_codes.in_numpy_bitwise
def _median_of_codes_numpy(
    codes: Any, pairs: Any, factor: Any, unit: Any, needed: Any, out: Any, start: Any, size: Any
) -> None:
    medians_in_numpy(_piece(codes, factor, size), pairs, unit, needed, out, start, size)


# --- how far apart years are ------------------------------------------------------------------------------------


@jit_exact
def cosines_of_codes(piece: Any, pairs: Any, in_degrees: Any, out: Any) -> None:
    """Cosines of the angles between pairs of years, ``(pair, n)``, or these angles: scales matter by their sign."""
    values, square, scale, _ = piece
    bands, years, n = values.shape
    row, lanes = np.empty((years, LANES), np.int16), np.uint64(LANES)
    # products of each year with itself, and of each pair
    some, product = np.empty((years + len(pairs), LANES), np.int32), np.empty((years + len(pairs), LANES))
    for at in range(0, n, LANES):
        of = np.uint64(at)
        product[:] = 0
        for first in range(0, bands, _BANDS):
            some[:] = 0
            for b in range(first, min(first + _BANDS, bands)):
                for t in range(years):
                    if square:
                        for j in range(lanes):
                            row[t, j] = _short(values[b, t, of + j])
                    else:
                        for j in range(lanes):
                            row[t, j] = values[b, t, of + j]
                for p in range(len(some)):
                    one = np.uint64(p if p < years else pairs[p - years, 0])
                    other = np.uint64(p if p < years else pairs[p - years, 1])
                    for j in range(lanes):
                        some[p, j] += np.int32(row[one, j]) * np.int32(row[other, j])
            for p in range(len(some)):
                for j in range(lanes):
                    product[p, j] += np.float64(some[p, j])
        for p in range(len(pairs)):
            one, other, both = np.uint64(pairs[p, 0]), np.uint64(pairs[p, 1]), np.uint64(years + p)
            for j in range(lanes):  # what is missing has no length
                lengths = np.sqrt(product[one, j] * product[other, j])
                lengths = -lengths if (scale[one, of + j] < 0) != (scale[other, of + j] < 0) else lengths
                product[both, j] = product[both, j] / lengths if lengths != 0 else np.nan
            if in_degrees:
                for j in range(lanes):
                    out[p, of + j] = degrees_of(product[both, j])
            else:
                for j in range(lanes):
                    out[p, of + j] = product[both, j]


@cosines_of_codes.in_numpy
def _cosines_of_codes_numpy(piece: Any, pairs: Any, in_degrees: Any, out: Any) -> None:
    whole, sign = _whole(*piece[:2]), np.sign(piece[2])
    aa, bb, ab = (
        (whole[:, one] * whole[:, other]).sum(axis=0).astype(np.float64)
        for one, other in (pairs.T[[0, 0]], pairs.T[[1, 1]], pairs.T)
    )
    usable = aa * bb > 0
    cosine = np.where(usable, ab / np.sqrt(np.where(usable, aa * bb, 1)), np.nan)
    cosine *= np.where(sign[pairs[:, 0]] * sign[pairs[:, 1]] < 0, -1, 1)
    out[:] = angles_of(cosine) if in_degrees else cosine


# --- years where they lie ---------------------------------------------------------------------------------------


@jit_exact
def products_of_two(a: Any, b: Any, start: Any, size: Any, some: Any, sums: Any, least: Any) -> None:
    """Squares of the lengths of two years' codes, and their product: see :func:`products_of_four`."""
    lanes, squares, products = np.uint64(LANES), np.uint64(LANES), np.uint64(2 * LANES)
    some[:], sums[:], least[:] = 0, 0, 0
    for band in range(0, a.shape[0], 2):
        one, two = np.uint64(band), np.uint64(band + 1)
        for i in range(size // LANES):
            of, to, low = np.uint64(start + i * LANES), np.uint64(3 * i * LANES), np.uint64(2 * i * LANES)
            for j in range(lanes):
                a1, a2 = _signed(a[one, of + j]), _signed(a[two, of + j])
                b1, b2 = _signed(b[one, of + j]), _signed(b[two, of + j])
                some[to + j] += np.int32(a1 * a1) + np.int32(a2 * a2)
                some[to + squares + j] += np.int32(b1 * b1) + np.int32(b2 * b2)
                some[to + products + j] += np.int32(a1 * b1) + np.int32(a2 * b2)
            for j in range(lanes):
                least[low + j] = min(least[low + j], min(a[one, of + j], a[two, of + j]))
                least[low + squares + j] = min(least[low + squares + j], min(b[one, of + j], b[two, of + j]))
        _take_over(band + 2, a.shape[0], some, sums)


@jit_exact
def products_of_four(
    a: Any, b: Any, c: Any, d: Any, start: Any, size: Any, some: Any, sums: Any, least: Any
) -> None:
    """Squares of the lengths of four years' codes, and the product of each with the next, as float64.

    Codes of ``q · |q|`` are read where they lie, ``(band, pixel)``, an even number of bands. ``some``, ``sums`` and
    ``least`` are flat: for each ``LANES`` pixels these of each year, and the products after them; ``some`` has sums
    of a few bands, as int32, ``least`` the smallest codes. They are one array each, with places that are known when
    it is compiled: see ``LANES``. Two bands at a time halve how often sums are stored.
    """
    lanes, l1, l2, l3 = np.uint64(LANES), np.uint64(LANES), np.uint64(2 * LANES), np.uint64(3 * LANES)
    p1, p2, p3 = np.uint64(4 * LANES), np.uint64(5 * LANES), np.uint64(6 * LANES)
    some[:], sums[:], least[:] = 0, 0, 0
    for band in range(0, a.shape[0], 2):
        one, two = np.uint64(band), np.uint64(band + 1)
        for i in range(size // LANES):
            of, to, low = np.uint64(start + i * LANES), np.uint64(7 * i * LANES), np.uint64(4 * i * LANES)
            for j in range(lanes):
                a1, a2 = _signed(a[one, of + j]), _signed(a[two, of + j])
                b1, b2 = _signed(b[one, of + j]), _signed(b[two, of + j])
                c1, c2 = _signed(c[one, of + j]), _signed(c[two, of + j])
                d1, d2 = _signed(d[one, of + j]), _signed(d[two, of + j])
                some[to + j] += np.int32(a1 * a1) + np.int32(a2 * a2)
                some[to + l1 + j] += np.int32(b1 * b1) + np.int32(b2 * b2)
                some[to + l2 + j] += np.int32(c1 * c1) + np.int32(c2 * c2)
                some[to + l3 + j] += np.int32(d1 * d1) + np.int32(d2 * d2)
                some[to + p1 + j] += np.int32(a1 * b1) + np.int32(a2 * b2)
                some[to + p2 + j] += np.int32(b1 * c1) + np.int32(b2 * c2)
                some[to + p3 + j] += np.int32(c1 * d1) + np.int32(c2 * d2)
            for j in range(lanes):
                least[low + j] = min(least[low + j], min(a[one, of + j], a[two, of + j]))
                least[low + l1 + j] = min(least[low + l1 + j], min(b[one, of + j], b[two, of + j]))
                least[low + l2 + j] = min(least[low + l2 + j], min(c[one, of + j], c[two, of + j]))
                least[low + l3 + j] = min(least[low + l3 + j], min(d[one, of + j], d[two, of + j]))
        _take_over(band + 2, a.shape[0], some, sums)


@jit_exact
def _take_over(done: Any, bands: Any, some: Any, sums: Any) -> None:
    """Add the sums of a few bands to those of all, before an int32 cannot hold more."""
    if done % _BANDS == 0 or done >= bands:
        for j in range(len(sums)):
            sums[j] += np.float64(some[j])
            some[j] = 0


def _products_numpy(planes: Any, start: Any, size: Any, some: Any, sums: Any, least: Any) -> None:
    years = np.stack([each[:, start : start + size] for each in planes])
    whole = _whole(years)
    lengths, products = (whole * whole).sum(axis=1), (whole[:-1] * whole[1:]).sum(axis=1)
    sums[:] = np.concatenate([lengths, products]).reshape(-1, size // LANES, LANES).swapaxes(0, 1).ravel()
    least[:] = np.minimum(years.min(axis=1), 0).reshape(-1, size // LANES, LANES).swapaxes(0, 1).ravel()
    some[:] = 0


@products_of_two.in_numpy
def _products_of_two_numpy(a: Any, b: Any, start: Any, size: Any, some: Any, sums: Any, least: Any) -> None:
    _products_numpy((a, b), start, size, some, sums, least)


@products_of_four.in_numpy
def _products_of_four_numpy(
    a: Any, b: Any, c: Any, d: Any, start: Any, size: Any, some: Any, sums: Any, least: Any
) -> None:
    _products_numpy((a, b, c, d), start, size, some, sums, least)


@jit_exact
def cosines_from(
    sums: Any, least: Any, nodata: Any, in_degrees: Any, start: Any, size: Any, there: Any, out: Any
) -> None:
    """Cosines, or angles, from each year to the next, and which years have data, of ``size`` pixels of a block.

    ``there`` is ``(year, pixel)``, ``out`` ``(year - 1, pixel)``.
    """
    years = len(there)
    lanes, rows, cosine = np.uint64(LANES), 2 * years - 1, np.empty(LANES)
    for i in range(size // LANES):
        to = np.uint64(start + i * LANES)
        for t in range(years):
            low = np.uint64((i * years + t) * LANES)
            for j in range(lanes):
                there[t, to + j] = least[low + j] > nodata
        for t in range(years - 1):
            one, other = np.uint64((i * rows + t) * LANES), np.uint64((i * rows + t + 1) * LANES)
            product = np.uint64((i * rows + years + t) * LANES)
            for j in range(lanes):
                lengths = np.sqrt(sums[one + j] * sums[other + j])
                lengths = lengths if there[t, to + j] & there[t + 1, to + j] else 0.0
                cosine[j] = sums[product + j] / lengths if lengths > 0 else np.nan
            if in_degrees:
                for j in range(lanes):
                    out[t, to + j] = degrees_of(cosine[j])
            else:
                for j in range(lanes):
                    out[t, to + j] = cosine[j]


@cosines_from.in_numpy
def _cosines_from_numpy(
    sums: Any, least: Any, nodata: Any, in_degrees: Any, start: Any, size: Any, there: Any, out: Any
) -> None:
    years = len(there)
    rows = sums.reshape(size // LANES, 2 * years - 1, LANES).swapaxes(0, 1).reshape(-1, size)
    codes = least.reshape(size // LANES, years, LANES).swapaxes(0, 1).reshape(-1, size)
    known = codes > nodata
    squares = np.where(known, rows[:years], 0)
    usable = squares[:-1] * squares[1:] > 0
    cosine = np.where(usable, rows[years:], np.nan) / np.sqrt(np.where(usable, squares[:-1] * squares[1:], 1))
    there[:, start : start + size] = known
    out[:, start : start + size] = angles_of(cosine) if in_degrees else cosine
