"""Every patch product: its example in the true format opens, and its real file where one is at hand."""

import json
import logging
import shutil

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely

import geoemb_xr as gx
from geoemb_xr.catalog import clay_v15_naip as naip
from geoemb_xr.catalog import earth_embeddings, major_tom
from geoemb_xr.core import areas, geometry, model
from geoemb_xr.core.errors import ComparabilityError, CoverageError, SourceError
from geoemb_xr.readers import footers, layouts
from geoemb_xr.readers.tiles import Request

#: product, container: rows, dims, columns that ride along
EXAMPLES = {
    ("clay-v0", "geoparquet"): (40, 768, {"index", "source_url"}),
    ("clay-v1.5-naip", "geoparquet"): (336, 1024, {"patch_m"}),
    ("clay-v1.5-sentinel2", "scene"): (
        144,
        1024,
        {"chips_id", "cell_id", "rasters_id", "stac_item_id", "collection"},
    ),
    ("clay-v1.5-sentinel2", "aggregated"): (144, 1024, {"chips_id", "cell_id"}),
    ("clay-v1.5-lgnd-256", "geoparquet"): (144, 256, {"chips_id", "cell_id"}),
    ("major-tom", "geoparquet"): (60, 2048, {"unique_id", "grid_cell", "product_id", "patch_m", "utm_crs"}),
    ("major-tom", "siglip"): (60, 1152, {"unique_id", "grid_cell", "product_id", "patch_m"}),
    ("earth-index", "geoparquet"): (440, 384, {"id"}),
    ("earth-embeddings", "parquet"): (30, 1152, {"grid_cell", "product_id", "cloud_cover"}),
}


@pytest.mark.parametrize(("name", "container"), list(EXAMPLES))
def test_example_opens_in_its_true_format(name, container):
    rows, dims, beside = EXAMPLES[name, container]
    product = gx.product(name)
    with gx.testing.raise_if_dask_computes():
        array = product.open(gx.example(name, container=container), Request())
    assert array.sizes == {"location": rows, "band": dims}
    assert array.attrs["product"] == name
    assert array.attrs["version"] == "synthetic"
    assert array.chunksizes["band"] == (dims,)
    assert beside <= set(array.coords)
    assert array.coords["band"].values.tolist() == list(product.bands[:dims])
    assert model.check_embedding(array, "test") is product
    assert geometry.crs_of(array).to_epsg() == 4326
    assert not np.isnat(array.coords["date"].values).any()
    assert (np.diff(array.coords["date"].values) >= np.timedelta64(0, "ns")).all()
    values = array.values
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert np.linalg.norm(values, axis=1).mean() == pytest.approx(30, abs=3)  # the scene's


@pytest.mark.parametrize(("name", "container"), list(EXAMPLES))
def test_example_is_the_scene(name, container):
    """The vectors lie where the scene has them: each land cover's are alike, others' are not."""
    source = gx.example(name, container=container, scene="clear")
    array = gx.product(name).open(source, Request()).compute()
    scene = gx.testing.scene()
    years = array.coords["date"].dt.year.values
    classes = np.concatenate(
        [
            scene.classes(
                array.coords["x"].values[years == year], array.coords["y"].values[years == year], year
            )
            for year in np.unique(years)
        ]
    )
    unit = array.values / np.linalg.norm(array.values, axis=1, keepdims=True)
    alike = unit @ unit.T
    same = classes[:, None] == classes[None]
    np.fill_diagonal(same, False)
    assert alike[same].mean() > 0.8 > 0.3 > alike[classes[:, None] != classes[None]].mean()


@pytest.mark.parametrize("name", sorted({name for name, _ in EXAMPLES}))
def test_bbox_and_time_pick_rows(name):
    source = gx.example(name)
    product = gx.product(name)
    whole = product.open(source, Request())
    x, y = whole.coords["x"].values, whole.coords["y"].values
    first = int(np.argmin(x + y))
    corner = areas.parse_bbox((x[first], y[first], x[first] + 1e-4, y[first] + 1e-4))
    found = product.open(source, Request(area=corner))
    assert 0 < found.sizes["location"] < whole.sizes["location"]
    year = int(whole.coords["date"].dt.year.max())
    latest = product.open(source, Request(time=year))
    assert latest.sizes["location"] == int((whole.coords["date"].dt.year == year).sum())
    with pytest.raises(CoverageError, match=r"by their names|no patch of|is not in"):
        product.open(source, Request(area=areas.parse_bbox((-30, -50, -29, -49))))
    with pytest.raises(CoverageError, match="1987"):
        product.open(source, Request(time=1987))


