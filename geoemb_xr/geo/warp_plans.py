"""Which blocks of the sources a block of a warp's result needs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import xarray as xr

from geoemb_xr.core.checks import is_count
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.geo import lattice
from geoemb_xr.geo.resampling import Warp
from geoemb_xr.geo.resampling_memory import Part

Chunks = int | tuple[int, int] | Mapping[Hashable, int] | None

#: Beyond this many source pixels a side, a mean is summed by squares of the source.
SUM_BEYOND = 64
#: Side of those squares, which lie at multiples of it, counted from the source's global origin.
SUM_SIDE = 512
#: Side of a block where the array has none of its own.
BLOCK = 512
#: A graph takes some 10 kB per block: this many would be 100 GB.
_MOST_BLOCKS = 10_000_000


@dataclass(frozen=True)
class WarpPlan:
    """Blocks of the result, blocks of the sources, and which of these each of those needs.

    Parameters
    ----------
    job : Warp
        The work of a block.
    rows, cols : ndarray of int
        Edges of the result's blocks.
    source_rows, source_cols : list of ndarray of int
        Edges of each source's blocks, north-up.
    windows : list of ndarray
        For each source: what each block of the result needs, from :func:`geoemb_xr.geo.lattice.reach`.
    """

    job: Warp
    rows: np.ndarray
    cols: np.ndarray
    source_rows: list[np.ndarray]
    source_cols: list[np.ndarray]
    windows: list[np.ndarray]

    @classmethod
    def of(cls, job: Warp, sources: Sequence[xr.DataArray], chunks: Chunks) -> WarpPlan:
        """A plan for arrays and the result's chunks."""
        sides = _sides(job, sources, chunks)
        rows, cols = (_edges(_regular(n, side)) for n, side in zip(job.target.shape, sides, strict=True))
        number = (len(rows) - 1) * (len(cols) - 1)
        if number > _MOST_BLOCKS:
            height, width = job.target.shape
            raise EmbeddingError(
                f"a grid of {height:,} × {width:,} pixels in {number:,} blocks is more than a graph can hold: take "
                "a coarser resolution (in units of the CRS), larger chunks, or a part of it"
            )
        source_rows, source_cols = [], []
        for each, (flip_y, flip_x) in zip(sources, job.flips, strict=True):
            y, x = _chunks_yx(each)
            source_rows.append(_edges(y[::-1] if flip_y else y))
            source_cols.append(_edges(x[::-1] if flip_x else x))
        windows = [lattice.reach(grid, job.target, rows, cols) for grid in job.sources]
        return cls(job, rows, cols, source_rows, source_cols, windows)

    @property
    def by_sums(self) -> bool:
        """Whether footprints are so large that they are summed by squares of the source."""
        return self.job.how == "average" and len(self.job.sources) == 1 and self.job.shrink() > SUM_BEYOND

    def block(self, i: int, j: int) -> tuple[lattice.Window, lattice.Window]:
        """Rows and columns of a block of the result."""
        return (int(self.rows[i]), int(self.rows[i + 1])), (int(self.cols[j]), int(self.cols[j + 1]))

    def parts(self, i: int, j: int) -> Iterator[tuple[Part, list[tuple[int, int]]]]:
        """Each source's part in a block, and the numbers of its blocks, as the source counts them."""
        for k, windows in enumerate(self.windows):
            (top, bottom), (left, right) = windows[i, j].tolist()
            if top < bottom:
                yield self._part(k, (top, bottom), (left, right))

    def squares(self, i: int, j: int) -> list[list[tuple[Part, list[tuple[int, int]]]]]:
        """The same for sums: rows of squares of the one source."""
        (top, bottom), (left, right) = self.windows[0][i, j].tolist()
        if top == bottom:
            return []
        right = min(right, left + self.job.sources[0].x.size)  # a sum takes each pixel of a turn once
        first_y, first_x = (units // lattice.UNITS for units in self.job.sources[0].origin)
        return [
            [self._part(0, rows, cols) for cols in _aligned(left, right, first_x)]
            for rows in _aligned(top, bottom, first_y)
        ]

    def _part(self, k: int, rows: lattice.Window, cols: lattice.Window) -> tuple[Part, list[tuple[int, int]]]:
        numbers_y, row_edges = _blocks_under(self.source_rows[k], *rows)
        numbers_x, col_edges = _blocks_under(self.source_cols[k], *cols)
        flip_y, flip_x = self.job.flips[k]
        height, width = len(self.source_rows[k]) - 1, len(self.source_cols[k]) - 1
        numbers = [
            (height - 1 - r if flip_y else r, width - 1 - c if flip_x else c)
            for r, c in product(numbers_y, numbers_x)
        ]
        return (k, (rows, cols), row_edges, col_edges), numbers


def _sides(job: Warp, sources: Sequence[xr.DataArray], chunks: Chunks) -> tuple[int, int]:
    """Height and width of the result's blocks: by default as many source pixels as the source's blocks."""
    if isinstance(chunks, Mapping):
        chunks = (chunks.get("y", BLOCK), chunks.get("x", BLOCK))
    if chunks is not None:
        pair = chunks if isinstance(chunks, tuple) else (chunks, chunks)
        sides = [n if n != -1 else size for n, size in zip(pair, job.target.shape, strict=True)]
        if not all(is_count(n) for n in sides):
            raise ValueError(
                f"chunks is the side of the result's blocks in pixels, or (y, x); got {chunks!r}"
            )
        return int(sides[0]), int(sides[1])
    shrink = max(job.shrink(), 1.0)
    least = 16 if job.how == "average" and len(sources) == 1 and shrink > SUM_BEYOND else 1
    y, x = _chunks_yx(sources[0]) if sources[0].chunks is not None else ((BLOCK,), (BLOCK,))
    height, width = (max(math.ceil(min(max(side), 2 * BLOCK) / shrink), least) for side in (y, x))
    return _even(job.target.shape[0], height), _even(job.target.shape[1], width)


def _even(size: int, side: int) -> int:
    """A side of blocks that leaves no sliver at the end: each block is a task, and reads a margin of its own."""
    whole, rest = divmod(size, side)
    if not whole or not 0 < rest <= side // 8:
        return side
    even = -(-size // whole)
    words = -(-even // 8) * 8  # rows of whole words of eight bytes
    return next((each for each in (words, even) if not 0 < size % each <= side // 8), side)


def _regular(size: int, side: int) -> tuple[int, ...]:
    return tuple(min(side, size - start) for start in range(0, size, side))


def _aligned(start: int, stop: int, first: int) -> list[lattice.Window]:
    """A window cut where global pixel numbers are multiples of the square."""
    cuts = range((first + start) // SUM_SIDE * SUM_SIDE + SUM_SIDE, first + stop, SUM_SIDE)
    return list(pairwise([start, *(cut - first for cut in cuts), stop]))


def _edges(chunks: Sequence[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(chunks))).astype(np.int64)


def _chunks_yx(array: xr.DataArray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if array.chunks is None:
        return (array.sizes["y"],), (array.sizes["x"],)
    return array.variable.chunksizes["y"], array.variable.chunksizes["x"]


def _blocks_under(edges: np.ndarray, start: int, stop: int) -> tuple[list[int], tuple[int, ...]]:
    """Blocks that a window touches and their edges; a window may run past the end, around the world."""
    size, count = int(edges[-1]), len(edges) - 1
    if stop <= size:
        low = int(edges.searchsorted(start, "right")) - 1
        high = int(edges.searchsorted(stop, "left"))
        return list(range(low, high)), tuple(edges[low : high + 1].tolist())
    if start >= size:
        blocks, block_edges = _blocks_under(edges, start - size, stop - size)
        return blocks, tuple(edge + size for edge in block_edges)
    ahead, ahead_edges = _blocks_under(edges, start, size)
    behind, behind_edges = _blocks_under(edges, 0, stop - size)
    return ahead + [b % count for b in behind], (*ahead_edges, *(e + size for e in behind_edges[1:]))
