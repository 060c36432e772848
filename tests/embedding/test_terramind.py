"""TerraMind v1: numbers of the published code on the same weights; sensors and bands that are not there."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core.errors import SourceError
from geoemb_xr.embedding import terramind

torch = pytest.importorskip("torch")

#: Four numbers of the sixth patch, by TerraMindViT of terratorch 1.2.11 (two blocks of 32 numbers and two heads) on
#: the weights and images of :func:`filled` and :func:`chip`: of all sensors, and of Sentinel-2 alone. By whether
#: its layers have a gate, and by the side of the chip, since places of fewer patches are interpolated.
OFFICIAL = {
    (False, 48): ([-0.666903, 0.997469, -0.561358, 1.797959], [-1.410187, 0.605647, -0.186962, 2.176109]),
    (False, 224): ([-0.488027, 1.028324, -1.159979, 1.160814], [-1.552894, 0.434101, -1.024835, 1.821184]),
    (True, 48): ([0.31059, 0.926955, 0.695363, -0.46724], [0.443791, 1.999821, 0.968338, -0.246886]),
    (True, 224): ([0.257008, -0.518255, -0.690324, -1.245871], [0.990228, 0.807358, -0.123746, -1.10928]),
}
IS_SCALE = ("norm.weight", "norm1.weight", "norm2.weight")
SENSORS = ("untok_sen2l2a@224", "untok_sen1grd@224", "untok_dem@224")


def shapes(is_gated):
    """Parameters of a small network by the names that terratorch gives them."""
    found = {"encoder_norm.weight": (32,)}
    for sensor, bands in zip(SENSORS, (12, 2, 1), strict=True):
        found[f"encoder_embeddings.{sensor}.mod_emb"] = (1, 1, 32)
        found[f"encoder_embeddings.{sensor}.proj.weight"] = (32, 256 * bands)
    inner = 85 if is_gated else 128
    layers = {"attn.qkv": (96, 32), "attn.proj": (32, 32), "mlp.fc1": (inner, 32), "mlp.fc2": (32, inner)}
    for k in range(2):
        for name, shape in (layers | ({"mlp.fc3": (inner, 32)} if is_gated else {})).items():
            found[f"encoder.{k}.{name}.weight"] = shape
            if not is_gated:
                found[f"encoder.{k}.{name}.bias"] = shape[:1]
        found |= {f"encoder.{k}.norm{i}.weight": (32,) for i in (1, 2)}
    return found


def filled(is_gated):
    """Weights that are a formula of their names' order, and what else lies in a checkpoint."""
    state = {}
    for k, (name, shape) in enumerate(sorted(shapes(is_gated).items())):
        numbers = torch.arange(int(np.prod(shape)), dtype=torch.float64)
        drawn = (numbers * 0.61803398875 + k * 0.7).sin() * 0.2 + float(name.endswith(IS_SCALE))
        state[name] = drawn.reshape(shape).float()
    state |= {name.replace("weight", "bias"): torch.zeros(32) for name in state if name.endswith(IS_SCALE)}
    return state | {"decoder.0.query_norm.weight": torch.ones(32), "mask_token": torch.zeros(1, 1, 32)}


def chip(side):
    """Sentinel-2, Sentinel-1 and elevation, normalised."""
    numbers = torch.arange(15 * side * side, dtype=torch.float64)
    return (numbers * 0.37).sin().reshape(1, 15, side, side).float()


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "gated"])
def card(request, tmp_path_factory):
    """A small TerraMind with a checkpoint of its kind, and whether it has gates."""
    is_gated = request.param
    path = tmp_path_factory.mktemp("terramind") / "TerraMind.pt"
    torch.save(filled(is_gated), path)
    whole = gx.encoder("terramind-v1-base" if is_gated else "terramind-v1-tiny")
    small = replace(whole, dims=32, make=partial(small_network, is_gated=is_gated))
    return is_gated, gx.encoder(small, weights=path)


def small_network(encoder, *, is_gated):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(terramind._SIZES, "small", (32, 2, 2, is_gated))
        return terramind.make_terramind(encoder, sensors=SENSORS, size="small")


@pytest.mark.parametrize("side", [48, 224])
def test_tokens_are_those_of_the_published_code(card, side):
    is_gated, encoder = card
    given = chip(side)
    for some, expected in zip((slice(15), slice(12)), OFFICIAL[is_gated, side], strict=True):
        network = encoder.with_bands(encoder.bands[some]).load()
        with torch.inference_mode():
            found = network(given[:, some])
        assert found.shape == (1, (side // 16) ** 2, 32)
        np.testing.assert_allclose(found[0, 5, :4], expected, atol=2e-6)


def test_bands_that_are_there_keep_their_own_weights(card):
    """A patch is a product of its pixels with weights: bands of zeros and bands that are left out are one."""
    _, encoder = card
    given = chip(48)
    some = [0, 3, 7, 12]  # three of Sentinel-2, out of order in its weights, and one of Sentinel-1
    zeros = torch.zeros_like(given)
    zeros[:, some] = given[:, some]
    part, whole = encoder.with_bands([encoder.bands[k] for k in some]), encoder.with_bands(encoder.bands[:14])
    with torch.inference_mode():
        np.testing.assert_allclose(part.load()(given[:, some]), whole.load()(zeros[:, :14]), atol=1e-5)


def test_sensors_with_grids_of_their_own_give_one_raster(card):
    _, encoder = card
    encoder = replace(encoder.with_chip(48), margin=0)
    s2 = gx.testing.images((96, 96), bands=encoder.bands[:12]) * 10_000
    s1 = gx.testing.images((96, 96), bands=("VV", "VH")) * -20 - 1
    both = gx.embed({"s2": s2, "s1": s1}, encoder)
    assert both.emb.geobox.resolution.x == 160.0
    assert both.emb.product.name == "terramind-v1-base-encoder" or not card[0]
    one = xr.concat([s2.drop_vars("time", errors="ignore"), s1], "band")
    np.testing.assert_allclose(both, gx.embed(one, encoder), atol=1e-5)
    alone = gx.embed(s2, encoder)
    assert bool(np.isfinite(alone.values).all())
    assert float(abs(alone - both).max()) > 0.01  # what radar says is in it
    with pytest.raises(gx.EmbeddingError, match="decibels"):
        gx.embed({"s2": s2, "s1": 10 ** (s1 / 10)}, encoder).compute()


def test_another_network_s_weights_are_refused(tmp_path):
    torch.save({"encoder_norm.weight": torch.ones(3)}, tmp_path / "other.pt")
    with pytest.raises(SourceError, match="does not hold the weights of terramind-v1-tiny"):
        gx.encoder("terramind-v1-tiny", weights=tmp_path / "other.pt").load()
