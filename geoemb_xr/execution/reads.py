"""The sources and windows that a lazy array reads, found from its graph alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.execution.computing import compute

#: A source behind NumPy's slicing, and a window of it.
Read = tuple[Any, tuple[slice, ...]]


def reads_of(graph: Any) -> Iterator[Read]:
    """Each read of a graph: dask keeps slices of a source beside the layers of ``from_array``.

    What reads rows of tables brings its source along, block by block.
    """
    from geoemb_xr.execution.internals import ArraySliceDep, ArrayValuesDep, Blockwise

    for layer in graph.layers.values():
        if not isinstance(layer, Blockwise):
            continue
        for name, dep in layer.io_deps.items():
            if isinstance(dep, ArrayValuesDep):
                yield from _sources_of(layer, name, dep)
        slices = next((dep for dep in layer.io_deps.values() if isinstance(dep, ArraySliceDep)), None)
        name = f"original-{layer.output}"
        holder = next((each for each in graph.layers.values() if name in each), None)
        if slices is None or holder is None:
            continue
        source = _held_by(holder, name)
        for key in layer.get_output_keys():
            yield source, tuple(slices[key[1:]])


def _sources_of(layer: Any, name: str, dep: Any) -> Iterator[Read]:
    """Values of a layer's blocks that are sources of their own, with a ``window``."""
    axes = next(axes for each, axes in layer.indices if each == name)
    for key in layer.get_output_keys():
        place = dict(zip(layer.output_indices, key[1:], strict=True))
        source = dep[tuple(place[axis] for axis in axes)]
        if hasattr(source, "window"):
            yield source, source.window


def _held_by(layer: Any, name: str) -> Any:
    """The source that a layer holds, in a task or directly."""
    return getattr(layer[name], "value", layer[name])


def culled_graph(arrays: Sequence[xr.DataArray]) -> tuple[Any, list[Any]]:
    """The culled graph of lazy arrays, and their keys."""
    from dask.highlevelgraph import HighLevelGraph

    from geoemb_xr.execution.internals import flatten

    keys = [key for each in arrays for key in flatten(each.data.__dask_keys__())]
    return HighLevelGraph.merge(*(each.data.__dask_graph__() for each in arrays)).cull(set(keys)), keys


def stored_objects(array: xr.DataArray) -> dict[str, Any]:
    """Stored objects of an array that may be absent: their paths, and the source of each."""
    if array.chunks is None:
        return {}
    return {
        name: source
        for source, window in reads_of(culled_graph([array])[0])
        if hasattr(source, "objects")
        for name in source.objects(window)
    }


def absence_of(array: xr.DataArray) -> str:
    """Which share of the stored blocks of an array was found absent when it was opened or read; asks nothing."""
    graph = array.data.__dask_graph__() if array.chunks is not None else None
    for name, layer in getattr(graph, "layers", {}).items():
        if name.startswith("original-") and (said := getattr(_held_by(layer, name), "absence", "")):
            return str(said)
    return ""


# --- rows of tables -----------------------------------------------------------------------------------------------


def values_at(coords: Mapping[Hashable, xr.DataArray], rows: np.ndarray) -> xr.Dataset:
    """Values of coordinates along one dimension at some rows, lazy ones read for these alone. Computes.

    Columns of one table are read together, and nothing is made of its other rows: to decode the footprints of all
    patches of a block takes longer than to score their vectors.
    """
    columns = {name: one for name, each in coords.items() if (one := _column_of(each)) is not None}
    rest = {
        name: each.variable.isel({each.dims[0]: rows}) for name, each in coords.items() if name not in columns
    }
    order = np.argsort(rows, kind="stable")
    sources = {layer: (dep, coords[name].data.chunks[0]) for name, (layer, _, dep) in columns.items()}
    reads = {layer: _reads_at(dep, sizes, rows[order]) for layer, (dep, sizes) in sources.items()}
    tables: dict[str, list[np.ndarray]]
    found: xr.Dataset
    tables, found = compute(reads, xr.Dataset(rest))
    for name, (layer, field, _) in columns.items():
        values = np.empty(rows.size, coords[name].dtype)
        values[order] = np.concatenate([table[field] for table in tables[layer]])
        found[name] = coords[name].dims, values
    ordered: xr.Dataset = found[list(coords)]
    return ordered


def _column_of(coord: xr.DataArray) -> tuple[str, str, Any] | None:
    """The layer that reads a table whose column this is, as it was opened; the column's name; and the blocks."""
    from geoemb_xr.execution.internals import ArrayValuesDep, Blockwise, getitem

    layers = coord.data.__dask_graph__().layers if coord.chunks is not None else {}
    top = layers[coord.data.name] if len(layers) == 2 else None
    if not isinstance(top, Blockwise) or top.task.func is not getitem:
        return None
    (layer, _), (field, axes) = top.indices
    dep = next(iter(getattr(layers.get(layer), "io_deps", {}).values()), None)
    known = axes is None and isinstance(dep, ArrayValuesDep) and hasattr(dep[(0,)], "take")
    return (layer, field, dep) if known else None


def _reads_at(blocks: Any, sizes: Sequence[int], rows: np.ndarray) -> list[Any]:
    """Ascending rows of a table, read block by block, delayed."""
    import dask

    edges = np.cumsum([0, *sizes])
    own = np.split(rows, np.searchsorted(rows, edges[1:-1]))
    wanted = [(i, each - edges[i]) for i, each in enumerate(own) if each.size]
    step = dask.delayed(_read_rows, pure=False, traverse=False)
    return [step(blocks[(i,)], each) for i, each in wanted]


def _read_rows(block: Any, rows: np.ndarray) -> np.ndarray:
    read: np.ndarray = block.take(rows).read()
    return read
