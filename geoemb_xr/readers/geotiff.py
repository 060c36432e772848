"""GeoTIFF files as tiles: what every product that ships as GeoTIFF shares.

The header is believed: bands lie where their descriptions say, missing is what nodata and mask say, and a file
that does not say where it lies is refused. Handles stay open per thread, so that neighbouring windows of one file
find its blocks in GDAL's cache.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoemb_xr.core import geometry
from geoemb_xr.core.band_names import places_by_name, refuse_contradiction
from geoemb_xr.core.errors import MissingFileError, SourceError
from geoemb_xr.core.missing import believe_scaling, mark_missing, refuse_codes, scaling_in
from geoemb_xr.core.notes import say
from geoemb_xr.execution.threads import threads_of_gdal
from geoemb_xr.readers import cogs
from geoemb_xr.readers.block_cache import kept_of
from geoemb_xr.readers.damage import naming_damage
from geoemb_xr.readers.header_checks import check_extent
from geoemb_xr.readers.tiles import Tile
from geoemb_xr.stores.checksums import checksums_of
from geoemb_xr.stores.credentials import DEFAULT_REGION, gdal_options
from geoemb_xr.stores.files import check_unchanged, object_now, remote_object, state_of_file
from geoemb_xr.stores.objects import head_object, is_remote
from geoemb_xr.stores.paths import refuse_store

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: How GDAL reads from file systems of its own (``/vsis3/…``), which a path may name: as is published, no account.
REMOTE_ENV: Mapping[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": 32768,
    "GDAL_HTTP_MAX_RETRY": 10,
    "GDAL_HTTP_RETRY_DELAY": 1,
    "GDAL_HTTP_RETRY_CODES": "429,500,502,503,504",
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_LOW_SPEED_TIME": 10,  # a connection that stalls is noticed
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
    "GDAL_NUM_THREADS": 2,  # blocks of a window are decoded side by side while others are on their way
    "AWS_NO_SIGN_REQUEST": "YES",
    "AWS_VIRTUAL_HOSTING": "FALSE",  # bucket names with dots
    "AWS_REGION": DEFAULT_REGION,
    "GS_NO_SIGN_REQUEST": "YES",
}
_MAX_OPEN = 24
_local = threading.local()


def _environment(path: str) -> Any:
    import rasterio

    if not is_remote(path):
        return nullcontext()
    threads = threads_of_gdal(REMOTE_ENV["GDAL_NUM_THREADS"])
    return rasterio.Env(**gdal_options({**REMOTE_ENV, "GDAL_NUM_THREADS": threads}))


#: A raster lies where its own header says; what lies beside it (``.aux.xml``, a world file) does not move it.
OWN_PLACE = "INTERNAL"
_ANY_PLACE = "INTERNAL,PAM,WORLDFILE"


def open_geotiff(path: str, *, place: str = OWN_PLACE, level: int | None = None) -> Any:
    """A dataset of rasterio's, of a file that is a GeoTIFF whatever its name.

    Any other driver is refused: a VRT called ``.tif`` would read whatever file or URL it names.

    Raises
    ------
    SourceError
        If it cannot be opened as one.
    """
    import rasterio

    if cogs.is_object(path):
        return cogs.dataset_of(path, GEOREF_SOURCES=OWN_PLACE, **cogs.of_level(level))
    try:
        return rasterio.open(path, driver="GTiff", GEOREF_SOURCES=place, **cogs.of_level(level))
    except rasterio.errors.RasterioError as error:
        raise SourceError(f"{path} could not be opened as a GeoTIFF: {error}") from error


def _dataset(path: str, token: str, level: int | None = None) -> Any:
    """An open dataset of this thread; the least recently used is closed when there are many."""
    opened: OrderedDict[Any, Any] = _local.__dict__.setdefault("opened", OrderedDict())
    key = (path, token, level)
    if key in opened:
        opened.move_to_end(key)
        return opened[key]
    opened[key] = open_geotiff(path, level=level)
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
        Token of the file's state, so that a rewritten file is opened anew.
    fill : float, optional
        The value of missing vectors here; by default values are left as they are stored.
    nodata : float, optional
        The value of missing vectors in the file, where it differs.
    masked : bool
        Whether the file has a mask band.
    alpha : int
        Number of the alpha band that masks, 0 where there is none.
    level : int, optional
        Number of the overview that is read, from 0.
    vectors_of : str
        Name of the product, where the file holds vectors as floats and its codes in their place are refused.
    """

    path: str
    indexes: tuple[int, ...]
    plane: bool = False
    by_time: bool = False
    token: str = ""
    fill: float | None = None
    nodata: float | None = None
    masked: bool = False
    alpha: int = 0
    level: int | None = None
    vectors_of: str = ""

    def read(self, time: int, rows: slice, cols: slice) -> np.ndarray:
        """A window (band, y, x), or (y, x) for a plane."""
        from rasterio.windows import Window

        bands = [self.indexes[time]] if self.by_time else list(self.indexes)
        read = partial(self._read, bands)
        if cogs.is_object(self.path):
            touched = [*bands, *([self.alpha] if self.alpha else [])]
            kind = (self.plane, self.fill, self.nodata, self.masked, self.alpha)
            return cogs.read_window(self.path, self.token, touched, rows, cols, read, kind, self.level)
        with _environment(self.path):
            if not is_remote(self.path):
                check_unchanged(self.path, self.token)
            dataset = _dataset(self.path, self.token, self.level)
            self._check(dataset, bands, rows, cols)
            return read(dataset, Window.from_slices(rows, cols))

    def _check(self, dataset: Any, bands: Sequence[int], rows: slice, cols: slice) -> None:
        """Look whether the blocks that a window touches are as they were written, where the file tells."""
        sums = None if is_remote(self.path) else checksums_of(self.path, self.token)
        if sums is not None and sums.left:
            touched, block = [*bands, *([self.alpha] if self.alpha else [])], dataset.block_shapes[0]
            sums.check(
                cogs.spans_of(dataset, touched, (rows.start, rows.stop), (cols.start, cols.stop), block)
            )

    def transfer(self, spans: Sequence[tuple[int, slice, slice]]) -> tuple[int, int]:
        """Requests and bytes of windows: each stored block once, as the header says where it lies."""
        bands = {step: [self.indexes[step]] if self.by_time else list(self.indexes) for step, *_ in spans}
        touched = [(bands[step] + [self.alpha] * bool(self.alpha), rows, cols) for step, rows, cols in spans]
        if cogs.is_object(self.path):
            return cogs.transfer(self.path, self.token, touched, self.level)
        with _environment(self.path):
            return cogs.transfer_of(_dataset(self.path, self.token, self.level), touched)

    def overviews(self) -> list[int]:
        """The width of each overview's pixels in pixels of the raster, from the header."""
        if cogs.is_object(self.path):
            with cogs.opened(remote_object(self.path, self.token)) as (dataset, _):
                return [int(factor) for factor in dataset.overviews(self.indexes[0])]
        with _environment(self.path):
            return [int(n) for n in _dataset(self.path, self.token).overviews(self.indexes[0])]

    def kept(self, transferred: int, read: int) -> int:
        """Bytes of blocks of remote files that stay in the cache after reading."""
        return kept_of(transferred, read) if cogs.is_object(self.path) else 0

    def _read(self, bands: list[int], dataset: Any, window: Any) -> np.ndarray:
        if self.plane:
            return np.asarray(dataset.read(self.indexes[0], window=window))
        values = np.asarray(dataset.read(bands, window=window))
        masked = None
        if self.alpha:  # read as it is: GDAL takes it for a mask only where it is of bytes
            masked = dataset.read(self.alpha, window=window) == 0
        elif self.masked:
            masked = dataset.read_masks(bands[0], window=window) == 0
        if self.fill is None:
            return values
        values = mark_missing(values, 0, self.fill, nodata=self.nodata, masked=masked)
        if self.vectors_of:
            refuse_codes(values, 0, self.vectors_of, self.path)
        return values


