"""Files of a source: listed, locally and in object stores, and opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from geoemb_xr.core.errors import MissingFileError, SourceError, require
from geoemb_xr.stores import paths
from geoemb_xr.stores.files import (
    ObjectFile,
    RemoteObject,
    check_unchanged,
    open_object,
    replaced,
    state_in,
)
from geoemb_xr.stores.objects import NO_ETAG, head, is_remote, matching
from geoemb_xr.stores.storage import Storage, current, using

SUFFIXES = (".parquet", ".gpq", ".geoparquet")


@dataclass(frozen=True)
class File:
    """A file of a source: its path or URL, and what changes when it is rewritten."""

    url: str
    size: int
    token: str
    storage: Storage = field(default_factory=current, repr=False)


def list_files(source: Any) -> list[File]:
    """The files of a path, folder, glob, URL or a list of those, sorted."""
    if isinstance(source, (str, os.PathLike)) and is_remote(os.fspath(source)):
        return _list_remote(os.fspath(source))
    if not isinstance(source, (str, os.PathLike)) and isinstance(source, Iterable):
        return list(dict.fromkeys(each for one in source for each in list_files(one)))
    files = []
    folder = isinstance(source, (str, os.PathLike)) and os.path.isdir(source)  # may be called data.parquet
    for name in paths.expand(os.path.join(source, "**", "*") if folder else source, SUFFIXES):
        if folder and (not name.lower().endswith(SUFFIXES) or os.path.isdir(name)):
            continue
        stat = os.stat(name)
        files.append(File(name, stat.st_size, state_in(stat)))
    if not files:
        raise MissingFileError(f"no {' or '.join(SUFFIXES)} file in {source}")
    return files


#: Protocols that are read through :mod:`geoemb_xr.stores.objects`; any other (memory, …) is fsspec's.
_OURS = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "https", "http", "hf", "store")


@lru_cache(maxsize=32)
def _filesystem(protocol: str) -> Any:
    return require("fsspec", "remote").filesystem(protocol)


def _list_remote(url: str) -> list[File]:
    protocol, _, path = url.partition("://")
    if protocol in _OURS and path.partition("?")[0].lower().endswith(SUFFIXES) and "*" not in path:
        found = head(url)
        return [File(url, found.size, f"{found.size}-{found.etag}")]
    if protocol in _OURS and protocol != "hf":
        return [File(each.url, each.size, f"{each.size}-{each.state}") for each in matching(url, SUFFIXES)]
    return _list_by_fsspec(protocol, path)


def _list_by_fsspec(protocol: str, path: str) -> list[File]:
    """What a file system of fsspec lists: hf, whose own is used, and those that only it has."""
    fs = _filesystem(protocol)
    if path.lower().endswith(SUFFIXES) and not any(sign in path for sign in "*?["):
        found = {path: fs.info(path)}
    else:
        pattern = path if any(sign in path for sign in "*?[") else f"{path.rstrip('/')}/**"
        found = {k: v for k, v in fs.glob(pattern, detail=True).items() if k.lower().endswith(SUFFIXES)}
    if not found:
        raise MissingFileError(f"no {' or '.join(SUFFIXES)} file at {protocol}://{path}")
    files = []
    for name, info in sorted(found.items()):
        full = name if "://" in name else f"{protocol}://{name.lstrip('/')}"
        mark = info.get("ETag") or info.get("e_tag") or info.get("last_modified") or info.get("created") or ""
        files.append(File(full, int(info.get("size") or 0), f"{info.get('size')}-{NO_ETAG}{mark}"))
    return files


def open_file(file: File | str, **options: Any) -> Any:
    """A file as :class:`pyarrow.parquet.ParquetFile`, reached as it was listed.

    Raises
    ------
    ObjectChangedError
        If it is another file by now: its rows and row groups may be others.
    """
    parquet = require("pyarrow.parquet", "remote")
    url = file if isinstance(file, str) else file.url
    if not is_remote(url):
        # opened here: to ask Arrow which file system a path is of takes as long as to read a small footer
        opened = require("pyarrow", "remote").OSFile(os.fsencode(url))
        check_unchanged(url, "" if isinstance(file, str) else file.token)
        return parquet.ParquetFile(opened, **options)
    protocol, _, path = url.partition("://")
    if protocol not in _OURS:
        return parquet.ParquetFile(_filesystem(protocol).open(path, "rb"), **options)
    if isinstance(file, str):
        return parquet.ParquetFile(open_object(url), **options)
    of, footer = _footer(file)
    return parquet.ParquetFile(ObjectFile(of), metadata=footer, **options)


@lru_cache(maxsize=128)
def _footer(file: File) -> tuple[RemoteObject, Any]:
    """The state of a remote file that was listed, and its footer: read once in a process.

    Raises
    ------
    ObjectChangedError
        If it is another file by now: its rows and row groups may be others.
    """
    with using(file.storage):
        of = RemoteObject(file.url, from_end=True)
    if not of.is_still(file.token):
        raise replaced(file.url)
    return of, require("pyarrow.parquet", "remote").ParquetFile(ObjectFile(of)).metadata


@contextmanager
def reading_parquet(url: str) -> Iterator[None]:
    """Whatever Arrow finds wrong with a file, as a :class:`SourceError` that names the file."""
    pyarrow = require("pyarrow", "remote")
    try:
        yield
    except SourceError:
        raise
    except (pyarrow.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:  # of the file system, and named
            raise
        reason = str(error).strip().partition("\n")[0][:200]
        raise SourceError(
            f"{url} is not a Parquet file that can be read ({reason}); fetch it, or write it, again"
        ) from error
