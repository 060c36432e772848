"""What a vector costs in fewer bytes: the table of losses, on the scene and on real points, and the time it takes.

Real points are read where the environment variable GEOEMB_REAL_DATA names the folder of samples.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from harness import compare, options, table

import geoemb_xr as gx
from geoemb_xr.compression.losses import Losses

#: Classes of the real points that are sound, by the codes of Dynamic World.
SOUND = {0: "water", 1: "trees", 4: "crops", 6: "built", 7: "bare"}


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns seconds of compressing a scene over those of decoding it."""
    given = options(__doc__, argv, side=(512, "pixels along a side of the scene"))
    side = 64 if given.small else given.side
    da = gx.testing.synthetic("alphaearth", shape=(side, side), years=[2018, 2024], decode=False)
    labels = gx.testing.scene().points(150 if given.small else 600, radius=side * 4)
    show(
        "the seeded scene",
        da.emb.losses(labels, target="land_cover", n_samples=1500 if given.small else 6000),
    )
    folder = os.environ.get("GEOEMB_REAL_DATA")
    if folder is not None:
        points = pd.concat(
            [pd.read_csv(f) for f in sorted((Path(folder) / "alphaearth-points").glob("*.csv"))]
        )
        points["label"] = points["dw_label"].map(SOUND)
        points = points.dropna(subset="label").drop(columns=["year", "region"]).reset_index(drop=True)
        real = gx.wrap(points, "alphaearth", version="v1")
        show("real points of two regions", gx.losses(real, points, target="label"))
    model = da.emb.fit_compressor(dims=16)
    lazy = da.chunk(time=1)
    seconds = compare(
        {
            "decode": lambda: lazy.emb.decode().compute(),
            "compress, 16 components": lambda: lazy.emb.compress(model).compute(),
        },
        repeat=given.repeat,
    )
    rows = [[name, t, f"{t / seconds['decode']:.2f} ×"] for name, t in seconds.items()]
    table(f"Two years of {side}² pixels", ["", "s", "of decoding"], rows)
    return {name: t / seconds["decode"] for name, t in seconds.items()}


def show(title: str, found: Losses) -> None:
    """Print a table of losses."""
    rows = [[name, *map(float, row)] for name, row in found.table.iterrows()]
    table(f"Losses on {title}, {found.n} vectors of left-out regions", ["", *found.table.columns], rows)


if __name__ == "__main__":
    main()
