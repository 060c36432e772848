"""Galileo (Tseng et al. 2025): a transformer of chips over months, of several sensors, in patches of any size.

Written from the paper and the published weights, whose names its parts bear. A token is a group of bands in a
patch and a month; weather has one per month, terrain one per patch, the place one. Tokens of which anything is
missing are left out. The vector of a patch is the mean of the tokens that speak of it, that of a chip the mean of
all.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from geoemb_xr.core.errors import SourceError, require
from geoemb_xr.embedding.cards import Encoder, Unit
from geoemb_xr.embedding.transformers import block
from geoemb_xr.embedding.weights import fill, read_weights

STEPS, BASE_PATCH, HEADS = 24, 8, 8
#: Bands of tokens in a patch and a month, in a patch, and in a month, in the order of the weights' own embeddings.
SPACE_TIME = {
    "S1": ("VV", "VH"),
    "S2_RGB": ("B02", "B03", "B04"),
    "S2_Red_Edge": ("B05", "B06", "B07"),
    "S2_NIR_10m": ("B08",),
    "S2_NIR_20m": ("B8A",),
    "S2_SWIR": ("B11", "B12"),
    "NDVI": ("NDVI",),
}
SPACE = {"SRTM": ("elevation", "slope")}
TIME = {
    "ERA5": ("temperature_2m", "total_precipitation"),
    "TC": ("def", "soil", "aet"),
    "VIIRS": ("avg_rad",),
}
#: Groups of the weights that are never given here, by their bands: land-cover maps, people.
_UNUSED = {"space_embed": {"DW": 9, "WC": 5}, "static_embed": {"LS": 1, "DW_static": 9, "WC_static": 5}}

#: Mean and deviation of each band in its units (``config/normalization.json`` of the publisher's repository).
_STATISTICS = {
    "VV": (-11.728724389184965, 4.887145774840316),
    "VH": (-18.85558188024017, 5.730270320384293),
    "B02": (1395.3408730676722, 917.7041440370853),
    "B03": (1338.4026921784578, 913.2988423581528),
    "B04": (1343.09883810357, 1092.678723527555),
    "B05": (1543.8607982512297, 1047.2206083460424),
    "B06": (2186.2022069512263, 1048.0101611156767),
    "B07": (2525.0932853316694, 1143.6903026819996),
    "B08": (2410.3377187373408, 1098.979177731649),
    "B8A": (2750.2854646886753, 1204.472755085893),
    "B11": (2234.911100061487, 1145.9774063078878),
    "B12": (1474.5311266077113, 980.2429840007796),
    "temperature_2m": (271.5674963541667, 79.80828940314429),
    "total_precipitation": (0.08554303677156568, 0.11669547098151486),
    "def": (657.3181260091111, 704.0008695557707),
    "soil": (692.1291795806885, 925.0116126406431),
    "aet": (562.781331880633, 453.2434022278578),
    "avg_rad": (1.5647115934036673, 7.513020170832818),
    "elevation": (673.0152819503361, 983.0697298296237),
    "slope": (5.930092668915115, 8.167406789813247),
}
BANDS = tuple(_STATISTICS)
_UNITS: tuple[Unit, ...] = tuple(
    "dB" if b in ("VV", "VH") else "dn" if b.startswith("B") else "K" if b.startswith("temp") else "any"
    for b in BANDS
)


def make_galileo(encoder: Encoder) -> Any:
    """The network with its weights.

    Raises
    ------
    SourceError
        If they are not at hand, or not Galileo's.
    """
    path = Path(encoder.weights)
    if not path.is_file():
        raise SourceError(
            "Galileo needs its weights: fetch data/models/nano/encoder.pt (4.2 MB, MIT) of "
            "github.com/nasaharvest/galileo, then gx.encoder('galileo-nano', weights='encoder.pt')"
        )
    state = {k.replace(".backbone", ""): v for k, v in read_weights(path).items()}
    depth = 1 + max((int(k.split(".")[1]) for k in state if k.startswith("blocks.")), default=-1)
    network = fill(_network(encoder, max(depth, 1)), state, path, encoder.name)
    return network if encoder.kind == "cube" else _of_pixels(network)


def _of_pixels(network: Any) -> Any:
    """From series ``(n, time, band)`` to vectors ``(n, dims)``: a pixel is a chip of one patch of 1 × 1."""
    torch = require("torch", "encoders")

    class Pixels(torch.nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """The mean of all tokens of a pixel, weather and place among them."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, series: Any, *, absent: Any, months: Any, lonlat: Any) -> Any:
            made = self.network(
                series[..., None, None], absent=absent[..., None, None], months=months, lonlat=lonlat
            )
            return made[:, 0]

    return Pixels()


