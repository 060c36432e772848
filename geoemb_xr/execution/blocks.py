"""Blocks of an array as vectors: in pieces that fit the cache, or as a sample of pixels.

What fits or applies a model runs in tasks of one block. A block of 512² pixels is 67 MB once it is decoded, far
beyond a cache; decoded in pieces of some thousand pixels, vectors are used while they are still there.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from geoemb_xr.core import arrays, buffers, coding, kernels
from geoemb_xr.core.codecs import SIGNED_SQUARE, SQUARE_FACTOR
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.fitted import decoded_bands
from geoemb_xr.core.model import (
    BAND,
    Codec,
    check_band_chunk,
    check_comparable,
    check_embedding,
    comparability_key,
    is_encoded,
)
from geoemb_xr.execution import progress
from geoemb_xr.execution.computing import compute, computed
from geoemb_xr.execution.hashes import mixed
from geoemb_xr.execution.threads import one_blas_thread, one_thread

#: Pixels a piece: 64 float32 bands of them are half a megabyte, half an L2 cache.
PIECE = 2048


#: Sides of the blocks that an array in memory is worked in.
_SIDES = {"time": 1, "y": 512, "x": 512, "location": 65_536}


#: Added before pixel coordinates are floored: no published grid has its centres at this fraction of a pixel.
_OFF_GRID = 1 / np.pi


T = TypeVar("T")


@dataclass(frozen=True)
class Block:
    """One block of an array, as a task receives it.

    Parameters
    ----------
    data : ndarray (…, band, …)
        Codes or vectors.
    axis : int
        Position of the band axis.
    scale : ndarray, optional
        Scales of codes that have one per pixel.
    codec : Codec, optional
        Codec of codes.
    fields : tuple of ndarray
        A value per pixel, such as a mask; dimensions as those of ``data`` without ``band``.
    keys : tuple of ndarray of uint64
        Numbers that tell the pixels' places along each of those dimensions, whatever the block.
    start : tuple of int
        Where the block begins along each of those dimensions.
    """

    data: np.ndarray
    axis: int
    scale: np.ndarray | None = None
    codec: Codec | None = None
    fields: tuple[np.ndarray, ...] = ()
    keys: tuple[np.ndarray, ...] = ()
    start: tuple[int, ...] = ()

    @property
    def pixels(self) -> int:
        """How many."""
        return int(self.data.size // max(self.data.shape[self.axis], 1))

    def _decode(self, piece: np.ndarray, axis: int, where: Any) -> np.ndarray:
        if self.codec is None:
            return piece if piece.dtype == np.float32 else piece.astype(np.float32)
        scale = None if self.scale is None else self.scale.reshape(-1)[where]
        return self.codec.decode(piece, scale, axis)

    def pieces(self, size: int = PIECE) -> Iterator[tuple[slice, np.ndarray]]:
        """Decoded vectors ``(band, n)`` of some thousand pixels at a time, and which pixels they are.

        The slice counts pixels in C order. Memory is in the order of the block: ``(band, n)`` may be the
        transpose of what lies there.
        """
        bands = kernels.as_bands(self.data, self.axis)
        outer, _, inner = bands.shape
        if inner == 1:  # band-last
            for start in range(0, outer, size):
                where = slice(start, min(start + size, outer))
                yield where, self._decode(bands[where, :, 0], 1, where).T
            return
        for i in range(outer):
            for start in range(0, inner, size):
                stop = min(start + size, inner)
                where = slice(i * inner + start, i * inner + stop)
                yield where, self._decode(bands[i, :, start:stop], 0, where)

    def centred(self, shift: np.ndarray, size: int = PIECE) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Yield the :meth:`pieces` less ``shift``, and which vectors have data: those without are zeros.

        All pieces lie in one buffer, the next one over the last: memory that is new to the process costs more
        than the arithmetic does.
        """
        bands = kernels.as_bands(self.data, self.axis)
        outer, _, inner = bands.shape
        if self.codec is not None and self.codec.name == SIGNED_SQUARE.name and inner > 1:
            size = min(size, inner)
            buffer, valid = np.empty((len(shift), size), np.float32), np.empty(size, np.bool_)
            for i in range(outer):
                for start in range(0, inner, size):
                    codes = bands[i, :, start : start + size]
                    n = codes.shape[1]
                    coding.decode_square_less(codes, -128, SQUARE_FACTOR, shift, buffer[:, :n], valid[:n])
                    yield slice(i * inner + start, i * inner + start + n), buffer[:, :n], valid[:n]
            return
        memory = np.empty(len(shift) * size, np.float32)
        for where, vectors in self.pieces(size):
            out = memory[: vectors.size]
            last = vectors.strides[0] < vectors.strides[1]
            out = out.reshape(-1, len(shift)).T if last else out.reshape(len(shift), -1)
            with np.errstate(invalid="ignore"):  # infinities, if there are any
                np.subtract(vectors, shift[:, None], out=out)
                valid = np.isfinite(np.ones(len(out), np.float32) @ out)
            if not valid.all():
                out[:, ~valid] = 0
            yield where, out, valid

    def some_mean(self) -> np.ndarray:
        """The mean of the first piece that has data, float32 ``(band,)``; zeros if none has."""
        vectors = np.empty((0, 0), np.float32)
        for _, vectors in self.pieces():
            usable = np.isfinite(vectors).all(axis=0)
            if usable.any():
                return np.asarray(vectors[:, usable].mean(axis=1, dtype=np.float64), np.float32)
        return np.zeros(len(vectors), np.float32)

    def at(self, pixels: np.ndarray) -> np.ndarray:
        """Decoded vectors ``(n, band)`` of pixels given by their numbers in C order."""
        bands = kernels.as_bands(self.data, self.axis)
        outer, inner = np.divmod(pixels, bands.shape[2])
        return self._decode(bands[outer, :, inner], 1, pixels)

    def hashes(self, seed: int) -> np.ndarray:
        """A random number per pixel, uint64, in C order: a function of its place and time, not of the block."""
        if not self.keys:
            raise ValueError("this block came without keys, so its pixels have no hash")
        total = np.zeros((1,) * len(self.keys), np.uint64)
        salt = mixed(np.array([seed], np.int64).view(np.uint64))
        for axis, key in enumerate(self.keys):
            own = mixed(key + salt)
            total = total + own.reshape([-1 if i == axis else 1 for i in range(len(self.keys))])
        return mixed(np.ascontiguousarray(total).reshape(-1))


