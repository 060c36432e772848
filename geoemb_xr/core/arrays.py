"""What every feature does with an embedding array: make one, join some, decode, normalise, select.

:func:`map_bands` is the one way a function of vectors becomes a lazy array: one blockwise layer, one task a
block, any order of dimensions, NumPy and dask alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.codecs import CODECS
from geoemb_xr.core.model import (
    BAND,
    Codec,
    CoverageError,
    EmbeddingError,
    Product,
    check_band_chunk,
    check_comparable,
    check_embedding,
    comparability_key,
    is_encoded,
    product,
)

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

TimeLike = int | str | slice | Sequence[Any] | np.datetime64 | None
Chunks = int | str | Mapping[Hashable, Any] | tuple[int, ...]


# --- a function of vectors, lazily --------------------------------------------------------------------------


def map_bands(
    function: Callable[..., np.ndarray],
    array: xr.DataArray,
    *params: Any,
    dtype: Any,
    out: tuple[str, Sequence[Any]] | None = None,
    decode: bool = True,
    name: str = "embedding",
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Apply ``function(block, axis, *params)`` to every block, lazily where the array is lazy.

    Parameters
    ----------
    function : callable
        Takes a block with its bands along ``axis``, and returns it without that axis, or with another length
        along it (``out``). At module level, so that workers can import it.
    array : DataArray (…, band, …)
        An embedding array, or anything else with a ``band`` dimension.
    *params : object
        Passed on. A large object goes in as one ``dask.delayed(model, pure=True)``, else every task would
        carry a copy.
    dtype : dtype
        Of the result.
    out : (str, sequence), optional
        Dimension that stands where ``band`` stood, and its labels; none by default.
    decode : bool
        Whether codes are decoded before the function sees them. If not, the function is called as
        ``function(block, axis, scale, *params)``, with ``scale`` None where the codec has none.
    name : str
        Of the result.
    attrs : mapping, optional
        Of the result.

    Returns
    -------
    DataArray
        With the coordinates of ``array`` that do not lie along ``band``.
    """
    axis = array.get_axis_num(BAND)
    assert isinstance(axis, int)
    codec = codec_of(array) if is_encoded(array) else None
    scale = scale_of(array, codec) if codec is not None else None
    if decode and codec is not None:
        params = (function, codec, *params)
        function = _decode_then
    passes_scale = codec is not None or not decode
    dims = tuple(d for d in array.dims if d != BAND) if out is None else _replace(array.dims, BAND, out[0])
    if array.chunks is None:
        args = (scale.values if scale is not None else None,) if passes_scale else ()
        params = tuple(_computed(p) for p in params)
        data = np.asarray(function(array.values, axis, *args, *params), dtype=dtype)
    else:
        data = _blockwise(function, array, axis, scale, passes_scale, params, dims, dtype, out)
    coords = {k: v for k, v in array.coords.items() if BAND not in v.dims}
    if codec is not None and codec.scale is not None:
        coords.pop(codec.scale, None)
    if out is not None:
        coords[out[0]] = xr.DataArray(np.asarray(out[1]), dims=out[0])
    return xr.DataArray(data, dims=dims, coords=coords, name=name, attrs=dict(attrs or {}))


def _blockwise(
    function: Callable[..., np.ndarray],
    array: xr.DataArray,
    axis: int,
    scale: xr.DataArray | None,
    passes_scale: bool,
    params: tuple[Any, ...],
    dims: tuple[Hashable, ...],
    dtype: Any,
    out: tuple[str, Sequence[Any]] | None,
) -> Any:
    import dask.array as da

    check_band_chunk(array, function.__name__)
    operands: list[Any] = [array.data, array.dims]
    if scale is not None:
        chunks = {d: c for d, c in array.chunksizes.items() if d != BAND}
        operands += [scale.chunk(chunks).data, scale.dims]
    # Only what is lazy is an operand: each operand costs every task an entry in the graph.
    constants = {i: each for i, each in enumerate(params) if not hasattr(each, "__dask_graph__")}
    for i, each in enumerate(params):
        operands += [] if i in constants else [each, None]
    return da.blockwise(
        _OnBlock(function, axis, passes_scale, scale is not None, constants),
        dims,
        *operands,
        new_axes={out[0]: len(out[1])} if out is not None else {},
        concatenate=False,  # a list of the single block along band: no copy
        dtype=dtype,
        meta=np.empty((0,) * len(dims), dtype=dtype),
        token=function.__name__.strip("_"),
    )


