"""Maps from models: one pass, lazy, the same however chunked; against scikit-learn and torch."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from mapped_scene import array, points, training_set
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.legend import legend_of
from geoemb_xr.testing import assert_lazy_identical, raise_if_dask_computes

# --- lazily -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["logistic", "ridge", "knn", "centroid"])
@pytest.mark.parametrize("decode", [True, False])
def test_labels_are_lazy_and_the_same_however_chunked(probes, method, decode):
    probe = probes[method]
    out = assert_lazy_identical(lambda a: a.emb.predict(probe), array(decode=decode, missing=True))
    assert out.dtype == np.uint8
    assert out.dims == ("time", "y", "x")
    assert (out.values[:, :10, :12] == 0).all()
    assert (out.values[:, 10:] > 0).all()


@pytest.mark.parametrize("output", ["proba", "margin", "entropy", "distance"])
def test_scores_are_lazy_and_the_same_however_chunked(probes, output):
    codes = array(decode=False, missing=True)
    out = assert_lazy_identical(lambda a: a.emb.predict(probes["logistic"], output=output), codes, rtol=1e-5)
    assert np.isnan(out.values[..., :10, :12]).all()
    assert not np.isnan(out.values[..., 10:, :]).any()


def test_scales_of_codes_are_used():
    da = gx.testing.synthetic("tessera", shape=(64, 64), decode=False, missing=True)
    probe = da.emb.fit_probe(points(), target="land_cover", cv=0)
    assert_lazy_identical(lambda a: a.emb.predict(probe), da)
    xr.testing.assert_identical(da.emb.predict(probe), da.emb.decode().emb.predict(probe))


def test_points_are_mapped_too(probes):
    table = points()
    out = array().emb.year(2018).emb.sample(table).emb.predict(probes["logistic"])
    assert out.dims == ("location",)
    inside = out.values > 0
    names = np.array(["", *probes["logistic"].legend.names])[out.values[inside]]
    assert 50 < inside.sum() < 150  # some lie beside the array
    assert (names == out.land_cover.values[inside]).mean() > 0.9


def test_several_outputs_are_one_pass(probes):
    da, calls = array(chunks=20), []

    def spy(block):
        calls.append(1)
        return block

    spied = da.copy(data=da.data.map_blocks(spy, dtype=da.dtype, meta=da.data._meta))
    with raise_if_dask_computes():
        out = spied.emb.predict(probes["knn"], output=["label", "proba", "margin", "aoa", "set"])
    assert isinstance(out, xr.Dataset)
    found = out.compute()
    assert len(calls) == da.data.npartitions
    for name in out:
        xr.testing.assert_allclose(found[name], da.emb.predict(probes["knn"], output=name).compute())
    assert out.proba.dims == ("time", "category", "y", "x")
    assert out.proba.category.values.tolist() == list(probes["knn"].legend.names)
    assert set(np.unique(found["set"])) <= {0, 1}


def test_a_model_is_in_the_graph_once(probes):
    da = array(chunks=5)
    graph = dict(da.emb.predict(probes["knn"]).data.dask)
    import cloudpickle

    sizes = sorted((len(cloudpickle.dumps(v)) for v in graph.values()), reverse=True)
    model = len(cloudpickle.dumps(probes["knn"]))
    assert sum(s > model / 2 for s in sizes) <= 2 + 1  # the model, and what the graph was cut from
    again = array(chunks=5).emb.predict(probes["knn"])
    assert {k for k in graph if "Probe" in str(k)} == {k for k in dict(again.data.dask) if "Probe" in str(k)}


@pytest.mark.parametrize("bands", [1, 2, 7, 64])
@pytest.mark.parametrize("classes", [2, 11])
def test_the_fused_kernel_is_the_plain_way(bands, classes):
    rng = np.random.default_rng(bands)
    da = array(decode=False, missing=True).isel(band=slice(bands))
    x = rng.standard_normal((300, bands)).astype("f4")
    probe = gx.fit_probe(x, np.arange(300) % classes, method="ridge", cv=0)
    codes, plain = da.emb.predict(probe), da.emb.decode().emb.predict(probe, output=["label", "margin"])
    clear = ~(plain.margin.values < 1e-5)
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(codes.values[clear], plain.label.values[clear])


def test_all_outputs_are_the_same_from_codes_and_from_vectors(probes):
    """Of linear models they are made of sums over codes; zeros are no vector of unit length."""
    codes = array(decode=False, missing=True)
    codes[..., 11, 13] = 0
    vectors = codes.emb.decode()
    names = ["proba", "set", "margin", "entropy", "label"]
    together = codes.emb.predict(probes["ridge"], output=names)
    for name in names:
        alone = codes.emb.predict(probes["ridge"], output=name)
        xr.testing.assert_identical(alone, together[name])
        xr.testing.assert_allclose(alone, vectors.emb.predict(probes["ridge"], output=name), atol=1e-5)
    assert (together.label[..., 11, 13] == 0).all()
    assert together.margin[..., 11, 13].isnull().all()
    kmeans, pca = codes.emb.fit_clusters(5), codes.emb.fit_pca(3)
    xr.testing.assert_identical(codes.emb.predict(kmeans), vectors.emb.predict(kmeans))
    xr.testing.assert_allclose(codes.emb.pca(pca), vectors.emb.pca(pca), atol=1e-5)
    component = [each.emb.predict(pca, output="component") for each in (codes, vectors)]
    xr.testing.assert_allclose(*component, atol=1e-5)


# --- what a map carries -----------------------------------------------------------------------------------------


def test_class_maps_carry_legend_attribution_and_origin(probes):
    out = array().emb.predict(probes["logistic"])
    assert legend_of(out) == probes["logistic"].legend
    assert out.attrs["derived_from"] == "alphaearth synthetic"
    assert "Google" in out.attrs["attribution"]
    assert not {"product", "codec"} & set(out.attrs)
    assert out.attrs["long_name"] == "land_cover"
    assert out.emb.legend["name"].tolist() == list(probes["logistic"].legend.names)
    assert out.emb.kind == "map"


def test_codes_of_the_user_survive_and_wide_ones_take_uint16():
    x, y = training_set()
    codes = np.where(y == "grassland", 1000, 20)
    probe = gx.fit_probe(x, codes, cv=0)
    out = array().emb.predict(probe)
    assert out.dtype == np.uint16
    assert set(np.unique(out)) <= {20, 1000}


def test_regression_gives_the_value():
    x, _ = training_set()
    probe = gx.fit_probe(x, x[:, 3].astype(float), method="ridge", alpha=1e-8)
    da = array(missing=True)
    np.testing.assert_allclose(da.emb.predict(probe), da.isel(band=3), atol=1e-4)
    assert da.emb.predict(probe).name == "value"


def test_probabilities_are_probabilities(probes):
    for probe in probes.values():
        out = array().emb.predict(probe, output=["label", "proba", "margin", "entropy"])
        np.testing.assert_allclose(out.proba.sum("category"), 1, atol=1e-5)
        best = np.sort(out.proba.values, axis=1)
        np.testing.assert_allclose(out.margin, best[:, -1] - best[:, -2], atol=1e-6)
        expected = -(out.proba * np.log(np.maximum(out.proba, 1e-30))).sum("category")
        np.testing.assert_allclose(out.entropy, expected, atol=1e-5)
        values = np.array(probe.legend.values)[out.proba.values.argmax(1)]
        clear = out.margin.values > 1e-5
        np.testing.assert_array_equal(out.label.values[clear], values[clear])


def test_unknown_outputs_and_models(probes):
    with pytest.raises(ValueError, match=r"output='probability' is not known.*proba"):
        array().emb.predict(probes["logistic"], output="probability")
    with pytest.raises(TypeError, match=r"a torch\.nn\.Module; got str: read .* gx\.load_model\(.*\)"):
        array().emb.predict("model.npz")
    with pytest.raises(EmbeddingError, match="the model takes 64 bands"):
        array().isel(band=slice(10)).emb.predict(probes["logistic"])
    estimator = LogisticRegression().fit(*training_set())
    with pytest.raises(EmbeddingError, match="LogisticRegression is not computed on 'cuda:0'"):
        array().emb.predict(estimator, device="cuda:0")
    for wrong in ("gpu", "cuda:one", 0):
        with pytest.raises(
            ValueError, match=r"device is 'auto', 'cpu', or a device of torch such as 'cuda:0'"
        ):
            array().emb.predict(probes["logistic"], device=wrong)
    with pytest.raises(EmbeddingError, match="device='cuda:64' is not there"):
        array().emb.predict(probes["logistic"], device="cuda:64")


def test_the_model_method_is_the_same_call(probes):
    xr.testing.assert_identical(probes["ridge"].predict(array()), array().emb.predict(probes["ridge"]))


# --- scikit-learn -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator",
    [make_pipeline(StandardScaler(), LogisticRegression()), RandomForestClassifier(20, random_state=0)],
    ids=["pipeline", "forest"],
)
def test_estimators_give_what_they_give(estimator):
    x, y = training_set()
    bands = list(gx.product("alphaearth").bands)
    estimator.fit(pd.DataFrame(x, columns=bands), y)
    da = array(missing=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one a block would be hundreds
        out = da.chunk(y=16).emb.predict(estimator, output=["label", "proba"]).compute()
    flat = da.isel(time=0).values.reshape(64, -1).T
    valid = ~np.isnan(flat).any(1)
    table = pd.DataFrame(flat[valid], columns=bands)
    names = np.array(["", *legend_of(out.label).names])[out.label.values[0].ravel()]
    np.testing.assert_array_equal(names[valid], estimator.predict(table))
    assert (names[~valid] == "").all()
    proba = out.proba.values[0].reshape(len(estimator.classes_), -1).T[valid]
    np.testing.assert_allclose(proba, estimator.predict_proba(table), atol=1e-6)


def test_estimators_of_values_and_of_clusters():
    x, _ = training_set()
    out = array(missing=True).emb.predict(LinearRegression().fit(x, 2 * x[:, 0]))
    np.testing.assert_allclose(out, 2 * array(missing=True).isel(band=0), atol=1e-5)
    clusters = array().emb.predict(KMeans(3, n_init=1, random_state=0).fit(x))
    assert set(np.unique(clusters)) <= {0.0, 1.0, 2.0}


def test_estimators_of_other_bands_are_refused():
    x, y = training_set()
    bands = list(gx.product("alphaearth").bands)
    other = LogisticRegression().fit(pd.DataFrame(x, columns=bands[::-1]), y)
    with pytest.raises(EmbeddingError, match=r"fitted on the features \['A63'.*same order"):
        array().emb.predict(other)
    with pytest.raises(EmbeddingError, match="fitted on 10 features, the array has 64 bands"):
        array().emb.predict(LogisticRegression().fit(x[:, :10], y))
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        array().emb.predict(LogisticRegression())


def test_several_values_or_labels_per_pixel_are_refused():
    da = array().isel(time=0, y=slice(8), x=slice(9))
    x, y = np.random.default_rng(0).normal(size=(20, 64)), np.arange(40).reshape(20, 2) % 3
    with pytest.raises(EmbeddingError, match="one value per pixel; LinearRegression gives 2"):
        da.emb.predict(LinearRegression().fit(x, y)).compute()
    with pytest.raises(
        EmbeddingError, match="one label per pixel; RandomForestClassifier was fitted on 2 per row"
    ):
        da.emb.predict(RandomForestClassifier(n_estimators=2).fit(x, y))
