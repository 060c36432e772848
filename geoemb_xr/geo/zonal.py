"""Statistics of the vectors in polygons, streamed over blocks, each pixel by the share that a polygon covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import shapely
import xarray as xr

from geoemb_xr.core import areas, geometry
from geoemb_xr.core.arrays import decode
from geoemb_xr.core.errors import CoverageError, EmbeddingError, check_choice
from geoemb_xr.core.model import BAND, check_embedding, derived_attrs
from geoemb_xr.geo import places, polygons
from geoemb_xr.geo.points import at_places

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Stats = Literal["mean", "normalized", "stats", "covariance"]
_KINDS: tuple[Stats, ...] = ("mean", "normalized", "stats", "covariance")


def zonal_stats(
    array: xr.DataArray,
    areas: Any,
    *,
    crs: object = None,
    stats: Stats = "mean",
    all_touched: bool = False,
) -> xr.DataArray:
    """Pool the vectors in each polygon. Lazy: only blocks that a polygon touches are read, once each.

    Parameters
    ----------
    array : DataArray (time?, band, y, x)
        An embedding, encoded or decoded. Missing pixels do not count.
    areas : polygons, GeoDataFrame, table, GeoJSON or path
        As :func:`geoemb_xr.geo.places.read_places` takes them. A missing or empty one gives NaN.
    crs : CRS, optional
        Of polygons that bring none; longitude and latitude by default.
    stats : {"mean", "normalized", "stats", "covariance"}
        The mean vector; the mean at unit length (products with ``unit_norm``: the mean direction); minimum,
        maximum, mean and standard deviation of each band, one after the other; or the upper triangle of the
        covariance matrix, row by row.
    all_touched : bool
        Whether every pixel that a polygon touches counts fully, instead of by the exact share it covers.

    Returns
    -------
    DataArray (time?, location, band)
        An embedding still for "mean" and "normalized", so that probes apply; else ``component`` stands where
        ``band`` would. ``location`` is the polygons' index; their columns ride along, ``x`` and ``y`` is a
        point inside each. NaN where a polygon holds no data.

    Raises
    ------
    CoverageError
        If no polygon overlaps the array.

    Examples
    --------
    >>> import geoemb_xr as gx, shapely
    >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    >>> gx.zonal_stats(da, [shapely.box(11.369, 47.249, 11.371, 47.251)]).sizes
    Frozen({'location': 1, 'band': 64})
    """
    check_choice("stats", stats, _KINDS)
    check_embedding(array, "zonal_stats")
    grid = geometry.geobox_of(array, "zonal_stats")
    array = decode(array)
    array = array.transpose(*(d for d in array.dims if d not in (BAND, "y", "x")), BAND, "y", "x")
    given = places.read_places(areas, crs=crs)
    shapes = given.polygons_on(grid)
    given.say_missing("zonal_stats gives NaN for")
    pool = _Pool(stats, "touched" if all_touched else "exact", len(shapes), array.sizes[BAND])
    data = _pooled(array, grid, shapes, pool)
    bands = array.coords[BAND].values.astype(str).tolist()
    first = array.dims[:-3]
    coords = {k: v for k, v in array.coords.items() if not {BAND, "y", "x"} & set(v.dims)}
    if stats in ("mean", "normalized"):
        attrs = {k: v for k, v in array.attrs.items() if k != "codec"}
        names = (*first, "location", BAND)
        coords[BAND] = array.coords[BAND]
        title = str(array.name)
    else:
        attrs = derived_attrs(array, long_name=f"{stats} of the pixels in each polygon")
        names = (*first, "location", "component")
        coords["component"] = ("component", np.asarray(pool.labels(bands)))
        title = stats
    found = xr.DataArray(data, dims=names, coords=coords, name=title, attrs=attrs)
    inner = shapely.point_on_surface(shapes)
    return at_places(found, array, shapely.get_x(inner), shapely.get_y(inner), given)


# --- sums ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pool:
    """What is summed in each polygon: weights, vectors, squares or products; and the extremes.

    Parameters
    ----------
    stats : str
        As in :func:`zonal_stats`.
    rule : {"exact", "touched"}
        How a pixel's weight is found.
    zones, bands : int
        How many.
    """

    stats: Stats
    rule: polygons.Rule
    zones: int
    bands: int

    def labels(self, bands: Sequence[str]) -> list[str]:
        """Of the result, for "stats" and "covariance"."""
        if self.stats == "stats":
            return [f"{band}_{what}" for what in ("min", "max", "mean", "std") for band in bands]
        return [f"{a}_{b}" for i, a in enumerate(bands) for b in bands[i:]]

    def sums(self, vectors: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums of vectors ``(n, band)``, and minus the minimum with the maximum, to be merged by maximum."""
        x = vectors.astype(np.float64)
        weighted = x * weights[:, None]
        parts = [np.array([weights.sum()]), weighted.sum(axis=0)]
        if self.stats == "stats":
            parts.append((weighted * x).sum(axis=0))
        elif self.stats == "covariance":
            parts.append((weighted.T @ x)[np.triu_indices(self.bands)])
        extremes = np.concatenate([-x.min(axis=0), x.max(axis=0)]) if self.stats == "stats" else np.empty(0)
        return np.concatenate(parts), extremes

    def finish(self, sums: np.ndarray, extremes: np.ndarray) -> np.ndarray:
        """The statistics, float32 ``(zone, …)``, NaN where nothing was summed."""
        with np.errstate(invalid="ignore", divide="ignore"):
            moments = sums[:, 1:] / sums[:, :1]
        mean, second = moments[:, : self.bands], moments[:, self.bands :]
        if self.stats == "mean":
            out = mean
        elif self.stats == "normalized":
            with np.errstate(invalid="ignore", divide="ignore"):
                out = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        elif self.stats == "stats":
            low, high = -extremes[:, : self.bands], extremes[:, self.bands :]
            spread = np.sqrt(np.maximum(second - mean**2, 0))
            out = np.concatenate([np.where(np.isfinite(low), low, np.nan), high, mean, spread], axis=1)
            out[~np.isfinite(out)] = np.nan
        else:
            rows, cols = np.triu_indices(self.bands)
            out = second - mean[:, rows] * mean[:, cols]
        return np.asarray(out, np.float32)


