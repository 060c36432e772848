"""Scores and sums by torch are those of NumPy; ``cpu:0`` takes the way of a GPU without one."""

import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError

torch = pytest.importorskip("torch")

DEVICES = [
    "cpu:0",
    pytest.param(
        "cuda:0",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]
PLACES = [(11.37, 47.25), (11.372, 47.251), (11.368, 47.249)]
SOURCES = ["alphaearth", "alphaearth, decoded", "tessera"]


def an_array(source, order=("time", "band", "y", "x")):
    name, _, decoded = source.partition(", ")
    array = gx.testing.synthetic(name, shape=(40, 50), years=[2018, 2024], decode=bool(decoded), missing=True)
    return array.transpose(*order).chunk(y=16)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("order", [("time", "band", "y", "x"), ("y", "x", "time", "band")])
@pytest.mark.parametrize("source", SOURCES)
def test_similarity_is_that_of_the_cpu(source, order, device):
    array = an_array(source, order)
    for query, how, metric in [
        (PLACES[0], "mean", "cosine"),
        (PLACES, "max", "cosine"),
        (PLACES, "mean", "euclidean"),
        (PLACES, "max", "euclidean"),
    ]:
        expected = array.emb.similarity(query, how=how, metric=metric, time=2018)
        found = array.emb.similarity(query, how=how, metric=metric, time=2018, device=device)
        assert found.dtype == found.compute().dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
        assert found.attrs == expected.attrs
    assert np.isnan(expected).any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "options",
    [
        {"query": PLACES[0]},
        {"query": PLACES, "how": "each"},
        {"query": PLACES, "how": "max", "negatives": [(11.3722, 47.2485)]},
        {"query": PLACES[0], "background": "mean"},
        {"query": PLACES[0], "metric": "euclidean", "min_distance": 60},
    ],
    ids=["one", "each", "negatives", "background", "apart"],
)
def test_search_finds_what_it_finds_on_the_cpu(source, options, device):
    array = an_array(source)
    expected = array.emb.search(k=12, time=2024, **options)
    found = array.emb.search(k=12, time=2024, **options, device=device)
    score = "distance" if "metric" in options else "similarity"
    np.testing.assert_allclose(found[score], expected[score], rtol=1e-5, atol=1e-5)
    apart = np.abs(np.diff(expected[score], prepend=np.inf)) > 1e-5  # of equal scores either may come first
    apart &= np.abs(np.diff(expected[score], append=np.inf)) > 1e-5
    assert apart.any()
    assert found[["x", "y", "time"]][apart].equals(expected[["x", "y", "time"]][apart])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("source", SOURCES)
def test_components_are_those_of_the_cpu(source, device):
    array = an_array(source, ("y", "x", "time", "band"))
    weights = (array.x - array.x.min() + 10.0) * gx.testing.synthetic("alphaearth", shape=(40, 50)).y.clip(
        0, 1
    )
    for options in ({}, {"weights": weights}, {"mask": weights > 200}, {"n_samples": 1000}):
        expected, found = (array.emb.fit_pca(3, **options, device=each) for each in ("cpu", device))
        assert found.n == pytest.approx(expected.n)
        np.testing.assert_allclose(found.mean, expected.mean, atol=1e-6)
        np.testing.assert_allclose(found.loadings, expected.loadings, atol=2e-4)
        np.testing.assert_allclose(found.explained_variance, expected.explained_variance, rtol=1e-5)
        np.testing.assert_allclose(found.limits, expected.limits, rtol=1e-3, atol=1e-4)


def test_sums_are_made_batch_by_batch(monkeypatch):
    from geoemb_xr.execution import lanes

    array = an_array("tessera").isel(time=0)
    whole = array.emb.fit_pca(3, device="cpu:0")
    monkeypatch.setattr(lanes, "_SMALLEST", 100)
    monkeypatch.setattr(lanes, "BATCH_BYTES", 100 * array.sizes["band"])
    np.testing.assert_allclose(array.emb.fit_pca(3, device="cpu:0").mean, whole.mean, atol=1e-7)


def test_devices_are_checked_before_anything_is_read():
    array = an_array("alphaearth")
    for verb in (
        lambda device: array.emb.similarity(PLACES[0], device=device),
        lambda device: array.emb.search(PLACES[0], device=device),
        lambda device: array.emb.fit_pca(3, device=device),
    ):
        with pytest.raises(ValueError, match="device is 'auto', 'cpu', or a device of torch"):
            verb("gpu")
    with pytest.raises(EmbeddingError, match="device='cuda:64' is not there"):
        array.emb.fit_pca(3, device="cuda:64")
