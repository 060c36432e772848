"""Vectors of patches in (Geo)Parquet, lazily: rows by place and time, vectors left on disk.

Files are pruned by what their paths say, row groups by their statistics, rows by their footprints. What is left
is a list of :class:`Part`, each some rows of one row group, and an array made of one dask task per block of them.
Places, dates and ids are read when opening where they are few (:data:`EAGER_ROWS`), else they are lazy too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoemb_xr.core import areas, geometry
from geoemb_xr.core.errors import ComparabilityError, CoverageError, EmbeddingError, SourceError
from geoemb_xr.core.model import BAND, Product
from geoemb_xr.core.notes import say
from geoemb_xr.core.times import pick_times
from geoemb_xr.execution.threads import side_by_side
from geoemb_xr.readers.footers import FileFacts
from geoemb_xr.readers.layouts import PatchLayout
from geoemb_xr.readers.records import Records, read_part, record_dtype, span_of
from geoemb_xr.readers.row_groups import Part, inclusive, prune, select, touching_files
from geoemb_xr.readers.similar_footers import read_footers
from geoemb_xr.readers.tiles import Request
from geoemb_xr.readers.vectors import Rows, blocks_of
from geoemb_xr.stores.listing import list_files

if TYPE_CHECKING:
    import pandas as pd

#: Up to so many rows, places, dates and ids are read when opening; beyond, they stay lazy.
EAGER_ROWS = 250_000
#: Up to so many bytes of vectors, rows are sorted by date even where dates interleave between row groups.
SORT_BYTES = 1 << 30
#: Bytes of vectors in a block: small row groups are read together up to the first, big ones cut at the second.
BLOCK_BYTES = (16 << 20, 128 << 20)
#: Two patches are one place where their centres agree to so many decimals of a degree (about a metre).
PLACE_DECIMALS = 5


def open_patches(source: Any, request: Request, product: Product, layout: PatchLayout) -> xr.DataArray:
    """Rows of a product's files as one lazy array ``(location, band)``.

    Parameters
    ----------
    source : path, folder, glob, URL, or a list of those
        Place of the files; the name of a published store, or None for the first of them.
    request : Request
        Its area picks rows whose footprint it touches, its time those whose date it holds.
    product : Product
        Product of the patches.
    layout : PatchLayout
        Layout of its files.

    Returns
    -------
    DataArray (location, band)
        float32 vectors in blocks of one or a few row groups, or of a part of one. Along ``location`` lie ``x``
        and ``y`` (centres), ``date`` and the file's other columns: in memory up to :data:`EAGER_ROWS` rows, then
        sorted by date and without the duplicates of overlapping tiles; else lazy and in the files' order.

    Raises
    ------
    CoverageError
        If no row lies in the area or time.
    SourceError
        If a file has no vectors, places or CRS, or vectors of several lengths.
    ComparabilityError
        If the files hold vectors of two models or versions.
    """
    files = prune(list_files(_located(source, product)), request, layout)
    touches = touching_files(request, layout) if request.area is not None else None
    facts = read_footers(files, layout, touches)
    facts, version = _one_space(facts, request, product, layout)
    parts = select(facts, request, layout)
    if not parts and (request.area is not None or request.time is not None):
        raise _nothing(facts, request, product, layout)
    dims = next((one.dims for one in facts if one.dims), product.dims)
    attrs = _attrs(facts, product, version)
    _tell_nulls(parts)
    dtype = record_dtype([part.facts for part in parts] or facts, layout)
    if sum(map(len, parts)) <= EAGER_ROWS:
        return _eager(parts, request, product, layout, dims, dtype, facts[0].crs, attrs)
    if unplaced := sum({(p.facts.file.url, p.group.index): p.group.unplaced for p in parts}.values()):
        say(f"{unplaced} rows have no geometry; their places are missing (NaN)")
    say(
        f"{sum(map(len, parts))} rows: their places and dates stay lazy, in the files' order, and duplicates of "
        "overlapping tiles stay in; ask for a smaller area to get them in memory, sorted by date"
    )
    blocks = _blocks(parts, dims, request.chunks)
    return _assemble(blocks, dims, product, facts[0].crs, attrs, _lazy_coords(blocks, layout, dtype))


def _located(source: Any, product: Product) -> Any:
    if source is None and not product.stores:
        raise SourceError(
            f"{product.name!r} has no published store known here; give the files you have as source"
        )
    if source is None:
        return next(iter(product.stores.values()))
    return product.stores.get(source, source) if isinstance(source, str) else source


def _one_space(
    facts: Sequence[FileFacts], request: Request, product: Product, layout: PatchLayout
) -> tuple[list[FileFacts], str]:
    """The files of one version, and that version: two are never mixed, nor two lengths or CRSs."""
    for one in facts:
        named = one.own.get("product")
        if named and named != product.name:
            raise SourceError(f"{one.file.url} holds {named!r}, not {product.name!r}")
    versions: dict[str, list[FileFacts]] = {}
    asked = request.version
    for one in facts:
        marked, stated = str(one.own.get("version") or ""), _version_of(one, product, layout)
        if asked in (None, marked, stated):
            versions.setdefault(marked or stated, []).append(one)
    if not versions:
        found = sorted({_version_of(one, product, layout) for one in facts})
        raise CoverageError(
            f"version={asked!r} is not in the source, which has {', '.join(map(repr, found))}"
        )
    if len(versions) > 1:
        raise ComparabilityError(
            f"the source mixes {len(versions)} models or versions of {product.name!r}, which cannot be compared: "
            + "; ".join(
                f"{v!r} in {len(f)} files ({sum(one.rows for one in f)} rows), such as {f[0].file.url}"
                for v, f in versions.items()
            )
            + ". Choose one with version=, or give the files of one."
        )
    version, chosen = next(iter(versions.items()))
    _check_lengths(chosen, product)
    for one in chosen[1:]:
        if one.crs != chosen[0].crs:
            raise EmbeddingError(
                f"two CRSs in one source: {chosen[0].file.url} and {one.file.url}; open them apart"
            )
    return chosen, version


def _check_lengths(chosen: Sequence[FileFacts], product: Product) -> None:
    """Raise unless the vectors of all files have one length, that of the product."""
    lengths = {one.dims: one for one in chosen if one.dims}
    if len(lengths) > 1:
        raise ComparabilityError(
            "the source mixes vectors of several lengths: "
            + "; ".join(f"{d} in {one.file.url} ({one.rows} rows)" for d, one in sorted(lengths.items()))
            + ". Give the files of one model."
        )
    for length, one in lengths.items():
        expected = length <= product.dims if product.variants else length == product.dims
        if not expected:
            raise SourceError(
                f"{one.file.url} ({one.rows} rows) has vectors of {length}; those of {product.name!r} have "
                f"{product.dims}. Is it another product?"
            )


def _version_of(facts: FileFacts, product: Product, layout: PatchLayout) -> str:
    if layout.version_of is not None:
        return layout.version_of(facts)
    return product.versions[0] if product.versions else ""


def _nothing(
    facts: Sequence[FileFacts], request: Request, product: Product, layout: PatchLayout
) -> CoverageError:
    places = [place for one in facts for g in one.groups for place in g.places]
    spans = [g.span or inclusive(span_of(one, layout)) for one in facts for g in one.groups]
    days = sorted(str(day.astype("datetime64[D]")) for span in spans if span is not None for day in span)
    dates = " … ".join(dict.fromkeys((days[0], days[-1]))) if days else ""
    around = areas.union_bounds(places) if places else None
    what = f" in {request.area}" if request.area is not None else ""
    when = f" at time={request.time!r}" if request.time is not None else ""
    covers = [f"its files lie in ({', '.join(f'{v:.3f}' for v in around)})" if around is not None else ""]
    covers.append(f"they are of {dates}" if dates else "")
    told = "; ".join(text for text in covers if text)
    return CoverageError(f"no patch of {product.name!r}{what}{when}{'; ' if told else ''}{told}")


def _tell_nulls(parts: Sequence[Part]) -> None:
    nulls = {p.facts.file.url: 0 for p in parts}
    for part in parts:
        nulls[part.facts.file.url] += part.group.nulls
    for url, count in nulls.items():
        if count:
            say(f"{os.path.basename(url)}: {count} rows without a vector; they are missing (NaN)")


def _eager(
    parts: list[Part],
    request: Request,
    product: Product,
    layout: PatchLayout,
    dims: int,
    dtype: np.dtype[Any],
    crs: str,
    attrs: dict[str, Any],
) -> xr.DataArray:
    """With places and dates in memory: duplicates dropped, sorted by date, the vectors lazy."""
    each = side_by_side(lambda part: read_part(part, layout, dtype), parts)
    if not parts:
        coords = {name: ("location", np.empty(0, dtype[name])) for name in dtype.names or ()}
        return _assemble([[]], dims, product, crs, attrs, coords)
    parts, each = _placed(parts, each)
    parts, each = _without_duplicates(parts, each)
    parts, records, rank = _by_first_date(parts, each)
    _check_dates(records, request, product)
    coords = {name: ("location", _in_memory(records[name])) for name in dtype.names or ()}
    array = _assemble(_blocks(parts, dims, request.chunks), dims, product, crs, attrs, coords)
    return _by_date(array, rank)


def _in_memory(column: np.ndarray) -> np.ndarray:
    """A column of its own memory; whole numbers that might have had gaps, and have none, as such."""
    if column.dtype == object and column.size and all(type(value) is int for value in column):
        return column.astype(np.int64)
    return column.copy()


def _placed(parts: list[Part], each: list[np.ndarray]) -> tuple[list[Part], list[np.ndarray]]:
    """Leave out rows without a place: a geometry that is missing or empty.

    Raises
    ------
    SourceError
        If there are rows, and none has a place.
    """
    there = [np.isfinite(records["x"]) & np.isfinite(records["y"]) for records in each]
    lost, rows = sum(int((~held).sum()) for held in there), sum(map(len, parts))
    if not lost:
        return parts, each
    if lost == rows:
        raise SourceError(
            f"{parts[0].facts.file.url}: none of the {rows} rows has a geometry, or all are empty"
        )
    say(f"{lost} of {rows} patches are left out: without a geometry, or with an empty one")
    return _select_rows(parts, each, there)


def _select_rows(
    parts: list[Part], each: list[np.ndarray], keep: list[np.ndarray]
) -> tuple[list[Part], list[np.ndarray]]:
    """Some rows of each part, by masks; parts of which none is left are gone."""
    rows = [np.flatnonzero(held) for held in keep]
    left = [(p.take(k), r[k]) for p, r, k in zip(parts, each, rows, strict=True) if k.size]
    return [p for p, _ in left], [r for _, r in left]


def _by_first_date(parts: list[Part], each: list[np.ndarray]) -> tuple[list[Part], np.ndarray, np.ndarray]:
    """Parts in the order of their first dates, what lies beside their rows, and the rows' places in the source."""
    starts = np.cumsum([0, *map(len, parts)])
    order = np.arange(len(parts))
    if "date" in (each[0].dtype.names or ()):
        order = np.argsort(np.array([records["date"].min() for records in each]), kind="stable")
    rank = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order])
    return [parts[i] for i in order], np.concatenate([each[i] for i in order]), rank


