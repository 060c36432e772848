"""Maps from fitted models: block by block, decoded piece by piece, with several outputs in one pass."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import xarray as xr

from geoemb_xr.core import buffers, kernels
from geoemb_xr.core.arrays import codec_of, map_bands
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.fitted import Fitted, Output, check_model, decoded_bands
from geoemb_xr.core.legend import Legend, encode_classes
from geoemb_xr.core.model import Codec, check_embedding, derived_attrs, is_encoded, product
from geoemb_xr.execution import devices, lanes, workers
from geoemb_xr.execution.blocks import Block
from geoemb_xr.execution.thinning import pixelwise
from geoemb_xr.execution.threads import one_thread
from geoemb_xr.execution.workers import Resources
from geoemb_xr.predicting import fused, networks

#: Pixels that are decoded and multiplied at a time: what of them is float32 stays in the cache.
PIECE = 4096


class Model(Protocol):
    """A model that `predict` applies: a fitted one, or an estimator or network in the shape of one."""

    def outputs(self) -> Mapping[str, Output]:
        """The names of its outputs."""

    def apply(self, vectors: np.ndarray, output: str) -> np.ndarray:
        """An output for vectors ``(n, band)`` without NaN: ``(n,)`` or ``(n, k)``."""


def predict(
    array: xr.DataArray,
    model: Any,
    *,
    output: str | Sequence[str] = "label",
    device: str = "auto",
    batch_size: int | str = "auto",
    resources: Resources | None = None,
) -> Any:
    """Apply a fitted model to every pixel. Lazy.

    Parameters
    ----------
    array : DataArray (…, band, …)
        An embedding, encoded or decoded; codes are decoded where they are used, so they are the faster input.
    model : Probe, KMeans, Student, scikit-learn estimator or torch.nn.Module
        Fitted on the same product, version and bands. A module takes ``(n, band)`` and gives a score per class
        ``(n, classes)``, or one value ``(n, 1)``.
    output : str or list of str
        ``label``, ``proba``, ``margin``, ``entropy``, ``set`` (conformal), ``value`` (regression), ``distance``
        (dissimilarity index) or ``aoa`` (area of applicability): what of them the model can give. Several make
        a Dataset, from one pass. For regression ``label`` means the value.
    device : str
        ``"auto"``, ``"cpu"`` or a device of torch, such as ``"cuda:0"``.
    batch_size : int or "auto"
        Pixels at a time on a device of torch.
    resources : mapping of str to float, optional
        Resources that a worker of the connected dask cluster must offer, such as ``{"GPU": 1}``: checked at once.
        The writers (``to_cog``, ``to_zarr``) keep to it; dask's own ``compute`` and ``persist`` forget it unless
        they are told again, ``.compute(resources={"GPU": 1})``.

    Returns
    -------
    DataArray (…) or Dataset
        A class map is uint8 or uint16 with 0 where there is no data, and carries its legend; elsewhere missing
        is NaN. ``proba`` and ``set`` have ``category`` where ``band`` was. A student gives an embedding.

    Raises
    ------
    ComparabilityError
        If the model was fitted on another product or version.
    EmbeddingError
        If its bands are others, a device is not there, or no worker offers the resources.
    ValueError
        For an unknown output.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(128, 128)).emb.year(2018)
    >>> probe = da.emb.fit_probe(gx.testing.scene().points(120, radius=600), target="land_cover")
    >>> da.emb.predict(probe).dtype
    dtype('uint8')
    >>> sorted(da.emb.predict(probe, output=["label", "margin"]).data_vars)
    ['label', 'margin']
    """
    check_embedding(array, "predict")
    ready = as_model(model, array)
    array = ready.prepared(array) if isinstance(ready, Fitted) else array
    outputs = ready.outputs()
    if output == "label" and "label" not in outputs:
        output = next(iter(outputs))
    names = [output] if isinstance(output, str) else list(output)
    for name in names:
        check_choice("output", name, outputs)
    devices.check_device(device)
    if device not in ("auto", "cpu") and not networks.can_run(ready):
        raise EmbeddingError(
            f"{names} of {type(model).__name__} is not computed on {device!r}: use device='cpu'"
        )
    specs = {name: outputs[name] for name in names}
    attrs = {name: _attrs(array, model, specs[name]) for name in names}
    with workers.asked_for(resources):
        job = _MapJob.of(array, ready, specs, device, batch_size)
        if isinstance(output, str):
            return _single(array, ready, job, output, specs[output], attrs[output])
        # one task per block for all outputs
        node = _node(ready, array)
        packed = map_bands(_predict_block, array, node, job, dtype=job.dtype, decode=False)
    return xr.Dataset({name: _unpacked(packed, name, specs[name], array.dims, attrs[name]) for name in names})


def _attrs(array: xr.DataArray, model: Any, spec: Output) -> dict[str, Any]:
    attrs = derived_attrs(array, **(spec.attrs or {}))
    if spec.space is not None:
        made, version = spec.space
        attrs = {"product": made, "version": version, "source": attrs.pop("derived_from", ""), **attrs}
    own, there = getattr(model, "attribution", ""), attrs.get("attribution", "")
    if own and own not in there:
        attrs["attribution"] = own if there in own else f"{there}; {own}"
    return attrs


# --- one pass over the blocks ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _MapJob:
    """What a task is told besides its block and the model.

    Parameters
    ----------
    codec : Codec or None
        Codec of codes.
    unit : bool
        Whether vectors have unit length, so that one of zeros is missing.
    dtype : dtype
        The outputs of a pixel as one structured value.
    device : str
        Where the user wants it computed.
    batch_size : int or "auto"
        Pixels at a time on a device.
    token : str
        Tells the model from others on the device.
    """

    codec: Codec | None
    unit: bool
    dtype: np.dtype[Any]
    device: str
    batch_size: int | str
    token: str

    @classmethod
    def of(
        cls,
        array: xr.DataArray,
        model: Model,
        specs: Mapping[str, Output],
        device: str,
        batch_size: int | str,
    ) -> _MapJob:
        from dask.base import tokenize

        values = [
            (name, s.dtype, (len(s.labels),)) if s.dim else (name, s.dtype) for name, s in specs.items()
        ]
        codec = codec_of(array) if is_encoded(array) else None
        unit = product(array.attrs["product"]).unit_norm
        return cls(codec, unit, np.dtype(values), device, batch_size, tokenize(model))

    @property
    def names(self) -> tuple[str, ...]:
        return self.dtype.names or ()


def _node(model: Model, array: xr.DataArray) -> Any:
    """The model as one node of a graph, where there is one."""
    import dask

    return model if array.chunks is None else dask.delayed(model, pure=True)


def _single(
    array: xr.DataArray, model: Model, job: _MapJob, name: str, spec: Output, attrs: dict[str, Any]
) -> xr.DataArray:
    """One output, its dimension where ``band`` was."""
    return map_bands(
        _predict_one,
        array,
        _node(model, array),
        job,
        dtype=spec.dtype,
        out=(spec.dim, spec.labels) if spec.dim else None,
        decode=False,
        name=name,
        attrs=attrs,
    )


def _predict_one(
    data: np.ndarray, axis: int, scale: np.ndarray | None, model: Model, job: _MapJob
) -> np.ndarray:
    """The one output of a job, ``(…, k, …)`` or without that dimension, contiguous."""
    (name,) = job.names
    length = job.dtype[name].shape
    place = devices.place_for(job.device, networks.can_run(model))
    outer, inner = math.prod(data.shape[:axis]), math.prod(data.shape[axis + 1 :])
    if place != "cpu" or not fused.can_fuse(job.codec, model, (name,), inner == 1):
        return _field(_predict_block(data, axis, scale, model, job), name, axis if length else None)
    out = buffers.empty((*data.shape[:axis], *length, *data.shape[axis + 1 :]), job.dtype[name].base)
    block = Block(data, axis, scale, job.codec)
    fused.fill(block, model, job.unit, {name: out.reshape(outer, *length, inner)})
    return out


def _predict_block(
    data: np.ndarray, axis: int, scale: np.ndarray | None, model: Model, job: _MapJob
) -> np.ndarray:
    """All outputs of a job, as structured values."""
    block = Block(data, axis, scale, job.codec)
    out = buffers.empty((block.pixels,), job.dtype)
    place = devices.place_for(job.device, networks.can_run(model))
    inner = math.prod(data.shape[axis + 1 :])
    if place == "cpu" and fused.can_fuse(job.codec, model, job.names, inner == 1):
        rows = out.reshape(-1, inner)
        views = {
            name: rows[name] if rows[name].ndim == 2 else np.moveaxis(rows[name], 2, 1) for name in job.names
        }
        fused.fill(block, model, job.unit, views)
    elif place == "cpu":
        _fill(block, model, job.unit, out)
    else:
        work = networks.work_of(model, job.codec, job.unit, job.names, job.token, place)
        lanes.fill_in_batches(block, work, out, place, job.batch_size)
    return out.reshape(np.delete(data.shape, axis))


def _fill(block: Block, model: Model, unit: bool, out: np.ndarray) -> None:
    """Fill a structured array with a model's outputs, piece by piece; zeros are not vectors of unit length."""
    outputs = model.outputs()
    with one_thread():
        for where, vectors in block.pieces(PIECE):
            # decoded codes are NaN in every band where they are in one; what comes as floats may be anything
            valid = np.isfinite(vectors[0] if block.codec is not None else vectors.sum(axis=0))
            if unit:
                zero = np.flatnonzero(vectors[0] == 0)  # few pixels, of which all bands are looked at
                valid[zero] &= vectors[:, zero].any(axis=0)
            whole = bool(valid.all())
            some = vectors if whole else vectors[:, valid]
            for name in out.dtype.names or ():
                piece = out[name][where]
                if not whole:
                    piece[...] = outputs[name].missing
                if some.shape[1]:
                    piece[slice(None) if whole else valid] = model.apply(some.T, name)


