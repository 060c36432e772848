"""Areas given as polygons: their way into a grid's CRS, and the share of each pixel that they cover.

Which pixels a polygon touches, or whose centres it holds, is found by halving: a box wholly inside or outside is
settled at once, so that only pixels along its edge are looked at one by one. The share that it covers comes from
its edges: each adds the area to its right, and what edges on the way down add, edges on the way up take off again.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyproj
import shapely

from geoemb_xr.core import areas, geometry, kernels, longitudes
from geoemb_xr.core.errors import CoverageError

Rule = Literal["centre", "touched", "exact"]
#: Boxes of up to this many pixels are judged pixel by pixel.
_LEAF = 256
#: Edges are densified before they are projected: 5 km bend by less than a metre.
_SEGMENT_METRES = 5_000.0
#: Shares nearer than this to nothing, or to the whole pixel, are what rounding left over.
_ROUNDING = 1e-9


def valid(shapes: np.ndarray) -> np.ndarray:
    """Polygons whose rings do not cross; None stays None."""
    return np.where(shapely.is_valid(shapes), shapes, shapely.make_valid(shapes))


def projected(shapes: np.ndarray, source: pyproj.CRS, target: pyproj.CRS) -> np.ndarray:
    """Polygons in another CRS, their edges densified first; None stays None.

    Raises
    ------
    CoverageError
        If one cannot be reached in that CRS.
    """
    if geometry.same_crs(source, target):
        return shapes
    to_target = geometry.transformer(source, target)
    unit = source.axis_info[0].unit_conversion_factor if source.axis_info else 1.0
    longest = 0.05 if source.is_geographic else _SEGMENT_METRES / unit
    moved = shapely.transform(
        shapely.segmentize(shapes, longest),
        lambda xy: np.column_stack(to_target.transform(xy[:, 0], xy[:, 1], errcheck=False)),
    )
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise CoverageError(f"a polygon cannot be reached in {geometry.crs_name(target)}")
    return (
        np.asarray(longitudes.in_one_piece(moved), dtype=object)
        if target.is_geographic
        else np.asarray(moved, dtype=object)
    )


def union(shapes: np.ndarray) -> Any:
    """All polygons as one."""
    return shapes[0] if len(shapes) == 1 else shapely.union_all(shapes)


def cut_at_180(shapes: np.ndarray) -> np.ndarray:
    """Polygons in degrees that run on past ±180 as two parts within it, as GeoJSON and GIS want them."""
    shapes = np.array(shapes, dtype=object)
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    world = shapely.box(-180, -90, 180, 90)
    for index in np.flatnonzero((bounds[:, 0] < -180) | (bounds[:, 2] > 180)):
        turned = [
            shapely.transform(shapes[index], lambda xy, by=by: np.add(xy, (by, 0.0))) for by in (0, 360, -360)
        ]
        shapes[index] = shapely.union_all(shapely.intersection(turned, world))
    return shapes


def each_around_the_world(shapes: np.ndarray, bounds: areas.Bounds) -> np.ndarray:
    """Each polygon as :func:`around_the_world`; None stays None."""
    turned = np.empty(len(shapes), dtype=object)
    turned[:] = [None if each is None else around_the_world(each, bounds) for each in shapes]
    return turned


def boxes_of(shapes: Any) -> np.ndarray:
    """The box around each part of polygons, (n, 4)."""
    return np.asarray(shapely.bounds(shapely.get_parts(shapes)))


def around_the_world(shape: Any, bounds: areas.Bounds) -> Any:
    """A polygon in degrees, with the copies a turn away that reach into bounds past 180 degrees."""
    if bounds[0] >= -180 and bounds[2] <= 180 and shape.bounds[0] >= -180 and shape.bounds[2] <= 180:
        return shape
    box = shapely.box(*bounds)
    turned = (
        shapely.transform(shape, lambda xy, by=by: np.add(xy, (by, 0.0))) for by in (0.0, 360.0, -360.0)
    )
    parts = [each for each in turned if shapely.intersects(each, box)]
    return shapely.union_all(parts) if parts else shape


def coverage(shape: Any, ys: np.ndarray, xs: np.ndarray, size: tuple[float, float], rule: Rule) -> np.ndarray:
    """Share of each pixel that a polygon covers.

    Parameters
    ----------
    shape : polygon
        A polygon in the pixels' CRS.
    ys, xs : ndarray (h,), (w,)
        Centres of pixels, evenly spaced, in either direction.
    size : (float, float)
        Height and width of a pixel, positive.
    rule : {"centre", "touched", "exact"}
        1 where the centre is inside (an edge belongs to both sides), 1 where any of the pixel is, or the
        share of the pixel's area that is.

    Returns
    -------
    ndarray of float64 (h, w)

    Examples
    --------
    >>> import shapely
    >>> rows, columns = np.array([1.5, 0.5]), np.array([0.5, 1.5])
    >>> coverage(shapely.box(0, 0, 1.25, 1), rows, columns, (1.0, 1.0), "exact").tolist()
    [[0.0, 0.0], [1.0, 0.25]]
    """
    if rule == "exact":
        return _shares(shape, ys, xs, size)
    out = np.zeros((ys.size, xs.size))
    if out.size:
        shape = shapely.from_wkb(shapely.to_wkb(shape))  # of this thread: what is prepared must not be shared
        shapely.prepare(shape)
        _cover(shape, ys, xs, size, rule, out)
    return out


def _cover(
    shape: Any, ys: np.ndarray, xs: np.ndarray, size: tuple[float, float], rule: str, out: np.ndarray
) -> None:
    """Fill ``out``: at once where the box of all pixels is inside or outside, else by halves."""
    half_y, half_x = size[0] / 2, size[1] / 2
    west, east = min(xs[0], xs[-1]) - half_x, max(xs[0], xs[-1]) + half_x
    south, north = min(ys[0], ys[-1]) - half_y, max(ys[0], ys[-1]) + half_y
    box = shapely.box(west, south, east, north)
    if not shapely.intersects(shape, box):
        return
    if shapely.covers(shape, box):
        out[:] = 1
    elif out.size <= _LEAF:
        x, y = np.meshgrid(xs, ys)
        if rule == "centre":
            out[:] = shapely.intersects_xy(shape, x, y)
            return
        boxes = shapely.box(x - half_x, y - half_y, x + half_x, y + half_y)
        out[:] = shapely.intersects(shape, boxes) & ~shapely.touches(shape, boxes)
    elif ys.size >= xs.size:
        middle = ys.size // 2
        _cover(shape, ys[:middle], xs, size, rule, out[:middle])
        _cover(shape, ys[middle:], xs, size, rule, out[middle:])
    else:
        middle = xs.size // 2
        _cover(shape, ys, xs[:middle], size, rule, out[:, :middle])
        _cover(shape, ys, xs[middle:], size, rule, out[:, middle:])


def reach(centres: np.ndarray, size: float, low: float, high: float) -> slice:
    """Which of evenly spaced pixels along an axis reach into an interval."""
    if not centres.size:
        return slice(0, 0)
    step = size if centres[-1] >= centres[0] else -size
    ends = sorted(((low - centres[0]) / step + 0.5, (high - centres[0]) / step + 0.5))
    low, high = (min(max(float(end), 0.0), centres.size) for end in ends)
    return slice(math.floor(low), math.ceil(high))


def _shares(shape: Any, ys: np.ndarray, xs: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """The share of each pixel's area that a polygon covers."""
    added = np.zeros((ys.size, xs.size + 1))
    for part in shapely.get_parts(shape) if ys.size and xs.size else ():
        rings = shapely.get_rings(part)  # the outer one first; lines that making it valid left over have none
        corners, number = shapely.get_coordinates(rings, return_index=True)
        starts = np.searchsorted(number, np.arange(len(rings) + 1))
        _add_rings(
            _positions(corners[:, 0], xs, size[1]), _positions(corners[:, 1], ys, size[0]), starts, added
        )
    share = np.cumsum(added[:, :-1], axis=1)
    share[share < _ROUNDING] = 0
    share[share > 1 - _ROUNDING] = 1
    return share


