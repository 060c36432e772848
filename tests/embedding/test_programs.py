"""Networks that come as files: exported by torch, or ONNX; any network of timm by its name."""

from dataclasses import replace

import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.embedding import backbones

torch = pytest.importorskip("torch")

BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(2)
    return torch.nn.Sequential(torch.nn.Conv2d(4, 6, 8, 8), torch.nn.ReLU()).eval()


def card(path):
    return gx.Encoder("mine", dims=6, bands=BANDS, chip=32, patch=8, outputs=("tokens",), weights=str(path))


def test_a_file_of_torch_export_is_an_encoder(module, tmp_path):
    path = tmp_path / "net.pt2"
    batch = torch.export.Dim("batch", min=1, max=4096)
    torch.export.save(
        torch.export.export(module, (torch.zeros(2, 4, 32, 32),), dynamic_shapes=({0: batch},)), path
    )
    images = testing.images((96, 80), chunks=40)
    da = gx.embed(images, card(path))
    expected = gx.embed(images, replace(card(path), weights="", make=module)).values
    np.testing.assert_allclose(da.values, expected, atol=1e-6)
    assert da.attrs["version"] == f"{card(path).digest[:8]}-p1"


def test_a_file_of_onnx_is_an_encoder(module, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    path = tmp_path / "net.onnx"
    torch.onnx.export(
        module, (torch.zeros(2, 4, 32, 32),), path, input_names=["images"], dynamic_axes={"images": {0: "n"}},
        dynamo=False,
    )  # fmt: skip
    images = testing.images((96, 80))
    expected = gx.embed(images, replace(card(path), weights="", make=module)).values
    np.testing.assert_allclose(gx.embed(images, card(path)).values, expected, atol=1e-5)


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_a_program_for_one_size_of_batch_takes_any_number_of_chips(module, tmp_path, ending):
    """As torch exports it where nothing is said of the batch."""
    path, example = tmp_path / f"net.{ending}", (torch.zeros(2, 4, 32, 32),)
    if ending == "pt2":
        torch.export.save(torch.export.export(module, example), path)
    else:
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
        torch.onnx.export(module, example, path, dynamo=False)
    images = testing.images((96, 80))
    lazy = gx.embed(images, replace(card(path), margin=0), batch_size=3)
    expected = gx.embed(images, replace(card(path), weights="", make=module, margin=0)).values
    np.testing.assert_allclose(lazy.values, expected, atol=1e-5)


class Mean(torch.nn.Module):
    """The mean of a series; it asks neither when nor where."""

    def forward(self, series, absent):
        return (series * ~absent).sum(1) / (~absent).sum(1)


def test_a_network_of_series_is_told_what_it_has_parameters_for():
    images = testing.images((5, 6), dates=["2024-04-01", "2024-07-01"], bands=BANDS)
    own = gx.Encoder(
        "mean", dims=4, kind="series", bands=BANDS, chip=1, patch=1, outputs=("pixels",), steps=4, make=Mean()
    )
    np.testing.assert_allclose(gx.embed(images, own).values[0], images.mean("time").values, atol=1e-6)


def test_what_makes_no_network_says_so():
    own = gx.Encoder("none", dims=4, bands=BANDS, chip=32, patch=8, make=lambda encoder: encoder.dims)
    with pytest.raises(
        EmbeddingError, match=r"make= of the encoder 'none' gives a torch.nn.Module.*gave a int"
    ):
        own.load()


@pytest.mark.parametrize(
    ("name", "message"), [("net.pt2", "not a file of torch.export"), ("net.pt", "has no network")]
)
def test_files_that_are_no_networks_say_so(name, message, tmp_path):
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(SourceError, match=message):
        card(tmp_path / name).load()
    with pytest.raises(SourceError, match=r"there is no network at '.*missing\.pt2'"):
        card(tmp_path / "missing.pt2").load()


@pytest.mark.parametrize(
    "name", ["resnet18.a1_in1k", "vit_tiny_patch16_224.augreg_in21k", "convnextv2_atto.fcmae"]
)
def test_any_network_of_timm_is_found_by_its_name(name, tmp_path):
    timm = pytest.importorskip("timm")
    found = gx.encoder(f"timm/{name}")
    config = timm.get_pretrained_cfg(name)
    assert (found.mean, found.std) == (config.mean, config.std)
    assert found.licence == config.license
    torch.manual_seed(1)
    own = timm.create_model(name, num_classes=0).eval()
    torch.save(own.state_dict(), tmp_path / "own.pth")
    side = 4 * found.patch
    small = gx.encoder(found, weights=tmp_path / "own.pth").with_chip(side)
    made = small.load()
    chips = torch.rand(1, 3, side, side)
    with torch.inference_mode():
        tokens = made(chips)
        if small.prefix:
            own = timm.create_model(name, num_classes=0, dynamic_img_size=True).eval()
            own.load_state_dict(torch.load(tmp_path / "own.pth", weights_only=True))
        np.testing.assert_allclose(tokens, own.forward_features(chips), atol=1e-5)
    assert tokens.shape[1] == (small.prefix + 16 if small.prefix else small.dims)


def test_a_name_that_timm_does_not_have_says_what_is_near():
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"no weights called 'resnet81.*near are resnet18"):
        gx.encoder("timm/resnet81.a1_in1k")


def test_maps_with_their_channels_last_are_turned():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        network = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0)
        found = backbones.features(network)(torch.zeros(1, 3, 224, 224))
    assert tuple(found.shape) == (1, 768, 7, 7)


class Turned(torch.nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:.torch.jit:FutureWarning")
def test_a_module_of_torchscript_is_a_network(module):
    images = testing.images((64, 64))
    own = replace(card(""), make=module)
    scripted = replace(own, make=torch.jit.trace(module, torch.zeros(2, 4, 32, 32)))
    np.testing.assert_allclose(gx.embed(images, scripted).values, gx.embed(images, own).values, atol=1e-6)


def test_a_network_without_a_card_and_one_of_other_bands_say_what_is_wrong(module):
    with pytest.raises(EmbeddingError, match=r"got a Sequential.*gx\.Encoder\('mine'"):
        gx.embed(testing.images((64, 64)), module)
    tokens = torch.nn.Sequential(module, torch.nn.Flatten(2), torch.nn.ConstantPad1d((1, 0), 0.0), Turned())
    with pytest.raises(EmbeddingError, match=r"must give tokens \(n, 0 \+ 16, 6\).*say prefix=1$"):
        gx.embed(testing.images((64, 64)), replace(card(""), make=tokens)).compute()
    narrow = replace(card(""), bands=BANDS[:2], make=module)
    with pytest.raises(RuntimeError) as caught:
        gx.embed(testing.images((64, 64)), narrow).compute(scheduler="sync")
    assert "of the encoder 'mine' was given a batch of shape" in caught.value.__notes__[0]
    assert caught.value.__notes__[0].endswith("bands B02, B03.")
