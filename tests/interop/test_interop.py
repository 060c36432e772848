"""torchgeo takes what we give and we open what it opens, with torchgeo itself."""

import lazily
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.readers import torchgeo as reader

torch = pytest.importorskip("torch", reason="torch is not installed")
tg = lazily.importorskip("torchgeo.datasets")
samplers = lazily.importorskip("torchgeo.samplers")


@pytest.fixture(scope="module")
def codes():
    return gx.testing.synthetic(
        "alphaearth", shape=(96, 80), years=[2018, 2020], missing=True, decode=False, chunks=40
    )


def test_the_whole_is_the_decoded_array(codes):
    dataset = codes.emb.to_torchgeo()
    assert isinstance(dataset, tg.GeoDataset)
    assert len(dataset) == 2
    sample = dataset[dataset.bounds]
    assert sample["image"].dtype == torch.float32
    np.testing.assert_array_equal(sample["image"].numpy(), codes.emb.decode().values)
    assert sample["bounds"].shape == (9,)
    assert sample["transform"].shape == (9,)


def test_a_time_slice_picks_its_years(codes):
    dataset = codes.emb.to_torchgeo()
    x, y, _ = dataset.bounds
    year = slice(pd.Timestamp("2020-03-01"), pd.Timestamp("2020-04-01"), 1)
    np.testing.assert_array_equal(
        dataset[x, y, year]["image"].numpy()[0], codes.emb.decode().emb.year(2020).values
    )
    merged = codes.emb.to_torchgeo(time_series=False)
    np.testing.assert_array_equal(
        merged[merged.bounds]["image"].numpy(), codes.emb.decode().emb.year(2018).values
    )
    with pytest.raises(IndexError, match="not found in dataset with bounds"):
        dataset[x, y, slice(pd.Timestamp("2019-03-01"), pd.Timestamp("2019-04-01"), 1)]


def test_merging_times_fills_gaps_from_later_ones(codes):
    patched = codes.emb.decode().copy()
    patched[0, :, 50:60] = np.nan
    dataset = patched.emb.to_torchgeo(time_series=False)
    got = dataset[dataset.bounds]["image"].numpy()
    np.testing.assert_array_equal(got[:, 50:60], patched.values[1][:, 50:60])
    np.testing.assert_array_equal(got[:, 60:], patched.values[0][:, 60:])


@pytest.mark.parametrize("workers", [0, 2])
def test_samplers_and_loaders_give_pixels_of_the_array(codes, workers, tmp_path):
    array = gx.open(codes.emb.to_zarr(tmp_path / "a.zarr"), decode=False)
    dataset = array.emb.to_torchgeo()
    sampler = samplers.RandomPatchSampler(dataset, size=16, length=12)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=4, sampler=sampler, num_workers=workers, collate_fn=tg.stack_samples
    )
    decoded, box = codes.emb.decode(), codes.emb.geobox
    seen = 0
    for batch in loader:
        assert batch["image"].shape == (4, 2, 64, 16, 16)
        for image, transform in zip(batch["image"].numpy(), batch["transform"].numpy(), strict=True):
            # the sampler's corner may lie within a pixel: its centres say which pixels were taken
            col = int(np.floor((float(transform[2]) + 5 - box.affine.c) / 10))
            row = int(np.floor((box.affine.f - (float(transform[5]) - 5)) / 10))
            near = [
                decoded.values[:, :, r : r + 16, c : c + 16]
                for r in (row - 1, row, row + 1)  # the transform is float32: half a metre off at 5,000 km
                for c in (col - 1, col, col + 1)
                if r >= 0 and c >= 0
            ]
            assert any(np.array_equal(image, each, equal_nan=True) for each in near)
            seen += 1
    assert seen == 12


def test_a_grid_of_patches_covers_everything(codes):
    dataset = codes.isel(time=[0]).emb.to_torchgeo()
    sampler = samplers.GriddedPatchSampler(dataset, size=32, stride=32)
    counted = sum(
        int(torch.isfinite(sample["image"][0]).sum()) for sample in (dataset[index] for index in sampler)
    )
    assert counted == int(np.isfinite(codes.emb.decode().values[0, 0]).sum())


