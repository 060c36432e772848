"""Opening what lies turned, in several UTM zones, or on both sides of the antimeridian."""

import numpy as np
import pytest
import xarray as xr
from affine import Affine

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.readers import geotiff


def turned_grid(degrees=30.0, shape=(70, 90)):
    """A grid of 10 m around the scene's centre, turned."""
    middle = testing.geobox((2, 2)).affine * (1, 1)
    turn = Affine.translation(*middle) * Affine.rotation(degrees) * Affine.scale(10, -10)
    return geometry.make_geobox(shape, turn * Affine.translation(-shape[1] / 2, -shape[0] / 2), 32632)


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """A COG on a turned grid, no two pixels alike."""
    grid = turned_grid()
    codes = np.random.default_rng(0).integers(-127, 128, (64, *grid.shape), dtype=np.int8)
    path = tmp_path_factory.mktemp("turned") / "2024" / "turned.tif"
    return geotiff.write_geotiff(path, codes, grid, nodata=-128, interleave="band"), grid, codes


def test_a_rotated_raster_opens_upright_in_a_crs_turned_with_it(turned):
    path, grid, codes = turned
    with testing.raise_if_dask_computes():
        da = gx.open("alphaearth", path, decode=False)
    np.testing.assert_array_equal(da.values[0], codes)
    assert da.emb.crs.name == "WGS 84 / UTM zone 32N, turned"
    back = geometry.transformer(da.emb.crs, geometry.as_crs(32632))
    x, y = np.meshgrid(da["x"], da["y"])
    c, r = np.meshgrid(np.arange(90) + 0.5, np.arange(70) + 0.5)
    np.testing.assert_allclose(back.transform(x, y), grid.affine * (c, r), rtol=0, atol=1e-6)


def test_a_rotated_raster_is_cut_and_sampled(turned):
    path, grid, codes = turned
    da = gx.open("alphaearth", path, decode=False, time=2024)
    lon, lat = geometry.transformer(geometry.as_crs(32632), geometry.as_crs(4326)).transform(
        *(grid.affine * (np.array([10.5, 40.2, 80.7]), np.array([5.5, 30.9, 60.1])))
    )
    for points in (
        da.emb.sample(np.c_[lon, lat]),
        gx.open("alphaearth", path, points=np.c_[lon, lat], decode=False),
    ):
        np.testing.assert_array_equal(points.values[0], codes[:, [5, 30, 60], [10, 40, 80]].T)
    bbox = (lon[1] - 2e-4, lat[1] - 1e-4, lon[1] + 2e-4, lat[1] + 1e-4)
    part = gx.open("alphaearth", path, bbox=bbox, decode=False)
    assert 0 < part.sizes["x"] < 20
    xr.testing.assert_equal(part.compute(), da.sel(x=part["x"], y=part["y"]).compute())
    cropped = da.emb.crop(bbox)
    xr.testing.assert_equal(cropped.compute(), part.compute())


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:3035", "EPSG:4326"])
def test_a_rotated_raster_warps_as_gdal_does_it(turned, how, crs):
    from rasterio.warp import Resampling, reproject

    path, grid, _ = turned
    band = (gx.open("alphaearth", path, decode=False).isel(time=0, band=0, drop=True) / 127).astype("f4")
    band.attrs = {}
    with testing.raise_if_dask_computes():
        got = gx.reproject(band, crs, resampling=how)
    xr.testing.assert_equal(got.compute(), gx.reproject(band.compute(), crs, resampling=how))
    target = geometry.geobox_of(got)
    expected = np.full(got.shape, np.nan, np.float32)
    reproject(
        band.values, expected, src_transform=grid.affine, src_crs="EPSG:32632", src_nodata=np.nan,
        dst_transform=target.affine, dst_crs=crs, dst_nodata=np.nan, resampling=Resampling[how], tolerance=0.0,
        XSCALE=1, YSCALE=1,  # no wider filter where a rotated window looks like a smaller scale
    )  # fmt: skip
    c, r = np.meshgrid(np.arange(target.shape[1]) + 0.5, np.arange(target.shape[0]) + 0.5)
    move = geometry.transformer(geometry.as_crs(crs), geometry.as_crs(32632))
    col, row = ~grid.affine * move.transform(*(target.affine * (c, r)))
    inner = (row > 1) & (row < 69) & (col > 1) & (col < 89)
    assert inner.mean() > 0.3
    difference = abs(got.values - expected)[inner]
    if how == "nearest":
        assert (difference == 0).mean() > 0.998  # all but those on an edge
    else:
        assert difference.max() < 2e-3 * np.ptp(band.values)


