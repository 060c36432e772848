"""Tables of vectors as sources: CSV, Parquet, GeoJSON and DataFrames with a product's bands as columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.arrays import concat
from geoemb_xr.core.errors import CoverageError, EmbeddingError, SourceError, require
from geoemb_xr.core.model import Product
from geoemb_xr.core.times import describe_times, time_spans
from geoemb_xr.geo import tables
from geoemb_xr.geo.places import read_places
from geoemb_xr.geo.vector_tables import dates_of, vector_columns
from geoemb_xr.geo.wrapping import wrap
from geoemb_xr.readers.tiles import Request
from geoemb_xr.stores.listing import SUFFIXES, reading_parquet
from geoemb_xr.stores.paths import expand
from geoemb_xr.stores.pruning import touching

#: Endings of files that are tables and nothing else.
_ENDINGS = (".csv", ".tsv", ".geojson", ".gpkg", ".shp", ".fgb", ".feather")
#: Vectors of so many rows are one block.
_ROWS = 65_536


def holds_vectors(source: Any, product: Product) -> bool:
    """Whether a source is a table of vectors, or several, and no container of the product's own.

    Parameters
    ----------
    source : object
        The `source` of ``gx.open``.
    product : Product
        The product of the vectors. Files of patches are Parquet, too; their columns tell them apart.

    Raises
    ------
    SourceError
        If some of a list are tables, and others are not.
    """
    if isinstance(source, list | tuple):
        are = [holds_vectors(each, product) for each in source]
        if any(are) and not all(are):
            table, other = source[are.index(True)], source[are.index(False)]
            raise SourceError(
                f"a list holds tables of vectors or files of {product.name!r}, not both: {_named(table)} is a "
                f"table, {_named(other)} is none; open them apart"
            )
        return any(are)
    source = os.fspath(source) if isinstance(source, os.PathLike) else source
    if tables.is_table(source) or tables.is_geopandas(source):
        return True
    if isinstance(source, str) and source.lower().endswith(_ENDINGS):
        return True
    if (
        not isinstance(source, str)
        or not source.lower().endswith((*SUFFIXES, ".pq"))
        or not os.path.isfile(source)
    ):
        return False
    if product.kind != "patch" or product.open is None:
        return True
    with reading_parquet(source):
        names = require("pyarrow.parquet", "remote").read_schema(source).names
    return vector_columns(names, product) is not None


def _named(source: Any) -> str:
    return repr(os.fspath(source)) if isinstance(source, str | os.PathLike) else f"a {type(source).__name__}"


def open_table(source: Any, request: Request, product: Product) -> xr.DataArray:
    """Rows of a table, or of several with the same columns, that an area and a time leave, as points.

    Raises
    ------
    CoverageError
        If none lies there.
    SourceError
        If the table has no vectors of the product, or several differ in columns, CRS or codes.
    ValueError
        If a grid or points are asked for: a table of points is not a raster.
    """
    if request.geobox is not None or request.points is not None:
        raise ValueError(
            "a table of vectors has its own points, and no pixels to put on a grid or to look others up in; leave "
            "out points=, like= and geobox=, or select rows with bbox= and time="
        )
    sources = [
        found
        for each in (source if isinstance(source, list | tuple) else [source])
        for found in _files_of(each)
    ]
    array = _as_one(sources, [_all_rows(each, product, request.version) for each in sources])
    keep = np.ones(array.sizes["location"], bool)
    if request.area is not None:
        crs = geometry.as_crs(geometry.crs_of(array))
        boxes = request.area.lonlat() if crs.is_geographic else request.area.bounds_in(crs)
        x, y = array["x"].values, array["y"].values
        keep &= touching(np.stack([x, y, x, y], axis=1), boxes, degrees=crs.is_geographic)
    spans = time_spans(request.time)
    if spans is not None:
        if "date" not in array.coords:
            raise SourceError("the table says no date of its vectors: leave out time=")
        dates = np.asarray(array["date"].values)
        keep &= np.any([(dates >= start) & (dates < stop) for start, stop in spans], axis=0)
    if not keep.any() and keep.size:
        when = f" at time={request.time!r}; it has {describe_times(array['date'].values)}" if spans else ""
        where = f" in {request.area}" if request.area is not None else ""
        raise CoverageError(f"no row of the table of vectors lies{where}{when}")
    array = array.isel(location=np.flatnonzero(keep))
    return array.copy(data=array.chunk({"location": _ROWS, "band": -1}).data)  # coordinates stay in memory


def _files_of(source: Any) -> list[Any]:
    """The files of a glob; anything else as it is."""
    if not isinstance(source, str | os.PathLike) or os.path.exists(source):
        return [source]
    name = os.fspath(source)
    return list(expand(name, _ENDINGS)) if any(sign in name for sign in "*?[") else [name]


def _all_rows(source: Any, product: Product, version: str | None) -> xr.DataArray:
    """All rows of a table that have a place, with the dates that it says."""
    held = read_places(source).present("the table of vectors")
    array = wrap(held.table, product, crs=held.crs, version=version)
    dates = dates_of(held.table)
    if dates is not None:
        array = array.assign_coords(date=("location", dates))
    array.attrs["source"] = os.fspath(source) if isinstance(source, str | os.PathLike) else "table"
    return array


def _as_one(sources: Sequence[Any], arrays: Sequence[xr.DataArray]) -> xr.DataArray:
    """Tables one after the other; rows are numbered anew where two have one number."""
    if len(arrays) == 1:
        return arrays[0]
    columns = [set(map(str, each.coords)) for each in arrays]
    for source, each in zip(sources, columns, strict=True):
        if each != columns[0]:
            raise SourceError(
                f"tables of vectors that are opened as one have the same columns; {_named(sources[0])} and "
                f"{_named(source)} differ in {sorted(each ^ columns[0])}"
            )
    try:
        joined = concat(arrays, "location")
    except EmbeddingError as error:
        raise SourceError(
            f"the tables from {_named(sources[0])} on are not opened as one: {error}"
        ) from error
    index = joined.indexes["location"]
    if index.is_unique:
        return joined
    return joined.assign_coords(location=pd.RangeIndex(len(index), name="location"))
