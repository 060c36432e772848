"""EarthEmbeddings: four encoders on uniformly sampled Major TOM Core images, plain Parquet, half precision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from geoemb_xr.core.errors import EmbeddingError, SourceError, check_choice
from geoemb_xr.core.model import Product
from geoemb_xr.embedding.words import siglip
from geoemb_xr.examples.earth_embeddings import example_earth_embeddings
from geoemb_xr.readers import footers, geoparquet
from geoemb_xr.readers.layouts import PatchLayout
from geoemb_xr.readers.tiles import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import xarray as xr

NAME = "earth-embeddings"
VARIANTS = ("SatCLIP", "FarSLIP", "DINOv2", "SigLIP")


def _variant_in(path: str) -> str | None:
    folded = path.lower()
    return next((name for name in VARIANTS if name.lower() in folded), None)


def _version(facts: footers.FileFacts) -> str:
    found = _variant_in(facts.file.url)
    if found is None:
        raise SourceError(
            f"{facts.file.url} does not say which encoder made it; give variant=, one of {', '.join(VARIANTS)}"
        )
    return found


LAYOUT = PatchLayout(
    geometry="",
    centre=("centre_lon", "centre_lat"),
    dates=("timestamp",),
    skip=("geometry_wkt",),
    patch_m=3840.0,
    version_of=_version,
)


def open_earth_embeddings(source: Any, request: Request) -> xr.DataArray:
    """Rows of one variant's files."""
    if source is None:
        raise SourceError(
            f"the names of the files of {NAME!r} are not documented, so that they cannot be opened by themselves; "
            "download one from huggingface.co/datasets/ML4Sustain/EarthEmbeddings and give its path as source"
        )
    layout = LAYOUT
    if request.variant is not None:
        variant = check_choice("variant", request.variant, VARIANTS)
        layout = replace(LAYOUT, version_of=lambda facts: _variant_in(facts.file.url) or variant)
        request = replace(request, version=request.version or variant)
    return geoparquet.open_patches(source, request, PRODUCT, layout)


def words_earth_embeddings(texts: Sequence[str], version: str) -> np.ndarray:
    """Words in the space of the variant whose text encoder can be had."""
    if version != "SigLIP":
        raise EmbeddingError(
            f"words can be searched only in the variant SigLIP of {NAME}; this one is {version}"
        )
    return siglip(texts)


PRODUCT = Product(
    NAME,
    dims=1152,
    title="EarthEmbeddings",
    kind="patch",
    dtype="float16",
    extent="Global, with gaps",
    period="2015–2024*",
    cadence="Snapshot",
    survey=(
        "EarthEmbeddings | Patch | Global* | 2.24–3.84 km | 2015–2024* | Snapshot | "
        "256–1152 | float16/float32 | CC-BY-SA-4.0"
    ),
    model="SatCLIP, FarSLIP, DINOv2 or SigLIP, by variant",
    inputs="Sentinel-2 L2A of Major TOM Core, sampled uniformly",
    access="anonymous; Parquet on Hugging Face",
    containers=("parquet",),
    variants=VARIANTS,
    torchgeo="EarthEmbeddings",
    aliases=("earthembeddings",),
    citation=(
        "Zheng, Y. et al. (2026): EarthEmbeddingExplorer: A Web Application for Cross-Modal Retrieval of "
        "Global Satellite Images. arXiv:2603.29441. "
        "https://huggingface.co/datasets/ML4Sustain/EarthEmbeddings"
    ),
    bibtex=(
        "@article{zheng2026earthembeddingexplorer,\n  title = {{EarthEmbeddingExplorer}: A Web Application "
        "for Cross-Modal Retrieval of Global Satellite Images},\n  author = {Zheng, Yijie and Wu, Weijie and "
        "Wu, Bingyue and Zhao, Long and Li, Guoqing and Czerkawski, Mikolaj and Klemmer, Konstantin},\n  "
        "journal = {arXiv preprint arXiv:2603.29441},\n  year = {2026}\n}"
    ),
    doi="10.48550/arXiv.2603.29441",
    licence="CC-BY-SA-4.0",
    attribution="EarthEmbeddings, ML4Sustain (CC BY-SA 4.0).",
    share_alike=True,
    quirks=(
        "Plain Parquet without GeoParquet's metadata: longitude and latitude of the centres are columns.",
        "Vectors are stored as float16 or float32; opened as float32.",
        "Lengths run from 256 to 1152 by variant and are read from the file.",
        "Patches are 2.24 to 3.84 km wide.",
    ),
    open=open_earth_embeddings,
    example=example_earth_embeddings,
    text=words_earth_embeddings,
)
