"""Vectors at points, each from its own tile and zone, unwarped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import arrays, geometry, longitudes, times
from geoemb_xr.core.areas import Area
from geoemb_xr.core.errors import CoverageError, EmbeddingError
from geoemb_xr.core.model import Product, is_encoded
from geoemb_xr.core.notes import say
from geoemb_xr.geo import places
from geoemb_xr.geo.places import Places
from geoemb_xr.readers import tiles
from geoemb_xr.readers.sources import asked_times, attrs_of, covers, one_version
from geoemb_xr.readers.tile_arrays import PointReader
from geoemb_xr.readers.tiles import Request, Tile


def area_of_points(points: Places, found: Product | None) -> Area:
    """The box around points, some pixels wide at least: one pixel has no resolution to be told from."""
    lon, lat = points.xy(geometry.LONLAT)
    ok = np.isfinite(lon) & np.isfinite(lat)
    if not ok.any():
        raise EmbeddingError("points= has no point with finite coordinates")
    pixel = found.resolution if found is not None else None
    pad = max(2 * (pixel or 10.0) / geometry.METRES_PER_DEGREE, 1e-4)
    south, north = max(float(lat[ok].min()) - pad, -90.0), min(float(lat[ok].max()) + pad, 90.0)
    west, east = longitudes.around(lon[ok] - pad, lon[ok] + pad)
    return Area(west, south, east, north, geometry.as_crs(geometry.LONLAT))


def vectors_at(found: Product, stored: list[Tile], request: Request) -> xr.DataArray:
    """Vectors at points, each from the tile of its own zone whose centre is nearest and that has data there."""
    points: Places = request.points
    lon, lat = points.xy(geometry.LONLAT)
    own_year = _own_years(points) if request.time is None else None
    stored = tiles.overlapping(stored, request.area)
    if not stored:
        raise CoverageError(f"{found.name} has no tile at these points")
    table = pd.DataFrame({"lon": lon, "lat": lat})
    groups = tiles.by_lattice(stored)
    reader = _AtPoints(found, groups, stored, request, points, table, own_year)
    distances = _distances(groups, lon, lat)
    order = np.argsort(distances, axis=0, kind="stable")
    joined: xr.DataArray | None = None
    for owner in order:  # the nearest lattice of each point, then the next, down to those that do not hold it
        held = np.isfinite(np.take_along_axis(distances, owner[None], axis=0)[0])
        taken = reader.read(np.where(held, owner, -1))
        if taken is None:
            break
        joined = taken if joined is None else _fallen_through(joined, taken)
    if joined is None:
        raise CoverageError(f"{found.name} has no data at these points; this source {covers(stored)}")
    return _with_columns(joined, points, own_year)


#: Side of the blocks that points are read from, at most: files of one strip have none.
_LARGEST = 2048


@dataclass(frozen=True)
class _AtPoints:
    """Reads each point from one of several lattices."""

    found: Product
    groups: list[list[Tile]]
    stored: list[Tile]
    request: Request
    points: Places
    table: pd.DataFrame
    own_year: np.ndarray | None

    def read(self, owner: np.ndarray) -> xr.DataArray | None:
        """Vectors of the points that a lattice owns (−1: none), ``location`` their position; None of none."""
        years: list[Any] = [None]
        if self.own_year is not None:
            years = sorted(set(self.own_year[self.own_year >= 0].tolist()))
        parts = [
            part
            for number, group in enumerate(self.groups)
            for when in years
            if (part := self._of_group(group, when, owner == number)) is not None
        ]
        if not parts:
            return None
        joined = xr.concat(
            parts, "location", coords="minimal", compat="equals", combine_attrs="override", join="exact"
        )
        sources = {str(p.attrs.get("source", "")) for p in parts}
        joined.attrs["source"] = sources.pop() if len(sources) == 1 else f"{len(sources)} zones"
        return joined.sortby("location")

    def _of_group(self, group: list[Tile], when: Any, mine: np.ndarray) -> xr.DataArray | None:
        from geoemb_xr.geo.points import sample_pixels

        request, own_year = self.request, self.own_year
        if own_year is not None:
            mine = mine & (own_year == when)
            request = _request_for_year(request, int(when)) if mine.any() else request
        if not mine.any():
            return None
        times = asked_times(self.stored, request, self.found)
        attrs = attrs_of(self.found, group, one_version(self.found, self.stored, self.request))
        area = area_of_points(self.points.take(mine), self.found)
        chunks = request.chunks
        if chunks == "auto":  # whole stored blocks, so that none is read for each of its parts
            stored = max(side for tile in group for side in tile.block)
            chunks = min(stored, _LARGEST) if stored > tiles.DEFAULT_BLOCK else "auto"
        found = tiles.assembly(group, times, area=area, chunks=chunks, attrs=attrs)
        if found is None:
            return None
        reads_pixels = all(isinstance(tile.reader, PointReader) for tile in group)
        given = places.read_places(self.table[mine].to_numpy()).present("sample")
        taken = sample_pixels(found.grid, given, take=found.at if reads_pixels else None)
        placed = _place_points(taken, self.table[mine], own_year is not None)
        return placed.assign_coords(location=np.flatnonzero(mine))


def _fallen_through(near: xr.DataArray, far: xr.DataArray) -> xr.DataArray:
    """What the nearer lattice has; where that is missing, what the further one has. Lazy."""
    at = near.indexes["location"]
    rows = far.indexes["location"].get_indexer(at)
    if (rows < 0).all():
        return near
    # a row that the further one lacks takes any of its rows, and then keeps the nearer's
    beside = far.isel(location=np.maximum(rows, 0)).assign_coords(location=at)
    own = arrays.without_data(near) & xr.DataArray(rows >= 0, dims="location")
    filled = near.where(~own, beside.reset_coords(drop=True))
    codec = arrays.codec_of(near) if is_encoded(near) else None
    if codec is None or codec.scale is None:
        return filled
    scales = [each.coords[codec.scale].reset_coords(drop=True) for each in (near, beside)]
    return filled.assign_coords({codec.scale: scales[0].where(~own, scales[1])})


def _request_for_year(request: Request, year: int) -> Request:
    return replace(request, time=year, geobox=None, points=None)


def _own_years(points: Places) -> np.ndarray | None:
    """The year of each point, from a column ``year``, ``time`` or ``date``; −1 in gaps, None without a column.

    Raises
    ------
    EmbeddingError
        If none of the points has one.
    """
    columns = {str(name).lower(): name for name in reversed(points.table.columns)}
    name = next((columns[each] for each in ("year", "time", "date") if each in columns), None)
    if name is None:
        return None
    dates = times.parse_dates(points.table[name], f"the points' column {str(name)!r}")
    gaps = int(np.isnat(dates).sum())
    if gaps == dates.size and gaps:
        raise EmbeddingError(f"none of the {gaps} points has a date in its column {str(name)!r}; give time=")
    if gaps:
        say(f"{gaps} of {dates.size} points have no date in their column {str(name)!r} and are left out")
    return np.where(np.isnat(dates), -1, dates.astype("datetime64[Y]").astype(np.int64) + 1970)


def _distances(groups: Sequence[Sequence[Tile]], lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """How far each point is from the middle of a tile, for each lattice (n_groups, n); inf where none holds it."""
    best = np.full((len(groups), lon.size), np.inf)
    for nearest, group in zip(best, groups, strict=True):
        crs = geometry.as_crs(group[0].geobox.crs)
        to_tiles = geometry.transformer(geometry.as_crs(geometry.LONLAT), crs)
        x, y = (np.asarray(each) for each in to_tiles.transform(lon, lat, errcheck=False))
        for tile in group:
            r, c = places.positions_on(tile.geobox, x, y)
            height, width = tile.geobox.shape
            inside = (c >= 0) & (c < width) & (r >= 0) & (r < height)
            distance = np.hypot(c / width - 0.5, r / height - 0.5)
            nearest[inside] = np.minimum(nearest[inside], distance[inside])
    return best


def _place_points(taken: xr.DataArray, table: pd.DataFrame, own_year: bool) -> xr.DataArray:
    """Points of several zones share degrees as their coordinates."""
    taken = taken.drop_vars([n for n in taken.coords if n not in ("band", "time", "scale")])
    if own_year:
        if taken.sizes["time"] != 1:
            raise EmbeddingError(f"{taken.sizes['time']} periods of one year at points; give time=")
        date = np.repeat(taken["time"].values, len(table))
        taken = taken.isel(time=0, drop=True).assign_coords(date=("location", date))
    return taken.assign_coords(
        x=("location", table["lon"].to_numpy()), y=("location", table["lat"].to_numpy())
    )


def _with_columns(joined: xr.DataArray, points: Places, own_year: np.ndarray | None) -> xr.DataArray:
    """Vectors whose ``location`` is a position, with the points' own index and columns."""
    kept = joined.indexes["location"].to_numpy()
    dated = len(points) if own_year is None else int((own_year >= 0).sum())
    if kept.size < dated:
        say(f"{dated - kept.size} of {len(points)} points lie in no tile of this source and are left out")
    index, columns = points.take(kept).riding()
    joined = joined.assign_coords({geometry.SPATIAL_REF: geometry.crs_coord(geometry.LONLAT)})
    taken = {"lon", "lat", "location", *map(str, joined.coords), *map(str, joined.dims)}
    riding = {name: ("location", values) for name, values in columns.items() if name not in taken}
    return joined.assign_coords({"location": index, **riding})
