"""AlphaEarth's COG tiles, mosaic and exports, of the synthetic scene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from geoemb_xr import testing
from geoemb_xr.core import geometry
from geoemb_xr.readers import geotiff

NAME = "alphaearth"
BANDS = tuple(f"A{i:02d}" for i in range(64))


def example_alphaearth(
    directory: Path, container: str, *, years: Sequence[int] = (2018, 2020, 2022, 2024), size: int = 256
) -> Path:
    """Write the synthetic scene as AlphaEarth is published; returns the source."""
    if container == "zarr":
        return _example_mosaic(directory / "aef-mosaic.zarr", years, size)
    west, east = (testing.geobox((size, size // 2), offset=(dx, 0.0)) for dx in (-size * 2.5, size * 2.5))
    for year in years:
        for i, grid in enumerate((west, east)):
            name = f"x086q72fv2f9q1x4a-0000000000-{i * size // 2:010d}.tiff"
            path = directory / "annual" / str(year) / "32N" / name
            if container == "cog":
                _example_cog(path, grid, year)
            elif year in (years[0], years[-1]):  # doubles take eight times the bytes
                vectors = testing.synthetic(NAME, grid=grid, years=[year]).values[0].astype(np.float64)
                tags = {"GEOEMB_VERSION": "synthetic"}
                geotiff.write_geotiff(
                    path, vectors, grid, descriptions=BANDS, tags=tags, compress="deflate", interleave="pixel"
                )
    return directory / "annual"


def _example_cog(path: Path, grid: Any, year: int) -> None:
    """A tile as published: int8, planar, zstd, -128, and south-up."""
    codes = testing.synthetic(NAME, grid=grid, years=[year], decode=False).values[0]
    geotiff.write_geotiff(
        path,
        np.ascontiguousarray(codes[:, ::-1]),
        grid.flipy(),
        nodata=-128,
        descriptions=BANDS,
        tags={"GEOEMB_VERSION": "synthetic"},
        compress="zstd",
        interleave="band",
        blockxsize=128,
        blockysize=128,
        bigtiff="YES",
    )


def _example_mosaic(path: Path, years: Sequence[int], size: int) -> Path:
    """The mosaic as newer builds write it: EPSG:4326, sharded, attributes on the root."""
    import zarr

    step = 8.983111749910169e-05
    here = testing.scene()
    left, top = (np.floor(v / step) * step for v in (here.lon - size / 2 * step, here.lat + size / 2 * step))
    grid = geometry.make_geobox(
        (size, size), Affine(step, 0, float(left), 0, -step, float(top)), geometry.LONLAT
    )
    box = grid.boundingbox
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs.update(
        {
            "proj:code": "EPSG:4326",
            "spatial:transform": list(grid.affine)[:6],
            "spatial:bbox": [box.left, box.bottom, box.right, box.top],
            "spatial:dimensions": ["y", "x"],
            "geoemb:type": "pixel",
            "geoemb:dimensions": 64,
            "geoemb:build_version": "synthetic",
        }
    )
    array = root.create_array(
        "embeddings",
        shape=(len(years), 64, size, size),
        chunks=(1, 64, 64, 64),
        shards=(1, 64, size, size),
        dtype="int8",
        fill_value=-128,
        dimension_names=("time", "band", "y", "x"),
    )
    array[:] = testing.synthetic(NAME, grid=grid, years=list(years), decode=False).values
    times = root.create_array("time", shape=(len(years),), dtype="int32", dimension_names=("time",))
    times[:] = np.asarray(years, np.int32)
    return path
