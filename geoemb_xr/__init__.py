"""Published Earth embeddings as lazy xarray arrays, with an ``.emb`` accessor for the work people do with them."""

from __future__ import annotations

from geoemb_xr import testing
from geoemb_xr.accessor import EmbAccessor
from geoemb_xr.arrays import concat, decode, encode, wrap
from geoemb_xr.model import Product, product, products, register

__version__ = "0.1.0"

__all__ = ["EmbAccessor", "Product", "concat", "decode", "encode", "product", "products", "register", "testing", "wrap"]
