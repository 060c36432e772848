"""MIND: a location encoder distilled from four others; its program, a file of ONNX, comes from a path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geoemb_xr.core.model import Product
from geoemb_xr.embedding.locations import open_program
from geoemb_xr.readers.tiles import Request

if TYPE_CHECKING:
    import xarray as xr

NAME = "mind"
HUB = "https://huggingface.co/taylor-geospatial/MIND"


def open_mind(source: Any, request: Request) -> xr.DataArray:
    """MIND's vectors on a grid, an area or points."""
    return open_program(
        source, request, PRODUCT, files=f"mind.onnx and mind.onnx.data (or its .pt2) from {HUB}"
    )


PRODUCT = Product(
    NAME,
    dims=64,
    title="MIND location encoder, prefix of 64",
    kind="location",
    extent="Global",
    model="MIND",
    encoder="a trunk of 3,072 numbers whose prefixes are embeddings",
    inputs="latitude and longitude; distilled from AlphaEarth, Climplicit, GeoCLIP and SINR",
    access="a program (ONNX, torch.export) on Hugging Face, opened from its path",
    stores={"hub": HUB},
    aliases=("taylor-geospatial-mind",),
    citation=f"MIND, Taylor Geospatial. {HUB}",
    licence="MIT",
    attribution="MIND, Taylor Geospatial (MIT).",
    quirks=(
        "A function of the place alone: no time.",
        "Its publisher's default is the first 64 of 3,072 numbers, and so is this product.",
        "AlphaEarth is among what it was distilled from: as a control of AlphaEarth it knows some of it.",
        "Pixels are 0.01 degrees wide where nothing else is asked for.",
    ),
    open=open_mind,
)
