"""Writing: GeoTIFF, Zarr and GeoParquet that the rest of the world reads, each whole or not at all."""

from geoemb_xr.writing.cog import to_cog

__all__ = ["to_cog"]
