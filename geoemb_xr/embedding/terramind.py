"""TerraMind v1 (IBM, ESA, 2025): a transformer of patches of Sentinel-2, Sentinel-1 and elevation, side by side.

Written from the published code's description, weights by its names, since that code (terratorch) cannot be
installed beside the torchgeo that other encoders need. Patches of all sensors go through one network, and the
tokens of a place are their mean. Its generation of absent sensors is not here: it draws anew in each call, so that
an image would have no one vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from geoemb_xr.core.errors import require
from geoemb_xr.embedding.cards import Encoder, Unit
from geoemb_xr.embedding.inputs import WAVELENGTHS
from geoemb_xr.embedding.weights import fetching, fill, read_weights

#: Mean and deviation of each band by the name that weights have for its sensor (terratorch's ``v1_pretraining``).
SENSORS = {
    "untok_sen2l2a@224": {
        "B01": (1390.458, 2106.761), "B02": (1503.317, 2141.107), "B03": (1718.197, 2038.973),
        "B04": (1853.91, 2134.138), "B05": (2199.1, 2085.321), "B06": (2779.975, 1889.926),
        "B07": (2987.011, 1820.257), "B08": (3083.234, 1871.918), "B8A": (3132.22, 1753.829),
        "B09": (3162.988, 1797.379), "B11": (2424.884, 1434.261), "B12": (1857.648, 1334.311),
    },
    "untok_sen2l1c@224": {
        "B01": (2357.089, 1624.683), "B02": (2137.385, 1675.806), "B03": (2018.788, 1557.708),
        "B04": (2082.986, 1833.702), "B05": (2295.651, 1823.738), "B06": (2854.537, 1733.977),
        "B07": (3122.849, 1732.131), "B08": (3040.56, 1679.732), "B8A": (3306.481, 1727.26),
        "B09": (1473.847, 1024.687), "B10": (506.07, 442.165), "B11": (2472.825, 1331.411),
        "B12": (1838.929, 1160.419),
    },
    "untok_sen1grd@224": {"VV": (-12.599, 5.195), "VH": (-20.293, 5.89)},
    "untok_sen1rtc@224": {"VV": (-10.93, 4.391), "VH": (-17.329, 4.459)},
    "untok_dem@224": {"elevation": (670.665, 951.272)},
}  # fmt: skip
_PLACES = 14  # patches along a side of a chip in training: places of other sizes are interpolated


def make_terramind(encoder: Encoder, *, sensors: tuple[str, ...], size: str) -> Any:
    """The network with its weights, for the sensors and bands that an encoder has.

    Raises
    ------
    SourceError
        If the weights cannot be downloaded, or are another network's.
    """
    path = Path(encoder.weights)
    if not path.is_file():
        hub = require("huggingface_hub", "remote")
        with fetching(encoder):
            path = Path(hub.hf_hub_download(_repository(size), f"TerraMind_v1_{size}.pt"))
    _, depth, heads, is_gated = _SIZES[size]
    network = _network(encoder, sensors, depth=depth, heads=heads, is_gated=is_gated)
    state = _own_weights(read_weights(path), network, encoder, sensors)
    return fill(network, state, path, encoder.name)


def _repository(size: str) -> str:
    return f"ibm-esa-geospatial/TerraMind-1.0-{size}"


def _band_positions(encoder: Encoder, sensors: tuple[str, ...]) -> dict[str, list[int]]:
    """Positions of each present sensor's bands among those of an encoder."""
    found = {s: [k for k, b in enumerate(encoder.bands) if b in SENSORS[s]] for s in sensors}
    return {sensor: at for sensor, at in found.items() if at}


def _own_weights(
    state: Mapping[str, Any], network: Any, encoder: Encoder, sensors: tuple[str, ...]
) -> dict[str, Any]:
    """The part of a checkpoint that the network uses; the rest is decoders, other sensors and positions."""
    gate = {".mlp.fc1.": ".mlp.fc1_g.", ".mlp.fc3.": ".mlp.fc1_x."}
    is_gated = any(".mlp.fc3." in name for name in state)
    named = {}
    for name, value in state.items():
        for old, new in gate.items() if is_gated else ():
            name = name.replace(old, new)
        named[name] = value
    for sensor, at in _band_positions(encoder, sensors).items():
        key = f"encoder_embeddings.{sensor}.proj.weight"
        if key in named:  # numbers of a patch are (y, x, band): of each pixel those of the bands at hand
            whole = named[key].reshape(len(named[key]), -1, len(SENSORS[sensor]))
            order = [list(SENSORS[sensor]).index(encoder.bands[k]) for k in at]
            named[key] = whole[..., order].flatten(1)
    own = network.state_dict()
    return {name: value for name, value in named.items() if name in own}


