"""Which Zarr stores are archives and not folders of objects, found without importing Zarr, which is slow."""

from __future__ import annotations

import zipfile
from pathlib import Path

from geoemb_xr.stores.objects import is_remote

#: Documents of which a Zarr store has one at its root.
ROOTS = ("zarr.json", ".zgroup", ".zarray")


def is_archive(name: str) -> bool:
    """Whether a store is not a folder of chunks: what it lacks was never written, as its own directory says."""
    return is_zipped(name) or is_icechunk(name)


def is_zipped(name: str) -> bool:
    """Whether a path or URL is a zipped Zarr store: by its name, and where it is on a disk by what it holds."""
    lower = name.lower()
    if is_remote(name):
        return lower.endswith(".zarr.zip")
    if not lower.endswith(".zip") or not Path(name).is_file():
        return False
    try:
        with zipfile.ZipFile(name) as archive:
            return any(each.rpartition("/")[2] in ROOTS for each in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return lower.endswith(".zarr.zip")  # what is wrong with it is said when it is opened


def is_icechunk(name: str) -> bool:
    """Whether a path or URL is a repository of Icechunk: by its name, or by what a folder holds."""
    if is_remote(name):
        return name.rstrip("/").lower().endswith(".icechunk")
    folder = Path(name)
    return (folder / "snapshots").is_dir() and any((folder / each).exists() for each in ("repo", "refs"))
