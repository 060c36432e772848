"""Sentinel-2's offset: since processing baseline 04.00 its numbers are reflectance times 10,000 plus 1,000.

Whether it is still there is said by the baseline and by the catalogue (some have removed it, and some items of a
public one say so wrongly). Both are read from the images' coordinates, and dark pixels are looked at when images
are computed: where the three disagree, nobody guesses.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.model import BAND
from geoemb_xr.embedding import inputs

Harmonize = bool | Literal["auto"]

OFFSET = 1000.0
#: Where catalogues say the baseline, and that they have removed its offset.
_BASELINES = ("s2:processing_baseline", "processing_baseline", "processing:version")
_FLAGS = ("earthsearch:boa_offset_applied", "boa_offset_applied")
#: With the offset there hardly any number is below; blue of the darkest pixels lies just above it.
_DARK, _JUST_ABOVE = 850.0, 1200.0
#: Numbers below are reflectance, not digital numbers: whoever scaled them knew the offset.
_REFLECTANCE = 20.0
_PIXELS = 4096
#: From this baseline on the offset is there.
_FOUR = 4.0
#: So many bands tell together.
_ENOUGH = 3
_DECIDE = "Look at water and shade: where they have 1,000 or more pass harmonize=True, else harmonize=False"
#: What is to be done with a band: nothing; take the offset off; look whether it is there although the catalogue has
#: taken it off, or although the baseline had none.
_LEAVE, _REMOVE, _REMOVED, _NEVER = 0, 1, 2, 3


def harmonize(images: xr.DataArray | xr.Dataset, how: Harmonize = "auto") -> xr.DataArray:
    """Remove the offset that Sentinel-2's numbers have since processing baseline 04.00. Lazy.

    Parameters
    ----------
    images : DataArray (time?, band, y, x), or Dataset with a variable per band
        Digital numbers, with the coordinates of their catalogue: the baseline (``s2:processing_baseline``) and,
        where it has one, its flag (``earthsearch:boa_offset_applied``). Of one picture attributes say it, too.
    how : {"auto"} or bool
        Decide date by date: from baseline 04.00 on the offset is there, unless the catalogue says that it has
        removed it. True removes it everywhere, False nowhere.

    Returns
    -------
    DataArray (time?, band, y, x)
        float32 less the offset, not below 0, NaN where there is no data, without baseline and flag; images that say
        nothing as they are.

    Raises
    ------
    EmbeddingError
        When computed, if dark pixels contradict what catalogue and baseline say.
    ValueError
        For an unknown ``harmonize``.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> images = gx.testing.images((8, 8), dates=["2021-06-01", "2023-06-01"]) * 10_000
    >>> images[1] += 1000
    >>> dated = images.assign_coords({"s2:processing_baseline": ("time", ["03.00", "05.09"])})
    >>> both = gx.harmonize(dated)
    >>> float(abs(both[1] - (images[1] - 1000)).max()) < 0.01, bool((both[0] == images[0]).all())
    (True, True)
    """
    if how not in ("auto", True, False):
        raise ValueError(f"harmonize is 'auto', True or False; got {how!r}")
    raster: xr.DataArray = inputs.as_array(images)
    todo = _offset_kinds(raster, how)
    if how is False or (todo.values == _LEAVE).all():
        return raster
    nodata = inputs.missing_value(raster)
    first = [d for d in ("time", BAND) if d in raster.dims]
    found: xr.DataArray = xr.apply_ufunc(
        _without,
        raster.transpose(*first, ...),
        todo,
        kwargs={
            "nodata": 0.0 if nodata is None else nodata,
            "is_sure": how is True,
            "is_dated": "time" in raster.dims,
        },
        dask="parallelized",
        output_dtypes=[np.float32],
        keep_attrs=False,
    )
    # what says that the offset is there holds no more: whoever harmonizes again must not take it off again
    found = found.transpose(*raster.dims).assign_coords(raster.coords)
    found = found.drop_vars((*_BASELINES, *_FLAGS), errors="ignore")
    found.attrs = {k: v for k, v in raster.attrs.items() if k in (*inputs.ORIGIN, "long_name")}
    return found


def offset_left(raster: xr.DataArray, how: Harmonize, scale: float, offset: float) -> float:
    """What of a given offset is still to be added: none of Sentinel-2's, which :func:`harmonize` takes off.

    Parameters
    ----------
    raster : DataArray (time?, band, y, x)
        Digital numbers, before they are harmonized.
    how : {"auto"} or bool
        How they are harmonized.
    scale, offset : float
        ``raster * scale + offset`` is wanted.

    Raises
    ------
    EmbeddingError
        If it is Sentinel-2's, and baseline or catalogue say that it is not in the numbers.
    """
    if how is False or not math.isclose(offset, -OFFSET * scale, rel_tol=1e-6):
        return offset
    if (_offset_kinds(raster, how).values == _REMOVE).any():
        return 0.0
    baselines = _stated(raster, _BASELINES)
    if baselines is None or all(math.isnan(_number(each)) for each in baselines.values.flat):
        return offset
    raise EmbeddingError(
        f"offset={offset:g} is Sentinel-2's offset of 1,000, and the images' processing baseline or catalogue says "
        "that it is not in their numbers. Leave offset= out; where it is there, pass harmonize=True instead"
    )


def _offset_kinds(raster: xr.DataArray, how: Harmonize) -> xr.DataArray:
    """What is to be done about the offset in each date and band, ``(time?, band)``: one of four kinds."""
    labels = [inputs.band_name(b) for b in raster[BAND].values] if BAND in raster.coords else []
    is_band = np.array([name in inputs.WAVELENGTHS for name in labels] or [True] * raster.sizes[BAND])
    is_blue = np.array([name == "B02" for name in labels] or [False] * raster.sizes[BAND])
    baselines, flags = (_stated(raster, names) for names in (_BASELINES, _FLAGS))
    if how is True:
        return xr.DataArray(np.where(is_band, _REMOVE, _LEAVE), dims=BAND)
    if baselines is None:
        return xr.DataArray(np.full(is_band.size, _LEAVE), dims=BAND)
    is_new = np.vectorize(lambda b: _number(b) >= _FOUR, otypes=[bool])(baselines.values)
    is_removed = np.zeros((), bool) if flags is None else np.vectorize(_is_true, otypes=[bool])(flags.values)
    is_old = np.vectorize(lambda b: _number(b) < _FOUR, otypes=[bool])(baselines.values)
    is_new, is_old, is_removed = np.broadcast_arrays(is_new, is_old, is_removed)
    todo = np.where(is_new[..., None] & is_band, _REMOVE, _LEAVE)
    todo = np.where(is_old[..., None] & is_band, _NEVER, todo)
    # of what the catalogue has removed only blue can tell: the others are never that dark by themselves
    todo = np.where(is_removed[..., None] & (todo == _REMOVE), np.where(is_blue, _REMOVED, _LEAVE), todo)
    return xr.DataArray(todo, dims=("time", BAND)[-todo.ndim :])


def _stated(raster: xr.DataArray, names: tuple[str, ...]) -> xr.DataArray | None:
    found = next((raster.coords[n] for n in names if n in raster.coords), None)
    if found is None and (own := next((n for n in names if n in raster.attrs), None)):
        return xr.DataArray(raster.attrs[own])
    if found is None or not set(found.dims) <= {"time"}:
        return None
    held: xr.DataArray = found.compute()  # a few words: `.chunk` makes coordinates lazy, too
    return held


def _number(baseline: object) -> float:
    """A baseline as catalogues (``05.09``) and names of products (``N0509``) have it; NaN where there is none."""
    text = str(baseline).strip().upper().removeprefix("N")
    try:
        return float(text[:5]) / (100 if len(text) == 4 and text.isdigit() else 1)
    except ValueError:
        return math.nan


def _is_true(flag: object) -> bool:
    return str(flag).lower() in ("true", "1", "1.0")


def _without(block: np.ndarray, todo: np.ndarray, nodata: float, is_sure: bool, is_dated: bool) -> np.ndarray:
    """A block ``(time?, band, …)`` less the offset where it is to be removed."""
    out = block.astype(np.float32)
    out[(block == nodata) | ~np.isfinite(out)] = np.nan
    todo = np.broadcast_to(todo, out.shape)
    if is_sure:
        return np.where(todo == _REMOVE, np.maximum(out - np.float32(OFFSET), 0), out)
    if not np.isfinite(out).any() or np.nanmax(out) < _REFLECTANCE:
        return out
    for kind in (_REMOVE, _REMOVED):
        _check_offset(out[todo == kind], kind)
    for picture, kinds in zip(out, todo, strict=True) if is_dated else [(out, todo)]:
        _check_no_offset(picture, kinds)
    return np.where(todo == _REMOVE, np.maximum(out - np.float32(OFFSET), 0), out)


def _darkest(values: np.ndarray) -> float:
    values = values.ravel()[:: max(1, values.size // _PIXELS)]
    values = values[np.isfinite(values)]
    return float(np.quantile(values, 0.01)) if values.size else math.nan


def _check_offset(values: np.ndarray, kind: int) -> None:
    """Raise if dark pixels contradict the metadata."""
    dark = _darkest(values)
    if kind == _REMOVE and dark < _DARK:
        raise EmbeddingError(
            "the processing baseline says that Sentinel-2's offset of 1,000 is in these numbers, and the darkest "
            f"have {dark:.0f}, which is too dark for that. {_DECIDE}"
        )
    if kind == _REMOVED and OFFSET <= dark <= _JUST_ABOVE:
        raise EmbeddingError(
            "the catalogue says that Sentinel-2's offset of 1,000 is removed from these numbers, and the darkest "
            f"blue has {dark:.0f}, as if it were there. {_DECIDE}"
        )


def _check_no_offset(picture: np.ndarray, todo: np.ndarray) -> None:
    """Raise if dark pixels of all bands look as if they had an offset where the baseline had none.

    One band alone says nothing: the darkest sand of a desert is as bright, but not in all bands.
    """
    dark = [_darkest(band) for band, kind in zip(picture, todo, strict=True) if (kind == _NEVER).all()]
    if len(dark) >= _ENOUGH and all(OFFSET <= each <= _JUST_ABOVE for each in dark):
        raise EmbeddingError(
            "the processing baseline says that Sentinel-2's offset of 1,000 was never in these numbers, and the "
            f"darkest of each band have {min(dark):.0f} to {max(dark):.0f}, as if it were there. {_DECIDE}"
        )
