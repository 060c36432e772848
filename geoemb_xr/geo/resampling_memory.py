"""The order of a block in memory: source blocks as one window, pixels moved, and results laid as the array lies.

Kernels that mix take vectors that lie band-last. What only moves pixels leaves bands where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np

from geoemb_xr.core import buffers, kernels
from geoemb_xr.geo import placing_kernels
from geoemb_xr.geo.lattice import UNITS, Window

#: Bytes of a result that are laid band-first at once: what a second-level cache holds beside the source.
_STRIP = 1 << 18
#: Bytes of decoded pixels that are kept: a part of a second-level cache.
_DECODED = 1 << 19
#: A source's part in a block: its number, the window it needs, the edges of its blocks there.
Part = tuple[int, tuple[Window, Window], tuple[int, ...], tuple[int, ...]]


def lay(
    blocks: Sequence[np.ndarray],
    window: tuple[Window, Window],
    row_edges: Sequence[int],
    col_edges: Sequence[int],
) -> np.ndarray:
    """Source blocks (others, bands, y, x) as one window (others, y, x, bands), C-contiguous."""
    (top, bottom), (left, right) = window
    queue = iter(blocks)
    out = None
    for r0, r1 in pairwise(row_edges):
        for c0, c1 in pairwise(col_edges):
            y0, y1, x0, x1 = max(r0, top), min(r1, bottom), max(c0, left), min(c1, right)
            cut = next(queue)[:, :, y0 - r0 : y1 - r0, x0 - c0 : x1 - c0]
            if len(blocks) == 1:
                return kernels.band_last(cut, 1)
            if out is None:
                out = buffers.empty((len(cut), bottom - top, right - left, cut.shape[1]), cut.dtype)
            kernels.copy_band_last(cut, 1, out[:, y0 - top : y1 - top, x0 - left : x1 - left])
    assert out is not None
    return out


def for_decoded(window: np.ndarray, factors: np.ndarray, power: int | None) -> np.ndarray:
    """Memory (pixels, bands) in which a loop keeps decoded pixels: little of it for codes, the pixels of floats."""
    bands = window.shape[-1]
    if power is None:
        return window.reshape(-1, bands)
    places = 1 << max(_DECODED // (bands * factors.itemsize), 64).bit_length() - 1
    return np.empty((places, bands), factors.dtype)


def gather(
    blocks: Sequence[np.ndarray], part: Part, at: np.ndarray, fill: float, bands_last: bool
) -> np.ndarray:
    """Move the nearest pixels as they are.

    Parameters
    ----------
    blocks : sequence of ndarray (others, bands, y, x)
        Source blocks, north-up.
    part : Part
        Where they lie in the source.
    at : ndarray of int64 (2, rows, columns)
        Coordinates of all pixels, from the corner of the part's window.
    fill : float
        The value of pixels outside of the window.
    bands_last : bool
        Whether bands come last in the array.

    Returns
    -------
    ndarray (others, rows, columns, bands)
        Of other memory where bands come first.
    """
    _, window, *edges = part
    size = blocks[0].dtype.itemsize
    if bands_last or size > 8 or any(len(b[0]) > 1 and b.strides[1] == size for b in blocks):
        return _gather_vectors(lay(blocks, window, *edges), at, fill, bands_last)
    return _gather_planes(blocks, part, at, fill)


def _gather_planes(blocks: Sequence[np.ndarray], part: Part, at: np.ndarray, fill: float) -> np.ndarray:
    """Move the pixels of blocks that lie bands first, out of each block by itself and plane by plane."""
    _, ((top, bottom), (left, right)), *edges = part
    out = buffers.empty((*blocks[0].shape[:2], *at.shape[1:]), blocks[0].dtype)
    corners = product(*(each[:-1] for each in edges))
    for block, (r0, c0) in zip(blocks, corners, strict=True):
        turned = block.strides[2] < 0, block.strides[3] < 0
        own = block[:, :, :: -1 if turned[0] else 1, :: -1 if turned[1] else 1]
        if not own.flags.c_contiguous:  # a window of a larger array: what is needed of it
            own = block[:, :, max(top - r0, 0) : bottom - r0, max(left - c0, 0) : right - c0]
            own, turned, r0, c0 = np.ascontiguousarray(own), (False, False), max(r0, top), max(c0, left)
        placing_kernels.gather_planes(_planes(own), at, r0 - top, c0 - left, *turned, _planes(out))
    ends = np.array([bottom - top, right - left]) * UNITS
    if (at.min((1, 2)) < 0).any() or (at.max((1, 2)) >= ends).any():
        out[:, :, ((at < 0) | (at >= ends[:, None, None])).any(0)] = fill
    return np.moveaxis(out, 1, -1)


def _planes(block: np.ndarray) -> np.ndarray:
    """A C-contiguous block (others, bands, rows, columns) as planes of words, whatever they mean."""
    return block.view(f"u{block.dtype.itemsize}").reshape(-1, *block.shape[2:])


def _gather_vectors(pixels: np.ndarray, at: np.ndarray, fill: float, bands_last: bool) -> np.ndarray:
    """Move whole pixels, as the widest words that fit them."""
    size = pixels.shape[-1] * pixels.dtype.itemsize
    word = next(w for w in ("u8", "u4", "u2", "u1") if size % np.dtype(w).itemsize == 0)
    filled = np.full(pixels.shape[-1], fill, pixels.dtype)

    def move(i: int, rows: np.ndarray, out: np.ndarray) -> None:
        placing_kernels.gather(pixels[i].view(word), rows, filled.view(word), out.view(word))

    return fill_block(move, at, (len(pixels), pixels.shape[-1]), pixels.dtype, bands_last)


def fill_block(
    fill: Callable[[int, np.ndarray, np.ndarray], None],
    at: np.ndarray,
    counts: tuple[int, int],
    dtype: np.dtype[Any],
    bands_last: bool,
) -> np.ndarray:
    """Fill a block that lies in memory in the array's own order, so that blocks are put together by plain copies.

    Kernels write band-last. Unless the array's own order is that, they do so some rows at a time, and each strip is
    laid band-first while it is in the cache.

    Parameters
    ----------
    fill : callable
        Takes the number of a layer, coordinates of some rows, and where to write them, (rows, columns, bands).
    at : ndarray (2, rows, columns)
        Coordinates of all pixels.
    counts : (int, int)
        Number of layers, and of bands.
    dtype : dtype
        Data type of the result.
    bands_last : bool
        Whether bands come last in the array.

    Returns
    -------
    ndarray (layers, rows, columns, bands)
        Of other memory where bands come first.
    """
    (layers, bands), (_, rows, cols) = counts, at.shape
    if bands_last:
        out = buffers.empty((layers, rows, cols, bands), dtype)
        for i in range(layers):
            fill(i, at, out[i])
        return out
    out = buffers.empty((layers, bands, rows, cols), dtype)
    step = max(
        _STRIP // max(cols * bands * dtype.itemsize, 1) // 8 * 8, 8
    )  # rows of whole words of eight bytes
    if rows * cols % 8:
        step = max(rows, 1)
    strip = np.empty((min(step, rows), cols, bands), dtype)
    for first in range(0, rows, step):
        places = np.ascontiguousarray(at[:, first : first + step])
        own = strip[: places.shape[1]]
        for i in range(layers):
            fill(i, places, own)
            flat = out[i, :, first : first + step].reshape(bands, -1)
            kernels.copy_band_last(own.reshape(-1, bands), 0, flat)
    return np.moveaxis(out, 1, -1)