#: Sums by time step and zone: what one block brings, or several together.
_Sums = dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]


def _pooled(array: xr.DataArray, grid: GeoBox, shapes: np.ndarray, pool: _Pool) -> Any:
    """The statistics (time?, zone, …), lazy where the array is lazy: block by block, merged in a tree."""
    chunks = array.chunks or tuple((n,) for n in array.shape)
    edges = [np.concatenate(([0], np.cumsum(sizes))) for sizes in chunks]
    touched = _touched(grid, shapes, edges[-2], edges[-1])
    steps = list(chunks[:-3]) or [(1,)]
    if len(steps) > 1:
        raise EmbeddingError(f"zonal_stats takes dims (time, band, y, x); got {array.dims}")
    out = []
    for number, count in enumerate(steps[0]):
        tasks = []
        for (i, j), zones in touched.items():
            window = (slice(edges[-2][i], edges[-2][i + 1]), slice(edges[-1][j], edges[-1][j + 1]))
            block = array.isel(y=window[0], x=window[1])
            if array.ndim == 4:
                start = int(edges[0][number])
                block = block.isel({array.dims[0]: slice(start, start + count)})
            tasks.append((block, [shapes[z] for z in zones], zones))
        out.append(_pool_blocks(tasks, grid, pool, count, array.ndim == 4, array.chunks is not None))
    if array.chunks is None:
        return out[0]
    import dask.array as da

    return da.concatenate(out, axis=0) if array.ndim == 4 else out[0]


def _touched(
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


def _pool_blocks(
    tasks: list[tuple[xr.DataArray, list[Any], list[int]]],
    grid: GeoBox,
    pool: _Pool,
    count: int,
    timed: bool,
    lazy: bool,
) -> Any:
    size = (abs(grid.affine.e), abs(grid.affine.a))
    if not lazy:
        parts = [_block_sums(b.values, b.y.values, b.x.values, s, z, size, pool) for b, s, z in tasks]
        return _finish(parts, pool, count, timed)
    import dask
    import dask.array as da

    step = dask.delayed(_block_sums, pure=True)
    parts = [
        step(b.data.to_delayed(optimize_graph=False).item(), b.y.values, b.x.values, s, z, size, pool)
        for b, s, z in tasks
    ]
    merge = dask.delayed(_merge, pure=True)
    while len(parts) > 16:
        parts = [merge(parts[i : i + 16]) for i in range(0, len(parts), 16)]
    width = len(pool.labels([""] * pool.bands)) if pool.stats in ("stats", "covariance") else pool.bands
    shape = (count, pool.zones, width) if timed else (pool.zones, width)
    finish = dask.delayed(_finish, pure=True)(parts, pool, count, timed)
    return da.from_delayed(finish, shape, dtype=np.float32, meta=np.empty((0,) * len(shape), np.float32))


def _block_sums(
    data: np.ndarray,
    ys: np.ndarray,
    xs: np.ndarray,
    shapes: list[Any],
    zones: list[int],
    size: tuple[float, float],
    pool: _Pool,
) -> _Sums:
    """Sums of one block's vectors ``(time?, band, y, x)`` in each of some polygons."""
    steps = data.reshape(-1, *data.shape[-3:])
    found: _Sums = {}
    for zone, shape in zip(zones, shapes, strict=True):
        weights = polygons.coverage(shape, ys, xs, size, pool.rule)
        row, col = np.nonzero(weights)
        for step, bands in enumerate(steps):
            vectors = bands[:, row, col].T
            valid = np.isfinite(vectors.sum(axis=1))
            if valid.any():
                found[step, zone] = pool.sums(vectors[valid], weights[row[valid], col[valid]])
    return found


def _merge(parts: list[_Sums]) -> _Sums:
    merged: _Sums = {}
    for part in parts:
        for key, (sums, extremes) in part.items():
            if key in merged:
                sums, extremes = merged[key][0] + sums, np.maximum(merged[key][1], extremes)
            merged[key] = sums, extremes
    return merged


def _finish(parts: list[_Sums], pool: _Pool, count: int, timed: bool) -> np.ndarray:
    merged = _merge(parts)
    blank = pool.sums(np.zeros((1, pool.bands), np.float32), np.zeros(1))
    sums = np.zeros((count, pool.zones, blank[0].size))
    extremes = np.full((count, pool.zones, blank[1].size), -np.inf)
    for key, (own, ends) in merged.items():
        sums[key], extremes[key] = own, ends
    out = np.stack([pool.finish(s, e) for s, e in zip(sums, extremes, strict=True)])
    return np.asarray(out if timed else out[0])
