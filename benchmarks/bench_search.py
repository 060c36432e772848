"""The most alike of all vectors: exact, by a sketch, over patches in Parquet files; beside faiss and usearch.

``exact``: the top 100 of AlphaEarth-like codes against faiss's exact index of the same vectors decoded in memory,
for one query and for 100 at once. ``sketch``: time, bytes and recall of one query at a time beside an inverted file
of faiss and a graph of usearch, each with the least effort that finds as much. ``real``: recall on real points.
``patches``: a folder of GeoParquet files. ``scan``: a sketch of vectors that would not fit decoded.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from harness import compare, peak_memory, table
from looking import codes, options

import geoemb_xr as gx
from geoemb_xr.readers.geoparquet import open_patches
from geoemb_xr.readers.layouts import PatchLayout
from geoemb_xr.readers.tiles import Request

K, QUERIES, BANDS = 100, 100, 64
ONE, MANY = "geoemb_xr, from codes", "geoemb_xr, 100 in one pass"
#: What is tried, the least first: lists looked into, and vertices of the graph.
PROBES, WIDTHS = (1, 2, 4, 8, 16, 32, 64), (64, 128, 256, 512, 1024, 2048)
#: A method's answer to queries (query, band): scores (query, K).
Answer = Callable[[np.ndarray], np.ndarray]


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the parts that are asked for; returns each time of exact searches over ours."""
    parser = options(__doc__, argv, 1024, parts=("exact", "sketch", "real", "patches", "scan"))
    ratios: dict[str, float] = {}
    if "exact" in parser.parts:
        ratios = exact(parser.side, parser.repeat)
    if "sketch" in parser.parts:
        sketches(min(parser.side, 1024), parser.repeat)
    if "real" in parser.parts:
        real(Path(parser.real))
    if "patches" in parser.parts:
        patches(20_000 if parser.small else parser.rows, parser.repeat)
    if "scan" in parser.parts:
        scan(20_000 if parser.small else parser.rows, parser.repeat)
    return ratios


def queries_of(array: xr.DataArray) -> np.ndarray:
    """Vectors of some pixels (query, band)."""
    rng = np.random.default_rng(0)
    at = [xr.DataArray(rng.integers(0, array.sizes[d], QUERIES), dims="location") for d in "yx"]
    return np.asarray(array.isel(y=at[0], x=at[1]).emb.decode().transpose("location", "band").values)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, band) of length 1, in place."""
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


# --- exact --------------------------------------------------------------------------------------------------------


def exact(side: int, repeat: int) -> dict[str, float]:
    """Ours from codes beside faiss on vectors."""
    with codes(side) as array:
        array = array.persist()
        queries = queries_of(array)
        own = unit(queries.copy())
        index = flat_index(array)
        check(array, index, queries)
        calls: dict[str, Callable[[], Any]] = {
            ONE: lambda: array.emb.search(queries[0], K),
            "faiss IndexFlatIP, decoded in memory": lambda: index.search(own[:1], K),
            MANY: lambda: array.emb.search(queries, K, how="each"),
            "faiss IndexFlatIP, 100 in one call": lambda: index.search(own, K),
        }
        times = compare(calls, repeat=repeat)
        with peak_memory() as peak:
            array.emb.search(queries, K, how="each")
    rows = [[name, t, f"{t / times[ONE if '100' not in name else MANY]:.2f} ×"] for name, t in times.items()]
    table(f"Exact top {K} of {side**2 / 1e6:.1f} million codes", ["", "s", "of ours"], rows)
    print(
        f"memory: {array.nbytes / 1e6:.0f} MB of codes and {peak.extra / 1e6:.0f} MB more at the most; "
        f"faiss: {4 * array.nbytes / 1e6:.0f} MB of vectors"
    )
    return {name: t / times[ONE] for name, t in times.items()}


def flat_index(array: xr.DataArray) -> Any:
    """Its exact index, vectors of unit length as its documentation says, decoded block by block where they stay."""
    import faiss

    n = array.size // BANDS
    index = faiss.IndexFlatIP(BANDS)
    index.codes.resize(n * BANDS * 4)
    index.ntotal = n
    vectors = vectors_of(index)
    for row in range(0, array.sizes["y"], 128):
        part = array.isel(y=slice(row, row + 128)).emb.decode().transpose("y", "x", "band").values
        start = row * array.sizes["x"]
        vectors[start : start + part.size // BANDS] = unit(part.reshape(-1, BANDS))
    return index


def vectors_of(index: Any) -> np.ndarray:
    """The memory of an exact index (n, band)."""
    import faiss

    return np.asarray(faiss.rev_swig_ptr(index.get_xb(), index.ntotal * BANDS)).reshape(-1, BANDS)


def check(array: xr.DataArray, index: Any, queries: np.ndarray) -> None:
    """Ours are faiss's scores."""
    expected, _ = index.search(unit(queries[:5].copy()), K)
    found = array.emb.search(queries[:5], K, how="each")
    np.testing.assert_allclose(found["similarity"], expected.ravel(), atol=1e-5)


# --- approximate --------------------------------------------------------------------------------------------------


