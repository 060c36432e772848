"""Arrays and tables of other programs become embedding arrays, with what is missing in them."""

from contextlib import nullcontext

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from affine import Affine
from lazily import importorskip
from odc.geo.geobox import GeoBox

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.geo import wrapping
from geoemb_xr.readers.header_checks import check_extent

POINTS = gx.testing.scene().points(12, radius=200).assign(note=[f"n{i}" for i in range(12)])


@pytest.fixture(scope="module")
def sampled():
    return gx.testing.synthetic("alphaearth", shape=(60, 60)).emb.year(2018).emb.sample(POINTS)


# --- what is missing ----------------------------------------------------------------------------------------


def unit_vectors(shape=(4, 5)):
    vectors = np.random.default_rng(0).normal(size=(64, *shape)).astype("f4")
    return vectors / np.linalg.norm(vectors, axis=0)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("where", ["attrs", "encoding"])
@pytest.mark.parametrize(
    ("value", "stated"), [(-9999.0, True), (0.0, True), (0.0, False), (-np.inf, False), (np.nan, False)]
)
def test_what_is_stated_as_missing_is_missing_in_every_band(lazy, where, value, stated):
    vectors = unit_vectors()
    vectors[:, :2] = value
    array = xr.DataArray(vectors, dims=("band", "y", "x"))
    getattr(array, where).update({"_FillValue": value} if stated else {})
    found = gx.wrap(array.chunk(y=3) if lazy else array, "alphaearth", geobox=gx.testing.geobox((4, 5)))
    assert (found.chunks is not None) == lazy
    expected = vectors.copy()
    expected[:, :2] = np.nan
    np.testing.assert_array_equal(found.values, expected)


@pytest.mark.parametrize("value", [np.inf, np.nan, -9999.0])
def test_one_missing_band_makes_a_vector_missing_and_a_zero_does_not(value):
    vectors = unit_vectors()
    vectors[3, 1, 2] = value
    vectors[3, 0, 0] = 0
    array = xr.DataArray(vectors, dims=("band", "y", "x"), attrs={"nodata": -9999})
    found = gx.wrap(array, "alphaearth", geobox=gx.testing.geobox((4, 5)))
    missing = np.zeros((64, 4, 5), bool)
    missing[:, 1, 2] = True
    np.testing.assert_array_equal(np.isnan(found.values), missing)
    zero_stated = gx.wrap(array.assign_attrs(nodata=0.0), "alphaearth", geobox=gx.testing.geobox((4, 5)))
    assert not np.isnan(zero_stated.values[:, 0, 0]).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_vectors_of_zeros_are_found_however_many_there_are(axis, share):
    rng = np.random.default_rng(0)
    block = rng.integers(0, 30, (5, 40, 30)).astype(np.int8)  # zeros in single bands are values
    block[:, rng.random((40, 30)) < share] = 0
    expected = np.where((block == 0).all(0), np.int8(-128), block)
    found = wrapping.fill_gaps(np.moveaxis(block, 0, axis), axis, None, True, -128)
    np.testing.assert_array_equal(np.moveaxis(found, axis, 0), expected)


def test_zeros_are_vectors_of_products_without_unit_length():
    mine = gx.Product("free-length", dims=3)
    assert (gx.wrap(np.zeros((3, 2, 2), "f4"), mine, geobox=gx.testing.geobox((2, 2))) == 0).all()


@pytest.mark.parametrize("lazy", [False, True])
def test_codes_of_zero_in_every_band_are_missing(lazy):
    codes = gx.testing.synthetic("alphaearth", shape=(6, 7), decode=False).isel(time=0)
    codes.attrs = {}
    values = codes.values.copy()
    values[:, 0] = 0  # as rioxarray's clip fills
    values[5, 2, 2] = 0
    array = codes.copy(data=values)
    found = gx.wrap(array.chunk(x=3) if lazy else array, "alphaearth")
    expected = values.copy()
    expected[:, 0] = -128
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found.values, expected)
    assert found.emb.decode().isnull().sum() == 64 * 7


def test_without_gaps_nothing_is_copied():
    vectors = unit_vectors()
    assert np.shares_memory(gx.wrap(vectors, "alphaearth", geobox=gx.testing.geobox((4, 5))).values, vectors)


