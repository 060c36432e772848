"""Root attributes of a Zarr store: the ``geoemb:``, ``proj:`` and ``spatial:`` conventions, and our own."""

from __future__ import annotations

import json
from typing import Any

import xarray as xr

from geoemb_xr.core import arrays, geometry
from geoemb_xr.core.citing import product_facts, provenance
from geoemb_xr.core.model import BAND, Product, check_embedding, is_encoded, kind_of

#: UUIDs of the Zarr conventions; they are matched by UUID, as their names have changed.
SPATIAL_UUID = "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4"
PROJ_UUID = "f17cb550-5864-4468-aeb7-f3180cfb622f"
GEOEMB_UUID = "61c12cc5-0e28-4056-999a-480cf3fb7e4c"
#: Where the facts of a Product lie that only a reader of ours needs.
FACTS = "geoemb_xr:product"
#: What says how a store was written, and what it says by now: every shard is there, those without data too, so that
#: one that is missing was lost.
FORMAT_KEY, FORMAT = "geoemb_xr:format", 2
#: What a store has while values are being put into it; a writer that was killed leaves it.
UNFINISHED = "geoemb_xr:unfinished"
#: What a store has whose source could not be read in whole: its blocks that are missing for that reason, and why.
UNREAD = "geoemb_xr:unread"
_GEOEMB = {
    "uuid": GEOEMB_UUID,
    "name": "geoemb:",
    "description": "Geospatial embeddings: type, dimensions, model and quantisation",
}
_PROJ = {
    "uuid": PROJ_UUID,
    "name": "proj",
    "spec_url": "https://github.com/zarr-conventions/proj",
    "description": "Coordinate reference system information for geospatial data",
}
_SPATIAL = {
    "uuid": SPATIAL_UUID,
    "name": "spatial",
    "spec_url": "https://github.com/zarr-conventions/spatial",
    "description": "Spatial coordinate information",
}
#: What a codec is in words that the convention has room for; neither curve is a scalar or an array of scales.
_LINKS = {
    "signed-square": (
        "signed_square",
        "https://developers.google.com/earth-engine/datasets/catalog/GOOGLE_SATELLITE_EMBEDDING_V1_ANNUAL",
    ),
    "fsq": ("finite_scalar_quantization", "https://arxiv.org/abs/2309.15505"),
    "unscaled": ("unpublished", ""),
}


def root_attrs(array: xr.DataArray) -> dict[str, Any]:
    """Attributes of the root group of a store that holds an array.

    Parameters
    ----------
    array : DataArray
        An embedding or a map, north-up where it is a raster.

    Returns
    -------
    dict
        JSON values.
    """
    conventions: list[dict[str, str]] = []
    attrs: dict[str, Any] = dict(provenance(array))
    if kind_of(array) != "map":
        conventions.append(_GEOEMB)
        found = check_embedding(array, "to_zarr")
        attrs |= _geoemb(array, found)
        attrs[FACTS] = product_facts(found)
    crs = geometry.crs_of(array)
    if crs is not None:
        conventions.append(_PROJ)
        code = crs.to_authority()
        attrs["proj:code" if code else "proj:wkt2"] = ":".join(code) if code else crs.to_wkt()
    if crs is not None and "y" in array.dims and array.sizes["y"] * array.sizes["x"] > 1:
        conventions.append(_SPATIAL)
        attrs |= _spatial(array)
    return {"zarr_conventions": conventions, **attrs}


def _spatial(array: xr.DataArray) -> dict[str, Any]:
    box = geometry.geobox_of(array, "to_zarr")
    bounds = box.boundingbox
    return {
        "spatial:dimensions": ["y", "x"],
        "spatial:bbox": [bounds.left, bounds.bottom, bounds.right, bounds.top],
        "spatial:transform_type": "affine",
        "spatial:transform": list(box.affine)[:6],
        "spatial:shape": list(box.shape),
        "spatial:registration": "pixel",
    }


def _geoemb(array: xr.DataArray, found: Product) -> dict[str, Any]:
    source = str(array.attrs.get("source", ""))
    attrs: dict[str, Any] = {
        "geoemb:type": "chip" if found.kind == "patch" else "pixel",
        "geoemb:dimensions": array.sizes[BAND] if not is_encoded(array) else found.dims,
        "geoemb:model": f"https://doi.org/{found.doi}"
        if found.doi
        else f"urn:geoemb_xr:product:{found.name}",
        "geoemb:source_data": [source] if "://" in source else [],
        "geoemb:data_type": str(array.dtype),
    }
    if found.resolution is not None:
        attrs["geoemb:gsd"] = found.resolution
    if found.kind == "patch":
        attrs["geoemb:chip_layout"] = _chip_layout(array, found)
    if is_encoded(array):
        attrs["geoemb:quantization"] = _quantization(array)
    return attrs


def _chip_layout(array: xr.DataArray, found: Product) -> dict[str, Any]:
    side = found.resolution or 1.0
    return {
        "layout_type": "regular_grid" if "y" in array.dims else "irregular",
        "chip_size": [side, side],
        "grid_definition": "chip_size in metres",
    }


def _quantization(array: xr.DataArray) -> dict[str, Any]:
    codec = arrays.codec_of(array)
    stored = {"original_dtype": "float32", "quantized_dtype": codec.dtype}
    if codec.scale is not None:
        scale = {"type": "array", "array_name": codec.scale, "nodata": "NaN"}
        return {"method": "per_pixel_scale", **stored, "scale": scale}
    method, link = _LINKS.get(codec.name, (codec.name, ""))
    return {"method": method, **stored, **({"link": link} if link else {})}


def as_json(value: Any) -> Any:
    """NumPy arrays, scalars and tuples as JSON has them."""
    return json.loads(json.dumps(value, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v)))
