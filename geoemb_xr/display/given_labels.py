"""Labels that a user loads into the app: points, boxes and polygons become labelled pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.notes import say
from geoemb_xr.display.windows import Pixel
from geoemb_xr.geo import places
from geoemb_xr.probes import labelling, samples
from geoemb_xr.probes.label_values import class_names

#: Number of pixels that are labelled in a polygon, evenly over it: a map of dots stays readable.
PIXELS_PER_POLYGON = 50
_TIMES = ("time", "date", "year")


def labelled_pixels(
    array: xr.DataArray, times: np.ndarray | None, step: int, labels: Any, target: str | None
) -> tuple[list[tuple[Pixel, str]], dict[str, str]]:
    """Pixels under labels with their class, in order, and the colours that came with the labels.

    Parameters
    ----------
    array : DataArray (time?, band, y, x)
        North-up.
    times : ndarray of datetime64, optional
        Times of the array.
    step : int
        The period of labels that say none.
    labels : GeoDataFrame, table, or path of a file
        Points or polygons; other rows than those inside the array and its years are counted and left out.
    target : str, optional
        The column of classes; the only one that may be it by default.

    Raises
    ------
    EmbeddingError
        If the labels are not a table, or no column may be the target.
    """
    table = labelling.read_labels(labels)
    if isinstance(table, xr.DataArray):
        raise EmbeddingError(
            "explore takes labels as a GeoDataFrame, a table with lon and lat, or a file; got a raster: draw "
            "points from it with gx.labels(raster)"
        )
    given = places.read_places(table)
    dated = next((c for c in given.table.columns if str(c).lower() in _TIMES and c != target), None)
    used = {*map(str, given.place_columns), *([] if dated is None else [str(dated)])}
    if target is None and "label" in given.table.columns:  # what the app itself writes
        target = "label"
    target = samples.guess_target(given.table, target, used)
    names = class_names(samples.column_of(given.table, target, "target"))
    grid = geometry.geobox_of(array, "explore")
    rows, cols, of, group, _ = samples.pixels_of(grid, given)
    if given.points is None:
        kept = _some_of_each(group)
        rows, cols, of = rows[kept], cols[kept], of[kept]
    steps = np.full(len(given.table), step)
    if dated is not None and times is not None:
        steps = samples.period_index(times, given.table[dated], f"labels' column {str(dated)!r}")
    kept = steps[of] >= 0
    rows, cols, of = rows[kept], cols[kept], of[kept]
    vectors = samples.pixel_vectors(array, rows, cols, steps[of] if times is not None else None)
    there = np.isfinite(vectors).all(axis=1) & np.array([names[i] is not None for i in of], bool)
    if left := len(given.table) - len(np.unique(of[there])):
        say(
            f"explore leaves out {left} of {len(given.table)} labels: outside the array or its years, "
            "or without data"
        )
    xs, ys = array.coords["x"].values, array.coords["y"].values
    found = [
        (
            Pixel(
                int(rows[i]), int(cols[i]), float(xs[cols[i]]), float(ys[rows[i]]),
                None if times is None else times[steps[of[i]]], vectors[i],
            ),
            names[of[i]],
        )
        for i in np.flatnonzero(there)
    ]  # fmt: skip
    colours = getattr(labels, "attrs", {}).get("colours", {})
    return found, dict(colours) if isinstance(colours, dict) else {}


def _some_of_each(group: np.ndarray) -> np.ndarray:
    """Positions of at most :data:`PIXELS_PER_POLYGON` pixels of each polygon, spread evenly over it."""
    chosen = [
        own[np.linspace(0, len(own) - 1, min(len(own), PIXELS_PER_POLYGON)).astype(int)]
        for own in (np.flatnonzero(group == number) for number in np.unique(group))
    ]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)
