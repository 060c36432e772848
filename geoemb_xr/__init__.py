"""Published Earth embeddings as lazy xarray arrays, with an ``.emb`` accessor for the work people do with them."""

from __future__ import annotations

import importlib
from typing import Any

from geoemb_xr import testing
from geoemb_xr.accessor import EmbAccessor
from geoemb_xr.arrays import check, concat, decode, encode, normalize, truncate, wrap, year
from geoemb_xr.model import Product, product, products, register

__version__ = "0.1.0"

#: Name → module, imported when first asked for, so that ``import geoemb_xr`` stays light.
_LAZY = {
    "load_model": "fitted",
    # opening
    "coverage": "opening",
    "example": "opening",
    "open": "opening",
    # geometry
    "coarsen": "warp",
    "mosaic": "warp",
    "reproject": "warp",
    "to_grid": "gridding",
    # time
    # points
    "crop": "points",
    "sample": "points",
    "to_dataframe": "points",
    "to_geodataframe": "points",
    "zonal_stats": "zones",
    "aggregate": "temporal",
    "change": "temporal",
    "change_point": "temporal",
    # looking
    "KMeans": "clusters",
    "PCA": "components",
    "fit_clusters": "clusters",
    "explore": "app",
    "fit_pca": "components",
    "pca": "components",
    "plan": "cards",
    "plot": "plotting",
    "rgb": "components",
    # learning
    "Probe": "probes",
    "area": "class_maps",
    "fit_probe": "probes",
    "labels": "labelling",
    "predict": "predicting",
    # comparing
    "search": "retrieval",
    "similarity": "retrieval",
    # writing
    "cite": "citing",
    "show_versions": "versions",
    "to_cog": "writing",
    "to_geoparquet": "writing",
    "to_torchgeo": "interop",
    "to_zarr": "writing",
}

__all__ = [
    "EmbAccessor",
    "Product",
    "check",
    "concat",
    "decode",
    "encode",
    "normalize",
    "product",
    "products",
    "register",
    "testing",
    "truncate",
    "wrap",
    "year",
    *_LAZY,
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'geoemb_xr' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"geoemb_xr.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
