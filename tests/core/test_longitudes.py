"""Longitudes on a circle, against brute force: every quarter degree around the world is looked at."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geoemb_xr.core import areas, longitudes
from geoemb_xr.geo.places import read_places

#: In eighths of a degree, so that ends of arcs, whole quarters, never meet by rounding.
STEP = 0.25
#: As sources write them: −180 … 180 or 0 … 360.
LON = st.integers(-180 * 4, 360 * 4).map(lambda n: n * STEP)
WIDTH = st.integers(0, 180 * 4).map(lambda n: n * STEP)
#: Where it is hard: around the antimeridian.
NEAR = st.one_of(LON, st.integers(-8, 8).map(lambda n: 180 + n * STEP), st.just(-180.0), st.just(180.0))
#: How an arc may be written: as it runs, or with its end turned back.
ARC = st.builds(
    lambda west, width, back: (west, west + width - (360.0 if back and west + width > 180 else 0.0)),
    NEAR,
    WIDTH,
    st.booleans(),
)


def places(west: float, east: float) -> set[int]:
    """The eighths of a degree on an arc, each under one name."""
    east = east if east >= west else east + 360
    return {n % (360 * 8) for n in range(round(west * 8), round(east * 8) + 1)}


@given(st.lists(ARC, min_size=1, max_size=4), ARC)
def test_arcs_touch_where_they_share_a_place(arcs, other):
    west, east = np.array(arcs).T
    expected = [bool(places(*arc) & places(*other)) for arc in arcs]
    assert longitudes.touch(west, east, *other).tolist() == expected
    assert longitudes.touch(*other, west, east).tolist() == expected


def test_arcs_written_two_turns_apart_touch():
    assert longitudes.touch(-350.0, -340.0, 345.0, 375.0)
    assert longitudes.within(-350.0, -346.0, 345.0, 375.0)


@given(st.lists(ARC, min_size=1, max_size=4), ARC)
def test_an_arc_is_within_another_where_all_its_places_are(arcs, other):
    west, east = np.array(arcs).T
    expected = [places(*arc) <= places(*other) for arc in arcs]
    assert longitudes.within(west, east, *other).tolist() == expected


@given(st.lists(ARC, min_size=1, max_size=5))
def test_the_arc_around_several_holds_them_and_none_is_shorter(arcs):
    west, east = longitudes.around(*np.array(arcs).T)
    assert -180 <= west <= 180
    assert -180 <= east <= 180
    found, held = places(west, east), set().union(*(places(*arc) for arc in arcs))
    assert held <= found
    # what the shortest leaves out is the longest run of places that none of them has
    free = sorted(set(range(360 * 8)) - held)
    runs, run = [0], 0
    for n in [*free, *(n + 360 * 8 for n in free)]:
        run = run + 1 if run and n == previous + 1 else 1  # noqa: F821 - set below
        previous = n  # noqa: F841
        runs.append(min(run, 360 * 8))
    assert len(found) == 360 * 8 - max(runs)


@given(NEAR, st.floats(-400, 400))
def test_a_longitude_is_written_within_half_a_turn_of_a_middle(lon, middle):
    found = float(longitudes.turned(lon, middle))
    assert middle - 180 <= found + 1e-9
    assert found < middle + 180 + 1e-9
    assert (found - lon) % 360 == pytest.approx(0, abs=1e-9) or (found - lon) % 360 == pytest.approx(360)
    if middle - 180 <= lon < middle + 180:
        assert found == lon


@given(st.integers(1700, 1900), st.integers(1, 300), st.booleans())
def test_a_polygon_in_two_parts_or_a_ring_that_jumps_is_one_piece(tenths, width, split):
    west = tenths / 10
    east = west + width / 10
    whole = shapely.box(west, -5, east, 5)
    if west >= 180 or east <= 180:
        shape = whole
    elif split:
        shape = shapely.MultiPolygon([shapely.box(west, -5, 180, 5), shapely.box(-180, -5, east - 360, 5)])
    else:
        shape = shapely.transform(whole, lambda xy: np.where(xy > 180, xy - 360, xy))
    found = longitudes.in_one_piece(shape)
    assert shapely.area(found) == pytest.approx(shapely.area(whole))
    assert found.bounds == pytest.approx((west, -5, east, 5))
    area = read_places(shape).area()
    assert longitudes.width(area.west, area.east) == pytest.approx(width / 10)
    assert float(longitudes.turned(area.west - west)) == pytest.approx(0, abs=1e-9)


def test_what_goes_around_the_world_is_left_as_it_is():
    for shape in (
        shapely.box(-180, -90, 180, 90),
        shapely.Point(12, 47).buffer(1),
        shapely.Point(),
    ):
        assert longitudes.in_one_piece(shape).equals(shape)
    several = np.array([shapely.box(0, 0, 1, 1), None, shapely.box(179, 0, 181, 1)], dtype=object)
    assert (longitudes.in_one_piece(several) == several).all()


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        ((179.5, -1, 180.5, 1), (179.5, -179.5)),
        ((181, -1, 182, 1), (-179.0, -178.0)),
        ((350, -1, 359, 1), (-10.0, -1.0)),
        ((-181, -1, -179, 1), (179.0, -179.0)),
        ((179.5, -1, -179.5, 1), (179.5, -179.5)),
        ((179, -1, 180, 1), (179.0, 180.0)),
    ],
)
def test_a_box_past_180_is_the_box_across_the_antimeridian(bbox, expected):
    area = areas.parse_bbox(bbox)
    assert (area.west, area.east) == expected


def test_parts_keep_their_shape_wherever_they_lie():
    """France: a part across Greenwich, others near both sides of the antimeridian."""
    parts = [shapely.box(-5, 42, 8, 51), shapely.box(-178, -14, -176, -13), shapely.box(163, -23, 168, -19)]
    found = longitudes.in_one_piece(shapely.MultiPolygon(parts))
    assert [shapely.box(*part.bounds).equals(part) for part in found.geoms] == [True] * 3
    assert found.area == pytest.approx(sum(part.area for part in parts))
    assert found.bounds == (-5, -23, 184, 51)


def test_several_polygons_around_the_antimeridian_have_the_box_across_it():
    geopandas = pytest.importorskip("geopandas")
    shapes = geopandas.GeoSeries(
        [shapely.box(178, -2, 179, 1), None, shapely.box(-179, 0, -178, 3)], crs=4326
    )
    area = read_places(shapes).area()
    assert area.bounds == (178.0, -2.0, -178.0, 3.0)