@pytest.mark.parametrize("name", sorted({name for name, _ in EXAMPLES}))
def test_gx_open_gives_the_same(name):
    source = gx.example(name)
    assert gx.open(name, source).identical(gx.product(name).open(source, Request()))


@pytest.mark.parametrize("name", sorted({name for name, _ in EXAMPLES} - {"earth-embeddings"}))
def test_coverage_lists_files(name):
    table = gx.coverage(name, gx.example(name))
    assert {"url", "bytes", "start"} <= set(table.columns)
    assert (table["bytes"] > 0).all()


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("ClayEmbeddings", "clay-v1.5-sentinel2"),
        ("MajorTOMEmbeddings", "major-tom"),
        ("EarthIndexEmbeddings", "earth-index"),
        ("EarthEmbeddings", "earth-embeddings"),
        ("clay-v1-5-naip-2", "clay-v1.5-naip"),
    ],
)
def test_torchgeos_names_find_them(alias, name):
    assert gx.product(alias).name == name


# --- at points and on grids ---------------------------------------------------------------------------------


def test_points_get_the_patch_that_holds_them():
    source = gx.example("earth-index")
    whole = gx.open("earth-index", source).compute()
    lon, lat = float(whole.x[7]), float(whole.y[7])
    places = pd.DataFrame(
        {"lon": [lon + 0.0005, lon], "lat": [lat - 0.0005, 48.5], "name": ["in", "out"]}, index=[4, 9]
    )
    for array in (gx.open("earth-index", source, points=places), whole.emb.sample(places)):
        assert array.dims == ("location", "band")
        assert array.coords["location"].values.tolist() == [4, 9]
        assert array.coords["name"].values.tolist() == ["in", "out"]
        np.testing.assert_allclose(array.coords["x"].values, places["lon"])
        assert array.coords["id"].values[0] == whole.coords["id"].values[7]
        np.testing.assert_array_equal(array.values[0], whole.values[7])
        assert np.isnan(array.values[1]).all()
    assert gx.open("earth-index", source, points=places).chunks is not None
    with pytest.raises(CoverageError, match="none of the 1 points lies in one of the 440 patches"):
        whole.emb.sample([(0.0, 0.0)])


def test_a_grid_is_filled_by_footprints():
    source = gx.example("earth-index")
    box = gx.testing.geobox((40, 30), resolution=100.0)
    array = gx.open("earth-index", source, geobox=box)
    assert geometry.same_grid(array.emb.geobox, box)
    expected = gx.open("earth-index", source).emb.to_grid(geobox=box)
    np.testing.assert_array_equal(array.values, expected.values)
    bbox = (11.36, 47.24, 11.38, 47.26)
    laea = gx.open("earth-index", source, bbox=bbox, crs="EPSG:3035", resolution=320)
    assert geometry.crs_of(laea).to_epsg() == 3035
    assert laea.emb.geobox.resolution.x == 320
    assert gx.open("earth-index", source, resolution=160).emb.geobox.resolution.x == 160
    with pytest.raises(ValueError, match="needs an area: give bbox="):
        gx.open("earth-index", source, crs="EPSG:3035")


def test_a_file_that_this_package_wrote_keeps_its_version(tmp_path):
    array = gx.open("earth-index", gx.example("earth-index"))
    array.emb.to_geoparquet(tmp_path / "own.parquet")
    again = gx.open("earth-index", tmp_path / "own.parquet")
    assert again.attrs["version"] == "synthetic"
    assert again.attrs["emb"] == array.attrs["emb"]
    order = {name: i for i, name in enumerate(again.coords["id"].values)}
    np.testing.assert_array_equal(again.values[[order[n] for n in array.coords["id"].values]], array.values)
    with pytest.raises(SourceError, match=r"own.parquet holds 'earth-index', not 'clay-v0'"):
        gx.open("clay-v0", tmp_path / "own.parquet")


# --- what is each one's own ---------------------------------------------------------------------------------


def test_clay_v0_conflict_of_licences_is_told():
    notes = gx.product("clay-v0").licence_notes
    assert "CC-BY-4.0" in notes
    assert "ODC-By-1.0" in notes


