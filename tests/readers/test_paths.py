"""Paths and the years in them: a path is a path whatever letters it has; a name goes before its folders."""

import functools
import os
import pickle
import shutil

import geopandas
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr.core.errors import CoverageError, EmbeddingError, SourceError
from geoemb_xr.readers import geotiff
from geoemb_xr.stores import paths

ODD = ["a b", "run#2", "what?", "100%", "a%20b", "[1]", "a&b=c", "x;y", "käse"]


# --- years ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "year"),
    [
        ("annual/2024/10N/x-0000000000-0000000000.tiff", 2024),
        ("grid_0.15_52.05_2021.tiff", 2021),
        ("2019/x_2020.tif", 2020),
        ("2025/aef_2018.tif", 2018),
        ("aef_2023_2048px.tif", 2023),
        ("aef_2023_2048.tif", 2023),
        ("aef_2023_2019px.tif", 2023),
        ("2020/aef2021.tif", 2021),
        ("2019/aef_2019_exported_2025.tif", 2019),
        ("year=2020/x_v2025_06_19-0000002048.tif", 2020),
        ("2020/x_51.2021_7.tif", 2020),
        ("C:\\data\\2020\\x.tif", 2020),
        ("2018/2020/x.tif", 2020),
        ("1990/2018/1985.tif", 2018),
    ],
)
def test_years_of_files(path, year):
    assert paths.year_of_file(path, "2017–2025*") == year


@pytest.mark.parametrize("path", ["somewhere/x_20200101.tif", "x.tif", "area_1999.tif", "2048/x.tif"])
def test_a_file_without_a_year_says_how_to_say_it_and_is_opened_so(path):
    with pytest.raises(
        SourceError, match=r"does not say its year \(of 2017 to 20\d\d\); say it: time=2024, or"
    ):
        paths.year_of_file(path, "2017–2025")
    with pytest.raises(SourceError, match="time=2024, one year only"):
        paths.year_of_file(path, "2017–2025", time=[2018, 2020])
    for time in (2020, "2020-05", [2020], slice("2020-02", "2020-03"), np.datetime64("2020-01-01")):
        assert paths.year_of_file(path, "2017–2025", time) == 2020


def test_a_name_with_several_years_is_refused_unless_one_is_asked_for():
    with pytest.raises(
        SourceError, match=r"names several years, 2019 and 2025; say which is its own: time=2019"
    ):
        paths.year_of_file("aef_2019_exported_2025.tif")
    assert paths.year_of_file("aef_2019_exported_2025.tif", time=2019) == 2019
    with pytest.raises(SourceError, match="names several years"):
        paths.year_of_file("aef_2019_exported_2025.tif", time=2020)


@given(st.integers(2017, 2024), st.text("abc_-.", max_size=8), st.text("_-.", min_size=1, max_size=3))
def test_a_year_in_a_name_is_found_beside_anything_but_digits_and_letters(year, before, after):
    assert paths.year_of_file(f"2016/{before}{year}{after}tif", "2016–2025") == year


def write(path, *, value=5, offset=0):
    grid = gx.testing.geobox((6, 7), offset=(offset, 0))
    return geotiff.write_geotiff(path, np.full((64, 6, 7), value, "i1"), grid, nodata=-128)


def test_files_of_two_years_in_a_folder_named_like_a_third(tmp_path):
    for year in (2018, 2024):
        write(tmp_path / "2025" / f"aef_{year}.tif", value=year - 2000)
    opened = gx.open("alphaearth", tmp_path / "2025", decode=False)
    assert opened["time"].dt.year.values.tolist() == [2018, 2024]
    assert opened.values[:, 0, 0, 0].tolist() == [18, 24]


