"""Areas given as polygons: their way into a grid's CRS, and the share of each pixel that they cover.

Which pixels a polygon touches, or whose centres it holds, is found by halving: a box wholly inside or outside is
settled at once, so that only pixels along its edge are looked at one by one. The share that it covers is found in
:mod:`~geoemb_xr.geo.covering`.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyproj
import shapely
from affine import Affine

from geoemb_xr.core import areas, geometry, longitudes
from geoemb_xr.core.errors import CoverageError
from geoemb_xr.geo.covering import Outlines

Rule = Literal["centre", "touched", "exact"]
#: Boxes of up to this many pixels are judged pixel by pixel.
_LEAF = 256
#: Edges are densified before they are projected: 5 km bend by less than a metre.
_SEGMENT_METRES = 5_000.0


def valid(shapes: np.ndarray) -> np.ndarray:
    """Polygons whose rings do not cross; None stays None."""
    wrong = ~shapely.is_valid(shapes)
    mended = shapes.copy()
    mended[wrong] = shapely.make_valid(shapes[wrong])
    return mended


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


def covered_shares(
    shape: Any, ys: np.ndarray, xs: np.ndarray, size: tuple[float, float], rule: Rule
) -> np.ndarray:
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
    >>> covered_shares(shapely.box(0, 0, 1.25, 1), rows, columns, (1.0, 1.0), "exact").tolist()
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


def _shares(shape: Any, ys: np.ndarray, xs: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """The share of each pixel's area that a polygon covers."""
    shares = np.zeros((ys.size, xs.size))
    if shares.size:
        (y, down), (x, right) = (_axis(centres, s) for centres, s in zip((ys, xs), size, strict=True))
        grid = Affine(right, 0, x, 0, down, y)
        for piece in Outlines.of(np.array([shape], dtype=object), grid, shares.shape).pieces():
            row, column = piece.pixels()
            shares[row, column] = piece.weights
    return shares


def _axis(centres: np.ndarray, size: float) -> tuple[float, float]:
    """The outer edge of the first of evenly spaced pixels, and the step to the next."""
    step = size if centres[-1] >= centres[0] else -size
    return centres[0] - step / 2, step
