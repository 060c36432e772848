"""What embedding one's own images promises, tried with input that is as people have it."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core import geometry
from geoemb_xr.core.errors import ComparabilityError, EmbeddingError
from geoemb_xr.geo import warp

torch = pytest.importorskip("torch")


class Means(torch.nn.Module):
    """The mean of what is there of each band, and the share that is absent."""

    def forward(self, cubes, *, absent, months, lonlat):
        axes = (1, 3, 4) if cubes.ndim == 5 else (1,)
        there = (~absent).float()
        mean = (cubes * there).sum(axes) / there.sum(axes).clamp_min(1)
        return torch.cat([mean, absent.float().mean(axes), months.float()], 1)


BANDS = ("B04", "VV", "temperature_2m", "elevation")
SERIES = gx.Encoder(
    "means", dims=11, kind="series", bands=BANDS, units=("reflectance", "dB", "K", "m"), chip=1, patch=1, steps=6,
    optional=BANDS, outputs=("pixels",), make=Means(),
)  # fmt: skip


@pytest.fixture
def optical():
    images = testing.images((40, 44), dates=["2024-04-03", "2024-05-10", "2024-07-02"], bands=("B04",))
    images[1, 0, 5:9, 5:9] = np.nan
    return images


def test_sensors_have_their_own_grids_dates_and_names_of_axes(optical):
    box = geometry.geobox_of(optical, "test")
    # radar on another grid, in another month too; weather on a grid of longitudes without a CRS; terrain once
    radar_box = testing.geobox((30, 30), resolution=20.0, offset=(-3, -4))
    rng = np.random.default_rng(0)
    radar = xr.DataArray(
        rng.uniform(-20, -8, (3, 1, 30, 30)).astype("f4"), dims=("time", "band", "y", "x"),
        coords={"time": np.array(["2024-04-20", "2024-06-01", "2024-07-20"], "M8[ns]"), "band": ["VV"],
                **geometry.grid_coords(radar_box)},
    )  # fmt: skip
    lon, lat = testing.lonlat_of(box)
    steps = 0.25 * np.arange(-2, 3)
    weather = xr.DataArray(
        np.array([270.0, 280.0, 290.0], "f4")[:, None, None, None] + np.zeros((1, 1, 5, 5), "f4"),
        dims=("time", "band", "latitude", "longitude"),
        coords={"time": optical.time.values, "band": ["temperature_2m"],
                "latitude": lat.mean() - steps, "longitude": lon.mean() + steps},
    )  # fmt: skip
    dem = xr.DataArray(
        np.full((1, 40, 44), 612.0, "f4"), dims=("band", "y", "x"),
        coords={"band": ["elevation"], **geometry.grid_coords(box)},
    )  # fmt: skip
    by_name = {"s2": optical, "s1": radar.chunk({"x": 13}), "era5": weather, "dem": dem}
    with testing.raise_if_dask_computes():
        lazy = gx.embed(by_name, SERIES, chunks=16)
    found = lazy.values[0]
    there = warp.reproject(radar, box, resampling="bilinear").values[
        [0, 2], 0
    ]  # of April and July; none of May
    expected = np.where(np.isfinite(there).any(0), np.nanmean(there, 0), 0)
    np.testing.assert_allclose(found[1], expected, atol=1e-4)
    np.testing.assert_allclose(found[2], 280, atol=1e-3)
    np.testing.assert_allclose(found[3], 612, atol=1e-3)
    np.testing.assert_allclose(found[4], np.isnan(optical.values[:, 0]).mean(0), atol=1e-6)
    np.testing.assert_allclose(found[8:, 0, 0], [3, 4, 6])
    without = gx.embed({"s1": None, "s2": optical, "dem": dem}, SERIES, scale={"s1": 2.0}).values[0]
    np.testing.assert_allclose(without[5], 1)  # a sensor that is absent is masked, not zero
    np.testing.assert_allclose(without[0], found[0], atol=1e-6)


# --- images as their readers give them ---------------------------------------------------------------------------

PAIR = gx.Encoder(
    "pair", dims=3, bands=("B02", "B04"), wavelengths=(492.4, 664.6), units="reflectance", chip=16, patch=8,
    outputs=("tokens", "chips"), make=torch.nn.Conv2d(2, 3, 8, 8),
)  # fmt: skip


def pictures():
    """Two bands, with the vectors of them."""
    images = testing.images((48, 40), bands=PAIR.bands)
    return images, gx.embed(images, PAIR).values


def test_variables_of_a_dataset_keep_what_each_says_is_missing():
    """As odc-stac and rioxarray write it: ``nodata`` is an attribute of each variable."""
    images, _ = pictures()
    numbers = (images * 10_000).round().astype("int16")
    numbers[0, 8:16, 8:16] = -1
    numbers[1, 30:34, 20:24] = -9999
    parts = {b: numbers.sel(band=b, drop=True) for b in PAIR.bands}
    expected = gx.embed(numbers.where(numbers >= 0), PAIR, scale=1e-4, quality=True).compute()
    assert float(expected.valid.min()) < 1
    differ = xr.Dataset(
        {"B02": parts["B02"].assign_attrs(nodata=-1), "B04": parts["B04"].assign_attrs(nodata=-9999)}
    )
    found = gx.embed(differ.chunk(y=20), PAIR, scale=1e-4, quality=True)
    xr.testing.assert_allclose(found.compute(), expected)
    alike = xr.Dataset(
        {b: each.where(each >= 0, -5).assign_attrs(_FillValue=-5) for b, each in parts.items()}
    )
    xr.testing.assert_allclose(gx.embed(alike, PAIR, scale=1e-4, quality=True).compute(), expected)
    months = gx.composite(differ.expand_dims(time=np.array(["2024-05-02"], "M8[ns]")), mask=None)
    np.testing.assert_array_equal(np.isnan(months.values[0]), numbers.values < 0)
    sensors = gx.embed({"s2": alike}, PAIR, scale=1e-4, quality=True)
    np.testing.assert_allclose(sensors.valid, expected.valid)


def test_a_grid_mapping_that_lies_among_the_variables_is_no_band():
    images, expected = pictures()
    told = images.to_dataset("band").drop_vars("spatial_ref").assign(crs=geometry.crs_coord("EPSG:32632"))
    for name in PAIR.bands:
        told[name].attrs["grid_mapping"] = "crs"
    found = gx.embed(told.assign(time_bounds=("n", [0.0, 1.0])), PAIR)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert found.emb.geobox.crs.to_epsg() == 32632


@pytest.mark.parametrize(
    "told",
    [
        lambda im: im.assign_coords(epsg=32632),
        lambda im: im.assign_coords({"proj:epsg": 32632}),
        lambda im: im.assign_coords({"proj:code": "EPSG:32632"}),
        lambda im: im.assign_attrs(crs="epsg:32632").rename(x="X", y="Y").transpose("X", "band", "Y"),
    ],
)
def test_the_crs_is_read_where_catalogues_have_it(told):
    images, expected = pictures()
    found = gx.embed(told(images.drop_vars("spatial_ref")), PAIR)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert found.emb.geobox.crs.to_epsg() == 32632


def test_bands_without_names_are_found_by_their_wavelengths():
    images, expected = pictures()
    turned = images.isel(band=[1, 0]).assign_coords(band=[1, 2], wavelength=("band", [0.665, 0.49]))
    np.testing.assert_allclose(gx.embed(turned, PAIR).values, expected, atol=1e-5)
    near = xr.concat([turned, turned[:1]], "band").assign_coords(wavelength=("band", [665.0, 490.0, 660.0]))
    with pytest.raises(EmbeddingError, match="B04 is missing"):  # two are red: which is meant?
        gx.embed(near.assign_coords(band=[1, 2, 3]), PAIR)
    variables = images.to_dataset("band")
    for name, wave in zip(PAIR.bands, (664.6, 492.4), strict=True):
        variables[name].attrs["center_wavelength"] = wave
    with pytest.raises(EmbeddingError, match="B02 lies at 665 nm"):
        gx.embed(variables, PAIR)


def test_per_cent_and_curved_grids_say_what_to_do():
    images, _ = pictures()
    with pytest.raises(EmbeddingError, match=r"per cent.*scale=0.01"):
        gx.embed(images * 100, PAIR).compute()
    y, x = np.meshgrid(images.y, images.x, indexing="ij")
    curved = images.drop_vars(["y", "x"]).assign_coords(y=(("y", "x"), y), x=(("y", "x"), x))
    with pytest.raises(EmbeddingError, match="straight rows and columns"):
        gx.embed(curved, PAIR)


@pytest.mark.parametrize(
    "told",
    [
        lambda dem: dem.isel(band=0, drop=True),
        lambda dem: dem.isel(band=0).assign_coords(band=1),
        lambda dem: dem.assign_coords(band=[1]),
        lambda dem: dem.assign_coords(band=["DEM"]),
        lambda dem: dem.isel(band=0, drop=True).rename("elevation").to_dataset(),
    ],
)
def test_terrain_comes_as_its_readers_give_it(optical, told):
    """As a plane, as band 1 of a file, or by another name."""
    rng = np.random.default_rng(0)
    dem = optical.isel(time=0, drop=True).assign_coords(band=["elevation"]).drop_attrs(deep=False)
    dem = dem.copy(data=rng.uniform(500, 900, dem.shape).astype("f4"))
    found = gx.embed({"s2": optical, "dem": told(dem)}, SERIES).values[0]
    np.testing.assert_allclose(found[3], dem.values[0], atol=1e-3)
    np.testing.assert_allclose(found[7], 0)


def test_dates_in_any_order_are_one_series(optical):
    expected = gx.embed(optical, SERIES)
    turned = gx.embed(optical.isel(time=[2, 0, 1]), SERIES)
    np.testing.assert_array_equal(turned.values, expected.values)
    assert turned.time.values[0] == expected.time.values[0]


@pytest.mark.parametrize("chunks", [{"y": 7, "x": 44, "time": 1}, {"y": 40, "x": 5, "time": 3}])
def test_any_window_of_any_chunking_is_the_whole_s(optical, chunks):
    whole = gx.embed(optical, SERIES).compute()
    window = {"y": slice(4, 23), "x": slice(3, 9)}
    part = gx.embed(optical.chunk(chunks), SERIES).isel(window)
    xr.testing.assert_allclose(part.compute(), whole.isel(window), atol=1e-5)
    alone = gx.embed(optical.isel(window), SERIES)
    np.testing.assert_allclose(alone.values, whole.isel(window).values, atol=1e-5)


def test_a_missing_share_of_exactly_the_limit_is_kept():
    images = testing.images((32, 32), bands=("B04",))
    edge_y, edge_x = round(-(float(images.y[0]) + 5) / 10), round((float(images.x[0]) - 5) / 10)
    top, left = -edge_y % 16, -edge_x % 16
    images[:, top : top + 4, left : left + 16] = np.nan  # a quarter of a chip of 16
    card = gx.Encoder(
        "one", dims=2, bands=("B04",), chip=16, patch=16, outputs=("chips",), make=torch.nn.Conv2d(1, 2, 16)
    )
    at = {"y": int(top > 0), "x": int(left > 0)}
    assert np.isfinite(gx.embed(images, card).isel(at).values).all()
    images[:, top + 4, left] = np.nan
    assert np.isnan(gx.embed(images, card).isel(at).values).all()
    assert np.isfinite(gx.embed(images, card, missing=0.3).isel(at).values).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda im: im.isel(x=[0, 1, 2, 5, 9, 10]), "evenly|regular|spac"),
        (lambda im: im.assign_coords(band=["B03"]), "needs the bands B04"),
        (lambda im: im * np.nan, None),
    ],
)
def test_what_cannot_be_says_why_and_what_is_empty_is_empty(change, message):
    card = gx.Encoder("one", dims=2, bands=("B04",), chip=4, patch=4, make=torch.nn.Conv2d(1, 2, 4))
    images = change(testing.images((16, 16), bands=("B04",)))
    if message is None:
        assert np.isnan(gx.embed(images, card).values).all()
        return
    with pytest.raises((EmbeddingError, ValueError), match=message):
        gx.embed(images, card)


def test_a_card_for_other_pixels_says_both_numbers_whatever_the_crs(caplog):
    card = gx.Encoder(
        "one", dims=2, bands=("B04",), chip=4, patch=4, resolution=10.0, make=torch.nn.Conv2d(1, 2, 4)
    )
    images = testing.images((16, 16), bands=("B04",))
    with caplog.at_level("INFO", logger="geoemb_xr"):
        gx.embed(images, card)
        assert not caplog.text
        gx.embed(images, replace(card, resolution=0.6))
    assert "made for pixels of 0.6 m, and the images have 10 m" in caplog.text


# --- what no sensor saw ----------------------------------------------------------------------------------------


def test_what_a_model_made_up_says_so_and_never_passes_as_observed(tmp_path):
    """It carries ``generated_by`` through composites, vectors, maps and stores, and is a space of its own."""
    images = testing.images((96, 96), dates=["2024-01-03", "2024-02-05"])
    seen = gx.embed(gx.composite(images, "YS", mask=None).isel(time=0), "rcf")
    invented = gx.composite(images.assign_attrs(generated_by="TerraMind"), "YS", mask=None).isel(time=0)
    made = gx.embed(invented, "rcf")
    assert made.attrs["generated_by"] == "TerraMind"
    assert "generated_by" not in seen.attrs
    np.testing.assert_array_equal(made.values, seen.values)
    with pytest.raises(ComparabilityError, match="generated"):
        gx.search([seen, made], seen.values[:, 1, 1], 1)
    assert made.emb.similarity(made.values[:, 1, 1]).attrs["generated_by"] == "TerraMind"
    made.emb.to_zarr(tmp_path / "made.zarr")
    assert gx.open(tmp_path / "made.zarr").attrs["generated_by"] == "TerraMind"
    stack = np.repeat(images.values[:1], 3, 0)
    chips = xr.DataArray(stack, dims=("location", "band", "y", "x"), coords={"band": images.band})
    card = replace(gx.encoder("rcf").with_chip(96), generated_by="a network that fills gaps")
    found = gx.embed(chips.assign_attrs(generated_by="TerraMind"), card)
    assert found.attrs["generated_by"] == "a network that fills gaps, TerraMind"
    assert found.attrs["version"].endswith("-generated")
