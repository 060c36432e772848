"""AlphaEarth Foundations, published as Google Satellite Embedding."""

from geoemb_xr.codecs import SIGNED_SQUARE
from geoemb_xr.model import Product

PRODUCT = Product(
    "alphaearth",
    dims=64,
    bands=tuple(f"A{i:02d}" for i in range(64)),
    dtype="int8",
    codec=SIGNED_SQUARE,
    unit_norm=True,
    resolution=10.0,
    versions=("v1",),
    aliases=("aef", "gse", "GoogleSatelliteEmbedding"),
)
