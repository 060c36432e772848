"""Objects behind URLs: ranges of bytes, sizes and listings, whole or an error that names object and range.

Every read of a remote file comes through :func:`fetch`: GDAL's, Zarr's and Arrow's too. What fails is tried again
(:mod:`geoemb_xr.stores.retries`); what was replaced midway, came short or is another range is an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from geoemb_xr.core.errors import MissingFileError, SourceError, require
from geoemb_xr.stores import http
from geoemb_xr.stores.credentials import endpoint_of, environment, is_signing, store_options
from geoemb_xr.stores.http import Answer
from geoemb_xr.stores.retries import TRANSIENT, Transient, persistently
from geoemb_xr.stores.storage import OWN_SCHEME, Storage, current

#: Requests of one read that are under way at once; of all reads of a process twice as many.
CONCURRENCY = 16
#: Begins what stands for the ETag of an object that has none: a date.
NO_ETAG = "@"


def is_remote(path: str) -> bool:
    """Whether a path is read over the network."""
    return "://" in path or path.startswith("/vsi")


class UnlistedError(SourceError):
    """A store does not tell what it has."""


@dataclass(frozen=True)
class Listed:
    """An object that a store lists."""

    url: str
    size: int
    state: str  # what changes when it is rewritten


def fetch(url: str, start: int | None = None, stop: int | None = None, *, etag: str = "") -> Answer:
    """Bytes of an object, all by default.

    Parameters
    ----------
    url : str
        ``https://``, ``s3://``, ``gs://``, ``az://``, ``hf://``; ``http://`` only where ``storage=`` allows it.
    start, stop : int, optional
        First byte and the one after the last; a negative start counts from the end.
    etag : str
        The expected state of the object, from an earlier answer.

    Raises
    ------
    FileNotFoundError
        If there is no such object.
    SourceError
        If it could not be read; the message names object, bytes and status.
    """
    span = None if start is None else (start, stop)
    where = "" if span is None else f" (bytes {start}–{'' if stop is None else stop})"
    storage = current()
    if _is_http(url, storage):
        address = _address(url, storage)
        return _run_request(lambda: http.get(address, storage, span, etag, "GET"), f"{url}{where}", storage)
    return _run_request(lambda: _get(url, storage, span, etag), f"{url}{where}", storage)


def _run_request[T](attempt: Callable[[], T], what: str, storage: Storage) -> T:
    """Run one request, counted among those that a process has under way."""

    def in_turn() -> T:
        with _request_slots(os.getpid()):
            return attempt()

    return persistently(in_turn, what, storage)


@lru_cache(maxsize=2)
def _request_slots(process: int) -> BoundedSemaphore:
    """Limits the requests of a process, however many reads and threads there are."""
    return BoundedSemaphore(2 * CONCURRENCY)


def get_ranges(url: str, spans: Sequence[tuple[int, int]], *, etag: str = "") -> list[bytes]:
    """Several ranges (first byte, the one after the last) of an object, side by side."""
    return bring_all(lambda span: fetch(url, *span, etag=etag).data, spans)


@contextmanager
def coming_ranges(
    url: str,
    spans: Sequence[tuple[int, int]],
    *,
    etag: str = "",
    use: Callable[[int, bytes], None] | None = None,
) -> Iterator[list[Future[bytes]]]:
    """Ranges of an object while they come; ``use`` is called with number and bytes of each that did.

    What has not come when the block is left is no longer waited for.
    """

    def bring(numbered: tuple[int, tuple[int, int]]) -> bytes:
        number, span = numbered
        data = fetch(url, *span, etag=etag).data
        if use is not None:
            use(number, data)
        return data

    with under_way(bring, list(enumerate(spans))) as tasks:
        yield tasks


@contextmanager
def under_way[In, Out](bring: Callable[[In], Out], asked: Sequence[In]) -> Iterator[list[Future[Out]]]:
    """Requests of a read, side by side; those that are not done when the block is left are not waited for."""
    pool = ThreadPoolExecutor(max(min(CONCURRENCY, len(asked)), 1))
    try:
        yield [pool.submit(copy_context().run, bring, each) for each in asked]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # where one failed, the others are not waited for


def bring_all[In, Out](bring: Callable[[In], Out], asked: Sequence[In]) -> list[Out]:
    """Collect the results of a read's requests in order; the first failure ends the waiting."""
    if len(asked) < 2:
        return [bring(each) for each in asked]
    with under_way(bring, asked) as tasks:
        done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
        for task in done:
            task.result()
        return [task.result() for task in tasks]


def head(url: str) -> Answer:
    """Size and state of an object, without a byte of it."""
    storage = current()
    if _is_http(url, storage):
        address = _address(url, storage)
        return _run_request(lambda: http.get(address, storage, None, "", "HEAD"), url, storage)
    return _run_request(lambda: _head(url, storage), url, storage)


