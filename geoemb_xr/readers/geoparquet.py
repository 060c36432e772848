"""Vectors of patches in (Geo)Parquet, lazily: rows by place and time, vectors left on disk.

Files are pruned by what their paths say, row groups by their statistics, rows by their footprints. What is left
is a list of :class:`Part`, each some rows of one row group, and an array made of one dask task a block of them.
Places, dates and ids are read when opening where they are few (:data:`EAGER_ROWS`), else they are lazy too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoemb_xr.core import areas, geometry
from geoemb_xr.core.areas import Area, Bounds
from geoemb_xr.core.errors import ComparabilityError, CoverageError, EmbeddingError, SourceError
from geoemb_xr.core.model import BAND, Product
from geoemb_xr.core.notes import say
from geoemb_xr.core.times import pick_times, time_spans
from geoemb_xr.readers.footers import FileFacts, Group, Layout, Span, read_footer, timestamps
from geoemb_xr.readers.tiles import Request
from geoemb_xr.stores.listing import File, list_files, open_file

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
_THREADS = 16
#: Names that a column riding along may not take.
_OWN_NAMES = frozenset(("x", "y", "location", BAND, geometry.SPATIAL_REF, "patch_m"))


# --- which rows ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of one row group, in their order: some of ``start`` … ``stop``, or all of them."""

    facts: FileFacts = field(repr=False)
    group: Group
    start: int
    stop: int
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return self.stop - self.start if self.rows is None else len(self.rows)

    @property
    def positions(self) -> np.ndarray:
        """Of its rows within the row group."""
        return np.arange(self.start, self.stop) if self.rows is None else self.rows

    def take(self, chosen: np.ndarray) -> Part:
        """The rows at some of its own positions."""
        if self.rows is None and chosen.size and np.array_equal(chosen, np.arange(chosen[0], chosen[-1] + 1)):
            return replace(self, start=self.start + int(chosen[0]), stop=self.start + int(chosen[-1]) + 1)
        rows = self.positions[chosen]
        first, last = (int(rows.min()), int(rows.max()) + 1) if rows.size else (self.start, self.start)
        return replace(self, start=first, stop=last, rows=rows)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        rows = None if self.rows is None else self.rows.tobytes()
        return self.facts.file.url, self.facts.file.token, self.group.index, self.start, self.stop, rows


@dataclass(frozen=True)
class _Wanted:
    """Boxes and spans that were asked for; None asks for everything."""

    boxes: list[Bounds] | None
    spans: list[Span] | None

    def touches(self, place: Bounds | None) -> bool:
        if self.boxes is None or place is None:
            return True
        return bool(_touch(np.array([place]), self.boxes)[0])

    def holds(self, place: Bounds | None) -> bool:
        """Whether all that lies there was asked for, so that rows need not be looked at."""
        if self.boxes is None:
            return True
        if place is None:
            return False
        w, s, e, n = place
        return any(bw <= w and e <= be and bs <= s and n <= bn for bw, bs, be, bn in self.boxes)

    def meets(self, span: Span | None) -> bool:
        """Whether dates from the first to the last may have been asked for."""
        if self.spans is None or span is None:
            return True
        return any(start <= span[1] and span[0] < stop for start, stop in self.spans)

    def covers(self, span: Span | None) -> bool:
        if self.spans is None:
            return True
        return span is not None and any(start <= span[0] and span[1] < stop for start, stop in self.spans)


def _touch(bounds: np.ndarray, boxes: Sequence[Bounds]) -> np.ndarray:
    """Which of some bounds (n, 4) touch one of the boxes; west > east crosses the antimeridian."""
    west, south, east, north = bounds.T
    hit = np.zeros(len(bounds), bool)
    for w, s, e, n in boxes:
        across = np.where(west <= east, (west <= e) & (east >= w), (west <= e) | (east >= w))
        hit |= across & (south <= n) & (north >= s)
    return hit


