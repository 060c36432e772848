"""The best hits so far, of many queries at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Best:
    """Scores with their queries and positions, sorted by query, then from the best, then by position."""

    query: np.ndarray
    scores: np.ndarray
    positions: np.ndarray

    @staticmethod
    def nothing() -> Best:
        """None at all."""
        return Best(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64))

    @staticmethod
    def joined(parts: Sequence[Best]) -> Best:
        """Join several, and sort them anew."""
        query, scores, positions = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("query", "scores", "positions")
        )
        order = np.lexsort((positions, -scores, query))
        return Best(query[order], scores[order], positions[order])

    def take(self, rows: np.ndarray) -> Best:
        """Some of them, in order."""
        return Best(self.query[rows], self.scores[rows], self.positions[rows])

    def cut(self, room: int) -> Best:
        """The first of each query."""
        begins = np.searchsorted(self.query, self.query)  # where each one's own query begins
        return self.take(np.arange(self.query.size) - begins < room)

    def count(self, queries: int) -> np.ndarray:
        """How many of each query."""
        return np.bincount(self.query, minlength=queries)

    def last(self, queries: int) -> tuple[np.ndarray, np.ndarray]:
        """Score and position of the last of each query; of one without, what nothing comes after."""
        score, position = np.full(queries, -np.inf, np.float32), np.full(queries, np.iinfo(np.int64).max)
        ends = np.searchsorted(self.query, np.arange(queries), side="right") - 1
        there = self.count(queries) > 0
        score[there], position[there] = self.scores[ends[there]], self.positions[ends[there]]
        return score, position


class Collector:
    """Keeps the best of scores that come piece by piece, in the order of positions.

    What beats the worst of those kept waits in a buffer, which is sorted once it is full: sorting each piece would
    cost more than the scores do.
    """

    def __init__(self, queries: int, room: int) -> None:
        self._room = room
        self._worst = np.full(queries, -np.inf, np.float32)
        self._waiting: list[Best] = []
        self._count, self._full = 0, 4 * queries * room

    def offer(self, start: int, scores: np.ndarray) -> None:
        """Take scores ``(query, n)`` of positions from ``start`` on; NaN is not a score."""
        if np.isneginf(self._worst).any():
            self._worst = np.maximum(self._worst, _below_what_is_reached(scores, self._room))
        # of a flat mask, which NumPy skims eight at a time; of one with two axes it does not
        row, column = np.divmod(np.flatnonzero(scores > self._worst[:, None]), scores.shape[1])
        self._waiting.append(Best(row, scores[row, column], start + column))
        self._count += row.size
        if self._count > self._full:
            self._sort()

    def best(self) -> Best:
        """The best of all that came."""
        self._sort()
        return self._waiting[0]

    def _sort(self) -> None:
        best = Best.joined([Best.nothing(), *self._waiting]).cut(self._room)
        self._waiting, self._count = [best], best.query.size
        whole = best.count(self._worst.size) == self._room
        self._worst[whole] = best.last(self._worst.size)[0][whole]


def _below_what_is_reached(scores: np.ndarray, k: int) -> np.ndarray:
    """A bound for each query that at least k scores lie above, if there are that many.

    The k-th of the best of parts is reached by k of them: each part has one.
    """
    queries, n = scores.shape
    part = int(np.clip(n // (4 * k), 1, 256))
    whole = scores[:, : n // part * part].reshape(queries, -1, part)
    best = np.fmax.reduce(whole, axis=2)
    if best.shape[1] < k:
        return np.full(queries, -np.inf, np.float32)
    best = np.where(np.isnan(best), np.float32(-np.inf), best)
    reached = np.partition(best, best.shape[1] - k, axis=1)[:, best.shape[1] - k]
    return np.nextafter(reached, np.float32(-np.inf))
