"""Where a shard of a Zarr array holds its chunks: its index, checked, and shared by the reads of a process.

An index that is kept tells only where chunks are. What it lacks is asked for anew, since a part of a shard may be
written later, and every range that is read by it is of the very state that it is the index of.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from geoemb_xr.readers.block_cache import INDEXED, BlockCache
from geoemb_xr.stores.objects import fetch, is_remote
from geoemb_xr.stores.storage import current

#: What an index says of a chunk that its shard does not hold.
_EMPTY = np.uint64(2**64 - 1)
_ENTRY = 16  # bytes: an offset and a length
_CHECKSUM = 4


class UnusualIndexError(Exception):
    """What Zarr has to read, and to say what is wrong with it."""


class Sharding(NamedTuple):
    """How the index of a shard is stored."""

    counts: tuple[int, ...]  # chunks along each axis
    at_end: bool
    checked: bool  # whether a checksum follows it

    @property
    def size(self) -> int:
        """Bytes of the index."""
        return math.prod(self.counts) * _ENTRY + (_CHECKSUM if self.checked else 0)


@dataclass(frozen=True)
class Index:
    """First byte, and the one after the last, of each chunk of a shard (…, 2); those that it lacks have none."""

    spans: np.ndarray
    size: int  # of the shard
    etag: str

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return int(self.spans.nbytes)

    @property
    def held(self) -> np.ndarray:
        """Which chunks the shard holds."""
        return np.asarray(self.spans[..., 1] > 0)


#: The indexes that this process keeps.
INDEXES: BlockCache[Index] = BlockCache(INDEXED)


def sharding_of(metadata: Mapping[str, Any], shard: tuple[int, ...]) -> tuple[Sharding, Any, Any] | None:
    """How shards are indexed, the shape of their chunks and its codecs; None for unusual ones."""
    (codec, *more) = metadata["codecs"]
    if codec["name"] != "sharding_indexed" or more:
        return None
    how = codec["configuration"]
    chunk = tuple(how["chunk_shape"])
    names = [each["name"] for each in how["index_codecs"]]
    endian = dict(how["index_codecs"][0].get("configuration") or {}).get("endian", "little")
    if names not in (["bytes"], ["bytes", "crc32c"]) or endian != "little":
        return None
    counts = tuple(s // c for s, c in zip(shard, chunk, strict=True))
    return Sharding(counts, how.get("index_location", "end") == "end", len(names) > 1), chunk, how["codecs"]


def index_of(name: str, sharding: Sharding, *, last: Index | None = None) -> tuple[Index, bool]:
    """The index of a shard, and whether it was read just now.

    Parameters
    ----------
    name : str
        Path or URL of the shard.
    sharding : Sharding
        How it is stored.
    last : Index, optional
        One that does not do; the new one must be of the same state of the shard.

    Raises
    ------
    FileNotFoundError
        If there is no such shard.
    UnusualIndexError
        If that is not an index of it, as far as we read any.
    """
    if not is_remote(name):
        return _local(name, sharding), True
    if last is not None:
        forget_index(name, sharding)
    made: list[Index] = []

    def make() -> Index:
        span = (-sharding.size, None) if sharding.at_end else (0, sharding.size)
        answer = fetch(name, *span, etag="" if last is None else last.etag)
        made.append(Index(_spans_of(answer.data, sharding, answer.size, name), answer.size, answer.etag))
        return made[0]

    index = INDEXES.get((name, sharding, current()), make)
    if not index.etag:  # nothing tells whether chunks that are read later are of the same state
        forget_index(name, sharding)
    return index, bool(made)


def forget_index(name: str, sharding: Sharding) -> None:
    """Do not keep the index of a shard."""
    INDEXES.drop((name, sharding, current()))


def _local(name: str, sharding: Sharding) -> Index:
    with open(name, "rb") as file:
        stat = os.fstat(file.fileno())
        state = f"{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}"

        def make() -> Index:
            file.seek(max(stat.st_size - sharding.size, 0) if sharding.at_end else 0)
            spans = _spans_of(file.read(sharding.size), sharding, stat.st_size, name)
            return Index(spans, stat.st_size, state)

        return INDEXES.get((name, sharding, state), make)


def _spans_of(raw: bytes, sharding: Sharding, size: int, name: str) -> np.ndarray:
    if len(raw) != sharding.size:
        raise UnusualIndexError(f"{name} is too short for its index")
    pairs = _checked(raw) if sharding.checked else np.frombuffer(raw, "<u8")
    offsets, lengths = pairs.reshape(*sharding.counts, 2).transpose(-1, *range(len(sharding.counts)))
    empty = (offsets == _EMPTY) & (lengths == _EMPTY)
    outside = ~empty & ((offsets > size) | (lengths > size) | (offsets + lengths > size) | (lengths == 0))
    if outside.any():
        raise UnusualIndexError(f"{name} has an index that points beyond its {size} bytes")
    spans = np.stack([offsets, offsets + lengths], axis=-1)
    spans[empty] = 0
    return spans.astype(np.int64)


def _checked(raw: bytes) -> np.ndarray:
    """An index without its checksum, which must fit."""
    import google_crc32c

    pairs, checksum = raw[:-_CHECKSUM], int.from_bytes(raw[-_CHECKSUM:], "little")
    if google_crc32c.value(pairs) != checksum:
        raise UnusualIndexError("the checksum of the index is another one")
    return np.frombuffer(pairs, "<u8")
