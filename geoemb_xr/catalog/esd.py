"""ESD, Embedded Seamless Data: one code per month, each of six axes; published behind a login, so read from files.

torchgeo decodes the quality band as if it were a code, and code 0, which is no data, to −1 on every axis.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Any

from geoemb_xr.core.codecs import FSQ
from geoemb_xr.core.model import Product
from geoemb_xr.examples.esd import example_esd
from geoemb_xr.execution.threads import side_by_side
from geoemb_xr.readers import geotiff
from geoemb_xr.readers.tiles import Request, Tile
from geoemb_xr.stores import paths

NAME = "esd"
MONTHS = 12
QUALITY = "clear_observations"
_LAYERS = (*(f"month{month}" for month in range(1, MONTHS + 1)), QUALITY)
_FILE = re.compile(r"_(?P<mgrs>\d{2}[A-Z]{3})_(?P<year>\d{4})\.tiff?$")


def open_esd(source: Any, request: Request) -> list[Tile]:
    """Tiles of local files, twelve steps each, with their quality band beside them."""
    if source is None:
        raise paths.must_be_fetched(
            NAME,
            "SDC30_EBD_V001/{year}/SDC30_EBD_V001_{MGRS}_{year}.tif",
            "the iEarth portal (login required)",
        )
    return side_by_side(partial(_tile, request), paths.expand(source, (".tif", ".tiff")))


def _tile(request: Request, name: str) -> Tile:
    info = geotiff.read_info(name)
    *months, clear = geotiff.check_bands(info, NAME, _LAYERS, ("uint16",))
    found = _FILE.search(name)
    year = int(found["year"]) if found else paths.year_of_file(name, PRODUCT.period, request.time)
    times = tuple(f"{year:04d}-{month:02d}-01" for month in range(1, MONTHS + 1))
    version = info.tags.get("GEOEMB_VERSION", "V001")
    codes = geotiff.geotiff_tile(
        info, times=times, bands=("code",), indexes=months, fill=0, version=version, by_time=True
    )
    quality = geotiff.geotiff_tile(info, times=times, bands=(), indexes=(clear,), version=version)
    return replace(codes, beside={QUALITY: replace(quality, decider=codes)})


PRODUCT = Product(
    NAME,
    dims=6,
    title="ESD (Embedded Seamless Data)",
    kind="pixel",
    bands=("code",),
    dtype="uint16",
    codec=FSQ,
    resolution=30.0,
    extent="Global",
    period="2000–2024",
    cadence="Annual",
    survey="ESD | Pixel | Global | 30 m | 2000–2024 | Annual | 12 | uint16→float32 | CC-BY-4.0",
    model="ESDNet",
    encoder="ESDNet with finite scalar quantisation (levels 8, 8, 8, 5, 5, 5), one code per month",
    inputs="Landsat 5, 7, 8 and 9, MODIS Terra, NASADEM",
    access="iEarth portal, login required: download, then give the files",
    containers=("geotiff",),
    versions=("V001",),
    torchgeo="EmbeddedSeamlessData",
    aliases=("embedded-seamless-data", "EmbeddedSeamlessData", "sdc30-ebd"),
    citation=(
        "Chen, S. et al. (2026): Democratizing planetary-scale analysis: An ultra-lightweight Earth "
        "embedding database for accurate and flexible global land monitoring. Earth System Science Data "
        "Discussions, doi:10.5194/essd-2026-57; arXiv:2601.11183. Data: "
        "doi:10.12436/iEarth.0000.20251229.000064.v1"
    ),
    bibtex=(
        "@article{chen2026esd,\n  title = {Democratizing planetary-scale analysis: An ultra-lightweight "
        "{Earth} embedding database for accurate and flexible global land monitoring},\n  author = {Chen, "
        "Shuang and Wang, Jie and Yuan, Shuai and Li, Jiayang and Xia, Yu and Liao, Yuanhong and others},\n  "
        "journal = {Earth System Science Data Discussions},\n  doi = {10.5194/essd-2026-57},\n  year = "
        "{2026}\n}"
    ),
    doi="10.48550/arXiv.2601.11183",
    licence="CC-BY-4.0",
    licence_notes="As torchgeo's table says; the source itself was not seen to state it.",
    attribution="Embedded Seamless Data (ESD), iEarth, doi:10.12436/iEarth.0000.20251229.000064.v1 (CC BY 4.0).",
    quirks=(
        "A year is twelve steps of six numbers; the survey's 12 dimensions are the months.",
        "Code 0 is no data, though it would decode to −1 on every axis: masked before decoding.",
        "Band 13 counts a year's clear Landsat observations; it stands beside the vectors, once a month.",
        "Codes cannot be averaged or interpolated: neighbouring codes are not neighbouring vectors.",
    ),
    open=open_esd,
    example=example_esd,
)
