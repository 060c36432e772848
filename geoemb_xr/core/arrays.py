"""Operations that all features share on embedding arrays: make, join, decode, normalise, select.

:func:`map_bands` is the one way a function of vectors becomes a lazy array: one blockwise layer, one task per
block, any order of dimensions, NumPy and dask alike.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from geoemb_xr.core import buffers, coding, geometry, kernels
from geoemb_xr.core.codecs import CODECS, SIGNED_SQUARE, SQUARE_FACTOR
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.missing import codec_attrs, without_codec
from geoemb_xr.core.model import (
    BAND,
    Codec,
    Product,
    check_band_chunk,
    check_comparable,
    check_embedding,
    comparability_key,
    is_encoded,
    product,
)

Chunks = int | str | Mapping[Hashable, Any] | tuple[int, ...]


# --- a function of vectors, lazily --------------------------------------------------------------------------


def map_bands(
    function: Callable[..., np.ndarray],
    array: xr.DataArray,
    *params: Any,
    dtype: Any,
    out: tuple[str, Sequence[Any]] | None = None,
    decode: bool = True,
    name: str = "embedding",
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Apply ``function(block, axis, *params)`` to every block, lazily where the array is lazy.

    Parameters
    ----------
    function : callable
        Takes a block with its bands along ``axis``, and returns it without that axis, or with another length
        along it (``out``). At module level, so that workers can import it.
    array : DataArray (…, band, …)
        An embedding array, or anything else with a ``band`` dimension.
    *params : object
        Arguments that are passed on. A large object goes in as one ``dask.delayed(model, pure=True)``, else every
        task would carry a copy.
    dtype : dtype
        Data type of the result.
    out : (str, sequence), optional
        Dimension that stands where ``band`` stood, and its labels; none by default.
    decode : bool
        Whether codes are decoded before the function sees them. If not, the function is called as
        ``function(block, axis, scale, *params)``, with ``scale`` None where the codec has none.
    name : str
        Name of the result.
    attrs : mapping, optional
        Attributes of the result.

    Returns
    -------
    DataArray
        With the coordinates of ``array`` that do not lie along ``band``.
    """
    axis = array.get_axis_num(BAND)
    assert isinstance(axis, int)
    codec = codec_of(array) if is_encoded(array) else None
    scale = scale_of(array, codec) if codec is not None else None
    if decode and codec is not None:
        params = (function, codec, *params)
        function = _decode_then
    passes_scale = codec is not None or not decode
    dims = tuple(d for d in array.dims if d != BAND) if out is None else _replace(array.dims, BAND, out[0])
    if array.chunks is None:
        args = (scale.values if scale is not None else None,) if passes_scale else ()
        params = tuple(_computed(p) for p in params)
        data = np.asarray(function(array.values, axis, *args, *params), dtype=dtype)
    else:
        data = _blockwise(function, array, axis, scale, passes_scale, params, dims, dtype, out)
    coords = {k: v for k, v in array.coords.items() if BAND not in v.dims}
    if codec is not None and codec.scale is not None:
        coords.pop(codec.scale, None)
    if out is not None:
        coords[out[0]] = xr.DataArray(np.asarray(out[1]), dims=out[0])
    return xr.DataArray(data, dims=dims, coords=coords, name=name, attrs=dict(attrs or {}))


def _blockwise(
    function: Callable[..., np.ndarray],
    array: xr.DataArray,
    axis: int,
    scale: xr.DataArray | None,
    passes_scale: bool,
    params: tuple[Any, ...],
    dims: tuple[Hashable, ...],
    dtype: Any,
    out: tuple[str, Sequence[Any]] | None,
) -> Any:
    import dask.array as da

    check_band_chunk(array, function.__name__)
    operands: list[Any] = [array.data, array.dims]
    if scale is not None:
        chunks = {d: c for d, c in array.variable.chunksizes.items() if d != BAND}
        operands += [scale.chunk(chunks).data, scale.dims]
    # Only what is lazy is an operand: each operand costs every task an entry in the graph.
    constants = {i: each for i, each in enumerate(params) if not hasattr(each, "__dask_graph__")}
    for i, each in enumerate(params):
        operands += [] if i in constants else [each, None]
    return da.blockwise(
        _OnBlock(function, axis, passes_scale, scale is not None, constants),
        dims,
        *operands,
        new_axes={out[0]: len(out[1])} if out is not None else {},
        concatenate=False,  # a list of the single block along band: no copy
        dtype=dtype,
        meta=np.empty((0,) * len(dims), dtype=dtype),
        token=function.__name__.strip("_"),
    )


