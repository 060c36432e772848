"""Nearest reference vectors: scores by matrix product, piece by piece, with the best kept.

Choosing among 10,000 scores per pixel costs more than computing them where it is done by sorting. Here a score
is looked at once, sixty-four at a time, and touched only if it beats the worst of those kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geoemb_xr.core import kernels

#: Pixels and references a piece: their scores are 2 MB of float32.
_PIXELS, _REFERENCES = 512, 1024
_STRIDE = 64


def nearest(vectors: np.ndarray, references: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest references of each vector, Euclidean, the nearest first.

    Parameters
    ----------
    vectors : ndarray of float32 (band, n)
        Any order of memory.
    references : ndarray of float32 (m, band)
        Vectors to look in, at least k.
    k : int
        Number of neighbours.

    Returns
    -------
    distance : ndarray of float32 (k, n)
        Of equally near ones the first reference wins.
    index : ndarray of int32 (k, n)
        Into ``references``.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.array([[0.0, 0], [1, 0], [0, 3]], np.float32)
    >>> distance, index = nearest(np.array([[0.9], [0.0]], np.float32), points, 2)
    >>> index[:, 0].tolist(), bool(abs(distance[:, 0] - [0.1, 0.9]).max() < 1e-6)
    ([1, 0], True)
    """
    n = vectors.shape[1]
    table = _augmented(references)
    score = np.full((n, k), -np.inf, np.float32)
    index = np.zeros((n, k), np.int32)
    distance = np.empty((n, k), np.float32)
    for start in range(0, n, _PIXELS):
        piece = vectors[:, start : start + _PIXELS].T
        piece = np.column_stack([piece, np.ones(len(piece), np.float32)])
        for first in range(0, len(table), _REFERENCES):
            products = piece @ table[first : first + _REFERENCES].T
            keep_best(products, first, score[start : start + _PIXELS], index[start : start + _PIXELS])
        exact_distance(piece, table, index[start : start + _PIXELS], distance[start : start + _PIXELS])
    return distance.T, index.T


def _augmented(references: np.ndarray) -> np.ndarray:
    """References with −|r|²/2 as one more band, padded to whole strides with what is never near.

    |v − r|² = |v|² − 2 (v·r − |r|²/2): with a 1 as one more band of v, the largest product is the nearest.
    """
    m, bands = references.shape
    table = np.zeros((-(-m // _STRIDE) * _STRIDE, bands + 1), np.float32)
    table[:m, :bands] = references
    table[:m, bands] = -0.5 * np.einsum("ij,ij->i", references, references, dtype=np.float64)
    table[m:, bands] = np.finfo(np.float32).min
    return table


@kernels.jit
def exact_distance(vectors: Any, references: Any, index: Any, out: Any) -> None:
    """Distances to the references chosen, without the cancellation of the products' way; the last band is none."""
    n, k = index.shape
    bands = vectors.shape[1] - 1
    for i in range(n):
        for j in range(k):
            total = np.float32(0)
            for b in range(bands):
                difference = vectors[i, b] - references[index[i, j], b]
                total += difference * difference
            out[i, j] = np.sqrt(total)


@exact_distance.in_numpy
def _exact_distance_numpy(vectors: Any, references: Any, index: Any, out: Any) -> None:
    for j in range(index.shape[1]):
        gap = vectors[:, :-1] - references[index[:, j], :-1]
        out[:, j] = np.sqrt(np.einsum("ij,ij->i", gap, gap))


@kernels.jit
def keep_best(products: Any, first: Any, score: Any, index: Any) -> None:
    """Merge a piece of products, of a width that is a multiple of 64, into the sorted best so far."""
    n, m = products.shape
    k = score.shape[1]
    for i in range(n):
        worst = score[i, k - 1]
        for j0 in range(0, m, 64):
            some = products[i, j0 : j0 + 64]
            beats = np.int32(0)
            for j in range(64):  # of a fixed length, so that it becomes a few vector instructions
                beats += np.int32(some[j] > worst)
            if beats == 0:
                continue
            for j in range(64):
                value = some[j]
                if value > worst:
                    at = k - 1
                    while at > 0 and score[i, at - 1] < value:
                        score[i, at] = score[i, at - 1]
                        index[i, at] = index[i, at - 1]
                        at -= 1
                    score[i, at] = value
                    index[i, at] = first + j0 + j
                    worst = score[i, k - 1]


@keep_best.in_numpy_bitwise
def _keep_best_numpy(products: Any, first: Any, score: Any, index: Any) -> None:
    k = score.shape[1]
    better = np.flatnonzero((products > score[:, -1:]).any(axis=1))
    if not better.size:
        return
    found = np.concatenate([score[better], products[better]], axis=1)
    places = np.broadcast_to(
        np.arange(first, first + products.shape[1], dtype=index.dtype), products[better].shape
    )
    places = np.concatenate([index[better], places], axis=1)
    # of equal ones those before stay before: the first reference wins
    order = np.argsort(-found, axis=1, kind="stable")[:, :k]
    score[better], index[better] = (np.take_along_axis(each, order, axis=1) for each in (found, places))
