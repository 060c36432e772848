"""Published tables of tiles: only the row groups that a bbox and some years touch are read, and kept on disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geoemb_xr.core.areas import Area, Bounds
from geoemb_xr.core.errors import CoverageError, SourceError, require
from geoemb_xr.core.times import TimeLike, pick_times, times_of_years
from geoemb_xr.stores.files import open_object
from geoemb_xr.stores.listing import reading_parquet
from geoemb_xr.stores.objects import head_object, is_remote
from geoemb_xr.stores.paths import cache_dir
from geoemb_xr.stores.pruning import boxes_of_rows, touching

if TYPE_CHECKING:
    import pandas as pd


def read_index(
    url: str,
    *,
    columns: Sequence[str],
    area: Area | None,
    bbox: tuple[str, str, str, str],
    time: TimeLike,
    year: str,
    margin: float = 0.0,
) -> pd.DataFrame:
    """Rows of a Parquet table of tiles that touch an area and a time.

    Parameters
    ----------
    url : str
        File or URL. Of a remote table the row groups that are read are kept in the cache folder, as long as
        its ETag and size stay the same.
    columns : sequence of str
        Columns to return.
    area : Area, optional
        All rows where it is None.
    bbox : tuple of str
        Columns with west, south, east and north in degrees; west > east crosses the antimeridian.
    time : year, list or slice, optional
        The `storage` of ``gx.open``.
    year : str
        Column with the year.
    margin : float
        Degrees by which a row's box is larger than its columns say: tables of centres repeat them in ``bbox``.

    Returns
    -------
    DataFrame
        Sorted by year; ``attrs["state"]`` changes when the table is rewritten.

    Raises
    ------
    CoverageError
        If no tile touches the area, or a year is not there.
    SourceError
        If the table lacks a column, is damaged, or has a row that lies nowhere.
    MissingExtraError
        If pyarrow is not installed.
    """
    import pandas as pd

    table = _IndexFile(url)
    wanted = list(dict.fromkeys([*columns, *bbox, year]))
    table.check(wanted)
    boxes = [_widened(box, margin) for box in area.lonlat()] if area is not None else None
    parts = []
    for group in range(table.groups):
        if boxes is not None and not table.may_touch(group, bbox, boxes):
            continue
        rows = table.read(group, wanted)
        if boxes is not None:
            rows = rows[touching(rows[list(bbox)].to_numpy(), boxes, degrees=True, edges=False)]
        parts.append(rows)
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=wanted)
    if frame.empty:
        raise CoverageError(f"no tile touches {area}: {url} does not cover it")
    years = np.unique(frame[year].to_numpy())
    chosen = years[pick_times(times_of_years(years), time, covers=f"{url} there")]
    found = frame[frame[year].isin(chosen)].sort_values([year, columns[0]]).reset_index(drop=True)
    _check_places(found, bbox, url)
    found.attrs["state"] = table.state
    return found


def _check_places(frame: pd.DataFrame, bbox: Sequence[str], url: str) -> None:
    """Raise for a row that lies outside the Earth, of which no tile could be made."""
    x, y = (frame[[bbox[i], bbox[i + 2]]].to_numpy(dtype=float) for i in (0, 1))
    wrong = ~((np.abs(x) <= 360) & (np.abs(y) <= 90)).all(axis=1)  # NaN is wrong, too
    if wrong.any():
        row = frame[wrong].iloc[0]
        place = ", ".join(f"{name} = {row[name]}" for name in dict.fromkeys(bbox))
        raise SourceError(f"{url} has a row that lies nowhere on the Earth: {place}; fetch the index again")


def _widened(box: Bounds, margin: float) -> Bounds:
    """A wider request instead of wider rows."""
    return box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin


class _IndexFile:
    """A Parquet file, read row group by row group; ``state`` changes when it is rewritten."""

    def __init__(self, url: str) -> None:
        parquet = require("pyarrow.parquet", "remote")
        self.url, self.state = url, head_object(url) if is_remote(url) else ""
        with reading_parquet(url):
            self.file = parquet.ParquetFile(open_object(url) if is_remote(url) else url, pre_buffer=True)
        self.metadata = self.file.metadata
        self.groups: int = self.metadata.num_row_groups
        names = [self.metadata.schema.column(i).path for i in range(self.metadata.num_columns)]
        self.columns = {name: i for i, name in enumerate(names)}
        self._cache = _cache_folder(url, self.state) if is_remote(url) else None

    def check(self, wanted: Sequence[str]) -> None:
        """Raise unless the table has the columns."""
        missing = [name for name in wanted if name not in self.columns]
        if missing:
            raise SourceError(f"{self.url} has no columns {missing}; it has {sorted(self.columns)}")

    def may_touch(self, group: int, bbox: Sequence[str], boxes: Sequence[Bounds]) -> bool:
        """Whether a row group's statistics leave room for a row that touches one of the boxes."""
        row_group = self.metadata.row_group(group)
        stats = [row_group.column(self.columns[name]).statistics for name in bbox]
        if any(s is None or not s.has_min_max for s in stats):
            return True
        sides = [(float(each.min), float(each.max)) for each in stats]
        around = np.array(boxes_of_rows(*sides, degrees=True)).reshape(-1, 4)
        return bool(touching(around, boxes, degrees=True).any())

    def read(self, group: int, wanted: Sequence[str]) -> pd.DataFrame:
        """A row group's columns, from the cache where it has them."""
        feather = require("pyarrow.feather", "remote")
        key = hashlib.sha1("\n".join(wanted).encode()).hexdigest()[:8]
        kept = self._cache / f"{group:05d}-{key}.feather" if self._cache is not None else None
        if kept is not None and kept.exists():
            frame: pd.DataFrame = feather.read_feather(kept)
            return frame
        with reading_parquet(self.url):
            frame = self.file.read_row_group(group, columns=list(wanted)).to_pandas()
        if kept is not None:
            with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as scratch:
                feather.write_feather(frame, scratch.name)
            os.replace(scratch.name, kept)
        return frame


def _cache_folder(url: str, state: str) -> Path:
    """Where a remote table's row groups are kept: another state of the table has another folder."""
    folder = cache_dir() / "indexes" / hashlib.sha1(f"{url}\n{state}".encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder
