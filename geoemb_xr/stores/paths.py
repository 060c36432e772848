"""What a user may give as a source, as a list of files; years in paths; paths that must stay in a folder."""

from __future__ import annotations

import glob
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from geoemb_xr.core.errors import CoverageError, SourceError
from geoemb_xr.stores.objects import is_remote

_YEAR = re.compile(r"(?<!\d)((?:19|20)\d\d)(?!\d)")


def expand(source: Any, suffixes: Sequence[str]) -> list[str]:
    """The files of a source: a path, a folder, a glob, a URL, or a list of those, in sorted order.

    Parameters
    ----------
    source : path, str or iterable of those
        A folder is searched through.
    suffixes : sequence of str
        Endings of files taken from a folder, in lower case.

    Raises
    ------
    FileNotFoundError
        If a path is not there, or a folder or glob holds none; the message names it.
    """
    if not isinstance(source, (str, os.PathLike)):
        if not isinstance(source, Iterable):
            raise TypeError(f"a source is a path, a folder, a glob, a URL or a list of those; got {source!r}")
        return list(dict.fromkeys(name for each in source for name in expand(each, suffixes)))
    name = os.fspath(source)
    if is_remote(name):
        return [name]
    path = Path(name)
    if path.is_dir() and path.suffix.lower() not in suffixes:
        found = sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in suffixes)
        if not found:
            raise FileNotFoundError(f"no {' or '.join(suffixes)} file in {name}")
        return found
    if path.exists():
        return [name]
    found = sorted(glob.glob(name, recursive=True))
    if not found:
        raise FileNotFoundError(f"no such file, folder or match of a glob: {name}")
    return found


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


def map_files[T](function: Callable[[Any], T], files: Sequence[Any]) -> list[T]:
    """A function of each file, in threads: reading headers is waiting, not work (504 COGs: 4.5 s, then 1.3 s)."""
    if len(files) < 2:
        return [function(file) for file in files]
    with ThreadPoolExecutor(min(16, len(files))) as pool:
        return list(pool.map(function, files))


def year_in_path(path: str) -> int:
    """The year that a path names: its last folder that is a year, else the last year in the file's name.

    Raises
    ------
    SourceError
        If there is none.

    Examples
    --------
    >>> year_in_path("annual/2024/10N/x086q72fv2f9q1x4a-0000000000-0000000000.tiff")
    2024
    >>> year_in_path("chip_2023_v2.tif")
    2023
    """
    *folders, name = PurePosixPath(path.replace("\\", "/")).parts
    years = [part for part in folders if re.fullmatch(r"(19|20)\d\d", part)]
    years = years or _YEAR.findall(name)
    if not years:
        raise SourceError(
            f"{path} does not say its year; put it in a folder named by the year (2024/…) or name it …_2024.tif"
        )
    return int(years[-1])


def inside(root: str | os.PathLike[str], relative: str) -> Path:
    """A path that an index names, inside its folder: nothing in a file is trusted.

    Raises
    ------
    SourceError
        If it is absolute, or leaves the folder.
    """
    base = Path(root).resolve()
    path = (base / relative.replace("\0", "")).resolve()
    if "\0" in relative or PurePosixPath(relative).is_absolute() or not path.is_relative_to(base):
        raise SourceError(f"an index in {base} names a path outside it: {relative!r}")
    return path


def must_be_fetched(product: str, what: str, where: str) -> SourceError:
    """The error for a product that is not read from its publisher: which file to fetch, and how to pass it."""
    return SourceError(
        f"{product!r} is not read from its publisher. Fetch {what} from {where}, then give the file or its "
        f"folder: gx.open({product!r}, path)"
    )


def sidecar_version(path: str | os.PathLike[str]) -> str:
    """The version in the JSON file beside one that has no metadata of its own; empty where there is none."""
    file = Path(path).with_suffix(".json")
    if not file.exists():
        return ""
    try:
        return str(json.loads(file.read_text())["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{file} does not say 'version': {error!r}") from error


def write_sidecar(path: str | os.PathLike[str], version: str) -> None:
    """Write what :func:`sidecar_version` reads."""
    Path(path).with_suffix(".json").write_text(json.dumps({"version": version}))


def no_overlap(what: str, asked: object, covers: object) -> CoverageError:
    """The error for a request that a source does not cover."""
    return CoverageError(f"{what} does not cover {asked}; it covers {covers}")


def cache_dir() -> Path:
    """Where examples and indexes are kept: ``GEOEMB_CACHE``, else the user's cache, else a temporary folder."""
    given = os.environ.get("GEOEMB_CACHE")
    base = (
        Path(given)
        if given
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geoemb_xr"
    )
    try:
        base.mkdir(parents=True, exist_ok=True)
        if os.access(base, os.W_OK):
            return base
    except OSError:
        pass
    return Path(tempfile.gettempdir()) / "geoemb_xr"
