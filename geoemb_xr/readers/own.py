"""Reading back what this package wrote, what plain xarray wrote of our arrays, and Zarr stores in the convention.

A store tells its product itself: in facts that :mod:`geoemb_xr.writing` put there, in the attributes of our arrays,
or in the ``geoemb:`` attributes that others write. Everything is cut to the request before dask sees it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import areas, columns, geometry, times
from geoemb_xr.core.citing import OWN_TAG, product_of_facts
from geoemb_xr.core.errors import CoverageError, MissingFileError, SourceError, require
from geoemb_xr.core.missing import codec_attrs
from geoemb_xr.core.model import BAND, Codec, Product, registered
from geoemb_xr.readers import xarray_files, zarr_nodes
from geoemb_xr.readers import zarr as zarr_store
from geoemb_xr.readers.cutting import cut, places_inside, without_gap
from geoemb_xr.readers.damage import naming_damage
from geoemb_xr.readers.geotiff import file_token, read_info
from geoemb_xr.readers.inferring import in_convention, infer_product
from geoemb_xr.readers.lazy_rasters import lazy_raster
from geoemb_xr.readers.tiles import Request, Tile, assemble, overlapping
from geoemb_xr.readers.vectors import blocks_of
from geoemb_xr.stores.listing import File, list_files, open_file, reading_parquet
from geoemb_xr.stores.objects import UnlistedError


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
    found = _product_in(name := os.fspath(path))
    if found is None:
        raise SourceError(
            f"{name} does not say which product it holds; say it: gx.open(product, {name!r}). "
            f"Known products are {', '.join(each.name for each in registered())}"
        )
    return found


def _product_in(name: str) -> Product | None:
    return _PRODUCTS[_container(name)](name)


def check_product(path: str | os.PathLike[str], asked: Product) -> None:
    """Raise unless a store that tells its product holds the one that is named.

    Raises
    ------
    SourceError
        Naming both.
    """
    name = os.fspath(path)
    held = _product_in(name)
    if held is None or held.name != asked.name:
        what = f"{held.name!r}" if held is not None else "a map, and no vectors"
        raise SourceError(
            f"{name} holds {what}, not {asked.name!r}; gx.open({name!r}) opens it as what it is"
        )


def is_own(path: str | os.PathLike[str]) -> bool:
    """Whether this module reads a store: one of ours, or a plain array in the convention."""
    name = os.fspath(path)
    if is_ours(name):
        return True
    try:
        if _container(name) != "zarr":
            return False
    except MissingFileError:
        raise
    except SourceError:
        return False
    with naming_damage(name):
        root = zarr_nodes.open_node(name, "", zarr_nodes.root_token(name))
        return hasattr(root, "arrays") and _vectors(root) is not None


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Whether this package wrote a store or file, or plain xarray wrote our arrays into it."""
    name = os.fspath(path)
    try:
        container = _container(name)
    except (SourceError, FileNotFoundError):  # a glob, a folder, the name of a published store
        return False
    if container == "tif":
        return _geotiff_facts(name) is not None
    if container == "parquet":
        return _footer(name) is not None
    if container == "netcdf":
        return True
    if not zarr_nodes.is_store(name):  # a remote folder of anything
        return False
    with naming_damage(name):
        root = zarr_nodes.open_node(name, "", zarr_nodes.root_token(name))
        try:
            return hasattr(root, "arrays") and xarray_files.is_ours(root)
        except UnlistedError:  # ours tell in the root what is in it
            return False


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
        raise MissingFileError(f"no such file or store: {name}")
    ending = "" if local.is_dir() else name.lower()  # Spark calls a folder of files data.parquet
    if ending.endswith((".tif", ".tiff")):
        return "tif"
    if ending.endswith((".parquet", ".geoparquet", ".gpq")):
        return "parquet"
    if ending.endswith(xarray_files.NETCDF):
        return "netcdf"
    if "://" in name or zarr_nodes.is_store(name):
        return "zarr"
    raise SourceError(
        f"{name} is neither a Zarr store, a GeoTIFF (.tif), netCDF (.nc) nor GeoParquet (.parquet)"
    )


