"""Reading back what this package wrote, and any Zarr store in the embeddings convention.

A store tells its product itself: in facts that :mod:`geoemb_xr.writing` put there, or in the ``geoemb:``
attributes that others write. Everything is cut to the request before dask sees it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from dask.delayed import delayed

from geoemb_xr.core import areas, columns, geometry, times
from geoemb_xr.core.areas import Area
from geoemb_xr.core.citing import OWN_TAG, product_of_facts
from geoemb_xr.core.codecs import CODECS
from geoemb_xr.core.conventions import FACTS, GEOEMB_UUID, UNFINISHED
from geoemb_xr.core.errors import CoverageError, SourceError, require
from geoemb_xr.core.model import BAND, Codec, Product, ProductKind, normalise_name, product, registered
from geoemb_xr.core.notes import say
from geoemb_xr.readers import zarr as zarr_store
from geoemb_xr.readers.geotiff import file_token
from geoemb_xr.readers.tiles import Request, block_sides, bounds_for

#: Codecs by what others call them in ``geoemb:quantization``.
_METHODS = {
    "signed_square": "signed-square",
    "powerquantizevaluetransform": "signed-square",
    "per_pixel_scale": "per-pixel-scale",
    "finite_scalar_quantization": "fsq",
    "fsq": "fsq",
    "unpublished": "unscaled",
}


def product_of_store(path: str | os.PathLike[str]) -> Product:
    """The product that a store or file says it holds.

    Parameters
    ----------
    path : path
        A Zarr store, a GeoTIFF or a GeoParquet file.

    Returns
    -------
    Product
        One that was made on the spot is made again from the facts in the file.

    Raises
    ------
    SourceError
        If it says nothing, or what it says fits more than one product.

    Examples
    --------
    >>> import geoemb_xr as gx, tempfile
    >>> da = gx.testing.synthetic("alphaearth", shape=(8, 9))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     product_of_store(gx.to_zarr(da, f"{folder}/aoi.zarr")).name
    'alphaearth'
    """
    name = os.fspath(path)
    found = _PRODUCTS[_container(name)](name)
    if found is None:
        raise SourceError(
            f"{name} does not say which product it holds; say it: gx.open(product, {name!r}). "
            f"Known products are {', '.join(each.name for each in registered())}"
        )
    return found


def is_own(path: str | os.PathLike[str]) -> bool:
    """Whether this module reads a store: what this package wrote, or a plain array in the convention."""
    name = os.fspath(path)
    try:
        container = _container(name)
    except SourceError:
        return False
    if container == "tif":
        return _geotiff_facts(name) is not None
    if container == "parquet":
        return _footer(name) is not None
    root = zarr_store.open_node(name, "", zarr_store.store_token(name))
    if not hasattr(root, "arrays"):
        return False
    return _is_ours(root) or _vectors(root) is not None


def read_store(path: str | os.PathLike[str], request: Request | None = None) -> xr.DataArray | xr.Dataset:
    """Open a store that tells its product, lazily, as it was written.

    Parameters
    ----------
    path : path
        A Zarr store, a GeoTIFF or a GeoParquet file.
    request : Request, optional
        Area, time and chunks; all of it by default.

    Returns
    -------
    DataArray or Dataset
        dask-backed; codes stay codes. A Dataset where several maps were written.

    Raises
    ------
    SourceError
        If it is unfinished, or is no such store.
    CoverageError
        If it holds nothing of what was asked for.

    Examples
    --------
    >>> import geoemb_xr as gx, tempfile
    >>> da = gx.testing.synthetic("alphaearth", shape=(8, 9))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read_store(gx.to_zarr(da, f"{folder}/aoi.zarr")).identical(da)
    True
    """
    name = os.fspath(path)
    return _READERS[_container(name)](name, request or Request())


def _container(name: str) -> str:
    local = Path(name)
    if "://" not in name and not local.exists():
        part = local.with_name(local.name + ".part")
        if part.exists():
            raise SourceError(f"{name} was never finished; write it again and it goes on from {part}")
        raise FileNotFoundError(f"no such file or store: {name}")
    if name.lower().endswith((".tif", ".tiff")):
        return "tif"
    if name.lower().endswith((".parquet", ".geoparquet", ".gpq")):
        return "parquet"
    if "://" in name or any((local / each).exists() for each in ("zarr.json", ".zgroup", ".zarray")):
        return "zarr"
    raise SourceError(f"{name} is neither a Zarr store, a GeoTIFF (.tif) nor a GeoParquet file (.parquet)")


# --- cutting ----------------------------------------------------------------------------------------------------


def _cut[T: (xr.DataArray, xr.Dataset)](array: T, request: Request, name: str) -> T:
    """A lazily indexed array cut to area and time, then put on dask."""
    if request.time is not None and "time" in array.dims:
        array = array.isel(time=times.pick_times(array.coords["time"].values, request.time, covers=name))
    if request.area is not None and {"y", "x"} <= set(array.dims):
        box = geometry.geobox_of(array, "open")
        windows = [areas.window_of(box, part) for part in bounds_for(request.area, box.crs)]
        rows_cols = next((each for each in windows if each is not None), None)
        if rows_cols is None:
            raise CoverageError(f"{name} does not cover {request.area}; it covers {areas.area_of(box)}")
        array = array.isel(y=rows_cols[0], x=rows_cols[1])
    if request.area is not None and "location" in array.dims:
        x, y = (array.coords[axis].values for axis in ("x", "y"))
        inside = _inside(x, y, request.area, geometry.crs_of(array))
        if not inside.any():
            raise CoverageError(f"{name} has no location in {request.area}")
        array = array.isel(location=np.flatnonzero(inside))
    sides: dict[Any, int] = dict.fromkeys(array.dims, -1)
    sides |= {dim: side for dim, side in block_sides(request.chunks).items() if dim in array.dims}
    sides |= {"time": 1} if "time" in array.dims else {}
    sides |= {"location": 1 << 16} if "location" in array.dims else {}
    # a rewritten store is another array, and the same window of the same store is the same one
    token = tokenize(name, _age(name), str(request.time), request.area, sides)
    return array.chunk(sides, name_prefix="own-", token=token)


def _inside(x: np.ndarray, y: np.ndarray, area: Area, crs: object) -> np.ndarray:
    """Which places lie in an area; degrees may be written a turn away."""
    inside = np.zeros(x.shape, bool)
    for west, south, east, north in bounds_for(area, crs):
        for turn in (0, 360) if geometry.as_crs(crs).is_geographic else (0,):
            inside |= (x + turn >= west) & (x + turn <= east) & (y >= south) & (y <= north)
    return inside


def _age(name: str) -> str:
    return zarr_store.store_token(name) if _container(name) == "zarr" else file_token(name)


# --- Zarr -------------------------------------------------------------------------------------------------------


def _root(name: str) -> Any:
    root = zarr_store.open_node(name, "", zarr_store.store_token(name))
    if not hasattr(root, "arrays"):
        raise SourceError(f"{name} is a single Zarr array without a group: it has no coordinates to open")
    return root


def _product_of_zarr(name: str) -> Product | None:
    root = _root(name)
    if FACTS in root.attrs:
        return product_of_facts(root.attrs[FACTS], name)
    vectors = _vectors(root)
    attrs = zarr_store.find_attrs(root, vectors)
    if not _in_convention(attrs):
        return None
    return _infer(attrs, _labels(root, vectors), name)


def _is_ours(root: Any) -> bool:
    return FACTS in root.attrs or str(root.attrs.get("software", "")).startswith("geoemb_xr")


def _in_convention(attrs: Mapping[str, Any]) -> bool:
    """By UUID, since names have changed; older stores have the attributes and no list of conventions."""
    declared = attrs.get("zarr_conventions") or []
    uuids = {str(each.get("uuid", "")).lower() for each in declared if isinstance(each, Mapping)}
    return GEOEMB_UUID in uuids or "geoemb:dimensions" in attrs


def _vectors(root: Any) -> Any:
    """The array of vectors of a store in the convention; None where there is none, or more than one."""
    found = []
    for key, array in root.arrays():
        names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
        if array.ndim >= 2 and any(str(n).startswith(("band", "embedding", "feature")) for n in names):
            found.append((key, array))
    named = [array for key, array in found if key in ("embeddings", "embedding")]
    single = named or [array for _, array in found]
    return single[0] if len(single) == 1 else None


def _labels(root: Any, vectors: Any) -> tuple[str, ...]:
    """Labels of the bands, where the store has them as text."""
    for key in ("band", "embedding", "bands"):
        if key in root and hasattr(root[key], "shape") and root[key].ndim == 1:
            return tuple(map(str, np.asarray(root[key][:]).tolist()))
    return ()


def _infer(attrs: Mapping[str, Any], labels: tuple[str, ...], name: str) -> Product:
    """The product of the catalogue that the convention's attributes fit, else one made of them.

    Raises
    ------
    SourceError
        If several fit, or the attributes are not complete.
    """
    try:
        dims = int(attrs["geoemb:dimensions"])
    except (KeyError, TypeError, ValueError):
        raise SourceError(f"{name} lacks 'geoemb:dimensions', the length of a vector") from None
    model = str(attrs.get("geoemb:model", ""))
    quantization = attrs.get("geoemb:quantization") or {}
    codec = _codec_of(quantization, name)
    words = set(re.split(r"[^a-z0-9]+", model.lower()))
    of_size = [each for each in registered() if each.dims == dims and _same_codec(each, codec)]
    fitting = [each for each in of_size if _named(each, words, model) or each.bands == labels]
    if len(fitting) > 1:
        sure = [each for each in fitting if _named(each, words, model)]
        fitting = sure if len(sure) == 1 else fitting
    if len(fitting) > 1:
        names = ", ".join(each.name for each in fitting)
        raise SourceError(
            f"{name} fits more than one product ({names}); say which: gx.open(product, {name!r})"
        )
    if fitting:
        return fitting[0]
    if not model:
        raise SourceError(f"{name} lacks 'geoemb:model', and its {dims} dims fit no known product")
    kind: ProductKind = "patch" if attrs.get("geoemb:type") == "chip" else "pixel"
    slug = normalise_name(re.sub(r"[^A-Za-z0-9.]+", "-", model.split("://")[-1]).strip("-"))
    facts: dict[str, Any] = {"dims": dims, "kind": kind, "model": model, "codec": codec}
    facts["bands"] = _own_labels(labels, dims, codec)
    known = {each.name: each for each in registered()}
    for made in (Product(slug, **facts), Product(f"{slug}-{dims}", **facts)):
        if known.get(made.name, made) == made:
            return product(made)
    raise SourceError(
        f"{name} holds vectors of {model!r} that differ from those opened before under {slug!r}"
    )


def _own_labels(labels: tuple[str, ...], dims: int, codec: Codec | None) -> tuple[str, ...]:
    return labels if len(set(labels)) == dims and not (codec is not None and codec.bands) else ()


def _named(candidate: Product, words: set[str], model: str) -> bool:
    """Whether a model's URL names a product."""
    names = {candidate.name, *map(normalise_name, candidate.aliases)}
    return bool(names & words) or (bool(candidate.doi) and candidate.doi.lower() in model.lower())


