"""How much of each pixel polygons cover: many polygons at once, in windows of some thousand pixels.

The share that a polygon covers comes from its edges: each adds the area to its right, and what edges on the way
down add, edges on the way up take off again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geoemb_xr.core import kernels
from geoemb_xr.core.geometry import GRID_TOLERANCE

if TYPE_CHECKING:
    from affine import Affine

#: Pixels of the windows that are worked on at a time: vectors of half of them fit a second-level cache.
CELLS = 8192
#: The same where no vectors are made, only shares: as many as a block has, within what memory they may take.
MANY_CELLS = 1 << 17
#: Rows that are worked on at a time: what the memory next to a pixel holds is soon used as well.
STRIP = 32
#: Shares nearer than this to nothing, or to the whole pixel, are what rounding left over.
_ROUNDING = 1e-9
#: Of those, what is more than this is the share of a polygon that runs along the pixel's edge, just inside it.
_SLIVER = 1e-12


@dataclass(frozen=True)
class Outlines:
    """Edges of polygons on a grid.

    Parameters
    ----------
    edges : ndarray of float64 (edge, 4)
        Column and row where an edge begins, and where it ends, in pixels from the grid's outer corner. What lies to
        the right of an edge that runs down is inside, and of one that runs up outside.
    first : ndarray of int (zone + 1,)
        Where the edges of each polygon begin.
    bounds : ndarray of int (zone, 4)
        First and last row and column, the last exclusive, of what each may cover; empty where it covers nothing.
    """

    edges: np.ndarray
    first: np.ndarray
    bounds: np.ndarray

    @classmethod
    def of(cls, shapes: np.ndarray, affine: Affine, shape: tuple[int, int]) -> Outlines:
        """Outlines of polygons in a grid's CRS; one that is None has none.

        Parameters
        ----------
        shapes : ndarray of polygons or None (zone,)
            Rings may run in either direction.
        affine : Affine
            From columns and rows to coordinates, not rotated.
        shape : (int, int)
            Rows and columns of the grid.
        """
        parts, part_zone = shapes, np.arange(len(shapes))
        for _ in range(2):  # a mended polygon may be several and a line
            if (shapely.get_type_id(parts) > shapely.GeometryType.POLYGON).any():
                parts, of = shapely.get_parts(parts, return_index=True)
                part_zone = part_zone[of]
        rings, ring_part = shapely.get_rings(parts, return_index=True)
        corners, ring = shapely.get_coordinates(rings, return_index=True)
        column = (corners[:, 0] - affine.c) / affine.a
        row = (corners[:, 1] - affine.f) / affine.e
        within = np.flatnonzero(ring[1:] == ring[:-1])  # a step from a ring to the next is not an edge
        edges = np.stack([column[within], row[within], column[within + 1], row[within + 1]], axis=1)
        is_hole = np.concatenate(([False], ring_part[1:] == ring_part[:-1]))[
            : len(rings)
        ]  # all but the first
        wrong = _turns_left(edges, ring[within], len(rings)) != is_hole
        flipped = wrong[ring[within]]
        edges[flipped] = edges[flipped][:, [2, 3, 0, 1]]
        zone = part_zone[ring_part[ring[within]]] if len(within) else np.empty(0, np.int64)
        first = np.searchsorted(zone, np.arange(len(shapes) + 1))
        return cls(edges, first, _bounds(edges, first, shape))

    def within(self, zones: np.ndarray, window: tuple[int, int, int, int]) -> Outlines:
        """Some of them, with those edges alone that something in a window (first and last row and column) needs."""
        number = np.diff(self.first)[zones]
        zone, edge = kernels.runs(self.first[zones], number)
        edges = self.edges[edge]
        top, bottom, left, right = window
        low, high = np.minimum(edges[:, 1], edges[:, 3]), np.maximum(edges[:, 1], edges[:, 3])
        kept = (low < bottom) & (high > top) & (np.minimum(edges[:, 0], edges[:, 2]) < right)
        bounds = self.bounds[zones]
        low_bounds, high_bounds = np.array([top, top, left, left]), np.array([bottom, bottom, right, right])
        first = np.searchsorted(zone[kept], np.arange(len(zones) + 1))
        return Outlines(edges[kept], first, np.clip(bounds, low_bounds, high_bounds))

    def pieces(self, size: int = CELLS, *, touched: bool = False) -> Iterator[CoveredPixels]:
        """What they cover, in windows of about ``size`` pixels altogether at a time.

        With ``touched`` come also pixels that an edge passes or runs along, with a share of 0 where the polygon
        covers next to nothing of them.
        """
        windows = self._windows(size)
        cells = np.cumsum((windows[:, 2] - windows[:, 1]) * (windows[:, 4] - windows[:, 3] + 1))
        groups = np.flatnonzero(np.diff(cells // size)) + 1
        for start, stop in pairwise([0, *groups.tolist(), len(windows)]):
            if start < stop:
                yield self._cover(windows[start:stop], touched)

    def _windows(self, size: int) -> np.ndarray:
        """Zone, rows and columns of windows in strips of rows, none of more than ``size`` pixels: (window, 5).

        They are in the order of their first rows, and of those with the same from left to right.
        """
        top, bottom, left, right = self.bounds.T
        strip, width = top // STRIP, np.clip(right - left, 1, size // STRIP)
        down, across = -(-bottom // STRIP) - strip, -((left - right) // width)
        zone, number = kernels.runs(np.zeros(len(top), np.int64), np.where(bottom > top, down * across, 0))
        i, j = np.divmod(number, across[zone])
        y, x = (strip[zone] + i) * STRIP, left[zone] + j * width[zone]
        ends = np.minimum(y + STRIP, bottom[zone]), np.minimum(x + width[zone], right[zone])
        windows = np.stack([zone, np.maximum(y, top[zone]), ends[0], x, ends[1]], axis=1)
        return windows[np.lexsort((x, windows[:, 1]))]

    def _cover(self, windows: np.ndarray, touched: bool) -> CoveredPixels:
        cells = int(((windows[:, 2] - windows[:, 1]) * (windows[:, 4] - windows[:, 3] + 1)).sum())
        runs, weights = np.empty((cells, 3), np.int64), np.empty(cells)
        ends = np.zeros((len(windows) + 1, 2), np.int64)
        cover(self.edges, self.first, windows, touched, runs, weights, ends)
        # contiguous, since numba compiles each order in memory anew
        return CoveredPixels(
            windows, runs[: ends[-1, 0]], weights[: ends[-1, 1]], np.ascontiguousarray(ends[:, 1])
        )


@dataclass(frozen=True)
class CoveredPixels:
    """Pixels that polygons cover.

    Parameters
    ----------
    windows : ndarray of int (window, 5)
        Which polygon each window is of, of which one may have several; and its first and last row and column, the
        last exclusive.
    runs : ndarray of int (run, 3)
        Row and first column on the grid, and number of pixels, of those that follow each other.
    weights : ndarray of float64 (pixel,)
        The share of each pixel, run by run, that its polygon covers.
    ends : ndarray of int (window + 1,)
        Where the pixels of each window begin and end.
    """

    windows: np.ndarray
    runs: np.ndarray
    weights: np.ndarray
    ends: np.ndarray

    def from_origin(self, top: int, left: int) -> CoveredPixels:
        """The same pixels, their rows and columns counted from a block's first ones."""
        windows, runs = self.windows - (0, top, top, left, left), self.runs - (top, left, 0)
        return replace(self, windows=windows, runs=runs)

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of each pixel on the grid."""
        run, column = kernels.runs(self.runs[:, 1], self.runs[:, 2])
        return self.runs[run, 0], column


def _turns_left(edges: np.ndarray, ring: np.ndarray, rings: int) -> np.ndarray:
    """Whether each ring encloses a positive area, by the order of columns and rows."""
    first = np.searchsorted(ring, np.arange(rings))
    middle = edges[np.minimum(first, max(len(edges) - 1, 0))][ring, :2] if len(edges) else np.empty((0, 2))
    u, v = edges[:, :2] - middle, edges[:, 2:] - middle
    return np.asarray(np.bincount(ring, u[:, 0] * v[:, 1] - v[:, 0] * u[:, 1], rings) > 0)


def _bounds(edges: np.ndarray, first: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Rows and columns of a grid that each polygon reaches, (zone, 4)."""
    bounds = np.zeros((len(first) - 1, 4), np.int64)
    some = np.flatnonzero(np.diff(first))
    if some.size:
        for axis, size in enumerate(shape):
            column = 1 - axis
            low = np.minimum.reduceat(np.minimum(edges[:, column], edges[:, column + 2]), first[some])
            high = np.maximum.reduceat(np.maximum(edges[:, column], edges[:, column + 2]), first[some])
            is_off = (high <= GRID_TOLERANCE) | (low >= size - GRID_TOLERANCE)
            bounds[some, 2 * axis] = np.clip(np.floor(low), 0, size)
            bounds[some, 2 * axis + 1] = np.where(
                is_off, bounds[some, 2 * axis], np.clip(np.ceil(high), 0, size)
            )
    bounds[(bounds[:, 0] >= bounds[:, 1]) | (bounds[:, 2] >= bounds[:, 3])] = 0
    return bounds


