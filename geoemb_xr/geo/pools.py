"""Sums over the pixels in a polygon: moments of vectors, weights of classes, or all values for quantiles.

Sums of parts of a polygon merge into those of the whole, so that blocks are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

Stats = Literal["mean", "normalized", "stats", "covariance", "shares", "majority", "quantiles"]
#: What one part of a zone gives, to be merged with others.
State = tuple[np.ndarray, np.ndarray]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Pool(Protocol):
    """The interface of a way of summing for zonal statistics."""

    @property
    def zones(self) -> int:
        """How many."""
        ...

    @property
    def width(self) -> int:
        """Numbers a zone."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the result."""
        ...

    def valid(self, vectors: np.ndarray) -> np.ndarray:
        """Which of some vectors ``(n, band)`` have data."""
        ...

    def sums(self, vectors: np.ndarray, weights: np.ndarray) -> State:
        """Sums of vectors with data, by their weights."""
        ...

    def merge(self, a: State, b: State) -> State:
        """Sums of two parts of a zone."""
        ...

    def finish(self, merged: Mapping[tuple[int, int], State], count: int) -> np.ndarray:
        """The statistics ``(time, zone, …)`` from the sums by time step and zone."""
        ...


@dataclass(frozen=True)
class Moments:
    """Sums in each polygon: weights, vectors, squares or products; and the extremes.

    Parameters
    ----------
    stats : str
        See :func:`geoemb_xr.zonal_stats`.
    zones, bands : int
        Number of each.
    """

    stats: Stats
    zones: int
    bands: int

    def labels(self, bands: Sequence[str]) -> list[str]:
        """Names of the result's bands, for "stats" and "covariance"."""
        if self.stats == "stats":
            return [f"{band}_{what}" for what in ("min", "max", "mean", "std") for band in bands]
        return [f"{a}_{b}" for i, a in enumerate(bands) for b in bands[i:]]

    @property
    def width(self) -> int:
        """Numbers a zone."""
        return self.bands if self.stats in ("mean", "normalized") else len(self.labels([""] * self.bands))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the result."""
        return np.dtype(np.float32)

    def valid(self, vectors: np.ndarray) -> np.ndarray:
        """Which of some vectors ``(n, band)`` have data."""
        return np.asarray(np.isfinite(vectors.sum(axis=1)))

    def sums(self, vectors: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums of vectors ``(n, band)``, and minus the minimum with the maximum, to be merged by maximum."""
        x = vectors.astype(np.float64)
        parts = [np.array([weights.sum()]), weights @ x]
        if self.stats == "stats":
            parts.append(weights @ (x * x))
        elif self.stats == "covariance":
            parts.append(((x * weights[:, None]).T @ x)[np.triu_indices(self.bands)])
        extremes = np.concatenate([-x.min(axis=0), x.max(axis=0)]) if self.stats == "stats" else np.empty(0)
        return np.concatenate(parts), extremes

    def merge(self, a: State, b: State) -> State:
        """Sums of two parts of a zone."""
        return a[0] + b[0], np.maximum(a[1], b[1])

    def finish(self, merged: Mapping[tuple[int, int], State], count: int) -> np.ndarray:
        """The statistics ``(time, zone, …)``, NaN where nothing was summed."""
        blank = self.sums(np.zeros((1, self.bands), np.float32), np.zeros(1))
        sums = np.zeros((count, self.zones, blank[0].size))
        extremes = np.full((count, self.zones, blank[1].size), -np.inf)
        for key, (own, ends) in merged.items():
            sums[key], extremes[key] = own, ends
        return np.stack([self._finish(s, e) for s, e in zip(sums, extremes, strict=True)])

    def _finish(self, sums: np.ndarray, extremes: np.ndarray) -> np.ndarray:
        """The statistics, float32 ``(zone, …)``, NaN where nothing was summed."""
        with np.errstate(invalid="ignore", divide="ignore"):
            moments = sums[:, 1:] / sums[:, :1]
        mean, second = moments[:, : self.bands], moments[:, self.bands :]
        if self.stats == "mean":
            out = mean
        elif self.stats == "normalized":
            with np.errstate(invalid="ignore", divide="ignore"):
                out = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        elif self.stats == "stats":
            low, high = -extremes[:, : self.bands], extremes[:, self.bands :]
            spread = np.sqrt(np.maximum(second - mean**2, 0))
            out = np.concatenate([np.where(np.isfinite(low), low, np.nan), high, mean, spread], axis=1)
            out[~np.isfinite(out)] = np.nan
        else:
            rows, cols = np.triu_indices(self.bands)
            out = second - mean[:, rows] * mean[:, cols]
        return np.asarray(out, np.float32)


