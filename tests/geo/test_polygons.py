"""The share of each pixel that a polygon covers, against GDAL and exactextract."""

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import geometry_mask
from rasterio.transform import from_origin

from geoemb_xr import EmbAccessor as _  # noqa: F401  (the package is imported as users do)
from geoemb_xr.core.errors import CoverageError, EmbeddingError
from geoemb_xr.geo import covering
from geoemb_xr.geo.covering import Outlines
from geoemb_xr.geo.places import polygons_of
from geoemb_xr.geo.polygons import covered_shares

HEIGHT, WIDTH = 61, 83
YS, XS = HEIGHT - np.arange(HEIGHT) - 0.5, np.arange(WIDTH) + 0.5
ONE = (1.0, 1.0)


def blob(seed: int, corners: int = 11) -> shapely.Polygon:
    """A star-shaped polygon with irrational corners."""
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(4, 38, corners)
    return shapely.make_valid(
        shapely.Polygon(np.column_stack([41.3 + radius * np.cos(angle), 30.7 + radius * np.sin(angle)]))
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("rule", "touched"), [("centre", False), ("touched", True)])
def test_rules_are_gdals(seed, rule, touched):
    shape = blob(seed)
    gdal = geometry_mask(
        [shape], (HEIGHT, WIDTH), from_origin(0, HEIGHT, 1, 1), all_touched=touched, invert=True
    )
    ours = covered_shares(shape, YS, XS, ONE, rule) > 0
    # GDAL's all_touched misses pixels that an edge only just enters
    assert (ours != gdal).sum() <= (3 if touched else 0)
    if touched:
        assert not (gdal & ~ours).any()


@pytest.mark.parametrize("seed", range(6))
def test_exact_shares_are_exactextracts(seed):
    exactextract = pytest.importorskip("exactextract")
    shape = blob(seed)
    raster = exactextract.raster.NumPyRasterSource(
        np.zeros((HEIGHT, WIDTH)), xmin=0, ymin=0, xmax=WIDTH, ymax=HEIGHT
    )
    feature = exactextract.feature.JSONFeatureSource(
        {"type": "Feature", "geometry": shapely.geometry.mapping(shape), "properties": {}}
    )
    (found,) = exactextract.exact_extract(raster, feature, ["cell_id", "coverage"])
    expected = np.zeros(HEIGHT * WIDTH)
    expected[found["properties"]["cell_id"]] = found["properties"]["coverage"]
    np.testing.assert_allclose(
        covered_shares(shape, YS, XS, ONE, "exact").reshape(-1), expected, rtol=0, atol=1e-6
    )


@given(st.integers(0, 10_000), st.integers(1, HEIGHT - 1), st.integers(1, WIDTH - 1))
def test_any_cut_gives_the_same(seed, row, col):
    shape = blob(seed, 7)
    for rule in ("centre", "touched"):
        whole = covered_shares(shape, YS, XS, ONE, rule)
        parts = [
            [covered_shares(shape, y, x, ONE, rule) for x in (XS[:col], XS[col:])]
            for y in (YS[:row], YS[row:])
        ]
        np.testing.assert_array_equal(whole, np.block(parts))


@given(st.integers(0, 10_000), st.integers(-9, HEIGHT + 9), st.integers(-9, WIDTH + 9))
def test_exact_shares_of_any_window_are_those_of_geos(seed, row, col):
    shape = blob(seed, 9) - blob(seed + 1, 5)
    ys, xs = row - np.arange(7) - 0.5, col + np.arange(5) + 0.5
    x, y = np.meshgrid(xs, ys)
    expected = shapely.area(shapely.intersection(shape, shapely.box(x - 0.5, y - 0.5, x + 0.5, y + 0.5)))
    found = covered_shares(shape, ys, xs, ONE, "exact")
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert not found[expected == 0].any()


def test_a_mended_polygon_covers_what_its_polygons_do():
    bow = shapely.Polygon(
        [(2, 2), (12, 12), (12, 2), (2, 12), (2, 2), (1, 1), (2, 2)]
    )  # crossed, with a spike
    mended = shapely.make_valid(bow)
    assert mended.geom_type == "GeometryCollection"  # two triangles in one, and a line
    assert covered_shares(mended, YS, XS, ONE, "exact").sum() == pytest.approx(50)


