"""Values of labels, whatever holds them: text, booleans, integers or floats, with gaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.legend import Legend
from geoemb_xr.core.notes import say


def as_labels(values: Any) -> np.ndarray:
    """A column of labels as an array: categories by their values, nullable numbers as objects.

    Gaps are None or NaN, and so are masked values, blank texts and infinite numbers. Blanks around texts are no
    part of them.

    Raises
    ------
    EmbeddingError
        If one is not a label, such as a list.

    Examples
    --------
    >>> as_labels(pd.Categorical([2.0, None, 1.0])).tolist(), as_labels(["oats", " "]).tolist()
    ([2, None, 1], ['oats', None])
    """
    if isinstance(getattr(values, "dtype", None), pd.CategoricalDtype):
        found = np.empty(len(values), object)
        found[:] = [_as_label(_plain(each)) for each in np.asarray(values)]
        return found
    if np.ma.isMaskedArray(values):
        masked, values = np.ma.getmaskarray(values), np.array(values.data, object)
        values[masked] = None
    try:
        found = np.asarray(values)
    except ValueError as error:
        raise EmbeddingError(f"labels are one text, number or boolean each: {error}") from error
    if found.dtype.kind in "OUS":
        plain = [_as_label(each) for each in found.ravel().tolist()]
        if found.dtype.kind != "U" or plain != found.ravel().tolist():
            found = np.array([*plain, None], object)[:-1].reshape(found.shape)
    elif found.dtype.kind == "f" and np.isinf(found).any():
        found = np.where(np.isinf(found), np.nan, found)
    elif found.dtype.kind not in "biufM":
        raise EmbeddingError(f"labels are texts, booleans, whole numbers or floats; got {found.dtype}")
    return found


def _plain(value: Any) -> Any:
    """The value of a category; a float becomes an integer or text, since categories are classes."""
    if not isinstance(value, float) or np.isnan(value):
        return None if pd.isna(value) else value
    return int(value) if value.is_integer() else str(value)


def _as_label(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and np.isinf(value):
        return None
    if not pd.api.types.is_scalar(value):
        raise EmbeddingError(
            f"labels are one text, number or boolean each; got {type(value).__name__}: {str(value)[:60]}"
        )
    return value


def without_gaps(y: np.ndarray, gaps: bool) -> np.ndarray:
    """Labels without their gaps, in the type that they would have had without gaps.

    Tables keep booleans and whole numbers with a gap as objects, or whole numbers as floats: they stay classes.
    """
    if y.dtype == object:
        kinds = (bool | np.bool_, int | np.integer, float | int | np.floating | np.integer)
        for kind, dtype in zip(kinds, (bool, np.int64, np.float64), strict=True):
            if all(isinstance(v, kind) and (dtype is bool or not isinstance(v, bool)) for v in y):
                return y.astype(dtype)
        return y
    if gaps and y.dtype.kind == "f" and np.array_equal(y, np.round(y)):
        say("labels are whole numbers with gaps, taken as classes (for regression, fill or drop the gaps)")
        return y.astype(np.int64)
    return y


def class_names(values: Any, legend: Legend | None = None) -> np.ndarray:
    """Class names of labels ``(n,)``, None where one is missing.

    Parameters
    ----------
    values : array (n,)
        Anything that :func:`as_labels` takes.
    legend : Legend, optional
        Legend of the map that they are compared with. Whole numbers are its codes, unless some are its names:
        those of a map of booleans, or of a class called "0", are.

    Examples
    --------
    >>> class_names([1.0, None, 2.0], Legend.of_names(["oats", "rye"])).tolist()
    ['oats', None, 'rye']
    >>> class_names([True, False], Legend.of_names(["False", "True"])).tolist()
    ['True', 'False']
    """
    found = as_labels(values)
    names = np.full(found.shape, None, object)
    there = ~pd.isna(found)
    if not there.any():
        return names
    given = without_gaps(found[there], gaps=False)
    if given.dtype.kind == "f" and np.array_equal(given, np.round(given)):
        given = given.astype(np.int64)
    texts = [str(each) for each in given.tolist()]
    if legend is not None and given.dtype.kind in "iu" and not set(texts) & set(legend.names):
        by_code = {str(code): name for code, name in zip(legend.values, legend.names, strict=True)}
        texts = [by_code.get(text, text) for text in texts]
    names[there] = texts
    return names
