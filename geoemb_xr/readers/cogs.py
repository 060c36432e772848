"""Windows of remote GeoTIFFs: the stored blocks that a window touches, each fetched and decoded once.

GDAL parses headers, and decodes what :mod:`geoemb_xr.readers.stored_blocks` does not. Bytes come from
:mod:`geoemb_xr.stores`, so that credentials, retries and checks are those of every other read. All blocks of a
window are asked for at once, and not as GDAL comes to each.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from geoemb_xr.core import buffers
from geoemb_xr.core.errors import SourceError
from geoemb_xr.execution.threads import threads_of_gdal
from geoemb_xr.readers.block_cache import CACHE, RAW
from geoemb_xr.readers.stored_blocks import cell_of
from geoemb_xr.stores.files import ObjectFile, RemoteObject, forget, joined_ranges, remote_object
from geoemb_xr.stores.http import ObjectChangedError
from geoemb_xr.stores.storage import current

#: GDAL looks for no files beside one, and keeps few blocks: we keep them.
_GDAL = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GTIFF_VIRTUAL_MEM_IO": "NO"}
#: Threads in which GDAL decodes.
_DECODING = 2
#: Side of what is kept as one, at least: strips of a row are not blocks to count.
_LEAST_SIDE = 256
_NAME = "object.tif"


def is_object(path: str) -> bool:
    """Whether a raster is read through our stores: any URL, but not GDAL's own file systems."""
    return "://" in path


@contextmanager
def opened(of: RemoteObject, **options: Any) -> Iterator[tuple[Any, ObjectFile]]:
    """A dataset of rasterio's on an object, and the file that it reads.

    Raises
    ------
    SourceError
        If it is not a GeoTIFF; what failed below it is raised as it was.
    """
    import rasterio

    file = ObjectFile(of)

    def opener(path: str, mode: str = "rb") -> io.RawIOBase:
        if not path.endswith(_NAME) and "test" not in path:
            raise FileNotFoundError(path)
        return file.again()  # GDAL opens it more than once

    with rasterio.Env(GDAL_NUM_THREADS=threads_of_gdal(_DECODING), **_GDAL):
        try:
            with rasterio.open(_NAME, driver="GTiff", opener=opener, **options) as dataset:
                yield dataset, file
        except rasterio.errors.RasterioError as error:
            if file.errors:
                raise file.errors[0] from error
            raise SourceError(f"{of.url} could not be opened as a GeoTIFF: {error}") from error


@contextmanager
def dataset_of(url: str, **options: Any) -> Iterator[Any]:
    """A dataset of rasterio's on an object as it is now."""
    with opened(RemoteObject(url), **options) as (dataset, _):
        yield dataset


def read_window(
    url: str,
    token: str,
    bands: Sequence[int],
    rows: slice,
    cols: slice,
    read: Callable[[Any, Any], np.ndarray],
    kind: object = None,
    level: int | None = None,
) -> np.ndarray:
    """A window of a remote GeoTIFF, from the blocks that it touches; of one that is kept, not to be written into.

    Parameters
    ----------
    url, token : str
        The object and its state.
    bands : sequence of int
        GDAL's numbers of the bands that ``read`` reads.
    rows, cols : slice
        The window.
    read : callable
        Function of a dataset and a rasterio window: the values, rows and columns last.
    kind : hashable, optional
        A key that is the same only for reads of the same values.
    level : int, optional
        Number of the overview that is read, from 0.
    """
    try:
        return _from_cells(remote_object(url, token), bands, rows, cols, read, kind, level)
    except ObjectChangedError:
        forget()
        raise


