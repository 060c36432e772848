"""The table of losses: what is exact is found to be, and more bytes lose less."""

import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr.compression import losses
from geoemb_xr.core import errors


@pytest.fixture(scope="module")
def found():
    da = gx.testing.synthetic("alphaearth", shape=(64, 64), years=(2018, 2024), missing=True)
    labels = gx.testing.scene().points(150, radius=300)
    return da.emb.losses(labels, target="land_cover", dims=(4, 16), n_samples=1500)


def test_what_is_exact_loses_nothing(found):
    table = found.table
    assert table.loc["float32", ["bytes", "recall_10", "recall_100"]].tolist() == [256, 1, 1]
    published = table.loc["as published (signed-square)"]
    assert published["bytes"] == 64
    assert published["recall_10"] > 0.999  # its vectors came from such codes
    assert published["cosine_error"] == pytest.approx(0, abs=1e-6)
    assert published["change_noise"] == pytest.approx(0, abs=0.05)


def test_fewer_bytes_lose_more(found):
    table = found.table
    assert table.loc[["bit", "pca16 bit", "pca4 int8"], "bytes"].tolist() == [8, 2, 8]
    bits = table.index.str.contains("bit")
    assert (table["stored"] <= table["bytes"] * 1.1)[~bits].all()
    assert (table["stored"] <= table["bytes"] * 2)[
        bits
    ].all()  # zstd takes a little more than a bit for a sign
    assert table.loc["pca4 int8", "cosine_error"] > table.loc["pca16 int8", "cosine_error"] > 1e-5
    assert table.loc["bit", "recall_10"] < table.loc["int8", "recall_10"] < 1
    assert table["probe"].between(0.2, 1).all()
    assert (table["worst_class"] <= table["probe"] + 0.05).all()


def test_components_are_fitted_where_nothing_is_measured(monkeypatch):
    da = gx.testing.synthetic("alphaearth", shape=(40, 40)).isel(time=0)
    seen = []
    fit = losses.quantizers.fit_compressor
    monkeypatch.setattr(losses.quantizers, "fit_compressor", lambda a, **o: seen.append(a) or fit(a, **o))
    result = da.emb.losses(dims=[4])
    train = set(zip(seen[0].x.values, seen[0].y.values, strict=True))
    assert len(train) + result.n == 1600
    assert all(len(a.location) == len(train) for a in seen)


def test_recall_is_what_faiss_finds():
    """The true neighbours, and those that stored vectors find, with the ones close by on the ground left out."""
    faiss = pytest.importorskip("faiss")
    rng = np.random.default_rng(5)
    true = rng.normal(size=(700, 16)).astype(np.float32) + np.repeat(rng.normal(size=(70, 16)), 10, axis=0)
    true = true.astype(np.float32)
    stored = np.round(true * 2) / 2
    places = rng.uniform(0, 1000, (700, 2))
    near = losses._nearest(true, places, 0)

    def nearest(rows, k):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(unit)
        found = []
        for query, order in zip(near.queries, index.search(unit[near.queries], 700)[1], strict=True):
            far = np.hypot(*(places[order] - places[query]).T) > 0.01 * np.ptp(places, axis=0).max()
            found.append(order[far][:k])
        return found

    for k in (10, 100):
        pairs = list(zip(nearest(true, k), nearest(stored, k), strict=True))
        assert all(set(a) == set(b) for (a, _), b in zip(pairs, near.order[:, :k], strict=True))
        share = np.mean([len(set(a) & set(b)) / k for a, b in pairs])
        assert share < 0.99
        assert losses._recall(stored, near, k) == pytest.approx(share, abs=2e-3)  # ties


def test_it_draws(found):
    plt = pytest.importorskip("matplotlib.pyplot")
    ax = found.plot(what="recall_100")
    assert [each.get_text() for each in ax.texts] == found.table.index.tolist()
    boxes = [each.get_window_extent() for each in ax.texts]
    assert all(box.count_overlaps(boxes) == 1 for box in boxes)  # itself
    plt.close(ax.figure)
    with pytest.raises(errors.EmbeddingError, match="nothing to draw for 'speed'"):
        found.plot(what="speed")
    assert "measured on" in repr(found)
    assert "<table" in found._repr_html_()


def test_too_little_to_measure():
    da = gx.testing.synthetic("alphaearth", shape=(8, 8)).isel(time=0)
    with pytest.raises(errors.EmbeddingError, match="50 vectors to fit on and 50 to measure on"):
        da.emb.losses()
    assert np.unique(losses.regions(np.random.default_rng(0).random((500, 2)))).size == 16
