"""Presto's codes of Togo, of the synthetic scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from affine import Affine

from geoemb_xr import testing
from geoemb_xr.core import geometry
from geoemb_xr.readers import geotiff

NAME = "presto"
_CRS = "EPSG:25231"


def example_presto(directory: Path, container: str, *, size: int = 96) -> Path:
    """Write the synthetic scene, carried to Togo, as Earth Engine exported it; returns the folder."""
    for part in range(2):
        affine = Affine(10, 0, 256130 + part * size * 10, 0, -10, 1033190)
        grid = geometry.make_geobox((size, size), affine, _CRS)
        codes = testing.synthetic(NAME, grid=grid, years=[2019], decode=False).values[0]
        codes[:, :3, :5] = 0
        name = f"Togo_Presto_embeddings_v2025_06_19{0:010d}-{part * size:010d}.tif"
        geotiff.write_geotiff(
            directory / name,
            np.ascontiguousarray(codes),
            grid,
            tags={"GEOEMB_VERSION": "synthetic"},
            compress="lzw",
            interleave="pixel",
            blockxsize=256,
            blockysize=256,
        )
    return directory
