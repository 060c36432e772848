"""Chips without a grid: one vector each, with the coordinates that came with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.model import BAND, register
from geoemb_xr.embedding import encoding
from geoemb_xr.embedding.cards import Encoder
from geoemb_xr.embedding.encoding import Job

#: Chips of a block, where a stack is in memory.
_CHIPS = 256
_DIMS = ("location", "time", BAND, "y", "x")
#: Names that a place goes by; the last are in the CRS of the stack.
_PLACES = (("lon", "lat"), ("longitude", "latitude"), ("x", "y"))


def is_stack(images: Any) -> bool:
    """Whether these are chips, or chips of several sensors by name."""
    if isinstance(images, Mapping) and not isinstance(images, xr.Dataset):
        return bool(images) and all(is_stack(each) for each in images.values())
    return isinstance(images, xr.DataArray) and "location" in images.dims


def as_stack(images: xr.DataArray, encoder: Encoder) -> xr.DataArray:
    """A stack ``(location, time?, band, y, x)`` of chips, or ``(location, time, band)`` of series of pixels.

    Raises
    ------
    EmbeddingError
        If it has other dimensions, or its chips another size than the encoder's.
    """
    is_series = encoder.kind == "series"
    wanted = _DIMS[:3] if is_series else _DIMS
    needed = set(wanted) - ({"time"} if encoder.kind == "image" else set())
    if not needed <= set(images.dims) <= set(wanted):
        raise EmbeddingError(
            f"{encoder.name} takes {'series of pixels' if is_series else 'a stack of chips'} with the dims "
            f"({', '.join(d + ('?' if d not in needed else '') for d in wanted)}); got "
            f"{tuple(map(str, images.dims))}"
        )
    if not is_series:
        _check_size(images, encoder)
        if "chips" not in encoder.outputs:
            raise EmbeddingError(f"{encoder.name} gives no vectors of chips: give it a raster")
    return images.transpose(*(d for d in wanted if d in images.dims))


def _check_size(images: xr.DataArray, encoder: Encoder) -> None:
    size = images.sizes["y"], images.sizes["x"]
    if size != (encoder.chip, encoder.chip):
        raise EmbeddingError(
            f"{encoder.name} looks at chips of {encoder.chip} × {encoder.chip} pixels, and these have {size[0]} × "
            f"{size[1]}: bring them to its size, or pass encoder.with_chip({min(size)}) if its network takes any"
        )


def embed_stack(images: xr.DataArray, job: Job, version: str) -> Any:
    """Vectors ``(time?, location, band)`` of a stack; what is known of each location rides along. Lazy."""
    import dask
    import dask.array as da

    product = register(job.encoder.product)
    kept = {name: c for name, c in images.coords.items() if set(c.dims) <= {"location"}}
    if "time" in images.dims and job.encoder.kind == "image":
        each = [embed_stack(images.isel(time=k), job, version) for k in range(images.sizes["time"])]
        if "time" in images.coords:
            along: Any = xr.DataArray(images.time.values, dims="time", name="time")
        else:
            along = "time"
        return xr.concat(
            each, along, coords="minimal", compat="override", join="override", combine_attrs="override"
        )
    chunks = {str(d): -1 for d in images.dims if d != "location"}
    source = images.chunk(chunks | ({"location": _CHIPS} if images.chunks is None else {})).data
    told = {
        name: each.rechunk((source.chunks[0], *((-1,) * (each.ndim - 1))))
        for name, each in _further_inputs(images, job).items()
    }
    data = da.blockwise(
        encoding.encode_stack,
        "lv",
        source,
        "ltbyx" if source.ndim == 5 else "lbyx" if source.ndim == 4 else "ltb",
        dask.delayed(job, pure=True),
        None,
        *(
            part
            for each, own in zip(told.values(), "mp", strict=False)
            for part in (each, f"l{own}"[: each.ndim])
        ),
        names=tuple(told),
        new_axes={"v": job.length},
        concatenate=True,
        dtype=np.float32,
        meta=np.empty((0, 0), np.float32),
        token=f"embed-{job.encoder.name}",
    )
    attrs = {
        "product": product.name,
        "version": version,
        "source": str(images.attrs.get("source") or images.encoding.get("source") or "chips in memory"),
    }
    out = xr.DataArray(
        data[:, : job.encoder.dims],
        dims=("location", BAND),
        coords={**kept, BAND: list(product.bands)},
        attrs=attrs,
        name="embedding",
    )
    if not job.quality:
        return out
    derived = {"long_name": "share of pixels that were seen", "derived_from": f"{product.name} {version}"}
    valid = xr.DataArray(data[:, -1], dims="location", coords=kept, attrs=derived)
    return xr.Dataset({"embedding": out, "valid": valid})


def _further_inputs(images: xr.DataArray, job: Job) -> dict[str, Any]:
    """The further inputs of an encoder, each ``(location, …)``; image encoders get only what is known."""
    import dask.array as da

    if job.encoder.kind != "image":
        return {"months": _months(images), "lonlat": _lonlat(images, job)}
    count = images.sizes["location"]
    known = {"lonlat": da.full((count, 2), np.nan, dtype=np.float32), "days": da.full(count, np.nan)}
    if _place_names(images) is not None:
        known["lonlat"] = _lonlat(images, job)
    date = images.coords.get("date", images.coords.get("time"))
    if date is not None and date.dtype.kind == "M" and set(date.dims) <= {"location"}:
        days = (date - np.datetime64("1970-01-01", "ns")) / np.timedelta64(1, "D")
        known["days"] = da.broadcast_to(da.asarray(days.data), (count,))
    return {name: known[name] for name in job.encoder.takes}


def _months(images: xr.DataArray) -> Any:
    """Months ``(location, time)`` from 0: of the dates of all, or of each location's own in ``date``."""
    import dask.array as da

    shape = images.sizes["location"], images.sizes["time"]
    dates = images.coords.get("date", images.coords.get("time"))
    if dates is None or dates.dtype.kind != "M":
        raise EmbeddingError(
            "encoders of series need months: give the stack a coordinate 'time' of dates, or 'date' with the dims "
            "(location, time)"
        )
    months = (dates.dt.month - 1).transpose(*(d for d in ("location", "time") if d in dates.dims))
    return da.broadcast_to(da.asarray(months.data, dtype=np.int64), shape)


