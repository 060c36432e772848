"""Sentinel-2's offset: since processing baseline 04.00 its numbers are reflectance times 10,000 plus 1,000.

Whether it is still there is said by the baseline and by the catalogue (some have removed it, and some items of a
public one say so wrongly). Both are read from the images' coordinates, and dark pixels are looked at when images
are computed: where the three disagree, nobody guesses.
"""

from __future__ import annotations

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
_LEAVE, _REMOVE, _REMOVED = 0, 1, 2


def harmonize(images: xr.DataArray | xr.Dataset, how: Harmonize = "auto") -> xr.DataArray:
    """Remove the offset that Sentinel-2's numbers have since processing baseline 04.00. Lazy.

    Parameters
    ----------
    images : DataArray (time?, band, y, x), or Dataset with a variable per band
        Digital numbers, with the coordinates of their catalogue: the baseline (``s2:processing_baseline``) and,
        where it has one, its flag (``earthsearch:boa_offset_applied``).
    how : {"auto"} or bool
        Decide date by date: from baseline 04.00 on the offset is there, unless the catalogue says that it has
        removed it. True removes it everywhere, False nowhere.

    Returns
    -------
    DataArray (time?, band, y, x)
        float32 less the offset, not below 0, NaN where there is no data; images that say nothing as they are.

    Raises
    ------
    EmbeddingError
        When computed, if dark pixels contradict what catalogue and baseline say.

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
    raster = images.to_dataarray(BAND) if isinstance(images, xr.Dataset) else images
    todo = _todo(raster, how)
    if how is False or (todo.values == _LEAVE).all():
        return raster
    nodata = inputs.missing_value(raster)
    found: xr.DataArray = xr.apply_ufunc(
        _without,
        raster,
        todo,
        kwargs={"nodata": 0.0 if nodata is None else nodata, "is_sure": how is True},
        dask="parallelized",
        output_dtypes=[np.float32],
        keep_attrs=False,
    )
    found = found.transpose(*raster.dims).assign_coords(raster.coords)
    found.attrs = {k: v for k, v in raster.attrs.items() if k in (*inputs.ORIGIN, "long_name")}
    return found


def _todo(raster: xr.DataArray, how: Harmonize) -> xr.DataArray:
    """What is to be done with each date and band of Sentinel-2, ``(time?, band)``."""
    labels = [inputs.band_name(b) for b in raster[BAND].values] if BAND in raster.coords else []
    is_band = np.array([name in inputs.WAVELENGTHS for name in labels] or [True] * raster.sizes[BAND])
    is_blue = np.array([name == "B02" for name in labels] or [False] * raster.sizes[BAND])
    baselines, flags = (_said(raster, names) for names in (_BASELINES, _FLAGS))
    if how is True:
        return xr.DataArray(np.where(is_band, _REMOVE, _LEAVE), dims=BAND)
    if baselines is None:
        return xr.DataArray(np.full(is_band.size, _LEAVE), dims=BAND)
    is_new = np.vectorize(_at_least_four, otypes=[bool])(baselines.values)
    is_removed = np.zeros((), bool) if flags is None else np.vectorize(_is_true, otypes=[bool])(flags.values)
    is_new, is_removed = np.broadcast_arrays(is_new, is_removed)
    # of what the catalogue has removed only blue can tell: the others are never that dark by themselves
    todo = np.where(is_new[..., None] & is_band, _REMOVE, _LEAVE)
    todo = np.where(is_removed[..., None] & (todo == _REMOVE), np.where(is_blue, _REMOVED, _LEAVE), todo)
    return xr.DataArray(todo, dims=("time", BAND)[-todo.ndim :])


def _said(raster: xr.DataArray, names: tuple[str, ...]) -> xr.DataArray | None:
    found = next((raster.coords[n] for n in names if n in raster.coords), None)
    if found is None or not set(found.dims) <= {"time"}:
        return None
    held: xr.DataArray = found.compute()  # a few words: `.chunk` makes coordinates lazy, too
    return held


def _at_least_four(baseline: object) -> bool:
    try:
        return float(str(baseline)[:5]) >= 4.0
    except ValueError:
        return False  # an item without a baseline says nothing


def _is_true(flag: object) -> bool:
    return str(flag).lower() in ("true", "1", "1.0")


def _without(block: np.ndarray, todo: np.ndarray, nodata: float, is_sure: bool) -> np.ndarray:
    """A block less the offset where it is to be removed."""
    out = block.astype(np.float32)
    out[(block == nodata) | ~np.isfinite(out)] = np.nan
    todo = np.broadcast_to(todo, out.shape)
    if is_sure:
        return np.where(todo == _REMOVE, np.maximum(out - np.float32(OFFSET), 0), out)
    if not np.isfinite(out).any() or np.nanmax(out) < _REFLECTANCE:
        return out
    for kind in (_REMOVE, _REMOVED):
        _look(out[todo == kind], kind)
    return np.where(todo == _REMOVE, np.maximum(out - np.float32(OFFSET), 0), out)


def _look(values: np.ndarray, kind: int) -> None:
    """Raise where dark pixels contradict what is said of them."""
    values = values[:: max(1, values.size // _PIXELS)]
    values = values[np.isfinite(values)]
    if values.size == 0:
        return
    dark = float(np.quantile(values, 0.01))
    decide = (
        "Look at water and shade: where they have 1,000 or more pass harmonize=True, else harmonize=False"
    )
    if kind == _REMOVE and dark < _DARK:
        raise EmbeddingError(
            "the processing baseline says that Sentinel-2's offset of 1,000 is in these numbers, and the darkest "
            f"have {dark:.0f}, which is too dark for that. {decide}"
        )
    if kind == _REMOVED and OFFSET <= dark <= _JUST_ABOVE:
        raise EmbeddingError(
            "the catalogue says that Sentinel-2's offset of 1,000 is removed from these numbers, and the darkest "
            f"blue has {dark:.0f}, as if it were there. {decide}"
        )
