"""EarthEmbeddings' plain Parquet, of the synthetic scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geoemb_xr.examples import patches


def example_earth_embeddings(directory: Path, container: str) -> Path:
    """Write the synthetic scene as one variant is published; returns the folder."""
    import pyarrow as pa

    lon, lat, _, vectors = patches.scene_patches(3840.0, (5, 6), 1152, 2021)
    cells = [f"{525 + i // 18}U_{106 + i % 6}R" for i in range(lon.size)]
    columns = {
        "grid_cell": cells,
        "grid_row_u": np.array([int(cell[:3]) for cell in cells]),
        "grid_col_r": np.array([106 + i % 6 for i in range(lon.size)]),
        "product_id": [f"S2A_MSIL2A_20210624T100559_N0500_R022_T32TPT_{i}" for i in range(lon.size)],
        "timestamp": pa.array(np.full(lon.size, "2021-06-24T10:05:59", "datetime64[ns]")),
        "cloud_cover": np.linspace(0, 20, lon.size),
        "nodata": np.zeros(lon.size),
        "centre_lat": lat,
        "centre_lon": lon,
        "crs": ["EPSG:32632"] * lon.size,
        "parquet_url": ["synthetic"] * lon.size,
        "parquet_row": np.arange(lon.size),
        "image_shape": pa.array([[384, 384, 3]] * lon.size),
        "image_dtype": ["uint8"] * lon.size,
        "geometry_wkt": [f"POINT ({x} {y})" for x, y in zip(lon, lat, strict=True)],
        "embedding": patches.list_column(vectors.astype(np.float16)),
    }
    path = directory / "SigLIP" / "SigLIP_synthetic.parquet"
    patches.write_example(path, columns, geometry_column=None, compression="zstd")
    return directory
