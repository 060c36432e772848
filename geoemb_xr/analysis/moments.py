"""Count, mean and covariance of vectors as sums that can be merged, block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoemb_xr.execution import blocks, devices, vectors_on_device


@dataclass(frozen=True)
class Moments:
    """Count, mean and centred second moments of vectors, which give a covariance and can be merged.

    Parameters
    ----------
    n : float
        Sum of weights.
    mean : ndarray (band,)
        float64.
    m2 : ndarray (band, band)
        Sum of (x − mean)(x − mean)ᵀ, float64.
    """

    n: float
    mean: np.ndarray
    m2: np.ndarray

    def __add__(self, other: Moments) -> Moments:
        n = self.n + other.n
        if not self.n or not other.n:
            return self if self.n else other
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n / n)
        return Moments(n, mean, self.m2 + other.m2 + np.outer(delta, delta) * (self.n * other.n / n))


def moments(block: blocks.Block, weights: np.ndarray | None, device: str = "cpu") -> Moments:
    """Moments of a block's vectors, missing ones left out.

    Vectors are taken less a mean of some of them, so that products in float32 lose nothing.
    """
    shift = block.some_mean()
    place = devices.place_for(device, able=True)
    sums = (
        _sums(block, shift, weights)
        if place == "cpu"
        else vectors_on_device.sums(block, place, shift, weights)
    )
    n, total, gram = sums
    offset = total / n if n else total
    return Moments(n, shift + offset, gram - n * np.outer(offset, offset))


def _sums(
    block: blocks.Block, shift: np.ndarray, weights: np.ndarray | None
) -> tuple[float, np.ndarray, np.ndarray]:
    """Sums of weights, of vectors less ``shift``, and of their outer products."""
    n, total, gram = 0.0, np.zeros(len(shift)), np.zeros((len(shift), len(shift)))
    for where, centred, valid in block.centred(shift):
        root = valid.astype(np.float32)
        if weights is None:
            n += np.count_nonzero(valid)
        else:  # w x xᵀ is a product of √w x with itself, which BLAS takes half the work for
            own = weights[where] * valid
            n += float(own.sum(dtype=np.float64))
            root = np.sqrt(own, dtype=np.float32)
            centred *= root
        # a product is five times faster than a sum in float64; of a centred piece it is as good
        total += centred @ root
        gram += centred @ centred.T
    return n, total, gram
