"""What a probe relies on, on vectors whose truth is planted."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import geoemb_xr as gx
from geoemb_xr.core.errors import ComparabilityError, EmbeddingError

N, BANDS = 300, 8


@pytest.fixture(scope="module")
def planted():
    """Bands 2 and 5 tell the class, the others are noise; places are spread out."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, N)
    x = rng.normal(0, 1, (N, BANDS)).astype("f4")
    x[:, 2] += 3 * (y == 1)
    x[:, 5] += 4 * (y == 2)
    made = gx.Product("planted", dims=BANDS)
    lon, lat = 11 + rng.random(N), 47 + rng.random(N)
    array = gx.wrap(x, made, x=lon, y=lat, crs="EPSG:4326")
    labels = np.array(["a", "b", "c"])[y]
    probe = gx.fit_probe(array, labels, target="kind", method="ridge")
    return array, labels, probe, gx.explain(array, probe, labels=labels, target="kind")


def test_contributions_add_up_to_scores(planted):
    array, labels, probe, found = planted
    x = array.values
    score = probe.parameters["weights"].astype(float) @ x.T.astype(float) + probe.parameters["bias"][:, None]
    for number, name in enumerate(["a", "b", "c"]):
        difference = score[number, labels == name].mean() - score[number].mean()
        assert found.contributions.loc[name].sum() == pytest.approx(difference, abs=1e-6)
    parts = found.of(x[:4])
    at_mean = probe.parameters["weights"].astype(float) @ found.mean + probe.parameters["bias"]
    for vector in range(4):
        total = parts.loc[vector].sum(axis=1) + at_mean
        np.testing.assert_allclose(total, score[:, vector], atol=1e-5)
    assert found.contributions.loc["b"].idxmax() == array.band.values[2]
    assert found.contributions.loc["c"].idxmax() == array.band.values[5]


def test_shuffled_bands_matter_where_they_tell_the_class(planted):
    array, _, _, found = planted
    drop = found.permutation["drop"]
    assert set(drop.nlargest(2).index) == {array.band.values[2], array.band.values[5]}
    assert drop.nlargest(2).min() > 0.1
    assert drop.nsmallest(6).abs().max() < 0.05


def test_few_dimensions_are_enough(planted):
    _, _, _, found = planted
    assert found.base > 0.85
    assert found.enough(share=0.9) <= 4
    assert found.enough("prefix") == 8  # band 5 is the sixth, and only 1, 2, 4, 8 are tried
    assert found.fewer.loc[8].to_numpy() == pytest.approx(found.base, abs=0.01)


def test_the_nearest_labels_are_the_nearest(planted):
    array, labels, _, found = planted
    points = gx.wrap(array.values[:1] + 0.01, gx.product("planted"), x=[11.5], y=[47.5], crs="EPSG:4326")
    grid = points.assign_coords(patch_m=("location", [100.0]))
    near = found.examples(grid, (11.5, 47.5), k=3)
    distance = np.linalg.norm(array.values - points.values, axis=1)
    assert near.row.tolist() == np.argsort(distance)[:3].tolist()
    np.testing.assert_allclose(near.distance, np.sort(distance)[:3], rtol=1e-4)
    assert near.label.tolist() == labels[near.row].tolist()
    assert near.predicted.nunique() == 1


def test_bands_follow_layers():
    da = gx.testing.synthetic("alphaearth", shape=(40, 40)).emb.year(2018)
    truth = gx.testing.scene().truth(gx.testing.geobox((40, 40)), 2018)
    probe = da.emb.fit_probe(truth, target="land_cover", method="ridge", cv=0)
    layer = (da.isel(band=3, drop=True) ** 3).assign_attrs({})
    found = da.emb.explain(probe, layers={"cube": layer})
    assert found.layers["cube"].iloc[3] == pytest.approx(1)
    values = da.transpose("band", "y", "x").values.reshape(64, -1)
    expected = [stats.spearmanr(each, values[3])[0] for each in values]
    np.testing.assert_allclose(found.layers["cube"], expected, atol=1e-9)
    assert found.permutation.empty
    assert found.contributions.shape == (len(probe.legend.names), 64)


def test_other_probes_and_values(planted):
    array, labels, _, _ = planted
    knn = gx.fit_probe(array, labels, target="kind", method="knn")
    found = gx.explain(array, knn, labels=labels, repeats=1)
    assert found.contributions.empty
    assert found.permutation["drop"].idxmax() in (array.band.values[2], array.band.values[5])
    value = array.values[:, 4] * 2.0 + 1
    ridge = gx.fit_probe(array.values, value.astype(float), method="ridge", cv=0)
    found = gx.explain(array.values, ridge, labels=value.astype(float), repeats=1)
    assert found.contributions.iloc[0].abs().idxmax() == "band 4"
    assert found.score == "r2"


def test_pictures_and_text(planted):
    plt = pytest.importorskip("matplotlib.pyplot")
    _, _, _, found = planted
    for what in ("contributions", "permutation", "fewer"):
        ax = found.plot(what=what)
        assert ax.has_data() or ax.images
    plt.close("all")
    with pytest.raises(EmbeddingError, match="layers="):
        found.plot(what="layers")
    assert "98% of balanced_accuracy" in str(found)


def test_what_cannot_be_explained_is_said(planted):
    array, labels, probe, _ = planted
    with pytest.raises(EmbeddingError, match=r"classes \['d'\] that the probe does not know"):
        gx.explain(array, probe, labels=np.where(labels == "a", "d", labels))
    with pytest.raises(ComparabilityError):
        gx.explain(gx.testing.synthetic("alphaearth", shape=(8, 8)).emb.year(2018), probe)
    with pytest.raises(EmbeddingError, match="needs labels="):
        gx.explain(array, probe).examples(array, (11, 47))
    with pytest.raises(EmbeddingError, match="fit_probe"):
        gx.explain(array, pd.DataFrame())


def test_labels_behind_a_prediction_have_names():
    da = gx.testing.synthetic("alphaearth", shape=(40, 40)).emb.year(2018)
    drawn = gx.labels(gx.testing.scene().truth(gx.testing.geobox((40, 40)), 2018), per_class=15)
    probe = da.emb.fit_probe(drawn, target="land_cover", method="ridge", cv=0)
    near = da.emb.explain(probe, labels=drawn, repeats=1).examples(da, (11.37, 47.25), k=4)
    names = np.array(gx.testing.scene().names)[drawn.land_cover - 1]
    assert near.label.tolist() == names[near.row].tolist()
