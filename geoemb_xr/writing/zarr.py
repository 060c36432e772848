"""Zarr stores in the conventions that others read, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from zarr.codecs import GzipCodec, ZstdCodec

from geoemb_xr.core import arrays, columns, geometry
from geoemb_xr.core.codecs import PER_PIXEL_SCALE
from geoemb_xr.core.conventions import FORMAT, FORMAT_KEY, as_json, root_attrs
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.model import check_embedding, is_encoded, kind_of
from geoemb_xr.stores.storage import reaches_objects
from geoemb_xr.writing import zarr_update
from geoemb_xr.writing.locking import only_writer
from geoemb_xr.writing.objects import object_target
from geoemb_xr.writing.staging import (
    Errors,
    at,
    bring_to_disk,
    check_target,
    chunked,
    discard,
    part_of,
    put_in_place,
)
from geoemb_xr.writing.zarr_remote import write_store
from geoemb_xr.writing.zarr_stage import consolidate as _consolidate
from geoemb_xr.writing.zarr_stage import lazy_variables, stage_store

Mode = Literal["w-", "w", "a", "r+"]

#: Inner chunks smaller than this cost more in requests than they save in bytes.
_SMALLEST_CHUNK = 64


@reaches_objects
def to_zarr(
    array: xr.DataArray | xr.Dataset,
    path: str | os.PathLike[str],
    *,
    mode: Mode = "w-",
    encode: bool = False,
    chunks: int = 256,
    shards: int | None = None,
    storage: Any = None,
    errors: Errors = "raise",
) -> Path | str:
    """Write arrays to a Zarr v3 store, sharded. Computes, block by block, with a progress bar.

    The store is made in ``path.part`` and renamed when it is whole. What was interrupted does not open, and the
    same call again computes only the blocks that are missing. The root carries the ``geoemb:``, ``proj:`` and
    ``spatial:`` conventions, attribution and licence, and what rebuilds a product made on the spot.

    Parameters
    ----------
    array : DataArray or Dataset
        Embeddings or maps, rasters or locations; a Dataset has one variable each.
    path : path or URL
        Path of the store, such as ``"aoi.zarr"`` or ``"s3://bucket/aoi.zarr"``. In an object store blocks are
        written in their place, the root last: until then it does not open. There it is up to you that a store has
        one writer, and ``mode`` is ``"w-"`` or ``"w"``.
    mode : {"w-", "w", "a", "r+"}
        Refuse where the store exists; replace it; append times after its last; or write where the array's
        coordinates lie in it. The last two touch no block but their own, and nothing until all is computed.
    encode : bool
        Write embeddings as their product's codes; as int8 with a scale per pixel where it has none.
    chunks : int
        Side of what a reader fetches at least, in pixels.
    shards : int, optional
        Side of a file of the store, in pixels; the array's dask blocks by default, so that each is written
        once.
    storage : obstore store or dict, optional
        Options that reach an object store, as in :func:`geoemb_xr.open`. Of a store of your own ``path`` is a key.
    errors : {"raise", "missing"}
        Raise where a block of the source cannot be read; or write it as missing, go on with the others, and list
        it in the store, which :func:`geoemb_xr.open` then says. Only where a store is made: ``mode`` is ``"w-"``
        or ``"w"``. With ``mode="r+"`` such blocks are written later.

    Returns
    -------
    Path or str
        Path of the store; its URL in an object store.

    Raises
    ------
    FileExistsError
        If the store exists and ``mode`` does not say what to do.
    EmbeddingError
        If what is appended or written into a store does not fit it; the message says why.
    SourceError
        If a block of the source cannot be read, and ``errors`` is ``"raise"``.
    ValueError
        For an unknown mode or ``errors``.

    Examples
    --------
    >>> import geoemb_xr as gx, tempfile, xarray as xr
    >>> da = gx.testing.synthetic("alphaearth", shape=(40, 30))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = gx.to_zarr(da, f"{folder}/aoi.zarr", encode=True)
    ...     with xr.open_zarr(path) as store:
    ...         store["embedding"].dtype, store.attrs["geoemb:quantization"]["method"]
    (dtype('int8'), 'signed_square')
    """
    check_choice("errors", errors, ("raise", "missing"))
    if errors == "missing" and mode in ("a", "r+"):
        raise EmbeddingError(f"errors='missing' is for a store that is made, not for mode={mode!r}")
    if (url := object_target(path)) is not None:
        return _write_objects(_named_for_zarr(_dataset(array, encode)), url, mode, chunks, shards, errors)
    target = check_target(path, mode, ("w-", "w", "a", "r+"), folder=True)
    dataset = _dataset(array, encode)
    if mode in ("a", "r+"):
        return zarr_update.write_into(dataset, target, mode)
    _check_replaceable(target)
    dataset = _named_for_zarr(dataset)
    with only_writer(target):
        check_target(path, mode, folder=True)  # another writer may have finished it since
        _write(dataset, target, chunks, shards, errors=errors)
    return target


def write_in_gzip(array: xr.DataArray, target: Path, chunks: int) -> None:
    """Write codes to a new store as chunks in gzip, which Python itself reads, in shards of dask's blocks."""
    dataset = _named_for_zarr(_dataset(array, encode=True))
    with only_writer(target):
        _write(dataset, target, chunks, None, GzipCodec(level=6))


