"""The scenes that examples are made of."""

import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr import testing

GRID = testing.geobox((64, 64), offset=(-600.0, 300.0))


def test_the_lifelike_scene_has_holes_and_noise_and_the_same_landscape():
    clear = testing.synthetic("alphaearth", grid=GRID, years=[2018, 2024])
    with testing.showing("lifelike") as lifelike:
        real = testing.synthetic("alphaearth", grid=GRID, years=[2018, 2024])
        assert testing.scene() is lifelike
    assert testing.scene() is testing.scene("clear")
    truth = testing.scene().truth(GRID, 2018)
    np.testing.assert_array_equal(lifelike.truth(GRID, 2018), truth)
    assert not np.isnan(clear).any()
    there = real.notnull().all("band")
    assert (there == real.notnull().any("band")).all()
    assert 0.9 < there.mean() < 1
    quiet = truth.values == testing.scene("lifelike").truth(GRID, 2024).values
    angles = [each.emb.change(2018, 2024).values[quiet] for each in (clear, real)]
    assert np.median(angles[0]) < 5 < 8 < np.nanmedian(angles[1]) < 12
    norms = np.sqrt((real**2).sum("band", skipna=False))
    np.testing.assert_allclose(norms.values[there.values], 1, atol=0.01)
    assert clear.attrs == real.attrs


def test_pixels_at_edges_are_mixed():
    mixed = testing.Scene(noise=0, blur=7.0)
    sharp = testing.Scene(noise=0)
    lon, lat = testing.lonlat_of(GRID)
    turned = (mixed.vectors(lon, lat, 2018, 64) * sharp.vectors(lon, lat, 2018, 64)).sum(axis=0)
    classes = sharp.classes(lon, lat, 2018)
    inner = np.ones(classes.shape, bool)
    for axis in (0, 1):
        for step in (1, -1):
            inner &= classes == np.roll(classes, step, axis)
    inner[[0, -1]] = inner[:, [0, -1]] = False
    assert turned[inner].min() > 0.999
    assert turned[~inner].min() < 0.9


def test_examples_of_both_scenes_are_kept_apart(tmp_path):
    clear, lifelike = (
        gx.open("alphaearth", gx.example("alphaearth", scene=name), time=2024, decode=False).emb.year(2024)
        for name in ("clear", "lifelike")
    )
    assert (clear == -128).sum() == 0
    assert 0 < (lifelike == -128).mean() < 0.1
    with pytest.raises(ValueError, match="scene='hard' is not known; valid are 'clear', 'lifelike'"):
        gx.example("alphaearth", scene="hard")
    assert testing.scene() is testing.scene("clear")
