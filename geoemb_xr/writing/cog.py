"""Cloud-optimised GeoTIFFs of maps, pictures and embeddings."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Hashable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import xarray as xr

from geoemb_xr.core import arrays, geometry
from geoemb_xr.core.citing import OWN_TAG, product_facts, provenance
from geoemb_xr.core.conventions import as_json
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.legend import Legend, is_class_map, legend_of
from geoemb_xr.core.missing import fill_of, filled
from geoemb_xr.core.model import check_embedding, is_encoded, kind_of
from geoemb_xr.core.times import with_dates
from geoemb_xr.execution.threads import threads_of_gdal
from geoemb_xr.stores.checksums import append_checksums
from geoemb_xr.stores.storage import reaches_objects
from geoemb_xr.writing import overviews as pyramids
from geoemb_xr.writing.locking import only_writer
from geoemb_xr.writing.objects import object_target, put_files
from geoemb_xr.writing.staging import (
    Staged,
    check_target,
    discard,
    part_of,
    per_file,
    put_in_place,
    stage,
    template_in,
    windows,
)

Mode = Literal["w-", "w"]
Overviews = Literal["auto", "mean", "mode", "nearest", "none"]

#: Side of a tile of the file, and of the largest overview that needs no further one.
TILE = 512
#: GDAL's block cache while a file is put together, in MB.
_CACHE_MB = 256


@reaches_objects
def to_cog(
    array: xr.DataArray,
    path: str | os.PathLike[str],
    *,
    mode: Mode = "w-",
    encode: bool = False,
    overviews: Overviews = "auto",
    storage: Any = None,
) -> Path | str | list[Path | str]:
    """Write a raster to a cloud-optimised GeoTIFF. Computes, block by block, with a progress bar.

    Finished blocks wait in ``path.part``: what was interrupted leaves no file that looks whole, and the same
    call again goes on where it stopped. Class maps get their colours (also as a ``.qml`` file beside them, for
    QGIS), tags carry attribution, licence and product key.

    Parameters
    ----------
    array : DataArray (time?, band or component or category or rgb?, y, x)
        An embedding, a map, a class map or a picture.
    path : path or URL
        The file, also in an object store, or a template such as ``"{name}_{time:%Y}.tif"``, which more than one
        time needs.
    mode : {"w-", "w"}
        Refuse where the file exists, or replace it.
    encode : bool
        Write an embedding as its product's codes: a quarter of the bytes or less.
    overviews : {"auto", "mean", "mode", "nearest", "none"}
        Way in which overviews are made of base pixels. ``"auto"`` is mode for class maps, mean for numbers (of
        decoded vectors, brought to unit length where the product's are) and nearest for pictures.
    storage : obstore store or dict, optional
        Options that reach an object store, as in :func:`geoemb_xr.open`. The file is made on this machine first.

    Returns
    -------
    Path, or str for a URL; or a list
        A list where ``path`` is a template.

    Raises
    ------
    EmbeddingError
        If the array is not a raster, or its codes need per-pixel scales.
    FileExistsError
        If the file is there and ``mode`` does not say to replace it.
    ValueError
        If there is more than one time and no template, or the path has the ending of another format.

    Examples
    --------
    >>> import geoemb_xr as gx, tempfile, rasterio
    >>> truth = gx.testing.scene().truth(gx.testing.geobox((64, 64)), 2018)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = gx.to_cog(truth, f"{folder}/cover.tif")
    ...     with rasterio.open(path) as file:
    ...         file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"], file.nodata, file.colormap(1)[1]
    ('COG', 0.0, (61, 126, 166, 255))
    """
    check_choice("overviews", overviews, ("auto", "mean", "mode", "nearest", "none"))
    _check_ending(os.fspath(path))
    array = _as_written(array, encode)
    if (url := object_target(path)) is not None:
        return put_files(array, url, mode, lambda here: to_cog(array, here, overviews=overviews))
    targets = [(check_target(name, mode), each) for name, each in per_file(array, os.fspath(path))]
    written: list[Path | str] = [_write(each, target, overviews) for target, each in targets]
    return written if "{" in template_in(os.fspath(path))[1] else written[0]


def _check_ending(path: str) -> None:
    """Raise for an ending that says another format: a name may have none, or end in a number."""
    ending = os.path.splitext(path)[1]
    if re.fullmatch(r"\.[A-Za-z]\w*", ending) and ending.lower() not in (".tif", ".tiff", ".gtiff"):
        raise ValueError(
            f"to_cog writes a GeoTIFF, and {path!r} ends in {ending}: end it in .tif; a picture to look at is "
            "written by .emb.plot().figure.savefig(…)"
        )


def to_cog_each(
    arrays: Mapping[str, xr.DataArray], path: str | os.PathLike[str], **options: Any
) -> list[Path | str]:
    """Write one GeoTIFF per array, named by the template ``path``; nothing is computed before all fit.

    Raises
    ------
    ValueError
        If there is more than one array, and no ``{name}`` in the path.
    """
    if len(arrays) > 1 and "{name" not in os.fspath(path):
        stem, suffix = os.path.splitext(os.fspath(path))
        raise ValueError(
            f"a file holds one variable, got {list(arrays)}: give a template such as '{stem}_{{name}}{suffix}'"
        )
    named = [array.rename(name) for name, array in arrays.items()]
    for array in named:
        for target, _ in per_file(_as_written(array, options["encode"]), os.fspath(path)):
            if "://" not in target:  # to_cog looks whether an object exists
                check_target(target, options["mode"])
    written = [to_cog(array, path, **options) for array in named]
    return [each for made in written for each in (made if isinstance(made, list) else [made])]


def _as_written(array: xr.DataArray, encode: bool) -> xr.DataArray:
    """North-up, in the layout and dtype of the file, nothing computed."""
    geometry.geobox_of(array, "to_cog")
    array = with_dates(array)
    others = [dim for dim in array.dims if dim not in ("time", "y", "x")]
    if len(others) > 1:
        raise EmbeddingError(f"to_cog takes one dimension beside time, y and x; got {others}")
    if kind_of(array) == "raster":
        found = check_embedding(array, "to_cog")
        if encode:
            array = arrays.encode(array)
        if is_encoded(array) and arrays.codec_of(array).scale is not None:
            raise EmbeddingError(
                f"codes of {found.name!r} need a scale for each pixel, which a GeoTIFF has no place for: "
                "decode first (.emb.decode()), or write them with to_zarr(…)"
            )
    elif encode:
        raise EmbeddingError("encode=True is for embeddings; this is a map, which is written as it is")
    if array.dtype.kind not in "buif":
        raise EmbeddingError(f"to_cog cannot write {array.dtype}; class maps are integers with a legend")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)  # GDAL knows no other, netCDF 3 has one
    if array.dtype in (np.bool_, np.float16):
        array = array.astype(np.uint8 if array.dtype == np.bool_ else np.float32)
    order: list[Hashable] = [*(["time"] if "time" in array.dims else []), *others, "y", "x"]
    return geometry.north_up_array(array.transpose(*order))


# --- one file ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Picture:
    """The content of a file besides its pixels."""

    array: xr.DataArray
    layers: tuple[str, ...]
    nodata: float | None
    legend: Legend | None
    overviews: str
    pyramid: pyramids.Pyramid

    @property
    def shape(self) -> tuple[int, int]:
        return self.array.sizes["y"], self.array.sizes["x"]

    @property
    def levels(self) -> int:
        """How many overviews: until one fits in a tile, at most as many as a tile has halvings."""
        if self.overviews == "none":
            return 0
        longest, levels = max(self.shape), 0
        while pyramids.halved(longest, levels) > TILE and 2**levels < TILE:
            levels += 1
        return levels


def _picture(array: xr.DataArray, overviews: Overviews) -> _Picture:
    layer = array.dims[0] if array.ndim == 3 else None
    labels = array.coords[layer].values if layer in array.coords else range(array.sizes.get(layer, 1))
    legend = legend_of(array) if is_class_map(array) and layer is None else None
    embedding = kind_of(array) == "raster"
    codec = arrays.codec_of(array) if embedding and is_encoded(array) else None
    crs = geometry.crs_of(array)
    if crs is not None and crs.type_name == "Derived Projected CRS":
        raise EmbeddingError(
            f"a GeoTIFF cannot say the CRS {crs.name!r} of a rotated raster: put it on a north-up grid first "
            "(.emb.reproject), or write it with to_zarr"
        )
    floats = array.dtype.kind == "f"
    nodata: float | None = float("nan") if floats else None
    if codec is not None:
        nodata = codec.nodata
    elif floats and not embedding:
        array = filled(array, np.nan)
    elif not floats:
        nodata = fill_of(array)
        nodata = 0 if nodata is None and legend is not None else nodata
    how: str = overviews
    if overviews == "auto":
        how = "mode" if legend is not None else "mean" if floats or codec is not None else "nearest"
    if how == "mean" and not floats and codec is None:
        raise EmbeddingError(f"overviews='mean' is for numbers; these are {array.dtype} classes or colours")
    found = check_embedding(array, "to_cog") if embedding else None
    mean = pyramids.Mean(codec, vectors=embedding, unit_norm=found is not None and found.unit_norm)
    return _Picture(array, tuple(map(str, labels)), nodata, legend, how, _pyramid(how, mean, nodata))


def _pyramid(how: str, mean: pyramids.Pyramid, nodata: float | None) -> pyramids.Pyramid:
    if how == "mean":
        return mean
    return (
        partial(pyramids.commonest_class, nodata=int(nodata or 0))
        if how == "mode"
        else pyramids.middle_pixels
    )


def _write(array: xr.DataArray, target: Path, overviews: Overviews) -> Path:
    picture = _picture(array, overviews)
    part = part_of(target)
    with only_writer(target):
        is_new = not part.exists()
        part.mkdir(exist_ok=True)
        staged = stage(picture.array, part / "blocks.zarr")
        try:
            _assemble(staged, picture, part)
            _finish(picture, part, target)
        except BaseException:
            if is_new and isinstance(staged.array, np.ndarray):  # the next call could take nothing of it
                discard(part, "blocks.zarr")
            raise
    return target


def _assemble(staged: Staged, picture: _Picture, part: Path) -> None:
    """From blocks to one plain GeoTIFF per level.

    Level k + 1 is the external overview (``.ovr``) of level k, where GDAL finds it: so every level is written
    window by window, with pixels of our own making.
    """
    import rasterio

    affine, crs = geometry.geobox_of(picture.array).affine, geometry.crs_of(picture.array)
    assert crs is not None
    side = TILE if len(picture.layers) > 4 else 4 * TILE
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=_CACHE_MB))
        levels = []
        for k in range(picture.levels + 1):
            height, width = (pyramids.halved(n, k) for n in picture.shape)
            profile = {
                "driver": "GTiff", "width": width, "height": height, "count": len(picture.layers),
                "dtype": str(picture.array.dtype), "crs": crs.to_wkt(), "nodata": picture.nodata,
                "transform": affine * affine.scale(2**k), "tiled": True, "blockxsize": TILE,
                "blockysize": TILE, "interleave": "band", "bigtiff": "yes", **_colours(picture),
            }  # fmt: skip
            name = part / ("levels.tif" + k * ".ovr")
            levels.append(stack.enter_context(rasterio.open(name, "w", **profile)))
        _describe(levels[0], picture)
        for rows, cols in windows(picture.shape, side):
            block = _read(staged, rows, cols)
            for k, pixels in enumerate([block, *picture.pyramid(block, picture.levels)]):
                where = (
                    (rows.start >> k, pyramids.halved(rows.stop, k)),
                    (cols.start >> k, pyramids.halved(cols.stop, k)),
                )
                levels[k].write(pixels, window=where)


def _read(staged: Staged, rows: slice, cols: slice) -> np.ndarray:
    if staged.array.ndim == 2:
        return staged.read(rows, cols)[None]
    return staged.read(slice(0, staged.array.shape[0]), rows, cols)


def _colours(picture: _Picture) -> dict[str, str]:
    if "rgb" not in picture.array.dims:
        return {}
    return {"photometric": "RGB", **({"alpha": "yes"} if len(picture.layers) == 4 else {})}


def _describe(file: Any, picture: _Picture) -> None:
    """Tags, layer names and colours."""
    array = picture.array
    if array.ndim == 3:
        file.descriptions = picture.layers
    else:
        names = (array.name, array.attrs.get("long_name"), None if picture.legend is None else "classes")
        file.descriptions = (next((str(name) for name in names if name is not None), None),)
    tags = provenance(array)
    # what a reader of ours needs to give the array back as it was
    own = {"name": array.name, "dim": array.dims[0] if array.ndim == 3 else None, "attrs": array.attrs}
    crs = geometry.crs_of(array)
    if crs is not None:  # GeoTIFF keys lose which realisation of a datum was meant
        own["crs"] = crs.to_wkt()
    if "time" in array.coords:
        own["time"] = tags["time"] = str(np.datetime_as_string(array.coords["time"].values, unit="auto"))
    if kind_of(array) == "raster":
        own["product"] = product_facts(check_embedding(array, "to_cog"))
    tags[OWN_TAG] = json.dumps(as_json(own))
    if picture.legend is not None:
        tags |= {key: _text(value) for key, value in picture.legend.attrs().items()}
        file.write_colormap(1, {code: tuple(c) for code, c in enumerate(picture.legend.rgba().tolist())})
    file.update_tags(**tags)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _finish(picture: _Picture, part: Path, target: Path) -> None:
    """From plain levels to one cloud-optimised file, and then to its name."""
    import rasterio
    from rasterio.shutil import copy

    temporary = part / "whole.tif"
    temporary.unlink(missing_ok=True)
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
        copy(part / "levels.tif", temporary, **_cog_options(picture))
    append_checksums(temporary, _header_size(temporary))
    if picture.legend is not None:
        style = part / "style.qml"
        style.write_text(_qml(picture.legend), encoding="utf-8")
        put_in_place(style, target.with_suffix(".qml"))
    put_in_place(temporary, target)
    discard(part, "blocks.zarr")


def _header_size(path: Path) -> int:
    """Bytes before the first block, of overviews too."""
    import rasterio

    with rasterio.open(path, driver="GTiff") as dataset:
        levels = (None, *range(len(dataset.overviews(1))))
        starts = [dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1, ovr=level) for level in levels]
    return min((int(each) for each in starts if each is not None), default=path.stat().st_size)


def _cog_options(picture: _Picture) -> dict[str, str]:
    """Creation options: tile-interleaved for many layers, so that a pixel's vector lies together."""
    import rasterio

    many = len(picture.layers) > 4
    options = {
        "compress": "ZSTD" if many else "DEFLATE",
        "num_threads": str(threads_of_gdal("ALL_CPUS")),
        "bigtiff": "IF_SAFER",
    }
    gdal = tuple(int(number) for number in rasterio.__gdal_version__.split(".")[:2])
    if gdal < (3, 11):  # whose COG driver interleaves by pixel only: a GeoTIFF in the same order of parts
        predictor = "3" if picture.array.dtype.kind == "f" else "2"
        return options | {
            "driver": "GTiff", "tiled": "YES", "blockxsize": str(TILE), "blockysize": str(TILE),
            "interleave": "BAND" if many else "PIXEL", "copy_src_overviews": "YES",
            "predictor": predictor if picture.legend is None else "1",
        }  # fmt: skip
    return options | {
        "driver": "COG",
        "level": "3" if many else "6",
        "blocksize": str(TILE),
        "interleave": "TILE" if many else "PIXEL",
        "overviews": "FORCE_USE_EXISTING" if picture.levels else "NONE",
        "predictor": "NO" if picture.legend is not None else "YES",
    }


def _qml(legend: Legend) -> str:
    """A QGIS style: a colour and a name for each class."""
    root = ElementTree.Element("qgis", version="3.28", styleCategories="Symbology")
    renderer = ElementTree.SubElement(
        ElementTree.SubElement(root, "pipe"),
        "rasterrenderer",
        {"type": "paletted", "band": "1", "opacity": "1", "alphaBand": "-1"},
    )
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for value, name, colour in zip(legend.values, legend.names, legend.colours, strict=True):
        entry = {"value": str(value), "label": name, "color": colour[:7], "alpha": "255"}
        ElementTree.SubElement(palette, "paletteEntry", entry)
    ElementTree.indent(root)
    doctype = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return doctype + ElementTree.tostring(root, encoding="unicode") + "\n"
