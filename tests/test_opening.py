"""gx.open: what is read, what is cut, what it gives and what it refuses."""

import dataclasses
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from affine import Affine

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.catalog import alphaearth
from geoemb_xr.core import areas, geometry, model
from geoemb_xr.core.errors import CoverageError, EmbeddingError, MissingFileError, SourceError
from geoemb_xr.geo import places
from geoemb_xr.readers import geotiff, source_names

BBOX = (11.365, 47.247, 11.375, 47.253)


@pytest.fixture(scope="module")
def cog():
    return gx.example("alphaearth", scene="clear")


@pytest.fixture
def opened(cog):
    return gx.open("alphaearth", cog, decode=False)


def write_tile(path, grid, *, year=2024, value=None, south_up=True):
    """A small COG tile as published, with one value or the scene in it."""
    codes = testing.synthetic("alphaearth", grid=grid, years=[year], decode=False).values[0]
    if value is not None:
        codes = np.full_like(codes, value)
    if south_up:
        codes, grid = np.ascontiguousarray(codes[:, ::-1]), grid.flipy()
    options = {"compress": "zstd", "interleave": "band", "blockxsize": 16, "blockysize": 16}
    return geotiff.write_geotiff(path / str(year) / f"{path.name}.tif", codes, grid, nodata=-128, **options)


# --- what it gives --------------------------------------------------------------------------------------------


def test_opening_computes_nothing_and_says_what_it_is(cog):
    with testing.raise_if_dask_computes():
        da = gx.open("alphaearth", cog)
    assert da.dims == ("time", "band", "y", "x")
    assert da.dtype == np.float32
    assert da["time"].dt.year.values.tolist() == [2018, 2020, 2022, 2024]
    assert da.attrs["product"] == "alphaearth"
    assert da.attrs["version"] == "synthetic"
    assert "codec" not in da.attrs
    assert da["y"].values[0] > da["y"].values[-1]
    assert da.emb.kind == "raster"
    assert da.emb.product is gx.product("aef")


def test_codes_are_those_of_the_files(cog, opened):
    """Read by GDAL, each file where its own affine says."""
    import rasterio

    files = sorted(Path(cog).rglob("2018/**/*.tif*"))
    assert len(files) > 1
    values, seen = opened.isel(time=0).values, np.zeros(opened.shape[2:], bool)
    for file in files:
        with rasterio.open(file) as raster:
            codes, place = raster.read(), ~opened.emb.geobox.affine * raster.transform
        (col, row), (right, below) = place * (0, 0), place * (raster.width, raster.height)
        if below < row:  # south-up
            codes, row, below = codes[:, ::-1], below, row
        window = slice(round(row), round(below)), slice(round(col), round(right))
        np.testing.assert_array_equal(values[:, *window], codes)
        seen[window] = True
    assert seen.all()


def test_codes_show_the_scene(opened):
    years = opened["time"].dt.year.values.tolist()
    classes = testing.scene().truth(opened.emb.geobox, years)[0]
    codes = opened.isel(time=0).values.astype(np.int64)
    means = np.stack([codes[:, classes == value].mean(axis=1) for value in np.unique(classes)])
    nearest = np.abs(codes[None] - means[:, :, None, None]).sum(axis=1).argmin(axis=0)
    found = np.unique(classes)[nearest]
    assert (found == classes).mean() > 0.9


def test_a_bbox_is_cut_outwards_and_equals_the_whole(cog, opened):
    part = gx.open("alphaearth", cog, bbox=BBOX, decode=False)
    assert part.sizes["x"] < opened.sizes["x"]
    xr.testing.assert_equal(part.compute(), opened.sel(x=part["x"], y=part["y"]).compute())
    west, south, east, north = areas.parse_bbox(BBOX).bounds_in(part.emb.crs)[0]
    box = part.emb.geobox.boundingbox
    assert box.left <= west < box.left + 10
    assert box.bottom <= south < box.bottom + 10
    assert box.right >= east > box.right - 10
    assert box.top >= north > box.top - 10


