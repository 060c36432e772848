"""Which map is better and how wrong one can be, against SciPy's exact tests and the frequencies they promise."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import geoemb_xr as gx
from geoemb_xr.comparing import two_maps
from geoemb_xr.core.errors import EmbeddingError

TRUTH = gx.testing.scene().truth(gx.testing.geobox((120, 130)), 2018)
NAMES = dict(enumerate(gx.testing.scene().names, start=1))


def worse(share, seed):
    wrong = np.random.default_rng(seed).random(TRUTH.shape) < share
    return TRUTH.where(~wrong, TRUTH % 6 + 1).astype("u1").assign_attrs(TRUTH.attrs)


def visited(places):
    return places.assign(label=[NAMES[int(v)] for v in gx.sample(TRUTH, places).values])


def test_labels_where_maps_differ_tell_the_better_one():
    good, bad = worse(0.1, 0), worse(0.3, 1)
    places = two_maps.disagreements(good, bad, 100)
    assert len(places) == 100
    assert (gx.sample(good, places).values != gx.sample(bad, places).values).all()
    pd.testing.assert_frame_equal(places, two_maps.disagreements(good.chunk(y=50), bad.chunk(x=40), 100))
    found = two_maps.better_map(good, bad, visited(places))
    a, b = ((gx.sample(each, places).values == gx.sample(TRUTH, places).values).sum() for each in (good, bad))
    assert (found.first, found.second, found.neither) == (a, b, 100 - a - b)
    assert found.p == pytest.approx(stats.binomtest(a, a + b).pvalue)
    assert found.winner == "first"
    assert two_maps.better_map(bad, good, visited(places)).winner == "second"
    assert "the first map is better" in str(found)


def test_equal_maps_are_not_told_apart_more_often_than_promised():
    one, other = worse(0.2, 2), worse(0.2, 3)
    winners = [
        two_maps.better_map(one, other, visited(two_maps.disagreements(one, other, 60, seed=s))).winner
        for s in range(25)
    ]
    assert sum(each is not None for each in winners) <= 4


def test_labels_where_maps_agree_say_nothing(caplog):
    good, bad = worse(0.1, 0), worse(0.3, 1)
    some = visited(two_maps.disagreements(good, bad, 40))
    anywhere = gx.labels(TRUTH, per_class=20)[["lon", "lat"]]
    both = pd.concat([some, visited(anywhere)])
    with caplog.at_level("INFO", logger="geoemb_xr"):
        found = two_maps.better_map(good, bad, both)
    assert found.first + found.second + found.neither < len(both)
    assert "leaves out" in caplog.text


def test_names_count_and_not_codes():
    other = gx.testing.scene().truth(gx.testing.geobox((120, 130)), 2018)
    shifted = (
        (other + 10)
        .astype("u1")
        .assign_attrs(
            flag_values=[v + 10 for v in TRUTH.attrs["flag_values"]],
            flag_meanings=TRUTH.attrs["flag_meanings"],
        )
    )
    with pytest.raises(EmbeddingError, match="agree wherever"):
        two_maps.disagreements(TRUTH, shifted, 10)


def test_the_bound_is_clopper_and_pearsons_and_holds():
    for wrong, n in ((0, 59), (3, 100), (17, 40)):
        expected = stats.binomtest(wrong, n, alternative="less").proportion_ci(0.95, method="exact").high
        assert two_maps.upper_bound(wrong, n) == pytest.approx(expected)
    assert two_maps.upper_bound(5, 5) == 1
    mapped = worse(0.2, 4)
    truly = float((mapped != TRUTH).mean())
    everywhere = gx.labels(TRUTH, per_class=None)[["lon", "lat"]]
    bounds = [two_maps.error_bound(mapped, visited(everywhere.sample(80, random_state=s))) for s in range(20)]
    assert np.mean([bound >= truly for bound in bounds]) >= 0.9
    designed = [
        two_maps.error_bound(mapped, visited(gx.sample_design(mapped, 120, seed=s))) for s in range(10)
    ]
    assert np.mean([bound >= truly for bound in designed]) == 1
    assert np.mean(designed) < 0.6


def test_a_stratum_that_nobody_visited_may_be_wrong_everywhere():
    mapped = worse(0.2, 4)
    places = visited(gx.sample_design(mapped, 120))
    whole = two_maps.error_bound(mapped, places)
    gone = places.stratum == "grassland"
    size = places.groupby("stratum").stratum_ha.first()
    wrong, n = (places.stratum != places.label)[gone].sum(), gone.sum()
    share = size["grassland"] / size.sum()
    without = two_maps.error_bound(mapped, places.assign(label=places.label.mask(gone)))
    assert without == pytest.approx(
        whole + share * (1 - two_maps.upper_bound(wrong, n, 1 - 0.05 / len(size)))
    )


def test_what_cannot_be_compared_is_said():
    mapped = worse(0.2, 4)
    with pytest.raises(EmbeddingError, match="different grids"):
        two_maps.better_map(mapped, mapped[:50], pd.DataFrame())
    with pytest.raises(EmbeddingError, match="class maps with dims"):
        two_maps.error_bound(mapped.astype("f4"), pd.DataFrame())
    with pytest.raises(EmbeddingError, match="column 'label'"):
        two_maps.error_bound(mapped, pd.DataFrame({"lon": [1], "lat": [1]}))
    labels = visited(gx.labels(TRUTH, per_class=3)[["lon", "lat"]])
    with pytest.raises(EmbeddingError, match="no label lies where the two maps differ"):
        two_maps.better_map(mapped, mapped, labels)
