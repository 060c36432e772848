"""Labels of the field, from small files in their true formats."""

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError, SourceError

geopandas = pytest.importorskip("geopandas")
import shapely  # noqa: E402


def raster(path, codes, crs="EPSG:5070", res=30.0, origin=(0, 900), nodata=None, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    codes = np.atleast_3d(np.asarray(codes).T).T
    count, height, width = codes.shape
    shape = {"count": count, "height": height, "width": width, "dtype": codes.dtype, "nodata": nodata}
    transform = from_origin(*origin, res, res)
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **shape) as file:
        file.write(codes)
        if "colours" in kwargs:
            file.write_colormap(1, kwargs["colours"])
    return path


def entries(array):
    table = array.emb.legend
    return {int(code): (row["name"], row["colour"]) for code, row in table.iterrows()}


def test_nlcd_has_its_codes_names_colours_and_year(tmp_path):
    path = raster(
        tmp_path / "Annual_NLCD_LndCov_2021_CU_C1V1.tif", np.array([[11, 42], [82, 250]], "u1"), nodata=250
    )
    found = gx.labels("nlcd", path)
    assert found.chunks is not None
    assert found.values.tolist() == [[11, 42], [82, 0]]  # 250 is the background
    assert entries(found)[11] == ("Open Water", "#466b9f")
    assert entries(found)[82] == ("Cultivated Crops", "#ab6c28")
    assert len(entries(found)) == 20
    assert int(found.time.dt.year) == 2021
    assert gx.labels("NLCD", tmp_path).identical(found)


def test_nlcds_colours_are_those_of_torchgeo(tmp_path):
    torchgeo = pytest.importorskip("torchgeo.datasets")
    table = np.asarray(torchgeo.NLCD.cmap.colors)
    table = table * 255 if table.max() <= 1 else table
    path = raster(tmp_path / "Annual_NLCD_LndCov_2020_CU_C1V1.tif", np.array([[11, 12]], "u1"))
    own = entries(gx.labels("nlcd", path))
    checked = [code for code in own if code < len(table) and table[code][:3].any()]
    assert len(checked) >= 15
    for code in checked:
        rgb = [int(own[code][1][i : i + 2], 16) for i in (1, 3, 5)]
        assert np.abs(table[code][:3] - rgb).max() <= 2, code


def test_lcmap_and_worldcover(tmp_path):
    lcmap = gx.labels("lcmap", raster(tmp_path / "LCMAP_CU_2018_V13_LCPRI.tif", np.array([[1, 4, 0]], "u1")))
    assert lcmap.values.tolist() == [[1, 4, 0]]
    assert entries(lcmap)[4][0] == "Tree Cover"
    tiles = tmp_path / "worldcover"
    for number, code in enumerate((10, 100)):
        raster(tiles / f"ESA_WorldCover_10m_2021_v200_N45E00{6 + 3 * number}_Map.tif", np.full((3, 4), code, "u1"),
               crs="EPSG:4326", res=0.75, origin=(6 + 3 * number, 48.0), nodata=0)  # fmt: skip
    found = gx.labels("worldcover", tiles)
    assert found.sizes == {"y": 3, "x": 8}
    assert found.values[0].tolist() == [10] * 4 + [100] * 4
    assert entries(found)[10] == ("Tree cover", "#006400")
    assert int(found.time.dt.year) == 2021


def test_a_class_map_trains_a_probe_of_any_product(tmp_path):
    da = gx.testing.synthetic("alphaearth", shape=(60, 60)).emb.year(2018)
    truth = gx.testing.scene().truth(gx.testing.geobox((60, 60)), 2018)
    box = truth.emb.geobox
    codes = np.where(truth.values == truth.values.max(), 42, 11).astype("u1")
    raster(
        tmp_path / "NLCD_2018.tif",
        codes,
        crs=str(box.crs),
        res=10.0,
        origin=(box.boundingbox.left, box.boundingbox.top),
    )
    probe = da.emb.fit_probe(gx.labels("nlcd", tmp_path), n_samples=60, method="ridge", cv=0)
    assert probe.legend.names == ("Open Water", "Evergreen Forest")
    assert probe.legend.colours == ("#466b9f", "#1c5f2c")
    assert (da.emb.predict(probe).values == codes).mean() > 0.9
    # AlphaEarth was trained on NLCD: no fair test of it, from the raster or from points drawn from it
    nlcd = gx.labels("nlcd", tmp_path)
    for labels in (nlcd, gx.labels(nlcd, per_class=40)):
        compared = gx.evaluate(
            {"alphaearth": da}, labels, splits=["random"], methods=["ridge"], n_labels=[None]
        )
        assert compared.facts.label_seen_in_training.all()
        assert "was trained on such labels" in str(compared)


def parcels(path, names=("winter_wheat", "maize", None)):
    boxes = [shapely.box(11 + i, 47, 11.5 + i, 47.2) for i in range(len(names))]
    codes = ["3301010101", "3301010500", None][: len(names)]
    table = geopandas.GeoDataFrame({"EC_trans_n": ["a", "b", "c"][: len(names)], "EC_hcat_n": list(names),
                                    "EC_hcat_c": codes}, geometry=boxes, crs="EPSG:4326")  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    table.to_file(path)
    return path


