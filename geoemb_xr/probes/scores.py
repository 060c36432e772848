"""From scores of classes to the best class, probabilities and conformal sets."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoemb_xr.core import kernels


def best_class(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value of the class with the largest score ``(classes, n)``; of equal ones the first."""
    out = np.empty(scores.shape[1], values.dtype)
    _best_class(np.ascontiguousarray(scores), values, out)
    return out


@kernels.jit
def _best_class(scores: Any, values: Any, out: Any) -> None:
    classes, n = scores.shape
    for i in range(n):
        best, at = scores[0, i], 0
        for k in range(1, classes):
            if scores[k, i] > best:
                best, at = scores[k, i], k
        out[i] = values[at]


@_best_class.in_numpy_bitwise
def _best_class_numpy(scores: Any, values: Any, out: Any) -> None:
    best = scores[0].copy()
    out[:] = values[0]
    for row, value in zip(scores[1:], values[1:], strict=True):  # unlike argmax, which takes the first NaN
        larger = row > best
        best[larger], out[larger] = row[larger], value


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities ``(classes, n)`` of scores."""
    exp = np.exp(scores - scores.max(axis=0))
    exp /= exp.sum(axis=0)
    return np.asarray(exp)


def quantile(scores: np.ndarray, coverage: float) -> float:
    """The conformal quantile of sorted scores: the ⌈(n + 1) · coverage⌉-th, infinite where n is too small."""
    rank = int(np.ceil((scores.size + 1) * coverage))
    return float(scores[rank - 1]) if rank <= scores.size else float("inf")
