"""Compiled loops that gather the pixels that polygons cover, and add up their vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoemb_xr.core import kernels


def gathered(block: np.ndarray, runs: np.ndarray, pixels: int) -> np.ndarray:
    """Values ``(band, pixel)`` of runs of pixels, C-contiguous.

    Parameters
    ----------
    block : ndarray (band, y, x)
        Any strides; where the bands of a pixel lie side by side they are taken together.
    runs : ndarray of int (run, 3)
        Row and first column of each run in the block, and its length.
    pixels : int
        How many all runs have together.
    """
    if len(block) > 1 and block.strides[0] == block.dtype.itemsize:
        rows = np.empty((pixels, len(block)), block.dtype)
        gather_rows(np.moveaxis(block, 0, -1), runs, rows)
        return kernels.band_first(rows, 0)
    values = np.empty((len(block), pixels), block.dtype)
    gather_planes(block, runs, values)
    return values


def in_known_type(values: np.ndarray) -> np.ndarray:
    """Values of a type that compiled loops take: in this machine's order of bytes, and no floats of 16 bits."""
    known = np.dtype(np.float32) if values.dtype.itemsize == 2 and values.dtype.kind == "f" else values.dtype
    return values.astype(known.newbyteorder("="), copy=False)


@kernels.jit
def gather_planes(block: Any, runs: Any, values: Any) -> None:
    """Take runs of pixels from a block (band, y, x)."""
    for b in range(len(block)):
        at = 0
        for run in range(len(runs)):
            row, column, length = runs[run]
            taken, into = block[b, row, column : column + length], values[b, at : at + length]
            for j in range(length):
                into[j] = taken[j]
            at += length


@gather_planes.in_numpy
def _gather_planes_numpy(block: Any, runs: Any, values: Any) -> None:
    run, column = kernels.runs(runs[:, 1], runs[:, 2])
    values[...] = block[:, runs[run, 0], column]


@kernels.jit
def gather_rows(block: Any, runs: Any, values: Any) -> None:
    """Take runs of pixels from a block (y, x, band), whose bands lie side by side."""
    at = 0
    for run in range(len(runs)):
        row, column, length = runs[run]
        for j in range(length):
            for b in range(block.shape[2]):
                values[at + j, b] = block[row, column + j, b]
        at += length


@gather_rows.in_numpy
def _gather_rows_numpy(block: Any, runs: Any, values: Any) -> None:
    run, column = kernels.runs(runs[:, 1], runs[:, 2])
    values[...] = block[runs[run, 0], column]


@kernels.jit
def settle(vectors: Any, weights: Any, ends: Any, rows: Any, total: Any) -> None:
    """Set vectors ``(band, pixel)`` that are not finite to zero, and their weights; add up those of the others."""
    bands, pixels = vectors.shape
    lost = np.zeros(pixels, vectors.dtype)
    for b in range(bands):
        row = vectors[b]
        for j in range(pixels):
            lost[j] += row[j] * 0
    is_any = False
    for j in range(pixels):
        is_any |= lost[j] != 0  # NaN is not 0 either
    if is_any:
        for j in range(pixels):
            weights[j] = weights[j] if lost[j] == 0 else 0
        for b in range(bands):
            row = vectors[b]
            for j in range(pixels):
                row[j] = row[j] if lost[j] == 0 else 0
    _add_weights(weights, ends, rows, total)


@settle.in_numpy
def _settle_numpy(vectors: Any, weights: Any, ends: Any, rows: Any, total: Any) -> None:
    lost = ~np.isfinite(vectors).all(axis=0)
    weights[lost] = 0
    vectors[:, lost] = 0
    np.add.at(total, np.repeat(rows, np.diff(ends)), weights)


@kernels.jit
def _add_weights(weights: Any, ends: Any, rows: Any, total: Any) -> None:
    for k in range(len(rows)):
        own = 0.0
        for j in range(ends[k], ends[k + 1]):
            own += weights[j]
        total[rows[k]] += own


@kernels.jit
def add_powers(vectors: Any, power: Any, weights: Any, ends: Any, rows: Any, sums: Any) -> None:
    """Add vectors ``(band, pixel)``, or their squares, by weight to sums: consecutive pixels to a row each."""
    for k in range(len(rows)):
        own = weights[ends[k] : ends[k + 1]]
        for b in range(len(vectors)):
            row = vectors[b, ends[k] : ends[k + 1]]
            added = 0.0
            if power == 1:
                for j in range(len(own)):
                    added += own[j] * np.float64(row[j])
            else:
                for j in range(len(own)):
                    added += own[j] * np.float64(row[j]) * np.float64(row[j])
            sums[rows[k], b] += added


