"""GeoTIFF files as tiles: what every product that ships as GeoTIFF shares.

Handles stay open per thread, so that neighbouring windows of one file find its blocks in GDAL's cache.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import SourceError
from geoemb_xr.readers.tiles import Tile
from geoemb_xr.stores.objects import is_remote

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: How GDAL should read from object stores: published practice, and no account.
REMOTE_ENV: Mapping[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": 32768,
    "GDAL_HTTP_MAX_RETRY": 5,
    "GDAL_HTTP_RETRY_DELAY": 1,
    "GDAL_HTTP_RETRY_CODES": "429,500,502,503,504",
    "GDAL_HTTP_TIMEOUT": 120,
    "AWS_NO_SIGN_REQUEST": "YES",
    "AWS_VIRTUAL_HOSTING": "FALSE",  # bucket names with dots
    "AWS_REGION": "us-west-2",
    "GS_NO_SIGN_REQUEST": "YES",
}
_MAX_OPEN = 24
_local = threading.local()


def _environment(path: str) -> Any:
    import rasterio

    # Credentials that the user has set up win: only what is missing is filled in.
    missing = {k: v for k, v in REMOTE_ENV.items() if k not in os.environ}
    return rasterio.Env(**missing) if is_remote(path) else nullcontext()


def _dataset(path: str, token: str) -> Any:
    """An open dataset of this thread; the least recently used is closed when there are many."""
    import rasterio

    opened: OrderedDict[tuple[str, str], Any] = _local.__dict__.setdefault("opened", OrderedDict())
    key = (path, token)
    if key in opened:
        opened.move_to_end(key)
        return opened[key]
    opened[key] = rasterio.open(path)
    while len(opened) > _MAX_OPEN:
        opened.popitem(last=False)[1].close()
    return opened[key]


@dataclass(frozen=True)
class GeoTiffReader:
    """Reads windows of some bands of a GeoTIFF.

    Parameters
    ----------
    path : str
        File or URL.
    indexes : tuple of int
        GDAL band numbers, from 1.
    plane : bool
        Whether the single band is a plane without a band axis.
    by_time : bool
        Whether each band is a time step of one code band (ESD).
    token : str
        Of the file's state, so that a rewritten file is opened anew.
    """

    path: str
    indexes: tuple[int, ...]
    plane: bool = False
    by_time: bool = False
    token: str = ""

    def read(self, time: int, rows: slice, cols: slice) -> np.ndarray:
        """A window (band, y, x), or (y, x) for a plane."""
        from rasterio.windows import Window

        window = Window.from_slices(rows, cols)
        with _environment(self.path):
            dataset = _dataset(self.path, self.token)
            if self.by_time:
                return np.asarray(dataset.read([self.indexes[time]], window=window))
            if self.plane:
                return np.asarray(dataset.read(self.indexes[0], window=window))
            return np.asarray(dataset.read(list(self.indexes), window=window))


@dataclass(frozen=True)
class GeoTiffInfo:
    """What a GeoTIFF's header says."""

    path: str
    geobox: Any
    count: int
    dtype: str
    nodata: float | None
    block: tuple[int, int]
    tags: Mapping[str, str]
    descriptions: tuple[str, ...]
    token: str


def read_info(path: str | os.PathLike[str]) -> GeoTiffInfo:
    """Read the header of a GeoTIFF.

    Raises
    ------
    FileNotFoundError
        If a local file is not there.
    SourceError
        If it cannot be opened, or has no CRS.
    """
    name = os.fspath(path)
    if is_remote(name):
        return _read_info(name, name)
    if not Path(name).exists():
        raise FileNotFoundError(f"no such file: {name}")
    return _read_info(name, file_token(name))


@lru_cache(maxsize=8192)
def _read_info(name: str, token: str) -> GeoTiffInfo:
    import rasterio

    try:
        with _environment(name), rasterio.open(name) as dataset:
            if dataset.crs is None:
                raise SourceError(f"{name} has no CRS: it does not say where it lies")
            geobox = geometry.make_geobox(dataset.shape, dataset.transform, dataset.crs.to_wkt())
            return GeoTiffInfo(
                path=name,
                geobox=geobox,
                count=dataset.count,
                dtype=str(dataset.dtypes[0]),
                nodata=dataset.nodata,
                block=(int(dataset.block_shapes[0][0]), int(dataset.block_shapes[0][1])),
                tags=dict(dataset.tags()),
                descriptions=tuple(d or "" for d in dataset.descriptions),
                token=token,
            )
    except rasterio.errors.RasterioError as error:
        raise SourceError(f"{name} could not be opened as a GeoTIFF: {error}") from error


