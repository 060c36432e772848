"""Time per pixel and peak memory of each capability from small to large arrays, which are made block by block.

Every block holds the same codes and takes no time to make, so what is measured is the work itself. Time per pixel
and memory should not grow with the array; ``×`` compares the largest array with the smallest one. The time is the
CPU's, of all threads together, which other work on the machine does not lengthen. Each is measured in a process of
its own, after it was done once with 64² pixels: memory that is kept for later is counted too. An array that would
take longer than ``--longest`` seconds, by the size before it, is left out, and the table says so.

With ``--record growth.json``, each measurement is kept as soon as it is made, and what is kept is not measured
again: long runs can be started one by one (``--only predict change --sizes 65536``) and at any time. ``--sizes``
without a number measures nothing, and shows what is kept. ``--picture growth.png`` draws it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from harness import consume, peak_memory, table

import geoemb_xr as gx

BLOCK, SIZES = 512, (1024, 4096, 16384, 65536)
YEARS = (2020, 2024)


@dataclass(frozen=True)
class Measured:
    """One capability at one size: CPU seconds of all threads, peak bytes, and where and when that was."""

    cpu_seconds: float
    peak_bytes: int
    threads: int
    machine: str
    date: str


#: Measurements by the name of the capability, then by the side of the array.
Found = dict[str, dict[int, Measured]]


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns the time per pixel of the largest array over that of the smallest one."""
    given = parse(argv)
    sizes = [BLOCK, 2 * BLOCK] if given.small else given.sizes
    record = Path(given.record) if given.record else None
    found = read(record)
    for side in sizes:
        for name in given.only or CAPABILITIES:
            last = max((at for at in found.get(name, {}) if at < side), default=None)
            if side in found.get(name, {}):
                continue
            if last is not None and found[name][last].cpu_seconds * (side / last) ** 2 > given.longest:
                print(f"{name}, {side}²: would take too long", flush=True)
                continue
            one = run(name, side, given.threads) if given.small else apart(name, side, given.threads)
            print(f"{name}, {side}²: {one.cpu_seconds:.1f} s of CPU time", flush=True)
            found = keep(record, found, name, side, one)
    show(found)
    if given.picture:
        draw(found, given.picture)
    return {name: growth(rows) for name, rows in found.items()}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="the smallest size, to see that it runs")
    parser.add_argument("--repeat", type=int, default=1, help="each size is run once")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="pixels along a side")
    parser.add_argument(
        "--only", nargs="+", choices=list(CAPABILITIES), metavar="CAPABILITY", help="those alone"
    )
    parser.add_argument("--longest", type=float, default=600, help="seconds of CPU time of one measurement")
    parser.add_argument("--threads", type=int, default=2, help="threads")
    parser.add_argument("--record", help="file of measurements, to go on with")
    parser.add_argument("--picture", help="file to draw it to")
    return parser.parse_args(argv)


# --- what is measured ---------------------------------------------------------------------------------------


class Models:
    """Fitted models and other small things that capabilities need, each made when first asked for."""

    @cached_property
    def one(self) -> xr.DataArray:
        """A year of codes, one block."""
        return one_block(False, BLOCK).isel(time=slice(-1, None))

    @cached_property
    def probe(self) -> Any:
        """Land cover from 300 points."""
        labels = gx.testing.scene().points(300, radius=600.0).drop(columns="year")
        return self.one.emb.fit_probe(labels, target="land_cover", cv=0)

    @cached_property
    def pca(self) -> Any:
        """Three principal components."""
        return self.one.emb.fit_pca(3)

    @cached_property
    def query(self) -> np.ndarray:
        """A vector to look for."""
        return self.one.emb.decode().values[0, :, 5, 5]


def codes(side: int, *, decoded: bool = False) -> xr.DataArray:
    """Two years of AlphaEarth ``(time, band, y, x)``, of which each block is the same: codes, or vectors."""
    import dask.array as da

    from geoemb_xr.core import geometry

    block = min(BLOCK, side)
    small, blocks = one_block(decoded, block), side // block
    data = da.map_blocks(
        _same,
        small.values,
        chunks=((1,) * len(YEARS), (small.sizes["band"],), (block,) * blocks, (block,) * blocks),
        dtype=small.dtype,
    )
    coords = {name: small.coords[name] for name in ("time", "band")}
    coords |= geometry.grid_coords(gx.testing.geobox((side, side)))
    return xr.DataArray(
        data, dims=("time", "band", "y", "x"), coords=coords, attrs=small.attrs, name=small.name
    )


@cache
def one_block(decoded: bool, side: int) -> xr.DataArray:
    """What every block holds."""
    return gx.testing.synthetic("alphaearth", shape=(side, side), years=YEARS, decode=decoded)


def _same(values: np.ndarray, block_id: tuple[int, ...] = ()) -> np.ndarray:
    return values[block_id[0], None]


def fields(array: xr.DataArray) -> Any:
    """Round fields of an array's extent, one a block."""
    import geopandas as gpd
    import shapely

    step = min(BLOCK, array.sizes["x"]) * array.emb.geobox.resolution.x
    left, bottom, right, top = array.emb.geobox.boundingbox
    x, y = np.meshgrid(np.arange(left + step / 2, right, step), np.arange(bottom + step / 2, top, step))
    shapes = shapely.buffer(shapely.points(x.ravel(), y.ravel()), 0.4 * step)
    return gpd.GeoDataFrame(geometry=shapes, crs=str(array.emb.crs))