@kernels.jit_exact
def cover(edges: Any, first: Any, windows: Any, touched: Any, runs: Any, weights: Any, ends: Any) -> None:
    """Find the pixels of windows that polygons cover, and their shares; ``ends`` counts runs and pixels."""
    run, pixel, most = 0, 0, 0
    for k in range(len(windows)):
        most = max(most, (windows[k, 2] - windows[k, 1]) * (windows[k, 4] - windows[k, 3] + 1))
    memory = np.empty(most)
    for k in range(len(windows)):
        zone, top, bottom, left, right = windows[k]
        added = memory[: (bottom - top) * (right - left + 1)].reshape(bottom - top, right - left + 1)
        added[:] = 0
        for i in range(first[zone], first[zone + 1]):
            x0, y0, x1, y1 = edges[i]
            _add_edge(x0 - left, y0 - top, x1 - left, y1 - top, added)
        for r in range(bottom - top):
            share, last = 0.0, -2
            for c in range(right - left):
                share += added[r, c]
                if share < _ROUNDING and not (touched and (share > _SLIVER or added[r, c] != 0)):
                    continue
                if last != c - 1:
                    runs[run, 0], runs[run, 1], runs[run, 2] = top + r, left + c, 0
                    run += 1
                runs[run - 1, 2] += 1
                weights[pixel] = 0.0 if share < _ROUNDING else 1.0 if share > 1 - _ROUNDING else share
                pixel += 1
                last = c
        ends[k + 1, 0], ends[k + 1, 1] = run, pixel


