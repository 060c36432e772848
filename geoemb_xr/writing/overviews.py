"""Overviews of a raster, every level from base pixels: the means of means would weigh pixels unevenly.

Each function takes a block ``(layer, y, x)`` whose upper left corner lies on a cell of the coarsest level, and
returns one block per level, halved each time and rounded up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from geoemb_xr.core.arrays import unit_length
from geoemb_xr.core.model import Codec

Pyramid = Callable[[np.ndarray, int], list[np.ndarray]]

#: Values that a mean holds as float64 at a time: 16 MB.
_MEAN_VALUES = 2_000_000


def halved(size: int, level: int) -> int:
    """Length of an axis ``level`` halvings up, rounded up as GDAL does."""
    return -(-size // (1 << level))


def middle_pixels(block: np.ndarray, levels: int) -> list[np.ndarray]:
    """The pixel at each cell's middle."""
    out = []
    for k in range(1, levels + 1):
        rows, cols = (_middles(size, 2**k) for size in block.shape[1:])
        out.append(block[:, rows[:, None], cols])
    return out


def _middles(size: int, factor: int) -> np.ndarray:
    return np.minimum(np.arange(0, size, factor) + factor // 2, size - 1)


def commonest_class(block: np.ndarray, levels: int, nodata: int = 0) -> list[np.ndarray]:
    """The commonest class of each cell; ``nodata`` has no vote, the lower code wins a tie."""
    size = block.shape[1:]
    shapes = [(len(block), halved(size[0], k), halved(size[1], k)) for k in range(1, levels + 1)]
    best = [np.full(shape, nodata, block.dtype) for shape in shapes]
    votes = [np.zeros(shape, np.uint32) for shape in shapes]
    for value in np.unique(block[block != nodata]):
        count = (block == value).astype(np.uint32)
        for winner, most in zip(best, votes, strict=True):
            count = _sum_pairs(count)
            more = count > most
            winner[more] = value
            most[more] = count[more]
    return best


@dataclass(frozen=True)
class Mean:
    """The mean of the base pixels that have data, summed in float64.

    Parameters
    ----------
    codec : Codec, optional
        Codec of codes: means are taken of decoded vectors and encoded again.
    vectors : bool
        Whether a pixel is missing as a whole; else each layer has gaps of its own.
    unit_norm : bool
        Whether a mean vector is brought to unit length.
    """

    codec: Codec | None = None
    vectors: bool = False
    unit_norm: bool = False

    def __call__(self, block: np.ndarray, levels: int) -> list[np.ndarray]:
        """Means of a block, level by level."""
        dtype = block.dtype
        shapes = [(len(block), *(halved(n, k) for n in block.shape[1:])) for k in range(1, levels + 1)]
        out = [np.empty(shape, dtype) for shape in shapes]
        side = 2**levels
        while len(block) * (2 * side) ** 2 <= _MEAN_VALUES:
            side *= 2
        for r in range(0, block.shape[1], side):
            for c in range(0, block.shape[2], side):
                parts = self._cells(block[:, r : r + side, c : c + side], levels)
                for k, part in enumerate(parts, 1):
                    top, left = r >> k, c >> k
                    out[k - 1][:, top : top + part.shape[1], left : left + part.shape[2]] = part
        return out

    def _cells(self, block: np.ndarray, levels: int) -> list[np.ndarray]:
        dtype = block.dtype
        values = self.codec.decode(np.ascontiguousarray(block), None, 0) if self.codec else block
        missing = np.isnan(values[:1] if self.vectors else values)
        total = np.where(missing, 0, values).astype(np.float64)
        count = (~missing).astype(np.float64)
        out = []
        for _ in range(levels):
            total, count = _sum_pairs(total), _sum_pairs(count)
            mean = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(values.dtype)
            mean = unit_length(mean, 0) if self.unit_norm else mean
            out.append((self.codec.encode(mean, 0)[0] if self.codec else mean).astype(dtype, copy=False))
        return out


def _sum_pairs(block: np.ndarray) -> np.ndarray:
    """Sums of 2 × 2 pixels; beyond an odd edge there is nothing to add."""
    rows, cols = block.shape[1] % 2, block.shape[2] % 2
    if rows or cols:
        block = np.pad(block, ((0, 0), (0, rows), (0, cols)))
    pairs = block[:, 0::2] + block[:, 1::2]
    summed: np.ndarray = pairs[:, :, 0::2] + pairs[:, :, 1::2]
    return summed
