"""Matching of labels to the points of an array: by index, or by the patch that contains the label."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import shapely
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.model import check_embedding
from geoemb_xr.geo import footprints, places, tables


def are_values(labels: Any) -> bool:
    """Whether labels are one value per point, and not a table, a raster, a file or GeoJSON."""
    return not (
        (isinstance(labels, xr.DataArray) and {"y", "x"} <= set(labels.dims))
        or isinstance(labels, str | os.PathLike | Mapping | xr.Dataset)
        or tables.is_table(labels)
        or hasattr(labels, "columns")
    )


def points_of(array: xr.DataArray, table: pd.DataFrame) -> np.ndarray:
    """Position along ``location`` of each label (n,), -1 where there is none.

    Labels of points go by their index, as pandas joins tables. Those of patches go by their place, of several
    vectors at one place by their index.

    Parameters
    ----------
    array : DataArray (location, band)
        Points or patches.
    table : DataFrame (n rows)
        Labels; without columns of places their index alone counts.

    Raises
    ------
    EmbeddingError
        If labels lie elsewhere than the points of the same index.
    """
    index = array.indexes["location"]
    if index.equals(table.index):  # also where numbers repeat, as after gx.concat
        known = np.arange(len(table))
    else:
        known = index.get_indexer(table.index) if index.is_unique else np.full(len(table), -1)
    if not places.says_where(table):
        return np.asarray(known)
    degrees = geometry.as_crs(geometry.LONLAT)
    given = places.read_places(table)
    labels = given.polygons(degrees) if given.points is None else shapely.points(*given.xy(degrees))
    labels[given.missing] = None
    if footprints.has_footprints(array):
        inner = shapely.point_on_surface(labels)
        held = footprints.nearest_patch(array, np.column_stack([shapely.get_x(inner), shapely.get_y(inner)]))
        x, y = (np.asarray(array.coords[d].values) for d in ("x", "y"))
        same = (known >= 0) & (held >= 0) & (x[known] == x[held]) & (y[known] == y[held])
        return np.where(same, known, held)
    if len(table) and not index.is_unique and (known < 0).all():
        raise EmbeddingError(
            "labels of points go by their index, and the points' own (location) repeats: number them with "
            "array.assign_coords(location=range(array.sizes['location'])), and give labels that index"
        )
    _check_near(array, known, labels, table.index)
    return np.asarray(known)


def _check_near(array: xr.DataArray, known: np.ndarray, labels: np.ndarray, rows: pd.Index) -> None:
    """Raise if a label lies farther than a pixel from the point of the same index."""
    crs = geometry.crs_of(array)
    if crs is None:
        return
    x, y = (np.asarray(array.coords[d].values, np.float64)[np.maximum(known, 0)] for d in ("x", "y"))
    lonlat = geometry.transformer(crs, geometry.as_crs(geometry.LONLAT)).transform(x, y, errcheck=False)
    apart = shapely.distance(shapely.points(*lonlat), labels) * geometry.METRES_PER_DEGREE
    far = np.flatnonzero(
        (known >= 0) & (apart > max(1.0, check_embedding(array, "fit_probe").resolution or 0.0))
    )
    if far.size:
        raise EmbeddingError(
            f"{far.size} labels lie elsewhere than the points of the same index (location), the first in row "
            f"{rows[far[0]]!r}, {apart[far[0]]:,.0f} m away: points are labelled by their index. To label by "
            "place, sample the array at the labels"
        )
