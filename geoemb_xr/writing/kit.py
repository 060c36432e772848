"""A field kit: vectors in codes, a probe, and a script that needs nothing but NumPy, in one zip."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr._version import __version__
from geoemb_xr.core import geometry
from geoemb_xr.core.arrays import codec_of, encode, encode_with
from geoemb_xr.core.citing import cite
from geoemb_xr.core.codecs import PER_PIXEL_SCALE
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.fitted import check_model
from geoemb_xr.core.local_paths import with_ending
from geoemb_xr.core.model import check_embedding, comparability_key, is_encoded, product
from geoemb_xr.core.whole_files import full_disk_named, replacing
from geoemb_xr.execution.computing import computed
from geoemb_xr.geo import places
from geoemb_xr.probes.labelling import read_labels
from geoemb_xr.probes.probe import Probe
from geoemb_xr.probes.samples import guess_target
from geoemb_xr.writing.staging import check_target
from geoemb_xr.writing.zarr import write_in_gzip

#: What the script knows: formulas of its own, so that it needs no package.
_CODECS = ("signed-square", "per-pixel-scale", "sign", "unscaled", "offset-16")
_METHODS = ("ridge", "logistic", "centroid", "mlp")
#: A picture with a palette has so many colours beside that of no data.
_CLASSES = 255
#: How far the script may misplace a point, in pixels.
_MISPLACED = 0.05
_MAIN = "from predict import main\n\nmain()\n"


def field_kit(
    array: xr.DataArray,
    probe: Probe,
    path: str | os.PathLike[str],
    *,
    labels: Any = None,
    mode: str = "w-",
    chunks: int = 256,
) -> Path:
    """Write a map that needs no network and no package: one zip for a laptop or a board in the field. Computes.

    The zip is a Zarr store (``gx.open(path)`` reads it) that also holds the probe, a picture of its map for QField
    (``map.gpkg``), the licence, and ``predict.py``, which maps windows, asks for points and learns from new labels
    with Python and NumPy alone, in less than 512 MB: ``python kit.zip about``. Labels that were taken in the field
    are CSV files with lon, lat and label; at home ``probe.update`` takes them as well.

    Parameters
    ----------
    array : DataArray (time?, band, y, x)
        An embedding on a grid. Codes stay as they are; floats are written as the product's codes, or as int8 with a
        scale per pixel where it has none.
    probe : Probe
        Probe by ``ridge``, which can learn on, ``logistic``, ``centroid`` or ``mlp``.
    path : path
        Path of the zip; ``.zip`` is added where it has no ending.
    labels : table, GeoDataFrame or path, optional
        Labels to take along, as points, in ``labels.csv``.
    mode : {"w-", "w"}
        Refuse where the file exists; or replace it.
    chunks : int
        Side of what is read at least, in pixels.

    Returns
    -------
    Path
        Path of the zip.

    Raises
    ------
    FileExistsError
        If the file exists and ``mode`` is ``"w-"``.
    ComparabilityError
        If the probe was fitted on another product or version.
    EmbeddingError
        If the array is not a raster, or the script has no formula for the probe or the codes.

    Examples
    --------
    >>> import geoemb_xr as gx, tempfile
    >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64), decode=False).emb.year(2018)
    >>> labels = gx.testing.scene().points(120, radius=300)
    >>> probe = da.emb.fit_probe(labels, target="land_cover", method="ridge")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kit = gx.field_kit(da, probe, f"{folder}/kit.zip")
    ...     bool((gx.open(kit, decode=False) == da).all()), kit.stat().st_size < 2e6
    (True, True)
    """
    target = check_target(with_ending(path, ".zip"), mode)
    array = _checked(array, probe)
    with (
        full_disk_named(target),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder,
    ):
        stage = Path(folder)
        write_in_gzip(array.rename("embedding"), stage / "store", chunks)
        probe.save(stage / "probe.npz")
        (stage / "kit.json").write_text(json.dumps(_facts(array), indent=1))
        (stage / "LICENCE.txt").write_text(str(cite(array)) + "\n")
        script = Path(__file__).with_name("predict_alone.py").read_text()
        (stage / "predict.py").write_text(script)
        (stage / "__main__.py").write_text(_MAIN)
        if labels is not None:
            _points(labels, probe.target).to_csv(stage / "labels.csv", index=False)
        _write_picture(array, probe, stage / "map.gpkg")
        with replacing(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for inside, source in _files(stage):
                archive.write(source, inside)
    return target


def _checked(array: xr.DataArray, probe: Probe) -> xr.DataArray:
    """The array in codes that the script knows."""
    found = check_embedding(array, "field_kit")
    if not {"y", "x"} <= set(array.dims):
        raise EmbeddingError(f"field_kit takes a raster with y and x; got {tuple(map(str, array.dims))}")
    check_model(probe, array, "field_kit")
    if probe.method not in _METHODS:
        raise EmbeddingError(
            f"the script of a field kit has no formula for a {probe.method} probe; fit one with "
            f"method={', '.join(map(repr, _METHODS))}"
        )
    if probe.legend is not None and len(probe.legend.values) > _CLASSES:
        raise EmbeddingError(
            f"the script of a field kit draws {_CLASSES} classes; this probe has {len(probe.legend.values)}"
        )
    if not is_encoded(array):
        array = encode(array) if found.codec is not None else encode_with(array, PER_PIXEL_SCALE)
    codec = codec_of(array)
    if codec.name not in _CODECS:
        raise EmbeddingError(
            f"the script of a field kit does not decode {codec.name!r}, the codes of {found.name}; it decodes "
            f"{', '.join(_CODECS)}"
        )
    dims = [d for d in ("time", "band", "y", "x") if d in array.dims]
    return geometry.north_up_array(array.transpose(*dims))


def _files(stage: Path) -> Iterator[tuple[str, Path]]:
    """Names in the zip, and files: the store's own at its root."""
    for source in sorted(each for each in stage.rglob("*") if each.is_file()):
        inside = source.relative_to(stage)
        yield inside.as_posix().removeprefix("store/"), source


