"""Zarr stores as tiles: opened by their metadata alone, read window by window.

Nothing of a store is read when it is opened but its metadata: x and y come from the affine in the attributes
(the coordinate array of a global mosaic would be 32 MB).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.missing import NODATA_KEYS, mark_missing, refuse_scaling, scaling_in
from geoemb_xr.readers.block_cache import INDEXED, BlockCache
from geoemb_xr.readers.header_checks import check_axes, check_extent
from geoemb_xr.readers.stored_chunks import StoredChunks, layout_of
from geoemb_xr.readers.tiles import Tile
from geoemb_xr.readers.zarr_chunks import names_in, object_names, transfer_of, unwritten
from geoemb_xr.readers.zarr_nodes import open_node
from geoemb_xr.stores.archives import is_archive
from geoemb_xr.stores.objects import is_remote, list_folders, under_way
from geoemb_xr.stores.storage import current


@dataclass(frozen=True)
class ZarrReader:
    """Reads windows of a Zarr array, axes in any order.

    Parameters
    ----------
    url, path : str
        The store, and the array in it.
    dims : tuple of str
        Its axes, of ``time``, ``band``, ``y``, ``x``.
    steps : tuple of int
        Positions along its time axis, one per step of the tile.
    bands : tuple of int, optional
        Positions of the bands along its axis, where not all as they lie.
    token : str
        Token of the store's state.
    fill : float, optional
        The value of missing vectors here; by default values are left as they are stored.
    nodata : float, optional
        The value of missing vectors in the store.
    unwritten : float, optional
        What a chunk that was never written reads as, where that is not ``fill``.
    """

    url: str
    path: str
    dims: tuple[str, ...]
    steps: tuple[int, ...] = (0,)
    bands: tuple[int, ...] | None = None
    token: str = ""
    fill: float | None = None
    nodata: float | None = None
    unwritten: float | None = None

    def read(self, time: int, rows: slice, cols: slice) -> np.ndarray:
        """A window (band, y, x), or (y, x) where the array has no bands."""
        array = open_node(self.url, self.path, self.token)
        wanted = self._wanted(time, rows, cols)
        values = self._window(array, [wanted[d] for d in self.dims])
        left = [d for d in self.dims if d != "time"]
        values = values.transpose([left.index(d) for d in ("band", "y", "x") if d in left])
        if self.bands is not None and self.bands != tuple(range(len(values))):
            values = values[list(self.bands)]
        if self.fill is None:
            return values
        stacked = values if "band" in self.dims else values[None]
        masked = None
        if self.unwritten is not None:
            masked = (stacked == self.unwritten).all(axis=0)
            masked = self.never_written(time, rows, cols)[0] & masked if masked.any() else None
        stacked = mark_missing(stacked, 0, self.fill, nodata=self.nodata, masked=masked)
        return stacked if "band" in self.dims else stacked[0]

    def read_at(self, time: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Pixels (band, n), or (n,) where the array has no bands; each stored chunk of them is read once."""
        array = open_node(self.url, self.path, self.token)
        bands = self.bands or range(array.shape[self.dims.index("band")] if "band" in self.dims else 1)
        places = np.broadcast_arrays(self.steps[time], np.array(bands)[:, None], rows, cols)
        wanted = dict(zip(("time", "band", "y", "x"), places, strict=True))
        at = [wanted[d] for d in self.dims]
        stored = self._stored(array)
        found = None if stored is None else stored.points(at)
        values = np.asarray(array.vindex[tuple(at)]) if found is None else found
        if self.fill is not None:
            masked = None if self.unwritten is None else (values == self.unwritten).all(axis=0)
            values = mark_missing(values, 0, self.fill, nodata=self.nodata, masked=masked)
        return values if "band" in self.dims else values[0]

    def _window(self, array: Any, wanted: Sequence[int | slice]) -> np.ndarray:
        """A window of the array, without the axes of which one position is wanted."""
        stored = self._stored(array)
        if stored is not None:
            spans = [
                slice(each, each + 1) if isinstance(each, int) else slice(*each.indices(n)[:2])
                for each, n in zip(wanted, array.shape, strict=True)
            ]
            found = stored.window(spans)
            if found is not None:
                return found[tuple(0 if isinstance(each, int) else slice(None) for each in wanted)]
        return np.asarray(array[tuple(wanted)])

    def _stored(self, array: Any) -> StoredChunks | None:
        """Its chunks, where they need no Zarr."""
        layout = None if is_archive(self.url) else layout_of(array)
        return None if layout is None else StoredChunks(self.url, self.path, array, layout)

    def _wanted(self, time: int, rows: slice, cols: slice) -> dict[str, Any]:
        bands = slice(0, max(self.bands) + 1 if self.bands is not None else None)
        return {"time": self.steps[time], "band": bands, "y": rows, "x": cols}

    def objects(self, time: int, rows: slice, cols: slice) -> Iterator[str]:
        """Paths of the objects that a window is stored in; one that was never written is absent."""
        if is_archive(self.url):
            return iter(())
        array = open_node(self.url, self.path, self.token)
        return object_names(self.url, self.path, array, self.dims, self._wanted(time, rows, cols))

    def transfer(self, spans: Sequence[tuple[int, slice, slice]]) -> tuple[int, int]:
        """Requests and bytes of windows, from the sizes of some objects."""
        array = open_node(self.url, self.path, self.token)
        windows = [self._wanted(*span) for span in spans]
        return transfer_of(self.url, self.path, array, self.dims, windows)

    def never_written(self, time: int, rows: slice, cols: slice) -> tuple[np.ndarray, list[str]]:
        """Pixels of a window whose chunk was never written, and the objects that lack it."""
        array = open_node(self.url, self.path, self.token)
        absent = np.zeros((rows.stop - rows.start, cols.stop - cols.start), bool)
        names = []
        for name, place in unwritten(self.url, self.path, array, self.dims, self._wanted(time, rows, cols)):
            absent[place["y"], place["x"]] = True
            names.append(name)
        return absent, list(dict.fromkeys(names))


