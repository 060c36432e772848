"""Statistics of pixels or patches in polygons, streamed over blocks, each by the share that a polygon covers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
import xarray as xr

from geoemb_xr.core import areas, geometry
from geoemb_xr.core.arrays import codec_of, decode
from geoemb_xr.core.errors import CoverageError, EmbeddingError, check_choice
from geoemb_xr.core.legend import is_class_map, legend_of
from geoemb_xr.core.missing import without_codec
from geoemb_xr.core.model import BAND, Codec, check_embedding, derived_attrs, is_encoded
from geoemb_xr.geo import footprints, places, polygons
from geoemb_xr.geo.places import Places
from geoemb_xr.geo.points import at_places
from geoemb_xr.geo.pools import Classes, Moments, Pool, Quantiles, State, Stats

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
    codes, codec = None, None
    if kinds is _OF_VECTORS:
        check_embedding(array, "zonal_stats")
        if is_encoded(array) and codec_of(array).scale is None and not of_patches:
            codes, codec = array, codec_of(array)  # decoded around each polygon, not whole
        array = decode(array)
    grid = None if of_patches else geometry.geobox_of(array, "zonal_stats")
    flat, wide = _flat(array, ("location",) if of_patches else ("y", "x"))
    given = places.read_places(areas, crs=crs)
    given.say_missing("zonal_stats gives NaN for")
    pool = _pool(flat, wide, stats, len(given))
    if grid is None:
        shapes, data = _of_patches(flat, given, pool, all_touched)
    else:
        shapes = given.polygons_on(grid)
        read = flat if codes is None else _flat(codes, ("y", "x"))[0]
        data = _pooled(read, grid, shapes, pool, "touched" if all_touched else "exact", codec=codec)
    inner = shapely.point_on_surface(shapes)
    return at_places(
        _named(data, array, flat, wide, stats, pool), array, shapely.get_x(inner), shapely.get_y(inner), given
    )


def _flat(array: xr.DataArray, place: tuple[str, ...]) -> tuple[xr.DataArray, str]:
    """An array as ``(time?, wide, …place)``, and its wide dimension: bands, components or one alone."""
    rest = [str(d) for d in array.dims if d not in ("time", *place)]
    if len(rest) > 1 or (len(place) == 1 and "time" in array.dims):
        raise EmbeddingError(f"zonal_stats takes dims (time, band, y, x); got {tuple(array.dims)}")
    if not rest:
        array, rest = array.expand_dims(_ALONE), [_ALONE]
    if array.chunks is not None:
        array = array.chunk({rest[0]: -1})
    first = [d for d in ("time",) if d in array.dims]
    return array.transpose(*first, rest[0], *place), rest[0]


def _pool(flat: xr.DataArray, wide: str, stats: Stats, zones: int) -> Pool:
    if stats in _OF_CLASSES:
        dtype = np.dtype(np.float32) if stats == "shares" else flat.dtype
        return Classes(stats, zones, legend_of(flat).values, dtype)
    if stats == "quantiles":
        return Quantiles(zones, flat.sizes[wide])
    return Moments(stats, zones, flat.sizes[wide])


def _named(
    data: Any, array: xr.DataArray, flat: xr.DataArray, wide: str, stats: Stats, pool: Pool
) -> xr.DataArray:
    """Statistics ``(time?, zone, …)`` with names, labels and attributes."""
    places = {"y", "x", "location", wide}
    coords = {k: v for k, v in array.coords.items() if not places & set(v.dims)}
    dims = [*(d for d in ("time",) if d in flat.dims), "location"]
    title = stats if array.name is None else str(array.name)
    attrs = without_codec(array.attrs)
    if stats in ("mean", "normalized", "majority"):
        if wide in array.dims:
            return xr.DataArray(
                data, dims=[*dims, wide], coords={**coords, wide: array.coords[wide]}, name=title, attrs=attrs
            )
        return xr.DataArray(data[..., 0], dims=dims, coords=coords, name=title, attrs=attrs)
    if isinstance(pool, Classes):
        wide, labels = "category", list(legend_of(array).names)
    else:
        assert isinstance(pool, Moments | Quantiles)
        labels = pool.labels([""] if wide == _ALONE else flat.coords[wide].values.astype(str).tolist())
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
    pool = Classes("sums", len(given), legend_of(array).values, np.dtype(np.float64))
    return _pooled(flat, grid, given.polygons_on(grid), pool, "exact", ground)


# --- rasters ------------------------------------------------------------------------------------------------

#: Sums by time step and zone: what one block brings, or several together.
_Sums = dict[tuple[int, int], State]


def _pooled(
    array: xr.DataArray,
    grid: GeoBox,
    shapes: np.ndarray,
    pool: Pool,
    rule: polygons.Rule,
    ground: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    codec: Codec | None = None,
) -> Any:
    """The statistics (time?, zone, …), lazy where the array is lazy: block by block, merged in a tree."""
    chunks = array.chunks or tuple((n,) for n in array.shape)
    edges = [np.concatenate(([0], np.cumsum(sizes))) for sizes in chunks]
    touched = _zones_by_block(grid, shapes, edges[-2], edges[-1])
    timed = array.ndim == 4
    size = (abs(grid.affine.e), abs(grid.affine.a))
    out = []
    for number, count in enumerate(chunks[0] if timed else (1,)):
        tasks = []
        for (i, j), zones in touched.items():
            window = {
                "y": slice(edges[-2][i], edges[-2][i + 1]),
                "x": slice(edges[-1][j], edges[-1][j + 1]),
            }
            if timed:
                start = int(edges[0][number])
                window["time"] = slice(start, start + count)
            block = array.isel(window)
            own = [shapes[z] for z in zones]
            tasks.append((block, block.y.values, block.x.values, own, zones, size, pool, rule, ground, codec))
        out.append(_summed(_block_sums, tasks, pool, count, timed, array.chunks is not None))
    if array.chunks is None:
        return out[0]
    import dask.array as da

    return da.concatenate(out, axis=0) if timed else out[0]


def _zones_by_block(
    grid: GeoBox, shapes: np.ndarray, ys: np.ndarray, xs: np.ndarray
) -> dict[tuple[int, int], list[int]]:
    """Zones by the block that they reach into."""
    found: dict[tuple[int, int], list[int]] = {}
    for zone, shape in enumerate(shapes):
        window = None if shape is None else areas.window_of(grid, shape.bounds)
        if window is None:
            continue
        spans = [
            range(int(np.searchsorted(e, w.start, "right")) - 1, int(np.searchsorted(e, w.stop, "left")))
            for e, w in zip((ys, xs), window, strict=True)
        ]
        for i in spans[0]:
            for j in spans[1]:
                found.setdefault((i, j), []).append(zone)
    if not found:
        raise CoverageError(f"no polygon overlaps the array, which {areas.covers(grid)}")
    return found


def _summed(sums: Any, tasks: list[Any], pool: Pool, count: int, timed: bool, lazy: bool) -> Any:
    """Statistics from the sums of blocks; a task is a block and what ``sums`` takes beside it."""
    if not lazy:
        return _finish([sums(block.values, *rest) for block, *rest in tasks], pool, count, timed)
    import dask
    import dask.array as da

    step, merge = dask.delayed(sums, pure=True), dask.delayed(_merge, pure=True)
    parts = [step(block.data.to_delayed(optimize_graph=False).item(), *rest) for block, *rest in tasks]
    while len(parts) > 16:
        parts = [merge(parts[i : i + 16], pool) for i in range(0, len(parts), 16)]
    shape = (count, pool.zones, pool.width) if timed else (pool.zones, pool.width)
    finish = dask.delayed(_finish, pure=True)(parts, pool, count, timed)
    return da.from_delayed(finish, shape, dtype=pool.dtype, meta=np.empty((0,) * len(shape), pool.dtype))


def _block_sums(
    data: np.ndarray,
    ys: np.ndarray,
    xs: np.ndarray,
    shapes: list[Any],
    zones: list[int],
    size: tuple[float, float],
    pool: Pool,
    rule: polygons.Rule,
    ground: Callable[[np.ndarray, np.ndarray], np.ndarray] | None,
    codec: Codec | None,
) -> _Sums:
    """Sums of one block's vectors, or codes, ``(time?, band, y, x)`` in each of some polygons."""
    steps = data.reshape(-1, *data.shape[-3:])
    found: _Sums = {}
    for zone, shape in zip(zones, shapes, strict=True):
        west, south, east, north = shape.bounds
        rows, columns = polygons.reach(ys, size[0], south, north), polygons.reach(xs, size[1], west, east)
        weights = polygons.coverage(shape, ys[rows], xs[columns], size, rule)
        if ground is not None:
            weights *= ground(ys[rows], xs[columns])
        inside = np.flatnonzero(weights)
        for step, bands in enumerate(steps):
            values = bands[:, rows, columns].reshape(len(bands), -1).take(inside, axis=1)
            if codec is not None:
                values = codec.decode(values, None, 0)
            _add(found, (step, zone), values.T, weights.reshape(-1)[inside], pool)
    return found


