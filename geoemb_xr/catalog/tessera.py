"""TESSERA, published by the University of Cambridge.

Three containers: the Zarr stores with a group for each UTM zone, the older tiles of 0.1° (codes, scales and a
landmask that alone knows the place), and the GeoTIFFs that geotessera exports, which are decoded already.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from geoemb_xr.core import geometry, times
from geoemb_xr.core.codecs import PER_PIXEL_SCALE
from geoemb_xr.core.errors import CoverageError, SourceError
from geoemb_xr.core.model import Product
from geoemb_xr.core.notes import say
from geoemb_xr.examples.tessera import example_tessera
from geoemb_xr.execution.threads import pool, side_by_side
from geoemb_xr.readers import geotiff, npy, utm_zones, zarr_nodes
from geoemb_xr.readers import zarr as zarr_store
from geoemb_xr.readers.damage import naming_damage
from geoemb_xr.readers.tiles import Request, Tile, overlapping, table_of
from geoemb_xr.stores import index, paths
from geoemb_xr.stores.objects import is_remote

if TYPE_CHECKING:
    import pandas as pd

NAME = "tessera"
DIMS = 128
BANDS = tuple(str(i) for i in range(DIMS))
BASE = "s3://us-west-2.opendata.source.coop/tessera/tessera"
ICECHUNK = "s3://tessera-embeddings/v1.1/dclimate.icechunk"


@dataclass(frozen=True)
class _Edition:
    """One run of one model: a space of its own, and where it is published."""

    number: str
    variant: str
    zarr: str
    npy: str = ""


#: By version, the default first. The Zarr folder ``v1.1`` is not the default of 1.1.
EDITIONS: Mapping[str, _Edition] = {
    "v1.1-dclimate": _Edition("1.1", "dclimate", "v1.1-dclimate"),
    "v1.1-cambridge": _Edition("1.1", "cambridge", "v1.1", "v1.1-cam"),
    "v1": _Edition("1.0", "vultr", "v1", "v1"),
    "v2-2B-L~beta1": _Edition("2.0", "2B-L~beta1", "v2-2B-L~beta1", "v2-2B-L~beta1"),
    "v2-2B-L~beta2": _Edition("2.0", "2B-L~beta2", "v2-2B-L~beta2", "v2-2B-L~beta2"),
}
UNKNOWN = "unknown"
_DEFAULT = next(iter(EDITIONS))
_CODES_FOLDER, _MASKS_FOLDER = "global_0.1_degree_representation", "global_0.1_degree_tiff_all"
_TILE_NAME = re.compile(r"grid_(-?\d+\.\d+)_(-?\d+\.\d+)(?:_(\d{4}))?$")


def open_tessera(source: Any, request: Request) -> list[Tile]:
    """Tiles of a Zarr store, of .npy files, or of exported GeoTIFFs."""
    if source in (None, "zarr"):
        version = request.version or _DEFAULT
        return _with_versions_noted(_store_tiles([f"{BASE}/zarr/{EDITIONS[version].zarr}"], request))
    if isinstance(source, str) and source == "npy":
        return _with_versions_noted(_published_npy(request))
    if isinstance(source, str) and source == "icechunk":
        source = ICECHUNK
    if isinstance(source, (str, os.PathLike)) and (stores := _stores_in(os.fspath(source))):
        return _with_versions_noted(_store_tiles(stores, request))
    return _with_versions_noted(_file_tiles(paths.expand(source, (".npy", ".tif", ".tiff")), request))


def _with_versions_noted(tiles: list[Tile]) -> list[Tile]:
    for version in sorted({tile.version for tile in tiles} - {"synthetic"}):
        unknown = " (no metadata tells it; give version= if you know it)" if version == UNKNOWN else ""
        say(
            f"tessera: version {version}{unknown}; vectors of another version or variant are another space "
            f"({', '.join(EDITIONS)})"
        )
    return tiles


# --- versions -----------------------------------------------------------------------------------------------


def _version_of(path: str, request: Request, number: str = "", variant: str = "") -> str:
    """The version that metadata, or else the path, tells; the request's where neither does.

    Parameters
    ----------
    path : str
        File or store; a folder of the published layout names its edition.
    request : Request
        The request, with the version asked for.
    number, variant : str
        Edition and variant in the metadata, such as ``"1.1"`` and ``"cambridge"``.
    """
    if "synthetic" in (number, variant):
        return "synthetic"
    matching = [
        version
        for version, each in EDITIONS.items()
        if number and float(each.number) == float(number) and variant in ("", each.variant)
    ]
    if len(matching) != 1:
        folders = set(PurePosixPath(path.replace("\\", "/")).parts)
        in_npy = path.endswith(".npy")
        named = [v for v, each in EDITIONS.items() if (each.npy if in_npy else each.zarr) in folders]
        matching = [v for v in named if not matching or v in matching] or matching
    if len(matching) == 1:
        return matching[0]
    if request.version is not None and (not matching or request.version in matching):
        return request.version
    return f"v{number}" if matching else UNKNOWN


# --- the Zarr stores ----------------------------------------------------------------------------------------


def _stores_in(name: str) -> list[str]:
    """A store, or a folder of yearly stores (the older layout); none where it is neither."""
    folder = name.rstrip("/")
    if is_remote(folder):
        return [folder] if "/zarr/" in folder or zarr_nodes.is_store(folder) else []
    if zarr_nodes.is_store(folder):
        return [folder]
    return sorted(str(p) for p in Path(folder).glob("*.zarr")) if Path(folder).is_dir() else []


def _store_tiles(stores: Sequence[str], request: Request) -> list[Tile]:
    """A tile for each UTM zone near the area, with the years that were ever written."""
    tiles = [tile for url in stores for tile in _zone_tiles(url, request)]
    if not tiles:
        raise CoverageError(
            f"{NAME} does not cover {request.area} in {', '.join(stores)}: no such UTM zone there"
        )
    _check_written(tiles, request)
    return [tile for tile in tiles if tile.times]


def _zone_tiles(url: str, request: Request) -> list[Tile]:
    with naming_damage(url):
        return _tiles_of_zones(url, request)


def _tiles_of_zones(url: str, request: Request) -> list[Tile]:
    token = zarr_nodes.store_token(url)
    root = zarr_nodes.open_node(url, "", token)
    zones = [name for name in sorted(root.keys()) if utm_zones.ZONE.fullmatch(name)]
    if not zones:
        raise SourceError(f"{url} has no groups utm01 … utm60; it has {sorted(root.keys())[:8]}")
    version = _store_version(url, root, request)
    near = [name for name in zones if utm_zones.is_near(name, request)]
    return [_zone_tile(url, name, root[name], version, token, request) for name in near]


def _store_version(url: str, root: Any, request: Request) -> str:
    attrs = dict(root.attrs)
    if attrs.get("geoemb:build_version") == "synthetic":
        return "synthetic"
    model = str(attrs.get("geoemb:model") or attrs.get("tessera:model_version") or "")
    number = re.search(r"(\d+\.\d+)$", model)
    return _version_of(url, request, number[1] if number else "")


def _zone_tile(url: str, name: str, group: Any, version: str, token: str, request: Request) -> Tile:
    """A zone: codes with their scales, only the years that were ever written."""
    for needed in ("embeddings", "scales"):
        if needed not in group:
            raise SourceError(f"{url}/{name} has no array {needed!r}; it has {sorted(group.keys())}")
    codes, where = group["embeddings"], f"{url}/{name}"
    dims = zarr_store.axes_of(codes, f"{where}/embeddings")
    if codes.dtype != np.int8 or codes.shape[dims.index("band")] != DIMS:
        raise SourceError(
            f"{where}/embeddings holds {codes.shape[dims.index('band')]} bands of {codes.dtype}; a store of "
            f"{NAME!r} holds {DIMS} of int8"
        )
    attrs = _place(zarr_store.find_attrs(codes, group), name, group)

    def years() -> tuple[str, ...]:
        if "time" in dims:
            return zarr_store.years_of(group, codes.shape[dims.index("time")], where)
        return (f"{paths.year_of_file(url, PRODUCT.period, request.time):04d}-01-01",)

    with pool(1) as beside:  # two small objects, of which neither has to wait for the other
        coming = beside.submit(copy_context().run, zarr_store.labels_of, group, codes)
        times, labels = years(), coming.result()
    steps = _written_years(url, name, times, attrs, token) if "time" in dims else (0,)
    common: dict[str, Any] = {
        "attrs": attrs,
        "times": [times[i] for i in steps],
        "steps": steps,
        "version": version,
        "token": token,
    }
    scales = zarr_store.zarr_tile(url, f"{name}/scales", bands=(), fill=float("nan"), **common)
    codes = zarr_store.zarr_tile(url, f"{name}/embeddings", bands=BANDS, labels=labels, fill=0, **common)
    return zarr_store.scaled_tile(codes, scales, together=request.decode)


def _place(attrs: dict[str, Any], name: str, group: Any) -> dict[str, Any]:
    """Attributes that place a zone; stores before the conventions leave it to their name and coordinates."""
    zone = utm_zones.ZONE.fullmatch(name)
    assert zone is not None
    if not any(key in attrs for key in ("proj:code", "proj:wkt2", "proj:projjson", "crs_wkt", "crs")):
        attrs["proj:code"] = f"EPSG:{(32700 if zone[3] == 'S' else 32600) + int(zone[1] or zone[2])}"
    if "spatial:transform" not in attrs and "transform" not in attrs:
        x, y = (group.get(n) if group.get(n) is not None else group.get(m) for n, m in _COORDINATES)
        if x is None or y is None:
            raise SourceError(
                f"{group.name} has neither spatial:transform nor coordinates easting and northing"
            )
        (x0, x1), (y0, y1) = x[:2], y[:2]
        dx, dy = float(x1 - x0), float(y1 - y0)
        attrs["spatial:transform"] = [dx, 0, float(x0) - dx / 2, 0, dy, float(y0) - dy / 2]
    return attrs


_COORDINATES = (("x", "easting"), ("y", "northing"))


def _written_years(
    url: str, name: str, times: Sequence[str], attrs: Mapping[str, Any], token: str
) -> tuple[int, ...]:
    """Positions of the years that a zone has: an unwritten year would read as fill."""
    complete = attrs.get("years_complete")
    if complete is not None:
        return tuple(i for i, time in enumerate(times) if int(time[:4]) in {int(y) for y in complete})
    found = zarr_store.written_steps(url, f"{name}/embeddings", token)
    if found is None:
        say(f"tessera: {url} cannot be listed, so years that a zone was never written for read as missing")
        return tuple(range(len(times)))
    return tuple(i for i in range(len(times)) if i in found)


def _check_written(tiles: Sequence[Tile], request: Request) -> None:
    """Raise, or say, where a zone was never written in a year that was asked for."""
    years: dict[str, set[str]] = {}
    for tile in tiles:
        years.setdefault(_zone_name(tile), set()).update(tile.times)
    have = sorted(set().union(*years.values()))
    if not have:
        raise CoverageError(f"{' and '.join(years)} of this store were never written for any year")
    zones = f"{NAME} {', '.join(years)} as written"
    positions = times.pick_times(np.array(have, "datetime64[ns]"), request.time, covers=zones)
    for zone, own in years.items():
        missing = [have[i][:4] for i in positions if have[i] not in own]
        if missing:
            say(f"tessera: {zone} was never written for {', '.join(missing)}, and is missing there")


def _zone_name(tile: Tile) -> str:
    return tile.name.split("/")[-2]


# --- .npy tiles and exported GeoTIFFs -----------------------------------------------------------------------


@dataclass(frozen=True)
class _NamedTile:
    """A tile of 0.1°, named by its centre."""

    path: str
    lon: float
    lat: float
    year: int

    @property
    def name(self) -> str:
        return f"grid_{self.lon:.2f}_{self.lat:.2f}"

    def is_near(self, request: Request) -> bool:
        """Whether its rectangle in UTM, somewhat larger than its 0.1°, can touch the area."""
        if request.area is None:
            return True
        wide = 0.06 / max(math.cos(math.radians(self.lat)), 0.1)
        return any(
            w < self.lon + wide
            and e > self.lon - wide
            and box[1] < self.lat + 0.06
            and box[3] > self.lat - 0.06
            for box in request.area.lonlat()
            for w, e in utm_zones.turns(box[0], box[2])
        )


def _grid_of(path: str, request: Request) -> _NamedTile | None:
    """Place and year that a path names; None where the file is something else (scales, landmasks)."""
    stem = PurePosixPath(path.replace("\\", "/")).stem
    found = _TILE_NAME.fullmatch(stem)
    if found is None or (not path.endswith(".npy") and found[3] is None):
        return None
    year = int(found[3] or paths.year_of_file(path, PRODUCT.period, request.time))
    return _NamedTile(path, float(found[1]), float(found[2]), year)


def _file_tiles(files: Sequence[str], request: Request) -> list[Tile]:
    grids = [grid for each in files if (grid := _grid_of(each, request)) is not None]
    if not grids:
        raise SourceError(
            f"{files[0]} and {len(files) - 1} more are not tiles of {NAME!r}, which are named "
            "grid_<lon>_<lat>.npy or grid_<lon>_<lat>_<year>.tiff"
        )
    if len({grid.path.endswith(".npy") for grid in grids}) > 1:
        raise SourceError("codes (.npy) and decoded exports (.tiff) in one source; open them apart")
    near = [grid for grid in grids if grid.is_near(request)]
    if not near:
        lon, lat = [g.lon for g in grids], [g.lat for g in grids]
        raise CoverageError(
            f"{NAME} does not cover {request.area} in this source, whose {len(grids)} tiles lie in "
            f"({min(lon) - 0.05:.2f}, {min(lat) - 0.05:.2f}, {max(lon) + 0.05:.2f}, {max(lat) + 0.05:.2f}) degrees"
        )
    if not near[0].path.endswith(".npy"):
        return side_by_side(lambda grid: _export_tile(grid, request), near)
    return _one_kind(side_by_side(lambda grid: _npy_tile(grid, request), near))


def _npy_tile(grid: _NamedTile, request: Request) -> Tile:
    mask = geotiff.read_info(_landmask_of(grid.path, grid.name))
    return _tile_of_npy(grid, mask, _npy_version(grid.path, request))


def _tile_of_npy(grid: _NamedTile, mask: geotiff.GeoTiffInfo, version: str) -> Tile:
    """Codes with their scales on the grid of their landmask, the only file that knows it."""
    scales_path = f"{grid.path.removesuffix('.npy')}_scales.npy"
    if not is_remote(grid.path) and not Path(scales_path).exists():
        raise SourceError(f"{grid.path} has no scales: {scales_path} is missing")
    size = tuple(int(n) for n in mask.geobox.shape)
    codes = _reader(grid.path, (*size, DIMS), "int8")
    scales = _scales_reader(scales_path, size)
    common: dict[str, Any] = {
        "geobox": _on_lattice(mask.geobox),
        "times": (f"{grid.year:04d}-01-01",),
        "block": size,
        "version": version,
    }
    if scales.shape != size:
        # A scale for each band leaves no codes with one scale per pixel: decoded as it is read.
        return Tile(
            grid.path,
            reader=npy.DecodedReader(codes, scales),
            dtype="float32",
            bands=BANDS,
            fill=float("nan"),
            token=codes.token,
            **common,
        )
    plane = Tile(scales_path, reader=scales, dtype="float32", fill=float("nan"), token=scales.token, **common)
    return Tile(
        grid.path,
        reader=codes,
        dtype="int8",
        bands=BANDS,
        token=codes.token,
        decider=plane,
        beside={"scale": plane},
        **common,
    )


def _reader(path: str, shape: tuple[int, ...], dtype: str) -> npy.NpyReader:
    """A reader whose file, where it is local, has been checked by its header."""
    if not is_remote(path):
        npy.check_array(npy.read_header(path), path, shape, dtype)
    return npy.NpyReader(path, shape, dtype, geotiff.file_token(path))


def _scales_reader(path: str, size: tuple[int, ...]) -> npy.NpyReader:
    """Scales of a pixel, or in older files of a band."""
    each_band = not is_remote(path) and len(npy.read_header(path).shape) == 3
    return _reader(path, (*size, DIMS) if each_band else size, "float32")


def _one_kind(tiles: list[Tile]) -> list[Tile]:
    """Where some tiles have a scale per band, all are opened as vectors."""
    if len({tile.dtype for tile in tiles}) == 1:
        return tiles
    return [
        tile
        if tile.dtype == "float32"
        else replace(
            tile,
            reader=npy.DecodedReader(tile.reader, tile.beside["scale"].reader),
            dtype="float32",
            fill=float("nan"),
            decider=None,
            beside={},
        )
        for tile in tiles
    ]


def _landmask_of(path: str, name: str) -> str:
    """The landmask of a tile: beside the codes, in geotessera's folders, or in the published layout."""
    posix = path.replace("\\", "/")
    folders = posix.split("/")
    options = ["/".join([*folders[:-1], f"{name}.tiff"])]
    for i, folder in enumerate(folders):
        root = "/".join(folders[:i])
        if folder.startswith(_CODES_FOLDER):
            options.append(f"{root}/{_MASKS_FOLDER}/{name}.tiff")
        if folder == "npy" and i + 1 < len(folders):
            options.append(f"{root}/landmasks/{folders[i + 1].partition('-')[0]}/{name}.tiff")
    if is_remote(path):
        return options[-1]
    for option in options:
        if Path(option).exists():
            return option
    raise SourceError(
        f"{path} has no landmask, without which its place is not known; looked for {' and '.join(options)}"
    )


