"""Major TOM Core embeddings: several encoders on the same grid, each a variant of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from geoemb_xr.core.errors import EmbeddingError, SourceError, check_choice
from geoemb_xr.core.model import Product
from geoemb_xr.embedding.words import siglip
from geoemb_xr.examples.major_tom import example_major_tom
from geoemb_xr.readers import footers, geoparquet
from geoemb_xr.readers.layouts import PatchLayout
from geoemb_xr.readers.tiles import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
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


LAYOUT = PatchLayout(
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


def words_major_tom(texts: Sequence[str], version: str) -> np.ndarray:
    """Words in the space of the variant that was learnt with words."""
    if version != "S2RGB-SigLIP":
        raise EmbeddingError(
            f"{NAME} {version} was learnt from images alone; words are searched only in its variant S2RGB-SigLIP"
        )
    return siglip(texts)


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
    citation=(
        "Czerkawski, M., Kluczek, M., Bojanowski, J. S. (2024): Global and Dense Embeddings of Earth: Major "
        "TOM Floating in the Latent Space. arXiv:2412.05600. Data: doi:10.57967/hf/3755 (S2L1C-SSL4EO), "
        "doi:10.57967/hf/5244 (S1RTC-SSL4EO), doi:10.57967/hf/3753 (S2RGB-DINOv2), doi:10.57967/hf/3752 "
        "(S2RGB-SigLIP)"
    ),
    bibtex=(
        "@article{czerkawski2024global,\n  title = {Global and Dense Embeddings of {Earth}: {Major TOM} "
        "Floating in the Latent Space},\n  author = {Czerkawski, Mikolaj and Kluczek, Marcin and Bojanowski, "
        "J{\\k{e}}drzej S.},\n  journal = {arXiv preprint arXiv:2412.05600},\n  year = {2024}\n}"
    ),
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
    text=words_major_tom,
)
