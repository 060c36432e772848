"""Ridge on every pixel of a label raster, in one pass and without holding the pixels.

What ridge needs are sums, and sums add up: block by block, on any worker, in any order. They are kept by fold, so
that the probe without a fold's pixels, on which that fold is scored, costs no second pass either. Scores are taken
on a sample of each class that comes along.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.geometry import geobox_of
from geoemb_xr.core.legend import is_class_map, legend_of
from geoemb_xr.core.times import describe_times
from geoemb_xr.execution import blocks
from geoemb_xr.execution.computing import compute
from geoemb_xr.probes import labelling, validation
from geoemb_xr.probes.heads import Data, RidgeSums
from geoemb_xr.probes.samples import Samples, aligned, date_of, metres, period_index

#: Pixels of each class (or in all, of values) that scores are taken on.
SCORED = 500

#: Sums by the fold of left-out regions and the random one.
_Sums = dict[tuple[int, int], RidgeSums]


@dataclass(frozen=True)
class Streamed:
    """The result of one pass.

    Parameters
    ----------
    sums : dict of (int, int) to RidgeSums
        Sums by a pixel's fold of left-out regions and its random fold.
    samples : Samples
        Some pixels of each class, to be scored.
    folds : mapping of str to ndarray of int (n,)
        ``blocked`` and ``random``, of the samples; empty without folds.
    counts : ndarray (class,)
        Pixels of each class, or of all.
    """

    sums: _Sums
    samples: Samples
    folds: Mapping[str, np.ndarray]
    counts: np.ndarray

    def total(self, without: tuple[str, int] | None = None) -> RidgeSums:
        """Sums of all pixels, or of those outside of a fold of a kind."""
        axis = 0 if without is None or without[0] == "blocked" else 1
        kept = [each for key, each in self.sums.items() if without is None or key[axis] != without[1]]
        if not kept:
            raise EmbeddingError("all labelled pixels lie in one region; score without folds (cv=0)")
        return sum(kept[1:], kept[0])

    def by_fold(self) -> dict[int, RidgeSums]:
        """Sums by fold of left-out regions, or by random fold where there are none; by one fold without folds."""
        axis = 0 if "blocked" in self.folds else 1
        found: dict[int, RidgeSums] = {}
        for key, each in self.sums.items():
            fold = key[axis] if self.folds else 0
            found[fold] = found[fold] + each if fold in found else each
        return found

    def held_out(self, data: Data, tune: Callable[[Data], float | None]) -> dict[str, np.ndarray]:
        """Scores of the samples ``(classes, n)`` of each kind of folds, each from all pixels of the other folds."""

        def alpha(others: np.ndarray) -> float | None:
            return tune(data.at(np.flatnonzero(others)))

        def scores(kind: str, folds: np.ndarray) -> np.ndarray:
            return validation.held_out_by_sums(data, folds, lambda fold: self.total((kind, fold)), alpha)

        return {kind: scores(kind, folds) for kind, folds in self.folds.items()}


def stream(array: xr.DataArray, raster: xr.DataArray, cv: int, seed: int) -> Streamed:
    """Sums and a sample of all labelled pixels of a raster. Computes: reads the array once.

    Parameters
    ----------
    array : DataArray (band, y, x)
        An embedding of one time.
    raster : DataArray (y, x)
        Labels: classes, or floats for regression; another grid is brought to the array's first. Classes are
        read once more, before, for the codes that occur.
    cv : int
        Number of folds.
    seed : int
        Seed of the folds and the sample.

    Raises
    ------
    EmbeddingError
        If the array has several times, or nothing is labelled.
    """
    array = _one_time(array, date_of(raster))
    raster = aligned(raster, array)
    classes = _classes(raster)
    grid = geobox_of(array, "fit_probe")
    fields = [raster, _numbers(array)]
    regions = _regions(cv, seed)
    params = (grid.shape, classes, labelling.nodata_of(raster), regions, cv, seed)
    parts = blocks.per_block(_on_block, array, *params, fields=fields)
    sums, drawn, pixels = blocks.merged(parts, _merge, label="fit_probe")
    if not len(drawn.label):
        raise EmbeddingError("no label is left to learn from: no labelled pixel has data")
    met = pixels > 0  # classes of pixels with data
    sums = {key: replace(each, y=each.y[met], xy=each.xy[:, met]) for key, each in sums.items()}
    vectors, number, own_folds = drawn.beside
    row, col = np.divmod(number, grid.shape[1])
    places = metres(grid, row, col)
    samples = Samples(
        vectors=vectors,
        labels=drawn.label,
        weights=np.ones(len(row)),
        groups=np.arange(len(row)),
        places=places,
        legend=legend_of(raster) if is_class_map(raster) else None,
    )
    folds = {"blocked": own_folds[:, 0], "random": own_folds[:, 1]} if cv else {}
    return Streamed(sums, samples, {k: f for k, f in folds.items() if len(np.unique(f)) > 1}, pixels[met])


def _one_time(array: xr.DataArray, date: str | None) -> xr.DataArray:
    """The array at the date that its labels hold for."""
    if "time" not in array.coords:
        return array
    times = np.atleast_1d(array.coords["time"].values)
    if date is not None:
        step = int(period_index(times, [date])[0])
        if step < 0:
            raise EmbeddingError(f"the labels are of {date}, the array has {describe_times(times)}")
    elif times.size == 1:
        step = 0
    else:
        raise EmbeddingError("a label raster holds for one time; take one of the array's: .emb.year(2024)")
    return array.isel(time=step, drop=True) if "time" in array.dims else array


def _classes(raster: xr.DataArray) -> np.ndarray | None:
    """The codes that occur, ascending; None for floats."""
    if raster.dtype.kind == "f":
        return None
    nodata = labelling.nodata_of(raster)
    if raster.chunks is None:
        found = np.unique(raster.values)
    else:
        import dask

        each = [dask.delayed(np.unique)(block) for block in raster.data.to_delayed().ravel()]
        found = np.unique(np.concatenate(compute(*each)))
    return found if nodata is None else found[found != nodata]


def _numbers(array: xr.DataArray) -> xr.DataArray:
    """The number of each pixel in the array, row by row, lazily where the array is lazy."""
    height, width = array.sizes["y"], array.sizes["x"]
    rows: Any = np.arange(height, dtype=np.int64)[:, None] * width
    cols: Any = np.arange(width, dtype=np.int64)[None]
    if array.chunks is not None:
        import dask.array as da

        rows = da.from_array(rows, chunks=(array.variable.chunksizes["y"], 1))
        cols = da.from_array(cols, chunks=(1, array.variable.chunksizes["x"]))
    coords = {d: array.coords[d] for d in ("y", "x")}
    return xr.DataArray(rows + cols, dims=("y", "x"), coords=coords)


def _regions(cv: int, seed: int) -> np.ndarray:
    """The fold of each square region of the array; a fold has several regions."""
    side = math.isqrt(max(validation.REGIONS * cv - 1, 0)) + 1
    return np.asarray(np.random.default_rng(seed).permutation(side**2) % max(cv, 1)).reshape(side, side)


# --- one block ------------------------------------------------------------------------------------------------


#: Sums, pixels to be scored with their vectors, numbers and folds, and how many pixels there are of each class.
_Part = tuple[_Sums, labelling.Drawn, np.ndarray]


def _on_block(
    block: blocks.Block,
    shape: tuple[int, int],
    classes: np.ndarray | None,
    nodata: Any,
    regions: np.ndarray,
    cv: int,
    seed: int,
) -> _Part:
    labels, number = (field.reshape(-1) for field in block.fields)
    hashes = block.hashes(seed)
    row, col = np.divmod(number, shape[1])
    side = len(regions)
    folds = np.stack(
        [regions[row * side // shape[0], col * side // shape[1]], block.hashes(seed + 1) % max(cv, 1)]
    )
    folds = folds.astype(np.int64)
    known = ~np.isnan(labels) if classes is None else np.ones(labels.size, bool)
    if nodata is not None:
        known &= labels != nodata
    width = 1 if classes is None else len(classes)
    sums: _Sums = {}
    pixels = np.zeros(width)
    for where, vectors in block.pieces():
        keep = known[where] & np.isfinite(vectors).all(axis=0)
        known[where] = keep
        if not keep.any():
            continue
        x, y = vectors[:, keep].T, labels[where][keep]
        targets = (
            y[:, None].astype(np.float64) if classes is None else (y[:, None] == classes).astype(np.float64)
        )
        pixels += len(y) if classes is None else targets.sum(axis=0)
        pair = folds[:, where][:, keep]
        for blocked, random in np.unique(pair, axis=1).T.tolist():
            own = (pair[0] == blocked) & (pair[1] == random)
            part = RidgeSums.of(x[own], targets[own], np.ones(int(own.sum())))
            sums[blocked, random] = sums[blocked, random] + part if (blocked, random) in sums else part
    at = np.flatnonzero(known)
    at = at[labelling.first(labels[at], hashes[at], SCORED)]
    beside = block.at(at).astype(np.float32), number[at], folds[:, at].T
    return sums, labelling.Drawn(labels[at], hashes[at], beside), pixels


def _merge(parts: Sequence[_Part]) -> _Part:
    """Several parts as one."""
    sums: _Sums = {}
    for part, _, _ in parts:
        for key, each in part.items():
            sums[key] = sums[key] + each if key in sums else each
    drawn = labelling.Drawn.merge([each for _, each, _ in parts], SCORED)
    return dict(sorted(sums.items())), drawn, np.sum([n for _, _, n in parts], axis=0)
