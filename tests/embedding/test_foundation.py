"""Foundation models that torchgeo keeps: small ones of random weights, equal to torchgeo's own forward pass."""

from dataclasses import replace
from functools import partial

import lazily
import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.embedding import foundation

torch = pytest.importorskip("torch")
models = lazily.importorskip("torchgeo.models")


def seeded(network):
    """A network whose every weight is drawn, those that start as zeros too."""
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn(value.shape, generator=draw) * 0.05 + (0.1 if value.ndim == 1 else 0))
    return network.eval()


@pytest.fixture(autouse=True)
def random_weights(monkeypatch):
    monkeypatch.setattr(foundation, "loaded", lambda network, encoder, published: seeded(network))


def small(name, chip, **shape):
    """A card for a small network of the family."""
    card = gx.encoder(name).with_chip(chip)
    dims = shape.get("embed_dim", shape.get("encoder_dim", card.dims))
    return replace(card, dims=dims, make=partial(card.make.func, **{**card.make.keywords, **shape}))


def stack(card, count=2):
    """Chips in a card's units, with places and dates."""
    rng = np.random.default_rng(1)
    units = [card.units] * len(card.bands) if isinstance(card.units, str) else card.units
    low = [{"dn": 100.0, "dB": -25.0, "any": 0.0}[u] for u in units]
    high = [{"dn": 6000.0, "dB": -4.0, "any": 1.0}[u] for u in units]
    data = rng.uniform(low, high, (count, card.chip, card.chip, len(low))).astype("f4")
    coords = {
        "band": list(card.bands),
        "lon": ("location", [11.5, -60.0][:count]),
        "lat": ("location", [47.0, -3.0][:count]),
        "date": ("location", np.array(["2024-06-01", "2020-01-15"][:count], "M8[ns]")),
    }
    return xr.DataArray(np.moveaxis(data, -1, 1), dims=("location", "band", "y", "x"), coords=coords)


def normalised(card, chips):
    mean, std = (
        torch.tensor(v, dtype=torch.float32).expand(len(card.bands))[:, None, None]
        for v in (card.mean, card.std)
    )
    return (torch.from_numpy(chips.values) - mean) / std


def dofa(card, given):
    own = seeded(models.DOFA(num_classes=0, embed_dim=32, depth=2, num_heads=4))
    return own(given, [w / 1000 for w in card.wavelengths])


def scale_mae(card, given):
    own = models.ScaleMAE(res=1.0, img_size=32, patch_size=16, num_classes=0, embed_dim=32, depth=2, num_heads=4,
                          mlp_ratio=4, qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6))  # fmt: skip
    return seeded(own)(given)


def croma(modalities, key):
    def run(card, given):
        own = seeded(models.CROMA(modalities, image_size=40, encoder_dim=64, encoder_depth=2))
        given = given.clamp(0, 1)
        radar = given[:, :2] if "sar" in modalities else None
        optical = given[:, -12:] if "optical" in modalities else None
        return own(x_sar=radar, x_optical=optical)[f"{key}_GAP"]

    return run


def copernicus(card, given):
    own = seeded(models.CopernicusFM(embed_dim=64, depth=2, num_heads=4))
    days = np.array(["2024-06-01", "2020-01-15"], "M8[D]").astype("f8")
    metadata = torch.tensor(
        [[11.5, 47.0, days[0], 0.0256], [-60.0, -3.0, days[1], 0.0256]], dtype=torch.float32
    )
    widths = [float(foundation.BANDWIDTHS[b]) for b in card.bands]
    return own(given, metadata, list(card.wavelengths), widths, None, "spectral", 16)


def panopticon(card, given):
    own = models.Panopticon(attn_dim=96, img_size=28)
    seeded(own.model)
    return own({"imgs": given, "chn_ids": torch.tensor(card.wavelengths).repeat(2, 1)})


def swin(card, given):
    from torchvision.models import swin_v2_t

    own = swin_v2_t(weights=None)
    own.features[0][0] = torch.nn.Conv2d(9, 96, 4, 4)
    own.head = torch.nn.Identity()
    return seeded(own)(given)


FAMILIES = {
    "dofa-base": (224, {"embed_dim": 32, "depth": 2, "num_heads": 4}, dofa),
    "scale-mae-large": (32, {"embed_dim": 32, "depth": 2, "num_heads": 4}, scale_mae),
    "croma-base-optical": (40, {"encoder_dim": 64, "encoder_depth": 2}, croma(["optical"], "optical")),
    "croma-base-sar": (40, {"encoder_dim": 64, "encoder_depth": 2}, croma(["sar"], "sar")),
    "croma-base-joint": (40, {"encoder_dim": 64, "encoder_depth": 2}, croma(["sar", "optical"], "joint")),
    "copernicus-fm": (64, {"embed_dim": 64, "depth": 2, "num_heads": 4}, copernicus),
    "panopticon": (28, {"attn_dim": 96}, panopticon),
    "satlas-swin-t-sentinel2": (64, {}, swin),
}


