"""Zarr stores that others read: bitwise, whole or not at all, extended in their own codecs."""

import shutil
import threading
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec, GzipCodec, ZstdCodec

import geoemb_xr as gx
from geoemb_xr.core import conventions, geometry
from geoemb_xr.core.errors import ComparabilityError, EmbeddingError
from geoemb_xr.core.legend import Legend, legend_of
from geoemb_xr.stores.consolidating import consolidate


@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
@pytest.mark.parametrize("decode", [True, False])
def test_plain_xarray_and_zarr_read_the_same_bits(product, decode, tmp_path):
    array = gx.testing.synthetic(
        product, shape=(130, 60), years=[2018, 2020], missing=True, decode=decode, chunks=50
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


def test_an_interrupted_store_does_not_open_and_is_resumed(codes, tmp_path, counting, interrupted):
    failing, _ = counting(codes, fail_at=10)
    # one thread: of two the other may mark its block after the marks were counted here
    with dask.config.set(scheduler="synchronous"), pytest.raises(interrupted):
        failing.emb.to_zarr(tmp_path / "a.zarr")
    with pytest.raises(FileNotFoundError):
        xr.open_zarr(tmp_path / "a.zarr")
    marks = zarr.open_array(tmp_path / "a.zarr.part/marks.zarr", path="embedding")
    done = int(np.asarray(marks[:]).sum())
    assert done >= 6
    again, state = counting(codes)
    again.emb.to_zarr(tmp_path / "a.zarr")
    assert state["n"] == 12 - done
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "a.zarr")["embedding"].values, codes.values)


def test_a_store_that_is_there_is_kept_and_replaced_only_when_whole(codes, tmp_path, counting, interrupted):
    path = codes.emb.to_zarr(tmp_path / "a.zarr")
    with pytest.raises(FileExistsError, match="mode='w' replaces it"):
        codes.emb.to_zarr(path)
    failing, _ = counting(codes.isel(time=[0]), fail_at=5)
    with pytest.raises(interrupted):
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


def test_years_are_appended_to_a_store_whose_crs_plain_xarray_took_for_data(tmp_path):
    full = gx.testing.synthetic("alphaearth", shape=(8, 6), years=(2019, 2020, 2021), decode=False)
    plain = full[:2].assign_attrs(grid_mapping="spatial_ref").to_dataset(name="embedding")
    plain.reset_coords("spatial_ref").to_zarr(tmp_path / "a.zarr", consolidated=False)
    assert set(xr.open_zarr(tmp_path / "a.zarr", consolidated=False).data_vars) == {
        "embedding",
        "spatial_ref",
    }
    elsewhere = full[2:].assign_coords(spatial_ref=geometry.crs_coord("EPSG:32633"))
    with pytest.raises(EmbeddingError, match="lies in another CRS; reproject to it first"):
        gx.to_zarr(elsewhere, tmp_path / "a.zarr", mode="a")
    path = gx.to_zarr(full[2:], tmp_path / "a.zarr", mode="a")
    found = gx.open(path, decode=False)
    np.testing.assert_array_equal(found, full)
    assert found.emb.crs == full.emb.crs


def test_an_interrupted_append_leaves_the_store_as_it_was(tmp_path, counting, interrupted):
    full = gx.testing.synthetic("alphaearth", shape=(60, 50), years=[2018, 2020], decode=False, chunks=25)
    path = full.isel(time=[0]).emb.to_zarr(tmp_path / "a.zarr")
    failing, _ = counting(full.isel(time=[1]), fail_at=3)
    with pytest.raises(interrupted):
        failing.emb.to_zarr(path, mode="a")
    assert gx.open(path, decode=False).identical(full.isel(time=[0]))
    again, state = counting(full.isel(time=[1]))
    again.emb.to_zarr(path, mode="a")
    assert state["n"] < 6
    assert gx.open(path, decode=False).identical(full)


