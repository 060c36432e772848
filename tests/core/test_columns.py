"""Columns of every kind, through the gate to a file's types and back."""

import datetime as dt
import decimal

import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr.core.columns import (
    column_of,
    from_arrow,
    from_zarr_values,
    names_for_zarr,
    to_arrow,
    to_zarr_values,
)
from geoemb_xr.core.errors import EmbeddingError

VIENNA = pd.date_range("2024-03-31", periods=3, freq="12h", tz="Europe/Vienna")
COLUMNS = {
    "text": np.array(["rye", "", "ö"], object),
    "text with gaps": np.array(["", None, "-"], object),
    "only gaps": np.array([None, None], object),
    "booleans with gaps": np.array([True, None, False], object),
    "integers with gaps": np.array([2**62, None, -1], object),
    "times in a zone": np.array([*VIENNA, None], object),
    "dates": np.array([dt.date(1866, 10, 14), None], object),
    "shapes": np.array([shapely.Point(0, 1), None, shapely.box(0, 0, 1, 1)], object),
}


def through_zarr(values):
    stored, note = to_zarr_values(column_of("c", values))
    assert stored.dtype.kind in "biufmMU" or all(isinstance(each, str) for each in stored)
    return stored if note is None else from_zarr_values(stored, note)


def through_arrow(values):
    column = column_of("c", values)
    arrow = to_arrow(column)
    return arrow.to_pandas().to_numpy() if column.kind == "plain" else from_arrow(arrow, column.kind)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("way", [through_zarr, through_arrow])
def test_objects_come_back_as_they_were(name, way):
    back = way(COLUMNS[name])
    assert back.tolist() == COLUMNS[name].tolist()
    assert [type(each) for each in back] == [type(each) for each in COLUMNS[name]]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pd.array([1, None, 3], "Int64"), [1, None, 3]),
        (pd.array([True, None], "boolean"), [True, None]),
        (pd.array(["a", None], "string"), ["a", None]),
        (pd.Categorical(["b", None, "a"]), ["b", None, "a"]),
        (pd.Categorical([3, 1, 3]), [3, 1, 3]),
        (
            pd.Series(pd.date_range("2020", periods=2, tz="UTC")),
            [*pd.date_range("2020", periods=2, tz="UTC")],
        ),
        (np.array([1.5, None], object), [1.5, np.nan]),
        (np.array(["2020-01-01", "NaT"], "M8[ns]"), np.array(["2020-01-01", "NaT"], "M8[ns]")),
        (np.array([1, "NaT"], "m8[ns]"), np.array([1, "NaT"], "m8[ns]")),
        (np.array([1, 2], "f2"), [1, 2]),
    ],
)
@pytest.mark.parametrize("way", [through_zarr, through_arrow])
def test_columns_of_pandas_and_numpy_keep_their_values(given, expected, way):
    pd.testing.assert_series_equal(pd.Series(way(given), dtype=object), pd.Series(expected, dtype=object))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([["a"], None], "holds list"),
        ([1, "a"], "holds int and str"),
        ([decimal.Decimal(1)], "holds Decimal"),
        ([2**70], "holds int"),
        ([b"raw"], "holds bytes"),
        ([VIENNA[0], VIENNA[0].tz_convert("UTC")], "several zones"),
        ([pd.Interval(0, 1)], "holds Interval"),
    ],
)
def test_what_no_file_holds_is_refused_by_name(values, says):
    array = np.empty(len(values), object)
    array[:] = values
    with pytest.raises(EmbeddingError, match=f"the column 'mine' .*{says}"):
        column_of("mine", array)


@given(st.lists(st.none() | st.text(max_size=3), max_size=6), st.sampled_from([through_zarr, through_arrow]))
def test_any_text_comes_back(values, way):
    array = np.array(values, object)
    assert way(array).tolist() == values


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6))
def test_any_integers_come_back(values):
    array = np.array(values, object)
    assert through_zarr(array).tolist() == values
    assert through_arrow(array).tolist() == values


@given(st.lists(st.text(max_size=4) | st.integers(), unique=True, max_size=6))
def test_names_are_unique_and_have_no_folder_and_no_space(names):
    renamed = names_for_zarr(names)
    stored = [renamed.get(name, name) for name in names]
    assert len(set(stored)) == len(stored)
    assert all(name and not set(name) & set("/ \t\n") and not name.startswith((".", "__")) for name in stored)
    assert names_for_zarr(stored) == {}


def test_a_name_that_is_neither_text_nor_number_is_refused():
    with pytest.raises(EmbeddingError, match=r"cannot hold the name \('a', 1\)"):
        names_for_zarr([("a", 1)])


def test_times_that_no_store_is_read_back_with_are_refused_by_name():
    old = column_of("when", np.array(["0001-01-01", "2018-01-01"], "M8[s]"))
    with pytest.raises(EmbeddingError, match="'when' holds times beyond the years 1678 to 2262"):
        to_zarr_values(old, "when")
    with pytest.raises(EmbeddingError, match="'wide' holds"):
        column_of("wide", np.ones(1, "g"))


def test_names_that_are_files_of_zarr_or_too_long_are_escaped(tmp_path):
    array = gx.testing.synthetic("alphaearth", shape=(4, 4)).emb.year(2018).emb.sample([(11.37, 47.25)])
    names = ["zarr.json", "Zarr.json", "ä" * 150]
    array = array.assign_coords({name: ("location", [n]) for n, name in enumerate(names)})
    found = gx.open(array.emb.to_zarr(tmp_path / "a.zarr"))
    assert [found[name].values.item() for name in names] == [0, 1, 2]
