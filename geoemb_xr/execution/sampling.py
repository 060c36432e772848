"""Samples of the vectors of an array, drawn by a hash of the global pixel index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from geoemb_xr.execution.blocks import Block, count_pixels, merged, per_block
from geoemb_xr.execution.hashes import threshold


@dataclass(frozen=True)
class Sample:
    """Vectors of some pixels, in the order of their hashes.

    Parameters
    ----------
    vectors : ndarray (n, band)
        float32, none missing.
    hashes : ndarray of uint64 (n,)
        Ascending.
    weights : ndarray (n,)
        1 where none were given.
    """

    vectors: np.ndarray
    hashes: np.ndarray
    weights: np.ndarray

    @staticmethod
    def merge(parts: Sequence[Sample]) -> Sample:
        """Several as one."""
        hashes = np.concatenate([p.hashes for p in parts])
        order = np.argsort(hashes, kind="stable")
        return Sample(
            np.concatenate([p.vectors for p in parts])[order],
            hashes[order],
            np.concatenate([p.weights for p in parts])[order],
        )


def draw(
    block: Block, seed: int, limit: np.uint64, has_mask: bool = False, has_weights: bool = False
) -> Sample:
    """The pixels of a block whose hash is at most a limit, missing and masked ones left out."""
    fields = [each.reshape(-1) for each in block.fields]
    hashes = block.hashes(seed)
    chosen = hashes <= limit
    if has_mask:
        chosen &= fields[0] != 0
    pixels = np.flatnonzero(chosen)
    vectors = block.at(pixels)
    weights = fields[-1][pixels].astype(np.float64) if has_weights else np.ones(pixels.size)
    usable = np.isfinite(vectors).all(axis=1) & (weights > 0)
    return Sample(np.ascontiguousarray(vectors[usable], np.float32), hashes[pixels][usable], weights[usable])


def sample_vectors(
    many: Sequence[xr.DataArray],
    n: int,
    *,
    seed: int,
    masks: Sequence[xr.DataArray | None],
    label: str,
) -> Sample:
    """About ``n`` vectors of several arrays, chosen by pixel hash: the same whatever the chunks. Computes.

    Of masked arrays it is ``n`` of what the masks leave.
    """
    limit = threshold(n / max(count_pixels(many, masks), 1))
    parts = []
    for array, mask in zip(many, masks, strict=True):
        parts += per_block(draw, array, seed, limit, mask is not None, fields=[mask])
    sample: Sample = merged(parts, Sample.merge, label=label)
    return sample
