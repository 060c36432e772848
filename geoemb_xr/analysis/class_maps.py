"""Class maps: their legend, names and the ground area of each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.legend import Legend, is_class_map, legend_of
from geoemb_xr.core.notes import say
from geoemb_xr.execution import progress
from geoemb_xr.execution.computing import compute
from geoemb_xr.geo import ground, places, zonal

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Unit = Literal["ha", "km2", "m2"]
_NO_ESTIMATE = (
    "area counts pixels, with the errors of the map; area_estimate corrects them with reference labels"
)
_METRES: dict[str, float] = {"ha": 1e4, "km2": 1e6, "m2": 1.0}


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


def names(array: xr.DataArray) -> xr.DataArray:
    """Names of classes instead of their codes. Lazy.

    Parameters
    ----------
    array : DataArray
        A class map, or classes at locations.

    Returns
    -------
    DataArray
        Texts of the same dimensions, NaN where there is no class, as in pandas.

    Raises
    ------
    EmbeddingError
        If the array is not a class map.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> truth = gx.testing.scene().truth(gx.testing.geobox((4, 4)), 2018)
    >>> bool((truth.emb.names() == truth.emb.legend.loc[int(truth[0, 0]), "name"])[0, 0])
    True
    """
    if not is_class_map(array):
        raise EmbeddingError(f"names needs a class map: integers with a legend; got {array.dtype}")
    found = legend_of(array)
    table = np.full(max(found.values, default=0) + 1, np.nan, dtype=object)
    table[list(found.values)] = found.names
    if array.chunks is None:
        data = _look_up(array.values, table)
    else:
        data = array.data.map_blocks(_look_up, table, dtype=object, meta=np.empty((0,) * array.ndim, object))
    attrs = {k: v for k, v in array.attrs.items() if k not in ("legend", "flag_values", "flag_meanings")}
    return xr.DataArray(data, dims=array.dims, coords=array.coords, name=array.name, attrs=attrs)


def _look_up(codes: np.ndarray, table: np.ndarray) -> np.ndarray:
    known = (codes >= 0) & (codes < len(table))
    return np.asarray(table[np.where(known, codes, 0)])


def area(
    array: xr.DataArray, unit: Unit | Any = "ha", *, areas: Any = None, crs: object = None
) -> pd.Series[float] | pd.DataFrame:
    """Ground area of each class, on the ellipsoid whatever the CRS. Computes.

    A count of pixels is not an estimate of area, because the map's errors do not cancel. For that,
    use a probability sample of reference labels (Olofsson et al. 2014, doi:10.1016/j.rse.2014.02.015).

    Parameters
    ----------
    array : DataArray (y, x) or (time, y, x)
        A class map.
    unit : {"ha", "km2", "m2"}
        Unit of the result.
    areas : polygons, GeoDataFrame, table, GeoJSON or path, optional
        Anything that :func:`geoemb_xr.geo.places.read_places` takes. The result then has the area in each
        polygon, with the exact share that it covers of each pixel. ``area(polygons)`` works, too.
    crs : CRS, optional
        CRS of polygons that bring none; longitude and latitude by default.

    Returns
    -------
    pandas.Series or DataFrame
        Indexed by the classes' names; a DataFrame with a row per time where there is ``time``. With ``areas`` a
        DataFrame with a row per polygon (and a time), NaN where a polygon is missing.

    Raises
    ------
    EmbeddingError
        If the array is not a class map.
    ValueError
        For an unknown unit.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> truth = gx.testing.scene().truth(gx.testing.geobox((100, 100)), 2018)
    >>> float(gx.area(truth).sum().round())
    100.0
    """
    if areas is None and not isinstance(unit, str):
        areas, unit = unit, "ha"
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
    if areas is not None:
        return _in_areas(array, places.read_places(areas, crs=crs), classes, unit)
    sums = _sums(array, geometry.geobox_of(array, "area"), classes) / factor
    say(_NO_ESTIMATE)
    if not rest:
        return pd.Series(sums, index=pd.Index(classes.names, name="class"), name=f"area ({unit})")
    times = pd.DatetimeIndex(array.coords["time"].values, name="time")
    return pd.DataFrame(sums, index=times, columns=pd.Index(classes.names, name="class"))


def _in_areas(array: xr.DataArray, given: places.Places, classes: Legend, unit: Unit) -> pd.DataFrame:
    """Area of each class in each polygon: a row per polygon, or a time and polygon."""
    measure = ground.GroundArea.of(geometry.geobox_of(array, "area"))
    lazy = zonal.class_areas(array, given, measure)
    with progress.shown("area"):
        sums = np.asarray(compute(lazy)[0]) / _METRES[unit]
    sums[..., given.missing, :] = np.nan
    given.say_missing("area gives NaN for")
    say(_NO_ESTIMATE)
    index, _ = given.riding()
    columns = pd.Index(classes.names, name="class")
    if array.ndim == 2:
        return pd.DataFrame(sums, index=index, columns=columns)
    times = pd.DatetimeIndex(array.coords["time"].values)
    rows = pd.MultiIndex.from_product([times, index], names=["time", "location"])
    return pd.DataFrame(sums.reshape(len(rows), len(columns)), index=rows, columns=columns)


def _sums(array: xr.DataArray, grid: GeoBox, classes: Legend) -> np.ndarray:
    """Square metres of each class, (time?, class)."""
    rows, cols, nodes = ground.nodes_of(grid)
    if array.chunks is None:
        return _sum(
            array.values,
            nodes,
            ground.interpolation(rows, np.arange(grid.shape[0])),
            ground.interpolation(cols, np.arange(grid.shape[1])),
            classes,
        )
    import dask.array as da

    sizes = array.variable.chunksizes
    across = [
        da.from_array(ground.interpolation(at, np.arange(n)), chunks=(sizes[d], -1))
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
        return np.asarray(compute(parts.sum(axis=(-3, -2)))[0])


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
