"""Dates as people write them, against pandas."""

import datetime

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.times import parse_dates, pick_times

DAYS = ["2018-07-15", "2024-01-01"]
WAYS = {
    "texts": DAYS,
    "texts without dashes": ["20180715", "20240101"],
    "integers": [20180715, 20240101],
    "floats": [20180715.0, 20240101.0],
    "nullable": pd.array([20180715, 20240101], "Int64"),
    "datetime64": np.array(DAYS, "datetime64[D]"),
    "dates": [datetime.date(2018, 7, 15), datetime.date(2024, 1, 1)],
    "timestamps": [pd.Timestamp(day) for day in DAYS],
    "zones": pd.to_datetime(DAYS).tz_localize("Europe/Vienna").tz_convert("UTC") + pd.Timedelta("2h"),
    "offsets": ["2018-07-15T01:30:00+01:00", "2024-01-01T12:00:00-03:00"],
    "periods": pd.PeriodIndex(DAYS, freq="D"),
    "categories": pd.Categorical(DAYS),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_writing_days_is_the_same_day(way):
    for values in (WAYS[way], pd.Series(WAYS[way])):
        assert parse_dates(values).astype("datetime64[D]").astype(str).tolist() == DAYS


@given(st.lists(st.one_of(st.none(), st.integers(1985, 2100)), min_size=1))
def test_years_with_gaps_are_years_in_any_dtype(years):
    expected = [str(y) if y is not None else "NaT" for y in years]
    for column in (
        pd.Series(years, dtype="float64"),
        pd.Series(years, dtype="Int64"),
        pd.Series([None if y is None else str(y) for y in years], dtype=object),
        years,
        [y if y is None else f" {y} " for y in years],
        ["" if y is None else str(y) for y in years],
    ):
        assert parse_dates(column).astype("datetime64[Y]").astype(str).tolist() == expected


@pytest.mark.parametrize("bad", ["summer", 1530000000000, 2018.5, 201807, True])
def test_what_is_no_date_is_named(bad):
    with pytest.raises(EmbeddingError, match=r"column 'when'.*(neither a year nor a date|bool)"):
        parse_dates([bad, bad] if bad is not True else pd.Series([True, False]), "column 'when'")


def test_an_empty_list_of_times_is_refused():
    with pytest.raises(EmbeddingError, match="asks for no period at all"):
        pick_times(np.array([2018, 2024]), [])


def test_a_time_axis_of_years_is_read_as_years():
    assert pick_times(np.array([2018, 2024]), 2024).tolist() == [1]
    assert pick_times(np.array([2018, 2024]), slice(2018, 2020)).tolist() == [0]
    da = gx.testing.synthetic("alphaearth", shape=(4, 5), years=[2018, 2024])
    whole = da.assign_coords(time=[2018, 2024])
    xr.testing.assert_equal(whole.emb.year(2024).drop_vars("time"), da.emb.year(2024).drop_vars("time"))


@pytest.mark.parametrize("when", [2024, 2024.0, np.int64(2024), "2024", 20240101, "2024-01-01T00:00:00Z"])
def test_a_year_is_asked_for_in_any_writing(when):
    available = np.array(["2018-01-01", "2024-01-01"], "datetime64[ns]")
    assert pick_times(available, when).tolist() == [1]


def test_points_come_from_their_own_year_and_gaps_are_counted(caplog):
    table = pd.DataFrame({"lon": np.linspace(11.369, 11.371, 4), "lat": [47.25] * 4})
    source = gx.example("alphaearth")
    expected = gx.open("alphaearth", source, points=table.assign(year=[2018, 2024, 2018, 2024]))
    for years in ([2018.0, 2024.0, np.nan, 2024.0], pd.array([2018, 2024, None, 2024], "Int64")):
        with caplog.at_level("INFO"):
            found = gx.open("alphaearth", source, points=table.assign(Year=years))
        assert "1 of 4 points have no date in their column 'Year'" in caplog.text
        assert found.location.values.tolist() == [0, 1, 3]
        np.testing.assert_array_equal(found.values, expected.values[[0, 1, 3]])
    with pytest.raises(EmbeddingError, match="none of the 4 points has a date"):
        gx.open("alphaearth", source, points=table.assign(year=np.nan))


@pytest.mark.parametrize("far", ["9999-12-31", "0001-01-01", -2018, np.datetime64("9999-12-31")])
def test_dates_beyond_what_nanoseconds_hold_are_named(far):
    # older pandas reads no such date at all
    said = r"in row 1, which is (beyond the years 1678 to 2261|neither a year nor a date)"
    with pytest.raises(EmbeddingError, match=said):
        parse_dates(["2018-07-15", far] if not isinstance(far, int) else [2018, far])
