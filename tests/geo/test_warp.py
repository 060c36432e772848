"""Warping against PROJ pixel by pixel, GDAL, a slow float64 reference, and itself in other chunks."""

from functools import lru_cache

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr.core import geometry
from geoemb_xr.core.errors import ComparabilityError, EmbeddingError
from geoemb_xr.geo import cell_kernels, cells, lattice, resampling_kernels
from geoemb_xr.testing import assert_lazy_identical


def proj_positions(source, target):
    """Row and column of the target's pixel centres in the source, by PROJ in double precision."""
    height, width = target.shape
    c, r = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = target.affine * (c, r)
    move = geometry.transformer(geometry.as_crs(target.crs), geometry.as_crs(source.crs))
    col, row = ~source.affine * move.transform(x, y)
    return np.asarray(row), np.asarray(col)


def test_nearest_moves_codes_where_proj_says():
    codes = gx.testing.synthetic("alphaearth", shape=(150, 140), decode=False, missing=True)
    got = codes.emb.reproject("EPSG:3035", resolution=10)
    row, col = proj_positions(geometry.geobox_of(codes), geometry.geobox_of(got))
    inside = (row >= 0) & (row < 150) & (col >= 0) & (col < 140)
    expected = np.full(got.shape[1:], -128, np.int8)
    expected[:, inside] = codes.values[0][:, row[inside].astype(int), col[inside].astype(int)]
    near_edge = (abs(row - np.round(row)) < 0.01) | (abs(col - np.round(col)) < 0.01)
    assert near_edge.mean() < 0.05
    np.testing.assert_array_equal(got.values[0][:, ~near_edge], expected[:, ~near_edge])
    assert got.dtype == np.int8
    assert got.attrs == codes.attrs


@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
@pytest.mark.parametrize("how", ["nearest", "bilinear", "average"])
@pytest.mark.parametrize("decode", [True, False])
def test_lazy_is_the_same(product, how, decode):
    array = gx.testing.synthetic(product, shape=(40, 50), years=[2018, 2019], decode=decode, missing=True)
    assert_lazy_identical(lambda a: gx.reproject(a, "EPSG:3035", resolution=9, resampling=how), array)


def test_nearest_of_codes_decodes_to_nearest_of_vectors():
    codes = gx.testing.synthetic("tessera", shape=(30, 30), decode=False, missing=True)
    target = gx.testing.geobox((30, 30), crs="EPSG:3035")
    xr.testing.assert_identical(
        gx.reproject(codes, target).emb.decode(), gx.reproject(codes.emb.decode(), target)
    )


@pytest.mark.parametrize("product", ["alphaearth", "tessera", "esd"])
@pytest.mark.parametrize("how", ["bilinear", "average"])
@pytest.mark.parametrize("resolution", [9, 47, 700])
def test_codes_mix_as_their_vectors_do(product, how, resolution):
    """To the bit, whether the kernel decodes or the codec does; but sums of signed squares are exact."""
    codes = gx.testing.synthetic(product, shape=(70, 75), decode=False, missing=True)
    of_codes = gx.reproject(codes, "EPSG:3035", resolution=resolution, resampling=how)
    of_vectors = gx.reproject(codes.emb.decode(), "EPSG:3035", resolution=resolution, resampling=how)
    exact = product == "alphaearth" and how == "average"
    np.testing.assert_allclose(of_codes.values, of_vectors.values, rtol=0, atol=1e-6 if exact else 0)
    assert of_codes.notnull().any()


