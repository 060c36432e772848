"""Where an array lies: its CRS and GeoBox, bounding boxes, the antimeridian, UTM zones.

A grid is odc-geo's :class:`~odc.geo.geobox.GeoBox`, as it is. Nothing is stored on an array but its pixel
centres and ``spatial_ref``: everything here is computed from those when asked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import xarray as xr
from affine import Affine

from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.projecting import Transformer

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


SPATIAL_REF = "spatial_ref"


LONLAT = "EPSG:4326"


#: Length of a degree of latitude, and of longitude at the equator: rounds what need not be exact.
METRES_PER_DEGREE = 111_320.0
#: Radius of a sphere as large as the Earth, in metres.
EARTH_RADIUS = 6_371_000.0


#: Attribute of y and x, as odc-geo writes it: the signed size of a pixel, in units of the CRS.
RESOLUTION = "resolution"


#: What others call the axes, in lower case.
AXIS_NAMES = {
    "y": "y", "lat": "y", "latitude": "y", "northing": "y", "projection_y_coordinate": "y",
    "x": "x", "lon": "x", "long": "x", "longitude": "x", "easting": "x", "projection_x_coordinate": "x",
}  # fmt: skip


#: Names of axes that mean degrees.
DEGREES = frozenset({"lat", "latitude", "lon", "long", "longitude"})


#: Two grids are one where no corner is further apart than this, in pixels.
GRID_TOLERANCE = 1e-6


#: No axis has more pixels: the Earth's circumference at 0.15 m.
LONGEST_AXIS = 2**28


#: Points are rounded to this fraction of a pixel: an edge belongs to the higher index, whatever the rounding.
SUBPIXEL = 4096


# --- CRS ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _parse_crs(text: str) -> pyproj.CRS:
    return pyproj.CRS.from_user_input(text)


def as_crs(crs: object) -> pyproj.CRS:
    """Any way of writing a CRS (EPSG code, WKT, pyproj, odc-geo, rasterio) as a :class:`pyproj.CRS`."""
    if isinstance(crs, pyproj.CRS):
        return crs
    if isinstance(crs, int | np.integer):
        return _parse_crs(f"EPSG:{crs}")
    if isinstance(crs, Mapping) and "type" in crs:  # PROJJSON
        crs = json.dumps(crs)
    text = crs if isinstance(crs, str) else getattr(crs, "to_wkt", lambda: None)()
    if not isinstance(text, str):
        raise ValueError(f"not a CRS: {crs!r}; give an EPSG code such as 'EPSG:3035', WKT, or a pyproj.CRS")
    try:
        return _parse_crs(str(text))  # pyproj takes no subclass of str, as NumPy's is
    except pyproj.exceptions.CRSError as error:
        raise ValueError(f"not a CRS: {crs!r} ({error})") from error


@lru_cache(maxsize=256)
def _same_crs(a: pyproj.CRS, b: pyproj.CRS) -> bool:
    return bool(a == b or a.equals(b, ignore_axis_order=True))


def same_crs(a: object, b: object) -> bool:
    """Whether two CRSs are one; the order of axes does not matter, since ours is always x, y."""
    return _same_crs(as_crs(a), as_crs(b))


def same_plane(a: object, b: object) -> bool:
    """Whether x and y mean the same in two CRSs, whatever they say of heights and of the way to WGS 84.

    Examples
    --------
    >>> same_plane("EPSG:32633", "EPSG:32633+5773"), same_crs("EPSG:32633", "EPSG:32633+5773")
    (True, False)
    """
    one, other = (_plane(as_crs(each)) for each in (a, b))
    return same_crs(one, other) or (one.to_epsg() is not None and one.to_epsg() == other.to_epsg())


def is_nearly_same_plane(a: object, b: object) -> bool:
    """Whether x and y of a place differ by no more than 2 m: datums of one ensemble, or nearly so.

    WGS 84 without a year is itself no better known than that. False where PROJ does not know how two datums lie.

    Examples
    --------
    >>> is_nearly_same_plane("EPSG:25832", "EPSG:32632"), is_nearly_same_plane("EPSG:4277", "EPSG:4326")
    (True, False)
    """
    one, other = (_plane(as_crs(each)) for each in (a, b))
    area = one.area_of_use or other.area_of_use
    if (
        one.geodetic_crs is None
        or area is None
        or not one.axis_info
        or one.is_geographic != other.is_geographic
    ):
        return False
    east = area.east + 360.0 * (area.east < area.west)
    lon, lat = np.meshgrid(
        np.linspace(area.west, east, 7)[1:-1], np.linspace(area.south, area.north, 7)[1:-1]
    )
    x, y = pyproj.Transformer.from_crs(one.geodetic_crs, one, always_xy=True).transform(lon, lat)
    try:
        there = pyproj.Transformer.from_crs(one, other, always_xy=True, allow_ballpark=False).transform(x, y)
    except pyproj.exceptions.ProjError:
        return False
    factor = one.axis_info[0].unit_conversion_factor  # to metres, or to radians
    unit = math.degrees(factor) * METRES_PER_DEGREE if one.is_geographic else factor
    return bool(np.hypot(there[0] - x, there[1] - y).max() * unit <= 2.0)


def _plane(crs: pyproj.CRS) -> pyproj.CRS:
    if crs.is_bound and crs.source_crs is not None:
        return _plane(crs.source_crs)
    return _plane(crs.sub_crs_list[0]) if crs.is_compound else crs.to_2d()


@lru_cache(maxsize=256)
def crs_text(crs: pyproj.CRS) -> str:
    """One text for one CRS: ``EPSG:3035`` where it is the code's own, else its WKT."""
    code = crs.to_epsg(min_confidence=100)
    return f"EPSG:{code}" if code and as_crs(code) == crs else str(crs.to_wkt())


