"""Remote GeoTIFFs: no stored block is fetched more than once, whatever the window, chunks or points."""

import geopandas as gpd
import numpy as np
import pytest
from object_server import ObjectServer

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.readers import geotiff
from geoemb_xr.readers.block_cache import CACHE, RAW
from geoemb_xr.stores.files import forget

BANDS, BLOCK, SHAPE = 4, 1024, (2048, 6144)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Bands of 1,024² blocks, 2 × 6 of them, south-up as AlphaEarth's; noise, which hardly shrinks."""
    folder = tmp_path_factory.mktemp("cogs")
    codes = np.random.default_rng(0).integers(-9, 9, (BANDS, *SHAPE), np.int8)
    path = folder / "2024" / "a.tif"
    options = {"compress": "zstd", "interleave": "band", "blockxsize": BLOCK, "blockysize": BLOCK}
    geotiff.write_geotiff(path, codes, testing.geobox(SHAPE).flipy(), nodata=-128, **options)
    with ObjectServer(folder) as server:
        yield server, codes[:, ::-1]


@pytest.fixture
def opened(served, monkeypatch):
    """The served file, with room for two decoded blocks and a row of others, and what was asked for how often."""
    monkeypatch.setenv("GEOEMB_CACHE_MB", "30")
    CACHE.clear()
    RAW.clear()
    forget()
    server, codes = served
    url = f"{server.url}/2024/a.tif"

    def open_it(**options):
        return gx.open(
            "olmoearth", url, version="v1", decode=False, storage={"allow_http": True}, **options
        ).isel(time=0)

    def asked():
        spans = [each.span for each in server.seen if each.span[1] - each.span[0] > 1 << 16]
        sizes = [stop - start for start, stop in spans]
        return len(spans), sum(sizes), len(set(spans))

    server.reset()
    return open_it, asked, codes


def test_an_unaligned_window_fetches_each_block_that_it_touches_once(opened):
    open_it, asked, codes = opened
    window = open_it().isel(y=slice(500, 1524), x=slice(1500, 2524))
    np.testing.assert_array_equal(window.values, codes[:, 500:1524, 1500:2524])
    requests, _, distinct = asked()
    assert requests == distinct <= 4 * BANDS


def test_blocks_of_a_dask_array_share_what_was_decoded(opened):
    """Four blocks of dask lie in each stored one, and dask comes to them in an order of its own."""
    open_it, asked, codes = opened
    array = open_it()
    assert set(array.chunksizes["y"]) == {BLOCK // 2}
    np.testing.assert_array_equal(array.values, codes)
    requests, size, distinct = asked()
    assert requests == distinct
    assert size <= 1.01 * codes.size


@pytest.mark.parametrize("how", ["sample", "open"])
def test_scattered_points_ask_for_each_block_once(opened, how, monkeypatch):
    open_it, asked, codes = opened
    # opened at points, each stored block is one task; else dask comes to the parts of blocks in any order
    monkeypatch.setenv("GEOEMB_CACHE_MB", "5" if how == "open" else "48")
    array = open_it()
    rng = np.random.default_rng(1)
    rows, cols = rng.integers(0, SHAPE[0], 500), rng.integers(0, SHAPE[1], 500)
    places = gpd.GeoDataFrame(
        geometry=gpd.points_from_xy(array.x.values[cols], array.y.values[rows]), crs=array.emb.crs
    )
    found = array.emb.sample(places) if how == "sample" else open_it(points=places)
    np.testing.assert_array_equal(found.transpose("location", "band").values, codes[:, rows, cols].T)
    requests, size, distinct = asked()
    assert requests == distinct
    assert size <= 1.01 * codes.size
