"""Footers of far files are compared with one that was parsed, and say what they would say when parsed."""

import base64
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_server import ObjectServer
from patch_tables import DIMS, LAYOUT, frame, opened

import geoemb_xr as gx
from geoemb_xr.core.errors import ComparabilityError, CoverageError, SourceError
from geoemb_xr.readers import similar_footers
from geoemb_xr.readers.footers import read_footer
from geoemb_xr.stores.listing import list_files


def write(path, *, west, n=50, dims=DIMS, crs=4326, keys=None, store_schema=True, seed=0):
    """A file whose schema tells how long its vectors are, with any keys beside GeoParquet's."""
    table = (
        frame(n, seed=seed, dims=dims, west=west).to_crs(crs).to_arrow(index=False, geometry_encoding="WKB")
    )
    table = pa.table(table)
    flat = pa.array(np.random.default_rng(seed).standard_normal(n * dims, np.float32))
    vectors = pa.FixedSizeListArray.from_arrays(flat, dims)
    table = table.set_column(table.schema.get_field_index("embedding"), "embedding", vectors)
    place = table.schema.get_field_index("geometry")
    table = table.set_column(place, "geometry", table["geometry"].cast(pa.binary()))
    about = {"encoding": "WKB", "geometry_types": ["Polygon"], "bbox": [west, 45.0, west + 1.02, 46.02]}
    if crs != 4326:
        about["crs"] = f"EPSG:{crs}"
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": about}}
    stated = {"geo": json.dumps(geo), **(keys or {})}
    table = table.replace_schema_metadata(stated if store_schema else {})
    with pq.ParquetWriter(path, table.schema, store_schema=store_schema) as writer:
        writer.write_table(table, row_group_size=20)
        if not store_schema:  # as other writers do it
            writer.add_key_value_metadata(stated)
    return path


@pytest.fixture
def parsed(monkeypatch):
    """Names of the files whose footers are parsed."""
    seen = []

    def read(file, *given):
        seen.append(file.url.rpartition("/")[2])
        return read_footer(file, *given)

    monkeypatch.setattr(similar_footers, "read_footer", read)
    return seen


def assert_same(folder, touches):
    files = list_files(folder)
    for file, found in zip(files, similar_footers.read_footers(files, LAYOUT, touches), strict=True):
        parsed = read_footer(file, LAYOUT, touches)
        assert found.schema.equals(parsed.schema, check_metadata=True)
        names = (
            "file",
            "vectors",
            "dims",
            "geometry",
            "crs",
            "date",
            "bbox",
            "groups",
            "emb",
            "own",
            "gappy",
        )
        assert [getattr(found, name) for name in names] == [getattr(parsed, name) for name in names]


def test_of_many_files_alike_those_that_are_wanted_are_parsed_and_one_more(tmp_path, parsed):
    similar_footers._fields_in.cache_clear()
    # numbers of rows and texts of bounds of unlike length
    for i in range(70):
        write(tmp_path / f"{i:02d}.parquet", west=i + [0, 0.5, 0.123456789][i % 3], n=40 + 7 * i, seed=i)
    box = (30.3, 45.2, 30.6, 45.6)
    found = opened(tmp_path, bbox=box)
    assert sorted(parsed) == ["00.parquet", "30.parquet"]
    assert similar_footers._fields_in.cache_info().misses < 10  # by the length of their bounds' text
    whole = opened(tmp_path / "30.parquet", bbox=box)
    assert found.sizes["location"] == whole.sizes["location"] > 0
    np.testing.assert_array_equal(found.values, whole.values)
    parsed.clear()
    with pytest.raises(CoverageError, match=r"its files lie in \(0.000, 45.000, 70.020, 46.020\)"):
        opened(tmp_path, bbox=(80, 45, 81, 46))
    assert parsed == ["00.parquet"]


