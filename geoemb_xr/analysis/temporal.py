"""Embeddings over time: aggregate years."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.analysis import code_kernels, year_kernels
from geoemb_xr.analysis.pieces import bands_of, pieces, rows_of_codes
from geoemb_xr.analysis.years import TIME, over_years, space_of, times_of, years_at
from geoemb_xr.core.errors import check_choice
from geoemb_xr.core.fitted import decoded_bands
from geoemb_xr.core.missing import without_codec
from geoemb_xr.core.model import (
    BAND,
    check_embedding,
    derived_attrs,
    product,
)
from geoemb_xr.core.times import describe_times, pick_times, with_dates
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
        are never compared with vectors. Codes ``q · |q|``, such as AlphaEarth's, are whole numbers: ``mean`` and
        ``std`` of up to twelve years are exact until they are rounded.
    freq : str, optional
        A pandas alias such as ``"5YE"``. A period belongs where it starts, and bins are counted from the first;
        ``time`` is then the start of each bin's first period.
    groups : mapping or Series of year to label, or sequence of labels
        One label per period; the result has the dimension ``group``. Years that a mapping leaves out, or that have
        None or NaN, are not used.
    weights : mapping or Series of year to number, sequence, or DataArray (time,)
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
        If both ``freq`` and ``groups`` are given, if their lengths do not fit or no period is in a group, or if
        weights are given for another ``how``.

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
    if not ((numbers >= 0) & (numbers < np.inf)).all():
        raise ValueError("weights must not be negative, infinite or missing")
    extras = [n for n, wanted in (("resultant_length", resultant_length), ("count", count)) if wanted]

    def one(positions: np.ndarray) -> xr.DataArray:
        return _aggregate_all(years_at(array, positions.tolist()), how, numbers[positions], skipna, extras)

    if freq is not None:
        bins = _bins(times, freq)
        packed = xr.concat([one(p) for p in bins], pd.Index(times[[p[0] for p in bins]], name=TIME))
        packed = packed.transpose(*(BAND if d == BAND else d for d in array.dims))
    elif groups is not None:
        labels = _per_time(groups, times, "groups", default=None)
        missing = [pd.api.types.is_scalar(label) and pd.isna(label) for label in labels]
        kinds = list(dict.fromkeys(label for label, gone in zip(labels, missing, strict=True) if not gone))
        if not kinds:
            raise ValueError(f"groups= gives a label to none of the {times.size} periods")
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
    return xr.Dataset(variables, attrs={"derived_from": " ".join(space_of(array)).strip() or found.name})


def _per_time(given: Any, times: np.ndarray, what: str, default: Any) -> np.ndarray:
    """One value per period, from a mapping by year or a sequence in order."""
    if given is None:
        return np.full(times.size, default)
    if isinstance(given, pd.Series) and not given.index.equals(pd.RangeIndex(times.size)):
        given = given.to_dict()  # its index says which years
    if isinstance(given, Mapping):
        positions = {key: pick_times(times, key) for key in given}
        values = np.full(times.size, 0.0 if what == "weights" else None, object)
        for key, where in positions.items():
            values[where] = given[key]
        return values
    values = np.empty(times.size, object)
    given = with_dates(given) if isinstance(given, xr.DataArray) else given
    own = given.indexes.get(TIME) if isinstance(given, xr.DataArray) else None
    if own is not None and len(own) == times.size and not np.array_equal(own, times):
        order = own.get_indexer_for(times)
        if len(order) != times.size or (order < 0).any():
            raise ValueError(f"the times of {what} are not those of the array: {describe_times(times)}")
        given = given.isel({TIME: order})
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
    unit = product(array.attrs["product"]).unit_norm and how in ("mean", "median")
    labels = (*decoded_bands(array), *extras)
    params = (how, tuple(weights.tolist()), skipna, unit, tuple(extras))
    return over_years(_write_of_years, array, params, out=(BAND, labels), name="aggregate", attrs={})


#: A kernel, and what it is given between years and the number of them that a pixel needs.
_Kernel = tuple[Callable[..., None], tuple[Any, ...]]


def _write_of_years(years: list[Block], out: np.ndarray, params: tuple[Any, ...]) -> None:
    """Write the vectors ``(band, pixel)`` that years give together, and what is asked for beside them."""
    how, weights, skipna, unit, extras = params
    numbers, needed, bands = np.asarray(weights), 1 if skipna else len(years), bands_of(years)
    codec = years[0].codec
    of_codes = codec is not None and codec.power == 2 and code_kernels.are_whole(numbers)
    if of_codes:
        assert codec is not None
        assert codec.nodata is not None
        kernel, given = _kernel_of_codes(how, len(years), np.float32(codec.factor), unit)
        for where, first, planes in rows_of_codes(years):
            codes = code_kernels.together(planes, first, codec.nodata)
            kernel(codes, *given, needed, out, where.start, where.stop - where.start)
        if not extras:
            return
    kernel, given = _kernel(how, numbers, unit)
    for piece in pieces(years):
        if not of_codes:
            kernel(piece.vectors, *given, needed, out, piece.where.start, piece.size)
        for i, extra in enumerate(extras):
            if extra == "count":
                row = piece.there.sum(axis=0)
            else:
                row = year_kernels.resultant_of(piece.vectors, numbers)
                row[piece.there.sum(axis=0) < needed] = np.nan
            out[bands + i, piece.where] = row[: piece.size]


def _kernel_of_codes(how: str, number: int, factor: np.float32, unit: bool) -> _Kernel:
    """The loop for codes whose sums are whole numbers."""
    kernels: dict[str, _Kernel] = {
        "mean": (code_kernels.mean_of_codes, (factor, unit)),
        "std": (code_kernels.deviations_of_codes, (factor,)),
        "median": (code_kernels.median_of_codes, (year_kernels.exchanges(number), factor, unit)),
        "min": (code_kernels.extremes_of_codes, (False, factor)),
        "max": (code_kernels.extremes_of_codes, (True, factor)),
    }
    return kernels[how]


def _kernel(how: str, weights: np.ndarray, unit: bool) -> _Kernel:
    """The loop for all others."""
    kernels: dict[str, _Kernel] = {
        "mean": (year_kernels.mean_of, (weights, unit)),
        "std": (year_kernels.deviations_of, (weights,)),
        "median": (year_kernels.median_of, (year_kernels.exchanges(len(weights)), unit)),
        "min": (year_kernels.extremes_of, (False,)),
        "max": (year_kernels.extremes_of, (True,)),
    }
    return kernels[how]
