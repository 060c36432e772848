"""Major TOM's Core sets, of the synthetic scene."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from geoemb_xr.examples import patches
from geoemb_xr.readers.footers import OWN_KEY

#: Variant, side of an image in metres and length of a vector.
_SETS = {"ssl4eo": ("S2L1C-SSL4EO", 2240.0, 2048), "siglip": ("S2RGB-SigLIP", 3840.0, 1152)}


def example_major_tom(directory: Path, container: str) -> Path:
    """Write a part of one Core set of the synthetic scene; ``container`` is ignored but for SigLIP's shape."""
    import pyarrow as pa
    import shapely

    variant, side, dims = _SETS["siglip" if container == "siglip" else "ssl4eo"]
    tables = []
    for stamp in ("2019-08-04T10:10:31", "2021-06-24T10:05:59"):
        lon, lat, polygons, vectors = patches.scene_patches(side, (5, 6), dims, int(stamp[:4]))
        cells = [f"{525 + i // 18}U_{106 + i % 6}R" for i in range(lon.size)]
        product = f"S2A_MSIL1C_{stamp.replace('-', '').replace(':', '')}_N0208_R022_T32TPT"
        rows = [int(cell[:3]) for cell in cells]
        column = patches.list_column(vectors)
        if container == "siglip":  # declared as (1, 1152): a leading dimension of one
            column = pa.ListArray.from_arrays(np.arange(lon.size + 1, dtype=np.int32), column)
        tables.append(
            {
                "unique_id": [hashlib.sha256(f"{product}{i}".encode()).hexdigest() for i in range(lon.size)],
                "embedding": column,
                "grid_cell": cells,
                "grid_row_u": pa.array(rows, pa.int16()),
                "grid_col_r": pa.array([106 + i % 6 for i in range(lon.size)], pa.int16()),
                "product_id": [product] * lon.size,
                "timestamp": [stamp] * lon.size,
                "centre_lat": pa.array(lat.astype(np.float32)),
                "centre_lon": pa.array(lon.astype(np.float32)),
                "geometry": shapely.to_wkb(polygons),
                "utm_footprint": [""] * lon.size,
                "utm_crs": ["EPSG:32632"] * lon.size,
                "pixel_bbox": pa.array([[0, 0, 224, 224]] * lon.size, pa.list_(pa.int64())),
            }
        )
    joined = {name: _joined([table[name] for table in tables]) for name in tables[0]}
    path = directory / f"Core-{variant}" / "embeddings" / "part_00001.parquet"
    footer = {OWN_KEY: {"version": "synthetic"}}
    patches.write_example(path, joined, footer=footer, compression="zstd", row_group_size=20)
    return directory


def _joined(columns: list[Any]) -> Any:
    import pyarrow as pa

    return pa.concat_arrays([c if isinstance(c, pa.Array) else pa.array(c) for c in columns])
