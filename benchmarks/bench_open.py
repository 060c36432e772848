"""Open and read stored embeddings: AlphaEarth COGs against aef-loader and rioxarray, Tessera against geotessera.

Sources lie on the local disk in their published layout (south-up planar zstd COGs with blocks of 1024²; Zarr chunks
of 32² in shards) and hold random codes. Results are compared bit for bit before anything is timed. The limit of a
read is what GDAL or zarr alone takes to fill one array with the same codes.
"""

from __future__ import annotations

import argparse
import asyncio
import pickle
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dask
import harness
import numpy as np
import rasterio
import xarray as xr
import zarr
from affine import Affine

import geoemb_xr as gx
from geoemb_xr.core import areas, geometry
from geoemb_xr.core.codecs import decode_per_pixel_scale, decode_signed_square
from geoemb_xr.examples import tessera as examples
from geoemb_xr.readers import geotiff

UTM, LEFT, TOP = "EPSG:32632", 600_000, 5_200_000


def write_cogs(folder: Path, side: int, tiles: int) -> list[Path]:
    """``tiles``² COGs as AlphaEarth publishes them, of random codes."""
    rng, files = np.random.default_rng(0), []
    for i in range(tiles**2):
        row, col = divmod(i, tiles)
        box = geometry.make_geobox(
            (side, side), Affine(10, 0, LEFT + col * side * 10, 0, 10, TOP + row * side * 10), UTM
        )
        path = folder / "2024" / "32N" / f"tile-{row}-{col}.tiff"
        codes = rng.integers(-127, 128, (64, side, side), dtype=np.int8)
        block = min(1024, side)
        geotiff.write_geotiff(
            path,
            codes,
            box,
            nodata=-128,
            compress="zstd",
            interleave="band",
            blockxsize=block,
            blockysize=block,
        )
        files.append(path)
    return files


def write_store(path: Path, side: int) -> Path:
    """A Tessera store of one zone as geotessera writes it, of random codes."""
    rng = np.random.default_rng(1)
    box = geometry.make_geobox((side, side), Affine(10, 0, LEFT, 0, -10, TOP), UTM)
    codes = rng.integers(-127, 128, (1, 128, side, side), dtype=np.int8)
    scales = rng.uniform(0.05, 0.4, (1, side, side)).astype(np.float32)
    return examples.write_store(path, box, codes, scales, (2024,))


def aef_loader(files: list[Path], side: int) -> xr.DataArray:
    """aef-loader on local files: a store of its reader stands for the bucket."""
    from aef_loader import VirtualTiffReader
    from aef_loader.types import AEFTileInfo
    from obstore.store import LocalStore

    root = files[0].parents[2]
    infos = []
    for path in files:
        with rasterio.open(path) as file:
            b = file.bounds
        west, north = geometry.transformer(geometry.as_crs(UTM), geometry.as_crs("EPSG:4326")).transform(
            b.left, b.top
        )
        lonlat = (west, north - 0.1, west + 0.1, north)
        infos.append(
            AEFTileInfo(
                id=path.stem, path=f"s3://fx/{path.relative_to(root)}", year=2024, bbox=lonlat, crs_epsg=32632,
                utm_zone="32N", utm_bounds=(b.left, b.bottom, b.right, b.top),
            )
        )  # fmt: skip

    async def run() -> Any:
        async with VirtualTiffReader() as reader:
            reader._stores["s3://fx"] = LocalStore(str(root))
            return await reader.open_tiles_by_zone(infos)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (zone,) = asyncio.run(run()).children.values()
    opened: xr.DataArray = zone["embeddings"]
    return opened


def rioxarray_mosaic(files: list[Path]) -> xr.DataArray:
    """Rioxarray as its documentation advises for speed: lazy, without its lock, blocks of the file's."""
    import rioxarray

    opened = [rioxarray.open_rasterio(f, chunks={"x": 1024, "y": 1024}, lock=False) for f in files]
    joined: xr.DataArray = xr.combine_by_coords([o.to_dataset(name="e").sortby("y") for o in opened])["e"]
    return joined


def rows_of(seconds: Mapping[str, float], ours: str, limit: str | None) -> list[tuple[Any, ...]]:
    """A row a candidate: milliseconds, its time over ours, over the limit."""
    return [
        (name, 1e3 * t, t / seconds[ours], t / seconds[limit] if limit else "") for name, t in seconds.items()
    ]


COLUMNS = ("what", "ms", "× ours", "× the limit")


def run(
    title: str, calls: dict[str, Callable[[], Any]], repeat: int, limit: str | None = None
) -> dict[str, float]:
    """Time candidates in turns and print them; the first is ours."""
    seconds = harness.compare(calls, repeat=repeat)
    harness.table(title, COLUMNS, rows_of(seconds, next(iter(calls)), limit))
    return seconds


