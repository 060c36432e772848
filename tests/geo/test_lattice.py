"""Positions against PROJ in double precision, for every window the same bits."""

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.geo import lattice
from geoemb_xr.testing import geobox

ORTHO = "+proj=ortho +lat_0=47 +lon_0=11 +datum=WGS84"


def world(step):
    return geometry.make_geobox(
        (round(180 / step), round(360 / step)), Affine(step, 0, -180, 0, -step, 90), 4326
    )


def around(crs, x, y, step, shape=(150, 170)):
    left, top = np.round(x / step - shape[1] / 2) * step, np.round(y / step + shape[0] / 2) * step
    return geometry.make_geobox(shape, Affine(step, 0, left, 0, -step, top), crs)


CASES = {
    "utm to laea": (geobox((300, 300)), geobox((280, 290), crs="EPSG:3035")),
    "utm to degrees": (geobox((300, 300)), geobox((200, 290), crs="EPSG:4326", resolution=1e-4)),
    "utm to mercator": (geobox((300, 300)), geobox((280, 290), crs="EPSG:3857", resolution=15)),
    "next zone": (geobox((300, 300)), geobox((200, 290), crs="EPSG:32633")),
    "1 km": (world(0.01), geobox((200, 200), crs="EPSG:3035", resolution=1000.0)),
    "quarter degree to 25 km": (world(0.25), geobox((150, 150), crs="EPSG:3035", resolution=25_000.0)),
    "25 km to quarter degree": (geobox((150, 150), crs="EPSG:3035", resolution=25_000.0), world(0.25)),
    "north pole": (world(0.05), around("EPSG:3413", 0, 0, 5000.0)),
    "south pole": (world(0.05), around("EPSG:3031", 0, 0, 5000.0)),
    "pole from polar": (around("EPSG:3413", 0, 0, 5000.0), world(0.5)),
    "antimeridian from degrees": (world(0.01), around("EPSG:3832", 3_300_000, -2_000_000, 1000.0)),
    "antimeridian, zones 60 and 1": (
        around("EPSG:32760", 818_000, 8_000_000, 30), around("EPSG:32701", 182_000, 8_000_000, 30)
    ),
    "degrees past 180": (around("EPSG:32760", 818_000, 8_000_000, 100), around("EPSG:4326", 180.0, -18.0, 0.001)),
    "far side": (around(ORTHO, 0, 0, 50_000.0, (300, 300)), world(0.5)),
    "half a hemisphere": (world(0.25), around(ORTHO, 0, 0, 50_000.0, (300, 300))),
}  # fmt: skip


def exact(source, target, offset=0.5):
    """Positions in source pixels from the source's first, by PROJ, pixel by pixel, not finite out of reach."""
    height, width = target.shape
    cols, rows = np.meshgrid(np.arange(width) + offset, np.arange(height) + offset)
    x, y = target.affine * (cols, rows)
    src, dst = geometry.as_crs(source.crs), geometry.as_crs(target.crs)
    there, back = geometry.transformer(dst, src), geometry.transformer(src, dst)
    sx, sy = there.transform(x, y)
    bx, by = back.transform(sx, sy)
    with np.errstate(invalid="ignore"):
        turn = 360.0 if dst.is_geographic else np.inf
        dx = (bx - x) if turn == np.inf else (bx - x + 180) % 360 - 180
        lost = ~((abs(dx) < abs(target.affine.a) * 0.4) & (abs(by - y) < abs(target.affine.e) * 0.4))
        if dst.is_geographic:
            lost &= ~(abs(abs(y) - 90) < 1e-9)
    col, row = ~source.affine * (np.where(lost, np.nan, sx), np.where(lost, np.nan, sy))
    return row, col


