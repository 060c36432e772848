"""Images through a backbone from a lazy raster, against the same network fed from memory; and seams between chips.

Peers are the best loops one can write: chips that are cut and normalised already, in batches of the same size; on a
GPU once from chips that lie there (``bare``) and once from page-locked memory, copied beside the work (``locked``).
The tiled inference of terratorch and of rs-embed is compared with in ``bench_tilings.py``.
There everything works in bfloat16. The row ``no network`` has a network that does nothing: how fast it is fed.
Weights are random: a network's time does not depend on them, but seams do, so their angles say how the arithmetic
behaves and nothing of a trained encoder.

On a GPU it needs torch, timm, dask, xarray, numba, odc-geo, pyproj and shapely, and nothing of zarr or rasterio:
``python benchmarks/bench_embed.py --repeat 3``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from harness import compare, consume, table

import geoemb_xr as gx
from geoemb_xr.embedding import backbones, batches

#: The networks of the small run, and of the full one, at 224 pixels, with their lengths and sides of patches.
SMALL = {"resnet18": (512, 32)}
FULL = {
    "resnet50": (2048, 32),
    "vit_small_patch16_224": (384, 16),
    "vit_base_patch16_224": (768, 16),
    "vit_large_patch16_224": (1024, 16),
}
SIDE, BANDS = 224, ("B04", "B03", "B02")


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns the rate of each network from a raster over the rate of the slower peer."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the smallest size, to see that it runs")
    parser.add_argument("--side", type=int, help="chips along a side of the raster")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", help="part of the name of a network")
    given = parser.parse_args(argv)
    on_gpu = torch.cuda.is_available()
    device, threads = ("cuda:0", os.cpu_count() or 2) if on_gpu else ("cpu", 2)
    count = given.side or (128 if on_gpu else 2 if given.small else 6)
    block = 16 if on_gpu else 2
    networks = SMALL if given.small else FULL
    ratios, rows, seams = {}, [], []
    with tempfile.TemporaryDirectory(prefix="geoemb-bench-", dir="/dev/shm" if on_gpu else None) as folder:
        images = raster(count, block, Path(folder) / "images.npy")
        for name in [n for n in networks if not given.only or given.only in n]:
            card = card_of(name, *networks[name], on_gpu)
            lazy = gx.embed(images, card, output="chips", scale=1e-4, device=device)
            module = batches.network(card, device, "auto")
            few = min(count**2, 2048 if on_gpu else count**2)
            calls = {"ours": partial(consume, lazy, threads=threads)}
            calls |= {k: partial(peer, module, few, device) for k, peer in peers(on_gpu).items()}
            times = compare(calls, repeat=given.repeat)
            rates = {k: (count**2 if k == "ours" else few) / seconds for k, seconds in times.items()}
            slower = min(rates[k] for k in rates if k != "ours")
            ratios[name] = rates["ours"] / slower
            shown = [
                f"{rates[k]:,.{0 if on_gpu else 2}f}" if k in rates else ""
                for k in ("ours", "bare", "locked")
            ]
            rows.append([name, *shown, f"{ratios[name]:.2f} ×"])
            if not on_gpu:
                seams += [[name, margin, *angles(images, card, margin)] for margin in (0, card.margin)]
            else:
                rows[-1].append(f"{alike(images, card):.6f}")
        lazy = gx.embed(images, nothing(), output="chips", scale=1e-4, device=device)
        seconds = compare({"ours": partial(consume, lazy, threads=threads)}, repeat=given.repeat)["ours"]
        rows.append(["no network", f"{count**2 / seconds:,.0f}", "", "", "", *[""] * on_gpu])
        if on_gpu:
            print(f"{torch.cuda.get_device_name()}, peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    columns = ["images/s", "from a raster", "bare", "locked", "of the slower"]
    title = f"{count**2} chips of {len(BANDS)} × {SIDE}² in blocks of {block**2}, {threads} threads"
    table(title, columns + ["least cosine to float32"] * on_gpu, rows)
    if seams:
        columns = ["", "margin, pixels", "angle to the next token within a chip", "across a seam"]
        table("Seams, in degrees, of random weights", columns, seams)
    return ratios


def card_of(name: str, dims: int, patch: int, half: bool) -> gx.Encoder:
    """A network of timm with random weights."""
    vit = "vit" in name
    return gx.Encoder(
        name.replace("_", "-"),
        dims=dims,
        bands=BANDS,
        mean=(0.1, 0.1, 0.1),
        std=(0.1, 0.1, 0.1),
        chip=SIDE,
        patch=patch,
        margin=64 if patch == 32 else 48,
        prefix=int(vit),
        pooling="cls" if vit else "mean",
        bfloat16=half,
        weights=f"random, {name}",
        make=partial(make_random, architecture=name),
    )


def make_random(encoder: gx.Encoder, *, architecture: str) -> Any:
    """A network of timm with seeded weights."""
    import timm
    import torch

    torch.manual_seed(0)
    return backbones.features(timm.create_model(architecture, in_chans=len(encoder.bands), num_classes=0))


def nothing() -> gx.Encoder:
    """An encoder whose network takes no time."""
    return gx.Encoder(
        "nothing", dims=3, bands=BANDS, chip=SIDE, patch=SIDE, outputs=("chips",), bfloat16=True, make=make_nothing,
        mean=(0.1,), std=(0.1,),
    )  # fmt: skip


def make_nothing(encoder: gx.Encoder) -> Any:
    """A module that gives a pixel of each chip."""
    import torch

    class First(torch.nn.Module):  # type: ignore[misc]  # torch is imported inside
        """The first pixel."""

        def forward(self, chips: Any) -> Any:
            return chips[:, :, 0, 0]

    return First()


def raster(count: int, block: int, path: Path) -> xr.DataArray:
    """Pictures as 16-bit numbers in a file that is mapped, in blocks of chips, on a lattice that begins with one.

    Of a large raster a quarter of the rows and columns is in the file; the rest repeats it.
    """
    import dask.array as da

    held = max(block, count // 4)
    side = held * SIDE
    rng = np.random.default_rng(0)
    file = np.lib.format.open_memmap(path, "w+", np.uint16, (len(BANDS), side, side))
    for row in range(0, side, SIDE):
        file[:, row : row + SIDE] = rng.integers(200, 4000, (len(BANDS), SIDE, side), np.uint16)
    file.flush()
    part = da.from_array(np.load(path, mmap_mode="r"), chunks=(len(BANDS), block * SIDE, block * SIDE))
    times = count // held
    data = da.concatenate([da.concatenate([part] * times, axis=2)] * times, axis=1)
    # the first pixel's global number is a multiple of a chip
    size = 10 * SIDE
    x0, y0 = round(600_000 / size) * size, round(5_200_000 / size) * size
    along = 10 * np.arange(held * times * SIDE)
    from geoemb_xr.core import geometry

    coords = {
        "band": list(BANDS), "y": y0 - 5 - along, "x": x0 + 5 + along,
        "spatial_ref": geometry.crs_coord("EPSG:32632"),
    }  # fmt: skip
    return xr.DataArray(data, dims=("band", "y", "x"), coords=coords)


# --- peers ----------------------------------------------------------------------------------------------------


def peers(on_gpu: bool) -> dict[str, Any]:
    """The loops to compare with."""
    return {"bare": bare_gpu, "locked": locked_gpu} if on_gpu else {"bare": bare_cpu}


def pooled(made: Any) -> Any:
    """The class token, or the mean of a map."""
    return (made[:, 0] if made.ndim == 3 else made.mean((2, 3))).float()


def bare_cpu(module: Any, count: int, device: str) -> None:
    """Chips in memory, in batches of 20, on as many threads as ours has."""
    import torch

    chips = torch.randn((20, len(BANDS), SIDE, SIDE))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            for start in range(0, count, 20):
                pooled(module(chips[: min(20, count - start)])).numpy()
    finally:
        torch.set_num_threads(before)


def bare_gpu(module: Any, count: int, device: str) -> None:
    """Chips that lie on the device, in batches of 256."""
    import torch

    chips = torch.randn((256, len(BANDS), SIDE, SIDE), device=device, dtype=torch.bfloat16)
    chips = chips.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for _ in range(0, count, 256):
            found = pooled(module(chips))
        found.cpu()
    torch.cuda.synchronize()


_locked: list[Any] = []


def locked_gpu(module: Any, count: int, device: str) -> None:
    """Chips in float32 in page-locked memory, copied on a second stream while the batch before is worked on."""
    import torch

    if not _locked:
        _locked.extend(torch.randn((256, len(BANDS), SIDE, SIDE)).pin_memory() for _ in range(2))
    copies, work = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    out = torch.empty((count, pooled_dims(module)), pin_memory=True)
    with torch.inference_mode():
        coming = None
        for number in range(-(-count // 256) + 1):
            now = coming
            if number < -(-count // 256):
                with torch.cuda.stream(copies):
                    coming = _locked[number % 2].to(device, non_blocking=True)
            if now is not None:
                given = now.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
                start = (number - 1) * 256
                out[start : start + 256].copy_(pooled(module(given))[: count - start], non_blocking=True)
            work.wait_stream(copies)
            if coming is not None:
                coming.record_stream(work)
    torch.cuda.synchronize()


def pooled_dims(module: Any) -> int:
    """Length of a network's vectors."""
    return int(module.network.num_features)