@pytest.mark.parametrize("chunks", [64, 100, {"y": 32, "x": 256}, -1, "auto"])
def test_chunks_never_change_a_value(cog, opened, chunks):
    other = gx.open("alphaearth", cog, chunks=chunks, decode=False, bbox=BBOX, time=2018)
    assert other.chunksizes["band"] == (64,)
    expected = opened.sel(x=other["x"], y=other["y"]).isel(time=[0])
    xr.testing.assert_equal(other.compute(), expected.compute())


def test_chunk_edges_fall_on_the_blocks_of_the_store(opened):
    # tiles are 128 columns wide with blocks of 128, whatever was asked for
    assert set(np.cumsum(opened.chunksizes["x"])) >= {128, 256}
    fine = gx.open("alphaearth", gx.example("alphaearth"), chunks=60)
    assert all(size == 64 for size in fine.chunksizes["x"])


def test_selectors_agree(cog):
    by_bbox = gx.open("alphaearth", cog, bbox=BBOX, time=2024).compute()
    area = areas.parse_bbox(BBOX)
    projected = gx.open("alphaearth", cog, bbox=area.bounds_in(32632)[0], bbox_crs=32632, time=2024).compute()
    xr.testing.assert_identical(by_bbox, projected)
    like = gx.open("alphaearth", cog, like=by_bbox, time=2024).compute()
    xr.testing.assert_equal(like, by_bbox)
    by_box = gx.open("alphaearth", cog, geobox=by_bbox.emb.geobox, time=2024).compute()
    xr.testing.assert_equal(by_box, by_bbox)