#: Whose networks have one size, a large one.
LARGE = ("panopticon", "satlas-swin-t-sentinel2")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.complete] if n in LARGE else []) for n in FAMILIES]
)
def test_vectors_are_torchgeo_s_own_and_tokens_are_there(name):
    chip, shape, own = FAMILIES[name]
    card = small(name, chip, **shape)
    chips = stack(card)
    with torch.inference_mode():
        expected = own(card, normalised(card, chips)).numpy()
    found = gx.embed(chips, card, output="chips").values
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    # chips of other content have other vectors
    assert np.abs(found[0] - found[1]).max() > 2e-4 * np.abs(expected).max()
    module = card.load()
    told = {"lonlat": torch.tensor([[11.5, 47.0]]), "days": torch.tensor([19875.0])}
    with torch.inference_mode():
        tokens = module(normalised(card, chips)[:1], **{k: told[k] for k in card.takes})
    side = chip // card.patch
    assert tuple(tokens.shape) in ((1, card.prefix + side**2, card.dims), (1, card.dims, side, side))


def test_every_card_s_length_and_weights_are_torchgeo_s():
    for card in foundation.ENCODERS:
        weights = models.get_weight(card.make.keywords["published"])
        assert card.sha256 in weights.url, card.name
        bands = weights.meta.get("bands")
        if bands and bands != ("R", "G", "B"):
            assert tuple(bands) == card.bands
    assert gx.encoders().licence.ne("").all()
    assert gx.encoders().citation.ne("").all()


def test_fewer_bands_are_fewer_wavelengths_where_the_encoder_makes_its_first_layer_of_them():
    card = small("dofa-base", 224, embed_dim=32, depth=2, num_heads=4)
    chips = stack(card).sel(band=["B08", "B04", "B03"])
    found = gx.embed(chips, card, output="chips").values
    some = card.with_bands(["B04", "B03", "B08"])
    with torch.inference_mode():
        expected = dofa(some, normalised(some, chips.sel(band=list(some.bands)))).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    with pytest.raises(EmbeddingError, match="B11, B12 are missing"):
        gx.embed(stack(gx.encoder("croma-base-optical").with_chip(40)).drop_sel(band=["B11", "B12"]),
                 small("croma-base-optical", 40, encoder_dim=64))  # fmt: skip


def test_a_raster_tells_its_chips_places_and_dates():
    class Told(torch.nn.Module):
        def forward(self, images, *, lonlat, days):
            return torch.cat([lonlat, days[:, None].float(), images.mean((1, 2, 3))[:, None]], 1)

    card = gx.Encoder(
        "told",
        dims=4,
        bands=("B02",),
        chip=16,
        patch=16,
        outputs=("chips",),
        takes=("lonlat", "days"),
        make=Told(),
    )
    images = testing.images((64, 64), dates=["2024-03-01", "2024-09-01"], bands=("B02",), chunks=32)
    da = gx.embed(images, card, time="each", missing=1.0)
    days = images.time.values.astype("M8[D]").astype(float)
    np.testing.assert_allclose(da.values[:, 2, 1, 1], days)
    lon, lat = testing.lonlat_of(da.emb.geobox)
    np.testing.assert_allclose(da.values[0, 0], lon, atol=1e-5)
    np.testing.assert_allclose(da.values[0, 1], lat, atol=1e-5)
    undated = gx.embed(images.isel(time=0, drop=True), card, missing=1.0)
    assert np.isnan(undated.values[2]).all()


def test_weights_come_from_a_file_whose_parts_may_be_dicts(tmp_path, monkeypatch):
    monkeypatch.undo()
    card = small("croma-base-sar", 40, encoder_dim=64, encoder_depth=2)
    own = seeded(models.CROMA(["sar"], image_size=40, encoder_dim=64, encoder_depth=2))
    parts = {k: getattr(own, k).state_dict() for k in ("s1_encoder", "s1_GAP_FFN")}
    torch.save({**parts, "s2_encoder": {"unused": torch.zeros(1)}}, tmp_path / "croma.pt")
    card = replace(card, weights=str(tmp_path / "croma.pt"))
    chips = stack(card)
    with torch.inference_mode():
        expected = own(x_sar=normalised(card, chips).clamp(0, 1))["sar_GAP"].numpy()
    np.testing.assert_allclose(gx.embed(chips, card, output="chips").values, expected, atol=1e-5)
    torch.save({"s1_encoder": {}}, tmp_path / "croma.pt")
    with pytest.raises(SourceError, match="does not hold the weights of croma-base-sar"):
        card.load()
