"""Clay v1.5 on Sentinel-2 by LGND: single scenes and monthly aggregates, hive-partitioned GeoParquet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geoemb_xr.core.areas import Bounds
from geoemb_xr.core.model import Product
from geoemb_xr.examples.clay_v15_sentinel2 import example_sentinel2
from geoemb_xr.readers import geoparquet, layouts
from geoemb_xr.readers.layouts import PatchLayout, Span
from geoemb_xr.readers.tiles import Request

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

NAME = "clay-v1.5-sentinel2"
#: Degrees by which a chip may stick out of the geohash that its centre lies in.
_MARGIN = 0.1
_STORE = "s3://us-west-2.opendata.source.coop/clay/lgnd-clay-v1-5-sentinel-2-l2a"


def place_of_path(path: str) -> Bounds | None:
    """Return what LGND's partitions promise: a grid zone for scenes, a geohash for aggregates."""
    keys = layouts.hive(path)
    if "gzd" in keys:
        return layouts.zone_bounds(keys["gzd"])
    box = layouts.geohash_bounds(keys.get("geohash_l2") or keys.get("geohash") or "")
    if box is None:
        return None
    west, south, east, north = box
    return west - _MARGIN, south - _MARGIN, east + _MARGIN, north + _MARGIN


def span_of_path(path: str) -> Span | None:
    """The month of a partition."""
    return layouts.month_span(layouts.hive(path))


LAYOUT = PatchLayout(patch_m=2560.0, place_of_path=place_of_path, span_of_path=span_of_path)


def open_sentinel2(source: Any, request: Request) -> xr.DataArray:
    """Rows of the published scenes or aggregates, or of local files."""
    return geoparquet.open_patches(source, request, PRODUCT, LAYOUT)


def coverage_sentinel2(source: Any, request: Request) -> pd.DataFrame:
    """Files of the published store."""
    return geoparquet.coverage_patches(source, request, PRODUCT, LAYOUT)


PRODUCT = Product(
    NAME,
    dims=1024,
    title="Clay v1.5 embeddings of Sentinel-2 patches (LGND)",
    kind="patch",
    resolution=2560.0,
    extent="Global",
    period="2024–2025",
    cadence="Snapshot",
    survey="Clay v1.5 Sentinel | Patch | Global | 2.56 km | 2024–2025 | Snapshot | 1024 | float32 | CC-BY-4.0",
    model="Clay v1.5",
    inputs="Sentinel-2 L2A",
    access="anonymous; GeoParquet in the Source Cooperative",
    containers=("scene", "aggregated"),
    stores={"scene": f"{_STORE}/scene", "aggregated": f"{_STORE}/aggregated"},
    versions=("v1.5",),
    torchgeo="ClayEmbeddings",
    aliases=("clay-v1-5-sentinel2", "lgnd-clay-v1-5-sentinel-2-l2a", "ClayEmbeddings"),
    citation=(
        "LGND and Clay Foundation: Clay v1.5 Sentinel-2 L2A embeddings. "
        "https://source.coop/clay/lgnd-clay-v1-5-sentinel-2-l2a"
    ),
    licence="CC-BY-4.0",
    attribution="LGND and Clay Foundation, Clay v1.5 Sentinel-2 embeddings (CC BY 4.0).",
    quirks=(
        "Published for June 2024 and June 2025 only.",
        "A file of scenes is one row group of about 150 MB, so that a bbox saves files and rows but few bytes.",
        "Another store, clay/clay-v1-5-sentinel2 (2018–2024, partly global), is another product; its columns are "
        "not documented.",
    ),
    open=open_sentinel2,
    coverage=coverage_sentinel2,
    example=example_sentinel2,
)
