"""Compiled loops of the warp: where pixels come from, and moving them.

Coordinates are whole numbers of 1/4096 source pixel, counted from the corner of the window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geoemb_xr.core.kernels import jit, jit_exact


@jit_exact
def fill_cells(cells: Any, size: Any, corners: Any, nowhere: Any, out: Any) -> None:
    """Interpolate square cells from the coordinates of their corners, rounded to 1/4096.

    ``cells`` (n, 2) is where they begin in ``out`` (2, rows, columns), and may be outside of it; ``corners`` is
    (n, 2, 2, 2), in pixels: coordinate, then row and column.
    """
    _, rows, cols = out.shape
    for n in range(len(cells)):
        top, left = cells[n, 0], cells[n, 1]
        for k in range(2):
            a, b = corners[n, k, 0, 0], corners[n, k, 0, 1]
            c, d = corners[n, k, 1, 0], corners[n, k, 1, 1]
            lost = np.isnan(a + b + c + d)
            for i in range(max(top, 0), min(top + size, rows)):
                fy = (i - top) / size
                west = a + (c - a) * fy
                east = b + (d - b) * fy
                for j in range(max(left, 0), min(left + size, cols)):
                    if lost:
                        out[k, i, j] = nowhere
                    else:
                        out[k, i, j] = np.int64(np.rint((west + (east - west) * ((j - left) / size)) * 4096))


@fill_cells.in_numpy_bitwise
def _fill_cells_numpy(cells: Any, size: Any, corners: Any, nowhere: Any, out: Any) -> None:
    _, rows, cols = out.shape
    for (top, left), corner in zip(cells.tolist(), corners, strict=True):
        i = np.arange(max(top, 0), min(top + size, rows))
        j = np.arange(max(left, 0), min(left + size, cols))
        if not (i.size and j.size):
            continue
        fy, fx = ((i - top) / size)[:, None], (j - left) / size
        for k in range(2):
            (a, b), (c, d) = corner[k]
            west, east = a + (c - a) * fy, b + (d - b) * fy
            own = out[k, i[0] : i[-1] + 1, j[0] : j[-1] + 1]
            own[...] = nowhere if np.isnan(a + b + c + d) else np.rint((west + (east - west) * fx) * 4096)


@jit
def gather(window: Any, at: Any, fill: Any, out: Any) -> None:
    """The nearest pixel's bytes, ``fill`` outside: ``window`` and ``out`` are words of any vector."""
    height, width, words = window.shape
    _, rows, cols = at.shape
    for i in range(rows):
        for j in range(cols):
            r, c = at[0, i, j] >> 12, at[1, i, j] >> 12
            if 0 <= r < height and 0 <= c < width:
                for k in range(words):
                    out[i, j, k] = window[r, c, k]
            else:
                for k in range(words):
                    out[i, j, k] = fill[k]


@gather.in_numpy_bitwise
def _gather_numpy(window: Any, at: Any, fill: Any, out: Any) -> None:
    row, col = at[0] >> 12, at[1] >> 12
    inside = (row >= 0) & (row < window.shape[0]) & (col >= 0) & (col < window.shape[1])
    if inside.all():
        out[...] = window[row, col]
        return
    out[...] = fill
    out[inside] = window[row[inside], col[inside]]
