"""Notes: what a user should know, said in a line and without a warning."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


# --- notes: what a user should know once, without a warning -------------------------------------------------

logger = logging.getLogger("geoemb_xr")


_said: set[str] = set()


class _NoteHandler(logging.StreamHandler[Any]):
    """Shows our notes where the application has not set up logging itself."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            self.stream = sys.stderr  # looked up at each call: notebooks and tests exchange it
            super().emit(record)


def say(message: str) -> None:
    """Tell the user something once in a session (logger ``geoemb_xr``, level INFO)."""
    if message in _said:
        return
    _said.add(message)
    if not logger.handlers:
        logger.addHandler(_NoteHandler())
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    logger.info("geoemb_xr: %s", message)