def written_steps(url: str, path: str, token: str = "") -> frozenset[int] | None:
    """Positions along the first axis of an array that were ever written; None where that cannot be listed.

    An unwritten chunk reads as the fill value, so that a year which was never made looks like a year without
    data. Listing one folder tells them apart: an array with chunks of one step keeps a folder for each.
    """
    array = open_node(url, path, token)
    if array.metadata.zarr_format != 3 or (array.shards or array.chunks)[0] != 1 or array.ndim < 2:
        return None
    if is_archive(url):
        names = names_in(array, "c")
    elif is_remote(url):
        try:
            names = list_folders(f"{url.rstrip('/')}/{path}/c")
        except SourceError:  # a store may be readable and not listable
            return None
    else:
        folder = Path(url, path, "c")
        names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
    return frozenset(int(name) for name in names if name.isdigit())


_AXES = {
    "time": "time", "year": "time",
    "band": "band", "embedding": "band", "bands": "band", "feature": "band",
    "y": "y", "northing": "y", "latitude": "y", "lat": "y",
    "x": "x", "easting": "x", "longitude": "x", "lon": "x",
}  # fmt: skip


def axes_of(array: Any, name: str) -> tuple[str, ...]:
    """The axes of a Zarr array in our names.

    Raises
    ------
    SourceError
        If they are not named, one is unknown, or one is longer than any.
    """
    given = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not given or any(g is None for g in given):
        raise SourceError(f"{name} does not name its dimensions")
    unknown = [g for g in given if not (g in _AXES or str(g).startswith("band"))]
    if unknown:
        raise SourceError(f"{name} has unknown dimensions {unknown}; known are {', '.join(_AXES)}")
    axes = tuple(_AXES.get(g, "band") for g in given)
    check_axes(dict(zip(axes, array.shape, strict=True)), name)
    return axes


