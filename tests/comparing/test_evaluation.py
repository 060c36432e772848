"""Products side by side: the better one wins, controls score what they must, and a leak is seen."""

import dataclasses
import json

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

import geoemb_xr as gx
from geoemb_xr.catalog.geoclip import load_geoclip
from geoemb_xr.comparing import contrasts, folds, scoring
from geoemb_xr.comparing import support as support_module
from geoemb_xr.comparing.controls import controls_of
from geoemb_xr.comparing.seen import is_seen
from geoemb_xr.comparing.support import support_of
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.probes.heads import HEADS, Data

N = 240
BANDS = 6


def places(seed=0):
    rng = np.random.default_rng(seed)
    return 11 + rng.random(N), 47 + rng.random(N)


def labels_of(rng, kind="classes"):
    value = rng.integers(0, 3, N)
    return np.array(["crop", "tree", "water"])[value] if kind == "classes" else value + rng.normal(0, 0.1, N)


def product(name, y, noise, seed=0, **facts):
    """Vectors whose first bands tell the label, under noise."""
    rng = np.random.default_rng(seed)
    codes = pd.factorize(y, sort=True)[0] if y.dtype.kind != "f" else y.round().astype(int)
    x = np.eye(BANDS)[codes] + rng.normal(0, noise, (N, BANDS))
    lon, lat = places()
    made = gx.Product(name, dims=BANDS, **facts)
    return gx.wrap(x.astype("f4"), made, x=lon, y=lat, crs="EPSG:4326")


def layout(support, data, reach=None, **kwargs):
    given = {"k": 5, "buffer": 0.0, "by": support.by, "years": support.years, "domain": None, **kwargs}
    return folds.SplitGround(data, support.lonlat, reach=reach, **given)


@pytest.fixture(scope="module")
def task():
    y = labels_of(np.random.default_rng(5))
    lon, lat = places()
    table = pd.DataFrame({"lon": lon, "lat": lat, "crop": y, "country": np.where(lon > 11.5, "east", "west")})
    arrays = {"good": product("good-one", y, 0.25), "bad": product("bad-one", y, 1.0, seed=1)}
    return arrays, table


@pytest.fixture(scope="module")
def found(task):
    arrays, table = task
    return gx.evaluate(arrays, table, target="crop", by="country", methods=["ridge"], n_labels=[2, None])


def test_the_better_product_wins_and_it_is_no_chance(found):
    table = found.table()["blocks"]
    assert table["good", "ridge"] > 0.9 > table["bad", "ridge"]
    (row,) = found.differences.itertuples()
    assert (row.a, row.b, row.blocks) == ("good", "bad", folds.REGIONS)
    assert row.difference == pytest.approx(table["good", "ridge"] - table["bad", "ridge"], abs=1e-6)
    assert 0 < row.low < row.difference < row.high
    assert row.p < 0.001


def test_controls_score_chance(found):
    table = found.table()
    assert table.loc[("constant", "most frequent"), "random"] == pytest.approx(1 / 3, abs=0.02)
    assert table.loc[("permuted labels", "ridge"), "blocks"] == pytest.approx(1 / 3, abs=0.06)
    rows = found.scores[
        (found.scores["product"] == "permuted labels") & (found.scores.score == found.main_score)
    ]
    assert ((rows.sd > 0) & (rows.sd < 0.15)).all()  # of five permutations
    assert table.loc[("coordinates", "nearest"), "blocks"] < 0.5
    assert found.beaten() == {"good": [], "bad": []}


def test_a_location_encoder_is_a_control_where_one_is_at_hand(found, task, monkeypatch):
    """A probe on GeoCLIP's vectors of the labels' places; nothing of it where the package is not installed."""
    pytest.importorskip("geoclip")
    torch = pytest.importorskip("torch")
    arrays, table = task
    there = found.table().loc[("geoclip", "ridge")]
    assert (there < 0.5).all()  # three classes that do not follow places
    support = support_of(arrays, table, target="crop")
    with torch.inference_mode():
        expected = load_geoclip()(torch.tensor(table[["lat", "lon"]].to_numpy("f4"))).numpy()
    np.testing.assert_allclose(support.features["geoclip"], expected, atol=1e-5)
    assert "geoclip" not in support_of({"geoclip": arrays["good"]}, table, target="crop").features

    def absent(lonlat):
        raise gx.MissingExtraError("this needs the package 'geoclip'")

    bare = dataclasses.replace(gx.product("geoclip"), place=absent)
    monkeypatch.setattr(support_module, "registered", lambda: [bare])
    assert support_of(arrays, table, target="crop").features == {}


