"""A similarity map from codes in memory, against NumPy's product of a matrix that sits decoded in memory.

The product alone is no cosine (it divides by no length), and its decoding is not counted. Vectors lie band-last, as
people hold them, and band-first, as products publish them. Beyond 4096² pixels they do not fit memory: ours alone
is timed, from codes in a Zarr store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from harness import compare, peak_memory, table
from looking import codes, options

IN_MEMORY_UP_TO = 4096  # 1.1 GB of codes, and twice 4.3 GB of vectors
OURS = "geoemb_xr similarity, from codes"


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns each time over ours."""
    given = options(__doc__, argv, 2048)
    with codes(given.side) as array:
        held = given.side <= IN_MEMORY_UP_TO
        if held:
            array = array.persist()
        query = array[:, given.side // 2, given.side // 2].emb.decode().values
        alike = array.emb.similarity(query)
        calls: dict[str, Callable[[], Any]] = {
            OURS: alike.compute,
            "geoemb_xr search, k = 10": lambda: array.emb.search(query, 10),
        }
        if held:
            calls |= numpy_calls(array, alike, query)
        times = compare(calls, repeat=given.repeat)
        with peak_memory() as peak:
            alike.compute()
    pixels = given.side**2 / 1e6
    rows = [[name, t, pixels / t, f"{t / times[OURS]:.2f} ×"] for name, t in times.items()]
    where = "in memory" if held else "in Zarr"
    table(f"Similarity of 64 × {given.side}² codes {where} to a vector", ["", "s", "Mpx/s", "of ours"], rows)
    print(f"peak memory of ours beyond {'the codes' if held else 'imports'}: {peak.extra / 1e6:.0f} MB")
    return {name: t / times[OURS] for name, t in times.items()}


def numpy_calls(array: xr.DataArray, alike: xr.DataArray, query: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Products and cosines of vectors in memory; ours are checked against them."""
    bands = np.empty((64, array.size // 64), np.float32)
    for row in range(0, array.sizes["y"], 512):  # by strips, so that no more than two copies are held
        strip = array.isel(y=slice(row, row + 512)).emb.decode().values.reshape(64, -1)
        bands[:, row * array.sizes["x"] : row * array.sizes["x"] + strip.shape[1]] = strip
    vectors = np.ascontiguousarray(bands.T)

    def cosine() -> np.ndarray:
        return vectors @ query / np.sqrt(np.einsum("ij,ij->i", vectors, vectors))

    np.testing.assert_allclose(alike.values.ravel(), cosine() / np.linalg.norm(query), atol=2e-6)
    return {
        "NumPy vectors @ query, decoded in memory": lambda: vectors @ query,
        "NumPy query @ bands, decoded in memory": lambda: query @ bands,
        "NumPy cosine, decoded in memory": cosine,
        "limit: copy of the codes": array.values.copy,
    }


if __name__ == "__main__":
    main()
