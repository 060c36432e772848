"""Footers of Parquet files of patches, with the statistics of their row groups."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from geoemb_xr.core import geometry
from geoemb_xr.core.areas import Bounds
from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.notes import say
from geoemb_xr.readers.geometries import GeometryColumn, about_geometry, find_geometry
from geoemb_xr.readers.layouts import PatchLayout, Span
from geoemb_xr.stores.listing import File, open_file, reading_parquet
from geoemb_xr.stores.pruning import boxes_of_rows

#: Footer key in which this package says what it wrote; synthetic examples carry ``{"version": "synthetic"}``.
OWN_KEY = "geoemb_xr"


@dataclass(frozen=True)
class RowGroup:
    """A row group: how many rows, and what its statistics say of them."""

    index: int
    rows: int
    nulls: int
    undated: int
    unplaced: int  # rows without a geometry, as far as the statistics tell
    places: tuple[Bounds, ...]  # boxes that hold all rows; none where nothing is known
    span: Span | None  # first and last date, both inclusive
    stored: int = 0  # bytes of its vectors, compressed


@dataclass(frozen=True, eq=False)
class FileFacts:
    """The facts in a file's footer."""

    file: File
    schema: Any
    vectors: str
    dims: int
    geometry: GeometryColumn | None
    crs: str
    date: str | None
    bbox: tuple[str, ...]
    groups: tuple[RowGroup, ...]
    emb: Mapping[str, Any]
    own: Mapping[str, Any]
    gappy: frozenset[str]  # columns of whole numbers that may have gaps

    @property
    def rows(self) -> int:
        """All rows of the file."""
        return sum(group.rows for group in self.groups)

    @cached_property
    def alone(self) -> FileFacts:
        """Without the row groups and footer keys: what a task needs, and no more travels to workers."""
        return replace(self, groups=(), emb={}, own={})


#: Whether what lies in some boxes of a CRS may have been asked for.
Touches = Callable[[Sequence[Bounds], str], bool]


def read_footer(file: File, layout: PatchLayout, touches: Touches | None = None) -> FileFacts:
    """Read one file's footer and check it against a layout.

    Parameters
    ----------
    file : File
        The file.
    layout : PatchLayout
        Layout of the product's files.
    touches : callable, optional
        Whether bounds may have been asked for. A file whose bounds were not is one group of all rows: none of its
        row groups will be read.

    Raises
    ------
    SourceError
        Naming the file, its rows, and what is missing: a column of vectors, of places, a CRS, vectors of one
        length.
    """
    import pyarrow

    with reading_parquet(file.url):
        parquet = open_file(file)
    meta, schema = parquet.metadata, parquet.schema_arrow
    where = f"{file.url} ({meta.num_rows} rows)"
    vectors = _column_of_vectors(schema, layout, where)
    numbers = _is_vectors(schema.field(vectors).type)
    if meta.num_rows and not numbers:
        raise SourceError(
            f"{where}: its column {vectors!r} holds {schema.field(vectors).type}, not lists of numbers; write "
            "vectors as lists of float32, or read it yourself and use gx.wrap."
        )
    keys = {k.decode(errors="replace"): v for k, v in (schema.metadata or {}).items()}
    geo, emb, own = (_json(keys.get(key), key, where) for key in ("geo", "emb", OWN_KEY))
    if isinstance(emb.get(OWN_KEY), dict):
        # written by to_geoparquet: the array's attributes say what it holds, its emb among them
        attrs = emb.pop(OWN_KEY).get("attrs")
        own = dict(attrs) if isinstance(attrs, dict) else {}
        emb = _json(str(own.get("emb", "{}")).encode(), "emb", where)
    date = next((name for name in layout.dates if name in schema.names), None)
    place = find_geometry(schema, geo, layout.geometry)
    crs = _crs_of(place, layout, schema, where)
    bounds = file_bounds(geo, place, crs)
    is_far = bool(bounds) and touches is not None and not touches(bounds, crs)
    dims = declared_length(schema.field(vectors).type) if numbers else None
    columns = {} if is_far and dims else {meta.schema.column(i).path: i for i in range(meta.num_columns)}
    if dims is None:
        dims = _length_in(meta, columns, vectors)
    bbox = _bbox_columns(geo, place, columns)
    whole = [] if is_far else [each.name for each in schema if pyarrow.types.is_integer(each.type)]
    gappy: set[str] = set()
    groups = [RowGroup(0, meta.num_rows, 0, 0, 0, bounds, None)] if is_far else []
    for i in range(0 if is_far else meta.num_row_groups):
        stats = _Statistics(meta.row_group(i), columns)
        rows, values, nulls = stats.counts(vectors)
        stored = stats.stored(vectors)
        # a row without a vector is one null; other nulls are numbers inside vectors, told when they are read
        missing, rest = (
            divmod(rows * (dims or 0) - values, (dims or 0) - 1) if dims and dims > 1 else (nulls, 0)
        )
        if rest or not 0 <= missing <= nulls:
            raise _ragged(parquet, i, vectors, file.url)
        places = stats.places(bbox, layout, crs) or bounds
        unplaced = stats.nulls(place.name if place is not None else None)
        gappy |= {name for name in whole if stats.nulls(name, unknown=1)}
        span = stats.span(date)
        groups.append(RowGroup(i, rows, missing, stats.nulls(date), unplaced, places, span, stored))
    bare = schema.remove_metadata()
    place = replace(place, crs=None) if place is not None else None
    found = (file, bare, vectors, dims or 0, place, crs, date, bbox, tuple(groups), emb, own)
    return FileFacts(*found, frozenset(gappy))


