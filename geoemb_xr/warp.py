"""Put arrays on a grid: reproject, mosaic, coarsen. Exact, the same for every chunking, one task a block.

Every output block is one task that takes just the source blocks it lies in. The task lays their pixels band-last
into one window, finds where its own pixels lie there (:mod:`geoemb_xr.lattice`), and runs one compiled loop over
all bands. Published codes are only ever moved; vectors are decoded before they are interpolated or averaged.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from geoemb_xr import arrays, geometry, kernels, lattice
from geoemb_xr.lattice import Grid, Window
from geoemb_xr.model import (
    BAND,
    Codec,
    EmbeddingError,
    check_band_chunk,
    check_choice,
    check_comparable,
    check_embedding,
    comparability_key,
    is_encoded,
    kind_of,
)

Resampling = Literal["nearest", "bilinear", "average", "mode"]
Rule = Literal["first", "nearest-centre"]
Chunks = int | tuple[int, int] | Mapping[Hashable, int] | None

#: Up to this many source pixels in a target pixel, nearest is the default: published vectors stay exact.
NEAREST_UP_TO = 1.5
#: Side of a block where the array has none of its own.
BLOCK = 512
#: Dimensions whose values at a pixel are one vector: missing together, moved together.
_VECTORS = (BAND, "component", "category", "rgb")


# --- what a pixel holds -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Content:
    """What an array's pixels hold: how a missing one is written, and how they become floats and back.

    Parameters
    ----------
    dtype : str
        As stored.
    fill : int, float or bool
        A missing value.
    codec : Codec, optional
        Of codes.
    unit : bool
        Whether vectors have unit length, so that means are renormalised.
    rgb : bool
        Whether it is a picture: red, green, blue and, last, opacity.
    """

    dtype: str
    fill: float
    codec: Codec | None = None
    unit: bool = False
    rgb: bool = False

    def floats(self, window: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
        """Band-last values as floats, NaN where missing."""
        if self.codec is not None:
            return self.codec.decode(window, None if scale is None else scale[..., 0], window.ndim - 1)
        if self.rgb:
            return np.where(window[..., -1:] == 0, np.float32(np.nan), window.astype(np.float32))
        return window

    def stored(self, values: np.ndarray) -> np.ndarray:
        """The inverse for pictures; vectors stay decoded."""
        if self.rgb:
            return np.nan_to_num(np.rint(values)).astype(self.dtype)
        return values

    def valid(self, result: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
        """Which pixels of a band-last result have data."""
        if scale is not None:
            valid: np.ndarray = np.isfinite(scale[..., 0]) & (scale[..., 0] != 0)
        elif result.dtype.kind == "f":
            valid = ~np.isnan(result[..., 0])
        elif self.rgb:
            valid = result[..., -1] != 0
        elif self.codec is not None:
            valid = (result != self.fill).all(-1)
        else:
            valid = result[..., 0] != self.fill
        return valid


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


# --- the task ---------------------------------------------------------------------------------------------------

#: A source's part in a block: its number, the window it needs, the edges of its blocks there.
Part = tuple[int, tuple[Window, Window], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class _Warp:
    """What all blocks of a result share; called with what differs, and the source blocks.

    Parameters
    ----------
    sources : tuple of Grid
        One of each array, north-up.
    flips : tuple of (bool, bool)
        Whether an array's rows and columns run the other way.
    target : Grid
        The result's.
    order : tuple of int
        Axes of a source block that come as (others…, vector?, y, x).
    vector : bool
        Whether there is a vector axis.
    content : Content
        What pixels hold.
    how : str
        The resampling.
    rule : str
        Which source wins where several have data.
    stats : bool
        Whether resultant length and valid share are wanted.
    scaled : bool
        Whether each source block comes with a block of scales.
    """

    sources: tuple[Grid, ...]
    flips: tuple[tuple[bool, bool], ...]
    target: Grid
    order: tuple[int, ...]
    vector: bool
    content: Content
    how: Resampling
    rule: Rule
    stats: bool
    scaled: bool

    def __call__(
        self,
        rows: Window,
        cols: Window,
        others: tuple[int, ...],
        bands: int,
        parts: tuple[Part, ...],
        *blocks: Any,
    ) -> Any:
        """One block, dimensions in the array's order; with ``stats`` also those, (others…, y, x, 2)."""
        shape = (math.prod(others), rows[1] - rows[0], cols[1] - cols[0])
        result = stats = None
        queue = iter(blocks)
        for number, window, row_edges, col_edges in parts:
            count = (len(row_edges) - 1) * (len(col_edges) - 1)
            pixels = _lay(self._taken(queue, count, number, True), window, row_edges, col_edges)
            scale = None
            if self.scaled:
                scale = _lay(self._taken(queue, count, number, False), window, row_edges, col_edges)
            one, one_scale, one_stats = self._resample(pixels, scale, number, window, rows, cols)
            if len(parts) == 1:
                result, stats = one, one_stats
                break
            if result is None:
                result = np.full_like(one, self.content.fill)
                taken = np.zeros(shape, bool)
                best = np.full(shape, np.inf)
            wins = self.content.valid(one, one_scale)
            if self.rule == "first":
                wins &= ~taken
            else:
                distance = self._distance(number, rows, cols)
                wins &= distance < best
                best = np.where(wins, distance, best)
            taken |= wins
            result[wins] = one[wins]
        if result is None:
            result = np.full((*shape, bands), self.content.fill, self._dtype)
            if self.stats:
                stats = np.full((*shape, 2), (np.nan, 0), np.float32)
        block = result.reshape(*others, *result.shape[1:])
        block = np.moveaxis(block, -1, len(others)) if self.vector else block[..., 0]
        block = block.transpose(np.argsort(self.order))
        return (block, stats.reshape(*others, *stats.shape[1:])) if stats is not None else block

    @property
    def _dtype(self) -> str:
        moved = self.how in ("nearest", "mode") or self.content.rgb
        return self.content.dtype if moved else _float_of(self.content)

    def _taken(self, queue: Iterator[Any], count: int, number: int, vectors: bool) -> list[np.ndarray]:
        """The next blocks of a source as (others, bands, y, x), north-up."""
        flip_y, flip_x = self.flips[number]
        taken = []
        for _ in range(count):
            block = np.asarray(next(queue))
            if vectors:
                block = block.transpose(self.order)
            if not (vectors and self.vector):
                block = block[..., None, :, :]
            block = block.reshape(-1, *block.shape[-3:])
            taken.append(block[..., :: -1 if flip_y else 1, :: -1 if flip_x else 1])
        return taken

    def _resample(
        self,
        pixels: np.ndarray,
        scale: np.ndarray | None,
        number: int,
        window: tuple[Window, Window],
        rows: Window,
        cols: Window,
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        source = self.sources[number]
        footprints = self.how in ("average", "mode")
        at = lattice.coordinates(source, self.target, rows, cols, edges=footprints)
        at = lattice.local(at, source, window)
        shape = (len(pixels), rows[1] - rows[0], cols[1] - cols[0])
        if self.how == "nearest":
            moved_scale = None if scale is None else _gather(scale, at, shape, np.nan)
            return _gather(pixels, at, shape, self.content.fill), moved_scale, None
        if self.how == "mode":
            modes = np.empty((*shape, 1), pixels.dtype)
            counts = np.zeros(np.iinfo(pixels.dtype).max + 1, np.int64)
            for i in range(len(pixels)):
                kernels.mode(pixels[i, ..., 0], at, counts, modes[i, ..., 0])
            return modes, None, None
        values = self.content.floats(pixels, scale)
        out = np.empty((*shape, values.shape[-1]), values.dtype)
        stats = np.empty((*shape, 2) if self.stats else (len(pixels), 0, 0, 2), np.float32)
        for i in range(len(pixels)):
            if self.how == "bilinear":
                kernels.bilinear(values[i], at, self.content.unit, out[i])
            else:
                kernels.average(values[i], at, self.content.unit, out[i], stats[i])
        return self.content.stored(out), None, stats if self.stats else None

    def _distance(self, number: int, rows: Window, cols: Window) -> np.ndarray:
        """Squared metres from pixels to the centre of a source."""
        source = self.sources[number]
        at = lattice.coordinates(source, self.target, rows, cols)
        at = lattice.local(at, source, ((0, source.y.size), (0, source.x.size)))
        middle = source.y.start + source.y.size / 2
        dy, dx = source.metre_steps(middle * source.y.step)
        north = (at[0] / lattice.UNITS - source.y.size / 2) * dy
        east = (at[1] / lattice.UNITS - source.x.size / 2) * dx
        return np.asarray(north**2 + east**2)


def _float_of(content: Content) -> str:
    return "float64" if content.dtype == "float64" else "float32"


def _lay(
    blocks: list[np.ndarray],
    window: tuple[Window, Window],
    row_edges: Sequence[int],
    col_edges: Sequence[int],
) -> np.ndarray:
    """Source blocks (others, bands, y, x) as one window (others, y, x, bands), C-contiguous."""
    (top, bottom), (left, right) = window
    others, bands = blocks[0].shape[:2]
    if len(blocks) == 1:
        (r0, _), (c0, _) = row_edges, col_edges
        return kernels.band_last(blocks[0][:, :, top - r0 : bottom - r0, left - c0 : right - c0], 1)
    out = np.empty((others, bottom - top, right - left, bands), blocks[0].dtype)
    queue = iter(blocks)
    for r0, r1 in pairwise(row_edges):
        for c0, c1 in pairwise(col_edges):
            y0, y1, x0, x1 = max(r0, top), min(r1, bottom), max(c0, left), min(c1, right)
            cut = next(queue)[:, :, y0 - r0 : y1 - r0, x0 - c0 : x1 - c0]
            out[:, y0 - top : y1 - top, x0 - left : x1 - left] = kernels.band_last(cut, 1)
    return out


def _gather(pixels: np.ndarray, at: np.ndarray, shape: tuple[int, int, int], fill: float) -> np.ndarray:
    """Move whole pixels, as the widest words that fit them."""
    size = pixels.shape[-1] * pixels.dtype.itemsize
    word = next(w for w in ("u8", "u4", "u2", "u1") if size % np.dtype(w).itemsize == 0)
    out = np.empty((*shape, pixels.shape[-1]), pixels.dtype)
    filled = np.full(pixels.shape[-1], fill, pixels.dtype)
    for i in range(len(pixels)):
        kernels.gather(pixels[i].view(word), at, filled.view(word), out[i].view(word))
    return out


# --- the graph --------------------------------------------------------------------------------------------------


def _warp(
    sources: Sequence[xr.DataArray],
    geobox: GeoBox,
    how: Resampling,
    rule: Rule,
    chunks: Chunks,
    stats: bool,
    what: str,
) -> tuple[Any, Any]:
    """Data of the result (in the arrays' order of dimensions) and of the statistics, lazy where they are."""
    first = sources[0]
    content = _content(first, what)
    vector = next((d for d in _VECTORS if d in first.dims), None)
    others = [d for d in first.dims if d not in ("y", "x", vector)]
    dims = [*others, *([vector] if vector else []), "y", "x"]
    codec_scale = content.codec.scale if content.codec is not None else None
    # scales decide decoded values, and in a mosaic which pixels have data
    scaled = codec_scale is not None and (how != "nearest" or len(sources) > 1)
    job = _Warp(
        sources=tuple(lattice.source_grid(each) for each in sources),
        flips=tuple(_flips(each) for each in sources),
        target=lattice.target_grid(geobox),
        order=tuple(first.get_axis_num(d) for d in dims),  # type: ignore[misc]
        vector=vector is not None,
        content=content,
        how=how,
        rule=rule,
        stats=stats,
        scaled=scaled,
    )
    scales = []
    for each in sources:
        if scaled and content.codec is not None:
            scale = arrays.scale_of(each, content.codec)
            assert scale is not None
            scales.append(scale.transpose(*others, "y", "x"))
    bands = first.sizes[vector] if vector else 1
    if content.codec is not None and content.codec.bands and how != "nearest":
        bands = len(content.codec.bands)
    lazy = any(each.chunks is not None for each in sources)
    plan = _Plan.of(job, sources, geobox, chunks)
    if not lazy:
        return _compute(job, plan, sources, scales, dims, bands)
    return _build(job, plan, sources, scales, dims, bands, what)


def _flips(array: xr.DataArray) -> tuple[bool, bool]:
    ys, xs = array.coords["y"].values, array.coords["x"].values
    return bool(ys.size > 1 and ys[0] < ys[-1]), bool(xs.size > 1 and xs[0] > xs[-1])


@dataclass(frozen=True)
class _Plan:
    """Blocks of the result, blocks of the sources, and which of these each of those needs."""

    rows: np.ndarray
    cols: np.ndarray
    source_rows: list[np.ndarray]
    source_cols: list[np.ndarray]
    windows: list[np.ndarray]

    @classmethod
    def of(cls, job: _Warp, sources: Sequence[xr.DataArray], geobox: GeoBox, chunks: Chunks) -> _Plan:
        sides = _sides(job, sources, chunks)
        rows, cols = (_edges(_regular(n, side)) for n, side in zip(geobox.shape, sides, strict=True))
        source_rows, source_cols = [], []
        for each, (flip_y, flip_x) in zip(sources, job.flips, strict=True):
            y, x = _chunks_yx(each)
            source_rows.append(_edges(y[::-1] if flip_y else y))
            source_cols.append(_edges(x[::-1] if flip_x else x))
        windows = [lattice.reach(grid, job.target, rows, cols) for grid in job.sources]
        return cls(rows, cols, source_rows, source_cols, windows)

    def parts(self, job: _Warp, i: int, j: int) -> Iterator[tuple[Part, list[tuple[int, int]]]]:
        """Of an output block: each source's part, and the numbers of its blocks, as the source counts them."""
        for k, windows in enumerate(self.windows):
            (top, bottom), (left, right) = windows[i, j].tolist()
            if top == bottom:
                continue
            rows, row_edges = _touched(self.source_rows[k], top, bottom)
            cols, col_edges = _touched(self.source_cols[k], left, right)
            flip_y, flip_x = job.flips[k]
            height, width = len(self.source_rows[k]) - 1, len(self.source_cols[k]) - 1
            blocks = [
                (height - 1 - r if flip_y else r, width - 1 - c if flip_x else c) for r in rows for c in cols
            ]
            yield (k, ((top, bottom), (left, right)), row_edges, col_edges), blocks


def _sides(job: _Warp, sources: Sequence[xr.DataArray], chunks: Chunks) -> tuple[int, int]:
    """Height and width of the result's blocks: by default as many source pixels as the source's blocks."""
    if isinstance(chunks, Mapping):
        chunks = (chunks.get("y", BLOCK), chunks.get("x", BLOCK))
    if chunks is not None:
        pair = chunks if isinstance(chunks, tuple) else (chunks, chunks)
        sides = tuple(s if n == -1 else n for n, s in zip(pair, job.target.shape, strict=True))
        if any(not isinstance(n, int | np.integer) or n < 1 for n in sides):
            raise ValueError(
                f"chunks is the side of the result's blocks in pixels, or (y, x); got {chunks!r}"
            )
        return sides[0], sides[1]
    shrink = max(job.target.metres / job.sources[0].metres, 1.0)
    y, x = ((BLOCK,), (BLOCK,)) if sources[0].chunks is None else _chunks_yx(sources[0])
    return tuple(max(math.ceil(min(max(side), 2 * BLOCK) / shrink), 1) for side in (y, x))


def _regular(size: int, side: int) -> tuple[int, ...]:
    return tuple(min(side, size - start) for start in range(0, size, side))


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
        low = int(np.searchsorted(edges, start, "right")) - 1
        high = int(np.searchsorted(edges, stop, "left"))
        return list(range(low, high)), tuple(edges[low : high + 1].tolist())
    ahead, ahead_edges = _touched(edges, start, size)
    behind, behind_edges = _touched(edges, 0, stop - size)
    return ahead + [b % count for b in behind], (*ahead_edges, *(e + size for e in behind_edges[1:]))


def _compute(
    job: _Warp,
    plan: _Plan,
    sources: Sequence[xr.DataArray],
    scales: list[xr.DataArray],
    dims: list[Hashable],
    bands: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Arrays in memory: the same blocks, one after the other."""
    first = sources[0]
    sizes = tuple(first.sizes[d] for d in dims)
    others = sizes[: len(sizes) - 2 - job.vector]
    height, width = job.target.shape
    out = np.empty((*others, height, width, *((bands,) if job.vector else ())), job._dtype)
    view = (np.moveaxis(out, -1, len(others)) if job.vector else out).transpose(np.argsort(job.order))
    y, x = first.get_axis_num("y"), first.get_axis_num("x")
    stats = np.empty((*others, height, width, 2), np.float32) if job.stats else None
    for i, rows in enumerate(pairwise(plan.rows.tolist())):
        for j, cols in enumerate(pairwise(plan.cols.tolist())):
            blocks: list[Any] = []
            parts = []
            for part, numbers in plan.parts(job, i, j):
                parts.append(part)
                blocks += [sources[part[0]].values] * len(numbers)
                if job.scaled:
                    blocks += [scales[part[0]].values] * len(numbers)
            block = job(rows, cols, others, bands, tuple(parts), *blocks)
            if stats is not None:
                block, stats[..., slice(*rows), slice(*cols), :] = block
            where: list[Any] = [slice(None)] * first.ndim
            where[y], where[x] = slice(*rows), slice(*cols)
            view[tuple(where)] = block
    return view, stats


def _build(
    job: _Warp,
    plan: _Plan,
    sources: Sequence[xr.DataArray],
    scales: list[xr.DataArray],
    dims: list[Hashable],
    bands: int,
    what: str,
) -> tuple[Any, Any]:
    """Lazy arrays: one layer, a task a block."""
    import dask.array as da
    from dask._task_spec import Task, TaskRef
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    first = sources[0]
    for each in sources:
        check_band_chunk(each, what)
    datas = [e.data if e.chunks is not None else da.from_array(e.data, chunks=e.shape) for e in sources]
    scale_datas = []
    for each, scale in zip(sources, scales, strict=False):
        chunks = {d: c for d, c in each.chunksizes.items() if d in scale.dims}
        scale_datas.append(scale.chunk(chunks).data)
    token = tokenize(job, [d.name for d in datas], [d.name for d in scale_datas], plan.rows, plan.cols)
    name = f"{what}-{token}"
    kept = {
        d: first.chunksizes[d] if first.chunks else (first.sizes[d],) for d in dims if d not in ("y", "x")
    }
    vector = dims[-3] if job.vector else None
    out_chunks = {
        **kept,
        "y": tuple(np.diff(plan.rows).tolist()),
        "x": tuple(np.diff(plan.cols).tolist()),
    }
    if vector is not None:
        out_chunks[vector] = (bands,)
    others = dims[: len(dims) - 2 - job.vector]
    graph: dict[Any, Any] = {}
    for i, rows in enumerate(pairwise(plan.rows.tolist())):
        for j, cols in enumerate(pairwise(plan.cols.tolist())):
            found = list(plan.parts(job, i, j))
            parts = tuple(part for part, _ in found)
            for at in np.ndindex(*(len(kept[d]) for d in others)):
                place: dict[Hashable, int] = {vector: 0, **dict(zip(others, at, strict=True))}
                refs = []
                for (k, *_), blocks in found:
                    refs += [
                        TaskRef((datas[k].name, *({**place, "y": r, "x": c}[d] for d in first.dims)))
                        for r, c in blocks
                    ]
                    if job.scaled:
                        refs += [TaskRef((scale_datas[k].name, *at, r, c)) for r, c in blocks]
                key = (name, *({**place, "y": i, "x": j}[d] for d in first.dims))
                shape = tuple(kept[d][n] for d, n in zip(others, at, strict=True))
                graph[key] = Task(key, job, rows, cols, shape, bands, parts, *refs)
    layer = HighLevelGraph.from_collections(name, graph, dependencies=[*datas, *scale_datas])
    chunks = tuple(out_chunks[d] for d in first.dims)
    meta = np.empty((0,) * first.ndim, job._dtype)
    data = da.Array(layer, name, chunks, meta=meta)
    if not job.stats:
        return data, None
    return _split(data, first.dims, [*others, "y", "x"], job._dtype)


def _split(pairs: Any, dims: Sequence[Hashable], kept: Sequence[Hashable], dtype: str) -> tuple[Any, Any]:
    """Blocks that are pairs (vectors, statistics) as two arrays."""
    import dask.array as da

    vectors = da.blockwise(
        _first_of, tuple(dims), pairs, tuple(dims), dtype=dtype, meta=np.empty((0,) * len(dims), dtype)
    )
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
    if isinstance(factor, bool) or not isinstance(factor, int | np.integer) or factor < 1:
        raise ValueError(f"factor is a whole number of pixels, at least 1; got {factor!r}")
    base = geometry.north_up(geometry.geobox_of(array, "coarsen"))
    shape = tuple(-(-size // factor) for size in base.shape)
    geobox = GeoBox(shape, base.affine * base.affine.scale(factor), base.crs)
    how: Resampling = "mode" if _is_labels(array) else "average"
    return _one(array, geobox, geometry.grid_coords(geobox), how, None, resultant_length, "coarsen")


def mosaic(
    sources: Sequence[xr.DataArray],
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
    sources = list(sources)
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
    data, stat_data = _warp(sources, geobox, how, rule, chunks, stats, what)
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
            scales = []
            for each in sources:
                scale = arrays.scale_of(each, codec)
                assert scale is not None
                if len(sources) > 1:  # which array has data there is decided as for the codes
                    scale = scale.where(np.isfinite(scale) & (scale != 0))
                place = {k: each.coords[k] for k in ("y", "x", geometry.SPATIAL_REF)}
                scales.append(scale.assign_coords(place))
            side = chunks if chunks is not None or array.chunks is None else _chunks_of(data, array.dims)
            moved, _ = _warp(scales, geobox, "nearest", rule, side, False, f"{what}-scale")
            kept[codec.scale] = xr.DataArray(moved, dims=scales[0].dims)
    out = xr.DataArray(data, dims=array.dims, coords={**kept, **coords}, name=array.name, attrs=attrs)
    if not stats:
        return out
    others = [d for d in array.dims if d not in ("y", "x") and d not in _VECTORS]
    extra = {k: v for k, v in out.coords.items() if not set(v.dims) & set(_VECTORS)}
    planes = {
        name: xr.DataArray(stat_data[..., n], dims=(*others, "y", "x"), coords=extra)
        for n, name in enumerate(("resultant_length", "valid_fraction"))
    }
    return xr.Dataset({"embedding": out.rename("embedding"), **planes})


def _chunks_of(data: Any, dims: Sequence[Hashable]) -> tuple[int, int]:
    return data.chunks[list(dims).index("y")][0], data.chunks[list(dims).index("x")][0]


def default_resolution(source: GeoBox, crs: object, area: geometry.Area) -> float | tuple[float, float]:
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
    return geometry.resolution_in(goal, float(f"{metres:.9g}"), area)


def _target(
    array: xr.DataArray,
    target: Any,
    resolution: float | tuple[float, float] | None,
    sources: Sequence[xr.DataArray] = (),
) -> tuple[GeoBox, Mapping[str, xr.DataArray]]:
    """The grid that was asked for, north-up, and its coordinates."""
    if isinstance(target, xr.DataArray | xr.Dataset | GeoBox):
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
    areas = [geometry.area_of(box) for box in boxes]
    step = resolution if resolution is not None else default_resolution(boxes[0], crs, areas[0])
    if len(areas) == 1:
        box = geometry.snapped_geobox(areas[0], crs, step)
    else:
        parts = [geometry.snapped_geobox(area, crs, step) for area in areas]
        bounds = geometry.union_bounds([geometry.area_of(part).bounds for part in parts])
        box = geometry.snapped_geobox(geometry.Area(*bounds, crs), crs, step)
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
