"""How far each year of a block is from the one before, some thousand pixels at a time.

Angles of codes and vectors that lie band by band are summed where they lie: a block is read once, in long rows, and
nothing is copied. What lies otherwise, has scales, or misses some years goes through
:mod:`~geoemb_xr.analysis.pieces`, with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from geoemb_xr.analysis import year_kernels
from geoemb_xr.analysis.pieces import YearPiece, pieces, planes_of
from geoemb_xr.execution.blocks import Block

#: Pixels whose sums are held at once: those of four years are half a second-level cache, and rows of so many codes
#: are read at more than half the speed of memory.
_ROW = 32 * year_kernels.LANES


def steps(years: Sequence[Block], metric: str) -> Iterator[tuple[slice, np.ndarray]]:
    """Pixels, and distances ``(step, n)`` from each year to the next one with data, NaN for a year without."""
    done, pixels = 0, years[0].pixels
    planes = None if metric == "euclidean" else _side_by_side(years)
    if planes is not None:
        done = pixels // year_kernels.LANES * year_kernels.LANES
        for start in range(0, done, _ROW):
            where = slice(start, min(start + _ROW, done))
            found, there = _summed(years, planes, where, metric)
            if len(years) == 2 or (there.any(axis=0) == there.all(axis=0)).all():
                yield where, found
            else:
                yield from _carried(years, where, metric)
    yield from _carried(years, slice(done, pixels), metric)


def _side_by_side(years: Sequence[Block]) -> list[np.ndarray] | None:
    """Codes without scales, or vectors, ``(band, pixel)``, if all years lie so."""
    codec = years[0].codec
    planes = [planes_of(each) for each in years]
    kind = np.float32 if codec is None else np.int8
    fits = all(each.ndim == 2 and each.dtype == kind and each.flags.c_contiguous for each in planes)
    return planes if fits and len(planes[0]) % 2 == 0 and (codec is None or codec.power == 2) else None


def _summed(
    years: Sequence[Block], planes: list[np.ndarray], where: slice, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of some pixels, and which years have data; four years at a time, each decoded once."""
    size, codec = where.stop - where.start, years[0].codec
    square, factor, nodata = (False, 1, -128) if codec is None else (True, codec.factor, codec.nodata)
    found, there = np.empty((len(planes) - 1, size), np.float32), np.empty((len(planes), size), np.bool_)
    for first in range(0, len(planes) - 1, 3):
        group = planes[first : first + 4]
        count = len(group)
        if count == 3:
            group = [*group, group[-1]]  # whose angle with itself is not asked for
        sums, least = np.empty((2 * len(group) - 1) * size), np.empty(len(group) * size, np.int8)
        two, four = year_kernels.products_of_two, year_kernels.products_of_four
        kernel: Callable[..., None] = two if count == 2 else four
        kernel(*group, where.start, size, square, np.float32(factor), sums, least)
        own, seen = np.empty((len(group) - 1, size), np.float32), np.empty((len(group), size), np.bool_)
        year_kernels.cosines_from(sums, least, nodata, metric == "angle", seen, own)
        found[first : first + 3], there[first : first + 4] = own[: count - 1], seen[:count]
    return found, there


def _carried(years: Sequence[Block], where: slice, metric: str) -> Iterator[tuple[slice, np.ndarray]]:
    for piece in pieces(years, where.start, where.stop):
        yield piece.where, steps_of(piece, metric)[:, : piece.size]


def steps_of(piece: YearPiece, metric: str) -> np.ndarray:
    """Distances ``(step, n)`` from each year to the next one with data; NaN for a year without."""
    there, pairs = piece.there.copy(), list(pairwise(range(len(piece.there))))
    if there.all():
        return apart(piece, pairs, metric)
    year_kernels.carry_on(piece.values, piece.scale, piece.there)
    found = apart(piece, pairs, metric)
    found[~there[1:]] = np.nan
    return found


def apart(piece: YearPiece, pairs: Sequence[tuple[int, int]], metric: str) -> np.ndarray:
    """Distances ``(pair, n)`` between pairs of years, NaN where one has no data."""
    out = np.empty((len(pairs), piece.there.shape[1]), np.float32)
    if metric == "euclidean":
        year_kernels.lengths_of(piece.vectors, np.array(pairs), out)
    else:
        year_kernels.cosines_of(piece.vectors, np.array(pairs), metric == "angle", out)
    return out
