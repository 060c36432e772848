"""A linear class map of 64-band int8 codes in a local Zarr, against scikit-learn applied to decoded blocks.

The peer is the same classifier, ``LogisticRegression.predict`` in ``map_blocks`` on blocks that this package
decoded, BLAS held to one thread a dask thread (its default of all threads in each is slower). The limit is the
matrix product of the ten classes' weights alone, on vectors that are decoded and in the cache. Reading is a limit
of its own (random codes are the hardest to decompress there are), so both are timed from the compressed store, as
stores are published (zstd), from one that is not compressed, and from codes in memory. A last run goes through a
cluster of two processes, of which one is killed halfway.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import harness
import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

import geoemb_xr as gx

BLOCK = 512


def write_codes(folder: Path, side: int, compressors: Any = "auto") -> Path:
    """A Zarr of random unit vectors as codes, written block by block."""
    import zarr

    block, path = min(BLOCK, side), folder / ("codes.zarr" if compressors else "plain.zarr")
    store = zarr.create_array(
        path,
        shape=(64, side, side),
        chunks=(64, block, block),
        dtype="int8",
        fill_value=-128,
        compressors=compressors,
    )
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((64, block, block), np.float32)
    vectors /= np.linalg.norm(vectors, axis=0)
    codes = gx.product("alphaearth").codec.encode(vectors, 0)[0]
    for i in range(0, side, block):
        for j in range(0, side, block):
            store[:, i : i + block, j : j + block] = np.roll(codes, (i + j) // block, axis=0)
    return path


def open_codes(path: Path) -> xr.DataArray:
    """The codes as an embedding array, a block of 512 × 512 a chunk."""
    import dask.array as da

    data = da.from_zarr(str(path))
    grid = gx.testing.geobox(data.shape[1:])
    return gx.wrap(data, "alphaearth", geobox=grid, version="synthetic")


def linear_probe() -> tuple[gx.Probe, Any]:
    """Ten classes: our probe and scikit-learn's classifier, fitted on the same vectors."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(1)
    x = rng.standard_normal((2000, 64)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = (x[:, :10] + 0.1 * rng.standard_normal((2000, 10))).argmax(axis=1) + 1
    return gx.fit_probe(x, y, cv=0), LogisticRegression(max_iter=1000).fit(x, y)


def gemm_seconds(pixels: int, classes: int = 10, threads: int = 2) -> float:
    """How long the product alone takes: weights by tiles that stay in the cache."""
    tile, weights = np.ones((64, 2048), np.float32), np.ones((classes, 64), np.float32)
    rounds = max(pixels // (tile.shape[1] * threads), 1)

    def work(_: int) -> None:
        out = np.empty((classes, tile.shape[1]), np.float32)
        for _ in range(rounds):
            np.matmul(weights, tile, out=out)

    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(work, range(threads)))
        return (time.perf_counter() - start) * pixels / (rounds * threads * tile.shape[1])


def sklearn_map(codes: xr.DataArray, estimator: Any) -> Any:
    """The classifier on decoded blocks."""

    def block(vectors: np.ndarray) -> np.ndarray:
        flat = vectors.reshape(64, -1).T
        return estimator.predict(flat).astype(np.uint8).reshape(vectors.shape[1:])

    return codes.emb.decode().data.map_blocks(block, dtype=np.uint8, drop_axis=0)


def main(argv: list[str] | None = None) -> str:
    """Print the table for a square of pixels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the smallest size, to see that it runs")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--size", type=int, default=8192, help="pixels a side")
    parser.add_argument("--only-ours", action="store_true", help="rate and memory without the peer")
    given = parser.parse_args(argv)
    size, repeat = (256 if given.small else given.size), given.repeat
    probe, estimator = linear_probe()
    folder = Path(tempfile.mkdtemp(prefix="bench-predict-"))
    try:
        stores = {
            "zstd": open_codes(write_codes(folder, size)),
            "not compressed": open_codes(write_codes(folder, size, None)),
        }
        pixels = size * size
        limit: list[float] = []

        def ours(array: xr.DataArray) -> None:
            harness.consume(array.emb.predict(probe, device="cpu"))

        def peer(array: xr.DataArray) -> None:
            with threadpool_limits(1):
                harness.consume(sklearn_map(array, estimator))

        linear = stores["zstd"][:, :BLOCK, :BLOCK].emb.predict(probe, device="cpu")
        linear.compute()  # imports and compiles, which is not memory of the map
        with harness.peak_memory() as peak:
            ours(stores["zstd"])
        sources = {**stores, "in memory": stores["not compressed"].persist()}
        calls: dict[str, Any] = {}
        for source, array in sources.items():
            calls[f"geoemb_xr, codes {source}"] = lambda a=array: ours(a)
            if not given.only_ours:
                calls[f"scikit-learn, codes {source}"] = lambda a=array: peer(a)
            if source != "in memory":
                calls[f"reading alone, codes {source}"] = lambda a=array: harness.consume(a)
        calls["GEMM"] = lambda: limit.append(gemm_seconds(pixels))
        seconds = harness.compare(calls, repeat=repeat)
        seconds["GEMM"] = float(np.median(limit[1:]))  # over a whole number of tiles
        rows: list[tuple[Any, ...]] = []
        for name, t in seconds.items():
            base = seconds.get("scikit-learn, codes" + name.partition(", codes")[2])
            rows.append((name, pixels / t / 1e6, "" if base is None else base / t, seconds["GEMM"] / t))
        if not given.only_ours:
            t, same = _through_a_cluster(folder / "codes.zarr", probe)
            assert same, "a lost worker changed the map"
            base = seconds["scikit-learn, codes zstd"]
            rows.append(
                ("two processes, one killed, codes zstd", pixels / t / 1e6, base / t, seconds["GEMM"] / t)
            )
        return harness.table(
            f"Linear map, 10 classes, {size}² × 64 codes from Zarr (peak {peak.extra / 1e6:.0f} MB)",
            ("what", "Mpx/s", "× scikit-learn", "of the GEMM limit"),
            rows,
        )
    finally:
        shutil.rmtree(folder)


def _through_a_cluster(path: Path, probe: gx.Probe) -> tuple[float, bool]:
    """Seconds through two processes of one thread, one killed halfway, and whether the map is the same."""
    import os
    import signal

    from distributed import Client, LocalCluster, as_completed

    lazy = open_codes(path).emb.predict(probe, device="cpu")
    counts = lazy.data.map_blocks(
        _histogram, dtype=np.int64, chunks=tuple((1,) * n for n in lazy.data.numblocks)
    )
    expected = np.asarray(counts.compute(scheduler="threads", num_workers=2))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        start = time.perf_counter()
        blocks = client.compute(list(counts.to_delayed().ravel()), retries=2)
        for done, _ in enumerate(as_completed(blocks, raise_errors=False)):
            if done == len(blocks) // 2:
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
                break
        found = np.asarray(client.gather(blocks)).reshape(expected.shape)
        return time.perf_counter() - start, bool((found == expected).all())


def _histogram(block: np.ndarray) -> np.ndarray:
    """One number that tells a block's labels from others'."""
    weights = np.arange(block.size, dtype=np.int64) % 8191
    return np.array([[(block.reshape(-1).astype(np.int64) * weights).sum()]])


if __name__ == "__main__":
    main()
