"""AlphaEarth Foundations, published by Google as Satellite Embedding V1.

Three containers: the COG tiles in native UTM (first-hand), a Zarr mosaic in degrees (third-party), and already
decoded GeoTIFFs (Earth Engine exports, Major TOM cells).
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affine import Affine

from geoemb_xr.core import geometry
from geoemb_xr.core.codecs import OFFSET_16, SIGNED_SQUARE
from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.model import Product
from geoemb_xr.core.notes import say
from geoemb_xr.examples.alphaearth import example_alphaearth
from geoemb_xr.execution.threads import side_by_side
from geoemb_xr.readers import geotiff, zarr_nodes
from geoemb_xr.readers import zarr as zarr_store
from geoemb_xr.readers.damage import naming_damage
from geoemb_xr.readers.tiles import Request, Tile, overlapping, table_of
from geoemb_xr.stores import index, paths

if TYPE_CHECKING:
    import pandas as pd

NAME = "alphaearth"
BANDS = tuple(f"A{i:02d}" for i in range(64))
COG = "s3://us-west-2.opendata.source.coop/tge-labs/aef/v1/annual"
MOSAIC = "s3://us-west-2.opendata.source.coop/tge-labs/aef-mosaic"
INDEX = "aef_index.parquet"
_TIFF = (".tif", ".tiff")
_STORED_BLOCK = (1024, 1024)
#: Published tiles have 8,192 pixels a side.
_LARGEST_TILE = 1 << 16
_ZONE = re.compile(r"EPSG:32[67](0[1-9]|[1-5]\d|60)")


def open_alphaearth(source: Any, request: Request) -> list[Tile]:
    """Tiles of the published COGs, of the mosaic, or of local files."""
    if source in (None, "cog"):
        return _published_tiles(request)
    if isinstance(source, str) and source == "mosaic":
        source = MOSAIC
    if isinstance(source, (str, os.PathLike)) and _is_zarr(os.fspath(source)):
        return [_mosaic_tile(os.fspath(source))]
    files = _indexed_files(source, request) or paths.expand(source, _TIFF)
    return _one_encoding(side_by_side(partial(_file_tile, request), files))


def _is_zarr(name: str) -> bool:
    return name.rstrip("/") == MOSAIC or zarr_nodes.is_store(name)


# --- COG tiles ----------------------------------------------------------------------------------------------


def _published_tiles(request: Request) -> list[Tile]:
    """Tiles of the published store, from its index alone: no file is touched before it is computed."""
    rows = _index_rows(f"{COG}/{INDEX}", request)
    return [_tile_of_row(row, str(rows.attrs["state"])) for row in rows.itertuples()]


def _index_rows(url: str, request: Request) -> pd.DataFrame:
    columns = ["path", "year", "crs", "utm_zone", "utm_west", "utm_south", "utm_east", "utm_north"]
    return index.read_index(
        url,
        columns=columns,
        area=request.area,
        bbox=("wgs84_west", "wgs84_south", "wgs84_east", "wgs84_north"),
        time=request.time,
        year="year",
    )


def _tile_of_row(row: Any, state: str) -> Tile:
    """A published tile: 8192², 64 bands, south-up, its place by its row in the index, which is not trusted."""
    url = paths.below(COG, row.path)
    sides = [(row.utm_east - row.utm_west) / 10, (row.utm_north - row.utm_south) / 10]
    if not all(0 < side <= _LARGEST_TILE for side in sides) or not _ZONE.fullmatch(str(row.crs)):
        raise SourceError(
            f"the index of {NAME!r} places {url} at {sides[0]} × {sides[1]} pixels in {row.crs!r}, which is no "
            "tile of it; fetch the index again"
        )
    affine = Affine(10, 0, row.utm_west, 0, 10, row.utm_south)
    token = f"index {state}"  # a tile is not looked at before it is read
    return Tile(
        name=url,
        geobox=geometry.make_geobox((round(sides[1]), round(sides[0])), affine, row.crs),
        times=(f"{int(row.year):04d}-01-01",),
        reader=geotiff.GeoTiffReader(url, tuple(range(1, 65)), token=token),
        dtype="int8",
        bands=BANDS,
        block=_STORED_BLOCK,
        fill=-128,
        token=token,
        version="v1",
        overviews_are_means=True,
    )


def _indexed_files(source: Any, request: Request) -> list[str]:
    """Files of a local copy of the store that its own index finds; none where it has no index."""
    if not isinstance(source, (str, os.PathLike)) or not (Path(source) / INDEX).exists():
        return []
    rows = _index_rows(str(Path(source) / INDEX), request)
    return [_copied(source, str(path)) for path in rows["path"]]


def _copied(root: str | os.PathLike[str], published: str) -> str:
    """A file of a local copy: it keeps the tail of its published path, from the year or from ``annual`` on."""
    parts = published.replace("\\", "/").split("/")
    places = [paths.inside(root, "/".join(parts[-kept:])) for kept in (3, 4)]
    return str(next((place for place in places if place.exists()), places[0]))


def _file_tile(request: Request, name: str) -> Tile:
    info = geotiff.read_info(name)
    numbers = geotiff.check_bands(info, NAME, BANDS, ("int8", "float32", "float64"))
    codes = info.dtype == "int8"
    tile = geotiff.geotiff_tile(
        info,
        times=(f"{paths.year_of_file(name, PRODUCT.period, request.time):04d}-01-01",),
        bands=BANDS,
        indexes=numbers,
        dtype="int8" if codes else "float32",
        fill=-128 if codes else float("nan"),
        version=info.tags.get("GEOEMB_VERSION", "v1"),
        vectors_of=NAME,
    )
    # of what is published, which is codes: exports may be averaged in any way
    return replace(tile, overviews_are_means=codes)


def _one_encoding(tiles: list[Tile]) -> list[Tile]:
    if len({tile.dtype for tile in tiles}) > 1:
        some = {tile.dtype: tile.name for tile in tiles}
        raise SourceError(f"codes and decoded vectors in one source: {some}; open them apart")
    return tiles


# --- the mosaic ---------------------------------------------------------------------------------------------


def _mosaic_tile(url: str) -> Tile:
    """The Zarr mosaic; both builds: attributes on the root or on the array, ``band`` or ``embedding``."""
    if url.rstrip("/") == MOSAIC:
        say(
            "source='mosaic' is a third party's copy of AlphaEarth, resampled to EPSG:4326 (nearest), with codes "
            "averaged where tiles overlap; source='cog' is first-hand. For a small window the mosaic is cheaper."
        )
    with naming_damage(url):
        return _tile_of_mosaic(url)


def _tile_of_mosaic(url: str) -> Tile:
    token = zarr_nodes.store_token(url)
    root = zarr_nodes.open_node(url, "", token)
    if "embeddings" not in root:
        raise SourceError(f"{url} has no array 'embeddings'; it has {sorted(root.keys())}")
    array = root["embeddings"]
    attrs = zarr_store.find_attrs(root, array)
    length = array.shape[zarr_store.axes_of(array, url).index("time")]
    version = attrs.get("geoemb:build_version")
    tile = zarr_store.zarr_tile(
        url,
        "embeddings",
        bands=BANDS,
        attrs=attrs,
        times=zarr_store.years_of(root, length, url),
        fill=-128,
        version="synthetic" if version == "synthetic" else "v1",
        token=token,
        labels=zarr_store.labels_of(root, array),
    )
    return replace(tile, store="mosaic")


# --- coverage and examples ----------------------------------------------------------------------------------


def coverage_alphaearth(source: Any, request: Request) -> pd.DataFrame:
    """Tiles × years of the published store, or of files of your own."""
    if source is None:
        rows = _index_rows(f"{COG}/{INDEX}", request)
        return rows.assign(bytes=1.1e9).rename(columns={"path": "url"}).reset_index(drop=True)
    return table_of(overlapping(open_alphaearth(source, request), request.area), request.time)


PRODUCT = Product(
    NAME,
    dims=64,
    title="AlphaEarth Foundations (Google Satellite Embedding V1)",
    kind="pixel",
    bands=BANDS,
    dtype="int8",
    codec=SIGNED_SQUARE,
    other_codecs=(OFFSET_16,),
    unit_norm=True,
    resolution=10.0,
    extent="Global land and shallow water",
    period="2017–2025",
    cadence="Annual",
    survey=(
        "Google Satellite Embedding | Pixel | Global | 10 m | 2017–2025 | Annual | "
        "64 | int8→float64 | CC-BY-4.0"
    ),
    model="AlphaEarth Foundations",
    encoder="Space Time Precision encoder",
    inputs=(
        "Sentinel-1, Sentinel-2, Landsat; targets in training: PALSAR-2, GEDI, the "
        "elevation model GLO-30, ERA5-Land, GRACE, NLCD and texts"
    ),
    trained_on=(
        "NLCD",
        "GEDI",
        "Copernicus DEM GLO-30",
        "ERA5-Land",
        "GRACE",
        "PALSAR-2",
        "texts of Wikipedia and GBIF",
    ),
    access=(
        "anonymous; COG in the Source Cooperative and, paid by Google since July 2026, in Google Cloud "
        "Storage; Earth Engine with an account"
    ),
    containers=("cog", "zarr", "decoded"),
    stores={"cog": COG, "mosaic": MOSAIC},
    versions=("v1",),
    torchgeo="GoogleSatelliteEmbedding",
    aliases=("aef", "gse", "google-satellite-embedding", "GoogleSatelliteEmbedding", "alpha-earth"),
    citation=(
        "Brown, C. F. et al. (2025): AlphaEarth Foundations: An embedding field model for accurate and efficient "
        "global mapping from sparse label data. arXiv:2507.22291"
    ),
    bibtex=(
        "@article{brown2025alphaearth,\n  title = {AlphaEarth Foundations: An embedding field model for "
        "accurate and efficient global mapping from sparse label data},\n  author = {Brown, Christopher F. "
        "and Kazmierski, Michal R. and Pasquarella, Valerie J. and Rucklidge, William J. and Samsikova, "
        "Masha and Zhang, Chenhui and Shelhamer, Evan and others},\n  journal = {arXiv preprint "
        "arXiv:2507.22291},\n  year = {2025}\n}"
    ),
    doi="10.48550/arXiv.2507.22291",
    licence="CC-BY-4.0",
    attribution=(
        "The AlphaEarth Foundations Satellite Embedding dataset is produced by Google and Google DeepMind."
    ),
    quirks=(
        "COG tiles are south-up; arrays opened here are north-up.",
        "Neighbouring UTM zones overlap.",
        "Two decoded years of an unchanged pixel differ by about 0.9° (1.7° at most) from quantisation alone.",
        "The public Zarr mosaic is a third party's: codes averaged where tiles overlap, x past 180°.",
        "A widespread linear rule (codes / 127) is wrong: vectors come out 2.5 long.",
    ),
    open=open_alphaearth,
    coverage=coverage_alphaearth,
    example=example_alphaearth,
)
