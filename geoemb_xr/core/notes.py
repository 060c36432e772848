"""Notes: what a user should know, said in a line each time it is true, and without a warning.

Notes go to the logger ``geoemb_xr`` at level INFO, and to the standard error stream where the application has not
set up logging itself. ``logging.getLogger("geoemb_xr").setLevel("WARNING")`` silences them all.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

logger = logging.getLogger("geoemb_xr")


class _NoteHandler(logging.StreamHandler[Any]):
    """Shows our notes where the application has not set up logging itself."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            self.stream = sys.stderr  # looked up at each call: notebooks and tests exchange it
            super().emit(record)


logger.addHandler(_NoteHandler())
if logger.level == logging.NOTSET:
    logger.setLevel(logging.INFO)


#: What the call in progress has said already; None outside of any.
_said: ContextVar[set[str] | None] = ContextVar("said", default=None)


@contextmanager
def one_call() -> Iterator[None]:
    """What happens inside is one call of a user, which says a thing once, of however many files it is true.

    It decorates public functions that may come upon the same thing several times; calls of others inside belong to
    the outermost.

    Examples
    --------
    >>> with one_call():
    ...     say("the first of two files has no date")
    ...     say("the first of two files has no date")
    """
    if _said.get() is not None:
        yield
        return
    token = _said.set(set())
    try:
        yield
    finally:
        _said.reset(token)


def say(message: str) -> None:
    """Tell the user something: each time it is true, at most once in a call (:func:`one_call`)."""
    said = _said.get()
    if said is not None:
        if message in said:
            return
        said.add(message)
    logger.info("geoemb_xr: %s", message)
