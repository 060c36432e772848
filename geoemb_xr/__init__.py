"""Published Earth embeddings as lazy xarray arrays, with an ``.emb`` accessor for the work people do with them."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from geoemb_xr import testing
from geoemb_xr._version import __version__ as __version__
from geoemb_xr.accessor import EmbAccessor
from geoemb_xr.core.arrays import concat, decode, encode, normalize, truncate
from geoemb_xr.core.errors import (
    ComparabilityError,
    CoverageError,
    EmbeddingError,
    MissingExtraError,
    SourceError,
)
from geoemb_xr.core.model import Product, product, products, register
from geoemb_xr.core.synonyms import answering, no_such
from geoemb_xr.core.times import year

#: Name → module, imported when first asked for, so that ``import geoemb_xr`` stays light.
_LAZY = {
    "load_model": "loading",
    # opening
    "check": "readers.health",
    "coverage": "opening",
    "example": "examples.cached",
    "open": "opening",
    # geometry
    "align": "geo.aligning",
    "coarsen": "geo.warp",
    "fuse": "geo.aligning",
    "mosaic": "geo.warp",
    "reproject": "geo.warp",
    "to_grid": "geo.gridding",
    "wrap": "geo.wrapping",
    # time
    # points
    "crop": "geo.points",
    "sample": "geo.points",
    "to_dataframe": "geo.points",
    "to_geodataframe": "geo.points",
    "zonal_stats": "geo.zonal",
    "aggregate": "analysis.temporal",
    "change": "analysis.changes",
    "change_point": "analysis.changes",
    # looking
    "KMeans": "analysis.clusters",
    "PCA": "analysis.components",
    "fit_clusters": "analysis.clusters",
    "explore": "display.app",
    "fit_pca": "analysis.components",
    "load": "execution.memory",
    "pca": "analysis.components",
    "plan": "execution.planning",
    "plot": "display.plotting",
    "rgb": "analysis.components",
    "scatter": "display.scattering",
    # encoding images
    "Encoder": "embedding.cards",
    "composite": "embedding.composites",
    "embed": "embedding.rasters",
    "encoder": "embedding.cards",
    "encoders": "embedding.cards",
    "harmonize": "embedding.harmonizing",
    "open_cubes": "readers.cubes",
    # learning
    "Probe": "probes.probe",
    "area": "analysis.class_maps",
    "names": "analysis.class_maps",
    "fit_probe": "probes.fitting",
    "labels": "probes.labelling",
    "predict": "predicting.maps",
    # comparing
    "area_estimate": "comparing.areas",
    "better_map": "comparing.two_maps",
    "diagnose": "comparing.diagnostics",
    "disagreements": "comparing.two_maps",
    "error_bound": "comparing.two_maps",
    "evaluate": "comparing.evaluation",
    "explain": "comparing.explaining",
    "sample_design": "comparing.areas",
    "Sketch": "retrieval.sketches",
    "build_sketch": "retrieval.sketches",
    "search": "retrieval.ranking",
    "similarity": "retrieval.scores",
    # fewer bytes
    "Compressor": "compression.quantizers",
    "compress": "compression.quantizers",
    "decompress": "compression.quantizers",
    "fit_compressor": "compression.quantizers",
    "losses": "compression.losses",
    "Student": "compression.distilling",
    "fit_student": "compression.distilling",
    # writing
    "cite": "core.citing",
    "show_versions": "versions",
    "field_kit": "writing.kit",
    "to_cog": "writing.cog",
    "to_geoparquet": "writing.geoparquet",
    "to_stac": "writing.stac",
    "to_torchgeo": "interop",
    "to_zarr": "writing.zarr",
}

#: Modules with the formats and scores of one benchmark each, whose names would say little by themselves.
_LAZY_MODULES = {"embed2scale": "comparing.embed2scale", "neucobench": "comparing.neucobench"}

__all__ = [
    "ComparabilityError",
    "CoverageError",
    "EmbAccessor",
    "EmbeddingError",
    "MissingExtraError",
    "Product",
    "SourceError",
    "concat",
    "decode",
    "encode",
    "normalize",
    "product",
    "products",
    "register",
    "testing",
    "truncate",
    "year",
    *_LAZY,
    *_LAZY_MODULES,
]


def _public(value: Any) -> Any:
    """A function that answers wrong keywords, under the name that it has here: it pickles by that name."""
    if not inspect.isfunction(value):
        return value
    answered = answering(value)
    answered.__module__ = __name__
    return answered


for _name in set(__all__) & set(globals()):
    globals()[_name] = _public(globals()[_name])


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return importlib.import_module(f"geoemb_xr.{_LAZY_MODULES[name]}")
    if name not in _LAZY:
        raise AttributeError(no_such(name, __all__, "geoemb_xr"))
    value = getattr(importlib.import_module(f"geoemb_xr.{_LAZY[name]}"), name)
    globals()[name] = _public(value)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted(__all__)
