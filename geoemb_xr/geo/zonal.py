"""Statistics of pixels or patches in polygons, streamed over blocks, each by the share that a polygon covers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
import xarray as xr

from geoemb_xr.core import areas, geometry, kernels
from geoemb_xr.core.arrays import codec_of, decode, scale_of
from geoemb_xr.core.codecs import SIGNED_SQUARE
from geoemb_xr.core.errors import CoverageError, EmbeddingError, check_choice
from geoemb_xr.core.legend import is_class_map, legend_of
from geoemb_xr.core.missing import without_codec
from geoemb_xr.core.model import BAND, Codec, check_embedding, derived_attrs, is_encoded, whole_along
from geoemb_xr.geo import footprints, places, polygons
from geoemb_xr.geo.covering import CELLS, MANY_CELLS, CoveredPixels, Outlines
from geoemb_xr.geo.places import Places
from geoemb_xr.geo.points import at_places
from geoemb_xr.geo.pooling_kernels import gathered, in_known_type
from geoemb_xr.geo.pools import Classes, Pool, Quantiles, Stats, VectorMoments

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: Statistics of an embedding, of a class map, and of a map of values; the first of each is the default.
_OF_VECTORS: tuple[Stats, ...] = ("mean", "normalized", "stats", "covariance")
_OF_CLASSES: tuple[Stats, ...] = ("shares", "majority")
_OF_VALUES: tuple[Stats, ...] = ("mean", "stats", "quantiles")
#: Stands where a map has no bands, components or categories.
_ALONE = "value"


def zonal_stats(
    array: xr.DataArray,
    areas: Any,
    *,
    crs: object = None,
    stats: Stats | None = None,
    all_touched: bool = False,
) -> xr.DataArray:
    """Pool the pixels or patches in each polygon. Lazy: only blocks that a polygon touches are read, once each.

    Parameters
    ----------
    array : DataArray (time?, band, y, x), (time?, …, y, x) or (location, band)
        An embedding, encoded or decoded; a map: classes, similarity, change, entropy, components; or patches.
        Vectors; missing ones do not count.
    areas : polygons, GeoDataFrame, table, GeoJSON or path
        Anything that :func:`geoemb_xr.geo.places.read_places` takes. A missing or empty one gives NaN.
    crs : CRS, optional
        CRS of polygons that bring none; longitude and latitude by default.
    stats : {"mean", "normalized", "stats", "covariance", "shares", "majority", "quantiles"}, optional
        The statistics of embeddings: the mean vector (the default); the mean at unit length (products with
        ``unit_norm``: the mean direction); minimum, maximum, mean and standard deviation of each band, one after
        the other; or the upper triangle of the covariance matrix, row by row. For class maps: the share of each
        class (the default), or the majority class. For other maps: "mean" (the default), "stats", or
        "quantiles": 5, 25, 50, 75 and 95 %, for which all pixels of the polygons are held in memory.
    all_touched : bool
        Whether every pixel (or patch) that a polygon touches counts fully, instead of by the exact share it covers.

    Returns
    -------
    DataArray (time?, location, band)
        An embedding still for "mean" and "normalized" of one, so that probes apply. ``component`` stands where
        ``band`` would for other statistics, ``category`` for shares; a class of most is a class map along
        ``location``. ``location`` is the polygons' index; their columns ride along, ``x`` and ``y`` is a point
        inside each. NaN (0 for a class) where a polygon holds no data.

    Raises
    ------
    CoverageError
        If no polygon overlaps the array.
    ValueError
        For statistics that are unknown, or that this kind of array does not have.

    Examples
    --------
    >>> import geoemb_xr as gx, shapely
    >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    >>> field = shapely.box(11.369, 47.249, 11.371, 47.251)
    >>> gx.zonal_stats(da, field).sizes
    Frozen({'location': 1, 'band': 64})
    >>> truth = gx.testing.scene().truth(da.emb.geobox, 2018)
    >>> float(gx.zonal_stats(truth, field).sum())
    1.0
    """
    kinds = _OF_CLASSES if is_class_map(array) else _OF_VECTORS if BAND in array.dims else _OF_VALUES
    stats = check_choice("stats", kinds[0] if stats is None else stats, kinds)
    of_patches = footprints.has_footprints(array)
    grid = None if of_patches else geometry.geobox_of(array, "zonal_stats")
    codec = None
    if kinds is _OF_VECTORS:
        found = check_embedding(array, "zonal_stats")
        if is_encoded(array) and not of_patches:
            codec = codec_of(array)  # vectors are decoded in each polygon, not whole
            array = array if array.name is not None else array.rename(found.name)
        else:
            array = decode(array)
    flat, wide = _flat(array, ("location",) if of_patches else ("y", "x"))
    bands = None if wide == _ALONE else flat.coords[wide]
    if codec is not None and bands is not None:
        bands = xr.DataArray(np.asarray(codec.bands or bands.values), dims=wide)
    given = places.read_places(areas, crs=crs)
    given.say_missing("zonal_stats gives NaN for")
    pool = _pool(flat, flat.sizes[wide] if bands is None else bands.size, stats)
    if grid is None:
        shapes, data = _of_patches(flat, given, pool, all_touched)
    else:
        shapes = given.polygons_on(grid)
        outlines = Outlines.of(shapes, grid.affine, grid.shape)
        touched = shapes if all_touched else None
        data = _pooled(flat, _PixelJob(pool, outlines, grid, touched, codec=codec))
    inner = shapely.point_on_surface(shapes)
    named = _named(data, array, wide, bands, stats, pool)
    return at_places(named, array, shapely.get_x(inner), shapely.get_y(inner), given)


def _flat(array: xr.DataArray, place: tuple[str, ...]) -> tuple[xr.DataArray, str]:
    """An array as ``(time?, wide, …place)``, and its wide dimension: bands, components or one alone."""
    rest = [str(d) for d in array.dims if d not in ("time", *place)]
    if len(rest) > 1 or (len(place) == 1 and "time" in array.dims):
        raise EmbeddingError(f"zonal_stats takes dims (time, band, y, x); got {tuple(array.dims)}")
    if not rest:
        array, rest = array.expand_dims(_ALONE), [_ALONE]
    array = whole_along(array, rest[0])
    order = (*(d for d in ("time",) if d in array.dims), rest[0], *place)
    return array if array.dims == order else array.transpose(*order), rest[0]


def _pool(flat: xr.DataArray, bands: int, stats: Stats) -> Pool[Any]:
    if stats in _OF_CLASSES:
        dtype = np.dtype(np.float32) if stats == "shares" else flat.dtype
        return Classes(stats, legend_of(flat).values, dtype)
    if stats == "quantiles":
        return Quantiles(bands)
    return VectorMoments(stats, bands)


def _named(
    data: Any, array: xr.DataArray, wide: str, bands: xr.DataArray | None, stats: Stats, pool: Pool[Any]
) -> xr.DataArray:
    """Statistics ``(time?, zone, …)`` with names, labels and attributes."""
    places = {"y", "x", "location", wide}
    coords: dict[Any, Any] = {k: v for k, v in array.coords.variables.items() if not places & set(v.dims)}
    dims = [*(d for d in ("time",) if d in array.dims), "location"]
    title = stats if array.name is None else str(array.name)
    attrs = without_codec(array.attrs)
    if stats in ("mean", "normalized", "majority"):
        if bands is not None:
            coords[wide] = bands
            return xr.DataArray(data, dims=[*dims, wide], coords=coords, name=title, attrs=attrs)
        return xr.DataArray(data[..., 0], dims=dims, coords=coords, name=title, attrs=attrs)
    if isinstance(pool, Classes):
        wide, labels = "category", list(legend_of(array).names)
    else:
        assert isinstance(pool, VectorMoments | Quantiles)
        labels = pool.labels([""] if bands is None else bands.values.astype(str).tolist())
        labels, wide = [label.strip("_") for label in labels], "component"
    long_name = f"{stats} of the pixels in each polygon"
    known = "product" in array.attrs or "derived_from" in array.attrs
    attrs = derived_attrs(array, long_name=long_name) if known else {"long_name": long_name}
    coords[wide] = (wide, np.asarray(labels))
    return xr.DataArray(data, dims=[*dims, wide], coords=coords, name=stats, attrs=attrs)


def class_areas(
    array: xr.DataArray, given: Places, ground: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Any:
    """Area of each class in each polygon, ``(time?, zone, class)``, in units of ``ground``.

    Parameters
    ----------
    array : DataArray (time?, y, x)
        A class map.
    given : Places
        Polygons.
    ground : callable
        The ground of pixels (h, w) from the centres of their rows and columns.
    """
    grid = geometry.geobox_of(array, "area")
    flat, _ = _flat(array, ("y", "x"))
    pool = Classes("sums", legend_of(array).values, np.dtype(np.float64))
    outlines = Outlines.of(given.polygons_on(grid), grid.affine, grid.shape)
    return _pooled(flat, _PixelJob(pool, outlines, grid, ground=ground))


# --- rasters ------------------------------------------------------------------------------------------------

#: Sums of a block, or of several together, and of which zone and time step each row is: ``step · zones + zone``.
_Part = tuple[np.ndarray, Any]


@dataclass(frozen=True)
class _PixelJob:
    """What the tasks of all blocks have in common.

    Parameters
    ----------
    pool : Pool
        What is made of pixels.
    outlines : Outlines
        The polygons' edges.
    grid : GeoBox
        The grid that they lie on.
    touched : ndarray of polygons, optional
        The polygons themselves, where pixels that they touch count fully.
    ground : callable, optional
        What shares are multiplied by: gives numbers (h, w) from the centres of rows and columns.
    codec : Codec, optional
        Codec of codes.
    """

    pool: Pool[Any]
    outlines: Outlines
    grid: GeoBox
    touched: np.ndarray | None = None
    ground: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    codec: Codec | None = None

    @property
    def adds_codes(self) -> bool:
        """Whether codes are summed as they are: means of AlphaEarth's need no vectors."""
        is_mean = isinstance(self.pool, VectorMoments) and self.pool.is_mean
        return is_mean and self.codec is not None and self.codec.name == SIGNED_SQUARE.name

    @property
    def zones(self) -> int:
        """How many polygons."""
        return len(self.outlines.bounds)

    def sums(
        self, zones: np.ndarray, origin: tuple[int, int], data: np.ndarray, scale: np.ndarray | None = None
    ) -> _Part:
        """Sums of one block ``(time?, band, y, x)``, which begins at a row and column, in some polygons."""
        steps = in_known_type(data if data.ndim == 4 else data[None])
        (top, left), (height, width) = origin, data.shape[-2:]
        scales = None if scale is None else scale.reshape(len(steps), 1, height, width)
        outlines = self.outlines.within(zones, (top, top + height, left, left + width))
        sums, size = self.pool.none(len(steps) * len(zones)), MANY_CELLS if self.adds_codes else CELLS
        for piece in outlines.pieces(size, touched=self.touched is not None):
            own = replace(piece.from_origin(top, left), weights=_weights(piece, self, zones))
            for step, block in enumerate(steps):
                rows = piece.windows[:, 0] + step * len(zones)
                self._add(sums, rows, own, block, None if scales is None else scales[step])
        return (np.arange(len(steps))[:, None] * self.zones + zones).reshape(-1), sums

    def _add(
        self, sums: Any, rows: np.ndarray, piece: CoveredPixels, block: np.ndarray, scale: np.ndarray | None
    ) -> None:
        """Add a piece of a block: codes as they are, or gathered and decoded."""
        if self.adds_codes:
            assert isinstance(self.pool, VectorMoments)
            self.pool.add_squares(sums, rows, piece, block)
            return
        pixels = piece.weights.size
        values = gathered(block, piece.runs, pixels)
        if self.codec is not None:
            own = None if scale is None else gathered(scale, piece.runs, pixels)[0]
            values = self.codec.decode(values, own, 0)
        self.pool.add(sums, rows, values, piece.weights.copy(), piece.ends)


