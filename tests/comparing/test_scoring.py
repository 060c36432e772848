"""Scores of held-out predictions, against scikit-learn and closed forms."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

import geoemb_xr as gx
from geoemb_xr.comparing import contrasts, grouping, scoring
from geoemb_xr.comparing.folds import Split
from geoemb_xr.comparing.support import support_of
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.probes import validation
from geoemb_xr.probes.heads import Data

N = 200
rng = np.random.default_rng(0)
SCORES = rng.normal(0, 2, (3, N)).astype("f4")
Y = np.where(rng.random(N) < 0.6, SCORES.argmax(axis=0), rng.choice(3, N, p=[0.1, 0.4, 0.5]))
WEIGHTS = rng.uniform(0.2, 3, N)
DATA = Data(rng.normal(0, 1, (N, 4)).astype("f4"), Y, WEIGHTS, np.arange(N), 3, 0, rng.random((N, 3)) * 1e4)
HELD = scoring.HeldOut(SCORES, np.full(N, 1.7), np.linspace(1, 1000, N))


def test_scores_of_classes_are_scikit_learns():
    proba, label = HELD.proba, SCORES.argmax(axis=0)
    w = {"sample_weight": WEIGHTS}
    found = scoring.measures(DATA, SCORES, np.array([]), proba)
    expected = {
        "accuracy": metrics.accuracy_score(Y, label, **w),
        "balanced_accuracy": metrics.balanced_accuracy_score(Y, label, **w),
        "f1": metrics.f1_score(Y, label, average="macro", **w),
        "kappa": metrics.cohen_kappa_score(Y, label, **w),
        "log_loss": metrics.log_loss(Y, proba.T, **w),
        "brier": WEIGHTS @ ((proba - np.eye(3)[Y].T) ** 2).sum(axis=0) / WEIGHTS.sum(),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_scores_with_an_absent_and_a_never_predicted_class_are_scikit_learns():
    y, label = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    data = Data(np.zeros((5, 1), "f4"), y, np.ones(5), np.arange(5), 3, 0)
    found = validation.measures(data, (np.arange(3)[:, None] == label).astype("f4"))
    assert found["f1"] == pytest.approx(metrics.f1_score(y, label, average="macro"), abs=1e-6)
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(y, label), abs=1e-6)


def test_calibration_error_is_that_of_the_definition():
    confidence, right = HELD.proba.max(axis=0), SCORES.argmax(axis=0) == Y
    total = 0.0
    for low in np.arange(10) / 10:
        inside = (confidence > low) & (confidence <= low + 0.1)
        if inside.any():
            w = WEIGHTS[inside]
            total += w.sum() / WEIGHTS.sum() * abs((w @ right[inside] - w @ confidence[inside]) / w.sum())
    assert scoring.measures(DATA, SCORES, np.array([]), HELD.proba)["ece"] == pytest.approx(total, abs=1e-6)
    assert sum(row["n"] for row in scoring.calibration_curve(DATA, HELD.proba)) == N


def test_each_class_has_scikit_learns_precision_recall_and_auprc():
    precision, recall, _, counts = metrics.precision_recall_fscore_support(Y, SCORES.argmax(axis=0))
    plain = DATA._replace(weights=np.ones(N))
    rows = pd.DataFrame(scoring.by_class(plain, HELD, ("a", "b", "c")))
    np.testing.assert_allclose(rows[["precision", "recall"]], np.column_stack([precision, recall]))
    expected = [metrics.average_precision_score(c == Y, HELD.proba[c]) for c in range(3)]
    np.testing.assert_allclose(rows["auprc"], expected)
    assert rows["n"].tolist() == counts.tolist()
    assert rows["rare"].tolist() == (counts / N < 0.5 / 3).tolist()


def test_values_are_scored_about_all_means_and_about_regions():
    y = Y + 10.0 * (np.arange(N) % 2)
    data = DATA._replace(y=y, classes=0)
    guess = (y + np.random.default_rng(1).normal(0, 1, N)).astype("f4")[None]
    found = scoring.measures(data, guess, (np.arange(N) % 2).astype(str))
    assert found["r2"] == pytest.approx(metrics.r2_score(y, guess[0], sample_weight=WEIGHTS), abs=1e-6)
    left = [
        np.average((y - guess[0])[k::2] ** 2, weights=WEIGHTS[k::2]) * WEIGHTS[k::2].sum() for k in (0, 1)
    ]
    about = [WEIGHTS[k::2] @ (y[k::2] - np.average(y[k::2], weights=WEIGHTS[k::2])) ** 2 for k in (0, 1)]
    assert found["r2_within"] == pytest.approx(1 - sum(left) / sum(about), abs=1e-5)


def test_temperature_is_told_inside_the_training_part():
    """What is tested must not move it."""
    split = Split("blocks", np.arange(N) % 5, 0.0)
    predict = scoring.probe_predictor(DATA, "ridge")
    before = scoring.held(predict, DATA, split, calibrate=True).temperature
    other = DATA._replace(y=np.where(split.folds == 2, (Y + 1) % 3, Y))
    after = scoring.held(scoring.probe_predictor(other, "ridge"), other, split, calibrate=True).temperature
    assert (after[split.folds == 2] == before[split.folds == 2]).all()
    assert (after[split.folds == 1] != before[split.folds == 1]).all()


def test_conformal_sets_cover_what_they_promise():
    split = Split("random", np.arange(N) % 5, 0.0, units=np.arange(N) // 10)
    rows = pd.DataFrame(scoring.coverage_by_unit(DATA, HELD, split, 0.8))
    assert rows["n"].tolist() == [10] * 20
    assert rows["coverage"].mean() == pytest.approx(0.8, abs=0.06)


def test_distances_have_equally_many_labels_and_their_own_scores():
    rows = pd.DataFrame(scoring.by_distance(DATA._replace(weights=np.ones(N)), HELD, bins=4))
    assert rows["n"].tolist() == [50] * 4
    near = metrics.balanced_accuracy_score(Y[:50], SCORES[:, :50].argmax(axis=0))
    assert rows["value"][0] == pytest.approx(near, abs=1e-6)
    assert rows["metres"].is_monotonic_increasing


def test_shares_of_labels_add_up_to_the_score():
    found = validation.measures(DATA, SCORES)["balanced_accuracy"]
    assert contrasts.correctness(DATA, SCORES).sum() == pytest.approx(found, abs=1e-6)
    values = DATA._replace(y=Y.astype(float), classes=0)
    r2 = metrics.r2_score(Y, SCORES[0], sample_weight=WEIGHTS)
    assert contrasts.correctness(values, SCORES[:1]).sum() == pytest.approx(r2)


def test_intervals_hold_the_score_and_need_six_blocks():
    plain = DATA._replace(weights=np.ones(N))
    low, high = contrasts.interval(plain, SCORES, np.arange(N), 0.95, 0)
    value = metrics.balanced_accuracy_score(Y, SCORES.argmax(axis=0))
    assert low < value < high
    recalls = metrics.recall_score(Y, SCORES.argmax(axis=0), average=None)
    error = np.sqrt((recalls * (1 - recalls) / np.bincount(Y)).sum()) / 3  # as if strata were fixed
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.25)
    assert np.isnan(contrasts.interval(plain, SCORES, np.arange(N) % 5, 0.95, 0)).all()
    values = plain._replace(y=Y.astype(float), classes=0)
    low, high = contrasts.interval(values, SCORES[:1], np.arange(N), 0.95, 0)
    assert low < metrics.r2_score(Y, SCORES[0]) < high


def test_groups_are_compared_over_classes_that_all_have():
    y = np.concatenate([np.arange(60) % 3, np.arange(60) % 2])
    data = DATA.at(np.arange(120))._replace(y=y, weights=np.ones(120))
    by = np.repeat(["a", "b"], 60)
    assert grouping.common_classes(data, by).tolist() == [0, 1]
    held = scoring.HeldOut(SCORES[:, :120], np.ones(120), np.ones(120))
    rows = grouping.by_groups(data, held, by, np.arange(120) % 8, 0.95, 0)
    own = (y < 2) & (by == "a")
    right = SCORES[:, :120].argmax(axis=0) == y
    expected = np.mean([right[own & (y == each)].mean() for each in (0, 1)])
    assert rows[0]["common"] == pytest.approx(expected, abs=1e-6)


# --- products of unlike footprint and length, designs, features ---------------------------------------------------


@pytest.fixture(scope="module")
def unlike():
    """A fine raster of few bands, a coarse one of more, and labels that follow the fine one."""
    grid = gx.testing.geobox((64, 64))
    fine = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    coarse = gx.testing.synthetic("tessera", shape=(64, 64)).emb.year(2018).emb.coarsen(8)
    labels = gx.labels(gx.testing.scene().truth(grid, 2018), per_class=40)
    return {"fine": fine, "coarse": coarse}, labels


@pytest.mark.usefixtures("no_location_encoder")
def test_the_finer_product_is_averaged_over_the_coarsers_pixel(unlike):
    arrays, labels = unlike
    support = support_of(arrays, labels)
    assert list(support.common) == ["fine"]
    means = gx.coarsen(arrays["fine"], 8)
    there = gx.sample(means, labels).transpose("location", "band").values
    kept = np.isfinite(there).all(axis=1)
    assert len(support.y) == kept.sum()
    np.testing.assert_allclose(support.common["fine"], there[kept], atol=2e-3)
    # labels in one coarse pixel are one group, and purity is their share of one class
    values, group = gx.sample(arrays["coarse"], labels).values[kept, 0], support.groups
    for g in np.unique(group):
        own = group == g
        assert np.ptp(values[own]) == 0
        if own.sum() >= 4:
            shares = np.bincount(support.y[own])[support.y[own]] / own.sum()
            np.testing.assert_allclose(support.purity[own], shares)
        else:
            assert np.isnan(support.purity[own]).all()


@pytest.mark.usefixtures("no_location_encoder")
def test_rows_for_common_support_equal_dims_and_purity(unlike):
    arrays, labels = unlike
    found = gx.evaluate(arrays, labels, methods=["ridge"], splits=["random"], n_labels=[None])
    assert list(found.supports().columns) == ["native", "common", "equal dims"]
    table = found.supports()
    assert table.loc[("coarse", "ridge"), "native"] == table.loc[("coarse", "ridge"), "common"]
    assert table.loc[("fine", "ridge"), "native"] == table.loc[("fine", "ridge"), "equal dims"]
    assert table.loc[("fine", "ridge"), "native"] > table.loc[("fine", "ridge"), "common"]
    assert set(found.strata.cell) == {"pure", "mixed"}
    native = found.strata[found.strata.support == "native"].set_index(["product", "cell"]).value
    assert native["coarse", "pure"] > native["coarse", "mixed"]


@pytest.mark.usefixtures("no_location_encoder")
def test_patches_have_the_labels_inside_of_them(unlike):
    arrays, _ = unlike
    fine = arrays["fine"]
    patches = gx.open("earth-index", gx.example("earth-index"))
    here = pd.DataFrame({"lon": patches.x.values[:40].repeat(3), "lat": patches.y.values[:40].repeat(3)})
    here["kind"] = np.where(np.arange(120) // 3 % 2, "a", "b")
    support = support_of({"patches": patches}, here)
    np.testing.assert_array_equal(support.vectors["patches"], patches.values[:40].repeat(3, axis=0))
    assert len(np.unique(support.groups)) == 40
    assert fine.dims[0] == "band"


@pytest.mark.usefixtures("no_location_encoder")
def test_a_probability_sample_weighs_and_says_which_question_it_answers(unlike):
    arrays, _ = unlike
    truth = gx.testing.scene().truth(gx.testing.geobox((64, 64)), 2018)
    design = gx.sample_design(truth, 150, least=10)
    design = design.assign(label=design.stratum)
    given = {"fine": arrays["fine"]}
    found = gx.evaluate(given, design, target="label", design="stratified", methods=["ridge"], splits=["blocks"],
                        n_labels=[None])  # fmt: skip
    assert found.splits.loc["random", "answers"].startswith("the map's accuracy")
    weight = design.stratum_ha / design.groupby("stratum").label.transform("size")
    support = support_of(given, design, target="label", design=weight.to_numpy())
    np.testing.assert_allclose(support.weights, weight)
    same = gx.evaluate(given, design, target="label", design=weight.to_numpy(), methods=["ridge"],
                       splits=["random"], n_labels=[None])  # fmt: skip
    assert same.table().loc[("fine", "ridge"), "random"] == found.table().loc[("fine", "ridge"), "random"]
    with pytest.raises(EmbeddingError, match="the area that it stands for"):
        support_of(given, design, target="label", design=-weight.to_numpy())


@pytest.mark.usefixtures("no_location_encoder")
def test_features_and_declared_contrasts(unlike):
    arrays, labels = unlike
    labels = labels.assign(raw=np.arange(len(labels)) * 1.0, other=np.nan)
    raster = arrays["fine"].isel(band=slice(3)).rename(band="feature").drop_vars("feature")
    raster.attrs = {}
    several = {"a": arrays["fine"], "b": arrays["fine"], "c": arrays["fine"]}
    found = gx.evaluate(several, labels, target="land_cover", methods=["ridge"], splits=["blocks"], n_labels=[None],
                        features={"raw": ["raw"], "composite": raster}, contrasts=[("a", "c")])  # fmt: skip
    assert found.differences[["a", "b"]].to_numpy().tolist() == [["a", "c"]]
    assert found.differences.difference.item() == 0
    scores = found.table()["blocks"]
    assert scores["composite", "ridge"] > scores["raw", "ridge"]
    with pytest.raises(EmbeddingError, match="contrasts are pairs"):
        gx.evaluate(several, labels, target="land_cover", contrasts=[("a", "x")])
    with pytest.raises(EmbeddingError, match="domain="):
        gx.evaluate(several, labels, target="land_cover", splits=["knndm"])