def bench_cogs(folder: Path, side: int, tiles: int, window: int, repeat: int) -> None:
    """Open COGs, and read a decoded window that lies over four of them."""
    from aef_loader import dequantize_aef

    files = write_cogs(folder, side, tiles)
    seam = (LEFT + side * 10, TOP + side * 10)
    half = window * 5
    bbox = (seam[0] - half, seam[1] - half, seam[0] + half, seam[1] + half)

    def cold() -> Any:
        geotiff._read_info.cache_clear()
        return gx.open("alphaearth", files)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(
            f"Open {len(files)} COGs of 64 × {side}²",
            {
                "geoemb_xr": cold,
                "geoemb_xr, headers known": lambda: gx.open("alphaearth", files),
                "rioxarray + combine_by_coords": lambda: rioxarray_mosaic(files),
                "aef-loader": lambda: aef_loader(files, side),
                "limit: rasterio.open of each": lambda: [rasterio.open(f).close() for f in files],
            },
            repeat,
            "limit: rasterio.open of each",
        )
        peers = {"aef-loader": aef_loader(files, side), "rioxarray": rioxarray_mosaic(files)}

    def ours() -> np.ndarray:
        return gx.open("alphaearth", files, bbox=bbox, bbox_crs=UTM, time=2024).values

    def theirs(array: xr.DataArray) -> np.ndarray:
        y = slice(bbox[1], bbox[3]) if float(array.y[0]) < float(array.y[-1]) else slice(bbox[3], bbox[1])
        part = array.sel(x=slice(bbox[0], bbox[2]), y=y).sortby("y", ascending=False).squeeze(drop=True)
        return np.asarray(dequantize_aef(part).transpose("band", "y", "x").values)

    def limit() -> np.ndarray:
        out = np.empty((64, window, window), np.int8)
        k = window // 2
        for path in files[: tiles + 2]:
            row, col = (int(part) for part in path.stem.split("-")[1:])
            if row > 1 or col > 1:
                continue
            with rasterio.open(path) as file:
                rows = (side - k, side) if row == 0 else (0, k)
                cols = (side - k, side) if col == 0 else (0, k)
                at = out[:, k * row : k * row + k, k * col : k * col + k]
                file.read(out=at, window=(rows, cols))
        return decode_signed_square(out[:, ::-1], None, 0)

    expected = ours()[0]
    for name, array in peers.items():
        np.testing.assert_allclose(theirs(array), expected, atol=1.2e-7, err_msg=name)
    if tiles == 2:
        np.testing.assert_array_equal(limit(), expected)
    run(
        f"Read and decode {window}² over four COGs, opening included for ours",
        {
            "geoemb_xr": ours,
            **{
                f"{name} (opened before)": (lambda array=array: theirs(array))
                for name, array in peers.items()
            },
            "limit: GDAL reads, one decode": limit,
        },
        repeat,
        "limit: GDAL reads, one decode",
    )


def bench_tessera(folder: Path, side: int, window: int, points: int, repeat: int) -> None:
    """Read a region and points of a Tessera store."""
    from geotessera.store import GeoTesseraZarr

    path = write_store(folder / "tessera.zarr", side)
    store = GeoTesseraZarr(str(path))
    x0, y0 = LEFT + side * 5, TOP - side * 5
    utm = (x0 - window * 5, y0 - window * 5, x0 + window * 5, y0 + window * 5)
    zone = store.open_zone(zone=32)
    group = zarr.open_group(path, mode="r")["utm32"]
    r0, r1 = side // 2 - window // 2, side // 2 + window // 2

    def ours() -> np.ndarray:
        return gx.open("tessera", path, bbox=utm, bbox_crs=UTM, time=2024).values[0]

    def plain() -> np.ndarray:
        opened = xr.open_zarr(path, group="utm32", consolidated=True, chunks={"y": 256, "x": 256})
        cut = opened.isel(time=0, y=slice(r0, r1), x=slice(r0, r1))
        return (cut.embeddings * cut.scales.where(np.isfinite(cut.scales))).transpose("band", "y", "x").values

    def limit() -> np.ndarray:
        codes = group["embeddings"][0, :, r0:r1, r0:r1]
        return decode_per_pixel_scale(codes, group["scales"][0, r0:r1, r0:r1], 0)

    expected = ours()
    np.testing.assert_array_equal(zone.tessera.read_region(utm, 2024)[0], np.moveaxis(expected, 0, -1))
    np.testing.assert_array_equal(limit(), expected)
    np.testing.assert_array_equal(plain(), expected)
    run(
        f"Read and decode {window}² of a Tessera store, opening included for ours",
        {
            "geoemb_xr": ours,
            "geotessera read_region (opened before)": lambda: zone.tessera.read_region(utm, 2024),
            "xarray.open_zarr, chunks 256²": plain,
            "limit: zarr reads, one decode": limit,
        },
        repeat,
        "limit: zarr reads, one decode",
    )
    rng = np.random.default_rng(2)
    x, y = LEFT + 10 * rng.uniform(1, side - 1, points), TOP - 10 * rng.uniform(1, side - 1, points)
    lon, lat = geometry.transformer(geometry.as_crs(UTM), geometry.as_crs("EPSG:4326")).transform(x, y)
    pairs = list(zip(lon.tolist(), lat.tolist(), strict=True))

    def our_points() -> np.ndarray:
        return gx.open("tessera", path, points=np.stack([lon, lat], 1), time=2024).values[0]

    def their_points() -> np.ndarray:
        return store.sample_points(pairs, 2024, cross_zone=False, search_px=0)

    same = (our_points() == their_points()).all(axis=1).mean()
    run(
        f"{points} points of a Tessera store (vectors alike: {same:.2%}), opening included for ours",
        {"geoemb_xr": our_points, "geotessera sample_points (opened before)": their_points},
        repeat,
    )


