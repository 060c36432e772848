"""A seeded landscape that examples, notebooks and tests are made of, and helpers that assert laziness.

The scene is a function of longitude, latitude and year: whatever grid a product lies on, it shows the same
land cover, with changes whose place and year are known. Arrays made from it say ``version="synthetic"``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from affine import Affine

from geoemb_xr.core import arrays, geometry, times
from geoemb_xr.core.errors import check_choice
from geoemb_xr.core.geometry import METRES_PER_DEGREE
from geoemb_xr.core.model import BAND, Product
from geoemb_xr.core.model import product as find_product
from geoemb_xr.geo import wrapping
from geoemb_xr.testing.laziness import assert_lazy_identical as assert_lazy_identical
from geoemb_xr.testing.laziness import raise_if_dask_computes as raise_if_dask_computes
from geoemb_xr.testing.strategies import embeddings as embeddings
from geoemb_xr.testing.strategies import geoboxes as geoboxes

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: Length of Tessera-like vectors: not one, since their magnitude carries information.
FREE_NORM = 30.0
#: Length and offset that vectors which are not of unit length need to fill the codes they are stored as.
_STORED = {"signed-square": (4.0, 0.0), "fsq": (1.6, 0.0), "unscaled": (30_000.0, 32_768.0)}


@dataclass(frozen=True)
class Event:
    """A disc whose land cover changes at the start of a year.

    Parameters
    ----------
    year : int
        First year that shows it.
    east, north : float
        Centre, metres from the scene's centre.
    radius : float
        Radius in metres.
    before, after : str
        Classes: only pixels of ``before`` change.
    """

    year: int
    east: float
    north: float
    radius: float
    before: str
    after: str


@dataclass(frozen=True)
class Scene:
    """A seeded landscape: classes in space, known changes in time, vectors of any length.

    Parameters
    ----------
    lon, lat : float
        Centre, in degrees.
    seed : int
        Another seed is another landscape.
    noise : float
        Length of the random part of a unit vector; 0.06 turns it by about 3 degrees.
    variety : float
        Differences between places of one class: lengths of smooth deviations from the class's direction.
    alike : float
        Share that the directions of plants have in common.
    blur : float
        Metres over which a pixel sees its surroundings: pixels at edges are mixed.
    clouds : float
        Share of each year that is missing, in patches.

    Examples
    --------
    >>> scene = Scene()
    >>> classes = scene.classes(np.array([11.37]), np.array([47.25]), 2018)
    >>> scene.names[int(classes[0]) - 1] in scene.names
    True
    """

    lon: float = 11.37
    lat: float = 47.25
    seed: int = 7
    noise: float = 0.06
    variety: float = 0.0
    alike: float = 0.0
    blur: float = 0.0
    clouds: float = 0.0
    names: tuple[str, ...] = ("water", "forest", "grassland", "built-up", "maize", "wheat")
    colours: tuple[str, ...] = ("#3d7ea6", "#2f6b3a", "#a8c66c", "#b5483a", "#e8c547", "#d99a5b")
    events: tuple[Event, ...] = (
        Event(2020, 600.0, 500.0, 420.0, "forest", "grassland"),
        Event(2020, -700.0, -250.0, 380.0, "grassland", "built-up"),
        Event(2022, -300.0, 800.0, 350.0, "maize", "built-up"),
        Event(2023, 500.0, -800.0, 400.0, "grassland", "water"),
    )

    def _metres(self, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        east = (np.asarray(lon) - self.lon) * METRES_PER_DEGREE * np.cos(np.radians(self.lat))
        return east, (np.asarray(lat) - self.lat) * METRES_PER_DEGREE

    def _field(self, east: np.ndarray, north: np.ndarray, key: int, wavelength: float) -> np.ndarray:
        """A smooth random field of unit variance: a sum of plane waves."""
        rng = np.random.default_rng([self.seed, key])
        angle, phase = rng.uniform(0, 2 * np.pi, (2, 8))
        number = 2 * np.pi / (wavelength * rng.uniform(0.7, 1.6, 8))
        total = np.zeros(np.broadcast(east, north).shape)
        for a, p, k in zip(angle, phase, number, strict=True):
            total += np.cos(k * (np.cos(a) * east + np.sin(a) * north) + p)
        return total / 2.0

    def classes(self, lon: np.ndarray, lat: np.ndarray, year: int) -> np.ndarray:
        """Land cover, uint8: 1 is the first of ``names``.

        Parameters
        ----------
        lon, lat : ndarray
            Degrees; shapes that broadcast.
        year : int
            Year of the landscape.
        """
        east, north = self._metres(lon, lat)
        relief = self._field(east, north, 0, 2600.0)
        moisture = self._field(east, north, 1, 1800.0)
        out = np.full(relief.shape, self.names.index("grassland") + 1, np.uint8)
        out[relief > 0.55] = self.names.index("forest") + 1
        # fields: parcels of 180 × 130 m along a turned grid, one crop each
        u = np.floor((0.94 * east + 0.34 * north) / 180.0).astype(np.int64)
        v = np.floor((-0.34 * east + 0.94 * north) / 130.0).astype(np.int64)
        parcel = (u * 73_856_093 ^ v * 19_349_663 ^ self.seed) & 0xFF
        fields = (relief < 0.1) & (moisture > -0.35)
        out[fields & (parcel < 100)] = self.names.index("maize") + 1
        out[fields & (parcel >= 156)] = self.names.index("wheat") + 1
        out[(relief < 0.3) & (self._field(east, north, 2, 1500.0) > 1.15)] = self.names.index("built-up") + 1
        out[np.abs(self._field(east, north, 3, 5000.0) - 0.2) < 0.045] = self.names.index("water") + 1
        for event in self.events:
            if year >= event.year:
                inside = np.hypot(east - event.east, north - event.north) < event.radius
                out[inside & (out == self.names.index(event.before) + 1)] = self.names.index(event.after) + 1
        return out

    def vectors(
        self, lon: np.ndarray, lat: np.ndarray, year: int, dims: int, *, unit: bool = True
    ) -> np.ndarray:
        """Embedding vectors, float32, shape ``(dims, …)``.

        A class has a direction of its own, the terrain bends it slowly, and every pixel and year adds noise. NaN
        under clouds.

        Parameters
        ----------
        lon, lat : ndarray
            Degrees.
        year : int
            Year of the landscape.
        dims : int
            Length of a vector.
        unit : bool
            Unit length; else about 30, as Tessera's.
        """
        classes = self.classes(lon, lat, year)
        east, north = self._metres(lon, lat)
        prototypes, textures = self._directions(dims)
        out = prototypes[classes - 1].astype(np.float32)
        if self.blur:
            for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                beside = np.asarray(lat) + y * self.blur / METRES_PER_DEGREE
                along = np.asarray(lon) + x * self.blur / METRES_PER_DEGREE / np.cos(np.radians(self.lat))
                out += prototypes[self.classes(along, beside, year) - 1].astype(np.float32)
            out /= 5
        if self.variety:
            out += self._deviations(east, north, year, dims)
        for k, direction in enumerate(textures):
            out += (0.18 * self._field(east, north, 10 + k, 900.0 * (k + 1)))[..., None].astype(
                "f4"
            ) * direction
        rng = np.random.default_rng([self.seed, year, classes.size, int(abs(lon.flat[0]) * 1e6)])
        out += rng.standard_normal(out.shape, np.float32) * np.float32(self.noise / np.sqrt(dims))
        length = np.linalg.norm(out, axis=-1, keepdims=True)
        scale = 1.0 if unit else FREE_NORM * (1 + 0.05 * self._field(east, north, 20, 1200.0))[..., None]
        out *= (scale / length).astype(np.float32)
        if self.clouds:
            cover = self._field(east, north, 1000 + year, 450.0)
            out[cover > NormalDist().inv_cdf(1 - self.clouds)] = np.nan
        return np.moveaxis(out, -1, 0)

    def _deviations(self, east: np.ndarray, north: np.ndarray, year: int, dims: int) -> np.ndarray:
        """How places differ from their class: along eleven directions in every year alike, along one not."""
        rng = np.random.default_rng([self.seed, 98])
        directions = rng.standard_normal((12, max(dims, 1))).astype(np.float32)
        directions *= self.variety / np.linalg.norm(directions, axis=1, keepdims=True)
        out = np.zeros((*np.broadcast(east, north).shape, directions.shape[1]), np.float32)
        for k, direction in enumerate(directions):
            lasts = k < 11
            key, size = (100 + k, 1.0) if lasts else (100 * year + k, 0.6)
            out += (size * self._field(east, north, key, 400.0))[..., None].astype(np.float32) * direction
        return out

    def _directions(self, dims: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, 99])
        raw = rng.standard_normal((len(self.names) + 3, max(dims, 1)))
        raw /= np.linalg.norm(raw, axis=1, keepdims=True)
        if self.alike:
            plants = [self.names.index(name) for name in ("forest", "grassland", "maize", "wheat")]
            raw[plants] += self.alike * raw[plants].mean(axis=0) / np.linalg.norm(raw[plants].mean(axis=0))
            raw[plants] /= np.linalg.norm(raw[plants], axis=1, keepdims=True)
        return raw[: len(self.names)], raw[len(self.names) :].astype(np.float32)

    def truth(self, geobox: GeoBox, years: int | Sequence[int]) -> xr.DataArray:
        """The land cover that the scene has on a grid, as a class map.

        Parameters
        ----------
        geobox : GeoBox
            The grid of the result.
        years : int or sequence of int
            One year gives ``(y, x)``, several ``(time, y, x)``.
        """
        lon, lat = lonlat_of(geobox)
        many = [years] if isinstance(years, int) else list(years)
        data = np.stack([self.classes(lon, lat, y) for y in many])
        coords: dict[str, Any] = {**geometry.grid_coords(geobox), "time": times.times_of_years(many)}
        attrs = {
            "flag_values": list(range(1, len(self.names) + 1)),
            "flag_meanings": " ".join(self.names),
            "derived_from": "synthetic scene",
        }
        out = xr.DataArray(data, dims=("time", "y", "x"), coords=coords, name="land_cover", attrs=attrs)
        return out.isel(time=0) if isinstance(years, int) else out

    def points(
        self, n: int = 120, *, year: int = 2018, seed: int = 0, radius: float = 1200.0
    ) -> pd.DataFrame:
        """Labelled points: a table with ``lon``, ``lat``, ``year`` and ``land_cover``.

        Parameters
        ----------
        n : int
            Number of points, drawn evenly over the classes that occur.
        year : int
            Year of the landscape that they label.
        seed : int
            Seed of the draw.
        radius : float
            Half the side of the square they lie in, in metres.
        """
        rng = np.random.default_rng(seed)
        east, north = rng.uniform(-radius, radius, (2, 40 * n))
        lat = self.lat + north / METRES_PER_DEGREE
        lon = self.lon + east / (METRES_PER_DEGREE * np.cos(np.radians(self.lat)))
        classes = self.classes(lon, lat, year)
        rank = pd.Series(classes).groupby(classes).cumcount().to_numpy()
        chosen = np.sort(np.lexsort((classes, rank))[:n])
        return pd.DataFrame(
            {
                "lon": lon[chosen],
                "lat": lat[chosen],
                "year": year,
                "land_cover": [self.names[c - 1] for c in classes[chosen]],
            }
        )


_SCENES = {
    "clear": Scene(),
    # a probe on 120 labels scores here as probes do on real vectors, and change is missed
    "lifelike": Scene(
        noise=0.12,
        variety=0.1,
        alike=3.8,
        blur=7.0,
        clouds=0.015,
        events=(*Scene.events, Event(2022, 250.0, 100.0, 450.0, "maize", "wheat")),
    ),
}
_SHOWN: ContextVar[str] = ContextVar("scene", default="clear")


def scene(name: Literal["clear", "lifelike"] | None = None) -> Scene:
    """The scene that examples show.

    Parameters
    ----------
    name : {"clear", "lifelike"}, optional
        ``clear`` is easy: classes are told apart without a mistake. ``lifelike`` has noise, mixed pixels, variety
        within classes and holes of clouds, so that scores are those of real vectors. By default the one that
        :func:`showing` says, which is clear.

    Raises
    ------
    ValueError
        For an unknown scene.

    Examples
    --------
    >>> scene("lifelike").clouds
    0.015
    """
    return _SCENES[check_choice("scene", _SHOWN.get() if name is None else name, _SCENES)]


@contextmanager
def showing(name: Literal["clear", "lifelike"]) -> Iterator[Scene]:
    """Let everything made meanwhile, in this thread, show that scene."""
    token = _SHOWN.set(check_choice("scene", name, _SCENES))
    try:
        yield scene()
    finally:
        _SHOWN.reset(token)


def lonlat_of(geobox: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude of every pixel of a grid, shape (y, x)."""
    rows, cols = geobox.shape
    c, r = np.meshgrid(np.arange(cols) + 0.5, np.arange(rows) + 0.5)
    x, y = geobox.affine * (c, r)
    to_lonlat = geometry.transformer(geometry.as_crs(geobox.crs), geometry.as_crs(geometry.LONLAT))
    lon, lat = to_lonlat.transform(x, y)
    return np.asarray(lon), np.asarray(lat)