def test_a_file_without_a_year_is_opened_with_one(tmp_path):
    path = write(tmp_path / "area.tif")
    opened = gx.open("alphaearth", path, time=2021, decode=False)
    assert opened["time"].dt.year.values.tolist() == [2021]
    with pytest.raises(SourceError, match=r"area\.tif does not say its year"):
        gx.open("alphaearth", path)
    write(tmp_path / "area_2020.tif", offset=70)
    with pytest.raises(CoverageError, match="2020"):  # a name that says another year is believed
        gx.open("alphaearth", tmp_path / "area_2020.tif", time=2021)


def test_two_files_of_one_year_place_and_grid_are_an_error_that_names_both(tmp_path):
    write(tmp_path / "a_2020.tif")
    shutil.copy(tmp_path / "a_2020.tif", tmp_path / "b_2020.tif")
    with pytest.raises(SourceError, match=r"a_2020\.tif and .*b_2020\.tif both hold 2020-01-01 on one grid"):
        gx.open("alphaearth", tmp_path)
    assert gx.open("alphaearth", [tmp_path / "b_2020.tif"]).sizes["time"] == 1
    shutil.move(tmp_path / "b_2020.tif", tmp_path / "b_2021.tif")
    assert gx.open("alphaearth", tmp_path).sizes["time"] == 2


# --- letters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD)
def test_local_paths_are_never_parsed_as_urls(tmp_path, name):
    codes = gx.testing.synthetic("alphaearth", shape=(6, 7), decode=False)
    folder = tmp_path / name
    (tmp_path / "run").mkdir()
    codes.to_zarr(
        tmp_path / "run" / "o.zarr", consolidated=False
    )  # what "run#2/o.zarr" must not be taken for
    moved = folder / "o.zarr"
    folder.mkdir()
    shutil.move(tmp_path / "run" / "o.zarr", moved)
    write(folder / "2024" / f"{name}.tif")
    sources = {
        moved: codes.values,
        folder / "2024" / f"{name}.tif": np.full((1, 64, 6, 7), 5),
    }
    for path, expected in sources.items():
        product = [] if path == moved else ["alphaearth"]
        for source in (path, str(path), path.as_uri()):
            np.testing.assert_array_equal(gx.open(*product, source, decode=False).values, expected)
    for source in (
        folder / "2024",
        f"{folder}/2024/*.tif",
        f"{folder}/**/*.tif",
        [(folder / "2024").as_uri()],
    ):
        assert gx.open("alphaearth", source, decode=False).shape == (1, 64, 6, 7)


