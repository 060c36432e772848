"""Evaluation of a probe from held-out scores: measures, temperature, conformal scores, area of applicability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from geoemb_xr.probes import heads, validation
from geoemb_xr.probes.applicability import fit_applicability
from geoemb_xr.probes.heads import Data
from geoemb_xr.probes.scores import quantile, softmax


def checked(
    data: Data, head: heads.Head, folds: Mapping[str, np.ndarray], held: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The results of held-out scores: measures, temperature, conformal scores, area of applicability."""
    scores = {name: validation.measures(data, each) for name, each in held.items()}
    none = np.empty(0, np.float32)
    if not held:
        return {
            "temperature": head.temperature,
            "scores": scores,
            "confusion": none,
            "applicability": {},
            "conformal": none,
        }
    best = next(iter(held))  # left-out regions where the labels have places
    fair = validation.learnt(data, held[best])
    known, out = data.at(fair), held[best][:, fair]
    temperature = validation.temperature_of(known, out) if data.classes else 1.0
    if data.classes:
        unlikely = 1 - softmax(out / np.float32(temperature))[known.y, np.arange(len(known.y))]
    else:
        unlikely = np.abs(out[0] - known.y).astype(np.float32)
    scores["coverage"] = coverage_by_fold(unlikely, folds[best][fair])
    return {
        "temperature": temperature,
        "scores": scores,
        "confusion": validation.confusion(data, held[best]) if data.classes else none,
        "applicability": fit_applicability(data, folds[best]),
        "conformal": np.sort(unlikely),
    }


def coverage_by_fold(unlikely: np.ndarray, folds: np.ndarray, level: float = 0.9) -> dict[str, float]:
    """Coverage per fold: the share of labels in conformal sets that were calibrated on the other folds."""
    found = {}
    for fold in np.unique(folds):
        limit = quantile(np.sort(unlikely[folds != fold]), level)
        found[f"fold {fold + 1}"] = round(float((unlikely[folds == fold] <= limit).mean()), 6)
    return found
