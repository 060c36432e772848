"""How published products store vectors as integers: decode, encode, in NumPy and in torch.

=====================  ==========================  =====================================================
codec                  products                    a value is
=====================  ==========================  =====================================================
``signed-square``      AlphaEarth, OlmoEarth       sign(q) · (q / 127.5)², −128 missing
``per-pixel-scale``    Tessera                     q · scale(pixel), missing where the scale is not finite
``fsq``                ESD                         six axes of a finite scalar quantiser in one code
``unscaled``           Presto                      the code itself (no scale is published), 0 missing
``offset-16``          AlphaEarth, as users        q / 8192 − 1, missing where all bands are 0
                       export it from Earth Engine
``sign``               none: what compress gives   ±1 / √bands, 0 missing
=====================  ==========================  =====================================================

Averages, distances and interpolation are wrong on codes: decode first. The functions for torch and ONNX are written
with methods of tensors and of values of a graph, so that this module imports neither.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from geoemb_xr.core import buffers, coding, kernels
from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.model import Codec

_SQUARE_DIVISOR = np.float32(127.5)
SQUARE_FACTOR = np.float32(1 / 127.5**2)


def _no_scale(name: str, scale: object) -> None:
    if scale is not None:
        raise SourceError(f"codec {name!r} has no scales, but scales were given")


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """A shape without one of its axes (np.delete takes longer than encoding some thousand pixels)."""
    axis %= len(shape)
    return shape[:axis] + shape[axis + 1 :]


def _missing(vectors: np.ndarray, axis: int) -> np.ndarray:
    """A mask of vectors that cannot be encoded: a band is NaN or infinite. The band axis stays, of length 1."""
    return ~np.isfinite(vectors).all(axis=axis, keepdims=True)


# --- signed square ------------------------------------------------------------------------------------------


def decode_signed_square(codes: np.ndarray, scale: np.ndarray | None, axis: int) -> np.ndarray:
    """AlphaEarth's codes to float32; the formula is Google's: sign(q) · (q / 127.5)².

    Parameters
    ----------
    codes : ndarray of int8 (…, band, …)
        −128 in one band makes the whole vector missing.
    scale : None
        This codec has none.
    axis : int
        Position of the band axis.

    Examples
    --------
    >>> import numpy as np
    >>> decode_signed_square(np.array([[-127, 0, 127]], np.int8), None, 1).round(4)
    array([[-0.9922,  0.    ,  0.9922]], dtype=float32)
    """
    _no_scale("signed-square", scale)
    return coding.decode_square(np.asarray(codes, np.int8), axis, -128, SQUARE_FACTOR)


def encode_signed_square(vectors: np.ndarray, axis: int) -> tuple[np.ndarray, None]:
    """The inverse: q = clip(round(sign(x) · √|x| · 127.5), −127, 127), −128 where a band is not finite."""
    bands = kernels.as_bands(np.asarray(vectors, np.float32), axis)
    codes = buffers.empty(bands.shape, np.int8)
    coding.encode_square(*coding.long_rows(bands, codes))
    return codes.reshape(vectors.shape), None


def _decode_signed_square_torch(codes: Any, scale: Any, axis: int) -> Any:
    values = codes.float()
    values = values * values.abs() * float(SQUARE_FACTOR)
    return values.masked_fill_((codes == -128).any(dim=axis, keepdim=True), float("nan"))


def _decode_signed_square_onnx(codes: Any, scale: Any) -> tuple[Any, Any]:
    values = codes.cast("float32")
    return values * abs(values) * SQUARE_FACTOR, ~values.equals(-128).any()


def _encode_signed_square_onnx(vectors: Any) -> tuple[Any, Any]:
    root = (abs(vectors).sqrt() * _SQUARE_DIVISOR).rint() * vectors.sign()
    return root.clip(-127, 127).cast("int8").standing(-128), None


# --- one scale per pixel --------------------------------------------------------------------------------------


def decode_per_pixel_scale(codes: np.ndarray, scale: np.ndarray | None, axis: int) -> np.ndarray:
    """Tessera's codes to float32: q · scale, NaN where the scale is NaN (water), infinite (not filled) or 0.

    Parameters
    ----------
    codes : ndarray of int8 (…, band, …)
        The codes.
    scale : ndarray of float32
        Scales in the codes' shape without the band axis, or with it (older Tessera files).
    axis : int
        Position of the band axis.

    Raises
    ------
    SourceError
        If there are no scales, or their shape is not that of the pixels.
    """
    if scale is None:
        raise SourceError(
            "codec 'per-pixel-scale' needs scales, but the array has none; wrap it with scale=…"
        )
    scale = np.asarray(scale, np.float32)
    if scale.ndim == codes.ndim:
        valid = np.isfinite(scale) & (scale != 0)
        missing = ~valid.all(axis=axis, keepdims=True)
        return np.where(missing, np.float32(np.nan), codes * np.where(valid, scale, 0))
    expected = _without(codes.shape, axis)
    if scale.shape != expected:
        raise SourceError(f"scales of shape {scale.shape} do not fit codes of shape {codes.shape}")
    out = buffers.empty(codes.shape, np.float32)
    bands = kernels.as_bands(codes, axis)
    flat = np.ascontiguousarray(scale).reshape(bands.shape[0], bands.shape[2])
    coding.scale_codes(bands, flat, kernels.as_bands(out, axis))
    return out


def encode_per_pixel_scale(vectors: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The inverse: scale = max|x| / 127 per pixel, NaN where a band is not finite."""
    bands = kernels.as_bands(np.asarray(vectors, np.float32), axis)
    codes = buffers.empty(bands.shape, np.int8)
    scale = np.empty((bands.shape[0], 1, bands.shape[2]), np.float32)
    coding.encode_scaled(*coding.long_rows(bands, codes, scale))
    return codes.reshape(vectors.shape), scale.reshape(_without(vectors.shape, axis))


