"""Published tables of tiles: only the row groups that a bbox and some years touch are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from geoemb_xr.arrays import TimeLike, pick_times, times_of_years
from geoemb_xr.geometry import Area
from geoemb_xr.model import CoverageError, require
from geoemb_xr.readers.remote import is_remote, open_object

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
        File or URL.
    columns : sequence of str
        To return.
    area : Area, optional
        All rows where it is None.
    bbox : tuple of str
        Columns with west, south, east and north in degrees; west > east crosses the antimeridian.
    time : year, list or slice, optional
        As ``gx.open`` takes it.
    year : str
        Column with the year.
    margin : float
        Degrees by which a row's box is larger than its columns say: tables of centres repeat them in ``bbox``.

    Raises
    ------
    CoverageError
        If no tile touches the area, or a year is not there.
    MissingExtraError
        If pyarrow is not installed.
    """
    parquet = require("pyarrow.parquet", "remote")
    table = parquet.ParquetFile(_file(url))
    wanted = list(dict.fromkeys([*columns, *bbox, year]))
    boxes = area.lonlat() if area is not None else None
    if boxes is not None:  # a wider request instead of wider rows
        boxes = [(w - margin, s - margin, e + margin, n + margin) for w, s, e, n in boxes]
    groups = [i for i in range(table.num_row_groups) if boxes is None or _may_touch(table, i, bbox, boxes)]
    frame = table.read_row_groups(groups, columns=wanted).to_pandas()
    if boxes is not None:
        frame = frame[_touches(frame, bbox, boxes)]
        if frame.empty:
            raise CoverageError(f"no tile of {url} touches {area}")
    years = np.unique(frame[year].to_numpy())
    chosen = years[pick_times(times_of_years(years), time, covers=f"{url} there")]
    return frame[frame[year].isin(chosen)].sort_values([year, columns[0]]).reset_index(drop=True)


def _file(url: str) -> Any:
    return open_object(url) if is_remote(url) else url


def _may_touch(table: Any, group: int, bbox: Sequence[str], boxes: Sequence[Sequence[float]]) -> bool:
    """Whether a row group's statistics leave room for a row that touches one of the boxes."""
    names = {table.schema_arrow.names[i]: i for i in range(len(table.schema_arrow.names))}
    meta = table.metadata.row_group(group)
    paths = {meta.column(i).path_in_schema: meta.column(i).statistics for i in range(meta.num_columns)}
    west, south, east, north = (paths.get(name) if name in names else None for name in bbox)
    if any(s is None or not s.has_min_max for s in (west, south, east, north)):
        return True
    if west.max > east.min:  # a row in it may cross the antimeridian
        return any(south.min <= n and north.max >= s for _, s, _, n in boxes)
    return any(west.min <= e and east.max >= w and south.min <= n and north.max >= s for w, s, e, n in boxes)


def _touches(frame: pd.DataFrame, bbox: Sequence[str], boxes: Sequence[Sequence[float]]) -> np.ndarray:
    west, south, east, north = (frame[name].to_numpy() for name in bbox)
    hit = np.zeros(len(frame), bool)
    for w, s, e, n in boxes:
        within = (west < e) & (east > w)
        crossing = (west > east) & ((west < e) | (east > w))
        hit |= (within | crossing) & (south < n) & (north > s)
    return hit
