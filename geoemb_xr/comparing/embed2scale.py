"""The submission format of the Embed2Scale challenge: 1,024 numbers for each id, checked as its server does."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geoemb_xr.comparing.neucobench import vectors_by_id, write_embeddings
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.core.local_paths import local_path

#: Numbers that a submission has for each id.
DIMS = 1024


def write_submission(
    embeddings: Any, path: str | os.PathLike[str], *, ids: Iterable[str] | None = None
) -> Path:
    """Write a submission that the server takes. Computes.

    Parameters
    ----------
    embeddings : DataFrame or DataArray (location, band)
        1,024 numbers for each id, the ids as index. Ids may end in ``.zarr.zip``, which is taken off.
    path : path
        CSV to write; whole or not at all.
    ids : iterable of str, optional
        All ids that must be there.

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    EmbeddingError
        If ids are missing or twice there, or the numbers are not 1,024 finite ones.
    """
    table = vectors_by_id(embeddings)
    table = table.set_axis([_plain(each) for each in table.index])
    _check(table, ids, "the embeddings")
    return write_embeddings(table, path)


def check_submission(path: str | os.PathLike[str], ids: Iterable[str] | None = None) -> pd.DataFrame:
    """Read a submission and check it as the server does.

    Parameters
    ----------
    path : path
        CSV with the column ``id`` and 1,024 others.
    ids : iterable of str, optional
        All ids that must be there.

    Returns
    -------
    DataFrame of float64 (id, dimension)

    Raises
    ------
    SourceError
        If the file is missing or has no column ``id``.
    EmbeddingError
        If ids are missing or twice there, or the numbers are not 1,024 finite ones.
    """
    if not local_path(path).exists():
        raise SourceError(f"no such file of embeddings: {path}")
    table = pd.read_csv(path, dtype={"id": str})
    if "id" not in table.columns:
        raise SourceError(f"{path} has no column 'id'; it has {list(table.columns[:5])}")
    table = table.set_index("id")
    _check(table, ids, str(path))
    return table.astype(np.float64)


def first_components(embeddings: Any) -> pd.DataFrame:
    """Bring vectors of any length to 1,024 numbers: principal components, with zeros where there are fewer.

    The training-free baseline of the challenge (fourth on its test board) is this of random convolutional features,
    averaged over time: ``gx.embed(cubes, "rcf", time="each").mean("time")``.

    Parameters
    ----------
    embeddings : DataFrame or DataArray (location, band)
        Embeddings by id.

    Returns
    -------
    DataFrame of float32 (id, 1024)

    Raises
    ------
    EmbeddingError
        If a vector is missing or has gaps.

    Examples
    --------
    >>> first_components(pd.DataFrame(np.eye(3), ["a", "b", "c"])).shape
    (3, 1024)
    """
    table = vectors_by_id(embeddings)
    x = table.to_numpy(np.float64)
    if not np.isfinite(x).all():
        raise EmbeddingError(
            f"{int((~np.isfinite(x)).any(axis=1).sum())} ids have no vector, or one with gaps"
        )
    left, size, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    sign = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])  # the largest loading is positive
    scores = (left * size * sign)[:, :DIMS]
    padded = np.pad(scores, ((0, 0), (0, DIMS - scores.shape[1])))
    return pd.DataFrame(padded.astype(np.float32), table.index)


def _plain(name: object) -> str:
    return str(name).removesuffix(".zip").removesuffix(".zarr")


def _check(table: pd.DataFrame, ids: Iterable[str] | None, what: str) -> None:
    missing = sorted(set(map(_plain, () if ids is None else ids)) - set(table.index))
    if missing:
        raise EmbeddingError(f"{what}: {len(missing)} ids are missing, such as {missing[0]!r}")
    if not table.index.is_unique:
        raise EmbeddingError(
            f"{what}: id {table.index[table.index.duplicated()][0]!r} is there more than once"
        )
    if table.shape[1] != DIMS:
        raise EmbeddingError(f"{what}: {DIMS} numbers are expected for each id; got {table.shape[1]}")
    numbers = table.apply(pd.to_numeric, errors="coerce")
    wrong = np.flatnonzero(~np.isfinite(numbers.to_numpy(np.float64)).all(axis=1))
    if wrong.size:
        raise EmbeddingError(
            f"{what}: {wrong.size} ids have something that is no finite number, the first {table.index[wrong[0]]!r}"
        )