def _all_of(array: Any) -> np.ndarray:
    """A small array as a whole, without Zarr where it is plain: its threads hand it from one to the other."""
    url = getattr(array.store, "where", "")  # of an archive there are no objects
    layout = layout_of(array) if url else None
    chunks = None if layout is None else StoredChunks(url, array.path, array, layout)
    found = None if chunks is None else chunks.window([slice(0, n) for n in array.shape])
    return np.asarray(array[:]) if found is None else found


def labels_of(group: Any, array: Any) -> tuple[str, ...]:
    """Labels of an array's bands, where its group has them."""
    for key in ("band", "embedding", "bands"):
        node = group.get(key)
        if getattr(node, "ndim", 0) == 1 and array is not None and node.shape[0] in array.shape:
            return tuple(map(str, _all_of(node).tolist()))
    return ()


def find_attrs(*nodes: Any) -> dict[str, Any]:
    """Attributes of several nodes, the first one's winning: stores keep them on the root, group or array."""
    merged: dict[str, Any] = {}
    for node in reversed([n for n in nodes if n is not None]):
        merged.update(dict(node.attrs))
    return merged


def geobox_from_attrs(attrs: Mapping[str, Any], shape: tuple[int, int], name: str) -> Any:
    """The grid that ``proj:`` and ``spatial:`` attributes state.

    Raises
    ------
    SourceError
        If they are missing.
    """
    crs = attrs.get("proj:code") or attrs.get("proj:wkt2") or attrs.get("crs_wkt") or attrs.get("crs")
    if crs is None and "proj:projjson" in attrs:
        import json

        crs = json.dumps(attrs["proj:projjson"])
    transform = attrs.get("spatial:transform") or attrs.get("transform")
    if crs is None or transform is None:
        lacking = " and ".join(
            n for n, v in (("proj:code", crs), ("spatial:transform", transform)) if v is None
        )
        raise SourceError(f"{name} does not say where it lies: {lacking} missing among {sorted(attrs)[:12]}")
    affine = Affine(*(float(v) for v in list(transform)[:6]))
    if attrs.get("spatial:registration") == "node":
        affine = affine * Affine.translation(-0.5, -0.5)
    return geometry.make_geobox(shape, affine, str(crs))


def years_of(group: Any, length: int, name: str) -> tuple[str, ...]:
    """The time axis as ISO dates: years as integers, or CF times.

    Raises
    ------
    SourceError
        If it is missing, or is neither.
    """
    if "time" not in group:
        raise SourceError(f"{name} has no coordinate 'time'")
    node = group["time"]
    if node.shape != (length,):
        raise SourceError(f"{name} has {length} time steps but {node.shape[0] if node.ndim else 0} times")
    values = _all_of(node)
    units = str(node.attrs.get("units", ""))
    if " since " in units:
        import xarray as xr

        decoded = xr.decode_cf(xr.Dataset({"time": ("time", values, dict(node.attrs))}))["time"].values
        return tuple(str(v)[:10] for v in decoded.astype("datetime64[D]"))
    if np.issubdtype(values.dtype, np.datetime64):
        return tuple(str(v) for v in values.astype("datetime64[D]"))
    if np.issubdtype(values.dtype, np.integer) and np.all((values >= 1900) & (values <= 2200)):
        return tuple(f"{int(v):04d}-01-01" for v in values)
    raise SourceError(f"{name} has times that are neither years nor CF times: {values[:3]}…")


