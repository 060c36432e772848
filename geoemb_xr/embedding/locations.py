"""Location encoders: networks that turn a place into a vector, evaluated lazily on any grid or points."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoemb_xr.core import areas, geometry
from geoemb_xr.core.errors import CoverageError, SourceError, require
from geoemb_xr.core.model import BAND, Product
from geoemb_xr.embedding import programs
from geoemb_xr.geo import places
from geoemb_xr.readers.tiles import Request, block_sides

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: Default pixel, in degrees: about a kilometre.
RESOLUTION = 0.01
#: Places that go through the network at once. Always so many, the last batch filled up: the bits of a matrix
#: product depend on its shape, and a value must not depend on how a grid is cut.
BATCH = 512
#: Places in a block of points.
_POINTS = 65_536

#: Loads the weights, once a process, when the first block is computed.
Load = Callable[[], Any]


def open_encoder(
    load: Load, request: Request, product: Product, *, lonlat: bool, source: str
) -> xr.DataArray:
    """Open an encoder's vectors on the grid, area or points of a request. Nothing is loaded yet.

    Parameters
    ----------
    load : callable
        ``() -> torch module`` with its weights; at module level and hashable, so that workers can import it and
        each process loads it once.
    request : Request
        Its points, or its grid, or its area with pixels of 0.01 degrees.
    product : Product
        The encoder's.
    lonlat : bool
        Whether the network takes (longitude, latitude), else (latitude, longitude).
    source : str
        Where the weights come from, for the attributes.

    Returns
    -------
    DataArray (band, y, x) or (location, band)
        float32, lazy.

    Raises
    ------
    CoverageError
        If the request says no place.
    SourceError
        If it asks for a time: a location encoder has none.
    """
    if request.time is not None:
        raise SourceError(f"{product.name!r} is a function of the place alone: leave out time=")
    attrs = {
        "product": product.name,
        "version": request.version or (product.versions[0] if product.versions else ""),
        "source": source,
    }
    if request.points is not None:
        return _at_points(load, request, product, lonlat, attrs)
    geobox = request.geobox
    if geobox is None:
        if request.area is None:
            raise CoverageError(
                f"{product.name!r} is a function of the place: say where, with bbox=, geobox=, like= or points="
            )
        geobox = areas.snapped_geobox(request.area, geometry.LONLAT, RESOLUTION)
    return _on_grid(load, geometry.north_up(geobox), request, product, lonlat, attrs)


def _on_grid(
    load: Load, geobox: GeoBox, request: Request, product: Product, lonlat: bool, attrs: dict[str, Any]
) -> xr.DataArray:
    import dask.array as da

    coords = geometry.grid_coords(geobox)
    sides = block_sides(request.chunks)
    data = da.blockwise(
        _grid_block,
        "byx",
        da.from_array(coords["y"].values, chunks=sides["y"]),
        "y",
        da.from_array(coords["x"].values, chunks=sides["x"]),
        "x",
        load,
        None,
        geometry.as_crs(geobox.crs).to_wkt(),
        None,
        lonlat,
        None,
        new_axes={"b": product.dims},
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
        token=f"encode-{product.name}",
    )
    named = {BAND: list(product.bands), **coords}
    return xr.DataArray(data, dims=(BAND, "y", "x"), coords=named, attrs=attrs, name="embedding")


def _grid_block(y: np.ndarray, x: np.ndarray, load: Load, crs: str, lonlat: bool) -> np.ndarray:
    px, py = np.meshgrid(x, y)
    vectors = _encode(load, px.ravel(), py.ravel(), crs, lonlat)
    # band last in memory: kernels take it as it is
    return np.moveaxis(vectors.reshape(y.size, x.size, -1), -1, 0)


def _at_points(
    load: Load, request: Request, product: Product, lonlat: bool, attrs: dict[str, Any]
) -> xr.DataArray:
    import dask.array as da

    points = places.read_places(request.points)
    lon, lat = points.xy(geometry.LONLAT)
    asked = request.chunks
    size = asked if isinstance(asked, int) and asked > 0 else _POINTS
    data = da.blockwise(
        _points_block,
        "lb",
        da.from_array(lon, chunks=size),
        "l",
        da.from_array(lat, chunks=size),
        "l",
        load,
        None,
        lonlat,
        None,
        new_axes={"b": product.dims},
        dtype=np.float32,
        meta=np.empty((0, 0), np.float32),
        token=f"encode-{product.name}",
    )
    index, columns = points.riding()
    taken = {"x", "y", "location", BAND, geometry.SPATIAL_REF}
    coords = {
        "location": index,
        BAND: list(product.bands),
        "x": ("location", lon),
        "y": ("location", lat),
        **{name: ("location", values) for name, values in columns.items() if name not in taken},
        geometry.SPATIAL_REF: geometry.crs_coord(geometry.LONLAT),
    }
    return xr.DataArray(data, dims=("location", BAND), coords=coords, attrs=attrs, name="embedding")


def _points_block(lon: np.ndarray, lat: np.ndarray, load: Load, lonlat: bool) -> np.ndarray:
    return _encode(load, lon, lat, geometry.LONLAT, lonlat)


def open_program(source: Any, request: Request, product: Product, *, files: str) -> xr.DataArray:
    """Vectors of an encoder of (latitude, longitude) that comes as a program: a file of ONNX or ``torch.export``.

    Parameters
    ----------
    source : path
        Source of the file.
    request : Request
        See :func:`open_encoder`.
    product : Product
        The encoder's: of what the program gives, the first ``dims`` numbers are its vector.
    files : str
        Names of the files, and where to get them.

    Raises
    ------
    SourceError
        If there is no such file.
    """
    path = Path("" if source is None else os.fspath(source))
    if path.suffix not in programs.SUFFIXES or not path.is_file():
        raise SourceError(
            f"the weights of {product.name!r} come from a file: download {files}, and give its path as source; got "
            f"{source!r}"
        )
    load = partial(_prefix_of, path, product.dims)
    return open_encoder(load, request, product, lonlat=False, source=str(path))


def _prefix_of(path: Path, dims: int) -> Any:
    """The prefix length of a program whose vectors are truncated."""
    torch = require("torch", "torch")
    program = programs.load_program(path)

    class Prefix(torch.nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """The first numbers of what the program gives."""

        def __init__(self) -> None:
            super().__init__()
            self.program = program

        def forward(self, latlon: Any) -> Any:
            found = self.program(latlon)
            if found.ndim != 2 or found.shape[1] < dims:
                raise SourceError(
                    f"{path} gives {tuple(found.shape)} for {len(latlon)} places; at least {dims} numbers for each "
                    "are expected"
                )
            return found[:, :dims].float()

    return Prefix().eval()


def vectors_at(load: Load, places: np.ndarray, *, lonlat: bool) -> np.ndarray:
    """Vectors ``(n, band)`` of longitudes and latitudes ``(n, 2)``, at once."""
    x, y = np.asarray(places, np.float64).T
    return _encode(load, x, y, geometry.LONLAT, lonlat)


_models: dict[Load, tuple[Any, str]] = {}
_lock = threading.Lock()


def _loaded(load: Load) -> tuple[Any, str]:
    """The network and its device. It stays in the process: tasks carry only how to load it."""
    import torch

    with _lock:
        if load not in _models:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            _models[load] = (load().to(device), device)
    return _models[load]


def _encode(load: Load, x: np.ndarray, y: np.ndarray, crs: str, lonlat: bool) -> np.ndarray:
    """Vectors of places (n, dims), on a GPU where there is one; NaN where a place has no coordinates."""
    import torch

    if not geometry.same_crs(crs, geometry.LONLAT):
        to_lonlat = geometry.transformer(geometry.as_crs(crs), geometry.as_crs(geometry.LONLAT))
        x, y = to_lonlat.transform(x, y, errcheck=False)
    x = (np.asarray(x) + 180.0) % 360.0 - 180.0  # grids across the antimeridian run on past 180
    pairs = np.stack([x, y] if lonlat else [y, x], axis=1).astype(np.float32)
    valid = np.isfinite(pairs).all(axis=1)
    pairs = np.where(valid[:, None], pairs, np.float32(0))
    model, device = _loaded(load)
    with torch.inference_mode():
        full = np.pad(pairs, ((0, -len(pairs) % BATCH), (0, 0)))
        batches = torch.from_numpy(full).to(device).reshape(-1, BATCH, 2)
        out = np.concatenate([model(batch).cpu().numpy() for batch in batches])[: len(pairs)]
    out[~valid] = np.nan
    return np.asarray(out, np.float32)
