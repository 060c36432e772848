"""Patches as a raster: each cell takes the vector of the patch it lies in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoemb_xr import geometry
from geoemb_xr.model import BAND, EmbeddingError, check_band_chunk, check_embedding, say

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: Centres closer than this, in metres, are one place.
_SAME_PLACE = 1.0
#: Patches looked at for each place: more than overlap anywhere.
_NEIGHBOURS = 8
_BLOCK = 512


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
    chosen = _holding(patches, *_cell_centres(grid)).reshape(grid.shape)
    _tell_left_out(patches, chosen)
    data = _gather_grid(array, chosen)
    coords = {BAND: array.coords[BAND].values, **geometry.grid_coords(grid)}
    out = xr.DataArray(data, dims=(BAND, "y", "x"), coords=coords, name=array.name, attrs=array.attrs)
    dates = np.unique(patches.date) if patches.date is not None else np.array([], "datetime64[ns]")
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
    return _holding(_patches_of(array, "nearest_patch"), lon, lat)


# --- patches ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Patches:
    """Centres in degrees, sides in metres, dates."""

    lon: np.ndarray
    lat: np.ndarray
    side: np.ndarray
    date: np.ndarray | None

    @property
    def zone(self) -> np.ndarray:
        """UTM zone of each, negative in the south."""
        number = np.floor((self.lon + 180.0) / 6.0).astype(int) % 60 + 1
        return np.where(self.lat < 0, -number, number)


def _patches_of(array: xr.DataArray, what: str) -> _Patches:
    found = check_embedding(array, what)
    if "location" not in array.dims or "x" not in array.coords or array.coords["x"].dims != ("location",):
        raise EmbeddingError(
            f"{what} needs locations: dims ('location', 'band') with coordinates x and y; got {tuple(array.dims)}. "
            "A raster goes onto another grid with .emb.reproject(…)."
        )
    crs = geometry.crs_of(array)
    if crs is None:
        raise EmbeddingError(f"{what} needs the CRS of x and y: the array has no coordinate 'spatial_ref'")
    x, y = array.coords["x"].values, array.coords["y"].values
    lon, lat = geometry.transformer(crs, geometry.as_crs(geometry.LONLAT)).transform(x, y)
    if "patch_m" in array.coords:
        side = array.coords["patch_m"].values.astype(np.float64)
    elif found.resolution is not None and found.kind == "patch":
        side = np.full(x.size, found.resolution)
    else:
        raise EmbeddingError(
            f"{what} needs the size of a patch, which {found.name!r} does not say; give each one's side in metres: "
            "array.assign_coords(patch_m=('location', sides))"
        )
    date = array.coords["date"].values if "date" in array.coords else None
    return _Patches(np.asarray(lon), np.asarray(lat), side, date)


def _holding(patches: _Patches, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Which patch holds each place: its position, or -1.

    In the UTM zone of the patches a footprint is an upright square: a k-d tree with the largest norm finds it.
    """
    from scipy.spatial import cKDTree

    lon, lat = np.ravel(lon), np.ravel(lat)
    best = np.full(lon.size, np.inf)
    index = np.full(lon.size, -1)
    order = _one_a_place(patches)
    zones = patches.zone[order]
    for zone in np.unique(zones):
        own = order[zones == zone]
        reach = float(np.nanmax(patches.side[own], initial=0.0)) / 2
        utm = geometry.transformer(
            geometry.as_crs(geometry.LONLAT), geometry.utm_crs(abs(int(zone)), south=zone < 0)
        )
        near = _near(patches.lon[own], patches.lat[own], reach, lon, lat)
        if not near.size:
            continue
        tree = cKDTree(np.stack(utm.transform(patches.lon[own], patches.lat[own]), axis=1))
        places = np.stack(utm.transform(lon[near], lat[near], errcheck=False), axis=1)
        places = np.where(np.isfinite(places), places, 1e12)
        k = min(_NEIGHBOURS, own.size)
        # a hair more than half a side: neighbouring squares shall leave no gap between them
        distance, found = tree.query(
            places, k=range(1, k + 1), p=np.inf, distance_upper_bound=reach * (1 + 1e-6)
        )
        found = np.minimum(found, own.size - 1)
        held = distance <= patches.side[own][found] / 2 * (1 + 1e-6)
        distance = np.where(held, distance, np.inf)
        nearest = np.argmin(distance, axis=1)
        rows = np.arange(near.size)
        closer = distance[rows, nearest] < best[near]
        best[near[closer]] = distance[rows, nearest][closer]
        index[near[closer]] = own[found[rows, nearest]][closer]
    return index


