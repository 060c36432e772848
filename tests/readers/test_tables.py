"""Tables of vectors, as Earth Engine, geotessera and others write them, opened as points."""

import json
import pickle

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core import model
from geoemb_xr.core.codecs import PER_PIXEL_SCALE
from geoemb_xr.core.errors import CoverageError, EmbeddingError, SourceError
from geoemb_xr.geo.vector_tables import vector_columns

DIMS = 64
BANDS = [f"A{i:02d}" for i in range(DIMS)]


def table(n=30, *, seed=0):
    """Points with vectors of AlphaEarth's bands, a class, a year, in columns of Earth Engine's order."""
    points = testing.scene().points(n, seed=seed)
    vectors = testing.scene().vectors(points["lon"].to_numpy(), points["lat"].to_numpy(), 2018, DIMS).T
    return pd.concat([pd.DataFrame(vectors, columns=BANDS), points], axis=1)


def assert_is(array, expected):
    assert array.dims == ("location", "band")
    assert list(array["band"].values) == BANDS
    assert (array.dtype, array.attrs["product"]) == (np.float32, "alphaearth")
    # GeoJSON keeps 15 digits
    np.testing.assert_allclose(array.values, expected[BANDS].to_numpy(np.float32), rtol=0, atol=1e-8)
    np.testing.assert_allclose(array["x"].values, expected["lon"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(array["y"].values, expected["lat"], rtol=0, atol=1e-9)
    assert list(array["land_cover"].values) == list(expected["land_cover"])
    assert (array["date"].values == np.datetime64("2018-01-01")).all()


def earth_engine(path, frame):
    """As Export.table.toDrive writes sampleRegions: an index, properties by name, the point as GeoJSON."""
    points = [
        json.dumps({"type": "Point", "coordinates": [x, y]})
        for x, y in zip(frame.lon, frame.lat, strict=True)
    ]
    out = frame.drop(columns=["lon", "lat"]).assign(**{"system:index": range(len(frame)), ".geo": points})
    out[sorted(out.columns)].to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    "kind",
    ["earth engine", "csv", "parquet", "geoparquet", "geojson", "shp", "fgb", "feather", "frame", "whole"],
)
def test_a_table_opens_as_points(tmp_path, kind):
    frame = table()
    points = gpd.GeoDataFrame(frame, geometry=gpd.points_from_xy(frame.lon, frame.lat), crs=4326)
    shuffled = frame[np.random.default_rng(0).permutation(frame.columns)]
    path = tmp_path / "points.csv"
    if kind == "earth engine":
        source = earth_engine(path, frame)
    elif kind == "csv":
        shuffled.to_csv(path, index=False)
        source = str(path)
    elif kind == "parquet":
        shuffled.to_parquet(tmp_path / "p.parquet")
        source = tmp_path / "p.parquet"
    elif kind == "geoparquet":
        points.drop(columns=["lon", "lat"]).to_parquet(tmp_path / "p.parquet")
        source = tmp_path / "p.parquet"
    elif kind in ("geojson", "shp", "fgb"):
        source = tmp_path / f"p.{kind}"
        # a GeoDataFrame's own order of rows: FlatGeobuf's index has another
        points.drop(columns=["lon", "lat"]).to_file(
            source, **({"SPATIAL_INDEX": "NO"} if kind == "fgb" else {})
        )
    elif kind == "feather":
        source = tmp_path / "p.feather"
        points.drop(columns=["lon", "lat"]).to_feather(source)
    elif kind == "frame":
        source = points.drop(columns=["lon", "lat"]).to_crs(4326)
    else:
        source = frame.drop(columns=BANDS).assign(embedding=list(frame[BANDS].to_numpy("f4")))
    array = gx.open("alphaearth", source)
    assert array.chunks is not None
    assert_is(array, frame)
    assert not set(array.coords) & {".geo", "geometry", "embedding", "A00"}
    assert_is(pickle.loads(pickle.dumps(array)), frame)


def test_places_of_a_table_are_in_memory_and_vectors_are_lazy(tmp_path):
    table().to_csv(tmp_path / "points.csv", index=False)
    found = gx.open("alphaearth", tmp_path / "points.csv")
    assert found.chunks is not None
    assert not [name for name, coord in found.coords.items() if coord.chunks is not None]


@pytest.mark.parametrize("given", ["list", "glob", "frames", "mixed"])
def test_several_tables_open_as_one(tmp_path, given):
    first, second = table(5, seed=1), table(7, seed=2)
    first.to_csv(tmp_path / "run[1]_a.csv", index=False)
    second[sorted(second.columns)].to_csv(tmp_path / "run[1]_b.csv", index=False)
    paths = [tmp_path / "run[1]_a.csv", str(tmp_path / "run[1]_b.csv")]
    sources = {
        "list": paths,
        "glob": str(tmp_path / "run[[]1]_*.csv"),
        "frames": [first, second],
        "mixed": [paths[0], second],
    }
    array = gx.open("alphaearth", sources[given])
    assert_is(array, pd.concat([first, second]))
    np.testing.assert_array_equal(array["location"], np.arange(12))
    assert array.attrs["source"] == ("table" if given == "frames" else "2 sources")


def test_rows_of_several_tables_keep_numbers_that_differ():
    first, second = table(3), table(2).set_index(pd.Index([7, 9]))
    assert gx.open("alphaearth", [first, second])["location"].values.tolist() == [0, 1, 2, 7, 9]


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (lambda t: t.assign(soil="clay"), r"same columns; a DataFrame and a DataFrame differ in \['soil'\]"),
        (lambda t: t.assign(**dict.fromkeys(BANDS, 1)), "encoded and decoded arrays; decode them all, or none"),
        (lambda t: gpd.GeoDataFrame(
            t, geometry=gpd.points_from_xy(t.pop("lon"), t.pop("lat"), crs=4326).to_crs(32632)
        ).assign(lon=t["A00"], lat=t["A00"]), "two CRSs, EPSG:4326 and EPSG:32632"),
        (lambda t: "2018.tif", r"a DataFrame is a table, '.*2018\.tif' is none; open them apart"),
    ],
)  # fmt: skip
def test_tables_that_differ_are_refused(second, says):
    with pytest.raises(SourceError, match=says):
        gx.open("alphaearth", [table(3), second(table(2))])