def test_sums_of_signed_squares_are_exact():
    """Means of codes are the nearest float32 to the means of the true values, missing pixels left out."""
    codes = gx.testing.synthetic("alphaearth", shape=(37, 46), decode=False, missing=True)[0]
    for size in (2, 3, 5):
        got = codes.chunk(y=20, x=20).emb.coarsen(size).values
        square = codes.values.astype(np.int64) * abs(codes.values.astype(np.int64))
        there = (codes.values != -128).all(0)
        sums = [np.where(there, square, 0), there]
        for axis, n in ((-2, 37), (-1, 46)):
            sums = [np.add.reduceat(each, np.arange(0, n, size), axis, dtype=np.int64) for each in sums]
        length = np.sqrt((sums[0] ** 2).sum(0).astype(np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = np.where(sums[1] > 0, sums[0] / length, np.nan)
        np.testing.assert_allclose(got, expected.astype(np.float32), rtol=1.2e-7, atol=0)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2"])
@pytest.mark.parametrize("chunks", [{}, {"y": 16, "x": 20}])
def test_values_may_have_their_bytes_in_another_order(dtype, chunks):
    """As NetCDF's and big-endian GeoTIFFs' have."""
    plain = gx.testing.synthetic("alphaearth", shape=(36, 40), missing=True)[0]
    if dtype == ">i2":  # a class map
        values = np.arange(36 * 40, dtype="i2").reshape(36, 40) % 7
        plain = plain.isel(band=0, drop=True).copy(data=values).drop_attrs(deep=False)
    other = plain.astype(dtype, keep_attrs=True)
    native = plain.astype(np.dtype(dtype).newbyteorder("="), keep_attrs=True)
    other, native = (each.chunk(chunks) if chunks else each for each in (other, native))
    hows = ["nearest"] if dtype == ">i2" else ["nearest", "bilinear", "average"]
    calls = [lambda a, how=how: gx.reproject(a, "EPSG:3035", resolution=10, resampling=how) for how in hows]
    for call in calls if dtype == ">i2" else [*calls, lambda a: a.emb.coarsen(2)]:
        got = call(other)
        assert got.compute().dtype == got.dtype == native.dtype
        xr.testing.assert_identical(got.compute(), call(native).compute())


def test_coarsen_is_the_mean_of_base_pixels():
    da = gx.testing.synthetic("alphaearth", shape=(12, 20))
    mean = da.coarsen(y=4, x=4).mean()
    mean = mean / np.sqrt((mean**2).sum("band"))
    got = da.emb.coarsen(4)
    np.testing.assert_allclose(got.values, mean.values, atol=1e-6)
    np.testing.assert_allclose(got.x, mean.x)


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
def test_whole_cells_are_what_footprints_give(product, decode, monkeypatch):
    """To the bit, also where blocks cut cells; resultant lengths go the other way."""
    da = gx.testing.synthetic(product, shape=(43, 61), missing=True, decode=decode)
    da = da.isel(y=slice(None, None, -1), band=slice(6)).chunk(
        y=12, x=16
    )  # 6: squares are added four by four
    sizes = (2, 3, 5, 4)
    both = [da.emb.coarsen(size).compute() for size in sizes]
    agreeing = da.emb.coarsen(4, resultant_length=True)
    np.testing.assert_array_equal(agreeing["embedding"], both[-1])
    monkeypatch.setattr(cells, "means", lambda *_: None)
    for size, one in zip(sizes, both, strict=True):
        xr.testing.assert_identical(one, da.emb.coarsen(size).compute())
    assert both[0].isnull().any()
    assert both[0].notnull().any()


def test_cells_that_blocks_cut_need_no_footprints(monkeypatch):
    da = gx.testing.synthetic("alphaearth", shape=(20, 20)).chunk(y=8, x=8)
    monkeypatch.setattr(resampling_kernels, "average", None)
    assert da.emb.coarsen(3).compute().shape[-2:] == (7, 7)


def test_cells_and_footprints_add_squares_in_one_order():
    """In float64, where another order shows."""
    values, factors = np.random.default_rng(0).normal(size=(6, 12, 10)), np.ones((12, 10))
    factors[4, 5] = 0
    means, stats, out = np.empty((6, 5, 6)), np.empty((6, 5, 2), np.float32), np.empty((6, 6, 5))
    corners = np.ascontiguousarray(np.mgrid[0:13:2, 0:11:2]) * lattice.UNITS
    rows = np.ascontiguousarray(values.transpose(1, 2, 0))
    resampling_kernels.average(rows, factors, None, corners, False, True, 1.0, means, stats)
    cell_kernels.cell_means(values, factors, None, 2, True, out)
    np.testing.assert_array_equal(out.transpose(1, 2, 0), means)


def test_points_of_a_lazy_warp():
    """dask's vindex asks for blocks by NumPy's integers."""
    da = gx.testing.synthetic("alphaearth", shape=(64, 64), chunks=32).emb.year(2018)
    coarse = da.emb.coarsen(4)
    points = [(11.37, 47.25), (11.3695, 47.2501)]
    xr.testing.assert_identical(
        coarse.emb.sample(points).compute(), coarse.compute().emb.sample(points).compute()
    )


# --- oracles ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
@pytest.mark.parametrize("crs", ["EPSG:3035", "EPSG:4326"])
def test_one_band_is_what_gdal_gives_with_an_exact_transformer(how, crs):
    from rasterio.warp import Resampling, reproject

    field = smooth_map((120, 130))
    got = gx.reproject(field, crs, resolution=None, resampling=how)
    target = geometry.geobox_of(got)
    expected = np.full(got.shape, np.nan, np.float32)
    box = geometry.geobox_of(field)
    reproject(
        field.values, expected, src_transform=box.affine, src_crs="EPSG:32632", src_nodata=np.nan,
        dst_transform=target.affine, dst_crs=crs, dst_nodata=np.nan, resampling=Resampling[how], tolerance=0.0,
    )  # fmt: skip
    row, col = proj_positions(box, target)
    inner = (row > 1) & (row < 119) & (col > 1) & (col < 129)
    difference = abs(got.values - expected)[inner]
    if how == "nearest":
        assert (difference == 0).mean() > 0.999
    else:
        assert difference.max() < 2e-3 * np.ptp(field.values)  # 1/4096 pixel, and GDAL's float weights


def smooth_map(shape, seed=0):
    box = gx.testing.geobox(shape)
    r, c = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    values = (np.sin(r / 9 + seed) + np.cos(c / 7)).astype("f4")
    return xr.DataArray(values, dims=("y", "x"), coords=geometry.grid_coords(box), name="field")


def slow_average(array, target):
    """Means over true footprints by shapely's polygon overlaps, in float64."""
    import shapely

    box = geometry.geobox_of(array)
    data = array.values.astype("f8")
    out = np.full((data.shape[0], *target.shape), np.nan)
    valid = np.zeros(target.shape)
    move = geometry.transformer(geometry.as_crs(target.crs), geometry.as_crs(box.crs))
    for i in range(target.shape[0]):
        for j in range(target.shape[1]):
            x, y = target.affine * (np.array([j, j + 1, j + 1, j]), np.array([i, i, i + 1, i + 1]))
            col, row = ~box.affine * move.transform(x, y)
            footprint = shapely.Polygon(np.c_[col, row])
            c0, r0, c1, r1 = (int(np.floor(v)) for v in footprint.bounds)
            r, c = np.meshgrid(np.arange(r0, r1 + 1), np.arange(c0, c1 + 1), indexing="ij")
            inside = (r >= 0) & (r < data.shape[1]) & (c >= 0) & (c < data.shape[2])
            r, c = r[inside], c[inside]
            w = shapely.area(shapely.intersection(footprint, shapely.box(c, r, c + 1, r + 1)))
            keep = ~np.isnan(data[0, r, c])
            if (w[keep] > 1e-6).any():
                out[:, i, j] = (data[:, r[keep], c[keep]] * w[keep]).sum(1) / w[keep].sum()
                valid[i, j] = w[keep].sum() / footprint.area
    return out, valid


@pytest.mark.parametrize(
    ("crs", "resolution"), [("EPSG:3035", 33.0), ("EPSG:4326", 0.0007), ("EPSG:3035", 17.0)]
)
def test_average_is_the_mean_over_true_footprints(crs, resolution):
    da = gx.testing.synthetic("alphaearth", shape=(40, 45), missing=True)
    got = da.emb.reproject(crs, resolution=resolution, resampling="average", resultant_length=True)
    mean, valid = slow_average(da.isel(time=0), geometry.geobox_of(got))
    norm = np.sqrt((mean**2).sum(0))
    np.testing.assert_allclose(got.valid_fraction.values[0], valid, atol=2e-3)
    expected = mean / norm
    error = abs(got.embedding.values[0] - expected)
    assert (np.isnan(expected) == np.isnan(got.embedding.values[0])).mean() > 0.99
    assert np.nanmax(error) < 2e-3  # corners are rounded to 1/4096 pixel
    assert np.nanmedian(error) < 1e-4
    lengths = np.sqrt((da.isel(time=0).values.astype("f8") ** 2).sum(0))
    full = valid > 0.999
    ratio = norm[full] / np.nanmean(lengths)
    np.testing.assert_allclose(got.resultant_length.values[0][full], ratio, atol=0.01)


def test_a_mean_of_opposite_vectors_has_no_length_and_one_of_equal_ones_length_one():
    mine = gx.Product("units-of-two", dims=2, unit_norm=True)
    vectors = np.zeros((2, 4, 4), "f4")
    vectors[0] = 1
    vectors[0, :, 2:] = np.array([1, -1] * 2)[:, None]
    da = gx.wrap(vectors, mine, geobox=gx.testing.geobox((4, 4)))
    got = gx.coarsen(da, 2, resultant_length=True)
    np.testing.assert_allclose(got.resultant_length, [[1, 0], [1, 0]], atol=1e-7)
    np.testing.assert_allclose(got.valid_fraction, 1)


def test_mode_is_the_class_of_most_pixels():
    labels = gx.testing.scene().truth(gx.testing.geobox((60, 60)), 2018)
    got = gx.coarsen(labels, 5)
    blocks = labels.values.reshape(12, 5, 12, 5).transpose(0, 2, 1, 3).reshape(12, 12, 25)
    expected = np.apply_along_axis(lambda b: np.bincount(b, minlength=9).argmax(), 2, blocks)
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == labels.dtype
    assert got.attrs == labels.attrs
    hole = labels.copy(data=labels.values.copy())
    hole[:5, :4] = 0
    assert gx.coarsen(hole, 5).values[0, 0] == np.bincount(labels.values[:5, 4]).argmax()
    assert gx.coarsen(hole.where(hole.y < hole.y[5], 0).astype("u1"), 5).values[0, 0] == 0


@pytest.mark.parametrize("before", [-1, 0, 1])
def test_a_footprint_over_an_edge_of_tiles_is_one_mean(before):
    """The last pixel of a tile of 512 begins a footprint, or the first of the next one ends it."""
    factor, number = 100, 7
    base = gx.testing.geobox((1, 1))
    grid = lattice.target_grid(base)
    y, x = (512 - round(axis.start) % 512 for axis in (grid.y, grid.x))  # where the next tile begins
    skipped = [(edge - before) % factor for edge in (y, x)]
    shifted = base.affine * Affine.translation(skipped[1], skipped[0])
    box = geometry.make_geobox((number * factor, number * factor), shifted, base.crs)
    values = np.random.default_rng(0).random((1, *box.shape), "f4") * 300
    got = gx.coarsen(gx.wrap(values, gx.Product("edges", dims=1), geobox=box), factor)
    expected = values.astype("f8").reshape(1, number, factor, number, factor).mean((2, 4))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_sums_by_tiles_are_means_too():
    """Beyond 64 pixels a side a mean is a sum of tiles: 512 pixels wide, at global multiples of 512."""
    box = gx.testing.geobox((1100, 700))
    rng = np.random.default_rng(0)
    mine = gx.Product("sums", dims=3)
    da = gx.wrap(rng.random((3, 1100, 700), "f4") + 1, mine, geobox=box)
    got = gx.coarsen(da, 100, resultant_length=True)
    for chunks in (300, 512, 1100):
        lazy = gx.coarsen(da.chunk(y=chunks, x=chunks), 100, resultant_length=True)
        xr.testing.assert_identical(lazy.compute(), got)
        turned = gx.coarsen(da.transpose("x", "band", "y").chunk(y=chunks, x=chunks), 100)
        np.testing.assert_array_equal(turned.transpose("band", "y", "x"), got.embedding)
    far = gx.reproject(da, "EPSG:3035", resolution=700, chunks=3)
    lazy = gx.reproject(da.chunk(y=333, x=200), "EPSG:3035", resolution=700, chunks=5)
    xr.testing.assert_identical(lazy.compute(), far)


@pytest.mark.parametrize("resolution", [300.0, 900.0])
@pytest.mark.parametrize("chunks", [None, 2, 3])
def test_large_footprints_take_every_pixel_under_them(resolution, chunks):
    """Turned footprints of 30 and 90 pixels a side, over several tiles, are exactextract's means of polygons."""
    exactextract = pytest.importorskip("exactextract")
    box = gx.testing.geobox((700, 640))
    values = np.random.default_rng(1).random((1, 700, 640), "f4") + np.arange(640, dtype="f4") / 50
    da = gx.wrap(values, gx.Product("large", dims=1), geobox=box)
    got = gx.reproject(da, "EPSG:3035", resolution=resolution, resampling="average", chunks=chunks)
    grid = geometry.geobox_of(got)
    left, bottom, right, top = box.boundingbox
    cells = shapely.box(*np.meshgrid(got.x - resolution / 2, got.y - resolution / 2),
                        *np.meshgrid(got.x + resolution / 2, got.y + resolution / 2)).ravel()  # fmt: skip
    outlines = gpd.GeoDataFrame(geometry=shapely.segmentize(cells, resolution / 9), crs=3035).to_crs(32632)
    inside = outlines.within(shapely.box(left, bottom, right, top)).to_numpy()
    source = exactextract.raster.NumPyRasterSource(values[0].astype("f8"), left, bottom, right, top)
    expected = exactextract.exact_extract(source, outlines[inside], ["mean"], output="pandas")["mean"]
    assert inside.sum() >= 20
    np.testing.assert_allclose(got.values.reshape(grid.shape).ravel()[inside], expected, rtol=2e-4)


# --- invariance -------------------------------------------------------------------------------------------------

TARGETS = [
    ("EPSG:3035", 10.0),
    ("EPSG:4326", 1e-4),
    ("EPSG:3857", 24.0),
    ("EPSG:32633", 7.0),
    ("EPSG:32632", 10.0),
]


@lru_cache
def scene_array(product, decode, south_up):
    return gx.testing.synthetic(product, shape=(60, 50), decode=decode, missing=True, south_up=south_up)


@given(data=st.data())
def test_no_chunking_and_no_crop_changes_a_bit(data):
    """reproject(a, g)[w] == reproject(a, g[w]), whatever the chunks of both, and for a crop with margin."""
    product = data.draw(st.sampled_from(["alphaearth", "tessera"]))
    how = data.draw(st.sampled_from(["nearest", "bilinear", "average"]))
    crs, resolution = data.draw(st.sampled_from(TARGETS))
    array = scene_array(product, data.draw(st.booleans()), data.draw(st.booleans()))
    target = gx.testing.geobox((45, 55), crs=crs, resolution=resolution)
    whole = gx.reproject(array, target, resampling=how)
    r, c = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 50))
    h, w = data.draw(st.integers(2, 45 - r)), data.draw(st.integers(2, 55 - c))
    expected = whole.isel(y=slice(r, r + h), x=slice(c, c + w))
    sides = st.integers(7, 60)
    chunked = array.chunk(y=data.draw(sides), x=data.draw(sides))
    chunks = (data.draw(sides), data.draw(sides))
    window = target[r : r + h, c : c + w]
    part = gx.reproject(chunked, window, resampling=how, chunks=chunks)
    np.testing.assert_array_equal(part.values, expected.values)
    np.testing.assert_allclose(part.x, expected.x, rtol=0, atol=1e-6 * resolution)  # a GeoBox's own rounding
    row, col = proj_positions(geometry.geobox_of(geometry.north_up_array(array)), window)
    margin = int(np.ceil(resolution * (111_320 if resolution < 1 else 1) / 10)) + 2
    rows = slice(max(int(row.min()) - margin, 0), max(int(row.max()) + margin, 2))
    cols = slice(max(int(col.min()) - margin, 0), max(int(col.max()) + margin, 2))
    crop = geometry.north_up_array(array).isel(y=rows, x=cols)
    if min(crop.sizes["y"], crop.sizes["x"]) > 1:
        from_crop = gx.reproject(crop, window, resampling=how)
        np.testing.assert_array_equal(from_crop.values, expected.values)


