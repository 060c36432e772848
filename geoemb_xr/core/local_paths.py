"""Paths on this machine: a string is a path, and ``file://`` means the same everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from geoemb_xr.core.errors import SourceError


def with_ending(path: str | os.PathLike[str], ending: str) -> Path:
    """A path, with an ending where it has none.

    Examples
    --------
    >>> with_ending("probe", ".npz").name, with_ending("probe.v2", ".npz").name
    ('probe.npz', 'probe.v2')
    """
    found = Path(path)
    return found if found.suffix else found.with_suffix(ending)


def local_path(name: str | os.PathLike[str]) -> Path:
    """The path that a string or a ``file://`` URL means. A string is no URL: ``#``, ``?`` and ``%`` are letters.

    Raises
    ------
    SourceError
        If it is a URL of something that is not on this machine.

    Examples
    --------
    >>> local_path("run#2/what?.zarr").parts, local_path("file:///data/my%20run/a.zarr").parts
    (('run#2', 'what?.zarr'), ('/', 'data', 'my run', 'a.zarr'))
    """
    text = os.fspath(name)
    if not text.startswith("file://"):
        if "://" in text:
            raise SourceError(f"{text} is not a path on this machine")
        return Path(text)
    host, slash, rest = text.removeprefix("file://").partition("/")
    if host not in ("", "localhost"):
        raise SourceError(f"{text} names the host {host!r}; a file on this machine is file:///…")
    return Path(unquote(slash + rest))
