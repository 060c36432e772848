"""Patches as a raster: each cell takes the vector of the patch it lies in."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoemb_xr import geometry
from geoemb_xr.model import BAND, EmbeddingError, check_band_chunk, check_embedding, say

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: Centres closer than this, in metres, are one place.
_SAME_PLACE = 1.0
_METRES_PER_DEGREE = 111_320.0
#: Patches looked at for each place: more than overlap anywhere.
_NEIGHBOURS = 8
#: Bytes of vectors in a block of the grid.
_BLOCK_BYTES = 64 << 20
#: Places looked up at once.
_BATCH = 1 << 17


def to_grid(
    array: xr.DataArray,
    *,
    resolution: float | tuple[float, float] | None = None,
    geobox: GeoBox | None = None,
) -> xr.DataArray:
    """Patches as a raster: each cell takes the vector of the patch whose footprint holds the cell's centre. Lazy.

    Vectors are placed, never averaged. Where several footprints hold a cell's centre, the patch with the nearest
    centre wins; of several vectors at one place, the one of the latest date, then the first. Cells outside all
    footprints are missing (NaN). A footprint is a square of the product's patch size, or of the coordinate
    ``patch_m`` where patches differ, in the UTM zone of its centre.

    Parameters
    ----------
    array : DataArray (location, band)
        Vectors of patches, with ``x``, ``y`` and a CRS. Lazy places are read; vectors are not.
    resolution : float or (float, float), optional
        Cell size in metres; the size of a patch by default.
    geobox : GeoBox, optional
        Any target grid. By default one in the UTM zone that most patches lie in, its cells centred on the patches
        as well as a regular grid can be.

    Returns
    -------
    DataArray (time?, band, y, x)
        ``time`` where all patches have the same date.

    Raises
    ------
    EmbeddingError
        If it is no array of locations, or nobody says how large a patch is.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> patches = gx.open("earth-index", gx.example("earth-index"))
    >>> patches.sizes["location"]
    440
    >>> patches.emb.to_grid().sizes
    Frozen({'time': 1, 'band': 384, 'y': 20, 'x': 22})
    """
    patches = _patches_of(array, "to_grid")
    check_band_chunk(array, "to_grid")
    grid = _default_grid(patches, resolution) if geobox is None else geometry.north_up(geobox)
    shown = _one_a_place(patches)
    if shown.size < patches.lon.size:
        left = patches.lon.size - shown.size
        say(
            f"to_grid leaves out {left} of {patches.lon.size} patches: at their place another is later, or first"
        )
    data = _fill(array.transpose("location", BAND), patches.take(shown), grid)
    coords = {BAND: array.coords[BAND].values, **geometry.grid_coords(grid)}
    out = xr.DataArray(data, dims=(BAND, "y", "x"), coords=coords, name=array.name, attrs=array.attrs)
    dates = np.unique(patches.date)
    return out.expand_dims(time=dates) if dates.size == 1 and not np.isnat(dates[0]) else out


def nearest_patch(array: xr.DataArray, points: Any) -> np.ndarray:
    """Position along ``location`` of the patch whose footprint holds each point; -1 where none does.

    Of several the nearest centre, of several vectors at one place the one of the latest date, then the first. A
    footprint is a square in the UTM zone of its centre, as in :func:`to_grid`.

    Parameters
    ----------
    array : DataArray (location, band)
        Vectors of patches.
    points : GeoDataFrame, table with lon and lat, or array of shape (n, 2)
        Numbers without a CRS are longitude and latitude.

    Returns
    -------
    ndarray of int (n,)

    Raises
    ------
    EmbeddingError
        If it is no array of locations, or nobody says how large a patch is.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> patches = gx.open("earth-index", gx.example("earth-index"))
    >>> here = [(float(patches.x[7]), float(patches.y[7])), (0.0, 0.0)]
    >>> nearest_patch(patches, here).tolist()
    [7, -1]
    """
    lon, lat = geometry.points_xy(points, geometry.LONLAT)
    patches = _patches_of(array, "nearest_patch")
    return _holding(patches.take(_one_a_place(patches)), lon, lat)


# --- patches ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Patches:
    """Centres in degrees, sides in metres, dates, and positions along ``location``."""

    lon: np.ndarray
    lat: np.ndarray
    side: np.ndarray
    date: np.ndarray
    row: np.ndarray

    def take(self, chosen: np.ndarray) -> _Patches:
        return _Patches(*(getattr(self, each.name)[chosen] for each in fields(self)))

    @property
    def zone(self) -> np.ndarray:
        """UTM zone of each, negative in the south."""
        number = np.floor((self.lon + 180.0) / 6.0).astype(int) % 60 + 1
        return np.where(self.lat < 0, -number, number)


def _patches_of(array: xr.DataArray, what: str) -> _Patches:
    found = check_embedding(array, what)
    names = [name for name in ("x", "y", "date", "patch_m") if name in array.coords]
    if "location" not in array.dims or any(array.coords[name].dims != ("location",) for name in names):
        raise EmbeddingError(
            f"{what} needs locations: dims ('location', 'band') with coordinates x and y; got {tuple(array.dims)}. "
            "A raster goes onto another grid with .emb.reproject(…)."
        )
    crs = geometry.crs_of(array)
    if crs is None:
        raise EmbeddingError(f"{what} needs the CRS of x and y: the array has no coordinate 'spatial_ref'")
    places = array.coords.to_dataset()[names].compute()  # one read where places are lazy
    x, y = places["x"].values, places["y"].values
    lon, lat = geometry.transformer(crs, geometry.as_crs(geometry.LONLAT)).transform(x, y)
    if "patch_m" in places:
        side = places["patch_m"].values.astype(np.float64)
    elif found.resolution is not None and found.kind == "patch":
        side = np.full(x.size, found.resolution)
    else:
        raise EmbeddingError(
            f"{what} needs the size of a patch, which {found.name!r} does not say; give each one's side in metres: "
            "array.assign_coords(patch_m=('location', sides))"
        )
    date = places["date"].values if "date" in places else np.full(x.size, np.datetime64("NaT", "ns"))
    return _Patches(np.asarray(lon), np.asarray(lat), side, date, np.arange(x.size))


def _one_a_place(patches: _Patches) -> np.ndarray:
    """Positions of one patch a place: the latest, then the first."""
    step = _SAME_PLACE / _METRES_PER_DEGREE
    x, y = np.round(patches.lon / step), np.round(patches.lat / step)
    age = -patches.date.astype("datetime64[ns]").astype(np.int64)
    age[np.isnat(patches.date)] = np.iinfo(np.int64).max
    order = np.lexsort((patches.row, age, y, x))
    first = np.ones(order.size, bool)
    first[1:] = (np.diff(x[order]) != 0) | (np.diff(y[order]) != 0)
    return np.sort(order[first])


def _holding(patches: _Patches, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Which patch holds each place: its row, or -1."""
    lon, lat = np.ravel(lon), np.ravel(lat)
    index = np.full(lon.size, -1)
    zones = patches.zone
    for start in range(0, lon.size, _BATCH):
        part = slice(start, start + _BATCH)
        best = np.full(lon[part].size, np.inf)
        for zone in np.unique(zones):
            _look_up(patches.take(zones == zone), int(zone), lon[part], lat[part], index[part], best)
    return index


