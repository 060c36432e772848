"""Blocks on their way to a file: kept when a run is killed, held against a second writer, at exactly one path."""

import contextlib
import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core import errors
from geoemb_xr.core.errors import SourceError
from geoemb_xr.writing import locking, staging
from geoemb_xr.writing.locking import only_writer


def test_lay_out_shifts_a_ragged_first_block_onto_the_grid():
    data, layout = staging.lay_out(da.zeros((12, 7), chunks=((3, 4, 4, 1), (7,))))
    assert data.chunks == ((3, 4, 4, 1), (7,))
    assert layout == staging.ChunkGrid((4, 7), (1, 0))
    data, layout = staging.lay_out(da.zeros(10, chunks=((2, 1, 4, 3),)))
    assert data.chunks == ((4, 4, 2),)
    assert layout == staging.ChunkGrid((4,), (0,))


@pytest.mark.parametrize("moment", ["computing", "writing"])
def test_nothing_is_written_after_a_call_that_failed(moment, tmp_path, interrupted):
    """While one block fails, another is computed, or written: the first is given up, the second waited for."""
    there, go_on, written = threading.Event(), threading.Event(), []

    class Target:
        def __setitem__(self, window, block):
            there.set()
            go_on.wait(0.2 if moment == "writing" else 10)
            written.append(block)

    def compute(block, block_id=None):
        if block_id == (0,):
            assert there.wait(10)
            raise interrupted
        if moment == "computing":
            there.set()
            assert go_on.wait(10)
        return block

    data = da.map_blocks(compute, da.zeros(2, chunks=1), dtype=float, meta=np.empty(0))
    marks = staging.require_marks(staging.open_stage(tmp_path / "part", ["a"]), "done", data)
    with ThreadPoolExecutor(2) as pool:
        with dask.config.set(pool=pool), pytest.raises(interrupted):
            staging.write_blocks([staging.WriteJob(data, Target(), marks, (0,))])
        at_once = len(written)
        go_on.set()
    assert len(written) == at_once == marks[...].sum() == (moment == "writing")


# --- a path is a path ---------------------------------------------------------------------------------------


@pytest.fixture
def small():
    return gx.testing.scene().truth(gx.testing.geobox((8, 6)), 2018)


@pytest.fixture
def vectors():
    x = np.arange(5.0)
    return gx.wrap(np.eye(5, 64, dtype="f4"), "alphaearth", x=x, y=x, version="v1")


LETTERS = "run#2 100%20?[1]&=;"