def transformer(src: pyproj.CRS, dst: pyproj.CRS) -> Transformer:
    """A cached x, y transformer: to find the way from one CRS to another takes 0.1 s."""
    return _transformer(crs_text(src), crs_text(dst))


@lru_cache(maxsize=256)
def _transformer(src: str, dst: str) -> Transformer:
    return Transformer(as_crs(src), as_crs(dst))


def crs_name(crs: pyproj.CRS) -> str:
    """``EPSG:3035`` where the CRS has a code, else its name."""
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.name)


def crs_of(array: xr.DataArray | xr.Dataset) -> pyproj.CRS | None:
    """The CRS that ``spatial_ref`` states, or the variable that CF's ``grid_mapping`` names; None without one."""
    known = array.variables if isinstance(array, xr.Dataset) else array.coords
    for name in (*_grid_mappings(array), SPATIAL_REF):
        attrs = known[name].attrs if name in known else {}
        text = attrs.get("crs_wkt") or attrs.get("spatial_ref")
        if text:
            return as_crs(text)
        if "grid_mapping_name" in attrs:
            try:
                return pyproj.CRS.from_cf(attrs)
            except (pyproj.exceptions.CRSError, KeyError) as error:
                raise ValueError(f"not a CRS: the attributes of {name!r} ({error})") from error
    return None


def _grid_mappings(array: xr.DataArray | xr.Dataset) -> list[str]:
    """Names that ``grid_mapping`` gives, as an attribute or where xarray keeps it once it has decoded a file."""
    several = [array, *array.data_vars.values()] if isinstance(array, xr.Dataset) else [array]
    found = [each.get("grid_mapping") for one in several for each in (one.encoding, one.attrs)]
    # "crs: x y" names the coordinates that it holds for
    return list(dict.fromkeys(str(name).split(":")[0].strip() for name in found if name))


def with_grid_mappings(dataset: xr.Dataset) -> xr.Dataset:
    """A CRS that xarray took for a variable of data as the coordinate that it is."""
    return dataset.set_coords([name for name in _grid_mappings(dataset) if name in dataset.data_vars])


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


def check_geobox(given: object) -> None:
    """Check that what is given as ``geobox=`` is one.

    Raises
    ------
    EmbeddingError
        If it is anything else.
    """
    if not all(hasattr(given, name) for name in ("affine", "boundingbox", "crs")):
        raise EmbeddingError(f"geobox= is a GeoBox of odc-geo, as .emb.geobox gives it; got {given!r}")


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


