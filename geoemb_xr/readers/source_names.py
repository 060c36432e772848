"""What callers give as product and source, as the paths, URLs and names that readers take."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core.areas import Area
from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.local_paths import local_path, refuse_pipe, says_local
from geoemb_xr.core.model import Product, registered
from geoemb_xr.readers import stac, torchgeo
from geoemb_xr.stores.storage import current


def located(
    product: Any, source: Any, area: Callable[[], Area | None], *, in_own_store: bool
) -> tuple[str | Product | None, Any]:
    """Product and source as readers take them; no product where a store stands in its place.

    Parameters
    ----------
    product, source : object
        As they were given to :func:`geoemb_xr.open`.
    area : callable
        The area that was asked for: STAC items outside of it are left out.
    in_own_store : bool
        Whether the caller gave ``storage=``, in whose store the path of a store that stands for its product lies.

    Raises
    ------
    SourceError
        If what is given is not a source, or several sources stand in place of their product.
    """
    product, source = _without_dataset(product, _as_list(source))
    named_files = stac.files_of(source, area)
    if named_files is not None:
        source = named_files[0] if len(named_files) == 1 else named_files
    product, source = map(_local, (product, source))
    if source is None and _is_path(product):
        return None, _from_here(os.fspath(current().locate(product) if in_own_store else product))
    _refuse_without_product(product)
    published = {name for each in registered() for name in each.stores}
    located_source = _from_here(current().locate(source), published)
    return product if isinstance(product, Product) else str(product), located_source


def _without_dataset(product: Any, source: Any) -> tuple[Any, Any]:
    """A torchgeo dataset, given as either, stands for its files."""
    if torchgeo.is_dataset(product):
        return torchgeo.files_of(product)
    return product, torchgeo.files_of(source)[1] if torchgeo.is_dataset(source) else source


def _as_list(given: Any) -> Any:
    """Several sources in any form as a list: what ``Path.glob`` yields, a set, a column of paths."""
    if isinstance(given, (str, list, xr.DataArray, xr.Dataset)) or hasattr(given, "read"):
        return given  # an open file would give its lines
    if isinstance(given, (set, frozenset)):
        return sorted(given, key=str)
    if isinstance(given, Iterator):
        return list(given)
    if getattr(getattr(given, "dtype", None), "kind", "") in ("O", "U") and getattr(given, "ndim", 0) == 1:
        found = list(given)
        return found if all(isinstance(each, str | os.PathLike) for each in found) else given
    return given


def _local(given: Any) -> Any:
    """``file://`` URLs and ``~``, alone or in a list, as the paths they are: every reader takes those alike.

    Raises
    ------
    SourceError
        For an array, a dict, whose keys would be read as paths, an empty list, an empty text and a pipe.
    """
    if isinstance(given, np.ndarray | pd.Series | pd.Index | xr.DataArray | xr.Dataset):
        what = f"an array of shape {given.shape}" if hasattr(given, "shape") else "a Dataset"
        raise SourceError(f"{what} is not a source; gx.wrap makes an embedding of vectors")
    if isinstance(given, Mapping):
        raise SourceError(_no_source(given))
    if isinstance(given, (list, tuple)):
        if not given:
            raise SourceError("the list of sources is empty; give paths, or None for what is published")
        return [_local(each) for each in given]
    if isinstance(given, str) and not given:  # a glob of nothing is all that lies here
        raise SourceError("the source is an empty text; give a path, or None for what is published")
    given = str(local_path(given)) if says_local(given) else given
    if isinstance(given, str | os.PathLike):
        refuse_pipe(given)
    return given


def _from_here(source: Any, published: Collection[str] = ()) -> Any:
    """A relative path, alone or in a list, as one that is right elsewhere: in a notebook that moved, on a worker.

    Parameters
    ----------
    source : str, path, list of those, or anything else
        What is no relative path is returned as it is.
    published : collection of str
        Names that are no paths.
    """
    if isinstance(source, (list, tuple)):
        return [_from_here(each, published) for each in source]
    if not isinstance(source, (str, os.PathLike)):
        return source
    name = os.fspath(source)
    if not isinstance(name, str) or "://" in name or name in published or os.path.isabs(name):
        return source
    return os.path.join(os.getcwd(), name) if _looks_like_source(name) else source


def _no_source(given: Mapping[Any, Any]) -> str:
    if "assets" in given:
        return "it has assets but no 'stac_version': it is not a STAC item; give the path or URL of an asset"
    if "type" in given:
        return "GeoJSON is a place and no source: geopolygon= takes an area, points= points"
    return f"a source is a path, URL, glob or a list of them, a table or a dataset; got a dict of {list(given)[:6]}"


def _is_path(product: Any) -> bool:
    if isinstance(product, os.PathLike):
        return True
    text = str(product)
    if not isinstance(product, str) or text in {each.name for each in registered()}:  # some have a dot
        return False
    return "/" in text or "\\" in text or Path(text).suffix != "" or Path(text).exists()


def check_named(found: Product, source: Any) -> Any:
    """Return a source; raise if it is neither the name of one of the product's stores nor looks like a source."""
    if isinstance(source, str) and source not in found.stores and not _looks_like_source(source):
        names = ", ".join(map(repr, found.stores)) or "none"
        raise ValueError(
            f"source={source!r} is neither a path that exists, a glob, a URL, nor a published store of "
            f"{found.name!r} ({names})"
        )
    return source


def _looks_like_source(source: str) -> bool:
    return "://" in source or any(c in source for c in "*?[/\\.") or Path(source).exists()


def _refuse_without_product(product: Any) -> None:
    """Raise where several sources stand in place of their product."""
    if isinstance(product, list | tuple):
        raise SourceError(
            "several sources need their product, gx.open('alphaearth', [...]); stores of ours, which say theirs, "
            "are opened one by one and joined: gx.concat([gx.open(path) for path in paths], 'time'), or gx.mosaic"
        )
