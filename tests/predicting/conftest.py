"""A probe of each method, but networks."""

import pytest
from mapped_scene import points

import geoemb_xr as gx
from geoemb_xr.probes.heads import HEADS


@pytest.fixture(scope="module")
def probes():
    da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    return {m: da.emb.fit_probe(points(), target="land_cover", method=m) for m in HEADS if m != "mlp"}