def bench_mosaic(folder: Path, repeat: int) -> None:
    """A small window of a store shaped like the public mosaic, of which only metadata exist."""
    path = folder / "aef-mosaic.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=3)
    step = 8.983111749910169e-05
    root.attrs.update(
        {"proj:code": "EPSG:4326", "spatial:transform": [step, 0, -180, 0, -step, 83.68570533713473]}
    )
    root.create_array(
        "embeddings", shape=(9, 64, 1_859_584, 4_009_984), chunks=(1, 64, 256, 256), shards=(1, 64, 4096, 4096),
        dtype="int8", fill_value=-128, dimension_names=("time", "band", "y", "x"),
    )  # fmt: skip
    times = root.create_array("time", shape=(9,), dtype="int32", dimension_names=("time",))
    times[:] = np.arange(2017, 2026)
    bbox = (11.3, 47.2, 11.35, 47.23)

    def ours() -> Any:
        return gx.open("alphaearth", path, bbox=bbox, time=2024)

    decode_signed_square(np.zeros((64, 2, 2), np.int8), None, 0)  # brings numba, which is not what is asked
    areas.area_of(geometry.make_geobox((2, 2), Affine(10, 0, LEFT, 0, -10, TOP), UTM))
    with harness.peak_memory() as peak:
        ours()[:, :, :64, :64].compute()
    seconds = harness.compare(
        {"open a window": ours, "and compute 64² of it": lambda: ours()[:, :, :64, :64].compute()},
        repeat=repeat,
    )
    rows = [(name, 1e3 * t, peak.extra / 1e6) for name, t in seconds.items()]
    harness.table(
        "The public mosaic's shape, 9 × 64 × 1,859,584 × 4,009,984 (opened whole it is 10⁹ chunks)",
        ("what", "ms", "MB above imports"),
        rows,
    )


def bench_scale(folder: Path, count: int, side: int) -> None:
    """Many tiles in three zones and three years: files that are really opened, and blocks that are only planned."""
    for zone in (31, 32, 33):
        for year in (2022, 2023, 2024):
            for i in range(count):
                affine = Affine(10, 0, 300_000 + i % 8 * side * 10, 0, 10, 5_000_000 + i // 8 * side * 10)
                path = folder / str(year) / f"{zone}N" / f"x-{i:04d}.tiff"
                path.parent.mkdir(parents=True, exist_ok=True)
                profile = {
                    "driver": "GTiff", "count": 64, "height": side, "width": side, "dtype": "int8", "nodata": -128,
                    "crs": f"EPSG:{32600 + zone}", "transform": affine, "tiled": True, "compress": "zstd",
                    "interleave": "band", "sparse_ok": True, "blockxsize": 1024, "blockysize": 1024,
                }  # fmt: skip
                rasterio.open(path, "w", **profile).close()
    files, rows = 9 * count, []
    start, cpu = time.perf_counter(), time.process_time()
    opened = gx.open("alphaearth", folder, zones="separate")
    rows.append((f"open {files} tiles", time.perf_counter() - start, time.process_time() - cpu, ""))
    start, cpu = time.perf_counter(), time.process_time()
    opened = gx.open("alphaearth", folder, zones="separate")
    rows.append(("again, headers known", time.perf_counter() - start, time.process_time() - cpu, ""))
    blocks = sum(each.data.npartitions for each in opened.values())
    start, cpu = time.perf_counter(), time.process_time()
    optimised = dask.optimize(*(each.data for each in opened.values()))
    size = len(pickle.dumps(optimised)) / 1e6
    seconds = (time.perf_counter() - start, time.process_time() - cpu)
    rows.append((f"optimise {blocks:,} blocks", *seconds, size))
    harness.table("Three zones × three years", ("what", "s", "s of CPU", "MB of graph"), rows)


def main(argv: list[str] | None = None) -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the smallest size, to see that it runs")
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args(argv)
    small = given.small
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench_mosaic(folder, given.repeat)
        bench_cogs(folder / "aef", 128 if small else 1024, 2, 64 if small else 512, given.repeat)
        bench_tessera(
            folder, 128 if small else 1024, 64 if small else 600, 20 if small else 500, given.repeat
        )
        bench_scale(folder / "many", 2 if small else 56, 1024 if small else 8192)


if __name__ == "__main__":
    main()
