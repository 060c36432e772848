"""Stores with a group for each UTM zone: which of them an area touches."""

from __future__ import annotations

import re
from collections.abc import Iterable

from geoemb_xr.readers.tiles import Request

#: Names of groups: by the number of a zone, or by number and hemisphere.
ZONE = re.compile(r"utm(\d{2})|(\d{2})([NS])")


def is_near(name: str, request: Request) -> bool:
    """Whether a zone's tiles can reach an area; a tile belongs to the zone of its centre."""
    if request.area is None:
        return True
    digits = ZONE.fullmatch(name)
    assert digits is not None
    west = (int(digits[1] or digits[2]) - 1) * 6 - 180 - 0.1
    return any(w < west + 6.2 and e > west for box in request.area.lonlat() for w, e in turns(box[0], box[2]))


def turns(west: float, east: float) -> Iterable[tuple[float, float]]:
    """A span of longitudes, also a turn of the globe further either way."""
    return ((west + turn, east + turn) for turn in (-360, 0, 360))
