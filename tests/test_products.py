"""The contract: what every registered product gives, in every container that it ships in.

A new product is tested by being there: its example source is written, opened, cut, decoded, encoded, pickled.
"""

import json
import pickle
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine

import geoemb_xr as gx
from geoemb_xr import arrays, geometry, model, testing
from geoemb_xr.model import CoverageError

PRODUCTS = [p for p in model.registered() if p.example is not None]


@dataclass(frozen=True)
class Case:
    """A product in one of its containers, its example opened and computed."""

    product: gx.Product
    container: str
    source: Any
    lazy: xr.DataArray
    values: xr.DataArray


@pytest.fixture(scope="module")
def make_case(tmp_path_factory):
    made = {}

    @lru_cache(maxsize=1)  # arrays of one case in memory at a time
    def make(product, container):
        if (product.name, container) not in made:
            folder = tmp_path_factory.mktemp(f"{product.name}-{container}")
            made[product.name, container] = gx.example(product, container=container, directory=folder)
        source = made[product.name, container]
        with testing.raise_if_dask_computes():
            lazy = open_example(product, source)
        return Case(product, container, source, lazy, lazy.compute())

    return make


def _params(*kinds):
    chosen = [(p, c) for p in PRODUCTS if p.kind in kinds or p.name in kinds for c in p.containers]
    return {"params": chosen, "ids": [f"{p.name}-{c}" for p, c in chosen]}


@pytest.fixture(scope="module", **_params("pixel", "patch", "location"))
def case(request, make_case):
    return make_case(*request.param)


@pytest.fixture(scope="module", **_params("pixel", "copernicus-embed"))
def raster(request, make_case):
    return make_case(*request.param)


def open_example(product, source, **options):
    """Open an example's vectors; a function of the place needs a place."""
    if product.kind == "location":
        options.setdefault("geobox", testing.geobox((12, 10)))
    opened = gx.open(product, source, **options)
    return opened["embedding"] if isinstance(opened, xr.Dataset) else opened


def test_opens_lazily(case):
    opened, product = case.lazy, case.product
    assert opened.name == "embedding"
    assert model.check_embedding(opened, "test") is product
    assert model.kind_of(opened) in ("raster", "points")
    assert opened.dtype == np.float32
    assert "codec" not in opened.attrs
    assert tuple(opened[model.BAND].values) == product.decoded_bands
    assert opened.chunks is not None
    assert len(opened.chunksizes[model.BAND]) == 1
    assert opened.attrs["version"] == "synthetic"
    json.dumps(opened.attrs)
    block = opened.data.blocks[(0,) * opened.ndim].compute()
    assert block.dtype == np.float32
    assert block.shape == tuple(sizes[0] for sizes in opened.chunks)


def test_coordinates(case):
    opened = case.lazy
    assert geometry.crs_of(opened) is not None
    assert "GeoTransform" not in opened[geometry.SPATIAL_REF].attrs
    assert opened.x.dtype == opened.y.dtype == np.float64
    if model.kind_of(opened) == "raster":
        assert opened.dims in (("time", "band", "y", "x"), ("band", "y", "x"))
        assert np.all(np.diff(opened.x) > 0)
        assert np.all(np.diff(opened.y) < 0)
        assert np.allclose(np.diff(opened.x), np.diff(opened.x)[0])
    if "time" in opened.dims:
        assert opened.time.dtype.kind == "M"
        assert np.all(np.diff(opened.time) > np.timedelta64(0, "ns"))


def test_missing_is_nan_in_all_bands(case):
    values = case.values
    some, every = np.isnan(values).any("band"), np.isnan(values).all("band")
    assert bool((some == every).all())
    assert not bool(every.all())
    assert np.isfinite(values.where(~some, 0)).all()
    if case.product.unit_norm:
        norms = np.sqrt((values**2).sum("band")).where(~some)
        assert float(norms.min()) > 0.985
        assert float(norms.max()) < 1.015


def test_codes_round_trip(case):
    stored = open_example(case.product, case.source, decode=False)
    if "codec" not in stored.attrs:
        assert stored.dtype == np.float32
        xr.testing.assert_identical(stored.compute(), case.values)
        return
    assert stored.dtype == np.dtype(case.product.dtype)
    codes, decoded = stored.compute(), case.values
    xr.testing.assert_identical(arrays.decode(codes), decoded)
    again = arrays.encode(decoded)
    assert again.dtype == codes.dtype
    held = ~np.isnan(decoded).any("band")
    if (
        case.product.codec.scale is not None
    ):  # exact where the scale was chosen so that the largest code is 127
        held &= abs(codes.astype(int)).max("band") == 127
    assert bool(held.any())
    np.testing.assert_array_equal(again.where(held, 0), codes.where(held, 0))
    np.testing.assert_array_equal(np.isnan(arrays.decode(again)), np.isnan(decoded))


