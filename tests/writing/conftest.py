"""Arrays to write, and arrays that count how often they are computed."""

import threading

import dask.array as da
import pytest

import geoemb_xr as gx


@pytest.fixture
def codes():
    return gx.testing.synthetic(
        "alphaearth", shape=(60, 50), years=[2018, 2020], missing=True, decode=False, chunks=25
    )


@pytest.fixture
def cover():
    return gx.testing.scene().truth(gx.testing.geobox((700, 600)), 2018)


class Interrupted(RuntimeError):
    """Stands for whatever ends a run."""


@pytest.fixture
def interrupted():
    return Interrupted


@pytest.fixture
def counting():
    """The array through a function that counts its blocks, and fails at one."""

    def counted(array, fail_at=None):
        state = {"n": 0, "lock": threading.Lock()}

        def touch(block):
            with state["lock"]:
                state["n"] += 1
                if fail_at is not None and state["n"] == fail_at:
                    raise Interrupted
            return block

        data = da.map_blocks(
            touch, array.data, dtype=array.dtype, meta=array.data._meta, name=f"touch-{array.data.name}"
        )
        return array.copy(data=data), state

    return counted
