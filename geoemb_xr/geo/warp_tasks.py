"""Running a warp: at once, or as a graph with one task per block of the result."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from dask.highlevelgraph import HighLevelGraph, Layer, MaterializedLayer

from geoemb_xr.core import arrays
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.missing import fill_of, filled
from geoemb_xr.core.model import (
    BAND,
    check_band_chunk,
    check_embedding,
    is_encoded,
    kind_of,
    whole_along,
)
from geoemb_xr.geo import lattice
from geoemb_xr.geo.lattice import Grid
from geoemb_xr.geo.resampling import Content, Resampling, Rule, Warp
from geoemb_xr.geo.resampling_memory import Part
from geoemb_xr.geo.warp_plans import Chunks, WarpPlan

#: Dimensions whose values at a pixel are one vector: missing together, moved together.
VECTORS = (BAND, "component", "category", "rgb")


def content_of(array: xr.DataArray, what: str) -> Content:
    """What an array holds, as resampling must know it."""
    dtype = array.dtype.name
    if kind_of(array) == "raster":
        found = check_embedding(array, what)
        if not is_encoded(array):
            return Content(dtype, math.nan, unit=found.unit_norm)
        codec = arrays.codec_of(array)
        if codec.nodata is None and codec.scale is None:
            raise EmbeddingError(
                f"{what} cannot mark missing pixels in codes of {codec.name!r}, which has no nodata value; "
                "decode first (.emb.decode())"
            )
        return Content(dtype, codec.nodata or 0, codec=codec, unit=found.unit_norm)
    if array.dtype.kind == "f":
        return Content(dtype, math.nan)
    if array.dtype.kind not in "iub":
        raise EmbeddingError(f"{what} works on numbers; got {array.dtype}")
    return Content(dtype, fill_of(array) or 0, rgb="rgb" in array.dims)


@dataclass(frozen=True)
class _Work:
    """A plan with the arrays it is for.

    Parameters
    ----------
    plan : WarpPlan
        Plan that says which blocks need which.
    sources, scales : list of DataArray
        The arrays, and their scales where those are needed, (others…, y, x).
    dims : tuple
        Dimensions of the arrays in the order (others…, vector?, y, x).
    """

    plan: WarpPlan
    sources: list[xr.DataArray]
    scales: list[xr.DataArray]
    dims: tuple[Hashable, ...]

    @property
    def job(self) -> Warp:
        """The work of one block."""
        return self.plan.job

    @property
    def others(self) -> tuple[Hashable, ...]:
        """Dimensions that are neither vectors nor y and x."""
        return self.dims[: len(self.dims) - 2 - self.job.vector]

    @property
    def stored(self) -> int:
        """Length of a stored vector."""
        return int(self.sources[0].sizes[self.dims[-3]]) if self.job.vector else 1

    def now(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Arrays in memory: block after block."""
        first, job = self.sources[0], self.job
        others = tuple(first.sizes[d] for d in self.others)
        height, width = job.target.shape
        out = np.empty((*others, height, width, job.bands(self.stored)), job.dtype)
        view = np.moveaxis(out, -1, len(others)) if job.vector else out[..., 0]
        view = view.transpose(np.argsort(job.order))
        stats = np.empty((*others, height, width, 2), np.float32) if job.stats else None
        for i, j in np.ndindex(len(self.plan.rows) - 1, len(self.plan.cols) - 1):
            rows, cols = self.plan.block(i, j)
            block = self._block_now(i, j, others)
            if stats is not None:
                block, stats[..., slice(*rows), slice(*cols), :] = block
            place = {"y": slice(*rows), "x": slice(*cols)}
            view[tuple(place.get(str(d), slice(None)) for d in first.dims)] = block
        return view, stats

    def _block_now(self, i: int, j: int, others: tuple[int, ...]) -> Any:
        rows, cols = self.plan.block(i, j)

        def blocks(part: Part, numbers: list[tuple[int, int]]) -> list[Any]:
            both = [[each[part[0]].values] * len(numbers) for each in (self.sources, self.scales) if each]
            return [block for one in both for block in one]

        if self.plan.by_sums:
            joined = [
                self.job.join(*(self.job.add(rows, cols, self.stored, p, *blocks(p, n)) for p, n in row))
                for row in self.plan.squares(i, j)
            ]
            return self.job.finish(rows, cols, others, self.stored, *joined)
        found = list(self.plan.parts(i, j))
        inputs = [block for part, numbers in found for block in blocks(part, numbers)]
        return self.job(rows, cols, others, self.stored, tuple(part for part, _ in found), *inputs)

    def lazy(self, what: str) -> tuple[Any, Any]:
        """Lazy arrays: one layer, a task per block."""
        import dask.array as da
        from dask.base import tokenize

        first, job = self.sources[0], self.job
        for each in self.sources:
            check_band_chunk(each, what)
        datas = [
            e.data if e.chunks is not None else da.from_array(e.data, chunks=e.shape) for e in self.sources
        ]
        scales = []
        for each, scale in zip(self.sources, self.scales, strict=False):
            scales.append(
                scale.chunk({d: c for d, c in each.variable.chunksizes.items() if d in scale.dims}).data
            )
        kept = {d: first.variable.chunksizes.get(d, (first.sizes[d],)) for d in self.others}
        names = tuple(d.name for d in datas), tuple(d.name for d in scales)
        name = f"{what}-{tokenize(job, names, self.plan.rows, self.plan.cols)}"
        blocks = _WarpLayer(
            name, self.plan, names, tuple(map(str, first.dims)), tuple(kept.values()), self.stored
        )
        layer: Layer = blocks
        if self.plan.by_sums:
            layer = MaterializedLayer(dict(blocks.sums()))
        graph = HighLevelGraph.from_collections(name, layer, dependencies=[*datas, *scales])
        sizes = {
            **kept,
            **({self.dims[-3]: (job.bands(self.stored),)} if job.vector else {}),
            "y": tuple(np.diff(self.plan.rows).tolist()),
            "x": tuple(np.diff(self.plan.cols).tolist()),
        }
        chunks = tuple(sizes[d] for d in first.dims)
        data = da.Array(graph, name, chunks, meta=np.empty((0,) * first.ndim, job.dtype))
        return _split(data, first.dims, (*self.others, "y", "x")) if job.stats else (data, None)


