"""Fit a PCA over all pixels of a Zarr store of codes.

Peers: dask-ml and IncrementalPCA on the same decoded blocks, and scikit-learn's covariance_eigh on vectors that
already sit decoded in memory.

The limit is the product XᵀX of the decoded vectors in memory, tile by tile on all threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import xarray as xr
from harness import compare, peak_memory, table
from looking import codes, options
from threadpoolctl import threadpool_limits

SLOW_PEERS_UP_TO = 4096  # beyond, they take tens of minutes
IN_MEMORY_UP_TO = 4096  # 4.3 GB of float32


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns each time over ours."""
    given = options(__doc__, argv, 2048)
    with codes(given.side) as array:
        decoded = array.emb.decode()
        fits: dict[str, Callable[[], Any]] = {
            "geoemb_xr fit_pca": lambda: array.emb.fit_pca(3, n_samples="all")
        }
        if given.side <= SLOW_PEERS_UP_TO:
            rows = decoded.transpose("y", "x", "band").data.reshape(-1, 64)
            fits["dask-ml PCA, randomized"] = lambda: dask_ml(rows)
            fits["scikit-learn IncrementalPCA"] = lambda: incremental(decoded)
        if given.side <= IN_MEMORY_UP_TO // 2 or given.side == IN_MEMORY_UP_TO:
            vectors = decoded.transpose("y", "x", "band").values.reshape(-1, 64)
            fits["scikit-learn covariance_eigh, in memory"] = lambda: covariance(vectors)
            fits["limit: XᵀX in memory, 2 threads"] = lambda: gram(vectors)
            check(array, vectors)
        times = compare(fits, repeat=given.repeat)
        with peak_memory() as peak:
            array.emb.fit_pca(3, n_samples="all")
    ours = times["geoemb_xr fit_pca"]
    pixels = given.side**2 / 1e6
    rows_ = [[name, t, pixels / t, f"{t / ours:.2f} ×"] for name, t in times.items()]
    table(f"PCA of 64 × {given.side}² codes", ["", "s", "Mpx/s", "of ours"], rows_)
    print(f"peak memory of ours beyond imports: {peak.extra / 1e6:.0f} MB")
    return {name: t / ours for name, t in times.items()}


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
