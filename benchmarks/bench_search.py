"""The 100 most alike of all pixels, against faiss on the same vectors decoded in memory.

Its exact index holds vectors decoded, 256 bytes each, and is asked for one query and for 100 at once; ours reads
codes of 64 bytes block by block. Then the sketch: time, bytes and recall of 100 queries one by one, beside faiss's
inverted file with as many lists as its documentation advises (4 √n), at some numbers of probes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from harness import compare, peak_memory, table
from looking import codes, options

K = 100
QUERIES = 100
IN_MEMORY_UP_TO = 2048  # vectors of 4096² take 4.3 GB, and faiss copies them
ONE, MANY = "geoemb_xr, from codes", "geoemb_xr, 100 in one pass"


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns each time of exact searches over ours."""
    given = options(__doc__, argv, 2048)
    with codes(given.side) as array:
        array = array.persist()
        rng = np.random.default_rng(0)
        at = [xr.DataArray(rng.integers(0, given.side, QUERIES), dims="location") for _ in "yx"]
        queries = array.isel(y=at[0], x=at[1]).emb.decode().transpose("location", "band").values
        calls: dict[str, Callable[[], Any]] = {
            ONE: lambda: array.emb.search(queries[0], K),
            MANY: lambda: array.emb.search(queries, K, how="each"),
        }
        index = None
        if given.side <= IN_MEMORY_UP_TO:
            index = flat_index(array)
            check(array, index, queries)
            calls |= {
                "faiss IndexFlatIP, decoded in memory": lambda: index.search(queries[:1], K),
                "faiss IndexFlatIP, 100 in one call": lambda: index.search(queries, K),
            }
        times = compare(calls, repeat=given.repeat)
        with peak_memory() as peak:
            array.emb.search(queries, K, how="each")
        pixels = given.side**2 / 1e6
        rows = [
            [name, t, f"{t / times[ONE if '100' not in name else MANY]:.2f} ×"] for name, t in times.items()
        ]
        table(f"Exact top {K} of {pixels:.1f} million codes", ["", "s", "of ours"], rows)
        print(f"memory: {array.nbytes / 1e6:.0f} MB of codes and {peak.extra / 1e6:.0f} MB more at the most")
        sketches(array, index, queries, given.repeat)
    return {name: t / times[ONE] for name, t in times.items()}


def vectors_of(array: xr.DataArray) -> np.ndarray:
    """All vectors decoded, (n, band)."""
    return np.ascontiguousarray(array.emb.decode().values.reshape(64, -1).T)


def flat_index(array: xr.DataArray) -> Any:
    """Its exact index, vectors of unit length as its documentation says."""
    import faiss

    vectors = vectors_of(array)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(64)
    index.add(vectors)
    return index


def check(array: xr.DataArray, index: Any, queries: np.ndarray) -> None:
    """Ours are faiss's scores."""
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    expected, _ = index.search(unit[:5], K)
    found = array.emb.search(queries[:5], K, how="each")
    np.testing.assert_allclose(found["similarity"], expected.ravel(), atol=1e-5)


def sketches(array: xr.DataArray, index: Any, queries: np.ndarray, repeat: int) -> None:
    """Time, bytes and recall of approximate searches, one query at a time."""
    exact = array.emb.search(queries, K, how="each")["similarity"].to_numpy().reshape(len(queries), -1)
    worst = exact[:, -1]
    sketch = array.emb.build_sketch()

    def each() -> np.ndarray:
        return np.stack([array.emb.search(q, K, sketch=sketch)["similarity"] for q in queries])

    methods: dict[str, tuple[Callable[[], np.ndarray], float]] = {
        "geoemb_xr sketch, then codes": (each, 8 + 64)
    }
    if index is not None:
        methods |= inverted(array, index, queries)
    seconds = compare({name: call for name, (call, _) in methods.items()}, repeat=repeat)
    rows = []
    for name, (call, size) in methods.items():
        recall = float((call() >= worst[:, None] - 1e-6).mean())
        rows.append([name, recall, seconds[name] / len(queries) * 1e3, size])
    table(f"Approximate top {K}", ["", "recall", "ms a query", "bytes a vector"], rows)


def inverted(
    array: xr.DataArray, index: Any, queries: np.ndarray
) -> dict[str, tuple[Callable[[], np.ndarray], float]]:
    """Its inverted file over the same vectors."""
    import faiss

    n = index.ntotal
    lists = int(4 * np.sqrt(n))
    approximate = faiss.IndexIVFFlat(faiss.IndexFlatIP(64), 64, lists, faiss.METRIC_INNER_PRODUCT)
    vectors = index.reconstruct_n(0, n)
    approximate.train(vectors[:: max(n // (64 * lists), 1)])
    approximate.add(vectors)
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)

    def search(probes: int) -> np.ndarray:
        approximate.nprobe = probes
        return np.concatenate([approximate.search(q[None], K)[0] for q in unit])

    return {
        f"faiss IVF{lists},Flat, {probes} probes": ((lambda p=probes: search(p)), 264.0)
        for probes in (1, 4, 16)
    }


if __name__ == "__main__":
    main()
