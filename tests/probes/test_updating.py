"""Probes that go on learning, that are saved without their training places, and that are made of scikit-learn's."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.probes import validation
from geoemb_xr.probes.heads import Data, Head


def labelled(n=240, bands=5, seed=0):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((n, bands)) + 3).astype("f4")
    y = np.array(["oats", "rye", "wheat"])[(x[:, :3] + rng.standard_normal((n, 3))).argmax(1)]
    return x, y, rng.uniform(0.2, 4, n)


def array(**options):
    return gx.testing.synthetic("alphaearth", shape=(32, 32), **options).emb.year(2018)


def points(n=60):
    return gx.testing.scene().points(n, radius=150)


# --- update ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("alpha", [None, 3.0])
def test_an_updated_ridge_is_one_fitted_on_all_labels(values, alpha, tmp_path):
    x, y, w = labelled()
    y = x @ np.arange(1.0, 6) + np.random.default_rng(1).standard_normal(len(x)) if values else y
    options = {"method": "ridge", "alpha": alpha}
    first = gx.fit_probe(x[:150], y[:150], weights=w[:150], **options)
    again = gx.load_model(first.save(tmp_path / "first")).update(x[150:200], y[150:200], weights=w[150:200])
    again = gx.load_model(again.save(tmp_path / "again")).update(x[200:], y[200:], weights=w[200:])
    whole = gx.fit_probe(x, y, weights=w, **options)
    for name, expected in whole.parameters.items():
        np.testing.assert_allclose(again.parameters[name], expected, rtol=1e-5, atol=1e-6)
    assert again.counts == whole.counts
    assert again.scores["random"].keys() == whole.scores["random"].keys()


def test_the_old_regions_are_scored_before_and_after():
    x, y, _ = labelled()
    first = gx.fit_probe(x[:150], y[:150], method="ridge", alpha=2.0, cv=3)
    again = first.update(x[150:], y[150:])
    assert again.scores["old regions before"] == first.scores["random"]
    folds, codes = first.memory["folds"], np.unique(y, return_inverse=True)[1]
    found = np.empty(150, int)
    for fold in range(3):
        train = np.r_[np.flatnonzero(folds != fold), 150:240]
        centred = x[train] - x[train].mean(0, dtype=float)
        scale = np.sqrt((centred**2).mean())
        oracle = Ridge(alpha=2.0).fit(centred / scale, np.eye(3)[codes[train]])
        test = (x[:150][folds == fold] - x[train].mean(0, dtype=float)) / scale
        found[folds == fold] = oracle.predict(test).argmax(1)
    expected = balanced_accuracy_score(codes[:150], found)
    assert again.scores["old regions after"]["balanced_accuracy"] == pytest.approx(expected, abs=1e-6)
    assert "labels known before the update" in again._repr_html_()
    few = first.update(x[150:][y[150:] != "rye"], y[150:][y[150:] != "rye"])  # a class that is not met again
    assert len(np.unique(few.memory["folds"])) == len(few.memory["sums_fold"]) > 3


def test_every_pixel_and_then_some_points():
    da = array()
    raster = gx.testing.scene().truth(da.emb.geobox, 2018)
    first = da.emb.fit_probe(raster, method="ridge", n_samples="all")
    names = dict(zip(first.legend.names, first.legend.values, strict=True))
    table = points()
    again = first.update(da, table.assign(code=table.land_cover.map(names)), target="code")
    assert sum(again.counts.values()) == da.sizes["y"] * da.sizes["x"] + len(table)
    assert "old regions after" in again.scores


def test_what_cannot_go_on_learning_says_so():
    x, y, _ = labelled()
    with pytest.raises(EmbeddingError, match="this knn probe cannot go on learning"):
        gx.fit_probe(x, y, method="knn", cv=0).update(x, y)
    ridge = gx.fit_probe(x, y, method="ridge", cv=0)
    assert ridge.update(x, y).scores == {}
    with pytest.raises(EmbeddingError, match=r"classes \['barley'\] that the probe does not know"):
        ridge.update(x, np.where(y == "rye", "barley", y))
    with pytest.raises(EmbeddingError, match="the probe takes 5 bands; the new vectors have 4"):
        ridge.update(x[:, :4], y)
    with pytest.raises(EmbeddingError, match="the probe does classification; the new labels are float32"):
        ridge.update(x, x[:, 0])


def test_a_table_of_vectors_is_an_array_of_points():
    da = array()
    table = points().drop(columns="year").assign(code=pd.array([1, 2, None] * 20, "Int64"))
    sampled = da.emb.sample(table).emb.to_dataframe()
    expected = da.emb.fit_probe(table, target="land_cover", method="ridge", cv=0)
    probe = gx.fit_probe(sampled, target="land_cover", method="ridge", cv=0)
    assert (probe.product, probe.bands, probe.counts) == (expected.product, expected.bands, expected.counts)
    np.testing.assert_allclose(
        probe.parameters["weights"], expected.parameters["weights"], rtol=1e-5, atol=1e-6
    )
    assert gx.fit_probe(sampled, target="code", method="knn", cv=0).dropped == {"no label": 20}
    assert sum(probe.update(sampled, target="land_cover").counts.values()) == 120
    with pytest.raises(
        EmbeddingError, match=r"the table has the bands of no product; say which with gx\.wrap"
    ):
        gx.fit_probe(sampled.drop(columns="A07"), target="land_cover")


# --- without places -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["logistic", "ridge", "centroid"])
def test_a_private_file_holds_no_training_vector(method, tmp_path):
    x, y, _ = labelled()
    probe = gx.fit_probe(x, y, method=method)
    again = gx.load_model(probe.save(tmp_path / "private", private=True))
    np.testing.assert_array_equal(again.apply(x, "set"), probe.apply(x, "set"))
    assert again.scores == probe.scores
    assert "aoa" not in again.outputs()
    with np.load(tmp_path / "private.npz") as stored:
        rows = [a for a in (stored[n] for n in stored.files) if a.ndim > 1 and len(a) >= len(x)]
        assert rows == []
    with np.load(probe.save(tmp_path / "open")) as stored:
        assert any(len(stored[n]) == len(x) for n in stored.files if stored[n].ndim > 1)


def test_a_probe_of_nothing_but_vectors_is_not_private(tmp_path):
    x, y, _ = labelled()
    for probe in (
        gx.fit_probe(x, y, method="knn"),
        gx.fit_probe(x[:3], list("abc"), method="centroid", cv=0),
    ):
        with pytest.raises(EmbeddingError, match="holds training vectors, which reveal their places"):
            probe.save(tmp_path / "never", private=True)
    assert list(tmp_path.iterdir()) == []


# --- estimators of scikit-learn -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator",
    [make_pipeline(StandardScaler(), LogisticRegression()), LinearSVC(), KNeighborsClassifier(3)],
    ids=lambda e: type(e).__name__,
)
def test_an_estimator_is_scored_as_scikit_learn_scores_it(estimator):
    x, y, _ = labelled()
    groups = np.arange(len(x)) // 4
    probe = gx.fit_probe(x, y, method=estimator, group=groups, cv=4)
    data = Data(x, np.unique(y, return_inverse=True)[1], np.ones(len(x)), groups, 3, 0)
    split = PredefinedSplit(validation.random_folds(data, 4))
    found = cross_val_predict(estimator, x, y, cv=split)
    assert probe.scores["random"]["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(y, found), abs=1e-6
    )
    np.testing.assert_array_equal(
        np.array(probe.legend.names)[probe.apply(x, "label") - 1], estimator.fit(x, y).predict(x)
    )
    assert {"proba", "set", "aoa", "distance"} <= set(probe.outputs())
    assert 0.7 < np.mean(list(probe.scores["coverage"].values())) <= 1


def test_a_forest_maps_the_scene():
    da = array(missing=True)
    probe = da.emb.fit_probe(
        points(), target="land_cover", method=RandomForestClassifier(20, random_state=0), cv=2
    )
    assert probe.method == "RandomForestClassifier"
    found = da.chunk(y=16).emb.predict(probe, output=["label", "aoa"])
    empty = np.isnan(da.values).any(axis=0)
    assert (found.label.values[empty] == 0).all()
    assert (found.label.values[~empty] != 0).all()


def test_an_estimator_takes_weights_where_it_can():
    x, y, w = labelled()
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    probe = gx.fit_probe(x, y, method=pipeline, weights=w, cv=0)
    oracle = pipeline.fit(x, y, logisticregression__sample_weight=w / w.mean())
    np.testing.assert_allclose(probe.apply(x, "proba"), oracle.predict_proba(x), atol=1e-5)
    with pytest.raises(EmbeddingError, match="KNeighborsClassifier takes no weights"):
        gx.fit_probe(x, y, method=KNeighborsClassifier(), weights=w)


def test_weights_go_through_searches_and_pipelines():
    x, y, w = labelled()
    inner = make_pipeline(StandardScaler(), LogisticRegression())
    search = GridSearchCV(inner, {"logisticregression__C": [0.01, 1.0]}, cv=2)
    probe = gx.fit_probe(x, y, method=search, weights=w, cv=0)
    oracle = clone(search).fit(x, y, logisticregression__sample_weight=w / w.mean())
    np.testing.assert_allclose(probe.apply(x, "proba"), oracle.predict_proba(x), atol=1e-5)
    with pytest.raises(EmbeddingError, match="takes no weights"):
        gx.fit_probe(x, y, method=GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1]}), weights=w)


def test_an_estimator_draws_from_the_seed_of_the_probe():
    x, y, _ = labelled()
    forest = make_pipeline(StandardScaler(), RandomForestClassifier(5))
    first, again = (gx.fit_probe(x, y, method=forest, cv=2, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.apply(x, "proba"), again.apply(x, "proba"))
    assert first.scores == again.scores
    seeded = make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=3)).fit(x, y)
    np.testing.assert_allclose(
        first.parameters["estimator"].predict_proba(x), seeded.predict_proba(x), atol=1e-12
    )
    assert forest.get_params()["randomforestclassifier__random_state"] is None


def test_an_estimator_of_values():
    x, _, _ = labelled()
    y = x.sum(1).astype(float)
    probe = gx.fit_probe(x, y, method=LinearRegression())
    np.testing.assert_allclose(probe.apply(x, "value"), y, rtol=1e-4)
    assert probe.scores["random"]["r2"] > 0.99
    with pytest.raises(EmbeddingError, match="method='LinearRegression' does no classification"):
        gx.fit_probe(x, y > y.mean(), method=LinearRegression())


def test_what_is_no_method(tmp_path):
    x, y, _ = labelled()
    with pytest.raises(
        ValueError, match=r"method='svm' is not known; valid are 'ridge'.*such as method=LinearSVC\(\)"
    ):
        gx.fit_probe(x, y, method="svm")
    with pytest.raises(EmbeddingError, match="got RandomForestClassifier; call it"):
        gx.fit_probe(x, y, method=RandomForestClassifier)
    with pytest.raises(EmbeddingError, match="KMeans is neither a classifier nor a regressor"):
        gx.fit_probe(x, y, method=KMeans())
    with pytest.raises(EmbeddingError, match="got int"):
        gx.fit_probe(x, y, method=3)
    with pytest.raises(EmbeddingError, match="LinearSVC is Python code, which no file without pickles holds"):
        gx.fit_probe(x, y, method=LinearSVC(), cv=0).save(tmp_path / "never")
    assert list(tmp_path.iterdir()) == []


# --- tuning ---------------------------------------------------------------------------------------------------


def chosen(options):
    """What is tuned where C = 0.1 is right for half, C = 1 for nearly as many as C = 10, with some scatter."""
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 200)
    group = np.arange(400) // 100
    share = np.array([0.05, 0.10, 0.15, 0.20])[group]  # never right
    least = np.where(rng.uniform(size=400) < 0.5, 0.1, 1.0)
    least[::40] = 10.0
    least[rng.uniform(size=400) < share] = np.inf
    x = np.column_stack([y, least]).astype("f4")

    def scores(parameters, x):
        label = np.where(parameters["C"] >= x[1] - 1e-6, x[0], 1 - x[0])
        return np.stack([1 - label, label]).astype("f4")

    stub = Head(
        lambda data, *, C: {"C": np.array(C)}, scores, ("classification",), {"C": 1.0},
        penalties={"C": [0.1, 1.0, 10.0]},
    )  # fmt: skip
    data = Data(x, y, np.ones(400), group, 2, 0, named=True)
    return validation.tuned(stub, data, options, 5)["C"]


def test_auto_takes_the_strongest_within_one_standard_error_of_the_best():
    assert chosen({"C": [0.1, 1.0, 10.0]}) == 10.0
    assert chosen({"C": "auto"}) == 1.0
    assert chosen({"C": 0.1}) == 0.1


def test_tuning_leaves_out_the_groups_that_were_named():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 4, 80)
    places = rng.uniform(0, 1000, (80, 2))
    data = Data(np.ones((80, 2), "f4"), np.arange(80) % 2, np.ones(80), group, 2, 0, places, named=True)
    folds = validation.tuning_folds(data, 3)
    assert len(np.unique(np.stack([folds, group]), axis=1).T) == 4
    np.testing.assert_array_equal(
        validation.tuning_folds(data._replace(named=False), 3),
        validation.blocked_folds(data._replace(named=False), 3),
    )
    two = data._replace(groups=group % 2)
    np.testing.assert_array_equal(validation.tuning_folds(two, 3), validation.blocked_folds(two, 3))


@pytest.mark.parametrize(("method", "name"), [("logistic", "C"), ("ridge", "alpha")])
def test_auto_is_a_number_in_the_end(method, name):
    x, y, _ = labelled(90)
    probe = gx.fit_probe(x, y, method=method, cv=2, group=np.arange(90) // 30, **{name: "auto"})
    assert isinstance(probe.options[name], float)
    again = gx.fit_probe(x, y, method=method, cv=0, **{name: probe.options[name]})
    for key, value in probe.parameters.items():
        np.testing.assert_array_equal(again.parameters[key], value)