def sketches(side: int, repeat: int) -> None:
    """Time, bytes and recall of approximate searches, one query at a time, and of the exact one."""
    with codes(side) as array:
        array = array.persist()
        queries, index = queries_of(array), flat_index(array)
        worst = index.search(unit(queries.copy()), K)[0][:, -1:]
        sketch = array.emb.build_sketch()

        def recall(answer: Answer) -> float:
            return float((answer(queries) >= worst - 1e-6).mean())

        def ours(given: np.ndarray, **how: Any) -> np.ndarray:
            return np.stack([array.emb.search(each, K, **how)["similarity"] for each in given])

        methods: dict[str, tuple[Answer, float]] = {
            "geoemb_xr, exact": (ours, BANDS),
            "geoemb_xr, sketch, then codes": (lambda given: ours(given, sketch=sketch), 8 + BANDS),
        }
        goal = recall(methods["geoemb_xr, sketch, then codes"][0])
        for peer in (inverted(index), graph(index)):
            for name, answer, size in peer:
                methods[name] = answer, size
                if recall(answer) >= goal:
                    break
                if name.endswith(f" {PROBES[-1]} probes") or name.endswith(f" {WIDTHS[-1]} wide"):
                    break
                del methods[name]
        seconds = compare({n: (lambda a=a: a(queries)) for n, (a, _) in methods.items()}, repeat=repeat)
        rows = [[n, recall(a), seconds[n] / QUERIES * 1e3, size] for n, (a, size) in methods.items()]
    title = f"Approximate top {K} of {side**2 / 1e6:.2f} million codes"
    table(title, ["", "recall", "ms a query", "bytes a vector"], rows)


