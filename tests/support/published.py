"""AlphaEarth as it is published, in a folder that a server serves: tiles, and the index that names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import rasterio
from rasterio.warp import transform_bounds

import geoemb_xr as gx
from geoemb_xr.catalog.alphaearth import COG

STORE = COG.removeprefix("s3://")


def publish(root: Path, **options: Any) -> pd.DataFrame:
    """Write example tiles below ``root`` as in the published bucket; returns the rows of their index."""
    source = gx.product("alphaearth").example(root / STORE, "cog", **options)
    rows = []
    for file in sorted(source.rglob("*.tif*")):
        with rasterio.open(file) as dataset:
            left, right = sorted((dataset.bounds.left, dataset.bounds.right))
            low, high = sorted((dataset.bounds.bottom, dataset.bounds.top))
            west, south, east, north = transform_bounds(dataset.crs, "EPSG:4326", left, low, right, high)
            crs = dataset.crs.to_string()
        rows.append(
            {
                "path": f"{COG}/{file.relative_to(root / STORE).as_posix()}",
                "year": int(next(part for part in file.parts[::-1] if part.isdigit())),
                "crs": crs,
                "utm_zone": f"{crs[-2:]}N",
                **{"utm_west": left, "utm_south": low, "utm_east": right, "utm_north": high},
                **{"wgs84_west": west, "wgs84_south": south, "wgs84_east": east, "wgs84_north": north},
            }
        )
    return pd.DataFrame(rows)


def write_index(root: Path, rows: pd.DataFrame) -> None:
    """Write, or write anew, the index of the published tiles."""
    rows.to_parquet(root / STORE / "aef_index.parquet")
