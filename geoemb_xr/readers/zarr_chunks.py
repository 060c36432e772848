"""Which chunks of a Zarr array were never written: absent is not zero, whatever the store's fill value.

Looked at only where a window holds nothing but the fill value, so that a read of data costs no request more.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from geoemb_xr.stores.archives import is_archive
from geoemb_xr.stores.objects import get_range, is_remote, object_size

#: What a shard's index says of an inner chunk that it does not hold.
_EMPTY = np.uint64(2**64 - 1)


def names_in(array: Any, folder: str) -> list[str]:
    """Names of what lies in a folder of an array, as its store lists them."""
    from zarr.core.sync import _collect_aiterator, sync

    return list(sync(_collect_aiterator(array.store.list_dir(f"{array.path}/{folder}"))))


def _size(name: str, array: Any, url: str) -> int | None:
    """Bytes of an object, or of a member of an archive; None where there is none."""
    if not is_archive(url):
        return object_size(name)
    from zarr.core.sync import sync

    try:
        return int(sync(array.store.getsize(name.removeprefix(f"{url.rstrip('/')}/"))))
    except FileNotFoundError:
        return None


def unwritten(
    url: str, path: str, array: Any, dims: tuple[str, ...], window: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, slice]]]:
    """Chunks of a window that were never written.

    Parameters
    ----------
    url, path : str
        The store, and the array in it.
    array : zarr.Array
        Opened.
    dims : tuple of str
        Its axes.
    window : mapping of str to int or slice
        What of each axis is looked at.

    Yields
    ------
    (str, dict)
        Path of the object that holds no such chunk, and the chunk's place along each axis, cut to the window and
        counted from its start.
    """
    spans = _spans(array, dims, window)
    outer, inner = array.shards or array.chunks, array.chunks
    for position in _touched(spans, outer):
        name = _name(url, path, array, position)
        size = _size(name, array, url)
        starts = [i * side for i, side in zip(position, outer, strict=True)]
        if size is None:
            yield name, _place(starts, outer, spans, dims)
        elif array.shards is not None and not is_archive(url):
            held = _held(name, size, _counts(outer, inner))
            for part in np.argwhere(~held):
                first = [s + int(i) * n for s, i, n in zip(starts, part, inner, strict=True)]
                if _meets(first, inner, spans):
                    yield name, _place(first, inner, spans, dims)


def object_names(
    url: str, path: str, array: Any, dims: tuple[str, ...], window: Mapping[str, Any]
) -> Iterator[str]:
    """Paths of the objects, chunks or shards, that a window of an array is stored in."""
    touched = _touched(_spans(array, dims, window), array.shards or array.chunks)
    return (_name(url, path, array, position) for position in touched)


def _name(url: str, path: str, array: Any, position: tuple[int, ...]) -> str:
    return f"{url.rstrip('/')}/{path}/{array.metadata.encode_chunk_key(position)}".replace("//c/", "/c/")


def _spans(array: Any, dims: tuple[str, ...], window: Mapping[str, Any]) -> list[slice]:
    """What of each axis is looked at, from its first element to the one after the last."""
    asked = [window[d] if isinstance(window[d], slice) else slice(window[d], window[d] + 1) for d in dims]
    return [slice(*span.indices(n)[:2]) for span, n in zip(asked, array.shape, strict=True)]


#: Of how many objects the size is asked for to plan.
_SOME = 8


def transfer_of(
    url: str, path: str, array: Any, dims: tuple[str, ...], windows: Sequence[Mapping[str, Any]]
) -> tuple[int, int]:
    """Requests and bytes with which windows are read, each by itself.

    A chunk is a request. Of a shard all of it is one, a part of it one for its index and one for each inner chunk.
    """
    outer, inner = array.shards or array.chunks, array.chunks
    held = math.prod(_counts(outer, inner))
    requests, chunks = 0, 0
    names: dict[str, None] = {}
    for window in windows:
        spans = _spans(array, dims, window)
        for position in _touched(spans, outer):
            names.setdefault(_name(url, path, array, position))
            inside = [
                slice(max(s.start, p * n), min(s.stop, (p + 1) * n, size))
                for s, p, n, size in zip(spans, position, outer, array.shape, strict=True)
            ]
            parts = math.prod(len(each) for each in _ranges(inside, inner))
            whole = array.shards is None or parts == held
            requests, chunks = requests + (1 if whole else parts + 1), chunks + parts
    some = [_size(name, array, url) or 0 for name in list(names)[:: max(len(names) // _SOME, 1)][:_SOME]]
    return requests, round(chunks / held * sum(some) / max(len(some), 1))


def _ranges(spans: Sequence[slice], sides: tuple[int, ...]) -> list[range]:
    return [range(span.start // side, -(-span.stop // side)) for span, side in zip(spans, sides, strict=True)]


def _touched(spans: list[slice], sides: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*_ranges(spans, sides))


def _counts(outer: tuple[int, ...], inner: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(o // i for o, i in zip(outer, inner, strict=True))


def _meets(first: list[int], sides: tuple[int, ...], spans: list[slice]) -> bool:
    return all(a < span.stop and a + n > span.start for a, n, span in zip(first, sides, spans, strict=True))


def _place(
    first: list[int], sides: tuple[int, ...], spans: list[slice], dims: tuple[str, ...]
) -> dict[str, slice]:
    return {
        dim: slice(max(a - span.start, 0), min(a + n, span.stop) - span.start)
        for dim, a, n, span in zip(dims, first, sides, spans, strict=True)
    }


@lru_cache(maxsize=256)
def _held(name: str, size: int, counts: tuple[int, ...]) -> np.ndarray:
    """Which inner chunks a shard holds, by its index: offsets and lengths at its end, and a checksum of 4 bytes.

    The index lies where every writer puts it unless told otherwise; one that is not there says nothing, and then
    every chunk counts as written.
    """
    length = int(np.prod(counts)) * 16
    if size < length + 4:
        return np.ones(counts, bool)
    start = size - length - 4
    if is_remote(name):
        raw = get_range(name, start, length)
    else:
        with Path(name).open("rb") as file:
            file.seek(start)
            raw = file.read(length)
    index = np.frombuffer(raw, "<u8").reshape(*counts, 2)
    empty = (index == _EMPTY).all(axis=-1)
    inside = (index.astype(np.float64).sum(axis=-1) <= size) | empty
    return ~empty if inside.all() else np.ones(counts, bool)