def _check_replaceable(target: Path) -> None:
    """Refuse to replace what is not a store: a folder of something else, given by mistake."""
    marks = ("zarr.json", ".zgroup", ".zarray")
    if target.is_dir() and any(target.iterdir()) and not any((target / each).exists() for each in marks):
        raise FileExistsError(f"{target} is a folder that holds no Zarr store; give the store in it a name")


def _write_objects(
    dataset: xr.Dataset, url: str, mode: Mode, chunks: int, shards: int | None, errors: Errors
) -> str:
    sides, layout = _layout(dataset, chunks, shards)
    template = partial(_write_template, sides=sides, chunks=chunks)
    return write_store(dataset, url, mode, sides, [layout], template, errors)


def _layout(
    dataset: xr.Dataset, chunks: int, shards: int | None
) -> tuple[dict[str, dict[Hashable, int]], dict[str, Any]]:
    """Sides of the shards of each lazy variable, and those and the chunks as JSON has them."""
    sides = {name: _sides(variable, shards) for name, variable in lazy_variables(dataset).items()}
    return sides, {name: [list(each.values()), chunks] for name, each in sides.items()}


#: A flipped bit is an error when it is read, not another value; any reader of zstd knows the checksum.
_ZSTD = ZstdCodec(level=0, checksum=True)


def _write(
    dataset: xr.Dataset,
    target: Path,
    chunks: int,
    shards: int | None,
    compressor: ZstdCodec | GzipCodec = _ZSTD,
    errors: Errors = "raise",
) -> None:
    sides, layout = _layout(dataset, chunks, shards)
    part = part_of(target)
    store = stage_store(
        dataset,
        part,
        sides,
        [str(target), layout],
        partial(_write_template, sides=sides, chunks=chunks, compressor=compressor),
        errors,
    )
    _consolidate(store)
    if target.exists():
        bring_to_disk(store)
        replaced = part / "replaced.zarr"
        if replaced.exists():  # left by a run that was killed while it deleted it: the new store is whole
            discard(replaced)
        os.replace(target, replaced)
    put_in_place(store, target)
    discard(part)


# --- what is written --------------------------------------------------------------------------------------------


def _dataset(array: xr.DataArray | xr.Dataset, encode: bool) -> xr.Dataset:
    """Variables on dask, dimensions in the usual order, north-up, without encodings of files they came from."""
    if isinstance(array, xr.DataArray):
        name = array.name if array.name is not None else "embeddings"
        if name in array.coords:
            raise EmbeddingError(
                f"the array is called {name!r}, as one of its coordinates is; rename it (.rename)"
            )
        array = array.to_dataset(name=name)
    if not array.data_vars:
        raise EmbeddingError("to_zarr got a Dataset without variables")
    out = xr.Dataset(attrs=array.attrs)
    for name, variable in array.data_vars.items():
        if encode and kind_of(variable) != "map":
            variable = _encoded(variable)
        _check_writable(variable)
        others = [d for d in variable.dims if d not in ("time", "y", "x", "location")]
        before = [d for d in ("time", "location") if d in variable.dims]
        after = [d for d in ("y", "x") if d in variable.dims]
        variable = variable.transpose(*before, *others, *after)
        out[name] = geometry.north_up_array(variable) if "y" in variable.dims else variable
    return _chunked(_in_stored_types(out.drop_encoding()))


def _encoded(array: xr.DataArray) -> xr.DataArray:
    found = check_embedding(array, "to_zarr")
    if is_encoded(array):
        return array
    return arrays.encode(array) if found.codec is not None else arrays.encode_with(array, PER_PIXEL_SCALE)


def _check_writable(array: xr.DataArray) -> None:
    if kind_of(array) != "map":
        check_embedding(array, "to_zarr")
    if array.dtype.kind not in "biuf":
        raise EmbeddingError(f"to_zarr cannot write {array.name!r}: its values are {array.dtype}")
    if not array.size:
        raise EmbeddingError(f"to_zarr got {array.name!r} without a value: {dict(array.sizes)}")


def _in_stored_types(dataset: xr.Dataset) -> xr.Dataset:
    """Coordinates through the gate of :mod:`geoemb_xr.core.columns`; those of pixels must be numbers."""
    for name, coord in dataset.coords.items():
        if isinstance(coord.dtype, np.dtype) and coord.dtype.kind in "biuf":
            continue
        if coord.ndim > 1:
            raise EmbeddingError(
                f"to_zarr cannot write the coordinate {name!r}: {coord.dtype} along {coord.dims}"
            )
        index = dataset.indexes.get(name)
        if isinstance(index, pd.MultiIndex):
            raise EmbeddingError(
                f"to_zarr cannot write the index {name!r} of several columns; .reset_index({name!r}) makes "
                "them columns"
            )
        values, note = columns.to_zarr_values(
            columns.column_of(name, coord.data if coord.chunks is None else coord.values), name
        )
        if note is not None:
            attrs = {**coord.attrs, columns.NOTE: note}
            dataset = dataset.assign_coords({name: xr.Variable(coord.dims, values, attrs)})
        elif not isinstance(coord.dtype, np.dtype) or coord.dtype.kind == "O":
            dataset = dataset.assign_coords({name: xr.Variable(coord.dims, values, coord.attrs)})
    return dataset


