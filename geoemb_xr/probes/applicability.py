"""Where a probe's map may be trusted: how unlike the training samples a pixel is.

Meyer and Pebesma (2021), doi:10.1111/2041-210X.13650: the dissimilarity index of a vector is its distance to
the nearest training vector, both standardised, over the mean distance between training vectors. Inside the area
of applicability it is at most what training samples have to those outside their own fold, outliers aside.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from geoemb_xr.core.onnx_graph import Value
from geoemb_xr.execution.neighbours import nearest
from geoemb_xr.probes.heads import Data

#: So many training vectors are kept, drawn at random from more: 64 bands of them are 1.3 MB.
KEPT = 5_000


def fit_applicability(data: Data, folds: np.ndarray) -> dict[str, np.ndarray]:
    """What :func:`dissimilarity` needs: training vectors, scaled so that their mean distance is 1, and a threshold.

    Parameters
    ----------
    data : Data
        Training samples.
    folds : ndarray of int (n,)
        A training sample's nearest is looked for outside its own.
    """
    rng = np.random.default_rng(data.seed)
    kept = np.sort(rng.permutation(len(data.x))[:KEPT])
    mean, scale = data.x.mean(axis=0, dtype=np.float64), data.x.std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1.0  # of a constant band
    own = ((data.x[kept] - mean) / scale).astype(np.float32)
    distance = mean_distance(own)
    own, scale = own / distance, scale * distance
    index = np.concatenate(
        [
            nearest(own[folds[kept] == fold].T, own[folds[kept] != fold], 1)[0][0]
            for fold in np.unique(folds[kept])
            if (folds[kept] != fold).any()
        ]
    )
    low, high = np.quantile(index, [0.25, 0.75])
    return {
        "references": own,
        "mean": mean.astype(np.float32),
        "scale": scale.astype(np.float32),
        "threshold": np.array(min(high + 1.5 * (high - low), index.max()), np.float32),
    }


def mean_distance(vectors: np.ndarray) -> np.float32:
    """Mean Euclidean distance between all pairs."""
    n = len(vectors)
    square = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    total = 0.0
    for start in range(0, n, 1024):
        part = slice(start, start + 1024)
        products = (vectors[part] @ vectors.T).astype(np.float64)
        total += np.sqrt(np.maximum(square[part, None] + square - 2 * products, 0)).sum()
    return np.float32(total / max(n * (n - 1), 1))


def dissimilarity(parameters: Mapping[str, np.ndarray], vectors: np.ndarray) -> np.ndarray:
    """The dissimilarity index ``(n,)`` of vectors ``(band, n)``."""
    scaled = (vectors - parameters["mean"][:, None]) / parameters["scale"][:, None]
    return np.asarray(nearest(scaled, parameters["references"], 1)[0][0])


def dissimilarity_onnx(parameters: Mapping[str, np.ndarray], vectors: Value) -> Value:
    """The same as a formula of an ONNX graph."""
    scaled = (vectors - parameters["mean"]) / parameters["scale"]
    references = parameters["references"]
    return scaled.distance(references, scaled.nearness(references).argmax())
