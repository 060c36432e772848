"""Clay v1.5 on NAIP: vectors of aerial patches over the USA, dates in the file names alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from geoemb_xr.core.areas import Bounds
from geoemb_xr.core.model import Product
from geoemb_xr.examples.clay_v15_naip import example_naip
from geoemb_xr.readers import geoparquet, layouts
from geoemb_xr.readers.layouts import PatchLayout, Span
from geoemb_xr.readers.tiles import Request

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

NAME = "clay-v1.5-naip"
_NAME = re.compile(r"m_(\d{2})(\d{3})\d{2}_[a-z]{2}_\d{2}_\w+?_(\d{8})(?:_\d{8})?\.parquet$")


def _place(path: str) -> Bounds | None:
    """The degree square of a USGS quadrangle: its name starts with latitude and longitude of a corner."""
    found = _NAME.search(path)
    if found is None:
        return None
    south, east = float(found[1]), -float(found[2])
    return east - 1.1, south - 0.1, east + 0.1, south + 1.1


def _span(path: str) -> Span | None:
    found = _NAME.search(path)
    return layouts.day_span(found[3]) if found else None


LAYOUT = PatchLayout(patch_m=256.0, measured=True, place_of_path=_place, span_of_path=_span)


def open_naip(source: Any, request: Request) -> xr.DataArray:
    """Rows of the published files, or of local ones."""
    return geoparquet.open_patches(source, request, PRODUCT, LAYOUT)


def coverage_naip(source: Any, request: Request) -> pd.DataFrame:
    """Files of the published store."""
    return geoparquet.coverage_patches(source, request, PRODUCT, LAYOUT)


PRODUCT = Product(
    NAME,
    dims=1024,
    title="Clay v1.5 embeddings of NAIP patches",
    kind="patch",
    extent="USA",
    period="2010–2021*",
    cadence="Snapshot",
    survey="Clay v1.5 NAIP | Patch | USA | 154–256 m | 2010–2021* | Snapshot | 1024 | float32 | CC-BY-4.0",
    model="Clay v1.5",
    inputs="NAIP aerial images, 256 × 256 pixels of 0.6 to 1 m",
    access="anonymous; GeoParquet in the Source Cooperative",
    containers=("geoparquet",),
    stores={"geoparquet": "s3://us-west-2.opendata.source.coop/clay/clay-v1-5-naip-2"},
    versions=("v1.5",),
    torchgeo="ClayEmbeddings",
    aliases=("clay-v1-5-naip", "clay-v1-5-naip-2"),
    citation="Clay Foundation: Clay v1.5 NAIP embeddings. https://source.coop/clay/clay-v1-5-naip-2",
    licence="CC-BY-4.0",
    attribution="Clay Foundation, Clay v1.5 NAIP embeddings (CC BY 4.0).",
    quirks=(
        "Patches are 154 to 256 m wide, as NAIP has pixels of 0.6 to 1 m: 'patch_m' along location says which.",
        "Files have no date column; the date is in the file name.",
    ),
    open=open_naip,
    coverage=coverage_naip,
    example=example_naip,
)