def test_coordinates_are_the_nearest_label(task):
    arrays, table = task
    support = support_of(arrays, table, target="crop")
    data = support.data(support.vectors["good"], 0)
    split = layout(support, data).split("random")
    ((one, predict),) = controls_of(support, data, "ridge", HEADS["ridge"])["coordinates", "nearest"]
    got = scoring.held_out(predict, one, split, None, 0).argmax(axis=0)
    expected = np.empty(N, int)
    for fold in range(5):
        test = split.folds == fold
        fitted = KNeighborsClassifier(1).fit(support.metres[~test], data.y[~test])
        expected[test] = fitted.predict(support.metres[test])
    np.testing.assert_array_equal(got, expected)


@pytest.mark.usefixtures("no_location_encoder")
def test_a_leak_is_seen():
    """Labels that follow places, not vectors: random folds find them, regions do not."""
    lon, lat = places()
    y = np.where((np.floor(lon * 4) + np.floor(lat * 4)) % 2 == 0, "a", "b")
    noise = product("noise-one", y, 50.0)
    table = pd.DataFrame({"lon": lon, "lat": lat, "crop": y})
    found = gx.evaluate({"noise": noise}, table, target="crop", methods=["ridge"], n_labels=[None])
    nearest = found.table().loc[("coordinates", "nearest")]
    assert nearest["random"] > nearest["blocks"] + 0.1
    assert "coordinates" in found.beaten()["noise"] or found.table()["blocks"]["noise", "ridge"] < 0.65


@pytest.mark.usefixtures("no_location_encoder")
def test_only_labels_that_all_cover_count(task):
    arrays, table = task
    gaps = arrays["bad"].copy()
    gaps[:7] = np.nan
    unlabelled = table.assign(crop=table.crop.where(table.index >= 5))
    found = gx.evaluate(
        {"good": arrays["good"], "bad": gaps}, unlabelled, target="crop", methods=["ridge"], n_labels=[None]
    )
    assert found.n == N - 7
    assert found.dropped == {"without a label": 5, "without data in bad": 2}
    assert set(found.scores["n"]) == {N - 7}


def test_groups_scores_and_their_worst(found, task):
    _, table = task
    mine = found.groups[(found.groups["product"] == "bad") & (found.groups["split"] == "blocks")].set_index(
        "group"
    )
    assert mine.n.to_dict() == table.country.value_counts().to_dict()
    assert mine.value.between(0.3, 1).all()


@pytest.mark.usefixtures("no_location_encoder")
def test_a_region_left_out_has_an_interval_from_blocks_inside_it(task):
    arrays, table = task
    found = gx.evaluate(
        {"bad": arrays["bad"]}, table, target="crop", by="country", splits=["regions"], methods=["ridge"],
        n_labels=[None],
    )  # fmt: skip
    mine = found.groups[found.groups["product"] == "bad"]
    assert (mine.blocks > 6).all()
    assert ((mine.low < mine.value) & (mine.value < mine.high)).all()


@pytest.mark.parametrize(
    ("target", "source", "seen"),
    [
        ("nlcd_2019", "NLCD", True),
        ("dw_label", "Dynamic World", True),
        ("dynamic_world", "Dynamic World", True),
        ("worldcover", "ESA WorldCover 2021", True),
        ("cdl2021", "USDA Cropland Data Layer", True),
        ("elevation", "Copernicus DEM GLO-30", True),
        ("land_cover", "ERA5-Land", False),
        ("crop", "USDA Cropland Data Layer", False),
        ("map", "OpenStreetMap", False),
        ("data", "USDA Cropland Data Layer", False),
        ("label", "texts of Wikipedia and GBIF", False),
    ],
)
def test_labels_of_a_source_are_known_by_their_name(target, source, seen):
    assert is_seen(target, [source]) is seen


@pytest.mark.usefixtures("no_location_encoder")
def test_values_have_r2_about_the_means_of_groups():
    y = labels_of(np.random.default_rng(2), "values")
    lon, lat = places()
    country = np.where(lon > 11.5, "east", "west")
    y = y + 10.0 * (country == "east")  # what only tells countries apart explains nothing inside of them
    teller = product("teller", (country == "east").astype(float), 0.1)
    table = pd.DataFrame({"lon": lon, "lat": lat, "biomass": y, "country": country})
    found = gx.evaluate(
        {"teller": teller},
        table,
        target="biomass",
        by="country",
        methods=["ridge", "logistic"],
        n_labels=[None],
    )
    scores = found.scores[(found.scores["product"] == "teller") & (found.scores["split"] == "random")]
    values = scores.set_index("score")["value"]
    assert values["r2"] > 0.9
    assert values["r2_within"] < 0.1
    assert set(scores["method"]) == {"ridge"}


