"""Intrinsic dimension and spread, against data whose truth is known and the definitions in float64."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError


def manifold(dims, bands=32, n=1500, seed=0):
    """A linear manifold of that dimension in more bands."""
    rng = np.random.default_rng(seed)
    frame = np.linalg.qr(rng.standard_normal((bands, dims)))[0]
    return (rng.random((n, dims)) @ frame.T).astype("f4")


def reference(x, k):
    """Levina and Bickel (2004), inverses averaged; and TwoNN. Float64, all distances."""
    distance = np.sort(cdist(x.astype(float), x.astype(float)), axis=1)[:, 1 : k + 1]
    inverse = np.log(distance[:, -1:] / distance[:, :-1]).mean(axis=1)
    return 1 / inverse.mean(), len(x) / np.log(distance[:, 1] / distance[:, 0]).sum()


@pytest.mark.parametrize("dims", [2, 5])
def test_intrinsic_dimension_is_that_of_the_definition_and_near_the_truth(dims):
    x = manifold(dims)
    found = gx.diagnose(x, neighbours=(10, 20))
    mle, twonn = reference(x, 20)
    assert found.intrinsic_mle[20] == pytest.approx(mle, rel=1e-3)
    assert found.intrinsic_twonn == pytest.approx(twonn, rel=1e-3)
    assert found.intrinsic_twonn == pytest.approx(dims, rel=0.12)


def test_equal_vectors_count_once():
    x = manifold(3, n=600)
    found, twice = gx.diagnose(x), gx.diagnose(np.concatenate([x, x[:200], x[:200]]))
    assert twice.duplicates == 400
    assert twice.intrinsic_twonn == found.intrinsic_twonn
    assert twice.intrinsic_mle == found.intrinsic_mle


def test_rank_and_spread_have_closed_forms():
    eye = np.eye(8, dtype="f4")
    found = gx.diagnose(np.concatenate([eye, -eye]))
    assert found.effective_rank == pytest.approx(8)
    assert found.isotropy == pytest.approx(1)
    assert found.dims_for[0.9] == 8
    assert found.mean_cosine == pytest.approx(-1 / 15)  # of 120 pairs 8 are opposite
    assert found.uniformity == pytest.approx(np.log((112 * np.exp(-4) + 8 * np.exp(-8)) / 120))
    line = np.linspace(1, 2, 50)[:, None] * np.ones((1, 8))
    flat = gx.diagnose(line.astype("f4"))
    assert flat.effective_rank == pytest.approx(1, abs=0.05)
    assert flat.isotropy < 0.5
    assert flat.norm["max"] == pytest.approx(2 * np.sqrt(8))


def test_codes_are_looked_at_and_chunks_change_nothing():
    codes = gx.encode(gx.testing.synthetic("alphaearth", shape=(40, 40)).emb.year(2018))
    found = codes.emb.diagnose(n_samples=500)
    assert found.ok
    assert found.exact_codes == 1
    assert found.saturated < 0.01
    assert codes.chunk(y=16, x=9).emb.diagnose(n_samples=500) == found
    averaged = (codes.emb.decode() * 1.003).assign_attrs(codes.emb.decode().attrs)
    assert averaged.emb.diagnose(n_samples=500).exact_codes < 0.5


def test_what_is_wrong_is_said():
    x = manifold(4, n=400)
    x[3] *= 1e4
    x[5] = 0
    x[:, 7] = 1.5
    problems = " ".join(gx.diagnose(x).problems)
    for text in ("1 vectors are at least 16 times", "1 bands have one value"):
        assert text in problems
    zeros = np.concatenate([manifold(4, n=40), np.zeros((60, 32), "f4")])
    problems = " ".join(gx.diagnose(zeros).problems)
    assert "60 vectors are all zero" in problems
    assert "59 of 100 vectors equal another one" in problems
    da = gx.testing.synthetic("alphaearth", shape=(20, 20)).emb.year(2018)
    assert "norms are" in " ".join((da * 2).assign_attrs(da.attrs).emb.diagnose().problems)
    with pytest.raises(EmbeddingError, match="three vectors"):
        gx.diagnose(np.full((5, 4), np.nan))
    with pytest.raises(EmbeddingError, match=r"shape \(n, band\)"):
        gx.diagnose(np.ones(4))


def test_it_prints():
    text = str(gx.diagnose(manifold(3, n=200)))
    assert "intrinsic dimension" in text
    assert "effective rank" in gx.diagnose(manifold(3, n=200))._repr_html_()
    assert gx.diagnose(manifold(3, n=200)).table()["dims"] == 32
