"""A function of the years of an array, block by block, lazily."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core import arrays, kernels
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.model import (
    BAND,
    Codec,
    check_band_chunk,
    is_encoded,
)
from geoemb_xr.execution.blocks import Block
from geoemb_xr.execution.thinning import pixelwise

TIME = "time"
_PIECE = 1024


def over_years(
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


@pixelwise
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


def pieces_of(years: list[Block]) -> Any:
    """``(pixels, [vectors (n, band) of every year])``, piece by piece."""
    for parts in zip(*(year.pieces(_PIECE) for year in years), strict=True):
        yield parts[0][0], [vectors.T for _, vectors in parts]


def times_of(array: xr.DataArray, what: str) -> np.ndarray:
    """Starts of an array's periods; raises where it has no ``time``."""
    if TIME not in array.dims:
        raise EmbeddingError(
            f"{what} needs a 'time' dimension; got dims {tuple(array.dims)}. Open several years, such as "
            "time=[2018, 2024], and call it before .emb.year"
        )
    return np.asarray(array.coords[TIME].values, "datetime64[ns]")


def names_of(array: xr.DataArray) -> tuple[str, str]:
    """Product and version."""
    return str(array.attrs.get("product", "")), str(array.attrs.get("version", ""))
