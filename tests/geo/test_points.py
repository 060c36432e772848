"""Samples, crops and tables: against NumPy, xarray and GDAL, lazily, in any layout."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
from rasterio.features import geometry_mask

import geoemb_xr as gx
from geoemb_xr.core import geometry
from geoemb_xr.core.errors import CoverageError, EmbeddingError
from geoemb_xr.testing import assert_lazy_identical, raise_if_dask_computes

SHAPE = (60, 70)


def scene(product="alphaearth", **options):
    return gx.testing.synthetic(product, shape=SHAPE, years=[2018, 2024], **options)


def places(n=40, seed=0, radius=280.0):
    return gx.testing.scene().points(n, radius=radius, seed=seed)


# --- sample ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
@pytest.mark.parametrize("decode", [True, False])
def test_sample_is_lazy_and_the_same_however_chunked(product, decode):
    out = assert_lazy_identical(lambda a: a.emb.sample(places()), scene(product, decode=decode, missing=True))
    assert out.dims == ("time", "location", "band")
    assert out.emb.kind == "points"


def test_sample_is_xarrays_nearest():
    da = scene()
    table = places()
    to_utm = geometry.transformer(geometry.as_crs("EPSG:4326"), geometry.crs_of(da))
    x, y = to_utm.transform(table["lon"], table["lat"])
    expected = da.sel(
        x=xr.DataArray(x, dims="location"), y=xr.DataArray(y, dims="location"), method="nearest"
    ).transpose("time", "location", "band")
    found = da.emb.sample(table)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_allclose(found.x, x)
    np.testing.assert_allclose(found.y, y)


def test_sample_of_codes_is_the_sample_decoded():
    codes = scene("tessera", decode=False, missing=True)
    xr.testing.assert_identical(
        codes.emb.sample(places()).emb.decode(), codes.emb.decode().emb.sample(places())
    )


def test_sample_keeps_the_index_and_the_columns():
    table = places(5).set_index(pd.Index(list("abcde"), name="plot"))
    table["when"] = pd.Timestamp("2018-06-01", tz="UTC")
    table["kind"] = pd.Categorical(["x", "y", "x", "y", "x"])
    table["time"] = 3
    out = scene().emb.sample(table)
    assert out.indexes["location"].tolist() == list("abcde")
    assert out.land_cover.dtype == object
    assert out.kind.values.tolist() == ["x", "y", "x", "y", "x"]
    assert out.when.dtype.kind == "M"
    assert out.point_time.values.tolist() == [3] * 5  # the array has a time of its own


def test_sample_takes_geodataframes_in_any_crs():
    table = places(8)
    frame = gpd.GeoDataFrame(
        table[["land_cover"]], geometry=gpd.points_from_xy(table.lon, table.lat), crs=4326
    )
    a, b = (scene().emb.sample(points) for points in (table, frame.to_crs(3035)))
    np.testing.assert_array_equal(a.values, b.values)
    assert "geometry" not in b.coords


def test_points_outside_are_missing_and_cost_no_read():
    da = scene("alphaearth", chunks=20)
    points = np.array([[11.37, 47.25], [0.0, 0.0], [np.nan, 47.0]])
    out = da.emb.sample(points)
    assert np.isnan(out.values[:, 1:]).all()
    assert not np.isnan(out.values[:, 0]).any()
    codes = scene("alphaearth", decode=False).emb.sample(points)
    assert codes.dtype == np.int8
    assert (codes.values[:, 1:] == -128).all()


def test_one_read_a_block_that_holds_points():
    reads = []
    da = scene(chunks=20)

    def spy(block, block_info=None):
        reads.append(block_info[0]["chunk-location"])
        return block

    spied = da.copy(data=da.data.map_blocks(spy, dtype=da.dtype, meta=da.data._meta))
    with raise_if_dask_computes():
        out = spied.emb.sample(places(60, radius=60.0))
    out.compute()
    assert len(reads) == len(set(reads))
    assert len(reads) < da.data.npartitions


def test_sample_of_a_class_map():
    truth = gx.testing.scene().truth(scene().emb.geobox, 2018)
    table = places()
    found = truth.emb.sample(table)
    names = np.array(gx.testing.scene().names)[found.values - 1]
    assert (names == table["land_cover"]).mean() > 0.9  # a pixel's centre is not the point
    assert found.dims == ("location",)


def test_an_edge_belongs_to_the_higher_index():
    grid = gx.testing.geobox((4, 4))
    da = gx.testing.synthetic("alphaearth", grid=grid).emb.year(2018)
    edge = gpd.GeoDataFrame(
        geometry=gpd.points_from_xy([grid.affine.c + 20], [grid.affine.f - 20]), crs=grid.crs.to_wkt()
    )
    np.testing.assert_array_equal(da.emb.sample(edge).values[0], da.values[:, 2, 2])


def test_points_far_from_the_array_are_an_error():
    with pytest.raises(CoverageError, match=r"none of the 1 points.*covers.*EPSG:32632, lon/lat \(11\."):
        scene().emb.sample([(0.0, 0.0)])
    assert scene().emb.sample(np.empty((0, 2))).sizes["location"] == 0
    with pytest.raises(ValueError, match="method='linear' is not known"):
        scene().emb.sample([(0.0, 0.0)], method="linear")


# --- crop -----------------------------------------------------------------------------------------------------

BOX = (11.3685, 47.2492, 11.3712, 47.2509)
HEXAGON = shapely.Point(11.37, 47.25).buffer(0.0012, quad_segs=2)


@pytest.mark.parametrize("area", [BOX, HEXAGON], ids=["box", "polygon"])
@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
@pytest.mark.parametrize("decode", [True, False])
def test_crop_is_lazy_and_the_same_however_chunked(area, product, decode):
    out = assert_lazy_identical(lambda a: a.emb.crop(area), scene(product, decode=decode))
    assert out.emb.kind == "raster"
    assert out.dtype == (np.float32 if decode else np.int8)


def test_crop_of_codes_is_the_crop_decoded():
    for product in ("alphaearth", "tessera"):
        codes = scene(product, decode=False)
        xr.testing.assert_identical(
            codes.emb.crop(HEXAGON).emb.decode(), codes.emb.decode().emb.crop(HEXAGON)
        )


@pytest.mark.parametrize("all_touched", [False, True])
def test_crop_masks_as_gdal_does(all_touched):
    da = scene()
    frame = gpd.GeoSeries([HEXAGON], crs=4326).to_crs(32632)
    out = da.emb.crop(frame, all_touched=all_touched).isel(time=0, band=0)
    outside = geometry_mask(frame, out.shape, out.emb.geobox.affine, all_touched=all_touched)
    assert (np.isnan(out.values) != outside).sum() <= (2 if all_touched else 0)
    assert not np.isnan(da.emb.crop(frame, mask=False)).any()


def test_a_box_is_rounded_outwards():
    da = scene()
    grid = da.emb.geobox.affine
    box = (grid.c + 101.0, grid.f - 219.0, grid.c + 199.0, grid.f - 100.0)
    out = da.emb.crop(box, crs="EPSG:32632")
    assert (out.sizes["x"], out.sizes["y"]) == (10, 12)
    xr.testing.assert_identical(out, da.isel(y=slice(10, 22), x=slice(10, 20)))


def test_south_up_crops_are_the_same_pixels():
    up, down = scene(), scene(south_up=True)
    for area in (BOX, HEXAGON):
        a, b = up.emb.crop(area), down.emb.crop(area)
        xr.testing.assert_identical(a, geometry.north_up_array(b))


def test_crop_works_on_maps():
    truth = gx.testing.scene().truth(scene().emb.geobox, 2018)
    out = truth.emb.crop(HEXAGON)
    assert out.dtype == np.uint8
    assert out.values[0, 0] == 0
    assert out.attrs["flag_values"] == truth.attrs["flag_values"]


def world(west: float) -> xr.DataArray:
    """A coarse map in degrees, 360 columns from ``west``."""
    grid = geometry.make_geobox((180, 360), rasterio.Affine(1, 0, west, 0, -1, 90), "EPSG:4326")
    data = np.broadcast_to(np.arange(360, dtype=np.float32), (180, 360))
    return xr.DataArray(data, dims=("y", "x"), coords=geometry.grid_coords(grid))


@pytest.mark.parametrize("west", [-180.0, 0.0, -2.5])
def test_a_crop_across_greenwich_takes_both_ends_of_a_grid(west):
    for area in ((-3.5, 10.0, 2.0, 12.0), shapely.box(-3.5, 10, 2, 12)):
        out = world(west).emb.crop(area, all_touched=True)
        assert np.allclose(np.diff(out.x), 1)
        assert (out.x[0] <= -3.0, out.x[-1] >= 1.5, out.sizes["x"] <= 7) == (True, True, True)
        np.testing.assert_array_equal(out.values[0], (out.x.values - 0.5 - west) % 360)


@pytest.mark.parametrize("west", [-180.0, 0.0])
def test_crop_across_the_antimeridian(west):
    out = world(west).emb.crop((178.0, 10.0, -177.0, 12.0))
    np.testing.assert_allclose(out.x, [178.5, 179.5, 180.5, 181.5, 182.5])
    np.testing.assert_array_equal(out.values[0], (out.x.values - 0.5 - west) % 360)
    assert out.emb.geobox.shape == (2, 5)


@pytest.mark.parametrize("west", [-180.0, 0.0])
def test_crop_to_a_box_of_more_than_half_the_world(west):
    out = world(west).emb.crop((-120.0, -23.0, 170.0, 23.0))
    np.testing.assert_allclose(out.x, np.arange(-119.5, 170))
    np.testing.assert_array_equal(out.values[0], (out.x.values - 0.5 - west) % 360)
    assert world(west).emb.crop((-180.0, -90.0, 180.0, 90.0)).sizes == world(west).sizes


def test_a_box_around_the_pole_holds_it():
    grid = geometry.make_geobox((40, 40), rasterio.Affine(1e5, 0, -2e6, 0, -1e5, 2e6), "EPSG:3995")
    pole = xr.DataArray(np.ones((40, 40)), dims=("y", "x"), coords=geometry.grid_coords(grid))
    out = pole.emb.crop((-180.0, 85.0, 180.0, 90.0))
    assert out.sizes == {"y": 12, "x": 12}  # 5° are 556 km
    np.testing.assert_array_equal(out.x, -out.y)


def test_a_polygon_in_degrees_meets_a_grid_past_180():
    part = shapely.box(-179, 10, -177, 12)
    np.testing.assert_allclose(world(0.0).emb.crop(part).x, [181.5, 182.5])


def test_points_of_a_raster_are_no_patches_to_sample():
    points = scene().emb.year(2018).emb.sample(places())
    with pytest.raises(
        EmbeddingError, match=r"sample looks for the patch.*single pixels of 'alphaearth': use the"
    ):
        points.emb.sample(places())


def test_no_overlap_says_what_is_covered():
    with pytest.raises(CoverageError, match=r"bbox \(1, 2, 3, 4\).*does not overlap.*lon/lat"):
        scene().emb.crop((1, 2, 3, 4))
    with pytest.raises(CoverageError, match="polygon does not overlap"):
        scene().emb.crop(shapely.box(1, 2, 3, 4))
    points = scene().emb.year(2018).emb.sample(places())
    with pytest.raises(CoverageError, match="holds none of the"):
        points.emb.crop(shapely.box(1, 2, 3, 4))


# --- tables -----------------------------------------------------------------------------------------------------


def test_a_row_a_location():
    table = places(6)
    frame = scene().emb.year(2018).emb.sample(table).emb.to_dataframe()
    assert frame.index.equals(table.index.rename("location"))
    assert frame["land_cover"].tolist() == table["land_cover"].tolist()
    np.testing.assert_array_equal(
        frame[list(gx.product("alphaearth").bands)], scene().emb.year(2018).emb.sample(table).values
    )
    assert frame.attrs["product"] == "alphaearth"
    assert "Google" in frame.attrs["attribution"]


def test_a_row_a_location_and_time():
    frame = scene().emb.sample(places(3)).emb.to_dataframe()
    assert frame.index.names == ["location", "time"]
    assert len(frame) == 6
    value = scene().emb.sample(places(3)).sel(time="2024")[0, 1, 5]
    assert frame.loc[(1, pd.Timestamp("2024-01-01")), "A05"] == value


def test_rasters_and_maps_become_tables():
    da = scene().emb.year(2018).isel(y=slice(3), x=slice(4))
    frame = da.emb.to_dataframe()
    assert frame.index.names == ["y", "x"]
    assert frame.loc[(da.y.values[1], da.x.values[2]), "A03"] == da.values[3, 1, 2]
    truth = gx.testing.scene().truth(da.emb.geobox, 2018)
    assert truth.emb.to_dataframe()["land_cover"].tolist() == truth.values.reshape(-1).tolist()


def test_a_table_beyond_memory_is_refused(monkeypatch):
    from geoemb_xr.execution import memory

    monkeypatch.setattr(memory, "free_memory", lambda: 10_000)
    with raise_if_dask_computes(), pytest.raises(MemoryError, match="sample or crop first"):
        scene(chunks=20).emb.to_dataframe()


def test_geodataframes_lie_where_the_points_do():
    table = places(6)
    frame = scene().emb.year(2018).emb.sample(table).emb.to_geodataframe().to_crs(4326)
    np.testing.assert_allclose(frame.geometry.x, table["lon"], atol=1e-9)
    raster = scene().emb.year(2018).isel(y=slice(2), x=slice(2)).emb.to_geodataframe()
    assert raster.crs.to_epsg() == 32632
    with pytest.raises(EmbeddingError, match="needs 'x', 'y' and a CRS"):
        scene().emb.sample(table).drop_vars("spatial_ref").emb.to_geodataframe()
    with pytest.raises(EmbeddingError, match="needs 'location', or 'y' and 'x'"):
        scene().isel(y=0).emb.to_dataframe()


def test_real_chip_both_ways_up(real_data):
    folder = real_data / "alphaearth-raster"
    up, down = (gx.open("alphaearth", folder / f"aef_wi_2024_int8_{way}up.tif") for way in ("north", "south"))
    west, south, east, north = (up.x.min(), up.y.min(), up.x.max(), up.y.max())
    middle = shapely.Point((west + east) / 2, (south + north) / 2).buffer(300)
    frame = gpd.GeoSeries([middle], crs=up.emb.crs)
    a, b = (da.emb.crop(frame).compute() for da in (up, down))
    np.testing.assert_array_equal(a.values, b.values)
    points = frame.sample_points(30, rng=0).explode(index_parts=False)
    np.testing.assert_array_equal(
        *(da.emb.sample(gpd.GeoDataFrame(geometry=points)).values for da in (up, down))
    )


# --- patches by place -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", ["earth-index", "clay-v0"])
def test_patches_are_asked_by_place(product):
    patches = gx.open(product, gx.example(product))
    here = (float(patches.x[7]), float(patches.y[7]))
    best = patches.emb.search(here, 1, exclude_query=False)
    assert (best.lon[0], best.lat[0]) == pytest.approx(here)
    spot = shapely.Point(here)
    around = spot.buffer(0.02)
    inside = patches.emb.crop(around)
    centres = shapely.points(patches.x.values, patches.y.values)
    assert (
        inside.location.values.tolist() == patches.location.values[shapely.covers(around, centres)].tolist()
    )
    frame = patches.emb.to_geodataframe()
    touched = patches.emb.crop(around, all_touched=True)
    assert touched.location.values.tolist() == frame.index[frame.intersects(around)].tolist()
    box = patches.emb.crop(around.bounds)
    assert box.location.values.tolist() == frame.index[frame.intersects(shapely.box(*around.bounds))].tolist()
    alike = patches.emb.similarity(around)
    expected = patches.emb.similarity(inside)
    np.testing.assert_allclose(alike, expected, atol=1e-6)
    assert set(alike.emb.to_geodataframe().geom_type) == {"Polygon"}
    with pytest.raises(CoverageError, match="1 of 1 query points lie in none of the"):
        patches.emb.similarity((0.0, 0.0))
    with pytest.raises(CoverageError, match="holds none of the"):
        patches.emb.crop((1, 2, 3, 4))


def test_footprints_at_180_come_in_two_parts():
    vectors = np.ones((3, 384), np.float32)
    patches = gx.wrap(vectors, "earth-index", x=[179.9995, -179.9995, 170.0], y=[-17.0] * 3)
    frame = patches.emb.to_geodataframe()
    assert [len(shapely.get_parts(each)) for each in frame.geometry] == [2, 2, 1]
    assert frame.total_bounds[[0, 2]].tolist() == [-180, 180]
    areas = frame.to_crs(3832).area  # cut at 180 or not, they are as large
    np.testing.assert_allclose(areas, areas[2], rtol=3e-3)
    fiji = shapely.MultiPolygon([shapely.box(179, -18, 180, -16), shapely.box(-180, -18, -179, -16)])
    assert patches.emb.crop(fiji).location.values.tolist() == [0, 1]
    assert patches.emb.zonal_stats(fiji).values[0, 0] == 1


# --- around the globe -------------------------------------------------------------------------------------------


def globe(west):
    """A grid of the whole world by degrees, from a longitude on, each pixel its longitude within ±180."""
    grid = geometry.make_geobox((40, 360), rasterio.Affine(1, 0, west, 0, -1, 20), 4326)
    lon = (grid.affine.c + np.arange(360) + 0.5 + 180) % 360 - 180
    data = np.broadcast_to(lon.astype(np.float32), (40, 360)).copy()
    return xr.DataArray(data, dims=("y", "x"), coords=geometry.grid_coords(grid), name="lon")


FIJI = {
    "two parts": shapely.MultiPolygon([shapely.box(177, -18, 180, -16), shapely.box(-180, -18, -178, -16)]),
    "past 180": shapely.box(177, -18, 182, -16),
    "not cut": shapely.Polygon([(177, -18), (-178, -18), (-178, -16), (177, -16)]),
    "box": (177, -18, -178, -16),
    "box past 180": (177, -18, 182, -16),
}


@pytest.mark.parametrize("way", FIJI)
@pytest.mark.parametrize("west", [-180, 0])
def test_shapes_across_the_antimeridian_are_cut_small(way, west):
    found = globe(west).emb.crop(FIJI[way])
    assert found.shape == (2, 5)
    assert found.values[0].tolist() == [177.5, 178.5, 179.5, -179.5, -178.5]
    if not isinstance(FIJI[way], tuple):
        mean = np.abs(globe(west).emb.zonal_stats(FIJI[way], stats="stats").sel(component="min").item())
        assert mean == 179.5  # of -179.5: both sides are in it
        assert globe(west).chunk({"x": 100}).emb.zonal_stats(FIJI[way]).compute().item() == pytest.approx(
            np.mean([177.5, 178.5, 179.5, -179.5, -178.5]), rel=1e-6
        )


@pytest.mark.parametrize("west", [-180, 0])
def test_points_are_found_a_turn_away(west):
    points = [(182.2, 0.0), (-177.8, 0.0), (-190.0, 0.0), (359.5, 0.0)]
    assert globe(west).emb.sample(points).values.tolist() == [-177.5, -177.5, 170.5, -0.5]


@pytest.mark.parametrize(
    "values",
    [
        pd.Categorical(["a", None, "b"]),
        pd.date_range("2020", periods=3, tz="Europe/Vienna"),
        pd.array([True, None, False], dtype="boolean"),
        pd.array([1, None, 2**60], dtype="Int64"),
    ],
    ids=lambda values: str(values.dtype),
)
def test_columns_of_pandas_own_types_stay_in_a_table(values):
    array = gx.testing.synthetic("alphaearth", shape=(20, 20)).emb.sample([(11.37, 47.25)] * 3)
    column = pd.Series(values, index=array.indexes["location"], name="rides")
    array = array.isel(time=[0, 0]).assign_coords(rides=("location", values))
    for table in (array.emb.to_dataframe(), array.emb.to_geodataframe()):
        for time in (0, 1):
            pd.testing.assert_series_equal(table["rides"].iloc[time::2].droplevel("time"), column)
