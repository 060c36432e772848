"""k-means of places, and where k-means begins.

Both draw as scikit-learn's do, from the same random numbers, and find the same; importing that takes 1.5 s of a
first call, most of it for ``scipy.stats``.
"""

from __future__ import annotations

import numpy as np

#: Steps of one start at most.
_MOST_STEPS = 300
_PIECE = 4096


def plus_plus(points: np.ndarray, k: int, rng: np.random.RandomState) -> np.ndarray:
    """Positions of ``k`` points to start from, each far from those before it.

    k-means++ (Arthur and Vassilvitskii 2007): a point is drawn in proportion to its squared distance from the
    nearest before it; of 2 + ln k draws the one that leaves the least is kept.
    """
    draws = 2 + int(np.log(k))
    ones = np.ones(len(points), points.dtype)
    chosen = np.empty(k, np.intp)
    chosen[0] = rng.choice(len(points), p=ones / ones.sum())
    nearest = _squares(points, points[chosen[:1]])[0]
    left = nearest @ ones
    for i in range(1, k):
        drawn = np.searchsorted(np.cumsum(nearest), rng.uniform(size=draws) * left)
        drawn = np.minimum(drawn, len(points) - 1)  # where a sum is rounded down
        each = np.minimum(nearest, _squares(points, points[drawn]))
        sums = each @ ones
        best = int(np.argmin(sums))
        chosen[i], nearest, left = drawn[best], each[best], sums[best]
    return chosen


def clustered(points: np.ndarray, k: int, *, starts: int, seed: int) -> np.ndarray:
    """The cluster (n,) of each point of float64, by the best of some starts, each until nothing moves.

    At least ``k`` points are distinct. The steps are Lloyd's, as in scikit-learn's ``KMeans``.
    """
    points = points - points.mean(axis=0)
    rng = np.random.RandomState(seed)
    still = 1e-4 * points.var(axis=0).mean()
    best, least = np.zeros(len(points), np.intp), np.inf
    for _ in range(starts):
        labels, centres = _lloyd(points, points[plus_plus(points, k, rng)], still)
        apart = float(((points - centres[labels]) ** 2).sum())
        if apart < least:
            best, least = labels, apart
    return best


def _lloyd(points: np.ndarray, centres: np.ndarray, still: float) -> tuple[np.ndarray, np.ndarray]:
    labels = np.full(len(points), -1)
    for _ in range(_MOST_STEPS):
        before, labels = labels, _nearest(points, centres)
        if np.array_equal(labels, before):
            return labels, centres
        moved = _centres(points, labels, centres)
        shift = float(((moved - centres) ** 2).sum())
        centres = moved
        if shift <= still:
            break
    return _nearest(points, centres), centres


def _centres(points: np.ndarray, labels: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The mean of each cluster; an empty one takes the point that fits its own centre worst."""
    count = np.bincount(labels, minlength=len(before))
    if not count.all():
        labels, gap = labels.copy(), ((points - before[labels]) ** 2).sum(axis=1)
        for empty in np.flatnonzero(count == 0):
            worst = int(np.where(count[labels] > 1, gap, -1).argmax())  # not the only one of another cluster
            count[labels[worst]] -= 1
            labels[worst], count[empty] = empty, 1
    sums = np.stack([np.bincount(labels, column, len(before)) for column in points.T], axis=1)
    return np.asarray(sums / count[:, None])


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    half = np.einsum("kb,kb->k", centres, centres) / 2
    found = np.empty(len(points), np.intp)
    # products stay in cache: a third of the time for 100,000 points
    for start in range(0, len(points), _PIECE):
        part = slice(start, start + _PIECE)
        products = points[part] @ -centres.T
        products += half
        found[part] = products.argmin(axis=1)
    return found


def _squares(points: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Squared distances (some, points), worked out in float64."""
    points64, some64 = points.astype(np.float64), some.astype(np.float64)
    square = -2 * (some64 @ points64.T)
    square += np.einsum("ij,ij->i", some64, some64)[:, None]
    square += np.einsum("ij,ij->i", points64, points64)
    return np.asarray(np.maximum(square, 0).astype(points.dtype))
