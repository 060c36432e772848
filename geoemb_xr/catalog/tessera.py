"""TESSERA."""

from geoemb_xr.codecs import PER_PIXEL_SCALE
from geoemb_xr.model import Product

PRODUCT = Product(
    "tessera",
    dims=128,
    dtype="int8",
    codec=PER_PIXEL_SCALE,
    resolution=10.0,
    versions=("v1.1", "v1"),
    aliases=("geotessera", "TesseraEmbeddings"),
)