@pytest.mark.parametrize(("crs", "resolution"), [(32632, 1), (3035, 2), (4326, 2e-5), (3035, 35)])
@pytest.mark.parametrize("how", ["nearest", "bilinear", "average"])
def test_a_window_of_a_grid_has_the_values_of_the_whole(cog, crs, resolution, how):
    """Also where the grid is finer than the source, whose neighbours lie beyond the window."""
    around = gx.open("alphaearth", cog, time=2018).emb.geobox[100:130, 110:140]
    target = areas.snapped_geobox(areas.area_of(around), crs, resolution)
    options = {"time": 2018, "resampling": how}
    whole = gx.open("alphaearth", cog, geobox=target, **options).values
    height, width = target.shape
    for first in (3, 23, 44):  # a metre's window from here ends within a source pixel
        window = tuple(
            slice(min(first, n // 2), min(first, n // 2) + max(n // 3, 2)) for n in (height, width)
        )
        part = gx.open("alphaearth", cog, geobox=target[window], **options)
        np.testing.assert_array_equal(part.values, whole[..., *window])


@pytest.mark.parametrize(
    ("crs", "resolution"), [(3035, 10), (4326, 1e-4), (3035, None), (None, 30), (None, 4)]
)
@pytest.mark.parametrize("how", ["bilinear", "average"])
def test_boxes_side_by_side_have_the_values_of_one(cog, crs, resolution, how):
    """Each is read with the neighbours that interpolation takes, so that no seam lies between them."""
    options = {"crs": crs, "resolution": resolution, "resampling": how, "time": 2018}
    whole = gx.open("alphaearth", cog, bbox=(11.360, 47.245, 11.366, 47.248), **options).compute()
    for box in [(11.360, 47.245, 11.363, 47.248), (11.3625, 47.246, 11.366, 47.2475)]:
        part = gx.open("alphaearth", cog, bbox=box, **options).compute()
        xs, ys = (np.isin(part[d].values.round(7), whole[d].values.round(7)) for d in "xy")
        assert xs.sum() > 4
        assert ys.sum() > 4
        both = part[..., ys, xs]
        same = whole.sel(x=both.x, y=both.y, method="nearest")
        np.testing.assert_array_equal(both.values, same.values)


def test_a_product_with_a_dot_in_its_name_is_no_path():
    assert not source_names._is_path("clay-v1.5-sentinel2")
    assert source_names._is_path("clay.zarr")


def test_what_a_store_answers_is_said_in_a_line(monkeypatch):
    errors = pytest.importorskip("obstore.exceptions")

    def refuse(source, request):
        raise errors.GenericError("Generic S3 error: no route\n\nDebug source:\nRetryErrorImpl {")

    found = gx.product("alphaearth")
    monkeypatch.setitem(model._registry, "alphaearth", dataclasses.replace(found, open=refuse))
    with pytest.raises(
        SourceError, match=r"alphaearth could not be read: Generic S3 error: no route\. Is there"
    ):
        gx.open("alphaearth", bbox=BBOX)


def test_a_polygon_masks_what_lies_outside(cog):
    shapely = pytest.importorskip("shapely")
    triangle = shapely.Polygon([(11.365, 47.247), (11.375, 47.247), (11.37, 47.253)])
    da = gx.open("alphaearth", cog, geopolygon=triangle, time=2024).compute()
    share = float(da.isel(band=0).notnull().mean())
    assert 0.45 < share < 0.55  # a triangle is half its box


def test_crs_and_resolution_give_a_snapped_grid(cog):
    da = gx.open("alphaearth", cog, bbox=BBOX, crs="EPSG:3035", resolution=20, time=2024)
    assert da.emb.crs.to_epsg() == 3035
    assert da.emb.geobox.affine.a == 20
    assert da.emb.geobox.affine.c % 20 == 0
    norms = da.emb.check()
    assert norms["missing"] < 0.01
    native = gx.open("alphaearth", cog, bbox=BBOX, crs="EPSG:3035", time=2024)
    assert native.emb.geobox.affine.a == 10


def test_encoded_arrays_warp_as_codes(cog):
    da = gx.open("alphaearth", cog, bbox=BBOX, crs="EPSG:3035", time=2024, decode=False)
    assert da.dtype == np.int8
    assert da.emb.encoded


# --- tiles ----------------------------------------------------------------------------------------------------


def test_both_orientations_give_the_same_array(tmp_path):
    grid = testing.geobox((40, 30))
    files = [write_tile(tmp_path / n, grid, south_up=up) for n, up in (("north", False), ("south", True))]
    north, south = (gx.open("alphaearth", f, decode=False, chunks=16).compute() for f in files)
    xr.testing.assert_equal(north, south)
    np.testing.assert_array_equal(north["y"], geometry.grid_coords(grid)["y"])


def test_real_chips_north_up_and_south_up_are_identical(real_data):
    pair = [real_data / "alphaearth-raster" / f"aef_wi_2024_int8_{way}.tif" for way in ("northup", "southup")]
    north, south = (gx.open("alphaearth", path, decode=False).compute() for path in pair)
    xr.testing.assert_equal(north, south)
    report = north.emb.check()
    assert report["norm_min"] >= 0.993
    assert report["norm_max"] <= 1.0078
    assert report["missing"] * north.isel(band=0).size == pytest.approx(238)


@pytest.mark.parametrize("corners", [[(0, 0), (1, 0), (1, 1)], [(0, 0), (1, 1)]], ids=["L", "diagonal"])
def test_ragged_sets_keep_dtype_and_nodata(tmp_path, corners):
    for row, col in corners:
        grid = testing.geobox((16, 16), offset=(col * 160, -row * 160))
        write_tile(tmp_path / f"t{row}{col}", grid, value=10 * row + col + 1)
    da = gx.open("alphaearth", tmp_path, decode=False).compute()
    assert da.shape == (1, 64, 32, 32)
    assert da.dtype == np.int8
    for row in (0, 1):
        for col in (0, 1):
            block = da.values[0, :, 16 * row : 16 * row + 16, 16 * col : 16 * col + 16]
            assert np.all(block == (10 * row + col + 1 if (row, col) in corners else -128))


def test_other_tiles_in_other_years(tmp_path):
    left, right = (testing.geobox((16, 16), offset=(dx, 0)) for dx in (0, 160))
    write_tile(tmp_path / "a", left, year=2020, value=1)
    write_tile(tmp_path / "b", right, year=2021, value=2)
    da = gx.open("alphaearth", tmp_path, decode=False).compute()
    assert da["time"].dt.year.values.tolist() == [2020, 2021]
    assert set(np.unique(da.sel(time="2020"))) == {1, -128}
    assert np.all(da.values[0, :, :, 16:] == -128)
    assert np.all(da.values[1, :, :, :16] == -128)


def test_two_zones_merge_or_stay_apart(tmp_path):
    here = testing.scene()
    x32, y32 = geometry.transformer(geometry.as_crs(4326), geometry.utm_crs(32)).transform(11.99, here.lat)
    x33, y33 = geometry.transformer(geometry.as_crs(4326), geometry.utm_crs(33)).transform(12.01, here.lat)
    for name, zone, x, y in (("a", 32, x32, y32), ("b", 33, x33, y33)):
        affine = geometry.Affine(10, 0, round(x, -1) - 1600, 0, -10, round(y, -1) + 800)
        grid = geometry.make_geobox((160, 320), affine, geometry.utm_crs(zone))
        write_tile(tmp_path / name, grid, value=zone)
    box = (11.985, here.lat - 0.004, 12.015, here.lat + 0.004)
    apart = gx.open("alphaearth", tmp_path, bbox=box, zones="separate", decode=False)
    assert set(apart) == {"EPSG:32632", "EPSG:32633"}
    with testing.raise_if_dask_computes():
        merged = gx.open("alphaearth", tmp_path, bbox=box, decode=False)
    values = merged.compute()
    assert values.dtype == np.int8
    assert set(np.unique(values)) <= {32, 33, -128}
    assert {32, 33} <= set(np.unique(values))
    assert float((values == -128).mean()) < 0.02
    # a zone that misses the target is no error
    only = gx.open(
        "alphaearth", tmp_path, bbox=(11.985, here.lat - 0.002, 11.99, here.lat + 0.002), decode=False
    )
    assert (only == 32).mean() > 0.5


def test_a_rewritten_file_is_not_an_old_cache(tmp_path):
    grid = testing.geobox((16, 16))
    path = write_tile(tmp_path / "a", grid, value=1)
    before = gx.open("alphaearth", path, decode=False)
    assert (before.compute() == 1).all()
    write_tile(tmp_path / "a", grid, value=2)
    after = gx.open("alphaearth", path, decode=False)
    assert before.data.name != after.data.name
    assert (after.compute() == 2).all()


def test_only_tiles_that_overlap_are_read(tmp_path, monkeypatch):
    for col in range(4):
        write_tile(tmp_path / f"t{col}", testing.geobox((16, 16), offset=(col * 160, 0)), value=col)
    seen = []
    read = geotiff.GeoTiffReader.read
    monkeypatch.setattr(
        geotiff.GeoTiffReader, "read", lambda self, *a: (seen.append(self.path), read(self, *a))[1]
    )
    whole = gx.open("alphaearth", tmp_path, decode=False)
    assert seen == []
    whole.isel(x=slice(17, 20)).compute()
    assert len(seen) == 1
    assert seen[0].endswith("t1.tif")


# --- points ---------------------------------------------------------------------------------------------------


def test_points_come_from_their_own_tile_unwarped(cog, opened):
    table = (
        testing.scene().points(20, radius=1000).set_index(pd.Index([f"p{i}" for i in range(20)], name="id"))
    )
    at = gx.open("alphaearth", cog, points=table.drop(columns="year"), time=[2018, 2024], decode=False)
    assert at.dims == ("time", "location", "band")
    assert at.emb.kind == "points"
    assert list(at["location"].values) == list(table.index)
    assert list(at["land_cover"].values) == list(table["land_cover"])
    x, y = places.points_xy(table, opened.emb.crs)
    picked = opened.sel(time=["2018-01-01", "2024-01-01"]).compute()
    for i in range(20):
        expected = picked.sel(x=x[i], y=y[i], method="nearest")
        np.testing.assert_array_equal(at.isel(location=i).values, expected.values)


def test_each_point_in_its_own_year(cog):
    table = testing.scene().points(8).assign(year=[2018, 2024] * 4)
    at = gx.open("alphaearth", cog, points=table).compute()
    assert at.dims == ("location", "band")
    assert pd.DatetimeIndex(at["date"].values).year.tolist() == table["year"].tolist()
    both = gx.open("alphaearth", cog, points=table, time=[2018, 2024]).compute()
    for i, year in enumerate(table["year"]):
        np.testing.assert_array_equal(at.values[i], both.values[0 if year == 2018 else 1, i])


@pytest.mark.parametrize("decode", [True, False])
def test_a_point_that_its_own_zone_lacks_takes_the_other_zone(tmp_path, decode):
    """Two zones over one place; the nearer has a hole in which only the further one has data."""
    places_at = [(12.0, 47.0), (12.0002, 47.0)]
    for crs, east in ((32632, 0), (32633, 20)):
        to_utm = geometry.transformer(geometry.as_crs(4326), geometry.as_crs(crs))
        x, y = (round(v, -1) for v in to_utm.transform(12.0, 47.0))
        grid = geometry.make_geobox((64, 64), Affine(10, 0, x + 10 * east - 325, 0, -10, y + 325), crs)
        values = testing.synthetic("aef", grid=grid, years=[2024], decode=False).values[0]
        if crs == 32632:
            values[:, 28:36, 28:36] = -128
        geotiff.write_geotiff(tmp_path / f"{crs}_2024.tif", values, grid, nodata=-128)
    taken = gx.open("alphaearth", tmp_path, points=[*places_at, (11.9985, 47.0)], decode=decode)
    assert taken.chunks is not None
    expected = gx.open("alphaearth", tmp_path / "32633_2024.tif", points=places_at, decode=decode)
    np.testing.assert_array_equal(taken[:, :2], expected)
    alone = gx.open(
        "alphaearth", tmp_path / "32632_2024.tif", points=[*places_at, (11.9985, 47.0)], decode=decode
    )
    np.testing.assert_array_equal(taken[:, 2], alone[:, 2])
    assert taken.dtype == alone.dtype
    assert not taken.emb.decode().isnull().any()


# --- coverage and examples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "annual"])
def test_an_index_finds_the_tiles_of_a_local_copy(tmp_path, below):
    rows = []
    for year in (2020, 2021):
        for col in range(2):
            grid = testing.geobox((16, 16), offset=(col * 160, 0))
            name = f"x{col}-0000000000-0000000000.tiff"
            codes = testing.synthetic("aef", grid=grid, years=[year], decode=False).values[0]
            geotiff.write_geotiff(tmp_path / below / str(year) / "32N" / name, codes, grid, nodata=-128)
            box, (lonlat,) = grid.boundingbox, areas.area_of(grid).lonlat()
            rows.append(
                {
                    "path": f"s3://bucket/annual/{year}/32N/{name}",
                    "year": year,
                    "crs": "EPSG:32632",
                    "utm_zone": "32N",
                    **dict(zip(("utm_west", "utm_south", "utm_east", "utm_north"), box.bbox, strict=True)),
                    **dict(
                        zip(("wgs84_west", "wgs84_south", "wgs84_east", "wgs84_north"), lonlat, strict=True)
                    ),
                }
            )
    pd.DataFrame(rows).to_parquet(tmp_path / "aef_index.parquet")
    assert len(gx.coverage("alphaearth", tmp_path)) == 4
    (west, south, east, north) = areas.area_of(testing.geobox((16, 16))).lonlat()[0]
    inner = (west + 2e-4, south + 2e-4, east - 4e-4, north - 2e-4)
    found = gx.coverage("alphaearth", tmp_path, bbox=inner, time=2021)
    assert len(found) == 1
    assert found["url"][0].endswith("2021/32N/x0-0000000000-0000000000.tiff")
    da = gx.open("alphaearth", tmp_path, bbox=inner, time=2021, decode=False)
    assert da.sizes["time"] == 1
    assert bool((da != -128).all())
    (tmp_path / below / "2021" / "32N" / "x0-0000000000-0000000000.tiff").unlink()
    with pytest.raises(MissingFileError, match=r"2021/32N/x0-0000000000-0000000000\.tiff"):
        gx.open("alphaearth", tmp_path, bbox=inner, time=2021)


def test_an_index_cannot_lead_out_of_its_folder(tmp_path):
    from geoemb_xr.stores import paths

    for bad in ("../x.tif", "/etc/passwd", "a/../../x"):
        with pytest.raises(SourceError, match="outside it"):
            paths.inside(tmp_path, bad)
    assert paths.inside(tmp_path, "2024/x.tif") == (tmp_path / "2024/x.tif").resolve()


@pytest.mark.parametrize("container", ["cog", "zarr", "decoded"])
def test_examples_are_written_once_and_where_asked(container, tmp_path):
    first = gx.example("alphaearth", container=container)
    written = {path: path.stat().st_mtime_ns for path in Path(first).rglob("*")}
    assert written
    assert gx.example("alphaearth", container=container) == first
    assert {path: path.stat().st_mtime_ns for path in Path(first).rglob("*")} == written
    source = alphaearth.example_alphaearth(tmp_path, container, years=(2020,), size=64)
    assert str(source).startswith(str(tmp_path))
    assert gx.open("alphaearth", source).attrs["version"] == "synthetic"


# --- what bad input gets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (
            {"bbox": (0, 0, 1, 1)},
            CoverageError,
            r"does not cover \(0, 0, 1, 1\).*covers \(11\.3.*2022, 2024$",
        ),
        (
            {"bbox": (47.24, 11.36, 47.25, 11.37)},
            CoverageError,
            r"Longitudes come first: .* \(11\.36, 47\.24, ",
        ),
        ({"time": 2019}, CoverageError, "2018, 2020, 2022, 2024"),
        ({"time": (2018, 2020)}, TypeError, "is a tuple"),
        ({"bbox": BBOX, "points": [(11, 47)]}, ValueError, "got bbox and points"),
        ({"bbox": (11, 48, 12, 47)}, ValueError, "south >= north"),
        ({"bbox": BBOX, "crs": "EPSG:4326", "resolution": 10}, ValueError, "10 degrees per pixel"),
        ({"zones": "merged"}, ValueError, "Did you mean 'merge'"),
        ({"version": "v9"}, ValueError, "version='v9' is not known; valid are 'v1'"),
        ({"version": "v1"}, CoverageError, "holds 'synthetic'"),
        ({"variant": "x"}, ValueError, "variant='x' is not known; there are none here"),
        ({"chunks": "big"}, ValueError, "chunks is 'auto', a side in pixels"),
        (
            {"chunks": {"z": 3}},
            ValueError,
            "chunks names dimensions of an embedding, such as 'y' and 'x'; got 'z'",
        ),
        ({"chunks": 0}, ValueError, "positive numbers"),
    ],
)
def test_bad_requests(cog, options, error, says):
    with pytest.raises(error, match=says):
        gx.open("alphaearth", cog, **options)