def _column_of_vectors(schema: Any, layout: PatchLayout, where: str) -> str:
    """The name of the column of vectors; raise if there is none, or two columns have one name."""
    vectors = next((name for name in layout.vectors if name in schema.names), None)
    if vectors is None:
        raise SourceError(
            f"{where} has no column {' or '.join(map(repr, layout.vectors))}; it has {schema.names}. "
            "Rename its column of vectors, or read it yourself and use gx.wrap."
        )
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise SourceError(
            f"{where} has two columns of one name, {twice}; rename or drop one of each, and write it again"
        )
    return vectors


def _json(raw: bytes | None, key: str, where: str) -> dict[str, Any]:
    if raw is None:
        return {}
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise SourceError(f"{where}: the footer key {key!r} is not JSON ({error})") from error
    return found if isinstance(found, dict) else {}


def _length_in(meta: Any, columns: Mapping[str, int], vectors: str) -> int | None:
    """Length of the vectors in the first row group that has some."""
    for i in range(meta.num_row_groups):
        rows, values, nulls = _Statistics(meta.row_group(i), columns).counts(vectors)
        # so many nulls are rows without a vector, and the others are numbers within vectors
        for lost in (nulls, 0, *range(1, min(nulls, rows))) if values > nulls else ():
            if lost < rows and (values - lost) % (rows - lost) == 0:
                return int((values - lost) // (rows - lost))
        if rows > nulls:
            return int((values - nulls) // (rows - nulls))
    return None


def declared_length(kind: Any) -> int | None:
    """Length of vectors that the schema fixes; a leading dimension of one does not count."""
    import pyarrow

    length = 1
    while True:
        if isinstance(kind, pyarrow.BaseExtensionType):
            kind = kind.storage_type
        elif not hasattr(kind, "value_type"):
            return length
        elif pyarrow.types.is_fixed_size_list(kind):
            length, kind = length * kind.list_size, kind.value_type
        else:
            return None


def _is_vectors(kind: Any) -> bool:
    """Whether a column holds lists of numbers, however nested."""
    import pyarrow

    depth = 0
    while hasattr(kind, "value_type") or isinstance(kind, pyarrow.BaseExtensionType):
        named = isinstance(kind, pyarrow.BaseExtensionType)
        depth, kind = depth + (not named), kind.storage_type if named else kind.value_type
    return depth > 0 and bool(pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind))


def _crs_of(place: GeometryColumn | None, layout: PatchLayout, schema: Any, where: str) -> str:
    """The CRS that a file states; GeoParquet without the key means degrees, a null means unknown."""
    if place is None:
        if layout.centre and set(layout.centre) <= set(schema.names):
            return geometry.LONLAT
        columns = " nor ".join(map(repr, filter(None, (layout.geometry, ", ".join(layout.centre)))))
        raise SourceError(
            f"{where} has no places: no column of geometries ({columns}), and no footer names another; it has "
            f"{schema.names}. Write them with geopandas' to_parquet"
        )
    if place.crs is None:
        if layout.lonlat:
            say(f"{os.path.basename(where)} does not say its CRS: taken to be longitude and latitude")
            return geometry.LONLAT
        raise SourceError(
            f"{where} does not say its CRS (no 'geo' footer, or a null in it); "
            "write it with GeoParquet's metadata, such as geopandas' set_crs(…).to_parquet(…)"
        )
    try:
        return _text_of(json.dumps(place.crs) if isinstance(place.crs, dict) else place.crs)
    except ValueError as error:
        raise SourceError(f"{where}: the CRS of its column {place.name!r} is none: {error}") from error


@lru_cache(maxsize=64)
def _text_of(stated: Any) -> str:
    """A CRS as footers state it, in our words: files of a source mostly state one, and to compare takes 0.3 ms."""
    crs = geometry.as_crs(stated)
    return geometry.LONLAT if geometry.same_crs(crs, geometry.LONLAT) else str(crs.to_wkt())


def _bbox_columns(
    geo: Mapping[str, Any], place: GeometryColumn | None, columns: Mapping[str, int]
) -> tuple[str, ...]:
    """Leaf columns with each row's west, south, east, north: the covering of GeoParquet 1.1, or ``bbox``."""
    covering = about_geometry(geo, place.name).get("covering") if place is not None else None
    stated = covering.get("bbox") if isinstance(covering, Mapping) else None
    sides = ("xmin", "ymin", "xmax", "ymax")
    paths = stated if isinstance(stated, Mapping) else {}
    leaves = tuple(".".join(map(str, paths.get(side, ("bbox", side)))) for side in sides)
    return leaves if all(leaf in columns for leaf in leaves) else ()


def file_bounds(geo: Mapping[str, Any], place: GeometryColumn | None, crs: str) -> tuple[Bounds, ...]:
    """The box that a file states for all its rows; none where it states none that can be used."""
    box = about_geometry(geo, place.name).get("bbox") if place is not None else None
    if not isinstance(box, list) or len(box) not in (4, 6):
        return ()
    if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in box):
        return ()
    half = len(box) // 2
    return (_around_jumps((float(box[0]), float(box[1]), float(box[half]), float(box[half + 1])), crs),)


