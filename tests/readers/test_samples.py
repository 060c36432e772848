"""Datasets of torchgeo and torch as stacks of chips, from small files in their true formats."""

import json
import random
from dataclasses import replace

import lazily
import numpy as np
import pytest
import rasterio

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
