"""Blocks on their way to a file: kept when a run is killed, held against a second writer."""

import signal
import subprocess
import sys
import textwrap

import dask.array as da
import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr.core import errors
from geoemb_xr.writing import staging


def test_lay_out_shifts_a_ragged_first_block_onto_the_grid():
    data, layout = staging.lay_out(da.zeros((12, 7), chunks=((3, 4, 4, 1), (7,))))
    assert data.chunks == ((3, 4, 4, 1), (7,))
    assert layout == staging.Layout((4, 7), (1, 0))
    data, layout = staging.lay_out(da.zeros(10, chunks=((2, 1, 4, 3),)))
    assert data.chunks == ((4, 4, 2),)
    assert layout == staging.Layout((4,), (0,))


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
    assert (
        36 - 25 <= resumed.stdout.count("block") <= 36 - 25 + 4
    )  # those that were being written are done again
    cover = gx.testing.scene().truth(gx.testing.geobox((300, 300)), 2018)
    np.testing.assert_array_equal(gx.open(tmp_path / name).values, cover.values)
