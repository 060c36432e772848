"""Areas with intervals, against the worked examples of the papers that the estimators come from."""

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

import geoemb_xr as gx
from geoemb_xr.comparing import areas
from geoemb_xr.core.errors import EmbeddingError

#: Stehman (2014), section 4: 40 units in four strata that are not the classes of the map.
STRATUM = list("A" * 10 + "B" * 10 + "C" * 10 + "D" * 10)
MAPPED = list("A" * 7 + "B" * 3 + "A" + "B" * 11 + "C" * 6 + "BB" + "D" * 10)
REFERENCE = list("AAAAACBABC" + "ABBBBBAABB" + "CCCCCDDBBA" + "DDDDDDDCCB")
SIZES = {"A": 40_000, "B": 30_000, "C": 20_000, "D": 10_000}


def test_stehmans_example():
    found = areas.stratified(STRATUM, MAPPED, REFERENCE, SIZES)
    table = found.table.round(3)
    assert table.loc["A", ["share", "share_se"]].tolist() == [0.35, 0.082]
    assert table.loc["C", ["share", "share_se"]].tolist() == [0.20, 0.064]
    assert (round(found.overall, 2), round(found.overall_se, 3)) == (0.63, 0.085)
    assert table.loc["B", ["users", "users_se"]].tolist() == [0.574, 0.125]
    assert found.table.loc["B", "producers"] == pytest.approx(0.794, abs=5e-4)
    assert found.table.loc["B", "producers_se"] == pytest.approx(0.116, abs=1e-3)
    assert found.matrix.loc["B", "C"] == pytest.approx(0.08)
    assert found.matrix.to_numpy().sum() == pytest.approx(1)


def equation_7(counts, sizes):
    """Standard errors of producer's accuracies as Olofsson et al. (2014) write them."""
    size, per_row = np.array(list(sizes)), counts.sum(axis=1)
    shares = counts / per_row[:, None]
    users, there = np.diag(shares), size @ shares
    producers = size * users / there
    own = size**2 * (1 - producers) ** 2 * users * (1 - users) / (per_row - 1)
    errors = size[:, None] ** 2 * shares * (1 - shares) / (per_row - 1)[:, None]
    others = errors.sum(axis=0) - np.diag(errors)
    return np.sqrt(own + producers**2 * others) / there


def test_olofssons_example():
    """Olofsson et al. (2014), tables 8 and 9: strata are the classes of the map."""
    counts = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
    names = ["deforestation", "forest gain", "stable forest", "stable non-forest"]
    pixels = dict(zip(names, [200_000, 150_000, 3_200_000, 6_450_000], strict=True))
    mapped = np.repeat(names, np.sum(counts, axis=1))
    reference = np.concatenate([np.repeat(names, row) for row in counts])
    found = areas.stratified(mapped, mapped, reference, pixels)
    hectares = 0.09 * sum(pixels.values())
    table = found.table.loc[names]
    np.testing.assert_allclose(table["share"] * hectares, [21_158, 11_686, 285_770, 581_386], rtol=1e-4)
    # the paper leaves out the correction for finite populations, which is below one in a thousand here
    np.testing.assert_allclose(1.96 * table["share_se"] * hectares, [6_158, 3_756, 15_510, 16_282], rtol=2e-3)
    assert table["users"].round(2).tolist() == [0.88, 0.73, 0.93, 0.96]
    assert table["producers"].round(2).tolist() == [0.75, 0.85, 0.93, 0.96]
    np.testing.assert_allclose(1.96 * table["users_se"], [0.07, 0.10, 0.04, 0.02], atol=0.006)
    np.testing.assert_allclose(
        table["producers_se"], equation_7(np.array(counts), pixels.values()), rtol=1e-3
    )
    assert round(found.overall, 2) == 0.95


def truth(shape=(150, 160)):
    return gx.testing.scene().truth(gx.testing.geobox(shape), 2018)


