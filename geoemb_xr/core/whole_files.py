"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from geoemb_xr.core.errors import MissingFileError

#: What a system says of a disk, or of a user's share of it, that has no room left.
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """Open a file to write to. It replaces ``target`` once all is written; after an error nothing is left of it.

    Who may read it is as for any new file: those of ``tempfile`` are their owner's alone.

    Parameters
    ----------
    target : Path
        In a folder that is there.

    Raises
    ------
    MissingFileError
        If the folder is not.
    FileExistsError
        If ``target`` is a folder itself.
    """
    if target.is_dir():
        raise FileExistsError(f"{target} is a folder; give the file in it a name")
    if not target.parent.is_dir():
        raise MissingFileError(f"no such folder to write to: {target.parent}")
    temporary = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        with full_disk_named(target), temporary.open("xb") as file:
            yield file
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def full_disk_named(target: Path, kept: Path | None = None) -> Iterator[None]:
    """Say what was being written where a disk has no room left, and what to do.

    Parameters
    ----------
    target : Path
        What is being written.
    kept : Path, optional
        Where the finished part of it stays for the next call.

    Raises
    ------
    OSError
        With the number that the system gave.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        free = f"{shutil.disk_usage(target.parent).free / 1e6:,.1f} MB are free in {target.parent}"
        then = "nothing of it is kept"
        if kept is not None and kept.exists():
            then = f"make room and call again, which goes on with what is finished in {kept}; or delete that"
        raise OSError(error.errno, f"no room left to write {target}: {free}; {then}") from error
