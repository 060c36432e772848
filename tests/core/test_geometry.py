"""Grids, boxes and CRSs, against PROJ and odc-geo."""

import numpy as np
import pyproj
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

import geoemb_xr as gx
from geoemb_xr.core import areas, geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.geo import places


def raster(box):
    shape = tuple(box.shape)
    return xr.DataArray(np.zeros(shape), dims=("y", "x"), coords=geometry.grid_coords(box))


@given(gx.testing.geoboxes())
def test_geobox_of_is_the_inverse_of_grid_coords(box):
    if box.shape[0] == 1 and box.affine.e > 0:
        return  # one row counts as running north to south
    assert geometry.same_grid(geometry.geobox_of(raster(box)), box)


def test_grid_coords_agree_with_odc_geo():
    box = gx.testing.geobox((5, 7))
    ours, theirs = geometry.grid_coords(box), box.coordinates
    np.testing.assert_array_equal(ours["y"], theirs["y"].values)
    np.testing.assert_array_equal(ours["x"], theirs["x"].values)
    assert ours["spatial_ref"].attrs["crs_wkt"] == pyproj.CRS("EPSG:32632").to_wkt()
    assert "GeoTransform" not in ours["spatial_ref"].attrs  # it would go stale


def test_odc_and_rioxarray_find_crs_and_grid_of_our_arrays():
    import odc.geo.xr  # noqa: F401 - registers .odc
    import rioxarray  # noqa: F401 - registers .rio

    da = gx.testing.synthetic("alphaearth", shape=(6, 8)).isel(time=0)
    assert geometry.same_grid(da.odc.geobox, da.emb.geobox)
    assert da.rio.crs.to_epsg() == 32632
    assert da.rio.transform() == da.emb.geobox.affine


def test_one_row_takes_the_size_of_columns():
    box = gx.testing.geobox((1, 5))
    assert geometry.same_grid(geometry.geobox_of(raster(box)), box)
    row = raster(gx.testing.geobox((2, 5))).isel(y=[0])
    forgotten = row.assign_coords(y=row.y.values, x=row.x.values)
    assert geometry.geobox_of(forgotten).resolution.x == 10
    with pytest.raises(EmbeddingError, match=r"a single pixel.*no attribute 'resolution'"):
        geometry.geobox_of(forgotten.isel(x=[0]))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_an_array_of_one_pixel_keeps_its_resolution(size):
    box = geometry.make_geobox(size, Affine(10, 0, 600_000, 0, -20, 5_200_000), "EPSG:32632")
    assert geometry.same_grid(geometry.geobox_of(raster(box)), box)


def test_verbs_work_on_the_one_pixel_that_was_cut():
    da = gx.testing.synthetic("alphaearth", shape=(8, 8), years=[2018, 2024])
    x, y = float(da.x[3]), float(da.y[5])
    one = da.emb.crop((x - 1, y - 1, x + 1, y + 1), crs=da.emb.crs)
    assert dict(one.sizes) == {"time": 2, "band": 64, "y": 1, "x": 1}
    xr.testing.assert_identical(one, da.isel(y=[5], x=[3]))
    assert geometry.same_grid(one.emb.geobox, da.emb.geobox[5:6, 3:4])
    for turned in (one, one.emb.decode(), one.emb.year(2018), one.emb.change(2018, 2024)):
        assert turned.emb.geobox.resolution.x == 10
    warped = one.emb.reproject(da.emb.geobox)
    np.testing.assert_array_equal(warped.notnull().any(["time", "band"]).values.nonzero(), [[5], [3]])
    lonlat = geometry.transformer(da.emb.crs, geometry.as_crs(4326)).transform(x, y)
    assert one.emb.sample([lonlat]).sizes["location"] == 1


# --- rasters of others --------------------------------------------------------------------------------------


