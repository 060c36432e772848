"""From rasters to places and back to tables: values at points, the part inside an area, wide tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import shapely
import xarray as xr

from geoemb_xr.core import areas, geometry
from geoemb_xr.core.arrays import codec_of
from geoemb_xr.core.errors import CoverageError, EmbeddingError, check_choice, require
from geoemb_xr.core.legend import is_class_map, legend_of
from geoemb_xr.core.model import BAND, attribution_of, check_embedding, is_encoded, kind_of
from geoemb_xr.execution.computing import computed
from geoemb_xr.execution.memory import check_room
from geoemb_xr.geo import footprints, places, polygons
from geoemb_xr.geo.footprints import nearest_patch
from geoemb_xr.geo.places import Places

if TYPE_CHECKING:
    import geopandas as gpd
    from odc.geo.geobox import GeoBox

#: Reads an array at rows and columns, as ``(…, location)``.
Take = Callable[[np.ndarray, np.ndarray], xr.DataArray]

# --- values at points ---------------------------------------------------------------------------------------


def sample(
    array: xr.DataArray, points: Any, *, crs: object = None, method: Literal["nearest"] = "nearest"
) -> xr.DataArray:
    """Take the pixel under each point. Lazy: one read per block that holds points.

    Parameters
    ----------
    array : DataArray (…, y, x) or (location, band)
        An embedding, encoded or decoded, or a map; or vectors of patches.
    points : pairs, shapely points, GeoDataFrame, table, dict, GeoJSON, path or array of points
        Anything that :func:`geoemb_xr.geo.places.read_places` takes. Numbers without a CRS are longitude and
        latitude. Rows of a table without a place are left out and counted.
    crs : CRS, optional
        CRS of points that bring none.
    method : {"nearest"}
        The pixel that holds the point; the patch whose footprint holds it, of several the one with the nearest
        centre.

    Returns
    -------
    DataArray (location, band), (time, location, band), or (location,) for a map
        ``location`` is the index of ``points``, whose other columns ride along as coordinates (with
        ``point_`` before a name that the array uses itself); ``x`` and ``y`` are the points' own, in the
        array's CRS. Missing where a point lies outside.

    Raises
    ------
    CoverageError
        If none of the points lies in the array.
    ValueError
        For an unknown method.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    >>> places = gx.testing.scene().points(20, radius=300)
    >>> da.emb.sample(places).dims
    ('location', 'band')
    """
    check_choice("method", method, ("nearest",))
    given = places.read_places(points, crs=crs).present("sample")
    if "location" in array.dims:
        return _patches_at(array, given)
    return sample_pixels(array, given)


def sample_pixels(array: xr.DataArray, given: Places, *, take: Take | None = None) -> xr.DataArray:
    """The pixel of a raster under each point; ``take`` reads rows and columns where not the array's blocks do."""
    grid = geometry.geobox_of(array, "sample")
    x, y = given.xy(grid.crs)
    rows, cols, inside = places.pixels_at(grid, x, y)
    if x.size and not inside.any():
        raise CoverageError(f"none of the {x.size} points lies in the array, which {areas.covers(grid)}")
    if not inside.all():  # read where others are read already
        spare = np.flatnonzero(inside)[:1]
        rows, cols = np.where(inside, rows, rows[spare]), np.where(inside, cols, cols[spare])
    if take is not None:
        found = take(rows, cols)
    else:
        found = array.isel(y=xr.DataArray(rows, dims="location"), x=xr.DataArray(cols, dims="location"))
    if not inside.all():
        found = blank(found, xr.DataArray(inside, dims="location"))
    first = [d for d in ("time", "location") if d in found.dims]
    found = found.transpose(*first, ...)
    return at_places(found, array, x, y, given)


def _patches_at(array: xr.DataArray, points: Places) -> xr.DataArray:
    """The patch whose footprint holds each point."""
    chosen = nearest_patch(array, points, what="sample")
    inside = chosen >= 0
    if chosen.size and not inside.any():
        raise CoverageError(
            f"none of the {chosen.size} points lies in one of the {array.sizes['location']} patches"
        )
    rows = np.where(inside, chosen, chosen.max(initial=0))  # read where others are read already
    found = array.isel(location=rows).drop_vars("location")
    if not inside.all():
        found = blank(found, xr.DataArray(inside, dims="location"))
    return at_places(found, array, *points.xy(geometry.crs_of(array)), points)


