"""On a cluster: the same map, work only where it was asked for, and an error instead of waiting for ever."""

import os
import signal
import threading
import time

import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster, Scheduler, SpecCluster, Worker

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.execution import workers

QUIET = {"dashboard_address": None, "silence_logs": 50}


def scene():
    return gx.testing.synthetic("alphaearth", shape=(64, 64), decode=False).isel(time=0).chunk(y=16, x=16)


@pytest.fixture(scope="module")
def probe():
    return scene().emb.fit_probe(gx.testing.scene().points(150, radius=300.0), target="land_cover", cv=0)


@pytest.fixture
def one_with_a_gpu():
    """Two workers in this process, of which the first says that it has a GPU."""
    kinds = {"a": {"resources": {"GPU": 1}}, "b": {}}
    spec = {name: {"cls": Worker, "options": {"nthreads": 1, **own}} for name, own in kinds.items()}
    head = {"cls": Scheduler, "options": {"dashboard_address": None, "protocol": "inproc://", "port": 0}}
    with SpecCluster(workers=spec, scheduler=head, silence_logs=50) as cluster, Client(cluster) as client:
        client.wait_for_workers(2)
        yield client


def executed(client):
    """How many tasks each worker has run, by whether it offers a GPU."""
    counts = client.run(lambda dask_worker: dask_worker.state.executed_count)
    offers = client.scheduler_info(n_workers=-1)["workers"]
    return {bool(offers[address]["resources"]): n for address, n in counts.items()}


@pytest.mark.parametrize("write", ["to_zarr", "to_cog"])
def test_writers_keep_to_workers_that_were_asked_for(one_with_a_gpu, probe, tmp_path, write):
    labels = scene().emb.predict(probe, resources={"GPU": 1})
    before = executed(one_with_a_gpu)
    path = getattr(labels.emb, write)(tmp_path / ("map.zarr" if write == "to_zarr" else "map.tif"))
    after = executed(one_with_a_gpu)
    assert after[False] == before[False]
    assert after[True] > before[True] + 10
    with xr.open_dataarray(path, engine="zarr" if write == "to_zarr" else "rasterio") as found:
        np.testing.assert_array_equal(np.squeeze(found), scene().compute().emb.predict(probe))


def test_a_resource_that_nobody_offers_is_an_error(one_with_a_gpu, probe, tmp_path):
    with pytest.raises(
        EmbeddingError, match=r"no worker offers {'GPU': 2}.*for ever; of 2 workers 1 offer.*GPU=2"
    ):
        scene().emb.predict(probe, resources={"GPU": 2})
    labels = scene().emb.predict(probe, resources={"GPU": 1})
    gone = [a for a, info in one_with_a_gpu.scheduler_info()["workers"].items() if info["resources"]]
    one_with_a_gpu.retire_workers(gone)
    with pytest.raises(EmbeddingError, match=r"no worker offers {'GPU': 1}"):
        labels.emb.to_zarr(tmp_path / "map.zarr")


def test_resources_without_a_cluster_are_an_error(probe):
    with pytest.raises(EmbeddingError, match="none is connected"):
        scene().emb.predict(probe, resources={"GPU": 1})
    with pytest.raises(EmbeddingError, match="resources are names and amounts"):
        scene().emb.predict(probe, resources="GPU")
    assert workers.asked_by(scene().emb.predict(probe).data.dask) == {}


def _slow(block):
    time.sleep(0.05)
    return block


@pytest.mark.complete
def test_a_lost_worker_loses_nothing_but_time(probe, tmp_path):
    codes = scene().copy(data=scene().data.map_blocks(_slow, dtype="i1", meta=np.empty((0, 0, 0), "i1")))
    with LocalCluster(n_workers=2, threads_per_worker=1, **QUIET) as cluster, Client(cluster) as client:
        victim = next(iter(client.run(os.getpid).values()))
        timer = threading.Timer(0.4, os.kill, (victim, signal.SIGKILL))
        timer.start()
        path = codes.emb.predict(probe).emb.to_zarr(tmp_path / "map.zarr")
        timer.join()
    np.testing.assert_array_equal(gx.open(path), scene().compute().emb.predict(probe))
