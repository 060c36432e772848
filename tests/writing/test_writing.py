"""Files that others read: bitwise, whole or not at all, resumed without doing anything twice."""

import json
import signal
import subprocess
import sys
import textwrap
import threading
from xml.etree import ElementTree

import dask
import dask.array as da
import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr.core import errors
from geoemb_xr.core.errors import ComparabilityError, EmbeddingError
from geoemb_xr.core.legend import Legend
from geoemb_xr.writing import overviews, staging


@pytest.fixture
def codes():
    return gx.testing.synthetic(
        "alphaearth", shape=(130, 110), years=[2018, 2020], missing=True, decode=False, chunks=50
    )


@pytest.fixture
def cover():
    return gx.testing.scene().truth(gx.testing.geobox((700, 600)), 2018)


class Interrupted(RuntimeError):
    """Stands for whatever ends a run."""


def counting(array, fail_at=None):
    """The array through a function that counts its blocks, and fails at one."""
    state = {"n": 0, "lock": threading.Lock()}

    def touch(block):
        with state["lock"]:
            state["n"] += 1
            if fail_at is not None and state["n"] == fail_at:
                raise Interrupted
        return block

    data = da.map_blocks(
        touch, array.data, dtype=array.dtype, meta=array.data._meta, name=f"touch-{array.data.name}"
    )
    return array.copy(data=data), state


# --- GeoTIFF --------------------------------------------------------------------------------------------------


def test_codes_are_bitwise_tile_interleaved_and_say_what_they_are(codes, tmp_path):
    path = codes.isel(time=0).emb.to_cog(tmp_path / "codes.tif")
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), codes.isel(time=0).values)
        assert file.crs.to_epsg() == 32632
        assert file.transform == codes.emb.geobox.affine
        assert file.descriptions == tuple(codes["band"].values)
        assert file.nodata == -128
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.tags(ns="IMAGE_STRUCTURE")["INTERLEAVE"] == "TILE"
        tags = file.tags()
    assert tags["product"] == "alphaearth"
    assert tags["version"] == "synthetic"
    assert tags["time"] == "2018-01-01"
    assert "Google" in tags["attribution"]
    assert tags["licence"] == "CC-BY-4.0"
    assert tags["software"] == f"geoemb_xr {gx.__version__}"
    assert list(tmp_path.iterdir()) == [path]


def test_a_class_map_has_its_colours_and_names(cover, tmp_path):
    legend = Legend.of_names(["water", "dry grass", "a <b> & c", "d", "e", "f"])
    cover = cover.assign_attrs(legend.attrs())
    path = cover.emb.to_cog(tmp_path / "cover.tif")
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), cover.values)
        assert file.nodata == 0
        assert {v: file.colormap(1)[v] for v in legend.values} == {
            v: tuple(legend.rgba()[v].tolist()) for v in legend.values
        }
        assert json.loads(file.tags()["legend"])[1]["name"] == "dry grass"
    style = ElementTree.parse(tmp_path / "cover.qml")
    entries = [(e.get("value"), e.get("label"), e.get("color")) for e in style.iter("paletteEntry")]
    assert entries == [
        (str(v), n, c) for v, n, c in zip(legend.values, legend.names, legend.colours, strict=True)
    ]


def test_a_class_map_of_two_bytes_keeps_its_codes(tmp_path):
    legend = Legend.of_names(["a", "b"], values=[11, 4000])
    array = gx.testing.scene().truth(gx.testing.geobox((32, 32)), 2018)
    array = array.copy(data=np.where(array.values == 4, 4000, 11).astype("u2")).assign_attrs(legend.attrs())
    path = array.emb.to_cog(tmp_path / "two.tif")
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), array.values)
        assert file.colormap(1)[4000][:3] == tuple(bytes.fromhex(legend.colours[1][1:]))


def test_overviews_of_a_class_map_are_the_mode_of_base_pixels(tmp_path):
    cover = gx.testing.scene().truth(gx.testing.geobox((1100, 700)), 2018)
    path = cover.chunk(y=300, x=300).emb.to_cog(tmp_path / "cover.tif")
    with rasterio.open(path) as file:
        assert file.overviews(1) == [2, 4]
    with rasterio.open(path, overview_level=1) as file:
        got = file.read(1)
    padded = np.pad(cover.values, ((0, 0), (0, 0)))
    cells = padded.reshape(275, 4, 175, 4).swapaxes(1, 2).reshape(275, 175, 16)
    counts = np.stack([(cells == value).sum(-1) for value in range(1, 7)])
    np.testing.assert_array_equal(got, counts.argmax(0) + 1)


