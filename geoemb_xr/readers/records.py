"""What lies beside the vectors of patches: places, dates and the columns that ride along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geoemb_xr.core import geometry, longitudes
from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.model import BAND
from geoemb_xr.readers.footers import FileFacts, timestamps
from geoemb_xr.readers.geometries import extension_of, read_geometries
from geoemb_xr.readers.layouts import PatchLayout, Span
from geoemb_xr.stores.listing import open_file, reading_parquet

if TYPE_CHECKING:
    from geoemb_xr.readers.row_groups import Part

#: Names that a column riding along may not take.
_OWN_NAMES = frozenset(("x", "y", "location", BAND, geometry.SPATIAL_REF, "patch_m"))


def read_columns(facts: FileFacts, group: int, columns: Sequence[str], **options: Any) -> Any:
    """Some columns of a row group, as a :class:`pyarrow.Table`."""
    with reading_parquet(facts.file.url):
        parquet = open_file(facts.file, **{"pre_buffer": False, **options})
        return parquet.read_row_group(group, columns=sorted(set(columns)))


def span_of(facts: FileFacts, layout: PatchLayout) -> Span | None:
    """The time that a file's path promises."""
    return layout.span_of_path(facts.file.url) if layout.span_of_path is not None else None


def row_bounds(facts: FileFacts, group: int, layout: PatchLayout) -> np.ndarray:
    """West, south, east, north of each row's footprint in a row group, shape (n, 4); NaN without a geometry."""
    boxes = None
    if facts.bbox:
        flat = read_columns(facts, group, [leaf.partition(".")[0] for leaf in facts.bbox]).combine_chunks()
        sides = [_leaf(flat, leaf).to_numpy(zero_copy_only=False) for leaf in facts.bbox]
        boxes = np.stack(sides, axis=1).astype(np.float64)
        with np.errstate(invalid="ignore"):
            jumps = facts.crs == geometry.LONLAT and bool((boxes[:, 2] - boxes[:, 0] > 180.0).any())
        # a footprint from 179 to -179 may have the box of all the rest
        if facts.geometry is None or not jumps:
            return boxes
    if facts.geometry is not None:
        import shapely

        table = read_columns(facts, group, [facts.geometry.name])
        boxes = np.asarray(shapely.bounds(_in_one_piece(_shapes(table, facts), facts)), np.float64)
    else:
        lon, lat = _centre_columns(read_columns(facts, group, layout.centre), layout)
        boxes = np.stack([lon, lat, lon, lat], axis=1)
    points = boxes[:, 0] == boxes[:, 2]
    if layout.patch_m and points.any():
        dx, dy = layout.reach(facts.crs, boxes[points, 1])
        boxes[points] += np.stack(np.broadcast_arrays(-dx, -dy, dx, dy), axis=1)
    return boxes


def _centre_columns(table: Any, layout: PatchLayout) -> tuple[np.ndarray, np.ndarray]:
    lon, lat = (table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in layout.centre)
    return np.where(np.abs(lon) > 180.0, longitudes.turned(lon), lon), lat


def _leaf(table: Any, path: str) -> Any:
    name, *inner = path.split(".")
    column = table[name].combine_chunks()
    for each in inner:
        column = column.field(each)
    return column


def _shapes(table: Any, facts: FileFacts) -> np.ndarray:
    """Footprints as shapely geometries; None where a row has none, or an empty one."""
    import shapely

    assert facts.geometry is not None
    name, where = facts.geometry.name, facts.file.url
    shapes = read_geometries(table[name], facts.geometry.encoding, f"{where}, column {name!r}")
    shapes[shapely.is_empty(shapes)] = None
    return shapes


def _in_one_piece(shapes: np.ndarray, facts: FileFacts) -> np.ndarray:
    return longitudes.in_one_piece(shapes) if facts.crs == geometry.LONLAT else shapes


def _riding(facts: FileFacts, layout: PatchLayout) -> dict[str, Any]:
    """Columns that ride along, and their dtype: scalars beside the vectors, places and dates."""
    import pyarrow.types as types

    place = facts.geometry.name if facts.geometry is not None else None
    beside = {facts.vectors, place, layout.geometry, facts.date, *_OWN_NAMES, *layout.skip}
    found: dict[str, Any] = {}
    for each in facts.schema:
        if each.name in beside or each.name.startswith("__") or extension_of(each):
            continue
        if types.is_nested(each.type) or types.is_binary(each.type) or types.is_large_binary(each.type):
            continue
        numeric = types.is_integer(each.type) or types.is_floating(each.type)
        stamp = types.is_timestamp(each.type) or types.is_date(each.type)
        found[each.name] = each.type.to_pandas_dtype() if numeric else "datetime64[ns]" if stamp else object
    return found


