"""Dates as people write them, against pandas."""

import datetime

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr.core.errors import CoverageError, EmbeddingError
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


@pytest.mark.parametrize(
    "when", [2024, 2024.0, np.int64(2024), "2024", 20240101, "2024-01-01T00:00:00Z", np.array(2024)]
)
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


def test_a_year_that_nanoseconds_do_not_hold_picks_no_other():
    wrapped = np.array(["1754-08-30", "1815-03-31", "2018-01-01"], "datetime64[ns]")
    for when in ("0001-01-01", 9999, 1677, 2262, np.datetime64("20000")):
        with pytest.raises(CoverageError, match="is not in the array"):
            pick_times(wrapped, when)
    assert pick_times(wrapped, slice("1600", "2500")).tolist() == [0, 1, 2]
    assert pick_times(wrapped, slice(2018, 9999)).tolist() == [2]
    seconds = np.array(["0001-01-01", "2018-01-01"], "datetime64[s]")
    with pytest.raises(EmbeddingError, match=r"beyond the years 1678 to 2261|neither a year nor a date"):
        pick_times(seconds, 2018)


@pytest.mark.parametrize(
    "when", ["2018,2024", "1/7/2018", "1.7.2018", "", np.datetime64("NaT", "ns"), np.timedelta64(1, "D")]
)
def test_a_time_that_could_be_two_or_none_is_refused(when):
    with pytest.raises(ValueError, match="not a year or a date"):
        pick_times(np.array([2018, 2024]), when)


@pytest.mark.parametrize(
    "when", ["13/7/2018", "7/7/2018", "July 2018", "July 15, 2018", "2018-07", "2018Q3", "20180701"]
)
def test_a_time_that_is_clear_is_read(when):
    assert (
        pick_times(np.array(["2018-07-01", "2018-07-07", "2018-07-13", "2018-07-15"], "M8[ns]"), when).size
        >= 1
    )


def test_an_axis_of_years_is_one_of_dates_in_every_verb(tmp_path):
    da = gx.testing.synthetic("alphaearth", shape=(4, 5), years=[2018, 2024])
    for years in ([2018, 2024], ["2018", "2024"]):
        whole = da.assign_coords(time=years)
        xr.testing.assert_equal(whole.emb.change(2018, 2024), da.emb.change(2018, 2024))
        assert whole.emb.aggregate("mean", freq="10YS").time.dt.year.values.tolist() == [2018]
        assert [path.name for path in whole.emb.to_cog(tmp_path / "{time:%Y}.tif", mode="w")] == [
            "2018.tif",
            "2024.tif",
        ]
        whole.to_dataset(name="embedding").to_zarr(tmp_path / "a.zarr", mode="w")
        xr.testing.assert_equal(gx.open("alphaearth", tmp_path / "a.zarr").time, da.time)
    seasons = da.assign_coords(time=[0, 1])  # what is no year stays what it is
    np.testing.assert_array_equal(seasons.emb.aggregate("mean"), da.emb.aggregate("mean"))