def test_a_grid_mapping_of_any_name_states_the_crs():
    box = gx.testing.geobox((4, 5))
    plain = raster(box).drop_vars("spatial_ref")
    named = plain.assign_coords(crs=geometry.crs_coord("EPSG:32632")).assign_attrs(grid_mapping="crs")
    decoded = named.copy()
    decoded.encoding["grid_mapping"] = decoded.attrs.pop("grid_mapping")  # as xarray keeps it
    extended = named.assign_attrs(grid_mapping="crs: x y")
    cf = {k: v for k, v in pyproj.CRS.from_epsg(32632).to_cf().items() if k != "crs_wkt"}
    only_cf = plain.assign_coords(crs=xr.DataArray(0, attrs=cf)).assign_attrs(grid_mapping="crs")
    for each in (named, decoded, extended, only_cf, named.to_dataset(name="a")):
        assert geometry.same_crs(geometry.crs_of(each), "EPSG:32632"), each
        if each is not only_cf:  # CF's parameters have no name of the CRS
            assert geometry.same_grid(geometry.geobox_of(each), box)
    with pytest.raises(EmbeddingError, match="nor another that 'grid_mapping' names"):
        geometry.geobox_of(plain)


def test_what_grid_mapping_names_wins_over_a_spatial_ref_beside_it():
    array = raster(gx.testing.geobox((4, 5))).assign_coords(crs=geometry.crs_coord("EPSG:3035"))
    assert geometry.crs_of(array).to_epsg() == 32632
    assert geometry.crs_of(array.assign_attrs(grid_mapping="crs")).to_epsg() == 3035


@pytest.mark.parametrize("names", [("lat", "lon"), ("latitude", "longitude"), ("Latitude", "Longitude")])
def test_axes_of_degrees_are_found_by_their_names(names):
    box = geometry.make_geobox((30, 20), Affine(0.001, 0, 11.36, 0, -0.001, 47.26), "EPSG:4326")
    array = raster(box).drop_vars("spatial_ref").rename(dict(zip(("y", "x"), names, strict=True)))
    assert geometry.same_grid(geometry.geobox_of(array), box)
    stated = array.assign_coords(spatial_ref=geometry.crs_coord("EPSG:4258"))
    assert geometry.crs_of(geometry.plain_names(stated)).to_epsg() == 4258
    da = gx.testing.synthetic("alphaearth", shape=(20, 20))
    xr.testing.assert_identical(da.emb.reproject(array), da.emb.reproject(box))


@given(
    lon=st.floats(-179, 179),
    lat=st.floats(-80, 80),
    size=st.integers(2, 60),
    metres=st.sampled_from([10, 30, 250]),
)
def test_coordinates_in_single_precision_are_a_grid(lon, lat, size, metres):
    step = metres / 111_320
    box = geometry.make_geobox((size, size), Affine(step, 0, lon, 0, -step, lat), "EPSG:4326")
    single = raster(box)
    single = single.assign_coords(x=single.x.astype("f4"), y=single.y.astype("f4"))
    found = geometry.geobox_of(single.astype("f4"))
    edges = [~box.affine * (found.affine * corner) for corner in ((0, 0), (size, size))]
    np.testing.assert_allclose(edges, [(0, 0), (size, size)], atol=0.25 * size / (size - 1))


def test_gaps_are_no_rounding():
    uneven = raster(gx.testing.geobox((6, 6))).isel(x=[0, 1, 3, 5])
    for each in (uneven, uneven.assign_coords(x=uneven.x.astype("f4"))):
        with pytest.raises(EmbeddingError, match="those along 'x' are not"):
            geometry.geobox_of(each)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda a: a.drop_vars("spatial_ref"), "needs a CRS"),
        (lambda a: a.isel(y=[0, 1, 4]), "evenly spaced"),
        (lambda a: a.rename(y="row"), "dims and coordinates 'y' and 'x'"),
    ],
)
def test_what_has_no_grid_is_refused(spoil, says):
    with pytest.raises(EmbeddingError, match=says):
        geometry.geobox_of(spoil(raster(gx.testing.geobox((5, 5)))))


@pytest.mark.parametrize(
    "crs", ["EPSG:3035", 3035, pyproj.CRS(3035), GeoBox((2, 2), Affine.identity(), 3035).crs]
)
def test_any_way_of_writing_a_crs(crs):
    assert geometry.same_crs(crs, "EPSG:3035")
    assert geometry.crs_name(geometry.as_crs(crs)) == "EPSG:3035"


def test_no_crs_says_what_to_write():
    assert geometry.as_crs(np.str_("EPSG:3035")) == geometry.as_crs(3035)
    with pytest.raises(ValueError, match="not a CRS: 'nonsense'"):
        geometry.as_crs("nonsense")
    with pytest.raises(ValueError, match="give an EPSG code"):
        geometry.as_crs(3.5)