def test_south_up_and_west_up_are_the_same_map():
    up = gx.testing.synthetic("tessera", shape=(30, 40), decode=False, missing=True)
    down = up.isel(y=slice(None, None, -1), x=slice(None, None, -1))
    for how in ("nearest", "bilinear", "average"):
        one = gx.reproject(up, "EPSG:3035", resolution=12, resampling=how)
        xr.testing.assert_identical(one, gx.reproject(down, "EPSG:3035", resolution=12, resampling=how))
        lazy = gx.reproject(down.chunk(y=11, x=13), "EPSG:3035", resolution=12, resampling=how)
        xr.testing.assert_identical(one, lazy.compute())


@pytest.mark.parametrize("how", ["nearest", "bilinear", "average"])
def test_its_own_grid_changes_nothing(how):
    da = gx.testing.synthetic("tessera", shape=(20, 30), missing=True)
    same = gx.reproject(da, da, resampling=how)
    xr.testing.assert_allclose(same, da, rtol=1e-6)
    if how == "nearest":
        xr.testing.assert_identical(same, da)


def test_an_exact_edge_belongs_to_the_pixel_of_higher_number():
    field = smooth_map((8, 8))
    box = geometry.geobox_of(field)
    shifted = geometry.make_geobox((7, 7), box.affine * box.affine.translation(0.5, 0.5), box.crs)
    np.testing.assert_array_equal(gx.reproject(field, shifted, resampling="nearest"), field.values[1:, 1:])