# --- tables -------------------------------------------------------------------------------------------------


def test_a_table_that_we_wrote_is_wrapped_as_it_was(sampled):
    table = sampled.emb.to_dataframe()
    again = gx.wrap(table.drop(columns=["x", "y"]), "alphaearth", version="synthetic")
    np.testing.assert_array_equal(again.values, sampled.values)
    assert again.dims == ("location", "band")
    assert again.note.values.tolist() == sampled.note.values.tolist()
    assert again.emb.crs.to_epsg() == 4326
    np.testing.assert_array_equal(again.x, POINTS.lon)
    in_metres = gx.wrap(table.drop(columns=["lon", "lat"]), "alphaearth", crs=sampled.emb.crs)
    np.testing.assert_array_equal(in_metres.x, sampled.x)


@pytest.mark.parametrize("columns", [("longitude", "latitude"), ("Lon", "Lat"), ("lng", "lat")])
def test_places_have_any_usual_name_and_bands_any_order(sampled, columns):
    table = pd.DataFrame(sampled.values, columns=sampled.band.values)[sampled.band.values[::-1]]
    table[columns[0]], table[columns[1]], table["crop"] = POINTS.lon, POINTS.lat, "maize"
    table.index = [f"id{i}" for i in range(12)]
    found = gx.wrap(table, "alphaearth")
    np.testing.assert_array_equal(found.values, sampled.values)
    assert found.location.values.tolist() == table.index.tolist()
    assert set(found.crop.values) == {"maize"}


def test_geometries_say_where_points_and_areas_lie(sampled, caplog):
    bands = pd.DataFrame(sampled.values, columns=sampled.band.values).assign(crop="rye")
    shapes = gpd.points_from_xy(sampled.x, sampled.y, crs=sampled.emb.crs)
    points = gpd.GeoDataFrame(bands, geometry=shapes)
    found = gx.wrap(points, "alphaearth")
    assert found.emb.crs.to_epsg() == 32632
    np.testing.assert_array_equal(found.y, sampled.y)
    squares = points.set_geometry(points.buffer(50, cap_style="square"))
    np.testing.assert_allclose(gx.wrap(squares, "alphaearth").x, sampled.x, atol=1e-6)
    points.loc[3, "geometry"] = shapely.Point()
    some = gx.wrap(points, "alphaearth")
    assert some.location.values.tolist() == [0, 1, 2, *range(4, 12)]
    np.testing.assert_array_equal(some.values, np.delete(sampled.values, 3, 0))
    assert "wrap leaves out 1 of 12 rows" in caplog.text


def test_gaps_in_a_table_are_missing_and_codes_stay_codes(sampled):
    codes = gx.testing.synthetic("alphaearth", shape=(60, 60), decode=False).emb.year(2018).emb.sample(POINTS)
    table = pd.DataFrame(codes.values, columns=codes.band.values).assign(lon=POINTS.lon, lat=POINTS.lat)
    wrapped = gx.wrap(table, "alphaearth")
    assert (wrapped.dtype, wrapped.attrs["codec"]) == (np.int8, "signed-square")
    np.testing.assert_array_equal(wrapped.emb.decode().values, sampled.values)
    vectors = pd.DataFrame(sampled.values, columns=sampled.band.values).convert_dtypes()
    vectors.loc[2, "A07"] = pd.NA
    found = gx.wrap(vectors.assign(lon=POINTS.lon, lat=POINTS.lat), "alphaearth")
    assert found.isnull().any("band").values.nonzero()[0].tolist() == [2]
    assert found[2].isnull().all()