@dataclass(frozen=True)
class _OnBlock:
    """Calls ``function(block, axis, scale?, *params)`` with the arguments of blockwise."""

    function: Callable[..., np.ndarray]
    axis: int
    passes_scale: bool
    has_scale: bool
    constants: Mapping[int, Any]
    looks_at_pixels: ClassVar[bool] = True  # each apart: see execution.thinning

    def __call__(self, block: Any, *rest: Any) -> np.ndarray:
        scale = _single(rest[0]) if self.has_scale else None
        lazy = iter(rest[1:] if self.has_scale else rest)
        count = len(self.constants) + len(rest) - self.has_scale
        params = (self.constants[i] if i in self.constants else next(lazy) for i in range(count))
        extra = (scale,) if self.passes_scale else ()
        return self.function(_single(block), self.axis, *extra, *params)


def _single(block: Any) -> np.ndarray:
    """Take the one block of a contracted dimension out of the lists that blockwise wraps it in."""
    while isinstance(block, list):
        (block,) = block
    return np.asarray(block)


def _computed(param: Any) -> Any:
    """A delayed model itself: here, as the array is in memory here, whatever else computes elsewhere."""
    import dask

    return param.compute(scheduler=dask.get) if hasattr(param, "__dask_graph__") else param


def _replace(dims: tuple[Hashable, ...], old: str, new: str) -> tuple[Hashable, ...]:
    return tuple(new if d == old else d for d in dims)


def _decode_then(
    block: np.ndarray,
    axis: int,
    scale: np.ndarray | None,
    function: Callable[..., np.ndarray],
    codec: Codec,
    *params: Any,
) -> np.ndarray:
    return function(codec.decode(block, scale, axis), axis, *params)


def codec_of(array: xr.DataArray) -> Codec:
    """The codec of an encoded array, by its product or by its name."""
    name = str(array.attrs["codec"])
    own = product(array.attrs["product"]).codec if "product" in array.attrs else None
    if own is not None and own.name == name:
        return own
    if name not in CODECS:
        raise EmbeddingError(f"unknown codec {name!r}; known are {', '.join(CODECS)}")
    return CODECS[name]


def scale_of(array: xr.DataArray, codec: Codec) -> xr.DataArray | None:
    """The per-pixel scales of an encoded array, dimensions in its order; None where the codec has none."""
    if codec.scale is None:
        return None
    if codec.scale not in array.coords:
        raise EmbeddingError(
            f"codes of codec {codec.name!r} need the coordinate {codec.scale!r}, which is gone "
            "(arithmetic and drop_vars do so); decode before them, or wrap again with scale=…"
        )
    scale: xr.DataArray = array.coords[codec.scale].reset_coords(drop=True)
    return scale.transpose(*(d for d in array.dims if d != BAND))


def without_data(array: xr.DataArray) -> xr.DataArray:
    """Where an embedding has no data, by its codec or NaN: bool, without ``band``. Lazy."""
    if not is_encoded(array):
        return array.isnull().any(BAND)
    codec = codec_of(array)
    scale = scale_of(array, codec)
    if scale is not None:
        return scale.isnull() | (abs(scale) == np.inf) | (scale == 0)
    nodata = codec.nodata if codec.nodata is not None else 0
    marked = array.reset_coords(drop=True) == nodata
    return marked.all(BAND) if nodata == 0 else marked.any(BAND)


# --- decode, encode, normalise ------------------------------------------------------------------------------


