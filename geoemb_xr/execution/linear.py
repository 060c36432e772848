"""Linear functions of vectors: scores, components, products with centres; straight from codes where they can be.

Piece by piece through BLAS a block is decoded, multiplied and looked at in passes of their own, each through the
cache. From signed-square codes 256 pixels stay in the first-level cache from the codes to the sums: a block takes
half the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core import arrays, buffers, kernels
from geoemb_xr.core.codecs import SIGNED_SQUARE, SQUARE_FACTOR
from geoemb_xr.core.model import Codec, is_encoded
from geoemb_xr.execution.blocks import Block, put_piece
from geoemb_xr.execution.threads import one_thread

#: Pixels whose sums are made before something is done with them: ten float32 rows of them fit a second-level cache.
PIECE = 8192


#: Gives the weights ``(k, band)`` and the bias ``(k,)`` of a model, float32.
Axes = Callable[[Any], tuple[np.ndarray, np.ndarray]]


def map_linear(
    axes: Axes,
    then: Callable[..., np.ndarray],
    array: xr.DataArray,
    model: Any,
    *params: Any,
    dtype: Any,
    out: tuple[str, Sequence[Any]],
    name: str,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Apply ``then(sums, model, *params)`` to linear functions of vectors, piece by piece. Lazy.

    Parameters
    ----------
    axes : callable
        Gives the weights and the bias of the model.
    then : callable
        Takes sums ``(k, n)``, NaN without data, which it may change. Returns ``(j, n)``.
    array : DataArray (…, band, …)
        Codes or vectors.
    model : object
        A fitted model.
    *params : object
        Arguments that are passed on.
    dtype, out, name, attrs
        See :func:`geoemb_xr.core.arrays.map_bands`.
    """
    import dask

    codec = arrays.codec_of(array) if is_encoded(array) else None
    return arrays.map_bands(
        _map_block,
        array,
        axes,
        then,
        codec,
        len(out[1]),
        np.dtype(dtype),
        dask.delayed(model, pure=True),
        *params,
        dtype=dtype,
        out=out,
        decode=False,
        name=name,
        attrs=attrs,
    )


def _map_block(
    data: np.ndarray,
    axis: int,
    scale: np.ndarray | None,
    axes: Axes,
    then: Callable[..., np.ndarray],
    codec: Codec | None,
    length: int,
    dtype: np.dtype[Any],
    model: Any,
    *params: Any,
) -> np.ndarray:
    out = buffers.empty((*data.shape[:axis], length, *data.shape[axis + 1 :]), dtype)
    rows = out.reshape(math.prod(data.shape[:axis]), length, -1)
    for where, sums in sums_by_piece(Block(data, axis, scale, codec), *axes(model)):
        put_piece(then(sums, model, *params), rows, where)
    return out


def can_skip_decoding(codec: Codec | None, bands_last: bool) -> bool:
    """Whether sums are made straight from codes: of signed squares, bands first."""
    return codec == SIGNED_SQUARE and not bands_last  # by value: on a worker it is another object