def test_an_empty_list_is_no_source():
    with pytest.raises(SourceError, match="the list of sources is empty"):
        gx.open("alphaearth", [])


def test_rows_are_chosen_by_place_and_year():
    frame = table()
    frame["year"] = np.where(np.arange(len(frame)) % 2, 2018, 2020)
    west, east = np.sort(frame["lon"])[[5, 20]]
    array = gx.open("alphaearth", frame, bbox=(west, 47.0, east, 48.0), time=2020)
    expected = frame[(frame["lon"].between(west, east)) & (frame["year"] == 2020)]
    np.testing.assert_array_equal(array["location"].values, expected.index)
    with pytest.raises(CoverageError, match=r"no row of the table of vectors lies in \(3, 40, 4, 41\)"):
        gx.open("alphaearth", frame, bbox=(3, 40, 4, 41))
    with pytest.raises(CoverageError, match="lies at time=2023"):
        gx.open("alphaearth", frame, time=2023)
    with pytest.raises(ValueError, match="has its own points, and no pixels"):
        gx.open("alphaearth", frame, points=frame[["lon", "lat"]])


def test_rows_without_a_place_are_left_out_and_said(caplog):
    frame = table()
    frame.loc[[3, 7], "lon"] = np.nan
    frame.loc[5, "A10"] = np.nan
    caplog.set_level("INFO", "geoemb_xr")
    array = gx.open("alphaearth", frame)
    assert array.sizes["location"] == 28
    assert "leaves out 2 of 30 rows" in caplog.text
    assert np.isnan(array.sel(location=5).values).all()
    assert np.isfinite(array.drop_sel(location=5).values).all()


def test_whole_numbers_are_codes():
    codes = np.random.default_rng(0).integers(-127, 128, (5, 128))
    codes[:, 0] = 127
    frame = pd.DataFrame(codes, columns=[f"emb_{i}" for i in range(128)])
    frame["scale"] = np.linspace(0.1, 0.2, 5).astype("f4")
    frame["lon"], frame["lat"] = np.arange(5) / 100, 50.0
    stored = gx.open("tessera", frame, decode=False)
    assert (stored.dtype, stored.attrs["codec"]) == (np.int8, PER_PIXEL_SCALE.name)
    np.testing.assert_array_equal(stored.values, codes)
    expected = codes.astype("f4") * frame["scale"].to_numpy()[:, None]
    np.testing.assert_array_equal(gx.open("tessera", frame).values, expected)
    frame["emb_3"] = 300
    with pytest.raises(
        EmbeddingError, match="not codes of 'tessera': they run from -127 to 300, beyond int8"
    ):
        gx.open("tessera", frame)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda t: t.drop(columns="A63"),
            r"a column per band; 1 of 64 are missing: \['A63'\]",
        ),
        (lambda t: t.drop(columns=BANDS), r"a table for 'alphaearth' has a column per band \(A00 … A63"),
        (lambda t: t.assign(A07="a"), r"column 'A07' of the table holds .*, not numbers"),
        (lambda t: t.drop(columns=BANDS).assign(embedding="[1, 2]"), r"row 0 has no vector of 64 numbers"),
        (lambda t: t.drop(columns=["lon", "lat"]), r"a table of places needs columns 'lon' and 'lat'"),
    ],
)
def test_a_table_that_is_none_says_what_is_missing(change, says):
    with pytest.raises(EmbeddingError, match=says):
        gx.open("alphaearth", change(table(4)))