def test_few_labels_are_balanced_nested_and_spread():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 12, 200)
    data = Data(np.zeros((200, 1), "f4"), rng.integers(0, 3, 200), np.ones(200), groups, 3, 0)
    train = np.arange(40, 200)
    small, large = (set(scoring.few(data, train, n, 7)) for n in (4, 10))
    assert small < large <= set(train)
    assert np.bincount(data.y[list(large)]).tolist() == [10, 10, 10]
    for cls in range(3):
        assert len({groups[i] for i in small if data.y[i] == cls}) == 4
    assert small != set(scoring.few(data, train, 4, 8))


def test_a_buffer_keeps_training_places_away():
    rng = np.random.default_rng(0)
    metres = rng.random((N, 2)) * 1000
    split = folds.Split("blocks", (metres[:, 0] > 500).astype(int), 100.0)
    for train, test in split.parts(metres):
        distance = np.linalg.norm(metres[train][:, None] - metres[test], axis=2).min()
        assert 100 < distance < 130
        assert not set(train) & set(test)


def test_differences_are_students_over_blocks():
    rng = np.random.default_rng(3)
    a, b, blocks = rng.random(300) / 300, rng.random(300) / 300, rng.integers(0, 12, 300)
    found = contrasts.difference(a, b, blocks, 0.95, 0)
    expected = stats.ttest_1samp(np.bincount(blocks, a - b), 0)
    interval = expected.confidence_interval(0.95)
    assert found.value == pytest.approx((a - b).sum())
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low * 12, interval.high * 12))
    few_blocks = contrasts.difference(a, b, blocks % 5, 0.95, 0)
    assert np.isnan([few_blocks.low, few_blocks.high, few_blocks.p]).all()
    many = contrasts.difference(a, b, np.arange(300) % 60, 0.95, 0)
    wide = stats.ttest_1samp(np.bincount(np.arange(300) % 60, a - b), 0).confidence_interval(0.95)
    assert (many.low, many.high) == pytest.approx(
        (wide.low * 60, wide.high * 60), abs=0.3 * (many.high - many.low)
    )


def test_holm():
    np.testing.assert_allclose(contrasts.holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])


@pytest.mark.usefixtures("no_location_encoder")
def test_persistence_and_labels_that_were_seen(task):
    arrays, table = task
    seen = {"seen": product("seen-one", table.crop.to_numpy(), 0.3, trained_on=("Crop",)), **arrays}
    before = table.assign(before=table.crop.where(np.arange(N) % 10 > 0, "water"))
    found = gx.evaluate(seen, before, target="crop", previous="before", methods=["ridge"], n_labels=[None])
    assert found.table().loc[("persistence", "earlier label"), "blocks"] > 0.9
    assert "persistence" in found.beaten()["bad"]
    assert "bad does not beat persistence" in str(found)
    assert found.facts.label_seen_in_training.to_dict() == {"seen": True, "good": False, "bad": False}
    assert len(found.differences) == 3


def test_polygons_are_one_label_each():
    geopandas = pytest.importorskip("geopandas")
    import shapely

    da = gx.testing.synthetic("alphaearth", shape=(60, 60))
    truth = gx.testing.scene().truth(gx.testing.geobox((60, 60)), 2018)
    points = gx.labels(truth, per_class=9)
    x, y = gx.testing.geobox((60, 60)).boundingbox.left, gx.testing.geobox((60, 60)).boundingbox.bottom
    there = geopandas.GeoDataFrame(
        points, geometry=geopandas.points_from_xy(points.lon, points.lat), crs="EPSG:4326"
    ).to_crs(32632)
    fields = there.set_geometry(shapely.buffer(there.geometry.to_numpy(), 25, cap_style="square"))
    inside = fields.within(shapely.box(x, y, x + 600, y + 600))
    support = support_of({"a": da}, fields[inside], target="land_cover")
    assert len(support.y) <= inside.sum()
    norm = np.linalg.norm(support.vectors["a"], axis=1)
    np.testing.assert_allclose(norm, 1, atol=1e-5)


