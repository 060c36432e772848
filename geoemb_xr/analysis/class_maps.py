"""What a class map says of the ground: how much there is of each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import pyproj
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.legend import Legend, is_class_map, legend_of
from geoemb_xr.core.notes import say
from geoemb_xr.execution import progress

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Unit = Literal["ha", "km2", "m2"]
_METRES: dict[str, float] = {"ha": 1e4, "km2": 1e6, "m2": 1.0}
#: Nodes of the lattice on which the area of a pixel is computed; between them it is interpolated.
_NODES = 129


def legend(array: xr.DataArray) -> pd.DataFrame:
    """The classes of a class map: names and colours by code.

    Parameters
    ----------
    array : DataArray
        A class map, ours or one with CF's ``flag_values`` and ``flag_meanings``.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> truth = gx.testing.scene().truth(gx.testing.geobox((4, 4)), 2018)
    >>> truth.emb.legend.loc[1, "name"]
    'water'
    """
    found = legend_of(array)
    index = pd.Index(found.values, name="value")
    return pd.DataFrame({"name": found.names, "colour": found.colours}, index=index)


def area(array: xr.DataArray, unit: Unit = "ha") -> pd.Series[float] | pd.DataFrame:
    """Ground area of each class, on the ellipsoid whatever the CRS. Computes.

    A count of pixels is no estimate of area: the map's errors do not cancel. For that, use a probability sample
    of reference labels (Olofsson et al. 2014, doi:10.1016/j.rse.2014.02.015).

    Parameters
    ----------
    array : DataArray (y, x) or (time, y, x)
        A class map.
    unit : {"ha", "km2", "m2"}
        Of the result.

    Returns
    -------
    pandas.Series or DataFrame
        Indexed by the classes' names; a DataFrame with a row a time where there is ``time``.

    Raises
    ------
    EmbeddingError
        If the array is no class map.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> truth = gx.testing.scene().truth(gx.testing.geobox((100, 100)), 2018)
    >>> float(gx.area(truth).sum().round())
    100.0
    """
    factor = _METRES[check_choice("unit", unit, _METRES)]
    if not is_class_map(array) or not {"y", "x"} <= set(array.dims):
        raise EmbeddingError(
            f"area needs a class map with y and x: integers with a legend; got {array.dtype}, {tuple(array.dims)}"
        )
    classes = legend_of(array)
    rest = [d for d in array.dims if d not in ("y", "x")]
    if not set(rest) <= {"time"}:
        raise EmbeddingError(f"area takes dims (time, y, x); got {tuple(array.dims)}")
    array = array.transpose(*rest, "y", "x")
    sums = _sums(array, geometry.geobox_of(array, "area"), classes) / factor
    say(
        "area counts pixels: it carries the map's errors, so it is no estimate of area (use reference labels)"
    )
    if not rest:
        return pd.Series(sums, index=pd.Index(classes.names, name="class"), name=f"area ({unit})")
    times = pd.DatetimeIndex(array.coords["time"].values, name="time")
    return pd.DataFrame(sums, index=times, columns=pd.Index(classes.names, name="class"))


def _sums(array: xr.DataArray, grid: GeoBox, classes: Legend) -> np.ndarray:
    """Square metres of each class, (time?, class)."""
    rows, cols, nodes = _lattice(grid)
    if array.chunks is None:
        return _sum(
            array.values,
            nodes,
            _interpolation(rows, grid.shape[0]),
            _interpolation(cols, grid.shape[1]),
            classes,
        )
    import dask.array as da

    sizes = array.chunksizes
    across = [
        da.from_array(_interpolation(at, n), chunks=(sizes[d], -1))
        for at, n, d in ((rows, grid.shape[0], "y"), (cols, grid.shape[1], "x"))
    ]
    names = "tyx"[-array.ndim :]
    parts = da.blockwise(
        _sum_block,
        f"{names}k",
        array.data,
        names,
        nodes,
        None,
        across[0],
        "yi",
        across[1],
        "xj",
        classes=classes,
        concatenate=True,
        new_axes={"k": len(classes.values)},
        adjust_chunks={"y": 1, "x": 1},
        dtype=np.float64,
        meta=np.empty((0,) * (array.ndim + 1)),
    )
    with progress.shown("area"):
        return np.asarray(parts.sum(axis=(-3, -2)).compute())


def _sum_block(
    block: np.ndarray, nodes: np.ndarray, rows: np.ndarray, cols: np.ndarray, classes: Legend
) -> np.ndarray:
    return _sum(block, nodes, rows, cols, classes)[..., None, None, :]


def _sum(
    block: np.ndarray, nodes: np.ndarray, rows: np.ndarray, cols: np.ndarray, classes: Legend
) -> np.ndarray:
    weights = (rows @ nodes @ cols.T).reshape(-1)
    size = max(classes.values) + 1
    flat = block.reshape(-1, weights.size)
    sums = [np.bincount(np.where(each < size, each, 0), weights, size)[list(classes.values)] for each in flat]
    return np.asarray(sums).reshape(*block.shape[:-2], len(classes.values))


def _lattice(grid: GeoBox) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of nodes along rows and columns, and a pixel's ground area (m²) at each."""
    rows, cols = (np.linspace(0, n - 1, min(_NODES, n)) for n in grid.shape)
    corners = [
        _geocentric(grid, *(grid.affine * np.meshgrid(cols + right, rows + down)))
        for down, right in ((0, 0), (0, 1), (1, 1), (1, 0))
    ]
    across, along = corners[2] - corners[0], corners[3] - corners[1]
    return rows, cols, 0.5 * np.linalg.norm(np.cross(across, along, axis=0), axis=0)


def _geocentric(grid: GeoBox, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Points on the ellipsoid, (3, …), in metres from the centre of the Earth: no pole, no antimeridian."""
    crs = geometry.as_crs(grid.crs)
    lon, lat = geometry.transformer(crs, geometry.as_crs(geometry.LONLAT)).transform(x, y)
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


def _interpolation(at: np.ndarray, n: int) -> np.ndarray:
    """Weights (n, node) that interpolate linearly between nodes."""
    weights = np.zeros((n, at.size))
    position = np.interp(np.arange(n), at, np.arange(at.size))
    low = np.minimum(position.astype(np.int64), max(at.size - 2, 0))
    weights[np.arange(n), low] = 1 - (position - low)
    if at.size > 1:
        weights[np.arange(n), low + 1] = position - low
    return weights
