"""The one way from points and areas of any kind to places, and from places to rows and columns."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyproj
import shapely

from geoemb_xr.core import areas, geometry, longitudes
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.geometry import LONLAT, SUBPIXEL, as_crs, same_crs, transformer
from geoemb_xr.core.notes import say
from geoemb_xr.geo import polygons, tables

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: Names of columns of longitude and latitude, then of x and y, in lower case without separators.
_LON = ("lon", "longitude", "lng", "long", "londd", "decimallongitude", "longitudewgs84", "lonwgs84")
_LAT = ("lat", "latitude", "latdd", "decimallatitude", "latitudewgs84", "latwgs84")
_X = ("x", "xcoord", "pointx", "coordx", "easting", "eastings", "utmx")
_Y = ("y", "ycoord", "pointy", "coordy", "northing", "northings", "utmy")
_SHAPES = ("geometry", "geom", "thegeom", "wkt", "wkb", "geo", "wkbgeometry", "wktgeom")
#: Words in longer names, such as ``Longitude (deg)`` or ``plot_lat``.
_LON_WORDS, _LAT_WORDS = {"lon", "long", "lng", "longitude"}, {"lat", "latitude"}


# --- places -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """Points or areas in the CRS that they came in, with the table they stand in.

    Parameters
    ----------
    table : DataFrame (n rows)
        All columns, those that say where included.
    crs : pyproj.CRS
        CRS of points and shapes.
    points : ndarray of float64 (n, 2), optional
        x and y, NaN where a place is missing; None for areas.
    shapes : ndarray of object (n,), optional
        Valid shapely polygons, None where one is missing; None for points.
    missing : ndarray of bool (n,)
        Rows whose place is missing or empty.
    place_columns : frozenset of str
        Columns that say where.
    """

    table: pd.DataFrame
    crs: pyproj.CRS
    points: np.ndarray | None
    shapes: np.ndarray | None
    missing: np.ndarray
    place_columns: frozenset[str] = field(default=frozenset())

    def __len__(self) -> int:
        return len(self.table)

    def xy(self, crs: object) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates of points in a CRS, not finite where one cannot be reached or has no place.

        Raises
        ------
        EmbeddingError
            If they are areas.
        """
        if self.points is None:
            kinds = sorted(self._kinds())
            raise EmbeddingError(f"points must be points; got {kinds}. For polygons use zonal_stats.")
        x, y = self.points.T
        if same_crs(self.crs, crs):
            return x.copy(), y.copy()
        px, py = transformer(self.crs, as_crs(crs)).transform(x, y, errcheck=False)
        return np.asarray(px, np.float64), np.asarray(py, np.float64)

    def polygons(self, crs: object) -> np.ndarray:
        """Valid polygons in a CRS, None where one is missing or empty.

        Raises
        ------
        EmbeddingError
            If they are points, or there are none.
        CoverageError
            If one cannot be reached in that CRS.
        """
        if self.shapes is None:
            raise EmbeddingError(f"an area is a polygon; got {'points' if len(self) else 'none'}")
        return polygons.projected(self.shapes, self.crs, as_crs(crs))

    def polygons_on(self, grid: GeoBox) -> np.ndarray:
        """Polygons in the CRS of a grid; in degrees turned to where the grid runs past 180."""
        target = as_crs(grid.crs)
        shapes = self.polygons(target)
        if not target.is_geographic:
            return shapes
        return polygons.each_around_the_world(shapes, areas.area_of(grid).bounds)

    def area(self) -> areas.Area:
        """The smallest box around all of them; in degrees across the antimeridian where that is smaller.

        Raises
        ------
        EmbeddingError
            If all places are missing.
        """
        if self.missing.all():
            raise EmbeddingError(f"none of the {len(self)} places has a geometry")
        if self.points is not None:
            held = self.points[np.isfinite(self.points).all(axis=1)]
            if not len(held):
                raise EmbeddingError("points has no point with finite coordinates")
            boxes = np.concatenate([held, held], axis=1)
        else:
            assert self.shapes is not None
            boxes = polygons.boxes_of(self.shapes)
        return areas.area_around(boxes, self.crs)

    def take(self, rows: np.ndarray) -> Places:
        """Some of them, by a mask or positions."""
        return replace(
            self,
            table=self.table.iloc[np.flatnonzero(rows) if rows.dtype == bool else rows],
            points=None if self.points is None else self.points[rows],
            shapes=None if self.shapes is None else self.shapes[rows],
            missing=self.missing[rows],
        )

    def present(self, what: str) -> Places:
        """Those that have a place; says how many are left out.

        Raises
        ------
        EmbeddingError
            If there are some, and none has a place.
        """
        if not self.missing.any():
            return self
        self.say_missing(f"{what} leaves out")
        return self.take(~self.missing)

    def say_missing(self, what: str) -> None:
        """Say how many rows have no place.

        Raises
        ------
        EmbeddingError
            If there are rows, and none has a place.
        """
        lost, n = int(self.missing.sum()), len(self)
        if lost and lost == n:
            raise EmbeddingError(f"none of the {n} rows of the table has a geometry, or all are empty")
        if lost:
            say(f"{what} {lost} of {n} rows: without a geometry, or with an empty one")

    def riding(self) -> tuple[pd.Index, dict[str, np.ndarray]]:
        """The index as ``location``, and the columns that do not say where; a MultiIndex becomes columns."""
        table = self.table.reset_index() if isinstance(self.table.index, pd.MultiIndex) else self.table
        rest = {  # degrees ride along: x and y of the result are in another CRS
            str(name): tables.plain(table[name])
            for name in table.columns
            if str(name) not in self.place_columns or _says_degrees(name)
        }
        return table.index.rename("location"), rest

    def _kinds(self) -> set[str]:
        return (set() if self.shapes is None else _kinds_of(self.shapes)) or {"Point"}