def head_object(url: str) -> str:
    """The size and ETag of an object, which change when it is rewritten."""
    found = head(url)
    return f"{found.size}-{found.etag}"


def object_size(url: str) -> int | None:
    """Bytes of an object or a local file; None where there is none."""
    try:
        return head(url).size if is_remote(url) else os.stat(url).st_size
    except FileNotFoundError:
        return None


def list_objects(url: str) -> list[Listed]:
    """All objects below a folder's URL, sorted.

    Raises
    ------
    SourceError
        If the store cannot be listed.
    """
    root, _ = split(url)
    listed = _ask_listing("list", url)
    return sorted(
        (
            Listed(
                _url_of(root, each["path"]),
                int(each["size"]),
                str(each["e_tag"] or f"{NO_ETAG}{each['last_modified']}"),
            )
            for batch in listed
            for each in batch
        ),
        key=lambda each: each.url,
    )


def matching(url: str, suffixes: Sequence[str]) -> list[Listed]:
    """The objects of a folder, or those that a glob means, by their endings; ``**`` means any folders.

    Raises
    ------
    FileNotFoundError
        If there is none.
    SourceError
        If the store cannot be listed.
    """
    signs = re.search(r"[*?\[]", url)
    folder = url if signs is None else url[: signs.start()].rpartition("/")[0]
    wanted = re.compile(_as_regex(url) if signs is not None else ".*", re.DOTALL)
    found = [
        each
        for each in list_objects(folder)
        if wanted.fullmatch(each.url) and each.url.lower().endswith(tuple(suffixes))
    ]
    if not found:
        raise FileNotFoundError(f"no {' or '.join(suffixes)} file at {url}")
    return found


def _as_regex(pattern: str) -> str:
    """A glob as a regular expression; brackets mean the same in both.

    Examples
    --------
    >>> bool(re.fullmatch(_as_regex("s3://b/**/a*.tif"), "s3://b/2024/x/a1.tif"))
    True
    """
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", pattern)
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(signs.get(part) or (part if part.startswith("[") else re.escape(part)) for part in parts)


def list_folders(url: str) -> list[str]:
    """Names of the folders in a folder.

    Raises
    ------
    SourceError
        If the store cannot be listed.
    """
    found = _ask_listing("list_with_delimiter", url)
    return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in found["common_prefixes"])


def _ask_listing(request: str, url: str) -> Any:
    storage = current()
    prefix = _key(url.rstrip("/"), storage)
    if _is_http(url, storage):
        raise UnlistedError(
            f"{url} cannot be listed: a web server does not tell what it has; give the files themselves"
        )
    obstore = require("obstore", "remote")

    def attempt() -> Any:
        with _raise_ours(url):
            found = getattr(obstore, request)(object_store(url), prefix)
            return list(found) if request == "list" else found

    try:
        return persistently(attempt, url, storage)
    except SourceError as error:
        raise UnlistedError(f"{url} cannot be listed: {error}; give the files themselves") from error


# --- writing ------------------------------------------------------------------------------------------------------


def store_to_write(url: str) -> Any:
    """An obstore store that takes objects.

    Raises
    ------
    SourceError
        If it is a web server, which takes none.
    """
    if _is_http(url, current()):
        raise SourceError(
            f"{url} is on a web server, which takes no objects; write to s3://, gs://, az:// or a path"
        )
    return object_store(url, writing=True)


def put(url: str, data: bytes | Path) -> None:
    """Write an object, whole or not at all; a file by parts."""
    require("obstore", "remote").put(store_to_write(url), _key(url, current()), data)


def delete_objects(*urls: str) -> None:
    """Remove all objects below each URL, and the one that is called so."""
    obstore = require("obstore", "remote")
    for url in urls:
        keys = [_key(each.url, current()) for each in list_objects(url)]
        if object_size(url) is not None:
            keys.append(_key(url, current()))
        if keys:
            obstore.delete(store_to_write(url), keys)


def move_objects(source: str, target: str) -> None:
    """Give all objects below a URL another name, within its store."""
    obstore = require("obstore", "remote")
    store, pairs = store_to_write(source), []
    for each in list_objects(source):
        goal = f"{target}/{each.url.removeprefix(source).lstrip('/')}"
        pairs.append((_key(each.url, current()), _key(goal, current())))
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        for done in [pool.submit(obstore.rename, store, *pair) for pair in pairs]:
            done.result()


# --- names --------------------------------------------------------------------------------------------------------


