"""One file a container: GeoTIFF, Zarr, npy, GeoParquet; what several products share."""
