"""Ranges of objects: tried again as servers ask, checked, listed where a store can, by whose store is given."""

import os
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import obstore
import pytest
from object_server import ObjectServer

import geoemb_xr as gx
from geoemb_xr.core.errors import SourceError
from geoemb_xr.stores import http, objects, paths
from geoemb_xr.stores.files import RemoteObject
from geoemb_xr.stores.storage import Storage, parse_storage, using

BODY = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bucket")
    (folder / "b" / "2024").mkdir(parents=True)
    (folder / "b" / "a.bin").write_bytes(BODY)
    for name in ("2024/x.tif", "2024/y.tif", "2024/y.txt"):
        (folder / "b" / name).write_bytes(name.encode())
    with ObjectServer(folder) as server:
        yield server


@pytest.fixture(autouse=True)
def _fresh(served):
    served.reset()


@pytest.fixture(params=["http", "s3"])
def reached(served, request):
    """The URL of the bucket by each transport, and its storage."""
    served.reset()
    if request.param == "http":
        return f"{served.url}/b", parse_storage({"allow_http": True, "timeout": 5})
    return "s3://b", parse_storage({"allow_http": True, "timeout": 5, "endpoint": served.url})


def test_ranges_are_those_of_the_file(reached):
    url, storage = reached
    with using(storage):
        assert objects.fetch(f"{url}/a.bin", 7, 1007).data == BODY[7:1007]
        assert objects.fetch(f"{url}/a.bin").data == BODY
        assert objects.fetch(f"{url}/a.bin", -10).data == BODY[-10:]
        assert objects.fetch(f"{url}/a.bin", len(BODY) - 5, len(BODY) + 5).data == BODY[-5:]
        assert objects.get_ranges(f"{url}/a.bin", [(5, 9), (0, 3)]) == [BODY[5:9], BODY[:3]]
        assert objects.object_size(f"{url}/a.bin") == len(BODY)
        assert objects.object_size(f"{url}/none.bin") is None
        with pytest.raises(FileNotFoundError, match=r"none\.bin"):
            objects.fetch(f"{url}/none.bin", 0, 1)


def test_retry_after_is_honoured(served):
    served.reset()
    served.fail("status", status=429, headers={"Retry-After": "0.7"}, times=1)
    with using(Storage(allow_http=True)):
        assert objects.fetch(f"{served.url}/b/a.bin", 0, 10).data == BODY[:10]
    refused, answered = (each.at for each in served.seen)
    assert answered - refused >= 0.7


def test_who_asks_to_wait_longer_than_there_is_time_is_not_waited_for(served):
    served.reset()
    served.fail("status", status=429, headers={"Retry-After": "300"}, times=np.inf)
    with (
        using(Storage(allow_http=True, timeout=5)),
        pytest.raises(SourceError, match=r"429; it asks to wait 300 s"),
    ):
        objects.fetch(f"{served.url}/b/a.bin", 0, 10)
    assert len(served.seen) == 1


def test_an_outage_is_outlasted(served):
    """Nothing listens for a while: connections are refused, then the server comes up."""
    with ObjectServer(served.folder) as gone:
        url = gone.url
    again = []
    timer = threading.Timer(0.6, lambda: again.append(come_up(served.folder, url)))
    timer.start()
    try:
        with using(Storage(allow_http=True)):
            assert objects.fetch(f"{url}/b/a.bin", 0, 10).data == BODY[:10]
    finally:
        timer.join()
        again[0].__exit__()


def come_up(folder, url):
    return ObjectServer(folder, port=int(url.rpartition(":")[2])).__enter__()


def test_waits_grow_and_end(served, monkeypatch):
    """By default tries go on for more than a minute, each after a longer wait, of at most 10 s."""
    from geoemb_xr.stores import retries

    waits, now = [], [0.0]

    def sleep(seconds):
        waits.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(retries.time, "sleep", sleep)
    monkeypatch.setattr(retries.time, "monotonic", lambda: now[0])

    def attempt():
        raise retries.Transient("status 503")

    with pytest.raises(SourceError, match=r"s3://b/a .*status 503, in \d+ tries"):
        retries.persistently(attempt, "s3://b/a (bytes 0–9)", Storage())
    assert 60 < sum(waits) < 91
    assert max(waits) <= 10
    assert waits[0] <= 0.1
    assert len(set(waits)) > 5  # jitter