def decode(array: xr.DataArray) -> xr.DataArray:
    """Codes to float32 vectors; missing pixels are NaN in every band. Lazy.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Encoded; a decoded array is returned as it is.

    Returns
    -------
    DataArray
        float32, without the attribute ``codec``.

    Raises
    ------
    EmbeddingError
        If it is not an embedding, or its codes were turned into floats.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> codes = gx.testing.synthetic("alphaearth", shape=(4, 5), decode=False)
    >>> codes.dtype, codes.emb.decode().dtype
    (dtype('int8'), dtype('float32'))
    """
    found = check_embedding(array, "decode")
    if not is_encoded(array):
        return array
    codec = codec_of(array)
    attrs = without_codec(array.attrs)
    labels = codec.bands or tuple(array.coords[BAND].values.tolist())
    return map_bands(
        _as_is, array, dtype=np.float32, out=(BAND, labels), name=_name_of(array, found), attrs=attrs
    )


def _name_of(array: xr.DataArray, found: Product) -> str:
    """The array's own name, else its product's."""
    return found.name if array.name is None else str(array.name)


def _as_is(block: np.ndarray, axis: int) -> np.ndarray:
    return block


def encode(array: xr.DataArray) -> xr.DataArray:
    """Vectors to the codes of their product: the inverse of :func:`decode`. Lazy.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Decoded; an encoded array is returned as it is.

    Raises
    ------
    EmbeddingError
        If the product is stored as floats.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> codes = gx.testing.synthetic("alphaearth", shape=(4, 5), decode=False)
    >>> bool((gx.encode(codes.emb.decode()) == codes).all())
    True
    """
    found = check_embedding(array, "encode")
    if is_encoded(array):
        return array
    codec = found.codec
    if codec is None:
        raise EmbeddingError(f"{found.name!r} is stored as {found.dtype}: it has no codec to encode with")
    return encode_with(array, codec)


def encode_with(array: xr.DataArray, codec: Codec) -> xr.DataArray:
    """Encode vectors with any codec, so that a product without one can be written in fewer bytes."""
    found = product(array.attrs["product"])
    labels = found.bands if codec.bands else tuple(array.coords[BAND].values.tolist())
    codes = map_bands(
        _encode_block,
        array,
        codec,
        dtype=codec.dtype,
        out=(BAND, labels),
        name=_name_of(array, found),
        attrs={**array.attrs, **codec_attrs(codec)},
    )
    if codec.scale is None:
        return codes
    return codes.assign_coords({codec.scale: map_bands(_scale_block, array, codec, dtype=np.float32)})


def _encode_block(block: np.ndarray, axis: int, codec: Codec) -> np.ndarray:
    return codec.encode(block, axis)[0]


def _scale_block(block: np.ndarray, axis: int, codec: Codec) -> np.ndarray:
    scale = codec.encode(block, axis)[1]
    assert scale is not None
    return scale


def normalize(array: xr.DataArray) -> xr.DataArray:
    """Vectors of unit length. Lazy.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Codes are decoded first. A vector of zeros has no direction and becomes NaN.

    Returns
    -------
    DataArray
        float32.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("tessera", shape=(4, 5))
    >>> float(abs((da.emb.normalize() ** 2).sum("band") - 1).max()) < 1e-6
    True
    """
    found = check_embedding(array, "normalize")
    decoded = decode(array)
    return map_bands(
        _unit_block,
        array,
        codec_of(array) if is_encoded(array) else None,
        dtype=np.float32,
        out=(BAND, decoded.coords[BAND].values),
        decode=False,
        name=_name_of(array, found),
        attrs=decoded.attrs,
    )


def _unit_block(block: np.ndarray, axis: int, scale: np.ndarray | None, codec: Codec | None) -> np.ndarray:
    if codec is None:
        return unit_length(block, axis)
    if codec.name != SIGNED_SQUARE.name or math.prod(block.shape[axis + 1 :]) == 1:
        return unit_length(codec.decode(block, scale, axis), axis, own=True)
    bands = kernels.as_bands(block, axis)
    out = buffers.empty(bands.shape, np.float32)
    coding.unit_square(bands, SIGNED_SQUARE.nodata, SQUARE_FACTOR, out)
    return out.reshape(block.shape)


def unit_length(block: np.ndarray, axis: int, own: bool = False) -> np.ndarray:
    """Divide vectors by their length, summed in float64; NaN where that is 0; in place where they are ``own``."""
    block = block.astype(block.dtype.newbyteorder("="), copy=False)  # netCDF 3 has the other order of bytes
    bands = kernels.as_bands(block, axis)
    out = bands if own else buffers.empty(bands.shape, block.dtype)
    coding.divide_by_length(bands, out)
    return out.reshape(block.shape)


