"""Writing: GeoTIFF, Zarr and GeoParquet that the rest of the world reads, each whole or not at all."""
