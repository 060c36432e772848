"""The synthetic scene, points with labels in it, and a set to train on."""

import numpy as np

import geoemb_xr as gx

SCENE = gx.testing.scene()


def array(product="alphaearth", years=(2018, 2024), **options):
    return gx.testing.synthetic(product, shape=(40, 50), years=years, **options)


def points():
    return SCENE.points(150, radius=240.0)


def training_set():
    sampled = array().emb.year(2018).emb.sample(points())
    keep = ~np.isnan(sampled.values).any(axis=1)
    return sampled.values[keep], sampled.land_cover.values[keep]