def zarr_tile(
    url: str,
    path: str,
    *,
    bands: Sequence[str],
    attrs: Mapping[str, Any],
    times: Sequence[str],
    steps: Sequence[int] | None = None,
    fill: float | None = None,
    version: str = "",
    beside: Mapping[str, Tile] | None = None,
    token: str = "",
    labels: Sequence[str] = (),
) -> Tile:
    """A tile of a Zarr array.

    Parameters
    ----------
    url, path : str
        The store, and the array in it.
    bands : sequence of str
        Labels; empty where the array has no band axis. Fewer than stored read a prefix.
    attrs : mapping
        With the place (see :func:`geobox_from_attrs`).
    times : sequence of str
        ISO dates.
    steps : sequence of int, optional
        Their positions along the array's time axis; 0, 1, … by default.
    fill : float, optional
        The value of missing vectors here, whatever marks them in the store; the array's fill value by default. A
        chunk that was never written is missing.
    version : str
        Version of the product.
    beside : mapping, optional
        Planes that belong to it.
    token : str
        Token of the store's state.
    labels : sequence of str
        Labels of the stored bands, where the store has them: bands are placed by them where they are ``bands``
        in another order.

    Raises
    ------
    SourceError
        If it has not the axes or the bands, or claims more than there is.
    """
    array = open_node(url, path, token)
    name = f"{url}/{path}" if path else url
    dims = axes_of(array, name)
    sizes = dict(zip(dims, array.shape, strict=True))
    inner = dict(zip(dims, array.chunks, strict=True))  # of a sharded array these are the inner chunks
    if bands and "band" not in sizes:
        raise SourceError(f"{name} has no band axis; its axes are {dims}")
    if bands and sizes["band"] < len(bands):
        raise SourceError(f"{name} has {sizes['band']} bands instead of {len(bands)}")
    geobox = geobox_from_attrs(attrs, (sizes["y"], sizes["x"]), name)
    check_extent(geobox, name)
    stored = None if array.fill_value is None else float(array.fill_value)
    if array.dtype.kind == "f":
        refuse_scaling(scaling_in(array.attrs), name)
    fill = (stored or 0.0) if fill is None else fill
    nodata = _nodata_of(array)
    differs = stored is not None and np.isfinite(stored) and stored != fill
    floats = np.issubdtype(array.dtype, np.floating)
    reader = ZarrReader(
        url,
        path,
        dims,
        steps=tuple(steps if steps is not None else range(len(times))),
        bands=_positions(bands, labels, sizes.get("band", 0), name),
        token=token,
        # planes are left as they lie: what is not finite in them has a meaning of its own
        fill=fill if bands and (floats or differs or nodata not in (None, fill)) else None,
        nodata=nodata,
        unwritten=stored if differs else None,
    )
    return Tile(
        name=name,
        geobox=geobox,
        times=tuple(times),
        reader=reader,
        dtype=str(array.dtype),
        bands=tuple(bands),
        block=(inner["y"], inner["x"]),
        fill=fill,
        token=token,
        version=version,
        beside=dict(beside or {}),
    )


def _positions(bands: Sequence[str], labels: Sequence[str], stored: int, name: str) -> tuple[int, ...] | None:
    """Where the bands lie along their axis; None where all lie as they should."""
    if not bands:
        return None
    named = list(map(str, labels))
    if len(named) == stored and set(bands) <= set(named):
        if len(set(named)) != stored:
            twice = next(each for each in named if named.count(each) > 1)
            raise SourceError(f"{name} has two bands of one name, {twice!r}")
        positions = tuple(named.index(band) for band in bands)
    else:
        positions = tuple(range(len(bands)))
    return None if positions == tuple(range(stored)) else positions


def _nodata_of(array: Any) -> float | None:
    """The nodata value that an array's attributes declare; xarray writes a float as base64."""
    for key in NODATA_KEYS:
        value = array.attrs.get(key)
        if isinstance(value, str):
            try:
                value = float(np.frombuffer(base64.standard_b64decode(value), "<f8")[0])
            except ValueError:
                continue
        if value is not None and np.ndim(value) == 0:
            return float(value)
    return None


# --- codes with a scale per pixel ---------------------------------------------------------------------------------


