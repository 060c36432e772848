"""Containers × faults: right data, or an error that names the object; a hole never."""

import functools
import pickle
import re
import shutil

import numpy as np
import pytest
from object_server import ObjectServer
from sources import OTHERS, OWN, write_sources

import geoemb_xr as gx
from geoemb_xr.core.errors import SourceError
from geoemb_xr.readers.block_cache import CACHE, RAW
from geoemb_xr.stores.files import forget

FAST = {"allow_http": True, "timeout": 6.0}
#: Gives up soon, for what never goes well.
BRIEF = {"allow_http": True, "timeout": 0.6, "retries": 1}

#: A scripted fault, by name.
FAULTS = {
    "429": {"kind": "status", "status": 429, "headers": {"Retry-After": "0.2"}},
    "503": {"kind": "status", "status": 503},
    "reset": {"kind": "reset"},
    "stall": {"kind": "stall"},
    "short": {"kind": "short"},
    "wrong range": {"kind": "wrong_range"},
}
#: What no second try mends.
FINAL = {
    "404": {"kind": "status", "status": 404},
    "403": {"kind": "status", "status": 403},
    "changed": {"kind": "new_etag"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A server of a source of each container, by name; and the server."""
    root = tmp_path_factory.mktemp("store")
    found = write_sources(root, size=64)
    with ObjectServer(root) as server:
        yield {name: Case(server, root, *each) for name, each in found.items()}, server
        server.reset()


class Case:
    """One source, on this disk and behind the server."""

    def __init__(self, server, root, product, files):
        self.product, self.files = product, files
        self.urls = [f"{server.url}/{p.relative_to(root)}" for p in files]

    def open(self, sources, **options):
        sources = [str(each) for each in sources]
        source = sources[0] if len(sources) == 1 else sources
        return (
            gx.open(source, **options) if self.product is None else gx.open(self.product, source, **options)
        )

    @functools.cached_property
    def expected(self):
        return self.open(self.files).values

    def remote(self, storage):
        CACHE.clear()
        RAW.clear()
        forget()
        return self.open(self.urls, storage=storage)


#: Stores of others do not tell which chunks were written: an absent one is missing, which is said.
SAID = {("404", "zarr"), ("404", "tessera zarr")}
#: Icechunk, which asks by itself, does not ask again for bytes that it did not ask for: an error at once. It may
#: also still have the right ones.
REFUSED = {("wrong range", "icechunk")}
CONTAINERS = [*OTHERS, *OWN]


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_remote_source_gives_what_the_local_one_does(store, container):
    cases, server = store
    server.reset()
    lazy = cases[container].remote(FAST)
    there = pickle.loads(pickle.dumps(lazy))
    np.testing.assert_array_equal(there.values, cases[container].expected)
    assert lazy.data.name == cases[container].remote({**FAST, "retries": 3}).data.name


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_what_passes_is_outlasted(store, container, fault):
    cases, server = store
    server.reset()
    lazy = cases[container].remote({**FAST, "timeout": 1.5} if fault == "stall" else FAST)
    server.reset()
    server.fail(**FAULTS[fault], times=2, methods=("GET",))
    may_be_refused = (fault, container) in REFUSED
    try:
        found = lazy.values
    except SourceError as error:
        if not may_be_refused:
            raise
        assert re.search(r"http://127.*could not be read", str(error))  # noqa: PT017  # right data does as well
        return
    np.testing.assert_array_equal(found, cases[container].expected)
    assert server.faults[0].times == 0 or may_be_refused


@pytest.mark.parametrize("fault", [*FAULTS, *FINAL])
@pytest.mark.parametrize("container", CONTAINERS)
def test_what_stays_is_an_error_that_names_the_object_or_does_no_harm(store, container, fault):
    cases, server = store
    server.reset()
    lazy = cases[container].remote(BRIEF)
    server.reset()
    server.fail(**{**FAULTS, **FINAL}[fault], times=np.inf, methods=("GET", "HEAD"))
    try:
        found = lazy.values
    except (SourceError, FileNotFoundError) as error:
        assert "http://127" in str(error)  # noqa: PT017  # right data does as well
        return
    # objects that are read whole, once, are neither another range nor another state
    assert fault in ("wrong range", "changed") or (fault, container) in SAID
    if (fault, container) not in SAID:
        np.testing.assert_array_equal(found, cases[container].expected)


@pytest.mark.parametrize("container", ["parquet", "own parquet", "own cog"])
def test_what_is_replaced_after_it_was_opened_is_an_error(store, container, tmp_path):
    cases, _ = store
    case = cases[container]
    copy = shutil.copytree(case.files[0].parent, tmp_path / "kept")
    with ObjectServer(copy) as server:
        url = f"{server.url}/{case.files[0].name}"
        lazy = case.open([url], storage=FAST)
        (copy / case.files[0].name).touch()
        with pytest.raises(SourceError, match=r"http://127.* was replaced"):
            lazy.compute()


def test_a_chunk_that_is_lost_from_a_store_of_ours_is_an_error(tmp_path):
    array = gx.testing.synthetic("alphaearth", shape=(24, 24), chunks=12, decode=False)
    path = gx.to_zarr(array.where(array.x < 0, -128).astype("int8"), tmp_path / "empty.zarr")
    assert np.isnan(gx.open(path).values).all()  # chunks without data were written too
    next(p for p in sorted((path / "embedding" / "c").rglob("*")) if p.is_file()).unlink()
    with pytest.raises(SourceError, match=r"embedding/c/.* does not exist.*data were lost"):
        gx.open(path).compute()


# --- absent is not unread -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["here", "there"])
@pytest.mark.parametrize(
    ("product", "lost", "stored"),
    [("alphaearth", "embeddings/c/1/0/0/0", 2), ("tessera", "utm*/scales/c/0/0/0", 4)],
)
def test_absent_blocks_of_others_stores_are_counted_and_said(product, lost, stored, where, tmp_path, caplog):
    written = gx.product(product).example(tmp_path, "zarr", years=(2020, 2021))
    path = next(written.parent.rglob("*.zarr"))
    next(iter(path.glob(lost))).unlink()
    with ObjectServer(tmp_path) as server, caplog.at_level("INFO", "geoemb_xr"):
        url = f"{server.url}/{path.relative_to(tmp_path)}"
        opened = (
            gx.open(product, path) if where == "here" else gx.open(product, url, storage={"allow_http": True})
        )
        said_at_open = caplog.text
        opened = opened[..., :32, :32]
        opened.compute()
        assert caplog.text.count("do not exist") >= 1
        assert lost.rpartition("*")[2] in caplog.text
        assert ("do not exist" in said_at_open) == (where == "here")  # there it costs requests
        caplog.clear()
        found = opened.emb.check()
        assert found["absent"] == 1 / stored
        assert f"1 of {stored} stored blocks" in caplog.text
        assert "absent" in repr(opened.emb)
        assert "1 of " in opened.emb._repr_html_()


@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
def test_nothing_is_said_of_whole_stores(product, tmp_path, caplog):
    written = gx.product(product).example(tmp_path, "zarr", years=(2020, 2021))
    opened = gx.open(product, next(written.parent.rglob("*.zarr")))
    opened = opened[..., :32, :32]
    with caplog.at_level("INFO", "geoemb_xr"):
        assert opened.emb.check()["absent"] == 0
    assert "do not exist" not in caplog.text


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_absent_chunks_of_what_plain_xarray_wrote_are_said(zarr_format, tmp_path, caplog):
    array = gx.testing.synthetic("alphaearth", shape=(24, 24), chunks=12, decode=False).drop_encoding()
    array.to_dataset(name="embedding").to_zarr(tmp_path / "plain.zarr", zarr_format=zarr_format)
    chunks = [p for p in (tmp_path / "plain.zarr" / "embedding").rglob("*") if p.name[-1].isdigit()]
    chunk = next(p for p in sorted(chunks) if p.is_file())
    chunk.unlink()
    opened = gx.open(tmp_path / "plain.zarr")
    with caplog.at_level("INFO", "geoemb_xr"):
        opened.compute()
    assert caplog.text.count("does not exist, and is read as missing") == 1
    assert str(chunk) in caplog.text


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_that_is_gone_as_a_whole_is_an_error(zarr_format, tmp_path):
    """Each of its chunks is absent, but that is no reason to read them as missing."""
    array = gx.testing.synthetic("alphaearth", shape=(24, 24), chunks=12, decode=False).drop_encoding()
    array.to_dataset(name="embedding").to_zarr(tmp_path / "plain.zarr", zarr_format=zarr_format)
    opened = gx.open(tmp_path / "plain.zarr", decode=False)
    np.testing.assert_array_equal(opened.values, array.values)
    shutil.rmtree(tmp_path / "plain.zarr")
    with pytest.raises(SourceError, match=r"plain\.zarr is not there any more"):
        opened.compute()