@dataclass(frozen=True)
class GeoTiffInfo:
    """The facts in the header of a GeoTIFF."""

    path: str
    geobox: Any
    count: int
    dtype: str
    nodata: float | None
    block: tuple[int, int]
    tags: Mapping[str, str]
    descriptions: tuple[str, ...]
    token: str
    mask: bool = False  # has a mask band
    alpha: int = 0  # number of the alpha band, 0 where there is none
    scaling: tuple[float, float] | None = None  # by which numbers are stored
    parts: int = 1  # stored blocks side by side in one place: bands where they lie apart


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
    if cogs.is_object(name):
        of = object_now(name)
        with naming_damage(name), cogs.opened(of, GEOREF_SOURCES=OWN_PLACE) as (dataset, _):
            return _info_of(dataset, name, of.state)
    if is_remote(name):
        return _read_info(name, name)
    if not Path(name).exists():
        raise MissingFileError(f"no such file: {name}")
    if Path(name).is_dir():
        refuse_store(name)
        raise SourceError(f"{name} is a folder, not a GeoTIFF; give the files in it: {name}/*")
    token = file_token(name)
    sums = checksums_of(name, token)
    if sums is not None:
        sums.check([(0, sums.header)])
    return _read_info(name, token)


@lru_cache(maxsize=8192)
def _read_info(name: str, token: str) -> GeoTiffInfo:
    with naming_damage(name), _environment(name), open_geotiff(name) as dataset:
        return _info_of(dataset, name, token)


