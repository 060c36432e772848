"""Any array or table of vectors as an embedding array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
import xarray as xr

from geoemb_xr.core import arrays, codecs, geometry, longitudes
from geoemb_xr.core.band_names import places_by_name, refuse_contradiction
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.missing import (
    believe_nodata,
    believe_scaling,
    codec_attrs,
    nodata_in,
    refuse_codes,
    scaling_in,
)
from geoemb_xr.core.model import BAND, Codec, Product, whole_along
from geoemb_xr.core.model import product as find_product
from geoemb_xr.core.notes import say
from geoemb_xr.core.times import listed, moment_of, stamps_of
from geoemb_xr.geo import tables
from geoemb_xr.geo.places import read_places
from geoemb_xr.geo.vector_tables import vectors_of

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


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
    """Make an embedding array of any NumPy, dask or xarray array, or of a table of vectors. Lazy where that is.

    Missing is what the array says is missing (``_FillValue`` or ``nodata``), a vector with a band that is not
    finite, and, where vectors have unit length, one of zeros.

    Parameters
    ----------
    array : array, DataArray, Dataset or DataFrame
        ``(band, y, x)`` or ``(time, band, y, x)`` with a GeoBox (or with x, y and crs), ``(location, band)``
        with x, y and crs, or ``dims=`` for another order. A Dataset has a variable per band. A DataArray
        brings its own coordinates and CRS, and the nodata value that its attributes declare
        (``_FillValue``, ``missing_value`` or ``nodata``): such vectors are missing, and so are those that are not
        finite. A table has a column per band, and places in columns of longitude and
        latitude, of x and y with ``crs=``, or of geometries (of an area the centre); all other columns ride along.
    product : str or Product
        Product that it holds; a :class:`Product` made on the spot for your own model's output.
    dims : sequence of str, optional
        The dimensions, where they are not the usual ones.
    geobox : GeoBox, optional
        The grid of a raster; south-up is turned north-up, and a rotated one lies upright in a CRS turned with it.
    x, y : array, optional
        Coordinates of pixels' centres, or of locations.
    crs : CRS, optional
        CRS of ``x`` and ``y``; longitude and latitude where it is not given. One that contradicts what an array
        says is an error. Where the two differ in datum alone and by 2 m at most (ETRS89, NAD83 or WGS 84 of a year
        beside WGS 84, which means no more by itself) the given one holds, and that is said.
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
    EmbeddingError
        If vectors are not real numbers, dimensions are unknown, or a table is given with what its columns say.

    Examples
    --------
    >>> import numpy as np, geoemb_xr as gx
    >>> vectors = np.ones((768, 3, 4), "float32")
    >>> da = gx.wrap(vectors, gx.Product("mine", dims=768), geobox=gx.testing.geobox((3, 4)))
    >>> da.emb.product.dims, da.dims
    (768, ('band', 'y', 'x'))
    >>> table = da.emb.sample(gx.testing.scene().points(3, radius=10)).emb.to_dataframe()
    >>> gx.wrap(table, "mine").land_cover.values.tolist()
    ['built-up', 'built-up', 'built-up']
    """
    found = find_product(product)
    if tables.is_table(array):
        given = {"dims": dims, "geobox": geobox, "x": x, "y": y}
        if wrong := [name for name, value in given.items() if value is not None]:
            raise EmbeddingError(
                f"a table says in its columns where vectors lie; leave out {', '.join(wrong)}"
            )
        return _of_table(array, found, crs, time, scale, version)
    if isinstance(array, xr.DataArray | xr.Variable):
        believe_scaling(scaling_in(array.attrs), array.dtype, "the array")
    source, nodata = _source_of(array), _nodata_of(array)
    data = _stack_variables(array, found) if isinstance(array, xr.Dataset) else array
    if geobox is not None:
        geometry.check_geobox(geobox)
    if isinstance(data, xr.DataArray):
        crs = _one_crs(data, geobox, crs)
    named = _name_dims(data, found, dims)
    if strange := [d for d in named.dims if d not in ("time", "location", BAND, "y", "x")]:
        raise EmbeddingError(
            f"dimensions are (time, band, y, x) or (time, location, band); got {strange} among "
            f"{tuple(named.dims)}: take one step of it (.isel), or name it with dims=(…)"
        )
    if named.dtype.kind not in "iuf":
        raise EmbeddingError(f"vectors are real numbers; got {named.dtype}")
    if np.isnan(named.shape).any():
        raise EmbeddingError(
            "dask does not know the size of its chunks; call array.compute_chunk_sizes() first"
        )
    encoded = bool(np.issubdtype(named.dtype, np.integer))
    if isinstance(scale, xr.DataArray):
        scale = _sorted_as(named, scale)  # before time= gives steps other names
    named = _label_bands(named, found, encoded)
    named = named.assign_coords(_place(named, geobox, x, y, crs))
    _refuse_beyond_poles(named)
    named = _with_times(named, time)
    if encoded:
        named = _with_scale(named, found, scale)  # before axes are turned: it lies as the codes were given
    order = ("time", "location", BAND) if "location" in named.dims else ("time", BAND, "y", "x")
    named = named.transpose(*(d for d in order if d in named.dims))
    if "y" in named.dims:
        named = geometry.north_up_array(named)
    named = whole_along(named, BAND)
    codec = _codec_for(found, named.dtype) if encoded else None
    named = believe_nodata(named, codec)
    if not encoded and named.dtype != np.float32:
        named = named.astype(np.float32)
    named = _without_gaps(named, found, nodata)
    named.attrs = {
        "product": found.name,
        "version": version if version is not None else (found.versions[0] if found.versions else ""),
        "source": source,
        **(codec_attrs(codec) if codec is not None else {}),
    }
    named.encoding = {}
    return named.rename("embedding")


def _one_crs(data: xr.DataArray, geobox: GeoBox | None, crs: object) -> object:
    """The CRS that was given, else the one that an array states, else that of axes called latitude and longitude.

    Raises
    ------
    EmbeddingError
        If one is given, and the array states another.
    """
    given = crs if geobox is None else geobox.crs
    if given is None:
        return geometry.crs_of(data) or geometry.crs_of(geometry.plain_names(data))
    try:
        stated = geometry.crs_of(data)
    except ValueError:  # what cannot be read contradicts nothing
        return crs
    if stated is None or stated.is_engineering or geometry.same_plane(stated, given):
        return crs
    names = [geometry.crs_name(geometry.as_crs(each)) for each in (stated, given)]
    if not geometry.is_nearly_same_plane(stated, given):
        raise EmbeddingError(
            f"the array says that it lies in {names[0]}, and what was given says {names[1]}; reproject it, or "
            "remove the one that is wrong (.drop_vars('spatial_ref'))"
        )
    say(
        f"the array says {names[0]}, and is taken to lie in {names[1]}, as was given: they differ by 2 m at most"
    )
    return crs


def _source_of(array: Any) -> str:
    return str(getattr(array, "encoding", {}).get("source", "")) or "memory"


# --- tables -------------------------------------------------------------------------------------------------


def _of_table(
    table: Any, found: Product, crs: object, time: Any, scale: Any, version: str | None
) -> xr.DataArray:
    """A table with a column per band as vectors along ``location``."""
    given = read_places(table, crs=crs).present("wrap")
    vectors, used = vectors_of(given.table, found)
    index, riding = given.riding()
    stored = found.codec.scale if found.codec is not None and vectors.dtype.kind in "iu" else None
    column = next((name for name in (stored, f"{stored}s") if name in riding), None)
    if stored is not None and scale is None and column is not None:
        scale = np.asarray(riding.pop(column), np.float32)
    points = (
        given.points if given.points is not None else shapely.get_coordinates(shapely.centroid(given.shapes))
    )
    out = wrap(
        xr.DataArray(vectors, dims=("location", BAND), coords={"location": index}),
        found,
        x=points[:, 0],
        y=points[:, 1],
        crs=given.crs,
        time=time,
        scale=scale,
        version=version,
    )
    taken = {*map(str, out.coords), *map(str, out.dims), *map(str, used)}
    return out.assign_coords({name: ("location", each) for name, each in riding.items() if name not in taken})


# --- what is missing ----------------------------------------------------------------------------------------


def _nodata_of(array: Any) -> float | None:
    """The missing value of an array, from its attributes."""
    first = next(iter(array.data_vars.values()), array) if isinstance(array, xr.Dataset) else array
    return nodata_in(getattr(first, "attrs", {}), getattr(first, "encoding", {}))


def _without_gaps(array: xr.DataArray, found: Product, nodata: float | None) -> xr.DataArray:
    """Vectors with gaps in the product's way: NaN in every band, or its nodata code."""
    missing: float | None = np.nan
    if np.issubdtype(array.dtype, np.integer):
        missing = _codec_for(found, array.dtype).nodata
        if missing is None or not (found.unit_norm or nodata is not None) or missing == 0:
            return array
    labels, name = array.coords[BAND].values, str(array.name)
    # Presto's codes as floats are its vectors
    codes_of = found.name if found.codec not in (None, codecs.UNSCALED) else ""
    params = (nodata, found.unit_norm, missing, codes_of)
    return arrays.map_bands(fill_gaps, array, *params, dtype=array.dtype, out=(BAND, labels), name=name)


