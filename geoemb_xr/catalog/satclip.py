"""SatCLIP: a location encoder aligned with Sentinel-2 images; torchgeo's model, weights from a path or the hub."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoemb_xr.core.errors import MissingFileError, SourceError, require
from geoemb_xr.core.model import Product
from geoemb_xr.embedding.locations import open_encoder
from geoemb_xr.readers.tiles import Request

if TYPE_CHECKING:
    import xarray as xr

NAME = "satclip"
HUB = "https://huggingface.co/microsoft/SatCLIP-ViT16-L40"
_PREFIX = "model.location."


def open_satclip(source: Any, request: Request) -> xr.DataArray:
    """SatCLIP's vectors on a grid, an area or points; ``source`` is a checkpoint, by default the hub's."""
    path = None if source is None or source == "hub" else os.fspath(source)
    if path is not None and not Path(path).is_file():
        raise MissingFileError(f"no checkpoint of SatCLIP at {path}; download {HUB} (satclip-vit16-l40.ckpt)")
    load = partial(load_satclip, path)
    return open_encoder(load, request, PRODUCT, lonlat=True, source=path or HUB)


def load_satclip(path: str | None) -> Any:
    """The location encoder with its weights.

    Raises
    ------
    SourceError
        If the hub cannot be reached, or the file is not a checkpoint of SatCLIP.
    """
    module = require("torchgeo.models.satclip", "torchgeo")
    if path is None:
        try:
            return module.satclip(module.SatCLIP_Weights.SATCLIP_VIT16_L40)
        except OSError as error:
            raise SourceError(
                f"the weights of SatCLIP could not be downloaded from {HUB} ({error}); without a network, download "
                "satclip-vit16-l40.ckpt elsewhere and give its path as source"
            ) from error
    torch = require("torch", "torch")
    stored = torch.load(path, map_location="cpu", weights_only=True)  # never a pickle
    state = stored.get("state_dict", stored)
    if any(key.startswith(_PREFIX) for key in state):
        state = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(f"{_PREFIX}nnet.")}
    meta = module.SatCLIP_Weights.SATCLIP_VIT16_L40.meta
    sizes = ("legendre_polys", "capacity", "embed_dim", "num_hidden_layers")
    model = module.satclip(**{size: meta[size] for size in sizes})
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise SourceError(f"{path} is not a checkpoint of SatCLIP ViT16-L40: {error}") from error
    return model.eval()


PRODUCT = Product(
    NAME,
    dims=256,
    title="SatCLIP location encoder (ViT16, L = 40)",
    kind="location",
    extent="Global",
    model="SatCLIP-ViT16-L40",
    encoder="spherical harmonics (40 Legendre polynomials), SIREN",
    inputs="longitude and latitude; trained against Sentinel-2 images (S2-100K)",
    access="weights on Hugging Face, through torchgeo",
    stores={"hub": HUB},
    versions=("ViT16-L40",),
    aliases=("satclip-vit16-l40",),
    citation=(
        "Klemmer, K. et al. (2025): SatCLIP: Global, General-Purpose Location Embeddings with Satellite Imagery. "
        "AAAI 2025"
    ),
    bibtex=(
        "@inproceedings{klemmer2025satclip,\n  title = {{SatCLIP}: Global, General-Purpose Location "
        "Embeddings with Satellite Imagery},\n  author = {Klemmer, Konstantin and Rolf, Esther and Robinson, "
        "Caleb and Mackey, Lester and Ru{\\ss}wurm, Marc},\n  booktitle = {Proceedings of the AAAI "
        "Conference on Artificial Intelligence},\n  doi = {10.1609/aaai.v39i4.32457},\n  year = {2025}\n}"
    ),
    doi="10.1609/aaai.v39i4.32457",
    licence="MIT",
    licence_notes="Of code and weights.",
    attribution="SatCLIP, Klemmer et al., Microsoft (MIT).",
    quirks=(
        "A function of the place alone: no time, and no file.",
        "Pixels are 0.01 degrees wide where nothing else is asked for; the encoder itself varies far more slowly.",
    ),
    open=open_satclip,
)
