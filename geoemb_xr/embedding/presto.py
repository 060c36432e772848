"""Presto (Tseng et al. 2023): a small transformer of the series of one pixel, of several sensors.

Written from the paper and the published weights, whose names its parts bear. Every group of bands of every month
is a token, the terrain is one for the whole series, and the place is one more; tokens that are missing are left
out. The vector is the mean of the tokens that are there, normalised.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from geoemb_xr.core.errors import SourceError, require
from geoemb_xr.embedding.cards import Encoder, Unit
from geoemb_xr.embedding.transformers import block
from geoemb_xr.embedding.weights import fill, read_weights

DIMS, HEADS, DEPTH, STEPS = 128, 8, 2, 24
#: Bands that make one token, in the order of the network's own embeddings; NDVI is made of B08 and B04.
GROUPS = {
    "S1": ("VV", "VH"),
    "S2_RGB": ("B02", "B03", "B04"),
    "S2_Red_Edge": ("B05", "B06", "B07"),
    "S2_NIR_10m": ("B08",),
    "S2_NIR_20m": ("B8A",),
    "S2_SWIR": ("B11", "B12"),
    "ERA5": ("temperature_2m", "total_precipitation"),
    "SRTM": ("elevation", "slope"),
    "NDVI": ("NDVI",),
}
BANDS = (*(band for name, group in GROUPS.items() if name != "NDVI" for band in group), "dynamic_world")
_RADAR, _OPTICAL = BANDS[:2], BANDS[2:12]
#: What means "no class" to the embedding of Dynamic World's nine classes.
_NO_CLASS = 9


def _per_band[T](radar: T, optical: T, *others: T) -> tuple[T, ...]:
    return (*(radar for _ in _RADAR), *(optical for _ in _OPTICAL), *others)


def make_presto(encoder: Encoder) -> Any:
    """The network with its weights.

    Raises
    ------
    SourceError
        If they are not at hand, or not Presto's.
    """
    path = Path(encoder.weights)
    if not path.is_file():
        raise SourceError(
            "presto needs its weights: fetch data/default_model.pt (3.3 MB, MIT) of github.com/nasaharvest/presto, "
            "then gx.encoder('presto', weights='default_model.pt')"
        )
    state = read_weights(path)
    own = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    return fill(_network(), own, path, "Presto")


def _network() -> Any:
    torch = require("torch", "encoders")
    nn = torch.nn

    class Attention(nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """Self-attention of several heads, over the tokens that are there."""

        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(DIMS, 3 * DIMS)
            self.proj = nn.Linear(DIMS, DIMS)

        def forward(self, tokens: Any, there: Any) -> Any:
            n, count, _ = tokens.shape
            qkv = self.qkv(tokens).reshape(n, count, 3, HEADS, DIMS // HEADS).permute(2, 0, 3, 1, 4)
            found = nn.functional.scaled_dot_product_attention(*qkv, attn_mask=there[:, None, None, :])
            return self.proj(found.transpose(1, 2).reshape(n, count, DIMS))

    class Presto(nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """From series ``(n, time, band)``, what of them is absent, months and places to vectors ``(n, 128)``."""

        def __init__(self) -> None:
            super().__init__()
            self.eo_patch_embed = nn.ModuleDict({k: nn.Linear(len(g), DIMS) for k, g in GROUPS.items()})
            self.dw_embed = nn.Embedding(_NO_CLASS + 1, DIMS)
            self.latlon_embed = nn.Linear(3, DIMS)
            self.blocks = nn.ModuleList(block(Attention(), DIMS) for _ in range(DEPTH))
            self.norm = nn.LayerNorm(DIMS)
            self.pos_embed = nn.Parameter(torch.zeros(1, STEPS, DIMS // 2))
            self.month_embed = nn.Embedding(12, DIMS // 4)
            self.channel_embed = nn.Embedding(len(GROUPS) + 1, DIMS // 4)

        def forward(self, series: Any, *, absent: Any, months: Any, lonlat: Any) -> Any:
            tokens, there = [self._place(lonlat)], [torch.ones_like(absent[:, :1, 0])]
            for number, (name, group) in enumerate(GROUPS.items()):
                values, gone = _group(series, absent, group)
                when = slice(0, 1) if name == "SRTM" else slice(None)  # terrain does not change
                made = self.eo_patch_embed[name](values[:, when])
                tokens.append(made + self._encodings(number, months[:, when], timeless=name == "SRTM"))
                there.append(~gone[:, when])
            classes, gone = series[..., -1].long(), absent[..., -1]
            classes = torch.where(gone, _NO_CLASS, classes)
            tokens.append(self.dw_embed(classes) + self._encodings(len(GROUPS), months))
            there.append(classes != _NO_CLASS)
            given, seen = torch.cat(tokens, 1), torch.cat(there, 1)
            used = seen.any(0)  # no work for a sensor that no pixel has
            given, seen = given[:, used], seen[:, used]
            for each in self.blocks:
                given = each(given, seen)
            share = seen[..., None].to(given.dtype)
            return self.norm((given * share).sum(1) / share.sum(1))

        def _place(self, lonlat: Any) -> Any:
            """The token of a place, from its unit vector."""
            lon, lat = (lonlat * (math.pi / 180)).unbind(-1)
            unit = torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], -1)
            return self.latlon_embed(unit)[:, None]

        def _encodings(self, channel: int, months: Any, *, timeless: bool = False) -> Any:
            """The encodings added to a token for its month, bands and position."""
            n, steps = months.shape
            own = self.channel_embed.weight[channel].expand(n, steps, -1)
            month = self.month_embed(months)
            place = self.pos_embed[:, :steps].expand(n, -1, -1)
            if timeless:
                month, place = torch.zeros_like(month), torch.zeros_like(place)
            return torch.cat([month, own, place], -1)

    def _group(series: Any, absent: Any, group: tuple[str, ...]) -> tuple[Any, Any]:
        """Values ``(n, time, band)`` of a group, and a mask of where any of them is absent."""
        if group == ("NDVI",):
            red, near = BANDS.index("B04"), BANDS.index("B08")
            total = series[..., near] + series[..., red]
            index = torch.where(
                total > 0, (series[..., near] - series[..., red]) / total.clamp_min(1e-12), 0.0
            )
            return index[..., None], absent[..., near] | absent[..., red]
        at = [BANDS.index(band) for band in group]
        return series[..., at], absent[..., at].any(-1)

    return Presto()


_UNITS: tuple[Unit, ...] = _per_band("dB", "dn", "K", "m", "m", "degrees", "any")

ENCODERS = (
    Encoder(
        "presto",
        dims=DIMS,
        title="Presto",
        kind="series",
        bands=BANDS,
        units=_UNITS,
        mean=_per_band(-25.0, 0.0, 272.15, 0.0, 0.0, 0.0, 0.0),
        std=_per_band(25.0, 10_000.0, 35.0, 0.03, 2000.0, 50.0, 1.0),
        chip=1,
        patch=1,
        outputs=("pixels",),
        steps=STEPS,
        optional=BANDS,
        resolution=10.0,
        context_m=5.0,
        inputs=(
            "monthly Sentinel-1 (σ⁰ in dB), Sentinel-2 L1C (digital numbers), ERA5 (2 m temperature in K, "
            "precipitation in m), SRTM (elevation in m, slope in degrees), Dynamic World; any of them may be absent"
        ),
        weights="default_model.pt of github.com/nasaharvest/presto",
        sha256="559c9d76f525bdf2dd3774da8b1e7f1510769b73baacac12e9e4d8d5c67fbe65",
        licence="MIT",
        citation=(
            "Tseng, G., Cartuyvels, R., Zvonkov, I., Purohit, M., Rolnick, D., Kerner, H. (2023): Lightweight, "
            "Pre-trained Transformers for Remote Sensing Timeseries. arXiv:2304.14065"
        ),
        doi="10.48550/arXiv.2304.14065",
        attribution="Presto, Tseng et al. 2023 (MIT).",
        quirks=(
            "Looks at one pixel and no neighbour.",
            "The place, as latitude and longitude, is one of its tokens.",
        ),
        make=make_presto,
    ),
)
