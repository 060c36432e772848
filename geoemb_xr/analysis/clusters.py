"""k-means on embeddings: on the sphere where vectors have unit length.

Spherical k-means (Dhillon and Modha 2001) maximises the cosine between vectors and the centre they belong to; a
centre is the mean direction of its vectors. It is fitted on a sample chosen by pixel hash, so that neither chunks
nor crops change it, and maps the whole array with ``predict``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from geoemb_xr.analysis.k_means import plus_plus
from geoemb_xr.core import kernels
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.fitted import Fitted, Output
from geoemb_xr.core.legend import MAX_CODE, Legend
from geoemb_xr.core.model import BAND, attribution_of, comparability_key, product
from geoemb_xr.core.onnx_graph import Value
from geoemb_xr.execution import blocks, progress, sampling, threads

#: Vectors that clusters are fitted on: centres of a few hundred clusters have hundreds of vectors each.
SAMPLE = 200_000
#: Starts of which the best is kept, steps of one at most, and the share of vectors that may still move.
STARTS, MOST_STEPS, MOVING = 3, 100, 1e-4
_PART = 16_384
_SEEDING = 20_000


@dataclass(frozen=True, eq=False)
class KMeans(Fitted):
    """Clusters of an embedding.

    Parameters
    ----------
    product, version, bands, attribution
        See :class:`~geoemb_xr.core.fitted.Fitted`.
    centres : ndarray (cluster, band)
        float32; the largest cluster first; of unit length where ``spherical``.
    spherical : bool
        Whether nearest means the smallest angle, else the smallest distance.
    inertia : float
        Mean squared distance to the own centre, of the vectors it was fitted on (of unit vectors: 2 − 2 cos).
    n : int
        Number of those vectors.
    legend : Legend
        Codes 1…K and their names.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(48, 48)).emb.year(2018)
    >>> kmeans = da.emb.fit_clusters(4)
    >>> da.emb.predict(kmeans).dtype, kmeans.centres.shape
    (dtype('uint8'), (4, 64))
    """

    centres: np.ndarray
    spherical: bool
    inertia: float
    n: int
    legend: Legend

    default_output: ClassVar[str] = "label"

    @classmethod
    def shapes(cls, names: Iterable[str]) -> Mapping[str, tuple[str | int, ...]]:
        """Dimensions of its arrays."""
        return {"centres": ("score", "band")}

    def __repr__(self) -> str:
        kind = "spherical " if self.spherical else ""
        return (
            f"<{kind}KMeans of {self.product or 'plain vectors'}: {len(self.centres)} clusters of "
            f"{len(self.bands)} bands, fitted on {self.n:,} vectors>"
        )

    def outputs(self) -> Mapping[str, Output]:
        """``label``, a class map; ``distance`` to the nearest centre, in degrees where spherical."""
        unit = (
            {"units": "degree", "metric": "angle"}
            if self.spherical
            else {"units": "1", "metric": "euclidean"}
        )
        return {
            "label": Output(
                str(self.legend.dtype), missing=0, attrs={"long_name": "cluster", **self.legend.attrs()}
            ),
            "distance": Output("float32", attrs={"long_name": "distance to the nearest centre", **unit}),
        }

    def apply(self, vectors: np.ndarray, output: str = "label") -> np.ndarray:
        """Labels 1…K or distances ``(n,)`` of vectors ``(n, band)``."""
        check_choice("output", output, self.outputs())
        vectors = np.asarray(vectors, np.float32)
        nearest = _nearest(vectors, self.centres, self.spherical)
        if output == "label":
            return np.asarray(np.asarray(self.legend.values, self.legend.dtype)[nearest])
        if self.spherical:
            vectors = _unit(vectors)
        own = self.centres[nearest]
        less = np.linalg.norm(vectors - own, axis=1)
        if not self.spherical:
            return np.asarray(less)
        more = np.linalg.norm(vectors + own, axis=1)
        return np.asarray(np.degrees(2 * np.arctan2(less, more)))

    def as_linear(self, output: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Centres, of which the nearest is the label; a distance needs the vectors."""
        if output != "label":
            return None
        return self.centres, np.asarray(-_offsets(self.centres, self.spherical), np.float32)

    def derive(self, sums: np.ndarray, output: str) -> np.ndarray:
        """The code of the largest sum."""
        return np.asarray(np.asarray(self.legend.values, self.legend.dtype)[sums.argmax(axis=0)])

    def as_onnx(self, vectors: Value) -> Mapping[str, Value]:
        """``label``, and ``distance`` as :meth:`apply` has it."""
        vectors = vectors.unit() if self.spherical else vectors
        index = vectors.nearness(self.centres).argmax()
        label = index.of(np.asarray(self.legend.values, self.legend.dtype)).flat()
        less = vectors.distance(self.centres, index)
        if not self.spherical:
            return {"label": label, "distance": less.flat()}
        more = vectors.distance(-self.centres, index)
        return {"label": label, "distance": ((less / more).arctan() * np.degrees(2)).flat()}