def scaled_tile(codes: Tile, scales: Tile, *, together: bool = False) -> Tile:
    """Codes with their scales beside them, which tell where they are missing.

    Where both will be read, one after the other by one task, scales of a remote store come while the codes do.
    """
    assert isinstance(codes.reader, ZarrReader)
    assert isinstance(scales.reader, ZarrReader)
    ahead = together and is_remote(codes.reader.url)
    beside = _ReadAhead(**vars(scales.reader)) if ahead else scales.reader
    scales = replace(scales, reader=beside)
    return replace(
        codes, reader=_ScaledReader(codes.reader, beside), decider=scales, beside={"scale": scales}
    )


#: What was read ahead, until it is asked for.
_AHEAD: BlockCache[np.ndarray] = BlockCache(INDEXED)


@dataclass(frozen=True)
class _ReadAhead(ZarrReader):
    """Gives what it has begun to read while something else was read."""

    def read(self, time: int, rows: slice, cols: slice) -> np.ndarray:
        """A window (y, x)."""
        return self._read_ahead(super().read, time, rows, cols)

    def read_at(self, time: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Pixels (n,)."""
        return self._read_ahead(super().read_at, time, rows, cols)

    def _read_ahead(self, read: Callable[..., np.ndarray], *place: Any) -> np.ndarray:
        key = self._key(place)
        try:
            return _AHEAD.get(key, lambda: read(*place))
        finally:
            _AHEAD.drop(key)

    def _key(self, place: Iterable[Any]) -> Hashable:
        return self, current(), *(each.tobytes() if isinstance(each, np.ndarray) else each for each in place)

    @contextmanager
    def begun(self, read: Callable[..., np.ndarray], *place: Any) -> Iterator[None]:
        """Read it in another thread while something else is read."""
        key = self._key(place)
        with under_way(lambda make: _AHEAD.get(key, make), [lambda: read(self, *place)]) as (task,):
            try:
                yield
            except BaseException:  # then nobody will take it
                task.add_done_callback(lambda _: _AHEAD.drop(key))
                raise


@dataclass(frozen=True)
class _ScaledReader:
    """Reads codes, and raises where their chunk is gone though their scales are there: lost is not missing."""

    codes: ZarrReader
    scales: ZarrReader

    def _begun(self, read: Callable[..., np.ndarray], *place: Any) -> AbstractContextManager[None]:
        return self.scales.begun(read, *place) if isinstance(self.scales, _ReadAhead) else nullcontext()

    def read_at(self, time: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Pixels (band, n); whether one of zeros was lost is for a window to find out."""
        with self._begun(ZarrReader.read_at, time, rows, cols):
            return self.codes.read_at(time, rows, cols)

    def transfer(self, spans: Sequence[tuple[int, slice, slice]]) -> tuple[int, int]:
        """Requests and bytes of windows of the codes: scales are an array of their own."""
        return self.codes.transfer(spans)

    def objects(self, time: int, rows: slice, cols: slice) -> Iterator[str]:
        """Paths of the objects that a window is stored in."""
        return chain(self.codes.objects(time, rows, cols), self.scales.objects(time, rows, cols))

    def read(self, time: int, rows: slice, cols: slice) -> np.ndarray:
        """A window (band, y, x)."""
        with self._begun(ZarrReader.read, time, rows, cols):
            codes = self.codes.read(time, rows, cols)
        empty = ~codes.any(axis=0)
        if not empty.any():
            return codes
        absent, names = self.codes.never_written(time, rows, cols)
        lost = absent & empty
        if lost.any():
            scales = self.scales.read(time, rows, cols)
            lost &= np.isfinite(scales) & (scales != 0)
        if lost.any():
            raise SourceError(
                f"{names[0]} does not exist or lacks a chunk, though {self.scales.path} says that "
                f"{int(lost.sum())} pixels have data there: codes were lost; fetch the store again"
            )
        return codes
