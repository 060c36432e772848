"""Missing pixels of what others wrote: what marks them there, and the one way they are marked here.

A header is believed: missing is what a declared nodata value, a mask or a value that is not finite says. A vector
of which a part is missing is missing as a whole, since neither a distance nor a mean can be taken of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.core.model import BAND, Codec, whole_along
from geoemb_xr.core.notes import say

#: Where xarray, rioxarray and GDAL keep the value that marks missing pixels, the first to be looked at first.
NODATA_KEYS = ("_FillValue", "missing_value", "nodata", "nodatavals")


def missing_pixels(values: np.ndarray, axis: int, nodata: float | None = None) -> np.ndarray:
    """Which vectors are missing: a band holds ``nodata``, or is not finite.

    Parameters
    ----------
    values : ndarray (…, band, …)
        Codes or vectors.
    axis : int
        Position of the band axis.
    nodata : float, optional
        The declared value. Vectors hold zeros, so that a nodata of 0 marks only those that are 0 in every band.

    Returns
    -------
    ndarray of bool
        Without the axis of bands.

    Examples
    --------
    >>> missing_pixels(np.array([[1.0, -9999.0], [np.inf, 2.0], [0.0, 3.0]]), 1, nodata=-9999.0)
    array([ True,  True, False])
    >>> missing_pixels(np.array([[0, 0], [0, 5]], np.int8), 1, nodata=0)
    array([ True, False])
    """
    missing = np.zeros(tuple(np.delete(values.shape, axis)), bool)
    if values.dtype.kind == "f":
        missing |= ~np.isfinite(values).all(axis=axis)
    if nodata is not None and can_hold(values.dtype, nodata):
        marked = values == values.dtype.type(nodata)
        missing |= marked.all(axis=axis) if nodata == 0 else marked.any(axis=axis)
    return missing


def can_hold(dtype: np.dtype[Any], value: float) -> bool:
    """Whether values of a dtype can be equal to a number at all."""
    if dtype.kind == "f":
        return bool(np.isfinite(float(value)))
    if dtype.kind == "b":  # either value means something
        return False
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max


def mark_missing(
    values: np.ndarray,
    axis: int,
    fill: float,
    *,
    nodata: float | None = None,
    masked: np.ndarray | None = None,
) -> np.ndarray:
    """Values with ``fill`` in every band of a missing vector; the same array where none is missing.

    Parameters
    ----------
    values : ndarray (…, band, …)
        Codes or vectors.
    axis : int
        Position of the band axis.
    fill : float
        The value of missing vectors here: NaN, or the codec's nodata.
    nodata : float, optional
        The value of missing vectors there.
    masked : ndarray of bool, optional
        Others that a mask says are missing.
    """
    missing = missing_pixels(values, axis, nodata)
    if masked is not None:
        missing |= masked
    if not missing.any():
        return values
    return np.where(np.expand_dims(missing, axis), values.dtype.type(fill), values)


def refuse_codes(values: np.ndarray, axis: int, product: str, what: str = "the array") -> None:
    """Raise where floats are codes that something turned into floats: whole numbers, and larger than vectors' are.

    Looks at a few pixels alone, so that it costs nothing beside what reads them.

    Parameters
    ----------
    values : ndarray (…, band, …)
        What should be vectors.
    axis : int
        Position of the band axis.
    product, what : str
        Names for the message.

    Raises
    ------
    SourceError
        If all that is looked at are whole numbers, some beyond 1.

    Examples
    --------
    >>> refuse_codes(np.array([[0.6, 0.8]], np.float32), 1, "mine")
    >>> refuse_codes(np.array([[3, -127]], np.float32), 1, "mine")
    Traceback (most recent call last):
    ...
    geoemb_xr.core.errors.SourceError: the array holds whole numbers up to 127 as floats: ...
    """
    steps = [slice(None, None, 1 if i == axis else max(1, n // 8)) for i, n in enumerate(values.shape)]
    some = values[tuple(steps)]
    some = some[np.isfinite(some)]
    if some.size and np.abs(some).max() > 1 and np.array_equal(some, np.rint(some)):
        raise SourceError(
            f"{what} holds whole numbers up to {np.abs(some).max():.0f} as floats: these are no vectors of "
            f"{product!r} but its codes, which something turned into floats (masked=True, where, reindex). "
            "Read them as integers, or turn missing pixels into the code for no data and the rest into integers. "
            "A number that marks missing pixels is declared (nodata, _FillValue)"
        )


def declared_nodata(array: xr.DataArray) -> float | None:
    """What an array's attributes say marks its missing pixels; None where they say nothing."""
    return nodata_in(array.attrs)


def nodata_in(*given: Mapping[Any, Any]) -> float | None:
    """The first value for missing pixels among attributes: a number, one in text, or the same for every band.

    Examples
    --------
    >>> (
    ...     nodata_in({}, {"nodata": "-9999"}),
    ...     nodata_in({"nodatavals": (0.0, 0.0)}),
    ...     nodata_in({"nodata": "none"}),
    ... )
    (-9999.0, 0.0, None)
    """
    for attrs in given:
        for key in NODATA_KEYS:
            stated = attrs.get(key)
            if isinstance(stated, int | np.integer):  # a float rounds those of 64 bits
                return int(stated)
            values = np.unique(_numbers(stated))
            if values.size == 1 and not np.isnan(values[0]):
                return float(values[0])
    return None


def _numbers(stated: Any) -> np.ndarray:
    """What an attribute states, as numbers; none where it states anything else."""
    try:
        return np.ravel(np.asarray(stated, np.float64))
    except (TypeError, ValueError):
        return np.empty(0)