def test_named_labels_need_no_target(tmp_path):
    grid = gx.testing.geobox((60, 60))
    west, south, east, north = grid.geographic_extent.boundingbox
    halves = [
        shapely.box(west, south, (west + east) / 2, north),
        shapely.box((west + east) / 2, south, east, north),
    ]
    table = {"EC_trans_n": ["a", "b"], "EC_hcat_n": ["wheat", "maize"], "EC_hcat_c": ["1", "2"]}
    geopandas.GeoDataFrame(table, geometry=halves, crs=4326).to_file(tmp_path / "AT_2018_EC21.shp")
    da = gx.testing.synthetic("alphaearth", shape=(60, 60)).emb.year(2018)
    probe = da.emb.fit_probe(gx.labels("eurocrops", tmp_path), method="centroid", cv=0)
    assert (probe.target, probe.legend.names) == ("label", ("maize", "wheat"))


def test_eurocrops_has_harmonised_names(tmp_path):
    found = gx.labels("eurocrops", parcels(tmp_path / "AT_2021_EC21.shp"))
    assert found.label.tolist() == ["winter_wheat", "maize"]
    assert found.EC_hcat_c.tolist() == ["3301010101", "3301010500"]
    assert found.year.tolist() == [2021, 2021]
    assert found.geometry.iloc[1].bounds == (12, 47, 12.5, 47.2)
    parcels(tmp_path / "more" / "SI_2021_EC21.shp", ("barley",))
    assert len(gx.labels("eurocrops", [tmp_path / "AT_2021_EC21.shp", tmp_path / "more"])) == 3
    geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=4326).to_file(tmp_path / "o.gpkg")
    with pytest.raises(SourceError, match="EC_hcat_n"):
        gx.labels("eurocrops", tmp_path / "o.gpkg")


def test_eurosat_chips_are_their_footprints(tmp_path):
    for name, east in (("Forest", 600_000), ("SeaLake", 610_000)):
        raster(tmp_path / "tif" / name / f"{name}_1.tif", np.zeros((13, 64, 64), "u2"), crs="EPSG:32632", res=10.0,
               origin=(east, 5_240_000))  # fmt: skip
    found = gx.labels("eurosat", tmp_path)
    assert found.label.tolist() == ["Forest", "SeaLake"]
    np.testing.assert_allclose(found.to_crs(32632).area, 640**2, rtol=1e-3)
    raster(tmp_path / "tif" / "Lake" / "a.tif", np.zeros((13, 4, 4), "u2"), crs="EPSG:32632")
    with pytest.raises(SourceError, match=r"folder for each class.*'Lake'"):
        gx.labels("eurosat", tmp_path)


def test_datasets_of_torchgeo_go_through_one_adapter(tmp_path):
    datasets = pytest.importorskip("torchgeo.datasets")
    path = raster(
        tmp_path / "nlcd" / "Annual_NLCD_LndCov_2021_CU_C1V1.tif", np.array([[11, 42], [82, 250]], "u1")
    )
    assert gx.labels(datasets.NLCD(str(tmp_path / "nlcd"), years=[2021])).identical(gx.labels("nlcd", path))

    class Masks(datasets.RasterDataset):
        is_image = False

    table = {c: (c, 0, 10 * c, 255) for c in range(256) if 10 * c < 256}
    raster(tmp_path / "masks" / "m.tif", np.array([[1, 2], [3, 0]], "u1"), colours=table)
    found = gx.labels(Masks(str(tmp_path / "masks")))
    assert entries(found) == {c: (f"class {c}", f"#{c:02x}00{10 * c:02x}") for c in (1, 2, 3)}

    parcels(tmp_path / "fields" / "f.gpkg", ("rye", "oat"))

    class Fields(datasets.VectorDataset):
        filename_glob = "*.gpkg"

    fields = gx.labels(Fields(str(tmp_path / "fields"), res=(10, 10), label_name="EC_hcat_n"))
    assert fields.label.tolist() == ["rye", "oat"]

    class Images(datasets.RasterDataset):
        pass

    with pytest.raises(SourceError, match="no labels on the ground"):
        gx.labels(Images(str(tmp_path / "masks")))


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(ValueError, match="'nlcd'"):
        gx.labels("nlcdd", tmp_path)
    with pytest.raises(EmbeddingError, match="read from files"):
        gx.labels("nlcd")
    with pytest.raises(SourceError, match="no file"):
        gx.labels("nlcd", tmp_path)
    with pytest.raises(SourceError, match="no such file"):
        gx.labels("nlcd", tmp_path / "no.tif")
    with pytest.raises(SourceError, match="not codes"):
        gx.labels("nlcd", raster(tmp_path / "f" / "NLCD_2021.tif", np.zeros((2, 2), "f4")))
    for year in (2019, 2020):
        raster(tmp_path / "years" / f"NLCD_{year}.tif", np.ones((2, 2), "u1"))
    with pytest.raises(SourceError, match="several years"):
        gx.labels("nlcd", tmp_path / "years")
