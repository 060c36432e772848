"""``plan()`` says how many requests and bytes a run then makes, counted by the server that answers them."""

import pytest
from object_server import ObjectServer

import geoemb_xr as gx
from geoemb_xr.readers.block_cache import CACHE, RAW
from geoemb_xr.stores.files import forget

STORAGE = {"allow_http": True, "timeout": 5}
SOURCES = {
    "cog": ("alphaearth", "cog", "*.tif*"),
    "zarr": ("alphaearth", "zarr", "*.zarr"),
    "tessera zarr": ("tessera", "zarr", "*.zarr"),
    "npy": ("tessera", "npy", "grid*[0-9].npy"),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("plans")
    found = {}
    for name, (product, container, ending) in SOURCES.items():
        path = gx.product(product).example(root / name.replace(" ", "-"), container)
        files = [path] if path.suffix == ".zarr" else sorted(path.rglob(ending))
        found[name] = product, [each.relative_to(root).as_posix() for each in files][:4]
    array = gx.testing.synthetic("alphaearth", shape=(96, 128), years=[2020, 2021], decode=False)
    gx.to_zarr(array, root / "own.zarr", chunks=64)
    gx.to_cog(array.isel(time=0), root / "own.tif")
    found |= {name: (None, [name]) for name in ("own.zarr", "own.tif")}
    with ObjectServer(root) as server:
        yield server, found


WINDOWS = {
    "all": {},
    "aligned": {"y": slice(0, 64), "x": slice(0, 64)},
    "unaligned": {"y": slice(21, 90), "x": slice(33, 95)},
    "one year": {"time": slice(0, 1)},
}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", [*SOURCES, "own.zarr", "own.tif"])
def test_a_run_makes_the_requests_that_were_planned(served, name, window):
    server, sources = served
    CACHE.clear()
    RAW.clear()
    forget()
    product, paths = sources[name]
    urls = [f"{server.url}/{each}" for each in paths]
    given = urls[0] if len(urls) == 1 else urls
    opened = gx.open(*([given] if product is None else [product, given]), storage=STORAGE)
    array = opened.isel({dim: span for dim, span in WINDOWS[window].items() if dim in opened.dims})
    plan = array.emb.plan()
    server.reset()
    array.compute()
    requests, sent = server.count(), server.sent
    assert requests / 1.5 <= plan.requests <= requests * 1.5
    assert sent / 1.5 <= plan.transfer_bytes <= sent * 1.5
