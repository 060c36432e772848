"""Processes that are killed by the system at random moments, and two that write to one path at the same time."""

import collections
import multiprocessing
import os
import signal
import time

import dask
import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a process that is forked needs no imports")
FORKED = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
MANY = pytest.param(100, marks=[pytest.mark.complete, pytest.mark.timeout(3600)])
TIMES = pytest.mark.parametrize("times", [1, MANY])
WRITERS = pytest.mark.parametrize(
    ("method", "name"), [("to_zarr", "a.zarr"), ("to_cog", "a.tif"), ("to_geoparquet", "a.parquet")]
)


def values_of(seed, method):
    """What a writer writes: of each seed something else, in several blocks."""
    rng = np.random.default_rng(seed)
    if method == "to_geoparquet":
        x = np.linspace(0, 80, 200)
        vectors = rng.normal(size=(200, 64)).astype("f4")
        return gx.wrap(vectors, "alphaearth", x=x, y=x, version="v1").chunk(location=50)
    cover = gx.testing.scene().truth(gx.testing.geobox((48, 48)), 2018)
    return cover.copy(data=rng.integers(1, 8, cover.shape, dtype="u1")).chunk(y=24, x=24)


def write(array, method, path, done=None):
    """Write in this process, and say whether it was done."""
    with dask.config.set(scheduler="synchronous"):
        try:
            getattr(array.emb, method)(path, mode="w")
        except EmbeddingError:  # another one is at work
            return
    if done is not None:
        done.set()


def is_written(path, array):
    """Whether a file holds exactly an array; rows of tables may be in another order."""
    found, expected = gx.open(path).values, array.values
    if path.suffix == ".parquet":
        found, expected = (each[np.lexsort(each.T)] for each in (found, expected))
    return found.shape == expected.shape and np.array_equal(found, expected)


@TIMES
@WRITERS
def test_a_target_is_old_or_new_whenever_its_writer_is_killed(method, name, times, tmp_path):
    path, rng = tmp_path / name, np.random.default_rng(0)
    old, new = (values_of(seed, method) for seed in (0, 1))
    write(old, method, path)
    start = time.perf_counter()
    write(old, method, path)
    longest = time.perf_counter() - start
    seen = collections.Counter()
    for _ in range(times):
        child = FORKED.Process(target=write, args=(new, method, path))
        child.start()
        time.sleep(rng.uniform(0, longest))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        moment = "was done" if child.exitcode == 0 else "killed"
        if not path.exists():  # between the old one's leaving and the new one's coming
            seen["absent", moment] += 1
        else:
            seen["new" if is_written(path, new) else "old", moment] += 1
            assert is_written(path, new) or is_written(path, old)
        write(new, method, path)  # the same call again makes it whole
        assert is_written(path, new)
        assert {each.name for each in tmp_path.iterdir()} <= {name, "a.qml"}
        old, new = new, old
    print(method, dict(seen))
    assert sum(seen.values()) == times


@TIMES
@WRITERS
def test_two_writers_to_one_path_leave_what_one_of_them_wrote(method, name, times, tmp_path):
    path, rng = tmp_path / name, np.random.default_rng(0)
    arrays = [values_of(seed, method) for seed in (0, 1)]
    seen = collections.Counter()
    for _ in range(times):
        done = [FORKED.Event() for _ in arrays]
        children = [
            FORKED.Process(target=write, args=(array, method, path, event))
            for array, event in zip(arrays, done, strict=True)
        ]
        for child in children:
            child.start()
            time.sleep(rng.uniform(0, 0.05))
        for child in children:
            child.join()
            assert child.exitcode == 0
        whole = [is_written(path, array) for array in arrays]
        said = [event.is_set() for event in done]
        assert sum(whole) == 1
        assert said[whole.index(True)]  # who was not told that it is done has not written it
        seen[f"{sum(said)} done"] += 1
        assert {each.name for each in tmp_path.iterdir()} <= {name, "a.qml"}
    print(method, dict(seen))
