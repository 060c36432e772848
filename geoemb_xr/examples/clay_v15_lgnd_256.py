"""LGND's monthly aggregates of 256 dimensions, of the synthetic scene."""

from __future__ import annotations

from pathlib import Path

from geoemb_xr.examples.clay_v15_sentinel2 import lgnd_columns, write_by_geohash

DIMS = 256
_FOLDER = "monthly-aggregated/model_version=v1.5/collection=sentinel-2-l2a/chip_size=1280m/dims=256"


def example_lgnd(directory: Path, container: str) -> Path:
    """Write two months of the synthetic scene as LGND publishes them; returns the folder."""
    for day in ("2024-06-01", "2024-07-01"):
        columns = lgnd_columns(1280.0, (8, 9), DIMS, day)
        month = f"year={day[:4]}/month={day[5:7]}"
        write_by_geohash(directory / _FOLDER, "geohash", month, columns)
    return directory