def on_sphere(lonlat: np.ndarray) -> np.ndarray:
    """Places in degrees as metres from the centre of the Earth (n, 3): distances hold across poles and ±180°."""
    lon, lat = np.radians(lonlat).T
    return EARTH_RADIUS * np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def pixel_centres(origin: float, step: float, start: int, stop: int) -> np.ndarray:
    """Centres of pixels ``start`` to ``stop`` of an axis, counted from the whole grid.

    A window's centres are then bit for bit those of the whole: no joins are lost to rounding.
    """
    return origin + (np.arange(start, stop, dtype=np.float64) + 0.5) * step


def grid_coords(
    geobox: GeoBox, y: np.ndarray | None = None, x: np.ndarray | None = None
) -> dict[str, xr.DataArray]:
    """Coordinates ``y``, ``x`` and ``spatial_ref`` of a GeoBox; ``y`` and ``x`` may be given.

    Each axis says its resolution in an attribute: plain indexing may leave one pixel, whose coordinate alone cannot
    tell it.
    """
    affine = geobox.affine
    if affine.b or affine.d:
        raise ValueError("a rotated grid has no 1-D x and y; give a north-up GeoBox, or a CRS")
    height, width = geobox.shape
    crs = as_crs(geobox.crs)
    if max(height, width) > LONGEST_AXIS:
        raise EmbeddingError(
            f"a grid of {height:,} × {width:,} pixels in {crs_name(crs)} is more than an array can hold: take a "
            "coarser resolution (in units of the CRS), or crop first to what the CRS is made for: a polar one has "
            "no end towards the other pole"
        )
    if y is None:
        y = pixel_centres(affine.f, affine.e, 0, height)
    if x is None:
        x = pixel_centres(affine.c, affine.a, 0, width)
    attrs = _axis_attrs(crs)
    return {
        "y": _sized(xr.DataArray(np.asarray(y, np.float64), dims="y", attrs=attrs["y"]), affine.e),
        "x": _sized(xr.DataArray(np.asarray(x, np.float64), dims="x", attrs=attrs["x"]), affine.a),
        SPATIAL_REF: crs_coord(crs),
    }


def _sized(axis: xr.DataArray, step: float) -> xr.DataArray:
    # to twelve digits: grids that are one by their coordinates differ in the last bits of a step
    return axis.assign_attrs({RESOLUTION: float(f"{step:.12g}")})


def _reversed(array: xr.DataArray, axis: str) -> xr.DataArray:
    """The array in the other order of an axis, whose resolution has the sign of that order."""
    turned = array.isel({axis: slice(None, None, -1)})
    along = turned.coords[axis]
    stated = along.attrs.get(RESOLUTION)
    if stated is None:
        return turned
    # by the coordinates: an array turned by plain slicing still states the sign it had before
    step = math.copysign(float(stated), float(along[-1] - along[0]))
    return turned.assign_coords({axis: _sized(along, step)})


def keep_resolution(window: xr.DataArray, grid: GeoBox) -> xr.DataArray:
    """A window of a grid, in which an axis of one pixel says its resolution."""
    steps = {"y": grid.affine.e, "x": grid.affine.a}
    single = {d: _sized(window.coords[d], step) for d, step in steps.items() if window.sizes[d] == 1}
    return window.assign_coords(single) if single else window


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


def plain_names[T: xr.DataArray | xr.Dataset](array: T) -> T:
    """The array with its axes called y and x, and a CRS in ``spatial_ref``: rasters of others as ours are.

    Axes called latitude and longitude, in any of the usual spellings, are in degrees where no CRS is stated.

    Examples
    --------
    >>> mask = xr.DataArray(np.zeros((2, 3)), coords={"lat": [48.0, 47.0], "lon": [10.0, 11.0, 12.0]})
    >>> plain_names(mask).dims, crs_name(crs_of(plain_names(mask)))
    (('y', 'x'), 'EPSG:4326')
    """
    found: dict[str, str] = {}
    for dim in map(str, array.dims):
        axis = AXIS_NAMES.get(dim.lower())
        if (
            axis is not None
            and axis not in array.dims
            and axis not in array.coords
            and axis not in found.values()
        ):
            found[dim] = axis
    crs = crs_of(array)
    if crs is None and DEGREES.intersection(map(str.lower, found)):
        crs = as_crs(LONLAT)
    plain: Any = array.rename(found) if found else array
    if crs is not None and (found or SPATIAL_REF not in array.coords):
        plain = plain.assign_coords({SPATIAL_REF: crs_coord(crs)})
    named: T = plain
    return named


