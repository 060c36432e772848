"""Zarr stores and netCDF files that xarray reads: ours, and those that plain xarray wrote of our arrays.

They are opened with ``mask_and_scale=False``, so that codes stay codes; those that plain xarray had turned into
floats before they were written are turned back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core import arrays, columns, geometry
from geoemb_xr.core.citing import product_of_facts
from geoemb_xr.core.conventions import FACTS, FORMAT, FORMAT_KEY, UNFINISHED, UNREAD
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.core.missing import codec_attrs, codes_again, nodata_in, scaling_in
from geoemb_xr.core.model import Product, product
from geoemb_xr.core.notes import say
from geoemb_xr.core.times import with_dates
from geoemb_xr.readers import zarr_nodes
from geoemb_xr.readers.cutting import cut, without_gap
from geoemb_xr.readers.geotiff import file_token
from geoemb_xr.readers.header_checks import check_lengths
from geoemb_xr.readers.tiles import Request
from geoemb_xr.stores.archives import is_archive, is_icechunk
from geoemb_xr.stores.objects import is_remote

NETCDF = (".nc", ".nc4", ".cdf", ".h5", ".hdf5")
#: What only a file needs of an array's attributes; the nodata of a map of whole numbers is told by nothing else.
_OF_FILES = ("coordinates", "grid_mapping", "_ARRAY_DIMENSIONS")


# --- Zarr -------------------------------------------------------------------------------------------------------


def is_ours(root: Any) -> bool:
    """Whether we wrote a store, or plain xarray wrote our arrays into it."""
    if FACTS in root.attrs or str(root.attrs.get("software", "")).startswith("geoemb_xr"):
        return True
    return any(_is_our_array(array.attrs) for _, array in root.arrays())


def _is_our_array(attrs: Any) -> bool:
    return "derived_from" in attrs or ("product" in attrs and "version" in attrs)


def product_of_root(root: Any, name: str) -> Product | None:
    """The product that a store of ours says it holds; None for the stores of others, and for maps."""
    if FACTS in root.attrs:
        return product_of_facts(root.attrs[FACTS], name)
    return _product_of([array.attrs for _, array in root.arrays()], name)


def _product_of(attrs: list[Any], name: str) -> Product | None:
    """The product that attributes of arrays name."""
    for each in attrs:
        if "product" in each and _is_our_array(each):
            try:
                return product(str(each["product"]))
            except ValueError as error:
                raise SourceError(
                    f"{name} holds {each['product']!r}, and plain xarray keeps the name of a product only: "
                    f"register it first, gx.register(gx.Product({each['product']!r}, …)) ({error})"
                ) from error
    return None


def read_zarr(name: str, root: Any, request: Request) -> xr.DataArray | xr.Dataset:
    """A store of ours, lazily, as it was written; a Dataset where it has several variables."""
    if root.attrs.get(UNFINISHED):
        say(
            f"{name} is being written into, or a writer of it was killed "
            f"({', '.join(map(str, root.attrs[UNFINISHED].values()))}): the same call again finishes it"
        )
    if unread := root.attrs.get(UNREAD):
        say(
            f"{name}: {len(unread)} blocks could not be read when it was written, and are missing; its attribute "
            f"{UNREAD} says which and why. Written again with mode='r+' they are there"
        )
    product_of_root(root, name)  # registers one that was made on the spot
    arrays = dict(root.arrays())
    for key, array in arrays.items():
        check_lengths(array.shape, f"{name}/{key}")
    whole = root.attrs.get(FORMAT_KEY, 0) >= FORMAT and not root.attrs.get(UNFINISHED)
    dataset = xr.open_dataset(
        zarr_nodes.store_of(name, whole=[k for k, a in arrays.items() if whole and _is_our_array(a.attrs)]),
        engine="zarr",
        chunks=None,
        cache=False,
        consolidated=root.metadata.consolidated_metadata is not None,
        mask_and_scale=False,
    )
    _refuse_lost_axes(dataset, name)
    stays = _staying(name, arrays) if root.attrs.get(FORMAT_KEY, 0) >= FORMAT else ""
    return _read(dataset, request, name, zarr_nodes.store_token(name), stays)


def _refuse_lost_axes(dataset: xr.Dataset, name: str) -> None:
    """Raise where a chunk of an axis is gone: Zarr reads what was to fill it, NaN or the first of 1970."""
    lost = [str(axis) for axis in ("y", "x") if axis in dataset.indexes and dataset.indexes[axis].hasnans]
    times = dataset.coords["time"].values if "time" in dataset.coords else np.array("")
    if times.size > 1 and times.dtype.kind in "iM" and not times.astype(np.int64).any():
        lost.append("time")
    if lost:
        raise SourceError(
            f"{name} has lost values of {' and '.join(lost)}, all of which were written: data were lost; fetch the "
            "store, or write it, again"
        )


def _staying(name: str, arrays: Mapping[str, Any]) -> str:
    """A file of a local store of ours that writing into it leaves as it is: of an array without time."""
    if is_remote(name):
        return ""
    if is_archive(name):
        return "" if is_icechunk(name) else name
    keys = sorted(
        key
        for key, array in arrays.items()
        if "time" not in (getattr(array.metadata, "dimension_names", None) or ())
    )
    stays = os.path.join(name, keys[0], "zarr.json") if keys else ""
    return stays if os.path.isfile(stays) else ""  # Zarr 2 has none


# --- netCDF -----------------------------------------------------------------------------------------------------


def product_of_netcdf(name: str) -> Product | None:
    """The product that a netCDF file names in the attributes of its variables."""
    with _netcdf(name) as dataset:
        return _product_of([variable.attrs for variable in dataset.data_vars.values()], name)


def read_netcdf(name: str, request: Request) -> xr.DataArray | xr.Dataset:
    """A netCDF file that plain xarray wrote of our arrays, lazily."""
    dataset = _netcdf(name)
    if not any(_is_our_array(variable.attrs) for variable in dataset.data_vars.values()):
        raise SourceError(
            f"{name} holds {sorted(map(str, dataset.data_vars))}, none of which says its product: "
            "gx.wrap(xarray.open_dataarray(path), product) says it"
        )
    product_of_netcdf(name)
    return _read(dataset, request, name, file_token(name), "" if is_remote(name) else name)


def _netcdf(name: str) -> xr.Dataset:
    try:
        return xr.open_dataset(name, chunks=None, cache=False, mask_and_scale=False)
    except (ImportError, MemoryError, NameError):
        raise
    except Exception as error:  # what damaged bytes raise has no class in common
        reason = str(error).strip().partition("\n")[0][:200]
        raise SourceError(
            f"{name} could not be opened as netCDF: {reason}. netCDF 4 needs the package h5netcdf or netCDF4"
        ) from error


# --- arrays -----------------------------------------------------------------------------------------------------


def _unpacked(dataset: xr.Dataset) -> xr.Dataset:
    """Variables that a writer packed (a scale, an offset, a number in place of NaN) as the numbers that they mean.

    Whole numbers without a scale stay: they are codes and classes.
    """
    packed = [name for name, each in dataset.variables.items() if _is_packed(each)]
    if not packed:
        return dataset
    plain = xr.decode_cf(dataset[packed].drop_vars(set(dataset.coords) - set(packed)), decode_coords=False)
    return dataset.assign(plain.data_vars).assign_coords(plain.coords)


def _is_packed(variable: xr.Variable) -> bool:
    attrs = variable.attrs
    if "codec" in attrs:
        return False
    marked = {key: attrs[key] for key in ("_FillValue", "missing_value") if key in attrs}
    return scaling_in(attrs) is not None or (variable.dtype.kind == "f" and nodata_in(marked) is not None)


def _read(
    dataset: xr.Dataset, request: Request, name: str, age: str, stays: str
) -> xr.DataArray | xr.Dataset:
    dataset = with_dates(geometry.with_grid_mappings(_unpacked(dataset)))
    opened = _restored(cut(dataset, request, name, age, stays), dataset.attrs)
    try:
        cleaned = {str(key): _cleaned(opened[key]) for key in opened.data_vars}
    except EmbeddingError as error:
        raise SourceError(f"{name}: {error}") from error
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
    """Without what only the file needed, codes as codes."""
    is_told = array.dtype.kind == "f" or "codec" in array.attrs
    dropped = (*_OF_FILES, *(("_FillValue", "missing_value") if is_told else ()))
    kept = {key: value for key, value in array.attrs.items() if key not in dropped}
    array = array.drop_attrs(deep=False).assign_attrs(kept)
    for key, coord in array.coords.items():
        if "_FillValue" in coord.attrs:
            array.coords[key].attrs.pop("_FillValue")
    if array.dtype == np.float64 and "product" in array.attrs:  # vectors are float32
        array = array.astype(np.float32)
    return without_gap(with_nodata(array)).drop_encoding()


def with_nodata(array: xr.DataArray) -> xr.DataArray:
    """Codes with the nodata of their codec, which files written before it had a place lack; maps as they are."""
    if "codec" not in array.attrs or "product" not in array.attrs:
        return array
    codec = arrays.codec_of(array)
    return codes_again(array, codec).assign_attrs(codec_attrs(codec))
