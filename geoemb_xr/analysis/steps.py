"""How far each year of a block is from the one before, some thousand pixels at a time.

Angles of codes ``q · |q|`` that lie band by band are summed where they lie: a block is read once, in long rows, and
nothing is copied; so are those of two years of vectors. What lies otherwise, has scales, or misses some years goes
through :mod:`~geoemb_xr.analysis.pieces`, with the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from geoemb_xr.analysis import year_kernels
from geoemb_xr.analysis.code_kernels import (
    cosines_from,
    cosines_of_codes,
    products_of_four,
    products_of_two,
)
from geoemb_xr.analysis.pieces import LONG, YearPiece, pieces, planes_of
from geoemb_xr.core import buffers, kernels
from geoemb_xr.execution.blocks import Block

#: Pixels whose sums are held at once: those of four years are 340 KB, which a second-level cache holds, and rows of
#: so many codes are read at more than half the speed of memory.
_ROW = 32 * year_kernels.LANES


def steps(years: Sequence[Block], metric: str) -> Iterator[tuple[slice, np.ndarray]]:
    """Pixels, and distances ``(step, n)`` from each year to the next one with data, NaN for a year without."""
    done, pixels = 0, years[0].pixels
    vectors = None if metric == "euclidean" or len(years) != 2 else _vectors_side_by_side(years)
    if vectors is not None:
        found, (one, other) = buffers.empty((1, pixels), np.float32), vectors
        for start in range(0, pixels, LONG):
            size = min(LONG, pixels - start)
            year_kernels.cosines_of_two(one, other, metric == "angle", start, size, found[0])
        yield slice(0, pixels), found
        return
    planes = None if metric == "euclidean" else _side_by_side(years)
    if planes is not None:
        done = pixels // year_kernels.LANES * year_kernels.LANES
        found, there = _summed(years, planes, done, metric)
        if len(years) == 2 or there.all():
            yield slice(0, done), found
        else:
            yield from _carried_where_needed(years, found, there, metric)
    yield from _carried(years, slice(done, pixels), metric)


def _carried_where_needed(
    years: Sequence[Block], found: np.ndarray, there: np.ndarray, metric: str
) -> Iterator[tuple[slice, np.ndarray]]:
    """The distances of rows of pixels of which each has all years or none, and those of the others from pieces."""
    for start in range(0, found.shape[1], _ROW):
        where = slice(start, min(start + _ROW, found.shape[1]))
        if (there[:, where].any(axis=0) == there[:, where].all(axis=0)).all():
            yield where, found[:, where]
        else:
            yield from _carried(years, where, metric)


def _vectors_side_by_side(years: Sequence[Block]) -> list[np.ndarray] | None:
    """Vectors ``(band, pixel)``, if all years lie so."""
    planes = [planes_of(each) for each in years]
    fits = all(each.ndim == 2 and each.dtype == np.float32 and each.flags.c_contiguous for each in planes)
    return planes if fits and years[0].codec is None else None


def _side_by_side(years: Sequence[Block]) -> list[np.ndarray] | None:
    """Codes ``(band, pixel)`` of ``q · |q|``, if all years lie so."""
    codec = years[0].codec
    if codec is None or codec.power != 2:
        return None
    planes = [planes_of(each) for each in years]
    fits = all(each.ndim == 2 and each.dtype == np.int8 and each.flags.c_contiguous for each in planes)
    return planes if fits and len(planes[0]) % 2 == 0 else None


def _summed(
    years: Sequence[Block], planes: list[np.ndarray], pixels: int, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the first pixels, and which years have data; four years at a time, each decoded once.

    One call takes all rows: threads that come back to Python after each wait for each other there.
    """
    codec, count = years[0].codec, len(planes)
    assert codec is not None
    # a row more: of three years, the third is taken twice, and its angle with itself is not asked for
    found, there = buffers.empty((count, pixels), np.float32), buffers.empty((count + 1, pixels), np.bool_)
    for first in range(0, count - 1, 3):
        group = planes[first : first + 4]
        if len(group) == 2:
            to = there[first : first + 2], found[first : first + 1]
            _angles_of_two(group[0], group[1], codec.nodata, metric == "angle", *to)
        else:
            a, b, c, d = [*group, planes[-1]][:4]
            to = there[first : first + 4], found[first : first + 3]
            _angles_of_four(a, b, c, d, codec.nodata, metric == "angle", *to)
    return found[:-1], there[:-1]


@kernels.jit_exact
def _angles_of_two(a: Any, b: Any, nodata: Any, in_degrees: Any, there: Any, out: Any) -> None:
    """Cosines, or angles, between two years of codes ``(band, pixel)``, row by row."""
    pixels = out.shape[1]
    some, sums, least = np.empty(3 * _ROW, np.int32), np.empty(3 * _ROW), np.empty(2 * _ROW, np.int8)
    for start in range(0, pixels, _ROW):
        n = min(_ROW, pixels - start)
        products_of_two(a, b, start, n, some[: 3 * n], sums[: 3 * n], least[: 2 * n])
        cosines_from(sums[: 3 * n], least[: 2 * n], nodata, in_degrees, start, n, there, out)


_angles_of_two.in_numpy(_angles_of_two.function)  # of which only what it calls is compiled


@kernels.jit_exact
def _angles_of_four(
    a: Any, b: Any, c: Any, d: Any, nodata: Any, in_degrees: Any, there: Any, out: Any
) -> None:
    """Cosines, or angles, from each of four years to the next, row by row."""
    pixels = out.shape[1]
    some, sums, least = np.empty(7 * _ROW, np.int32), np.empty(7 * _ROW), np.empty(4 * _ROW, np.int8)
    for start in range(0, pixels, _ROW):
        n = min(_ROW, pixels - start)
        products_of_four(a, b, c, d, start, n, some[: 7 * n], sums[: 7 * n], least[: 4 * n])
        cosines_from(sums[: 7 * n], least[: 4 * n], nodata, in_degrees, start, n, there, out)


_angles_of_four.in_numpy(_angles_of_four.function)


def _carried(years: Sequence[Block], where: slice, metric: str) -> Iterator[tuple[slice, np.ndarray]]:
    for piece in pieces(years, where.start, where.stop):
        yield piece.where, steps_of(piece, metric)[:, : piece.size]


def steps_of(piece: YearPiece, metric: str) -> np.ndarray:
    """Distances ``(step, n)`` from each year to the next one with data; NaN for a year without."""
    there, pairs = piece.there.copy(), list(pairwise(range(len(piece.there))))
    if there.all():
        return pair_distances(piece, pairs, metric)
    year_kernels.carry_on(piece.values, piece.scale, piece.there)
    found = pair_distances(piece, pairs, metric)
    found[~there[1:]] = np.nan
    return found


def pair_distances(piece: YearPiece, pairs: Sequence[tuple[int, int]], metric: str) -> np.ndarray:
    """Distances ``(pair, n)`` between pairs of years, NaN where one has no data."""
    out = np.empty((len(pairs), piece.there.shape[1]), np.float32)
    if metric == "euclidean":
        year_kernels.lengths_of(piece.vectors, np.array(pairs), out)
    else:
        cosines = cosines_of_codes if piece.values.dtype == np.int8 else year_kernels.cosines_of
        cosines(piece.vectors, np.array(pairs), metric == "angle", out)
    return out
