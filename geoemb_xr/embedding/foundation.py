"""Foundation models from torchgeo: DOFA, Scale-MAE, CROMA, Copernicus-FM, Panopticon, Satlas' Swin.

Networks and weights are torchgeo's. Of what comes with weights only the normalisation is taken, as numbers on the
card; where there is none the card has its own, and says so. Each network here gives tokens, and beside them its own
way to one vector per chip.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from geoemb_xr.core.errors import require
from geoemb_xr.embedding.backbones import SSL4EO_S1, SSL4EO_S2
from geoemb_xr.embedding.cards import Encoder, Unit
from geoemb_xr.embedding.inputs import WAVELENGTHS
from geoemb_xr.embedding.weights import fetching, fill, flat, read_weights

#: Bandwidths of Sentinel-2A in nanometres (ESA, Sentinel-2 User Handbook).
BANDWIDTHS = {
    "B01": 21, "B02": 66, "B03": 36, "B04": 31, "B05": 15, "B06": 15, "B07": 20, "B08": 106, "B8A": 21, "B09": 20,
    "B10": 31, "B11": 91, "B12": 175,
}  # fmt: skip
#: Layers that torchgeo makes new, since weights have none: they start as what changes nothing.
_MADE_NEW = ("fc_norm.", "head.", "attn_bias")


def _models() -> Any:
    return require("torchgeo.models", "encoders")


def loaded(network: Any, encoder: Encoder, published: str) -> Any:
    """A network of torchgeo with its weights, from a file or as they are published; nothing is unpickled.

    Raises
    ------
    SourceError
        If they cannot be downloaded, or are another network's.
    """
    path = Path(encoder.weights)
    if path.is_file():
        state = read_weights(path)
    else:
        with fetching(encoder):
            weights = _models().get_weight(published)
            state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        state = flat(state)
    own = network.state_dict()
    kept = {k: v for k, v in state.items() if k in own and not k.startswith("head.")}
    return fill(
        network, {**{k: v for k, v in own.items() if k.startswith(_MADE_NEW)}, **kept}, path, encoder.name
    )


def _module(network: Any, tokens: Any, chips: Any) -> Any:
    """A module that returns tokens and, by its method ``chips``, the network's own vector per chip."""
    torch = require("torch", "encoders")

    class Own(torch.nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """Tokens ``(n, prefix + patch, dims)`` or maps."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Any, **told: Any) -> Any:
            return tokens(self.network, images, **told)

        def chips(self, images: Any, **told: Any) -> Any:
            """Vectors ``(n, dims)``, as the network itself gives them."""
            return chips(self.network, images, **told)

    return Own()


def _through_blocks(network: Any, patches: Any, places: Any) -> Any:
    """Class token and patches after all blocks of a transformer of DOFA's kind."""
    torch = require("torch", "encoders")
    tokens = patches + places[:, 1:]
    first = (network.cls_token + places[:, :1]).expand(len(tokens), -1, -1)
    tokens = torch.cat([first, tokens], 1)
    for block in network.blocks:
        tokens = block(tokens)
    return tokens


# --- DOFA ---------------------------------------------------------------------------------------------------------


def make_dofa(encoder: Encoder, *, published: str, **shape: Any) -> Any:
    """DOFA for the wavelengths of an encoder's bands."""
    torch = require("torch", "encoders")
    network = loaded(_models().DOFA(num_classes=0, **shape), encoder, published)
    waves = [float(w) / 1000 for w in encoder.wavelengths]

    def tokens(own: Any, images: Any) -> Any:
        given = torch.tensor(waves, device=images.device, dtype=images.dtype)
        return _through_blocks(own, own.patch_embed(images, given)[0], own.pos_embed)

    return _module(network, tokens, lambda own, images: own.forward_features(images, waves))


#: Mean and deviation of 8-bit values (github.com/zhu-xlab/DOFA, demo), in the order of its bands. Red, green and
#: blue are of Sentinel-2's true colour picture, where 3,558 is 255; of others 8,160 is 255.
_DOFA = {
    "B04": (114.1099739, 77.84352553), "B03": (114.81779093, 69.96844919), "B02": (126.63977424, 67.42465279),
    "B05": (84.33539309, 64.57022983), "B06": (97.84789168, 61.72545487), "B07": (103.94461911, 61.34187099),
    "B08": (101.435633, 60.29744676), "B11": (72.32804172, 47.88519516), "B12": (56.66528851, 42.55886798),
}  # fmt: skip
_TO_BYTES = {b: (3558 if b in ("B04", "B03", "B02") else 8160) / 255 for b in _DOFA}


def _dofa(size: str, dims: int, depth: int, heads: int, sha256: str) -> Encoder:
    published = f"DOFA{size.title()}16_Weights.DOFA_MAE"
    return Encoder(
        f"dofa-{size}",
        dims=dims,
        title=f"DOFA {size}",
        bands=tuple(_DOFA),
        wavelengths=tuple(WAVELENGTHS[b] for b in _DOFA),
        units="dn",
        mean=tuple(mean * _TO_BYTES[b] for b, (mean, _) in _DOFA.items()),
        std=tuple(std * _TO_BYTES[b] for b, (_, std) in _DOFA.items()),
        chip=224,
        patch=16,
        margin=48,
        prefix=1,
        optional=tuple(_DOFA),
        resolution=10.0,
        context_m=1120.0,
        inputs="Sentinel-2, nine bands; any bands whose wavelengths are known",
        weights=f"torchgeo {published}",
        sha256=sha256,
        licence="CC-BY-4.0",
        citation=(
            "Xiong, Z., Wang, Y., Zhang, F., Stewart, A. J., Hanna, J., Borth, D., Papoutsis, I., Le Saux, B., "
            "Camps-Valls, G., Zhu, X. X. (2024): Neural Plasticity-Inspired Multimodal Foundation Model for Earth "
            "Observation. arXiv:2403.15356"
        ),
        doi="10.48550/arXiv.2403.15356",
        attribution="DOFA, Xiong et al. 2024 (CC BY 4.0).",
        quirks=(
            "Weights of the first layer are made from wavelengths: it takes fewer bands, or others with "
            "dataclasses.replace(encoder, bands=…, wavelengths=…, mean=…, std=…).",
            "The normalisation is its authors' for 8-bit values, brought to digital numbers here.",
        ),
        make=partial(make_dofa, published=published, embed_dim=dims, depth=depth, num_heads=heads),
    )


# --- Scale-MAE ----------------------------------------------------------------------------------------------------


def make_scale_mae(encoder: Encoder, *, published: str, **shape: Any) -> Any:
    """Scale-MAE for the resolution of an encoder, which its position embedding depends on."""
    torch = require("torch", "encoders")
    network = _models().ScaleMAE(
        res=encoder.resolution,
        img_size=encoder.chip,
        patch_size=encoder.patch,
        num_classes=0,
        mlp_ratio=4,
        qkv_bias=True,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        **shape,
    )
    return _module(
        loaded(network, encoder, published),
        lambda own, images: own.forward_features(images),
        lambda own, images: own(images),
    )


_SCALE_MAE = "ScaleMAELarge16_Weights.FMOW_RGB"

# --- CROMA --------------------------------------------------------------------------------------------------------

_CROMA_S2 = tuple(b for b in WAVELENGTHS if b != "B10")


def make_croma(encoder: Encoder, *, published: str, **shape: Any) -> Any:
    """CROMA's encoder of optical images, of radar, or of both."""
    has_radar, has_optical = "VV" in encoder.bands, "B04" in encoder.bands
    modalities = [*(["sar"] if has_radar else []), *(["optical"] if has_optical else [])]
    own = "joint" if len(modalities) == 2 else modalities[0]
    network = _models().CROMA(modalities=modalities, image_size=encoder.chip, **shape)

    def called(net: Any, images: Any) -> Any:
        # values beyond two deviations are cut, as its authors do
        images = images.clamp(0, 1)
        radar = images[:, :2] if has_radar else None
        return net(x_sar=radar, x_optical=images[:, 2 if has_radar else 0 :] if has_optical else None)

    return _module(
        loaded(network, encoder, published),
        lambda net, images: called(net, images)[f"{own}_encodings"],
        lambda net, images: called(net, images)[f"{own}_GAP"],
    )


def _croma(which: str, bands: tuple[str, ...], size: str, dims: int, depth: int, sha256: str) -> Encoder:
    statistics = [SSL4EO_S1.get(b) or SSL4EO_S2[b] for b in bands]
    units: tuple[Unit, ...] = tuple("dB" if b in SSL4EO_S1 else "dn" for b in bands)
    published = f"CROMA{size.title()}_Weights.CROMA_VIT"
    return Encoder(
        f"croma-{size}-{which}",
        dims=dims,
        title=f"CROMA {size}, {which}",
        bands=bands,
        wavelengths=() if "VV" in bands else tuple(WAVELENGTHS[b] for b in bands),
        units=units,
        mean=tuple(mean - 2 * std for mean, std in statistics),
        std=tuple(4 * std for _, std in statistics),
        chip=120,
        patch=8,
        margin=24,
        resolution=10.0,
        context_m=600.0,
        inputs="Sentinel-1 (σ⁰ in dB: VV, VH) and Sentinel-2 L1C or L2A (12 bands without B10, digital numbers)",
        weights=f"torchgeo {published}",
        sha256=sha256,
        licence="MIT",
        citation=(
            "Fuller, A., Millard, K., Green, J. R. (2023): CROMA: Remote Sensing Representations with Contrastive "
            "Radar-Optical Masked Autoencoders. NeurIPS 2023. arXiv:2311.00566"
        ),
        doi="10.48550/arXiv.2311.00566",
        attribution="CROMA, Fuller et al. 2023 (MIT).",
        quirks=(
            "Two deviations below the mean become 0 and two above 1, by SSL4EO-S12's statistics; beyond is cut.",
        ),
        make=partial(make_croma, published=published, encoder_dim=dims, encoder_depth=depth),
    )


# --- Copernicus-FM ------------------------------------------------------------------------------------------------


def make_copernicus(encoder: Encoder, *, published: str, **shape: Any) -> Any:
    """Copernicus-FM for the wavelengths of an encoder's bands, with the place, the date and the area of patches."""
    torch = require("torch", "encoders")
    network = loaded(_models().CopernicusFM(**shape), encoder, published)
    widths = [float(BANDWIDTHS.get(b, 50)) for b in encoder.bands]
    spectral = {"wavelengths": list(encoder.wavelengths), "bandwidths": widths, "kernel_size": encoder.patch}
    area = ((encoder.resolution or 10.0) * encoder.patch / 1000) ** 2

    def metadata(lonlat: Any, days: Any) -> Any:
        return torch.cat([lonlat, days[:, None].to(lonlat.dtype), torch.full_like(lonlat[:, :1], area)], 1)

    def tokens(own: Any, images: Any, *, lonlat: Any, days: Any) -> Any:
        caught: list[Any] = []
        hook = own.blocks[-1].register_forward_hook(lambda module, given, made: caught.append(made))
        try:
            own.forward_features(images, metadata(lonlat, days), **spectral)
        finally:
            hook.remove()
        return caught[0]

    return _module(
        network,
        tokens,
        lambda own, images, lonlat, days: own.forward_features(images, metadata(lonlat, days), **spectral),
    )


# --- Panopticon ---------------------------------------------------------------------------------------------------

#: Numbers by which Panopticon knows radar (its sentinel1.yaml): transmitted and received polarisation, any orbit.
_RADAR = {"VV": -1, "VH": -2, "HH": -4, "HV": -3}


def make_panopticon(encoder: Encoder, *, published: str, **shape: Any) -> Any:
    """Panopticon for the wavelengths of an encoder's bands."""
    torch = require("torch", "encoders")
    network = _models().Panopticon(img_size=encoder.chip, **shape)
    if Path(encoder.weights).is_file() or shape:
        loaded(network.model, encoder, published)
    else:
        with fetching(encoder):  # torchgeo brings the places to the size of the chip
            network = _models().panopticon_vitb14(_models().get_weight(published), img_size=encoder.chip)
    numbers = [_RADAR.get(b, w) for b, w in zip(encoder.bands, encoder.wavelengths, strict=True)]

    def given(images: Any) -> dict[str, Any]:
        own = torch.tensor(numbers, device=images.device, dtype=torch.float32)
        return {"imgs": images, "chn_ids": own.repeat(len(images), 1)}  # it writes into them

    return _module(
        network,
        lambda own, images: own.model.forward_features(given(images)),
        lambda own, images: own(given(images)),
    )


# --- Satlas -------------------------------------------------------------------------------------------------------


def make_swin(encoder: Encoder, *, published: str, architecture: str, **shape: Any) -> Any:
    """A Swin transformer of version 2 of torchvision, with Satlas' weights."""
    torch = require("torch", "encoders")
    network = getattr(_models(), architecture)(weights=None, **shape)
    first = network.features[0][0]
    network.features[0][0] = torch.nn.Conv2d(len(encoder.bands), first.out_channels, 4, 4)
    network.head = torch.nn.Identity()
    return _module(
        loaded(network, encoder, published),
        lambda own, images: own.permute(own.norm(own.features(images))),
        lambda own, images: own(images),
    )


_SATLAS = ("B04", "B03", "B02", "B05", "B06", "B07", "B08", "B11", "B12")


def _satlas(name: str, bands: tuple[str, ...], published: str, sha256: str, *, resolution: float) -> Encoder:
    is_tiny = published.startswith("Swin_V2_T")
    # digital numbers of the visible bands are the true colour picture's there: 3,558 is 255
    scale = {b: (3558.0 if b in _SATLAS[:3] else 8160.0) for b in bands} if len(bands) == 9 else {}
    return Encoder(
        name,
        dims=768 if is_tiny else 1024,
        title=f"SatlasPretrain Swin v2 {'tiny' if is_tiny else 'base'}, {published.partition('.')[2]}",
        bands=bands,
        wavelengths=tuple(WAVELENGTHS[b] for b in bands),
        units="dn" if scale else "any",
        mean=(0.0,),
        std=tuple(scale.values()) if scale else (255.0,),
        chip=256,
        patch=32,
        margin=64,
        resolution=resolution,
        context_m=128 * resolution,
        inputs="digital numbers of Sentinel-2" if scale else "8-bit red, green and blue, from 0 to 255",
        weights=f"torchgeo {published}",
        sha256=sha256,
        licence="ODC-BY",
        citation=(
            "Bastani, F., Wolters, P., Gupta, R., Ferdinando, J., Kembhavi, A. (2023): SatlasPretrain: A "
            "Large-Scale Dataset for Remote Sensing Image Understanding. ICCV 2023. arXiv:2211.15660"
        ),
        doi="10.48550/arXiv.2211.15660",
        attribution="SatlasPretrain, Bastani et al. 2023 (ODC-BY).",
        make=partial(make_swin, published=published, architecture="swin_v2_t" if is_tiny else "swin_v2_b"),
    )


_RGB = ("B04", "B03", "B02")

ENCODERS = (
    _dofa("base", 768, 12, 12, "a0275954"),
    _dofa("large", 1024, 24, 16, "0ff904d3"),
    Encoder(
        "scale-mae-large",
        dims=1024,
        title="Scale-MAE ViT-L/16",
        bands=_RGB,
        wavelengths=tuple(WAVELENGTHS[b] for b in _RGB),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        chip=224,
        patch=16,
        margin=48,
        pooling="cls",
        prefix=1,
        resolution=1.0,
        context_m=112.0,
        inputs="red, green and blue, stretched for the eye, from 0 to 1",
        weights=f"torchgeo {_SCALE_MAE}",
        sha256="386989c9",
        licence="CC-BY-NC-4.0",
        citation=(
            "Reed, C. J., Gupta, R., Li, S., Brockman, S., Funk, C., Clipp, B., Keutzer, K., Candido, S., "
            "Uyttendaele, M., Darrell, T. (2023): Scale-MAE: A Scale-Aware Masked Autoencoder for Multiscale "
            "Geospatial Representation Learning. ICCV 2023. arXiv:2212.14532"
        ),
        doi="10.48550/arXiv.2212.14532",
        quirks=(
            "It is told how large a pixel is: dataclasses.replace(encoder, resolution=10) for images of 10 m.",
            "Made for pictures: reflectance is to be stretched, scale=3 for Sentinel-2.",
        ),
        make=partial(make_scale_mae, published=_SCALE_MAE, embed_dim=1024, depth=24, num_heads=16),
    ),
    _croma("optical", _CROMA_S2, "base", 768, 12, "0238d814"),
    _croma("sar", ("VV", "VH"), "base", 768, 12, "0238d814"),
    _croma("joint", ("VV", "VH", *_CROMA_S2), "base", 768, 12, "0238d814"),
    _croma("joint", ("VV", "VH", *_CROMA_S2), "large", 1024, 24, "921e69ad"),
    Encoder(
        "copernicus-fm",
        dims=768,
        title="Copernicus-FM base, Sentinel-2",
        bands=tuple(WAVELENGTHS),
        wavelengths=tuple(WAVELENGTHS.values()),
        units="dn",
        mean=tuple(mean for mean, _ in SSL4EO_S2.values()),
        std=tuple(std for _, std in SSL4EO_S2.values()),
        chip=224,
        patch=16,
        margin=48,
        prefix=1,
        optional=tuple(WAVELENGTHS),
        takes=("lonlat", "days"),
        resolution=10.0,
        context_m=1120.0,
        inputs="Sentinel-2 L1C; the place, the date and the area of a patch are told it",
        weights="torchgeo CopernicusFM_Base_Weights.CopernicusFM_ViT",
        sha256="085350e4",
        licence="CC-BY-4.0",
        citation=(
            "Wang, Y., Xiong, Z., Liu, C., Stewart, A. J., Dujardin, T., Bountos, N. I., Zavras, A., Gerken, F., "
            "Papoutsis, I., Leal-Taixé, L., Zhu, X. X. (2025): Towards a Unified Copernicus Foundation Model for "
            "Earth Vision. ICCV 2025. arXiv:2503.11849"
        ),
        doi="10.48550/arXiv.2503.11849",
        attribution="Copernicus-FM, Wang et al. 2025 (CC BY 4.0).",
        quirks=(
            "Normalised by SSL4EO-S12's statistics.",
            "The place and the date are told to it, so its vectors carry them; without a date it is told so.",
        ),
        make=partial(
            make_copernicus,
            published="CopernicusFM_Base_Weights.CopernicusFM_ViT",
            embed_dim=768,
            depth=12,
            num_heads=12,
        ),
    ),
    Encoder(
        "panopticon",
        dims=768,
        title="Panopticon ViT-B/14",
        bands=tuple(WAVELENGTHS),
        wavelengths=tuple(WAVELENGTHS.values()),
        units="dn",
        mean=tuple(mean for mean, _ in SSL4EO_S2.values()),
        std=tuple(std for _, std in SSL4EO_S2.values()),
        chip=224,
        patch=14,
        margin=42,
        pooling="cls",
        prefix=1,
        optional=tuple(WAVELENGTHS),
        resolution=10.0,
        context_m=1120.0,
        inputs="Sentinel-2; any optical bands whose wavelengths are known, and radar",
        weights="torchgeo Panopticon_Weights.VIT_BASE14",
        licence="CC-BY-4.0",
        citation=(
            "Waldmann, L., Shah, A., Wang, Y., Lehmann, N., Stewart, A. J., Xiong, Z., Zhu, X. X., Bauer, S., "
            "Chuang, J. (2025): Panopticon: Advancing Any-Sensor Foundation Models for Earth Observation. "
            "arXiv:2503.10845"
        ),
        doi="10.48550/arXiv.2503.10845",
        attribution="Panopticon, Waldmann et al. 2025 (CC BY 4.0).",
        quirks=("Normalised by SSL4EO-S12's statistics: its authors take those of each data set.",),
        make=partial(make_panopticon, published="Panopticon_Weights.VIT_BASE14"),
    ),
    _satlas(
        "satlas-swin-b-sentinel2",
        _SATLAS,
        "Swin_V2_B_Weights.SENTINEL2_SI_MS_SATLAS",
        "fe22a12c",
        resolution=10.0,
    ),
    _satlas(
        "satlas-swin-t-sentinel2",
        _SATLAS,
        "Swin_V2_T_Weights.SENTINEL2_SI_MS_SATLAS",
        "bc68e396",
        resolution=10.0,
    ),
    _satlas(
        "satlas-swin-b-rgb", _RGB, "Swin_V2_B_Weights.SENTINEL2_SI_RGB_SATLAS", "156a98d5", resolution=10.0
    ),
    _satlas("satlas-swin-b-naip", _RGB, "Swin_V2_B_Weights.NAIP_RGB_SI_SATLAS", "e4169eb1", resolution=1.0),
)
