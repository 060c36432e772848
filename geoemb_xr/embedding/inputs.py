"""Preparation of images for an encoder: one raster of its bands, in its order and its units, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.missing import NODATA_KEYS, SCALING_KEYS, nodata_in, scaling_in
from geoemb_xr.core.model import BAND, GENERATED
from geoemb_xr.core.notes import say
from geoemb_xr.embedding.cards import Encoder

#: Names that one band goes by: the producer's, those of STAC's ``eo:common_name``, and older spellings.
_SENTINEL2 = {
    "B01": ("coastal", "coastal aerosol", "aerosols"),
    "B02": ("blue",),
    "B03": ("green",),
    "B04": ("red",),
    "B05": ("rededge1", "rededge071", "red edge 1", "rededge"),
    "B06": ("rededge2", "rededge075", "red edge 2"),
    "B07": ("rededge3", "rededge078", "red edge 3"),
    "B08": ("nir",),
    "B8A": ("nir08", "nir narrow", "nir narrow 1", "rededge4"),
    "B09": ("nir09", "water vapour", "wvp"),
    "B10": ("cirrus",),
    "B11": ("swir16", "swir 1", "swir1"),
    "B12": ("swir22", "swir 2", "swir2"),
}
#: Names of terrain.
_OTHERS = {"elevation": ("dem", "srtm", "copdem", "dsm")}
#: Central wavelengths of Sentinel-2A in nanometres (ESA, Sentinel-2 User Handbook).
WAVELENGTHS = {
    "B01": 442.7, "B02": 492.4, "B03": 559.8, "B04": 664.6, "B05": 704.1, "B06": 740.5, "B07": 782.8,
    "B08": 832.8, "B8A": 864.7, "B09": 945.1, "B10": 1373.5, "B11": 1613.7, "B12": 2202.4,
}  # fmt: skip
_ALIASES = {alias: name for name, aliases in {**_SENTINEL2, **_OTHERS}.items() for alias in aliases}
_LONLAT = {"lat": "y", "latitude": "y", "lon": "x", "longitude": "x"}
_AXES = {**_LONLAT, "bands": BAND, "channel": BAND, "X": "x", "Y": "y"}
#: Wavelengths that differ by more, in nanometres, are of two bands.
_SAME_BAND_NM = 30.0
#: Resolutions whose ratio is beyond this are told of.
_FAR_RESOLUTION = 1.5
#: What no measurement in these units is below: what marks missing pixels is.
_LOWEST = {"reflectance": -0.5, "dn": -5000.0, "dB": -200.0, "power": -1.0, "K": 0.0}
#: Attributes of images that say where they are from.
ORIGIN = ("source", GENERATED)
_SAID = (*NODATA_KEYS, *SCALING_KEYS, "grid_mapping")
_WAVELENGTHS = ("wavelength", "center_wavelength", "wavelengths")


def generators_of(images: Any, encoder: Encoder) -> str:
    """Generative models that produced some of the images or of the encoder's output; empty for none."""
    if isinstance(images, Mapping) and not isinstance(images, xr.Dataset):
        parts = list(images.values())
    else:
        parts = [images, *(images.data_vars.values() if isinstance(images, xr.Dataset) else ())]
    found = [encoder.generated_by, *(getattr(part, "attrs", {}).get(GENERATED, "") for part in parts)]
    return ", ".join(dict.fromkeys(str(name) for name in found if name))