@cover.in_numpy
def _cover_numpy(
    edges: Any, first: Any, windows: Any, touched: Any, runs: Any, weights: Any, ends: Any
) -> None:
    for k, (zone, top, bottom, left, right) in enumerate(windows.tolist()):
        added = np.zeros((bottom - top, right - left + 1))
        x0, y0, x1, y1 = edges[first[zone] : first[zone + 1]].T
        _add_edges(x0 - left, y0 - top, x1 - left, y1 - top, added)
        share = np.cumsum(added[:, :-1], axis=1)
        passed = (share > _SLIVER) | (added[:, :-1] != 0)
        share[share > 1 - _ROUNDING] = 1
        share[share < _ROUNDING] = 0
        row, column = np.nonzero(passed if touched else share)
        starts = np.flatnonzero(np.diff(row, prepend=-1) | (np.diff(column, prepend=-1) != 1))
        lengths = np.diff(starts, append=len(row))
        run, pixel = ends[k]
        ends[k + 1] = run + len(starts), pixel + len(row)
        runs[run : run + len(starts)] = np.stack([row[starts] + top, column[starts] + left, lengths], axis=1)
        weights[pixel : pixel + len(row)] = share[row, column]


def _add_edges(x0: Any, y0: Any, x1: Any, y1: Any, added: Any) -> None:
    """What :func:`_add_edge` adds, of many edges: first cut into rows, then into pixels."""
    low, high = np.minimum(y0, y1), np.maximum(y0, y1)
    first, last = (np.clip(v, 0, len(added)).astype(np.int64) for v in (np.floor(low), np.ceil(high)))
    number = np.where(low < high, last - first, 0)
    edge, r = kernels.runs(first, number)
    x0, y0, x1, y1 = x0[edge], y0[edge], x1[edge], y1[edge]
    top, bottom = np.maximum(low[edge], r), np.minimum(high[edge], r + 1)
    slope = (x1 - x0) / (y1 - y0)
    least, most = np.minimum(x0, x1), np.maximum(x0, x1)
    one, other = (np.clip(x0 + (v - y0) * slope, least, most) for v in (top, bottom))
    height = np.where(y1 > y0, 1.0, -1.0) * (bottom - top)
    _add_spans(np.minimum(one, other), np.maximum(one, other), height, r, added)


