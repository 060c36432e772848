"""Cubes of a benchmark: zipped Zarr v2 of four seasons and 27 bands, from files to vectors."""

import numpy as np
import pytest
import zarr

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.readers import cubes

IDS = ("0000002", "0000010", "0000001")


def write_cube(path, values):
    """A zipped Zarr store of version 2 with the variable ``bands``, consolidated, as xarray writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zarr.storage.ZipStore(path, mode="w") as store:
        group = zarr.create_group(store, zarr_format=2)
        array = group.create_array(
            "bands", shape=values.shape, chunks=(1, *values.shape[1:]), dtype=values.dtype
        )
        array[...] = values
        array.attrs["_ARRAY_DIMENSIONS"] = ["time", "band", "y", "x"]


@pytest.fixture(scope="module")
def benchmark_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("cubes")
    rng = np.random.default_rng(3)
    written = {}
    for sensor, bands in cubes.BANDS.items():
        for number, name in enumerate(IDS):
            low, high = (-25, -5) if sensor == "s1" else (100, 6000)
            values = rng.uniform(low, high, (4, len(bands), 32, 32)).astype("f4" if sensor == "s1" else "i2")
            written[sensor, name] = values
            write_cube(root / sensor / f"part-{number:06d}" / f"{name}.zarr.zip", values)
    return root, written


def test_cubes_are_stacks_by_sensor_in_the_order_of_their_ids(benchmark_folder):
    root, written = benchmark_folder
    with testing.raise_if_dask_computes():
        found = gx.open_cubes(root)
    assert list(found) == ["s1", "s2l1c", "s2l2a"]
    for sensor, stack in found.items():
        assert stack.dims == ("location", "time", "band", "y", "x")
        assert list(stack.location.values) == sorted(IDS)
        assert list(stack.season.values) == ["spring", "summer", "autumn", "winter"]
        for name in IDS:
            np.testing.assert_array_equal(stack.sel(location=name).values, written[sensor, name])
    assert sum(each.sizes["band"] for each in found.values()) == 27
    assert list(gx.open_cubes(root, sensors=["s2l2a"])) == ["s2l2a"]


def test_all_27_bands_become_vectors_of_each_season(benchmark_folder):
    torch = pytest.importorskip("torch")
    root, written = benchmark_folder
    card = gx.encoder("rcf").with_chip(32)
    seasons = gx.embed(
        gx.open_cubes(root), card, time="each", scale={"s2l1c": 1e-4, "s2l2a": 1e-4, "s1": 0.1}
    )
    assert seasons.dims == ("time", "location", "band")
    factors = {"s1": 0.1, "s2l1c": 1e-4, "s2l2a": 1e-4}
    cube = np.concatenate([written[s, "0000010"][2] * np.float32(f) for s, f in factors.items()])
    models = pytest.importorskip("torchgeo.models")
    with torch.inference_mode():
        own = models.RCF(27, 512, kernel_size=3, bias=-1.0, seed=1)(torch.from_numpy(cube[None].astype("f4")))
    got = seasons.sel(location="0000010").values[2]
    np.testing.assert_allclose(got, own.numpy()[0], atol=1e-5 * np.abs(got).max())
    assert seasons.mean("time").dims == ("location", "band")


def test_a_sensor_s_offset_is_taken_off_where_it_is_said(benchmark_folder, tmp_path):
    _, written = benchmark_folder
    values = {name: written["s2l2a", name] + 1000 for name in IDS}  # SSL4EO-S12 v1.1
    for name, each in values.items():
        write_cube(tmp_path / "s2l2a" / f"{name}.zarr.zip", each.astype("i2"))
    card = gx.encoder("rcf").with_chip(32)
    own = {"time": "each", "scale": {"s2l2a": 1e-4}}
    shifted = gx.embed(gx.open_cubes(tmp_path), card, offset={"s2l2a": -0.1}, **own)
    plain = gx.embed(gx.open_cubes(benchmark_folder[0], sensors=["s2l2a"]), card, **own)
    np.testing.assert_allclose(shifted.values, plain.values, atol=1e-4)


def test_cubes_that_cannot_be_say_why(benchmark_folder, tmp_path):
    root, written = benchmark_folder
    with pytest.raises(SourceError, match="has no cubes: they lie in folders s1, s2l1c, s2l2a"):
        gx.open_cubes(tmp_path)
    with pytest.raises(SourceError, match=r"cubes have the sensors .*; got s3"):
        gx.open_cubes(root, sensors=["s3"])
    some = tmp_path / "some"
    write_cube(some / "s1" / "a.zarr.zip", written["s1", IDS[0]])
    write_cube(some / "s1" / "b.zarr.zip", written["s1", IDS[0]][:, :1])
    write_cube(some / "s2l2a" / "a.zarr.zip", written["s2l2a", IDS[0]])
    with pytest.raises(SourceError, match=r"s2l2a lacks 1 of 2 cubes, such as b: say which sensors"):
        gx.open_cubes(some)
    with pytest.raises(
        SourceError, match=r"b.zarr.zip has the shape \(4, 1, 32, 32\); its sensor has \(season, 2, y, x\)"
    ):
        gx.open_cubes(some, sensors=["s1"])["s1"].compute()
    (some / "s1" / "b.zarr.zip").write_bytes(b"not a zip")
    with pytest.raises(SourceError, match=r"b.zarr.zip cannot be read as a cube"):
        gx.open_cubes(some, sensors=["s1"])["s1"].compute()
    with pytest.raises(EmbeddingError, match=r"4 dates .*time='each'"):
        gx.embed(gx.open_cubes(root, sensors=["s2l2a"])["s2l2a"], gx.encoder("rcf").with_chip(32))
