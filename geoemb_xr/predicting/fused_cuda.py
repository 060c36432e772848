"""The same as :mod:`geoemb_xr.predicting.fused` on a GPU: codes to labels in one kernel, written in Triton.

Torch alone decodes, multiplies and compares in passes of their own through the device's memory; this reads a code
once and writes a label. A thread takes four pixels in one word of 32 bits, so that a weight, once loaded, serves
four of them, and keeps one sum per class and pixel in a register; two weights come with one load. Imported only
where a block is on a GPU: Triton comes with torch there.
"""

# mypy: disable-error-code="assignment, var-annotated"
# In a kernel a tuple grows class by class, or neighbour by neighbour, while it compiles.

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from geoemb_xr.core.codecs import SQUARE_FACTOR

#: Words of four pixels per program, one per thread, and bands whose codes are loaded together. Tried on an H200:
#: 32 to 512 words, one to four per thread, 1 to 16 bands (14.6 to 22.7 thousand million pixels per second).
_WORDS, _WARPS, _UNROLL = 64, 2, 8
#: Classes whose sums fit the registers of a thread; more are scored in groups, which read the codes again.
_MOST = 16


@dataclass(frozen=True)
class Labels:
    """Labels of codes by a linear probe, on one device.

    Parameters
    ----------
    weights : Tensor (group, band, class)
        On q·|q|, exact in float32. Groups have the same even number of classes, the last one padded.
    bias : Tensor (group, class)
        Minus infinity where padded: never the largest.
    values : Tensor of int32 (group, class)
        Contents of the map.
    small : bool
        Whether the map is of bytes.
    """

    weights: Any
    bias: Any
    values: Any
    small: bool

    @classmethod
    def of(cls, probe: Any, device: str) -> Labels:
        """For a probe; compiles."""
        own = torch.as_tensor(probe.parameters["weights"] * SQUARE_FACTOR)
        count, bands = own.shape
        groups = -(-count // _MOST)
        size = -(-count // groups // 2) * 2
        weights = torch.zeros(groups * size, bands)
        weights[:count] = own
        bias = torch.full((groups, size), float("-inf"))
        bias.view(-1)[:count] = torch.as_tensor(probe.parameters["bias"])
        values = torch.zeros(groups, size, dtype=torch.int32)
        values.view(-1)[:count] = torch.as_tensor(np.asarray(probe.legend.values, np.int32))
        grouped = weights.view(groups, size, bands).transpose(1, 2).contiguous()
        small = np.dtype(probe.legend.dtype) == np.uint8
        found = cls(grouped.to(device), bias.to(device), values.to(device), small)
        found(torch.zeros(bands, 4, dtype=torch.int8, device=device))
        return found

    def __call__(self, codes: Any, unit: bool = True) -> Any:
        """Labels ``(n,)`` of codes ``(band, n)``, 0 where a band is missing, or with ``unit`` all are zero."""
        n = codes.shape[1]
        codes = _in_words(codes)
        groups, bands, classes = self.weights.shape
        words = -(-n // 4)
        out = torch.empty(words * 4, dtype=torch.uint8 if self.small else torch.int32, device=codes.device)
        with torch.cuda.device(codes.device) if codes.is_cuda else nullcontext():
            _labels[(triton.cdiv(words, _WORDS),)](
                codes,
                self.weights,
                self.bias,
                self.values,
                out,
                words,
                codes.stride(0),
                BANDS=bands,
                CLASSES=classes,
                GROUPS=groups,
                UNIT=unit,
                SMALL=self.small,
                UNROLL=_UNROLL if bands % _UNROLL == 0 else 1,
                WORDS=_WORDS,
                num_warps=_WARPS,
            )
        return out[:n]


def _in_words(codes: Any) -> Any:
    """The same codes ``(band, n)`` with every band aligned to words, copied only where they are not."""
    bands, n = codes.shape
    if codes.stride(1) == 1 and codes.stride(0) % 4 == 0 and codes.data_ptr() % 4 == 0:
        return codes
    padded = torch.empty(bands, -(-n // 4) * 4, dtype=codes.dtype, device=codes.device)
    padded[:, :n] = codes
    return padded


@triton.jit  # type: ignore[untyped-decorator]  # triton has no types
def _labels(  # type: ignore[no-untyped-def]  # and takes no other names in annotations
    codes,
    weights,
    bias,
    values,
    out,
    words,
    stride,
    BANDS: tl.constexpr,
    CLASSES: tl.constexpr,
    GROUPS: tl.constexpr,
    UNIT: tl.constexpr,
    SMALL: tl.constexpr,
    UNROLL: tl.constexpr,
    WORDS: tl.constexpr,
):
    word = tl.program_id(0).to(tl.int64) * WORDS + tl.arange(0, WORDS)
    inside = word < words
    four = codes.to(tl.pointer_type(tl.int32)) + word
    step = (stride + tl.zeros((), tl.int64)) // 4
    # The sign bit of a byte of `missing` is set where a code was -128, of `other` where one was not 0.
    missing = tl.zeros((WORDS,), tl.int32)
    other = tl.zeros((WORDS,), tl.int32)
    best = (tl.full((WORDS,), float("-inf"), tl.float32),) * 4
    label = (tl.zeros((WORDS,), tl.int32),) * 4
    for group in tl.static_range(GROUPS):
        # Sums by class and pixel, all four pixels of a class together.
        sums = ()
        for k in tl.static_range(CLASSES):
            sums += (tl.zeros((WORDS,), tl.float32) + tl.load(bias + group * CLASSES + k),) * 4
        for start in range(0, BANDS, UNROLL):
            loaded = ()
            for b in tl.static_range(UNROLL):
                loaded += (tl.load(four + (start + b) * step, mask=inside, other=0),)
            for b in tl.static_range(UNROLL):
                given = loaded[b]
                rest = (given & 0x7F7F7F7F) + 0x7F7F7F7F
                missing = missing | (given & ~rest)
                other = other | rest | given
                squares = ()
                for j in tl.static_range(4):
                    code = ((given << (24 - 8 * j)) >> 24).to(tl.float32)
                    squares += (code * tl.abs(code),)
                row = weights + (group * BANDS + start + b) * CLASSES
                after = ()
                for k in tl.static_range(0, CLASSES, 2):
                    two = tl.load((row + k).to(tl.pointer_type(tl.int64)))
                    pair = (two.to(tl.int32), (two >> 32).to(tl.int32))
                    for c in tl.static_range(2):
                        weight = pair[c].to(tl.float32, bitcast=True)
                        for j in tl.static_range(4):
                            after += (tl.fma(squares[j], weight, sums[4 * (k + c) + j]),)
                sums = after
        for k in tl.static_range(CLASSES):
            value = tl.load(values + group * CLASSES + k)
            largest = ()
            chosen = ()
            for j in tl.static_range(4):
                wins = sums[4 * k + j] > best[j]
                largest += (tl.where(wins, sums[4 * k + j], best[j]),)
                chosen += (tl.where(wins, value, label[j]),)
            best = largest
            label = chosen
    if UNIT:
        missing = missing | ~other
    packed = tl.zeros((WORDS,), tl.int32)
    for j in tl.static_range(4):
        kept = tl.where((missing << (24 - 8 * j)) < 0, 0, label[j])
        if SMALL:
            packed = packed | (kept << (8 * j))
        else:
            tl.store(out + word * 4 + j, kept, mask=inside)
    if SMALL:
        tl.store(out.to(tl.pointer_type(tl.int32)) + word, packed, mask=inside)
