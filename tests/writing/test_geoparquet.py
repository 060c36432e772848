"""GeoParquet that others read."""

import json

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError


@pytest.fixture
def points():
    table = gx.testing.scene().points(80, radius=500)
    table.index = pd.Index([f"p{i}" for i in range(len(table))], name="id")
    return gx.testing.synthetic("alphaearth", shape=(130, 110), chunks=50).emb.sample(table)


def test_geopandas_reads_vectors_places_and_columns(points, tmp_path):
    one = points.isel(time=0)
    path = one.emb.to_geoparquet(tmp_path / "a.parquet")
    table = geopandas.read_parquet(path)
    assert table.crs.to_epsg() == 32632
    order = table["location"].tolist()
    assert sorted(order) == sorted(one["location"].values.tolist())
    own = one.sel(location=order)
    np.testing.assert_array_equal(np.stack(table["embedding"]), own.values)
    np.testing.assert_array_equal(table.geometry.x, own["x"].values)
    assert table["land_cover"].tolist() == own["land_cover"].values.tolist()
    west, south, east, north = table.total_bounds
    half = geopandas.read_parquet(path, bbox=(west, south, (west + east) / 2, north))  # needs the covering
    assert 0 < len(half) < len(table)
    assert list(tmp_path.iterdir()) == [path]


def test_rows_follow_a_hilbert_curve_in_groups_with_statistics(tmp_path, monkeypatch):
    from geoemb_xr.writing import geoparquet

    monkeypatch.setattr(geoparquet, "ROW_GROUP", 64 * 4 * 500)
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1e5, (4000, 2))
    array = gx.wrap(
        rng.normal(size=(4000, 64)).astype("f4"),
        "alphaearth",
        x=xy[:, 0] + 5e5,
        y=xy[:, 1],
        crs=32632,
        version="v1",
    )
    path = array.chunk(location=700).emb.to_geoparquet(tmp_path / "a.parquet")
    file = pq.ParquetFile(path)
    assert file.num_row_groups == 8
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    table = geopandas.read_parquet(path)
    distance = table.geometry.hilbert_distance().to_numpy()
    assert (np.diff(distance.astype(np.int64)) >= 0).all()
    names = [file.metadata.row_group(0).column(i).path_in_schema for i in range(file.metadata.num_columns)]
    column = names.index("bbox.xmin")
    spans = [
        file.metadata.row_group(i).column(column).statistics.max
        - file.metadata.row_group(i).column(column).statistics.min
        for i in range(8)
    ]
    assert np.mean(spans) < 0.6e5  # of 1e5: groups are compact
    np.testing.assert_array_equal(np.stack(table["embedding"]), array.values[table["location"].to_numpy()])


def test_the_footer_says_what_the_vectors_are(points, tmp_path):
    path = points.isel(time=0).emb.to_geoparquet(tmp_path / "a.parquet", encode=True)
    metadata = pq.read_schema(path).metadata
    emb, geo = json.loads(metadata[b"emb"]), json.loads(metadata[b"geo"])
    assert emb["model"]["id"] == "alphaearth"
    assert emb["embedding"] == {"dim": 64, "quantization": "signed-square"}
    assert emb["license"] == "CC-BY-4.0"
    assert "Google" in emb["attribution"]
    assert emb["datetime"] == "2018-01-01"
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert pq.read_schema(path).field("embedding").type.value_type == "int8"


def test_polygons_ride_along(tmp_path):
    shapes = [shapely.box(i, 0, i + 1, 2) for i in range(5)]
    array = gx.wrap(np.eye(5, 64, dtype="f4"), "alphaearth", x=np.arange(5) + 0.5, y=np.ones(5), version="v1")
    array = array.assign_coords(geometry=("location", shapes))
    path = array.emb.to_geoparquet(tmp_path / "a.parquet")
    table = geopandas.read_parquet(path).sort_values("location")
    assert table.geometry.tolist() == shapes
    back = gx.open(path).sortby("location")
    assert back["geometry"].values.tolist() == shapes
    np.testing.assert_array_equal(back.values, array.values)