def fit_clusters(
    array: xr.DataArray | Sequence[xr.DataArray],
    n_clusters: int,
    *,
    mask: xr.DataArray | Sequence[xr.DataArray] | None = None,
    n_samples: int | Literal["all"] = SAMPLE,
    seed: int = 0,
    method: Literal["full", "minibatch"] = "full",
) -> KMeans:
    """Fit k-means on an array, or on several at once. Computes.

    Parameters
    ----------
    array : DataArray (…, band, …) or sequence of them
        Codes or vectors. Missing vectors are left out.
    n_clusters : int
        Number of clusters.
    mask : DataArray (y, x), optional
        True where pixels are used, on the array's grid; one for each array.
    n_samples : int or "all"
        About how many vectors, chosen by a hash of their pixel's place; they are held in memory.
    seed : int
        Seed of the choice and of the start (k-means++, Arthur and Vassilvitskii 2007).
    method : {"full", "minibatch"}
        ``full`` keeps the best of three starts, each run until less than 0.01 % of the vectors change their
        cluster; ``minibatch`` is scikit-learn's (Sculley 2010): faster, a little worse.

    Returns
    -------
    KMeans
        A model for ``array.emb.predict(kmeans)``, spherical where the product's vectors have unit length.

    Raises
    ------
    ComparabilityError
        If the arrays are of different products or versions.
    EmbeddingError
        If there are fewer valid vectors than clusters.
    ValueError
        For an unknown method, or a number of clusters that no class map can hold.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(48, 48)).emb.year(2018)
    >>> da.emb.fit_clusters(5).legend.names
    ('cluster 1', 'cluster 2', 'cluster 3', 'cluster 4', 'cluster 5')
    """
    check_choice("method", method, ("full", "minibatch"))
    many, bands = blocks.one_space(array, "fit_clusters")
    spherical = product(many[0].attrs["product"]).unit_norm
    if not 1 <= n_clusters <= MAX_CODE:
        raise ValueError(f"n_clusters is 1 to {MAX_CODE:,}; got {n_clusters}")
    pixels = sum(each.size // each.sizes[BAND] for each in many)
    wanted = pixels if n_samples == "all" else n_samples
    sample = sampling.sample_vectors(
        many, wanted, seed=seed, masks=blocks.one_each(mask, many, "mask"), label="fit_clusters"
    ).vectors
    if spherical:
        sample = _unit(sample)
        sample = sample[np.isfinite(sample).all(axis=1)]
    if len(sample) < n_clusters:
        raise EmbeddingError(
            f"fit_clusters found {len(sample)} valid vectors for {n_clusters} clusters "
            "(is everything missing, or masked?)"
        )
    largest = float(np.abs(sample).max())
    if largest**2 * 4 * sample.shape[1] > float(np.finfo(np.float32).max):
        raise EmbeddingError(
            f"fit_clusters got vectors with numbers up to {largest:.3g}, whose squares float32 cannot hold: "
            "is this a value for missing pixels that nothing declares (attrs['_FillValue'])?"
        )
    with progress.shown("fit_clusters"):
        centres, inertia = _fit(sample, n_clusters, spherical, seed, method)
    name, version = comparability_key(many[0])
    return KMeans(
        product=name,
        version=version,
        bands=bands,
        attribution=attribution_of(many[0]),
        centres=centres,
        spherical=spherical,
        inertia=inertia,
        n=len(sample),
        legend=Legend.of_names([f"cluster {i + 1}" for i in range(n_clusters)]),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))[:, None]
    usable = length > 0
    return np.where(usable, vectors / np.where(usable, length, 1), np.nan).astype(np.float32)


def _offsets(centres: np.ndarray, spherical: bool) -> np.ndarray:
    """The offset of each centre, so that the largest product less it is the nearest: ‖c‖²/2, 0 on the sphere."""
    square = np.einsum("kb,kb->k", centres, centres)
    return np.asarray(np.zeros_like(square) if spherical else square / 2)


