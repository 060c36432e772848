"""Lazy functions of all years of an array, block by block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core import arrays, buffers
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.model import (
    BAND,
    Codec,
    check_band_chunk,
    is_encoded,
)
from geoemb_xr.core.times import with_dates
from geoemb_xr.execution.blocks import Block
from geoemb_xr.execution.thinning import pixelwise

TIME = "time"


def over_years(
    function: Callable[..., None],
    array: xr.DataArray,
    *params: Any,
    out: tuple[str, Sequence[Any]] | None = None,
    name: str,
    attrs: Mapping[str, Any],
) -> xr.DataArray:
    """Apply ``function(years, result, *params)`` to every block of pixels with all of its years in one task.

    ``years`` is a list of :class:`Block` in time order, however time was chunked, each where it lies. The function
    writes ``result``, float32 ``(k, pixels)``: one row, or one for each of the k labels of ``out``, a dimension in
    the place of ``band``.
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
        None if out is None else len(out[1]),
    )
    if array.chunks is None:
        data = task(array.values, None if scale is None else scale.values, *params)
    else:
        import dask.array as da

        check_band_chunk(array, name)
        operands: list[Any] = [array.data, array.dims, None, None]
        if scale is not None:
            chunks = {d: c for d, c in array.variable.chunksizes.items() if d != BAND}
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
    """Take the blocks of contracted dimensions, in order, out of the lists that blockwise wraps them in."""
    return [b for each in nested for b in _flat(each)] if isinstance(nested, list) else [np.asarray(nested)]


@pixelwise
def _on_years(
    function: Callable[..., None],
    codec: Codec | None,
    axes: tuple[int, int],
    scale_axis: int | None,
    rows: int | None,
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
    years = [Block(slab, own, each, codec) for slab, each in zip(slabs, scales, strict=True)]
    pixels = tuple(np.delete(slabs[0].shape, own))
    result = buffers.empty((rows or 1, years[0].pixels), np.float32)
    function(years, result, *params)
    if rows is None:
        return result.reshape(pixels)
    return np.moveaxis(result.reshape(rows, *pixels), 0, own)


def years_at(array: xr.DataArray, positions: Sequence[int]) -> xr.DataArray:
    """Some years of an array: those of even steps by a slice, for which nothing is copied."""
    first = positions[0]
    step = positions[1] - first if len(positions) > 1 else 1
    if step and list(positions) == list(range(first, first + step * len(positions), step)):
        stop = positions[-1] + step
        return array.isel({TIME: slice(first, stop if stop >= 0 else None, step)})
    return array.isel({TIME: list(positions)})


def times_of(array: xr.DataArray, what: str) -> np.ndarray:
    """Starts of an array's periods; raises where it has no ``time``, or nothing along it."""
    if TIME not in array.dims:
        raise EmbeddingError(
            f"{what} needs a 'time' dimension; got dims {tuple(array.dims)}. Open several years, such as "
            "time=[2018, 2024], and call it before .emb.year"
        )
    if not array.sizes[TIME]:
        raise EmbeddingError(f"{what} needs one period or more; got none along 'time'")
    return np.asarray(with_dates(array).coords[TIME].values, "datetime64[ns]")


def space_of(array: xr.DataArray) -> tuple[str, str]:
    """Product and version."""
    return str(array.attrs.get("product", "")), str(array.attrs.get("version", ""))