def _boxes_in(area: Area | None, crs: str) -> list[Bounds] | None:
    if area is None:
        return None
    return area.lonlat() if crs == geometry.LONLAT else area.bounds_in(crs)


def select(facts: Sequence[FileFacts], request: Request, layout: Layout) -> list[Part]:
    """The parts of files that an area and a time leave, reading places and dates only where it must."""
    crs = facts[0].crs
    wanted = _Wanted(_boxes_in(request.area, crs), time_spans(request.time))
    candidates = [
        (one, group)
        for one in facts
        for group in one.groups
        if group.rows
        and wanted.touches(_grown(group.place, layout.patch_m / 2, crs))
        and wanted.meets(group.span or _inclusive(_span_of(one, layout)))
    ]
    parts = _parallel(lambda pair: _rows_of(*pair, wanted, layout), candidates)
    return [part for part in parts if len(part)]


def _rows_of(facts: FileFacts, group: Group, wanted: _Wanted, layout: Layout) -> Part:
    whole = Part(facts.alone, group, 0, group.rows)
    by_place = not wanted.holds(group.place)
    by_date = facts.date is not None and (group.undated > 0 or not wanted.covers(group.span))
    if not by_place and not by_date:
        return whole
    hit = np.ones(group.rows, bool)
    columns = {*(_place_columns(facts, layout) if by_place else ()), *((facts.date,) if by_date else ())}
    table = open_file(facts.file.url, pre_buffer=False).read_row_group(group.index, columns=sorted(columns))
    if by_place and wanted.boxes is not None:
        hit &= _touch(_bounds(table, facts, layout), wanted.boxes)
    if by_date and wanted.spans is not None and facts.date is not None:
        dates = timestamps(table[facts.date].to_numpy(zero_copy_only=False))
        hit &= np.any([(dates >= start) & (dates < stop) for start, stop in wanted.spans], axis=0)
    return whole.take(np.flatnonzero(hit))


def _span_of(facts: FileFacts, layout: Layout) -> Span | None:
    return layout.span_of_path(facts.file.url) if layout.span_of_path is not None else None


def _inclusive(span: Span | None) -> Span | None:
    return None if span is None else (span[0], span[1] - np.timedelta64(1, "ns"))


def _grown(place: Bounds | None, metres: float, crs: str) -> Bounds | None:
    """Bounds of centres, widened by how far a footprint reaches from its centre."""
    if place is None or metres == 0:
        return place
    west, south, east, north = place
    dx, dy = _reach(metres, crs, max(abs(south), abs(north)))
    return west - dx, south - dy, east + dx, north + dy


def _reach(metres: float, crs: str, latitude: Any) -> tuple[Any, float]:
    """A distance along x and y, in units of the CRS."""
    if crs != geometry.LONLAT:
        return metres, metres
    degrees = metres / geometry.METRES_PER_DEGREE
    return degrees / np.maximum(np.cos(np.radians(latitude)), 0.02), degrees


# --- places and dates of rows -------------------------------------------------------------------------------


def _place_columns(facts: FileFacts, layout: Layout) -> tuple[str, ...]:
    if facts.bbox:
        return tuple(dict.fromkeys(leaf.partition(".")[0] for leaf in facts.bbox))
    return (layout.geometry,) if layout.geometry in facts.schema.names else layout.centre


def _bounds(table: Any, facts: FileFacts, layout: Layout) -> np.ndarray:
    """West, south, east, north of each row's footprint, shape (n, 4)."""
    if facts.bbox:
        flat = table.combine_chunks()
        sides = [_leaf(flat, leaf).to_numpy(zero_copy_only=False) for leaf in facts.bbox]
        return np.stack(sides, axis=1).astype(np.float64)
    if layout.geometry in table.column_names:
        import shapely

        boxes = np.asarray(shapely.bounds(_shapes(table, facts, layout)), np.float64)
    else:
        lon, lat = (table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in layout.centre)
        boxes = np.stack([lon, lat, lon, lat], axis=1)
    points = boxes[:, 0] == boxes[:, 2]
    if layout.patch_m and points.any():
        dx, dy = _reach(layout.patch_m / 2, facts.crs, boxes[points, 1])
        boxes[points] += np.stack(np.broadcast_arrays(-dx, -dy, dx, dy), axis=1)
    return boxes


