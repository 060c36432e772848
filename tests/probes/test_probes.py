"""Labels in, probes out: what is dropped, what is grouped, what is scored, what is saved."""

import pathlib

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from labelled_scene import SCENE, array, label_raster, named, points, truth
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import geoemb_xr as gx
from geoemb_xr.core.errors import ComparabilityError, CoverageError, EmbeddingError, SourceError
from geoemb_xr.probes import streaming, validation
from geoemb_xr.probes.heads import HEADS
from geoemb_xr.probes.scores import softmax


def test_a_class_for_nearly_every_label_is_no_classification():
    table = points(60).assign(number=range(60))
    with pytest.raises(EmbeddingError, match=r"60 labels are of 60 classes .* the column of labels\?"):
        array().emb.fit_probe(table, target="number")
    few = points(8).assign(place=list("abcdefgh"))
    assert len(array().emb.fit_probe(few, target="place", method="centroid", cv=0).legend.names) == 8


@pytest.mark.parametrize("method", ["logistic", "ridge", "knn", "centroid"])
@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
def test_few_labels_map_the_scene(method, product):
    da = gx.testing.synthetic(product, shape=(96, 96)).emb.year(2018)
    probe = da.emb.fit_probe(points(), target="land_cover", method=method)
    right = named(da.emb.predict(probe), probe.legend) == truth(da)
    assert right.mean() > 0.97
    assert probe.scores["random"]["balanced_accuracy"] > 0.9
    assert probe.confusion.sum() == 150


def test_ridge_of_every_pixel_is_scikit_learns():
    da, raster = label_raster()
    probe = da.chunk(y=40, x=32).emb.fit_probe(raster, method="ridge", n_samples="all", alpha=2.0)
    x, y = da.values.reshape(64, -1).T, raster.values.ravel()
    keep = ~np.isnan(x).any(axis=1) & (y != 0)
    centred = x[keep] - x[keep].mean(0, dtype=float)
    scale = np.sqrt((centred**2).mean())
    codes = np.unique(y[keep])
    model = Ridge(alpha=2.0).fit(centred / scale, (y[keep, None] == codes).astype(float))
    weights = model.coef_ / scale
    np.testing.assert_allclose(probe.parameters["weights"], weights, atol=1e-4 * abs(weights).max())
    assert probe.legend.values == tuple(codes)
    assert sum(probe.counts.values()) == keep.sum()
    assert list(probe.counts.values()) == [int((y[keep] == c).sum()) for c in codes]
    assert set(probe.scores) == {"blocked", "random", "coverage"}
    assert probe.scores["random"]["balanced_accuracy"] > 0.9
    assert "aoa" in probe.outputs()


def test_sums_do_not_depend_on_chunks():
    da, raster = label_raster()
    options = {"method": "ridge", "n_samples": "all", "alpha": [0.1, 10.0]}
    whole = da.emb.fit_probe(raster, **options)
    for chunks in ({"y": 40, "x": 96}, {"y": 33, "x": 17}):
        parts = da.chunk(chunks).emb.fit_probe(raster.chunk(y=50, x=31), **options)
        np.testing.assert_allclose(
            parts.parameters["weights"], whole.parameters["weights"], rtol=1e-5, atol=1e-6
        )
        assert (parts.counts, parts.scores, parts.options) == (whole.counts, whole.scores, whole.options)


