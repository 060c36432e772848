"""Plain GeoTIFFs are decoded without GDAL, to what GDAL decodes; what is not plain is left to it."""

import zlib

import numpy as np
import pytest
import rasterio
from numcodecs import zstd
from object_server import ObjectServer
from rasterio.enums import Resampling

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core.errors import SourceError
from geoemb_xr.readers import geotiff
from geoemb_xr.readers.block_cache import CACHE, RAW
from geoemb_xr.readers.stored_blocks import BlockLayout
from geoemb_xr.stores.files import ObjectFile, forget
from geoemb_xr.stores.storage import parse_storage, using

SHAPE = (300, 420)
STORAGE = {"allow_http": True, "timeout": 5}
#: Creation options by name: bands of int8 in blocks of 128, of which those at two edges reach over.
PLAIN = {
    "zstd": {"compress": "zstd"},
    "zstd of differences": {"compress": "zstd", "predictor": 2, "dtype": "int16"},
    "deflate": {"compress": "deflate", "dtype": "float32"},
    "deflate of differences": {
        "compress": "deflate",
        "predictor": 2,
        "dtype": "uint8",
        "interleave": "pixel",
    },
    "bands together": {"compress": "zstd", "predictor": 2, "dtype": "int16", "interleave": "pixel"},
    "not compressed": {"dtype": "float64", "blockxsize": 256, "blockysize": 256},
    "one column of blocks": {"compress": "zstd", "blockxsize": 512},
    "not big": {"compress": "zstd", "bigtiff": "NO"},
}
UNUSUAL = {
    "lzw": {"compress": "lzw"},
    "differences of floats": {"compress": "zstd", "predictor": 3, "dtype": "float32"},
    "strips": {"compress": "zstd", "tiled": False, "blockxsize": None},
    "turned round": {"compress": "zstd", "ENDIANNESS": "BIG"},
    "few bits": {"compress": "zstd", "dtype": "uint8", "nbits": 4},
    "with holes": {"compress": "zstd", "sparse_ok": True},
    "a mask": {"compress": "zstd", "dtype": "uint8"},
}


def write(path, name, *, dtype="int8", **options):
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(0, 5, (3, *SHAPE)).round())
    values = (values.clip(0, 15) if "nbits" in options else values).astype(dtype)
    if name == "with holes":
        values[:, :128, 128:256] = 0
    layout = {"interleave": "band", "blockxsize": 128, "blockysize": 128, "bigtiff": "YES"} | options
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        geotiff.write_geotiff(path, values, testing.geobox(SHAPE), nodata=None, **layout)
        with rasterio.open(path, "r+") as dataset:
            if name == "a mask":
                dataset.write_mask(values[0] > 3)
            dataset.build_overviews([2], Resampling.average)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    for name, options in (PLAIN | UNUSUAL).items():
        write(folder / f"{name}.tif", name, **options)
    with ObjectServer(folder) as server, using(parse_storage(STORAGE)):
        yield server


@pytest.fixture
def by_gdal(monkeypatch):
    """What GDAL was handed to decode."""
    for kept in (CACHE, RAW):
        kept.clear()
    forget()
    handed, hold = [], ObjectFile.hold
    monkeypatch.setattr(ObjectFile, "hold", lambda file, *args: handed.append(1) or hold(file, *args))
    return handed


@pytest.mark.parametrize("level", [None, 0], ids=["base", "overview"])
@pytest.mark.parametrize("name", [*PLAIN, *UNUSUAL])
def test_blocks_are_decoded_to_what_gdal_decodes(served, by_gdal, name, level):
    url = f"{served.url}/{name}.tif"
    place = {} if level is None else {"OVERVIEW_LEVEL": level}
    with rasterio.open(served.folder / f"{name}.tif", **place) as dataset:
        expected = dataset.read([3, 1])
    rows, cols = slice(5, expected.shape[1]), slice(0, expected.shape[2] - 3)
    reader = geotiff.GeoTiffReader(url, (3, 1), token=geotiff.read_info(url).token, level=level)
    found = reader.read(0, rows, cols)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected[:, rows, cols])
    # an overview has neither holes, nor strips; GDAL may not give it its base's bits or mask
    if level is None:
        assert bool(by_gdal) == (name in UNUSUAL)
    elif name in PLAIN:
        assert not by_gdal


def test_a_block_that_cannot_be_decoded_is_gdals_error(served, by_gdal, tmp_path):
    damaged = bytearray((served.folder / "zstd.tif").read_bytes())
    with rasterio.open(served.folder / "zstd.tif") as dataset:
        at = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    damaged[at : at + 64] = bytes(64)
    (served.folder / "damaged.tif").write_bytes(damaged)
    url = f"{served.url}/damaged.tif"
    reader = geotiff.GeoTiffReader(url, (1,), token=geotiff.read_info(url).token)
    with pytest.raises(SourceError, match=r"damaged\.tif could not be"):
        reader.read(0, slice(0, 8), slice(0, 8))
    assert by_gdal


@pytest.mark.parametrize("compression", [1, 8, 50000], ids=["none", "deflate", "zstd"])
@pytest.mark.parametrize("last", [0, 0x5A, 0xA5])
@pytest.mark.parametrize("size", [1, 63, 64])
def test_a_block_with_too_little_in_it_is_not_filled_up(compression, last, size):
    values = np.full(size, last, np.uint8)
    compress = {1: bytes, 8: zlib.compress, 50000: zstd.compress}[compression]
    layout = BlockLayout(np.dtype(np.uint8), (8, 8), 1, compression, 1)
    out = np.zeros((8, 8, 1), np.uint8)
    if size == out.size:
        layout.decode(compress(values.tobytes()), out)
        np.testing.assert_array_equal(out.reshape(-1), values)
    else:
        with pytest.raises(ValueError, match=r"less than 64 bytes|buffer is smaller"):
            layout.decode(compress(values.tobytes()), out)


def test_a_window_asks_for_one_header_and_for_its_blocks(tmp_path, by_gdal):
    codes = np.random.default_rng(0).integers(-9, 9, (64, 512, 512), np.int8)
    options = {"compress": "zstd", "interleave": "band", "blockxsize": 256, "blockysize": 256}
    path = tmp_path / "2024" / "a.tif"
    geotiff.write_geotiff(path, codes, testing.geobox((512, 512)), nodata=-128, **options)
    with ObjectServer(tmp_path) as server:
        opened = gx.open("alphaearth", f"{server.url}/2024/a.tif", decode=False, storage=STORAGE)
        assert server.count() == 1
        np.testing.assert_array_equal(opened[0].values, codes)
        assert server.count() == 1 + 4 * 64
        assert not by_gdal
        geotiff.write_geotiff(path, codes[::-1], testing.geobox((512, 512)), nodata=-128, **options)
        again = gx.open("alphaearth", f"{server.url}/2024/a.tif", decode=False, storage=STORAGE)
        np.testing.assert_array_equal(again[0].values, codes[::-1])
        CACHE.clear()
        RAW.clear()
        with pytest.raises(SourceError, match="replaced"):
            opened[0].compute()
