"""STAC items beside what is written: what it is, where and when, in fields that catalogues index."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import areas, geometry
from geoemb_xr.core.conventions import as_json, root_attrs
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.legend import is_class_map, legend_of
from geoemb_xr.core.local_paths import local_path
from geoemb_xr.core.model import BAND, attribution_of, check_embedding, kind_of

_EXTENSIONS = "https://stac-extensions.github.io"
EMB = f"{_EXTENSIONS}/embeddings/v0.0.1/schema.json"
PROJ = f"{_EXTENSIONS}/projection/v2.0.0/schema.json"
RASTER = f"{_EXTENSIONS}/raster/v1.1.0/schema.json"
_TYPES = {
    ".zarr": "application/vnd+zarr",
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".tiff": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".parquet": "application/vnd.apache.parquet",
    ".nc": "application/netcdf",
}


def to_stac(
    array: xr.DataArray, path: str | os.PathLike[str], *, id: str | None = None, href: str | None = None
) -> dict[str, Any]:
    """Write a STAC item beside a file or store that holds the array, as ``path.json``. Reads coordinates only.

    Parameters
    ----------
    array : DataArray
        Array that was written: an embedding or a map with a CRS.
    path : path
        The file or store, such as ``"aoi.zarr"`` or ``"crops.tif"``.
    id : str, optional
        Id of the item; the name of the file without its ending by default.
    href : str, optional
        Address of the file for users; its name, beside the item, by default.

    Returns
    -------
    dict
        The item (STAC 1.0.0), with the extensions ``emb:`` (of embeddings), ``proj:`` and ``raster:``.

    Raises
    ------
    EmbeddingError
        If the array has no CRS.

    Examples
    --------
    >>> import geoemb_xr as gx, tempfile
    >>> da = gx.testing.synthetic("alphaearth", shape=(40, 30), years=[2018, 2024])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = da.emb.to_stac(f"{folder}/aoi.zarr")
    >>> item["id"], item["properties"]["proj:code"], item["properties"]["start_datetime"]
    ('aoi', 'EPSG:32632', '2018-01-01T00:00:00Z')
    """
    target = local_path(path)
    embedding = kind_of(array) != "map"
    if embedding:
        check_embedding(array, "to_stac")
    boxes = _boxes(array)
    attrs = root_attrs(array)
    properties = {**_period(array), **_projection(attrs)}
    if embedding:
        properties |= _embedding(array, attrs)
    extensions = [*([EMB] if embedding else []), PROJ, *([RASTER] if "y" in array.dims else [])]
    asset: dict[str, Any] = {"href": href or target.name, "roles": ["data"]}
    if target.suffix.lower() in _TYPES:
        asset["type"] = _TYPES[target.suffix.lower()]
    if "y" in array.dims:
        asset["raster:bands"] = _bands(array)
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": extensions,
        "id": id or target.stem,
        "bbox": list(areas.union_bounds(boxes)),
        "geometry": _geometry(boxes),
        "properties": properties,
        "links": _links(attrs) if embedding else [],
        "assets": {"embeddings" if embedding else "map": asset},
    }
    item = dict(as_json(item))
    beside = target.with_name(f"{target.name}.json")
    part = beside.with_name(f"{beside.name}.part")
    part.write_text(json.dumps(item, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(beside)
    return item


def _boxes(array: xr.DataArray) -> list[areas.Bounds]:
    """West, south, east and north of what is covered; two boxes where it crosses the antimeridian."""
    crs = geometry.crs_of(array)
    if crs is None or not {"x", "y"} <= set(array.coords):
        raise EmbeddingError(
            "a STAC item needs 'x', 'y' and a CRS ('spatial_ref'); wrap the array with gx.wrap"
        )
    if "location" not in array.dims:
        return areas.area_of(geometry.geobox_of(array, "to_stac")).lonlat()
    to_lonlat = geometry.transformer(crs, geometry.as_crs(geometry.LONLAT))
    lon, lat = to_lonlat.transform(array.coords["x"].values, array.coords["y"].values)
    return [(float(np.min(lon)), float(np.min(lat)), float(np.max(lon)), float(np.max(lat)))]


def _geometry(boxes: list[areas.Bounds]) -> dict[str, Any]:
    rings = [[[[w, s], [e, s], [e, n], [w, n], [w, s]]] for w, s, e, n in boxes]
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings[0]}
    return {"type": "MultiPolygon", "coordinates": rings}


def _period(array: xr.DataArray) -> dict[str, Any]:
    """One moment, or the first and the last; a period of a year ends with it."""
    if "time" not in array.coords:
        # the specification asks for a time: of what has none, that of writing
        return {"datetime": pd.Timestamp.now("UTC").strftime("%Y-%m-%dT%H:%M:%SZ")}
    stamps = pd.DatetimeIndex(np.atleast_1d(array.coords["time"].values))
    first, last = stamps.min(), stamps.max()
    if (last.month, last.day) == (1, 1):
        last = last + pd.DateOffset(years=1) - pd.Timedelta(seconds=1)
    form = "%Y-%m-%dT%H:%M:%SZ"
    return {"datetime": None, "start_datetime": first.strftime(form), "end_datetime": last.strftime(form)}


def _projection(attrs: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {key: attrs[key] for key in ("proj:code", "proj:wkt2") if key in attrs}
    if "spatial:transform" in attrs:
        found["proj:shape"] = attrs["spatial:shape"]
        found["proj:transform"] = [*attrs["spatial:transform"], 0.0, 0.0, 1.0]
        found["proj:bbox"] = attrs["spatial:bbox"]
    return found


def _embedding(array: xr.DataArray, attrs: dict[str, Any]) -> dict[str, Any]:
    product = check_embedding(array, "to_stac")
    found: dict[str, Any] = {
        "title": product.title or product.name,
        "license": product.licence or "other",
        "geoemb:product": product.name,
        "geoemb:version": str(array.attrs.get("version", "")),
        "emb:runtime_parameters": {"dimensions": attrs["geoemb:dimensions"], "type": attrs["geoemb:type"]},
    }
    if product.resolution is not None:
        found["gsd"] = product.resolution
    if product.extent:
        found["emb:spatial_coverage"] = product.extent
    if attribution := attribution_of(array):
        found["providers"] = [{"name": attribution, "roles": ["producer"]}]
    if "geoemb:quantization" in attrs:
        given = attrs["geoemb:quantization"]
        kept = {key: given[key] for key in ("method", "original_dtype", "quantized_dtype")}
        if "link" in given:
            kept["link"] = {"rel": "about", "href": given["link"]}
        found["emb:quantization"] = kept
    return found


def _bands(array: xr.DataArray) -> list[dict[str, Any]]:
    """An entry per band as ``raster:bands`` has them."""
    entry: dict[str, Any] = {"data_type": str(array.dtype), "sampling": "area"}
    box = geometry.geobox_of(array, "to_stac")
    crs = geometry.crs_of(array)
    if crs is not None and not crs.is_geographic:
        entry["spatial_resolution"] = abs(box.affine.a)
    if array.dtype.kind == "f":
        entry["nodata"] = "nan"
    elif is_class_map(array):
        entry["nodata"] = 0
        names = zip(legend_of(array).values, legend_of(array).names, strict=True)
        entry["classes"] = [{"value": value, "name": name} for value, name in names]
    wide = next((d for d in array.dims if d in (BAND, "component", "category", "rgb")), None)
    if wide is None:
        return [entry]
    return [{"name": str(name), **entry} for name in array.coords[wide].values]


def _links(attrs: dict[str, Any]) -> list[dict[str, str]]:
    links = [{"rel": "emb:source-data", "href": source} for source in attrs["geoemb:source_data"]]
    model = str(attrs["geoemb:model"])
    return [*links, *([{"rel": "emb:model", "href": model}] if model.startswith("http") else [])]