@pytest.mark.parametrize("name", CASES)
def test_positions_are_those_of_proj(name):
    source, target = CASES[name]
    src, dst = lattice.target_grid(source), lattice.target_grid(target)
    row, col = exact(source, target)
    units = lattice.coordinates(src, dst, (0, target.shape[0]), (0, target.shape[1]))
    reached = units[0] != lattice.NOWHERE
    assert reached.any()
    np.testing.assert_array_equal(reached, (abs(row) < lattice.FAR) & (abs(col) < lattice.FAR))
    got = lattice.local(units, src, ((0, source.shape[0]), (0, source.shape[1]))) / lattice.UNITS
    turn = src.period / lattice.UNITS or np.inf
    dx = got[1] - col
    dx = np.where(np.isfinite(turn), dx - turn * np.round(dx / turn), dx) if np.isfinite(turn) else dx
    with np.errstate(invalid="ignore"):
        error = np.hypot(got[0] - row, dx)[reached]
    assert error.max() < 0.02  # 0.01 where it is tested, at the middles; the rounding is 0.0001


@given(data=st.data())
def test_any_window_has_the_same_bits(data):
    source, target = CASES[data.draw(st.sampled_from(sorted(CASES)))]
    src = lattice.target_grid(source)
    height, width = target.shape
    whole = lattice.coordinates(src, lattice.target_grid(target), (0, height), (0, width))
    r0, c0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    r1, c1 = data.draw(st.integers(r0 + 1, height)), data.draw(st.integers(c0 + 1, width))
    part = lattice.coordinates(src, lattice.target_grid(target), (r0, r1), (c0, c1))
    np.testing.assert_array_equal(part, whole[:, r0:r1, c0:c1])
    crop = lattice.target_grid(target[r0:r1, c0:c1])
    again = lattice.coordinates(src, crop, (0, r1 - r0), (0, c1 - c0))
    np.testing.assert_array_equal(again, part)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("edges", [pytest.param(False, marks=pytest.mark.complete), True])
def test_reach_holds_every_pixel(name, edges):
    source, target = CASES[name]
    src, dst = lattice.target_grid(source), lattice.target_grid(target)
    rows = np.array([*range(0, target.shape[0], 64), target.shape[0]])
    cols = np.array([*range(0, target.shape[1], 50), target.shape[1]])
    windows = lattice.reach(src, dst, rows, cols)
    met = 0
    for i in range(len(rows) - 1):
        for j in range(len(cols) - 1):
            (top, bottom), (left, right) = windows[i, j].tolist()
            units = lattice.coordinates(src, dst, (rows[i], rows[i + 1]), (cols[j], cols[j + 1]), edges=edges)
            at = lattice.local(units, src, ((0, source.shape[0]), (0, source.shape[1]))) >> 12
            inside = (at[0] >= 0) & (at[0] < source.shape[0]) & (at[1] >= 0) & (at[1] < source.shape[1])
            if not inside.any():
                continue
            met += 1
            y, x = at[0][inside], at[1][inside]
            x = np.where(x < left, x + source.shape[1], x) if src.around else x
            assert top <= y.min()
            assert y.max() < bottom
            assert left <= x.min()
            assert x.max() < right
    assert met


def test_blocks_out_of_reach_need_nothing():
    source, target = geobox((100, 100)), geobox((100, 100), offset=(50_000, 0))
    edges = np.array([0, 100])
    assert not lattice.reach(lattice.target_grid(source), lattice.target_grid(target), edges, edges).any()


def test_a_narrow_block_far_from_a_huge_grid_needs_little():
    """A block reads what it lies in, not the bounding box of the world."""
    source, target = CASES["antimeridian, zones 60 and 1"]
    edges = np.array([0, 50])
    window = lattice.reach(lattice.target_grid(source), lattice.target_grid(target), edges, edges)[0, 0]
    assert (window[:, 1] - window[:, 0] <= 70).all()


