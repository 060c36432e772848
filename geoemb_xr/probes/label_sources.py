"""Published labels: EuroSAT, EuroCrops, NLCD, LCMAP, WorldCover, and torchgeo's label datasets.

Each has its classes and colours as its publisher gives them, so that a map, a legend and a report name them alike.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError, SourceError, check_choice, require
from geoemb_xr.core.legend import SOURCE, Legend
from geoemb_xr.core.times import times_of_years
from geoemb_xr.geo import tables
from geoemb_xr.geo.warp import mosaic

_NLCD = (
    (11, "Open Water", "#466b9f"), (12, "Perennial Ice/Snow", "#d1def8"),
    (21, "Developed, Open Space", "#dec5c5"), (22, "Developed, Low Intensity", "#d99282"),
    (23, "Developed, Medium Intensity", "#eb0000"), (24, "Developed, High Intensity", "#ab0000"),
    (31, "Barren Land", "#b3ac9f"), (41, "Deciduous Forest", "#68ab5f"), (42, "Evergreen Forest", "#1c5f2c"),
    (43, "Mixed Forest", "#b5c58f"), (51, "Dwarf Scrub", "#af963c"), (52, "Shrub/Scrub", "#ccb879"),
    (71, "Grassland/Herbaceous", "#dfdfc2"), (72, "Sedge/Herbaceous", "#d1d182"), (73, "Lichens", "#a3cc51"),
    (74, "Moss", "#82ba9e"), (81, "Pasture/Hay", "#dcd939"), (82, "Cultivated Crops", "#ab6c28"),
    (90, "Woody Wetlands", "#b8d9eb"), (95, "Emergent Herbaceous Wetlands", "#6c9fb8"),
)  # fmt: skip
_LCMAP = (
    (1, "Developed", "#e60000"), (2, "Cropland", "#a87000"), (3, "Grass/Shrub", "#e3e3c2"),
    (4, "Tree Cover", "#1d6330"), (5, "Water", "#476ba1"), (6, "Wetland", "#bad9eb"), (7, "Ice/Snow", "#ffffff"),
    (8, "Barren", "#b3b0a3"),
)  # fmt: skip
_WORLDCOVER = (
    (10, "Tree cover", "#006400"), (20, "Shrubland", "#ffbb22"), (30, "Grassland", "#ffff4c"),
    (40, "Cropland", "#f096ff"), (50, "Built-up", "#fa0000"), (60, "Bare / sparse vegetation", "#b4b4b4"),
    (70, "Snow and ice", "#f0f0f0"), (80, "Permanent water bodies", "#0064c8"),
    (90, "Herbaceous wetland", "#0096a0"), (95, "Mangroves", "#00cf75"), (100, "Moss and lichen", "#fae6a0"),
)  # fmt: skip
_EUROSAT = ("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop",
            "Residential", "River", "SeaLake")  # fmt: skip


def _legend(entries: Iterable[tuple[int, str, str]]) -> Legend:
    return Legend(*(tuple(column) for column in zip(*entries, strict=True)))


@dataclass(frozen=True)
class Source:
    """A source of labels.

    Parameters
    ----------
    read : callable
        ``(paths, legend) -> DataArray or table``.
    pattern : str
        Files that a folder is searched for.
    legend : Legend, optional
        Classes of a raster.
    """

    read: Callable[[list[Path], Legend | None], Any]
    pattern: str
    legend: Legend | None = None


def read_source(name: str, path: Any) -> Any:
    """Labels of a source by name: a class map, or a table of places with the column ``label``.

    Raises
    ------
    EmbeddingError
        If no path is given.
    SourceError
        If files are missing or of another kind.
    """
    key = check_choice("labels", name.lower().replace("-", "").replace("_", ""), SOURCES)
    if path is None:
        raise EmbeddingError(f"labels of {name!r} are read from files: gx.labels({name!r}, path)")
    return _read(key, _files(path, SOURCES[key].pattern))


def _read(key: str, paths: list[Path]) -> Any:
    """Read labels and record their source, since a product that was trained on it must not be tested on them."""
    found = SOURCES[key].read(paths, SOURCES[key].legend)
    found.attrs[SOURCE] = key
    return found


def _files(path: Any, pattern: str) -> list[Path]:
    """Files at a path, in a folder, or of a list of paths."""
    many = [path] if isinstance(path, str | os.PathLike) else list(path)
    found: list[Path] = []
    for each in map(Path, many):
        if each.is_dir():
            inside = sorted(each.rglob(pattern))
            if not inside:
                raise SourceError(f"no file {pattern!r} in the folder of labels {each}")
            found += inside
        elif each.exists():
            found.append(each)
        else:
            raise SourceError(f"no such file of labels: {each}")
    if not found:
        raise SourceError("no file of labels was given")
    return found


# --- class maps -----------------------------------------------------------------------------------------------


def class_map(paths: list[Path], legend: Legend | None) -> xr.DataArray:
    """Rasters of codes as one lazy class map; codes that the legend lacks are no data.

    Raises
    ------
    SourceError
        If a file is not a raster of whole numbers, or files are of several years.
    """
    parts = [_one_map(path, legend) for path in paths]
    years = sorted({int(part["time"].dt.year) for part in parts if "time" in part.coords})
    if len(years) > 1:
        raise SourceError(f"the files of labels are of several years, {years}: read one year at a time")
    if len(parts) == 1:
        return parts[0]
    joined: xr.DataArray = mosaic(
        [part.drop_vars("time", errors="ignore") for part in parts], parts[0].rio.crs
    )
    return joined.assign_coords(time=parts[0].coords["time"]) if years else joined


def _one_map(path: Path, legend: Legend | None) -> xr.DataArray:
    import rasterio
    import rioxarray

    try:
        raster = rioxarray.open_rasterio(path, chunks="auto", cache=False)
    except rasterio.errors.RasterioIOError as error:
        raise SourceError(f"labels {path} cannot be read as a raster: {error}") from error
    assert isinstance(raster, xr.DataArray)
    if raster.dtype.kind not in "iu":
        raise SourceError(f"labels {path} hold {raster.dtype}, not codes of classes")
    raster = raster.isel(band=0, drop=True)
    if legend is None:
        legend = _own_legend(path)
    known = xr.apply_ufunc(np.isin, raster, kwargs={"test_elements": legend.values}, dask="parallelized",
                           output_dtypes=[bool])  # fmt: skip
    found = raster.where(known, 0).astype(legend.dtype).rename("land_cover")
    found.attrs = legend.attrs()
    year = re.search(r"(?<!\d)(19[89]\d|20[0-4]\d)(?!\d)", path.stem)
    return found.assign_coords(time=times_of_years([int(year[1])])[0]) if year else found


def _own_legend(path: Path) -> Legend:
    """Names and colours as a file of a dataset without a legend here has them: its colour table and its codes."""
    import rasterio

    with rasterio.open(path) as file:
        found = {int(c) for _, block in file.block_windows(1) for c in np.unique(file.read(1, window=block))}
        codes = sorted(c for c in found if 0 < c < 65_535 and c != file.nodata)
        try:
            table = file.colormap(1)
        except ValueError:
            return Legend.of_names([f"class {c}" for c in codes], values=codes)
    colours = ["#" + "".join(f"{v:02x}" for v in table[c][:3]) for c in codes]
    return Legend(tuple(codes), tuple(f"class {c}" for c in codes), tuple(colours))


# --- tables -----------------------------------------------------------------------------------------------------


def eurocrops(paths: list[Path], _: Legend | None) -> Any:
    """Parcels of EuroCrops with ``label``, the harmonised name of the crop; parcels without one are left out."""
    geopandas = require("geopandas", "vector")
    parts = []
    for path in paths:
        table: Any = tables.read_table(path)
        missing = {"EC_hcat_n", "EC_hcat_c"} - set(table.columns)
        if missing:
            raise SourceError(f"{path} is not a file of EuroCrops: it lacks the columns {sorted(missing)}")
        kept = table[table["EC_hcat_n"].notna()].copy()
        kept["EC_hcat_c"] = kept["EC_hcat_c"].astype("string").str.removesuffix(".0")
        kept.insert(0, "label", kept["EC_hcat_n"].astype(str))
        year = re.search(r"_(20\d\d)", path.stem)
        if year:
            kept["year"] = int(year[1])
        parts.append(_in_degrees(kept) if len(paths) > 1 else kept)
    joined = pd.concat(parts, ignore_index=True)
    return geopandas.GeoDataFrame(joined, geometry="geometry", crs=parts[0].crs)


def _in_degrees(table: Any) -> Any:
    return table.to_crs(geometry.LONLAT)


def eurosat(paths: list[Path], _: Legend | None) -> Any:
    """Chips of EuroSAT as their footprints, with ``label``, the folder that each stands in, and ``path``."""
    import rasterio

    geopandas = require("geopandas", "vector")
    import shapely

    unknown = sorted({path.parent.name for path in paths} - set(_EUROSAT))
    if unknown:
        raise SourceError(
            f"chips of EuroSAT stand in a folder for each class, {', '.join(_EUROSAT)}; got {unknown[:3]}"
        )
    boxes = []
    for path in paths:
        with rasterio.open(path) as file:
            if file.crs is None:
                raise SourceError(f"{path} has no CRS: take EuroSAT's GeoTIFFs (all bands), not its JPEGs")
            box = geopandas.GeoSeries([shapely.box(*file.bounds)], crs=file.crs)
        boxes.append(box.to_crs(geometry.LONLAT).iloc[0])
    columns = {"label": [path.parent.name for path in paths], "path": [str(path) for path in paths]}
    return geopandas.GeoDataFrame(columns, geometry=boxes, crs=geometry.LONLAT)


SOURCES: Mapping[str, Source] = {
    "eurosat": Source(eurosat, "*.tif"),
    "eurocrops": Source(eurocrops, "*.shp"),
    "nlcd": Source(class_map, "*NLCD*.tif", _legend(_NLCD)),
    "lcmap": Source(class_map, "*LCPRI*.tif", _legend(_LCMAP)),
    "worldcover": Source(class_map, "*_Map.tif", _legend(_WORLDCOVER)),
}


# --- torchgeo -----------------------------------------------------------------------------------------------------


def is_torchgeo(value: object) -> bool:
    """Whether something is a dataset of torchgeo, which need not be installed for this."""
    return any(each.__module__.partition(".")[0] == "torchgeo" for each in type(value).__mro__)


def of_torchgeo(dataset: Any) -> Any:
    """Labels of a dataset of torchgeo: a class map of a raster of masks, a table of a vector dataset.

    Raises
    ------
    SourceError
        If it holds no labels on the ground.
    """
    names = [each.__name__ for each in type(dataset).__mro__]
    own = next((name.lower() for name in names if name.lower() in SOURCES), None)
    if own is None and any(name.startswith("EuroSAT") for name in names):
        own = "eurosat"
    paths = _paths_of(dataset)
    if own is not None:
        return _read(own, paths)
    if "VectorDataset" in names:
        return _of_vectors(dataset, paths)
    if "RasterDataset" in names and not dataset.is_image:
        return class_map(paths, None)
    raise SourceError(
        f"{names[0]} has no labels on the ground: datasets of masks (is_image = False), of vectors and EuroSAT do"
    )


def _paths_of(dataset: Any) -> list[Path]:
    index = getattr(dataset, "index", None)
    if index is not None and "filepath" in index:
        return [Path(each) for each in dict.fromkeys(index["filepath"])]
    samples = getattr(dataset, "imgs", None) or getattr(dataset, "samples", None)
    if samples is not None:
        return [Path(each[0]) for each in samples]
    raise SourceError(f"{type(dataset).__name__} does not say where its files are")


def _of_vectors(dataset: Any, paths: list[Path]) -> Any:
    name = dataset.label_name
    if not name:
        raise SourceError(f"{type(dataset).__name__} names no column of labels (label_name=)")
    parts = [tables.read_table(path) for path in paths]
    lacking = [path for path, part in zip(paths, parts, strict=True) if name not in part.columns]
    if lacking:
        raise SourceError(f"{lacking[0]} lacks the column {name!r} (label_name)")
    joined: Any = pd.concat([_in_degrees(part) for part in parts], ignore_index=True)
    joined.insert(0, "label", joined[name])
    return joined
