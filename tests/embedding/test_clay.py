"""Clay v1.5: numbers of the published code on the same weights, places and dates; what it is told."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core.errors import SourceError
from geoemb_xr.embedding import clay

torch = pytest.importorskip("torch")

#: Four numbers of the class token and of the third patch, of the encoder in claymodel 1.5.0 with mask_ratio 0, by
#: the weights and images of :func:`filled` and :func:`chip`; told the place and the date, and told neither.
OFFICIAL = {
    True: ([-0.431964, -1.788167, -0.404226, 1.335467], [-0.706555, -1.761289, 0.041769, 0.313118]),
    False: ([-0.43339, -1.788478, -0.402975, 1.333154], [-0.700206, -1.76437, 0.058502, 0.328279]),
}
IS_SCALE = ("norm.weight", "norm1.weight", "norm2.weight", "net.0.weight")


def filled(network):
    """A network whose weights are a formula of their names' order."""
    with torch.no_grad():
        for k, (name, value) in enumerate(sorted(network.named_parameters())):
            numbers = torch.arange(value.numel(), dtype=torch.float64)
            drawn = (numbers * 0.61803398875 + k * 0.7).sin() * 0.2 + float(name.endswith(IS_SCALE))
            value.copy_(drawn.reshape(value.shape).float())
    return network


def chip():
    """Three bands of 16 × 16 pixels, normalised."""
    return (torch.arange(3 * 16 * 16, dtype=torch.float64) * 0.37).sin().reshape(1, 3, 16, 16).float()


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """Two blocks of Clay, red, green and blue, with a checkpoint as Lightning writes it."""
    whole = gx.encoder("clay-v1.5").with_chip(16)
    small = replace(
        whole.with_bands(["B02", "B03", "B04"]), dims=64, make=partial(clay.make_clay, depth=2, heads=2)
    )
    network = filled(clay._network(small, 2, 2))
    path = tmp_path_factory.mktemp("clay") / "clay.ckpt"
    state = {f"model.encoder.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": {**state, "model.decoder.mask_patch": torch.zeros(4)}, "epoch": 7}, path)
    return gx.encoder(small, weights=path)


@pytest.mark.parametrize("is_told", [True, False])
def test_tokens_are_those_of_the_published_code(card, is_told):
    module = card.load()
    nan = float("nan")
    lonlat = torch.tensor([[11.5, 47.0] if is_told else [nan, nan]])
    days = torch.tensor([19875.25 if is_told else nan], dtype=torch.float64)  # 2024-06-01, 6 o'clock
    with torch.inference_mode():
        tokens = module(chip(), lonlat=lonlat, days=days)[0].numpy()
    first, third = OFFICIAL[is_told]
    assert tokens.shape == (1 + 4, 64)
    np.testing.assert_allclose(tokens[0, :4], first, atol=2e-5)
    np.testing.assert_allclose(tokens[3, :4], third, atol=2e-5)


def test_chips_are_told_their_place_and_date_and_half_a_cls(card):
    mean, std = (np.array(v, "f4")[:, None, None] for v in (card.mean, card.std))
    data = chip().numpy() * std + mean + 3000
    coords = {"band": list(card.bands), "lon": ("location", [11.5]), "lat": ("location", [47.0]),
              "date": ("location", np.array(["2024-06-01T06"], "M8[ns]"))}  # fmt: skip
    stack = xr.DataArray(data, dims=("location", "band", "y", "x"), coords=coords)
    with torch.inference_mode():
        own = card.load()(
            torch.from_numpy((data - mean) / std), lonlat=torch.tensor([[11.5, 47.0]]),
            days=torch.tensor([19875.25], dtype=torch.float64),
        ).numpy()  # fmt: skip
    np.testing.assert_allclose(gx.embed(stack, card, output="chips").values, own[:, 0], atol=1e-5)
    mean_of = gx.embed(stack, card, output="chips", pooling="mean").values
    np.testing.assert_allclose(mean_of, own[:, 1:].mean(1), atol=1e-5)
    undated = gx.embed(stack.drop_vars("date"), card, output="chips").values
    assert np.abs(undated - own[:, 0]).max() > 1e-5


def test_its_weights_are_asked_for(tmp_path):
    with pytest.raises(SourceError, match="needs its weights: fetch"):
        gx.encoder("clay-v1.5").load()
    torch.save({"state_dict": {"model.encoder.cls_token": torch.zeros(1, 1, 1024)}}, tmp_path / "other.ckpt")
    with pytest.raises(SourceError, match=r"does not hold the weights of Clay v1.5"):
        gx.encoder(
            replace(gx.encoder("clay-v1.5"), make=partial(clay.make_clay, depth=1)),
            weights=tmp_path / "other.ckpt",
        ).load()