def test_codes_with_a_scale_have_it_in_a_column():
    codes = gx.testing.synthetic("tessera", shape=(60, 60), decode=False).emb.year(2018).emb.sample(POINTS)
    table = pd.DataFrame(codes.values, columns=codes.band.values)
    table = table.assign(scale=codes.scale.values, lon=POINTS.lon, lat=POINTS.lat)
    wrapped = gx.wrap(table, "tessera", version=codes.attrs["version"])
    np.testing.assert_array_equal(wrapped.emb.decode().values, codes.emb.decode().values)


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (lambda t: t.drop(columns="A05"), {}, r"a column per band; 1 of 64 are missing: \['A05'\]"),
        (lambda t: t.assign(A05="text"), {}, "column 'A05' of the table holds .*, not numbers"),
        (lambda t: t.drop(columns=["lon"]), {}, "needs columns 'lon' and 'lat'"),
        (lambda t: t, {"x": [1], "dims": ("location", "band")}, "leave out dims, x"),
    ],
)
def test_tables_that_cannot_be_wrapped(sampled, change, options, says):
    table = pd.DataFrame(sampled.values, columns=sampled.band.values).assign(lon=POINTS.lon, lat=POINTS.lat)
    with pytest.raises(EmbeddingError, match=says):
        gx.wrap(change(table), "alphaearth", **options)


# --- where scales, bands and times lie --------------------------------------------------------------------------

NORTHINGS, EASTINGS = 5.2e6 - 10.0 * np.arange(6), 6e5 + 10.0 * np.arange(6)
CODES = np.random.default_rng(1).integers(-127, 128, (128, 6, 6)).astype("i1")
SCALES = np.random.default_rng(2).uniform(0.1, 1, (6, 6)).astype("f4")


@pytest.mark.parametrize(
    ("codes", "scale", "options"),
    [
        (CODES, SCALES, {}),
        (CODES[:, ::-1], SCALES[::-1], {"y": NORTHINGS[::-1]}),
        (CODES[:, :, ::-1], SCALES[:, ::-1], {"x": EASTINGS[::-1]}),
        (
            CODES[:, ::-1],
            SCALES[::-1],
            {"geobox": GeoBox((6, 6), Affine(10, 0, 599995, 0, 10, 5199945), 32632)},
        ),
        (CODES.T, SCALES.T, {"dims": ("x", "y", "band")}),
        (CODES[:, None], SCALES, {"dims": ("band", "time", "y", "x"), "time": 2024}),
        (CODES, xr.DataArray(SCALES.T, dims=("x", "y")), {}),
        (CODES, xr.DataArray(SCALES.T, dims=("lon", "lat")), {"time": 2024}),
        (CODES, xr.DataArray(SCALES[::-1], dims=("y", "x"), coords={"y": NORTHINGS[::-1]}), {}),
    ],
)
def test_scales_lie_where_their_codes_do(codes, scale, options):
    place = {} if "geobox" in options else {"x": EASTINGS, "y": NORTHINGS, "crs": 32632}
    found = gx.wrap(codes, "tessera", scale=scale, **{**place, **options})
    np.testing.assert_array_equal(found.y, NORTHINGS)
    np.testing.assert_array_equal(np.squeeze(found.emb.decode().values), CODES * SCALES)


@pytest.mark.parametrize("dim", ["time", "location"])
def test_scales_in_another_order_are_those_of_their_codes(dim):
    dims, shape = (
        (("time", "band", "y", "x"), (3, 128, 2, 2)) if dim == "time" else (("location", "band"), (3, 128))
    )
    codes = xr.DataArray(CODES.ravel()[: np.prod(shape)].reshape(shape), dims=dims, coords={dim: [7, 8, 9]})
    scale = xr.DataArray(np.float32([0.1, 0.2, 0.3]), dims=dim, coords={dim: [7, 8, 9]})
    if dim == "time":
        scale = scale.expand_dims(y=2, x=2)
        place = {"geobox": gx.testing.geobox((2, 2)), "time": [2018, 2019, 2020]}
    else:
        place = {"x": np.arange(3.0), "y": np.arange(3.0)}
    found = gx.wrap(codes, "tessera", scale=scale.isel({dim: [2, 0, 1]}), **place).emb.decode()
    np.testing.assert_array_equal(found, gx.wrap(codes, "tessera", scale=scale, **place).emb.decode())
    np.testing.assert_array_equal(found.isel({dim: 1}), codes.isel({dim: 1}) * np.float32(0.2))
    with pytest.raises(ValueError, match=f"scale lies at other {dim!r} than the codes"):
        gx.wrap(codes, "tessera", scale=scale.assign_coords({dim: [6, 7, 8]}), **place)


