"""Embeddings over time: aggregate years."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.analysis.years import TIME, names_of, over_years, pieces_of, times_of
from geoemb_xr.core import arrays, kernels
from geoemb_xr.core.errors import check_choice
from geoemb_xr.core.fitted import decoded_bands
from geoemb_xr.core.missing import without_codec
from geoemb_xr.core.model import (
    BAND,
    check_embedding,
    derived_attrs,
    product,
)
from geoemb_xr.core.times import pick_times
from geoemb_xr.execution.blocks import Block

How = Literal["mean", "median", "min", "max", "std"]


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
        One label per period; the result has the dimension ``group``. Years that a mapping leaves out are not used.
    weights : mapping of year to number, sequence, or DataArray (time,)
        Weights of the years, for ``mean`` and ``std``.
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
    times = times_of(array, "aggregate")
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
    embedding.attrs = without_codec(array.attrs)
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
    return xr.Dataset(variables, attrs={"derived_from": " ".join(names_of(array)).strip() or found.name})


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
        raise ValueError(f"freq={freq!r} is not a pandas alias such as '5YE' or 'QS' ({error})") from None
    return [np.asarray(members) for _, members in grouped if len(members)]


def _aggregate_all(
    array: xr.DataArray, how: str, weights: np.ndarray, skipna: bool, extras: list[str]
) -> xr.DataArray:
    function = _mean_years if how == "mean" else _component_years
    unit = product(array.attrs["product"]).unit_norm and how in ("mean", "median")
    bands = decoded_bands(array)
    labels = (*bands, *extras)
    params = (how, tuple(weights.tolist()), skipna, unit, tuple(extras))
    return over_years(function, array, params, out=(BAND, labels), name="aggregate", attrs={})


def _mean_years(years: list[Block], params: tuple[Any, ...]) -> np.ndarray:
    _, weights, skipna, unit, extras = params
    bands = len(next(years[0].pieces(1))[1]) if years[0].pixels else 0
    out = np.empty((years[0].pixels, bands + len(extras)), np.float32)
    for where, vectors in pieces_of(years):
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


@_add_year.in_numpy
def _add_year_numpy(vectors: Any, weight: Any, total: Any, length: Any, counts: Any) -> None:
    exact = vectors.astype(np.float64)
    square = np.einsum("ij,ij->i", exact, exact)
    there = square < np.inf
    total[there] += weight * exact[there]
    length[there, 0] += weight * np.sqrt(square[there])
    length[there, 1] += weight
    counts += there


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


@_finish_mean.in_numpy
def _finish_mean_numpy(total: Any, length: Any, there: Any, unit: Any, out: Any) -> None:
    divisor = np.sqrt(np.einsum("ij,ij->i", total, total)) if unit else length[:, 1]
    usable = there & (divisor != 0)
    out[:] = np.where(usable[:, None], total / np.where(usable, divisor, 1)[:, None], np.nan)


def _resultant(total: np.ndarray, length: np.ndarray, there: np.ndarray) -> np.ndarray:
    sums = np.sqrt(sum(total[:, k] ** 2 for k in range(total.shape[1])))
    usable = there & (length[:, 0] > 0)
    return np.where(usable, np.minimum(sums / np.where(usable, length[:, 0], 1), 1), np.nan)


def _component_years(years: list[Block], params: tuple[Any, ...]) -> np.ndarray:
    how, weights, skipna, unit, extras = params
    bands = len(next(years[0].pieces(1))[1]) if years[0].pixels else 0
    out = np.empty((years[0].pixels, bands + len(extras)), np.float32)
    for where, vectors in pieces_of(years):
        stack = np.stack(vectors)
        counts = np.empty(stack.shape[1], np.int64)
        values = _COMPONENT[how](stack, np.asarray(weights), counts)
        if unit:
            values = arrays.unit_length(values, 1)
        values[counts < (1 if skipna else len(years))] = np.nan
        out[where, :bands] = values
        if extras:
            out[where, bands] = counts
    return out


def _median(stack: np.ndarray, weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    out = np.empty(stack.shape[1:], np.float32)
    median_of(stack, counts, out)
    return out


@kernels.jit_exact
def median_of(stack: Any, counts: Any, out: Any) -> None:
    """Median over ``(year, n, band)`` of the vectors that are finite, NaN where none is.

    ``counts`` takes their number. The bands of a pixel are sorted side by side, by exchanges of neighbours: a
    processor compares sixteen of them at once.
    """
    years, n, bands = stack.shape
    held = np.empty((years, bands), np.float32)
    for i in range(n):
        there = 0
        for t in range(years):
            missing = 0
            for k in range(bands):
                held[there, k] = stack[t, i, k]
                missing += not abs(stack[t, i, k]) < np.inf
            there += missing == 0
        for turn in range(there):
            for t in range(turn % 2, there - 1, 2):
                for k in range(bands):
                    one, other = held[t, k], held[t + 1, k]
                    held[t, k] = one if one < other else other
                    held[t + 1, k] = other if one < other else one
        counts[i] = there
        low, high = max(there - 1, 0) // 2, there // 2
        for k in range(bands):
            middle = (np.float64(held[low, k]) + np.float64(held[high, k])) / 2
            out[i, k] = middle if there else np.nan


@median_of.in_numpy
def _median_of_numpy(stack: Any, counts: Any, out: Any) -> None:
    there = np.isfinite(stack).all(axis=2)
    counts[:] = there.sum(axis=0)
    held = np.sort(np.where(there[..., None], stack, np.nan), axis=0)  # NaN comes last
    pixels = np.arange(stack.shape[1])
    low, high = (
        held[each, pixels].astype(np.float64) for each in (np.maximum(counts - 1, 0) // 2, counts // 2)
    )
    out[:] = np.where(counts[:, None] > 0, (low + high) / 2, np.nan)


def _std(stack: np.ndarray, weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    out = np.empty(stack.shape[1:], np.float32)
    _deviations(stack, weights, counts, out)
    return out


@kernels.jit_exact
def _deviations(stack: Any, weights: Any, counts: Any, out: Any) -> None:
    """Weighted standard deviations (of the population) of finite vectors, in two passes in float64."""
    years, n, bands = stack.shape
    there = np.empty(years, np.bool_)
    mean, square = np.empty(bands), np.empty(bands)
    for i in range(n):
        weight = 0.0
        counts[i] = 0
        mean[:] = 0
        square[:] = 0
        for t in range(years):
            missing = 0
            for k in range(bands):
                missing += not abs(stack[t, i, k]) < np.inf
            there[t] = missing == 0
            if there[t]:
                counts[i] += 1
                weight += weights[t]
                for k in range(bands):
                    mean[k] += weights[t] * np.float64(stack[t, i, k])
        usable = weight if weight > 0 else 1.0
        for k in range(bands):
            mean[k] /= usable
        for t in range(years):
            if there[t]:
                for k in range(bands):
                    apart = np.float64(stack[t, i, k]) - mean[k]
                    square[k] += weights[t] * (apart * apart)
        for k in range(bands):
            out[i, k] = np.sqrt(square[k] / usable)


@_deviations.in_numpy
def _deviations_numpy(stack: Any, weights: Any, counts: Any, out: Any) -> None:
    there = np.isfinite(stack).all(axis=2)
    counts[:] = there.sum(axis=0)
    known = np.where(there[..., None], stack, 0).astype(np.float64)
    own = (there * np.asarray(weights)[:, None])[..., None]
    total = own.sum(axis=0)
    usable = np.where(total > 0, total, 1.0)
    mean = (own * known).sum(axis=0) / usable
    square = (own * (known - mean) ** 2).sum(axis=0) / usable
    out[:] = np.sqrt(square)


def _extremes(is_max: bool, stack: np.ndarray, weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    out = np.empty(stack.shape[1:], np.float32)
    _extremes_of(stack, is_max, counts, out)
    return out


@kernels.jit_exact
def _extremes_of(stack: Any, is_max: Any, counts: Any, out: Any) -> None:
    """Smallest or largest over ``(year, n, band)`` of the vectors that are finite, NaN where none is."""
    years, n, bands = stack.shape
    for i in range(n):
        there = 0
        for t in range(years):
            missing = 0
            for k in range(bands):
                missing += not abs(stack[t, i, k]) < np.inf
            if missing:
                continue
            if there == 0:
                for k in range(bands):
                    out[i, k] = stack[t, i, k]
            elif is_max:
                for k in range(bands):
                    out[i, k] = out[i, k] if out[i, k] >= stack[t, i, k] else stack[t, i, k]
            else:
                for k in range(bands):
                    out[i, k] = out[i, k] if out[i, k] <= stack[t, i, k] else stack[t, i, k]
            there += 1
        counts[i] = there
        if there == 0:
            out[i, :] = np.nan


@_extremes_of.in_numpy
def _extremes_of_numpy(stack: Any, is_max: Any, counts: Any, out: Any) -> None:
    missing = ~np.isfinite(stack).all(axis=2)
    counts[:] = len(stack) - missing.sum(axis=0)
    known = np.where(missing[..., None], np.float32(np.nan), stack)
    out[:] = (np.fmax if is_max else np.fmin).reduce(known, axis=0)


_COMPONENT: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "median": _median,
    "min": partial(_extremes, False),
    "max": partial(_extremes, True),
    "std": _std,
}