def truncate(array: xr.DataArray, dims: int) -> xr.DataArray:
    """The first ``dims`` bands of a Matryoshka product: a shorter embedding of its own. Lazy.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Encoded or decoded.
    dims : int
        One of the product's ``matryoshka`` lengths.

    Raises
    ------
    EmbeddingError
        If the product was not trained so that its prefixes are embeddings.

    Examples
    --------
    >>> import numpy as np, geoemb_xr as gx
    >>> mine = gx.Product("nested", dims=8, matryoshka=(2, 4))
    >>> gx.wrap(np.ones((8, 3, 3), "f4"), mine, geobox=gx.testing.geobox((3, 3))).emb.truncate(4).sizes[
    ...     "band"
    ... ]
    4
    """
    found = check_embedding(array, "truncate")
    lengths = matryoshka_of(found, str(array.attrs.get("version", "")))
    if dims not in lengths:
        version = array.attrs.get("version", "")
        raise EmbeddingError(
            f"{found.name} {version} has no prefix of {dims} bands that is an embedding; "
            + (f"its lengths are {lengths}" if lengths else "it was not trained as a Matryoshka model")
        )
    return array.sel({BAND: list(found.bands[:dims])})


def matryoshka_of(found: Product, version: str) -> tuple[int, ...]:
    """Prefix lengths of a product in a version; ``Product.matryoshka`` may hold for some versions only."""
    only = tuple(v for v in found.versions if v in found.matryoshka_versions)
    return found.matryoshka if not only or version in only else ()


def concat(arrays: Sequence[xr.DataArray], dim: str) -> xr.DataArray:
    """Join arrays of one product, version and CRS along a dimension.

    Unlike :func:`xarray.concat` it never mixes two spaces or two grids, and never fills gaps.

    Parameters
    ----------
    arrays : sequence of DataArray
        Arrays to join, at least one.
    dim : str
        Usually ``"time"`` or ``"location"``.

    Raises
    ------
    ComparabilityError
        If product or version differ.
    EmbeddingError
        If CRS, encoding or coordinates differ.
    ValueError
        If there is no array.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(4, 5), years=[2018, 2024])
    >>> gx.concat([da.isel(time=[0]), da.isel(time=[1])], "time").identical(da)
    True
    """
    arrays = list(arrays)
    if not arrays:
        raise ValueError("concat needs at least one array")
    for each in arrays:
        check_embedding(each, "concat")
    check_comparable("concat", *map(comparability_key, arrays))
    first = arrays[0]
    if len({is_encoded(each) for each in arrays}) > 1:
        raise EmbeddingError("concat got encoded and decoded arrays; decode them all, or none")
    crs = geometry.crs_of(first)
    for each in arrays[1:]:
        other = geometry.crs_of(each)
        if (crs is None) != (other is None) or (crs is not None and not geometry.same_crs(crs, other)):
            names = [geometry.crs_name(c) if c is not None else "none" for c in (crs, other)]
            raise EmbeddingError(
                f"concat got two CRSs, {names[0]} and {names[1]}; reproject to one grid first"
            )
    try:
        joined = xr.concat(
            arrays, dim, join="exact", coords="minimal", compat="equals", combine_attrs="override"
        )
    except (ValueError, xr.MergeError) as error:
        raise EmbeddingError(
            f"concat along {dim!r} needs the same coordinates on the other dimensions "
            f"(bring them to one grid with .emb.reproject): {error}"
        ) from error
    stores = sorted({str(each.attrs.get("store", "")) for each in arrays})
    if len(stores) > 1:
        named = " and ".join(repr(s) if s else "the first-hand files" for s in stores)
        warnings.warn(
            f"concat mixes {named}: the copy was resampled, so vectors of one place differ between them "
            "without a change on the ground",
            stacklevel=2,
        )
    sources = {str(each.attrs.get("source", "")) for each in arrays}
    if len(sources) > 1:
        joined.attrs["source"] = f"{len(sources)} sources"
    return joined
