"""LGND's scenes and aggregates, of the synthetic scene."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geoemb_xr.examples import patches

DIMS = 1024


def lgnd_columns(side: float, count: tuple[int, int], dims: int, day: str) -> dict[str, Any]:
    """Columns of LGND's files, made of the synthetic scene."""
    import pyarrow as pa
    import shapely

    lon, _, polygons, vectors = patches.scene_patches(side, count, dims, int(day[:4]))
    names = [f"{side:.0f}-{i:05d}" for i in range(lon.size)]
    sides = zip(("xmin", "ymin", "xmax", "ymax"), shapely.bounds(polygons).T, strict=True)
    return {
        "chips_id": [f"chip-{name}-{day}" for name in names],
        "cell_id": names,
        "datetime": pa.array(np.full(lon.size, day, "datetime64[us]")),
        "embedding": patches.list_column(vectors),
        "bbox": pa.StructArray.from_arrays(*zip(*((pa.array(v), k) for k, v in sides), strict=True)),
        "geometry": shapely.to_wkb(polygons),
    }


def example_sentinel2(directory: Path, container: str) -> Path:
    """Write two dates of the synthetic scene as LGND publishes them; returns the folder."""
    for day in ("2024-06-11", "2025-06-14"):
        columns = lgnd_columns(2560.0, (8, 9), DIMS, day)
        month = f"year={day[:4]}/month={day[5:7]}"
        if container == "scene":
            count = len(columns["cell_id"])
            stac = f"S2A_32TPT_{day.replace('-', '')}_0_L2A"
            columns |= {
                "rasters_id": [f"{stac}-raster"] * count,
                "stac_item_id": [stac] * count,
                "collection": ["sentinel-2-l2a"] * count,
            }
            path = directory / "scene" / "gzd=32T" / month / "part-0.parquet"
            patches.write_example(path, columns, compression="zstd")
        else:
            write_by_geohash(directory / "aggregated", "geohash_l2", month, columns)
    return directory


def write_by_geohash(directory: Path, key: str, month: str, columns: Mapping[str, Any]) -> None:
    """Write the scene's chips into the folders of the two geohashes that it lies in."""
    import pyarrow as pa
    import shapely

    table = pa.table(dict(columns))
    west = shapely.get_x(shapely.centroid(shapely.from_wkb(columns["geometry"]))) < 11.25
    for code, own in (("u0", west), ("u2", ~west)):
        if own.any():
            path = directory / f"{key}={code}" / month / "part-0.parquet"
            some = table.filter(pa.array(own))
            patches.write_example(path, dict(zip(some.column_names, some.columns, strict=True)))
