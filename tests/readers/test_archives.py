"""Zarr stores in zip files and in repositories of Icechunk give what their folder gives."""

import pickle
import shutil

import numpy as np
import pytest
from object_server import ObjectServer
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

import geoemb_xr as gx
from geoemb_xr.core.errors import SourceError


@pytest.fixture(scope="module", params=["alphaearth", "tessera"])
def example(request, tmp_path_factory):
    """A product, a store of it, and a corner of what it holds."""
    folder = tmp_path_factory.mktemp("stores")
    path = next(gx.product(request.param).example(folder, "zarr", years=(2020, 2021)).parent.rglob("*.zarr"))
    return request.param, path, gx.open(request.param, path)[..., :32, :32].compute()


def corner(product, source, **options):
    return gx.open(product, source, **options)[..., :32, :32]


@pytest.mark.parametrize("nested", [False, True])
def test_a_zipped_store_is_read_here_and_there(example, nested, tmp_path):
    product, path, expected = example
    inside = (path.parent, path.name) if nested else (path,)
    packed = shutil.make_archive(str(tmp_path / "a.zarr"), "zip", *inside)
    here = corner(product, packed)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(here)).values, expected.values)
    with ObjectServer(tmp_path) as server:
        there = corner(product, f"{server.url}/a.zarr.zip", storage={"allow_http": True})
        np.testing.assert_array_equal(there.values, expected.values)
        assert server.sent < 1.5 * (tmp_path / "a.zarr.zip").stat().st_size


def test_a_store_of_ours_is_read_from_a_zip_file(tmp_path):
    array = gx.testing.synthetic("alphaearth", shape=(20, 20))
    packed = shutil.make_archive(str(tmp_path / "own.zarr"), "zip", gx.to_zarr(array, tmp_path / "own.zarr"))
    assert gx.open(packed).identical(array)


@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_what_is_no_zipped_store_is_an_error_in_words(damage, tmp_path, example):
    packed = tmp_path / "a.zarr.zip"
    if damage == "other":
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "a.txt").write_text("a")
        shutil.make_archive(str(tmp_path / "a.zarr"), "zip", tmp_path / "x")
    else:
        shutil.make_archive(str(tmp_path / "a.zarr"), "zip", example[1])
        whole = packed.read_bytes()
        packed.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    with pytest.raises((SourceError, FileNotFoundError, ValueError), match=r"a\.zarr\.zip|no .*file in"):
        gx.open(example[0], packed).compute()


@pytest.fixture
def repository(example, tmp_path):
    """The store as a repository of Icechunk, which is what Tessera is published in."""
    icechunk = pytest.importorskip("icechunk")
    path = tmp_path / "a.icechunk"
    made = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path)))
    session = made.writable_session("main")
    documents_first = sorted(example[1].rglob("*"), key=lambda p: (p.name != "zarr.json", len(p.parts)))
    for file in documents_first:
        if file.is_file():
            body = default_buffer_prototype().buffer.from_bytes(file.read_bytes())
            sync(session.store.set(file.relative_to(example[1]).as_posix(), body))
    session.commit("written")
    return made, path


def test_a_repository_of_icechunk_is_read(example, repository):
    product, _, expected = example
    opened = corner(product, repository[1])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(opened)).values, expected.values)
    assert opened.emb.check()["absent"] == 0


def test_an_array_stays_with_the_snapshot_that_it_was_opened_at(example, repository):
    product, _, expected = example
    made, path = repository
    before = corner(product, path)
    session = made.writable_session("main")
    name = "embeddings" if product == "alphaearth" else "utm32/embeddings"
    import zarr

    zarr.open_array(session.store, path=name)[:] = 7
    session.commit("changed")
    after = corner(product, path)
    assert before.data.name != after.data.name
    np.testing.assert_array_equal(before.values, expected.values)
    assert not np.array_equal(after.values, expected.values)


def test_no_repository_is_an_error_in_words(tmp_path):
    pytest.importorskip("icechunk")
    (tmp_path / "a.icechunk" / "snapshots").mkdir(parents=True)
    (tmp_path / "a.icechunk" / "refs").mkdir()
    with pytest.raises(SourceError, match=r"a\.icechunk could not be opened as a repository"):
        gx.open("tessera", tmp_path / "a.icechunk")


@pytest.mark.parametrize("kind", ["local", "prefix", "s3", "http"])
def test_a_repository_is_read_through_a_store_of_the_caller(kind, example, repository):
    from obstore.store import HTTPStore, LocalStore, S3Store

    product, _, expected = example
    folder = repository[1].parent
    with ObjectServer(folder.parent) as server:
        allowed = {"client_options": {"allow_http": True}}
        stores = {
            "local": lambda: LocalStore(folder),
            "prefix": lambda: LocalStore(folder.parent),
            "s3": lambda: S3Store(
                folder.name, endpoint=server.url, region="x", skip_signature=True,
                virtual_hosted_style_request=False, **allowed,
            ),
            "http": lambda: HTTPStore.from_url(f"{server.url}/{folder.name}", **allowed),
        }  # fmt: skip
        key = f"{folder.name}/a.icechunk" if kind == "prefix" else "a.icechunk"
        opened = corner(product, key, storage=stores[kind]())
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(opened)).values, expected.values)


def test_a_store_that_icechunk_cannot_read_through_is_an_error_that_leads_on(example):
    from obstore.store import MemoryStore

    pytest.importorskip("icechunk")
    with pytest.raises(SourceError, match=r"cannot be told how this MemoryStore does\. Give the URL"):
        gx.open(example[0], "a.icechunk", storage=MemoryStore())
