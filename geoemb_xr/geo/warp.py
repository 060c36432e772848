"""Put arrays on a grid: reproject, mosaic, coarsen. Exact, the same for every chunking, one task a block.

Every output block is one task that takes just the source blocks it lies in. Where its pixels lie there is found by
:mod:`geoemb_xr.geo.lattice`; what is done with them stands in :mod:`geoemb_xr.geo.resampling`. A mean over very
many source pixels is summed one tile of the source at a time.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Any

import numpy as np
import xarray as xr
from dask.highlevelgraph import HighLevelGraph, Layer, MaterializedLayer
from odc.geo.geobox import GeoBox

from geoemb_xr.core import arrays, geometry
from geoemb_xr.core.areas import Area, area_of, resolution_in, snapped_geobox, union_bounds
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.model import (
    BAND,
    check_band_chunk,
    check_comparable,
    check_embedding,
    comparability_key,
    is_encoded,
    kind_of,
)
from geoemb_xr.geo import lattice
from geoemb_xr.geo.lattice import Grid
from geoemb_xr.geo.resampling import Content, Part, Resampling, Rule, Warp

Chunks = int | tuple[int, int] | Mapping[Hashable, int] | None

#: Up to this many source pixels in a target pixel, nearest is the default: published vectors stay exact.
NEAREST_UP_TO = 1.5
#: Beyond this many source pixels a side, a mean is summed by tiles of the source.
SUM_BEYOND = 64
#: Side of those tiles, which lie at multiples of it, counted from the source's global origin.
SUM_TILE = 512
#: Side of a block where the array has none of its own.
BLOCK = 512
#: Dimensions whose values at a pixel are one vector: missing together, moved together.
_VECTORS = (BAND, "component", "category", "rgb")


# --- what an array holds ----------------------------------------------------------------------------------------


def _content(array: xr.DataArray, what: str) -> Content:
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
    return Content(dtype, 0, rgb="rgb" in array.dims)


def _default_resampling(array: xr.DataArray, source: Grid, target: Grid, stats: bool) -> Resampling:
    close = target.metres <= NEAREST_UP_TO * source.metres
    if kind_of(array) == "map" and array.dtype.kind in "iub" and "rgb" not in array.dims:
        return "nearest" if close or array.dtype.kind == "b" else "mode"
    return "nearest" if close and not stats else "average"


def _check_resampling(array: xr.DataArray, resampling: Resampling, stats: bool, what: str) -> None:
    check_choice("resampling", resampling, ("nearest", "bilinear", "average", "mode"))
    labels = kind_of(array) == "map" and array.dtype.kind in "iub" and "rgb" not in array.dims
    if labels and resampling in ("bilinear", "average"):
        raise EmbeddingError(
            f"{what} got whole numbers ({array.dtype}), which {resampling} would mix as if they were amounts: "
            "use 'nearest' or 'mode' for classes, .astype('float32') for amounts"
        )
    if resampling == "mode" and not (labels and array.dtype.name in ("uint8", "uint16")):
        raise EmbeddingError(f"resampling='mode' is for class maps (uint8, uint16); got {array.dtype}")
    if stats and resampling != "average":
        raise ValueError(f"resultant_length=True goes with resampling='average'; got {resampling!r}")


# --- the plan: which blocks of the sources a block of the result needs ------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """Blocks of the result, blocks of the sources, and which of these each of those needs.

    Parameters
    ----------
    job : Warp
        What is done in a block.
    rows, cols : ndarray of int
        Edges of the result's blocks.
    source_rows, source_cols : list of ndarray of int
        Edges of each source's blocks, north-up.
    windows : list of ndarray
        Of each source: what each block of the result needs, from :func:`geoemb_xr.geo.lattice.reach`.
    """

    job: Warp
    rows: np.ndarray
    cols: np.ndarray
    source_rows: list[np.ndarray]
    source_cols: list[np.ndarray]
    windows: list[np.ndarray]

    @classmethod
    def of(cls, job: Warp, sources: Sequence[xr.DataArray], chunks: Chunks) -> _Plan:
        """A plan for arrays and the result's chunks."""
        sides = _sides(job, sources, chunks)
        rows, cols = (_edges(_regular(n, side)) for n, side in zip(job.target.shape, sides, strict=True))
        source_rows, source_cols = [], []
        for each, (flip_y, flip_x) in zip(sources, job.flips, strict=True):
            y, x = _chunks_yx(each)
            source_rows.append(_edges(y[::-1] if flip_y else y))
            source_cols.append(_edges(x[::-1] if flip_x else x))
        windows = [lattice.reach(grid, job.target, rows, cols) for grid in job.sources]
        return cls(job, rows, cols, source_rows, source_cols, windows)

    @property
    def by_sums(self) -> bool:
        """Whether footprints are so large that they are summed by tiles of the source."""
        return self.job.how == "average" and len(self.job.sources) == 1 and self.job.shrink() > SUM_BEYOND

    def block(self, i: int, j: int) -> tuple[lattice.Window, lattice.Window]:
        """Rows and columns of a block of the result."""
        return (int(self.rows[i]), int(self.rows[i + 1])), (int(self.cols[j]), int(self.cols[j + 1]))

    def parts(self, i: int, j: int) -> Iterator[tuple[Part, list[tuple[int, int]]]]:
        """Each source's part in a block, and the numbers of its blocks, as the source counts them."""
        for k, windows in enumerate(self.windows):
            (top, bottom), (left, right) = windows[i, j].tolist()
            if top < bottom:
                yield self._part(k, (top, bottom), (left, right))

    def tiles(self, i: int, j: int) -> list[list[tuple[Part, list[tuple[int, int]]]]]:
        """The same for sums: rows of tiles of the one source."""
        (top, bottom), (left, right) = self.windows[0][i, j].tolist()
        if top == bottom:
            return []
        first_y, first_x = (units // lattice.UNITS for units in self.job.sources[0].origin)
        return [
            [self._part(0, rows, cols) for cols in _aligned(left, right, first_x)]
            for rows in _aligned(top, bottom, first_y)
        ]

    def _part(self, k: int, rows: lattice.Window, cols: lattice.Window) -> tuple[Part, list[tuple[int, int]]]:
        numbers_y, row_edges = _touched(self.source_rows[k], *rows)
        numbers_x, col_edges = _touched(self.source_cols[k], *cols)
        flip_y, flip_x = self.job.flips[k]
        height, width = len(self.source_rows[k]) - 1, len(self.source_cols[k]) - 1
        numbers = [
            (height - 1 - r if flip_y else r, width - 1 - c if flip_x else c)
            for r, c in product(numbers_y, numbers_x)
        ]
        return (k, (rows, cols), row_edges, col_edges), numbers


def _sides(job: Warp, sources: Sequence[xr.DataArray], chunks: Chunks) -> tuple[int, int]:
    """Height and width of the result's blocks: by default as many source pixels as the source's blocks."""
    if isinstance(chunks, Mapping):
        chunks = (chunks.get("y", BLOCK), chunks.get("x", BLOCK))
    if chunks is not None:
        pair = chunks if isinstance(chunks, tuple) else (chunks, chunks)
        sides = [n if n != -1 else size for n, size in zip(pair, job.target.shape, strict=True)]
        if not all(_is_count(n) for n in sides):
            raise ValueError(
                f"chunks is the side of the result's blocks in pixels, or (y, x); got {chunks!r}"
            )
        return int(sides[0]), int(sides[1])
    shrink = max(job.shrink(), 1.0)
    least = 16 if job.how == "average" and len(sources) == 1 and shrink > SUM_BEYOND else 1
    y, x = _chunks_yx(sources[0]) if sources[0].chunks is not None else ((BLOCK,), (BLOCK,))
    sides = [max(math.ceil(min(max(side), 2 * BLOCK) / shrink), least) for side in (y, x)]
    return sides[0], sides[1]


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def _regular(size: int, side: int) -> tuple[int, ...]:
    return tuple(min(side, size - start) for start in range(0, size, side))


def _aligned(start: int, stop: int, first: int) -> list[lattice.Window]:
    """A window cut where global pixel numbers are multiples of the tile."""
    cuts = range((first + start) // SUM_TILE * SUM_TILE + SUM_TILE, first + stop, SUM_TILE)
    return list(pairwise([start, *(cut - first for cut in cuts), stop]))


def _edges(chunks: Sequence[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(chunks))).astype(np.int64)


def _chunks_yx(array: xr.DataArray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if array.chunks is None:
        return (array.sizes["y"],), (array.sizes["x"],)
    return array.chunksizes["y"], array.chunksizes["x"]


def _touched(edges: np.ndarray, start: int, stop: int) -> tuple[list[int], tuple[int, ...]]:
    """Blocks that a window touches and their edges; a window may run past the end, around the world."""
    size, count = int(edges[-1]), len(edges) - 1
    if stop <= size:
        low = int(edges.searchsorted(start, "right")) - 1
        high = int(edges.searchsorted(stop, "left"))
        return list(range(low, high)), tuple(edges[low : high + 1].tolist())
    if start >= size:
        blocks, block_edges = _touched(edges, start - size, stop - size)
        return blocks, tuple(edge + size for edge in block_edges)
    ahead, ahead_edges = _touched(edges, start, size)
    behind, behind_edges = _touched(edges, 0, stop - size)
    return ahead + [b % count for b in behind], (*ahead_edges, *(e + size for e in behind_edges[1:]))


# --- the work: now, or as a graph -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """A plan with the arrays it is for.

    Parameters
    ----------
    plan : _Plan
        Which blocks need which.
    sources, scales : list of DataArray
        The arrays, and their scales where those are needed, (others…, y, x).
    dims : tuple
        Dimensions of the arrays in the order (others…, vector?, y, x).
    """

    plan: _Plan
    sources: list[xr.DataArray]
    scales: list[xr.DataArray]
    dims: tuple[Hashable, ...]

    @property
    def job(self) -> Warp:
        """What is done in a block."""
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
                for row in self.plan.tiles(i, j)
            ]
            return self.job.finish(rows, cols, others, self.stored, *joined)
        found = list(self.plan.parts(i, j))
        inputs = [block for part, numbers in found for block in blocks(part, numbers)]
        return self.job(rows, cols, others, self.stored, tuple(part for part, _ in found), *inputs)

    def lazy(self, what: str) -> tuple[Any, Any]:
        """Lazy arrays: one layer, a task a block."""
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
            scales.append(scale.chunk({d: c for d, c in each.chunksizes.items() if d in scale.dims}).data)
        kept = {d: first.chunksizes.get(d, (first.sizes[d],)) for d in self.others}
        names = tuple(d.name for d in datas), tuple(d.name for d in scales)
        name = f"{what}-{tokenize(job, names, self.plan.rows, self.plan.cols)}"
        blocks = _Blocks(
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


class _Blocks(Layer):  # type: ignore[misc]
    """The graph's layer: it writes a task when that is asked for, and until then holds a few numbers a block."""

    has_legacy_tasks = False

    def __init__(
        self,
        name: str,
        plan: _Plan,
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
        from dask._task_spec import TaskRef

        vectors, scales = self.names
        refs = [TaskRef(self._key(vectors[part[0]], at, r, c)) for r, c in numbers]
        return refs + [TaskRef((scales[part[0]], *at, r, c)) for r, c in (numbers if scales else ())]

    def __getitem__(self, key: Any) -> Any:
        if key not in self:
            raise KeyError(key)
        return self._task(key, {})

    def _task(self, key: tuple[Any, ...], known: dict[Any, Any]) -> Any:
        """A task; what tasks have in common (edges, references to source blocks) is one object of ``known``."""
        from dask._task_spec import Task

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
        """Tasks of blocks that are summed by tiles: sums, their rows joined, and the block."""
        from dask._task_spec import Task, TaskRef

        job = self.plan.job
        for key in self:
            at, i, j = self._place(key)
            rows, cols = self.plan.block(i, j)
            others = tuple(sizes[n] for sizes, n in zip(self.kept, at, strict=True))
            joined = []
            for y, tiles in enumerate(self.plan.tiles(i, j)):
                added = []
                for x, (part, numbers) in enumerate(tiles):
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


def _warp(
    sources: Sequence[xr.DataArray],
    target: Grid,
    how: Resampling,
    rule: Rule,
    chunks: Chunks,
    stats: bool,
    what: str,
) -> tuple[Any, Any]:
    """Data of the result (in the arrays' order of dimensions) and of the statistics, lazy where they are."""
    vector = [d for d in _VECTORS if d in sources[0].dims][:1]
    if vector and vector != [BAND]:  # a few values: split bands are an error, but these just come together
        sources = [each.chunk({vector[0]: -1}) if each.chunks is not None else each for each in sources]
    first = sources[0]
    content = _content(first, what)
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
    scales = [_scale(each, what).transpose(*others, "y", "x") for each in sources] if scaled else []
    work = _Work(_Plan.of(job, sources, chunks), list(sources), scales, dims)
    return work.lazy(what) if any(each.chunks is not None for each in sources) else work.now()


def _scale(array: xr.DataArray, what: str) -> xr.DataArray:
    scale = arrays.scale_of(array, arrays.codec_of(array))
    if scale is None:
        raise EmbeddingError(f"{what} got codes without their scales")
    return scale


def _flips(array: xr.DataArray) -> tuple[bool, bool]:
    """Whether rows run from south to north, and columns from east to west."""
    ys, xs = array.coords["y"].values, array.coords["x"].values
    return bool(ys.size > 1 and ys[0] < ys[-1]), bool(xs.size > 1 and xs[0] > xs[-1])


# --- public -----------------------------------------------------------------------------------------------------


def reproject(
    array: xr.DataArray,
    target: Any,
    *,
    resolution: float | tuple[float, float] | None = None,
    resampling: Resampling | None = None,
    chunks: Chunks = None,
    resultant_length: bool = False,
) -> Any:
    """Put an array on another grid. Lazy, and the same for every chunking.

    Parameters
    ----------
    array : DataArray (…, y, x)
        An embedding (codes or vectors), or a map.
    target : CRS, GeoBox or DataArray
        A CRS (grid edges at multiples of ``resolution``), a grid, or an array to match.
    resolution : float or (float, float), optional
        Pixel size in units of the CRS; the array's ground resolution by default.
    resampling : {"nearest", "bilinear", "average", "mode"}, optional
        ``nearest`` moves published vectors as they are, codes as codes. ``bilinear`` and ``average`` (weighted by
        the area of the true footprint) decode, leave missing pixels out, and renormalise where the product has
        unit length. ``mode`` is for class maps. By default nearest where a target pixel is at most 1.5 source
        pixels wide, else average (mode for class maps).
    chunks : int, (int, int) or mapping, optional
        Blocks of the result; by default they hold about as many source pixels as the source's blocks.
    resultant_length : bool
        With ``average``: also how well the averaged vectors agree, ‖Σwx‖ / Σw‖x‖ in [0, 1], and the valid share
        of each footprint.

    Returns
    -------
    DataArray or Dataset
        North-up; missing outside of the array. With ``resultant_length`` a Dataset with ``embedding``,
        ``resultant_length`` and ``valid_fraction``.

    Raises
    ------
    EmbeddingError
        If the array has no grid or CRS, if its bands are in several chunks, or if classes would be averaged.
    ValueError
        If the target is no grid, or an option is unknown.

    Notes
    -----
    Positions come from PROJ on a lattice in the target CRS, refined to 0.01 source pixel, and are rounded to
    1/4096 pixel; an exact edge belongs to the pixel of higher number. So a window of the result is the result of
    a window.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(40, 40))
    >>> da.emb.reproject("EPSG:3035", resolution=10).sizes["band"]
    64
    >>> coarse = da.emb.reproject("EPSG:3035", resolution=100, resultant_length=True)
    >>> bool(coarse.resultant_length.max() <= 1)
    True
    """
    geobox, coords = _target(array, target, resolution)
    source, grid = lattice.source_grid(array), lattice.target_grid(geobox)
    how = resampling or _default_resampling(array, source, grid, resultant_length)
    return _one(array, geobox, coords, how, chunks, resultant_length, "reproject")


def coarsen(array: xr.DataArray, factor: int, *, resultant_length: bool = False) -> Any:
    """Means of ``factor`` × ``factor`` pixels, from the north-west corner on. Lazy.

    Sums over the valid base pixels, normalised once where the product has unit length; the last row and column
    take what there is. Class maps get the class of most pixels. For several levels coarsen the base array each
    time: a mean of means is not the mean.

    Parameters
    ----------
    array : DataArray (…, y, x)
        An embedding (codes are decoded) or a map.
    factor : int
        Pixels a side, at least 1.
    resultant_length : bool
        Also give how well the averaged vectors agree, and the valid share: see :func:`reproject`.

    Returns
    -------
    DataArray or Dataset
        North-up, float32 for embeddings.

    Raises
    ------
    ValueError
        If ``factor`` is no positive whole number.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(10, 8))
    >>> da.emb.coarsen(4).sizes["y"], da.emb.coarsen(4).sizes["x"]
    (3, 2)
    """
    if not _is_count(factor):
        raise ValueError(f"factor is a whole number of pixels, at least 1; got {factor!r}")
    base = geometry.north_up(geometry.geobox_of(array, "coarsen"))
    shape = tuple(-(-size // factor) for size in base.shape)
    geobox = GeoBox(shape, base.affine * base.affine.scale(factor), base.crs)
    how: Resampling = "mode" if _is_labels(array) else "average"
    return _one(array, geobox, geometry.grid_coords(geobox), how, None, resultant_length, "coarsen")


def mosaic(
    sources: Sequence[xr.DataArray] | xr.DataArray,
    target: Any,
    *,
    rule: Rule = "nearest-centre",
    resolution: float | tuple[float, float] | None = None,
    resampling: Resampling | None = None,
    chunks: Chunks = None,
) -> xr.DataArray:
    """Several arrays, of any CRSs, on one grid. Lazy.

    Parameters
    ----------
    sources : sequence of DataArray
        Embeddings of one product and version, or maps of one kind, with the same dimensions, bands and times.
    target : CRS, GeoBox or DataArray
        As in :func:`reproject`; a CRS covers all the arrays.
    rule : {"nearest-centre", "first"}
        Which array a pixel is taken from where several have data there: the one whose centre is nearest, so that
        seams fall midway, or the first.
    resolution, resampling, chunks
        As in :func:`reproject`.

    Returns
    -------
    DataArray
        North-up, with the attributes of the first.

    Raises
    ------
    ComparabilityError
        If products or versions differ.
    EmbeddingError
        If dimensions, bands, times or encodings differ.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> west = gx.testing.synthetic("alphaearth", grid=gx.testing.geobox((8, 8)))
    >>> east = gx.testing.synthetic("alphaearth", grid=gx.testing.geobox((8, 8), offset=(80, 0)))
    >>> gx.mosaic([west, east], "EPSG:32632").sizes["x"]
    16
    """
    sources = [sources] if isinstance(sources, xr.DataArray) else list(sources)  # else its years would be
    _check_alike(sources)
    check_choice("rule", rule, ("nearest-centre", "first"))
    first = sources[0]
    geobox, coords = _target(first, target, resolution, sources)
    grid = lattice.target_grid(geobox)
    how = resampling or _default_resampling(first, lattice.source_grid(first), grid, False)
    out: xr.DataArray = _one(first, geobox, coords, how, chunks, False, "mosaic", sources=sources, rule=rule)
    names = {str(each.attrs["source"]) for each in sources if "source" in each.attrs}
    if len(names) > 1:
        out.attrs["source"] = f"{len(names)} sources"
    return out


def _is_labels(array: xr.DataArray) -> bool:
    return kind_of(array) == "map" and array.dtype.kind in "iub" and "rgb" not in array.dims


def _one(
    array: xr.DataArray,
    geobox: GeoBox,
    coords: Mapping[str, xr.DataArray],
    how: Resampling,
    chunks: Chunks,
    stats: bool,
    what: str,
    *,
    sources: Sequence[xr.DataArray] = (),
    rule: Rule = "first",
) -> Any:
    """The result with its coordinates and attributes."""
    sources = sources or [array]
    _check_resampling(array, how, stats, what)
    grid = lattice.target_grid(geobox)
    data, stat_data = _warp(sources, grid, how, rule, chunks, stats, what)
    encoded = is_encoded(array) and kind_of(array) == "raster"
    kept = {
        k: v for k, v in array.coords.items() if not {"y", "x"} & set(v.dims) and k != geometry.SPATIAL_REF
    }
    attrs = dict(array.attrs)
    if encoded:
        codec = arrays.codec_of(array)
        if how != "nearest":
            attrs.pop("codec")
            if codec.bands:
                kept[BAND] = xr.DataArray(list(codec.bands), dims=BAND)
        elif codec.scale is not None:
            side = chunks if array.chunks is None else _chunks_of(data, array.dims)
            scales = [_placed_scale(each, what, clean=len(sources) > 1) for each in sources]
            moved, _ = _warp(scales, grid, "nearest", rule, side, False, f"{what}-scale")
            kept[codec.scale] = xr.DataArray(moved, dims=scales[0].dims)
    out = xr.DataArray(data, dims=array.dims, coords={**kept, **coords}, attrs=attrs)
    out.name = array.name  # given to the constructor, None would become the graph's name
    if not stats:
        return out
    others = [d for d in array.dims if d not in ("y", "x") and d not in _VECTORS]
    extra = {k: v for k, v in out.coords.items() if not set(v.dims) & set(_VECTORS)}
    planes = {
        name: xr.DataArray(stat_data[..., n], dims=(*others, "y", "x"), coords=extra)
        for n, name in enumerate(("resultant_length", "valid_fraction"))
    }
    return xr.Dataset({"embedding": out.rename("embedding"), **planes})


def _placed_scale(array: xr.DataArray, what: str, *, clean: bool) -> xr.DataArray:
    """Scales as a map; ``clean`` makes all that mean missing NaN, so that a mosaic chooses as for the codes."""
    scale = _scale(array, what)
    scale = scale.assign_coords({k: array.coords[k] for k in ("y", "x", geometry.SPATIAL_REF)})
    return scale.where(np.isfinite(scale) & (scale != 0)) if clean else scale


def _chunks_of(data: Any, dims: Sequence[Hashable]) -> tuple[int, int]:
    return data.chunks[list(dims).index("y")][0], data.chunks[list(dims).index("x")][0]


def default_resolution(source: GeoBox, crs: object, area: Area) -> float | tuple[float, float]:
    """The pixel size that keeps a grid's ground resolution in another CRS.

    Parameters
    ----------
    source : GeoBox
        The grid.
    crs : CRS
        The other.
    area : Area
        The ground.
    """
    goal = geometry.as_crs(crs)
    if geometry.same_crs(source.crs, goal):
        return abs(source.affine.a), abs(source.affine.e)
    metres = lattice.target_grid(geometry.north_up(source)).metres
    return resolution_in(goal, float(f"{metres:.9g}"), area)


def _target(
    array: xr.DataArray,
    target: Any,
    resolution: float | tuple[float, float] | None,
    sources: Sequence[xr.DataArray] = (),
) -> tuple[GeoBox, Mapping[str, xr.DataArray]]:
    """The grid that was asked for, north-up, and its coordinates."""
    if isinstance(target, xr.Dataset | xr.DataArray):
        target = geometry.plain_names(target)
    if isinstance(target, xr.Dataset):
        target = target[next(name for name, each in target.items() if {"y", "x"} <= set(each.dims))]
    if isinstance(target, xr.DataArray | GeoBox):
        if resolution is not None:
            raise ValueError("resolution goes with a CRS; a GeoBox or an array has its own")
        if isinstance(target, GeoBox):
            box = geometry.north_up(target)
            return box, geometry.grid_coords(box)
        flat = geometry.north_up_array(target)
        box = geometry.geobox_of(flat, "the array to match")
        return box, geometry.grid_coords(box, flat.coords["y"].values, flat.coords["x"].values)
    crs = geometry.as_crs(target)
    boxes = [geometry.geobox_of(each, "reproject") for each in (sources or [array])]
    areas = [area_of(box) for box in boxes]
    step = resolution if resolution is not None else default_resolution(boxes[0], crs, areas[0])
    if len(areas) == 1:
        box = snapped_geobox(areas[0], crs, step)
    else:
        parts = [snapped_geobox(area, crs, step) for area in areas]
        bounds = union_bounds([area_of(part).bounds for part in parts])
        box = snapped_geobox(Area(*bounds, crs), crs, step)
    return box, geometry.grid_coords(box)


def _check_alike(sources: Sequence[xr.DataArray]) -> None:
    if not sources:
        raise ValueError("mosaic needs at least one array")
    first = sources[0]
    for each in sources[1:]:
        check_comparable("mosaic", comparability_key(first), comparability_key(each))
        if each.dims != first.dims or each.dtype != first.dtype:
            raise EmbeddingError(
                f"mosaic needs arrays of the same dimensions and type; got {first.dims} {first.dtype} and "
                f"{each.dims} {each.dtype}; decode them all, or none"
            )
        for dim in first.dims:
            if dim not in ("y", "x") and not np.array_equal(_labels(first, dim), _labels(each, dim)):
                raise EmbeddingError(
                    f"mosaic needs the same {dim!r} in all arrays; got {_labels(first, dim)[:4]} and "
                    f"{_labels(each, dim)[:4]}; select those they share first"
                )


def _labels(array: xr.DataArray, dim: Hashable) -> np.ndarray:
    return np.asarray(array.coords[dim].values if dim in array.coords else np.arange(array.sizes[dim]))
