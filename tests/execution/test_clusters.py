"""On a cluster of processes each step gives what it gives without one, also with a worker that is killed."""

import os
import signal
import threading

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster, wait
from mixing import scene
from object_server import ObjectServer

import geoemb_xr as gx

pytestmark = pytest.mark.complete
OPTIONS = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
STORAGE = {"allow_http": True, "timeout": 20}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A remote source of AlphaEarth, small and in many blocks."""
    folder = tmp_path_factory.mktemp("served")
    array = gx.testing.synthetic("alphaearth", shape=(96, 96), years=[2018, 2024], chunks=32, decode=False)
    gx.to_zarr(array, folder / "a.zarr")
    with ObjectServer(folder) as server:
        yield f"{server.url}/a.zarr"


def opened(url):
    return gx.open(url, storage=STORAGE, chunks=32)


STEPS = {
    "open": opened,
    "decode": lambda url: gx.open(url, storage=STORAGE, chunks=32, decode=False).emb.decode(),
    "reproject": lambda url: opened(url).emb.reproject("EPSG:3035", resolution=10),
    "change": lambda url: opened(url).emb.change(2018, 2024),
    "aggregate": lambda url: opened(url).emb.aggregate("mean"),
    "sample": lambda url: opened(url).emb.sample(gx.testing.scene().points(20, radius=200)[["lon", "lat"]]),
    "pca": lambda url: opened(url).emb.pca(opened(url).emb.fit_pca(3)),
    "predict": lambda url: opened(url).isel(time=0).emb.predict(fitted(url)),
    "similarity": lambda url: opened(url).emb.similarity(opened(url).isel(time=0, y=5, x=5).compute()),
}


def fitted(url):
    points = gx.testing.scene().points(80, radius=300)
    return opened(url).isel(time=0).emb.fit_probe(points, target="land_cover", cv=0)


@pytest.fixture(scope="module")
def alone(served):
    return {name: step(served).compute() for name, step in STEPS.items()}


@pytest.fixture(scope="module")
def cluster(alone):
    """After the results without it: a connected client is dask's default."""
    with LocalCluster(**OPTIONS) as made, Client(made) as client:
        yield client


@pytest.mark.parametrize("name", STEPS)
def test_a_step_gives_what_it_gives_alone(served, alone, cluster, name):
    found = STEPS[name](served).compute()
    if name in ("pca", "similarity"):  # sums depend on how blocks are joined: rule 3
        xr.testing.assert_allclose(found, alone[name], rtol=1e-4, atol=1e-5)
    else:
        xr.testing.assert_identical(found, alone[name])


def test_searches_and_writers_give_what_they_give_alone(served, alone, cluster, tmp_path):
    query = alone["open"].isel(time=0, y=5, x=5)
    here = alone["open"].isel(time=0).emb.search(query, 5)
    there = opened(served).isel(time=0).emb.search(query, 5)
    np.testing.assert_allclose(there["similarity"], here["similarity"], atol=1e-5)
    path = opened(served).emb.to_zarr(tmp_path / "a.zarr", encode=True)
    xr.testing.assert_identical(gx.open(path).compute(), gx.open(served, storage=STORAGE).compute())
    picture = STEPS["predict"](served).emb.to_cog(tmp_path / "map.tif")
    np.testing.assert_array_equal(gx.open(picture).values, alone["predict"].values)


def test_a_worker_that_is_killed_while_reading_costs_only_time(served, alone):
    with LocalCluster(**OPTIONS) as made, Client(made) as client:
        victim = next(iter(client.run(os.getpid).values()))
        timer = threading.Timer(0.2, os.kill, (victim, signal.SIGKILL))
        timer.start()
        found = STEPS["reproject"](served).compute()
        timer.join()
    xr.testing.assert_identical(found, alone["reproject"])


def test_images_are_embedded_as_alone(cluster):
    images = scene().chunk(y=40, x=50)
    with dask.config.set(scheduler="threads"):
        alone = gx.embed(images, "rcf").compute()
    xr.testing.assert_allclose(gx.embed(images, "rcf").compute(), alone, rtol=1e-5, atol=1e-6)


def test_workers_of_600_mb_spill_what_they_cannot_hold_and_give_the_same(tmp_path):
    """Two workers are asked to keep 1.1 GB of vectors, and to read and write maps the while."""
    rng = np.random.default_rng(0)
    side, block = 2048, 512
    codes = da.random.default_rng(0).integers(
        -8, 8, (1, 64, side, side), np.int8, chunks=(1, 64, block, block)
    )
    array = gx.wrap(codes, "alphaearth", geobox=gx.testing.geobox((side, side)), time=[2020])
    path = gx.to_zarr(array, tmp_path / "codes.zarr", chunks=block)
    query = rng.normal(size=64).astype("float32")
    alone = gx.open(path).emb.similarity(query).compute()
    warped = gx.open(path).emb.similarity(query).emb.reproject("EPSG:3035", resolution=20).compute()
    options = {**OPTIONS, "memory_limit": "600MB", "local_directory": str(tmp_path)}
    with LocalCluster(**options, env={"GEOEMB_CACHE_MB": "64"}) as made, Client(made) as client:
        before = set(client.run(os.getpid).values())
        kept = gx.open(path).persist()
        wait(kept)
        assert sum(client.run(lambda dask_worker: len(dask_worker.data.disk)).values()) > 0
        xr.testing.assert_allclose(kept.emb.similarity(query).compute(), alone, atol=1e-6)
        del kept
        there = gx.open(path).emb.similarity(query).emb.reproject("EPSG:3035", resolution=20)
        xr.testing.assert_allclose(there.compute(), warped, atol=1e-5)
        written = gx.open(path).emb.to_zarr(tmp_path / "again.zarr", encode=True)
        assert set(client.run(os.getpid).values()) == before  # none was killed for its memory
    np.testing.assert_array_equal(gx.open(written, decode=False).values, codes.compute())
