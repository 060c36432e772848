"""Embeddings over time: aggregate years, measure change between them, find the year of the largest step.

Change is an angle on the sphere. For AlphaEarth two codes of one and the same vector already lie 0.9° apart
(typically; 1.7° at worst), so angles near that are quantisation. Google's own examples read unsupervised change
as a hint of where to look, not as a map of what changed: clouds of one season, crop rotation and sensor
changes turn vectors too. Nothing is masked here; ``null="years"`` puts a change beside what years do to a place
anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import arrays, kernels
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.fitted import decoded_bands
from geoemb_xr.core.model import (
    BAND,
    Codec,
    check_band_chunk,
    check_embedding,
    derived_attrs,
    is_encoded,
    product,
)
from geoemb_xr.core.times import TimeLike, describe_times, pick_times
from geoemb_xr.execution.blocks import Block

TIME = "time"
How = Literal["mean", "median", "min", "max", "std"]
Metric = Literal["angle", "cosine", "euclidean"]
_METRICS: dict[str, tuple[str, str]] = {
    "angle": ("angle", "degree"),
    "cosine": ("cosine similarity", "1"),
    "euclidean": ("distance", "1"),
}
#: Side of the square of pixels that ``null="years"`` takes for a pixel's surroundings.
SURROUNDINGS = 5
_TILE = 1024


# --- a function of years, lazily ----------------------------------------------------------------------------


def _over_years(
    function: Callable[..., np.ndarray],
    array: xr.DataArray,
    *params: Any,
    out: tuple[str, Sequence[Any]] | None = None,
    name: str,
    attrs: Mapping[str, Any],
) -> xr.DataArray:
    """Apply ``function(years, *params)`` to every block of pixels with all of its years in one task.

    ``years`` is a list of :class:`Block`, band-last, in time order, however time was chunked. The function
    returns float32 ``(pixels,)``, or ``(pixels, k)`` with ``out``, a dimension in the place of ``band`` and its
    k labels.
    """
    codec = arrays.codec_of(array) if is_encoded(array) else None
    scale = arrays.scale_of(array, codec) if codec is not None else None
    dims = [d if d != BAND or out is None else out[0] for d in array.dims if d != TIME and (d != BAND or out)]
    task = partial(
        _on_years,
        function,
        codec,
        (array.get_axis_num(TIME), array.get_axis_num(BAND)),
        None if scale is None else scale.get_axis_num(TIME),
    )
    if array.chunks is None:
        data = task(array.values, None if scale is None else scale.values, *params)
    else:
        import dask.array as da

        check_band_chunk(array, name)
        operands: list[Any] = [array.data, array.dims, None, None]
        if scale is not None:
            chunks = {d: c for d, c in array.chunksizes.items() if d != BAND}
            operands[2:] = [scale.chunk(chunks).data, scale.dims]
        data = da.blockwise(
            task,
            tuple(dims),
            *operands,
            *(each for param in params for each in (param, None)),
            new_axes={out[0]: len(out[1])} if out is not None else {},
            concatenate=False,
            dtype=np.float32,
            meta=np.empty((0,) * len(dims), np.float32),
            token=name,
        )
    coords = {k: v for k, v in array.coords.items() if not {BAND, TIME} & set(v.dims)}
    if codec is not None and codec.scale is not None:
        coords.pop(codec.scale, None)
    if out is not None:
        coords[out[0]] = xr.DataArray(np.asarray(out[1]), dims=out[0])
    return xr.DataArray(data, dims=dims, coords=coords, name=name, attrs=dict(attrs))


def _flat(nested: Any) -> list[np.ndarray]:
    """The blocks of contracted dimensions out of the lists that blockwise wraps them in, in order."""
    return [b for each in nested for b in _flat(each)] if isinstance(nested, list) else [np.asarray(nested)]


def _on_years(
    function: Callable[..., np.ndarray],
    codec: Codec | None,
    axes: tuple[int, int],
    scale_axis: int | None,
    data: Any,
    scale: Any,
    *params: Any,
) -> np.ndarray:
    time_axis, band_axis = axes
    own = band_axis - (time_axis < band_axis)
    slabs = [year for block in _flat(data) for year in np.moveaxis(block, time_axis, 0)]
    scales: list[np.ndarray | None] = [None] * len(slabs)
    if scale_axis is not None:
        scales = [year for block in _flat(scale) for year in np.moveaxis(block, scale_axis, 0)]
    years = [
        Block(kernels.band_last(slab, own), -1, each, codec) for slab, each in zip(slabs, scales, strict=True)
    ]
    pixels = tuple(np.delete(slabs[0].shape, own))
    result = function(years, *params)
    if result.ndim == 1:
        return result.reshape(pixels)
    return np.moveaxis(result.reshape(*pixels, -1), -1, own)  # band-last in memory


def _tiles(years: list[Block]) -> Any:
    """``(pixels, [vectors (n, band) of every year])``, tile by tile."""
    for parts in zip(*(year.tiles(_TILE) for year in years), strict=True):
        yield parts[0][0], [vectors.T for _, vectors in parts]


def _times(array: xr.DataArray, what: str) -> np.ndarray:
    if TIME not in array.dims:
        raise EmbeddingError(f"{what} needs a 'time' dimension; got dims {tuple(array.dims)}")
    return np.asarray(array.coords[TIME].values, "datetime64[ns]")


def _names(array: xr.DataArray) -> tuple[str, str]:
    return str(array.attrs.get("product", "")), str(array.attrs.get("version", ""))


# --- aggregate ----------------------------------------------------------------------------------------------


def aggregate(
    array: xr.DataArray,
    how: How = "mean",
    *,
    freq: str | None = None,
    groups: Mapping[Any, Hashable] | Sequence[Hashable] | None = None,
    weights: Mapping[Any, float] | Sequence[float] | xr.DataArray | None = None,
    skipna: bool = True,
    resultant_length: bool = False,
    count: bool = False,
) -> xr.DataArray | xr.Dataset:
    """One vector of several years: all of them, those of a period, or of a group. Lazy.

    Parameters
    ----------
    array : DataArray (time, …, band, …)
        Codes or vectors.
    how : {"mean", "median", "min", "max", "std"}
        ``mean`` is the extrinsic mean: float64 sums in time order, renormalised where the product's vectors have
        unit length; the ``median`` of components likewise. ``min``, ``max`` and ``std`` of components are no
        places on the sphere: they are left as they are, and their version says so (``"v1 std"``), so that they
        are never compared with vectors.
    freq : str, optional
        A pandas alias such as ``"5YE"``. A period belongs where it starts, and bins are counted from the first;
        ``time`` is then the start of each bin's first period.
    groups : mapping of year to label, or sequence of labels
        One a period; the result has the dimension ``group``. Years that a mapping leaves out are not used.
    weights : mapping of year to number, sequence, or DataArray (time,)
        For ``mean`` and ``std``.
    skipna : bool
        Whether years without data are left out; else a pixel that misses one is missing.
    resultant_length : bool
        Whether to give the mean's resultant length beside it: ‖Σ w·v‖ / Σ w·‖v‖, 1 where all years point
        one way (Mardia and Jupp 2000, 9.2).
    count : bool
        Whether to give the number of years with data.

    Returns
    -------
    DataArray or Dataset
        Without ``time``, unless ``freq`` is given; float32. A Dataset of ``embedding`` and the variables asked
        for, where any is.

    Raises
    ------
    EmbeddingError
        If there is no ``time``.
    ValueError
        If both ``freq`` and ``groups`` are given, if their lengths do not fit, or if weights are given for
        another ``how``.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(4, 5), years=range(2017, 2025))
    >>> da.emb.aggregate().dims
    ('band', 'y', 'x')
    >>> da.emb.aggregate(freq="5YE").time.dt.year.values.tolist()
    [2017, 2022]
    >>> da.emb.aggregate(groups={2018: "before", 2023: "after", 2024: "after"}, count=True).sizes["group"]
    2
    """
    found = check_embedding(array, "aggregate")
    check_choice("how", how, ("mean", "median", "min", "max", "std"))
    times = _times(array, "aggregate")
    if freq is not None and groups is not None:
        raise ValueError("give freq= or groups=, not both")
    if weights is not None and how not in ("mean", "std"):
        raise ValueError(f"weights are for how='mean' or 'std'; got how={how!r}")
    if resultant_length and how != "mean":
        raise ValueError(f"resultant_length goes with how='mean'; got how={how!r}")
    numbers = _per_time(weights, times, "weights", default=1.0).astype(np.float64)
    if not (numbers >= 0).all():
        raise ValueError("weights must not be negative or missing")
    extras = [n for n, wanted in (("resultant_length", resultant_length), ("count", count)) if wanted]

    def one(positions: np.ndarray) -> xr.DataArray:
        return _aggregate_all(array.isel(time=positions), how, numbers[positions], skipna, extras)

    if freq is not None:
        bins = _bins(times, freq)
        packed = xr.concat([one(p) for p in bins], pd.Index(times[[p[0] for p in bins]], name=TIME))
        packed = packed.transpose(*(BAND if d == BAND else d for d in array.dims))
    elif groups is not None:
        labels = _per_time(groups, times, "groups", default=None)
        kinds = list(dict.fromkeys(label for label in labels if label is not None))
        members = [np.flatnonzero([label == kind for label in labels]) for kind in kinds]
        packed = xr.concat([one(p) for p in members], pd.Index(kinds, name="group"))
    else:
        packed = one(np.arange(times.size))
    size = len(decoded_bands(array))
    embedding = packed.isel({BAND: slice(size)}) if extras else packed
    embedding.attrs = {k: v for k, v in array.attrs.items() if k != "codec"}
    if how in ("min", "max", "std"):
        embedding.attrs["version"] = f"{array.attrs.get('version', '')} {how}".strip()
    embedding = embedding.rename("embedding")
    if not extras:
        return embedding
    variables = {"embedding": embedding}
    attrs = derived_attrs(array)
    for i, extra in enumerate(extras):
        variables[extra] = packed.isel({BAND: size + i}, drop=True).rename(extra)
        variables[extra].attrs = {**attrs, "long_name": extra.replace("_", " "), "units": "1"}
    if count:
        attributes = variables["count"].attrs
        variables["count"] = variables["count"].astype(np.uint16).assign_attrs(attributes)
    return xr.Dataset(variables, attrs={"derived_from": " ".join(_names(array)).strip() or found.name})


def _per_time(given: Any, times: np.ndarray, what: str, default: Any) -> np.ndarray:
    """A value for each period: of a mapping by year, or of a sequence in order."""
    if given is None:
        return np.full(times.size, default)
    if isinstance(given, Mapping):
        positions = {key: pick_times(times, key) for key in given}
        values = np.full(times.size, 0.0 if what == "weights" else None, object)
        for key, where in positions.items():
            values[where] = given[key]
        return values
    values = np.empty(times.size, object)
    listed = given.values.tolist() if isinstance(given, xr.DataArray) else list(given)
    if len(listed) != times.size:
        raise ValueError(f"{what} has {len(listed)} values for {times.size} periods")
    values[:] = listed
    return values


def _bins(times: np.ndarray, freq: str) -> list[np.ndarray]:
    """Positions of the periods of each bin, empty bins left out."""
    positions = pd.Series(np.arange(times.size), index=pd.DatetimeIndex(times))
    try:
        grouped = positions.resample(freq, closed="left", label="left")
    except ValueError as error:
        raise ValueError(f"freq={freq!r} is no pandas alias such as '5YE' or 'QS' ({error})") from None
    return [np.asarray(members) for _, members in grouped if len(members)]


def _aggregate_all(
    array: xr.DataArray, how: str, weights: np.ndarray, skipna: bool, extras: list[str]
) -> xr.DataArray:
    function = _mean_years if how == "mean" else _component_years
    unit = product(array.attrs["product"]).unit_norm and how in ("mean", "median")
    bands = decoded_bands(array)
    labels = (*bands, *extras)
    params = (how, tuple(weights.tolist()), skipna, unit, tuple(extras))
    return _over_years(function, array, params, out=(BAND, labels), name="aggregate", attrs={})


def _mean_years(years: list[Block], params: tuple[Any, ...]) -> np.ndarray:
    _, weights, skipna, unit, extras = params
    bands = len(next(years[0].tiles(1))[1]) if years[0].pixels else 0
    out = np.empty((years[0].pixels, bands + len(extras)), np.float32)
    for where, vectors in _tiles(years):
        n = len(vectors[0])
        total, length = np.zeros((n, bands)), np.zeros((n, 2))
        counts = np.zeros(n, np.int64)
        for weight, each in zip(weights, vectors, strict=True):
            _add_year(each, weight, total, length, counts)
        needed = 1 if skipna else len(years)
        _finish_mean(total, length, counts >= needed, unit, out[where, :bands])
        for i, extra in enumerate(extras):
            values = counts if extra == "count" else _resultant(total, length, counts >= needed)
            out[where, bands + i] = values
    return out


@kernels.jit
def _add_year(vectors: Any, weight: Any, total: Any, length: Any, counts: Any) -> None:
    """Add a year's vectors to float64 sums, missing ones left out: Σ w·v, Σ w·‖v‖, Σ w and their number."""
    n, bands = vectors.shape
    for i in range(n):
        square = 0.0
        for k in range(bands):
            square += np.float64(vectors[i, k]) * np.float64(vectors[i, k])
        if square < np.inf:  # isfinite is x - x == 0, which LLVM folds to true for a reassociated sum
            for k in range(bands):
                total[i, k] += weight * np.float64(vectors[i, k])
            length[i, 0] += weight * np.sqrt(square)
            length[i, 1] += weight
            counts[i] += 1


