"""Sums over the pixels in polygons: moments of vectors, weights of classes, or all values for quantiles.

Sums are kept in rows, one a polygon and time step. Sums of parts merge into those of the whole, so that blocks are
looked at one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from geoemb_xr.core.codecs import SQUARE_FACTOR
from geoemb_xr.geo import pooling_kernels as loops

if TYPE_CHECKING:
    from geoemb_xr.geo.covering import CoveredPixels

Stats = Literal["mean", "normalized", "stats", "covariance", "shares", "majority", "quantiles"]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Pool[Sums](Protocol):
    """The interface of a way of summing for zonal statistics."""

    @property
    def width(self) -> int:
        """Numbers a zone."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the result."""
        ...

    def none(self, rows: int) -> Sums:
        """Sums of nothing."""
        ...

    def add(
        self, sums: Sums, rows: np.ndarray, vectors: np.ndarray, weights: np.ndarray, ends: np.ndarray
    ) -> None:
        """Add pixels to sums.

        Parameters
        ----------
        sums : object
            What :meth:`none` gave.
        rows : ndarray of int (part,)
            The row that each part of the pixels belongs to; several may belong to one.
        vectors : ndarray (band, pixel)
            Those without data are left out. They may be changed, as may the weights.
        weights : ndarray of float64 (pixel,)
            At least 0.
        ends : ndarray of int (part + 1,)
            Where the pixels of each part begin and end.
        """
        ...

    def merge(self, into: Sums, rows: np.ndarray, sums: Sums) -> None:
        """Add the sums of other pixels to some rows, each but once."""
        ...

    def finish(self, sums: Sums) -> np.ndarray:
        """The statistics, ``(row, width)``."""
        ...


