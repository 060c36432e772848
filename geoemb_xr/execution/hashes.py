"""Hashes of global pixel indices: the same draw for every chunking."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoemb_xr.core import kernels


@kernels.jit
def _mix(values: Any) -> None:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014), in place."""
    for i in range(values.size):
        z = values[i]
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        values[i] = z ^ (z >> np.uint64(31))


@_mix.in_numpy_bitwise
def _mix_numpy(values: Any) -> None:
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)


def mixed(values: np.ndarray) -> np.ndarray:
    """Random numbers, uint64, that are a function of numbers ``(n,)`` alone: the next of splitmix64 from each.

    Examples
    --------
    >>> mixed(np.array([0], np.uint64)).item() == 0xE220A8397B1DCDAF
    True
    """
    out = values + np.uint64(0x9E3779B97F4A7C15)
    _mix(out)
    return out


def threshold(share: float) -> np.uint64:
    """Hashes up to this are the given share of all."""
    return np.uint64(min(int(share * 2.0**64), 2**64 - 1))