def _npy_version(path: str, request: Request) -> str:
    """The version in geotessera's sidecar, in one of the folders above a tile, or in the path."""
    if not is_remote(path):
        for folder in list(Path(path).resolve().parents)[:5]:
            number, variant = _sidecar(str(folder))
            if number:
                return _version_of(path, request, number, variant)
    return _version_of(path, request)


@lru_cache(maxsize=1024)
def _sidecar(folder: str) -> tuple[str, str]:
    file = Path(folder) / "tessera_metadata.json"
    if not file.exists():
        return "", ""
    try:
        known = json.loads(file.read_text())
        return str(known["dataset_version"]), str(known.get("dataset_variant") or "")
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{file} does not say 'dataset_version': {error!r}") from error


def _on_lattice(geobox: Any) -> Any:
    """A tile's true grid: its landmask states the unsnapped corner, its pixels lie on multiples of 10 m.

    They were laid out from ⌊x / 10⌋ · 10 eastwards and ⌈y / 10⌉ · 10 southwards, and the Zarr stores hold them
    so (geotessera 0.11, ``_tile_pixel_offset``). So all tiles of a zone lie on one lattice.
    """
    a = geobox.affine
    if geometry.as_crs(geobox.crs).is_geographic or (a.a, a.e) != (10.0, -10.0):
        return geobox
    left, top = math.floor(a.c / 10 + 1e-6) * 10.0, math.ceil(a.f / 10 - 1e-6) * 10.0
    return geometry.make_geobox(tuple(geobox.shape), Affine(10, 0, left, 0, -10, top), geobox.crs)


