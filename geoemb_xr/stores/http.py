"""Ranges of objects over HTTP, with answers checked against the request."""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from geoemb_xr._version import __version__
from geoemb_xr.core.errors import SourceError, require
from geoemb_xr.stores.retries import TRANSIENT, Transient, seconds_of
from geoemb_xr.stores.storage import Storage

#: Seconds without a byte after which a connection has stalled.
STALL = 10.0
CONNECT = 10.0
#: Bytes a second below which an answer is given up once its time is over.
SLOWEST = 50_000
_PIECE = 1 << 20
#: Bytes of an object that may come whole where a part was asked for, or none was said to be all.
_LARGEST_WHOLE = 1 << 30
#: Most addresses that are followed for one URL, its own included.
_MOST_REDIRECTS = 6
#: Headers that are not sent to another host.
_SECRET = ("authorization", "cookie", "proxy-authorization")


def stall_of(storage: Storage) -> float:
    """Seconds without a byte after which a request is tried again, short enough to leave time for it."""
    return min(STALL, storage.timeout / 3)


@dataclass(frozen=True)
class Answer:
    """Bytes of an object, and the facts from the answer's headers."""

    data: bytes
    start: int
    size: int  # of the whole object
    etag: str


class ObjectChangedError(SourceError):
    """An object changed while it was read."""


def changed(url: str) -> ObjectChangedError:
    """The error for an object that changed."""
    return ObjectChangedError(f"{url} was replaced while it was read; open it again to read the new one")


def get(url: str, storage: Storage, span: tuple[int, int | None] | None, etag: str, method: str) -> Answer:
    """One try of one request.

    Parameters
    ----------
    span : (int, int or None), optional
        First byte and the one after the last; a negative first counts from the end.
    etag : str
        The expected state of the object, where it is known.

    Raises
    ------
    Transient
        For what another try may mend.
    FileNotFoundError
        If there is no such object.
    SourceError
        If it is refused, or was changed.
    """
    urllib3 = require("urllib3", "remote")
    headers = {"User-Agent": f"geoemb_xr/{__version__}", "Accept-Encoding": "identity", **_extra(storage)}
    if span is not None and method == "GET":
        first, stop = span
        headers["Range"] = (
            f"bytes={first}-{'' if stop is None else stop - 1}" if first >= 0 else f"bytes={first}"
        )
    if etag and not etag.startswith("W/"):  # a weak one never matches
        headers["If-Match"] = etag
    ends = monotonic() + storage.timeout
    try:
        answer = _follow(method, url, headers, storage)
        try:
            _check_status(answer, url)
            return _checked(answer, url, span, etag, method, ends)
        finally:
            answer.release_conn() if answer.isclosed() else answer.close()
    except urllib3.exceptions.HTTPError as error:
        refused = urllib3.exceptions.NewConnectionError  # or not found; a time-out is neither
        unreached = isinstance(getattr(error, "reason", error), refused)
        raise Transient(_reason_of(error), unreached=unreached) from error


def _follow(method: str, url: str, headers: dict[str, str], storage: Storage) -> Any:
    """The answer of where a URL leads to, without another request where it leads nowhere else.

    Credentials stay with the host that they are for, and nothing is asked of one that does not encrypt.
    """
    urllib3 = require("urllib3", "remote")
    waits = urllib3.Timeout(connect=min(CONNECT, storage.timeout / 3), read=stall_of(storage))
    at = _quoted(url)
    for _ in range(_MOST_REDIRECTS):
        answer = _pool(os.getpid(), _proxy_for(at)).urlopen(
            method,
            at,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=waits,
        )
        location = answer.get_redirect_location()
        if not location:
            return answer
        answer.drain_conn()
        target = urljoin(at, location)
        if not target.startswith("https://") and not (target.startswith("http://") and storage.allow_http):
            raise SourceError(f"{url} sends on to {target.partition('?')[0]}, which is not encrypted")
        if urlsplit(target).netloc != urlsplit(at).netloc:
            headers = {name: value for name, value in headers.items() if name.lower() not in _SECRET}
        at = target
    raise SourceError(f"{url} sends on more than {_MOST_REDIRECTS - 1} times, and leads nowhere")


