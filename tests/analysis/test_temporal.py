"""Aggregates and change, against float64 references, pandas, and the scene's known changes."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr.analysis import pieces, steps, year_kernels
from geoemb_xr.core import errors
from geoemb_xr.core.codecs import SIGNED_SQUARE
from geoemb_xr.execution.blocks import Block
from geoemb_xr.testing import assert_lazy_identical

YEARS = [2018, 2019, 2021, 2022, 2024]
#: Years in which the scene's truth changes here and there.
CHANGING = list(range(2017, 2025))


def scene(product="alphaearth", shape=(15, 13), years=YEARS, **options):
    """A few years with a hole in one of them, and a pixel that no year has."""
    da = gx.testing.synthetic(product, shape=shape, years=years, **options).copy()
    if "codec" not in da.attrs and len(years) > 1:
        da[1, :, 3:9, 4:8] = np.nan
        da[:, :, 0, 0] = np.nan
    return da


def valid(da):
    return np.isfinite(da.values).all(axis=1)


# --- aggregate ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
def test_mean_is_the_float64_mean_on_the_sphere(product):
    da = scene(product)
    there = valid(da)[:, None]
    total = np.where(there, da.values.astype(np.float64), 0).sum(axis=0)
    expected = total / np.where(there.sum(axis=0) > 0, there.sum(axis=0), np.nan)
    if product == "alphaearth":
        expected /= np.linalg.norm(expected, axis=0)
    mean = da.emb.aggregate()
    np.testing.assert_allclose(mean.values, expected.astype(np.float32), rtol=2e-7, atol=1e-9)
    assert mean.attrs == da.attrs
    assert np.isnan(mean.values[:, 0, 0]).all()


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("how", ["mean", "median", "min", "max", "std"])
@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
def test_chunks_and_order_never_change_an_aggregate(product, how, decode):
    da = scene(product, decode=decode)
    assert_lazy_identical(lambda a: a.emb.aggregate(how), da)


def test_extras_are_chunk_invariant_too():
    da = scene()
    for name in ("embedding", "resultant_length", "count"):
        assert_lazy_identical(lambda a, n=name: a.emb.aggregate(resultant_length=True, count=True)[n], da)


def test_resultant_length_and_count():
    da = scene()
    found = da.chunk(y=10).emb.aggregate(resultant_length=True, count=True).compute()
    there = valid(da)
    np.testing.assert_array_equal(found["count"].values, there.sum(axis=0))
    assert found["count"].dtype == np.uint16
    vectors = np.where(there[:, None], da.values.astype(np.float64), 0)
    longest = np.linalg.norm(vectors, axis=1).sum(axis=0)
    with np.errstate(invalid="ignore"):
        expected = np.linalg.norm(vectors.sum(axis=0), axis=0) / longest
    np.testing.assert_allclose(found.resultant_length.values, expected, rtol=1e-6)
    assert found.embedding.identical(da.emb.aggregate())
    assert "product" not in found.resultant_length.attrs


def test_one_year_is_itself_and_opposite_vectors_have_no_mean():
    da = scene(years=[2018])
    alone = da.emb.aggregate(resultant_length=True)
    np.testing.assert_allclose(alone.resultant_length.values, 1, atol=1e-6)
    product = gx.Product("opposed", dims=2, unit_norm=True)
    data = np.zeros((2, 2, 2, 2), np.float32)
    data[0, 0], data[1, 0] = 1, -1
    both = gx.wrap(data, product, geobox=gx.testing.geobox((2, 2)), time=[2018, 2019])
    found = both.emb.aggregate(resultant_length=True)
    assert np.isnan(found.embedding).all()
    assert (found.resultant_length == 0).all()


@pytest.mark.parametrize("how", ["median", "min", "max", "std"])
def test_component_statistics_are_numpys(how):
    da = scene("tessera")
    values = np.where(valid(da)[:, None], da.values.astype(np.float64), np.nan)[:, :, 1:]
    expected = {"median": np.nanmedian, "min": np.nanmin, "max": np.nanmax, "std": np.nanstd}[how](
        values, axis=0
    )
    found = da.emb.aggregate(how)
    np.testing.assert_allclose(found.values[:, 1:], expected, rtol=2e-6, atol=1e-5)
    version = da.attrs["version"]
    assert found.attrs["version"] == (version if how == "median" else f"{version} {how}")


@pytest.mark.parametrize("years", range(1, 7))
def test_medians_of_any_number_of_years_are_those_of_numpy(years):
    rng = np.random.default_rng(years)
    stack = rng.integers(-3, 4, (years, 6, 5, 10)).astype(np.float32)  # ties
    stack[:, 0] = np.where(rng.random((years, 5, 10)) < 0.3, np.inf, 1.0)
    times = pd.to_datetime([f"{2000 + year}" for year in range(years)])
    da = gx.wrap(stack, gx.Product("ties", dims=6), geobox=gx.testing.geobox((5, 10)), time=times)
    found = da.emb.aggregate("median", count=True)
    there = np.isfinite(stack).all(axis=1)
    np.testing.assert_array_equal(found["count"], there.sum(axis=0))
    known = np.where(there[:, None], stack, np.nan)
    some = there.any(axis=0)
    np.testing.assert_array_equal(found.embedding.values[:, some], np.nanmedian(known[:, :, some], axis=0))
    assert np.isnan(found.embedding.values[:, ~some]).all()


@pytest.mark.parametrize("count", range(1, 10))
def test_exchanges_sort_every_order_of_zeros_and_ones(count):
    """Which is enough: what sorts those sorts everything (Knuth, 5.3.4, theorem Z)."""
    lists = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1
    expected = np.sort(lists, axis=1)
    for one, other in year_kernels.exchanges(count):
        lists[:, [one, other]] = np.sort(lists[:, [one, other]], axis=1)
    np.testing.assert_array_equal(lists, expected)


def test_a_block_of_many_pieces_gives_what_single_pixels_give():
    """Pieces are whole, so that no pixel is rounded in another order; the last one holds what was there before."""
    da = scene(shape=(90, 71), years=[2018, 2019, 2021], decode=False)
    da[1, :, 20:40, 30:] = -128
    whole = da.emb.change_point().to_array()
    first = next(pieces.pieces([Block(year, 0, None, SIGNED_SQUARE) for year in da.values]))
    assert first.size < da[0, 0].size
    for row, column in [(0, 0), (30, 45), (89, 70), (88, 1)]:
        alone = da[:, :, row : row + 1, column : column + 1]
        assert alone.emb.change_point().to_array().identical(whole[:, row : row + 1, column : column + 1])
    rows, columns = slice(7, 60), slice(9, 50)
    window = da[:, :, rows, columns]  # whose rows do not follow each other in memory
    assert window.emb.change_point().to_array().identical(whole[:, rows, columns])
    vectors = da.emb.decode()
    whole = vectors.emb.aggregate("median")
    assert vectors[:, :, rows, columns].emb.aggregate("median").identical(whole[:, rows, columns])
    moved = vectors.emb.change(
        2018, 2021
    )  # which reads both years where they lie, those of a window in pieces
    assert vectors[:, :, rows, columns].emb.change(2018, 2021).identical(moved[rows, columns])


def test_what_is_no_vector_is_not_compared_with_vectors():
    da = scene()
    with pytest.raises(errors.ComparabilityError, match="synthetic std"):
        da.emb.aggregate("std").emb.pca(da.emb.fit_pca(3))


def test_median_of_unit_vectors_has_unit_length():
    lengths = np.linalg.norm(scene().emb.aggregate("median").values[:, 1:], axis=0)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)


@pytest.mark.parametrize("how", ["mean", "median", "min", "std"])
def test_skipna_false_wants_every_year(how):
    da = scene()
    missing = ~valid(da).all(axis=0)
    found = da.emb.aggregate(how, skipna=False)
    np.testing.assert_array_equal(np.isnan(found.values).all(axis=0), missing)
    np.testing.assert_array_equal(np.isnan(found.values).any(axis=0), missing)


def test_count_is_of_the_years_with_data_whatever_skipna():
    da = scene()
    for how in ("mean", "max", "median", "std"):
        counts = [da.emb.aggregate(how, skipna=skipna, count=True)["count"] for skipna in (True, False)]
        xr.testing.assert_identical(*counts)


def test_weights_repeat_years():
    da = scene()
    twice = gx.concat([da.isel(time=[0]), da.isel(time=[0]), da.isel(time=[2])], "time")
    twice["time"] = pd.to_datetime(["2018", "2019", "2021"])
    expected = twice.emb.aggregate()
    for weights in ({2018: 2, 2021: 1}, [2, 0, 1, 0, 0], xr.DataArray([2, 0, 1, 0, 0], dims="time")):
        np.testing.assert_allclose(da.emb.aggregate(weights=weights), expected, atol=1e-7)
    weighted = da.emb.aggregate("std", weights={2018: 2, 2021: 1})
    np.testing.assert_allclose(weighted, twice.emb.aggregate("std"), atol=1e-7)


def test_weights_and_groups_with_times_go_to_their_own():
    da = scene(shape=(2, 3))
    weights = xr.DataArray([2.0, 0, 1, 0, 0], {"time": da.time.values}, "time")
    np.testing.assert_array_equal(
        da.emb.aggregate(weights=weights[::-1]), da.emb.aggregate(weights={2018: 2, 2021: 1})
    )
    numbered = weights.assign_coords(time=da.time.dt.year)[::-1]
    np.testing.assert_array_equal(da.emb.aggregate(weights=numbered), da.emb.aggregate(weights=weights))
    by_year = pd.Series([1.0, 2.0], index=[2021, 2018])
    np.testing.assert_array_equal(
        da.emb.aggregate(weights=by_year), da.emb.aggregate(weights={2018: 2, 2021: 1})
    )
    named = xr.DataArray(np.array(["a", None, np.nan, "b", "b"], object), {"time": da.time.values}, "time")
    found = da.emb.aggregate(groups=named[[4, 2, 0, 1, 3]])
    assert found.group.values.tolist() == ["a", "b"]
    np.testing.assert_array_equal(found.sel(group="a"), da.isel(time=[0]).emb.aggregate())


def test_groups_and_freq_agree_with_single_means():
    da = scene()
    groups = da.emb.aggregate(groups={2018: "before", 2019: "before", 2024: "after"})
    assert groups.dims == ("group", "band", "y", "x")
    before = da.isel(time=[0, 1]).emb.aggregate()
    np.testing.assert_array_equal(groups.sel(group="before"), before)
    listed = da.emb.aggregate(groups=["a", "a", "b", "b", "b"])
    np.testing.assert_array_equal(listed.sel(group="a"), before)
    by_freq = da.emb.aggregate(freq="2YE")
    assert by_freq.dims == da.dims
    assert by_freq.time.dt.year.values.tolist() == [2018, 2021, 2022, 2024]
    np.testing.assert_array_equal(by_freq.isel(time=0), before)
    assert_lazy_identical(lambda a: a.emb.aggregate(freq="3YS"), da)


def test_bins_are_pandas_bins_closed_on_the_left():
    years = list(range(2017, 2025))
    da = scene(years=years, shape=(2, 3))
    for freq in ("5YE", "3YS", "YE", "2YS"):
        series = pd.Series(years, index=pd.to_datetime([str(y) for y in years]))
        expected = series.resample(freq, closed="left", label="left").min().dropna().astype(int).tolist()
        assert da.emb.aggregate(freq=freq).time.dt.year.values.tolist() == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"how": "mode"}, "how='mode' is not known"),
        ({"freq": "5YE", "groups": [1] * 5}, "freq= or groups="),
        ({"freq": "fortnightly"}, "not a pandas alias"),
        ({"groups": [1, 2]}, "2 values for 5 periods"),
        ({"groups": {}}, "a label to none of the 5 periods"),
        ({"groups": [np.nan] * 5}, "a label to none of the 5 periods"),
        (
            {"weights": xr.DataArray(np.ones(5), {"time": pd.date_range("1999", periods=5)}, "time")},
            "are not those",
        ),
        ({"weights": [1, 2]}, "2 values for 5 periods"),
        ({"weights": [1, 1, 1, 1, -1]}, "negative"),
        ({"weights": [np.inf] * 5}, "infinite"),
        ({"how": "max", "weights": [1] * 5}, "for how='mean' or 'std'"),
        ({"how": "std", "resultant_length": True}, "goes with how='mean'"),
    ],
)
def test_wrong_options_say_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        scene(shape=(3, 3)).emb.aggregate(**options)


def test_arrays_without_time():
    da = scene(shape=(3, 3)).isel(time=0)
    for call in (da.emb.aggregate, da.emb.change_point, lambda: da.emb.change(2018, 2019)):
        with pytest.raises(errors.EmbeddingError, match=r"needs a 'time' dimension.*several years"):
            call()


@pytest.mark.parametrize("decode", [True, False])
def test_arrays_without_a_period(decode):
    da = scene(shape=(3, 3), decode=decode).isel(time=[])
    for call in (da.emb.aggregate, da.emb.change_point, lambda: da.emb.change(2018, 2019)):
        with pytest.raises(errors.EmbeddingError, match="needs one period or more; got none"):
            call()


# --- change ---------------------------------------------------------------------------------------------------


def reference(da, a, b, metric):
    one, other = (da.sel(time=str(y)).isel(time=0).values.astype(np.float64) for y in (a, b))
    if metric == "euclidean":
        return np.linalg.norm(one - other, axis=0)
    one, other = one / np.linalg.norm(one, axis=0), other / np.linalg.norm(other, axis=0)
    if metric == "cosine":
        return (one * other).sum(axis=0)
    return np.degrees(
        2 * np.arctan2(np.linalg.norm(one - other, axis=0), np.linalg.norm(one + other, axis=0))
    )


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("metric", ["angle", "cosine", "euclidean"])
@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
def test_change_is_the_float64_reference_whatever_the_chunks(product, metric, decode):
    da = scene(product, decode=decode)
    found = assert_lazy_identical(lambda a: a.emb.change(2018, 2021, metric=metric), da)
    expected = reference(da.emb.decode(), 2018, 2021, metric)
    np.testing.assert_allclose(found.values, expected, rtol=3e-6, atol=3e-6)
    assert found.dims == ("y", "x")
    assert not {"product", "codec"} & set(found.attrs)
    assert found.attrs["units"] == ("degree" if metric == "angle" else "1")


def test_codes_and_vectors_give_the_same_where_nothing_is_summed():
    codes = scene(decode=False)
    vectors = codes.emb.decode()
    for call in (
        lambda da: da.emb.change(2018, 2024, metric="euclidean"),
        *(lambda da, how=how: da.emb.aggregate(how) for how in ("min", "max", "median")),
    ):
        xr.testing.assert_identical(call(codes), call(vectors))
    for how in ("mean", "std"):  # of codes the sum is exact; a decoded vector is rounded
        np.testing.assert_allclose(codes.emb.aggregate(how), vectors.emb.aggregate(how), atol=1e-7)
    np.testing.assert_allclose(codes.emb.change_point().step, vectors.emb.change_point().step, rtol=1e-6)


@pytest.mark.parametrize("number", [1, 3, 12, 13])
def test_years_of_codes_are_added_as_whole_numbers_whatever_their_number(number):
    years = range(2000, 2000 + number)
    da = gx.testing.synthetic("alphaearth", shape=(2, 5), years=years, decode=False).load()
    da.values[:, :, 0, 0] = 127  # the largest sums
    da.values[:, 1::2, 0, 0] = -127
    da.values[::2, 3, 0, 1] = -128  # every other year is missing
    da.values[:, 3, 0, 2] = -128
    missing = (da.values == -128).any(axis=1, keepdims=True)
    whole = np.where(missing, 0, da.values.astype(np.int64) * abs(da.values.astype(np.int64)))
    count = (~missing).sum(axis=0)
    there = count > 0
    total, squares = whole.sum(axis=0), (whole**2).sum(axis=0)
    mean = total / np.where(there, np.sqrt((total**2).sum(axis=0)), np.nan)
    std = np.sqrt(count * squares - total**2) / np.where(there, count, np.nan) / 127.5**2
    tolerance = 2e-7 if number <= 12 else 1e-6
    np.testing.assert_allclose(da.emb.aggregate("mean"), mean, rtol=tolerance)
    np.testing.assert_allclose(
        da.emb.aggregate("std"), std, rtol=tolerance, atol=1e-12 if number <= 12 else 1e-8
    )
    for how in ("min", "max", "median"):
        xr.testing.assert_identical(da.emb.aggregate(how), da.emb.decode().emb.aggregate(how))


@pytest.mark.parametrize("bands", [64, 13])
def test_angles_of_codes_are_those_of_whole_numbers(bands):
    rng = np.random.default_rng(bands)
    codes = rng.integers(-127, 128, (2, bands, 4, 5), np.int8)
    codes[:, :, 0, 0] = [127], [-127]  # the largest sums of squares and products
    codes[:, :, 0, 1] = 127
    codes[1, :, 1] = codes[0, :, 1]
    codes[1, 3, 1] = -codes[1, 3, 1]
    da = gx.wrap(
        codes,
        gx.Product("squares", dims=bands, codec=SIGNED_SQUARE),
        geobox=gx.testing.geobox((4, 5)),
        time=[2018, 2019],
    )
    found = da.emb.change(2018, 2019).values
    whole = codes.astype(object) * abs(codes.astype(object))
    for place in np.ndindex(4, 5):
        a, b = (year[:, *place] for year in whole)
        across = (a @ a) * (b @ b) - (a @ b) ** 2
        exact = math.degrees(math.atan2(math.sqrt(across), a @ b))
        assert found[place] == pytest.approx(exact, rel=1e-7, abs=1e-12), place


def test_negative_scales_turn_vectors_round():
    da = scene("tessera", shape=(6, 5), years=[2018, 2019], decode=False)
    turned = da.assign_coords(scale=da.scale * xr.DataArray([1, -1], dims="time"))
    for metric in ("angle", "cosine"):
        found = turned.emb.change(2018, 2019, metric=metric)
        np.testing.assert_allclose(
            found, turned.emb.decode().emb.change(2018, 2019, metric=metric), atol=2e-6
        )


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_years_summed_where_they_lie_have_the_bits_of_pieces(count):
    values = scene(shape=(90, 61), years=range(2018, 2018 + count), decode=False).values.copy()
    values[1, :, 3, 5:9] = -128  # in the first row of pixels, and not in the second
    values[:, 7, 80, 3], values[:, :, 80, 4] = -128, 0
    blocks = [Block(each, 0, None, SIGNED_SQUARE) for each in values]
    assert steps._side_by_side(blocks) is not None
    found = [np.full((count - 1, 90 * 61), -1, np.float32) for _ in range(2)]
    ways = steps.steps(blocks, "angle"), steps._carried(blocks, slice(0, 90 * 61), "angle")
    for out, way in zip(found, ways, strict=True):
        for where, own in way:
            out[:, where] = own
    np.testing.assert_array_equal(*found)
    assert (found[0] > 0).mean() > 0.5
    assert np.isnan(found[0][0, 80 * 61 + 3])


def test_change_against_a_reference_year():
    da = scene()
    found = assert_lazy_identical(lambda a: a.emb.change(2019), da)
    assert found.time.dt.year.values.tolist() == [2018, 2021, 2022, 2024]
    np.testing.assert_array_equal(found.isel(time=1), da.emb.change(2019, 2021))


@given(st.floats(1e-4, 179.9), st.floats(0.01, 100.0), st.integers(0, 2**31))
def test_small_and_large_angles_are_exact(degrees, length, seed):
    rng = np.random.default_rng(seed)
    one, aside = np.linalg.qr(rng.standard_normal((64, 2)))[0].T
    angle = np.radians(degrees)
    data = np.stack([one, length * (np.cos(angle) * one + np.sin(angle) * aside)])
    data = np.broadcast_to(data[:, :, None, None], (2, 64, 2, 2)).astype(np.float32)
    da = gx.wrap(data, gx.Product("pair", dims=64), geobox=gx.testing.geobox((2, 2)), time=[2018, 2019])
    found = float(da.emb.change(2018, 2019)[0, 0])
    assert found == pytest.approx(degrees, rel=1e-5, abs=2e-5)


def test_a_vector_of_zeros_has_no_angle():
    data = np.ones((2, 4, 2, 2), np.float32)
    data[0, :, 0, 0] = 0
    da = gx.wrap(data, gx.Product("zeros", dims=4), geobox=gx.testing.geobox((2, 2)), time=[2018, 2019])
    assert np.isnan(da.emb.change(2018, 2019)[0, 0])
    assert da.emb.change(2018, 2019)[1, 1] == 0


@pytest.fixture(scope="module")
def known_changes():
    """The scene around an event, and where and when its truth changes."""
    grid = gx.testing.geobox((160, 150), offset=(-300.0, 100.0))
    codes = gx.testing.synthetic("alphaearth", grid=grid, years=CHANGING, decode=False)
    return codes, gx.testing.scene().truth(grid, CHANGING).values


def test_every_known_change_is_found_and_nothing_else(known_changes):
    codes, truth = known_changes
    angle = codes.chunk(y=77, x=61).emb.change(2017, 2024).values
    changed = truth[0] != truth[-1]
    assert changed.sum() > 300
    assert angle[changed].min() > 30
    assert angle[~changed].max() < 8


def test_change_point_names_the_year(known_changes):
    codes, truth = known_changes
    found = codes.chunk(y=77, x=61, time=3).emb.change_point().compute()
    steps = truth[1:] != truth[:-1]
    once = steps.sum(axis=0) == 1
    expected = np.array(CHANGING[1:])[steps.argmax(axis=0)]
    np.testing.assert_array_equal(found.year.values[once], expected[once])
    assert found.ratio.values[once].min() > 8
    assert found.ratio.values[steps.sum(axis=0) == 0].max() < 2
    assert found.year.dtype == np.uint16
    for name in found:
        assert_lazy_identical(lambda a, n=name: a.emb.change_point()[n], codes[:, :, :20, :15])


def test_change_point_steps_over_missing_years():
    da = scene(shape=(12, 10))
    da[:, :, 5, 5] = np.nan
    da[[0, 4], :, 5, 5] = scene(shape=(12, 10)).values[[0, 4], :, 5, 5]
    found = da.emb.change_point()
    assert int(found.year[5, 5]) == 2024
    assert float(found.step[5, 5]) == pytest.approx(float(da.emb.change(2018, 2024)[5, 5]))
    assert np.isnan(found.ratio[5, 5])
    assert int(found.year[0, 0]) == 0
    assert np.isnan(found.step[0, 0])


def test_null_ranks_a_change_among_the_other_steps_of_its_surroundings():
    da = scene(shape=(14, 13))
    found = da.emb.change(2019, 2021, null="years")
    assert found.change.identical(da.emb.change(2019, 2021))
    others = np.stack([da.emb.change(a, b).values for a, b in [(2018, 2019), (2021, 2022), (2022, 2024)]])
    # a step over the hole of 2019 is measured from 2018 on
    own = found.change.values
    for row, col in [(12, 11), (0, 12), (10, 2), (13, 0)]:
        window = others[:, max(row - 2, 0) : row + 3, max(col - 2, 0) : col + 3]
        window = window[np.isfinite(window)]
        expected = 100 * (window < own[row, col]).mean()
        assert found.percentile.values[row, col] == pytest.approx(expected, abs=1e-3)
    for name in found:
        assert_lazy_identical(lambda a, n=name: a.emb.change(2018, 2024, null="years")[n], da)


@pytest.mark.parametrize("metric", ["angle", "cosine"])
def test_null_tells_true_changes_from_what_years_do_anyway(known_changes, metric):
    codes, truth = known_changes
    found = codes.emb.change(2019, 2020, metric=metric, null="years").compute()
    changed = truth[2] != truth[3]
    assert changed.sum() > 100
    assert found.percentile.values[changed].min() > 90
    calm = (truth[1:] == truth[:-1]).all(axis=0)
    assert np.median(found.percentile.values[calm]) == pytest.approx(50, abs=10)


def test_a_change_over_a_hole_is_not_compared_with_itself():
    points = gx.testing.scene().points(6, radius=60)
    da = gx.testing.synthetic("alphaearth", shape=(20, 20), years=YEARS).emb.sample(points).load()
    years = da.time.dt.year.values
    first, last = years[0], years[2]
    da[1] = np.nan
    found = da.emb.change(int(first), int(last), null="years").percentile
    alone = da.isel(time=[0, 1, 2]).emb.change(int(first), int(last), null="years").percentile
    assert alone.isnull().all()  # no other step
    steps = [da.emb.change(int(a), int(b)).values for a, b in pairwise(years[2:])]
    own = da.emb.change(int(first), int(last)).values
    below = np.stack([(s < own) + (s == own) / 2 for s in steps])
    np.testing.assert_allclose(found.values, 100 * below.mean(axis=0), rtol=1e-5)


def test_points_have_no_surroundings_but_their_own():
    points = gx.testing.scene().points(6, radius=60)
    da = gx.testing.synthetic("alphaearth", shape=(20, 20), years=YEARS).emb.sample(points)
    found = da.emb.change(2018, 2019, null="years")
    assert found.percentile.dims == ("location",)
    thirds = found.percentile.values * 3 / 100
    np.testing.assert_allclose(thirds, np.rint(thirds), atol=1e-5)


def test_errors_of_change():
    da = scene(shape=(3, 3))
    with pytest.raises(errors.CoverageError, match="2018, 2019, 2021"):
        da.emb.change(2018, 2020)
    with pytest.raises(ValueError, match="metric='degrees' is not known"):
        da.emb.change(2018, 2019, metric="degrees")
    with pytest.raises(ValueError, match="needs both years"):
        da.emb.change(2018, null="years")
    with pytest.raises(ValueError, match="null='pixels' is not known"):
        da.emb.change(2018, 2019, null="pixels")
    with pytest.raises(errors.EmbeddingError, match="needs three or more"):
        da.isel(time=[0, 1]).emb.change(2018, 2019, null="years")
    with pytest.raises(errors.EmbeddingError, match="needs another year"):
        da.isel(time=[0]).emb.change(2018)
    with pytest.raises(errors.EmbeddingError, match="2 periods match"):
        da.emb.change([2018, 2019], 2024)
    with pytest.raises(errors.EmbeddingError, match="three periods"):
        da.isel(time=[0, 1]).emb.change_point()
    with pytest.raises(errors.EmbeddingError, match="all bands in one chunk"):
        da.chunk(band=8).emb.change(2018, 2019)


def test_quantisation_floor_of_real_codes(real_data):
    """A real vector and another one half a code beside it, both rounded: about 0.9 degrees, 1.7 at worst."""
    import rioxarray

    codes = rioxarray.open_rasterio(real_data / "alphaearth-raster" / "aef_wi_2024_int8_northup.tif").values
    rng = np.random.default_rng(0)
    # two roundings of one unknown vector that lies anywhere between codes
    exact = codes + rng.uniform(-0.5, 0.5, codes.shape)
    other = np.clip(np.rint(exact + rng.uniform(-0.5, 0.5, codes.shape)), -127, 127)
    both = np.where(codes == -128, -128, np.stack([codes, other])).astype(np.int8)
    da = gx.wrap(both, "alphaearth", geobox=gx.testing.geobox(codes.shape[1:]), time=[2023, 2024])
    angle = da.emb.change(2023, 2024)
    assert 0.3 < float(angle.median()) < 1.5
    assert float(angle.max()) < 2.5
    assert int(angle.isnull().sum()) == int((codes == -128).all(axis=0).sum()) == 238


@pytest.mark.parametrize("lazy", [False, True])
def test_steps_go_from_one_year_to_the_next_however_years_are_ordered(lazy):
    da = gx.testing.synthetic("alphaearth", shape=(12, 10), years=[2018, 2020, 2022, 2024])
    da = da.chunk(time=3, y=5) if lazy else da
    mixed = da.isel(time=[2, 0, 3, 1])
    xr.testing.assert_identical(mixed.emb.change_point().compute(), da.emb.change_point().compute())
    for options in ({"a": 2020}, {"a": 2024, "b": 2018}, {"a": 2018, "b": 2020, "null": "years"}):
        xr.testing.assert_identical(mixed.emb.change(**options).compute(), da.emb.change(**options).compute())
