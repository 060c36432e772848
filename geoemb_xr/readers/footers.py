"""What Parquet files of patches say before a row is read: paths, footers, statistics of row groups."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from geoemb_xr.core import geometry
from geoemb_xr.core.areas import Bounds
from geoemb_xr.core.errors import SourceError, require
from geoemb_xr.core.notes import say
from geoemb_xr.stores.listing import File, open_file

#: Footer key in which this package says what it wrote; synthetic examples carry ``{"version": "synthetic"}``.
OWN_KEY = "geoemb_xr"


Span = tuple[np.datetime64, np.datetime64]


# --- what a product's files look like -----------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """How a product lays out its files.

    Parameters
    ----------
    vectors : tuple of str
        Names that the column of vectors has had.
    geometry : str
        Column of WKB footprints or centres.
    centre : tuple of str
        Columns with longitude and latitude of the centre, where there is no WKB (or to prune by).
    dates : tuple of str
        Names that the column of dates has had.
    skip : tuple of str
        Columns that do not ride along.
    patch_m : float
        Side of a patch in metres; the largest where they differ.
    measured : bool
        Whether patches differ in size, so that each one's side, measured, rides along as ``patch_m``.
    lonlat : bool
        Whether a file that does not say its CRS is taken to be in degrees, and that said.
    place_of_path : callable, optional
        ``path -> (west, south, east, north)`` that the path promises, or None.
    span_of_path : callable, optional
        ``path -> (start, stop)`` that the path promises, or None.
    version_of : callable, optional
        ``FileFacts -> version``; the product's first version by default.
    """

    vectors: tuple[str, ...] = ("embedding", "embeddings")
    geometry: str = "geometry"
    centre: tuple[str, ...] = ()
    dates: tuple[str, ...] = ("date", "datetime", "timestamp")
    skip: tuple[str, ...] = ()
    patch_m: float = 0.0
    measured: bool = False
    lonlat: bool = False
    place_of_path: Callable[[str], Bounds | None] | None = None
    span_of_path: Callable[[str], Span | None] | None = None
    version_of: Callable[[FileFacts], str] | None = None


def hive(path: str) -> dict[str, str]:
    """Keys and values of the folders of a path.

    Examples
    --------
    >>> hive("scene/gzd=32T/year=2024/month=06/part-0.parquet")
    {'gzd': '32T', 'year': '2024', 'month': '06'}
    """
    folders = path.replace("\\", "/").split("/")[:-1]
    return dict(part.split("=", 1) for part in folders if part.count("=") == 1)


def zone_bounds(text: str) -> Bounds | None:
    """Bounds of what an MGRS name starts with (``32T``), wide enough for tiles that reach over its edges.

    Examples
    --------
    >>> zone_bounds("32TPT")[1::2]
    (39.0, 49.0)
    """
    found = re.match(r"(\d{1,2})([C-HJ-NP-X])", text)
    if found is None or not 1 <= int(found[1]) <= 60:
        return None
    south = -80.0 + 8 * "CDEFGHJKLMNPQRSTUVWX".index(found[2])
    north = 84.0 if found[2] == "X" else south + 8
    west = -180.0 + 6 * (int(found[1]) - 1)
    # a tile is 110 km wide and may stick out of its zone; V and X have zones of other widths
    pad = 1.2 / math.cos(math.radians(max(abs(south), abs(north)))) + (6.0 if found[2] in "VX" else 0.0)
    return west - pad, south - 1.0, west + 6 + pad, north + 1.0


def geohash_bounds(text: str) -> Bounds | None:
    """Bounds of a geohash; None if it is none.

    Examples
    --------
    >>> geohash_bounds("u0")
    (0.0, 45.0, 11.25, 50.625)
    """
    if not text:
        return None
    box = [-180.0, 180.0, -90.0, 90.0]
    bit = 0
    for letter in text.lower():
        value = "0123456789bcdefghjkmnpqrstuvwxyz".find(letter)
        if value < 0:
            return None
        for shift in (4, 3, 2, 1, 0):
            axis = 0 if bit % 2 == 0 else 2
            middle = (box[axis] + box[axis + 1]) / 2
            box[axis + (0 if value >> shift & 1 else 1)] = middle
            bit += 1
    return box[0], box[2], box[1], box[3]


def month_span(keys: Mapping[str, str]) -> Span | None:
    """The month or the year that hive partitions name."""
    if not keys.get("year", "").isdigit():
        return None
    month = keys.get("month", "")
    text = f"{keys['year']}-{int(month):02d}" if month.isdigit() else keys["year"]
    start, length = np.datetime64(text), np.timedelta64(1, "M" if month.isdigit() else "Y")
    return start.astype("datetime64[ns]"), (start + length).astype("datetime64[ns]")


def day_span(text: str) -> Span:
    """The day that eight digits name."""
    day = np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:8]}", "D")
    return day.astype("datetime64[ns]"), (day + np.timedelta64(1, "D")).astype("datetime64[ns]")


# --- footers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """A row group: how many rows, and what its statistics say of them."""

    index: int
    rows: int
    nulls: int
    undated: int
    place: Bounds | None
    span: Span | None  # first and last date, both inclusive


@dataclass(frozen=True, eq=False)
class FileFacts:
    """What a file's footer says."""

    file: File
    schema: Any
    vectors: str
    dims: int
    crs: str
    date: str | None
    bbox: tuple[str, ...]
    groups: tuple[Group, ...]
    emb: Mapping[str, Any]
    own: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """All rows of the file."""
        return sum(group.rows for group in self.groups)

    @cached_property
    def alone(self) -> FileFacts:
        """Without the row groups and footer keys: what a task needs, and no more travels to workers."""
        return replace(self, groups=(), emb={}, own={})