@add_powers.in_numpy
def _add_powers_numpy(vectors: Any, power: Any, weights: Any, ends: Any, rows: Any, sums: Any) -> None:
    np.add.at(sums, np.repeat(rows, np.diff(ends)), (vectors.astype(np.float64) ** power * weights).T)


@kernels.jit_exact
def widen(vectors: Any, weights: Any, ends: Any, rows: Any, extremes: Any) -> None:
    """Widen extremes of rows, minus the minimum and the maximum, by vectors ``(band, pixel)`` with a weight."""
    for b in range(len(vectors)):
        for k in range(len(rows)):
            least, most = np.inf, -np.inf
            for j in range(ends[k], ends[k + 1]):
                value = np.float64(vectors[b, j])
                least = value if value < least and weights[j] > 0 else least
                most = value if value > most and weights[j] > 0 else most
            own = extremes[rows[k]]
            own[0, b], own[1, b] = max(own[0, b], -least), max(own[1, b], most)


@widen.in_numpy
def _widen_numpy(vectors: Any, weights: Any, ends: Any, rows: Any, extremes: Any) -> None:
    kept = weights > 0
    values = vectors.T[kept]
    np.maximum.at(extremes, np.repeat(rows, np.diff(ends))[kept], np.stack([-values, values], axis=1))


@kernels.jit
def add_squares(
    block: Any,
    factor: Any,
    windows: Any,
    runs: Any,
    ends: Any,
    weights: Any,
    rows: Any,
    total: Any,
    sums: Any,
) -> None:
    """Add weights, and ``factor`` · q · |q| by weight for codes q of signed squares, of a block ``(band, y, x)``.

    Windows side by side are worked on together, so that loops run along the rows of the block. Pixels that count
    whole, which most do, are added as whole numbers.

    Parameters
    ----------
    block : ndarray of int8 (band, y, x)
        A pixel with -128 in a band is missing.
    factor : float64
        What the squares are multiplied by.
    windows : ndarray of int (window, 4)
        First and last row, and first and last column, in the block, the last exclusive; in order of first rows.
    runs : ndarray of int (run, 3)
        Row and first column in the block of pixels that follow each other, and how many they are.
    ends : ndarray of int (window + 1,)
        Where the pixels of each window begin and end.
    weights : ndarray of float64 (pixel,)
        What each pixel counts, run by run.
    rows : ndarray of int (window,)
        To which row of ``total`` and ``sums`` each window is added.
    """
    k = run = np.int64(0)  # of one type: parts are compiled for each, and the number 0 has one of its own
    while k < len(windows):
        last = _side_by_side(windows, k)
        own, to = windows[k:last], rows[k:last]
        top, bottom, left, right = own[0, 0], own[:, 1].max(), own[0, 2], own[-1, 3]
        shape = (bottom - top, right - left)
        whole = np.zeros(shape, np.int16)
        part, share, begun, run = _sorted_out(own, runs, run, ends[k : last + 1], weights, whole)
        _leave_out_missing(block, top, left, whole, part, share)
        found = np.empty((len(own), len(block)))
        _add_group(block, own, whole, part, share, begun, found)
        for i in range(len(own)):
            for r in range(bottom - top):
                counted = np.int32(0)
                for c in range(own[i, 2] - left, own[i, 3] - left):
                    counted -= whole[r, c]
                total[to[i]] += counted
            for j in range(begun[i], begun[i + 1]):
                total[to[i]] += share[j]
            for b in range(len(block)):
                sums[to[i], b] += found[i, b] * factor
        k = last


@add_squares.in_numpy
def _add_squares_numpy(
    block: Any,
    factor: Any,
    windows: Any,
    runs: Any,
    ends: Any,
    weights: Any,
    rows: Any,
    total: Any,
    sums: Any,
) -> None:
    run, column = kernels.runs(runs[:, 1], runs[:, 2])
    codes = block[:, runs[run, 0], column]
    there = (codes > -128).all(axis=0)
    row, codes = np.repeat(rows, np.diff(ends))[there], codes[:, there].astype(np.float64)
    np.add.at(total, row, weights[there])
    np.add.at(sums, row, (codes * np.abs(codes) * factor * weights[there]).T)


