"""The contract: what every registered product gives, in every container that it ships in.

A new product is tested by being there: its example source is written, opened, cut, decoded, encoded, pickled.
"""

import json
import pickle
import re
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
from geoemb_xr import testing
from geoemb_xr.core import areas, arrays, errors, geometry, model
from geoemb_xr.core.errors import CoverageError
from geoemb_xr.geo import places

CATALOG = model.published()  # other tests register products of their own
PRODUCTS = [p for p in CATALOG if p.example is not None]


@dataclass(frozen=True)
class Case:
    """A product in one of its containers, its example opened and computed."""

    product: gx.Product
    container: str
    source: Any
    lazy: xr.DataArray
    values: xr.DataArray


@pytest.fixture(scope="module")
def make_case():
    @lru_cache(maxsize=1)  # arrays of one case in memory at a time
    def make(product, container):
        source = gx.example(
            product, container=container, scene="clear"
        )  # in the cache, which all processes share
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
    labels = product.decoded_bands[: opened.sizes[model.BAND] if product.variants else None]
    assert (
        tuple(opened[model.BAND].values) == labels
    )  # variants of one product have vectors of several lengths
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
    west, _, east, _ = areas.area_of(geometry.geobox_of(raster.values)).lonlat()[0]
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
        with rasterio.open(
            target, "w", **(source.profile | {"transform": turned, "compress": "none"})
        ) as out:
            out.write(source.read()[:, ::-1])
            out.update_tags(**source.tags())


def test_both_orientations(raster, tmp_path):
    source = Path(raster.source)
    files = sorted(source.rglob("[!.]*") if source.is_dir() else [source])
    if not all(f.suffix in (".tif", ".tiff") for f in files if f.is_file()):
        pytest.skip("not a container of GeoTIFFs")
    root = source if source.is_dir() else source.parent
    for file in files:
        if file.is_file():
            _flip(file, tmp_path / file.relative_to(root))
    turned = open_example(raster.product, tmp_path / source.relative_to(root))
    np.testing.assert_array_equal(turned.values, raster.values.values)
    np.testing.assert_array_equal(turned.y, raster.values.y)


# --- the atlas ----------------------------------------------------------------------------------------------


def test_the_atlas_has_the_surveys_rows():
    """Eleven products, their cells as the survey has them; where our facts say the same, they say it alike."""
    table = gx.products()
    listed = table[table["Dataset"] != ""]
    assert len(listed) == 11
    assert tuple(table.columns[: len(model.SURVEY)]) == model.SURVEY
    assert listed["Kind"].str.lower().equals(listed["kind"])
    assert (listed["License"] == listed["licence"]).all()
    assert (listed["Temporal Resolution"] == listed["cadence"]).all()
    for name, row in listed.iterrows():
        assert row["Temporal Extent"] == row["period"], name
        if name not in ("esd", "earth-embeddings"):  # 12 months of 6 axes; four encoders
            assert row["Dtype"].partition("→")[0] == row["dtype"], name
            assert row["Dimensions"] == str(row["dims"]), name


@pytest.mark.parametrize("product", CATALOG, ids=lambda p: p.name)
def test_facts_of_a_product(product):
    for fact in ("title", "model", "inputs", "access", "citation", "quirks", "aliases"):
        assert getattr(product, fact), fact
    assert all(gx.product(alias) is product for alias in (product.name, *product.aliases))
    if product.licence:
        assert product.attribution
    if product.codec is not None:
        assert product.dtype == product.codec.dtype
    assert product.share_alike == ("-SA-" in product.licence)
    if product.open is not None and not product.stores and product.kind != "location":
        with pytest.raises(errors.SourceError, match=r"(?i)(fetch|download) .* from .* give"):
            gx.open(product)
    if product.torchgeo:
        datasets = pytest.importorskip("torchgeo.datasets")
        assert hasattr(datasets, product.torchgeo)