class _WarpLayer(Layer):  # type: ignore[misc]  # dask tells no types
    """The graph's layer: it makes tasks on request, and until then holds a few numbers per block."""

    has_legacy_tasks = False

    def __init__(
        self,
        name: str,
        plan: WarpPlan,
        names: tuple[tuple[str, ...], tuple[str, ...]],
        dims: tuple[str, ...],
        kept: tuple[tuple[int, ...], ...],
        stored: int,
    ) -> None:
        super().__init__()
        self.name, self.plan, self.names, self.dims, self.kept, self.stored = (
            name,
            plan,
            names,
            dims,
            kept,
            stored,
        )

    @cached_property
    def _axes(self) -> tuple[tuple[int, ...], int, int]:
        """Axes of the other dimensions, of y and of x in a key."""
        return self.plan.job.order[: len(self.kept)], self.dims.index("y"), self.dims.index("x")

    @cached_property
    def _numblocks(self) -> tuple[int, ...]:
        counts = [len(sizes) for sizes in self.kept]
        return self._key("", counts, len(self.plan.rows) - 1, len(self.plan.cols) - 1, 1)[1:]

    def _key(self, name: str, at: Sequence[int], i: int, j: int, vector: int = 0) -> tuple[Any, ...]:
        others, y, x = self._axes
        index = [vector] * len(self.dims)
        for axis, number in zip(others, at, strict=True):
            index[axis] = number
        index[y], index[x] = i, j
        return (name, *index)

    def _place(self, key: tuple[Any, ...]) -> tuple[tuple[int, ...], int, int]:
        others, y, x = self._axes
        return tuple(key[1 + axis] for axis in others), key[1 + y], key[1 + x]

    def _refs(self, part: Part, numbers: list[tuple[int, int]], at: tuple[int, ...]) -> list[Any]:
        from geoemb_xr.execution.internals import TaskRef

        vectors, scales = self.names
        refs = [TaskRef(self._key(vectors[part[0]], at, r, c)) for r, c in numbers]
        return refs + [TaskRef((scales[part[0]], *at, r, c)) for r, c in (numbers if scales else ())]

    def __getitem__(self, key: Any) -> Any:
        if key not in self:
            raise KeyError(key)
        return self._task(key, {})

    def _task(self, key: tuple[Any, ...], known: dict[Any, Any]) -> Any:
        """A task; what tasks have in common (edges, references to source blocks) is one object of ``known``."""
        from geoemb_xr.execution.internals import Task

        at, i, j = self._place(key)
        found = list(self.plan.parts(i, j))
        refs = [ref for part, numbers in found for ref in self._refs(part, numbers, at)]
        refs = [known.setdefault(ref.key, ref) for ref in refs]
        rows, cols, others = (
            known.setdefault(each, each)
            for each in (
                *self.plan.block(i, j),
                tuple(sizes[n] for sizes, n in zip(self.kept, at, strict=True)),
            )
        )
        parts = tuple(
            (k, window, *(known.setdefault(each, each) for each in edges)) for (k, window, *edges), _ in found
        )
        return Task(key, self.plan.job, rows, cols, others, self.stored, parts, *refs)

    def sums(self) -> Iterator[tuple[Any, Any]]:
        """Tasks of blocks that are summed by squares: sums, their rows joined, and the block."""
        from geoemb_xr.execution.internals import Task, TaskRef

        job = self.plan.job
        for key in self:
            at, i, j = self._place(key)
            rows, cols = self.plan.block(i, j)
            others = tuple(sizes[n] for sizes, n in zip(self.kept, at, strict=True))
            joined = []
            for y, squares in enumerate(self.plan.squares(i, j)):
                added = []
                for x, (part, numbers) in enumerate(squares):
                    one = (f"{self.name}-add", *key[1:], y, x)
                    refs = self._refs(part, numbers, at)
                    yield one, Task(one, job.add, rows, cols, self.stored, part, *refs)
                    added.append(TaskRef(one))
                row = (f"{self.name}-join", *key[1:], y)
                yield row, Task(row, job.join, *added)
                joined.append(TaskRef(row))
            yield key, Task(key, job.finish, rows, cols, others, self.stored, *joined)

    def __contains__(self, key: Any) -> bool:
        return (
            isinstance(key, tuple)
            and key[0] == self.name
            and len(key) == 1 + len(self._numblocks)
            and all(0 <= number < size for number, size in zip(key[1:], self._numblocks, strict=True))
        )

    def __iter__(self) -> Iterator[Any]:
        return ((self.name, *index) for index in np.ndindex(self._numblocks))

    def __len__(self) -> int:
        return math.prod(self._numblocks)

    def is_materialized(self) -> bool:
        """Tasks are written when asked for."""
        return False

    def get_output_keys(self) -> set[Any]:
        """Keys of all blocks."""
        return set(self)

    def cull(self, keys: set[Any], all_hlg_keys: Collection[Any]) -> tuple[Layer, Mapping[Any, set[Any]]]:
        """Only the tasks of wanted blocks."""
        known: dict[Any, Any] = {}
        tasks = {key: self._task(key, known) for key in keys if key in self}
        return MaterializedLayer(tasks), {key: set(task.dependencies) for key, task in tasks.items()}


