"""What zeit-cdts can do too: windows, principal components, similarity, change, a class map, applicability.

zeit-cdts (GPL) is run where it is installed and left out where it is not. Its cubes hold float32 vectors, which
lie in memory, decoded; that is not counted. Ours are the codes of the same vectors, in memory too: decoding counts.
Windows of AlphaEarth and of Tessera are opened and read by both as float32 from the same local files, in the
published layouts: GeoTIFFs with their index, and a Zarr store, which ``store=`` of zeit-cdts takes as a path. The
cache of blocks that it keeps is off. Both compute block by block, blocks of 512², on two threads. The time is the
CPU's, of all threads together. Principal components are those of its viewer, called in the module that holds them:
three, fitted on 40,000 pixels, and a picture of them.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from bench_open import UTM, write_cogs, write_store
from harness import compare, consume, options, table

import geoemb_xr as gx
from geoemb_xr.catalog.alphaearth import COG, INDEX

BLOCK, YEARS, THREADS = 512, (2018, 2024), 2
OURS, PEER = "geoemb_xr", "zeit-cdts"


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns the peer's time over ours, by verb."""
    given = options(
        __doc__,
        argv,
        side=(1024, "side of the arrays"),
        applicable=(128, "side, for the area of applicability"),
    )
    side, applicable = (64, 32) if given.small else (given.side, given.applicable)
    there = importlib.util.find_spec("zeit") is not None
    if not there:
        print("zeit-cdts is not installed: only our own times (× 1)\n")
    os.environ["ZEIT_EMBEDDING_CACHE_MB"] = "0"
    times: dict[str, tuple[int, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        windows = alphaearth(Path(folder), side, there), tessera(Path(folder), side, there)
        for verb, pixels, calls in (*windows, *verbs(side, applicable, there)):
            times[verb] = pixels, compare(calls, repeat=given.repeat, clock=time.process_time)
    ratios = {verb: each[PEER] / each[OURS] for verb, (_, each) in times.items() if PEER in each}
    table(
        "Mpx a second of CPU time",
        ["verb", OURS, PEER, "×"],
        [
            [
                verb,
                *(pixels / 1e6 / each[name] if name in each else "–" for name in (OURS, PEER)),
                ratio(each),
            ]
            for verb, (pixels, each) in times.items()
        ],
    )
    return ratios


def ratio(seconds: Mapping[str, float]) -> str:
    """The peer's time over ours."""
    return f"{seconds.get(PEER, seconds[OURS]) / seconds[OURS]:.1f} ×"


def verbs(side: int, applicable: int, there: bool) -> Iterator[tuple[str, int, dict[str, Callable[[], Any]]]]:
    """Each verb, the pixels of its result, and the calls: of the peer, too, where it is there."""
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    if there:
        import zeit
    codes = gx.testing.synthetic("alphaearth", shape=(side, side), years=YEARS, decode=False)
    years, cube = in_memory(codes), in_memory(gx.decode(codes))
    one, vectors = years.isel(time=-1), cube.isel(time=-1)
    query = vectors[:, side // 2, side // 2].values

    if there:
        theirs = zeit.similarity(vectors, query.tolist()).values
        np.testing.assert_allclose(one.emb.similarity(query).values, theirs, atol=1e-5)

    def both(ours: Callable[[], Any], theirs: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
        return {OURS: ours, PEER: theirs} if there else {OURS: ours}

    yield (
        "similarity", side**2,
        both(lambda: done(one.emb.similarity(query)), lambda: done(zeit.similarity(vectors, query.tolist()))),
    )  # fmt: skip
    yield (
        "change", side**2,
        both(
            lambda: done(years.emb.change(*YEARS)),
            lambda: done(zeit.embedding_change(cube, baseline="first")["distance"]),
        ),
    )  # fmt: skip

    def pictures() -> None:
        from zeit._embedding_tools import pca_rgb

        done(pca_rgb(vectors))

    yield (
        "principal components, fitted and drawn", side**2,
        both(lambda: done(one.emb.rgb(one.emb.fit_pca(3, n_samples=40_000))), pictures),
    )  # fmt: skip
    labels = gx.testing.scene().points(300, radius=side * 2.0).drop(columns="year")
    samples = gx.sample(one, labels).emb.decode()
    x, y = samples.values, labels["land_cover"].to_numpy()
    known = np.isfinite(x).all(axis=1)
    probe = one.emb.fit_probe(labels, target="land_cover")
    model = LogisticRegression(max_iter=1000).fit(x[known], y[known])
    yield (
        "class map, logistic", side**2,
        both(
            lambda: done(one.emb.predict(probe)),
            lambda: done(zeit.classify(vectors, model)["label"]),
        ),
    )  # fmt: skip
    table_of_labels = pd.DataFrame(x[known], columns=list(vectors.band.values))
    part = {"y": slice(applicable), "x": slice(applicable)}
    yield (
        f"area of applicability, {known.sum()} labels", applicable**2,
        both(
            lambda: done(one.isel(part).emb.predict(probe, output="aoa")),
            lambda: done(zeit.aoa(vectors.isel(part), table_of_labels, n_jobs=THREADS)["AOA"]),
        ),
    )  # fmt: skip


def publish(folder: Path, side: int) -> Path:
    """Four tiles in the published layout, and the index that names them."""
    import pandas as pd
    import rasterio
    from rasterio.warp import transform_bounds

    rows = []
    for file in write_cogs(folder, side, 2):
        with rasterio.open(file) as tile:
            (left, right), (low, high) = map(sorted, ((tile.bounds[0::2]), (tile.bounds[1::2])))
        place = dict(zip(("west", "south", "east", "north"), (left, low, right, high), strict=True))
        degrees = dict(zip(place, transform_bounds(UTM, "EPSG:4326", *place.values()), strict=True))
        rows.append(
            {
                "path": f"{COG}/{file.relative_to(folder).as_posix()}", "year": 2024, "crs": UTM, "utm_zone": "32N",
                **{f"utm_{name}": value for name, value in place.items()},
                **{f"wgs84_{name}": value for name, value in degrees.items()},
            }
        )  # fmt: skip
    pd.DataFrame(rows).to_parquet(folder / INDEX)
    return folder


def alphaearth(folder: Path, side: int, there: bool) -> tuple[str, int, dict[str, Callable[[], Any]]]:
    """A box around the corner that four tiles share, half a tile to each side."""
    import pandas as pd

    tiles = pd.read_parquet(publish(folder / "alphaearth", side) / INDEX)
    box = tuple(float(tiles[f"wgs84_{name}"].mean()) for name in ("west", "south", "east", "north"))
    return window("alphaearth", folder / "alphaearth", box, side, there)


def tessera(folder: Path, side: int, there: bool) -> tuple[str, int, dict[str, Callable[[], Any]]]:
    """The middle of a store of twice the side."""
    from rasterio.warp import transform_bounds

    store = write_store(folder / "tessera.zarr", 2 * side)
    left, bottom, right, top = gx.open("tessera", store).emb.bounds
    half = 10 * side / 2
    inner = left + half, bottom + half, right - half, top - half
    return window("tessera", store, transform_bounds(UTM, "EPSG:4326", *inner), side, there)


def window(
    product: str, source: Path, box: tuple[float, ...], side: int, there: bool
) -> tuple[str, int, dict[str, Callable[[], Any]]]:
    """Open a box of 2024 and read it; what zeit-cdts reads is the same."""

    def ours() -> xr.DataArray:
        return gx.open(product, source, bbox=box, time=2024)

    def theirs() -> xr.DataArray:
        import zeit

        return zeit.load_embeddings(box, source=product, years=2024, store=str(source))

    if there:
        pair = xr.align(ours().isel(time=0, band=0), theirs().isel(time=0, band=0), join="inner", copy=False)
        assert min(each.size for each in pair) > 0.9 * side**2, "other windows"
        np.testing.assert_allclose(*(each.values for each in pair), atol=1e-6)
    title = f"open and read a window of {gx.product(product).title.partition(' ')[0]}"
    calls = {OURS: lambda: done(ours()), PEER: lambda: done(theirs())}
    return title, side**2, calls if there else {OURS: calls[OURS]}


def in_memory(array: xr.DataArray) -> xr.DataArray:
    """In blocks that are there."""
    return array.chunk(time=1, y=BLOCK, x=BLOCK).persist()


def done(result: Any) -> None:
    """Compute it block by block, where it is lazy."""
    if result.chunks is not None:
        consume(result, threads=THREADS)


if __name__ == "__main__":
    main()