def test_rotated_arrays_are_wrapped_and_travel(turned, tmp_path):
    import pickle

    _, grid, codes = turned
    da = gx.wrap(codes, "alphaearth", geobox=grid, time=2024)
    again = pickle.loads(pickle.dumps(da))
    assert geometry.same_grid(da.emb.geobox, again.emb.geobox)
    assert geometry.same_crs(geometry.as_crs(da["spatial_ref"].attrs["crs_wkt"]), da.emb.crs)
    out = gx.reproject(again, "EPSG:3035", resolution=10)
    xr.testing.assert_identical(out, gx.reproject(da.chunk(y=20, x=33), "EPSG:3035", resolution=10).compute())
    assert out.emb.crs.to_epsg() == 3035
    da.emb.to_zarr(tmp_path / "turned.zarr")
    assert geometry.same_grid(gx.open(tmp_path / "turned.zarr").emb.geobox, da.emb.geobox)
    with pytest.raises(EmbeddingError, match="GeoTIFF cannot say the CRS 'WGS 84 / UTM zone 32N, turned'"):
        da.emb.to_cog(tmp_path / "turned.tif")


#: UTM zone, and west, south, east, north of its tile in degrees: they overlap, and the widest comes first.
ZONES = {
    32660: (178.3, 51.8, 180.6, 52.1),
    32601: (-180.4, 51.7, -173.6, 52.2),
    32602: (-174.6, 51.9, -173.0, 52.1),
}


