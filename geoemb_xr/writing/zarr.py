"""Zarr stores in the conventions that others read, whole or not at all."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from dask.base import tokenize

from geoemb_xr.core import arrays, geometry, times
from geoemb_xr.core.codecs import PER_PIXEL_SCALE
from geoemb_xr.core.conventions import as_json, root_attrs
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.core.model import (
    BAND,
    check_comparable,
    check_embedding,
    comparability_key,
    is_encoded,
    kind_of,
)
from geoemb_xr.stores.consolidating import consolidate
from geoemb_xr.writing.staging import (
    Job,
    check_target,
    chunked,
    open_stage,
    part_of,
    require_marks,
    write_blocks,
)

Mode = Literal["w-", "w", "a", "r+"]
#: Positions of a stage's elements in the store it goes to, along each dimension.
Places = Mapping[str, np.ndarray]

#: Inner chunks smaller than this cost more in requests than they save in bytes.
_SMALLEST_CHUNK = 64


def to_zarr(
    array: xr.DataArray | xr.Dataset,
    path: str | os.PathLike[str],
    *,
    mode: Mode = "w-",
    encode: bool = False,
    chunks: int = 256,
    shards: int | None = None,
) -> Path:
    """Write arrays to a Zarr v3 store, sharded. Computes, block by block, with a progress bar.

    The store is made in ``path.part`` and renamed when it is whole. What was interrupted does not open, and the
    same call again computes only the blocks that are missing. The root carries the ``geoemb:``, ``proj:`` and
    ``spatial:`` conventions, attribution and licence, and what rebuilds a product made on the spot.

    Parameters
    ----------
    array : DataArray or Dataset
        Embeddings or maps, rasters or locations; a Dataset has one variable each.
    path : path
        Of the store, such as ``"aoi.zarr"``.
    mode : {"w-", "w", "a", "r+"}
        Refuse where the store exists; replace it; append times after its last; or write where the array's
        coordinates lie in it. The last two touch no block but their own, and nothing until all is computed.
    encode : bool
        Write embeddings as their product's codes; as int8 with a scale a pixel where it has none.
    chunks : int
        Side of what a reader fetches at least, in pixels.
    shards : int, optional
        Side of a file of the store, in pixels; the array's dask blocks by default, so that each is written
        once.

    Returns
    -------
    Path
        Of the store.

    Raises
    ------
    FileExistsError
        If the store exists and ``mode`` does not say what to do.
    EmbeddingError
        If what is appended or written into a store does not fit it; the message says why.

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
    if "://" in os.fspath(path):
        raise ValueError(
            f"to_zarr writes to a folder, local or mounted; got {os.fspath(path)}. Copy it from there"
        )
    target = check_target(path, mode, ("w-", "w", "a", "r+"))
    dataset = _dataset(array, encode)
    if mode in ("a", "r+"):
        return _write_into(dataset, target, mode)
    sides = {name: _sides(variable, shards) for name, variable in _lazy(dataset).items()}
    part = part_of(target)
    _stage(dataset, part, sides, chunks, str(target))
    consolidate(part / "store.zarr")
    if target.exists():
        os.replace(target, part / "replaced.zarr")
    os.replace(part / "store.zarr", target)
    shutil.rmtree(part)
    return target


# --- what is written --------------------------------------------------------------------------------------------


def _dataset(array: xr.DataArray | xr.Dataset, encode: bool) -> xr.Dataset:
    """Variables on dask, dimensions in the usual order, north-up, without encodings of files they came from."""
    if isinstance(array, xr.DataArray):
        name = array.name if array.name is not None else "embeddings"
        array = array.to_dataset(name=name)
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
    return _chunked(out.drop_encoding())


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
    for name, coord in array.coords.items():
        if coord.dtype.kind == "O" and not all(isinstance(each, str) for each in np.atleast_1d(coord.values)):
            raise EmbeddingError(
                f"to_zarr cannot write the coordinate {name!r}, which holds objects such as "
                f"{type(np.atleast_1d(coord.values)[0]).__name__}; drop it (.drop_vars({name!r})), or use "
                "to_geoparquet, which keeps geometries"
            )


