"""How much slower each kernel's twin in NumPy is: CPU time of one thread, on blocks as they come.

The table stands in ``docs/small-machines.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import shapely
from affine import Affine
from harness import options, table
from threadpoolctl import threadpool_limits

from geoemb_xr.analysis import clusters, code_kernels, year_kernels
from geoemb_xr.core import coding, kernels
from geoemb_xr.execution import hashes, linear, neighbours
from geoemb_xr.geo import covering
from geoemb_xr.geo import placing_kernels as placing
from geoemb_xr.geo import resampling_kernels as warp
from geoemb_xr.probes import scores as classes
from geoemb_xr.retrieval import scores

BANDS, FACTOR = 64, np.float32(1 / 127.5**2)


def cases(side: int) -> dict[str, tuple[Any, Callable[[], tuple[Any, ...]]]]:
    """Each kernel with what makes its arguments: a square block of 64 bands, or a piece of it."""
    n = side * side
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (BANDS, n), np.int8)
    vectors = rng.normal(size=(n, BANDS)).astype(np.float32)
    query = vectors[0].copy()
    where = rng.integers(0, side * 4096, (2, side, side)).astype(np.int64)
    words = np.ascontiguousarray(codes.T).reshape(side, side, BANDS).view(np.uint64)
    pixels, third = words.view(np.int8), side // 3
    land = rng.integers(0, 8, (side, side), np.uint8)
    factors = np.full((side, side), FACTOR)
    edges = np.ascontiguousarray(np.mgrid[: third + 1, : third + 1]) * (3 * 4096)
    round_ = np.linspace(0, 2 * np.pi, 361)
    ring = side * (0.5 + 0.4 * np.stack([np.cos(round_), np.sin(round_)], axis=1))
    outline = covering.Outlines.of(np.array([shapely.Polygon(ring)]), Affine.identity(), (side, side))
    cells = np.array([[i, j] for i in range(0, side, 64) for j in range(0, side, 64)])
    corners = rng.normal(size=(len(cells), 2, 2, 2)) * 100
    piece = vectors[:512]
    references = rng.normal(size=(1024, BANDS)).astype(np.float32)
    products, index = piece @ references.T, np.zeros((512, 20), np.int32)
    weights = rng.normal(size=(8, BANDS)).astype(np.float32)
    eight = np.arange(1, 9, dtype=np.uint8)
    lying = code_kernels.together([codes] * 4, 0, -128)
    return {
        "transpose to band-last": (
            kernels._transpose_bytes,
            lambda: (codes.reshape(BANDS, 1, n).view(np.uint64), np.empty((1, n, BANDS // 8), np.uint64)),
        ),
        "decode AlphaEarth": (
            coding._decode_square_first,
            lambda: (codes[None], -128, FACTOR, np.empty((1, BANDS, n), np.float32)),
        ),
        "decode Tessera": (
            coding._scale_planes,
            lambda: (codes[None], np.ones((1, n), np.float32), np.empty((1, BANDS, n), np.float32)),
        ),
        "decode and centre (PCA)": (
            coding.decode_square_less,
            lambda: (
                codes[:, :2048], -128, FACTOR, query, np.empty((BANDS, 2048), np.float32), np.empty(2048, np.bool_),
            ),
        ),
        "source coordinates (reproject)": (
            placing.fill_cells,
            lambda: (cells, 64, corners, np.int64(-(2**62)), np.empty((2, side, side), np.int64)),
        ),
        "nearest pixels (reproject)": (
            placing.gather,
            lambda: (words, where, np.zeros(BANDS // 8, np.uint64), np.empty_like(words)),
        ),
        "bilinear (reproject)": (
            warp.bilinear,
            lambda: (pixels, factors, 2, where, True, np.empty((side, side, BANDS), np.float32)),
        ),
        "average of 3 × 3 pixels (coarsen)": (
            warp.average,
            lambda: (
                pixels, factors, 2, edges, False, True, np.empty((third, third, BANDS), np.float32),
                np.empty((third, third, 2), np.float32),
            ),
        ),
        "mode of 3 × 3 classes": (
            warp.mode,
            lambda: (land, edges, 0, np.zeros(256, np.int64), np.empty((third, third), np.uint8)),
        ),
        "shares of pixels in a polygon of 360 corners": (
            covering.cover,
            lambda: (
                outline.edges, outline.first, np.array([[0, 0, side, 0, side]]), False, np.empty((n, 3), np.int64),
                np.empty(n), np.zeros((2, 2), np.int64),
            ),
        ),
        "products of four years of codes (change_point)": (
            code_kernels.products_of_four,
            lambda: (
                codes, codes, codes, codes, 0, 2048, np.empty(7 * 2048, np.int32), np.empty(7 * 2048),
                np.empty(4 * 2048, np.int8),
            ),
        ),
        "similarity of codes": (scores._squares_band_first, lambda: (codes, query, np.empty(n, np.float32))),
        "similarity of floats": (
            scores._products_band_last, lambda: (vectors, query, *np.zeros((2, n), np.float32))
        ),
        "hashes of pixels": (hashes._mix, lambda: (np.arange(n, dtype=np.uint64),)),
        "nearest references, 20 of 1024": (
            neighbours.keep_best, lambda: (products, 0, np.full((512, 20), -np.inf, np.float32), index.copy())
        ),
        "exact distances": (
            neighbours.exact_distance,
            lambda: (
                np.column_stack([piece, piece[:, 0]]), np.column_stack([references, references[:, 0]]), index,
                np.empty((512, 20), np.float32),
            ),
        ),
        "linear predict from codes, 8 classes": (
            linear.label_squares,
            lambda: (codes, weights, np.zeros(8, np.float32), eight, True, np.empty(n, np.uint8)),
        ),
        "best class of scores": (
            classes._best_class, lambda: (weights[:, :1].repeat(n, axis=1), eight, np.empty(n, np.uint8))
        ),
        "step of k-means, 8 clusters": (
            clusters._gather,
            lambda: (
                np.ascontiguousarray(vectors[:, :8]), np.zeros(8, np.float32), vectors, np.empty(n, np.int32),
                np.zeros((8, BANDS)), np.zeros(8, np.int64),
            ),
        ),
        "mean over four years": (
            code_kernels.mean_of_codes,
            lambda: (lying, FACTOR, True, 1, np.empty((BANDS, n), np.float32), 0, n),
        ),
        "median over four years": (
            code_kernels.median_of_codes,
            lambda: (
                lying, year_kernels.exchanges(4), FACTOR, True, 1, np.empty((BANDS, n), np.float32), 0, n
            ),
        ),
    }  # fmt: skip


def seconds(function: Callable[..., Any], make: Callable[[], tuple[Any, ...]], repeat: int) -> float:
    """The least CPU time of some runs."""
    found = []
    for _ in range(repeat):
        arguments = make()
        start = time.process_time()
        function(*arguments)
        found.append(time.process_time() - start)
    return min(found)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns how many times as long each twin takes."""
    given = options(__doc__, argv, side=(256, "pixels along a side of the block"))
    found, rows = {}, []
    for name, (kernel, make) in cases(64 if given.small else given.side).items():
        kernel.compiled(*make())
        with threadpool_limits(1):
            ours, theirs = (seconds(each, make, given.repeat) for each in (kernel.compiled, kernel.twin))
        found[name] = theirs / max(ours, 1e-9)
        rows.append([name, f"{1e3 * ours:.2f}", f"{1e3 * theirs:.2f}", f"{found[name]:.1f} ×"])
    print(table("Kernels and their twins", ["kernel", "compiled [ms]", "NumPy [ms]", "NumPy takes"], rows))
    return found


if __name__ == "__main__":
    main()
