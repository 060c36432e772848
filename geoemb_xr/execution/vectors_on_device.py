"""Scores and sums of the vectors of a block on a device of torch; codes go over, few numbers come back."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from geoemb_xr.core.errors import require
from geoemb_xr.core.model import Codec
from geoemb_xr.execution import lanes
from geoemb_xr.execution.blocks import Block
from geoemb_xr.execution.devices import kept

#: Vectors whose products are summed in float32, before they are added up in float64.
_SUMMED = 4096


def scores(
    block: Block,
    device: str,
    queries: np.ndarray,
    *,
    negatives: np.ndarray | None = None,
    shift: np.ndarray | None = None,
    how: str = "mean",
    metric: str = "cosine",
) -> np.ndarray:
    """Cosines or distances of a block's vectors.

    Parameters
    ----------
    block : Block
        Codes or vectors, in host memory.
    device : str
        A device of torch.
    queries : ndarray of float32 (n, band)
        Directions, or vectors where ``metric`` is "euclidean".
    negatives : ndarray of float32 (m, band), optional
        Directions whose largest cosine is subtracted.
    shift : ndarray of float32 (band,), optional
        Subtracted from the vectors first.
    how : {"mean", "max", "each"}
        One score from all queries, or one for each. The mean of cosines takes one direction.
    metric : {"cosine", "euclidean"}
        What is compared.

    Returns
    -------
    ndarray of float32 (query, pixel)
        NaN where there is no data.
    """
    from dask.base import tokenize

    torch = require("torch", "torch")
    given = {"queries": queries, "negatives": negatives, "shift": shift}
    given = {name: each for name, each in given.items() if each is not None and len(each)}
    there = kept(
        tokenize(given),
        device,
        lambda: {name: torch.tensor(np.asarray(each), device=device) for name, each in given.items()},
    )
    count = len(queries) if how == "each" else 1
    out = np.empty(block.pixels, [("score", np.float32, (count,))])
    work = _cosines if metric == "cosine" else _distances
    lanes.fill_in_batches(block, partial(work, codec=block.codec, how=how, **there), out, device)
    return np.ascontiguousarray(out["score"].T)


def _cosines(
    codes: Any,
    scale: Any,
    *,
    codec: Codec | None,
    how: str,
    queries: Any,
    negatives: Any = None,
    shift: Any = None,
) -> dict[str, Any]:
    vectors = _decoded(codes, scale, codec, shift)
    length = vectors.square().sum(dim=0).sqrt()
    products = queries @ vectors
    if how == "max":
        products = products.amax(dim=0, keepdim=True)
    if negatives is not None:
        products -= (negatives @ vectors).amax(dim=0)
    return {"score": (products / length.masked_fill(length == 0, float("nan"))).T}


def _distances(codes: Any, scale: Any, *, codec: Codec | None, how: str, queries: Any) -> dict[str, Any]:
    """Distances as differences, a query at a time: ‖v‖² − 2 v·q + ‖q‖² would lose the small ones."""
    torch = require("torch", "torch")
    vectors = _decoded(codes, scale, codec, None)
    found = torch.stack(
        [(vectors - query[:, None]).square().sum(dim=0, dtype=torch.float64).sqrt() for query in queries]
    )
    if how == "mean":
        found = found.mean(dim=0, keepdim=True)
    elif how == "max":
        found = found.amin(dim=0, keepdim=True)
    return {"score": found.float().T}


def sums(
    block: Block, device: str, shift: np.ndarray, weights: np.ndarray | None
) -> tuple[float, np.ndarray, np.ndarray]:
    """Sums of a block's vectors less ``shift``: of their weights, of the vectors, and of their outer products.

    Parameters
    ----------
    block : Block
        Codes or vectors, in host memory.
    device : str
        A device of torch.
    shift : ndarray of float32 (band,)
        Near the mean, so that products in float32 lose nothing.
    weights : ndarray (pixel,), optional
        Weights of the pixels; 1 by default.

    Returns
    -------
    n : float
        Sum of the weights of vectors that have data.
    total : ndarray of float64 (band,)
        Weighted sum.
    gram : ndarray of float64 (band, band)
        Weighted sum of outer products.
    """
    work = partial(_sums, codec=block.codec, shift=shift, weights=weights)
    parts = lanes.each(block, work, device)
    return (
        sum(part[0] for part in parts),
        np.sum([part[1] for part in parts], axis=0),
        np.sum([part[2] for part in parts], axis=0),
    )


def _sums(
    codes: Any,
    scale: Any,
    where: slice,
    *,
    codec: Codec | None,
    shift: np.ndarray,
    weights: np.ndarray | None,
) -> tuple[float, np.ndarray, np.ndarray]:
    torch = require("torch", "torch")
    device = codes.device
    vectors = _decoded(codes, scale, codec, torch.as_tensor(shift, device=device))
    own = vectors.isfinite().all(dim=0).double()
    if weights is not None:
        own = own * torch.as_tensor(weights[where], device=device)
    root = own.sqrt().float()
    # √w x rather than w x: the products of a weighted vector with itself are a Gram matrix as well
    vectors = vectors.masked_fill(root == 0, 0) * root
    some = torch.nn.functional.pad(vectors, (0, -vectors.shape[1] % _SUMMED))
    some = some.unflatten(1, (-1, _SUMMED)).transpose(0, 1)  # (piece, band, n)
    gram = (some @ some.mT).sum(dim=0, dtype=torch.float64)
    total = (vectors * root).sum(dim=1, dtype=torch.float64)
    return float(own.sum()), total.cpu().numpy(), gram.cpu().numpy()


def _decoded(codes: Any, scale: Any, codec: Codec | None, shift: Any) -> Any:
    """Vectors ``(band, n)`` less a shift, NaN where there is no data."""
    vectors = (codes if codec is None else codec.decode_torch(codes, scale, 0)).float()
    return vectors if shift is None else vectors - shift[:, None]