def _pieces(n: int, centres: np.ndarray) -> Iterator[slice]:
    """Slices small enough for OpenBLAS to use one thread per product (a million multiplications)."""
    size = max(2**20 // centres.size, 64)
    return (slice(start, start + size) for start in range(0, n, size))


def _nearest(vectors: np.ndarray, centres: np.ndarray, spherical: bool) -> np.ndarray:
    """Positions of the nearest centres."""
    offsets = _offsets(centres, spherical)
    out = np.empty(len(vectors), np.intp)
    for piece in _pieces(len(vectors), centres):
        out[piece] = (vectors[piece] @ centres.T - offsets).argmax(axis=1)
    return out


# --- fit ------------------------------------------------------------------------------------------------------


def _fit(vectors: np.ndarray, k: int, spherical: bool, seed: int, method: str) -> tuple[np.ndarray, float]:
    """Centres, the largest cluster first, and the mean squared distance to them."""
    square = float(np.einsum("ij,ij->", vectors, vectors, dtype=np.float64))
    with threads.one_blas_thread(), threads.pool(os.cpu_count()) as pool:
        if method == "minibatch":
            starts = [_minibatch(vectors, k, spherical, seed)]
        else:
            starts = [_lloyd(vectors, k, spherical, (seed, i), pool) for i in range(STARTS)]
        steps = [_step(vectors, centres, spherical, pool) for centres in starts]
    best = max(range(len(steps)), key=lambda i: steps[i].score)
    largest_first = np.argsort(-steps[best].counts, kind="stable")
    length = len(vectors) if spherical else 0.0  # Σ ‖c‖², which the offsets hold otherwise
    return starts[best][largest_first], (square + length - 2 * steps[best].score) / len(vectors)


def _minibatch(vectors: np.ndarray, k: int, spherical: bool, seed: int) -> np.ndarray:
    """Mini-batch k-means by scikit-learn, with the centres projected back to the sphere."""
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(k, batch_size=4096, n_init=STARTS, random_state=seed).fit(vectors)
    centres = np.ascontiguousarray(model.cluster_centers_, np.float32)
    return _unit(centres) if spherical else centres


def _lloyd(vectors: np.ndarray, k: int, spherical: bool, seed: tuple[int, int], pool: Executor) -> np.ndarray:
    few = vectors[: max(_SEEDING, 20 * k)]  # vectors lie in the order of hashes: any first ones are a sample
    centres: np.ndarray = few[plus_plus(few, k, np.random.RandomState(seed))]
    labels = np.full(len(vectors), -1, np.int32)
    for _ in range(MOST_STEPS):
        step = _step(vectors, centres, spherical, pool)
        moved, labels = np.count_nonzero(step.labels != labels), step.labels
        if moved <= MOVING * len(vectors):
            break
        centres = _centred(step, centres, spherical)
        for empty in np.flatnonzero(step.counts == 0):  # start anew at the vector that fits its centre worst
            gap = vectors - centres[labels]
            worst = int(np.argmax(np.einsum("ij,ij->i", gap, gap)))
            centres[empty], labels[worst] = vectors[worst], empty
    return centres


@dataclass(frozen=True)
class _Step:
    """Every vector's nearest centre, the sums of each centre's vectors and their counts, Σ (v·c − offset)."""

    labels: np.ndarray
    sums: np.ndarray
    counts: np.ndarray
    score: float


def _step(vectors: np.ndarray, centres: np.ndarray, spherical: bool, pool: Executor) -> _Step:
    offsets = _offsets(centres, spherical)

    def part(own: slice) -> _Step:
        some = vectors[own]
        labels = np.empty(len(some), np.int32)
        sums, counts = np.zeros(centres.shape), np.zeros(len(centres), np.int64)
        score = 0.0
        for piece in _pieces(len(some), centres):
            score += _gather(some[piece] @ centres.T, offsets, some[piece], labels[piece], sums, counts)
        return _Step(labels, sums, counts, score)

    # parts of one size, whatever the number of threads, so that sums come out the same
    parts = list(pool.map(part, (slice(i, i + _PART) for i in range(0, len(vectors), _PART))))
    return _Step(
        np.concatenate([p.labels for p in parts]),
        np.sum([p.sums for p in parts], axis=0),
        np.sum([p.counts for p in parts], axis=0),
        sum(p.score for p in parts),
    )


@kernels.jit
def _gather(products: Any, offsets: Any, vectors: Any, labels: Any, sums: Any, counts: Any) -> float:
    """Label vectors with their best centre, add them to its sum, and return the sum of best scores."""
    total = 0.0
    for i in range(products.shape[0]):
        best, chosen = products[i, 0] - offsets[0], 0
        for k in range(1, products.shape[1]):
            score = products[i, k] - offsets[k]
            if score > best:
                best, chosen = score, k
        labels[i] = chosen
        counts[chosen] += 1
        for b in range(vectors.shape[1]):
            sums[chosen, b] += vectors[i, b]
        total += best
    return total


@_gather.in_numpy
def _gather_numpy(products: Any, offsets: Any, vectors: Any, labels: Any, sums: Any, counts: Any) -> float:
    scores = products - offsets
    labels[:] = scores.argmax(axis=1)
    member = (labels[:, None] == np.arange(len(sums))).astype(np.float64)
    sums += member.T @ vectors
    counts += np.bincount(labels, minlength=len(counts))
    return float(scores.max(axis=1).sum(dtype=np.float64))


def _centred(step: _Step, old: np.ndarray, spherical: bool) -> np.ndarray:
    divisor = np.linalg.norm(step.sums, axis=1) if spherical else step.counts
    usable = (step.counts > 0) & (divisor > 0)
    means = step.sums / np.where(usable, divisor, 1)[:, None]
    return np.where(usable[:, None], means, old).astype(np.float32)