def _look_up(
    own: _Patches, zone: int, lon: np.ndarray, lat: np.ndarray, index: np.ndarray, best: np.ndarray
) -> None:
    """Write the rows of one zone's patches into ``index`` where they are nearer than ``best``.

    In the zone's own CRS a footprint is an upright square: a k-d tree with the largest norm finds it.
    """
    from scipy.spatial import cKDTree

    reach = float(np.nanmax(own.side, initial=0.0)) / 2
    near = _near(own, reach, lon, lat)
    if not near.size:
        return
    utm = geometry.transformer(geometry.as_crs(geometry.LONLAT), geometry.utm_crs(abs(zone), south=zone < 0))
    tree = cKDTree(np.stack(utm.transform(own.lon, own.lat), axis=1))
    places = np.stack(utm.transform(lon[near], lat[near], errcheck=False), axis=1)
    places[~np.isfinite(places)] = 1e12  # near nothing
    k = range(1, min(_NEIGHBOURS, own.lon.size) + 1)
    # a hair more than half a side: neighbouring squares shall leave no gap between them
    limit = reach * (1 + 1e-6)
    distance, found = tree.query(places, k=k, p=np.inf, distance_upper_bound=limit)
    found = np.minimum(found, own.lon.size - 1)
    distance = np.where(distance <= own.side[found] / 2 * (1 + 1e-6), np.round(distance, 3), np.inf)
    nearest = distance.min(axis=1)
    first = np.where(distance == nearest[:, None], own.row[found], np.iinfo(np.int64).max).min(axis=1)
    closer = nearest < best[near]
    index[near[closer]], best[near[closer]] = first[closer], nearest[closer]


