"""Chips as they are, without a grid: a vector each, with whatever is known of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.model import BAND, register
from geoemb_xr.embedding import encoding
from geoemb_xr.embedding.cards import Encoder
from geoemb_xr.embedding.encoding import Job

#: Chips of a block, where a stack is in memory.
_CHIPS = 256
_DIMS = ("location", BAND, "y", "x")


def as_stack(images: xr.DataArray, encoder: Encoder) -> xr.DataArray:
    """A stack ``(location, band, y, x)`` of chips of the encoder's size.

    Raises
    ------
    EmbeddingError
        If it has other dimensions, or its chips another size, or the encoder takes no chips.
    """
    if set(images.dims) != set(_DIMS):
        raise EmbeddingError(
            f"a stack of chips has the dims {_DIMS}; got {tuple(map(str, images.dims))}: of several dates select "
            "one"
        )
    if encoder.kind != "image" or "chips" not in encoder.outputs:
        raise EmbeddingError(f"{encoder.name} does not look at single chips: give it a raster with its dates")
    size = images.sizes["y"], images.sizes["x"]
    if size != (encoder.chip, encoder.chip):
        raise EmbeddingError(
            f"{encoder.name} looks at chips of {encoder.chip} × {encoder.chip} pixels, and these have {size[0]} × "
            f"{size[1]}: bring them to its size, or say dataclasses.replace(encoder, chip={size[0]}, patch=…) if "
            "its network takes any"
        )
    return images.transpose(*_DIMS)


def embed_stack(images: xr.DataArray, job: Job, version: str) -> Any:
    """Vectors ``(location, band)`` of a stack; its coordinates along ``location`` ride along. Lazy."""
    import dask
    import dask.array as da

    product = register(job.encoder.product)
    chunks = {BAND: -1, "y": -1, "x": -1} | ({"location": _CHIPS} if images.chunks is None else {})
    source = images.chunk(chunks).data
    data = da.map_blocks(
        encoding.encode_stack,
        source,
        dask.delayed(job, pure=True),
        drop_axis=(2, 3),
        chunks=(source.chunks[0], (job.length,)),
        dtype=np.float32,
        meta=np.empty((0, 0), np.float32),
    )
    kept = {name: c for name, c in images.coords.items() if set(c.dims) <= {"location"}}
    attrs = {
        "product": product.name,
        "version": version,
        "source": str(images.attrs.get("source") or images.encoding.get("source") or "chips in memory"),
    }
    out = xr.DataArray(
        data[:, : job.encoder.dims],
        dims=("location", BAND),
        coords={**kept, BAND: list(product.bands)},
        attrs=attrs,
        name="embedding",
    )
    if not job.quality:
        return out
    derived = {"long_name": "share of pixels that were seen", "derived_from": f"{product.name} {version}"}
    valid = xr.DataArray(data[:, -1], dims="location", coords=kept, attrs=derived)
    return xr.Dataset({"embedding": out, "valid": valid})