def _pooled(array: xr.DataArray, job: _PixelJob) -> Any:
    """The statistics (time?, zone, …) of an array ``(time?, band, y, x)``, lazy where that is lazy."""
    bounds = job.outlines.bounds
    if not (bounds[:, 0] < bounds[:, 1]).any():
        raise CoverageError(f"no polygon overlaps the array, which {areas.covers(job.grid)}")
    scale = None if job.codec is None else scale_of(array, job.codec)
    if array.chunks is None:
        read = array.values, None if scale is None else scale.values
        part = job.sums(np.arange(len(bounds)), (0, 0), *read)
        return _finish(job.pool, job.zones, array.sizes.get("time"), part)
    sources = [array.data]
    if scale is not None:
        sources.append(scale.chunk({d: array.variable.chunksizes[d] for d in scale.dims}).data)
    chunks = dict(zip(array.dims, array.chunks, strict=True))
    counts = chunks.get("time", (None,))
    edges = [np.concatenate(([0], np.cumsum(chunks[d]))) for d in ("y", "x")]
    touched = _zones_by_block(bounds, *edges)
    blocks = []
    for n in range(len(counts)):
        step = () if counts[0] is None else (n,)
        own: list[_Reading] = []
        for (i, j), zones in touched.items():
            keys = [(each.name, *step, *(0,) * (each.ndim - len(step) - 2), i, j) for each in sources]
            own.append(((zones, (int(edges[0][i]), int(edges[1][j]))), keys))
        blocks.append(own)
    return _summed(job, blocks, sources, counts)


