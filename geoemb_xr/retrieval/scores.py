"""Similarity maps: a score for each vector."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr

from geoemb_xr.core import arrays, kernels, times
from geoemb_xr.core.codecs import SIGNED_SQUARE
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.model import (
    Codec,
    check_embedding,
    derived_attrs,
    is_encoded,
    product,
)
from geoemb_xr.core.notes import say
from geoemb_xr.execution import blocks, devices, vectors_on_device
from geoemb_xr.geo import places
from geoemb_xr.retrieval import queries as asking

How = Literal["mean", "max"]


Metric = Literal["cosine", "euclidean"]


_LONG_NAMES = {"cosine": "cosine similarity to the query", "euclidean": "distance to the query"}


def similarity(
    array: xr.DataArray,
    query: Any,
    *,
    how: How = "mean",
    metric: Metric = "cosine",
    time: times.TimeLike = None,
    crs: object = None,
    device: str = "cpu",
) -> xr.DataArray:
    """How similar every pixel is to a place, or to a vector. Lazy: the query's pixels too are read later.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Codes or vectors.
    query : (lon, lat), points, polygon or vector
        Points as :func:`geoemb_xr.geo.places.read_places` takes them: the pixels, or patches, they lie in.
        Polygons: all pixels, or patches, whose centre they hold. A vector ``(band,)`` or several ``(n, band)``:
        as they are; a DataArray of them is checked to be of the same product. Words, or a list of them, where the
        space has a text encoder.
    how : {"mean", "max"}
        The mean of the similarities to several queries, or the best.
    metric : {"cosine", "euclidean"}
        ``cosine`` of directions, 1 for the same one; for products without unit length too. ``euclidean`` is the
        distance, 0 for the same vector.
    time : year or date, optional
        The period of the array in which places are looked up; all of them by default.
    crs : CRS, optional
        CRS of points and polygons that bring none; longitude and latitude by default.
    device : str
        ``"cpu"``, ``"auto"`` for a GPU where there is one, or a device of torch such as ``"cuda:0"``. For one
        query processors keep up with the bus to a GPU; for many it is faster.

    Returns
    -------
    DataArray (…)
        float32, NaN where there is no data.

    Raises
    ------
    CoverageError
        If a point or polygon lies outside the array.
    ComparabilityError
        If the query is a vector of another product or version.
    EmbeddingError
        If a device is not there, when it is computed.
    ValueError
        For an unknown ``how`` or metric.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(32, 32)).emb.year(2018)
    >>> alike = da.emb.similarity((11.37, 47.25))
    >>> float(alike.max()) > 0.999
    True
    """
    check_embedding(array, "similarity")
    check_choice("how", how, ("mean", "max"))
    check_choice("metric", metric, _LONG_NAMES)
    devices.check_device(device)
    say_normalised(array, metric)
    query = query if crs is None else places.read_places(query, crs=crs)
    vectors = asking.query_vectors(array, query, time)
    prepared = _prepare(vectors, how, metric)
    return arrays.map_bands(
        of_block,
        array,
        arrays.codec_of(array) if is_encoded(array) else None,
        metric,
        prepared,
        how,
        device,
        dtype=np.float32,
        decode=False,
        name="similarity" if metric == "cosine" else "distance",
        attrs=derived_attrs(array, long_name=_LONG_NAMES[metric], units="1", metric=metric),
    )


def say_normalised(array: xr.DataArray, metric: str) -> None:
    """Note that cosines ignore the length of vectors, where that carries information."""
    if metric == "cosine" and not product(array.attrs["product"]).unit_norm:
        say(
            f"similarity normalises the vectors of {array.attrs['product']!r}, which have no unit length; "
            "metric='euclidean' compares them as they are"
        )


def of_block(
    data: np.ndarray,
    axis: int,
    scale: np.ndarray | None,
    codec: Codec | None,
    metric: str,
    queries: np.ndarray,
    how: str,
    device: str = "cpu",
) -> np.ndarray:
    """One block: codes of squares are compared as they are, others piece by piece once decoded."""
    place = devices.place_for(device, able=True)
    if place != "cpu":
        block = blocks.Block(data, axis, scale, codec)
        found = vectors_on_device.scores(block, place, queries, how=how, metric=metric)
        return found.reshape(tuple(np.delete(data.shape, axis)))
    if codec is not None and codec.name == SIGNED_SQUARE.name and metric == "cosine" and len(queries) == 1:
        return _cosine_squares(data, axis, queries[0])
    piece = _cosine_piece if metric == "cosine" else distances
    return blocks.piecewise(data, axis, scale, piece, codec, None, np.dtype(np.float32), queries, how)


def _prepare(vectors: Any, how: str, metric: str) -> Any:
    """Queries as one small parameter: of unit length, and averaged where only the mean is asked for."""
    if hasattr(vectors, "__dask_graph__"):
        import dask

        return dask.delayed(prepared, pure=True)(vectors, how, metric)
    return prepared(vectors, how, metric)


def prepared(vectors: np.ndarray, how: str, metric: str) -> np.ndarray:
    """Vectors that have data, of unit length for cosines, and averaged where only the mean is asked for."""
    rows = np.asarray(vectors, np.float64).reshape(-1, np.shape(vectors)[-1])
    rows = rows[np.isfinite(rows).all(axis=1)]
    if metric == "cosine":
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows[length[:, 0] > 0] / length[length[:, 0] > 0]
    if not len(rows):
        raise EmbeddingError("the query has no data: every pixel or vector of it is missing")
    if metric == "cosine" and how == "mean":  # the mean of cosines is the product with the mean direction
        rows = rows.mean(axis=0, keepdims=True)
    return rows.astype(np.float32)


def _cosine_piece(vectors: np.ndarray, queries: np.ndarray, how: str) -> np.ndarray:
    dots, squares = np.zeros((2, vectors.shape[1]), np.float32)
    if vectors.flags.c_contiguous or vectors.strides[1] == vectors.itemsize:
        _products_band_first(vectors, queries[0], dots, squares)
    else:
        _products_band_last(vectors.T, queries[0], dots, squares)
    if len(queries) > 1:
        dots = (queries @ vectors).max(axis=0)
    return np.asarray(dots / np.sqrt(np.where(squares > 0, squares, np.nan)))


def _cosine_squares(codes: np.ndarray, axis: int, query: np.ndarray) -> np.ndarray:
    """Cosines straight from codes q that mean q·|q|: their common factor cancels."""
    bands = kernels.as_bands(codes, axis)
    outer, _, inner = bands.shape
    cosines = np.empty((outer, inner), np.float32)
    if inner == 1:
        _squares_band_last(bands[:, :, 0], query, cosines[:, 0])
    else:
        for i in range(outer):
            _squares_band_first(bands[i], query, cosines[i])
    return cosines.reshape(tuple(np.delete(codes.shape, axis)))


@kernels.jit
def _squares_band_first(codes: Any, query: Any, out: Any) -> None:
    """Products of codes ``(band, n)`` with a query over their lengths, NaN where there is no data.

    Some thousand pixels at a time, so that sums stay in the cache; four bands at a time, so that they are loaded
    and stored once for four products.
    """
    bands, n = codes.shape
    squares, least = np.empty(4096, np.float32), np.empty(4096, np.int8)
    for start in range(0, n, 4096):
        piece = codes[:, start : start + 4096]
        some = piece.shape[1]
        dot, square = out[start : start + some], squares[:some]
        dot[:], square[:], least[:] = 0, 0, 0
        for k in range(0, bands - 3, 4):
            w0, w1, w2, w3 = query[k], query[k + 1], query[k + 2], query[k + 3]
            for i in range(some):
                v0, v1 = np.float32(piece[k, i]), np.float32(piece[k + 1, i])
                v2, v3 = np.float32(piece[k + 2, i]), np.float32(piece[k + 3, i])
                v0, v1, v2, v3 = v0 * abs(v0), v1 * abs(v1), v2 * abs(v2), v3 * abs(v3)
                dot[i] += w0 * v0 + w1 * v1 + w2 * v2 + w3 * v3
                square[i] += v0 * v0 + v1 * v1 + v2 * v2 + v3 * v3
        for k in range(bands - bands % 4, bands):
            for i in range(some):
                v0 = np.float32(piece[k, i])
                v0 = v0 * abs(v0)
                dot[i] += query[k] * v0
                square[i] += v0 * v0
        for k in range(bands):
            for i in range(some):
                least[i] = min(least[i], piece[k, i])
        for i in range(some):
            there = least[i] > -128 and square[i] > 0
            dot[i] = dot[i] / np.sqrt(square[i]) if there else np.float32(np.nan)


@_squares_band_first.in_numpy
def _squares_band_first_numpy(codes: Any, query: Any, out: Any) -> None:
    for start in range(0, codes.shape[1], 16_384):  # so that what is float32 stays small
        piece = codes[:, start : start + 16_384]
        value = piece.astype(np.float32)
        value *= np.abs(value)
        square = np.einsum("ij,ij->j", value, value)
        there = (piece.min(axis=0) > -128) & (square > 0)
        own = out[start : start + 16_384]
        np.divide(query @ value, np.sqrt(square), out=own, where=there)
        own[~there] = np.nan


@kernels.jit
def _squares_band_last(codes: Any, query: Any, out: Any) -> None:
    for i in range(codes.shape[0]):
        dot, square, least = np.float32(0), np.float32(0), np.int32(0)
        for k in range(codes.shape[1]):
            code = np.int32(codes[i, k])
            value = np.float32(code * abs(code))
            dot += query[k] * value
            square += value * value
            least = min(least, code)
        there = least > -128 and square > 0
        out[i] = dot / np.sqrt(square) if there else np.float32(np.nan)


@_squares_band_last.in_numpy
def _squares_band_last_numpy(codes: Any, query: Any, out: Any) -> None:
    _squares_band_first_numpy(codes.T, query, out)


@kernels.jit
def _products_band_first(vectors: Any, query: Any, dots: Any, squares: Any) -> None:
    """Add products with a query, and squares of lengths, of vectors ``(band, n)``: one pass over both."""
    for k in range(vectors.shape[0]):
        weight = query[k]
        for i in range(vectors.shape[1]):
            value = vectors[k, i]
            dots[i] += weight * value
            squares[i] += value * value


@kernels.jit
def _products_band_last(vectors: Any, query: Any, dots: Any, squares: Any) -> None:
    for i in range(vectors.shape[0]):
        dot, square = np.float32(0), np.float32(0)
        for k in range(vectors.shape[1]):
            dot += query[k] * vectors[i, k]
            square += vectors[i, k] * vectors[i, k]
        dots[i], squares[i] = dot, square


@_products_band_first.in_numpy
def _products_band_first_numpy(vectors: Any, query: Any, dots: Any, squares: Any) -> None:
    dots += query @ vectors
    squares += np.einsum("ij,ij->j", vectors, vectors)


@_products_band_last.in_numpy
def _products_band_last_numpy(vectors: Any, query: Any, dots: Any, squares: Any) -> None:
    dots[:], squares[:] = vectors @ query, np.einsum("ij,ij->i", vectors, vectors)


def distances(vectors: np.ndarray, queries: np.ndarray, how: str) -> np.ndarray:
    """Distances as differences, a query at a time: ‖v‖² − 2 v·q + ‖q‖² would lose the small ones."""
    found = np.empty((len(queries), vectors.shape[1]), np.float32)
    for query, out in zip(queries, found, strict=True):
        gap = vectors - query[:, None]
        out[:] = np.sqrt(np.add.reduce(gap * gap, axis=0, dtype=np.float64))
    return np.asarray(found.mean(axis=0, dtype=np.float64) if how == "mean" else found.min(axis=0))