def said_of(name):
    """Rows of the page of sources about a product: fact → (who says so, when it was looked up)."""
    page = Path(__file__).parents[2] / "docs" / "sources.md"
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| `")]
    return {fact: (who, when) for product, fact, _, who, when in rows if product == f"`{name}`"}


@pytest.mark.parametrize("product", CATALOG, ids=lambda p: p.name)
def test_each_fact_has_who_says_so_and_when_it_was_looked_up(product):
    said = said_of(product.name)
    for fact in ("citation", "licence", *(["trained_on"] if product.trained_on else [])):
        who, when = said[fact]
        assert re.search(r"https?://|doi:|arXiv:|no publisher", who), fact
        assert re.fullmatch(r"20\d\d-\d\d(-\d\d)?", when.strip()), fact


@pytest.mark.parametrize("product", CATALOG, ids=lambda p: p.name)
def test_bibtex_is_an_entry_with_title_author_and_year(product):
    if "arXiv" in product.citation or product.doi:
        assert product.bibtex
    for entry in filter(None, re.split(r"(?=^@)", product.bibtex, flags=re.M)):
        assert re.match(r"@\w+\{\w+,\n", entry)
        assert entry.count("{") == entry.count("}")
        for key in ("title", "author", "year"):
            assert re.search(rf"^  {key} = \{{.+\}},?$", entry, re.M), key


def test_the_atlas_names_the_labels_that_a_model_saw():
    table = gx.products()["trained_on"]
    assert "ESA WorldCereal 2021" in table["olmoearth"]
    assert "Dynamic World" in table["earth-index"]
    assert "NLCD" in table["alphaearth"]
    assert "Dynamic World" not in gx.product("presto").inputs


def test_a_survey_row_has_all_cells():
    with pytest.raises(ValueError, match="a cell for each of"):
        gx.Product("short", dims=2, survey="Short | Pixel")


# --- what is a product's own --------------------------------------------------------------------------------


def test_esd_is_what_torchgeo_decodes(tmp_path):
    datasets = pytest.importorskip("torchgeo.datasets")
    import torch

    folder = gx.example("esd", directory=tmp_path)
    opened = gx.open("esd", folder, time=2024)
    with rasterio.open(next(tmp_path.rglob("*_2024.tif"))) as file:
        stored = file.read()
    theirs = datasets.EmbeddedSeamlessData.quantizer.quantize(torch.from_numpy(stored[:12].astype(np.int64)))
    held = stored[:12] != 0
    ours = opened["embedding"].values
    assert opened["embedding"].dims == ("time", "band", "y", "x")
    np.testing.assert_array_equal(np.isnan(ours).all(axis=1), ~held)  # torchgeo has −1 there
    np.testing.assert_allclose(
        np.moveaxis(ours, 1, -1)[held], np.moveaxis(theirs.numpy(), 1, -1)[held], atol=1e-7
    )
    quality = opened["clear_observations"]
    assert quality.dtype == np.uint16
    np.testing.assert_array_equal(quality.isel(time=3), stored[12])


def test_quality_stays_beside_vectors_of_two_zones(tmp_path):
    from geoemb_xr.readers import geotiff

    rng = np.random.default_rng(0)
    for zone, lon in ((32, 11.994), (33, 12.006)):
        crs = f"EPSG:{32600 + zone}"
        ((x,), (y,)) = places.points_xy([(lon, 47.0)], crs)
        corner = Affine(30, 0, round(x / 30) * 30 - 600, 0, -30, round(y / 30) * 30 + 600)
        codes = rng.integers(1, 64_000, (13, 40, 40)).astype(np.uint16)
        box = geometry.make_geobox((40, 40), corner, crs)
        geotiff.write_geotiff(tmp_path / f"SDC30_EBD_V001_{zone}TPT_2020.tif", codes, box)
    merged = gx.open("esd", tmp_path)
    apart = gx.open("esd", tmp_path, zones="separate")["EPSG:32632"]
    assert merged["embedding"].emb.crs.to_epsg() == 32632
    own = merged.sel(x=apart.x, y=apart.y)
    np.testing.assert_array_equal(own["clear_observations"], apart["clear_observations"])
    np.testing.assert_array_equal(own["embedding"], apart["embedding"])
    held = np.isfinite(merged["embedding"].values).any(axis=1)
    assert held.sum() > apart["clear_observations"].size
    taken = gx.open("esd", tmp_path, points=[(11.994, 47.0)])  # a single pixel
    assert taken.shape == (12, 1, 6)


def test_presto_says_at_each_opening_that_no_scale_is_known(tmp_path, caplog):
    caplog.set_level("INFO", "geoemb_xr")
    folder = gx.example("presto", directory=tmp_path)
    codes = gx.open("presto", folder, decode=False)
    assert caplog.text.count("no publisher states one") == 1
    opened = gx.open("presto", folder)
    assert caplog.text.count("no publisher states one") == 2
    held = np.isfinite(opened.values)
    np.testing.assert_array_equal(opened.values[held], codes.values[held].astype(np.float32))
    assert opened.time.values[0] == np.datetime64("2019-03-01")


def test_copernicus_cells_are_nodes(tmp_path, caplog):
    caplog.set_level("INFO", "geoemb_xr")
    opened = gx.open("copernicus-embed", gx.example("copernicus-embed", directory=tmp_path))
    assert np.allclose(opened.x / 0.25, np.round(opened.x / 0.25))
    globe = gx.open("copernicus-embed", gx.example("copernicus-embed", container="npz", directory=tmp_path))
    assert (float(globe.x[0]), float(globe.y[0]), float(globe.y[-1])) == (-180, 90, -90)
    assert "half a cell further east" in caplog.text
    assert np.isnan(globe.isel(y=0).values).all()
    (tmp_path / "bad").mkdir()
    np.savez(tmp_path / "bad" / "x.npz", arr_0=np.zeros((3, 9, 768), np.float32))
    with pytest.raises(errors.SourceError, match="3 × 9 cells, which is not a grid of nodes"):
        gx.open("copernicus-embed", tmp_path / "bad")


def test_olmoearth_takes_any_size_of_model(tmp_path):
    from geoemb_xr.readers import geotiff

    grid = testing.geobox((8, 8))
    small = geotiff.write_geotiff(
        tmp_path / "small_2024.tif", np.ones((192, 8, 8), np.int8), grid, nodata=-128
    )
    with pytest.raises(errors.SourceError, match=r"192 bands, .*version=, one of 'v1', 'v1.1', 'v1.2'"):
        gx.open("olmoearth", small)
    families = [gx.open("olmoearth", small, version=family) for family in ("v1", "v1.2")]
    assert [(f.sizes["band"], f.attrs["version"]) for f in families] == [(192, "v1-192"), (192, "v1.2-192")]
    with pytest.raises(errors.ComparabilityError, match=r"v1-192.*v1.2-192|v1.2-192.*v1-192"):
        gx.concat(families, "time")
    with pytest.raises(errors.SourceError, match=r"192 bands, which version='v1-768' does not"):
        gx.open("olmoearth", small, version="v1-768")
    large = geotiff.write_geotiff(tmp_path / "large_2024.tif", np.ones((1024, 8, 8), np.int8), grid)
    with pytest.raises(
        errors.SourceError, match=r'has 1024 bands; .*gx\.Product\("olmoearth-1024", dims=1024\)'
    ):
        gx.open("olmoearth", large)
    vectors = geotiff.write_geotiff(tmp_path / "v_2024.tif", np.ones((192, 8, 8), np.float32), grid)
    with pytest.raises(errors.SourceError, match="codes and vectors in one source"):
        gx.open("olmoearth", [small, vectors], version="v1")
