"""Points as small squares of a raster, so that the explorer treats them as pixels."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from geoemb_xr.core import arrays, geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.execution.computing import computed
from geoemb_xr.geo.footprints import has_footprints
from geoemb_xr.geo.gridding import to_grid

#: Cells along the longer side of the raster, at most.
_CELLS = 1000


def squares_of_points(array: xr.DataArray) -> xr.DataArray:
    """Points (time?, location, band) as a raster, each a square as wide as points are apart; else as it is.

    A square is at least a thousandth of the extent wide, so that it is seen; of points nearer to each other than
    that, a cell shows the nearest to its middle. Vectors are placed, never averaged.
    """
    if "location" not in array.dims or has_footprints(array):
        return array
    if not array.sizes["location"]:
        raise EmbeddingError("explore got no points")
    array = arrays.decode(array)
    marked = array.assign_coords(patch_m=("location", np.full(array.sizes["location"], _apart(array))))
    if "time" not in array.dims:
        return to_grid(marked)
    years = [marked.isel(time=i, drop=True) for i in range(array.sizes["time"])]
    return xr.concat([to_grid(each) for each in years], array.coords["time"]).assign_attrs(array.attrs)


def _apart(array: xr.DataArray) -> float:
    """Metres between a point and the next one, in the middle of all."""
    crs = geometry.crs_of(array)
    if crs is None:
        raise EmbeddingError("explore needs the CRS of x and y: the array has no coordinate 'spatial_ref'")
    at = computed(array.coords.to_dataset()[["x", "y"]])
    lon, lat = geometry.transformer(crs, geometry.as_crs(geometry.LONLAT)).transform(at.x.values, at.y.values)
    globe = geometry.on_sphere(np.column_stack([lon, lat]))
    globe = np.unique(globe[np.isfinite(globe).all(axis=1)], axis=0)
    extent = float(np.linalg.norm(np.ptp(globe, axis=0))) if len(globe) else 0.0
    nearest = np.median(cKDTree(globe).query(globe, k=2)[0][:, 1]) if len(globe) > 1 else 0.0
    return max(float(nearest), extent / _CELLS, 1.0)
