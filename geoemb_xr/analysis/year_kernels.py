"""Compiled loops over years that lie side by side: what they give together, and how far apart they are.

A ``piece`` is what :attr:`geoemb_xr.analysis.pieces.YearPiece.vectors` gives: values (band, year, n), codes or
floats, how they are decoded, and which are there. Each loop decodes a row of n pixels and uses it while it is in
the cache. Pixels lie side by side, so that a processor works on eight at once; bands are added one after the other,
so that the result does not depend on the block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geoemb_xr.core.kernels import jit, jit_exact

# --- into a piece, and out of it -------------------------------------------------------------------------------


@jit_exact
def load_codes(planes: Any, start: Any, size: Any, nodata: Any, year: Any, values: Any, there: Any) -> None:
    """Copy ``size`` codes of each of ``(band, pixel)`` from ``start`` on; ``nodata``, the smallest, is missing."""
    least = np.zeros(size, np.int8)
    for b in range(planes.shape[0]):
        row, out = planes[b, start : start + size], values[b, year]
        for j in range(size):
            out[j] = row[j]
        for j in range(size):
            least[j] = row[j] if row[j] < least[j] else least[j]
    for j in range(size):
        there[year, j] = least[j] > nodata


@load_codes.in_numpy
def _load_codes_numpy(
    planes: Any, start: Any, size: Any, nodata: Any, year: Any, values: Any, there: Any
) -> None:
    piece = planes[:, start : start + size]
    values[:, year, :size] = piece
    there[year, :size] = (piece != nodata).all(axis=0)


@jit_exact
def load_vectors(planes: Any, start: Any, size: Any, year: Any, values: Any, there: Any) -> None:
    """Copy ``size`` pixels of vectors ``(band, pixel)`` from ``start`` on; those not finite are missing."""
    nothing = np.zeros(size, np.float32)
    for b in range(planes.shape[0]):
        row, out = planes[b, start : start + size], values[b, year]
        for j in range(size):
            out[j] = row[j]
            nothing[j] += row[j] * np.float32(0)  # NaN for what is not finite
    for j in range(size):
        there[year, j] = nothing[j] == 0


@load_vectors.in_numpy
def _load_vectors_numpy(planes: Any, start: Any, size: Any, year: Any, values: Any, there: Any) -> None:
    piece = planes[:, start : start + size]
    values[:, year, :size] = piece
    there[year, :size] = np.isfinite(piece).all(axis=0)


@jit_exact
def _decode(piece: Any, b: Any, t: Any, missing: Any, out: Any) -> None:
    """One band of one year as float32, with ``missing`` where there is no data."""
    values, square, scale, there = piece
    row, own, seen = values[b, t], scale[t], there[t]
    if square:
        for j in range(out.size):
            value = np.float32(row[j])
            value = value * abs(value) * own[j]
            out[j] = value if seen[j] else missing
    else:
        for j in range(out.size):
            value = np.float32(row[j]) * own[j]
            out[j] = value if seen[j] else missing


def decoded(piece: Any, missing: Any) -> np.ndarray:
    """All of a piece as float32 ``(band, year, n)``: what twins work with."""
    values, square, scale, there = piece
    exact = values.astype(np.float32)
    if square:
        exact *= np.abs(exact)
    with np.errstate(invalid="ignore", over="ignore"):
        exact *= scale
    return np.where(there, exact, np.float32(missing))


@jit_exact
def _count(there: Any, needed: Any, keep: Any) -> None:
    """1 where enough years have data, NaN elsewhere."""
    for j in range(there.shape[1]):
        count = 0
        for t in range(there.shape[0]):
            count += there[t, j]
        keep[j] = np.float32(1) if count >= needed else np.float32(np.nan)


def _kept(there: np.ndarray, needed: int) -> np.ndarray:
    return np.where(there.sum(axis=0) >= needed, np.float32(1), np.float32(np.nan))


# --- what years give together -----------------------------------------------------------------------------------


@jit
def mean_of(piece: Any, weights: Any, unit: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    """Sum ``w·v`` in float64, in the order of years, over its length or over the sum of weights."""
    there = piece[3]
    bands, years, n = piece[0].shape
    row, keep = np.empty(n, np.float32), np.empty(n, np.float32)
    total, divisor = np.empty(n), np.zeros(n)
    _count(there, needed, keep)
    if unit:
        for b in range(bands):
            _add_years(piece, weights, b, row, total)
            for j in range(n):
                divisor[j] += total[j] * total[j]
        for j in range(n):
            divisor[j] = np.sqrt(divisor[j])
    else:
        for t in range(years):
            for j in range(n):
                divisor[j] += weights[t] if there[t, j] else 0.0
    for j in range(n):
        divisor[j] = keep[j] / divisor[j] if divisor[j] > 0 else np.nan
    for b in range(bands):
        _add_years(piece, weights, b, row, total)
        own = out[b, start : start + size]
        for j in range(size):
            own[j] = total[j] * divisor[j]


@jit
def _add_years(piece: Any, weights: Any, b: Any, row: Any, total: Any) -> None:
    total[:] = 0
    for t in range(piece[3].shape[0]):
        _decode(piece, b, t, np.float32(0), row)
        weight = weights[t]
        for j in range(total.size):
            total[j] += weight * np.float64(row[j])


@mean_of.in_numpy
def _mean_of_numpy(piece: Any, weights: Any, unit: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    there = piece[3]
    total = np.zeros((len(piece[0]), there.shape[1]))
    vectors = decoded(piece, 0)
    for t, weight in enumerate(weights):
        total += weight * vectors[:, t].astype(np.float64)
    divisor = np.sqrt(np.einsum("bj,bj->j", total, total)) if unit else weights @ there
    mean = total * (_kept(there, needed) / np.where(divisor > 0, divisor, np.nan))
    out[: len(mean), start : start + size] = mean[:, :size]


def resultant_of(piece: Any, weights: np.ndarray) -> np.ndarray:
    """Length of the sum of ``w·v`` over the sum of their lengths, NaN where there is none. Not compiled."""
    exact = decoded(piece, 0).astype(np.float64)
    total = np.einsum("t,btj->bj", weights, exact)
    length = weights @ np.sqrt(np.einsum("btj,btj->tj", exact, exact))
    sums = np.sqrt(np.einsum("bj,bj->j", total, total))
    return np.where(length > 0, np.minimum(sums / np.where(length > 0, length, 1), 1), np.nan)


@jit_exact
def deviations_of(piece: Any, weights: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    """Weighted standard deviations of components (of the population), in two passes in float64."""
    there = piece[3]
    bands, years, n = piece[0].shape
    weight, share = np.empty((years, n)), np.zeros(n)
    rows, keep = np.empty((years, n), np.float32), np.empty(n, np.float32)
    mean, spread = np.empty(n), np.empty(n)
    _count(there, needed, keep)
    for t in range(years):
        for j in range(n):
            weight[t, j] = weights[t] if there[t, j] else 0.0
            share[j] += weight[t, j]
    for j in range(n):
        share[j] = share[j] if share[j] > 0 else 1.0
    for b in range(bands):
        mean[:] = 0
        spread[:] = 0
        for t in range(years):
            row, own = rows[t], weight[t]
            _decode(piece, b, t, np.float32(0), row)
            for j in range(n):
                mean[j] += own[j] * np.float64(row[j])
        for j in range(n):
            mean[j] /= share[j]
        for t in range(years):
            row, own = rows[t], weight[t]
            for j in range(n):
                apart = np.float64(row[j]) - mean[j]
                spread[j] += own[j] * (apart * apart)
        result = out[b, start : start + size]
        for j in range(size):
            result[j] = np.float32(np.sqrt(spread[j] / share[j])) * keep[j]


@deviations_of.in_numpy
def _deviations_of_numpy(piece: Any, weights: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    there = piece[3]
    own = there * weights[:, None]
    usable = np.where(own.sum(axis=0) > 0, own.sum(axis=0), 1.0)
    exact = decoded(piece, 0).astype(np.float64)
    mean = (own * exact).sum(axis=1) / usable
    spread = np.sqrt((own * (exact - mean[:, None]) ** 2).sum(axis=1) / usable) * _kept(there, needed)
    out[: len(spread), start : start + size] = spread[:, :size]


@jit_exact
def extremes_of(piece: Any, is_max: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    """Smallest or largest components.

    A sum with 0 is nothing to a number but for the sign of a zero. To the compiler it is a value to be stored in
    any case, which it does for eight pixels at once.
    """
    there = piece[3]
    bands, years, n = piece[0].shape
    zero = np.float32(0)
    missing = np.float32(-np.inf if is_max else np.inf)
    row, best, keep = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    _count(there, needed, keep)
    for b in range(bands):
        _decode(piece, b, 0, missing, best)
        for t in range(1, years):
            _decode(piece, b, t, missing, row)
            if is_max:
                for j in range(n):
                    best[j] = (row[j] if row[j] > best[j] else best[j]) + zero
            else:
                for j in range(n):
                    best[j] = (row[j] if row[j] < best[j] else best[j]) + zero
        result = out[b, start : start + size]
        for j in range(size):
            result[j] = best[j] * keep[j]


@extremes_of.in_numpy
def _extremes_of_numpy(piece: Any, is_max: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    vectors = decoded(piece, -np.inf if is_max else np.inf)
    best = (np.max if is_max else np.min)(vectors, axis=1)
    with np.errstate(invalid="ignore"):  # where no year has data
        out[: len(best), start : start + size] = (best * _kept(piece[3], needed))[:, :size]


def exchanges(count: int) -> np.ndarray:
    """Pairs of places ``(pair, 2)`` to be put in order one after the other, which sorts ``count`` numbers.

    Batcher's merge exchange (Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M): 5 pairs for 4 numbers,
    19 for 8. They are the same for all lists of a length, so that a processor sorts several lists at once.

    Examples
    --------
    >>> exchanges(4).tolist()
    [[0, 2], [1, 3], [0, 1], [2, 3], [1, 2]]
    """
    pairs = []
    step = top = 1 << max((count - 1).bit_length() - 1, 0)
    while step:
        far, rest, apart = top, 0, step
        while True:
            pairs += [(i, i + apart) for i in range(count - apart) if i & step == rest]
            if far == step:
                break
            apart, far, rest = far - step, far // 2, step
        step //= 2
    return np.array(pairs, np.int64).reshape(-1, 2)


@jit_exact
def median_of(piece: Any, pairs: Any, unit: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    """Medians of components, sorted by :func:`exchanges`; of unit length if so. See :func:`extremes_of` of zero."""
    there = piece[3]
    bands, years, n = piece[0].shape
    zero = np.float32(0)
    rows, result = np.empty((years, n), np.float32), np.empty((bands, n), np.float32)
    low, high, keep = np.zeros(n, np.float32), np.zeros(n, np.float32), np.empty(n, np.float32)
    counts, total = np.zeros(n, np.int32), np.zeros(n)
    _count(there, needed, keep)
    whole = True
    for t in range(years):
        for j in range(n):
            counts[j] += there[t, j]
    for j in range(n):
        whole &= counts[j] == years or counts[j] == 0
    for b in range(bands):
        for t in range(years):
            _decode(piece, b, t, np.float32(np.inf), rows[t])
        for p in range(len(pairs)):
            one, other = rows[pairs[p, 0]], rows[pairs[p, 1]]
            for j in range(n):
                first, second = one[j], other[j]
                less = first < second
                one[j] = (first if less else second) + zero
                other[j] = (second if less else first) + zero
        middle = result[b]
        if whole:
            low, high = rows[(years - 1) // 2], rows[years // 2]
        else:
            for t in range(years):
                own = rows[t]
                for j in range(n):
                    low[j] = own[j] if 2 * t < counts[j] else low[j]
                    high[j] = own[j] if 2 * t <= counts[j] else high[j]
        for j in range(n):
            middle[j] = (np.float64(low[j]) + np.float64(high[j])) / 2
            total[j] += np.float64(middle[j]) * np.float64(middle[j])
    if unit:
        for j in range(n):
            keep[j] *= np.float32(1 / np.sqrt(total[j]) if total[j] > 0 else np.nan)
    for b in range(bands):
        middle, own = result[b], out[b, start : start + size]
        for j in range(size):
            own[j] = middle[j] * keep[j]


@median_of.in_numpy
def _median_of_numpy(piece: Any, pairs: Any, unit: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    there = piece[3]
    vectors, counts = decoded(piece, np.inf), there.sum(axis=0)
    vectors.sort(axis=1)
    low, high = (
        np.take_along_axis(vectors, each[None, None], axis=1)[:, 0].astype(np.float64)
        for each in (np.maximum(counts - 1, 0) // 2, np.minimum(counts // 2, len(there) - 1))
    )
    middle, keep = ((low + high) / 2).astype(np.float32), _kept(there, needed)
    if unit:
        total = np.zeros(len(keep))
        for row in middle:  # in the order of the bands, as the loop adds them
            total += row.astype(np.float64) ** 2
        keep = keep * (1 / np.sqrt(np.where(total > 0, total, np.nan))).astype(np.float32)
    with np.errstate(invalid="ignore"):  # where no year has data
        out[: len(middle), start : start + size] = (middle * keep)[:, :size]


# --- how far apart years are ------------------------------------------------------------------------------------


@jit
def cosines_of(piece: Any, pairs: Any, in_degrees: Any, out: Any) -> None:
    """Cosines of the angles between pairs of years, ``(pair, n)``, or these angles; sums are float64.

    Of cosines in float64 an angle is as good as of normalised vectors in float32: the least that shows is 10⁻⁶
    degrees. Years are decoded once for it, and not once more when their lengths are known.
    """
    bands, years, n = piece[0].shape
    rows, length = np.empty((years, n), np.float32), np.zeros((years, n))
    product = np.zeros((len(pairs), n))
    for b in range(bands):
        for t in range(years):
            row, own = rows[t], length[t]
            _decode(piece, b, t, np.float32(np.nan), row)
            for j in range(n):
                own[j] += np.float64(row[j]) * np.float64(row[j])
        for p in range(len(pairs)):
            one, other, both = rows[pairs[p, 0]], rows[pairs[p, 1]], product[p]
            for j in range(n):
                both[j] += np.float64(one[j]) * np.float64(other[j])
    for p in range(len(pairs)):
        one, other, both, row = length[pairs[p, 0]], length[pairs[p, 1]], product[p], out[p]
        for j in range(n):
            lengths = np.sqrt(one[j] * other[j])
            both[j] = both[j] / lengths if lengths > 0 else np.nan
        if in_degrees:
            _degrees(both, row)
        else:
            for j in range(n):
                row[j] = both[j]


@jit_exact
def _degrees(cosines: Any, out: Any) -> None:
    """2·atan2(‖â−b̂‖, ‖â+b̂‖) from â·b̂: the squares of these lengths are 2 ∓ 2·â·b̂.

    A quarter of an angle up to 90° has a tangent up to √2 − 1, where the polynomial (fitted at Chebyshev's points)
    is off by 10⁻¹² of it. The C library's atan2 takes one pixel at a time, which costs as much as all else does.
    """
    for j in range(out.size):
        size = abs(cosines[j])
        size = 1.0 if size > 1 else size
        x = np.sqrt(1 - size) / (1.4142135623730951 + np.sqrt(1 + size))
        z = x * x
        series = 0.06977001939223304 - z * 0.037701677454146106
        series = 0.11103534844291488 - z * (0.08993216584171199 - z * series)
        series = 0.19999993188791876 - z * (0.14285391255644428 - z * series)
        angle = 4 * x * (0.9999999999992709 - z * (0.3333333327838361 - z * series))
        out[j] = (angle if cosines[j] >= 0 else np.pi - angle) * 57.29577951308232


def _pairs_of(piece: Any, pairs: Any) -> tuple[np.ndarray, np.ndarray]:
    vectors = decoded(piece, np.nan).astype(np.float64)
    return vectors[:, pairs[:, 0]], vectors[:, pairs[:, 1]]


@cosines_of.in_numpy
def _cosines_of_numpy(piece: Any, pairs: Any, in_degrees: Any, out: Any) -> None:
    a, b = _pairs_of(piece, pairs)
    aa, bb, ab = (np.einsum("kpj,kpj->pj", *each) for each in ((a, a), (b, b), (a, b)))
    usable = aa * bb > 0
    cosine = np.where(usable, ab / np.sqrt(np.where(usable, aa * bb, 1)), np.nan)
    if in_degrees:
        size = np.minimum(np.abs(cosine), 1) * np.sign(cosine)
        out[:] = np.degrees(2 * np.arctan2(np.sqrt(1 - size), np.sqrt(1 + size)))
    else:
        out[:] = cosine


@jit
def lengths_of(piece: Any, pairs: Any, out: Any) -> None:
    """Distances between pairs of years, ``(pair, n)``; sums are float64."""
    bands, years, n = piece[0].shape
    rows, total = np.empty((years, n), np.float32), np.zeros((len(pairs), n))
    for b in range(bands):
        for t in range(years):
            _decode(piece, b, t, np.float32(np.nan), rows[t])
        for p in range(len(pairs)):
            one, other, own = rows[pairs[p, 0]], rows[pairs[p, 1]], total[p]
            for j in range(n):
                gap = np.float64(one[j] - other[j])
                own[j] += gap * gap
    for p in range(len(pairs)):
        own, row = total[p], out[p]
        for j in range(n):
            row[j] = np.sqrt(own[j])


@lengths_of.in_numpy
def _lengths_of_numpy(piece: Any, pairs: Any, out: Any) -> None:
    a, b = _pairs_of(piece, pairs)
    np.sqrt(np.einsum("kpj,kpj->pj", a - b, a - b), out=out)


@jit_exact
def carry_on(values: Any, scale: Any, there: Any) -> None:
    """Put the last year with data in the place of each year without."""
    bands, years, n = values.shape
    for t in range(1, years):
        for j in range(n):
            if not there[t, j] and there[t - 1, j]:
                there[t, j] = True
                scale[t, j] = scale[t - 1, j]
                for b in range(bands):
                    values[b, t, j] = values[b, t - 1, j]


@carry_on.in_numpy
def _carry_on_numpy(values: Any, scale: Any, there: Any) -> None:
    for t in range(1, len(there)):
        gone = ~there[t] & there[t - 1]
        there[t] |= gone
        scale[t, gone], values[:, t, gone] = scale[t - 1, gone], values[:, t - 1, gone]
