"""Backbones from timm, with the weights that torchgeo and timm publish.

Of what comes with weights only the normalisation is taken, as numbers on the card: their transforms resize and
crop, which would move tokens.
"""

from __future__ import annotations

import difflib
import math
from functools import partial
from pathlib import Path
from typing import Any

from geoemb_xr.core.errors import SourceError, require
from geoemb_xr.core.model import normalise_name
from geoemb_xr.embedding.cards import Encoder
from geoemb_xr.embedding.inputs import WAVELENGTHS
from geoemb_xr.embedding.weights import fetching, read_weights

PREFIX = "timm/"
_ALL_BANDS = tuple(WAVELENGTHS)
#: Mean and deviation of SSL4EO-S12's Sentinel-2 (digital numbers) and Sentinel-1 (dB), as torchgeo has them.
SSL4EO_S2 = {
    "B01": (1612.9, 791.0), "B02": (1397.6, 854.3), "B03": (1322.3, 878.7), "B04": (1373.1, 1144.9),
    "B05": (1561.0, 1127.5), "B06": (2108.4, 1164.2), "B07": (2390.7, 1276.0), "B08": (2318.7, 1249.5),
    "B8A": (2581.0, 1345.9), "B09": (837.7, 577.5), "B10": (22.0, 47.5), "B11": (2195.2, 1340.0),
    "B12": (1537.4, 1142.9),
}  # fmt: skip
SSL4EO_S1 = {"VV": (-12.59, 5.26), "VH": (-20.26, 5.91)}


def make_backbone(encoder: Encoder, *, architecture: str, published: str) -> Any:
    """A network of timm that gives its features, with its weights.

    Parameters
    ----------
    encoder : Encoder
        Card of the encoder; ``weights`` may be a file.
    architecture : str
        timm's name of the network.
    published : str
        Where its weights are had: a name of torchgeo's ``get_weight``, or of timm after ``timm/``.

    Raises
    ------
    SourceError
        If the weights cannot be downloaded, or are another network's.
    """
    timm = require("timm", "encoders")
    state = _state(encoder, published)
    network = timm.create_model(
        architecture, in_chans=len(encoder.bands), num_classes=0, **_sized(encoder, state)
    )
    missing, unexpected = network.load_state_dict(state, strict=False)
    # published checkpoints carry heads that are not used here
    if missing or [key for key in unexpected if not key.startswith(("fc.", "head."))]:
        raise SourceError(
            f"{encoder.weights} does not hold the weights of {encoder.name} ({architecture}): missing are "
            f"{list(missing)[:3]}, unknown are {unexpected[:3]}"
        )
    return features(network)