def _url_of(root: str, path: str) -> str:
    prefix = str(getattr(current().store, "prefix", None) or "").strip("/")
    inner = prefix and not root.startswith(OWN_SCHEME.removesuffix("/"))
    return f"{root}/{prefix}/{path}" if inner else f"{root}/{path}"


# --- addresses ----------------------------------------------------------------------------------------------------


def split(url: str) -> tuple[str, str]:
    """Root and key of a URL.

    Examples
    --------
    >>> split("s3://bucket/folder/a.tif"), split("store://a.tif")
    (('s3://bucket', 'folder/a.tif'), ('store:/', 'a.tif'))
    """
    if url.startswith(OWN_SCHEME):
        return OWN_SCHEME.removesuffix("/"), url.removeprefix(OWN_SCHEME).lstrip("/")
    scheme, _, rest = url.partition("://")
    host, _, key = rest.partition("/")
    return f"{scheme}://{host}", key


def _is_http(url: str, storage: Storage) -> bool:
    return storage.store is None and url.startswith(("http://", "https://", "hf://"))


def _address(url: str, storage: Storage) -> str:
    """The URL to request, after checking that it is allowed."""
    if url.startswith("hf://"):
        return _hugging_face(url)
    if url.startswith("http://") and not storage.allow_http:
        raise not_encrypted(url)
    return url


def not_encrypted(url: str) -> SourceError:
    """The error for an unencrypted URL, which anyone on the way could answer."""
    return SourceError(
        f"{url} is not encrypted: anyone on the way can read and change what comes. Use https, or say that it is "
        'meant: storage={"allow_http": True}'
    )


def _hugging_face(url: str) -> str:
    """Where a file of a repository lies: ``hf://datasets/owner/name[@revision]/path``.

    Examples
    --------
    >>> _hugging_face("hf://datasets/owner/name@v2/a/b.parquet")
    'https://huggingface.co/datasets/owner/name/resolve/v2/a/b.parquet'
    """
    kind, _, rest = url.removeprefix("hf://").partition("/")
    prefix = f"{kind}/"
    if kind not in ("datasets", "spaces"):
        prefix, rest = "", f"{kind}/{rest}"
    owner, name, path = rest.split("/", 2)
    name, _, revision = name.partition("@")
    base = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{base}/{prefix}{owner}/{name}/resolve/{revision or 'main'}/{path}"


# --- obstore ------------------------------------------------------------------------------------------------------

#: A request of obstore's is tried once: whether again is for :func:`persistently` to say.
_ONCE: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}


def object_store(url: str, *, writing: bool = False) -> Any:
    """An obstore store of the bucket of a URL, or the caller's own; for writing one that tries again itself.

    Raises
    ------
    MissingExtraError
        If obstore is not installed.
    SourceError
        If an option of ``storage=`` is none of obstore's, the endpoint is not encrypted, or the process is the
        fork of one that has asked an object store.
    """
    if os.getpid() != _asking_process():
        raise SourceError(
            f"{url} cannot be reached from a forked process: the threads that ask object stores stay behind in the "
            "process that was forked, and an answer would be waited for without end; start processes with "
            "multiprocessing.get_context('spawn') or 'forkserver'"
        )
    storage = current()
    if storage.store is not None:
        return storage.store
    root, _ = split(url)
    defaults = tuple(store_options(root.partition("://")[0]).items())
    return _store(root, storage, defaults, environment(), writing)


@lru_cache(maxsize=1)
def _asking_process() -> int:
    """The process of the first request, which has obstore's threads; its forks remember it, and have none."""
    return os.getpid()


@lru_cache(maxsize=64)
def _store(
    root: str,
    storage: Storage,
    defaults: tuple[tuple[str, Any], ...],
    state: tuple[tuple[str, str], ...],
    writing: bool,
) -> Any:
    """A store with its options; ``state`` makes one with other credentials another store."""
    stores = require("obstore.store", "remote")
    if root.startswith(OWN_SCHEME.removesuffix("/")):
        raise SourceError(f"{OWN_SCHEME} names objects of a store that storage= gives; it gave none")
    options = {key: value for key, value in storage.options if key != "client_options"}
    own = dict(defaults)
    if is_signing(options):
        kept = ("region", "endpoint", "virtual_hosted_style_request")
        own = {key: value for key, value in own.items() if key in kept}
    endpoint = str(
        options.get("endpoint") or options.get("aws_endpoint") or options.get("endpoint_url") or ""
    )
    set_up, meant = endpoint_of(root.partition("://")[0])
    allow_http = storage.allow_http or (not endpoint and meant)
    if (endpoint or set_up).startswith("http://") and not allow_http:
        raise not_encrypted(endpoint or set_up)
    client = {
        "read_timeout": timedelta(seconds=http.stall_of(storage)),
        "connect_timeout": timedelta(seconds=min(http.CONNECT, storage.timeout / 3)),
        "timeout": timedelta(seconds=max(storage.timeout, 60.0)),
        **({"allow_http": True} if allow_http else {}),
        **dict(dict(storage.options).get("client_options") or ()),
    }
    short = {key.removeprefix("aws_"): key for key in options}
    own = {
        key: value for key, value in own.items() if key not in short and not (key == "endpoint" and endpoint)
    }
    try:
        retry: Any = {"max_retries": storage.retries, "retry_timeout": timedelta(seconds=storage.timeout)}
        retry = retry if writing else _ONCE
        return stores.from_url(root, retry_config=retry, client_options=client, **own, **options)
    except Exception as error:  # of obstore: an option that it does not have
        reason = str(error).strip().partition("\n")[0][:200]
        raise SourceError(
            f"no store of {root} can be made with storage={sorted(options)}: {reason}"
        ) from error


