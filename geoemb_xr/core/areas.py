"""Areas: boxes and polygons in a CRS, and the windows of a grid that they cover."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyproj
from affine import Affine

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
from geoemb_xr.core import html, longitudes
from geoemb_xr.core.geometry import (
    GRID_TOLERANCE,
    LONLAT,
    METRES_PER_DEGREE,
    _same_crs,
    as_crs,
    check_geobox,
    crs_name,
    make_geobox,
    transformer,
)
from geoemb_xr.core.notes import say

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Area:
    """A box on the ground, in a CRS; in degrees it may cross the antimeridian (west > east).

    Parameters
    ----------
    west, south, east, north : float
        Numbers in units of ``crs``.
    crs : pyproj.CRS
        CRS of the numbers.
    """

    west: float
    south: float
    east: float
    north: float
    crs: pyproj.CRS

    @property
    def bounds(self) -> Bounds:
        """West, south, east, north."""
        return self.west, self.south, self.east, self.north

    @property
    def parts(self) -> list[Bounds]:
        """The box as one or two boxes that do not cross the antimeridian."""
        if not self.crs.is_geographic or self.west <= self.east:
            return [self.bounds]
        return [(self.west, self.south, 180.0, self.north), (-180.0, self.south, self.east, self.north)]

    def bounds_in(self, crs: object) -> list[Bounds]:
        """Bounds of its parts in another CRS, with densified edges; parts that cannot be projected are left out."""
        target = as_crs(crs)
        found = (project_bounds(part, self.crs, target) for part in self.parts)
        return [bounds for bounds in found if bounds is not None]

    def lonlat(self) -> list[Bounds]:
        """Its parts in degrees, none crossing the antimeridian."""
        boxes: list[Bounds] = []
        for west, south, east, north in self.bounds_in(LONLAT):
            boxes += Area(west, south, east, north, as_crs(LONLAT)).parts
        return boxes

    def __str__(self) -> str:
        numbers = ", ".join(map(html.human_number, self.bounds))
        return f"({numbers}) in {crs_name(self.crs)}"


def parse_bbox(bbox: Sequence[float], crs: object = LONLAT) -> Area:
    """Check a bounding box ``(west, south, east, north)``.

    In degrees west > east crosses the antimeridian, and so does what runs on past 180 (179 … 181).

    Raises
    ------
    ValueError
        For anything but four finite numbers, south >= north, degrees outside the world, or a box with west > east
        that is wider than 180 degrees (which is most often a swapped west and east).
    """
    try:
        west, south, east, north = (float(value) for value in bbox)
    except (TypeError, ValueError):
        what = "; an area goes into geopolygon=" if hasattr(bbox, "geom_type") or hasattr(bbox, "crs") else ""
        raise ValueError(f"bbox is (west, south, east, north), four numbers; got {bbox!r}{what}") from None
    parsed = as_crs(crs)
    given = f"({west:g}, {south:g}, {east:g}, {north:g})"
    if not all(math.isfinite(value) for value in (west, south, east, north)):
        raise ValueError(f"bbox has a number that is not finite: {given}")
    if south >= north:
        raise ValueError(f"bbox has south >= north: {given}; the order is (west, south, east, north)")
    if parsed.is_geographic:
        if south < -90 or north > 90 or max(abs(west), abs(east)) > 360:
            raise ValueError(
                f"bbox {given} is outside the world (-180…180, -90…90 degrees); "
                "numbers in metres need their CRS (bbox_crs= of gx.open, crs= elsewhere); the order is "
                "(west, south, east, north)"
            )
        width = float(longitudes.width(west, east))
        if west > east and width > 180:
            raise ValueError(
                f"bbox {given} is {width:g} degrees wide, more than 180, since west > east crosses the "
                f"antimeridian: if that was not meant, swap them; else write it from {west - 360:g} to {east:g}"
            )
        if 180 < width < 360:
            say(
                f"bbox {given} is {width:g} degrees wide; what lies on its other side, across the antimeridian, is "
                f"({east:g}, {south:g}, {west:g}, {north:g})"
            )
    if west == east or (west > east and not parsed.is_geographic):
        raise ValueError(f"bbox has west >= east: {given}; the order is (west, south, east, north)")
    if parsed.is_geographic and max(abs(west), abs(east)) > 180:
        west, east = longitudes.around(west, east)
    return Area(west, south, east, north, parsed)


def area_around(boxes: np.ndarray, crs: pyproj.CRS) -> Area:
    """The smallest box around several ``(west, south, east, north)``, an array (n, 4).

    In degrees it crosses the antimeridian where it is smaller for it.
    """
    west, east = float(boxes[:, 0].min()), float(boxes[:, 2].max())
    if crs.is_geographic:
        west, east = longitudes.around(boxes[:, 0], boxes[:, 2])
    return Area(west, float(boxes[:, 1].min()), east, float(boxes[:, 3].max()), crs)


def area_of(geobox: GeoBox) -> Area:
    """The ground a GeoBox covers."""
    check_geobox(geobox)
    box = geobox.boundingbox
    return Area(box.left, box.bottom, box.right, box.top, as_crs(geobox.crs))


def covers(grid: GeoBox) -> str:
    """The coverage of a grid in words, for messages."""
    area = area_of(grid)
    degrees = area.bounds_in(LONLAT)
    text = f"covers {area}"
    if degrees and not area.crs.is_geographic:
        text += f", lon/lat ({', '.join(f'{v:.4f}' for v in degrees[0])})"
    return text


def project_bounds(bounds: Bounds, src: object, dst: object, *, densify: int = 41) -> Bounds | None:
    """Bounds in another CRS, with densified edges; None if no part can be projected."""
    source, target = as_crs(src), as_crs(dst)
    if _same_crs(source, target):
        return bounds
    if not target.is_geographic:
        clipped = _clip_to_use(bounds, source, target)
        if clipped is None:
            return None
        bounds = clipped
    try:
        # back along the way that a warp to the target takes: to find another one takes 0.1 s
        way = transformer(target, source)
        found = way.transform_bounds(*bounds, densify_pts=densify, back=True)
    except pyproj.exceptions.ProjError:
        return None
    west, south, east, north = (float(value) for value in found)
    return (west, south, east, north) if all(map(math.isfinite, found)) else None


def _clip_to_use(bounds: Bounds, source: pyproj.CRS, target: pyproj.CRS) -> Bounds | None:
    """Cut a box in degrees to half a hemisphere around the target's centre: beyond it UTM folds back."""
    use = target.area_of_use
    if not source.is_geographic or use is None or use.west > use.east or use.east - use.west > 60:
        return bounds
    west, south, east, north = bounds
    west, east = max(west, use.west - 30), min(east, use.east + 30)
    if west >= east:
        # The same meridians, written a turn away: a box at 179 and a zone at -180.
        turn = 360.0 if bounds[2] < use.west else -360.0
        west, east = max(bounds[0] + turn, use.west - 30), min(bounds[2] + turn, use.east + 30)
    return (west, south, east, north) if west < east else None