@given(st.integers(0, 10_000), st.integers(32, 3000))
def test_pieces_of_any_size_give_the_same_and_hold_few_pixels(seed, size):
    shapes = np.array([blob(seed, 7), None, shapely.box(-9, -9, 99, 99), blob(seed + 1, 5)])
    outlines = Outlines.of(shapes, Affine(1, 0, 0, 0, -1, HEIGHT), (HEIGHT, WIDTH))
    shares = np.zeros((len(shapes), HEIGHT, WIDTH))
    for piece in outlines.pieces(size):
        assert piece.weights.size <= 2 * size
        row, column = piece.pixels()
        zone = np.repeat(piece.windows[:, 0], np.diff(piece.ends))
        assert not shares[zone, row, column].any()  # each comes once
        shares[zone, row, column] = piece.weights
    for shape, found in zip(shapes, shares, strict=True):
        expected = 0 if shape is None else covered_shares(shape, YS, XS, ONE, "exact")
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-9)


def test_either_direction_of_the_axes():
    shape = blob(1)
    flipped = covered_shares(shape, YS[::-1], XS[::-1], ONE, "exact")
    np.testing.assert_allclose(flipped[::-1, ::-1], covered_shares(shape, YS, XS, ONE, "exact"), atol=1e-12)


def test_edges_on_pixel_edges_touch_no_neighbour():
    shape = shapely.box(10, 10, 20, 20)
    for rule in ("centre", "touched", "exact"):
        assert covered_shares(shape, YS, XS, ONE, rule).sum() == 100


def test_holes_and_parts_count():
    shape = shapely.union_all(
        [shapely.box(0, 0, 30, 30) - shapely.box(5, 5, 10, 10), shapely.box(60, 2, 61, 3)]
    )
    assert covered_shares(shape, YS, XS, ONE, "exact").sum() == pytest.approx(shape.area)


def test_projected_edges_are_densified():
    # Along 47° N from 6° to 24° E a straight line in EPSG:3035 leaves the parallel by kilometres.
    (moved,) = polygons_of([shapely.box(6, 46, 24, 47)], "EPSG:4326", pyproj.CRS("EPSG:3035"))
    back = pyproj.Transformer.from_crs(3035, 4326, always_xy=True)
    lon, lat = back.transform(*moved.segmentize(1000).exterior.coords.xy)
    assert (
        np.abs(np.asarray(lat)[(np.asarray(lon) > 6.1) & (np.asarray(lon) < 23.9)] - 46.5).max() < 0.5 + 1e-5
    )


@pytest.mark.parametrize("far", [1e12, 1e20])
@pytest.mark.parametrize("cover", [covering.cover, covering.cover.twin])
def test_edges_may_end_anywhere(far, cover, monkeypatch):
    monkeypatch.setattr(covering, "cover", cover)
    all_around = shapely.box(-far, -far, far, far)
    needle = shapely.Polygon([(3.5, 20.0), (far, 25.0), (far, 15.0)])  # too thin here to cover anything
    np.testing.assert_array_equal(covered_shares(all_around, YS, XS, ONE, "exact"), 1)
    np.testing.assert_array_equal(covered_shares(needle, YS, XS, ONE, "exact"), 0)


def test_bow_ties_are_mended():
    bow = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    (mended,) = polygons_of([bow], "EPSG:4326", pyproj.CRS("EPSG:4326"))
    assert mended.is_valid
    assert mended.area == pytest.approx(50)


def test_what_is_no_polygon_is_refused():
    lonlat = pyproj.CRS("EPSG:4326")
    with pytest.raises(EmbeddingError, match="an area is a polygon; got points"):
        polygons_of([shapely.Point(0, 0)], lonlat, lonlat)
    with pytest.raises(EmbeddingError, match="got none"):
        polygons_of([], lonlat, lonlat)
    with pytest.raises(CoverageError, match="cannot be reached in"):
        polygons_of(
            [shapely.box(-172, -55, -168, -50)], lonlat, pyproj.CRS("+proj=ortho +lat_0=47 +lon_0=10")
        )
