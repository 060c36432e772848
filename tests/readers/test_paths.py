"""Paths and the years in them: a path is a path whatever letters it has; a name goes before its folders."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr.core.errors import CoverageError, SourceError
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
