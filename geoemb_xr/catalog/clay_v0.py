"""Clay v0: vectors of Sentinel patches, a GeoParquet file per MGRS tile and date."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from geoemb_xr.core.areas import Bounds
from geoemb_xr.core.model import Product
from geoemb_xr.examples.clay_v0 import example_clay
from geoemb_xr.readers import footers, geoparquet, layouts
from geoemb_xr.readers.layouts import PatchLayout, Span
from geoemb_xr.readers.tiles import Request

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

NAME = "clay-v0"
_NAME = re.compile(r"(\d\d[A-Z]{3})_(\d{8})_(\d{8})_v(\d{3})\.")


def _place(path: str) -> Bounds | None:
    found = _NAME.search(path)
    return layouts.zone_bounds(found[1]) if found else None


def _span(path: str) -> Span | None:
    found = _NAME.search(path)
    return (layouts.day_span(found[2])[0], layouts.day_span(found[3])[1]) if found else None


def _version(facts: footers.FileFacts) -> str:
    found = _NAME.search(facts.file.url)
    return f"v{found[4]}" if found else PRODUCT.versions[0]


LAYOUT = PatchLayout(patch_m=5120.0, place_of_path=_place, span_of_path=_span, version_of=_version)


def open_clay(source: Any, request: Request) -> xr.DataArray:
    """Rows of the published files, or of local ones."""
    return geoparquet.open_patches(source, request, PRODUCT, LAYOUT)


def coverage_clay(source: Any, request: Request) -> pd.DataFrame:
    """Files of the published store."""
    return geoparquet.coverage_patches(source, request, PRODUCT, LAYOUT)


PRODUCT = Product(
    NAME,
    dims=768,
    title="Clay v0 embeddings of Sentinel patches",
    kind="patch",
    resolution=5120.0,
    extent="Global, with gaps",
    period="2018–2023*",
    cadence="Snapshot",
    survey="Clay v0 Sentinel | Patch | Global* | 5.12 km | 2018–2023* | Snapshot | 768 | float32 | ODC-By-1.0",
    model="Clay v0",
    inputs="Sentinel-2 (10 bands), Sentinel-1, DEM; 512 × 512 pixels of 10 m",
    access="anonymous; GeoParquet in the Source Cooperative",
    containers=("geoparquet",),
    stores={"geoparquet": "s3://us-west-2.opendata.source.coop/clay/clay-model-v0-embeddings"},
    versions=("v001",),
    torchgeo="ClayEmbeddings",
    aliases=("clay-v0-sentinel", "clay-model-v0-embeddings"),
    citation="Clay Foundation: Clay model v0 embeddings. https://source.coop/clay/clay-model-v0-embeddings",
    licence="ODC-By-1.0",
    attribution="Clay Foundation, Clay v0 embeddings (ODC-By 1.0).",
    licence_notes=(
        "Clay itself says ODC-By-1.0, and so do torchgeo's table and the survey; the AWS registry alone says "
        "CC-BY-4.0."
    ),
    quirks=(
        "The vector of a patch is the mean of its patch tokens.",
        "The column of vectors is called 'embeddings' here, 'embedding' in the LGND editions of v1.5.",
        "The file's date is the image's, though the README calls it the date of creation.",
    ),
    open=open_clay,
    coverage=coverage_clay,
    example=example_clay,
)
