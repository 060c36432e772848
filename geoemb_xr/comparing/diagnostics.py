"""Checks of the vectors themselves: intrinsic dimension, spread, norms and use of codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import html
from geoemb_xr.core.arrays import codec_of
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.model import check_embedding, is_encoded, product
from geoemb_xr.execution import sampling
from geoemb_xr.execution.neighbours import nearest

#: A norm this many times the median, or larger, is an outlier: real norms of a product lie within a factor of two.
_OUTLIER = 16.0
#: Pairs of vectors whose distances tell of uniformity and isotropy.
_PAIRS = 2000
#: Lengths of two codes of a band put a decoded norm at most so far off 1.
_NORM_TOLERANCE = 0.012


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found; prints as a table.

    Parameters
    ----------
    n, dims : int
        Number of vectors that were looked at (missing ones left out), and of their bands.
    duplicates : int
        Number of vectors that equal another one; intrinsic dimension is told without them.
    intrinsic_mle : mapping of int to float
        Intrinsic dimension by maximum likelihood, by number of neighbours.
    intrinsic_twonn : float
        Intrinsic dimension from the two nearest neighbours.
    effective_rank : float
        exp of the entropy of the normalised singular values.
    dims_for : mapping of float to int
        Number of principal components that keep a share of the variance.
    uniformity : float
        log of the mean of exp(−2 d²) over pairs of unit vectors; lower is more uniform.
    isotropy : float
        Least over largest partition function along principal axes: 1 is isotropic.
    mean_cosine : float
        Mean cosine between pairs.
    norm : mapping of str to float
        ``min``, ``mean``, ``max``, ``sd``.
    constant_bands : int
        Number of bands with one value.
    saturated : float
        Share of codes at the end of their range; NaN where the product has no codes.
    exact_codes : float
        Share of values that are exactly what the product's codec decodes to; NaN where it has none.
    outliers : int
        Number of vectors at least 16 times as long as the median.
    problems : tuple of str
        Sentences about what is wrong.
    """

    n: int
    dims: int
    duplicates: int
    intrinsic_mle: Mapping[int, float]
    intrinsic_twonn: float
    effective_rank: float
    dims_for: Mapping[float, int]
    uniformity: float
    isotropy: float
    mean_cosine: float
    norm: Mapping[str, float]
    constant_bands: int
    saturated: float
    exact_codes: float
    outliers: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def table(self) -> pd.Series[Any]:
        """All numbers by name."""
        found: dict[str, Any] = {"n": self.n, "dims": self.dims, "duplicates": self.duplicates}
        found |= {f"intrinsic_mle_{k}": value for k, value in self.intrinsic_mle.items()}
        found |= {"intrinsic_twonn": self.intrinsic_twonn, "effective_rank": self.effective_rank}
        found |= {f"dims_for_{share:.0%}": value for share, value in self.dims_for.items()}
        names = (
            "uniformity",
            "isotropy",
            "mean_cosine",
            "constant_bands",
            "saturated",
            "exact_codes",
            "outliers",
        )
        found |= {name: getattr(self, name) for name in names}
        return pd.Series(found | {f"norm_{name}": value for name, value in self.norm.items()})

    def _rows(self) -> list[tuple[str, str]]:
        estimates = ", ".join(f"{value:.1f} (k = {k})" for k, value in self.intrinsic_mle.items())
        norm = self.norm
        kept = ", ".join(f"{share:.0%} in {dims}" for share, dims in self.dims_for.items())
        rows = [
            ("vectors", f"{self.n:,} of {self.dims} bands; {self.duplicates:,} duplicates"),
            ("intrinsic dimension", f"{estimates or '–'}; two nearest neighbours {self.intrinsic_twonn:.1f}"),
            ("effective rank", f"{self.effective_rank:.1f}; variance: {kept}"),
            ("spread", f"uniformity {self.uniformity:.2f}, isotropy {self.isotropy:.2f}, mean cosine "
                       f"{self.mean_cosine:.3f}"),
            ("norms", f"{norm['min']:.4g} to {norm['max']:.4g}, mean {norm['mean']:.4g}, sd {norm['sd']:.2g}"),
        ]  # fmt: skip
        if np.isfinite(self.exact_codes):
            rows.append(
                ("codes", f"{self.exact_codes:.1%} exact, {self.saturated:.2%} at the end of their range")
            )
        return [*rows, *(("problem", each) for each in self.problems)]

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self._rows())
        return "\n".join(f"{name:<{width}}  {value}" for name, value in self._rows())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html.card("diagnosis", self._rows())


