"""Reprojection of 64 bands of AlphaEarth codes, UTM to LAEA: against odc-geo, GDAL and rioxarray.

Sources are dask blocks of 512² pixels, all bands, band-first in memory, as ``gx.open`` yields them. Results are
consumed block by block, peers' in the same way. ``--picture FILE`` draws where chunking changes a peer's pixels;
``--whole`` measures whole arrays alone.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import dask
import numpy as np
import xarray as xr
from harness import compare, consume, free_memory, memcpy_seconds, options, peak_memory, table

import geoemb_xr as gx
from geoemb_xr.core import areas, geometry, kernels

BANDS, BLOCK, POOL = 64, 512, 8
#: The picture: side of its blocks, and pixels shown each way from their corner.
PIECE, ZOOM = 100, 32
_pool: list[np.ndarray] = []


def _block(number: int) -> np.ndarray:
    """One of a few blocks of codes: making them is not what is timed."""
    if not _pool:
        rng = np.random.default_rng(0)
        _pool.extend(rng.integers(-127, 128, (BANDS, BLOCK, BLOCK), dtype=np.int8) for _ in range(POOL))
    return _pool[number % POOL]


def codes(size: int) -> xr.DataArray:
    """Codes of size × size pixels, a multiple of 512, block by block."""
    import dask.array as da
    from dask._task_spec import Task

    _block(0)
    n = size // BLOCK
    graph = {
        (f"codes-{size}", 0, i, j): Task((f"codes-{size}", 0, i, j), _block, i * 3 + j)
        for i in range(n)
        for j in range(n)
    }
    data = da.Array(graph, f"codes-{size}", ((BANDS,), (BLOCK,) * n, (BLOCK,) * n), dtype=np.int8)
    return gx.wrap(data, "alphaearth", geobox=gx.testing.geobox((size, size)), version="synthetic")


def grid(array: xr.DataArray, resolution: float) -> Any:
    """The target: the same ground in LAEA Europe."""
    return areas.snapped_geobox(areas.area_of(geometry.geobox_of(array)), "EPSG:3035", resolution)


def _odc(array: xr.DataArray, target: Any, how: str, chunk: int) -> xr.DataArray:
    from odc.geo.xr import xr_reproject

    given = array if how == "nearest" else array.emb.decode()
    given = given.copy()
    given.attrs = {"nodata": -128} if how == "nearest" else {}
    kwargs: dict[str, Any] = {"dst_nodata": -128} if how == "nearest" else {}
    out = xr_reproject(given, target, resampling=how, chunks=(chunk, chunk), **kwargs)
    return out if how == "nearest" else out / np.sqrt((out**2).sum("band"))


def _gdal(values: np.ndarray, box: Any, target: Any, how: str) -> np.ndarray:
    """One warp of all bands, as rasterio's and GDAL's documentation say: threads, and memory for a chunk."""
    from rasterio.warp import Resampling, reproject

    given = values
    if how != "nearest":
        given = gx.product("alphaearth").codec.decode(values, None, 0)
    missing = -128 if how == "nearest" else np.nan
    out = np.full((BANDS, *target.shape), missing, given.dtype)
    reproject(
        given, out, src_transform=box.affine, src_crs="EPSG:32632", src_nodata=missing, dst_transform=target.affine,
        dst_crs="EPSG:3035", dst_nodata=missing, resampling=Resampling[how], num_threads=2, warp_mem_limit=512,
        init_dest_nodata=False,
    )  # fmt: skip
    if how != "nearest":
        out /= np.sqrt(np.einsum("bij,bij->ij", out, out))
    return out


def _rioxarray(array: xr.DataArray, how: str) -> xr.DataArray:
    import rioxarray  # noqa: F401
    from rasterio.warp import Resampling

    return array.rio.write_nodata(-128).rio.reproject(
        "EPSG:3035", resolution=10, resampling=Resampling[how], num_threads=2
    )


def against_peers(size: int, repeat: int) -> Iterator[tuple[Any, ...]]:
    """Rows: resampling, peer, size, its rate, ours, the ratio, and the share of the memcpy limit."""
    array = codes(size)
    box, values = geometry.geobox_of(array), array.compute()
    for how, resolution in (("nearest", 10.0), ("bilinear", 10.0), ("average", 100.0)):
        target = grid(array, resolution)
        ours = gx.reproject(array, target, resampling=how)
        theirs = _odc(array, target, how, BLOCK if how != "average" else 52)
        calls = {"geoemb_xr": lambda a=ours: consume(a), "odc-geo": lambda a=theirs: consume(a)}
        # these two hold all of it: what they read, and what they write
        held = BANDS * (size**2 + target.shape[0] * target.shape[1]) * (1 if how == "nearest" else 4.5)
        if how != "average" and held < free_memory():
            calls["GDAL, one warp"] = lambda t=target, h=how: _gdal(values.values, box, t, h)
        elif how != "average":
            print(f"GDAL {how} is left out: it would take {held / 1e9:.0f} GB", file=sys.stderr)
        if how == "nearest" and held < free_memory():
            calls["rioxarray"] = lambda: _rioxarray(values, "nearest")
        seconds = compare(calls, repeat=repeat)
        mine = seconds.pop("geoemb_xr")
        # the limit: codes are read once and the result is written once, at the speed of a copy
        moved = BANDS * (size**2 + target.shape[0] * target.shape[1] * (1 if how == "nearest" else 4))
        limit = memcpy_seconds(moved // 2) / mine
        pixels = target.shape[0] * target.shape[1] * (resolution / 10) ** 2 / 1e6
        for name, each in seconds.items():
            yield how, name, size, pixels / each, pixels / mine, each / mine, limit


def whole(size: int, repeat: int) -> Iterator[tuple[Any, ...]]:
    """Rows: resampling, what is done, its seconds, and how many times as long odc-geo takes block by block.

    Graphs are made anew. ``first touch`` is new memory of the result's size, written once.
    """
    array = codes(size)
    for how in ("nearest", "bilinear"):
        target = grid(array, 10.0)
        theirs = _odc(array, target, how, BLOCK)

        def ours(target: Any = target, how: Any = how) -> xr.DataArray:
            return gx.reproject(array, target, resampling=how)

        made = ours()
        calls = {
            "odc-geo, block by block": lambda a=theirs: consume(a),
            "block by block": lambda: consume(ours()),
            ".emb.load()": lambda: ours().emb.load(),
            ".compute()": lambda: ours().compute(),
            "first touch": lambda a=made: np.empty(a.shape, a.dtype).fill(1),
        }
        with dask.config.set(scheduler="threads", num_workers=2):
            seconds = compare(calls, repeat=repeat, slow={"odc-geo, block by block": 1})
        for name, each in seconds.items():
            yield how, name, each, seconds["odc-geo, block by block"] / each


def whole_arrays(size: int = 2048, repeat: int = 5) -> None:
    """Print the table of :func:`whole`."""
    columns = ("resampling", "what", "s", "odc-geo / it, ×")
    table(f"Whole arrays in memory, {size}², two threads", columns, whole(size, repeat))


def growth(sizes: list[int]) -> Iterator[tuple[Any, ...]]:
    """Rows: size, resampling, its rate, time a pixel beside the first size's, memory in MB and in blocks a thread.

    A block is the larger of the source's and the result's: 17 MB of codes for nearest and average, 67 MB of vectors
    for bilinear.
    """
    first: dict[str, float] = {}
    for size in sizes:
        array = codes(size)
        for how in ("nearest", "bilinear", "average"):
            out = gx.reproject(array, grid(array, 100.0 if how == "average" else 10.0), resampling=how)
            # beyond 4096² one round, since it takes long; what it calls was compiled by smaller ones
            rounds = {"repeat": 3, "warm": 1} if size <= 4096 else {"repeat": 1, "warm": 0}
            with peak_memory() as peak:
                seconds = compare({"ours": lambda a=out: consume(a)}, **rounds)["ours"]
            block = BANDS * BLOCK**2 * (4 if how == "bilinear" else 1)
            pixel = seconds / size**2
            slower = pixel / first.setdefault(how, pixel)
            yield size, how, 1e-6 / pixel, slower, peak.extra / 1e6, peak.extra / block / 2


def transpose(repeat: int) -> list[tuple[Any, ...]]:
    """Rows: the one door to band-last memory, against NumPy and a memcpy; one thread."""
    block, out = _block(0), np.empty((BLOCK, BLOCK, BANDS), np.int8)
    seconds = compare(
        {
            "band_last": lambda: kernels.copy_band_last(block, 0, out),
            "NumPy": lambda: np.copyto(out, np.moveaxis(block, 0, -1)),
            "memcpy": lambda: np.copyto(out, block.reshape(out.shape)),
        },
        repeat=repeat,
    )
    return [(name, BLOCK**2 / 1e6 / each, each / seconds["band_last"]) for name, each in seconds.items()]


def first_calls() -> list[tuple[Any, ...]]:
    """Rows: seconds of the first block in a new process, without and with the compiled kernels on disk."""
    import os
    import subprocess
    import tempfile

    code = (
        "import time, geoemb_xr as gx; da = gx.testing.synthetic('alphaearth', shape=(64, 64), decode=False);"
        "start = time.perf_counter(); gx.reproject(da, 'EPSG:3035', resolution=10, resampling='{}'); "
        "print(time.perf_counter() - start)"
    )
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for how in ("nearest", "bilinear", "average"):
            took = []
            for _ in range(2):
                run = subprocess.run(
                    [sys.executable, "-c", code.format(how)], capture_output=True, text=True, check=True,
                    env={**os.environ, "NUMBA_CACHE_DIR": cache},
                )  # fmt: skip
                took.append(float(run.stdout))
            rows.append((how, *took))
    return rows


def picture(path: str) -> None:
    """A corner of four blocks in a peer's result and in ours: in one piece, in blocks, which pixels differ, why.

    Codes, nearest, UTM to degrees: each pixel should be the same published vector, however the work is cut. The
    last column is how far from PROJ's place pixels of 3 × 3 blocks of 512² are taken.
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from odc.geo.xr import xr_reproject

    da = gx.testing.synthetic("alphaearth", shape=(600, 600), decode=False).isel(time=0)

    def degrees(array: xr.DataArray) -> Any:
        return areas.snapped_geobox(areas.area_of(geometry.geobox_of(array)), "EPSG:4326", 1e-4)

    def theirs(array: xr.DataArray, how: str, side: int) -> xr.DataArray:
        chunks = {} if array.chunks is None else {"chunks": (side, side)}
        given = array.assign_attrs(nodata=-128) if array.dtype == np.int8 else array
        return xr_reproject(given, degrees(array), resampling=how, **chunks)

    def ours(array: xr.DataArray, how: Any, side: int) -> xr.DataArray:
        return gx.reproject(array, degrees(array), resampling=how, chunks=side)

    calls = {"odc-geo": theirs, "geoemb_xr": ours}
    lazy = da.chunk(y=PIECE, x=PIECE)
    images = {
        name: [np.asarray(warp(each, "nearest", PIECE).values) for each in (da, lazy)]
        for name, warp in calls.items()
    }
    other = {name: (one != two).any(0) for name, (one, two) in images.items()}
    row, col = _worst_corner(other["odc-geo"])
    window = (slice(row - ZOOM, row + ZOOM), slice(col - ZOOM, col + ZOOM))
    shown = [0, 20, 40]
    low, high = np.percentile(images["geoemb_xr"][0][shown], (2, 98), axis=(1, 2))[..., None, None]
    figure, axes = plt.subplots(2, 4, figsize=(12.8, 6.9), layout="constrained")
    for line, (name, both) in zip(axes, images.items(), strict=True):
        line[0].set_title(f"{name}, in one piece", fontsize=10)
        line[1].set_title(f"{name}, in blocks of {PIECE}", fontsize=10)
        for axis, image in zip(line, both, strict=False):
            colours = (image[shown][:, *window].astype("f4") - low) / (high - low)
            axis.imshow(np.moveaxis(np.clip(colours, 0, 1), 0, -1))
        line[2].set_title(f"{other[name].mean():.1%} of all pixels are others", fontsize=10)
        line[2].imshow(other[name][window], cmap="gray_r", vmin=0, vmax=1)
        for axis in line[:3]:
            axis.axhline(ZOOM - 0.5, color="black", lw=0.6, ls=":")
            axis.axvline(ZOOM - 0.5, color="black", lw=0.6, ls=":")
        far = _misplaced(calls[name], degrees)
        line[3].set_title(f"blocks of {BLOCK}: up to {np.nanmax(far):.2g} pixel off", fontsize=10)
        drawn = line[3].imshow(far, cmap="magma", vmin=0, vmax=0.04, aspect="auto")
        for axis in line:
            axis.set_xticks([])
            axis.set_yticks([])
    figure.colorbar(drawn, ax=axes[:, 3], label="source pixels from where PROJ says", shrink=0.7)
    figure.suptitle(
        f"Corner of four blocks (dotted), {2 * ZOOM} pixels a side, three bands of codes of the synthetic scene, "
        "nearest, UTM 32N to EPSG:4326 at 0.0001°",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def _misplaced(warp: Any, degrees: Any) -> np.ndarray:
    """How far from PROJ's place pixels are taken, in source pixels: from warped row and column numbers."""
    size = 3 * BLOCK
    source = gx.testing.geobox((size, size))
    coords = geometry.grid_coords(source)
    rows, cols = (
        xr.DataArray(each.astype("f4"), coords, ("y", "x")).chunk(y=BLOCK, x=BLOCK)
        for each in np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5, indexing="ij")
    )
    target = degrees(rows)
    c, r = np.meshgrid(np.arange(target.shape[1]) + 0.5, np.arange(target.shape[0]) + 0.5)
    move = geometry.transformer(geometry.as_crs(target.crs), geometry.as_crs(source.crs))
    col, row = ~source.affine * move.transform(*(target.affine * (c, r)))
    off = np.hypot(warp(rows, "bilinear", BLOCK).values - row, warp(cols, "bilinear", BLOCK).values - col)
    inside = (row > 1) & (row < size - 1) & (col > 1) & (col < size - 1)
    return np.where(inside, off, np.nan)


