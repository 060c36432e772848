"""Controls, below which a score is worth nothing.

Coordinates alone, a constant, the earlier label, permuted labels, what a location encoder makes of the coordinates,
and features that are given, such as raw bands.
"""

from __future__ import annotations

import numpy as np

from geoemb_xr.comparing.scoring import Predictor, probe_predictor
from geoemb_xr.comparing.support import Support
from geoemb_xr.probes.heads import Data, Head

#: Neighbours that a smooth surface is averaged over.
_SMOOTH = 20
#: A share of a class is at least this, so that it has a logarithm.
_LEAST = 1e-6
#: Permutations of the labels whose scores are averaged: the score of one varies by as much as few groups do.
_PERMUTATIONS = 5


def controls_of(
    support: Support, data: Data, method: str, head: Head
) -> dict[tuple[str, str], list[tuple[Data, Predictor]]]:
    """Return the controls by name and method: the labels that each is scored on and its predictor, for each draw.

    Parameters
    ----------
    support : Support
        The labels.
    data : Data
        Data of the first product, whose vectors the permuted labels are learnt from.
    method, head : str, Head
        Method of the probe on permuted labels and on given features.
    """
    found = {
        ("coordinates", "nearest"): [(data, _neighbours(data, 1))],
        ("coordinates", "smooth"): [(data, _neighbours(data, _SMOOTH))],
        ("constant", "most frequent" if data.classes else "mean"): [(data, _constant(data))],
        ("permuted labels", method): _permuted(data, head),
    }
    if support.previous.size:
        found["persistence", "earlier label"] = [(data, _earlier(data, support.previous))]
    for name, values in support.features.items():
        one = data._replace(x=_filled(values))
        found[name, method] = [(one, probe_predictor(one, head))]
    return found


def _filled(values: np.ndarray) -> np.ndarray:
    """Features without gaps, each with mean 0 and deviation 1: what is missing gets the mean."""
    present = np.isfinite(values)
    count = np.maximum(present.sum(axis=0), 1)
    centred = np.where(present, values, 0) - np.where(present, values, 0).sum(axis=0) / count
    centred = np.where(present, centred, 0)
    deviation = np.sqrt((centred**2).sum(axis=0) / count)
    return np.asarray(centred / np.where(deviation > 0, deviation, 1), np.float32)


def _log(shares: np.ndarray, data: Data) -> np.ndarray:
    """Return scores whose softmax gives these shares of classes; values stay as they are."""
    return np.asarray(np.log(np.maximum(shares, _LEAST)) if data.classes else shares, np.float32)


def _neighbours(data: Data, k: int) -> Predictor:
    """Mean of the nearest labels on the ground, weighted by 1 / distance: a prediction from coordinates alone."""
    assert data.places is not None
    places = data.places

    def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        from scipy.spatial import cKDTree

        count = min(k, len(train))
        distance, index = cKDTree(places[train]).query(places[test], count)
        distance, index = distance.reshape(-1, count), index.reshape(-1, count)
        weight = 1 / np.maximum(distance, 1.0)
        weight /= weight.sum(axis=1, keepdims=True)
        return _log(np.einsum("nk,cnk->cn", weight, _targets(data, train)[:, index]), data)

    return predict


def _constant(data: Data) -> Predictor:
    def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return _log(np.repeat(_targets(data, train).mean(axis=1)[:, None], len(test), axis=1), data)

    return predict


def _earlier(data: Data, previous: np.ndarray) -> Predictor:
    def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        if not data.classes:
            return np.asarray(previous[test][None], np.float32)
        return _log(np.arange(data.classes)[:, None] == previous[test], data)

    return predict


def _permuted(data: Data, head: Head) -> list[tuple[Data, Predictor]]:
    """Labels shuffled several times among groups, so that a score above chance shows a leak in the split."""
    rng = np.random.default_rng(data.seed)
    _, first, group = np.unique(data.groups, return_index=True, return_inverse=True)
    several = [data._replace(y=rng.permutation(data.y[first])[group]) for _ in range(_PERMUTATIONS)]
    return [(permuted, probe_predictor(permuted, head)) for permuted in several]


def _targets(data: Data, train: np.ndarray) -> np.ndarray:
    """Labels ``(classes, n)`` as shares, or values ``(1, n)``."""
    if not data.classes:
        return np.asarray(data.y[train][None])
    return np.asarray(np.arange(data.classes)[:, None] == data.y[train], np.float64)
