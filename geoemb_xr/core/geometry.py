"""Where an array lies: its CRS and GeoBox, bounding boxes, the antimeridian, UTM zones.

A grid is odc-geo's :class:`~odc.geo.geobox.GeoBox`, as it is. Nothing is stored on an array but its pixel
centres and ``spatial_ref``: everything here is computed from those when asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import xarray as xr
from affine import Affine

from geoemb_xr.core.model import EmbeddingError

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

SPATIAL_REF = "spatial_ref"
LONLAT = "EPSG:4326"
#: Two grids are one where no corner is further apart than this, in pixels.
GRID_TOLERANCE = 1e-6
#: Points are rounded to this fraction of a pixel: an edge belongs to the higher index, whatever the rounding.
SUBPIXEL = 4096

Bounds = tuple[float, float, float, float]


# --- CRS ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _parse_crs(text: str) -> pyproj.CRS:
    return pyproj.CRS.from_user_input(text)


def as_crs(crs: object) -> pyproj.CRS:
    """Any way of writing a CRS (EPSG code, WKT, pyproj, odc-geo, rasterio) as a :class:`pyproj.CRS`."""
    if isinstance(crs, pyproj.CRS):
        return crs
    if isinstance(crs, int):
        return _parse_crs(f"EPSG:{crs}")
    text = crs if isinstance(crs, str) else getattr(crs, "to_wkt", lambda: None)()
    if not isinstance(text, str):
        raise ValueError(f"not a CRS: {crs!r}; give an EPSG code such as 'EPSG:3035', WKT, or a pyproj.CRS")
    try:
        return _parse_crs(text)
    except pyproj.exceptions.CRSError as error:
        raise ValueError(f"not a CRS: {crs!r} ({error})") from error


@lru_cache(maxsize=256)
def _same_crs(a: pyproj.CRS, b: pyproj.CRS) -> bool:
    return bool(a == b or a.equals(b, ignore_axis_order=True))


def same_crs(a: object, b: object) -> bool:
    """Whether two CRSs are one; the order of axes does not matter, since ours is always x, y."""
    return _same_crs(as_crs(a), as_crs(b))


@lru_cache(maxsize=256)
def transformer(src: pyproj.CRS, dst: pyproj.CRS) -> pyproj.Transformer:
    """A cached x, y transformer."""
    return pyproj.Transformer.from_crs(src, dst, always_xy=True)


def crs_name(crs: pyproj.CRS) -> str:
    """``EPSG:3035`` where the CRS has a code, else its name."""
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.name)


def crs_of(array: xr.DataArray | xr.Dataset) -> pyproj.CRS | None:
    """The CRS that ``spatial_ref`` states, or None."""
    ref = array.coords.get(SPATIAL_REF)
    if ref is None:
        return None
    text = ref.attrs.get("crs_wkt") or ref.attrs.get("spatial_ref")
    return as_crs(text) if text else None


def crs_coord(crs: object) -> xr.DataArray:
    """The scalar coordinate ``spatial_ref`` with the CF attributes of a CRS."""
    parsed = as_crs(crs)
    attrs = {key: value for key, value in parsed.to_cf().items() if isinstance(value, (str, int, float))}
    attrs["spatial_ref"] = attrs["crs_wkt"]  # where GDAL, odc-geo and rioxarray look
    return xr.DataArray(np.int32(parsed.to_epsg() or 0), attrs=attrs)


def utm_crs(zone: int, *, south: bool = False) -> pyproj.CRS:
    """The WGS 84 / UTM CRS of a zone."""
    if not 1 <= zone <= 60:
        raise ValueError(f"UTM zones are 1 to 60; got {zone}")
    return as_crs(f"EPSG:{(32700 if south else 32600) + zone}")


def utm_zone_of(lon: float) -> int:
    """The UTM zone of a longitude, without the exceptions of Norway and Svalbard."""
    return math.floor((lon + 180.0) / 6.0) % 60 + 1


# --- GeoBox -------------------------------------------------------------------------------------------------


def make_geobox(shape: tuple[int, int], affine: Affine, crs: object) -> GeoBox:
    """A GeoBox from ``(height, width)``, an affine and a CRS."""
    from odc.geo.geobox import GeoBox

    return GeoBox(shape, affine, as_crs(crs))


def upright(geobox: GeoBox) -> GeoBox:
    """The same pixels as a grid with 1-D x and y: a rotated or sheared one lies upright in a CRS turned with it.

    That CRS is derived from the grid's own by an affine transformation (EPSG method 9624), which PROJ follows
    exactly and WKT carries. Tiles turned alike share it.

    Parameters
    ----------
    geobox : GeoBox
        Any; one that is not rotated is returned as it is.

    Raises
    ------
    ValueError
        If it is rotated in degrees, or in a CRS from which none can be derived.

    Examples
    --------
    >>> turned = make_geobox((4, 5), Affine.rotation(30) * Affine.scale(10, -10), 32632)
    >>> upright(turned).affine.b
    0.0
    """
    affine = geobox.affine
    if not (affine.b or affine.d):
        return geobox
    crs = as_crs(geobox.crs)
    if crs.is_geographic or crs.type_name != "Projected CRS":
        raise ValueError(
            f"a grid may be rotated in a projected CRS, not in {crs_name(crs)}; warp it to a north-up grid first "
            "(gdalwarp)"
        )
    dx, dy = math.hypot(affine.a, affine.d), math.hypot(affine.b, affine.e)
    turn = ~Affine(affine.a / dx, -affine.b / dy, 0, affine.d / dx, -affine.e / dy, 0)
    turn = Affine(*(float(f"{value:.15g}") for value in turn[:6]))  # the digits that WKT has
    x, y = turn * (affine.c, affine.f)
    return make_geobox(tuple(geobox.shape), Affine(dx, 0, x, 0, -dy, y), _turned(crs, turn))


def _turned(crs: pyproj.CRS, turn: Affine) -> pyproj.CRS:
    """The CRS whose x and y are an affine function of another's."""
    base = crs.to_json_dict()
    use = {key: base.pop(key) for key in ("scope", "area", "bbox", "usages") if key in base}
    unit = base["coordinate_system"]["axis"][0]["unit"]
    axes = [
        {"name": name, "abbreviation": name[0], "direction": direction, "unit": unit}
        for name, direction in (("Easting", "east"), ("Northing", "north"))
    ]
    # Of a base WKT says no order of axes: PROJ takes x, y, unless it knows the CRS by code or name.
    for key in ("$schema", "id"):
        base.pop(key, None)
    base["name"] += " (x, y)"
    ones = {"type": "ScaleUnit", "name": "coefficient", "conversion_factor": 1}
    numbers = zip(("A0", "A1", "A2", "B0", "B1", "B2"), (8623, 8624, 8625, 8639, 8640, 8641), strict=True)
    values = (turn.c, turn.a, turn.b, turn.f, turn.d, turn.e)
    parameters = [
        {"name": name, "value": value, "unit": unit if name[1] == "0" else ones, "id": _epsg(code)}
        for (name, code), value in zip(numbers, values, strict=True)
    ]
    method = {"name": "Affine parametric transformation", "id": _epsg(9624)}
    turned = pyproj.CRS.from_json_dict(
        {
            "type": "DerivedProjectedCRS",
            "name": f"{crs.name}, turned",
            "base_crs": base,
            "conversion": {"name": "turn", "method": method, "parameters": parameters},
            "coordinate_system": {"subtype": "Cartesian", "axis": axes},
            **use,
        }
    )
    return as_crs(turned.to_wkt())


