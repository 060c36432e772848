"""Exhaustive scan: every vector of some arrays is scored for many queries, and the best are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.execution import blocks, devices, vectors_on_device
from geoemb_xr.retrieval import hits, scores
from geoemb_xr.retrieval.best import Best, Collector


@dataclass(frozen=True)
class Scorer:
    """Scores of vectors for queries: the higher, the more alike.

    Parameters
    ----------
    positives : ndarray of float32 (n, band)
        Directions, or vectors where ``metric`` is "euclidean".
    negatives : ndarray of float32 (m, band)
        Directions whose best is taken off, for ``how`` "max"; none elsewhere.
    shift : ndarray of float32 (band,), optional
        The background.
    contrast : bool
        Whether negatives are taken off the positives, which are not places in the space then.
    device : str
        Where scores are made; see :func:`geoemb_xr.search`.
    """

    positives: np.ndarray
    negatives: np.ndarray
    how: str
    metric: str
    shift: np.ndarray | None = None
    contrast: bool = False
    device: str = "cpu"

    @property
    def count(self) -> int:
        """How many queries."""
        return len(self.positives) if self.how == "each" else 1

    def __call__(self, block: blocks.Block) -> Iterator[tuple[int, np.ndarray]]:
        """Scores ``(query, n)`` of pixels in C order from a first one on; NaN where there is no data."""
        place = devices.place_for(self.device, able=True)
        if place != "cpu":
            found = vectors_on_device.scores(
                block,
                place,
                self.positives,
                negatives=self.negatives,
                shift=self.shift,
                how=self.how,
                metric=self.metric,
            )
            yield 0, found if self.metric == "cosine" else -found
        elif self.how != "each" and self.shift is None and not len(self.negatives):
            args = block.scale, block.codec, self.metric, self.positives, self.how
            found = scores.of_block(block.data, block.axis, *args).reshape(1, -1)
            yield 0, found if self.metric == "cosine" else -found
        elif self.metric == "euclidean":
            for where, vectors in block.pieces():
                yield (
                    where.start,
                    -np.stack([scores.distances(vectors, q[None], "mean") for q in self.positives]),
                )
        else:
            shift = np.zeros(self.positives.shape[1], np.float32) if self.shift is None else self.shift
            for where, vectors, valid in block.centred(shift):
                squares = np.einsum("ij,ij->j", vectors, vectors)
                squares[~valid | (squares == 0)] = np.nan
                yield where.start, self._pooled(vectors) / np.sqrt(squares)

    def _pooled(self, vectors: np.ndarray) -> np.ndarray:
        products = self.positives @ vectors
        if self.how == "max":
            products = products.max(axis=0, keepdims=True)
        if len(self.negatives):
            products -= (self.negatives @ vectors).max(axis=0)
        return np.asarray(products)


class Candidates:
    """A source of candidates, the best first, some at a time."""

    def best(self, room: int, before: Best | None = None, turn: int = 0) -> tuple[Best, bool]:
        """The next ``room`` of each query after those of ``before``, and whether there are more.

        Parameters
        ----------
        room : int
            Number of candidates to keep.
        before : Best, optional
            The result of the last call.
        turn : int
            Number of calls so far.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Scan(Candidates):
    """Every vector is scored."""

    many: Sequence[xr.DataArray]
    scorer: Scorer

    def best(self, room: int, before: Best | None = None, turn: int = 0) -> tuple[Best, bool]:
        """See :meth:`Candidates.best`."""
        last = None if before is None else before.last(self.scorer.count)
        parts, first = [], 0
        for array in self.many:
            shape = tuple(array.sizes[d] for d in hits.dims_of(array))
            parts += blocks.per_block(
                _best_of_block, array, self.scorer, room, last, shape, first, keyed=False
            )
            first += int(np.prod(shape, dtype=np.int64))
        found: Best = blocks.merged(parts, MergeBest(room), label="search")
        return found, bool((found.count(self.scorer.count) == room).any())


@dataclass(frozen=True)
class MergeBest:
    """Joins the best of several blocks."""

    room: int
    __name__ = "merge"

    def __call__(self, parts: list[Best]) -> Best:
        """Those that stay."""
        return Best.joined(parts).cut(self.room)


def _best_of_block(
    block: blocks.Block,
    scorer: Scorer,
    room: int,
    last: tuple[np.ndarray, np.ndarray] | None,
    shape: tuple[int, ...],
    first: int,
) -> Best:
    """The best hits of a block among those that come after the last hit already seen."""
    sides = tuple(np.delete(block.data.shape, block.axis))

    def positions(pixels: np.ndarray) -> np.ndarray:
        places = np.unravel_index(pixels, sides)
        whole = [place + start for place, start in zip(places, block.start, strict=True)]
        return first + np.ravel_multi_index(whole, shape)

    collector = Collector(scorer.count, room)
    for start, found in scorer(block):
        place = None if last is None else positions(np.arange(start, start + found.shape[1]))
        collector.offer(start, after(last, found, place))
    best = collector.best()
    return Best(best.query, best.scores, positions(best.positions))


def after(
    last: tuple[np.ndarray, np.ndarray] | None, scores: np.ndarray, positions: np.ndarray | None
) -> np.ndarray:
    """Scores ``(query, n)`` of what comes after the last hit already seen; NaN for the others."""
    if last is None or positions is None:
        return scores
    score, position = (each[:, None] for each in last)
    return np.where(
        (scores < score) | ((scores == score) & (positions > position)), scores, np.float32(np.nan)
    )


# --- means ------------------------------------------------------------------------------------------------------


def mean_vector(many: Sequence[xr.DataArray], what: str, *, directions: bool = False) -> np.ndarray:
    """The mean of all vectors, or of their directions, float32 ``(band,)``. Computes.

    Raises
    ------
    EmbeddingError
        If there are none.
    """
    parts = [task for each in many for task in blocks.per_block(_sum_of_block, each, directions, keyed=False)]
    total, count = blocks.merged(parts, _added, label=f"{what}: mean")
    if not count:
        raise EmbeddingError(f"{what} found no pixel with data")
    return np.asarray(total / count, np.float32)


def directions_of(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors ``(band, n)`` as rows of unit length, and which have one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = vectors.T / np.sqrt(np.einsum("ij,ij->j", vectors, vectors))[:, None]
    return rows, np.isfinite(rows).all(axis=1)


def _sum_of_block(block: blocks.Block, directions: bool) -> tuple[np.ndarray, int]:
    total, count = np.zeros(1), 0
    for _, vectors in block.pieces():
        rows, there = directions_of(vectors)
        rows = rows if directions else vectors.T
        total = total + rows[there].sum(axis=0, dtype=np.float64)
        count += int(there.sum())
    return total, count


def _added(parts: list[tuple[np.ndarray, int]]) -> tuple[np.ndarray, int]:
    return np.sum([part[0] for part in parts], axis=0), sum(part[1] for part in parts)