def test_overviews_of_codes_are_unit_means_of_decoded_base_pixels(tmp_path):
    codes = gx.testing.synthetic("alphaearth", shape=(600, 520), missing=True, decode=False).isel(time=0)
    path = codes.emb.to_cog(tmp_path / "codes.tif")
    with rasterio.open(path, overview_level=0) as file:
        got = file.read()
    vectors = codes.emb.decode().values.astype(np.float64).reshape(64, 300, 2, 260, 2)
    filled = np.where(np.isnan(vectors), 0, vectors).sum((2, 4))
    missing = np.isnan(vectors).all((0, 2, 4))
    with np.errstate(invalid="ignore"):
        unit = (filled / np.linalg.norm(filled, axis=0)).astype(np.float32)
    expected = np.where(missing, np.nan, unit)
    grid = gx.testing.geobox((300, 260))
    encoded = gx.encode(gx.wrap(expected.astype("f4"), "alphaearth", geobox=grid, version="synthetic"))
    # a code may fall to either side where the quotient lies within float32 of a half
    differ = got != encoded.values
    assert differ.mean() < 1e-5
    np.testing.assert_array_equal(got[:, missing], -128)


def test_overviews_of_numbers_are_means_of_what_is_there(tmp_path):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(601, 530)).astype("f4")
    data[rng.random(data.shape) < 0.3] = np.nan
    array = (
        gx.testing.scene().truth(gx.testing.geobox(data.shape), 2018).copy(data=data).drop_attrs(deep=False)
    )
    path = array.emb.to_cog(tmp_path / "numbers.tif")
    with rasterio.open(path, overview_level=0) as file:
        got = file.read(1)
    padded = np.pad(data.astype("f8"), ((0, 1), (0, 0)), constant_values=np.nan).reshape(301, 2, 265, 2)
    count = np.isfinite(padded).sum((1, 3))
    with np.errstate(invalid="ignore"):
        expected = (np.nansum(padded, axis=(1, 3)) / count).astype("f4")
    np.testing.assert_array_equal(got, expected)


def test_a_picture_has_an_alpha_band_and_nearest_overviews(cover, tmp_path):
    rgba = np.random.default_rng(0).integers(0, 255, (700, 600, 4), dtype="u1")
    array = xr.DataArray(rgba, dims=("y", "x", "rgb"), coords=cover.drop_vars("time").coords)
    path = array.emb.to_cog(tmp_path / "rgb.tif")
    with rasterio.open(path) as file:
        assert [c.name for c in file.colorinterp] == ["red", "green", "blue", "alpha"]
        np.testing.assert_array_equal(file.read(), rgba.transpose(2, 0, 1))
    with rasterio.open(path, overview_level=0) as file:
        np.testing.assert_array_equal(file.read(), rgba.transpose(2, 0, 1)[:, 1::2, 1::2])


def test_south_up_and_transposed_arrays_give_the_same_file(codes, tmp_path):
    one = codes.isel(time=0)
    turned = one.isel(y=slice(None, None, -1)).transpose("x", "y", "band")
    paths = [a.emb.to_cog(tmp_path / f"{i}.tif") for i, a in enumerate((one, turned, one.compute()))]
    for path in paths:
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(), one.values)
            assert file.transform == one.emb.geobox.affine


def test_encode_writes_the_products_codes(codes, tmp_path):
    path = codes.emb.decode().isel(time=0).emb.to_cog(tmp_path / "a.tif", encode=True)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), codes.isel(time=0).values)


def test_an_older_gdal_interleaves_by_band(monkeypatch, tmp_path):
    codes = gx.testing.synthetic("alphaearth", shape=(600, 520), decode=False).isel(time=0)
    monkeypatch.setattr(rasterio, "__gdal_version__", "3.10.3")
    path = codes.emb.to_cog(tmp_path / "a.tif")
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["INTERLEAVE"] == "BAND"
        assert file.overviews(1) == [2]
        assert file.block_shapes[0] == (512, 512)
        np.testing.assert_array_equal(file.read(), codes.values)
    assert gx.open(path, decode=False).identical(codes)


def test_several_times_need_a_template(codes, tmp_path):
    with pytest.raises(
        ValueError, match=r"holds one time, the array has 2 \(2018, 2020\).*a_\{time:%Y\}\.tif"
    ):
        codes.emb.to_cog(tmp_path / "a.tif")
    paths = codes.emb.to_cog(tmp_path / "{name}_{time:%Y}.tif")
    assert [p.name for p in paths] == ["embedding_2018.tif", "embedding_2020.tif"]
    with rasterio.open(paths[1]) as file:
        np.testing.assert_array_equal(file.read(), codes.isel(time=1).values)
    with pytest.raises(ValueError, match="for more than one time"):
        codes.emb.to_cog(tmp_path / "{name}.tif")
    with pytest.raises(ValueError, match=r"may use \['name', 'time'\]"):
        codes.emb.to_cog(tmp_path / "{yaer}.tif")


