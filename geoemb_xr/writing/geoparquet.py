"""GeoParquet of vectors at locations: sorted along a Hilbert curve, so that a box is few row groups."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from geoemb_xr.core import arrays, geometry
from geoemb_xr.core.citing import OWN_TAG, product_facts, provenance
from geoemb_xr.core.codecs import PER_PIXEL_SCALE
from geoemb_xr.core.columns import column_of, to_arrow
from geoemb_xr.core.conventions import as_json
from geoemb_xr.core.errors import EmbeddingError, require
from geoemb_xr.core.model import BAND, check_embedding, is_encoded, kind_of
from geoemb_xr.stores.storage import reaches_objects
from geoemb_xr.writing.locking import only_writer
from geoemb_xr.writing.objects import object_target, put_files
from geoemb_xr.writing.staging import (
    WriteJob,
    check_target,
    chunked,
    discard,
    open_stage,
    part_of,
    per_file,
    put_in_place,
    require_marks,
    write_blocks,
)

if TYPE_CHECKING:
    import pyarrow as pa

#: Bytes of vectors in a row group.
ROW_GROUP = 128 << 20
_VECTORS = "embedding"


@reaches_objects
def to_geoparquet(
    array: xr.DataArray,
    path: str | os.PathLike[str],
    *,
    mode: Literal["w-", "w"] = "w-",
    encode: bool = False,
    storage: Any = None,
) -> Path | str | list[Path | str]:
    """Write vectors at locations to GeoParquet. Computes, with a progress bar.

    Rows are sorted along a Hilbert curve and carry a bbox column, in row groups of about 128 MB, zstd. The
    footer's ``emb`` key says what the vectors are. The index and the columns that ride along stay columns.

    Parameters
    ----------
    array : DataArray (location, band)
        Or ``(time, location, band)`` with a template. A map at locations (``predict``'s) is written too.
    path : path or URL
        The file, also in an object store, or a template such as ``"zones_{time:%Y}.parquet"``, which more than one
        time needs.
    mode : {"w-", "w"}
        Refuse where the file exists, or replace it.
    encode : bool
        Write an embedding as its product's codes; as int8 with a scale per row where it has none.
    storage : obstore store or dict, optional
        Options that reach an object store, as in :func:`geoemb_xr.open`. The file is made on this machine first.

    Returns
    -------
    Path, or str for a URL; or a list
        A list where ``path`` is a template.

    Raises
    ------
    EmbeddingError
        If the array has no ``location``, or a column would take a name of the format's.
    FileExistsError
        If the file is there and ``mode`` does not say to replace it.

    Examples
    --------
    >>> import geoemb_xr as gx, tempfile, geopandas
    >>> points = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.sample([(11.37, 47.25)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = gx.to_geoparquet(points, f"{folder}/points.parquet")
    ...     geopandas.read_parquet(path)["embedding"].map(len).tolist()
    [64]
    """
    require("pyarrow", "vector")
    array = _as_written(array, encode)
    if (url := object_target(path)) is not None:
        return put_files(array, url, mode, lambda here: to_geoparquet(array, here))
    targets = [(check_target(name, mode), each) for name, each in per_file(array, os.fspath(path))]
    written: list[Path | str] = [_write(each, target) for target, each in targets]
    return written if "{" in os.fspath(path) else written[0]


def _as_written(array: xr.DataArray, encode: bool) -> xr.DataArray:
    if "location" not in array.dims:
        raise EmbeddingError(
            f"to_geoparquet takes vectors at locations; got dims {tuple(array.dims)}. Rasters go to to_zarr or "
            "to_cog; .emb.sample(points) and .emb.zonal_stats(polygons) give locations."
        )
    if kind_of(array) == "points":
        found = check_embedding(array, "to_geoparquet")
        if encode and not is_encoded(array):
            array = arrays.encode_with(array, found.codec or PER_PIXEL_SCALE)
    elif encode:
        raise EmbeddingError("encode=True is for embeddings; this is a map, which is written as it is")
    beside = [d for d in array.dims if d not in ("time", "location")]
    if len(beside) > 1:
        raise EmbeddingError(f"to_geoparquet takes one dimension beside time and location; got {beside}")
    if geometry.crs_of(array) is None:
        raise EmbeddingError("to_geoparquet needs a CRS: the array has no coordinate 'spatial_ref'")
    taken = {_VECTORS, "bbox"} & set(map(str, array.coords))
    if "time" in array.coords and array.coords["time"].dtype.kind != "M":
        taken |= {"time"}
    if "geometry" in array.coords and not _holds_shapes(array.coords["geometry"].values):
        taken |= {"geometry"}
    unnamed = [name for name in array.coords if not isinstance(name, str | int | float)]
    if unnamed:
        raise EmbeddingError(f"a file cannot hold the name {unnamed[0]!r}; rename it to text first (.rename)")
    if taken:
        raise EmbeddingError(f"the coordinates {sorted(taken)} have names that the format needs; rename them")
    if not array.sizes["location"]:
        raise EmbeddingError("to_geoparquet got an array without a location")
    # xarray keeps columns of pandas' own types, and then cannot index them
    own = {n: c for n, c in array.coords.items() if not isinstance(c.dtype, np.dtype) and n not in array.dims}
    array = array.assign_coords({n: (c.dims, np.asarray(c.data, object)) for n, c in own.items()})
    return array.transpose(*(["time"] if "time" in array.dims else []), "location", *beside)


def _holds_shapes(values: np.ndarray) -> bool:
    import pandas as pd
    import shapely

    found = np.asarray(values, object)
    return bool((shapely.is_geometry(found) | np.asarray(pd.isna(found))).all())


# --- one file ---------------------------------------------------------------------------------------------------


def _write(array: xr.DataArray, target: Path) -> Path:
    beside = _beside(array)  # what no file has a type for is refused before anything is computed
    part = part_of(target)
    with only_writer(target):
        part.mkdir(exist_ok=True)
        _write_whole(array, beside, part)
        put_in_place(part / "whole.parquet", target)
        discard(part)
    return target


def _write_whole(array: xr.DataArray, table: _Beside, part: Path) -> None:
    import pyarrow.parquet as parquet

    values = _values(array, part)
    beside = table.columns
    order = _hilbert_order(beside)
    column = value_column(array)
    schema = (
        beside[:0].append_column(column, _as_list(values[:0])).schema.with_metadata(_footer(array, table))
    )
    rows = max(ROW_GROUP // max(array[:1].nbytes, 1), 1)
    plain = [name for name in beside.column_names if name not in ("geometry", "bbox", "x", "y")]
    # a handle, since Arrow reads "?" in a path as a URL's; a page with a flipped bit is an error to who checks it
    with (
        open(part / "whole.parquet", "wb") as handle,
        parquet.ParquetWriter(
            handle, schema, compression="zstd", use_dictionary=plain, write_page_checksum=True
        ) as file,
    ):
        for start in range(0, len(order), rows):
            chosen = order[start : start + rows]
            group = beside.take(chosen).append_column(column, _as_list(values[chosen]))
            file.write_table(group.cast(schema), row_group_size=rows)


@dataclass(frozen=True)
class _OnDisk:
    """An .npy file that blocks of whole rows are written into; rows are gathered from it in any order.

    Blocks are written, not mapped: on a full disk a write is an error, and a mapped page kills the process.
    """

    path: Path
    start: int

    @classmethod
    def make(cls, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        """An empty file, as long as it will be."""
        with open(path, "wb") as file:
            np.lib.format.write_array_header_2_0(
                file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            )
            file.truncate(file.tell() + math.prod(shape) * dtype.itemsize)

    @classmethod
    def of(cls, path: Path, nbytes: int) -> _OnDisk:
        """The file that was made, of so many bytes of values."""
        return cls(path, path.stat().st_size - nbytes)

    def __setitem__(self, window: tuple[slice, ...], block: np.ndarray) -> None:
        row = block[:1].nbytes
        with open(self.path, "r+b") as file:
            file.seek(self.start + window[0].start * row)
            file.write(np.ascontiguousarray(block).data)


def _values(array: xr.DataArray, part: Path) -> np.ndarray:
    """The values: in memory, or computed block by block into a file that rows can be picked from."""
    if array.chunks is None:
        return np.ascontiguousarray(array.values)
    array = chunked(array).chunk(dict.fromkeys(array.dims[1:], -1))
    file = part / "vectors.npy"
    progress = open_stage(part / "marks.zarr", [array.data.name, list(array.shape), str(array.dtype)], file)
    if not progress.attrs.get("template"):
        _OnDisk.make(file, array.dtype, array.shape)
        progress.attrs["template"] = True
    marks = require_marks(progress, "done", array.data)
    write_blocks([WriteJob(array.data, _OnDisk.of(file, array.nbytes), marks, (0,) * array.ndim)])
    stored: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    return stored


def value_column(array: xr.DataArray) -> str:
    """The name of the column of values."""
    if BAND in array.dims:
        return _VECTORS
    return "values" if array.name is None else str(array.name)


@dataclass(frozen=True)
class _Beside:
    """What stands beside the values: index, riding columns, boxes and shapes of all rows, in their own order.

    Parameters
    ----------
    columns : pyarrow.Table
        ``bbox`` and ``geometry`` are its last.
    kinds : mapping of str to str
        What columns were in memory, where Arrow's type does not say it.
    names : mapping of str to hashable
        Names of columns in memory that are not text.
    """

    columns: pa.Table
    kinds: Mapping[str, str]
    names: Mapping[str, Any]


def _beside(array: xr.DataArray) -> _Beside:
    import pyarrow as pa
    import shapely

    riding: dict[Any, Any] = {"location": array.indexes["location"]} if "location" in array.indexes else {}
    riding |= {
        name: coord.data if coord.chunks is None else coord.values
        for name, coord in array.coords.items()
        if coord.dims == ("location",) and name not in ("geometry", "location")
    }
    if len(set(map(str, riding))) < len(riding):
        raise EmbeddingError(f"two columns would have one name in the file: {sorted(map(str, riding))}")
    found = {str(name): column_of(name, values) for name, values in riding.items()}
    arrow = {name: to_arrow(column, name) for name, column in found.items()}
    x, y = (np.asarray(array.coords[axis].values, np.float64) for axis in ("x", "y"))
    shapes = array.coords["geometry"].values if "geometry" in array.coords else shapely.points(x, y)
    shapes = np.where(np.isfinite(x) & np.isfinite(y), shapes, None)
    sides = [pa.array(side, from_pandas=True) for side in shapely.bounds(shapes).T]
    arrow["bbox"] = pa.StructArray.from_arrays(sides, ["xmin", "ymin", "xmax", "ymax"])
    arrow["geometry"] = pa.array(shapely.to_wkb(shapes), pa.binary())
    kinds = {name: column.kind for name, column in found.items() if column.kind != "plain"}
    return _Beside(pa.table(arrow), kinds, {str(name): name for name in riding if not isinstance(name, str)})


def _as_list(values: np.ndarray) -> pa.Array:
    """Rows of a matrix as lists of one length, without a copy; a vector as it is."""
    import pyarrow as pa

    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _hilbert_order(beside: pa.Table) -> np.ndarray:
    """Rows along a Hilbert curve, those without a place last."""
    import geopandas

    shapes = geopandas.GeoSeries.from_wkb(beside["geometry"].to_pandas())
    found = shapes.notna().to_numpy()
    if not found.any():
        return np.arange(len(found))
    distance = shapes[found].hilbert_distance().to_numpy()
    along = np.flatnonzero(found)[np.argsort(distance, kind="stable")]
    return np.concatenate([along, np.flatnonzero(~found)])


def _footer(array: xr.DataArray, beside: _Beside) -> dict[str, str]:
    """The keys ``geo`` (GeoParquet 1.1) and ``emb`` (what the vectors are)."""
    import shapely

    crs = geometry.crs_of(array)
    assert crs is not None
    told = {}
    for name in ("geometry", *(name for name, kind in beside.kinds.items() if kind == "geometry")):
        shapes = shapely.from_wkb(beside.columns[name].to_numpy(zero_copy_only=False))
        bounds = shapely.total_bounds(shapes)
        told[name] = {
            "encoding": "WKB",
            "geometry_types": sorted({each.geom_type for each in shapes if each is not None}),
            "crs": crs.to_json_dict(),
            **({"bbox": bounds.tolist()} if np.isfinite(bounds).all() else {}),
        }
    sides = ("xmin", "ymin", "xmax", "ymax")
    told["geometry"]["covering"] = {"bbox": {side: ["bbox", side] for side in sides}}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": told}
    about = _about(array)
    about[OWN_TAG] |= {"column_kinds": dict(beside.kinds), "column_names": dict(beside.names)}
    return {"geo": json.dumps(geo), "emb": json.dumps(as_json(about))}


def _about(array: xr.DataArray) -> dict[str, Any]:
    own: dict[str, Any] = {
        "name": array.name,
        "dim": array.dims[1] if array.ndim == 2 else None,
        "labels": array.coords[array.dims[1]].values.tolist() if array.ndim == 2 else None,
        "column": value_column(array),
        "index": array.indexes["location"].name if "location" in array.indexes else None,
        "points": "geometry" not in array.coords,
        "attrs": array.attrs,
        "coord_attrs": {axis: array.coords[axis].attrs for axis in ("x", "y")},
    }
    about: dict[str, Any] = {"version": "0.0.1", **provenance(array)}
    if "time" in array.coords:
        own["time"] = about["datetime"] = str(np.datetime_as_string(array.coords["time"].values, unit="auto"))
    if kind_of(array) == "points":
        found = check_embedding(array, "to_geoparquet")
        own["product"] = product_facts(found)
        about["model"] = {"id": found.name, "version": array.attrs.get("version", ""), "name": found.model}
        about["license"] = found.licence
        about["embedding"] = {"dim": found.dims, "quantization": array.attrs.get("codec", "None")}
    return {**about, OWN_TAG: own}