def _around_jumps(box: Bounds, crs: str) -> Bounds:
    """The whole circle for a box wider than half: around a footprint from 179 to -179 it lies on the wrong side."""
    wide = crs == geometry.LONLAT and box[2] - box[0] > 180.0
    return (-180.0, box[1], 180.0, box[3]) if wide else box


class _Statistics:
    """Statistics of a row group, by column."""

    def __init__(self, group: Any, columns: Mapping[str, int]) -> None:
        self._group, self._columns = group, columns

    def counts(self, vectors: str) -> tuple[int, int, int]:
        """Rows, stored numbers, and nulls among them."""
        leaf = self._leaf(vectors)
        return self._group.num_rows, self._group.column(self._columns[leaf]).num_values, self.nulls(leaf)

    def stored(self, vectors: str) -> int:
        """Bytes of a column, compressed."""
        return int(self._group.column(self._columns[self._leaf(vectors)]).total_compressed_size)

    def _leaf(self, name: str) -> str:
        return next(path for path in self._columns if path.partition(".")[0] == name)

    def nulls(self, leaf: str | None, unknown: int = 0) -> int:
        """Number of nulls; ``unknown`` where the statistics lack it."""
        index = self._columns.get(leaf) if leaf else None
        stats = self._group.column(index).statistics if index is not None else None
        return int(stats.null_count) if stats is not None and stats.has_null_count else unknown

    def _range(self, leaf: str) -> tuple[Any, Any] | None:
        index = self._columns.get(leaf) if leaf else None  # a column may have an empty name
        stats = self._group.column(index).statistics if index is not None else None
        try:
            return (stats.min, stats.max) if stats is not None and stats.has_min_max else None
        except (OverflowError, ValueError):  # a date that Python has none for
            return None

    def places(self, bbox: Sequence[str], layout: PatchLayout, crs: str) -> tuple[Bounds, ...]:
        """Boxes around all footprints; None where the statistics lack them."""
        lon, lat = layout.centre if layout.centre and not bbox else ("", "")
        ranges = [self._range(leaf) for leaf in (bbox or (lon, lat, lon, lat))]
        if any(each is None or not all(map(math.isfinite, each)) for each in ranges):
            return ()
        sides = [(float(least), float(most)) for least, most in filter(None, ranges)]
        boxes = boxes_of_rows(*sides, degrees=crs == geometry.LONLAT)
        return tuple(_around_jumps(box, crs) for box in boxes) if bbox else boxes

    def span(self, date: str | None) -> Span | None:
        """First and last date."""
        found = self._range(date) if date is not None else None
        if found is None:
            return None
        first, last = timestamps(np.array(found, dtype=object))
        return (first, last) if not (np.isnat(first) or np.isnat(last)) else None


def _ragged(parquet: Any, group: int, vectors: str, url: str) -> SourceError:
    """The error for a row group whose vectors have several lengths, which counts them."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(parquet.read_row_group(group, columns=[vectors])[vectors])
    counts = {int(c["values"]): int(c["counts"]) for c in pc.value_counts(lengths.drop_null()).to_pylist()}
    usual = max(counts, key=lambda length: counts[length])
    wrong = sum(n for length, n in counts.items() if length != usual)
    return SourceError(
        f"{url}: {wrong} of {parquet.metadata.row_group(group).num_rows} rows of row group {group} have vectors of "
        f"another length than {usual} ({dict(sorted(counts.items()))}); drop or fix those rows and write it again"
    )


def timestamps(values: np.ndarray) -> np.ndarray:
    """Dates of any kind (dates, timestamps, strings) as datetime64[ns], in UTC.

    NaT where there is none, or one beyond the years 1678 to 2261.
    """
    import pandas as pd

    if np.issubdtype(values.dtype, np.datetime64):
        far = (values < np.datetime64("1678", "Y")) | (values >= np.datetime64("2262", "Y"))
        held = np.where(far, np.datetime64("NaT", "D"), values)  # nanoseconds would wrap around
        return held.astype("datetime64[ns]")
    parsed = pd.to_datetime(pd.Series(values, dtype=object), format="ISO8601", utc=True, errors="coerce")
    return timestamps(parsed.dt.tz_localize(None).to_numpy())
