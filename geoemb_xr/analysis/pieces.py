"""Years of a block side by side, some thousand pixels at a time.

What compares or orders years needs all of them at one place. Decoded whole, four years of a block of 512² pixels
are 268 MB, far beyond a cache. Here each year is read where it lies, as it is, into one small buffer ``(band,
year, pixel)``. Kernels decode a row of it at a time: see :mod:`geoemb_xr.analysis.year_kernels`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoemb_xr.analysis import year_kernels
from geoemb_xr.core import kernels
from geoemb_xr.execution.blocks import Block

#: Bytes of all years in a piece, a few of which a third-level cache holds.
_BYTES = 1 << 20
#: Pixels that one call of a loop takes of years that lie side by side, of which a twin in NumPy makes float64.
LONG = 1 << 14
#: Pieces are multiples of so many pixels, and whole even where pixels are fewer: a loop over one has no remainder,
#: whose sums could be rounded in another order than those of the others.
_STEP = year_kernels.LANES


@dataclass(frozen=True)
class YearPiece:
    """Some pixels of all years; kernels take all but ``where``.

    Parameters
    ----------
    where : slice
        Which pixels of the block, in C order; a buffer holds more of them in a block's last piece.
    values : ndarray of int8 or float32 (band, year, pixel)
        Codes, or vectors; those without data are zeros. A buffer that is used again, as the others are.
    square : bool
        Whether a vector is ``q · |q| · scale``, or ``q · scale``.
    scale : ndarray of float32 (year, pixel)
        The scales; 0 where there is no data.
    there : ndarray of bool (year, pixel)
        Which vectors have data.
    """

    where: slice
    values: np.ndarray
    square: bool
    scale: np.ndarray
    there: np.ndarray

    @property
    def size(self) -> int:
        """Number of pixels of the block."""
        return int(self.where.stop - self.where.start)

    @property
    def vectors(self) -> tuple[np.ndarray, bool, np.ndarray, np.ndarray]:
        """What kernels decode."""
        return self.values, self.square, self.scale, self.there


def pieces(years: Sequence[Block], start: int = 0, stop: int | None = None) -> Iterator[YearPiece]:
    """The years of a block, or of its pixels from ``start`` to ``stop``, piece by piece."""
    planes = [planes_of(each) for each in years]
    codec, stop = years[0].codec, years[0].pixels if stop is None else stop
    pixels = stop - start
    if not pixels:
        return
    power = 0 if codec is None or codec.dtype != "int8" else codec.power
    shape = (bands_of(years), len(years))
    size = _BYTES // (shape[0] * shape[1] * (1 if power else 4)) // _STEP * _STEP
    size = max(min(size, -(-pixels // _STEP) * _STEP), _STEP)
    values = np.zeros((*shape, size), np.int8 if power else np.float32)
    scale = np.ones((len(years), size), np.float32)
    there = np.zeros((len(years), size), np.bool_)
    for first in range(start, stop, size):
        where = slice(first, min(first + size, stop))
        piece = YearPiece(where, values, power == 2, scale, there)
        for number, (block, own) in enumerate(zip(years, planes, strict=True)):
            _load(block, own, number, power, piece)
        yield piece


def rows_of_codes(years: Sequence[Block]) -> Iterator[tuple[slice, int, list[np.ndarray]]]:
    """Some pixels, the place of the first in the codes, and codes of all years, ``(band, pixel)``, C-contiguous.

    Codes that lie so are given as they lie. Pixels are some at a time, since a twin in NumPy holds 8 bytes a code.
    """
    planes, pixels = [planes_of(each) for each in years], years[0].pixels
    lie_so = all(each.ndim == 2 and each.flags.c_contiguous for each in planes)
    for start in range(0, pixels, LONG):
        where = slice(start, min(start + LONG, pixels))
        if lie_so:
            yield where, start, planes
        else:
            yield where, 0, [_copied(each, where) for each in planes]


def bands_of(years: Sequence[Block]) -> int:
    """Number of bands of the decoded vectors."""
    first = years[0]
    if first.codec is not None and first.codec.bands:
        return len(first.codec.bands)
    return int(first.data.shape[first.axis])


def planes_of(block: Block) -> np.ndarray:
    """A view of a block as ``(band, pixel)``, or as ``(band, row, column)`` where rows do not follow each other."""
    planes = np.moveaxis(block.data, block.axis, 0)
    steps = planes.strides[1:]
    if all(step == n * inner for step, n, inner in zip(steps, planes.shape[2:], steps[1:], strict=False)):
        return planes.reshape(len(planes), -1)
    return planes.reshape(len(planes), -1, planes.shape[-1])


def _copied(planes: np.ndarray, where: slice) -> np.ndarray:
    """Some pixels of :func:`planes_of`, ``(band, pixel)``, C-contiguous."""
    if planes.ndim == 3:  # a window of a larger array: some of its rows
        columns = planes.shape[2]
        first = where.start // columns
        planes = planes[:, first : -(-where.stop // columns)].reshape(len(planes), -1)
        where = slice(where.start - first * columns, where.stop - first * columns)
    own = planes[:, where]
    last = own.strides[0] == own.itemsize == 1  # of floats NumPy turns so few in half the time
    return kernels.band_first(own.T, 0) if last else np.ascontiguousarray(own)


def _load(block: Block, planes: np.ndarray, year: int, power: int, piece: YearPiece) -> None:
    """Copy some pixels of one year into a piece."""
    where, start, size = piece.where, piece.where.start, piece.size
    scale = None if block.scale is None else block.scale.reshape(-1)[where]
    if planes.ndim == 3 or not planes.flags.c_contiguous:
        planes, start = _copied(planes, where), 0
    if power == 2:
        assert block.codec is not None
        load_codes(
            planes, start, size, block.codec.nodata, np.float32(block.codec.factor), year,
            piece.values, piece.scale, piece.there,
        )  # fmt: skip
    elif power == 1:
        assert scale is not None
        known = np.isfinite(scale) & (scale != 0)
        np.multiply(planes[:, start : start + size], known, out=piece.values[:, year, :size])
        piece.there[year, :size] = known
        piece.scale[year, :size] = np.where(known, scale, 0)
    else:
        if block.codec is not None:
            planes, start = block.codec.decode(planes[:, start : start + size], scale, 0), 0
        if planes.dtype != np.float32 or not planes.flags.c_contiguous:
            planes, start = np.ascontiguousarray(planes[:, start : start + size], np.float32), 0
        load_vectors(planes, start, size, year, piece.values, piece.there)


@kernels.jit_exact
def load_codes(
    planes: Any,
    start: Any,
    size: Any,
    nodata: Any,
    factor: Any,
    year: Any,
    values: Any,
    scale: Any,
    there: Any,
) -> None:
    """Copy ``size`` codes of each of ``(band, pixel)``; vectors with ``nodata``, the least code, are zeros."""
    least, of = np.zeros(size, np.int8), np.uint64(start)
    for b in range(planes.shape[0]):
        for j in range(np.uint64(size)):
            code = planes[b, of + j]
            values[b, year, j] = code
            least[j] = code if code < least[j] else least[j]
    gone = 0
    for j in range(size):
        there[year, j] = least[j] > nodata
        scale[year, j] = factor if least[j] > nodata else np.float32(0)
        gone += least[j] <= nodata
    if gone:
        for b in range(planes.shape[0]):
            for j in range(size):
                values[b, year, j] = values[b, year, j] if there[year, j] else 0


@load_codes.in_numpy_bitwise
def _load_codes_numpy(
    planes: Any,
    start: Any,
    size: Any,
    nodata: Any,
    factor: Any,
    year: Any,
    values: Any,
    scale: Any,
    there: Any,
) -> None:
    piece = planes[:, start : start + size]
    there[year, :size] = (piece != nodata).all(axis=0)
    values[:, year, :size] = np.where(there[year, :size], piece, 0)
    scale[year, :size] = there[year, :size] * factor


@kernels.jit_exact
def load_vectors(planes: Any, start: Any, size: Any, year: Any, values: Any, there: Any) -> None:
    """Copy ``size`` pixels of vectors ``(band, pixel)`` from ``start`` on; those not finite are missing: zeros."""
    nothing, of = np.zeros(size, np.float32), np.uint64(start)
    for b in range(planes.shape[0]):
        for j in range(np.uint64(size)):
            values[b, year, j] = planes[b, of + j]
            nothing[j] += planes[b, of + j] * np.float32(0)  # NaN for what is not finite
    gone = 0
    for j in range(size):
        there[year, j] = nothing[j] == 0
        gone += nothing[j] != 0
    if gone:
        for b in range(planes.shape[0]):
            for j in range(size):
                values[b, year, j] = values[b, year, j] if nothing[j] == 0 else np.float32(0)


@load_vectors.in_numpy_bitwise
def _load_vectors_numpy(planes: Any, start: Any, size: Any, year: Any, values: Any, there: Any) -> None:
    piece = planes[:, start : start + size]
    there[year, :size] = np.isfinite(piece).all(axis=0)
    values[:, year, :size] = np.where(there[year, :size], piece, 0)
