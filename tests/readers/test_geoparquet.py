"""GeoParquet, lazily: rows as geopandas finds them, only what is needed read, and every bad file named."""

import json
import logging
import pickle
import shutil

import dask
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import xarray as xr
from dask.tokenize import tokenize
from hypothesis import given
from hypothesis import strategies as st
from patch_tables import DIMS, LAYOUT, PATCHES, assert_rows, frame, opened, within

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core import areas, geometry
from geoemb_xr.core.errors import CoverageError, SourceError
from geoemb_xr.readers import footers, geoparquet, layouts, row_groups
from geoemb_xr.readers.layouts import PatchLayout
from geoemb_xr.readers.tiles import Request
from geoemb_xr.readers.vectors import Rows
from geoemb_xr.stores.listing import list_files

pytestmark = pytest.mark.filterwarnings("ignore:Geometry is in a geographic CRS")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Four files of two row groups each, as geopandas writes them, side by side from west to east."""
    folder = tmp_path_factory.mktemp("written")
    for i in range(4):
        table = frame(seed=i, west=10.0 + i).sort_values("id")
        table.to_parquet(
            folder / f"{i}.parquet", write_covering_bbox=i % 2 == 0, row_group_size=60, index=False
        )
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """Those files once more, to be changed."""
    return shutil.copytree(written, tmp_path, dirs_exist_ok=True, copy_function=shutil.copyfile)


def expected(folder, bbox=None):
    return pd.concat(
        [
            gpd.read_parquet(f) if bbox is None else within(gpd.read_parquet(f), bbox)
            for f in sorted(folder.glob("*"))
        ],
        ignore_index=True,
    )


# --- rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bbox", [None, (10.2, 45.3, 10.4, 45.8), (10.9, 45.0, 12.1, 46.0), (13.5, 45.5, 14.5, 47.0)]
)
def test_rows_are_those_that_geopandas_finds(folder, bbox):
    with testing.raise_if_dask_computes():
        array = opened(folder, bbox=bbox)
    assert array.dims == ("location", "band")
    assert array.dtype == np.float32
    assert "geometry" not in array.coords
    assert_rows(array, expected(folder, bbox))


@pytest.mark.parametrize("side", ["west", "south", "east", "north"])
@pytest.mark.parametrize("covering", [False, True])
def test_a_patch_that_only_shares_an_edge_is_found(tmp_path, side, covering):
    """Also where its row group has no other: neither rows nor row groups are pruned at an edge."""
    table = gpd.GeoDataFrame(
        {"id": [0, 1], "embedding": [np.ones(DIMS, "f4")] * 2},
        geometry=[shapely.box(10, 45, 10.25, 45.25), shapely.box(20, 45, 20.25, 45.25)],
        crs=4326,
    )
    table.to_parquet(tmp_path / "a.parquet", row_group_size=1, write_covering_bbox=covering, index=False)
    beside = {
        "west": (9.5, 45.0, 10.0, 45.25),
        "south": (10.0, 44.5, 10.25, 45.0),
        "east": (10.25, 45.0, 10.5, 45.25),
        "north": (10.0, 45.25, 10.25, 45.5),
    }
    found = opened(tmp_path, bbox=beside[side], layout=PatchLayout())  # boxes of row groups do not grow
    assert list(found.coords["id"].values) == [0]


@given(
    west=st.floats(9.9, 13.9),
    south=st.floats(44.9, 45.9),
    width=st.floats(0.01, 2),
    height=st.floats(0.01, 0.9),
)
def test_any_bbox_finds_what_shapely_finds(tmp_path_factory, west, south, width, height):
    folder = tmp_path_factory.getbasetemp() / "any-bbox"
    if not folder.exists():
        folder.mkdir()
        for i in range(4):
            frame(seed=i, west=10.0 + i).to_parquet(
                folder / f"{i}.parquet", write_covering_bbox=i % 2 == 0, row_group_size=50
            )
    bbox = (west, south, west + width, south + height)
    table = pd.concat([within(frame(seed=i, west=10.0 + i), bbox) for i in range(4)])
    if table.empty:
        with pytest.raises(CoverageError, match="no patch of 'test-patches' in"):
            opened(folder, bbox=bbox)
    else:
        assert sorted(opened(folder, bbox=bbox).coords["id"].values) == sorted(table["id"])


def test_only_what_is_needed_is_read(folder):
    """The bytes of row groups outside the bbox are overwritten: whoever touched them would fail."""
    for name in ("0", "2", "3"):
        path = folder / f"{name}.parquet"
        meta = pq.read_metadata(path)
        with open(path, "r+b") as file:
            file.seek(4)
            file.write(b"\xff" * (path.stat().st_size - meta.serialized_size - 12))
    bbox = (11.2, 45.1, 11.8, 45.9)
    array = opened(folder, bbox=bbox)
    assert_rows(array, within(gpd.read_parquet(folder / "1.parquet"), bbox))
    with pytest.raises(Exception, match=r"(?i)thrift|page|corrupt|deserialize|snappy"):
        opened(folder, bbox=(10.2, 45.1, 10.8, 45.9)).compute()


def test_vectors_stay_on_disk_until_computed(folder):
    array = opened(folder, bbox=(10.0, 45.0, 11.0, 46.0))
    shutil.rmtree(folder)
    assert array.coords["x"].values.size > 50
    with pytest.raises(FileNotFoundError):
        array.compute()


def test_rows_are_sorted_by_date_and_a_time_slice_works(folder):
    array = opened(folder)
    dates = array.coords["date"].values
    assert (np.diff(dates) >= np.timedelta64(0, "ns")).all()
    part = array.swap_dims(location="date").sel(date=slice("2021-01", "2021-06"))
    asked = opened(folder, time=slice("2021-01", "2021-06"))
    np.testing.assert_array_equal(part.values, asked.values)
    table = expected(folder)
    inside = table["date"].between("2021-01-01", "2021-06-30 23:59:59.999999")
    assert asked.sizes["location"] == int(inside.sum()) > 0


@pytest.mark.parametrize(("time", "count"), [(2021, None), ("2021-03", None), ([2020, 2022], None)])
def test_time_picks_the_rows_of_a_period(folder, time, count):
    many = time if isinstance(time, list) else [time]
    dates = expected(folder)["date"]
    count = sum(int((dates.dt.to_period("Y" if isinstance(t, int) else "M") == str(t)).sum()) for t in many)
    assert opened(folder, time=time).sizes["location"] == count > 0


def test_time_outside_the_source_is_an_error_that_lists_what_there_is(folder):
    with pytest.raises(CoverageError, match=r"time=1999.*2020-01-01 … 2022-12-31"):
        opened(folder, time=1999)
    with pytest.raises(CoverageError, match=r"\[1999\] is not in"):
        opened(folder, time=[1999, 2021])
    with pytest.raises(TypeError, match="tuple"):
        opened(folder, time=(2020, 2021))


def test_interleaved_dates_of_a_large_source_keep_the_order_of_files(folder, monkeypatch, caplog):
    monkeypatch.setattr(geoparquet, "SORT_BYTES", 10)
    with caplog.at_level(logging.INFO, "geoemb_xr"):
        array = opened(folder)
    assert "sortby('date')" in caplog.text
    groups = array.coords["date"].values.reshape(8, 60)  # row groups of 60, each as it is stored
    assert (np.diff(groups.min(axis=1)) >= np.timedelta64(0, "ns")).all()
    assert not (np.diff(groups, axis=1) >= np.timedelta64(0, "ns")).all()
    assert_rows(array, expected(folder))


def test_antimeridian(tmp_path):
    ring = [(179.95, -17.0), (-179.95, -17.0), (-179.95, -16.9), (179.95, -16.9), (179.95, -17.0)]
    table = gpd.GeoDataFrame(
        {"id": ["across", "west", "east"], "embedding": [np.ones(DIMS, "f4")] * 3},
        geometry=[
            shapely.Polygon(ring),
            shapely.box(179.7, -17, 179.8, -16.9),
            shapely.box(-179.8, -17, -179.7, -16.9),
        ],
        crs=4326,
    )
    table.to_parquet(tmp_path / "a.parquet")
    array = opened(tmp_path / "a.parquet", bbox=(179.6, -18.0, -179.6, -16.0))
    assert set(array.coords["id"].values) == {"across", "west", "east"}
    assert abs(array.sel(location=array.coords["id"].values == "across").coords["x"].item()) == 180.0
    east = opened(tmp_path / "a.parquet", bbox=(-179.9, -18.0, -179.6, -16.0))
    assert "west" not in east.coords["id"].values


@pytest.mark.parametrize("covering", [False, True])
def test_a_ring_that_jumps_lies_where_it_is_short_whatever_its_box_says(tmp_path, covering):
    ring = shapely.Polygon([(179.9, 0), (-179.9, 0), (-179.9, 0.1), (179.9, 0.1)])
    table = gpd.GeoDataFrame({"embedding": [np.ones(DIMS, "f4")]}, geometry=[ring], crs=4326)
    table.to_parquet(tmp_path / "a.parquet", write_covering_bbox=covering)
    for west, east in ((179.95, 179.97), (-179.97, -179.95), (179.99, -179.99)):
        assert opened(tmp_path, bbox=(west, 0, east, 0.1)).sizes["location"] == 1
    with pytest.raises(CoverageError, match="no patch of"):
        opened(tmp_path, bbox=(0, 0, 1, 0.1))


def test_points_have_the_footprint_of_their_product(tmp_path):
    table = (
        frame(40)
        .drop(columns="geometry")
        .set_geometry(shapely.points(10 + np.arange(40) * 0.05, 45.0))
        .set_crs(4326)
    )
    table.to_parquet(tmp_path / "a.parquet")
    # 1 km is 0.0127 degrees of longitude here: the point at 10.05 is not in the box, its footprint is
    array = opened(tmp_path / "a.parquet", bbox=(10.06, 44.9, 10.09, 45.1))
    np.testing.assert_allclose(np.sort(array.coords["x"].values), [10.05, 10.1])


# --- laziness -----------------------------------------------------------------------------------------------


def test_places_stay_lazy_where_rows_are_many(folder, monkeypatch, caplog):
    eager = opened(folder)
    monkeypatch.setattr(geoparquet, "EAGER_ROWS", 10)
    with testing.raise_if_dask_computes(), caplog.at_level(logging.INFO, "geoemb_xr"):
        lazy = opened(folder)
    assert "stay lazy" in caplog.text
    for name in ("x", "y", "date", "id"):
        assert lazy.coords[name].chunks == lazy.chunks[:1], name
    lazy = lazy.compute()
    order = np.argsort(lazy.coords["id"].values)
    other = np.argsort(eager.coords["id"].values)
    for name in ("x", "y", "date", "id"):
        np.testing.assert_array_equal(lazy.coords[name].values[order], eager.coords[name].values[other])
    np.testing.assert_array_equal(lazy.values[order], eager.values[other])


def test_lazy_rows_obey_bbox_and_time(folder, monkeypatch):
    bbox = (10.5, 45.2, 12.5, 45.8)
    eager = opened(folder, bbox=bbox, time=2021)
    monkeypatch.setattr(geoparquet, "EAGER_ROWS", 10)
    lazy = opened(folder, bbox=bbox, time=2021)
    assert lazy.coords["x"].chunks is not None
    assert sorted(lazy.coords["id"].values) == sorted(eager.coords["id"].values)


@pytest.mark.parametrize("chunks", [1, 7, 60, 1000, -1, {"location": 13}])
def test_chunks_never_change_a_value(folder, chunks):
    array = opened(folder, chunks=chunks)
    size = chunks["location"] if isinstance(chunks, dict) else chunks
    in_order = opened(folder / "1.parquet", chunks=chunks).chunks[0]
    assert max(in_order) == min(size if size > 0 else 120, 120)
    xr.testing.assert_identical(array.compute(), opened(folder).compute())


def test_small_row_groups_share_a_block_and_big_ones_are_cut(folder, monkeypatch):
    monkeypatch.setattr(geoparquet, "SORT_BYTES", 0)
    whole = opened(folder)
    assert whole.chunks[0] == (480,)
    monkeypatch.setattr(geoparquet, "BLOCK_BYTES", (4 * DIMS * 30, 4 * DIMS * 40))
    cut = opened(folder)
    assert cut.chunks[0] == (40, 20) * 8  # a row group of 60 rows: 40 and 20
    np.testing.assert_array_equal(cut.values, whole.values)
    monkeypatch.setattr(geoparquet, "BLOCK_BYTES", (4 * DIMS * 130, 4 * DIMS * 400))
    assert opened(folder).chunks[0] == (120,) * 4  # two row groups each


def test_big_row_groups_are_streamed(tmp_path):
    """A part of a row group is read batch by batch: 20 of 60,000 rows, at its end."""
    n = 60_000
    x = np.linspace(0, 60, n)
    table = pa.table(
        {
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(n * DIMS, dtype="f4")), DIMS),
            "geometry": shapely.to_wkb(shapely.points(x, np.zeros(n))),
        }
    )
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": {"encoding": "WKB"}}}
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), tmp_path / "a.parquet")
    layout = PatchLayout()
    array = opened(tmp_path / "a.parquet", bbox=(x[-20] - 1e-5, -1, 61, 1), layout=layout)
    np.testing.assert_array_equal(array.values, np.arange(n * DIMS, dtype="f4").reshape(n, DIMS)[-20:])
    middle = opened(tmp_path / "a.parquet", bbox=(x[30_000] - 1e-5, -1, x[30_004] + 1e-5, 1), layout=layout)
    np.testing.assert_array_equal(middle.values[:, 0], np.arange(30_000, 30_005) * DIMS)


def test_graph_is_small_and_named_by_the_files_state(folder):
    first, second = opened(folder), opened(folder)
    assert first.data.name == second.data.name
    assert len(pickle.dumps(first.data)) < 60_000
    assert len(opened(folder, bbox=(10.0, 45.0, 10.5, 46.0)).data.dask.layers) <= 3
    frame(seed=9, west=10.0).to_parquet(folder / "0.parquet")
    assert opened(folder).data.name != first.data.name


def test_two_sources_that_are_alike_but_for_vectors_stay_two(tmp_path):
    """What dask knew them by was their text, which says nothing of files and shortens long selections."""
    for name, value in (("a", 1), ("b", 2)):
        table = frame(3000).drop(columns="date").assign(embedding=list(np.full((3000, DIMS), value, "f4")))
        table.to_parquet(tmp_path / f"{name}.parquet", index=False, compression=None)
    a, b = (opened(tmp_path / f"{name}.parquet") for name in "ab")
    np.testing.assert_array_equal((b.data - a.data).compute(), 1)
    facts = footers.read_footer(list_files(tmp_path / "a.parquet")[0], LAYOUT)
    whole = row_groups.Part(facts, facts.groups[0], 0, 3000)
    chosen = np.delete(np.arange(2001), 1000), np.delete(np.arange(2001), 1500)
    one, same, other = (Rows((whole.take(rows),), DIMS) for rows in (chosen[0], chosen[0], chosen[1]))
    assert tokenize(one) == tokenize(same) != tokenize(other)


def test_results_travel_between_processes(folder):
    array = opened(folder, bbox=(10.0, 45.0, 11.0, 46.0), chunks=20)
    with dask.config.set(scheduler="processes", num_workers=1):
        np.testing.assert_array_equal(array.values, array.compute(scheduler="synchronous").values)


# --- dates, duplicates, paths -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["2021-06-24T10:05:59.024Z", "2019-01-02T00:00:00Z", None]),
        pa.array(["20210624T100559", "20190102T000000", None]),
        pa.array(np.array(["2021-06-24", "2019-01-02", "NaT"], "datetime64[D]")),
        pa.array(pd.to_datetime(["2021-06-24T12:05+02:00", "2019-01-02T02:00+02:00", None])),
        pa.array(np.array(["2021-06-24T10:05:59", "2019-01-02", "NaT"], "datetime64[ms]")),
    ],
    ids=["iso", "basic", "date", "zoned", "ms"],
)
def test_dates_of_any_kind(column):
    found = footers.timestamps(column.to_numpy(zero_copy_only=False))
    assert found.dtype == "datetime64[ns]"
    assert list(found.astype("datetime64[D]").astype(str)) == ["2021-06-24", "2019-01-02", "NaT"]


def test_dates_that_nanoseconds_do_not_hold_are_missing(tmp_path, caplog):
    days = np.array(["0001-01-01", "2021-06-24", "9999-12-31"], "datetime64[D]")
    for column in (pa.array(days), pa.array(days.astype("datetime64[ms]")), pa.array(days.astype(str))):
        found = footers.timestamps(column.to_numpy(zero_copy_only=False))
        assert list(found.astype("datetime64[D]").astype(str)) == ["NaT", "2021-06-24", "NaT"]
    frame(4).drop(columns="date").to_parquet(tmp_path / "a.parquet")
    far = pa.array(
        [-800_000, 3_000_000, 18_000, 18_001], pa.date32()
    )  # two that Python's dates do not hold either
    stored = pq.read_table(tmp_path / "a.parquet").append_column("date", far)
    pq.write_table(stored.append_column("", far), tmp_path / "a.parquet")  # and a column without a name
    with caplog.at_level(logging.INFO, "geoemb_xr"):
        array = opened(tmp_path)
    assert "2 of 4 patches of 'test-patches' have no date" in caplog.text
    assert sorted(array.coords["date"].dt.year.values[:2].tolist()) == [2019, 2019]


def test_missing_dates_are_said(tmp_path, caplog):
    table = frame(20)
    table.loc[4, "date"] = pd.NaT
    table.to_parquet(tmp_path / "a.parquet")
    with caplog.at_level(logging.INFO, "geoemb_xr"):
        array = opened(tmp_path)
    assert "1 of 20 patches of 'test-patches' have no date" in caplog.text
    assert np.isnat(array.coords["date"].values[-1])
    years = opened(tmp_path, time=slice(2020, 2022))
    assert years.sizes["location"] == 19


def test_dates_from_the_path(tmp_path):
    frame(20).drop(columns="date").to_parquet(tmp_path / "a_20210624.parquet")
    layout = PatchLayout(span_of_path=lambda path: layouts.day_span(path[-16:-8]))
    array = opened(tmp_path, layout=layout)
    assert set(array.coords["date"].values) == {np.datetime64("2021-06-24", "ns")}
    with pytest.raises(CoverageError, match="none of 1 files is of time=2022, by their names"):
        opened(tmp_path, layout=layout, time=2022)
    with pytest.raises(SourceError, match="do not say their dates"):
        opened(tmp_path, time=2021)


def test_duplicates_are_dropped_and_said(tmp_path, caplog):
    table = frame(30)
    table.to_parquet(tmp_path / "a.parquet")
    again = table.iloc[10:15].assign(id=[f"again-{i}" for i in range(5)])
    later = table.iloc[:5].assign(id=[f"later-{i}" for i in range(5)], date=pd.Timestamp("2024-01-01"))
    pd.concat([again, later, frame(10, seed=3)]).to_parquet(tmp_path / "b.parquet")
    with caplog.at_level(logging.INFO, "geoemb_xr"):
        array = opened(tmp_path)
    ids = set(array.coords["id"].values)
    assert not any(name.startswith("again") for name in ids)
    assert {f"later-{i}" for i in range(5)} <= ids
    assert array.sizes["location"] == 45
    assert "5 of 50 patches are duplicates" in caplog.text
    vectors = dict(zip(array.coords["id"].values, array.values, strict=True))
    np.testing.assert_array_equal(vectors["0-0012"], table["embedding"][12])


def test_hive_folders_and_drifting_columns(tmp_path):
    for year, name in ((2020, "embedding"), (2021, "embeddings")):
        path = tmp_path / f"geohash=u0/year={year}/month=06"
        path.mkdir(parents=True)
        table = frame(10, seed=year, dates=(f"{year}-06-01", f"{year}-06-30")).rename(
            columns={"embedding": name}
        )
        (table.assign(extra=1) if year == 2020 else table).to_parquet(path / "part.parquet")
    layout = PatchLayout(span_of_path=lambda path: layouts.month_span(layouts.hive(path)))
    array = opened(tmp_path, layout=layout)
    assert array.sizes["location"] == 20
    assert "extra" not in array.coords  # only what every file has rides along
    (tmp_path / "geohash=u0/year=2020/month=06/part.parquet").write_bytes(b"never touched")
    assert opened(tmp_path, layout=layout, time=2021).sizes["location"] == 10


def test_a_folder_may_be_called_like_a_file(tmp_path):
    (tmp_path / "all.parquet").mkdir()
    frame(10).to_parquet(tmp_path / "all.parquet/part-0.parquet")
    (tmp_path / "all.parquet/_SUCCESS").write_text("")
    assert opened(tmp_path / "all.parquet").sizes["location"] == 10


def test_what_paths_promise():
    # the example of the geohash's own documentation: 42.6, -5.6
    assert layouts.geohash_bounds("ezs42") == pytest.approx((-5.625, 42.5830, -5.5811, 42.6270), abs=1e-4)
    assert layouts.geohash_bounds("a") is None
    for zone in (1, 31, 60):
        use = geometry.utm_crs(zone).area_of_use
        west, south, east, north = layouts.zone_bounds(f"{zone:02d}TPT")
        assert west < use.west < use.east < east
        assert (south, north) == (39.0, 49.0)
    assert layouts.zone_bounds("61T") is None
    assert layouts.zone_bounds("32I") is None
    assert layouts.month_span({"year": "2024"})[1] == np.datetime64("2025-01-01")
    assert layouts.month_span({"year": "2024", "month": "12"})[1] == np.datetime64("2025-01-01")
    assert layouts.month_span({"month": "12"}) is None


# --- elsewhere ----------------------------------------------------------------------------------------------


def test_a_remote_store(folder):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/store", recursive=True)
    try:
        bbox = (10.2, 45.3, 10.4, 45.8)
        for url in ("memory://store", "memory://store/*.parquet", "memory://store/0.parquet"):
            array = opened(url, bbox=bbox)
            assert_rows(array, expected(folder, bbox))
        assert array.attrs["source"] == "memory://store/0.parquet"
        table = geoparquet.coverage_patches("memory://store", Request(), PATCHES, LAYOUT)
        assert len(table) == 4
        assert (table["bytes"] > 1000).all()
        with pytest.raises(
            FileNotFoundError, match=r"no .parquet or .gpq or .geoparquet file at memory://nowhere"
        ):
            opened("memory://nowhere")
    finally:
        memory.rm("/store", recursive=True)


def test_lists_of_sources(folder):
    files = [folder / "0.parquet", str(folder / "1.parquet"), folder / "0.parquet"]
    assert opened(files).sizes["location"] == 240
    assert opened(files).attrs["source"].endswith("0.parquet and 1 more")


@given(
    middles=st.lists(st.integers(-20, 20), min_size=2, max_size=12),
    past=st.booleans(),
    covering=st.booleans(),
    box=st.tuples(st.integers(-20, 19), st.integers(1, 8)),
)
def test_rows_around_the_antimeridian_are_those_of_brute_force(
    tmp_path_factory, middles, past, covering, box
):
    """Footprints in two parts, or running on past 180, in small row groups with and without boxes of their own."""
    wests = 180 + np.array(middles) / 10 - 0.05
    east = wests + 0.1
    whole = [shapely.box(w, 0, e, 0.1) for w, e in zip(wests, east, strict=True)]
    shapes = [
        shape if past or e <= 180 else shapely.box(w - 360, 0, e - 360, 0.1) if w >= 180
        else shapely.MultiPolygon([shapely.box(w, 0, 180, 0.1), shapely.box(-180, 0, e - 360, 0.1)])
        for w, e, shape in zip(wests, east, whole, strict=True)
    ]  # fmt: skip
    table = gpd.GeoDataFrame(
        {"id": np.arange(len(shapes)), "embedding": [np.ones(DIMS, "f4")] * len(shapes)},
        geometry=shapes,
        crs=4326,
    )
    path = tmp_path_factory.mktemp("across") / "a.parquet"
    table.to_parquet(path, row_group_size=2, write_covering_bbox=covering, index=False)
    west = 180 + box[0] / 10 + 0.02
    asked = shapely.box(west, 0.02, west + box[1] / 10, 0.08)
    wanted = areas.parse_bbox(asked.bounds)
    expected = {i for i, shape in enumerate(whole) if shape.intersects(asked)}
    unique = {tuple(np.round([w], 6)): i for i, w in reversed(list(enumerate(wests)))}
    expected = {unique[tuple(np.round([wests[i]], 6))] for i in expected}
    if not expected:
        with pytest.raises(CoverageError):
            opened(path, bbox=wanted.bounds)
        return
    array = opened(path, bbox=wanted.bounds)
    assert set(array.coords["id"].values) == expected
    turned = np.where(array.coords["x"].values < 0, array.coords["x"].values + 360, array.coords["x"].values)
    np.testing.assert_allclose(turned, (wests + 0.05)[array.coords["id"].values], atol=1e-9)


@pytest.mark.parametrize(
    ("bbox", "near"),
    [((11.2, 45.2, 11.6, 45.6), {1}), ((-0.6, 45.2, 0.5, 45.6), {2, 3})],
)
def test_row_groups_are_looked_at_only_where_a_files_own_bounds_meet_the_area(
    tmp_path, monkeypatch, bbox, near
):
    """The second area crosses the meridian where one file counts from 0 and another to 360."""
    looked = []
    original = footers._Statistics.span
    monkeypatch.setattr(
        footers._Statistics, "span", lambda self, date: looked.append(self) or original(self, date)
    )
    tables = [frame(seed=i, west=west, spread=0.98) for i, west in enumerate((10.0, 11.0, 0.0, 359.0))]
    for i, table in enumerate(tables):
        table.to_parquet(tmp_path / f"{i}.parquet", row_group_size=60, index=False)
    found = opened(tmp_path, bbox=bbox)
    assert {each.partition("-")[0] for each in found.coords["id"].values} == set(map(str, near))
    assert len(looked) == 2 * len(near)
    with pytest.raises(CoverageError, match=r"its files lie in \(0.007, 45"):
        opened(tmp_path, bbox=(50, 50, 51, 51))
    assert len(looked) == 2 * len(near)


def _written(path, vectors, **columns):
    lon = 11 + np.arange(len(vectors)) / 100
    table = gpd.GeoDataFrame(columns, geometry=[shapely.box(x, 47, x + 0.003, 47.003) for x in lon], crs=4326)
    table.to_parquet(path)
    stored = pq.read_table(path).append_column("embedding", pa.array(vectors, pa.list_(pa.float32())))
    pq.write_table(stored, path)
    return path


def test_vectors_of_other_lengths_are_refused_though_their_sum_is_right(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(6, 384)).tolist()
    vectors[2], vectors[3] = vectors[2][:383], [*vectors[3], 1.0]
    with pytest.raises(SourceError, match="vectors have from 383 to 385 numbers"):
        gx.open("earth-index", _written(tmp_path / "a.parquet", vectors)).compute()


def test_a_vector_of_which_a_number_is_null_or_infinite_is_missing(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(6, 384)).astype("f4").tolist()
    vectors[1][3], vectors[2][5], vectors[4] = np.inf, None, None
    values = gx.open("earth-index", _written(tmp_path / "a.parquet", vectors)).values
    assert np.isnan(values).all(axis=1).tolist() == [False, True, True, False, True, False]
    assert np.isfinite(values[[0, 3, 5]]).all()
    vectors[4] = [0.0] * 384  # no row is null, so that numbers tell how long a vector is
    assert gx.open("earth-index", _written(tmp_path / "b.parquet", vectors)).shape == (6, 384)


def test_a_folder_called_like_a_file_is_its_files(tmp_path):
    folder = tmp_path / "data.parquet"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    vectors = np.random.default_rng(0).normal(size=(6, 384)).tolist()
    _written(folder / "part-00000.parquet", vectors)
    assert gx.open("earth-index", folder).sizes["location"] == 6


def test_columns_of_one_name_and_latitudes_beyond_the_poles_are_refused(tmp_path):
    path = _written(tmp_path / "a.parquet", np.ones((2, 384)).tolist())
    table = pq.read_table(path)
    pq.write_table(table.append_column("embedding", table["embedding"]), path)
    with pytest.raises(SourceError, match=r"two columns of one name, \['embedding'\]"):
        gx.open("earth-index", path)
    moved = gpd.read_parquet(_written(tmp_path / "b.parquet", np.ones((2, 384)).tolist()))
    moved.geometry = moved.geometry.translate(36, 143)
    moved.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"a latitude of 190.* degrees, where the Earth has 90"):
        gx.open("earth-index", tmp_path / "b.parquet")
