"""Held-out predictions of products and controls on the same folds, and what they score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoemb_xr.comparing.folds import Split
from geoemb_xr.probes import validation
from geoemb_xr.probes.heads import HEADS, Data, Head
from geoemb_xr.probes.scores import quantile, softmax

#: Positions of training and test samples to scores of the test samples, ``(classes, n)`` or ``(1, n)``.
Predictor = Callable[[np.ndarray, np.ndarray], np.ndarray]
#: Number of draws of so few labels, up to a number of labels per class.
DRAWS = ((10, 30), (100, 10), (np.inf, 3))
#: Folds in which probabilities are calibrated inside each training part, and bins of the calibration curve.
_INNER, _BINS = 3, 10
#: A class is rare that has less than half of an equal share of the labels.
_RARE = 0.5
#: Probabilities are at least this in log loss, as a class may be missing in a training part.
_LEAST = 1e-6


# --- predictors -----------------------------------------------------------------------------------------------


def probe_predictor(data: Data, method: str | Head, dims: int | None = None) -> Predictor:
    """A probe with its default options, on all bands or on the first principal components of the training part."""
    head = HEADS[method] if isinstance(method, str) else method

    def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        part, x = data.at(train), data.x[test]
        if dims is not None:
            mean = part.x.mean(axis=0)
            axes = np.linalg.svd(part.x - mean, full_matrices=False)[2][:dims].T
            part, x = part._replace(x=np.ascontiguousarray((part.x - mean) @ axes)), (x - mean) @ axes
        return validation.scores_of(lambda own: (head, head.fit(own, **head.options)), part, x)

    return predict


def few(data: Data, train: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Draw ``n`` training samples per class, spread over groups; small draws are part of larger ones."""
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
    """Count the equal values before each value."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered, side="left")
    return rank


def draws_for(n: int | None) -> int:
    """The number of repeated draws for so few labels."""
    return 1 if n is None else next(draws for most, draws in DRAWS if n <= most)


# --- what is held out -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeldOut:
    """Predictions of all samples, each from other folds.

    Parameters
    ----------
    scores : ndarray of float32 (classes, n) or (1, n)
        NaN where nothing could be trained.
    temperature : ndarray (n,)
        Divisor of scores before they become probabilities, fitted inside the training part.
    distance : ndarray (n,)
        Metres to the nearest training label.
    """

    scores: np.ndarray
    temperature: np.ndarray
    distance: np.ndarray

    @property
    def done(self) -> np.ndarray:
        """Whether each sample was predicted (n,)."""
        return np.asarray(~np.isnan(self.scores).any(axis=0))

    @property
    def proba(self) -> np.ndarray:
        """Probabilities ``(classes, n)``."""
        return softmax(self.scores / self.temperature.astype(np.float32))


def held_out(predict: Predictor, data: Data, split: Split, n: int | None, seed: int) -> np.ndarray:
    """Scores ``(classes, n)`` or values ``(1, n)`` of all samples, each from the other folds."""
    scores = np.full((data.classes or 1, len(data.y)), np.nan, np.float32)
    assert data.places is not None
    for train, test in split.parts(data.places):
        chosen = train if n is None or not len(train) else few(data, train, n, seed)
        if _can_learn(data, chosen):
            scores[:, test] = predict(chosen, test)
    return scores


def _can_learn(data: Data, train: np.ndarray) -> bool:
    return len(train) > 0 and (not data.classes or len(np.unique(data.y[train])) > 1)


def held(predict: Predictor, data: Data, split: Split, *, calibrate: bool) -> HeldOut:
    """Predictions with all labels, their temperature, and their distances from training labels."""
    from scipy.spatial import cKDTree

    assert data.places is not None
    scores = np.full((data.classes or 1, len(data.y)), np.nan, np.float32)
    temperature, distance = np.ones(len(data.y)), np.full(len(data.y), np.nan)
    tests = split.tests()
    for train, test in split.parts(data.places):
        if not _can_learn(data, train):
            continue
        scores[:, test] = predict(train, test)
        distance[test] = cKDTree(data.places[train]).query(data.places[test])[0]
        if calibrate and data.classes:
            temperature[test] = _temperature(predict, data, train, tests[train])
    return HeldOut(scores, temperature, distance)


def _temperature(predict: Predictor, data: Data, train: np.ndarray, tests: np.ndarray) -> float:
    """The temperature fitted within the training part, which is split in the same way."""
    inner = np.unique(tests, return_inverse=True)[1] % _INNER
    if inner.max() == 0:
        dealt = validation.random_folds(data.at(train), _INNER)
        if dealt is None:
            return 1.0
        inner = dealt
    scores = np.full((data.classes, len(train)), np.nan, np.float32)
    for fold in range(int(inner.max()) + 1):
        part, rest = train[inner == fold], train[inner != fold]
        if _can_learn(data, rest):
            scores[:, inner == fold] = predict(rest, part)
    part = data.at(train)
    known = np.flatnonzero(np.isfinite(scores[part.y, np.arange(len(train))]))
    return validation.temperature_of(part.at(known), scores[:, known]) if len(known) else 1.0


# --- scores ---------------------------------------------------------------------------------------------------


def measures(
    data: Data, scores: np.ndarray, by: np.ndarray, proba: np.ndarray | None = None
) -> dict[str, float]:
    """Scores of pooled held-out predictions, weighted by ``data.weights``.

    To those of a probe are added for classes, with probabilities, the Brier score, log loss and calibration error;
    for values ``r2_within``, about the mean of each group of ``by``: R² over several regions can be high only
    because their means differ.
    """
    done = ~np.isnan(scores).any(axis=0)
    if not done.any():
        return {}
    data, scores = data.at(np.flatnonzero(done)), scores[:, done]
    found = validation.measures(data, scores)
    if data.classes:
        if proba is not None:
            found |= _of_probabilities(data, proba[:, done])
    elif by.size:
        group = np.unique(by[done], return_inverse=True)[1]
        weights = data.weights
        mean = (np.bincount(group, weights * data.y) / np.bincount(group, weights))[group]
        spread = float(weights @ (data.y - mean) ** 2)
        if spread > 0:
            found["r2_within"] = 1 - float(weights @ (data.y - scores[0]) ** 2) / spread
    return found


def _of_probabilities(data: Data, proba: np.ndarray) -> dict[str, float]:
    """Brier score over all classes (0 to 2), log loss, expected calibration error (Guo et al. 2017)."""
    weights = data.weights / data.weights.sum()
    true = np.arange(data.classes)[:, None] == data.y
    clipped = np.maximum(proba, _LEAST)
    clipped = clipped / clipped.sum(axis=0)
    curve = calibration_curve(data, proba)
    return {
        "brier": float(weights @ ((proba - true) ** 2).sum(axis=0)),
        "log_loss": float(-(weights @ np.log(clipped[data.y, np.arange(len(data.y))]))),
        "ece": float(sum(row["share"] * abs(row["accuracy"] - row["confidence"]) for row in curve)),
    }


def calibration_curve(data: Data, proba: np.ndarray) -> list[dict[str, float]]:
    """Confidence of the best class and how often it is right, in ten equal bins of confidence."""
    confidence, right = proba.max(axis=0), proba.argmax(axis=0) == data.y
    index = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    weight = np.bincount(index, data.weights, _BINS)
    rows = []
    for number in np.flatnonzero(weight):
        own = index == number
        sums = [float(data.weights[own] @ each[own]) / weight[number] for each in (confidence, right)]
        rows.append(
            {
                "confidence": sums[0],
                "accuracy": sums[1],
                "share": float(weight[number] / weight.sum()),
                "n": int(own.sum()),
            }
        )
    return rows


def coverage_by_unit(data: Data, found: HeldOut, split: Split, level: float) -> list[dict[str, Any]]:
    """Share of labels inside their conformal set, by block; sets are calibrated on the other test sets."""
    done = np.flatnonzero(found.done)
    part = data.at(done)
    if part.classes:
        unlikely = 1 - found.proba[:, done][part.y, np.arange(len(done))]
    else:
        unlikely = np.abs(found.scores[0, done] - part.y)
    tests = split.tests()[done]
    covered = np.empty(len(done), bool)
    for test in np.unique(tests):
        own = tests == test
        covered[own] = unlikely[own] <= quantile(np.sort(unlikely[~own]), level)
    units = tests if split.units is None else split.units[done]
    return [
        {
            "block": int(unit),
            "coverage": float(covered[units == unit].mean()),
            "n": int((units == unit).sum()),
        }
        for unit in np.unique(units)
    ]


def by_class(data: Data, found: HeldOut, names: Sequence[str]) -> list[dict[str, Any]]:
    """Precision (NaN where never predicted), recall and average precision of each class; whether it is rare."""
    from sklearn import metrics

    done = np.flatnonzero(found.done)
    part, proba = data.at(done), found.proba[:, done]
    table = validation.confusion(part, found.scores[:, done])
    share = table.sum(axis=1) / table.sum()
    with np.errstate(invalid="ignore"):
        precision, recall = np.diag(table) / table.sum(axis=0), np.diag(table) / table.sum(axis=1)
    rows = []
    for number in range(part.classes):
        true = part.y == number
        auprc = np.nan
        if true.any():
            auprc = float(metrics.average_precision_score(true, proba[number], sample_weight=part.weights))
        rows.append(
            {
                "class": names[number],
                "share": float(share[number]),
                "rare": bool(share[number] < _RARE / part.classes),
                "precision": float(precision[number]),
                "recall": float(recall[number]),
                "auprc": auprc,
                "n": int(true.sum()),
            }
        )
    return rows


def by_distance(data: Data, found: HeldOut, bins: int = 6) -> list[dict[str, float]]:
    """The score against the distance from training labels, in bins of equally many labels.

    For classes each label counts as in balanced accuracy; for values it is the error's share of the whole variance.
    """
    done = np.flatnonzero(found.done & np.isfinite(found.distance))
    if len(done) < bins:
        return []
    part, distance = data.at(done), found.distance[done]
    edges = np.unique(np.quantile(distance, np.linspace(0, 1, bins + 1)))
    index = np.clip(np.searchsorted(edges, distance, side="right") - 1, 0, max(len(edges) - 2, 0))
    rows = []
    for number in np.unique(index):
        own = np.flatnonzero(index == number)
        here, scores = part.at(own), found.scores[:, done[own]]
        if part.classes:
            value = validation.measures(here, scores)["balanced_accuracy"]
        else:
            value = 1 - float(((here.y - scores[0]) ** 2).mean() / part.y.var())
        rows.append({"metres": float(np.median(distance[own])), "value": value, "n": len(own)})
    return rows
