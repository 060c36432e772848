"""From places to rows and columns: the one way for points and polygons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
from geoemb_xr.core.geometry import LONLAT, SUBPIXEL, as_crs, same_crs, transformer

# --- points -------------------------------------------------------------------------------------------------


def lonlat_columns(table: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Longitude and latitude columns of a table, by their usual names; None where there are none."""
    names = {str(name).lower(): name for name in table.columns}
    lon = next((names[n] for n in ("lon", "longitude", "lng", "long", "x") if n in names), None)
    lat = next((names[n] for n in ("lat", "latitude", "y") if n in names), None)
    if lon is None or lat is None:
        return None
    return np.asarray(table[lon], dtype=np.float64), np.asarray(table[lat], dtype=np.float64)


def points_xy(points: Any, crs: object) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of points in a CRS.

    Parameters
    ----------
    points : GeoDataFrame, DataFrame with lon and lat, Dataset or array of shape (n, 2)
        Numbers without a CRS are longitude and latitude.
    crs : CRS
        Of the result.

    Returns
    -------
    tuple of ndarray (n,)
        x and y; not finite where a point cannot be reached in that CRS.
    """
    source: object = LONLAT
    if hasattr(points, "geometry") and hasattr(points, "crs"):
        geometry = points.geometry
        kinds = set(geometry.geom_type)
        if not kinds <= {"Point"}:
            raise ValueError(f"points must be points; got {sorted(kinds)}. For polygons use zonal_stats.")
        x, y = geometry.x.to_numpy(), geometry.y.to_numpy()
        source = points.crs or LONLAT
    elif hasattr(points, "columns"):
        found = lonlat_columns(points)
        if found is None:
            raise ValueError(
                f"a table of points needs columns 'lon' and 'lat' (degrees); got {list(points.columns)}"
            )
        x, y = found
    else:
        pairs = np.asarray(points, dtype=np.float64)
        pairs = pairs[None] if pairs.ndim == 1 else pairs
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise ValueError(f"points are pairs (lon, lat), shape (n, 2); got shape {pairs.shape}")
        x, y = pairs[:, 0], pairs[:, 1]
    if as_crs(source).is_geographic and np.any((np.abs(x) > 360) | (np.abs(y) > 90)):
        raise ValueError(
            "points without a CRS are longitude and latitude in degrees, but some lie outside the world; "
            "give a GeoDataFrame with its CRS"
        )
    if same_crs(source, crs):
        return x.astype(np.float64), y.astype(np.float64)
    px, py = transformer(as_crs(source), as_crs(crs)).transform(x, y, errcheck=False)
    return np.asarray(px, dtype=np.float64), np.asarray(py, dtype=np.float64)


def pixels_at(grid: GeoBox, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of points on a grid, and whether they lie on it; 0 where not.

    Parameters
    ----------
    grid : GeoBox
        Any orientation.
    x, y : ndarray (n,)
        In the grid's CRS; degrees may be written a turn away.
    """
    c, r = ~grid.affine * (x, y)
    if as_crs(grid.crs).is_geographic:
        turn = 360.0 / abs(grid.affine.a)
        c = np.where(c < 0, c + turn, np.where(c >= grid.shape[1], c - turn, c))
    with np.errstate(invalid="ignore"):
        row = np.floor(np.round(r * SUBPIXEL) / SUBPIXEL)
        col = np.floor(np.round(c * SUBPIXEL) / SUBPIXEL)
        inside = (row >= 0) & (row < grid.shape[0]) & (col >= 0) & (col < grid.shape[1])
    return np.where(inside, row, 0).astype(np.int64), np.where(inside, col, 0).astype(np.int64), inside