def fill_gaps(
    block: np.ndarray, axis: int, nodata: float | None, is_unit: bool, missing: float, codes_of: str = ""
) -> np.ndarray:
    """A block with ``missing`` in every band of vectors that are missing; the block itself where none is.

    Parameters
    ----------
    block : ndarray (…, band, …)
        Vectors or codes.
    axis : int
        Position of the band axis.
    nodata : float or None
        What a missing value was said to be. Zero is one only in all bands: a vector may have a zero in one.
    is_unit : bool
        Whether vectors have unit length, so that one of zeros is none.
    missing : float
        The value that is written instead.
    codes_of : str
        Name of the product, where it has codes that floats must not be.
    """
    gaps = np.zeros(tuple(np.delete(block.shape, axis)), bool)
    if block.dtype.kind == "f":
        gaps |= ~np.isfinite(block).all(axis=axis)
    if nodata is not None and nodata != 0 and block.dtype.kind == "f":
        gaps |= (block == np.float32(nodata)).any(axis=axis)
    elif nodata is not None and nodata != missing:
        gaps |= _all_equal(block, nodata, axis)
    if is_unit:
        gaps |= _all_equal(block, 0, axis)
    if gaps.any():
        block = np.where(np.expand_dims(gaps, axis), block.dtype.type(missing), block)
    if codes_of and block.dtype.kind == "f":
        refuse_codes(block, axis, codes_of)
    return block


