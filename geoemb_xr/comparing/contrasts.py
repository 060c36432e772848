"""Differences between products: paired on the same folds, and tested over blocks, never over single labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoemb_xr.probes.heads import Data

#: No interval below so few blocks, Student's below so many, a bootstrap over blocks from there on.
LEAST_BLOCKS, MANY_BLOCKS = 6, 30
_DRAWS = 2000


def correctness(data: Data, scores: np.ndarray) -> np.ndarray:
    """Return each sample's part of the score (n,): of balanced accuracy or R², and 0 where not predicted."""
    done = ~np.isnan(scores).any(axis=0)
    weights = data.weights * done
    out = np.zeros(len(data.y))
    if data.classes:
        counts = np.bincount(data.y, weights, data.classes)
        right = scores.argmax(axis=0) == data.y
        out[done] = (weights * right)[done] / counts[data.y[done]] / (counts > 0).sum()
        return out
    mean = weights @ data.y / weights.sum()
    error = weights[done] * (data.y - scores[0])[done] ** 2
    out[done] = weights[done] / weights.sum() - error / (weights @ (data.y - mean) ** 2)
    return out


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
        Number of blocks that it is computed from.
    """

    value: float
    low: float
    high: float
    p: float
    blocks: int


def difference(a: np.ndarray, b: np.ndarray, blocks: np.ndarray, level: float, seed: int) -> Difference:
    """Compare the scores of two products, paired by block rather than by sample.

    Below 30 blocks the interval is Student's, above it is a bootstrap over blocks.
    """
    from scipy import stats

    parts = np.bincount(np.unique(blocks, return_inverse=True)[1], a - b)
    count, total = len(parts), float((a - b).sum())
    if count < LEAST_BLOCKS:
        return Difference(total, np.nan, np.nan, np.nan, count)
    error = float(np.sqrt(count * parts.var(ddof=1)))
    if count < MANY_BLOCKS:
        p = 1.0 if error == 0 else float(2 * stats.t.sf(abs(total) / error, count - 1))
        reach = float(stats.t.ppf(0.5 + level / 2, count - 1)) * error
        return Difference(total, total - reach, total + reach, p, count)
    drawn = np.random.default_rng(seed).integers(count, size=(_DRAWS, count))
    sums = parts[drawn].sum(axis=1)
    low, high = np.quantile(sums, [0.5 - level / 2, 0.5 + level / 2])
    # how often a draw lies on the other side of zero, twice; a draw more in both counts keeps it above 0
    beyond = min((sums <= 0).sum(), (sums >= 0).sum())
    return Difference(total, float(low), float(high), float(min(2 * (beyond + 1) / (_DRAWS + 1), 1.0)), count)


def holm(p: np.ndarray) -> np.ndarray:
    """P-values corrected for their number (Holm 1979)."""
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def interval(
    data: Data, scores: np.ndarray, units: np.ndarray, level: float, seed: int
) -> tuple[float, float]:
    """Interval of balanced accuracy or R² by a bootstrap over blocks; NaN below six blocks."""
    unit = np.unique(units, return_inverse=True)[1]
    count = int(unit.max()) + 1
    if count < LEAST_BLOCKS:
        return np.nan, np.nan
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=_DRAWS // 4)
    if data.classes:
        right = (scores.argmax(axis=0) == data.y) * data.weights
        cells = unit * data.classes + data.y
        size = count * data.classes
        hits, all_ = (
            drawn @ np.bincount(cells, each, size).reshape(count, -1) for each in (right, data.weights)
        )
        with np.errstate(invalid="ignore"):
            values = np.nanmean(hits / np.where(all_ > 0, all_, np.nan), axis=1)
    else:
        error = data.weights * (data.y - scores[0]) ** 2
        columns = (data.weights, data.weights * data.y, data.weights * data.y**2, error)
        n, first, second, lost = (drawn @ np.bincount(unit, each, count) for each in columns)
        values = 1 - lost / np.maximum(second - first**2 / n, 1e-300)
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)
