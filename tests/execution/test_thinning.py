"""Maps of every n-th pixel, made of those pixels alone."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr.core import arrays
from geoemb_xr.execution import thinning
from geoemb_xr.execution.thinning import pick

SEEN = []


def longest(block, axis):
    """A function of vectors that says how many pixels it saw."""
    SEEN.append(block.size // block.shape[axis])
    return np.abs(block).max(axis=axis)


@pytest.fixture(scope="module")
def da():
    made = gx.testing.synthetic("alphaearth", shape=(60, 50), years=[2018, 2024], decode=False)
    return made.chunk(y=20, x=25)


def made_of(da, name):
    one = da.emb.year(2024)
    if name == "probe":
        points = gx.testing.scene().points(80, year=2024, radius=400)
        return one.emb.predict(one.emb.fit_probe(points, target="land_cover", cv=0))
    if name == "colours":
        return one.emb.rgb(one.emb.fit_pca(3))
    if name == "similarity":
        return one.emb.similarity(one[:, 5, 5].emb.decode().values)
    if name == "decoded":
        return da.emb.decode()
    if name == "by a user":
        return da.emb.change(2018, 2024) * 2 + 1
    return da.emb.change(2018, 2024)


NAMES = ["change", "similarity", "colours", "probe", "decoded", "by a user"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_picked_is_what_indexing_gives(da, name):
    whole = made_of(da, name)
    for cuts in (
        {"y": slice(2, None, 5), "x": slice(2, None, 5)},
        {"y": slice(24, 31, 3), "x": slice(7, 9)},  # blocks that keep nothing
        {"y": slice(50, None, 70), "x": slice(0, None, 49)},  # steps wider than blocks
    ):
        found, expected = pick(whole, cuts), whole.isel(cuts)
        assert found.chunks is not None
        xr.testing.assert_allclose(found.compute(), expected.compute(), rtol=1e-6, atol=1e-6)
        assert found.dtype == expected.dtype
        assert found.attrs == expected.attrs


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=5),
    st.integers(0, 25),
    st.integers(0, 25),
    st.integers(1, 9),
)
def test_kept_pixels_are_those_of_the_slice(chunks, start, stop, step):
    numbers, cut = np.arange(sum(chunks)), slice(start, stop, step)
    blocks = np.split(numbers, np.cumsum(chunks)[:-1])
    kept = thinning._kept(tuple(chunks), cut)
    found = [each for n, own in kept.items() for each in blocks[n][own].tolist()]
    assert found == numbers[cut].tolist()
    assert all(blocks[n][own].size for n, own in kept.items())


def test_functions_see_the_picked_pixels_alone(da):
    SEEN.clear()
    lengths = arrays.map_bands(longest, da, dtype=np.float32)
    pick(lengths, {"y": slice(2, None, 5), "x": slice(2, None, 5)}).compute()
    assert sum(SEEN) == 2 * 12 * 10
    SEEN.clear()
    pick(lengths, {"y": slice(0, 10), "x": slice(0, 10)}).compute()
    assert sum(SEEN) == 2 * 100


def test_blocks_that_are_smaller_have_names_of_their_own(da):
    whole = made_of(da, "change")
    found = [pick(whole, {"y": slice(2, None, n), "x": slice(2, None, n)}) for n in (5, 6)]
    smaller, others, all_of_it = (
        {key for key in each.data.dask if isinstance(key, tuple) and "change" in key[0]}
        for each in (*found, whole)
    )
    assert smaller
    assert others
    assert not smaller & others
    assert not (smaller | others) & all_of_it


def test_what_looks_around_is_computed_as_it_is(da):
    blurred = made_of(da, "change").rolling(y=3, x=3, center=True).mean()
    cuts = {"y": slice(2, None, 5), "x": slice(2, None, 5)}
    xr.testing.assert_identical(pick(blurred, cuts).compute(), blurred.isel(cuts).compute())
    coarse = da.emb.decode().emb.coarsen(2)
    xr.testing.assert_identical(pick(coarse, cuts).compute(), coarse.isel(cuts).compute())


def test_a_picture_of_a_change_compares_the_shown_pixels_alone(da, monkeypatch):
    import matplotlib

    matplotlib.use("agg")
    sizes = []
    real = thinning._sliced_first
    monkeypatch.setattr(thinning, "_sliced_first", lambda *given: sizes.append(given) or real(*given))
    ax = made_of(da, "change").emb.plot(pixels=10)
    assert len(sizes) == 1
    assert ax.images[0].get_array().shape == (10, 8)
