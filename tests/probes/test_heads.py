"""The methods of probes, against scikit-learn at equal settings."""

import itertools
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.execution.neighbours import nearest
from geoemb_xr.probes.heads import HEADS, Data, RidgeSums


def data(n=400, bands=12, classes=4, seed=0, weighted=False):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((n, bands)) * rng.uniform(0.05, 3, bands) + rng.uniform(-2, 2, bands)).astype(
        "f4"
    )
    hidden = rng.standard_normal((bands, max(classes, 1)))
    score = x @ hidden + rng.standard_normal((n, max(classes, 1)))
    y = score.argmax(1) if classes else score[:, 0].astype(np.float64)
    weights = rng.uniform(0.1, 3, n) if weighted else np.ones(n)
    return Data(x, y, weights, np.arange(n), classes, seed)


def one_scale(d, total=False):
    """Vectors centred and divided by one number: mean variance of a band 1, or total variance 1."""
    x = d.x.astype("f8")
    mean = np.average(x, axis=0, weights=d.weights)
    variance = np.average((x - mean) ** 2, axis=0, weights=d.weights)
    scale = np.sqrt(variance.sum() if total else variance.mean())
    return (x - mean) / scale, scale


def fitted(method, d, **options):
    head = HEADS[method]
    return head, head.fit(d, **{**head.options, **options})


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("C", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_logistic_is_scikit_learns(classes, C, weighted):
    d = data(classes=classes, weighted=weighted)
    x, scale = one_scale(d, total=True)
    oracle = LogisticRegression(C=C, tol=1e-10, max_iter=10_000)
    oracle.fit(x, d.y, sample_weight=d.weights / d.weights.mean())
    head, parameters = fitted("logistic", d, C=C)
    weights = parameters["weights"] * scale
    if classes == 2:
        weights = weights[1:] - weights[:1]
    np.testing.assert_allclose(weights, oracle.coef_, rtol=0, atol=1e-4 * np.abs(oracle.coef_).max())
    scores = head.scores(parameters, d.x.T)
    proba = np.exp(scores) / np.exp(scores).sum(0)
    np.testing.assert_allclose(proba.T, oracle.predict_proba(x), rtol=0, atol=3e-4)


def test_logistic_says_when_it_does_not_converge():
    with pytest.raises(EmbeddingError, match="did not converge in max_iter=2 steps"):
        fitted("logistic", data(), max_iter=2)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"C": 0.0}, "C is a number above 0; got 0.0"),
        ({"C": np.nan}, "C is a number above 0; got nan"),
        ({"C": None}, "C is a number above 0; got None"),
        ({"tol": -1e-3}, "tol is a number above 0"),
        ({"max_iter": "many"}, "max_iter is a whole number above 0; got 'many'"),
        ({"max_iter": 2.5}, "max_iter is a whole number above 0"),
    ],
)
def test_options_of_logistic_are_checked(option, said):
    with pytest.raises(EmbeddingError, match=said):
        fitted("logistic", data(), **option)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("given", ["balanced", {0: 5.0, 1: 0.5}])
def test_weights_of_classes_are_scikit_learns(classes, given):
    d = data(classes=classes, weighted=True)
    x, scale = one_scale(d, total=True)
    oracle = LogisticRegression(class_weight=given, tol=1e-10, max_iter=10_000)
    oracle.fit(x, d.y, sample_weight=d.weights / d.weights.mean())
    weights = fitted("logistic", d, class_weight=given)[1]["weights"] * scale
    if classes == 2:
        weights = weights[1:]
    np.testing.assert_allclose(weights, oracle.coef_, rtol=0, atol=1e-4 * np.abs(oracle.coef_).max())


def test_what_does_not_converge_leaves_the_warnings_of_the_process_alone():
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(fitted, "logistic", data(), max_iter=steps) for steps in [2, 1000] * 4]
        failed = [isinstance(task.exception(), EmbeddingError) for task in tasks]
    assert failed == [True, False] * 4
    assert warnings.filters == before


@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_ridge_is_scikit_learns(classes, weighted):
    d = data(classes=classes, weighted=weighted)
    x, _ = one_scale(d)
    target = np.eye(classes)[d.y] if classes else d.y
    for alpha, default in ((3.0, 3.0), (None, len(d.x) if classes else 0.03 * len(d.x))):
        oracle = Ridge(alpha=default).fit(x, target, sample_weight=d.weights / d.weights.mean())
        head, parameters = fitted("ridge", d, alpha=alpha)
        expected = oracle.predict(x).reshape(len(d.x), -1)
        np.testing.assert_allclose(head.scores(parameters, d.x.T).T, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize("method", ["ridge", "logistic", "centroid", "knn", "mlp"])
def test_neither_the_unit_of_vectors_nor_that_of_weights_matters(method, classes):
    if classes == 0 and method in ("logistic", "centroid"):
        return  # they do no regression
    d = data(n=60, classes=classes, weighted=True)
    options = {"max_iter": 3, "hidden_layer_sizes": (8,)} if method == "mlp" else {}
    head, parameters = fitted(method, d, **options)
    expected = head.scores(parameters, d.x.T)
    for unit, weight in ((30.0, 1.0), (1.0, 1000.0)):
        other = d._replace(x=d.x * np.float32(unit), weights=d.weights * weight)
        scores = head.scores(fitted(method, other, **options)[1], other.x.T)
        if classes:
            np.testing.assert_array_equal(scores.argmax(0), expected.argmax(0))
        np.testing.assert_allclose(scores, expected, rtol=2e-3, atol=2e-3)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=6), st.integers(0, 1000))
