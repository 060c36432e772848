"""Object stores: anonymous where the user has set up no credentials, tried again before a read fails."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any

from geoemb_xr.core.errors import SourceError, require
from geoemb_xr.stores.credentials import environment, s3_options


def is_remote(path: str) -> bool:
    """Whether a path is read over the network."""
    return "://" in path or path.startswith("/vsi")


#: Errors of connections, 429 and 5xx are tried again with jitter, over more than a minute's outage, then raised.
RETRIES: Any = {
    "max_retries": 20,
    "retry_timeout": timedelta(seconds=90),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=10),
        "base": 2,
    },
}


def object_store(url: str) -> Any:
    """An obstore store of a folder's URL.

    Raises
    ------
    MissingExtraError
        If obstore is not installed.
    """
    options = tuple(s3_options().items()) if url.startswith("s3://") else ()
    return _store(url, options, environment())


@lru_cache(maxsize=64)
def _store(url: str, options: tuple[tuple[str, Any], ...], state: tuple[tuple[str, str], ...]) -> Any:
    """A store with its options; ``state`` makes one with other credentials another store."""
    stores = require("obstore.store", "remote")
    if url.startswith("file://"):
        return stores.from_url(url)
    return stores.from_url(url, retry_config=RETRIES, **dict(options))


def get_range(url: str, start: int, length: int) -> bytes:
    """Some bytes of an object."""
    return bytes(_ask(url, "get_range", start=start, length=length))


class ObjectFile(io.RawIOBase):
    """An object as a file that is read by ranges, one request a read (obstore's own reader is no Python file)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.length = int(_head(url)["size"])
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.length}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with one request."""
        count = max(min(len(buffer), self.length - self._at), 0)
        if count:
            buffer[:count] = get_range(self.url, self._at, count)
        self._at += count
        return count


def open_object(url: str) -> ObjectFile:
    """An object as a file."""
    return ObjectFile(url)


def head_object(url: str) -> str:
    """What changes when an object is rewritten: its size and ETag."""
    meta = _head(url)
    return f"{meta['size']}-{meta.get('e_tag') or meta.get('last_modified')}"


def object_size(url: str) -> int | None:
    """Bytes of an object or a local file; None where there is none."""
    if not is_remote(url):
        try:
            return os.stat(url).st_size
        except FileNotFoundError:
            return None
    try:
        return int(_head(url)["size"])
    except FileNotFoundError:
        return None


def _head(url: str) -> Any:
    return _ask(url, "head")


def _ask(url: str, request: str, **options: Any) -> Any:
    """One request for an object; what the store answers in a page of text is said in a line."""
    obstore = require("obstore", "remote")
    errors = require("obstore.exceptions", "remote")
    folder, _, name = url.rpartition("/")
    try:
        with said_in_a_line(url):
            return getattr(obstore, request)(object_store(folder), name, **options)
    except (FileNotFoundError, errors.NotFoundError) as error:
        raise FileNotFoundError(f"no such object: {url}") from error


@contextmanager
def said_in_a_line(what: str) -> Iterator[None]:
    """What an object store answers in a page of text, as a :class:`SourceError` of a line."""
    try:
        yield
    except Exception as error:  # of obstore, which may not be installed: told by its name, all else goes on
        kind = type(error)
        if not kind.__module__.startswith("obstore") or kind.__name__ == "NotFoundError":
            raise
        reason = str(error).strip().partition("\n")[0][:200]
        raise SourceError(
            f"{what} could not be read: {reason}. Is there a network? Offline, give a local copy as the source, "
            "or a synthetic one: gx.example(product)"
        ) from error