def test_around_the_world_has_no_edge():
    """A global grid in degrees, read across 180° and over the pole."""
    world = geometry.make_geobox((180, 360), Affine(1, 0, -180, 0, -1, 90), 4326)
    lon = geometry.grid_coords(world)["x"].values
    values = np.broadcast_to(np.cos(np.radians(lon)), (180, 360)).astype("f4")
    field = xr.DataArray(values, dims=("y", "x"), coords=geometry.grid_coords(world))
    past = geometry.make_geobox((10, 20), Affine(0.5, 0, 175, 0, -0.5, 10), 4326)
    expected = np.cos(np.radians(geometry.grid_coords(past)["x"].values))
    for array in (field, field.chunk(y=50, x=77)):
        got = gx.reproject(array, past, resampling="bilinear")
        np.testing.assert_allclose(got.values, np.broadcast_to(expected, got.shape), atol=2e-4)
    polar = geometry.make_geobox((40, 40), Affine(50_000, 0, -1e6, 0, -50_000, 1e6), 3413)
    one = gx.reproject(field, polar, resampling="bilinear")
    assert not one.isnull().any()
    xr.testing.assert_identical(
        one, gx.reproject(field.chunk(y=60, x=100), polar, resampling="bilinear", chunks=9).compute()
    )


# --- what is carried ----------------------------------------------------------------------------------------------


