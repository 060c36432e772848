"""A cache of blocks of remote rasters, compressed and decoded, of limited size; each block is read once at a time.

Tasks come to the parts of a stored block in an order that is dask's. What came is small, so that many blocks of it
are kept, and none is fetched twice; decoding it again takes a fraction of a second.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Protocol

import numpy as np


class Sized(Protocol):
    """What is kept tells its bytes."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        ...


#: How many megabytes of blocks a process keeps.
VARIABLE = "GEOEMB_CACHE_MB"
_DEFAULT_MB = 384
#: Share of them for decoded blocks: of AlphaEarth's two, of 64 MB, and beside them sixteen as they came, which are
#: two rows of a tile.
_DECODED = 1 / 3
#: Share of them for the indexes of shards: of 16,384 chunks one takes 262 KB.
INDEXED = 1 / 24
#: A worker may be small: no more than this share of the machine's memory by default.
_SHARE = 16


class BlockCache[Block: Sized]:
    """The least recently used go first; two threads that want one block wait for one read of it.

    Parameters
    ----------
    share : float
        Share of the bytes that a process keeps.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self._blocks: OrderedDict[Hashable, Block] = OrderedDict()
        self._coming: dict[Hashable, Future[Block]] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        self._process = os.getpid()

    def get(self, key: Hashable, make: Callable[[], Block]) -> Block:
        """A block, made where it is not kept; not to be written into."""
        with self._lock:
            self._after_fork()
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
            waiting = self._coming.get(key)
            if waiting is None:
                mine: Future[Block] = Future()
                self._coming[key] = mine
        if waiting is not None:
            return waiting.result()
        try:
            block = make()
        except BaseException as error:
            with self._lock:
                self._coming.pop(key, None)
            mine.set_exception(error)
            raise
        if isinstance(block, np.ndarray):
            block.flags.writeable = False
        with self._lock:
            self._coming.pop(key, None)
            self._keep(key, block)
        mine.set_result(block)
        return block

    def drop(self, key: Hashable) -> None:
        """Forget one."""
        with self._lock:
            block = self._blocks.pop(key, None)
            self._bytes -= 0 if block is None else block.nbytes

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._blocks.clear()
            self._bytes = 0

    def _keep(self, key: Hashable, block: Block) -> None:
        limit = int(limit_bytes() * self.share)
        if block.nbytes > limit:
            return
        self._blocks[key] = block
        self._bytes += block.nbytes
        while self._bytes > limit:
            self._bytes -= self._blocks.popitem(last=False)[1].nbytes

    def _after_fork(self) -> None:
        """Forget what threads of the parent process were reading: it never arrives here."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._coming.clear()


def limit_bytes() -> int:
    """Bytes that are kept: ``GEOEMB_CACHE_MB``, else 384 MB, or a sixteenth of a small machine's memory."""
    given = os.environ.get(VARIABLE, "")
    if given:
        try:
            return max(int(float(given) * 2**20), 0)
        except ValueError as error:
            raise ValueError(f"{VARIABLE} is a number of megabytes; got {given!r}") from error
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return _DEFAULT_MB << 20
    return min(_DEFAULT_MB << 20, memory // _SHARE)


def kept_of(came: int, decoded: int) -> int:
    """Bytes that are kept of blocks that came as so many bytes and were decoded to so many."""
    limit = limit_bytes()
    return min(came, int(limit * RAW.share)) + min(decoded, int(limit * CACHE.share))


#: The caches of this process: of blocks as they came, and of decoded ones.
RAW: BlockCache[np.ndarray] = BlockCache(1 - _DECODED - INDEXED)
CACHE: BlockCache[np.ndarray] = BlockCache(_DECODED)