def read_places(given: Any, *, crs: object = None) -> Places:
    """Points or areas from anything that holds them.

    Parameters
    ----------
    given : object
        Pairs ``(lon, lat)``, one or several; shapely points or polygons, one or several; a GeoSeries or
        GeoDataFrame; a table with columns of longitude and latitude in any usual spelling, of x and y with a CRS
        in ``table.attrs["crs"]``, or of geometries (shapely, WKT, WKB, GeoJSON); a dict of such columns; GeoJSON
        as a dict; an array of points; or the path of a file with any of these.
    crs : CRS, optional
        CRS of numbers and shapes that bring none; longitude and latitude by default.

    Returns
    -------
    Places

    Raises
    ------
    EmbeddingError
        If nothing says where, geometries are neither points nor polygons, or numbers lie outside their CRS.
    SourceError
        If a file cannot be read.

    Examples
    --------
    >>> read_places({"Longitude": [11.37], "Latitude": [47.25], "crop": ["oats"]}).riding()[1]["crop"]
    array(['oats'], dtype=object)
    """
    if isinstance(given, Places):
        return given
    try:
        return _placed(given, crs)
    except EmbeddingError as error:
        name = tables.file_of(given)
        if name is None or os.path.basename(name) in str(error):
            raise
        raise type(error)(f"{name}: {error}") from error


def _placed(given: Any, crs: object) -> Places:
    table, own = tables.table_of(given)
    source = as_crs(own if own is not None else crs if crs is not None else LONLAT)
    stated = own is not None or (crs is not None and not same_crs(crs, LONLAT))
    if tables.is_geopandas(table):
        return _of_shapes(table, table.geometry, str(table.geometry.name), source, stated)
    table = with_places(table)
    shape, pair, degrees = _where(table, source)
    if shape is not None:
        return _of_shapes(table, table[shape], str(shape), source, stated)
    if pair is not None:
        return _of_numbers(table, pair, as_crs(LONLAT) if degrees else source, stated)
    raise EmbeddingError(
        "a table of places needs columns 'lon' and 'lat' (degrees), 'x' and 'y' with a CRS, or 'geometry'; got "
        f"{list(map(str, table.columns))}"
    )


