"""Where the pixels of one grid lie in another: exact, and the same for every window of either grid.

Source coordinates are interpolated between nodes of a lattice that lies in the *target CRS*: its nodes are the
pixels whose global number is a multiple of 64, so that any window of a grid uses the same ones. A cell of the
lattice is halved until PROJ agrees with it to 0.01 source pixel. The result is rounded to 1/4096 pixel, counted
from the source's global pixel number, so that no crop and no block changes a bit of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.projecting import Transformer
from geoemb_xr.geo import placing_kernels

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: Target pixels between two nodes.
CELL = 64
#: A cell that still fails at this size is projected pixel by pixel.
SMALLEST_CELL = 8
#: How far a cell may lie from PROJ, in source pixels.
TOLERANCE = 0.01
#: Source coordinates are whole numbers of 1/4096 pixel.
UNITS = 4096
#: Target grids are placed to 2⁻²⁰ pixel: the rounding of an affine must not move a crop against its whole.
PLACES = 2**20
#: No grid has so many pixels.
FAR = 2.0**31
#: The coordinate of a pixel that the source CRS cannot reach.
NOWHERE = -(2**62)

Window = tuple[int, int]


@dataclass(frozen=True)
class Axis:
    """One axis of a grid in global pixel numbers: pixel j covers ``(start + j) · step`` to the next.

    Parameters
    ----------
    start : float
        Number of the first edge: coordinate / step.
    step : float
        Pixel size, negative where the coordinate descends.
    size : int
        Pixels.
    """

    start: float
    step: float
    size: int


@dataclass(frozen=True)
class Grid:
    """A north-up grid, small enough to travel in a task.

    Parameters
    ----------
    y, x : Axis
        y descends, x ascends.
    crs : str
        The CRS as text, which each process parses once.
    """

    y: Axis
    x: Axis
    crs: str

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.y.size, self.x.size

    @cached_property
    def period(self) -> int:
        """Pixels around the world in 1/4096, 0 for a CRS that is not in degrees."""
        crs = geometry.as_crs(self.crs)
        if not crs.is_geographic:
            return 0
        return round(2 * math.pi / crs.axis_info[0].unit_conversion_factor / self.x.step * UNITS)

    @property
    def around(self) -> bool:
        """Whether the grid closes around the world."""
        return self.period > 0 and self.period == self.x.size * UNITS

    @property
    def origin(self) -> tuple[int, int]:
        """The first pixel's edges in 1/4096 pixel, (y, x)."""
        return round(self.y.start * UNITS), round(self.x.start * UNITS)

    @property
    def metres(self) -> float:
        """Nominal pixel size: the larger axis, a degree being 111,320 m wherever it is."""
        return max(abs(self.y.step), abs(self.x.step)) * self._metre

    @property
    def _metre(self) -> float:
        """Metres a unit of the CRS; of a meridian where that is degrees."""
        crs = geometry.as_crs(self.crs)
        unit = float(crs.axis_info[0].unit_conversion_factor) if crs.axis_info else 1.0
        return math.degrees(unit) * geometry.METRES_PER_DEGREE if crs.is_geographic else unit

    def metre_steps(self, y: float) -> tuple[float, float]:
        """Height and width of a pixel in metres at a y."""
        narrow = math.cos(math.radians(y)) if self.period else 1.0
        return self.y.step * self._metre, self.x.step * self._metre * narrow


def source_grid(array: xr.DataArray) -> Grid:
    """The grid of an array, turned north-up; a crop gives the numbers of the whole.

    Coordinates carry rounding, so that a small crop knows its step less well than the whole: the simplest
    fraction within that rounding is the step of both.
    """
    box = geometry.north_up(geometry.geobox_of(array, "reproject"))
    affine = box.affine
    height, width = box.shape
    return Grid(
        _source_axis(affine.f, affine.e, height),
        _source_axis(affine.c, affine.a, width),
        geometry.crs_text(geometry.as_crs(box.crs)),
    )


def _source_axis(edge: float, step: float, size: int) -> Axis:
    noise = 4 * math.ulp(max(abs(edge), abs(edge + size * step))) / size
    step = _simplest(step, noise)
    return Axis(round(edge / step * UNITS) / UNITS, step, size)


