"""The shown pixels of an array: the middle one of each cell that one pixel of the screen covers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from geoemb_xr.core import areas, geometry
from geoemb_xr.execution.thinning import pick

#: Bytes of blocks that one picture may read of a lazy array; of a larger view the middle is shown.
READ_LIMIT = 4_000_000_000


class Span(NamedTuple):
    """Cells of ``step`` pixels along an axis; of each the pixel ``offset`` from its edge is shown."""

    first: int
    step: int
    cells: int
    offset: int

    @staticmethod
    def of(start: float, stop: float, size: int, step: int) -> Span:
        """The cells that touch ``start`` to ``stop`` of an axis of ``size`` pixels.

        Cells are counted from the array's edge, so that panning shows the same pixels again.
        """
        start, stop = max(min(start, size - 1.0), 0.0), max(min(stop, float(size)), 1.0)
        first = int(start // step) * step
        offset = min(step // 2, size - 1 - first)
        count = max(-(-(int(np.ceil(stop)) - first) // step), 1)
        return Span(first, step, min(count, (size - 1 - first - offset) // step + 1), offset)

    @property
    def pixels(self) -> slice:
        """The shown pixels."""
        start = self.first + self.offset
        return slice(start, start + (self.cells - 1) * self.step + 1, self.step)

    @property
    def edges(self) -> tuple[int, int]:
        """Outer edges of the cells, in pixels."""
        return self.first, self.first + self.cells * self.step

    def cell(self, pixel: float) -> int | None:
        """The cell that holds a pixel, None outside."""
        at = int((pixel - self.first) // self.step)
        return at if 0 <= at < self.cells else None


class Window(NamedTuple):
    """Rows and columns that are shown."""

    rows: Span
    cols: Span

    def bounds(self, grid: GeoBox) -> areas.Bounds:
        """Left, bottom, right and top of the cells."""
        (top, bottom), (left, right) = self.rows.edges, self.cols.edges
        (x0, y0), (x1, y1) = grid.affine * (left, bottom), grid.affine * (right, top)
        return x0, y0, x1, y1


class Pixel(NamedTuple):
    """A clicked pixel.

    Parameters
    ----------
    row, col : int
        Position on the array's grid, north-up.
    x, y : float
        Centre of the pixel, in the array's CRS.
    time : datetime64 or None
        The period that was shown.
    vector : ndarray of float32 (band,)
        Decoded.
    """

    row: int
    col: int
    x: float
    y: float
    time: np.datetime64 | None
    vector: np.ndarray

    @property
    def key(self) -> tuple[int, int, np.datetime64 | None]:
        """The key of a pixel: its row, column and time."""
        return self.row, self.col, self.time


def view_window(
    array: xr.DataArray,
    grid: GeoBox,
    x_range: tuple[float, float] | None,
    y_range: tuple[float, float] | None,
    size: tuple[int, int],
) -> tuple[Window, bool]:
    """The window of a view, and whether it was cut to the view's middle.

    Parameters
    ----------
    array : DataArray (…, y, x)
        North-up.
    grid : GeoBox
        Grid of the array.
    x_range, y_range : (float, float), optional
        Coordinates in the array's CRS; all of it by default.
    size : (int, int)
        Width and height of the picture, in pixels of the screen.
    """
    box = grid.boundingbox
    (x0, x1), (y0, y1) = sorted(x_range or (box.left, box.right)), sorted(y_range or (box.bottom, box.top))
    (c0, r0), (c1, r1) = ~grid.affine * (x0, y1), ~grid.affine * (x1, y0)
    (rows, cols), (width, height) = grid.shape, size
    cut = False
    while True:
        visible = min(r1, rows) - max(r0, 0.0), min(c1, cols) - max(c0, 0.0)
        # a hair less than a whole step more is rounding, not a pixel
        step = max(int(np.ceil(visible[0] / height - 1e-6)), int(np.ceil(visible[1] / width - 1e-6)), 1)
        window = Window(Span.of(r0, r1, rows, step), Span.of(c0, c1, cols, step))
        if _bytes_read(array, window) <= READ_LIMIT or window.rows.cells * window.cols.cells <= 4:
            return window, cut
        cut = True
        r0, r1 = r0 + (r1 - r0) / 4, r1 - (r1 - r0) / 4
        c0, c1 = c0 + (c1 - c0) / 4, c1 - (c1 - c0) / 4


def _bytes_read(array: xr.DataArray, window: Window) -> int:
    """Bytes of the blocks that hold the shown pixels of a period; 0 in memory."""
    if array.chunks is None:
        return 0
    total = int(np.prod([n for d, n in array.sizes.items() if d not in ("time", "y", "x")]))
    total *= array.dtype.itemsize
    for dim, span in zip(("y", "x"), window, strict=True):
        sizes = np.array(array.variable.chunksizes[dim])
        shown = np.arange(span.pixels.start, span.pixels.stop, span.step)
        total *= int(sizes[np.unique(np.searchsorted(np.cumsum(sizes), shown, side="right"))].sum())
    return total


def thin(array: xr.DataArray, pixels: int) -> xr.DataArray:
    """North-up, every n-th pixel from the middle of the first n: lazy, before the others are computed."""
    if "location" in array.dims:
        return array
    array = geometry.north_up_array(array)
    steps = {d: -(-array.sizes[d] // pixels) for d in ("y", "x")}
    step = max(steps.values())
    if step == 1:
        return array
    # strips of an array narrower than a step keep one pixel
    return pick(array, {d: slice(min(step, array.sizes[d]) // 2, None, step) for d in ("y", "x")})
