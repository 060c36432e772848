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

#: How many pixels a loop takes at once: what it adds to stays in a processor's first cache. Places are counted in
#: unsigned integers, since numba asks of each signed one whether it counts from the end; a row is not sliced out
#: before a loop, since a slice counts who holds it, which takes as long as the loop.
LANES = 128
#: The same for years that are read where they lie, and the length of rows there.
_ROW = 2048

# --- out of a piece ---------------------------------------------------------------------------------------------


@jit_exact
def _exact(code: Any, square: Any, scale: Any) -> Any:
    """A code, or a number of a vector, as float32."""
    value = np.float32(code)
    return value * (abs(value) if square else np.float32(1)) * scale


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
def keep_or_nan(there: Any, needed: Any, keep: Any) -> Any:
    """1 where enough years have data, NaN elsewhere; returns whether only some years of a pixel have data."""
    years, n = there.shape
    counts = np.zeros(n, np.int32)
    for t in range(years):
        for j in range(n):
            counts[j] += there[t, j]
    partly = 0
    for j in range(n):
        keep[j] = np.float32(1) if counts[j] >= needed else np.float32(np.nan)
        partly += 0 < counts[j] < years
    return partly > 0


def kept_or_nan(there: np.ndarray, needed: int) -> np.ndarray:
    """Give what :func:`keep_or_nan` writes."""
    return np.where(there.sum(axis=0) >= needed, np.float32(1), np.float32(np.nan))


# --- what years give together -----------------------------------------------------------------------------------


