"""A lazily indexed array cut to what was asked for, before dask sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from dask.base import tokenize

from geoemb_xr.core import areas, geometry, times
from geoemb_xr.core.areas import Area
from geoemb_xr.core.errors import CoverageError
from geoemb_xr.readers.tiles import Request, block_sides, bounds_for


def cut[T: (xr.DataArray, xr.Dataset)](array: T, request: Request, name: str, age: str) -> T:
    """A lazily indexed array cut to area and time, then put on dask.

    Parameters
    ----------
    array : DataArray or Dataset
        Raster or locations, not on dask yet.
    request : Request
        Area, time and chunks.
    name : str
        The file, for messages and for the name of the graph.
    age : str
        What changes when the file is rewritten.

    Raises
    ------
    CoverageError
        If it holds nothing of what was asked for.
    """
    if request.time is not None and "time" in array.dims:
        array = array.isel(time=times.pick_times(array.coords["time"].values, request.time, covers=name))
    if request.area is not None and {"y", "x"} <= set(array.dims):
        box = geometry.geobox_of(array, "open")
        windows = [areas.window_of(box, part) for part in bounds_for(request.area, box.crs)]
        rows_cols = next((each for each in windows if each is not None), None)
        if rows_cols is None:
            raise CoverageError(f"{name} does not cover {request.area}; it covers {areas.area_of(box)}")
        array = array.isel(y=rows_cols[0], x=rows_cols[1])
    if request.area is not None and "location" in array.dims:
        x, y = (array.coords[axis].values for axis in ("x", "y"))
        within = inside(x, y, request.area, geometry.crs_of(array))
        if not within.any():
            raise CoverageError(f"{name} has no location in {request.area}")
        array = array.isel(location=np.flatnonzero(within))
    sides: dict[Any, int] = dict.fromkeys(array.dims, -1)
    sides |= {dim: side for dim, side in block_sides(request.chunks).items() if dim in array.dims}
    sides |= {"time": 1} if "time" in array.dims else {}
    sides |= {"location": 1 << 16} if "location" in array.dims else {}
    # a rewritten store is another array, and the same window of the same store is the same one
    token = tokenize(name, age, str(request.time), request.area, sides)
    return array.chunk(sides, name_prefix="own-", token=token)


def inside(x: np.ndarray, y: np.ndarray, area: Area, crs: object) -> np.ndarray:
    """Which places lie in an area; degrees may be written a turn away."""
    within = np.zeros(x.shape, bool)
    for west, south, east, north in bounds_for(area, crs):
        for turn in (0, 360) if geometry.as_crs(crs).is_geographic else (0,):
            within |= (x + turn >= west) & (x + turn <= east) & (y >= south) & (y <= north)
    return within
