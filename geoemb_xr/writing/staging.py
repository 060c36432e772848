"""Staging: blocks on their way to a file, each written once and then marked.

A stage is a Zarr group beside the file that is being made (``path.part``). It keeps what was finished when a
run is killed; the same call again computes the rest.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr._version import __version__
from geoemb_xr.core import times
from geoemb_xr.core.errors import MissingFileError, SourceError, check_choice
from geoemb_xr.core.local_paths import local_path
from geoemb_xr.core.notes import say
from geoemb_xr.execution import progress, workers
from geoemb_xr.execution.computing import scheduler

if TYPE_CHECKING:
    import zarr
    from zarr.storage import LocalStore

#: What a writer does about blocks that cannot be read: raise, or write them as missing and list them.
Errors = Literal["raise", "missing"]

#: Side of the blocks that an array in memory is written in, in pixels.
BLOCK = 1024


def part_of(path: Path, key: str = "") -> Path:
    """The path where a file, or a part of it with a key, is staged until it is whole."""
    return path.with_name(f"{path.name}{'.' if key else ''}{key}.part")


def check_target(
    path: str | os.PathLike[str], mode: str, valid: Sequence[str] = ("w-", "w"), *, folder: bool = False
) -> Path:
    """Return the path if it may be written in this mode.

    Parameters
    ----------
    path : path
        Path on this machine; a ``file://`` URL is one too.
    mode : str
        One of ``valid``.
    valid : sequence of str
        Modes that the caller knows.
    folder : bool
        Whether what is written is a folder.

    Raises
    ------
    FileExistsError
        If it exists and ``mode`` is ``"w-"``, or it is a folder where a file is meant.
    FileNotFoundError
        If its folder does not exist.
    SourceError
        If it is not a path on this machine.
    ValueError
        For an unknown mode.
    MissingFileError
        If the folder does not exist.
    """
    check_choice("mode", mode, valid)
    try:
        target = local_path(path)
    except SourceError as error:
        raise SourceError(f"{error}; write to a folder, local or mounted, and copy it from there") from error
    if target.exists() and mode == "w-":
        raise FileExistsError(f"{target} exists already; mode='w' replaces it")
    if target.is_dir() and not folder:
        raise FileExistsError(f"{target} is a folder; give the file in it a name")
    if not target.parent.is_dir():
        raise MissingFileError(f"the folder {target.parent} does not exist; make it first")
    return target


# --- one file per time --------------------------------------------------------------------------------------------


def template_in(path: str) -> tuple[str, str]:
    """The folder of a path, and the template in the rest: a folder that is there is none, whatever its name."""
    folder, template = os.path.split(path)
    return (folder, template) if os.path.isdir(folder) else ("", path)


def per_file(array: xr.DataArray, path: str) -> list[tuple[str, xr.DataArray]]:
    """Each file's name and its array, without ``time``."""
    each = [array.isel(time=i) for i in range(array.sizes["time"])] if "time" in array.dims else [array]
    folder, template = template_in(path)
    if "{" not in template:
        if len(each) > 1:
            stem, suffix = os.path.splitext(path)
            raise ValueError(
                f"a file holds one time, the array has {len(each)} "
                f"({times.describe_times(array.coords['time'].values)}): give a template such as "
                f"'{stem}_{{time:%Y}}{suffix}'"
            )
        return [(path, each[0])]
    names = [os.path.join(folder, _fill_in(template, one)) for one in each]
    if len(set(names)) < len(names):
        raise ValueError(
            f"the template {path!r} gives {names[0]!r} for more than one time; add {{time:%Y-%m-%d}}"
        )
    return list(zip(names, each, strict=True))


def _fill_in(template: str, array: xr.DataArray) -> str:
    values: dict[str, Any] = {"name": "map" if array.name is None else array.name}
    if "time" in array.coords:
        values["time"] = pd.Timestamp(array.coords["time"].item())
    try:
        return template.format(**values)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"the template {template!r} cannot be filled in ({error!r}); it may use {sorted(values)}"
        ) from error


# --- blocks on a regular grid -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChunkGrid:
    """Where the blocks of a dask array lie in a Zarr array of regular chunks.

    Parameters
    ----------
    chunks : tuple of int
        Chunks of the Zarr array.
    offset : tuple of int
        Where the array's first element lies: a ragged first block then ends on a chunk edge.
    """

    chunks: tuple[int, ...]
    offset: tuple[int, ...]


