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
