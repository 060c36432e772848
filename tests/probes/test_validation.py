"""Folds that part no group, calibrated probabilities and sets, and where a probe applies."""

import dataclasses

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from labelled_scene import array, fields, points, truth

import geoemb_xr as gx
from geoemb_xr.probes import applicability, validation
from geoemb_xr.probes import samples as drawing
from geoemb_xr.probes.checking import coverage_by_fold
from geoemb_xr.probes.heads import Data
from geoemb_xr.probes.scores import quantile


def test_no_fold_parts_a_group():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 600)
    groups = np.unique(groups, return_inverse=True)[1]
    data = Data(
        rng.standard_normal((600, 3)).astype("f4"), rng.integers(0, 3, 600), np.ones(600), groups, 3, 0,
        rng.uniform(0, 1000, (40, 2))[groups],
    )  # fmt: skip
    for folds in (validation.random_folds(data, 5), validation.blocked_folds(data, 5)):
        assert len(np.unique(folds)) == 5
        assert len(np.unique(np.stack([groups, folds]), axis=1).T) == 40


def test_tuning_never_sees_the_fold_it_is_scored_on(monkeypatch):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 4)).astype("f4")
    known = {row.tobytes(): i for i, row in enumerate(x)}
    seen = []
    tuned = validation.tuned

    def spy(head, data, options, k):
        seen.append({known[row.tobytes()] for row in data.x})
        return tuned(head, data, options, k)

    monkeypatch.setattr(validation, "tuned", spy)
    # the whole is tuned on all labels first, and on one fold less for each score
    gx.fit_probe(x, rng.integers(0, 2, 60), method="ridge", alpha=[0.1, 10.0], cv=3)
    assert len(seen) == 4
    assert seen[0] == set(range(60))
    left_out = [set(range(60)) - each for each in seen[1:]]
    assert sorted(i for each in left_out for i in each) == list(range(60))
    assert min(map(len, left_out)) > 0


def test_coverage_is_calibrated_on_the_other_folds():
    unlikely = np.repeat([0.9, 0.1, 0.2], 50).astype("f4")
    folds = np.repeat([0, 1, 2], 50)
    assert coverage_by_fold(unlikely, folds) == {"fold 1": 0.0, "fold 2": 1.0, "fold 3": 1.0}


def test_random_labels_on_fields_score_chance():
    # Design: pixels of a field are nearly copies, so random folds would reward memory.
    da = array()
    rng = np.random.default_rng(0)
    frame = fields().assign(crop=rng.integers(1, 5, 121))
    probe = da.emb.fit_probe(frame, target="crop", method="knn", n_neighbors=1)
    for kind in ("blocked", "random"):
        assert probe.scores[kind]["balanced_accuracy"] < 0.36, kind
    parted = da.emb.fit_probe(frame, target="crop", method="knn", n_neighbors=1, group=None)
    assert parted.scores == probe.scores


def test_random_labels_on_fields_of_the_real_chip(real_data):
    """Design rule 14: by pixel such labels seem to be learnt, by field they are not."""
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    da = gx.open("alphaearth", real_data / "alphaearth-raster" / "aef_wi_2024_int8_northup.tif").isel(time=0)
    grid = da.emb.geobox
    rng = np.random.default_rng(0)
    squares = [
        shapely.box(*(grid.affine * (10 * i, 10 * j + 10)), *(grid.affine * (10 * i + 10, 10 * j)))
        for i in range(10)
        for j in range(10)
    ]
    frame = gpd.GeoDataFrame({"crop": rng.integers(1, 5, 100)}, geometry=squares, crs=da.emb.crs)
    probe = da.emb.fit_probe(frame, target="crop", method="knn", n_neighbors=1)
    samples, _ = drawing.samples_of(da, frame, "crop", None, None, None)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    naive = cross_val_score(
        KNeighborsClassifier(1), samples.vectors, samples.labels, cv=folds, scoring="balanced_accuracy"
    ).mean()
    assert naive > 0.8
    assert probe.scores["random"]["balanced_accuracy"] < 0.4
    assert probe.scores["blocked"]["balanced_accuracy"] < 0.4


