"""Compiled loops that gather the pixels that polygons cover, and add up their vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoemb_xr.core import kernels


def gathered(block: np.ndarray, runs: np.ndarray, origin: tuple[int, int], pixels: int) -> np.ndarray:
    """Values ``(band, pixel)`` of runs of pixels, C-contiguous.

    Parameters
    ----------
    block : ndarray (band, y, x)
        Any strides; where the bands of a pixel lie side by side they are taken together.
    runs : ndarray of int (run, 3)
        Row and first column of each run, and its length.
    origin : (int, int)
        Row and column where the block begins.
    pixels : int
        How many all runs have together.
    """
    if len(block) > 1 and block.strides[0] == block.dtype.itemsize:
        rows = np.empty((pixels, len(block)), block.dtype)
        gather_rows(np.moveaxis(block, 0, -1), runs, *origin, rows)
        return kernels.band_first(rows, 0)
    values = np.empty((len(block), pixels), block.dtype)
    gather_planes(block, runs, *origin, values)
    return values


def in_known_type(values: np.ndarray) -> np.ndarray:
    """Values of a type that compiled loops take: in this machine's order of bytes, and no floats of 16 bits."""
    known = np.dtype(np.float32) if values.dtype.itemsize == 2 and values.dtype.kind == "f" else values.dtype
    return values.astype(known.newbyteorder("="), copy=False)


@kernels.jit
def gather_planes(block: Any, runs: Any, top: Any, left: Any, values: Any) -> None:
    """Take runs of pixels from a block (band, y, x) that begins at a row and column."""
    for b in range(len(block)):
        at = 0
        for run in range(len(runs)):
            row, column, length = runs[run, 0] - top, runs[run, 1] - left, runs[run, 2]
            taken, into = block[b, row, column : column + length], values[b, at : at + length]
            for j in range(length):
                into[j] = taken[j]
            at += length


@gather_planes.in_numpy
def _gather_planes_numpy(block: Any, runs: Any, top: Any, left: Any, values: Any) -> None:
    run, column = kernels.runs(runs[:, 1] - left, runs[:, 2])
    values[...] = block[:, runs[run, 0] - top, column]


@kernels.jit
def gather_rows(block: Any, runs: Any, top: Any, left: Any, values: Any) -> None:
    """Take runs of pixels from a block (y, x, band), whose bands lie side by side."""
    at = 0
    for run in range(len(runs)):
        row, column, length = runs[run, 0] - top, runs[run, 1] - left, runs[run, 2]
        for j in range(length):
            for b in range(block.shape[2]):
                values[at + j, b] = block[row, column + j, b]
        at += length


@gather_rows.in_numpy
def _gather_rows_numpy(block: Any, runs: Any, top: Any, left: Any, values: Any) -> None:
    run, column = kernels.runs(runs[:, 1] - left, runs[:, 2])
    values[...] = block[runs[run, 0] - top, column]


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
def add_squares(codes: Any, factor: Any, weights: Any, ends: Any, rows: Any, total: Any, sums: Any) -> None:
    """Do what :func:`settle` and :func:`add_powers` do with vectors, with codes of signed squares.

    Squares of integers are rounded once, so that these are the values that decoding gives.
    """
    bands, pixels = codes.shape
    least = np.zeros(pixels, np.int8)
    for b in range(bands):
        row = codes[b]
        for j in range(pixels):
            least[j] = min(least[j], row[j])
    for j in range(pixels):
        weights[j] = weights[j] if least[j] != -128 else 0
    _add_weights(weights, ends, rows, total)
    for k in range(len(rows)):
        own = weights[ends[k] : ends[k + 1]]
        for b in range(bands):
            row = codes[b, ends[k] : ends[k + 1]]
            added = 0.0
            for j in range(len(own)):
                value = np.int32(row[j])
                added += own[j] * np.float64(np.float32(value * abs(value)) * factor)
            sums[rows[k], b] += added


@add_squares.in_numpy
def _add_squares_numpy(
    codes: Any, factor: Any, weights: Any, ends: Any, rows: Any, total: Any, sums: Any
) -> None:
    vectors = codes * np.abs(codes.astype(np.float32)) * factor
    vectors[:, (codes == -128).any(axis=0)] = np.nan
    _settle_numpy(vectors, weights, ends, rows, total)
    _add_powers_numpy(vectors, 1, weights, ends, rows, sums)
