"""Chunks of Zarr arrays that are decoded without Zarr: what Zarr reads, with few requests, and never a hole."""

from http.server import BaseHTTPRequestHandler

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from object_server import ObjectServer
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, ZstdCodec

import geoemb_xr as gx
from geoemb_xr.core.errors import SourceError
from geoemb_xr.readers import stored_chunks
from geoemb_xr.readers.shard_indexes import INDEXES
from geoemb_xr.readers.zarr import ZarrReader
from geoemb_xr.stores.objects import CONCURRENCY
from geoemb_xr.stores.storage import parse_storage, using

DIMS = ("time", "band", "y", "x")
SHAPE, SHARD, CHUNK = (2, 5, 50, 44), (1, 5, 32, 16), (1, 5, 8, 8)
STORAGE = {"allow_http": True, "timeout": 5}
PLAIN = {
    "zstd": {"codecs": [BytesCodec(), ZstdCodec()]},
    "blosc": {"codecs": [BytesCodec(), BloscCodec(cname="zstd")]},
    "not compressed": {"codecs": [BytesCodec()]},
    "index first": {"codecs": [BytesCodec(), ZstdCodec()], "index_location": "start"},
    "index without a checksum": {"codecs": [BytesCodec(), ZstdCodec()], "index_codecs": [BytesCodec()]},
    "no shards": None,
}
UNUSUAL = {
    "gzip": {"codecs": [BytesCodec(), GzipCodec()]},
    "checksums": {"codecs": [BytesCodec(), ZstdCodec(), Crc32cCodec()]},
    "big-endian": {"codecs": [BytesCodec(endian="big"), ZstdCodec()]},
}


def write(path, sharding, dtype="int16", *, holes=True):
    """An array of noise, with chunks and a shard that were never written."""
    values = np.random.default_rng(0).integers(-99, 99, SHAPE).astype(dtype)
    options = {
        "chunks": CHUNK if sharding is None else SHARD,
        "compressors": [ZstdCodec()] if sharding is None else None,
        "serializer": "auto" if sharding is None else ShardingCodec(chunk_shape=CHUNK, **sharding),
        "fill_value": 7,
        "dimension_names": DIMS,
    }
    array = zarr.create_array(path, name="a", shape=SHAPE, dtype=dtype, filters=None, **options)
    if holes:
        values[0, :, 8:24, 8:16] = 7  # chunks
        values[1, :, 32:, 16:32] = 7  # shards
    array[:] = values
    return values


def reader_of(url):
    return ZarrReader(str(url), "a", DIMS, steps=(1, 0))


def is_plain(path):
    return stored_chunks.layout_of(zarr.open_array(path, path="a", mode="r")) is not None


@pytest.mark.parametrize("how", [*PLAIN, *UNUSUAL])
@pytest.mark.parametrize("dtype", ["int8", "uint16", "float32"])
def test_windows_and_points_are_what_zarr_reads(how, dtype, tmp_path):
    if how == "big-endian" and dtype == "int8":
        pytest.skip("a byte has no order")
    values = write(tmp_path, {**PLAIN, **UNUSUAL}[how], dtype)
    assert is_plain(tmp_path) is (how in PLAIN)
    with ObjectServer(tmp_path) as server:
        for url in (tmp_path, server.url):
            with using(parse_storage(STORAGE)):
                check_places(reader_of(url), values)


