"""Students: scikit-learn's ridge on the same pixels, a card of left-out regions, an embedding of its own."""

import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr.compression import distilling
from geoemb_xr.core.errors import ComparabilityError, EmbeddingError, SourceError
from geoemb_xr.testing import assert_lazy_identical, raise_if_dask_computes

LABELS = gx.testing.scene().points(60, radius=170)


def rows_of(da):
    return da.transpose(..., "band").values.reshape(-1, da.sizes["band"])


@pytest.fixture(scope="module")
def pair():
    """What a student sees, floats of any length, and a teacher of unit vectors in codes."""
    options = {"shape": (40, 36), "missing": True, "years": (2018,)}
    clay = gx.testing.synthetic("tessera", **options).emb.year(2018).isel(band=slice(0, 12))
    return clay, gx.testing.synthetic("alphaearth", decode=False, **options).emb.year(2018)


@pytest.fixture(scope="module")
def student(pair):
    return gx.fit_student(*pair, labels=LABELS, target="land_cover")


def test_ridge_is_scikit_learns(pair, student):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = rows_of(pair[0]).astype(float), rows_of(pair[1].emb.decode())
    there = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    assert there.sum() < len(x)
    scale = np.sqrt(x[there].var(axis=0).mean())
    oracle = linear_model.Ridge(alpha=1e-3 * there.sum()).fit(x[there] / scale, y[there])
    expected = oracle.predict(np.nan_to_num(x) / scale)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = rows_of(pair[0].emb.predict(student))
    seen = np.isfinite(x).all(axis=1)
    np.testing.assert_allclose(found[seen], expected[seen], atol=2e-5)
    assert np.isnan(found[~seen]).all()
    assert student.n == there.sum()


def test_the_card_is_of_regions_that_were_left_out(pair, student):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = rows_of(pair[0]).astype(float), rows_of(pair[1].emb.decode())
    there = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    fold = distilling._folds(pair[0]).transpose("y", "x").values.reshape(-1)[there]
    x, y = x[there], y[there]
    other = fold != 2
    scale = np.sqrt(x[other].var(axis=0).mean())
    oracle = linear_model.Ridge(alpha=1e-3 * other.sum()).fit(x[other] / scale, y[other])
    made = oracle.predict(x[~other] / scale)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    gap = ((made - y[~other]) ** 2).sum(axis=1)
    mean = ((y[~other] - y[other].mean(axis=0)) ** 2).sum(axis=1)
    row = student.table.loc["region 3"]
    assert row["n"] == (~other).sum()
    assert row["error"] == pytest.approx(np.sqrt(gap.mean()), rel=1e-4)
    assert row["explained"] == pytest.approx(1 - gap.sum() / mean.sum(), abs=1e-4)
    cosine = (made * y[~other]).sum(axis=1) / np.linalg.norm(y[~other], axis=1)
    assert row["cosine"] == pytest.approx(cosine.mean(), abs=1e-4)
    assert set(student.card["probe"]) == {"student", "teacher", "inputs"}
    assert 0.5 < student.card["probe"]["student"] <= 1
    assert "explains" in repr(student)
    assert "probes in left-out regions" in student._repr_html_()


def test_what_cannot_be_learnt_explains_nothing(pair):
    rng = np.random.default_rng(0)
    noise = pair[1].emb.decode().copy(data=rng.normal(size=pair[1].shape).astype("f4"))
    assert abs(gx.fit_student(pair[0], noise).card["all"]["explained"]) < 0.02


@pytest.mark.parametrize("reach", [0, 1])
def test_it_is_lazy_and_the_same_in_any_chunks(pair, student, reach):
    model = gx.fit_student(*pair, neighbourhood=1) if reach else student
    with raise_if_dask_computes():
        lazy = pair[0].chunk({"y": 7, "x": 11}).emb.predict(model)
    assert lazy.attrs["product"] == "alphaearth"
    assert_lazy_identical(lambda a: a.emb.predict(model), pair[0], rtol=1e-4)


def test_neighbours_are_the_pixels_around():
    da = gx.testing.synthetic("tessera", shape=(6, 5), years=(2018,)).emb.year(2018).isel(band=slice(0, 2))
    da = da.copy(data=np.arange(da.size, dtype="f4").reshape(da.shape)).where(lambda a: a != 2)
    window = distilling.neighbours(da, 1).transpose("y", "x", "band").values
    values = da.transpose("y", "x", "band").values
    assert window.shape == (6, 5, 18)
    np.testing.assert_array_equal(window[3, 3], values[2:5, 2:5].reshape(-1))
    (gap,) = np.argwhere(np.isnan(values).any(axis=2))
    beside = window[gap[0], gap[1] + 1].reshape(3, 3, 2)[1, 0]  # its left neighbour has no data: itself
    np.testing.assert_array_equal(np.isnan(beside), [False, False])
    np.testing.assert_array_equal(window[0, 0].reshape(3, 3, 2)[0, 0], values[0, 0])  # beyond the edge