@pytest.fixture(scope="module")
def zones(tmp_path_factory):
    """Tiles of zones 60, 1 and 2, of 500 m, south-up, no two pixels alike, with a hole in the widest."""
    folder, rng, stored = tmp_path_factory.mktemp("zones"), np.random.default_rng(0), {}
    for crs, (west, south, east, north) in ZONES.items():
        move = geometry.transformer(geometry.as_crs(4326), geometry.as_crs(crs))
        left, bottom, right, top = move.transform_bounds(west, south, east, north)
        shape = (int((top - bottom) // 500), int((right - left) // 500))
        affine = Affine(500, 0, left // 500 * 500, 0, -500, top // 500 * 500)
        codes = rng.integers(-127, 128, (64, *shape), dtype=np.int8)
        if crs == 32601:
            codes[3, :, 10:20] = -128  # of a vector: all of it is missing
        grid = geometry.make_geobox(shape, affine, crs)
        geotiff.write_geotiff(
            folder / "2024" / f"{crs}.tif", np.ascontiguousarray(codes[:, ::-1]), grid.flipy(), nodata=-128,
            compress="zstd", interleave="band", blockxsize=64, blockysize=64,
        )  # fmt: skip
        stored[crs] = grid, codes
    return folder, stored


def by_proj(stored, target):
    """The first zone's pixel that PROJ finds for each of the target's, and which lie clear of pixel edges."""
    height, width = target.shape
    c, r = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = target.affine * (c, r)
    found, clear = np.full((64, height, width), -128, np.int8), np.ones((height, width), bool)
    for crs in (32601, 32660, 32602):
        grid, codes = stored[crs]
        move = geometry.transformer(geometry.as_crs(target.crs), geometry.as_crs(crs))
        col, row = ~grid.affine * move.transform(x, y)
        clear &= (abs(row - np.round(row)) > 0.01) & (abs(col - np.round(col)) > 0.01)
        inside = (row >= 0) & (row < grid.shape[0]) & (col >= 0) & (col < grid.shape[1])
        inside &= (found[0] == -128) & (found == -128).all(0)
        row, col = row[inside].astype(int), col[inside].astype(int)
        vectors = codes[:, row, col]
        vectors[:, (vectors == -128).any(0)] = -128
        found[:, inside] = vectors
    return found, clear


@pytest.mark.parametrize(
    ("crs", "affine", "shape"),
    [
        (4326, (0.012, 0, 178.2, 0, -0.008, 52.25), (75, 750)),  # x runs on past 180
        (4326, (0.012, 0, -181.8, 0, -0.008, 52.25), (75, 750)),
        (3832, (1200, 0, 3.1e6, 0, -1200, 6.83e6), (80, 850)),  # Mercator around 150° E
        (3413, (1200, 0, -3.45e6, 0, -1200, 3.4e6), (550, 500)),  # polar, the antimeridian aslant
    ],
)
def test_three_zones_and_the_antimeridian_are_one_call(zones, crs, affine, shape):
    folder, stored = zones
    target = geometry.make_geobox(shape, Affine(*affine), crs)
    with testing.raise_if_dask_computes():
        got = gx.open("alphaearth", folder, geobox=target, decode=False, resampling="nearest", time=2024)
        other = gx.open(
            "alphaearth", folder, geobox=target, decode=False, resampling="nearest", time=2024, chunks=111
        )
    assert got.chunks is not None
    assert geometry.same_grid(got.emb.geobox, target)
    values = got.values[0]
    missing = (values == -128).any(0)
    expected, clear = by_proj(stored, target)
    assert clear.mean() > 0.85
    np.testing.assert_array_equal(missing[clear], (expected[0] == -128)[clear])
    np.testing.assert_array_equal(values[:, clear & ~missing], expected[:, clear & ~missing])
    for grid, _ in stored.values():  # all of them are seen
        assert (~missing).mean() > 0.02, grid
    np.testing.assert_array_equal(other.values[0], values)
    middle = np.argwhere(~missing)[(~missing).sum() // 2]
    window = tuple(slice(max(n - 30, 0), n + 30) for n in middle)
    part = gx.open("alphaearth", folder, geobox=target[window], decode=False, resampling="nearest")
    np.testing.assert_array_equal(part.values[0], values[:, *window])


def within(bbox, grid):
    """Pixels whose centres lie in a box across the antimeridian."""
    x, y = np.meshgrid(np.arange(grid.shape[1]) + 0.5, np.arange(grid.shape[0]) + 0.5)
    move = geometry.transformer(geometry.as_crs(grid.crs), geometry.as_crs(4326))
    lon, lat = move.transform(*(grid.affine * (x, y)))
    return ((lon % 360) >= bbox[0]) & ((lon % 360) <= bbox[2] + 360) & (lat >= bbox[1]) & (lat <= bbox[3])


def test_which_zone_wins_does_not_depend_on_the_window(zones):
    """Around 180 zone 60 covers most of a small window, of a large one zone 1 does."""
    folder, _ = zones
    target = geometry.make_geobox((150, 700), Affine(0.006, 0, 178.2, 0, -0.004, 52.25), 4326)
    whole = gx.open("alphaearth", folder, geobox=target, decode=False, time=2024).compute()
    for columns in (slice(0, 350), slice(200, 320), slice(260, 700)):
        part = gx.open("alphaearth", folder, geobox=target[:, columns], decode=False, time=2024)
        np.testing.assert_array_equal(part.values, whole.values[..., columns])


def test_a_bbox_across_the_antimeridian_takes_all_its_zones(zones):
    folder, stored = zones
    bbox = (178.5, 51.75, -173.2, 52.15)
    with testing.raise_if_dask_computes():
        got = gx.open("alphaearth", folder, bbox=bbox, decode=False)
        degrees = gx.open("alphaearth", folder, bbox=bbox, decode=False, crs=4326, resolution=0.005)
    assert got.emb.crs.to_epsg() == 32601
    for each in (got, degrees):
        expected, clear = by_proj(stored, each.emb.geobox)
        clear &= within(bbox, each.emb.geobox)
        values = each.values[0]
        missing = (values == -128).any(0)
        np.testing.assert_array_equal(missing[clear], (expected[0] == -128)[clear])
        np.testing.assert_array_equal(values[:, clear & ~missing], expected[:, clear & ~missing])
    west, south, east, north = degrees.emb.geobox.boundingbox
    np.testing.assert_allclose((west, south, east, north), (178.5, 51.75, 186.8, 52.15), atol=0.006)
    separate = gx.open("alphaearth", folder, bbox=bbox, decode=False, zones="separate")
    assert set(separate) == {"EPSG:32660", "EPSG:32601", "EPSG:32602"}


def test_degrees_and_targets_stay_upright(turned, tmp_path):
    path, grid, codes = turned
    degrees = geometry.make_geobox(
        grid.shape, Affine.translation(11, 47) * Affine.rotation(5) * Affine.scale(1e-4, -1e-4), 4326
    )
    with pytest.raises(ValueError, match="not in EPSG:4326; warp it to a north-up grid"):
        gx.wrap(codes, "alphaearth", geobox=degrees)
    file = geotiff.write_geotiff(tmp_path / "2024" / "degrees.tif", codes, degrees, nodata=-128)
    with pytest.raises(SourceError, match=r"degrees.tif: a grid may be rotated in a projected CRS"):
        gx.open("alphaearth", file)
    with pytest.raises(ValueError, match="rotated grid has no 1-D x and y; give a north-up GeoBox"):
        gx.open("alphaearth", path, geobox=grid)