def test_what_is_there_is_kept(cover, tmp_path):
    path = cover.emb.to_cog(tmp_path / "a.tif")
    with pytest.raises(FileExistsError, match="mode='w' replaces it"):
        cover.emb.to_cog(path)
    other = cover.copy(data=np.ones_like(cover.values))
    other.emb.to_cog(path, mode="w")
    with rasterio.open(path) as file:
        assert (file.read(1) == 1).all()
    with pytest.raises(FileNotFoundError, match="make it first"):
        cover.emb.to_cog(tmp_path / "no" / "a.tif")
    with pytest.raises(ValueError, match="mode='a'"):
        cover.emb.to_cog(path, mode="a")


def test_what_cannot_be_a_geotiff_says_so(codes, cover, tmp_path):
    tessera = gx.testing.synthetic("tessera", shape=(8, 8), decode=False)
    with pytest.raises(EmbeddingError, match="need a scale for each pixel"):
        tessera.emb.to_cog(tmp_path / "a.tif")
    with pytest.raises(EmbeddingError, match="encode=True is for embeddings"):
        cover.emb.to_cog(tmp_path / "a.tif", encode=True)
    with pytest.raises(EmbeddingError, match="needs a raster"):
        codes.emb.sample([(11.37, 47.25)]).emb.to_cog(tmp_path / "a.tif")
    with pytest.raises(EmbeddingError, match="one dimension beside time"):
        codes.expand_dims(more=2).emb.to_cog(tmp_path / "a.tif")
    with pytest.raises(EmbeddingError, match="'mean' is for numbers"):
        cover.emb.to_cog(tmp_path / "a.tif", overviews="mean")
    with pytest.raises(EmbeddingError, match="cannot write complex"):
        cover.astype("c8").drop_attrs(deep=False).emb.to_cog(tmp_path / "a.tif")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_file_is_not_there_and_the_same_call_goes_on(cover, tmp_path):
    lazy = cover.chunk(y=100, x=100)
    failing, state = counting(lazy, fail_at=30)
    # one thread: of two the other may mark its block after the marks were counted here
    with dask.config.set(scheduler="synchronous"), pytest.raises(Interrupted):
        failing.emb.to_cog(tmp_path / "a.tif")
    assert not (tmp_path / "a.tif").exists()
    done = int(np.asarray(zarr.open_array(tmp_path / "a.tif.part/blocks.zarr", path="done")[:]).sum())
    assert done >= 20
    again, state = counting(lazy)
    again.emb.to_cog(tmp_path / "a.tif")
    assert state["n"] == 42 - done
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1), cover.values)
    assert not (tmp_path / "a.tif.part").exists()


def test_ragged_blocks_of_a_window_are_written_as_they_are(cover, tmp_path):
    ragged = cover.chunk(y=(30, 200, 200, 200, 70), x=(50, 200, 200, 150))
    again, state = counting(ragged)
    again.emb.to_cog(tmp_path / "a.tif")
    assert state["n"] == 20
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1), cover.values)


def test_another_array_starts_anew(cover, tmp_path, caplog):
    failing, _ = counting(cover.chunk(y=100, x=100), fail_at=30)
    with pytest.raises(Interrupted):
        failing.emb.to_cog(tmp_path / "a.tif")
    other = (cover.chunk(y=100, x=100) % 2).assign_attrs(cover.attrs)
    with caplog.at_level("INFO", "geoemb_xr"):
        other.emb.to_cog(tmp_path / "a.tif")
    assert "unfinished work on another array" in caplog.text
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1), cover.values % 2)


KILLED = """
import os, sys, threading, signal
import dask
import dask.array as da
import geoemb_xr as gx

lock, count = threading.Lock(), [0]

def touch(block):
    with lock:
        count[0] += 1
        if count[0] == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
    print("block", flush=True)
    return block

cover = gx.testing.scene().truth(gx.testing.geobox((300, 300)), 2018).chunk(y=50, x=50)
data = da.map_blocks(touch, cover.data, dtype="u1", meta=cover.data._meta, name="same")
getattr(cover.copy(data=data).emb, sys.argv[1])(sys.argv[3])
"""


