"""Cubes of Embed2Scale and NeuCo-Bench, and SSL4EO-S12's own: zipped Zarr stores, four seasons each, by sensor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.model import BAND

#: Folders of sensors, and the bands of their cubes in order.
BANDS = {
    "s1": ("VV", "VH"),
    "s2l1c": ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"),
    "s2l2a": ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"),
}
SEASONS = ("spring", "summer", "autumn", "winter")
_SUFFIX = ".zarr.zip"
_CUBES = 16


def open_cubes(
    folder: str | os.PathLike[str], *, sensors: Sequence[str] | None = None
) -> dict[str, xr.DataArray]:
    """Open cubes of a benchmark as stacks of chips by sensor, as ``gx.embed`` takes them. Lazy.

    Parameters
    ----------
    folder : path
        Folder with a folder for each sensor, ``s1``, ``s2l1c``, ``s2l2a``, and in them, at any depth, cubes named
        ``<id>.zarr.zip`` with the variable ``bands``.
    sensors : sequence of str, optional
        Names of sensors; all that are there by default.

    Returns
    -------
    dict of DataArray (location, time, band, y, x)
        By sensor; ``location`` is the cube's id, in order, and ``season`` lies along ``time``. Radar is in dB.
        Optical numbers are digital numbers without an offset in Embed2Scale's and NeuCo-Bench's cubes. In those
        of SSL4EO-S12 v1.1, which look alike, they are 1,000 more: ``gx.harmonize(cubes["s2l2a"], True)`` takes
        that off.

    Raises
    ------
    SourceError
        If there are no cubes, or one sensor lacks some of another's; when computed, if a cube cannot be read.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> cubes = gx.open_cubes("embed2scale/data_eval/data")  # doctest: +SKIP
    >>> vectors = gx.embed(cubes, gx.encoder("rcf").with_chip(264), time="each").mean(
    ...     "time"
    ... )  # doctest: +SKIP
    """
    root = Path(folder)
    found = [s for s in BANDS if (root / s).is_dir()] if sensors is None else list(sensors)
    unknown = sorted(set(found) - set(BANDS))
    if unknown:
        raise SourceError(f"cubes have the sensors {', '.join(BANDS)}; got {', '.join(unknown)}")
    files = {
        s: {p.name.removesuffix(_SUFFIX): p for p in sorted((root / s).rglob(f"*{_SUFFIX}"))} for s in found
    }
    if not found or not any(files.values()):
        raise SourceError(f"{root} has no cubes: they lie in folders {', '.join(BANDS)}, named <id>{_SUFFIX}")
    ids = sorted(set().union(*files.values()))
    for sensor, own in files.items():
        lacking = [i for i in ids if i not in own]
        if lacking:
            raise SourceError(
                f"{root / sensor} lacks {len(lacking)} of {len(ids)} cubes, such as {lacking[0]}: say which "
                "sensors are whole with sensors=[…]"
            )
    return {sensor: _stack(sensor, [str(own[i]) for i in ids], ids, root) for sensor, own in files.items()}


def _stack(sensor: str, files: list[str], ids: list[str], root: Path) -> xr.DataArray:
    import dask
    import dask.array as da

    first = _read([files[0]], len(BANDS[sensor]))
    blocks = [
        da.from_delayed(
            dask.delayed(_read)(files[i : i + _CUBES], len(BANDS[sensor])),
            (min(_CUBES, len(files) - i), *first.shape[1:]),
            first.dtype,
        )
        for i in range(0, len(files), _CUBES)
    ]
    coords: dict[str, Any] = {"location": ids, BAND: list(BANDS[sensor])}
    if first.shape[1] == len(SEASONS):
        coords["season"] = ("time", list(SEASONS))
    return xr.DataArray(
        da.concatenate(blocks),
        dims=("location", "time", BAND, "y", "x"),
        coords=coords,
        attrs={"source": str(root / sensor)},
        name="images",
    )


def _read(files: Sequence[str], bands: int) -> np.ndarray:
    """Cubes ``(location, time, band, y, x)`` as they are stored."""
    import zarr

    parts: list[np.ndarray] = []
    for file in files:
        try:
            with zarr.storage.ZipStore(file, mode="r") as store:
                values = np.asarray(zarr.open_array(store, mode="r", path="bands")[...])
        except Exception as error:  # zip's, zarr's and codecs' own are of many kinds
            raise SourceError(
                f"{file} cannot be read as a cube with the variable 'bands': {error}"
            ) from error
        values = values.reshape(values.shape[-4:]) if values.ndim > 4 else values
        if values.ndim != 4 or values.shape[1] != bands or (parts and values.shape != parts[0].shape):
            raise SourceError(
                f"{file} has the shape {values.shape}; its sensor has (season, {bands}, y, x)"
                + (f", and the cube before {parts[0].shape}" if parts else "")
            )
        parts.append(values)
    return np.stack(parts)
