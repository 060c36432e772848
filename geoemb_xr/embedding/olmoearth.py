"""OlmoEarth (Ai2, 2025): a transformer of chips over months, of Sentinel-2 and Sentinel-1, in patches of any size.

The network is its publisher's (``olmoearth-pretrain-minimal``). The vector of a patch is the mean of the tokens
that speak of it and were seen, that of a chip the mean of all. Its three versions are three spaces.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from geoemb_xr.core.errors import require
from geoemb_xr.embedding.cards import Encoder, Unit
from geoemb_xr.embedding.weights import fetching, fill, read_weights

#: Mean and deviation of each band (``norm_configs/computed.json`` of the publisher's package), in its order.
_SENTINEL2 = {
    "B02": (1188.9412572078477, 1859.1923971769581), "B03": (1407.7739105458452, 1727.7387413631088),
    "B04": (1513.0573882432757, 1740.7757298757895), "B08": (2755.481305028308, 1612.2565699990187),
    "B05": (1890.9893042634167, 1754.7320388511766), "B06": (2483.7812315422448, 1622.1172720635755),
    "B07": (2722.728248756412, 1621.8226170190276), "B8A": (2885.570263047681, 1611.3587521042082),
    "B11": (2562.852607796968, 1441.5471830655151), "B12": (1914.1383249044113, 1328.8914382756407),
    "B01": (1115.8494388252218, 1955.6991794280914), "B09": (3269.812554170875, 2651.088425085525),
}  # fmt: skip
_SENTINEL1 = {
    "VV": (-11.648990747328444, 10.840350299936597),
    "VH": (-17.745436133270044, 10.216274681392647),
}
_STATISTICS = {**_SENTINEL2, **_SENTINEL1}
BANDS = tuple(_STATISTICS)
_UNITS: tuple[Unit, ...] = tuple("dB" if b in _SENTINEL1 else "dn" for b in BANDS)
_OPTICAL, _RADAR = slice(0, len(_SENTINEL2)), slice(len(_SENTINEL2), None)
_SEEN, _MISSING = 0, 3


def make_olmoearth(encoder: Encoder, *, version: str, size: str) -> Any:
    """The network with its weights, from a file or the hub; nothing is unpickled.

    Raises
    ------
    SourceError
        If the weights cannot be downloaded, or are another network's.
    """
    package = require("olmoearth_pretrain_minimal", "encoders")
    network = package.OlmoEarthPretrain_v1(model_size=size, model_version=version).model
    path = Path(encoder.weights)
    if not path.is_file():
        hub = require("huggingface_hub", "remote")
        with fetching(encoder):
            path = Path(hub.hf_hub_download(_repository(version, size), "weights.pth"))
    own = set(network.state_dict())
    state = {k: v for k, v in read_weights(path).items() if k in own}
    return _module(fill(network, state, path, encoder.name).encoder, encoder.patch)


def _repository(version: str, size: str) -> str:
    return f"allenai/OlmoEarth-{version.replace('.', '_')}-{size.title()}"


def _module(network: Any, patch: int) -> Any:
    torch = require("torch", "encoders")
    sample = require(
        "olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.datatypes", "encoders"
    ).MaskedOlmoEarthSample

    class OlmoEarth(torch.nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """From chips ``(n, time, band, y, x)`` to vectors ``(n, 1 + patch, dims)`` of each and of its patches."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, chips: Any, *, absent: Any, months: Any, lonlat: Any) -> Any:
            given = {"timestamps": _timestamps(months)}
            for name, some in (("sentinel2_l2a", _OPTICAL), ("sentinel1", _RADAR)):
                own, gone = chips[:, :, some], absent[:, :, some]
                if not gone.all():
                    given[name] = own.permute(0, 3, 4, 1, 2)
                    given[f"{name}_mask"] = self._mask(
                        gone, network.patch_embeddings.tokenization_config, name
                    )
            # the network fills a batch up to its longest series of tokens, and looks at what it filled in: only
            # chips with as many tokens go together, so that a vector does not depend on its neighbours
            masks = [each[:, ::patch, ::patch] for name, each in given.items() if name.endswith("_mask")]
            lengths = sum((each == _SEEN).flatten(1).sum(1) for each in masks)
            out: Any = None
            for length in lengths.unique().tolist():
                some = lengths == length
                made = self._alike({name: each[some] for name, each in given.items()})
                out = made.new_empty((len(chips), *made.shape[1:])) if out is None else out
                out[some] = made
            return out

        def _alike(self, given: dict[str, Any]) -> Any:
            """Vectors of chips with as many tokens."""
            found = network(sample(**given), patch_size=patch, input_res=10, fast_pass=False)
            return _pooled(
                found["tokens_and_masks"], [name for name in ("sentinel2_l2a", "sentinel1") if name in given]
            )

        def _mask(self, gone: Any, tokenization: Any, name: str) -> Any:
            """Mask of what is missing per group of bands ``(n, y, x, time, group)``, in whole patches.

            Later versions have one group and were trained with bands left out: one that is nowhere is 0 to them.
            """
            groups = tokenization.get_bandset_indices(name)
            parts = []
            for group in groups:
                some = gone[:, :, group]
                nowhere = (
                    some.flatten(3).all(3).all(1)
                    if len(groups) == 1
                    else torch.zeros_like(some[:, 0, :, 0, 0])
                )
                lost = (some & ~nowhere[:, None, :, None, None]).any(2) | some.all(2)
                whole = torch.nn.functional.max_pool2d(lost.float(), patch)
                parts.append(whole.repeat_interleave(patch, 2).repeat_interleave(patch, 3) > 0)
            missing = torch.stack(parts, -1).permute(0, 2, 3, 1, 4)
            return torch.where(missing, _MISSING, _SEEN)

    return OlmoEarth()