def record_dtype(facts: Sequence[FileFacts], layout: PatchLayout) -> np.dtype[Any]:
    """Fields of what goes beside the vectors; of the columns that ride along, those that every file has."""
    common = _riding(facts[0], layout)
    for one in facts[1:]:
        own = _riding(one, layout)
        both = {name: _common_kind(kind, own[name]) for name, kind in common.items() if name in own}
        common = {name: kind for name, kind in both.items() if kind is not None}
    gappy = {name for one in facts for name in one.gappy}
    for name in common.keys() & gappy:
        if np.dtype(common[name]).kind in "iu":
            common[name] = object  # None in gaps: whole numbers stay so
    fields: list[tuple[str, Any]] = [("x", "f8"), ("y", "f8")]
    if any(one.date is not None or span_of(one, layout) is not None for one in facts):
        fields.append(("date", "datetime64[ns]"))
    if layout.measured:
        fields.append(("patch_m", "f4"))
    return np.dtype([*fields, *common.items()])


def _common_kind(one: Any, other: Any) -> Any:
    """Return the dtype that holds two files' columns; None where one holds numbers and the other none."""
    if one == other:
        return one
    kinds = np.dtype(one), np.dtype(other)
    return np.result_type(*kinds) if all(kind.kind in "iuf" for kind in kinds) else None


@dataclass(frozen=True, eq=False)
class Records:
    """Places, dates and riding columns of one block, out of parts of row groups.

    Parameters
    ----------
    parts : sequence of Part
        The parts, in their order.
    layout : PatchLayout
        Layout of their files.
    dtype : dtype
        Its fields are the columns.
    """

    parts: Sequence[Part]
    layout: PatchLayout
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __dask_tokenize__(self) -> Any:
        from geoemb_xr.execution.internals import normalize_token

        return normalize_token((tuple(self.parts), self.layout, self.dtype))

    def take(self, rows: np.ndarray) -> Records:
        """Those at some rows of the block, in ascending order."""
        edges = np.cumsum([0, *map(len, self.parts)])
        own = np.split(rows, np.searchsorted(rows, edges[1:-1]))
        taken = [p.take(r - e) for p, r, e in zip(self.parts, own, edges, strict=False) if r.size]
        return replace(self, parts=tuple(taken))

    def read(self) -> np.ndarray:
        """The records as one structured array."""
        pieces = [read_part(part, self.layout, self.dtype) for part in self.parts]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces or [np.empty(0, self.dtype)])


def read_part(part: Part, layout: PatchLayout, dtype: np.dtype[Any]) -> np.ndarray:
    """Places, dates and riding columns of one part, as a structured array."""
    facts = part.facts
    names = [n for n in dtype.names or () if n in facts.schema.names and n not in _OWN_NAMES | {"date"}]
    place = (facts.geometry.name,) if facts.geometry is not None else layout.centre
    columns = [*names, *place, *((facts.date,) if facts.date else ())]
    table = read_columns(facts, part.group.index, columns, pre_buffer=True)
    table = table.slice(part.start, part.stop - part.start) if part.rows is None else table.take(part.rows)
    out = np.empty(len(part), dtype)
    out["x"], out["y"], side = _centres(table, facts, layout)
    if layout.measured:
        out["patch_m"] = side
    if "date" in (dtype.names or ()):
        span = span_of(facts, layout)
        named = span[0] if span is not None else np.datetime64("NaT", "ns")
        out["date"] = named
        if facts.date is not None:
            dates = timestamps(table[facts.date].to_numpy(zero_copy_only=False))
            out["date"] = np.where(np.isnat(dates), named, dates)
    with reading_parquet(facts.file.url):  # a text of damaged bytes is found out where it becomes Python's
        for name in names:
            out[name] = _values(table[name], dtype[name], f"{facts.file.url}, column {name!r}")
    return out


def _values(column: Any, kind: np.dtype[Any], where: str) -> np.ndarray:
    """Values of a column that rides along; of whole numbers with gaps None stands for those."""
    import pyarrow

    if kind.kind in "iu" and column.null_count:
        raise SourceError(f"{where}: {column.null_count} gaps, of which its statistics say there are none")
    if kind.kind != "O" or not pyarrow.types.is_integer(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    values = column.fill_null(0).to_numpy(zero_copy_only=False).astype(object)
    values[~np.asarray(column.is_valid())] = None
    return np.asarray(values)


def _centres(table: Any, facts: FileFacts, layout: PatchLayout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres of footprints, and the side of a square as large in metres (NaN for points)."""
    if facts.geometry is None:
        lon, lat = _centre_columns(table, layout)
        _refuse_beyond_poles(lat, facts.file.url)
        return lon, lat, np.full(len(lon), np.nan)
    import shapely

    shapes = _in_one_piece(_shapes(table, facts), facts)
    degrees = facts.crs == geometry.LONLAT
    centres = shapely.centroid(shapes)
    x, y, area = shapely.get_x(centres), shapely.get_y(centres), shapely.area(shapes)
    if degrees:
        _refuse_beyond_poles(y, facts.file.url)
    side = np.sqrt(area * np.cos(np.radians(y))) * geometry.METRES_PER_DEGREE if degrees else np.sqrt(area)
    x = np.where(np.abs(x) > 180.0, longitudes.turned(x), x) if degrees else x
    return x, y, np.where(area > 0, side, np.nan)


def _refuse_beyond_poles(latitudes: np.ndarray, name: str) -> None:
    if (far := longitudes.beyond_poles(latitudes)) is not None:
        raise SourceError(
            f"{name} has a latitude of {far:g} degrees, where the Earth has 90: are longitude and latitude "
            "swapped?"
        )