def _check_dates(records: np.ndarray, request: Request, product: Product) -> None:
    """Raise unless every time that was asked for is there; say how many patches have no date."""
    if "date" not in (records.dtype.names or ()):
        if request.time is not None:
            raise SourceError(f"the files of {product.name!r} do not say their dates: leave out time=")
        return
    missing = np.isnat(records["date"])
    pick_times(records["date"][~missing], request.time, covers="what lies there")
    if missing.any():
        say(f"{int(missing.sum())} of {missing.size} patches of {product.name!r} have no date (NaT)")


def _without_duplicates(parts: list[Part], each: list[np.ndarray]) -> tuple[list[Part], list[np.ndarray]]:
    """Leave out rows whose place and date an earlier row has: tiles of a product overlap."""
    import pandas as pd

    records = np.concatenate(each)
    keys = {"x": np.round(records["x"], PLACE_DECIMALS), "y": np.round(records["y"], PLACE_DECIMALS)}
    if "date" in (records.dtype.names or ()):
        keys["date"] = records["date"]
    again = pd.DataFrame(keys).duplicated().to_numpy()
    if not again.any():
        return parts, each
    say(
        f"{int(again.sum())} of {len(again)} patches are duplicates (same place and date, from overlapping tiles); "
        "the first of each is kept"
    )
    ends = np.cumsum([len(part) for part in parts])
    return _select_rows(parts, each, np.split(~again, ends[:-1]))