@pytest.mark.parametrize("method", ["logistic", "ridge"])
def test_the_defaults_hold_abroad(real_data, method):
    """Balanced agreement with Dynamic World; on standardised bands it was 0.39 and 0.30 with a region left out."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

    files = sorted((real_data / "alphaearth-points").glob("*.csv"))
    table = pd.concat([pd.read_csv(path) for path in files], ignore_index=True)
    table = table[table.dw_label.isin([0, 1, 4, 6, 7])]  # the sound classes
    x, y = table[list(gx.product("alphaearth").bands)].to_numpy("f4"), table.dw_label.to_numpy()
    abroad = gx.fit_probe(x, y, method=method, group=table.region, cv=2).scores["random"]["balanced_accuracy"]
    plain = LogisticRegression(max_iter=1000)
    found = cross_val_predict(plain, x.astype("f8"), y, cv=LeaveOneGroupOut(), groups=table.region)
    assert abroad > max(0.64, balanced_accuracy_score(y, found) - 0.03)
    assert gx.fit_probe(x, y, method=method, cv=2).scores["random"]["balanced_accuracy"] > 0.84


def test_temperature_makes_probabilities_right():
    rng = np.random.default_rng(0)
    true = rng.standard_normal((4, 20_000))
    y = (true + rng.gumbel(size=true.shape)).argmax(0)  # Gumbel's trick: P(y) = softmax(true)
    data = Data(np.empty((20_000, 1), "f4"), y, np.ones(20_000), np.arange(20_000), 4, 0)
    assert validation.temperature_of(data, 5 * true) == pytest.approx(5, rel=0.03)
    assert validation.temperature_of(data, true / 3) == pytest.approx(1 / 3, rel=0.03)


@pytest.mark.parametrize("missing", [False, True])
def test_the_temperature_is_that_of_scipys_likelihood(missing):
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    rng = np.random.default_rng(0)
    y = rng.integers(1, 4, 200)
    scores = rng.integers(-2, 3, (4, 200)).astype("f4")  # many are largest together
    scores[y, np.arange(200)] += 1
    if missing:
        scores[0] = validation.NEVER
    data = Data(np.empty((200, 1), "f4"), y, rng.random(200), np.arange(200), 4, 0)

    def loss(log_temperature):
        scaled = scores.astype("f8") * np.exp(-log_temperature)
        return data.weights @ (logsumexp(scaled, axis=0) - scaled[y, np.arange(200)])

    expected = np.exp(minimize_scalar(loss, bounds=np.log([1e-3, 1e3]), options={"xatol": 1e-6}).x)
    assert validation.temperature_of(data, scores) == pytest.approx(expected, rel=1e-6)


def test_a_class_that_a_fold_never_saw_does_not_spoil_the_temperature():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 3)).astype("f4")
    y = np.repeat([0, 1, 2], 30)
    x[:, 0] += 3 * y
    probe = gx.fit_probe(x, np.array(["a", "b", "c"])[y], group=np.where(y == 2, 1000, np.arange(90)))
    assert 0.01 < probe.temperature < 20


# --- trust ----------------------------------------------------------------------------------------------------


def test_conformal_quantile_is_mapies():
    rng = np.random.default_rng(0)
    for n in (9, 10, 50, 333):
        scores = np.sort(rng.uniform(size=n))
        for level in (0.5, 0.8, 0.9):
            rank = int(np.ceil((n + 1) * level))
            expected = scores[rank - 1] if rank <= n else np.inf
            assert quantile(scores, level) == expected
    assert quantile(np.sort(rng.uniform(size=8)), 0.9) == np.inf  # too few: every class


def test_conformal_sets_are_mapies():
    mapie = pytest.importorskip("mapie.classification")
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.standard_normal((900, 4)).astype("f4")
    y = (x[:, :3] + 0.8 * rng.standard_normal((900, 3))).argmax(1)
    model = LogisticRegression().fit(x[:300], y[:300])
    oracle = mapie.SplitConformalClassifier(
        model, confidence_level=0.9, conformity_score="lac", prefit=True
    ).conformalize(x[300:600], y[300:600])
    _, sets = oracle.predict_set(x[600:])
    unlikely = np.sort(1 - model.predict_proba(x[300:600])[np.arange(300), y[300:600]])
    ours = 1 - model.predict_proba(x[600:]) <= quantile(unlikely, 0.9)
    np.testing.assert_array_equal(ours, sets[..., 0])


def test_sets_cover_what_is_exchangeable():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 4)).astype("f4")
    y = (x[:, :3] + 0.8 * rng.standard_normal((4000, 3))).argmax(1) + 1
    probe = gx.fit_probe(x[:2000], y[:2000])
    for coverage in (0.8, 0.95):
        model = dataclasses.replace(probe, coverage=coverage)
        sets = model.apply(x[2000:], "set")
        assert sets[np.arange(2000), y[2000:] - 1].mean() == pytest.approx(coverage, abs=0.025)
    assert all(0.8 < v <= 1 for v in probe.scores["coverage"].values())


def test_intervals_of_a_regression():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 4)).astype("f4")
    y = x[:, 0] + rng.standard_normal(4000)
    probe = gx.fit_probe(x[:2000], y[:2000], method="ridge")
    low, high = (probe.apply(x[2000:], end) for end in ("lower", "upper"))
    assert ((low <= y[2000:]) & (y[2000:] <= high)).mean() == pytest.approx(0.9, abs=0.02)
    assert probe.scores["random"]["r2"] == pytest.approx(0.5, abs=0.05)


def test_dissimilarity_is_its_published_definition():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((150, 5)) * [1, 2, 3, 4, 5]).astype("f4")
    folds = np.arange(150) % 4
    data = Data(x, np.zeros(150), np.ones(150), np.arange(150), 0, 0)
    found = applicability.fit_applicability(data, folds)
    z = (x - x.mean(0)) / x.std(0)
    pairs = np.linalg.norm(z[:, None] - z, axis=2)
    mean = pairs[np.triu_indices(150, 1)].mean()
    own = np.array([pairs[i, folds != folds[i]].min() for i in range(150)]) / mean
    low, high = np.quantile(own, [0.25, 0.75])
    assert found["threshold"] == pytest.approx(min(high + 1.5 * (high - low), own.max()), rel=1e-4)
    new = (rng.standard_normal((40, 5)) * 4).astype("f4")
    expected = np.linalg.norm((new - x.mean(0))[:, None] / x.std(0) - z, axis=2).min(1) / mean
    np.testing.assert_allclose(applicability.dissimilarity(found, new.T), expected, rtol=1e-4)


def test_what_is_unlike_the_labels_is_outside():
    da = array()
    table = points()
    grass = table[table.land_cover.isin(["grassland", "maize"])]
    probe = da.emb.fit_probe(grass, target="land_cover")
    inside = da.emb.predict(probe, output="aoa").values == 1
    known = np.isin(truth(da), ["grassland", "maize"])
    assert inside[known].mean() > 0.9
    assert inside[~known].mean() < 0.3


@pytest.mark.parametrize("weighted", [False, True])
def test_measures_of_values_are_scikit_learns(weighted):
    from sklearn import metrics

    rng = np.random.default_rng(1)
    true = rng.normal(size=50)
    weights = rng.uniform(0.1, 3, 50) if weighted else np.ones(50)
    said = (true + rng.normal(size=50) / 3).astype(np.float32)
    found = validation.measures(Data(np.empty((50, 1)), true, weights, np.arange(50), 0, 0), said[None])
    assert found == {
        "r2": round(metrics.r2_score(true, said, sample_weight=weights), 6),
        "rmse": round(metrics.root_mean_squared_error(true, said, sample_weight=weights), 6),
        "mae": round(metrics.mean_absolute_error(true, said, sample_weight=weights), 6),
    }


def test_values_that_are_all_the_same_score_as_scikit_learn_has_it():
    flat = Data(np.empty((4, 1)), np.full(4, 2.0), np.ones(4), np.arange(4), 0, 0)
    assert validation.measures(flat, np.full((1, 4), 2.0))["r2"] == 1.0
    assert validation.measures(flat, np.full((1, 4), 3.0))["r2"] == 0.0
