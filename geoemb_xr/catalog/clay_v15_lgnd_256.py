"""LGND's Clay v1.5 embeddings of 256 dimensions: monthly aggregates of 1,280 m chips."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geoemb_xr.catalog.clay_v15_sentinel2 import place_of_path, span_of_path
from geoemb_xr.core.model import Product
from geoemb_xr.examples.clay_v15_lgnd_256 import example_lgnd
from geoemb_xr.readers import geoparquet
from geoemb_xr.readers.layouts import PatchLayout
from geoemb_xr.readers.tiles import Request

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

NAME = "clay-v1.5-lgnd-256"
_FOLDER = "monthly-aggregated/model_version=v1.5/collection=sentinel-2-l2a/chip_size=1280m/dims=256"

LAYOUT = PatchLayout(patch_m=1280.0, place_of_path=place_of_path, span_of_path=span_of_path)


def open_lgnd(source: Any, request: Request) -> xr.DataArray:
    """Rows of the published files, or of local ones."""
    return geoparquet.open_patches(source, request, PRODUCT, LAYOUT)


def coverage_lgnd(source: Any, request: Request) -> pd.DataFrame:
    """Files of the published store."""
    return geoparquet.coverage_patches(source, request, PRODUCT, LAYOUT)


PRODUCT = Product(
    NAME,
    dims=256,
    title="Clay v1.5 embeddings of 256 dimensions, monthly (LGND)",
    kind="patch",
    resolution=1280.0,
    cadence="Monthly",
    model="Clay v1.5",
    inputs="Sentinel-2 L2A",
    access="anonymous; GeoParquet in the Source Cooperative",
    containers=("geoparquet",),
    stores={"geoparquet": f"s3://us-west-2.opendata.source.coop/clay/lgnd-embeddings/{_FOLDER}"},
    versions=("v1.5",),
    aliases=("lgnd-embeddings", "clay-v1-5-lgnd-256"),
    citation="LGND and Clay Foundation: LGND embeddings. https://source.coop/clay/lgnd-embeddings",
    licence="LicenseRef-unstated",
    licence_notes="No publisher's statement of a licence is known; the other Clay v1.5 sets are CC-BY-4.0.",
    attribution="LGND and Clay Foundation, LGND embeddings.",
    quirks=(
        "Months are aggregates and sparse.",
        "Some cells are degenerate from clouds: their cosine with neighbours falls below 0.3, down to -0.59.",
    ),
    open=open_lgnd,
    coverage=coverage_lgnd,
    example=example_lgnd,
)
