"""The demo, as a user runs it."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import rasterio

from geoemb_xr.__main__ import main


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    pytest.importorskip("matplotlib")
    out = tmp_path_factory.mktemp("demo")
    needless = "torch", "geopandas", "hvplot", "distributed", "zarr"
    code = f"import sys; from geoemb_xr.__main__ import main; status = main(['--out', {str(out)!r}]); " + (
        f"print([m for m in {needless} if m in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return out, done.stdout


def test_the_demo_makes_what_it_says(demo):
    out, printed = demo
    assert {p.name for p in out.iterdir()} >= {
        "pca.png",
        "change.png",
        "map.png",
        "map.tif",
        "aoa.png",
        "summary.json",
    }
    assert "alphaearth" in printed
    assert printed.rstrip().endswith("[]")  # it needs none of these
    summary = json.loads((out / "summary.json").read_text())
    assert summary["synthetic scene"] is True
    assert summary["attribution"]
    assert (
        0.9 < summary["map"]["agreement with the scene's truth"] < 0.98
    )  # as real maps, not without a mistake
    assert 0.78 < summary["map"]["held out"]["blocked"]["accuracy"] < 0.9
    assert sum(summary["map"]["share"].values()) == pytest.approx(1, abs=0.001)
    assert set(summary["map"]["held out"]) == {"blocked", "random"}
    assert "held out, blocked: accuracy 0." in printed
    assert summary["map"]["share inside the area of applicability"] > 0.9
    assert (
        0.85 < summary["change"]["true changes found"] < 0.95
    )  # one crop for another turns vectors too little
    assert summary["change"]["false alarms"] < 0.15


def test_the_map_is_a_cog_that_carries_its_attribution(demo):
    out, _ = demo
    with rasterio.open(out / "map.tif") as dataset:
        assert dataset.crs.to_epsg() == 3035
        assert dataset.nodata == 0
        assert dataset.count == 1
        assert dataset.colormap(1)[1][3] == 255
        assert "AlphaEarth" in " ".join(dataset.tags().values())
        assert set(np.unique(dataset.read(1))) <= set(range(7))


def test_it_runs_on_the_real_chip_with_real_points(real_data, tmp_path):
    """The points are elsewhere but bring their own vectors; the probe trained on them maps the chip."""
    chip = real_data / "alphaearth-raster" / "aef_wi_2024_int8_southup.tif"
    points = real_data / "alphaearth-points" / "alphaearth_s1_dw_samples_iowa_ag_2024.csv"
    args = ["--source", str(chip), "--labels", str(points), "--out", str(tmp_path)]
    assert main(args) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["map"]["target"] == "dw_label"  # the only column that repeats
    assert 0 < summary["map"]["share inside the area of applicability"] < 1
    assert summary["synthetic scene"] is False
    assert summary["years"] == [2024]
    assert sum(summary["map"]["share"].values()) == pytest.approx(1, abs=0.001)  # of what is mapped
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert (dataset.read(1) == 0).sum() == pytest.approx(238, abs=10)


def test_a_table_without_classes_is_one_clear_line(tmp_path, capsys):
    table = pd.DataFrame({"lon": [11.4, 11.41], "lat": [47.2, 47.21], "id": ["a", "b"]})
    table.to_csv(tmp_path / "labels.csv", index=False)
    args = ["--time", "2024", "--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "out")]
    assert main(args) == 2
    assert "no column of the labels repeats, as classes do" in capsys.readouterr().err


def test_labels_on_the_map(tmp_path, monkeypatch):
    from geoemb_xr.testing import scene

    titles = []
    monkeypatch.setattr(
        "geoemb_xr.__main__._save", lambda array, path, title, synthetic: titles.append(title)
    )
    table = scene().points(60, year=2024).drop(columns="year")
    table.loc[:9, "lon"] = 0.0  # far away
    table.to_csv(tmp_path / "labels.csv", index=False)
    args = [
        "--labels",
        str(tmp_path / "labels.csv"),
        "--time",
        "2018",
        "2024",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(args) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["years"] == [2018, 2024]
    used = summary["map"]["points used"]
    assert 40 < used <= 50 < summary["map"]["labelled points"] == 60
    assert titles[2:] == [f"land_cover from {used} points", "Area of applicability: where the labels apply"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--product", "nope"], "unknown product 'nope'"),
        (["--source", "missing.tif"], "no such file"),
        (["--bbox", "0", "0", "1", "1"], "does not cover"),
        (["--time", "2019"], "2018, 2020, 2022, 2024"),
        (["--crs", "EPSG:99999"], "--crs: not a CRS"),
        (["--labels", "missing.csv"], "No such file"),
    ],
)
def test_bad_input_is_one_clear_line(args, says, capsys, tmp_path):
    assert main([*args, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
