"""Containers: what they read, what they refuse, and that nothing in a file is trusted."""

import json
import pickle

import numpy as np
import pytest
import rasterio
import zarr
from affine import Affine

from geoemb_xr import testing
from geoemb_xr.core import areas, geometry
from geoemb_xr.core.errors import CoverageError, SourceError
from geoemb_xr.readers import geotiff, npy, zarr_nodes
from geoemb_xr.readers import zarr as zarr_store
from geoemb_xr.stores import files, index, objects, paths
from geoemb_xr.stores.storage import Storage, using

WINDOW = (slice(3, 9), slice(2, 13))


@pytest.fixture
def grid():
    return testing.geobox((20, 30))


# --- GeoTIFF ------------------------------------------------------------------------------------------------


def test_geotiff_windows_are_rasterios(tmp_path, grid):
    data = np.random.default_rng(0).integers(-128, 128, (5, 20, 30)).astype(np.int8)
    path = geotiff.write_geotiff(tmp_path / "a" / "x.tif", data, grid, nodata=-128, tags={"K": "v"})
    info = geotiff.read_info(path)
    assert (info.count, info.dtype, info.nodata, info.tags["K"]) == (5, "int8", -128, "v")
    assert geometry.same_grid(info.geobox, grid)
    reader = geotiff.GeoTiffReader(str(path), (2, 4), token=info.token)
    np.testing.assert_array_equal(reader.read(0, *WINDOW), data[[1, 3], 3:9, 2:13])
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(reader)).read(0, *WINDOW), reader.read(0, *WINDOW)
    )
    plane = geotiff.GeoTiffReader(str(path), (3,), plane=True)
    np.testing.assert_array_equal(plane.read(7, *WINDOW), data[2, 3:9, 2:13])
    months = geotiff.GeoTiffReader(str(path), (1, 2, 3), by_time=True)
    np.testing.assert_array_equal(months.read(2, *WINDOW), data[2:3, 3:9, 2:13])


def test_a_rewritten_geotiff_is_read_anew(tmp_path, grid):
    path = tmp_path / "x.tif"
    geotiff.write_geotiff(path, np.zeros((1, 20, 30), np.int8), grid)
    first = geotiff.GeoTiffReader(str(path), (1,), token=geotiff.file_token(str(path)))
    assert first.read(0, *WINDOW).max() == 0
    geotiff.write_geotiff(path, np.ones((1, 20, 30), np.int8), grid, compress="zstd")
    second = geotiff.GeoTiffReader(str(path), (1,), token=geotiff.file_token(str(path)))
    assert second.read(0, *WINDOW).min() == 1


def test_geotiffs_that_are_refused(tmp_path, grid):
    with pytest.raises(FileNotFoundError, match=r"nothing\.tif"):
        geotiff.read_info(tmp_path / "nothing.tif")
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0 and nothing more")
    with pytest.raises(SourceError, match=r"broken\.tif could not be opened"):
        geotiff.read_info(broken)
    bare = tmp_path / "bare.tif"
    profile = {"driver": "GTiff", "count": 1, "height": 2, "width": 2, "dtype": "uint8"}
    with rasterio.open(bare, "w", **profile, transform=Affine(10, 0, 0, 0, -10, 0)) as file:
        file.write(np.ones((1, 2, 2), np.uint8))
    with pytest.raises(SourceError, match=r"bare\.tif has no CRS"):
        geotiff.read_info(bare)
    info = geotiff.read_info(geotiff.write_geotiff(tmp_path / "x.tif", np.zeros((2, 20, 30), "u2"), grid))
    with pytest.raises(SourceError, match=r"x\.tif has 2 bands; a file of 'p' has 3"):
        geotiff.check_bands(info, "p", ("0", "1", "2"), ("uint16",))
    with pytest.raises(SourceError, match="holds uint16; a file of 'p' holds int8 or float32"):
        geotiff.check_bands(info, "p", ("0", "1"), ("int8", "float32"))