# --- what comes out -------------------------------------------------------------------------------------------


def alike(images: xr.DataArray, card: gx.Encoder) -> float:
    """The least cosine of vectors in bfloat16 to those in float32, of one block."""
    some = images.isel(y=slice(4 * SIDE), x=slice(4 * SIDE))
    half, full = (
        gx.embed(some, card, output="chips", scale=1e-4, precision=p, device="cuda:0").values.reshape(
            card.dims, -1
        )
        for p in ("bfloat16", "float32")
    )
    lengths = np.linalg.norm(half, axis=0) * np.linalg.norm(full, axis=0)
    return float(((half * full).sum(0) / lengths).min())


def angles(images: xr.DataArray, card: gx.Encoder, margin: int) -> tuple[float, float]:
    """Mean angle between neighbouring tokens of one chip, and of two."""
    tokens = gx.embed(images, card, margin=margin, scale=1e-4).compute()
    own = (card.chip - 2 * margin) // card.patch
    first = round(float(tokens.x[0]) / (10 * card.patch) - 0.5)
    unit = tokens.values / np.linalg.norm(tokens.values, axis=0)
    cosine = (unit[:, :, 1:] * unit[:, :, :-1]).sum(0).clip(-1, 1)
    angle = np.degrees(np.arccos(cosine)).mean(0)
    across = (first + 1 + np.arange(angle.size)) % own == 0
    return float(angle[~across].mean()), float(angle[across].mean()) if across.any() else float("nan")


if __name__ == "__main__":
    main()
