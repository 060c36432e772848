"""Bands of a file or an array matched to those of a product, by their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from geoemb_xr.core.errors import SourceError


def places_by_name(names: Sequence[str], bands: Sequence[str], what: str) -> tuple[int, ...] | None:
    """Where a product's bands lie among named ones, counted from 0; None where the names do not tell.

    Parameters
    ----------
    names : sequence of str
        Names in the order in which the bands lie; others may lie between them.
    bands : sequence of str
        Labels in the product's order.
    what : str
        What has the names, for a message.

    Raises
    ------
    SourceError
        If two have the name of one band.

    Examples
    --------
    >>> places_by_name(["mask", "a01", "a00"], ["A00", "A01"], "the file")
    (2, 1)
    """
    for read in _readings(names, bands):
        if set(bands) <= set(read):
            counts = Counter(read)
            if twice := [band for band in bands if counts[band] > 1]:
                first, second = [i for i, each in enumerate(read, 1) if each == twice[0]][:2]
                raise SourceError(f"{what} calls both band {first} and band {second} {twice[0]!r}")
            placed = {band: i for i, band in enumerate(read)}
            return tuple(placed[band] for band in bands)
    return _by_number(names, len(bands))


def refuse_contradiction(names: Sequence[str], bands: Sequence[str], product: str, what: str) -> None:
    """Raise where bands that are taken by their positions have names that say another thing.

    One has the name of another band, or some have the product's names and one has a name that is none of them.

    Parameters
    ----------
    names : sequence of str
        A name for each of ``bands``, as it lies.
    bands : sequence of str
        Labels in the product's order.
    product, what : str
        Name of the product, and what has the names, for the message.

    Raises
    ------
    SourceError
        Naming the band, and the one that is meant.
    """
    some_known = any(named in bands and not named.isdigit() for named in names)
    for number, (named, band) in enumerate(zip(names, bands, strict=True), 1):
        if not some_known or not named or named == band or named.isdigit():
            continue
        meant = f"which is band {bands.index(named) + 1} of" if named in bands else "which is no band of"
        unnamed = next(each for each in bands if each not in names)
        raise SourceError(
            f"{what} calls band {number} {named!r}, {meant} {product!r}, but names no {unnamed!r}"
        )


def _readings(names: Sequence[str], bands: Sequence[str]) -> Iterator[list[str]]:
    """Bands as names may say them, the plainest way first.

    The name itself, what it ends in ("Tessera_Band_7", "0_A07"), the one band that a part of it names in
    letters of any size ("a07", "A07_mean"; empty where there is none).
    """
    yield list(names)
    words = [re.split(r"[^A-Za-z0-9]+", each) for each in names]
    yield [each[-1] for each in words]
    known = {band.lower(): band for band in bands if not band.isdigit()}
    named = [{known[word.lower()] for word in each if word.lower() in known} for each in words]
    yield [each.pop() if len(each) == 1 else "" for each in named]


def _by_number(names: Sequence[str], count: int) -> tuple[int, ...] | None:
    """Places where all names end in numbers that count from 0 or 1, in any order."""
    tails = [re.search(r"(\d+)$", each) for each in names]
    if len(names) != count or None in tails:
        return None
    found = [int(tail[1]) for tail in tails if tail is not None]
    first = min(found)
    if first not in (0, 1) or sorted(found) != list(range(first, first + count)):
        return None
    return tuple(found.index(number) for number in range(first, first + count))