def _by_date(array: xr.DataArray, rank: np.ndarray) -> xr.DataArray:
    """Sort rows by date, then as in the source, where that does not mean to hold a large array at once."""
    if "date" not in array.coords:
        return array
    order = np.lexsort((rank, array.coords["date"].values))
    if np.array_equal(order, np.arange(order.size)):
        return array
    if array.nbytes > SORT_BYTES:
        say(
            f"row groups are sorted by their first dates, but these interleave: to sort all rows would hold "
            f"{array.nbytes / 1e9:.1f} GB at once; .sortby('date') does it nevertheless"
        )
        return array
    index, chunks = array.indexes["location"], array.variable.chunksizes["location"]
    return array.isel(location=order).assign_coords(location=index).chunk(location=chunks)


def _blocks(parts: Sequence[Part], dims: int, chunks: Any) -> list[list[Part]]:
    """Parts by dask block: small ones together, big ones cut; ``chunks`` asks for a number of rows."""
    asked = chunks.get("location", "auto") if isinstance(chunks, Mapping) else chunks
    if asked in ("auto", None):
        least, most = (max(1, size // (4 * max(dims, 1))) for size in BLOCK_BYTES)
        pieces = [piece for part in parts for piece in _cut(part, 0, most)]
    else:
        starts = np.cumsum([0, *map(len, parts)])
        least = int(starts[-1]) if asked == -1 else int(asked)
        pieces = [
            piece for part, at in zip(parts, starts, strict=False) for piece in _cut(part, int(at), least)
        ]
    blocks: list[list[Part]] = []
    room = 0
    for piece in pieces:
        if len(piece) > room:
            blocks.append([])
            room = least
        blocks[-1].append(piece)
        room -= len(piece)
    return blocks


def _cut(part: Part, at: int, size: int) -> list[Part]:
    """A part that starts at row ``at`` of the array, cut at multiples of ``size``."""
    edges = [0, *range(size - at % size, len(part), size), len(part)]
    if len(edges) == 2:
        return [part]
    return [part.take(np.arange(a, b)) for a, b in pairwise(edges)]


def _assemble(
    blocks: Sequence[list[Part]],
    dims: int,
    product: Product,
    crs: str,
    attrs: Mapping[str, Any],
    coords: Mapping[str, Any],
) -> xr.DataArray:
    import pandas as pd

    data = blocks_of([Rows(tuple(block), dims) for block in blocks], "vectors", np.float32, {"b": dims})
    return xr.DataArray(
        data,
        dims=("location", BAND),
        coords={
            "location": pd.RangeIndex(len(data), name="location"),
            BAND: list(product.bands[:dims]),
            **coords,
            geometry.SPATIAL_REF: geometry.crs_coord(crs),
        },
        attrs=attrs,
        name="embedding",
    )


def _attrs(facts: Sequence[FileFacts], product: Product, version: str) -> dict[str, Any]:
    """Product, version and source; and what the files' ``emb`` footer says, where all say the same."""
    first = facts[0].file.url
    source = first if len(facts) == 1 else f"{first} and {len(facts) - 1} more"
    attrs = {"product": product.name, "version": version, "source": source}
    footers = {json.dumps(one.emb, sort_keys=True) for one in facts if one.emb}
    return {**attrs, "emb": footers.pop()} if len(footers) == 1 else attrs


def _lazy_coords(blocks: Sequence[list[Part]], layout: PatchLayout, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Places, dates and ids, each a dask array cut as the vectors are; one read serves all of a block."""
    records = blocks_of([Records(tuple(block), layout, dtype) for block in blocks], "records", dtype, {})
    return {name: ("location", records[name]) for name in dtype.names or ()}


# --- what exists -------------------------------------------------------------------------------------------


def coverage_patches(source: Any, request: Request, product: Product, layout: PatchLayout) -> pd.DataFrame:
    """List a store's files that an area and a time leave, by their names alone.

    Returns
    -------
    DataFrame
        ``url``, ``bytes``, and ``start`` where the names tell it; a row per file.
    """
    import pandas as pd

    files = prune(list_files(_located(source, product)), request, layout)
    spans = [layout.span_of_path(f.url) if layout.span_of_path is not None else None for f in files]
    table = pd.DataFrame({"url": [f.url for f in files], "bytes": [f.size for f in files]})
    starts = [s[0] if s is not None else np.datetime64("NaT", "ns") for s in spans]
    return table.assign(start=np.array(starts, "datetime64[ns]"))