def _same_codec(candidate: Product, codec: Codec | None) -> bool:
    """Decoded floats of any product fit; codes fit the product whose codec they are in."""
    if codec is None:
        return True
    return candidate.codec is not None and (
        candidate.codec.name == codec.name or codec.name.startswith("linear")
    )


def _codec_of(quantization: Mapping[str, Any], name: str) -> Codec | None:
    """The codec that ``geoemb:quantization`` describes."""
    if not quantization:
        return None
    method = str(quantization.get("method", "")).lower()
    scale = quantization.get("scale")
    if method in _METHODS:
        return CODECS[_METHODS[method]]
    if isinstance(scale, Mapping) and scale.get("type") == "array":
        return CODECS["per-pixel-scale"]
    if isinstance(scale, Mapping) and scale.get("type") == "scalar":
        dtype = str(quantization.get("quantized_dtype", "int8"))
        nodata = quantization.get("nodata", -128 if dtype == "int8" else None)
        return _linear_codec(float(scale.get("scale", 1)), float(scale.get("offset", 0)), dtype, nodata)
    raise SourceError(f"{name} is quantised by {method!r}, which is not known; known are {sorted(_METHODS)}")


@dataclass(frozen=True)
class _Linear:
    """Codes that are ``(value - offset) / step``, as the convention's scalar scale says."""

    step: float
    offset: float
    dtype: str
    nodata: int | None

    def decode(self, codes: np.ndarray, scale: np.ndarray | None, axis: int) -> np.ndarray:
        values = codes.astype(np.float32) * np.float32(self.step) + np.float32(self.offset)
        if self.nodata is not None:
            missing = (codes == self.nodata).any(axis=axis, keepdims=True)
            values[np.broadcast_to(missing, values.shape)] = np.nan
        return values

    def encode(self, vectors: np.ndarray, axis: int) -> tuple[np.ndarray, None]:
        limits = np.iinfo(self.dtype)
        lowest = limits.min + 1 if self.nodata == limits.min else limits.min
        missing = np.isnan(vectors).any(axis=axis, keepdims=True)
        codes = np.clip(np.rint((np.nan_to_num(vectors) - self.offset) / self.step), lowest, limits.max)
        return np.where(missing, 0 if self.nodata is None else self.nodata, codes).astype(self.dtype), None

    def decode_torch(self, codes: Any, scale: Any, axis: int) -> Any:
        values = codes.float() * self.step + self.offset
        if self.nodata is None:
            return values
        return values.masked_fill_((codes == self.nodata).any(dim=axis, keepdim=True), float("nan"))


