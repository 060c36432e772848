"""From arrays to colours and titles of panels, shared by static and interactive pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.analysis.components import PCA, fit_pca, rgb
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.legend import Legend, is_class_map, legend_of
from geoemb_xr.core.model import BAND, attribution_of, check_embedding, comparability_key, kind_of
from geoemb_xr.execution import blocks

_FACETS = ("time", "component", "category", "group")
_CMAPS = {"angle": "magma", "euclidean": "magma", "cosine": "viridis"}
_ROBUST = (2.0, 98.0)


@dataclass(frozen=True)
class Palette:
    """How values become colours: by a PCA, by a legend, or stretched over limits.

    Parameters
    ----------
    model : PCA, optional
        PCA of embeddings.
    stretch : tuple, optional
        Limits of the three colours of embeddings and components.
    legend : Legend, optional
        Legend of class maps.
    limits : (float, float), optional
        Limits of numbers.
    cmap : str or matplotlib Colormap
        Colour map of numbers.
    """

    model: PCA | None = None
    stretch: Any = None
    legend: Legend | None = None
    limits: tuple[float, float] | None = None
    cmap: Any = "viridis"

    @property
    def has_key(self) -> bool:
        """Whether a legend or a colour bar tells what the colours mean."""
        return self.legend is not None or self.limits is not None

    def apply(self, array: xr.DataArray) -> xr.DataArray:
        """Values to draw: classes and numbers stay as they are, everything else becomes colours, ``rgb`` last."""
        if self.legend is not None:
            return array
        if self.limits is not None:
            missing = array.attrs.get("missing_value")
            return array if missing is None else array.where(array != missing)
        if "rgb" not in array.dims:
            array = rgb(array, self.model, limits=self.stretch)
        place = ("y", "x") if "y" in array.dims else ("location",)
        return array.transpose(..., *place, "rgb")


def palette_of(array: xr.DataArray, *, model: PCA | None, limits: Any, cmap: Any) -> Palette:
    """The palette for the shown part of an array, which is in memory.

    Raises
    ------
    EmbeddingError
        If the array has a band dimension, but is not an embedding.
    ValueError
        If colours are given one limit without the other.
    """
    coloured = kind_of(array) != "map" or array.sizes.get("component", 0) >= 3
    if coloured and limits is not None and any(each is None for each in limits):
        raise ValueError("colours need both vmin= and vmax=")
    if kind_of(array) != "map":
        check_embedding(array, "plot")
        return Palette(model if model is not None else for_pictures(array), limits)
    if "rgb" in array.dims:
        return Palette()
    if coloured:
        each = [_middle(array.isel(component=i)) for i in range(3)]
        return Palette(stretch=each if limits is None else limits)
    if BAND in array.dims:
        raise EmbeddingError(
            "plot got a 'band' dimension without the attribute 'product': wrap it with gx.wrap, or select one band"
        )
    if is_class_map(array):
        return Palette(legend=legend_of(array))
    metric = str(array.attrs.get("metric", ""))
    chosen = cmap if cmap is not None else _CMAPS.get(metric, "viridis")
    return Palette(limits=_stretch(array, limits, metric), cmap=chosen)


def for_pictures(array: xr.DataArray | Sequence[xr.DataArray]) -> PCA:
    """Three components to show an array with; of one vector, or none, the first three bands."""
    try:
        return of_three(fit_pca(array, 3))
    except EmbeddingError:  # too few vectors; anything else is raised once more below
        (first, *_), bands = blocks.one_space(array, "plot")
        return PCA(
            *comparability_key(first),
            bands,
            attribution_of(first),
            mean=np.zeros(len(bands)),
            loadings=np.eye(3, len(bands)),
            explained_variance=np.zeros(3),
            total_variance=0.0,
            limits=np.tile([-0.5, 0.5], (3, 1)),
            n=0.0,
        )


def of_three(model: PCA) -> PCA:
    """Pad the model to three components and widen an empty stretch, so that any data make a picture.

    One vector repeated, or a mix of two, has no third component; it is mid grey.
    """
    more = max(3 - model.n_components, 0)
    low, high = np.pad(model.limits, ((0, more), (0, 0))).T
    room = np.where(high > low, 0.0, 0.5)
    return replace(
        model,
        loadings=np.pad(model.loadings, ((0, more), (0, 0))),
        explained_variance=np.pad(model.explained_variance, (0, more)),
        limits=np.stack([low - room, high + room], axis=1),
    )


def _stretch(array: xr.DataArray, given: Any, metric: str) -> tuple[float, float]:
    """The given limits, completed from what is shown."""
    missing = array.attrs.get("missing_value")
    low, high = _middle(array if missing is None else array.where(array != missing))
    if metric in ("angle", "euclidean") and high > 0:
        low = 0.0  # no change is the dark end
    first, second = given if given is not None else (None, None)
    return low if first is None else float(first), high if second is None else float(second)


def _middle(values: xr.DataArray) -> tuple[float, float]:
    there = values.values[np.isfinite(values.values)]
    if not there.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(there, _ROBUST))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


# --- panels ---------------------------------------------------------------------------------------------------


def facets(array: xr.DataArray) -> list[str]:
    """Dimensions that make a panel, or a slider, each: years, components, categories, groups."""
    found = [str(d) for d in array.dims if d in _FACETS and not (d == "component" and array.sizes[d] >= 3)]
    return [d for d in found if array.sizes[d] > 1 or d != "time"]


def panels(data: xr.DataArray, facet: Sequence[str]) -> list[tuple[str, xr.DataArray]]:
    """Return what each panel shows, with its title."""
    found = [("", data)]
    for dim in facet:
        found = [
            (", ".join(filter(None, (name, label(part, dim, i)))), part.isel({dim: i}))
            for name, part in found
            for i in range(part.sizes[dim])
        ]
    if not facet and "time" in data.dims:
        return [(label(data, "time", 0), data.isel(time=0))]
    return found


def label(data: xr.DataArray, dim: str, i: int) -> str:
    """The name of one step along a dimension; a period of a year is its year."""
    if dim not in data.coords:
        return f"{dim} {i}"
    value = data.coords[dim].values[i]
    return _period(value) if dim == "time" else str(value)


def _period(value: np.datetime64) -> str:
    stamp = pd.Timestamp(value)
    return str(stamp.year) if (stamp.month, stamp.day) == (1, 1) else f"{stamp:%Y-%m-%d}"


def map_title(array: xr.DataArray) -> str:
    """Return a title: the product or the map, a selected band, and the period."""
    if kind_of(array) != "map":
        what = f"{array.attrs['product']} {array.attrs.get('version', '')}".strip()
    elif "rgb" in array.dims:
        what = str(array.attrs.get("derived_from", ""))
    else:
        name = "" if array.name is None else str(array.name).replace("_", " ")
        what = str(array.attrs.get("long_name") or name)
    for dim in (BAND, "component", "category"):
        one = array.coords.get(dim)
        if one is not None and one.ndim == 0:
            what = f"{what} {one.item()}".strip()
    stamp = array.coords.get("time")
    if stamp is not None and stamp.ndim == 0 and stamp.dtype.kind == "M":
        what = f"{what}, {_period(stamp.values)}" if what else _period(stamp.values)
    return what