def _all_equal(block: np.ndarray, value: float, axis: int) -> np.ndarray:
    """Where all bands have a value; mostly the first ones tell that they do not, and the others are not read."""
    bands = np.moveaxis(block, axis, 0)
    found: np.ndarray = bands[0] == value
    if found.ndim == 0 or np.count_nonzero(found) > found.size / 10:  # picking pixels costs more than all
        return np.asarray((bands == value).all(axis=0))
    where: tuple[Any, ...] = np.unravel_index(np.flatnonzero(found), found.shape)
    for band in bands[1:3]:
        still = band[where] == value
        where = tuple(each[still] for each in where)
    found[...] = False
    found[where] = (bands[:, *where] == value).all(axis=0)
    return found


# --- arrays -------------------------------------------------------------------------------------------------


def _stack_variables(dataset: xr.Dataset, found: Product) -> xr.DataArray:
    """A Dataset with a variable per band (Xee's way) as one array."""
    missing = [band for band in found.bands if band not in dataset.data_vars]
    if missing:
        raise ValueError(
            f"a Dataset for {found.name!r} has a variable per band; {len(missing)} are missing: {missing[:3]}…, "
            f"it has {list(map(str, dataset.data_vars))[:5]}"
        )
    variables = {band: dataset[band] for band in found.bands}
    scaled: dict[tuple[Any, Any], list[str]] = {}
    for band, each in variables.items():
        scaled.setdefault((scaling_in(each.attrs), each.dtype), []).append(band)
    for (scaling, dtype), bands in scaled.items():  # one note, not one per band
        others = f" and {len(bands) - 1} others" if len(bands) > 1 else ""
        believe_scaling(scaling, dtype, f"the Dataset (variable {bands[0]!r}{others})")
    stated = {band: nodata_in(each.attrs, each.encoding) for band, each in variables.items()}
    if len(set(stated.values())) > 1 and all(each.dtype.kind == "f" for each in variables.values()):
        variables = {
            band: each if stated[band] is None else each.where(each != stated[band])
            for band, each in variables.items()
        }
    stacked: xr.DataArray = xr.Dataset(variables).to_dataarray(BAND)
    return stacked