def _epsg(code: int) -> dict[str, Any]:
    return {"authority": "EPSG", "code": code}


def pixel_centres(origin: float, step: float, start: int, stop: int) -> np.ndarray:
    """Centres of pixels ``start`` to ``stop`` of an axis, counted from the whole grid.

    A window's centres are then bit for bit those of the whole: no joins are lost to rounding.
    """
    return origin + (np.arange(start, stop, dtype=np.float64) + 0.5) * step


def grid_coords(
    geobox: GeoBox, y: np.ndarray | None = None, x: np.ndarray | None = None
) -> dict[str, xr.DataArray]:
    """Coordinates ``y``, ``x`` and ``spatial_ref`` of a GeoBox; ``y`` and ``x`` may be given."""
    affine = geobox.affine
    if affine.b or affine.d:
        raise ValueError("a rotated grid has no 1-D x and y; give a north-up GeoBox, or a CRS")
    height, width = geobox.shape
    crs = as_crs(geobox.crs)
    if y is None:
        y = pixel_centres(affine.f, affine.e, 0, height)
    if x is None:
        x = pixel_centres(affine.c, affine.a, 0, width)
    attrs = _axis_attrs(crs)
    return {
        "y": xr.DataArray(y, dims="y", attrs=attrs["y"]),
        "x": xr.DataArray(x, dims="x", attrs=attrs["x"]),
        SPATIAL_REF: crs_coord(crs),
    }


