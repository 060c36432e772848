"""A product and an encoder that live in another package, written with the names that are promised to stay."""

import importlib.util
import subprocess
import sys

import cloudpickle
import numpy as np
import pytest
import shapely
import xarray as xr
from odc.geo.xr import wrap_xr

import geoemb_xr as gx
from geoemb_xr import extending

ELSEWHERE = """
import numpy as np

import geoemb_xr as gx
from geoemb_xr.extending import (
    CoverageError, Encoder, PatchLayout, Product, coverage_patches, expand, geotiff_tile, open_patches, overlapping,
    read_info, register, table_of, write_geotiff, year_of_file,
)


def open_tiles(source, request):
    tiles = [
        geotiff_tile(read_info(file), times=[f"{year_of_file(file)}-01-01"], bands=TILES.bands)
        for file in expand(source, [".tif"])
    ]
    if request.area is not None and not overlapping(tiles, request.area):
        raise CoverageError(f"no tile covers {request.area}")
    return tiles


def list_tiles(source, request):
    return table_of(open_tiles(source, request), request.time)


def example_tiles(folder, container):
    grid = gx.testing.geobox((96, 64))
    for year in (2018, 2024):
        vectors = gx.testing.scene().vectors(*gx.testing.lonlat_of(grid), year, dims=4)
        write_geotiff(folder / f"mine-{year}.tif", vectors, grid)
    return folder


TILES = register(
    Product(
        "elsewhere-tiles", dims=4, resolution=10.0, open=open_tiles, coverage=list_tiles, example=example_tiles,
        containers=("geotiff",),
    )
)


def open_rows(source, request):
    return open_patches(source, request, PATCHES, PatchLayout(patch_m=320.0))


PATCHES = register(Product("elsewhere-patches", dims=3, kind="patch", resolution=320.0, open=open_rows))


def make(encoder):
    import torch

    network = torch.nn.Conv2d(2, 4, 8, 8)
    torch.nn.init.ones_(network.weight)
    torch.nn.init.zeros_(network.bias)
    return network


ENCODER = Encoder(
    "elsewhere-encoder", dims=4, bands=("B04", "B03"), units="reflectance", chip=16, patch=8,
    make=make,
)
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    monkeypatch.syspath_prepend(tmp_path)
    spec = importlib.util.spec_from_file_location("elsewhere", tmp_path / "elsewhere.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    spec.loader.exec_module(module)
    return module


def test_a_product_elsewhere_opens_like_one_of_ours(elsewhere, tmp_path):
    (tmp_path / "files").mkdir()
    source = elsewhere.example_tiles(tmp_path / "files", "geotiff")
    array = gx.open("elsewhere-tiles", source, time=2024)
    grid = gx.testing.geobox((96, 64))
    expected = gx.testing.scene().vectors(*gx.testing.lonlat_of(grid), 2024, dims=4)
    np.testing.assert_array_equal(array.isel(time=0).values, expected)
    assert array.emb.geobox == grid
    xr.testing.assert_identical(
        array.compute(), gx.open("elsewhere-tiles", source, chunks=32, time=2024).compute()
    )
    assert gx.coverage("elsewhere-tiles", source)["year"].tolist() == [2018, 2024]
    with pytest.raises(gx.CoverageError, match="no tile covers"):
        gx.open("elsewhere-tiles", source, bbox=(0, 0, 1, 1))
    assert list(gx.open("elsewhere-tiles", gx.example("elsewhere-tiles")).time.dt.year) == [2018, 2024]


def test_its_array_is_computed_where_its_package_is_not(elsewhere, tmp_path):
    (tmp_path / "files").mkdir()
    array = gx.open("elsewhere-tiles", elsewhere.example_tiles(tmp_path / "files", "geotiff")).emb.change(
        2018, 2024
    )
    (tmp_path / "array").write_bytes(cloudpickle.dumps(array))
    code = "import pickle, sys; print(float(pickle.load(open(sys.argv[1], 'rb')).sum()))"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "array"],
        cwd=tmp_path / "files",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == float(array.sum())


def test_rows_of_its_parquet_files_are_patches(elsewhere, tmp_path):
    gpd = pytest.importorskip("geopandas")
    vectors = np.arange(12, dtype="f4").reshape(4, 3) + 1
    boxes = shapely.box([11.0, 11.1, 11.2, 11.3], 47.0, [11.004, 11.104, 11.204, 11.304], 47.003)
    table = gpd.GeoDataFrame({"embedding": list(vectors)}, geometry=boxes, crs="EPSG:4326")
    table.to_parquet(tmp_path / "rows.parquet", write_covering_bbox=True)
    array = gx.open("elsewhere-patches", tmp_path / "rows.parquet", bbox=(11.05, 46.9, 11.25, 47.1))
    np.testing.assert_array_equal(array.values, vectors[1:3])


def test_its_encoder_embeds_images(elsewhere):
    pytest.importorskip("torch")
    images = wrap_xr(
        np.full((2, 32, 32), 0.25, "f4"), gx.testing.geobox((32, 32)), axis=1, dims=("band", "y", "x")
    )
    tokens = gx.embed(images.assign_coords(band=["B04", "B03"]), elsewhere.ENCODER)
    np.testing.assert_allclose(tokens.values, 0.25 * 2 * 64)


def test_every_name_is_said_to_stay_and_says_what_it_is():
    for name in extending.__all__:
        assert f"``{name}``" in extending.__doc__, f"{name} is missing in the module's text"
        assert getattr(extending, name).__doc__
