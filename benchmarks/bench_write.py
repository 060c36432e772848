"""Write codes to Zarr and COG, and feed a torch loader, against xarray, rioxarray and torchgeo.

The peers write the same bytes: xarray the same chunks and shards, rioxarray the same tiles, compression and
interleaving through GDAL's COG driver, with GDAL's own averaged overviews (of codes, so not comparable vectors).
torchgeo reads the same pixels from the published layout, codes as they are. The limit of writing is the stored
bytes written by plain ``write`` calls.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import harness
import numpy as np
import rioxarray  # noqa: F401 - registers .rio
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core.legend import Legend


def source(folder: Path, side: int) -> xr.DataArray:
    """Codes of the scene in a local Zarr, blocks of 512, lazily."""
    block = gx.testing.synthetic("alphaearth", shape=(min(side, 512),) * 2, decode=False).values
    repeats = -(-side // block.shape[-1])
    data = np.tile(block, (1, 1, repeats, repeats))[..., :side, :side]
    grid = gx.testing.geobox((side, side))
    codes = gx.wrap(data, "alphaearth", geobox=grid, time=2018, version="synthetic").chunk(y=512, x=512)
    return gx.open(codes.emb.to_zarr(folder / "source.zarr"), decode=False)


def xarray_zarr(codes: xr.DataArray, path: Path) -> None:
    """The same store by xarray alone."""
    shards = (1, 64, *(min(512, n) for n in codes.shape[2:]))
    chunks = (1, 64, *(min(256, n) for n in codes.shape[2:]))
    encoding = {"embedding": {"shards": shards, "chunks": chunks, "fill_value": -128}}
    dataset = codes.to_dataset(name="embedding").drop_encoding()
    dataset.to_zarr(path, mode="w", zarr_format=3, consolidated=False, encoding=encoding)


def rioxarray_cog(array: xr.DataArray, path: Path, **options: Any) -> None:
    """A COG by GDAL from an array that rioxarray has computed."""
    array.rio.write_nodata(-128 if array.ndim == 3 else 0).rio.to_raster(
        path, driver="COG", blocksize=512, num_threads="ALL_CPUS", bigtiff="IF_SAFER", **options
    )


def plain_write(stored: Path, path: Path) -> None:
    """As many bytes as a file or a store holds, in writes of 16 MB."""
    files = [each for each in stored.rglob("*") if each.is_file()] if stored.is_dir() else [stored]
    left, block = sum(each.stat().st_size for each in files), os.urandom(1 << 24)
    with path.open("wb") as file:
        while left > 0:
            file.write(block[:left])
            left -= len(block)


def loader(dataset: Any, size: int, n: int) -> None:
    """One pass of a DataLoader with two workers."""
    import torch
    from torchgeo.datasets import stack_samples
    from torchgeo.samplers import RandomPatchSampler

    generator = np.random.default_rng(0)
    sampler = RandomPatchSampler(dataset, size=size, length=n, generator=generator)
    batches = torch.utils.data.DataLoader(
        dataset, batch_size=8, sampler=sampler, num_workers=2, collate_fn=stack_samples
    )
    seen = sum(len(batch["image"]) for batch in batches)
    assert seen == n, f"{seen} samples instead of {n}"


def main(argv: list[str] | None = None) -> str:
    """Run it; returns the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args(argv)
    side = 96 if given.small else given.side
    folder = Path(tempfile.mkdtemp(prefix="bench-write-"))
    try:
        return _write(folder, side, given.repeat) + _load(folder, side, given.repeat, small=given.small)
    finally:
        shutil.rmtree(folder)


def _write(folder: Path, side: int, repeat: int) -> str:
    codes = source(folder, side)
    one = codes.emb.year(2018)
    cover = (one.isel(band=0, drop=True) % 6 + 1).astype("u1").drop_attrs(deep=False)
    cover = cover.assign_attrs(Legend.of_names(list("abcdefg")).attrs())
    tile = {"compress": "ZSTD", "level": "3", "predictor": "YES", "interleave": "TILE"}
    pairs = {
        "Zarr, 64 bands": (
            lambda: codes.emb.to_zarr(folder / "ours.zarr", mode="w"),
            lambda: xarray_zarr(codes, folder / "peer.zarr"),
            "xarray",
            folder / "ours.zarr",
        ),
        "COG, 64 bands": (
            lambda: one.emb.to_cog(folder / "ours.tif", mode="w"),
            lambda: rioxarray_cog(one, folder / "peer.tif", overview_resampling="AVERAGE", **tile),
            "rioxarray",
            folder / "ours.tif",
        ),
        "COG, classes": (
            lambda: cover.emb.to_cog(folder / "classes.tif", mode="w"),
            lambda: rioxarray_cog(cover, folder / "peer.tif", overview_resampling="MODE", compress="DEFLATE"),
            "rioxarray",
            folder / "classes.tif",
        ),
    }
    rows = []
    for name, (ours, peer, peer_name, stored) in pairs.items():
        ours()
        peaks = []
        for call in (ours, peer):
            with harness.peak_memory() as peak:
                call()
            peaks.append(peak.extra / 1e6)
        limit = lambda stored=stored: plain_write(stored, folder / "limit.bin")  # noqa: E731
        times = harness.compare({"ours": ours, "peer": peer, "limit": limit}, repeat=repeat)
        rows.append(
            [
                name, f"{times['ours']:.2f} s", peer_name, f"{times['peer'] / times['ours']:.2f} ×",
                f"{times['limit'] / times['ours']:.2f} ×", *peaks,
            ]
        )  # fmt: skip
    title = f"Writing 64 × {side}² codes, and a class map of as many pixels"
    columns = ["what", "ours", "peer", "speed / peer", "speed / plain write", "our peak MB", "peer's peak MB"]
    return harness.table(title, columns, rows)


def _load(folder: Path, side: int, repeat: int, *, small: bool) -> str:
    from torchgeo.datasets import GoogleSatelliteEmbedding

    size, n = (16, 8) if small else (64, 256)
    year = folder / "2018" / "tile.tif"
    year.parent.mkdir()
    codes = gx.open(folder / "source.zarr", decode=False)
    shutil.copy(folder / "ours.tif", year)
    peer = GoogleSatelliteEmbedding(folder / "2018")
    datasets = {
        "Zarr, codes decoded and masked": codes.isel(time=[0]).emb.to_torchgeo(),
        "COG, codes decoded and masked": gx.open(year, decode=False).emb.to_torchgeo(),
    }
    calls = {name: lambda d=dataset: loader(d, size, n) for name, dataset in datasets.items()}
    times = harness.compare({**calls, "torchgeo": lambda: loader(peer, size, n)}, repeat=repeat)
    rows = [[k, n / t, f"{times['torchgeo'] / t:.2f} ×"] for k, t in times.items()]
    return harness.table(
        f"A DataLoader with two workers over {n} patches of {size}² (torchgeo: raw codes, −128 not masked)",
        ["dataset", "patches / s", "speed / torchgeo's GoogleSatelliteEmbedding"],
        rows,
    )


if __name__ == "__main__":
    main()
