"""OlmoEarth: exports of the studio or of rslearn, int8 codes (AlphaEarth's curve) or floats, of any model size."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from geoemb_xr.core.codecs import SIGNED_SQUARE
from geoemb_xr.core.errors import CoverageError, SourceError
from geoemb_xr.core.model import Product
from geoemb_xr.core.notes import say
from geoemb_xr.examples.olmoearth import example_olmoearth
from geoemb_xr.execution.threads import side_by_side
from geoemb_xr.readers import geotiff, utm_zones, zarr_nodes
from geoemb_xr.readers import zarr as zarr_store
from geoemb_xr.readers.damage import naming_damage
from geoemb_xr.readers.inferring import codec_of
from geoemb_xr.readers.tiles import Request, Tile
from geoemb_xr.stores import paths

NAME = "olmoearth"
DIMS = 768
#: Families of models, each a space of its own; the width of a vector alone does not tell them apart.
FAMILIES = ("v1", "v1.1", "v1.2")


def open_olmoearth(source: Any, request: Request) -> list[Tile]:
    """Tiles of exported GeoTIFFs; a model of another size is another version."""
    if source is None:
        raise paths.must_be_fetched(
            NAME, "the GeoTIFFs of an export, with their year in the path", "the OlmoEarth studio, or rslearn"
        )
    if isinstance(source, (str, os.PathLike)) and zarr_nodes.is_store(os.fspath(source)):
        with naming_damage(os.fspath(source)):
            return _zones_of(os.fspath(source), request)
    tiles = side_by_side(lambda name: _tile(name, request), paths.expand(source, (".tif", ".tiff")))
    if len({tile.dtype for tile in tiles}) > 1:
        some = {tile.dtype: tile.name for tile in tiles}
        raise SourceError(f"codes and vectors in one source: {some}; open them apart")
    return tiles


# --- the Zarr store with a group for each UTM zone --------------------------------------------------------------


def _zones_of(url: str, request: Request) -> list[Tile]:
    """Tiles of the zones near an area; codec and length of vectors as the store's attributes say, never assumed."""
    token = zarr_nodes.store_token(url)
    root = zarr_nodes.open_node(url, "", token)
    zones = [name for name in sorted(root.keys()) if utm_zones.ZONE.fullmatch(name)]
    if not zones:
        raise SourceError(f"{url} has no groups utm01 … utm60; it has {sorted(root.keys())[:8]}")
    near = [name for name in zones if utm_zones.is_near(name, request)]
    if not near:
        raise CoverageError(f"{NAME} does not cover {request.area} in {url}, which has {', '.join(zones)}")
    return [_zone(url, name, root, token, request) for name in near]


def _zone(url: str, name: str, root: Any, token: str, request: Request) -> Tile:
    group, where = root[name], f"{url}/{name}"
    if "embeddings" not in group:
        raise SourceError(f"{where} has no array 'embeddings'; it has {sorted(group.keys())}")
    array = group["embeddings"]
    attrs = zarr_store.find_attrs(array, group, root)
    dims = zarr_store.axes_of(array, where)
    count = array.shape[dims.index("band")]
    if not 1 < count <= DIMS:
        raise SourceError(f"{where} has {count} bands; {NAME!r} takes up to {DIMS}")
    codes = array.dtype.kind == "i"
    if codes:
        _check_codec(attrs, array, where)
    if any(attrs.get(key) is True for key in _UNIT):
        say(
            f"{url} says that its vectors have unit length, but means of them do not; .emb.normalize() restores it"
        )
    return zarr_store.zarr_tile(
        url,
        f"{name}/embeddings",
        bands=PRODUCT.bands[:count],
        attrs=attrs,
        times=zarr_store.years_of(group if "time" in group else root, array.shape[dims.index("time")], where),
        fill=-128 if codes else float("nan"),
        version="synthetic"
        if attrs.get("geoemb:build_version") == "synthetic"
        else _zarr_version(attrs, count, request, url),
        token=token,
    )


#: How a store says that its vectors were brought to unit length.
_UNIT = ("geoemb:unit_norm", "geoemb:l2_normalized", "l2_normalized")


def _check_codec(attrs: Mapping[str, Any], array: Any, where: str) -> None:
    said = attrs.get("geoemb:quantization")
    codec = codec_of(said, where) if isinstance(said, Mapping) else None
    if array.dtype != np.int8 or codec is None or codec.name != SIGNED_SQUARE.name:
        stated = "nothing" if codec is None else repr(codec.name)
        raise SourceError(
            f"{where} holds {array.dtype}, and 'geoemb:quantization' says {stated} of how its codes are decoded; a "
            f"store of {NAME!r} holds int8 in {SIGNED_SQUARE.name!r}"
        )