def inverted(index: Any) -> Iterator[tuple[str, Answer, float]]:
    """An inverted file of faiss over the same vectors, with as many lists as is advised (4 √n)."""
    import faiss

    lists = int(4 * np.sqrt(index.ntotal))
    found = faiss.IndexIVFFlat(faiss.IndexFlatIP(BANDS), BANDS, lists, faiss.METRIC_INNER_PRODUCT)
    vectors = vectors_of(index)
    found.train(vectors[:: max(index.ntotal // (64 * lists), 1)])
    found.add(vectors)

    def search(given: np.ndarray, probes: int) -> np.ndarray:
        found.nprobe = probes
        return np.concatenate([found.search(q[None], K)[0] for q in unit(given.copy())])

    for probes in PROBES:
        yield f"faiss IVF{lists},Flat, {probes} probes", (lambda q, p=probes: search(q, p)), 4 * BANDS + 8.0


def graph(index: Any) -> Iterator[tuple[str, Answer, float]]:
    """A graph of usearch over the same vectors, where it is installed."""
    try:
        from usearch.index import Index
    except ImportError:
        print("usearch is not installed: left out")
        return
    found = Index(ndim=BANDS, metric="ip", dtype="f32")
    found.add(np.arange(index.ntotal), vectors_of(index))
    size = found.serialized_length / index.ntotal

    def search(given: np.ndarray, width: int) -> np.ndarray:
        found.expansion_search = width
        return np.stack([1 - found.search(q, K).distances for q in unit(given.copy())])

    for width in WIDTHS:
        yield f"usearch, f32, {width} wide", (lambda q, w=width: search(q, w)), size


def real(folder: Path) -> None:
    """Recall of the true ten among real AlphaEarth vectors, by the share that is scored exactly."""
    import faiss

    files = sorted(folder.glob("alphaearth-points/*.csv"))
    if not files:
        print(f"no alphaearth-points/*.csv in {folder}: left out")
        return
    points = pd.concat([pd.read_csv(path) for path in files], ignore_index=True)
    vectors = unit(points[list(gx.product("alphaearth").bands)].to_numpy(np.float32))
    array = gx.wrap(vectors, "alphaearth", dims=("location", "band"), x=points["longitude"], y=points["latitude"],
                    crs="EPSG:4326", version="v1")  # fmt: skip
    sketch, n = array.emb.build_sketch(), len(vectors)
    true = np.argsort(-vectors @ vectors.T, axis=1)[:, :10]
    lists = int(np.sqrt(n))
    found = faiss.IndexIVFFlat(faiss.IndexFlatIP(BANDS), BANDS, lists, faiss.METRIC_INNER_PRODUCT)
    found.train(vectors)
    found.add(vectors)
    rows = []
    for share in (0.05, 0.1, 0.2):
        near = [sketch.nearest(each - sketch.mean, int(share * n)) for each in vectors]
        ours = np.mean([np.isin(one, own).mean() for one, own in zip(true, near, strict=True)])
        found.nprobe = max(int(share * lists), 1)
        theirs = found.search(vectors, 10)[1]
        peer = np.mean([np.isin(one, own).mean() for one, own in zip(true, theirs, strict=True)])
        rows.append([f"{share:.0%}", float(ours), float(peer)])
    columns = ["scored exactly", "sketch", f"faiss IVF{lists}, as many lists"]
    table(f"Recall of the true 10 of {n:,} real points", columns, rows)


# --- archives -----------------------------------------------------------------------------------------------------


def write_patches(folder: Path, count: int, files: int = 8) -> None:
    """Patches on a grid of 0.01 degrees, 64 float32 bands, in a few GeoParquet files."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    rng, own = np.random.default_rng(0), count // files
    for i in range(files):
        number = np.arange(i * own, (i + 1) * own)
        x, y = -180 + number % 36_000 * 0.01, -60 + number // 36_000 * 0.01
        vectors = pa.array(rng.standard_normal(own * BANDS, np.float32))
        names = {
            "id": pa.array(number),
            "embedding": pa.FixedSizeListArray.from_arrays(vectors, BANDS),
            "geometry": shapely.to_wkb(shapely.box(x, y, x + 0.01, y + 0.01)),
        }
        about = {"encoding": "WKB", "geometry_types": ["Polygon"]}
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": about}}
        rows = pa.table(names).replace_schema_metadata({"geo": json.dumps(geo)})
        pq.write_table(rows, folder / f"{i:03d}.parquet", compression="zstd", row_group_size=65_536)


def patches(rows: int, repeat: int) -> None:
    """A search of Parquet files that are read for it, beside NumPy on what pyarrow reads."""
    import pyarrow.dataset as pads

    product = gx.register(gx.Product("bench-patches", dims=BANDS, kind="patch"))
    query = np.random.default_rng(1).standard_normal(BANDS).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="geoemb-bench-") as name:
        write_patches(Path(name), rows)

        def opened() -> xr.DataArray:
            return open_patches(name, Request(), product, PatchLayout())

        def by_hand() -> np.ndarray:
            kept = np.empty(0, np.float32)
            for batch in pads.dataset(name).to_batches(columns=["embedding"]):
                x = batch.column(0).flatten().to_numpy().reshape(-1, BANDS)
                kept = np.sort(np.concatenate([kept, x @ query / np.linalg.norm(x, axis=1)]))[-K:]
            return kept[::-1] / np.linalg.norm(query)

        array = opened()
        np.testing.assert_allclose(array.emb.search(query, K)["similarity"], by_hand(), atol=1e-5)
        calls: dict[str, Callable[[], Any]] = {
            "geoemb_xr `open`": opened,
            "geoemb_xr `search`": lambda: array.emb.search(query, K),
            "pyarrow batches and NumPy (scores alone)": by_hand,
        }
        times = compare(calls, repeat=repeat, warm=0)
        memory = {}
        for each, call in calls.items():
            with peak_memory() as peak:
                call()
            memory[each] = peak.extra / 1e6
    lines = [[each, t, f"{t / times['geoemb_xr `search`']:.2f} ×", memory[each]] for each, t in times.items()]
    table(f"{rows / 1e6:.2f} million patches in 8 Parquet files", ["", "s", "of search", "peak MB"], lines)


def scan(rows: int, repeat: int) -> None:
    """A sketch over codes that lie in one file, row by row: its scan alone, and with reading the candidates."""
    rng = np.random.default_rng(0)
    seed = gx.testing.synthetic("alphaearth", shape=(512, 512), decode=False).values[0].reshape(BANDS, -1).T
    with tempfile.TemporaryDirectory(prefix="geoemb-bench-") as name:
        path, part = Path(name) / "codes", 1 << 20
        with path.open("wb") as file:
            for start in range(0, rows, part):
                own = seed[rng.integers(0, len(seed), min(part, rows - start))]
                jitter = rng.integers(-2, 3, own.shape, dtype=np.int8)
                file.write(np.clip(own + jitter, -127, 127).tobytes())
        stored = np.memmap(path, np.int8, "r", shape=(rows, BANDS))
        lazy = da.from_array(stored, chunks=(part, BANDS), name=False)
        place = np.zeros(rows, np.float32)
        array = gx.wrap(lazy, "alphaearth", dims=("location", "band"), x=place, y=place, crs="EPSG:4326",
                        version="synthetic")  # fmt: skip
        query = array.isel(location=slice(0, 1)).emb.decode().values
        with peak_memory() as built:
            sketch = array.emb.build_sketch()
        aim = query[0] / np.linalg.norm(query[0]) - sketch.mean
        calls: dict[str, Callable[[], Any]] = {
            "sketch, scan alone": lambda: sketch.nearest(aim, sketch.candidates),
            "sketch, with candidates read and scored": lambda: array.emb.search(query, K, sketch=sketch),
            "exact": lambda: array.emb.search(query, K),
        }
        times = compare(calls, repeat=repeat)
        memory = {}
        for each, call in calls.items():
            with peak_memory() as peak:
                call()
            memory[each] = peak.extra / 1e6
    size = sketch.bits.nbytes / 1e6
    print(f"{sketch}: {sketch.candidates:,} candidates; built with {built.extra / 1e6:.0f} MB at the most")
    lines = [[each, t, memory[each]] for each, t in times.items()]
    table(f"{rows / 1e6:.1f} million vectors, a sketch of {size:.0f} MB", ["", "s", "peak MB"], lines)


if __name__ == "__main__":
    main()
