"""Making, joining, decoding and selecting embedding arrays."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core import arrays, codecs, times
from geoemb_xr.core.errors import ComparabilityError, CoverageError, EmbeddingError

PRODUCTS = ["alphaearth", "tessera"]


@pytest.fixture(params=PRODUCTS)
def codes(request):
    return testing.synthetic(request.param, shape=(21, 34), years=[2018, 2024], decode=False, missing=True)


def test_decode_is_lazy_and_chunk_invariant(codes):
    decoded = testing.assert_lazy_identical(gx.decode, codes)
    assert decoded.dtype == np.float32
    assert "codec" not in decoded.attrs
    assert "scale" not in decoded.coords
    missing = np.isnan(decoded.values).any(axis=1)
    np.testing.assert_array_equal(missing, np.isnan(decoded.values).all(axis=1))
    assert missing[:, :5, :8].all()
    assert not missing[:, 6:].any()


def test_decode_of_a_decoded_array_is_itself(codes):
    decoded = codes.emb.decode()
    assert decoded.emb.decode() is decoded


def test_encode_is_the_inverse(codes):
    again = testing.assert_lazy_identical(gx.encode, codes.emb.decode())
    valid = codes.emb.decode().notnull().all("band").values
    np.testing.assert_array_equal(
        np.moveaxis(again.values, 1, -1)[valid], np.moveaxis(codes.values, 1, -1)[valid]
    )
    assert again.attrs == codes.attrs


def test_normalize_against_numpy(codes):
    unit = testing.assert_lazy_identical(gx.normalize, codes)
    raw = codes.emb.decode().values.astype(np.float64)
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(unit.values, expected, rtol=2e-7, atol=1e-8)


def test_a_zero_vector_has_no_direction():
    da = gx.wrap(np.zeros((3, 2, 2), "f4"), gx.Product("zero-vectors", dims=3), geobox=testing.geobox((2, 2)))
    assert np.isnan(da.emb.normalize()).all()


def test_a_scale_that_is_gone_is_missed():
    codes = testing.synthetic("tessera", shape=(4, 4), decode=False).drop_vars("scale")
    with pytest.raises(EmbeddingError, match="need the coordinate 'scale', which is gone"):
        codes.emb.decode()


def test_a_float_product_has_no_codes():
    da = gx.wrap(np.zeros((3, 2, 2), "f4"), gx.Product("zero-vectors", dims=3), geobox=testing.geobox((2, 2)))
    with pytest.raises(EmbeddingError, match="no codec to encode with"):
        gx.encode(da)


def test_check_finds_wrong_norms(codes):
    assert codes.emb.check()["ok"]
    codes = testing.synthetic("alphaearth", shape=(9, 9), decode=False)
    averaged = codes.copy(data=(codes.values // 2).astype(np.int8))
    report = averaged.emb.check()
    assert not report["ok"]
    assert "are not 1" in report["problems"][0]


# --- time -----------------------------------------------------------------------------------------------------

YEARS = times.times_of_years([2017, 2018, 2020, 2024])


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (None, [0, 1, 2, 3]),
        (2018, [1]),
        ("2018", [1]),
        ("2018-01-01", [1]),
        ("2018-01-01T00:00:00.000000000", [1]),  # how NumPy writes one
        (np.int64(2020), [2]),
        (pd.Timestamp("2020-01-01"), [2]),
        ([2024, 2017], [0, 3]),
        (slice(2018, 2020), [1, 2]),
        (slice(2018, None), [1, 2, 3]),
        (slice(None, "2017-06"), [0]),
    ],
)
def test_pick_times(time, expected):
    assert times.pick_times(YEARS, time).tolist() == expected


@pytest.mark.parametrize(
    ("time", "error", "says"),
    [
        ((2018, 2020), TypeError, r"write \[2018, 2020\] for exactly those, or slice\(2018, 2020\)"),
        (2019, CoverageError, r"time \[2019\] is not in the array, which has 2017, 2018, 2020, 2024"),
        ([2018, 2019], CoverageError, r"time \[2019\] is not in"),
        (slice(2021, 2022), CoverageError, "is not in"),
        (slice(2022, 2021), ValueError, "ends before it starts"),
        (slice(2018, 2022, 2), ValueError, "has a step"),
        (True, ValueError, "not a year or a date"),
        (float("nan"), ValueError, "not a year or a date"),
        ([None], ValueError, "not a year or a date"),
        ("soon", ValueError, "not a year or a date"),
        ([], EmbeddingError, "asks for no period at all"),
    ],
)
def test_pick_times_refuses(time, error, says):
    with pytest.raises(error, match=says):
        times.pick_times(YEARS, time)


def test_a_period_matches_by_its_start():
    months = pd.date_range("2020-01-01", periods=12, freq="MS").to_numpy()
    assert times.pick_times(months, 2020).size == 12
    assert times.pick_times(months, "2020-03").tolist() == [2]


def test_year(codes):
    one = codes.emb.year(2024)
    assert one.dims == ("band", "y", "x")
    xr.testing.assert_identical(one, codes.isel(time=1))
    assert one.emb.year(2024) is one
    with pytest.raises(CoverageError, match="2018, 2024"):
        codes.emb.year(2020)
    with pytest.raises(EmbeddingError, match="needs a 'time' dimension"):
        codes.isel(time=0, drop=True).emb.year(2018)


# --- wrap -----------------------------------------------------------------------------------------------------

MINE = gx.Product("wrapped", dims=5)
VALUES = np.arange(5 * 3 * 4, dtype=np.float64).reshape(5, 3, 4)


def test_wrap_takes_every_shape():
    box = testing.geobox((3, 4))
    plain = gx.wrap(VALUES, MINE, geobox=box)
    assert plain.dtype == np.float32
    assert plain.emb.crs.to_epsg() == 32632
    coords = {k: plain[k].values for k in ("y", "x")}
    band_last = gx.wrap(np.moveaxis(VALUES, 0, -1), MINE, dims=("y", "x", "band"), geobox=box)
    xr.testing.assert_identical(plain, band_last)
    by_xy = gx.wrap(VALUES, MINE, x=coords["x"], y=coords["y"], crs=32632)
    xr.testing.assert_identical(plain, by_xy)
    south_up = gx.wrap(VALUES[:, ::-1], MINE, x=coords["x"], y=coords["y"][::-1], crs=32632)
    xr.testing.assert_identical(plain, south_up)
    timed = gx.wrap(VALUES[None], MINE, geobox=box, time=[2020])
    assert timed.dims == ("time", "band", "y", "x")
    xr.testing.assert_identical(timed.isel(time=0, drop=True), plain)
    dataset = xr.Dataset({b: (("lat", "lon"), VALUES[i]) for i, b in enumerate(MINE.bands)})
    dataset = dataset.assign_coords(lat=coords["y"], lon=coords["x"])
    xr.testing.assert_identical(gx.wrap(dataset, MINE, crs=32632), plain)


def test_wrap_keeps_dask_lazy_and_joins_split_bands():
    import dask.array as da

    lazy = da.from_array(VALUES, chunks=(2, 3, 2))
    with testing.raise_if_dask_computes():
        wrapped = gx.wrap(lazy, MINE, geobox=testing.geobox((3, 4)))
    assert wrapped.chunksizes["band"] == (5,)
    assert wrapped.chunksizes["x"] == (2, 2)


def test_wrap_locations():
    points = gx.wrap(VALUES[:, 0].T, MINE, x=[11, 12, 13, 14], y=[47, 47, 48, 48])
    assert points.dims == ("location", "band")
    assert points.emb.kind == "points"
    assert points.emb.crs.to_epsg() == 4326


def test_wrap_codes_with_scale():
    codes = testing.synthetic("tessera", shape=(3, 4), decode=False)
    again = gx.wrap(
        codes.values,
        "tessera",
        geobox=codes.emb.geobox,
        scale=codes["scale"].values,
        time=2018,
        version="synthetic",
    )
    xr.testing.assert_identical(again.emb.decode(), codes.emb.decode().assign_attrs(source="memory"))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: gx.wrap(VALUES, MINE), "needs a place"),
        (lambda: gx.wrap(VALUES, MINE, geobox=testing.geobox((9, 4))), r"GeoBox has \(9, 4\) pixels"),
        (lambda: gx.wrap(VALUES[:4], MINE, geobox=testing.geobox((3, 4))), "has 5 bands; got 4"),
        (
            lambda: gx.wrap(np.moveaxis(VALUES, 0, -1), MINE, geobox=testing.geobox((3, 4))),
            "along axis 2, not where",
        ),
        (
            lambda: gx.wrap(VALUES.astype(int), MINE, geobox=testing.geobox((3, 4))),
            "stored as float32; got integers",
        ),
        (
            lambda: gx.wrap(np.zeros((64, 2, 2), "i2"), "aef", geobox=testing.geobox((2, 2))),
            "are int8 or uint16; got int16",
        ),
        (
            lambda: gx.wrap(np.zeros((128, 2, 2), "i1"), "tessera", geobox=testing.geobox((2, 2))),
            "need scale=",
        ),
        (
            lambda: gx.wrap(
                np.zeros((64, 2, 2), "i1"), "aef", geobox=testing.geobox((2, 2)), scale=np.ones((2, 2))
            ),
            "have no scales",
        ),
        (lambda: gx.wrap(VALUES[:, 0].T, MINE), "locations need x= and y="),
        (lambda: gx.wrap(VALUES[0, 0], MINE), "give dims="),
        (
            lambda: gx.wrap(VALUES, MINE, geobox=testing.geobox((3, 4)), time=[2018, 2019]),
            "no time dimension",
        ),
        (lambda: gx.wrap(xr.Dataset({"0": ("y", [1.0])}), MINE), "4 are missing"),
    ],
)
def test_wrap_refuses(build, says):
    with pytest.raises(ValueError, match=says):
        build()


# --- concat ---------------------------------------------------------------------------------------------------


def test_concat_joins_what_belongs_together(codes):
    with testing.raise_if_dask_computes():
        lazy = gx.concat([codes.isel(time=[i]).chunk() for i in (0, 1)], "time")
    xr.testing.assert_identical(lazy.compute(), codes)


def test_concat_never_mixes(codes):
    other = codes.assign_attrs(version="v9")
    with pytest.raises(ComparabilityError, match="cannot mix"):
        gx.concat([codes, other], "time")
    with pytest.raises(EmbeddingError, match="encoded and decoded"):
        gx.concat([codes, codes.emb.decode()], "time")
    neighbour = testing.synthetic(
        codes.attrs["product"], grid=testing.geobox((21, 34), crs=32633), decode=False
    )
    with pytest.raises(EmbeddingError, match="two CRSs, EPSG:32632 and EPSG:32633"):
        gx.concat([codes, neighbour], "time")
    with pytest.raises(EmbeddingError, match="needs the same coordinates"):
        gx.concat([codes, codes.isel(x=slice(1, None))], "time")
    with pytest.raises(ValueError, match="at least one"):
        gx.concat([], "time")


# --- a model of ours with several axes a code -----------------------------------------------------------------


def test_codes_with_other_bands_once_decoded():
    monthly = gx.Product("fsq-like", dims=6, bands=("code",), dtype="uint16", codec=codecs.FSQ)
    codes = np.arange(1, 13, dtype=np.uint16).reshape(1, 3, 4)
    codes[0, 0, 0] = 0
    da = gx.wrap(codes, monthly, geobox=testing.geobox((3, 4)))
    decoded = testing.assert_lazy_identical(gx.decode, da)
    assert decoded.sizes["band"] == 6
    assert list(decoded["band"].values) == list(codecs.FSQ.bands)
    assert np.isnan(decoded.values[:, 0, 0]).all()
    np.testing.assert_array_equal(gx.encode(decoded).values, codes)


@given(
    chunks=st.tuples(st.integers(1, 9), st.integers(1, 9)), turned=st.permutations(["time", "band", "y", "x"])
)
def test_map_bands_for_any_chunks_and_order(chunks, turned):
    codes = testing.synthetic("alphaearth", shape=(7, 9), years=[2018, 2024], decode=False, missing=True)
    lazy = codes.transpose(*turned).chunk({"y": chunks[0], "x": chunks[1], "time": 1, "band": -1})
    xr.testing.assert_identical(lazy.emb.decode().compute().transpose(*codes.dims), codes.emb.decode())


def test_a_delayed_parameter_enters_the_graph_once():
    import dask

    codes = testing.synthetic("alphaearth", shape=(8, 8), chunks=4)
    weights = np.ones(64, np.float32)
    model = dask.delayed(weights, pure=True)
    lazy = arrays.map_bands(_dot, codes, model, dtype=np.float32)
    np.testing.assert_allclose(lazy.values, codes.sum("band").values, rtol=1e-5)
    eager = arrays.map_bands(_dot, codes.compute(), model, dtype=np.float32)
    np.testing.assert_allclose(eager.values, lazy.values, rtol=1e-6)


def _dot(block, axis, weights):
    return np.tensordot(np.moveaxis(block, axis, -1), weights, 1)


@pytest.mark.parametrize(
    ("name", "expected"), [(None, "alphaearth"), ("mine", "mine"), ("embedding", "embedding")]
)
def test_an_array_without_a_name_is_called_as_its_product(name, expected):
    da = gx.testing.synthetic("alphaearth", shape=(4, 4)).rename(name)
    codes = gx.encode(da)
    assert [gx.normalize(da).name, codes.name, gx.decode(codes.rename(name)).name] == [expected] * 3


@given(testing.embeddings("alphaearth", decode=False))
def test_codes_of_any_array_survive_decoding(codes):
    vectors = codes.emb.decode()
    again = gx.encode(vectors)
    xr.testing.assert_equal(again, codes.where((codes != -128).all("band"), np.int8(-128)))
    assert again.attrs == codes.attrs
    xr.testing.assert_equal(vectors.isnull().all("band"), vectors.isnull().any("band"))


def test_vectors_in_the_other_order_of_bytes_are_normalised():
    da = testing.synthetic("tessera", shape=(4, 5)).isel(time=0)
    turned = da.astype(">f4").assign_attrs(da.attrs)  # as netCDF 3 has them
    xr.testing.assert_identical(turned.emb.normalize().compute(), da.emb.normalize().compute())
