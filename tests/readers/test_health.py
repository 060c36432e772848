"""What makes values unsound: broken scales and seams between tiles."""

import numpy as np
import pandas as pd
import pytest

import geoemb_xr as gx
from geoemb_xr.core import areas


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


def test_a_published_tile_without_data_is_lost(tessera):
    """Of three tiles side by side the middle one was not fetched; another year's is not asked for."""
    columns = ["url", "year", "west", "south", "east", "north"]
    west, south, east, north = areas.area_of(tessera.emb.geobox).lonlat()[0]
    width = (east - west) / 3
    rows = [(f"t{i}.tif", 2018, west + i * width, south, west + (i + 1) * width, north) for i in range(3)]
    published = pd.DataFrame([*rows, ("old.tif", 2017, *rows[1][2:])], columns=columns)
    gap = tessera.copy()
    gap[:, :, 33:67] = np.nan
    for array in (gap, gap.chunk(y=40), gap[:, ::-1], gap.transpose("y", "x", "band")):
        found = array.emb.check(coverage=published)
        assert found["lost"] == [("t1.tif", 2018)]
        assert "1 of 3 tiles that are published here have no data: t1.tif of 2018" in found["problems"][-1]
    assert tessera.emb.check(coverage=published)["lost"] == []
    assert gap.isel(x=slice(0, 10)).emb.check(coverage=published)["lost"] == []  # does not lie there
    two = gx.testing.synthetic("tessera", shape=(24, 24), years=[2018, 2024]).load()
    box = areas.area_of(two.emb.geobox).lonlat()[0]
    two[1] = np.nan
    listed = pd.DataFrame([("a", 2018, *box), ("a", 2024, *box)], columns=columns)
    assert two.emb.check(coverage=listed)["lost"] == [("a", 2024)]
    with pytest.raises(gx.EmbeddingError, match="lacks west"):
        gap.emb.check(coverage=pd.DataFrame({"url": ["a"], "year": [2018]}))


def test_what_a_product_lists_is_there():
    source = gx.example("alphaearth")
    array = gx.open("alphaearth", source)
    found = array.emb.check(coverage=gx.coverage("alphaearth", source))
    assert found["lost"] == []
    gone = array.where(array.time.dt.year != int(array.time.dt.year[0]))
    assert len(gone.emb.check(coverage=gx.coverage("alphaearth", source))["lost"]) > 0
