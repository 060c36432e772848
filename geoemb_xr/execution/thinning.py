"""Every n-th pixel of a lazy map, selected before the map is computed instead of after.

dask slices a block once it is made: a picture of a thousand pixels of a large change map would compute all of it.
A function that looks at one pixel at a time gives the same from fewer pixels, so what it is made of is sliced.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise, product
from operator import getitem
from typing import Any

import numpy as np
import xarray as xr


def pixelwise[F](function: F) -> F:
    """Mark a function of blocks that treats each pixel separately, so that other pixels may be left out."""
    function.looks_at_pixels = True  # type: ignore[attr-defined]
    return function


def pick(array: xr.DataArray, cuts: Mapping[str, slice]) -> xr.DataArray:
    """``array.isel(cuts)``, where the array is lazy with as little computed as its functions allow.

    Parameters
    ----------
    array : DataArray
        Lazy or in memory.
    cuts : mapping of str to slice
        Slices with positive steps.
    """
    taken = array.isel(cuts)
    if array.chunks is None or not taken.size:
        return taken
    data = _sliced_first(
        array.data,
        {int(array.get_axis_num(d)): cut for d, cut in cuts.items()},
    )
    return taken if data is None else taken.copy(data=data)


def _sliced_first(data: Any, cuts: Mapping[int, slice]) -> Any:
    """A dask array whose sources are sliced; None where no function between lets that happen."""
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    graph = data.dask
    found = _walk(graph, data.name, tuple(cuts))
    if found is None:
        return None
    functions, sources = found
    kept = {axis: _kept(data.chunks[axis], cut) for axis, cut in cuts.items()}
    # names of their own: a scheduler that holds blocks of the whole map must not take them for these
    token = tokenize(sorted((axis, repr(cut)) for axis, cut in cuts.items()))

    def thinned(name: str) -> str:
        return f"{name}-thin-{token}"

    layers = {name: layer for name, layer in graph.layers.items() if name not in functions}
    needs = {name: set(graph.dependencies[name]) for name in layers}
    renamed: dict[Any, Any] = {}
    for name, axes in sources.items():
        new, keys = thinned(name), _keys(graph.layers[name], name)
        renamed |= {key: (new, *key[1:]) for key in keys}
        layers[new] = {
            renamed[key]: (getitem, key, tuple(
                kept[axes[i]].get(n, slice(0)) if i in axes else slice(None) for i, n in enumerate(key[1:])
            ))
            for key in keys
        }  # fmt: skip
        needs[new] = {name}
    tasks = {name: dict(graph.layers[name]) for name in functions}
    renamed |= {key: (thinned(name), *key[1:]) for name, own in tasks.items() for key in own}
    changed = functions | set(sources)
    for name, own in tasks.items():
        new = thinned(name)
        layers[new] = {renamed[key]: task.substitute(renamed, key=renamed[key]) for key, task in own.items()}
        needs[new] = {thinned(each) if each in changed else each for each in graph.dependencies[name]}
    positions = [[*kept[i]] if i in kept else range(n) for i, n in enumerate(data.numblocks)]
    picked, top = f"picked-{token}-{data.name}", thinned(data.name)
    numbers = product(*(range(len(each)) for each in positions))
    layers[picked] = {
        (picked, *new): (top, *old) for new, old in zip(numbers, product(*positions), strict=True)
    }
    needs[picked] = {top}
    chunks = tuple(
        tuple(len(range(*cut.indices(data.chunks[i][n]))) for n, cut in kept[i].items()) if i in kept else own
        for i, own in enumerate(data.chunks)
    )
    return da.Array(HighLevelGraph(layers, needs), picked, chunks, meta=data._meta)


def _keys(layer: Any, name: str) -> list[tuple[Any, ...]]:
    """Keys of the blocks that a layer makes, without those of steps inside of it."""
    return [key for key in layer.get_output_keys() if isinstance(key, tuple) and key[0] == name]


def _walk(graph: Any, name: str, axes: tuple[int, ...]) -> tuple[set[str], dict[str, dict[int, int]]] | None:
    """Layers that may see fewer pixels, and those below them that are sliced: which axis is cut by which."""
    functions: set[str] = set()
    sources: dict[str, dict[int, int]] = {}
    seen: dict[str, dict[int, int]] = {}
    todo = [(name, {axis: axis for axis in axes})]
    while todo:
        name, where = todo.pop()
        if seen.setdefault(name, where) != where:
            return None
        layer = graph.layers[name]
        if not _looks_at_pixels(layer):
            sources[name] = where
            continue
        functions.add(name)
        symbols = {layer.output_indices[at]: axis for at, axis in where.items()}
        for below, indices in layer.indices:
            if indices is None or below not in graph.layers:
                continue
            cut = {i: symbols[each] for i, each in enumerate(indices) if each in symbols}
            if len(cut) not in (0, len(symbols)):
                return None
            if cut:
                todo.append((below, cut))
    others = set(graph.layers) - functions
    if not functions or any(graph.dependencies[each] & (functions | set(sources)) for each in others):
        return None  # nothing to gain, or another layer needs whole blocks
    return functions, sources


def _looks_at_pixels(layer: Any) -> bool:
    from geoemb_xr.execution.internals import Blockwise

    if not isinstance(layer, Blockwise) or layer.io_deps:
        return False
    function = layer.task.func
    while isinstance(function, partial):
        function = function.func
    return bool(getattr(function, "looks_at_pixels", False))


def _kept(chunks: tuple[int, ...], cut: slice) -> dict[int, slice]:
    """Return which pixels each block keeps, for blocks that keep some."""
    start, stop, step = cut.indices(sum(chunks))
    edges = np.cumsum([0, *chunks])
    found = {}
    for n, (low, high) in enumerate(pairwise(edges.tolist())):
        first = max(start, start + -(-(low - start) // step) * step)
        last = min(stop, high)
        if first < last:
            found[n] = slice(first - low, last - low, step)
    return found
