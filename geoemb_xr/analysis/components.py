"""Principal components, fitted once and carried: one palette for all tiles and years.

The fit is one pass of mergeable sums: count, mean and centred second moments of pieces of blocks, products in
float32, merged in float64 (Chan, Golub and LeVeque 1983). The covariance is small; its eigenvectors are exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from geoemb_xr.analysis.moments import Moments, moments
from geoemb_xr.core.arrays import map_bands
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.fitted import Fitted, Output, check_model, decoded_bands
from geoemb_xr.core.model import (
    BAND,
    attribution_of,
    check_embedding,
    comparability_key,
    derived_attrs,
    product,
    whole_along,
)
from geoemb_xr.core.notes import say
from geoemb_xr.core.onnx_graph import Value
from geoemb_xr.execution import blocks, devices, hashes, sampling
from geoemb_xr.execution.linear import map_linear

COMPONENT = "component"
RGB = "rgb"
#: Up to so many vectors all are used, else a sample of ``SAMPLE``: 1e6 put a covariance within 1 %.
ALL_UP_TO = 4_000_000
SAMPLE = 1_000_000
#: Vectors that the stretch of colours is measured on: a percentile of 1e5 is within 0.1 % of ranks.
_STRETCH_SAMPLE = 100_000
_STRETCH_PERCENTILES = (2.0, 98.0)
#: float32 sums leave noise in eigenvalues below this share of the largest (measured).
FLOOR = 1e-7
#: What three bands of unit vectors are stretched over, as in Google's own examples.
_UNIT_LIMITS = (-0.3, 0.3)

Limits = tuple[float, float] | Sequence[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class PCA(Fitted):
    """Principal components of an embedding, with the stretch that turns the first three into colours.

    Parameters
    ----------
    product, version, bands, attribution
        See :class:`~geoemb_xr.core.fitted.Fitted`.
    mean : ndarray (band,)
        Mean of the vectors.
    loadings : ndarray (component, band)
        Unit length, orthogonal; the largest in absolute value is positive.
    explained_variance : ndarray (component,)
        Variance along each component.
    total_variance : float
        Variance over all bands.
    limits : ndarray (component, 2)
        2nd and 98th percentile of the scores: what colours are stretched over.
    n : float
        Vectors, or the sum of their weights.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(32, 32))
    >>> pca = da.emb.fit_pca(3)
    >>> pca.transform(da).identical(da.emb.pca(pca))
    True
    """

    mean: np.ndarray
    loadings: np.ndarray
    explained_variance: np.ndarray
    total_variance: float
    limits: np.ndarray
    n: float

    default_output: ClassVar[str] = "component"

    @classmethod
    def shapes(cls, names: Iterable[str]) -> Mapping[str, tuple[str | int, ...]]:
        """Dimensions of its arrays."""
        variance = ("component",)
        axes = ("component", "band")
        return {
            "mean": ("band",),
            "loadings": axes,
            "explained_variance": variance,
            "limits": ("component", 2),
        }

    @property
    def n_components(self) -> int:
        """How many."""
        return len(self.loadings)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the components: PC1, PC2, …."""
        return tuple(f"PC{i + 1}" for i in range(self.n_components))

    @property
    def explained_variance_ratio(self) -> np.ndarray:
        """Share of the total variance along each component."""
        return self.explained_variance / (self.total_variance or 1.0)

    def __repr__(self) -> str:
        shares = ", ".join(f"{share:.1%}" for share in self.explained_variance_ratio[:3])
        more = ", …" if self.n_components > 3 else ""
        return (
            f"<PCA of {self.product or 'plain vectors'}: {len(self.bands)} bands → {self.n_components}, "
            f"variance {shares}{more}, fitted on {self.n:,.0f} vectors>"
        )

    def outputs(self) -> Mapping[str, Output]:
        """One output: ``component``."""
        return {"component": Output("float32", dim=COMPONENT, labels=self.labels)}

    def apply(self, vectors: np.ndarray, output: str = "component") -> np.ndarray:
        """Scores ``(n, component)`` of vectors ``(n, band)``."""
        weights, bias = _axes(self)
        scores = weights @ np.asarray(vectors, np.float32).T
        scores += bias[:, None]
        return np.asarray(scores.T)

    def as_linear(self, output: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Loadings, and what they give the mean, with the sign turned."""
        return _axes(self)

    def derive(self, sums: np.ndarray, output: str) -> np.ndarray:
        """The sums themselves."""
        return sums.T

    def as_onnx(self, vectors: Value) -> Mapping[str, Value]:
        """``component``."""
        return {"component": vectors.linear(self.loadings, -(self.loadings @ self.mean))}

    def transform(self, array: xr.DataArray) -> xr.DataArray:
        """The same as ``array.emb.pca(model)``."""
        return pca(array, self)

    def inverse(self, scores: xr.DataArray) -> xr.DataArray:
        """Vectors from scores: the embedding as far as the components hold it. Lazy.

        Parameters
        ----------
        scores : DataArray (…, component, …)
            Scores of this model; the first few components will do.

        Returns
        -------
        DataArray (…, band, …)
            float32; not of unit length where components were left out: ``.emb.normalize()`` makes it so.

        Raises
        ------
        EmbeddingError
            If the scores are not along the first components of this model, in order.

        Examples
        --------
        >>> import geoemb_xr as gx
        >>> da = gx.testing.synthetic("alphaearth", shape=(16, 16))
        >>> pca = da.emb.fit_pca(8)
        >>> pca.inverse(pca.transform(da)).emb.product.name
        'alphaearth'
        """
        if COMPONENT not in scores.dims:
            raise EmbeddingError(
                f"inverse takes scores with a {COMPONENT!r} dimension; got dims {tuple(scores.dims)}"
            )
        k = scores.sizes[COMPONENT]
        if tuple(scores.coords[COMPONENT].values.astype(str)) != self.labels[:k]:
            raise EmbeddingError(
                f"inverse takes the first of the components {list(self.labels)}, in order; "
                f"got {scores.coords[COMPONENT].values.tolist()}"
            )
        return map_bands(
            _reconstruct,
            _as_band(scores),
            _delayed(self),
            dtype=np.float32,
            out=(BAND, self.bands),
            decode=True,
            name="embedding",
            attrs={
                "product": self.product,
                "version": self.version,
                "source": "reconstructed from components",
            },
        )


def _as_band(scores: xr.DataArray) -> xr.DataArray:
    """Scores with their components as bands, in one chunk."""
    bands = scores.rename({COMPONENT: BAND})
    return whole_along(bands, BAND)


def _delayed(model: Any) -> Any:
    """A model as one node of the graph instead of a copy in every task."""
    import dask

    return dask.delayed(model, pure=True)


def _axes(model: PCA) -> tuple[np.ndarray, np.ndarray]:
    return model.loadings.astype(np.float32), -(model.loadings @ model.mean).astype(np.float32)


def _first_three(model: PCA) -> tuple[np.ndarray, np.ndarray]:
    return model.loadings[:3].astype(np.float32), -(model.loadings[:3] @ model.mean).astype(np.float32)


def _as_they_are(scores: np.ndarray, model: PCA) -> np.ndarray:
    return scores


def _reconstruct(block: np.ndarray, axis: int, model: PCA) -> np.ndarray:
    first = np.moveaxis(block, axis, 0)
    loadings = model.loadings[: len(first)].astype(np.float32)
    vectors = np.tensordot(loadings.T, first, axes=1) + model.mean.astype(np.float32).reshape(
        -1, *[1] * (block.ndim - 1)
    )
    return np.moveaxis(vectors, 0, axis)


# --- fit ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _BlockSums:
    moments: Moments
    sample: sampling.Sample


def _sum_block(
    block: blocks.Block,
    seed: int,
    limit: np.uint64,
    stretch: np.uint64,
    masked: bool,
    weighted: bool,
    device: str,
) -> _BlockSums:
    """One task: the moments of a block's chosen pixels, and a few of them for the stretch."""
    if limit < hashes.threshold(1.0):
        sample = sampling.draw(block, seed, limit, masked, weighted)
        own = sample.weights if weighted else None
        return _BlockSums(moments(blocks.Block(sample.vectors, 1), own, device), _thinned(sample, stretch))
    fields = [each.reshape(-1) for each in block.fields]
    weights = np.where(fields[-1] > 0, fields[-1], 0.0) if weighted else None
    if masked:
        weights = (fields[0] != 0) * (1.0 if weights is None else weights)
    return _BlockSums(moments(block, weights, device), sampling.draw(block, seed, stretch, masked, weighted))


def _thinned(sample: sampling.Sample, limit: np.uint64) -> sampling.Sample:
    few = sample.hashes <= limit
    return sampling.Sample(sample.vectors[few], sample.hashes[few], sample.weights[few])


def _merge_parts(parts: Sequence[_BlockSums]) -> _BlockSums:
    total = parts[0].moments
    for each in parts[1:]:
        total = total + each.moments
    return _BlockSums(total, sampling.Sample.merge([p.sample for p in parts]))


def fit_pca(
    array: xr.DataArray | Sequence[xr.DataArray],
    n_components: int = 3,
    *,
    n_samples: int | Literal["all"] | None = None,
    weights: xr.DataArray | Sequence[xr.DataArray] | None = None,
    mask: xr.DataArray | Sequence[xr.DataArray] | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> PCA:
    """Fit principal components on an array, or on several at once. Computes.

    Parameters
    ----------
    array : DataArray (…, band, …) or sequence of them
        Codes or vectors; several tiles, years or scenes get one basis. Missing vectors are left out.
    n_components : int
        Number of components to keep.
    n_samples : int or "all", optional
        About how many vectors, chosen by a hash of their pixel's place so that neither chunks nor crops
        change the choice. By default all where there are at most four million, else a million, which puts
        the covariance within 1 %.
    weights : DataArray (y, x), optional
        Weights of pixels, on the array's grid; one for each array. 0 leaves a pixel out.
    mask : DataArray (y, x), optional
        True where pixels are used, on the array's grid; one for each array.
    seed : int
        Seed of the choice of pixels.
    device : str
        ``"cpu"``, ``"auto"`` for a GPU where there is one, or a device of torch such as ``"cuda:0"``, where sums
        are made: worth it where all of many vectors are used.

    Returns
    -------
    PCA
        The model, with the stretch for :func:`rgb`. Components whose variance is below 1e-7 of the largest are
        noise of float32 sums and are not kept.

    Raises
    ------
    ComparabilityError
        If the arrays are of different products or versions.
    EmbeddingError
        If fewer than two vectors are valid, a mask lies on another grid, or a device is not there.
    ValueError
        If there are fewer bands than components.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(32, 32), years=[2018, 2024])
    >>> pca = da.emb.fit_pca(3)
    >>> bool(pca.explained_variance_ratio.sum() > 0.5)
    True
    """
    devices.check_device(device)
    many, bands = blocks.one_space(array, "fit_pca")
    if not 1 <= n_components <= len(bands):
        raise ValueError(f"n_components is 1 to the number of bands, {len(bands)}; got {n_components}")
    masks, fields = blocks.one_each(mask, many, "mask"), blocks.one_each(weights, many, "weights")
    pixels = blocks.count_pixels(many, masks)
    share = (
        1.0
        if n_samples == "all" or (n_samples is None and pixels <= ALL_UP_TO)
        else ((n_samples or SAMPLE) / max(pixels, 1))
    )
    limit = hashes.threshold(share)
    stretch = min(limit, hashes.threshold(_STRETCH_SAMPLE / max(pixels, 1)))
    parts: list[Any] = []
    for each, own_mask, own_weights in zip(many, masks, fields, strict=True):
        flags = own_mask is not None, own_weights is not None
        parts += blocks.per_block(
            _sum_block, each, seed, limit, stretch, *flags, device, fields=[own_mask, own_weights]
        )
    total: _BlockSums = blocks.merged(parts, _merge_parts, label="fit_pca")
    return _solve(total, n_components, many[0], bands)


def _solve(total: _BlockSums, n_components: int, array: xr.DataArray, bands: tuple[str, ...]) -> PCA:
    found = total.moments
    if len(total.sample.vectors) < 2 or found.n <= 0:
        raise EmbeddingError(
            f"fit_pca found {len(total.sample.vectors)} valid vectors; it needs two or more "
            "(is everything missing, or masked?)"
        )
    variance, vectors = np.linalg.eigh(found.m2 / found.n)
    variance, loadings = variance[::-1], vectors[:, ::-1].T
    kept = max(int(np.sum(variance[:n_components] > FLOOR * variance[0])), 1)
    if kept < n_components:
        say(
            f"fit_pca keeps {kept} of {n_components} components: the variance along the others is below "
            f"{FLOOR:g} of the first, which is noise of float32 sums"
        )
    variance, loadings = np.maximum(variance[:kept], 0), loadings[:kept]
    largest = np.take_along_axis(loadings, np.abs(loadings).argmax(axis=1)[:, None], axis=1)
    loadings = np.ascontiguousarray(loadings * np.sign(largest))
    scores = (total.sample.vectors - found.mean.astype(np.float32)) @ loadings.T.astype(np.float32)
    limits = np.percentile(scores, _STRETCH_PERCENTILES, axis=0).T.astype(np.float64)
    name, version = comparability_key(array)
    return PCA(
        product=name,
        version=version,
        bands=bands,
        attribution=attribution_of(array),
        mean=found.mean,
        loadings=loadings,
        explained_variance=variance,
        total_variance=float(np.trace(found.m2) / found.n),
        limits=limits,
        n=float(found.n),
    )


# --- use ----------------------------------------------------------------------------------------------------


def pca(array: xr.DataArray, model: PCA) -> xr.DataArray:
    """Scores along the components of a fitted model. Lazy.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Codes or vectors of the product and version that the model was fitted on.
    model : PCA
        Model by :func:`fit_pca`.

    Returns
    -------
    DataArray (…, component, …)
        float32, NaN where there is no data.

    Raises
    ------
    ComparabilityError
        If the model belongs to another product or version.
    TypeError
        If the model is not a fitted PCA.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(16, 16))
    >>> da.emb.pca(da.emb.fit_pca(3)).sizes["component"]
    3
    """
    check_embedding(array, "pca")
    if not isinstance(model, PCA):
        raise TypeError(f"pca takes a fitted PCA, got {model!r}; fit one first: pca = array.emb.fit_pca(3)")
    check_model(model, array, "pca")
    return map_linear(
        _axes,
        _as_they_are,
        array,
        model,
        dtype=np.float32,
        out=(COMPONENT, model.labels),
        name="components",
        attrs=derived_attrs(array, long_name="principal components"),
    )


def rgb(
    array: xr.DataArray,
    model: PCA | Sequence[str] | None = None,
    *,
    limits: Limits | None = None,
) -> xr.DataArray:
    """A picture: three components or three bands as red, green and blue. Lazy.

    Parameters
    ----------
    array : DataArray (…, band, …) or (…, component, …)
        An embedding, or components of one.
    model : PCA or three band labels, optional
        Model or bands to show; may be left out where the array holds components already and ``limits`` are given.
    limits : (low, high) or three of them, optional
        Values that 0 and 255 stand for. By default those kept in the model, so that all tiles and years have one
        palette; ±0.3 for bands of unit vectors, as in Google's examples.

    Returns
    -------
    DataArray (…, rgb, …)
        uint8; labels r, g, b, a; transparent where there is no data.

    Raises
    ------
    EmbeddingError
        If there are not three components or bands to show.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(16, 16))
    >>> da.emb.rgb(da.emb.fit_pca(3)).dtype
    dtype('uint8')
    >>> da.emb.rgb(["A01", "A16", "A09"], limits=(-0.3, 0.3)).sizes["rgb"]
    4
    """
    attrs = derived_attrs(array, long_name="red, green, blue, opacity")
    options: dict[str, Any] = {
        "dtype": np.uint8,
        "out": (RGB, list("rgba")),
        "name": "picture",
        "attrs": attrs,
    }
    if COMPONENT in array.dims:
        if model is not None and not isinstance(model, PCA):
            raise EmbeddingError("rgb of components takes a PCA or limits=, not band labels")
        _need_three(array.sizes[COMPONENT])
        stretch = _limits(limits if limits is not None or model is None else model.limits)
        return map_bands(_stretch_block, _as_band(array.isel({COMPONENT: slice(3)})), stretch, **options)
    found = check_embedding(array, "rgb")
    if isinstance(model, PCA):
        check_model(model, array, "rgb")
        _need_three(model.n_components)
        stretch = _limits(model.limits if limits is None else limits)
        return map_linear(_first_three, _colours, array, model, stretch, **options)
    if model is None:
        raise EmbeddingError("rgb needs a fitted PCA (pca = array.emb.fit_pca(3)) or three band labels")
    labels = list(model)
    own = decoded_bands(array)
    if len(labels) != 3 or not set(labels) <= set(own):
        raise EmbeddingError(f"rgb needs three band labels of {list(own[:3])}…{own[-1]}; got {labels}")
    if limits is None and not product(found).unit_norm:
        raise EmbeddingError(
            f"rgb of bands needs limits=(low, high): vectors of {found.name!r} have no unit length, which would "
            "give them"
        )
    stretch = _limits(_UNIT_LIMITS if limits is None else limits)
    rows = [own.index(label) for label in labels]
    return blocks.map_pieces(_pick_colours, array, rows, stretch, **options)


def _need_three(n: int) -> None:
    if n < 3:
        raise EmbeddingError(f"rgb needs three components; there are {n}: fit_pca(3)")


def _limits(limits: Any) -> np.ndarray:
    """Limits of three colours, float32, shape (3, 2)."""
    if limits is None:
        raise EmbeddingError("rgb of components needs the fitted PCA, or limits=(low, high)")
    try:
        pairs = np.asarray(limits, np.float32)
    except (TypeError, ValueError):
        pairs = np.empty(0, np.float32)
    pairs = np.broadcast_to(pairs, (3, 2)) if pairs.shape == (2,) else pairs[:3]
    if pairs.shape != (3, 2) or not (pairs[:, 0] < pairs[:, 1]).all():
        raise ValueError(f"limits are (low, high) with low < high, or three such pairs; got {limits!r}")
    return pairs


def _colours(scores: np.ndarray, model: PCA, limits: np.ndarray) -> np.ndarray:
    return _stretch(scores, limits)


def _pick_colours(vectors: np.ndarray, rows: Sequence[int], limits: np.ndarray) -> np.ndarray:
    return _stretch(vectors[rows], limits)


def _stretch_block(block: np.ndarray, axis: int, limits: np.ndarray) -> np.ndarray:
    first = np.moveaxis(block, axis, 0)
    colours = _stretch(first.reshape(3, -1), limits).reshape(4, *first.shape[1:])
    return np.moveaxis(colours, 0, axis)


def _stretch(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """RGBA ``(4, n)`` of three rows of values."""
    low, high = limits[:, :1], limits[:, 1:]
    scaled = (values - low) * (255 / (high - low))
    visible = np.isfinite(scaled).all(axis=0)
    out = np.zeros((4, values.shape[1]), np.uint8)
    out[:3] = np.where(visible, np.clip(np.rint(scaled), 0, 255), 0)
    out[3] = np.where(visible, 255, 0)
    return out