@lru_cache(maxsize=64)
def _linear_codec(step: float, offset: float, dtype: str, nodata: int | None) -> Codec:
    """One object for one rule: bound methods of two equal objects are not equal."""
    rule = _Linear(step, offset, dtype, nodata)
    return Codec(f"linear-{step:g}-{offset:g}", dtype, nodata, rule.decode, rule.encode, rule.decode_torch)


def _read_zarr(name: str, request: Request) -> xr.DataArray | xr.Dataset:
    root = _root(name)
    dataset = _dataset(name, root)
    if root.attrs.get(UNFINISHED):
        say(
            f"{name} is being written into, or a writer of it was killed "
            f"({', '.join(map(str, root.attrs[UNFINISHED].values()))}): the same call again finishes it"
        )
    if _is_ours(root):
        return _read_own(name, root, dataset, request)
    return _read_other(name, root, dataset, request)


def _dataset(name: str, root: Any) -> xr.Dataset:
    consolidated = root.metadata.consolidated_metadata is not None
    return xr.open_dataset(
        zarr_store.store_of(name),
        engine="zarr",
        chunks=None,
        cache=False,
        consolidated=consolidated,
        mask_and_scale=False,  # codes stay codes
    )


def _read_own(name: str, root: Any, dataset: xr.Dataset, request: Request) -> xr.DataArray | xr.Dataset:
    if FACTS in root.attrs:
        product_of_facts(root.attrs[FACTS], name)  # registers one that was made on the spot
    opened = _restored(_cut(dataset, request, name), root.attrs)
    cleaned = {str(key): _cleaned(opened[key]) for key in opened.data_vars}
    if len(cleaned) == 1:
        return next(iter(cleaned.values()))
    return xr.Dataset(cleaned)


