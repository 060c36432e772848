"""Locks: one writer per target; a second one is told who holds it."""

from __future__ import annotations

import glob
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.whole_files import full_disk_named
from geoemb_xr.writing.staging import part_of

#: Shards that a writer claims, along each dimension; None claims all.
Claim = Mapping[str, list[int]] | None

#: What follows the name of a target in the names of its locks: a part's key, if it is of a part.
_LOCK = re.compile(r"(\.[0-9a-f]{8})?\.lock")
#: Seconds that a writer has to say who it is, once it holds its file.
_TO_SAY = 5.0
#: How often, 10 ms apart, a lock is tried: another writer may be looking whether it is held.
_TRIES = 10


@contextmanager
def only_writer(target: Path, claim: Claim = None, *, key: str = "") -> Iterator[None]:
    """Hold a target against other writers, in this process or another.

    A file beside the target says host, process and start. It is held by a lock of the operating system, which
    goes with its process: the file of a writer that was killed holds nothing.

    Parameters
    ----------
    target : Path
        The file or store to write.
    claim : mapping of str to list of int, optional
        The part of it that is written, in shards along each dimension: parts that do not meet may be written at
        the same time.
    key : str
        Names the part, where there is one: eight hexadecimal digits.

    Raises
    ------
    SourceError
        If another writer holds the target, or shards that are claimed.
    OSError
        If the disk is full: where the finished part is kept.
    """
    path = target.with_name(f"{target.name}{'.' if key else ''}{key}.lock")
    own = _locked_file(path, target)
    try:
        with full_disk_named(target, part_of(target, key)):
            own.write(json.dumps({**_self(), "claim": claim}))
            own.flush()
            for other in target.parent.glob(glob.escape(target.name) + ".*lock"):
                if other != path and _LOCK.fullmatch(other.name.removeprefix(target.name)):
                    _check_apart(other, target, claim)
            yield
    finally:
        path.unlink(missing_ok=True)
        own.close()  # this gives up the lock: a process that waits finds the file gone, and makes its own


def _self() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "start": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _locked_file(path: Path, target: Path) -> TextIO:
    """The lock's file, held and empty."""
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - it stays open while the target is held
        if not _lock_patiently(file):
            with file:
                raise _held_error(target, _facts_of_holder(file))
        if _still_there(path, file):
            file.truncate(0)
            return file
        file.close()  # its holder removed the file between our opening and locking it


def _lock_patiently(file: TextIO) -> bool:
    for _ in range(_TRIES):
        if _lock(file):
            return True
        time.sleep(0.01)
    return False


def _still_there(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _check_apart(other: Path, target: Path, claim: Claim) -> None:
    """Raise if a live writer holds shards that are claimed."""
    try:
        file = open(other, "r+", encoding="utf-8")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return
    with file:
        if _lock(file):  # nobody holds it
            return
        holder = _facts_of_holder(file)
    theirs = holder.get("claim")
    if claim is None or theirs is None or all(set(claim[d]) & set(theirs.get(d, claim[d])) for d in claim):
        raise _held_error(target, holder)


def _facts_of_holder(file: TextIO) -> dict[str, Any]:
    """The facts that a lock's holder wrote about itself; they may not be there yet."""
    until = time.monotonic() + _TO_SAY
    while time.monotonic() < until:
        file.seek(0)
        try:
            said = json.loads(file.read())
            return said if isinstance(said, dict) else {}
        except ValueError:
            time.sleep(0.01)
    return {}


def _held_error(target: Path, holder: Mapping[str, Any]) -> SourceError:
    who = f"process {holder.get('process', '?')} on {holder.get('host', 'an unknown host')}"
    return SourceError(
        f"{target} is being written by {who} since {holder.get('start', 'an unknown time')}; "
        "wait until it is done, or write to another path"
    )


if sys.platform == "win32":
    import msvcrt

    def _lock(file: TextIO) -> bool:
        # a byte far beyond what is written, so that others can read who holds it
        file.seek(1 << 30)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    @contextmanager
    def one_at_a_time(folder: Path) -> Iterator[None]:
        """Wait until no other writer changes what lies in a folder; here, where none can be locked, do not."""
        yield

else:
    import fcntl

    def _lock(file: TextIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @contextmanager
    def one_at_a_time(folder: Path) -> Iterator[None]:
        """Wait until no other writer changes what lies in a folder."""
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