def test_an_append_killed_between_moving_and_telling_is_finished(tmp_path, monkeypatch, interrupted):
    from geoemb_xr.writing import zarr_update as writer

    full = gx.testing.synthetic("alphaearth", shape=(60, 50), years=[2018, 2020], decode=False, chunks=25)
    path = full.isel(time=[0]).emb.to_zarr(tmp_path / "a.zarr")

    def fail(*args):
        raise interrupted

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_extend", fail)
        with pytest.raises(interrupted):
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
        "alphaearth", grid=gx.testing.geobox((60, 50), crs="EPSG:3035"), decode=False
    )
    with pytest.raises(EmbeddingError, match="another CRS"):
        elsewhere.emb.to_zarr(path, mode="r+")
    later = codes.isel(time=[0], y=slice(0, 25)).assign_coords(time=[np.datetime64("2030-01-01", "ns")])
    with pytest.raises(EmbeddingError, match="needs the store's whole grid"):
        later.emb.to_zarr(path, mode="a")
    with pytest.raises(EmbeddingError, match="appends along 'time'"):
        codes.emb.year(2018).emb.to_zarr(codes.emb.year(2018).emb.to_zarr(tmp_path / "b.zarr"), mode="a")
    with pytest.raises(FileNotFoundError, match="mode='w-' makes it"):
        codes.emb.to_zarr(tmp_path / "none.zarr", mode="a")
    many = codes.emb.sample([(11.37, 47.25)]).assign_coords(
        tags=("location", np.array([["a"], None], object)[:1])
    )
    with pytest.raises(EmbeddingError, match=r"the column 'tags' holds list.*\.drop_vars\('tags'\)"):
        many.emb.to_zarr(tmp_path / "c.zarr")
    assert {p.name for p in tmp_path.iterdir()} == {"a.zarr", "b.zarr"}


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


# --- into stores that others wrote ----------------------------------------------------------------------------


@pytest.fixture
def years():
    array = gx.testing.synthetic("alphaearth", shape=(8, 6), years=[2018, 2020], decode=False, chunks=4)
    return array.isel(time=[0]), array.isel(time=[1]), array


def rewritten(path, **options):
    """A store with its vectors in other codecs or chunks."""
    root = zarr.open_group(path, mode="r+", use_consolidated=False)
    old = root["embedding"]
    values, attrs = old[:], dict(old.attrs)
    kept = {"dtype": old.dtype, "chunks": old.chunks, "shards": old.shards, "fill_value": old.fill_value}
    names = old.metadata.dimension_names
    del root["embedding"]
    new = root.create_array("embedding", shape=values.shape, dimension_names=names, **{**kept, **options})
    new[:] = values
    new.attrs.update(attrs)
    consolidate(path)
    return new.metadata


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": GzipCodec()},
        {"compressors": (ZstdCodec(), Crc32cCodec())},
        {"compressors": None, "shards": None, "chunks": (1, 64, 4, 6)},
    ],
)
@pytest.mark.parametrize("mode", ["a", "r+"])
def test_a_store_is_extended_in_its_own_codecs_and_chunks(options, mode, years, tmp_path):
    first, second, both = years
    path = (first if mode == "a" else both * 0 - 1).assign_attrs(both.attrs).emb.to_zarr(tmp_path / "a.zarr")
    before = rewritten(path, **options)
    (second if mode == "a" else both).emb.to_zarr(path, mode=mode)
    after = zarr.open_array(path, path="embedding", mode="r").metadata
    assert (after.codecs, after.chunk_grid.chunk_shape) == (before.codecs, before.chunk_grid.chunk_shape)
    np.testing.assert_array_equal(xr.open_zarr(path, mask_and_scale=False)["embedding"].values, both.values)
    assert gx.open(path, decode=False).identical(both)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_plain_xarray_wrote_is_extended(zarr_format, years, tmp_path):
    first, second, both = years
    path = tmp_path / "plain.zarr"
    encoding = {"embedding": {"chunks": (1, 64, 3, 6)}, "time": {"units": "days since 2000-01-01"}}
    first.compute().to_dataset().to_zarr(
        path, zarr_format=zarr_format, consolidated=zarr_format == 2, encoding=encoding
    )
    second.emb.to_zarr(path, mode="a")
    turned = second.copy(data=second.data[:, :, ::-1])
    turned.isel(y=slice(3, None)).emb.to_zarr(path, mode="r+")
    with xr.open_zarr(path) as store:
        np.testing.assert_array_equal(store["embedding"][0], both[0])
        np.testing.assert_array_equal(store["embedding"][1, :, :3], second[0, :, :3])
        np.testing.assert_array_equal(store["embedding"][1, :, 3:], turned[0, :, 3:])
        np.testing.assert_array_equal(store["time"], both["time"])
    assert [p.name for p in tmp_path.iterdir()] == ["plain.zarr"]


