"""Models in files: those of others too, and none that is not what it says."""

import json
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.core.fitted import Fitted, Output
from geoemb_xr.core.legend import Legend


@dataclass(frozen=True, eq=False)
class Scaler(Fitted):
    """A model of somebody else, with fields of names that a file needs for itself."""

    factor: np.ndarray
    tables: Mapping[str, Any]
    kind: str = "kind of mine"
    format: float = 2.0
    header: np.ndarray | None = None
    file: np.ndarray | None = None
    legend: Legend | None = None
    options: Any = None

    @classmethod
    def shapes(cls, names):
        return {"factor": ("band",)}

    def outputs(self):
        return {"label": Output("float32")}

    def apply(self, vectors, output):
        return vectors @ self.factor


def scaler(**changed):
    fields = {"factor": np.ones(2, "f4"), "tables": {"a": np.arange(3), "b": np.zeros(())}} | changed
    return Scaler("mine", "v1", ("A", "B"), "© me", **fields)


def test_a_folder_of_the_same_name_is_beside_the_model(tmp_path):
    (tmp_path / "model").mkdir()
    model = scaler()
    assert model.save(tmp_path / "model") == tmp_path / "model.npz"
    assert gx.load_model(tmp_path / "model") == model


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"header": np.arange(2), "file": np.array(["text"])},
        {"legend": Legend.of_names(["water", "no water"])},
        {"options": {"legend": 3, "alpha": None}},
        {"options": ("a", 1, 2.5)},
        {"format": np.float32(0.5)},
        {"tables": {}},
    ],
)
def test_a_model_of_ones_own_saves_and_loads(tmp_path, changed):
    model = scaler(**changed)
    path = model.save(tmp_path / "model")
    assert gx.load_model(path) == model
    assert Scaler.load(path) == model
    assert gx.load_model(tmp_path / "model") == gx.load_model(str(tmp_path / "model")) == model
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.npz"]
    with pytest.raises(SourceError, match="holds a Scaler, not a PCA"):
        gx.PCA.load(path)


def test_a_class_of_another_package_may_have_the_name_of_one_of_ours(tmp_path):
    pca = gx.testing.synthetic("alphaearth", shape=(16, 16)).emb.fit_pca(2)
    ours = pca.save(tmp_path / "ours")

    @dataclass(frozen=True, eq=False)
    class PCA(Fitted):
        slope: float

    theirs = PCA("", "", (), "", 2.0).save(tmp_path / "theirs")
    assert gx.load_model(ours) == pca
    assert type(gx.load_model(theirs)) is PCA


def test_elsewhere_it_is_said_which_module_to_import(tmp_path):
    path = scaler().save(tmp_path / "model")
    code = f"import geoemb_xr as gx; gx.load_model({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        f"it holds a 'Scaler'; known are Compressor, KMeans, PCA, Probe, Student: import {__name__} first"
        in done.stderr
    )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"options": object()}, "a field holds a object; it may be an array, a number, text"),
        ({"tables": {"a": np.array([object()])}}, "its 'tables/a' holds Python objects"),
        ({"factor": np.ones(3)}, r"its 'factor' has shape \(3,\), which does not fit the others \(band 2\)"),
        ({"factor": np.array([1, np.nan])}, "its 'factor' has values that are not finite"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, changed, says):
    with pytest.raises(EmbeddingError, match=f"this Scaler cannot be saved: {says}"):
        scaler(**changed).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


# --- files that are not what they say -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    da = gx.testing.synthetic("alphaearth", shape=(40, 40)).emb.year(2018)
    labels = gx.testing.scene().points(40, radius=150)
    made = {"pca": da.emb.fit_pca(3), "kmeans": da.emb.fit_clusters(3)}
    for method in ("ridge", "knn", "centroid"):
        made[method] = da.emb.fit_probe(labels, target="land_cover", method=method, cv=2)
    return {name: dict(np.load(model.save(folder / name))) for name, model in made.items()}


def written(path, arrays, **extra):
    np.savez(path, **arrays)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, (shape, megabytes) in extra.items():
            text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n"
            with archive.open(f"{name}.npy", "w") as member:
                member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode())
                for _ in range(megabytes):
                    member.write(bytes(1 << 20))
    return path


