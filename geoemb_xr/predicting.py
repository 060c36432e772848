"""Maps from fitted models: block by block, codes decoded where they are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr import kernels
from geoemb_xr.arrays import codec_of, map_bands
from geoemb_xr.fitted import Fitted, Output, check_model
from geoemb_xr.model import Codec, check_choice, check_embedding, derived_attrs, is_encoded

#: Pixels that are decoded and multiplied at a time: what of them is float32 stays in the cache.
TILE = 8192


def predict(
    array: xr.DataArray,
    model: Any,
    *,
    output: str | Sequence[str] = "label",
    device: str = "auto",
    batch_size: int | str = "auto",
) -> Any:
    """Apply a fitted model to every pixel. Lazy.

    Parameters
    ----------
    array : DataArray (…, band, …)
        An embedding, encoded or decoded; codes are decoded where they are used.
    model : Probe, KMeans or another fitted model
        Fitted on the same product, version and bands.
    output : str or list of str
        What it gives: see ``model.outputs()``. Several make a Dataset, from one pass.
    device : str
        ``"auto"``, ``"cpu"`` or a device of torch.
    batch_size : int or "auto"
        Pixels at a time on a GPU.

    Returns
    -------
    DataArray (…) or Dataset
        A class map is uint8 or uint16 with 0 where there is no data, and carries its legend.

    Raises
    ------
    ComparabilityError
        If the model was fitted on another product or version.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(128, 128)).emb.year(2018)
    >>> probe = da.emb.fit_probe(gx.testing.scene().points(120, radius=600), target="land_cover")
    >>> da.emb.predict(probe).dtype
    dtype('uint8')
    """
    check_embedding(array, "predict")
    check_model(model, array, "predict")
    import dask

    outputs = model.outputs()
    if output == "label" and "label" not in outputs:  # regression: the value
        output = next(iter(outputs))
    names = [output] if isinstance(output, str) else list(output)
    for name in names:
        check_choice("output", name, outputs)
    codec = codec_of(array) if is_encoded(array) else None
    param = model if array.chunks is None else dask.delayed(model, pure=True)
    name = names[0]
    spec = outputs[name]
    return map_bands(
        _predict_block,
        array,
        codec,
        param,
        name,
        dtype=spec.dtype,
        out=(spec.dim, spec.labels) if spec.dim is not None else None,
        decode=False,
        name=name,
        attrs=derived_attrs(array, **(spec.attrs or {})),
    )


def _predict_block(
    block: np.ndarray, axis: int, scale: np.ndarray | None, codec: Codec | None, model: Fitted, name: str
) -> np.ndarray:
    spec: Output = model.outputs()[name]
    if codec is not None:
        block = codec.decode(block, scale, axis)
    vectors = kernels.band_last(block, axis)
    flat = vectors.reshape(-1, vectors.shape[-1])
    tail = (len(spec.labels),) if spec.dim is not None else ()
    out = np.full((len(flat), *tail), spec.missing, spec.dtype)
    for start in range(0, len(flat), TILE):
        tile = flat[start : start + TILE]
        valid = ~np.isnan(tile).any(axis=1)
        if valid.any():
            out[start : start + TILE][valid] = model.apply(tile[valid], name)
    out = out.reshape(*vectors.shape[:-1], *tail)
    return kernels.band_first(out, axis) if tail else out
