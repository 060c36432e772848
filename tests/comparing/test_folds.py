"""How labels are held out: what no training part may hold, and folds that match an area."""

import numpy as np
import pytest
import shapely
from odc.geo.geobox import GeoBox
from scipy.spatial.distance import cdist

from geoemb_xr.comparing import folds, knndm
from geoemb_xr.comparing.residuals import Range, autocorrelation_range
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.probes.heads import Data


def scattered(n=300, seed=0, degrees=1.0):
    rng = np.random.default_rng(seed)
    return np.column_stack([11 + degrees * rng.random(n), 47 + degrees * rng.random(n)])


def layout(lonlat, reach=None, groups=None, **kwargs):
    n = len(lonlat)
    groups = np.arange(n) if groups is None else groups
    data = Data(np.zeros((n, 1), "f4"), np.arange(n) % 3, np.ones(n), groups, 3, 0, folds.on_sphere(lonlat))
    none = np.array([], int)
    return folds.SplitGround(data, lonlat, **{"k": 5, "buffer": 0.0, "by": none, "years": none, "domain": None,
                                         "reach": reach, **kwargs})  # fmt: skip


def field(places, reach, seed, nugget=0.1):
    """A random field with a spherical correlation of that range."""
    h = np.minimum(cdist(places, places) / reach, 1)
    correlation = (1 - nugget) * (1 - 1.5 * h + 0.5 * h**3) + nugget * np.eye(len(places))
    return np.linalg.cholesky(correlation) @ np.random.default_rng(seed).standard_normal(len(places))


# --- the range of autocorrelation -----------------------------------------------------------------------------


def test_the_range_of_a_field_is_found():
    places = np.random.default_rng(0).random((300, 2)) * 100_000
    found = [autocorrelation_range(places, field(places, 20_000, s)[:, None], 0).metres for s in range(4)]
    assert 14_000 < np.median(found) < 26_000


def test_a_range_that_cannot_be_identified_is_said():
    places = np.random.default_rng(0).random((300, 2)) * 100_000
    noise = np.random.default_rng(1).standard_normal((300, 1))
    assert autocorrelation_range(places, noise, 0).metres is None
    assert "not alike" in autocorrelation_range(places, noise, 0).note
    trend = places[:, :1] / 100_000
    assert "as far as" in autocorrelation_range(places, trend, 0).note
    assert "too few" in autocorrelation_range(places[:5], noise[:5], 0).note


# --- blocks -----------------------------------------------------------------------------------------------------


def reach(metres):
    return Range(metres, "" if metres else "noise", *(np.empty(0),) * 3)


def test_blocks_are_as_wide_as_errors_are_alike():
    split = layout(scattered(), reach(15_000.0)).split("blocks")
    assert split.facts == {"side_m": 15_000.0, "range_m": 15_000.0}
    for unit in np.unique(split.units):
        places = folds.on_sphere(scattered())[split.units == unit]
        assert cdist(places, places).max() <= 15_000 * np.sqrt(2) * 1.01
        assert len(np.unique(split.folds[split.units == unit])) == 1
    assert 30 < len(np.unique(split.units)) < 60  # 111 × 76 km of squares


def test_blocks_are_capped_and_said_where_the_range_is_unknown():
    split = layout(scattered(), reach(90_000.0)).split("blocks")
    assert split.facts["note"].startswith("capped")
    assert len(np.unique(split.units)) >= 10
    unknown = layout(scattered(), reach(None)).split("blocks")
    assert "not identified (noise)" in unknown.facts["note"]
    assert len(np.unique(unknown.units)) == folds.REGIONS


def test_blocks_hold_across_the_antimeridian_and_keep_groups_whole():
    lonlat = scattered() - [11.5, 0]  # around 0, then turned to ±180
    turned = np.column_stack([(lonlat[:, 0] + 360) % 360 - 180, lonlat[:, 1]])
    here = folds.squares(turned, 20_000, np.arange(300))
    size = cdist(folds.on_sphere(turned), folds.on_sphere(turned))
    assert max(size[np.ix_(here == b, here == b)].max() for b in np.unique(here)) < 29_000
    assert len(np.unique(here)) < 1.3 * len(np.unique(folds.squares(lonlat, 20_000, np.arange(300))))
    groups = np.arange(300) // 10
    whole = folds.squares(lonlat, 20_000, groups)
    assert all(len(np.unique(whole[groups == g])) == 1 for g in range(30))


# --- groups, years ------------------------------------------------------------------------------------------------


def test_regions_and_years_are_left_out_whole():
    lonlat = scattered()
    by, years = np.where(lonlat[:, 0] > 11.4, "east", "west"), 2018 + np.arange(300) % 3
    made = layout(lonlat, by=by, years=years, buffer=3_000.0)
    for train, test in made.split("regions").parts(folds.on_sphere(lonlat)):
        assert not set(by[train]) & set(by[test])
        assert cdist(folds.on_sphere(lonlat[train]), folds.on_sphere(lonlat[test])).min() > 3_000
    for train, test in made.split("years").parts(folds.on_sphere(lonlat)):
        assert len(set(years[test])) == 1
        assert not set(years[train]) & set(years[test])


