"""Windows and points of remote stores beside rioxarray, aef-loader, rasteret, zarr-python and geotessera.

The server, on the same machine, answers after 30 ms, at 60 MB/s per connection, and counts requests and bytes:
each reader is shown beside the least that can be asked for. GDAL decodes with two threads for all
(``GDAL_NUM_THREADS=2``, worth a factor of four to rioxarray), and peers open as their documentation says.
geotessera takes no URL without encryption, but a store of zarr-python's: it is given one on obstore, which is
what it makes of other URLs. rasteret joins in where it is installed (``uv run --with rasteret``): its
documentation reads the headers of files once, into an index, and pixels by that. Rows that say so have read the
header before their time begins.
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
from geoemb_xr.readers.shard_indexes import INDEXES
from geoemb_xr.readers.zarr_nodes import _open_node
from geoemb_xr.stores.files import forget

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
from object_server import in_process

LATENCY, BANDWIDTH = 0.03, 60e6
UTM, LEFT, TOP = "EPSG:32632", 600_000, 5_200_000
BANDS, STORAGE = 64, {"allow_http": True}
#: Side of the chunks in Tessera's shards.
INNER = 32
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


def forget_all() -> None:
    """All that is kept of what was read, in this process."""
    for kept in (CACHE, RAW, INDEXES):
        kept.clear()
    _open_node.cache_clear()
    forget()


def our_window(url: str, rows: slice, cols: slice) -> np.ndarray:
    forget_all()
    opened = gx.open("alphaearth", url, decode=False, storage=STORAGE).isel(time=0, y=rows, x=cols)
    return np.asarray(opened.values)


def our_opened(url: str) -> Callable[..., np.ndarray]:
    """A function that reads windows of a tile that is open already."""
    opened = gx.open("alphaearth", url, decode=False, storage=STORAGE).isel(time=0)

    def window(rows: slice, cols: slice) -> np.ndarray:
        CACHE.clear()
        RAW.clear()
        return np.asarray(opened.isel(y=rows, x=cols).values)

    return window


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


def rasteret_readers(server: str, url: str, side: int) -> tuple[Read, Callable[..., np.ndarray]] | None:
    """A function that reads the header of the tile, and one that reads pixels by that; None without rasteret."""
    try:
        import rasteret
        from rasteret.cloud import ObstoreBackend
    except ImportError:
        return None
    import datetime

    import pyarrow as pa
    import shapely
    from obstore.store import HTTPStore
    from pyproj import Transformer

    bands = [f"A{i:02d}" for i in range(BANDS)]
    span = 10 * side
    to_degrees = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
    box = shapely.box(*to_degrees.transform_bounds(LEFT, TOP - span, LEFT + span, TOP))
    records = pa.table(
        {
            "id": ["tile"],
            "datetime": pa.array([datetime.datetime(2024, 1, 1)], pa.timestamp("us")),
            "geometry": pa.array([box.wkb], pa.binary()),
            "href": [url],
            "proj:epsg": pa.array([32632], pa.int64()),
        }
    )

    def backend() -> ObstoreBackend:
        store = HTTPStore.from_url(server, client_options={"allow_http": True})
        return ObstoreBackend(store, url_prefix=f"{server}/")

    def look() -> rasteret.Collection:
        return rasteret.build_from_table(
            records,
            href_column="href",
            band_index_map={band: i for i, band in enumerate(bands)},
            enrich_cog=True,
            backend=backend(),
        )

    def read(
        collection: rasteret.Collection, rows: slice | np.ndarray, cols: slice | np.ndarray
    ) -> np.ndarray:
        if isinstance(rows, np.ndarray):
            points = pa.table({"x": LEFT + 10 * (cols + 0.5), "y": TOP - 10 * (rows + 0.5)})
            given = {"x_column": "x", "y_column": "y", "geometry_crs": 32632, "backend": backend()}
            found = collection.sample_points(points, bands, **given)
            order = np.lexsort([found["band"].to_numpy(), found["point_index"].to_numpy()])
            return found["value"].to_numpy()[order].reshape(len(rows), BANDS)
        inside = 1  # metres, so that an edge between pixels belongs to one of them
        window = shapely.box(
            LEFT + 10 * cols.start + inside,
            TOP - 10 * rows.stop + inside,
            LEFT + 10 * cols.stop - inside,
            TOP - 10 * rows.start - inside,
        )
        values = collection.get_numpy(window, bands, geometry_crs=32632, backend=backend())[0]
        return values[:, ::-1]  # as it is stored, south first

    return look, read


def measured(
    reads: dict[str, Read], seen: Callable[[], list[int]], repeat: int, rtol: float = 0
) -> dict[str, list[float]]:
    """Median seconds, CPU seconds, requests and megabytes of each, in turns; what cannot be read is said."""
    found: dict[str, list[tuple[float, float, int, int]]] = {name: [] for name in reads}
    expected = None
    for turn in range(repeat + 1):  # the first is not counted: imports and compilation
        for name in list(reads):
            seen()
            start, used = time.perf_counter(), time.process_time()
            try:
                values = reads[name]()
            except Exception as error:  # of a peer
                print(f"{name} cannot: {type(error).__name__}: {str(error)[:160]}")
                del reads[name]
                continue
            seconds, cpu = time.perf_counter() - start, time.process_time() - used
            expected = values if expected is None else expected
            np.testing.assert_allclose(values, expected, rtol=rtol, atol=0, err_msg=name)
            if turn:
                found[name].append((seconds, cpu, *seen()))
    return {
        name: [median(each[i] for each in rounds) for i in range(4)]
        for name, rounds in found.items()
        if rounds
    }


def show(title: str, found: dict[str, list[float]], least: tuple[int, int]) -> None:
    ours = found["geoemb_xr"][0]
    rows = [
        (name, s, f"{s / ours:.2f} ×", cpu, int(requests), size / 1e6)
        for name, (s, cpu, requests, size) in found.items()
    ]
    rows.append(("least possible", "", "", "", least[0], least[1] / 1e6))
    harness.table(title, ("what", "s", "× ours", "CPU s", "requests", "MB"), rows)


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
        peer = rasteret_readers(server, url, side)

        def by_rasteret(rows: slice | np.ndarray, cols: slice | np.ndarray) -> dict[str, Read]:
            if peer is None:
                return {}
            look, read = peer
            known = look()
            return {
                "rasteret": lambda: read(look(), rows, cols),
                "rasteret, header read before": lambda: read(known, rows, cols),
            }

        for title, (rows, cols) in windows.items():
            opened = our_opened(url)
            reads: dict[str, Read] = {
                "geoemb_xr": lambda r=rows, c=cols: our_window(url, r, c),
                "geoemb_xr, opened before": lambda r=rows, c=cols, o=opened: o(r, c),
                "rioxarray": lambda r=rows, c=cols: rioxarray_window(url, r, c),
                "aef-loader": lambda r=rows, c=cols: aef_window(url, side, r, c),
                **by_rasteret(rows, cols),
            }
            show(title, measured(reads, seen, repeat), least_of(path, rows, cols))
        rng = np.random.default_rng(1)
        rows, cols = rng.integers(0, side, points), rng.integers(0, side, points)
        places = np.stack([LEFT + 10 * (cols + 0.5), TOP - 10 * (rows + 0.5)], 1)

        def ours() -> np.ndarray:
            forget_all()
            array = gx.open(
                "alphaearth", url, points=places, bbox_crs=UTM, decode=False, storage=STORAGE
            ).isel(time=0)
            return np.asarray(array.transpose("location", "band").values)

        reads = {
            "geoemb_xr": ours,
            "rasterio, block by block": lambda: rasterio_points(url, rows, cols),
            **by_rasteret(rows, cols),
        }
        whole = slice(0, side)
        show(f"{points} points", measured(reads, seen, repeat), least_of(path, whole, whole))


def tessera_least(zone: Path, side: int, chunks: int, rows: int) -> tuple[int, int]:
    """Requests and bytes of chunks of codes and of scales, in so many rows of neighbours, with the indexes."""
    shards = zone / "embeddings" / "c" / "0" / "0" / "0" / "0", zone / "scales" / "c" / "0" / "0" / "0"
    every = (side // INNER) ** 2
    indexes = len(shards) * (16 * every + 4)
    stored = sum(each.stat().st_size for each in shards) - indexes
    return 2 * (1 + rows), indexes + round(stored * chunks / every)


def bench_tessera(folder: Path, side: int, window: int, points: int, repeat: int) -> None:
    """Windows and points of a Tessera store, beside geotessera, and zarr-python on obstore."""
    import zarr
    from bench_open import write_store
    from geotessera.store import open_zone
    from obstore.store import HTTPStore

    path = write_store(folder / "tessera.zarr", side)
    zone = path / "utm32"
    half, small = side // 2, min(64, side // 4)
    windows = {
        f"{small} px aligned": slice(half, half + small),
        f"{small} px unaligned": slice(half - small // 2 - 8, half + small // 2 - 8),
        f"{window} px aligned": slice(side // 4, side // 4 + window),
        f"{window} px unaligned": slice(side // 4 - 12, side // 4 - 12 + window),
    }
    with in_process(folder, LATENCY, BANDWIDTH) as (server, seen):
        url = f"{server}/{path.name}"

        def bbox_of(rows: slice, cols: slice) -> tuple[float, ...]:
            return LEFT + 10 * cols.start, TOP - 10 * rows.stop, LEFT + 10 * cols.stop, TOP - 10 * rows.start

        def store() -> zarr.storage.ObjectStore:
            return zarr.storage.ObjectStore(HTTPStore.from_url(url, client_options={"allow_http": True}))

        def ours(w: slice) -> np.ndarray:
            forget_all()
            opened = gx.open("tessera", url, bbox=bbox_of(w, w), bbox_crs=UTM, time=2024, storage=STORAGE)
            return np.asarray(opened.values[0])

        def theirs(w: slice) -> np.ndarray:
            group = zarr.open_group(store(), mode="r")["utm32"]
            group["time"][:]  # where the year is; rows and columns are known
            return decode_per_pixel_scale(group["embeddings"][0, :, w, w], group["scales"][0, w, w], 0)

        def geotessera(w: slice) -> np.ndarray:
            mosaic, _ = open_zone(store(), zone=32).tessera.read_region(bbox_of(w, w), 2024)
            return np.moveaxis(mosaic, 2, 0)

        def told(w: slice) -> np.ndarray:
            group = zarr.open_group(store(), mode="r")["utm32"]
            return decode_per_pixel_scale(group["embeddings"][0, :, w, w], group["scales"][0, w, w], 0)

        for title, w in windows.items():
            reads: dict[str, Read] = {
                "geoemb_xr": lambda w=w: ours(w),
                "zarr-python, told the year's place": lambda w=w: told(w),
                "zarr-python on obstore": lambda w=w: theirs(w),
                "geotessera": lambda w=w: geotessera(w),
            }
            rows = len(range(w.start // INNER, -(-w.stop // INNER)))
            least = tessera_least(zone, side, rows**2, rows)
            show(f"{title} of a Tessera store", measured(reads, seen, repeat), least)
        rng = np.random.default_rng(1)
        rows, cols = rng.integers(0, side, points), rng.integers(0, side, points)
        places = np.stack([LEFT + 10 * (cols + 0.5), TOP - 10 * (rows + 0.5)], 1)

        def our_points() -> np.ndarray:
            forget_all()
            opened = gx.open("tessera", url, points=places, bbox_crs=UTM, time=2024, storage=STORAGE)
            return np.asarray(opened.isel(time=0).transpose("location", "band").values)

        def their_points() -> np.ndarray:
            group = zarr.open_group(store(), mode="r")["utm32"]
            codes = group["embeddings"].vindex[0, np.arange(128)[:, None], rows, cols]
            return decode_per_pixel_scale(codes[:, None], group["scales"].vindex[0, rows, cols][None], 0)[
                :, 0
            ].T

        reads = {
            "geoemb_xr": our_points,
            "zarr-python on obstore": their_points,
            "geotessera": lambda: open_zone(store(), zone=32).tessera.sample_points(places.tolist(), 2024),
        }
        chunks = len(np.unique(np.stack([rows // INNER, cols // INNER], 1), axis=0))
        least = tessera_least(zone, side, chunks, chunks)
        show(f"{points} points of a Tessera store", measured(reads, seen, repeat), least)


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
        sides = (256, 128) if small else (2048, 1024)
        bench_tessera(Path(name) / "tessera", *sides, given.points, given.repeat)


if __name__ == "__main__":
    main()
