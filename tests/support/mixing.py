"""A small network whose tokens see their whole chip, and its card."""

import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr import testing

torch = pytest.importorskip("torch")

BANDS = ("B02", "B03", "B04", "B08")


class Mixing(torch.nn.Module):
    """Tokens that see their whole chip, as a transformer's do, behind a class token."""

    calls = 0

    def __init__(self, bands, dims, patch):
        super().__init__()
        torch.manual_seed(3)
        self.patches = torch.nn.Conv2d(bands, dims, patch, patch)
        self.along = torch.nn.Linear(dims, dims)

    def forward(self, x):
        Mixing.calls += len(x)
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        mixed = torch.tanh(tokens + self.along(tokens.mean(1, keepdim=True)))
        return torch.cat([mixed.amax(1, keepdim=True), mixed], 1)


def make_mixing(encoder):
    return Mixing(len(encoder.bands), encoder.dims, encoder.patch)


MIXING = gx.Encoder(
    "mixing", dims=6, bands=BANDS, units="reflectance", mean=(0.1, 0.2, 0.3, 0.4), std=(0.5,), chip=32, patch=8,
    margin=8, prefix=1, resolution=10.0, weights="seed 3", make=make_mixing,
)  # fmt: skip


def scene(shape=(90, 75), **options):
    return testing.images(shape, **options)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.nanmax(np.abs(expected)))