def _decode_per_pixel_scale_torch(codes: Any, scale: Any, axis: int) -> Any:
    full = scale if scale.dim() == codes.dim() else scale.unsqueeze(axis)
    missing = (~full.isfinite() | (full == 0)).any(dim=axis, keepdim=True)
    return (codes.float() * full.masked_fill(missing, 0.0)).masked_fill_(missing, float("nan"))


def _decode_per_pixel_scale_onnx(codes: Any, scale: Any) -> tuple[Any, Any]:
    return codes.cast("float32") * scale, scale.isfinite() & ~scale.equals(0)


def _encode_per_pixel_scale_onnx(vectors: Any) -> tuple[Any, Any]:
    scale = abs(vectors).max() / 127
    codes = (vectors / scale.where(scale > 0, 1)).rint().clip(-127, 127)
    return codes.cast("int8"), scale


# --- finite scalar quantisation -----------------------------------------------------------------------------

_FSQ_LEVELS = np.array((8, 8, 8, 5, 5, 5), np.int64)
_FSQ_BASIS = np.concatenate(([1], np.cumprod(_FSQ_LEVELS[:-1])))


@lru_cache(maxsize=1)
def _fsq_table() -> np.ndarray:
    """The six values of each of the 64,000 codes."""
    codes = np.arange(int(_FSQ_LEVELS.prod()))[:, None]
    half = _FSQ_LEVELS // 2
    return (((codes // _FSQ_BASIS) % _FSQ_LEVELS - half) / half).astype(np.float32)


def decode_fsq(codes: np.ndarray, scale: np.ndarray | None, axis: int) -> np.ndarray:
    """ESD's monthly codes to their six axes (levels 8, 8, 8, 5, 5, 5); code 0 is missing.

    Code 0 would decode to −1 on every axis, so it is masked first.

    Parameters
    ----------
    codes : ndarray of uint16 (…, band = 1, …)
        The codes.
    scale : None
        This codec has none.
    axis : int
        Where the single code band is; six axes come in its place.

    Raises
    ------
    SourceError
        If a code is 64,000 or more, or there is more than one code band.
    """
    _no_scale("fsq", scale)
    if codes.shape[axis] != 1:
        raise SourceError(f"codec 'fsq' has one code band; got {codes.shape[axis]}")
    single = np.take(codes, 0, axis=axis)
    table = _fsq_table()
    if single.size and int(single.max()) >= len(table):
        raise SourceError(f"codec 'fsq' has codes 0 to {len(table) - 1}; got {int(single.max())}")
    values = table[single]
    values[single == 0] = np.nan
    return np.moveaxis(values, -1, axis)


def encode_fsq(vectors: np.ndarray, axis: int) -> tuple[np.ndarray, None]:
    """The inverse: the nearest level of each axis, joined to one code, 0 where an axis is not finite."""
    last = np.moveaxis(np.asarray(vectors, np.float32), axis, -1)
    half = _FSQ_LEVELS // 2
    missing = _missing(last, -1)
    levels = np.clip(np.rint(np.where(missing, 0, last) * half) + half, 0, _FSQ_LEVELS - 1)
    codes = (levels * _FSQ_BASIS).sum(axis=-1)
    codes[codes == 0] = (
        1  # −1 on every axis: 0 would say that it is missing, and 1 is a quarter off on one axis
    )
    codes[missing[..., 0]] = 0
    return np.expand_dims(codes.astype(np.uint16), axis), None


def _decode_fsq_torch(codes: Any, scale: Any, axis: int) -> Any:
    single = codes.select(axis, 0).long()
    table = single.new_tensor(0).float().new_tensor(_fsq_table())
    values = table[single].masked_fill_((single == 0).unsqueeze(-1), float("nan"))
    return values.movedim(-1, axis)


def _decode_fsq_onnx(codes: Any, scale: Any) -> tuple[Any, Any]:
    single, half = codes.cast("int64"), _FSQ_LEVELS // 2
    levels = (single / _FSQ_BASIS % _FSQ_LEVELS - half).cast("float32")
    return levels / half, ~single.equals(0)


# --- codes whose scale nobody published ---------------------------------------------------------------------


def decode_unscaled(codes: np.ndarray, scale: np.ndarray | None, axis: int) -> np.ndarray:
    """Codes as float32, as they are; a vector of zeros is missing. No scale is invented."""
    _no_scale("unscaled", scale)
    missing = (codes == 0).all(axis=axis, keepdims=True)
    values = codes.astype(np.float32)
    values[np.broadcast_to(missing, values.shape)] = np.nan
    return values


def encode_unscaled(vectors: np.ndarray, axis: int) -> tuple[np.ndarray, None]:
    """The inverse: rounded to uint16, all zeros where a band is not finite."""
    missing = _missing(vectors, axis)
    return np.clip(np.rint(np.where(missing, 0, vectors)), 0, 65535).astype(np.uint16), None


def _decode_unscaled_torch(codes: Any, scale: Any, axis: int) -> Any:
    values = codes.float()
    return values.masked_fill_((values == 0).all(dim=axis, keepdim=True), float("nan"))


def _decode_unscaled_onnx(codes: Any, scale: Any) -> tuple[Any, Any]:
    values = codes.cast("float32")
    return values, values.max() > 0


# --- 16-bit exports -----------------------------------------------------------------------------------------


def decode_offset_16(codes: np.ndarray, scale: np.ndarray | None, axis: int) -> np.ndarray:
    """Earth Engine's 16-bit exports of AlphaEarth to float32: q / 8192 − 1.

    A masked pixel is exported as 0 in every band, which would be a vector eight long: it is missing.
    """
    _no_scale("offset-16", scale)
    values = codes.astype(np.float32) * np.float32(1 / 8192) - np.float32(1)
    values[np.broadcast_to((codes == 0).all(axis=axis, keepdims=True), values.shape)] = np.nan
    return values


def encode_offset_16(vectors: np.ndarray, axis: int) -> tuple[np.ndarray, None]:
    """The inverse: rounded, all zeros where a band is not finite."""
    missing = _missing(vectors, axis)
    codes = np.clip(np.rint((np.where(missing, 0, vectors) + np.float32(1)) * np.float32(8192)), 0, 16384)
    first = np.moveaxis(codes, axis, 0)[0]  # −1 in every band: zeros would say that it is missing
    first[(codes == 0).all(axis=axis)] = 1
    return np.where(missing, 0, codes).astype(np.uint16), None


def _decode_offset_16_torch(codes: Any, scale: Any, axis: int) -> Any:
    values = codes.float()
    missing = (values == 0).all(dim=axis, keepdim=True)
    return (values * (1 / 8192) - 1).masked_fill_(missing, float("nan"))


def _decode_offset_16_onnx(codes: Any, scale: Any) -> tuple[Any, Any]:
    values = codes.cast("float32")
    return values * (1 / 8192) - 1, values.max() > 0


# --- signs --------------------------------------------------------------------------------------------------------


def decode_sign(codes: np.ndarray, scale: np.ndarray | None, axis: int) -> np.ndarray:
    """Signs as vectors of unit length: ±1 over the root of the number of bands; a 0 makes the vector missing."""
    _no_scale("sign", scale)
    values = codes.astype(np.float32) * np.float32(codes.shape[axis] ** -0.5)
    values[np.broadcast_to((codes == 0).any(axis=axis, keepdims=True), values.shape)] = np.nan
    return values


def encode_sign(vectors: np.ndarray, axis: int) -> tuple[np.ndarray, None]:
    """The inverse as far as signs go: 1 from zero on, −1 below, 0 where a band is not finite."""
    missing = _missing(vectors, axis)
    return np.where(missing, 0, np.where(vectors < 0, -1, 1)).astype(np.int8), None


def _decode_sign_torch(codes: Any, scale: Any, axis: int) -> Any:
    missing = (codes == 0).any(dim=axis, keepdim=True)
    return (codes.float() * codes.shape[axis] ** -0.5).masked_fill_(missing, float("nan"))


def _decode_sign_onnx(codes: Any, scale: Any) -> tuple[Any, Any]:
    values = codes.cast("float32")
    return values.unit(), ~values.equals(0).any()


def _encode_sign_onnx(vectors: Any) -> tuple[Any, Any]:
    positive = ~(vectors < 0)
    return (positive.cast("float32") * 2 - 1).cast("int8"), None


SIGNED_SQUARE = Codec(
    "signed-square",
    "int8",
    -128,
    decode_signed_square,
    encode_signed_square,
    _decode_signed_square_torch,
    power=2,
    factor=float(SQUARE_FACTOR),
    decode_onnx=_decode_signed_square_onnx,
    encode_onnx=_encode_signed_square_onnx,
)
PER_PIXEL_SCALE = Codec(
    "per-pixel-scale",
    "int8",
    None,
    decode_per_pixel_scale,
    encode_per_pixel_scale,
    _decode_per_pixel_scale_torch,
    scale="scale",
    power=1,
    decode_onnx=_decode_per_pixel_scale_onnx,
    encode_onnx=_encode_per_pixel_scale_onnx,
)
FSQ = Codec(
    "fsq",
    "uint16",
    0,
    decode_fsq,
    encode_fsq,
    _decode_fsq_torch,
    bands=tuple(f"axis{i}" for i in range(6)),
    decode_onnx=_decode_fsq_onnx,
)
UNSCALED = Codec(
    "unscaled",
    "uint16",
    0,
    decode_unscaled,
    encode_unscaled,
    _decode_unscaled_torch,
    decode_onnx=_decode_unscaled_onnx,
)
OFFSET_16 = Codec(
    "offset-16",
    "uint16",
    0,
    decode_offset_16,
    encode_offset_16,
    _decode_offset_16_torch,
    decode_onnx=_decode_offset_16_onnx,
)
SIGN = Codec(
    "sign",
    "int8",
    0,
    decode_sign,
    encode_sign,
    _decode_sign_torch,
    decode_onnx=_decode_sign_onnx,
    encode_onnx=_encode_sign_onnx,
)

CODECS = {codec.name: codec for codec in (SIGNED_SQUARE, PER_PIXEL_SCALE, FSQ, UNSCALED, OFFSET_16, SIGN)}


# --- one bit per band ---------------------------------------------------------------------------------------------


def pack_signs(vectors: np.ndarray) -> np.ndarray:
    """Signs of numbers as bits of 64-bit words: 1 where one is above zero.

    Parameters
    ----------
    vectors : ndarray (n, band)
        The last word is filled with zeros.

    Returns
    -------
    ndarray of uint64 (n, words)
        The same on every machine: the first band is the lowest bit of the first word.

    Examples
    --------
    >>> import numpy as np
    >>> pack_signs(np.array([[1.0, -1.0, 2.0]])).tolist()
    [[5]]
    """
    packed = np.packbits(vectors > 0, axis=1, bitorder="little")
    words = -(-vectors.shape[1] // 64)
    whole = np.zeros((len(packed), words * 8), np.uint8)
    whole[:, : packed.shape[1]] = packed
    return whole.view("<u8").astype(np.uint64, copy=False)
