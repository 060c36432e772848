"""The command, as a user types it."""

import inspect
import json
import shutil

import numpy as np
import pytest
import rasterio

import geoemb_xr as gx
from geoemb_xr.command import MANIFEST, main
from geoemb_xr.testing import scene

BOX = ["--bbox", "11.36", "47.24", "11.375", "47.25"]


@pytest.fixture(scope="module")
def tiles():
    return str(gx.example("alphaearth"))


@pytest.fixture(scope="module")
def fetched(tiles, tmp_path_factory):
    path = tmp_path_factory.mktemp("fetched") / "aoi.zarr"
    assert (
        main(["fetch", "alphaearth", "--source", tiles, *BOX, "--time", "2018", "2024", "--to", str(path)])
        == 0
    )
    return path


def test_fetch_writes_a_store_that_opens_and_says_what_it_holds(fetched, tiles):
    found = gx.open(fetched, decode=False)
    bbox = tuple(float(v) for v in BOX[1:])
    expected = gx.open("alphaearth", tiles, bbox=bbox, time=[2018, 2024], decode=False)
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.dtype == np.int8
    manifest = json.loads((fetched / MANIFEST).read_text())
    assert manifest["years"] == [2018, 2024]
    assert manifest["shape"] == {"time": 2, "band": 64, "y": found.sizes["y"], "x": found.sizes["x"]}
    share = (expected.emb.decode().isel(band=0).notnull()).mean(["y", "x"]).values
    assert manifest["share with data"] == {
        "2018": round(float(share[0]), 6),
        "2024": round(float(share[1]), 6),
    }
    assert "Google" in manifest["attribution"]


def test_fetch_keeps_a_store_that_exists(fetched, tiles, capsys):
    before = (fetched / MANIFEST).read_text()
    assert main(["fetch", "alphaearth", "--source", tiles, *BOX, "--to", str(fetched)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (fetched / MANIFEST).read_text() == before


def test_fetch_goes_on_where_it_is_told_to_and_lists_what_could_not_be_read(tiles, tmp_path, capsys):
    copied = shutil.copytree(tiles, tmp_path / "tiles")
    for path in sorted((copied / "2024").rglob("*.tif*")):
        data = bytearray(path.read_bytes())  # what says where blocks lie is at its end
        first, last = len(data) // 8, len(data) * 7 // 8
        data[first:last] = b"\xa5" * (last - first)
        path.write_bytes(data)
    to = tmp_path / "aoi.zarr"
    command = [
        "fetch",
        "alphaearth",
        "--source",
        str(copied),
        *BOX,
        "--time",
        "2018",
        "2024",
        "--to",
        str(to),
    ]
    assert main(command) == 2
    assert not to.exists()
    assert ".tif" in capsys.readouterr().err
    assert main([*command, "--skip-unreadable"]) == 0
    manifest = json.loads((to / MANIFEST).read_text())
    assert {tuple(each["time"]) for each in manifest["could not be read"]} == {(1, 2)}
    assert ".tif" in manifest["could not be read"][0]["reason"]
    assert manifest["share with data"]["2018"] > manifest["share with data"]["2024"]


def test_map_from_labels_and_again_from_the_saved_probe(fetched, tmp_path, capsys):
    scene().points(200, year=2024, radius=600).drop(columns="year").to_csv(
        tmp_path / "labels.csv", index=False
    )
    first, again, probe = (str(tmp_path / name) for name in ("a.tif", "b.tif", "probe.npz"))
    labels = ["--labels", str(tmp_path / "labels.csv"), "--target", "land_cover"]
    assert main(["map", str(fetched), *labels, "--to", first, "--save-probe", probe]) == 0
    assert "held out, blocked: accuracy" in capsys.readouterr().out
    assert main(["map", str(fetched), "--probe", probe, "--to", again]) == 0
    with rasterio.open(first) as one, rasterio.open(again) as other:
        np.testing.assert_array_equal(one.read(), other.read())
        assert one.read().max() > 1
    assert main(["map", str(fetched), "--to", first]) == 2
    assert "--labels with --target, or from --probe" in capsys.readouterr().err


def test_check_says_what_is_wrong_by_its_status(fetched, tmp_path, capsys):
    assert main(["check", str(fetched)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("ok")
    wrong = gx.open(fetched).isel(time=0) * 0.5
    wrong.attrs = gx.open(fetched).attrs
    wrong.emb.to_zarr(tmp_path / "wrong.zarr")
    assert main(["check", str(tmp_path / "wrong.zarr")]) == 1
    assert "are not 1" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "none.zarr")]) == 2
    assert "no such store" in capsys.readouterr().err


def test_products_card_and_coverage_are_tables_of_text(tiles, capsys):
    assert main(["products"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in gx.products().index)
    assert main(["card", "gse"]) == 0  # an alias
    told = capsys.readouterr().out
    assert "AlphaEarth Foundations" in told
    assert "CC-BY-4.0" in told
    assert main(["coverage", "alphaearth", "--source", tiles, "--time", "2024"]) == 0
    assert "2024" in capsys.readouterr().out
    assert main(["card", "nope"]) == 2
    error = capsys.readouterr().err
    assert "unknown product 'nope'" in error
    assert "Traceback" not in error


def test_help_teaches_by_example_and_demo_is_the_demo(capsys):
    for part in ("products", "card", "coverage", "fetch", "map", "check"):
        with pytest.raises(SystemExit, match="0"):
            main([part, "--help"])
        assert f"geoemb {part}" in capsys.readouterr().out.partition("examples:")[2]
    with pytest.raises(SystemExit, match="0"):
        main(["demo", "--help"])
    assert "python -m geoemb_xr" in capsys.readouterr().out


def test_without_a_part_it_prints_its_help(capsys):
    assert main([]) == 2
    told = capsys.readouterr().out
    for part in ("products", "fetch", "map", "explore", "demo", "Start with"):
        assert part in told


def test_explore_serves_a_folder_and_each_page_has_figures_of_its_own(tiles, monkeypatch, capsys):
    from pathlib import Path

    import panel as pn

    served, known = {}, inspect.signature(pn.serve).parameters
    monkeypatch.setattr(pn, "serve", lambda panels, **options: served.update(options, make=panels))
    folder = str(Path(tiles).parent if Path(tiles).is_file() else tiles)
    assert main(["explore", folder, "--product", "alphaearth", "--no-browser", "--width", "900"]) == 0
    assert "Ctrl+C" in capsys.readouterr().out
    assert served["show"] is False
    assert set(served) - {"make"} <= set(known)  # others go to the server, which drops them without a word
    assert served["address"] == "localhost"  # a page for this machine, not for its network
    pages = [served["make"]() for _ in range(2)]
    assert pages[0] is not pages[1]
    assert pages[0].max_width in (899, 900)  # two maps of whole pixels
    assert main(["explore", "nowhere.zarr"]) == 2
    assert "no such store" in capsys.readouterr().err
