"""Times of an array: what `time=` may be, and which steps it picks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core.checks import is_number
from geoemb_xr.core.errors import CoverageError, EmbeddingError

TimeLike = int | str | slice | Sequence[Any] | np.datetime64 | None


def parse_dates(values: Any, what: str = "the dates") -> np.ndarray:
    """Parse years and dates in any usual notation as the moments at which they start; gaps are NaT.

    Parameters
    ----------
    values : sequence (n,)
        Years (2018, 2018.0, "2018"), days as ``YYYYMMDD``, ISO dates, datetimes with or without a zone (read in
        UTC), periods; None, NaN and empty texts are missing.
    what : str
        The name of the values in a message.

    Returns
    -------
    ndarray of datetime64[ns] (n,)

    Raises
    ------
    EmbeddingError
        If one is neither a year nor a date; the message says which.

    Examples
    --------
    >>> parse_dates([2018.0, float("nan"), 20180715]).astype("datetime64[D]")
    array(['2018-01-01',        'NaT', '2018-07-15'], dtype='datetime64[D]')
    """
    column = values if isinstance(values, pd.Series) else pd.Series(_as_column(values))
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.start_time
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return _without_zone(_in_reach(pd.to_datetime(column, utc=True), column, what))
    if pd.api.types.is_bool_dtype(column.dtype):
        raise EmbeddingError(f"{what} are neither years nor dates but {column.dtype}")
    texts = column.map(_date_text, na_action="ignore")
    missing = texts.isna() | texts.eq("")
    stamps = pd.to_datetime(texts.where(~missing), utc=True, format="ISO8601", errors="coerce")
    wrong = np.flatnonzero((stamps.isna() & ~missing).to_numpy())
    if wrong.size:
        bad = column.iloc[wrong[0]]
        raise EmbeddingError(
            f"{what} hold {bad!r} in row {column.index[wrong[0]]!r}, which is neither a year nor a date; write "
            "2018, 20180715 or '2018-07-15'"
        )
    return _without_zone(_in_reach(stamps, column, what))


def _in_reach(stamps: pd.Series[Any], given: pd.Series[Any], what: str) -> pd.Series[Any]:
    """Moments, all of which nanoseconds can hold; 9999-12-31 means something else."""
    years = stamps.dt.year
    wrong = np.flatnonzero(((years < 1678) | (years > 2261)).to_numpy())
    if wrong.size:
        raise EmbeddingError(
            f"{what} hold {given.iloc[wrong[0]]!r} in row {given.index[wrong[0]]!r}, which is beyond the "
            "years 1678 to 2261; leave the cell empty where there is no date"
        )
    return stamps


def _as_column(values: Any) -> Any:
    """Values for pandas: objects where types are mixed, so that no integer becomes a float."""
    return (
        values
        if isinstance(values, np.ndarray | pd.Index | pd.api.extensions.ExtensionArray)
        else list(values)
    )


def _date_text(value: Any) -> str:
    """A year or date in ISO 8601; anything else stays as it is, to be refused later."""
    if isinstance(value, pd.Period):
        value = value.start_time
    if is_number(value):
        text = str(int(value)) if float(value).is_integer() else "no date"
    else:
        text = value.isoformat() if hasattr(value, "isoformat") else str(value).strip()
    whole = text.removesuffix(".0")
    if whole.isdigit() and len(whole) == 8:
        return f"{whole[:4]}-{whole[4:6]}-{whole[6:]}"
    if whole.isdigit():
        return f"{whole}-01-01" if len(whole) == 4 else "no year"
    return text


def _without_zone(stamps: pd.Series[Any]) -> np.ndarray:
    return np.asarray(stamps.dt.tz_localize(None).to_numpy("datetime64[ns]"))


def stamps_of(times: Any) -> np.ndarray:
    """A time axis as datetime64: integers along it are years."""
    times = np.asarray(times)
    return times if times.dtype == np.dtype("datetime64[ns]") else parse_dates(times, "the array's times")


def with_dates(array: Any) -> Any:
    """An array or Dataset whose times are dates: years along ``time`` (2018, "2018") are; what is no year stays."""
    if "time" not in array.coords or not set(array.coords["time"].dims) <= {"time"}:
        return array
    coord = array.coords["time"]
    if coord.dtype.kind == "M":
        return array
    try:
        stamps = stamps_of(np.atleast_1d(coord.values))
    except EmbeddingError:
        return array
    return array.assign_coords(time=(coord.dims, stamps if coord.ndim else stamps[0], coord.attrs))


def pick_times(available: np.ndarray, time: TimeLike, covers: str = "the array") -> np.ndarray:
    """Positions along a time axis that ``time=`` selects.

    Parameters
    ----------
    available : ndarray of datetime64 (time,)
        Starts of the periods.
    time : int, str, list, slice or None
        A year, a date, exactly those in a list, an inclusive slice of years or dates, or all. A period
        matches by its start: ``2024`` is every period that starts in 2024.
    covers : str
        The name of what has these times, in a message.

    Returns
    -------
    ndarray of int

    Raises
    ------
    TypeError
        For a tuple, which could mean either a list or a range.
    CoverageError
        If nothing matches; the message lists what there is.
    """
    available = stamps_of(available)
    if time is None:
        return np.arange(available.size)
    check_time(time)
    positions: np.ndarray
    missing: list[Any]
    if isinstance(time, slice):
        low = period_of(time.start)[0] if time.start is not None else None
        high = period_of(time.stop)[1] if time.stop is not None else None
        hit = np.ones(available.size, bool)
        hit &= True if low is None else available >= low
        hit &= True if high is None else available < high
        positions = np.flatnonzero(hit)
        missing = [] if positions.size else [time]
    else:
        wanted = listed(time)
        per = [_in_period(available, each) for each in wanted]
        missing = [w for w, p in zip(wanted, per, strict=True) if not p.size]
        positions = np.unique(np.concatenate(per))
    if missing:
        raise CoverageError(f"time {missing} is not in {covers}, which has {describe_times(available)}")
    return positions


def check_time(time: TimeLike) -> None:
    """Raise for a ``time=`` that :func:`pick_times` would refuse whatever there is."""
    if isinstance(time, tuple):
        raise TypeError(
            f"time={time!r} is a tuple, which could be two years or a range: "
            f"write {list(time)!r} for exactly those, or slice({', '.join(map(repr, time))}) for a range"
        )
    if not isinstance(time, slice):
        asked = listed(time)
        if not asked:
            raise EmbeddingError("time=[] asks for no period at all; leave it out for every one")
        for each in asked:
            if each is not None:
                period_of(each)
        return
    if time.step is not None:
        raise ValueError(f"time={time!r} has a step; give the times as a list")
    first, last = (None if edge is None else period_of(edge) for edge in (time.start, time.stop))
    if first is not None and last is not None and first[0] >= last[1]:
        raise ValueError(f"time={time!r} ends before it starts")


def time_spans(time: TimeLike) -> list[tuple[Any, Any]] | None:
    """The half-open spans ``(start, stop)`` that ``time=`` selects, to prune files by; None for everything."""
    if time is None:
        return None
    check_time(time)
    if isinstance(time, slice):
        low = period_of(time.start)[0] if time.start is not None else _FIRST
        high = period_of(time.stop)[1] if time.stop is not None else _LAST
        return [(low, high)]
    return [period_of(each) for each in listed(time)]


def listed(time: Any) -> list[Any]:
    """One time or several, of any kind, as a list of them."""
    if isinstance(time, xr.DataArray):
        time = time.values.tolist() if time.dtype.kind != "M" else time.values
        return list(np.atleast_1d(time))
    if isinstance(time, np.ndarray):
        return list(np.atleast_1d(time))
    return list(time) if isinstance(time, Iterable) and not isinstance(time, str) else [time]


def _in_period(available: np.ndarray, when: Any) -> np.ndarray:
    start, stop = period_of(when)
    return np.flatnonzero((available >= start) & (available < stop))


def period_of(when: Any) -> tuple[Any, Any]:
    """Start and end of the year, month or day that ``when`` names; a time with a zone is taken in UTC.

    Of a period beyond the years 1678 to 2261 nothing is left.
    """
    _, period = _read(when)
    if not _is_held(period):
        return (_FIRST, _FIRST) if period.year < 1678 else (_LAST, _LAST)
    if period.end_time - period.start_time < pd.Timedelta("23h"):  # a clock time names its day
        period = period.asfreq("D")
    return np.datetime64(period.start_time, "ns"), np.datetime64((period + 1).start_time, "ns")


def moment_of(when: Any) -> Any:
    """The moment at which a period that ``when`` names starts, as exact as it was given.

    Raises
    ------
    EmbeddingError
        If nanoseconds do not hold it.
    """
    moment, period = _read(when)
    if not _is_held(period):
        raise EmbeddingError(f"time={when!r} is beyond the years 1678 to 2261, which times of arrays hold")
    return np.datetime64(moment if moment is not None else period.start_time, "ns")


def _read(when: Any) -> tuple[Any, Any]:
    """The moment that ``when`` is, where it is no text, and the year, month, day or time of day that it names."""
    counted = is_number(when) and not isinstance(when, np.timedelta64)
    text = str(int(when)) if counted and float(when).is_integer() else when
    try:
        if isinstance(text, bool | float | type(None)) or text is pd.NaT:
            raise ValueError
        if isinstance(text, str) and _is_unclear(text.strip()):
            raise ValueError
        if isinstance(text, pd.Period):
            text = str(text)
        if isinstance(text, str) and ":" in text:
            text = pd.Timestamp(text)
        if not isinstance(text, str):
            stamp: Any = pd.Timestamp(text)
            stamp = stamp if stamp.tzinfo is None else stamp.tz_convert(None)
        period: Any = pd.Period(text) if isinstance(text, str) else pd.Period(stamp, "D")
        if period is pd.NaT:
            raise ValueError
    except (ValueError, TypeError):
        raise ValueError(f"not a year or a date: {when!r}; write 2024, '2024-06' or '2024-06-15'") from None
    return (None if isinstance(text, str) else stamp), period


#: What nanoseconds hold, in whole years.
_FIRST, _LAST = np.datetime64("1678-01-01", "ns"), np.datetime64("2262-01-01", "ns")


def _is_held(period: Any) -> bool:
    """Whether nanoseconds hold a period; beyond, they would wrap around to another year."""
    return bool(1678 <= period.year <= 2261)


def _is_unclear(text: str) -> bool:
    """Whether a text names several years, of which only the first would be read, or a day in either order."""
    if re.fullmatch(r"\d{4}\s*,\s*\d{4}", text):
        return True
    found = re.match(r"(\d{1,2})[./-](\d{1,2})[./-]\d{4}", text)
    return found is not None and max(map(int, found.groups())) <= 12 and int(found[1]) != int(found[2])


def describe_times(available: np.ndarray) -> str:
    """A short list of times: years where each is the start of one."""
    stamps = pd.DatetimeIndex(stamps_of(available))
    if len(stamps) == 0:
        return "no times"
    yearly = ((stamps.month == 1) & (stamps.day == 1)).all()
    names = sorted({str(s.year) if yearly else s.strftime("%Y-%m-%d") for s in stamps})
    return ", ".join(names) if len(names) <= 12 else f"{names[0]} … {names[-1]} ({len(names)} of them)"


def year(array: xr.DataArray, when: TimeLike) -> xr.DataArray:
    """One year (or date), without the ``time`` dimension.

    Parameters
    ----------
    array : DataArray (time, …)
        Array with a ``time`` dimension.
    when : int or str
        The year.

    Returns
    -------
    DataArray
        Without ``time`` as a dimension; it stays as a scalar coordinate.

    Raises
    ------
    EmbeddingError
        If the array has no ``time``, or more than one period starts in that year.
    CoverageError
        If the year is not there; the message lists the years.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(4, 5), years=[2018, 2024])
    >>> da.emb.year(2024).dims
    ('band', 'y', 'x')
    """
    if "time" not in array.dims:
        if "time" in array.coords:
            pick_times(np.atleast_1d(array.coords["time"].values), when)
            return array
        raise EmbeddingError(f"year needs a 'time' dimension; got dims {tuple(array.dims)}")
    positions = pick_times(array.coords["time"].values, when)
    if positions.size != 1:
        times = describe_times(array.coords["time"].values[positions])
        raise EmbeddingError(
            f"{positions.size} periods match {when!r} ({times}); give a date, or aggregate them"
        )
    return array.isel(time=int(positions[0]))


def times_of_years(years: Iterable[int]) -> np.ndarray:
    """Years as starts of years, datetime64[ns]."""
    return np.array([f"{int(y):04d}-01-01" for y in years], "datetime64[ns]")
