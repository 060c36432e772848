"""Places that look like a place: a map of similarity, and the k best.

Both read vectors piece by piece from codes, and nothing but a number per pixel leaves a task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import geometry, times
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.notes import one_call
from geoemb_xr.execution import blocks
from geoemb_xr.retrieval.scores import How, Metric, similarity


@dataclass(frozen=True)
class _Best:
    """Scores in descending order, and positions in the whole array."""

    scores: np.ndarray
    positions: np.ndarray

    @staticmethod
    def of(scores: np.ndarray, positions: np.ndarray, k: int) -> _Best:
        """The k best; of equal ones the first in the array."""
        if scores.size > k:
            worst = np.partition(scores, scores.size - k)[scores.size - k]
            kept = np.flatnonzero(scores >= worst)
            scores, positions = scores[kept], positions[kept]
        order = np.lexsort((positions, -scores))[:k]
        return _Best(scores[order], positions[order])


@one_call()
def search(
    array: xr.DataArray,
    query: Any,
    k: int = 10,
    *,
    how: How = "mean",
    metric: Metric = "cosine",
    time: times.TimeLike = None,
) -> pd.DataFrame:
    """Find the k places that look most like a place or a vector. Computes; exact.

    Scores are looked at block by block and the best kept, so that memory does not grow with the array.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Codes or vectors, raster or points.
    query, how, metric, time
        As in :func:`similarity`. A place finds itself first.
    k : int
        How many.

    Returns
    -------
    DataFrame
        The best first: ``similarity`` (or ``distance``), ``lon``, ``lat``, ``x``, ``y`` in the array's CRS, and
        ``time`` or ``location`` where the array has them. Of equal scores the first in the array.

    Raises
    ------
    EmbeddingError
        If the array is empty of data.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(32, 32)).emb.year(2018)
    >>> da.emb.search((11.37, 47.25), 3).columns.tolist()
    ['similarity', 'lon', 'lat', 'x', 'y']
    """
    if k < 1:
        raise ValueError(f"k is how many to find, at least 1; got {k}")
    scores = similarity(array, query, how=how, metric=metric, time=time)
    # the order of positions must not hang on the order of dimensions
    scores = scores.transpose(*(d for d in ("time", "location", "y", "x") if d in scores.dims), ...)
    best = _k_best(scores if metric == "cosine" else -scores, k)
    if not best.scores.size:
        raise EmbeddingError("search found no pixel with data")
    return _table(scores, best, metric)


def _k_best(scores: xr.DataArray, k: int) -> _Best:
    if scores.chunks is None:
        return _block_best(scores.values, (0,) * scores.ndim, scores.shape, k)
    import dask

    task = dask.delayed(_block_best, pure=False)
    starts = [np.concatenate(([0], np.cumsum(c)[:-1])) for c in scores.data.chunks]
    lazy = scores.data.to_delayed()
    parts = [
        task(lazy[index], tuple(int(s[i]) for s, i in zip(starts, index, strict=True)), scores.shape, k)
        for index in np.ndindex(lazy.shape)
    ]
    best: _Best = blocks.merged(parts, _MergeBest(k), label="search")
    return best


@dataclass(frozen=True)
class _MergeBest:
    k: int
    __name__ = "merge"

    def __call__(self, parts: list[_Best]) -> _Best:
        scores, positions = (np.concatenate([getattr(p, n) for p in parts]) for n in ("scores", "positions"))
        return _Best.of(scores, positions, self.k)


def _block_best(scores: np.ndarray, start: tuple[int, ...], shape: tuple[int, ...], k: int) -> _Best:
    flat = np.ascontiguousarray(scores).reshape(-1)
    there = np.flatnonzero(flat >= _reached_by(flat, k))  # NaN reaches nothing
    places = np.unravel_index(there, scores.shape)
    whole = [place + first for place, first in zip(places, start, strict=True)]
    return _Best.of(flat[there], np.ravel_multi_index(whole, shape), k)


def _reached_by(scores: np.ndarray, k: int, part: int = 256) -> np.floating[Any]:
    """A score that at least k reach, if there are as many: the k-th of the best of parts, as each is one."""
    best = np.fmax.reduce(scores[: scores.size // part * part].reshape(-1, part), axis=1)
    best = best[~np.isnan(best)]
    return np.partition(best, best.size - k)[best.size - k] if best.size >= k else np.float32(-np.inf)


def _table(scores: xr.DataArray, best: _Best, metric: str) -> pd.DataFrame:
    places = dict(zip(scores.dims, np.unravel_index(best.positions, scores.shape), strict=True))
    name = "similarity" if metric == "cosine" else "distance"
    columns: dict[str, Any] = {name: best.scores if metric == "cosine" else -best.scores}
    by = {c: places["location"] if "location" in places else places.get(c) for c in ("x", "y")}
    xy = {
        c: scores.coords[c].values[where]
        for c, where in by.items()
        if c in scores.coords and where is not None
    }
    crs = geometry.crs_of(scores)
    if crs is not None and len(xy) == 2:
        to_lonlat = geometry.transformer(crs, geometry.as_crs(geometry.LONLAT))
        columns["lon"], columns["lat"] = to_lonlat.transform(xy["x"], xy["y"])
    columns |= xy
    for dim in ("time", "location"):
        if dim in places and dim in scores.coords:
            columns[dim] = scores.coords[dim].values[places[dim]]
    return pd.DataFrame(columns)
