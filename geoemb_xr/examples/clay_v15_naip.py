"""Clay v1.5's GeoParquet of NAIP patches, of the synthetic scene."""

from __future__ import annotations

from pathlib import Path

from geoemb_xr.examples import patches

DIMS = 1024


def example_naip(directory: Path, container: str) -> Path:
    """Write two dates of a synthetic scene on Long Island as the product is published; returns the folder."""
    import shapely

    for day, metres, code in (("20180805", 256.0, "1"), ("20211105", 153.6, "060")):
        _, _, polygons, vectors = patches.scene_patches(
            metres, (12, 14), DIMS, int(day[:4]), lon=-72.06, lat=40.94
        )
        columns = {"embeddings": patches.list_column(vectors), "geometry": shapely.to_wkb(polygons)}
        path = directory / "ny" / day[:4] / f"m_4007201_ne_18_{code}_{day}.parquet"
        patches.write_example(path, columns, compression="snappy")
    return directory
