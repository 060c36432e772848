"""Time per pixel and peak memory of each capability from small to large arrays, which are made block by block.

Every block holds the same codes and takes no time to make, so what is measured is the work itself. Time per pixel
and memory should not grow with the array; ``×`` compares the largest array with the smallest one. The time is the
CPU's, of all threads together, which other work on the machine does not lengthen. An array that would take longer
than ``--longest`` seconds, by the size before it, is left out, and the table says so.

``--picture growth.png`` draws it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from harness import consume, peak_memory, table

import geoemb_xr as gx

BLOCK, SMALLEST = 512, 1024
YEARS = (2020, 2024)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns the time per pixel of the largest array over that of the smallest one."""
    given = options_with_picture(argv)
    sizes = [
        SMALLEST << step for step in range(0, given.side.bit_length(), 2) if SMALLEST << step <= given.side
    ]
    sizes = [BLOCK, 2 * BLOCK] if given.small else sizes
    models = fit_models()
    found: dict[str, list[tuple[float, float]]] = {}
    for side in sizes:
        for name, call in capabilities(codes(side), *models).items():
            rows = found.setdefault(name, [])
            if rows and rows[-1][0] * side**2 / 1e9 > given.longest:
                continue
            if side == sizes[0]:
                call(given.threads)  # compile
            with peak_memory() as peak:
                start = time.process_time()
                call(given.threads)
                seconds = time.process_time() - start
            rows.append((seconds / side**2 * 1e9, peak.extra / 1e6))
            print(f"{name}, {side}²: {seconds:.1f} s of CPU time", flush=True)
    growth = {name: rows[-1][0] / rows[0][0] for name, rows in found.items()}
    table(
        f"CPU time per pixel, and peak MB, blocks of {BLOCK}², {given.threads} threads",
        ["", *[f"{side}²" for side in sizes], "largest over smallest"],
        [
            [
                name,
                *[f"{ns:.0f} ns, {mb:.0f} MB" for ns, mb in rows],
                *["not run"] * (len(sizes) - len(rows)),
                f"{growth[name]:.2f} ×",
            ]
            for name, rows in found.items()
        ],
    )
    if given.picture:
        draw(sizes, found, given.picture)
    return growth


def options_with_picture(argv: Sequence[str] | None) -> Any:
    """What is asked for."""
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the smallest size, to see that it runs")
    parser.add_argument("--repeat", type=int, default=1, help="each size is run once")
    parser.add_argument("--side", type=int, default=65536, help="pixels along a side of the largest array")
    parser.add_argument("--longest", type=float, default=600, help="seconds of CPU time of one measurement")
    parser.add_argument("--threads", type=int, default=2, help="threads")
    parser.add_argument("--picture", help="file to draw it to")
    return parser.parse_args(argv)


def codes(side: int) -> xr.DataArray:
    """Two years of AlphaEarth codes ``(time, band, y, x)`` of which each block is the same."""
    import dask.array as da

    small = gx.testing.synthetic("alphaearth", shape=(BLOCK, BLOCK), years=YEARS, decode=False)
    blocks = side // BLOCK
    data = da.map_blocks(
        _same,
        small.values,
        chunks=((1,) * len(YEARS), (small.sizes["band"],), (BLOCK,) * blocks, (BLOCK,) * blocks),
        dtype=np.int8,
    )
    grid = gx.testing.geobox((side, side))
    from geoemb_xr.core import geometry

    coords = {name: small.coords[name] for name in ("time", "band")} | geometry.grid_coords(grid)
    return xr.DataArray(
        data, dims=("time", "band", "y", "x"), coords=coords, attrs=small.attrs, name=small.name
    )


def _same(values: np.ndarray, block_id: tuple[int, ...] = ()) -> np.ndarray:
    return values[block_id[0], None]


def fit_models() -> tuple[Any, np.ndarray]:
    """A probe, and a vector to look for."""
    one = gx.testing.synthetic("alphaearth", shape=(BLOCK, BLOCK), years=YEARS[-1:], decode=False)
    labels = gx.testing.scene().points(300, radius=600.0).drop(columns="year")
    return one.emb.fit_probe(labels, target="land_cover", cv=0), one.emb.decode().values[0, :, 5, 5]


def capabilities(years: xr.DataArray, probe: Any, query: np.ndarray) -> dict[str, Callable[[int], Any]]:
    """What is done with the whole array, by name, on so many threads."""
    import dask

    one = years.isel(time=-1)

    def at_once(call: Callable[[], Any]) -> Callable[[int], Any]:
        def run(threads: int) -> Any:
            with dask.config.set(scheduler="threads", num_workers=threads):
                return call()

        return run

    return {
        "predict": lambda threads: consume(one.emb.predict(probe), threads=threads),
        "similarity": lambda threads: consume(one.emb.similarity(query), threads=threads),
        "search": at_once(lambda: one.emb.search(query, 10)),
        "change": lambda threads: consume(years.emb.change(*YEARS), threads=threads),
        "aggregate, mean": lambda threads: consume(years.emb.aggregate("mean"), threads=threads),
        "reproject, nearest": lambda threads: consume(
            one.emb.reproject(one.emb.geobox.zoom_to(resolution=9.7)), threads=threads
        ),
        "fit_pca": at_once(lambda: one.emb.fit_pca(3)),
    }


def draw(sizes: Sequence[int], found: dict[str, list[tuple[float, float]]], path: str) -> None:
    """Time per pixel and peak memory over the side of the array."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharex=True)
    for name, rows in found.items():
        for k, ax in enumerate(axes):
            ax.plot(sizes[: len(rows)], [row[k] for row in rows], marker="o", label=name)
    for ax, title in zip(axes, ("ns of CPU time per pixel", "peak memory, MB"), strict=True):
        ax.set(xscale="log", title=title, xlabel="side of the array, pixels", ylim=(0, None))
        ax.set_xticks(sizes, [str(side) for side in sizes])
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