def _restored(opened: xr.Dataset, attrs: Mapping[str, Any]) -> xr.Dataset:
    """Columns and names as they were before the store, which has fewer types and letters for names."""
    for key, coord in opened.coords.items():
        note = coord.attrs.get(columns.NOTE)
        if isinstance(note, Mapping):
            values = columns.from_zarr_values(coord.values, note)
            kept = {name: value for name, value in coord.attrs.items() if name != columns.NOTE}
            opened = opened.assign_coords({key: xr.Variable(coord.dims, values, kept)})
    names = attrs.get(columns.NAMES, {})
    return opened.rename({k: v for k, v in names.items() if k in opened.variables or k in opened.dims})


def _cleaned(array: xr.DataArray) -> xr.DataArray:
    """Without what only the file needed."""
    array = array.drop_attrs(deep=False).assign_attrs(
        {k: v for k, v in array.attrs.items() if k not in ("_FillValue", "coordinates", "grid_mapping")}
    )
    for key, coord in array.coords.items():
        if "_FillValue" in coord.attrs:
            array.coords[key].attrs.pop("_FillValue")
    return array.drop_encoding()


def _read_other(name: str, root: Any, dataset: xr.Dataset, request: Request) -> xr.DataArray:
    """A store in the convention by others: dimensions, place and times by its attributes."""
    found = product_of_store(name)
    vectors = _vectors(root)
    if vectors is None:
        raise SourceError(
            f"{name} has not one array of vectors in its root but {sorted(k for k, _ in root.arrays())}, groups "
            f"{sorted(k for k, _ in root.groups())}; open one with its product: gx.open({found.name!r}, path)"
        )
    attrs = zarr_store.find_attrs(root, vectors)
    key = str(vectors.path).rpartition("/")[2]
    dims = zarr_store.axes_of(vectors, f"{name}/{key}")
    array = xr.DataArray(dataset[key].variable).drop_attrs()
    array = array.rename({old: new for old, new in zip(array.dims, dims, strict=True) if old != new})
    box = zarr_store.geobox_from_attrs(attrs, (array.sizes["y"], array.sizes["x"]), name)
    coords: dict[str, Any] = dict(geometry.grid_coords(box))
    if "time" in dims:
        times = zarr_store.years_of(root, array.sizes["time"], name)
        coords["time"] = np.array(times, "datetime64[ns]")
    array = array.assign_coords(coords)
    codec = found.codec if np.issubdtype(array.dtype, np.integer) else None
    if codec is not None and codec.scale is not None:
        array = array.assign_coords({codec.scale: _scales(name, root, dataset, attrs, array)})
    labels = found.bands if codec is not None or found.codec is None else found.decoded_bands
    array = array.isel({BAND: slice(0, len(labels))}).assign_coords({BAND: list(labels)})
    array = geometry.north_up_array(array)
    opened = _cut(array, request, name)
    version = str(attrs.get("geoemb:build_version", "")) or (found.versions[0] if found.versions else "")
    return opened.rename("embedding").assign_attrs(
        {
            "product": found.name,
            "version": version,
            "source": name,
            **({"codec": codec.name} if codec else {}),
        }
    )