def _export_tile(grid: _NamedTile, request: Request) -> Tile:
    """A GeoTIFF of geotessera's: decoded, NaN where there is no data."""
    info = geotiff.read_info(grid.path)
    numbers = geotiff.check_bands(info, NAME, BANDS, ("float32",))
    tags = info.tags
    version = tags.get("GEOEMB_VERSION") or _version_of(
        grid.path, request, tags.get("TESSERA_DATASET_VERSION", ""), tags.get("TESSERA_DATASET_VARIANT", "")
    )
    tile = geotiff.geotiff_tile(
        info, times=(f"{grid.year:04d}-01-01",), bands=BANDS, indexes=numbers, version=version
    )
    return replace(tile, geobox=_on_lattice(info.geobox))


# --- the published tiles ------------------------------------------------------------------------------------


def _npy_edition(request: Request) -> tuple[str, _Edition]:
    """The version whose tiles are published as .npy; the default one is not."""
    version = request.version or next(v for v, each in EDITIONS.items() if each.npy)
    if not EDITIONS[version].npy:
        having = ", ".join(v for v, each in EDITIONS.items() if each.npy)
        raise CoverageError(
            f"tessera {version} is not published as .npy tiles; {having} are (source='zarr' has all)"
        )
    return version, EDITIONS[version]