def _simplest(value: float, noise: float) -> float:
    """The fraction of smallest denominator (by powers of ten) that is ``value`` within its noise."""
    exact = Fraction(value)
    for digits in range(12):
        simple = exact.limit_denominator(10**digits)
        if abs(simple - exact) <= noise:
            return float(simple)
    return value


def target_grid(geobox: GeoBox) -> Grid:
    """The grid of a north-up GeoBox, whose crops have its step to the bit."""
    affine = geobox.affine
    if affine.b or affine.d:
        raise ValueError("the target grid is rotated: its pixels have no 1-D x and y; give a north-up GeoBox")
    y, x = (
        Axis(round(edge / step * PLACES) / PLACES, step, size)
        for edge, step, size in zip((affine.f, affine.c), (affine.e, affine.a), geobox.shape, strict=True)
    )
    return Grid(y, x, geometry.crs_text(geometry.as_crs(geobox.crs)))


# --- coordinates ------------------------------------------------------------------------------------------------


def coordinates(source: Grid, target: Grid, rows: Window, cols: Window, *, edges: bool = False) -> np.ndarray:
    """Where target pixels lie in the source.

    Parameters
    ----------
    source, target : Grid
        Grids to go from and to.
    rows, cols : (int, int)
        Window of the target, start and stop.
    edges : bool
        Corners of the pixels, one more each way, instead of their centres.

    Returns
    -------
    ndarray of int64 (2, rows, cols)
        y and x in 1/4096 source pixel, counted from the source's global origin; ``NOWHERE`` where the source
        CRS cannot reach. x is not yet brought to the source's turn around the world.
    """
    offset = 0.0 if edges else 0.5
    whole = (round(target.y.start), round(target.x.start))
    shift = (target.y.start - whole[0] + offset, target.x.start - whole[1] + offset)
    first = (whole[0] + rows[0], whole[1] + cols[0])
    shape = (rows[1] - rows[0] + edges, cols[1] - cols[0] + edges)
    out = np.empty((2, *shape), np.int64)

    def project(gy: np.ndarray, gx: np.ndarray) -> np.ndarray:
        return _to_source(source, target, gy + shift[0], gx + shift[1])

    tops, lefts = (
        np.arange(f // CELL, (f + n - 1) // CELL + 1) * CELL for f, n in zip(first, shape, strict=True)
    )
    # All nodes and all midpoints at once: neighbouring cells share them.
    half = CELL // 2
    ys = np.arange(tops[0], tops[-1] + CELL + 1, half)
    xs = np.arange(lefts[0], lefts[-1] + CELL + 1, half)
    nodes = project(*np.meshgrid(ys, xs, indexing="ij"))
    cells = np.stack(np.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2)
    at = (cells - (tops[0], lefts[0])) // half
    samples = nodes[:, at[:, 0, None, None] + _THREE[:, None], at[:, 1, None, None] + _THREE].swapaxes(0, 1)
    size = CELL
    while len(cells):
        good = _agrees(_unwrapped(samples, source, target))
        corners = np.ascontiguousarray(samples[good][:, :, ::2, ::2])
        placing_kernels.fill_cells(cells[good] - first, size, corners, NOWHERE, out)
        cells = cells[~good]
        if size == SMALLEST_CELL:
            break
        size //= 2
        cells = (cells[:, None] + _FOUR * size).reshape(-1, 2)
        inside = (cells + size > first).all(1) & (cells < np.add(first, shape)).all(1)
        cells = cells[inside]
        sub = cells[:, :, None] + _THREE * (size // 2)
        samples = project(*np.broadcast_arrays(sub[:, 0, :, None], sub[:, 1, None, :])).swapaxes(0, 1)
    if len(cells):
        steps = np.arange(size)
        gy, gx = np.broadcast_arrays(
            cells[:, 0, None, None] + steps[:, None], cells[:, 1, None, None] + steps
        )
        inside = (gy >= first[0]) & (gy < first[0] + shape[0]) & (gx >= first[1]) & (gx < first[1] + shape[1])
        gy, gx = gy[inside], gx[inside]
        exact = project(gy, gx) * UNITS
        missing = ~np.isfinite(exact).all(0)
        values = np.rint(np.where(missing, 0, exact)).astype(np.int64)
        out[:, gy - first[0], gx - first[1]] = np.where(missing, NOWHERE, values)
    return out


_THREE = np.arange(3)
_FOUR = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])