def test_ranges_are_of_one_state(served, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(BODY)
    with ObjectServer(tmp_path) as server, using(Storage(allow_http=True)):
        of = RemoteObject(f"{server.url}/a.bin")
        path.write_bytes(BODY[::-1])
        with pytest.raises(SourceError, match=r"a\.bin was replaced while it was read"):
            of.read(200_000, 200_010)


def test_what_is_not_encrypted_is_read_only_on_request(served):
    for url, storage in ((f"{served.url}/b/a.bin", {}), ("s3://b/a.bin", {"endpoint": served.url})):
        with (
            using(parse_storage(storage)),
            pytest.raises(SourceError, match=r"not encrypted.*\"allow_http\": True"),
        ):
            objects.fetch(url, 0, 1)


def test_folders_and_globs_are_listed_where_the_store_can(served):
    with using(parse_storage({"allow_http": True, "endpoint": served.url})):
        both = ["s3://b/2024/x.tif", "s3://b/2024/y.tif"]
        assert paths.expand("s3://b/2024", (".tif",)) == both
        assert paths.expand("s3://b/**/*.tif", (".tif",)) == both
        assert paths.expand("s3://b/*/y*", (".tif",)) == both[1:]
        assert objects.list_folders("s3://b") == ["2024"]
        with pytest.raises(FileNotFoundError, match=r"no \.npy file at s3://b/2024"):
            paths.expand("s3://b/2024", (".npy",))
    with using(Storage(allow_http=True)), pytest.raises(SourceError, match="cannot be listed"):
        paths.expand(f"{served.url}/b/2024/", (".tif",))


def test_a_store_that_forbids_listing_says_so(served):
    served.listable = False
    try:
        with (
            using(parse_storage({"allow_http": True, "endpoint": served.url})),
            pytest.raises(SourceError, match=r"s3://b/2024.* cannot be listed"),
        ):
            paths.expand("s3://b/2024", (".tif",))
    finally:
        served.listable = True


def test_a_store_of_the_caller_is_asked_by_keys_and_urls(tmp_path):
    source = gx.product("alphaearth").example(tmp_path, "cog", size=64, years=(2020, 2021))
    files = sorted(source.rglob("*.tif*"))
    expected = gx.open("alphaearth", [str(f) for f in files])
    local = obstore.store.LocalStore(str(tmp_path))
    memory = obstore.store.MemoryStore()
    for file in files:
        memory.put(file.relative_to(tmp_path).as_posix(), file.read_bytes())
    keys = [file.relative_to(tmp_path).as_posix() for file in files]
    for store, given in ((local, keys), (memory, keys), (memory, source.relative_to(tmp_path).as_posix())):
        opened = gx.open("alphaearth", given, storage=store)
        np.testing.assert_array_equal(opened.values, expected.values)
    travelled = pickle.loads(pickle.dumps(gx.open("alphaearth", keys, storage=local)))
    np.testing.assert_array_equal(travelled.values, expected.values)


def test_own_files_are_opened_through_a_store(tmp_path):
    array = gx.testing.synthetic("alphaearth", shape=(8, 8), decode=False)
    gx.to_zarr(array, tmp_path / "aoi.zarr")
    store = obstore.store.LocalStore(str(tmp_path))
    opened = gx.open("aoi.zarr", storage=store, decode=False)
    np.testing.assert_array_equal(opened.values, array.values)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "obstore store, or a dict"),
        ({"timeout": 0}, "positive number"),
        ({"retries": "many"}, "positive number"),
        ({"regoin": "eu-west-1"}, "regoin"),
    ],
)
def test_options_without_sense_are_refused(given, message):
    with pytest.raises(ValueError, match=message), using(parse_storage(given)):
        objects.object_store("s3://bucket")


def test_options_reach_the_store(served):
    with using(parse_storage({"region": "eu-west-3", "access_key_id": "A", "secret_access_key": "B"})):
        config = objects.object_store("s3://bucket/folder").config
    assert config["region"] == "eu-west-3"
    assert config["access_key_id"] == "A"
    assert "skip_signature" not in config
    assert parse_storage({"timeout": timedelta(seconds=3)}).timeout == 3.0


def test_https_by_a_certificate_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "a.bin").write_bytes(BODY)
    with ObjectServer(tmp_path, tls=True) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        from geoemb_xr.stores import http

        http._pool.cache_clear()
        with using(Storage(timeout=5)):
            assert objects.fetch(f"{server.url}/a.bin", 5, 10).data == BODY[5:10]
        http._pool.cache_clear()
        monkeypatch.delenv("SSL_CERT_FILE")
        with using(Storage(timeout=0.5)), pytest.raises(SourceError, match="certificate"):
            objects.fetch(f"{server.url}/a.bin", 5, 10)


