"""Use of overviews in place of rasters, where they hold what averaging would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from affine import Affine

from geoemb_xr.core import geometry
from geoemb_xr.execution.threads import side_by_side
from geoemb_xr.readers.geotiff import GeoTiffReader
from geoemb_xr.readers.tiles import Tile

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: Share of a pixel by which edges may differ.
_TOLERANCE = 1e-6


def coarser(stored: Sequence[Tile], lattice: GeoBox) -> list[Tile]:
    """Tiles by those of their overviews that lie on a lattice; the tiles themselves where one has none.

    A product says of its files whether their overviews are means of the vectors of all pixels below, normalised
    once (:attr:`Tile.overviews_are_means`). Only a level whose pixels are those of the lattice is taken: a mean of
    means would be normalised twice.

    Parameters
    ----------
    stored : sequence of Tile
        All that are to be read.
    lattice : GeoBox
        The grid whose pixel size and edges count.
    """
    factors = [_factor(tile, lattice) for tile in stored]
    if not stored or not all(factors):
        return list(stored)
    found = side_by_side(partial(_overview, stored, factors), range(len(stored)))
    return [tile for tile in found if tile is not None] if None not in found else list(stored)


def _factor(tile: Tile, lattice: GeoBox) -> int:
    """How many pixels of a tile are one of the lattice, where its overview would lie on it; else 0."""
    own, goal = geometry.north_up(tile.geobox).affine, lattice.affine
    factor = round(goal.a / own.a)
    square = abs(goal.a / own.a - factor) < _TOLERANCE and abs(goal.e / own.e - factor) < _TOLERANCE
    if factor < 2 or not square or goal.b or goal.d or own.b or own.d:
        return 0
    if not geometry.same_crs(tile.geobox.crs, lattice.crs) or any(n % factor for n in tile.geobox.shape):
        return 0
    col, row = ~goal * (own.c, own.f)
    return factor if max(abs(col - round(col)), abs(row - round(row))) < _TOLERANCE else 0


def _overview(stored: Sequence[Tile], factors: Sequence[int], i: int) -> Tile | None:
    tile, factor = stored[i], factors[i]
    reader: Any = tile.reader
    if not (tile.overviews_are_means and isinstance(reader, GeoTiffReader)) or tile.beside or tile.decider:
        return None
    held = reader.overviews()
    if factor not in held:
        return None
    shape = tuple(n // factor for n in tile.geobox.shape)
    box = geometry.make_geobox(shape, tile.geobox.affine * Affine.scale(factor), tile.geobox.crs)
    level = held.index(factor)
    return replace(
        tile, geobox=box, reader=replace(reader, level=level), token=f"{tile.token}, overview {level}"
    )
