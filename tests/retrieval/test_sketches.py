"""Sketches: signs against NumPy's own, hits against the exact search."""

import logging

import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr.core import codecs, errors
from geoemb_xr.retrieval import sketches

HERE = (11.37, 47.25)


def scene(product="alphaearth", shape=(64, 60), **options):
    return gx.testing.synthetic(product, shape=shape, missing=True, **options).emb.year(2018)


def test_signs_are_packed_from_the_lowest_bit():
    vectors = np.random.default_rng(0).standard_normal((5, 70))
    words = codecs.pack_signs(vectors)
    assert words.shape == (5, 2)
    expected = [
        [sum(1 << b for b in range(64) if row[b] > 0), sum(1 << b for b in range(6) if row[64 + b] > 0)]
        for row in vectors
    ]
    assert words.tolist() == expected


@pytest.mark.parametrize(("product", "least"), [("alphaearth", 0.97), ("tessera", 0.9)])
def test_a_sketch_finds_nearly_all(product, least, tmp_path, caplog):
    da = scene(product, decode=False).chunk(y=20, x=64)
    with caplog.at_level(logging.INFO, "geoemb_xr"):
        sketch = da.emb.build_sketch(tmp_path / "scene.sketch.npz")
    assert sketch.recall > least
    assert f"finds {sketch.recall:.3f} of the true ones" in caplog.text
    assert sketch.bits.nbytes == 8 * 64 * 60
    query = da.emb.sample([HERE]).emb.decode().values
    exact = da.emb.search(query, 50)
    for given in (sketch, tmp_path / "scene.sketch.npz"):
        found = da.emb.search(query, 50, sketch=given)
        # what it finds is scored exactly, and what it misses is missed by the number that it states
        both = exact.merge(found, on=["x", "y"])
        assert len(both) >= 45
        np.testing.assert_allclose(both.similarity_x, both.similarity_y, atol=1e-6)
    apart = da.emb.search(HERE, 5, min_distance=60, sketch=sketch)
    np.testing.assert_allclose(
        apart.similarity, da.emb.search(HERE, 5, min_distance=60).similarity, atol=1e-6
    )


@pytest.mark.parametrize("twin", [sketches._levels, sketches._levels_numpy], ids=["compiled", "numpy"])
@pytest.mark.parametrize("aim", ["some", "zero"])
def test_levels_are_weighted_counts_of_signs_that_differ(twin, aim, monkeypatch):
    monkeypatch.setattr(sketches, "_levels", twin)
    monkeypatch.setattr(sketches, "_PART", 64)
    rng = np.random.default_rng(0)
    vectors, there = rng.standard_normal((150, 64)), rng.random(150) > 0.2
    bits, present = codecs.pack_signs(vectors)[:, 0], np.packbits(there, bitorder="little")
    aim = rng.standard_normal(64).astype("f4") if aim == "some" else np.zeros(64, "f4")
    facts = "alphaearth", "v1", tuple(map(str, range(64))), ("location",), (150,), "", 0, 0.0
    sketch = sketches.Sketch(*facts, bits, present, np.zeros(64, "f4"), np.empty((0, 64), "f4"))
    levels, at_most = sketch.levels(aim)
    expected = (((vectors > 0) != (aim > 0)) * np.abs(aim)).sum(axis=1)
    np.testing.assert_allclose(
        levels[there], expected[there] * (65_535 - 64) / (np.abs(aim).sum() or 1.0), atol=32
    )
    assert (levels[~there] == 65_535).all()
    assert [at_most[v] for v in levels[there]] == [(levels[there] <= v).sum() for v in levels[there]]
    for n in (0, 1, 60, 150):
        found = sketch.nearest(aim, n)
        np.testing.assert_array_equal(np.sort(levels[found]), np.sort(levels[there])[:n])
        assert there[found].all()
        assert (np.diff(found) > 0).all()


def test_signs_are_those_of_vectors_about_their_mean():
    da = scene().chunk(y=20)
    sketch = da.emb.build_sketch()
    vectors = da.transpose("y", "x", "band").values.reshape(-1, 64)
    there = np.isfinite(vectors).all(axis=1)
    np.testing.assert_array_equal(np.unpackbits(sketch.present, bitorder="little")[: there.size], there)
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = codecs.pack_signs(rows - np.nanmean(rows, axis=0, dtype=np.float64))[:, 0]
    off = np.bitwise_count(expected ^ sketch.bits)[there]
    assert off.mean() < 0.01
    turned = da.transpose("x", "band", "y").emb.build_sketch()
    assert np.bitwise_count(turned.bits ^ sketch.bits)[there].mean() < 0.01


def test_many_queries_negatives_and_backgrounds_use_a_sketch():
    da = scene(decode=False)
    sketch = da.emb.build_sketch()
    vectors = da.emb.decode().values[:, [30, 40], [10, 50]].T
    one = {"background": "mean"}, {"negatives": vectors[1:]}, {"background": "mean", "negatives": vectors[1:]}
    several = {"how": "each"}, {"how": "max"}
    for query, options in [(vectors[:1], each) for each in one] + [(vectors, each) for each in several]:
        found = da.emb.search(query, 10, sketch=sketch, **options)
        exact = da.emb.search(query, 10, **options)
        missed = set(zip(exact.x, exact.y, strict=True)) - set(zip(found.x, found.y, strict=True))
        assert len(missed) <= 2, options
        np.testing.assert_allclose(found.similarity.max(), exact.similarity.max(), atol=1e-6)


def test_a_sketch_of_something_else_is_refused(tmp_path):
    da = scene()
    sketch = da.emb.build_sketch()
    with pytest.raises(errors.EmbeddingError, match="make one with build_sketch"):
        da.isel(y=slice(20, 50)).emb.search(np.ones(64), 3, sketch=sketch)
    with pytest.raises(errors.ComparabilityError, match="search cannot mix"):
        scene("tessera").emb.search(HERE, 3, sketch=sketch)
    rolled = da.copy(data=np.roll(da.values, 7, axis=0))
    with pytest.raises(errors.SourceError, match="other vectors than the sketch was made of"):
        rolled.emb.search(HERE, 3, sketch=sketch)
    with pytest.raises(ValueError, match="a sketch holds directions"):
        da.emb.search(HERE, 3, metric="euclidean", sketch=sketch)
    with pytest.raises(ValueError, match="a sketch is of one array; got 2"):
        gx.search([da, da], HERE, 3, sketch=sketch)
    with pytest.raises(FileNotFoundError):
        da.emb.search(HERE, 3, sketch=tmp_path / "none.npz")
    pca = da.emb.fit_pca(3).save(tmp_path / "pca.npz")
    with pytest.raises(errors.SourceError, match="is not a sketch"):
        da.emb.search(HERE, 3, sketch=pca)
    cut = tmp_path / "cut.npz"
    whole = sketch.save(tmp_path / "whole.npz").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(errors.SourceError, match="is not a sketch"):
        da.emb.search(HERE, 3, sketch=cut)
    with pytest.raises(errors.EmbeddingError, match="build_sketch found no pixel"):
        da.isel(y=slice(0, 2), x=slice(0, 2)).emb.build_sketch()