def _leaf(table: Any, path: str) -> Any:
    name, *inner = path.split(".")
    column = table[name].combine_chunks()
    for each in inner:
        column = column.field(each)
    return column


def _shapes(table: Any, facts: FileFacts, layout: Layout) -> np.ndarray:
    """Footprints as shapely geometries."""
    import shapely

    column = table[layout.geometry]
    if column.null_count:
        raise SourceError(
            f"{facts.file.url}: {column.null_count} of {len(column)} rows have no geometry; "
            "drop them and write the file again"
        )
    return np.asarray(shapely.from_wkb(column.to_numpy(zero_copy_only=False)))


def _riding(facts: FileFacts, layout: Layout) -> dict[str, Any]:
    """Columns that ride along, and their dtype: scalars beside the vectors, places and dates."""
    import pyarrow.types as types

    beside = {facts.vectors, layout.geometry, facts.date, *_OWN_NAMES, *layout.skip}
    found: dict[str, Any] = {}
    for each in facts.schema:
        if each.name in beside or each.name.startswith("__"):
            continue
        if types.is_nested(each.type) or types.is_binary(each.type) or types.is_large_binary(each.type):
            continue
        numeric = types.is_integer(each.type) or types.is_floating(each.type)
        stamp = types.is_timestamp(each.type) or types.is_date(each.type)
        found[each.name] = each.type.to_pandas_dtype() if numeric else "datetime64[ns]" if stamp else object
    return found


def record_dtype(facts: Sequence[FileFacts], layout: Layout) -> np.dtype[Any]:
    """Fields of what goes beside the vectors; of the columns that ride along, those that every file has."""
    common = _riding(facts[0], layout)
    for one in facts[1:]:
        own = _riding(one, layout)
        common = {name: kind for name, kind in common.items() if own.get(name) == kind}
    fields: list[tuple[str, Any]] = [("x", "f8"), ("y", "f8")]
    if any(one.date is not None or _span_of(one, layout) is not None for one in facts):
        fields.append(("date", "datetime64[ns]"))
    if layout.measured:
        fields.append(("patch_m", "f4"))
    return np.dtype([*fields, *common.items()])


def read_records(parts: Sequence[Part], layout: Layout, dtype: np.dtype[Any]) -> np.ndarray:
    """Places, dates and riding columns of some parts, as one structured array."""
    pieces = [_records_of(part, layout, dtype) for part in parts]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces or [np.empty(0, dtype)])


def _records_of(part: Part, layout: Layout, dtype: np.dtype[Any]) -> np.ndarray:
    facts = part.facts
    names = [n for n in dtype.names or () if n in facts.schema.names and n not in _OWN_NAMES | {"date"}]
    place = layout.geometry if layout.geometry in facts.schema.names else None
    columns = [*names, *((place,) if place else layout.centre), *((facts.date,) if facts.date else ())]
    table = open_file(facts.file.url, pre_buffer=True).read_row_group(
        part.group.index, columns=list(dict.fromkeys(columns))
    )
    table = table.slice(part.start, part.stop - part.start) if part.rows is None else table.take(part.rows)
    out = np.empty(len(part), dtype)
    out["x"], out["y"], side = _centres(table, facts, layout)
    if layout.measured:
        out["patch_m"] = side
    if "date" in (dtype.names or ()):
        span = _span_of(facts, layout)
        named = span[0] if span is not None else np.datetime64("NaT", "ns")
        out["date"] = named
        if facts.date is not None:
            dates = timestamps(table[facts.date].to_numpy(zero_copy_only=False))
            out["date"] = np.where(np.isnat(dates), named, dates)
    for name in names:
        values = table[name].to_numpy(zero_copy_only=False)
        if values.dtype.kind == "f" and dtype[name].kind in "iu":
            raise SourceError(
                f"{facts.file.url}: {table[name].null_count} of {len(table)} rows have no {name!r}"
            )
        out[name] = values
    return out