def _facts(array: xr.DataArray) -> dict[str, Any]:
    """What the script must know of an array."""
    grid = geometry.geobox_of(array, "field_kit")
    crs = geometry.as_crs(grid.crs)
    own, codec, cited = product(array.attrs["product"]), codec_of(array), cite(array)
    name, version = comparability_key(array)
    times = np.atleast_1d(array.coords["time"].values) if "time" in array.coords else []
    rows, cols = _edges(grid.shape)
    lon, lat = _lonlat(grid, rows, cols)
    return {
        "id": uuid.uuid4().hex,
        "software": f"geoemb_xr {__version__}",
        "variable": "embedding",
        "scale": codec.scale or "",
        "product": name,
        "version": version,
        "title": own.title or name,
        "codec": codec.name,
        "unit_norm": own.unit_norm,
        "times": [str(each)[:10] for each in times],
        "crs_wkt": crs.to_wkt(),
        "affine": list(grid.affine)[:6],
        "bounds": [round(float(each), 5) for each in (lon.min(), lat.min(), lon.max(), lat.max())],
        "to_grid": _polynomial(grid),
        "attribution": cited.attribution,
        "licence": cited.licence,
    }


# --- places without PROJ ------------------------------------------------------------------------------------------


def _edges(shape: Any) -> tuple[np.ndarray, np.ndarray]:
    rows, cols = np.meshgrid(np.linspace(0, shape[0], 9), np.linspace(0, shape[1], 9), indexing="ij")
    return rows.ravel(), cols.ravel()


