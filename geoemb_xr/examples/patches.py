"""Small synthetic sources of patch products, in their publishers' formats."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from geoemb_xr import testing
from geoemb_xr.core import geometry
from geoemb_xr.core.errors import require
from geoemb_xr.readers.footers import OWN_KEY


def write_example(
    path: os.PathLike[str],
    columns: Mapping[str, Any],
    *,
    geometry_column: str | None = "geometry",
    footer: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Write a Parquet file as a product's publisher would, marked as synthetic.

    Parameters
    ----------
    path : path
        Path of the file.
    columns : mapping of str to array
        Arrow arrays, or what makes them.
    geometry_column : str, optional
        The WKB column that the GeoParquet metadata name; None writes plain Parquet.
    footer : mapping of str to object, optional
        More keys of the footer, written as JSON.
    **options
        Options of :func:`pyarrow.parquet.write_table`.
    """
    import shapely

    pyarrow, parquet = require("pyarrow", "remote"), require("pyarrow.parquet", "remote")
    table = pyarrow.table(dict(columns))
    keys: dict[str, Any] = {OWN_KEY: {"version": "synthetic"}, **(footer or {})}
    if geometry_column is not None:
        shapes = shapely.from_wkb(table[geometry_column].to_numpy(zero_copy_only=False))
        box = [float(v) for v in shapely.total_bounds(shapes)]
        kinds = sorted({str(g.geom_type) for g in shapes})
        about = {"encoding": "WKB", "geometry_types": kinds, "bbox": box}
        keys["geo"] = {
            "version": "1.0.0",
            "primary_column": geometry_column,
            "columns": {geometry_column: about},
        }
    table = table.replace_schema_metadata({k: json.dumps(v) for k, v in keys.items()})
    os.makedirs(os.path.dirname(os.fspath(path)), exist_ok=True)
    parquet.write_table(table, os.fspath(path), **options)


def list_column(vectors: np.ndarray, *, fixed: bool = False) -> Any:
    """A matrix as Arrow's lists of its numbers."""
    pyarrow = require("pyarrow", "remote")
    flat = pyarrow.array(np.ascontiguousarray(vectors).ravel())
    if fixed:
        return pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    offsets = np.arange(0, flat.__len__() + 1, vectors.shape[1], dtype=np.int32)
    return pyarrow.ListArray.from_arrays(offsets, flat)


def scene_patches(
    side: float,
    count: tuple[int, int],
    dims: int,
    year: int,
    *,
    lon: float | None = None,
    lat: float | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Patches of the synthetic scene on a UTM grid, edges on multiples of their side.

    Parameters
    ----------
    side : float
        Side of a patch, in metres.
    count : (int, int)
        Rows and columns.
    dims : int
        Length of a vector.
    year : int
        Year of the landscape.
    lon, lat : float, optional
        The middle; the scene's by default.

    Returns
    -------
    lon, lat : ndarray (n,)
        Centres.
    polygons : ndarray of shapely polygons (n,)
        Footprints in degrees.
    vectors : ndarray (n, dims)
        float32.
    """
    import shapely

    scene = replace(testing.scene(), clouds=0.0)  # archives leave out what clouds hide
    lon, lat = scene.lon if lon is None else lon, scene.lat if lat is None else lat
    crs = geometry.utm_crs(geometry.utm_zone_of(lon), south=lat < 0)
    lonlat = geometry.as_crs(geometry.LONLAT)
    x, y = geometry.transformer(lonlat, crs).transform(lon, lat)
    left, top = round(x / side - count[1] / 2) * side, round(y / side + count[0] / 2) * side
    rows, cols = (each.ravel() for each in np.mgrid[: count[0], : count[1]])
    to_lonlat = geometry.transformer(crs, lonlat)

    def place(dr: float, dc: float) -> np.ndarray:
        return np.stack(to_lonlat.transform(left + (cols + dc) * side, top - (rows + dr) * side), axis=-1)

    ring = [place(dr, dc) for dr, dc in ((0, 0), (0, 1), (1, 1), (1, 0), (0, 0))]
    polygons = np.asarray(shapely.polygons(np.stack(ring, axis=1)))
    centres = place(0.5, 0.5)
    vectors = scene.vectors(centres[:, 0], centres[:, 1], year, dims, unit=False)
    return centres[:, 0], centres[:, 1], polygons, np.ascontiguousarray(vectors.T, np.float32)