# --- npy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["local", "remote"])
def test_npy_windows_are_numpys(tmp_path, where):
    data = np.random.default_rng(1).integers(-128, 128, (20, 30, 16)).astype(np.int8)
    np.save(tmp_path / "codes.npy", data)
    np.save(tmp_path / "plane.npy", data[..., 0].astype(np.float32))
    root = str(tmp_path) if where == "local" else tmp_path.as_uri()
    codes = npy.NpyReader(f"{root}/codes.npy", data.shape, "int8")
    window = pickle.loads(pickle.dumps(codes)).read(0, *WINDOW)
    np.testing.assert_array_equal(window, np.moveaxis(data[3:9, 2:13], -1, 0))
    plane = npy.NpyReader(f"{root}/plane.npy", data.shape[:2], "float32")
    np.testing.assert_array_equal(plane.read(0, *WINDOW), data[3:9, 2:13, 0])


@pytest.mark.parametrize("where", ["local", "remote"])
def test_npy_files_that_are_not_as_promised(tmp_path, where):
    np.save(tmp_path / "a.npy", np.zeros((4, 5, 6), np.int8))
    name = f"{tmp_path if where == 'local' else tmp_path.as_uri()}/a.npy"
    with pytest.raises(SourceError, match=r"a\.npy has shape \(4, 5, 6\) instead of \(4, 5, 7\)"):
        npy.NpyReader(name, (4, 5, 7), "int8").read(0, slice(0, 1), slice(0, 1))
    with pytest.raises(SourceError, match=r"a\.npy holds int8 instead of float32"):
        npy.NpyReader(name, (4, 5, 6), "float32").read(0, slice(0, 1), slice(0, 1))


def test_npy_headers_that_are_refused(tmp_path):
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(SourceError, match=r"objects\.npy holds pickled objects"):
        npy.read_header(objects)
    columns = tmp_path / "columns.npy"
    np.save(columns, np.asfortranarray(np.zeros((3, 4))))
    with pytest.raises(SourceError, match="column by column"):
        npy.read_header(columns)
    text = tmp_path / "text.npy"
    text.write_text("not an array")
    with pytest.raises(SourceError, match=r"text\.npy is not a \.npy file"):
        npy.read_header(text)
    with pytest.raises(FileNotFoundError, match=r"nothing\.npy"):
        npy.read_header(tmp_path / "nothing.npy")


def test_a_truncated_npy_is_an_error_before_memory_is_taken(tmp_path):
    path = tmp_path / "short.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.int8, shape=(10, 10, 128))
    with open(path, "r+b") as file:
        file.truncate(5_000)
    with pytest.raises(
        SourceError, match=r"short\.npy is truncated: its header promises 12928 bytes, it has 5000"
    ):
        npy.read_header(path)
    with pytest.raises(SourceError, match=r"short\.npy is truncated"):
        npy.NpyReader(path.as_uri(), (10, 10, 128), "int8").read(0, slice(2, 4), slice(0, 10))
    huge = tmp_path / "huge.npy"
    header = "{'descr': '|i1', 'fortran_order': False, 'shape': (1000000, 1000000, 128), }".ljust(117) + "\n"
    huge.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    with pytest.raises(SourceError, match=r"huge\.npy is truncated: its header promises 128000000000128"):
        npy.read_header(huge)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_windows_are_numpys(tmp_path, save):
    data = np.random.default_rng(2).standard_normal((20, 30, 16)).astype(np.float32)
    path = tmp_path / "a.npz"
    save(path, arr_0=data)
    info = npy.read_npz_header(path, "arr_0")
    assert info.shape == data.shape
    reader = pickle.loads(pickle.dumps(npy.NpzReader(str(path), "arr_0", info)))
    np.testing.assert_array_equal(reader.read(0, *WINDOW), np.moveaxis(data[3:9, 2:13], -1, 0))


