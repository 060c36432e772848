"""Writing into object stores: what was written comes back, nothing half looks whole, killed runs go on."""

import pickle

import dask
import numpy as np
import obstore
import pytest
import xarray as xr
import zarr
from object_server import ObjectServer
from obstore.store import LocalStore, MemoryStore

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.stores.storage import parse_storage, using
from geoemb_xr.stores.zarr_objects import ZarrObjects


@pytest.fixture(scope="module")
def years():
    return gx.testing.synthetic("alphaearth", shape=(40, 30), years=[2020, 2021], chunks=16, decode=False)


@pytest.fixture(params=["memory", "local", "s3"])
def place(request, tmp_path):
    """Where to write: a path or URL without its ending, storage, and the keys that are there."""
    if request.param == "s3":
        with ObjectServer(tmp_path, writable=True) as server:
            storage = {
                **dict.fromkeys(("access_key_id", "secret_access_key"), "x"),
                "endpoint": server.url,
                "allow_http": True,
                "virtual_hosted_style_request": False,
            }
            yield "s3://b/deep/out", storage, lambda: files_below(tmp_path / "b")
        return
    store = MemoryStore() if request.param == "memory" else LocalStore(str(tmp_path))
    yield "deep/out", store, lambda: {m["path"] for page in obstore.list(store) for m in page}