def test_outside_is_missing_in_the_arrays_own_way():
    away = gx.testing.geobox((4, 5), offset=(1e5, 0))
    for product, decode in (
        ("alphaearth", False),
        ("alphaearth", True),
        ("tessera", False),
        ("tessera", True),
    ):
        array = gx.testing.synthetic(product, shape=(9, 9), decode=decode)
        for each in (array, array.chunk(y=4, x=4)):
            for how in ("nearest", "bilinear", "average"):
                got = gx.reproject(each, away, resampling=how)
                assert got.emb.encoded == (how == "nearest" and not decode)
                assert got.emb.decode().isnull().all()


def test_scales_go_with_their_codes():
    codes = gx.testing.synthetic("tessera", shape=(20, 20), decode=False, missing=True, chunks=7)
    target = gx.testing.geobox((30, 30), crs="EPSG:3035")
    got = gx.reproject(codes, target, chunks=11)
    assert got.scale.chunks is not None
    assert got.scale.dims == ("time", "y", "x")
    xr.testing.assert_identical(
        got.emb.decode().compute(), gx.reproject(codes.emb.decode(), target).compute()
    )


def test_maps_keep_their_attributes_and_dimensions():
    rng = np.random.default_rng(0)
    coords = geometry.grid_coords(gx.testing.geobox((20, 24)))
    target = gx.testing.geobox((12, 13), crs="EPSG:3035", resolution=17.0)
    parts = xr.DataArray(
        rng.random((20, 24, 3), "f4"),
        dims=("y", "x", "component"),
        coords=coords,
        attrs={"derived_from": "a"},
    )
    got = assert_lazy_identical(lambda a: gx.reproject(a, target, resampling="average"), parts)
    assert got.dims == ("y", "x", "component")
    assert got.attrs == parts.attrs
    picture = xr.DataArray(rng.integers(0, 255, (4, 20, 24), np.uint8), dims=("rgb", "y", "x"), coords=coords)
    picture[3] = 255
    picture[:, :6] = 0
    for how in ("nearest", "bilinear", "average"):
        got = assert_lazy_identical(lambda a, h=how: gx.reproject(a, target, resampling=h), picture)
        assert got.dtype == np.uint8
        assert set(np.unique(got.sel(rgb=3) if "rgb" in got.coords else got[3])) <= {0, 255}
    double = xr.DataArray(rng.random((2, 20, 24)), dims=("time", "y", "x"), coords=coords)
    assert gx.reproject(double, target, resampling="bilinear").dtype == np.float64
    mask = xr.DataArray(rng.random((20, 24)) > 0.5, dims=("y", "x"), coords=coords)
    assert gx.reproject(mask, target).dtype == bool
    declared = mask.assign_attrs(_FillValue=1)  # a truth value cannot mark what is missing
    np.testing.assert_array_equal(gx.reproject(declared, target), gx.reproject(mask, target))


