"""Images through a backbone from a lazy raster, against the same network fed from memory; and seams between chips.

The peer is the best loop one can write: chips that are cut and normalised already, in batches of the same size.
Weights are random: a network's time does not depend on them, but seams do, so their angles say how the arithmetic
behaves and nothing of a trained encoder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from harness import compare, consume, table
from looking import options

import geoemb_xr as gx
from geoemb_xr.embedding import batches
from geoemb_xr.embedding.inputs import WAVELENGTHS

#: The networks of the small run, and of the full one.
SMALL, FULL = ("ssl4eo-resnet18-moco",), ("ssl4eo-resnet50-moco", "ssl4eo-vits16-dino")


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns the rate of each network from a raster over the rate from memory."""
    import torch

    given = options(__doc__, argv, 1568)
    side = 448 if given.small else max(448, given.side // 224 * 224)
    ratios, rows, seams = {}, [], []
    with tempfile.TemporaryDirectory(prefix="geoemb-bench-") as folder:
        for name in SMALL if given.small else FULL:
            card = gx.encoder(name, weights=random_weights(name, Path(folder)))
            images = raster(side, Path(folder) / f"{name}.zarr")
            lazy = gx.embed(images, card, output="chips", chunks=448)
            chips = images.values.reshape(13, side // 224, 224, side // 224, 224)
            chips = np.ascontiguousarray(chips.transpose(1, 3, 0, 2, 4).reshape(-1, 13, 224, 224))
            device = "cuda" if torch.cuda.is_available() else "cpu"
            module = batches.network(card, "cuda:0" if device == "cuda" else "cpu")
            calls = {
                "ours": lambda lazy=lazy: consume(lazy),
                "bare": lambda chips=chips, module=module, device=device: bare(module, chips, device),
            }
            times = compare(calls, repeat=given.repeat)
            ratios[name] = times["bare"] / times["ours"]
            rate = len(chips) / times["ours"]
            rows.append([name, device, rate, len(chips) / times["bare"], f"{ratios[name]:.2f} ×"])
            seams += [[name, margin, *angles(images, card, margin)] for margin in (0, card.margin)]
    columns = ["", "device", "images/s from a raster", "images/s from memory", "of it"]
    table(f"Chips of 13 × 224 × 224 from {side}² pixels", columns, rows)
    columns = ["", "margin, pixels", "angle to the next token within a chip", "across a seam"]
    table("Seams, in degrees, of random weights", columns, seams)
    return ratios


def random_weights(name: str, folder: Path) -> Path:
    """A file of random weights for a backbone."""
    import timm
    import torch

    from geoemb_xr.embedding.backbones import _SOURCES

    torch.manual_seed(0)
    path = folder / f"{name}.pth"
    torch.save(timm.create_model(_SOURCES[name][0], in_chans=13, num_classes=0).state_dict(), path)
    return path


def raster(side: int, path: Path) -> xr.DataArray:
    """Pictures of all bands in a local store, on a lattice whose chips begin with it."""
    grid = gx.testing.geobox((side, side), resolution=10.0)
    images = gx.testing.images(grid=grid, bands=tuple(WAVELENGTHS))
    # moved so that the first pixel's global number is a multiple of a chip
    size = 10 * 224
    x0, y0 = round(float(images.x[0]) / size) * size, round(float(images.y[0]) / size) * size
    images = images.assign_coords(x=x0 + 5 + 10 * np.arange(side), y=y0 - 5 - 10 * np.arange(side))
    images.drop_vars("spatial_ref").to_dataset().chunk({"y": 448, "x": 448}).to_zarr(
        path, zarr_format=3, consolidated=False
    )
    back = xr.open_zarr(path, consolidated=False)["images"]
    return back.assign_coords(spatial_ref=images.spatial_ref)


def bare(module: Any, chips: np.ndarray, device: str) -> None:
    """The network on chips in memory."""
    import torch

    size = 256 if device == "cuda" else 20
    with torch.inference_mode():
        for start in range(0, len(chips), size):
            features = module(torch.from_numpy(chips[start : start + size]).to(device))
            (features[:, 0] if features.ndim == 3 else features.mean((2, 3))).cpu()


def angles(images: xr.DataArray, card: gx.Encoder, margin: int) -> tuple[float, float]:
    """Mean angle between neighbouring tokens of one chip, and of two."""
    tokens = gx.embed(images, card, margin=margin).compute()
    own = (card.chip - 2 * margin) // card.patch
    first = round(float(tokens.x[0]) / (10 * card.patch) - 0.5)
    unit = tokens.values / np.linalg.norm(tokens.values, axis=0)
    cosine = (unit[:, :, 1:] * unit[:, :, :-1]).sum(0).clip(-1, 1)
    angle = np.degrees(np.arccos(cosine)).mean(0)
    across = (first + 1 + np.arange(angle.size)) % own == 0
    return float(angle[~across].mean()), float(angle[across].mean()) if across.any() else float("nan")


if __name__ == "__main__":
    main()
