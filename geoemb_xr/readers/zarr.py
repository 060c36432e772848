"""Zarr stores as tiles: opened by their metadata alone, read window by window.

Nothing of a store is read when it is opened but its metadata: x and y come from the affine in the attributes
(the coordinate array of a global mosaic would be 32 MB).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import SourceError, require
from geoemb_xr.readers.tiles import Tile
from geoemb_xr.stores.objects import is_remote, object_store


def store_of(url: str) -> Any:
    """What :func:`zarr.open` takes for a path or URL; object stores are read anonymously."""
    import zarr

    if not is_remote(url):  # as a string it would be read as a URL: "#" and "?" are letters of a path
        return zarr.storage.LocalStore(url, read_only=True)
    return zarr.storage.ObjectStore(object_store(url), read_only=True)


@lru_cache(maxsize=256)
def open_node(url: str, path: str = "", token: str = "") -> Any:
    """A group or array of a store, opened once per process and state of the store.

    Raises
    ------
    SourceError
        If there is none.
    """
    import zarr

    if not is_remote(url) and not Path(url).exists():
        raise FileNotFoundError(f"no such store: {url}")
    try:
        return zarr.open(store_of(url), path=path or None, mode="r")
    except (FileNotFoundError, KeyError, ValueError) as error:
        where = f"{url} has no {path!r}" if path else f"{url} is not a Zarr store"
        raise SourceError(f"{where}: {error}") from error


def store_token(url: str) -> str:
    """What changes when a local store is rewritten: its metadata's size and modification time."""
    if is_remote(url):
        return url
    metadata = [Path(url) / name for name in ("zarr.json", ".zgroup", ".zattrs", ".zmetadata")]
    return "-".join(f"{p.stat().st_size}-{p.stat().st_mtime_ns}" for p in metadata if p.exists())


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
        Positions along its time axis, one a step of the tile.
    bands : int, optional
        How many of the bands, where not all.
    token : str
        Of the store's state.
    """

    url: str
    path: str
    dims: tuple[str, ...]
    steps: tuple[int, ...] = (0,)
    bands: int | None = None
    token: str = ""

    def read(self, time: int, rows: slice, cols: slice) -> np.ndarray:
        """A window (band, y, x), or (y, x) where the array has no bands."""
        array = open_node(self.url, self.path, self.token)
        wanted: dict[str, Any] = {
            "time": self.steps[time],
            "band": slice(0, self.bands),
            "y": rows,
            "x": cols,
        }
        values = np.asarray(array[tuple(wanted[d] for d in self.dims)])
        left = [d for d in self.dims if d != "time"]
        return values.transpose([left.index(d) for d in ("band", "y", "x") if d in left])


def written_steps(url: str, path: str, token: str = "") -> frozenset[int] | None:
    """Positions along the first axis of an array that were ever written; None where that cannot be listed.

    An unwritten chunk reads as the fill value, so that a year which was never made looks like a year without
    data. Listing one folder tells them apart: an array with chunks of one step keeps a folder for each.
    """
    array = open_node(url, path, token)
    if array.metadata.zarr_format != 3 or (array.shards or array.chunks)[0] != 1 or array.ndim < 2:
        return None
    if is_remote(url):
        obstore = require("obstore", "remote")
        try:
            listed = obstore.list_with_delimiter(object_store(url), f"{path}/c")
        except obstore.exceptions.BaseError:  # a store may be readable and not listable
            return None
        names = [prefix.rstrip("/").rpartition("/")[2] for prefix in listed["common_prefixes"]]
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
        If they are not named, or one is unknown.
    """
    given = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not given or any(g is None for g in given):
        raise SourceError(f"{name} does not name its dimensions")
    unknown = [g for g in given if not (g in _AXES or str(g).startswith("band"))]
    if unknown:
        raise SourceError(f"{name} has unknown dimensions {unknown}; known are {', '.join(_AXES)}")
    return tuple(_AXES.get(g, "band") for g in given)


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
    values = np.asarray(node[:])
    if len(values) != length:
        raise SourceError(f"{name} has {length} time steps but {len(values)} times")
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
        Nodata; the array's fill value by default.
    version : str
        Of the product.
    beside : mapping, optional
        Planes that belong to it.
    token : str
        Of the store's state.
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
    return Tile(
        name=name,
        geobox=geobox_from_attrs(attrs, (sizes["y"], sizes["x"]), name),
        times=tuple(times),
        reader=ZarrReader(
            url,
            path,
            dims,
            steps=tuple(steps if steps is not None else range(len(times))),
            bands=len(bands) if bands and len(bands) != sizes.get("band") else None,
            token=token,
        ),
        dtype=str(array.dtype),
        bands=tuple(bands),
        block=(inner["y"], inner["x"]),
        fill=float(array.fill_value) if fill is None else fill,
        token=token,
        version=version,
        beside=dict(beside or {}),
    )
