"""A similarity map from codes in memory, against NumPy's product of a matrix that sits decoded in memory.

The product alone is no cosine (it divides by no length), and its decoding is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from harness import compare, peak_memory, table
from looking import codes, options


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns each time over ours."""
    given = options(__doc__, argv, 2048)
    with codes(given.side) as stored:
        array = stored.persist()
    vectors = array.emb.decode().transpose("y", "x", "band").values.reshape(-1, 64)
    bands = np.ascontiguousarray(vectors.T)
    query = vectors[len(vectors) // 2].copy()
    alike = array.emb.similarity(query)
    expected = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    np.testing.assert_allclose(alike.values.ravel(), expected, atol=1e-6)
    calls = {
        "geoemb_xr similarity, from codes": alike.compute,
        "geoemb_xr search, k = 10": lambda: array.emb.search(query, 10),
        "NumPy vectors @ query, decoded in memory": lambda: vectors @ query,
        "NumPy query @ bands, decoded in memory": lambda: query @ bands,
        "NumPy cosine, decoded in memory": lambda: vectors @ query / np.linalg.norm(vectors, axis=1),
        "limit: copy of the codes": array.values.copy,
    }
    times = compare(calls, repeat=given.repeat)
    with peak_memory() as peak:
        alike.compute()
    ours = times["geoemb_xr similarity, from codes"]
    pixels = given.side**2 / 1e6
    rows = [[name, t, pixels / t, f"{t / ours:.2f} ×"] for name, t in times.items()]
    table(f"Similarity of 64 × {given.side}² codes to a vector", ["", "s", "Mpx/s", "of ours"], rows)
    print(f"peak memory of ours beyond the codes: {peak.extra / 1e6:.0f} MB")
    return {name: t / ours for name, t in times.items()}


if __name__ == "__main__":
    main()