def sums_by_piece(block: Block, weights: np.ndarray, bias: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Sums ``weights @ vectors + bias`` of some thousand pixels at a time, NaN without data; and which pixels.

    All pieces lie in one buffer, the next one over the last. The slice counts pixels in C order.
    """
    bands = kernels.as_bands(block.data, block.axis)
    outer, _, inner = bands.shape
    if not can_skip_decoding(block.codec, inner == 1):
        with one_thread():
            for where, vectors in block.pieces():
                sums = weights @ vectors
                sums += bias[:, None]
                yield where, sums
        return
    weights = np.ascontiguousarray(weights * SQUARE_FACTOR)  # on q·|q|, which is exact in float32
    memory = np.empty(len(weights) * min(PIECE, inner), np.float32)
    for i in range(outer):
        for start in range(0, inner, PIECE):
            n = min(PIECE, inner - start)
            sums = memory[: len(weights) * n].reshape(-1, n)
            sum_squares(bands[i], start, weights, bias, sums)
            yield slice(i * inner + start, i * inner + start + n), sums


@kernels.jit
def sum_squares(codes: Any, first: Any, weights: Any, bias: Any, out: Any) -> None:
    """``weights`` (k, band) times signed squares of ``codes`` (band, n) from pixel ``first`` on, plus ``bias``.

    ``out`` is (k, m), NaN where a band is missing.
    """
    rows, n = out.shape
    sums, x = np.empty((rows, 256), np.float32), np.empty((4, 256), np.float32)
    least = np.empty(256, np.int8)
    for start in range(0, n, 256):
        m = min(256, n - start)
        _sum_piece(codes, first + start, m, weights, bias, x, least, sums)
        for k in range(rows):
            total = sums[k]
            for j in range(m):
                out[k, start + j] = total[j] if least[j] > -128 else np.float32(np.nan)


@sum_squares.in_numpy
def _sum_squares_numpy(codes: Any, first: Any, weights: Any, bias: Any, out: Any) -> None:
    piece = codes[:, first : first + out.shape[1]]
    value = piece.astype(np.float32)
    value *= np.abs(value)
    np.matmul(weights, value, out=out)
    out += bias[:, None]
    out[:, (piece == -128).any(axis=0)] = np.nan


@kernels.jit
def label_squares(codes: Any, weights: Any, bias: Any, values: Any, unit: Any, out: Any) -> None:
    """The value of the largest sum of each pixel: ``codes`` (band, n) to ``out`` (n,).

    0 where a band is missing, and with ``unit`` where all are zeros.
    """
    bands, n = codes.shape
    rows = len(weights)
    sums, x = np.empty((rows, 256), np.float32), np.empty((4, 256), np.float32)
    least = np.empty(256, np.int8)
    for start in range(0, n, 256):
        m = min(256, n - start)
        _sum_piece(codes, start, m, weights, bias, x, least, sums)
        if unit:
            for j in range(m):
                b = 0
                while b < bands and codes[b, start + j] == 0:
                    b += 1
                if b == bands:
                    least[j] = -128
        for j in range(m):
            best, at = sums[0, j], 0
            for k in range(1, rows):
                if sums[k, j] > best:
                    best, at = sums[k, j], k
            out[start + j] = values[at] if least[j] > -128 else 0


@label_squares.in_numpy
def _label_squares_numpy(codes: Any, weights: Any, bias: Any, values: Any, unit: Any, out: Any) -> None:
    for start in range(0, codes.shape[1], 4096):
        piece = codes[:, start : start + 4096]
        value = piece.astype(np.float32)
        value *= np.abs(value)
        missing = (piece == -128).any(axis=0)
        if unit:
            missing |= ~piece.any(axis=0)
        best = values[(weights @ value + bias[:, None]).argmax(axis=0)]
        out[start : start + 4096] = np.where(missing, 0, best)


@kernels.jit
def _sum_piece(
    codes: Any, start: Any, m: Any, weights: Any, bias: Any, x: Any, least: Any, sums: Any
) -> None:
    """Sums (k, 256) of ``m`` pixels, and the least code of each."""
    bands, rows = codes.shape[0], len(weights)
    least[:] = 0
    for k in range(rows):
        sums[k, :] = bias[k]
    zero = np.float32(0)
    for b in range(0, bands, 4):  # four bands a pass over the sums; beyond the last, that one with no weight
        b1, b2, b3 = min(b + 1, bands - 1), min(b + 2, bands - 1), min(b + 3, bands - 1)
        q0, q1 = codes[b, start : start + m], codes[b1, start : start + m]
        q2, q3 = codes[b2, start : start + m], codes[b3, start : start + m]
        x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
        for j in range(m):
            v0, v1, v2, v3 = np.float32(q0[j]), np.float32(q1[j]), np.float32(q2[j]), np.float32(q3[j])
            x0[j], x1[j], x2[j], x3[j] = v0 * abs(v0), v1 * abs(v1), v2 * abs(v2), v3 * abs(v3)
        for j in range(m):
            least[j] = min(min(min(q0[j], q1[j]), min(q2[j], q3[j])), least[j])
        for k in range(rows):
            w0, w1 = weights[k, b], weights[k, b1] if b + 1 < bands else zero
            w2, w3 = weights[k, b2] if b + 2 < bands else zero, weights[k, b3] if b + 3 < bands else zero
            total = sums[k]
            for j in range(m):
                total[j] += (w0 * x0[j] + w1 * x1[j]) + (w2 * x2[j] + w3 * x3[j])