_SYNONYMS = {
    **dict.fromkeys(("embedding", "bands", "feature", "features", "channel", "wavelength"), BAND),
    **{name: axis for name, axis in geometry.AXIS_NAMES.items() if name != axis},
    "Y": "y",
    "X": "x",
    **dict.fromkeys(("point", "points", "id"), "location"),
}


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
    data = _in_numpy(data)
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


def _in_numpy(data: Any) -> Any:
    """An array that NumPy or dask knows; a sparse one, and a tensor that is trained, on a GPU or of bfloat16."""
    if type(data).__module__.partition(".")[0] == "torch":
        data = data.detach().cpu()
        return (data.float() if "bfloat" in str(data.dtype) else data).numpy()
    if type(data).__module__.startswith("scipy.sparse"):
        return data.toarray()
    return data if hasattr(data, "ndim") else np.asarray(data)


def _label_bands(array: xr.DataArray, found: Product, encoded: bool) -> xr.DataArray:
    """The array with the product's labels, its bands where their names say."""
    if encoded:
        _codec_for(found, array.dtype)
    labels = found.bands if encoded else found.decoded_bands
    own = _names_of_bands(array)
    if own and len(set(own)) == len(own) and set(own) <= set(labels):
        return array.assign_coords({BAND: own})
    places = places_by_name(own, labels, "the array") if own else None
    if places is not None:
        return array.isel({BAND: list(places)}).assign_coords({BAND: list(labels)})
    size = array.sizes[BAND]
    if size != len(labels):
        raise ValueError(f"{found.name!r} has {len(labels)} bands; got {size}")
    if own:
        refuse_contradiction(own, labels, found.name, "the array")
    return array.assign_coords({BAND: list(labels)})


