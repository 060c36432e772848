"""HydroLoc: a location encoder learnt from two encoders of images; its program comes from a path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geoemb_xr.core.model import Product
from geoemb_xr.embedding.locations import open_program
from geoemb_xr.readers.tiles import Request

if TYPE_CHECKING:
    import xarray as xr

NAME = "hydroloc"
HUB = "https://huggingface.co/isaaccorley/hydroloc"


def open_hydroloc(source: Any, request: Request) -> xr.DataArray:
    """HydroLoc's vectors on a grid, an area or points."""
    return open_program(source, request, PRODUCT, files=f"its program of ONNX or torch.export from {HUB}")


PRODUCT = Product(
    NAME,
    dims=512,
    title="HydroLoc location encoder",
    kind="location",
    extent="Global",
    model="HydroLoc",
    encoder="512 numbers whose prefixes are embeddings",
    inputs="latitude and longitude; its teachers are DINOv3-L and OlmoEarth v1.2 Base",
    access="a program (ONNX, torch.export) on Hugging Face, opened from its path",
    stores={"hub": HUB},
    matryoshka=(64, 128, 256, 512),
    aliases=("hydro-loc",),
    citation=f"HydroLoc, Isaac Corley. {HUB}",
    licence="LicenseRef-unstated",
    licence_notes="No licence of its weights was found.",
    attribution="HydroLoc, Isaac Corley (licence unstated).",
    quirks=(
        "A function of the place alone: no time.",
        "No licence of its weights was found: ask its publisher before you pass on what it gives.",
        "Pixels are 0.01 degrees wide where nothing else is asked for.",
    ),
    open=open_hydroloc,
)