def _worst_corner(other: np.ndarray) -> tuple[int, int]:
    """The corner of blocks around which most pixels differ."""
    corners = [
        (row, col)
        for row in range(PIECE, other.shape[0] - ZOOM, PIECE)
        for col in range(PIECE, other.shape[1] - ZOOM, PIECE)
    ]
    return max(corners, key=lambda at: other[at[0] - ZOOM : at[0] + ZOOM, at[1] - ZOOM : at[1] + ZOOM].sum())


def main(argv: Sequence[str] | None = None) -> None:
    """Print every table."""
    warnings.filterwarnings("ignore", module="rasterio")
    given = options(
        __doc__,
        argv,
        size=(4096, "side of what peers are compared on: a multiple of 512"),
        largest=(16384, "the largest side of our own"),
    )
    size = 512 if given.small else given.size
    sizes = [512] if given.small else [n for n in (1024, 2048, 4096, 8192, 16384) if n <= given.largest]
    columns: tuple[str, ...] = ("what", "Mpx/s", "time / band_last")
    table("Transpose to band-last, 64 × 512² int8, one thread", columns, transpose(given.repeat))
    columns = ("resampling", "peer", "size", "peer Mpx/s", "ours Mpx/s", "ratio", "memcpy / ours")
    rows = against_peers(size, given.repeat)
    table("Against peers, 64 bands, two threads (average: source pixels)", columns, rows)
    whole_arrays(min(size, 2048), given.repeat)
    columns = ("size", "resampling", "source Mpx/s", "time a pixel / first", "extra MB", "blocks a thread")
    table("Growth, made and consumed block by block", columns, growth(sizes))
    if not given.small:
        columns = ("resampling", "compiling", "from the cache on disk")
        table("First call in a new process, seconds", columns, first_calls())


if __name__ == "__main__":
    if "--picture" in sys.argv:
        picture(sys.argv[sys.argv.index("--picture") + 1])
    elif "--whole" in sys.argv:
        whole_arrays()
    else:
        main()