def test_places_and_years_are_left_out_together():
    lonlat, years = np.repeat(scattered(60), 3, axis=0), np.tile([2018, 2019, 2020], 60)
    made = layout(lonlat, groups=np.arange(180) // 3, years=years)
    split = made.split("places_years")
    tested = []
    for train, test in split.parts(folds.on_sphere(lonlat)):
        assert len(set(years[test])) == 1
        assert not set(years[train]) & set(years[test])
        assert not set(train // 3) & set(test // 3)
        assert len(train) == ((split.folds != split.folds[test[0]]) & (years != years[test[0]])).sum()
        tested += list(test)
    assert sorted(tested) == list(range(180))


def test_what_cannot_be_parted_is_said():
    with pytest.raises(
        EmbeddingError, match="'years' cannot part the 300 labels: the labels are of one year"
    ):
        layout(scattered()).split("years")
    with pytest.raises(EmbeddingError, match=r"'regions' cannot part.*one group"):
        layout(scattered(), by=np.zeros(300, int)).split("regions")


# --- kNNDM --------------------------------------------------------------------------------------------------------


def w_by_definition(a, b):
    """∫ |F(r) − G(r)| dr of two samples, summed over all steps of the two distribution functions."""
    steps = np.unique([*a, *b])
    f, g = ((each[:, None] <= steps).mean(axis=0) for each in (a, b))
    return float((np.abs(f - g)[:-1] * np.diff(steps)).sum())


def clustered(seed=0, n=60):
    rng = np.random.default_rng(seed)
    centres = rng.random((6, 2)) * 100_000
    return centres[rng.integers(0, 6, n)] + rng.normal(0, 1_500, (n, 2))


def test_w_is_that_of_the_definition():
    places, area = clustered(), np.random.default_rng(9).random((400, 2)) * 100_000
    found = knndm.matched_folds(places, np.arange(60), area, 5, 0)
    distance = cdist(places, places)
    apart = np.where(found.folds[:, None] == found.folds, np.inf, distance).min(axis=1)
    wanted = cdist(area, places).min(axis=1)
    assert not found.random
    assert found.w == pytest.approx(w_by_definition(apart, wanted))
    assert found.w < 0.5 * found.w_random
    assert np.bincount(found.folds).max() <= 30


def test_no_two_folds_of_few_labels_match_much_better():
    places, area = clustered(3, 9), np.random.default_rng(9).random((300, 2)) * 100_000
    wanted = cdist(area, places).min(axis=1)
    distance, best = cdist(places, places), np.inf
    for code in range(1, 2**8):
        fold = np.array([0, *(code >> i & 1 for i in range(8))])
        if min(np.bincount(fold, minlength=2)) >= 4:
            apart = np.where(fold[:, None] == fold, np.inf, distance).min(axis=1)
            best = min(best, w_by_definition(apart, wanted))
    found = knndm.matched_folds(places, np.arange(9), area, 2, 0)
    assert best <= found.w + 1e-6 <= 1.5 * best


def test_a_random_sample_of_the_domain_gets_random_folds():
    area = np.random.default_rng(99).random((1000, 2)) * 100_000
    samples = [np.random.default_rng(seed).random((100, 2)) * 100_000 for seed in range(6)]
    assert sum(knndm.matched_folds(places, np.arange(100), area, 5, 0).random for places in samples) >= 4


def test_groups_stay_whole_in_matched_folds():
    groups = np.arange(60) // 4
    area = np.random.default_rng(9).random((400, 2)) * 100_000
    found = knndm.matched_folds(clustered(), groups, area, 5, 0)
    assert all(len(np.unique(found.folds[groups == g])) == 1 for g in range(15))


def test_a_domain_is_a_box_a_polygon_or_a_grid():
    box = folds.domain_places((10, 47, 12, 48))
    assert 1500 < len(box) < 2500
    lat = np.degrees(np.arcsin(box[:, 2] / np.linalg.norm(box, axis=1)))
    assert 47 < lat.min() < 47.05
    assert 47.95 < lat.max() < 48
    grid = GeoBox.from_bbox((10, 47, 12, 48), crs="EPSG:4326", resolution=0.1)
    np.testing.assert_allclose(folds.domain_places(grid), box, atol=1)
    circle = folds.domain_places(shapely.Point(11, 47.5).buffer(0.3))
    assert cdist(circle, folds.on_sphere(np.array([[11, 47.5]]))).max() < 0.31 * 111_320
    across = folds.domain_places((179, -1, -179, 1))
    assert cdist(across, folds.on_sphere(np.array([[180.0, 0.0]]))).max() < 1.5 * 111_320
    with pytest.raises(ValueError, match="bbox"):
        folds.domain_places((12, 48, 10, 47))