def test_folds_of_sums_are_fits_without_them():
    """Random labels on the regions: what is left out was never seen, so it scores by chance."""
    da, raster = label_raster()
    streamed = streaming.stream(da, raster, 3, 0)
    inside = sum(streamed.sums[key].weight for key in streamed.sums if key[0] == 1)
    total = sum(each.weight for each in streamed.sums.values())
    assert 0 < inside < total
    rng = np.random.default_rng(0)
    side = len(streaming._regions(5, 0))
    cells = rng.integers(1, 5, (side, side))
    rows, cols = (np.arange(96) * side // 96 for _ in range(2))
    noise = raster.copy(data=cells[rows[:, None], cols].astype(raster.dtype))
    probe = da.emb.fit_probe(
        noise, method="ridge", n_samples="all", alpha=1e-3
    )  # so weak that it can learn noise
    assert probe.scores["blocked"]["balanced_accuracy"] < 0.45 < probe.scores["random"]["balanced_accuracy"]


@pytest.mark.parametrize("n", [0, -5, 2.5, "every", True])
def test_a_number_of_samples_is_a_number(n):
    with pytest.raises(EmbeddingError, match="n_samples is how many pixels of each class"):
        array().emb.fit_probe(SCENE.truth(gx.testing.geobox((96, 96)), 2018), n_samples=n)
    with pytest.raises(EmbeddingError, match=r"cv is a number of folds, 2 or more, or 0 for none; got 1"):
        array().emb.fit_probe(points(), target="land_cover", cv=1)


def test_what_scikit_learn_refuses_of_options_is_an_error_of_ours():
    with pytest.raises(EmbeddingError, match="method='logistic' cannot be fitted so: The 'class_weight'"):
        array().emb.fit_probe(points(), target="land_cover", cv=0, class_weight="evenly")


def test_sums_of_values_are_a_regression():
    da = array()
    raster = da.isel(band=3, drop=True).reset_coords("time", drop=True).rename("biomass")
    raster.attrs = {}
    probe = da.chunk(y=50).emb.fit_probe(raster, method="ridge", n_samples="all", alpha=1e-6)
    assert (probe.task, probe.target, probe.counts) == ("regression", "biomass", {"all": 96 * 96})
    np.testing.assert_allclose(da.emb.predict(probe), raster, atol=1e-4)
    assert probe.scores["blocked"]["r2"] > 0.999


def test_what_cannot_be_summed_is_refused():
    da, raster = label_raster()
    with pytest.raises(EmbeddingError, match=r"only method='ridge' is made of; got 'logistic'"):
        da.emb.fit_probe(raster, n_samples="all")
    with pytest.raises(EmbeddingError, match=r"takes a label raster .* got it with DataFrame"):
        da.emb.fit_probe(points(), method="ridge", n_samples="all")
    with pytest.raises(EmbeddingError, match=r"got it with \['group'\]"):
        da.emb.fit_probe(raster, method="ridge", n_samples="all", group="field")
    with pytest.raises(EmbeddingError, match="a table's labels are all used"):
        da.emb.fit_probe(points(), target="land_cover", n_samples=10)
    with pytest.raises(EmbeddingError, match="plain arrays are all used"):
        gx.fit_probe(np.eye(4), [1, 2, 1, 2], n_samples=10)
    years = gx.testing.synthetic("alphaearth", shape=(96, 96), years=[2018, 2024])
    with pytest.raises(EmbeddingError, match="a label raster holds for one time"):
        years.emb.fit_probe(raster.drop_vars("time"), method="ridge", n_samples="all")
    with pytest.raises(EmbeddingError, match="no labelled pixel has data"):
        da.emb.fit_probe(raster * 0, method="ridge", n_samples="all")
    assert da.emb.fit_probe(raster, n_samples=20, cv=0).counts == dict.fromkeys(
        da.emb.fit_probe(raster).counts, 20
    )


def test_float_rasters_are_regressed():
    da = array()
    raster = da.isel(band=3, drop=True).reset_coords("time", drop=True).rename("biomass")
    raster.attrs = {}
    probe = da.emb.fit_probe(raster, method="ridge", alpha=1e-6)
    assert probe.task == "regression"
    np.testing.assert_allclose(da.emb.predict(probe), raster, atol=1e-4)


# --- what is learnt -------------------------------------------------------------------------------------------


def test_kinds_of_labels():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4)).astype("f4")
    code = np.where(x[:, 0] > 0, 40, 11)
    assert gx.fit_probe(x, code).legend.values == (11, 40)  # the user's codes
    assert gx.fit_probe(x, code - 11).legend.values == (1, 2)  # 0 is taken
    assert gx.fit_probe(x, code.astype(str)).legend.names == ("11", "40")
    assert gx.fit_probe(x, x[:, 0], method="ridge").task == "regression"
    with pytest.raises(EmbeddingError, match=r"method='logistic' does no regression.*\['ridge', 'knn'"):
        gx.fit_probe(x, x[:, 0])
    with pytest.raises(EmbeddingError, match="all 60 labels are of one class, '1'"):
        gx.fit_probe(x, np.ones(60, int))
    with pytest.raises(EmbeddingError, match=r"no option \['c'\]; it has \['C'"):
        gx.fit_probe(x, code, c=3)
    with pytest.raises(ValueError, match="method='forest' is not known"):
        gx.fit_probe(x, code, method="forest")


