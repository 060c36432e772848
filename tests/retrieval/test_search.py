"""Search: negatives, backgrounds, distances, several arrays, batches and words; faiss and scikit-learn agree."""

import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core import errors, geometry
from geoemb_xr.readers import geoparquet, records
from geoemb_xr.retrieval import hits, ranking

HERE = (11.37, 47.25)


def scene(product="alphaearth", shape=(40, 36), years=(2018, 2024), **options):
    return gx.testing.synthetic(product, shape=shape, years=years, missing=True, **options)


def rows_of(da):
    """Vectors in the order of positions, float64 of unit length; missing ones are NaN."""
    vectors = da.emb.decode().transpose(*hits.dims_of(da), "band").values.astype(np.float64)
    vectors = vectors.reshape(-1, vectors.shape[-1])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def scores_agree(found, expected, name="similarity"):
    np.testing.assert_allclose(found[name], expected, atol=2e-6)


# --- oracles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
def test_a_batch_finds_what_faiss_finds(product, decode):
    faiss = pytest.importorskip("faiss")
    da = scene(product, decode=decode).chunk(y=16, x=20)
    vectors = rows_of(da)
    there = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors[there].astype(np.float32))
    queries = vectors[there[:: there.size // 7]][:7].astype(np.float32)
    expected, which = index.search(queries, 20)
    found = da.emb.search(queries, 20, how="each")
    assert found["query"].tolist() == np.repeat(np.arange(7), 20).tolist()
    scores_agree(found, expected.ravel())
    time, row, column = np.unravel_index(there[which.ravel()], [da.sizes[d] for d in ("time", "y", "x")])
    same = (
        (found.time == da.time.values[time])
        & (found.x == da.x.values[column])
        & (found.y == da.y.values[row])
    )
    ties = np.isclose(found.similarity, found.similarity.shift(1), atol=1e-5)
    ties |= np.isclose(found.similarity, found.similarity.shift(-1), atol=1e-5)
    assert (same | ties).all()


def test_distances_of_a_batch_are_scikit_learns():
    neighbors = pytest.importorskip("sklearn.neighbors")
    da = scene("tessera", years=(2024,)).isel(time=0)
    vectors = da.transpose("y", "x", "band").values.reshape(-1, 128)
    there = vectors[np.isfinite(vectors).all(axis=1)]
    expected, _ = neighbors.NearestNeighbors(n_neighbors=9).fit(there).kneighbors(there[:5])
    found = da.emb.search(there[:5], 9, how="each", metric="euclidean")
    np.testing.assert_allclose(found["distance"], expected.ravel(), rtol=1e-5, atol=1e-3)


# --- negatives and backgrounds ------------------------------------------------------------------------------------


def test_an_empty_list_of_negatives_is_none():
    da = scene(shape=(8, 8), years=(2024,))
    options = {"crs": da.emb.crs, "k": 3}
    here = float(da.x[3]), float(da.y[3])
    expected = da.emb.search(here, **options)
    for none in ([], np.empty((0, 2)), pd.DataFrame({"lon": [], "lat": []})):
        pd.testing.assert_frame_equal(da.emb.search(here, negatives=none, **options), expected)


@pytest.mark.parametrize("how", ["mean", "max", "each"])
@pytest.mark.parametrize("background", [None, "mean"])
def test_positives_minus_negatives_about_a_background(how, background):
    da = scene(decode=False, years=(2024,)).isel(time=0)
    raw = da.emb.decode().transpose("y", "x", "band").values.reshape(-1, 64).astype(np.float64)
    shift = np.nanmean(raw, axis=0) if background else 0
    vectors = raw - shift
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    there = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    good, bad = vectors[there[[5, 300]]], vectors[there[[700, 900, 50]]]
    # given as they are: the same as their directions but for the background, so take raw ones
    positives, negatives = raw[there[[5, 300]]], raw[there[[700, 900, 50]]]
    pool = {"mean": lambda s: s.mean(axis=1, keepdims=True), "max": lambda s: s.max(axis=1, keepdims=True)}
    pool["each"] = lambda s: s
    against = vectors @ bad.T
    less = against.max(axis=1) if how == "max" else against.mean(axis=1)
    expected = pool[how](vectors @ good.T) - less[:, None]
    found = da.emb.search(positives, 12, negatives=negatives, how=how, background=background)
    best = [np.sort(each[np.isfinite(each)])[::-1][:12] for each in expected.T]
    scores_agree(found, np.concatenate(best))


def test_a_background_may_be_given():
    da = scene(years=(2024,)).isel(time=0)
    mean = da.mean(("y", "x"))
    by_name = da.emb.search(HERE, 5, background="mean")
    for given in (mean, mean.values):
        scores_agree(da.emb.search(HERE, 5, background=given), by_name.similarity)


def test_negatives_may_be_places():
    da = scene(years=(2024,)).isel(time=0)
    place = (11.3706, 47.2497)
    vector = da.emb.sample([place]).values
    both = [da.emb.search(HERE, 8, negatives=each) for each in (place, vector)]
    pd.testing.assert_frame_equal(*map(pd.DataFrame, both))


# --- places -------------------------------------------------------------------------------------------------------


def test_the_query_is_left_out_in_every_year():
    da = scene(decode=False)
    whole = da.emb.search(HERE, 3000, exclude_query=False)
    rest = da.emb.search(HERE, 3000)
    first = da.emb.search(HERE, 1, exclude_query=False)
    own = (whole.x == first.x[0]) & (whole.y == first.y[0])
    assert own.sum() == 2
    pd.testing.assert_frame_equal(pd.DataFrame(rest), pd.DataFrame(whole[~own].reset_index(drop=True)))
    box = shapely.box(11.3695, 47.2497, 11.3705, 47.2503)
    beside = da.emb.search(box, 3000)
    inside = da.emb.year(2018).emb.crop(box).emb.decode().notnull().all("band")
    mine = {(x, y) for y, x in inside.stack(p=("y", "x")).p.values[inside.values.ravel()].tolist()}
    assert mine
    assert not mine & set(zip(beside.x, beside.y, strict=True))


def greedy(candidates, k, metres, away=()):
    """Oracle: geodesic distances, one by one."""
    geod = pyproj.Geod(ellps="WGS84")
    chosen = []
    for row in candidates.itertuples():
        near = [*away, *((each.lon, each.lat) for each in chosen)]
        if all(geod.inv(row.lon, row.lat, *each)[2] >= metres for each in near):
            chosen.append(row)
        if len(chosen) == k:
            break
    return pd.DataFrame(chosen)


@pytest.mark.parametrize("exclude", [True, False])
def test_hits_lie_apart(exclude):
    da = scene().chunk(time=1, y=13, x=17)
    centre = da.emb.search(HERE, 1, exclude_query=False, time=2018)
    everything = da.emb.search(HERE, 3000, exclude_query=False)
    found = da.emb.search(HERE, 7, min_distance=55, exclude_query=exclude)
    away = [(centre.lon[0], centre.lat[0])] if exclude else []
    expected = greedy(everything, 7, 55, away)
    for name in ("similarity", "x", "y", "time"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_as_many_passes_as_it_takes(monkeypatch):
    da = scene(years=(2024,)).isel(time=0)
    expected = da.emb.search(HERE, 6, min_distance=80)
    monkeypatch.setattr(ranking, "_ROOM", 8)
    pd.testing.assert_frame_equal(da.emb.search(HERE, 6, min_distance=80), expected)
    flat = scene(years=(2024,)).isel(time=0)
    flat = flat.copy(data=np.ones(flat.shape, np.float32))  # all scores are equal
    tied = [
        flat.emb.search(np.ones(64), 9, min_distance=90)
        for _ in (monkeypatch.setattr(ranking, "_ROOM", 10), 0)
    ]
    monkeypatch.undo()
    pd.testing.assert_frame_equal(tied[0], flat.emb.search(np.ones(64), 9, min_distance=90))
    few = flat.emb.search(np.ones(64), 500, min_distance=200)
    assert 1 < len(few) < 10  # all that there is room for


def test_several_tiles_and_years_are_searched_as_one():
    da = scene(decode=False)
    whole = da.emb.search(HERE, 40, time=2018)
    tiles = {"west": da.isel(x=slice(0, 20)), "east": da.isel(x=slice(20, None))}
    found = gx.search(tiles, HERE, 40, time=2018)
    pd.testing.assert_frame_equal(pd.DataFrame(found.drop(columns="array")), pd.DataFrame(whole))
    west = found.array == "west"
    assert (found.x[west] <= tiles["west"].x.values.max()).all()
    assert (found.x[~west] >= tiles["east"].x.values.min()).all()
    years = [da.emb.year(2018), da.emb.year(2024)]
    apart = gx.search(years, HERE, 9, min_distance=50)
    expected = da.emb.search(HERE, 9, min_distance=50)
    scores_agree(apart, expected.similarity)
    assert apart.array.tolist() == (expected.time.dt.year == 2024).astype(int).tolist()


def test_tiles_of_two_zones():
    grids = [gx.testing.geobox((12, 12), crs=crs) for crs in ("EPSG:32632", "EPSG:32633")]
    rng = np.random.default_rng(0)
    many = [
        gx.wrap(rng.standard_normal((3, 12, 12)).astype("f4"), gx.Product("zones", dims=3), geobox=grid)
        for grid in grids
    ]
    query = np.array([1.0, 0, 0])
    found = gx.search(many, query, 20)
    both = np.concatenate([rows_of(each) @ query for each in many])
    scores_agree(found, np.sort(both)[::-1][:20])
    assert found.crs == "EPSG:4326"
    inside = shapely.contains_xy(found.geometry.values, found.lon, found.lat)
    assert inside.all()
    np.testing.assert_allclose(found.to_crs(32632).area[found.array == 0], 100, rtol=1e-6)


# --- batches ------------------------------------------------------------------------------------------------------


def test_each_place_is_a_search_of_its_own():
    da = scene(decode=False)
    points = pd.DataFrame({"lon": [11.37, 11.3705], "lat": [47.25, 47.2502]}, index=["farm", "wood"])
    found = da.emb.search(points, 6, how="each", min_distance=40)
    for name, row in points.iterrows():
        alone = da.emb.search((row.lon, row.lat), 6, min_distance=40)
        own = found[found["query"] == name].reset_index(drop=True)
        scores_agree(own, alone.similarity)
        np.testing.assert_array_equal(own.x, alone.x)
    boxes = [shapely.box(11.3695, 47.2497, 11.3705, 47.2503), shapely.box(11.3700, 47.2500, 11.3710, 47.2506)]
    found = da.emb.search(boxes, 6, how="each")
    for i, box in enumerate(boxes):
        scores_agree(found[found["query"] == i], da.emb.search(box, 6).similarity)


def test_patches_bring_what_is_known_of_them():
    patches = gx.open("earth-index", gx.example("earth-index"))
    here = (float(patches.x[7]), float(patches.y[7]))
    found = patches.emb.search(here, 5)
    assert 7 not in found.location.tolist()
    expected = patches.emb.to_geodataframe().loc[found.location]
    for name in ("id", "date"):
        np.testing.assert_array_equal(found[name], expected[name])
    assert found.geometry.tolist() == expected.geometry.tolist()
    assert "Earth" in found.attrs["attribution"]
    assert patches.emb.search(here, 3, min_distance=2000).location.tolist() != found.location.tolist()[:3]


# --- words --------------------------------------------------------------------------------------------------------


def colours(texts, version):
    if version == "blind":
        raise errors.EmbeddingError("this version has no text encoder")
    return np.eye(3, dtype=np.float32)[[("red", "green", "blue").index(text) for text in texts]]


def test_words_are_searched_where_a_space_has_an_encoder():
    rng = np.random.default_rng(0)
    data = rng.standard_normal((3, 9, 9)).astype("f4")
    spoken = gx.Product("spoken", dims=3, text=colours)
    da = gx.wrap(data, spoken, geobox=gx.testing.geobox((9, 9)))
    found = da.emb.search("green", 4)
    scores_agree(found, da.emb.search(np.eye(3)[1], 4).similarity)
    both = da.emb.search(["red", "blue"], 2, how="each", negatives="green")
    assert both["query"].tolist() == ["red", "red", "blue", "blue"]
    np.testing.assert_array_equal(da.emb.similarity("red"), da.emb.similarity(np.eye(3)[0]))
    with pytest.raises(errors.EmbeddingError, match="alphaearth synthetic has none"):
        scene().emb.search("solar farm")
    with pytest.raises(
        errors.EmbeddingError, match=r"spoken.*shape \(1, 3\) for 1 texts; the array has 2 bands"
    ):
        da.isel(band=[0, 1]).emb.search("red")
    with pytest.raises(errors.SourceError, match="no such file"):
        da.emb.search("missing.csv")


# --- what is refused ----------------------------------------------------------------------------------------------


def test_errors():
    da = scene()
    with pytest.raises(ValueError, match="min_distance is a distance in metres"):
        da.emb.search(HERE, 3, min_distance=-1)
    with pytest.raises(ValueError, match="use metric='cosine'"):
        da.emb.search(HERE, 3, negatives=HERE, metric="euclidean")
    with pytest.raises(ValueError, match="vector of 64 bands; got shape"):
        da.emb.search(HERE, 3, background=np.zeros(3))
    with pytest.raises(errors.ComparabilityError, match="search cannot mix"):
        gx.search([da, scene("tessera")], HERE)
    with pytest.raises(errors.CoverageError, match="1 of 1 query points lie outside all 2 arrays"):
        gx.search([da, da], (0.0, 0.0))
    with pytest.raises(errors.EmbeddingError, match="no pixel with data 90000 m or more from the query"):
        da.emb.search(HERE, 3, min_distance=90_000)
    with pytest.raises(errors.EmbeddingError, match="query 1: the query has no data"):
        da.emb.search(np.array([np.ones(64), np.full(64, np.nan)]), how="each")


def test_without_geopandas_it_is_a_plain_table(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "geopandas", None)
    found = scene().emb.search(HERE, 3)
    assert type(found) is pd.DataFrame
    assert found.columns.tolist() == ["similarity", "lon", "lat", "x", "y", "time"]


def test_places_of_patches_are_read_for_hits_alone_and_once():
    import dask.array as da

    rng, read = np.random.default_rng(0), []
    some = gx.testing.synthetic("alphaearth", shape=(2, 2))
    places = np.stack([rng.uniform(10, 11, 40), rng.uniform(47, 48, 40)])

    def look(rows, axis):
        read.append((axis, int(rows[0])))
        return places[axis, rows]

    rows = da.arange(40, chunks=10)
    lazy = {
        name: ("location", rows.map_blocks(look, axis, dtype=float, meta=np.empty(0)))
        for axis, name in enumerate("xy")
    }
    vectors = rng.normal(size=(40, 64)).astype(np.float32)
    patches = xr.DataArray(
        da.from_array(vectors, chunks=(10, 64)),
        dims=("location", "band"),
        coords=lazy | {"spatial_ref": geometry.crs_coord(4326), "band": some.band},
        attrs=some.attrs,
    )
    found = patches.emb.search(vectors[23], 1)
    assert (found.lon.item(), found.lat.item()) == pytest.approx(tuple(places[:, 23]))
    assert sorted(read) == [(0, 20), (1, 20)]


def test_of_patches_that_stay_lazy_only_hits_have_their_footprints_decoded(monkeypatch):
    source = gx.example("earth-index")
    eager = gx.open("earth-index", source)
    order = np.argsort(eager.coords["id"].values)
    monkeypatch.setattr(geoparquet, "EAGER_ROWS", 0)
    lazy = gx.open("earth-index", source, chunks={"location": 7})
    assert lazy.coords["x"].chunks is not None
    queries = eager.values[order[[3, 60, 3]]]
    decoded = []
    shapes_of = records._shapes
    monkeypatch.setattr(records, "_shapes", lambda t, f: decoded.append(len(t)) or shapes_of(t, f))
    found = lazy.emb.search(queries, 2, how="each")  # two queries have the same hits
    assert sum(decoded) == len(found) == 6
    expected = eager.emb.search(queries, 2, how="each")
    assert isinstance(found, type(expected))
    names = [n for n in expected if n != "location"]  # rows count in the files' order here
    pd.testing.assert_frame_equal(pd.DataFrame(found[names]), pd.DataFrame(expected[names]), atol=1e-6)
    # a part of it is another graph: right too
    half = lazy.isel(location=slice(5, None)).emb.search(queries[:1], 1)
    assert half["id"].item() in eager.coords["id"].values


def test_a_plain_vector_is_taken_by_its_names_and_never_as_codes():
    da = gx.testing.synthetic("alphaearth", shape=(12, 13)).emb.year(2018)
    vector = pd.Series(da.values[:, 3, 4], index=da.band.values)
    expected = da.emb.search(vector.to_numpy(), 1)
    pd.testing.assert_frame_equal(da.emb.search(vector[::-1], 1), expected)
    assert expected["similarity"].iloc[0] > 0.999
    with pytest.raises(errors.EmbeddingError, match="the query is int8, as the codes of 'alphaearth' are"):
        da.emb.search((vector.to_numpy() * 100).astype("i1"), 1)
    with pytest.raises(errors.EmbeddingError, match="no data"):
        da.emb.search(np.ma.masked_array(vector.to_numpy(), mask=np.arange(64) < 2), 1)


@pytest.mark.parametrize(("dims", "numbers"), [(2, (11.37, 47.25)), (4, (11.36, 47.24, 11.37, 47.25))])
def test_numbers_that_may_be_a_place_or_a_vector_are_taken_as_neither(dims, numbers):
    vectors = np.random.default_rng(0).standard_normal((dims, 6, 5)).astype("float32")
    few = gx.wrap(vectors, gx.Product(f"bands{dims}", dims=dims), geobox=gx.testing.geobox((6, 5)))
    with pytest.raises(
        errors.EmbeddingError, match=f"{dims} numbers can be a place or a vector of {dims} bands"
    ):
        few.emb.similarity(numbers)
    assert float(few.emb.similarity(few.isel(y=2, x=3)).max()) == pytest.approx(1)
    named = pd.Series(vectors[:, 2, 3], index=few.band.values)
    assert float(few.emb.similarity(named).max()) == pytest.approx(1)
