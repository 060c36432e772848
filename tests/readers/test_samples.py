"""Datasets of torchgeo and torch as stacks of chips, from small files in their true formats."""

import json
import random
import sys
import types
from dataclasses import replace

import lazily
import numpy as np
import pytest
import rasterio
import xarray as xr

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.readers import samples

torch = pytest.importorskip("torch")
datasets = lazily.importorskip("torchgeo.datasets")

S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


def write_tif(path, data, **options):
    """A GeoTIFF of an array ``(band, y, x)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": len(data), "height": data.shape[1], "width": data.shape[2]}
    transform = rasterio.transform.from_origin(600_000, 5_200_000, 10, 10)
    with rasterio.open(
        path, "w", dtype=data.dtype, crs="EPSG:32632", transform=transform, **profile, **options
    ) as file:
        file.write(data)


@pytest.fixture(scope="module")
def eurosat(tmp_path_factory):
    """Three chips of two classes, as the archive has them."""
    root = tmp_path_factory.mktemp("eurosat")
    rng = np.random.default_rng(0)
    names = [("Forest", 1), ("River", 1), ("River", 2)]
    for name, number in names:
        data = rng.integers(200, 6000, (13, 64, 64), np.uint16)
        write_tif(root / datasets.EuroSAT.base_dir / name / f"{name}_{number}.tif", data)
    (root / "eurosat-train.txt").write_text("\n".join(f"{n}_{k}.jpg" for n, k in names))
    return datasets.EuroSAT(root, split="train", checksum=False)


def test_eurosat_is_a_stack_with_its_classes(eurosat):
    with testing.raise_if_dask_computes():
        stack = samples.read_samples(eurosat)
    assert stack.dims == ("location", "band", "y", "x")
    assert list(stack.band.values) == list(eurosat.bands)
    assert list(stack.label.values) == ["Forest", "River", "River"]
    for k in range(3):
        np.testing.assert_array_equal(stack.values[k], eurosat[k]["image"].numpy())
    card = replace(gx.encoder("rcf"), chip=64, dims=16)
    da = gx.embed(eurosat, card, output="chips", scale=1e-4)
    assert da.dims == ("location", "band")
    assert list(da.label.values) == ["Forest", "River", "River"]
    assert da.attrs["source"] == "EuroSAT"
    own = replace(card, bands=eurosat.bands).load()(torch.from_numpy(stack.values * np.float32(1e-4))).numpy()
    np.testing.assert_allclose(da.values, own, atol=1e-5)


def test_a_subset_and_a_list_of_samples_are_datasets_too(eurosat):
    some = samples.read_samples(torch.utils.data.Subset(eurosat, [2, 0]))
    assert list(some.location.values) == [2, 0]
    assert list(some.label.values) == ["River", "Forest"]
    np.testing.assert_array_equal(some.values[1], eurosat[0]["image"].numpy())
    listed = [
        {"image": torch.full((3, 8, 8), float(k)), "label": k, "lon": 10.0 + k, "lat": 50.0} for k in range(3)
    ]
    stack = samples.read_samples(listed)
    assert list(stack.band.values) == ["red", "green", "blue"]
    assert list(stack.lon.values) == [10, 11, 12]
    assert list(stack.label.values) == [0, 1, 2]
    np.testing.assert_array_equal(stack.mean(("band", "y", "x")), [0, 1, 2])


@pytest.fixture(scope="module", params=["s1", "s2", "all"])
def bigearthnet(request, tmp_path_factory):
    """Two places of version 1, one file per band, of three sizes of pixels, and labels beside."""
    root = tmp_path_factory.mktemp("bigearthnet")
    lines = []
    classes = (["Pastures"], ["Sea and ocean", "Pastures"])
    for k, labels in enumerate(classes):
        one, two = f"S1A_{k}", f"S2A_MSIL2A_2017_{k}"
        for number, band in enumerate(("VV", "VH")):
            data = np.full((1, 120, 120), -10 * (number + 1) - k, np.int32)
            write_tif(root / "BigEarthNet-S1-v1.0" / one / f"{one}_{band}.tif", data)
        for number, band in enumerate(S2):
            side = 120 if band in ("B02", "B03", "B04", "B08") else 20 if band in ("B01", "B09") else 60
            data = np.full((1, side, side), 100 * number + k, np.uint16)
            write_tif(root / "BigEarthNet-v1.0" / two / f"{two}_{band}.tif", data)
        for folder, name in (("BigEarthNet-S1-v1.0", one), ("BigEarthNet-v1.0", two)):
            (root / folder / name / f"{name}_labels_metadata.json").write_text(json.dumps({"labels": labels}))
        lines.append(f"{two},{one}")
    for split in ("train", "val", "test"):
        (root / f"bigearthnet-{split}.csv").write_text("\n".join(lines))
    return datasets.BigEarthNet(root, split="train", bands=request.param, num_classes=43, checksum=False)


def test_bigearthnet_has_its_bands_as_its_files_lie_and_a_coordinate_a_class(bigearthnet):
    stack = samples.read_samples(bigearthnet)
    expected = {"VV": -10, "VH": -20} | {band: 100 * k for k, band in enumerate(S2)}
    wanted = {"s1": ("VV", "VH"), "s2": S2, "all": ("VV", "VH", *S2)}[bigearthnet.bands]
    for band in wanted:
        found = stack.sel(band=band).values
        sign = -1 if band in ("VV", "VH") else 1
        assert (found[0] == expected[band]).all(), band
        assert (found[1] == expected[band] + sign).all(), band
    np.testing.assert_array_equal(stack["Pastures"], [True, True])
    np.testing.assert_array_equal(stack["Sea and ocean"], [False, True])
    assert not stack["Vineyards"].any()


def test_ssl4eo_s12_s_seasons_are_a_time_axis_in_the_order_of_dates_and_the_same_each_time(tmp_path):
    rng = np.random.default_rng(1)
    days = ("20200115", "20200412", "20200719", "20201020")
    written = {}
    for day in days:
        for number in range(1, 13):
            band = (
                "B8A"
                if number == 9
                else f"B{number if number < 9 else number - 1 if number == 10 else number}"
            )
            data = rng.integers(0, 9000, (1, 264, 264), np.uint16)
            written[day, band] = data[0]
            folder = tmp_path / "s2a" / "0000000" / f"{day}T103409_{day}T103500_T32TPT"
            write_tif(folder / f"{band}.tif", data)
    dataset = datasets.SSL4EOS12(tmp_path, split="s2a", seasons=4)
    one = torch.utils.data.Subset(dataset, [0])
    random.seed(11)
    before = random.getstate()
    stack = samples.read_samples(one)
    values = stack.values
    assert random.getstate() == before  # nobody else's draws are touched
    assert stack.dims == ("location", "time", "band", "y", "x")
    assert list(stack.band.values) == list(dataset.bands)
    for t, day in enumerate(days):
        for band in ("B2", "B8A", "B12"):
            np.testing.assert_array_equal(values[0, t, list(dataset.bands).index(band)], written[day, band])
    random.seed(12)
    np.testing.assert_array_equal(samples.read_samples(one).values, values)


def test_several_images_of_a_sample_are_sensors():
    rng = np.random.default_rng(2)
    listed = [
        {
            "image_s1": rng.normal(-12, 2, (2, 16, 16)).astype("f4"),
            "image_s2": rng.random((3, 16, 16)).astype("f4"),
        }
        for _ in range(4)
    ]
    found = samples.read_samples(listed)
    assert sorted(found) == ["s1", "s2"]
    found["s1"] = found["s1"].assign_coords(band=["VV", "VH"])
    card = gx.Encoder(
        "both", dims=5, bands=("VH", "B03", "B04"), units=("dB", "reflectance", "reflectance"), chip=16, patch=16,
        outputs=("chips",), make=torch.nn.Conv2d(3, 5, 16),
    )  # fmt: skip
    da = gx.embed(found, card)
    chips = np.stack([np.concatenate([s["image_s1"][1:], s["image_s2"][[1, 0]]]) for s in listed])
    with torch.inference_mode():
        expected = card.load()(torch.from_numpy(chips))[..., 0, 0].numpy()
    np.testing.assert_allclose(da.values, expected, atol=1e-5)
    with pytest.raises(EmbeddingError, match="'s1' has 4 along location, and 's2' has 3"):
        gx.embed({"s1": found["s1"], "s2": found["s2"].isel(location=slice(3))}, card)


class Hdf5:
    """Arrays by name, where h5py is not installed: what torchgeo asks of an HDF5 file."""

    def __init__(self, path, mode):
        self.path = path

    def __enter__(self):
        return dict(np.load(self.path))

    def __exit__(self, *error):
        return None


@pytest.fixture
def mmearth(tmp_path, monkeypatch):
    """MMEarth as it is published: arrays in one file, and what is known of tiles and bands in three more."""
    monkeypatch.setitem(sys.modules, "h5py", types.SimpleNamespace(File=Hdf5))
    rng = np.random.default_rng(3)
    folder = tmp_path / "data_100k_v001"
    folder.mkdir()
    s2 = rng.integers(90, 4000, (3, 13, 16, 16)).astype("u2")
    s2[0, :, :2] = 0
    s1 = rng.uniform(-25, -5, (3, 8, 16, 16)).astype("f4")
    s1[:, [2, 3, 6, 7]] = -np.inf  # no HH and HV
    metadata = np.array([(str(k).encode(),) for k in (40, 41, 42)], dtype=[("id", "S10")])
    with open(folder / "data_100k_v001.h5", "wb") as file:
        np.savez(file, sentinel2=s2, sentinel1=s1, metadata=metadata)
    bands = datasets.MMEarth.all_modality_bands
    tiles = {
        str(k): {
            "lat": 40.0 + k, "lon": 10.0, "S2_DATE": "2020-03-05", "S2_type": "l2a" if k % 2 else "l1c",
            "BANDS": {name: bands[name] for name in ("sentinel2", "sentinel1_asc", "sentinel1_desc")},
        }
        for k in (40, 41, 42)
    }  # fmt: skip
    stats = {
        name: {
            "mean": [100.0 + 10 * k + (7 if name.endswith("l1c") else 0) for k in range(count)],
            "std": [50.0 + k for k in range(count)],
            "min": [90.0] * count, "max": [900.0 + k for k in range(count)],
        }
        for name, count in (("sentinel2_l2a", 13), ("sentinel2_l1c", 13), ("sentinel1", 8))
    }  # fmt: skip
    for name, value in (("tile_info", tiles), ("band_stats", stats), ("splits", {"train": [0, 1, 2]})):
        (folder / f"data_100k_v001_{name}.json").write_text(json.dumps(value))
    return tmp_path, s2.astype("f4"), s1


@pytest.mark.parametrize("how", ["z-score", "min-max"])
def test_mmearth_s_sensors_come_in_their_own_units_with_places_and_dates(mmearth, how):
    root, s2, s1 = mmearth
    given = {"subset": "MMEarth100k", "normalization_mode": how}
    whole = datasets.MMEarth(root, modalities=("sentinel2", "sentinel1_asc", "sentinel1_desc"), **given)
    found = samples.read_samples(whole)
    np.testing.assert_array_equal(found["sentinel2"].values, np.where(s2 == 0, np.nan, s2))
    for name, first in (("sentinel1_asc", 0), ("sentinel1_desc", 4)):
        np.testing.assert_allclose(found[name].values[:, :2], s1[:, first : first + 2], atol=1e-4)
        assert not np.isfinite(found[name].values[:, 2:]).any()
    assert list(found["sentinel2"].lat.values) == [80.0, 81.0, 82.0]
    assert str(found["sentinel2"].date.values[0])[:10] == "2020-03-05"
    card = gx.Encoder(
        "both", dims=3, bands=("B02", "VV"), units=("dn", "dB"), chip=16, patch=16, outputs=("chips",),
        make=torch.nn.Conv2d(2, 3, 16),
    )  # fmt: skip
    one_orbit = datasets.MMEarth(root, modalities=("sentinel2", "sentinel1_desc"), **given)
    chips = np.stack([np.where(s2 == 0, np.nan, s2)[:, 1], s1[:, 4]], 1)
    expected = gx.embed(
        xr.DataArray(chips, dims=("location", "band", "y", "x"), coords={"band": list(card.bands)}), card
    )
    da = gx.embed(one_orbit, card)
    np.testing.assert_allclose(da.values, expected.values, atol=1e-2)
    assert list(da.tile_id.values) == [40, 41, 42]
    with pytest.raises(EmbeddingError, match="two sensors have the band VV"):
        gx.embed(whole, card)


def test_copernicus_pretrain_s_samples_are_sensors_of_which_an_encoder_takes_its_own():
    """Of a stream some are taken; weather and ocean colour have other sizes, and are not asked for."""
    rng = np.random.default_rng(4)
    listed = [
        {
            "s1_grd.pth": torch.from_numpy(rng.uniform(-25, -5, (2, 24, 24)).astype("f4")),
            "s2_toa.pth": torch.from_numpy(rng.uniform(200, 4000, (13, 24, 24)).astype("f4")),
            "s3_olci.pth": torch.rand(21, 9, 9), "s5p_co.pth": torch.rand(1, 3, 3),
            "dem.pth": torch.rand(1, 80, 80),
        }
        for _ in range(2)
    ]  # fmt: skip
    card = gx.Encoder(
        "both", dims=3, bands=("VH", "B8A"), units=("dB", "dn"), chip=24, patch=24, outputs=("chips",),
        make=torch.nn.Conv2d(2, 3, 24),
    )  # fmt: skip
    chips = torch.stack([torch.stack([s["s1_grd.pth"][1], s["s2_toa.pth"][8]]) for s in listed])
    with torch.inference_mode():
        expected = card.load()(chips)[..., 0, 0].numpy()
    np.testing.assert_allclose(gx.embed(listed, card).values, expected, rtol=1e-5)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Stream(), r"none by number: take some, as in list\(itertools.islice"),
        ([{"mask": np.zeros((1, 8, 8)), "label": 3}], "have no image: their keys are mask, label"),
        ([{"image": np.zeros((3, k, 8))} for k in (8, 9)], r"image of sample 1 of list is \(3, 9, 8\)"),
        (torch.utils.data.TensorDataset(torch.zeros(3, 3, 8, 8)), "is a tuple, not a dict with an image"),
    ],
)  # fmt: skip
def test_datasets_that_cannot_be_say_why(dataset, message):
    assert samples.is_samples(dataset)
    with pytest.raises(SourceError, match=message):
        samples.read_samples(dataset).compute()