def _add_spans(left: Any, right: Any, height: Any, r: Any, added: Any) -> None:
    """What :func:`_add_span` adds, of many edges, each within its row ``r``."""
    columns = added.shape[1] - 1
    wide = right > left
    steep = np.where(wide, height / np.where(wide, right - left, 1.0), 0.0)
    before = np.where(right <= 0, height, np.where(left < 0, steep * -left, 0.0))
    np.add.at(added[:, 0], r, before)
    left = np.clip(left, 0.0, columns)
    first = left.astype(np.int64)
    last = np.minimum(np.maximum(np.ceil(right), first + 1), columns).astype(np.int64)
    span, c = kernels.runs(first, np.where(right > 0, np.maximum(last - first, 0), 0))
    start, stop = np.maximum(left[span], c), np.minimum(right[span], c + 1)
    part = np.where(wide[span], steep[span] * (stop - start), height[span])
    beside = (start + stop) / 2 - c
    np.add.at(added, (r[span], c), part * (1 - beside))
    np.add.at(added, (r[span], c + 1), part * beside)


@kernels.jit_exact
def _add_edge(x0: Any, y0: Any, x1: Any, y1: Any, added: Any) -> None:
    """Add the area to the right of an edge, row by row: positive on the way down, negative on the way up."""
    if y0 == y1:
        return
    sign = 1.0
    if y1 < y0:
        x0, y0, x1, y1, sign = x1, y1, x0, y0, -1.0
    if y1 <= 0 or y0 >= added.shape[0]:
        return
    slope = (x1 - x0) / (y1 - y0)
    least, most = min(x0, x1), max(x0, x1)
    # within the window before they are integers: edges may end anywhere, also where no integer is large enough
    first, last = int(np.floor(max(y0, 0.0))), int(np.ceil(min(y1, np.float64(added.shape[0]))))
    for r in range(first, last):
        top, bottom = max(y0, np.float64(r)), min(y1, np.float64(r + 1))
        one = min(max(x0 + (top - y0) * slope, least), most)
        other = min(max(x0 + (bottom - y0) * slope, least), most)
        _add_span(min(one, other), max(one, other), sign * (bottom - top), added[r])


@kernels.jit_exact
def _add_span(left: Any, right: Any, height: Any, added: Any) -> None:
    """Add what lies right of an edge from ``left`` to ``right`` that falls by ``height`` within one row."""
    columns = len(added) - 1
    if left >= columns:
        return
    if right <= 0:  # all of the row lies right of it
        added[0] += height
        return
    steep = height / (right - left) if right > left else 0.0
    if left < 0:
        added[0] += steep * -left
        left = 0.0
    c = np.int64(left)
    while c < columns and (c < right or c == left):
        start, stop = max(left, np.float64(c)), min(right, np.float64(c + 1))
        part = steep * (stop - start) if right > left else height
        beside = (start + stop) / 2 - c  # of the pixel, the share left of the edge
        added[c] += part * (1 - beside)
        added[c + 1] += part * beside
        c += 1