def _unpacked(
    packed: xr.DataArray, name: str, spec: Output, dims: tuple[Any, ...], attrs: dict[str, Any]
) -> xr.DataArray:
    """One output as an array of its own, with its dimension in place of ``band``."""
    coords = dict(packed.coords)
    if spec.dim is None:
        data = (
            packed.data[name]
            if packed.chunks is None
            else packed.data.map_blocks(_field, name, dtype=spec.dtype)
        )
        return xr.DataArray(data, dims=packed.dims, coords=coords, name=name, attrs=attrs)
    axis = next(i for i, d in enumerate(dims) if d not in packed.dims)
    if packed.chunks is None:
        data = _field(packed.data, name, axis)
    else:
        size = len(spec.labels)
        chunks = (*packed.chunks[:axis], (size,), *packed.chunks[axis:])
        data = packed.data.map_blocks(_field, name, axis, dtype=spec.dtype, chunks=chunks, new_axis=axis)
    coords[spec.dim] = (spec.dim, np.asarray(spec.labels))
    names = (*packed.dims[:axis], spec.dim, *packed.dims[axis:])
    return xr.DataArray(data, dims=names, coords=coords, name=name, attrs=attrs)


@pixelwise
def _field(block: np.ndarray, name: str, axis: int | None = None) -> np.ndarray:
    """A field of structured values as a contiguous array, its own dimension moved to ``axis``."""
    field = block[name]
    return np.ascontiguousarray(
        field if axis is None else kernels.band_first(np.ascontiguousarray(field), axis)
    )


