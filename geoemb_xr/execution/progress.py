"""Progress bars of long computations, which vanish when they are done.

A terminal has a line that is drawn again and again, and wiped at the end; a notebook has a bar of its own, not the
red box of an error stream. A log file, where neither can be, has one line per step when it is done.
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from dask.callbacks import Callback

from geoemb_xr.core.notes import Small, in_notebook, small_line

#: Whatever is done sooner, in seconds, shows nothing.
PATIENCE = 2.0
#: Between two drawings, in seconds.
_PAUSE = 0.2
_showing: ContextVar[bool] = ContextVar("showing", default=False)


class _Bar(Callback):  # type: ignore[misc]  # dask tells no types
    """A bar that is drawn as tasks end; dask's own draws from a thread, and ends late by up to its interval."""

    def __init__(self, label: str, patience: float) -> None:
        self.label, self.patience = label, patience
        self.began = time.perf_counter()
        self.drawn = 0.0
        self.canvas = _canvas()
        super().__init__()

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker_id: Any) -> None:
        now = time.perf_counter()
        if now - self.began >= self.patience and now - self.drawn >= _PAUSE:
            done = len(state["finished"])
            left = sum(len(state[kind]) for kind in ("ready", "waiting", "running"))
            self.drawn = now
            self.canvas.draw(self.label, done / max(done + left, 1), now - self.began)

    def close(self) -> None:
        """Wipe the bar, or write the one line that tells of the step."""
        seconds = time.perf_counter() - self.began
        self.canvas.close(self.label, seconds if seconds >= self.patience else None)


class _Terminal:
    """A line that is drawn over, and wiped at the end."""

    width = 0

    def draw(self, label: str, share: float, seconds: float) -> None:
        line = f"{label} [{'#' * int(40 * share):<40}] {share:4.0%}, {seconds:.0f} s"
        self.width = max(self.width, len(line))
        sys.stderr.write(f"\r{line:<{self.width}}")
        sys.stderr.flush()

    def close(self, label: str, seconds: float | None) -> None:
        if self.width:
            sys.stderr.write(f"\r{'':<{self.width}}\r")
            sys.stderr.flush()


class _Notebook:
    """A bar of HTML under the cell, and nothing once it is done."""

    handle: Any = None

    def draw(self, label: str, share: float, seconds: float) -> None:
        bar = f"<progress value='{share:.3f}' max='1'></progress>"
        text = f"{html.escape(label)} {bar} {share:.0%}, {seconds:.0f} s"
        if self.handle is None:
            self.handle = small_line(text)
        else:
            self.handle.update(Small(text))

    def close(self, label: str, seconds: float | None) -> None:
        if self.handle is not None:
            self.handle.update(Small(""))


class _Log:
    """Write one line when the step is done."""

    def draw(self, label: str, share: float, seconds: float) -> None:
        pass

    def close(self, label: str, seconds: float | None) -> None:
        if seconds is not None:
            sys.stderr.write(f"{label}: {seconds:.1f} s\n")


def _canvas() -> _Terminal | _Notebook | _Log:
    if in_notebook():
        return _Notebook()
    return _Terminal() if sys.stderr.isatty() else _Log()


@contextmanager
def shown(label: str, *, patience: float | None = None) -> Iterator[None]:
    """Show progress of dask's work inside the block, once that has taken two seconds.

    One bar at a time: what runs inside another's block shows none of its own. With a cluster, dask's own
    dashboard is the place to look, and no bar is shown here.

    Parameters
    ----------
    label : str
        Name of the work.
    patience : float, optional
        Seconds after which something is shown; two by default.

    Examples
    --------
    >>> import dask.array as da
    >>> with shown("sum"):
    ...     int(da.ones(3).sum().compute())
    3
    """
    if _showing.get():
        yield
        return
    token = _showing.set(True)
    bar = _Bar(label, PATIENCE if patience is None else patience)
    try:
        with bar:
            yield
    finally:
        bar.close()
        _showing.reset(token)