def _add(found: _Sums, key: tuple[int, int], vectors: np.ndarray, weights: np.ndarray, pool: Pool) -> None:
    valid = pool.valid(vectors)
    if valid.all() and valid.size:
        found[key] = pool.sums(vectors, weights)
    elif valid.any():
        found[key] = pool.sums(vectors.T[:, valid].T, weights[valid])


def _merge(parts: list[_Sums], pool: Pool) -> _Sums:
    merged: _Sums = {}
    for part in parts:
        for key, state in part.items():
            merged[key] = pool.merge(merged[key], state) if key in merged else state
    return merged


def _finish(parts: list[_Sums], pool: Pool, count: int, timed: bool) -> np.ndarray:
    out = pool.finish(_merge(parts, pool), count)
    return np.asarray(out if timed else out[0])


# --- patches ------------------------------------------------------------------------------------------------


def _of_patches(array: xr.DataArray, given: Places, pool: Pool, all_touched: bool) -> tuple[np.ndarray, Any]:
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
    kept = weight > 0
    zone, row, weight = zone[kept], row[kept], weight[kept]
    sizes = array.chunksizes["location"] if array.chunks is not None else (squares.size,)
    edges = np.concatenate(([0], np.cumsum(sizes)))
    tasks = []
    for start, stop in itertools.pairwise(edges):
        mine = (row >= start) & (row < stop)
        if mine.any():
            block = array.isel(location=slice(start, stop))
            tasks.append((block, zone[mine], row[mine] - start, weight[mine], pool))
    return shapes, _summed(_patch_sums, tasks, pool, 1, False, array.chunks is not None)


def _patch_sums(data: np.ndarray, zone: np.ndarray, row: np.ndarray, weight: np.ndarray, pool: Pool) -> _Sums:
    """Sums of one block's patches ``(band, location)`` in each polygon that touches them."""
    found: _Sums = {}
    for each in np.unique(zone):
        own = zone == each
        _add(found, (0, int(each)), data[:, row[own]].T, weight[own], pool)
    return found
