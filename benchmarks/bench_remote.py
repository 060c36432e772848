"""Windows and points of remote stores beside rioxarray, aef-loader and zarr-python, on one server of this machine.

The server answers after 30 ms, at 60 MB/s per connection, and counts requests and bytes: each reader is shown
beside the least that can be asked for. GDAL decodes with two threads for all (``GDAL_NUM_THREADS=2``, worth a
factor of four to rioxarray), and peers open as their documentation says. geotessera takes no URL without
encryption: what it calls, zarr-python on obstore, stands for it. rasteret is on no machine that this was run on.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import harness
import numpy as np
import rasterio
from affine import Affine

import geoemb_xr as gx
from geoemb_xr.core import geometry
from geoemb_xr.core.codecs import decode_per_pixel_scale
from geoemb_xr.readers import geotiff
from geoemb_xr.readers.block_cache import CACHE, RAW
from geoemb_xr.stores.files import forget

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
from object_server import in_process

LATENCY, BANDWIDTH = 0.03, 60e6
UTM, LEFT, TOP = "EPSG:32632", 600_000, 5_200_000
BANDS, STORAGE = 64, {"allow_http": True}
#: What GDAL's documentation and news of the field advise for remote COGs.
GDAL = {
    "GDAL_NUM_THREADS": "2",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "VSI_CACHE": "TRUE",
}

Read = Callable[[], np.ndarray]


def write_tile(folder: Path, side: int, block: int) -> Path:
    """A tile as AlphaEarth's: 64 planar bands of int8, south-up, zstd; smooth codes with noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    codes = np.empty((BANDS, side, side), np.int8)
    for band in range(BANDS):
        smooth = 60 * np.sin(9 * (x + band / 7)) * np.cos(7 * (y - band / 9))
        codes[band] = smooth + rng.normal(0, 4, (side, side))
    path = folder / "2024" / "tile.tif"
    box = geometry.make_geobox((side, side), Affine(10, 0, LEFT, 0, 10, TOP - 10 * side), UTM)
    options = {"compress": "zstd", "interleave": "band", "blockxsize": block, "blockysize": block}
    geotiff.write_geotiff(path, codes, box, nodata=-128, bigtiff="YES", **options)
    return path


def our_window(url: str, rows: slice, cols: slice) -> np.ndarray:
    for kept in (CACHE, RAW):
        kept.clear()
    forget()
    opened = gx.open("alphaearth", url, decode=False, storage=STORAGE).isel(time=0, y=rows, x=cols)
    return np.asarray(opened.values)


def rioxarray_window(url: str, rows: slice, cols: slice) -> np.ndarray:
    import rioxarray

    with rasterio.Env(**GDAL), rioxarray.open_rasterio(url, chunks=None, cache=False) as opened:
        window = opened.isel(y=slice(None, None, -1)).isel(y=rows, x=cols).values
    _forget_gdal(url)
    return np.asarray(window)


