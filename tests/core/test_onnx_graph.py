"""Models as ONNX: what onnxruntime makes of codes is what we make of them, and the file gives the model back."""

import base64
import json
import shutil

import lazily
import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr.core import onnx_graph
from geoemb_xr.core.codecs import CODECS
from geoemb_xr.core.errors import EmbeddingError, MissingExtraError, SourceError

onnx = lazily.importorskip("onnx")
onnxruntime = lazily.importorskip("onnxruntime")

LABELS = gx.testing.scene().points(60, radius=170)


def run(path, **feed):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == list(feed)
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, feed), strict=True))


def feed_of(da):
    """What a graph takes of an array: its codes, or its vectors."""
    rows = da.transpose("y", "x", "band").values.reshape(-1, da.sizes["band"])
    if not da.emb.encoded:
        return {"vectors": rows}
    scale = {"scale": da.coords["scale"].values.ravel()} if "scale" in da.coords else {}
    return {"codes": rows, **scale}


def scene(name, **options):
    da = gx.testing.synthetic(name, shape=(40, 36), missing=True, decode=False, **options)
    return da.emb.year(2018) if "time" in da.dims else da


@pytest.fixture(scope="module")
def alphaearth():
    return scene("alphaearth")


# --- what comes out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_codes_are_decoded_as_the_codec_does(codec, tmp_path):
    rng = np.random.default_rng(0)
    bands = 1 if codec.bands else 8
    info = np.iinfo(codec.dtype)
    high = {"fsq": 64_000, "offset-16": 16_385}.get(codec.name, info.max)
    codes = rng.integers(info.min, high, (200, bands), codec.dtype, endpoint=codec.name == "unscaled")
    if codec.name == "sign":
        codes = np.where(codes < 0, -1, 1).astype(np.int8)
    if codec.nodata is not None:
        codes[:5] = codec.nodata
        codes[7, 0] = codec.nodata  # one band alone: missing for some codecs, for others a value
    scale = None
    if codec.scale:
        scale = rng.uniform(0.01, 1, 200).astype(np.float32)
        scale[:4] = np.nan, np.inf, -np.inf, 0
    graph = onnx_graph.Graph()
    found, valid = onnx_graph.vectors(graph, codec, len(codec.bands) or bands, unit=False)
    onnx_graph.declare(graph, {"decoded": found}, valid)
    graph.write(tmp_path / "codec.onnx", "codec", {})
    feed = {"codes": codes} | ({} if scale is None else {codec.scale: scale})
    expected = codec.decode(codes, scale, 1)
    assert 3 < np.isnan(expected[:, 0]).sum() < 200
    np.testing.assert_allclose(run(tmp_path / "codec.onnx", **feed)["decoded"], expected, rtol=1e-6)


@pytest.mark.parametrize("method", ["ridge", "logistic", "knn", "centroid", "mlp"])
def test_a_probe_gives_what_predict_gives(method, alphaearth, tmp_path):
    if method == "mlp":
        pytest.importorskip("torch")
    options = {"knn": {"n_neighbors": 7}, "mlp": {"max_iter": 3}}.get(method, {})
    probe = alphaearth.emb.fit_probe(LABELS, target="land_cover", method=method, cv=2, **options)
    found = run(probe.to_onnx(tmp_path / "probe"), **feed_of(alphaearth))
    ours = alphaearth.emb.predict(probe, output=["label", "proba", "distance"]).compute()
    proba = ours.proba.transpose("y", "x", "category").values.reshape(ours.label.size, -1)
    best = np.sort(proba, axis=1)
    tied = best[:, -1] - best[:, -2] < 1e-5
    labels = ours.label.values.ravel()
    assert found["label"].dtype == ours.label.dtype
    assert (labels == 0).any()
    np.testing.assert_array_equal(found["label"][~tied], labels[~tied])
    np.testing.assert_allclose(found["probabilities"], proba, atol=2e-6)
    np.testing.assert_allclose(found["distance"], ours.distance.values.ravel(), atol=2e-5)
    assert gx.load_model(tmp_path / "probe.onnx") == probe


