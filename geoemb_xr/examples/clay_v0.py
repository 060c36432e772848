"""Clay v0's GeoParquet, of the synthetic scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geoemb_xr.examples import patches

DIMS = 768


def example_clay(directory: Path, container: str) -> Path:
    """Write two dates of the synthetic scene as Clay v0 is published; returns the folder."""
    import pyarrow as pa
    import shapely

    for day in ("2018-06-10", "2021-07-15"):
        lon, _, polygons, vectors = patches.scene_patches(5120.0, (4, 5), DIMS, int(day[:4]))
        text = day.replace("-", "")
        urls = [
            f"s3://clay-tiles-02/02/32TPT/{day}/claytile_32TPT_{text}_v02_{i:04d}.tif"
            for i in range(lon.size)
        ]
        columns = {
            "index": np.arange(lon.size),
            "source_url": urls,
            "date": pa.array(np.full(lon.size, day, "datetime64[D]")),
            "embeddings": patches.list_column(vectors),
            "geometry": shapely.to_wkb(polygons),
        }
        patches.write_example(directory / f"32TPT_{text}_{text}_v001.gpq", columns, compression="zstd")
    return directory