@pytest.mark.parametrize("ending", ["zarr", "tif", "parquet"])
@pytest.mark.parametrize("as_url", [False, True])
def test_letters_of_a_path_are_letters(ending, as_url, small, vectors, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious.txt").write_text("keep me")
    folder = tmp_path / LETTERS
    folder.mkdir()
    array = vectors if ending == "parquet" else small
    method = {"zarr": "to_zarr", "tif": "to_cog", "parquet": "to_geoparquet"}[ending]
    target = folder / f"{LETTERS}.{ending}"
    given = "file://" + str(target).replace("%", "%25") if as_url else target
    assert getattr(array.emb, method)(given) == target
    assert {p.name for p in tmp_path.iterdir()} == {"run", LETTERS}
    assert {p.suffix for p in folder.iterdir()} == {".tif", ".qml"} if ending == "tif" else {f".{ending}"}
    assert (tmp_path / "run" / "precious.txt").exists()
    np.testing.assert_array_equal(gx.open(target).values, array.values)


@pytest.mark.parametrize("method", ["to_zarr", "to_cog", "to_geoparquet"])
def test_what_is_not_on_this_machine_is_refused(method, small, vectors):
    array = vectors if method == "to_geoparquet" else small
    with pytest.raises(SourceError, match="write to a folder, local or mounted"):
        getattr(array.emb, method)("file://elsewhere/a")


# --- one writer a target ------------------------------------------------------------------------------------


def test_a_second_writer_is_told_who_is_first(small, tmp_path):
    target = tmp_path / "a.tif"
    with only_writer(target):
        said = json.loads((tmp_path / "a.tif.lock").read_text())
        assert said["process"] == os.getpid()
        with pytest.raises(SourceError, match=f"is being written by process {os.getpid()} on .* since 2"):
            small.emb.to_cog(target, mode="w")
    assert not list(tmp_path.iterdir())
    small.emb.to_cog(target)


def test_the_lock_of_a_writer_that_was_killed_holds_nothing(tmp_path):
    def hold():
        with only_writer(tmp_path / "a.zarr"):
            time.sleep(60)

    other = multiprocessing.get_context("fork").Process(target=hold)
    other.start()
    lock = tmp_path / "a.zarr.lock"
    while not lock.exists() or not lock.read_text():
        time.sleep(0.01)
    with pytest.raises(SourceError, match=f"process {other.pid} "), only_writer(tmp_path / "a.zarr"):
        pass
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    assert lock.exists()
    with only_writer(tmp_path / "a.zarr"):
        pass
    assert not lock.exists()


def test_parts_that_meet_are_not_written_at_the_same_time(tmp_path):
    target = tmp_path / "a.zarr"
    with only_writer(target, {"y": [0, 1], "x": [0]}, key="0" * 8):
        with only_writer(target, {"y": [0, 1], "x": [1]}, key="1" * 8):
            pass
        with pytest.raises(SourceError), only_writer(target, {"y": [1], "x": [0, 1]}, key="2" * 8):
            pass
        with pytest.raises(SourceError), only_writer(target):  # all of it
            pass
    with only_writer(target), pytest.raises(SourceError), only_writer(target, {"y": [0]}, key="1" * 8):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_is_being_looked_at_is_not_held(tmp_path, monkeypatch):
    """Another writer, to see whether a lock is held, takes it for a moment."""
    tries = []
    lock = locking._lock
    monkeypatch.setattr(locking, "_lock", lambda file: (len(tries) > 2 and lock(file)) or tries.append(1))
    with only_writer(tmp_path / "a.zarr"):
        assert len(tries) == 3


# --- killed -------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a signal."""


def killed_at(line, work):
    """Run something until so many lines of the writers are done; returns how many there are."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        file = frame.f_code.co_filename
        # what a killed process had locked is let go by the system, but this one lives on
        if "/geoemb_xr/writing/" not in file or file.endswith("locking.py"):
            return None
        if event == "line":
            count += 1
            if count == line:
                raise Killed
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except Killed:
        pass
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("how", ["w", "a", "r+"])
@pytest.mark.parametrize("points", [3, pytest.param(100, marks=pytest.mark.complete)])
def test_a_store_is_whole_after_the_same_call_wherever_it_was_killed(how, points, small, tmp_path):
    old = small.expand_dims("time").chunk(y=4)
    new = (7 - old).astype("u1").assign_attrs(old.attrs)
    later = new.assign_coords(time=[np.datetime64("2020-01-01", "ns")])
    written = later if how == "a" else new

    def write():
        path = tmp_path / "a.zarr"
        with dask.config.set(scheduler="synchronous"):
            return written.emb.to_zarr(path, mode=how)

    def afresh():
        return old.emb.to_zarr(tmp_path / "a.zarr", mode="w")

    afresh()
    lines = killed_at(-1, write)
    for line in range(1, lines, max(lines // points, 1)):
        afresh()
        killed_at(line, write)
        if (tmp_path / "a.zarr").exists() and how == "a":
            np.testing.assert_array_equal(gx.open(tmp_path / "a.zarr")[:1].values, old.values)
        # an append that was done, but for what is swept up, is refused: its times are there
        with contextlib.suppress(errors.EmbeddingError) if how == "a" else contextlib.nullcontext():
            write()
        back = gx.open(tmp_path / "a.zarr")
        times = [old, later] if how == "a" else [new]
        xr.testing.assert_equal(back.drop_attrs(), xr.concat(times, "time").compute().drop_attrs())
        left = {p.name for p in tmp_path.iterdir()} - {"a.zarr"}
        assert not left or how == "a", (line, left)


def test_a_store_that_was_replaced_by_a_run_killed_while_it_swept_up_is_no_obstacle(
    small, tmp_path, monkeypatch
):
    def write(values):
        return small.copy(data=values).chunk(y=4).emb.to_zarr(tmp_path / "a.zarr", mode="w")

    def kill(*_):
        raise Killed

    write(small.values)
    with monkeypatch.context() as patched:
        patched.setattr("geoemb_xr.writing.zarr.discard", kill)
        with pytest.raises(Killed):
            write(small.values)
    np.testing.assert_array_equal(gx.open(write(small.values)).values, small.values)
    assert {p.name for p in tmp_path.iterdir()} == {"a.zarr"}


@pytest.mark.parametrize("method", ["to_cog", "to_geoparquet"])
@pytest.mark.parametrize("points", [3, pytest.param(100, marks=pytest.mark.complete)])
def test_a_file_is_absent_or_whole_wherever_its_writer_was_killed(method, points, small, vectors, tmp_path):
    written = (small.chunk(y=4) if method == "to_cog" else vectors.chunk(location=2)).assign_attrs(kept="yes")

    def write():
        with dask.config.set(scheduler="synchronous"):
            return getattr(written.emb, method)(path, mode="w")

    def is_whole():
        np.testing.assert_array_equal(np.sort(gx.open(path).values, None), np.sort(written.values, None))

    path = tmp_path / ("out.tif" if method == "to_cog" else "out.parquet")
    lines = killed_at(-1, write)
    for line in np.sort(np.random.default_rng(points).choice(np.arange(1, lines), points)).tolist():
        path.unlink()
        killed_at(line, write)
        if path.exists():
            is_whole()
        write()
        is_whole()
        assert {p.name for p in tmp_path.iterdir()} <= {path.name, "out.qml"}, line  # colours for QGIS


KILLED = """
import os, sys, threading, signal
import dask
import dask.array as da
import geoemb_xr as gx

lock, count = threading.Lock(), [0]

def touch(block):
    with lock:
        count[0] += 1
        if count[0] == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
    print("block", flush=True)
    return block

cover = gx.testing.scene().truth(gx.testing.geobox((300, 300)), 2018).chunk(y=50, x=50)
data = da.map_blocks(touch, cover.data, dtype="u1", meta=cover.data._meta, name="same")
getattr(cover.copy(data=data).emb, sys.argv[1])(sys.argv[3])
"""


@pytest.mark.complete
@pytest.mark.parametrize(("method", "name"), [("to_cog", "a.tif"), ("to_zarr", "a.zarr")])
def test_a_killed_process_is_resumed_by_another(method, name, tmp_path):
    def run(kill_at):
        command = [sys.executable, "-c", textwrap.dedent(KILLED), method, str(kill_at), str(tmp_path / name)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    killed = run(25)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / name).exists()
    with pytest.raises(errors.SourceError, match="was never finished"):
        gx.open(tmp_path / name)
    resumed = run(-1)
    assert resumed.returncode == 0, resumed.stderr
    # those that were being written are done again
    assert 36 - 25 <= resumed.stdout.count("block") <= 36 - 25 + 4
    cover = gx.testing.scene().truth(gx.testing.geobox((300, 300)), 2018)
    np.testing.assert_array_equal(gx.open(tmp_path / name).values, cover.values)


# --- a full disk --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["to_zarr", "to_cog", "to_geoparquet"])
def test_a_full_disk_is_an_error_and_leaves_no_target(method, tmp_path):
    """A limit of the size of files stands for the disk: GDAL, Zarr and Arrow meet it at the same calls."""
    resource = pytest.importorskip("resource", reason="limits of the size of files are POSIX's")
    rng = np.random.default_rng(0)
    if method == "to_geoparquet":
        x = np.linspace(0, 80, 4000)
        array = gx.wrap(rng.normal(size=(4000, 64)).astype("f4"), "alphaearth", x=x, y=x, version="v1")
        array = array.chunk(location=1000)
    else:
        grid = gx.testing.geobox((600, 600))
        array = gx.testing.scene().truth(grid, 2018).drop_attrs(deep=False)
        array = array.copy(data=rng.normal(size=array.shape).astype("f4")).chunk(y=300)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises((OSError, SourceError)):
            getattr(array.emb, method)(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {p.name for p in tmp_path.iterdir()} <= {"out.part"}
    assert getattr(array.emb, method)(tmp_path / "out").exists()


@pytest.mark.parametrize("kept", [True, False])
def test_a_full_disk_is_named_with_what_is_kept(kept, tmp_path):
    target = tmp_path / "map.tif"
    if kept:
        staging.part_of(target).mkdir()
    then = "goes on with what is finished in .*map.tif.part" if kept else "nothing of it is kept"
    said = f"no room left to write .*map.tif.* MB are free in .*{then}"
    with pytest.raises(OSError, match=said) as full, only_writer(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert full.value.errno == errno.ENOSPC
    with pytest.raises(PermissionError, match="not yours"), only_writer(target):
        raise PermissionError(errno.EACCES, "not yours")
