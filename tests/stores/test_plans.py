"""``plan()`` says how many requests and bytes a run then makes, counted by the server that answers them."""

import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_server import ObjectServer, in_process
from sources import OTHERS, OWN, write_sources

import geoemb_xr as gx
from geoemb_xr.readers.block_cache import CACHE, RAW
from geoemb_xr.stores.files import forget

STORAGE = {"allow_http": True, "timeout": 5}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("plans")
    found = write_sources(root)
    with ObjectServer(root) as server:
        yield server, root, found


CORNER = {"y": slice(28, 40), "x": slice(25, 40)}
ROWS = {"location": slice(3, 50)}


@pytest.mark.parametrize("window", [{}, CORNER, ROWS], ids=["all", "corner", "rows"])
@pytest.mark.parametrize("name", [*OTHERS, *OWN])
def test_a_run_makes_the_requests_that_were_planned(served, name, window):
    server, root, sources = served
    CACHE.clear()
    RAW.clear()
    forget()
    product, paths = sources[name]
    url = f"{server.url}/{paths[0].relative_to(root)}"
    opened = gx.open(url, storage=STORAGE) if product is None else gx.open(product, url, storage=STORAGE)
    if not set(window) <= set(opened.dims):
        pytest.skip("it has no such axes")
    array = opened.isel(window)
    plan = array.emb.plan()
    server.reset()
    array.compute()
    requests, sent = server.count(), server.sent
    # in a small archive a member in two comes along with its directory
    assert requests / 1.5 <= plan.requests <= requests * (2 if name == "zipped zarr" else 1.5)
    assert sent / 1.5 <= plan.transfer_bytes <= sent * 1.5


#: Reads what stands behind a name, and prints what was planned and what was taken, beyond what was there.
MEASURED = """
import ctypes, sys
import dask, numpy as np
import geoemb_xr as gx
from geoemb_xr.core import buffers

def held(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024

storage = {"allow_http": True}
dask.config.set(num_workers=2)
for each in sys.argv[1:]:
    product, url, goal = each.split(",")
    options = {"storage": storage} if "://" in url else {}
    opened = gx.open(product, url, **options) if product else gx.open(url, **options)
    first = opened[(slice(0, 1),) * opened.ndim]
    array = opened if goal == "all" else opened.emb.similarity(np.ones(opened.sizes["band"], "float32"))
    (first if goal == "all" else array[(slice(0, 1),) * array.ndim]).compute()  # imports and compiles
    plan = array.emb.plan()
    buffers._idle.clear()  # what earlier blocks left is not what this run takes
    ctypes.CDLL(None).malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")
    before = held("VmRSS")
    array.compute()
    print(plan.peak_memory, held("VmHWM") - before)
"""


def write_large(folder, cases):
    """A store and a file of noise, and a table of it, large enough for their memory to be told from the rest."""
    rng = np.random.default_rng(0)
    noise = rng.integers(-100, 100, (1, 64, 512, 512), np.int8)
    array = gx.wrap(noise, "alphaearth", geobox=gx.testing.geobox((512, 512)), time=[2020])
    gx.to_zarr(array.chunk(y=256, x=256), folder / "own.zarr", chunks=256)
    if cases != FEW:
        gx.to_cog(array.isel(time=0), folder / "own.tif", overviews="none")
    rows = 30_000
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(rows * 384, np.float32)), 384)
    at = gpd.GeoSeries.from_xy(np.linspace(10, 11, rows), np.full(rows, 47.0), crs=4326)
    gpd.GeoDataFrame({"id": range(rows)}, geometry=at).to_parquet(folder / "bare.parquet")
    table = pq.read_table(folder / "bare.parquet").append_column("embedding", vectors)
    pq.write_table(table, folder / "a.parquet", row_group_size=10_000)


FEW = [",{url}/own.zarr,map", "earth_index,{url}/a.parquet,all"]
MANY = [
    *FEW,
    ",{url}/own.tif,all",
    ",{here}/own.zarr,all",
    ",{here}/own.tif,map",
    "earth_index,{here}/a.parquet,map",
]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are told by Linux")
@pytest.mark.parametrize("cases", [FEW, pytest.param(MANY, marks=pytest.mark.complete)], ids=["few", "many"])
def test_a_run_takes_the_memory_that_was_planned(cases, tmp_path):
    write_large(tmp_path, cases)
    with in_process(tmp_path, 0.0, 1e9) as (url, _):
        command = [sys.executable, "-c", MEASURED, *(case.format(url=url, here=tmp_path) for case in cases)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    for case, line in zip(cases, done.stdout.splitlines(), strict=True):
        planned, taken = map(int, line.split())
        assert taken / 2 <= planned <= taken * 2, case