def as_raster(images: Any, encoder: Encoder) -> xr.DataArray:
    """Turn what was given into a raster ``(time?, band, y, x)``; a Dataset has a variable per band.

    Raises
    ------
    EmbeddingError
        If it is not a raster of images, or has no CRS, or is rotated.
    """
    images = as_array(images)
    if not isinstance(images, xr.DataArray):
        raise EmbeddingError(
            "embed takes images as an xarray raster (time?, band, y, x) with a CRS, a Dataset with a variable per "
            f"band, or a dict of them by sensor; got {type(images).__name__}"
        )
    if "product" in images.attrs and BAND in images.dims:
        raise EmbeddingError(
            f"embed takes images, and this is an embedding already (product {images.attrs['product']!r})"
        )
    is_lonlat = {"x", "y"} <= {_LONLAT.get(str(d)) for d in images.dims}
    images = images.rename({d: _AXES[str(d)] for d in images.dims if str(d) in _AXES})
    if BAND not in images.dims and len(encoder.bands) == 1:
        images = images.expand_dims({BAND: list(encoder.bands)})
    wrong = [str(d) for d in images.dims if d not in ("time", BAND, "y", "x")]
    if wrong or BAND not in images.dims:
        raise EmbeddingError(
            f"embed takes images with dims (time?, band, y, x); got {tuple(map(str, images.dims))}"
            + (f", and {', '.join(wrong)} is none of them: rename or select it" if wrong else "")
        )
    if geometry.crs_of(images) is None:
        # axes that are called longitude and latitude are those
        crs = _crs_elsewhere(images) or (geometry.LONLAT if is_lonlat else None)
        if crs is None:
            raise EmbeddingError(
                "embed needs a CRS, and the images have none: give them one with rioxarray's "
                ".rio.write_crs('EPSG:…') or odc-geo's .odc.assign_crs('EPSG:…'); chips without a place have the "
                "dims (location, band, y, x)"
            )
        images = images.assign_coords({geometry.SPATIAL_REF: geometry.crs_coord(crs)})
    _check_upright(images)
    geometry.geobox_of(images, "embed")
    order = [d for d in ("time", BAND, "y", "x") if d in images.dims]
    return geometry.north_up_array(images.transpose(*order))


def as_array(images: Any) -> Any:
    """Join a Dataset with a variable per band into one array with its metadata; return all else as it is.

    What is missing in a variable, by its own attributes, is NaN where variables differ in that.
    """
    if not isinstance(images, xr.Dataset):
        return images
    names = [n for n, v in images.data_vars.items() if {"grid_mapping_name", "crs_wkt"} & set(v.attrs)]
    images = images.set_coords(names)
    most = max((v.ndim for v in images.data_vars.values()), default=0)
    bands = {str(n): v for n, v in images.data_vars.items() if v.ndim == most}  # the rest is not a picture
    codes = {n: missing_value(v) for n, v in bands.items()}
    if len(set(codes.values())) > 1:
        bands = {n: v if codes[n] is None else _without_code(v, codes[n]) for n, v in bands.items()}
    whole = images.drop_vars(list(images.data_vars)).assign(bands).to_dataarray(BAND)
    parts = list(bands.values())
    whole.attrs = {**images.attrs, **_shared([v.attrs for v in parts])}
    declared = [scaling_in(v.attrs) or (1.0, 0.0) for v in parts]
    if len(set(declared)) > 1:
        whole.attrs["scales"], whole.attrs["offsets"] = zip(*declared, strict=True)
    whole.encoding = _shared([{k: v.encoding[k] for k in _SAID if k in v.encoding} for v in parts])
    for name in _WAVELENGTHS:
        if parts and all(name in v.attrs for v in parts):
            whole = whole.assign_coords({name: (BAND, [float(v.attrs[name]) for v in parts])})
    before = [d for d in ("location", "time") if d in whole.dims]
    return whole.transpose(*before, BAND, ...)


def usable_sensors(images: Any, encoder: Encoder) -> Any:
    """Return the sensors of a dataset with a band of the encoder; all if none has, or if it takes any bands."""
    if not isinstance(images, Mapping) or not encoder.bands:
        return images
    wanted = {band_name(b) for b in encoder.bands}
    own = {k: v for k, v in images.items() if wanted & {band_name(b) for b in own_names(v) or ()}}
    return own or images