def _to_source(source: Grid, target: Grid, gy: np.ndarray, gx: np.ndarray) -> np.ndarray:
    """Positions in global target pixels to global source pixels, NaN where there is no way back."""
    y, x = gy * target.y.step, gx * target.x.step
    way = _way(source.crs, target.crs)
    if way is not None:
        sx, sy = way.transform(x, y)
        back_x, back_y = way.transform(sx, sy, back=True)
        with np.errstate(invalid="ignore"):
            dx, dy = (back_x - x) / target.x.step, (back_y - y) / target.y.step
            if target.period:  # a turn more is the same place, and at a pole every meridian is
                turn = target.period / UNITS
                dx = (dx - turn * np.round(dx / turn)) * np.cos(np.radians(np.clip(y, -90, 90)))
            lost = ~(np.hypot(dx, dy) < 0.5)  # also where PROJ gave inf
        y, x = np.where(lost, np.nan, sy), np.where(lost, np.nan, sx)
    found = np.stack([y / source.y.step, x / source.x.step])
    if way is not None and source.period and target.period:
        # on the turn of the target: PROJ begins anew at 180°
        turn = source.period / UNITS
        found[1] -= turn * np.round(found[1] / turn - gx / (target.period / UNITS))
    found[:, (np.abs(found) > FAR).any(0)] = np.nan  # the other pole of a polar projection
    return found


@lru_cache(maxsize=256)
def _way(source: str, target: str) -> Transformer | None:
    """From target to source; None where they are one. By text: a CRS's hash writes its WKT anew."""
    src, dst = geometry.as_crs(source), geometry.as_crs(target)
    if geometry.same_crs(src, dst):
        return None
    return geometry.transformer(dst, src)


