"""Paths on this machine: a string is a path, and ``file://`` means the same everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from geoemb_xr.core.errors import MissingFileError, SourceError


def with_ending(path: str | os.PathLike[str], ending: str) -> Path:
    """A path, with an ending where it has none.

    Examples
    --------
    >>> with_ending("probe", ".npz").name, with_ending("probe.v2", ".npz").name
    ('probe.npz', 'probe.v2')
    """
    found = local_path(path)
    return found if found.suffix else found.with_suffix(ending)


def existing(path: str | os.PathLike[str], what: str, *endings: str) -> Path:
    """The path of a file that is there, with the first ending with which one is where none is without it.

    Raises
    ------
    MissingFileError
        If it is not; the message says what it would be.
    SourceError
        If it is a pipe or a device.
    """
    found = local_path(path)
    for ending in () if found.is_file() else endings:
        if with_ending(path, ending).is_file():
            return with_ending(path, ending)
    if not found.exists():
        raise MissingFileError(f"no such {what}: {found}")
    refuse_pipe(found)
    return found


def refuse_pipe(path: str | os.PathLike[str]) -> None:
    """Refuse what is there and is neither file nor folder: to read a pipe may be to wait without end.

    Raises
    ------
    SourceError
        If it is none of both.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise SourceError(
            f"{os.fspath(path)} is a pipe or a device; write what it gives to a file, and read that"
        )


def says_local(name: object) -> bool:
    """Whether a name is written in a way that only :func:`local_path` reads: ``file://…`` and ``~/…``."""
    return isinstance(name, str | os.PathLike) and os.fspath(name).startswith(("file://", "~"))


def local_path(name: str | os.PathLike[str]) -> Path:
    """Return the path of a string or a ``file://`` URL. A string is not a URL: ``#``, ``?`` and ``%`` are letters.

    ``~`` is the home of the user, where no folder has that name.

    Raises
    ------
    SourceError
        If it is a URL of something that is not on this machine, or the home of nobody.

    Examples
    --------
    >>> local_path("run#2/what?.zarr").parts, local_path("file:///data/my%20run/a.zarr").parts
    (('run#2', 'what?.zarr'), ('/', 'data', 'my run', 'a.zarr'))
    """
    text = os.fspath(name)
    if not text.startswith("file://"):
        if "://" in text:
            raise SourceError(f"{text} is not a path on this machine")
        if text[:1] != "~" or os.path.exists(text):
            return Path(text)
        try:
            return Path(text).expanduser()
        except RuntimeError:
            raise SourceError(f"{text} names the home of a user whom this machine does not know") from None
    host, slash, rest = text.removeprefix("file://").partition("/")
    if host not in ("", "localhost"):
        raise SourceError(f"{text} names the host {host!r}; a file on this machine is file:///…")
    return Path(unquote(slash + rest))
