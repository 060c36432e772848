"""What the benchmarks of PCA, similarity and k-means share: options, and codes in a local Zarr store."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

import geoemb_xr as gx

SIDE = 512


def options(
    description: str | None, argv: Sequence[str] | None, side: int, parts: Sequence[str] = ()
) -> argparse.Namespace:
    """``--small``, ``--side``, ``--repeat`` and ``--peer-repeat``; with parts: which, their rows and data."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--small", action="store_true", help="the smallest size, to see that it runs")
    parser.add_argument("--side", type=int, default=side, help="pixels along a side")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--peer-repeat", type=int, help="how often peers that take minutes are timed")
    if parts:
        parser.add_argument("--parts", nargs="+", choices=parts, default=parts[:2])
        parser.add_argument("--rows", type=int, default=1_000_000, help="patches, or vectors of a scan")
        parser.add_argument(
            "--real", default=os.environ.get("GEOEMB_REAL_DATA", "."), help="folder of samples"
        )
    given = parser.parse_args(argv)
    given.peer_repeat = given.peer_repeat or given.repeat
    if given.small:
        given.side = 128
    return given


@contextmanager
def codes(side: int) -> Iterator[xr.DataArray]:
    """AlphaEarth codes ``(band, y, x)`` of a local Zarr store, in blocks of 512², as ``gx.open`` yields them.

    Written block by block: each is the scene's, turned and shifted so that no two are alike.
    """
    block = min(SIDE, side)
    seed = gx.testing.synthetic("alphaearth", shape=(block, block), decode=False).values[0]
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="geoemb-bench-") as folder:
        store = zarr.create_array(
            Path(folder) / "codes.zarr", shape=(64, side, side), chunks=(64, block, block), dtype="int8"
        )
        for row in range(0, side, block):
            for column in range(0, side, block):
                shifted = np.roll(seed, rng.integers(0, block, 2), axis=(1, 2))
                jitter = rng.integers(-2, 3, seed.shape, dtype=np.int8)
                store[:, row : row + block, column : column + block] = np.clip(shifted + jitter, -127, 127)
        import dask.array as da

        lazy = da.from_zarr(Path(folder) / "codes.zarr")
        yield gx.wrap(lazy, "alphaearth", geobox=gx.testing.geobox((side, side)), version="synthetic")