def test_a_store_needs_no_ending(tmp_path, monkeypatch):
    gx.testing.synthetic("alphaearth", shape=(6, 7)).emb.to_zarr(tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    assert gx.open("store").identical(gx.open(tmp_path / "store"))


#: What writes a file or store, and what reads it.
FILES = {
    "store.ZARR": (lambda p: codes().emb.to_zarr(p), gx.open),
    "cog_2018.TIF": (lambda p: codes().emb.to_cog(p), lambda p: gx.open("alphaearth", p)),
    "points.PARQUET": (lambda p: points().emb.to_geoparquet(p), lambda p: gx.open("alphaearth", p)),
    "pca.npz": (lambda p: codes().emb.fit_pca(1).save(p), gx.load_model),
    "pca.onnx": (lambda p: codes().emb.fit_pca(1).to_onnx(p), gx.load_model),
    "sketch.npz": (lambda p: gx.build_sketch(codes(), p), lambda p: codes().emb.search(points(), 1, sketch=p)),
}  # fmt: skip
#: What is written by others.
TABLES = {
    "table.CSV": lambda frame, p: frame.to_csv(p),
    "table.PARQUET": lambda frame, p: frame.to_parquet(p),
    "table.GEOJSON": lambda frame, p: geopandas.GeoDataFrame(
        frame.drop(columns=["lon", "lat"]), geometry=geopandas.points_from_xy(frame.lon, frame.lat, crs=4326)
    ).to_file(p, driver="GeoJSON"),
}


@functools.cache
def codes():
    return gx.testing.synthetic("alphaearth", shape=(6, 7)).emb.year(2018)


def points():
    return codes().emb.sample(gx.testing.scene().points(3, radius=20)[["lon", "lat"]])


def spelled(path, spelling, monkeypatch):
    """A path, or what stands for it."""
    if spelling == "home":
        monkeypatch.setenv("HOME", str(path.parent))
        return f"~/{path.name}"
    if spelling == "link":
        link = path.parent.parent / "link"
        link.symlink_to(path.parent)
        return link / path.name
    return path.as_uri()


@pytest.mark.parametrize("spelling", ["home", "link", "uri"])
@pytest.mark.parametrize("name", FILES)
def test_what_is_written_lies_where_it_was_said_and_is_read_there(tmp_path, name, spelling, monkeypatch):
    if name.endswith(".onnx"):
        pytest.importorskip("onnx")
    path = tmp_path / "run #2" / name
    path.parent.mkdir()
    write_it, read_it = FILES[name]
    given = spelled(path, spelling, monkeypatch)
    write_it(given)
    assert path.exists()
    assert read_it(given) is not None
    assert {each.name for each in path.parent.iterdir()} == {name}


@pytest.mark.parametrize("spelling", ["home", "link", "uri"])
@pytest.mark.parametrize("name", TABLES)
def test_tables_are_read_from_where_they_lie(tmp_path, name, spelling, monkeypatch):
    path = tmp_path / "run #2" / name
    path.parent.mkdir()
    TABLES[name](points().emb.decode().emb.to_dataframe().drop(columns=["x", "y"]), path)
    given = spelled(path, spelling, monkeypatch)
    assert gx.open("alphaearth", given).sizes == {"location": 3, "band": 64}
    assert codes().emb.sample(given).sizes["location"] == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda path: gx.open(path),
        lambda path: gx.open("alphaearth", path),
        lambda path: gx.open("tessera", path),
        lambda path: gx.open("clay-v0", path),
        lambda path: gx.load_model(path),
        lambda path: codes().emb.sample(path),
        lambda path: codes().emb.crop(path),
        lambda path: codes().emb.fit_probe(path),
        lambda path: codes().emb.search(points(), 1, sketch=path),
        lambda path: codes().emb.to_zarr(f"{path}/a.zarr"),
    ],
)
@pytest.mark.parametrize("ending", [".zarr", ".tif", ".parquet", ".csv", ".npz"])
def test_what_is_not_there_is_named_by_an_error_of_ours(tmp_path, call, ending):
    with pytest.raises(EmbeddingError, match="nowhere") as caught:
        call(str(tmp_path / f"nowhere{ending}"))
    assert isinstance(caught.value, FileNotFoundError | SourceError)


@pytest.mark.parametrize("given", [5, True, {1}, [None], np.zeros((3, 2)), [np.zeros(3)], {"type": "Point"}])
def test_what_is_no_source_is_refused_in_words(given):
    with pytest.raises(SourceError, match="source"):
        gx.open("alphaearth", given)


def test_a_folder_is_no_model(tmp_path):
    with pytest.raises(SourceError, match="is a folder, not the file of a model"):
        gx.load_model(tmp_path)


def test_open_files_and_bytes_are_no_lists_of_sources(tmp_path):
    path = tmp_path / "2024.tif"
    path.write_bytes(b"")
    with path.open("rb") as file, pytest.raises(SourceError, match=r"a source is a path.*BufferedReader"):
        gx.open("alphaearth", file)
    with pytest.raises(SourceError, match=r"a source is a path.*got b'"):
        gx.open("alphaearth", bytes(path))