def test_naip_date_and_size_of_each_patch():
    array = gx.open("clay-v1.5-naip", gx.example("clay-v1.5-naip"))
    assert set(array.coords["date"].values.astype("datetime64[D]").astype(str)) == {
        "2018-08-05",
        "2021-11-05",
    }
    side = array.coords["patch_m"].values
    np.testing.assert_allclose(np.unique(np.round(side)), [154, 256], atol=1.5)
    place = naip.LAYOUT.place_of_path("ny/2021/m_4007201_ne_18_060_20211105.parquet")
    assert place == pytest.approx((-73.1, 39.9, -71.9, 41.1))


def test_earth_index_duplicates_of_overlapping_tiles(caplog):
    with caplog.at_level(logging.INFO, "geoemb_xr"):
        array = gx.open("earth-index", gx.example("earth-index"))
    assert "60 of 500 patches are duplicates" in caplog.text
    ids = array.coords["id"].values
    assert sum(name.startswith("32TPT") for name in ids) == 20 * 13
    assert json.loads(array.attrs["emb"])["model"]["id"] == "dinov2_vits14_softcon"


def test_earth_index_editions_never_mix(tmp_path):
    source = gx.example("earth-index", directory=tmp_path)
    path = source / "32TPT_2024-01-01_2025-01-01.parquet"
    table = pq.read_table(path)
    keys = dict(table.schema.metadata)
    del keys[footers.OWN_KEY.encode()]
    pq.write_table(table.replace_schema_metadata(keys), path)
    other = json.loads(keys[b"emb"])
    other["model"] = {"id": "ssl4eo_vits16_dino", "name": "SSL4EO"}
    keys[b"emb"] = json.dumps(other).encode()
    path.with_name("32TQT_2024-01-01_2025-01-01.parquet").unlink()
    later = path.with_name("32TPT_2025-01-01_2026-01-01.parquet")
    pq.write_table(table.replace_schema_metadata(keys), later)
    with pytest.raises(ComparabilityError, match=r"mixes 2 models or versions of 'earth-index'.*260 rows"):
        gx.open("earth-index", tmp_path)
    assert gx.open("earth-index", tmp_path, version="2025").attrs["version"] == "2025"
    assert gx.open("earth-index", tmp_path, version="v2").attrs["version"] == "v2"
    keys.pop(b"emb")  # then the year in the name tells
    pq.write_table(table.replace_schema_metadata(keys), later)
    assert gx.open("earth-index", later).attrs["version"] == "2025"


def test_major_tom_needs_a_variant(tmp_path):
    with pytest.raises(ValueError, match=r"give variant=, one of S2L1C-SSL4EO, .*S2RGB-SigLIP"):
        gx.open("major-tom")
    source = next(gx.example("major-tom", directory=tmp_path / "a").rglob("*.parquet"))
    plain = tmp_path / "part_00001.parquet"
    table = pq.read_table(source)
    keys = {k: v for k, v in table.schema.metadata.items() if k != footers.OWN_KEY.encode()}
    pq.write_table(table.replace_schema_metadata(keys), plain)
    with pytest.raises(
        SourceError, match=r"part_00001.parquet does not say which encoder made it; give variant="
    ):
        gx.open("major-tom", plain)
    array = gx.open("major-tom", plain, variant="S2L1C-SSL4EO")
    assert array.attrs["version"] == "S2L1C-SSL4EO"
    assert major_tom.PRODUCT.stores["S2RGB-SigLIP"] == "hf://datasets/Major-TOM/Core-S2RGB-SigLIP/embeddings"


def test_major_tom_variants_never_mix(tmp_path):
    for container in ("geoparquet", "siglip"):
        gx.example("major-tom", directory=tmp_path, container=container)
    for path in tmp_path.rglob("*.parquet"):
        table = pq.read_table(path)
        keys = {k: v for k, v in table.schema.metadata.items() if k != footers.OWN_KEY.encode()}
        pq.write_table(table.replace_schema_metadata(keys), path)
    with pytest.raises(ComparabilityError, match=r"S2L1C-SSL4EO' in 1 files \(60 rows\)"):
        gx.open("major-tom", tmp_path)
    array = gx.open("major-tom", tmp_path, variant="S2RGB-SigLIP")
    assert (array.attrs["version"], array.sizes["band"]) == ("S2RGB-SigLIP", 1152)