def _named_for_zarr(dataset: xr.Dataset) -> xr.Dataset:
    """Names that a store can hold, and an attribute that brings the others back."""
    renamed = columns.names_for_zarr(dict.fromkeys([*dataset.variables, *dataset.dims]))
    if not renamed:
        return dataset
    back = {stored: name for name, stored in renamed.items()}
    return dataset.rename(renamed).assign_attrs({columns.NAMES: back})


def _chunked(dataset: xr.Dataset) -> xr.Dataset:
    """Variables and what has a value per pixel on dask; columns and indexes in memory."""
    for name, variable in dataset.variables.items():
        if name in dataset.dims or variable.ndim == 0:
            continue
        if name in dataset.data_vars:
            dataset = dataset.assign({name: chunked(xr.DataArray(variable)).variable})
        elif variable.ndim > 1:
            dataset = dataset.assign_coords({name: chunked(xr.DataArray(variable)).variable})
        elif variable.chunks is not None:
            dataset = dataset.assign_coords({name: variable.compute()})
    return dataset


def _sides(variable: xr.Variable, shards: int | None) -> dict[Hashable, int]:
    """The shard of a variable: one dask block, or ``shards`` pixels; one time, so that times can be added."""
    assert variable.chunks is not None
    sides: dict[Hashable, int] = {}
    for dim, sizes, length in zip(variable.dims, variable.chunks, variable.shape, strict=True):
        if dim == "time":
            sides[dim] = 1
        elif dim in ("y", "x", "location"):
            wanted = shards if shards is not None and dim != "location" else max(sizes)
            sides[dim] = max(min(wanted, length), 1)
        else:
            sides[dim] = max(length, 1)
    return sides


def _inner(side: int, wanted: int) -> int:
    """The largest part of a shard's side that is no longer than ``wanted``, and not absurdly short."""
    for chunk in range(min(wanted, side), _SMALLEST_CHUNK - 1, -1):
        if side % chunk == 0:
            return chunk
    return side


# --- the template -----------------------------------------------------------------------------------------------


def _write_template(
    dataset: xr.Dataset,
    store: Path,
    sides: Mapping[str, Mapping[Hashable, int]],
    chunks: int,
    compressor: ZstdCodec | GzipCodec = _ZSTD,
) -> None:
    """Metadata and coordinates of a store, as xarray writes them; no block of an array."""
    encoding: dict[Hashable, dict[str, Any]] = {
        name: {"compressors": (compressor,)} for name in dataset.variables
    }
    for name, variable in lazy_variables(dataset).items():
        shard = tuple(sides[name][dim] for dim in variable.dims)
        inner = tuple(
            _inner(n, chunks) if d in ("y", "x") else n for d, n in zip(variable.dims, shard, strict=True)
        )
        encoding[name] |= {"shards": shard, "chunks": inner, "fill_value": _fill(dataset[name])}
    for key, coord in dataset.coords.items():
        if coord.dtype.kind == "M":
            encoding[key] |= _time_encoding(coord.values)
    own = {**dataset.attrs, **_root_attrs(dataset), FORMAT_KEY: FORMAT}
    plain = dataset.assign_attrs(as_json(own))
    for variable in plain.variables.values():
        variable.attrs = as_json(variable.attrs)
    try:
        plain.to_zarr(
            at(store), mode="w", zarr_format=3, consolidated=False, compute=False, encoding=encoding
        )
    except (TypeError, ValueError, NotImplementedError, OverflowError) as error:
        raise EmbeddingError(f"to_zarr cannot write this: {error}") from error


def _root_attrs(dataset: xr.Dataset) -> dict[str, Any]:
    """Attributes of the first embedding, or of the first map where there is none."""
    variables = sorted(dataset.data_vars.values(), key=lambda each: kind_of(each) == "map")
    return root_attrs(variables[0])


def _fill(array: xr.DataArray) -> float | int | bool:
    """The fill value, which unwritten chunks stand for: no data."""
    if array.dtype.kind == "f":
        return float("nan")
    if is_encoded(array) and kind_of(array) != "map":
        return arrays.codec_of(array).nodata or 0
    return 0


def _time_encoding(times: np.ndarray) -> dict[str, Any]:
    days = times.astype("datetime64[D]").astype(times.dtype)
    units = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
    unit = "days" if np.array_equal(days, times) else units[np.datetime_data(times.dtype)[0]]
    return {"units": f"{unit} since 1970-01-01", "dtype": "int64"}