def test_npz_that_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, other=np.zeros(3))
    with pytest.raises(SourceError, match="has no array 'arr_0'; it has"):
        npy.read_npz_header(path, "arr_0")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SourceError, match=r"a\.npz is not a \.npz archive, or is truncated"):
        npy.read_npz_header(path, "arr_0")
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz"):
        npy.read_npz_header(tmp_path / "nothing.npz", "arr_0")


# --- Zarr ---------------------------------------------------------------------------------------------------

PLACE = {"proj:code": "EPSG:32632", "spatial:transform": [10.0, 0, 500_000, 0, -10, 5_000_000]}


@pytest.fixture
def store(tmp_path):
    """A store with steps 0 and 2 of four written, axes in an unusual order."""
    root = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=3)
    root.attrs.update(PLACE)
    array = root.create_array(
        "embeddings",
        shape=(4, 20, 30, 6),
        chunks=(1, 5, 5, 6),
        dtype="int8",
        fill_value=-1,
        dimension_names=("time", "northing", "easting", "embedding"),
    )
    data = np.random.default_rng(3).integers(0, 100, (4, 20, 30, 6)).astype(np.int8)
    array[0], array[2] = data[0], data[2]
    root.create_array("time", shape=(4,), dtype="int32", dimension_names=("time",))[:] = np.arange(2019, 2023)
    return tmp_path / "s.zarr", data


@pytest.mark.parametrize("where", ["local", "remote"])
def test_zarr_windows_and_written_steps(store, where):
    path, data = store
    url = str(path) if where == "local" else path.as_uri()
    root = zarr_nodes.open_node(url)
    tile = zarr_store.zarr_tile(
        url,
        "embeddings",
        bands=("a", "b", "c", "d"),
        attrs=zarr_store.find_attrs(root["embeddings"], root),
        times=zarr_store.years_of(root, 4, url)[1:],
        steps=(1, 2, 3),
    )
    assert tile.times == ("2020-01-01", "2021-01-01", "2022-01-01")
    assert (tile.fill, tile.block, tile.dtype) == (-1, (5, 5), "int8")
    assert tuple(tile.geobox.affine)[:6] == (10, 0, 500_000, 0, -10, 5_000_000)
    window = pickle.loads(pickle.dumps(tile)).reader.read(1, *WINDOW)
    np.testing.assert_array_equal(window, np.moveaxis(data[2, 3:9, 2:13, :4], -1, 0))
    assert zarr_store.written_steps(url, "embeddings") == {0, 2}


def test_registration_on_nodes_is_half_a_pixel_off():
    box = zarr_store.geobox_from_attrs({**PLACE, "spatial:registration": "node"}, (4, 5), "s")
    assert (box.affine.c, box.affine.f) == (499_995, 5_000_005)


def test_zarr_stores_that_are_refused(tmp_path, store):
    path, _ = store
    with pytest.raises(FileNotFoundError, match="no such store"):
        zarr_nodes.open_node(str(tmp_path / "nothing.zarr"))
    with pytest.raises(SourceError, match="has no 'nothing'"):
        zarr_nodes.open_node(str(path), "nothing")
    with pytest.raises(SourceError, match="does not say where it lies: spatial:transform missing"):
        zarr_store.geobox_from_attrs({"proj:code": "EPSG:4326"}, (2, 2), "s")
    with pytest.raises(SourceError, match="has 6 bands instead of 8"):
        zarr_store.zarr_tile(str(path), "embeddings", bands=BANDS, attrs=PLACE, times=["2019-01-01"])
    root = zarr.open_group(path, mode="r")
    with pytest.raises(SourceError, match="has 9 time steps but 4 times"):
        zarr_store.years_of(root, 9, "s")
    with pytest.raises(SourceError, match="has no band axis"):
        zarr_store.zarr_tile(str(path), "time", bands=BANDS, attrs=PLACE, times=["2019-01-01"])


BANDS = tuple("abcdefgh")


# --- indexes ------------------------------------------------------------------------------------------------

BBOX = ("west", "south", "east", "north")


