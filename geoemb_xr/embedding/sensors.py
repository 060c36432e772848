"""Several sensors as one raster: each is resampled to the first one's grid and months, and gaps stay missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.missing import scaling_in
from geoemb_xr.core.model import BAND
from geoemb_xr.embedding import harmonizing, inputs, stacks
from geoemb_xr.embedding.cards import Encoder
from geoemb_xr.embedding.harmonizing import Harmonize
from geoemb_xr.geo import warp

Factor = float | Mapping[str, float]


def joined(
    images: Mapping[str, Any],
    encoder: Encoder,
    scale: Factor,
    offset: Factor,
    bands: Any = None,
    harmonize: Harmonize = "auto",
) -> xr.DataArray:
    """One raster ``(time?, band, y, x)`` of several, float32 in the encoder's units, NaN where missing. Lazy.

    The first sensor gives the grid and the dates. Others are read at its pixels (bilinear; nearest where they are
    coarser by far), each of its dates with their image of the same month; what has no dates holds for all. Chips go
    together one by one.

    Parameters
    ----------
    images : mapping of str to DataArray, Dataset or None
        Images by sensor; None is one that is absent.
    encoder : Encoder
        Encoder whose bands are wanted.
    scale, offset : float or mapping of str to float
        ``images * scale + offset`` is in the encoder's units; for all sensors, or by sensor.
    bands : mapping of str to str, optional
        Names of the images' bands by the encoder's.
    harmonize : "auto" or bool
        What to do about Sentinel-2's offset.

    Raises
    ------
    EmbeddingError
        If there are none, if two have the same band, or if one has two images of a month.
    """
    if all(each is None for each in images.values()):
        raise EmbeddingError("embed got no images: a dict of sensors has at least one")
    for what, factor in (("scale", scale), ("offset", offset)):
        strange = set(factor) - set(images) if isinstance(factor, Mapping) else set()
        if strange:
            raise EmbeddingError(f"{what} names {sorted(strange)}; the sensors are {sorted(images)}")
    found: list[xr.DataArray] = []
    each_some = replace(encoder, optional=encoder.bands)  # what all of them lack is told of together, later
    images = {name: inputs.as_array(each) for name, each in images.items() if each is not None}
    are_chips = stacks.is_stack(images)
    if are_chips:
        stacks.check_alike(images)
    for name, given in images.items():
        raster = given if are_chips else inputs.as_raster(_named(given, name, encoder), encoder)
        inputs.check_numbers(raster)
        declared, factors = (
            scaling_in(raster.attrs),
            (_factor_of(scale, name, 1.0), _factor_of(offset, name, 0.0)),
        )
        left = harmonizing.offset_left(raster, harmonize, *factors)
        raster = harmonizing.harmonize(raster, harmonize)
        own = _in_units(raster, factors[0], left)
        own = inputs.pick_bands(own, each_some, _own_bands(bands, own))
        inputs.check_scaling(declared, own, encoder, *factors)
        if found and not are_chips:
            own = _at_dates(_at_pixels(own, found[0]), found[0], name)
        found.append(own)
    if not encoder.bands:  # it takes all there are: two sensors may call theirs the same
        found = [
            e.assign_coords({BAND: [f"{n} {b}" for b in e[BAND].values]})
            for n, e in zip(images, found, strict=True)
        ]
    labels = [str(b) for each in found for b in each.coords[BAND].values]
    twice = sorted({b for b in labels if labels.count(b) > 1})
    if twice:
        raise EmbeddingError(f"two sensors have the band {twice[0]}: give each band once")
    keep = ("time", BAND, "y", "x", geometry.SPATIAL_REF)
    bare = [found[0]] if are_chips else []
    bare += [each.drop_vars([c for c in each.coords if c not in keep]) for each in found[len(bare) :]]
    whole = xr.concat(bare, dim=BAND, join="override", coords="minimal", compat="override")
    whole.attrs = {k: v for k, v in found[0].attrs.items() if k in ("source",)}
    return whole.transpose(*(d for d in ("location", "time", BAND, "y", "x") if d in whole.dims))


def _named(images: Any, sensor: str, encoder: Encoder) -> Any:
    """A picture of one band without a name, as of terrain, is called as the array or its sensor is."""
    if not isinstance(images, xr.DataArray):
        return images
    if BAND not in images.dims and {"y", "x"} <= set(images.dims):
        images = images.drop_vars(BAND, errors="ignore").expand_dims(BAND)
    if images.sizes.get(BAND) != 1 or inputs.own_names(images) is not None:
        return images
    known = [inputs.band_name(n) for n in (images.name, sensor) if inputs.band_name(n) in encoder.bands]
    return images.assign_coords({BAND: known[:1] or [sensor]})


def _factor_of(factor: Factor, name: str, usual: float) -> float:
    return float(factor.get(name, usual) if isinstance(factor, Mapping) else factor)


def _own_bands(bands: Any, images: xr.DataArray) -> Any:
    """The part of a mapping of bands that concerns one sensor."""
    if not isinstance(bands, Mapping):
        return None
    own = {str(b) for b in images.coords[BAND].values} if BAND in images.coords else set()
    return {k: v for k, v in bands.items() if str(v) in own}


def _in_units(images: xr.DataArray, scale: float, offset: float) -> xr.DataArray:
    nodata = inputs.missing_value(images)
    values = images.astype(np.float32)
    if nodata is not None:
        values = values.where(images != nodata)
    if scale != 1.0 or offset != 0.0:
        values = values * np.float32(scale) + np.float32(offset)
    values.attrs = {k: v for k, v in images.attrs.items() if k == "source"}
    return values


def _at_pixels(images: xr.DataArray, base: xr.DataArray) -> xr.DataArray:
    box, own = geometry.geobox_of(base, "embed"), geometry.geobox_of(images, "embed")
    if geometry.same_grid(box, own):
        return images.assign_coords(y=base.y, x=base.x)
    moved: xr.DataArray = warp.reproject(images, box, resampling="bilinear")
    return moved


def _at_dates(images: xr.DataArray, base: xr.DataArray, name: str) -> xr.DataArray:
    """The image of each of the base's months; missing where there is none."""
    if "time" not in base.dims:
        if "time" in images.dims:
            raise EmbeddingError(f"the sensor {name!r} has dates, and the first one has none: select one")
        return images
    if "time" not in images.dims:
        return images.expand_dims(time=base.time)
    months, own = (pd.PeriodIndex(each.time.values, freq="M") for each in (base, images))
    if own.has_duplicates:
        raise EmbeddingError(
            f"the sensor {name!r} has two images of {own[own.duplicated()][0]}: make one per month, as in "
            ".resample(time='MS').median()"
        )
    at = own.get_indexer(months)
    taken = images.isel(time=np.where(at < 0, 0, at)).assign_coords(time=base.time)
    there = xr.DataArray(at >= 0, dims="time", coords={"time": base.time})
    return taken if (at >= 0).all() else taken.where(there)