def _near(own: _Patches, metres: float, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Places within the box around some patches of one zone, on either side of the antimeridian."""
    if not own.lon.size:
        return np.array([], int)
    dy = 2 * metres / _METRES_PER_DEGREE
    dx = dy / max(np.cos(np.radians(np.abs(own.lat).max())), 0.02)
    middle, half = (own.lon.min() + own.lon.max()) / 2, (own.lon.max() - own.lon.min()) / 2 + dx
    across = np.abs((lon - middle + 180.0) % 360.0 - 180.0) <= half
    return np.flatnonzero(across & (lat >= own.lat.min() - dy) & (lat <= own.lat.max() + dy))


# --- the grid -----------------------------------------------------------------------------------------------


def _default_grid(patches: _Patches, resolution: float | tuple[float, float] | None) -> GeoBox:
    """A grid over all patches in the zone of most, in phase with their lattice."""
    from affine import Affine

    if not patches.lon.size:
        raise EmbeddingError("to_grid got no patches, so that no grid can be told; give geobox=")
    zones, counts = np.unique(patches.zone, return_counts=True)
    zone = int(zones[np.argmax(counts)])
    crs = geometry.utm_crs(abs(zone), south=zone < 0)
    side = float(np.nanmedian(patches.side))
    dx, dy = geometry.check_resolution(side if resolution is None else resolution, crs)
    to_utm = geometry.transformer(geometry.as_crs(geometry.LONLAT), crs)
    x, y = (np.asarray(v) for v in to_utm.transform(patches.lon, patches.lat))
    left, columns = _span(x, dx, side)
    bottom, rows = _span(y, dy, side)
    return geometry.make_geobox((rows, columns), Affine(dx, 0, left, 0, -dy, bottom + rows * dy), crs)


def _span(centres: np.ndarray, step: float, side: float) -> tuple[float, int]:
    """First edge and count of cells: in phase with the centres where cells are patches, else on multiples."""
    phase = 0.0
    if step == side:
        turn = np.exp(2j * np.pi * (centres / step - 0.5)).mean()
        phase = float(np.round(np.angle(turn) / (2 * np.pi) * step, 3))
    low, high = centres.min() - side / 2, centres.max() + side / 2
    first = np.floor((low - phase) / step + 1e-3)
    last = np.ceil((high - phase) / step - 1e-3)
    return float(first * step + phase), max(int(last - first), 1)


def _cell_centres(grid: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude of every cell's centre."""
    coords = geometry.grid_coords(grid)
    x, y = np.meshgrid(coords["x"].values, coords["y"].values)
    to_lonlat = geometry.transformer(geometry.as_crs(grid.crs), geometry.as_crs(geometry.LONLAT))
    lon, lat = to_lonlat.transform(x, y, errcheck=False)
    return np.asarray(lon), np.asarray(lat)


# --- vectors ------------------------------------------------------------------------------------------------


def _fill(vectors: xr.DataArray, patches: _Patches, grid: GeoBox) -> Any:
    """Vectors (band, y, x) on a grid, NaN outside all patches; a lazy block reads those blocks it needs alone."""
    bands = vectors.sizes[BAND]
    side = max(32, int(math.sqrt(_BLOCK_BYTES / (4 * bands))))
    rows, cols = (_slices(size, side) for size in grid.shape)
    windows = {(i, j): grid[r, c] for i, r in enumerate(rows) for j, c in enumerate(cols)}
    if vectors.chunks is None:
        out = np.empty((*grid.shape, bands), vectors.dtype)
        for (i, j), window in windows.items():
            out[rows[i], cols[j]] = np.moveaxis(_fill_block([vectors.values], patches, window, bands), 0, -1)
        return np.moveaxis(out, -1, 0)
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    source = vectors.data
    edges = np.cumsum([0, *source.chunks[0]])
    name = f"to-grid-{tokenize(source.name, patches, tuple(grid.shape), tuple(grid.affine), str(grid.crs))}"
    graph = {}
    for (i, j), window in windows.items():
        near = patches.take(_touching(patches, window))
        block = np.searchsorted(edges, near.row, side="right") - 1
        needed = np.unique(block)
        starts = np.cumsum([0, *np.diff(edges)[needed]])[:-1]
        local = near.row - edges[block] + starts[np.searchsorted(needed, block)]
        keys = [(source.name, int(n), 0) for n in needed]
        graph[(name, 0, i, j)] = (_fill_block, keys, replace(near, row=local), window, bands)
    chunks = ((bands,), tuple(r.stop - r.start for r in rows), tuple(c.stop - c.start for c in cols))
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[source])
    return da.Array(layers, name, chunks, dtype=vectors.dtype)


def _slices(size: int, step: int) -> list[slice]:
    return [slice(i, min(i + step, size)) for i in range(0, size, step)]


def _touching(patches: _Patches, window: GeoBox) -> np.ndarray:
    """Patches that may hold a cell of a window, in the order of their rows."""
    reach = float(np.nanmax(patches.side, initial=0.0))
    dy = reach / _METRES_PER_DEGREE
    hit = np.zeros(patches.lon.size, bool)
    for west, south, east, north in geometry.area_of(window).lonlat():
        dx = dy / max(math.cos(math.radians(min(max(abs(south), abs(north)) + dy, 90.0))), 0.02)
        middle, half = (west + east) / 2, (east - west) / 2 + dx
        across = np.abs((patches.lon - middle + 180.0) % 360.0 - 180.0) <= half
        hit |= across & (patches.lat >= south - dy) & (patches.lat <= north + dy)
    return np.flatnonzero(hit)


def _fill_block(blocks: list[np.ndarray], patches: _Patches, window: GeoBox, bands: int) -> np.ndarray:
    """One block of the grid; band last in memory, as kernels take it."""
    chosen = _holding(patches, *_cell_centres(window)).reshape(window.shape)
    out = np.full((*chosen.shape, bands), np.nan, np.float32)
    if blocks:
        vectors = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        out[chosen >= 0] = vectors[chosen[chosen >= 0]]
    return np.moveaxis(out, -1, 0)
