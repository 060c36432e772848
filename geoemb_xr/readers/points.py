"""Vectors at points, each from its own tile and zone, unwarped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import geometry, longitudes, times
from geoemb_xr.core.areas import Area
from geoemb_xr.core.errors import CoverageError, EmbeddingError
from geoemb_xr.core.model import Product
from geoemb_xr.core.notes import say
from geoemb_xr.geo import places
from geoemb_xr.geo.places import Places
from geoemb_xr.readers import tiles
from geoemb_xr.readers.sources import attrs_of, covers, one_version, times_of
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
    """Vectors at points, each from the tile of its own zone whose centre is nearest."""
    from geoemb_xr.geo.points import sample

    points: Places = request.points
    lon, lat = points.xy(geometry.LONLAT)
    own_year = _own_years(points) if request.time is None else None
    stored = tiles.overlapping(stored, request.area)
    if not stored:
        raise CoverageError(f"{found.name} has no tile at these points")
    table = pd.DataFrame({"lon": lon, "lat": lat})
    owner = _nearest_group(stored, lon, lat)
    version = one_version(found, stored, request)
    years: Sequence[Any] = [None] if own_year is None else sorted(set(own_year[own_year >= 0].tolist()))
    parts: list[xr.DataArray] = []
    order: list[np.ndarray] = []
    all_times = times_of(stored, request, found) if own_year is None else []
    for group_index, group in enumerate(tiles.by_lattice(stored)):
        for when in years:
            mine = owner == group_index
            if own_year is not None:
                mine &= own_year == when
            if not mine.any():
                continue
            times = all_times if own_year is None else times_of(stored, _at(request, int(when)), found)
            attrs = attrs_of(found, group, version)
            area = area_of_points(points.take(mine), found)
            grid = tiles.assemble(group, times, area=area, chunks=request.chunks, attrs=attrs)
            if grid is None:
                continue
            taken = sample(grid, np.column_stack([lon[mine], lat[mine]]))
            parts.append(_place_points(taken, table[mine], times, own_year is not None))
            order.append(np.flatnonzero(mine))
    if not parts:
        raise CoverageError(f"{found.name} has no data at these points; this source {covers(stored)}")
    return _reorder(parts, np.concatenate(order), points, own_year)


def _at(request: Request, year: int) -> Request:
    return Request(request.area, year, request.version, request.variant, request.chunks)


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


def _nearest_group(stored: Sequence[Tile], lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """For each point the lattice whose tile has its centre nearest; −1 where no tile holds it."""
    best = np.full(lon.size, np.inf)
    owner = np.full(lon.size, -1)
    for g, group in enumerate(tiles.by_lattice(stored)):
        crs = geometry.as_crs(group[0].geobox.crs)
        to_tiles = geometry.transformer(geometry.as_crs(geometry.LONLAT), crs)
        x, y = (np.asarray(each) for each in to_tiles.transform(lon, lat, errcheck=False))
        for tile in group:
            r, c = places.positions_on(tile.geobox, x, y)
            height, width = tile.geobox.shape
            inside = (c >= 0) & (c < width) & (r >= 0) & (r < height)
            distance = np.hypot(c / width - 0.5, r / height - 0.5)
            wins = inside & (distance < best)
            best[wins], owner[wins] = distance[wins], g
    return owner


def _place_points(
    taken: xr.DataArray, table: pd.DataFrame, times: Sequence[str], own_year: bool
) -> xr.DataArray:
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


def _reorder(
    parts: list[xr.DataArray], order: np.ndarray, points: Places, own_year: np.ndarray | None
) -> xr.DataArray:
    joined = xr.concat(
        parts, "location", coords="minimal", compat="equals", combine_attrs="override", join="exact"
    )
    sources = {str(p.attrs.get("source", "")) for p in parts}
    joined.attrs["source"] = sources.pop() if len(sources) == 1 else f"{len(sources)} zones"
    joined = joined.isel(location=np.argsort(order, kind="stable"))
    kept = np.sort(order)
    dated = len(points) if own_year is None else int((own_year >= 0).sum())
    if kept.size < dated:
        say(f"{dated - kept.size} of {len(points)} points lie in no tile of this source and are left out")
    index, columns = points.take(kept).riding()
    joined = joined.assign_coords({geometry.SPATIAL_REF: geometry.crs_coord(geometry.LONLAT)})
    taken = {"lon", "lat", "location", *map(str, joined.coords), *map(str, joined.dims)}
    riding = {name: ("location", values) for name, values in columns.items() if name not in taken}
    return joined.assign_coords({"location": index, **riding})