def read_footer(file: File, layout: Layout) -> FileFacts:
    """Read one file's footer and check it against a layout.

    Raises
    ------
    SourceError
        Naming the file, its rows, and what is missing: a column of vectors, of places, a CRS, vectors of one
        length.
    """
    pyarrow = require("pyarrow", "remote")
    try:
        parquet = open_file(file.url)
    except pyarrow.ArrowInvalid as error:
        raise SourceError(f"{file.url} is not a Parquet file ({error})") from error
    meta, schema = parquet.metadata, parquet.schema_arrow
    where = f"{file.url} ({meta.num_rows} rows)"
    vectors = next((name for name in layout.vectors if name in schema.names), None)
    if vectors is None:
        raise SourceError(
            f"{where} has no column {' or '.join(map(repr, layout.vectors))}; it has {schema.names}. "
            "Rename its column of vectors, or read it yourself and use gx.wrap."
        )
    keys = {k.decode(): v for k, v in (schema.metadata or {}).items()}
    geo, emb, own = (_json(keys.get(key), key, where) for key in ("geo", "emb", OWN_KEY))
    if (
        OWN_KEY in emb
    ):  # written by to_geoparquet: the array's attributes say what it holds, its emb among them
        own = dict(emb.pop(OWN_KEY).get("attrs", {}))
        emb = _json(str(own.get("emb", "{}")).encode(), "emb", where)
    columns = {meta.schema.column(i).path: i for i in range(meta.num_columns)}
    date = next((name for name in layout.dates if name in schema.names), None)
    bbox = _bbox_columns(geo, layout, columns)
    groups = []
    dims = _declared_length(schema.field(vectors).type)
    for i in range(meta.num_row_groups):
        stats = _Statistics(meta.row_group(i), columns)
        rows, values, nulls = stats.counts(vectors)
        if dims is None and rows > nulls:
            dims = (values - nulls) // (rows - nulls)
        if rows and values not in (rows * (dims or 0), (rows - nulls) * (dims or 0) + nulls):
            raise _ragged(parquet, i, vectors, dims or 0, file.url)
        elements = values == rows * (
            dims or 0
        )  # then nulls are numbers inside vectors, told when they are read
        place = stats.place(bbox, layout) or _file_bounds(geo, layout)
        groups.append(Group(i, rows, 0 if elements else nulls, stats.nulls(date), place, stats.span(date)))
    crs = _crs_of(geo, layout, schema, where)
    bare = schema.remove_metadata()
    return FileFacts(file, bare, vectors, dims or 0, crs, date, bbox, tuple(groups), emb, own)


def _json(raw: bytes | None, key: str, where: str) -> dict[str, Any]:
    if raw is None:
        return {}
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise SourceError(f"{where}: the footer key {key!r} is not JSON ({error})") from error
    return found if isinstance(found, dict) else {}


def _declared_length(kind: Any) -> int | None:
    """Length of vectors that the schema fixes; a leading dimension of one does not count."""
    import pyarrow

    length = 1
    while hasattr(kind, "value_type"):
        if not pyarrow.types.is_fixed_size_list(kind):
            return None
        length, kind = length * kind.list_size, kind.value_type
    return length


