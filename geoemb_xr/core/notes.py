"""Notes: one-line messages to the user, given each time they apply, that are not warnings.

Notes go to the logger ``geoemb_xr`` at level INFO. Where the application has not set up logging itself they are
shown too: as a line on the standard error stream, or in a notebook as a small line under the cell.
``logging.getLogger("geoemb_xr").setLevel("WARNING")`` silences them all.
"""

from __future__ import annotations

import html
import importlib
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

logger = logging.getLogger("geoemb_xr")


class _NoteHandler(logging.StreamHandler[Any]):
    """Shows our notes where the application has not set up logging itself."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.getLogger().handlers:
            return
        if in_notebook():
            small_line(html.escape(self.format(record)))
        else:
            self.stream = sys.stderr  # looked up at each call: notebooks and tests exchange it
            super().emit(record)


def in_notebook() -> bool:
    """Whether this runs in a notebook, where outputs may be HTML and the error stream is a red box."""
    running = sys.modules.get("IPython")  # every notebook has imported it
    shell = running.get_ipython() if running is not None and hasattr(running, "get_ipython") else None
    return hasattr(shell, "kernel")


def small_line(content: str) -> Any:
    """Show a small line of HTML under the cell of a notebook; its handle, to show another in its place."""
    shell = importlib.import_module("IPython.display")
    return shell.display(Small(content), display_id=True)


class Small:
    """HTML in the look of a note; nothing where it is empty."""

    def __init__(self, content: str) -> None:
        self.content = content

    def _repr_html_(self) -> str:
        return f"<small style='opacity:.7'>{self.content}</small>" if self.content else ""

    def __repr__(self) -> str:
        return re.sub("<[^>]+>", "", self.content)


logger.addHandler(_NoteHandler())
if logger.level == logging.NOTSET:
    logger.setLevel(logging.INFO)


#: What the call in progress has said already; None outside of any.
_said: ContextVar[set[str] | None] = ContextVar("said", default=None)


@contextmanager
def one_call() -> Iterator[None]:
    """Mark one call of a user, in which a note is given once, however many files it applies to.

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


#: Whether notes are silenced in the current context.
_silent: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence notes inside the block; other threads still give theirs."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def say(message: str) -> None:
    """Tell the user something: each time it is true, at most once in a call (:func:`one_call`)."""
    if _silent.get():
        return
    said = _said.get()
    if said is not None:
        if message in said:
            return
        said.add(message)
    logger.info("geoemb_xr: %s", message)
