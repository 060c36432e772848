"""What columns of Parquet hold: vectors in any list, geometries in any encoding, and what is none of both."""

import json
import logging

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely
from patch_tables import DIMS, LAYOUT, assert_rows, frame, opened, within

from geoemb_xr.core import errors, geometry
from geoemb_xr.core.errors import ComparabilityError, CoverageError, SourceError
from geoemb_xr.readers import footers, geoparquet, vectors
from geoemb_xr.readers.layouts import PatchLayout
from geoemb_xr.stores import listing

pytestmark = pytest.mark.filterwarnings("ignore:Geometry is in a geographic CRS")


# --- vectors ------------------------------------------------------------------------------------------------


def test_float32_lists_are_views_of_arrows_memory():
    values = pa.array(np.arange(12, dtype="f4"))
    for column in (
        pa.FixedSizeListArray.from_arrays(values, 4),
        pa.ListArray.from_arrays(pa.array([0, 4, 8, 12], pa.int32()), values),
        pa.LargeListArray.from_arrays(pa.array([0, 4, 8, 12], pa.int64()), values),
    ):
        matrix = vectors.as_matrix(column, 4)
        assert np.shares_memory(matrix, values.to_numpy())
        np.testing.assert_array_equal(matrix, np.arange(12).reshape(3, 4))
        np.testing.assert_array_equal(vectors.as_matrix(column.slice(1, 1), 4), [[4, 5, 6, 7]])


def test_half_precision_leading_dimensions_and_nulls():
    half = pa.array(np.arange(8, dtype=np.float16))
    np.testing.assert_array_equal(
        vectors.as_matrix(pa.FixedSizeListArray.from_arrays(half, 4), 4),
        np.arange(8, dtype="f4").reshape(2, 4),
    )
    nested = pa.array([[[1.0, 2.0]], [[3.0, 4.0]]], pa.list_(pa.list_(pa.float32())))
    np.testing.assert_array_equal(vectors.as_matrix(nested, 2), [[1, 2], [3, 4]])
    missing = pa.array([[1.0, 2.0], None, [3.0, None]], pa.list_(pa.float32()))
    np.testing.assert_array_equal(vectors.as_matrix(missing, 2), [[1, 2], [np.nan, np.nan], [np.nan, np.nan]])
    fixed = pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))
    np.testing.assert_array_equal(vectors.as_matrix(fixed, 2), [[1, 2], [np.nan, np.nan]])
    with pytest.raises(SourceError, match=r"the column: vectors have from 1 to 2 numbers"):
        vectors.as_matrix(pa.array([[1.0], [2.0, 3.0]], pa.list_(pa.float32())), 2)


@pytest.mark.parametrize("fixed", [False, True])
def test_null_vectors_are_missing_and_said(tmp_path, caplog, fixed):
    table = frame(20)
    table.loc[[3, 7], "embedding"] = None
    table.to_parquet(tmp_path / "nulls.parquet")
    if fixed:
        stored = pq.read_table(tmp_path / "nulls.parquet")
        kind = pa.list_(pa.float32(), DIMS)
        column = pa.array(stored["embedding"].to_pylist(), kind)
        pq.write_table(stored.set_column(2, "embedding", column), tmp_path / "nulls.parquet")
    with caplog.at_level(logging.INFO, "geoemb_xr"):
        array = opened(tmp_path / "nulls.parquet").compute()
    gone = np.isnan(array.values)
    assert set(array.coords["id"].values[gone.all(axis=1)]) == {"0-0003", "0-0007"}
    assert gone.any(axis=1).sum() == 2
    assert "nulls.parquet: 2 rows without a vector" in caplog.text


# --- bad files ----------------------------------------------------------------------------------------------


def test_vectors_of_several_lengths(tmp_path):
    table = frame(20)
    for row in (2, 5, 6):
        table.at[row, "embedding"] = np.ones(5, "f4")
    table.to_parquet(tmp_path / "ragged.parquet")
    with pytest.raises(
        SourceError, match=r"ragged.parquet: 3 of 20 rows of row group 0 .* than 8 .*drop or fix"
    ):
        opened(tmp_path)


