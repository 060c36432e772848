"""One file per container: GeoTIFF, Zarr, npy, GeoParquet; what several products share."""
