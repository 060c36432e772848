"""Vectors of patches, out of Arrow's lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from geoemb_xr.core.errors import SourceError
from geoemb_xr.readers.geometries import storage
from geoemb_xr.readers.row_groups import Part
from geoemb_xr.stores.listing import open_file, reading_parquet
from geoemb_xr.stores.objects import is_remote

#: Bytes that come at once where rows are passed over: over a network each request takes its time.
_STREAM, _REMOTE_STREAM = 1 << 20, 8 << 20
#: Bytes of vectors that are made of it at once.
_STREAMED = 8 << 20


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one block, out of parts of row groups.

    Parameters
    ----------
    parts : sequence of Part
        The parts, in their order.
    dims : int
        Length of a vector.
    """

    parts: Sequence[Part]
    dims: int

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __dask_tokenize__(self) -> Any:
        from geoemb_xr.execution.internals import normalize_token

        return normalize_token((tuple(self.parts), self.dims))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the vectors."""
        return np.dtype(np.float32)

    @property
    def window(self) -> tuple[slice, ...]:
        """All rows, and all of a vector."""
        return slice(0, len(self)), slice(0, self.dims)

    @property
    def beside(self) -> int:
        """Bytes that reading holds beside the vectors: a row group, or what streams of it, also as it came."""
        return max(
            (
                part.group.stored + part.group.rows * self.dims * 4 if _is_whole(part) else 2 * _STREAMED
                for part in self.parts
            ),
            default=0,
        )

    def transfer(self, windows: Sequence[tuple[slice, ...]]) -> tuple[int, int]:
        """Requests and bytes with which the rows are read: of a row group its vectors, up to the last row."""
        requests = size = 0
        for part in self.parts:
            share = part.group.stored * part.stop / max(part.group.rows, 1)
            pieces = 1 if _is_whole(part) else -(-share // _stream_of(part))
            requests += int(pieces)
            size += int(share if _is_whole(part) else min(pieces * _stream_of(part), part.group.stored))
        return requests, size

    def read(self) -> np.ndarray:
        """Their vectors, float32 (rows, dims); NaN where a vector is null."""
        pieces: list[np.ndarray] = []
        for part in self.parts:
            with reading_parquet(part.facts.file.url):
                pieces += _vectors_of(part, self.dims)
        _give_back()  # at last: memory that is given back between parts is touched anew by each
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty((0, self.dims), np.float32)


def _give_back() -> None:
    """Let Arrow give back what it kept of a row group as it came: its pool would hold that for reads to come."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


class TableBlock(Protocol):
    """Rows of a table that are one block, as :mod:`geoemb_xr.execution.reads` finds them in a graph."""

    def __len__(self) -> int: ...

    def read(self) -> np.ndarray:
        """The rows."""
        ...


def blocks_of(blocks: Sequence[TableBlock], name: str, dtype: Any, axes: Mapping[str, int]) -> Any:
    """Blocks of rows as a dask array, each read by a task of its own.

    Parameters
    ----------
    blocks : sequence of TableBlock
        In their order; they travel to the tasks, and the tokens of what they are made of name the array.
    name : str
        Begins its name.
    dtype : dtype
        Data type of what they read.
    axes : mapping of str to int
        The axis after the rows, where there is one, and its length.
    """
    import dask.array as da
    from dask.base import tokenize

    from geoemb_xr.execution.internals import BlockValues

    values, token = np.empty(len(blocks), object), tokenize(*blocks, *axes.items())
    values[:] = blocks
    return da.blockwise(
        _read,
        ("l", *axes),
        BlockValues((tuple(map(len, blocks)),), values, token),
        "l",
        new_axes=dict(axes),
        dtype=dtype,
        meta=np.empty((0,) * (1 + len(axes)), dtype),
        align_arrays=False,
        name=f"{name}-{token}",
    )


def _read(block: TableBlock) -> np.ndarray:
    return block.read()


def _is_whole(part: Part) -> bool:
    return part.rows is None and part.stop - part.start == part.group.rows


def _stream_of(part: Part) -> int:
    return _REMOTE_STREAM if is_remote(part.facts.file.url) else _STREAM


def _vectors_of(part: Part, dims: int) -> Iterator[np.ndarray]:
    """A whole row group as it lies in Arrow's memory; of a part only the rows, streaming past the others."""
    facts = part.facts
    rows = part.group.rows
    if _is_whole(part):
        parquet = open_file(facts.file, pre_buffer=False)
        column = parquet.read_row_group(part.group.index, columns=[facts.vectors], use_threads=False)[
            facts.vectors
        ]
        for chunk in column.chunks:
            yield as_matrix(chunk, dims, facts.file.url)
        return
    parquet = open_file(facts.file, pre_buffer=False, buffer_size=_stream_of(part))
    step = max(1024, min(rows, _STREAMED // (4 * dims)))
    offset, positions = 0, part.positions
    for batch in parquet.iter_batches(
        step, row_groups=[part.group.index], columns=[facts.vectors], use_threads=False
    ):
        inside = positions[(positions >= offset) & (positions < offset + batch.num_rows)] - offset
        if inside.size:
            matrix = as_matrix(batch.column(0), dims, facts.file.url)
            run = inside[-1] - inside[0] + 1 == inside.size and (np.diff(inside) == 1).all()
            # a copy either way: a view would keep the whole batch alive
            yield matrix[inside[0] : inside[-1] + 1].copy() if run else matrix[inside]
        offset += batch.num_rows
        if offset >= part.stop:
            return


def as_matrix(column: Any, dims: int, name: str = "the column") -> np.ndarray:
    """Arrow's lists as one float32 matrix (rows, dims): a view where none is null and they are float32.

    Parameters
    ----------
    column : pyarrow.Array
        Lists of numbers of any kind of list, or tensors; lists of lists where there is a leading dimension of one.
    dims : int
        Length of a vector.
    name : str
        Name of the file, for messages.

    Raises
    ------
    SourceError
        If a vector has another length.
    """
    null = np.asarray(column.is_null()) if column.null_count else None
    values = storage(column)
    while hasattr(values.type, "value_type"):
        _refuse_ragged(values, name)
        values = storage(values.flatten())  # skips null lists, whatever lies under them
    flat = values.to_numpy(zero_copy_only=False)
    flat = flat if flat.dtype == np.float32 else flat.astype(np.float32)
    rows = len(column) - (0 if null is None else int(null.sum()))
    if flat.size != rows * dims:
        raise SourceError(
            f"{name}: {rows} vectors hold {flat.size} numbers, not {dims} each; drop or fix those rows"
        )
    matrix: np.ndarray = flat.reshape(rows, dims)
    if matrix.size and not (np.isfinite(matrix.min()) and np.isfinite(matrix.max())):  # NaN is both
        matrix = np.where(np.isfinite(matrix).all(axis=1, keepdims=True), matrix, np.float32("nan"))
    if null is None:
        return matrix
    out = np.full((len(column), dims), np.nan, np.float32)
    out[~null] = matrix
    return out


def _refuse_ragged(lists: Any, name: str) -> None:
    """Raise where lists have several lengths: what one lacks, another may have too many, and the sum is right."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    if types.is_fixed_size_list(lists.type):
        return
    found = pc.min_max(pc.list_value_length(lists)).as_py()
    if found["min"] != found["max"]:
        raise SourceError(
            f"{name}: vectors have from {found['min']} to {found['max']} numbers; drop or fix those of another "
            "length, and write it again"
        )
