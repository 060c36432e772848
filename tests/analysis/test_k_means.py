"""k-means of places, against scikit-learn's from the same random numbers."""

import numpy as np
import pytest
from sklearn.cluster import KMeans, kmeans_plusplus

from geoemb_xr.analysis.k_means import _centres, clustered, plus_plus


@pytest.mark.parametrize("seed", range(12))
def test_clusters_are_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.choice([20, 300, 9000]))
    k = int(rng.integers(2, 20))
    places = rng.normal(size=(n, 2)) * [30_000, 8_000] + [4.3e6, 2.9e6]
    if seed % 3 == 0:  # in heaps, as fields lie
        places += rng.integers(0, 5, (n, 1)) * 90_000
    expected = KMeans(k, n_init=4, random_state=seed).fit_predict(places)
    np.testing.assert_array_equal(clustered(places, k, starts=4, seed=seed), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_starts_are_scikit_learns(dtype):
    for seed in range(5):
        points = np.random.default_rng(seed).normal(size=(2000, 16)).astype(dtype)
        expected = kmeans_plusplus(points, 9, random_state=np.random.RandomState(seed))[1]
        np.testing.assert_array_equal(plus_plus(points, 9, np.random.RandomState(seed)), expected)


def test_as_many_clusters_as_distinct_points():
    points = np.repeat([[0.0, 0.0], [5.0, 1.0], [9.0, 9.0]], [4, 1, 3], axis=0)
    found = clustered(points, 3, starts=4, seed=0)
    assert [len(set(found[part])) for part in (slice(0, 4), slice(5, 8))] == [1, 1]
    assert len(set(found)) == 3


def test_an_empty_cluster_takes_the_point_that_fits_worst():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [10.0, 0.0]])
    centres = _centres(points, np.array([0, 0, 0]), np.array([[0.0, 0.0], [99.0, 99.0]]))
    np.testing.assert_array_equal(centres, [[0.5, 0.0], [10.0, 0.0]])


def test_an_empty_cluster_leaves_no_other_one_empty():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [100.0, 0.0]])
    before = np.array([[0.4, 0.0], [50.0, 0.0], [7.0, 7.0]])  # the worst point is all that its cluster has
    np.testing.assert_array_equal(
        _centres(points, np.array([0, 0, 1]), before), [[0.0, 0.0], [100.0, 0.0], [1.0, 0.0]]
    )