def test_ridge_sums_add_up_in_any_parts(sizes, seed):
    d = data(n=sum(sizes) + 20, classes=0, seed=seed, weighted=True)
    edges = [0, *np.cumsum(sizes), len(d.x)]
    parts = [RidgeSums.of(d.x[a:b], d.y[a:b, None], d.weights[a:b]) for a, b in itertools.pairwise(edges)]
    total = parts[0]
    for part in parts[1:]:
        total = part + total
    whole = RidgeSums.of(d.x, d.y[:, None], d.weights).solve(1.0)
    for name, value in total.solve(1.0).items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alpha", [1e-6, 1e-2, 1.0, 100.0])
def test_ridge_is_as_exact_with_a_weak_penalty_as_with_a_strong_one(alpha):
    d = data(n=200, classes=0)
    x, _ = one_scale(d)
    oracle = Ridge(alpha=alpha, solver="svd").fit(x, d.y)
    head, parameters = fitted("ridge", d, alpha=alpha)
    np.testing.assert_allclose(head.scores(parameters, d.x.T)[0], oracle.predict(x), rtol=1e-6, atol=1e-5)


def test_of_many_ridges_without_a_penalty_the_shortest_is_taken():
    d = data(n=50, classes=0)
    twice = np.hstack([d.x, d.x])
    sums = RidgeSums.of(twice, d.y[:, None], d.weights)
    weights = sums.solve(0.0)["weights"][0]
    plain = np.linalg.lstsq(twice - twice.mean(0), d.y - d.y.mean(), rcond=1e-6)[0]
    np.testing.assert_allclose(weights, plain, rtol=0, atol=1e-5)


def test_a_constant_band_has_no_weight():
    d = data()
    d = d._replace(x=np.column_stack([d.x, np.full(len(d.x), 7.0, "f4")]))
    for method in ("ridge", "logistic"):
        _, parameters = fitted(method, d)
        np.testing.assert_allclose(parameters["weights"][:, -1], 0, atol=1e-12)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_equal_votes_are_scikit_learns(k):
    d, queries = data(n=3000), data(n=700, seed=1).x
    oracle = KNeighborsClassifier(k, algorithm="brute").fit(d.x, d.y)
    head, parameters = fitted("knn", d, n_neighbors=k, metric="euclidean")
    np.testing.assert_array_equal(head.scores(parameters, queries.T).argmax(0), oracle.predict(queries))
    share = np.exp(head.scores(parameters, queries.T).T)
    np.testing.assert_allclose(share, oracle.predict_proba(queries), atol=2e-6)


def test_knn_regression_is_scikit_learns():
    d, queries = data(n=3000, classes=0), data(n=300, seed=1).x
    oracle = KNeighborsRegressor(5, algorithm="brute").fit(d.x, d.y)
    head, parameters = fitted("knn", d, n_neighbors=5, metric="euclidean")
    np.testing.assert_allclose(head.scores(parameters, queries.T)[0], oracle.predict(queries), atol=1e-4)


def test_weighted_votes_are_dinos():
    d, queries = data(n=500), data(n=60, seed=1).x
    head, parameters = fitted("knn", d, n_neighbors=20)
    x = d.x / np.linalg.norm(d.x, axis=1, keepdims=True)
    q = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    cosine = q @ x.T
    best = np.argsort(-cosine, axis=1)[:, :20]
    weight = np.exp(np.take_along_axis(cosine, best, 1) / 0.07)
    votes = np.stack([(weight * (d.y[best] == c)).sum(1) for c in range(4)])
    share = votes / votes.sum(0)
    np.testing.assert_allclose(np.exp(head.scores(parameters, queries.T)), share, atol=2e-5)


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 99))
def test_nearest_is_exhaustive_search(m, n, seed):
    rng = np.random.default_rng(seed)
    references, vectors = (rng.standard_normal((size, 6)).astype("f4") for size in (m, n))
    k = min(m, 7)
    distance, index = nearest(vectors.T, references, k)
    full = np.linalg.norm(vectors[:, None].astype("f8") - references, axis=2)
    np.testing.assert_allclose(distance.T, np.sort(full, axis=1)[:, :k], atol=2e-3)
    np.testing.assert_allclose(np.take_along_axis(full, index.T, 1), np.sort(full, axis=1)[:, :k], atol=1e-5)


def test_of_equally_near_ones_the_first_wins():
    references = np.tile(np.array([[1, 0], [0, 1]], "f4"), (100, 1))
    _, index = nearest(np.array([[1.0], [0.0]], "f4"), references, 4)
    assert index[:, 0].tolist() == [0, 2, 4, 6]


def test_centroids_are_mean_directions():
    d = data(weighted=True)
    head, parameters = fitted("centroid", d)
    unit = d.x / np.linalg.norm(d.x, axis=1, keepdims=True)
    for c in range(4):
        mean = np.average(unit[d.y == c], axis=0, weights=d.weights[d.y == c])
        np.testing.assert_allclose(parameters["centres"][c], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(head.scores(parameters, d.x.T), parameters["centres"] @ unit.T, atol=1e-6)


def test_bad_options():
    with pytest.raises(ValueError, match="metric='manhattan' is not known"):
        fitted("knn", data(), metric="manhattan")
    with pytest.raises(EmbeddingError, match="n_neighbors is 1 or more; got 0"):
        fitted("knn", data(), n_neighbors=0)