def _lonlat(grid: Any, rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b, c, d, e, f = list(grid.affine)[:6]
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    move = geometry.transformer(geometry.as_crs(grid.crs), geometry.as_crs(geometry.LONLAT))
    lon, lat = move.transform(x, y)
    return np.asarray(lon), np.asarray(lat)


def _polynomial(grid: Any) -> dict[str, Any]:
    """Rows and columns as polynomials of longitude and latitude, for a script that has no PROJ."""
    side = np.linspace(0, 1, 33)
    rows, cols = (
        each.ravel() for each in np.meshgrid(side * grid.shape[0], side * grid.shape[1], indexing="ij")
    )
    lon, lat = _lonlat(grid, rows, cols)
    centre = [float((each.min() + each.max()) / 2) for each in (lon, lat)]
    half = [float(np.ptp(each) / 2) or 1.0 for each in (lon, lat)]
    fitted = (np.arange(len(rows)) % 2) == 0  # the others tell how good it is
    for degree in range(2, 9):
        terms = _terms((lon - centre[0]) / half[0], (lat - centre[1]) / half[1], degree)
        found = [np.linalg.lstsq(terms[fitted], each[fitted], rcond=None)[0] for each in (rows, cols)]
        off = max(np.abs(terms @ own - each).max() for own, each in zip(found, (rows, cols), strict=True))
        if off < _MISPLACED:
            return {
                "centre": centre,
                "half": half,
                "degree": degree,
                "row": found[0].tolist(),
                "col": found[1].tolist(),
            }
    raise EmbeddingError(
        f"the area is too large to find places in it without PROJ (a polynomial is {off:.2f} pixels off): make "
        "several kits of parts of it"
    )


def _terms(u: np.ndarray, v: np.ndarray, degree: int) -> np.ndarray:
    powers = [u**i * v**j for i in range(degree + 1) for j in range(degree + 1 - i)]
    return np.stack(powers, axis=-1)


# --- labels and a picture -----------------------------------------------------------------------------------------


def _points(labels: Any, target: str) -> Any:
    """Labels as a table with lon, lat and label, as the script takes and gives them."""
    import pandas as pd

    given = places.read_places(read_labels(labels)).present("field_kit")
    name = target if target in given.table else guess_target(given.table, None, set(given.place_columns))
    lon, lat = given.xy(geometry.LONLAT)
    return pd.DataFrame({"lon": lon, "lat": lat, "label": given.table[name].to_numpy()})


def _write_picture(array: xr.DataArray, probe: Probe, path: Path) -> None:
    """The probe's map of the last year in colours, as a GeoPackage."""
    import rasterio

    last = array.isel(time=-1) if "time" in array.dims else array
    made = probe.predict(last).transpose("y", "x")
    values = computed(made).values
    if probe.legend is None:
        low, high = np.nanpercentile(values, (2, 98)) if np.isfinite(values).any() else (0.0, 1.0)
        grey = np.clip((values - low) / ((high - low) or 1.0) * 255, 0, 255)
        there = np.isfinite(values)
        shade = np.where(there, grey, 0).astype(np.uint8)
        picture = np.stack([shade, shade, shade, np.where(there, 255, 0).astype(np.uint8)])
    else:
        table = np.zeros((int(max(probe.legend.values)) + 1, 4), np.uint8)
        for code, colour in zip(probe.legend.values, probe.legend.colours, strict=True):
            table[code] = [*bytes.fromhex(colour[1:]), 255]
        picture = np.moveaxis(table[values], -1, 0)
    grid = geometry.geobox_of(made, "field_kit")
    with rasterio.open(
        path,
        "w",
        driver="GPKG",
        width=picture.shape[2],
        height=picture.shape[1],
        count=4,
        dtype="uint8",
        crs=rasterio.crs.CRS.from_wkt(geometry.as_crs(grid.crs).to_wkt()),
        transform=grid.affine,
        RASTER_TABLE="map",
        RASTER_DESCRIPTION=f"{probe.target}. {cite(array).attribution}",
    ) as file:
        file.write(np.ascontiguousarray(picture))
