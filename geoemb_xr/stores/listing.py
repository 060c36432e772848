"""Files of a source: listed, locally and in object stores, and opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from geoemb_xr.core.errors import SourceError, require
from geoemb_xr.stores import paths
from geoemb_xr.stores.credentials import s3_options
from geoemb_xr.stores.objects import is_remote, open_object

SUFFIXES = (".parquet", ".gpq", ".geoparquet")


@dataclass(frozen=True)
class File:
    """A file of a source: its path or URL, and what changes when it is rewritten."""

    url: str
    size: int
    token: str


def list_files(source: Any) -> list[File]:
    """The files of a path, folder, glob, URL or a list of those, sorted."""
    if isinstance(source, (str, os.PathLike)) and is_remote(os.fspath(source)):
        return _list_remote(os.fspath(source))
    if not isinstance(source, (str, os.PathLike)) and isinstance(source, Iterable):
        return list(dict.fromkeys(each for one in source for each in list_files(one)))
    files = []
    folder = isinstance(source, (str, os.PathLike)) and os.path.isdir(source)  # may be called data.parquet
    for name in paths.expand(os.path.join(source, "**", "*") if folder else source, SUFFIXES):
        if folder and (not name.endswith(SUFFIXES) or os.path.isdir(name)):
            continue
        stat = os.stat(name)
        files.append(File(name, stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}"))
    if not files:
        raise FileNotFoundError(f"no {' or '.join(SUFFIXES)} file in {source}")
    return files


#: Protocols that obstore reads; any other (hf, memory, …) is fsspec's.
_OBSTORE = ("s3", "gs", "az", "https", "http")


@lru_cache(maxsize=32)
def _filesystem(protocol: str) -> Any:
    """An fsspec filesystem to list files with."""
    if protocol not in _OBSTORE:
        return require("fsspec", "remote").filesystem(protocol)
    options: dict[str, Any] = {}
    if protocol == "s3":
        options = s3_options()
    return require("obstore.fsspec", "remote").FsspecStore(protocol, **options)


def _list_remote(url: str) -> list[File]:
    protocol, _, path = url.partition("://")
    fs = _filesystem(protocol)
    if path.endswith(SUFFIXES) and not any(sign in path for sign in "*?["):
        found = {path: fs.info(path)}
    else:
        pattern = path if any(sign in path for sign in "*?[") else f"{path.rstrip('/')}/**"
        found = {k: v for k, v in fs.glob(pattern, detail=True).items() if k.endswith(SUFFIXES)}
    if not found:
        raise FileNotFoundError(f"no {' or '.join(SUFFIXES)} file at {url}")
    files = []
    for name, info in sorted(found.items()):
        full = name if "://" in name else f"{protocol}://{name.lstrip('/')}"
        mark = info.get("ETag") or info.get("e_tag") or info.get("last_modified") or info.get("created") or ""
        files.append(File(full, int(info.get("size") or 0), f"{info.get('size')}-{mark}"))
    return files


def open_file(url: str, **options: Any) -> Any:
    """A file as :class:`pyarrow.parquet.ParquetFile`."""
    parquet = require("pyarrow.parquet", "remote")
    if not is_remote(url):
        return parquet.ParquetFile(url, **options)
    protocol, _, path = url.partition("://")
    opened = open_object(url) if protocol in _OBSTORE else _filesystem(protocol).open(path, "rb")
    return parquet.ParquetFile(opened, **options)


@contextmanager
def reading_parquet(url: str) -> Iterator[None]:
    """Whatever Arrow finds wrong with a file, as a :class:`SourceError` that names the file."""
    pyarrow = require("pyarrow", "remote")
    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:  # of the file system, and named
            raise
        reason = str(error).strip().partition("\n")[0][:200]
        raise SourceError(
            f"{url} is not a Parquet file that can be read ({reason}); fetch it, or write it, again"
        ) from error