def test_other_coordinates_stay_and_those_of_pixels_go():
    da = gx.testing.synthetic("alphaearth", shape=(9, 9)).assign_coords(month=("time", [6]))
    da = da.assign_coords(quality=(("y", "x"), np.ones((9, 9))))
    got = da.emb.reproject("EPSG:3035", resolution=10)
    assert "quality" not in got.coords
    assert got.month.item() == 6
    assert got.name == da.name
    np.testing.assert_array_equal(got.time, da.time)


def test_an_array_to_match_gives_its_coordinates_to_the_bit():
    like = gx.testing.synthetic("tessera", grid=gx.testing.geobox((7, 8), crs="EPSG:4326", resolution=1e-4))
    got = gx.reproject(gx.testing.synthetic("alphaearth", shape=(30, 30)), like.isel(y=slice(None, None, -1)))
    np.testing.assert_array_equal(got.x, like.x)
    np.testing.assert_array_equal(got.y, like.y)


def test_the_default_keeps_published_vectors():
    codes = gx.testing.synthetic("alphaearth", shape=(20, 20), decode=False)
    assert gx.reproject(codes, "EPSG:3035", resolution=15).emb.encoded
    assert not gx.reproject(codes, "EPSG:3035", resolution=16).emb.encoded
    labels = gx.testing.scene().truth(gx.testing.geobox((20, 20)), 2018)
    assert gx.reproject(labels, "EPSG:3035", resolution=50).dtype == labels.dtype
    got = gx.reproject(codes, "EPSG:4326")
    assert abs(geometry.geobox_of(got).affine.a * 111_320 - 10) < 1e-6