def test_a_store_of_version_0_1_is_extended(tmp_path):
    shutil.unpack_archive(Path(__file__).with_name("store-0.1.zip"), tmp_path)
    path = tmp_path / "store-0.1.zarr"
    old = gx.open(path, decode=False)
    later = old.assign_coords(time=[np.datetime64("2024-01-01", "ns")])
    later.emb.to_zarr(path, mode="a")
    assert gx.open(path, decode=False).identical(xr.concat([old, later], "time"))
    assert zarr.open_array(path, path="embedding", mode="r").shards == (1, 3, 4, 4)


def test_what_a_store_cannot_hold_is_refused_before_it_is_touched(years, tmp_path):
    first, second, _ = years
    path = tmp_path / "plain.zarr"
    encoding = {"time": {"units": "days since 2000-01-01", "dtype": "int64"}}
    first.to_dataset().to_zarr(path, encoding=encoding, consolidated=False)
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}

    def refused(array, message, mode="a"):
        with pytest.raises(EmbeddingError, match=message):
            array.emb.to_zarr(path, mode=mode)

    noon = second["time"] + np.timedelta64(12, "h")
    refused(second.assign_coords(time=noon), "'days since 2000-01-01', int64, which cannot hold")
    refused(second.isel(time=slice(0, 0)), "without a value")
    refused(
        second.assign_coords(season=("time", ["wet"])),
        r"has \['time'\] along 'time'; got \['season', 'time'\]",
    )
    quality = second.assign_coords(quality=(("y", "x"), np.zeros((8, 6))))
    refused(quality, r"has the coordinates \[\] per pixel; got \['quality'\]")
    refused(first.isel(y=slice(None, None, 2)), "without gaps or repeats", "r+")
    refused(xr.concat([first, first], "time"), "without gaps or repeats", "r+")
    refused(xr.concat([second, second], "time"), "must rise")
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["plain.zarr"]


def test_scaled_stores_are_refused(tmp_path):
    cover = gx.testing.scene().truth(gx.testing.geobox((8, 6)), [2018]).astype("f4").drop_attrs(deep=False)
    encoding = {cover.name: {"dtype": "f4", "scale_factor": np.float32(0.5)}}
    cover.to_dataset().to_zarr(tmp_path / "a.zarr", encoding=encoding, consolidated=False)
    with pytest.raises(EmbeddingError, match=r"with \['scale_factor'\]"):
        cover.emb.to_zarr(tmp_path / "a.zarr", mode="r+")


def test_a_half_full_chunk_of_times_is_not_written_anew(years, tmp_path):
    first, second, _ = years
    path = first.emb.to_zarr(tmp_path / "a.zarr")
    rewritten(path, shards=None, chunks=(2, 64, 4, 4))
    with pytest.raises(EmbeddingError, match="chunks of 2 along 'time', and its last one is not full"):
        second.emb.to_zarr(path, mode="a")