# --- Zarr stores by others, in the convention ---------------------------------------------------------------


def _root(name: str) -> Any:
    root = zarr_nodes.open_node(name, "", zarr_nodes.root_token(name))
    if not hasattr(root, "arrays"):
        raise SourceError(f"{name} is a single Zarr array without a group: it has no coordinates to open")
    return root


def _product_of_zarr(name: str) -> Product | None:
    with naming_damage(name):
        root = _root(name)
        found = xarray_files.product_of_root(root, name)
        if found is not None:
            return found
        vectors = _vectors(root)
        attrs = zarr_store.find_attrs(root, vectors)
        return (
            infer_product(attrs, zarr_store.labels_of(root, vectors), name) if in_convention(attrs) else None
        )


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


def _read_zarr(name: str, request: Request) -> xr.DataArray | xr.Dataset:
    with naming_damage(name):
        root = _root(name)
        if xarray_files.is_ours(root):
            return xarray_files.read_zarr(name, root, request)
        return _read_other(name, root, request)


def _read_other(name: str, root: Any, request: Request) -> xr.DataArray:
    """A store in the convention by others, as one tile: dimensions, place and times by its attributes."""
    found = product_of_store(name)
    vectors = _vectors(root)
    if vectors is None:
        raise SourceError(
            f"{name} has not one array of vectors in its root but {sorted(k for k, _ in root.arrays())}, groups "
            f"{sorted(k for k, _ in root.groups())}; open one with its product: gx.open({found.name!r}, path)"
        )
    attrs = zarr_store.find_attrs(root, vectors)
    codec = found.codec if np.issubdtype(vectors.dtype, np.integer) else None
    tile, timed = _tile(name, root, vectors, attrs, found, codec, request.decode)
    stamps = np.array(tile.times, "datetime64[ns]")
    chosen = times.pick_times(stamps, request.time, covers=name) if timed else [0]
    version = str(attrs.get("geoemb:build_version", "")) or (found.versions[0] if found.versions else "")
    touched = overlapping([tile], request.area)
    array = assemble(
        touched or [tile],  # which then says that it misses the area
        [tile.times[i] for i in chosen],
        area=request.area,
        chunks=request.chunks,
        attrs={
            "product": found.name,
            "version": version,
            "source": name,
            **(codec_attrs(codec) if codec is not None else {}),
        },
    )
    if array is None:
        covered = areas.area_of(tile.geobox)
        raise CoverageError(f"{name} does not cover {request.area}; it covers {covered}")
    return array if timed else array.isel(time=0, drop=True)


def _tile(
    name: str,
    root: Any,
    vectors: Any,
    attrs: Mapping[str, Any],
    found: Product,
    codec: Codec | None,
    together: bool,
) -> tuple[Tile, bool]:
    """The array of vectors as a tile, with its scales; and whether it has a time axis."""
    key = str(vectors.path).rpartition("/")[2]
    dims = zarr_store.axes_of(vectors, f"{name}/{key}")
    timed = "time" in dims
    years = zarr_store.years_of(root, vectors.shape[dims.index("time")], name) if timed else ("1970-01-01",)
    common: dict[str, Any] = {"attrs": attrs, "times": years, "token": zarr_nodes.store_token(name)}
    bands = found.bands if codec is not None or found.codec is None else found.decoded_bands
    fill = float("nan") if codec is None else float(codec.nodata or 0)
    labels = zarr_store.labels_of(root, vectors)
    tile = zarr_store.zarr_tile(name, key, bands=bands, labels=labels, fill=fill, **common)
    if codec is None:
        return replace(tile, dtype="float32"), timed
    if codec.scale is None:
        return tile, timed
    scale = str(((attrs.get("geoemb:quantization") or {}).get("scale") or {}).get("array_name", "scales"))
    if scale not in root:
        raise SourceError(f"{name} has codes with a scale for each pixel, but no array {scale!r}")
    scales = zarr_store.zarr_tile(name, scale, bands=(), fill=float("nan"), **common)
    return zarr_store.scaled_tile(tile, scales, together=together), timed


# --- GeoTIFF ----------------------------------------------------------------------------------------------------


