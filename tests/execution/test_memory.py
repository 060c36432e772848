"""Loading whole arrays into memory, and how much of it there is."""

import threading

import dask
import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.execution import memory


def array(**options):
    return gx.testing.synthetic("alphaearth", shape=(40, 56), missing=True, **options)


@pytest.mark.parametrize("order", [("time", "band", "y", "x"), ("y", "x", "band", "time")])
@pytest.mark.parametrize("make", [lambda da: da, lambda da: da.emb.reproject("EPSG:3035", resolution=10)])
def test_it_is_what_compute_gives(order, make):
    da = make(array().chunk(y=16, x=24)).transpose(*order)
    expected = da.compute()
    found = da.emb.load()
    assert found is da
    assert da.chunks is None
    xr.testing.assert_identical(da, expected)


def test_memory_lies_as_the_blocks_do():
    da = array().emb.year(2018).chunk(y=16)
    last = da.copy(data=da.data.map_blocks(lambda b: np.asfortranarray(b), dtype=da.dtype))
    last.emb.load()
    np.testing.assert_array_equal(last, da)
    assert last.values.flags.f_contiguous


def test_blocks_are_written_by_several_threads():
    seen = set()

    def note(block):
        seen.add(threading.get_ident())
        both.wait()
        return block

    both = threading.Barrier(2, timeout=20)
    da = array().emb.year(2018).chunk(y=20)
    da = da.copy(data=da.data.map_blocks(note, dtype=da.dtype, meta=da.data._meta))
    with dask.config.set(scheduler="threads", num_workers=2):
        da.emb.load()
    assert len(seen) == 2


def test_datasets_coordinates_and_what_is_in_memory_already():
    da = array().emb.year(2018)
    ds = da.chunk(y=16).to_dataset(name="embedding").assign(mask=da.isel(band=0).isnull())
    ds = ds.assign_coords(code=(("y", "x"), dask.array.ones((40, 56), chunks=20)))
    expected = ds.compute()
    xr.testing.assert_identical(ds.emb.load(), expected)
    assert all(each.chunks is None for each in ds.variables.values())
    xr.testing.assert_identical(da.emb.load(), da)


def test_other_schedulers_do_it_their_way():
    da = array().emb.year(2018).chunk(y=16)
    expected = da.compute()
    with dask.config.set(scheduler=lambda dsk, keys, **options: dask.get(dsk, keys)):
        xr.testing.assert_identical(da.emb.load(), expected)


def test_an_array_without_pixels():
    empty = array().emb.year(2018).isel(y=slice(0)).chunk()
    assert empty.emb.load().shape == (64, 0, 56)


def test_what_does_not_fit_is_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 1_000_000)
    da = array().chunk(y=16)
    with (
        gx.testing.raise_if_dask_computes(),
        pytest.raises(MemoryError, match=r"more than half of the .*crop or"),
    ):
        da.emb.load()
    assert da.chunks is not None


def test_a_failure_leaves_the_array_lazy():
    def fail(block):
        raise OSError("the disk is gone")

    da = array().emb.year(2018).chunk(y=16)
    da = da.copy(data=da.data.map_blocks(fail, dtype=da.dtype, meta=da.data._meta))
    with pytest.raises(OSError, match="the disk is gone"):
        da.emb.load()
    assert da.chunks is not None