def test_what_it_makes_is_a_space_of_its_own(pair, student):
    made = pair[0].emb.predict(student)
    assert made.attrs["version"].startswith("synthetic+distilled by ridge from tessera synthetic ")
    assert "TESSERA" in made.attrs["attribution"]
    assert made.attrs["attribution"].count("TESSERA") == 1
    assert "Google" in made.attrs["attribution"]
    with pytest.raises(ComparabilityError):
        gx.concat([made, pair[1].emb.decode()], "time")
    other = gx.fit_student(pair[0].isel(y=slice(0, 30)), pair[1].isel(y=slice(0, 30)))
    assert other.key != student.key
    with pytest.raises(ComparabilityError):
        pair[1].emb.predict(student)
    probe = made.emb.fit_probe(LABELS, target="land_cover", method="centroid", cv=0)
    assert made.emb.predict(probe).attrs["derived_from"] == f"alphaearth {made.attrs['version']}"


@pytest.mark.parametrize("method", ["ridge", "mlp"])
def test_it_is_saved_and_loaded(pair, tmp_path, method):
    options = {}
    if method == "mlp":
        pytest.importorskip("torch")
        options = {"max_iter": 2, "n_samples": 400, "hidden_layer_sizes": (16,)}
    model = gx.fit_student(*pair, method=method, **options)
    assert gx.load_model(model.save(tmp_path / "student")) == model
    found = pair[0].emb.predict(gx.load_model(tmp_path / "student.npz"))
    np.testing.assert_array_equal(found, pair[0].emb.predict(model))
    if method == "ridge":
        parts = dict(np.load(tmp_path / "student.npz"))
        parts["parameters/bias"], parts["parameters/weights"] = (
            parts[f"parameters/{name}"][:-1] for name in ("bias", "weights")
        )
        np.savez(tmp_path / "short.npz", **parts)
        with pytest.raises(EmbeddingError, match="has 64 bands to give"):
            gx.load_model(tmp_path / "short.npz")
        parts["parameters/weights"] = parts["parameters/weights"][:-1]
        np.savez(tmp_path / "unlike.npz", **parts)
        with pytest.raises(SourceError, match="does not fit the others"):
            gx.load_model(tmp_path / "unlike.npz")


def test_a_network_learns_more_with_time(pair):
    pytest.importorskip("torch")
    options = {"method": "mlp", "n_samples": 1200, "hidden_layer_sizes": (32,), "learning_rate_init": 0.01}
    model = gx.fit_student(*pair, max_iter=30, **options)
    assert model.card["all"]["explained"] > 0.6
    assert model.n == 1200


def test_locations_teach_too(pair, student):
    points = [each.emb.sample(LABELS) for each in pair]
    model = gx.fit_student(points[0], points[1], labels=points[0].coords["land_cover"].values)
    assert model.card["all"]["n"] == model.n <= 60
    assert "location" in points[0].emb.predict(model).dims


def test_on_onnx_it_gives_the_same(pair, student, tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(student.to_onnx(tmp_path / "student")))
    rows = rows_of(pair[0])
    codes, scale = gx.product("tessera").codec.encode(rows, 1)
    (found,) = session.run(None, {"codes": codes, "scale": scale})
    decoded = pair[0].copy(data=gx.product("tessera").codec.decode(codes, scale, 1).T.reshape(pair[0].shape))
    np.testing.assert_allclose(found, rows_of(decoded.emb.predict(student)), atol=2e-6)
    assert gx.load_model(tmp_path / "student.onnx") == student
    with pytest.raises(EmbeddingError, match="windows of pixels"):
        gx.fit_student(*pair, neighbourhood=1).to_onnx(tmp_path / "windows")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda a, b: {"inputs": a.isel(x=slice(1, None)), "targets": b},
            r"the same 'x': bring them together",
        ),
        (lambda a, b: {"inputs": a, "targets": b.emb.sample(LABELS)}, "two arrays of the same dimensions"),
        (lambda a, b: {"inputs": a.drop_attrs(), "targets": b}, "fit_student needs an embedding"),
        (lambda a, b: {"inputs": a * np.nan, "targets": b}, "50 pixels with data in both arrays; got 0 of"),
        (lambda a, b: {"inputs": a, "targets": b, "C": 1}, r"no option \['C'\]; it has \['alpha'\]"),
        (lambda a, b: {"inputs": a, "targets": b, "method": "ridg"}, "Did you mean 'ridge'"),
        (lambda a, b: {"inputs": a, "targets": b, "neighbourhood": -1}, "number of pixels around each"),
    ],
)
def test_what_does_not_fit_is_said(pair, change, says):
    with pytest.raises(ValueError, match=says):
        gx.fit_student(**change(*pair))