def test_locations_without_a_place_come_last(tmp_path):
    array = gx.wrap(
        np.eye(3, 64, dtype="f4"), "alphaearth", x=[1.0, np.nan, 2.0], y=[1.0, np.nan, 2.0], version="v1"
    )
    path = array.emb.to_geoparquet(tmp_path / "a.parquet")
    assert geopandas.read_parquet(path).geometry.isna().tolist() == [False, False, True]
    assert gx.open(path).sortby("location").identical(array)


def test_a_template_for_several_times_and_what_is_refused(points, codes, tmp_path):
    paths = xr.concat(
        [points, points.assign_coords(time=points["time"] + np.timedelta64(365, "D"))], "time"
    ).emb.to_geoparquet(tmp_path / "{time:%Y}.parquet")
    assert [p.name for p in paths] == ["2018.parquet", "2019.parquet"]
    with pytest.raises(FileExistsError, match="mode='w'"):
        points.isel(time=0).emb.to_geoparquet(paths[0])
    with pytest.raises(EmbeddingError, match="takes vectors at locations"):
        codes.emb.to_geoparquet(tmp_path / "a.parquet")
    with pytest.raises(EmbeddingError, match=r"\['bbox'\] have names that the format needs"):
        points.isel(time=0).assign_coords(bbox=("location", np.zeros(80))).emb.to_geoparquet(
            tmp_path / "a.parquet"
        )
    with pytest.raises(EmbeddingError, match="needs a CRS"):
        points.isel(time=0).drop_vars("spatial_ref").emb.to_geoparquet(tmp_path / "a.parquet")
    with pytest.raises(EmbeddingError, match="encode=True is for embeddings"):
        points.isel(time=0, band=0, drop=True).drop_attrs(deep=False).emb.to_geoparquet(
            tmp_path / "a.parquet", encode=True
        )


def test_an_interrupted_parquet_is_resumed(points, tmp_path, counting, interrupted):
    array = points.isel(time=0).compute().chunk(location=10)
    failing, _ = counting(array, fail_at=5)
    with pytest.raises(interrupted):
        failing.emb.to_geoparquet(tmp_path / "a.parquet")
    assert not (tmp_path / "a.parquet").exists()
    again, state = counting(array)
    again.emb.to_geoparquet(tmp_path / "a.parquet")
    assert state["n"] < 8
    back = gx.open(tmp_path / "a.parquet").sel(location=array["location"])
    assert back.identical(array)


# --- columns --------------------------------------------------------------------------------------------------


@pytest.fixture
def with_columns():
    x = np.arange(3.0)
    array = gx.wrap(np.eye(3, 64, dtype="f4"), "alphaearth", x=x, y=x, version="v1")
    zoned = pd.date_range("2024-03-31", periods=3, freq="12h", tz="Europe/Vienna")
    columns = {
        "crop": np.array(["rye", None, "oats"], object),
        "wet": np.array([True, None, False], object),
        "code": np.array([2**53 + 1, None, 3], object),
        "seen": np.array([*zoned], object),
        "age": np.array([1, 2, "NaT"], "m8[ns]"),
        "field": np.array([shapely.box(0, 0, 1, 1), None, shapely.Point(1, 2)], object),
        "wet/dry.é": [1, 2, 3],
    }
    return array.assign_coords({name: ("location", values) for name, values in columns.items()})