#: What is done with the years, or with the last of them: a lazy array, or what is computed at once.
CAPABILITIES: dict[str, Callable[[xr.DataArray, xr.DataArray, Models], Any]] = {
    "predict": lambda years, one, models: one.emb.predict(models.probe),
    "similarity": lambda years, one, models: one.emb.similarity(models.query),
    "search": lambda years, one, models: one.emb.search(models.query, 10),
    "fit_pca": lambda years, one, models: one.emb.fit_pca(3),
    "rgb": lambda years, one, models: one.emb.rgb(models.pca),
    "change": lambda years, one, models: years.emb.change(*YEARS),
    "aggregate, mean": lambda years, one, models: years.emb.aggregate("mean"),
    "coarsen": lambda years, one, models: one.emb.coarsen(2),
    "reproject, nearest": lambda years, one, models: one.emb.reproject(
        one.emb.geobox.zoom_to(resolution=9.7), resampling="nearest"
    ),
    "reproject, bilinear": lambda years, one, models: one.emb.reproject(
        one.emb.geobox.zoom_to(resolution=9.7), resampling="bilinear"
    ),
    "encode": lambda years, one, models: gx.encode(one),
    "zonal_stats": lambda years, one, models: one.emb.zonal_stats(fields(one)).compute(),
}


def apart(name: str, side: int, threads: int) -> Measured:
    """Measure in a new process: what an earlier measurement left in memory would be used unseen."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(run, name, side, threads).result()


def run(name: str, side: int, threads: int) -> Measured:
    """Do it with a few pixels, which compiles and imports, then with the whole array."""
    import dask

    models, decoded = Models(), name == "encode"

    def do(years: xr.DataArray) -> None:
        result = CAPABILITIES[name](years, years.isel(time=-1), models)
        if getattr(result, "chunks", None):
            consume(result, threads=threads)

    with dask.config.set(scheduler="threads", num_workers=threads):
        do(codes(64, decoded=decoded))
        years = codes(side, decoded=decoded)
        with peak_memory(0.01) as peak:
            start = time.process_time()
            do(years)
            seconds = time.process_time() - start
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Measured(round(seconds, 3), peak.extra, threads, machine(), today)


def machine() -> str:
    """The processor, by what the system says, and how many of its cores this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names) or os.cpu_count()} × {names[0] if names else platform.machine()}"


# --- what is kept -------------------------------------------------------------------------------------------


def read(record: Path | None) -> Found:
    """What is kept."""
    if record is None or not record.exists():
        return {}
    kept = json.loads(record.read_text())
    return {name: {int(side): Measured(**one) for side, one in rows.items()} for name, rows in kept.items()}


def keep(record: Path | None, found: Found, name: str, side: int, one: Measured) -> Found:
    """Add one to what is kept by now, which another process may have added to."""
    found = read(record) if record is not None else found
    found.setdefault(name, {})[side] = one
    if record is not None:
        rows = {
            name: {side: asdict(found[name][side]) for side in sorted(found[name])}
            for name in CAPABILITIES
            if name in found
        }
        beside = record.with_suffix(".new")
        beside.write_text(json.dumps(rows, indent=1) + "\n")
        beside.replace(record)
    return found


# --- what is shown ------------------------------------------------------------------------------------------


def nanoseconds(side: int, one: Measured) -> float:
    """CPU time per pixel of one year."""
    return one.cpu_seconds / side**2 * 1e9


def growth(rows: dict[int, Measured]) -> float:
    """Time per pixel of the largest array over that of the smallest one."""
    return nanoseconds(max(rows), rows[max(rows)]) / nanoseconds(min(rows), rows[min(rows)])


def about(found: Found) -> str:
    """Machines, days and threads of all measurements."""
    every = [one for rows in found.values() for one in rows.values()]
    facts = (
        sorted({one.machine for one in every}),
        sorted({f"{one.threads} threads" for one in every}),
        sorted({one.date for one in every}),
    )
    return "; ".join(", ".join(each) for each in facts)


def show(found: Found) -> None:
    """Print the table."""
    sizes = sorted({side for rows in found.values() for side in rows})

    def cell(rows: dict[int, Measured], side: int) -> str:
        if side not in rows:
            return "not run"
        return f"{nanoseconds(side, rows[side]):.0f} ns, {rows[side].peak_bytes / 1e6:.0f} MB"

    table(
        f"CPU time per pixel, and peak memory, blocks of {BLOCK}²; {about(found)}",
        ["", *[f"{side}²" for side in sizes], "largest over smallest"],
        [
            [name, *[cell(rows, side) for side in sizes], f"{growth(rows):.2f} ×"]
            for name, rows in found.items()
        ],
    )


def draw(found: Found, path: str) -> None:
    """Time per pixel and peak memory over the side of the array, a panel for each capability."""
    import matplotlib.pyplot as plt

    sizes = sorted({side for rows in found.values() for side in rows})
    columns = 4
    figure, axes = plt.subplots(
        math.ceil(len(found) / columns), columns, figsize=(10, 7), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax in axes.flat[len(found) :]:
        ax.set_visible(False)
    for ax, (name, rows) in zip(axes.flat, found.items(), strict=False):
        at = sorted(rows)
        ax.plot(
            at, [nanoseconds(side, rows[side]) for side in at], marker="o", label="ns of CPU time per pixel"
        )
        ax.plot(
            at, [max(rows[side].peak_bytes / 1e6, 1) for side in at], marker="s", ls="--", label="peak MB"
        )
        ax.set(xscale="log", yscale="log", title=name, ylim=(1, 3000))
        ax.set_xticks(sizes, [str(side) for side in sizes], fontsize="small")
        ax.minorticks_off()
        ax.grid(axis="y", alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(f"pixels along a side of the array\n{about(found)}", fontsize="small")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