def _crs_of(geo: Mapping[str, Any], layout: Layout, schema: Any, where: str) -> str:
    """The CRS that a file states; GeoParquet without the key means degrees, a null means unknown."""
    if layout.geometry not in schema.names:
        if layout.centre and set(layout.centre) <= set(schema.names):
            return geometry.LONLAT
        raise SourceError(
            f"{where} has no places: neither {layout.geometry!r} nor {list(layout.centre)}; it has {schema.names}"
        )
    column = geo.get("columns", {}).get(layout.geometry)
    crs = (column or {}).get("crs", geometry.LONLAT if column is not None else None)
    if crs is None:
        if layout.lonlat:
            say(f"{os.path.basename(where)} does not say its CRS: taken to be longitude and latitude")
            return geometry.LONLAT
        raise SourceError(
            f"{where} does not say its CRS (no 'geo' footer, or a null in it); "
            "write it with GeoParquet's metadata, such as geopandas' set_crs(…).to_parquet(…)"
        )
    parsed = geometry.as_crs(json.dumps(crs) if isinstance(crs, dict) else crs)
    return geometry.LONLAT if geometry.same_crs(parsed, geometry.LONLAT) else str(parsed.to_wkt())


def _bbox_columns(geo: Mapping[str, Any], layout: Layout, columns: Mapping[str, int]) -> tuple[str, ...]:
    """Leaf columns with each row's west, south, east, north: the covering of GeoParquet 1.1, or ``bbox``."""
    covering = geo.get("columns", {}).get(layout.geometry, {}).get("covering", {}).get("bbox", {})
    sides = ("xmin", "ymin", "xmax", "ymax")
    leaves = tuple(".".join(covering[s]) if s in covering else f"bbox.{s}" for s in sides)
    return leaves if all(leaf in columns for leaf in leaves) else ()


def _file_bounds(geo: Mapping[str, Any], layout: Layout) -> Bounds | None:
    box = geo.get("columns", {}).get(layout.geometry, {}).get("bbox")
    if not box or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in box):
        return None
    half = len(box) // 2
    return float(box[0]), float(box[1]), float(box[half]), float(box[half + 1])


class _Statistics:
    """Statistics of a row group, by column."""

    def __init__(self, group: Any, columns: Mapping[str, int]) -> None:
        self._group, self._columns = group, columns

    def counts(self, vectors: str) -> tuple[int, int, int]:
        """Rows, stored numbers, and nulls among them."""
        leaf = next(path for path in self._columns if path.partition(".")[0] == vectors)
        return self._group.num_rows, self._group.column(self._columns[leaf]).num_values, self.nulls(leaf)

    def nulls(self, leaf: str | None) -> int:
        """How many are null, as far as the statistics tell."""
        index = self._columns.get(leaf or "")
        stats = self._group.column(index).statistics if index is not None else None
        return (stats.null_count or 0) if stats is not None else 0

    def _range(self, leaf: str) -> tuple[Any, Any] | None:
        index = self._columns.get(leaf)
        stats = self._group.column(index).statistics if index is not None else None
        return (stats.min, stats.max) if stats is not None and stats.has_min_max else None

    def place(self, bbox: Sequence[str], layout: Layout) -> Bounds | None:
        """Around all footprints."""
        if bbox:
            sides = [self._range(leaf) for leaf in bbox]
            west, south, east, north = sides
            if west and south and east and north and west[1] <= east[1]:
                return float(west[0]), float(south[0]), float(east[1]), float(north[1])
            return None
        lon, lat = (self._range(name) for name in layout.centre) if layout.centre else (None, None)
        return (float(lon[0]), float(lat[0]), float(lon[1]), float(lat[1])) if lon and lat else None

    def span(self, date: str | None) -> Span | None:
        """First and last date."""
        found = self._range(date) if date is not None else None
        if found is None:
            return None
        first, last = timestamps(np.array(found, dtype=object))
        return (first, last) if not (np.isnat(first) or np.isnat(last)) else None


def _ragged(parquet: Any, group: int, vectors: str, dims: int, url: str) -> SourceError:
    """Count the rows of a row group whose vectors have another length."""
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
    """Dates of any kind (dates, timestamps, strings) as datetime64[ns], in UTC; NaT where there is none."""
    import pandas as pd

    if np.issubdtype(values.dtype, np.datetime64):
        return values.astype("datetime64[ns]")
    parsed = pd.to_datetime(pd.Series(values, dtype=object), format="ISO8601", utc=True, errors="coerce")
    return parsed.dt.tz_localize(None).to_numpy("datetime64[ns]")
