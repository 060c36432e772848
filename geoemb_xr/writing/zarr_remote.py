"""A Zarr store into an object store, object by object, the document of its root last.

Objects cannot be renamed and nobody can lock them. A store without its root's document does not open, so that
nobody sees one that is not finished; marks beside it (``….part``) keep what was written when a run is killed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr
import zarr

from geoemb_xr._version import __version__
from geoemb_xr.core.conventions import UNREAD
from geoemb_xr.core.errors import EmbeddingError, SourceError, check_choice
from geoemb_xr.core.notes import say
from geoemb_xr.stores.objects import delete_objects, list_objects, move_objects, object_size, put
from geoemb_xr.stores.zarr_objects import ZarrObjects
from geoemb_xr.writing.objects import check_free, naming_store_errors
from geoemb_xr.writing.staging import Errors, WriteJob, require_marks, write_blocks
from geoemb_xr.writing.zarr_stage import consolidate, fingerprint_of, lazy_variables, rechunked, unread_blocks

_ROOT = "zarr.json"


def write_store(
    dataset: xr.Dataset,
    url: str,
    mode: str,
    sides: Mapping[str, Mapping[Hashable, int]],
    purpose: list[Any],
    write_template: Callable[[xr.Dataset, Path], None],
    errors: Errors = "raise",
) -> str:
    """Write a dataset as a Zarr store of objects; what an interrupted run of the same call wrote is kept.

    Parameters
    ----------
    dataset : Dataset
        The dataset that ``to_zarr`` writes.
    url : str
        URL of the store.
    mode : {"w-", "w"}
        Refuse where there is a store, or replace it once the new one is whole.
    sides : mapping
        Sides of the shards of each lazy variable.
    purpose : list
        A key of this work, besides what is written.
    write_template : callable
        Makes the store with metadata and all that is in memory, in a folder.
    errors : {"raise", "missing"}
        Raise where a block cannot be read, or write it as missing and list it in the root's attributes.

    Raises
    ------
    ValueError
        For an unknown mode.
    EmbeddingError
        If the mode writes into a store that is there: that is for stores on this machine.
    """
    if mode in ("a", "r+"):
        raise EmbeddingError(
            f"mode={mode!r} writes into stores on this machine, and {url} is an object store: write a store of its "
            "own there, or append to a local copy"
        )
    check_choice("mode", mode, ("w-", "w"))
    url = url.rstrip("/")
    check_free(f"{url}/{_ROOT}", mode)
    dataset = rechunked(dataset, sides)
    part = f"{url}.part"
    with naming_store_errors(url, "; the same call again goes on where this one stopped"):
        marks = _marks(part, url, [*fingerprint_of(dataset, [*purpose, url]), __version__])
        goal = str(marks.attrs["goal"])
        documents = _documents(dataset, write_template)
        root = documents.pop(_ROOT)
        for name, data in documents.items():
            put(f"{goal}/{name}", data)
        jobs = {name: _job(marks, goal, name, v) for name, v in lazy_variables(dataset).items()}
        write_blocks(list(jobs.values()), errors)
        root = _with_unread(root, unread_blocks(jobs, dataset))
        if goal != url:
            if not marks.attrs.get("moving"):  # else some of the new ones are there already
                delete_objects(f"{url}/{_ROOT}", url)
                marks.attrs["moving"] = True
            move_objects(goal, url)
        put(f"{url}/{_ROOT}", root)
    try:
        with naming_store_errors(part):
            delete_objects(part)
    except SourceError as error:
        say(f"{url} is whole, but the marks of this run could not be removed: {error}")
    return url


def _with_unread(root: bytes, unread: list[dict[str, Any]]) -> bytes:
    """The root's document, with the blocks that were given up among its attributes."""
    if not unread:
        return root
    document = json.loads(root)
    document["attributes"][UNREAD] = unread
    return json.dumps(document, indent=2).encode()


def _marks(part: str, url: str, fingerprint: list[Any]) -> zarr.Group:
    """The marks of what was written: of an interrupted run of the same call, or none yet."""
    mine = json.loads(json.dumps(fingerprint))
    store = ZarrObjects(f"{part}/marks.zarr", read_only=False)
    there = object_size(f"{part}/marks.zarr/{_ROOT}") is not None
    if there:
        group = zarr.open_group(store, mode="r+", zarr_format=3)
        if group.attrs.get("fingerprint") == mine:
            return group
        say(f"{part} holds unfinished work on another array; it is deleted")
    whole = object_size(f"{url}/{_ROOT}") is not None
    if not whole:
        if not there and list_objects(url):
            raise FileExistsError(f"{url} holds objects that are no Zarr store; give the store another name")
        delete_objects(url)
    delete_objects(part)
    goal = f"{part}/store.zarr" if whole else url  # one that is there stays until the new one is whole
    attrs = {"fingerprint": mine, "goal": goal}
    return zarr.create_group(store, zarr_format=3, attributes=attrs)


def _documents(dataset: xr.Dataset, write_template: Callable[[xr.Dataset, Path], None]) -> dict[str, bytes]:
    """Metadata and what is in memory, as objects: made in a folder, where Zarr can make them."""
    with tempfile.TemporaryDirectory(prefix="geoemb-") as folder:
        made = Path(folder, "store.zarr")
        write_template(dataset, made)
        consolidate(made)
        return {p.relative_to(made).as_posix(): p.read_bytes() for p in made.rglob("*") if p.is_file()}


def _job(marks: zarr.Group, goal: str, name: str, variable: xr.Variable) -> WriteJob:
    store = ZarrObjects(f"{goal}/{name}", read_only=False)
    target = zarr.open_array(store, mode="r+", config={"write_empty_chunks": True})
    done = require_marks(marks, name, variable.data)
    return WriteJob(variable.data, target, done, (0,) * variable.ndim, target.fill_value)
