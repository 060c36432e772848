"""The synthetic scene with its labels: points, fields, a raster, and the truth."""

import geopandas as gpd
import numpy as np
import shapely

import geoemb_xr as gx

SCENE = gx.testing.scene()


def array(years=(2018,), **options):
    da = gx.testing.synthetic("alphaearth", shape=(96, 96), years=years, **options)
    return da.emb.year(years[0]) if len(years) == 1 else da


def points(n=150, **options):
    return SCENE.points(n, **{"radius": 440.0, **options})


def truth(da, year=2018):
    codes = SCENE.truth(da.emb.geobox, year)
    return np.array(SCENE.names)[codes.values - 1]


def named(labels, legend):
    return np.array(["", *legend.names], object)[np.searchsorted([0, *legend.values], labels.values)]


def fields():
    """Squares of 60 m with the class of their middle."""
    grid = gx.testing.geobox((96, 96))
    left, bottom, _, _ = grid.boundingbox
    squares = [
        shapely.box(left + 80 * i + 10, bottom + 80 * j + 10, left + 80 * i + 70, bottom + 80 * j + 70)
        for i in range(11)
        for j in range(11)
    ]
    frame = gpd.GeoDataFrame(geometry=squares, crs=32632)
    middle = frame.centroid.to_crs(4326)
    codes = SCENE.classes(middle.x.to_numpy(), middle.y.to_numpy(), 2018)
    return frame.assign(crop=np.array(SCENE.names)[codes - 1], field=[f"f{i}" for i in range(len(frame))])


def label_raster(missing=True):
    """Land cover with a class that only lies where there is no data, and one pixel without a label."""
    da = array().copy()
    da[:, 5:8, 5:8] = np.nan
    raster = SCENE.truth(gx.testing.geobox((96, 96)), 2018).copy()
    raster[0, 0] = 0
    raster[5:8, 5:8] = 1
    return da, raster
