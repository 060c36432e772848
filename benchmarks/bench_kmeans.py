"""k-means on the sphere, 16 clusters of 200,000 vectors, against scikit-learn and faiss on the same vectors.

scikit-learn has no spherical k-means: it gets unit vectors, which is what its users do. faiss runs its spherical
one for as many steps as ours may take at most in practice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import compare, table
from looking import codes, options

from geoemb_xr.analysis import clusters
from geoemb_xr.execution import sampling

CLUSTERS = 16


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns each time over ours."""
    given = options(__doc__, argv, 1024)
    with codes(given.side) as array:
        sample = sampling.sample_vectors(
            [array], clusters.SAMPLE, seed=0, masks=[None], label="sample"
        ).vectors
    vectors = clusters._unit(sample)
    centres: dict[str, np.ndarray] = {}

    def ours(method: str) -> None:
        centres[f"geoemb_xr {method}"] = clusters._fit(vectors, CLUSTERS, True, 0, method)[0]

    def peer(name: str, model: Any) -> None:
        centres[name] = model.fit(vectors).cluster_centers_

    from sklearn.cluster import KMeans, MiniBatchKMeans

    calls = {
        "geoemb_xr full": lambda: ours("full"),
        "geoemb_xr minibatch": lambda: ours("minibatch"),
        "scikit-learn KMeans": lambda: peer(
            "scikit-learn KMeans", KMeans(CLUSTERS, n_init=clusters.STARTS, random_state=0)
        ),
        "scikit-learn MiniBatchKMeans": lambda: peer(
            "scikit-learn MiniBatchKMeans",
            MiniBatchKMeans(CLUSTERS, n_init=clusters.STARTS, batch_size=4096, random_state=0),
        ),
        "faiss Kmeans, spherical": lambda: centres.update(
            {"faiss Kmeans, spherical": faiss_centres(vectors)}
        ),
    }
    times = compare(calls, repeat=given.repeat)
    base = times["geoemb_xr full"]
    rows = [[name, t, f"{t / base:.2f} ×", mean_cosine(vectors, centres[name])] for name, t in times.items()]
    columns = ["", "s", "of ours", "mean cosine to the centre"]
    table(f"{CLUSTERS} clusters of {len(vectors):,} unit vectors of 64 bands", columns, rows)
    return {name: t / base for name, t in times.items()}


def faiss_centres(vectors: np.ndarray) -> np.ndarray:
    import faiss

    model = faiss.Kmeans(
        vectors.shape[1],
        CLUSTERS,
        niter=25,
        nredo=clusters.STARTS,
        spherical=True,
        seed=1,
        max_points_per_centroid=len(vectors),
    )
    model.train(vectors)
    return np.asarray(model.centroids)


def mean_cosine(vectors: np.ndarray, centres: np.ndarray) -> float:
    """How well centres fit, whatever their length: what spherical k-means maximises."""
    unit = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    return float(f"{(vectors @ unit.T).max(axis=1).mean():.5f}")


if __name__ == "__main__":
    main()