GAPS = {
    "nullable integers": (pd.array([1, 2, None], "Int64"), "class", ("1", "2")),
    "integers that a gap made floats": (np.array([1.0, 2.0, np.nan]), "class", ("1", "2")),
    "integers as objects": (np.array([1, 2, None], object), "class", ("1", "2")),
    "nullable booleans": (pd.array([True, False, None], "boolean"), "class", ("False", "True")),
    "booleans as objects": (np.array([True, False, None], object), "class", ("False", "True")),
    "texts": (pd.array(["oats", "rye", None], "string"), "class", ("oats", "rye")),
    "categories": (pd.Categorical(["oats", "rye", None]), "class", ("oats", "rye")),
    "numbers as categories": (pd.Categorical([11, 40, None]), "class", ("11", "40")),
    "floats as categories": (pd.Categorical([1.0, 2.0, None]), "class", ("1", "2")),
    "values": (np.array([1.5, 2.25, np.nan]), "value", None),
    "nullable values": (pd.array([1.5, 2.0, None], "Float64"), "value", None),
}


@pytest.mark.parametrize("kind", list(GAPS))
def test_a_gap_does_not_change_the_kind_of_labels(kind):
    values, what, names = GAPS[kind]
    column = pd.concat([pd.Series(values)] * 10, ignore_index=True)
    x = np.random.default_rng(0).standard_normal((30, 3)).astype("f4")
    probe = gx.fit_probe(x, column, method="ridge", cv=0)
    assert probe.dropped == {"no label": 10}
    assert probe.task == ("classification" if what == "class" else "regression")
    assert names is None or probe.legend.names == names


def test_tuning_of_sums_never_sees_the_fold_it_is_scored_on(monkeypatch):
    da, raster = label_raster()
    streamed = streaming.stream(da, raster, 3, 0)
    rows = np.array([row.tobytes().hex() for row in streamed.samples.vectors])
    seen = []
    tuned = validation.tuned

    def spy(head, data, options, k):
        seen.append({row.tobytes().hex() for row in data.x})
        return tuned(head, data, options, k)

    monkeypatch.setattr(validation, "tuned", spy)
    da.emb.fit_probe(raster, method="ridge", n_samples="all", alpha=[0.1, 10.0], cv=3)
    others = [set(rows[folds != fold]) for folds in streamed.folds.values() for fold in np.unique(folds)]
    assert len(others) == 6
    assert seen == [set(rows), *others]


# --- one file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", list(HEADS))
def test_saved_and_loaded(method, tmp_path):
    options = {"max_iter": 5} if method == "mlp" else {}
    probe = array().emb.fit_probe(points(), target="land_cover", method=method, **options)
    again = gx.load_model(probe.save(tmp_path / "probe"))
    assert again == probe
    assert again.attribution == probe.attribution != ""
    xr.testing.assert_identical(array().emb.predict(again), array().emb.predict(probe))
    assert (tmp_path / "probe.npz").stat().st_size < 250_000


def test_probes_that_the_first_version_saved_predict_as_before():
    """Made by 0.1.0 on vectors of a seeded generator; its own labels, probabilities and sets are kept beside."""
    folder = pathlib.Path(__file__).with_name("saved_by_0_1")
    with np.load(folder / "expected.npz") as expected:
        for method in ("ridge", "logistic", "knn", "centroid", "mlp"):
            probe = gx.load_model(folder / f"{method}.npz")
            found = {
                name: probe.apply(expected["vectors"], name) for name in ("label", "set", "proba", "distance")
            }
            np.testing.assert_array_equal(found["label"], expected[method])
            np.testing.assert_array_equal(found["set"], expected[f"{method}_set"])
            np.testing.assert_allclose(found["proba"], expected[f"{method}_proba"], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found["distance"], expected[f"{method}_distance"], rtol=1e-5)
        values = gx.load_model(folder / "ridge_values.npz").apply(expected["vectors"], "value")
        np.testing.assert_allclose(values, expected["ridge_values"], rtol=1e-5, atol=1e-6)