def _lonlat(images: xr.DataArray, job: Job) -> Any:
    """Longitude and latitude of each location, float32 ``(location, 2)``; coordinates that are lazy stay so."""
    import dask.array as da

    names = _place_names(images)
    crs = geometry.crs_of(images) if names == _PLACES[-1] else geometry.LONLAT
    if names is None or crs is None:
        raise EmbeddingError(
            f"{job.encoder.name} needs to know where its pixels lie: give the stack coordinates 'lon' and 'lat' "
            "along 'location'"
        )
    along = da.stack([da.asarray(images.coords[k].data) for k in names], axis=1).rechunk({1: -1})
    return da.map_blocks(
        _to_lonlat, along, geometry.as_crs(crs).to_wkt(), dtype=np.float32, meta=np.empty((0, 0), "f4")
    )


def _place_names(images: xr.DataArray) -> tuple[str, str] | None:
    """Names of the coordinates that say where each location lies."""

    def is_along(name: str) -> bool:
        return name in images.coords and images.coords[name].dims == ("location",)

    found = next((names for names in _PLACES if all(map(is_along, names))), None)
    return None if found == _PLACES[-1] and geometry.crs_of(images) is None else found


def _to_lonlat(xy: np.ndarray, crs: str) -> np.ndarray:
    to_lonlat = geometry.transformer(geometry.as_crs(crs), geometry.as_crs(geometry.LONLAT))
    return np.stack(to_lonlat.transform(*xy.astype(np.float64).T), axis=-1).astype(np.float32)


def check_alike(images: Mapping[str, xr.DataArray]) -> None:
    """Raise unless chips of several sensors are of the same locations, dates and size.

    Raises
    ------
    EmbeddingError
        If they are not.
    """
    (first, base), *others = images.items()
    for name, each in others:
        for dim in ("location", "time", "y", "x"):
            if each.sizes.get(dim) != base.sizes.get(dim):
                raise EmbeddingError(
                    f"chips of sensors go together one by one: {first!r} has {base.sizes.get(dim)} along {dim}, "
                    f"and {name!r} has {each.sizes.get(dim)}"
                )
        for dim in ("location", "time"):
            if dim in base.coords and dim in each.coords and not base.indexes[dim].equals(each.indexes[dim]):
                raise EmbeddingError(f"chips of {first!r} and {name!r} have other labels along {dim}")