#: Where xarray and rioxarray keep scales and offsets: as one attribute each, or by band.
_SCALING = (("scale_factor", "scales"), ("add_offset", "offsets"))
SCALING_KEYS = tuple(key for keys in _SCALING for key in keys)


def scaling_in(attrs: Mapping[Any, Any]) -> tuple[float, float] | None:
    """The scale and offset by which numbers are stored; of bands that differ, the first. None where they are plain.

    Examples
    --------
    >>> scaling_in({"scales": (1.0, 0.1)}), scaling_in({"scale_factor": 1.0}), scaling_in({"scales": "none"})
    ((0.1, 0.0), None, None)
    """
    found = []
    for keys, neutral in zip(_SCALING, (1.0, 0.0), strict=True):
        stated = next((attrs[key] for key in keys if attrs.get(key) is not None), neutral)
        values = _numbers(stated)
        other = values[(values != neutral) & ~np.isnan(values)]
        found.append(float(other[0]) if other.size else neutral)
    return None if found == [1.0, 0.0] else (found[0], found[1])


def refuse_scaling(scaling: tuple[float, float] | None, what: str) -> None:
    """Raise where numbers are stored by a scale and an offset (:func:`scaling_in`), which nothing has applied.

    Raises
    ------
    SourceError
        Naming both.

    Examples
    --------
    >>> refuse_scaling(scaling_in({"scale_factor": 1.0, "add_offset": 0.0}), "the array")
    >>> refuse_scaling(scaling_in({"scale_factor": 0.1}), "the array")
    Traceback (most recent call last):
    ...
    geoemb_xr.core.errors.SourceError: the array declares a scale of 0.1 and an offset of 0, which ...
    """
    if scaling is None:
        return
    scale, offset = scaling
    raise SourceError(
        f"{what} declares a scale of {scale:g} and an offset of {offset:g}, which are not applied to its numbers. "
        "Apply them (open it with mask_and_scale=True, or gdal_translate -unscale), or remove them where they are "
        "not true (.attrs.pop, or gdal_edit.py -unsetscale -unsetoffset)"
    )


def believe_scaling(scaling: tuple[float, float] | None, dtype: Any, what: str) -> None:
    """Say that a scale and an offset (:func:`scaling_in`) of codes do not count, and raise where vectors have them.

    Raises
    ------
    SourceError
        Naming both.
    """
    if scaling is not None and np.dtype(dtype).kind in "iu":
        say(
            f"{what} declares a scale of {scaling[0]:g} and an offset of {scaling[1]:g}; its codes are decoded as "
            "their product defines them, not by these"
        )
        return
    refuse_scaling(scaling, what)


def fill_of(array: xr.DataArray) -> int | None:
    """The whole number that marks missing pixels of a map of classes; None where its attributes say none."""
    nodata = declared_nodata(array)
    return int(nodata) if nodata is not None and can_hold(array.dtype, nodata) else None


def filled(array: xr.DataArray, fill: float) -> xr.DataArray:
    """A map with ``fill`` where its attributes say that a pixel is missing. Lazy where the array is."""
    nodata = declared_nodata(array)
    if nodata is None or nodata == fill or not can_hold(array.dtype, nodata):
        return array
    return array.where(array != nodata, fill)


def believe_nodata(array: xr.DataArray, codec: Codec | None) -> xr.DataArray:
    """An array of vectors or codes whose missing pixels are marked as ours are. Lazy where the array is.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Floats, or codes of ``codec``.
    codec : Codec, optional
        The codec of codes; None for floats.
    """
    nodata = declared_nodata(array)
    if codec is None:
        fill = float("nan")
    elif codec.nodata is None or nodata is None or nodata == codec.nodata:
        return array  # the codec itself knows what is missing
    else:
        fill = float(codec.nodata)
    options: dict[str, Any] = {"axis": array.get_axis_num(BAND), "fill": fill, "nodata": nodata}
    if array.chunks is None:
        return array.copy(data=mark_missing(array.values, **options))
    whole = whole_along(array, BAND)
    return whole.copy(
        data=whole.data.map_blocks(mark_missing, dtype=whole.dtype, meta=whole.data._meta, **options)
    )


# --- codes that carry their nodata --------------------------------------------------------------------------------


def codec_attrs(codec: Codec) -> dict[str, Any]:
    """Attributes of codes: their codec, and their nodata where rioxarray finds it.

    ``nodata`` and not ``_FillValue``: rioxarray fills with either, but plain xarray turns codes that have the
    latter into floats when it reads them back from a file.
    """
    return {"codec": codec.name, **({"nodata": codec.nodata} if codec.nodata is not None else {})}


def without_codec(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Attributes without what only codes have."""
    return {key: value for key, value in attrs.items() if key not in ("codec", *NODATA_KEYS)}


def codes_again(array: xr.DataArray, codec: Codec) -> xr.DataArray:
    """Codes that plain xarray masked when it read them (floats, NaN where there is no data), as codes. Lazy.

    Raises
    ------
    EmbeddingError
        If the codec has no nodata that a NaN could have been.
    """
    if array.dtype.kind != "f":
        return array
    if codec.nodata is None:
        raise EmbeddingError(
            f"codes of {codec.name!r} were turned into {array.dtype}, and they have no nodata to turn NaN back "
            "into; read the file again with xarray.open_dataset(…, mask_and_scale=False)"
        )
    attrs = {key: value for key, value in array.attrs.items() if key not in NODATA_KEYS}
    codes = array.fillna(codec.nodata).astype(codec.dtype)
    return codes.assign_attrs({**attrs, **codec_attrs(codec)})