def test_pickles(case):
    again = pickle.loads(pickle.dumps(case.lazy))
    xr.testing.assert_identical(again.compute(), case.values)


def test_a_part_is_the_part_of_the_whole(raster):
    box = geometry.geobox_of(raster.values)
    rows, cols = (slice(n // 4, max(n // 4 + n // 3, n // 4 + 1)) for n in box.shape)
    bounds = box[rows, cols].boundingbox
    inset = abs(box.affine.a) * 0.25  # within the outer pixels, so that rounding outwards gives exactly these
    bbox = (bounds.left + inset, bounds.bottom + inset, bounds.right - inset, bounds.top - inset)
    with testing.raise_if_dask_computes():
        part = open_example(raster.product, raster.source, bbox=bbox, bbox_crs=box.crs)
    expected = raster.values.isel(y=rows, x=cols)
    np.testing.assert_array_equal(part.values, expected.values)
    np.testing.assert_allclose(part.x, expected.x, rtol=1e-12)
    np.testing.assert_allclose(part.y, expected.y, rtol=1e-12)


def test_chunks_do_not_change_values(raster):
    small = open_example(raster.product, raster.source, chunks=40)
    assert max(max(small.chunksizes["y"]), max(small.chunksizes["x"])) <= 64
    np.testing.assert_array_equal(small.values, raster.values.values)


def test_time(raster):
    whole = raster.values
    if "time" not in whole.dims:
        pytest.skip("a product without periods")
    last = int(whole.time.dt.year[-1])
    picked = open_example(raster.product, raster.source, time=last)
    np.testing.assert_array_equal(picked.values, whole.sel(time=str(last)).values)
    with pytest.raises(CoverageError, match=str(last)):
        open_example(raster.product, raster.source, time=1901)


def test_elsewhere_is_an_error_that_says_where(raster):
    west, _, east, _ = geometry.area_of(geometry.geobox_of(raster.values)).lonlat()[0]
    if east - west > 350:
        pytest.skip("covers the globe")
    with pytest.raises(CoverageError, match="does not cover"):
        open_example(raster.product, raster.source, bbox=(-60.0, -20.0, -59.9, -19.9))


def test_shows_the_scene(raster):
    """Where the example lies, and when, is true: nearest class means give back the scene's land cover."""
    if raster.product.resolution is None or raster.product.resolution > 30:
        pytest.skip("a pixel is larger than a field")
    opened = raster.values.isel(time=-1)
    year = int(opened.time.dt.year)
    truth = testing.scene().truth(geometry.geobox_of(opened), year).values.ravel()
    vectors = opened.transpose("y", "x", "band").values.reshape(truth.size, -1)
    held = np.isfinite(vectors[:, 0])
    vectors, truth = vectors[held], truth[held]
    classes = [c for c in np.unique(truth) if (truth == c).sum() >= 20]
    means = np.stack([vectors[truth == c].mean(0) for c in classes])
    distance = np.stack([((vectors - mean) ** 2).sum(1) for mean in means])
    assert np.mean(np.array(classes)[distance.argmin(0)] == truth) > 0.9


def _flip(path: Path, target: Path) -> None:
    """A GeoTIFF with its rows from the other end, and the transform that says so."""
    with rasterio.open(path) as source:
        turned = source.transform * Affine.translation(0, source.height) * Affine.scale(1, -1)
        target.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(target, "w", **(source.profile | {"transform": turned})) as out:
            out.write(source.read()[:, ::-1])
            out.update_tags(**source.tags())


def test_both_orientations(raster, tmp_path):
    source = Path(raster.source)
    files = sorted(source.rglob("*") if source.is_dir() else [source])
    if not all(f.suffix in (".tif", ".tiff") for f in files if f.is_file()):
        pytest.skip("not a container of GeoTIFFs")
    root = source if source.is_dir() else source.parent
    for file in files:
        if file.is_file():
            _flip(file, tmp_path / file.relative_to(root))
    turned = open_example(raster.product, tmp_path / source.relative_to(root))
    np.testing.assert_array_equal(turned.values, raster.values.values)
    np.testing.assert_array_equal(turned.y, raster.values.y)
