"""Ground area of pixels, on the ellipsoid whatever the CRS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj

from geoemb_xr.core import geometry

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: Nodes of the lattice on which the area of a pixel is computed; between them it is interpolated.
_NODES = 129


@dataclass(frozen=True)
class GroundArea:
    """Square metres of a grid's pixels, called with the centres of some of its rows and columns.

    Parameters
    ----------
    origin : (float, float)
        Centre of the first row and column.
    step : (float, float)
        From a row, and from a column, to the next.
    rows, columns : ndarray
        Positions of nodes.
    nodes : ndarray (rows, columns)
        Square metres of a pixel at each.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> grid = gx.testing.geobox((3, 3))
    >>> GroundArea.of(grid)(np.array([grid.affine.f - 5]), np.array([grid.affine.c + 5])).round().tolist()
    [[100.0]]
    """

    origin: tuple[float, float]
    step: tuple[float, float]
    rows: np.ndarray
    columns: np.ndarray
    nodes: np.ndarray

    @classmethod
    def of(cls, grid: GeoBox) -> GroundArea:
        """Measure the pixels of a grid."""
        a = grid.affine
        return cls((a.f + a.e / 2, a.c + a.a / 2), (a.e, a.a), *nodes_of(grid))

    def __call__(self, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
        """Square metres, (y, x)."""
        down, across = ((at - o) / s for at, o, s in zip((ys, xs), self.origin, self.step, strict=True))
        weights = interpolation(self.rows, down) @ self.nodes @ interpolation(self.columns, across).T
        return np.asarray(weights)


def nodes_of(grid: GeoBox) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of nodes along rows and columns, and a pixel's ground area (m²) at each."""
    rows, cols = (np.linspace(0, n - 1, min(_NODES, n)) for n in grid.shape)
    return rows, cols, pixel_areas(grid.crs, grid.affine, *np.meshgrid(cols, rows))


def pixel_areas(crs: object, affine: Any, cols: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Ground area (m²) of the pixels whose first corner lies at some columns and rows of a grid.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> grid = gx.testing.geobox((3, 3))
    >>> pixel_areas(grid.crs, grid.affine, np.array([0.0, 2.0]), np.array([1.0, 2.0])).round().tolist()
    [100.0, 100.0]
    """
    corners = [
        geocentric(crs, *(affine * (cols + right, rows + down)))
        for down, right in ((0, 0), (0, 1), (1, 1), (1, 0))
    ]
    across, along = corners[2] - corners[0], corners[3] - corners[1]
    return np.asarray(0.5 * np.linalg.norm(np.cross(across, along, axis=0), axis=0))


def geocentric(crs: object, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Points on the ellipsoid, (3, …), in metres from the centre of the Earth: no pole, no antimeridian."""
    lon, lat = geometry.transformer(geometry.as_crs(crs), geometry.as_crs(geometry.LONLAT)).transform(x, y)
    geod = pyproj.Geod(ellps="WGS84")
    lon, lat = np.radians(lon), np.radians(lat)
    normal = geod.a / np.sqrt(1 - geod.es * np.sin(lat) ** 2)
    return np.stack(
        [
            normal * np.cos(lat) * np.cos(lon),
            normal * np.cos(lat) * np.sin(lon),
            normal * (1 - geod.es) * np.sin(lat),
        ]
    )


def interpolation(nodes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Weights (n, node) that interpolate linearly between nodes at n positions."""
    n = len(at)
    weights = np.zeros((n, nodes.size))
    position = np.interp(at, nodes, np.arange(nodes.size))
    low = np.minimum(position.astype(np.int64), max(nodes.size - 2, 0))
    weights[np.arange(n), low] = 1 - (position - low)
    if nodes.size > 1:
        weights[np.arange(n), low + 1] = position - low
    return weights
