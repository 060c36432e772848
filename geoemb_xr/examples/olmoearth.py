"""OlmoEarth's exports, of the synthetic scene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geoemb_xr import testing
from geoemb_xr.readers import geotiff

NAME = "olmoearth"


def example_olmoearth(directory: Path, container: str, *, years: Sequence[int] = (2018, 2024)) -> Path:
    """Write the synthetic scene as an export: int8 at 10 m, or float32 at 40 m (four pixels per patch)."""
    codes = container == "int8"
    grid = testing.geobox((72, 64) if codes else (30, 32), resolution=10.0 if codes else 40.0)
    for year in years:
        array = testing.synthetic(NAME, grid=grid, years=[year], decode=not codes).values[0]
        array[:, :3, :3] = -128 if codes else float("nan")
        geotiff.write_geotiff(
            directory / str(year) / "olmoearth_embeddings.tif",
            array,
            grid,
            nodata=-128 if codes else None,
            tags={"GEOEMB_VERSION": "synthetic"},
            compress="zstd",
            interleave="band",
            blockxsize=256,
            blockysize=256,
        )
    return directory