@pytest.mark.parametrize("size", [1, 2, 6])
def test_scales_may_have_rounded_coordinates(size):
    grid = GeoBox((size, size), Affine(1e-4, 0, 131.30007, 0, -1e-4, 47.25003), 4326)
    y, x = (47.25003 - 1e-4 * (np.arange(size) + 0.5), 131.30007 + 1e-4 * (np.arange(size) + 0.5))
    rounded = {"y": y.astype("f4"), "x": x.astype("f4")}
    scale = xr.DataArray(SCALES[:size, :size], dims=("y", "x"), coords=rounded)
    for own in (scale, scale[::-1], scale[:, ::-1]):
        found = gx.wrap(CODES[:, :size, :size], "tessera", scale=own, geobox=grid)
        np.testing.assert_array_equal(found.scale, SCALES[:size, :size])
    with pytest.raises(ValueError, match="scale lies at other 'x' than the codes"):
        gx.wrap(CODES[:, :size, :size], "tessera", scale=scale.assign_coords(x=x + 4e-5), geobox=grid)


def test_scales_of_other_places_are_refused():
    place = {"x": EASTINGS, "y": NORTHINGS, "crs": 32632}
    moved = xr.DataArray(SCALES, dims=("y", "x"), coords={"y": NORTHINGS - 10})
    with pytest.raises(ValueError, match="scale lies at other 'y' than the codes"):
        gx.wrap(CODES, "tessera", scale=moved, **place)
    with pytest.raises(ValueError, match=r"scale has dims \('a', 'b'\); the pixels lie along"):
        gx.wrap(CODES, "tessera", scale=xr.DataArray(SCALES, dims=("a", "b")), **place)


NAMES = [f"A{i:02d}" for i in range(64)]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("where", ["coordinate", "lower", "long_name"])
def test_bands_of_an_array_lie_where_their_names_say(lazy, where):
    vectors = unit_vectors()
    array = xr.DataArray(vectors[::-1], dims=("band", "y", "x"))
    if where == "long_name":  # as rioxarray has a file's descriptions
        array = array.assign_coords(band=range(1, 65)).assign_attrs(long_name=tuple(NAMES[::-1]))
    else:
        names = [name.lower() if where == "lower" else name for name in NAMES[::-1]]
        array = array.assign_coords(band=names)
    found = gx.wrap(array.chunk(x=2) if lazy else array, "alphaearth", geobox=gx.testing.geobox((4, 5)))
    np.testing.assert_array_equal(found.sel(band=NAMES).values, vectors)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["A00", *NAMES[:63]], "calls band 2 'A00', which is band 1 of 'alphaearth', but names no 'A63'"),
        ([*NAMES[:63], "quality"], "calls band 64 'quality', which is no band of 'alphaearth'"),
    ],
)
def test_names_of_bands_that_contradict_are_refused(names, message):
    array = xr.DataArray(unit_vectors(), dims=("band", "y", "x"), coords={"band": names})
    with pytest.raises(EmbeddingError, match=message):
        gx.wrap(array, "alphaearth", geobox=gx.testing.geobox((4, 5)))


@pytest.mark.parametrize("lazy", [False, True])
def test_codes_that_became_floats_are_no_vectors(lazy):
    codes = np.rint(unit_vectors() * 127)
    codes[:, 0] = np.nan
    array = xr.DataArray(codes, dims=("band", "y", "x"))
    with pytest.raises(EmbeddingError, match=r"whole numbers up to \d+ as floats: these are no vectors"):
        gx.wrap(array.chunk(x=2) if lazy else array, "alphaearth", geobox=gx.testing.geobox((4, 5))).compute()
    mine = gx.Product(
        "mine-of-whole-numbers", dims=64
    )  # without codes, whole numbers are vectors as others are
    assert gx.wrap(array, mine, geobox=gx.testing.geobox((4, 5))).isnull().sum() == 64 * 5


def test_vectors_of_presto_are_whole_numbers():
    codes = np.arange(128 * 6, dtype="uint16").reshape(6, 128) + 1
    once = gx.wrap(codes, "presto", x=np.arange(6.0), y=np.zeros(6)).emb.decode()
    again = gx.wrap(once.values, "presto", x=np.arange(6.0), y=np.zeros(6))
    np.testing.assert_array_equal(again, codes)


