"""Earth Index: vectors of 320 m patches, a GeoParquet file per MGRS tile and year, centres only."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from geoemb_xr.core.areas import Bounds
from geoemb_xr.core.model import Product
from geoemb_xr.examples.earth_index import example_earth_index
from geoemb_xr.readers import footers, geoparquet, layouts
from geoemb_xr.readers.layouts import PatchLayout, Span
from geoemb_xr.readers.tiles import Request

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

NAME = "earth-index"
_NAME = re.compile(r"(\d\d[A-Z]{3})(?:_(\d{4})-(\d\d)-(\d\d)_\d{4}-\d\d-\d\d)?\.parquet$")


def _place(path: str) -> Bounds | None:
    found = _NAME.search(path)
    return layouts.zone_bounds(found[1]) if found else None


def _span(path: str) -> Span | None:
    """The start of a file's year: a period matches by its start."""
    found = _NAME.search(path)
    return layouts.day_span(found[2] + found[3] + found[4]) if found and found[2] else None


def _version(facts: footers.FileFacts) -> str:
    """The edition, by the model that the footer names; by the year in the file's name where it names none."""
    model = facts.emb.get("model", {})
    name = f"{model.get('id', '')} {model.get('name', '')}".lower()
    if name.strip():
        return "v2" if "softcon" in name else "2025" if "ssl4eo" in name else name.split()[0]
    span = _span(facts.file.url)
    return "2025" if span is not None and span[0] >= np.datetime64("2025-01-01") else "v2"


LAYOUT = PatchLayout(
    patch_m=320.0, lonlat=True, place_of_path=_place, span_of_path=_span, version_of=_version
)


def open_earth_index(source: Any, request: Request) -> xr.DataArray:
    """Rows of the published tiles, or of local files; the model's footer is kept as the attribute ``emb``."""
    return geoparquet.open_patches(source, request, PRODUCT, LAYOUT)


def coverage_earth_index(source: Any, request: Request) -> pd.DataFrame:
    """Tiles of the published store."""
    return geoparquet.coverage_patches(source, request, PRODUCT, LAYOUT)


PRODUCT = Product(
    NAME,
    dims=384,
    title="Earth Index embeddings",
    kind="patch",
    resolution=320.0,
    extent="Global",
    period="2024",
    cadence="Snapshot",
    survey="Earth Index | Patch | Global | 320 m | 2024 | Snapshot | 384 | float32 | CC-BY-4.0",
    model="SoftCon",
    encoder="DINOv2 ViT-S/14 (class token of the last layer)",
    inputs="Sentinel-2 temporal mosaics (Earth Index v2)",
    trained_on=("Dynamic World",),
    access="anonymous; GeoParquet in the Source Cooperative",
    containers=("geoparquet",),
    stores={
        "geoparquet": "s3://us-west-2.opendata.source.coop/earthgenome/earthindexembeddings/2024",
    },
    versions=("v2", "2025"),
    torchgeo="EarthIndexEmbeddings",
    aliases=("earthindex", "earth-index-v2", "EarthIndexEmbeddings"),
    citation=(
        "Earth Genome: Earth Index embeddings. https://source.coop/earthgenome/earthindexembeddings; model: "
        "Wang, Y., Albrecht, C. M., Zhu, X. X. (2024): Multi-Label Guided Soft Contrastive Learning for "
        "Efficient Earth Observation Pretraining. arXiv:2405.20462"
    ),
    bibtex=(
        "@article{wang2024softcon,\n  title = {Multi-Label Guided Soft Contrastive Learning for Efficient "
        "{Earth} Observation Pretraining},\n  author = {Wang, Yi and Albrecht, Conrad M. and Zhu, Xiao "
        "Xiang},\n  journal = {arXiv preprint arXiv:2405.20462},\n  year = {2024}\n}"
    ),
    licence="CC-BY-4.0",
    attribution="Earth Index embeddings, Earth Genome (CC BY 4.0).",
    quirks=(
        "Files hold centres; a footprint is 160 m to each side in the tile's UTM zone.",
        "The encoder of v2 was guided by labels of Dynamic World: agreement with those is no fair test.",
        "MGRS tiles overlap: patches at one place come once, from the first tile.",
        "The edition of 2025 is another model (SSL4EO); it is never mixed with v2.",
        "A sample published for the survey names 2023 in its footer.",
        "Some tiles do not say their CRS; they are in degrees.",
    ),
    open=open_earth_index,
    coverage=coverage_earth_index,
    example=example_earth_index,
)
