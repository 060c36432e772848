"""Writing of GeoTIFF, Zarr and GeoParquet in conventions that others read, each whole or not at all."""