def _scales(
    name: str, root: Any, dataset: xr.Dataset, attrs: Mapping[str, Any], array: xr.DataArray
) -> xr.Variable:
    scale = (attrs.get("geoemb:quantization") or {}).get("scale") or {}
    key = str(scale.get("array_name", "scales"))
    if key not in dataset:
        raise SourceError(f"{name} has codes with a scale for each pixel, but no array {key!r}")
    dims = zarr_store.axes_of(root[key], f"{name}/{key}")
    return xr.Variable(dims, dataset[key].variable._data, fastpath=True)


# --- GeoTIFF ----------------------------------------------------------------------------------------------------


def _geotiff_facts(name: str) -> dict[str, Any] | None:
    """What to_cog wrote into the tag of its own; None for other files."""
    import rasterio

    with rasterio.open(name) as file:
        text = file.tags().get(OWN_TAG)
    if text is None:
        return None
    try:
        facts = json.loads(text)
    except json.JSONDecodeError as error:
        raise SourceError(f"{name} has a tag {OWN_TAG!r} that is no JSON ({error})") from error
    return facts if isinstance(facts, dict) else None


def _product_of_geotiff(name: str) -> Product | None:
    import rasterio

    facts = _geotiff_facts(name)
    if facts is not None:
        return product_of_facts(facts["product"], name) if facts.get("product") else None
    with rasterio.open(name) as file:
        described = tuple(str(each) for each in file.descriptions)
    fitting = [p for p in registered() if described == p.bands and not described[0].isdigit()]
    return fitting[0] if len(fitting) == 1 else None


def _read_geotiff(name: str, request: Request) -> xr.DataArray:
    import rioxarray

    facts = _geotiff_facts(name)
    if facts is None:
        raise SourceError(f"{name} was not written by to_cog; say what it holds: gx.open(product, {name!r})")
    if facts.get("product"):
        product_of_facts(facts["product"], name)
    opened = rioxarray.open_rasterio(name, cache=False, masked=False)
    assert isinstance(opened, xr.DataArray)
    labels = opened.attrs.get("long_name")
    affine, crs = opened.rio.transform(), opened.rio.crs.to_wkt()
    if facts.get("crs") and geometry.same_crs(facts["crs"], crs):  # else it was warped since
        crs = facts["crs"]
    box = geometry.make_geobox((opened.sizes["y"], opened.sizes["x"]), affine, crs)
    array = opened.drop_vars(list(opened.coords)).assign_coords(geometry.grid_coords(box))
    dim = facts.get("dim")
    if dim is None:
        array = array.isel(band=0)
    else:
        array = array.rename({BAND: dim}) if dim != BAND else array
        array = array.assign_coords({dim: list(labels) if labels is not None else range(array.sizes[dim])})
    if facts.get("time"):
        array = array.assign_coords(time=np.datetime64(facts["time"], "ns"))
    array = _cut(array, request, name)
    return array.rename(facts.get("name")).drop_attrs(deep=False).assign_attrs(facts.get("attrs") or {})


# --- GeoParquet -------------------------------------------------------------------------------------------------


def _footer(name: str) -> dict[str, Any] | None:
    """Our part of the ``emb`` key of a Parquet footer; None for other files."""
    parquet = require("pyarrow.parquet", "vector")
    raw = (parquet.read_schema(name).metadata or {}).get(b"emb")
    if raw is None:
        return None
    facts = json.loads(raw).get(OWN_TAG)
    return facts if isinstance(facts, dict) else None


def _product_of_parquet(name: str) -> Product | None:
    facts = _footer(name)
    return product_of_facts(facts["product"], name) if facts is not None and facts.get("product") else None


