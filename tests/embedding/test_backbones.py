"""Networks that others keep: their own forward pass on the same chips, tokens and vectors; weights from files."""

from dataclasses import replace

import lazily
import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core.errors import SourceError
from geoemb_xr.embedding import backbones
from geoemb_xr.embedding.inputs import WAVELENGTHS

torch = pytest.importorskip("torch")
timm = lazily.importorskip("timm")


@pytest.fixture(scope="module", params=["ssl4eo-vits16-dino", "ssl4eo-resnet18-moco"])
def network(request, tmp_path_factory):
    """A network of random weights, its file, and its card with that file."""
    architecture, _ = backbones._SOURCES[request.param]
    torch.manual_seed(5)
    made = timm.create_model(architecture, in_chans=13, num_classes=0).eval()
    path = tmp_path_factory.mktemp("weights") / "own.pth"
    torch.save({**made.state_dict(), "fc.weight": torch.zeros(2)}, path)
    return made, gx.encoder(request.param, weights=path)


@pytest.fixture(scope="module")
def images():
    """A picture of all bands whose lattice begins on a chip's own pixel."""
    grid = testing.geobox((320, 320))
    return testing.images(grid=grid, bands=tuple(WAVELENGTHS), chunks=128)


def test_tokens_and_vectors_are_the_network_s_own_on_the_same_chips(network, images):
    made, card = network
    side, patch, margin = card.chip, card.patch, card.margin
    stride = side - 2 * margin
    edge_y, edge_x = round(-(float(images.y[0]) + 5) / 10), round((float(images.x[0]) - 5) / 10)
    tokens = gx.embed(images, card, quality=True)
    inner = np.argwhere(~tokens.edge.values)
    assert len(inner) > 0
    i, j = inner[0]
    top, left = (
        (first // patch + int(k)) * patch // stride * stride - margin - edge
        for first, k, edge in (
            (-(-edge_y // patch) * patch, i, edge_y),
            (-(-edge_x // patch) * patch, j, edge_x),
        )
    )
    chip = torch.from_numpy(images.values[None, :, top : top + side, left : left + side])
    assert chip.shape[2:] == (side, side)
    with torch.inference_mode():
        features = made.forward_features(chip)[0].numpy()
        own = made(chip)[0].numpy()
    row = -(-edge_y // patch) + int(i) - (top + edge_y) // patch
    col = -(-edge_x // patch) + int(j) - (left + edge_x) // patch
    expected = features[1 + row * (side // patch) + col] if card.prefix else features[:, row, col]
    found = tokens.embedding[:, i, j].values  # of its block alone
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    chips = gx.embed(images, card, output="chips", stride=stride, quality=True)
    at = (top + margin + edge_y) // stride, (left + margin + edge_x) // stride
    i, j = (int(k) - edge // stride for k, edge in zip(at, (edge_y, edge_x), strict=True))
    assert not chips.edge.values[i, j]
    found = chips.embedding[:, i, j].values  # the very chip whose token it was
    np.testing.assert_allclose(found, own, atol=1e-5 * np.abs(own).max())


def test_every_card_s_network_is_as_the_card_says():
    for card in backbones.ENCODERS:
        architecture, published = backbones._SOURCES[card.name]
        with torch.device("meta"):
            made = timm.create_model(architecture, in_chans=len(card.bands), num_classes=0)
        assert made.num_features == card.dims
        assert getattr(made, "num_prefix_tokens", 0) == card.prefix
        assert made.feature_info[-1]["reduction"] == card.patch
        if not published.startswith("timm/"):
            weights = pytest.importorskip("torchgeo.models").get_weight(published)
            assert weights.meta["in_chans"] == len(card.bands)
            assert card.sha256 in weights.url
            named = [b if b.startswith("V") else f"B{b[1:].upper():0>2}" for b in weights.meta["bands"]]
            assert named == list(card.bands)
            last = list(weights.transforms)[-1]  # which normalises
            if card.units == "reflectance":  # a division by 10,000
                assert (last.mean, last.std) == ([0], [10000])
            else:
                np.testing.assert_allclose((last.mean, last.std), (card.mean, card.std))
        else:
            config = timm.get_pretrained_cfg(published.removeprefix("timm/"))
            assert (config.mean, config.std) == (card.mean, card.std)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(SourceError, match=r"does not hold the weights of ssl4eo-vits16-dino.*missing are"):
        gx.encoder("ssl4eo-vits16-dino", weights=tmp_path / "other.pth").load()


def test_a_file_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"conv1.weight": print}, path)
    with pytest.raises(SourceError, match="cannot be read as weights alone"):
        gx.encoder("ssl4eo-vits16-dino", weights=path).load()


def test_offline_the_message_says_what_to_do(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(SourceError, match=r"could not be fetched.*weights=path"):
        gx.encoder("ssl4eo-resnet18-moco").load()


def test_a_module_of_one_s_own_is_an_encoder():
    module = torch.nn.Conv2d(4, 5, 8, 8)
    card = gx.Encoder(
        "mine", dims=5, bands=("B02", "B03", "B04", "B08"), chip=32, patch=8, outputs=("tokens",), make=module
    )
    images = testing.images((96, 96))
    da = gx.embed(images, card)
    edge_y, edge_x = round(-(float(images.y[0]) + 5) / 10), round((float(images.x[0]) - 5) / 10)
    top, left = -edge_y % 8, -edge_x % 8
    with torch.inference_mode():
        expected = module(torch.from_numpy(images.values[None, :, top:, left:]))[0].numpy()
    rows, cols = da.shape[1:]
    np.testing.assert_allclose(da.values, expected[:, :rows, :cols], atol=1e-5)
    assert module.weight.requires_grad  # it is left as it was
    assert (
        gx.embed(images.chunk({"x": 50}), card).data.name == gx.embed(images.chunk({"x": 50}), card).data.name
    )
    other = replace(card, make=torch.nn.Conv2d(4, 5, 8, 8))
    assert other.version != card.version
