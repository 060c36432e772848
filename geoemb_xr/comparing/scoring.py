"""Held-out predictions of products and controls on the same folds, and what they score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from geoemb_xr.probes import validation
from geoemb_xr.probes.heads import HEADS, Data

#: Positions of training and test samples to scores of the test samples, ``(classes, n)`` or ``(1, n)``.
Predictor = Callable[[np.ndarray, np.ndarray], np.ndarray]
#: Regions that differences between products are told from.
REGIONS = 20
#: Number of draws of so few labels, up to a number of labels per class.
DRAWS = ((10, 30), (100, 10), (np.inf, 3))


# --- folds ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Folds, and how far training samples stay away from the test samples.

    Parameters
    ----------
    name : str
        ``"blocks"``, ``"random"`` or ``"groups"``.
    folds : ndarray of int (n,)
        Fold of each sample.
    buffer : float
        Metres around test samples from which no training sample is taken.
    """

    name: str
    folds: np.ndarray
    buffer: float

    def parts(self, metres: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Training and test samples of each fold."""
        from scipy.spatial import cKDTree

        for fold in range(int(self.folds.max()) + 1):
            test, train = np.flatnonzero(self.folds == fold), np.flatnonzero(self.folds != fold)
            if self.buffer > 0:
                far = cKDTree(metres[test]).query(metres[train])[0] > self.buffer
                train = train[far]
            yield train, test


def split_of(name: str, data: Data, k: int, buffer: float) -> Split | None:
    """Folds by name; None where there are too few places or groups."""
    if name == "random":
        folds = validation.random_folds(data, k)
        return None if folds is None else Split(name, folds, 0.0)
    if name == "groups":
        folds = np.unique(data.groups, return_inverse=True)[1]
        if int(folds.max()) >= 2 * k:  # many groups share folds
            return split_of("random", data, k, buffer)
        return Split(name, folds, buffer) if folds.max() else None
    folds_by_place = validation.blocked_folds(data, k)
    return None if folds_by_place is None else Split(name, folds_by_place, buffer)


def few(data: Data, train: np.ndarray, n: int, seed: int) -> np.ndarray:
    """``n`` training samples of each class, spread over groups; fewer are among more for one seed."""
    rng = np.random.default_rng(seed)
    groups = data.groups[train]
    shuffled = rng.permutation(len(train))
    strata = data.y[train] if data.classes else np.zeros(len(train), np.int64)
    order = rng.permutation(int(groups.max()) + 1)[groups]
    # the first of each group and class come first, groups in random order
    place = _rank_within((groups * max(data.classes, 1) + strata)[shuffled])
    turn = shuffled[np.lexsort((order[shuffled], place))]
    return train[np.sort(turn[_rank_within(strata[turn]) < n])]


def _rank_within(values: np.ndarray) -> np.ndarray:
    """How many equal values come before each one."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered, side="left")
    return rank


# --- predictors -----------------------------------------------------------------------------------------------


def probe_predictor(data: Data, method: str) -> Predictor:
    """A probe with its default options."""
    head = HEADS[method]

    def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return validation.scores_of(
            lambda part: (head, head.fit(part, **head.options)), data.at(train), data.x[test]
        )

    return predict


def held_out(predict: Predictor, data: Data, split: Split, n: int | None, seed: int) -> np.ndarray:
    """Scores ``(classes, n)`` or values ``(1, n)`` of all samples, each from the other folds."""
    scores = np.full((data.classes or 1, len(data.y)), np.nan, np.float32)
    assert data.places is not None
    for train, test in split.parts(data.places):
        chosen = train if n is None else few(data, train, n, seed)
        if len(chosen) and (not data.classes or len(np.unique(data.y[chosen])) > 1):
            scores[:, test] = predict(chosen, test)
    return scores


def draws_for(n: int | None) -> int:
    """How often so few labels are drawn."""
    return 1 if n is None else next(draws for most, draws in DRAWS if n <= most)


# --- scores ---------------------------------------------------------------------------------------------------


def measures(data: Data, scores: np.ndarray, by: np.ndarray) -> dict[str, float]:
    """Scores of pooled held-out predictions.

    To those of a probe are added Cohen's kappa for classes, and for values ``r2_within``, about the mean of each
    group of ``by``: R² over several regions can be high only because their means differ.
    """
    from sklearn import metrics

    done = np.isfinite(scores).any(axis=0)
    if not done.any():
        return {}
    data, scores = data.at(np.flatnonzero(done)), scores[:, done]
    found = validation.measures(data, scores)
    if data.classes:
        found["kappa"] = float(metrics.cohen_kappa_score(data.y, scores.argmax(axis=0)))
    elif by.size:
        group = np.unique(by[done], return_inverse=True)[1]
        mean = (np.bincount(group, data.y) / np.bincount(group))[group]
        spread = float(((data.y - mean) ** 2).sum())
        if spread > 0:
            found["r2_within"] = 1 - float(((data.y - scores[0]) ** 2).sum()) / spread
    return found


def correctness(data: Data, scores: np.ndarray) -> np.ndarray:
    """What each sample adds to the score (n,): its share of balanced accuracy, or of R²."""
    if data.classes:
        counts = np.bincount(data.y, minlength=data.classes)
        return np.asarray((scores.argmax(axis=0) == data.y) / counts[data.y] / (counts > 0).sum())
    error = (data.y - scores[0]) ** 2
    return np.asarray((1 / len(error)) - error / ((data.y - data.y.mean()) ** 2).sum())


@dataclass(frozen=True)
class Difference:
    """A paired difference of two products over blocks.

    Parameters
    ----------
    value, low, high : float
        The difference and its interval; the interval is NaN below six blocks.
    p : float
        Two-sided; NaN below six blocks.
    blocks : int
        How many it is told from.
    """

    value: float
    low: float
    high: float
    p: float
    blocks: int


def difference(a: np.ndarray, b: np.ndarray, blocks: np.ndarray, level: float, seed: int) -> Difference:
    """Compare what each sample adds to the scores of two products, block by block; never sample by sample.

    Below 30 blocks the interval is Student's, above it is a bootstrap over blocks.
    """
    from scipy import stats

    parts = np.bincount(blocks, a - b)
    count, total = len(parts), float((a - b).sum())
    if count < 6:
        return Difference(total, np.nan, np.nan, np.nan, count)
    error = float(np.sqrt(count * parts.var(ddof=1)))
    p = 1.0 if error == 0 else float(2 * stats.t.sf(abs(total) / error, count - 1))
    if count < 30:
        reach = float(stats.t.ppf(0.5 + level / 2, count - 1)) * error
        return Difference(total, total - reach, total + reach, p, count)
    drawn = np.random.default_rng(seed).integers(count, size=(2000, count))
    low, high = np.quantile(parts[drawn].sum(axis=1), [0.5 - level / 2, 0.5 + level / 2])
    return Difference(total, float(low), float(high), p, count)


def holm(p: np.ndarray) -> np.ndarray:
    """P-values corrected for their number (Holm 1979)."""
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def by_groups(data: Data, scores: np.ndarray, by: np.ndarray) -> Mapping[str, tuple[float, int]]:
    """Balanced accuracy, or R², of each group of ``by``, and its number of labels."""
    name = "balanced_accuracy" if data.classes else "r2"
    done = np.isfinite(scores).any(axis=0)
    found: dict[str, tuple[float, int]] = {}
    for each in np.unique(by):
        inside = np.flatnonzero((by == each) & done)
        if len(inside) > 1:
            found[str(each)] = validation.measures(data.at(inside), scores[:, inside])[name], len(inside)
    return found