def _info_of(dataset: Any, name: str, token: str) -> GeoTiffInfo:
    from rasterio.enums import ColorInterp, MaskFlags

    geobox = geometry.make_geobox(dataset.shape, *_place_of(dataset, name))
    check_extent(geobox, name)
    flags = dataset.mask_flag_enums[0]
    alpha = [i for i, each in enumerate(dataset.colorinterp, 1) if each == ColorInterp.alpha]
    return GeoTiffInfo(
        path=name,
        geobox=geobox,
        count=dataset.count,
        dtype=str(dataset.dtypes[0]),
        nodata=dataset.nodata,
        block=_checked_block(dataset, name),
        tags=dict(dataset.tags()),
        descriptions=tuple(d or "" for d in dataset.descriptions),
        token=token,
        mask=MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags,
        alpha=alpha[-1] if alpha else 0,
        scaling=scaling_in({"scales": dataset.scales, "offsets": dataset.offsets}),
        parts=dataset.count if dataset.profile.get("interleave") == "band" else 1,
    )


def _place_of(dataset: Any, name: str) -> tuple[Any, str]:
    """Affine and CRS of a file: its own, else those of a file beside it, which is said.

    Raises
    ------
    SourceError
        If neither tells.
    """
    if dataset.crs is not None and not dataset.transform.is_identity:
        return dataset.transform, dataset.crs.to_wkt()
    if cogs.is_object(name):
        lacking = "no CRS" if dataset.crs is None else "a CRS but no geotransform"
        raise SourceError(f"{name} has {lacking}: it does not say where it lies")
    with open_geotiff(name, place=_ANY_PLACE) as helped:
        transform, crs = helped.transform, helped.crs
        beside = ", ".join(os.path.basename(each) for each in helped.files[1:])
    if crs is None:
        raise SourceError(f"{name} has no CRS: it does not say where it lies")
    if transform.is_identity:
        raise SourceError(
            f"{name} has a CRS but no geotransform: it does not say where its pixels lie. Place its array "
            "yourself: gx.wrap(array, product, geobox=…); where it has ground control points, gdalwarp warps it"
        )
    say(f"{name} has no georeference; it was placed by {beside} beside it")
    return transform, crs.to_wkt()


#: A header may not claim blocks of more bytes than this: GDAL takes the memory of one before it reads it.
_LARGEST_BLOCK = 1 << 30


def _checked_block(dataset: Any, name: str) -> tuple[int, int]:
    height, width = (int(n) for n in dataset.block_shapes[0])
    together = dataset.count if dataset.profile.get("interleave") == "pixel" else 1
    size = height * width * together * np.dtype(dataset.dtypes[0]).itemsize
    if size > _LARGEST_BLOCK:
        raise SourceError(f"{name} claims blocks of {height} × {width} pixels, {size / 1e9:.1f} GB each")
    return height, width