@dataclass(frozen=True)
class _OnBlock:
    """Calls ``function(block, axis, scale?, *params)`` with what blockwise hands over."""

    function: Callable[..., np.ndarray]
    axis: int
    passes_scale: bool
    has_scale: bool
    constants: Mapping[int, Any]

    def __call__(self, block: Any, *rest: Any) -> np.ndarray:
        scale = _single(rest[0]) if self.has_scale else None
        lazy = iter(rest[1:] if self.has_scale else rest)
        count = len(self.constants) + len(rest) - self.has_scale
        params = (self.constants[i] if i in self.constants else next(lazy) for i in range(count))
        extra = (scale,) if self.passes_scale else ()
        return self.function(_single(block), self.axis, *extra, *params)


def _single(block: Any) -> np.ndarray:
    """The one block of a contracted dimension, out of the lists that blockwise wraps it in."""
    while isinstance(block, list):
        (block,) = block
    return np.asarray(block)


def _computed(param: Any) -> Any:
    return param.compute() if hasattr(param, "__dask_graph__") else param


def _replace(dims: tuple[Hashable, ...], old: str, new: str) -> tuple[Hashable, ...]:
    return tuple(new if d == old else d for d in dims)


def _decode_then(
    block: np.ndarray,
    axis: int,
    scale: np.ndarray | None,
    function: Callable[..., np.ndarray],
    codec: Codec,
    *params: Any,
) -> np.ndarray:
    return function(codec.decode(block, scale, axis), axis, *params)


def codec_of(array: xr.DataArray) -> Codec:
    """The codec of an encoded array, by its product or by its name."""
    name = str(array.attrs["codec"])
    own = product(array.attrs["product"]).codec if "product" in array.attrs else None
    if own is not None and own.name == name:
        return own
    if name not in CODECS:
        raise EmbeddingError(f"unknown codec {name!r}; known are {', '.join(CODECS)}")
    return CODECS[name]


def scale_of(array: xr.DataArray, codec: Codec) -> xr.DataArray | None:
    """The per-pixel scales of an encoded array, dimensions in its order; None where the codec has none."""
    if codec.scale is None:
        return None
    if codec.scale not in array.coords:
        raise EmbeddingError(
            f"codes of codec {codec.name!r} need the coordinate {codec.scale!r}, which is gone "
            "(arithmetic and drop_vars do so); decode before them, or wrap again with scale=…"
        )
    scale: xr.DataArray = array.coords[codec.scale].reset_coords(drop=True)
    return scale.transpose(*(d for d in array.dims if d != BAND))


# --- decode, encode, normalise ------------------------------------------------------------------------------


def decode(array: xr.DataArray) -> xr.DataArray:
    """Codes to float32 vectors; missing pixels are NaN in every band. Lazy.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Encoded; a decoded array is returned as it is.

    Returns
    -------
    DataArray
        float32, without the attribute ``codec``.

    Raises
    ------
    EmbeddingError
        If it is not an embedding, or its codes were turned into floats.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> codes = gx.testing.synthetic("alphaearth", shape=(4, 5), decode=False)
    >>> codes.dtype, codes.emb.decode().dtype
    (dtype('int8'), dtype('float32'))
    """
    found = check_embedding(array, "decode")
    if not is_encoded(array):
        return array
    codec = codec_of(array)
    attrs = {k: v for k, v in array.attrs.items() if k != "codec"}
    labels = codec.bands or tuple(array.coords[BAND].values.tolist())
    name = array.name if isinstance(array.name, str) else found.name
    return map_bands(_as_is, array, dtype=np.float32, out=(BAND, labels), name=name, attrs=attrs)


def _as_is(block: np.ndarray, axis: int) -> np.ndarray:
    return block


def encode(array: xr.DataArray) -> xr.DataArray:
    """Vectors to the codes of their product: the inverse of :func:`decode`. Lazy.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Decoded; an encoded array is returned as it is.

    Raises
    ------
    EmbeddingError
        If the product is stored as floats.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> codes = gx.testing.synthetic("alphaearth", shape=(4, 5), decode=False)
    >>> bool((gx.encode(codes.emb.decode()) == codes).all())
    True
    """
    found = check_embedding(array, "encode")
    if is_encoded(array):
        return array
    codec = found.codec
    if codec is None:
        raise EmbeddingError(f"{found.name!r} is stored as {found.dtype}: it has no codec to encode with")
    return encode_with(array, codec)


