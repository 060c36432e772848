"""A bar for what takes long, nothing for what does not, and no waiting for it."""

import time

import dask
import pytest

from geoemb_xr.execution import progress


def work(n, seconds=0.02):
    return dask.compute(*[dask.delayed(time.sleep, pure=False)(seconds) for _ in range(n)], num_workers=1)


def test_what_is_done_soon_shows_nothing(capsys):
    with progress.shown("sum"):
        work(3)
    assert capsys.readouterr() == ("", "")


def test_what_takes_long_shows_a_bar_with_its_label(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.03)
    monkeypatch.setattr(progress, "_PAUSE", 0.03)
    with progress.shown("sum"), progress.shown("inner"):
        work(6)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    drawn = err.strip().split("\r")
    assert len(drawn) > 2
    assert all(each.startswith("sum [") for each in drawn)
    assert "100%" in drawn[-1]
    assert "100%" not in drawn[0]


def test_an_error_ends_the_bar(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)

    def fail(_):
        raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError, match="no"), progress.shown("sum"):
        dask.compute(dask.delayed(fail)(dask.delayed(time.sleep)(0.01)))
    assert capsys.readouterr().err.endswith("\n")
    with progress.shown("sum"):
        work(1)


def test_a_bar_makes_nothing_wait():
    with progress.shown("sum"):
        dask.compute(dask.delayed(int)(1))  # starts the threads
        start = time.perf_counter()
        for _ in range(20):
            dask.compute(dask.delayed(int)(1))
    assert time.perf_counter() - start < 2.0  # dask's own bar takes 0.2 s each time: 4