def _geotiff_facts(name: str) -> dict[str, Any] | None:
    """What to_cog wrote into the tag of its own; None for other files."""
    text = read_info(name).tags.get(OWN_TAG)
    if text is None:
        return None
    try:
        facts = json.loads(text)
    except json.JSONDecodeError as error:
        raise SourceError(f"{name} has a tag {OWN_TAG!r} that is not JSON ({error})") from error
    return facts if isinstance(facts, dict) else None


def _product_of_geotiff(name: str) -> Product | None:
    facts = _geotiff_facts(name)
    if facts is not None:
        return product_of_facts(facts["product"], name) if facts.get("product") else None
    described = read_info(name).descriptions
    fitting = [p for p in registered() if described == p.bands and not described[0].isdigit()]
    return fitting[0] if len(fitting) == 1 else None


def _read_geotiff(name: str, request: Request) -> xr.DataArray:
    facts = _geotiff_facts(name)
    if facts is None:
        raise SourceError(f"{name} was not written by to_cog; say what it holds: gx.open(product, {name!r})")
    if facts.get("product"):
        product_of_facts(facts["product"], name)
    opened, labels, box, age = _raster(name)
    # a file in another CRS than it says was warped since it was written
    if facts.get("crs") and geometry.same_crs(facts["crs"], box.crs):
        box = geometry.make_geobox(tuple(box.shape), box.affine, facts["crs"])
    array = opened.assign_coords(geometry.grid_coords(box))
    dim = facts.get("dim")
    if dim is None:
        array = array.isel(band=0)
    else:
        array = array.rename({BAND: dim}) if dim != BAND else array
        array = array.assign_coords({dim: list(labels) if labels is not None else range(array.sizes[dim])})
    if facts.get("time"):
        array = array.assign_coords(time=np.datetime64(facts["time"], "ns"))
    array = cut(array, request, name, age)
    array = array.rename(facts.get("name")).drop_attrs(deep=False)
    return without_gap(xarray_files.with_nodata(array.assign_attrs(facts.get("attrs") or {})))


def _raster(name: str) -> tuple[xr.DataArray, Any, Any, str]:
    """A GeoTIFF, lazily, with the names of its bands, its grid, and what changes when it is rewritten."""
    info = read_info(name)
    values = xr.DataArray(lazy_raster(info), dims=("band", "y", "x"))
    return values, (info.descriptions if any(info.descriptions) else None), info.geobox, info.token


# --- GeoParquet -------------------------------------------------------------------------------------------------


def _footer(name: str) -> dict[str, Any] | None:
    """Our part of the ``emb`` key of a Parquet footer; None for other files."""
    with reading_parquet(name):
        raw = (open_file(_file(name)).schema_arrow.metadata or {}).get(b"emb")
    try:
        facts = json.loads(raw or b"{}")
    except ValueError as error:
        raise SourceError(f"{name}: the footer key 'emb' is not JSON ({error})") from error
    own = facts.get(OWN_TAG) if isinstance(facts, dict) else None
    return own if isinstance(own, dict) else None


def _product_of_parquet(name: str) -> Product | None:
    facts = _footer(name)
    return product_of_facts(facts["product"], name) if facts is not None and facts.get("product") else None


def _read_parquet(name: str, request: Request) -> xr.DataArray:
    """Rows of a file of ours: index, places and riding columns now, vectors by blocks of a row group each."""
    facts = _footer(name)
    if facts is None:
        raise SourceError(
            f"{name} was not written by to_geoparquet; say what it holds: gx.open(product, {name!r})"
        )
    if facts.get("product"):
        product_of_facts(facts["product"], name)
    require("pyarrow.parquet", "vector")
    with reading_parquet(name), naming_damage(name):
        return _rows_of(name, facts, request)