@given(
    start=st.sampled_from([0, 1]),
    prefix=st.sampled_from(["", "emb_", "band_", "x1_"]),
    width=st.integers(1, 4),
    shuffle=st.permutations(range(12)),
)
def test_numbered_columns_are_bands_in_the_order_of_their_numbers(start, prefix, width, shuffle):
    names = [f"{prefix}{i + start:0{width}d}" for i in range(12)]
    product = gx.Product("numbered", dims=12, bands=tuple(f"Z{i}z" for i in range(12)))
    others = ["year", "class2", "S2_B04"]
    assert vector_columns([*(names[i] for i in shuffle), *others], product) == names
    assert vector_columns([*names[1:], *others], product) is None


def test_a_product_of_ones_own_is_opened_from_a_table_and_known_afterwards(tmp_path):
    frame = pd.DataFrame({"lon": [11.0], "lat": [47.0], "e0": [0.5], "e1": [1.5]})
    frame.to_parquet(tmp_path / "a.parquet")
    array = gx.open(gx.Product("own-table", dims=2), str(tmp_path / "a.parquet"))
    np.testing.assert_array_equal(array.values, [[0.5, 1.5]])
    assert gx.product("own-table").dims == 2


def test_a_product_that_could_not_be_opened_is_not_known(tmp_path):
    frame = pd.DataFrame({"embedding": [[1.0, 2.0]]})
    frame.to_parquet(tmp_path / "a.parquet")
    for kind in ("pixel", "patch"):
        mine = gx.Product("own-failed", dims=2, kind=kind)
        with pytest.raises(EmbeddingError, match="a table of places needs columns"):
            gx.open(mine, str(tmp_path / "a.parquet"))
        assert "own-failed" not in {each.name for each in model.registered()}
    frame.to_parquet(tmp_path / "b.bin")
    with pytest.raises(SourceError, match=r"no reader for its files; a table .* can be opened"):
        gx.open(gx.Product("own-failed", dims=2), str(tmp_path / "b.bin"))


def test_points_sampled_from_alphaearth_elsewhere(real_data):
    """Two tables of 720 points, decoded; each vector is one that a code gives."""
    for path in sorted((real_data / "alphaearth-points").glob("*.csv")):
        array = gx.open("alphaearth", path)
        theirs = pd.read_csv(path)
        assert array.sizes == {"location": 720, "band": 64}
        np.testing.assert_array_equal(array.values, theirs[BANDS].to_numpy(np.float32))
        np.testing.assert_array_equal(array["dw_label"].values, theirs["dw_label"])
        np.testing.assert_allclose(array["x"].values, theirs["longitude"])
        assert (np.abs(np.linalg.norm(array.values, axis=1) - 1) < 0.01).all()
        assert set(array["date"].values.astype("datetime64[Y]").astype(str)) == {"2024"}


def test_points_of_tessera_are_their_codes_times_their_scales(real_data):
    folder = real_data / "tessera-points"
    array = gx.open("tessera", folder / "tessera_ukbms_10sites.csv")
    codes, scales = np.load(folder / "int8_embeddings.npy"), np.load(folder / "scales.npy")
    np.testing.assert_allclose(array.values, codes * scales[:, None], atol=1e-6)
    frame = pd.DataFrame(codes, columns=[f"emb_{i}" for i in range(128)]).assign(
        scales=scales, geometry=shapely.points(array["x"].values, array["y"].values)
    )
    again = gx.wrap(frame, "tessera")
    np.testing.assert_array_equal(again.emb.decode().values, codes * scales[:, None])