def _where(table: pd.DataFrame, crs: pyproj.CRS) -> tuple[Any, tuple[Any, Any] | None, bool]:
    """The column of geometries, or those of two numbers, and whether these are degrees whatever the CRS."""
    known = {_spelling(name): name for name in reversed(table.columns)}
    degrees, metres = _first_pair(known, _LON, _LAT), _first_pair(known, _X, _Y)
    own = tables.shapes_of(table)
    shape = own[0] if len(own) == 1 else next((known[name] for name in _SHAPES if name in known), None)
    if degrees is not None and not own and (crs.is_geographic or metres is None):
        return None, degrees, not crs.is_geographic
    if shape is not None:
        return shape, None, False
    mixed = _first_pair(known, _LON + _X, _LAT + _Y)
    return None, metres or mixed or _worded(table.columns), False


def says_where(table: pd.DataFrame) -> bool:
    """Whether a table has columns of places."""
    if tables.is_geopandas(table):
        return True
    shape, pair, _ = _where(table, as_crs(table.attrs.get("crs") or LONLAT))
    return shape is not None or pair is not None


def points_xy(points: Any, crs: object) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of points in a CRS.

    Parameters
    ----------
    points : object
        Anything that :func:`read_places` takes.
    crs : CRS
        CRS of the result.

    Returns
    -------
    tuple of ndarray (n,)
        x and y; not finite where a point has no place or cannot be reached in that CRS.
    """
    return read_places(points).xy(crs)


def polygons_of(areas: Any, crs: object, target: pyproj.CRS) -> np.ndarray:
    """Polygons in another CRS, without those that are missing.

    Parameters
    ----------
    areas : object
        Anything that :func:`read_places` takes.
    crs : CRS
        CRS of polygons that bring none.
    target : pyproj.CRS
        CRS of the result.

    Returns
    -------
    ndarray of object (n,)
        Valid shapely polygons.

    Raises
    ------
    EmbeddingError
        If there are none, or something that is not a polygon is among them.
    CoverageError
        If one cannot be reached in that CRS.
    """
    found = read_places(areas, crs=crs)
    if not len(found):
        raise EmbeddingError("an area is a polygon; got none")
    return found.present("the area").polygons(target)


# --- columns that say where ---------------------------------------------------------------------------------


def _spelling(name: object) -> str:
    return "".join(letter for letter in str(name).lower() if letter.isalnum())


def _says_degrees(name: object) -> bool:
    return _spelling(name) in _LON + _LAT or bool(_words(name) & (_LON_WORDS | _LAT_WORDS))


def _words(name: object) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", str(name))}


def _worded(columns: pd.Index) -> tuple[Any, Any] | None:
    """The one column with a word for longitude in its name, and the one for latitude."""
    lon, lat = ([c for c in columns if _words(c) & words] for words in (_LON_WORDS, _LAT_WORDS))
    return (lon[0], lat[0]) if len(lon) == len(lat) == 1 else None


def with_places(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose index says where, as xarray's ``to_dataframe`` makes it, with that in columns."""
    where = [name for name in table.index.names if _spelling(name) in (*_LON, *_LAT, *_X, *_Y)]
    where = [name for name in where if name not in table.columns]
    return table.reset_index(where) if len(where) == 2 else table


def _first_pair(known: dict[str, Any], *spellings: tuple[str, ...]) -> tuple[Any, Any] | None:
    found = [next((known[n] for n in names if n in known), None) for names in spellings]
    return (found[0], found[1]) if None not in found else None