@pytest.mark.parametrize(
    "times", [["2018", "2019"], pd.period_range("2018", periods=2, freq="Y"), [2018, 2019]]
)
def test_times_of_an_array_become_moments(times):
    array = xr.DataArray(
        np.stack([unit_vectors()] * 2), dims=("time", "band", "y", "x"), coords={"time": times}
    )
    found = gx.wrap(array, "alphaearth", geobox=gx.testing.geobox((4, 5)))
    assert found.time.values.astype("datetime64[D]").astype(str).tolist() == ["2018-01-01", "2019-01-01"]
    with pytest.raises(EmbeddingError, match="the array's times have a gap, in step 1"):
        gx.wrap(
            array.assign_coords(time=[np.datetime64("2018", "ns"), np.datetime64("NaT", "ns")]),
            "alphaearth",
            geobox=gx.testing.geobox((4, 5)),
        )


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (
            unit_vectors(),
            {"x": np.arange(5), "y": [95, 94, 93, 92], "crs": 4326},
            "y has 95. Are x and y swapped",
        ),
        (
            unit_vectors(),
            {"x": list("abcde"), "y": np.arange(4), "crs": 3857},
            "needs numbers along 'x'; got <U1",
        ),
        (
            unit_vectors().astype(complex),
            {"geobox": gx.testing.geobox((4, 5))},
            "are real numbers; got complex128",
        ),
    ],
)
def test_arrays_that_cannot_be_wrapped(array, options, message):
    with pytest.raises(EmbeddingError, match=message):
        gx.wrap(array, "alphaearth", **options)


@pytest.mark.parametrize(("far", "says"), [(90.0005, None), (90.002, "latitude")])
def test_poles_end_in_one_place_for_arrays_and_files(far, says):
    box = GeoBox((2, 2), Affine(1, 0, 11, 0, -1, far + 0.5), "EPSG:4326")
    data, place = np.zeros((64, 2, 2), np.float32), {"x": [11.5, 12.5], "y": [far, far - 1], "crs": 4326}
    for read in (lambda: check_extent(box, "a.tif"), lambda: gx.wrap(data, "alphaearth", **place)):
        with pytest.raises(EmbeddingError, match=says) if says else nullcontext():
            read()


def test_a_pole_may_be_rounded():
    y = np.arange(-90, 90.1, 0.2)
    assert y[-1] > 90
    array = gx.wrap(np.ones((2, y.size, 2)), gx.Product("of-the-world", dims=2), x=[0.0, 0.2], y=y, crs=4326)
    assert array.sizes["y"] == y.size


def test_tensors_of_a_network_are_taken_as_they_come():
    torch = importorskip("torch")
    vectors = np.random.default_rng(0).normal(size=(3, 6, 7)).astype("f4")
    given, grid = gx.Product("of-a-network", dims=3), gx.testing.geobox((6, 7))
    trained = gx.wrap(torch.tensor(vectors, requires_grad=True), given, geobox=grid)
    np.testing.assert_array_equal(trained.values, vectors)
    half = gx.wrap(torch.tensor(vectors).bfloat16(), given, geobox=grid)
    np.testing.assert_allclose(half.values, vectors, rtol=0.01)


def test_every_variable_has_its_own_nodata():
    band = np.arange(42, dtype="f4").reshape(6, 7)
    variables = {
        name: (
            ("y", "x"),
            np.where(np.arange(6)[:, None] == i, -9 - i, band).astype("f4"),
            {"_FillValue": -9.0 - i},
        )
        for i, name in enumerate("abc")
    }
    given = gx.Product("own-nodata", dims=3, bands=("a", "b", "c"))
    variables["quality"] = (
        ("y", "x"),
        np.ones((6, 7), "i2"),
        {"scale_factor": 0.01},
    )  # no band of the product
    found = gx.wrap(xr.Dataset(variables), given, geobox=gx.testing.geobox((6, 7))).values
    assert np.isnan(found[:, :3]).all()
    np.testing.assert_array_equal(found[:, 3:], np.broadcast_to(band[3:], (3, 3, 7)))


