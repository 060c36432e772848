"""Compiled loops of the warp: where pixels come from, and moving them.

Coordinates are whole numbers of 1/4096 source pixel, counted from the corner of the window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geoemb_xr.core.kernels import jit, jit_exact

#: Pixels whose places are found together: what is read for them sits in a second-level cache, plane after plane.
_TOGETHER = 1 << 14
#: Pixels side by side in both grids, on average, from which on whole runs of them are moved.
_RUN = 6


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


@jit
def gather_planes(planes: Any, at: Any, top: Any, left: Any, down: Any, across: Any, out: Any) -> None:
    """Move what lies in one source block to where it belongs in ``out``; all else of ``out`` stays.

    ``planes`` (planes, height, width) begin at row ``top`` and column ``left`` of the window that ``at`` counts
    from, and run the other way if ``down`` or ``across``; ``out`` is (planes, rows, columns).
    """
    number, height, width = planes.shape
    _, rows, cols = at.shape
    source, result = planes.reshape(number, height * width), out.reshape(number, rows * cols)
    step, line, read = max(_TOGETHER // cols, 1), 64 // planes.itemsize, np.uintp(0)
    begin, goal = np.empty(step * cols, np.uintp), np.empty(step * cols, np.uintp)
    length = np.empty(step * cols, np.uintp)
    for start in range(0, rows, step):
        some = at[:, start : start + step]
        first = start * cols
        n, moved, low, high = _find_runs(
            some, first, height, width, top, left, down, across, cols, begin, goal, length
        )
        if n * _RUN > moved:  # a loop over a few pixels costs more than what it moves
            n, moved, low, high = _find_runs(
                some, first, height, width, top, left, down, across, np.int64(1), begin, goal, length
            )
        is_slanted = high - low > moved
        for p in range(number):
            plane, own = source[p], result[p]
            # In order first: pixels along a slanted line come from memory one by one, which takes as long again.
            if is_slanted:
                for k in range(low, high, line):
                    read += np.uintp(plane[k])
            if n == moved:
                for k in range(n):
                    own[goal[k]] = plane[begin[k]]
            else:
                for k in range(n):
                    a, b = goal[k], begin[k]
                    for i in range(length[k]):
                        own[a + i] = plane[b + i]
    begin[0] = read  # else the compiler leaves out what is read ahead


@gather_planes.in_numpy_bitwise
def _gather_planes_numpy(planes: Any, at: Any, top: Any, left: Any, down: Any, across: Any, out: Any) -> None:
    number, height, width = planes.shape
    row, col = (at[0] >> 12) - top, (at[1] >> 12) - left
    inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
    row, col = (v[inside] for v in (height - 1 - row if down else row, width - 1 - col if across else col))
    out.reshape(number, -1)[:, np.flatnonzero(inside)] = planes.reshape(number, -1)[:, row * width + col]


@jit
def _find_runs(
    at: Any, first: Any, height: Any, width: Any, top: Any, left: Any, down: Any, across: Any, longest: Any,
    begin: Any, goal: Any, length: Any,
) -> Any:  # fmt: skip
    """Find pixels that lie side by side in a block and in the result: where in both, how many, up to ``longest``.

    Returns the number of runs and of pixels, and the range of the block that they lie in.
    """
    n, moved, low, high = 0, 0, height * width, 0
    for i in range(at.shape[1]):
        least = most = at[0, i, 0]
        for j in range(at.shape[2]):
            least, most = min(least, at[0, i, j]), max(most, at[0, i, j])
        if most >> 12 < top or least >> 12 >= top + height:
            continue
        # the end of the run and its length, in registers: a store in each turn would be slow
        row, column, number = np.int64(0), np.int64(0), 0
        for j in range(at.shape[2]):
            r, c = (at[0, i, j] >> 12) - top, (at[1, i, j] >> 12) - left
            r, c = height - 1 - r if down else r, width - 1 - c if across else c
            if 0 < number < longest and r == row and c == column + 1 and c < width:
                column, number = c, number + 1
                continue
            if number:
                length[n], high, moved, n = number, max(high, row * width + column + 1), moved + number, n + 1
            number = 0
            if 0 <= r < height and 0 <= c < width:
                here = r * width + c
                begin[n], goal[n], low = here, first + i * at.shape[2] + j, min(low, here)
                row, column, number = r, c, 1
        if number:
            length[n], high, moved, n = number, max(high, row * width + column + 1), moved + number, n + 1
    return n, moved, low, high
