"""Composites: one cloud-free image per month made of many, as encoders of time series take them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.missing import SCALING_KEYS
from geoemb_xr.core.model import BAND, whole_along
from geoemb_xr.embedding import harmonizing, inputs
from geoemb_xr.embedding.harmonizing import Harmonize
from geoemb_xr.execution import blocks

How = Literal["median", "least_cloudy"]
#: Classes of Sentinel-2's scene classification that show the ground: dark, plants, bare, water, unclassified, snow.
CLEAR = (2, 4, 5, 6, 7, 11)
_SCL = "SCL"
#: Where catalogues say how much of a picture is cloud.
_CLOUDS = ("eo:cloud_cover", "cloud_cover")


def composite(
    images: xr.DataArray | xr.Dataset,
    freq: str = "MS",
    *,
    mask: xr.DataArray | str | None = "auto",
    how: How = "median",
    harmonize: Harmonize = "auto",
) -> xr.DataArray:
    """Combine the images of each period into one, without the masked pixels. Lazy.

    Parameters
    ----------
    images : DataArray (time, band, y, x), or Dataset with a variable per band
        Images with their dates in any order.
    freq : str
        Frequency of pandas, for the starts of periods: ``"MS"`` months, ``"QS"`` quarters, ``"YS"`` years.
    mask : DataArray (time, y, x), "auto" or None
        True where a pixel shows the ground. ``"auto"`` takes a band ``SCL`` (Sentinel-2's scene classification),
        which is then left out of the result, and no mask where there is none.
    how : {"median", "least_cloudy"}
        The median of what was seen, band by band; or each pixel of the least cloudy picture that saw it, by the
        coordinate ``eo:cloud_cover``.
    harmonize : "auto" or bool
        Remove Sentinel-2's offset first; see :func:`harmonize`.

    Returns
    -------
    DataArray (time, band, y, x)
        float32; ``time`` is the start of every period from the first to the last, NaN where nothing was seen.

    Raises
    ------
    EmbeddingError
        If the images have no dates, the mask lies on another grid, or nothing says how cloudy a picture is.
    ValueError
        For an unknown ``how``.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> images = gx.testing.images((8, 9), dates=["2024-01-03", "2024-01-20", "2024-03-05"], chunks=4)
    >>> months = gx.composite(images)
    >>> [str(t)[:7] for t in months.time.values], bool(months[1].isnull().all())
    (['2024-01', '2024-02', '2024-03'], True)
    """
    check_choice("how", how, ("median", "least_cloudy"))
    raster = harmonizing.harmonize(images, harmonize)
    if "time" not in raster.dims or "time" not in raster.coords or raster.coords["time"].dtype.kind != "M":
        raise EmbeddingError(
            f"composite needs a dimension 'time' of dates; got {tuple(map(str, raster.dims))}"
        )
    places = pd.Series(np.arange(raster.sizes["time"]), index=pd.DatetimeIndex(raster["time"].values))
    try:
        periods = list(places.resample(freq))
    except ValueError as error:
        raise EmbeddingError(
            f"freq={freq!r} is not a period of pandas, such as 'MS' for months ({error})"
        ) from error
    clouds = _clouds(raster) if how == "least_cloudy" else None
    values = _unmasked(raster, mask)
    starts = pd.DatetimeIndex([start for start, _ in periods]).to_numpy("datetime64[ns]")
    parts = [_composite_of(values, own.to_numpy(), clouds) for _, own in periods]
    dated = [part.expand_dims(time=[start]) for part, start in zip(parts, starts, strict=True)]
    whole = xr.concat(dated, "time", join="override", coords="minimal", compat="override")
    whole.attrs = {k: v for k, v in raster.attrs.items() if k in (*inputs.ORIGIN, *SCALING_KEYS)}
    return whole.transpose(*values.dims)


def _unmasked(raster: xr.DataArray, mask: xr.DataArray | str | None) -> xr.DataArray:
    """Images in float32, NaN where data are missing or masked."""
    if isinstance(mask, str):
        check_choice("mask", mask, ("auto",))
        mask = None
        names = [str(b).upper() for b in raster[BAND].values] if BAND in raster.coords else []
        if _SCL in names:  # some catalogues write it in small letters
            mask = raster.isel({BAND: names.index(_SCL)}, drop=True).isin(CLEAR)
            raster = raster.isel({BAND: [k for k, name in enumerate(names) if name != _SCL]})
    nodata = inputs.missing_value(raster)
    values = raster.astype(np.float32)
    if nodata is not None:
        values = values.where(raster != nodata)
    return values if mask is None else values.where(blocks.on_grid(mask, raster).astype(bool))


def _clouds(raster: xr.DataArray) -> np.ndarray:
    """How cloudy each picture is."""
    name = next((n for n in _CLOUDS if n in raster.coords and raster.coords[n].dims == ("time",)), None)
    if name is None:
        raise EmbeddingError(
            f"how='least_cloudy' needs a coordinate {_CLOUDS[0]!r} along 'time', as catalogues give it; the images "
            f"have {sorted(map(str, raster.coords))}. Use how='median', or .assign_coords it"
        )
    return np.asarray(raster.coords[name].values, np.float64)


def _composite_of(values: xr.DataArray, own: np.ndarray, clouds: np.ndarray | None) -> xr.DataArray:
    """Combine the images of one period, given by their positions along time."""
    if own.size == 0:
        return xr.full_like(values.isel(time=0, drop=True), np.nan)
    if clouds is None:
        own_values = whole_along(values.isel(time=own), "time")
        median: xr.DataArray = xr.apply_ufunc(
            _median, own_values, input_core_dims=[["time"]], dask="parallelized", output_dtypes=[np.float32]
        )
        return median
    ordered = own[np.argsort(clouds[own], kind="stable")]
    first, *others = (values.isel(time=int(k), drop=True) for k in ordered)
    for other in others:
        first = first.fillna(other)
    return first.drop_vars([c for c in _CLOUDS if c in first.coords])


def _median(series: np.ndarray) -> np.ndarray:
    """The median along the last axis of what is not NaN: NumPy's warns in every block where nothing is."""
    ordered = np.sort(series, axis=-1)  # NaN comes last
    count = np.isfinite(series).sum(axis=-1, keepdims=True)
    low, high = (
        np.take_along_axis(ordered, at.clip(0, series.shape[-1] - 1), axis=-1)
        for at in ((count - 1) // 2, count // 2)
    )
    middle = (low + high) * np.float32(0.5)
    return np.asarray(np.where(count > 0, middle, np.float32(np.nan))[..., 0], np.float32)