def _positions(values: np.ndarray, centres: np.ndarray, size: float) -> np.ndarray:
    """Coordinates in pixels from the outer edge of the first one."""
    step = size if centres[-1] >= centres[0] else -size
    return np.asarray((values - centres[0]) / step + 0.5)


@kernels.jit_exact
def _add_rings(column: Any, row: Any, starts: Any, added: Any) -> None:
    """Add to each pixel how much more of it is covered than of its left neighbour; one column is to spare."""
    for ring in range(len(starts) - 1):
        start, stop = starts[ring], starts[ring + 1]
        turned = 0.0  # twice the area within, of either sign
        for i in range(start, stop - 1):
            x, y = column[i] - column[start], row[i] - row[start]
            turned += x * (row[i + 1] - row[start]) - (column[i + 1] - column[start]) * y
        sign = -1.0 if (turned > 0) == (ring == 0) else 1.0  # all but the first are holes
        for i in range(start, stop - 1):
            _add_edge(column[i], row[i], column[i + 1], row[i + 1], sign, added)


@_add_rings.in_numpy
def _add_rings_numpy(column: Any, row: Any, starts: Any, added: Any) -> None:
    for ring, (start, stop) in enumerate(pairwise(starts.tolist())):
        x, y = column[start:stop], row[start:stop]
        if len(x) < 2:
            continue
        u, v = x - x[0], y - y[0]
        turned = (u[:-1] * v[1:] - u[1:] * v[:-1]).sum()
        sign = -1.0 if (turned > 0) == (ring == 0) else 1.0
        _add_edges(x[:-1], y[:-1], x[1:], y[1:], sign, added)