# --- models of others -------------------------------------------------------------------------------------------


def as_model(model: Any, array: xr.DataArray) -> Model:
    """A fitted model, checked against an array; estimators and networks in the shape of one.

    Raises
    ------
    TypeError
        If it is none of these.
    """
    if isinstance(model, Fitted):
        check_model(model, array, "predict")
        _check_finite(model)
        return model
    bands = decoded_bands(array)
    if hasattr(model, "predict") and hasattr(model, "get_params"):
        return _estimator(model, bands)
    if callable(getattr(model, "forward", None)) and hasattr(model, "state_dict"):
        return networks.as_network(model, len(bands))
    saved = isinstance(model, str | os.PathLike)
    raise TypeError(
        f"predict takes a Probe, KMeans, a scikit-learn estimator or a torch.nn.Module; got {type(model).__name__}"
        + (f": read a saved model with gx.load_model({os.fspath(model)!r})" if saved else "")
    )


def _check_finite(model: Fitted) -> None:
    """Raise if a model holds NaN: every comparison with NaN is false, so that its map would be of one class."""
    held = {field.name: getattr(model, field.name) for field in fields(model)}
    for name, value in held.items():
        for key, each in value.items() if isinstance(value, Mapping) else [("", value)]:
            if isinstance(each, np.ndarray) and each.dtype.kind == "f" and np.isnan(each).any():
                where = f"{name}[{key!r}]" if key else name
                raise EmbeddingError(
                    f"predict: {where} of the {type(model).__name__} has {int(np.isnan(each).sum())} NaN among its "
                    f"{each.size} numbers; it was not fitted well, or its file is damaged: fit it anew"
                )


