"""The space of an embedding as a scatter plot."""

import numpy as np
import pytest
from sklearn.decomposition import PCA as SklearnPCA

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError, MissingExtraError
from geoemb_xr.display import scattering

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")


@pytest.fixture(scope="module")
def one():
    return gx.testing.synthetic("alphaearth", shape=(48, 40), years=[2024], missing=True).emb.year(2024)


@pytest.fixture(scope="module")
def truth(one):
    return gx.testing.scene().truth(one.emb.geobox, 2024)


@pytest.fixture(autouse=True)
def close():
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def dots(ax):
    return np.concatenate([each.get_offsets().data for each in ax.collections])


def test_dots_lie_where_scikit_learn_puts_them_and_have_their_class(one, truth):
    ax = one.emb.scatter(by=truth, n_samples=10_000, thumbnails=3)
    vectors = one.transpose("y", "x", "band").values.reshape(-1, 64)
    there = np.isfinite(vectors).all(axis=1)
    expected = SklearnPCA(2).fit_transform(vectors[there])
    classes = truth.values.ravel()[there]
    legend = gx.testing.scene().names
    for name, drawn in zip([t.get_text() for t in ax.get_legend().get_texts()], ax.collections, strict=True):
        own = expected[classes == legend.index(name) + 1]
        found = drawn.get_offsets().data
        for axis in (0, 1):  # the sign of a component is anybody's
            sign = np.sign((found[:, axis] * own[:, axis]).sum())
            np.testing.assert_allclose(found[:, axis], sign * own[:, axis], atol=2e-4)
    assert len(dots(ax)) == there.sum() < vectors.shape[0]
    assert len([each for each in ax.artists if hasattr(each, "offsetbox")]) == 3
    assert ax.get_xlabel().startswith("component 1 (")
    assert "synthetic" in ax.texts[-1].get_text()


def test_a_lazy_array_is_thinned_and_numbers_get_a_bar(one):
    lazy = one.chunk(y=16, x=16)
    angle = one.emb.similarity(one[:, 30, 20].values)
    ax = lazy.emb.scatter(by=angle, n_samples=100, thumbnails=0)
    assert 20 < len(dots(ax)) <= 110
    assert len(ax.figure.axes) == 2


def test_points_are_coloured_by_a_column_on_axes_of_others(one):
    from matplotlib import pyplot

    points = gx.testing.scene().points(60, year=2024, radius=200)
    there = one.emb.sample(points)
    _, ax = pyplot.subplots()
    assert there.emb.scatter(by="land_cover", ax=ax, title="mine") is ax
    assert ax.get_title(loc="left") == "mine"
    names = {t.get_text() for t in ax.get_legend().get_texts()}
    assert names <= set(gx.testing.scene().names)
    with pytest.raises(EmbeddingError, match=r"not a column of the points; there are \['"):
        there.emb.scatter(by="crop")


def test_what_cannot_be_scattered_is_refused(one, truth):
    with pytest.raises(EmbeddingError, match="select one first"):
        gx.testing.synthetic("alphaearth", shape=(8, 8), years=[2018, 2024]).emb.scatter()
    with pytest.raises(EmbeddingError, match="needs the grid of the array"):
        one.emb.scatter(by=truth[:-1])
    with pytest.raises(EmbeddingError, match="another grid"):
        one.emb.scatter(by=truth.assign_coords(x=truth.x + 10))
    with pytest.raises(EmbeddingError, match="three vectors with data; got 0"):
        one.where(False).emb.scatter()
    with pytest.raises(EmbeddingError, match="scatter needs an embedding"):
        truth.emb.scatter()


def test_umap_is_used_where_it_is_and_named_where_it_is_not(one, monkeypatch):
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match="pip install umap-learn"):
        one.emb.scatter(method="umap")
    made = SimpleNamespace(UMAP=lambda random_state: SimpleNamespace(fit_transform=lambda rows: rows[:, :2]))
    monkeypatch.setitem(sys.modules, "umap", made)
    ax = one.emb.scatter(method="umap", thumbnails=0)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("UMAP 1", "UMAP 2")


def test_thumbnails_are_far_from_each_other():
    rng = np.random.default_rng(0)
    at = np.concatenate([rng.normal(centre, 0.01, (50, 2)) for centre in ((0, 0), (0, 5), (5, 0), (5, 5))])
    chosen = scattering._spread(at, 4)
    assert len({int(n) // 50 for n in chosen}) >= 3
    assert scattering._spread(at[:2], 9) in ([0, 1], [1, 0])