def test_beyond_the_edge_is_missing(codes):
    dataset = codes.isel(time=[0]).emb.to_torchgeo()
    x, y, t = dataset.bounds
    image = dataset[slice(x.start - 50, x.start + 100, 10.0), slice(y.stop - 100, y.stop + 50, 10.0), t][
        "image"
    ]
    assert image.shape == (64, 15, 15)
    assert torch.isnan(image[:, :5]).all()
    assert torch.isnan(image[:, :, :5]).all()
    np.testing.assert_array_equal(
        image[:, 5:, 5:].numpy(), codes.emb.decode().isel(time=0, y=slice(0, 10), x=slice(0, 10)).values
    )


def test_a_map_of_classes_is_a_mask_and_joins_images(codes):
    cover = gx.testing.scene().truth(gx.testing.geobox((96, 80)), [2018])
    masks = cover.emb.to_torchgeo()
    sample = masks[masks.bounds]
    assert sample["mask"].dtype == torch.int64
    np.testing.assert_array_equal(sample["mask"].numpy(), cover.values[0])
    both = codes.isel(time=[0]).emb.to_torchgeo() & masks
    joined = both[both.bounds]
    np.testing.assert_array_equal(joined["mask"].numpy(), cover.values[0])
    assert joined["image"].shape == (64, 96, 80)


def test_another_crs_takes_nearest_pixels_never_mixes_them(codes):
    one = codes.isel(time=[0])
    dataset = one.emb.to_torchgeo()
    dataset.crs = gx.testing.geobox((1, 2), crs="EPSG:3035").crs.proj
    sample = dataset[dataset.bounds]
    pixels = sample["image"].numpy().reshape(64, -1).T
    published = {row.tobytes() for row in one.emb.decode().values[0].reshape(64, -1).T}
    found = pixels[np.isfinite(pixels).all(1)]
    assert len(found) > 3000
    assert all(row.tobytes() in published for row in found)


def test_transforms_are_applied_and_south_up_is_the_same(codes):
    dataset = codes.isel(time=0).emb.to_torchgeo(transforms=lambda s: {**s, "n": torch.tensor(1)})
    sample = dataset[dataset.bounds]
    assert sample["n"] == 1
    turned = codes.isel(time=0, y=slice(None, None, -1)).transpose("x", "band", "y").emb.to_torchgeo()
    np.testing.assert_array_equal(turned[turned.bounds]["image"].numpy(), sample["image"].numpy())


