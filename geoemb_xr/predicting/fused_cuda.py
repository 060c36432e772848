"""The same as :mod:`geoemb_xr.predicting.fused` on a GPU: codes to labels in one kernel, written in Triton.

Torch alone decodes, multiplies and compares in passes of their own through the device's memory, 0.8 thousand
million pixels a second on an H100; this reads a code once and writes a label, 9 thousand million. Imported only
where a block is on a GPU: Triton comes with torch there.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from geoemb_xr.core.codecs import SQUARE_FACTOR

_PIXELS = 512  # a program: tried 256 to 1024, and tensor cores in three passes of tf32, all slower on an H100


@dataclass(frozen=True)
class Labels:
    """Labels of codes by a linear probe, on one device.

    Parameters
    ----------
    weights : Tensor (band, class)
        On q·|q|, exact in float32; classes padded to a power of two by what never wins.
    bias : Tensor (class,)
        Likewise.
    values : Tensor of uint8 or int32 (class,)
        What the map holds.
    """

    weights: Any
    bias: Any
    values: Any

    @classmethod
    def of(cls, probe: Any, device: str) -> Labels:
        """For a probe; compiles."""
        weights = torch.as_tensor(probe.parameters["weights"] * SQUARE_FACTOR, device=device)
        count, bands = weights.shape
        size = triton.next_power_of_2(max(count, 2))
        own = torch.zeros(bands, size, device=device)
        own[:, :count] = weights.T
        bias = torch.full((size,), torch.finfo(torch.float32).min, device=device)
        bias[:count] = torch.as_tensor(probe.parameters["bias"], device=device)
        small = np.dtype(probe.legend.dtype) == np.uint8
        values = torch.zeros(size, dtype=torch.uint8 if small else torch.int32, device=device)
        values[:count] = torch.as_tensor(np.asarray(probe.legend.values, np.int64), device=device)
        found = cls(own, bias, values)
        found(torch.zeros(bands, 1, dtype=torch.int8, device=device))
        return found

    def __call__(self, codes: Any, unit: bool = True) -> Any:
        """Labels ``(n,)`` of codes ``(band, n)``, 0 where a band is missing, or with ``unit`` all are zero."""
        codes = codes.contiguous()
        bands, n = codes.shape
        out = torch.empty(n, dtype=self.values.dtype, device=codes.device)
        with torch.cuda.device(codes.device) if codes.is_cuda else nullcontext():
            grid = (triton.cdiv(n, _PIXELS),)
            _labels[grid](
                codes,
                self.weights,
                self.bias,
                self.values,
                out,
                n,
                bands,
                len(self.bias),
                _PIXELS,
                unit,
                num_warps=4,
            )
        return out


@triton.jit  # type: ignore[untyped-decorator]  # triton has no types
def _labels(  # type: ignore[no-untyped-def]  # and takes no other names in annotations
    codes,
    weights,
    bias,
    values,
    out,
    n,
    BANDS: tl.constexpr,
    CLASSES: tl.constexpr,
    PIXELS: tl.constexpr,
    UNIT: tl.constexpr,
):
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < n
    each = tl.arange(0, CLASSES)
    stride = tl.zeros((), tl.int64) + n
    scores = tl.load(bias + each)[:, None] + tl.zeros((CLASSES, PIXELS), tl.float32)
    least = tl.zeros((PIXELS,), tl.int32)
    bits = tl.zeros((PIXELS,), tl.int32)
    for band in range(BANDS):
        code = tl.load(codes + pixel + band * stride, mask=inside, other=0).to(tl.int32)
        least = tl.minimum(least, code)
        if UNIT:
            bits = bits | code
        square = (code * tl.abs(code)).to(tl.float32)
        scores += tl.load(weights + band * CLASSES + each)[:, None] * square[None, :]
    label = tl.load(values + tl.argmax(scores, axis=0))
    missing = least == -128
    if UNIT:
        missing = missing | (bits == 0)
    tl.store(out + pixel, tl.where(missing, 0, label), mask=inside)
