"""Layouts of a product's Parquet files of patches, and what their paths tell."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoemb_xr.core.areas import Bounds
from geoemb_xr.core.geometry import LONLAT, METRES_PER_DEGREE

if TYPE_CHECKING:
    from geoemb_xr.readers.footers import FileFacts

#: First and last moment, as the name of a path or the statistics of a row group tell.
Span = tuple[np.datetime64, np.datetime64]


@dataclass(frozen=True)
class PatchLayout:
    """How a product lays out its files.

    Parameters
    ----------
    vectors : tuple of str
        Names that the column of vectors has had.
    geometry : str
        Column of footprints or centres, where the footer names no other.
    centre : tuple of str
        Columns with longitude and latitude of the centre, where there is no geometry (or to prune by).
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

    def grown(self, place: Bounds, crs: str) -> Bounds:
        """Bounds of centres, widened by how far a footprint reaches from its centre."""
        west, south, east, north = place
        dx, dy = self.reach(crs, max(abs(south), abs(north)))
        return west - dx, south - dy, east + dx, north + dy

    def reach(self, crs: str, latitude: Any) -> tuple[Any, float]:
        """How far a footprint reaches from its centre along x and y, in units of the CRS."""
        metres = self.patch_m / 2
        if crs != LONLAT:
            return metres, metres
        degrees = metres / METRES_PER_DEGREE
        return degrees / np.maximum(np.cos(np.radians(latitude)), 0.02), degrees


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