def test_unknown_products_and_sources(tmp_path):
    with pytest.raises(ValueError, match="unknown product 'nope'"):
        gx.open("nope")
    with pytest.raises(ValueError, match=r"source='mosiac' is neither a path.*'cog', 'mosaic'"):
        gx.open("alphaearth", "mosiac")
    with pytest.raises(FileNotFoundError, match=r"no such file.*x\.tif"):
        gx.open("alphaearth", str(tmp_path / "x.tif"))
    with pytest.raises(FileNotFoundError, match=r"no \.tif or \.tiff file"):
        gx.open("alphaearth", tmp_path)


def test_files_that_are_not_what_the_product_says(tmp_path):
    grid = testing.geobox((16, 16))
    short = geotiff.write_geotiff(tmp_path / "a_2024.tif", np.zeros((3, 16, 16), "i1"), grid)
    with pytest.raises(SourceError, match=r"a_2024\.tif has 3 bands; a file of 'alphaearth' has 64"):
        gx.open("alphaearth", short)
    wide = geotiff.write_geotiff(tmp_path / "b_2024.tif", np.zeros((64, 16, 16), "i2"), grid)
    with pytest.raises(
        SourceError, match="holds int16; a file of 'alphaearth' holds int8 or float32 or float64"
    ):
        gx.open("alphaearth", wide)
    undated = geotiff.write_geotiff(tmp_path / "c.tif", np.zeros((64, 16, 16), "i1"), grid, nodata=-128)
    with pytest.raises(SourceError, match="does not say its year"):
        gx.open("alphaearth", undated)
    odd = geotiff.write_geotiff(tmp_path / "d_2024.tif", np.zeros((64, 16, 16), "i1"), grid, nodata=0)
    assert (gx.open("alphaearth", odd, decode=False) == -128).all()  # whatever marks missing pixels there
    (tmp_path / "e_2024.tif").write_bytes(b"no tiff")
    with pytest.raises(SourceError, match=r"e_2024\.tif could not be opened"):
        gx.open("alphaearth", tmp_path / "e_2024.tif")
    codes = geotiff.write_geotiff(tmp_path / "f_2024.tif", np.zeros((64, 16, 16), "i1"), grid, nodata=-128)
    floats = geotiff.write_geotiff(tmp_path / "g_2023.tif", np.zeros((64, 16, 16), "f4"), grid)
    with pytest.raises(SourceError, match="codes and decoded vectors in one source"):
        gx.open("alphaearth", [codes, floats])


