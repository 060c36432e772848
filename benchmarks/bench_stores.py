"""From a compressed store to a result, beside what reading and scoring allow together.

Codes lie in a Zarr that ``to_zarr`` wrote, on a disk whose pages the system has at hand: reading is decompression.
What both together allow is 1 / (1 / reading + 1 / scoring), each measured alone, in turns, in the same process. A
share above 1 is overlap: one thread waits for memory or for Python while another works.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from bench_predict import linear_probe
from harness import consume, options, table

import geoemb_xr as gx

BLOCK = 512


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns the share of what is possible that each verb reaches, by wall time."""
    given = options(__doc__, argv, side=(2048, "pixels along a side"), threads=(2, "threads"))
    side = 256 if given.small else given.side
    with tempfile.TemporaryDirectory(prefix="bench-stores-") as folder:
        stored = written(Path(folder) / "codes.zarr", side)
        memory = stored.persist()
        verbs = all_verbs(memory, given.threads)
        calls: dict[str, Callable[[], Any]] = {"reading": lambda: consume(stored, threads=given.threads)}
        for name, verb in verbs.items():
            calls[f"{name}, memory"] = lambda verb=verb: verb(memory)
            calls[f"{name}, store"] = lambda verb=verb: verb(stored)
        wall, cpu = timed(calls, given.repeat)
    pixels = side**2 / 1e6
    rows, shares = [], {}
    for name in verbs:
        both = {key: f"{name}, {key}" for key in ("memory", "store")}
        possible = wall["reading"] + wall[both["memory"]]
        shares[name] = possible / wall[both["store"]]
        spent = (cpu["reading"] + cpu[both["memory"]]) / cpu[both["store"]]
        rates = [pixels / wall[both["memory"]], pixels / possible, pixels / wall[both["store"]]]
        rows.append([name, *rates, f"{shares[name]:.2f}", f"{spent:.2f}"])
    table(
        f"From a zstd Zarr of 64 × {side}² codes in {BLOCK}² blocks, {given.threads} threads; "
        f"reading alone {pixels / wall['reading']:.3g} Mpx/s",
        [
            "verb",
            "from memory, Mpx/s",
            "possible, Mpx/s",
            "from the store, Mpx/s",
            "share",
            "share of CPU time",
        ],
        rows,
    )
    return shares


def written(path: Path, side: int) -> xr.DataArray:
    """The scene's codes as ``to_zarr`` writes them, opened again."""
    codes = gx.testing.synthetic("alphaearth", shape=(side, side), decode=False, missing=True).emb.year(2018)
    codes.chunk(y=BLOCK, x=BLOCK).emb.to_zarr(path)
    return gx.open(path, decode=False)


def all_verbs(codes: xr.DataArray, threads: int) -> dict[str, Callable[[xr.DataArray], Any]]:
    """Each verb as a function of codes, which computes."""
    import dask

    probe, _ = linear_probe()
    vectors = codes.isel(y=slice(-64, None), x=slice(-64, None)).emb.decode().values.reshape(64, -1)
    query = vectors[:, np.isfinite(vectors[0])][:, 0]

    def on_threads(call: Callable[[xr.DataArray], Any]) -> Callable[[xr.DataArray], Any]:
        def run(array: xr.DataArray) -> None:
            with dask.config.set(scheduler="threads", num_workers=threads):
                call(array)

        return run

    return {
        "predict": lambda array: consume(array.emb.predict(probe, device="cpu"), threads=threads),
        "similarity": lambda array: consume(array.emb.similarity(query), threads=threads),
        "search, k = 10": on_threads(lambda array: array.emb.search(query, 10)),
        "fit_pca": on_threads(lambda array: array.emb.fit_pca(3)),
    }


def timed(calls: dict[str, Callable[[], Any]], repeat: int) -> tuple[dict[str, float], dict[str, float]]:
    """The least wall and CPU seconds of each call, taken in turns after one round that does not count."""
    wall, cpu = dict.fromkeys(calls, np.inf), dict.fromkeys(calls, np.inf)
    for turn in range(repeat + 1):
        for name, call in calls.items():
            start, spent = time.perf_counter(), time.process_time()
            call()
            if turn:
                wall[name] = min(wall[name], time.perf_counter() - start)
                cpu[name] = min(cpu[name], time.process_time() - spent)
    return wall, cpu


if __name__ == "__main__":
    main()