def worse(array, share=0.2, seed=0):
    """A map with errors: that share of pixels says 'water'."""
    wrong = np.random.default_rng(seed).random(array.shape) < share
    return array.where(~wrong, 1).astype(array.dtype).assign_attrs(array.attrs)


def labelled(design, what):
    code = gx.sample(what, design).values.astype(int)
    names = what.emb.legend["name"]
    return design.assign(label=names.loc[code].to_numpy())


def test_intervals_hold_the_truth_and_the_count_does_not():
    there = truth()
    mapped = worse(there)
    area = gx.area(there)
    inside = []
    for seed in range(20):
        design = gx.sample_design(mapped, 300, seed=seed)
        found = gx.area_estimate(mapped, labelled(design, there)).table
        inside.append((found.area_low <= area[found.index]) & (area[found.index] <= found.area_high))
    assert 0.85 <= np.mean(inside) <= 1.0
    water = found.loc["water"]
    assert water.mapped > 1.5 * area["water"]
    assert not water.area_low <= water.mapped <= water.area_high


def test_a_design_is_a_stratified_sample_in_random_order():
    mapped = worse(truth())
    design = gx.sample_design(mapped, 120, least=10)
    assert len(design) == 120
    assert isinstance(design, geopandas.GeoDataFrame)
    assert design.crs.to_epsg() == 4326
    assert (design.geometry.x == design.lon).all()
    assert (design.geometry.y == design.lat).all()
    assert design.stratum.value_counts().min() >= 10
    names = mapped.emb.legend["name"]
    assert (names.loc[gx.sample(mapped, design).values.astype(int)].to_numpy() == design.stratum).all()
    area = gx.area(mapped)
    np.testing.assert_allclose(design.stratum_ha, area[design.stratum])
    assert design.label.isna().all()
    assert not design.stratum.is_monotonic_increasing
    pd.testing.assert_frame_equal(design, gx.sample_design(mapped.chunk(y=40), 120, least=10))
    assert not design.equals(gx.sample_design(mapped, 120, least=10, seed=1))


def test_a_sample_survives_a_file_and_an_older_map(tmp_path):
    there, mapped = truth(), worse(truth())
    sampled = labelled(gx.sample_design(mapped, 200), there)
    sampled.to_csv(tmp_path / "sample.csv", index=False)
    expected = gx.area_estimate(mapped, sampled)
    again = gx.area_estimate(mapped, tmp_path / "sample.csv")
    pd.testing.assert_frame_equal(again.table, expected.table)
    # the strata stay those of the map that the sample was drawn for
    newer = gx.area_estimate(there, sampled)
    assert newer.overall == 1.0
    np.testing.assert_allclose(newer.table["area"], expected.table["area"].loc[newer.table.index])
    assert "overall accuracy  1.000" in str(newer)


def test_codes_are_as_good_as_names_and_gaps_are_counted(caplog):
    there = truth()
    sampled = labelled(gx.sample_design(there, 100), there)
    expected = gx.area_estimate(there, sampled).table
    codes = {name: value for value, name in there.emb.legend["name"].items()}
    pd.testing.assert_frame_equal(
        gx.area_estimate(there, sampled.assign(label=sampled.label.map(codes))).table, expected
    )
    gappy = sampled.assign(label=sampled.label.where(sampled.index >= 3))
    with caplog.at_level("INFO", logger="geoemb_xr"):
        assert gx.area_estimate(there, gappy).table.references.sum() == 97
    assert "3 references without a label" in caplog.text


def test_what_is_no_probability_sample_is_refused():
    there = truth()
    sampled = labelled(gx.sample_design(there, 100), there)
    bare = sampled[["lon", "lat", "label"]]
    with pytest.raises(EmbeddingError, match=r"do not say how they were drawn.*sample_design"):
        gx.area_estimate(there, bare)
    assert gx.area_estimate(there, bare, design="stratified").overall == 1.0
    random = gx.area_estimate(there, bare, design="random").table
    assert random.area.sum() == pytest.approx(gx.area(there).sum())
    with pytest.raises(EmbeddingError, match=r"two or more references; too few in: "):
        gx.area_estimate(there, sampled.groupby("stratum").head(1))
    with pytest.raises(EmbeddingError, match="column 'crop'"):
        gx.area_estimate(there, sampled, target="crop")
    with pytest.raises(EmbeddingError, match="needs a class map"):
        gx.area_estimate(there.astype("float32").drop_attrs(), sampled)
    with pytest.raises(EmbeddingError, match="at least one place per class"):
        gx.sample_design(there, 2)


