"""Into a Zarr store that exists: new times, or values where it has a place, in its own codecs and chunks."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
import zarr
from dask.base import tokenize

from geoemb_xr.core import columns, geometry, times
from geoemb_xr.core.conventions import UNFINISHED, UNREAD
from geoemb_xr.core.errors import EmbeddingError, MissingFileError, SourceError
from geoemb_xr.core.legend import is_class_map, legend_of
from geoemb_xr.core.missing import NODATA_KEYS, declared_nodata
from geoemb_xr.core.model import BAND, check_comparable, comparability_key, kind_of
from geoemb_xr.core.notes import say
from geoemb_xr.core.whole_files import replacing
from geoemb_xr.execution.internals import CFDatetimeCoder
from geoemb_xr.writing.locking import only_writer
from geoemb_xr.writing.staging import at, bring_to_disk, discard, part_of
from geoemb_xr.writing.zarr_stage import consolidate, edit_root, lazy_variables, stage_store

#: Positions of a stage's elements in the store it goes to, along each dimension.
Places = Mapping[str, np.ndarray]
#: The file of a stage with the metadata that an append changes, as they were.
KEPT = "metadata.json"


def write_into(dataset: xr.Dataset, target: Path, mode: Literal["a", "r+"]) -> Path:
    """Stage what is new, then move its shards into the store and last of all its metadata.

    Parameters
    ----------
    dataset : Dataset
        The dataset that ``to_zarr`` writes, lazy.
    target : Path
        A store of ours, or one that others wrote.
    mode : {"a", "r+"}
        Append times after the last one, or write where the store has a place.

    Returns
    -------
    Path
        Path of the store.

    Raises
    ------
    EmbeddingError
        If what is written does not fit the store; nothing is touched then.
    MissingFileError
        If there is no store.
    """
    if not target.is_dir():
        raise MissingFileError(f"{target} does not exist; mode='w-' makes it")
    if mode == "r+":
        update = _planned(dataset, target, mode)
        key = tokenize({dim: where.tolist() for dim, where in update.places.items()})[:8]
        with only_writer(target, update.claim(), key=key):
            return _carry_out(update, part_of(target, key))
    with only_writer(target):
        _take_back(target, part_of(target))
        return _carry_out(_planned(dataset, target, mode), part_of(target))


@dataclass(frozen=True)
class _Update:
    """What is written into a store, and where.

    Parameters
    ----------
    dataset : Dataset
        Under the store's names.
    target : Path
        The store.
    mode : str
        ``a`` or ``r+``.
    nodes : mapping of str to zarr.Array
        The store's arrays of the lazy variables.
    places : mapping of str to ndarray
        Where the elements lie in it.
    along : mapping of str to ndarray
        What is appended to each array along time alone, as it is stored there; the time axis last.
    """

    dataset: xr.Dataset
    target: Path
    mode: str
    nodes: Mapping[str, zarr.Array[Any]]
    places: Places
    along: Mapping[str, np.ndarray]

    def sides(self, name: str) -> dict[Hashable, int]:
        """Sides of the shards of a variable, as the store has them."""
        return dict(zip(lazy_variables(self.dataset)[name].dims, _shard(self.nodes[name]), strict=True))

    def claim(self) -> dict[str, list[int]]:
        """The shards that are touched along each dimension, in the coarsest of the variables' shards."""
        sides: dict[str, int] = {}
        for name in self.nodes:
            for dim, side in self.sides(name).items():
                sides[str(dim)] = max(side, sides.get(str(dim), 1))
        return {dim: np.unique(self.places[dim] // side).tolist() for dim, side in sides.items()}


def _planned(dataset: xr.Dataset, target: Path, mode: str) -> _Update:
    """Look at the store, and refuse what does not fit it."""
    with _opened(target) as store:
        renamed = {name: stored for stored, name in store.attrs.get(columns.NAMES, {}).items()}
        dataset = dataset.rename(
            {k: v for k, v in renamed.items() if k in dataset.variables or k in dataset.dims}
        )
        _check_fits(dataset, store, target)
        places = _appended(dataset, store, target) if mode == "a" else _located(dataset, store, target)
        sizes = dict(store.sizes)
    group = zarr.open_group(at(target), mode="r", use_consolidated=False)
    nodes = {name: _array(group, name) for name in lazy_variables(dataset)}
    along = _along_time(dataset, group, target) if mode == "a" else {}
    update = _Update(dataset, target, mode, nodes, places, along)
    for name, variable in lazy_variables(dataset).items():
        for dim in map(str, variable.dims):
            _check_aligned(update, dim, update.sides(name)[dim], sizes[dim])
    return update


def _opened(target: Path) -> xr.Dataset:
    """The store's values as they are stored: codes with a fill value are not floats."""
    try:
        found = xr.open_dataset(
            at(target),  # type: ignore[arg-type]  # xarray takes stores of zarr
            engine="zarr",
            chunks=None,
            cache=False,
            consolidated=False,
            mask_and_scale=False,
        )
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise SourceError(f"{target} is not a Zarr store that can be written into: {error}") from error
    return geometry.with_grid_mappings(found)


def _shard(node: zarr.Array[Any]) -> tuple[int, ...]:
    return tuple(node.shards or node.chunks)


# --- does it fit ------------------------------------------------------------------------------------------------


def _check_fits(dataset: xr.Dataset, store: xr.Dataset, target: Path) -> None:
    """Check that variables and their kind are those of the store."""
    if set(map(str, dataset.data_vars)) != set(map(str, store.data_vars)):
        raise EmbeddingError(
            f"{target} holds {sorted(map(str, store.data_vars))}; got {sorted(map(str, dataset.data_vars))}"
        )
    own = {str(name) for name in dataset.coords if name in lazy_variables(dataset)}
    others = {str(name) for name, coord in store.coords.items() if coord.ndim > 1}
    if own != others:
        raise EmbeddingError(f"{target} has the coordinates {sorted(others)} per pixel; got {sorted(own)}")
    for name in lazy_variables(dataset):
        new, old = dataset[name], store[name]
        if new.dims != old.dims or new.dtype != old.dtype:
            raise EmbeddingError(
                f"{name!r} is {old.dtype} {old.dims} in {target}; got {new.dtype} {new.dims}"
                + (" (encode=True writes codes)" if old.dtype.kind == "i" and new.dtype.kind == "f" else "")
            )
        if scaled := {"scale_factor", "add_offset"} & set(old.attrs):
            raise EmbeddingError(
                f"{target} stores {name!r} with {sorted(scaled)}, which only xarray's own to_zarr writes"
            )
    for variable in dataset.data_vars:
        _check_same_space(dataset[variable], store[variable], target)


def _check_same_space(new: xr.DataArray, old: xr.DataArray, target: Path) -> None:
    if kind_of(old) != "map" or kind_of(new) != "map":
        check_comparable(f"writing into {target}", comparability_key(old), comparability_key(new))
    if old.attrs.get("codec") != new.attrs.get("codec"):
        raise EmbeddingError(
            f"{target} holds codec {old.attrs.get('codec')!r}; got {new.attrs.get('codec')!r}"
        )
    _check_same_meaning(new, old, target)
    crs = [geometry.crs_of(each) for each in (old, new)]
    if crs[0] is not None and (crs[1] is None or not geometry.same_crs(*crs)):
        raise EmbeddingError(f"{target} lies in another CRS; reproject to it first")
    for dim in new.dims:
        if str(dim) in (BAND, "component", "category", "rgb") and not np.array_equal(old[dim], new[dim]):
            raise EmbeddingError(f"{target} has other labels along {dim!r}")


def _classes_of(array: xr.DataArray) -> dict[int, str]:
    """Names of classes by code, as CF's attributes write them; nothing of another map."""
    if not is_class_map(array):
        return {}
    legend = legend_of(array)
    return dict(zip(legend.values, (name.strip().replace(" ", "_") for name in legend.names), strict=True))


def _check_same_meaning(new: xr.DataArray, old: xr.DataArray, target: Path) -> None:
    """Check that numbers mean the same; other attributes that differ stay as the store has them, which is said."""
    known, meant = _classes_of(old), _classes_of(new)
    if bool(known) != bool(meant) or not meant.items() <= known.items():
        raise EmbeddingError(
            f"{target} has the classes {known}; got {meant}: bring the codes to those of the store first"
        )
    units = [None if (unit := each.attrs.get("units")) is None else str(unit) for each in (old, new)]
    nodata = [declared_nodata(each) for each in (old, new)]
    for what, (there, given) in (("units", units), ("nodata", nodata)):
        if there is not None and given is not None and there != given:
            raise EmbeddingError(f"{target} says {what} = {there}; got {given}")
    quiet = {"source", "legend", "flag_values", "flag_meanings", *NODATA_KEYS}
    differ = [
        k for k in old.attrs.keys() & new.attrs.keys() - quiet if str(old.attrs[k]) != str(new.attrs[k])
    ]
    if differ:
        names = ", ".join(sorted(map(str, differ)))
        say(f"{target} keeps its own attributes ({names}), which are not those of the array")


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
    if (new[1:] <= new[:-1]).any():
        raise EmbeddingError("appended times must rise; sort them first (.sortby('time'))")
    along = [{str(n) for n, c in each.coords.items() if c.dims == ("time",)} for each in (store, dataset)]
    if along[0] != along[1]:
        raise EmbeddingError(f"{target} has {sorted(along[0])} along 'time'; got {sorted(along[1])}")
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


def _check_aligned(update: _Update, dim: str, side: int, size: int) -> None:
    """Refuse to write a part of a shard: its other pixels would be lost to whoever writes them meanwhile."""
    where, target = update.places[dim], update.target
    if len(np.unique(where)) < where.size or (side > 1 and (np.diff(where) != 1).any()):
        raise EmbeddingError(
            f"{dim!r} must follow {target} without gaps or repeats; write its stretches one by one"
        )
    start, stop = int(where.min()), int(where.max()) + 1
    if start % side and update.mode == "a":
        raise EmbeddingError(
            f"{target} is stored in chunks of {side} along {dim!r}, and its last one is not full: appending would "
            "write it anew. Write all times into another store"
        )
    if start % side or (stop % side and stop < size):
        low, high = start // side * side, min(-(-stop // side) * side, size)
        raise EmbeddingError(
            f"{target} is stored in shards of {side} along {dim!r}, and {start}:{stop} cuts through one; "
            f"write {low}:{high} (positions in the store), so that no neighbour is touched"
        )


# --- staged, then moved -----------------------------------------------------------------------------------------


def _carry_out(update: _Update, part: Path) -> Path:
    target, lazy = update.target, lazy_variables(update.dataset)
    sides = {name: update.sides(name) for name in lazy}
    metadata = {name: _metadata_file(target / name).read_text() for name in lazy}
    places = {dim: where.tolist() for dim, where in update.places.items()}
    purpose = [update.mode, str(target), places, metadata]
    staged = stage_store(update.dataset, part, sides, purpose, partial(_write_template, update))
    bring_to_disk(staged)
    edit_root(target, partial(_mark, part.name, f"to_zarr(…, mode={update.mode!r})"))
    for name in lazy:
        _move_shards(staged, update, name)
    if update.mode == "a":
        _keep_metadata(update, part)
        _extend(update)
    consolidate(target, partial(_done, update, part.name))  # its age tells, too, that the store changed
    discard(part)
    return target


def _mark(key: str, what: str | None, attrs: dict[str, Any]) -> None:
    """Mark in a root's attributes that the store is being written into, or that this is done."""
    going_on = {**attrs.pop(UNFINISHED, {}), key: what}
    if going_on := {key: what for key, what in going_on.items() if what is not None}:
        attrs[UNFINISHED] = going_on


def _done(update: _Update, key: str, attrs: dict[str, Any]) -> None:
    """Say that nothing is being written any more, and that blocks are there which could not be read before."""
    _mark(key, None, attrs)
    if left := [each for each in attrs.pop(UNREAD, []) if not _covers(update, each)]:
        attrs[UNREAD] = left


def _covers(update: _Update, unread: Mapping[str, Any]) -> bool:
    """Whether all of a block was written."""
    if unread["variable"] not in update.nodes:
        return False
    spans = {dim: np.arange(*span) for dim, span in unread.items() if dim in update.places}
    return all(np.isin(span, update.places[dim]).all() for dim, span in spans.items())


def _write_template(update: _Update, dataset: xr.Dataset, store: Path) -> None:
    """Arrays of the stage's shape in the target's own codecs and chunks: its metadata, with another shape."""
    zarr.create_group(at(store), zarr_format=3)  # of a stage; its arrays are of the target's format
    for name, variable in lazy_variables(dataset).items():
        source = _metadata_file(update.target / name)
        metadata = {**json.loads(source.read_text()), "shape": list(variable.shape)}
        (store / name).mkdir()
        (store / name / source.name).write_text(json.dumps(metadata))


def _metadata_file(node: Path) -> Path:
    found = node / "zarr.json"
    return found if found.exists() else node / ".zarray"


def _move_shards(staged: Path, update: _Update, name: str) -> None:
    """Put each staged shard in its place, one rename each; those moved by an interrupted run are skipped."""
    variable, sides, places = lazy_variables(update.dataset)[name], update.sides(name), update.places
    key = update.nodes[name].metadata.encode_chunk_key
    for index in _shard_indices(variable, sides):
        source = staged / name / key(index)
        there = tuple(
            int(places[str(dim)][i * sides[dim]]) // sides[dim]
            for dim, i in zip(variable.dims, index, strict=True)
        )
        goal = update.target / name / key(there)
        if source.exists():
            goal.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, goal)
        elif not goal.exists():
            raise SourceError(
                f"{source} is gone, and {goal} was never written; remove {staged.parent}, and write it again"
            )


def _shard_indices(variable: xr.Variable, sides: Mapping[Hashable, int]) -> Iterator[tuple[int, ...]]:
    counts = (range(-(-n // sides[dim])) for dim, n in zip(variable.dims, variable.shape, strict=True))
    return itertools.product(*counts)


def _keep_metadata(update: _Update, part: Path) -> None:
    """Keep how long the arrays are, for :func:`_take_back`."""
    names = [str(n) for n, v in lazy_variables(update.dataset).items() if "time" in v.dims] + [*update.along]
    kept = {name: _metadata_file(update.target / name).read_text() for name in names}
    with replacing(part / KEPT) as file:
        file.write(json.dumps(kept).encode())


def _take_back(target: Path, part: Path) -> None:
    """Restore the lengths that the arrays had before an append that was killed while it made room."""
    kept, root = part / KEPT, target / "zarr.json"
    if not kept.exists():
        return
    marked = (
        json.loads(root.read_text()).get("attributes", {}).get(UNFINISHED, {}) if root.exists() else part.name
    )
    if part.name in marked:
        for name, text in json.loads(kept.read_text()).items():
            with replacing(_metadata_file(target / name)) as file:
                file.write(text.encode())
    kept.unlink()


def _extend(update: _Update) -> None:
    """Make room for the new times in the metadata, arrays first and the time axis last."""
    length, new = int(update.places["time"][0]), update.dataset.sizes["time"]
    group = zarr.open_group(at(update.target), mode="r+", use_consolidated=False)
    for name, variable in lazy_variables(update.dataset).items():
        if "time" in variable.dims:
            node = _array(group, name)
            node.resize(
                tuple(
                    length + new if d == "time" else n for d, n in zip(variable.dims, node.shape, strict=True)
                )
            )
    for name, values in update.along.items():
        node = _array(group, name)
        node.resize((length + new,))
        node[length:] = values


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    node = group[name]
    assert isinstance(node, zarr.Array)
    return node


def _along_time(dataset: xr.Dataset, group: zarr.Group, target: Path) -> dict[str, np.ndarray]:
    """Values along time alone as the store's arrays have them; those that these cannot hold are refused."""
    names = [str(name) for name, coord in dataset.coords.items() if coord.dims == ("time",)]
    found = {}
    for name in sorted(names, key=lambda each: each == "time"):
        coord, node = dataset.coords[name], _array(group, name)
        held = _as_stored(coord, node)
        if held is None or coord.attrs.get(columns.NOTE) != node.attrs.get(columns.NOTE):
            kind = f"{node.attrs['units']!r}, " if "units" in node.attrs else ""
            raise EmbeddingError(
                f"{target} stores {name!r} as {kind}{node.dtype}, which cannot hold {coord.values}"
            )
        found[name] = held
    return found


def _as_stored(coord: xr.DataArray, node: zarr.Array[Any]) -> np.ndarray | None:
    """Values in the units and the type of an array; None where they would change."""
    if coord.dtype.kind != "M":
        held: np.ndarray = coord.values.astype(node.dtype)
        return held if pd.Index(held).equals(pd.Index(coord.values)) else None
    # xarray's encoder would change the units where whole numbers do not do; its decoder tells what two of them mean
    told = {key: str(node.attrs[key]) for key in ("units", "calendar") if key in node.attrs}
    origin, second = CFDatetimeCoder().decode(xr.Variable("time", [0, 1], told)).values
    if not isinstance(origin, np.datetime64):
        return None
    whole, rest = np.divmod(coord.values - origin, second - origin)
    held = whole.astype(node.dtype)
    return held if not rest.astype(np.int64).any() and np.array_equal(held, whole) else None
