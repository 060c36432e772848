"""Labels from files, tables and rasters; of rasters a stratified sample is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.core.legend import SOURCE, Legend, is_class_map, legend_of
from geoemb_xr.core.local_paths import existing, local_path
from geoemb_xr.core.missing import nodata_in, refuse_scaling, scaling_in
from geoemb_xr.execution import progress
from geoemb_xr.execution.computing import compute
from geoemb_xr.execution.hashes import mixed
from geoemb_xr.geo import places, tables

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


# --- reading labels -------------------------------------------------------------------------------------------


def read_labels(labels: Any) -> xr.DataArray | pd.DataFrame:
    """Labels as a raster, or as a table that :func:`geoemb_xr.geo.places.read_places` reads.

    Parameters
    ----------
    labels : path, table, GeoJSON, mapping or DataArray
        A raster or the path of a GeoTIFF; else what :func:`geoemb_xr.geo.tables.table_of` takes.

    Raises
    ------
    EmbeddingError
        If it is neither.
    SourceError
        If a file is missing or of another kind.
    """
    if (
        isinstance(labels, xr.DataArray | xr.Dataset)
        and len(labels.sizes) > 1
        and "location" not in labels.dims
    ):
        return plain_raster(labels)
    if labels is None or (np.isscalar(labels) and not isinstance(labels, str | bytes)):
        raise EmbeddingError(
            f"labels are a table with lon and lat, a GeoDataFrame, a path or a raster; got {type(labels).__name__}"
        )
    file = tables.file_of(labels)
    if file is not None and (path := local_path(file)).suffix.lower() in (".tif", ".tiff"):
        return _open_raster(str(existing(path, "file of labels")))
    table = places.with_places(tables.table_of(labels)[0])
    if file is not None:
        table.attrs[tables.FILE] = file
    return table


def plain_raster(raster: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """A label raster as others hold it with axes y and x: without axes of one step, whole numbers as such.

    Raises
    ------
    EmbeddingError
        If it is a Dataset of several variables, or its numbers are stored by a scale.
    """
    if isinstance(raster, xr.Dataset):
        names = [name for name, each in raster.data_vars.items() if each.ndim]
        if len(names) != 1:
            raise EmbeddingError(
                f"labels are one raster; this Dataset has the variables {names}: give one of them, dataset[name]"
            )
        raster = raster[names[0]]
    found = geometry.plain_names(raster)
    single = {dim: 0 for dim, size in found.sizes.items() if size == 1 and dim not in ("y", "x", "location")}
    found = found.isel(single, drop=False)
    refuse_scaling(scaling_in(found.attrs), "the label raster")
    return _unmasked_codes(found)


def _unmasked_codes(raster: xr.DataArray) -> xr.DataArray:
    """Whole numbers that were read as floats, NaN where masked, as whole numbers: they are codes of classes."""
    encoding = raster.encoding
    stored = np.dtype(encoding.get("rasterio_dtype", encoding.get("dtype", raster.dtype)))
    scaled = (encoding.get("scale_factor", 1), encoding.get("add_offset", 0)) != (1, 0)
    if raster.dtype.kind != "f" or stored.kind not in "iu" or scaled:
        return raster
    unused = np.iinfo(np.int64).min
    if raster.chunks is not None:
        return raster.copy(data=raster.data.map_blocks(_in_whole, dtype=np.int64)).assign_attrs(
            _FillValue=unused
        )
    if (raster % 1 > 0).any():  # they were resampled or scaled since: values
        return raster
    return raster.copy(data=_in_whole(raster.values)).assign_attrs(_FillValue=unused)


def _in_whole(values: np.ndarray) -> np.ndarray:
    """Codes as the whole numbers that they were, the least of 64 bits where there are none."""
    found = np.where(np.isfinite(values), values, float(np.iinfo(np.int64).min))
    wrong = found[found % 1 > 0]
    if wrong.size:
        raise EmbeddingError(
            f"the label raster was read as whole numbers and holds {wrong[0]:g} now. Resample codes of classes by "
            "nearest or mode; of values drop what their file said (.drop_encoding())"
        )
    return found.astype(np.int64)


def _open_raster(path: str) -> xr.DataArray:
    """Open the one band of a GeoTIFF of labels lazily; masked pixels get the value in ``_FillValue``.

    Raises
    ------
    SourceError
        If it is not a GeoTIFF, does not say where it lies, or has several bands.
    """
    import rasterio
    import rioxarray

    # never another driver, which might fetch what a file called .tif names; its own place before a sidecar's
    options = {"driver": "GTiff", "GEOREF_SOURCES": "INTERNAL,PAM,WORLDFILE"}
    try:
        with rasterio.open(path, **options) as file:
            alpha = file.count > 1 and file.colorinterp[-1] == rasterio.enums.ColorInterp.alpha
            bands, placed = file.count - alpha, file.crs is not None and not file.transform.is_identity
            masked = alpha or rasterio.enums.MaskFlags.per_dataset in file.mask_flag_enums[0]
        if not placed:
            raise SourceError(f"the labels {path} do not say where they lie: no CRS, or no geotransform")
        if bands != 1:
            raise SourceError(
                f"the labels {path} have {bands} bands; a label raster has one: open it with rioxarray, take one "
                "with .sel(band=…), and give that"
            )
        raster = rioxarray.open_rasterio(path, chunks="auto", cache=False, masked=masked, **options)
    except rasterio.errors.RasterioError as error:
        raise SourceError(f"the labels {path} could not be opened as a GeoTIFF: {error}") from error
    assert isinstance(raster, xr.DataArray)
    raster = raster.isel(band=0, drop=True)
    refuse_scaling(scaling_in(raster.attrs), f"the label raster {path}")
    return _unmasked_codes(raster)


# --- label rasters --------------------------------------------------------------------------------------------


def labels(raster: Any, path: Any = None, *, per_class: int | None = 500, seed: int = 0) -> Any:
    """Labels of the field by name, or labelled points drawn from a label raster. Drawing computes.

    Parameters
    ----------
    raster : DataArray (y, x), str or dataset of torchgeo
        A label raster to draw from: integers are classes (0 is no data in a class map, else what ``_FillValue``
        says), floats are values. Or what is to be read: ``"nlcd"``, ``"lcmap"``, ``"worldcover"``, ``"eurocrops"``,
        ``"eurosat"``, or one of torchgeo's datasets of labels.
    path : path or list of paths, optional
        Files of the named labels, or a folder that holds them.
    per_class : int, optional
        Number of points per class that are drawn from a raster, or in all where labels are floats; None takes all.
    seed : int
        Any whole number; another draws others. The draw is by a hash of the pixel's place: chunks never change it.

    Returns
    -------
    pandas.DataFrame, GeoDataFrame or DataArray
        A table of ``lon``, ``lat`` and the label, named as the raster. NLCD, LCMAP and WorldCover give a lazy class
        map with their names and colours, and the year of the file as ``time``. EuroCrops gives its parcels and
        EuroSAT the footprints of its chips, with the column ``label``. All are labels for
        :func:`geoemb_xr.fit_probe` and :func:`geoemb_xr.evaluate`, which bring them to the grid of any product.

    Raises
    ------
    EmbeddingError
        If the raster has more dimensions than y and x.
    SourceError
        If a file is missing or of another kind.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> truth = gx.testing.scene().truth(gx.testing.geobox((64, 64)), 2018)
    >>> gx.labels(truth, per_class=10)["land_cover"].value_counts().max()
    np.int64(10)
    """
    if isinstance(raster, str):
        from geoemb_xr.probes.label_sources import read_source

        return read_source(raster, path)
    if not isinstance(raster, xr.DataArray | xr.Dataset):
        from geoemb_xr.probes.label_sources import is_torchgeo, of_torchgeo

        if is_torchgeo(raster):
            return of_torchgeo(raster)
        raise EmbeddingError(
            "labels takes a label raster (y, x), a name such as 'nlcd' with a path, or a dataset of torchgeo; got "
            f"{type(raster).__name__}"
        )
    return drawn_points(plain_raster(raster), per_class=per_class, seed=seed)


def drawn_points(raster: xr.DataArray, *, per_class: int | None = 500, seed: int = 0) -> pd.DataFrame:
    """Labelled points of a label raster, as :func:`labels` draws them."""
    if set(raster.dims) != {"y", "x"}:
        raise EmbeddingError(
            f"a label raster has dims y and x; got {tuple(raster.dims)}: take one year or one band"
        )
    raster = raster.transpose("y", "x")
    grid = geometry.geobox_of(raster, "labels")
    found = _draw_all(raster, grid, per_class, seed)
    to_lonlat = geometry.transformer(geometry.as_crs(grid.crs), geometry.as_crs(geometry.LONLAT))
    y, x = found.beside
    lon, lat = to_lonlat.transform(x, y)
    name = "label" if raster.name is None else str(raster.name)
    table = pd.DataFrame({"lon": lon, "lat": lat, name: found.label})
    if is_class_map(raster):
        table.attrs["legend"] = {**legend_of(raster).attrs(), "column": name}
    if SOURCE in raster.attrs:
        table.attrs[SOURCE] = raster.attrs[SOURCE]
    return table


def legend_for(table: Any, target: str) -> Legend | None:
    """The legend that a table carries for its column of labels; None for any other column."""
    attrs = getattr(table, "attrs", {}).get("legend")
    if attrs is None or attrs.get("column", target) in set(table.columns) - {target}:
        return None
    return legend_of(xr.DataArray(attrs=attrs))


def smallest(strata: np.ndarray, hashes: np.ndarray, count: int | None) -> np.ndarray:
    """Positions of the smallest hashes of each stratum, so many (None: all), in the order of their hashes."""
    order = np.lexsort((hashes, strata))
    start = np.searchsorted(strata[order], strata[order], side="left")
    rank = np.arange(order.size) - start
    kept = order if count is None else order[rank < count]
    return np.asarray(kept[np.argsort(hashes[kept], kind="stable")])


class Drawn(NamedTuple):
    """Labelled pixels: their labels, the hashes that select them, and their further columns."""

    label: np.ndarray
    hash: np.ndarray
    beside: tuple[np.ndarray, ...]

    def first(self, per_class: int | None) -> Drawn:
        """Those with the smallest hashes, so many of each class, in the order of their hashes."""
        kept = first(self.label, self.hash, per_class)
        return Drawn(self.label[kept], self.hash[kept], tuple(each[kept] for each in self.beside))

    @staticmethod
    def merge(parts: Sequence[Drawn], per_class: int | None) -> Drawn:
        """The first of several draws."""
        labels, hashes, besides = zip(*parts, strict=True)
        beside = tuple(np.concatenate(each) for each in zip(*besides, strict=True))
        return Drawn(np.concatenate(labels), np.concatenate(hashes), beside).first(per_class)


def first(labels: np.ndarray, hashes: np.ndarray, per_class: int | None) -> np.ndarray:
    """Positions of the labels with the smallest hashes: so many of each class, or in all where they are values."""
    if labels.dtype.kind == "f":
        return smallest(np.zeros(labels.size, np.int8), hashes, per_class)
    strata = labels if labels.dtype.kind in "iub" else pd.factorize(labels)[0]  # texts
    return smallest(strata, hashes, per_class)


def nodata_of(raster: xr.DataArray) -> Any:
    """Return the value of pixels without a label: the declared one, else 0 in a class map; None for none."""
    stated = nodata_in(raster.attrs, raster.encoding)
    if stated is not None:
        return int(stated) if raster.dtype.kind in "iu" and stated.is_integer() else stated
    return 0 if is_class_map(raster) else None


def _draw_all(raster: xr.DataArray, grid: GeoBox, per_class: int | None, seed: int) -> Drawn:
    nodata = nodata_of(raster)
    ys, xs = raster.coords["y"].values, raster.coords["x"].values
    if raster.chunks is None:
        return _draw(raster.values, ys, xs, grid, nodata, per_class, seed)
    import dask

    step, merge = dask.delayed(_draw, pure=True), dask.delayed(Drawn.merge, pure=True)
    edges = [np.concatenate(([0], np.cumsum(sizes))) for sizes in raster.data.chunks]
    parts = [
        step(
            block,
            ys[edges[0][i] : edges[0][i + 1]],
            xs[edges[1][j] : edges[1][j + 1]],
            grid,
            nodata,
            per_class,
            seed,
        )
        for (i, j), block in np.ndenumerate(raster.data.to_delayed())
    ]
    while len(parts) > 1:
        parts = [merge(parts[k : k + 16], per_class) for k in range(0, len(parts), 16)]
    with progress.shown("labels"):
        (drawn,) = compute(parts[0])
    return Drawn(*drawn)


def _draw(
    block: np.ndarray,
    ys: np.ndarray,
    xs: np.ndarray,
    grid: GeoBox,
    nodata: Any,
    per_class: int | None,
    seed: int,
) -> Drawn:
    labelled = np.isfinite(block) if block.dtype.kind == "f" else ~pd.isna(block)
    if nodata is not None:
        labelled &= block != nodata
    row, col = np.nonzero(labelled)
    y, x = ys[row], xs[col]
    return Drawn(block[row, col], pixel_hashes(y, x, grid, seed), (y, x)).first(per_class)


def pixel_hashes(ys: np.ndarray, xs: np.ndarray, grid: GeoBox, seed: int) -> np.ndarray:
    """A random number per pixel that depends on its place alone: the same in any crop and for any chunks."""
    # No published grid has its centres at this fraction of a pixel, so rounding never tips the floor.
    steps = (ys / abs(grid.affine.e), xs / abs(grid.affine.a))
    row, col = (np.floor(each + 1 / np.pi).astype(np.int64).view(np.uint64) for each in steps)
    far = np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)  # else the next seed drew the rows beside these
    return mixed(mixed(row + far) + col)