def file_token(path: str) -> str:
    """Return a key that changes when a file is rewritten: its size, and its modification time or ETag."""
    if is_remote(path):
        return head_object(path) if cogs.is_object(path) else path
    return state_of_file(path)


def check_bands(
    info: GeoTiffInfo, product: str, bands: Sequence[str], dtypes: Sequence[str]
) -> tuple[int, ...]:
    """Where in a file the bands of its product lie; raise unless it has them.

    Parameters
    ----------
    info : GeoTiffInfo
        Facts of the file by :func:`read_info`.
    product : str
        Name of the product, for messages.
    bands : sequence of str
        Labels in the product's order.
    dtypes : sequence of str
        The data types that the file may have.

    Returns
    -------
    tuple of int
        GDAL's band numbers, in the order of ``bands``: by their descriptions where these name them all (in any
        order, other bands between them), else as they lie.

    Raises
    ------
    SourceError
        Naming the file and what is wrong.
    """
    if info.dtype not in dtypes:
        raise SourceError(
            f"{info.path} holds {info.dtype}; a file of {product!r} holds {' or '.join(dtypes)}"
        )
    believe_scaling(info.scaling, info.dtype, info.path)
    placed = places_by_name(info.descriptions, bands, info.path)
    if placed is not None:
        return tuple(place + 1 for place in placed)
    count = len(bands)
    numbers = [i for i in range(1, info.count + 1) if i != info.alpha or info.count == count]
    if len(numbers) != count:
        raise SourceError(f"{info.path} has {info.count} bands; a file of {product!r} has {count}")
    refuse_contradiction([info.descriptions[number - 1] for number in numbers], bands, product, info.path)
    return tuple(numbers)


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
    vectors_of: str = "",
) -> Tile:
    """A tile of a GeoTIFF whose header was read.

    Parameters
    ----------
    info : GeoTiffInfo
        Facts of the file by :func:`read_info`.
    times : sequence of str
        ISO dates of what it holds.
    bands : sequence of str
        Labels of the bands read; empty for a plane.
    dtype : str, optional
        The dtype of the blocks; the stored one by default.
    fill : float, optional
        The value of missing vectors here, whatever it is in the file; NaN by default for floats, else the file's
        nodata, else 0.
    indexes : sequence of int, optional
        GDAL band numbers; all by default.
    version : str
        Version of the product.
    by_time : bool
        Whether each band is a time step.
    beside : mapping, optional
        Planes that belong to it.
    vectors_of : str
        Name of the product, where the floats of a file must be its vectors and not its codes.
    """
    stored = dtype or info.dtype
    floats = np.issubdtype(np.dtype(stored), np.floating)
    if fill is None:
        fill = float("nan") if floats else (info.nodata if info.nodata is not None else 0)
    numbers = tuple(indexes) if indexes is not None else tuple(range(1, info.count + 1))
    alpha = 0 if info.alpha in numbers else info.alpha
    reader = GeoTiffReader(
        info.path,
        numbers,
        plane=not bands,
        by_time=by_time,
        token=info.token,
        # what is marked as it should be already is left as it lies
        fill=fill if floats or info.mask or alpha or info.nodata not in (None, fill) else None,
        nodata=info.nodata,
        masked=info.mask,
        alpha=alpha,
        vectors_of=vectors_of if floats else "",
    )
    return Tile(
        name=info.path,
        geobox=_upright(info),
        times=tuple(times),
        reader=reader,
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
        GDAL creation options; tiles are no larger than the image.
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
    # GDAL pads the last tiles: 768 bands of a small image would be 200 MB to read and write
    if profile["tiled"]:
        for name, side in zip(("blockysize", "blockxsize"), data.shape[1:], strict=True):
            profile[name] = min(int(profile.get(name, 256)), -(-side // 16) * 16)
    with rasterio.open(target, "w", **profile) as dataset:
        dataset.write(data)
        for i, name in enumerate(descriptions):
            dataset.set_band_description(i + 1, name)
        if tags:
            dataset.update_tags(**tags)
    return target
