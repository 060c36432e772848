"""Held-out scores of a probe: no split divides a group, and one of the two leaves out whole regions.

Pixels of one field, or one place in several years, are nearly copies: parted by a split, they let a probe score
on what it has seen. Random labels on fields of a real chip reach 0.9 so, and chance by field.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from geoemb_xr.analysis.k_means import clustered
from geoemb_xr.probes.heads import Data, Head, RidgeSums, linear_scores, penalty

Fit = Callable[[Data], tuple[Head, Mapping[str, np.ndarray]]]
#: The score of a class that was not there to learn.
NEVER = np.float32(-np.inf)
#: Regions a fold: fewer leave out more at once, more let a class be on both sides.
REGIONS = 4
#: Named groups are left out one by one up to so many, several at a time beyond.
MOST_GROUPS = 10


# --- folds ----------------------------------------------------------------------------------------------------


def random_folds(data: Data, k: int) -> np.ndarray | None:
    """A fold for each sample, whole groups dealt out at random; None where there are too few groups."""
    return dealt(data.groups, data, k)


def blocked_folds(data: Data, k: int) -> np.ndarray | None:
    """A fold for each sample, made of whole regions (k-means of the groups' centres, four per fold)."""
    regions = regions_of(data, REGIONS * k)
    return None if regions is None else dealt(regions, data, k)


def regions_of(data: Data, count: int) -> np.ndarray | None:
    """The region of each sample, by k-means of the groups' centres; None where there are too few places."""
    if data.places is None:
        return None
    centres = _group_means(data.places, data.groups)
    present = np.flatnonzero(np.isfinite(centres).all(axis=1))
    count = min(count, len(np.unique(centres[present], axis=0)))
    if count < 2:
        return None
    region = np.zeros(len(centres), np.int64)
    region[present] = clustered(centres[present], count, starts=4, seed=data.seed)
    return np.asarray(region[data.groups])


def dealt(units: np.ndarray, data: Data, k: int) -> np.ndarray | None:
    """Folds of whole units, the classes spread over the folds as evenly as units allow.

    scikit-learn's ``StratifiedGroupKFold`` takes ten to forty times as long, is half as even (of 800 labels in 20
    groups a class's share of a fold scatters by 0.031, here by 0.015), and warns where a class is rarer than folds.
    """
    units = np.unique(units, return_inverse=True)[1]
    count = int(units.max()) + 1
    k = min(k, count)
    if k < 2:
        return None
    strata = data.y if data.classes else np.zeros(len(units), np.int64)
    table = np.zeros((count, int(strata.max()) + 1))
    np.add.at(table, (units, strata), 1.0)
    share = table / np.maximum(table.sum(axis=0), 1)  # new labels may lack a class of the old ones
    order = np.random.default_rng(data.seed).permutation(count)
    order = order[np.argsort(-share.max(axis=1)[order], kind="stable")]  # the hardest to place first
    fold, filled = np.empty(count, np.int64), np.zeros((k, share.shape[1]))
    for unit in order:  # to the fold that has least of what the unit brings
        fold[unit] = np.argmin(filled @ share[unit] + 1e-9 * filled.sum(axis=1))
        filled[fold[unit]] += share[unit]
    return _numbered(fold[units])


def _group_means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    count = np.bincount(groups)
    sums = np.column_stack([np.bincount(groups, column) for column in values.T])
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / count[:, None])


def _numbered(folds: np.ndarray) -> np.ndarray | None:
    """Folds numbered without gaps; None where only one is left."""
    found, numbers = np.unique(folds, return_inverse=True)
    return numbers if len(found) > 1 else None


# --- what is predicted for what was not seen --------------------------------------------------------------------


def held_out(fit: Fit, data: Data, folds: np.ndarray) -> np.ndarray:
    """Scores ``(classes, n)``, or values ``(1, n)``, of each fold from a fit on the others."""
    scores = np.empty((data.classes or 1, len(data.y)), np.float32)
    for fold in range(int(folds.max()) + 1):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        scores[:, test] = scores_of(fit, data.at(train), data.x[test])
    return scores


def held_out_by_sums(
    data: Data,
    folds: np.ndarray,
    others: Callable[[int], RidgeSums],
    alpha: Callable[[np.ndarray], float | None],
) -> np.ndarray:
    """Scores ``(classes, n)`` of each fold from the ridge that the sums of the other folds make.

    Parameters
    ----------
    data : Data
        Data that are scored.
    folds : ndarray of int (n,)
        The fold of each of them.
    others : callable
        A fold to the sums of the others.
    alpha : callable
        Function from a mask (n,) of the data in the other folds to the penalty.
    """
    scores = np.empty((data.classes or 1, len(folds)), np.float32)
    for fold in np.unique(folds):
        test = folds == fold
        seen = others(int(fold))
        parameters = seen.solve(penalty(alpha(~test), seen.count, data.classes))
        scores[:, test] = linear_scores(parameters, data.x[test].T)
        if data.classes:
            scores[np.ix_(seen.y == 0, test)] = NEVER
    return scores


def scores_of(fit: Fit, train: Data, x: np.ndarray) -> np.ndarray:
    """Scores after a fit on samples that may lack some of the classes."""
    if not train.classes:
        head, parameters = fit(train)
        return head.scores(parameters, x.T)
    present, positions = np.unique(train.y, return_inverse=True)
    scores = np.full((train.classes, len(x)), NEVER)
    if len(present) == 1:
        scores[present] = 0.0
    else:
        head, parameters = fit(train._replace(y=positions, classes=len(present)))
        scores[present] = head.scores(parameters, x.T)
    return scores


