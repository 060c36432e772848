"""Embeddings over time: change between years, and the year of the largest step.

Change is an angle on the sphere. For AlphaEarth two codes of one and the same vector already lie 0.9° apart
(typically; 1.7° at worst), so angles near that are quantisation. Google's own examples read unsupervised change
as a hint of where to look, not as a map of what changed: clouds of one season, crop rotation and sensor
changes turn vectors too. Nothing is masked here; ``null="years"`` puts a change beside what years do to a place
anyway.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.analysis import year_kernels
from geoemb_xr.analysis.pieces import pieces
from geoemb_xr.analysis.steps import pair_distances, steps, steps_of
from geoemb_xr.analysis.years import TIME, over_years, times_of, years_at
from geoemb_xr.core import kernels
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.model import (
    check_embedding,
    derived_attrs,
)
from geoemb_xr.core.times import TimeLike, describe_times, pick_times
from geoemb_xr.execution.blocks import Block

Metric = Literal["angle", "cosine", "euclidean"]
_METRICS: dict[str, tuple[str, str]] = {
    "angle": ("angle", "degree"),
    "cosine": ("cosine similarity", "1"),
    "euclidean": ("distance", "1"),
}
#: Side of the square of pixels that ``null="years"`` takes for a pixel's surroundings.
SURROUNDINGS = 5


@overload
def change(
    array: xr.DataArray,
    a: TimeLike,
    b: TimeLike = ...,
    *,
    metric: Metric = ...,
    null: None = ...,
) -> xr.DataArray: ...
@overload
def change(
    array: xr.DataArray,
    a: TimeLike,
    b: TimeLike = ...,
    *,
    metric: Metric = ...,
    null: Literal["years"],
) -> xr.Dataset: ...
def change(
    array: xr.DataArray,
    a: TimeLike,
    b: TimeLike = None,
    *,
    metric: Metric = "angle",
    null: Literal["years"] | None = None,
) -> xr.DataArray | xr.Dataset:
    """How far vectors moved between two years, or from one year to each other. Lazy.

    It never masks. For AlphaEarth quantisation alone is 0.9° typically and 1.7° at worst.

    Parameters
    ----------
    array : DataArray (time, …, band, …)
        Codes or vectors; codes are decoded piece by piece.
    a, b : int or str
        Years or dates. Without ``b`` every other year is compared with ``a``.
    metric : {"angle", "cosine", "euclidean"}
        ``angle`` in degrees, 2·atan2(‖â−b̂‖, ‖â+b̂‖) (Kahan 2006), exact for small angles too, whatever the
        lengths; ``cosine`` likewise of directions; ``euclidean`` of the vectors as they are, for products
        without unit length.
    null : "years", optional
        Also give the percentile of this change among the steps from one year to the next that the pixel and the
        5 × 5 pixels around it made otherwise: 100 is more than any of them.

    Returns
    -------
    DataArray (…) or Dataset
        float32, NaN where a year is missing; with ``time`` where ``b`` is not given. With ``null`` a Dataset of
        ``change`` and ``percentile``.

    Raises
    ------
    EmbeddingError
        If there is no ``time``, or no other year to compare with.
    CoverageError
        If a year is not there.
    ValueError
        For an unknown metric or null, or a null without both years.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(4, 5), years=[2018, 2019, 2024])
    >>> da.emb.change(2018, 2024).attrs["units"]
    'degree'
    >>> da.emb.change(2018).time.dt.year.values.tolist()
    [2019, 2024]
    """
    check_embedding(array, "change")
    check_choice("metric", metric, _METRICS)
    times = np.sort(times_of(array, "change"))
    array = _in_order(array)
    first = _position(times, a)
    if null is not None:
        check_choice("null", null, ("years",))
        if b is None:
            raise ValueError("null='years' needs both years: change(a, b, null='years')")
        return _change_with_null(array, first, _position(times, b), metric)
    if b is not None:
        return _compared(array, first, _position(times, b), metric)
    others = np.delete(np.arange(times.size), first)
    if not others.size:
        raise EmbeddingError(f"change against {a!r} needs another year; the array has that one only")
    steps = [_compared(array, first, int(other), metric) for other in others]
    found = xr.concat(steps, pd.Index(times[others], name=TIME), combine_attrs="override")
    found.attrs = _change_attrs(array, metric, first, None)
    return found


def _position(times: np.ndarray, when: TimeLike) -> int:
    found = pick_times(times, when)
    if found.size != 1:
        raise EmbeddingError(
            f"{found.size} periods match {when!r} ({describe_times(times[found])}); give one date"
        )
    return int(found[0])


def _compared(array: xr.DataArray, a: int, b: int, metric: str) -> xr.DataArray:
    """The metric between the years at two positions."""
    return over_years(
        _distances,
        years_at(array, [a, b]),
        metric,
        name="change",
        attrs=_change_attrs(array, metric, a, b),
    )


def _change_attrs(array: xr.DataArray, metric: str, a: int, b: int | None) -> dict[str, Any]:
    name, units = _METRICS[metric]
    times = array.coords[TIME].values
    one = describe_times(times[[a]])
    between = f"to {one}" if b is None else f"between {one} and {describe_times(times[[b]])}"
    return derived_attrs(array, long_name=f"{name} {between}", units=units, metric=metric)


def _distances(years: list[Block], out: np.ndarray, metric: str) -> None:
    for where, found in steps(years, metric):
        out[:, where] = found


# --- what years do to a place anyway ------------------------------------------------------------------------


def _change_and_steps(
    years: list[Block], out: np.ndarray, pair: tuple[int, int], kept: tuple[int, ...], metric: str
) -> None:
    earlier, later = sorted(pair)
    for piece in pieces(years):
        out[0, piece.where] = pair_distances(piece, [pair], metric)[0, : piece.size]
        bare = ~piece.there[earlier + 1 : later, : piece.size].any(axis=0)
        out[1:, piece.where] = steps_of(piece, metric)[list(kept), : piece.size]
        if later - 1 in kept:  # without a year between, this step is the change itself
            own = out[1 + kept.index(later - 1), piece.where]
            own[bare] = np.nan


def _in_order(array: xr.DataArray) -> xr.DataArray:
    """The array with its periods one after the other, since a step goes from one to the next."""
    times = array.coords[TIME].values
    return array if (times[1:] >= times[:-1]).all() else array.isel({TIME: np.argsort(times, kind="stable")})


def _change_with_null(array: xr.DataArray, a: int, b: int, metric: str) -> xr.Dataset:
    size = array.sizes[TIME]
    kept = tuple(i for i in range(size - 1) if {i, i + 1} != {a, b})
    if not kept:
        raise EmbeddingError(
            f"null='years' compares with other years' steps; the array has {size} years, it needs three or more"
        )
    labels = ["change", *(f"step{i}" for i in kept)]
    both = over_years(
        _change_and_steps, array, (a, b), kept, metric, out=("step", labels), name="change", attrs={}
    )
    attrs = _change_attrs(array, metric, a, b)
    moved = both.isel(step=0, drop=True).assign_attrs(attrs)
    # less alike is more change: of cosines, the smaller
    ranked = _ranked(-both if metric == "cosine" else both)
    ranked.attrs = derived_attrs(
        array, long_name="share of the surroundings' other steps that are smaller", units="percent"
    )
    return xr.Dataset({"change": moved, "percentile": ranked}, attrs=derived_attrs(array))


def _ranked(both: xr.DataArray) -> xr.DataArray:
    """Percentile of the first of ``step`` among the others, of a pixel and those around it."""
    spatial = [d for d in ("y", "x") if d in both.dims]
    rest = [d for d in both.dims if d not in ("step", *spatial)]
    both = both.transpose("step", *rest, *spatial)
    reach = SURROUNDINGS // 2 if len(spatial) == 2 else 0
    dims = both.dims[1:]
    if both.chunks is None:
        data = _rank_block(_padded(both.values, reach), reach)
    else:
        import dask.array as da

        depth = {i: reach if d in spatial else 0 for i, d in enumerate(both.dims)}
        lazy = both.data.rechunk({0: -1})
        if reach:
            lazy = da.overlap.overlap(lazy, depth=depth, boundary=np.nan)
        data = da.map_blocks(
            _rank_block,
            lazy,
            reach,
            drop_axis=0,
            chunks=tuple(both.variable.chunksizes[d] for d in dims),
            dtype=np.float32,
            meta=np.empty((0,) * len(dims), np.float32),
        )
    coords = {k: v for k, v in both.coords.items() if "step" not in v.dims}
    return xr.DataArray(data, dims=dims, coords=coords, name="percentile")


def _padded(values: np.ndarray, reach: int) -> np.ndarray:
    width = [(0, 0)] * (values.ndim - 2) + [(reach, reach)] * 2
    return np.pad(values, width, constant_values=np.nan) if reach else values


def _rank_block(block: np.ndarray, reach: int) -> np.ndarray:
    """Ranks of a block ``(step, …, y, x)`` that has ``reach`` pixels more on every side."""
    block = np.ascontiguousarray(block, np.float32)
    if not reach:
        flat = block.reshape(len(block), 1, -1)
        return _rank(flat, 0).reshape(block.shape[1:])
    shape = block.shape
    layers = block.reshape(shape[0], -1, *shape[-2:])
    maps = [_rank(np.ascontiguousarray(layers[:, i]), reach) for i in range(layers.shape[1])]
    return np.stack(maps).reshape(*shape[1:-2], shape[-2] - 2 * reach, shape[-1] - 2 * reach)


def _rank(values: np.ndarray, reach: int) -> np.ndarray:
    """Percentage of ``values[1:]`` in the window around a pixel that are below its ``values[0]``.

    Not compiled: NumPy takes as long with 512² pixels, and up to a third longer with others.
    """
    height, width = values.shape[1] - 2 * reach, values.shape[2] - 2 * reach
    own = values[0, reach : reach + height, reach : reach + width]
    below, there = np.zeros((2, height, width))
    for layer in values[1:]:
        for r in range(2 * reach + 1):
            for c in range(2 * reach + 1):
                other = layer[r : r + height, c : c + width]
                there += ~np.isnan(other)
                below += (other < own) + (other == own) / 2
    with np.errstate(invalid="ignore"):
        return np.where((there > 0) & ~np.isnan(own), 100 * below / there, np.nan).astype(np.float32)


def change_point(array: xr.DataArray, *, metric: Literal["angle", "euclidean"] = "angle") -> xr.Dataset:
    """The year of the largest step from one year to the next, and how it compares with the others. Lazy.

    Parameters
    ----------
    array : DataArray (time, …, band, …)
        Three periods or more; codes or vectors. A year without data is stepped over.
    metric : {"angle", "euclidean"}
        See :func:`change`.

    Returns
    -------
    Dataset
        ``year``, uint16, the year at the end of the largest step (0: none); ``step``, its size, in degrees for
        angles; ``ratio``, that size over the median of the pixel's other steps.

    Raises
    ------
    EmbeddingError
        If there are fewer than three periods.
    ValueError
        For an unknown metric.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(4, 5), years=[2018, 2019, 2020, 2021])
    >>> list(da.emb.change_point())
    ['year', 'step', 'ratio']
    """
    check_embedding(array, "change_point")
    check_choice("metric", metric, ("angle", "euclidean"))
    times = np.sort(times_of(array, "change_point"))
    array = _in_order(array)
    if times.size < 3:
        raise EmbeddingError(f"change_point needs three periods or more; got {describe_times(times)}")
    years = tuple(int(y) for y in pd.DatetimeIndex(times).year)
    packed = over_years(
        _largest_step,
        array,
        years,
        metric,
        out=("variable", ["year", "step", "ratio"]),
        name="change_point",
        attrs={},
    )
    units = _METRICS[metric][1]
    described: dict[str, dict[str, Any]] = {
        "year": {"long_name": "year of the largest step", "missing_value": 0},
        "step": {"long_name": "largest step", "units": units, "metric": metric},
        "ratio": {"long_name": "largest step over the median of the others", "units": "1"},
    }
    variables = {
        name: packed.isel(variable=i, drop=True).assign_attrs(derived_attrs(array, **own))
        for i, (name, own) in enumerate(described.items())
    }
    attributes = variables["year"].attrs
    variables["year"] = variables["year"].astype(np.uint16).assign_attrs(attributes)
    return xr.Dataset(variables, attrs=derived_attrs(array))


def _largest_step(blocks: list[Block], out: np.ndarray, years: tuple[int, ...], metric: str) -> None:
    numbers, pairs = np.array((0, *years[1:]), np.float32), year_kernels.exchanges(len(years) - 1)
    for where, found in steps(blocks, metric):
        own = np.empty((3, found.shape[1]), np.float32)
        _largest_of(np.ascontiguousarray(found), numbers, pairs, own)
        out[:, where] = own


#: Pixels that are looked at together: what is held of them stays in a processor's first caches.
_ROW = 2048


@kernels.jit_exact
def _largest_of(steps: Any, numbers: Any, pairs: Any, out: Any) -> None:
    """Write the year of the largest of ``(step, n)``, its size, and that over the median of the others, ``(3, n)``.

    ``numbers`` are the years before and after each step; a step that is not finite is not there. The others are
    sorted by ``pairs`` of exchanges, the same for all pixels: see
    :func:`~geoemb_xr.analysis.year_kernels.extremes_of` of the sum with 0.
    """
    count, pixels = steps.shape
    zero, half = np.float32(0), np.float32(0.5)
    largest, others = np.empty(_ROW, np.float32), np.empty((count, _ROW), np.float32)
    place, there = np.empty(_ROW, np.int32), np.empty(_ROW, np.int32)
    low, high = np.empty(_ROW, np.float32), np.empty(_ROW, np.float32)
    for start in range(0, pixels, _ROW):
        at, n = np.uint64(start), np.uint64(min(_ROW, pixels - start))
        largest[:], place[:], there[:], low[:], high[:] = -np.inf, 0, 0, 0, 0
        for t in range(count):
            for j in range(n):
                more = (abs(steps[t, at + j]) < np.inf) & (steps[t, at + j] > largest[j])
                there[j] += abs(steps[t, at + j]) < np.inf
                place[j] = t if more else place[j]
                largest[j] = steps[t, at + j] if more else largest[j]
        for t in range(count):
            for j in range(n):
                other = (abs(steps[t, at + j]) < np.inf) & (place[j] != t)
                others[t, j] = steps[t, at + j] if other else np.float32(np.inf)
        for p in range(len(pairs)):
            first, second = np.uint64(pairs[p, 0]), np.uint64(pairs[p, 1])
            for j in range(n):
                one, two = others[first, j], others[second, j]
                others[first, j] = (one if one < two else two) + zero
                others[second, j] = (two if one < two else one) + zero
        for t in range(count):
            for j in range(n):
                low[j] = others[t, j] if 2 * t <= there[j] - 2 else low[j]
                high[j] = others[t, j] if 2 * t <= there[j] - 1 else high[j]
        for j in range(n):
            usual = low[j] * half + high[j] * half
            compared = (there[j] > 1) & (usual > 0)
            out[0, at + j] = numbers[place[j] + 1] if there[j] else np.float32(0)
            out[1, at + j] = largest[j] if there[j] else np.float32(np.nan)
            out[2, at + j] = largest[j] / usual if compared else np.float32(np.nan)


@_largest_of.in_numpy
def _largest_of_numpy(steps: Any, numbers: Any, pairs: Any, out: Any) -> None:
    there = np.isfinite(steps)
    count = there.sum(axis=0)
    filled = np.where(there, steps, -1)
    largest = filled.argmax(axis=0)
    size = np.take_along_axis(filled, largest[None], axis=0)[0]
    others = np.where(there, steps, np.float32(np.nan))
    np.put_along_axis(others, largest[None], np.nan, axis=0)
    others.sort(axis=0)  # NaN comes last
    low, high = (
        np.take_along_axis(others, each[None], axis=0)[0]
        for each in (np.maximum(count - 2, 0) // 2, np.maximum(count - 1, 0) // 2)
    )
    half = np.float32(0.5)
    usual = low * half + high * half
    compared = (count > 1) & (usual > 0)
    out[0] = np.where(count > 0, numbers[largest + 1], 0)
    out[1] = np.where(count > 0, size, np.nan)
    out[2] = np.where(compared, size / np.where(compared, usual, 1), np.nan)