def test_the_page_is_one_file(found, tmp_path):
    pytest.importorskip("matplotlib")
    page = found.to_html(tmp_path / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")
    for text in ("good", "permuted labels", "optimistic", "Differences between products", "By group"):
        assert text in page
    assert "<td>&lt; 0.001</td>" in page  # no p-value is 0
    shown = page[: page.index("<details>")]  # all groups of all splits and controls are folded away
    assert "The worst group of each product" in shown
    worst = shown[shown.index("The worst group") :]
    assert worst.count("<td>good</td>") == 1
    assert "coordinates" not in worst
    assert "<th>0</th>" not in page  # rows have no numbers
    card = found._repr_html_()
    assert "balanced accuracy on 240 labels" in card
    for name in found.splits.index:  # one row per split: its question, and what was measured
        assert card.count(f">{name}</td>") == 1
    assert "blocks: transfer" in str(found)


def test_it_is_deterministic(task, found):
    arrays, table = task
    again = gx.evaluate(arrays, table, target="crop", by="country", methods=["ridge"], n_labels=[2, None])
    pd.testing.assert_frame_equal(again.scores, found.scores)
    pd.testing.assert_frame_equal(again.differences, found.differences)


def test_estimators_are_methods_and_go_by_the_name_of_their_class(task):
    arrays, labels = task
    options = {"target": "crop", "n_labels": [None], "splits": ["random"]}
    methods = [LinearSVC(C=0.01), GaussianNB(), GaussianNB(var_smoothing=0.5)]
    found = gx.evaluate(arrays, labels, methods=methods, **options).scores
    mine = found[found["product"].isin(arrays) & (found["score"] == "balanced_accuracy")]
    assert mine["method"].unique().tolist() == ["LinearSVC", "GaussianNB", "GaussianNB 2"]
    value = mine.set_index(["product", "method", "support"])["value"]
    assert value["good", "LinearSVC", "native"] > 0.9
    one = gx.evaluate(arrays, labels, methods=GaussianNB(var_smoothing=0.5), **options).scores
    again = one[(one["product"] == "bad") & (one["score"] == "balanced_accuracy")]["value"].iloc[0]
    assert value["bad", "GaussianNB 2", "native"] == again != value["bad", "GaussianNB", "native"]
    support = support_of(arrays, labels, target="crop")
    data = support.data(support.vectors["bad"], 0)

    def by_hand(train, test):
        bayes = GaussianNB(var_smoothing=0.5).fit(data.x[train], data.y[train])
        return bayes.predict_proba(data.x[test]).T

    split = layout(support, data).split("random")
    expected = scoring.measures(data, scoring.held_out(by_hand, data, split, None, 0), np.array([]))
    assert expected["balanced_accuracy"] == pytest.approx(again, abs=1e-6)


def test_what_cannot_be_compared_is_said(task):
    with pytest.raises(EmbeddingError, match="'good' is not a DataArray of embeddings, but NoneType"):
        gx.evaluate({"good": None}, task[1], target="crop")
    arrays, table = task
    with pytest.raises(EmbeddingError, match="mapping of names to arrays"):
        gx.evaluate(arrays["good"], table, target="crop")
    with pytest.raises(ValueError, match="splits"):
        gx.evaluate(arrays, table, target="crop", splits=["regions"])
    with pytest.raises(EmbeddingError, match="say group='region'"):
        gx.evaluate(arrays, table, target="crop", splits=["groups"])
    with pytest.raises(EmbeddingError, match=r"none of methods=\['logistic'\] does regression"):
        gx.evaluate(arrays, table.assign(crop=1.5), target="crop", methods=["logistic"])
    for wrong, said in (
        ({"n_labels": [0]}, "n_labels are numbers of labels per class, 1 or more.*got 0"),
        ({"n_labels": [2.5, None]}, "got 2.5"),
        ({"n_labels": []}, r"got \[\]"),
        ({"cv": 1}, "cv is a number of folds, 2 or more; got 1"),
        ({"level": 95}, "between 0 and 1; got 95"),
    ):
        with pytest.raises(EmbeddingError, match=said):
            gx.evaluate(arrays, table, target="crop", **wrong)
    with pytest.raises(EmbeddingError, match="240 labels lie elsewhere than the points of the same index"):
        gx.evaluate(
            arrays, table.assign(crop=table.crop, lon=11.0, lat=47.0), target="crop", splits=["blocks"]
        )
    with pytest.raises(EmbeddingError, match=r"240 labels are of 240 classes.*the column of labels\?"):
        gx.evaluate(arrays, table.assign(crop=np.arange(240)), target="crop")
    with pytest.raises(EmbeddingError, match="evaluate: 'a': no label is left"):
        gx.evaluate({"a": arrays["good"] * np.nan}, table, target="crop")


@pytest.mark.parametrize("spelling", ["collection", "text", "features", "wkt", "wkb"])
def test_places_of_polygons_are_found_in_whatever_holds_them(spelling):
    boxes = [shapely.box(11.36, 47.25, 11.37, 47.26), None, shapely.box(11.38, 47.25, 11.39, 47.26)]
    frame = geopandas.GeoDataFrame({"crop": ["a", "b", "a"]}, geometry=boxes, crs=4326)
    collection = json.loads(frame.to_json())
    given = {
        "collection": collection,
        "text": frame.to_json(),
        "features": collection["features"],
        "wkt": frame.to_wkt().rename(columns={"geometry": "wkt"}),
        "wkb": pd.DataFrame(frame.to_wkb()),
    }[spelling]
    expected = support_module._lonlat(frame)
    np.testing.assert_allclose(support_module._lonlat(support_module._table(given, None)), expected)
    assert np.isnan(expected[1]).all()


def test_drawn_labels_keep_their_names_and_few_labels_alone_are_a_table(tmp_path):
    scene, box = gx.testing.scene(), gx.testing.geobox((64, 64))
    drawn = gx.labels(scene.truth(box, 2018), per_class=15)
    arrays = {"one": gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)}
    found = gx.evaluate(arrays, drawn, methods="ridge", n_labels=None)
    own = [scene.names[code - 1] for code in np.unique(drawn.land_cover)]
    assert found.classes["class"].unique().tolist() == own
    few = gx.evaluate(arrays, drawn, methods="ridge", n_labels=(1, 3))
    row = few.scores[(few.scores["product"] == "one") & (few.scores.score == few.main_score)]
    kept = row[(row.n_labels == 3) & (row["split"] == "blocks")]
    assert few.table().loc[("one", "ridge"), "blocks"] == kept.value.item()
    assert "products learnt from 3 labels per class, controls from all" in str(few)
    few.to_html(tmp_path / "few.html")
    with pytest.raises(EmbeddingError, match="n_labels= has None"):
        few.plot(what="distance")


