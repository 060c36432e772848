"""Nearest references on a GPU, written in Triton: no table of scores is written to the device's memory.

The k nearest lie in the k groups of references whose best is best. The first kernel multiplies on tensor cores and
keeps the k best groups of each vector in registers. Tensor cores take numbers of 11 bits (tf32), so each number is
split into two, and of the four products all but the smallest are summed: the error is 2⁻²² of the numbers. The
second kernel scores the references of these groups again, in plain float32, and takes the k best. Imported only
where vectors are on a GPU.
"""

# mypy: disable-error-code="assignment, var-annotated"
# In a kernel a tuple grows class by class, or neighbour by neighbour, while it compiles.

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

#: References per group, and vectors per program of the first kernel. Large groups make the first kernel faster and
#: the second slower: of 16 to 128, these were the fastest together on an H200.
_GROUP, _VECTORS = 32, 128


@dataclass(frozen=True)
class Nearest:
    """The references of a nearest-neighbour search, on one device.

    Parameters
    ----------
    references : Tensor (padded m, padded band)
        Padded with zeros to whole groups, and to a power of two of bands.
    parts : tuple of Tensor (padded m, padded band)
        The first 11 bits of the references, and the rest.
    offset : Tensor (padded m,)
        −|r|² / 2, minus infinity where padded.
    bands : int
        Bands of the vectors.
    """

    references: Any
    parts: tuple[Any, Any]
    offset: Any
    bands: int

    @classmethod
    def of(cls, vectors: Any, offset: Any) -> Nearest:
        """Take references ``(m, band)`` and their offsets ``(m,)``; compiles."""
        count, bands = vectors.shape
        padded = -(-count // _GROUP) * _GROUP
        references = vectors.new_zeros(padded, max(triton.next_power_of_2(bands), 16))
        references[:count, :bands] = vectors
        own = vectors.new_full((padded,), float("-inf"))
        own[:count] = offset
        high = (references.view(torch.int32) & -0x2000).view(torch.float32)
        found = cls(references, (high, references - high), own, bands)
        found(vectors.new_zeros(bands, 1), 1)
        return found

    def __call__(self, vectors: Any, k: int) -> tuple[Any, Any]:
        """Scores v·r − |r|²/2 ``(n, k)``, the best first, and numbers of the k nearest of vectors ``(band, n)``."""
        vectors = vectors.contiguous()
        n = vectors.shape[1]
        device = vectors.device
        groups = torch.empty(n, k, dtype=torch.int32, device=device)
        scores = torch.empty(n, k, device=device)
        numbers = torch.empty(n, k, dtype=torch.int64, device=device)
        padded, width = self.references.shape
        with torch.cuda.device(device) if vectors.is_cuda else nullcontext():
            _best_groups[(triton.cdiv(n, _VECTORS),)](
                vectors,
                *self.parts,
                self.offset,
                groups,
                n,
                self.bands,
                padded,
                WIDTH=width,
                GROUP=_GROUP,
                K=k,
                VECTORS=_VECTORS,
                num_warps=8,
            )
            _best_of_groups[(n,)](
                vectors,
                self.references,
                self.offset,
                groups,
                scores,
                numbers,
                n,
                self.bands,
                WIDTH=width,
                GROUP=_GROUP,
                K=k,
                ROWS=triton.next_power_of_2(k),
                num_warps=1,
            )
        return scores, numbers


@triton.jit  # type: ignore[untyped-decorator]  # triton has no types
def _best_groups(  # type: ignore[no-untyped-def]  # and takes no other names in annotations
    vectors,
    high,
    low,
    offset,
    groups,
    n,
    bands,
    count,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
    K: tl.constexpr,
    VECTORS: tl.constexpr,
):
    vector = tl.program_id(0).to(tl.int64) * VECTORS + tl.arange(0, VECTORS)
    band = tl.arange(0, WIDTH)
    stride = tl.zeros((), tl.int64) + n
    inside = vector < n
    x = tl.load(
        vectors + band[None, :] * stride + vector[:, None],
        mask=inside[:, None] & (band < bands)[None, :],
        other=0.0,
    )
    x_high = (x.to(tl.int32, bitcast=True) & -0x2000).to(tl.float32, bitcast=True)
    x_low = x - x_high
    each = tl.arange(0, GROUP)
    best = (tl.full((VECTORS,), float("-inf"), tl.float32),) * K
    chosen = (tl.zeros((VECTORS,), tl.int32),) * K
    for start in range(0, count, GROUP):
        at = (start + each)[None, :] * WIDTH + band[:, None]
        r_high = tl.load(high + at)
        scores = tl.dot(x_low, r_high, input_precision="tf32")
        scores = tl.dot(x_high, tl.load(low + at), scores, input_precision="tf32")
        scores = tl.dot(x_high, r_high, scores, input_precision="tf32")
        scores += tl.load(offset + start + each)[None, :]
        score = tl.max(scores, axis=1)
        group = tl.zeros((VECTORS,), tl.int32) + start // GROUP
        largest = ()
        numbers = ()
        for j in tl.static_range(K):  # into the sorted list; what it displaces moves on
            wins = score > best[j]
            largest += (tl.where(wins, score, best[j]),)
            numbers += (tl.where(wins, group, chosen[j]),)
            score, group = tl.where(wins, best[j], score), tl.where(wins, chosen[j], group)
        best = largest
        chosen = numbers
    for j in tl.static_range(K):
        tl.store(groups + vector * K + j, chosen[j], mask=inside)


@triton.jit  # type: ignore[untyped-decorator]  # triton has no types
def _best_of_groups(  # type: ignore[no-untyped-def]  # and takes no other names in annotations
    vectors,
    references,
    offset,
    groups,
    scores,
    numbers,
    n,
    bands,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
):
    vector = tl.program_id(0).to(tl.int64)
    band = tl.arange(0, WIDTH)
    row = tl.arange(0, ROWS)
    each = tl.arange(0, GROUP)
    stride = tl.zeros((), tl.int64) + n
    x = tl.load(vectors + band * stride + vector, mask=band < bands, other=0.0)
    found = tl.full((ROWS, GROUP), float("-inf"), tl.float32)
    number = tl.zeros((ROWS, GROUP), tl.int32)
    for j in tl.static_range(K):
        own = tl.load(groups + vector * K + j) * GROUP + each
        r = tl.load(references + own[:, None] * WIDTH + band[None, :])
        score = tl.sum(r * x[None, :], axis=1) + tl.load(offset + own)
        found = tl.where((row == j)[:, None], score[None, :], found)
        number = tl.where((row == j)[:, None], own[None, :], number)
    left = tl.reshape(found, (ROWS * GROUP,))
    named = tl.reshape(number, (ROWS * GROUP,))
    place = tl.arange(0, ROWS * GROUP)
    for j in tl.static_range(K):
        at = tl.argmax(left, axis=0)
        tl.store(scores + vector * K + j, tl.max(left, axis=0))
        tl.store(numbers + vector * K + j, tl.sum(tl.where(place == at, named, 0), axis=0).to(tl.int64))
        left = tl.where(place == at, float("-inf"), left)