def test_a_truncated_file_raises_and_never_becomes_nodata(tmp_path):
    path = write_tile(tmp_path / "a", testing.geobox((64, 64)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"a\.tif could not be (opened|read)"):
        gx.open("alphaearth", path, decode=False).compute()


def test_points_on_both_sides_of_a_raster_that_runs_on_past_180(tmp_path):
    grid = geometry.make_geobox((20, 40), Affine(1e-4, 0, 179.998, 0, -1e-4, -16), "EPSG:4326")
    array = testing.synthetic("alphaearth", grid=grid, years=[2024])
    geotiff.write_geotiff(tmp_path / "t_2024.tif", array.values[0], grid)
    points = [(-179.99995, -16.00005), (180.00005, -16.00005), (179.99805, -16.00005)]
    taken = gx.open("alphaearth", str(tmp_path / "t_2024.tif"), points=points, time=2024)
    expected = array.values[0][:, 0, [20, 20, 0]].T
    np.testing.assert_array_equal(taken.squeeze("time").transpose("location", "band").values, expected)


def test_points_and_polygons_without_a_crs_are_in_that_of_the_call(cog):
    x, y = geometry.transformer(geometry.as_crs(4326), geometry.as_crs(32632)).transform(11.37, 47.25)
    inside = shapely.box(x - 30, y - 30, x + 30, y + 30)
    metres = gx.open("alphaearth", cog, points=[(x, y)], bbox_crs=32632)
    xr.testing.assert_identical(
        metres, gx.open("alphaearth", cog, points=[(11.37, 47.25)]).assign_coords(metres.coords)
    )
    cut = gx.open("alphaearth", cog, geopolygon=inside, bbox_crs=32632)
    assert cut.identical(gx.open("alphaearth", cog, geopolygon=gpd.GeoSeries([inside], crs=32632)))
    with pytest.raises(EmbeddingError, match="look like metres"):
        gx.open("alphaearth", cog, geopolygon=inside)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"type": "Polygon", "coordinates": []}, "geopolygon= takes an area"),
        ({"type": "Feature", "assets": {"data": {"href": "a.tif"}}}, "no 'stac_version'"),
        ({"2018": "a.tif"}, r"got a dict of \['2018'\]"),
        ([{"2018": "a.tif"}], "got a dict"),
    ],
)
def test_a_dict_is_no_source(source, says):
    with pytest.raises(SourceError, match=says):
        gx.open("alphaearth", source)


def test_an_area_given_as_bbox_is_told_where_it_goes():
    with pytest.raises(ValueError, match="an area goes into geopolygon="):
        gx.open("alphaearth", gx.example("alphaearth"), bbox=shapely.box(11.36, 47.24, 11.37, 47.25))


def test_a_list_of_our_own_stores_says_how_they_are_joined(tmp_path):
    da = testing.synthetic("alphaearth", shape=(8, 8), years=(2018, 2019))
    paths = [da.isel(time=[k]).emb.to_zarr(tmp_path / f"{year}.zarr") for k, year in enumerate((2018, 2019))]
    with pytest.raises(SourceError, match=r"need their product.*gx\.concat\(\[gx\.open\(path\)"):
        gx.open(paths)
    for several in (paths, tmp_path / "*.zarr"):
        with pytest.raises(SourceError, match=r"2018\.zarr is a Zarr store among files.*gx\.concat"):
            gx.open("alphaearth", several)
    xr.testing.assert_identical(
        gx.concat([gx.open(path) for path in paths], "time"), gx.open(da.emb.to_zarr(tmp_path / "a.zarr"))
    )