def _axis_attrs(crs: pyproj.CRS) -> dict[str, dict[str, str]]:
    if crs.is_geographic:
        return {
            "y": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
            "x": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
        }
    unit = crs.axis_info[0].unit_name if crs.axis_info else "metre"
    return {
        axis: {"standard_name": f"projection_{axis}_coordinate", "units": unit, "axis": axis.upper()}
        for axis in ("y", "x")
    }


def geobox_of(array: xr.DataArray | xr.Dataset, what: str = "this") -> GeoBox:
    """The grid of an array, from its ``x``, ``y`` and ``spatial_ref``.

    Raises
    ------
    EmbeddingError
        If it has no regular grid or no CRS.
    """
    if "y" not in array.dims or "x" not in array.dims or "y" not in array.coords or "x" not in array.coords:
        raise EmbeddingError(
            f"{what} needs a raster: dims and coordinates 'y' and 'x'; got dims {tuple(array.dims)}. "
            "Points have no grid; patches on a regular grid become a raster with .emb.to_grid()."
        )
    crs = crs_of(array)
    if crs is None:
        raise EmbeddingError(
            f"{what} needs a CRS, but the array has no coordinate 'spatial_ref' with a CRS; "
            "give it one with gx.wrap(…, crs=…) or rioxarray's .rio.write_crs(…)."
        )
    ys, xs = array.coords["y"].values, array.coords["x"].values
    y0, dy = _axis(ys, "y", what)
    x0, dx = _axis(xs, "x", what)
    if dy is None and dx is None:
        raise EmbeddingError(
            f"{what} got one single pixel, from which no resolution can be told; "
            "keep at least two pixels, or use .emb.sample(points)."
        )
    # An axis of one pixel takes the other axis's size; rows of one pixel run north to south.
    dx = abs(dy) if dx is None and dy is not None else dx
    dy = -abs(dx) if dy is None and dx is not None else dy
    assert dx is not None
    assert dy is not None
    return make_geobox((ys.size, xs.size), Affine(dx, 0, x0 - dx / 2, 0, dy, y0 - dy / 2), crs)


def _axis(values: np.ndarray, name: str, what: str) -> tuple[float, float | None]:
    """First centre and step of an axis, None as the step where there is one value only."""
    if values.size == 0:
        raise EmbeddingError(f"{what} got an array with no pixels along {name!r}")
    first = float(values[0])
    if values.size == 1:
        return first, None
    step = (float(values[-1]) - first) / (values.size - 1)
    regular = pixel_centres(first - step / 2, step, 0, values.size)
    if step == 0 or not np.allclose(regular, values, rtol=0, atol=abs(step) * 1e-3):
        raise EmbeddingError(
            f"{what} needs evenly spaced coordinates; those along {name!r} are not. "
            "After a selection of single rows or columns, use .emb.sample(points) instead."
        )
    return first, step


def same_grid(a: GeoBox, b: GeoBox) -> bool:
    """Whether two GeoBoxes are one to 1e-6 pixel. Never compare them with ``==``."""
    if tuple(a.shape) != tuple(b.shape) or not same_crs(a.crs, b.crs):
        return False
    to_pixels = ~a.affine * b.affine
    height, width = a.shape
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    return all(
        abs(px - cx) <= GRID_TOLERANCE and abs(py - cy) <= GRID_TOLERANCE
        for (cx, cy) in corners
        for (px, py) in [to_pixels * (cx, cy)]
    )


def north_up(geobox: GeoBox) -> GeoBox:
    """The same pixels with y descending and x ascending."""
    if geobox.affine.e > 0:
        geobox = geobox.flipy()
    if geobox.affine.a < 0:
        geobox = geobox.flipx()
    return geobox


def is_north_up(array: xr.DataArray) -> bool:
    """Whether ``y`` descends; an axis of one pixel counts as descending."""
    ys = array.coords["y"].values
    return ys.size < 2 or bool(ys[0] > ys[-1])


def north_up_array(array: xr.DataArray) -> xr.DataArray:
    """The array with y descending and x ascending, as a view."""
    ys, xs = array.coords["y"].values, array.coords["x"].values
    if ys.size > 1 and ys[0] < ys[-1]:
        array = array.isel(y=slice(None, None, -1))
    if xs.size > 1 and xs[0] > xs[-1]:
        array = array.isel(x=slice(None, None, -1))
    return array


