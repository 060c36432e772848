"""Objects as files: one state of an object, read by ranges, what was read of its header kept."""

from __future__ import annotations

import io
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from geoemb_xr.stores.http import ObjectChangedError
from geoemb_xr.stores.objects import NO_ETAG, coming_ranges, fetch, get_ranges
from geoemb_xr.stores.storage import Storage, current, using

#: What the first request brings, and what a small read brings at least: headers lie side by side.
FIRST_BYTES = 1 << 16
_AHEAD = 1 << 16
#: Ranges that lie closer are asked for as one.
_GAP = 1 << 15
_LARGEST = 16 << 20
#: So many small pieces of an object are kept: a header, and no file of small columns.
_MOST_PIECES = 64


def joined_ranges(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges as they are asked for: neighbours as one.

    Examples
    --------
    >>> joined_ranges([(100, 200), (0, 90), (5_000_000, 5_000_010)])
    [(0, 200), (5000000, 5000010)]
    """
    found: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if found and start - found[-1][1] <= _GAP and stop - found[-1][0] <= _LARGEST:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return found


class RemoteObject:
    """One state of an object: its size and ETag, and the small pieces of it that were read.

    Parameters
    ----------
    url : str
        URL of the object.
    from_end : bool
        Whether the first request is for the end, where Parquet keeps its metadata.
    """

    def __init__(self, url: str, *, from_end: bool = False) -> None:
        self.storage = current()
        first = fetch(url, -_AHEAD) if from_end else fetch(url, 0, FIRST_BYTES)
        self.url, self.size, self.etag = url, first.size, first.etag
        #: What a reader has made out of the header, of each overview too: height, width, sides of stored blocks.
        self.layouts: dict[int | None, tuple[int, int, tuple[int, int]]] = {}
        self._lock = threading.Lock()
        self._starts, self._pieces = [first.start], [first.data]

    @property
    def state(self) -> str:
        """A key that changes when the file is rewritten."""
        return f"{self.size}-{self.etag}"

    def is_still(self, token: str) -> bool:
        """Whether the state matches a token ``size-ETag``, as far as both are known."""
        size, _, etag = token.partition("-")
        if not size.isdigit() or int(size) != self.size:
            return not size.isdigit()
        told = etag and self.etag and not etag.startswith(NO_ETAG)
        return not told or _bare(etag) == _bare(self.etag)

    def read(self, start: int, stop: int) -> bytes:
        """Some bytes; of what is small, more is read and kept."""
        stop = min(stop, self.size)
        if start >= stop:
            return b""
        with self._lock:
            at = bisect_right(self._starts, start) - 1
            if at >= 0 and stop <= self._starts[at] + len(self._pieces[at]):
                first = self._starts[at]
                return self._pieces[at][start - first : stop - first]
        if stop - start >= _AHEAD:
            return self.fetch([(start, stop)])[0]
        data = self.fetch([(start, min(start + _AHEAD, self.size))])[0]
        with self._lock:
            if len(self._starts) > _MOST_PIECES:
                self._starts, self._pieces = [], []
            at = bisect_right(self._starts, start)
            self._starts.insert(at, start)
            self._pieces.insert(at, data)
        return data[: stop - start]

    def fetch(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Ranges of this very state, side by side; neighbours as one request."""
        asked = joined_ranges(spans)
        with using(self.storage):
            bodies = get_ranges(self.url, asked, etag=self.etag)
        starts = [a for a, _ in asked]
        found = []
        for start, stop in spans:
            at = bisect_right(starts, start) - 1
            found.append(bodies[at][start - starts[at] : stop - starts[at]])
        return found

    @contextmanager
    def coming(
        self, spans: Sequence[tuple[int, int]], use: Callable[[int, np.ndarray], None] | None = None
    ) -> Iterator[tuple[np.ndarray, list[Future[bytes]]]]:
        """Fetch like :meth:`fetch`, but return at once: one body of all, and a task per range that ends with it.

        ``use`` is called with number and bytes of each range that came, in the thread that brought it.
        """
        asked = joined_ranges(spans)
        starts = [a for a, _ in asked]
        places = np.cumsum([0, *(stop - start for start, stop in spans)])
        body = np.empty(int(places[-1]), np.uint8)
        of_range = [bisect_right(starts, start) - 1 for start, _ in spans]
        inside: dict[int, list[int]] = {}
        for number, at in enumerate(of_range):
            inside.setdefault(at, []).append(number)

        def put(at: int, data: bytes) -> None:
            came = np.frombuffer(data, np.uint8)
            for number in inside[at]:
                start, stop = (each - starts[at] for each in spans[number])
                part = body[places[number] : places[number + 1]]
                part[:] = came[start:stop]
                if use is not None:
                    use(number, part)

        with using(self.storage), coming_ranges(self.url, asked, etag=self.etag, use=put) as tasks:
            yield body, [tasks[at] for at in of_range]


def _bare(etag: str) -> str:
    """Return an ETag without its marks, which listings and headers write differently."""
    return etag.removeprefix("W/").strip('"')


#: Objects of which headers are kept, by URL, token and storage.
_MOST_OBJECTS = 128
_kept: OrderedDict[tuple[str, str, Storage], RemoteObject] = OrderedDict()
_keeping = threading.Lock()
#: Objects that were looked at within one call.
_looked_at: ContextVar[dict[tuple[str, Storage], RemoteObject] | None] = ContextVar("looked_at", default=None)


@contextmanager
def one_state_per_object() -> Iterator[None]:
    """Look up each object once inside the block, so that all readers there work with one state of it."""
    token = _looked_at.set({})
    try:
        yield
    finally:
        _looked_at.reset(token)


def object_now(url: str) -> RemoteObject:
    """An object in its current state, kept for later readers of the same state where it has an ETag."""
    looked_at = _looked_at.get()
    found = None if looked_at is None else looked_at.get((url, current()))
    if found is None:
        found = RemoteObject(url)
        if looked_at is not None:
            looked_at[url, current()] = found
        if found.etag and not found.etag.startswith(NO_ETAG):
            _keep(url, found.state, found)
    return found


def remote_object(url: str, token: str) -> RemoteObject:
    """An object of which a header is read, once for each ``token`` in a process.

    Raises
    ------
    ObjectChangedError
        If ``token`` is the state of another one.
    """
    with _keeping:
        found = _kept.get((url, token, current()))
        if found is not None:
            _kept.move_to_end((url, token, current()))
    if found is None:
        found = RemoteObject(url)
        _keep(url, token, found)
    if not found.is_still(token):
        forget()
        raise replaced(url)
    return found


def _keep(url: str, token: str, found: RemoteObject) -> None:
    with _keeping:
        _kept[url, token, current()] = found
        _kept.move_to_end((url, token, current()))
        while len(_kept) > _MOST_OBJECTS:
            _kept.popitem(last=False)


def replaced(url: str) -> ObjectChangedError:
    """The error for an object that changed after it was opened."""
    return ObjectChangedError(f"{url} was replaced since it was opened; open it again")


def state_of_file(path: str) -> str:
    """What changes when a local file is rewritten: its size and its modification time."""
    return state_in(os.stat(path))


def state_in(stat: os.stat_result) -> str:
    """The :func:`state_of_file` by what the system says of it."""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def check_unchanged(path: str, token: str, name: str = "") -> None:
    """Raise where a local file is another one than when it was opened; one that is gone is told by who reads it.

    Parameters
    ----------
    path : str
        The file.
    token : str
        Its :func:`state_of_file` then; where it is empty nothing is looked at.
    name : str
        What was replaced, for the message, where that is more than the file.

    Raises
    ------
    ObjectChangedError
        Naming it.
    """
    try:
        is_same = not token or state_of_file(path) == token
    except FileNotFoundError:
        return
    if not is_same:
        raise replaced(name or path)


def forget() -> None:
    """Forget the headers that were read: an object was replaced."""
    with _keeping:
        _kept.clear()


class ObjectFile(io.RawIOBase):
    """An object as a file that is read by ranges.

    Errors of reads are kept in ``errors``, for callers in C that cannot be told of it.
    """

    def __init__(self, of: RemoteObject | str) -> None:
        self.object = of if isinstance(of, RemoteObject) else RemoteObject(of, from_end=True)
        self.held: dict[int, tuple[memoryview, Future[bytes] | None]] = {}
        self.errors: list[Exception] = []
        self._at = 0

    def again(self) -> ObjectFile:
        """Another file on the same object, with a position of its own."""
        other = ObjectFile(self.object)
        other.held, other.errors = self.held, self.errors
        return other

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
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.object.size}[whence]
        return self._at

    def hold(
        self, spans: Sequence[tuple[int, int]], body: Any, coming: Sequence[Future[bytes]] | None = None
    ) -> None:
        """Keep the bytes of ranges that are about to be read: in ``body``, or on their way there."""
        self.held.clear()
        view, at = memoryview(body), 0
        for number, (start, stop) in enumerate(spans):
            self.held[start] = view[at : at + stop - start], None if coming is None else coming[number]
            at += stop - start

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        stop = self.object.size if size < 0 else self._at + size
        held, coming = self.held.get(self._at, (None, None))
        try:
            if held is not None and stop - self._at <= len(held):
                if coming is not None:
                    coming.result()
                data = bytes(held[: stop - self._at])
            else:
                data = self.object.read(self._at, stop)
        except Exception as error:  # GDAL hides it behind an error of its own: kept for who called GDAL
            self.errors.append(error)
            raise
        self._at += len(data)
        return data

    def readinto(self, buffer: object) -> int:
        """Fill a buffer."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


def open_object(url: str) -> ObjectFile:
    """An object as a file whose end is read first, as Parquet's is."""
    return ObjectFile(url)