def test_major_tom_places_come_from_footprints():
    """centre_lon is float32: good to about a metre; x is the footprint's."""
    array = gx.open("major-tom", gx.example("major-tom"))
    source = next(gx.example("major-tom").rglob("*.parquet"))
    shapes = shapely.from_wkb(pq.read_table(source, columns=["geometry"])["geometry"].to_numpy())
    exact = np.sort(shapely.get_x(shapely.centroid(shapes)))
    np.testing.assert_allclose(np.sort(array.coords["x"].values), exact, rtol=0, atol=1e-12)
    assert np.abs(np.sort(array.coords["centre_lon"].values) - exact).max() > 1e-8


def test_earth_embeddings_is_half_precision_on_disk():
    source = next(gx.example("earth-embeddings").rglob("*.parquet"))
    schema = pq.read_schema(source)
    assert str(schema.field("embedding").type.value_type) == "halffloat"
    assert b"geo" not in schema.metadata
    stored = np.stack(pq.read_table(source)["embedding"].to_pylist())
    array = gx.open("earth-embeddings", source).compute()
    order = array.coords["parquet_row"].values
    np.testing.assert_array_equal(array.values, stored[order].astype(np.float32))
    with pytest.raises(SourceError, match=r"names of the files .* are not documented"):
        gx.open("earth-embeddings")


def test_earth_embeddings_needs_a_variant(tmp_path):
    source = next(gx.example("earth-embeddings").rglob("*.parquet"))
    table = pq.read_table(source).replace_schema_metadata({})
    pq.write_table(table, tmp_path / "some.parquet")
    with pytest.raises(SourceError, match="give variant=, one of SatCLIP, FarSLIP"):
        gx.open("earth-embeddings", tmp_path)
    array = gx.open("earth-embeddings", tmp_path, variant="FarSLIP")
    assert array.attrs["version"] == earth_embeddings.VARIANTS[1] == "FarSLIP"


# --- real files ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Geometry is in a geographic CRS")
def test_the_real_clay_v0_file(real_data):
    path = next((real_data / "clay-v0").glob("*.gpq"))
    array = gx.open("clay-v0", path)
    table = gpd.read_parquet(path)
    assert array.attrs["version"] == "v001"
    np.testing.assert_array_equal(array.values, np.stack(table["embeddings"]))
    np.testing.assert_allclose(array.coords["x"].values, table.centroid.x, rtol=0, atol=1e-12)
    assert set(array.coords["date"].dt.date.values) == {table["date"].iloc[0]}
    bbox = (-166.5, 65.0, -166.0, 65.3)
    part = gx.open("clay-v0", path, bbox=bbox, time=2022)
    boxes = table.geometry.bounds
    inside = (
        (boxes.minx <= bbox[2]) & (boxes.maxx >= bbox[0]) & (boxes.miny <= bbox[3]) & (boxes.maxy >= bbox[1])
    )
    assert part.coords["index"].values.tolist() == table["index"][inside].tolist()
    west, south, east, north = layouts.zone_bounds(path.name)
    assert west < boxes.minx.min() < boxes.maxx.max() < east
    assert south < boxes.miny.min() < boxes.maxy.max() < north


def test_the_real_earth_index_schema(real_data):
    array = gx.open("earth-index", real_data / "earth-index" / "21MNT.parquet")
    assert array.sizes == {"location": 0, "band": 384}
    assert array.attrs["version"] == "v2"
    assert json.loads(array.attrs["emb"])["model"]["name"] == "SoftCon"
    assert array.compute().shape == (0, 384)


@pytest.mark.slow
def test_torchgeo_reads_the_same(real_data, tmp_path):
    datasets = pytest.importorskip("torchgeo.datasets")
    path = next((real_data / "clay-v0").glob("*.gpq"))
    theirs = datasets.ClayEmbeddings(path)
    array = gx.open("clay-v0", path).compute()
    for row in (0, 200, 416):
        sample = theirs[row]
        np.testing.assert_array_equal(sample["embedding"].numpy(), array.values[row])
        assert float(sample["x"]) == pytest.approx(
            float(array.coords["x"][row]), abs=2e-5
        )  # theirs is float32
    shutil.copytree(gx.example("earth-index"), tmp_path / "ei")
    theirs = datasets.EarthIndexEmbeddings(tmp_path / "ei" / "32TPT_2024-01-01_2025-01-01.parquet")
    ours = gx.open("earth-index", tmp_path / "ei" / "32TPT_2024-01-01_2025-01-01.parquet").compute()
    np.testing.assert_array_equal(theirs[5]["embedding"].numpy(), ours.values[5])
