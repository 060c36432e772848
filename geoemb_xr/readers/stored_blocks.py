"""Stored blocks of plain GeoTIFFs, decoded to where they belong as they come.

Published files are plain: tiled, values of whole bytes, not compressed or by deflate or zstd. Those need no GDAL,
which takes blocks in an order of its own, from a file that is Python's, into memory of its own. What is not plain,
or cannot be decoded, is left to GDAL, and so is what it says of it.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from geoemb_xr.core import buffers
from geoemb_xr.execution.threads import side_by_side

if TYPE_CHECKING:
    from geoemb_xr.stores.files import RemoteObject

_BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES = 258, 259, 262, 266, 277
_PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _FORMAT = 284, 317, 322, 323, 339
#: What a tag is where a header has none.
_DEFAULTS = {_COMPRESSION: 1, _FILL_ORDER: 1, _SAMPLES: 1, _PLANAR: 1, _PREDICTOR: 1, _FORMAT: 1}
_NONE, _DEFLATE, _OLD_DEFLATE, _ZSTD = 1, 8, 32946, 50000
_KINDS = {1: "u", 2: "i", 3: "f"}
_BLACK_IS_ZERO, _RGB = 1, 2
_LOOKED_AT = (_BITS, _PHOTOMETRIC, _TILE_WIDTH, _TILE_HEIGHT, *_DEFAULTS)
#: Types of tags: numbers of two bytes, and of four.
_NUMBERS = {3: "<u2", 4: "<u4"}
#: No directory of a raster has more entries, no tag that is looked at more values.
_MOST_ENTRIES, _MOST_VALUES = 512, 1 << 16
#: Blocks of a cell that are decoded at once, as many as GDAL is allowed.
_DECODING = 2


class BlockLayout(NamedTuple):
    """How the blocks of a plain raster are stored."""

    dtype: np.dtype[Any]
    block: tuple[int, int]
    samples: int  # bands that lie together in a block
    compression: int
    predictor: int

    def decode(self, data: Any, out: np.ndarray) -> None:
        """A stored block into a contiguous array (row, column, sample).

        Raises
        ------
        ValueError, RuntimeError, zlib.error
            If it is no such block.
        """
        raw = out.reshape(-1).view(np.uint8)
        if self.compression == _ZSTD:
            decompress_zstd(data, raw)
        elif self.compression == _NONE:
            raw[:] = np.frombuffer(data, np.uint8, raw.size)
        else:  # no more than there is room for, whatever it holds
            found = zlib.decompressobj().decompress(data, raw.size)
            raw[:] = np.frombuffer(found, np.uint8, raw.size)
        if self.predictor == 2:
            whole = out.view(f"u{out.dtype.itemsize}")
            np.add.accumulate(whole, axis=1, dtype=whole.dtype, out=whole)


def decompress_zstd(data: Any, raw: np.ndarray) -> None:
    """Fill an array; numcodecs does not tell when there is too little, which leaves the last byte as it was."""
    from numcodecs import zstd

    for last in (0x5A, 0xA5):
        raw[-1] = last
        zstd.decompress(data, raw)
        if raw[-1] != last:
            return
    raise ValueError(f"less than {raw.size} bytes are in it")


class Cell:
    """Stand in for a dataset: put whole blocks together as they come.

    Parameters
    ----------
    layout : BlockLayout
        The layout of the stored blocks.
    bands : sequence of int
        Numbers of the bands, from 1.
    rows, cols : (int, int)
        First and stop of what the blocks hold of the raster.
    """

    def __init__(
        self, layout: BlockLayout, bands: Sequence[int], rows: tuple[int, int], cols: tuple[int, int]
    ) -> None:
        self.layout, self.bands = layout, list(bands)
        shape = (len(bands), rows[1] - rows[0], cols[1] - cols[0])
        self.values = buffers.empty(shape, layout.dtype)
        height, width = layout.block
        tops, lefts = range(0, self.values.shape[1], height), range(0, self.values.shape[2], width)
        bands_apart = range(len(bands)) if layout.samples == 1 else [slice(None)]
        #: Band, first row and first column of each block, in the order of their spans.
        self.places = [(band, top, left) for band in bands_apart for top in tops for left in lefts]
        self._missing = set(range(len(self.places)))
        self._turns = threading.Semaphore(_DECODING)

    def put(self, number: int, data: np.ndarray) -> None:
        """Decode a block that came; what cannot be decoded is missing."""
        with self._turns, suppress(ValueError, RuntimeError, zlib.error):
            self._put(number, data)
            self._missing.discard(number)

    def is_filled(self, spans: Sequence[tuple[int, int]], body: np.ndarray) -> bool:
        """Whether all blocks are in their places, now that they lie one after the other in a body."""
        if len(self._missing) == len(self.places):  # came with an earlier read
            ends = np.cumsum([stop - start for start, stop in spans])
            side_by_side(
                lambda i: self.put(i, body[ends[i] - (spans[i][1] - spans[i][0]) : ends[i]]),
                range(len(spans)),
            )
        return not self._missing

    def _put(self, number: int, data: np.ndarray) -> None:
        band, top, left = self.places[number]
        height, width = self.layout.block
        target = self.values[band, top : top + height, left : left + width]
        if target.shape == (height, width) and target.flags.c_contiguous:
            self.layout.decode(data, target[..., None])
            return
        block = np.empty((height, width, self.layout.samples), self.layout.dtype)
        self.layout.decode(data, block)
        cut = block[: target.shape[-2], : target.shape[-1]]
        if self.layout.samples == 1:
            target[...] = cut[..., 0]
        else:
            target[...] = cut[..., [each - 1 for each in self.bands]].transpose(2, 0, 1)

    def read(self, bands: int | Sequence[int], window: object = None) -> np.ndarray:
        """All of a band, or of some, as a dataset gives them."""
        if isinstance(bands, int):
            return np.asarray(self.values[self.bands.index(bands)])
        taken = [self.bands.index(each) for each in bands]
        return self.values if taken == list(range(len(self.bands))) else self.values[taken]


def cell_of(
    of: RemoteObject,
    dataset: Any,
    bands: Sequence[int],
    rows: tuple[int, int],
    cols: tuple[int, int],
    blocks: int,
) -> Cell | None:
    """A window of whole blocks that we decode; None where GDAL does.

    That is where blocks are not plain, or some were never written: there are fewer than the window has.
    """
    layout = layout_of(of, dataset)
    cell = None if layout is None else Cell(layout, bands, rows, cols)
    return cell if cell is not None and len(cell.places) == blocks else None


def layout_of(of: RemoteObject, dataset: Any) -> BlockLayout | None:
    """How the blocks of an open dataset are stored; None where only GDAL can tell."""
    from rasterio.enums import MaskFlags

    flags = dataset.mask_flag_enums[0]
    at = dataset.get_tag_item("IFD_OFFSET", "TIFF", bidx=1)
    if at is None or (MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags):
        return None
    tags = _tags(of, int(at))
    if tags is None:
        return None
    first = {tag: values[0] for tag, values in tags.items()}
    dtype = f"{_KINDS.get(first[_FORMAT], 'V')}{first.get(_BITS, 0) // 8}"
    block = first.get(_TILE_HEIGHT, 0), first.get(_TILE_WIDTH, 0)
    together = first[_SAMPLES] if first[_PLANAR] == 1 else 1
    plain = (
        all(len(set(values)) == 1 for values in tags.values())
        and first.get(_BITS, 0) in (8, 16, 32, 64)
        and dtype[0] in "uif"
        and {np.dtype(dtype).name} == set(dataset.dtypes)
        and block == tuple(dataset.block_shapes[0])
        and first[_SAMPLES] == dataset.count
        and first[_COMPRESSION] in (_NONE, _DEFLATE, _OLD_DEFLATE, _ZSTD)
        and first[_PREDICTOR] in (1, 2)
        and first[_FILL_ORDER] == 1
        and first.get(_PHOTOMETRIC) in (_BLACK_IS_ZERO, _RGB)
    )
    return (
        BlockLayout(np.dtype(dtype), block, together, first[_COMPRESSION], first[_PREDICTOR])
        if plain
        else None
    )


def _tags(of: RemoteObject, at: int) -> dict[int, tuple[int, ...]] | None:
    """Tags of the directory at an offset that tell how blocks are stored; None for unusual directories."""
    magic = of.read(0, 4)
    if magic not in (b"II*\0", b"II+\0"):  # others have their numbers turned round
        return None
    number, offset = ("<u8", "<u8") if magic[2:3] == b"+" else ("<u2", "<u4")
    entry = np.dtype([("tag", "<u2"), ("type", "<u2"), ("count", offset), ("value", offset)])
    start = at + np.dtype(number).itemsize
    count = int.from_bytes(of.read(at, start), "little")
    if count > _MOST_ENTRIES:
        return None
    found: dict[int, tuple[int, ...]] = {tag: (value,) for tag, value in _DEFAULTS.items()}
    raw = of.read(start, start + count * entry.itemsize)
    for each in np.frombuffer(raw[: len(raw) // entry.itemsize * entry.itemsize], entry):
        tag, kind, values = int(each["tag"]), _NUMBERS.get(int(each["type"])), int(each["count"])
        if tag not in _LOOKED_AT:
            continue
        if kind is None or not 0 < values <= _MOST_VALUES:
            return None
        size, place, inline = values * np.dtype(kind).itemsize, int(each["value"]), each["value"].tobytes()
        data = inline[:size] if size <= len(inline) else of.read(place, place + size)
        if len(data) != size:
            return None
        found[tag] = tuple(np.frombuffer(data, kind).tolist())
    return found
