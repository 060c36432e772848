"""Galileo: equal to the official code's numbers, masked where anything is absent, the same for every chunking."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from affine import Affine

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.embedding import galileo

torch = pytest.importorskip("torch")

BANDS = galileo.BANDS
#: Three numbers of the vector of the patch in row 1, column 2, and of the whole chip: rslearn 0.1.19's copy of the
#: official single-file code with the official weights, in float32, by what is absent.
OFFICIAL = {
    (): ([-0.017719, 0.005772, -0.056353], [-0.006372, 0.009226, 0.000977]),
    BANDS[:2]: ([-0.02056, 0.007457, -0.094926], [-0.006008, 0.01151, -0.038739]),
    BANDS[2:12]: ([-0.010108, 0.019249, -0.247107], [0.012136, 0.007721, -0.11335]),
    BANDS[12:14]: ([-0.015749, 0.007317, -0.043234], [-0.004979, 0.008831, 0.000973]),
    BANDS[18:]: ([-0.016971, 0.004312, -0.056626], [-0.003365, 0.006084, 0.000202]),
}

#: The same of the pixel in row 3, column 7, alone, with patches of one pixel.
OFFICIAL_PIXEL = {
    (): [-0.010679, 0.011452, -0.255166],
    BANDS[:2]: [-0.011258, 0.016671, -0.272572],
    BANDS[2:12]: [-0.01212, -0.003147, -0.354289],
    BANDS[12:14]: [-0.001925, 0.000412, -0.265554],
    BANDS[18:]: [-0.012273, 0.012728, -0.258056],
}


def months(side, corner=(680_000, 5_240_000)):
    """Three months of all bands around the means of the encoder's training, on a grid that begins with a patch."""
    grid = geometry.make_geobox((side, side), Affine(10, 0, corner[0], 0, -10, corner[1]), "EPSG:32632")
    rng = np.random.default_rng(11)
    mean, std = np.array(list(galileo._STATISTICS.values())).T[..., None, None]
    data = mean + (rng.random((3, len(BANDS), side, side)) - 0.5) * 2 * std
    data[:, 2:12] = np.abs(data[:, 2:12]) + 1
    data[:, 12:18] = data[:, 12:18, :1, :1]  # weather is the same for a chip
    data[:, 18:] = data[:1, 18:]  # terrain does not change
    dates = pd.to_datetime(["2023-01-01", "2023-06-01", "2023-12-01"]).to_numpy("datetime64[ns]")
    coords = {"time": dates, "band": list(BANDS), **geometry.grid_coords(grid)}
    return xr.DataArray(data.astype("f4"), dims=("time", "band", "y", "x"), coords=coords)


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """The encoder with random weights, in a file as the official one is."""
    torch.manual_seed(0)
    state = galileo._network(gx.encoder("galileo-nano"), 4).state_dict()
    path = tmp_path_factory.mktemp("galileo") / "encoder.pt"
    torch.save({k: torch.randn(v.shape) * 0.2 for k, v in state.items()}, path)
    return gx.encoder("galileo-nano", weights=path)


@pytest.mark.parametrize("absent", list(OFFICIAL), ids=lambda bands: bands[0] if bands else "all there")
def test_official_weights_give_the_official_code_s_numbers(real_data, absent):
    own = gx.encoder("galileo-nano", weights=real_data / "galileo-nano" / "encoder.pt")
    assert own.digest == gx.encoder("galileo-nano").sha256
    images = months(16).drop_sel(band=list(absent))
    patch, whole = OFFICIAL[absent]
    tokens = gx.embed(images, own)
    assert tokens.sizes == {"time": 1, "band": 128, "y": 4, "x": 4}
    np.testing.assert_allclose(tokens.values[0, :3, 1, 2], patch, atol=1e-5)
    chips = gx.embed(images, own, output="chips", stride=16)
    np.testing.assert_allclose(chips.values[0, :3, 0, 0], whole, atol=1e-5)
    pixels = gx.embed(images, own, output="pixels")
    np.testing.assert_allclose(pixels.values[0, :3, 3, 7], OFFICIAL_PIXEL[absent], atol=1e-5)


