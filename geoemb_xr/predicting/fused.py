"""Maps of linear models straight from codes: no vectors are made, and the sums of a piece serve all outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geoemb_xr.core import kernels
from geoemb_xr.core.codecs import SQUARE_FACTOR
from geoemb_xr.core.model import Codec
from geoemb_xr.execution import linear
from geoemb_xr.execution.blocks import Block


def can_fuse(codec: Codec | None, model: Any, names: Sequence[str], bands_last: bool = False) -> bool:
    """Whether outputs are made of sums over signed-square codes."""
    axes = getattr(model, "as_linear", None)  # estimators and networks have none
    return (
        linear.can_skip_decoding(codec, bands_last)
        and axes is not None
        and all(axes(name) is not None for name in names)
    )


def fill(block: Block, model: Any, unit: bool, out: Mapping[str, np.ndarray]) -> None:
    """Fill outputs ``(outer, inner)`` or ``(outer, k, inner)`` of codes ``(outer, band, inner)``.

    With ``unit``, vectors have unit length, and one of zeros is missing, too.
    """
    bands = kernels.as_bands(block.data, block.axis)
    if tuple(out) == ("label",):
        fill_labels(bands, model, unit, out["label"])
        return
    outputs, inner = model.outputs(), bands.shape[2]
    weights, bias = model.as_linear(next(iter(out)))
    for where, sums in linear.sums_by_piece(block, weights, bias):
        i, start = divmod(where.start, inner)
        stop = start + sums.shape[1]
        missing = np.isnan(sums[0])
        if unit:
            zero = np.flatnonzero(sums[0] == bias[0])  # few pixels, of which all bands are looked at
            missing[zero] |= ~bands[i, :, start + zero].any(axis=1)
        sums[:, missing] = 0
        for name, rows in out.items():
            piece = rows[i, ..., start:stop]
            piece[...] = model.derive(sums, name).T
            piece[..., missing] = outputs[name].missing


def fill_labels(codes: np.ndarray, model: Any, unit: bool, out: np.ndarray) -> None:
    """Labels ``(outer, inner)`` of codes ``(outer, band, inner)``, 0 where a band is missing; ``unit`` as above."""
    weights, bias = model.as_linear("label")
    weights = np.ascontiguousarray(weights * SQUARE_FACTOR)  # on q·|q|, exact in float32
    values = np.asarray(model.legend.values, out.dtype)
    for rows, labels in zip(codes, out, strict=True):
        linear.label_squares(rows, weights, bias, values, unit, labels)