@pytest.mark.parametrize("rows", [(0, 3), (4, 6), (2, 8)])
def test_a_region_that_cuts_a_shard_at_either_end_is_refused(rows, years, tmp_path):
    path = years[2].emb.to_zarr(tmp_path / "a.zarr")
    with pytest.raises(EmbeddingError, match="cuts through one; write"):
        years[2].isel(y=slice(*rows)).emb.to_zarr(path, mode="r+")


def test_a_killed_update_says_so_until_it_is_finished(years, tmp_path, monkeypatch, caplog, interrupted):
    from geoemb_xr.writing import zarr_update

    path = years[2].emb.to_zarr(tmp_path / "a.zarr")
    new = years[2].copy(data=-years[2].data)

    def fail(*args):
        raise interrupted

    with monkeypatch.context() as patch:
        patch.setattr(zarr_update, "_move_shards", fail)
        with pytest.raises(interrupted):
            new.emb.to_zarr(path, mode="r+")
    with caplog.at_level("INFO", "geoemb_xr"):
        gx.open(path)
    assert "to_zarr(…, mode='r+')): the same call again finishes it" in caplog.text
    new.emb.to_zarr(path, mode="r+")
    assert conventions.UNFINISHED not in zarr.open_group(path, mode="r").attrs
    np.testing.assert_array_equal(gx.open(path, decode=False).values, new.values)


# --- what is in a store ---------------------------------------------------------------------------------------


def test_other_attributes_are_other_work(years, tmp_path, monkeypatch, interrupted):
    from geoemb_xr.writing import zarr as writer

    def fail(*args):
        raise interrupted

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_consolidate", fail)
        with pytest.raises(interrupted):
            years[2].assign_attrs(note="first").emb.to_zarr(tmp_path / "a.zarr")
    path = years[2].assign_attrs(note="second").emb.to_zarr(tmp_path / "a.zarr")
    assert gx.open(path, decode=False).attrs["note"] == "second"