def test_clusters_have_the_variance_of_a_ratio_of_totals():
    """Cochran (1977), equation 9.22, and that of single units where each is a cluster of its own."""
    rng = np.random.default_rng(0)
    unit = np.repeat(np.arange(20), rng.integers(2, 7, 20))
    right = (rng.random(len(unit)) < rng.uniform(0.3, 1, 20)[unit]).astype(float)
    size, total = np.bincount(unit), np.bincount(unit, right)
    p = total.sum() / size.sum()
    expected = ((total - p * size) ** 2).sum() / 19 / 20 / size.mean() ** 2
    alike = np.ones(len(unit))
    assert areas._variance_of_mean(right, alike, unit) == pytest.approx(expected)
    single = areas._variance_of_mean(right, alike, np.arange(len(unit)))
    assert single == pytest.approx(right.var(ddof=1) / len(right))


def in_degrees():
    """A map of 80° of latitude with reference classes that change at 40°, and what a look at all pixels finds."""
    grid = GeoBox((80, 4), Affine(1, 0, 10, 0, -1, 80), "EPSG:4326")
    base = gx.testing.scene().truth(grid, 2018)

    def of(rows):
        return base.copy(
            data=np.repeat(np.where(np.arange(80) < rows, 1, 2), 4).reshape(80, 4).astype("uint8")
        )

    mapped, there = of(10), of(40)
    return mapped, there


def test_pixels_of_a_map_in_degrees_count_by_their_ground_area():
    mapped, there = in_degrees()
    everywhere = labelled(gx.labels(there, per_class=None)[["lon", "lat"]], there)
    expected = gx.area(there)
    for design in ("random", "stratified"):
        found = gx.area_estimate(mapped, everywhere, design=design).table["area"]
        np.testing.assert_allclose(found, expected[found.index], rtol=1e-3)
    counted = 0.5 * expected.sum()
    assert abs(counted - found["water"]) > 0.2 * found["water"]


def test_weights_are_those_of_a_ratio_of_totals():
    """Cochran (1977), equation 6.9: the variance of a ratio of means, here of a class's area to all area."""
    rng = np.random.default_rng(0)
    size, there = rng.uniform(1, 3, 50), rng.choice(["a", "b"], 50)
    found = areas.stratified(["s"] * 50, ["a"] * 50, there, {"s": 1e9}, size).table
    share = size[there == "a"].sum() / size.sum()
    rest = size * (there == "a") - share * size
    assert found.share["a"] == pytest.approx(share)
    assert found.share_se["a"] == pytest.approx(np.sqrt((rest**2).sum() / 49 / 50) / size.mean(), rel=1e-6)


def test_a_class_of_one_pixel_is_known_once_it_is_visited():
    there = truth()
    values = np.where(there.values == 2, 3, there.values)
    values[5, 7] = 2
    mapped = there.copy(data=values)
    design = gx.sample_design(mapped, 200)
    assert len(design) == 200  # the others give what this class does not have
    assert (design.stratum == "forest").sum() == 1
    found = gx.area_estimate(mapped, labelled(design, mapped)).table
    assert found.area["forest"] == found.area_high["forest"] == pytest.approx(gx.area(mapped)["forest"])
    assert len(gx.sample_design(mapped[:4, :5], 100, least=2)) == 20
    with pytest.raises(EmbeddingError, match="least is a whole number of places per class"):
        gx.sample_design(mapped, 100, least=-1)


