"""Earth Index's GeoParquet, of the synthetic scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geoemb_xr.examples import patches

DIMS = 384
#: The footer that names the model, as EarthGenome writes it.
_EMB = {
    "version": "0.0.1",
    "model": {"id": "dinov2_vits14_softcon", "version": "2.0.0", "family": "DinoV2", "name": "SoftCon"},
    "license": "CC-BY-4.0",
    "start_datetime": "2024-01-01T00:00:00Z",
    "end_datetime": "2025-01-01T00:00:00Z",
    "embedding": {"dim": 384, "quantization": "None"},
}


def example_earth_index(directory: Path, container: str) -> Path:
    """Write two overlapping MGRS tiles of the synthetic scene as published; returns the folder."""
    import shapely

    lon, lat, _, vectors = patches.scene_patches(320.0, (20, 22), DIMS, 2024)
    column = np.arange(lon.size) % 22
    for tile, own in (("32TPT", column < 13), ("32TQT", column >= 10)):
        columns = {
            "id": [f"{tile}-{i:05d}" for i in np.flatnonzero(own)],
            "embedding": patches.list_column(vectors[own], fixed=True),
            "geometry": shapely.to_wkb(shapely.points(lon[own], lat[own])),
        }
        path = directory / f"{tile}_2024-01-01_2025-01-01.parquet"
        patches.write_example(path, columns, footer={"emb": _EMB}, compression="zstd")
    return directory
