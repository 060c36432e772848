"""Retries of requests with jitter and a deadline; then an error is raised, and never a hole left."""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from geoemb_xr.core.errors import SourceError
from geoemb_xr.stores.storage import Storage

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 10.0
#: Statuses that may be another one soon; all other refusals are final.
TRANSIENT = frozenset((408, 425, 429, 500, 502, 503, 504))


#: Seconds until a host is given up that cannot be found or refuses connections, and never answered before: without
#: a network it never will. One that did answer is down for a while.
UNREACHED = 10.0
_MOST_HOSTS = 256
_answered: OrderedDict[str, None] = OrderedDict()


class Transient(Exception):
    """An error after which a request may be tried again, with the server's waiting time where it gives one.

    Parameters
    ----------
    reason : str
        Reason for the message.
    wait : float, optional
        Seconds that the server asks to wait.
    unreached : bool
        Whether there was no connection at all: the host was not found, or refused it.
    """

    def __init__(self, reason: str, wait: float | None = None, *, unreached: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.unreached = wait, unreached


def _has_answered(host: str) -> None:
    _answered[host] = None
    while len(_answered) > _MOST_HOSTS:
        _answered.popitem(last=False)


def persistently[T](attempt: Callable[[], T], what: str, storage: Storage) -> T:
    """Call a function until it succeeds, and return its result.

    Parameters
    ----------
    attempt : callable
        Raises :class:`Transient` for what is worth another try.
    what : str
        The object, and which bytes of it, for the message.
    storage : Storage
        With the deadline, and how many tries there are. A host that was never reached is given up sooner.

    Raises
    ------
    SourceError
        If none goes well in time: naming the object, the bytes, and how the last attempt ended.
    """
    start = time.monotonic()
    tries = 0
    host = "/".join(what.split("/")[:3])
    while True:
        try:
            found = attempt()
            _has_answered(host)
            return found
        except Transient as error:
            tries += 1
            taken = time.monotonic() - start
            if not error.unreached:
                _has_answered(host)
            left = (storage.timeout if host in _answered else min(storage.timeout, UNREACHED)) - taken
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
    """Return the seconds that ``Retry-After`` asks for, given as seconds or as a date.

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