def _read_parquet(name: str, request: Request) -> xr.DataArray:
    """Rows of a file of ours: index, places and riding columns now, vectors a row group a block."""
    facts = _footer(name)
    if facts is None:
        raise SourceError(
            f"{name} was not written by to_geoparquet; say what it holds: gx.open(product, {name!r})"
        )
    if facts.get("product"):
        product_of_facts(facts["product"], name)
    parquet = require("pyarrow.parquet", "vector")
    file = parquet.ParquetFile(name)
    crs = json.loads(file.schema_arrow.metadata[b"geo"])["columns"]["geometry"]["crs"]
    skipped = {facts["column"], "bbox"}
    table = file.read([n for n in file.schema_arrow.names if n not in skipped])
    beside = table.to_pandas()
    for column, kind in (facts.get("column_kinds") or {}).items():
        beside[column] = pd.Series(columns.from_arrow(table[column], kind), beside.index, dtype=object)
    kept = np.ones(len(beside), bool)
    if request.area is not None:
        kept = _inside(beside["x"].to_numpy(), beside["y"].to_numpy(), request.area, json.dumps(crs))
    if not kept.any():
        raise CoverageError(f"{name} has no location in {request.area}")
    array = xr.DataArray(_lazy_column(name, file, facts, kept), dims=_parquet_dims(facts), name=facts["name"])
    array = array.assign_coords(_beside_coords(beside[kept], facts, crs))
    if facts.get("time"):
        array = array.assign_coords(time=np.datetime64(facts["time"], "ns"))
        if request.time is not None:
            times.pick_times(np.atleast_1d(array.coords["time"].values), request.time, covers=name)
    return array.assign_attrs(facts.get("attrs") or {})


def _parquet_dims(facts: Mapping[str, Any]) -> tuple[str, ...]:
    return ("location", *([facts["dim"]] if facts.get("dim") else []))


def _beside_coords(beside: pd.DataFrame, facts: Mapping[str, Any], crs: Any) -> dict[str, Any]:
    coords: dict[str, Any] = {geometry.SPATIAL_REF: geometry.crs_coord(json.dumps(crs))}
    if facts.get("dim"):
        coords[facts["dim"]] = facts["labels"]
    if "location" in beside:
        coords["location"] = pd.Index(beside["location"], name=facts.get("index") or "location")
    names = facts.get("column_names") or {}
    for column in beside.columns:
        if column not in ("location", "geometry"):
            attrs = (facts.get("coord_attrs") or {}).get(column, {})
            coords[names.get(str(column), str(column))] = ("location", beside[column].to_numpy(), attrs)
    if not facts.get("points"):
        import shapely

        coords["geometry"] = ("location", shapely.from_wkb(beside["geometry"].to_numpy()))
    return coords


def _lazy_column(name: str, file: Any, facts: Mapping[str, Any], kept: np.ndarray) -> Any:
    """The column of values, a dask block a row group that holds rows that were asked for."""
    import dask.array as da

    column, width = facts["column"], len(facts.get("labels") or [])
    kind = file.schema_arrow.field(column).type
    dtype = np.dtype((kind.value_type if width else kind).to_pandas_dtype())
    edges = np.cumsum([0, *(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))])
    blocks = []
    for group, (start, stop) in enumerate(pairwise(edges.tolist())):
        rows = np.flatnonzero(kept[start:stop])
        if rows.size:
            task = delayed(_read_group, pure=True)(name, file_token(name), group, column, rows, width)
            blocks.append(da.from_delayed(task, (rows.size, *([width] if width else [])), dtype))
    return da.concatenate(blocks)


def _read_group(name: str, token: str, group: int, column: str, rows: np.ndarray, width: int) -> np.ndarray:
    """Some rows of a row group; ``token`` only makes a rewritten file another task."""
    parquet = require("pyarrow.parquet", "vector")
    chunk = parquet.ParquetFile(name).read_row_group(group, columns=[column])[column].combine_chunks()
    values = chunk.flatten().to_numpy(zero_copy_only=False) if width else chunk.to_numpy(zero_copy_only=False)
    matrix = values.reshape(-1, width) if width else values
    return np.asarray(matrix if rows.size == len(matrix) else matrix[rows])


_PRODUCTS = {"zarr": _product_of_zarr, "tif": _product_of_geotiff, "parquet": _product_of_parquet}
_READERS = {"zarr": _read_zarr, "tif": _read_geotiff, "parquet": _read_parquet}