def test_hidden_files_of_a_folder_are_left_alone(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("b.tif", "a/c.TIF", "a/._c.tif", ".d.tif", "e.txt"):
        (tmp_path / name).write_bytes(b"")
    assert paths.expand(tmp_path, (".tif",)) == [str(tmp_path / "a" / "c.TIF"), str(tmp_path / "b.tif")]


def test_a_link_to_a_file_that_is_lost_is_an_error_and_no_hole(tmp_path):
    several_tifs(tmp_path)
    (tmp_path / "a_2020.tif").symlink_to(tmp_path / "lost.tif")
    with pytest.raises(FileNotFoundError, match=r"a_2020\.tif"):
        gx.open("alphaearth", tmp_path)


def several_tifs(folder):
    whole = gx.testing.synthetic("alphaearth", shape=(6, 7), years=[2018, 2019])
    return [str(whole.emb.year(year).emb.to_cog(folder / f"a_{year}.tif")) for year in (2018, 2019)]


@pytest.mark.parametrize(
    "form", [iter, set, tuple, pd.Series, pd.Index, np.array, lambda them: dict.fromkeys(them).keys()]
)
def test_several_sources_come_in_any_form(tmp_path, form):
    files = several_tifs(tmp_path)
    assert gx.open("alphaearth", form(files)).time.dt.year.values.tolist() == [2018, 2019]
    assert gx.open("alphaearth", tmp_path.glob("*.tif")).sizes["time"] == 2


def test_a_relative_path_is_read_from_another_folder_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    several_tifs(tmp_path)
    codes().emb.to_zarr("a.zarr")
    points().emb.to_geoparquet("p.parquet")
    calls = [("alphaearth", "a_2018.tif"), ("alphaearth", ["a_2018.tif"]), ("alphaearth", "*.tif")]
    calls += [
        ("a.zarr",),
        ("alphaearth", "./a.zarr"),
        ("p.parquet",),
        (tmp_path.relative_to(tmp_path) / "a.zarr",),
    ]
    opened = [gx.open(*call) for call in calls]
    want = [each.values for each in opened]
    opened = [pickle.dumps(gx.open(*call)) for call in calls]
    monkeypatch.chdir("/")
    for each, values in zip(opened, want, strict=True):
        np.testing.assert_array_equal(pickle.loads(each).values, values)


def test_an_empty_text_is_not_all_that_lies_here(tmp_path, monkeypatch):
    several_tifs(tmp_path)
    monkeypatch.chdir(tmp_path)
    for nothing in ("", [""]):
        with pytest.raises(SourceError, match="the source is an empty text"):
            gx.open("alphaearth", nothing)


def test_a_pipe_is_not_waited_for(tmp_path):
    pipes = [tmp_path / f"a_2018{ending}" for ending in (".tif", ".npz", ".csv")]
    for pipe in pipes:
        os.mkfifo(pipe)
    calls = [functools.partial(gx.open, "alphaearth"), gx.load_model, codes().emb.sample]
    for call, pipe in [*zip(calls, pipes, strict=True), (gx.open, pipes[0])]:
        with pytest.raises(SourceError, match="is a pipe or a device"):
            call(pipe)
    with pytest.raises(FileNotFoundError, match=r"no \.tif or \.tiff file"):
        gx.open("alphaearth", tmp_path)


def test_the_home_of_nobody_is_named():
    with pytest.raises(SourceError, match="the home of a user whom this machine does not know"):
        gx.open("alphaearth", "~nobody-of-this-name/a_2018.tif")


def test_a_file_with_a_slash_behind_it_is_that_file(tmp_path):
    assert gx.open("alphaearth", several_tifs(tmp_path)[0] + "/").sizes["band"] == 64


def test_names_that_are_not_utf_8_are_read_where_they_can_be(tmp_path):
    odd = tmp_path / os.fsdecode(b"k\xe4se.parquet")
    points().emb.to_geoparquet(odd)
    assert gx.open(odd).sizes["location"] == 3
    shutil.copy(several_tifs(tmp_path)[0], odd := tmp_path / os.fsdecode(b"k\xe4se_2018.tif"))
    with pytest.raises(SourceError, match="is no text in UTF-8, as GDAL needs it; give it another name"):
        gx.open("alphaearth", odd)