def _key(url: str, storage: Storage) -> str:
    """The key of an object in the store that is asked: a caller's own may begin in a folder."""
    _, key = split(url)
    if storage.store is None or url.startswith(OWN_SCHEME):
        return key
    base = str(getattr(storage.store, "url", "") or "")
    if base and url.startswith(base.rstrip("/") + "/"):  # of a web server
        return url.removeprefix(base.rstrip("/") + "/")
    prefix = str(getattr(storage.store, "prefix", None) or "").strip("/")
    return key.removeprefix(f"{prefix}/") if prefix else key


def _get(url: str, storage: Storage, span: tuple[int, int | None] | None, etag: str) -> Answer:
    obstore = require("obstore", "remote")
    options: dict[str, Any] = {"if_match": etag} if etag else {}
    if span is not None:
        first, stop = span
        whole = {"suffix": -first} if first < 0 else {"offset": first}
        options["range"] = (first, stop) if stop is not None and first >= 0 else whole
    with _raise_ours(url):
        result = obstore.get(object_store(url), _key(url, storage), options=options)
        size, found = int(result.meta["size"]), str(result.meta.get("e_tag") or "")
        start, stop = (int(each) for each in result.range)
        data = bytes(result.bytes())
    if etag and found and found != etag:
        raise http.changed(url)
    if len(data) != stop - start:
        raise Transient(f"only {len(data)} of {stop - start} bytes came")
    if span is not None and span[0] >= 0 and start != span[0]:
        raise Transient(f"bytes from {span[0]} were asked for, from {start} came")
    return Answer(data, start, size, found)


def _head(url: str, storage: Storage) -> Answer:
    obstore = require("obstore", "remote")
    with _raise_ours(url):
        meta = obstore.head(object_store(url), _key(url, storage))
    state = meta.get("e_tag") or f"{NO_ETAG}{meta.get('last_modified') or ''}"
    return Answer(b"", 0, int(meta["size"]), str(state))


def _status_of(error: Exception) -> int | None:
    found = re.search(r"status code: (\d{3})", str(error).strip().partition("\n")[0])
    return int(found[1]) if found else None


def answer_text(error: Exception) -> str:
    """The answer of an object store in a few words: the status, or obstore's message."""
    status = _status_of(error)
    line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {line[:200]}" if status is None else f"status {status}"


#: What obstore says of a host that is not found, or refuses connections.
_UNREACHED = ("ConnectionRefused", '"dns error"')


@contextmanager
def _raise_ours(url: str) -> Iterator[None]:
    """Turn an error of obstore into one of ours: missing, refused, changed, or worth another try."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no such object: {url}") from error
    except Exception as error:
        if not type(error).__module__.startswith("obstore"):
            raise
        kind, said, status = type(error).__name__, answer_text(error), _status_of(error)
        if kind == "NotFoundError":
            raise FileNotFoundError(f"no such object: {url} ({said})") from error
        if kind == "PreconditionError":
            raise http.changed(url) from error
        if kind in ("PermissionDeniedError", "UnauthenticatedError"):
            raise SourceError(
                f"{url} is not there, or may not be read: {said}. Credentials go into storage= or the environment"
            ) from error
        if kind == "GenericError" and (status is None or status in TRANSIENT):
            unreached = status is None and any(sign in str(error) for sign in _UNREACHED)
            raise Transient(said, unreached=unreached) from error
        raise SourceError(f"{url} could not be read: {said}") from error


@contextmanager
def naming_missing_files() -> Iterator[None]:
    """Turn the error for a missing file or object into :class:`MissingFileError`."""
    try:
        yield
    except MissingFileError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(str(error)) from error


@contextmanager
def shortening_store_errors(what: str) -> Iterator[None]:
    """Turn a long answer of an object store into a :class:`SourceError` of one line."""
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