def _chunked(dataset: xr.Dataset) -> xr.Dataset:
    """Every variable on dask, and per-pixel coordinates with it; index coordinates in memory."""
    for name, variable in dataset.variables.items():
        if name in dataset.dims or variable.ndim == 0:
            continue
        if name in dataset.coords and variable.chunks is None and variable.ndim < 2:
            continue
        lazy = chunked(xr.DataArray(variable)).variable
        change = dataset.assign_coords if name in dataset.coords else dataset.assign
        dataset = change({name: lazy})
    return dataset


def _lazy(dataset: xr.Dataset) -> dict[str, xr.Variable]:
    return {str(name): v for name, v in dataset.variables.items() if v.chunks is not None}


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


# --- the stage --------------------------------------------------------------------------------------------------


def _stage(
    dataset: xr.Dataset,
    part: Path,
    sides: Mapping[str, Mapping[Hashable, int]],
    chunks: int,
    purpose: str,
    *,
    write_empty: bool = False,
) -> Path:
    """Write a dataset as a whole store into ``part``, block by block; what is there already is kept."""
    dataset = _rechunked(dataset, sides)
    lazy = _lazy(dataset)
    small = {str(n): (v.dims, v.values, v.attrs) for n, v in dataset.variables.items() if v.chunks is None}
    layout = {name: [list(map(int, sides[name].values())), chunks] for name in lazy}
    fingerprint = [purpose, tokenize(small), {name: v.data.name for name, v in lazy.items()}, layout]
    progress = open_stage(part / "marks.zarr", fingerprint)
    store = part / "store.zarr"
    if not progress.attrs.get("template"):
        shutil.rmtree(store, ignore_errors=True)
        _write_template(dataset, store, sides, chunks)
        progress.attrs["template"] = True
    jobs = []
    for name, variable in lazy.items():
        target = zarr.open_array(store, path=name, mode="r+", config={"write_empty_chunks": write_empty})
        marks = require_marks(progress, name, variable.data)
        jobs.append(Job(variable.data, target, marks, (0,) * variable.ndim))
    write_blocks(jobs)
    return store


def _rechunked(dataset: xr.Dataset, sides: Mapping[str, Mapping[Hashable, int]]) -> xr.Dataset:
    """Every variable in blocks of whole shards."""
    for name, variable in _lazy(dataset).items():
        change = dataset.assign_coords if name in dataset.coords else dataset.assign
        dataset = change({name: variable.chunk(dict(sides[name]))})
    return dataset


def _write_template(
    dataset: xr.Dataset, store: Path, sides: Mapping[str, Mapping[Hashable, int]], chunks: int
) -> None:
    """Metadata and coordinates of a store, as xarray writes them; no block of an array."""
    encoding: dict[str, dict[str, Any]] = {}
    for name, variable in _lazy(dataset).items():
        shard = tuple(sides[name][dim] for dim in variable.dims)
        inner = tuple(
            _inner(n, chunks) if d in ("y", "x") else n for d, n in zip(variable.dims, shard, strict=True)
        )
        encoding[name] = {"shards": shard, "chunks": inner, "fill_value": _fill(dataset[name])}
    if "time" in dataset.coords:
        encoding["time"] = _time_encoding(dataset.coords["time"].values)
    attrs = {key: as_json(value) for key, value in {**dataset.attrs, **_root_attrs(dataset)}.items()}
    dataset.assign_attrs(attrs).to_zarr(
        store, mode="w", zarr_format=3, consolidated=False, compute=False, encoding=encoding
    )


def _root_attrs(dataset: xr.Dataset) -> dict[str, Any]:
    """Attributes of the first embedding, or of the first map where there is none."""
    variables = sorted(dataset.data_vars.values(), key=lambda each: kind_of(each) == "map")
    return root_attrs(variables[0])


def _fill(array: xr.DataArray) -> float | int | bool:
    """What an unwritten chunk stands for: no data."""
    if array.dtype.kind == "f":
        return float("nan")
    if is_encoded(array) and kind_of(array) != "map":
        return arrays.codec_of(array).nodata or 0
    return 0