@pytest.mark.parametrize("method", ["ridge", "knn"])
@pytest.mark.parametrize("product", ["tessera", "clay-v1.5-naip"])
def test_values_of_scaled_codes_and_of_floats(method, product, tmp_path):
    da = scene(product)
    labels = LABELS.assign(height=np.arange(60) % 7 + 0.5)[["lon", "lat", "height"]]
    probe = da.emb.fit_probe(labels, target="height", method=method, cv=0)
    found = run(probe.to_onnx(tmp_path / "probe.onnx"), **feed_of(da))
    assert list(found) == ["value"]
    np.testing.assert_allclose(found["value"], da.emb.predict(probe).values.ravel(), rtol=2e-4, atol=1e-4)


def test_vectors_without_a_space(tmp_path):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(80, 5)).astype(np.float32), np.arange(80) % 3
    probe = gx.fit_probe(x + y[:, None], y, method="centroid")
    x[3, 2], x[4, 1] = np.nan, np.inf
    found = run(probe.to_onnx(tmp_path / "plain.onnx"), vectors=x)
    missing = np.isin(np.arange(80), [3, 4])
    np.testing.assert_array_equal(found["label"] == 0, missing)
    np.testing.assert_array_equal(found["label"][~missing], probe.apply(x[~missing], "label"))


@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
def test_components_and_clusters(product, tmp_path):
    da = scene(product)
    pca, kmeans = da.emb.fit_pca(3), da.emb.fit_clusters(5)
    scores = da.emb.pca(pca).transpose("y", "x", "component").values.reshape(-1, 3)
    found = run(pca.to_onnx(tmp_path / "pca.onnx"), **feed_of(da))["component"]
    np.testing.assert_allclose(found, scores, rtol=1e-5, atol=2e-6 * np.nanmax(np.abs(scores)))
    found = run(kmeans.to_onnx(tmp_path / "kmeans.onnx"), **feed_of(da))
    ours = da.emb.predict(kmeans, output=["label", "distance"]).compute()
    assert (found["label"] != ours.label.values.ravel()).mean() < 0.001  # ties
    np.testing.assert_allclose(found["distance"], ours.distance.values.ravel(), rtol=1e-4)
    assert gx.load_model(tmp_path / "pca.onnx") == pca
    assert gx.load_model(tmp_path / "kmeans.onnx") == kmeans


@pytest.mark.parametrize("codec", ["int8", "signed-square", "bit"])
@pytest.mark.parametrize("dims", [None, 6])
def test_a_compressor_gives_the_codes_of_compress(codec, dims, alphaearth, tmp_path):
    model = alphaearth.emb.fit_compressor(dims=dims, codec=codec)
    found = run(model.to_onnx(tmp_path / "small.onnx"), **feed_of(alphaearth))
    ours = feed_of(alphaearth.emb.compress(model).compute())
    off = np.abs(found["compressed"].astype(int) - ours["codes"])
    assert off.max() <= (1 if dims else 0)  # sums of products differ in their last bits
    assert (off > 0).mean() < 0.001
    if codec == "int8":
        np.testing.assert_allclose(found["compressed_scale"], ours["scale"], rtol=1e-5)
    assert gx.load_model(tmp_path / "small.onnx") == model


# --- the file -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(alphaearth, tmp_path_factory):
    probe = alphaearth.emb.fit_probe(LABELS, target="land_cover", method="ridge", cv=2)
    path = tmp_path_factory.mktemp("onnx") / "crops"
    return probe, probe.to_onnx(path)


def facts_of(path):
    return {each.key: each.value for each in onnx.load(path).metadata_props}


