"""What makes values unsound: broken scales and seams between tiles."""

import numpy as np
import pytest

import geoemb_xr as gx


@pytest.fixture(scope="module")
def tessera():
    return gx.testing.synthetic("tessera", shape=(120, 100)).emb.year(2018).load()


def test_sound_arrays_are_sound(tessera):
    for array in (tessera, tessera.chunk(y=40, x=40), gx.testing.synthetic("alphaearth", shape=(64, 64))):
        found = array.emb.check()
        assert found["ok"], found["problems"]
        assert found["outliers"] == 0
        assert found["seams"] == []


def test_broken_scales_are_outliers(tessera):
    """A published tile has scales that give −161,685 where its neighbours are −10 to 41."""
    broken = tessera.copy()
    broken[:, 7, 9:12] *= 4_000
    for array in (broken, broken.chunk(y=40), broken.transpose("y", "x", "band")):
        found = array.emb.check()
        assert found["outliers"] == 3
        assert not found["ok"]
        assert "3 pixels have 16 times the median norm or more" in found["problems"][0]


def test_a_seam_between_tiles_is_found_where_it_is(tessera):
    other = tessera.copy()
    shift = np.random.default_rng(0).normal(0, 1.5, (128, 1, 1)).astype("f4")
    other[:, 40:] += shift
    for array in (other, other.chunk(y=40, x=50), other.chunk(y=40)[:, ::-1]):
        found = array.emb.check()
        (dim, row, ratio), *rest = found["seams"]
        assert (dim, row) == ("y", 40 if array.indexes["y"].equals(other.indexes["y"]) else 80)
        assert ratio > 2
        assert not rest
        assert "1 seams" in found["problems"][-1]
    assert other.chunk(y=60).emb.check()["seams"] == []  # no two blocks meet there
