"""Vectors of patches, out of Arrow's lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from geoemb_xr.core.errors import SourceError
from geoemb_xr.readers.geometries import storage
from geoemb_xr.readers.parts import Part
from geoemb_xr.stores.listing import open_file, reading_parquet


def read_vectors(parts: Sequence[Part], dims: int) -> np.ndarray:
    """Vectors of some parts, float32 (rows, dims); NaN where a vector is null."""
    pieces: list[np.ndarray] = []
    for part in parts:
        with reading_parquet(part.facts.file.url):
            pieces += _vectors_of(part, dims)
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else np.empty((0, dims), np.float32)


def _vectors_of(part: Part, dims: int) -> Iterator[np.ndarray]:
    """A whole row group as it lies in Arrow's memory; of a part only the rows, streaming past the others."""
    facts = part.facts
    rows = part.group.rows
    if part.rows is None and part.stop - part.start == rows:
        parquet = open_file(facts.file, pre_buffer=False)
        column = parquet.read_row_group(part.group.index, columns=[facts.vectors], use_threads=False)[
            facts.vectors
        ]
        for chunk in column.chunks:
            yield as_matrix(chunk, dims, facts.file.url)
        return
    parquet = open_file(facts.file, pre_buffer=False, buffer_size=1 << 20)
    step = max(1024, min(rows, (8 << 20) // (4 * dims)))
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
        Of the file, for messages.

    Raises
    ------
    SourceError
        If a vector has another length.
    """
    null = np.asarray(column.is_null()) if column.null_count else None
    values = storage(column)
    while hasattr(values.type, "value_type"):
        values = storage(values.flatten())  # skips null lists, whatever lies under them
    flat = values.to_numpy(zero_copy_only=False)
    flat = flat if flat.dtype == np.float32 else flat.astype(np.float32)
    rows = len(column) - (0 if null is None else int(null.sum()))
    if flat.size != rows * dims:
        raise SourceError(
            f"{name}: {rows} vectors hold {flat.size} numbers, not {dims} each; drop or fix those rows"
        )
    matrix: np.ndarray = flat.reshape(rows, dims)
    if values.null_count:
        matrix = np.where(np.isnan(matrix).any(axis=1, keepdims=True), np.float32("nan"), matrix)
    if null is None:
        return matrix
    out = np.full((len(column), dims), np.nan, np.float32)
    out[~null] = matrix
    return out