def geobox_of(array: xr.DataArray | xr.Dataset, what: str = "this") -> GeoBox:
    """The grid of an array, from its ``x``, ``y`` and ``spatial_ref``, or from those as others call them.

    Raises
    ------
    EmbeddingError
        If it is not an array, or has no regular grid or no CRS.
    """
    if not isinstance(array, xr.DataArray | xr.Dataset):
        raise EmbeddingError(
            f"{what} needs a DataArray that has a grid; got {type(array).__name__}. A file is opened first "
            "(rioxarray.open_rasterio, or gx.open); a GeoBox goes where 'geobox' or 'target' is asked for."
        )
    array = plain_names(array)
    if "y" not in array.dims or "x" not in array.dims or "y" not in array.coords or "x" not in array.coords:
        raise EmbeddingError(
            f"{what} needs a raster: dims and coordinates 'y' and 'x'; got dims {tuple(array.dims)}. "
            "Points have no grid; patches on a regular grid become a raster with .emb.to_grid()."
        )
    crs = crs_of(array)
    if crs is None:
        raise EmbeddingError(
            f"{what} needs a CRS, but the array has no coordinate 'spatial_ref' with a CRS, nor another that "
            "'grid_mapping' names; give it one with gx.wrap(…, crs=…) or rioxarray's .rio.write_crs(…)."
        )
    ys, xs = array.coords["y"], array.coords["x"]
    y0, dy = _axis(ys, "y", what)
    x0, dx = _axis(xs, "x", what)
    if dy is None and dx is None:
        raise EmbeddingError(
            f"{what} got a single pixel, which does not show a resolution: x and y have no attribute "
            "'resolution'; keep at least two pixels, or use .emb.sample(points)."
        )
    # An axis of one pixel takes the other axis's size; rows of one pixel run north to south.
    dx = abs(dy) if dx is None and dy is not None else dx
    dy = -abs(dx) if dy is None and dx is not None else dy
    assert dx is not None
    assert dy is not None
    return make_geobox((ys.size, xs.size), Affine(dx, 0, x0 - dx / 2, 0, dy, y0 - dy / 2), crs)


def _axis(coordinate: xr.DataArray, name: str, what: str) -> tuple[float, float | None]:
    """First centre and step of an axis; no step where one value alone has no attribute that tells it."""
    values = coordinate.values
    if values.size == 0:
        raise EmbeddingError(f"{what} got an array with no pixels along {name!r}")
    if values.ndim != 1:
        raise EmbeddingError(
            f"{what} needs straight rows and columns, with a coordinate {name!r} along {name!r} alone; got "
            f"{coordinate.dims}. Warp it to a regular grid first, as with pyresample"
        )
    if values.dtype.kind not in "iuf":
        raise EmbeddingError(f"{what} needs numbers along {name!r}; got {values.dtype}")
    first = float(values[0])
    if values.size == 1:
        stated = coordinate.attrs.get(RESOLUTION)
        # a row of one pixel lies north-up, whatever it was cut from
        return first, None if stated is None else abs(float(stated)) * (-1 if name == "y" else 1)
    step = (float(values[-1]) - first) / (values.size - 1)
    regular = pixel_centres(first - step / 2, step, 0, values.size)
    # float32 keeps 47.25° to 4e-6°: a twentieth of a pixel of ten metres
    is_single = np.array_equal(values, values.astype(np.float32))
    rounding = 2 * float(np.spacing(np.float32(np.abs(values).max()))) if is_single else 0.0
    tolerance = max(abs(step) * 1e-3, min(rounding, abs(step) / 4))
    if step == 0 or not np.allclose(regular, values, rtol=0, atol=tolerance):
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


def north_up_array(array: xr.DataArray) -> xr.DataArray:
    """The array with y descending and x ascending, as a view."""
    ys, xs = array.coords["y"].values, array.coords["x"].values
    if ys.size > 1 and ys[0] < ys[-1]:
        array = _reversed(array, "y")
    if xs.size > 1 and xs[0] > xs[-1]:
        array = _reversed(array, "x")
    return array
