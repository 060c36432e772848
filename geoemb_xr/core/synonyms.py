"""Names that other packages use: an error for one of them gives ours, from one table."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import EmbeddingError

#: Functions, methods and attributes of models as other packages call them; of several the first that is there.
NAMES: dict[str, str | tuple[str, ...]] = {
    "accuracy": "scores",
    "apply_model": "predict",
    "bbox": "bounds",
    "benchmark": "evaluate",
    "bibtex": "cite",
    "box": "bounds",
    "center": "centres",
    "change_vector": "change",
    "citation": "cite",
    "classes": "legend",
    "classes_": "legend",
    "classifier": "fit_probe",
    "classify": "predict",
    "clip": "crop",
    "clip_box": "crop",
    "cluster": "fit_clusters",
    "cluster_centers_": "centres",
    "coef_": "parameters",
    "compare": ("evaluate", "similarity"),
    "components": "loadings",
    "components_": "loadings",
    "confusion_matrix": "confusion",
    "cosine": "similarity",
    "cosine_similarity": "similarity",
    "cross_validate": "evaluate",
    "datasets": "products",
    "dequantise": "decode",
    "dequantize": "decode",
    "diff": "change",
    "difference": "change",
    "dim": "dims",
    "distance": "similarity",
    "download": "load",
    "embed_images": "embed",
    "encode_images": "embed",
    "evaluate_probe": "scores",
    "explained_variance_": "explained_variance",
    "explained_variance_ratio_": "explained_variance_ratio",
    "extent": "bounds",
    "extract": "sample",
    "fetch": "load",
    "find": "search",
    "find_similar": "search",
    "fit": "fit_probe",
    "fit_classifier": "fit_probe",
    "fit_kmeans": "fit_clusters",
    "fit_knn": "fit_probe",
    "fit_umap": "fit_pca",
    "from_array": "wrap",
    "from_dataarray": "wrap",
    "from_dataset": "wrap",
    "from_file": "open",
    "get_model": "load_model",
    "imshow": "plot",
    "inertia_": "inertia",
    "info": "check",
    "intercept_": "parameters",
    "isel_bbox": "crop",
    "isel_points": "sample",
    "kmeans": "fit_clusters",
    "knn": "search",
    "labels_": "predict",
    "licence": "cite",
    "license": ("licence", "cite"),
    "list_datasets": "products",
    "list_encoders": "encoders",
    "list_models": "encoders",
    "load_embeddings": "open",
    "mask": "crop",
    "mean": ("mean", "aggregate"),
    "mean_": "mean",
    "median": "aggregate",
    "merge": ("mosaic", "concat"),
    "models": "encoders",
    "n_bands": "dims",
    "n_components_": "n_components",
    "n_features_in_": "dims",
    "nearest": "search",
    "neighbors": "search",
    "open_dataarray": "open",
    "open_dataset": "open",
    "open_mfdataset": "open",
    "open_rasterio": "open",
    "open_zarr": "open",
    "pca_rgb": "rgb",
    "point_query": "sample",
    "polygonize": "to_geodataframe",
    "quantise": "encode",
    "quantize": "encode",
    "rasterize": "to_grid",
    "read": "open",
    "reduceRegion": "zonal_stats",
    "reduceRegions": "zonal_stats",
    "regression": "fit_probe",
    "regrid": "reproject",
    "reproject_match": "reproject",
    "resample": "reproject",
    "rgb_image": "rgb",
    "rmse": "scores",
    "sample_points": "sample",
    "sampleRegions": "sample",
    "save": ("to_zarr", "save"),
    "score": "scores",
    "search_products": "products",
    "segment": "fit_clusters",
    "sel_bbox": "crop",
    "sel_time": "year",
    "show": "plot",
    "similar": "similarity",
    "statistics": "zonal_stats",
    "stats": "zonal_stats",
    "std": "aggregate",
    "subset": "crop",
    "summary": "check",
    "to_crs": "reproject",
    "to_csv": "to_dataframe",
    "to_df": "to_dataframe",
    "to_file": ("to_geodataframe", "save"),
    "to_gdf": "to_geodataframe",
    "to_geopandas": "to_geodataframe",
    "to_geotiff": "to_cog",
    "to_netcdf": "to_zarr",
    "to_pandas": "to_dataframe",
    "to_parquet": "to_geoparquet",
    "to_polygons": "to_geodataframe",
    "to_raster": "to_cog",
    "to_tif": "to_cog",
    "to_tiff": "to_cog",
    "to_torch": "to_torchgeo",
    "to_vector": "to_geodataframe",
    "total_bounds": "bounds",
    "train": "fit_probe",
    "transform": ("pca", "predict"),
    "trend": ("change_point", "change"),
    "tsne": "pca",
    "umap": "pca",
    "vectorize": "to_geodataframe",
    "view": ("explore", "plot"),
    "visualise": "plot",
    "visualize": "plot",
    "warp": "reproject",
    "write": "to_zarr",
    "zonal": "zonal_stats",
    "zonal_statistics": "zonal_stats",
}
#: Names without a counterpart here, and what to do instead.
HINTS = {
    "buffer": "widen the area itself, in a CRS of metres: areas.buffer(100)",
    "feature_importances_": "gx.explain(array, probe) shows what a probe relies on",
    "inverse_transform": "scores keep no more than their components; take the array that they were made of",
    "nodata": "vectors that are missing are NaN; of codes, .rio.nodata says the code",
    "predict_proba": "predict(array, output='proba') gives probabilities",
    "resolution": "it is that of the grid: .emb.geobox.resolution",
    "shape": "it is that of the array: array.shape",
}
#: What to pass here where other packages take None.
NONE = {
    "cv": "cv=0 for no validation",
    "device": "device='cpu'",
    "overviews": "overviews='none'",
}
#: Functions that take no array first.
OF_PACKAGE = (
    "align", "composite", "concat", "coverage", "embed", "evaluate", "example", "fuse", "harmonize", "labels",
    "load_model", "mosaic", "open", "product", "products", "wrap"
)  # fmt: skip
#: Keywords as other packages call them, and what they may be here, the first that a function has.
KEYWORDS: dict[str, tuple[str, ...]] = {
    "affine": ("geobox",),
    "aoi": ("geopolygon", "area", "areas", "points"),
    "bbox": ("area", "geopolygon"),
    "bounds": ("bbox", "area"),
    "chunk_size": ("chunks",),
    "cmap_limits": ("limits",),
    "crs": ("target",),
    "date": ("time", "when"),
    "dates": ("time",),
    "datetime": ("time",),
    "dim": ("dims",),
    "dimensions": ("dims",),
    "dst_crs": ("target", "crs"),
    "epsg": ("crs", "target"),
    "estimator": ("method",),
    "extent": ("bbox",),
    "file": ("path", "source"),
    "filename": ("path",),
    "geom": ("geopolygon", "area", "areas", "points"),
    "geometry": ("geopolygon", "area", "areas", "points"),
    "k": ("n_clusters", "n_components"),
    "label": ("target",),
    "lat": ("points",),
    "license": ("licence",),
    "lon": ("points",),
    "method": ("how", "resampling", "metric"),
    "model": ("method",),
    "n": ("k", "n_components", "n_clusters", "dims"),
    "n_bands": ("dims",),
    "n_neighbors": ("k",),
    "overwrite": ("mode",),
    "path": ("source",),
    "pixel_size": ("resolution",),
    "polygon": ("geopolygon", "area", "areas"),
    "polygons": ("areas", "labels"),
    "random_state": ("seed",),
    "res": ("resolution",),
    "seed_value": ("seed",),
    "shape": ("geopolygon", "area", "areas"),
    "stat": ("stats",),
    "statistics": ("stats",),
    "target": ("query",),
    "top_k": ("k",),
    "transform": ("geobox",),
    "url": ("source",),
    "X": ("array",),
    "y": ("labels",),
    "year": ("time", "when"),
    "years": ("time", "groups", "a"),
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


def _ours(name: str) -> tuple[str, ...]:
    ours = NAMES.get(name, ())
    return (ours,) if isinstance(ours, str) else ours


def no_such(name: str, known: Iterable[str], where: str) -> str:
    """The message for a name that does not exist.

    Examples
    --------
    >>> no_such("clip", ["crop", "plot"], ".emb")
    ".emb has no attribute 'clip'; here it is called 'crop'"
    >>> no_such("plto", ["crop", "plot"], ".emb")
    ".emb has no attribute 'plto'. Did you mean 'plot'?"
    """
    names = [each for each in known if not each.startswith("_")]
    says = f"{where} has no attribute {name!r}"
    found = next((each for each in _ours(name) if each in names), None)
    if found is not None:
        return f"{says}; here it is called {found!r}"
    if name in HINTS:
        return f"{says}: {HINTS[name]}"
    close = _closest(name, tuple(names))
    return says + (f". Did you mean {close[0]!r}?" if close else "")


@functools.lru_cache(256)  # tools ask modules again and again for what they lack, as mocks have it
def _closest(name: str, names: tuple[str, ...]) -> list[str]:
    return difflib.get_close_matches(name, names, n=1, cutoff=0.7)


def no_method(name: str, known: Iterable[str], where: str, of_xarray: type) -> str:
    """The message for a method that an accessor lacks, which also looks in xarray and in this package.

    Examples
    --------
    >>> no_method("isel", ["crop"], ".emb", xr.DataArray)
    ".emb has no attribute 'isel'; it is a method of the array itself: array.isel"
    >>> no_method("align", ["crop"], ".emb", xr.DataArray)
    ".emb has no attribute 'align'; it is a function: geoemb_xr.align"
    """
    says = no_such(name, known, where)
    if "here it is called" in says or name in HINTS:
        return says
    found = next((each for each in (name, *_ours(name)) if each in (*OF_PACKAGE, "encode")), None)
    if found is not None:
        return f"{where} has no attribute {name!r}; it is a function: geoemb_xr.{found}"
    if hasattr(of_xarray, name) and not name.startswith("_"):
        its = "array" if of_xarray is xr.DataArray else "Dataset"
        return f"{where} has no attribute {name!r}; it is a method of the {its} itself: {its.lower()}.{name}"
    return says


def answering[**P, T](function: Callable[P, T], name: str | None = None) -> Callable[P, T]:
    """Wrap a public function so that wrong keywords, numbers, None and Datasets give errors that lead on.

    Parameters
    ----------
    function : callable
        Function of the package.
    name : str, optional
        The name that users know, where it is not its own.

    Raises
    ------
    TypeError
        For a keyword that it does not have: which of its own is meant. For more arguments without a name than it
        takes: the names of the others.
    EmbeddingError
        For a Dataset: which call takes each of its variables. For plain vectors in place of an array. For None
        where a value is needed, and for anything else where a whole number is.
    """
    called = name or function.__name__
    signature = inspect.signature(function)
    parameters = signature.parameters
    open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    first = next(iter(parameters.values()), None)
    subject = str(first.annotation) if first is not None else ""  # as text: annotations are not run
    takes_arrays = "xr.DataArray" in subject and "xr.Dataset" not in subject
    # a function of several arrays says itself how they are passed
    checks_subject = (
        first is not None and "xr.DataArray" in subject and first.kind is not first.VAR_POSITIONAL
    )

    @functools.wraps(function)
    def answered(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            # options are passed on, under the names of the package they are for, unless one of ours is meant
            meant = any(each in parameters for each in KEYWORDS.get(name, ()))
            if name not in parameters and (not open_ended or meant):
                raise TypeError(_no_keyword(called, name, list(parameters)))
        if takes_arrays and args and isinstance(args[0], xr.Dataset):
            raise EmbeddingError(_no_dataset(called, args[0]))
        if checks_subject and args and _is_no_array(args[0], alone=subject == "xr.DataArray"):
            raise EmbeddingError(
                f"{called} takes an xarray.DataArray; got {args[0].__class__.__name__}. gx.wrap makes an embedding "
                "array of plain vectors"
            )
        if kwargs or len(args) > 1 or any(each is None for each in args):
            _check_values(called, signature, args, kwargs)
        return function(*args, **kwargs)

    return answered


def _is_no_array(given: object, *, alone: bool) -> bool:
    """Whether something is a NumPy array, or, where one DataArray alone will do, anything else but None."""
    return isinstance(given, np.ndarray) or (alone and given is not None and not hasattr(given, "dims"))


def answering_methods[T](cls: type[T]) -> type[T]:
    """Wrap a class so that its public methods answer a wrong keyword with the right one."""
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if not name.startswith("_"):
            setattr(cls, name, answering(method))
    return cls


def _no_keyword(function: str, name: str, parameters: list[str]) -> str:
    ours = next((each for each in KEYWORDS.get(name, ()) if each in parameters), None)
    if ours is not None:
        return f"{function}() has no keyword {name!r}; here it is called {ours!r}"
    valid = [each for each in parameters if each != "self"]
    close = difflib.get_close_matches(name, valid, n=1)
    hint = f". Did you mean {close[0]!r}?" if close else f"; it has {', '.join(valid)}"
    return f"{function}() has no keyword {name!r}{hint}"


def _check_values(function: str, signature: inspect.Signature, args: Any, kwargs: Any) -> None:
    """Raise for None where a value is needed, since it means many things elsewhere, and for fractions of pixels."""
    try:
        bound = signature.bind_partial(*args, **kwargs)
    except TypeError as error:
        kinds = {name: each.kind for name, each in signature.parameters.items() if name != "self"}
        by_name = [name for name, kind in kinds.items() if kind is inspect.Parameter.KEYWORD_ONLY]
        if by_name and "too many positional" in str(error):
            plain = [name for name, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
            raise TypeError(
                f"{function}() takes {' and '.join(plain) or 'nothing'} without a name; say which of the others is "
                f"meant: {', '.join(f'{name}=' for name in by_name)}"
            ) from None
        return  # the call itself has the better message
    for name, given in bound.arguments.items():
        parameter = signature.parameters[name]
        kind = re.sub(r"\[.*\]", "", str(parameter.annotation))  # of what holds it, not of what it holds
        for each in given if parameter.kind is parameter.VAR_POSITIONAL else (given,):
            if kind == "int" and each is not None and not hasattr(each, "__index__"):
                raise EmbeddingError(f"{function}() takes a whole number for {name!r}; got {each!r}")
            if each is None and _needs_value(parameter, kind):
                raise EmbeddingError(_no_none(function, parameter))


def _needs_value(parameter: inspect.Parameter, kind: str) -> bool:
    """Whether a parameter does not accept None, by its annotation; for a switch None means off."""
    free = any(word in kind for word in ("None", "Any", "object", "Like", "empty"))
    return not free and kind != "bool" and parameter.default is not None


def _no_none(function: str, parameter: inspect.Parameter) -> str:
    name, default = parameter.name, parameter.default
    if default is parameter.empty:
        return f"{function}() needs {name!r}; got None"
    says = f"{function}() takes no None for {name!r}; leave it out for {default!r}"
    return f"{says}, or say {NONE[name]}" if name in NONE else says


def _no_dataset(function: str, dataset: xr.Dataset) -> str:
    names = list(map(str, dataset.data_vars))
    one = f"ds[{names[0]!r}].emb.{function}(…)" if names else "one of its variables"
    every = f"ds.emb.{function}(…) takes every variable, {one} one of them"
    return f"{function} takes one array; got a Dataset of {names}: " + (
        every if function in OF_DATASETS else f"{one} takes one of them"
    )
