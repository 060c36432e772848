"""Stored chunks of plain Zarr arrays, decoded to where they belong as they come.

Published arrays are plain: of version 3, values of whole bytes, compressed by zstd, Blosc or not at all, in shards
or not. Of those, chunks that lie near each other are one request, the requests of a read go side by side, and each
is decoded in the thread that brought it. What is not plain, or cannot be decoded, is left to Zarr, and so is what
it says of it.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from geoemb_xr.core import buffers
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.readers.shard_indexes import (
    Index,
    Sharding,
    UnusualIndexError,
    forget_index,
    index_of,
    sharding_of,
)
from geoemb_xr.readers.stored_blocks import decompress_zstd
from geoemb_xr.stores.http import ObjectChangedError
from geoemb_xr.stores.objects import bring_all, fetch, is_remote

#: Bytes between two chunks that are fetched along rather than asked apart: 30 ms at 30 MB/s.
GAP = 1 << 20
#: The longest request for several chunks: so much of each request that is under way is held until it is decoded.
_LONGEST = 8 << 20
#: Chunks of a read that are decoded at once.
_DECODING = 2

#: Bytes of Blosc's header, which states the sizes.
_BLOSC_HEADER = 16

#: Place of a chunk, or of an object, along each axis.
Place = tuple[int, ...]
#: Takes a chunk by its place; None for one that was never written.
Put = Callable[[Place, np.ndarray | None], None]


class ChunkLayout(NamedTuple):
    """How an array is stored."""

    dtype: np.dtype[Any]
    outer: tuple[int, ...]  # what an object holds
    chunk: tuple[int, ...]
    compression: str
    sharding: Sharding | None

    def decode(self, data: np.ndarray, out: np.ndarray) -> None:
        """A stored chunk into a contiguous array.

        Raises
        ------
        ValueError, RuntimeError
            If it is no such chunk.
        """
        raw = out.reshape(-1).view(np.uint8)
        if self.compression == "zstd":
            decompress_zstd(data, raw)
        elif self.compression == "blosc":
            _decompress_blosc(data, raw)
        else:
            if data.size != raw.size:
                raise ValueError(f"{data.size} bytes instead of {raw.size} are in it")
            raw[:] = data


def _decompress_blosc(data: np.ndarray, raw: np.ndarray) -> None:
    from numcodecs import blosc

    header = data[:_BLOSC_HEADER].view("<u4") if data.size >= _BLOSC_HEADER else np.zeros(4, "<u4")
    size, stored = int(header[1]), int(header[3])
    if (size, stored) != (raw.size, data.size):
        raise ValueError(f"{size} of {stored} bytes instead of {raw.size} of {data.size} are in it")
    blosc.decompress(data, raw)


def places_under(spans: Sequence[slice], sides: Sequence[int]) -> Iterator[Place]:
    """The places of the chunks that a window touches."""
    return itertools.product(*ranges_under(spans, sides))


def ranges_under(spans: Sequence[slice], sides: Sequence[int]) -> list[range]:
    """The numbers of the chunks that a window touches, along each axis."""
    return [range(span.start // side, -(-span.stop // side)) for span, side in zip(spans, sides, strict=True)]


def layout_of(array: Any) -> ChunkLayout | None:
    """How an array is stored; None where only Zarr can tell."""
    if array.metadata.zarr_format != 3 or array.dtype.kind not in "uif" or not array.dtype.isnative:
        return None
    metadata = array.metadata.to_dict()
    if metadata["chunk_grid"]["name"] != "regular" or metadata.get("storage_transformers"):
        return None
    outer = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
    chunk, codecs, sharding = outer, metadata["codecs"], None
    if codecs[0]["name"] == "sharding_indexed":
        found = sharding_of(metadata, outer)
        if found is None:
            return None
        sharding, chunk, codecs = found
    first, *rest = [each["name"] for each in codecs]
    endian = dict(codecs[0].get("configuration") or {}).get("endian", "little")
    if first != "bytes" or endian != "little" or rest not in ([], ["zstd"], ["blosc"]):
        return None
    return ChunkLayout(array.dtype, outer, chunk, rest[0] if rest else "none", sharding)


class ByteRange[Number](NamedTuple):
    """Bytes of an object, all of it where there is no end, and its chunks: name or number, first byte, stop."""

    name: str
    start: int
    stop: int | None
    etag: str
    chunks: list[tuple[Number, int, int | None]]

    def read(self) -> np.ndarray:
        """The bytes, of the state that is meant."""
        if is_remote(self.name):
            return np.frombuffer(fetch(self.name, self.start, self.stop, etag=self.etag).data, np.uint8)
        with open(self.name, "rb") as file:
            stop = os.fstat(file.fileno()).st_size if self.stop is None else self.stop
            data = buffers.empty((stop - self.start,), np.uint8)
            file.seek(self.start)
            return data[: file.readinto(data)]


@dataclass(frozen=True)
class StoredChunks:
    """The chunks of a plain array.

    Parameters
    ----------
    url, path : str
        The store, and the array in it.
    array : zarr.Array
        Opened, of a store that tells what is absent.
    layout : ChunkLayout
        How it is stored.
    """

    url: str
    path: str
    array: Any
    layout: ChunkLayout

    def window(self, spans: Sequence[slice]) -> np.ndarray | None:
        """A window of the array; None where that is left to Zarr."""
        out = buffers.empty(tuple(s.stop - s.start for s in spans), self.layout.dtype)

        def put(place: Place, chunk: np.ndarray | None) -> None:
            inside, target = [], []
            for span, i, side in zip(spans, place, self.layout.chunk, strict=True):
                first, stop = max(span.start, i * side), min(span.stop, (i + 1) * side)
                inside.append(slice(first - i * side, stop - i * side))
                target.append(slice(first - span.start, stop - span.start))
            out[tuple(target)] = self.array.fill_value if chunk is None else chunk[tuple(inside)]

        return out if self._read(places_under(spans, self.layout.chunk), put) else None

    def points(self, places: Sequence[np.ndarray]) -> np.ndarray | None:
        """Single elements, by their positions along each axis; None where that is left to Zarr."""
        shape = np.broadcast_shapes(*(each.shape for each in places))
        at = np.stack([np.broadcast_to(each, shape).reshape(-1) for each in places], axis=1)
        sides = np.array(self.layout.chunk)
        chunks, of = np.unique(at // sides, axis=0, return_inverse=True)
        order = np.argsort(of.reshape(-1), kind="stable")
        members = np.split(order, np.cumsum(np.bincount(of.reshape(-1)))[:-1])
        own = {tuple(chunk.tolist()): each for chunk, each in zip(chunks, members, strict=True)}
        out = np.empty(len(at), self.layout.dtype)

        def put(place: Place, chunk: np.ndarray | None) -> None:
            mine = own[place]
            inside = tuple((at[mine] - np.array(place) * sides).T)
            out[mine] = self.array.fill_value if chunk is None else chunk[inside]

        return out.reshape(shape) if self._read(own, put) else None

    # --- from objects -----------------------------------------------------------------------------------------

    def _read(self, chunks: Iterable[Place], put: Put) -> bool:
        """Put each of some chunks; False where that is left to Zarr."""
        turns = threading.Semaphore(_DECODING)

        def bring(asked: ByteRange[Place]) -> None:
            try:
                data = asked.read()
            except FileNotFoundError:
                if self.layout.sharding is not None:
                    raise
                self._put_absent(asked.name, [place for place, _, _ in asked.chunks], put)
                return
            with turns:
                chunk = buffers.empty(self.layout.chunk, self.layout.dtype)
                for place, start, stop in asked.chunks:
                    last = None if stop is None else stop - asked.start
                    self.layout.decode(data[start - asked.start : last], chunk)
                    put(place, chunk)

        objects = self._by_object(chunks)
        try:
            asked = self._ranges(objects, put)
            self._each(bring, asked)
        except ObjectChangedError:
            self._forget(objects)
            raise
        except EmbeddingError:  # what could not be read is not asked for again
            raise
        except (UnusualIndexError, ValueError, RuntimeError):  # the last two of codecs
            return False
        return True

    def _each[In, Out](self, bring: Callable[[In], Out], asked: Sequence[In]) -> list[Out]:
        """Side by side where reading is waiting; from a disk one after the other, in the thread of the task."""
        return bring_all(bring, asked) if is_remote(self.url) else [bring(each) for each in asked]

    def _ranges(self, objects: Mapping[str, list[Place]], put: Put) -> list[ByteRange[Place]]:
        """What to ask for so that some chunks come; those that were never written are put at once."""
        if self.layout.sharding is None:
            return [ByteRange(name, 0, None, "", [(place, 0, None)]) for name, (place,) in objects.items()]
        found = self._each(lambda name: self._index(name, objects[name]), list(objects))
        asked: list[ByteRange[Place]] = []
        for (name, places), index in zip(objects.items(), found, strict=True):
            if index is None:
                self._put_absent(name, places, put)
                continue
            held, spans = self._spans(index, places)
            asked += joined_requests(
                name, index.etag, [p for p, h in zip(places, held, strict=True) if h], spans[held]
            )
            for place in itertools.compress(places, ~held):
                put(place, None)
        return asked

    def _index(self, name: str, places: Sequence[Place]) -> Index | None:
        """The index of a shard; None where there is none. One that lacks a chunk is no older than this read."""
        sharding = self.layout.sharding
        assert sharding is not None
        try:
            index, is_new = index_of(name, sharding)
            if not is_new and not self._spans(index, places)[0].all():
                index, _ = index_of(name, sharding, last=index)
        except FileNotFoundError:
            return None
        return index

    def _spans(self, index: Index, places: Sequence[Place]) -> tuple[np.ndarray, np.ndarray]:
        """Which chunks a shard holds, and their bytes."""
        assert self.layout.sharding is not None
        inside = np.array(places) % self.layout.sharding.counts
        spans = index.spans[tuple(inside.T)]
        return spans[:, 1] > 0, spans

    def _by_object(self, chunks: Iterable[Place]) -> dict[str, list[Place]]:
        """Chunks by the path of the object that they are in."""
        sides = tuple(o // c for o, c in zip(self.layout.outer, self.layout.chunk, strict=True))
        found: dict[Place, list[Place]] = {}
        for place in chunks:
            found.setdefault(tuple(p // n for p, n in zip(place, sides, strict=True)), []).append(place)
        return {f"{self.url.rstrip('/')}/{self._key(of)}": places for of, places in found.items()}

    def _key(self, of: Place) -> str:
        key = str(self.array.metadata.encode_chunk_key(of))
        return f"{self.path}/{key}" if self.path else key

    def _put_absent(self, name: str, places: Iterable[Place], put: Put) -> None:
        """Put what was never written, once the store has said what it says of an object that is not there."""
        self.array.store.there(name.removeprefix(f"{self.url.rstrip('/')}/"), None)
        for place in places:
            put(place, None)

    def _forget(self, objects: Iterable[str]) -> None:
        """Do not keep the indexes of objects that were replaced."""
        if self.layout.sharding is not None:
            for name in objects:
                forget_index(name, self.layout.sharding)


def joined_requests[Number](
    name: str, etag: str, numbers: Sequence[Number], spans: np.ndarray
) -> list[ByteRange[Number]]:
    """Chunks that lie near each other as one request."""
    found: list[ByteRange[Number]] = []
    end = 0
    for i in np.argsort(spans[:, 0], kind="stable"):
        start, stop = (int(each) for each in spans[i])
        if not found or start - end > GAP or stop - found[-1].start > _LONGEST:
            found.append(ByteRange(name, start, stop, etag, []))
            end = stop
        end = max(end, stop)
        found[-1].chunks.append((numbers[i], start, stop))
        found[-1] = found[-1]._replace(stop=end)
    return found
