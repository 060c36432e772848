"""Small tables of patches in GeoParquet, and what of them is expected."""

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from geoemb_xr.core import areas, model
from geoemb_xr.core.model import Product
from geoemb_xr.readers import geoparquet
from geoemb_xr.readers.layouts import PatchLayout
from geoemb_xr.readers.tiles import Request

DIMS = 8
PATCHES = model.register(Product("test-patches", dims=DIMS, kind="patch", resolution=2000.0))
LAYOUT = PatchLayout(patch_m=2000.0)
SIDE = 0.02


def frame(n=120, *, seed=0, dims=DIMS, west=10.0, south=45.0, spread=1.0, dates=("2020-01-01", "2022-12-31")):
    rng = np.random.default_rng(seed)
    x, y = west + rng.uniform(0, spread, n), south + rng.uniform(0, spread, n)
    days = pd.date_range(*dates, periods=n).to_numpy("datetime64[us]")
    return gpd.GeoDataFrame(
        {
            "id": [f"{seed}-{i:04d}" for i in range(n)],
            "date": rng.permutation(days),
            "embedding": list(rng.standard_normal((n, dims)).astype("f4")),
        },
        geometry=shapely.box(x, y, x + SIDE, y + SIDE),
        crs=4326,
    )


def opened(source, *, bbox=None, layout=LAYOUT, product=PATCHES, **kwargs):
    area = areas.parse_bbox(bbox) if bbox is not None else None
    return geoparquet.open_patches(source, Request(area=area, **kwargs), product, layout)


def within(table, bbox):
    return table[table.intersects(shapely.box(*bbox))]


def assert_rows(array, table):
    """The array's rows are the table's, by id, whatever their order."""
    table = table.set_index("id").loc[array.coords["id"].values]
    assert sorted(array.coords["id"].values) == sorted(table.index)
    assert array.sizes["location"] == len(table)
    np.testing.assert_array_equal(array.values, np.stack(table["embedding"]))
    np.testing.assert_array_equal(array.coords["date"].values, table["date"].to_numpy("datetime64[ns]"))
    np.testing.assert_allclose(array.coords["x"].values, table.geometry.centroid.x, rtol=0, atol=1e-12)
    np.testing.assert_allclose(array.coords["y"].values, table.geometry.centroid.y, rtol=0, atol=1e-12)
