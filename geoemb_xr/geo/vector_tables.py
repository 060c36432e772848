"""Tables of vectors: a row per place, its numbers in columns that are named after a product's bands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.model import Product
from geoemb_xr.core.model import product as find_product
from geoemb_xr.core.notes import say
from geoemb_xr.core.times import parse_dates

#: Names of a column of whole vectors.
_WHOLE = ("embedding", "embeddings", "vector", "features")
#: Names of columns that say when, the finest first.
_DATES = ("date", "datetime", "timestamp", "time", "year")
_NUMBERED = re.compile(r"(.*?)(\d+)")


def vector_columns(columns: Iterable[Any], product: str | Product) -> list[Any] | None:
    """Columns of a product's vectors in the order of its bands, whatever their order in the table.

    They have the bands' names, or one beginning and the numbers of the bands: ``A00``, ``emb_0``, ``band_001``.

    Parameters
    ----------
    columns : iterable
        Names of a table's columns.
    product : str or Product
        Product of the vectors.

    Returns
    -------
    list or None
        One column per band; None where the table has no such columns.

    Raises
    ------
    EmbeddingError
        If some bands have a column and others have none.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> vector_columns(["e2", "crop", "e1", "e0"], gx.Product("mine", dims=3))
    ['e0', 'e1', 'e2']
    """
    found = find_product(product) if isinstance(product, str) else product
    names = {str(name): name for name in columns}
    for bands in (found.decoded_bands, found.bands):
        if all(band in names for band in bands) and len(bands) == found.dims:
            return [names[band] for band in bands]
    numbered: dict[str, dict[int, Any]] = {}
    for text, name in names.items():
        if match := _NUMBERED.fullmatch(text):
            numbered.setdefault(match[1], {})[int(match[2])] = name
    for group in numbered.values():
        for first in (0, 1):
            if set(range(first, first + found.dims)) == set(group):
                return [group[first + i] for i in range(found.dims)]
    some = [band for band in found.decoded_bands if band in names and not band.isdigit()]
    if some:
        lost = [band for band in found.decoded_bands if band not in names]
        raise EmbeddingError(
            f"a table for {found.name!r} has a column per band; {len(lost)} of {found.dims} are missing: "
            f"{lost[:5]}{' …' if len(lost) > 5 else ''}. Export all of them"
        )
    return None


def vectors_of(table: pd.DataFrame, product: Product) -> tuple[np.ndarray, list[Any]]:
    """Vectors in a table, and the columns that they stood in.

    Parameters
    ----------
    table : DataFrame (n rows)
        Table with columns as :func:`vector_columns` finds them, or whole vectors in a column ``embedding``.
    product : Product
        Product of the vectors.

    Returns
    -------
    (ndarray (n, dims), list)
        float32, NaN where one is missing; codes where all are whole numbers and the product has a codec.

    Raises
    ------
    EmbeddingError
        If there are none, or they are not numbers; the message names the column or the row.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> table = pd.DataFrame({"e1": [0.25], "e0": [0.5], "crop": ["oats"]})
    >>> vectors_of(table, gx.Product("mine", dims=2))[0].tolist()
    [[0.5, 0.25]]
    """
    chosen = vector_columns(table.columns, product) or _whole_column(table)
    if chosen is None:
        columns = list(map(str, table.columns))
        raise EmbeddingError(
            f"a table for {product.name!r} has a column per band ({product.decoded_bands[0]} … "
            f"{product.decoded_bands[-1]}, or one beginning and numbers), or whole vectors in one called "
            f"{' or '.join(map(repr, _WHOLE))}; it has {columns[:12]}{' …' if len(columns) > 12 else ''}"
        )
    return _numbers(table, chosen, product), chosen


def _whole_column(table: pd.DataFrame) -> list[Any] | None:
    return next(([name] for name in _WHOLE if name in table.columns), None)


def _numbers(table: pd.DataFrame, chosen: Sequence[Any], product: Product) -> np.ndarray:
    """Vectors (n, dims): float32 with NaN where one is missing, or codes."""
    if len(chosen) == 1 and product.dims > 1:
        return _stacked(table[chosen[0]], product)
    part = table[list(chosen)]
    wrong = [name for name in chosen if not pd.api.types.is_numeric_dtype(part[name].dtype)]
    if wrong:
        raise EmbeddingError(
            f"column {str(wrong[0])!r} of the table holds {part[wrong[0]].dtype}, not numbers: "
            f"{part[wrong[0]].iloc[0] if len(part) else None!r}"
        )
    whole = all(pd.api.types.is_integer_dtype(kind) for kind in part.dtypes) and not part.isna().any(
        axis=None
    )
    if not (whole and product.codec is not None and len(part)):
        values = np.array(part.to_numpy(np.float32, na_value=np.nan))
        values[~np.isfinite(values).all(axis=1)] = np.nan
        return values
    codes = part.to_numpy(np.int64)
    limits = np.iinfo(product.codec.dtype)
    if codes.min() < limits.min or codes.max() > limits.max:
        raise EmbeddingError(
            f"the whole numbers in the table are not codes of {product.name!r}: they run from {codes.min()} to "
            f"{codes.max()}, beyond {product.codec.dtype}"
        )
    return codes.astype(product.codec.dtype)


def _stacked(column: pd.Series[Any], product: Product) -> np.ndarray:
    """A column of whole vectors."""
    values = np.full((len(column), product.dims), np.nan, np.float32)
    for row, each in enumerate(column):
        if each is None or each is pd.NA or (isinstance(each, float) and np.isnan(each)):
            continue
        try:
            vector = np.asarray(each, np.float32).ravel()
        except (TypeError, ValueError):
            vector = np.empty(0, np.float32)
        if vector.size != product.dims:
            raise EmbeddingError(
                f"row {column.index[row]} has no vector of {product.dims} numbers in column {column.name!r}, as "
                f"{product.name!r} has them; got {str(each)[:60]}"
            )
        values[row] = vector
    values[~np.isfinite(values).all(axis=1)] = np.nan
    return values


def dates_of(table: pd.DataFrame) -> np.ndarray | None:
    """The moment of each row, datetime64[ns] (n,), where a column of dates or years says it; gaps are said."""
    names = {str(name).lower(): name for name in table.columns}
    name = next((names[each] for each in _DATES if each in names), None)
    if name is None:
        return None
    dates = parse_dates(table[name], f"column {str(name)!r}")
    if missing := int(np.isnat(dates).sum()):
        say(f"{missing} of {dates.size} rows of the table of vectors have no date (NaT)")
    return dates
