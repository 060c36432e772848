"""Any array as an embedding array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.model import (
    BAND,
    Codec,
    Product,
    product,
)

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
from geoemb_xr.core.times import _as_list, _period

# --- make and join ------------------------------------------------------------------------------------------


def wrap(
    array: Any,
    product: str | Product,
    *,
    dims: Sequence[str] | None = None,
    geobox: GeoBox | None = None,
    x: Any = None,
    y: Any = None,
    crs: object = None,
    time: Any = None,
    scale: Any = None,
    version: str | None = None,
) -> xr.DataArray:
    """Make an embedding array of any NumPy, dask or xarray array.

    Parameters
    ----------
    array : array, DataArray or Dataset
        ``(band, y, x)`` or ``(time, band, y, x)`` with a GeoBox (or with x, y and crs), ``(location, band)``
        with x, y and crs, or ``dims=`` for another order. A Dataset has a variable a band. A DataArray
        brings its own coordinates and CRS.
    product : str or Product
        What it holds; a :class:`Product` made on the spot for your own model's output.
    dims : sequence of str, optional
        The dimensions, where they are not the usual ones.
    geobox : GeoBox, optional
        The grid of a raster; south-up is turned north-up, and a rotated one lies upright in a CRS turned with it.
    x, y : array, optional
        Coordinates of pixels' centres, or of locations.
    crs : CRS, optional
        Of ``x`` and ``y``; longitude and latitude where it is not given.
    time : year, date, or a list of them, optional
        Starts of the periods.
    scale : array, optional
        Per-pixel scales of Tessera's codes.
    version : str, optional
        The product's version; vectors of two versions are never compared.

    Returns
    -------
    DataArray
        Dimensions ``(time?, band, y, x)`` or ``(location, band)``.

    Raises
    ------
    ValueError
        If a length, a dtype or a coordinate does not fit the product; the message says which.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> vectors = np.ones((768, 3, 4), "float32")
    >>> da = gx.wrap(vectors, gx.Product("mine", dims=768), geobox=gx.testing.geobox((3, 4)))
    >>> da.emb.product.dims, da.dims
    (768, ('band', 'y', 'x'))
    """
    found = _product_for(product)
    data = _stack_variables(array, found) if isinstance(array, xr.Dataset) else array
    if geobox is None and isinstance(data, xr.DataArray):
        crs = crs if crs is not None else geometry.crs_of(data)
    named = _name_dims(data, found, dims)
    encoded = bool(np.issubdtype(named.dtype, np.integer))
    named = _label_bands(named, found, encoded)
    named = named.assign_coords(_place(named, geobox, x, y, crs))
    if time is not None:
        stamps = _timestamps(time)
        if "time" in named.dims:
            if stamps.size != named.sizes["time"]:
                raise ValueError(f"time has {stamps.size} values for {named.sizes['time']} steps")
            named = named.assign_coords(time=stamps)
        elif stamps.size == 1:
            named = named.expand_dims(time=stamps)
        else:
            raise ValueError(f"time has {stamps.size} values, but the array has no time dimension")
    order = ("time", "location", BAND) if "location" in named.dims else ("time", BAND, "y", "x")
    named = named.transpose(*(d for d in order if d in named.dims))
    if "y" in named.dims:
        named = geometry.north_up_array(named)
    if named.chunks is not None and len(named.chunksizes[BAND]) > 1:
        named = named.chunk({BAND: -1})
    if encoded:
        named = _with_scale(named, found, scale)
    elif named.dtype != np.float32:
        named = named.astype(np.float32)
    named.attrs = {
        "product": found.name,
        "version": version if version is not None else (found.versions[0] if found.versions else ""),
        "source": str(named.encoding.get("source", "")) or "memory",
        **({"codec": _codec_for(found, named.dtype).name} if encoded else {}),
    }
    named.encoding = {}
    return named.rename("embedding")


_find_product = product


def _product_for(given: str | Product) -> Product:
    return _find_product(given)


def _stack_variables(dataset: xr.Dataset, found: Product) -> xr.DataArray:
    """A Dataset with a variable a band (Xee's way) as one array."""
    missing = [band for band in found.bands if band not in dataset.data_vars]
    if missing:
        raise ValueError(
            f"a Dataset for {found.name!r} has a variable a band; {len(missing)} are missing: {missing[:3]}…, "
            f"it has {list(map(str, dataset.data_vars))[:5]}"
        )
    stacked: xr.DataArray = dataset[list(found.bands)].to_dataarray(BAND)
    return stacked


_SYNONYMS = {
    "embedding": BAND, "bands": BAND, "feature": BAND, "features": BAND, "channel": BAND, "wavelength": BAND,
    "lat": "y", "latitude": "y", "northing": "y", "Y": "y",
    "lon": "x", "longitude": "x", "easting": "x", "X": "x",
    "point": "location", "points": "location", "id": "location",
}  # fmt: skip


def _name_dims(data: Any, found: Product, dims: Sequence[str] | None) -> xr.DataArray:
    if isinstance(data, xr.DataArray):
        if dims is not None:
            renamed: xr.DataArray = data.rename(dict(zip(data.dims, dims, strict=True)))
            return renamed
        named: xr.DataArray = data.rename({d: _SYNONYMS[str(d)] for d in data.dims if str(d) in _SYNONYMS})
        if BAND not in named.dims:
            others = ", ".join(k for k, v in _SYNONYMS.items() if v == BAND)
            raise ValueError(
                f"no dimension is called 'band' (nor {others}); got {tuple(data.dims)}; name them with dims=(…)"
            )
        return named
    if not hasattr(data, "ndim"):
        data = np.asarray(data)
    usual = {2: ("location", BAND), 3: (BAND, "y", "x"), 4: ("time", BAND, "y", "x")}
    names = tuple(dims) if dims is not None else usual.get(data.ndim, ())
    if len(names) != data.ndim:
        raise ValueError(f"an array of {data.ndim} dimensions, but dims={names}; give dims=(…)")
    given = xr.DataArray(data, dims=names)
    if BAND not in given.dims:
        raise ValueError(f"dims={names} has no 'band'")
    if dims is None and given.sizes[BAND] not in (found.dims, len(found.bands)) and found.dims in data.shape:
        raise ValueError(
            f"the shape {tuple(data.shape)} has {found.name!r}'s {found.dims} bands along axis "
            f"{list(data.shape).index(found.dims)}, not where {names} has them; give dims=(…)"
        )
    return given


def _label_bands(array: xr.DataArray, found: Product, encoded: bool) -> xr.DataArray:
    if encoded:
        _codec_for(found, array.dtype)
    labels = found.bands if encoded else found.decoded_bands
    if BAND in array.coords:
        own = tuple(array.coords[BAND].values.astype(str).tolist())
        if set(own) <= set(labels):
            return array.assign_coords({BAND: list(own)})
    size = array.sizes[BAND]
    if size != len(labels):
        raise ValueError(f"{found.name!r} has {len(labels)} bands; got {size}")
    return array.assign_coords({BAND: list(labels)})


def _codec_for(found: Product, dtype: Any) -> Codec:
    """The codec of a product's codes, by their dtype."""
    if found.codec is None:
        raise ValueError(f"{found.name!r} is stored as {found.dtype}; got integers ({dtype})")
    known = (found.codec, *found.other_codecs)
    for codec in known:
        if dtype == np.dtype(codec.dtype):
            return codec
    raise ValueError(f"codes of {found.name!r} are {' or '.join(c.dtype for c in known)}; got {dtype}")


def _place(array: xr.DataArray, geobox: GeoBox | None, x: Any, y: Any, crs: object) -> dict[str, Any]:
    """Coordinates of a raster or of locations."""
    if "location" in array.dims:
        x = array.coords["x"].values if x is None and "x" in array.coords else x
        y = array.coords["y"].values if y is None and "y" in array.coords else y
        if x is None or y is None:
            raise ValueError("locations need x= and y= (and crs=, longitude and latitude by default)")
        index = array.indexes.get("location", pd.RangeIndex(array.sizes["location"], name="location"))
        return {
            "location": index,
            "x": ("location", np.asarray(x, np.float64)),
            "y": ("location", np.asarray(y, np.float64)),
            geometry.SPATIAL_REF: geometry.crs_coord(crs if crs is not None else geometry.LONLAT),
        }
    if geobox is not None:
        if tuple(geobox.shape) != (array.sizes["y"], array.sizes["x"]):
            raise ValueError(
                f"the GeoBox has {tuple(geobox.shape)} pixels (y, x), the array "
                f"{(array.sizes['y'], array.sizes['x'])}"
            )
        return dict(geometry.grid_coords(geometry.upright(geobox)))
    x = array.coords["x"].values if x is None and "x" in array.coords else x
    y = array.coords["y"].values if y is None and "y" in array.coords else y
    if x is None or y is None or crs is None:
        raise ValueError("a raster needs a place: geobox=, or x=, y= and crs=")
    bare = xr.DataArray(np.empty((len(y), len(x)), np.bool_), dims=("y", "x"), coords={"y": y, "x": x})
    box = geometry.geobox_of(bare.assign_coords({geometry.SPATIAL_REF: geometry.crs_coord(crs)}), "wrap")
    return dict(geometry.grid_coords(box, np.asarray(y, np.float64), np.asarray(x, np.float64)))


def _timestamps(time: Any) -> np.ndarray:
    return np.array([_period(each)[0] for each in _as_list(time)], "datetime64[ns]")


def _with_scale(array: xr.DataArray, found: Product, scale: Any) -> xr.DataArray:
    name = found.codec.scale if found.codec is not None else None
    if name is None:
        if scale is not None:
            raise ValueError(f"codes of {found.name!r} have no scales, but scale= was given")
        return array
    if scale is None and name in array.coords:
        scale = array.coords[name]
    if scale is None:
        raise ValueError(f"codes of {found.name!r} need scale=: one number a pixel")
    dims = tuple(d for d in array.dims if d != BAND)
    values = scale.data if isinstance(scale, xr.DataArray) else scale
    values = values if hasattr(values, "ndim") else np.asarray(values)
    if values.ndim == len(dims) - 1 and "time" in dims:
        values = values[None]
    expected = tuple(array.sizes[d] for d in dims)
    if tuple(values.shape) != expected:
        raise ValueError(f"scale has shape {tuple(values.shape)}; the pixels are {expected} along {dims}")
    return array.assign_coords({name: (dims, values.astype(np.float32))})
