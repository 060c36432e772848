"""Field kits: a script with NumPy alone maps, answers and learns as the package does, in little memory."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio

import geoemb_xr as gx
from geoemb_xr.core import geometry
from geoemb_xr.core.errors import ComparabilityError, EmbeddingError, SourceError
from geoemb_xr.writing import kit as kits
from geoemb_xr.writing import predict_alone

LABELS = gx.testing.scene().points(90, year=2024, radius=400)

#: Runs a kit where nothing but NumPy and the standard library can be imported, and memory has an end.
ALONE = """
import sys, importlib.abc, runpy, resource
class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names | {"numpy", "predict", "__main__"}:
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Nothing())
limit = 512 << 20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def alone(kit, *arguments):
    command = [sys.executable, "-c", ALONE, str(kit), *map(str, arguments)]
    variables = {
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }  # a stack for each thread is memory, too
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)


def said(kit, *arguments):
    done = alone(kit, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def codes():
    made = gx.testing.synthetic(
        "alphaearth", shape=(150, 130), years=(2018, 2024), missing=True, decode=False
    )
    return made.chunk({"time": 1, "y": 128, "x": 64})


@pytest.fixture(scope="module")
def probe(codes):
    return codes.emb.year(2024).emb.fit_probe(LABELS[:60], target="land_cover", method="ridge", cv=2)


@pytest.fixture(scope="module")
def kit(codes, probe, tmp_path_factory):
    return gx.field_kit(codes, probe, tmp_path_factory.mktemp("kit") / "kit", labels=LABELS[:60], chunks=64)


def test_what_is_in_it(kit, codes, probe, tmp_path):
    assert kit.name == "kit.zip"
    assert [each.name for each in kit.parent.iterdir()] == ["kit.zip"]
    with zipfile.ZipFile(kit) as archive:
        names = archive.namelist()
        assert {
            "zarr.json",
            "predict.py",
            "probe.npz",
            "kit.json",
            "LICENCE.txt",
            "labels.csv",
            "map.gpkg",
        } <= set(names)
        assert b"Google" in archive.read("LICENCE.txt")
        archive.extract("probe.npz", tmp_path)
        archive.extract("map.gpkg", tmp_path)
        taken = pd.read_csv(archive.open("labels.csv"))
    assert gx.load_model(tmp_path / "probe.npz") == probe
    assert list(taken) == ["lon", "lat", "label"]
    np.testing.assert_allclose(taken["lon"], LABELS[:60]["lon"])
    made = codes.emb.year(2024).emb.predict(probe).compute()
    with rasterio.open(tmp_path / "map.gpkg") as file:
        red, alpha = file.read(1), file.read(4)
        assert file.crs == rasterio.crs.CRS.from_wkt(made.emb.crs.to_wkt())
        assert file.transform.almost_equals(made.emb.geobox.affine)
    np.testing.assert_array_equal(alpha == 255, made.values > 0)
    colours = {
        code: int(c[1:3], 16) for code, c in zip(probe.legend.values, probe.legend.colours, strict=True)
    }
    expected = np.vectorize(lambda code: colours.get(code, 0))(made.values)
    assert np.abs(red.astype(int) - expected).max() <= 3  # a picture's


def test_it_is_opened_again(kit, codes):
    again = gx.open(kit, decode=False)
    assert again.attrs["product"] == "alphaearth"
    np.testing.assert_array_equal(again.values, codes.values)
    part = gx.open(kit, bbox=(11.369, 47.249, 11.371, 47.251), time=2024)
    assert part.dtype == np.float32
    assert part.sizes["x"] < 30


def read_png(path):
    with rasterio.open(path) as file:
        return file.read(1), file.transform


def test_a_window_is_mapped_as_predict_does(kit, codes, probe, tmp_path):
    ours = codes.emb.year(2024).emb.predict(probe).compute()
    said(kit, "map", tmp_path / "all.png")
    found, place = read_png(tmp_path / "all.png")
    legend = pd.read_csv(tmp_path / "all.legend.csv")
    assert tuple(legend["name"]) == probe.legend.names
    np.testing.assert_array_equal(np.array([0, *legend["code"]])[found], ours.values)
    assert place.almost_equals(ours.emb.geobox.affine, 1e-6)
    box = (11.3692, 47.2491, 11.3712, 47.2508)
    said(kit, "map", tmp_path / "part.png", "--bbox", *box, "--year", 2018)
    found, place = read_png(tmp_path / "part.png")
    grid = ours.emb.geobox
    col, row = (round(v) for v in (~grid.affine) * (place.c, place.f))
    earlier = codes.emb.year(2018).emb.predict(probe).compute()
    height, width = found.shape
    assert 10 < height < 40
    expected = earlier.values[row : row + height, col : col + width]
    np.testing.assert_array_equal(np.array([0, *legend["code"]])[found], expected)
    inside = codes.emb.year(2018).emb.crop(box, mask=False)
    assert abs(inside.sizes["y"] - height) <= 1


def test_a_point_is_answered_as_predict_does(kit, codes, probe):
    one = codes.emb.year(2024)
    at = LABELS.iloc[[70]]
    ours = one.emb.predict(probe, output="proba").emb.sample(at).compute().values.reshape(-1)
    name, share = (
        said(kit, "point", float(at["lon"].iloc[0]), float(at["lat"].iloc[0])).split(", ")[0].rsplit(" ", 1)
    )
    assert name == probe.legend.names[int(ours.argmax())]
    assert float(share) == pytest.approx(ours.max(), abs=6e-4)
    assert "outside of the kit" in alone(kit, "point", 0, 0).stderr
    assert "no vectors of 1999" in alone(kit, "point", 11.37, 47.25, "--year", 1999).stderr


def test_labels_of_several_devices_teach_as_update_does(kit, codes, probe, tmp_path):
    own = tmp_path / "kit.zip"
    own.write_bytes(kit.read_bytes())
    new = LABELS[60:][["lon", "lat", "land_cover"]].rename(columns={"land_cover": "label"})
    new[:20].to_csv(tmp_path / "a.csv", index=False)
    new[15:].to_csv(tmp_path / "b.csv", index=False)  # five rows stand in both
    assert f"learnt {len(new)} labels" in said(own, "learn", tmp_path / "a.csv", tmp_path / "b.csv")
    updated = probe.update(codes.emb.year(2024), LABELS[60:], target="land_cover")
    with np.load(tmp_path / "kit.learned.npz") as held:
        np.testing.assert_allclose(held["weights"], updated.parameters["weights"], atol=1e-5)
        np.testing.assert_allclose(held["bias"], updated.parameters["bias"], atol=1e-5)
    assert f"and {len(new)} learnt here" in said(own, "about")
    said(own, "map", tmp_path / "new.png")
    found, _ = read_png(tmp_path / "new.png")
    legend = pd.read_csv(tmp_path / "new.legend.csv")
    ours = codes.emb.year(2024).emb.predict(updated).values
    assert (np.array([0, *legend["code"]])[found] != ours).mean() < 1e-3
    new.assign(label="a swamp").to_csv(tmp_path / "c.csv", index=False)
    assert "'a swamp' is not a class of this probe" in alone(own, "learn", tmp_path / "c.csv").stderr
    new[["lon", "lat"]].to_csv(tmp_path / "d.csv", index=False)
    assert "lacks the columns ['label']" in alone(own, "learn", tmp_path / "d.csv").stderr


@pytest.mark.parametrize(
    ("product", "method"),
    [("alphaearth", "centroid"), ("tessera", "mlp"), ("tessera", "logistic"), ("mine", "ridge")],
)
def test_other_codes_and_methods(product, method, tmp_path):
    """The script's own formulas, in this process: codes of each kind, floats, classes and values."""
    options = {}
    if method == "mlp":
        pytest.importorskip("torch")
        options = {"max_iter": 3}
    if product == "mine":  # floats of a product without a codec
        scene = gx.testing.synthetic("tessera", shape=(60, 50), years=(2024,)).emb.year(2024)
        mine = gx.Product("mine", dims=128)
        da = gx.wrap(scene.values, mine, geobox=scene.emb.geobox)
        labels = LABELS.assign(height=np.arange(90) % 7 + 0.5)[["lon", "lat", "height"]]
        probe = da.emb.fit_probe(labels, target="height", method=method, cv=0)
    else:
        da = gx.testing.synthetic(product, shape=(60, 50), years=(2024,), missing=True, decode=False)
        da = da.emb.year(2024)
        probe = da.emb.fit_probe(LABELS, target="land_cover", method=method, cv=0, **options)
    path = gx.field_kit(da, probe, tmp_path / "kit.zip")
    found = predict_alone.Kit(path)
    rows, cols = found.window(None)
    made = np.zeros((60, 50), np.float32)
    for down, across, part in found.blocks(rows, cols, found.time(None)):
        made[down, across] = part
    ours = gx.open(path, decode=False).emb.predict(probe).compute()
    if probe.legend is None:
        np.testing.assert_allclose(made, ours.values, rtol=1e-4, atol=1e-5)
        assert "60 x 50" in found.map(tmp_path / "values", None, None)
        np.testing.assert_array_equal(np.load(tmp_path / "values.npy"), made)
    else:
        codes = np.array([0, *probe.legend.values])[made.astype(int)]
        assert (codes != ours.values).mean() < 1e-3


def test_a_kit_of_one_year_says_which_and_answers_for_no_other(codes, probe, tmp_path):
    kit = predict_alone.Kit(gx.field_kit(codes.emb.year(2018), probe, tmp_path / "kit.zip"))
    assert "years 2018" in kit.about()
    kit.map(tmp_path / "map.png", None, 2018)
    with pytest.raises(SystemExit, match="no vectors of 2024; it has 2018"):
        kit.map(tmp_path / "map.png", None, 2024)


@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
def test_a_vector_of_zeros_is_data_where_predict_says_so(product, tmp_path):
    """Of a product of unit vectors it is none; of another one, whose lengths carry something, it is."""
    da = gx.testing.synthetic(product, shape=(40, 30), years=(2024,), decode=False).emb.year(2024).load()
    labels = gx.testing.scene().points(60, year=2024, radius=150)
    probe = da.emb.fit_probe(labels, target="land_cover", method="ridge", cv=0)
    da[:, 5, 7:9] = 0
    found = predict_alone.Kit(gx.field_kit(da, probe, tmp_path / "kit.zip"))
    made = np.zeros((40, 30), np.uint16)
    for down, across, part in found.blocks(*found.window(None), found.time(None)):
        made[down, across] = part
    ours = da.emb.predict(probe).transpose("y", "x").values
    assert (ours[5, 7:9] > 0).all() == (product == "tessera")
    np.testing.assert_array_equal(made[5] > 0, ours[5] > 0)


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:3035", "EPSG:4326", "EPSG:3857"])
def test_places_are_found_without_proj(crs):
    geographic = crs == "EPSG:4326"
    step = 0.0001 if geographic else 10.0
    x, y = geometry.transformer(geometry.as_crs("EPSG:4326"), geometry.as_crs(crs)).transform(11.37, 47.25)
    from affine import Affine
    from odc.geo.geobox import GeoBox

    grid = GeoBox((4000, 3000), Affine(step, 0, x, 0, -step, y), crs)
    own = kits._polynomial(grid)
    rng = np.random.default_rng(0)
    rows, cols = rng.uniform(0, 4000, 200), rng.uniform(0, 3000, 200)
    lon, lat = kits._lonlat(grid, rows, cols)
    terms = kits._terms(
        (lon - own["centre"][0]) / own["half"][0], (lat - own["centre"][1]) / own["half"][1], own["degree"]
    )
    assert np.abs(terms @ own["row"] - rows).max() < 0.05
    assert np.abs(terms @ own["col"] - cols).max() < 0.05


def test_what_does_not_fit_is_said(codes, probe, tmp_path):
    one = codes.emb.year(2024)
    knn = one.emb.fit_probe(LABELS, target="land_cover", method="knn", cv=0)
    path = tmp_path / "kit.zip"
    with pytest.raises(EmbeddingError, match="no formula for a knn probe; fit one with method='ridge'"):
        gx.field_kit(one, knn, path)
    with pytest.raises(ComparabilityError):
        gx.field_kit(gx.testing.synthetic("tessera", shape=(20, 20)), probe, path)
    with pytest.raises(EmbeddingError, match="takes a raster with y and x"):
        gx.field_kit(one.emb.sample(LABELS), probe, path)
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        gx.field_kit(one, probe, path)
    assert path.read_text() == "mine"
    with pytest.raises(SourceError):
        gx.open(path)
    assert [each.name for each in tmp_path.iterdir()] == ["kit.zip"]


def test_the_script_is_what_is_in_the_package(kit):
    with zipfile.ZipFile(kit) as archive:
        assert archive.read("predict.py").decode() == Path(predict_alone.__file__).read_text()
        assert json.loads(archive.read("kit.json"))["product"] == "alphaearth"
