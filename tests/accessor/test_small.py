"""Arrays of one pixel, one row or one column: every verb takes them, and gives what it gives in the whole."""

import geopandas as gpd
import numpy as np
import pytest
import shapely

import geoemb_xr as gx
from geoemb_xr import testing

SMALL = {
    "pixel": {"y": slice(4, 5), "x": slice(7, 8)},
    "row": {"y": slice(4, 5)},
    "column": {"x": slice(7, 8)},
}


@pytest.fixture(scope="module")
def whole():
    return testing.synthetic("alphaearth", shape=(12, 12), years=[2018, 2020, 2024])


@pytest.fixture(scope="module")
def models(whole):
    vectors = whole.emb.year(2018).emb.decode()
    x, y = map(np.ravel, np.meshgrid(vectors.x, vectors.y))
    halves = np.where(x > x.mean(), "east", "west")
    places = gpd.GeoDataFrame({"half": halves}, geometry=gpd.points_from_xy(x, y), crs=vectors.emb.crs)
    probe = vectors.emb.fit_probe(places, target="half", cv=0)
    return whole.emb.fit_pca(3), probe


@pytest.mark.parametrize("cut", SMALL)
def test_what_each_pixel_gives_is_what_it_gives_in_the_whole(whole, models, cut):
    pca, probe = models
    for verb in (
        lambda da: da.emb.decode(),
        lambda da: da.emb.normalize(),
        lambda da: da.emb.pca(pca),
        lambda da: da.emb.rgb(pca),
        lambda da: da.emb.predict(probe),
        lambda da: da.emb.predict(probe, output="proba"),
        lambda da: da.emb.change(2018, 2024),
        lambda da: da.emb.change_point().to_dataarray(),
        lambda da: da.emb.aggregate("mean"),
        lambda da: da.emb.similarity(np.eye(64, dtype="f4")[0]),
        lambda da: da.emb.coarsen(1),
        lambda da: da.emb.crop(da.emb.bounds, crs=da.emb.crs),
        lambda da: da.emb.reproject(whole),
    ):
        result, expected = verb(whole.isel(SMALL[cut])), verb(whole)
        if result.sizes["x"] == expected.sizes["x"] and result.sizes["y"] == expected.sizes["y"]:
            result = result.isel(SMALL[cut])  # on the grid of the whole
        # GEMM's last bits depend on the shape of a block
        np.testing.assert_allclose(
            result.values.astype("f8"), expected.isel(SMALL[cut]).values.astype("f8"), atol=1e-5
        )


@pytest.mark.parametrize("cut", SMALL)
def test_what_takes_the_place_of_a_small_array_takes_all_of_it(whole, models, cut, tmp_path):
    _, probe = models
    small = whole.isel(SMALL[cut]).emb.year(2018)
    height, width = (small.sizes[axis] for axis in "yx")
    assert (small.emb.geobox.resolution.x, small.emb.geobox.resolution.y) == (10, -10)
    west, south, east, north = small.emb.bounds
    assert (east - west, north - south) == (10 * width, 10 * height)
    area = gpd.GeoDataFrame(geometry=[shapely.box(*small.emb.bounds)], crs=small.emb.crs)
    mean = small.emb.decode().mean(("y", "x"))
    np.testing.assert_allclose(small.emb.zonal_stats(area).values[0], mean, atol=1e-5)
    assert small.emb.crop(area).equals(small)
    middle = gpd.GeoSeries([area.geometry[0].centroid], crs=area.crs)
    assert small.emb.sample(middle).dropna("location").sizes["location"] == 1
    assert len(small.emb.search(middle, 1, exclude_query=False)) == 1
    assert len(small.emb.to_dataframe()) == height * width
    lonlat = small.emb.reproject("EPSG:4326")
    assert lonlat.notnull().all("band").sum() >= height * width
    assert small.emb.reproject("EPSG:3035", resampling="bilinear").notnull().any()
    assert small.emb.coarsen(2).sizes["x"] == -(-width // 2)
    assert small.emb.plan() is not None
    classes = small.emb.predict(probe).compute()
    assert float(classes.emb.area("m2").sum()) == pytest.approx(100 * height * width, rel=1e-3)
    assert float(classes.emb.area(area).sum(axis=1).iloc[0]) == pytest.approx(height * width / 100, rel=1e-3)
    assert classes.emb.to_geodataframe().area.sum() == pytest.approx(100 * height * width)
    assert gx.open(small.emb.to_zarr(tmp_path / "a.zarr"), decode=False).equals(small)
    again = gx.open("alphaearth", small.emb.to_cog(tmp_path / "a_2018.tif"))
    assert again.emb.geobox == small.emb.geobox
    np.testing.assert_allclose(again.values, small.emb.decode(), atol=1e-6)


@pytest.mark.parametrize("cut", SMALL)
def test_a_small_array_is_shown(whole, cut):
    small = whole.isel(SMALL[cut]).emb.year(2018)
    image = small.emb.plot().images[0]
    west, south, east, north = small.emb.bounds
    assert np.allclose(image.get_extent(), (west, east, south, north))
    assert image.get_array().shape[:2] == (small.sizes["y"], small.sizes["x"])
    assert small.emb.explore().model.n_components == 3