def _of_numbers(table: pd.DataFrame, names: tuple[Any, Any], crs: pyproj.CRS, stated: bool) -> Places:
    points = np.column_stack([_numbers(table[name]) for name in names])
    points[~np.isfinite(points)] = np.nan
    there = np.isfinite(points).all(axis=1)
    missing = np.zeros(len(table), bool) if table.attrs.get(tables.BARE) else ~there
    points = _in_the_world(points, crs, stated, table.index)
    points[missing] = np.nan
    beside = {str(name) for name in table.columns if str(name).lower() in ("x", "y")}
    return Places(table, crs, points, None, missing, frozenset({*map(str, names), *beside}))


def _numbers(column: pd.Series[Any]) -> np.ndarray:
    """A column of coordinates as float64, NaN where there is none."""
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = np.flatnonzero((numbers.isna() & ~column.isna()).to_numpy())
    texts = (str(column.iloc[row]).strip().lower() for row in wrong)
    wrong = wrong[[text not in ("", "nan", "na", "none", "null") for text in texts]] if wrong.size else wrong
    if wrong.size:
        row = wrong[0]
        raise EmbeddingError(
            f"column {str(column.name)!r} has no number in row {column.index[row]!r}: {column.iloc[row]!r}; "
            "coordinates are numbers with a decimal point"
        )
    return numbers.to_numpy(np.float64, na_value=np.nan)


def _of_shapes(table: pd.DataFrame, column: Any, name: str, crs: pyproj.CRS, stated: bool) -> Places:
    """Points or polygons of a column of geometries."""
    shapes = _read_shapes(column, table.index)
    missing = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    shapes[missing] = None
    if not stated:
        crs, stated = _own_crs(shapes[~missing], crs)
    kinds = _kinds_of(shapes)
    points = None
    if kinds <= {"Point", "MultiPoint"}:
        single = tables.column_of_objects(
            [_one_point(*pair) for pair in zip(shapes, table.index, strict=True)]
        )
        points = np.column_stack([shapely.get_x(single), shapely.get_y(single)])
        missing = missing | ~np.isfinite(points).all(axis=1)
        points = _in_the_world(points, crs, stated, table.index)
    elif kinds <= {"Polygon", "MultiPolygon"}:
        _refuse_unfinished(shapes, table.index)
        bounds = shapely.bounds(shapes)
        for corner in (bounds[:, :2], bounds[:, 2:]):
            _in_the_world(corner, crs, stated, table.index)
        shapes = polygons.valid(shapes)
        if crs.is_geographic:
            shapes = longitudes.in_one_piece(shapes)
    else:
        raise EmbeddingError(f"places are points or areas are polygons; got {sorted(kinds)}")
    every = not kinds  # nothing but gaps: these are points as well as areas
    return Places(table, crs, points, shapes if points is None or every else None, missing, frozenset({name}))


def _read_shapes(column: Any, rows: pd.Index) -> np.ndarray:
    """Geometries of a column, None where there is none; one by one where they are not shapely's."""
    shapes = np.array(column, dtype=object)
    for i in np.flatnonzero(~shapely.is_valid_input(shapes)).tolist():
        shapes[i] = tables.geometry_of(shapes[i], rows[i])
    for i in np.flatnonzero(shapely.get_type_id(shapes) == shapely.GeometryType.GEOMETRYCOLLECTION).tolist():
        shapes[i] = _one_kind(shapes[i])
    return shapes


def _kinds_of(shapes: np.ndarray) -> set[str]:
    """Names of the kinds of geometries, but of None."""
    _, first = np.unique(shapely.get_type_id(shapes), return_index=True)
    return {each.geom_type for each in shapes[first] if each is not None}


def _refuse_unfinished(shapes: np.ndarray, rows: pd.Index) -> None:
    """Raise where a polygon has a corner that is nowhere."""
    corners, of = shapely.get_coordinates(shapes, return_index=True)
    wrong = of[~np.isfinite(corners).all(axis=1)]
    if wrong.size:
        raise EmbeddingError(f"the polygon in row {rows[wrong[0]]!r} has a corner that is NaN or infinite")


