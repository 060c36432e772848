"""Computing from within: in dask's threads where nothing else was chosen, and without importing distributed."""

import sys

import dask
import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.execution.computing import compute, computed, persisted, scheduler


@pytest.fixture
def lazy():
    return gx.testing.synthetic("alphaearth", shape=(8, 8), years=[2018]).chunk(y=4)


@pytest.fixture
def no_distributed(monkeypatch):
    monkeypatch.delitem(sys.modules, "distributed", raising=False)


def test_nothing_looks_for_a_client_where_none_can_be(lazy, no_distributed, tmp_path):
    held = gx.testing.synthetic("alphaearth", shape=(8, 8), years=[2018])
    xr.testing.assert_identical(computed(lazy), held)
    assert persisted(lazy).chunks == lazy.chunks
    assert compute(lazy.data.max()) == (held.values.max(),)
    assert lazy.copy().emb.load().chunks is None
    lazy.emb.year(2018).emb.to_cog(tmp_path / "written.tif")
    assert "distributed" not in sys.modules


def test_the_users_scheduler_is_used(lazy, no_distributed):
    calls = []

    def counting(graph, keys, **options):
        calls.append(keys)
        return dask.get(graph, keys, **options)

    with dask.config.set(scheduler=counting):
        computed(lazy)
        compute(lazy.data)
        persisted(lazy)
        assert scheduler() is None
    assert len(calls) == 3


def test_a_client_that_was_made_is_used(lazy):
    distributed = pytest.importorskip("distributed")

    def only_on_a_worker(block):
        distributed.get_worker()
        return block

    made = lazy.copy(data=lazy.data.map_blocks(only_on_a_worker, dtype=lazy.dtype, meta=lazy.data._meta))
    with pytest.raises(ValueError, match="worker"):
        computed(made)
    options = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        xr.testing.assert_identical(computed(made), lazy.compute())


def test_coordinates_are_computed_and_the_array_stays_lazy(lazy):
    held = lazy.assign_coords(quality=(("y", "x"), lazy.data[0, 0]))
    assert held.coords["quality"].chunks is not None
    assert computed(held).coords["quality"].chunks is None
    assert held.coords["quality"].chunks is not None
    assert held.chunks == lazy.chunks
    both = computed(xr.Dataset({"a": lazy, "b": lazy + 1}))
    assert not both.chunks
    np.testing.assert_array_equal(both["b"], lazy + 1)


def test_what_is_in_memory_already_is_given_back_as_a_new_object():
    held = gx.testing.synthetic("alphaearth", shape=(4, 4))
    again = computed(held)
    xr.testing.assert_identical(again, held)
    assert again is not held
