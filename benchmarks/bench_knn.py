"""A map of nearest neighbours (10,000 training vectors, k = 5), against scikit-learn's brute force.

Both are Euclidean on unit vectors with equal votes, on decoded blocks in memory, a block a dask thread, BLAS held
to one thread each; the labels must be the same. The limit is the matrix product of pixels and training vectors
alone, by tiles that stay in the cache.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

import harness
import numpy as np
from threadpoolctl import threadpool_limits

import geoemb_xr as gx


def unit_vectors(n: int, seed: int) -> np.ndarray:
    """Random directions ``(n, 64)``."""
    x = np.random.default_rng(seed).standard_normal((n, 64)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def gemm_seconds(pixels: int, training: int, threads: int = 2) -> float:
    """How long the scores alone take."""
    rounds = max(pixels // (512 * threads), 1)
    tile, table = unit_vectors(512, 2), unit_vectors(1024, 3)

    def work(_: int) -> None:
        out = np.empty((512, 1024), np.float32)
        for _ in range(rounds * training // 1024):
            np.matmul(tile, table.T, out=out)

    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(work, range(threads)))
        return (time.perf_counter() - start) * pixels / (rounds * 512 * threads)


def main(argv: list[str] | None = None) -> str:
    """Print the table."""
    from sklearn.neighbors import KNeighborsClassifier

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the smallest size, to see that it runs")
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args(argv)
    side, training = (32, 500) if given.small else (256, 10_000)
    x = unit_vectors(training, 0)
    y = np.random.default_rng(1).integers(1, 11, training)
    probe = gx.fit_probe(x, y, method="knn", n_neighbors=5, metric="euclidean", cv=0)
    estimator = KNeighborsClassifier(5, algorithm="brute").fit(x, y)
    cube = unit_vectors(side * side, 4).T.reshape(64, side, side)
    array = gx.wrap(cube, "alphaearth", geobox=gx.testing.geobox((side, side)), version="synthetic")
    array = array.chunk(y=side // 2, x=side // 2)

    def block(vectors: np.ndarray) -> np.ndarray:
        return estimator.predict(vectors.reshape(64, -1).T).astype(np.uint8).reshape(vectors.shape[1:])

    def ours() -> np.ndarray:
        return np.asarray(array.emb.predict(probe, device="cpu").data.compute(num_workers=2))

    def peer() -> np.ndarray:
        with threadpool_limits(1):
            return np.asarray(
                array.data.map_blocks(block, dtype=np.uint8, drop_axis=0).compute(num_workers=2)
            )

    array[:, :16, :16].emb.predict(probe, device="cpu").compute()  # imports and compiles
    with harness.peak_memory() as peak:
        ours()
    same = (ours() == peer()).mean()
    limit: list[float] = []
    calls = {
        "geoemb_xr": ours,
        "scikit-learn brute": peer,
        "GEMM": lambda: limit.append(gemm_seconds(side * side, training)),
    }
    seconds = harness.compare(calls, repeat=given.repeat)
    # the product is timed by itself, over a whole number of tiles
    seconds["GEMM"] = float(np.median(limit[1:]))
    rows = [
        (name, side * side / t / 1e3, seconds["scikit-learn brute"] / t, seconds["GEMM"] / t)
        for name, t in seconds.items()
    ]
    return harness.table(
        f"kNN map, {training} training vectors, k = 5, {side}² pixels "
        f"(labels alike: {same:.5%}; peak {peak.extra / 1e6:.0f} MB)",
        ("what", "kpx/s", "× scikit-learn", "of the GEMM limit"),
        rows,
    )


if __name__ == "__main__":
    main()