def test_a_flipped_bit_is_an_error(years, tmp_path):
    path = years[2].emb.to_zarr(tmp_path / "a.zarr")
    shard = path / "embedding/c/0/0/0/0"
    whole = shard.read_bytes()
    for position in range(10, len(whole), len(whole) // 20):
        shard.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises((RuntimeError, ValueError)):
            zarr.open_array(path, path="embedding", mode="r")[:]


def test_shards_without_data_are_there(years, tmp_path):
    nothing = years[2].copy(data=np.full(years[2].shape, -128, "i1")).chunk(time=1, y=4, x=4)
    path = nothing.emb.to_zarr(tmp_path / "a.zarr")
    assert len([p for p in (path / "embedding/c").rglob("*") if p.is_file()]) == 8
    assert zarr.open_group(path, mode="r").attrs["geoemb_xr:format"] == 2


def test_a_folder_of_something_else_is_not_replaced(years, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="holds no Zarr store"):
        years[0].emb.to_zarr(tmp_path / "mine", mode="w")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"


def test_names_that_a_store_cannot_hold_come_back(tmp_path):
    table = pd.DataFrame({"lon": [11.369, 11.37], "lat": [47.25] * 2})
    table = table.assign(**{"land cover": ["a", "b"], "wet/dry": [1, 2]})
    points = gx.testing.synthetic("alphaearth", shape=(60, 50)).emb.sample(table).rename("my vectors")
    path = points.emb.to_zarr(tmp_path / "a.zarr")
    with xr.open_zarr(path) as store:
        assert {"land_cover", "wet_dry", "my_vectors"} <= set(store.variables)
    assert gx.open(path).identical(points)


def test_a_coordinate_of_the_arrays_own_name_is_refused_in_words(years, tmp_path):
    with pytest.raises(EmbeddingError, match="called 'band', as one of its coordinates is"):
        years[0].rename("band").emb.to_zarr(tmp_path / "a.zarr")


def test_a_picture_is_written_as_any_map(years, tmp_path):
    picture = years[2].emb.rgb(["A01", "A16", "A09"])
    assert gx.open(picture.emb.to_zarr(tmp_path / "a.zarr")).identical(picture)


def test_a_store_that_was_in_its_place_when_its_writer_was_killed_is_written_again(
    years, tmp_path, monkeypatch, interrupted
):
    from geoemb_xr.writing import zarr as writer

    def fail(*args):
        raise interrupted

    with monkeypatch.context() as patch:
        patch.setattr(writer, "discard", fail)
        with pytest.raises(interrupted):
            years[2].emb.to_zarr(tmp_path / "a.zarr", mode="w")
    assert gx.open(years[2].emb.to_zarr(tmp_path / "a.zarr", mode="w"), decode=False).identical(years[2])
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_what_is_appended_means_the_same(tmp_path, caplog):
    grid = gx.testing.geobox((8, 9))
    years = [gx.testing.scene().truth(grid, year).assign_attrs(note=str(year)) for year in (2018, 2024)]
    one, other = (each.expand_dims(time=[each.time.values]) for each in years)
    path = one.emb.to_zarr(tmp_path / "a.zarr")
    renamed = Legend.of_names(
        [f"{name} 2" for name in legend_of(other).names], values=legend_of(other).values
    )
    with pytest.raises(
        EmbeddingError, match=r"has the classes .*; got .*: bring the codes to those of the store"
    ):
        other.assign_attrs(renamed.attrs()).emb.to_zarr(path, mode="a")
    codes = legend_of(one).values
    plain = one.drop_attrs(deep=False).assign_attrs(derived_from="AlphaEarth")
    wheat = Legend.of_names([f"winter {code}" for code in codes], values=codes).attrs()
    words = wheat["flag_meanings"].split()[:-1]  # as others write them, one class less
    flags = {"flag_values": np.array(codes[:-1], "u1"), "flag_meanings": " ".join(words), "units": 1}
    named = one.assign_attrs(wheat, units="1").emb.to_zarr(tmp_path / "d.zarr")
    other.drop_attrs(deep=False).assign_attrs(flags, derived_from="AlphaEarth").emb.to_zarr(named, mode="a")
    assert legend_of(gx.open(named)).names[0] == f"winter {codes[0]}"
    assert legend_of(gx.open(plain.assign_attrs(flags).emb.to_zarr(tmp_path / "e.zarr"))).values == codes[:-1]
    measured = one.assign_attrs(units="1").emb.to_zarr(tmp_path / "b.zarr")
    with pytest.raises(EmbeddingError, match="says units = 1; got m"):
        other.assign_attrs(units="m").emb.to_zarr(measured, mode="a")
    marked = one.assign_attrs(_FillValue=255).emb.to_zarr(tmp_path / "c.zarr")
    with pytest.raises(EmbeddingError, match="says nodata = 255; got 254"):
        other.assign_attrs(nodata=254).emb.to_zarr(marked, mode="a")
    assert gx.open(path).sizes["time"] == 1
    with caplog.at_level("INFO", "geoemb_xr"):
        other.emb.to_zarr(path, mode="a")
    assert "keeps its own attributes (note)" in caplog.text
    assert gx.open(path).sizes["time"] == 2


def test_maps_that_declare_nan_for_missing_pixels_are_appended(tmp_path):
    da = gx.testing.synthetic("alphaearth", shape=(8, 9))
    scores = da.isel(time=[0]).emb.similarity(da.isel(time=0, y=3, x=3)).assign_attrs(_FillValue=np.nan)
    path = scores.emb.to_zarr(tmp_path / "a.zarr")
    later = scores.assign_coords(time=scores.time + np.timedelta64(366, "D"))
    assert gx.open(later.emb.to_zarr(path, mode="a")).sizes["time"] == 2