def _zarr_version(attrs: Mapping[str, Any], count: int, request: Request, url: str) -> str:
    """The family that the model's name says, with the width; that of ``version=`` where it says none."""
    if attrs.get("geoemb:build_version") == "synthetic":
        return "synthetic"
    model = str(attrs.get("geoemb:model") or "").lower().replace("_", ".")
    found = re.search(r"olmoearth[-.]v(\d+(?:\.\d+)?)", model)
    family = f"v{found[1]}" if found else ""
    return f"{family}-{count}" if family in FAMILIES else _version(url, count, request.version)


# --- exports ----------------------------------------------------------------------------------------------------


def _tile(name: str, request: Request) -> Tile:
    info = geotiff.read_info(name)
    if not 1 < info.count <= DIMS:
        raise SourceError(
            f"{name} has {info.count} bands; {NAME!r} takes up to {DIMS}. For a larger model make a product of "
            f'your own: gx.wrap(array, gx.Product("olmoearth-{info.count}", dims={info.count}))'
        )
    bands = PRODUCT.bands[: info.count]
    numbers = geotiff.check_bands(info, NAME, bands, ("int8", "float32"))
    codes = info.dtype == "int8"
    return geotiff.geotiff_tile(
        info,
        times=(f"{paths.year_of_file(name, time=request.time):04d}-01-01",),
        bands=bands,
        indexes=numbers,
        fill=-128 if codes else float("nan"),
        version=info.tags.get("GEOEMB_VERSION") or _version(name, info.count, request.version),
        vectors_of=NAME,
    )


def _version(name: str, count: int, asked: str | None) -> str:
    """The family and the width: files do not say the first."""
    if asked in FAMILIES:
        return f"{asked}-{count}"
    if asked is None:
        raise SourceError(
            f"{name} has {count} bands, but does not say of which family of models: give version=, one of "
            f"{', '.join(map(repr, FAMILIES))}. Their vectors cannot be compared, and any of them has models (or "
            "prefixes) of this width"
        )
    if not asked.endswith(f"-{count}"):
        raise SourceError(
            f"{name} has {count} bands, which version={asked!r} does not; give the family alone"
        )
    return asked


PRODUCT = Product(
    NAME,
    dims=DIMS,
    title="OlmoEarth exports",
    kind="pixel",
    dtype="int8",
    codec=SIGNED_SQUARE,
    resolution=10.0,
    extent="Where the user asks for it",
    period="User-chosen",
    cadence="User-chosen",
    model="OlmoEarth",
    encoder="Vision transformer over patches, time steps and sensors",
    inputs="Sentinel-1, Sentinel-2, Landsat",
    trained_on=(
        "ESA WorldCover 2021",
        "OpenStreetMap",
        "USDA Cropland Data Layer",
        "ESA WorldCereal 2021",
        "SRTM",
        "WRI and Meta canopy height",
    ),
    access="made by the user in the OlmoEarth studio, or with rslearn: give the files",
    containers=("int8", "float32"),
    versions=(*(f"{family}-{DIMS}" for family in FAMILIES), *FAMILIES),
    aliases=("olmo-earth",),
    citation=(
        "Herzog, H. et al. (2025): OlmoEarth: Stable Latent Image Modeling for Multimodal Earth Observation. "
        "arXiv:2511.13655"
    ),
    bibtex=(
        "@article{herzog2025olmoearth,\n  title = {{OlmoEarth}: Stable Latent Image Modeling for Multimodal "
        "{Earth} Observation},\n  author = {Herzog, Henry and Bastani, Favyen and Zhang, Yawen and Tseng, "
        "Gabriel and Redmon, Joseph and others},\n  journal = {arXiv preprint arXiv:2511.13655},\n  year = "
        "{2025}\n}"
    ),
    doi="10.48550/arXiv.2511.13655",
    licence="LicenseRef-OlmoEarth-Artifact",
    licence_notes=(
        "The OlmoEarth Artifact License is not an open licence of the usual kind: it forbids some uses "
        "(military and defence among them), of what is derived too, model outputs included, and asks that "
        "this be passed on: read it before sharing."
    ),
    attribution="OlmoEarth embeddings, Allen Institute for AI (OlmoEarth Artifact License).",
    quirks=(
        "No global product is published; exports have a pixel of 10 to 40 m.",
        "Codes follow AlphaEarth's curve, but vectors are not of unit length.",
        "Three families of models (v1, v1.1, v1.2) are three spaces; files do not say theirs, so version= "
        "does.",
        "A model of another size writes another number of bands, and is another version here.",
    ),
    open=open_olmoearth,
    example=example_olmoearth,
)
