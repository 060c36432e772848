"""The most common map in one kernel: from AlphaEarth's codes to the labels of a linear probe.

Piece by piece through BLAS a block is decoded, multiplied and compared in passes of their own, each through the
cache. Here 256 pixels stay in the first-level cache from codes to labels: 1.7 times the pixels a second.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geoemb_xr.core import kernels
from geoemb_xr.core.codecs import SIGNED_SQUARE, SQUARE_FACTOR
from geoemb_xr.core.model import Codec


def can_fuse(codec: Codec | None, model: Any, names: tuple[str, ...]) -> bool:
    """Whether a request is for labels of a linear classifier from signed-square codes."""
    return (
        codec == SIGNED_SQUARE  # by value: on a worker it is another object
        and names == ("label",)
        and getattr(model, "method", None) in ("ridge", "logistic")
        and getattr(model, "legend", None) is not None
    )


def fill_labels(codes: np.ndarray, probe: Any, unit: bool, out: np.ndarray) -> None:
    """Labels ``(outer, inner)`` of codes ``(outer, band, inner)``, 0 where a band is missing.

    With ``unit``, vectors have unit length, and one of zeros is missing, too.
    """
    weights = probe.parameters["weights"] * SQUARE_FACTOR  # on q·|q|, exact in float32
    values = np.asarray(probe.legend.values, out.dtype)
    for rows, labels in zip(codes, out, strict=True):
        linear_labels(rows, weights, probe.parameters["bias"], values, unit, labels)


@kernels.jit
def linear_labels(codes: Any, weights: Any, bias: Any, values: Any, unit: Any, out: Any) -> None:
    """The value of the largest score of each pixel: ``codes`` (band, n) to ``out`` (n,)."""
    bands, n = codes.shape
    classes = len(weights)
    scores = np.empty((classes, 256), np.float32)
    x = np.empty((4, 256), np.float32)
    missing = np.empty(256, np.bool_)
    for start in range(0, n, 256):
        m = min(256, n - start)
        for k in range(classes):
            scores[k, :] = bias[k]
        missing[:] = False
        for b in range(0, bands, 4):  # four bands a pass over the scores
            for c in range(4):
                own = x[c]
                if b + c >= bands:
                    own[:] = 0
                    continue
                row = codes[b + c, start : start + m]
                for j in range(m):
                    value = np.float32(row[j])
                    own[j] = value * abs(value)
                    missing[j] |= row[j] == -128
            x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
            for k in range(classes):
                w0 = weights[k, b]
                w1 = weights[k, min(b + 1, bands - 1)]
                w2 = weights[k, min(b + 2, bands - 1)]
                w3 = weights[k, min(b + 3, bands - 1)]
                total = scores[k]
                for j in range(m):
                    total[j] += (w0 * x0[j] + w1 * x1[j]) + (w2 * x2[j] + w3 * x3[j])
        if unit:
            for j in range(m):
                b = 0
                while b < bands and codes[b, start + j] == 0:
                    b += 1
                missing[j] |= b == bands
        for j in range(m):
            best, at = scores[0, j], 0
            for k in range(1, classes):
                if scores[k, j] > best:
                    best, at = scores[k, j], k
            out[start + j] = 0 if missing[j] else values[at]


@linear_labels.in_numpy
def _linear_labels_numpy(codes: Any, weights: Any, bias: Any, values: Any, unit: Any, out: Any) -> None:
    for start in range(0, codes.shape[1], 4096):
        piece = codes[:, start : start + 4096]
        value = piece.astype(np.float32)
        value *= np.abs(value)
        missing = (piece == -128).any(axis=0)
        if unit:
            missing |= ~piece.any(axis=0)
        best = values[(weights @ value + bias[:, None]).argmax(axis=0)]
        out[start : start + 4096] = np.where(missing, 0, best)