def test_the_file_says_what_it_is_of(written, alphaearth):
    probe, path = written
    assert path.name == "crops.onnx"
    facts = facts_of(path)
    assert (facts["product"], facts["version"]) == ("alphaearth", alphaearth.attrs["version"])
    assert tuple(json.loads(facts["bands"])) == probe.bands
    assert tuple(json.loads(facts["classes"])["names"]) == probe.legend.names
    assert facts["attribution"] == probe.attribution
    assert "CC" in facts["licence"]
    assert [each.name for each in path.parent.iterdir()] == ["crops.onnx"]


def test_training_vectors_stay_at_home(written, tmp_path):
    probe, whole = written
    path = probe.to_onnx(tmp_path / "private.onnx", private=True)
    loaded = gx.load_model(path)
    assert not loaded.memory
    assert not loaded.applicability
    assert path.stat().st_size < whole.stat().st_size / 4
    assert [each.name for each in onnx.load(path).graph.output] == ["label", "probabilities"]


@pytest.mark.parametrize("at", [0.1, 0.4, 0.8, 0.99])
@pytest.mark.parametrize("damage", ["cut", "zeros"])
def test_a_damaged_file_gives_our_error_or_the_model(written, tmp_path, at, damage):
    probe, path = written
    data = bytearray(path.read_bytes())
    start = int(len(data) * at)
    if damage == "cut":
        del data[start:]
    else:
        data[start : start + 64] = bytes(64)
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(data)
    try:
        found = gx.load_model(bad)
    except SourceError as error:
        found = str(error)
    in_graph = damage == "zeros" and found == probe  # the copy that we read was not hit
    assert in_graph or "bad.onnx" in found


def with_fact(path, target, value):
    held = onnx.load(path)
    for each in held.metadata_props:
        if each.key == onnx_graph.MODEL:
            each.value = value
    onnx.save(held, target)
    return target


def test_what_lies_in_the_file_is_checked_like_any_model(written, tmp_path):
    _, path = written
    bomb = tmp_path / "bomb.npz"
    np.savez_compressed(bomb, header=np.array("{}"), weights=np.zeros((1 << 25,), np.float32))
    held = base64.b64encode(bomb.read_bytes()).decode()
    with pytest.raises(SourceError, match="bytes would unpack to"):
        gx.load_model(with_fact(path, tmp_path / "bomb.onnx", held))
    with pytest.raises(SourceError, match=r"the model in .* is damaged"):
        gx.load_model(with_fact(path, tmp_path / "text.onnx", "no base64 §"))


def test_other_files_are_told_apart(written, tmp_path):
    _, path = written
    held = onnx.load(path)
    del held.metadata_props[:]
    onnx.save(held, tmp_path / "foreign.onnx")
    with pytest.raises(SourceError, match="an ONNX graph without a model of this package"):
        gx.load_model(tmp_path / "foreign.onnx")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(SourceError, match="is not an ONNX file"):
        gx.load_model(tmp_path / "text.onnx")
    with pytest.raises(FileNotFoundError):
        gx.load_model(tmp_path / "nowhere.onnx")
    shutil.copy(path, tmp_path / "named.npz")
    with pytest.raises(SourceError):
        gx.load_model(tmp_path / "named.npz")


def test_what_has_no_formula_says_so(alphaearth, tmp_path):
    linear_model = pytest.importorskip("sklearn.linear_model")
    probe = alphaearth.emb.fit_probe(
        LABELS, target="land_cover", method=linear_model.LogisticRegression(), cv=0
    )
    with pytest.raises(EmbeddingError, match="skl2onnx"):
        probe.to_onnx(tmp_path / "estimator.onnx")
    assert not list(tmp_path.iterdir())


def test_without_onnx_the_extra_is_named(written, tmp_path, monkeypatch):
    probe, path = written
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtraError, match="onnx"):
        probe.to_onnx(tmp_path / "none.onnx")
    with pytest.raises(MissingExtraError, match="onnx"):
        gx.load_model(path)
    assert not list(tmp_path.iterdir())
