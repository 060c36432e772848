"""A progress bar for what computes at once and takes long."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from dask.callbacks import Callback

#: Whatever is done sooner, in seconds, shows nothing.
PATIENCE = 2.0
#: Between two drawings, in seconds.
_PAUSE = 0.2
_showing: ContextVar[bool] = ContextVar("showing", default=False)


class _Bar(Callback):  # type: ignore[misc]  # dask tells no types
    """A bar that is drawn as tasks end: dask's own draws from a thread, and ends up to its pause late."""

    def __init__(self, label: str) -> None:
        self.label = label
        super().__init__()

    def _start(self, dsk: Any) -> None:
        self.began = time.perf_counter()
        self.drawn = 0.0

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker_id: Any) -> None:
        now = time.perf_counter()
        if now - self.began >= PATIENCE and now - self.drawn >= _PAUSE:
            done = len(state["finished"])
            left = sum(len(state[kind]) for kind in ("ready", "waiting", "running"))
            self._draw(done / max(done + left, 1), now)

    def _finish(self, dsk: Any, state: Any, errored: bool) -> None:
        if self.drawn:
            if not errored:
                self._draw(1.0, time.perf_counter())
            sys.stderr.write("\n")

    def _draw(self, share: float, now: float) -> None:
        self.drawn = now
        bar = "#" * int(40 * share)
        sys.stderr.write(f"\r{self.label} [{bar:<40}] {share:4.0%}, {now - self.began:.0f} s")
        sys.stderr.flush()


@contextmanager
def shown(label: str) -> Iterator[None]:
    """Show a progress bar for dask's work inside the block, once that has taken two seconds.

    One bar at a time: what runs inside another's block shows none of its own. With a cluster, dask's own
    dashboard is the place to look, and nothing is shown here.

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
    try:
        with _Bar(label):
            yield
    finally:
        _showing.reset(token)