def _pooled(found: Any, names: list[str]) -> Any:
    """Mean of the unmasked tokens of a chip and of each of its patches; NaN where there are none."""
    torch = require("torch", "encoders")
    total: Any = 0
    count: Any = 0
    for name in names:
        tokens, mask = getattr(found, name), getattr(found, f"{name}_mask")
        seen = (mask == _SEEN)[..., None].to(tokens.dtype)
        total = total + (tokens * seen).sum((3, 4)).flatten(1, 2)
        count = count + seen.sum((3, 4)).flatten(1, 2)
    whole = total.sum(1) / count.sum(1)
    patches = (total / count.clamp_min(1)).masked_fill(count == 0, torch.nan)
    return torch.cat([whole[:, None], patches], 1)


def _timestamps(months: Any) -> Any:
    """Days, months and years ``(n, time, 3)`` of months in order: a month that is not later is of the next year."""
    torch = require("torch", "encoders")
    later = (months[:, 1:] <= months[:, :-1]).long().cumsum(1)
    years = 2020 + torch.nn.functional.pad(later, (1, 0))
    return torch.stack([torch.ones_like(months), months, years], -1)


_SIZES = {"nano": 128, "tiny": 192, "small": 384, "base": 768, "large": 1024}


def _olmoearth(version: str, size: str) -> Encoder:
    return Encoder(
        f"olmoearth-{version}-{size}",
        dims=_SIZES[size],
        title=f"OlmoEarth {version} {size}",
        kind="cube",
        bands=BANDS,
        units=_UNITS,
        # its publisher brings two deviations below the mean to 0, and two above to 1
        mean=tuple(mean - 2 * std for mean, std in _STATISTICS.values()),
        std=tuple(4 * std for _, std in _STATISTICS.values()),
        chip=32,
        patch=4,
        margin=8,
        outputs=("tokens", "chips"),
        pooling="cls",
        prefix=1,
        steps=12,
        optional=BANDS,
        resolution=10.0,
        context_m=160.0,
        inputs="monthly Sentinel-2 L2A (12 bands, digital numbers) and Sentinel-1 (σ⁰ in dB); either may be absent",
        weights=f"weights.pth of huggingface.co/{_repository(version, size)}",
        licence="OlmoEarth Artifact License",
        citation=(
            "Herzog, H. et al. (2025): OlmoEarth: Stable Latent Image Modeling for Multimodal Earth Observation. "
            "arXiv:2511.13655"
        ),
        doi="10.48550/arXiv.2511.13655",
        attribution=f"OlmoEarth {version}, Allen Institute for AI (OlmoEarth Artifact License).",
        quirks=(
            "Its versions v1, v1.1 and v1.2 are three spaces.",
            "Landsat, which it can take, is not given.",
            "Months are told it; their years follow from their order.",
        ),
        make=partial(make_olmoearth, version=version, size=size),
    )


ENCODERS = (
    *(_olmoearth("v1.2", size) for size in ("nano", "tiny", "small", "base")),
    *(_olmoearth("v1", size) for size in ("nano", "tiny", "base", "large")),
)
