"""Compiled loops of the warp: mix, average, count.

Source windows are (row, column, band), C-contiguous. Coordinates are whole numbers of 1/4096 source pixel, counted
from the corner of the window: a pixel covers 4096 of them, and its lower edge is its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from geoemb_xr.core.kernels import jit, jit_exact, runs

#: Bytes of results side by side that are mixed before they are laid bands first: a part of a second-level cache.
_MIXED = 1 << 17


@jit
def square_factors(codes: Any, nodata: Any, factor: Any, out: Any) -> None:
    """``out`` (pixels) = ``factor``, 0 where a band of ``codes`` (pixels, bands) is ``nodata``, the least code."""
    n, bands = codes.shape
    for i in range(n):
        least = codes[i, 0]
        for b in range(bands):
            least = min(least, codes[i, b])
        out[i] = 0 if least == nodata else factor


@square_factors.in_numpy
def _square_factors_numpy(codes: Any, nodata: Any, factor: Any, out: Any) -> None:
    out[...] = np.where(codes.min(axis=1) == nodata, 0, factor)


@jit_exact
def decoded_value(value: Any, factor: Any, power: Any) -> Any:
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


def decoded_rows(vectors: Any, factors: Any, power: Any) -> Any:
    """What :func:`decoded_value` gives of many vectors (…, band), each with its factor."""
    if power is None:
        return vectors
    numbers = vectors.astype(np.float32)
    if power == 2:
        numbers *= np.abs(numbers)
    numbers *= factors[..., None]
    return numbers


@jit_exact
def _mixed(wa: Any, a: Any, wb: Any, b: Any, wc: Any, c: Any, wd: Any, d: Any) -> Any:
    """A weighted sum as written: with fast arithmetic, its bits depend on the processor and on what is stored."""
    return (wa * a + wb * b) + (wc * c + wd * d)


@jit
def bilinear(
    window: Any, factors: Any, power: Any, decoded: Any, at: Any, unit: Any, first: Any, out: Any
) -> None:
    """Weighted means of the valid ones of four neighbours, of unit length if ``unit``.

    ``factors`` (row, column) is what values are multiplied by, 0 where a pixel is missing; ``power`` as in
    :func:`decoded_value`. A pixel is missing (NaN) where its nearest source pixel is: the mask is that of
    :func:`gather`. Beyond an edge the pixels at the edge stand in. ``out`` is (band, row, column) if ``first``,
    else (row, column, band).

    ``decoded`` (pixel, band) has room for decoded pixels of two rows, a power of two at least 4, from which the
    results beside and below take them again; for floats it is all of ``window``.
    """
    height, width, bands = window.shape
    _, rows, cols = at.shape
    # No loop takes a row of an array, which costs more than all else; unsigned numbers count from the start alone.
    stored, factor = window.reshape(-1), factors.reshape(-1)
    ready, results = decoded.reshape(-1), out.reshape(-1)
    one, unit_share, none = np.float32(1), np.float32(1 / 4096), np.uintp(0)
    length, plane, eight = np.uintp(bands), np.uintp(rows * cols), np.uintp(8)
    half = len(decoded) // 2
    # the pixel that is decoded in each place
    kept = np.full(0 if power is None else len(decoded), -1, np.int64)
    wide = max(_MIXED // (bands * out.itemsize), 16)
    mixed, share = np.empty(wide * bands, out.dtype), np.empty(wide, out.dtype)
    places, weights = np.empty(4, np.uintp), np.empty(4, np.float32)
    for start in range(0, cols, wide):
        n = np.uintp(min(wide, cols - start))
        for i in range(rows):
            for p in range(n):
                y, x = at[0, i, start + p], at[1, i, start + p]
                r, c = y >> 12, x >> 12
                own = p * length
                if not (0 <= r < height and 0 <= c < width) or factor[r * width + c] == 0:
                    for b in range(length):
                        mixed[own + b] = np.nan
                    share[p] = one
                    continue
                south = np.float32((y - 2048) & 4095) * unit_share
                east = np.float32((x - 2048) & 4095) * unit_share
                r0, c0 = (y - 2048) >> 12, (x - 2048) >> 12
                for k in range(4):
                    row = min(r0 + 1, height - 1) if k > 1 else max(r0, 0)
                    col = min(c0 + 1, width - 1) if k & 1 else max(c0, 0)
                    weights[k] = (south if k > 1 else one - south) * (east if k & 1 else one - east)
                    if factor[row * width + col] == 0:  # of no weight: the nearest is read in its place
                        row, col, weights[k] = r, c, 0
                    pixel = row * width + col
                    if power is None:
                        places[k] = np.uintp(pixel) * length
                        continue
                    place = (row & 1) * half + (col & (half - 1))
                    places[k] = into = np.uintp(place) * length
                    if kept[place] != pixel:
                        kept[place] = pixel
                        by, begin = factor[pixel], np.uintp(pixel) * length
                        for b in range(length):
                            ready[into + b] = decoded_value(stored[begin + b], by, power)
                na, nb, nc, nd = places[0], places[1], places[2], places[3]
                wa, wb, wc, wd = weights[0], weights[1], weights[2], weights[3]
                for b in range(length):
                    mixed[own + b] = _mixed(
                        wa, ready[na + b], wb, ready[nb + b], wc, ready[nc + b], wd, ready[nd + b]
                    )
                square = out.dtype.type(0)
                for b in range(length):
                    square += mixed[own + b] * mixed[own + b]
                share[p] = one / (np.sqrt(square) if unit else wa + wb + wc + wd)
            if first:
                begin = np.uintp(i) * np.uintp(cols) + np.uintp(start)
                # eight bands of a pixel come from memory together
                for b in range(none, length - length % eight, eight):
                    a0 = begin + b * plane
                    a1 = a0 + plane
                    a2 = a1 + plane
                    a3 = a2 + plane
                    a4 = a3 + plane
                    a5 = a4 + plane
                    a6 = a5 + plane
                    a7 = a6 + plane
                    for p in range(n):
                        here, times = p * length + b, share[p]
                        results[a0 + p] = mixed[here] * times
                        results[a1 + p] = mixed[here + np.uintp(1)] * times
                        results[a2 + p] = mixed[here + np.uintp(2)] * times
                        results[a3 + p] = mixed[here + np.uintp(3)] * times
                        results[a4 + p] = mixed[here + np.uintp(4)] * times
                        results[a5 + p] = mixed[here + np.uintp(5)] * times
                        results[a6 + p] = mixed[here + np.uintp(6)] * times
                        results[a7 + p] = mixed[here + np.uintp(7)] * times
                for b in range(length - length % eight, length):
                    a0 = begin + b * plane
                    for p in range(n):
                        results[a0 + p] = mixed[p * length + b] * share[p]
            else:
                for p in range(n):
                    begin = (np.uintp(i) * np.uintp(cols) + np.uintp(start) + p) * length
                    for b in range(length):
                        results[begin + b] = mixed[p * length + b] * share[p]


@bilinear.in_numpy
def _bilinear_numpy(
    window: Any, factors: Any, power: Any, decoded: Any, at: Any, unit: Any, first: Any, out: Any
) -> None:
    out = np.moveaxis(out, 0, -1) if first else out
    height, width, bands = window.shape
    vectors, factor = window.reshape(height * width, bands), factors.reshape(height * width)
    for i in range(
        at.shape[1]
    ):  # row by row: four neighbours of all bands are as much memory as four results
        y, x = at[:, i]
        row, col = y >> 12, x >> 12
        inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
        here = np.where(inside, row * width + col, 0)
        there = inside & (factor[here] != 0)
        out[i, ~there] = np.nan
        y, x, here = y[there], x[there], here[there]
        south, east = (((v - 2048) & 4095).astype(np.float32) * np.float32(1 / 4096) for v in (y, x))
        r0, c0 = (y - 2048) >> 12, (x - 2048) >> 12
        pairs = []
        for r, down in ((np.maximum(r0, 0), 1 - south), (np.minimum(r0 + 1, height - 1), south)):
            for c, across in ((np.maximum(c0, 0), 1 - east), (np.minimum(c0 + 1, width - 1), east)):
                lost = factor[r * width + c] == 0
                at_pixel = np.where(lost, here, r * width + c)
                share = np.where(lost, np.float32(0), down * across)
                pairs.append((share, decoded_rows(vectors[at_pixel], factor[at_pixel], power)))
        mean = _mixed.function(*(each for share, vector in pairs for each in (share[:, None], vector)))
        weight = np.add.reduce([share for share, _ in pairs])
        length = np.sqrt(np.einsum("nb,nb->n", mean, mean)) if unit else weight
        with np.errstate(divide="ignore", invalid="ignore"):
            out[i, there] = mean * (1 / length)[:, None]


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
    window: Any,
    factors: Any,
    power: Any,
    corners: Any,
    lengths: Any,
    unit: Any,
    by: Any,
    out: Any,
    stats: Any,
) -> None:
    """Means over the true footprints of target pixels, weighted by area, of the valid source pixels.

    ``corners`` (2, rows + 1, columns + 1) are those of the target pixels; ``window``, ``factors`` and ``power`` as
    in :func:`bilinear`; means are multiplied by ``by``. ``stats`` (rows, columns, 2) is the resultant length (if
    ``lengths``) and the valid share of the footprint.
    """
    bands = window.shape[2]
    sums, row = np.empty(bands + 2), np.empty(bands, factors.dtype)
    y, x = np.empty(4), np.empty(4)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            sums[:] = 0
            area = _add_footprint(window, factors, power, corners, i, j, lengths, y, x, row, sums)
            _finish_mean(sums, area, unit, by, out[i, j], stats[i, j])


@jit
def add_footprints(window: Any, factors: Any, power: Any, corners: Any, sums: Any) -> None:
    """Add the sums of a window to those of all target pixels, (rows, columns, bands + 2)."""
    rows, cols = sums.shape[:2]
    row = np.empty(window.shape[2], factors.dtype)
    y, x = np.empty(4), np.empty(4)
    for i in range(rows):
        for j in range(cols):
            _add_footprint(window, factors, power, corners, i, j, np.bool_(True), y, x, row, sums[i, j])


@jit
def finish_means(sums: Any, corners: Any, unit: Any, by: Any, out: Any, stats: Any) -> None:
    """Turn sums of :func:`add_footprints` into means."""
    rows, cols = sums.shape[:2]
    y, x = np.empty(4), np.empty(4)
    for i in range(rows):
        for j in range(cols):
            lost = _footprint(corners, i, j, y, x)[0]
            _finish_mean(sums[i, j], 0.0 if lost else _area(y, x), unit, by, out[i, j], stats[i, j])


@average.in_numpy
def _average_numpy(
    window: Any,
    factors: Any,
    power: Any,
    corners: Any,
    lengths: Any,
    unit: Any,
    by: Any,
    out: Any,
    stats: Any,
) -> None:
    for rows, around in _strips(corners, factors.size):
        sums = np.zeros((*out[rows].shape[:2], out.shape[2] + 2))
        area = _add_strip(window, factors, power, around, lengths, sums)
        _finish_strip(sums, area, unit, by, out[rows], stats[rows])


@add_footprints.in_numpy
def _add_footprints_numpy(window: Any, factors: Any, power: Any, corners: Any, sums: Any) -> None:
    for rows, around in _strips(corners, factors.size):
        _add_strip(window, factors, power, around, True, sums[rows])


@finish_means.in_numpy
def _finish_means_numpy(sums: Any, corners: Any, unit: Any, by: Any, out: Any, stats: Any) -> None:
    for rows, around in _strips(corners, 0):
        _finish_strip(sums[rows], _quadrangles(around)[-1], unit, by, out[rows], stats[rows])


def _strips(corners: Any, pixels: int) -> Iterator[tuple[slice, Any]]:
    """Rows of target pixels that fit into little memory together, and their corners; ``pixels`` of the window."""
    rows, cols = corners.shape[1] - 1, corners.shape[2] - 1
    step = max(1, min(4096 // max(cols, 1), 32_768 * rows // max(pixels, 1)))
    for start in range(0, rows, step):
        yield slice(start, start + step), corners[:, start : start + step + 1]


def _add_strip(window: Any, factors: Any, power: Any, corners: Any, lengths: Any, sums: Any) -> np.ndarray:
    """What :func:`_add_footprint` does, of all pixels: one product with a sparse matrix of shares."""
    from scipy import sparse

    target, row, col, share, area = _shares(corners, *factors.shape)
    there = factors[row, col] != 0
    target, share, pixel = target[there], share[there], (row * factors.shape[1] + col)[there]
    pixel, column = np.unique(pixel, return_inverse=True)
    matrix = sparse.csr_array((share, (target, column)), shape=(len(area), len(pixel)))
    vectors = decoded_rows(window.reshape(-1, window.shape[2])[pixel], factors.reshape(-1)[pixel], power)
    sums[..., :-2] += (matrix @ vectors).reshape(*sums.shape[:2], -1)
    sums[..., -2] += matrix.sum(axis=1).reshape(sums.shape[:2])
    if lengths:
        sums[..., -1] += (matrix @ np.sqrt(np.einsum("nb,nb->n", vectors, vectors))).reshape(sums.shape[:2])
    return area


def _finish_strip(sums: Any, area: Any, unit: Any, by: Any, out: Any, stats: Any) -> None:
    total, weight, length = sums[..., :-2], sums[..., -2], sums[..., -1]
    size, area, some = np.linalg.norm(total, axis=-1), area.reshape(weight.shape), weight > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        out[...] = total * np.where(some, 1 / size if unit else by / weight, np.nan)[..., None]
        stats[..., 0] = np.where(some, np.minimum(size / length, 1), np.nan)
        stats[..., 1] = np.where(area > 0, np.minimum(weight / area, 1), 0)


def _quadrangles(corners: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What :func:`_footprint` and :func:`_area` give, of all target pixels, one after the other.

    Rows and columns of the corners (n, 4), counted from the upper left source pixel; the first and the last source
    pixel (2, n) that each spans; and areas, 0 where a corner is nowhere.
    """
    around = np.stack(
        [corners[:, :-1, :-1], corners[:, :-1, 1:], corners[:, 1:, 1:], corners[:, 1:, :-1]], axis=-1
    ).reshape(2, -1, 4)
    first, last = (around >> 12).min(axis=-1), (around >> 12).max(axis=-1)
    y, x = (around - first[..., None] * 4096) / 4096
    area = np.abs((x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1)) / 2
    return y, x, first, last, np.where((around[0] < -(2**61)).any(axis=-1), 0.0, area)


