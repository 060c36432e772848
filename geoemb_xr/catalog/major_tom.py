"""Major TOM Core embeddings: several encoders on the same grid, each a variant of its own."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoemb_xr.core.errors import SourceError, check_choice
from geoemb_xr.core.model import Product
from geoemb_xr.readers import footers, geoparquet, patch_examples
from geoemb_xr.readers.footers import Layout
from geoemb_xr.readers.tiles import Request

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

NAME = "major-tom"
#: Variant → length of its vectors, None where no source states it.
VARIANTS: dict[str, int | None] = {
    "S2L1C-SSL4EO": 2048,
    "S1RTC-SSL4EO": 2048,
    "S2RGB-DINOv2": None,
    "S2RGB-SigLIP": 1152,
    "S2L1C-DeCUR": None,
    "S1RTC-DeCUR": None,
}


def _variant_in(path: str) -> str | None:
    return next((name for name in VARIANTS if name in path), None)


def _version(facts: footers.FileFacts) -> str:
    found = _variant_in(facts.file.url)
    if found is None:
        raise SourceError(
            f"{facts.file.url} does not say which encoder made it; give variant=, one of {', '.join(VARIANTS)}"
        )
    return found


LAYOUT = Layout(
    centre=("centre_lon", "centre_lat"),
    dates=("timestamp",),
    skip=("utm_footprint",),
    patch_m=3840.0,
    measured=True,
    version_of=_version,
)


def open_major_tom(source: Any, request: Request) -> xr.DataArray:
    """Rows of one variant's published files, or of local ones."""
    layout = LAYOUT
    if request.variant is not None:
        check_choice("variant", request.variant, VARIANTS)
        variant = request.variant
        layout = replace(LAYOUT, version_of=lambda facts: _variant_in(facts.file.url) or variant)
        request = replace(request, version=request.version or variant)
    return geoparquet.open_patches(_located(source, request.variant), request, PRODUCT, layout)


def _located(source: Any, variant: str | None) -> Any:
    if source is None and variant is None:
        raise ValueError(
            f"{NAME!r} is published by several encoders, whose vectors cannot be compared; give variant=, one of "
            f"{', '.join(VARIANTS)}"
        )
    return PRODUCT.stores[str(variant)] if source is None else source


def coverage_major_tom(source: Any, request: Request) -> pd.DataFrame:
    """Files of one variant's published store."""
    return geoparquet.coverage_patches(_located(source, request.variant), request, PRODUCT, LAYOUT)


def example_major_tom(directory: Path, container: str) -> Path:
    """Write a part of one Core set of the synthetic scene; ``container`` is ignored but for SigLIP's shape."""
    import pyarrow as pa
    import shapely

    variant, side = ("S2RGB-SigLIP", 3840.0) if container == "siglip" else ("S2L1C-SSL4EO", 2240.0)
    dims = VARIANTS[variant] or PRODUCT.dims
    tables = []
    for stamp in ("2019-08-04T10:10:31", "2021-06-24T10:05:59"):
        lon, lat, polygons, vectors = patch_examples.scene_patches(side, (5, 6), dims, int(stamp[:4]))
        cells = [f"{525 + i // 18}U_{106 + i % 6}R" for i in range(lon.size)]
        product = f"S2A_MSIL1C_{stamp.replace('-', '').replace(':', '')}_N0208_R022_T32TPT"
        rows = [int(cell[:3]) for cell in cells]
        column = patch_examples.list_column(vectors)
        if container == "siglip":  # declared as (1, 1152): a leading dimension of one
            column = pa.ListArray.from_arrays(np.arange(lon.size + 1, dtype=np.int32), column)
        tables.append(
            {
                "unique_id": [hashlib.sha256(f"{product}{i}".encode()).hexdigest() for i in range(lon.size)],
                "embedding": column,
                "grid_cell": cells,
                "grid_row_u": pa.array(rows, pa.int16()),
                "grid_col_r": pa.array([106 + i % 6 for i in range(lon.size)], pa.int16()),
                "product_id": [product] * lon.size,
                "timestamp": [stamp] * lon.size,
                "centre_lat": pa.array(lat.astype(np.float32)),
                "centre_lon": pa.array(lon.astype(np.float32)),
                "geometry": shapely.to_wkb(polygons),
                "utm_footprint": [""] * lon.size,
                "utm_crs": ["EPSG:32632"] * lon.size,
                "pixel_bbox": pa.array([[0, 0, 224, 224]] * lon.size, pa.list_(pa.int64())),
            }
        )
    joined = {name: _joined([table[name] for table in tables]) for name in tables[0]}
    path = directory / f"Core-{variant}" / "embeddings" / "part_00001.parquet"
    footer = {footers.OWN_KEY: {"version": "synthetic"}}
    patch_examples.write_example(path, joined, footer=footer, compression="zstd", row_group_size=20)
    return directory


def _joined(columns: list[Any]) -> Any:
    import pyarrow as pa

    return pa.concat_arrays([c if isinstance(c, pa.Array) else pa.array(c) for c in columns])


PRODUCT = Product(
    NAME,
    dims=2048,
    title="Major TOM Core embeddings",
    kind="patch",
    extent="Global",
    period="2015–2024*",
    cadence="Snapshot",
    survey="Major TOM | Patch | Global | 2.14–3.56 km | 2015–2024* | Snapshot | 2048 | float32 | CC-BY-SA-4.0",
    model="SSL4EO, DINOv2, SigLIP or DeCUR, by variant",
    encoder="ResNet-50 (SSL4EO, DeCUR), ViT (DINOv2, SigLIP)",
    inputs="Sentinel-2 L1C, Sentinel-2 RGB or Sentinel-1 RTC of Major TOM Core, by variant",
    access="anonymous; GeoParquet on Hugging Face",
    containers=("geoparquet", "siglip"),
    stores={name: f"hf://datasets/Major-TOM/Core-{name}/embeddings" for name in VARIANTS},
    variants=tuple(VARIANTS),
    torchgeo="MajorTOMEmbeddings",
    aliases=("majortom", "major-tom-core", "MajorTOMEmbeddings"),
    citation="Global and Dense Embeddings of Earth: Major TOM Floating in the Latent Space. arXiv:2412.05600",
    doi="10.48550/arXiv.2412.05600",
    licence="CC-BY-SA-4.0",
    attribution="Major TOM Core embeddings, ESA Phi-lab and CloudFerro (CC BY-SA 4.0).",
    share_alike=True,
    quirks=(
        "Each variant is a space of its own, with its own length of vectors: 2048 (SSL4EO), 1152 (SigLIP); for "
        "DINOv2 and DeCUR it is read from the files.",
        "SigLIP's vectors may carry a leading dimension of one.",
        "Timestamps are strings, and centre_lat and centre_lon are float32, good to about a metre; x and y come "
        "from the footprints.",
        "Patches are 2.24 km (224 pixels) or 3.84 km (384 pixels) wide and overlap by design.",
        "Core-S2L2A-MMEarth is not GeoParquet and is not opened here.",
    ),
    open=open_major_tom,
    coverage=coverage_major_tom,
    example=example_major_tom,
)