def _names_of_bands(array: xr.DataArray) -> list[str]:
    """What an array calls its bands; rioxarray has a file's descriptions in ``long_name``, and counts bands."""
    described = array.attrs.get("long_name")
    if isinstance(described, list | tuple) and len(described) == array.sizes[BAND]:
        return [str(each) for each in described]
    return array.coords[BAND].values.astype(str).tolist() if BAND in array.coords else []


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
        x, y = (np.ma.filled(np.ma.asarray(each, np.float64), np.nan) for each in (x, y))
        if not x.shape == y.shape == (len(index),):
            raise ValueError(
                f"x and y have a number for each of {len(index)} locations; got {x.shape} and {y.shape}"
            )
        return {
            "location": index,
            "x": ("location", x),
            "y": ("location", y),
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
    x, y = np.asarray(x), np.asarray(y)
    sizes = (array.sizes["y"], array.sizes["x"])
    is_mesh = x.shape == y.shape == sizes  # as np.meshgrid gives them
    if is_mesh and (x == x[:1]).all() and (y == y[:, :1]).all():
        x, y = x[0], y[:, 0]
    if (y.shape, x.shape) != (sizes[:1], sizes[1:]):
        raise EmbeddingError(
            f"y and x have a number for the centre of each of {sizes[0]} rows and {sizes[1]} columns; got shapes "
            f"{y.shape} and {x.shape}"
        )
    bare = xr.DataArray(np.empty((len(y), len(x)), np.bool_), dims=("y", "x"), coords={"y": y, "x": x})
    box = geometry.geobox_of(bare.assign_coords({geometry.SPATIAL_REF: geometry.crs_coord(crs)}), "wrap")
    return dict(geometry.grid_coords(box, np.asarray(y, np.float64), np.asarray(x, np.float64)))


def _refuse_beyond_poles(array: xr.DataArray) -> None:
    crs, far = geometry.crs_of(array), longitudes.beyond_poles(array.coords["y"].values)
    if crs is not None and crs.is_geographic and far is not None:
        raise EmbeddingError(f"latitudes are 90 degrees at most; y has {far:g}. Are x and y swapped?")


def _with_times(array: xr.DataArray, time: Any) -> xr.DataArray:
    """The array with the periods that were given, else with its own as moments."""
    if time is None:
        if "time" in array.coords and set(array.coords["time"].dims) <= {"time"}:
            return array.assign_coords(time=_own_time(array.coords["time"]))
        return array
    stamps = np.array([moment_of(each) for each in listed(time)], "datetime64[ns]")
    if "time" in array.dims:
        if stamps.size != array.sizes["time"]:
            raise ValueError(f"time has {stamps.size} values for {array.sizes['time']} steps")
        return array.assign_coords(time=stamps)
    if stamps.size != 1:
        raise ValueError(f"time has {stamps.size} values, but the array has no time dimension")
    return array.expand_dims(time=stamps)


def _own_time(coord: xr.DataArray) -> Any:
    """An array's own times as moments; years, texts and dates of other calendars are read as such."""
    stamps = stamps_of(np.atleast_1d(coord.values))
    if np.isnat(stamps).any():
        raise EmbeddingError(f"the array's times have a gap, in step {int(np.isnat(stamps).argmax())}")
    return (coord.dims, stamps if coord.ndim else stamps[0], coord.attrs)


def _with_scale(array: xr.DataArray, found: Product, scale: Any) -> xr.DataArray:
    name = found.codec.scale if found.codec is not None else None
    if name is None:
        if scale is not None:
            raise ValueError(f"codes of {found.name!r} have no scales, but scale= was given")
        return array
    if scale is None and name in array.coords:
        scale = array.coords[name]
    if scale is None:
        raise ValueError(f"codes of {found.name!r} need scale=: one number per pixel")
    dims = tuple(d for d in array.dims if d != BAND)
    values = _as_the_codes(scale, array, dims).data if isinstance(scale, xr.DataArray) else scale
    values = values if hasattr(values, "ndim") else np.asarray(values)
    if values.ndim == len(dims) - 1 and "time" in dims:
        values = np.expand_dims(values, dims.index("time"))
    expected = tuple(array.sizes[d] for d in dims)
    if tuple(values.shape) != expected:
        raise ValueError(f"scale has shape {tuple(values.shape)}; the pixels are {expected} along {dims}")
    return array.assign_coords({name: (dims, values.astype(np.float32))})


def _as_the_codes(scale: xr.DataArray, array: xr.DataArray, dims: tuple[Any, ...]) -> xr.DataArray:
    """Scales in the order of the codes' dimensions, rows and columns."""
    if not set(scale.dims) <= set(dims):
        raise ValueError(f"scale has dims {scale.dims}; the pixels lie along {dims}")
    for axis in {"y", "x"} & set(scale.dims) & set(scale.coords):
        there, here = scale.coords[axis].values, array.coords[axis]
        if there.shape != here.shape or _are_close(there, here):
            continue
        if not _are_close(there[::-1], here):
            raise ValueError(f"scale lies at other {axis!r} than the codes")
        scale = scale.isel({axis: slice(None, None, -1)})
    return scale.transpose(*(d for d in dims if d in scale.dims))


def _sorted_as(array: xr.DataArray, scale: xr.DataArray) -> xr.DataArray:
    """Scales with the usual names of dimensions, and in the order of the codes' times and locations."""
    scale = scale.rename({d: _SYNONYMS[str(d)] for d in scale.dims if str(d) in _SYNONYMS})
    for dim in ("time", "location"):
        there, here = scale.indexes.get(dim), array.indexes.get(dim)
        if there is None or here is None or there.equals(here):
            continue
        if not there.is_unique or len(there) != len(here) or not here.isin(there).all():
            raise ValueError(f"scale lies at other {dim!r} than the codes")
        scale = scale.isel({dim: there.get_indexer(here)})
    return scale


def _are_close(there: np.ndarray, here: xr.DataArray) -> bool:
    """Whether coordinates are the same but for a quarter of a pixel.

    Degrees in float32 are up to 8·10⁻⁶ off beyond 128°, a twelfth of a pixel of ten metres.
    """
    step = float(here.attrs.get(geometry.RESOLUTION, 0))  # what one pixel shows in no other way
    if here.size > 1:
        step = (float(here[-1]) - float(here[0])) / (here.size - 1)
    return bool(np.allclose(there, here.values, rtol=0, atol=abs(step) / 4))
