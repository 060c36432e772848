"""Scores of groups, such as countries, and where labels are missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoemb_xr.comparing.contrasts import interval
from geoemb_xr.comparing.scoring import HeldOut
from geoemb_xr.probes import validation
from geoemb_xr.probes.applicability import dissimilarity, fit_applicability
from geoemb_xr.probes.heads import Data

#: Labels that a group needs, and labels of a class in each group, to be compared with others.
LEAST_LABELS, LEAST_OF_CLASS = 20, 3


def common_classes(data: Data, by: np.ndarray) -> np.ndarray:
    """Positions of classes that all groups with enough labels have."""
    found = [np.bincount(data.y[by == each], minlength=data.classes) for each in np.unique(by)]
    large = [counts for counts in found if counts.sum() >= LEAST_LABELS]
    return np.flatnonzero((np.array(large or found) >= LEAST_OF_CLASS).all(axis=0))


def by_groups(
    data: Data, found: HeldOut, by: np.ndarray, units: np.ndarray, level: float, seed: int
) -> list[dict[str, Any]]:
    """Score, number of labels and interval of each group; ``common`` is the score over classes that all have."""
    name = "balanced_accuracy" if data.classes else "r2"
    shared = common_classes(data, by) if data.classes else np.empty(0, int)
    rows = []
    for each in np.unique(by):
        inside = np.flatnonzero((by == each) & found.done)
        if len(inside) < 2:
            continue
        here, scores = data.at(inside), found.scores[:, inside]
        low, high = interval(here, scores, units[inside], level, seed)
        row = {
            "group": str(each),
            "value": validation.measures(here, scores)[name],
            "low": low,
            "high": high,
            "n": len(inside),
            "blocks": len(np.unique(units[inside])),
            "common": np.nan,
        }
        own = np.isin(here.y, shared)
        if len(shared) > 1 and own.any():
            part = np.flatnonzero(own)
            row["common"] = validation.measures(here.at(part), scores[:, part])[name]
        rows.append(row)
    return rows


def where_labels_are(
    data: Data, by: np.ndarray, names: tuple[str, ...], folds: np.ndarray
) -> list[dict[str, Any]]:
    """For each group its labels by class, and the share inside the area of applicability of all other groups."""
    rows = []
    for each in np.unique(by):
        own = by == each
        row: dict[str, Any] = {"group": str(each), "n": int(own.sum())}
        if names:
            counts = np.bincount(data.y[own], minlength=data.classes)
            row |= {name: int(n) for name, n in zip(names, counts, strict=True)}
        others = np.flatnonzero(~own)
        row["inside_aoa"] = np.nan
        if len(others) > 1 and len(np.unique(folds[others])) > 1:
            near = fit_applicability(data.at(others), folds[others])
            row["inside_aoa"] = float((dissimilarity(near, data.x[own].T) <= near["threshold"]).mean())
        rows.append(row)
    return rows