def test_codes_with_scales_decode():
    tessera = gx.testing.synthetic("tessera", shape=(20, 16), decode=False, chunks=8)
    dataset = tessera.emb.to_torchgeo()
    np.testing.assert_array_equal(dataset[dataset.bounds]["image"].numpy(), tessera.emb.decode().values[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_locations_are_items_with_exact_places(codes, workers):
    table = gx.testing.scene().points(30, radius=300)
    points = codes.emb.sample(table)
    dataset = points.emb.to_torchgeo()
    assert isinstance(dataset, tg.NonGeoDataset)
    assert len(dataset) == 60
    batches = list(
        torch.utils.data.DataLoader(dataset, batch_size=16, num_workers=workers, collate_fn=tg.stack_samples)
    )
    vectors = torch.cat([b["embedding"] for b in batches]).numpy()
    np.testing.assert_array_equal(vectors.reshape(2, 30, 64), points.emb.decode().values)
    x = torch.cat([b["x"] for b in batches]).numpy()
    np.testing.assert_array_equal(x[:30], points["x"].values)  # not rounded to float32
    t = torch.cat([b["t"] for b in batches]).numpy()
    assert t[0] == pd.Timestamp("2018-01-01").timestamp()
    assert t[-1] == pd.Timestamp("2020-01-01").timestamp()
    np.testing.assert_array_equal(dataset[-1]["embedding"].numpy(), vectors[-1])
    with pytest.raises(IndexError, match="60 is not one of 60"):
        dataset[60]


@pytest.mark.complete  # a process that imports torch; without it readers/test_own.py has the same
def test_a_product_made_on_the_spot_travels_to_workers_started_anew():
    import pickle
    import subprocess
    import sys

    mine = gx.Product("interop-mine", dims=4)
    array = gx.wrap(np.ones((4, 8, 8), "f4"), mine, geobox=gx.testing.geobox((8, 8)))
    code = "import sys, pickle; d = pickle.load(sys.stdin.buffer); print(d[d.bounds]['image'].shape)"
    sent = pickle.dumps(array.chunk(y=4).emb.to_torchgeo())
    shown = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=True)
    assert shown.stdout.decode().strip() == "torch.Size([4, 8, 8])"


def test_a_date_of_its_own_is_its_time(codes):
    points = codes.isel(time=0, drop=True).emb.sample([(11.37, 47.25), (11.371, 47.25)])
    stamps = np.array(["2021-05-06", "2022-07-08"], "datetime64[ns]")
    dated = points.assign_coords(date=("location", stamps))
    assert dated.emb.to_torchgeo()[1]["t"] == pd.Timestamp("2022-07-08").timestamp()
    assert "t" not in points.emb.to_torchgeo()[1]


def test_what_is_neither_grid_nor_locations():
    with pytest.raises(EmbeddingError, match="needs a raster"):
        gx.to_torchgeo(xr.DataArray(np.zeros(3), dims="a"))
    points = gx.testing.synthetic("alphaearth", shape=(8, 8)).emb.sample([(11.37, 47.25)])
    with pytest.raises(EmbeddingError, match="takes vectors at locations"):
        gx.to_torchgeo(points.isel(band=0, drop=True).drop_attrs(deep=False))


# --- from torchgeo --------------------------------------------------------------------------------------------


def test_google_satellite_embedding_opens_decoded_and_masked(tmp_path):
    source = gx.example("alphaearth")
    dataset = tg.GoogleSatelliteEmbedding(source)
    name, paths = reader.files_of(dataset)
    assert name == "alphaearth"
    assert len(paths) == len(dataset)
    opened = gx.open(dataset)
    assert opened.identical(gx.open("alphaearth", sorted(paths)))
    assert opened.identical(gx.open("alphaearth", dataset))
    assert opened.emb.check()["ok"]  # torchgeo's own samples are codes, bilinear, with -128 in them


TABLES = {
    "ClayEmbeddings": "clay-v0",
    "EarthIndexEmbeddings": "earth-index",
}


@pytest.mark.parametrize("class_name", TABLES)
def test_tables_that_torchgeo_reads_open_as_their_product(class_name):
    product = TABLES[class_name]
    source = gx.example(product)
    files = sorted(source.rglob("*.*p*q*")) if source.is_dir() else [source]
    dataset = getattr(tg, class_name)(files[0])
    assert reader.files_of(dataset) == (product, [str(files[0])])
    assert gx.open(dataset).sizes == gx.open(product, str(files[0])).sizes


def test_other_datasets_are_refused():
    class Elsewhere(tg.NonGeoDataset):
        def __len__(self):
            return 0

        def __getitem__(self, index):
            raise IndexError(index)

    assert reader.is_dataset(Elsewhere())
    assert not reader.is_dataset("alphaearth")
    with pytest.raises(SourceError, match="Elsewhere is not one of torchgeo's embedding datasets, Clay"):
        gx.open(Elsewhere())

    class TesseraEmbeddings(Elsewhere):
        pass

    with pytest.raises(SourceError, match="does not say where its files are"):
        gx.open(TesseraEmbeddings())
    without = TesseraEmbeddings()
    without.root = "somewhere"
    assert reader.files_of(without) == ("tessera", ["somewhere"])

    class ClayEmbeddings(Elsewhere):
        root = "somewhere"

    with pytest.raises(SourceError, match="say which"):
        gx.open(ClayEmbeddings())