def _network(encoder: Encoder, sensors: tuple[str, ...], *, depth: int, heads: int, is_gated: bool) -> Any:
    torch, layers = require("torch", "encoders"), require("timm.layers", "encoders")
    vit = require("timm.models.vision_transformer", "encoders")
    nn, dims, patch = torch.nn, encoder.dims, encoder.patch
    at = _band_positions(encoder, sensors)

    class ModalityEmbedding(nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """Patches of a sensor as vectors, and which sensor they are of."""

        def __init__(self, bands: int) -> None:
            super().__init__()
            self.proj = nn.Linear(patch**2 * bands, dims, bias=False)
            self.mod_emb = nn.Parameter(torch.zeros(1, 1, dims))

        def forward(self, images: Any) -> Any:
            n, bands, height, width = images.shape
            cut = images.reshape(n, bands, height // patch, patch, width // patch, patch)
            return self.proj(cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)) + self.mod_emb

    class TerraMind(nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """From chips ``(n, band, y, x)`` to tokens ``(n, patch, dims)``."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder_embeddings = nn.ModuleDict({s: ModalityEmbedding(len(own)) for s, own in at.items()})
            of_norm = partial(nn.LayerNorm, eps=1e-6)
            self.encoder = nn.ModuleList(
                vit.Block(
                    dims,
                    heads,
                    mlp_ratio=8 / 3 if is_gated else 4.0,  # a gate is a third layer: two thirds of the width
                    qkv_bias=not is_gated,
                    proj_bias=not is_gated,
                    act_layer=nn.SiLU if is_gated else nn.GELU,
                    norm_layer=of_norm,
                    mlp_layer=layers.SwiGLU if is_gated else layers.Mlp,
                )
                for _ in range(depth)
            )
            self.encoder_norm = of_norm(dims)

        def forward(self, chips: Any) -> Any:
            rows, cols = chips.shape[-2] // patch, chips.shape[-1] // patch
            places = _places(rows, cols, dims, chips)
            parts = [self.encoder_embeddings[s](chips[:, own]) + places for s, own in at.items()]
            tokens = torch.cat(parts, 1)
            for block in self.encoder:
                tokens = block(tokens)
            return self.encoder_norm(tokens).unflatten(1, (len(parts), -1)).mean(1)

    return TerraMind()


def _places(rows: int, cols: int, dims: int, like: Any) -> Any:
    """Sines and cosines of the places of patches ``(1, patch, dims)``, those of MoCo v3 for 14 × 14 patches."""
    torch = require("torch", "encoders")
    along = torch.arange(_PLACES, device=like.device, dtype=torch.float32)
    first, second = torch.meshgrid(along, along, indexing="ij")
    speed = 1 / 10_000 ** (torch.arange(dims // 4, device=like.device) / (dims // 4))
    angles = [each.reshape(-1, 1) * speed for each in (first, second)]
    found = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], 1)[None]
    if (rows, cols) != (_PLACES, _PLACES):
        grid = found.unflatten(1, (_PLACES, _PLACES)).movedim(-1, 1)
        grid = torch.nn.functional.interpolate(grid, (rows, cols), mode="bicubic", align_corners=False)
        found = grid.movedim(1, -1).flatten(1, 2)
    return found.to(like.dtype)


#: Length of a vector, blocks, heads, and whether the layers of a block have a gate (and then no bias).
_SIZES = {
    "tiny": (192, 12, 3, False),
    "small": (384, 12, 6, False),
    "base": (768, 12, 12, True),
    "large": (1024, 24, 16, True),
}
#: From the end of a card's name to its sensors, and to these in words.
_KINDS = {
    "": (("untok_sen2l2a@224", "untok_sen1grd@224"), "L2A", "GRD, σ⁰"),
    "-rtc": (("untok_sen2l2a@224", "untok_sen1rtc@224"), "L2A", "RTC, γ⁰"),
    "-l1c": (("untok_sen2l1c@224", "untok_sen1grd@224"), "L1C", "GRD, σ⁰"),
}


def _terramind(size: str, kind: str) -> Encoder:
    (optical, radar), level, processing = _KINDS[kind]
    sensors = optical, radar, "untok_dem@224"
    statistics = {band: each for sensor in sensors for band, each in SENSORS[sensor].items()}
    units: tuple[Unit, ...] = tuple(
        "dB" if b in ("VV", "VH") else "m" if b == "elevation" else "dn" for b in statistics
    )
    return Encoder(
        f"terramind-v1-{size}{kind}",
        dims=_SIZES[size][0],
        title=f"TerraMind v1 {size}",
        bands=tuple(statistics),
        wavelengths=tuple(WAVELENGTHS.get(b, float("nan")) for b in statistics),
        units=units,
        mean=tuple(mean for mean, _ in statistics.values()),
        std=tuple(std for _, std in statistics.values()),
        chip=224,
        patch=16,
        margin=48,
        optional=tuple(statistics),
        resolution=10.0,
        context_m=1120.0,
        inputs=(
            f"Sentinel-2 {level} (digital numbers), Sentinel-1 {processing} in dB (VV, VH) and elevation in m, all "
            "at 10 m; any of them may be absent"
        ),
        weights=f"TerraMind_v1_{size}.pt of huggingface.co/{_repository(size)}",
        licence="Apache-2.0",
        citation=(
            "Jakubik, J. et al. (2025): TerraMind: Large-Scale Generative Multimodality for Earth Observation. "
            "ICCV 2025. arXiv:2504.11171"
        ),
        doi="10.48550/arXiv.2504.11171",
        attribution=f"TerraMind v1 {size}, Jakubik et al. 2025 (Apache-2.0).",
        quirks=(
            "It only looks: sensors that TerraMind generates are images with the attribute generated_by here.",
            "A sensor that is absent has no tokens; a token is the mean over the sensors that are there.",
        ),
        make=partial(make_terramind, sensors=sensors, size=size),
    )


ENCODERS = tuple(_terramind(size, kind) for size in _SIZES for kind in _KINDS)
