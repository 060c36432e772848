"""The published store from a server of this machine: its index is not trusted, and no network is soon told."""

import time

import numpy as np
import pytest
from object_server import ObjectServer
from published import STORE, publish, write_index

import geoemb_xr as gx
from geoemb_xr.core.errors import SourceError
from geoemb_xr.stores import objects, paths, retries
from geoemb_xr.stores.storage import Storage, parse_storage, using

BBOX = (11.365, 47.247, 11.370, 47.250)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A server, the options that lead to it, and the rows of the index."""
    root = tmp_path_factory.mktemp("published")
    rows = publish(root, years=(2020, 2021), size=128)
    with ObjectServer(root) as server:
        yield server, {"endpoint": server.url, "allow_http": True, "timeout": 5}, rows


@pytest.fixture
def index(published, tmp_path, monkeypatch):
    """Puts changed rows into the index."""
    monkeypatch.setenv("GEOEMB_CACHE", str(tmp_path))
    server, storage, rows = published

    def put(**changes):
        write_index(server.folder, rows.assign(**changes))
        return storage

    return put


def test_the_published_store_is_opened_by_its_index_alone(index, published):
    server, _, rows = published
    storage = index()
    server.reset()
    opened = gx.open("alphaearth", bbox=BBOX, storage=storage)
    assert server.count("*.tif*") == 0
    local = gx.open(
        "alphaearth", [str(server.folder / p.removeprefix("s3://")) for p in rows["path"]], bbox=BBOX
    )
    np.testing.assert_array_equal(opened.values, local.values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "s3://elsewhere/a.tif"}, r"names what is not below it: 's3://elsewhere/a\.tif'"),
        ({"path": f"s3://{STORE}/../../secret.tif"}, "not below it"),
        ({"path": f"s3://{STORE}/%2e%2e/secret.tif"}, "not below it"),
        ({"path": f"s3://{STORE}.evil/a.tif"}, "not below it"),
        ({"path": "/etc/passwd"}, "not below it"),
        ({"path": "/vsicurl/http://127.0.0.1/a.tif"}, "not below it"),
        ({"path": ""}, "not below it"),
        ({"utm_east": np.inf}, "no tile of it"),
        ({"utm_east": 1e12}, "no tile of it"),
        ({"utm_east": 0.0}, "no tile of it"),
        ({"crs": "EPSG:4326"}, "no tile of it"),
        ({"crs": "+proj=pipeline"}, "no tile of it"),
        ({"wgs84_east": 1e9}, "nowhere on the Earth"),
    ],
)
def test_rows_of_an_index_are_not_trusted(index, changes, message):
    with pytest.raises(SourceError, match=message):
        gx.open("alphaearth", bbox=BBOX, storage=index(**changes))


def test_a_damaged_index_is_an_error_that_names_it(index, published):
    storage = index()
    file = published[0].folder / STORE / "aef_index.parquet"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(SourceError, match=r"aef_index\.parquet is not a Parquet file"):
        gx.open("alphaearth", bbox=BBOX, storage=storage)


def test_tiles_of_a_new_index_are_other_tasks(index):
    names = {gx.open("alphaearth", bbox=BBOX, storage=index(utm_zone=zone)).data.name for zone in "ABA"}
    assert len(names) >= 2


@pytest.mark.parametrize("url", ["s3://b/t", "https://host/t/"])
def test_what_is_below_a_root(url):
    inner = f"{url.rstrip('/')}/2024/a b.tif"
    assert paths.below(url, inner) == inner
    root = url.rstrip("/")
    for wrong in (url, f"{root}/../a", f"{root}x/a", "a.tif", 7, None, f"{root}/a\0", f"{root}/a?b"):
        with pytest.raises(SourceError, match="not below it"):
            paths.below(url, wrong)


@pytest.mark.parametrize("url", ["https://no-such-host.invalid/a", "s3://b/a", "http://127.0.0.1:9/a"])
def test_who_cannot_be_reached_is_given_up_soon(url, monkeypatch):
    monkeypatch.setattr(retries, "UNREACHED", 0.3)
    monkeypatch.setattr(retries, "_answered", retries.OrderedDict())  # by tests before
    storage = parse_storage(
        {"allow_http": True, **({"endpoint": "http://127.0.0.1:9"} if "s3" in url else {})}
    )
    start = time.monotonic()
    with using(storage), pytest.raises(SourceError, match="Is there a network"):
        objects.fetch(url)
    assert time.monotonic() - start < 20  # of 90


def test_who_has_answered_is_waited_for(published, monkeypatch):
    """A host that was reached is down for a while: it is given all the time that there is."""
    monkeypatch.setattr(retries, "UNREACHED", 0.0)
    tries = []

    def attempt():
        tries.append(None)
        if len(tries) in (2, 3):
            raise retries.Transient("refused", unreached=True)
        return len(tries)

    storage = Storage(timeout=5)
    assert retries.persistently(attempt, "https://answers.example/a", storage) == 1
    assert retries.persistently(attempt, "https://answers.example/b", storage) == 4
    tries[:] = [None]
    with pytest.raises(SourceError, match="1 try"):
        retries.persistently(attempt, "https://never.example/a", storage)