def test_a_pixel_is_a_vector_of_its_own_space(card):
    images = months(10)
    images[:, :, 2, 3] = np.nan
    images[1, 2:12, 5, 9] = np.nan
    with testing.raise_if_dask_computes():
        pixels = gx.embed(images.chunk({"time": 1, "band": 7, "y": 5, "x": 9}), card, output="pixels")
    assert pixels.emb.product.name == "galileo-nano-pixels-encoder"
    assert pixels.sizes == {"time": 1, "band": 128, "y": 10, "x": 10}
    assert pixels.emb.geobox == images.assign_attrs(pixels.attrs).emb.geobox
    assert np.isnan(pixels.values[0, :, 2, 3]).all()
    assert np.isfinite(pixels.values[0]).all(0).sum() == 99
    part = gx.embed(images[..., 4:8, 6:10], card, output="pixels")
    np.testing.assert_allclose(part.values, pixels.values[..., 4:8, 6:10], atol=1e-5)
    other = images.copy()
    other[:, :, :5] += 7  # no neighbour tells anything
    same = gx.embed(other, card, output="pixels")
    np.testing.assert_allclose(same.values[..., 5:, :], pixels.values[..., 5:, :], atol=1e-5)
    with pytest.raises(EmbeddingError, match="galileo-nano-pixels-encoder"):
        gx.concat([pixels, gx.embed(months(16), card)], dim="time")


def test_chunks_and_windows_change_nothing(card):
    images, card = months(28), card.with_chip(16)
    expected = gx.embed(images, card, quality=True, chunks=100).compute()
    with testing.raise_if_dask_computes():
        lazy = gx.embed(images.chunk({"time": 1, "band": 7, "y": 13, "x": 10}), card)
    assert lazy.data.npartitions > 1
    np.testing.assert_allclose(lazy.values, expected.embedding.values, atol=1e-5)
    part = gx.embed(images.isel(y=slice(8, 28), x=slice(0, 20)), card, quality=True).compute()
    # weather is a mean over a chip, the same here in all; terrain and pictures are its own
    same = expected.embedding.sel(y=part.y, x=part.x)
    kept = ~part.edge.values & ~expected.edge.sel(y=part.y, x=part.x).values
    assert kept.any()
    np.testing.assert_allclose(part.embedding.values[..., kept], same.values[..., kept], atol=1e-5)


def test_what_is_absent_is_left_out_however_it_is_said(card):
    images = months(16)
    less = images.drop_sel(band=["VV", "VH", "elevation", "slope"])
    nothing = images.where(~images.band.isin(["VV", "VH", "elevation", "slope"]))
    expected = gx.embed(less, card).values
    np.testing.assert_allclose(gx.embed(nothing, card).values, expected, atol=1e-5)
    assert np.abs(gx.embed(images, card).values - expected).max() > 1e-2
    one = images.copy()
    one[1, 2:12, 5, 9] = np.nan  # a cloud on one pixel takes its patch of that month
    more = images.copy()
    more[1, 2:12, 4:8, 8:12] = np.nan
    clouds = gx.embed(one, card).values
    np.testing.assert_allclose(clouds, gx.embed(more, card).values, atol=1e-5)
    assert np.abs(clouds - gx.embed(images, card).values).max() > 1e-3


def test_a_patch_that_no_picture_shows_has_no_vector(card):
    images = months(16)
    images[:, :12, :4, 4:8] = np.nan
    values = gx.embed(images, card).values[0]
    assert np.isnan(values[:, 0, 1]).all()
    assert np.isfinite(values).all(0).sum() == 15


def test_weights_that_are_not_there_or_another_s_say_so(tmp_path):
    with pytest.raises(SourceError, match="needs its weights: fetch"):
        gx.encoder("galileo-nano").load()
    torch.save({"norm.weight": torch.ones(128)}, tmp_path / "other.pt")
    with pytest.raises(SourceError, match="does not hold the weights of galileo-nano"):
        gx.encoder("galileo-nano", weights=tmp_path / "other.pt").load()


def test_a_stack_of_single_chips_is_told_that_dates_are_wanted(card):
    chips = xr.DataArray(
        np.zeros((2, 2, 16, 16)), dims=("location", "band", "y", "x"), coords={"band": ["VV", "VH"]}
    )
    with pytest.raises(EmbeddingError, match="takes a stack of chips with the dims"):
        gx.embed(chips, card)
