"""Tables from any input: files, dicts, GeoJSON, geopandas, shapely objects and pairs all become one table."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.checks import is_number
from geoemb_xr.core.errors import EmbeddingError, SourceError, require
from geoemb_xr.core.local_paths import existing, local_path

GEOMETRY = "geometry"
#: Endings of files that geopandas reads through GDAL.
_VECTOR_FILES = (
    ".geojson", ".json", ".geojsonl", ".geojsons", ".gpkg", ".shp", ".fgb", ".zip", ".kml", ".gml", ".gpx", ".gdb"
)  # fmt: skip
#: Endings of text files with a row per line.
_TEXT_FILES = (".csv", ".tsv", ".txt")
_GEOJSON_TYPES = (
    "Point", "MultiPoint", "Polygon", "MultiPolygon", "LineString", "MultiLineString", "GeometryCollection"
)  # fmt: skip

#: What WKT has beside them; they are told from paths, and then refused as neither points nor polygons.
_CURVES = (
    "CircularString", "CompoundCurve", "CurvePolygon", "LinearRing", "MultiCurve", "MultiSurface",
    "PolyhedralSurface", "Tin", "Triangle"
)  # fmt: skip
#: How WKT begins: these names with what may follow them.
_WKT = tuple(
    f"{kind.upper()}{after}"
    for kind in (*_GEOJSON_TYPES, *_CURVES)
    for after in ("(", " (", " Z", " M", " EMPTY")
)
#: What PostGIS writes before WKT.
_SRID = re.compile(r"\s*SRID=(\d+);", re.IGNORECASE)
#: WKB in hexadecimal digits: the order of bytes, and at least a point.
_HEX = re.compile(r"0[01][0-9A-Fa-f]{40,}")


def table_of(given: Any) -> tuple[pd.DataFrame, object]:
    """Turn anything that holds places into a table, and return its CRS, or None.

    Parameters
    ----------
    given : object
        A table (pandas, geopandas, or what has ``to_pandas``), a GeoSeries, a mapping of columns, GeoJSON as a dict
        (geometry, Feature, FeatureCollection), a path, shapely geometries, an array of points, pairs, or a box
        (west, south, east, north). A text may be a path, GeoJSON or WKT.

    Returns
    -------
    (DataFrame, CRS or None)
        Geometries alone stand in a column ``geometry``, pairs in ``x`` and ``y``. ``attrs["crs"]`` keeps the CRS.

    Raises
    ------
    EmbeddingError
        If it is none of these, or two columns have one name.
    SourceError
        If a file is not there, or of a kind that is not read.
    """
    given = _as_object(given)
    if isinstance(given, pd.DataFrame):
        _refuse_twins(given)  # before geopandas does, which names none
    if isinstance(given, xr.DataArray | xr.Dataset):
        table, crs = _of_xarray(given)
    elif is_geopandas(given):
        crs = given.crs
        table = given if hasattr(given, "columns") else pd.DataFrame({GEOMETRY: given})
    elif isinstance(given, pd.DataFrame):
        table, crs = given, given.attrs.get("crs") or _crs_of_shapes(given)
    elif is_table(given):
        table, crs = given.to_pandas(), None
    elif isinstance(given, Mapping):
        table, crs = _of_mapping(given)
    elif isinstance(given, pd.Series) and (given.dtype == object or pd.api.types.is_string_dtype(given)):
        table, crs = _of_series(given), None
    elif hasattr(given, "geom_type"):
        table, crs = _of_geometries([given]), getattr(given, "crs", None)
    else:
        table, crs = _of_sequence(given)
    if crs is not None and not is_geopandas(table) and table.attrs.get("crs") is None:
        table = table.copy(deep=False)
        table.attrs["crs"] = crs  # the table alone then says where its numbers lie
    _refuse_twins(table)
    return table, crs


def _refuse_twins(table: pd.DataFrame) -> None:
    twice = sorted({str(name) for name in table.columns[table.columns.duplicated()]})
    if twice:
        raise EmbeddingError(f"the table has two columns of one name, {twice}: rename or drop one of each")


def _as_object(given: Any) -> Any:
    """Resolve a text, a path or a wrapper to the object that it stands for."""
    if isinstance(given, str) and given.lstrip().startswith("{"):
        return _json_of(given)
    if _is_written_geometry(given):
        return [given]
    if isinstance(given, str | os.PathLike):
        return read_table(given)
    if isinstance(given, pd.api.extensions.ExtensionArray) and hasattr(given, "crs"):
        return require("geopandas", "vector").GeoSeries(given)
    if isinstance(given, pd.DataFrame | pd.Series) or hasattr(given, "geom_type"):
        return given  # geopandas would make GeoJSON of itself
    if hasattr(given, "__geo_interface__"):
        return given if isinstance(given, Mapping) else given.__geo_interface__
    return given


def is_written(given: Any) -> bool:
    """Whether a text is GeoJSON or WKT and not a path; bytes are WKB."""
    return _is_written_geometry(given) or (isinstance(given, str) and given.lstrip().startswith("{"))


def shapes_of(table: pd.DataFrame) -> list[Any]:
    """Names of the columns of geopandas' geometries, which a plain table may have, too."""
    return [name for name, dtype in table.dtypes.items() if str(dtype) == GEOMETRY]