def measures(data: Data, scores: np.ndarray) -> dict[str, float]:
    """Pooled over all folds: accuracy, balanced accuracy, macro F1, Cohen's kappa; or R², RMSE and MAE.

    A learning curve scores hundreds of draws, and scikit-learn's functions look at all labels anew for each: 40 ms
    in all, and 0.1 ms from one table of counts.
    """
    if not data.classes:
        weights, error = data.weights / data.weights.sum(), data.y - scores[0].astype(np.float64)
        squared, spread = weights @ error**2, weights @ (data.y - weights @ data.y) ** 2
        found = {
            "r2": 1 - squared / spread if spread > 0 else float(squared == 0),
            "rmse": np.sqrt(squared),
            "mae": weights @ np.abs(error),
        }
    else:
        table = confusion(data, scores)
        right, true, said = np.diag(table), table.sum(axis=1), table.sum(axis=0)
        present, total = true + said > 0, table.sum()
        by_chance = float(true @ said) / total**2
        accuracy = float(right.sum() / total)
        found = {
            "accuracy": accuracy,
            "balanced_accuracy": (right[true > 0] / true[true > 0]).mean(),
            "f1": (2 * right[present] / (true + said)[present]).mean(),
            "kappa": (accuracy - by_chance) / (1 - by_chance) if by_chance < 1 else np.nan,
        }
    return {name: round(float(value), 6) for name, value in found.items()}


def learnt(data: Data, scores: np.ndarray) -> np.ndarray:
    """Return which samples have a class that their fold was trained on: calibration can use only these."""
    if not data.classes:
        return np.arange(len(data.y))
    return np.flatnonzero(np.isfinite(scores[data.y, np.arange(len(data.y))]))


def confusion(data: Data, scores: np.ndarray) -> np.ndarray:
    """Weights of samples by true class (rows) and predicted class."""
    table = np.zeros((data.classes, data.classes))
    np.add.at(table, (data.y, scores.argmax(axis=0)), data.weights)
    return table


# --- tuning ---------------------------------------------------------------------------------------------------


def tuned(head: Head, data: Data, options: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Options with the best value of each list, chosen by scores on held-out parts of ``data`` alone.

    ``"auto"`` stands for the head's penalties. Of those the strongest is taken whose score is within one standard
    error of the best (Breiman et al. 1984): what is tuned at home should not be tuned for home alone.
    """
    auto = [name for name in head.penalties if isinstance(options[name], str) and options[name] == "auto"]
    lists = {name: value for name, value in options.items() if isinstance(value, list)}
    lists |= {name: list(head.penalties[name]) for name in auto}
    if not lists:
        return dict(options)
    choices = [dict(zip(lists, each, strict=True)) for each in itertools.product(*lists.values())]
    folds = tuning_folds(data, k)
    if folds is None or len(choices) == 1:
        return {**options, **choices[0], **{name: head.options[name] for name in auto}}
    name = "balanced_accuracy" if data.classes else "r2"

    def held(number: int) -> np.ndarray:
        settings = {**options, **choices[number]}
        return held_out(lambda train: (head, head.fit(train, **settings)), data, folds)

    every = [held(number) for number in range(len(choices))]
    scores = [measures(data, each)[name] for each in every]
    best = int(np.argmax(scores))
    if auto:
        least = scores[best] - standard_error(data, every[best], folds)
        fixed = [n for n in lists if n not in auto]
        best = next(
            number
            for number, choice in enumerate(choices)
            if scores[number] >= least and all(choice[n] == choices[best][n] for n in fixed)
        )
    return {**options, **choices[best]}


def tuning_folds(data: Data, k: int) -> np.ndarray | None:
    """Folds to tune on: named groups where there are three or more, else regions, else groups at random.

    Regions within one region tell what is best at home; groups that are countries or years tell more.
    """
    groups = len(np.unique(data.groups))
    if data.named and groups >= 3:
        return dealt(data.groups, data, min(groups, max(k, MOST_GROUPS)))
    folds = blocked_folds(data, k)
    return random_folds(data, k) if folds is None else folds


def standard_error(data: Data, scores: np.ndarray, folds: np.ndarray) -> float:
    """Standard error of a score over folds: balanced accuracy, or the share of the variance."""
    parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    if data.classes:
        each = [measures(data.at(part), scores[:, part])["balanced_accuracy"] for part in parts]
    else:
        each = [1 - np.mean((scores[0, part] - data.y[part]) ** 2) / np.var(data.y) for part in parts]
    return float(np.std(each, ddof=1) / np.sqrt(len(each)))


# --- probabilities --------------------------------------------------------------------------------------------


def temperature_of(data: Data, scores: np.ndarray) -> float:
    """Return the temperature that makes the softmax of held-out scores likeliest (Guo et al. 2017).

    The likelihood is concave in 1 / temperature.
    """
    from scipy.optimize import minimize_scalar

    scores = scores.astype(np.float64)
    true, top = scores[data.y, np.arange(len(data.y))], scores.max(axis=0)
    is_top = scores == top
    ties = is_top.sum(axis=0)
    log_ties = np.log(ties)

    def loss(log_temperature: float) -> float:
        # SciPy's ``logsumexp`` to the last bit at a fifth of its time: which scores are largest is asked once
        factor = np.exp(-log_temperature)
        others = np.exp(scores * factor - top * factor)
        others[is_top] = 0.0
        logarithm = np.log1p(others.sum(axis=0) / ties) + log_ties + top * factor
        return float(data.weights @ (logarithm - true * factor))

    bounds = (np.log(1e-3), np.log(1e3))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