@pytest.mark.parametrize("length", [1, 2 * DIMS - 1])
def test_a_length_that_counts_as_whole_rows_more_or_less_is_told_by_the_nulls(tmp_path, length):
    # as many numbers as with a row less or a row more, which no null in the second row group explains
    table = frame(20)
    rows = list(table["embedding"])
    table["embedding"] = [*rows[:13], np.ones(length, "f4"), *rows[14:]]
    table.to_parquet(tmp_path / "ragged.parquet", row_group_size=10)
    assert pq.ParquetFile(tmp_path / "ragged.parquet").num_row_groups == 2
    with pytest.raises(
        SourceError, match=r"ragged.parquet: 1 of 10 rows of row group 1 .* than 8 .*drop or fix"
    ):
        opened(tmp_path)


def test_another_length_than_the_products(tmp_path):
    frame(20, dims=5).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(
        SourceError, match=r"a.parquet \(20 rows\) has vectors of 5; those of 'test-patches' have 8"
    ):
        opened(tmp_path)


def test_two_lengths_in_one_glob(tmp_path):
    frame(20, dims=5).to_parquet(tmp_path / "a.parquet")
    frame(30, dims=6).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(
        ComparabilityError, match=r"5 in .*a.parquet \(20 rows\); 6 in .*b.parquet \(30 rows\)"
    ):
        opened(str(tmp_path / "*.parquet"))


def test_two_versions_in_one_glob(tmp_path):
    for name, count in (("v1", 20), ("v2", 30)):
        frame(count).to_parquet(tmp_path / f"{name}.parquet")
    layout = PatchLayout(patch_m=2000.0, version_of=lambda facts: facts.file.url[-10:-8])
    with pytest.raises(
        ComparabilityError, match=r"'v1' in 1 files \(20 rows\).*'v2' in 1 files \(30 rows\).*version="
    ):
        opened(tmp_path, layout=layout)
    array = opened(tmp_path, layout=layout, version="v2")
    assert (array.sizes["location"], array.attrs["version"]) == (30, "v2")
    with pytest.raises(CoverageError, match=r"version='v3' is not in the source, which has 'v1', 'v2'"):
        opened(tmp_path, layout=layout, version="v3")


