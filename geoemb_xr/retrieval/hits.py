"""Places of hits, the distances between them, and their coordinates from the arrays."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyproj
import shapely
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.geometry import EARTH_RADIUS, METRES_PER_DEGREE
from geoemb_xr.core.model import BAND, attribution_of
from geoemb_xr.execution.reads import values_at
from geoemb_xr.geo import footprints, ground, polygons
from geoemb_xr.retrieval.best import Best


def dims_of(array: xr.DataArray) -> list[Hashable]:
    """Dimensions beside ``band``, in the order in which positions count."""
    return [d for d in ("time", "location", "y", "x") if d in array.dims]


def in_order(array: xr.DataArray) -> xr.DataArray:
    """Bring dimensions into one order, so that ties are broken alike for transposed arrays."""
    rest = dims_of(array)
    if rest == [d for d in array.dims if d != BAND]:
        return array
    return (
        array.transpose(*rest, BAND) if array.dims[-1] == BAND else array.transpose(rest[0], BAND, *rest[1:])
    )


def _by_array(
    many: Sequence[xr.DataArray], positions: np.ndarray
) -> Iterator[tuple[int, xr.DataArray, np.ndarray, dict[Hashable, np.ndarray]]]:
    """Return which hits lie in each array, and where in it."""
    first = 0
    for i, array in enumerate(many):
        dims = dims_of(array)
        shape = tuple(array.sizes[d] for d in dims)
        size = int(np.prod(shape, dtype=np.int64))
        rows = np.flatnonzero((positions >= first) & (positions < first + size))
        if rows.size:
            places = np.unravel_index(positions[rows] - first, shape)
            yield i, array, rows, dict(zip(dims, places, strict=True))
        first += size


def _xy(array: xr.DataArray, where: dict[Hashable, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    at = {name: where.get("location", where.get(name)) for name in ("x", "y")}
    if any(rows is None or name not in array.coords for name, rows in at.items()):
        return None
    if "location" in where:
        return _xy_of(values_at({name: array.coords[name] for name in at}, where["location"]))
    x, y = (np.asarray(array.coords[name].values[rows], np.float64) for name, rows in at.items())
    return x, y


def _xy_of(found: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(found["x"].values, np.float64), np.asarray(found["y"].values, np.float64)


# --- distances ----------------------------------------------------------------------------------------------------


def centres_of(many: Sequence[xr.DataArray], positions: np.ndarray) -> np.ndarray:
    """Centres of pixels and patches (n, 3), in metres from the centre of the Earth."""
    centres = np.empty((positions.size, 3))
    for _, array, rows, where in _by_array(many, positions):
        crs, xy = geometry.crs_of(array), _xy(array, where)
        if crs is None or xy is None:
            raise EmbeddingError(
                "distances between hits need x, y and a CRS, which the array has not; leave min_distance out and "
                "set exclude_query=False"
            )
        centres[rows] = ground.geocentric(crs, *xy).T
    return centres


def spaced_rows(centres: np.ndarray, taken: Sequence[tuple[np.ndarray, float]], k: int) -> np.ndarray:
    """Rows of up to k centres in order, each far enough from those taken before it.

    Parameters
    ----------
    centres : ndarray (n, 3)
        In the order in which they are chosen.
    taken : sequence of (ndarray (m, 3), float)
        Centres that are kept away from, and by how many metres; the last distance holds among the chosen too.
    k : int
        Largest number of hits.
    """
    from scipy.spatial import cKDTree

    alive = np.isfinite(centres).all(axis=1)
    for others, metres in taken:
        if len(others) and metres and alive.any():
            reach = _chord(metres)
            rows = np.flatnonzero(alive)
            near, _ = cKDTree(others).query(centres[rows], distance_upper_bound=reach)
            alive[rows[near < reach]] = False
    reach = _chord(taken[-1][1])
    chosen: list[int] = []
    while len(chosen) < k and alive.any():
        row = int(alive.argmax())
        chosen.append(row)
        alive[row] = False
        if reach:
            alive[row:] &= np.linalg.norm(centres[row:] - centres[row], axis=1) >= reach
    return np.array(chosen, np.int64)


def _chord(metres: float) -> float:
    """The straight line between two places so many metres apart; a hair less, as centres are rounded."""
    return 2 * EARTH_RADIUS * float(np.sin(min(metres / (2 * EARTH_RADIUS), np.pi / 2))) * (1 - 1e-9)


def pixel_metres(array: xr.DataArray) -> float:
    """Approximate width of a pixel or patch in metres; infinite where it is not known."""
    if "location" in array.dims:
        found = (
            footprints.patches_of(array, "search").side
            if footprints.has_footprints(array)
            else np.array([0.0])
        )
        side = float(np.nanmin(found[found > 0], initial=np.inf))
        return side
    grid = geometry.geobox_of(array, "search")
    unit = METRES_PER_DEGREE if geometry.as_crs(grid.crs).is_geographic else 1.0
    return float(np.sqrt(abs(grid.affine.determinant))) * unit


# --- the table ----------------------------------------------------------------------------------------------------


def hits_table(
    many: Sequence[xr.DataArray], best: Best, metric: str, labels: np.ndarray | None, names: list[Any] | None
) -> pd.DataFrame:
    """Return a table of what is known of the hits, one row per hit, in their order.

    Parameters
    ----------
    many : sequence of DataArray
        Positions count through all of them.
    best : Best
        The hits.
    metric : str
        Meaning of the scores.
    labels : ndarray, optional
        Names of the queries.
    names : list, optional
        Names of the arrays.
    """
    crs = _common_crs(many)
    parts = []
    for i, array, rows, where in _by_array(many, best.positions):
        columns: dict[str, Any] = {} if labels is None else {"query": labels[best.query[rows]]}
        if names is not None:
            columns["array"] = [names[i]] * rows.size
        scores = best.scores[rows]
        columns |= {"similarity": scores} if metric == "cosine" else {"distance": -scores}
        parts.append(pd.DataFrame(columns | _columns_of(array, where, crs), index=rows))
    found = pd.concat(parts).sort_index()
    attribution = attribution_of(many[0])
    if crs is not None and "geometry" in found:
        found = _with_geometry(found, crs)
    found.attrs |= {"attribution": attribution} if attribution else {}
    return found


def _common_crs(many: Sequence[xr.DataArray]) -> pyproj.CRS | None:
    """The CRS of footprints: that of all arrays, degrees where they differ, None where one has none."""
    found = [geometry.crs_of(each) for each in many]
    if any(each is None for each in found):
        return None
    same = all(geometry.same_crs(found[0], each) for each in found)
    return found[0] if same else geometry.as_crs(geometry.LONLAT)


def _columns_of(
    array: xr.DataArray, where: dict[Hashable, np.ndarray], target: pyproj.CRS | None
) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    riding = {n: each for n, each in array.coords.items() if each.dims == ("location",) and n != "location"}
    rows = values_at(riding, where["location"]) if riding else xr.Dataset()
    xy, crs = _xy_of(rows) if "x" in rows and "y" in rows else _xy(array, where), geometry.crs_of(array)
    if xy is not None:
        if crs is not None:
            to_lonlat = geometry.transformer(crs, geometry.as_crs(geometry.LONLAT))
            columns["lon"], columns["lat"] = to_lonlat.transform(*xy)
        columns["x"], columns["y"] = xy
    for dim in ("time", "location"):
        if dim in where and dim in array.coords:
            columns[dim] = array.coords[dim].values[where[dim]]
    columns |= {str(name): each.values for name, each in rows.items() if name not in columns}
    if xy is not None and crs is not None and target is not None:
        own = array if "location" not in where else _with_known_coords(array, rows, where["location"])
        columns["geometry"] = polygons.projected(_shapes(own, where, xy), crs, target)
    return columns


def _with_known_coords(array: xr.DataArray, known: xr.Dataset, rows: np.ndarray) -> xr.DataArray:
    """Hits of an array with the coordinates that were read for them; those of other patches are not read."""
    lazy = [name for name in known.variables if name in array.coords]
    hits = array.drop_vars(lazy).isel({"location": rows, "time": 0}, missing_dims="ignore")
    return hits.assign_coords(known.variables)


def _shapes(
    array: xr.DataArray, where: dict[Hashable, np.ndarray], xy: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Footprints of hits in the array's CRS: squares of pixels and patches, else points. Patches are hits alone."""
    x, y = xy
    crs = geometry.crs_of(array)
    assert crs is not None
    if "location" not in where:
        affine = geometry.geobox_of(array, "search").affine
        dx, dy = abs(affine.a) / 2, abs(affine.e) / 2
        return np.asarray(shapely.box(x - dx, y - dy, x + dx, y + dy), dtype=object)
    if footprints.has_footprints(array):
        squares = footprints.squares_of(footprints.patches_of(array, "search"), crs)
        return polygons.cut_at_180(squares) if crs.is_geographic else squares
    return np.asarray(shapely.points(x, y), dtype=object)


def _with_geometry(found: pd.DataFrame, crs: pyproj.CRS) -> pd.DataFrame:
    """A GeoDataFrame, where geopandas is installed; else without shapes."""
    shapes = found.pop("geometry")
    try:
        import geopandas
    except ImportError:
        return found
    frame: pd.DataFrame = geopandas.GeoDataFrame(found, geometry=list(shapes), crs=crs)
    return frame