@kernels.jit
def _side_by_side(windows: Any, first: Any) -> Any:
    """The end of the windows from a first one on that share rows with it, and lie right of each other."""
    last = first + 1
    while (
        last < len(windows)
        and windows[last, 0] < windows[first, 1]
        and windows[last, 2] >= windows[last - 1, 3]
    ):
        last += 1
    return last


@kernels.jit
def _sorted_out(windows: Any, runs: Any, run: Any, ends: Any, weights: Any, whole: Any) -> Any:
    """Mark pixels that count whole by -1, all of whose bits are set, in ``whole`` (row, column); list the others.

    Returns row and column in the block of those that count in part, their weights, where those of each window
    begin, and the next run.
    """
    top, left = windows[0, 0], windows[0, 2]
    most = ends[-1] - ends[0]
    part, share, begun = np.empty((most, 2), np.uint32), np.empty(most), np.zeros(len(ends), np.int64)
    pixel, found = ends[0], 0
    for k in range(len(windows)):
        while pixel < ends[k + 1]:
            row, column, number = runs[run]
            for j in range(number):
                weight = weights[pixel + j]
                if weight == 1:
                    whole[row - top, column - left + j] = -1
                elif weight > 0:
                    part[found, 0], part[found, 1], share[found] = row, column + j, weight
                    found += 1
            pixel += number
            run += 1
        begun[k + 1] = found
    return part[:found], share[:found], begun, run


@kernels.jit
def _leave_out_missing(block: Any, top: Any, left: Any, whole: Any, part: Any, share: Any) -> None:
    """Take the weight of pixels that are missing, whose least code is -128."""
    height, width = whole.shape
    least = np.zeros((height, width), np.int8)
    for b in range(len(block)):
        for r in range(height):
            low, codes = least[r], block[b, top + r, left : left + width]
            for j in range(width):
                low[j] = min(low[j], codes[j])
    for r in range(height):
        low, own = least[r], whole[r]
        for j in range(width):
            own[j] = 0 if low[j] == -128 else own[j]
    for j in range(len(share)):
        share[j] = 0 if least[part[j, 0] - top, part[j, 1] - left] == -128 else share[j]


@kernels.jit
def _add_group(block: Any, windows: Any, whole: Any, part: Any, share: Any, begun: Any, found: Any) -> None:
    """Sums of q · |q| by weight in windows side by side, (window, band)."""
    top, left = windows[0, 0], windows[0, 2]
    added, codes = np.empty(whole.shape[1], np.int32), np.empty(len(part), np.int8)
    for b in range(len(block)):
        plane = block[b]
        _add_columns(plane, top, left, whole, added)
        for j in range(len(part)):  # side by side, or the loop over them takes one at a time
            codes[j] = plane[part[j, 0], part[j, 1]]
        for i in range(len(windows)):
            squares = 0.0
            columns = added[windows[i, 2] - left : windows[i, 3] - left]
            for j in range(len(columns)):
                squares += np.float64(columns[j])
            for j in range(begun[i], begun[i + 1]):
                code = np.int32(codes[j])
                squares += share[j] * np.float64(code * abs(code))
            found[i, b] = squares


@kernels.jit
def _add_columns(plane: Any, top: Any, left: Any, whole: Any, added: Any) -> None:
    """Sums of q · |q| down the columns of a window, of pixels that count whole.

    Rows are taken in pairs: two squares fit 16 bits, of which a processor adds twice as many at once.
    """
    added[:] = 0
    height, width = whole.shape
    for r in range(0, height - 1, 2):
        above, below = whole[r], whole[r + 1]
        upper, lower = plane[top + r, left : left + width], plane[top + r + 1, left : left + width]
        for j in range(width):
            p, q = np.int16(upper[j]), np.int16(lower[j])
            added[j] += np.int16((np.int16(p * abs(p)) & above[j]) + (np.int16(q * abs(q)) & below[j]))
    if height % 2:
        own, codes = whole[height - 1], plane[top + height - 1, left : left + width]
        for j in range(width):
            q = np.int16(codes[j])
            added[j] += np.int16(np.int16(q * abs(q)) & own[j])