def _one_a_place(patches: _Patches) -> np.ndarray:
    """Positions of one patch a place: the latest, then the first."""
    step = _SAME_PLACE / 111_320.0
    place = np.stack([np.round(patches.lon / step), np.round(patches.lat / step)])
    if patches.date is None:
        age = np.zeros(patches.lon.size, np.int64)
    else:
        age = np.where(
            np.isnat(patches.date),
            np.iinfo(np.int64).max,
            -patches.date.astype("datetime64[ns]").astype(np.int64),
        )
    order = np.lexsort((np.arange(age.size), age, place[1], place[0]))
    first = np.ones(order.size, bool)
    first[1:] = (np.diff(place[:, order], axis=1) != 0).any(axis=0)
    return np.sort(order[first])


def _near(plon: np.ndarray, plat: np.ndarray, metres: float, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Places within the box around some patches of one zone, on either side of the antimeridian."""
    dy = 2 * metres / 111_320.0
    dx = dy / max(np.cos(np.radians(np.abs(plat).max())), 0.02)
    middle = (plon.min() + plon.max()) / 2
    turned = (lon - middle + 180.0) % 360.0 - 180.0
    half = (plon.max() - plon.min()) / 2 + dx
    return np.flatnonzero((np.abs(turned) <= half) & (lat >= plat.min() - dy) & (lat <= plat.max() + dy))


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


def _tell_left_out(patches: _Patches, chosen: np.ndarray) -> None:
    shown = np.unique(chosen[chosen >= 0]).size
    if shown < patches.lon.size:
        say(
            f"to_grid shows {shown} of {patches.lon.size} patches: the others lie off the grid, or where another "
            "patch is nearer to the cell's centre or of a later date"
        )


# --- vectors ------------------------------------------------------------------------------------------------


def _gather_grid(array: xr.DataArray, chosen: np.ndarray) -> Any:
    """Vectors (band, y, x) of the chosen patches, NaN where there is none; lazy where the array is."""
    vectors = array.transpose("location", BAND)
    if vectors.chunks is None:
        return _gather([vectors.values], chosen)
    import dask
    import dask.array as da

    edges = np.cumsum([0, *vectors.chunksizes["location"]])
    blocks = vectors.data.to_delayed().ravel()
    gather = dask.delayed(_gather, pure=True)
    rows = [slice(i, i + _BLOCK) for i in range(0, chosen.shape[0], _BLOCK)]
    cols = [slice(i, i + _BLOCK) for i in range(0, chosen.shape[1], _BLOCK)]
    bands = vectors.sizes[BAND]

    def block(wanted: np.ndarray) -> Any:
        """One block of the grid, from those blocks of vectors alone that it needs."""
        source = np.searchsorted(edges, wanted, side="right") - 1
        needed = np.unique(source[wanted >= 0])
        starts = np.cumsum([0, *(edges[n + 1] - edges[n] for n in needed)])
        local = np.full(wanted.shape, -1)
        for n, start in zip(needed, starts, strict=False):
            inside = (source == n) & (wanted >= 0)
            local[inside] = wanted[inside] - edges[n] + start
        given = [blocks[n] for n in needed] or [np.empty((0, bands), vectors.dtype)]
        return da.from_delayed(gather(given, local), (bands, *wanted.shape), dtype=vectors.dtype)

    return da.block([[block(chosen[r, c]) for c in cols] for r in rows])


def _gather(blocks: list[np.ndarray], chosen: np.ndarray) -> np.ndarray:
    """Vectors (band, y, x) by position in the blocks' rows; band last in memory, as kernels take it."""
    vectors = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    out = np.full((*chosen.shape, vectors.shape[1]), np.nan, vectors.dtype)
    there = chosen >= 0
    out[there] = vectors[chosen[there]]
    return np.moveaxis(out, -1, 0)