@kernels.jit
def _finish_mean(total: Any, length: Any, there: Any, unit: Any, out: Any) -> None:
    n, bands = total.shape
    for i in range(n):
        divisor = length[i, 1]
        if unit:
            square = 0.0
            for k in range(bands):
                square += total[i, k] * total[i, k]
            divisor = np.sqrt(square)
        if not there[i] or divisor == 0:
            out[i, :] = np.nan
        else:
            for k in range(bands):
                out[i, k] = total[i, k] / divisor


def _resultant(total: np.ndarray, length: np.ndarray, there: np.ndarray) -> np.ndarray:
    sums = np.sqrt(sum(total[:, k] ** 2 for k in range(total.shape[1])))
    usable = there & (length[:, 0] > 0)
    return np.where(usable, np.minimum(sums / np.where(usable, length[:, 0], 1), 1), np.nan)


def _component_years(years: list[Block], params: tuple[Any, ...]) -> np.ndarray:
    how, weights, skipna, unit, extras = params
    bands = len(next(years[0].tiles(1))[1]) if years[0].pixels else 0
    out = np.empty((years[0].pixels, bands + len(extras)), np.float32)
    for where, vectors in _tiles(years):
        stack = np.stack(vectors)
        missing = ~np.isfinite(stack).all(axis=2)
        stack[missing] = np.nan
        counts = len(years) - missing.sum(axis=0)
        values = _COMPONENT[how](stack, np.asarray(weights))
        if unit:
            values = arrays.unit_length(values, 1)
        values[counts < (1 if skipna else len(years))] = np.nan
        out[where, :bands] = values
        if extras:
            out[where, bands] = counts
    return out


