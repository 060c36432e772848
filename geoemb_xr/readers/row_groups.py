"""Rows of Parquet files that an area and a time leave: row groups by statistics, rows by their footprints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from geoemb_xr.core import geometry
from geoemb_xr.core.areas import Area, Bounds
from geoemb_xr.core.errors import CoverageError
from geoemb_xr.core.times import time_spans
from geoemb_xr.execution.threads import side_by_side
from geoemb_xr.readers.footers import FileFacts, RowGroup, Touches, timestamps
from geoemb_xr.readers.layouts import PatchLayout, Span
from geoemb_xr.readers.records import read_columns, row_bounds, span_of
from geoemb_xr.readers.tiles import Request
from geoemb_xr.stores.listing import File
from geoemb_xr.stores.pruning import is_inside, touching


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of one row group, in their order: some of ``start`` … ``stop``, or all of them."""

    facts: FileFacts = field(repr=False)
    group: RowGroup
    start: int
    stop: int
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return self.stop - self.start if self.rows is None else len(self.rows)

    @property
    def positions(self) -> np.ndarray:
        """The positions of its rows within the row group."""
        return np.arange(self.start, self.stop) if self.rows is None else self.rows

    def take(self, chosen: np.ndarray) -> Part:
        """The rows at some of its own positions."""
        if self.rows is None and chosen.size and np.array_equal(chosen, np.arange(chosen[0], chosen[-1] + 1)):
            return replace(self, start=self.start + int(chosen[0]), stop=self.start + int(chosen[-1]) + 1)
        rows = self.positions[chosen]
        first, last = (int(rows.min()), int(rows.max()) + 1) if rows.size else (self.start, self.start)
        return replace(self, start=first, stop=last, rows=rows)

    def __dask_tokenize__(self) -> Any:
        from geoemb_xr.execution.internals import normalize_token

        # normalised here, and by what holds parts: dask takes the text of this, and arrays shorten theirs
        file = self.facts.file
        return normalize_token((file.url, file.token, self.group.index, self.start, self.stop, self.rows))


@dataclass(frozen=True)
class _Wanted:
    """Boxes and spans that were asked for; None asks for everything."""

    boxes: list[Bounds] | None
    spans: list[Span] | None
    degrees: bool

    def touches(self, places: Sequence[Bounds]) -> bool:
        if self.boxes is None or not places:
            return True
        if not any(p[1] <= box[3] and p[3] >= box[1] for p in places for box in self.boxes):
            return False  # by latitude alone: most files of a large store
        return bool(touching(np.array(places), self.boxes, degrees=self.degrees).any())

    def holds(self, places: Sequence[Bounds]) -> bool:
        """Whether all that lies there was asked for, so that rows need not be looked at."""
        if self.boxes is None:
            return True
        return bool(places) and all(is_inside(place, self.boxes, degrees=self.degrees) for place in places)

    def meets(self, span: Span | None) -> bool:
        """Whether dates from the first to the last may have been asked for."""
        if self.spans is None or span is None:
            return True
        return any(start <= span[1] and span[0] < stop for start, stop in self.spans)

    def covers(self, span: Span | None) -> bool:
        if self.spans is None:
            return True
        return span is not None and any(start <= span[0] and span[1] < stop for start, stop in self.spans)


def _boxes_in(area: Area | None, crs: str) -> list[Bounds] | None:
    if area is None:
        return None
    return area.lonlat() if crs == geometry.LONLAT else area.bounds_in(crs)


def touching_files(request: Request, layout: PatchLayout) -> Touches:
    """Whether boxes that a file states for all its rows meet what was asked for."""

    @lru_cache(maxsize=8)
    def wanted(crs: str) -> _Wanted:
        return _Wanted(_boxes_in(request.area, crs), None, crs == geometry.LONLAT)

    return lambda places, crs: wanted(crs).touches([layout.grown(place, crs) for place in places])


def select(facts: Sequence[FileFacts], request: Request, layout: PatchLayout) -> list[Part]:
    """The parts of files that an area and a time leave, reading places and dates only where it must."""
    crs = facts[0].crs
    wanted = _Wanted(_boxes_in(request.area, crs), time_spans(request.time), crs == geometry.LONLAT)
    candidates = [
        (one, group)
        for one in facts
        for group in one.groups
        if group.rows
        and wanted.touches([layout.grown(place, crs) for place in group.places])
        and wanted.meets(group.span or inclusive(span_of(one, layout)))
    ]
    parts = side_by_side(lambda pair: _rows_of(*pair, wanted, layout), candidates)
    return [part for part in parts if len(part)]


def _rows_of(facts: FileFacts, group: RowGroup, wanted: _Wanted, layout: PatchLayout) -> Part:
    hit = np.ones(group.rows, bool)
    if wanted.boxes is not None and not wanted.holds(group.places):
        hit &= touching(row_bounds(facts, group.index, layout), wanted.boxes, degrees=wanted.degrees)
    if (
        wanted.spans is not None
        and facts.date is not None
        and (group.undated or not wanted.covers(group.span))
    ):
        column = read_columns(facts, group.index, [facts.date])[facts.date]
        dates = timestamps(column.to_numpy(zero_copy_only=False))
        hit &= np.any([(dates >= start) & (dates < stop) for start, stop in wanted.spans], axis=0)
    return Part(facts.alone, group, 0, group.rows).take(np.flatnonzero(hit))


def inclusive(span: Span | None) -> Span | None:
    """A span of a path, whose end is not part of it, with its last moment instead."""
    return None if span is None else (span[0], span[1] - np.timedelta64(1, "ns"))


def prune(files: Sequence[File], request: Request, layout: PatchLayout) -> list[File]:
    """Files whose paths do not rule them out."""
    wanted = _Wanted(_boxes_in(request.area, geometry.LONLAT), time_spans(request.time), degrees=True)
    kept = []
    for file in files:
        place = layout.place_of_path(file.url) if layout.place_of_path is not None else None
        span = layout.span_of_path(file.url) if layout.span_of_path is not None else None
        if wanted.meets(inclusive(span)) and wanted.touches([place] if place is not None else []):
            kept.append(file)
    if not kept:
        asked = request.area if request.area is not None else f"time={request.time!r}"
        raise CoverageError(f"none of {len(files)} files is of {asked}, by their names: {files[0].url} …")
    return kept