@jit
def mean_of(piece: Any, weights: Any, unit: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    """Sum ``w·v`` in float64, in the order of years, over its length or over the sum of weights."""
    values, square, scale, there = piece
    bands, years, n = values.shape
    keep, lanes = np.empty(n, np.float32), np.uint64(LANES)
    total, divisor = np.empty((bands, LANES)), np.empty(LANES)
    keep_or_nan(there, needed, keep)
    for at in range(0, size, LANES):
        of, to = np.uint64(at), np.uint64(start + at)
        divisor[:] = 0
        total[:] = 0
        for b in range(bands):
            for t in range(years):
                weight = weights[t]
                for j in range(lanes):
                    total[b, j] += weight * np.float64(_exact(values[b, t, of + j], square, scale[t, of + j]))
            if unit:
                for j in range(lanes):
                    divisor[j] += total[b, j] * total[b, j]
        if unit:
            for j in range(lanes):
                divisor[j] = np.sqrt(divisor[j])
        else:
            for t in range(years):
                for j in range(lanes):
                    divisor[j] += weights[t] if there[t, of + j] else 0.0
        for j in range(lanes):
            divisor[j] = keep[of + j] / divisor[j] if divisor[j] > 0 else np.nan
        for b in range(bands):
            for j in range(np.uint64(min(LANES, size - at))):
                out[b, to + j] = total[b, j] * divisor[j]


@mean_of.in_numpy
def _mean_of_numpy(piece: Any, weights: Any, unit: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    there = piece[3]
    total = np.zeros((len(piece[0]), there.shape[1]))
    vectors = decoded(piece, 0)
    for t, weight in enumerate(weights):
        total += weight * vectors[:, t].astype(np.float64)
    divisor = np.sqrt(np.einsum("bj,bj->j", total, total)) if unit else weights @ there
    mean = total * (kept_or_nan(there, needed) / np.where(divisor > 0, divisor, np.nan))
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
    """Weighted standard deviations of components (of the population), in two passes in float64.

    Vectors that are all the same spread by nothing, which their mean must be exact for: it is divided by the sum of
    weights, and multiplied by its inverse only where that is exact, as of 2, 4 or 8 years.
    """
    values, square, scale, there = piece
    bands, years, n = values.shape
    weight, share, inverse = np.empty((years, n)), np.zeros(n), np.empty(n)
    row, mean, spread = np.empty((years, LANES)), np.empty(LANES), np.empty(LANES)
    keep, lanes = np.empty(n, np.float32), np.uint64(LANES)
    keep_or_nan(there, needed, keep)
    for t in range(years):
        for j in range(n):
            weight[t, j] = weights[t] if there[t, j] else 0.0
            share[j] += weight[t, j]
    rounded = 0
    for j in range(n):
        share[j] = share[j] if share[j] > 0 else 1.0
        inverse[j] = 1 / share[j]
        whole = np.int64(share[j])
        rounded += whole != share[j] or whole & (whole - 1) != 0
    for b in range(bands):
        for at in range(0, size, LANES):
            of, to = np.uint64(at), np.uint64(start + at)
            mean[:] = 0
            spread[:] = 0
            for t in range(years):
                for j in range(lanes):
                    row[t, j] = np.float64(_exact(values[b, t, of + j], square, scale[t, of + j]))
                    mean[j] += weight[t, of + j] * row[t, j]
            if rounded:
                for j in range(lanes):
                    mean[j] /= share[of + j]
            else:
                for j in range(lanes):
                    mean[j] *= inverse[of + j]
            for t in range(years):
                for j in range(lanes):
                    apart = row[t, j] - mean[j]
                    spread[j] += weight[t, of + j] * (apart * apart)
            for j in range(np.uint64(min(LANES, size - at))):
                out[b, to + j] = np.float32(np.sqrt(spread[j] * inverse[of + j])) * keep[of + j]


@deviations_of.in_numpy
def _deviations_of_numpy(piece: Any, weights: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    there = piece[3]
    own = there * weights[:, None]
    usable = np.where(own.sum(axis=0) > 0, own.sum(axis=0), 1.0)
    exact = decoded(piece, 0).astype(np.float64)
    mean = (own * exact).sum(axis=1) / usable
    spread = np.sqrt((own * (exact - mean[:, None]) ** 2).sum(axis=1) / usable) * kept_or_nan(there, needed)
    out[: len(spread), start : start + size] = spread[:, :size]


@jit_exact
def put_beyond(there: Any, missing: Any, beyond: Any) -> None:
    """What is added to vectors: 0, or ``missing``, an infinity, to those without data, so that they come last."""
    for t in range(there.shape[0]):
        for j in range(there.shape[1]):
            beyond[t, j] = 0 if there[t, j] else missing


@jit_exact
def extremes_of(piece: Any, is_max: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    """Smallest or largest components.

    A sum with 0 is nothing to a number but for the sign of a zero. To a compiler it is a value to be stored in any
    case, which it does for eight pixels at once.
    """
    values, square, scale, there = piece
    bands, years, n = values.shape
    keep, beyond, best = (
        np.empty(n, np.float32),
        np.empty((years, n), np.float32),
        np.empty(LANES, np.float32),
    )
    zero, lanes = np.float32(0), np.uint64(LANES)
    keep_or_nan(there, needed, keep)
    put_beyond(there, np.float32(-np.inf if is_max else np.inf), beyond)
    for b in range(bands):
        for at in range(0, size, LANES):
            of, to = np.uint64(at), np.uint64(start + at)
            for j in range(lanes):
                best[j] = _exact(values[b, 0, of + j], square, scale[0, of + j]) + beyond[0, of + j]
            for t in range(1, years):
                if is_max:
                    for j in range(lanes):
                        value = _exact(values[b, t, of + j], square, scale[t, of + j]) + beyond[t, of + j]
                        best[j] = (value if value > best[j] else best[j]) + zero
                else:
                    for j in range(lanes):
                        value = _exact(values[b, t, of + j], square, scale[t, of + j]) + beyond[t, of + j]
                        best[j] = (value if value < best[j] else best[j]) + zero
            for j in range(np.uint64(min(LANES, size - at))):
                out[b, to + j] = best[j] * keep[of + j]


@extremes_of.in_numpy
def extremes_in_numpy(piece: Any, is_max: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    """Write what :func:`extremes_of` writes."""
    vectors = decoded(piece, -np.inf if is_max else np.inf)
    best = (np.max if is_max else np.min)(vectors, axis=1)
    with np.errstate(invalid="ignore"):  # where no year has data
        out[: len(best), start : start + size] = (best * kept_or_nan(piece[3], needed))[:, :size]


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
    values, square, scale, there = piece
    bands, years, n = values.shape
    zero, half, lanes = np.float32(0), np.float32(0.5), np.uint64(LANES)
    keep, beyond = np.empty(n, np.float32), np.empty((years, n), np.float32)
    row, middle = np.empty((years, LANES), np.float32), np.empty((bands, LANES), np.float32)
    low, high = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    counts, total = np.zeros(LANES, np.int32), np.zeros(LANES)
    gaps = keep_or_nan(there, needed, keep)
    put_beyond(there, np.float32(np.inf), beyond)
    for at in range(0, size, LANES):
        of, to = np.uint64(at), np.uint64(start + at)
        counts[:] = 0
        total[:] = 0
        for t in range(years):
            for j in range(lanes):
                counts[j] += there[t, of + j]
        for b in range(bands):
            for t in range(years):
                for j in range(lanes):
                    row[t, j] = _exact(values[b, t, of + j], square, scale[t, of + j]) + beyond[t, of + j]
            for p in range(len(pairs)):
                first, second = np.uint64(pairs[p, 0]), np.uint64(pairs[p, 1])
                for j in range(lanes):
                    one, other = row[first, j], row[second, j]
                    row[first, j] = (one if one < other else other) + zero
                    row[second, j] = (other if one < other else one) + zero
            if gaps:
                for t in range(years):
                    for j in range(lanes):
                        low[j] = row[t, j] if 2 * t < counts[j] else low[j]
                        high[j] = row[t, j] if 2 * t <= counts[j] else high[j]
                for j in range(lanes):
                    middle[b, j] = low[j] * half + high[j] * half
            else:
                below, above = np.uint64((years - 1) // 2), np.uint64(years // 2)
                for j in range(lanes):
                    middle[b, j] = row[below, j] * half + row[above, j] * half
            for j in range(lanes):
                total[j] += np.float64(middle[b, j]) * np.float64(middle[b, j])
        if unit:
            for j in range(lanes):
                keep[of + j] *= np.float32(1 / np.sqrt(total[j]) if total[j] > 0 else np.nan)
        for b in range(bands):
            for j in range(np.uint64(min(LANES, size - at))):
                out[b, to + j] = middle[b, j] * keep[of + j]


@median_of.in_numpy
def medians_in_numpy(piece: Any, pairs: Any, unit: Any, needed: Any, out: Any, start: Any, size: Any) -> None:
    """Write what :func:`median_of` writes."""
    there = piece[3]
    vectors, counts = decoded(piece, np.inf), there.sum(axis=0)
    vectors.sort(axis=1)
    low, high = (
        np.take_along_axis(vectors, each[None, None], axis=1)[:, 0]
        for each in (np.maximum(counts - 1, 0) // 2, np.minimum(counts // 2, len(there) - 1))
    )
    half = np.float32(0.5)
    middle, keep = low * half + high * half, kept_or_nan(there, needed)
    if unit:
        total = np.zeros(len(keep))
        for row in middle:  # in the order of the bands, as the loop adds them
            total += row.astype(np.float64) ** 2
        keep = keep * (1 / np.sqrt(np.where(total > 0, total, np.nan))).astype(np.float32)
    with np.errstate(invalid="ignore"):  # where no year has data
        out[: len(middle), start : start + size] = (middle * keep)[:, :size]


# --- how far apart years are ------------------------------------------------------------------------------------


@jit_exact
def cosines_of(piece: Any, pairs: Any, in_degrees: Any, out: Any) -> None:
    """Cosines of the angles between pairs of years of vectors, ``(pair, n)``, or these angles; sums are float64.

    Codes have :func:`~geoemb_xr.analysis.code_kernels.cosines_of_codes`. Of cosines in float64 an angle is as good
    as of normalised vectors in float32: the least that shows is 10⁻⁶ degrees.
    """
    values = piece[0]
    bands, years, n = values.shape
    row, length = np.empty((years, LANES)), np.empty((years, LANES))
    product, lanes = np.empty((len(pairs), LANES)), np.uint64(LANES)
    for at in range(0, n, LANES):
        of = np.uint64(at)
        length[:] = 0
        product[:] = 0
        for b in range(bands):
            for t in range(years):
                for j in range(lanes):
                    row[t, j] = np.float64(values[b, t, of + j])
                    length[t, j] += row[t, j] * row[t, j]
            for p in range(len(pairs)):
                one, other = np.uint64(pairs[p, 0]), np.uint64(pairs[p, 1])
                for j in range(lanes):
                    product[p, j] += row[one, j] * row[other, j]
        for p in range(len(pairs)):
            one, other = np.uint64(pairs[p, 0]), np.uint64(pairs[p, 1])
            for j in range(lanes):  # what is missing has no length
                lengths = np.sqrt(length[one, j] * length[other, j])
                product[p, j] = product[p, j] / lengths if lengths > 0 else np.nan
        for p in range(len(pairs)):
            if in_degrees:
                for j in range(lanes):
                    out[p, of + j] = degrees_of(product[p, j])
            else:
                for j in range(lanes):
                    out[p, of + j] = product[p, j]


@jit_exact
def degrees_of(cosine: Any) -> Any:
    """2·atan2(‖â−b̂‖, ‖â+b̂‖) from â·b̂: the squares of these lengths are 2 ∓ 2·â·b̂.

    A quarter of an angle up to 90° has a tangent up to √2 − 1, where the polynomial (fitted at Chebyshev's points)
    is off by 10⁻¹² of it. The C library's atan2 takes one pixel at a time, which costs as much as all else does.
    """
    size = abs(cosine)
    size = 1.0 if size > 1 else size
    x = np.sqrt(1 - size) / (1.4142135623730951 + np.sqrt(1 + size))
    z = x * x
    series = 0.06977001939223304 - z * 0.037701677454146106
    series = 0.11103534844291488 - z * (0.08993216584171199 - z * series)
    series = 0.19999993188791876 - z * (0.14285391255644428 - z * series)
    angle = 4 * x * (0.9999999999992709 - z * (0.3333333327838361 - z * series))
    return (angle if cosine >= 0 else np.pi - angle) * 57.29577951308232


def angles_of(cosine: np.ndarray) -> np.ndarray:
    """Give what :func:`degrees_of` gives, of many cosines."""
    size = np.minimum(np.abs(cosine), 1) * np.sign(cosine)
    return np.degrees(2 * np.arctan2(np.sqrt(1 - size), np.sqrt(1 + size)))


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
        out[:] = angles_of(cosine)
    else:
        out[:] = cosine


@jit_exact
def cosines_of_two(a: Any, b: Any, in_degrees: Any, start: Any, size: Any, out: Any) -> None:
    """What :func:`cosines_of` gives, with its bits, of two years of vectors ``(band, pixel)`` where they lie.

    NaN is what has no length, and what is not finite.
    """
    aa, bb, ab = np.empty(_ROW), np.empty(_ROW), np.empty(_ROW)
    for at in range(start, start + size, _ROW):
        of, n = np.uint64(at), np.uint64(min(_ROW, start + size - at))
        aa[:] = 0
        bb[:] = 0
        ab[:] = 0
        for k in range(a.shape[0]):
            for j in range(n):
                one, other = np.float64(a[k, of + j]), np.float64(b[k, of + j])
                aa[j] += one * one
                bb[j] += other * other
                ab[j] += one * other
        for j in range(n):
            lengths = np.sqrt(aa[j] * bb[j])
            ab[j] = ab[j] / lengths if lengths > 0 else np.nan
        if in_degrees:
            for j in range(n):
                out[of + j] = degrees_of(ab[j])
        else:
            for j in range(n):
                out[of + j] = ab[j]


@cosines_of_two.in_numpy
def _cosines_of_two_numpy(a: Any, b: Any, in_degrees: Any, start: Any, size: Any, out: Any) -> None:
    one, other = (each[:, start : start + size].astype(np.float64) for each in (a, b))
    with np.errstate(invalid="ignore"):
        aa, bb, ab = (np.einsum("kj,kj->j", *each) for each in ((one, one), (other, other), (one, other)))
        cosine = ab / np.sqrt(np.where(aa * bb > 0, aa * bb, np.nan))
    out[start : start + size] = angles_of(cosine) if in_degrees else cosine


@jit
def lengths_of(piece: Any, pairs: Any, out: Any) -> None:
    """Distances between pairs of years, ``(pair, n)``; sums are float64."""
    values, square, scale, there = piece
    bands, years, n = values.shape
    row, lanes = np.empty((years, LANES), np.float32), np.uint64(LANES)
    total = np.empty((len(pairs), LANES))
    for at in range(0, n, LANES):
        of = np.uint64(at)
        total[:] = 0
        for b in range(bands):
            for t in range(years):
                for j in range(lanes):
                    row[t, j] = _exact(values[b, t, of + j], square, scale[t, of + j])
            for p in range(len(pairs)):
                one, other = np.uint64(pairs[p, 0]), np.uint64(pairs[p, 1])
                for j in range(lanes):
                    gap = np.float64(row[one, j] - row[other, j])
                    total[p, j] += gap * gap
        for p in range(len(pairs)):
            one, other = pairs[p, 0], pairs[p, 1]
            for j in range(lanes):
                both = there[one, of + j] and there[other, of + j]
                out[p, of + j] = np.sqrt(total[p, j]) if both else np.nan


@lengths_of.in_numpy
def _lengths_of_numpy(piece: Any, pairs: Any, out: Any) -> None:
    a, b = _pairs_of(piece, pairs)
    np.sqrt(np.einsum("kpj,kpj->pj", a - b, a - b), out=out)


@jit_exact
def carry_on(values: Any, scale: Any, there: Any) -> None:
    """Put the last year with data in place of each year without."""
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