def _shares(
    corners: Any, height: Any, width: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which target pixels cover which source pixels of a window, and how much of them; all targets' areas.

    To the right of an edge lies a trapezoid in each row of source pixels. Those of the four edges, taken off on the
    way up and added on the way down, are what is covered.
    """
    y, x, (top, left), (bottom, right), area = _quadrangles(corners)
    low, high = np.maximum(top, 0), np.minimum(bottom + 1, height)
    seen = (area > 0) & (low < high) & (left < width) & (right >= 0)
    target, row = runs(low, np.where(seen, high - low, 0))
    ends = np.arange(1.0, 2.0 + max((right - left)[seen], default=0))
    covered = np.zeros((len(row), len(ends)))
    within = (row - top[target])[:, None]
    for e in range(4):
        y0, x0, y1, x1 = (v[target, k, None] for k in (e, (e + 1) % 4) for v in (y, x))
        above, below = (np.clip(v, within, within + 1) for v in (y0, y1))
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (x1 - x0) / (y1 - y0)
            one, other = (x0 + (v - y0) * slope for v in (above, below))
            near, far = np.minimum(one, other), np.maximum(one, other)
            inner = (ends - near) ** 2 / (2 * (far - near))
            beside = np.where(ends >= far, ends - (near + far) / 2, np.where(ends <= near, 0.0, inner))
            part = (below - above) * np.diff(beside, axis=1, prepend=0)
        covered += np.where(below != above, part, 0.0)
    share = _weight.function(covered)
    col = left[target][:, None] + np.arange(len(ends))
    at, along = np.nonzero((share > 0) & (col >= 0) & (col < width))
    return target[at], row[at], col[at, along], share[at, along], area


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
                row[b] += weight * decoded_value(vector[b], factor, power)
            if lengths:
                square = row.dtype.type(0)
                for b in range(bands):
                    square += decoded_value(vector[b], factor, power) ** 2
                sums[bands + 1] += w * np.sqrt(square)
        for b in range(bands):
            sums[b] += row[b]
    return _area(y, x)


@jit_exact
def _finish_mean(sums: Any, area: Any, unit: Any, by: Any, out: Any, stats: Any) -> None:
    """Make a mean of sums, of unit length or times ``by`` over the weight; NaN where there is none.

    Squares are added four by four, in an order that is the same with bands first.
    """
    bands = len(out)
    weight, length = sums[bands], sums[bands + 1]
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    for k in range(0, bands - 3, 4):
        a += sums[k] * sums[k]
        b += sums[k + 1] * sums[k + 1]
        c += sums[k + 2] * sums[k + 2]
        d += sums[k + 3] * sums[k + 3]
    rest, left = bands - bands % 4, bands % 4
    a += sums[rest] * sums[rest] if left > 0 else 0.0
    b += sums[rest + 1] * sums[rest + 1] if left > 1 else 0.0
    c += sums[rest + 2] * sums[rest + 2] if left > 2 else 0.0
    size = np.sqrt((a + b) + (c + d))
    factor = np.nan
    if weight > 0:
        factor = 1 / size if unit else by / weight
    for k in range(bands):
        out[k] = sums[k] * factor
    stats[0] = min(size / length, 1.0) if weight > 0 else np.nan
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
def mode(window: Any, corners: Any, nodata: Any, counts: Any, out: Any) -> None:
    """The class but ``nodata`` that covers most of each target pixel's footprint; the smaller code wins a tie.

    ``window`` is (row, column) of small unsigned integers, ``counts`` an array of zeros, one per code.
    """
    height, width = window.shape
    rows, cols = out.shape
    y, x = np.empty(4), np.empty(4)
    for i in range(rows):
        for j in range(cols):
            out[i, j] = nodata
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
            counts[nodata] = 0
            best = 0
            for r in range(max(top, 0), min(bottom + 1, height)):
                for c in range(first, last):
                    code = window[r, c]
                    if counts[code] > best or (counts[code] == best and best > 0 and code < out[i, j]):
                        best, out[i, j] = counts[code], code
            for r in range(max(top, 0), min(bottom + 1, height)):
                for c in range(first, last):
                    counts[window[r, c]] = 0


@mode.in_numpy
def _mode_numpy(window: Any, corners: Any, nodata: Any, counts: Any, out: Any) -> None:
    for rows, around in _strips(corners, window.size):
        target, row, col, share, area = _shares(around, *window.shape)
        codes, which = np.unique(window[row, col], return_inverse=True)
        shape = (len(area), len(codes) + 1)  # one to spare: no code, of no pixels
        found = np.bincount(target * shape[1] + which, share, shape[0] * shape[1]).reshape(shape)
        found[:, np.flatnonzero(codes == nodata)] = 0
        best = np.append(codes, nodata)[found.argmax(axis=1)]  # the first of the best is the smallest code
        out[rows] = np.where(found.max(axis=1) > 0, best, nodata).reshape(-1, out.shape[1])


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