def check_places(reader, values):
    @settings(max_examples=settings.default.max_examples // 2)  # of each of 54 ways to keep chunks
    @given(st.tuples(*(st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in SHAPE[2:])))
    def check(ends):
        rows, cols = (slice(min(a, b - 1), max(a + 1, b)) for a, b in ends)
        got = reader.read(0, rows, cols)
        assert got.dtype == values.dtype
        np.testing.assert_array_equal(got, values[1][:, rows, cols])

    check()
    rng = np.random.default_rng(1)
    rows, cols = rng.integers(0, SHAPE[2], 40), rng.integers(0, SHAPE[3], 40)
    for time in (0, 1):
        np.testing.assert_array_equal(reader.read_at(time, rows, cols), values[1 - time][:, rows, cols])


def test_neighbours_are_one_request_and_an_index_is_asked_for_once(tmp_path):
    values = write(tmp_path, PLAIN["zstd"], holes=False)
    with (
        ObjectServer(tmp_path) as server,
        using(parse_storage(STORAGE)),
    ):
        reader = reader_of(server.url)
        for left in (0, 8, 4):
            got = reader.read(1, slice(0, 16), slice(left, left + 8))
            np.testing.assert_array_equal(got, values[0][:, :16, left : left + 8])
        # the index, and what is asked for of two rows of chunks: all in between is small
        assert server.count("a/c/0/0/0/0") == 1 + 3


def test_what_is_written_later_is_said_and_then_read(tmp_path):
    path = tmp_path / "a.zarr"
    write(path, PLAIN["zstd"])
    with (
        ObjectServer(tmp_path) as server,
        using(parse_storage(STORAGE)),
    ):
        reader, hole = reader_of(f"{server.url}/a.zarr"), (1, slice(8, 16), slice(8, 16))
        assert (reader.read(*hole) == 7).all()
        zarr.open_array(path, path="a", mode="r+")[0, :, 8:16, 8:16] = 3
        with pytest.raises(SourceError, match="replaced while it was read"):
            reader.read(*hole)
        assert (reader.read(*hole) == 3).all()


def test_an_index_of_a_server_without_etags_is_not_kept(tmp_path, monkeypatch):
    send = BaseHTTPRequestHandler.send_header

    def without_etag(self, name, value):
        if name != "ETag":
            send(self, name, value)

    monkeypatch.setattr(BaseHTTPRequestHandler, "send_header", without_etag)
    write(tmp_path, PLAIN["zstd"])
    with (
        ObjectServer(tmp_path) as server,
        using(parse_storage(STORAGE)),
    ):
        reader, hole = reader_of(server.url), (1, slice(8, 16), slice(8, 16))
        assert (reader.read(*hole) == 7).all()
        zarr.open_array(tmp_path, path="a", mode="r+")[0, :, 8:16, 8:16] = 3
        assert (reader.read(*hole) == 3).all()


@pytest.mark.parametrize("at", [-9, 40], ids=["index", "chunk"])
def test_damaged_bytes_are_an_error_that_names_the_store(at, tmp_path):
    path = next(gx.product("tessera").example(tmp_path, "zarr", size=64).parent.rglob("*.zarr"))
    (shard, *_) = (p for p in path.glob("utm*/embeddings/c/**/*") if p.is_file())
    body = bytearray(shard.read_bytes())
    body[at] ^= 0xFF
    shard.write_bytes(body)
    INDEXES.clear()
    with ObjectServer(tmp_path) as server:
        for url in (path, f"{server.url}/{path.relative_to(tmp_path)}"):
            with pytest.raises(SourceError, match="embeddings"):
                gx.open("tessera", url, storage=STORAGE).compute()


def test_codes_and_scales_come_together(tmp_path):
    path = next(gx.product("tessera").example(tmp_path, "zarr", size=32).parent.rglob("*.zarr"))
    with ObjectServer(tmp_path, latency=0.05) as server, dask.config.set(scheduler="synchronous"):
        url = f"{server.url}/{path.relative_to(tmp_path)}"
        opened = [gx.open("tessera", url, storage=STORAGE, time=2024, decode=each) for each in (False, True)]
        busiest = []
        for each in opened:
            INDEXES.clear()
            server.reset()
            each.isel(y=slice(0, 8), x=slice(0, 8)).compute()
            busiest.append(server.busiest)
        assert busiest == [1, 2]
        assert server.count("*/embeddings/c/*") == 2


def test_few_requests_are_under_way_however_many_threads_there_are(tmp_path):
    path = next(gx.product("tessera").example(tmp_path, "zarr", size=128).parent.rglob("*.zarr"))
    with ObjectServer(tmp_path, latency=0.1) as server:
        url = f"{server.url}/{path.relative_to(tmp_path)}"
        opened = gx.open("tessera", url, storage=STORAGE, chunks=8)
        server.reset()
        part = opened.isel(time=0, y=slice(0, 80), x=slice(0, 64))
        assert part.data.npartitions > 4 * CONCURRENCY
        with dask.config.set(scheduler="threads", num_workers=4 * CONCURRENCY):
            part.compute()
        assert server.busiest <= 2 * CONCURRENCY


def test_a_window_is_a_small_part_of_its_shard(tmp_path):
    write(tmp_path, PLAIN["not compressed"], "float64", holes=False)
    shard = (tmp_path / "a/c/0/0/0/0").stat().st_size
    with (
        ObjectServer(tmp_path) as server,
        using(parse_storage(STORAGE)),
    ):
        reader = reader_of(server.url)
        reader.read(1, slice(0, 8), slice(0, 8))
        assert sum(each.sent for each in server.seen if "/c/" in each.path) < shard / 4


def test_plans_count_neighbours_as_the_one_request_that_they_are(tmp_path):
    path = next(gx.product("alphaearth").example(tmp_path, "zarr", size=128).parent.rglob("*.zarr"))
    array = zarr.open_array(path, path="embeddings", mode="r+")
    values = array[:]
    zarr.create_array(
        path, name="embeddings", shape=array.shape, dtype="int8", chunks=(1, 64, 128, 128), compressors=None,
        filters=None, fill_value=-128, dimension_names=DIMS, attributes=dict(array.attrs), overwrite=True,
        serializer=ShardingCodec(chunk_shape=(1, 64, 8, 8), codecs=[BytesCodec(), ZstdCodec()]),
    )[:] = values  # fmt: skip
    zarr.consolidate_metadata(path)
    with ObjectServer(tmp_path) as server:
        opened = gx.open("alphaearth", f"{server.url}/{path.relative_to(tmp_path)}", storage=STORAGE)
        part = opened.isel(time=0, y=slice(3, 90), x=slice(20, 70))
        plan = part.emb.plan()
        server.reset()
        part.compute()
        requests, sent = server.count(), server.sent
    assert requests <= plan.requests <= 1.5 * requests
    assert sent <= plan.transfer_bytes <= 1.5 * sent


@pytest.mark.parametrize("after", [0, 1], ids=["index", "chunks"])
def test_what_cannot_be_read_is_an_error_and_not_asked_for_a_second_time(after, tmp_path):
    write(tmp_path, PLAIN["zstd"])
    storage = parse_storage(STORAGE | {"retries": 2})
    with ObjectServer(tmp_path) as server, using(storage):
        reader = reader_of(server.url)
        reader.objects(1, slice(0, 8), slice(0, 8))  # opens it
        server.fail("status", "a/c/*", status=503, times=float("inf"), after=after)
        with pytest.raises(SourceError, match="status 503"):
            reader.read(1, slice(0, 8), slice(0, 8))
        assert server.count("a/c/*") == after + 3
        INDEXES.clear()
        with pytest.raises(SourceError, match="status 503"):  # absent is not unread
            reader.never_written(1, slice(0, 8), slice(0, 8))


@pytest.fixture
def no_zarr(monkeypatch):
    """Zarr's own reading of chunks, which must not be used."""

    def refuse(*args, **options):
        raise AssertionError("chunks were read by Zarr")

    def watch():
        monkeypatch.setattr(zarr.Array, "__getitem__", refuse)
        monkeypatch.setattr(zarr.Array, "get_basic_selection", refuse)
        monkeypatch.setattr(zarr.Array, "get_orthogonal_selection", refuse)

    return watch


@given(
    rows=st.tuples(st.integers(0, 40), st.integers(1, 40)),
    cols=st.tuples(st.integers(0, 50), st.integers(1, 50)),
    chunks=st.integers(3, 70),
    year=st.sampled_from([None, 2018, 2024]),
)
@settings(max_examples=15)
def test_any_window_of_our_own_store_is_what_was_written(own_store, rows, cols, chunks, year):
    path, written = own_store
    area = written.isel(y=slice(rows[0], sum(rows)), x=slice(cols[0], sum(cols)))
    expected = area if year is None else area.emb.year(year)
    box = area.emb.geobox.boundingbox.buffered(-1)
    opened = gx.open(path, bbox=tuple(box), bbox_crs=box.crs, time=year, chunks=chunks, decode=False)
    found = opened.sel(y=expected.y.values, x=expected.x.values)
    assert_array_equal(found.values.squeeze(), expected.values.squeeze())


@pytest.fixture(scope="module")
def own_store(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "a.zarr"
    array = gx.testing.synthetic("alphaearth", shape=(50, 60), years=(2018, 2024), missing=True, decode=False)
    array.chunk(time=1, y=32, x=24).emb.to_zarr(path)
    return path, array


@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
def test_blocks_of_our_own_stores_are_decoded_without_zarr(product, tmp_path, no_zarr):
    array = gx.testing.synthetic(product, shape=(40, 50), missing=True, decode=False).chunk(y=16, x=24)
    array.emb.to_zarr(tmp_path / "a.zarr")
    opened = gx.open(tmp_path / "a.zarr", decode=False)
    no_zarr()
    xr.testing.assert_identical(opened.drop_attrs().compute(), array.drop_attrs().compute())
