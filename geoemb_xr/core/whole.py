"""Files that are written whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from geoemb_xr.core.errors import MissingFileError


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
        with temporary.open("xb") as file:
            yield file
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