def _add_edges(x0: Any, y0: Any, x1: Any, y1: Any, sign: float, added: Any) -> None:
    """What :func:`_add_edge` adds, of many edges: first cut into rows, then into pixels."""
    low, high = np.minimum(y0, y1), np.maximum(y0, y1)
    first, last = (v.astype(np.int64) for v in (np.maximum(np.floor(low), 0), np.ceil(high)))
    number = np.where(low < high, np.maximum(np.minimum(last, len(added)) - first, 0), 0)
    edge, r = kernels.runs(first, number)
    x0, y0, x1, y1 = x0[edge], y0[edge], x1[edge], y1[edge]
    top, bottom = np.maximum(low[edge], r), np.minimum(high[edge], r + 1)
    slope = (x1 - x0) / (y1 - y0)
    least, most = np.minimum(x0, x1), np.maximum(x0, x1)
    one, other = (np.clip(x0 + (v - y0) * slope, least, most) for v in (top, bottom))
    height = np.where(y1 > y0, sign, -sign) * (bottom - top)
    _add_spans(np.minimum(one, other), np.maximum(one, other), height, r, added)


def _add_spans(left: Any, right: Any, height: Any, r: Any, added: Any) -> None:
    """What :func:`_add_span` adds, of many edges, each within its row ``r``."""
    columns = added.shape[1] - 1
    wide = right > left
    steep = np.where(wide, height / np.where(wide, right - left, 1.0), 0.0)
    before = np.where(right <= 0, height, np.where(left < 0, steep * -left, 0.0))
    np.add.at(added[:, 0], r, before)
    left = np.maximum(left, 0.0)
    first = left.astype(np.int64)
    last = np.minimum(np.maximum(np.ceil(right), first + 1), columns).astype(np.int64)
    span, c = kernels.runs(first, np.where(right > 0, np.maximum(last - first, 0), 0))
    start, stop = np.maximum(left[span], c), np.minimum(right[span], c + 1)
    part = np.where(wide[span], steep[span] * (stop - start), height[span])
    beside = (start + stop) / 2 - c
    np.add.at(added, (r[span], c), part * (1 - beside))
    np.add.at(added, (r[span], c + 1), part * beside)


@kernels.jit_exact
def _add_edge(x0: Any, y0: Any, x1: Any, y1: Any, sign: Any, added: Any) -> None:
    """Add the area to the right of an edge, row by row: positive on the way down, negative on the way up."""
    if y0 == y1:
        return
    if y1 < y0:
        x0, y0, x1, y1, sign = x1, y1, x0, y0, -sign
    slope = (x1 - x0) / (y1 - y0)
    least, most = min(x0, x1), max(x0, x1)
    for r in range(max(int(np.floor(y0)), 0), min(int(np.ceil(y1)), added.shape[0])):
        top, bottom = max(y0, np.float64(r)), min(y1, np.float64(r + 1))
        one = min(max(x0 + (top - y0) * slope, least), most)
        other = min(max(x0 + (bottom - y0) * slope, least), most)
        _add_span(min(one, other), max(one, other), sign * (bottom - top), added[r])


@kernels.jit_exact
def _add_span(left: Any, right: Any, height: Any, added: Any) -> None:
    """Add what lies right of an edge from ``left`` to ``right`` that falls by ``height`` within one row."""
    columns = len(added) - 1
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