@dataclass(frozen=True)
class Estimator:
    """A fitted scikit-learn estimator in the shape of a model.

    Parameters
    ----------
    estimator : object
        Fitted.
    legend : Legend or None
        Legend of its classes; None for regression.
    names : tuple of str
        Names of the features it was fitted on; empty where it has none.
    """

    estimator: Any
    legend: Legend | None
    names: tuple[str, ...]

    def outputs(self) -> dict[str, Output]:
        """Labels and probabilities, or the value."""
        if self.legend is None:
            return {"value": Output("float32")}
        found = {"label": Output(str(self.legend.dtype), missing=0, attrs=self.legend.attrs())}
        if hasattr(self.estimator, "predict_proba"):
            found["proba"] = Output(
                "float32", "category", self.legend.names, attrs={"long_name": "probability"}
            )
        return found

    def apply(self, vectors: np.ndarray, output: str) -> np.ndarray:
        """An output for vectors ``(n, band)``."""
        table: Any = vectors
        if self.names:  # with its own names scikit-learn has nothing to warn of
            import pandas as pd

            table = pd.DataFrame(vectors, columns=list(self.names))
        if self.legend is None:
            found = np.asarray(self.estimator.predict(table))
            if found.size != len(vectors):
                raise EmbeddingError(
                    f"predict makes a map of one value per pixel; {type(self.estimator).__name__} gives "
                    f"{found.size // len(vectors)}: fit an estimator per value"
                )
            return found.reshape(len(vectors))
        if output == "proba":
            return np.asarray(self.estimator.predict_proba(table))
        at = np.searchsorted(self.estimator.classes_, self.estimator.predict(table))
        return np.asarray(np.asarray(self.legend.values, self.legend.dtype)[at])


def _estimator(estimator: Any, bands: tuple[str, ...]) -> Estimator:
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)
    names = tuple(map(str, getattr(estimator, "feature_names_in_", ())))
    if names and names != bands:
        raise EmbeddingError(
            f"the estimator was fitted on the features {list(names[:3])}… ({len(names)}), the array has the bands "
            f"{list(bands[:3])}… ({len(bands)}); they must be the same, in the same order"
        )
    count = getattr(estimator, "n_features_in_", len(bands))
    if count != len(bands):
        raise EmbeddingError(
            f"the estimator was fitted on {count} features, the array has {len(bands)} bands"
        )
    classes = getattr(estimator, "classes_", None)
    if isinstance(classes, list):
        raise EmbeddingError(
            f"predict makes a map of one label per pixel; {type(estimator).__name__} was fitted on {len(classes)} "
            "per row: fit an estimator per label"
        )
    if classes is None:
        return Estimator(estimator, None, names)
    return Estimator(estimator, encode_classes(np.asarray(classes))[1], names)
