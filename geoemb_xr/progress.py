"""A progress bar for what computes at once and takes long."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

#: Whatever is done sooner, in seconds, shows nothing.
PATIENCE = 2.0
_showing: ContextVar[bool] = ContextVar("showing", default=False)


@dataclass
class _Labelled:
    """Standard error with a label before dask's bar."""

    label: str

    def write(self, text: str) -> None:
        sys.stderr.write(text.replace("\r", f"\r{self.label} ", 1))

    def flush(self) -> None:
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
    from dask.diagnostics import ProgressBar

    if _showing.get():
        yield
        return
    token = _showing.set(True)
    bar: Any = ProgressBar(minimum=PATIENCE, dt=0.2, out=_Labelled(label))
    try:
        with bar:
            yield
    finally:
        _showing.reset(token)