def test_the_next_seed_draws_other_places_and_not_their_neighbours():
    there = truth((60, 60))
    there = there.copy(data=np.ones_like(there.values))
    drawn = [gx.labels(there, per_class=100, seed=seed)[["lon", "lat"]] for seed in (0, 1)]
    one, two = (np.array(geopandas.points_from_xy(d.lon, d.lat, crs=4326).to_crs(32632)) for d in drawn)
    beside = sum(shapely.distance(point, two).min() < 10.5 for point in one)
    assert beside < 50


def test_clustered_references_have_wider_intervals():
    there, mapped = truth(), worse(truth())
    tile = gx.labels(there, per_class=None)
    tile["tile"] = (tile.lon * 300).astype(int) * 1000 + (tile.lat * 300).astype(int)
    chosen = np.random.default_rng(0).permutation(tile.tile.unique())[:12]
    sampled = tile[tile.tile.isin(chosen)].groupby("tile").head(25)
    sampled = labelled(sampled[["lon", "lat", "tile"]], there)
    clustered = gx.area_estimate(mapped, sampled, design="random", cluster="tile")
    single = gx.area_estimate(mapped, sampled, design="random")
    assert clustered.table.area.tolist() == single.table.area.tolist()
    assert clustered.table.area_high["forest"] > single.table.area_high["forest"]
    with pytest.raises(EmbeddingError, match="two or more clusters"):
        gx.area_estimate(mapped, sampled.assign(tile=1), design="random", cluster="tile")
    with pytest.raises(EmbeddingError, match="cluster='block' is not a column"):
        gx.area_estimate(mapped, sampled, design="random", cluster="block")


def test_strata_without_labels_are_not_lost():
    there = truth()
    design = gx.sample_design(there, 100)
    with pytest.raises(EmbeddingError, match=r"no reference has a label.*fill the column 'label' first"):
        gx.area_estimate(there, design)
    sampled = labelled(design, there)
    first = sampled.stratum.iloc[0]
    sampled.loc[sampled.stratum == first, "label"] = None
    with pytest.raises(EmbeddingError, match=rf"too few in: {first} \(0\)"):
        gx.area_estimate(there, sampled)


def test_training_labels_are_refused_and_rows_without_a_place_are_counted(caplog):
    there = truth()
    sampled = labelled(gx.sample_design(there, 100), there)
    gx.area_estimate(there, sampled, training=sampled.set_geometry(sampled.translate(yoff=1)))
    with pytest.raises(EmbeddingError, match="100 references lie in pixels that the map was trained on"):
        gx.area_estimate(there, sampled, training=sampled[["lon", "lat"]])
    sampled.loc[3, "geometry"] = None
    with caplog.at_level("INFO", logger="geoemb_xr"):
        assert gx.area_estimate(there, sampled).table.references.sum() == 99
    assert "1 references where the map has no data" in caplog.text


def test_references_are_not_the_pixels_that_were_drawn_to_train_on():
    there = truth()
    learnt = gx.labels(there, per_class=40)
    design = gx.sample_design(there, 160)
    wrong = there.copy(data=np.where(there.values == 3, 2, 3).astype(there.dtype))
    for drawn in (design, gx.disagreements(there, wrong, 160)):
        both = drawn[["lon", "lat"]].merge(learnt[["lon", "lat"]])
        assert len(both) < 0.1 * len(drawn)  # by chance


def test_references_in_polygons_that_were_learnt_are_refused():
    there = truth()
    sampled = labelled(gx.sample_design(there, 100), there)
    field = geopandas.GeoSeries([shapely.buffer(sampled.geometry.iloc[4], 2e-5)], crs=4326)
    with pytest.raises(EmbeddingError, match="1 references lie in pixels that the map was trained on"):
        gx.area_estimate(there, sampled, training=field)
    with pytest.raises(EmbeddingError, match=r"of a label raster give those that were drawn"):
        gx.area_estimate(there, sampled, training=there)
    with pytest.raises(ValueError, match="unit='acre' is not known"):
        gx.area_estimate(there, sampled, unit="acre")