def encode_with(array: xr.DataArray, codec: Codec) -> xr.DataArray:
    """Vectors to the codes of any codec: how a product without one is written in fewer bytes."""
    found = product(array.attrs["product"])
    labels = found.bands if codec.bands else tuple(array.coords[BAND].values.tolist())
    codes = map_bands(
        _encode_block,
        array,
        codec,
        dtype=codec.dtype,
        out=(BAND, labels),
        name=str(array.name),
        attrs={**array.attrs, "codec": codec.name},
    )
    if codec.scale is None:
        return codes
    return codes.assign_coords({codec.scale: map_bands(_scale_block, array, codec, dtype=np.float32)})


def _encode_block(block: np.ndarray, axis: int, codec: Codec) -> np.ndarray:
    return codec.encode(block, axis)[0]


def _scale_block(block: np.ndarray, axis: int, codec: Codec) -> np.ndarray:
    scale = codec.encode(block, axis)[1]
    assert scale is not None
    return scale


def normalize(array: xr.DataArray) -> xr.DataArray:
    """Vectors of unit length. Lazy.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Codes are decoded first. A vector of zeros has no direction and becomes NaN.

    Returns
    -------
    DataArray
        float32.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("tessera", shape=(4, 5))
    >>> float(abs((da.emb.normalize() ** 2).sum("band") - 1).max()) < 1e-6
    True
    """
    check_embedding(array, "normalize")
    array = decode(array)
    labels = array.coords[BAND].values
    return map_bands(
        unit_length, array, dtype=np.float32, out=(BAND, labels), name=str(array.name), attrs=array.attrs
    )