@pytest.mark.parametrize("product", ["alphaearth", "tessera", "earth_index", None])
@pytest.mark.parametrize(
    "name", ["2024/a.tif", "2024/grid_11.35_47.25.npy", "a.zarr", "a.zarr.zip", "a.parquet"]
)
def test_what_is_not_there_is_an_error_of_ours_that_names_it(product, name, tmp_path):
    with ObjectServer(tmp_path) as server:
        url = f"{server.url}/{name}"
        with pytest.raises(SourceError, match=server.url):
            gx.open(
                *(url,) if product is None else (product, url), storage={"allow_http": True, "timeout": 2}
            )


LIES = {
    "another range": (206, {"Content-Range": "bytes 100-107/300000"}),
    "no range": (206, {}),
    "a range of nonsense": (206, {"Content-Range": "bytes x-y/z"}),
    "several parts": (206, {"Content-Type": "multipart/byteranges; boundary=x"}),
    "a longer range than came": (206, {"Content-Range": "bytes 0-9/300000"}),
    "another encoding": (200, {"Content-Encoding": "gzip"}),
    "no content": (204, {}),
    "not modified": (304, {}),
    "a range that is not there": (416, {"Content-Range": "bytes */8"}),
    "a way back": (302, {"Location": "/b/a.bin"}),
    "a way to what is not encrypted": (302, {"Location": "gopher://somewhere/a.bin"}),
    "a way that is none": (300, {}),
}


@pytest.mark.parametrize("lie", LIES)
def test_answers_that_are_not_what_was_asked_for_are_errors(reached, served, lie):
    url, storage = reached
    status, headers = LIES[lie]
    served.fail("status", "*/a.bin", status=status, headers=headers, times=float("inf"))
    with using(replace(storage, timeout=0.5)), pytest.raises(SourceError, match=r"a\.bin"):
        objects.fetch(f"{url}/a.bin", 0, 10)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_url_leads_on_to_where_the_object_is(served, status):
    served.fail("status", "b/moved.bin", status=status, headers={"Location": "a.bin"}, times=float("inf"))
    with using(parse_storage({"allow_http": True})):
        assert objects.fetch(f"{served.url}/b/moved.bin", 7, 1007).data == BODY[7:1007]
        assert objects.object_size(f"{served.url}/b/moved.bin") == len(BODY)


def test_credentials_stay_with_the_host_that_they_are_for(served, monkeypatch):
    with ObjectServer(served.folder) as other:
        told = []
        asked = http._pool(os.getpid(), "").urlopen
        monkeypatch.setattr(
            http,
            "_pool",
            lambda *_: SimpleNamespace(urlopen=lambda *a, **k: told.append(k) or asked(*a, **k)),
        )
        served.fail("status", "b/moved.bin", status=302, headers={"Location": f"{other.url}/b/a.bin"})
        secret = {"default_headers": {"Authorization": "Bearer x"}}
        with using(parse_storage({"allow_http": True, "client_options": secret})):
            objects.fetch(f"{served.url}/b/moved.bin", 0, 10)
    assert ["Authorization" in each["headers"] for each in told] == [True, False]


def test_a_server_without_ranges_gives_a_range_of_small_objects_only(served, monkeypatch):
    served.fail("status", "b/a.bin", status=200, times=float("inf"))  # it sends "scripted" each time
    with using(parse_storage({"allow_http": True})):
        assert objects.fetch(f"{served.url}/b/a.bin", 2, 6).data == b"ript"
        monkeypatch.setattr(http, "_LARGEST_WHOLE", 4)
        with pytest.raises(SourceError, match="sends no parts of objects"):
            objects.fetch(f"{served.url}/b/a.bin", 2, 6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_reads_or_says_why_it_cannot(reached):
    url, storage = reached
    options = {"allow_http": True, "timeout": 5, **dict(storage.options)}
    read = (
        "import os, signal, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"  # Python warns of forks beside threads
        "from geoemb_xr.stores import objects\n"
        "from geoemb_xr.stores.storage import parse_storage, using\n"
        f"with using(parse_storage({options!r})):\n"
        f"    assert len(objects.fetch({url + '/a.bin'!r}, 7, 16).data) == 9\n"
        "    if os.fork():\n"
        "        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        "    signal.alarm(20)\n"  # ends a fork that waits without end
        "    try:\n"
        f"        print(len(objects.fetch({url + '/a.bin'!r}, 7, 16).data))\n"
        "    except objects.SourceError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    if url.startswith("http"):
        assert done.stdout == "9\n"
    else:
        assert "cannot be reached from a forked process" in done.stdout
        assert "get_context('spawn')" in done.stdout
