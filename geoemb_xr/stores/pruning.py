"""Rows of a table that touch an area: by their own boxes, or by what the statistics of a row group say of all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geoemb_xr.core import longitudes
from geoemb_xr.core.areas import Bounds

#: Least and greatest value of a column.
Range = tuple[float, float]


def touching(rows: np.ndarray, boxes: Sequence[Bounds], *, degrees: bool, edges: bool = True) -> np.ndarray:
    """Return which rows touch one of several boxes.

    Parameters
    ----------
    rows : ndarray (n, 4)
        West, south, east and north; one with a number that is not finite touches nothing.
    boxes : sequence of (west, south, east, north)
        Boxes in the CRS of the rows.
    degrees : bool
        Whether the numbers are longitudes and latitudes: then west > east crosses the antimeridian, 0 … 360 is as
        good as −180 … 180, and 179 … 181 is one piece.
    edges : bool
        Whether a row that only shares an edge touches.

    Examples
    --------
    >>> rows = np.array([[179.9, 0, -179.9, 1], [10, 0, 11, 1]])
    >>> touching(rows, [(-180.0, 0.0, -179.0, 1.0)], degrees=True).tolist()
    [True, False]
    """
    west, south, east, north = rows.T
    hit = np.zeros(len(rows), bool)
    for w, s, e, n in boxes:
        if degrees:
            along = longitudes.touch(west, east, w, e, ends=edges)
        else:
            along = (west <= e) & (east >= w) if edges else (west < e) & (east > w)
        hit |= along & ((south <= n) & (north >= s) if edges else (south < n) & (north > s))
    return hit


def is_inside(box: Bounds, boxes: Sequence[Bounds], *, degrees: bool) -> bool:
    """Whether a box lies wholly in one of several."""
    west, south, east, north = box
    return any(
        (bool(longitudes.within(west, east, w, e)) if degrees else w <= west and east <= e)
        and s <= south
        and north <= n
        for w, s, e, n in boxes
    )


def boxes_of_rows(
    west: Range, south: Range, east: Range, north: Range, *, degrees: bool
) -> tuple[Bounds, ...]:
    """Boxes that hold every row of which only least and greatest sides are known.

    A row that crosses the antimeridian has its west more than half a turn beyond its east: a box is never wider
    than half a turn. So where some west may lie so far beyond some east, a second box holds the rows that cross,
    which end somewhere in the western half of the world.

    Examples
    --------
    >>> boxes_of_rows((10, 12), (0, 1), (11, 13), (2, 3), degrees=True)
    ((10, 0, 13, 3),)
    >>> boxes_of_rows((179.5, 179.75), (0, 0), (-179.5, 180.0), (1, 1), degrees=True)
    ((179.5, 0, 180.0, 1), (179.5, 0, 359.75, 1))
    """
    found: list[Bounds] = []
    if west[0] <= east[1]:
        found.append((west[0], south[0], east[1], north[1]))
    if degrees and west[1] - east[0] > 180.0:
        found.append(
            (max(west[0], east[0] + 180.0), south[0], min(east[1], west[1] - 180.0) + 360.0, north[1])
        )
    return tuple(found)