@pytest.mark.parametrize("step", [10.0, 0.1, 1 / 11132, 0.25, 30.0, 1 / 3600])
def test_a_crop_knows_the_step_of_the_whole(step):
    """A crop's coordinates are rounded; what is computed from them is not."""
    from xarray import DataArray

    crs = 4326 if step < 5 else 32632
    top = 45.0 if crs == 4326 else 5_000_000.0
    whole = geometry.make_geobox(
        (3000, 2000), Affine(step, 0, round(11 / step) * step, 0, -step, round(top / step) * step), crs
    )
    coords = geometry.grid_coords(whole)
    array = DataArray(np.empty((3000, 2000), "i1"), dims=("y", "x"), coords=coords)
    one = lattice.source_grid(array)
    for window in (
        (slice(0, 2), slice(0, 2)),
        (slice(1500, 1507), slice(3, 1990)),
        (slice(2990, 3000), slice(1997, 2000)),
    ):
        part = lattice.source_grid(array[window])
        assert (part.y.step, part.x.step) == (one.y.step, one.x.step)
        assert part.y.start - one.y.start == window[0].start
        assert part.x.start - one.x.start == window[1].start


def test_rotated_targets_are_refused():
    box = geometry.make_geobox((4, 4), Affine.rotation(10) * Affine.scale(10, -10), "EPSG:32632")
    with pytest.raises(ValueError, match="rotated"):
        lattice.target_grid(box)


@pytest.mark.parametrize("west", [-180, 0])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:3413"])
def test_a_block_around_the_world_has_no_seam(west, crs):
    """Pixels that lie on both ends of what the block needs of the source were means of a whole circle."""
    box = geometry.make_geobox((60, 120), Affine(3, 0, west, 0, -3, 90), "EPSG:4326")
    coords = geometry.grid_coords(box)
    turn = np.broadcast_to(np.cos(np.radians(coords["x"].values)), box.shape).astype(np.float32)
    whole_turn = xr.DataArray(turn, coords, ("y", "x"))
    step, height, width = {"EPSG:4326": (6, 30, 60), "EPSG:3857": (1e6, 36, 36), "EPSG:3413": (4e5, 20, 20)}[
        crs
    ]
    target = geometry.make_geobox(
        (height, width), Affine(step, 0, -step * width / 2, 0, -step, step * height / 2), crs
    )
    got = gx.reproject(whole_turn, target, resampling="average")
    col, row = np.meshgrid(*(np.arange(n) + 0.5 for n in target.shape[::-1]))
    to_lonlat = geometry.transformer(geometry.as_crs(crs), geometry.as_crs(4326))
    lon, lat = to_lonlat.transform(*(target.affine * (col, row)))
    near = np.abs(lat) < 75
    assert np.abs(got.values - np.cos(np.radians(lon)))[near].max() < 0.05
    classes = (whole_turn > 0).astype(np.uint8) + np.uint8(1)
    whole, parts = (gx.reproject(classes, target, resampling="mode", chunks=n) for n in (-1, 8))
    np.testing.assert_array_equal(whole, parts)


def test_coarsen_of_the_world_has_no_seam():
    box = geometry.make_geobox((90, 180), Affine(2, 0, -180, 0, -2, 90), "EPSG:4326")
    values = np.random.default_rng(0).normal(size=box.shape).astype(np.float32)
    got = gx.coarsen(xr.DataArray(values, geometry.grid_coords(box), ("y", "x")), 3)
    np.testing.assert_allclose(got, values.reshape(30, 3, 60, 3).mean((1, 3)), atol=1e-6)