def _zones_by_block(bounds: np.ndarray, ys: np.ndarray, xs: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """Zones by the block that they reach into; ``ys`` and ``xs`` are where blocks begin and end."""
    first = [np.searchsorted(e, bounds[:, 2 * axis], "right") - 1 for axis, e in enumerate((ys, xs))]
    last = [np.searchsorted(e, bounds[:, 2 * axis + 1], "left") for axis, e in enumerate((ys, xs))]
    down, across = (np.maximum(high - low, 0) for low, high in zip(first, last, strict=True))
    zone, number = kernels.runs(np.zeros(len(bounds), np.int64), down * across)
    i, j = np.divmod(number, across[zone])
    block = (first[0][zone] + i) * len(xs) + first[1][zone] + j
    order = np.argsort(block, kind="stable")
    starts = np.flatnonzero(np.diff(block[order], prepend=-1))
    parts = np.split(order, starts[1:])
    return {divmod(int(block[own[0]]), len(xs)): zone[own] for own in parts}


def _weights(piece: CoveredPixels, job: _PixelJob, zones: np.ndarray) -> np.ndarray:
    """What each pixel of a piece counts."""
    weights = piece.weights
    if job.touched is not None:
        weights = _touched(piece, job.touched[zones], job.grid)
    if job.ground is not None:
        weights = weights * _ground(piece, job.ground, job.grid)
    return weights


def _ground(
    piece: CoveredPixels, ground: Callable[[np.ndarray, np.ndarray], np.ndarray], grid: GeoBox
) -> np.ndarray:
    """The ground of each pixel of a piece, window by window."""
    a = grid.affine
    row, column = piece.pixels()
    found = np.empty(len(row))
    for (_, top, bottom, left, right), (start, stop) in zip(
        piece.windows.tolist(), itertools.pairwise(piece.ends.tolist()), strict=True
    ):
        ys, xs = a.f + a.e * (np.arange(top, bottom) + 0.5), a.c + a.a * (np.arange(left, right) + 0.5)
        own = slice(start, stop)
        found[own] = ground(ys, xs)[row[own] - top, column[own] - left]
    return found


def _touched(piece: CoveredPixels, shapes: np.ndarray, grid: GeoBox) -> np.ndarray:
    """1 for each pixel of a piece that a polygon touches, else 0; an edge along a pixel's own touches no neighbour.

    GEOS is asked for pixels of which next to nothing is covered.
    """
    touches = np.ones(len(piece.weights))
    unsure = np.flatnonzero(piece.weights == 0)
    row, column = (each[unsure] for each in piece.pixels())
    corners = [grid.affine * (column + i, row + i) for i in (0, 1)]
    boxes = shapely.box(*corners[0], *corners[1])
    zone = np.repeat(piece.windows[:, 0], np.diff(piece.ends))[unsure]
    for each in np.unique(zone):
        own = zone == each
        shape = shapely.from_wkb(
            shapely.to_wkb(shapes[each])
        )  # of this thread: what is prepared is not shared
        shapely.prepare(shape)
        touches[unsure[own]] = shapely.intersects(shape, boxes[own]) & ~shapely.touches(shape, boxes[own])
    return touches


# --- from sums to statistics --------------------------------------------------------------------------------

#: What a task takes beside the job: arguments, and the keys of blocks.
_Reading = tuple[tuple[Any, ...], list[tuple[Any, ...]]]
#: Sums that are merged at once.
_FAN = 16


def _summed(
    job: _PixelJob | _PatchJob,
    blocks: Sequence[Sequence[_Reading]],
    sources: Sequence[Any],
    counts: Sequence[int | None],
) -> Any:
    """Statistics (time?, zone, …) as one layer: sums of each block, of sixteen together, and of all.

    Parameters
    ----------
    job : object
        What all tasks have in common, a node of its own. The result is named by it: arguments must follow from it.
    blocks : sequence of sequences
        What each task takes, by chunk of time.
    sources : sequence of dask arrays
        What is read.
    counts : sequence of int, or (None,)
        Time steps in each chunk; None where time is no dimension.
    """
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

    from geoemb_xr.execution.internals import DataNode, Task, TaskRef

    name = f"zonal_stats-{tokenize([each.name for each in sources], job)}"
    shared, pool, zones = f"{name}-job", job.pool, job.zones
    tasks: dict[Any, Any] = {shared: DataNode(shared, job)}
    for n, (count, own) in enumerate(zip(counts, blocks, strict=True)):
        parts = []
        for args, keys in own:
            key: Any = (f"{name}-sums", len(tasks))
            tasks[key] = Task(key, _sums_of_block, TaskRef(shared), *args, *map(TaskRef, keys))
            parts.append(TaskRef(key))
        while len(parts) > _FAN:
            groups, parts = itertools.batched(parts, _FAN), []
            for group in groups:
                key = (f"{name}-merged", len(tasks))
                tasks[key] = Task(key, _merge, pool, *group)
                parts.append(TaskRef(key))
        key = (name, *(() if count is None else (n,)), 0, 0)
        tasks[key] = Task(key, _finish, pool, zones, count, *parts)
    times = () if counts[0] is None else (tuple(counts),)
    chunks = (*times, (zones,), (pool.width,))
    graph = HighLevelGraph.from_collections(name, MaterializedLayer(tasks), dependencies=sources)
    return da.Array(graph, name, chunks, meta=np.empty((0,) * len(chunks), pool.dtype))


def _sums_of_block(job: _PixelJob | _PatchJob, *read: Any) -> _Part:
    return job.sums(*read)


def _merge(pool: Pool[Any], *parts: _Part) -> _Part:
    keys = np.unique(np.concatenate([own for own, _ in parts]))
    sums = pool.none(len(keys))
    for own, part in parts:
        pool.merge(sums, np.searchsorted(keys, own), part)
    return keys, sums


def _finish(pool: Pool[Any], zones: int, count: int | None, *parts: _Part) -> np.ndarray:
    """Statistics (time?, zone, …), of nothing where no block was read."""
    sums = pool.none(zones * (1 if count is None else count))
    for keys, part in parts:
        pool.merge(sums, keys, part)
    return pool.finish(sums).reshape(*(() if count is None else (count,)), zones, pool.width)


# --- patches ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _PatchJob:
    """What the tasks of all blocks of patches have in common: which patch counts how much in which polygon.

    Parameters
    ----------
    pool : Pool
        What is made of patches.
    zones : int
        How many polygons.
    zone, row : ndarray of int (pair,)
        Numbers of polygon and patch, in order of polygons.
    weight : ndarray of float64 (pair,)
        What the patch counts there.
    """

    pool: Pool[Any]
    zones: int
    zone: np.ndarray
    row: np.ndarray
    weight: np.ndarray

    def sums(self, start: int, data: np.ndarray) -> _Part:
        """Sums of a block's patches ``(band, location)``, the first of which is number ``start``, by zones."""
        own = (self.row >= start) & (self.row < start + data.shape[1])
        zones, first = np.unique(self.zone[own], return_index=True)
        vectors = in_known_type(np.take(data, self.row[own] - start, 1))
        sums = self.pool.none(len(zones))
        ends = np.append(first, len(vectors.T))
        self.pool.add(sums, np.arange(len(zones)), vectors, self.weight[own], ends)
        return zones, sums


def _of_patches(
    array: xr.DataArray, given: Places, pool: Pool[Any], all_touched: bool
) -> tuple[np.ndarray, Any]:
    """Polygons in the patches' CRS, and their statistics (zone, …) of patches ``(band, location)``.

    A patch counts by the ground that it shares with a polygon.
    """
    crs = geometry.crs_of(array)
    assert crs is not None  # patches_of has looked
    patches = footprints.patches_of(array, "zonal_stats")
    squares = footprints.squares_of(patches, crs)
    shapes = given.polygons(crs)
    turned = shapes
    if crs.is_geographic and squares.size:
        bounds = tuple(shapely.total_bounds(squares))
        turned = polygons.each_around_the_world(shapes, bounds)
    zone, row = shapely.STRtree(squares).query(turned, predicate="intersects")
    if not zone.size:
        raise CoverageError(f"no polygon overlaps one of the {squares.size} patches")
    weight = np.ones(zone.size)
    if not all_touched:
        shared = shapely.area(shapely.intersection(turned[zone], squares[row])) / shapely.area(squares[row])
        weight = shared * (patches.side[row] / patches.side.max()) ** 2
    kept = np.flatnonzero(weight > 0)
    kept = kept[np.argsort(zone[kept], kind="stable")]
    job = _PatchJob(pool, len(shapes), zone[kept], row[kept], weight[kept])
    if array.chunks is None:
        return shapes, _finish(pool, len(shapes), None, job.sums(0, array.values))
    blocks: list[_Reading] = []
    edges = itertools.accumulate(array.variable.chunksizes["location"], initial=0)
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        if ((job.row >= start) & (job.row < stop)).any():
            blocks.append(((start,), [(array.data.name, 0, number)]))
    return shapes, _summed(job, [blocks], [array.data], (None,))
