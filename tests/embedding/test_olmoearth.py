"""OlmoEarth: its publisher's own forward pass on the same chips; what is missing is left out."""

from dataclasses import replace

import lazily
import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core.errors import SourceError
from geoemb_xr.embedding import olmoearth

torch = pytest.importorskip("torch")
package = lazily.importorskip("olmoearth_pretrain_minimal")

DATES = ["2023-11-03", "2024-01-04", "2024-04-05"]
OPTICAL, RADAR = olmoearth.BANDS[:12], olmoearth.BANDS[12:]


@pytest.fixture(scope="module", params=["v1.2", "v1"])
def model(request, tmp_path_factory):
    """The smallest network of a version with random weights, and its card with their file."""
    torch.manual_seed(0)
    network = package.OlmoEarthPretrain_v1(model_size="nano", model_version=request.param).model.eval()
    path = tmp_path_factory.mktemp("olmoearth") / "weights.pth"
    torch.save({**network.state_dict(), "supervision_head.weight": torch.zeros(1)}, path)
    card = gx.encoder(f"olmoearth-{request.param}-nano", weights=path).with_chip(16)
    return request.param, network, replace(card, margin=4)


@pytest.fixture(scope="module")
def cubes():
    """Two cubes of three months, places and all."""
    rng = np.random.default_rng(5)
    data = rng.uniform(200, 6000, (2, 3, 14, 16, 16)).astype("f4")
    data[:, :, 12:] = rng.uniform(-25, -5, (2, 3, 2, 16, 16))
    coords = {
        "time": np.array(DATES, "M8[ns]"), "band": list(olmoearth.BANDS),
        "lon": ("location", [11.0, -60.0]), "lat": ("location", [47.0, -3.0]),
    }  # fmt: skip
    return xr.DataArray(data, dims=("location", "time", "band", "y", "x"), coords=coords)


def own_vector(version, network, cube, names, missing=()):
    """The mean of all tokens by the publisher's normaliser, sample and pooling."""
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.nn.flexi_vit import PoolingType
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.constants import Modality
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.datatypes import MaskedOlmoEarthSample

    times = torch.tensor([[[1, 10, 2020], [1, 0, 2021], [1, 3, 2021]]])
    given = {"timestamps": times}
    for name, some in (("sentinel2_l2a", slice(12)), ("sentinel1", slice(12, None))):
        if name in names:
            modality = getattr(Modality, name.upper())
            values = package.Normalizer().normalize(modality, cube[:, some].transpose(2, 3, 0, 1)[None])
            groups = 3 if version == "v1" and name == "sentinel2_l2a" else 1
            mask = torch.zeros(1, 16, 16, 3, groups, dtype=torch.long)
            for y, x, t in missing:
                mask[:, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4, t] = 3
            given |= {name: torch.from_numpy(np.nan_to_num(values)).float(), f"{name}_mask": mask}
    with torch.inference_mode():
        found = network.encoder(MaskedOlmoEarthSample(**given), patch_size=4, input_res=10)
        return found["tokens_and_masks"].pool_unmasked_tokens(PoolingType.MEAN).numpy()[0]


def test_vectors_are_the_publisher_s(model, cubes):
    version, network, card = model
    found = gx.embed(cubes, card, output="chips").values
    for k in range(2):
        expected = own_vector(version, network, cubes.values[k], ("sentinel2_l2a", "sentinel1"))
        np.testing.assert_allclose(found[k], expected, atol=1e-5 * np.abs(expected).max())
    optical = gx.embed(cubes.sel(band=list(OPTICAL)), card, output="chips").values
    expected = own_vector(version, network, cubes.values[0], ("sentinel2_l2a",))
    np.testing.assert_allclose(optical[0], expected, atol=1e-5 * np.abs(expected).max())


def test_a_patch_and_month_that_a_cloud_hides_is_left_out(model, cubes):
    version, network, card = model
    some = cubes.sel(band=list(OPTICAL)).copy()
    some[0, 1, :, 5:7, 9] = np.nan  # patch (1, 2) of the second month
    found = gx.embed(some, card, output="chips").values[0]
    expected = own_vector(version, network, some.values[0], ("sentinel2_l2a",), [(1, 2, 1)])
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    alone = gx.embed(some.isel(location=[0]), card, output="chips").values[0]
    np.testing.assert_allclose(found, alone, atol=1e-5)  # whoever else is in its batch


def test_tokens_of_a_raster_are_those_of_its_patches(model):
    _, _, card = model
    images = testing.images((40, 40), dates=DATES, bands=OPTICAL) * 10_000
    lazy = gx.embed(images.chunk({"y": 20, "x": 20}), card)
    assert lazy.dims == ("time", "band", "y", "x")
    assert lazy.emb.geobox.resolution.x == 40.0
    np.testing.assert_allclose(lazy.values, gx.embed(images, card).values, atol=1e-5)


def test_weights_of_another_size_are_refused(model, tmp_path):
    torch.save({"encoder.norm.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(SourceError, match=r"does not hold the weights of olmoearth-v1.2-nano"):
        gx.encoder("olmoearth-v1.2-nano", weights=tmp_path / "other.pth").load()