def _reason_of(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    text = re.sub(r"^<.*?>: |^HTTPS?ConnectionPool\(.*?\): |^\w+\(host=.*?\): ", "", str(reason or error))
    return f"{type(error).__name__}: {text}"[:200]


def _check_status(answer: Any, url: str) -> None:
    status = int(answer.status)
    if status in (200, 206):
        return
    if status in (404, 410):
        raise FileNotFoundError(f"no such object: {url} (status {status})")
    if status == 412:
        raise changed(url)
    if status in TRANSIENT:
        raise Transient(f"status {status}", seconds_of(answer.headers.get("Retry-After")))
    if status in (401, 403):
        raise SourceError(
            f"{url} is not there, or may not be read: status {status}. Credentials go into storage= or the "
            "environment"
        )
    raise SourceError(f"{url} could not be read: status {status}")


def _checked(
    answer: Any, url: str, span: tuple[int, int | None] | None, etag: str, method: str, ends: float
) -> Answer:
    """Check that a body is the whole requested range of the right object, and return it."""
    found = str(answer.headers.get("ETag") or "")
    if etag and found and _strong(found) != _strong(etag):
        raise changed(url)
    encoding = str(answer.headers.get("Content-Encoding") or "identity")
    if encoding != "identity":
        raise SourceError(f"{url} comes encoded as {encoding}, though its bytes as they are were asked for")
    length = str(answer.headers.get("Content-Length") or "")
    stated = int(length) if length.isdecimal() else -1
    if method == "HEAD":
        return Answer(b"", 0, stated, found or str(answer.headers.get("Last-Modified") or ""))
    if answer.status == 200 and span is not None and stated > _LARGEST_WHOLE:
        raise SourceError(
            f"{url} is on a server that sends no parts of objects, but all {stated / 2**20:,.0f} MB each time; "
            "download it, and give the file"
        )
    start, stop, size = 0, stated, stated
    if answer.status == 206:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", str(answer.headers.get("Content-Range") or ""))
        if match is None:
            raise Transient(f"it answers with the range {answer.headers.get('Content-Range')!r}")
        start, stop = int(match[1]), int(match[2]) + 1
        size = int(match[3]) if match[3] != "*" else -1
        span = span or (0, None)
        first = span[0] if span[0] >= 0 else max(size + span[0], 0)
        last = size if span[1] is None else min(span[1], size) if size >= 0 else span[1]
        if (start, stop) != (first, last):
            raise Transient(f"bytes {first}–{last} were asked for, {start}–{stop} came")
    pieces: list[bytes] = []
    came, most = 0, stop - start if stop >= 0 else _LARGEST_WHOLE
    ends = max(ends, monotonic() + max(stop - start, 0) / SLOWEST)
    while piece := answer.read(_PIECE):
        pieces.append(piece)
        came += len(piece)
        if monotonic() > ends:
            raise Transient(f"only {came} of {stop - start} bytes came in time")
        if came > most:
            raise Transient(f"more than the {most} bytes came that are there")
    body = b"".join(pieces)
    if stop >= 0 and len(body) != stop - start:
        raise Transient(f"only {len(body)} of {stop - start} bytes came")
    if answer.status == 200:  # a server without ranges sends it all
        size = len(body)
        if span is not None:
            first = span[0] if span[0] >= 0 else max(size + span[0], 0)
            return Answer(body[first : span[1]], first, size, found)
    return Answer(body, start, size, found)


def _strong(etag: str) -> str:
    return etag.removeprefix("W/")


def _extra(storage: Storage) -> dict[str, str]:
    """Headers of the caller's."""
    client = dict(dict(storage.options).get("client_options") or ())
    return {str(name): str(value) for name, value in dict(client.get("default_headers") or ()).items()}


@lru_cache(maxsize=256)
def _quoted(url: str) -> str:
    """A URL whose path may have been written with spaces."""
    return quote(url, safe=":/?#[]@!$&'()*+,;=%~")


#: Variables of the environment that name proxies, and what they are not for; in capitals too.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD")


def _proxy_for(url: str) -> str:
    parts = urlsplit(url)
    state = tuple(os.environ.get(name) for each in _PROXIES for name in (each, each.upper()))
    return _proxy_of(parts.scheme, parts.hostname or "", state)


@lru_cache(maxsize=256)
def _proxy_of(scheme: str, host: str, environment: tuple[str | None, ...]) -> str:
    """The proxy to a host; asking for it walks through the environment, or through the system's settings."""
    if urllib.request.proxy_bypass(host):
        return ""
    return urllib.request.getproxies().get(scheme, "")


@lru_cache(maxsize=4)
def _pool(process: int, proxy: str) -> Any:
    """Connections that are kept, of this process: those of another one cannot be shared."""
    urllib3 = require("urllib3", "remote")
    options: Mapping[str, Any] = {"num_pools": 8, "maxsize": 32}
    return urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