# --- boxes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bbox", "crs", "says"),
    [
        ((11, 48, 12, 47), "EPSG:4326", "south >= north"),
        ((11, 47, 12), "EPSG:4326", "four numbers"),
        ((11, 47, 12, float("nan")), "EPSG:4326", "not finite"),
        ((400000, 5e6, 500000, 5.1e6), "EPSG:4326", "outside the world"),
        ((12, 47, 11, 48), "EPSG:4326", "359 degrees wide"),
        ((5, 47, 5, 48), "EPSG:4326", "west >= east"),
        ((6e5, 5e6, 5e5, 6e6), "EPSG:32632", "west >= east"),
    ],
)
def test_malformed_boxes_are_refused(bbox, crs, says):
    with pytest.raises(ValueError, match=says):
        areas.parse_bbox(bbox, crs)


@pytest.mark.parametrize(
    ("bbox", "ends", "said"),
    [
        ((-180, -90, 180, 90), (-180, 180), ""),
        ((0, -60, 360, 60), (-180, 180), ""),
        ((-179, -18, 178, -16), (-179, 178), "is (178, -18, -179, -16)"),
        ((-348, 47, 11, 48), (12, 11), "359 degrees wide"),
    ],
)
def test_a_box_may_go_far_around_the_world(bbox, ends, said, caplog):
    with caplog.at_level("INFO", "geoemb_xr"):
        area = areas.parse_bbox(bbox)
    assert (area.west, area.east) == ends
    assert said in caplog.text
    assert bool(said) == bool(caplog.records)


def test_a_box_across_the_antimeridian_has_two_parts():
    area = areas.parse_bbox((179.5, -18, -179.0, -16))
    assert area.parts == [(179.5, -18, 180.0, -16), (-180.0, -18, -179.0, -16)]
    for zone in (32701, 32760):
        assert len(area.bounds_in(f"EPSG:{zone}")) == 2


@given(
    lon=st.floats(-175, 175),
    lat=st.floats(-75, 75),
    width=st.floats(0.01, 2.0),
    height=st.floats(0.01, 2.0),
    points=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=5, max_size=20),
)
def test_projected_bounds_hold_every_point_of_the_box(lon, lat, width, height, points):
    """Edges bend between CRSs: a box of corners alone would lose ground."""
    crs = geometry.utm_crs(geometry.utm_zone_of(lon), south=lat < 0)
    area = areas.parse_bbox((lon, lat, lon + width, lat + height))
    (west, south, east, north) = area.bounds_in(crs)[0]
    fx, fy = np.array(points).T
    x, y = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(
        lon + fx * width, lat + fy * height
    )
    slack = 0.05  # metres: between two densified points
    assert np.all((x >= west - slack) & (x <= east + slack) & (y >= south - slack) & (y <= north + slack))


@given(
    north_up=st.booleans(),
    west=st.floats(-200, 1200),
    south=st.floats(-200, 1200),
    width=st.floats(0.5, 900),
    height=st.floats(0.5, 900),
)
def test_window_of_is_rounded_outwards(north_up, west, south, width, height):
    affine = Affine(10, 0, 0, 0, -10, 1000) if north_up else Affine(10, 0, 0, 0, 10, 0)
    box = geometry.make_geobox((100, 100), affine, "EPSG:32632")
    window = areas.window_of(box, (west, south, west + width, south + height))
    centres = geometry.grid_coords(box)
    xs, ys = centres["x"].values, centres["y"].values
    touched_x = np.flatnonzero((xs + 5 > west + 1e-3) & (xs - 5 < west + width - 1e-3))
    touched_y = np.flatnonzero((ys + 5 > south + 1e-3) & (ys - 5 < south + height - 1e-3))
    if window is None:
        assert touched_x.size == 0 or touched_y.size == 0
        return
    rows, cols = window
    if touched_x.size and touched_y.size:
        assert cols.start <= touched_x[0]
        assert cols.stop >= touched_x[-1] + 1
        assert rows.start <= touched_y[0]
        assert rows.stop >= touched_y[-1] + 1
        assert cols.stop - cols.start <= touched_x.size + 2