def files_below(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_store_of_objects_comes_back(place, years):
    where, storage, keys = place
    made = gx.to_zarr(years, f"{where}.zarr", storage=storage)
    assert str(made).endswith("deep/out.zarr")
    xr.testing.assert_identical(
        gx.open(f"{where}.zarr", storage=storage, decode=False).compute(), years.compute()
    )
    assert all(key.startswith("deep/out.zarr/") for key in keys())  # nothing is left beside it
    with pytest.raises(FileExistsError, match="mode='w' replaces it"):
        gx.to_zarr(years, f"{where}.zarr", storage=storage)
    for mode in ("a", "r+"):
        with pytest.raises(EmbeddingError, match="object store"):
            gx.to_zarr(years, f"{where}.zarr", mode=mode, storage=storage)
    other = years.isel(time=[1], y=slice(20))
    gx.to_zarr(other, f"{where}.zarr", mode="w", storage=storage)
    xr.testing.assert_identical(
        gx.open(f"{where}.zarr", storage=storage, decode=False).compute(), other.compute()
    )
    assert not any(".part" in key for key in keys())


def test_files_come_back(place, years):
    where, storage, keys = place
    made = years.emb.to_cog(where + "_{time:%Y}.tif", storage=storage)
    assert [str(each)[-8:] for each in made] == ["2020.tif", "2021.tif"]
    opened = gx.open(f"{where}_2021.tif", storage=storage, decode=False)
    np.testing.assert_array_equal(opened.values, years.isel(time=1).values)
    here = gx.testing.scene()
    points = years.isel(time=0).emb.sample([(here.lon, here.lat)])
    for mode in ("w-", "w"):
        points.emb.to_geoparquet(f"{where}.parquet", mode=mode, storage=storage)
    np.testing.assert_array_equal(
        gx.open(f"{where}.parquet", storage=storage, decode=False).values, points.values
    )
    with pytest.raises(FileExistsError, match="exists already"):
        points.emb.to_geoparquet(f"{where}.parquet", storage=storage)
    assert len(keys()) == 3


def test_a_killed_run_does_not_open_and_is_resumed(place, years, counting, interrupted):
    where, storage, keys = place
    for mode in ("w-", "w"):  # the second time what is there stays until the new one is whole
        failing, _ = counting(years, fail_at=9)
        with dask.config.set(scheduler="synchronous"), pytest.raises(interrupted):
            failing.emb.to_zarr(f"{where}.zarr", mode=mode, storage=storage)
        if mode == "w-":
            with pytest.raises((SourceError, FileNotFoundError)):
                gx.open(f"{where}.zarr", storage=storage)
        else:
            np.testing.assert_array_equal(
                gx.open(f"{where}.zarr", storage=storage, decode=False).values, years.values[:1]
            )
        done = sum("/marks.zarr/embedding/c/" in key for key in keys())
        again, state = counting(years)
        again.emb.to_zarr(f"{where}.zarr", mode=mode, storage=storage)
        assert state["n"] == 12 - done
        assert 0 < done < 9
        back = gx.open(f"{where}.zarr", storage=storage, decode=False)
        np.testing.assert_array_equal(back.values, years.values)
        assert not any(".part" in key for key in keys())
        years.isel(time=[0]).emb.to_zarr(f"{where}.zarr", mode="w", storage=storage)


def test_objects_of_something_else_are_kept(place, years):
    where, storage, keys = place
    gx.to_zarr(years, f"{where}/inner.zarr", storage=storage)
    before = keys()
    with pytest.raises(FileExistsError, match="no Zarr store"):
        gx.to_zarr(years, where, mode="w", storage=storage)
    assert keys() == before


def test_a_store_that_takes_nothing_is_an_error_in_words(tmp_path, years):
    with ObjectServer(tmp_path) as server:
        storage = {"endpoint": server.url, "allow_http": True, "timeout": 2, "access_key_id": "x"}
        storage |= {"secret_access_key": "x", "virtual_hosted_style_request": False}
        with pytest.raises(SourceError, match=r"s3://b/a\.zarr could not be written"):
            gx.to_zarr(years, "s3://b/a.zarr", storage=storage)
        with pytest.raises(SourceError, match="takes no objects"):
            gx.to_zarr(years, f"{server.url}/b/a.zarr", storage={"allow_http": True, "timeout": 2})


def test_a_store_that_is_written_into_travels(tmp_path):
    with ObjectServer(tmp_path, writable=True) as server:
        storage = {"endpoint": server.url, "allow_http": True, "access_key_id": "x", "secret_access_key": "x"}
        with using(parse_storage(storage | {"virtual_hosted_style_request": False})):
            there = pickle.loads(pickle.dumps(ZarrObjects("s3://b/a.zarr", read_only=False)))
        zarr.create_array(there, shape=(4,), dtype="u1")[:] = 7
        assert zarr.open_array(there, mode="r")[:].tolist() == [7] * 4
        assert there.with_read_only(True) != there
        with pytest.raises(ValueError, match="read-only"):
            zarr.open_array(there.with_read_only(True), mode="r+")[:] = 1


S3 = {"allow_http": True, "timeout": 3, "retries": 2, "virtual_hosted_style_request": False}
S3 |= dict.fromkeys(("access_key_id", "secret_access_key"), "x")
#: What a store that takes no more does with an object, for good.
FULL = {
    "507": {"kind": "status", "status": 507},
    "403": {"kind": "status", "status": 403},
    "503": {"kind": "status", "status": 503},
    "reset": {"kind": "reset"},
}
#: Which object of each target it is that cannot be written.
WRITERS = {
    "to_zarr": ("out.zarr", "b/out.zarr/embedding/c/*1"),
    "to_zarr root": ("out.zarr", "b/out.zarr/zarr.json"),
    "to_cog": ("out.tif", "*.tif"),
    "to_geoparquet": ("out.parquet", "*.parquet"),
}


@pytest.mark.parametrize("fault", FULL)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_store_is_an_error_and_leaves_nothing_that_looks_whole(writer, fault, tmp_path, years):
    target, failing = WRITERS[writer]
    one = years.isel(time=0)
    if writer == "to_geoparquet":
        here = gx.testing.scene()
        one = one.emb.sample([(here.lon, here.lat)])
    with ObjectServer(tmp_path, writable=True) as server:
        storage = {**S3, "endpoint": server.url}
        write = getattr(one.emb, writer.partition(" ")[0])
        server.fail(match=failing, times=float("inf"), methods=("PUT",), **FULL[fault])
        with pytest.raises(SourceError, match=rf"s3://b/{target} could not be written") as found:
            write(f"s3://b/{target}", storage=storage)
        assert fault == "reset" or fault in str(found.value)
        with pytest.raises((SourceError, FileNotFoundError)):
            gx.open(f"s3://b/{target}", storage=storage)
        server.reset()
        write(f"s3://b/{target}", storage=storage)  # there is room again
        back = gx.open(f"s3://b/{target}", storage=storage, decode=False)
        np.testing.assert_array_equal(back.values, one.values)
        assert not any(".part" in name for name in files_below(tmp_path))


@pytest.mark.parametrize("times", [1, float("inf")], ids=["once", "for ever"])
def test_an_upload_by_parts_that_breaks_is_whole_or_not_there(times, tmp_path):
    noise = np.random.default_rng(0).integers(-100, 100, (64, 320, 320), np.int8)
    array = gx.wrap(noise, "alphaearth", geobox=gx.testing.geobox((320, 320)))
    with ObjectServer(tmp_path, writable=True) as server:
        server.fail("reset", "*.tif", times=times, after=1, methods=("PUT",))
        storage = {**S3, "endpoint": server.url}
        if times == 1:
            array.emb.to_cog("s3://b/large.tif", overviews="none", storage=storage)
            np.testing.assert_array_equal(
                gx.open("s3://b/large.tif", storage=storage, decode=False).values.squeeze(), noise
            )
        else:
            with pytest.raises(SourceError, match=r"large\.tif could not be written"):
                array.emb.to_cog("s3://b/large.tif", overviews="none", storage=storage)
            assert files_below(tmp_path) == set()
        assert not server.uploads  # nothing is left that is paid for


def test_of_several_files_none_is_left_where_one_does_not_fit(tmp_path, years):
    with ObjectServer(tmp_path, writable=True) as server:
        storage = {**S3, "endpoint": server.url}
        server.fail("status", "*2021.tif", status=507, times=float("inf"), methods=("PUT",))
        with pytest.raises(SourceError, match=r"2021\.tif could not be written"):
            years.emb.to_cog("s3://b/{time:%Y}.tif", storage=storage)
        assert files_below(tmp_path) == set()
        server.reset()
        assert len(years.emb.to_cog("s3://b/{time:%Y}.tif", storage=storage)) == 2


@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_replacement_that_fails_while_it_moves_is_finished_by_the_same_call(after, tmp_path, years):
    with ObjectServer(tmp_path, writable=True) as server:
        storage = {**S3, "endpoint": server.url}
        years.isel(time=[0]).emb.to_zarr("s3://b/out.zarr", storage=storage)
        server.fail("status", "b/out.zarr/*", status=507, after=after, times=float("inf"), methods=("PUT",))
        with pytest.raises(SourceError, match="could not be written"):
            years.emb.to_zarr("s3://b/out.zarr", mode="w", storage=storage)
        with pytest.raises((SourceError, FileNotFoundError)):
            gx.open("s3://b/out.zarr", storage=storage)
        server.reset()
        years.emb.to_zarr("s3://b/out.zarr", mode="w", storage=storage)
        back = gx.open("s3://b/out.zarr", storage=storage, decode=False)
        np.testing.assert_array_equal(back.values, years.values)
        assert not any(".part" in name for name in files_below(tmp_path))


def test_who_may_not_delete_is_told_that_the_store_is_whole(tmp_path, years, caplog):
    with ObjectServer(tmp_path, writable=True) as server:
        storage = {**S3, "endpoint": server.url}
        server.fail("status", "*", status=403, times=float("inf"), methods=("POST", "DELETE"))
        years.emb.to_zarr("s3://b/out.zarr", storage=storage)
        assert "is whole, but the marks of this run could not be removed" in caplog.text
        back = gx.open("s3://b/out.zarr", storage=storage, decode=False)
        np.testing.assert_array_equal(back.values, years.values)