def test_a_scale_that_all_variables_declare_is_said_once(caplog):
    codes = gx.testing.synthetic("alphaearth", shape=(4, 5), decode=False).isel(time=0)
    dims, scale = ("y", "x"), {"scale_factor": 0.1}
    variables = {name: (dims, codes.sel(band=name).data, scale) for name in codes.band.values}
    with caplog.at_level("INFO", "geoemb_xr"):
        gx.wrap(xr.Dataset(variables), "alphaearth", geobox=gx.testing.geobox((4, 5)))
    assert len(caplog.records) == 1
    assert "variable 'A00' and 63 others) declares a scale of 0.1" in caplog.text


@pytest.mark.parametrize(
    ("says", "given"),
    [(4258, 4326), (4269, 4326), (9755, 4326), (4326, 9755), (25832, 32632), (26910, 32610)],
)
def test_a_crs_that_differs_in_a_datum_alone_and_by_two_metres_is_taken_and_said(says, given, caplog):
    step = 1e-4 if says < 10_000 else 10.0
    place = {"x": np.arange(7) * step, "y": np.arange(6) * -step}
    named = gx.wrap(np.ones((3, 6, 7), "f4"), gx.Product("placed", dims=3), crs=says, **place)
    with caplog.at_level("INFO", "geoemb_xr"):
        found = gx.wrap(named, "placed", crs=given)
    assert found.emb.crs.to_epsg() == given
    assert [f"taken to lie in EPSG:{given}, as was given" in each.message for each in caplog.records] == [
        True
    ]


@pytest.mark.parametrize(
    ("says", "given"), [(4267, 4326), (4277, 4326), (4326, 4267), (4019, 4326), (26710, 32610)]
)
def test_a_crs_of_another_datum_is_refused(says, given):
    place = {"x": np.arange(7) * 1e-3, "y": np.arange(6) * -1e-3}
    named = gx.wrap(np.ones((3, 6, 7), "f4"), gx.Product("placed", dims=3), crs=says, **place)
    with pytest.raises(EmbeddingError, match=f"lies in EPSG:{says}, and what was given says EPSG:{given}"):
        gx.wrap(named, "placed", crs=given)


def test_what_places_an_array_is_checked():
    vectors = np.ones((3, 6, 7), "f4")
    given, grid = gx.Product("placed", dims=3), gx.testing.geobox((6, 7))
    named = gx.wrap(vectors, given, geobox=grid)
    with pytest.raises(EmbeddingError, match="lies in EPSG:32632, and what was given says EPSG:3035"):
        gx.wrap(named.drop_attrs(deep=False), given, crs=3035)
    plane = "+proj=utm +zone=32 +ellps=WGS84 +towgs84=0,0,0 +units=m"
    for text in ("EPSG:32632+5773", plane, 'LOCAL_CS["none"]', "x"):  # none names another plane
        said = named.drop_attrs(deep=False)
        said.coords["spatial_ref"].attrs = {"crs_wkt": text}
        assert gx.wrap(said, given, crs=32632).emb.crs.to_epsg() == 32632
        assert gx.wrap(said, given, geobox=grid).emb.crs.to_epsg() == 32632
    with pytest.raises(EmbeddingError, match=r"geobox= is a GeoBox of odc-geo.*got \(1, 2\)"):
        gx.wrap(vectors, given, geobox=(1, 2))
    with pytest.raises(EmbeddingError, match=r"got \['batch'\] among"):
        gx.wrap(vectors[None], given, geobox=grid, dims=("batch", "band", "y", "x"))
    with pytest.raises(ValueError, match=r"a number for each of 7 locations; got \(3,\) and \(7,\)"):
        gx.wrap(vectors[:, 0].T, given, x=[1, 2, 3], y=np.arange(7.0))
    masked = gx.wrap(vectors[:, 0].T, given, x=np.ma.masked_greater(np.arange(7.0), 4), y=np.arange(7.0))
    assert np.isnan(masked.x.values).tolist() == [False] * 5 + [True] * 2
    steps = {"x": np.arange(7) * 10.0, "y": np.arange(6) * -10.0}
    assert gx.wrap(vectors, given, crs=grid.crs.proj.to_json_dict(), **steps).emb.crs.to_epsg() == 32632


