"""A bar for what takes long, nothing for what does not, nothing that stays, and no waiting for it."""

import logging
import sys
import threading
import time
from types import SimpleNamespace

import dask
import pytest

from geoemb_xr.core import notes
from geoemb_xr.execution import progress


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that only the tasks move, so that nothing here depends on the speed of the machine."""
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(progress, "_canvas", progress._Terminal)


def work(n, clock, seconds=1.0):
    def step(_):
        clock[0] += seconds

    return dask.compute(*[dask.delayed(step, pure=False)(i) for i in range(n)], num_workers=1)


def test_what_is_done_soon_shows_nothing(capsys, clock):
    with progress.shown("sum"):
        work(3, clock, progress.PATIENCE / 4)
    assert capsys.readouterr() == ("", "")


def test_a_bar_in_a_terminal_is_wiped_at_the_end(capsys, clock, terminal):
    with progress.shown("sum"), progress.shown("inner"):
        work(6, clock)
    out, err = capsys.readouterr()
    assert out == ""
    *drawn, wiped, rest = err.split("\r")[1:]
    # from the second second on, at each task's end
    assert [each.partition("]")[2] for each in drawn] == [
        "  33%, 2 s", "  50%, 3 s", "  67%, 4 s", "  83%, 5 s", " 100%, 6 s",
    ]  # fmt: skip
    assert all(each.startswith("sum [#") for each in drawn)
    assert (wiped, rest) == (" " * len(drawn[-1]), "")


def test_a_log_has_one_line_per_step_however_often_it_computes(capsys, clock):
    with progress.shown("sum"):
        work(3, clock)
        work(3, clock)
    assert capsys.readouterr() == ("", "sum: 6.0 s\n")


def test_a_notebook_has_a_bar_that_vanishes_and_nothing_on_the_error_stream(capsys, monkeypatch, clock):
    shown = []

    class Handle:
        def update(self, what):
            shown.append(what._repr_html_())

    def display(what, display_id):
        shown.append(what._repr_html_())
        return Handle()

    ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    with progress.shown("a <b>"):
        work(6, clock)
    assert len(shown) == 6
    assert "a &lt;b&gt; <progress value='0.333'" in shown[0]
    assert shown.pop() == ""
    with monkeypatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", [])  # as an application that set up none
        notes.say("5 labels < 6")
    assert "geoemb_xr: 5 labels &lt; 6" in shown[-1]
    assert capsys.readouterr() == ("", "")


def test_an_error_wipes_the_bar(capsys, clock, terminal):
    def fail(_):
        raise ZeroDivisionError("no")

    def step():
        clock[0] += 3.0

    with pytest.raises(ZeroDivisionError, match="no"), progress.shown("sum"):
        dask.compute(dask.delayed(fail)(dask.delayed(step, pure=False)()))
    assert capsys.readouterr().err.endswith("\r")
    with progress.shown("sum"):
        work(1, clock, 0.1)
    assert capsys.readouterr().err == ""


def test_a_bar_makes_nothing_wait(monkeypatch):
    """No thread draws it, as dask's own does, which ends up to 0.2 s after the work."""

    def never(*_):
        raise AssertionError("a bar started a thread or slept")

    monkeypatch.setattr(threading.Thread, "start", never)
    monkeypatch.setattr(time, "sleep", never)
    with progress.shown("sum"):
        assert dask.compute(dask.delayed(int)(1), scheduler="synchronous") == (1,)
