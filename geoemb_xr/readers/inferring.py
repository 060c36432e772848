"""The product in a store of the ``geoemb:`` convention, inferred from its attributes on model and codes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from geoemb_xr.core.codecs import CODECS
from geoemb_xr.core.conventions import GEOEMB_UUID
from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.model import Codec, Product, ProductKind, normalise_name, product, registered

#: Codecs by what others call them in ``geoemb:quantization``.
_METHODS = {
    "signed_square": "signed-square",
    "powerquantizevaluetransform": "signed-square",
    "per_pixel_scale": "per-pixel-scale",
    "finite_scalar_quantization": "fsq",
    "fsq": "fsq",
    "unpublished": "unscaled",
}


def in_convention(attrs: Mapping[str, Any]) -> bool:
    """By UUID, since names have changed; older stores have the attributes and no list of conventions."""
    declared = attrs.get("zarr_conventions") or []
    uuids = {str(each.get("uuid", "")).lower() for each in declared if isinstance(each, Mapping)}
    return GEOEMB_UUID in uuids or "geoemb:dimensions" in attrs


def infer_product(attrs: Mapping[str, Any], labels: tuple[str, ...], name: str) -> Product:
    """The product of the catalogue that the convention's attributes fit, else one made of them.

    Raises
    ------
    SourceError
        If several fit, or the attributes are not complete.
    """
    try:
        dims = int(attrs["geoemb:dimensions"])
    except (KeyError, TypeError, ValueError):
        raise SourceError(f"{name} lacks 'geoemb:dimensions', the length of a vector") from None
    model = str(attrs.get("geoemb:model", ""))
    quantization = attrs.get("geoemb:quantization") or {}
    codec = codec_of(quantization, name)
    words = set(re.split(r"[^a-z0-9]+", model.lower()))
    of_size = [each for each in registered() if each.dims == dims and _same_codec(each, codec)]
    fitting = [each for each in of_size if _named(each, words, model) or each.bands == labels]
    if len(fitting) > 1:
        sure = [each for each in fitting if _named(each, words, model)]
        fitting = sure if len(sure) == 1 else fitting
    if len(fitting) > 1:
        names = ", ".join(each.name for each in fitting)
        raise SourceError(
            f"{name} fits more than one product ({names}); say which: gx.open(product, {name!r})"
        )
    if fitting:
        return fitting[0]
    if not model:
        raise SourceError(f"{name} lacks 'geoemb:model', and its {dims} dims fit no known product")
    kind: ProductKind = "patch" if attrs.get("geoemb:type") == "chip" else "pixel"
    slug = normalise_name(re.sub(r"[^A-Za-z0-9.]+", "-", model.split("://")[-1]).strip("-"))
    facts: dict[str, Any] = {"dims": dims, "kind": kind, "model": model, "codec": codec}
    facts["bands"] = _own_labels(labels, dims, codec)
    known = {each.name: each for each in registered()}
    for made in (Product(slug, **facts), Product(f"{slug}-{dims}", **facts)):
        if known.get(made.name, made) == made:
            return product(made)
    raise SourceError(
        f"{name} holds vectors of {model!r} that differ from those opened before under {slug!r}"
    )


def _own_labels(labels: tuple[str, ...], dims: int, codec: Codec | None) -> tuple[str, ...]:
    return labels if len(set(labels)) == dims and not (codec is not None and codec.bands) else ()


def _named(candidate: Product, words: set[str], model: str) -> bool:
    """Whether a model's URL names a product."""
    names = {candidate.name, *map(normalise_name, candidate.aliases)}
    return bool(names & words) or (bool(candidate.doi) and candidate.doi.lower() in model.lower())


def _same_codec(candidate: Product, codec: Codec | None) -> bool:
    """Decoded floats of any product fit; codes fit the product whose codec they are in."""
    if codec is None:
        return True
    return candidate.codec is not None and (
        candidate.codec.name == codec.name or codec.name.startswith("linear")
    )


def codec_of(quantization: Mapping[str, Any], name: str) -> Codec | None:
    """The codec that ``geoemb:quantization`` describes."""
    if not quantization:
        return None
    method = str(quantization.get("method", "")).lower()
    scale = quantization.get("scale")
    if method in _METHODS:
        return CODECS[_METHODS[method]]
    if isinstance(scale, Mapping) and scale.get("type") == "array":
        return CODECS["per-pixel-scale"]
    if isinstance(scale, Mapping) and scale.get("type") == "scalar":
        dtype = str(quantization.get("quantized_dtype", "int8"))
        nodata = quantization.get("nodata", -128 if dtype == "int8" else None)
        return _linear_codec(float(scale.get("scale", 1)), float(scale.get("offset", 0)), dtype, nodata)
    raise SourceError(f"{name} is quantised by {method!r}, which is not known; known are {sorted(_METHODS)}")


@dataclass(frozen=True)
class _Linear:
    """Codes that are ``(value - offset) / step``, as the convention's scalar scale says."""

    step: float
    offset: float
    dtype: str
    nodata: int | None

    def decode(self, codes: np.ndarray, scale: np.ndarray | None, axis: int) -> np.ndarray:
        values = codes.astype(np.float32) * np.float32(self.step) + np.float32(self.offset)
        if self.nodata is not None:
            missing = (codes == self.nodata).any(axis=axis, keepdims=True)
            values[np.broadcast_to(missing, values.shape)] = np.nan
        return values

    def encode(self, vectors: np.ndarray, axis: int) -> tuple[np.ndarray, None]:
        limits = np.iinfo(self.dtype)
        lowest = limits.min + 1 if self.nodata == limits.min else limits.min
        missing = np.isnan(vectors).any(axis=axis, keepdims=True)
        codes = np.clip(np.rint((np.nan_to_num(vectors) - self.offset) / self.step), lowest, limits.max)
        return np.where(missing, 0 if self.nodata is None else self.nodata, codes).astype(self.dtype), None

    def decode_torch(self, codes: Any, scale: Any, axis: int) -> Any:
        values = codes.float() * self.step + self.offset
        if self.nodata is None:
            return values
        return values.masked_fill_((codes == self.nodata).any(dim=axis, keepdim=True), float("nan"))


@lru_cache(maxsize=64)
def _linear_codec(step: float, offset: float, dtype: str, nodata: int | None) -> Codec:
    """One object for one rule: bound methods of two equal objects are not equal."""
    rule = _Linear(step, offset, dtype, nodata)
    return Codec(f"linear-{step:g}-{offset:g}", dtype, nodata, rule.decode, rule.encode, rule.decode_torch)
