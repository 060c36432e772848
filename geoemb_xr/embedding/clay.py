"""Clay v1.5: a masked autoencoder's encoder whose first layer is made from the wavelengths of the bands.

Written from the published code's description, weights by its names. Token 0 is the class token and all others are
patches; nothing is masked or shuffled. The place and the date are added to each patch, in its last eight numbers.
(In the older v0 the last two tokens were the place and the date.)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geoemb_xr.core.errors import SourceError, require
from geoemb_xr.embedding.cards import Encoder
from geoemb_xr.embedding.weights import fill, read_weights

_WAVES, _LATENT = 128, 128
#: Mean, deviation (digital numbers) and wavelength in micrometres of Sentinel-2 L2A, ``configs/metadata.yaml``.
_SENTINEL2 = {
    "B02": (1105.0, 1809.0, 0.493), "B03": (1355.0, 1757.0, 0.56), "B04": (1552.0, 1888.0, 0.665),
    "B05": (1887.0, 1870.0, 0.704), "B06": (2422.0, 1732.0, 0.74), "B07": (2630.0, 1697.0, 0.783),
    "B08": (2743.0, 1742.0, 0.842), "B8A": (2785.0, 1648.0, 0.865), "B11": (2388.0, 1470.0, 1.61),
    "B12": (1835.0, 1379.0, 2.19),
}  # fmt: skip
#: The same of Sentinel-1 RTC, in linear power; the last number stands for a wavelength.
_SENTINEL1 = {"VV": (0.123273, 1.492154, 3.5), "VH": (0.027337, 0.122182, 4.0)}
_PREFIX = "model.encoder."


def make_clay(encoder: Encoder, *, depth: int = 24, heads: int = 16) -> Any:
    """The network with its weights, for the wavelengths of an encoder's bands.

    Raises
    ------
    SourceError
        If they are not at hand, or not Clay's.
    """
    path = Path(encoder.weights)
    if not path.is_file():
        raise SourceError(
            f"{encoder.name} needs its weights: fetch v1.5/clay-v1.5.ckpt (5 GB, Apache-2.0) of "
            f"huggingface.co/made-with-clay/Clay, then gx.encoder({encoder.name!r}, weights='clay-v1.5.ckpt')"
        )
    state = read_weights(path)
    own = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)} or state
    return fill(_network(encoder, depth, heads), own, path, "Clay v1.5")


def _network(encoder: Encoder, depth: int, heads: int) -> Any:
    torch = require("torch", "encoders")
    nn, dims, patch = torch.nn, encoder.dims, encoder.patch
    functional = nn.functional

    class Attention(nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """Self-attention of several heads of 64 numbers."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(dims)
            self.to_qkv = nn.Linear(dims, 3 * 64 * heads, bias=False)
            self.to_out = nn.Linear(64 * heads, dims, bias=False)

        def forward(self, tokens: Any) -> Any:
            n, count, _ = tokens.shape
            qkv = self.to_qkv(self.norm(tokens)).reshape(n, count, 3, heads, 64).permute(2, 0, 3, 1, 4)
            found = functional.scaled_dot_product_attention(*qkv)
            return self.to_out(found.transpose(1, 2).reshape(n, count, -1))

    class Inner(nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """Two layers."""

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.LayerNorm(dims), nn.Linear(dims, 4 * dims), nn.GELU(), nn.Linear(4 * dims, dims)
            )

        def forward(self, tokens: Any) -> Any:
            return self.net(tokens)

    class TransformerLayers(nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """Attention, then two layers, each added to what came in."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(dims)
            self.layers = nn.ModuleList(nn.ModuleList([Attention(), Inner()]) for _ in range(depth))

        def forward(self, tokens: Any) -> Any:
            for attention, inner in self.layers:
                tokens = attention(tokens) + tokens
                tokens = inner(tokens) + tokens
            return self.norm(tokens)

    class Weights(nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """Make the weights of the first layer, one band each, and its bias, from the embedded wavelengths."""

        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(_WAVES, 4, activation="gelu", dropout=0, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.fc_weight = nn.Linear(_WAVES, patch**2 * dims)
            self.fc_bias = nn.Linear(_WAVES, dims)
            self.weight_tokens = nn.Parameter(torch.zeros(_LATENT, _WAVES))
            self.bias_token = nn.Parameter(torch.zeros(1, _WAVES))

        def forward(self, waves: Any) -> tuple[Any, Any]:
            given = torch.cat([self.weight_tokens, waves, self.bias_token])
            found = self.encoder(given)
            some = slice(_LATENT, -1)
            return self.fc_weight(found[some] + given[some]), self.fc_bias(found[-1])

    class DynamicEmbedding(nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """Patches as vectors, by weights made for the bands at hand."""

        def __init__(self) -> None:
            super().__init__()
            self.weight_generator = Weights()
            self.fclayer = nn.ModuleDict({"l1": nn.Linear(_WAVES, _WAVES), "l2": nn.Linear(_WAVES, _WAVES)})
            waves = torch.tensor([w / 1000 for w in encoder.wavelengths], dtype=torch.float32)
            self.register_buffer("waves", waves, persistent=False)

        def forward(self, images: Any) -> Any:
            speed = 1.0 / 10_000 ** (torch.arange(_WAVES // 2, device=images.device) / (_WAVES // 2 - 1))
            angle = self.waves[:, None] * speed
            told = torch.cat([angle.sin(), angle.cos()], 1)
            inner = functional.gelu(self.fclayer["l1"](told))
            weight, bias = self.weight_generator(told + functional.gelu(self.fclayer["l2"](inner)))
            weight = weight.reshape(-1, dims, patch, patch).transpose(0, 1)
            return functional.conv2d(images, weight * 0.02, bias, stride=patch).flatten(2).transpose(1, 2)

    class Clay(nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """From chips ``(n, band, y, x)``, places and dates to tokens ``(n, 1 + patch, dims)``."""

        def __init__(self) -> None:
            super().__init__()
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dims))
            self.patch_embedding = DynamicEmbedding()
            self.transformer = TransformerLayers()

        def forward(self, chips: Any, *, lonlat: Any, days: Any) -> Any:
            patches = self.patch_embedding(chips)
            rows, cols = chips.shape[-2] // patch, chips.shape[-1] // patch
            where = _places(rows, cols, dims - 8, encoder.resolution or 10.0, patches)
            told = torch.cat([_when(days), _where(lonlat)], 1).to(patches.dtype)
            n, count, _ = patches.shape
            added = torch.cat([where.expand(n, -1, -1), told[:, None].expand(-1, count, -1)], 2)
            return self.transformer(torch.cat([self.cls_token.expand(n, -1, -1), patches + added], 1))

    return Clay()


def _places(rows: int, cols: int, length: int, metres: float, like: Any) -> Any:
    """Sines and cosines of the place of each patch in its chip, by the size of a pixel, ``(patch, length)``."""
    torch = require("torch", "encoders")
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    quarter = length // 4
    speed = metres / 10_000 ** (2 * (torch.arange(quarter) / (quarter - 1)) / length)
    along = [each.reshape(-1, 1) * speed for each in (x, y)]
    found = torch.cat([wave for angle in along for wave in (angle.sin(), angle.cos())], 1)
    return found.to(device=like.device, dtype=like.dtype)


def _when(days: Any) -> Any:
    """Sine and cosine of the ISO 8601 week and of the hour; zeros where no date is known."""
    torch = require("torch", "encoders")
    dates = pd.to_datetime(days.double().cpu().numpy(), unit="D")
    weeks = dates.isocalendar().week.to_numpy(np.float32, na_value=np.nan) * np.float32(2 * np.pi / 52)
    hours = dates.hour.to_numpy(np.float32) * np.float32(2 * np.pi / 24)
    found = np.stack([np.sin(weeks), np.cos(weeks), np.sin(hours), np.cos(hours)], 1)
    return torch.from_numpy(np.nan_to_num(found).astype(np.float32)).to(days.device)


def _where(lonlat: Any) -> Any:
    """Sine and cosine of latitude and of longitude; zeros where they are not known."""
    torch = require("torch", "encoders")
    lon, lat = (lonlat.nan_to_num() * (math.pi / 180)).unbind(-1)
    found = torch.stack([lat.sin(), lat.cos(), lon.sin(), lon.cos()], 1)
    return found * lonlat.isfinite().all(1, keepdim=True)


def _clay(name: str, bands: dict[str, tuple[float, float, float]], unit: Any, inputs: str) -> Encoder:
    return Encoder(
        name,
        dims=1024,
        title=f"Clay v1.5, {inputs.partition(',')[0]}",
        bands=tuple(bands),
        wavelengths=tuple(1000 * wave for _, _, wave in bands.values()),
        units=unit,
        mean=tuple(mean for mean, _, _ in bands.values()),
        std=tuple(std for _, std, _ in bands.values()),
        chip=256,
        patch=8,
        margin=48,
        pooling="cls",
        prefix=1,
        optional=tuple(bands),
        takes=("lonlat", "days"),
        resolution=10.0,
        context_m=1280.0,
        inputs=inputs,
        weights="v1.5/clay-v1.5.ckpt of huggingface.co/made-with-clay/Clay",
        licence="Apache-2.0",
        citation="Clay Foundation (2024): Clay Foundation Model, v1.5. github.com/Clay-foundation/model",
        attribution="Clay Foundation Model v1.5 (Apache-2.0).",
        quirks=(
            "The first layer is made from wavelengths: fewer bands, or others with dataclasses.replace(encoder, "
            "bands=…, wavelengths=…, mean=…, std=…), are another input of one network.",
            "The place and the date are added to every patch; zeros stand for what is not known.",
        ),
        make=make_clay,
    )


ENCODERS = (
    _clay("clay-v1.5", _SENTINEL2, "dn", "Sentinel-2 L2A, ten bands, digital numbers"),
    _clay("clay-v1.5-sentinel1", _SENTINEL1, "power", "Sentinel-1 RTC, γ⁰ as linear power"),
)