def _split(pairs: Any, dims: Sequence[Hashable], kept: Sequence[Hashable]) -> tuple[Any, Any]:
    """Blocks that are pairs (vectors, statistics) as two arrays."""
    import dask.array as da

    vectors = da.blockwise(_first_of, tuple(dims), pairs, tuple(dims), dtype=pairs.dtype, meta=pairs._meta)
    stats = da.blockwise(
        _second_of,
        (*kept, "stat"),
        pairs,
        tuple(dims),
        new_axes={"stat": 2},
        concatenate=False,
        dtype=np.float32,
        meta=np.empty((0,) * (len(kept) + 1), np.float32),
    )
    return vectors, stats


def _first_of(pair: Any) -> Any:
    return pair[0]


def _second_of(pair: Any) -> Any:
    while isinstance(pair, list):
        (pair,) = pair
    return pair[1]


def warped(
    sources: Sequence[xr.DataArray],
    target: Grid,
    how: Resampling,
    rule: Rule,
    chunks: Chunks,
    stats: bool,
    what: str,
) -> tuple[Any, Any]:
    """Data of the result (in the arrays' order of dimensions) and of the statistics, lazy where they are."""
    # a class of most is told of each category alone
    vector = [] if how == "mode" else [d for d in VECTORS if d in sources[0].dims][:1]
    if vector and vector != [BAND]:  # a few values: split bands are an error, but these just come together
        sources = [whole_along(each, vector[0]) for each in sources]
    sources = [_native(each) for each in sources]
    content = content_of(sources[0], what)
    sources = [filled(each, content.fill) if kind_of(each) == "map" else each for each in sources]
    first = sources[0]
    others = [d for d in first.dims if d not in ("y", "x", *vector)]
    dims = (*others, *vector, "y", "x")
    codec = content.codec
    # scales decide what vectors are, and in a mosaic which pixels have data
    scaled = codec is not None and codec.scale is not None and (how != "nearest" or len(sources) > 1)
    job = Warp(
        sources=tuple(lattice.source_grid(each) for each in sources),
        flips=tuple(_flips(each) for each in sources),
        target=target,
        order=tuple(first.dims.index(d) for d in dims),
        vector=bool(vector),
        content=content,
        how=how,
        rule=rule,
        stats=stats,
        scaled=scaled,
    )
    scales = []
    if scaled:
        scales = [_native(scale_under(each, what)).transpose(*others, "y", "x") for each in sources]
    work = _Work(WarpPlan.of(job, sources, chunks), list(sources), scales, dims)
    return work.lazy(what) if any(each.chunks is not None for each in sources) else work.now()


def _native(array: xr.DataArray) -> xr.DataArray:
    """An array in this machine's order of bytes, which compiled loops and results have."""
    dtype = array.dtype.newbyteorder("=")
    return array if array.dtype == dtype else array.astype(dtype)


def scale_under(array: xr.DataArray, what: str) -> xr.DataArray:
    """The scales of codes; raises where they are missing."""
    scale = arrays.scale_of(array, arrays.codec_of(array))
    if scale is None:
        raise EmbeddingError(f"{what} got codes without their scales")
    return scale


def _flips(array: xr.DataArray) -> tuple[bool, bool]:
    """Whether rows run from south to north, and columns from east to west."""
    ys, xs = array.coords["y"].values, array.coords["x"].values
    return bool(ys.size > 1 and ys[0] < ys[-1]), bool(xs.size > 1 and xs[0] > xs[-1])