def _without_code(band: xr.DataArray, code: float | None) -> xr.DataArray:
    """A band in floating point, NaN where it had its nodata value."""
    exact = np.float32 if band.dtype.itemsize <= 2 else np.float64
    attrs = {k: v for k, v in band.attrs.items() if k not in NODATA_KEYS}
    return band.astype(exact).where(band != code).assign_attrs(attrs)


def _shared(several: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The attributes that all have in common."""
    if not several:
        return {}
    first, *others = several
    return {k: v for k, v in first.items() if all(k in o and np.array_equal(o[k], v) for o in others)}


def _crs_elsewhere(images: xr.DataArray) -> Any:
    """The CRS where stackstac and Xee say it: as a coordinate of catalogues, or as an attribute."""
    for name in ("proj:code", "proj:epsg", "epsg"):
        if name in images.coords and images.coords[name].ndim == 0:
            return images.coords[name].item()
    return images.attrs.get("crs")


def _check_upright(images: xr.DataArray) -> None:
    ref = images.coords.get(geometry.SPATIAL_REF)
    numbers = [float(v) for v in str(ref.attrs.get("GeoTransform", "")).split()] if ref is not None else []
    if len(numbers) == 6 and (numbers[2] or numbers[4]):
        raise EmbeddingError(
            "embed needs a north-up grid, and this one is rotated (its GeoTransform has the terms "
            f"{numbers[2]:g} and {numbers[4]:g}); warp it first, for instance with .odc.reproject or gdalwarp"
        )


# --- bands ------------------------------------------------------------------------------------------------------


def band_name(name: object) -> str:
    """A band's name as cards have it: ``blue``, ``B2`` and ``b02`` are ``B02``, ``vv`` is ``VV``."""
    text = str(name).strip()
    low = text.lower().replace("_", " ").removesuffix(" 10m").removesuffix(" 20m").removesuffix(" 60m")
    if low in _ALIASES:
        return _ALIASES[low]
    body = low.removeprefix("b")
    if low.startswith("b") and body.isdigit() and 1 <= int(body) <= 12:
        return f"B{int(body):02d}"
    if low in ("b8a", "b08a"):
        return "B8A"
    return text.upper() if low in ("vv", "vh", "hh", "hv") else text


def pick_bands(
    images: xr.DataArray, encoder: Encoder, bands: Sequence[str] | Mapping[str, str] | None
) -> xr.DataArray:
    """The encoder's bands in its order, labelled as its card has them.

    Parameters
    ----------
    images : DataArray (…, band, …)
        Images with names along ``band``, or given by ``bands``.
    encoder : Encoder
        Encoder whose bands are wanted.
    bands : sequence or mapping of str, optional
        The images' own bands in the encoder's order, or from the encoder's names to the images'. Where the images'
        bands have no names, they are named so as they lie.

    Raises
    ------
    EmbeddingError
        If bands are missing, are not named, or lie at another wavelength than the encoder's.
    """
    own = own_names(images)
    if (
        own is None
        and bands is not None
        and not isinstance(bands, Mapping)
        and images.sizes[BAND] == len(bands)
    ):
        return pick_bands(images.assign_coords({BAND: list(map(str, bands))}), encoder, None)
    wanted = encoder.bands
    if not wanted:
        taken = list(own if own is not None else map(str, range(images.sizes[BAND])))
        return images.isel({BAND: [_place(taken, b) for b in bands]}) if bands is not None else images
    if bands is None:
        asked = dict(zip(wanted, wanted, strict=True))
    elif isinstance(bands, Mapping):
        asked = {**dict(zip(wanted, wanted, strict=True)), **{str(k): str(v) for k, v in bands.items()}}
    elif len(bands) == len(wanted):
        asked = dict(zip(wanted, map(str, bands), strict=True))
    else:
        raise EmbeddingError(
            f"{encoder.name} takes {len(wanted)} bands, {', '.join(wanted)}; bands= names {len(bands)}: "
            f"{list(bands)}"
        )
    near = _by_wavelength(images, encoder)
    if own is None and not near:
        raise EmbeddingError(
            f"{encoder.name} takes the bands {', '.join(wanted)}, and the images' bands have no names: name "
            "them as they lie, with bands=[…]"
        )
    own = own or [str(k) for k in range(images.sizes[BAND])]
    twice = sorted({b for b in asked.values() if own.count(b) > 1})
    if twice:
        raise EmbeddingError(
            f"the images have the band {twice[0]} more than once: select the one that is meant"
        )
    exact = {name: i for i, name in reversed(list(enumerate(own)))}
    alike = {band_name(name): i for i, name in reversed(list(enumerate(own)))}
    at = {b: exact.get(name, alike.get(band_name(name), near.get(b))) for b, name in asked.items()}
    missing = [b for b in wanted if at[b] is None and b not in encoder.optional]
    if missing:
        raise EmbeddingError(
            f"{encoder.name} needs the bands {', '.join(wanted)}; the images have {', '.join(own)}, so "
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. If they are there by other "
            "names, say so with bands={'" + missing[0] + "': '…'}"
        )
    found = [b for b in wanted if at[b] is not None]
    if not found:
        raise EmbeddingError(
            f"{encoder.name} takes {', '.join(wanted)}; the images have none: {', '.join(own)}"
        )
    picked = images.isel({BAND: [at[b] for b in found]})
    _check_wavelengths(picked, found, encoder)
    return picked.assign_coords({BAND: found})


def own_names(images: xr.DataArray) -> list[str] | None:
    """Names that the images' bands have; None where they are numbered, or lie without."""
    if BAND in images.coords and images.coords[BAND].dtype.kind in "UOST":
        return [str(name) for name in images.coords[BAND].values]
    names = images.attrs.get("long_name")  # rioxarray's place for the descriptions of a GeoTIFF's bands
    if isinstance(names, (tuple, list)) and len(names) == images.sizes[BAND]:
        return [str(name) for name in names]
    return None


def _place(own: Sequence[str], band: str) -> int:
    if str(band) not in own:
        raise EmbeddingError(f"the images have no band {band!r}; they have {', '.join(own)}")
    return list(own).index(str(band))


def _wavelengths(images: xr.DataArray) -> np.ndarray | None:
    """Wavelengths that the images say their bands have, in nanometres; None where they say none."""
    given = next((images.coords[k] for k in _WAVELENGTHS if k in images.coords), None)
    if given is None or given.dims != (BAND,):
        return None
    values = np.asarray(given.values, np.float64)
    return values * 1000 if np.nanmax(values) < 100 else values  # micrometres


def _by_wavelength(images: xr.DataArray, encoder: Encoder) -> dict[str, int]:
    """Match the encoder's bands to the images' by wavelength, where exactly one is near enough."""
    given = _wavelengths(images)
    if given is None or not encoder.wavelengths:
        return {}
    nearest: dict[str, list[int]] = {}
    for place, value in enumerate(given):
        far = np.abs(np.array(encoder.wavelengths) - value)
        if (far <= _SAME_BAND_NM).any():
            nearest.setdefault(encoder.bands[int(np.nanargmin(far))], []).append(place)
    return {band: places[0] for band, places in nearest.items() if len(places) == 1}


def _check_wavelengths(images: xr.DataArray, bands: Sequence[str], encoder: Encoder) -> None:
    """Raise if the images state a wavelength that is not the encoder's."""
    values = _wavelengths(images)
    if values is None or not encoder.wavelengths:
        return
    for band, value in zip(bands, values, strict=True):
        expected = encoder.wavelengths[encoder.bands.index(band)]
        if math.isfinite(expected) and math.isfinite(value) and abs(value - expected) > _SAME_BAND_NM:
            raise EmbeddingError(
                f"the images' band {band} lies at {value:.0f} nm, {encoder.name}'s at {expected:.0f} nm: they are "
                "not one band. Say which is which with bands={…}"
            )


# --- what numbers are -------------------------------------------------------------------------------------------


def missing_value(images: xr.DataArray) -> float | None:
    """The nodata value of the images from their attributes; NaN always counts as missing."""
    # of numbers that were scaled when they were read, it is a stored number, and none of theirs
    stored = {} if scaling_in(images.encoding) else images.encoding
    return nodata_in(images.attrs, stored)


def check_scaling(
    declared: tuple[float, float] | None, images: xr.DataArray, encoder: Encoder, scale: float, offset: float
) -> None:
    """Raise where images declare a scale that nobody applied, and the encoder takes another unit than is stored.

    Digital numbers of which 10,000 are white are what a scale of 1e-4 is declared of. Whoever passes ``scale`` or
    ``offset`` knows the unit. Nothing is applied unasked, since xarray keeps attributes in ``images * 1e-4``.

    Parameters
    ----------
    declared : tuple of float, optional
        Scale and offset that the images declare (:func:`geoemb_xr.core.missing.scaling_in`).
    images : DataArray (…, band, …)
        The images, with the encoder's names of bands.
    encoder : Encoder
        Encoder that takes them.
    scale, offset : float
        What was passed.

    Raises
    ------
    EmbeddingError
        With what to pass.
    """
    if declared is None or (scale, offset) != (1.0, 0.0):
        return
    count = len(encoder.bands)
    of_bands = (encoder.units,) * count if isinstance(encoder.units, str) else encoder.units
    units = {unit for band, unit in zip(encoder.bands, of_bands, strict=True) if band in images[BAND].values}
    units -= {"any"} | ({"dn"} if math.isclose(declared[0], 1e-4) and declared[1] == 0 else set())
    if not units:
        return
    raise EmbeddingError(
        f"the images declare a scale of {declared[0]:g} and an offset of {declared[1]:g}, which are not applied to "
        f"their numbers, and {encoder.name} takes {' and '.join(sorted(units))}. Open them with "
        "mask_and_scale=True, or pass the scale= and offset= that bring their numbers to its unit; where they are "
        "in it, remove what is declared (.attrs.pop('scale_factor'))"
    )


def check_numbers(images: xr.DataArray) -> None:
    """Raise unless images are real numbers.

    Raises
    ------
    EmbeddingError
        If they are complex numbers, texts or dates.
    """
    if images.dtype.kind == "c":
        raise EmbeddingError(
            "embed takes real numbers, and these are complex, as single-look radar is: pass their power, "
            "abs(images) ** 2"
        )
    if images.dtype.kind not in "biuf":
        raise EmbeddingError(
            f"embed takes numbers, and the images are {images.dtype}: bring them to float32, as in "
            ".astype('float32'), without what is no picture"
        )


def check_range(values: np.ndarray, band: str, unit: str) -> None:
    """Raise if values of a band cannot be in the encoder's unit.

    Parameters
    ----------
    values : ndarray
        Some valid values of a block, after ``scale`` and ``offset``.
    band : str
        Name of the band.
    unit : str
        What the card says they are.

    Raises
    ------
    EmbeddingError
        With the factor to pass.
    """
    if values.size == 0:
        return
    low, middle, high = (float(v) for v in np.quantile(values, (0.01, 0.5, 0.99)))
    says = f"{band} has values from {low:.4g} to {high:.4g}, median {middle:.4g}"
    if unit == "reflectance" and middle > 5 and high <= 120:
        raise EmbeddingError(
            f"{says}: per cent, and the encoder takes reflectance, where 1 is white. Pass scale=0.01"
        )
    if unit == "reflectance" and middle > 5:
        raise EmbeddingError(
            f"{says}: digital numbers, and the encoder takes reflectance, where 1 is white. Pass scale=1e-4, and "
            "offset=-0.1 with Sentinel-2 of processing baseline 04.00 and later whose offset is still in it"
        )
    if unit == "dn" and high <= 2 and np.any(values != np.rint(values)):
        raise EmbeddingError(
            f"{says}: reflectance, and the encoder takes digital numbers, where 10,000 is white. Pass scale=10000"
        )
    if unit == "dB" and low >= 0 and high > 0:
        raise EmbeddingError(
            f"{says}: linear power, and the encoder takes decibels. Pass 10 * numpy.log10(images) of this sensor"
        )
    if unit == "power" and middle < 0:
        raise EmbeddingError(
            f"{says}: decibels, and the encoder takes linear power. Pass 10 ** (images / 10) of this sensor"
        )
    if unit == "K" and middle < 150:
        raise EmbeddingError(f"{says}: degrees Celsius, and the encoder takes kelvin. Pass images + 273.15")
    least = float(values.min())
    if least < _LOWEST.get(unit, -math.inf):
        raise EmbeddingError(
            f"{band} has values as low as {least:.4g}, and the encoder takes {unit}: they mark missing pixels, or "
            "scale= and offset= are wrong. Say which number of the images means missing with "
            "images.assign_attrs(_FillValue=…), or set it to NaN"
        )


def tell_resolution(encoder: Encoder, metres: float) -> None:
    """Note if the images' pixel size is far from that of the encoder's training data."""
    wanted = encoder.resolution
    if wanted is not None and not 1 / _FAR_RESOLUTION <= metres / wanted <= _FAR_RESOLUTION:
        say(
            f"{encoder.name} was made for pixels of {wanted:g} m, and the images have {metres:.4g} m: its vectors "
            "may mean little; bring the images to its resolution first"
        )


def pick_time(images: xr.DataArray, encoder: Encoder, time: Any) -> xr.DataArray:
    """Select from the time axis what the encoder takes: one date, each date, or a whole series.

    Raises
    ------
    EmbeddingError
        If an encoder of single dates gets several and is not told which, or a series is too long, or has no dates.
    """
    if encoder.kind != "image":
        if "time" not in images.dims:
            raise EmbeddingError(f"{encoder.name} takes series, and the images have no dimension 'time'")
        if time is not None and not _is_each(time):
            images = _selected_dates(images, time)
        if images.sizes["time"] > encoder.steps:
            raise EmbeddingError(
                f"{encoder.name} takes up to {encoder.steps} dates, and the images have {images.sizes['time']}: "
                "select some, or make one per month of them with .resample(time='MS').median()"
            )
        dated = "date" if "location" in images.dims and "date" in images.coords else "time"
        if dated not in images.coords or images.coords[dated].dtype.kind != "M":
            raise EmbeddingError(f"{encoder.name} takes the months of a series: 'time' must be dates")
        if dated == "time" and not images.indexes["time"].is_monotonic_increasing:
            images = images.sortby("time")
        return images
    if "time" not in images.dims or _is_each(time):
        return images
    if time is not None:
        return _selected_dates(images, time)
    if images.sizes["time"] == 1:
        return images
    raise EmbeddingError(
        f"{encoder.name} looks at one date, and the images have {_dates(images)}: say which, as in "
        "time='2024-06-15', or time='each' for a vector per date"
    )


def _is_each(time: Any) -> bool:
    return isinstance(time, str) and time == "each"


def _selected_dates(images: xr.DataArray, time: Any) -> xr.DataArray:
    """Select the requested dates, keeping the time axis."""
    try:
        found = images.sel(time=time)
    except KeyError as error:
        raise EmbeddingError(f"the images have no date {time!r}; they have {_dates(images)}") from error
    return found if "time" in found.dims else found.expand_dims("time")


def _dates(images: xr.DataArray) -> str:
    dates = images.coords["time"].values if "time" in images.coords else np.arange(images.sizes["time"])
    shown = ", ".join(str(d)[:10] for d in dates[:3]) + (", …" if dates.size > 3 else "")
    return f"{dates.size} dates ({shown})"
