"""Whether a product was trained on the source of the labels, so that a test with them would flatter it."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Part of what a product says it was trained on → what columns of such labels are called.
_CALLED = {
    "dynamic world": ("dw",),
    "cropland data layer": ("cdl",),
    "openstreetmap": ("osm",),
    "glo-30": ("dem", "elevation"),
    "srtm": ("dem", "elevation"),
    "canopy height": ("canopyheight", "chm"),
}
#: Publishers of data, whose names are not names of labels.
_PUBLISHERS = {"usda", "nasa", "noaa", "usgs"}
#: Names of so many letters are found inside of others, too.
_LONG = 5


def is_seen(target: str, trained_on: Sequence[str]) -> bool:
    """Whether labels are named like a source: ``nlcd_2019`` like ``NLCD``, ``dw_label`` like ``Dynamic World``.

    Examples
    --------
    >>> is_seen("worldcover_2020", ["ESA WorldCover 2021"]), is_seen("land", ["ERA5-Land"])
    (True, False)
    """
    words = re.findall(r"[a-z]+\d*|\d+", target.lower())
    tokens = {*words, *(word.rstrip("0123456789") for word in words)}
    whole = "".join(words)
    names = {name for source in trained_on for name in _names_of(source)}
    return any(name in tokens or (len(name) >= _LONG and name in whole) for name in names)


def _names_of(source: str) -> set[str]:
    """Return the names of a source of labels: the whole one, those that are parts of it, and short forms."""
    words = re.findall(r"[A-Za-z0-9]+", source)
    whole = "".join(word for word in words if not word.isdigit()).lower()
    own = {word.lower() for word in words if len(word) >= 4 and sum(map(str.isupper, word)) > 1}
    short = {each for part, those in _CALLED.items() if part in source.lower() for each in those}
    return ({whole} | own | short) - _PUBLISHERS
