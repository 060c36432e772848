"""A Zarr store in the making: blocks into a template, each once, kept when a run is killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from dask.base import tokenize

from geoemb_xr.core.conventions import UNREAD, as_json
from geoemb_xr.core.notes import say
from geoemb_xr.stores import consolidating
from geoemb_xr.writing.locking import one_at_a_time
from geoemb_xr.writing.staging import (
    Errors,
    WriteJob,
    at,
    open_stage,
    put_in_place,
    require_marks,
    write_blocks,
)


def lazy_variables(dataset: xr.Dataset) -> dict[str, xr.Variable]:
    """The variables that are written block by block; the others are in memory and go with the template."""
    return {str(name): v for name, v in dataset.variables.items() if v.chunks is not None}


def stage_store(
    dataset: xr.Dataset,
    part: Path,
    sides: Mapping[str, Mapping[Hashable, int]],
    purpose: Sequence[Any],
    write_template: Callable[[xr.Dataset, Path], None],
    errors: Errors = "raise",
) -> Path:
    """Write a dataset as a whole store into ``part``, block by block; what is there already is kept.

    Parameters
    ----------
    dataset : Dataset
        Lazy variables are rechunked to whole shards.
    part : Path
        Part of the target.
    sides : mapping of str to mapping of str to int
        Sides of the shards of each lazy variable.
    purpose : sequence
        The purpose of the store, as JSON has it: a stage that other work left is deleted.
    write_template : callable
        Makes the store of the rechunked dataset, with metadata and all that is in memory, at a path.
    errors : {"raise", "missing"}
        Raise where a block cannot be read, or write it as missing and list it in the root's attributes.

    Returns
    -------
    Path
        The store, in ``part``.
    """
    dataset = rechunked(dataset, sides)
    lazy = lazy_variables(dataset)
    fingerprint = fingerprint_of(dataset, purpose)
    store = part / "store.zarr"
    progress = open_stage(part / "marks.zarr", fingerprint, store / "zarr.json")
    if not progress.attrs.get("template"):
        shutil.rmtree(store, ignore_errors=True)
        try:
            write_template(dataset, store)
        except BaseException:
            shutil.rmtree(part)
            raise
        progress.attrs["template"] = True
    jobs = {}
    for name, variable in lazy.items():
        # shards without data are written too: one that is missing is lost, not empty
        target = zarr.open_array(at(store), path=name, mode="r+", config={"write_empty_chunks": True})
        marks = require_marks(progress, name, variable.data)
        jobs[name] = WriteJob(variable.data, target, marks, (0,) * variable.ndim, target.fill_value)
    write_blocks(list(jobs.values()), errors)
    if unread := unread_blocks(jobs, dataset):
        edit_root(store, lambda attrs: attrs.update({UNREAD: unread}))
    return store


def unread_blocks(jobs: Mapping[str, WriteJob], dataset: xr.Dataset) -> list[dict[str, Any]]:
    """The blocks that were given up: their variable, where they begin and end along each dimension, and why."""
    found = [
        {
            "variable": name,
            **{
                str(dim): [part.start, part.stop] for dim, part in zip(dataset[name].dims, where, strict=True)
            },
            "reason": why,
        }
        for name, job in jobs.items()
        for where, why in job.unread()
    ]
    if found:
        say(f"{len(found)} blocks could not be read, and are missing; the first because {found[0]['reason']}")
    return found


def fingerprint_of(dataset: xr.Dataset, purpose: Sequence[Any]) -> list[Any]:
    """A fingerprint of this work: its target, the values in memory, and the graphs of its blocks."""
    small = {str(n): (v.dims, np.asarray(v.values)) for n, v in dataset.variables.items() if v.chunks is None}
    attrs = {str(name): as_json(v.attrs) for name, v in dataset.variables.items()} | {
        "": as_json(dataset.attrs)
    }
    return [*purpose, tokenize(small, attrs), {n: v.data.name for n, v in lazy_variables(dataset).items()}]


def rechunked(dataset: xr.Dataset, sides: Mapping[str, Mapping[Hashable, int]]) -> xr.Dataset:
    """Every variable in blocks of whole shards."""
    for name, variable in lazy_variables(dataset).items():
        change = dataset.assign_coords if name in dataset.coords else dataset.assign
        dataset = change({name: variable.chunk(dict(sides[name]))})
    return dataset


# --- the metadata of a root -------------------------------------------------------------------------------------


def consolidate(store: Path, edit: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Write the consolidated metadata last, so that a store is seen whole or as it was before.

    Parameters
    ----------
    store : Path
        Store of format 3, or of 2.
    edit : callable, optional
        Changes the attributes of the root (of format 3) afterwards.
    """
    if not (store / "zarr.json").exists():
        zarr.consolidate_metadata(at(store), zarr_format=2)
        return
    with one_at_a_time(store):
        consolidating.consolidate(store)
    if edit is not None:
        edit_root(store, edit)


def edit_root(store: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change attributes of the root of a store of format 3; of 2 nothing: it has more than one file of them."""
    file = store / "zarr.json"
    if not file.exists():
        return
    with one_at_a_time(store):
        root = json.loads(file.read_text())
        edit(root.setdefault("attributes", {}))
        new = file.with_name("zarr.json.part")
        new.write_text(json.dumps(root, indent=2))
        put_in_place(new, file)