#: Weights, vectors, squares or products, and minus the minimum and the maximum: a row per polygon and time step.
_Moments = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class VectorMoments:
    """Sums in each polygon: weights, vectors, squares or products; and the extremes.

    Parameters
    ----------
    stats : str
        See :func:`geoemb_xr.zonal_stats`.
    bands : int
        How many.
    """

    stats: Stats
    bands: int

    @property
    def is_mean(self) -> bool:
        """Whether weights and vectors are all that is summed."""
        return self.stats in ("mean", "normalized")

    def labels(self, bands: Sequence[str]) -> list[str]:
        """Names of the result's bands, for "stats" and "covariance"."""
        if self.stats == "stats":
            return [f"{band}_{what}" for what in ("min", "max", "mean", "std") for band in bands]
        return [f"{a}_{b}" for i, a in enumerate(bands) for b in bands[i:]]

    @property
    def width(self) -> int:
        """Numbers a zone."""
        return self.bands if self.is_mean else len(self.labels([""] * self.bands))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the result."""
        return np.dtype(np.float32)

    def none(self, rows: int) -> _Moments:
        """Sums of nothing: weights, vectors, squares or products, and extremes."""
        extremes = self.bands if self.stats == "stats" else 0
        second = {"stats": self.bands, "covariance": self.bands * (self.bands + 1) // 2}.get(self.stats, 0)
        return (
            np.zeros((rows, 1)),
            np.zeros((rows, self.bands)),
            np.zeros((rows, second)),
            np.full((rows, 2, extremes), -np.inf),
        )

    def add(
        self, sums: _Moments, rows: np.ndarray, vectors: np.ndarray, weights: np.ndarray, ends: np.ndarray
    ) -> None:
        """Add vectors by their weights."""
        of, first, second, extremes = sums
        loops.settle(vectors, weights, ends, rows, of[:, 0])
        loops.add_powers(vectors, 1, weights, ends, rows, first)
        if self.stats == "stats":
            loops.add_powers(vectors, 2, weights, ends, rows, second)
            loops.widen(vectors, weights, ends, rows, extremes)
        elif self.stats == "covariance":
            upper = np.triu_indices(self.bands)
            for row, start, stop in zip(rows.tolist(), ends[:-1].tolist(), ends[1:].tolist(), strict=True):
                own = vectors[:, start:stop].astype(np.float64)
                second[row] += ((own * weights[start:stop]) @ own.T)[upper]

    def add_squares(self, sums: _Moments, rows: np.ndarray, piece: CoveredPixels, block: np.ndarray) -> None:
        """Do what :meth:`add` does for means, from a block of codes of signed squares: vectors are not made.

        Where the bands of each pixel lie side by side pixels are gathered first, and then lie in one row.
        """
        windows = np.ascontiguousarray(piece.windows[:, 1:])
        runs, ends, weights = piece.runs, piece.ends, piece.weights
        if len(block) > 1 and block.strides[0] == block.itemsize:
            block = loops.gathered(block, runs, weights.size)[:, None]
            nought = np.zeros(len(rows), np.int64)
            windows = np.stack([nought, nought + 1, ends[:-1], ends[1:]], axis=1)
            runs = np.stack([nought, ends[:-1], np.diff(ends)], axis=1)
        factor = float(SQUARE_FACTOR)
        loops.add_squares(block, factor, windows, runs, ends, weights, rows, sums[0][:, 0], sums[1])

    def merge(self, into: _Moments, rows: np.ndarray, sums: _Moments) -> None:
        """Add sums, and widen extremes."""
        for all_, own in zip(into[:3], sums[:3], strict=True):
            all_[rows] += own
        into[3][rows] = np.maximum(into[3][rows], sums[3])

    def finish(self, sums: _Moments) -> np.ndarray:
        """The statistics, NaN where nothing was summed."""
        of, first, second, extremes = sums
        with np.errstate(invalid="ignore", divide="ignore"):
            mean, second = first / of, second / of
            if self.stats == "mean":
                out = mean
            elif self.stats == "normalized":
                out = mean / np.linalg.norm(mean, axis=1, keepdims=True)
            elif self.stats == "stats":
                low, high = -extremes[:, 0], extremes[:, 1]
                spread = np.sqrt(np.maximum(second - mean**2, 0))
                out = np.concatenate([low, high, mean, spread], axis=1)
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
    codes : tuple of int
        Codes of the legend; 0 and codes that it lacks do not count.
    dtype : dtype
        Data type of the result.
    """

    stats: Stats | Literal["sums"]
    codes: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def width(self) -> int:
        """Numbers a zone."""
        return 1 if self.stats == "majority" else len(self.codes)

    def none(self, rows: int) -> np.ndarray:
        """No weight of any class."""
        return np.zeros((rows, len(self.codes)))

    def add(
        self, sums: np.ndarray, rows: np.ndarray, vectors: np.ndarray, weights: np.ndarray, ends: np.ndarray
    ) -> None:
        """Add the weights of classes."""
        order = np.argsort(self.codes)
        known = np.asarray(self.codes)[order]
        place = np.minimum(np.searchsorted(known, vectors[0]), len(known) - 1)
        kept = known[place] == vectors[0]
        np.add.at(sums, (np.repeat(rows, np.diff(ends))[kept], order[place[kept]]), weights[kept])

    def merge(self, into: np.ndarray, rows: np.ndarray, sums: np.ndarray) -> None:
        """Add weights."""
        into[rows] += sums

    def finish(self, sums: np.ndarray) -> np.ndarray:
        """Sums or shares, NaN where there is no class; or the code of most, 0 there."""
        total = sums.sum(axis=-1, keepdims=True)
        if self.stats == "majority":
            most = np.asarray(self.codes)[sums.argmax(axis=-1)][..., None]
            return np.where(total > 0, most, 0).astype(self.dtype)
        if self.stats == "sums":
            return sums
        with np.errstate(invalid="ignore"):
            return np.asarray(sums / total, self.dtype)


@dataclass
class _Values:
    """Values of pixels ``(pixel, band)`` and their weights, and the row that each belongs to."""

    rows: int
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of the pixels in each polygon: the smallest value that so much of the weight does not exceed.

    Parameters
    ----------
    bands : int
        How many.
    """

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

    def none(self, rows: int) -> _Values:
        """No values."""
        return _Values(rows, [])

    def add(
        self, sums: _Values, rows: np.ndarray, vectors: np.ndarray, weights: np.ndarray, ends: np.ndarray
    ) -> None:
        """Keep all values, since quantiles of parts do not make those of the whole."""
        there = np.isfinite(vectors.sum(axis=0))
        owner = np.repeat(rows, np.diff(ends))[there]
        sums.parts.append((owner, vectors.T[there].astype(np.float32), weights[there]))

    def merge(self, into: _Values, rows: np.ndarray, sums: _Values) -> None:
        """Keep those of both."""
        into.parts += [(rows[owner], values, weights) for owner, values, weights in sums.parts]

    def finish(self, sums: _Values) -> np.ndarray:
        """Quantiles, NaN where there is no data."""
        out = np.full((sums.rows, self.width), np.nan, np.float32)
        if not sums.parts:
            return out
        owner, values, weights = (np.concatenate(each) for each in zip(*sums.parts, strict=True))
        order = np.argsort(owner, kind="stable")
        for own in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
            if own.size:
                found = np.quantile(
                    values[own], QUANTILES, axis=0, weights=weights[own], method="inverted_cdf"
                )
                out[owner[own[0]]] = found.reshape(-1)
        return out