def _crs_of_shapes(table: pd.DataFrame) -> object:
    """The CRS of geometries in a table that is no longer a GeoDataFrame, as after merging."""
    columns = shapes_of(table)
    return getattr(table[columns[0]].array, "crs", None) if len(columns) == 1 else None


def file_of(given: Any) -> str | None:
    """The file of places: a path, or the file that a table was read from; None for anything else."""
    if isinstance(given, str | os.PathLike):
        return None if is_written(given) else os.fspath(given)
    attrs = getattr(given, "attrs", None)
    return attrs.get(FILE) if isinstance(attrs, Mapping) else None


def is_table(given: Any) -> bool:
    """Whether an object is a table of pandas or geopandas, or of a library that converts to them."""
    return isinstance(given, pd.DataFrame) or (
        hasattr(given, "to_pandas")
        and hasattr(given, "columns")
        and not isinstance(given, xr.Dataset | xr.DataArray)
    )


def is_geopandas(given: Any) -> bool:
    """Whether it is a GeoSeries, or a GeoDataFrame with a geometry column."""
    return hasattr(given, "crs") and isinstance(given, pd.Series | pd.DataFrame) and hasattr(given, GEOMETRY)


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table from a file: CSV, Parquet, Feather, GeoJSON, GeoPackage, Shapefile, FlatGeobuf.

    Parameters
    ----------
    path : path
        Path of the file. A layer of several is named behind it, as QGIS does: ``fields.gpkg|layername=2024``.

    Returns
    -------
    DataFrame or GeoDataFrame

    Raises
    ------
    SourceError
        If the file is not there, cannot be read, is of another kind, or has several layers of which none is named.
    """
    name, bar, layer = os.fspath(path).partition(LAYER)
    if bar and not local_path(path).exists():
        path = name
    else:
        layer = ""
    path = existing(path, "file of points, areas or labels")
    ending = path.suffix.lower()
    try:
        if ending in _TEXT_FILES or (ending == ".gz" and Path(path.stem).suffix.lower() in _TEXT_FILES):
            return _read_text(path)
        if ending == ".feather":
            return _read_feather(path)
        if ending in (".parquet", ".pq", ".geoparquet"):
            pyarrow = require("pyarrow.parquet", "vector")
            stored = pyarrow.read_table(path)
            stored.validate(full=True)  # a text that is not UTF-8 would fail later, without a name
            if b"geo" in (stored.schema.metadata or {}):
                found: pd.DataFrame = require("geopandas", "vector").read_parquet(path)
                return found
            return pd.read_parquet(path)
        if ending in _VECTOR_FILES:
            if path.is_file() and b"<OGRVRT" in _start_of(path):
                raise SourceError(
                    f"{path} is a VRT, which names other files or URLs; give the file that it means"
                )
            options = _layer_of(path, layer)
            frame: pd.DataFrame = require("geopandas", "vector").read_file(path, **options)
            return frame
    except (EmbeddingError, ImportError, MemoryError):
        raise
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path} is not encoded in UTF-8 ({error}): save it so, or read it and give the table"
        ) from error
    except Exception as error:  # of pandas, Arrow, GDAL or GEOS
        raise SourceError(f"{path} cannot be read as {ending[1:]}: {error}") from error
    if path.is_dir():
        raise SourceError(f"a file of points, areas or labels is needed; got a folder: {path}")
    raise SourceError(
        f"tables in {ending or 'a file without an ending'} are not read; use CSV, Parquet, GeoJSON or "
        f"GeoPackage: {path}"
    )


# --- what is not a table ---------------------------------------------------------------------------------------


def _read_text(path: Path) -> pd.DataFrame:
    """Read one row per line, by the separator of the first line; decimal commas count unless commas separate."""
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rb") as file:
        encoding = "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with opener(path, "rt", encoding=encoding) as text:
        header, first = text.readline(), text.readline()
    outside = re.sub(r'"[^"]*"', "", header)
    sign = max(",;\t|", key=outside.count)
    first = re.sub(r"\d+\.\d+\.\d+", "", first)  # a date
    decimal = "," if sign != "," and re.search(r"\d,\d", first) and not re.search(r"\d\.\d", first) else "."
    return pd.read_csv(path, sep=sign, decimal=decimal, encoding=encoding, skipinitialspace=True)


def _layer_of(path: Path, layer: str) -> dict[str, str]:
    """The option that reads the layer that was named, or the only one with places in it."""
    geopandas = require("geopandas", "vector")
    table = geopandas.list_layers(path)
    layers = table["name"].tolist()
    if layer:
        if layer not in layers:
            raise SourceError(f"{path} has no layer {layer!r}; it has {', '.join(layers)}")
        return {"layer": layer}
    filled = table.loc[table["geometry_type"].notna(), "name"].tolist()
    if len(filled) > 1:  # GPX has the same ones in every file
        filled = [name for name in filled if len(geopandas.read_file(path, layer=name, rows=1))]
    if len(filled) > 1:
        raise SourceError(
            f"{path} has several layers: {', '.join(filled)}; name one of them: '{path.name}{LAYER}{filled[0]}'"
        )
    return {"layer": filled[0]} if filled and len(layers) > 1 else {}


def _read_feather(path: Path) -> pd.DataFrame:
    feather = require("pyarrow.feather", "vector")
    table = feather.read_table(path)
    if b"geo" in (table.schema.metadata or {}):
        found: pd.DataFrame = require("geopandas", "vector").read_feather(path)
        return found
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1024)


def _of_xarray(given: xr.DataArray | xr.Dataset) -> tuple[pd.DataFrame, object]:
    """An array of points: what lies along ``location``, and the CRS of x and y."""
    variables = {**given.coords, **(given.data_vars if isinstance(given, xr.Dataset) else {})}
    dims = {v.dims for name, v in variables.items() if str(name).lower() in ("x", "lon", "longitude")}
    if len(dims) != 1 or len(next(iter(dims))) != 1:
        raise EmbeddingError(
            f"points are an array with x and y along 'location', or a table; got dims {tuple(given.dims)}"
        )
    (dim,) = next(iter(dims))
    if isinstance(given, xr.DataArray) and given.dims == (dim,):
        variables["label" if given.name is None else given.name] = given
    columns = {str(name): v.values for name, v in variables.items() if v.dims == (dim,) and name != dim}
    if "y" not in columns and not {"lat", "latitude"} & set(map(str.lower, columns)):
        raise EmbeddingError(f"points need y or lat along {dim!r}; got {sorted(columns)}")
    return pd.DataFrame(columns, index=given.indexes.get(dim)), geometry.crs_of(given)


def _of_mapping(given: Mapping[Any, Any]) -> tuple[pd.DataFrame, object]:
    """GeoJSON, which has a type, or columns by name."""
    kind = given.get("type")
    if kind == "FeatureCollection":
        return _of_features(given.get("features") or []), _geojson_crs(given)
    if kind == "Feature":
        return _of_features([given]), _geojson_crs(given)
    if isinstance(kind, str) and kind in _GEOJSON_TYPES:
        return _of_geometries([given]), _geojson_crs(given)
    try:
        columns = {name: [v] if np.isscalar(v) else v for name, v in given.items()}
        return pd.DataFrame(columns), None
    except ValueError as error:
        raise EmbeddingError(f"a dict of columns needs columns of one length: {error}") from error


def _of_features(features: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    features = list(features)
    table = pd.DataFrame(
        [dict(each.get("properties") or {}) for each in features], index=range(len(features))
    )
    table[GEOMETRY] = column_of_objects([each.get("geometry") for each in features])
    ids = [each.get("id") for each in features]
    return table if None in ids or not ids else table.set_index(pd.Index(ids, name="id"))


def _geojson_crs(given: Mapping[str, Any]) -> object:
    """The CRS of old GeoJSON, where it names one."""
    named = given.get("crs") or {}
    return named.get("properties", {}).get("name") if isinstance(named, Mapping) else named


def _of_geometries(given: Iterable[Any]) -> pd.DataFrame:
    """Geometries as a column; several points in one are several rows."""
    rows: list[Any] = []
    for number, each in enumerate(given):
        shape = geometry_of(each, number)
        parts = list(getattr(shape, "geoms", []))
        rows += parts if parts and all(part.geom_type == "Point" for part in parts) else [shape]
    return pd.DataFrame({GEOMETRY: column_of_objects(rows)})


def _of_series(given: pd.Series[Any]) -> pd.DataFrame:
    """A row of a table, whose index are names, or a column of geometries."""
    if given.index.map(lambda name: isinstance(name, str)).all() and not _is_geometry(
        given.iloc[:1].squeeze()
    ):
        return pd.DataFrame([given.to_dict()], index=[given.name])
    return pd.DataFrame({GEOMETRY: given})


def _of_sequence(given: Any) -> tuple[pd.DataFrame, object]:
    """A list of geometries, GeoJSON or records, or pairs of numbers."""
    if np.ma.isMaskedArray(given) and given.dtype.kind in "iuf":
        given = np.ma.filled(given.astype(np.float64), np.nan)
    items = [*map(_geojson_of, given)] if isinstance(given, Iterable) else None
    if items is not None and len(items) == 4 and all(map(is_number, items)):
        return _of_geometries([_box_of(items)]), None
    if items is not None and any(_is_geometry(each) or _is_written_geometry(each) for each in items):
        crs = next((each.crs for each in items if getattr(each, "crs", None) is not None), None)
        return _of_geometries(items), crs
    if items and all(isinstance(each, Mapping) for each in items):
        if all(each.get("type") == "Feature" for each in items):
            return _of_features(items), None
        return pd.DataFrame.from_records(items), None
    try:
        pairs = np.asarray(given if items is None else items, dtype=np.float64)
    except (TypeError, ValueError):
        raise EmbeddingError(
            f"points are pairs (lon, lat), a table, shapely points, GeoJSON or a path; got {_short(given)}"
        ) from None
    pairs = pairs[None] if pairs.ndim == 1 and pairs.size == 2 else pairs
    if pairs.ndim == 1 and pairs.size == 0:
        pairs = pairs.reshape(0, 2)
    if pairs.ndim == 0:
        raise EmbeddingError(
            f"points are pairs (lon, lat), a table, shapely points, GeoJSON or a path; got {_short(given)}"
        )
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise EmbeddingError(
            f"points are pairs (lon, lat), shape (n, 2); got shape {pairs.shape}. Two columns become pairs with "
            "numpy.column_stack([lon, lat])."
        )
    table = pd.DataFrame({"x": pairs[:, 0], "y": pairs[:, 1]})
    table.attrs[BARE] = True
    return table, None


def _json_of(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise EmbeddingError(f"a text that begins with {{ is GeoJSON, which this is not: {error}") from error


def _is_written_geometry(given: Any) -> bool:
    """Whether it is WKT or WKB: a text that begins with the name of a geometry, or bytes."""
    if isinstance(given, str):
        text = _SRID.sub("", given).strip()
        return text.upper().startswith(_WKT) or _HEX.fullmatch(text) is not None
    return isinstance(given, bytes)


def _geojson_of(given: Any) -> Any:
    """A feature of another library as the dict that it stands for."""
    if hasattr(given, "geom_type") or isinstance(given, Mapping):
        return given
    return getattr(given, "__geo_interface__", given)


def _box_of(sides: list[Any]) -> Any:
    """A box west, south, east, north; in two parts where west > east crosses the antimeridian."""
    import shapely

    west, south, east, north = map(float, sides)
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.MultiPolygon([shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)])


#: What parts the path of a file from the name of a layer in it.
LAYER = "|layername="
#: Names the file that a table was read from.
FILE = "geoemb_xr: file"
#: Marks a table made of bare pairs: a row without a place has nothing but its position, and keeps it.
BARE = "geoemb_xr: bare pairs"


def _is_geometry(given: Any) -> bool:
    return (
        hasattr(given, "geom_type")
        or hasattr(given, "__geo_interface__")
        or (isinstance(given, Mapping) and given.get("type") in _GEOJSON_TYPES)
    )


def column_of_objects(values: list[Any]) -> np.ndarray:
    """A column of objects, also where they look like sequences."""
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _short(given: Any) -> str:
    text = repr(given)
    return f"{type(given).__name__} {text if len(text) <= 60 else text[:57] + '…'}"


# --- geometries and columns ---------------------------------------------------------------------------------


def geometry_of(given: Any, row: Any) -> Any:
    """A shapely geometry from shapely, odc-geo, GeoJSON, WKT or WKB; None where there is none.

    Raises
    ------
    EmbeddingError
        If it is none of these; the message names the row.
    """
    import shapely

    given = getattr(given, "geom", given)  # odc-geo wraps shapely
    if given is None or isinstance(given, shapely.Geometry):
        return given
    try:
        if isinstance(given, Mapping):
            return shapely.from_geojson(json.dumps(given))
        if isinstance(given, bytes):
            return shapely.from_wkb(given)
        if isinstance(given, str):
            return _read_geometry(given)
        if hasattr(given, "__geo_interface__"):
            return shapely.from_geojson(json.dumps(given.__geo_interface__))
    except (shapely.errors.ShapelyError, TypeError, ValueError, NotImplementedError) as error:
        raise EmbeddingError(f"row {row} has no geometry that can be read: {error}") from error
    if pd.api.types.is_scalar(given) and pd.isna(given):
        return None
    raise EmbeddingError(f"row {row} has no geometry but {_short(given)}")


def _read_geometry(text: str) -> Any:
    """A geometry of GeoJSON, WKT or WKB in hexadecimal digits; what PostGIS writes names its CRS."""
    import shapely

    if text.lstrip().startswith("{"):
        return shapely.from_geojson(text)
    if not text.strip():
        return None
    srid = _SRID.match(text)
    text = _SRID.sub("", text).strip()
    shape = shapely.from_wkb(text) if _HEX.fullmatch(text) else shapely.from_wkt(text)
    return shapely.set_srid(shape, int(srid[1])) if srid else shape


def plain(column: pd.Series[Any]) -> np.ndarray:
    """Values as NumPy has them; gaps among text, integers and booleans are None.

    Times come in UTC without a zone, texts and categories as objects.
    """
    dtype = column.dtype
    if isinstance(dtype, pd.PeriodDtype):
        column = column.dt.start_time
    elif isinstance(dtype, pd.CategoricalDtype):
        kind = dtype.categories.dtype
        column = column.astype(object if column.isna().any() or kind.kind == "O" else kind)
    elif isinstance(dtype, pd.DatetimeTZDtype) or (
        pd.api.types.is_datetime64_any_dtype(dtype) and not isinstance(dtype, np.dtype)
    ):
        column = pd.to_datetime(column, utc=True).dt.tz_localize(None)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind != "O":
        return np.asarray(column)
    if pd.api.types.is_float_dtype(column.dtype):
        return column.to_numpy(np.float64, na_value=np.nan)
    if not column.isna().any():
        if pd.api.types.is_bool_dtype(column.dtype) and column.dtype != object:
            return column.to_numpy(bool)
        if pd.api.types.is_integer_dtype(column.dtype):
            return column.to_numpy(np.int64)
        return np.asarray(column, dtype=object)
    values = np.array(column, dtype=object)
    values[column.isna().to_numpy()] = None
    return values