@pytest.mark.parametrize(("method", "name"), [("to_cog", "a.tif"), ("to_zarr", "a.zarr")])
def test_a_killed_process_is_resumed_by_another(method, name, tmp_path):
    def run(kill_at):
        command = [sys.executable, "-c", textwrap.dedent(KILLED), method, str(kill_at), str(tmp_path / name)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    killed = run(25)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / name).exists()
    with pytest.raises(errors.SourceError, match="was never finished"):
        gx.open(tmp_path / name)
    resumed = run(-1)
    assert resumed.returncode == 0, resumed.stderr
    assert (
        36 - 25 <= resumed.stdout.count("block") <= 36 - 25 + 4
    )  # those that were being written are done again
    cover = gx.testing.scene().truth(gx.testing.geobox((300, 300)), 2018)
    np.testing.assert_array_equal(gx.open(tmp_path / name).values, cover.values)


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    levels=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_overviews_do_not_depend_on_how_blocks_are_cut(shape, levels, seed):
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(3, *shape)).astype("f4")
    numbers[rng.random(numbers.shape) < 0.2] = np.nan
    classes = rng.integers(0, 4, (1, *shape), dtype="u1")
    side = 2**levels
    for function, block in ((overviews.Mean(), numbers), (overviews.mode, classes)):
        whole = function(block, levels)
        for k in range(1, levels + 1):
            assert whole[k - 1].shape[1:] == tuple(overviews.halved(n, k) for n in shape)
        first = function(block[:, :side], levels)
        for big, small in zip(whole, first, strict=True):
            np.testing.assert_array_equal(big[:, : small.shape[1]], small)


def test_lay_out_shifts_a_ragged_first_block_onto_the_grid():
    data, layout = staging.lay_out(da.zeros((12, 7), chunks=((3, 4, 4, 1), (7,))))
    assert data.chunks == ((3, 4, 4, 1), (7,))
    assert layout == staging.Layout((4, 7), (1, 0))
    data, layout = staging.lay_out(da.zeros(10, chunks=((2, 1, 4, 3),)))
    assert data.chunks == ((4, 4, 2),)
    assert layout == staging.Layout((4,), (0,))


# --- Zarr -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
@pytest.mark.parametrize("decode", [True, False])
def test_plain_xarray_and_zarr_read_the_same_bits(product, decode, tmp_path):
    array = gx.testing.synthetic(
        product, shape=(130, 110), years=[2018, 2020], missing=True, decode=decode, chunks=50
    )
    path = array.emb.to_zarr(tmp_path / "a.zarr", chunks=25)
    with xr.open_zarr(path) as store:  # consolidated: a warning would be an error here
        np.testing.assert_array_equal(store[array.name].values, array.values)
        np.testing.assert_array_equal(store["time"].values, array["time"].values)
        np.testing.assert_array_equal(store["x"].values, array["x"].values)
    node = zarr.open_array(path, path="embedding", mode="r")
    assert node.shards == (1, array.sizes["band"], 50, 50)
    assert node.metadata.dimension_names == ("time", "band", "y", "x")
    assert list(tmp_path.iterdir()) == [path]


def test_the_root_follows_the_conventions(tmp_path):
    zarr_cm = pytest.importorskip("zarr_cm", reason="the validator of Zarr conventions is not installed")
    codes = gx.testing.synthetic("alphaearth", shape=(13, 11), decode=False)
    attrs = dict(zarr.open_group(codes.emb.to_zarr(tmp_path / "a.zarr"), mode="r").attrs)
    zarr_cm.validate_many(attrs, ["proj", "spatial"])
    uuids = {each["uuid"] for each in attrs["zarr_conventions"]}
    assert "61c12cc5-0e28-4056-999a-480cf3fb7e4c" in uuids
    required = {"geoemb:type", "geoemb:dimensions", "geoemb:model", "geoemb:source_data", "geoemb:data_type"}
    assert required <= set(attrs)
    assert attrs["geoemb:type"] == "pixel"
    assert attrs["geoemb:dimensions"] == 64
    assert attrs["geoemb:data_type"] == "int8"
    assert set(attrs["geoemb:quantization"]) <= {
        "method",
        "original_dtype",
        "quantized_dtype",
        "scale",
        "link",
    }
    assert "scale" not in attrs["geoemb:quantization"]
    box = codes.emb.geobox
    assert attrs["spatial:transform"] == list(box.affine)[:6]
    assert attrs["proj:code"] == "EPSG:32632"
    assert attrs["licence"] == "CC-BY-4.0"


