"""A view of the synthetic scene."""

import pytest
from explored import YEARS

import geoemb_xr as gx
from geoemb_xr.display.explorer import Explorer


@pytest.fixture(scope="module")
def codes():
    return gx.testing.synthetic("alphaearth", shape=(96, 80), years=YEARS, decode=False, missing=True)


@pytest.fixture
def state(codes):
    return Explorer(codes, size=(80, 96))
