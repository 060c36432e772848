"""Copernicus-Embed's GeoTIFF and NumPy archive, of the synthetic scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from affine import Affine

from geoemb_xr import testing
from geoemb_xr.core import geometry
from geoemb_xr.readers import geotiff
from geoemb_xr.stores import paths

NAME = "copernicus-embed"


def example_copernicus_embed(directory: Path, container: str) -> Path:
    """Write the synthetic scene: a part of the 0.25° grid, or the globe in cells of 5°; returns the file."""
    if container == "npz":
        step, shape = 5.0, (37, 72)
        affine = Affine(step, 0, -180 - step / 2, 0, -step, 90 + step / 2)
    else:
        shape, affine = (32, 40), Affine(0.25, 0, 6.375, 0, -0.25, 51.125)
    grid = geometry.make_geobox(shape, affine, geometry.LONLAT)
    vectors = testing.synthetic(NAME, grid=grid, years=[2021]).values[0]
    vectors[:, :2] = 0
    vectors[:, -3:, :4] = 0
    if container == "npz":
        path = directory / "embed_map_310k.npz"
        np.savez_compressed(path, arr_0=np.ascontiguousarray(np.moveaxis(vectors, 0, -1)))
        paths.write_sidecar(path, "synthetic")
        return path
    return geotiff.write_geotiff(
        directory / "embed_map_310k.tif",
        vectors,
        grid,
        tags={"GEOEMB_VERSION": "synthetic"},
        compress="deflate",
        interleave="pixel",
        blockxsize=256,
        blockysize=256,
    )
