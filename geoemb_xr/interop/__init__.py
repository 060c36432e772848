"""To torchgeo: an array as a dataset that samplers take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import xarray as xr

from geoemb_xr.core.errors import EmbeddingError, require
from geoemb_xr.core.model import BAND, check_embedding, kind_of

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
        A raster or a map gives a ``GeoDataset``, an item per time; locations a ``NonGeoDataset``, an item each.
    transforms : callable, optional
        Takes a sample and returns one.
    time_series : bool, optional
        Whether a sample holds all the times of its slice, or the first that has data at each pixel; by default
        all, where there are several.

    Returns
    -------
    torchgeo.datasets.GeoDataset or torchgeo.datasets.NonGeoDataset
        A dataset for samplers, ``stack_samples`` and a ``DataLoader`` with workers.

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