def _centres(table: Any, facts: FileFacts, layout: Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres of footprints, and the side of a square as large in metres (NaN for points)."""
    if layout.geometry not in table.column_names:
        lon, lat = (table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in layout.centre)
        return lon, lat, np.full(len(lon), np.nan)
    import shapely

    shapes = _shapes(table, facts, layout)
    degrees = facts.crs == geometry.LONLAT
    if degrees:
        shapes = _unrolled(shapes)
    centres = shapely.centroid(shapes)
    x, y, area = shapely.get_x(centres), shapely.get_y(centres), shapely.area(shapes)
    side = np.sqrt(area * np.cos(np.radians(y))) * geometry.METRES_PER_DEGREE if degrees else np.sqrt(area)
    x = np.where(x > 180, x - 360, x) if degrees else x
    return x, y, np.where(area > 0, side, np.nan)


def _unrolled(shapes: np.ndarray) -> np.ndarray:
    """Footprints across the antimeridian in one piece: 179 … 181 instead of 179 … -179."""
    import shapely

    boxes = shapely.bounds(shapes)
    across = boxes[:, 2] - boxes[:, 0] > 180
    if across.any():
        shapes = shapes.copy()
        shapes[across] = shapely.transform(
            shapes[across],
            lambda xy: np.column_stack([np.where(xy[:, 0] < 0, xy[:, 0] + 360, xy[:, 0]), xy[:, 1]]),
        )
    return shapes


# --- vectors ------------------------------------------------------------------------------------------------


def read_vectors(parts: Sequence[Part], dims: int) -> np.ndarray:
    """Vectors of some parts, float32 (rows, dims); NaN where a vector is null."""
    pieces = [piece for part in parts for piece in _vectors_of(part, dims)]
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else np.empty((0, dims), np.float32)


def _vectors_of(part: Part, dims: int) -> Iterator[np.ndarray]:
    """A whole row group as it lies in Arrow's memory; of a part only the rows, streaming past the others."""
    facts = part.facts
    rows = part.group.rows
    if part.rows is None and part.stop - part.start == rows:
        parquet = open_file(facts.file.url, pre_buffer=False)
        column = parquet.read_row_group(part.group.index, columns=[facts.vectors], use_threads=False)[
            facts.vectors
        ]
        for chunk in column.chunks:
            yield as_matrix(chunk, dims, facts.file.url)
        return
    parquet = open_file(facts.file.url, pre_buffer=False, buffer_size=1 << 20)
    step = max(1024, min(rows, (8 << 20) // (4 * dims)))
    offset, positions = 0, part.positions
    for batch in parquet.iter_batches(
        step, row_groups=[part.group.index], columns=[facts.vectors], use_threads=False
    ):
        inside = positions[(positions >= offset) & (positions < offset + batch.num_rows)] - offset
        if inside.size:
            matrix = as_matrix(batch.column(0), dims, facts.file.url)
            run = inside[-1] - inside[0] + 1 == inside.size and (np.diff(inside) == 1).all()
            # a copy either way: a view would keep the whole batch alive
            yield matrix[inside[0] : inside[-1] + 1].copy() if run else matrix[inside]
        offset += batch.num_rows
        if offset >= part.stop:
            return


def as_matrix(column: Any, dims: int, name: str = "the column") -> np.ndarray:
    """Arrow's lists as one float32 matrix (rows, dims): a view where none is null and they are float32.

    Parameters
    ----------
    column : pyarrow.ListArray or FixedSizeListArray
        Lists of numbers; lists of lists where there is a leading dimension of one.
    dims : int
        Length of a vector.
    name : str
        Of the file, for messages.

    Raises
    ------
    SourceError
        If a vector has another length.
    """
    null = np.asarray(column.is_null()) if column.null_count else None
    values = column
    while hasattr(values.type, "value_type"):
        values = values.flatten()  # skips null lists, whatever lies under them
    flat = values.to_numpy(zero_copy_only=False)
    flat = flat if flat.dtype == np.float32 else flat.astype(np.float32)
    rows = len(column) - (0 if null is None else int(null.sum()))
    if flat.size != rows * dims:
        raise SourceError(
            f"{name}: {rows} vectors hold {flat.size} numbers, not {dims} each; drop or fix those rows"
        )
    matrix: np.ndarray = flat.reshape(rows, dims)
    if values.null_count:
        matrix = np.where(np.isnan(matrix).any(axis=1, keepdims=True), np.float32("nan"), matrix)
    if null is None:
        return matrix
    out = np.full((len(column), dims), np.nan, np.float32)
    out[~null] = matrix
    return out


# --- the array ----------------------------------------------------------------------------------------------


def open_patches(source: Any, request: Request, product: Product, layout: Layout) -> xr.DataArray:
    """Rows of a product's files as one lazy array ``(location, band)``.

    Parameters
    ----------
    source : path, folder, glob, URL, or a list of those
        Where the files lie; the name of a published store, or None for the first of them.
    request : Request
        Its area picks rows whose footprint it touches, its time those whose date it holds.
    product : Product
        Whose they are.
    layout : Layout
        How it lays them out.

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
    facts = _parallel(lambda file: read_footer(file, layout), files)
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


def prune(files: Sequence[File], request: Request, layout: Layout) -> list[File]:
    """Files whose paths do not rule them out."""
    boxes, spans = _boxes_in(request.area, geometry.LONLAT), time_spans(request.time)
    wanted = _Wanted(boxes, spans)
    kept = []
    for file in files:
        place = layout.place_of_path(file.url) if layout.place_of_path is not None else None
        span = layout.span_of_path(file.url) if layout.span_of_path is not None else None
        turned = [(p[0] + d, p[1], p[2] + d, p[3]) for p in [place] if p is not None for d in (-360, 0, 360)]
        if wanted.meets(_inclusive(span)) and (not turned or any(map(wanted.touches, turned))):
            kept.append(file)
    if not kept:
        asked = request.area if request.area is not None else f"time={request.time!r}"
        raise CoverageError(f"none of {len(files)} files is of {asked}, by their names: {files[0].url} …")
    return kept


def _one_space(
    facts: Sequence[FileFacts], request: Request, product: Product, layout: Layout
) -> tuple[list[FileFacts], str]:
    """The files of one version, and that version: two are never mixed."""
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
    for one in chosen[1:]:
        if one.crs != chosen[0].crs:
            raise EmbeddingError(
                f"two CRSs in one source: {chosen[0].file.url} and {one.file.url}; open them apart"
            )
    return chosen, version


def _version_of(facts: FileFacts, product: Product, layout: Layout) -> str:
    if layout.version_of is not None:
        return layout.version_of(facts)
    return product.versions[0] if product.versions else ""


def _nothing(facts: Sequence[FileFacts], request: Request, product: Product, layout: Layout) -> CoverageError:
    places = [g.place for one in facts for g in one.groups if g.place is not None]
    spans = [g.span or _inclusive(_span_of(one, layout)) for one in facts for g in one.groups]
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
    layout: Layout,
    dims: int,
    dtype: np.dtype[Any],
    crs: str,
    attrs: dict[str, Any],
) -> xr.DataArray:
    """With places and dates in memory: duplicates dropped, sorted by date, the vectors lazy."""
    each = _parallel(lambda part: _records_of(part, layout, dtype), parts)
    if not parts:
        coords = {name: ("location", np.empty(0, dtype[name])) for name in dtype.names or ()}
        return _assemble([[]], dims, product, crs, attrs, coords)
    parts, each = _without_duplicates(parts, each)
    parts, records, rank = _by_first_date(parts, each)
    _check_dates(records, request, product)
    coords = {name: ("location", records[name].copy()) for name in dtype.names or ()}
    array = _assemble(_blocks(parts, dims, request.chunks), dims, product, crs, attrs, coords)
    return _by_date(array, rank)


def _by_first_date(parts: list[Part], each: list[np.ndarray]) -> tuple[list[Part], np.ndarray, np.ndarray]:
    """Parts in the order of their first dates, what lies beside their rows, and the rows' places in the source."""
    starts = np.cumsum([0, *map(len, parts)])
    order = np.arange(len(parts))
    if "date" in (each[0].dtype.names or ()):
        order = np.argsort(np.array([records["date"].min() for records in each]), kind="stable")
    rank = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order])
    return [parts[i] for i in order], np.concatenate([each[i] for i in order]), rank


def _check_dates(records: np.ndarray, request: Request, product: Product) -> None:
    """Every time that was asked for is there; missing dates are told."""
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
    keep = [np.flatnonzero(~mask) for mask in np.split(again, ends[:-1])]
    left = [(p.take(k), r[k]) for p, r, k in zip(parts, each, keep, strict=True) if k.size]
    return [p for p, _ in left], [r for _, r in left]


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
    index, chunks = array.indexes["location"], array.chunksizes["location"]
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


def _values(blocks: Sequence[list[Part]]) -> np.ndarray:
    out = np.empty(len(blocks), object)
    for i, block in enumerate(blocks):
        out[i] = tuple(block)
    return out


def _assemble(
    blocks: Sequence[list[Part]],
    dims: int,
    product: Product,
    crs: str,
    attrs: Mapping[str, Any],
    coords: Mapping[str, Any],
) -> xr.DataArray:
    import dask.array as da
    import pandas as pd
    from dask.base import tokenize
    from dask.layers import ArrayValuesDep

    sizes = tuple(sum(map(len, block)) for block in blocks)
    data = da.blockwise(
        read_vectors,
        "lb",
        ArrayValuesDep((sizes,), _values(blocks)),
        "l",
        dims,
        None,
        new_axes={"b": dims},
        dtype=np.float32,
        meta=np.empty((0, 0), np.float32),
        align_arrays=False,
        name=f"vectors-{tokenize(blocks, dims)}",
    )
    return xr.DataArray(
        data,
        dims=("location", BAND),
        coords={
            "location": pd.RangeIndex(sum(sizes), name="location"),
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


def _lazy_coords(blocks: Sequence[list[Part]], layout: Layout, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Places, dates and ids, each a dask array cut as the vectors are; one read serves all of a block."""
    import dask.array as da
    from dask.base import tokenize
    from dask.layers import ArrayValuesDep

    records = da.blockwise(
        read_records,
        "l",
        ArrayValuesDep((tuple(sum(map(len, block)) for block in blocks),), _values(blocks)),
        "l",
        layout,
        None,
        dtype,
        None,
        dtype=dtype,
        meta=np.empty(0, dtype),
        align_arrays=False,
        name=f"records-{tokenize(blocks, layout, dtype)}",
    )
    return {name: ("location", records[name]) for name in dtype.names or ()}


def _parallel[In, Out](function: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
    """Results in order; reads wait for disks and networks, so they go side by side."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))


# --- what exists -------------------------------------------------------------------------------------------


def coverage_patches(source: Any, request: Request, product: Product, layout: Layout) -> pd.DataFrame:
    """List a store's files that an area and a time leave, by their names alone.

    Returns
    -------
    DataFrame
        ``url``, ``bytes``, and ``start`` where the names tell it; a row a file.
    """
    import pandas as pd

    files = prune(list_files(_located(source, product)), request, layout)
    spans = [layout.span_of_path(f.url) if layout.span_of_path is not None else None for f in files]
    table = pd.DataFrame({"url": [f.url for f in files], "bytes": [f.size for f in files]})
    starts = [s[0] if s is not None else np.datetime64("NaT", "ns") for s in spans]
    return table.assign(start=np.array(starts, "datetime64[ns]"))
