"""Writing: GeoTIFF, Zarr and GeoParquet that the rest of the world reads, each whole or not at all."""

from geoemb_xr.writing.cog import to_cog
from geoemb_xr.writing.geoparquet import to_geoparquet
from geoemb_xr.writing.kit import field_kit
from geoemb_xr.writing.stac import to_stac
from geoemb_xr.writing.zarr import to_zarr

__all__ = ["field_kit", "to_cog", "to_geoparquet", "to_stac", "to_zarr"]