def _of_longitude(step, west, columns):
    """A map of which each pixel has the cosine of its longitude."""
    box = geometry.make_geobox((round(180 / step), columns), Affine(step, 0, west, 0, -step, 90), "EPSG:4326")
    coords = geometry.grid_coords(box)
    values = np.broadcast_to(np.cos(np.radians(coords["x"].values)), box.shape)
    return xr.DataArray(values.astype(np.float32), coords, ("y", "x"))


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4258"])
@pytest.mark.parametrize("step", [9, 12, 60])
def test_a_lattice_of_wide_pixels_is_not_folded(step, crs):
    """Nodes that lie a turn apart were taken for one place: 3° to 9° gave cos(lon) = 0.65 at −175.5°."""
    source = _of_longitude(3, -180, 120)
    target = geometry.make_geobox((180 // step, 360 // step), Affine(step, 0, -180, 0, -step, 90), crs)
    lon = -180 + (np.arange(360 // step) + 0.5) * step
    got = gx.reproject(source, target, resampling="bilinear")
    assert np.abs(got.values - np.cos(np.radians(lon)))[1:-1].max() < 0.03
    mean = gx.reproject(source, target, resampling="average")
    folded = source.values[0].reshape(-1, step // 3).mean(1)
    np.testing.assert_allclose(mean, np.broadcast_to(folded, mean.shape), atol=2e-3)


def test_pixels_half_a_turn_wide_are_means_of_their_half():
    source = _of_longitude(4.5, -180, 80)
    source.values[:, :40] += 1
    halves = source.values.reshape(40, 2, 40).mean((0, 2))
    np.testing.assert_allclose(gx.coarsen(source, 40)[0], halves, atol=1e-5)
    np.testing.assert_allclose(gx.coarsen(source, 80)[0], [halves.mean()], atol=1e-5)


@pytest.mark.parametrize("how", ["average", "mode"])
def test_a_part_of_the_world_is_not_seen_from_its_other_side(how):
    """A pixel across the meridian opposite of the array spanned all of it; one at both its ends saw one of them."""
    target = geometry.make_geobox((6, 12), Affine(30, 0, -170, 0, -30, 90), "EPSG:4326")
    narrow, wide = _of_longitude(5, 10, 4), _of_longitude(5, -160, 71)
    if how == "mode":
        narrow, wide = ((each > 0).astype(np.uint8) + np.uint8(1) for each in (narrow, wide))
    seen = gx.reproject(narrow, target, resampling=how)
    assert ((seen != 0) & (seen == seen)).any("y").values.nonzero()[0].tolist() == [6]
    got = gx.reproject(wide, target, resampling=how)
    np.testing.assert_array_equal(got, gx.reproject(wide, target, resampling=how, chunks=1))


def test_sums_of_squares_around_the_world_have_no_seam():
    """Pixels across a square's other side took all of it, and columns at both ends of a block counted twice."""
    values = np.random.default_rng(0).normal(size=(80, 1440)).astype(np.float32)
    box = geometry.make_geobox(values.shape, Affine(0.25, 0, -180, 0, -0.25, 10), "EPSG:4326")
    source = xr.DataArray(values, geometry.grid_coords(box), ("y", "x"))
    want = values.reshape(80, 18, 80).mean((0, 2))
    got = gx.coarsen(source, 80)
    np.testing.assert_allclose(got[0], want, atol=1e-6)
    turned = geometry.make_geobox((1, 18), Affine(20, 0, -190, 0, -20, 10), "EPSG:4326")
    shares = gx.reproject(source.chunk(x=500), turned, resampling="average", resultant_length=True)
    want = np.roll(values, 40, 1).reshape(80, 18, 80).mean((0, 2))
    np.testing.assert_allclose(shares.embedding[0], want, atol=1e-6)
    np.testing.assert_allclose(shares.valid_fraction, 1, atol=1e-6)


@pytest.mark.parametrize("crs", ["EPSG:3413", "EPSG:3031"])
def test_a_world_without_end_is_refused_in_words(crs):
    """The other pole of a polar projection is infinitely far: coordinates would be exbibytes."""
    with pytest.raises(EmbeddingError, match=f"in {crs} is more than an array can hold.*crop first"):
        gx.reproject(_of_longitude(10, -180, 36), crs)


def test_cells_beside_the_blocks_that_they_may_touch_are_missing():
    """A block that is near both ends of a part of the world had a negative number of columns."""
    source = _of_longitude(2, -180, 104)
    target = geometry.make_geobox((18, 36), Affine(10, 0, -180, 0, -10, 90), "EPSG:4326")
    got = gx.reproject(source.chunk(y=46, x=35), target, resampling="average", chunks=3)
    np.testing.assert_allclose(got[0, :20], source.values[0, :100].reshape(20, 5).mean(1), atol=1e-6)
    assert np.isnan(got[:, 21:]).all()