# --- errors -------------------------------------------------------------------------------------------------------


def test_errors_say_what_to_do():
    da = gx.testing.synthetic("alphaearth", shape=(8, 8))
    labels = gx.testing.scene().truth(gx.testing.geobox((8, 8)), 2018)
    with pytest.raises(ValueError, match="not known; valid are 'nearest', 'bilinear'"):
        gx.reproject(da, "EPSG:3035", resampling="cubic")
    with pytest.raises(EmbeddingError, match="use 'nearest' or 'mode'"):
        gx.reproject(labels, "EPSG:3035", resampling="average")
    with pytest.raises(EmbeddingError, match="'mode' is for class maps"):
        gx.reproject(da, "EPSG:3035", resampling="mode")
    with pytest.raises(ValueError, match="goes with resampling='average'"):
        gx.reproject(da, "EPSG:3035", resampling="nearest", resultant_length=True)
    with pytest.raises(ValueError, match="goes with a CRS"):
        gx.reproject(da, da, resolution=10)
    with pytest.raises(ValueError, match="side of the result's blocks"):
        gx.reproject(da, "EPSG:3035", resolution=10, chunks=0)
    with pytest.raises(EmbeddingError, match="all bands in one chunk"):
        gx.reproject(da.chunk(band=8), "EPSG:3035", resolution=10)
    with pytest.raises(ValueError, match="not a CRS"):
        gx.reproject(da, "EPSG:nowhere")
    with pytest.raises(EmbeddingError, match="needs a raster"):
        gx.reproject(da.isel(x=0), "EPSG:3035")
    with pytest.raises(EmbeddingError, match="works on numbers"):
        gx.reproject(labels.astype("U5"), "EPSG:3035", resolution=10)
    for factor in (0, 2.5, True):
        with pytest.raises(ValueError, match="whole number"):
            gx.coarsen(da, factor)
    with pytest.raises(ValueError, match="at least one"):
        gx.mosaic([], "EPSG:3035")
    with pytest.raises(ValueError, match="valid are 'nearest-centre', 'first'"):
        gx.mosaic([da], "EPSG:3035", rule="last")
    with pytest.raises(ComparabilityError, match="cannot mix"):
        gx.mosaic([da, gx.testing.synthetic("tessera", shape=(8, 8))], "EPSG:3035")
    with pytest.raises(EmbeddingError, match="same 'time'"):
        gx.mosaic([da, gx.testing.synthetic("alphaearth", shape=(8, 8), years=[2020])], "EPSG:3035")
    with pytest.raises(EmbeddingError, match="decode them all"):
        gx.mosaic([da, gx.testing.synthetic("alphaearth", shape=(8, 8), decode=False)], "EPSG:3035")