def lay_out(data: Any) -> tuple[Any, ChunkGrid]:
    """A grid on which every dask block is one chunk; the array is rechunked only where there is none.

    Blocks of a window of a store are ``300, 512, 512, 88``: shifted by 212 they lie on a grid of 512.
    """
    wanted: dict[int, int] = {}
    chunks, offset = [], []
    for axis, sizes in enumerate(data.chunks):
        size = max(sizes)
        if any(each != size for each in sizes[1:-1]):
            wanted[axis] = size
        chunks.append(size)
        offset.append(0 if axis in wanted or len(sizes) == 1 else size - sizes[0])
    return (data.rechunk(wanted) if wanted else data), ChunkGrid(tuple(chunks), tuple(offset))


# --- writing ----------------------------------------------------------------------------------------------------


class Target(Protocol):
    """The target that blocks are written into."""

    def __setitem__(self, window: tuple[slice, ...], block: np.ndarray) -> None: ...


@dataclass(frozen=True)
class WriteJob:
    """Blocks to write.

    Parameters
    ----------
    data : dask array
        Each block covers whole chunks (or shards) of ``target``.
    target : zarr.Array, or anything else that takes blocks
        The target of blocks; small, since it travels to workers.
    marks : zarr.Array
        An element a block, 1 where it is written; each element a chunk, so that marks never meet.
    offset : tuple of int
        Where the array's first element lies in ``target``.
    missing : number, optional
        The value of a block that cannot be read.
    """

    data: Any
    target: Target
    marks: zarr.Array[Any]
    offset: tuple[int, ...]
    missing: Any = 0

    @property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """Where blocks begin in ``target``, along each axis."""
        return tuple(
            tuple(np.cumsum((first, *sizes[:-1])).tolist())
            for first, sizes in zip(self.offset, self.data.chunks, strict=True)
        )

    def window(self, index: Sequence[int]) -> tuple[slice, ...]:
        """Where a block lies in ``target``."""
        each = zip(self.starts, self.data.chunks, index, strict=True)
        return tuple(slice(starts[i], starts[i] + sizes[i]) for starts, sizes, i in each)

    def pending(self) -> list[tuple[int, ...]]:
        """Blocks that are not written yet."""
        return [tuple(map(int, index)) for index in np.argwhere(~self.done())]

    def done(self) -> np.ndarray:
        """Which blocks are written: of which there is a mark, as the store lists them, whatever their number."""
        from geoemb_xr.stores.zarr_objects import listed_keys

        folder, name_of = f"{self.marks.path}/", self.marks.metadata.encode_chunk_key
        there = set(listed_keys(self.marks.store.list_prefix(folder)))
        found = [f"{folder}{name_of(index)}" in there for index in np.ndindex(self.marks.shape)]
        return np.array(found, bool).reshape(self.marks.shape)

    def give_up(self, index: tuple[int, ...], error: Exception) -> None:
        """Write a block as missing, and keep why."""
        window = self.window(index)
        shape = [part.stop - part.start for part in window]
        self.target[window] = np.full(shape, self.missing, self.data.dtype)
        self.marks.attrs["unread"] = {**self._reasons(), json.dumps(index): str(error)}
        self.marks[index] = 1

    def unread(self) -> list[tuple[tuple[slice, ...], str]]:
        """Blocks that were given up, with their place and the reason."""
        return [(self.window(json.loads(index)), why) for index, why in self._reasons().items()]

    def _reasons(self) -> dict[str, Any]:
        """Why blocks were given up, by their index in JSON: kept with the marks for a run that goes on."""
        return cast("dict[str, Any]", self.marks.attrs.get("unread", {}))