def rasterio_points(url: str, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Each stored block once, as a careful user of rasterio does it."""
    with rasterio.Env(**GDAL), rasterio.open(url) as dataset:
        height, block = dataset.height, dataset.block_shapes[0][0]
        stored, out = height - 1 - rows, np.empty((rows.size, BANDS), np.int8)
        for key in np.unique(np.stack([stored // block, cols // block], 1), axis=0):
            mine = np.flatnonzero((stored // block == key[0]) & (cols // block == key[1]))
            size = min(block, height)
            window = rasterio.windows.Window(key[1] * block, key[0] * block, size, size)
            values = dataset.read(window=window)
            out[mine] = values[:, stored[mine] - key[0] * block, cols[mine] - key[1] * block].T
    _forget_gdal(url)
    return out


def _forget_gdal(url: str) -> None:
    """GDAL keeps what it fetched of an URL; the next round shall begin as the first did."""
    from rasterio._env import del_gdal_config, set_gdal_config

    set_gdal_config("CPL_VSIL_CURL_NON_CACHED", f"/vsicurl/{url}")
    rasterio.open(url).close()
    del_gdal_config("CPL_VSIL_CURL_NON_CACHED")


def aef_window(url: str, side: int, rows: slice, cols: slice) -> np.ndarray:
    """aef-loader: a virtual Zarr of the tile by async-tiff, loaded by dask."""
    import xarray as xr
    from aef_loader import VirtualTiffReader
    from aef_loader.types import AEFTileInfo
    from obstore.store import HTTPStore

    info = AEFTileInfo(
        id="tile",
        path="s3://fx/2024/tile.tif",
        year=2024,
        bbox=(0.0, 0.0, 1.0, 1.0),
        crs_epsg=32632,
        utm_zone="32N",
        utm_bounds=(LEFT, TOP - 10 * side, LEFT + 10 * side, TOP),
    )

    async def read() -> xr.DataTree:
        async with VirtualTiffReader() as reader:
            options = {"allow_http": True}
            reader._stores["s3://fx"] = HTTPStore.from_url(
                url.removesuffix("/2024/tile.tif"), client_options=options
            )
            return await reader.open_tiles_by_zone([info])

    tree = asyncio.run(read())
    array = next(iter(tree.children.values()))["embeddings"].isel(time=0)
    array = array if array.y[0] > array.y[-1] else array.isel(y=slice(None, None, -1))
    return np.asarray(array.isel(y=rows, x=cols).values)


def measured(reads: dict[str, Read], seen: Callable[[], list[int]], repeat: int) -> dict[str, list[float]]:
    """Median seconds, requests and megabytes of each, in turns; what a reader cannot do is said and left out."""
    found: dict[str, list[tuple[float, int, int]]] = {name: [] for name in reads}
    expected = None
    for turn in range(repeat + 1):  # the first is not counted: imports and compilation
        for name in list(reads):
            seen()
            start = time.perf_counter()
            try:
                values = reads[name]()
            except Exception as error:  # of a peer
                print(f"{name} cannot: {type(error).__name__}: {str(error)[:160]}")
                del reads[name]
                continue
            seconds = time.perf_counter() - start
            expected = values if expected is None else expected
            np.testing.assert_array_equal(values, expected, err_msg=name)
            if turn:
                found[name].append((seconds, *seen()))
    return {
        name: [median(each[i] for each in rounds) for i in range(3)]
        for name, rounds in found.items()
        if rounds
    }


def show(title: str, found: dict[str, list[float]], least: tuple[int, int]) -> None:
    ours = found["geoemb_xr"][0]
    rows = [
        (name, s, f"{s / ours:.2f} ×", int(requests), size / 1e6)
        for name, (s, requests, size) in found.items()
    ]
    rows.append(("least possible", "", "", least[0], least[1] / 1e6))
    harness.table(title, ("what", "s", "× ours", "requests", "MB"), rows)


def least_of(path: Path, rows: slice, cols: slice) -> tuple[int, int]:
    """Requests and bytes of the stored blocks that a north-up window touches, and of the header."""
    with rasterio.open(path) as dataset:
        height, block = dataset.height, dataset.block_shapes[0][0]
        top, bottom = height - rows.stop, height - rows.start
        sizes = [
            int(dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=band))
            for band in range(1, BANDS + 1)
            for y in range(top // block, -(-bottom // block))
            for x in range(cols.start // block, -(-cols.stop // block))
        ]
    return len(sizes) + 1, sum(sizes) + (1 << 16)


def bench_tile(folder: Path, side: int, block: int, points: int, repeat: int) -> None:
    path = write_tile(folder, side, block)
    large = min(1024, side // 2)
    windows = {
        "64 px in one block": (slice(block // 4, block // 4 + 64),) * 2,
        "64 px across four blocks": (slice(block - 32, block + 32),) * 2,
        f"{large} px aligned": (slice(0, large),) * 2,
        f"{large} px unaligned": (slice(block // 2, block // 2 + large),) * 2,
    }
    with in_process(folder, LATENCY, BANDWIDTH) as (server, seen):
        url = f"{server}/2024/tile.tif"
        for title, (rows, cols) in windows.items():
            reads: dict[str, Read] = {
                "geoemb_xr": lambda r=rows, c=cols: our_window(url, r, c),
                "rioxarray": lambda r=rows, c=cols: rioxarray_window(url, r, c),
                "aef-loader": lambda r=rows, c=cols: aef_window(url, side, r, c),
            }
            show(title, measured(reads, seen, repeat), least_of(path, rows, cols))
        rng = np.random.default_rng(1)
        rows, cols = rng.integers(0, side, points), rng.integers(0, side, points)
        places = np.stack([LEFT + 10 * (cols + 0.5), TOP - 10 * (rows + 0.5)], 1)

        def ours() -> np.ndarray:
            for kept in (CACHE, RAW):
                kept.clear()
            forget()
            array = gx.open(
                "alphaearth", url, points=places, bbox_crs=UTM, decode=False, storage=STORAGE
            ).isel(time=0)
            return np.asarray(array.transpose("location", "band").values)

        reads = {"geoemb_xr": ours, "rasterio, block by block": lambda: rasterio_points(url, rows, cols)}
        whole = slice(0, side)
        show(f"{points} points", measured(reads, seen, repeat), least_of(path, whole, whole))


def bench_tessera(folder: Path, side: int, window: int, repeat: int) -> None:
    """A region of a Tessera store, by zarr-python on obstore as geotessera reads it."""
    import zarr
    from bench_open import write_store
    from obstore.store import HTTPStore

    path = write_store(folder / "tessera.zarr", side)
    rows = slice(side // 2 - window // 2, side // 2 + window // 2)
    with in_process(folder, LATENCY, BANDWIDTH) as (server, seen):
        url = f"{server}/{path.name}"
        x0, y0 = LEFT + side * 5, TOP - side * 5
        utm = (x0 - window * 5, y0 - window * 5, x0 + window * 5, y0 + window * 5)

        def ours() -> np.ndarray:
            opened = gx.open("tessera", url, bbox=utm, bbox_crs=UTM, time=2024, storage=STORAGE)
            return np.asarray(opened.values[0])

        def theirs() -> np.ndarray:
            store = zarr.storage.ObjectStore(HTTPStore.from_url(url, client_options={"allow_http": True}))
            group = zarr.open_group(store, mode="r")["utm32"]
            codes, scales = group["embeddings"][0, :, rows, rows], group["scales"][0, rows, rows]
            return decode_per_pixel_scale(codes, scales, 0)

        reads: dict[str, Read] = {"geoemb_xr": ours, "zarr-python on obstore": theirs}
        size = sum(p.stat().st_size for p in path.rglob("c/**/*") if p.is_file() and "utm32/" in str(p))
        show(
            f"{window} px of a Tessera store", measured(reads, seen, repeat), (0, size * window**2 // side**2)
        )


def main(argv: list[str] | None = None) -> None:
    """Run all of it."""
    given = harness.options(
        __doc__,
        argv,
        side=(4096, "pixels of the tile's side"),
        block=(1024, "pixels of a stored block's side"),
        points=(500, "how many points"),
    )
    if given.small:
        given.side, given.block, given.points = 512, 128, 20
    with tempfile.TemporaryDirectory() as name:
        bench_tile(Path(name) / "aef", given.side, given.block, given.points, given.repeat)
        (Path(name) / "tessera").mkdir()
        small = given.small
        bench_tessera(Path(name) / "tessera", 256 if small else 1024, 64 if small else 600, given.repeat)


if __name__ == "__main__":
    main()