def geobox(
    shape: tuple[int, int] = (64, 64),
    *,
    crs: object = "EPSG:32632",
    resolution: float = 10.0,
    offset: tuple[float, float] = (0.0, 0.0),
) -> GeoBox:
    """A grid around the scene's centre, edges on multiples of the resolution.

    Parameters
    ----------
    shape : (int, int)
        Height and width in pixels.
    crs : CRS
        CRS of the grid.
    resolution : float
        Size of a pixel in units of the CRS.
    offset : (float, float)
        Shift of the centre to the east and north, in units of the CRS.

    Examples
    --------
    >>> geobox((64, 48)).shape
    Shape2d(x=48, y=64)
    """
    here = scene()
    x, y = geometry.transformer(geometry.as_crs(geometry.LONLAT), geometry.as_crs(crs)).transform(
        here.lon, here.lat
    )
    left = np.round((x + offset[0]) / resolution - shape[1] / 2) * resolution
    top = np.round((y + offset[1]) / resolution + shape[0] / 2) * resolution
    affine = Affine(resolution, 0, float(left), 0, -resolution, float(top))
    return geometry.make_geobox(shape, affine, crs)


def synthetic(
    product: str | Product = "alphaearth",
    *,
    shape: tuple[int, int] = (64, 64),
    years: Sequence[int] = (2018,),
    grid: GeoBox | None = None,
    decode: bool = True,
    chunks: int | None = None,
    missing: bool = False,
    south_up: bool = False,
) -> xr.DataArray:
    """An embedding array of the scene, in memory or dask-backed.

    Parameters
    ----------
    product : str or Product
        Product whose bands, codec and norm it has.
    shape : (int, int)
        Height and width, in pixels of 10 m.
    years : sequence of int
        The times.
    grid : GeoBox, optional
        Instead of ``shape``.
    decode : bool
        Vectors; else codes where the product has a codec.
    chunks : int, optional
        Side of dask blocks; NumPy by default.
    missing : bool
        Whether a corner has no data.
    south_up : bool
        Rows from south to north, as some stores have them.

    Returns
    -------
    DataArray (time, band, y, x)

    Examples
    --------
    >>> synthetic("alphaearth", shape=(8, 9)).sizes
    Frozen({'time': 1, 'band': 64, 'y': 8, 'x': 9})
    """
    found = find_product(product)
    grid = geobox(shape) if grid is None else grid
    lon, lat = lonlat_of(grid)
    unit = found.unit_norm
    data = np.stack([scene().vectors(lon, lat, y, found.dims, unit=unit) for y in years])
    if not unit and found.codec is not None and found.codec.name in _STORED:
        factor, offset = _STORED[found.codec.name]
        data = data * np.float32(factor / FREE_NORM) + np.float32(offset)
    if missing:
        data[..., : max(grid.shape[0] // 4, 1), : max(grid.shape[1] // 4, 1)] = np.nan
    vectors = xr.DataArray(
        data,
        dims=("time", BAND, "y", "x"),
        coords={"time": times.times_of_years(years), BAND: list(found.decoded_bands)},
    )
    wrapped = wrapping.wrap(vectors, found, geobox=grid, version="synthetic")
    wrapped.attrs["source"] = "synthetic scene"
    if found.codec is not None:  # what a store of codes would have kept
        encoded = arrays.encode(wrapped)
        wrapped = arrays.decode(encoded) if decode else encoded
    if south_up:
        wrapped = wrapped.isel(y=slice(None, None, -1))
    if chunks is not None:
        wrapped = wrapped.chunk({"time": 1, BAND: -1, "y": chunks, "x": chunks})
    return wrapped


#: Reflectance of the scene's classes in bands of Sentinel-2 at 10 m, roughly as they are in June.
_SPECTRA = {
    "B02": (0.06, 0.03, 0.05, 0.12, 0.06, 0.07),
    "B03": (0.06, 0.05, 0.08, 0.14, 0.08, 0.10),
    "B04": (0.04, 0.03, 0.06, 0.16, 0.05, 0.12),
    "B08": (0.02, 0.32, 0.38, 0.22, 0.45, 0.30),
}


def images(
    shape: tuple[int, int] = (256, 256),
    *,
    dates: Sequence[str] = (),
    bands: Sequence[str] = tuple(_SPECTRA),
    grid: GeoBox | None = None,
    chunks: int | None = None,
) -> xr.DataArray:
    """Pictures of the scene as Sentinel-2 might have taken them: surface reflectance, a season, a little noise.

    Parameters
    ----------
    shape : (int, int)
        Height and width, in pixels of 10 m.
    dates : sequence of str
        Days; the landscape is that of their year. None gives one picture without time.
    bands : sequence of str
        Any names: those that the scene has no spectrum of get one made up from their name.
    grid : GeoBox, optional
        Instead of ``shape``.
    chunks : int, optional
        Side of dask blocks; NumPy by default.

    Returns
    -------
    DataArray (time?, band, y, x)

    Examples
    --------
    >>> images((8, 9), dates=["2024-04-01", "2024-07-01"]).sizes
    Frozen({'time': 2, 'band': 4, 'y': 8, 'x': 9})
    """
    grid = geobox(shape) if grid is None else grid
    lon, lat = lonlat_of(grid)
    days = pd.DatetimeIndex(list(dates) or ["2024-06-21"])
    data = np.empty((len(days), len(bands), *grid.shape), np.float32)
    for i, day in enumerate(days):
        rng = np.random.default_rng([scene().seed, day.day_of_year, day.year])
        classes = scene().classes(lon, lat, day.year) - 1
        green = 0.6 + 0.4 * np.cos((day.day_of_year - 172) * 2 * np.pi / 365)
        for k, name in enumerate(bands):
            made_up = np.random.default_rng(list(name.encode())).uniform(0.05, 0.4, len(scene().names))
            spectrum = np.asarray(_SPECTRA.get(name, made_up))
            data[i, k] = spectrum[classes] * green + rng.normal(0, 0.01, grid.shape)
    coords = {**geometry.grid_coords(grid), BAND: list(bands), "time": days.to_numpy("datetime64[ns]")}
    attrs = {"source": "synthetic scene", "units": "1"}
    out = xr.DataArray(
        data.clip(0.001), dims=("time", BAND, "y", "x"), coords=coords, name="images", attrs=attrs
    )
    out = out if dates else out.isel(time=0, drop=True)
    return out if chunks is None else out.chunk({BAND: -1, "y": chunks, "x": chunks})