def file_token(path: str) -> str:
    """Size and modification time of a local file; of a remote one the URL must do."""
    if is_remote(path):
        return path
    stat = os.stat(path)
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def check_bands(info: GeoTiffInfo, product: str, count: int, dtypes: Sequence[str]) -> None:
    """Raise unless a file has the bands that its product has.

    Raises
    ------
    SourceError
        Naming the file and what is wrong.
    """
    if info.count != count:
        raise SourceError(f"{info.path} has {info.count} bands; a file of {product!r} has {count}")
    if info.dtype not in dtypes:
        raise SourceError(
            f"{info.path} holds {info.dtype}; a file of {product!r} holds {' or '.join(dtypes)}"
        )


def _upright(info: GeoTiffInfo) -> GeoBox:
    try:
        return geometry.upright(info.geobox)
    except ValueError as error:
        raise SourceError(f"{info.path}: {error}") from error


def geotiff_tile(
    info: GeoTiffInfo,
    *,
    times: Sequence[str],
    bands: Sequence[str],
    dtype: str | None = None,
    fill: float | None = None,
    indexes: Sequence[int] | None = None,
    version: str = "",
    by_time: bool = False,
    beside: Mapping[str, Tile] | None = None,
) -> Tile:
    """A tile of a GeoTIFF whose header was read.

    Parameters
    ----------
    info : GeoTiffInfo
        Of :func:`read_info`.
    times : sequence of str
        ISO dates of what it holds.
    bands : sequence of str
        Labels of the bands read; empty for a plane.
    dtype : str, optional
        What the blocks are cast to; as stored by default.
    fill : float, optional
        Nodata; the file's own by default, NaN for floats without one, else 0.
    indexes : sequence of int, optional
        GDAL band numbers; all by default.
    version : str
        Of the product.
    by_time : bool
        Whether each band is a time step.
    beside : mapping, optional
        Planes that belong to it.
    """
    stored = dtype or info.dtype
    if fill is None:
        floats = np.issubdtype(np.dtype(stored), np.floating)
        fill = float("nan") if floats else (info.nodata if info.nodata is not None else 0)
    numbers = tuple(indexes) if indexes is not None else tuple(range(1, info.count + 1))
    return Tile(
        name=info.path,
        geobox=_upright(info),
        times=tuple(times),
        reader=GeoTiffReader(info.path, numbers, plane=not bands, by_time=by_time, token=info.token),
        dtype=stored,
        bands=tuple(bands),
        block=info.block,
        fill=fill,
        token=info.token,
        version=version,
        beside=dict(beside or {}),
    )


def write_geotiff(
    path: str | os.PathLike[str],
    data: np.ndarray,
    geobox: Any,
    *,
    nodata: float | None = None,
    descriptions: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    **options: Any,
) -> Path:
    """Write a small GeoTIFF, for example sources; rows lie as in ``data`` and ``geobox``.

    Parameters
    ----------
    path : path
        Folders are made.
    data : ndarray (band, y, x)
        Values.
    geobox : GeoBox
        North-up or south-up.
    nodata : float, optional
        The tag.
    descriptions : sequence of str
        Names of the bands.
    tags : mapping, optional
        Metadata.
    **options : object
        GDAL creation options.
    """
    import rasterio

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff",
        "count": data.shape[0],
        "height": data.shape[1],
        "width": data.shape[2],
        "dtype": str(data.dtype),
        "crs": geometry.as_crs(geobox.crs).to_wkt(),
        "transform": geobox.affine,
        "nodata": nodata,
        "tiled": True,
        **options,
    }
    with rasterio.open(target, "w", **profile) as dataset:
        dataset.write(data)
        for i, name in enumerate(descriptions):
            dataset.set_band_description(i + 1, name)
        if tags:
            dataset.update_tags(**tags)
    return target
