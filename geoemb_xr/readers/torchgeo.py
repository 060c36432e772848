"""A torchgeo dataset as a source: which product it is, and where its files are."""

from __future__ import annotations

import os

import numpy as np

from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.model import registered


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
