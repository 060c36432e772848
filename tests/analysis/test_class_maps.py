"""Ground area of classes, against geodesic polygons and equal-area projections."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import shapely
import xarray as xr
from rasterio.features import rasterize

import geoemb_xr as gx
from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.legend import Legend
from geoemb_xr.testing import assert_lazy_identical


def class_map(affine, crs, shape=(60, 80), seed=0):
    grid = geometry.make_geobox(shape, rasterio.Affine(*affine), crs)
    values = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)
    legend = Legend.of_names(["water", "dry grass", "town"])
    return xr.DataArray(values, dims=("y", "x"), coords=geometry.grid_coords(grid), attrs=legend.attrs())


def geodesic(array):
    """Area of each class from the outlines of all pixels, edges densified, on the ellipsoid (m²)."""
    crs = geometry.crs_of(array)
    to_lonlat = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    geod = pyproj.Geod(ellps="WGS84")
    half_y, half_x = (abs(float(array[d][1] - array[d][0])) / 2 for d in "yx")
    total = np.zeros(4)
    for (i, j), value in np.ndenumerate(array.values):
        x, y = float(array.x[j]), float(array.y[i])
        box = shapely.box(x - half_x, y - half_y, x + half_x, y + half_y).segmentize(half_x / 4)
        total[value] += abs(geod.polygon_area_perimeter(*to_lonlat.transform(*box.exterior.coords.xy))[0])
    return total[1:]


@pytest.mark.parametrize(
    ("affine", "crs"),
    [
        ((0.05, 0, 11.0, 0, -0.05, 60.0), "EPSG:4326"),
        ((10_000, 0, 1_200_000, 0, -10_000, 8_000_000), "EPSG:3857"),
        ((5_000, 0, 300_000, 0, -5_000, 5_400_000), "EPSG:32632"),
        ((10_000, 0, 4_000_000, 0, 10_000, 3_000_000), "EPSG:3035"),
        ((10_000, 0, -155_000, 0, -10_000, 125_000), "EPSG:3413"),  # the pole inside
    ],
)
def test_area_is_the_ellipsoids(affine, crs):
    small = class_map(affine, crs, (24, 30))
    found = gx.area(small, "m2")
    np.testing.assert_allclose(found, geodesic(small), rtol=2e-4)
    assert found.index.tolist() == ["water", "dry grass", "town"]


def test_lazy_and_in_time():
    one, other = (class_map((10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32632", seed=s) for s in (0, 1))
    both = xr.concat([one, other], pd.DatetimeIndex(["2018-01-01", "2024-01-01"], name="time"))
    table = both.chunk(time=1, y=17, x=23).emb.area("ha")
    pd.testing.assert_series_equal(table.iloc[1], other.emb.area("ha"), check_names=False, rtol=1e-9)
    assert table.index.year.tolist() == [2018, 2024]
    assert table.to_numpy().sum() == pytest.approx((both > 0).sum().item() / 100, rel=2e-3)


def test_units_and_errors():
    small = class_map((10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32632")
    np.testing.assert_allclose(small.emb.area("km2") * 100, small.emb.area("ha"))
    with pytest.raises(ValueError, match="unit='acres' is not known"):
        small.emb.area("acres")
    with pytest.raises(EmbeddingError, match="area needs a class map with y and x"):
        small.astype("f4").emb.area()
    assert small.emb.legend.loc[2, "name"] == "dry grass"
    with pytest.raises(EmbeddingError, match="not a class map"):
        gx.testing.synthetic("alphaearth", shape=(4, 4)).emb.legend  # noqa: B018


# --- polygons and names -----------------------------------------------------------------------------------------


def test_area_of_polygons_is_that_of_their_shape():
    truth = gx.testing.scene().truth(gx.testing.geobox((60, 70)), 2018)
    left, bottom, _, top = truth.emb.geobox.boundingbox
    shapes = [
        shapely.box(left + 3, bottom + 7, left + 203, bottom + 128),
        None,
        shapely.Point(left + 300, top - 300).buffer(90),
    ]
    frame = gpd.GeoDataFrame(geometry=shapes, crs=32632, index=list("abc"))
    found = truth.emb.area("m2", areas=frame)
    pd.testing.assert_frame_equal(truth.emb.area(frame), truth.emb.area("ha", areas=frame))
    ground = [abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(s)[0])
              for s in frame.geometry.dropna().segmentize(5).to_crs(4326)]  # fmt: skip
    np.testing.assert_allclose(found.loc[["a", "c"]].sum(axis=1), ground, rtol=1e-5)
    assert found.loc["b"].isna().all()
    lazy = truth.chunk({"y": 13, "x": 29}).emb.area("m2", areas=frame)
    pd.testing.assert_frame_equal(lazy, found)
    shares = truth.emb.zonal_stats(frame).to_pandas()
    np.testing.assert_allclose(found.div(found.sum(axis=1), axis=0).loc["c"], shares.loc["c"], rtol=1e-5)
    years = xr.concat([truth.assign_coords(time=np.datetime64(f"{y}-01-01")) for y in (2018, 2024)], "time")
    assert years.emb.area(areas=frame).loc[(slice(None), "a"), :].shape == (2, found.shape[1])


def test_names_stand_for_codes():
    truth = gx.testing.scene().truth(gx.testing.geobox((30, 30)), 2018)
    truth.values[0, 0] = 0
    out = assert_lazy_identical(lambda a: a.emb.names(), truth)
    assert np.isnan(out.values[0, 0])
    legend = truth.emb.legend["name"]
    assert out.values[5, 5] == legend[truth.values[5, 5]]
    assert "legend" not in out.attrs
    with pytest.raises(EmbeddingError, match="names needs a class map"):
        truth.astype(float).emb.names()


@pytest.mark.parametrize("min_pixels", [1, 30])
def test_a_class_map_becomes_polygons(min_pixels):
    truth = gx.testing.scene().truth(gx.testing.geobox((60, 70)), 2018)
    truth.values[:5] = 0
    frame = truth.emb.to_geodataframe(min_pixels=min_pixels)
    assert frame.crs == truth.emb.crs
    assert (frame.area >= 100 * min_pixels).all()
    assert frame.area.sum() == pytest.approx(100 * (truth.values > 0).sum())
    assert (
        dict(zip(frame["value"], frame["name"], strict=True)).items()
        <= truth.emb.legend["name"].to_dict().items()
    )
    # GDAL burns them back
    burnt = rasterize(
        zip(frame.geometry, frame["value"], strict=True), truth.shape, transform=truth.emb.geobox.affine
    )
    if min_pixels == 1:
        np.testing.assert_array_equal(burnt, truth.values)
    south_up = truth.isel(y=slice(None, None, -1)).emb.to_geodataframe(min_pixels=min_pixels)
    assert south_up.geometry.geom_equals(frame.geometry).all()
    with pytest.raises(EmbeddingError, match="take one year"):
        truth.drop_vars("time", errors="ignore").expand_dims(time=2).emb.to_geodataframe()
