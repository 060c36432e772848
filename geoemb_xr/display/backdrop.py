"""Map context: a graticule, coastlines, and tiles from the network."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyproj
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import SourceError, require
from geoemb_xr.core.notes import say

#: A map of more degrees than this gets a graticule, and coastlines where cartopy is installed.
WORLD = 40.0
#: Degrees between two lines of a graticule, by the degrees that a map shows.
_STEPS = ((60, 10), (120, 20), (1000, 30))
_OPACITY = 0.65
_LINE = {"color": "0.5", "linewidth": 0.4, "alpha": 0.6, "zorder": 3}


def draw_world(ax: Any, array: xr.DataArray) -> None:
    """Draw a graticule over a map of a large part of the Earth, and coastlines where cartopy is installed."""
    crs = geometry.crs_of(array)
    if crs is None or not array.sizes.get("x", array.sizes.get("location", 0)):
        return
    west, south, east, north = _degrees(array, crs)
    shown = max(east - west, north - south)
    if shown <= WORLD:
        return
    keep = ax.get_xlim(), ax.get_ylim()
    step = next(step for most, step in _STEPS if shown <= most)
    to_map = geometry.transformer(geometry.as_crs(geometry.LONLAT), crs)
    for lon, lat in [*_graticule(west, south, east, north, step), *_coastlines()]:
        x, y = (np.asarray(each, np.float64) for each in to_map.transform(lon, lat, errcheck=False))
        x[~(np.isfinite(x) & np.isfinite(y))] = np.nan
        x[1:][np.abs(np.diff(x)) > abs(keep[0][1] - keep[0][0]) / 2] = np.nan  # around the back of the Earth
        ax.plot(x, y, **_LINE)
    ax.set(xlim=keep[0], ylim=keep[1])


def _degrees(array: xr.DataArray, crs: pyproj.CRS) -> tuple[float, float, float, float]:
    """Longitudes and latitudes of a map; what cannot be projected is left out."""
    xs, ys = array.coords["x"].values, array.coords["y"].values
    if "location" not in array.dims:
        thin = [each[np.linspace(0, each.size - 1, min(each.size, 50)).astype(int)] for each in (xs, ys)]
        xs, ys = (each.ravel() for each in np.meshgrid(*thin))
    to_lonlat = geometry.transformer(crs, geometry.as_crs(geometry.LONLAT))
    lon, lat = (np.asarray(each, np.float64) for each in to_lonlat.transform(xs, ys, errcheck=False))
    there = np.isfinite(lon) & np.isfinite(lat)
    if not there.any():
        return 0.0, 0.0, 0.0, 0.0
    return float(lon[there].min()), float(lat[there].min()), float(lon[there].max()), float(lat[there].max())


def _graticule(
    west: float, south: float, east: float, north: float, step: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Longitudes and latitudes along each meridian and parallel."""
    along = np.linspace(max(south, -90.0), min(north, 90.0), 181)
    for lon in np.arange(np.ceil(west / step) * step, east + 1e-9, step):
        yield np.full(along.size, lon), along
    around = np.linspace(west, east, 361)
    for lat in np.arange(np.ceil(south / step) * step, north + 1e-9, step):
        yield around, np.full(around.size, lat)


def _coastlines() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Longitudes and latitudes along each coast of Natural Earth, as cartopy keeps it; none without cartopy."""
    try:
        reader = importlib.import_module("cartopy.io.shapereader")
    except ImportError:
        return
    try:
        path = reader.natural_earth(resolution="110m", category="physical", name="coastline")
        lines = list(reader.Reader(path).geometries())
    except OSError as error:
        say(f"plot draws no coastlines: cartopy has not fetched them yet, and cannot now ({error})")
        return
    for line in lines:
        for part in getattr(line, "geoms", [line]):
            lon, lat = np.asarray(part.coords).T[:2]
            yield lon, lat


def draw_basemap(ax: Any, array: xr.DataArray, basemap: Any) -> None:
    """Draw tiles from the network under a translucent map.

    Parameters
    ----------
    ax : matplotlib Axes
        Axes with the map.
    array : DataArray
        Array of the map.
    basemap : True, str or xyzservices.TileProvider
        Satellite pictures, or the name of a provider such as ``"OpenStreetMap.Mapnik"``.

    Raises
    ------
    SourceError
        If no tile comes.
    MissingExtraError
        If contextily is not installed.
    ValueError
        For an unknown provider of tiles.
    """
    contextily = require("contextily", package="contextily")
    crs = geometry.crs_of(array)
    source = contextily.providers.Esri.WorldImagery if basemap is True else basemap
    if isinstance(source, str) and "://" not in source:
        try:
            source = contextily.providers.query_name(source)
        except ValueError as error:
            raise ValueError(
                f"basemap={basemap!r} is not a provider of tiles; xyzservices.providers lists them, such as "
                "'OpenStreetMap.Mapnik'"
            ) from error
    for each in ax.images:
        each.set_alpha(_OPACITY)
    try:
        contextily.add_basemap(ax, crs=crs, source=source, attribution_size=6, reset_extent=True, zorder=-1)
    except (OSError, ValueError) as error:
        raise SourceError(f"no tiles came for basemap={basemap!r}: {error}") from error