def _median(stack: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Median of what is there: missing values sort last."""
    ordered = np.sort(stack, axis=0)
    counts = np.maximum(np.isfinite(stack).sum(axis=0), 1)
    low = np.take_along_axis(ordered, ((counts - 1) // 2)[None], axis=0)[0]
    high = np.take_along_axis(ordered, (counts // 2)[None], axis=0)[0]
    return np.asarray((low.astype(np.float64) + high) / 2).astype(np.float32)


def _std(stack: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted standard deviation (of the population), two passes in float64."""
    total, square = np.zeros(stack.shape[1:]), np.zeros(stack.shape[1:])
    weight = np.zeros(stack.shape[1:])
    there = np.isfinite(stack)
    for own, values, valid in zip(weights, stack, there, strict=True):
        total += np.where(valid, own * values.astype(np.float64), 0)
        weight += np.where(valid, own, 0)
    usable = np.where(weight > 0, weight, 1)
    mean = total / usable
    for own, values, valid in zip(weights, stack, there, strict=True):
        square += np.where(valid, own * (values - mean) ** 2, 0)
    return np.sqrt(square / usable).astype(np.float32)


def _least(stack: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(np.fmin.reduce(stack, axis=0))


def _most(stack: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(np.fmax.reduce(stack, axis=0))


_COMPONENT: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "median": _median,
    "min": _least,
    "max": _most,
    "std": _std,
}


# --- change -------------------------------------------------------------------------------------------------


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
        Codes or vectors; codes are decoded tile by tile.
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
    times = _times(array, "change")
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
    return _over_years(
        _distances,
        array.isel(time=[a, b]),
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


def _distances(years: list[Block], metric: str) -> np.ndarray:
    out = np.empty(years[0].pixels, np.float32)
    for where, (one, other) in _tiles(years):
        _KERNELS[metric](one, other, out[where])
    return out


@kernels.jit
def _angles(a: Any, b: Any, out: Any) -> None:
    """Degrees between rows: 2·atan2(‖â−b̂‖, ‖â+b̂‖)."""
    n, bands = a.shape
    for i in range(n):
        aa, bb = np.float32(0), np.float32(0)
        for k in range(bands):
            aa += a[i, k] * a[i, k]
            bb += b[i, k] * b[i, k]
        if not (aa > 0 and bb > 0):
            out[i] = np.nan
            continue
        fa, fb = np.float32(1) / np.sqrt(aa), np.float32(1) / np.sqrt(bb)
        less, more = np.float32(0), np.float32(0)
        for k in range(bands):
            va, vb = a[i, k] * fa, b[i, k] * fb
            less += (va - vb) * (va - vb)
            more += (va + vb) * (va + vb)
        out[i] = np.degrees(2 * np.arctan2(np.sqrt(np.float64(less)), np.sqrt(np.float64(more))))


@kernels.jit
def _cosines(a: Any, b: Any, out: Any) -> None:
    n, bands = a.shape
    for i in range(n):
        aa, bb, ab = np.float32(0), np.float32(0), np.float32(0)
        for k in range(bands):
            aa += a[i, k] * a[i, k]
            bb += b[i, k] * b[i, k]
            ab += a[i, k] * b[i, k]
        out[i] = ab / np.sqrt(np.float64(aa) * np.float64(bb)) if aa > 0 and bb > 0 else np.nan


@kernels.jit
def _lengths(a: Any, b: Any, out: Any) -> None:
    n, bands = a.shape
    for i in range(n):
        total = np.float32(0)
        for k in range(bands):
            total += (a[i, k] - b[i, k]) * (a[i, k] - b[i, k])
        out[i] = np.sqrt(total)


_KERNELS: dict[str, Any] = {"angle": _angles, "cosine": _cosines, "euclidean": _lengths}


# --- what years do to a place anyway ------------------------------------------------------------------------


def _steps(vectors: list[np.ndarray], metric: str) -> list[np.ndarray]:
    """Distances ``(n,)`` from each year to the next one with data; NaN for a year without."""
    last, steps = vectors[0], []
    for each in vectors[1:]:
        out = np.empty(len(each), np.float32)
        _KERNELS[metric](last, each, out)
        steps.append(out)
        last = np.where(np.isfinite(each).all(axis=1)[:, None], each, last)
    return steps


def _change_and_steps(
    years: list[Block], pair: tuple[int, int], kept: tuple[int, ...], metric: str
) -> np.ndarray:
    out = np.empty((years[0].pixels, 1 + len(kept)), np.float32)
    for where, vectors in _tiles(years):
        own = np.empty(len(vectors[0]), np.float32)
        _KERNELS[metric](vectors[pair[0]], vectors[pair[1]], own)
        out[where, 0] = own
        steps = _steps(vectors, metric)
        for i, step in enumerate(kept):
            out[where, 1 + i] = steps[step]
    return out


def _change_with_null(array: xr.DataArray, a: int, b: int, metric: str) -> xr.Dataset:
    size = array.sizes[TIME]
    kept = tuple(i for i in range(size - 1) if {i, i + 1} != {a, b})
    if not kept:
        raise EmbeddingError(
            f"null='years' compares with other years' steps; the array has {size} years, it needs three or more"
        )
    labels = ["change", *(f"step{i}" for i in kept)]
    both = _over_years(
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
            chunks=tuple(both.chunksizes[d] for d in dims),
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
    out = np.empty((values.shape[1] - 2 * reach, values.shape[2] - 2 * reach), np.float32)
    _rank_window(values, reach, out)
    return out


@kernels.jit
def _rank_window(values: Any, reach: Any, out: Any) -> None:
    """Percentage of ``values[1:]`` in the window around a pixel that are below its ``values[0]``."""
    height, width = out.shape
    for i in range(height):
        for j in range(width):
            own = values[0, i + reach, j + reach]
            below, there = 0.0, 0.0
            for s in range(1, values.shape[0]):
                for r in range(i, i + 2 * reach + 1):
                    for c in range(j, j + 2 * reach + 1):
                        other = values[s, r, c]
                        if not np.isnan(other):
                            there += 1
                            if other < own:
                                below += 1
                            elif other == own:
                                below += 0.5
            out[i, j] = 100 * below / there if there > 0 and not np.isnan(own) else np.nan


def change_point(array: xr.DataArray, *, metric: Literal["angle", "euclidean"] = "angle") -> xr.Dataset:
    """The year of the largest step from one year to the next, and how it compares with the others. Lazy.

    Parameters
    ----------
    array : DataArray (time, …, band, …)
        Three periods or more; codes or vectors. A year without data is stepped over.
    metric : {"angle", "euclidean"}
        As in :func:`change`.

    Returns
    -------
    Dataset
        ``year``, uint16, the year at the end of the largest step (0: none); ``step``, its size, in degrees for
        angles; ``ratio``, that size over the median of the pixel's other steps.

    Raises
    ------
    EmbeddingError
        If there are fewer than three periods.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(4, 5), years=[2018, 2019, 2020, 2021])
    >>> list(da.emb.change_point())
    ['year', 'step', 'ratio']
    """
    check_embedding(array, "change_point")
    check_choice("metric", metric, ("angle", "euclidean"))
    times = _times(array, "change_point")
    if times.size < 3:
        raise EmbeddingError(f"change_point needs three periods or more; got {describe_times(times)}")
    years = tuple(int(y) for y in pd.DatetimeIndex(times).year)
    packed = _over_years(
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


def _largest_step(blocks: list[Block], years: tuple[int, ...], metric: str) -> np.ndarray:
    out = np.empty((blocks[0].pixels, 3), np.float32)
    numbers = np.array((0, *years[1:]), np.float32)
    for where, vectors in _tiles(blocks):
        steps = np.stack(_steps(vectors, metric))
        there = np.isfinite(steps)
        count = there.sum(axis=0)
        filled = np.where(there, steps, -1)
        largest = filled.argmax(axis=0)
        size = np.take_along_axis(filled, largest[None], axis=0)[0]
        others = np.where(there, steps, np.nan)
        np.put_along_axis(others, largest[None], np.nan, axis=0)
        usual = _median(others, np.empty(0))
        compared = (count > 1) & (usual > 0)
        out[where, 0] = np.where(count > 0, numbers[largest + 1], 0)
        out[where, 1] = np.where(count > 0, size, np.nan)
        out[where, 2] = np.where(compared, size / np.where(compared, usual, 1), np.nan)
    return out