def _time_encoding(times: np.ndarray) -> dict[str, Any]:
    days = times.astype("datetime64[D]").astype(times.dtype)
    unit = "days" if np.array_equal(days, times) else "nanoseconds"
    return {"units": f"{unit} since 1970-01-01", "dtype": "int64"}


# --- into a store that exists -----------------------------------------------------------------------------------


def _write_into(dataset: xr.Dataset, target: Path, mode: Mode) -> Path:
    """Stage what is new, then move its shards into the store and last of all its metadata."""
    if not target.is_dir():
        raise FileNotFoundError(f"{target} does not exist; mode='w-' makes it")
    with xr.open_zarr(target, consolidated=None) as store:
        dataset = _fitted_to(dataset, store, target)
        places = _appended(dataset, store, target) if mode == "a" else _located(dataset, store, target)
        shards = {
            str(n): v.encoding.get("shards") or v.encoding["chunks"] for n, v in store.variables.items()
        }
        inner = {str(n): v.encoding.get("chunks") for n, v in store.variables.items()}
        sizes = dict(store.sizes)
    sides = {name: dict(zip(v.dims, shards[name], strict=True)) for name, v in _lazy(dataset).items()}
    for name, variable in _lazy(dataset).items():
        for dim in variable.dims:
            _check_aligned(target, str(dim), sides[name][dim], places[str(dim)], sizes[dim])
    key = tokenize({dim: where.tolist() for dim, where in places.items()})[:8]
    part = part_of(target).with_suffix(f".{key}.part") if mode == "r+" else part_of(target)
    staged = _stage(dataset, part, sides, min(map(min, filter(None, inner.values()))), mode, write_empty=True)
    for name, variable in _lazy(dataset).items():
        _move_shards(staged / name, target / name, variable, sides[name], places)
    if mode == "a":
        _extend(target, dataset, sizes["time"])
    consolidate(target)  # even where nothing in it changed: its age tells readers that the store did
    shutil.rmtree(part)
    return target


def _fitted_to(dataset: xr.Dataset, store: xr.Dataset, target: Path) -> xr.Dataset:
    """Check that variables and their kind are those of the store."""
    if set(map(str, dataset.data_vars)) != set(map(str, store.data_vars)):
        raise EmbeddingError(
            f"{target} holds {sorted(map(str, store.data_vars))}; got {sorted(map(str, dataset.data_vars))}"
        )
    for name in dataset.data_vars:
        new, old = dataset[name], store[name]
        if new.dims != old.dims or new.dtype != old.dtype:
            raise EmbeddingError(
                f"{name!r} is {old.dtype} {old.dims} in {target}; got {new.dtype} {new.dims}"
                + (" (encode=True writes codes)" if old.dtype.kind == "i" and new.dtype.kind == "f" else "")
            )
        if kind_of(old) != "map" or kind_of(new) != "map":
            check_comparable(f"writing into {target}", comparability_key(old), comparability_key(new))
        if old.attrs.get("codec") != new.attrs.get("codec"):
            raise EmbeddingError(
                f"{target} holds codec {old.attrs.get('codec')!r}; got {new.attrs.get('codec')!r}"
            )
        crs = [geometry.crs_of(each) for each in (old, new)]
        if crs[0] is not None and (crs[1] is None or not geometry.same_crs(*crs)):
            raise EmbeddingError(f"{target} lies in another CRS; reproject to it first")
        for dim in new.dims:
            if str(dim) in (BAND, "component", "category", "rgb") and not np.array_equal(old[dim], new[dim]):
                raise EmbeddingError(f"{target} has other labels along {dim!r}")
    return dataset


def _appended(dataset: xr.Dataset, store: xr.Dataset, target: Path) -> Places:
    """Positions of new times: after the last one, everything else as it is."""
    if "time" not in dataset.dims or "time" not in store.dims:
        raise EmbeddingError("mode='a' appends along 'time', which both the array and the store must have")
    old, new = store.coords["time"].values, dataset.coords["time"].values
    if new.min() <= old.max():
        raise EmbeddingError(
            f"{target} has times {times.describe_times(old)}; appended ones must be later, got "
            f"{times.describe_times(new)}. mode='r+' overwrites times that are there."
        )
    places = _located(dataset.drop_vars("time"), store.drop_vars("time"), target, skip="time")
    for dim, where in places.items():
        if where.size != store.sizes[dim]:
            raise EmbeddingError(f"mode='a' needs the store's whole grid; {dim!r} covers a part of it")
    return {**places, "time": np.arange(new.size) + old.size}


