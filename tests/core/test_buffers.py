"""Memory that results leave behind for the next ones."""

import gc
import os
import pickle
import threading

import dask
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr.core import buffers

MB = 1 << 20


@pytest.fixture(autouse=True)
def no_memory_of_others(monkeypatch):
    monkeypatch.setattr(buffers, "_idle", [])
    monkeypatch.setattr(buffers, "_most", lambda: 64 * MB)


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_is_taken_again_once_nothing_refers_to_it():
    first = buffers.empty((2, MB), np.int8)
    place = address(first)
    del first
    again = buffers.empty((MB // 2,), np.float32)
    assert address(again) == place
    assert again.dtype == np.float32
    assert again.flags.c_contiguous
    assert again.flags.writeable


VIEWS = {
    "a window": lambda a: a[1:, ::3],
    "turned": lambda a: a.T,
    "another dtype": lambda a: a.view(np.int8),
    "a buffer": memoryview,
    "a tensor": lambda a: pytest.importorskip("torch").from_numpy(a),
    "a subclass": lambda a: a.view(np.ma.MaskedArray),
    "out of band": lambda a: pickle.PickleBuffer(a),
}


@pytest.mark.parametrize("kind", VIEWS)
def test_memory_stays_while_a_view_of_it_is_left(kind):
    array = buffers.empty((4, MB), np.float32)
    array[...] = 7
    view = VIEWS[kind](array)
    place = address(array)
    del array
    gc.collect(1)  # what is young: all that the suite holds takes a second
    others = [buffers.empty((4, MB), np.float32) for _ in range(3)]
    assert place not in map(address, others)
    for other in others:
        other[...] = 0
    assert np.all(np.asarray(view).view(np.float32) == 7)
    del view
    gc.collect(1)
    assert address(buffers.empty((4, MB), np.float32)) == place


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([MB // 2, MB, MB + 9, 2 * MB])), min_size=5))
def test_no_two_arrays_share_memory(steps):
    held = {}
    for number, (slot, size) in enumerate(steps):
        held[slot] = (number, buffers.empty((size,), np.int8))
        held[slot][1][...] = number
        for own, array in held.values():
            assert np.all(array[:: max(len(array) // 50, 1)] == own)


def test_idle_memory_is_bounded_and_what_was_idle_longest_goes(monkeypatch):
    monkeypatch.setattr(buffers, "_most", lambda: 5 * MB)
    arrays = [buffers.empty((size * MB,), np.int8) for size in (2, 3, 2)]
    for _ in range(3):
        del arrays[0]
    assert [memory.nbytes // MB for memory in buffers._idle] == [3, 2]


def test_much_larger_memory_is_not_taken_for_a_small_array():
    large = buffers.empty((10 * MB,), np.int8)
    place = address(large)
    del large
    assert address(buffers.empty((2 * MB,), np.int8)) != place


@pytest.mark.parametrize(
    ("free", "of_worker", "most"),
    [
        (1 << 28, None, 1 << 24),
        (1 << 40, None, buffers.MOST),
        (None, None, buffers.MOST),
        (1 << 40, 1 << 29, 1 << 25),
        (1 << 28, 1 << 40, 1 << 24),
    ],
)
def test_at_most_a_small_share_of_what_the_process_may_take_is_idle(monkeypatch, free, of_worker, most):
    monkeypatch.undo()
    monkeypatch.setattr(buffers, "free_memory", lambda: free)
    monkeypatch.setattr(buffers, "worker_memory", lambda: of_worker)
    assert buffers._most.__wrapped__() == most


def test_small_arrays_are_left_to_the_allocator():
    small = buffers.empty((16, 16), np.float32)
    assert small.flags.owndata
    del small
    assert not buffers._idle


def test_nobody_waits_where_the_garbage_collector_comes_in_between():
    array = buffers.empty((2 * MB,), np.int8)
    with buffers._moving:
        del array
        assert buffers.empty((2 * MB,), np.int8).size == 2 * MB
    assert not buffers._idle


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_that_was_forked_while_memory_moved_goes_on():
    with buffers._moving:
        child = os.fork()
        if not child:
            os._exit(0 if buffers.empty((2 * MB,), np.int8).size == 2 * MB else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_do_not_get_the_same_memory():
    wrong = []

    def work(own):
        for _ in range(60):
            array = buffers.empty((MB + own,), np.uint8)
            array[::4096] = own
            if np.any(array[::4096] != own):
                wrong.append(own)

    threads = [threading.Thread(target=work, args=(own,)) for own in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("verb", ["decode", "normalize", "aggregate", "reproject", "predict"])
def test_blocks_follow_each_other_in_the_same_memory(verb, monkeypatch):
    monkeypatch.setattr(buffers, "LEAST", 1 << 12)
    array = gx.testing.synthetic("alphaearth", shape=(64, 512), decode=False, years=(2023, 2024)).chunk(
        time=-1, x=64
    )
    one = array.isel(time=0)
    lazy = {
        "decode": lambda: one.emb.decode(),
        "normalize": lambda: one.emb.normalize(),
        "aggregate": lambda: array.emb.aggregate("mean"),
        "reproject": lambda: one.emb.reproject(one.emb.geobox.zoom_to(resolution=9.0)),
        "predict": lambda: one.emb.predict(one.emb.fit_clusters(3, seed=1)),
    }[verb]()
    found, taken = [], buffers._idle_memory

    def take(nbytes):
        found.append(taken(nbytes))
        return found[-1]

    monkeypatch.setattr(buffers, "_idle_memory", take)
    seen = lazy.data.map_blocks(_forget, dtype=np.int8, meta=np.empty((0,) * lazy.ndim, np.int8))
    with dask.config.set(scheduler="synchronous"):
        seen.persist()
    assert len(found) >= 6
    assert found.count(None) <= len(found) / 3


def _forget(block):
    return np.zeros((1,) * block.ndim, np.int8)