def _from_cells(
    of: RemoteObject,
    bands: Sequence[int],
    rows: slice,
    cols: slice,
    read: Callable[[Any, Any], np.ndarray],
    kind: object,
    level: int | None,
) -> np.ndarray:
    height, width, block = _layout(of, level)
    sides = _sides(block)
    out: np.ndarray | None = None
    for top in range(rows.start // sides[0] * sides[0], rows.stop, sides[0]):
        for left in range(cols.start // sides[1] * sides[1], cols.stop, sides[1]):
            bottom, right = min(top + sides[0], height), min(left + sides[1], width)
            key = (of.url, of.state, current(), tuple(bands), kind, level, top, left)
            make = partial(_cell, of, bands, (top, bottom), (left, right), block, read, level)
            cell = CACHE.get(key, make)
            if top <= rows.start and rows.stop <= bottom and left <= cols.start and cols.stop <= right:
                return cell[..., rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
            if out is None:
                shape = (*cell.shape[:-2], rows.stop - rows.start, cols.stop - cols.start)
                out = buffers.empty(shape, cell.dtype)
            r0, r1 = max(rows.start, top), min(rows.stop, bottom)
            c0, c1 = max(cols.start, left), min(cols.stop, right)
            out[..., r0 - rows.start : r1 - rows.start, c0 - cols.start : c1 - cols.start] = cell[
                ..., r0 - top : r1 - top, c0 - left : c1 - left
            ]
    assert out is not None
    return out


def _layout(of: RemoteObject, level: int | None) -> tuple[int, int, tuple[int, int]]:
    """Height, width and block of a raster, or of an overview of it; told once for each state of it."""
    if level not in of.layouts:
        with opened(of, **of_level(level)) as (dataset, _):
            height, width = dataset.block_shapes[0]
            of.layouts[level] = dataset.height, dataset.width, (int(height), int(width))
    return of.layouts[level]


def of_level(level: int | None) -> dict[str, int]:
    """GDAL's option for an overview."""
    return {} if level is None else {"OVERVIEW_LEVEL": level}


def _cell(
    of: RemoteObject,
    bands: Sequence[int],
    rows: tuple[int, int],
    cols: tuple[int, int],
    block: tuple[int, int],
    read: Callable[[Any, Any], np.ndarray],
    level: int | None,
) -> np.ndarray:
    from rasterio.windows import Window

    window = Window.from_slices(slice(*rows), slice(*cols))
    with opened(of, **of_level(level)) as (dataset, file):
        spans = spans_of(dataset, bands, rows, cols, block)
        ours = cell_of(of, dataset, bands, rows, cols, len(spans))
        decoded: list[np.ndarray] = []

        def fetched() -> np.ndarray:
            """The blocks as they come, decoded while others are on their way."""
            with of.coming(spans, None if ours is None else ours.put) as (body, coming):
                if ours is None:
                    file.hold(spans, body, coming)
                    decoded.append(np.array(read(dataset, window)))
                for task in coming:
                    task.result()
            return body

        key = (of.url, of.state, current(), tuple(spans))
        body = RAW.get(key, fetched)
        if ours is not None and ours.is_filled(spans, body):
            return read(ours, window)
        if not decoded:
            file.hold(spans, body)
            decoded.append(np.array(read(dataset, window)))
        return decoded[0]


#: Bands, rows and columns of a window.
Window = tuple[Sequence[int], slice, slice]


def transfer(url: str, token: str, windows: Sequence[Window], level: int | None = None) -> tuple[int, int]:
    """Requests and bytes of windows of a remote GeoTIFF, by its header, which is kept for the run."""
    with opened(remote_object(url, token), **of_level(level)) as (dataset, _):
        return transfer_of(dataset, windows)


def transfer_of(dataset: Any, windows: Sequence[Window]) -> tuple[int, int]:
    """Requests and bytes of windows of an open dataset, each stored block once."""
    height, width = (int(n) for n in dataset.block_shapes[0])
    sides = _sides((height, width))
    cells = dict.fromkeys(
        (tuple(bands), top, left)
        for bands, rows, cols in windows
        for top in range(rows.start // sides[0] * sides[0], rows.stop, sides[0])
        for left in range(cols.start // sides[1] * sides[1], cols.stop, sides[1])
    )
    requests = size = 0
    for bands, top, left in cells:
        rows = (top, min(top + sides[0], dataset.height))
        cols = (left, min(left + sides[1], dataset.width))
        asked = joined_ranges(spans_of(dataset, bands, rows, cols, (height, width)))
        requests, size = requests + len(asked), size + sum(stop - start for start, stop in asked)
    return requests, size


def _sides(block: tuple[int, int]) -> tuple[int, int]:
    """Height and width of what is fetched and kept as one."""
    height, width = (side * max(-(-_LEAST_SIDE // side), 1) for side in block)
    return height, width


def spans_of(
    dataset: Any, bands: Sequence[int], rows: tuple[int, int], cols: tuple[int, int], block: tuple[int, int]
) -> list[tuple[int, int]]:
    """First byte and the one after the last of each stored block of a window; none for what was never written."""
    found = []
    planar = dataset.profile.get("interleave") != "pixel"  # by band, or tile by tile: bands lie apart
    for band in bands if planar else bands[:1]:
        for y in range(rows[0] // block[0], -(-rows[1] // block[0])):
            for x in range(cols[0] // block[1], -(-cols[1] // block[1])):
                start = dataset.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band)
                if start is not None:
                    size = int(dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=band))
                    found.append((int(start), int(start) + size))
    return found
