"""A request is tried again, with jitter and a deadline, then it raises: it never becomes a hole."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from geoemb_xr.core.errors import SourceError
from geoemb_xr.stores.storage import Storage

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 10.0
#: Statuses that may be another one soon; all other refusals are final.
TRANSIENT = frozenset((408, 425, 429, 500, 502, 503, 504))


class Transient(Exception):
    """What may go well when it is tried again, after as many seconds as the server says, where it says so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def persistently[T](attempt: Callable[[], T], what: str, storage: Storage) -> T:
    """The result of the first attempt that goes well.

    Parameters
    ----------
    attempt : callable
        Raises :class:`Transient` for what is worth another try.
    what : str
        The object, and which bytes of it, for the message.
    storage : Storage
        With the deadline, and how many tries there are.

    Raises
    ------
    SourceError
        If none goes well in time: naming the object, the bytes, and how the last attempt ended.
    """
    start = time.monotonic()
    tries = 0
    while True:
        try:
            return attempt()
        except Transient as error:
            tries += 1
            taken = time.monotonic() - start
            left = storage.timeout - taken
            wait = error.wait
            if wait is None:
                longest = min(_FIRST_WAIT * 2 ** min(tries - 1, 10), _LONGEST_WAIT)
                wait = min(longest * random.uniform(0.5, 1.0), max(left, 0.0))
            if tries > storage.retries or left <= 0 or wait > left:
                asks = f"; it asks to wait {wait:.0f} s" if error.wait is not None else ""
                raise SourceError(
                    f"{what} could not be read: {error}{asks}, in {tries} {'tries' if tries > 1 else 'try'} and "
                    f'{taken:.0f} s. storage={{"timeout": seconds, "retries": n}} says how long to go on. '
                    "Is there a network? Offline, give a local copy as the source"
                ) from error
            time.sleep(wait)


def seconds_of(header: str | None) -> float | None:
    """What ``Retry-After`` asks for: seconds, or a date.

    Examples
    --------
    >>> seconds_of("2"), seconds_of(None), seconds_of("soon")
    (2.0, None, None)
    """
    if header is None:
        return None
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None
