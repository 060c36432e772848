"""A Zarr store of objects: partial reads of shards by ranges, whole or an error, never a hole."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.notes import say
from geoemb_xr.stores.absence import notice
from geoemb_xr.stores.http import ObjectChangedError
from geoemb_xr.stores.objects import (
    CONCURRENCY,
    delete_objects,
    fetch,
    is_remote,
    list_folders,
    list_objects,
    object_size,
    put,
)
from geoemb_xr.stores.storage import Storage, current, using

#: Objects of which the state is remembered, so that ranges of one object are of one state.
_REMEMBERED = 4096


class ZarrObjects(Store):
    """Reads of a Zarr store below a URL, and writes where those are meant.

    Parameters
    ----------
    url : str
        URL of the root.
    storage : Storage, optional
        Options that reach it; those of the current call by default.
    read_only : bool
        Whether nothing may be written.
    known : mapping of str to bytes, optional
        Objects that were read just now, such as the metadata in the root.
    """

    supports_writes = True
    supports_deletes = True
    supports_listing = True
    supports_partial_writes = False

    def __init__(
        self,
        url: str,
        storage: Storage | None = None,
        read_only: bool = True,
        known: Mapping[str, bytes] | None = None,
    ) -> None:
        super().__init__(read_only=read_only)
        self.url, self.storage = url.rstrip("/"), storage or current()
        self._known = dict(known or {})
        self._states: dict[str, str] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZarrObjects) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash(self.__reduce__())

    def __repr__(self) -> str:
        return f"ZarrObjects({self.url!r})"

    def __reduce__(self) -> Any:
        return ZarrObjects, (self.url, self.storage, self.read_only)

    def with_read_only(self, read_only: bool = False) -> ZarrObjects:
        """The same store, to be read or to be written into."""
        return ZarrObjects(self.url, self.storage, read_only)

    def _read(self, key: str, span: tuple[int, int | None] | None) -> bytes | None:
        with using(self.storage):
            try:
                answer = fetch(f"{self.url}/{key}", *(span or ()), etag=self._states.get(key, ""))
            except FileNotFoundError:
                return None
            except ObjectChangedError:
                self._states.clear()  # what is opened again reads the new states
                raise
        if span is not None:
            if len(self._states) >= _REMEMBERED:
                self._states.clear()
            self._states[key] = answer.etag
        return answer.data

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """An object, or a range of it; None where there is none."""
        if byte_range is None and key in self._known:
            return prototype.buffer.from_bytes(self._known[key])
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(_threads(os.getpid()), self._read, key, byte_span(byte_range))
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several ranges, side by side."""
        return list(await asyncio.gather(*(self.get(key, prototype, each) for key, each in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return await asyncio.get_running_loop().run_in_executor(_threads(os.getpid()), self._has, key)

    def _has(self, key: str) -> bool:
        with using(self.storage):
            return object_size(f"{self.url}/{key}") is not None

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object, whole or not at all."""
        self._check_writable()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(_threads(os.getpid()), self._write, key, value.to_bytes())

    def _write(self, key: str, data: bytes) -> None:
        self._states.pop(key, None)
        with using(self.storage):
            put(f"{self.url}/{key}", data)

    async def delete(self, key: str) -> None:
        """Remove an object."""
        self._check_writable()
        await asyncio.get_running_loop().run_in_executor(_threads(os.getpid()), self._remove, key)

    def _remove(self, key: str) -> None:
        self._states.pop(key, None)
        with using(self.storage):
            delete_objects(f"{self.url}/{key}")

    async def list(self) -> AsyncIterator[str]:
        """Keys of all objects."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Keys below a folder."""
        with using(self.storage):
            for each in list_objects(f"{self.url}/{prefix}"):
                yield each.url.removeprefix(f"{self.url}/")

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names of what lies in a folder."""
        with using(self.storage):
            for name in list_folders(f"{self.url}/{prefix}"):
                yield name


class _Watched(WrapperStore[Store]):
    """A store whose absent objects mean something: ``there`` sees what came of every key."""

    def there(self, key: str, found: Buffer | None) -> Buffer | None:
        """Handle the result of a key, which may be an absent object."""
        raise NotImplementedError  # the base class alone says nothing of what is absent

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """An object, or a range of it."""
        return self.there(key, await self._store.get(key, prototype, byte_range))

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """An object, or a range of it, where the store reads without a loop."""
        return self.there(key, super().get_sync(key, prototype=prototype, byte_range=byte_range))


class WrittenWhole(_Watched):
    """A store of which every chunk of some arrays was written, those without data too: one that is gone is lost.

    Parameters
    ----------
    store : Store
        The store.
    where : str
        Path or URL, for messages.
    arrays : collection of str
        Paths of those arrays.
    """

    def __init__(self, store: Store, where: str, arrays: Collection[str]) -> None:
        super().__init__(store)
        self.where, self.arrays = where.rstrip("/"), frozenset(arrays)

    def __reduce__(self) -> Any:
        return WrittenWhole, (self._store, self.where, self.arrays)

    def there(self, key: str, found: Buffer | None) -> Buffer | None:
        """What came of a key; of a chunk of such an array never nothing."""
        name, chunk, _ = key.partition("/c/")
        if found is None and chunk and name in self.arrays:
            raise SourceError(
                f"{self.where}/{key} does not exist, though all blocks of {name!r} were written: data were lost; "
                "fetch the store, or write it, again"
            )
        return found


#: Keys of chunks of rasters and tables, whichever way they are encoded: ``array/c/0/1``, ``array/0.1``. A time axis
#: that holds one zero is stored as no chunk.
_CHUNK = re.compile(r"(?P<array>.*?)/?(?:\bc/)?\d+(?:[./]\d+)+")


class Noticing(_Watched):
    """A store by others, which does not say what was written: chunks that are absent are missing, and that is said.

    Parameters
    ----------
    store : Store
        The store.
    where : str
        Path or URL.
    """

    def __init__(self, store: Store, where: str) -> None:
        super().__init__(store)
        self.where = where.rstrip("/")
        self._said: set[str] = set()

    def __reduce__(self) -> Any:
        return Noticing, (self._store, self.where)

    def there(self, key: str, found: Buffer | None) -> Buffer | None:
        """What came of a key, if a chunk that is absent was noted."""
        chunk = _CHUNK.fullmatch(key) if found is None else None
        if chunk and not is_remote(self.where) and not os.path.isdir(self.where):
            raise SourceError(
                f"the folder {self.where} is not there any more: open it again where it is now, by its whole path "
                "if it is read in another folder or on workers"
            )
        if chunk and not notice(name := f"{self.where}/{key}") and chunk["array"] not in self._said:
            self._said.add(chunk["array"])
            say(f"{name} does not exist, and is read as missing")
        return found


def byte_span(asked: ByteRequest | None) -> tuple[int, int | None] | None:
    """First byte and the one after the last of what Zarr asks for; None for all."""
    match asked:
        case RangeByteRequest():
            return asked.start, asked.end
        case OffsetByteRequest():
            return asked.offset, None
        case SuffixByteRequest():
            return -asked.suffix, None
        case _:
            return None


def listed_keys(names: AsyncIterator[str]) -> list[str]:
    """What a store of Zarr lists, for code without a loop: Zarr's own way to that may move between its versions."""
    from zarr.core.sync import _collect_aiterator, sync

    return list(sync(_collect_aiterator(names)))


@lru_cache(maxsize=2)
def _threads(process: int) -> ThreadPoolExecutor:
    """Threads in which requests of this process wait."""
    return ThreadPoolExecutor(2 * CONCURRENCY, thread_name_prefix="geoemb-zarr")