def diagnose(
    array: Any, *, n_samples: int = 10_000, neighbours: Sequence[int] = (10, 20, 100), seed: int = 0
) -> Diagnosis:
    """Look at the vectors of an embedding: intrinsic dimension, spread, norms and codes. Computes.

    Parameters
    ----------
    array : DataArray (…, band, …) or ndarray (n, band)
        An embedding, encoded or decoded, or plain vectors.
    n_samples : int
        Number of vectors to look at, drawn by a hash of each pixel's place: chunks never change it.
    neighbours : sequence of int
        Numbers of neighbours for the estimate by maximum likelihood.
    seed : int
        Seed of the draw.

    Returns
    -------
    Diagnosis
        Prints as a table; ``ok`` and ``problems`` say whether something is wrong.

    Raises
    ------
    EmbeddingError
        If there are fewer than three vectors with data.

    Notes
    -----
    Intrinsic dimension by maximum likelihood is that of Levina and Bickel (2004) with the inverses of the local
    estimates averaged (MacKay and Ghahramani 2005), that of the two nearest neighbours n / Σ log(r₂ / r₁) (Facco et
    al. 2017, doi:10.1038/s41598-017-11873-y); equal vectors count once, as codes have ties. Effective rank is that
    of Roy and Vetterli (2007), uniformity that of Wang and Isola (2020), isotropy that of Mu and Viswanath (2018).

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(48, 48)).emb.year(2018)
    >>> found = da.emb.diagnose()
    >>> found.dims, found.ok, 2 < found.intrinsic_twonn < 64
    (64, True, True)
    """
    vectors, codes = _vectors(array, n_samples, seed)
    present = np.isfinite(vectors).all(axis=1)
    vectors = vectors[present]
    if len(vectors) < 3:
        raise EmbeddingError(f"diagnose needs three vectors with data or more; got {len(vectors)}")
    unique = np.unique(vectors, axis=0)
    mle, twonn = intrinsic_dimensions(unique, neighbours)
    values = np.linalg.svd(vectors - vectors.mean(axis=0, dtype=np.float64), compute_uv=False)
    variance = np.cumsum(values**2) / max((values**2).sum(), 1e-300)
    share = values[values > 0] / max(values.sum(), 1e-300)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    uniformity, cosine = _pairs(vectors, norms, seed)
    outliers = int((norms >= _OUTLIER * np.median(norms)).sum()) if np.median(norms) > 0 else 0
    exact, saturated = _of_codes(array, vectors, codes)
    found = {
        "duplicates": len(vectors) - len(unique),
        "constant": int((np.ptp(vectors, axis=0) == 0).sum()),
        "zero": int((norms == 0).sum()),
        "outliers": outliers,
    }
    return Diagnosis(
        n=len(vectors),
        dims=vectors.shape[1],
        duplicates=found["duplicates"],
        intrinsic_mle=mle,
        intrinsic_twonn=twonn,
        effective_rank=float(np.exp(-(share * np.log(share)).sum())),
        dims_for={level: int(np.searchsorted(variance, level - 1e-9)) + 1 for level in (0.9, 0.95, 0.99)},
        uniformity=uniformity,
        isotropy=_isotropy(vectors),
        mean_cosine=cosine,
        norm={"min": float(norms.min()), "mean": float(norms.mean()), "max": float(norms.max()),
              "sd": float(norms.std())},
        constant_bands=found["constant"],
        saturated=saturated,
        exact_codes=exact,
        outliers=outliers,
        problems=_problems(array, norms, exact, found),
    )  # fmt: skip


def intrinsic_dimensions(vectors: np.ndarray, neighbours: Sequence[int]) -> tuple[dict[int, float], float]:
    """Intrinsic dimension of distinct vectors by maximum likelihood, for numbers of neighbours, and by TwoNN."""
    usable = [int(k) for k in neighbours if 2 < k < len(vectors)]
    most = max([2, *usable])
    if len(vectors) < 4:
        return {}, float("nan")
    # the nearest of each is itself, or at the same distance of zero a vector that float32 cannot tell apart
    distance = nearest(vectors.T, vectors, min(most + 1, len(vectors)))[0][1:].T.astype(np.float64)
    distance = distance[distance[:, 0] > 0]
    logs = np.log(distance)
    found = {}
    for k in usable:
        inverse = (logs[:, k - 1 : k] - logs[:, : k - 1]).sum(axis=1) / (k - 1)
        found[k] = float(1 / inverse.mean()) if inverse.sum() > 0 else float("inf")
    ratio = logs[:, 1] - logs[:, 0]
    return found, float(len(ratio) / ratio.sum()) if ratio.sum() > 0 else float("nan")