def features(network: Any) -> Any:
    """Return the features before a timm network's head: tokens of a transformer, or the last feature map."""
    torch = require("torch", "encoders")

    class Features(torch.nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """Tokens ``(n, prefix + patch, dims)`` or maps ``(n, dims, y, x)``."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.channels_last = getattr(network, "output_fmt", "") == "NHWC"

        def forward(self, chips: Any) -> Any:
            found = self.network.forward_features(chips)
            return found.movedim(-1, 1) if self.channels_last else found

    return Features()


def _sized(encoder: Encoder, state: Any) -> dict[str, Any]:
    """Options that let a transformer take chips of another size: its position embeddings are interpolated."""
    if "pos_embed" not in state:
        return {}
    side = math.isqrt(state["pos_embed"].shape[1]) * encoder.patch
    return {"img_size": side, **({"dynamic_img_size": True} if side != encoder.chip else {})}


def _state(encoder: Encoder, published: str) -> Any:
    """Weights of a file, or the published ones; nothing is unpickled."""
    path = Path(encoder.weights)
    if path.is_file():
        return read_weights(path)
    with fetching(encoder):
        if published.startswith(PREFIX):
            timm = require("timm", "encoders")
            name = published.removeprefix(PREFIX)
            own = {"in_chans": len(encoder.bands), "num_classes": 0}
            return timm.create_model(name, pretrained=True, **own).state_dict()
        weights = require("torchgeo.models", "encoders").get_weight(published)
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)


def timm_encoder(name: str) -> Encoder:
    """The card of any network that timm has weights for, as ``timm/vit_base_patch16_224.mae``.

    Its facts are timm's own: length, patch, class tokens, size of chips, mean and deviation. It takes red, green
    and blue from 0 to 1.

    Raises
    ------
    ValueError
        If timm has no weights by that name.
    """
    timm, torch = require("timm", "encoders"), require("torch", "encoders")
    own = name.removeprefix(PREFIX)
    if not timm.is_model_pretrained(own):
        close = ", ".join(difflib.get_close_matches(own, timm.list_pretrained(), n=3))
        raise ValueError(f"timm has no weights called {own!r}" + (f"; near are {close}" if close else ""))
    config = timm.get_pretrained_cfg(own)
    with torch.device("meta"):
        network = timm.create_model(own, num_classes=0)
    patch = network.feature_info[-1]["reduction"] if getattr(network, "feature_info", None) else 32
    prefix = getattr(network, "num_prefix_tokens", 0)
    tag = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    return Encoder(
        normalise_name(f"timm-{tag}"),
        dims=network.num_features,
        title=f"{tag} of timm",
        bands=("B04", "B03", "B02"),
        wavelengths=tuple(WAVELENGTHS[b] for b in ("B04", "B03", "B02")),
        mean=tuple(config.mean),
        std=tuple(config.std),
        chip=config.input_size[-1] // patch * patch,
        patch=patch,
        margin=config.input_size[-1] // patch // 5 * patch,
        pooling="cls" if prefix else "mean",
        prefix=prefix,
        inputs="red, green and blue, stretched for the eye, from 0 to 1",
        weights=f"{PREFIX}{tag}",
        licence=config.license or "",
        citation=f"Weights {tag} of timm (Wightman 2019, doi:10.5281/zenodo.4414861); its model card says whose",
        quirks=("Trained on photographs: reflectance is to be stretched, scale=3 for Sentinel-2.",),
        make=partial(make_backbone, architecture=tag, published=f"{PREFIX}{tag}"),
    )


#: Names that begin so are found by what builds their card.
FINDERS = {PREFIX: timm_encoder}
#: From a card's name to timm's architecture and to where its weights are published.
_SOURCES = {
    "ssl4eo-resnet18-moco": ("resnet18", "ResNet18_Weights.SENTINEL2_ALL_MOCO"),
    "ssl4eo-resnet50-moco": ("resnet50", "ResNet50_Weights.SENTINEL2_ALL_MOCO"),
    "ssl4eo-resnet50-dino": ("resnet50", "ResNet50_Weights.SENTINEL2_ALL_DINO"),
    "ssl4eo-resnet50-softcon": ("resnet50", "ResNet50_Weights.SENTINEL2_ALL_SOFTCON"),
    "ssl4eo-resnet50-moco-s1": ("resnet50", "ResNet50_Weights.SENTINEL1_ALL_MOCO"),
    "ssl4eo-vits16-moco": ("vit_small_patch16_224", "ViTSmall16_Weights.SENTINEL2_ALL_MOCO"),
    "ssl4eo-vits16-dino": ("vit_small_patch16_224", "ViTSmall16_Weights.SENTINEL2_ALL_DINO"),
    "ssl4eo-vits16-mae": ("vit_small_patch16_224", "ViTSmall16_Weights.SENTINEL2_ALL_MAE"),
    "ssl4eo-vitb16-mae": ("vit_base_patch16_224", "ViTBase16_Weights.SENTINEL2_ALL_MAE"),
    "ssl4eo-vits16-mae-s1": ("vit_small_patch16_224", "ViTSmall16_Weights.SENTINEL1_GRD_MAE"),
    "ssl4eo-vits14-softcon": ("vit_small_patch14_dinov2", "ViTSmall14_DINOv2_Weights.SENTINEL2_ALL_SOFTCON"),
    "ssl4eo-vitb14-softcon": ("vit_base_patch14_dinov2", "ViTBase14_DINOv2_Weights.SENTINEL2_ALL_SOFTCON"),
    "dinov3-vitl16-sat": ("vit_large_patch16_dinov3", "timm/vit_large_patch16_dinov3.sat493m"),
}


def _maker_of(name: str) -> Any:
    architecture, published = _SOURCES[name]
    return partial(make_backbone, architecture=architecture, published=published)


def _ssl4eo(name: str, dims: int, method: str, sha256: str = "") -> Encoder:
    """A backbone trained on SSL4EO-S12; its file's name carries the first digits of its hash."""
    body = name.split("-")[1]
    vit, is_radar = "vit" in body, name.endswith("-s1")
    patch = int(body[-2:]) if vit else 32
    statistics = SSL4EO_S1 if is_radar else SSL4EO_S2 if method == "SoftCon" else {}
    shown = f"ViT-{body[3].upper()}/{patch}" if vit else body.replace("resnet", "ResNet-")
    return Encoder(
        name,
        dims=dims,
        title=f"SSL4EO-S12 {shown} ({method}{', Sentinel-1' if is_radar else ''})",
        bands=tuple(SSL4EO_S1) if is_radar else _ALL_BANDS,
        wavelengths=() if is_radar else tuple(WAVELENGTHS.values()),
        units="dB" if is_radar else "dn" if statistics else "reflectance",
        mean=tuple(mean for mean, _ in statistics.values()),
        std=tuple(std for _, std in statistics.values()),
        chip=224,
        patch=patch,
        margin=3 * patch if vit else 64,
        pooling="cls" if vit else "mean",
        prefix=int(vit),
        resolution=10.0,
        context_m=1120.0,
        inputs="Sentinel-1 GRD, σ⁰ in dB" if is_radar else "Sentinel-2 L1C, 13 bands brought to 10 m",
        weights=f"torchgeo {_SOURCES[name][1]}",
        sha256=sha256,
        licence="CC-BY-4.0",
        citation=(
            "Wang, Y., Braham, N. A. A., Xiong, Z., Liu, C., Albrecht, C. M., Zhu, X. X. (2023): SSL4EO-S12. IEEE "
            "Geoscience and Remote Sensing Magazine 11 (3), 98–106"
            + (
                "; Wang, Y., Albrecht, C. M., Zhu, X. X. (2024): SoftCon. arXiv:2405.20462"
                if statistics and vit
                else ""
            )
        ),
        doi="10.1109/MGRS.2023.3281651",
        attribution="SSL4EO-S12, Wang et al. 2023 (CC BY 4.0).",
        quirks=()
        if is_radar
        else ("Trained on top-of-atmosphere reflectance (L1C): surface reflectance is darker in the blue.",),
        make=_maker_of(name),
    )


ENCODERS = (
    _ssl4eo("ssl4eo-resnet18-moco", 512, "MoCo", "59bfdff9"),
    _ssl4eo("ssl4eo-resnet50-moco", 2048, "MoCo", "df8b932e"),
    _ssl4eo("ssl4eo-resnet50-dino", 2048, "DINO", "d6c330e9"),
    _ssl4eo("ssl4eo-resnet50-softcon", 2048, "SoftCon"),
    _ssl4eo("ssl4eo-resnet50-moco-s1", 2048, "MoCo", "906e4356"),
    _ssl4eo("ssl4eo-vits16-moco", 384, "MoCo", "67c9032d"),
    _ssl4eo("ssl4eo-vits16-dino", 384, "DINO", "36bcc127"),
    _ssl4eo("ssl4eo-vits16-mae", 384, "MAE"),
    _ssl4eo("ssl4eo-vitb16-mae", 768, "MAE"),
    _ssl4eo("ssl4eo-vits16-mae-s1", 384, "MAE"),
    _ssl4eo("ssl4eo-vits14-softcon", 384, "SoftCon"),
    _ssl4eo("ssl4eo-vitb14-softcon", 768, "SoftCon"),
    Encoder(
        "dinov3-vitl16-sat",
        dims=1024,
        title="DINOv3 ViT-L/16, satellite weights",
        bands=("B04", "B03", "B02"),
        wavelengths=(664.6, 559.8, 492.4),
        units="any",
        mean=(0.430, 0.411, 0.296),
        std=(0.213, 0.156, 0.143),
        chip=224,
        patch=16,
        margin=48,
        pooling="cls",
        prefix=5,
        resolution=0.6,
        context_m=67.2,
        bfloat16=True,
        inputs="red, green and blue of 0.6 m Maxar pictures, stretched for the eye, from 0 to 1",
        weights="timm/vit_large_patch16_dinov3.sat493m",
        licence="DINOv3 License",
        citation="Siméoni, O. et al. (2025): DINOv3. arXiv:2508.10104",
        doi="10.48550/arXiv.2508.10104",
        quirks=(
            "Made for pictures, 8 bits divided by 255: reflectance is to be stretched, scale=3 for Sentinel-2.",
        ),
        make=_maker_of("dinov3-vitl16-sat"),
    ),
)
