"""Absent chunks: those that reads do not find are collected, so that they are counted and reported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

#: Paths of absent chunks of the read in progress; None where nobody collects them.
_absent: ContextVar[list[str] | None] = ContextVar("geoemb_xr_absent", default=None)


@contextmanager
def noticing() -> Iterator[list[str]]:
    """Collect the paths of chunks that the reads inside find absent, in whichever thread they are looked for."""
    found: list[str] = []
    token = _absent.set(found)
    try:
        yield found
    finally:
        _absent.reset(token)


def notice(path: str) -> bool:
    """Record an absent chunk; return False where nobody collects them."""
    found = _absent.get()
    if found is None:
        return False
    found.append(path)
    return True


def share_of(paths: Sequence[str], total: int) -> str:
    """How many stored blocks are absent.

    Examples
    --------
    >>> share_of(["a.zarr/c/0/1"], 4)
    '1 of 4 stored blocks (25%)'
    """
    return f"{len(paths)} of {total} stored blocks ({len(paths) / total:.0%})"


def absent_note(paths: Sequence[str], total: int, what: str) -> str:
    """Return the note about stored blocks that are absent."""
    return (
        f"{share_of(paths, total)} of {what} do not exist, such as {paths[0]}. They are read as missing; the store "
        "does not say whether they were lost or never written"
    )