def _published_grids(request: Request) -> list[_NamedTile]:
    """The published tiles near an area, by the manifest of their version."""
    _, edition = _npy_edition(request)
    rows = index.read_index(
        f"{BASE}/npy/{edition.npy}/manifest.parquet",
        columns=["lon", "lat", "year"],
        area=request.area,
        bbox=("lon", "lat", "lon", "lat"),
        margin=0.05,
        time=request.time,
        year="year",
    )
    places = zip(rows["lon"].tolist(), rows["lat"].tolist(), rows["year"].tolist(), strict=True)
    return [_NamedTile(_tile_url(edition, lon, lat, year), lon, lat, year) for lon, lat, year in places]


def _tile_url(edition: _Edition, lon: float, lat: float, year: int) -> str:
    name = f"grid_{lon:.2f}_{lat:.2f}"
    return f"{BASE}/npy/{edition.npy}/{year}/{name}/{name}.npy"


def _published_npy(request: Request) -> list[Tile]:
    if request.area is None:
        raise ValueError("the published tiles of tessera cover the world; give bbox=, points= or like=")
    return side_by_side(lambda grid: _npy_tile(grid, request), _published_grids(request))


def coverage_tessera(source: Any, request: Request) -> pd.DataFrame:
    """Tiles × years: of a store its zones with the years written, of .npy tiles the manifest's rows."""
    if isinstance(source, str) and source == "npy":
        import pandas as pd

        half = 0.05  # of a tile of 0.1°
        rows = [
            (g.path, g.year, g.lon, g.lat, g.lon - half, g.lat - half, g.lon + half, g.lat + half)
            for g in _published_grids(request)
        ]
        columns = ["url", "year", "lon", "lat", "west", "south", "east", "north"]
        return pd.DataFrame(rows, columns=columns)
    return table_of(overlapping(open_tessera(source, request), request.area), request.time)