def at_places(
    found: xr.DataArray, array: xr.DataArray, x: np.ndarray, y: np.ndarray, given: Places
) -> xr.DataArray:
    """Values along ``location`` with their index, their places in the array's CRS, and a table's columns."""
    index, columns = given.riding()
    bands = map(str, found.coords[BAND].values) if BAND in found.coords else ()
    taken = {"location", "x", "y", *map(str, found.coords), *map(str, found.dims), *bands}
    named = {f"point_{name}" if name in taken else name: ("location", v) for name, v in columns.items()}
    place = {name: ("location", v, array.coords[name].attrs) for name, v in (("x", x), ("y", y))}
    if footprints.has_footprints(array):  # the places are points now
        place["patch_m"] = ("location", np.zeros(len(index)), {"units": "m"})
    return found.drop_vars("patch_m", errors="ignore").assign_coords({"location": index, **place, **named})


def blank(array: xr.DataArray, keep: xr.DataArray) -> xr.DataArray:
    """An array with no data where ``keep`` is False, of the same dtype: codes stay codes."""
    codec = codec_of(array) if is_encoded(array) else None
    if codec is not None and codec.scale is not None and codec.scale in array.coords:
        scale = array.coords[codec.scale]
        return array.assign_coords({codec.scale: scale.where(keep, scale.dtype.type(np.nan))})
    kind = array.dtype.kind
    missing: Any = np.datetime64("NaT") if kind == "M" else np.nan if kind in "fc" else 0
    if codec is not None and codec.nodata is not None:
        missing = codec.nodata
    return array.where(keep, array.dtype.type(missing))


# --- the part inside an area --------------------------------------------------------------------------------


def crop(
    array: xr.DataArray,
    area: Any,
    *,
    crs: object = geometry.LONLAT,
    mask: bool = True,
    all_touched: bool = False,
) -> xr.DataArray:
    """Cut an array to an area, by index: no pixel is read or changed. Lazy.

    Parameters
    ----------
    array : DataArray (…, y, x), or patches (location, …)
        An embedding, encoded or decoded, or a map.
    area : (west, south, east, north), polygons, GeoDataFrame, table, GeoJSON or path
        A box is rounded outwards to whole pixels; in degrees west > east crosses the antimeridian. Polygons as
        :func:`geoemb_xr.geo.places.read_places` takes them; missing ones are left out and counted. Points, of
        patches: those whose footprint holds one.
    crs : CRS
        CRS of numbers and of shapely polygons; geopandas brings its own.
    mask : bool
        Whether pixels of the box around a polygon that are not in it become missing.
    all_touched : bool
        Whether each pixel that a polygon touches counts as in it, not those with their centre in it. Patches are
        kept by the same rules: those with their centre in a polygon, those whose footprint touches a box.

    Raises
    ------
    CoverageError
        If the area does not overlap the array; the message says what it covers.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64))
    >>> da.emb.crop((11.369, 47.249, 11.371, 47.251)).sizes["y"]
    24
    """
    if "location" in array.dims:
        return _crop_locations(array, area, crs, all_touched)
    grid = geometry.geobox_of(array, "crop")
    if _is_bbox(area):
        box = areas.parse_bbox(area, crs)
        return _crop_box(array, grid, box, f"bbox {box}")
    target = geometry.as_crs(grid.crs)
    shape = polygons.union(places.polygons_of(area, crs, target))
    cut = _crop_box(array, grid, areas.area_around(polygons.boxes_of(shape), target), "polygon")
    if not mask:
        return cut
    if target.is_geographic:
        half = abs(grid.affine.a) / 2
        xs = cut.coords["x"].values
        shape = polygons.around_the_world(shape, (xs.min() - half, -90.0, xs.max() + half, 90.0))
    return blank(cut, _inside(cut, shape, grid, "touched" if all_touched else "centre"))


def _crop_locations(array: xr.DataArray, area: Any, crs: object, all_touched: bool) -> xr.DataArray:
    """Points in an area; patches whose footprint touches a box, or whose centre (or footprint) a polygon holds."""
    boxed = _is_bbox(area)
    if boxed:
        box = areas.parse_bbox(area, crs)
        area, crs = shapely.MultiPolygon([shapely.box(*part) for part in box.parts]), box.crs
    given = places.read_places(area, crs=crs).present("crop")
    touched = boxed or all_touched or given.points is not None
    rows = footprints.patches_in(array, given, "touched" if touched else "centre")
    if not rows.size:
        raise CoverageError(f"the area holds none of the {array.sizes['location']} locations")
    return array.isel(location=rows)


def _is_bbox(area: Any) -> bool:
    return isinstance(area, Sequence | np.ndarray) and len(area) == 4 and all(map(np.isscalar, area))