class Call:
    """One call's writing, which ends with the call: dask raises while other blocks are still computed.

    What is computed after the end is not written, or it would meet what the next call writes to the same place.
    Threads of this process share the object; a worker process has a copy, which never ends.
    """

    def __init__(self) -> None:
        self._ended = False
        self._writing: set[int] = set()  # threads
        self._changed = threading.Condition()

    def __reduce__(self) -> tuple[type[Call], tuple[()]]:
        return Call, ()

    def __dask_tokenize__(self) -> str:
        return "Call"

    @contextmanager
    def writing(self) -> Iterator[bool]:
        """Whether a block may still be written; :meth:`end` waits until it is."""
        thread = threading.get_ident()
        with self._changed:
            going_on = not self._ended
            self._writing.add(thread)
        try:
            yield going_on
        finally:
            with self._changed:
                self._writing.discard(thread)
                self._changed.notify_all()

    def end(self) -> None:
        """Let no block be written from now on."""
        with self._changed:
            self._ended = True
            # if this thread was interrupted while it wrote, it writes no more, and does not wait for itself
            self._changed.wait_for(lambda: not self._writing - {threading.get_ident()})


def write_blocks(jobs: Sequence[WriteJob], errors: Errors = "raise") -> None:
    """Compute the blocks that are not marked yet and write them, in one pass over all jobs.

    Where a block cannot be read, and errors are ``"missing"``, the others are still written, and it is given up.
    """
    blocks = [(job, index) for job in jobs for index in job.pending()]
    try:
        _write(blocks)
    except SourceError as error:
        if errors == "raise":
            raise
        _write_readable(blocks, error)


