"""The settings of ``storage=``: credentials, endpoint, time limits.

A :class:`Storage` is small and pickles, so that it travels with whatever reads. While a source is opened or read
it is the current one (:func:`using`): a product's ``open`` function need not hand it on.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

#: What a key of a caller's own store is called by: ``store://folder/a.tif``.
OWN_SCHEME = "store://"
#: Options of ours; all others are obstore's.
_OURS = ("timeout", "retries", "allow_http")


@dataclass(frozen=True)
class Storage:
    """Settings for access to objects.

    Parameters
    ----------
    options : tuple of (str, value)
        Options of obstore's: credentials, region, endpoint.
    store : obstore store, optional
        The caller's own, instead of one that is made by a URL.
    timeout : float
        Seconds after which a request that fails is no longer tried again. A minute's outage is outlasted.
    retries : int
        Largest number of times a request is tried again.
    allow_http : bool
        Whether a URL may be read without encryption.
    """

    options: tuple[tuple[str, Any], ...] = ()
    store: Any = field(default=None, compare=False)
    identity: str = ""  # of the caller's store
    timeout: float = 90.0
    retries: int = 20
    allow_http: bool = False

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return ("storage", hashlib.sha1(repr((self.options, self.identity)).encode()).hexdigest())

    def locate(self, source: Any) -> Any:
        """A source as its readers take it: with a caller's own store, names are keys of it."""
        if isinstance(source, (list, tuple)):
            return [self.locate(each) for each in source]
        if self.store is None or not isinstance(source, str) or "://" in source:
            return source
        return OWN_SCHEME + source.lstrip("/")


def parse_storage(given: Any) -> Storage:
    """``storage=`` as it was given, checked.

    Raises
    ------
    ValueError
        If it is neither a store of obstore's nor a mapping, or an option of ours has no sense.

    Examples
    --------
    >>> parse_storage({"region": "eu-central-1", "timeout": 20}).options
    (('region', 'eu-central-1'),)
    """
    if given is None:
        return Storage()
    if isinstance(given, Storage):
        return given
    if type(given).__module__.startswith("obstore"):
        return Storage(store=given, identity=_identity(given), allow_http=True)
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ValueError(
            f"storage= is an obstore store, or a dict of its options (region, endpoint, access_key_id, …) and of "
            f"{', '.join(_OURS)}; got {given!r:.80}"
        )
    timeout, retries = given.get("timeout", Storage.timeout), given.get("retries", Storage.retries)
    if hasattr(timeout, "total_seconds"):
        timeout = timeout.total_seconds()
    for name, value, least in (("timeout", timeout, 0.0), ("retries", retries, -1)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > least:
            raise ValueError(f"storage={{{name!r}: …}} is a positive number; got {value!r}")
    store = given.get("store")
    return Storage(
        options=tuple(
            sorted((key, _hashable(v)) for key, v in given.items() if key not in (*_OURS, "store"))
        ),
        store=store,
        identity=_identity(store) if store is not None else "",
        timeout=float(timeout),
        retries=int(retries),
        allow_http=bool(given.get("allow_http", store is not None)),
    )


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted((key, _hashable(each)) for key, each in value.items()))
    return tuple(value) if isinstance(value, list) else value


def _identity(store: Any) -> str:
    """Return the key of a store: its class and settings, or the store itself where it is in memory."""
    try:
        return hashlib.sha1(pickle.dumps(store)).hexdigest()
    except Exception:  # of obstore: a store in memory does not travel
        return f"{type(store).__name__}-{id(store)}"


_current: ContextVar[Storage] = ContextVar("geoemb_xr_storage", default=Storage())  # noqa: B039  # it is frozen


def current() -> Storage:
    """Return the current settings for access to objects."""
    return _current.get()


@contextmanager
def using(storage: Storage) -> Iterator[Storage]:
    """Use these settings inside the block, in this thread and in those that get its context."""
    token = _current.set(storage)
    try:
        yield storage
    finally:
        _current.reset(token)


def reaches_objects[**P, T](function: Callable[P, T]) -> Callable[P, T]:
    """Let a function with an argument ``storage`` reach objects as that says; without it, as its caller does."""

    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        given = kwargs.get("storage")
        with using(current() if given is None else parse_storage(given)):
            return function(*args, **kwargs)

    return inner