# --- a function of vectors, lazily --------------------------------------------------------------------------


def map_pieces(
    function: Callable[..., np.ndarray],
    array: xr.DataArray,
    *params: Any,
    dtype: Any,
    out: tuple[str, Sequence[Any]] | None = None,
    name: str,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Apply ``function(vectors, *params)`` to decoded vectors ``(band, n)``, piece by piece, lazily.

    Parameters
    ----------
    function : callable
        Returns ``(n,)``, or ``(k, n)`` with ``out``. Missing vectors are NaN in every band.
    array : DataArray (…, band, …)
        Codes or vectors.
    *params : object
        Arguments that are passed on; a model as one ``dask.delayed(model, pure=True)``.
    dtype, out, name, attrs
        See :func:`geoemb_xr.core.arrays.map_bands`.
    """
    codec = arrays.codec_of(array) if is_encoded(array) else None
    length = None if out is None else len(out[1])
    return arrays.map_bands(
        piecewise,
        array,
        function,
        codec,
        length,
        np.dtype(dtype),
        *params,
        dtype=dtype,
        out=out,
        decode=False,
        name=name,
        attrs=attrs,
    )


def piecewise(
    data: np.ndarray,
    axis: int,
    scale: np.ndarray | None,
    function: Callable[..., np.ndarray],
    codec: Codec | None,
    length: int | None,
    dtype: np.dtype[Any],
    *params: Any,
) -> np.ndarray:
    """Process one block for :func:`map_pieces`; ``length`` is None if the result has no bands."""
    block = Block(data, axis, scale, codec)
    rest = tuple(np.delete(data.shape, axis))
    if length is None:
        flat = buffers.empty((block.pixels,), dtype)
        with one_thread():
            for where, vectors in block.pieces():
                flat[where] = function(vectors, *params)
        return flat.reshape(rest)
    shape = (*data.shape[:axis], length, *data.shape[axis + 1 :])
    out = buffers.empty(shape, dtype)
    bands = out.reshape(int(np.prod(shape[:axis], dtype=np.int64)), length, -1)
    with one_thread():
        for where, vectors in block.pieces():
            put_piece(function(vectors, *params), bands, where)
    return out


def put_piece(result: np.ndarray, bands: np.ndarray, where: slice) -> None:
    """Write what a piece became, ``(k, n)``, into the ``(outer, k, inner)`` of its block."""
    inner = bands.shape[2]
    if inner == 1:
        bands[where, :, 0] = result.T
    else:
        i, start = divmod(where.start, inner)
        bands[i, :, start : start + result.shape[1]] = result


# --- every block on its own ---------------------------------------------------------------------------------


def per_block(
    function: Callable[..., Any],
    array: xr.DataArray,
    *params: Any,
    fields: Sequence[xr.DataArray | None] = (),
    keyed: bool = True,
) -> list[Any]:
    """``function(block, *params)`` for every :class:`Block`, delayed.

    Parameters
    ----------
    function : callable
        Returns something small, to be merged.
    array : DataArray (…, band, …)
        Codes or vectors; one in memory is cut into blocks.
    *params : object
        Arguments that are passed on.
    fields : sequence of DataArray or None
        One value per pixel, on the array's own grid; missing dimensions are broadcast, None is left out.
    keyed : bool
        Whether blocks can hash their pixels. For patches this reads the places of all of them.

    Raises
    ------
    EmbeddingError
        If a field lies on another grid, or ``band`` is split over chunks.
    """
    import dask
    from dask.delayed import Delayed
    from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

    from geoemb_xr.execution.internals import Task, TaskRef

    check_band_chunk(array, function.__name__.strip("_"))
    if array.chunks is None:
        array = cut_blocks(array)
    codec = arrays.codec_of(array) if is_encoded(array) else None
    scale = arrays.scale_of(array, codec) if codec is not None else None
    axis = array.get_axis_num(BAND)
    assert isinstance(axis, int)
    dims = tuple(str(d) for d in array.dims if d != BAND)
    sizes = array.variable.chunksizes
    chunks = {d: sizes[d] for d in dims}
    pixels = [on_grid(field, array).chunk(chunks) for field in fields if field is not None]
    lazy = [array.data, *(each.data for each in pixels)]
    lazy += [] if scale is None else [scale.chunk(chunks).data]
    lazy = list(dask.optimize(*lazy))
    keys = {d: _keys(array, d) for d in dims} if keyed else {}
    edges = {d: np.concatenate(([0], np.cumsum(chunks[d]))) for d in dims}
    # one layer and not dask.delayed, which takes a millisecond per block
    task = _SharedTask(function, axis, codec, scale is not None, params)
    name = f"{function.__name__.strip('_')}-{uuid.uuid4().hex}"
    tasks = {}
    for index in np.ndindex(*(len(chunks[d]) for d in dims)):
        own = tuple(keys[d][edges[d][i] : edges[d][i + 1]] for d, i in zip(dims, index, strict=True) if keyed)
        start = tuple(int(edges[d][i]) for d, i in zip(dims, index, strict=True))
        read = [(lazy[0].name, *index[:axis], 0, *index[axis:]), *((each.name, *index) for each in lazy[1:])]
        tasks[name, *index] = Task((name, *index), task, own, start, *map(TaskRef, read))
    graph = HighLevelGraph.from_collections(name, MaterializedLayer(tasks), dependencies=lazy)
    return [Delayed(key, graph, layer=name) for key in tasks]


@dataclass(frozen=True)
class _SharedTask:
    """What the tasks of all blocks have in common."""

    function: Callable[..., Any]
    axis: int
    codec: Codec | None
    is_scaled: bool
    params: tuple[Any, ...]

    def __call__(
        self, keys: tuple[np.ndarray, ...], start: tuple[int, ...], data: np.ndarray, *extra: np.ndarray
    ) -> Any:
        scale, fields = (extra[-1], extra[:-1]) if self.is_scaled else (None, extra)
        block = Block(np.asarray(data), self.axis, scale, self.codec, fields, keys, start)
        return self.function(block, *self.params)


@dataclass(frozen=True)
class _Slices:
    """An array in memory that dask slices when a task runs; of a NumPy array it would copy every chunk at once."""

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    @property
    def ndim(self) -> int:
        return self.values.ndim

    def __getitem__(self, where: Any) -> np.ndarray:
        part: np.ndarray = self.values[where]
        return part


def cut_blocks(array: xr.DataArray, sides: Mapping[str, int] | None = None) -> xr.DataArray:
    """Cut an array in memory into blocks without hashing or copying its values."""
    import dask.array as da

    sides = _SIDES if sides is None else sides
    chunks = tuple(-1 if d == BAND else sides.get(str(d), -1) for d in array.dims)
    return array.copy(data=da.from_array(_Slices(array.values), chunks=chunks, name=False))


def on_grid(field: xr.DataArray, array: xr.DataArray) -> xr.DataArray:
    """One value per pixel as an array with the same dimensions but ``band``.

    Raises
    ------
    EmbeddingError
        If it lies on another grid.
    """
    dims = [d for d in array.dims if d != BAND]
    extra = [d for d in field.dims if d not in dims]
    if extra:
        raise EmbeddingError(f"a mask or weight has the dimensions {extra}, which the array has not: {dims}")
    coords = {d: array.coords[d] for d in dims if d in array.coords}
    grid = xr.DataArray(np.broadcast_to(np.int8(0), [array.sizes[d] for d in dims]), dims=dims, coords=coords)
    try:
        _, aligned = xr.align(grid, field.reset_coords(drop=True), join="exact", copy=False)
    except ValueError as error:
        raise EmbeddingError(
            f"a mask or weight lies on another grid than the array ({error}); "
            "bring it there with .emb.reproject(array, resampling='nearest')"
        ) from error
    sizes = {d: array.sizes[d] for d in dims if d not in aligned.dims}
    return aligned.expand_dims(sizes).transpose(*dims)


def one_space(
    array: xr.DataArray | Sequence[xr.DataArray], what: str
) -> tuple[list[xr.DataArray], tuple[str, ...]]:
    """One array or several as a list, checked to be of one product, version and bands; and those bands."""
    many = [array] if isinstance(array, xr.DataArray) else list(array)
    if not many:
        raise ValueError(f"{what} needs at least one array")
    for each in many:
        check_embedding(each, what)
    check_comparable(what, *map(comparability_key, many))
    bands = decoded_bands(many[0])
    if any(decoded_bands(each) != bands for each in many[1:]):
        raise EmbeddingError(f"{what} got arrays with different bands; select the same in all")
    return many, bands


def one_each(
    given: xr.DataArray | Sequence[xr.DataArray] | None, many: Sequence[xr.DataArray], what: str
) -> list[xr.DataArray | None]:
    """A mask or a weight for each array."""
    if given is None:
        return [None] * len(many)
    listed = [given] if isinstance(given, xr.DataArray) else list(given)
    if len(listed) != len(many):
        raise ValueError(f"{len(many)} arrays need as many of {what}; got {len(listed)}")
    return list(listed)


def count_pixels(many: Sequence[xr.DataArray], masks: Sequence[xr.DataArray | None]) -> int:
    """Pixels of several arrays that their masks leave. Computes lazy masks."""
    total = 0
    for array, mask in zip(many, masks, strict=True):
        own = array.size // array.sizes[BAND]
        if mask is not None:  # which may have fewer dimensions
            field = on_grid(mask, array)
            own = int((field.isel({d: 0 for d in field.dims if d not in mask.dims}) != 0).sum())
            own *= array.size // array.sizes[BAND] // max(mask.size, 1)
        total += own
    return total


def _keys(array: xr.DataArray, dim: str) -> np.ndarray:
    """Numbers that identify positions along a dimension, the same in any crop, order and chunks."""
    values = array.coords[dim].values if dim in array.coords else np.arange(array.sizes[dim])
    if dim == "location" and "x" in array.coords and "y" in array.coords:
        # lazy ones lie in the same files: one pass reads both
        places = computed(xr.Dataset({d: array.coords[d].variable for d in ("x", "y")}))
        bits = [np.asarray(places[d].values, np.float64).view(np.uint64) for d in ("x", "y")]
        numbers = mixed(mixed(bits[0]) + bits[1])
    elif dim in ("x", "y"):
        numbers = np.floor(values / _step(array, dim) + _OFF_GRID).astype(np.int64).view(np.uint64)
    elif values.dtype.kind == "M":
        numbers = values.astype("datetime64[ns]").view(np.uint64)
    else:
        numbers = np.arange(values.size).view(np.uint64)
    name = np.array([zlib.crc32(dim.encode())], np.uint64)  # so that y = 5 is not x = 5
    return mixed(numbers + mixed(name))


def _step(array: xr.DataArray, dim: str) -> float:
    """The pixel size along a dimension; an axis of one pixel takes the other's."""
    for each in (dim, "x" if dim == "y" else "y"):
        values = array.coords[each].values if each in array.coords else np.array([0.0])
        if values.size > 1:
            return abs(float(values[-1] - values[0])) / (values.size - 1)
    return 1.0


def merged(parts: list[Any], merge: Callable[[list[Any]], Any], *, label: str, fan: int = 16) -> Any:
    """Compute delayed parts and merge them in a tree, so that few are in memory at once.

    BLAS is held to one thread meanwhile: the threads are dask's.
    """
    from dask.delayed import Delayed
    from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

    from geoemb_xr.execution.internals import Task, TaskRef

    name = f"merged-{uuid.uuid4().hex}"
    left: list[Any] = [TaskRef(part.key) for part in parts]
    tasks: dict[Any, Any] = {}
    while len(left) > 1 or not tasks:
        groups, left = [left[i : i + fan] for i in range(0, max(len(left), 1), fan)], []
        for group in groups:
            key = (name, len(tasks))
            tasks[key] = Task(key, _merged, merge, *group)
            left.append(TaskRef(key))
    graph = HighLevelGraph.from_collections(name, MaterializedLayer(tasks), dependencies=parts)
    with progress.shown(label), one_blas_thread():
        (result,) = compute(Delayed(left[0].key, graph, layer=name))
    return result


def _merged(merge: Callable[[list[Any]], Any], *parts: Any) -> Any:
    return merge(list(parts))
