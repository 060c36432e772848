"""Compressors: fewer components, fewer bits, or both, as one small fitted model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from geoemb_xr.analysis.components import PCA, fit_pca
from geoemb_xr.core.arrays import decode, matryoshka_of, normalize, truncate
from geoemb_xr.core.codecs import PER_PIXEL_SCALE, SIGN, SIGNED_SQUARE
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.fitted import Fitted, Output, check_model
from geoemb_xr.core.missing import codec_attrs, without_codec
from geoemb_xr.core.model import (
    BAND,
    Codec,
    Product,
    attribution_of,
    check_comparable,
    check_embedding,
    comparability_key,
    product,
)
from geoemb_xr.core.onnx_graph import Value
from geoemb_xr.execution import blocks, linear

CodecName = Literal["int8", "signed-square", "bit"]
Method = Literal["pca", "prefix"]
CODEC_OF: Mapping[str, Codec] = {"int8": PER_PIXEL_SCALE, "signed-square": SIGNED_SQUARE, "bit": SIGN}


@dataclass(frozen=True, eq=False)
class Compressor(Fitted):
    """How vectors become shorter, or are stored in fewer bits; made by :func:`fit_compressor`.

    Parameters
    ----------
    product, version, bands, attribution
        See :class:`~geoemb_xr.core.fitted.Fitted`.
    method : {"pca", "prefix"}
        Where fewer components are kept: principal ones, or the first of a Matryoshka product.
    codec : {"int8", "signed-square", "bit"}
        Storage of the numbers.
    mean : ndarray of float32 (band,)
        Taken off before components are; zeros unless these are principal ones.
    loadings : ndarray of float32 (component, band)
        Loadings of principal components; none, ``(0, band)``, elsewhere.
    dims : int
        Number of values per vector afterwards.
    explained : float
        Share of the variance that is kept, in the data that it was fitted on.
    """

    method: Method
    codec: CodecName
    mean: np.ndarray
    loadings: np.ndarray
    dims: int
    explained: float

    default_output: ClassVar[str] = "component"

    @classmethod
    def shapes(cls, names: Iterable[str]) -> Mapping[str, tuple[str | int, ...]]:
        """Dimensions of its arrays."""
        return {"mean": ("band",), "loadings": ("component", "band")}

    @property
    def whole(self) -> bool:
        """Whether all bands are kept, so that vectors stay in their original space."""
        return self.dims == len(self.bands)

    @property
    def hash(self) -> str:
        """Eight letters that identify this compressor."""
        parts = (self.product, self.version, self.method, self.codec, str(self.dims))
        made = hashlib.sha256("\n".join(parts).encode())
        made.update(np.ascontiguousarray(self.mean, "<f4").tobytes())
        made.update(np.ascontiguousarray(self.loadings, "<f4").tobytes())
        return made.hexdigest()[:8]

    @property
    def key(self) -> tuple[str, str]:
        """Product and version of what is compressed with it."""
        if self.whole or self.method == "prefix":
            return self.product, self.version
        suffix = "" if self.codec == "int8" else f"-{self.codec}"
        version = f"{self.version}+pca{self.dims}-{self.hash}".lstrip("+")
        return f"{self.product}-pca{self.dims}{suffix}", version

    def made(self) -> Product:
        """The product of what is compressed with it, known by its name from then on."""
        base = product(self.product)
        if self.key[0] == self.product:
            return base
        return product(
            Product(
                self.key[0],
                dims=self.dims,
                title=f"{base.title or base.name}, {self.dims} principal components",
                kind=base.kind,
                bands=tuple(f"PC{i + 1}" for i in range(self.dims)),
                dtype=CODEC_OF[self.codec].dtype,
                codec=CODEC_OF[self.codec],
                resolution=base.resolution,
                context_m=base.context_m,
                trained_on=base.trained_on,
                citation=base.citation,
                bibtex=base.bibtex,
                licence=base.licence,
                licence_notes=base.licence_notes,
                attribution=base.attribution,
                share_alike=base.share_alike,
            )
        )

    def outputs(self) -> Mapping[str, Output]:
        """One output: ``component``, not yet in fewer bits."""
        labels = (
            tuple(f"PC{i + 1}" for i in range(self.dims)) if len(self.loadings) else self.bands[: self.dims]
        )
        return {"component": Output("float32", dim="component", labels=labels)}

    def apply(self, vectors: np.ndarray, output: str = "component") -> np.ndarray:
        """Components ``(n, component)`` of vectors ``(n, band)``."""
        return _components(np.asarray(vectors, np.float32).T, self).T

    def as_onnx(self, vectors: Value) -> Mapping[str, Value]:
        """``compressed`` and, for int8, ``compressed_scale``: what :func:`compress` gives."""
        if len(self.loadings):
            found = vectors.linear(self.loadings, -(self.loadings @ self.mean))
        else:
            found = vectors.first(self.dims)
        encode = CODEC_OF[self.codec].encode_onnx
        assert encode is not None
        codes, scale = encode(found)
        return {"compressed": codes} | ({} if scale is None else {"compressed_scale": scale.flat()})

    def transform(self, array: xr.DataArray) -> xr.DataArray:
        """The same as ``array.emb.compress(model)``."""
        return compress(array, self)

    def __repr__(self) -> str:
        kept = "" if self.whole else f" → {self.dims} ({self.method}), variance {self.explained:.1%}"
        return (
            f"<Compressor of {self.product or 'plain vectors'}: {len(self.bands)} bands{kept}, {self.codec}>"
        )


def fit_compressor(
    array: xr.DataArray | Sequence[xr.DataArray],
    *,
    dims: int | None = None,
    codec: CodecName = "int8",
    method: Method = "pca",
    n_samples: int | Literal["all"] | None = None,
    mask: xr.DataArray | Sequence[xr.DataArray] | None = None,
    seed: int = 0,
) -> Compressor:
    """Fit a compressor: fewer components, fewer bits, or both. Computes only where principal components are kept.

    Parameters
    ----------
    array : DataArray (…, band, …) or sequence of them
        Codes or vectors, as in :func:`geoemb_xr.fit_pca`.
    dims : int, optional
        Number of components to keep. All by default: vectors stay in their space and are stored in fewer bits.
    codec : {"int8", "signed-square", "bit"}
        Storage of the numbers: int8 with one scale per vector; as signed squares, which are finest near 0 and need
        no scale; or as their signs alone, which keeps directions roughly and takes an eighth of a byte once
        compressed.
    method : {"pca", "prefix"}
        Fewer components are the principal ones, or a prefix where the product has one (a Matryoshka product).
    n_samples, mask, seed
        See :func:`geoemb_xr.fit_pca`.

    Returns
    -------
    Compressor

    Raises
    ------
    EmbeddingError
        If the product has no such prefix.
    ValueError
        For an unknown method or codec, or more dimensions than bands.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(32, 32))
    >>> small = da.emb.compress(da.emb.fit_compressor(dims=8))
    >>> small.dtype, small.sizes["band"], small.attrs["version"].startswith("synthetic+pca8-")
    (dtype('int8'), 8, True)
    """
    check_choice("codec", codec, CODEC_OF)
    check_choice("method", method, ("pca", "prefix"))
    many, bands = blocks.one_space(array, "fit_compressor")
    dims = len(bands) if dims is None else int(dims)
    if not 1 <= dims <= len(bands):
        raise ValueError(f"dims is 1 to the number of bands, {len(bands)}; got {dims}")
    name, version = comparability_key(many[0])
    space = name, version, bands, attribution_of(many[0])
    if dims == len(bands) or method == "prefix":
        if dims < len(bands) and dims not in matryoshka_of(product(name), version):
            raise EmbeddingError(
                f"{name} {version} has no prefix of {dims} bands that is an embedding; use method='pca'"
            )
        nothing = np.zeros(len(bands), np.float32), np.zeros((0, len(bands)), np.float32)
        return Compressor(*space, method, codec, *nothing, dims, 1.0 if dims == len(bands) else float("nan"))
    pca: PCA = fit_pca(many, dims, n_samples=n_samples, mask=mask, seed=seed)
    axes = pca.mean.astype(np.float32), pca.loadings.astype(np.float32)
    share = float(pca.explained_variance_ratio.sum())
    return Compressor(*space, method, codec, *axes, pca.n_components, share)


# --- use ----------------------------------------------------------------------------------------------------------


def compress(array: xr.DataArray, model: Compressor) -> xr.DataArray:
    """Vectors in fewer bytes. Lazy.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Array of the model's product, version and bands; codes are decoded first.
    model : Compressor
        Model by :func:`fit_compressor`.

    Returns
    -------
    DataArray
        Codes. With all bands kept, of the same product and version; a prefix is what ``truncate`` gives; principal
        components are a product of their own, whose version names the compressor. Everything that takes embeddings
        takes them, and they are decoded where they are used.

    Raises
    ------
    ComparabilityError
        If the array is of another product or version.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(16, 16))
    >>> bits = da.emb.compress(da.emb.fit_compressor(codec="bit"))
    >>> sorted(set(bits.values.ravel().tolist()))
    [-1, 1]
    """
    _check(model, "compress")
    check_embedding(array, "compress")
    check_model(model, array, "compress")
    codec = CODEC_OF[model.codec]
    if model.whole or model.method == "prefix":
        array = array if model.whole else truncate(array, model.dims)
        name = product(model.product).name if array.name is None else str(array.name)
        bands, attrs = model.bands[: model.dims], without_codec(array.attrs)
    else:
        found = model.made()
        name, bands = found.name, found.bands
        kept = {key: value for key, value in array.attrs.items() if key in ("source", "attribution")}
        attrs = {**kept, "product": found.name, "version": model.key[1]}
    attrs.update(codec_attrs(codec))
    made = _mapped(
        _encoded, array, model, codec, dtype=codec.dtype, out=(BAND, bands), name=name, attrs=attrs
    )
    if codec.scale is None:
        return made
    scale = _mapped(_scales, array, model, codec, dtype=np.float32, out=(BAND, [0]), name=codec.scale)
    return made.assign_coords({codec.scale: scale.isel({BAND: 0}, drop=True)})


def _mapped(
    encoded: Callable[..., np.ndarray], array: xr.DataArray, model: Compressor, codec: Codec, **options: Any
) -> xr.DataArray:
    """Apply ``encoded(components, model, codec)`` to components, straight from codes where they can be. Lazy."""
    import dask

    if len(model.loadings):
        return linear.map_linear(_axes, encoded, array, model, codec, **options)
    return blocks.map_pieces(
        _encode_first_bands, array, encoded, dask.delayed(model, pure=True), codec, **options
    )


def _axes(model: Compressor) -> tuple[np.ndarray, np.ndarray]:
    return model.loadings, -(model.loadings @ model.mean)


def _encode_first_bands(
    vectors: np.ndarray, encoded: Callable[..., np.ndarray], model: Compressor, codec: Codec
) -> np.ndarray:
    return encoded(vectors[: model.dims], model, codec)


def _encoded(components: np.ndarray, model: Compressor, codec: Codec) -> np.ndarray:
    return codec.encode(components, 0)[0]


def _scales(components: np.ndarray, model: Compressor, codec: Codec) -> np.ndarray:
    scale = codec.encode(components, 0)[1]
    assert scale is not None
    return scale[None]


def _components(vectors: np.ndarray, model: Compressor) -> np.ndarray:
    """Components ``(component, n)`` of vectors ``(band, n)``."""
    if not len(model.loadings):
        return vectors[: model.dims]
    found: np.ndarray = model.loadings @ vectors
    found -= (model.loadings @ model.mean)[:, None]
    return found


def decompress(array: xr.DataArray, model: Compressor) -> xr.DataArray:
    """Approximate vectors of the original space from compressed ones. Lazy.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Result of :func:`compress` with the same model.
    model : Compressor
        The same.

    Returns
    -------
    DataArray (…, band, …)
        float32, of unit length where the product's vectors are.

    Raises
    ------
    ComparabilityError
        If the array was compressed by another model.
    EmbeddingError
        If it is a prefix: the bands that were left out cannot be told from the others.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(16, 16))
    >>> model = da.emb.fit_compressor(dims=16)
    >>> again = da.emb.compress(model).emb.decompress(model)
    >>> float((again * da).sum("band").min()) > 0.9
    True
    """
    import dask

    _check(model, "decompress")
    model.made()
    check_embedding(array, "decompress")
    check_comparable("decompress", model.key, comparability_key(array))
    if model.method == "prefix" and not model.whole:
        raise EmbeddingError("a prefix cannot be made longer: the bands that were left out are not in it")
    vectors = decode(array)
    if not model.whole:
        attrs = {**vectors.attrs, "product": model.product, "version": model.version}
        vectors = blocks.map_pieces(
            _vectors,
            vectors,
            dask.delayed(model, pure=True),
            dtype=np.float32,
            out=(BAND, model.bands),
            name=model.product,
            attrs=attrs,
        )
    return normalize(vectors) if product(model.product).unit_norm else vectors


def _vectors(components: np.ndarray, model: Compressor) -> np.ndarray:
    return np.asarray(model.loadings.T @ components + model.mean[:, None])


def _check(model: Any, what: str) -> None:
    if not isinstance(model, Compressor):
        raise TypeError(f"{what} takes a Compressor, as fit_compressor gives it; got {type(model).__name__}")
