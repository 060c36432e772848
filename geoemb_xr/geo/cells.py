"""Means of whole cells of pixels, what ``coarsen`` is: bands first, as blocks come, and with no footprints to find.

The same bits as :func:`geoemb_xr.geo.resampling_kernels.average` gives, which wants bands last and finds the share
of every pixel. Where a block cuts a cell, blocks are put together first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np

from geoemb_xr.core import buffers
from geoemb_xr.core.model import Codec
from geoemb_xr.geo.cell_kernels import MOST_EXACT, cell_means, square_cell_means
from geoemb_xr.geo.lattice import UNITS


def side(at: np.ndarray) -> int:
    """Source pixels along a side of the target pixels with these corners, 0 where they are not whole cells.

    ``at`` (2, rows + 1, columns + 1) is in 1/4096 of a source pixel.
    """
    y, x = at[0, :, 0], at[1, 0]
    step = int(y[1] - y[0])
    whole = step > 0 and not (step % UNITS or y[0] % UNITS or x[0] % UNITS)
    even = whole and (np.diff(y) == step).all() and (np.diff(x) == step).all()
    return step // UNITS if even and (at[0] == y[:, None]).all() and (at[1] == x).all() else 0


def means(
    blocks: Sequence[np.ndarray],
    scales: Sequence[np.ndarray] | None,
    codec: Codec | None,
    edges: tuple[Sequence[int], Sequence[int]],
    start: tuple[int, int],
    at: np.ndarray,
    unit: bool,
) -> np.ndarray | None:
    """Means (others, y, x, bands) of cells, of unit length if ``unit``, NaN where a cell has no valid pixel.

    Parameters
    ----------
    blocks, scales : sequence of ndarray (others, bands, y, x)
        Source blocks, north-up, and their scales, if codes have some.
    codec : Codec or None
        The codec of codes; None for floats.
    edges : (sequence of int, sequence of int)
        Where blocks begin and end, in rows and columns of the source.
    start : (int, int)
        The pixel of the source that ``at`` counts from.
    at : ndarray of int64
        Corners of target pixels as in :func:`side`.
    unit : bool
        Whether means are made unit length.

    Returns
    -------
    ndarray or None
        None where this is not the way: no whole cells or large ones, or bands that are last.
    """
    size = side(at)
    if not size or size > MOST_EXACT or any(_is_band_last(block) for block in blocks):
        return None
    shape = at.shape[1] - 1, at.shape[2] - 1
    corner = int(at[0, 0, 0]) // UNITS, int(at[1, 0, 0]) // UNITS
    cuts = [[edge - start[axis] for edge in edges[axis]] for axis in (0, 1)]
    along_y, along_x = (_spans(cuts[axis], corner[axis], shape[axis], size) for axis in (0, 1))
    if (along_y is None and len(cuts[0]) > 2) or (along_x is None and len(cuts[1]) > 2):
        ends = [
            (max(cuts[axis][0], corner[axis]), min(cuts[axis][-1], corner[axis] + shape[axis] * size))
            for axis in (0, 1)
        ]
        if any(start >= stop for start, stop in ends):  # cells beside the blocks
            return None
        blocks = [_joined(blocks, cuts, ends)]
        scales = None if scales is None else [_joined(scales, cuts, ends)]
        along_y, along_x = (_spans(ends[axis], corner[axis], shape[axis], size) for axis in (0, 1))
    if along_y is None or along_x is None:
        return None
    out = None
    for number, (rows, cols) in enumerate(product(along_y, along_x)):
        if rows is None or cols is None:
            continue
        (y, i), (x, j) = rows, cols
        for n, block in enumerate(blocks[number]):
            scale = None if scales is None else scales[number][n, 0, y, x]
            found = _means(np.ascontiguousarray(block[:, y, x]), scale, codec, size, unit)
            if found.shape[1:] == shape and len(blocks[number]) == 1:  # one block is all there is to it
                return np.moveaxis(found[None], 1, -1)
            if out is None:
                out = np.full((*blocks[0].shape[:2], *shape), np.nan, found.dtype)
            out[n, :, i, j] = found
    return None if out is None else np.moveaxis(out, 1, -1)


def _joined(
    blocks: Sequence[np.ndarray], cuts: Sequence[Sequence[int]], ends: Sequence[tuple[int, int]]
) -> np.ndarray:
    """What of blocks (others, bands, y, x) lies between the ends of rows and columns, in one piece."""
    (top, bottom), (left, right) = ends
    first = blocks[0]
    out = buffers.empty((*first.shape[:2], bottom - top, right - left), first.dtype)
    places = product(pairwise(cuts[0]), pairwise(cuts[1]))
    for block, ((r0, r1), (c0, c1)) in zip(blocks, places, strict=True):
        y0, y1, x0, x1 = max(r0, top), min(r1, bottom), max(c0, left), min(c1, right)
        if y0 < y1 and x0 < x1:
            part = block[:, :, y0 - r0 : y1 - r0, x0 - c0 : x1 - c0]
            out[:, :, y0 - top : y1 - top, x0 - left : x1 - left] = part
    return out


def _means(
    values: np.ndarray, scale: np.ndarray | None, codec: Codec | None, size: int, unit: bool
) -> np.ndarray:
    """Means of cells, (band, row, column), of one part of a block."""
    shape = (len(values), *(-(-n // size) for n in values.shape[1:]))
    if codec is not None and codec.power == 2:
        found = buffers.empty(shape, np.float32)
        square_cell_means(values, codec.nodata, size, unit, float(np.float32(codec.factor)), found)
        return found
    factors = _factors(values, scale, codec)
    found = buffers.empty(shape, factors.dtype)
    cell_means(values, factors, None if codec is None else codec.power, size, unit, found)
    return found


def _is_band_last(block: np.ndarray) -> bool:
    return block.shape[1] > 1 and abs(block.strides[1]) < abs(block.strides[3])


def _spans(edges: Sequence[int], low: int, count: int, size: int) -> list[tuple[slice, slice] | None] | None:
    """Which pixels of each block along an axis are which cells; None where a block cuts one."""
    found: list[tuple[slice, slice] | None] = []
    for first, last in pairwise(edges):
        begin, end = max(first, low), min(last, low + count * size)
        if begin >= end:
            found.append(None)
            continue
        if (begin - low) % size or ((end - low) % size and last != edges[-1]):
            return None
        cells = slice((begin - low) // size, -((low - end) // size))
        found.append((slice(begin - first, end - first), cells))
    return found


def _factors(values: np.ndarray, scale: np.ndarray | None, codec: Codec | None) -> np.ndarray:
    """What stored values are multiplied by, 0 where a pixel is missing."""
    if codec is None:
        return np.where(np.isnan(values[0]), 0, 1).astype(values.dtype)
    if scale is not None:
        return np.where(np.isfinite(scale), scale, 0).astype(np.float32)
    return np.where(values.min(axis=0) == codec.nodata, 0, np.float32(codec.factor)).astype(np.float32)