@dataclass(frozen=True)
class Classes:
    """The weight of each class in each polygon: its share, or the class of most.

    Parameters
    ----------
    stats : {"shares", "majority", "sums"}
        Of equal shares the class first in the legend has the majority.
    zones : int
        Number of zones.
    codes : tuple of int
        Codes of the legend; 0 and codes that it lacks do not count.
    dtype : dtype
        Data type of the result.
    """

    stats: Stats | Literal["sums"]
    zones: int
    codes: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def width(self) -> int:
        """Numbers a zone."""
        return 1 if self.stats == "majority" else len(self.codes)

    def valid(self, vectors: np.ndarray) -> np.ndarray:
        """Which pixels have a class."""
        return np.asarray(np.isin(vectors[:, 0], self.codes))

    def sums(self, vectors: np.ndarray, weights: np.ndarray) -> State:
        """Weight of each class."""
        order = np.argsort(self.codes)
        found = order[np.searchsorted(np.asarray(self.codes)[order], vectors[:, 0])]
        return np.bincount(found, weights, len(self.codes)), np.empty(0)

    def merge(self, a: State, b: State) -> State:
        """Sums of two parts of a zone."""
        return a[0] + b[0], a[1]

    def finish(self, merged: Mapping[tuple[int, int], State], count: int) -> np.ndarray:
        """Sums or shares, NaN where there is no class; or the code of most, 0 there."""
        sums = np.zeros((count, self.zones, len(self.codes)))
        for key, (own, _) in merged.items():
            sums[key] = own
        total = sums.sum(axis=-1, keepdims=True)
        if self.stats == "majority":
            most = np.asarray(self.codes)[sums.argmax(axis=-1)][..., None]
            return np.where(total > 0, most, 0).astype(self.dtype)
        if self.stats == "sums":
            return sums
        with np.errstate(invalid="ignore"):
            return np.asarray(sums / total, self.dtype)


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of the pixels in each polygon: the smallest value that so much of the weight does not exceed.

    Parameters
    ----------
    zones, bands : int
        Number of each.
    """

    zones: int
    bands: int

    @property
    def width(self) -> int:
        """Numbers a zone."""
        return self.bands * len(QUANTILES)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the result."""
        return np.dtype(np.float32)

    def labels(self, bands: Sequence[str]) -> list[str]:
        """Names of the result's bands, quantile by quantile."""
        return [f"{band}_q{100 * q:02.0f}".lstrip("_") for q in QUANTILES for band in bands]

    def valid(self, vectors: np.ndarray) -> np.ndarray:
        """Which of some vectors ``(n, band)`` have data."""
        return np.asarray(np.isfinite(vectors.sum(axis=1)))

    def sums(self, vectors: np.ndarray, weights: np.ndarray) -> State:
        """Keep all values, since quantiles of parts do not make those of the whole."""
        return vectors.astype(np.float32), weights

    def merge(self, a: State, b: State) -> State:
        """Both parts."""
        return np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]])

    def finish(self, merged: Mapping[tuple[int, int], State], count: int) -> np.ndarray:
        """Quantiles, NaN where there is no data."""
        out = np.full((count, self.zones, self.width), np.nan, np.float32)
        for key, (values, weights) in merged.items():
            found = np.quantile(values, QUANTILES, axis=0, weights=weights, method="inverted_cdf")
            out[key] = found.reshape(-1)
        return out
