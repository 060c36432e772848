"""Sources that cannot be read in whole: an error, or what can be read and a list of what cannot."""

import dask.array as da
import numpy as np
import pytest
import zarr
from object_server import ObjectServer
from obstore.store import MemoryStore

import geoemb_xr as gx
from geoemb_xr.core.conventions import UNREAD
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.writing.staging import WriteJob, part_of


@pytest.fixture(scope="module")
def years():
    return gx.testing.synthetic("alphaearth", shape=(40, 30), years=[2020, 2021], chunks=16, decode=False)


def unreadable(array, lost):
    """The array, and some of its blocks (time, band, y, x) raise as those of a store that is gone."""

    def read(block, block_id=None):
        if block_id in lost:
            raise SourceError(f"block {block_id} answers 503")
        return block

    return array.copy(data=da.map_blocks(read, array.data, dtype=array.dtype, meta=array.data._meta))


LOST = {(0, 0, 1, 0), (1, 0, 2, 1)}  # of 2 x 1 x 3 x 2 blocks


def test_what_cannot_be_read_is_an_error(years, tmp_path):
    with pytest.raises(SourceError, match="answers 503"):
        gx.to_zarr(unreadable(years, LOST), tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("where", ["disk", "objects"])
def test_what_can_be_read_is_written_and_the_rest_is_listed(years, where, tmp_path, caplog):
    storage = MemoryStore() if where == "objects" else None
    path = "a.zarr" if storage else tmp_path / "a.zarr"
    with caplog.at_level("INFO", "geoemb_xr"):
        unreadable(years, LOST).emb.to_zarr(path, errors="missing", storage=storage)
        assert "2 blocks could not be read" in caplog.text
        caplog.clear()
        opened = gx.open(path, storage=storage, decode=False)
        assert "2 blocks could not be read when it was written" in caplog.text
    expected = years.values.copy()
    expected[0, :, 16:32, :16] = expected[1, :, 32:, 16:] = -128
    np.testing.assert_array_equal(opened.values, expected)
    if where == "disk":
        listed = zarr.open_group(path, mode="r").attrs[UNREAD]
        assert [each["variable"] for each in listed] == ["embedding"] * 2
        assert {(*each["time"], *each["y"], *each["x"]) for each in listed} == {
            (0, 1, 16, 32, 0, 16),
            (1, 2, 32, 40, 16, 30),
        }
        assert all("answers 503" in each["reason"] for each in listed)
        assert not part_of(path).exists()


def test_what_is_written_later_is_listed_no_more(years, tmp_path, caplog):
    path = gx.to_zarr(unreadable(years, LOST), tmp_path / "a.zarr", errors="missing")
    years.isel(time=[0]).emb.to_zarr(path, mode="r+")
    with caplog.at_level("INFO", "geoemb_xr"):
        gx.open(path)
        assert "1 blocks could not be read" in caplog.text
        years.isel(time=[1]).emb.to_zarr(path, mode="r+")
        caplog.clear()
        np.testing.assert_array_equal(gx.open(path, decode=False).values, years.values)
        assert "could not be read" not in caplog.text


def test_a_run_that_was_interrupted_goes_on_and_keeps_its_list(years, tmp_path, interrupted, monkeypatch):
    """What was given up before is not asked for again."""
    asked, give_up = [], WriteJob.give_up

    def read(block, block_id=None):
        asked.append(block_id)
        if block_id == (0, 0, 0, 0):
            raise SourceError("gone")
        return block

    def give_up_and_stop(*args):
        give_up(*args)
        raise interrupted

    data = da.map_blocks(read, years.data, dtype="int8", meta=years.data._meta, name="read-of-this-test")
    array = years.copy(data=data)
    monkeypatch.setattr(WriteJob, "give_up", give_up_and_stop)
    with pytest.raises(interrupted):
        gx.to_zarr(array, tmp_path / "a.zarr", errors="missing")
    monkeypatch.undo()
    asked.clear()
    path = gx.to_zarr(array, tmp_path / "a.zarr", errors="missing")
    assert (0, 0, 0, 0) not in asked
    assert len(zarr.open_group(path, mode="r").attrs[UNREAD]) == 1
    assert (gx.open(path, decode=False).values[0, :, :16, :16] == -128).all()
    np.testing.assert_array_equal(gx.open(path, decode=False).values[1], years.values[1])


@pytest.mark.parametrize(("options", "message"), [({"mode": "r+"}, "not for mode='r\\+'"), ({}, "errors")])
def test_options_without_sense_are_refused(years, options, message, tmp_path):
    path = gx.to_zarr(years, tmp_path / "a.zarr")
    errors = "missing" if options else "skip"
    with pytest.raises((EmbeddingError, ValueError), match=message):
        gx.to_zarr(years, path, errors=errors, **options)


def test_marks_of_written_blocks_are_listed_not_asked_for_one_by_one(years, tmp_path):
    with ObjectServer(tmp_path, writable=True) as server:
        storage = {
            **dict.fromkeys(("access_key_id", "secret_access_key"), "x"),
            "endpoint": server.url,
            "allow_http": True,
            "virtual_hosted_style_request": False,
        }
        unreadable(years, LOST).emb.to_zarr("s3://b/a.zarr", errors="missing", storage=storage)
        assert server.count("*marks.zarr/*/c/*") == 0
        assert server.count("b", "GET") < 60
