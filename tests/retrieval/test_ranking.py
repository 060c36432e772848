"""Similarity against float64 products, search against sorting everything."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr.core import errors
from geoemb_xr.retrieval import best, scores
from geoemb_xr.testing import assert_lazy_identical

HERE = (11.37, 47.25)


def scene(product="alphaearth", shape=(21, 19), years=(2018, 2024), **options):
    return gx.testing.synthetic(product, shape=shape, years=years, missing=True, **options)


def cosines(da, vector):
    """Float64 cosines to a vector, in the dimensions (time, y, x)."""
    vectors = da.emb.decode().transpose("time", "y", "x", "band").values.astype(np.float64)
    return vectors @ vector / np.linalg.norm(vectors, axis=-1) / np.linalg.norm(vector)


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
def test_similarity_to_a_vector_is_the_cosine(product, decode):
    da = scene(product, decode=decode)
    vector = da.emb.decode()[0, :, 15, 12]
    found = assert_lazy_identical(lambda a: a.emb.similarity(vector), da, rtol=1e-6)
    np.testing.assert_allclose(found.values, cosines(da, vector.values), atol=1e-6)
    assert float(found[0, 15, 12]) == pytest.approx(1, abs=1e-6)
    assert not {"product", "codec"} & set(found.attrs)
    plain = da.emb.similarity(vector.values * 7)
    np.testing.assert_allclose(plain, found, atol=1e-6)


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 5000), st.booleans())
def test_cosines_of_codes_in_any_number_of_bands_and_pixels(seed, bands, pixels, last):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, (bands, pixels), dtype=np.int8)
    codes[:, rng.integers(0, pixels)] = 0  # no direction
    codes[rng.integers(0, bands), rng.integers(0, pixels)] = -128
    query = rng.standard_normal(bands).astype(np.float32)
    vectors = codes.astype(np.float64) * np.abs(codes.astype(np.float64))
    vectors[:, (codes == -128).any(axis=0)] = np.nan
    with np.errstate(invalid="ignore"):
        expected = query.astype(np.float64) @ vectors / np.linalg.norm(vectors, axis=0)
    given_codes, axis = (np.ascontiguousarray(codes.T), 1) if last else (codes, 0)
    found = scores._cosine_squares(given_codes, axis, query)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("k", [1, 10, 300])
@pytest.mark.parametrize("step", [64, 5670])
def test_the_best_of_many_pieces_with_gaps(k, step):
    scores = np.random.default_rng(k).integers(0, 2000, (3, 5670)).astype(np.float32)
    scores[:, 300:3100] = np.nan
    scores[2] = np.nan
    collector = best.Collector(3, k)
    for start in range(0, 5670, step):
        collector.offer(start, scores[:, start : start + step])
    found = collector.best()
    assert found.count(3).tolist() == [k, k, 0]
    for i in (0, 1):
        expected = np.argsort(-np.nan_to_num(scores[i], nan=-1), kind="stable")[:k]
        np.testing.assert_array_equal(found.positions[found.query == i], expected)
        np.testing.assert_array_equal(found.scores[found.query == i], scores[i, expected])


@pytest.mark.parametrize("how", ["mean", "max"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_several_points(metric, how):
    da = scene(decode=False)
    points = pd.DataFrame({"lon": [11.37, 11.3705], "lat": [47.25, 47.2502]})
    found = assert_lazy_identical(lambda a: a.emb.similarity(points, how=how, metric=metric), da, rtol=1e-6)
    vectors = da.emb.decode()
    rows = [da.emb.sample(points).emb.decode().values[:, i] for i in (0, 1)]
    queries = np.concatenate(rows).astype(np.float64)
    if metric == "cosine":
        each = np.stack([cosines(da, q) for q in queries])
        expected = each.mean(axis=0) if how == "mean" else each.max(axis=0)
    else:
        gaps = vectors.transpose("time", "y", "x", "band").values[None] - queries[:, None, None, None]
        each = np.linalg.norm(gaps, axis=-1)
        expected = each.mean(axis=0) if how == "mean" else each.min(axis=0)
    np.testing.assert_allclose(found.values, expected, atol=2e-6)


def test_a_polygon_asks_for_every_pixel_in_it():
    da = scene(shape=(30, 30))
    box = shapely.box(11.3695, 47.2497, 11.3705, 47.2503)
    found = assert_lazy_identical(lambda a: a.emb.similarity(box, time=2018), da, rtol=1e-6)
    inside = da.emb.year(2018).emb.crop(box).emb.decode().values.reshape(64, -1)
    inside = inside[:, np.isfinite(inside).all(axis=0)].astype(np.float64)
    assert inside.shape[1] > 20
    mean = (inside / np.linalg.norm(inside, axis=0)).mean(axis=1)
    expected = cosines(da, mean) * np.linalg.norm(mean)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.GeoDataFrame(geometry=[box], crs="EPSG:4326").to_crs(da.emb.crs)
    # edges of a box in degrees bend in a projection, by less than a pixel here
    np.testing.assert_allclose(da.emb.similarity(frame, time=2018), found, atol=2e-3)


def test_time_says_where_the_query_is_read():
    da = scene(decode=False)
    one = da.emb.similarity(HERE, time=2024)
    vector = da.emb.year(2024).emb.sample([HERE]).emb.decode().values[0]
    np.testing.assert_allclose(one, cosines(da, vector), atol=1e-6)
    with pytest.raises(errors.CoverageError, match="2018, 2024"):
        da.emb.similarity(HERE, time=2020)


def test_points_are_asked_with_vectors():
    places = scene().emb.year(2018).emb.sample(gx.testing.scene().points(9, radius=60))
    found = places.emb.similarity(places.isel(location=3))
    assert found.dims == ("location",)
    assert float(found[3]) == pytest.approx(1, abs=1e-6)
    first = places.emb.search(places.isel(location=3), 2)
    assert first.location[0] == places.location.values[3]
    with pytest.raises(errors.EmbeddingError, match="points have no grid"):
        places.emb.similarity(HERE)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 7, 10_000])
def test_search_is_sorting_everything(k, metric):
    da = scene(decode=False)
    scores = da.emb.similarity(HERE, metric=metric).values.ravel()
    there = np.flatnonzero(~np.isnan(scores))
    order = there[np.argsort(scores[there] if metric == "euclidean" else -scores[there], kind="stable")][:k]
    for array in (da, da.chunk(time=1, y=8, x=5)):
        found = array.emb.search(HERE, k, metric=metric, exclude_query=False)
        name = "similarity" if metric == "cosine" else "distance"
        np.testing.assert_allclose(found[name], scores[order], atol=1e-6)
        assert len(found) == min(k, len(there))
    time, row, column = np.unravel_index(order, (2, 21, 19))
    found = da.emb.search(HERE, k, metric=metric, exclude_query=False)
    np.testing.assert_array_equal(found.x, da.x.values[column])
    np.testing.assert_array_equal(found.y, da.y.values[row])
    np.testing.assert_array_equal(found.time, da.time.values[time])


def test_found_places_are_where_the_table_says():
    da = scene().emb.year(2018)
    found = da.emb.search(HERE, 5, exclude_query=False)
    sampled = da.emb.sample(found[["lon", "lat"]])
    again = sampled.emb.similarity(da.emb.sample([HERE]))
    np.testing.assert_allclose(again, found.similarity, atol=1e-6)
    np.testing.assert_allclose(found.loc[0, ["lon", "lat"]].astype(float), HERE, atol=1e-4)


@given(st.integers(0, 2**31), st.integers(1, 12))
def test_ties_go_to_the_first_in_the_array(seed, k):
    rng = np.random.default_rng(seed)
    data = rng.integers(-1, 2, (2, 6, 5)).astype(np.float32) + np.float32(0.5)
    da = gx.wrap(data, gx.Product("ties", dims=2), geobox=gx.testing.geobox((6, 5)))
    query = pd.Series([1.0, 0.5], da.band.values)
    whole = da.emb.search(query, k, metric="euclidean")
    for parts in (da.chunk(y=2, x=3), da.chunk(y=1), da.transpose("x", "band", "y").chunk(x=2)):
        pd.testing.assert_frame_equal(parts.emb.search(query, k, metric="euclidean"), whole)


def test_errors():
    da = scene(shape=(9, 8))
    with pytest.raises(errors.CoverageError, match="1 of 2 query points lie outside"):
        da.emb.similarity([HERE, (10.0, 47.0)])
    with pytest.raises(errors.CoverageError, match="holds no pixel's centre"):
        da.emb.similarity(shapely.box(10, 46, 10.1, 46.1))
    with pytest.raises(errors.EmbeddingError, match="vector of 64 bands; got ndarray of shape"):
        da.emb.similarity(np.ones(9))
    with pytest.raises(errors.ComparabilityError, match="similarity cannot mix"):
        da.emb.similarity(scene("tessera", shape=(9, 8))[0, :, 5, 5])
    with pytest.raises(errors.EmbeddingError, match="bands are not those"):
        da.emb.similarity(da[0, :9, 5, 5])
    with pytest.raises(ValueError, match="how='median' is not known"):
        da.emb.similarity(HERE, how="median")
    with pytest.raises(ValueError, match="metric='angle' is not known"):
        da.emb.similarity(HERE, metric="angle")
    with pytest.raises(errors.EmbeddingError, match="the query has no data"):
        da.emb.similarity(da[0, :, 0, 0])
    with pytest.raises(ValueError, match="at least 1; got 0"):
        da.emb.search(HERE, 0)
    with pytest.raises(errors.EmbeddingError, match="no pixel with data"):
        da[:, :, :2, :2].emb.search(np.ones(64))


def test_points_of_a_geodataframe_are_points():
    gpd = pytest.importorskip("geopandas")
    da = gx.testing.synthetic("alphaearth", shape=(40, 40)).isel(time=0)
    lon, lat = [11.37, 11.371], [47.25, 47.2505]
    series = gpd.GeoSeries(gpd.points_from_xy(lon, lat), crs=4326)
    expected = da.emb.similarity(list(zip(lon, lat, strict=True)))
    for query in (series, gpd.GeoDataFrame(geometry=series), series.to_crs(32632)):
        xr.testing.assert_identical(da.emb.similarity(query), expected)
    xr.testing.assert_identical(da.emb.similarity(series[0]), da.emb.similarity((lon[0], lat[0])))


def test_a_place_in_another_crs_is_the_same_place():
    da = scene().emb.year(2018)
    place = (float(da.x[4]), float(da.y[7]))
    square = shapely.Point(place).buffer(12)
    for query in (place, square):
        found = da.emb.similarity(query, crs=da.emb.crs)
        lonlat = gpd.GeoSeries([shapely.Point(place) if query is place else square], crs=da.emb.crs).to_crs(
            4326
        )
        np.testing.assert_allclose(found, da.emb.similarity(lonlat), atol=1e-6)
    assert da.emb.search(place, 1, crs=32632, exclude_query=False)[["x", "y"]].to_numpy().tolist() == [
        list(place)
    ]
    with pytest.raises(errors.EmbeddingError, match="look like metres"):
        da.emb.search(place, 1)