def _rows_of(name: str, facts: Mapping[str, Any], request: Request) -> xr.DataArray:
    listed = _file(name)
    file = _parquet(listed)
    crs = json.loads(file.schema_arrow.metadata[b"geo"])["columns"]["geometry"]["crs"]
    skipped = {facts["column"], "bbox"}
    table = file.read([n for n in file.schema_arrow.names if n not in skipped])
    beside = table.to_pandas()
    for column, kind in (facts.get("column_kinds") or {}).items():
        beside[column] = pd.Series(columns.from_arrow(table[column], kind), beside.index, dtype=object)
    kept = np.ones(len(beside), bool)
    if request.area is not None:
        kept = places_inside(beside["x"].to_numpy(), beside["y"].to_numpy(), request.area, json.dumps(crs))
    if not kept.any():
        raise CoverageError(f"{name} has no location in {request.area}")
    array = xr.DataArray(
        _lazy_column(listed, file, facts, kept), dims=_parquet_dims(facts), name=facts["name"]
    )
    array = array.assign_coords(_beside_coords(beside[kept], facts, crs))
    if facts.get("time"):
        array = array.assign_coords(time=np.datetime64(facts["time"], "ns"))
        if request.time is not None:
            times.pick_times(np.atleast_1d(array.coords["time"].values), request.time, covers=name)
    return xarray_files.with_nodata(array.assign_attrs(facts.get("attrs") or {}))


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


def _lazy_column(listed: File, file: Any, facts: Mapping[str, Any], kept: np.ndarray) -> Any:
    """The column of values, a dask block per row group that holds rows that were asked for."""
    column, width = facts["column"], len(facts.get("labels") or [])
    kind = file.schema_arrow.field(column).type
    dtype = np.dtype((kind.value_type if width else kind).to_pandas_dtype())
    edges = np.cumsum([0, *(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))])
    places = [file.metadata.row_group(0).column(i).path_in_schema for i in range(file.metadata.num_columns)]
    place = next(i for i, path in enumerate(places) if path.partition(".")[0] == column)
    groups = []
    for number, (start, stop) in enumerate(pairwise(edges.tolist())):
        rows = np.flatnonzero(kept[start:stop])
        if rows.size:
            size = int(file.metadata.row_group(number).column(place).total_compressed_size)
            groups.append(_OwnRows(listed, number, column, rows, width, dtype, stop - start, size))
    return blocks_of(groups, "rows", dtype, {"b": width} if width else {})


@dataclass(frozen=True, eq=False)
class _OwnRows:
    """Rows of a row group of a file of ours, which is read whole."""

    file: File
    number: int
    column: str
    rows: np.ndarray
    width: int  # of a vector; 0 of a map
    dtype: np.dtype[Any]
    held: int  # rows of all of it
    stored: int  # bytes of its column, compressed

    def __len__(self) -> int:
        return self.rows.size

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self.file.url, self.file.token, self.number, self.column, self.rows.tobytes()

    @property
    def window(self) -> tuple[slice, ...]:
        """Its rows, and all of a vector."""
        return slice(0, len(self)), slice(0, max(self.width, 1))

    @property
    def beside(self) -> int:
        """Bytes that reading holds beside the rows."""
        return self.stored + self.held * max(self.width, 1) * self.dtype.itemsize

    def transfer(self, windows: Sequence[tuple[slice, ...]]) -> tuple[int, int]:
        """Requests and bytes with which it is read."""
        return 1, self.stored

    def read(self) -> np.ndarray:
        """The rows."""
        with reading_parquet(self.file.url):
            found = _parquet(self.file).read_row_group(self.number, columns=[self.column])[self.column]
        chunk = found.combine_chunks()
        if self.width:
            values = chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.width)
        else:
            values = chunk.to_numpy(zero_copy_only=False)
        return np.asarray(values if len(self) == len(values) else values[self.rows])


def _file(name: str) -> File:
    """A file with what changes when it is rewritten, which makes that another task."""
    return list_files(name)[0] if "://" in name else File(name, os.path.getsize(name), file_token(name))


def _parquet(file: File) -> Any:
    require("pyarrow.parquet", "vector")
    return open_file(file, page_checksum_verification=True)


_PRODUCTS = {
    "zarr": _product_of_zarr,
    "netcdf": xarray_files.product_of_netcdf,
    "tif": _product_of_geotiff,
    "parquet": _product_of_parquet,
}
_READERS = {
    "zarr": _read_zarr,
    "netcdf": xarray_files.read_netcdf,
    "tif": _read_geotiff,
    "parquet": _read_parquet,
}