def test_codes_that_cannot_be_missing_are_refused():
    from dataclasses import replace

    from geoemb_xr.core.codecs import SIGNED_SQUARE

    codec = replace(SIGNED_SQUARE, name="no-nodata", nodata=None)
    mine = gx.Product("no-nodata", dims=2, dtype="int8", codec=codec)
    da = gx.wrap(np.zeros((2, 4, 4), np.int8), mine, geobox=gx.testing.geobox((4, 4)))
    with pytest.raises(EmbeddingError, match="cannot mark missing pixels"):
        gx.reproject(da, "EPSG:3035", resolution=10)


# --- real samples -------------------------------------------------------------------------------------------------


def test_a_real_chip_keeps_its_vectors_and_their_length(real_data):
    import rasterio

    paths = sorted(real_data.glob("alphaearth-raster/**/*.tif*"))
    if not paths:
        pytest.skip("no AlphaEarth raster among the real samples")
    with rasterio.open(paths[0]) as file:
        values, affine, crs = file.read(), file.transform, file.crs
    assert values.shape[0] == 64
    box = geometry.make_geobox(values.shape[1:], affine, crs)
    chip = (
        gx.wrap(values, "alphaearth", geobox=box)
        if values.dtype == np.int8
        else gx.wrap(values.astype("f4"), "alphaearth", geobox=box)
    )
    moved = gx.reproject(chip, "EPSG:3035", resolution=10, resampling="bilinear")
    norms = np.sqrt((moved.astype("f8") ** 2).sum("band", skipna=False))
    assert abs(norms - 1).max() < 1e-6
    near = gx.reproject(chip, "EPSG:3035", resolution=10)
    ours = {v.tobytes() for v in np.moveaxis(near.values, 0, -1).reshape(-1, 64)}
    theirs = {v.tobytes() for v in np.moveaxis(chip.values, 0, -1).reshape(-1, 64)}
    assert len(ours - theirs) <= 1  # the missing vector
