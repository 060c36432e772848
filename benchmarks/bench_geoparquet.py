"""Open many GeoParquet files with a small bbox and compute what lies there, against geopandas and pyarrow.dataset.

Tiles of one degree, a file each, 128 dimensions, rows sorted along x, GeoParquet 1.1 with a bbox column: the peers
can prune too. Each run is a process of its own, in turns, after one run on three tiny files that imports what it
needs; memory is the peak beyond that, bytes are what the process read, from the disk or its cache.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DIMS = 128
SIDE = 0.01


def write(folder: Path, files: int, rows: int) -> None:
    """Write the files, tiles of one degree from west to east and south to north."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    folder.mkdir()
    rng = np.random.default_rng(0)
    vectors = pa.array(rng.standard_normal(rows * DIMS, np.float32))
    for i in range(files):
        x = np.sort(-20 + i % 40 + rng.uniform(0, 1 - SIDE, rows))
        y = 20 + i // 40 + rng.uniform(0, 1 - SIDE, rows)
        sides = {"xmin": x, "ymin": y, "xmax": x + SIDE, "ymax": y + SIDE}
        box = pa.StructArray.from_arrays([pa.array(v) for v in sides.values()], list(sides))
        table = pa.table(
            {
                "id": pa.array(np.arange(i * rows, (i + 1) * rows)),
                "embedding": pa.FixedSizeListArray.from_arrays(vectors, DIMS),
                "bbox": box,
                "geometry": shapely.to_wkb(shapely.box(x, y, x + SIDE, y + SIDE)),
            }
        )
        about = {
            "encoding": "WKB",
            "geometry_types": ["Polygon"],
            "bbox": [float(x.min()), float(y.min()), float(x.max() + SIDE), float(y.max() + SIDE)],
            "covering": {"bbox": {side: ["bbox", side] for side in sides}},
        }
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": about}}
        table = table.replace_schema_metadata({"geo": json.dumps(geo)})
        pq.write_table(
            table, folder / f"{i:05d}.parquet", compression="zstd", row_group_size=max(rows // 4, 1)
        )


def ours(bbox: tuple[float, ...]) -> Callable[[str], np.ndarray]:
    """Open lazily, then compute."""
    from geoemb_xr.core import areas
    from geoemb_xr.core.model import Product
    from geoemb_xr.readers.geoparquet import open_patches
    from geoemb_xr.readers.layouts import PatchLayout
    from geoemb_xr.readers.tiles import Request

    product = Product("bench-patches", dims=DIMS, kind="patch")

    def run(folder: str) -> np.ndarray:
        request = Request(area=areas.parse_bbox(bbox))
        return np.asarray(open_patches(folder, request, product, PatchLayout()).values)

    return run


def geopandas(bbox: tuple[float, ...]) -> Callable[[str], np.ndarray]:
    """``read_parquet`` with its bbox argument."""
    import geopandas as gpd

    return lambda folder: np.stack(gpd.read_parquet(folder, bbox=bbox)["embedding"].to_numpy())


def pyarrow_dataset(bbox: tuple[float, ...]) -> Callable[[str], np.ndarray]:
    """A filter on the bbox column, and only the columns that ours reads too."""
    import pyarrow.dataset as ds

    west, south, east, north = bbox
    box = {side: ds.field("bbox", side) for side in ("xmin", "ymin", "xmax", "ymax")}
    inside = (box["xmin"] <= east) & (box["xmax"] >= west) & (box["ymin"] <= north) & (box["ymax"] >= south)

    def run(folder: str) -> np.ndarray:
        columns = ["id", "geometry", "embedding"]
        table = ds.dataset(folder, format="parquet").to_table(columns=columns, filter=inside)
        chunks = [chunk.flatten().to_numpy() for chunk in table["embedding"].chunks if len(chunk)]
        return np.concatenate(chunks).reshape(-1, DIMS)

    return run


RUNS = {"geoemb_xr": ours, "pyarrow.dataset": pyarrow_dataset, "geopandas.read_parquet": geopandas}


def child(name: str, folder: str, bbox: tuple[float, ...]) -> None:
    """One run in a process of its own: prints seconds, those of the CPU, bytes read, peak, rows, a sum."""
    run = RUNS[name](bbox)
    run(f"{folder}/warm")
    before, read = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, _bytes_read()
    start, cpu = time.perf_counter(), time.process_time()
    vectors = run(f"{folder}/all")
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    total = float(np.abs(vectors).sum(dtype=np.float64))
    print(json.dumps([seconds, cpu, _bytes_read() - read, peak * 1024, len(vectors), total]))


def _bytes_read() -> int:
    lines = (
        Path("/proc/self/io").read_text().splitlines() if os.path.exists("/proc/self/io") else ["rchar: 0"]
    )
    return int(lines[0].split()[1])


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Run it; returns each peer's time over ours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the smallest size, to see that it runs")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=10_000, help="a file")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FOLDER"))
    parser.add_argument("--bbox", nargs=4, type=float)
    given = parser.parse_args(argv)
    if given.child:
        child(*given.child, tuple(given.bbox))
        return {}
    files, rows = (8, 40) if given.small else (given.files, given.rows)
    side = 1.0 if given.small else float(np.sqrt(10_000 / rows))  # some 10,000 rows
    bbox = (-18.6, 20.2, -18.6 + side, 20.2 + side)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "warm"), 3, 40)
        write(Path(folder, "all"), files, rows)
        found: dict[str, list[Any]] = {name: [] for name in RUNS}
        for turn in range(given.repeat + 1):
            for name in RUNS:
                line = [sys.executable, __file__, "--child", name, folder, "--bbox", *map(str, bbox)]
                out = subprocess.run(line, check=True, capture_output=True, text=True).stdout
                if turn:  # the first warms the disk's cache
                    found[name].append(json.loads(out.splitlines()[-1]))
    first = {name: (runs[0][4], round(runs[0][5], 1)) for name, runs in found.items()}
    assert len(set(first.values())) == 1, f"they read different rows: {first}"
    count = first["geoemb_xr"][0]
    medians = {
        name: [statistics.median(run[i] for run in runs) for i in range(4)] for name, runs in found.items()
    }
    base = medians["geoemb_xr"][0]
    print(
        f"{files} files of {rows} rows, {count} rows in the bbox ({count * DIMS * 4 / 1e6:.1f} MB of vectors)\n"
    )
    print("| | time | × ours | CPU | read | peak memory |\n| --- | --- | --- | --- | --- | --- |")
    for name, (seconds, cpu, read, peak) in medians.items():
        print(
            f"| {name} | {seconds:.2f} s | {seconds / base:.2f} × | {cpu:.2f} s | {read / 1e6:.0f} MB "
            f"| {peak / 1e6:.0f} MB |"
        )
    return {name: each[0] / base for name, each in medians.items()}


if __name__ == "__main__":
    main()
