"""One block of a warp: lay the source's pixels band-last, find their places, loop once over all bands.

Codes are only ever moved; what is mixed are vectors, decoded by the loop that mixes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from geoemb_xr.core import buffers
from geoemb_xr.core.model import Codec
from geoemb_xr.geo import cells, lattice, resampling_kernels, resampling_memory
from geoemb_xr.geo.lattice import Grid, Window
from geoemb_xr.geo.resampling_memory import Part

Resampling = Literal["nearest", "bilinear", "average", "mode"]
Rule = Literal["first", "nearest-centre"]


@dataclass(frozen=True)
class Content:
    """The content of an array's pixels: its missing value, and the conversion to floats and back.

    Parameters
    ----------
    dtype : str
        The stored data type.
    fill : int, float or bool
        A missing value.
    codec : Codec, optional
        Codec of codes.
    unit : bool
        Whether vectors have unit length, so that means are renormalised.
    rgb : bool
        Whether it is a picture: red, green, blue and, last, opacity.
    """

    dtype: str
    fill: float
    codec: Codec | None = None
    unit: bool = False
    rgb: bool = False

    def mixable(
        self, window: np.ndarray, scale: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, int | None]:
        """Band-last values, each pixel's factor (0 where missing) and the power: what kernels that mix take."""
        codec = self.codec
        if codec is None or not codec.power:
            values = self._floats(window, scale)
            return values, np.where(np.isnan(values[..., 0]), 0, 1).astype(values.dtype), None
        if scale is not None:
            scale = scale[..., 0]
            return window, np.where(np.isfinite(scale), scale, 0).astype(np.float32), codec.power
        factors = np.empty(window.shape[:-1], np.float32)
        flat = window.reshape(-1, window.shape[-1])
        resampling_kernels.square_factors(flat, codec.nodata, np.float32(codec.factor), factors.reshape(-1))
        return window, factors, codec.power

    def summable(
        self, window: np.ndarray, scale: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, int | None]:
        """What :meth:`mixable` gives, for sums that are multiplied by :attr:`by` in the end.

        Signed squares are whole numbers until then, and their sums are exact.
        """
        values, factors, power = self.mixable(window, scale)
        return values, (factors != 0).astype(factors.dtype) if power == 2 else factors, power

    @property
    def by(self) -> float:
        """What means of summable values are multiplied by."""
        return (
            float(np.float32(self.codec.factor)) if self.codec is not None and self.codec.power == 2 else 1.0
        )

    def _floats(self, window: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
        """Band-last values as floats, NaN where missing."""
        if self.codec is not None:
            return self.codec.decode(window, None if scale is None else scale[..., 0], window.ndim - 1)
        if self.rgb:
            return np.where(window[..., -1:] == 0, np.float32(np.nan), window.astype(np.float32))
        return window if self.dtype in ("float32", "float64") else window.astype(np.float32)

    @property
    def float_dtype(self) -> str:
        """Data type of means."""
        return "float64" if self.dtype == "float64" else "float32"

    def stored(self, values: np.ndarray) -> np.ndarray:
        """The inverse for pictures; vectors stay decoded."""
        if self.rgb:
            return np.nan_to_num(np.rint(values)).astype(self.dtype)
        return values

    def valid(self, result: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
        """Which pixels of a band-last result have data."""
        if scale is not None:
            valid: np.ndarray = np.isfinite(scale[..., 0]) & (scale[..., 0] != 0)
        elif result.dtype.kind == "f":
            valid = ~np.isnan(result[..., 0])
        elif self.rgb:
            valid = result[..., -1] != 0
        elif self.codec is not None:
            valid = (result != self.fill).all(-1)
        else:
            valid = result[..., 0] != self.fill
        return valid


@dataclass(frozen=True)
class Warp:
    """The settings that all blocks of a result share; called with a block's own and its source blocks.

    Parameters
    ----------
    sources : tuple of Grid
        One grid per array, north-up.
    flips : tuple of (bool, bool)
        Whether an array's rows and columns run the other way.
    target : Grid
        Grid of the result.
    order : tuple of int
        Axes of a source block that come as (others…, vector?, y, x).
    vector : bool
        Whether there is a vector axis.
    content : Content
        The kind of values.
    how : str
        The resampling.
    rule : str
        Rule for which source wins where several have data.
    stats : bool
        Whether resultant length and valid share are wanted.
    scaled : bool
        Whether each source block comes with a block of scales.
    """

    sources: tuple[Grid, ...]
    flips: tuple[tuple[bool, bool], ...]
    target: Grid
    order: tuple[int, ...]
    vector: bool
    content: Content
    how: Resampling
    rule: Rule
    stats: bool
    scaled: bool

    @property
    def dtype(self) -> str:
        """Data type of the result."""
        moved = self.how in ("nearest", "mode") or self.content.rgb
        return self.content.dtype if moved else self.content.float_dtype

    @property
    def missing(self) -> float:
        """A missing value of the result."""
        return math.nan if np.dtype(self.dtype).kind == "f" else self.content.fill

    @property
    def _bands_last(self) -> bool:
        """Whether bands come last in the array."""
        return self.vector and self.order[-3] == len(self.order) - 1

    def shrink(self, number: int = 0) -> float:
        """Nominal source pixels a side of a target pixel."""
        return self.target.metres / self.sources[number].metres

    def bands(self, stored: int) -> int:
        """Length of the result's vectors: decoding may change it."""
        codec = self.content.codec
        return len(codec.bands) if codec is not None and codec.bands and self.how != "nearest" else stored

    def __call__(
        self,
        rows: Window,
        cols: Window,
        others: tuple[int, ...],
        stored: int,
        parts: tuple[Part, ...],
        *blocks: Any,
    ) -> Any:
        """One block, dimensions in the array's order; with ``stats`` also those, (others…, y, x, 2)."""
        shape = (math.prod(others), rows[1] - rows[0], cols[1] - cols[0])
        queue = iter(blocks)
        if len(parts) == 1:
            result, _, stats = self._resample(parts[0], queue, rows, cols)
            return self._block(result, stats, others)
        result = np.full((shape[0], self.bands(stored), *shape[1:]), self.missing, self.dtype)
        stats = np.full((*shape, 2), (np.nan, 0), np.float32)
        nearest = np.full(shape, np.inf)
        for part in parts:
            one, scale, _ = self._resample(part, queue, rows, cols)
            distance = 0.0 if self.rule == "first" else self._distance(part[0], rows, cols)
            wins = self.content.valid(one, scale) & (distance < nearest)
            np.copyto(result, np.moveaxis(one, -1, 1), where=wins[:, None])
            nearest = np.where(wins, distance, nearest)
        return self._block(np.moveaxis(result, 1, -1), stats, others)

    def _block(self, result: np.ndarray, stats: np.ndarray, others: tuple[int, ...]) -> Any:
        """A result (others, y, x, bands) in the array's order of dimensions, its memory as it is."""
        block = result.reshape(*others, *result.shape[1:])
        block = np.moveaxis(block, -1, len(others)) if self.vector else block[..., 0]
        block = block.transpose(np.argsort(self.order))
        return (block, stats.reshape(*others, *stats.shape[1:])) if self.stats else block

    def _next_blocks(
        self, part: Part, queue: Iterator[Any]
    ) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        """A source's next blocks as (others, bands, y, x), north-up, and their scales."""
        number, _, row_edges, col_edges = part
        count = (len(row_edges) - 1) * (len(col_edges) - 1)
        vectors = [next(queue).transpose(self.order) for _ in range(count)]
        if not self.vector:
            vectors = [block[..., None, :, :] for block in vectors]
        vectors = self._north_up(vectors, number)
        if not self.scaled:
            return vectors, None
        return vectors, self._north_up([next(queue)[..., None, :, :] for _ in range(count)], number)

    def _north_up(self, blocks: list[np.ndarray], number: int) -> list[np.ndarray]:
        """Blocks as (others, bands, y, x)."""
        flip_y, flip_x = self.flips[number]
        turn = (..., slice(None, None, -1 if flip_y else 1), slice(None, None, -1 if flip_x else 1))
        return [block.reshape(-1, *block.shape[-3:])[turn] for block in blocks]

    def _resample(
        self, part: Part, queue: Iterator[Any], rows: Window, cols: Window
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Values of a block from one source, band-last, nearest scales, and statistics."""
        number, window, *edges = part
        blocks, scales = self._next_blocks(part, queue)
        source = self.sources[number]
        if self.how in ("average", "mode"):
            feet = lattice.footprints(source, self.target, rows, cols, window)
            at = feet.at
        else:
            at = lattice.local(lattice.coordinates(source, self.target, rows, cols), source, window)
        whole = self._cells(blocks, scales, part, at)
        if whole is not None:
            return whole, None, np.empty(0)
        if self.how == "nearest":
            moved = resampling_memory.gather(blocks, part, at, self.content.fill, self._bands_last)
            if scales is None:
                return moved, None, np.empty(0)
            return moved, resampling_memory.gather(scales, part, at, np.nan, self._bands_last), np.empty(0)
        pixels = resampling_memory.lay(blocks, window, *edges)
        scale = None if scales is None else resampling_memory.lay(scales, window, *edges)
        if self.how == "bilinear":
            return self.content.stored(self._interpolated(pixels, scale, at)), None, np.empty(0)
        out, stats = self._over_footprints(pixels, scale, at)
        if len(feet.torn):
            i, j = feet.torn.T
            again, stats_again = self._over_footprints(*self._columns(pixels, scale, feet), feet.corners)
            out[:, i, j], stats[:, i, j] = again[:, 0, ::3], stats_again[:, 0, ::3]
        return self.content.stored(out), None, stats

    def _columns(
        self, pixels: np.ndarray, scale: np.ndarray | None, feet: lattice.Footprints
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The columns of a window in which torn footprints lie whole, and their scales."""
        beside = feet.columns < 0
        pixels = np.take(pixels, feet.columns, 2)  # lies as before: kernels are compiled for each order
        pixels[:, :, beside] = self.content.fill
        if scale is not None:
            scale = np.take(scale, feet.columns, 2)
            scale[:, :, beside] = np.nan
        return pixels, scale

    def _over_footprints(
        self, pixels: np.ndarray, scale: np.ndarray | None, at: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means or commonest classes of footprints with these corners, and statistics."""
        shape = (len(pixels), at.shape[1] - 1, at.shape[2] - 1)
        stats = np.empty((*shape, 2), np.float32)
        if self.how == "mode":
            modes = np.empty((*shape, 1), pixels.dtype)
            counts = np.zeros(np.iinfo(pixels.dtype).max + 1, np.int64)
            for i in range(len(pixels)):
                resampling_kernels.mode(pixels[i, ..., 0], at, self.content.fill, counts, modes[i, ..., 0])
            return modes, stats
        out = np.empty((*shape, self.bands(pixels.shape[-1])), self.content.float_dtype)
        for i in range(len(pixels)):
            values = self.content.summable(pixels[i], None if scale is None else scale[i])
            resampling_kernels.average(
                *values, at, self.stats, self.content.unit, self.content.by, out[i], stats[i]
            )
        return out, stats

    def _interpolated(self, pixels: np.ndarray, scale: np.ndarray | None, at: np.ndarray) -> np.ndarray:
        first, (_, rows, cols) = not self._bands_last, at.shape
        bands, dtype = self.bands(pixels.shape[-1]), self.content.float_dtype
        sizes = (bands, rows, cols) if first else (rows, cols, bands)
        out = buffers.empty((len(pixels), *sizes), dtype)
        for i, window in enumerate(pixels):
            mixable = self.content.mixable(window, None if scale is None else scale[i])
            decoded = resampling_memory.for_decoded(*mixable)
            resampling_kernels.bilinear(*mixable, decoded, at, self.content.unit, first, out[i])
        return np.moveaxis(out, 1, -1) if first else out

    def _cells(
        self, blocks: list[np.ndarray], scales: list[np.ndarray] | None, part: Part, at: np.ndarray
    ) -> np.ndarray | None:
        """Means of whole cells, where that is what is asked for."""
        codec, (_, ((top, _), (left, _)), *edges) = self.content.codec, part
        mixed = self.content.dtype in ("float32", "float64") if codec is None else codec.power
        if self.how != "average" or self.stats or len(self.sources) > 1 or not mixed:
            return None
        return cells.means(blocks, scales, codec, (edges[0], edges[1]), (top, left), at, self.content.unit)

    # --- footprints of many pixels: sums of squares of the source, joined -------------------------------------

    def add(
        self, rows: Window, cols: Window, stored: int, part: Part, *blocks: Any
    ) -> tuple[int, int, np.ndarray]:
        """Sums of one square of the source for the target pixels it touches: (others, y, x, bands + 2)."""
        number, window, *edges = part
        vectors, scales = self._next_blocks(part, iter(blocks))
        pixels, scale = (
            resampling_memory.lay(vectors, window, *edges),
            None if scales is None else resampling_memory.lay(scales, window, *edges),
        )
        feet = lattice.footprints(self.sources[number], self.target, rows, cols, window)
        (r0, r1), (c0, c1) = _touching(feet, *pixels.shape[1:3])
        at = np.ascontiguousarray(feet.at[:, r0 : r1 + 1, c0 : c1 + 1])
        sums = self._sums(pixels, scale, at, stored)
        if len(feet.torn):
            i, j = (feet.torn - (r0, c0)).T
            sums[:, i, j] = self._sums(*self._columns(pixels, scale, feet), feet.corners, stored)[:, 0, ::3]
        return rows[0] + r0, cols[0] + c0, sums

    def _sums(self, pixels: np.ndarray, scale: np.ndarray | None, at: np.ndarray, stored: int) -> np.ndarray:
        """Sums over footprints with these corners: (others, y, x, bands + 2)."""
        sums = np.zeros((len(pixels), at.shape[1] - 1, at.shape[2] - 1, self.bands(stored) + 2))
        for i in range(len(pixels)):
            values = self.content.summable(pixels[i], None if scale is None else scale[i])
            resampling_kernels.add_footprints(*values, at, sums[i])
        return sums

    @staticmethod
    def join(*parts: tuple[int, int, np.ndarray]) -> tuple[int, int, np.ndarray]:
        """Sums of several squares as one, added in their order."""
        top, left = min(p[0] for p in parts), min(p[1] for p in parts)
        bottom, right = max(r + p.shape[1] for r, _, p in parts), max(c + p.shape[2] for _, c, p in parts)
        others, bands = parts[0][2].shape[0], parts[0][2].shape[-1]
        total = np.zeros((others, bottom - top, right - left, bands))
        for r, c, sums in parts:
            total[:, r - top : r - top + sums.shape[1], c - left : c - left + sums.shape[2]] += sums
        return top, left, total

    def finish(
        self,
        rows: Window,
        cols: Window,
        others: tuple[int, ...],
        stored: int,
        *parts: tuple[int, int, np.ndarray],
    ) -> Any:
        """The block that sums make."""
        shape = (math.prod(others), rows[1] - rows[0], cols[1] - cols[0])
        nothing = (rows[0], cols[0], np.zeros((*shape, self.bands(stored) + 2)))
        sums = self.join(nothing, *parts)[2]
        source = self.sources[0]
        feet = lattice.footprints(source, self.target, rows, cols, ((0, 0), (0, source.x.size)))
        out, stats = self._means(sums, feet.at)
        if len(feet.torn):
            i, j = feet.torn.T
            own = np.repeat(sums[:, None, i, j], 3, axis=2)[:, :, :-1]
            again, stats_again = self._means(own, feet.corners)
            out[:, i, j], stats[:, i, j] = again[:, 0, ::3], stats_again[:, 0, ::3]
        return self._block(self.content.stored(out), stats, others)

    def _means(self, sums: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means of sums over footprints with these corners, and statistics."""
        out = np.empty((*sums.shape[:3], sums.shape[3] - 2), self.content.float_dtype)
        stats = np.empty((*sums.shape[:3], 2), np.float32)
        for i in range(len(sums)):
            resampling_kernels.finish_means(sums[i], at, self.content.unit, self.content.by, out[i], stats[i])
        return out, stats

    def _distance(self, number: int, rows: Window, cols: Window) -> np.ndarray:
        """Squared metres from pixels to the centre of a source."""
        source = self.sources[number]
        at = lattice.coordinates(source, self.target, rows, cols)
        at = lattice.local(at, source, ((0, source.y.size), (0, source.x.size)))
        middle = source.y.start + source.y.size / 2
        dy, dx = source.metre_steps(middle * source.y.step)
        north = (at[0] / lattice.UNITS - source.y.size / 2) * dy
        east = (at[1] / lattice.UNITS - source.x.size / 2) * dx
        return np.asarray(north**2 + east**2)


def _touching(feet: lattice.Footprints, height: int, width: int) -> tuple[Window, Window]:
    """Rows and columns of the target pixels whose footprints may touch a window."""
    corners = np.stack([lattice.corners_of(each) for each in feet.at])
    low, high = corners.min(1) >> 12, corners.max(1) >> 12
    touching = (low[0] < height) & (high[0] >= 0) & (low[1] < width) & (high[1] >= 0)
    touching[tuple(feet.torn.T)] = True
    rows, cols = np.flatnonzero(touching.any(1)), np.flatnonzero(touching.any(0))
    if not rows.size:
        return (0, 0), (0, 0)
    return (int(rows[0]), int(rows[-1]) + 1), (int(cols[0]), int(cols[-1]) + 1)