def test_whole_numbers_with_gaps_are_classes(task):
    arrays, table = task
    codes = pd.array([*[None] * 2, *pd.factorize(table.crop)[0][2:]], dtype="Int64")
    for gappy in (codes, np.array(codes.to_numpy(np.float64, na_value=np.nan))):
        given = table.assign(code=gappy)[["lon", "lat", "code"]]
        found = gx.evaluate(arrays, given, methods="centroid", n_labels=None, splits="random")
        assert found.main_score == "balanced_accuracy"
        assert found.dropped == {"without a label": 2}


@pytest.mark.filterwarnings("error")
def test_folds_that_nothing_can_be_learnt_from_are_said(task):
    arrays, table = task
    two = table[table.crop != "water"].groupby("crop").head(1)
    with pytest.raises(EmbeddingError, match="no fold can be held out"):
        gx.evaluate(arrays, pd.concat([two] * 10), target="crop", methods="centroid", n_labels=None)


def test_labels_of_no_country_are_left_out_and_counted(task):
    arrays, table = task
    given = table.assign(country=table.country.where(np.arange(N) >= 7, None))
    more = {"target": "crop", "methods": "centroid", "n_labels": None}
    found = gx.evaluate(arrays, given, by="country", splits="regions", **more)
    assert found.dropped == {"without a value of by='country'": 7}
    assert set(found.groups.group) == {"east", "west"}
    with pytest.raises(EmbeddingError, match="group needs one value for each"):
        gx.evaluate(arrays, given, group="country", splits="random", **more)


def test_class_weights_of_an_estimator_are_by_name(task):
    """As in fit_probe, and not by the position that a class has in a legend."""
    arrays, table = task
    options = {"target": "crop", "splits": "random", "n_labels": None}
    weights = ({"crop": 5, "tree": 1, "water": 1}, None, {0: 5, 1: 1, 2: 1})
    named, plain, numbered = ([LogisticRegression(class_weight=given, max_iter=1000)] for given in weights)
    several = [
        gx.evaluate({"a": arrays["bad"]}, table, methods=each, **options).scores for each in (named, plain)
    ]
    own = [each[each["product"] == "a"].set_index("score")["value"] for each in several]
    assert own[0]["balanced_accuracy"] != own[1]["balanced_accuracy"]
    with pytest.raises(EmbeddingError, match=r"class_weight has the classes .*, which are not among"):
        gx.evaluate({"a": arrays["bad"]}, table, methods=numbered, **options)
