"""Graphs of warps: what a block reads, how large the graph is, and on which threads it runs."""

import os
import subprocess
import sys

import dask
import numpy as np
import pytest
import xarray as xr
from affine import Affine

import geoemb_xr as gx
from geoemb_xr.core import geometry

# --- graphs -------------------------------------------------------------------------------------------------------


class Counting:
    """An array that notes which blocks are read."""

    def __init__(self, data):
        self.data, self.reads = data, []
        self.shape, self.dtype, self.ndim = data.shape, data.dtype, data.ndim

    def __getitem__(self, index):
        self.reads.append(index)
        return self.data[index]


def test_a_block_reads_what_it_lies_in_and_nothing_else():
    import dask.array as dsa

    da = gx.testing.synthetic("alphaearth", shape=(90, 90), decode=False)
    store = Counting(da.values)
    lazy = da.copy(data=dsa.from_array(store, chunks=(1, 64, 30, 30)))
    target = gx.testing.geobox((90, 200), offset=(550, 0))
    with gx.testing.raise_if_dask_computes():
        out = gx.reproject(lazy, target, chunks=30)
    assert out.data.numblocks == (1, 1, 3, 7)
    store.reads.clear()
    out[..., 0:30, 120:].compute()
    assert store.reads == []
    out[..., 30:60, 0:30].compute()
    assert 1 <= len(store.reads) <= 6
    store.reads.clear()
    out.compute(scheduler="synchronous")
    assert len(store.reads) <= 9


@pytest.mark.parametrize("side", [8192, pytest.param(40_960, marks=pytest.mark.complete)])
def test_many_blocks_are_a_small_graph(side):
    """Of 4,096 blocks, and of the 100,000 that the design asks for: bytes a block, however many there are."""
    import pickle
    import tracemalloc

    import dask.array as dsa

    from geoemb_xr.core.model import BAND

    grid = geometry.make_geobox((side, side), Affine(10, 0, 4e5, 0, -10, 5.4e6), 32632)
    data = dsa.zeros((64, side, side), chunks=(64, 128, 128), dtype=np.int8)
    da = gx.wrap(data, "alphaearth", geobox=grid)
    assert da.dims[0] == BAND
    tracemalloc.start()
    out = gx.reproject(da, "EPSG:3035", resolution=10, chunks=128)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    blocks = out.data.npartitions
    assert blocks > data.npartitions
    own = out.data.dask.layers[out.data.name]
    assert not own.is_materialized()
    assert held < 200 * blocks + 2e6
    assert len(pickle.dumps(own)) < 200 * blocks
    middle = side // 256
    key = (out.data.name, 0, middle, middle)
    assert len(pickle.dumps(own[key])) < 2500
    corner = out[:, side // 2 : side // 2 + 200, side // 2 : side // 2 + 200]
    assert len(corner.data.__dask_optimize__(corner.data.dask, corner.data.__dask_keys__())) < 60
    written, _ = own.cull(own.get_output_keys(), ())
    assert len(written) == blocks
    assert len(pickle.dumps(dict(written))) < 200 * blocks


# --- threads ------------------------------------------------------------------------------------------------------

THREADS = """
import os, sys, threading, time
import geoemb_xr as gx

workers = int(sys.argv[1])
codes = gx.testing.synthetic("alphaearth", shape=(256, 256), decode=False, chunks=64)
warps = [gx.reproject(codes, "EPSG:3035", resolution=r, resampling=how).data.sum(dtype="f8")
         for how, r in (("nearest", 10), ("bilinear", 10), ("average", 30), ("average", 900))]
for each in warps:
    each.compute(scheduler="synchronous")  # compiled, and every library loaded
before = len(os.listdir("/proc/self/task"))
most, done = [0], threading.Event()

def watch():
    while not done.wait(0.002):
        most[0] = max(most[0], len(os.listdir("/proc/self/task")))

watcher = threading.Thread(target=watch)
watcher.start()
for _ in range(5):
    for each in warps:
        each.compute(scheduler="threads", num_workers=workers)
done.set()
watcher.join()
import numba
try:
    layer = numba.threading_layer()
except ValueError:  # none was started
    layer = "none"
print(most[0] - before - 1, layer)
"""


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.complete), 2])
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="threads are counted in /proc")
def test_kernels_use_the_threads_that_dask_gives_them(workers):
    done = subprocess.run(
        [sys.executable, "-c", THREADS, str(workers)], capture_output=True, text=True, check=True
    )
    more, layer = done.stdout.split()
    assert 1 <= int(more) <= workers  # numba's own threads would show here
    assert layer == "none"


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
@pytest.mark.parametrize(
    "order", [("time", "band", "y", "x"), ("y", "x", "time", "band"), ("band", "time", "y", "x")]
)
def test_blocks_lie_in_the_order_of_the_array(how, order):
    codes = gx.testing.synthetic("alphaearth", shape=(60, 50), years=[2018, 2024], decode=False, missing=True)
    lazy = codes.transpose(*order).chunk(time=1, y=25, x=25).emb.reproject("EPSG:3035", resampling=how)
    blocks = dask.compute(*lazy.data.to_delayed().ravel())
    assert len(blocks) > 4
    assert all(block.flags.c_contiguous for block in blocks)


LIES = {
    "window": lambda block: np.pad(block, 3)[3:-3, 3:-3, 3:-3],
    "bands last": lambda block: np.ascontiguousarray(block.transpose(1, 2, 0)).transpose(2, 0, 1),
    "rows turned": lambda block: block[:, ::-1].copy()[:, ::-1],
    "columns turned": lambda block: block[..., ::-1].copy()[..., ::-1],
    "columns first": lambda block: np.asfortranarray(block),
}


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
@pytest.mark.parametrize("lies", LIES)
def test_blocks_of_the_source_may_lie_in_memory_in_any_way(how, lies):
    plain = gx.testing.synthetic("alphaearth", shape=(70, 60), decode=False, missing=True).isel(time=0)
    target = gx.testing.geobox((90, 80), offset=(-55, 33)).zoom_to(resolution=9.3)  # some pixels lie outside
    lazy = plain.chunk(y=32, x=25)
    lazy = lazy.copy(data=lazy.data.map_blocks(LIES[lies], dtype=np.int8))
    expected = plain.emb.reproject(target, resampling=how)
    found = lazy.emb.reproject(target, resampling=how)
    xr.testing.assert_identical(found.compute(scheduler="synchronous"), expected)


@pytest.mark.parametrize(
    ("pixels", "blocks"),
    [
        (60, (60,)),
        (70, (70,)),
        (132, (72, 60)),
        (140, (64, 64, 12)),
        (192, (64, 64, 64)),
        (577, (65,) * 8 + (57,)),
    ],
)
def test_blocks_are_even_and_leave_no_sliver(pixels, blocks):
    lazy = gx.testing.synthetic("alphaearth", shape=(128, 128), decode=False, chunks=64)
    out = lazy.emb.reproject(gx.testing.geobox((pixels, 64)))
    assert out.chunksizes["y"] == blocks
    assert out.chunksizes["x"] == (64,)