def _write_readable(blocks: Sequence[tuple[WriteJob, tuple[int, ...]]], error: SourceError) -> None:
    """Write what can be read of blocks that together cannot: half by half, down to a single one."""
    if len(blocks) == 1:
        job, index = blocks[0]
        job.give_up(index, error)
        return
    done = {id(job): job.done() for job in {id(job): job for job, _ in blocks}.values()}
    left = [(job, index) for job, index in blocks if not done[id(job)][index]]
    for half in (left[: len(left) // 2], left[len(left) // 2 :]):
        try:
            _write(half)
        except SourceError as of_half:
            _write_readable(half, of_half)


def _write(blocks: Sequence[tuple[WriteJob, tuple[int, ...]]]) -> None:
    import dask.array as da
    from dask.base import compute_as_if_collection
    from dask.highlevelgraph import HighLevelGraph

    if not blocks:
        return
    graphs, keys = [], []
    call = Call()
    for job in {id(job): job for job, _ in blocks}.values():
        written = da.map_blocks(
            _write_block,
            job.data,
            target=job.target,
            marks=job.marks,
            call=call,
            starts=job.starts,
            chunks=tuple((1,) * len(sizes) for sizes in job.data.chunks),
            dtype=bool,
            meta=np.empty((0,) * job.data.ndim, bool),
        )
        graphs.append(written.dask)
        keys += [(written.name, *index) for own, index in blocks if own is job]
    graph = HighLevelGraph.merge(*graphs)
    resources = workers.asked_by(graph)
    if resources:
        workers.check_offered(resources)
    try:
        with progress.shown("writing"):
            options = {"resources": resources} if resources else {}
            compute_as_if_collection(da.Array, graph, keys, scheduler=scheduler(), **options)
    finally:
        call.end()


def _write_block(
    block: np.ndarray,
    *,
    target: Target,
    marks: zarr.Array[Any],
    call: Call,
    starts: tuple[tuple[int, ...], ...],
    block_id: tuple[int, ...],
) -> np.ndarray:
    first = [edges[i] for edges, i in zip(starts, block_id, strict=True)]
    window = tuple(slice(start, start + size) for start, size in zip(first, block.shape, strict=True))
    with call.writing() as going_on:
        if going_on:
            target[window] = block
            marks[block_id] = 1  # only after the block: a mark without its block cannot be
    return np.ones((1,) * block.ndim, bool)


# --- a stage of one array -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Staged:
    """An array whose blocks are all written, or were in memory before, read window by window."""

    array: zarr.Array[Any] | np.ndarray
    offset: tuple[int, ...]

    def read(self, *window: slice) -> np.ndarray:
        """A window of the array, counted from its own first element."""
        moved = tuple(slice(w.start + o, w.stop + o) for w, o in zip(window, self.offset, strict=True))
        return np.asarray(self.array[moved])


def stage(array: xr.DataArray, folder: Path) -> Staged:
    """Compute an array block by block into a folder; blocks that an earlier run finished are kept.

    Parameters
    ----------
    array : DataArray
        Any. What is in memory stays there; what is read when indexed is cut into blocks of 1,024 pixels.
    folder : Path
        It is made where it does not exist, if there is anything to compute. Work of another call in it is then
        deleted, and a note says so.
    """
    from geoemb_xr.execution.internals import is_in_memory

    if is_in_memory(array.variable):  # nothing is computed that an error could lose
        return Staged(array.values, (0,) * array.ndim)
    data, layout = lay_out(chunked(array).data)
    fingerprint = [data.name, str(data.dtype), list(data.shape), list(layout.chunks)]
    group = open_stage(folder, fingerprint)
    shape = tuple(o + n for o, n in zip(layout.offset, data.shape, strict=True))
    target = require_array(group, "blocks", shape, data.dtype, layout.chunks)
    marks = require_marks(group, "done", data)
    write_blocks([WriteJob(data, target, marks, layout.offset)])
    return Staged(target, layout.offset)


def chunked(array: xr.DataArray) -> xr.DataArray:
    """The array on dask: as it is, or cut into blocks along y and x, or along ``location``."""
    if array.chunks is not None:
        return array
    sides = {"y": BLOCK, "x": BLOCK, "time": 1, "location": BLOCK * BLOCK}
    return array.chunk({dim: sides.get(str(dim), -1) for dim in array.dims})


def at(folder: Path) -> LocalStore:
    """A folder as a Zarr store; in a string, Zarr and fsspec would take ``#`` and ``?`` as parts of a URL."""
    from zarr.storage import LocalStore

    return LocalStore(folder)


def open_stage(folder: Path, fingerprint: Sequence[Any], product: Path | None = None) -> zarr.Group:
    """The Zarr group of a stage: what an interrupted run of the same work left, or an empty one.

    Parameters
    ----------
    folder : Path
        Made where it is not there.
    fingerprint : sequence
        A key of this work, as JSON has it.
    product : Path, optional
        What blocks are written into, where that lies outside. An earlier run that was killed after it had put
        the product in its place left only marks.
    """
    import zarr

    mine = json.loads(json.dumps([*fingerprint, __version__]))
    if folder.is_dir():
        try:
            group = zarr.open_group(at(folder), mode="r+", zarr_format=3)
            same = group.attrs.get("fingerprint") == mine
            moved = bool(group.attrs.get("template")) and product is not None and not product.exists()
            if same and not moved:
                return group
            if not same:
                say(f"{folder} holds unfinished work on another array; it is deleted")
        except FileNotFoundError:  # killed before anything was written
            pass
        shutil.rmtree(folder)
    return zarr.create_group(at(folder), zarr_format=3, attributes={"fingerprint": mine})


def discard(part: Path, marks: str = "marks.zarr") -> None:
    """Remove a stage, its marks first: without them nobody takes what is left for finished."""
    (part / marks / "zarr.json").unlink(missing_ok=True)
    shutil.rmtree(part)


def bring_to_disk(path: Path) -> None:
    """Bring a file, or all files of a folder, to the disk: a rename must not be there before what it names."""
    if path.is_dir():
        for folder, _, files in os.walk(path):
            for name in files:
                _sync(Path(folder, name))
            _sync(Path(folder))
    else:
        _sync(path)


def put_in_place(finished: Path, target: Path) -> None:
    """Rename what is finished to its name, once it is on the disk."""
    bring_to_disk(finished)
    os.replace(finished, target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # where a folder cannot be opened
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], dtype: Any, chunks: tuple[int, ...]
) -> zarr.Array[Any]:
    """An array of a stage, lightly compressed: it is read once and removed."""
    from zarr.codecs import ZstdCodec

    return group.require_array(
        name, shape=shape, dtype=dtype, chunks=chunks, compressors=ZstdCodec(level=1), fill_value=0
    )


def require_marks(group: zarr.Group, name: str, data: Any) -> zarr.Array[Any]:
    """The done-marks of a dask array's blocks."""
    return require_array(group, name, tuple(data.numblocks), np.uint8, (1,) * data.ndim)


def windows(shape: tuple[int, int], side: int) -> list[tuple[slice, slice]]:
    """Squares over a raster, row by row; the last ones cut."""
    rows, cols = (math.ceil(n / side) for n in shape)
    return [
        (
            slice(r * side, min((r + 1) * side, shape[0])),
            slice(c * side, min((c + 1) * side, shape[1])),
        )
        for r in range(rows)
        for c in range(cols)
    ]
