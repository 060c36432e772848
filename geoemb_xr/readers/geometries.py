"""Columns of geometries, as any writer encodes them: WKB, WKT, GeoArrow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.geometry import LONLAT

#: Encodings of GeoArrow, by their names in GeoParquet's footer and as extension types.
_NATIVE = ("point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon")
_NAME, _ABOUT = b"ARROW:extension:name", b"ARROW:extension:metadata"


@dataclass(frozen=True)
class GeometryColumn:
    """A column of geometries: its name, how it is encoded, and what is said of its CRS.

    Parameters
    ----------
    name : str
        Name of the column.
    encoding : str
        ``wkb``, ``wkt``, or one of GeoArrow's.
    crs : object
        A CRS that PROJ reads, GeoParquet's default where that holds; None where nothing says it.
    """

    name: str
    encoding: str
    crs: Any = None


def find_geometry(schema: Any, geo: Mapping[str, Any], usual: str) -> GeometryColumn | None:
    """The column of footprints or centres: the footer's primary one, else the usual, else one marked in the schema.

    Parameters
    ----------
    schema : pyarrow.Schema
        Schema with the metadata of its fields.
    geo : mapping
        The GeoParquet key of the footer; empty where there is none.
    usual : str
        What the product calls it; empty where its files have none.

    Returns
    -------
    GeometryColumn or None
    """
    stated = geo.get("primary_column")
    name = next((name for name in (stated, usual) if name and name in schema.names), None)
    if name is None:
        marked = (each.name for each in schema if extension_of(each).startswith(("geoarrow.", "ogc.")))
        name = next(marked, None)
    if name is None:
        return None
    field = schema.field(name)
    about = about_geometry(geo, name)
    encoding = str(about.get("encoding", "") or extension_of(field).partition(".")[2]).lower()
    if encoding not in (*_NATIVE, "wkb", "wkt"):
        encoding = "wkt" if _is_text(field.type) else "wkb"
    if about:
        return GeometryColumn(name, encoding, about.get("crs", LONLAT))
    crs = _json((field.metadata or {}).get(_ABOUT, b"")).get("crs")
    return GeometryColumn(name, encoding, crs)


def about_geometry(geo: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The entry of a column in GeoParquet's footer; empty where it is missing or not understood."""
    columns = geo.get("columns")
    about = columns.get(name) if isinstance(columns, Mapping) else None
    return about if isinstance(about, Mapping) else {}


def extension_of(field: Any) -> str:
    """The name of a field's Arrow extension type, registered here or not; empty for a plain one."""
    registered = str(getattr(field.type, "extension_name", ""))
    return registered or (field.metadata or {}).get(_NAME, b"").decode()


def read_geometries(column: Any, encoding: str, where: str) -> np.ndarray:
    """Geometries of a column as shapely objects (n,); None where one is missing.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        The column as read.
    encoding : str
        Encoding of :class:`GeometryColumn`.
    where : str
        File and column, for messages.

    Raises
    ------
    SourceError
        If they are not what the file says.
    """
    import pyarrow
    import shapely

    column = storage(column)
    out = np.full(len(column), None, dtype=object)
    there = np.asarray(column.is_valid())
    try:
        if encoding in _NATIVE:
            out[there] = _native(column.drop_null(), encoding)
        else:
            values = column.drop_null().to_numpy(zero_copy_only=False)
            out[there] = shapely.from_wkt(values) if encoding == "wkt" else shapely.from_wkb(values)
    except (shapely.errors.ShapelyError, pyarrow.ArrowException, TypeError, ValueError, KeyError) as error:
        raise SourceError(
            f"{where}: its geometries cannot be read as {encoding.upper()} ({str(error).strip()[:120]}); "
            "write the file again, such as with geopandas' to_parquet"
        ) from error
    return out


def _native(column: Any, encoding: str) -> np.ndarray:
    """GeoArrow's nested lists of coordinates, none missing."""
    import pyarrow
    import pyarrow.compute as pc
    import shapely

    values = column.combine_chunks()
    offsets = []
    for _ in range({"point": 0, "linestring": 1, "multipoint": 1, "multipolygon": 3}.get(encoding, 2)):
        lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
        offsets.append(np.append(0, np.cumsum(lengths)).astype(np.int64))
        values = values.flatten()
    if pyarrow.types.is_struct(values.type):
        x, y = (values.field(axis).to_numpy(zero_copy_only=False) for axis in ("x", "y"))
        xy = np.column_stack([x, y])
    else:
        xy = values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)[:, :2]
    kind = shapely.GeometryType[encoding.upper()]
    xy = np.ascontiguousarray(xy, np.float64)
    return np.asarray(shapely.from_ragged_array(kind, xy, tuple(reversed(offsets)) or None))


def storage(column: Any) -> Any:
    """A column as it is stored, without the extension type that names what it means."""
    import pyarrow

    while isinstance(column.type, pyarrow.BaseExtensionType):
        if isinstance(column, pyarrow.ChunkedArray):
            kind = column.type.storage_type
            column = pyarrow.chunked_array([chunk.storage for chunk in column.chunks], type=kind)
        else:
            column = column.storage
    return column


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _json(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