def _network(encoder: Encoder, depth: int) -> Any:
    torch = require("torch", "encoders")
    nn = torch.nn
    dims, patch = encoder.dims, encoder.patch
    quarter = dims // 4

    class Attention(nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """Self-attention of several heads, over the tokens that are there."""

        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.proj = (nn.Linear(dims, dims) for _ in range(4))

        def forward(self, tokens: Any, there: Any) -> Any:
            n, count, _ = tokens.shape
            heads = (
                each(tokens).reshape(n, count, HEADS, -1).transpose(1, 2) for each in (self.q, self.k, self.v)
            )
            found = nn.functional.scaled_dot_product_attention(*heads, attn_mask=there[:, None, None, :])
            return self.proj(found.transpose(1, 2).reshape(n, count, dims))

    class PatchProjection(nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """Patches as vectors, by weights for 8 × 8 pixels brought to the patch's size (FlexiViT's way)."""

        def __init__(self, bands: int) -> None:
            super().__init__()
            self.proj = nn.Conv2d(bands, dims, BASE_PATCH, BASE_PATCH)

        def forward(self, images: Any) -> Any:
            weight = _resized(self.proj.weight, patch)
            return nn.functional.conv2d(images, weight, self.proj.bias, stride=patch)

    class Galileo(nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """From chips ``(n, time, band, y, x)`` to vectors ``(n, 1 + patch, dims)`` of each and of its patches."""

        def __init__(self) -> None:
            super().__init__()
            empty = torch.zeros
            self.pos_embed = nn.Parameter(empty(STEPS, quarter))
            self.s_t_channel_embed = nn.Parameter(empty(len(SPACE_TIME), quarter))
            self.sp_channel_embed = nn.Parameter(empty(3, quarter))
            self.t_channel_embed = nn.Parameter(empty(len(TIME), quarter))
            self.st_channel_embed = nn.Parameter(empty(4, quarter))
            self.blocks = nn.ModuleList(block(Attention(), dims) for _ in range(depth))
            self.month_embed = nn.Embedding(12, quarter)
            self.space_time_embed = nn.ModuleDict({k: PatchProjection(len(g)) for k, g in SPACE_TIME.items()})
            spaces = {k: len(g) for k, g in SPACE.items()} | _UNUSED["space_embed"]
            self.space_embed = nn.ModuleDict({k: PatchProjection(count) for k, count in spaces.items()})
            self.time_embed = nn.ModuleDict({k: nn.Linear(len(g), dims) for k, g in TIME.items()})
            statics = {"location": 3} | _UNUSED["static_embed"]
            self.static_embed = nn.ModuleDict({k: nn.Linear(count, dims) for k, count in statics.items()})
            self.norm = nn.LayerNorm(dims)
            for name, values in (("mean", encoder.mean), ("std", encoder.std)):
                shape = torch.tensor(values).reshape(-1, 1, 1)
                self.register_buffer(f"own_{name}", shape, persistent=False)

        def forward(self, chips: Any, *, absent: Any, months: Any, lonlat: Any) -> Any:
            n, steps, _, height, width = chips.shape
            rows, cols = height // patch, width // patch
            groups = [
                self._place(lonlat),
                *self._weather(chips, absent, months),
                self._terrain(chips, absent),
            ]
            groups += [
                self._pictures(chips, absent, months, number, name, group)
                for number, (name, group) in enumerate(SPACE_TIME.items())
            ]
            tokens = torch.cat([each.reshape(n, -1, dims) for each, _ in groups], 1)
            seen = torch.cat([there.reshape(n, -1) for _, there in groups], 1)
            used = seen.any(0)  # no work for what no chip has
            given = tokens[:, used]
            for each in self.blocks:
                given = each(given, seen[:, used])
            made = torch.zeros_like(tokens)
            made[:, used] = self.norm(given).to(made.dtype)
            made = made * seen[..., None]
            whole = made.sum(1) / seen.sum(1, keepdim=True)
            # of each patch speak its own tokens, and those of no patch
            common = 1 + steps * len(TIME)
            own, own_seen = (
                each[:, common:].reshape(n, -1, rows * cols, *each.shape[2:]) for each in (made, seen)
            )
            total = own.sum(1) + made[:, None, :common].sum(2)
            count = own_seen.sum(1) + seen[:, None, :common].sum(2)
            blind = ~own_seen[:, 1:].any(1)
            patches = (total / count[..., None]).masked_fill(blind[..., None], math.nan)
            return torch.cat([whole[:, None], patches], 1)

        def _encodings(self, channel: Any, *, months: Any = None, rows: int = 0, cols: int = 0) -> Any:
            """The encodings added to tokens ``(n, month, patch, dims)``: of their bands, order, month and place."""
            n, steps = months.shape if months is not None else (1, 1)
            cells = max(rows * cols, 1)
            shape = (n, steps, cells, quarter)
            zeros = torch.zeros(shape, dtype=channel.dtype, device=channel.device)
            order = month = place = zeros
            if months is not None:
                order = self.pos_embed[:steps, None].expand(shape)
                month = self.month_embed(months)[:, :, None].expand(shape)
            if rows:
                place = _places(rows, cols, quarter, patch, channel).expand(shape)
            return torch.cat([channel.expand(shape), order, month, place], -1)

        def _place(self, lonlat: Any) -> tuple[Any, Any]:
            lon, lat = (lonlat * (math.pi / 180)).unbind(-1)
            unit = torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], -1)
            made = self.static_embed["location"](unit)[:, None]
            there = torch.ones_like(made[..., 0], dtype=torch.bool)
            return made + self._encodings(self.st_channel_embed[1])[:, 0], there

        def _weather(self, chips: Any, absent: Any, months: Any) -> list[tuple[Any, Any]]:
            """One token per month for weather, the same over a whole chip: the mean of its pixels."""
            found = []
            for number, (name, group) in enumerate(TIME.items()):
                at = [BANDS.index(b) for b in group]
                share = (~absent[:, :, at]).to(chips.dtype)
                counts = share.sum((3, 4))
                values = (chips[:, :, at] * share).sum((3, 4)) / counts.clamp_min(1)
                made = self.time_embed[name](values)
                told = self._encodings(self.t_channel_embed[number], months=months)[:, :, 0]
                found.append((made + told, (counts > 0).all(2)))
            return found

        def _terrain(self, chips: Any, absent: Any) -> tuple[Any, Any]:
            """One token per patch for terrain, which does not change: the mean over time."""
            at = [BANDS.index(b) for b in SPACE["SRTM"]]
            share = (~absent[:, :, at]).to(chips.dtype)
            counts = share.sum(1)
            made = self.space_embed["SRTM"]((chips[:, :, at] * share).sum(1) / counts.clamp_min(1))
            rows, cols = made.shape[2:]
            told = self._encodings(self.sp_channel_embed[0], rows=rows, cols=cols)[:, 0]
            return made.flatten(2).transpose(1, 2) + told, _complete_patches((counts > 0).all(1), patch)

        def _pictures(
            self, chips: Any, absent: Any, months: Any, number: int, name: str, group: tuple[str, ...]
        ) -> tuple[Any, Any]:
            """One token per month and patch for a group of bands."""
            n, steps = months.shape
            if name == "NDVI":
                red, near = (
                    chips[:, :, i] * self.own_std[i] + self.own_mean[i]
                    for i in (BANDS.index("B04"), BANDS.index("B08"))
                )
                total = near + red
                values = torch.where(total > 0, (near - red) / total.clamp_min(1e-12), 0.0)[:, :, None]
                gone = absent[:, :, BANDS.index("B04")] | absent[:, :, BANDS.index("B08")]
            else:
                at = [BANDS.index(b) for b in group]
                values, gone = chips[:, :, at], absent[:, :, at].any(2)
            made = self.space_time_embed[name](values.flatten(0, 1))
            rows, cols = made.shape[2:]
            made = made.flatten(2).transpose(1, 2).reshape(n, steps, rows * cols, dims)
            told = self._encodings(self.s_t_channel_embed[number], months=months, rows=rows, cols=cols)
            return made + told, _complete_patches(~gone.flatten(0, 1), patch)

    return Galileo()


def _complete_patches(there: Any, patch: int) -> Any:
    """Patches ``(n, patch)`` of which no pixel is missing in masks ``(n, y, x)``."""
    n, height, width = there.shape
    return there.reshape(n, height // patch, patch, width // patch, patch).all(4).all(2).reshape(n, -1)


def _resized(weight: Any, patch: int) -> Any:
    """Resize weights to another patch size by the pseudo-inverse of resizing (FlexiViT, Beyer et al. 2023)."""
    torch = require("torch", "encoders")
    if patch == BASE_PATCH:
        return weight
    cells = BASE_PATCH**2
    pictures = torch.eye(cells, device=weight.device).reshape(cells, 1, BASE_PATCH, BASE_PATCH)
    smaller = torch.nn.functional.interpolate(pictures, (patch, patch), mode="bicubic", antialias=True)
    back = torch.linalg.pinv(smaller.reshape(cells, -1)).to(weight.dtype)
    return (weight.flatten(2) @ back.T).reshape(*weight.shape[:2], patch, patch)


def _places(rows: int, cols: int, length: int, patch: int, like: Any) -> Any:
    """Sines and cosines of the place of each patch in its chip, in units of 10 m, ``(patch, length)``."""
    torch = require("torch", "encoders")
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    half = length // 2
    speed = 1.0 / 10_000 ** (torch.arange(half // 2) / half / 2.0)
    parts = []
    for along in (x, y):
        angle = (along.reshape(-1, 1) * float(patch)) * speed
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, 1).to(device=like.device, dtype=like.dtype)


ENCODERS = (
    Encoder(
        "galileo-nano",
        dims=128,
        title="Galileo nano",
        kind="cube",
        bands=BANDS,
        units=_UNITS,
        # its publisher brings two deviations below the mean to 0, and two above to 1
        mean=tuple(mean - 2 * std for mean, std in _STATISTICS.values()),
        std=tuple(4 * std for _, std in _STATISTICS.values()),
        chip=16,
        patch=4,
        margin=4,
        # without a margin 30.3 and 17.1 (a synthetic scene of two months, Sentinel-2, official weights)
        seam=(16.0, 16.4),
        outputs=("tokens", "chips", "pixels"),
        pooling="cls",
        prefix=1,
        steps=STEPS,
        optional=BANDS,
        resolution=10.0,
        context_m=80.0,
        inputs=(
            "monthly Sentinel-1 (σ⁰ in dB), Sentinel-2 L1C (digital numbers), ERA5 (2 m temperature in K, "
            "precipitation in m), TerraClimate, VIIRS lights, SRTM (elevation in m, slope in degrees); any may be "
            "absent"
        ),
        weights="data/models/nano/encoder.pt of github.com/nasaharvest/galileo",
        sha256="eab6acacf527886a508a555bc24efe4b4a2cf91b162e84cd1c4a1807e942180c",
        licence="MIT",
        citation=(
            "Tseng, G., Fuller, A., Reil, M., Herzog, H., Beukema, P., Bastani, F., Green, J. R., Shelhamer, E., "
            "Kerner, H., Rolnick, D. (2025): Galileo: Learning Global & Local Features of Many Remote Sensing "
            "Modalities. arXiv:2502.09356"
        ),
        doi="10.48550/arXiv.2502.09356",
        attribution="Galileo, Tseng et al. 2025 (MIT).",
        quirks=(
            "The place, as latitude and longitude, is one of its tokens.",
            "As pixels, a patch is one pixel and its vector the mean of all its tokens: a space of its own.",
            "Land-cover maps and population, which it can take, are not given: they would answer for the images.",
        ),
        make=make_galileo,
    ),
)
