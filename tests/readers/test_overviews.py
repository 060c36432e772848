"""Overviews of published files are read where they hold what averaging would give, and nowhere else."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from object_server import ObjectServer
from rasterio.enums import Resampling

import geoemb_xr as gx
from geoemb_xr.core import geometry
from geoemb_xr.readers import geotiff
from geoemb_xr.readers.block_cache import CACHE, RAW
from geoemb_xr.stores.files import forget

STORAGE = {"allow_http": True, "timeout": 5}
SIDE = 256


def write_tile(path, *, left=600_000, levels=(8,)):
    """Noise around codes that each 8 × 8 have in common, and an overview of these."""
    rng = np.random.default_rng(0)
    cells = rng.integers(-90, 90, (64, SIDE // 8, SIDE // 8), np.int8)
    cells[:, 3, 4] = -128
    codes = cells.repeat(8, 1).repeat(8, 2)
    box = geometry.make_geobox((SIDE, SIDE), Affine(10, 0, left, 0, 10, 5_120_000), "EPSG:32632")  # south-up
    options = {"compress": "zstd", "interleave": "band", "blockxsize": 128, "blockysize": 128}
    geotiff.write_geotiff(path, codes, box, nodata=-128, **options)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews(list(levels), Resampling.average)
        noise = rng.integers(-9, 10, codes.shape, np.int8)
        dataset.write(np.where(codes == -128, codes, codes + noise))
    return cells[:, ::-1]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiles")
    cells = write_tile(root / "2024" / "a.tif")
    write_tile(root / "2024" / "shifted.tif", left=600_010)
    write_tile(root / "2024" / "bare.tif", levels=())
    with ObjectServer(root) as server:
        server.cells = cells
        yield server


def opened(server, name="a", **options):
    for kept in (CACHE, RAW):
        kept.clear()
    forget()
    return gx.open("alphaearth", f"{server.url}/2024/{name}.tif", storage=STORAGE, **options)


@pytest.mark.parametrize("crs", [None, "EPSG:32632"])
def test_a_level_is_read_in_the_place_of_64_times_its_pixels(served, crs):
    base = opened(served)
    served.reset()
    expected = base.emb.reproject("EPSG:32632", resolution=80).compute()
    whole = served.sent
    found = opened(served, resolution=80, crs=crs)
    served.reset()
    assert served.sent < whole / 20
    plan = found.emb.plan()
    served.reset()
    values = found.compute()
    assert 0 < served.sent < whole / 20
    assert plan.transfer_bytes == served.sent
    around = 600_040.0 + 80 * np.arange(SIDE // 8), 5_122_520.0 - 80 * np.arange(SIDE // 8)
    values, expected = (each.sel(x=around[0], y=around[1]) for each in (values, expected))
    stored = gx.wrap(served.cells, "alphaearth", geobox=geometry.geobox_of(values)).emb.decode()
    np.testing.assert_array_equal(values.isel(time=0).values, stored.values)
    cosines = (values * expected).sum("band") / np.sqrt((values**2).sum("band") * (expected**2).sum("band"))
    assert float(cosines.min()) > 0.97
    np.testing.assert_array_equal(values.isnull(), expected.isnull())
    assert int(values.isel(band=0).isnull().sum()) == 1


def test_a_window_and_a_local_file_are_read_so_too(served):
    bbox = (600_160, 5_120_320, 600_960, 5_121_600)
    place = {"bbox": bbox, "bbox_crs": "EPSG:32632", "resolution": 80}
    there = opened(served, **place).compute()
    here = gx.open("alphaearth", served.folder / "2024" / "a.tif", **place)
    np.testing.assert_array_equal(here.values, there.values)
    whole = gx.open("alphaearth", served.folder / "2024" / "a.tif", resolution=80).compute()
    np.testing.assert_array_equal(there.values, whole.sel(x=there.x, y=there.y).values)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a", {"resolution": 30}),
        ("a", {"resolution": 160}),  # a level that is not there: a mean of means is none
        ("a", {"resolution": 80, "crs": "EPSG:32633"}),
        ("a", {"resolution": 80, "resampling": "nearest"}),
        ("shifted", {"resolution": 80}),
        ("bare", {"resolution": 80}),
    ],
)
def test_elsewhere_all_pixels_are_read(served, name, options):
    found = opened(served, name, **options)
    served.reset()
    found.compute()
    assert served.sent > 0.9 * 64 * SIDE**2 / 2
