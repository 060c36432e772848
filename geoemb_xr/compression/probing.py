"""Scores of probes on vectors that replace others, in held-out regions."""

from __future__ import annotations

import numpy as np

from geoemb_xr.probes.fitting import fit_probe
from geoemb_xr.probes.samples import Samples

#: Regions along a side of the area.
SIDE = 4


def regions(places: np.ndarray) -> np.ndarray:
    """Which of 4 × 4 regions each of some places ``(n, 2)`` lies in, by ranks so that each has its share."""
    step = [np.minimum(_ranks(places[:, i]) * SIDE // max(len(places), 1), SIDE - 1) for i in (1, 0)]
    return np.asarray(step[0] * SIDE + step[1])


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.sort(values), values)


def probed(vectors: np.ndarray, labelled: Samples, seed: int) -> dict[str, float]:
    """What a probe scores in left-out regions with vectors ``(n, band)`` in place of those of labelled samples.

    ``probe`` is balanced accuracy, or R² of values; ``worst_class`` the recall of the class that is found worst.
    """
    group = labelled.groups if labelled.places is None else regions(labelled.places)
    values = labelled.labels.dtype.kind == "f"
    probe = fit_probe(
        vectors, labelled.labels, method="ridge" if values else "logistic", group=group, seed=seed
    )
    scores = probe.scores.get("blocked") or probe.scores["random"]
    if values:
        return {"probe": float(scores["r2"]), "worst_class": float("nan")}
    recall = np.diag(probe.confusion) / np.maximum(probe.confusion.sum(axis=1), 1e-12)
    return {"probe": float(scores["balanced_accuracy"]), "worst_class": float(recall.min())}