def test_times_are_as_exact_as_they_were_given():
    place = {"x": [5.0, 15.0], "y": [15.0, 5.0], "crs": 32632}
    vectors = np.ones((2, 4, 2, 2), "float32")
    mine = gx.Product("times-of-mine", dims=4)
    for hours in (["2018-01-01T01", "2018-01-01T02"], pd.date_range("2018-01-01T01", periods=2, freq="h")):
        found = gx.wrap(vectors, mine, time=hours, **place).time.values
        assert found.astype("datetime64[h]").astype(str).tolist() == ["2018-01-01T01", "2018-01-01T02"]
    zone = gx.wrap(vectors[0], mine, time="2018-01-01T01:00:00+02:00", **place).time.values[0]
    assert zone == np.datetime64("2017-12-31T23:00", "ns")
    for far in (1677, "9999", 2262):
        with pytest.raises(ValueError, match=r"beyond the years 1678 to 2261"):
            gx.wrap(vectors[0], mine, time=far, **place)


def test_places_come_in_any_form_and_fit_the_pixels():
    x, y = [5.0, 15.0, 25.0], [15.0, 5.0]
    vectors, mine = np.arange(24, dtype="float32").reshape(4, 2, 3), gx.Product("places-of-mine", dims=4)
    wanted = gx.wrap(vectors, mine, x=np.array(x), y=np.array(y), crs=32632)
    east, north = np.meshgrid(x, y)
    for given in (
        (x, y),
        (tuple(x), tuple(y)),
        (east, north),
        (pd.Series(x), pd.Index(y)),
        (range(5, 26, 10), y),
    ):
        xr.testing.assert_identical(gx.wrap(vectors, mine, x=given[0], y=given[1], crs=32632), wanted)
    turned = (east + 0.1 * north, north)
    for wrong in (([5.0, 15.0], y), ([0.0, 10.0, 20.0, 30.0], [20.0, 10.0, 0.0]), turned, (5.0, 15.0)):
        with pytest.raises(EmbeddingError, match="a number for the centre of each of 2 rows and 3 columns"):
            gx.wrap(vectors, mine, x=wrong[0], y=wrong[1], crs=32632)


def test_points_in_several_chunks_are_taken():
    vectors, places = unit_vectors((7,)).T, {"x": np.arange(7.0), "y": np.arange(7.0), "crs": 4326}
    whole = gx.wrap(vectors, "alphaearth", dims=("location", "band"), **places)
    for bands in (64, 16):
        chunked = da.from_array(vectors, chunks=((2, 5), bands))
        lazy = gx.wrap(chunked, "alphaearth", dims=("location", "band"), **places)
        assert lazy.chunks == ((2, 5), (64,))
        assert lazy.x.chunks is None
        xr.testing.assert_identical(lazy.compute(), whole)


def test_coordinates_may_have_other_chunks_than_their_array():
    whole = gx.wrap(
        unit_vectors((7,)), "alphaearth", dims=("band", "location"), x=np.arange(7.0), y=np.arange(7.0)
    )
    lazy = whole.copy(data=da.from_array(whole.values, chunks=(2, 64))).chunk(band=-1)
    assert lazy.x.chunks == ((7,),)
    np.testing.assert_array_equal(lazy.emb.normalize(), whole.emb.normalize())
    query = whole.values[0]
    np.testing.assert_allclose(lazy.emb.similarity(query), whole.emb.similarity(query), atol=1e-6)


def test_chunks_of_unknown_size_are_refused_until_they_are_known():
    vectors, options = da.from_array(unit_vectors((7,)).T), {"dims": ("location", "band"), "crs": 4326}
    some = vectors[vectors[:, 0] > -2]
    places = {"x": np.arange(7.0), "y": np.arange(7.0)}
    with pytest.raises(EmbeddingError, match=r"call array.compute_chunk_sizes\(\) first"):
        gx.wrap(some, "alphaearth", **places, **options)
    known = gx.wrap(some.compute_chunk_sizes(), "alphaearth", **places, **options)
    np.testing.assert_array_equal(known, vectors)


def test_sparse_arrays_are_taken():
    rows, mine = np.eye(4, dtype="float32")[[0, 2, 3]], gx.Product("rows-of-mine", dims=4)
    place = {"x": [11.0, 12.0, 13.0], "y": [47.0] * 3}
    scipy_sparse = importorskip("scipy.sparse")
    np.testing.assert_array_equal(gx.wrap(scipy_sparse.csr_array(rows), mine, **place), rows)
