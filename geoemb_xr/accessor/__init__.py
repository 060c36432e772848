"""The ``.emb`` accessors, of arrays and of Datasets."""

from geoemb_xr.accessor.arrays import EmbAccessor
from geoemb_xr.accessor.datasets import EmbDatasetAccessor

__all__ = ["EmbAccessor", "EmbDatasetAccessor"]