def window_of(geobox: GeoBox, bounds: Bounds) -> tuple[slice, slice] | None:
    """Rows and columns of a grid that a box in its CRS touches, rounded outwards; None without overlap.

    Parameters
    ----------
    geobox : GeoBox
        Any orientation; not rotated.
    bounds : tuple of float
        West, south, east, north in the grid's CRS.
    """
    inverse = ~geobox.affine
    (c0, r0), (c1, r1) = inverse * (bounds[0], bounds[1]), inverse * (bounds[2], bounds[3])
    rows = _outwards(min(r0, r1), max(r0, r1), geobox.shape[0])
    cols = _outwards(min(c0, c1), max(c0, c1), geobox.shape[1])
    return (rows, cols) if rows is not None and cols is not None else None


def _outwards(low: float, high: float, size: int) -> slice | None:
    start = max(math.floor(low + GRID_TOLERANCE), 0)
    stop = min(math.ceil(high - GRID_TOLERANCE), size)
    return slice(start, stop) if start < stop else None


def snapped_geobox(area: Area, crs: object, resolution: float | tuple[float, float]) -> GeoBox:
    """The grid over an area with pixel edges at multiples of the resolution, so that neighbouring grids align.

    Parameters
    ----------
    area : Area
        Area to cover.
    crs : CRS
        CRS of the grid.
    resolution : float or (float, float)
        Pixel size in units of ``crs``, or (x, y).

    Raises
    ------
    ValueError
        If the resolution is not a positive number, or is metres taken for degrees.
    """
    target = as_crs(crs)
    dx, dy = check_resolution(resolution, target)
    parts = area.bounds_in(target)
    if not parts:
        raise ValueError(f"the area {area} cannot be reached in {crs_name(target)}")
    if target.is_geographic and len(parts) > 1 and parts[0][0] > parts[-1][2]:
        # Across the antimeridian x runs on past 180, in one piece.
        parts = [parts[0], *((w + 360, s, e + 360, n) for w, s, e, n in parts[1:])]
    west, south = min(p[0] for p in parts), min(p[1] for p in parts)
    east, north = max(p[2] for p in parts), max(p[3] for p in parts)
    if target.is_geographic and west > east:
        east += 360
    columns = (math.floor(west / dx + GRID_TOLERANCE), math.ceil(east / dx - GRID_TOLERANCE))
    rows = (math.floor(south / dy + GRID_TOLERANCE), math.ceil(north / dy - GRID_TOLERANCE))
    shape = (max(rows[1] - rows[0], 1), max(columns[1] - columns[0], 1))
    return make_geobox(shape, Affine(dx, 0, columns[0] * dx, 0, -dy, rows[1] * dy), target)


def check_resolution(resolution: float | tuple[float, float], crs: pyproj.CRS) -> tuple[float, float]:
    """Pixel size as ``(x, y)``, positive; refuses pixels of over ten degrees (metres taken for degrees)."""
    pair = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    try:
        dx, dy = (abs(float(value)) for value in pair)
    except (TypeError, ValueError):
        raise ValueError(f"resolution is a number or a pair (x, y); got {resolution!r}") from None
    if not (math.isfinite(dx) and math.isfinite(dy) and dx > 0 and dy > 0):
        raise ValueError(f"resolution must be positive; got {resolution!r}")
    if crs.is_geocentric or crs.is_vertical:
        raise ValueError(f"the CRS {crs_name(crs)} has no map; give a projected CRS, or one in degrees")
    if crs.is_geographic and max(dx, dy) >= 5:
        raise ValueError(
            f"resolution={resolution!r} in {crs_name(crs)} means {max(dx, dy):g} degrees per pixel; "
            f"give degrees ({max(dx, dy) / METRES_PER_DEGREE:.6g} is {max(dx, dy):g} m), or a CRS in metres"
        )
    return dx, dy


def resolution_in(crs: object, metres: float) -> float:
    """A ground distance in units of a CRS; in degrees along a meridian, wherever it is, so that all areas agree."""
    target = as_crs(crs)
    if target.is_geographic:
        return metres / METRES_PER_DEGREE
    factor = target.axis_info[0].unit_conversion_factor if target.axis_info else 1.0
    return metres / (factor or 1.0)


def union_bounds(boxes: Iterable[Bounds]) -> Bounds:
    """The box around several."""
    west, south, east, north = zip(*boxes, strict=True)
    return min(west), min(south), max(east), max(north)