def _crop_box(array: xr.DataArray, grid: GeoBox, area: areas.Area, what: str) -> xr.DataArray:
    target = geometry.as_crs(grid.crs)
    turns = (0.0, 360.0, -360.0) if target.is_geographic else (0.0,)
    windows = [
        (360.0 * k - turn, window)  # what takes columns to where the area lies, which runs on past 180
        for k, (west, south, east, north) in enumerate(area.bounds_in(target))
        for turn in turns
        if (window := areas.window_of(grid, (west + turn, south, east + turn, north))) is not None
    ]
    if not windows:
        raise CoverageError(f"the {what} does not overlap the array, which {areas.covers(grid)}")
    rows = slice(min(r.start for _, (r, _) in windows), max(r.stop for _, (r, _) in windows))
    if target.is_geographic and _at_both_ends(windows, array.coords["x"].values, abs(grid.affine.a)):
        parts = [array.isel(y=rows, x=c).assign_coords(x=array.x[c] + shift) for shift, (_, c) in windows]
        parts.sort(key=lambda part: float(part.x[0]))
        cut = xr.concat(parts, "x", join="exact", coords="minimal", compat="equals", combine_attrs="override")
    else:
        columns = [c for _, (_, c) in windows]
        cut = array.isel(y=rows, x=slice(min(c.start for c in columns), max(c.stop for c in columns)))
    return geometry.keep_resolution(cut, grid)


def _at_both_ends(windows: Sequence[tuple[float, tuple[slice, slice]]], xs: np.ndarray, step: float) -> bool:
    """Whether an area has the first and last columns of a grid around the world, and none between."""
    columns = [c for _, (_, c) in windows]
    if len(columns) != 2 or max(c.start for c in columns) <= min(c.stop for c in columns):
        return False
    west, east = sorted((xs[c] + shift for shift, (_, c) in windows), key=np.min)
    return bool(abs(east.min() - west.max() - step) < step / 2)


def _inside(array: xr.DataArray, shape: Any, grid: GeoBox, rule: polygons.Rule) -> xr.DataArray:
    """Which pixels of an array are in a polygon, block by block where the array has blocks."""
    ys, xs = array.coords["y"].values, array.coords["x"].values
    size = (abs(grid.affine.e), abs(grid.affine.a))
    if array.chunks is None:
        return xr.DataArray(_inside_block(ys, xs, shape, size, rule), dims=("y", "x"))
    import dask
    import dask.array as da

    chunks = array.variable.chunksizes
    data = da.blockwise(
        _inside_block,
        "yx",
        da.from_array(ys, (chunks["y"],)),
        "y",
        da.from_array(xs, (chunks["x"],)),
        "x",
        dask.delayed(shape, pure=True),
        None,
        size=size,
        rule=rule,
        dtype=bool,
        meta=np.empty((0, 0), bool),
    )
    return xr.DataArray(data, dims=("y", "x"))


def _inside_block(
    ys: np.ndarray, xs: np.ndarray, shape: Any, size: tuple[float, float], rule: polygons.Rule
) -> np.ndarray:
    return polygons.covered_shares(shape, ys, xs, size, rule) > 0


# --- tables -------------------------------------------------------------------------------------------------


def to_dataframe(array: xr.DataArray) -> pd.DataFrame:
    """Load an array into a wide table: a row per location (and a time), a column per band. Computes.

    Parameters
    ----------
    array : DataArray
        Points, zones, a raster or a map. Codes stay codes; decode first where vectors are wanted.

    Returns
    -------
    pandas.DataFrame
        Coordinates along ``location`` (or ``y`` and ``x``) first, then the bands. ``attrs`` has product,
        version, attribution and the CRS of x and y.

    Raises
    ------
    EmbeddingError
        If plain xarray has turned codes into floats.
    MemoryError
        If the table would take more than half of the free memory.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    >>> da.emb.sample([(11.37, 47.25)]).emb.to_dataframe().shape  # x, y, time, 64 bands
    (1, 67)
    """
    if kind_of(array) != "map":
        check_embedding(array, "to_dataframe")
    wide = next((d for d in array.dims if d in (BAND, "component", "category", "rgb")), None)
    if "location" not in array.dims and not {"y", "x"} <= set(array.dims):
        raise EmbeddingError(f"a table needs 'location', or 'y' and 'x'; got dims {tuple(array.dims)}")
    # the values, and as much beside them
    advice = "sample or crop first, or write with .emb.to_geoparquet or .emb.to_zarr"
    check_room(2 * array.nbytes, "a table", advice)
    rows = [d for d in array.dims if d != wide]
    if "location" in rows:
        rows = ["location", *(d for d in rows if d != "location")]
    flat = computed(array.transpose(*rows, *([wide] if wide else [])))
    narrow = flat if wide is None else flat.isel({wide: 0})
    columns = {
        str(name): _spread(coord, narrow)
        for name, coord in flat.coords.items()
        if name not in flat.dims and name != geometry.SPATIAL_REF and wide not in coord.dims
    }
    index = (
        flat.indexes["location"]
        if rows == ["location"]
        else pd.MultiIndex.from_product([flat.coords[d].values for d in rows], names=[str(d) for d in rows])
    )
    names = (
        ["value" if array.name is None else str(array.name)]
        if wide is None
        else flat.coords[wide].values.astype(str).tolist()
    )
    values = flat.values.reshape(len(index), len(names))
    table = pd.concat(
        [pd.DataFrame(columns, index=index), pd.DataFrame(values, index=index, columns=names)], axis=1
    )
    crs = geometry.crs_of(array)
    table.attrs = {**array.attrs, "attribution": attribution_of(array)}
    if crs is not None:  # x and y are found again by what reads tables
        table.attrs["crs"] = geometry.crs_name(crs) if crs.to_epsg() else crs.to_wkt()
    return table


