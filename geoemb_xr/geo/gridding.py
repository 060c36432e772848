"""Patches as a raster: each cell takes the vector of the patch it lies in."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoemb_xr.core import areas, geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.geometry import METRES_PER_DEGREE
from geoemb_xr.core.model import BAND, check_band_chunk
from geoemb_xr.core.notes import say
from geoemb_xr.geo.footprints import Patches, has_footprints, holding, one_per_place, patches_of

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: Bytes of vectors in a block of the grid.
_BLOCK_BYTES = 64 << 20


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
        If it is not an array of locations, or nobody says how large a patch is.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> patches = gx.open("earth-index", gx.example("earth-index"))
    >>> patches.sizes["location"]
    440
    >>> patches.emb.to_grid().sizes
    Frozen({'time': 1, 'band': 384, 'y': 20, 'x': 22})
    """
    patches = patches_of(array, "to_grid")
    check_band_chunk(array, "to_grid")
    grid = _default_grid(patches, resolution) if geobox is None else geometry.north_up(geobox)
    shown = one_per_place(patches)
    if shown.size < patches.lon.size:
        left = patches.lon.size - shown.size
        say(
            f"to_grid leaves out {left} of {patches.lon.size} patches: others at their place are later, or first"
        )
    data = _fill(array.transpose("location", BAND), patches.take(shown), grid)
    coords = {BAND: array.coords[BAND].values, **geometry.grid_coords(grid)}
    out = xr.DataArray(data, dims=(BAND, "y", "x"), coords=coords, name=array.name, attrs=array.attrs)
    dates = np.unique(patches.date)
    return out.expand_dims(time=dates) if dates.size == 1 and not np.isnat(dates[0]) else out


def as_raster(array: xr.DataArray, what: str) -> xr.DataArray:
    """Patches on their own grid, as :func:`to_grid` places them; a raster as it is.

    Raises
    ------
    EmbeddingError
        If it is neither.
    """
    if "location" in array.dims and has_footprints(array):
        return to_grid(array)
    geometry.geobox_of(array, what)
    return array


# --- the grid -----------------------------------------------------------------------------------------------


def _default_grid(patches: Patches, resolution: float | tuple[float, float] | None) -> GeoBox:
    """A grid over all patches in the zone of most, in phase with their lattice."""
    from affine import Affine

    if not patches.lon.size:
        raise EmbeddingError("to_grid got no patches, so their grid is unknown; give geobox=")
    zones, counts = np.unique(patches.zone, return_counts=True)
    zone = int(zones[np.argmax(counts)])
    crs = geometry.utm_crs(abs(zone), south=zone < 0)
    side = float(np.nanmedian(patches.side))
    dx, dy = areas.check_resolution(side if resolution is None else resolution, crs)
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


def _fill(vectors: xr.DataArray, patches: Patches, grid: GeoBox) -> Any:
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


def _touching(patches: Patches, window: GeoBox) -> np.ndarray:
    """Patches that may hold a cell of a window, in the order of their rows."""
    reach = float(np.nanmax(patches.side, initial=0.0))
    dy = reach / METRES_PER_DEGREE
    hit = np.zeros(patches.lon.size, bool)
    for west, south, east, north in areas.area_of(window).lonlat():
        dx = dy / max(math.cos(math.radians(min(max(abs(south), abs(north)) + dy, 90.0))), 0.02)
        middle, half = (west + east) / 2, (east - west) / 2 + dx
        across = np.abs((patches.lon - middle + 180.0) % 360.0 - 180.0) <= half
        hit |= across & (patches.lat >= south - dy) & (patches.lat <= north + dy)
    return np.flatnonzero(hit)


def _fill_block(blocks: list[np.ndarray], patches: Patches, window: GeoBox, bands: int) -> np.ndarray:
    """One block of the grid; band last in memory, as kernels take it."""
    chosen = holding(patches, *_cell_centres(window)).reshape(window.shape)
    out = np.full((*chosen.shape, bands), np.nan, np.float32)
    if blocks:
        vectors = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        out[chosen >= 0] = vectors[chosen[chosen >= 0]]
    return np.moveaxis(out, -1, 0)