def _located(dataset: xr.Dataset, store: xr.Dataset, target: Path, skip: str = "") -> Places:
    """Where the coordinates of an array lie in a store.

    Raises
    ------
    EmbeddingError
        If one is not there.
    """
    places: dict[str, np.ndarray] = {}
    for dim in map(str, dataset.dims):
        if dim == skip or dim not in store.coords:
            places |= {} if dim == skip else {dim: np.arange(dataset.sizes[dim])}
            continue
        own, all_of_it = dataset.coords[dim].values, store.coords[dim].values
        if dim in ("y", "x") and all_of_it.size > 1:
            step = (all_of_it[-1] - all_of_it[0]) / (all_of_it.size - 1)
            position = (own - all_of_it[0]) / step
            where = np.rint(position).astype(np.int64)
            good = (np.abs(position - where) < 1e-3) & (where >= 0) & (where < all_of_it.size)
        else:
            order = {value: i for i, value in enumerate(all_of_it.tolist())}
            where = np.array([order.get(value, -1) for value in own.tolist()], np.int64)
            good = where >= 0
        if not good.all():
            missing = own[~good]
            raise EmbeddingError(
                f"{target} has no {dim} = {missing[0]} (and {len(missing) - 1} more): mode='r+' writes only where "
                "the store has a place; mode='a' appends times"
            )
        places[dim] = where
    return places


def _check_aligned(target: Path, dim: str, side: int, where: np.ndarray, size: int) -> None:
    """Refuse to write a part of a shard: its other pixels would be lost to whoever writes them meanwhile."""
    start, stop = int(where[0]), int(where[-1]) + 1
    if side > 1 and (start % side or (stop % side and stop != size)):
        low, high = start // side * side, min(-(-stop // side) * side, size)
        raise EmbeddingError(
            f"{target} is stored in shards of {side} along {dim!r}, and {start}:{stop} cuts through one; "
            f"write {low}:{high} (positions in the store), so that no neighbour is touched"
        )


def _move_shards(
    staged: Path, target: Path, variable: xr.Variable, sides: Mapping[Hashable, int], places: Places
) -> None:
    """Put each staged shard in its place, one rename each; those moved by an interrupted run are skipped."""
    for index in _shard_indices(variable, sides):
        source = staged / "c" / "/".join(map(str, index))
        there = [
            int(places[str(dim)][i * sides[dim]]) // sides[dim]
            for dim, i in zip(variable.dims, index, strict=True)
        ]
        goal = target / "c" / "/".join(map(str, there))
        if source.exists():
            goal.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, goal)
        elif not goal.exists():
            raise SourceError(
                f"{source} is gone, and {goal} was never written; remove {staged.parent.parent}"
            )


def _shard_indices(variable: xr.Variable, sides: Mapping[Hashable, int]) -> Iterator[tuple[int, ...]]:
    counts = (range(-(-n // sides[dim])) for dim, n in zip(variable.dims, variable.shape, strict=True))
    return itertools.product(*counts)


def _extend(target: Path, dataset: xr.Dataset, length: int) -> None:
    """Make room for the new times in the metadata, arrays first and the time axis last."""
    new = dataset.sizes["time"]
    group = zarr.open_group(target, mode="r+", use_consolidated=False)
    for name, variable in _lazy(dataset).items():
        if "time" in variable.dims:
            node = _array(group, name)
            node.resize((length + new, *node.shape[1:]))
    node = _array(group, "time")
    units = str(node.attrs["units"])
    node.resize((length + new,))
    node[length:] = _encode_times(dataset.coords["time"].values, units)


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    node = group[name]
    assert isinstance(node, zarr.Array)
    return node


def _encode_times(times: np.ndarray, units: str) -> np.ndarray:
    from xarray.coding.times import CFDatetimeCoder

    variable = xr.Variable("time", times, encoding={"units": units, "dtype": np.dtype("int64")})
    return np.asarray(CFDatetimeCoder().encode(variable, name="time").values)