def test_per_pixel_scales_are_named(tmp_path):
    codes = gx.testing.synthetic("tessera", shape=(13, 11), decode=False)
    attrs = zarr.open_group(codes.emb.to_zarr(tmp_path / "a.zarr"), mode="r").attrs
    quantization = attrs["geoemb:quantization"]
    assert quantization["method"] == "per_pixel_scale"
    assert quantization["scale"] == {"type": "array", "array_name": "scale", "nodata": "NaN"}


def test_floats_of_a_product_without_a_codec_become_int8_with_scales(tmp_path):
    mine = gx.Product("writing-floats", dims=16)
    vectors = np.random.default_rng(0).normal(size=(16, 20, 30)).astype("f4")
    vectors[:, :3] = np.nan
    array = gx.wrap(vectors, mine, geobox=gx.testing.geobox((20, 30)))
    path = array.emb.to_zarr(tmp_path / "a.zarr", encode=True)
    assert gx.open(path, decode=False).dtype == np.int8
    back = gx.open(path)
    limit = np.abs(vectors[:, 3:]).max(axis=0) / 127 / 2 * 1.0001
    assert (np.abs(back.values - vectors)[:, 3:] <= limit).all()
    assert np.isnan(back.values[:, :3]).all()


def test_an_interrupted_store_does_not_open_and_is_resumed(codes, tmp_path):
    failing, _ = counting(codes, fail_at=10)
    # one thread: of two the other may mark its block after the marks were counted here
    with dask.config.set(scheduler="synchronous"), pytest.raises(Interrupted):
        failing.emb.to_zarr(tmp_path / "a.zarr")
    with pytest.raises(FileNotFoundError):
        xr.open_zarr(tmp_path / "a.zarr")
    marks = zarr.open_array(tmp_path / "a.zarr.part/marks.zarr", path="embedding")
    done = int(np.asarray(marks[:]).sum())
    assert done >= 6
    again, state = counting(codes)
    again.emb.to_zarr(tmp_path / "a.zarr")
    assert state["n"] == 18 - done
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "a.zarr")["embedding"].values, codes.values)


def test_a_store_that_is_there_is_kept_and_replaced_only_when_whole(codes, tmp_path):
    path = codes.emb.to_zarr(tmp_path / "a.zarr")
    with pytest.raises(FileExistsError, match="mode='w' replaces it"):
        codes.emb.to_zarr(path)
    failing, _ = counting(codes.isel(time=[0]), fail_at=5)
    with pytest.raises(Interrupted):
        failing.emb.to_zarr(path, mode="w")
    np.testing.assert_array_equal(gx.open(path, decode=False).values, codes.values)
    # even from itself: the old one goes when the new one is whole
    gx.open(path, decode=False).isel(time=[0]).emb.to_zarr(path, mode="w")
    np.testing.assert_array_equal(gx.open(path, decode=False).values, codes.values[:1])
    assert list(tmp_path.iterdir()) == [path]


def test_appended_years_leave_the_others_alone(tmp_path):
    full = gx.testing.synthetic("tessera", shape=(60, 50), years=[2018, 2020, 2022], decode=False, chunks=25)
    path = full.isel(time=[0]).emb.to_zarr(tmp_path / "a.zarr")
    before = {p: p.stat().st_mtime_ns for p in path.rglob("c/0/*/*") if p.is_file()}
    full.isel(time=[1, 2]).emb.to_zarr(path, mode="a")
    with xr.open_zarr(path) as store:
        np.testing.assert_array_equal(store["embedding"].values, full.values)
        np.testing.assert_array_equal(store["scale"].values, full["scale"].values)
        np.testing.assert_array_equal(store["time"].values, full["time"].values)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert gx.open(path, decode=False).identical(full)
    with pytest.raises(EmbeddingError, match="appended ones must be later, got 2022"):
        full.isel(time=[2]).emb.to_zarr(path, mode="a")


def test_an_interrupted_append_leaves_the_store_as_it_was(tmp_path):
    full = gx.testing.synthetic("alphaearth", shape=(60, 50), years=[2018, 2020], decode=False, chunks=25)
    path = full.isel(time=[0]).emb.to_zarr(tmp_path / "a.zarr")
    failing, _ = counting(full.isel(time=[1]), fail_at=3)
    with pytest.raises(Interrupted):
        failing.emb.to_zarr(path, mode="a")
    assert gx.open(path, decode=False).identical(full.isel(time=[0]))
    again, state = counting(full.isel(time=[1]))
    again.emb.to_zarr(path, mode="a")
    assert state["n"] < 6
    assert gx.open(path, decode=False).identical(full)


