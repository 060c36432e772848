"""To torchgeo and back: an array as a dataset that samplers take, and a dataset's files as a source."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoemb_xr.core.model import (
    BAND,
    EmbeddingError,
    SourceError,
    check_embedding,
    kind_of,
    registered,
    require,
)

if TYPE_CHECKING:
    from torchgeo.datasets import GeoDataset, NonGeoDataset


def to_torchgeo(
    array: xr.DataArray,
    *,
    transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    time_series: bool | None = None,
) -> GeoDataset | NonGeoDataset:
    """A torchgeo dataset of an array; nothing is read until a sample is asked for.

    Samples have torchgeo's own keys and shapes: ``image`` (band, y, x), or (time, band, y, x) as a time series,
    decoded, NaN where there is no data; ``mask`` for class maps; ``embedding``, ``x``, ``y`` and ``t`` for
    locations. Pixels are taken as they are (nearest), also where another dataset brings another CRS. An array of
    codes is the fastest: only the pixels of a sample are decoded.

    Parameters
    ----------
    array : DataArray
        A raster or a map gives a ``GeoDataset``, an item a time; locations a ``NonGeoDataset``, an item each.
    transforms : callable, optional
        Takes a sample and returns one.
    time_series : bool, optional
        Whether a sample holds all the times of its slice, or the first that has data at each pixel; by default
        all, where there are several.

    Returns
    -------
    torchgeo.datasets.GeoDataset or torchgeo.datasets.NonGeoDataset
        For samplers, ``stack_samples`` and a ``DataLoader`` with workers.

    Raises
    ------
    EmbeddingError
        If the array has neither a grid nor locations.
    MissingExtraError
        If torchgeo is not installed.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> dataset = gx.to_torchgeo(gx.testing.synthetic("alphaearth", shape=(32, 32)))
    >>> sample = dataset[dataset.bounds]
    >>> sample["image"].shape, sample["image"].dtype
    (torch.Size([64, 32, 32]), torch.float32)
    """
    require("torchgeo", "torchgeo")
    from geoemb_xr.interop import datasets

    if kind_of(array) != "map":
        check_embedding(array, "to_torchgeo")
    if "location" in array.dims:
        if BAND not in array.dims:
            raise EmbeddingError(f"to_torchgeo takes vectors at locations; got dims {tuple(array.dims)}")
        return datasets.LocationDataset(array, transforms)
    several = array.sizes.get("time", 1) > 1
    return datasets.ArrayDataset(array, transforms, several if time_series is None else time_series)


def is_dataset(value: object) -> bool:
    """Whether something is a torchgeo dataset, without importing torchgeo."""
    return any(each.__module__.partition(".")[0] == "torchgeo" for each in type(value).__mro__)


def files_of(dataset: object) -> tuple[str, list[str]]:
    """The product and the files of one of torchgeo's embedding datasets, for ``gx.open(dataset)``.

    Parameters
    ----------
    dataset : torchgeo.datasets.GeoDataset or NonGeoDataset
        ``GoogleSatelliteEmbedding``, ``TesseraEmbeddings``, ``ClayEmbeddings`` and the others.

    Returns
    -------
    product : str
        Name of the product.
    paths : list of str
        Files, or the folder that torchgeo reads as one table.

    Raises
    ------
    SourceError
        If it is none of those, or has no files.
    """
    names = [each.__name__ for each in type(dataset).__mro__]
    found = [each for each in registered() if each.torchgeo and each.torchgeo in names]
    if not found:
        known = sorted({each.torchgeo for each in registered() if each.torchgeo})
        raise SourceError(f"{names[0]} is not one of torchgeo's embedding datasets, {', '.join(known)}")
    index = getattr(dataset, "index", None)
    if index is not None and "filepath" in index:
        paths = [os.fspath(path) for path in dict.fromkeys(index["filepath"])]
    else:
        paths = _roots(dataset)
    if len(found) > 1:
        lengths = _vector_length(dataset)
        found = [
            each for each in found if each.dims == lengths[0] and _has_dates(each.name) == lengths[1]
        ] or found
    if len(found) > 1:
        raise SourceError(
            f"the files of this {names[0]} fit {', '.join(each.name for each in found)}; say which: "
            f"gx.open({found[0].name!r}, {paths[:1]})"
        )
    return found[0].name, paths


def _roots(dataset: object) -> list[str]:
    root = getattr(dataset, "root", None) or getattr(dataset, "paths", None)
    if root is None:
        raise SourceError(f"{type(dataset).__name__} does not say where its files are")
    many = [root] if isinstance(root, (str, os.PathLike)) else list(root)
    return [os.fspath(each) for each in many]


def _vector_length(dataset: object) -> tuple[int, bool]:
    """Length of the vectors of a table that torchgeo has read, and whether it has dates."""
    table = getattr(dataset, "data", None)
    if table is None or len(table) == 0:
        return 0, False
    column = "embedding" if "embedding" in table else "embeddings"
    return int(np.asarray(table[column].iloc[0]).size), bool({"date", "datetime"} & set(table.columns))


def _has_dates(name: str) -> bool:
    """Clay's NAIP files have no dates in their columns; the others of its datasets do."""
    return not name.endswith("naip")
