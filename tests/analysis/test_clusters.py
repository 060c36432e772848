"""k-means against scikit-learn and the scene's truth."""

import numpy as np
import pytest
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.metrics import adjusted_rand_score

import geoemb_xr as gx
from geoemb_xr.analysis import clusters
from geoemb_xr.core import errors
from geoemb_xr.core.legend import legend_of
from geoemb_xr.testing import assert_lazy_identical


def scene(product="alphaearth", shape=(48, 44), years=(2018,), **options):
    return gx.testing.synthetic(product, shape=shape, years=years, missing=True, **options)


def rows(da):
    flat = da.emb.decode().transpose(..., "band").values.reshape(-1, da.sizes["band"])
    return flat[np.isfinite(flat).all(axis=1)]


@pytest.mark.parametrize("method", ["full", "minibatch"])
def test_clusters_find_the_land_cover(method):
    da = gx.testing.synthetic("alphaearth", shape=(150, 150), decode=False).emb.year(2018)
    truth = gx.testing.scene().truth(da.emb.geobox, 2018).values
    kinds = len(np.unique(truth))
    kmeans = da.chunk(y=70, x=64).emb.fit_clusters(kinds, method=method)
    labels = da.emb.predict(kmeans).values
    assert adjusted_rand_score(truth.ravel(), labels.ravel()) > (0.99 if method == "full" else 0.7)
    assert labels.dtype == np.uint8


def test_euclidean_clusters_are_scikit_learns():
    da = scene("tessera", years=[2018, 2024])
    kmeans = da.emb.fit_clusters(5)
    assert not kmeans.spherical
    vectors = rows(da)
    expected = SklearnKMeans(5, n_init=10, random_state=0).fit(vectors)
    assert kmeans.n == len(vectors)
    assert kmeans.inertia <= expected.inertia_ / len(vectors) * 1.01
    labels = kmeans.apply(vectors, "label")
    if kmeans.inertia == pytest.approx(expected.inertia_ / len(vectors), rel=1e-4):
        assert adjusted_rand_score(expected.labels_, labels) > 0.99
    distance = kmeans.apply(vectors, "distance")
    np.testing.assert_allclose(
        distance, np.linalg.norm(vectors - kmeans.centres[labels - 1], axis=1), rtol=1e-5
    )


def test_spherical_centres_are_mean_directions_and_nearest_is_the_smallest_angle():
    da = scene()
    kmeans = da.emb.fit_clusters(4, n_samples="all")
    assert kmeans.spherical
    np.testing.assert_allclose(np.linalg.norm(kmeans.centres, axis=1), 1, atol=1e-6)
    vectors = rows(da).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = kmeans.apply(vectors, "label")
    cosines = vectors @ kmeans.centres.T.astype(np.float64)
    np.testing.assert_array_equal(labels - 1, cosines.argmax(axis=1))
    for k, centre in enumerate(kmeans.centres):
        mean = vectors[labels == k + 1].mean(axis=0)
        assert mean @ centre / np.linalg.norm(mean) > 1 - 1e-6
    assert kmeans.inertia == pytest.approx(float(np.mean(2 - 2 * cosines.max(axis=1))), rel=1e-4)
    degrees = np.degrees(np.arccos(np.minimum(cosines.max(axis=1), 1)))
    np.testing.assert_allclose(kmeans.apply(vectors, "distance"), degrees, atol=1e-3)


def test_the_largest_cluster_is_first():
    da = scene()
    labels = da.emb.predict(da.emb.fit_clusters(5)).values
    counts = np.bincount(labels[labels > 0].ravel(), minlength=6)[1:]
    assert (np.diff(counts) <= 0).all()


def test_chunks_and_order_change_nothing():
    da = scene(years=[2018, 2024], decode=False)
    expected = da.emb.fit_clusters(4, n_samples=2000)
    for other in (da.chunk(time=1, y=13, x=30), da.transpose("x", "band", "y", "time")):
        assert other.emb.fit_clusters(4, n_samples=2000) == expected


def test_maps_are_lazy_class_maps():
    da = scene(shape=(17, 19), years=[2018, 2024])
    kmeans = da.emb.fit_clusters(3)
    found = assert_lazy_identical(lambda a: a.emb.predict(kmeans), da)
    assert legend_of(found).names == ("cluster 1", "cluster 2", "cluster 3")
    missing = np.isnan(da.values).any(axis=1)
    np.testing.assert_array_equal(found.values == 0, missing)
    distance = assert_lazy_identical(lambda a: a.emb.predict(kmeans, output="distance"), da, rtol=1e-5)
    assert distance.attrs["units"] == "degree"


def test_mask_several_arrays_and_file(tmp_path):
    da = scene().isel(time=0)
    mask = (da.x > float(da.x.mean())).expand_dims(y=da.y)
    east = da.isel(x=da.x.values > float(da.x.mean()))
    assert da.emb.fit_clusters(3, mask=mask) == east.emb.fit_clusters(3)
    parts = [da.isel(x=slice(0, 20)), da.isel(x=slice(20, None))]
    assert gx.fit_clusters(parts, 3).n == len(rows(da))
    kmeans = da.emb.fit_clusters(3)
    assert gx.load_model(kmeans.save(tmp_path / "k")) == kmeans
    assert "3 clusters of 64 bands" in repr(kmeans)


def test_empty_clusters_start_anew():
    rng = np.random.default_rng(0)
    points = np.repeat(rng.standard_normal((3, 4)), 40, axis=0).astype(np.float32)
    centres, inertia = clusters._fit(points, 3, False, 0, "full")
    assert inertia == pytest.approx(0, abs=1e-6)
    assert len(np.unique(centres.round(3), axis=0)) == 3


def test_numbers_whose_squares_overflow_are_refused():
    vectors = np.full((2, 6, 7), 1e20, "f4") * np.arange(1, 8, dtype="f4")
    da = gx.wrap(vectors, gx.Product("far-away", dims=2), geobox=gx.testing.geobox((6, 7)))
    with pytest.raises(
        errors.EmbeddingError, match=r"numbers up to 7e.20, whose squares float32 cannot hold"
    ):
        da.emb.fit_clusters(2)


def test_errors():
    da = scene(shape=(6, 5))
    with pytest.raises(ValueError, match="method='fast' is not known"):
        da.emb.fit_clusters(3, method="fast")
    with pytest.raises(ValueError, match="n_clusters is 1 to"):
        da.emb.fit_clusters(0)
    with pytest.raises(errors.EmbeddingError, match="valid vectors for 40 clusters"):
        da.emb.fit_clusters(40)
    with pytest.raises(errors.ComparabilityError, match="fit_clusters cannot mix"):
        gx.fit_clusters([da, scene("tessera", shape=(6, 5))], 2)


@pytest.mark.parametrize("lazy", [True, False])
def test_a_sample_is_of_what_the_mask_leaves(lazy):
    da = gx.testing.synthetic("alphaearth", shape=(200, 220), years=[2018, 2024], decode=False)
    mask = (da.y > da.y[20]) & (da.x > da.x[0])
    da, mask = (da.chunk(y=64, x=64), mask.chunk(y=50)) if lazy else (da, mask)
    kept = 20 * 219
    model = da.emb.fit_clusters(3, mask=mask, n_samples=2000)
    assert model.n == pytest.approx(2000, rel=0.1)
    assert da.emb.fit_clusters(3, mask=mask, n_samples="all").n == 2 * kept
    pca = da.emb.fit_pca(3, mask=mask, n_samples=2000)
    assert pca.n == pytest.approx(2000, rel=0.1)
    assert da.emb.fit_pca(3, mask=mask).n == 2 * kept