def _spread(coord: xr.DataArray, rows: xr.DataArray) -> Any:
    """Values of a coordinate for each row of a table; those of pandas' own types, which do not broadcast, too."""
    if pd.api.types.is_extension_array_dtype(coord.dtype):
        plain = coord.copy(data=np.asarray(coord.to_series(), dtype=object).reshape(coord.shape))
        return pd.array(_spread(plain, rows), dtype=coord.dtype)
    return coord.broadcast_like(rows).transpose(*rows.dims).values.reshape(-1)


def to_geodataframe(array: xr.DataArray, *, min_pixels: int = 1) -> gpd.GeoDataFrame:
    """Load an array into a GeoDataFrame, as :func:`to_dataframe`. Computes.

    Parameters
    ----------
    array : DataArray
        Array with ``x``, ``y`` and a CRS. Patches are the squares that they cover, cut in two where they cross the
        antimeridian; a class map is polygons, one for each connected part of a class; anything else is points.
    min_pixels : int
        Parts of a class map with fewer pixels join the largest class beside them (GDAL's sieve).

    Returns
    -------
    GeoDataFrame
        Columns as :func:`to_dataframe`; of a class map ``value`` and ``name``.

    Raises
    ------
    EmbeddingError
        If the array has no x and y, or no CRS.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    >>> da.emb.sample([(11.37, 47.25)]).emb.to_geodataframe().crs.to_epsg()
    32632
    """
    geopandas = require("geopandas", "vector")
    crs = geometry.crs_of(array)
    if crs is None or not {"x", "y"} <= set(array.coords):
        raise EmbeddingError("a GeoDataFrame needs 'x', 'y' and a CRS ('spatial_ref'); use to_dataframe()")
    if is_class_map(array) and {"y", "x"} <= set(array.dims):
        return geopandas.GeoDataFrame(_outlines(array, min_pixels), crs=crs)
    if kind_of(array) != "map":
        check_embedding(array, "to_geodataframe")
    table = to_dataframe(array)
    on_index = {"x", "y"} <= set(table.index.names)
    x, y = (table.index.get_level_values(n) if on_index else table[n] for n in ("x", "y"))
    if footprints.has_footprints(array):
        squares = footprints.squares_of(footprints.patches_of(array, "to_geodataframe"), crs)
        shapes = polygons.cut_at_180(squares) if crs.is_geographic else squares
        shapes = np.repeat(shapes, len(table) // len(shapes)) if len(shapes) else shapes  # a row per time
    else:
        shapes = geopandas.points_from_xy(x, y)
    frame = geopandas.GeoDataFrame(table, geometry=shapes, crs=crs)
    frame.attrs = table.attrs
    return frame


def _outlines(array: xr.DataArray, min_pixels: int) -> pd.DataFrame:
    """Connected parts of the classes of a map as polygons: columns value, name, geometry."""
    from rasterio import features

    if array.ndim != 2:
        raise EmbeddingError(
            f"polygons of classes need one map (y, x); got {tuple(array.dims)}: take one year with .emb.year(…)"
        )
    if min_pixels < 1:
        raise EmbeddingError(f"min_pixels is a whole number of 1 or more; got {min_pixels!r}")
    # the values, and as much beside them
    advice = "sample or crop first, or write with .emb.to_geoparquet or .emb.to_zarr"
    check_room(2 * array.nbytes, "a table", advice)
    flat = geometry.north_up_array(array.transpose("y", "x"))
    grid, legend = geometry.geobox_of(flat, "to_geodataframe"), legend_of(flat)
    codes = flat.values.astype(np.uint16)
    there = np.isin(codes, legend.values)
    if min_pixels > 1:
        codes = features.sieve(codes, int(min_pixels), mask=there)
    names = dict(zip(legend.values, legend.names, strict=True))
    found = [
        (int(value), names[int(value)], shapely.geometry.shape(outline))
        for outline, value in features.shapes(codes, mask=there, transform=grid.affine)
    ]
    return pd.DataFrame(found, columns=["value", "name", "geometry"])