def _own_crs(shapes: np.ndarray, otherwise: pyproj.CRS) -> tuple[pyproj.CRS, bool]:
    """The CRS that PostGIS writes into its geometries, and whether they say one."""
    said = set(shapely.get_srid(shapes).tolist()) - {0}
    if len(said) > 1:
        raise EmbeddingError(f"the geometries are in several CRSs, {sorted(said)}; bring them to one")
    return (as_crs(said.pop()), True) if said else (otherwise, False)


def _one_kind(shape: Any) -> Any:
    """The polygons of a collection, which may hold lines where they were mended; else the collection as it is."""
    if shape.is_empty:
        return shape
    parts = shapely.get_parts(shape)
    if all(each.geom_type == "Point" for each in parts):
        return shapely.MultiPoint(parts)
    found = [each for each in parts if each.geom_type in ("Polygon", "MultiPolygon")]
    return shapely.union_all(found) if found else shape


def _one_point(shape: Any, row: Any) -> Any:
    if shape is None or shape.geom_type == "Point":
        return shape
    if len(shape.geoms) > 1:
        raise EmbeddingError(
            f"row {row!r} is a MultiPoint of {len(shape.geoms)} points; a row is one point: use .explode() first"
        )
    return shape.geoms[0]


def _in_the_world(points: np.ndarray, crs: pyproj.CRS, stated: bool, rows: pd.Index) -> np.ndarray:
    """Coordinates with longitudes within ±180; refuses what cannot be degrees."""
    if not crs.is_geographic:
        return points
    x, y = points.T
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero((np.abs(x) > 360) | (np.abs(y) > 90))
        if wrong.size:
            raise EmbeddingError(
                _not_degrees(x[wrong[0]], y[wrong[0]], crs, stated, rows[wrong[0]], wrong.size)
            )
        far = np.abs(x) > 180
    return np.column_stack([np.where(far, longitudes.turned(x), x), y])


def _not_degrees(x: float, y: float, crs: pyproj.CRS, stated: bool, row: Any, count: int) -> str:
    where = f"row {row!r}: ({x:.10g}, {y:.10g})"
    what = f"{count} of the places lie outside the world in degrees, the first in {where}. "
    if abs(x) <= 90 and abs(y) <= 360:
        return what + "The longitude comes first: (lon, lat)."
    if stated:
        return (
            what
            + f"They are said to be in {geometry.crs_name(crs)}, but look like metres: correct their CRS."
        )
    return what + (
        "Without a CRS, numbers are longitude and latitude; these look like metres: give a GeoDataFrame with its "
        "CRS, crs='EPSG:…' where the call takes one, or table.attrs['crs'] = 'EPSG:…'."
    )


# --- rows and columns ---------------------------------------------------------------------------------------


def positions_on(grid: GeoBox, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of points on a grid, as fractions; degrees may be written a turn away."""
    if as_crs(grid.crs).is_geographic:
        middle, _ = grid.affine * (grid.shape[1] / 2, grid.shape[0] / 2)
        x = longitudes.turned(x, middle)
    c, r = ~grid.affine * (x, y)
    return r, c


def pixels_at(grid: GeoBox, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of points on a grid, and whether they lie on it; 0 where not.

    Parameters
    ----------
    grid : GeoBox
        Any orientation.
    x, y : ndarray (n,)
        Coordinates in the grid's CRS; degrees may be written a turn away.
    """
    r, c = positions_on(grid, x, y)
    with np.errstate(invalid="ignore"):
        row = np.floor(np.round(r * SUBPIXEL) / SUBPIXEL)
        col = np.floor(np.round(c * SUBPIXEL) / SUBPIXEL)
        inside = (row >= 0) & (row < grid.shape[0]) & (col >= 0) & (col < grid.shape[1])
    return np.where(inside, row, 0).astype(np.int64), np.where(inside, col, 0).astype(np.int64), inside