# --- boxes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Area:
    """A box on the ground, in a CRS; in degrees it may cross the antimeridian (west > east).

    Parameters
    ----------
    west, south, east, north : float
        In units of ``crs``.
    crs : pyproj.CRS
        Of the numbers.
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
        """Its parts' bounds in another CRS, edges densified; parts out of that CRS's reach are left out."""
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
        numbers = ", ".join(f"{value:g}" for value in self.bounds)
        return f"({numbers}) in {crs_name(self.crs)}"


def parse_bbox(bbox: Sequence[float], crs: object = LONLAT) -> Area:
    """Check a bounding box ``(west, south, east, north)``.

    In degrees west > east crosses the antimeridian.

    Raises
    ------
    ValueError
        For anything but four finite numbers, south >= north, degrees outside the world, or a box wider than
        180 degrees (which is most often a swapped west and east).
    """
    try:
        west, south, east, north = (float(value) for value in bbox)
    except (TypeError, ValueError):
        raise ValueError(f"bbox is (west, south, east, north), four numbers; got {bbox!r}") from None
    parsed = as_crs(crs)
    given = f"({west:g}, {south:g}, {east:g}, {north:g})"
    if not all(math.isfinite(value) for value in (west, south, east, north)):
        raise ValueError(f"bbox has a number that is not finite: {given}")
    if south >= north:
        raise ValueError(f"bbox has south >= north: {given}; the order is (west, south, east, north)")
    if parsed.is_geographic:
        if south < -90 or north > 90 or max(abs(west), abs(east)) > 180:
            raise ValueError(
                f"bbox {given} is outside the world (-180…180, -90…90 degrees); "
                "numbers in metres need bbox_crs='EPSG:…', and the order is (west, south, east, north)"
            )
        width = (east - west) % 360 or (360.0 if west != east else 0.0)
        if width > 180:
            raise ValueError(
                f"bbox {given} is {width:g} degrees wide, more than 180. West > east crosses the "
                "antimeridian: if that was not meant, swap them; else open it in two parts."
            )
    if west == east or (west > east and not parsed.is_geographic):
        raise ValueError(f"bbox has west >= east: {given}; the order is (west, south, east, north)")
    return Area(west, south, east, north, parsed)


def area_of(geobox: GeoBox) -> Area:
    """The ground a GeoBox covers."""
    box = geobox.boundingbox
    return Area(box.left, box.bottom, box.right, box.top, as_crs(geobox.crs))


def area_of_polygon(polygon: Any) -> Area:
    """The box around a geometry: shapely (in degrees), GeoJSON-like, or GeoDataFrame with its CRS."""
    crs = getattr(polygon, "crs", None) or LONLAT
    if hasattr(polygon, "total_bounds"):
        bounds = polygon.total_bounds
    elif hasattr(polygon, "bounds"):
        bounds = polygon.bounds
    elif isinstance(polygon, dict) or hasattr(polygon, "__geo_interface__"):
        from shapely.geometry import shape

        bounds = shape(polygon).bounds
    else:
        raise ValueError(
            f"a polygon is a shapely geometry, GeoJSON or a GeoDataFrame; got {type(polygon).__name__}"
        )
    return parse_bbox(bounds, crs)


def covers(grid: GeoBox) -> str:
    """What a grid covers, for messages."""
    area = area_of(grid)
    degrees = area.bounds_in(LONLAT)
    text = f"covers {area}"
    if degrees and not area.crs.is_geographic:
        text += f", lon/lat ({', '.join(f'{v:.4f}' for v in degrees[0])})"
    return text


def project_bounds(bounds: Bounds, src: object, dst: object, *, densify: int = 41) -> Bounds | None:
    """Bounds in another CRS, edges densified; None where nothing of it can be reached."""
    source, target = as_crs(src), as_crs(dst)
    if _same_crs(source, target):
        return bounds
    if not target.is_geographic:
        clipped = _clip_to_use(bounds, source, target)
        if clipped is None:
            return None
        bounds = clipped
    try:
        found = transformer(source, target).transform_bounds(*bounds, densify_pts=densify)
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
    """The grid over an area whose pixel edges are multiples of the resolution, so that neighbours tile.

    Parameters
    ----------
    area : Area
        What to cover.
    crs : CRS
        Of the grid.
    resolution : float or (float, float)
        Pixel size in units of ``crs``, or (x, y).

    Raises
    ------
    ValueError
        If the resolution is no positive number, or is metres taken for degrees.
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
    if crs.is_geographic and max(dx, dy) >= 5:
        raise ValueError(
            f"resolution={resolution!r} in {crs_name(crs)} means {max(dx, dy):g} degrees a pixel; "
            f"give degrees ({max(dx, dy) / 111_320:.6g} is {max(dx, dy):g} m), or a CRS in metres"
        )
    return dx, dy


