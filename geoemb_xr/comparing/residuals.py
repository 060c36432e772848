"""The range of autocorrelation of a probe's errors: blocks of that size are nearly independent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Labels from whose pairs the range is told, and classes of distance.
_MOST, _BINS = 2000, 20
#: Pairs that a class of distance needs, and standard errors that correlation must be above zero.
_LEAST_PAIRS, _SURE = 30, 3.0


@dataclass(frozen=True)
class Range:
    """The range of autocorrelation.

    Parameters
    ----------
    metres : float or None
        Beyond it errors are not alike; None where it cannot be identified.
    note : str
        Why it cannot, in words; empty where it can.
    distance, correlation, error : ndarray (bin,)
        The correlogram: mean distance of pairs, their correlation, and its standard error if there were none.
    """

    metres: float | None
    note: str
    distance: np.ndarray
    correlation: np.ndarray
    error: np.ndarray


def autocorrelation_range(places: np.ndarray, residuals: np.ndarray, seed: int) -> Range:
    """Range of a spherical model (Webster and Oliver 2007) fitted to the correlogram of residuals.

    Parameters
    ----------
    places : ndarray (n, d)
        Coordinates in metres.
    residuals : ndarray (n, classes)
        Errors: shares of classes, or one column of values.
    seed : int
        Seed of the draw of 2,000 labels where there are more.
    """
    chosen = np.random.default_rng(seed).permutation(len(places))[:_MOST]
    places, errors = places[chosen], residuals[chosen] - residuals[chosen].mean(axis=0)
    distance, correlation, error = _correlogram(places, errors)
    if len(distance) < 5:
        return Range(None, "there are too few pairs of labels", distance, correlation, error)
    tried = np.geomspace(distance[0], distance[-1], 60)
    reach = np.minimum(distance / tried[:, None], 1)
    shape = 1 - 1.5 * reach + 0.5 * reach**3
    weight = error**-2.0
    height = (shape * weight) @ correlation / np.maximum((shape**2) @ weight, 1e-300)
    loss = (weight * (correlation - height[:, None] * shape) ** 2).sum(axis=1)
    best = int(np.argmin(loss))
    if height[best] * np.sqrt(shape[best] ** 2 @ weight) < _SURE:
        note = "errors of neighbouring labels are not alike"
    elif tried[best] > 0.8 * distance[-1]:
        note = "errors are alike as far as there are pairs of labels"
    else:
        return Range(float(tried[best]), "", distance, correlation, error)
    return Range(None, note, distance, correlation, error)


def _correlogram(places: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean distance, correlation and its standard error of pairs, by distance up to half of the largest."""
    from scipy.spatial.distance import pdist

    apart = pdist(places)
    first, second = np.triu_indices(len(places), 1)
    product = np.einsum("ij,ij->i", errors[first], errors[second])
    variance = max(float((errors**2).sum(axis=1).mean()), 1e-300)
    used = (apart > 0) & (apart <= apart.max(initial=0.0) / 2)
    apart, product = apart[used], product[used] / variance
    if len(apart) < _LEAST_PAIRS:
        return (np.empty(0),) * 3
    edges = np.geomspace(np.quantile(apart, 0.001), apart.max(), _BINS)
    index = np.searchsorted(edges, apart)
    count = np.bincount(index, minlength=_BINS + 1)
    kept = count >= _LEAST_PAIRS
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, correlation = (np.bincount(index, each, _BINS + 1) / count for each in (apart, product))
    # of independent errors the products of different pairs are uncorrelated, so their variance is that of one
    error = np.sqrt((product**2).mean() / np.maximum(count, 1))
    return mean[kept], correlation[kept], error[kept]