@pytest.mark.parametrize("ending", ["parquet", "zarr"])
def test_columns_of_every_kind_come_back(ending, with_columns, tmp_path):
    method = with_columns.emb.to_zarr if ending == "zarr" else with_columns.emb.to_geoparquet
    back = gx.open(method(tmp_path / f"a.{ending}"))
    back = back.sortby("location") if ending == "parquet" else back
    for name, column in with_columns.coords.items():
        assert back[name].values.tolist() == column.values.tolist(), name
        assert back[name].attrs == column.attrs
    assert set(back.coords) == set(with_columns.coords)
    assert [p.name for p in tmp_path.iterdir()] == [f"a.{ending}"]


def test_geopandas_reads_every_geometry_and_gaps_as_nulls(with_columns, tmp_path):
    path = with_columns.emb.to_geoparquet(tmp_path / "a.parquet")
    table = geopandas.read_parquet(path).set_index("location").sort_index()
    assert table["field"].geom_type.fillna("").tolist() == ["Polygon", "", "Point"]
    assert table["field"].crs == table.crs
    types = {field.name: str(field.type) for field in pq.read_schema(path)}
    assert types["crop"] == "string"
    assert types["code"] == "int64"
    assert types["seen"] == "timestamp[ns, tz=Europe/Vienna]"
    assert pq.read_table(path)["wet"].null_count == 1


@pytest.mark.parametrize("ending", ["parquet", "zarr"])
def test_what_no_file_holds_is_refused_and_leaves_nothing(ending, with_columns, tmp_path):
    mixed = with_columns.assign_coords(mixed=("location", np.array([1, "a", None], object)))
    method = mixed.emb.to_zarr if ending == "zarr" else mixed.emb.to_geoparquet
    with pytest.raises(EmbeddingError, match=r"the column 'mixed' holds .*int and str"):
        method(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_flipped_bit_is_an_error_to_who_checks(with_columns, tmp_path):
    path = with_columns.emb.to_geoparquet(tmp_path / "a.parquet")
    group = pq.ParquetFile(path).metadata.row_group(0)
    column = group.column(group.num_columns - 1)  # the vectors
    whole = path.read_bytes()
    place = column.data_page_offset + column.total_compressed_size - 2
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(path, page_checksum_verification=True).read()


RIDING = {
    "strings of pandas": pd.array(["a", None, "b"], "string"),
    "zones": pd.DatetimeIndex(["2018-01-01", None, "2019-01-01"]).tz_localize("Asia/Tokyo"),
    "categories": pd.Categorical(["a", None, "b"]),
    "booleans": pd.array([True, None, False], "boolean"),
}


@pytest.mark.parametrize("kind", RIDING)
def test_columns_of_pandas_own_types_ride_along(tmp_path, kind):
    array = gx.testing.synthetic("alphaearth", shape=(24, 24)).emb.year(2018).emb.sample(LONLAT)
    riding = array.assign_coords(column=("location", RIDING[kind]))
    gx.to_geoparquet(riding, tmp_path / "a.parquet")
    found = pd.read_parquet(tmp_path / "a.parquet").set_index("location")["column"].sort_index()
    expected = pd.Series(RIDING[kind], name="column")
    assert found.isna().tolist() == expected.isna().tolist()
    assert found.dropna().tolist() == expected.dropna().tolist()


LONLAT = [(11.3697, 47.2502), (11.37, 47.25), (11.3703, 47.2498)]


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("column", np.ones(3) + 1j, "'column' holds complex128, which Parquet has no type for"),
        ("geometry", np.arange(3), r"\['geometry'\] have names that the format needs"),
        ("time", np.arange(3), r"\['time'\] have names that the format needs"),
        (("a", "b"), np.arange(3), r"cannot hold the name \('a', 'b'\)"),
    ],
)
def test_what_parquet_cannot_hold_is_refused_by_name(tmp_path, name, values, says):
    array = gx.testing.synthetic("alphaearth", shape=(24, 24)).emb.year(2018).emb.sample(LONLAT)
    array = array.drop_vars("time", errors="ignore").assign_coords({name: ("location", values)})
    with pytest.raises(EmbeddingError, match=says):
        gx.to_geoparquet(array, tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())
