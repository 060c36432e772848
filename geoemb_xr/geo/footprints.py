"""Which patch lies where: footprints of vectors along ``location``, looked up by place."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import pyproj
import shapely
import xarray as xr

from geoemb_xr.core import areas, geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.geometry import METRES_PER_DEGREE
from geoemb_xr.core.model import product
from geoemb_xr.execution.computing import computed
from geoemb_xr.geo import places, polygons

#: Centres closer than this, in metres, are one place.
_SAME_PLACE = 1.0
#: Patches looked at for each place: more than overlap anywhere.
_NEIGHBOURS = 8
#: Places looked up at once.
_BATCH = 1 << 17


def nearest_patch(array: xr.DataArray, points: Any, *, what: str = "nearest_patch") -> np.ndarray:
    """Position along ``location`` of the patch whose footprint holds each point; -1 where none does.

    Of several the nearest centre, of several vectors at one place the one of the latest date, then the first. A
    footprint is a square in the UTM zone of its centre, as in :func:`to_grid`.

    Parameters
    ----------
    array : DataArray (location, band)
        Vectors of patches.
    points : pairs, shapely points, GeoDataFrame, table, dict, GeoJSON, path or array of points
        Numbers without a CRS are longitude and latitude.
    what : str
        Name of the caller, for errors.

    Returns
    -------
    ndarray of int (n,)

    Raises
    ------
    EmbeddingError
        If it is not an array of locations, or nobody says how large a patch is.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> patches = gx.open("earth-index", gx.example("earth-index"))
    >>> here = [(float(patches.x[7]), float(patches.y[7])), (0.0, 0.0)]
    >>> nearest_patch(patches, here).tolist()
    [7, -1]
    """
    lon, lat = places.points_xy(points, geometry.LONLAT)
    patches = patches_of(array, what)
    return holding(patches.take(one_per_place(patches)), lon, lat)


def patches_in(array: xr.DataArray, given: places.Places, rule: Literal["centre", "touched"]) -> np.ndarray:
    """Positions along ``location`` of points in polygons, or of patches whose centre, or footprint, is.

    Parameters
    ----------
    array : DataArray (location, …)
        Points or patches, with ``x``, ``y`` and a CRS. Lazy places are read.
    given : Places
        Polygons; or points, which a footprint holds.
    rule : {"centre", "touched"}
        Whether the centre lies in a polygon (an edge belongs to both sides), or any of the footprint does.

    Raises
    ------
    EmbeddingError
        If the array has no CRS.
    """
    crs = geometry.crs_of(array)
    if crs is None:
        raise EmbeddingError("this needs the CRS of x and y: the array has no coordinate 'spatial_ref'")
    if rule == "touched" and has_footprints(array):
        squares = squares_of(patches_of(array, "crop"), crs)
    else:
        at = computed(array.coords.to_dataset()[["x", "y"]])
        squares = shapely.points(at["x"].values, at["y"].values)
    if given.points is not None and has_footprints(array):
        shape: Any = shapely.multipoints(np.column_stack(given.xy(crs)))
    else:
        shape = polygons.union(given.polygons(crs))
    if crs.is_geographic and len(squares):
        shape = polygons.around_the_world(shape, tuple(shapely.total_bounds(squares)))
    shapely.prepare(shape)
    return np.flatnonzero(shapely.intersects(shape, squares))


def squares_of(patches: Patches, crs: pyproj.CRS) -> np.ndarray:
    """Footprints as polygons in a CRS, (n,); in degrees x runs on past 180 where one crosses the antimeridian."""
    squares = np.empty(patches.lon.size, dtype=object)
    zones = patches.zone
    for zone in np.unique(zones):
        own = zones == zone
        utm = geometry.utm_crs(abs(int(zone)), south=bool(zone < 0))
        to_utm = geometry.transformer(geometry.as_crs(geometry.LONLAT), utm)
        x, y = (np.asarray(v) for v in to_utm.transform(patches.lon[own], patches.lat[own]))
        half = patches.side[own] / 2
        squares[own] = polygons.projected(shapely.box(x - half, y - half, x + half, y + half), utm, crs)
    return squares


def bounds(array: xr.DataArray) -> areas.Bounds:
    """West, south, east and north of what an array covers, in its CRS: the outer edges of pixels, or of places.

    Parameters
    ----------
    array : DataArray (…, y, x) or (location, …)
        Array with a CRS. Of patches the footprints count; a grid in degrees may run past 180.

    Raises
    ------
    EmbeddingError
        If nothing says where the array is, or it has no place.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> gx.testing.synthetic("alphaearth", shape=(8, 4)).emb.bounds
    (679310.0, 5235630.0, 679350.0, 5235710.0)
    """
    if "location" not in array.dims:
        box = geometry.geobox_of(array, "bounds").boundingbox
        return (box.left, box.bottom, box.right, box.top)
    crs = geometry.crs_of(array)
    if crs is None or not {"x", "y"} <= set(array.coords):
        raise EmbeddingError("bounds needs x, y and a CRS along 'location'")
    if has_footprints(array):
        found = shapely.total_bounds(squares_of(patches_of(array, "bounds"), crs))
    else:
        x, y = (np.asarray(array.coords[d].values, np.float64) for d in ("x", "y"))
        found = shapely.total_bounds(shapely.points(x, y))
    if not np.isfinite(found).all():
        raise EmbeddingError("none of the locations has a place")
    west, south, east, north = found.tolist()
    return west, south, east, north


def has_footprints(array: xr.DataArray) -> bool:
    """Whether an array along ``location`` holds patches, whose size is known, and not mere points."""
    side = _sides(array) if "location" in array.dims else None
    return side is not None and bool((np.asarray(side) > 0).any())


def _sides(array: xr.DataArray) -> Any:
    """Sides of patches in metres, one each or one for all; None where nobody says. A point has 0."""
    if "patch_m" in array.coords:
        return array.coords["patch_m"].values.astype(np.float64)
    name = array.attrs.get("product") or str(array.attrs.get("derived_from", "")).partition(" ")[0]
    found = product(name) if name else None
    return found.resolution if found is not None and found.kind == "patch" else None


# --- patches ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Patches:
    """Centres in degrees, sides in metres, dates, and positions along ``location``."""

    lon: np.ndarray
    lat: np.ndarray
    side: np.ndarray
    date: np.ndarray
    row: np.ndarray

    def take(self, chosen: np.ndarray) -> Patches:
        """Some of them."""
        return Patches(*(getattr(self, each.name)[chosen] for each in fields(self)))

    @property
    def zone(self) -> np.ndarray:
        """UTM zone of each, negative in the south."""
        number = np.floor((self.lon + 180.0) / 6.0).astype(int) % 60 + 1
        return np.where(self.lat < 0, -number, number)


def patches_of(array: xr.DataArray, what: str) -> Patches:
    """Patches of an array of locations; lazy places are read."""
    names = [name for name in ("x", "y", "date", "patch_m") if name in array.coords]
    if "location" not in array.dims or any(array.coords[name].dims != ("location",) for name in names):
        raise EmbeddingError(
            f"{what} needs locations: dims ('location', 'band') with coordinates x and y; got {tuple(array.dims)}. "
            "A raster goes onto another grid with .emb.reproject(…)."
        )
    crs = geometry.crs_of(array)
    if crs is None:
        raise EmbeddingError(f"{what} needs the CRS of x and y: the array has no coordinate 'spatial_ref'")
    places = computed(array.coords.to_dataset()[names])  # one read where places are lazy
    x, y = places["x"].values, places["y"].values
    lon, lat = geometry.transformer(crs, geometry.as_crs(geometry.LONLAT)).transform(x, y)
    side = _sides(array)
    if side is None:
        name = array.attrs.get("product")
        who = "nothing says" if name is None else f"{name!r} does not say"
        give = "give each one's side in metres: array.assign_coords(patch_m=('location', sides))"
        if name is not None and product(name).kind == "pixel":
            raise EmbeddingError(
                f"{what} looks for the patch that holds each place, and these locations are single pixels of "
                f"{name!r}: use the raster, or {give}"
            )
        raise EmbeddingError(f"{what} needs the size of a patch, which {who}; {give}")
    side = np.broadcast_to(side, x.shape)
    date = places["date"].values if "date" in places else np.full(x.size, np.datetime64("NaT", "ns"))
    return Patches(np.asarray(lon), np.asarray(lat), side, date, np.arange(x.size))


def one_per_place(patches: Patches) -> np.ndarray:
    """Positions of one patch per place: the latest, then the first."""
    step = _SAME_PLACE / METRES_PER_DEGREE
    x, y = np.round(patches.lon / step), np.round(patches.lat / step)
    age = -patches.date.astype("datetime64[ns]").astype(np.int64)
    age[np.isnat(patches.date)] = np.iinfo(np.int64).max
    order = np.lexsort((patches.row, age, y, x))
    first = np.ones(order.size, bool)
    first[1:] = (np.diff(x[order]) != 0) | (np.diff(y[order]) != 0)
    return np.sort(order[first])


def holding(patches: Patches, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
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
    own: Patches, zone: int, lon: np.ndarray, lat: np.ndarray, index: np.ndarray, best: np.ndarray
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


def _near(own: Patches, metres: float, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Places within the box around some patches of one zone, on either side of the antimeridian."""
    if not own.lon.size:
        return np.array([], int)
    dy = 2 * metres / METRES_PER_DEGREE
    dx = dy / max(np.cos(np.radians(np.abs(own.lat).max())), 0.02)
    middle, half = (own.lon.min() + own.lon.max()) / 2, (own.lon.max() - own.lon.min()) / 2 + dx
    across = np.abs((lon - middle + 180.0) % 360.0 - 180.0) <= half
    return np.flatnonzero(across & (lat >= own.lat.min() - dy) & (lat <= own.lat.max() + dy))