def test_card_and_repr():
    probe = array().emb.fit_probe(points(), target="land_cover")
    assert "blocked" in repr(probe)
    html = probe._repr_html_()
    for text in ("land_cover", "optimistic", "left-out regions", "Confusion", "grassland", "exchangeable"):
        assert text in html
    assert (
        html.count("<table") == 4
    )  # facts, scores, what they mean and confusion, in one card that is left-aligned
    body = html.partition("</style>")[2]
    assert body.count("text-align:left;vertical-align:top") == body.count("<td") + body.count("<th ")
    plain = gx.fit_probe(np.eye(6, dtype="f4"), ["<b>", "c"] * 3, cv=0)
    assert "<b>," not in plain._repr_html_().replace("<b>label</b>", "")
    assert "&lt;b&gt;" in plain._repr_html_()


def test_errors_say_the_way_out(tmp_path):
    da = array()
    with pytest.raises(EmbeddingError, match=r"target= must name the column of labels, one of \['a', 'b'\]"):
        da.emb.fit_probe(pd.DataFrame({"lon": [11.37], "lat": [47.25], "a": [1], "b": [2]}))
    with pytest.raises(EmbeddingError, match="target='crop' is not a column"):
        da.emb.fit_probe(points(), target="crop")
    with pytest.raises(CoverageError, match="no label lies in the array, which covers"):
        da.emb.fit_probe(points().assign(lon=0.0), target="land_cover")
    with pytest.raises(SourceError, match=r"no such file of .*labels"):
        da.emb.fit_probe(tmp_path / "none.csv")
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(SourceError, match=r"tables in \.xlsx are not read"):
        da.emb.fit_probe(tmp_path / "a.xlsx")
    with pytest.raises(EmbeddingError, match=r"labels are a table with lon and lat.*got int"):
        da.emb.fit_probe(3)
    with pytest.raises(EmbeddingError, match="weights are 150 finite numbers"):
        da.emb.fit_probe(points(), target="land_cover", weights=-np.ones(150))
    with pytest.raises(EmbeddingError, match=r"some above zero.*all zero"):
        da.emb.fit_probe(points(), target="land_cover", weights=np.zeros(150))
    with pytest.raises(EmbeddingError, match="group needs one value"):
        da.emb.fit_probe(points(), target="land_cover", group=[None] * 150)
    probe = da.emb.fit_probe(points(), target="land_cover", cv=0)
    with pytest.raises(ComparabilityError, match="cannot mix"):
        gx.testing.synthetic("tessera", shape=(4, 4)).emb.predict(probe)


def test_softmax_of_what_was_never_seen():
    np.testing.assert_allclose(softmax(np.array([[0.0], [-np.inf]], "f4")), [[1], [0]])


def test_class_weights_are_by_name():
    table = points().assign(kind=lambda t: np.where(t.land_cover == "wheat", "tree", "bare"))
    number = table.assign(kind=np.where(table.kind == "tree", 7, 3))
    share = (table.kind == "tree").mean()
    expected = (
        array().emb.fit_probe(table, target="kind", cv=0, class_weight="balanced").parameters["weights"]
    )
    tree, bare = 0.5 / share, 0.5 / (1 - share)
    for labels, given in (
        (table, {"tree": tree, "bare": bare}),
        (number, {7: tree, 3: bare}),
        (number, {"7": tree, "3": bare}),
    ):
        probe = array().emb.fit_probe(labels, target="kind", cv=0, class_weight=given)
        np.testing.assert_allclose(probe.parameters["weights"], expected, atol=1e-4 * abs(expected).max())
    forest = make_pipeline(StandardScaler(), LogisticRegression(class_weight={"tree": 5}))
    assert array().emb.fit_probe(table, target="kind", cv=0, method=forest).legend.names == ("bare", "tree")
    for given, says in (
        ({0: 1, 1: 5}, r"the classes \['0', '1'\], which are not among"),
        ({"tree": -1}, "got -1"),
        ({np.nan: 1, 1.5: 1}, r"the classes \['nan', '1\.5'\], which"),
    ):
        with pytest.raises(EmbeddingError, match=says):
            array().emb.fit_probe(table, target="kind", cv=0, class_weight=given)