def test_an_append_killed_between_moving_and_telling_is_finished(tmp_path, monkeypatch):
    from geoemb_xr.writing import zarr as writer

    full = gx.testing.synthetic("alphaearth", shape=(60, 50), years=[2018, 2020], decode=False, chunks=25)
    path = full.isel(time=[0]).emb.to_zarr(tmp_path / "a.zarr")

    def fail(*args):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_extend", fail)
        with pytest.raises(Interrupted):
            full.isel(time=[1]).emb.to_zarr(path, mode="a")
    assert gx.open(path, decode=False).identical(full.isel(time=[0]))
    full.isel(time=[1]).emb.to_zarr(path, mode="a")
    assert gx.open(path, decode=False).identical(full)


def test_a_region_is_written_in_place_and_only_whole_shards(tmp_path):
    full = gx.testing.synthetic("alphaearth", shape=(60, 50), years=[2018, 2020], decode=False, chunks=25)
    path = full.emb.to_zarr(tmp_path / "a.zarr")
    new = full.copy(data=full.data.copy())
    values = full.values.copy()
    values[1, :, 25:, 25:] = -128  # all missing: such a block must be written too
    new = full.copy(data=values).isel(time=[1], y=slice(25, None), x=slice(25, None))
    new.chunk(y=10, x=20).emb.to_zarr(path, mode="r+")
    np.testing.assert_array_equal(gx.open(path, decode=False).values, values)
    with pytest.raises(
        EmbeddingError, match=r"shards of 25 along 'y', and 10:30 cuts through one; write 0:50"
    ):
        full.isel(y=slice(10, 30)).emb.to_zarr(path, mode="r+")
    with pytest.raises(EmbeddingError, match="has no time = "):
        full.isel(time=[0]).assign_coords(time=full["time"][:1] + np.timedelta64(1, "D")).emb.to_zarr(
            path, mode="r+"
        )
    with pytest.raises(EmbeddingError, match="has no y = "):
        full.isel(y=slice(0, 25)).assign_coords(y=full["y"][:25] + 3.0).emb.to_zarr(path, mode="r+")


