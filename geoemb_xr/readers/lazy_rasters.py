"""GeoTIFFs as xarray's lazily indexed arrays, which are cut before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from geoemb_xr.execution.internals import BackendArray, indexing
from geoemb_xr.readers.geotiff import GeoTiffInfo, GeoTiffReader
from geoemb_xr.stores.objects import is_remote
from geoemb_xr.stores.storage import current, using


class _Raster(BackendArray):
    """All bands of a file, by windows."""

    def __init__(self, info: GeoTiffInfo) -> None:
        self.shape = (info.count, *(int(n) for n in info.geobox.shape))
        self.dtype = np.dtype(info.dtype)
        self._reader = GeoTiffReader(info.path, tuple(range(1, info.count + 1)), token=info.token)
        self._storage = current()

    def transfer(self, windows: Sequence[Sequence[slice]]) -> tuple[int, int]:
        """Requests and bytes of windows of bands, rows and columns; all bands are read."""
        _, height, width = self.shape
        spans = [
            (0, slice(*rows.indices(height)[:2]), slice(*cols.indices(width)[:2]))
            for _, rows, cols in windows
        ]
        with using(self._storage):
            return self._reader.transfer(spans)

    def kept(self, transferred: int, read: int) -> int:
        """Bytes of blocks that stay after so many came and were read."""
        return self._reader.kept(transferred, read)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        basic = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, basic, self._window)

    def _window(self, key: tuple[Any, ...]) -> np.ndarray:
        """Integers and slices of any step: the rows and columns from the first to the last are read."""
        spans: list[slice] = []
        inner: list[Any] = []
        for part, size in zip(key, self.shape, strict=True):
            if isinstance(part, slice):
                steps = range(*part.indices(size))
                first, last = (min(steps), max(steps) + 1) if len(steps) else (0, 0)
                inner.append(None if steps.step == 1 else np.array(steps) - first)
            else:
                first, last = int(part), int(part) + 1
                inner.append(0)
            spans.append(slice(first, last))
        bands, reader = spans[0], self._reader
        if not is_remote(reader.path):  # of a remote file all bands are fetched and kept
            reader = replace(reader, indexes=reader.indexes[bands])
            bands = slice(None)
        with using(self._storage):
            window = reader.read(0, spans[1], spans[2])[bands]
        for axis in reversed(range(3)):
            window = window if inner[axis] is None else window.take(inner[axis], axis=axis)
        return window


def lazy_raster(info: GeoTiffInfo) -> Any:
    """The bands (band, y, x) of a file whose header was read."""
    return indexing.LazilyIndexedArray(_Raster(info))
