"""A bar for what takes long, nothing for what does not, and no waiting for it."""

import threading
import time
from types import SimpleNamespace

import dask
import pytest

from geoemb_xr.execution import progress


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that only the tasks move, so that nothing here depends on the speed of the machine."""
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


def work(n, clock, seconds=1.0):
    def step(_):
        clock[0] += seconds

    return dask.compute(*[dask.delayed(step, pure=False)(i) for i in range(n)], num_workers=1)


def test_what_is_done_soon_shows_nothing(capsys, clock):
    with progress.shown("sum"):
        work(3, clock, progress.PATIENCE / 4)
    assert capsys.readouterr() == ("", "")


def test_what_takes_long_shows_a_bar_with_its_label(capsys, clock):
    with progress.shown("sum"), progress.shown("inner"):
        work(6, clock)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    drawn = err.strip().split("\r")
    # from the second second on, each task's end, and the end of all
    assert [each.partition("]")[2] for each in drawn] == [
        "  33%, 2 s", "  50%, 3 s", "  67%, 4 s", "  83%, 5 s", " 100%, 6 s", " 100%, 6 s",
    ]  # fmt: skip
    assert all(each.startswith("sum [#") for each in drawn)


def test_a_bar_is_drawn_a_few_times_a_second_at_most(capsys, clock):
    with progress.shown("sum"):
        work(100, clock, 0.125)
    assert (
        40 < capsys.readouterr().err.count("\r") < 46
    )  # every second one of 84 tasks after the first two seconds


def test_an_error_ends_the_bar(capsys, clock):
    def fail(_):
        clock[0] += 3
        raise ZeroDivisionError("no")

    def slow(_):
        clock[0] += 3

    with pytest.raises(ZeroDivisionError, match="no"), progress.shown("sum"):
        dask.compute(dask.delayed(fail)(dask.delayed(slow)(0)))
    err = capsys.readouterr().err
    assert err.endswith("\n")
    assert "100%" not in err
    with progress.shown("sum"):
        work(1, clock, 3)
    assert "100%" in capsys.readouterr().err


def test_a_bar_makes_nothing_wait(monkeypatch):
    """No thread draws it, as dask's own does, which ends up to 0.2 s after the work."""

    def never(*_):
        raise AssertionError("a bar started a thread or slept")

    monkeypatch.setattr(threading.Thread, "start", never)
    monkeypatch.setattr(time, "sleep", never)
    with progress.shown("sum"):
        assert dask.compute(dask.delayed(int)(1), scheduler="synchronous") == (1,)