def _vectors(array: Any, n: int, seed: int) -> tuple[np.ndarray, bool]:
    """Return vectors ``(n, band)``, and whether they were stored as codes."""
    if not isinstance(array, xr.DataArray):
        plain = np.asarray(array, np.float32)
        if plain.ndim != 2:
            raise EmbeddingError(f"diagnose takes vectors of shape (n, band); got {plain.shape}")
        chosen = np.sort(np.random.default_rng(seed).permutation(len(plain))[:n])
        return plain[chosen], False
    check_embedding(array, "diagnose")
    drawn = sampling.sample_vectors([array], n, seed=seed, masks=[None], label="diagnose")
    return drawn.vectors, is_encoded(array)


def _pairs(vectors: np.ndarray, norms: np.ndarray, seed: int) -> tuple[float, float]:
    """Uniformity and mean cosine, over all pairs of at most 2,000 vectors of unit length."""
    own = np.flatnonzero(norms > 0)
    own = np.random.default_rng(seed).permutation(own)[:_PAIRS]
    if len(own) < 2:
        return float("nan"), float("nan")
    unit = vectors[own] / norms[own, None]
    cosine = np.clip((unit @ unit.T)[np.triu_indices(len(unit), 1)], -1, 1)
    return float(np.log(np.exp(-4 * (1 - cosine)).mean())), float(cosine.mean())


def _isotropy(vectors: np.ndarray) -> float:
    """Min Z(c) / max Z(c), Z(c) = Σ exp(c·v), over both signs of the principal axes; vectors of mean length 1."""
    scaled = vectors.astype(np.float64) / max(float(np.linalg.norm(vectors, axis=1).mean()), 1e-300)
    axes = np.linalg.eigh(scaled.T @ scaled)[1]
    z = np.exp(np.clip(scaled @ np.hstack([axes, -axes]), -50, 50)).sum(axis=0)
    return float(z.min() / z.max())


def _of_codes(array: Any, vectors: np.ndarray, codes: bool) -> tuple[float, float]:
    """Share of values that are what a codec decodes to, and share of codes at the end of their range."""
    if not isinstance(array, xr.DataArray):
        return float("nan"), float("nan")
    codec = codec_of(array) if codes else product(array.attrs["product"]).codec
    if codec is None or codec.scale is not None or np.dtype(codec.dtype).kind not in "iu":
        return float("nan"), float("nan")
    encoded = codec.encode(vectors, 1)[0]
    exact = np.isclose(codec.decode(encoded, None, 1)[:, : vectors.shape[1]], vectors, rtol=0, atol=1e-6)
    top = np.iinfo(encoded.dtype).max
    return float(exact.mean()), float((np.abs(encoded.astype(np.int64)) >= top).mean())


def _problems(array: Any, norms: np.ndarray, exact: float, found: Mapping[str, int]) -> tuple[str, ...]:
    problems = []
    if found["outliers"]:
        problems.append(
            f"{found['outliers']} vectors are at least {_OUTLIER:.0f} times as long as the median "
            f"({norms.max():,.4g} against {np.median(norms):.4g}): broken scales?"
        )
    if found["zero"]:
        problems.append(f"{found['zero']} vectors are all zero: missing data that is not marked as such")
    if found["constant"]:
        problems.append(f"{found['constant']} bands have one value in all vectors")
    if found["duplicates"] > len(norms) / 2:
        problems.append(f"{found['duplicates']} of {len(norms)} vectors equal another one")
    if isinstance(array, xr.DataArray):
        facts = product(array.attrs["product"])
        if facts.unit_norm and max(1 - norms.min(), norms.max() - 1) > _NORM_TOLERANCE:
            problems.append(
                f"norms are {norms.min():.4f} to {norms.max():.4f} where {facts.name} has 1 ± {_NORM_TOLERANCE}: "
                "codes were averaged or decoded with another formula, or these are means"
            )
        if is_encoded(array) and np.isfinite(exact) and exact < 1:
            problems.append(f"only {exact:.1%} of the codes come back from decoding and encoding")
    return tuple(problems)