def test_regions_written_at_the_same_time_do_not_meet(tmp_path):
    full = gx.testing.synthetic("alphaearth", shape=(100, 50), decode=False, chunks=25)
    path = full.copy(data=np.full(full.shape, -128, "i1")).chunk(y=25, x=25).emb.to_zarr(tmp_path / "a.zarr")
    parts = [full.isel(y=slice(i, i + 25)) for i in range(0, 100, 25)]
    threads = [
        threading.Thread(target=part.emb.to_zarr, args=(path,), kwargs={"mode": "r+"}) for part in parts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(gx.open(path, decode=False).values, full.values)


def test_what_does_not_fit_a_store_is_refused(codes, tmp_path):
    path = codes.emb.to_zarr(tmp_path / "a.zarr")
    with pytest.raises(EmbeddingError, match=r"int8 .*got float32.*encode=True writes codes"):
        codes.emb.decode().emb.to_zarr(path, mode="r+")
    with pytest.raises(ComparabilityError, match="alphaearth"):
        codes.assign_attrs(version="v1").emb.to_zarr(path, mode="r+")
    with pytest.raises(EmbeddingError, match=r"holds .*'embedding'.*got .*'other'"):
        codes.rename("other").emb.to_zarr(path, mode="r+")
    elsewhere = gx.testing.synthetic(
        "alphaearth", grid=gx.testing.geobox((130, 110), crs="EPSG:3035"), decode=False
    )
    with pytest.raises(EmbeddingError, match="another CRS"):
        elsewhere.emb.to_zarr(path, mode="r+")
    later = codes.isel(time=[0], y=slice(0, 50)).assign_coords(time=[np.datetime64("2030-01-01", "ns")])
    with pytest.raises(EmbeddingError, match="needs the store's whole grid"):
        later.emb.to_zarr(path, mode="a")
    with pytest.raises(EmbeddingError, match="appends along 'time'"):
        codes.emb.year(2018).emb.to_zarr(codes.emb.year(2018).emb.to_zarr(tmp_path / "b.zarr"), mode="a")
    with pytest.raises(FileNotFoundError, match="mode='w-' makes it"):
        codes.emb.to_zarr(tmp_path / "none.zarr", mode="a")
    with pytest.raises(ValueError, match="a folder, local or mounted"):
        codes.emb.to_zarr("s3://bucket/a.zarr")
    shaped = codes.emb.sample([(11.37, 47.25)]).assign_coords(geometry=("location", [shapely.Point(0, 0)]))
    with pytest.raises(EmbeddingError, match="cannot write the coordinate 'geometry'"):
        shaped.emb.to_zarr(tmp_path / "c.zarr")


def test_shards_and_chunks_as_asked(tmp_path):
    array = gx.testing.synthetic("alphaearth", shape=(200, 130), decode=False, chunks=64)
    path = array.emb.to_zarr(tmp_path / "a.zarr", shards=128, chunks=64)
    node = zarr.open_array(path, path="embedding", mode="r")
    assert (node.shards, node.chunks) == ((1, 64, 128, 128), (1, 64, 64, 64))
    np.testing.assert_array_equal(node[:], array.values)


def test_several_maps_in_one_store(tmp_path):
    cover = gx.testing.scene().truth(gx.testing.geobox((60, 50)), [2018, 2020])
    both = xr.Dataset({"cover": cover, "doubled": (cover * 2).astype("f4").drop_attrs(deep=False)})
    path = gx.to_zarr(both.chunk(y=25, x=25), tmp_path / "maps.zarr")
    back = gx.open(path)
    assert back["cover"].identical(both["cover"])
    assert back["doubled"].identical(both["doubled"])


def test_times_within_a_day_survive(tmp_path):
    array = gx.testing.synthetic("alphaearth", shape=(8, 8))
    array = array.assign_coords(time=[np.datetime64("2020-06-15T10:30:15.123456789", "ns")])
    assert gx.open(array.emb.to_zarr(tmp_path / "a.zarr")).identical(array)


# --- GeoParquet -----------------------------------------------------------------------------------------------


@pytest.fixture
def points():
    table = gx.testing.scene().points(80, radius=500)
    table.index = pd.Index([f"p{i}" for i in range(len(table))], name="id")
    return gx.testing.synthetic("alphaearth", shape=(130, 110), chunks=50).emb.sample(table)


def test_geopandas_reads_vectors_places_and_columns(points, tmp_path):
    one = points.isel(time=0)
    path = one.emb.to_geoparquet(tmp_path / "a.parquet")
    table = geopandas.read_parquet(path)
    assert table.crs.to_epsg() == 32632
    order = table["location"].tolist()
    assert sorted(order) == sorted(one["location"].values.tolist())
    own = one.sel(location=order)
    np.testing.assert_array_equal(np.stack(table["embedding"]), own.values)
    np.testing.assert_array_equal(table.geometry.x, own["x"].values)
    assert table["land_cover"].tolist() == own["land_cover"].values.tolist()
    west, south, east, north = table.total_bounds
    half = geopandas.read_parquet(path, bbox=(west, south, (west + east) / 2, north))  # needs the covering
    assert 0 < len(half) < len(table)
    assert list(tmp_path.iterdir()) == [path]


def test_rows_follow_a_hilbert_curve_in_groups_with_statistics(tmp_path, monkeypatch):
    from geoemb_xr.writing import geoparquet

    monkeypatch.setattr(geoparquet, "ROW_GROUP", 64 * 4 * 500)
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1e5, (4000, 2))
    array = gx.wrap(
        rng.normal(size=(4000, 64)).astype("f4"),
        "alphaearth",
        x=xy[:, 0] + 5e5,
        y=xy[:, 1],
        crs=32632,
        version="v1",
    )
    path = array.chunk(location=700).emb.to_geoparquet(tmp_path / "a.parquet")
    file = pq.ParquetFile(path)
    assert file.num_row_groups == 8
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    table = geopandas.read_parquet(path)
    distance = table.geometry.hilbert_distance().to_numpy()
    assert (np.diff(distance.astype(np.int64)) >= 0).all()
    names = [file.metadata.row_group(0).column(i).path_in_schema for i in range(file.metadata.num_columns)]
    column = names.index("bbox.xmin")
    spans = [
        file.metadata.row_group(i).column(column).statistics.max
        - file.metadata.row_group(i).column(column).statistics.min
        for i in range(8)
    ]
    assert np.mean(spans) < 0.6e5  # of 1e5: groups are compact
    np.testing.assert_array_equal(np.stack(table["embedding"]), array.values[table["location"].to_numpy()])


def test_the_footer_says_what_the_vectors_are(points, tmp_path):
    path = points.isel(time=0).emb.to_geoparquet(tmp_path / "a.parquet", encode=True)
    metadata = pq.read_schema(path).metadata
    emb, geo = json.loads(metadata[b"emb"]), json.loads(metadata[b"geo"])
    assert emb["model"]["id"] == "alphaearth"
    assert emb["embedding"] == {"dim": 64, "quantization": "signed-square"}
    assert emb["license"] == "CC-BY-4.0"
    assert "Google" in emb["attribution"]
    assert emb["datetime"] == "2018-01-01"
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert pq.read_schema(path).field("embedding").type.value_type == "int8"