def _unwrapped(samples: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Bring x of each cell on one turn around the world, that of its first corner.

    Where the target is in degrees, x runs on by itself, and a cell may be wider than a turn.
    """
    if source.period and not target.period:
        turn = source.period / UNITS
        x = samples[:, 1]
        samples[:, 1] = x - turn * np.round((x - x[:, :1, :1]) / turn)
    return samples


def _agrees(samples: np.ndarray) -> np.ndarray:
    """Whether bilinear interpolation of a cell's corners meets PROJ at its middle and its edges' middles.

    ``samples`` has shape (cells, 2, 3, 3). A cell that cannot be reached at any of its nine points counts.
    """
    corners = samples[:, :, ::2, ::2]
    straight = np.empty_like(samples)
    straight[:, :, ::2, ::2] = corners
    straight[:, :, 1, ::2] = corners.mean(2)
    straight[:, :, ::2, 1] = corners.mean(3)
    straight[:, :, 1, 1] = corners.mean((2, 3))
    good = (np.abs(samples - straight) <= TOLERANCE).all((1, 2, 3))
    unreachable = np.isnan(samples).all((1, 2, 3))
    return np.asarray(good | unreachable)


def local(units: np.ndarray, source: Grid, window: tuple[Window, Window]) -> np.ndarray:
    """Coordinates counted from a window of the source, x on the turn that is nearest to the window.

    Parameters
    ----------
    units : ndarray of int64 (2, rows, cols)
        Coordinates from :func:`coordinates`; changed in place.
    source : Grid
        The grid.
    window : ((int, int), (int, int))
        Rows and columns of the source; columns of a grid around the world may run past its end.
    """
    (top, _), (left, right) = window
    start_y, start_x = source.origin
    units[0] -= start_y + top * UNITS
    units[1] -= start_x + left * UNITS
    if source.period:
        low = (right - left) * UNITS // 2 - source.period // 2
        nowhere = units[0] < NOWHERE // 2
        units[1] = np.where(nowhere, NOWHERE, (units[1] - low) % source.period + low)
    return units


@dataclass(frozen=True)
class Footprints:
    """Target pixels as quadrangles in a window of the source.

    Parameters
    ----------
    at : ndarray of int64 (2, rows + 1, columns + 1)
        Corners from :func:`local`.
    torn : ndarray of int (n, 2)
        Pixels whose corners are there on different turns around the world.
    corners : ndarray of int64 (2, 2, 3 n)
        Corners of the torn pixels on one turn. Every third pixel is one of them, those between are nowhere.
    columns : ndarray of int
        The window's columns that those corners count, -1 for one beside the window.
    """

    at: np.ndarray
    torn: np.ndarray
    corners: np.ndarray
    columns: np.ndarray


def footprints(
    source: Grid, target: Grid, rows: Window, cols: Window, window: tuple[Window, Window]
) -> Footprints:
    """The corners of target pixels in a window of the source; of those that the turn's end tears, once more.

    Parameters
    ----------
    source, target : Grid
        Grids to go from and to.
    rows, cols : (int, int)
        Window of the target.
    window : ((int, int), (int, int))
        Window of the source that corners are counted from.
    """
    units = coordinates(source, target, rows, cols, edges=True)
    at = local(units.copy(), source, window)
    reached = at[1][at[0] > NOWHERE // 2]
    wide = 0 < target.period <= 2 * UNITS
    if not source.period or not reached.size or (np.ptp(reached) < source.period // 2 and not wide):
        none = np.zeros((0, 2), np.int64)
        return Footprints(at, none, np.empty((2, 2, 0), np.int64), none[:, 0])
    x, lost = corners_of(units[1]), corners_of(at[0]).min(0) < NOWHERE // 2
    across = np.where(lost, 0, x - x[0])
    if not target.period:  # only in degrees may a pixel be wider than half a turn
        across -= np.rint(across / source.period).astype(np.int64) * source.period
    folded = corners_of(at[1])
    torn = np.argwhere((folded - folded[0] != across).any(0) & ~lost)
    i, j = torn.T
    first = folded[0, i, j] + across[:, i, j].min(0)
    x = first % source.period + across[:, i, j] - across[:, i, j].min(0)
    # a turn is a whole number of columns, the last of which may be cut: what lies beyond is moved by the rest of it
    turn = -(-source.period // UNITS)
    x += x // source.period * (turn * UNITS - source.period)
    start, stop = (int(x.min()) >> 12, (int(x.max()) >> 12) + 1) if len(torn) else (0, 0)
    both = np.stack([corners_of(at[0])[:, i, j], x - start * UNITS]).reshape(2, 2, 2, -1)
    corners = np.full((2, 2, len(torn), 3), NOWHERE)
    corners[..., :2] = np.moveaxis(both, 2, -1)
    columns = np.arange(start, stop) % turn
    width = window[1][1] - window[1][0]
    return Footprints(
        at, torn, corners.reshape(2, 2, -1), np.where(columns < width, columns, -1).astype(np.int64)
    )


def corners_of(grid: np.ndarray) -> np.ndarray:
    """The four corners of each pixel: (4, rows, columns)."""
    rows, cols = grid.shape[0] - 1, grid.shape[1] - 1
    return np.stack([grid[i : i + rows, j : j + cols] for i in (0, 1) for j in (0, 1)])


# --- which part of the source a block needs --------------------------------------------------------------------

_SAMPLES = 4  # a block is sampled at 5 × 5 corners


def reach(source: Grid, target: Grid, row_edges: np.ndarray, col_edges: np.ndarray) -> np.ndarray:
    """Windows of the source that blocks of the target lie in, with a margin for interpolation.

    Parameters
    ----------
    source, target : Grid
        Grids to go from and to.
    row_edges, col_edges : ndarray of int (blocks + 1,)
        Where the blocks begin and end.

    Returns
    -------
    ndarray of int32 (row blocks, column blocks, 2, 2)
        First and last + 1, of rows and of columns; empty where a block meets nothing.
    """
    out = np.zeros((len(row_edges) - 1, len(col_edges) - 1, 2, 2), np.int32)
    xs = _sampled(col_edges) + target.x.start
    for i in range(len(row_edges) - 1):  # a row of blocks at a time bounds the memory
        ys = _sampled(row_edges[i : i + 2]) + target.y.start
        points = _to_source(source, target, *np.meshgrid(ys.ravel(), xs.ravel(), indexing="ij"))
        blocks = points.reshape(2, _SAMPLES + 1, len(xs), _SAMPLES + 1).transpose(2, 0, 1, 3)
        blocks = _unwrapped(np.ascontiguousarray(blocks), source, target)
        low, high, smooth = _ranges(blocks)
        for j in np.flatnonzero(~smooth):
            rows, cols = (
                (int(row_edges[i]), int(row_edges[i + 1])),
                (int(col_edges[j]), int(col_edges[j + 1])),
            )
            low[j], high[j] = _exact_range(source, target, rows, cols)
        out[i] = _windows(low, high, source)
    return out


def _sampled(edges: np.ndarray) -> np.ndarray:
    """``_SAMPLES`` + 1 even positions in each block, shape (blocks, samples)."""
    return edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(_SAMPLES + 1) / _SAMPLES)


def _ranges(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest and highest y and x of blocks, and whether the samples tell."""
    with np.errstate(invalid="ignore"):
        low, high = blocks.min((2, 3)), blocks.max((2, 3))
        bends = [np.abs(np.diff(blocks, 2, axis)).max((2, 3)) for axis in (2, 3)]
        bend = np.maximum(*bends)
        smooth = (bend <= 0.05 * (high - low) + 1).all(1)
    # Between samples a smooth curve leaves its chord by an eighth of the second difference.
    return low - bend, high + bend, smooth


def _exact_range(source: Grid, target: Grid, rows: Window, cols: Window) -> tuple[np.ndarray, np.ndarray]:
    """The range of a block from all its corners and centres; an empty one where none can be reached."""
    units = np.concatenate(
        [coordinates(source, target, rows, cols, edges=e).reshape(2, -1) for e in (True, False)], axis=1
    )
    units = units[:, units[0] != NOWHERE]
    if not units.size:
        return np.array([0.0, 0.0]), np.array([-1e9, -1e9])
    points = units / UNITS
    if source.period:
        turn = source.period / UNITS
        points[1] -= turn * np.round((points[1] - points[1, 0]) / turn)
        if np.ptp(points[1]) > turn / 2:  # a pole may be in it, with all its meridians
            points[1, :2] = points[1, 0] - turn / 2, points[1, 0] + turn / 2
    return points.min(1), points.max(1)


def _windows(low: np.ndarray, high: np.ndarray, source: Grid) -> np.ndarray:
    """Ranges as windows of the source, two pixels wider each way: taps of bilinear, and rounding."""
    windows = np.zeros((len(low), 2, 2), np.int64)
    for axis, (along, start) in enumerate(((source.y, source.origin[0]), (source.x, source.origin[1]))):
        first = np.floor(low[:, axis] - start / UNITS) - 2
        last = np.ceil(high[:, axis] - start / UNITS) + 2
        if axis == 1 and source.period:
            turn = source.period / UNITS
            # the turn on which the block's middle is nearest to the source's
            shift = turn * np.round(((first + last) / 2 - along.size / 2) / turn)
            first, last = first - shift, last - shift
        if axis == 1 and source.around:
            first, last = _around(first, last, along.size)
        else:
            if axis == 1 and source.period:
                # a wide block may meet both ends of the source, one of them a turn away
                both = (last > first) & ((first < along.size - turn) | (last > turn))
                first, last = np.where(both, 0, first), np.where(both, along.size, last)
            first, last = np.clip(first, 0, along.size), np.clip(last, 0, along.size)
        windows[:, axis] = np.stack([first, last], -1)
    empty = (windows[..., 1] <= windows[..., 0]).any(1)
    windows[empty] = 0
    return windows


def _around(first: np.ndarray, last: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns that begin inside the grid and may run past its end: at most the circle, and two more each way."""
    width = np.clip(last - first, 0, size + 4)
    first = np.mod(first, size)
    return first, first + width
