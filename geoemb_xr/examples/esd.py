"""ESD's monthly codes, of the synthetic scene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geoemb_xr import testing
from geoemb_xr.core.codecs import FSQ
from geoemb_xr.readers import geotiff

NAME = "esd"
MONTHS = 12


def example_esd(
    directory: Path, container: str, *, years: Sequence[int] = (2018, 2024), size: int = 96
) -> Path:
    """Write the synthetic scene as ESD is published; returns the folder."""
    grid = testing.geobox((size, size), resolution=30.0)
    for year in years:
        yearly = testing.synthetic(NAME, grid=grid, years=[year]).values[0]
        season = 1 + 0.15 * np.cos(2 * np.pi * np.arange(MONTHS) / MONTHS)
        codes = np.concatenate([FSQ.encode(yearly * np.float32(factor), 0)[0] for factor in season])
        codes[:, :4, :4] = 0
        clear = np.full((1, size, size), 21, np.uint16)
        clear[:, :4, :4] = 0
        geotiff.write_geotiff(
            directory / "SDC30_EBD_V001" / str(year) / f"SDC30_EBD_V001_32TPT_{year}.tif",
            np.concatenate([codes, clear]),
            grid,
            tags={"GEOEMB_VERSION": "synthetic"},
            compress="deflate",
            interleave="band",
            blockxsize=512,
            blockysize=512,
        )
    return directory