def test_no_column_of_vectors(tmp_path):
    frame(20).rename(columns={"embedding": "features"}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(
        SourceError, match=r"a.parquet \(20 rows\) has no column 'embedding' or 'embeddings'; .*features"
    ):
        opened(tmp_path)


def test_no_geometry(tmp_path):
    pd.DataFrame(frame(20).drop(columns="geometry")).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a.parquet \(20 rows\) has no places"):
        opened(tmp_path)


@pytest.mark.parametrize("nothing", [None, shapely.Polygon()])
@pytest.mark.parametrize("covering", [True, False])
def test_rows_without_a_geometry_are_counted_and_left_out(tmp_path, nothing, covering, caplog):
    table = frame(20)
    rest = table.drop([1, 2, 3])
    table.loc[[1, 2, 3], "geometry"] = nothing
    table.to_parquet(tmp_path / "a.parquet", write_covering_bbox=covering)
    assert_rows(opened(tmp_path), rest)
    assert "3 of 20 patches are left out: without a geometry" in caplog.text
    assert_rows(opened(tmp_path, bbox=(9, 44, 12, 47)), rest)
    table["geometry"] = gpd.GeoSeries([nothing] * 20, crs=4326)
    table.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a.parquet: none of the 20 rows has a geometry"):
        opened(tmp_path)


def test_lazy_places_of_rows_without_a_geometry_are_missing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(geoparquet, "EAGER_ROWS", 10)
    table = frame(20)
    table.loc[[1, 2, 3], "geometry"] = None
    table.to_parquet(tmp_path / "a.parquet")
    assert np.flatnonzero(np.isnan(opened(tmp_path)["x"].values)).tolist() == [1, 2, 3]
    assert "3 rows have no geometry; their places are missing" in caplog.text


def test_no_crs(tmp_path, caplog):
    frame(20).set_crs(None, allow_override=True).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a.parquet \(20 rows\) does not say its CRS"):
        opened(tmp_path)
    with caplog.at_level(logging.INFO, "geoemb_xr"):
        array = opened(tmp_path, layout=PatchLayout(lonlat=True))
    assert geometry.crs_of(array).to_epsg() == 4326
    assert "does not say its CRS" in caplog.text


def test_a_projected_crs_is_kept(tmp_path):
    table = frame(60)
    table.to_crs(32632).to_parquet(tmp_path / "a.parquet")
    bbox = (10.2, 45.2, 10.6, 45.6)
    array = opened(tmp_path, bbox=bbox)
    assert geometry.crs_of(array).to_epsg() == 32632
    inside = set(table[table.intersects(shapely.box(*bbox))]["id"])
    assert inside <= set(array.coords["id"].values)
    assert array.sizes["location"] < 60
    assert array.coords["x"].values.min() > 1e5


def test_two_crss(tmp_path):
    frame(20).to_parquet(tmp_path / "a.parquet")
    frame(20, seed=1).to_crs(32632).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(errors.EmbeddingError, match=r"two CRSs in one source: .*a.parquet and .*b.parquet"):
        opened(tmp_path)


def test_not_parquet(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no such thing at all")
    with pytest.raises(SourceError, match=r"a.parquet is not a Parquet file"):
        opened(tmp_path)


def test_no_files(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(FileNotFoundError, match=r"no \.parquet or \.gpq"):
        opened(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        opened(tmp_path / "missing.parquet")
    with pytest.raises(SourceError, match="no published store"):
        opened(None)


def test_of_another_product(tmp_path):
    frame(20).to_parquet(tmp_path / "a.parquet")
    stored = pq.read_table(tmp_path / "a.parquet")
    keys = {**stored.schema.metadata, footers.OWN_KEY: json.dumps({"product": "tessera"})}
    pq.write_table(stored.replace_schema_metadata(keys), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a.parquet holds 'tessera', not 'test-patches'"):
        opened(tmp_path)
    keys[footers.OWN_KEY] = "{"
    pq.write_table(stored.replace_schema_metadata(keys), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"the footer key 'geoemb_xr' is not JSON"):
        opened(tmp_path)


@pytest.mark.parametrize("statistics", [True, False])
def test_whole_numbers_that_ride_along_stay_whole_where_they_have_gaps(tmp_path, statistics):
    big = 2**53 + 1  # no float64 holds it
    days = np.sort(frame(20)["date"])
    table = frame(20).assign(date=days, cell=pd.array([*range(big, big + 19), None], dtype="Int64"), plot=7)
    table.to_parquet(tmp_path / "a.parquet", write_statistics=statistics)
    array = opened(tmp_path)
    assert (
        array["cell"].values.tolist()
        == table["cell"].astype(object).where(table["cell"].notna(), None).tolist()
    )
    assert array["plot"].dtype == np.int64
    frame(20, seed=1, west=20).assign(cell=5, plot=2.5).to_parquet(tmp_path / "b.parquet")
    both = opened(tmp_path)
    assert sorted(both["cell"].values.tolist(), key=str).count(5) == 20
    assert both["plot"].dtype == np.float64


def test_the_index_of_a_list_column_is_found_behind_structs(tmp_path):
    """Row-group statistics are found by the leaf's path, wherever the column stands."""
    frame(40).to_parquet(tmp_path / "a.parquet", write_covering_bbox=True)
    stored = pq.read_table(tmp_path / "a.parquet")
    turned = stored.select(["bbox", "geometry", "embedding", "date", "id"])
    pq.write_table(turned, tmp_path / "a.parquet", row_group_size=10)
    facts = footers.read_footer(listing.list_files(tmp_path)[0], LAYOUT)
    boxes = pc.struct_field(turned["bbox"], "xmin").to_numpy()
    assert [group.places[0][0] for group in facts.groups] == [
        boxes[i : i + 10].min() for i in range(0, 40, 10)
    ]
    assert [group.rows for group in facts.groups] == [10] * 4
    dates = turned["date"].to_numpy()
    assert [g.span for g in facts.groups] == [(d.min(), d.max()) for d in np.split(dates, 4)]


# --- what other writers write -------------------------------------------------------------------------------


def rewritten(path, encoding, column, name="geometry"):
    """A file of geopandas' with its geometries encoded otherwise, and the footer that says so."""
    stored = pq.read_table(path)
    keys = dict(stored.schema.metadata)
    geo = json.loads(keys[b"geo"])
    geo["columns"] = {name: geo["columns"]["geometry"] | {"encoding": encoding}}
    geo["primary_column"] = name
    keys[b"geo"] = json.dumps(geo).encode()
    at = stored.schema.get_field_index("geometry")
    pq.write_table(stored.set_column(at, name, column).replace_schema_metadata(keys), path)


def shapes_of(kind):
    boxes = frame(20).geometry
    if kind == "point":
        return boxes.centroid
    if kind == "multipolygon":
        return gpd.GeoSeries([shapely.MultiPolygon([b]) for b in boxes], crs=4326)
    return boxes


@pytest.mark.parametrize("kind", ["point", "polygon", "multipolygon"])
@pytest.mark.parametrize("encoding", ["WKB", "WKT", "large WKT", "geoarrow", "interleaved"])
def test_geometries_as_anyone_encodes_them(tmp_path, kind, encoding):
    table = frame(20).set_geometry(shapes_of(kind))
    path = tmp_path / "a.parquet"
    if encoding == "geoarrow":
        table.to_parquet(path, geometry_encoding="geoarrow", index=False)
    else:
        table.to_parquet(path, index=False)
    if encoding.endswith("WKT"):
        kind_of_text = pa.large_string() if "large" in encoding else pa.string()
        text = pa.array(table.geometry.to_wkt(rounding_precision=-1), kind_of_text)
        rewritten(path, "WKT", text, name="place")
    elif encoding == "interleaved":
        arrow = table.geometry.to_arrow(geometry_encoding="geoarrow", interleaved=True)
        rewritten(path, kind, pa.array(arrow))
    assert_rows(opened(path), table)
    bbox = (10.1, 45.1, 10.7, 45.8)
    if kind != "point":  # a point has the footprint of its product
        some = within(table, bbox)
        assert sorted(opened(path, bbox=bbox).coords["id"].values) == sorted(some["id"])


def test_the_footers_primary_column_is_the_geometry(tmp_path):
    table = frame(12).rename_geometry("geom")
    table["geometry"] = "no geometry but a text"
    table.to_parquet(tmp_path / "a.parquet", index=False)
    assert_rows(opened(tmp_path), frame(12))


def test_a_column_that_only_arrow_marks_as_geometry(tmp_path):
    table = pa.table(frame(12).to_arrow(index=False, geometry_encoding="geoarrow"))
    pq.write_table(table.rename_columns(["id", "date", "embedding", "where"]), tmp_path / "a.parquet")
    assert_rows(opened(tmp_path), frame(12))


@pytest.mark.parametrize("kind", ["WKB", "WKT", "polygon"])
def test_geometries_that_are_none_name_file_and_column(tmp_path, kind):
    frame(3).to_parquet(tmp_path / "a.parquet", index=False)
    column = {"WKB": pa.array([b"xx"] * 3), "WKT": pa.array(["POINT (1"] * 3), "polygon": pa.array([1.5] * 3)}
    rewritten(tmp_path / "a.parquet", kind, column[kind])
    with pytest.raises(SourceError, match=r"a.parquet, column 'geometry': its geometries cannot be read as"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.large_list(pa.float16()),
        pa.list_view(pa.float32()),
        pa.large_list_view(pa.float64()),
        pa.list_(pa.float16(), DIMS),
        pa.fixed_shape_tensor(pa.float32(), [DIMS]),
        pa.fixed_shape_tensor(pa.float32(), [1, DIMS]),
    ],
    ids=str,
)
def test_vectors_in_any_list_of_arrows(tmp_path, kind):
    table = frame(12)
    vectors = np.round(np.stack(table["embedding"]), 2).astype("f2").astype("f4")
    table["embedding"] = list(vectors)
    table.to_parquet(tmp_path / "a.parquet", index=False)
    stored = pq.read_table(tmp_path / "a.parquet")
    lists = getattr(kind, "storage_type", kind)
    numbers = [v.astype("f2") if "halffloat" in str(lists) else v for v in vectors]
    column = pa.array(numbers, lists)
    column = pa.ExtensionArray.from_storage(kind, column) if lists is not kind else column
    at = stored.schema.get_field_index("embedding")
    pq.write_table(stored.set_column(at, "embedding", column), tmp_path / "a.parquet", row_group_size=5)
    assert_rows(opened(tmp_path), table)
    bbox = (10.2, 45.3, 10.9, 45.8)
    assert_rows(opened(tmp_path, bbox=bbox), within(table, bbox))


@pytest.mark.parametrize(
    "column", [pa.array(["[1, 2]"] * 3), pa.array([1.0, 2.0, 3.0]), pa.array([["a"]] * 3)]
)
def test_a_column_of_vectors_that_holds_none(tmp_path, column):
    frame(3).to_parquet(tmp_path / "a.parquet", index=False)
    stored = pq.read_table(tmp_path / "a.parquet")
    at = stored.schema.get_field_index("embedding")
    pq.write_table(stored.set_column(at, "embedding", column), tmp_path / "a.parquet")
    with pytest.raises(
        SourceError, match=r"a.parquet \(3 rows\): its column 'embedding' holds .*, not lists of"
    ):
        opened(tmp_path)


def test_a_file_of_no_rows(tmp_path):
    frame(3).iloc[:0].to_parquet(tmp_path / "a.parquet", index=False)
    array = opened(tmp_path)
    assert array.sizes == {"location": 0, "band": DIMS}
    assert array.compute().dtype == np.float32
    with pytest.raises(CoverageError, match="no patch of 'test-patches'"):
        opened(tmp_path, bbox=(10, 45, 11, 46))
    frame(3).to_parquet(tmp_path / "b.parquet", index=False)
    assert_rows(opened(tmp_path), frame(3))


def test_a_damaged_file_is_named(tmp_path):
    frame(300).to_parquet(tmp_path / "a.parquet", index=False)
    raw = bytearray((tmp_path / "a.parquet").read_bytes())
    (tmp_path / "a.parquet").write_bytes(raw[:4] + b"\xff" * 9000 + raw[9004:])
    with pytest.raises(SourceError, match=r"a.parquet is not a Parquet file that can be read"):
        opened(tmp_path).compute()
    (tmp_path / "a.parquet").write_bytes(raw[:-100])
    with pytest.raises(SourceError, match=r"a.parquet is not a Parquet file that can be read"):
        opened(tmp_path)


def test_a_text_of_damaged_bytes_is_named(tmp_path):
    frame(3).assign(note=["one", "zwei", "drei"]).to_parquet(
        tmp_path / "a.parquet", index=False, compression=None
    )
    raw = (tmp_path / "a.parquet").read_bytes()
    assert b"zwei" in raw
    (tmp_path / "a.parquet").write_bytes(raw.replace(b"zwei", b"z\xffei"))
    with pytest.raises(SourceError, match=r"a.parquet is not a Parquet file that can be read"):
        opened(tmp_path).note.compute()