def test_files_of_several_kinds_say_what_they_would_when_parsed(tmp_path, parsed):
    kinds = (
        {},
        {"keys": {"emb": json.dumps({"version": "2"})}},
        {"keys": {"emb": json.dumps({"version": "3"})}},
        {"keys": {"a": "1", "geoemb_xr": json.dumps({"version": "x"}), "z": "9"}},
        {"keys": {f"k{i}": str(i) for i in range(20)}},
        {"dims": 4},
        {"crs": 32632},
        {"store_schema": False},
    )
    for i, kind in enumerate(kinds * 2):
        write(tmp_path / f"{i:02d}.parquet", west=10 + i, n=20 + 30 * i, seed=i, **kind)
    frame(30, west=50).to_parquet(
        tmp_path / "geopandas.parquet", index=False
    )  # the length is in the statistics
    assert_same(tmp_path, lambda places, crs: False)
    again = {f"{i:02d}.parquet" for i in range(8, 16)}
    assert again & set(parsed) == {"15.parquet"}  # without Arrow's schema nothing tells the length
    parsed.clear()
    assert_same(tmp_path, lambda places, crs: places[0][0] > 20)


def test_a_far_file_of_another_version_or_length_is_noticed(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.parquet", west=10 + i, seed=i)
    write(tmp_path / "4.parquet", west=40, dims=DIMS // 2)
    with pytest.raises(ComparabilityError, match="several lengths"):
        opened(tmp_path, bbox=(10, 45, 10.5, 46))


@pytest.mark.parametrize("cut", [slice(-1), slice(-4000, None), slice(3), slice(0)])
def test_a_far_file_that_is_damaged_is_named(tmp_path, cut):
    for i in range(3):
        write(tmp_path / f"{i}.parquet", west=10 + i, seed=i)
    damaged = tmp_path / "2.parquet"
    damaged.write_bytes(damaged.read_bytes()[cut][: None if cut.start is None else 3990])
    with pytest.raises(SourceError, match=r"2\.parquet"):
        opened(tmp_path, bbox=(10, 45, 10.5, 46))


def test_a_far_file_whose_own_schema_is_damaged_is_named(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.parquet", west=10 + i)
    stored = pq.read_metadata(damaged := tmp_path / "2.parquet").metadata[b"ARROW:schema"]
    wrong = bytearray(base64.b64decode(stored))
    wrong[60:90] = b"\xff" * 30
    damaged.write_bytes(damaged.read_bytes().replace(stored, base64.b64encode(wrong)))
    with pytest.raises(SourceError, match=r"2\.parquet is not a Parquet file that can be read"):
        opened(tmp_path, bbox=(10, 45, 10.5, 46))


def test_a_schema_that_differs_in_nothing_but_its_types_is_another_kind(tmp_path, parsed):
    for i in range(3):
        write(tmp_path / f"{i}.parquet", west=10 + i)
    table = pq.read_table(tmp_path / "1.parquet")
    ids = table.schema.get_field_index("id")
    other = pa.string() if table["id"].type == pa.large_string() else pa.large_string()
    pq.write_table(table.set_column(ids, "id", table["id"].cast(other)), tmp_path / "1.parquet")
    assert_same(tmp_path, lambda places, crs: False)
    assert "1.parquet" in parsed
    assert "2.parquet" not in parsed


def test_footers_longer_than_what_is_read_first(tmp_path, parsed, monkeypatch):
    monkeypatch.setattr(similar_footers, "_TAIL", 100)
    for i in range(3):
        write(tmp_path / f"{i}.parquet", west=10 + i)
    assert_same(tmp_path, lambda places, crs: False)
    assert parsed == ["0.parquet"]


def test_a_remote_file_that_lies_far_off_costs_a_look_and_its_footer(tmp_path):
    """More files than footers are kept: that of the file that is wanted may be read once more."""
    count = 132
    for i in range(count):
        write(tmp_path / f"{i:03d}.parquet", west=i, n=25, dims=384, seed=i)
    with ObjectServer(tmp_path) as server:
        urls = [f"{server.url}/{i:03d}.parquet" for i in range(count)]
        found = gx.open("earth-index", urls, bbox=(1.0, 45.0, 1.9, 46.0), storage={"allow_http": True})
        looked = server.count()
        assert looked <= count + 5
        assert server.count(method="HEAD") <= count
        vectors = found.values
        assert server.count() - looked <= 6
    here = gx.open("earth-index", tmp_path, bbox=(1.0, 45.0, 1.9, 46.0))
    np.testing.assert_array_equal(vectors, here.values)
