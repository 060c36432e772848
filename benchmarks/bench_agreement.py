"""What probes score, and how much of it is memory: real points in two regions, and random labels on fields.

Agreement with Dynamic World (itself a model's map, so not accuracy) at published AlphaEarth vectors in two regions:
balanced, in groups drawn at random and on a region that was left out. Two regions give no interval. Then labels
drawn at random on fields of 10 × 10 pixels, where whatever is above chance is leakage: in folds by pixel, as
often published, and in this package's, which part no field. Needs the folder of real samples that
GEOEMB_REAL_DATA names; without it the second table is made on the synthetic scene, and the first left out.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import harness
import numpy as np
import pandas as pd
import xarray as xr

import geoemb_xr as gx

METHODS = ("ridge", "logistic", "knn", "centroid", "mlp")
SOUND = ("water", "trees", "crops", "built", "bare")


def agreement(folder: Path) -> str:
    """Balanced agreement with Dynamic World, by method."""
    tables = [pd.read_csv(path) for path in sorted((folder / "alphaearth-points").glob("*.csv"))]
    table = pd.concat(tables, keys=range(len(tables)), names=["region_number", None]).reset_index(0)
    codes = {"water": 0, "trees": 1, "crops": 4, "built": 6, "bare": 7}
    names = {v: k for k, v in codes.items()}
    table["label"] = table["dw_label"].map(names)
    table = table[table["label"].isin(SOUND)]
    x = table[list(gx.product("alphaearth").bands)].to_numpy(np.float32)
    y, region = table["label"].to_numpy(str), table["region_number"].to_numpy()
    rows = []
    for method in METHODS:
        mixed = gx.fit_probe(x, y, method=method)
        left_out = gx.fit_probe(x, y, method=method, group=region, cv=2)
        rows.append((method, *(p.scores["random"]["balanced_accuracy"] for p in (mixed, left_out))))
    return harness.table(
        f"Agreement with Dynamic World, {len(y)} points × {len(SOUND)} classes, balanced",
        ("method", "random points (optimistic)", "region left out"),
        rows,
    )


def fields(array: xr.DataArray) -> str:
    """Random labels on fields, scored in folds by pixel and in ours."""
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    cut = array.isel(y=slice(100), x=slice(100)).transpose("y", "x", "band").values.reshape(-1, 64)
    field = (np.arange(100)[:, None] // 10 * 10 + np.arange(100) // 10).ravel()
    keep = ~np.isnan(cut).any(axis=1)
    x, field = cut[keep], field[keep]
    y = np.random.default_rng(0).integers(1, 5, 100)[field]
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    by_pixel = cross_val_score(KNeighborsClassifier(1), x, y, cv=folds, scoring="balanced_accuracy").mean()
    probe = gx.fit_probe(x, y, method="knn", n_neighbors=1, group=field)
    by_field = probe.scores["random"]["balanced_accuracy"]
    return harness.table(
        "Random labels on 10 × 10 fields, 4 classes, nearest neighbour",
        ("folds", "balanced accuracy"),
        [("by pixel", float(by_pixel)), ("by field (ours)", by_field), ("chance", 0.25)],
    )


def main(argv: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="there is one size only")
    parser.add_argument("--repeat", type=int, default=1, help="nothing is timed")
    parser.parse_args(argv)
    folder = os.environ.get("GEOEMB_REAL_DATA")
    if folder is None:
        fields(gx.testing.synthetic("alphaearth", shape=(100, 100)).isel(time=0))
        return
    agreement(Path(folder))
    chip = Path(folder) / "alphaearth-raster" / "aef_wi_2024_int8_northup.tif"
    fields(gx.open("alphaearth", chip).isel(time=0))


if __name__ == "__main__":
    main()
