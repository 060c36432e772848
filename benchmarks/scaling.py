"""How work grows with workers: 1, 2 and 4 processes, overhead per block, bytes moved, and what a globe takes.

Blocks of AlphaEarth's shape (64 int8 bands) from a local Zarr store are labelled by a linear probe and written.
What one thread does alone is the unit; the rest is what the cluster costs. The extrapolation to one year of global
land on 1,000 workers prints its assumptions beside its figures: it is arithmetic, no measurement.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import dask
import harness
import numpy as np

import geoemb_xr as gx

#: Land, at 10 m: 149 million km², of 100 m² a pixel.
LAND_PIXELS = 149e6 * 1e6 / 100
BLOCK = 512
#: Of a stored tile: 8,192² pixels in 1.1 GB, read by requests of one stored block of one band.
TILE_PIXELS, TILE_BYTES, TILE_REQUESTS = 8192**2, 1.1e9, 64 * 64
#: List prices in us-west-2 (2026-11), in dollars: a core-hour of a general-purpose machine, and 1,000 GET requests.
CORE_HOUR, PER_1000_GETS = 0.048, 0.0004
WORKERS = 1000


def make_source(folder: Path, side: int) -> Path:
    array = gx.testing.synthetic("alphaearth", shape=(side, side), years=[2024], chunks=BLOCK, decode=False)
    return Path(gx.to_zarr(array, folder / "source.zarr", shards=min(BLOCK, side)))


def labels_of(source: Path, probe: Any) -> Any:
    return gx.open(source, decode=False, chunks=BLOCK).isel(time=0).emb.predict(probe)


def run_alone(source: Path, probe: Any, out: Path) -> float:
    """Seconds of one thread without a cluster."""
    start = time.perf_counter()
    with dask.config.set(scheduler="synchronous"):
        gx.to_zarr(labels_of(source, probe), out, mode="w")
    return time.perf_counter() - start


def run_cluster(source: Path, probe: Any, out: Path, workers: int) -> tuple[float, float]:
    """Seconds on a warm cluster, and bytes that workers sent each other or the scheduler gathered."""
    from distributed import Client, LocalCluster

    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with LocalCluster(n_workers=workers, **options) as cluster, Client(cluster) as client:
        client.wait_for_workers(workers)
        gx.to_zarr(labels_of(source, probe), out, mode="w")  # imports and compilation on each worker
        before = _moved(client)
        start = time.perf_counter()
        gx.to_zarr(labels_of(source, probe), out, mode="w")
        return time.perf_counter() - start, _moved(client) - before


def _moved(client: Any) -> float:
    """Bytes that workers took from each other so far."""
    totals = client.run(_received)
    return float(sum(totals.values()))


def _received(dask_worker: Any) -> int:
    """Bytes that a worker took from others, of what it keeps a log of."""
    return sum(int(each["total"]) for each in dask_worker.transfer_incoming_log)


def extrapolated(seconds_a_block: float, overhead: float, bytes_a_block: float) -> list[tuple[str, Any]]:
    """What one year of global land takes on 1,000 workers, with what is assumed."""
    blocks = LAND_PIXELS / BLOCK**2
    tiles = LAND_PIXELS / TILE_PIXELS
    hours = blocks * (seconds_a_block + overhead) / WORKERS / 3600
    requests = tiles * TILE_REQUESTS
    scheduler = blocks * max(overhead, 0.0) / 3600
    dollars = hours * WORKERS * CORE_HOUR + requests / 1000 * PER_1000_GETS
    return [
        ("pixels", f"{LAND_PIXELS:.3g} (149 million km² of land at 10 m, one year)"),
        ("blocks", f"{blocks:.3g} of {BLOCK}² pixels"),
        (
            "hours",
            f"{hours:.3g} on {WORKERS:,} workers of one thread, as fast as here, network aside",
        ),
        ("requests", f"{requests:.3g}: each stored block of each band once ({TILE_REQUESTS:,} a tile)"),
        (
            "terabytes read",
            f"{tiles * TILE_BYTES / 1e12:.3g} (1.1 GB a tile), in the store's region: no egress",
        ),
        ("terabytes moved between workers", f"{blocks * bytes_a_block / 1e12:.3g}"),
        (
            "hours of one scheduler",
            f"{scheduler:.3g}, if all overhead were its own: split the work by zones",
        ),
        ("dollars", f"{dollars:,.0f} (${CORE_HOUR} a core-hour, ${PER_1000_GETS} per 1,000 GETs)"),
    ]


def main(argv: list[str] | None = None) -> None:
    """Run all of it."""
    given = harness.options(__doc__, argv, side=(4096, "pixels of the source's side"))
    side, counts = (256, (1,)) if given.small else (given.side, (1, 2, 4))
    folder = Path(tempfile.mkdtemp(prefix="scaling-"))
    try:
        source = make_source(folder, side)
        small = gx.testing.synthetic("alphaearth", shape=(96, 96), years=[2018]).isel(time=0)
        probe = small.emb.fit_probe(gx.testing.scene().points(150, radius=400.0), target="land_cover", cv=0)
        blocks = max(side // BLOCK, 1) ** 2
        run_alone(source, probe, folder / "warm.zarr")
        alone = float(
            np.median([run_alone(source, probe, folder / "alone.zarr") for _ in range(given.repeat)])
        )
        rows, first, per_block = [("no cluster, 1 thread", alone, "1.00 ×", "", "")], 0.0, 0.0
        for workers in counts:
            seconds, moved = run_cluster(source, probe, folder / f"{workers}.zarr", workers)
            cores = min(workers, os.cpu_count() or 1)
            overhead = (seconds * cores - alone) / blocks
            if workers == 1:
                first, per_block = overhead, moved / blocks
            rows.append(
                (f"{workers} workers", seconds, f"{alone / seconds:.2f} ×", 1e3 * overhead, moved / 1e6)
            )
        columns = ("what", "s", "speed", "overhead, ms of a core per block", "MB moved")
        harness.table(
            f"Labels of {side}² pixels × 64 bands, {blocks} blocks, read and written", columns, rows
        )
        facts = extrapolated(alone / blocks * BLOCK**2 / min(side, BLOCK) ** 2, max(first, 0.0), per_block)
        harness.table(
            "One year of global land, extrapolated", ("what", "how much, and by which assumption"), facts
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
