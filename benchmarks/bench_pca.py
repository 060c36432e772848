"""Fit a PCA over all pixels of a Zarr store of codes.

Peers: dask-ml and IncrementalPCA on the same decoded blocks, and scikit-learn's covariance_eigh on vectors that
already sit decoded in memory. dask-ml's holds all decoded vectors three times, so that 8192² pixels would take it
57 GB (measured: 3.5 GB at 2048²); it is left out there.

The limit is the product XᵀX of the decoded vectors in memory, tile by tile on all threads. The full size is
``--side 8192 --peer-repeat 1``, about a quarter of an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from harness import compare, peak_memory, table
from looking import codes, options
from threadpoolctl import threadpool_limits

DASK_ML_UP_TO = 4096  # 14 GB
IN_MEMORY_UP_TO = 4096  # 4.3 GB of float32
OURS = "geoemb_xr fit_pca, from Zarr"


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns each time over ours."""
    given = options(__doc__, argv, 2048)
    with codes(given.side) as array:
        fit = partial(array.emb.fit_pca, 3, n_samples="all")
        array[:, :64, :64].emb.fit_pca(3)  # imports and compiles
        with peak_memory() as peak:
            fit()
        ratios = report(given, "from Zarr", {OURS: fit, **peers(array, given.side)}, set(peers(array, 0)))
        if given.side <= IN_MEMORY_UP_TO:
            vectors = in_memory(array)
            check(array, vectors)
            held: Calls = {
                OURS: fit,
                "scikit-learn covariance_eigh, in memory": lambda: covariance(vectors),
                "limit: XᵀX in memory, 2 threads": lambda: gram(vectors),
            }
            ratios |= report(given, "against vectors that sit decoded in memory", held, set())
    print(f"peak memory of ours beyond imports: {peak.extra / 1e6:.0f} MB")
    return ratios


Calls = dict[str, Callable[[], Any]]


def report(given: Any, what: str, calls: Calls, slow: set[str]) -> dict[str, float]:
    """Time calls in turns, print them, return each time over ours."""
    times = compare(calls, repeat=given.repeat, slow=dict.fromkeys(slow, given.peer_repeat))
    ours, pixels = times[OURS], given.side**2 / 1e6
    rows = [
        [name, given.peer_repeat if name in slow else given.repeat, t, pixels / t, f"{t / ours:.2f} ×"]
        for name, t in times.items()
    ]
    table(f"PCA of 64 × {given.side}² codes, {what}", ["", "times", "s", "Mpx/s", "of ours"], rows)
    return {name: t / ours for name, t in times.items()}


def peers(array: xr.DataArray, side: int) -> Calls:
    """Peers on the same decoded blocks: they take up to minutes."""
    decoded = array.emb.decode()
    rows = decoded.transpose("y", "x", "band").data.reshape(-1, 64)
    calls: Calls = {"scikit-learn IncrementalPCA": lambda: incremental(decoded)}
    if side <= DASK_ML_UP_TO:
        calls["dask-ml PCA, randomized"] = lambda: dask_ml(rows)
    return calls


def in_memory(array: xr.DataArray) -> np.ndarray:
    """All vectors decoded, (n, band), block by block; the order of blocks does not matter to a covariance."""
    vectors, done = np.empty((array.size // 64, 64), np.float32), 0
    for block in array.emb.decode().data.to_delayed().ravel():
        values = np.asarray(block.compute()).reshape(64, -1).T
        vectors[done : done + len(values)] = values
        done += len(values)
    return vectors


def dask_ml(rows: Any) -> Any:
    from dask_ml.decomposition import PCA

    return PCA(3, svd_solver="randomized", random_state=0).fit(rows)


def incremental(decoded: xr.DataArray) -> Any:
    """One block after the other, as its documentation has it."""
    from sklearn.decomposition import IncrementalPCA

    model = IncrementalPCA(3)
    for block in decoded.data.to_delayed().ravel():
        model.partial_fit(block.compute().reshape(64, -1).T)
    return model


def covariance(vectors: np.ndarray) -> Any:
    from sklearn.decomposition import PCA

    return PCA(3, svd_solver="covariance_eigh").fit(vectors)


def gram(vectors: np.ndarray) -> Any:
    parts = [vectors[i : i + 65_536] for i in range(0, len(vectors), 65_536)]
    with threadpool_limits(1), ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda part: part.T @ part, parts))


def check(array: xr.DataArray, vectors: np.ndarray) -> None:
    """The first three components are those of the exact decomposition, to 1e-5."""
    centred = vectors[:: max(len(vectors) // 1_000_000, 1)].astype(np.float64)
    if len(centred) != len(vectors):  # the exact covariance of all, in parts
        mean = vectors.mean(axis=0, dtype=np.float64)
        exact = np.zeros((64, 64))
        for start in range(0, len(vectors), 65_536):
            part = vectors[start : start + 65_536] - mean
            exact += part.T @ part
        basis = np.linalg.eigh(exact)[1][:, ::-1].T[:3]
    else:
        basis = np.linalg.svd(centred - centred.mean(axis=0), full_matrices=False)[2][:3]
    found = array.emb.fit_pca(3, n_samples="all").loadings
    sine = np.linalg.norm(found - found @ basis.T @ basis, 2)
    assert sine < 1e-5, sine
    print(f"sine of the angle between our first three components and the exact ones: {sine:.1e}")


if __name__ == "__main__":
    main()