@given(west=st.floats(8, 12), south=st.floats(45, 49), resolution=st.sampled_from([10.0, 30.0, 100.0]))
def test_snapped_grids_of_neighbours_tile(west, south, resolution):
    left = areas.snapped_geobox(areas.parse_bbox((west, south, west + 0.1, south + 0.1)), 3035, resolution)
    right = areas.snapped_geobox(
        areas.parse_bbox((west + 0.1, south, west + 0.2, south + 0.1)), 3035, resolution
    )
    for box in (left, right):
        assert box.affine.c % resolution == 0
        assert box.affine.f % resolution == 0
    assert right.boundingbox.left <= left.boundingbox.right  # no gap


@pytest.mark.parametrize(
    ("resolution", "says"),
    [
        (10, "10 degrees per pixel"),
        (0, "must be positive"),
        (float("nan"), "must be positive"),
        ("a", "a number"),
    ],
)
def test_senseless_resolutions_are_refused(resolution, says):
    with pytest.raises(ValueError, match=says):
        areas.snapped_geobox(areas.parse_bbox((11, 47, 11.1, 47.1)), "EPSG:4326", resolution)


# --- points ---------------------------------------------------------------------------------------------------


def test_points_in_every_form_are_the_same():
    geopandas = pytest.importorskip("geopandas")
    pairs = np.array([[11.37, 47.25], [11.38, 47.26]])
    table = gx.testing.scene().points(2).assign(lon=pairs[:, 0], lat=pairs[:, 1])
    frame = geopandas.GeoDataFrame(geometry=geopandas.points_from_xy(*pairs.T), crs=4326)
    expected = pyproj.Transformer.from_crs(4326, 3035, always_xy=True).transform(*pairs.T)
    for points in (pairs, table, frame, frame.to_crs(32632)):
        np.testing.assert_allclose(places.points_xy(points, 3035), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("points", "says"),
    [(np.zeros((3, 3)), r"shape \(n, 2\)"), (np.full((2, 2), 1e6), "outside the world")],
)
def test_senseless_points_are_refused(points, says):
    with pytest.raises(ValueError, match=says):
        places.points_xy(points, 3035)


@given(
    crs=st.sampled_from([32632, 3035, 2263, 32661, 5041, 31467, 2180, 3413, 3857]),
    degrees=st.floats(1, 359),
    shear=st.floats(-40, 40),
    steps=st.tuples(st.sampled_from([10.0, 7.5]), st.sampled_from([-10.0, 6.0])),
)
def test_a_turned_grid_lies_where_its_affine_says(crs, degrees, shear, steps):
    """Both ways, in feet, with northings first, at the pole, and after a round trip through WKT."""
    area = geometry.as_crs(crs).area_of_use
    lon, lat = (area.west + area.east) / 2, min((area.south + area.north) / 2, 84.0)
    there = geometry.transformer(geometry.as_crs(4326), geometry.as_crs(crs))
    affine = (
        Affine.translation(*there.transform(lon, lat))
        * Affine.rotation(degrees)
        * Affine.shear(shear)
        * Affine.scale(*steps)
    )
    box = geometry.upright(geometry.make_geobox((50, 60), affine, crs))
    assert box.affine.b == box.affine.d == 0
    base = geometry.as_crs(crs)
    turned = pyproj.CRS.from_wkt(geometry.as_crs(box.crs).to_wkt())
    c, r = np.random.default_rng(0).random((2, 20)) * 50
    x, y = affine * (c, r)
    u, v = box.affine * (c, r)
    for source, target, given_, expected in ((turned, base, (u, v), (x, y)), (base, turned, (x, y), (u, v))):
        found = pyproj.Transformer.from_crs(source, target, always_xy=True).transform(*given_)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    if (
        crs == 31467
    ):  # PROJ knows several ways from this datum, and which it takes depends on the CRS it starts from
        return
    degrees_of = [pyproj.Transformer.from_crs(each, 4326, always_xy=True) for each in (turned, base)]
    np.testing.assert_allclose(
        degrees_of[0].transform(u, v), degrees_of[1].transform(x, y), rtol=0, atol=1e-11
    )


@pytest.mark.parametrize("like", ["scene.tif", None, np.zeros((2, 2))])
def test_what_is_no_array_has_no_grid(like):
    with pytest.raises(
        EmbeddingError, match=r"like= needs a DataArray that has a grid; got (str|NoneType|ndarray). A file"
    ):
        geometry.geobox_of(like, "like=")
