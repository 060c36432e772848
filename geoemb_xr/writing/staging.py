"""Blocks on their way to a file: each written once, marked when it is, and never written again.

A stage is a Zarr group beside the file that is being made (``path.part``). It keeps what was finished when a
run is killed; the same call again computes the rest.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import times
from geoemb_xr.core.errors import check_choice
from geoemb_xr.core.notes import say
from geoemb_xr.execution import progress, workers

if TYPE_CHECKING:
    import zarr

#: Side of the blocks that an array in memory is written in, in pixels.
BLOCK = 1024


def part_of(path: Path) -> Path:
    """Where a file is staged until it is whole."""
    return path.with_name(path.name + ".part")


def check_target(path: str | os.PathLike[str], mode: str, valid: Sequence[str] = ("w-", "w")) -> Path:
    """Return the path if it may be written in this mode.

    Raises
    ------
    FileExistsError
        If it exists and ``mode`` is ``"w-"``.
    FileNotFoundError
        If its folder does not exist.
    """
    check_choice("mode", mode, valid)
    target = Path(path)
    if target.exists() and mode == "w-":
        raise FileExistsError(f"{target} exists already; mode='w' replaces it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {target.parent} does not exist; make it first")
    return target


# --- one file a time --------------------------------------------------------------------------------------------


def per_file(array: xr.DataArray, path: str) -> list[tuple[str, xr.DataArray]]:
    """Each file's name and its array, without ``time``."""
    each = [array.isel(time=i) for i in range(array.sizes["time"])] if "time" in array.dims else [array]
    if "{" not in path:
        if len(each) > 1:
            stem, suffix = os.path.splitext(path)
            raise ValueError(
                f"a file holds one time, the array has {len(each)} "
                f"({times.describe_times(array.coords['time'].values)}): give a template such as "
                f"'{stem}_{{time:%Y}}{suffix}'"
            )
        return [(path, each[0])]
    names = [_fill_in(path, one) for one in each]
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
class Layout:
    """Where the blocks of a dask array lie in a Zarr array of regular chunks.

    Parameters
    ----------
    chunks : tuple of int
        Of the Zarr array.
    offset : tuple of int
        Where the array's first element lies: a ragged first block then ends on a chunk edge.
    """

    chunks: tuple[int, ...]
    offset: tuple[int, ...]


def lay_out(data: Any) -> tuple[Any, Layout]:
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
    return (data.rechunk(wanted) if wanted else data), Layout(tuple(chunks), tuple(offset))


# --- writing ----------------------------------------------------------------------------------------------------


class Target(Protocol):
    """What blocks are written into."""

    def __setitem__(self, window: tuple[slice, ...], block: np.ndarray) -> None: ...


@dataclass(frozen=True)
class Job:
    """Blocks to write.

    Parameters
    ----------
    data : dask array
        Each block covers whole chunks (or shards) of ``target``.
    target : zarr.Array, or anything else that takes blocks
        Where they go; small, since it travels to workers.
    marks : zarr.Array
        An element a block, 1 where it is written; each element a chunk, so that marks never meet.
    offset : tuple of int
        Where the array's first element lies in ``target``.
    """

    data: Any
    target: Target
    marks: zarr.Array[Any]
    offset: tuple[int, ...]

    def pending(self) -> list[tuple[int, ...]]:
        """Blocks that are not written yet."""
        return [tuple(map(int, index)) for index in np.argwhere(np.asarray(self.marks[...]) == 0)]


def write_blocks(jobs: Sequence[Job]) -> None:
    """Compute the blocks that are not marked yet and write them, in one pass over all jobs."""
    import dask.array as da
    from dask.base import compute_as_if_collection
    from dask.highlevelgraph import HighLevelGraph

    graphs, keys = [], []
    for job in jobs:
        starts = tuple(
            tuple(np.cumsum((first, *sizes[:-1])).tolist())
            for first, sizes in zip(job.offset, job.data.chunks, strict=True)
        )
        written = da.map_blocks(
            _write_block,
            job.data,
            target=job.target,
            marks=job.marks,
            starts=starts,
            chunks=tuple((1,) * len(sizes) for sizes in job.data.chunks),
            dtype=bool,
            meta=np.empty((0,) * job.data.ndim, bool),
        )
        graphs.append(written.dask)
        keys += [(written.name, *index) for index in job.pending()]
    if not keys:
        return
    graph = HighLevelGraph.merge(*graphs)
    resources = workers.asked_by(graph)
    if resources:
        workers.check_offered(resources)
    with progress.shown("writing"):
        compute_as_if_collection(da.Array, graph, keys, **({"resources": resources} if resources else {}))


def _write_block(
    block: np.ndarray,
    *,
    target: Target,
    marks: zarr.Array[Any],
    starts: tuple[tuple[int, ...], ...],
    block_id: tuple[int, ...],
) -> np.ndarray:
    first = [edges[i] for edges, i in zip(starts, block_id, strict=True)]
    window = tuple(slice(start, start + size) for start, size in zip(first, block.shape, strict=True))
    target[window] = block
    marks[block_id] = 1  # only after the block: a mark without its block cannot be
    return np.ones((1,) * block.ndim, bool)


# --- a stage of one array -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Staged:
    """An array whose blocks are all written, read back window by window."""

    array: zarr.Array[Any]
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
        Any; an array in memory is cut into blocks of 1,024 pixels.
    folder : Path
        Made where it is not there. What another call left in it is thrown away, and that is said.
    """
    data, layout = lay_out(chunked(array).data)
    fingerprint = [data.name, str(data.dtype), list(data.shape), list(layout.chunks)]
    group = open_stage(folder, fingerprint)
    shape = tuple(o + n for o, n in zip(layout.offset, data.shape, strict=True))
    target = require_array(group, "blocks", shape, data.dtype, layout.chunks)
    marks = require_marks(group, "done", data)
    write_blocks([Job(data, target, marks, layout.offset)])
    return Staged(target, layout.offset)


def chunked(array: xr.DataArray) -> xr.DataArray:
    """The array on dask: as it is, or cut into blocks along y and x, or along ``location``."""
    if array.chunks is not None:
        return array
    sides = {"y": BLOCK, "x": BLOCK, "time": 1, "location": BLOCK * BLOCK}
    return array.chunk({dim: sides.get(str(dim), -1) for dim in array.dims})


def open_stage(folder: Path, fingerprint: Sequence[Any]) -> zarr.Group:
    """The Zarr group of a stage: what an interrupted run of the same work left, or an empty one."""
    import zarr

    mine = list(fingerprint)
    if folder.is_dir():
        try:
            group = zarr.open_group(folder, mode="r+", zarr_format=3)
            if group.attrs.get("fingerprint") == mine:
                return group
            say(f"{folder} holds unfinished work on another array; it is thrown away")
        except FileNotFoundError:  # killed before anything was written
            pass
        shutil.rmtree(folder)
    return zarr.create_group(folder, zarr_format=3, attributes={"fingerprint": mine})


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
