"""Copernicus-Embed-025deg: one vector per cell of 0.25°, as a GeoTIFF or as the NumPy archive it was made from."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from affine import Affine

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.model import Product
from geoemb_xr.core.notes import say
from geoemb_xr.examples.copernicus_embed import example_copernicus_embed
from geoemb_xr.readers import geotiff, npy
from geoemb_xr.readers.tiles import Reader, Request, Tile
from geoemb_xr.stores import paths

NAME = "copernicus-embed"
DIMS = 768
YEAR = "2021-01-01"
ARRAY = "arr_0"


def open_copernicus_embed(source: Any, request: Request) -> list[Tile]:
    """The one raster of the globe."""
    if source is None:
        raise paths.must_be_fetched(
            NAME, "embed_map_310k.tif (0.7 GB)", "Hugging Face, dataset torchgeo/copernicus_embed"
        )
    files = paths.expand(source, (".tif", ".tiff", ".npz"))
    return [_npz_tile(name) if name.endswith(".npz") else _geotiff_tile(name) for name in files]


@dataclass(frozen=True)
class ZeroIsMissing:
    """Reads windows of a raster whose empty cells hold zeros in every band, as NaN."""

    reader: Reader

    def read(self, time: int, rows: slice, cols: slice) -> np.ndarray:
        """A window (band, y, x)."""
        values = np.array(self.reader.read(time, rows, cols), np.float32)
        values[:, (values == 0).all(axis=0)] = np.nan
        return values


def _geotiff_tile(name: str) -> Tile:
    info = geotiff.read_info(name)
    numbers = geotiff.check_bands(info, NAME, PRODUCT.bands, ("float32",))
    version = info.tags.get("GEOEMB_VERSION", PRODUCT.versions[0])
    tile = geotiff.geotiff_tile(info, times=(YEAR,), bands=PRODUCT.bands, indexes=numbers, version=version)
    return replace(tile, reader=ZeroIsMissing(tile.reader))


def _npz_tile(name: str) -> Tile:
    """The archive, which has no place of its own: taken as the nodes of ERA5's grid, as the GeoTIFF has them."""
    token = geotiff.file_token(name)
    info = npy.read_npz_header(name, ARRAY)
    if len(info.shape) != 3 or info.shape[2] != DIMS:
        raise SourceError(
            f"{name} has shape {info.shape}; a file of {NAME!r} has (latitude, longitude, {DIMS})"
        )
    rows, cols, _ = info.shape
    step = 360 / cols
    if rows != round(180 / step) + 1:
        raise SourceError(f"{name} has {rows} × {cols} cells, which is not a grid of nodes from pole to pole")
    say(
        f"copernicus-embed: {os.path.basename(name)} does not say where its cells lie; taken as nodes, with the "
        "first column's centre at −180° (as in the GeoTIFF). Another reader takes its left edge as −180°: half a "
        "cell further east"
    )
    affine = Affine(step, 0, -180 - step / 2, 0, -step, 90 + step / 2)
    return Tile(
        name=name,
        geobox=geometry.make_geobox((rows, cols), affine, geometry.LONLAT),
        times=(YEAR,),
        reader=ZeroIsMissing(npy.NpzReader(name, ARRAY, info, token)),
        dtype="float32",
        bands=PRODUCT.bands,
        block=(64, cols),
        fill=float("nan"),
        token=token,
        version=paths.sidecar_version(name) or PRODUCT.versions[0],
    )


PRODUCT = Product(
    NAME,
    dims=DIMS,
    title="Copernicus-Embed-025deg",
    kind="patch",
    dtype="float32",
    resolution=27_830.0,
    extent="Global",
    period="2021",
    cadence="Annual",
    survey="Copernicus-Embed | Patch | Global | 0.25° | 2021 | Annual | 768 | float32 | CC-BY-4.0",
    model="Copernicus-FM",
    encoder="Vision transformer with dynamic hypernetworks, pooled over a cell's images",
    inputs="Sentinel-1, Sentinel-2, Sentinel-3, Sentinel-5P, Copernicus DEM",
    access="Hugging Face: download one file, then give it",
    containers=("geotiff", "npz"),
    versions=("310k",),
    torchgeo="CopernicusEmbed",
    aliases=("copernicus-embed-025deg", "CopernicusEmbed", "copernicus"),
    citation=(
        "Wang, Y. et al. (2025): Towards a Unified Copernicus Foundation Model for Earth Vision. arXiv:2503.11849"
    ),
    bibtex=(
        "@article{wang2025copernicusfm,\n"
        "  title = {Towards a Unified Copernicus Foundation Model for Earth Vision},\n"
        "  author = {Wang, Yi and others},\n  journal = {arXiv preprint arXiv:2503.11849},\n  year = {2025}\n}"
    ),
    doi="10.48550/arXiv.2503.11849",
    licence="CC-BY-4.0",
    licence_notes="Data CC BY 4.0, code Apache-2.0.",
    attribution="Copernicus-Embed-025deg, Wang et al. 2025 (CC BY 4.0).",
    quirks=(
        "A cell's centre, not its corner, lies on a multiple of 0.25°, from −180° and the poles.",
        "A vector of zeros is an empty cell (ocean); the files declare no nodata.",
        "The .npz does not say where it lies: readers differ by half a cell.",
        "A vector stands for some 28 km: too coarse for fields.",
    ),
    open=open_copernicus_embed,
    example=example_copernicus_embed,
)
