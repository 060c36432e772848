"""What others call our things: a wrong name is answered with ours, from one table."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable

import xarray as xr

from geoemb_xr.core.errors import EmbeddingError

#: Functions and methods, and attributes of fitted models, as other packages call them.
NAMES = {
    "apply_model": "predict",
    "bibtex": "cite",
    "center": "centres",
    "citation": "cite",
    "classes_": "legend",
    "classify": "predict",
    "clip": "crop",
    "clip_box": "crop",
    "cluster": "fit_clusters",
    "cluster_centers_": "centres",
    "components_": "loadings",
    "dequantize": "decode",
    "diff": "change",
    "explained_variance_": "explained_variance",
    "explained_variance_ratio_": "explained_variance_ratio",
    "extract": "sample",
    "find_similar": "search",
    "fit": "fit_probe",
    "inertia_": "inertia",
    "isel_points": "sample",
    "kmeans": "fit_clusters",
    "knn": "search",
    "mask": "crop",
    "mean_": "mean",
    "merge": "mosaic",
    "nearest": "search",
    "open_dataarray": "open",
    "open_dataset": "open",
    "open_zarr": "open",
    "quantize": "encode",
    "read": "open",
    "regrid": "reproject",
    "resample": "reproject",
    "rmse": "scores",
    "score": "scores",
    "show": "plot",
    "train": "fit_probe",
    "to_crs": "reproject",
    "to_df": "to_dataframe",
    "to_gdf": "to_geodataframe",
    "to_geopandas": "to_geodataframe",
    "to_geotiff": "to_cog",
    "to_netcdf": "to_zarr",
    "to_pandas": "to_dataframe",
    "to_parquet": "to_geoparquet",
    "to_raster": "to_cog",
    "to_tif": "to_cog",
    "to_tiff": "to_cog",
    "to_torch": "to_torchgeo",
    "transform": "pca",
    "umap": "pca",
    "warp": "reproject",
    "zonal": "zonal_stats",
    "zonal_statistics": "zonal_stats",
}
#: Keywords as other packages call them, and what they may be here, the first that a function has.
KEYWORDS: dict[str, tuple[str, ...]] = {
    "aoi": ("geopolygon", "area", "areas", "points"),
    "bounds": ("bbox",),
    "cmap_limits": ("limits",),
    "date": ("time", "when"),
    "dates": ("time",),
    "datetime": ("time",),
    "dst_crs": ("target", "crs"),
    "epsg": ("crs", "target"),
    "extent": ("bbox",),
    "filename": ("path",),
    "geom": ("geopolygon", "area", "areas", "points"),
    "geometry": ("geopolygon", "area", "areas", "points"),
    "k": ("n_clusters", "n_components"),
    "label": ("target",),
    "method": ("how", "resampling", "metric"),
    "n": ("k", "n_components", "n_clusters", "dims"),
    "overwrite": ("mode",),
    "pixel_size": ("resolution",),
    "polygon": ("geopolygon", "area", "areas"),
    "polygons": ("areas", "labels"),
    "res": ("resolution",),
    "seed_value": ("seed",),
    "random_state": ("seed",),
    "statistics": ("stats",),
    "stat": ("stats",),
    "url": ("source",),
    "year": ("time", "when"),
    "years": ("time", "groups"),
}
#: Methods of ``Dataset.emb``: every variable by its own rule.
OF_DATASETS = (
    "coarsen",
    "crop",
    "load",
    "plan",
    "plot",
    "reproject",
    "sample",
    "to_cog",
    "to_zarr",
    "zonal_stats",
)


def no_such(name: str, known: Iterable[str], where: str) -> str:
    """What to say of a name that is not there.

    Examples
    --------
    >>> no_such("clip", ["crop", "plot"], ".emb")
    ".emb has no attribute 'clip'; here it is called 'crop'"
    >>> no_such("plto", ["crop", "plot"], ".emb")
    ".emb has no attribute 'plto'. Did you mean 'plot'?"
    """
    names = [each for each in known if not each.startswith("_")]
    if NAMES.get(name) in names:
        return f"{where} has no attribute {name!r}; here it is called {NAMES[name]!r}"
    close = difflib.get_close_matches(name, names, n=1)
    return f"{where} has no attribute {name!r}" + (f". Did you mean {close[0]!r}?" if close else "")


def answering[**P, T](function: Callable[P, T]) -> Callable[P, T]:
    """A public function that answers a wrong keyword, or a Dataset where it takes one array.

    Raises
    ------
    TypeError
        For a keyword that it does not have: which of its own is meant.
    EmbeddingError
        For a Dataset: which call takes each of its variables.
    """
    parameters = inspect.signature(function).parameters
    open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    subject = str(
        next((each.annotation for each in parameters.values()), "")
    )  # as text: annotations are not run
    takes_arrays = "xr.DataArray" in subject and "xr.Dataset" not in subject

    @functools.wraps(function)
    def answered(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in parameters and (not open_ended or name in KEYWORDS):
                raise TypeError(_no_keyword(function.__name__, name, list(parameters)))
        if takes_arrays and args and isinstance(args[0], xr.Dataset):
            raise EmbeddingError(_no_dataset(function.__name__, args[0]))
        return function(*args, **kwargs)

    return answered


def _no_keyword(function: str, name: str, parameters: list[str]) -> str:
    ours = next((each for each in KEYWORDS.get(name, ()) if each in parameters), None)
    if ours is not None:
        return f"{function}() has no keyword {name!r}; here it is called {ours!r}"
    valid = [each for each in parameters if each != "self"]
    close = difflib.get_close_matches(name, valid, n=1)
    hint = f". Did you mean {close[0]!r}?" if close else f"; it has {', '.join(valid)}"
    return f"{function}() has no keyword {name!r}{hint}"


def _no_dataset(function: str, dataset: xr.Dataset) -> str:
    names = list(map(str, dataset.data_vars))
    one = f"ds[{names[0]!r}].emb.{function}(…)" if names else "one of its variables"
    every = f"ds.emb.{function}(…) takes every variable, {one} one of them"
    return f"{function} takes one array; got a Dataset of {names}: " + (
        every if function in OF_DATASETS else f"{one} takes one of them"
    )
