"""Compiled loops for means of whole cells of pixels, bands first, with no footprints to find."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoemb_xr.core.kernels import jit, jit_exact
from geoemb_xr.geo.resampling_kernels import decoded_rows, decoded_value

#: Cells side by side whose sums are made together: those of 64 bands fit a second-level cache.
_CELLS = 128
#: Pixels side by side that are summed together at most: of large cells there are fewer.
_COLUMNS = 4096
#: Pixels a side of a cell whose signed squares certainly sum to 32 bits.
MOST_EXACT = 256


@jit_exact
def cell_means(values: Any, factors: Any, power: Any, size: Any, unit: Any, out: Any) -> None:
    """Means of ``size`` × ``size`` pixels of ``values`` (band, row, column); the last cells take what there is.

    ``factors`` (row, column) and ``power`` as in :func:`~geoemb_xr.geo.resampling_kernels.bilinear`. A row of a
    cell is summed in the type of the factors, rows are added in float64, and squares of bands four by four: the
    order of ``average`` there, too.
    """
    bands, height, width = values.shape
    _, rows, cols = out.shape
    zero = factors.dtype.type(0)
    most = max(min(_CELLS, _COLUMNS // size), 1)
    x, total = np.zeros(most * size, factors.dtype), np.empty((bands, most))
    weight, square, share = np.empty(most), np.empty((4, most)), np.empty(most)
    for i in range(rows):
        top, bottom = i * size, min((i + 1) * size, height)
        for start in range(0, cols, most):
            m, left = min(most, cols - start), start * size
            n = min(width - left, m * size)
            weight[:], square[:], x[n:] = 0, 0, 0
            for r in range(top, bottom):
                for c in range(n):
                    weight[c // size] += factors[r, left + c] != 0
            for b in range(bands):
                own = total[b]
                own[:] = 0
                for r in range(top, bottom):
                    stored, factor = values[b, r, left : left + n], factors[r, left : left + n]
                    for c in range(n):
                        value = decoded_value(stored[c], factor[c], power)
                        x[c] = value if factor[c] != 0 else zero
                    if size == 2:  # the compiler does two at a time well, any number badly
                        for j in range(m):
                            own[j] += x[2 * j] + x[2 * j + 1]
                    else:
                        for j in range(m):
                            row = x[j * size]
                            for c in range(j * size + 1, (j + 1) * size):
                                row += x[c]
                            own[j] += row
                lane = square[b % 4]
                for j in range(m):
                    lane[j] += own[j] * own[j]
            for j in range(m):
                length = np.sqrt((square[0, j] + square[1, j]) + (square[2, j] + square[3, j]))
                share[j] = 1 / (length if unit else weight[j]) if weight[j] > 0 else np.nan
            for b in range(bands):
                own, mean = total[b], out[b, i, start : start + m]
                for j in range(m):
                    mean[j] = own[j] * share[j]


@cell_means.in_numpy
def _cell_means_numpy(values: Any, factors: Any, power: Any, size: Any, unit: Any, out: Any) -> None:
    bands, _, width = values.shape
    rows, cols = out.shape[1:]
    for i in range(rows):  # row by row: what is decoded is as large as four of int8
        own = factors[i * size : (i + 1) * size]
        stored = values[:, i * size : (i + 1) * size].transpose(1, 2, 0)
        decoded = np.where(own[..., None] != 0, decoded_rows(stored, own, power), 0)
        padded = np.zeros((len(own), cols * size, bands), factors.dtype)
        padded[:, :width] = decoded
        total = np.zeros((cols, bands))
        for row in padded.reshape(len(own), cols, size, bands):
            total += np.add.reduce(row, axis=1, dtype=factors.dtype)
        weight = np.add.reduceat((own != 0).sum(axis=0), np.arange(0, width, size)).astype(np.float64)
        lanes = [np.add.reduce(total[:, k::4] ** 2, axis=1) for k in range(4)]
        length = np.sqrt((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(weight > 0, 1 / (length if unit else weight), np.nan)
        out[:, i] = (total * share[:, None]).T


@jit
def square_cell_means(codes: Any, nodata: Any, size: Any, unit: Any, by: Any, out: Any) -> None:
    """What :func:`cell_means` does, of signed squares with one factor ``by``: whole numbers, summed exactly.

    A vector is missing where a band is ``nodata``, the least code. ``size`` is at most ``MOST_EXACT``.
    """
    bands, height, width = codes.shape
    _, rows, cols = out.shape
    most, nothing = max(min(_CELLS, _COLUMNS // size), 1), np.int16(0)
    wide = most * size
    least, there = np.empty(wide, np.int8), np.empty((size, wide), np.int16)
    x, total = np.zeros(wide, np.int16), np.empty((bands, most), np.int32)
    weight, square, share = np.empty(most), np.empty((4, most)), np.empty(most)
    pairs, columns = x.view(np.int32), np.empty(wide, np.int32)
    for i in range(rows):
        top, bottom = i * size, min((i + 1) * size, height)
        for start in range(0, cols, most):
            m, left = min(most, cols - start), start * size
            n = min(width - left, m * size)
            weight[:], square[:], x[n:], there[bottom - top :] = 0, 0, 0, 0
            for r in range(top, bottom):
                least[:] = 0
                for b in range(bands):
                    stored = codes[b, r, left : left + n]
                    for c in range(n):
                        least[c] = min(least[c], stored[c])
                own = there[r - top]
                for c in range(n):
                    own[c] = nothing if least[c] == nodata else np.int16(-1)
                own[n:] = 0
                for j in range(m):
                    for c in range(j * size, (j + 1) * size):
                        weight[j] -= own[c]
            for b in range(bands):
                sums = total[b]
                if size == 2:  # two squares fit 16 bits; a row below the last one has no weight
                    upper, lower = codes[b, top, left : left + n], codes[b, bottom - 1, left : left + n]
                    above, below = there[0], there[1]
                    for c in range(n):
                        p, q = np.int16(upper[c]), np.int16(lower[c])
                        x[c] = np.int16((np.int16(p * abs(p)) & above[c]) + (np.int16(q * abs(q)) & below[c]))
                    for j in range(m):
                        sums[j] = (pairs[j] >> 16) + np.int32(np.int16(pairs[j]))
                else:
                    columns[:] = 0
                    for r in range(top, bottom):
                        stored, own = codes[b, r, left : left + n], there[r - top]
                        for c in range(n):
                            q = np.int16(stored[c])
                            columns[c] += np.int32(np.int16(np.int16(q * abs(q)) & own[c]))
                    sums[:] = 0
                    for k in range(size):
                        for j in range(m):
                            sums[j] += columns[j * size + k]
                lane = square[b % 4]
                for j in range(m):
                    number = np.float64(sums[j])
                    lane[j] += number * number
            for j in range(m):
                length = np.sqrt((square[0, j] + square[1, j]) + (square[2, j] + square[3, j]))
                share[j] = (1 / length if unit else by / weight[j]) if weight[j] > 0 else np.nan
            for b in range(bands):
                sums, mean = total[b], out[b, i, start : start + m]
                for j in range(m):
                    mean[j] = np.float64(sums[j]) * share[j]


@square_cell_means.in_numpy
def _square_cell_means_numpy(codes: Any, nodata: Any, size: Any, unit: Any, by: Any, out: Any) -> None:
    values = codes.astype(np.float64)  # in which the sums are whole numbers, too
    values *= np.abs(values)
    factors = np.where((codes == nodata).any(axis=0), 0.0, 1.0)
    _cell_means_numpy(values, factors, None, size, unit, out)
    if not unit:
        out *= np.float32(by)
