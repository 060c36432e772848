"""Zarr stores, their groups and arrays, and what changes when they are rewritten."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from geoemb_xr.core.errors import MissingFileError, SourceError
from geoemb_xr.stores.archives import is_archive, is_icechunk, is_zipped
from geoemb_xr.stores.files import object_now, state_of_file
from geoemb_xr.stores.objects import head_object, is_remote
from geoemb_xr.stores.storage import Storage, current


def store_of(url: str, whole: Sequence[str] = (), snapshot: str = "", root: Root | None = None) -> Any:
    """A Zarr store for a path or URL, read only; of arrays that are ``whole`` no chunk may be missing.

    Never the string itself: Zarr takes it for a URL, and what follows a ``#`` or ``?`` in a folder's name is lost.
    """
    import zarr

    from geoemb_xr.stores.zarr_archives import ZippedZarr, open_icechunk
    from geoemb_xr.stores.zarr_objects import Noticing, WrittenWhole, ZarrObjects

    if is_zipped(url):
        return ZippedZarr(url)
    if is_icechunk(url):
        return open_icechunk(url, snapshot)
    if is_remote(url):
        store: Any = ZarrObjects(url, known={} if root is None else {root.name: root.data})
    else:
        store = zarr.storage.LocalStore(url, read_only=True)
    return WrittenWhole(store, url, whole) if whole else Noticing(store, url)


def is_store(name: str) -> bool:
    """Whether a path or URL is a Zarr store, zipped or in a repository too, with or without its usual ending."""
    if is_archive(name):
        return True
    if is_remote(name):
        return name.rstrip("/").lower().endswith(".zarr")
    return any((Path(name) / each).exists() for each in ("zarr.json", ".zgroup", ".zarray"))


def open_node(url: str, path: str = "", token: str = "") -> Any:
    """A group or array of a store, opened once per process and state of the store.

    Raises
    ------
    SourceError
        If there is none.
    """
    return _open_node(url, path, token, current())


@lru_cache(maxsize=256)
def _open_node(url: str, path: str, token: str, storage: Storage) -> Any:
    import zarr

    if not is_remote(url) and not Path(url).exists():
        raise MissingFileError(f"no such store: {url}")
    root = None if is_archive(url) or not is_remote(url) else _remote_root(url)
    try:
        if root is not None and path:  # what the root tells of its arrays is not asked again
            return _open_node(url, "", token, storage)[path]
        store = store_of(url, snapshot=token, root=root)
        return zarr.open(
            store, path=path or None, mode="r", zarr_format=None if root is None else root.format
        )
    except (FileNotFoundError, KeyError, ValueError) as error:
        where = f"{url} has no {path!r}" if path else f"{url} is not a Zarr store"
        raise SourceError(f"{where}: {error}") from error


def store_token(url: str) -> str:
    """What changes when a local store is rewritten, in its metadata or in a chunk: files, bytes and times.

    Of a remote store its root's metadata must do: its objects cannot all be asked for.
    """
    if is_archive(url):
        return _archive_token(url)
    if is_remote(url):
        return _remote_token(url)
    if not Path(url).is_dir():
        # what it is not is said when it is opened
        return state_of_file(url) if Path(url).is_file() else ""
    files = size = times = 0
    folders = [url]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.path)
                    continue
                stat = entry.stat()
                files, size, times = files + 1, size + stat.st_size, times + stat.st_mtime_ns
    return f"{files}-{size}-{times}"


def root_token(url: str) -> str:
    """What changes when the metadata in a store's root are rewritten: no walk through its chunks (7 µs each)."""
    if is_archive(url) or is_remote(url):
        return store_token(url)
    files = (Path(url) / name for name in ("zarr.json", ".zmetadata", ".zgroup", ".zattrs", ".zarray"))
    stats = (os.stat(file) for file in files if file.is_file())
    return "/".join(f"{stat.st_size}-{stat.st_mtime_ns}" for stat in stats)


def _archive_token(url: str) -> str:
    from geoemb_xr.stores.zarr_archives import icechunk_snapshot

    if is_icechunk(url):
        return icechunk_snapshot(url)
    if is_remote(url):
        return head_object(url)
    return state_of_file(url)


class Root(NamedTuple):
    """The metadata in the root of a remote store."""

    name: str
    data: bytes
    state: str

    @property
    def format(self) -> Literal[2, 3]:
        """Version of Zarr."""
        return 3 if self.name == "zarr.json" else 2


def _remote_root(url: str) -> Root | None:
    """The metadata in a store's root, looked at once while something is opened; None where there are none."""
    for name in ("zarr.json", ".zmetadata", ".zgroup", ".zarray"):
        try:
            found = object_now(f"{url.rstrip('/')}/{name}")
        except FileNotFoundError:
            continue
        return Root(name, found.read(0, found.size), found.state)
    return None


def _remote_token(url: str) -> str:
    root = _remote_root(url)
    return "" if root is None else root.state  # what it is not is said when it is opened
