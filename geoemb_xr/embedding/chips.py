"""The positions of chips, on a grid anchored to the image's pixel lattice and not to the computed window.

Chips are laid along each axis on its own. The pixels that a chip owns begin where the global pixel number of the
lattice is a multiple of the stride, so a chip of a crop, of a block or of the whole image is the same chip, and a
vector has one value whatever is computed of the rest. Each output pixel is owned by one chip, which looks a margin
beyond what it owns; chips of tokens that would look beyond the image are moved inwards by whole patches.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from geoemb_xr.core.errors import EmbeddingError

#: Pixels that are kept together where each is encoded on its own.
_NEIGHBOURS = 32


@dataclass(frozen=True)
class Chip:
    """A chip along one axis.

    Parameters
    ----------
    start : int
        Its first pixel, counted from the image's first; below 0 where it looks beyond the image.
    first, stop : int
        Output pixels that it owns, counted from the result's first.
    skip : int
        Its own outputs before the first that it owns.
    edge : bool
        Whether it saw less, or something else, than it would have in a larger image.
    """

    start: int
    first: int
    stop: int
    skip: int
    edge: bool


@dataclass(frozen=True)
class ChipAxis:
    """All chips along one axis.

    Parameters
    ----------
    origin : int
        Global number of the first output pixel.
    size : int
        Output pixels.
    patch : int
        Pixels of the image in one of them.
    side : int
        Pixels of a chip.
    chips : tuple of Chip
        The chips, in order.
    """

    origin: int
    size: int
    patch: int
    side: int
    chips: tuple[Chip, ...]

    def most_inside(self, size: int) -> float:
        """The largest share of a chip that lies in an image of so many pixels.

        Examples
        --------
        >>> lay_chips(30, 32, side=32, stride=32).most_inside(32)
        0.9375
        """
        inside = [min(chip.start + self.side, size) - max(chip.start, 0) for chip in self.chips]
        return max(inside) / self.side

    def blocks(self, pixels: int) -> list[tuple[Chip, ...]]:
        """Chips in groups that own about so many pixels of the image each, at least one chip."""
        own = self.patch * max(chip.stop - chip.first for chip in self.chips)
        count = max(1, round(pixels / own))
        return [self.chips[i : i + count] for i in range(0, len(self.chips), count)]

    def beside(self, group: tuple[Chip, ...]) -> tuple[Chip, ...]:
        """All chips that see an output of a group, in order: those of the group and their neighbours.

        At an edge of the image two chips may be moved to one place, which counts once.
        """
        count = self.side // self.patch
        first, stop = group[0].first, group[-1].stop
        places = {chip.start: chip for chip in reversed(self.chips)}
        return tuple(
            chip
            for _, chip in sorted(places.items())
            if chip.first - chip.skip < stop and chip.first - chip.skip + count > first
        )

    def edges(self, *, blend: bool) -> np.ndarray:
        """Which outputs the edge of the image affects; a blended output is a mean over all chips that contain it.

        Parameters
        ----------
        blend : bool
            Whether outputs are blended.

        Returns
        -------
        ndarray of bool (output,)
        """
        found = np.zeros(self.size, bool)
        count = self.side // self.patch
        for chip in self.chips:
            if chip.edge and blend:
                begin = chip.first - chip.skip
                found[max(begin, 0) : begin + count] = True
            elif chip.edge:
                found[chip.first : chip.stop] = True
        return found


def lay_tokens(start: int, size: int, *, side: int, patch: int, margin: int) -> ChipAxis:
    """Lay chips whose tokens become pixels of the result: all tokens that lie wholly in the image.

    Parameters
    ----------
    start : int
        Global number of the image's first pixel.
    size : int
        Pixels of the image.
    side, patch, margin : int
        Sizes of the chips, in pixels; ``margin`` is a multiple of ``patch``.

    Raises
    ------
    EmbeddingError
        If the image is smaller than a chip.

    Examples
    --------
    >>> axis = lay_tokens(30, 100, side=32, patch=8, margin=8)
    >>> axis.origin, axis.size, [(chip.start, chip.first, chip.stop) for chip in axis.chips[:2]]
    (4, 12, [(2, 0, 2), (10, 2, 4)])
    """
    if size < side:
        raise EmbeddingError(
            f"the image has {size} pixels along an axis, fewer than the {side} of a chip: give a larger image, or "
            "chips as they are with dims (location, band, y, x)"
        )
    stride = side - 2 * margin
    origin, end = -(-start // patch), (start + size) // patch
    # a chip inside the image begins at a whole patch; where none fits between, it looks a little beyond
    low = origin * patch
    high = max(end * patch - side, low)
    chips = []
    for number in range(low // stride, -(-end * patch // stride)):
        wanted = number * stride - margin
        at = min(max(wanted, low), high)
        first = max(number * stride // patch, origin)
        stop = min((number + 1) * stride // patch, end)
        edge = at != wanted or at + side > start + size
        chips.append(Chip(at - start, first - origin, stop - origin, first - at // patch, edge))
    return ChipAxis(origin, end - origin, patch, side, tuple(chips))


def lay_chips(start: int, size: int, *, side: int, stride: int) -> ChipAxis:
    """Lay chips that become one pixel of the result each, those that lie only partly in the image included.

    Parameters
    ----------
    start, size : int
        See :func:`lay_tokens`.
    side : int
        Side of a chip, in pixels.
    stride : int
        Stride of the grid, in pixels: the side of an output pixel, in whose middle the chip lies.

    Raises
    ------
    EmbeddingError
        If the image is smaller than a chip.

    Examples
    --------
    >>> axis = lay_chips(30, 100, side=32, stride=32)
    >>> axis.origin, axis.size, axis.chips[0].start, axis.chips[0].edge
    (0, 5, -30, True)
    """
    if size < side:
        raise EmbeddingError(
            f"the image has {size} pixels along an axis, fewer than the {side} of a chip: give a larger image, or "
            "chips as they are with dims (location, band, y, x)"
        )
    before = (side - stride) // 2
    origin, end = start // stride, -(-(start + size) // stride)
    chips = []
    for number in range(origin, end):
        at = number * stride - before - start
        chips.append(Chip(at, number - origin, number - origin + 1, 0, at < 0 or at + side > size))
    return ChipAxis(origin, end - origin, stride, side, tuple(chips))


def lay_pixels(start: int, size: int) -> ChipAxis:
    """Lay one pixel of the result per pixel of the image; "chips" are groups of neighbouring pixels."""
    cuts = [*range(0, size, _NEIGHBOURS), size]
    return ChipAxis(start, size, 1, 1, tuple(Chip(a, a, b, 0, False) for a, b in itertools.pairwise(cuts)))


def global_number(start: float) -> int:
    """The whole number of a lattice's pixel whose first edge lies at ``start`` pixels; halves go up."""
    return math.floor(start + 0.5)