# --- examples -----------------------------------------------------------------------------------------------


PRODUCT = Product(
    NAME,
    dims=DIMS,
    title="TESSERA",
    kind="pixel",
    bands=BANDS,
    dtype="int8",
    codec=PER_PIXEL_SCALE,
    unit_norm=False,
    resolution=10.0,
    extent="Global",
    period="2017–2025*",
    cadence="Annual",
    survey="Tessera | Pixel | Global | 10 m | 2017–2025* | Annual | 128 | int8→float32 | CC0-1.0",
    model="TESSERA",
    encoder="Two transformers over time, one per sensor, trained by Barlow Twins; a pixel's own time series",
    inputs="Sentinel-1 and Sentinel-2 time series of one year",
    access="anonymous; Zarr (and, deprecated, .npy tiles) in the Source Cooperative",
    containers=("zarr", "npy", "geotiff", "legacy"),
    stores={"zarr": f"{BASE}/zarr/{EDITIONS[_DEFAULT].zarr}", "npy": f"{BASE}/npy", "icechunk": ICECHUNK},
    versions=tuple(EDITIONS),
    matryoshka=(16, 32, 64, 128),
    matryoshka_versions=("v2-2B-L~beta1", "v2-2B-L~beta2"),
    torchgeo="TesseraEmbeddings",
    aliases=("geotessera", "TesseraEmbeddings"),
    citation=(
        "Feng, Z. et al. (2026): TESSERA: Temporal Embeddings of Surface Spectra for Earth Representation "
        "and Analysis. CVPR 2026. arXiv:2506.20380; v2: arXiv:2607.03949"
    ),
    bibtex=(
        "@inproceedings{feng2026tessera,\n  title = {{TESSERA}: Temporal Embeddings of Surface Spectra for "
        "Earth Representation and Analysis},\n  author = {Feng, Zhengpeng and Atzberger, Clement and Jaffer, "
        "Sadiq and Knezevic, Jovana and Sormunen, Silja and Young, Robin and others},\n  booktitle = "
        "{Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},\n  note = "
        "{arXiv:2506.20380},\n  year = {2026}\n}"
    ),
    doi="10.48550/arXiv.2506.20380",
    licence="CC0-1.0",
    licence_notes=(
        "Embeddings and weights CC0, code MIT: attribution is asked for, not required; an earlier survey "
        "lists CC-BY."
    ),
    attribution="TESSERA embeddings, University of Cambridge (CC0).",
    quirks=(
        "Versions and variants are spaces of their own: v1.1-dclimate and v1.1-cambridge cannot be compared.",
        "Vectors are not of unit length (norms of about 27 to 33): their magnitude carries information.",
        "A scale of NaN is water, of +inf a pixel that was never filled; both are missing here.",
        "Zone groups run over both hemispheres: south of the equator northings are negative.",
        "A tile belongs to the zone of its centre, so that a pixel may be missing along the seams of zones.",
        "Landmasks of .npy tiles state an unsnapped corner; their pixels lie on multiples of 10 m.",
        ".npy tiles are not masked by their landmask; the Zarr stores are.",
        "Tiles made before 20 August 2025 have artefacts at their edges.",
    ),
    open=open_tessera,
    coverage=coverage_tessera,
    example=example_tessera,
)