def test_polygons_ride_along(tmp_path):
    shapes = [shapely.box(i, 0, i + 1, 2) for i in range(5)]
    array = gx.wrap(np.eye(5, 64, dtype="f4"), "alphaearth", x=np.arange(5) + 0.5, y=np.ones(5), version="v1")
    array = array.assign_coords(geometry=("location", shapes))
    path = array.emb.to_geoparquet(tmp_path / "a.parquet")
    table = geopandas.read_parquet(path).sort_values("location")
    assert table.geometry.tolist() == shapes
    back = gx.open(path).sortby("location")
    assert back["geometry"].values.tolist() == shapes
    np.testing.assert_array_equal(back.values, array.values)


def test_locations_without_a_place_come_last(tmp_path):
    array = gx.wrap(
        np.eye(3, 64, dtype="f4"), "alphaearth", x=[1.0, np.nan, 2.0], y=[1.0, np.nan, 2.0], version="v1"
    )
    path = array.emb.to_geoparquet(tmp_path / "a.parquet")
    assert geopandas.read_parquet(path).geometry.isna().tolist() == [False, False, True]
    assert gx.open(path).sortby("location").identical(array)


def test_a_template_for_several_times_and_what_is_refused(points, codes, tmp_path):
    paths = xr.concat(
        [points, points.assign_coords(time=points["time"] + np.timedelta64(365, "D"))], "time"
    ).emb.to_geoparquet(tmp_path / "{time:%Y}.parquet")
    assert [p.name for p in paths] == ["2018.parquet", "2019.parquet"]
    with pytest.raises(FileExistsError, match="mode='w'"):
        points.isel(time=0).emb.to_geoparquet(paths[0])
    with pytest.raises(EmbeddingError, match="takes vectors at locations"):
        codes.emb.to_geoparquet(tmp_path / "a.parquet")
    with pytest.raises(EmbeddingError, match=r"\['bbox'\] have names that the format needs"):
        points.isel(time=0).assign_coords(bbox=("location", np.zeros(80))).emb.to_geoparquet(
            tmp_path / "a.parquet"
        )
    with pytest.raises(EmbeddingError, match="needs a CRS"):
        points.isel(time=0).drop_vars("spatial_ref").emb.to_geoparquet(tmp_path / "a.parquet")
    with pytest.raises(EmbeddingError, match="encode=True is for embeddings"):
        points.isel(time=0, band=0, drop=True).drop_attrs(deep=False).emb.to_geoparquet(
            tmp_path / "a.parquet", encode=True
        )


def test_an_interrupted_parquet_is_resumed(points, tmp_path):
    array = points.isel(time=0).compute().chunk(location=10)
    failing, _ = counting(array, fail_at=5)
    with pytest.raises(Interrupted):
        failing.emb.to_geoparquet(tmp_path / "a.parquet")
    assert not (tmp_path / "a.parquet").exists()
    again, state = counting(array)
    again.emb.to_geoparquet(tmp_path / "a.parquet")
    assert state["n"] < 8
    back = gx.open(tmp_path / "a.parquet").sel(location=array["location"])
    assert back.identical(array)


# --- citing ---------------------------------------------------------------------------------------------------


def test_cite_gives_what_must_be_shown():
    da_ = gx.testing.synthetic("alphaearth", shape=(4, 4))
    cited = da_.emb.cite()
    assert cited.licence == "CC-BY-4.0"
    assert cited.bibtex.startswith("@")
    assert "Google" in str(cited)
    assert gx.cite("alphaearth").attribution == gx.product("alphaearth").attribution
    changed = gx.testing.synthetic("alphaearth", shape=(4, 4), years=[2018, 2020]).emb.change(2018, 2020)
    assert changed.emb.cite().products == ("alphaearth synthetic",)
    assert "<pre>" in cited._repr_html_()


def test_cite_of_nothing_known():
    with pytest.raises(EmbeddingError, match="without 'product', 'derived_from' or 'attribution'"):
        gx.cite(xr.DataArray(np.zeros((2, 2)), dims=("y", "x")))


def test_cite_makes_an_entry_of_a_doi():
    made = gx.Product(
        "citing-doi", dims=2, doi="10.1/x", title="A title", licence="CC0-1.0", licence_notes="unclear"
    )
    cited = gx.cite(made)
    assert cited.bibtex == "@misc{citingdoi,\n  title = {A title},\n  doi = {10.1/x}\n}"
    assert cited.licence == "CC0-1.0 (unclear)"
