"""Every lazy verb on the same codes, block by block, beside its limit.

The limit of a verb is a copy, on the same threads, of as many bytes as it reads and writes, or a matrix product
of as many multiplications as it needs beyond decoding, whichever takes longer. 64 multiplications per pixel are a
row of that product: the length of a vector and the cosine of two take one each, so that a similarity takes two
and a change three; a bilinear pixel weighs four vectors, and has a length. BLAS is slow at so few rows, so the
time over the copy alone stands beside it. Memory is warm for the copy, and new for the results of a verb: a verb
that writes vectors pays for their first touch as well. Peers stand in the benchmarks of the single verbs.

Graphs are made before, but for search and one of the two rows of zonal_stats: the other shows what reading polygons
and making the graph takes. What polygons cover of pixels has no part in the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import shapely
import xarray as xr
from harness import compare, consume, memcpy_seconds, options, table
from threadpoolctl import threadpool_limits

import geoemb_xr as gx

YEARS = (2018, 2020, 2022, 2024)
BLOCK = 512
CLASSES = 10
POLYGONS = 16  # along a side


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns each verb's time over its limit."""
    given = options(__doc__, argv, side=(1024, "pixels along a side"), threads=(2, "threads"))
    side = 128 if given.small else given.side
    verbs = all_verbs(codes(side))
    calls = {name: (lambda lazy=lazy: run(lazy, given.threads)) for name, (lazy, _, _) in verbs.items()}
    times = compare(calls, repeat=given.repeat)
    copies = {
        name: memcpy_seconds(moved // 2, threads=given.threads) for name, (_, moved, _) in verbs.items()
    }
    limits = {
        name: max(copies[name], product_seconds(side**2, rows, given.threads))
        for name, (_, _, rows) in verbs.items()
    }
    over = {name: times[name] / limits[name] for name in times}
    pixels = side**2 / 1e6
    table(
        f"Lazy verbs on 64 × {side}² codes a year in memory, blocks of {BLOCK}², {given.threads} threads",
        ["verb", "Mpx/s", "limit, Mpx/s", "time × limit", "time × copy"],
        [
            [
                name,
                pixels / times[name],
                pixels / limits[name],
                f"{over[name]:.1f} ×",
                f"{times[name] / copies[name]:.1f} ×",
            ]
            for name in sorted(over, key=lambda name: over[name])
        ],
    )
    return over


def codes(side: int) -> xr.DataArray:
    """Codes ``(time, band, y, x)`` in memory, a block and year in one chunk."""
    years = gx.testing.synthetic("alphaearth", shape=(side, side), years=YEARS, decode=False, missing=True)
    chunked = years.chunk(time=1, y=BLOCK, x=BLOCK)
    # as a store gives them, each in memory of its own: a chunk of an array in memory is a window of it
    return chunked.copy(data=chunked.data.map_blocks(np.ascontiguousarray)).persist()


#: A lazy array, or a call that computes; the bytes it reads and writes; the rows of the product that it needs.
Verb = tuple[Any, int, int]


def all_verbs(years: xr.DataArray) -> dict[str, Verb]:
    """Each public lazy verb by its name."""
    one = years.isel(time=-1)
    vectors = one.emb.decode().persist()
    labels = gx.testing.scene().points(300, radius=600.0).drop(columns="year")
    pca, kmeans = one.emb.fit_pca(3), one.emb.fit_clusters(CLASSES)
    probe = one.emb.fit_probe(labels, target="land_cover", cv=0)
    compressor = one.emb.fit_compressor(dims=16)
    query = vectors.values[:, np.isfinite(vectors.values[0])][:, 0]  # the first pixel with data
    grid = one.emb.geobox
    zones = polygons(grid)
    shifted = grid.zoom_to(resolution=9.7)
    found: dict[str, tuple[Any, Any, int]] = {
        "decode": (one.emb.decode(), one, 0),
        "encode": (gx.encode(vectors), vectors, 0),
        "normalize": (one.emb.normalize(), one, 0),
        "coarsen": (one.emb.coarsen(2), one, 0),
        "reproject, nearest": (one.emb.reproject(shifted), one, 0),
        "reproject, bilinear": (one.emb.reproject(shifted, resampling="bilinear"), one, 5),
        "change": (years.emb.change(YEARS[0], YEARS[-1]), years[:2], 3),
        "change_point": (years.emb.change_point(), years, 2 * len(YEARS) - 1),
        **{
            f"aggregate, {how}": (years.emb.aggregate(how), years, 0)
            for how in ("mean", "median", "min", "std")
        },
        "pca": (one.emb.pca(pca), one, 3),
        "rgb": (one.emb.rgb(pca), one, 3),
        "similarity": (one.emb.similarity(query), one, 2),
        "predict, clusters": (one.emb.predict(kmeans), one, CLASSES),
        "predict, label": (one.emb.predict(probe), one, CLASSES),
        "predict, probabilities": (one.emb.predict(probe, output="proba"), one, CLASSES),
        "compress": (one.emb.compress(compressor), one, 16),
        "zonal_stats, made before": (one.emb.zonal_stats(zones), one, 0),
    }
    verbs = {name: (lazy, _bytes(read) + _bytes(lazy), rows) for name, (lazy, read, rows) in found.items()}
    verbs["search, k = 10"] = (lambda: one.emb.search(query, 10), _bytes(one), 2)
    verbs[f"zonal_stats, {len(zones)} polygons"] = (
        lambda: one.emb.zonal_stats(zones).compute(),
        _bytes(one),
        0,
    )
    return verbs


def polygons(grid: Any) -> Any:
    """Round fields that cover about half of a grid."""
    import geopandas as gpd

    left, bottom, right, top = grid.boundingbox
    step = (right - left) / POLYGONS
    xs = left + step * (np.arange(POLYGONS) + 0.5)
    ys = bottom + step * (np.arange(round((top - bottom) / step)) + 0.5)
    centres = shapely.points(*(each.ravel() for each in np.meshgrid(xs, ys)))
    return gpd.GeoDataFrame(geometry=shapely.buffer(centres, 0.4 * step), crs=str(grid.crs))


def _bytes(array: Any) -> int:
    return int(array.nbytes)


def run(lazy: Any, threads: int) -> None:
    """Compute one verb and keep nothing of it."""
    if callable(lazy):
        lazy()
        return
    consume(*(lazy.data_vars.values() if isinstance(lazy, xr.Dataset) else [lazy]), threads=threads)


def product_seconds(pixels: int, rows: int, threads: int, tile: int = 4096) -> float:
    """How long ``rows`` weights × 64 bands take for as many pixels, from tiles that sit in the cache."""
    if not rows:
        return 0.0
    weights, vectors = np.ones((rows, 64), np.float32), np.ones((64, tile), np.float32)

    def part(_: int) -> None:
        out = np.empty((rows, tile), np.float32)
        for _ in range(max(pixels // tile // threads, 1)):
            np.matmul(weights, vectors, out=out)

    def once() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, range(threads)))

    with threadpool_limits(1):
        return compare({"product": once}, repeat=3)["product"]


if __name__ == "__main__":
    main()