def unit_length(block: np.ndarray, axis: int) -> np.ndarray:
    """Divide vectors by their length, summed in float64; NaN where that is 0."""
    total = np.einsum("i...,i...->...", *[np.moveaxis(block, axis, 0)] * 2, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.where(total > 0, 1 / np.sqrt(total), np.nan).astype(np.float32)
    return block * np.expand_dims(factor, axis)


def truncate(array: xr.DataArray, dims: int) -> xr.DataArray:
    """The first ``dims`` bands of a Matryoshka product: a shorter embedding of its own. Lazy.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Encoded or decoded.
    dims : int
        One of the product's ``matryoshka`` lengths.

    Raises
    ------
    EmbeddingError
        If the product was not trained so that its prefixes are embeddings.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> mine = gx.Product("nested", dims=8, matryoshka=(2, 4))
    >>> gx.wrap(np.ones((8, 3, 3), "f4"), mine, geobox=gx.testing.geobox((3, 3))).emb.truncate(4).sizes[
    ...     "band"
    ... ]
    4
    """
    found = check_embedding(array, "truncate")
    lengths = matryoshka_of(found, str(array.attrs.get("version", "")))
    if dims not in lengths:
        version = array.attrs.get("version", "")
        raise EmbeddingError(
            f"{found.name} {version} has no prefix of {dims} bands that is an embedding; "
            + (f"its lengths are {lengths}" if lengths else "it was not trained as a Matryoshka model")
        )
    return array.sel({BAND: list(found.bands[:dims])})


def matryoshka_of(found: Product, version: str) -> tuple[int, ...]:
    """Prefix lengths of a product in a version; ``Product.matryoshka`` may hold for some versions only."""
    only = tuple(v for v in found.versions if v in found.matryoshka_versions)
    return found.matryoshka if not only or version in only else ()


# --- time ---------------------------------------------------------------------------------------------------


def pick_times(available: np.ndarray, time: TimeLike, covers: str = "the array") -> np.ndarray:
    """Positions along a time axis that ``time=`` asks for.

    Parameters
    ----------
    available : ndarray of datetime64 (time,)
        Starts of the periods.
    time : int, str, list, slice or None
        A year, a date, exactly those in a list, an inclusive slice of years or dates, or all. A period
        matches by its start: ``2024`` is every period that starts in 2024.
    covers : str
        What has these times, for the message.

    Returns
    -------
    ndarray of int

    Raises
    ------
    TypeError
        For a tuple, which could mean either a list or a range.
    CoverageError
        If nothing matches; the message lists what there is.
    """
    available = np.asarray(available, "datetime64[ns]")
    if time is None:
        return np.arange(available.size)
    check_time(time)
    positions: np.ndarray
    missing: list[Any]
    if isinstance(time, slice):
        low = _period(time.start)[0] if time.start is not None else None
        high = _period(time.stop)[1] if time.stop is not None else None
        if low is not None and high is not None and low >= high:
            raise ValueError(f"time={time!r} ends before it starts")
        hit = np.ones(available.size, bool)
        hit &= True if low is None else available >= low
        hit &= True if high is None else available < high
        positions = np.flatnonzero(hit)
        missing = [] if positions.size else [time]
    else:
        wanted = _as_list(time)
        per = [_in_period(available, each) for each in wanted]
        missing = [w for w, p in zip(wanted, per, strict=True) if not p.size]
        positions = np.unique(np.concatenate(per)) if per else np.array([], int)
        if not per:
            missing = [time]
    if missing:
        raise CoverageError(f"time {missing} is not in {covers}, which has {describe_times(available)}")
    return positions


def check_time(time: TimeLike) -> None:
    """Raise for a ``time=`` that :func:`pick_times` would refuse whatever there is."""
    if isinstance(time, tuple):
        raise TypeError(
            f"time={time!r} is a tuple, which could be two years or a range: "
            f"write {list(time)!r} for exactly those, or slice({', '.join(map(repr, time))}) for a range"
        )
    given = [time.start, time.stop] if isinstance(time, slice) else _as_list(time)
    for each in given:
        if each is not None:
            _period(each)


def time_spans(time: TimeLike) -> list[tuple[Any, Any]] | None:
    """What ``time=`` asks for as half-open spans ``(start, stop)``, to prune files by; None for everything."""
    if time is None:
        return None
    check_time(time)
    if isinstance(time, slice):
        low = _period(time.start)[0] if time.start is not None else np.datetime64("1678-01-01", "ns")
        high = _period(time.stop)[1] if time.stop is not None else np.datetime64("2262-01-01", "ns")
        return [(low, high)]
    return [_period(each) for each in _as_list(time)]


def _as_list(time: Any) -> list[Any]:
    return list(time) if isinstance(time, Iterable) and not isinstance(time, str) else [time]


def _in_period(available: np.ndarray, when: Any) -> np.ndarray:
    start, stop = _period(when)
    return np.flatnonzero((available >= start) & (available < stop))


def _period(when: Any) -> tuple[Any, Any]:
    """Start and end of what ``when`` names: a year, a month or a day."""
    text = str(int(when)) if isinstance(when, (int, np.integer)) and not isinstance(when, bool) else when
    try:
        period = pd.Period(text) if isinstance(text, str) else pd.Period(pd.Timestamp(text), "D")
        if period.end_time - period.start_time < pd.Timedelta("23h"):  # a clock time names its day
            period = period.asfreq("D")
    except ValueError:
        raise ValueError(f"not a year or a date: {when!r}; write 2024, '2024-06' or '2024-06-15'") from None
    return np.datetime64(period.start_time, "ns"), np.datetime64((period + 1).start_time, "ns")


def describe_times(available: np.ndarray) -> str:
    """A short list of times: years where each is the start of one."""
    stamps = pd.DatetimeIndex(available)
    if len(stamps) == 0:
        return "no times"
    yearly = ((stamps.month == 1) & (stamps.day == 1)).all()
    names = sorted({str(s.year) if yearly else s.strftime("%Y-%m-%d") for s in stamps})
    return ", ".join(names) if len(names) <= 12 else f"{names[0]} … {names[-1]} ({len(names)} of them)"


def year(array: xr.DataArray, when: TimeLike) -> xr.DataArray:
    """One year (or date), without the ``time`` dimension.

    Parameters
    ----------
    array : DataArray (time, …)
        With a ``time`` dimension.
    when : int or str
        Which.

    Returns
    -------
    DataArray
        Without ``time`` as a dimension; it stays as a scalar coordinate.

    Raises
    ------
    EmbeddingError
        If the array has no ``time``, or more than one period starts in that year.
    CoverageError
        If the year is not there; the message lists the years.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(4, 5), years=[2018, 2024])
    >>> da.emb.year(2024).dims
    ('band', 'y', 'x')
    """
    if "time" not in array.dims:
        if "time" in array.coords:
            pick_times(np.atleast_1d(array.coords["time"].values), when)
            return array
        raise EmbeddingError(f"year needs a 'time' dimension; got dims {tuple(array.dims)}")
    positions = pick_times(array.coords["time"].values, when)
    if positions.size != 1:
        times = describe_times(array.coords["time"].values[positions])
        raise EmbeddingError(
            f"{positions.size} periods match {when!r} ({times}); give a date, or aggregate them"
        )
    return array.isel(time=int(positions[0]))


def times_of_years(years: Iterable[int]) -> np.ndarray:
    """Years as starts of years, datetime64[ns]."""
    return np.array([f"{int(y):04d}-01-01" for y in years], "datetime64[ns]")


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


def concat(arrays: Sequence[xr.DataArray], dim: str) -> xr.DataArray:
    """Join arrays of one product, version and CRS along a dimension.

    Unlike :func:`xarray.concat` it never mixes two spaces or two grids, and never fills gaps.

    Parameters
    ----------
    arrays : sequence of DataArray
        At least one.
    dim : str
        Usually ``"time"`` or ``"location"``.

    Raises
    ------
    ComparabilityError
        If product or version differ.
    EmbeddingError
        If CRS, encoding or coordinates differ.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(4, 5), years=[2018, 2024])
    >>> gx.concat([da.isel(time=[0]), da.isel(time=[1])], "time").identical(da)
    True
    """
    arrays = list(arrays)
    if not arrays:
        raise ValueError("concat needs at least one array")
    for each in arrays:
        check_embedding(each, "concat")
    check_comparable("concat", *map(comparability_key, arrays))
    first = arrays[0]
    if len({is_encoded(each) for each in arrays}) > 1:
        raise EmbeddingError("concat got encoded and decoded arrays; decode them all, or none")
    crs = geometry.crs_of(first)
    for each in arrays[1:]:
        other = geometry.crs_of(each)
        if (crs is None) != (other is None) or (crs is not None and not geometry.same_crs(crs, other)):
            names = [geometry.crs_name(c) if c is not None else "none" for c in (crs, other)]
            raise EmbeddingError(
                f"concat got two CRSs, {names[0]} and {names[1]}; reproject to one grid first"
            )
    try:
        joined = xr.concat(
            arrays, dim, join="exact", coords="minimal", compat="equals", combine_attrs="override"
        )
    except (ValueError, xr.MergeError) as error:
        raise EmbeddingError(
            f"concat along {dim!r} needs the same coordinates on the other dimensions "
            f"(bring them to one grid with .emb.reproject): {error}"
        ) from error
    stores = sorted({str(each.attrs.get("store", "")) for each in arrays})
    if len(stores) > 1:
        named = " and ".join(repr(s) if s else "the first-hand files" for s in stores)
        warnings.warn(
            f"concat mixes {named}: the copy was resampled, so vectors of one place differ between them "
            "for no reason on the ground",
            stacklevel=2,
        )
    sources = {str(each.attrs.get("source", "")) for each in arrays}
    if len(sources) > 1:
        joined.attrs["source"] = f"{len(sources)} sources"
    return joined


def check(array: xr.DataArray) -> dict[str, Any]:
    """Look at an embedding's values: share of missing pixels, norms, range of codes. Computes.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Encoded or decoded.

    Returns
    -------
    dict
        ``missing`` (share of pixels), ``norm_min``, ``norm_mean``, ``norm_max``, ``ok`` and ``problems``.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> gx.testing.synthetic("alphaearth", shape=(8, 8)).emb.check()["ok"]
    True
    """
    found = check_embedding(array, "check")
    norms = map_bands(_norms, array, dtype=np.float32)
    missing, low, mean, high = (
        xr.Dataset(
            {"missing": norms.isnull().mean(), "low": norms.min(), "mean": norms.mean(), "high": norms.max()}
        )
        .compute()
        .data_vars.values()
    )
    problems = []
    # Two int8 codes a band put a decoded norm at most 1.2 % off: more means a wrong formula or averaged codes.
    if found.unit_norm and float(missing) < 1 and max(abs(float(low) - 1), abs(float(high) - 1)) > 0.012:
        problems.append(
            f"norms {float(low):.4f}–{float(high):.4f} are not 1 ± 0.012: codes were averaged, decoded with "
            "another formula, or these are means"
        )
    if float(missing) == 1:
        problems.append("every pixel is missing")
    return {
        "missing": float(missing),
        "norm_min": float(low),
        "norm_mean": float(mean),
        "norm_max": float(high),
        "ok": not problems,
        "problems": problems,
    }


def _norms(block: np.ndarray, axis: int) -> np.ndarray:
    square = np.einsum("i...,i...->...", *[np.moveaxis(block, axis, 0)] * 2, dtype=np.float64)
    return np.asarray(np.sqrt(square), np.float32)