ARRAYS = {
    "pca": ("mean", "loadings", "explained_variance", "limits"),
    "kmeans": ("centres",),
    "ridge": ("parameters/weights", "parameters/bias", "applicability/references", "applicability/scale"),
    "knn": ("parameters/vectors", "parameters/targets", "parameters/votes"),
    "centroid": ("parameters/centres",),
}


@pytest.mark.parametrize(("model", "name"), [(m, n) for m, names in ARRAYS.items() for n in names])
def test_arrays_that_do_not_fit_each_other_are_refused(models, tmp_path, model, name):
    good = models[model]
    assert gx.load_model(written(tmp_path / "good.npz", good))
    for axis in range(
        name == "applicability/references", good[name].ndim
    ):  # of those there may be any number
        bad = good | {name: np.delete(good[name], 0, axis)}
        with pytest.raises(SourceError, match=r"bad.npz is not a model that .* reads: its '.*' has shape"):
            gx.load_model(written(tmp_path / "bad.npz", bad))


@pytest.mark.parametrize(("model", "name"), [(m, n) for m, names in ARRAYS.items() for n in names])
def test_an_array_that_is_gone_is_missed(models, tmp_path, model, name):
    rest = {key: value for key, value in models[model].items() if key != name}
    with pytest.raises(SourceError, match=f"it has lost {name}"):
        gx.load_model(written(tmp_path / "bad.npz", rest))


@pytest.mark.parametrize(
    ("model", "name"), [("pca", "loadings"), ("kmeans", "centres"), ("ridge", "parameters/bias")]
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(models, tmp_path, model, name, value):
    bad = models[model][name].copy()
    bad.flat[0] = value
    with pytest.raises(SourceError, match=f"its '{name}' has values that are not finite"):
        gx.load_model(written(tmp_path / "bad.npz", models[model] | {name: bad}))


@pytest.mark.parametrize(
    ("shape", "megabytes", "says"),
    [
        ((1_000_000, 1_000_000), 1, "claims .* 4000000000000 bytes, and has 1048576"),
        ((400, 65_536), 100, "would unpack to"),
        ((3, 65_536), 0, "and has 0"),
    ],
)
def test_a_file_is_refused_before_memory_is_taken(models, tmp_path, shape, megabytes, says):
    rest = {k: v for k, v in models["pca"].items() if k != "loadings"}
    path = written(tmp_path / "bomb.npz", rest, loadings=(shape, megabytes))
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match=says):
            gx.load_model(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_what_is_no_model_is_refused(models, tmp_path):
    path = tmp_path / "m.npz"
    good = models["kmeans"]
    header = json.loads(str(good["header"]))

    def refused(says, **changed):
        text = json.dumps({k: v for k, v in (header | changed).items() if v is not None})
        with pytest.raises(SourceError, match=says):
            gx.load_model(written(path, good | {"header": np.array(text)}))

    for content in (b"", b"no archive", b"PK\x05\x06" + bytes(18)):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=r"m.npz is not a model"):
            gx.load_model(path)
    np.savez(path, **{name: each for name, each in good.items() if name != "header"})
    with pytest.raises(SourceError, match=r"m.npz is not a model .*it has no header"):
        gx.load_model(path)
    refused("another format", format="other")
    refused("holds a 'Unheard'; known are", kind="Unheard")
    refused("is not a model", kind=None)
    refused("is not a model", bands=7)
    refused("unexpected keyword", sorcery=1)
    refused("missing 1 required", inertia=None)
    legend = header["legend"]["legend"]
    refused("needs as many values", legend={"legend": legend | {"values": [1]}})
    refused("'#rrggbb'; got 'red'", legend={"legend": legend | {"colours": ["red", *legend["colours"][1:]]}})
    refused("which does not fit the others", legend={"legend": {k: v[:2] for k, v in legend.items()}})
    with pytest.raises(FileNotFoundError):
        gx.load_model(tmp_path / "nowhere.npz")


def test_the_ending_of_an_onnx_file_may_be_left_out_too(tmp_path):
    pytest.importorskip("onnx")
    kmeans = gx.testing.synthetic("alphaearth", shape=(12, 13)).emb.fit_clusters(3)
    kmeans.to_onnx(tmp_path / "w.onnx")
    assert gx.load_model(tmp_path / "w") == kmeans
