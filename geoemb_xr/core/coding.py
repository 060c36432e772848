"""Compiled loops from codes to vectors and back, and to unit length.

Some thousand pixels are worked on at a time, so that what a loop over the bands needs again is still in the cache.
Codes and vectors are ``(outer, band, inner)``, C-contiguous, as :func:`geoemb_xr.core.kernels.as_bands` gives them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geoemb_xr.core import buffers
from geoemb_xr.core.kernels import as_bands, jit, jit_exact

#: Pixels that are worked on at a time: 64 float32 bands of them fit a second-level cache.
_PIECE = 1024


# --- decoding -------------------------------------------------------------------------------------------------


def decode_square(codes: np.ndarray, axis: int, nodata: int, factor: np.float32) -> np.ndarray:
    """``codes · |codes| · factor`` as float32, NaN in all bands where one is ``nodata``, the smallest code.

    The square is one of integers, so that a value is rounded once and has the same bits in any loop: of
    floats, "reassoc" would let the compiler multiply by the factor first.
    """
    bands = as_bands(codes, axis)
    out = buffers.empty(bands.shape, np.float32)
    if bands.shape[2] == 1:
        _decode_square_last(bands.reshape(bands.shape[:2]), nodata, factor, out.reshape(bands.shape[:2]))
    else:
        _decode_square_first(bands, nodata, factor, out)
    return out.reshape(codes.shape)


@jit
def _decode_square_first(codes: Any, nodata: Any, factor: Any, out: Any) -> None:
    n, bands, m = codes.shape
    least, share = np.empty(_PIECE, np.int8), np.empty(_PIECE, np.float32)
    for i in range(n):
        for start in range(0, m, _PIECE):
            size = min(_PIECE, m - start)
            _find_least(codes, i, start, size, least)
            for j in range(size):
                share[j] = np.float32(np.nan) if least[j] == nodata else factor
            for b in range(bands):
                row, vectors = codes[i, b, start : start + size], out[i, b, start : start + size]
                for j in range(size):
                    value = np.int32(row[j])
                    vectors[j] = np.float32(value * abs(value)) * share[j]


@_decode_square_first.in_numpy_bitwise
def _decode_square_first_numpy(codes: Any, nodata: Any, factor: Any, out: Any) -> None:
    value = codes.astype(np.int32)
    value *= np.abs(value)
    np.multiply(value, factor, out=out, dtype=np.float32, casting="unsafe")
    out[np.broadcast_to((codes == nodata).any(axis=1, keepdims=True), out.shape)] = np.nan


@jit
def decode_square_less(codes: Any, nodata: Any, factor: Any, shift: Any, out: Any, valid: Any) -> None:
    """Decode ``(band, n)`` less a value per band, and say which vectors are valid; the others become zeros."""
    bands, n = codes.shape
    valid[:] = True
    for b in range(bands):
        for j in range(n):
            valid[j] &= codes[b, j] != nodata
    for b in range(bands):
        less = shift[b]
        for j in range(n):
            value = np.float32(codes[b, j])
            out[b, j] = value * abs(value) * factor - less
    if not valid.all():
        for b in range(bands):
            for j in range(n):
                out[b, j] = out[b, j] if valid[j] else np.float32(0)


@decode_square_less.in_numpy
def _decode_square_less_numpy(codes: Any, nodata: Any, factor: Any, shift: Any, out: Any, valid: Any) -> None:
    valid[:] = (codes != nodata).all(axis=0)
    value = codes.astype(np.float32)
    np.multiply(value * np.abs(value), factor, out=out)
    out -= shift[:, None]
    out[:, ~valid] = 0


@jit
def _decode_square_last(codes: Any, nodata: Any, factor: Any, out: Any) -> None:
    n, bands = codes.shape
    for i in range(n):
        least = np.int32(0)  # LLVM vectorises a minimum, not a search
        for b in range(bands):
            value = np.int32(codes[i, b])
            least = min(least, value)
            out[i, b] = np.float32(value * abs(value)) * factor
        if least == nodata:
            for b in range(bands):
                out[i, b] = np.nan


@_decode_square_last.in_numpy_bitwise
def _decode_square_last_numpy(codes: Any, nodata: Any, factor: Any, out: Any) -> None:
    _decode_square_first_numpy(codes, nodata, factor, out)


def scale_codes(codes: np.ndarray, scale: np.ndarray, out: np.ndarray) -> None:
    """``out = codes * scale`` over ``(outer, band, inner)`` and ``(outer, inner)``; NaN without a scale.

    A scale that is not finite, or is 0, marks a pixel that was never embedded.
    """
    if codes.shape[2] == 1:
        _scale_rows(codes[..., 0], scale[:, 0], out[..., 0])
    else:
        _scale_planes(codes, scale, out)


@jit
def _scale_planes(codes: Any, scale: Any, out: Any) -> None:
    n, bands, m = codes.shape
    share = np.empty(_PIECE, np.float32)
    for i in range(n):
        for start in range(0, m, _PIECE):
            size = min(_PIECE, m - start)
            for j in range(size):
                s = scale[i, start + j]
                # isfinite is s - s == 0, which reassociation may fold
                share[j] = s if abs(s) < np.inf and s != 0 else np.float32(np.nan)
            for b in range(bands):
                row, vectors = codes[i, b, start : start + size], out[i, b, start : start + size]
                for j in range(size):
                    vectors[j] = row[j] * share[j]


@_scale_planes.in_numpy_bitwise
def _scale_planes_numpy(codes: Any, scale: Any, out: Any) -> None:
    there = np.isfinite(scale) & (scale != 0)
    np.multiply(codes, np.where(there, scale, np.float32(np.nan))[:, None], out=out)


@jit
def _scale_rows(codes: Any, scale: Any, out: Any) -> None:
    n, bands = codes.shape
    for i in range(n):
        s = scale[i]
        share = s if abs(s) < np.inf and s != 0 else np.float32(np.nan)
        for b in range(bands):
            out[i, b] = codes[i, b] * share


@_scale_rows.in_numpy_bitwise
def _scale_rows_numpy(codes: Any, scale: Any, out: Any) -> None:
    _scale_planes_numpy(codes[..., None], scale[:, None], out[..., None])


# --- encoding, and unit length ----------------------------------------------------------------------------------


def long_rows(*blocks: np.ndarray) -> tuple[np.ndarray, ...]:
    """Blocks ``(outer, band, inner)`` with the longer of the two other dimensions last, as views."""
    if blocks[0].shape[2] == 1:  # band-last
        return tuple(block.transpose(2, 1, 0) for block in blocks)
    return blocks


@jit_exact
def encode_square(vectors: Any, codes: Any) -> None:
    """``rint(√|x| · 127.5)`` with the sign of x, at most ±127; −128 in all bands where one is not finite.

    Both are ``(outer, band, inner)``, float32 and int8.
    """
    n, bands, m = vectors.shape
    lost = np.empty(_PIECE, np.float32)
    for i in range(n):
        for start in range(0, m, _PIECE):
            size = min(_PIECE, m - start)
            _find_lost(vectors, i, start, size, lost)
            for b in range(bands):
                row, coded = vectors[i, b, start : start + size], codes[i, b, start : start + size]
                for j in range(size):
                    root = np.rint(np.sqrt(abs(row[j])) * np.float32(127.5))
                    root = root if root < np.float32(127) else np.float32(127)
                    signed = np.copysign(root, row[j])
                    coded[j] = np.int8(np.int32(signed if lost[j] == 0 else np.float32(-128)))


@encode_square.in_numpy
def _encode_square_numpy(vectors: Any, codes: Any) -> None:
    there = np.isfinite(vectors).all(axis=1, keepdims=True)
    root = np.sqrt(np.abs(vectors), dtype=np.float32) * np.float32(127.5)
    root = np.where(there, np.minimum(np.rint(root, out=root), np.float32(127)), np.float32(0))
    codes[...] = np.where(there, np.copysign(root, vectors), np.float32(-128))


@jit_exact
def encode_scaled(vectors: Any, codes: Any, scale: Any) -> None:
    """``rint(x / scale)`` with ``scale = max|x| / 127`` over the bands; 0 and a NaN scale where one is not finite.

    Vectors and codes are ``(outer, band, inner)``, scales ``(outer, 1, inner)``.
    """
    n, bands, m = vectors.shape
    lost = np.empty(_PIECE, np.float32)
    divisor = np.empty(_PIECE, np.float32)
    for i in range(n):
        for start in range(0, m, _PIECE):
            size = min(_PIECE, m - start)
            _find_lost(vectors, i, start, size, lost)
            divisor[:] = 0
            for b in range(bands):
                row = vectors[i, b, start : start + size]
                for j in range(size):
                    length = abs(row[j])
                    divisor[j] = length if length > divisor[j] else divisor[j]
            for j in range(size):
                divisor[j] /= np.float32(127)
                scale[i, 0, start + j] = divisor[j] if lost[j] == 0 else np.float32(np.nan)
                divisor[j] = divisor[j] if divisor[j] > 0 else np.float32(1)
            for b in range(bands):
                row, coded = vectors[i, b, start : start + size], codes[i, b, start : start + size]
                for j in range(size):
                    code = np.rint(row[j] / divisor[j])
                    code = code if code < np.float32(127) else np.float32(127)
                    code = code if code > np.float32(-127) else np.float32(-127)
                    coded[j] = np.int8(np.int32(code if lost[j] == 0 else np.float32(0)))


@encode_scaled.in_numpy
def _encode_scaled_numpy(vectors: Any, codes: Any, scale: Any) -> None:
    there = np.isfinite(vectors).all(axis=1, keepdims=True)
    known = np.where(there, vectors, np.float32(0))
    divisor = np.abs(known).max(axis=1, keepdims=True) / np.float32(127)
    scale[...] = np.where(there, divisor, np.float32(np.nan))
    known /= np.where(divisor > 0, divisor, np.float32(1))
    codes[...] = np.clip(np.rint(known, out=known), -127, 127)


@jit_exact
def unit_square(codes: Any, nodata: Any, factor: Any, out: Any) -> None:
    """Decode signed squares and divide them by their length: the same bits as one after the other."""
    n, bands, m = codes.shape
    least, share, total = (
        np.empty(_PIECE, np.int8),
        np.empty(_PIECE, np.float32),
        np.empty(_PIECE, np.float64),
    )
    for i in range(n):
        for start in range(0, m, _PIECE):
            size = min(_PIECE, m - start)
            _find_least(codes, i, start, size, least)
            total[:] = 0
            for b in range(bands):
                row, vectors = codes[i, b, start : start + size], out[i, b, start : start + size]
                for j in range(size):
                    value = np.int32(row[j])
                    vectors[j] = np.float32(value * abs(value)) * factor
                    total[j] += np.float64(vectors[j]) * np.float64(vectors[j])
            for j in range(size):
                there = least[j] != nodata and total[j] > 0
                share[j] = 1 / np.sqrt(total[j]) if there else np.nan
            for b in range(bands):
                vectors = out[i, b, start : start + size]
                for j in range(size):
                    vectors[j] *= share[j]


@unit_square.in_numpy
def _unit_square_numpy(codes: Any, nodata: Any, factor: Any, out: Any) -> None:
    _decode_square_first_numpy(codes, nodata, factor, out)
    _divide_planes_by_length_numpy(out, out)


def divide_by_length(vectors: np.ndarray, out: np.ndarray) -> None:
    """Vectors ``(outer, band, inner)`` over their lengths, NaN where that is 0; ``out`` may be the vectors.

    Squares are summed in float64, in the order of the bands wherever these lie in memory: bits do not depend on it.
    """
    if vectors.shape[2] == 1:
        _divide_rows_by_length(vectors[..., 0], out[..., 0])
    else:
        _divide_planes_by_length(vectors, out)


@jit_exact
def _divide_planes_by_length(vectors: Any, out: Any) -> None:
    n, bands, m = vectors.shape
    total = np.empty(_PIECE, np.float64)
    factor = np.empty(_PIECE, np.float32)
    for i in range(n):
        for start in range(0, m, _PIECE):
            size = min(_PIECE, m - start)
            total[:] = 0
            for b in range(bands):
                for j in range(size):
                    value = np.float64(vectors[i, b, start + j])
                    total[j] += value * value
            for j in range(size):
                factor[j] = 1 / np.sqrt(total[j]) if total[j] > 0 else np.nan
            for b in range(bands):
                for j in range(size):
                    out[i, b, start + j] = vectors[i, b, start + j] * factor[j]


@_divide_planes_by_length.in_numpy
def _divide_planes_by_length_numpy(vectors: Any, out: Any) -> None:
    total = np.zeros((len(vectors), 1, vectors.shape[2]))
    for b in range(vectors.shape[1]):  # in the order of the bands, as the loop adds them
        total[:, 0] += vectors[:, b].astype(np.float64) ** 2
    length = np.sqrt(np.where(total > 0, total, np.nan))
    with np.errstate(invalid="ignore"):  # of infinities, if there are any
        np.multiply(vectors, (1 / length).astype(np.float32), out=out)


@jit_exact
def _divide_rows_by_length(vectors: Any, out: Any) -> None:
    n, bands = vectors.shape
    for i in range(n):
        total = 0.0
        for b in range(bands):
            value = np.float64(vectors[i, b])
            total += value * value
        factor = np.float32(1 / np.sqrt(total) if total > 0 else np.nan)
        for b in range(bands):
            out[i, b] = vectors[i, b] * factor


@_divide_rows_by_length.in_numpy
def _divide_rows_by_length_numpy(vectors: Any, out: Any) -> None:
    _divide_planes_by_length_numpy(vectors[..., None], out[..., None])


# Parts of loops take whole arrays: a part of the last two dimensions would not be known to be contiguous.


@jit_exact
def _find_lost(vectors: Any, i: Any, start: Any, size: Any, lost: Any) -> None:
    """Say which vectors of a piece are not finite in every band: NaN there, else 0 (as sums of x · 0)."""
    lost[:] = 0
    for b in range(vectors.shape[1]):
        row = vectors[i, b, start : start + size]
        for j in range(size):
            lost[j] += row[j] * np.float32(0)


@jit_exact
def _find_least(codes: Any, i: Any, start: Any, size: Any, least: Any) -> None:
    """Find the least code of each vector of a piece, or 0: what marks a missing one is the least of all codes."""
    least[:] = 0
    for b in range(codes.shape[1]):
        row = codes[i, b, start : start + size]
        for j in range(size):
            least[j] = min(least[j], row[j])