@pytest.fixture
def table(tmp_path):
    """A table of 0.1° tiles of two years, sorted as published ones are, in row groups of 500."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    lon, lat = (a.ravel() for a in np.meshgrid(np.arange(0, 10, 0.1), np.arange(40, 50, 0.1)))
    years = np.repeat([2020, 2021], lon.size)
    lon, lat = np.tile(lon, 2), np.tile(lat, 2)
    lon = np.append(lon, 179.95)
    rows = {
        "path": [f"{i}.tiff" for i in range(lon.size)],
        "year": np.append(years, 2021),
        "west": lon,
        "south": np.append(lat, 40.0),
        "east": np.append(lon[:-1] + 0.1, -179.95),
        "north": np.append(lat, 40.0) + 0.1,
    }
    path = tmp_path / "index.parquet"
    parquet.write_table(pa.table(rows), path, row_group_size=500)
    return path


def read(url, bbox, **options):
    area = areas.parse_bbox(bbox) if bbox is not None else None
    return index.read_index(
        str(url), columns=["path"], area=area, bbox=BBOX, **{"time": None, "year": "year", **options}
    )


def test_an_index_gives_the_rows_that_touch(table):
    rows = read(table, (3.02, 44.01, 3.38, 44.09))
    assert len(rows) == 8
    assert set(rows["year"]) == {2020, 2021}
    assert rows["west"].min() == pytest.approx(3.0)
    assert len(read(table, (3.02, 44.01, 3.38, 44.09), time=2021)) == 4
    assert len(read(table, None)) == 20_001


def test_an_index_reads_only_the_row_groups_that_may_touch(table, monkeypatch):
    groups = []
    whole = index._IndexFile.read
    monkeypatch.setattr(
        index._IndexFile,
        "read",
        lambda self, group, wanted: groups.append(group) or whole(self, group, wanted),
    )
    read(table, (3.02, 44.01, 3.38, 44.09))
    assert 2 <= len(groups) <= 5  # of 41: one or two a year, and the one whose tile crosses the antimeridian


def test_an_index_across_the_antimeridian(table):
    assert len(read(table, (179.9, 40.0, -179.9, 40.05))) == 1
    assert len(read(table, (-179.99, 40.0, -179.96, 40.05))) == 1


def test_an_index_of_centres_is_widened(table):
    rows = index.read_index(
        str(table),
        columns=["path"],
        area=areas.parse_bbox((3.02, 44.03, 3.04, 44.04)),
        bbox=("west", "south", "west", "south"),
        margin=0.05,
        time=2020,
        year="year",
    )
    assert rows[["west", "south"]].to_numpy() == pytest.approx(np.array([[3.0, 44.0]]))


def test_what_an_index_refuses(table):
    with pytest.raises(CoverageError, match="no tile touches"):
        read(table, (-60, -20, -59, -19))
    with pytest.raises(CoverageError, match="2020"):
        read(table, (3.02, 44.01, 3.38, 44.09), time=2030)
    with pytest.raises(SourceError, match=r"has no columns \['volume'\]"):
        read(table, None, year="volume")


def test_a_remote_index_is_read_once(table, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOEMB_CACHE", str(tmp_path / "cache"))
    url, bbox = table.as_uri(), (3.02, 44.01, 3.38, 44.09)
    first = read(url, bbox)
    kept = sorted((tmp_path / "cache").rglob("*.feather"))
    assert 2 <= len(kept) <= 5
    monkeypatch.setattr("pyarrow.parquet.ParquetFile.read_row_group", None)  # the second time nothing is read
    assert read(url, bbox).equals(first)
    monkeypatch.undo()
    monkeypatch.setenv("GEOEMB_CACHE", str(tmp_path / "cache"))
    table.write_bytes(table.read_bytes() + b"")  # rewritten: another modification time, another folder
    import os

    os.utime(table, (1, 1))
    assert read(url, bbox).equals(first)
    assert len({file.parent for file in (tmp_path / "cache").rglob("*.feather")}) == 2


# --- paths --------------------------------------------------------------------------------------------------


def test_sources_become_files(tmp_path):
    names = ["b.tif", "a.tiff", "note.txt", "2024/c.TIF"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [p.removeprefix(f"{tmp_path}/") for p in paths.expand(tmp_path, (".tif", ".tiff"))]
    assert found == ["2024/c.TIF", "a.tiff", "b.tif"]
    assert paths.expand(str(tmp_path / "*.tif"), (".tif",)) == [str(tmp_path / "b.tif")]
    both = [tmp_path / "b.tif", str(tmp_path / "*.tif")]
    assert paths.expand(both, (".tif",)) == [str(tmp_path / "b.tif")]
    assert paths.expand("s3://bucket/x.tif", (".tif",)) == ["s3://bucket/x.tif"]
    with pytest.raises(FileNotFoundError, match=r"no \.gpq file in"):
        paths.expand(tmp_path, (".gpq",))
    with pytest.raises(FileNotFoundError, match="no such file, folder or match"):
        paths.expand(str(tmp_path / "*.nothing"), (".tif",))
    with pytest.raises(SourceError, match="a source is a path"):
        paths.expand(7, (".tif",))


@pytest.mark.parametrize("name", ["../x.tif", "/etc/passwd", "a/../../x", "a\0b"])
def test_an_index_cannot_lead_outside(tmp_path, name):
    with pytest.raises(SourceError, match="names a path outside it"):
        paths.inside(tmp_path, name)


def test_sidecars(tmp_path):
    file = tmp_path / "a.npz"
    assert paths.sidecar_version(file) == ""
    paths.write_sidecar(file, "v9")
    assert paths.sidecar_version(file) == "v9"
    (tmp_path / "a.json").write_text(json.dumps(["v9"]))
    with pytest.raises(SourceError, match=r"a\.json does not say 'version'"):
        paths.sidecar_version(file)


def test_the_cache_is_where_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOEMB_CACHE", str(tmp_path / "c"))
    assert paths.cache_dir() == tmp_path / "c"
    monkeypatch.setenv("GEOEMB_CACHE", "/proc/nothing")
    assert paths.cache_dir().name == "geoemb_xr"


def test_remote_ranges(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(range(200)))
    url = f"{tmp_path.as_uri()}/a.bin"
    assert objects.is_remote(url)
    assert objects.fetch(url, 10, 15).data == bytes(range(10, 15))
    assert files.ObjectFile(url).read(3) == bytes(range(3))
    assert objects.head_object(url).startswith("200-")


def test_a_south_up_window_of_a_tile(tmp_path):
    grid = geometry.make_geobox((20, 30), Affine(10, 0, 0, 0, 10, 0), "EPSG:32632")
    data = np.arange(600, dtype=np.float32).reshape(1, 20, 30)
    info = geotiff.read_info(geotiff.write_geotiff(tmp_path / "x.tif", data, grid))
    tile = geotiff.geotiff_tile(info, times=["2020-01-01"], bands=["a"])
    assert np.isnan(tile.fill)
    np.testing.assert_array_equal(tile.reader.read(0, *WINDOW), data[:, 3:9, 2:13])


def test_an_object_that_cannot_be_read_is_named_in_one_line(tmp_path, monkeypatch):
    from geoemb_xr.stores import objects

    url = f"file://{tmp_path}/missing.parquet"
    with pytest.raises(FileNotFoundError, match=r"no such object: file.*missing\.parquet"):
        objects.fetch(url, 0, 1)

    import obstore

    def unreachable(*args, **kwargs):
        raise obstore.exceptions.GenericError("no route\nand a page of details")

    monkeypatch.setattr(obstore, "head", unreachable)
    with (
        pytest.raises(
            SourceError,
            match=r"missing\.parquet could not be read: GenericError: no route, .*Is there a network",
        ),
        using(Storage(timeout=0.1)),
    ):
        objects.head_object(url)