def resolution_in(crs: object, metres: float, area: Area) -> float:
    """A ground distance in units of a CRS at an area's middle, rounded so that neighbours agree."""
    target = as_crs(crs)
    if target.is_geographic:
        return metres / 111_320.0
    factor = target.axis_info[0].unit_conversion_factor if target.axis_info else 1.0
    return metres / (factor or 1.0)


def union_bounds(boxes: Iterable[Bounds]) -> Bounds:
    """The box around several."""
    west, south, east, north = zip(*boxes, strict=True)
    return min(west), min(south), max(east), max(north)


# --- points -------------------------------------------------------------------------------------------------


def lonlat_columns(table: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Longitude and latitude columns of a table, by their usual names; None where there are none."""
    names = {str(name).lower(): name for name in table.columns}
    lon = next((names[n] for n in ("lon", "longitude", "lng", "long", "x") if n in names), None)
    lat = next((names[n] for n in ("lat", "latitude", "y") if n in names), None)
    if lon is None or lat is None:
        return None
    return np.asarray(table[lon], dtype=np.float64), np.asarray(table[lat], dtype=np.float64)


def points_xy(points: Any, crs: object) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of points in a CRS.

    Parameters
    ----------
    points : GeoDataFrame, DataFrame with lon and lat, Dataset or array of shape (n, 2)
        Numbers without a CRS are longitude and latitude.
    crs : CRS
        Of the result.

    Returns
    -------
    tuple of ndarray (n,)
        x and y; not finite where a point cannot be reached in that CRS.
    """
    source: object = LONLAT
    if hasattr(points, "geometry") and hasattr(points, "crs"):
        geometry = points.geometry
        kinds = set(geometry.geom_type)
        if not kinds <= {"Point"}:
            raise ValueError(f"points must be points; got {sorted(kinds)}. For polygons use zonal_stats.")
        x, y = geometry.x.to_numpy(), geometry.y.to_numpy()
        source = points.crs or LONLAT
    elif hasattr(points, "columns"):
        found = lonlat_columns(points)
        if found is None:
            raise ValueError(
                f"a table of points needs columns 'lon' and 'lat' (degrees); got {list(points.columns)}"
            )
        x, y = found
    else:
        pairs = np.asarray(points, dtype=np.float64)
        pairs = pairs[None] if pairs.ndim == 1 else pairs
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise ValueError(f"points are pairs (lon, lat), shape (n, 2); got shape {pairs.shape}")
        x, y = pairs[:, 0], pairs[:, 1]
    if as_crs(source).is_geographic and np.any((np.abs(x) > 360) | (np.abs(y) > 90)):
        raise ValueError(
            "points without a CRS are longitude and latitude in degrees, but some lie outside the world; "
            "give a GeoDataFrame with its CRS"
        )
    if same_crs(source, crs):
        return x.astype(np.float64), y.astype(np.float64)
    px, py = transformer(as_crs(source), as_crs(crs)).transform(x, y, errcheck=False)
    return np.asarray(px, dtype=np.float64), np.asarray(py, dtype=np.float64)


def pixels_at(grid: GeoBox, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of points on a grid, and whether they lie on it; 0 where not.

    Parameters
    ----------
    grid : GeoBox
        Any orientation.
    x, y : ndarray (n,)
        In the grid's CRS; degrees may be written a turn away.
    """
    c, r = ~grid.affine * (x, y)
    if as_crs(grid.crs).is_geographic:
        turn = 360.0 / abs(grid.affine.a)
        c = np.where(c < 0, c + turn, np.where(c >= grid.shape[1], c - turn, c))
    with np.errstate(invalid="ignore"):
        row = np.floor(np.round(r * SUBPIXEL) / SUBPIXEL)
        col = np.floor(np.round(c * SUBPIXEL) / SUBPIXEL)
        inside = (row >= 0) & (row < grid.shape[0]) & (col >= 0) & (col < grid.shape[1])
    return np.where(inside, row, 0).astype(np.int64), np.where(inside, col, 0).astype(np.int64), inside
