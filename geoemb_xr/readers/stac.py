"""STAC items as a source: what they name, as the files and URLs that every reader takes.

Items, item collections, collections and answers of an API are taken as dicts, as objects of pystac or
pystac-client, as JSON files and as their URLs. What an item names is data, or it is left out; nothing else of it is
believed: places and bands are those of the files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from geoemb_xr.core.areas import Area
from geoemb_xr.core.errors import CoverageError, SourceError
from geoemb_xr.core.local_paths import local_path
from geoemb_xr.stores.objects import fetch, is_remote

#: Endings of what readers take.
_DATA = (".tif", ".tiff", ".parquet", ".geoparquet", ".zarr", ".zarr.zip", ".icechunk", ".npy")
_NOT_DATA = frozenset(("thumbnail", "overview", "metadata", "visual"))
#: A document is small; an API gives pages.
_LARGEST, _MOST_PAGES, _MOST_ITEMS = 64 << 20, 100, 100_000


def files_of(source: Any, area: Callable[[], Area | None] = lambda: None) -> list[str] | None:
    """Files and URLs that STAC items name; None where a source is none.

    Parameters
    ----------
    source : dict, pystac object, path, URL or list of those
        Items, collections of items, or where their JSON lies.
    area : callable
        The area that was asked for: items whose ``bbox`` lies outside are left out.

    Raises
    ------
    SourceError
        If an item names no data, or a document that came from the network names a file of this machine.
    CoverageError
        If all items lie outside the area.

    Examples
    --------
    >>> item = {
    ...     "stac_version": "1.0.0",
    ...     "type": "Feature",
    ...     "bbox": [0, 0, 1, 1],
    ...     "assets": {"data": {"href": "s3://bucket/2024/a.tif"}, "thumbnail": {"href": "a.png"}},
    ... }
    >>> files_of(item), files_of("s3://bucket/2024/a.tif")
    (['s3://bucket/2024/a.tif'], None)
    """
    documents = list(_documents(source))
    if not documents:
        return None
    items = [each for document, base in documents for each in _items(document, base)]
    asked = area()
    near = [(item, base) for item, base in items if asked is None or _touches(item, asked)]
    if items and not near:
        raise CoverageError(f"none of the {len(items)} STAC items touches {asked}")
    found = dict.fromkeys(href for item, base in near for href in _hrefs(item, base))
    if not found:
        raise SourceError(
            f"the STAC items ({len(items)}) name no data: assets are taken that end in {', '.join(_DATA)}"
        )
    return list(found)


# --- documents ----------------------------------------------------------------------------------------------------


def _documents(source: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Documents of a source, each with where it lies; none where it is not STAC."""
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        if _may_be_json(name) and is_stac(document := _load(name)):
            yield document, name
    elif isinstance(source, Mapping):
        if is_stac(source):
            yield dict(source), ""
    elif hasattr(source, "to_dict") and type(source).__module__.startswith("pystac"):
        yield source.to_dict(), _own_href(source)
    elif hasattr(source, "item_collection") and type(source).__module__.startswith("pystac"):
        yield source.item_collection().to_dict(), ""  # a search that was not run yet
    elif isinstance(source, Iterable) and not hasattr(source, "columns") and not hasattr(source, "dims"):
        for each in list(source)[:_MOST_ITEMS]:
            yield from _documents(each)


def _own_href(source: Any) -> str:
    href = source.get_self_href() if hasattr(source, "get_self_href") else None
    return str(href or "")


def is_stac(document: Any) -> bool:
    """Whether JSON is an item, a collection, or items of those."""
    if not isinstance(document, Mapping):
        return False
    if "stac_version" in document:
        return True
    features = document.get("features")
    return isinstance(features, list) and bool(features) and all(is_stac(each) for each in features[:3])


def _may_be_json(name: str) -> bool:
    if is_remote(name):
        path = urlsplit(name).path.rstrip("/").lower()
        web = name.startswith(("https://", "http://"))
        return path.endswith((".json", ".geojson")) or (web and path.endswith(("/search", "/items")))
    return name.lower().endswith((".json", ".geojson"))


def _load(name: str) -> Any:
    if is_remote(name) and not name.startswith("file://"):
        data = fetch(name).data
    else:
        path = local_path(name)
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        data = path.read_bytes()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        if is_remote(name):
            raise SourceError(f"{name} is not JSON: {error}") from error
        return None  # the reader of tables says what is wrong with it


def _items(document: Mapping[str, Any], base: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Items of a document, of its next pages, and of the links of a collection or catalogue."""
    for _ in range(_MOST_PAGES):
        if document.get("type") == "Feature":
            yield document, base
            return
        features = document.get("features")
        if features is None:
            break
        yield from ((each, base) for each in features if isinstance(each, Mapping))
        following = _link(document, "next")
        if following is None:
            return
        url = _resolved(following, base)
        document, base = _load(url) or {}, url
    if document.get("assets"):  # a collection of one store
        yield document, base
    for link in document.get("links") or []:
        if isinstance(link, Mapping) and link.get("rel") == "item" and isinstance(link.get("href"), str):
            url = _resolved(link["href"], base)
            item = _load(url)
            if not is_stac(item):
                raise SourceError(f"{base or 'a STAC collection'} names the item {url}, which is none")
            yield item, url


def _link(document: Mapping[str, Any], rel: str) -> str | None:
    for link in document.get("links") or []:
        if isinstance(link, Mapping) and link.get("rel") == rel and link.get("method", "GET") == "GET":
            return str(link.get("href"))
    return None


# --- what items name --------------------------------------------------------------------------------------------


def _touches(item: Mapping[str, Any], area: Any) -> bool:
    box = item.get("bbox")
    if not isinstance(box, (list, tuple)) or len(box) not in (4, 6):
        return True
    west, south, east, north = (float(v) for v in (*box[:2], *box[len(box) // 2 :][:2]))
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    return any(
        w <= e2 and e >= w2 and s <= north and n >= south for w, s, e, n in area.lonlat() for w2, e2 in spans
    )


def _hrefs(item: Mapping[str, Any], base: str) -> Iterator[str]:
    """Data of an item: those with the role ``data`` where any has it."""
    own = _link(item, "self")
    base = base or own or ""
    assets = [each for each in (item.get("assets") or {}).values() if isinstance(each, Mapping)]
    taken = [
        each
        for each in assets
        if isinstance(each.get("href"), str)
        and urlsplit(each["href"]).path.rstrip("/").lower().endswith(_DATA)
        and not _NOT_DATA & set(each.get("roles") or ())
    ]
    marked = [each for each in taken if "data" in (each.get("roles") or ())]
    for each in marked or taken:
        yield _resolved(str(each["href"]), base)


def _resolved(href: str, base: str) -> str:
    """Where an href leads from where its document lies.

    Raises
    ------
    SourceError
        If a document from the network names a file of this machine.
    """
    if is_remote(base) and not base.startswith("file://"):
        if href.startswith(("file:", "/vsi")):
            raise SourceError(f"{base} names a file of this machine: {href!r}")
        if "://" in href:
            return href
        scheme, _, rest = base.partition("://")
        return f"{scheme}://{urljoin(f'https://{rest}', href).removeprefix('https://')}"
    if "://" in href or Path(href).is_absolute():
        return href
    if not base:
        raise SourceError(
            f"a STAC item names {href!r}, which is relative, and does not say where it lies itself"
        )
    return os.path.normpath(local_path(base).parent / href)
