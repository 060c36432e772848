"""A lazily indexed array cut to what was asked for, before dask sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from geoemb_xr.core import areas, geometry, times
from geoemb_xr.core.areas import Area
from geoemb_xr.core.errors import CoverageError, SourceError
from geoemb_xr.core.missing import fill_of
from geoemb_xr.readers.stored_chunks import StoredChunks, layout_of
from geoemb_xr.readers.tiles import Request, block_sides, bounds_for
from geoemb_xr.readers.zarr_chunks import transfer_of
from geoemb_xr.stores.archives import is_archive
from geoemb_xr.stores.files import check_unchanged, state_of_file
from geoemb_xr.stores.objects import is_remote
from geoemb_xr.stores.storage import current, using


def cut[T: (xr.DataArray, xr.Dataset)](array: T, request: Request, name: str, age: str, stays: str = "") -> T:
    """A lazily indexed array cut to area and time, then put on dask.

    Parameters
    ----------
    array : DataArray or Dataset
        Raster or locations, not on dask yet.
    request : Request
        Area, time and chunks.
    name : str
        The file, for messages and for the name of the graph.
    age : str
        A key that changes when the file is rewritten.
    stays : str
        Path of a local file that changes only when all is replaced, after which reading is an error.

    Raises
    ------
    CoverageError
        If it holds nothing of what was asked for.
    """
    if request.time is not None and "time" in array.dims:
        array = array.isel(time=times.pick_times(array.coords["time"].values, request.time, covers=name))
    if request.area is not None and {"y", "x"} <= set(array.dims):
        parts = _parts(array, request.area, name)
    else:
        parts = [array]
    if request.area is not None and "location" in array.dims:
        x, y = (array.coords[axis].values for axis in ("x", "y"))
        within = places_inside(x, y, request.area, geometry.crs_of(array))
        if not within.any():
            raise CoverageError(f"{name} has no location in {request.area}")
        parts = [array.isel(location=np.flatnonzero(within))]
    sides: dict[Any, int] = dict.fromkeys(array.dims, -1)
    sides |= {dim: side for dim, side in block_sides(request.chunks).items() if dim in array.dims}
    sides |= {"time": 1} if "time" in array.dims else {}
    sides |= {"location": 1 << 16} if "location" in array.dims else {}
    # a rewritten store is another array, and the same window of the same store is the same one
    token = tokenize(name, age, str(request.time), request.area, sides)
    state = stays, state_of_file(stays) if stays else ""
    lazy = [_on_dask(_as_dataset(each), sides, name, f"{token}-{i}", state) for i, each in enumerate(parts)]
    whole = lazy[0]
    if len(lazy) > 1:
        whole = xr.concat(
            lazy, "x", data_vars="minimal", coords="minimal", compat="equals", join="exact",
            combine_attrs="override",
        )  # fmt: skip
    if isinstance(array, xr.Dataset):
        return whole
    return whole[_DATA].rename(array.name)


def _as_dataset(array: xr.DataArray | xr.Dataset) -> xr.Dataset:
    return array if isinstance(array, xr.Dataset) else array.to_dataset(name=_DATA)


def _parts[T: (xr.DataArray, xr.Dataset)](array: T, area: Area, name: str) -> list[T]:
    """What of a raster lies in an area: one window, or two where that crosses the edge of a grid of the world."""
    box = geometry.geobox_of(array, "open")
    turns = (0.0, 360.0, -360.0) if geometry.as_crs(box.crs).is_geographic else (0.0,)
    found = [
        (turn, window)
        for west, south, east, north in bounds_for(area, box.crs)
        for turn in turns
        if (window := areas.window_of(box, (west + turn, south, east + turn, north))) is not None
    ]
    if not found:
        raise CoverageError(f"{name} does not cover {area}; it covers {areas.area_of(box)}")
    cut_out = [(turn, array.isel(y=rows, x=cols)) for turn, (rows, cols) in found]
    # from west to east, as the area lies
    cut_out.sort(key=lambda each: float(each[1].coords["x"].min()) - each[0])
    return _joining([(cut_out[0][0] - turn, part) for turn, part in cut_out], abs(box.affine.a), name)


def _joining[T: (xr.DataArray, xr.Dataset)](parts: list[tuple[float, T]], step: float, name: str) -> list[T]:
    """Windows from west to east, each moved by so many degrees; none has a column that one before it has."""
    joined: list[T] = []
    end = -np.inf
    for shift, part in parts:
        x = part.coords["x"].values + shift
        # a grid of more than a turn has its last columns twice
        start = int(np.searchsorted(x, end + step / 2))
        if start == x.size:
            continue
        between = (x[start] - end) / step
        if joined and abs(between - round(between)) > 0.01:
            raise CoverageError(
                f"the area lies on both sides of {name}, whose edges do not meet in whole pixels around the globe: "
                f"it ends at {end + step / 2:g} and goes on at {x[start] - step / 2:g}. Open each side by itself"
            )
        end = x[-1]
        part = part.isel(x=slice(start, None))
        joined.append(part.assign_coords(x=part.coords["x"] + shift) if shift else part)
    return joined


def without_gap(array: xr.DataArray) -> xr.DataArray:
    """A raster of both ends of a grid that does not reach around the world, missing in between. Lazy."""
    axis = array.coords["x"] if "x" in array.dims else xr.DataArray(np.zeros(0), dims="x")
    x, steps = axis.values, np.diff(axis.values)
    if steps.size < 2 or steps.max() < 1.5 * steps.min():
        return array
    gap, step = int(steps.argmax()), float(steps.min())
    number = steps / step
    if np.abs(number - number.round()).max() > 0.01 or np.delete(number, gap).max() > 1.5:
        return array  # no grid with one gap
    between = np.linspace(x[gap], x[gap + 1], round(number[gap]) + 1)[1:-1]
    missing = np.nan if array.dtype.kind == "f" else fill_of(array) or 0
    beside = {name: np.nan for name, coord in array.coords.items() if coord.ndim > 1}  # scales of codes
    whole = np.concatenate([x[: gap + 1], between, x[gap + 1 :]])
    found = array.reindex(x=whole, fill_value={array.name: missing, **beside})
    return found.assign_coords(x=("x", whole, axis.attrs))


#: What an array is called in a Dataset of its own.
_DATA = "array to cut"


def _on_dask(
    dataset: xr.Dataset, sides: dict[Any, int], name: str, token: str, state: tuple[str, str]
) -> xr.Dataset:
    """Each variable in blocks, read so that damage is an error that names the file; scalars in memory."""
    lazy = {}
    for key, variable in dataset.variables.items():
        if key in dataset.xindexes:
            continue
        stored = _StoredVariable(variable, name, state)
        if variable.dims:
            chunks = tuple(
                n if sides[d] == -1 else min(sides[d], n)
                for d, n in zip(variable.dims, variable.shape, strict=True)
            )
            meta = np.empty((0,) * variable.ndim, variable.dtype)
            data: Any = da.from_array(stored, chunks, name=f"own-{key}-{token}", meta=meta)
        else:
            data = stored[()]
        lazy[key] = xr.Variable(variable.dims, data, variable.attrs, variable.encoding)
    return dataset.assign({key: lazy[key] for key in lazy if key in dataset.data_vars}).assign_coords(
        {key: lazy[key] for key in lazy if key in dataset.coords}
    )


class _StoredVariable:
    """A stored variable behind NumPy's slicing, whose errors name the file."""

    def __init__(self, variable: xr.Variable, name: str, state: tuple[str, str]) -> None:
        self.variable, self.name, self.state = variable, name, state
        self.shape, self.dtype, self.ndim = variable.shape, variable.dtype, variable.ndim
        self.storage = current()

    def transfer(self, windows: Sequence[tuple[slice, ...]]) -> tuple[int, int]:
        """Requests and bytes with which windows are read, where the file's own array tells."""
        with using(self.storage):
            return self._transfer(windows)

    def _transfer(self, windows: Sequence[tuple[slice, ...]]) -> tuple[int, int]:
        cuts = [_lazily_cut(self.variable[window]) for window in windows]
        if all(hasattr(each, "key") and hasattr(each, "array") for each in cuts):
            stored, keys = cuts[0].array, [[_span(part) for part in each.key.tuple] for each in cuts]
            if hasattr(stored, "transfer"):
                requests, size = stored.transfer(keys)
                return int(requests), int(size)
            node: Any = getattr(stored, "_array", None)
            if hasattr(node, "metadata"):
                dims = tuple(map(str, self.variable.dims))
                named = [dict(zip(dims, key, strict=True)) for key in keys]
                return transfer_of(self.name, str(node.path), node, dims, named)
        itemsize = self.dtype.itemsize
        return len(windows), sum(math.prod(s.stop - s.start for s in each) * itemsize for each in windows)

    def kept(self, transferred: int, read: int) -> int:
        """Bytes of blocks that stay in the cache after reading, where the file's own array has one."""
        stored: Any = getattr(_lazily_cut(self.variable), "array", None)
        return int(stored.kept(transferred, read)) if hasattr(stored, "kept") else 0

    def __getitem__(self, key: Any) -> np.ndarray:
        try:
            cut = self.variable[key]
            found = None if _is_unpacked(cut) else self._decoded_here(_lazily_cut(cut))
            return np.asarray(cut.values) if found is None else found
        except (SourceError, MemoryError):
            raise
        except Exception as error:  # of zarr, a codec, GDAL or HDF5: an unreadable block is not nodata
            reason = str(error).strip().partition("\n")[0][:200]
            raise SourceError(f"{self.name} could not be read, it is damaged: {reason}") from error
        finally:  # then all of it was read before, or what is damaged or lost belongs to another store
            check_unchanged(*self.state, self.name)

    def _decoded_here(self, cut: Any) -> np.ndarray | None:
        """A window of a plain Zarr array, decoded in this thread; None for all else.

        Zarr hands each chunk from thread to thread: a fifth of the CPU time, and threads wait for each other.
        Remote stores are left to it, since it asks for indexes anew: a store of ours may be written again.
        """
        node: Any = getattr(getattr(cut, "array", None), "_array", None)
        if not hasattr(node, "metadata") or node.dtype != self.dtype:
            return None
        if is_archive(self.name) or is_remote(self.name):
            return None
        spans = cut.key.tuple
        if not all(isinstance(each, slice) and each.step in (None, 1) for each in spans):
            return None
        layout = layout_of(node)
        if layout is None:
            return None
        spans = [slice(*each.indices(n)[:2]) for each, n in zip(spans, node.shape, strict=True)]
        return StoredChunks(self.name, str(node.path), node, layout).window(spans)


def _lazily_cut(variable: xr.Variable) -> Any:
    """The lazily indexed array out of what xarray wraps it in."""
    data: Any = variable._data
    while not hasattr(data, "key") and hasattr(data, "array"):
        data = data.array
    return data


def _is_unpacked(variable: xr.Variable) -> bool:
    """Whether xarray applies a scale or a nodata value to what is stored."""
    data: Any = variable._data
    while not hasattr(data, "func") and hasattr(data, "array"):
        data = data.array
    return hasattr(data, "func")


def _span(part: Any) -> slice:
    """An integer, a slice or an array of positions as what it spans."""
    if isinstance(part, slice):
        return part
    positions = np.atleast_1d(np.asarray(part))
    return slice(int(positions.min()), int(positions.max()) + 1)


def places_inside(x: np.ndarray, y: np.ndarray, area: Area, crs: object) -> np.ndarray:
    """Return which places lie in an area; degrees may be written a turn away."""
    within = np.zeros(x.shape, bool)
    for west, south, east, north in bounds_for(area, crs):
        for turn in (0, 360) if geometry.as_crs(crs).is_geographic else (0,):
            within |= (x + turn >= west) & (x + turn <= east) & (y >= south) & (y <= north)
    return within
