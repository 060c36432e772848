"""Which chunks of a Zarr array were never written: absent is not zero, whatever the store's fill value.

Looked at only where a window holds nothing but the fill value, so that a read of data costs no request more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from geoemb_xr.readers.shard_indexes import Index, Sharding, UnusualIndexError, index_of, sharding_of
from geoemb_xr.readers.stored_chunks import joined_requests, layout_of, places_under, ranges_under
from geoemb_xr.stores.archives import is_archive
from geoemb_xr.stores.objects import object_size


def names_in(array: Any, folder: str) -> list[str]:
    """Names of what lies in a folder of an array, as its store lists them."""
    from geoemb_xr.stores.zarr_objects import listed_keys

    return listed_keys(array.store.list_dir(f"{array.path}/{folder}"))


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
    sharding = None if is_archive(url) else _sharding(array)
    for position in places_under(spans, outer):
        name = _name(url, path, array, position)
        starts = [i * side for i, side in zip(position, outer, strict=True)]
        held = _held(name, sharding) if sharding is not None else _size(name, array, url) is not None
        if held is False:
            yield name, _place(starts, outer, spans, dims)
        elif not isinstance(held, bool):
            for part in np.argwhere(~held):
                first = [s + int(i) * n for s, i, n in zip(starts, part, inner, strict=True)]
                if _meets(first, inner, spans):
                    yield name, _place(first, inner, spans, dims)


def object_names(
    url: str, path: str, array: Any, dims: tuple[str, ...], window: Mapping[str, Any]
) -> Iterator[str]:
    """Paths of the objects, chunks or shards, that a window of an array is stored in."""
    touched = places_under(_spans(array, dims, window), array.shards or array.chunks)
    return (_name(url, path, array, position) for position in touched)


def _name(url: str, path: str, array: Any, position: tuple[int, ...]) -> str:
    return f"{url.rstrip('/')}/{path}/{array.metadata.encode_chunk_key(position)}".replace("//c/", "/c/")


def _spans(array: Any, dims: tuple[str, ...], window: Mapping[str, Any]) -> list[slice]:
    """What of each axis is looked at, from its first element to the one after the last."""
    asked = [window[d] if isinstance(window[d], slice) else slice(window[d], window[d] + 1) for d in dims]
    return [slice(*span.indices(n)[:2]) for span, n in zip(asked, array.shape, strict=True)]


#: Number of objects whose size is asked for in a plan.
_SOME = 8


def transfer_of(
    url: str, path: str, array: Any, dims: tuple[str, ...], windows: Sequence[Mapping[str, Any]]
) -> tuple[int, int]:
    """Requests and bytes with which windows are read, each by itself.

    A chunk is a request; of a shard its index is one, and chunks that lie near each other are one.
    """
    outer = array.shards or array.chunks
    parts: dict[tuple[int, ...], list[list[slice]]] = {}
    for window in windows:
        spans = _spans(array, dims, window)
        for position in places_under(spans, outer):
            inside = [
                slice(max(s.start, p * n), min(s.stop, (p + 1) * n, size))
                for s, p, n, size in zip(spans, position, outer, array.shape, strict=True)
            ]
            parts.setdefault(position, []).append(inside)
    some = list(parts)[:: max(len(parts) // _SOME, 1)][:_SOME]
    found = [_cost(url, _name(url, path, array, each), array, parts[each]) for each in some]
    share = sum(map(len, parts.values())) / max(sum(len(parts[each]) for each in some), 1)
    indexes = 0 if array.shards is None else len(parts) - len(some)
    return indexes + round(share * sum(n for n, _ in found)), round(share * sum(size for _, size in found))


def _cost(url: str, name: str, array: Any, windows: Sequence[Sequence[slice]]) -> tuple[int, int]:
    """Requests and bytes with which windows of one object are read."""
    sharding = None if is_archive(url) else _sharding(array)
    if sharding is not None:
        try:
            index, _ = index_of(name, sharding)
        except FileNotFoundError:
            return len(windows), 0
        except UnusualIndexError:  # what is wrong with it is said when it is read
            sharding = None
    if sharding is not None:
        asked = [
            each
            for window in windows
            for each in joined_requests(name, "", *_of_index(index, sharding.counts, window, array.chunks))
        ]
        # kept now, unless it is Zarr that reads the chunks, which asks for it each time
        indexes = 0 if index.etag and layout_of(array) is not None else len(windows)
        size = sum((each.stop or 0) - each.start for each in asked)
        return indexes + len(asked), indexes * sharding.size + size
    size, held = _size(name, array, url) or 0, math.prod(_counts(array.shards or array.chunks, array.chunks))
    chunks = [math.prod(len(each) for each in ranges_under(window, array.chunks)) for window in windows]
    requests = sum(1 if array.shards is None or n == held else n + 1 for n in chunks)
    return requests, round(size * sum(chunks) / held)


def _of_index(
    index: Index, counts: tuple[int, ...], window: Sequence[slice], inner: tuple[int, ...]
) -> tuple[range, np.ndarray]:
    """Numbers and bytes of the chunks of a window that a shard holds."""
    inside = np.ix_(
        *(np.array(each) % n for each, n in zip(ranges_under(window, inner), counts, strict=True))
    )
    spans = index.spans[inside].reshape(-1, 2)
    spans = spans[spans[:, 1] > 0]
    return range(len(spans)), spans


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


def _sharding(array: Any) -> Sharding | None:
    """How its shards are indexed; None where it has none, or only Zarr can tell."""
    found = None if array.shards is None else sharding_of(array.metadata.to_dict(), array.shards)
    return None if found is None else found[0]


def _held(name: str, sharding: Sharding) -> np.ndarray | bool:
    """Which chunks a shard holds; False where there is none, True where its index says nothing."""
    try:
        return index_of(name, sharding)[0].held
    except FileNotFoundError:
        return False
    except UnusualIndexError:
        return True
