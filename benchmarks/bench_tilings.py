"""The vectors of one place under ten tilings: an area of interest that begins a patch further each time.

Galileo nano embeds the same pictures in ten windows. A place that lies in all of them should have one vector.
Peers are terratorch, whose tiled inference cuts the edges of chips off and blends what overlaps, and rs-embed,
which joins tiles at midpoints. All three have chips of 64 pixels and patches of 8. The yardstick is the angle
between neighbouring places.

Both peers want an environment of their own, since terratorch needs an older torchgeo:
``pip install "torchgeo<0.10" terratorch rs-embed -e ".[encoders]"``. Peers that are not installed are left out.
``--weights`` is the folder of Galileo nano's weights (``encoder.pt`` and ``config.json``). Without it weights are
random, and rs-embed, which wants the published ones, is left out.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import xarray as xr
from harness import table

import geoemb_xr as gx
from geoemb_xr.embedding import batches, galileo
from geoemb_xr.testing import images

CHIP, PATCH, MARGIN = 64, 8, 16
DATES = ("2024-04-15", "2024-07-15")
BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")

#: From pictures ``(time, band, y, x)`` of digital numbers to vectors ``(y, x, band)`` of patches.
Tiler = Callable[[xr.DataArray], np.ndarray]


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it; returns the largest angle of each way, in degrees."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the smallest size, to see that it runs")
    parser.add_argument("--weights", type=Path, help="folder of Galileo nano's weights")
    parser.add_argument("--repeat", type=int, default=1, help="each window is a round of its own")
    given = parser.parse_args(argv)
    count, side = (2, 192) if given.small else (10, 320)
    with TemporaryDirectory(prefix="geoemb-bench-") as folder:
        weights = given.weights or random_weights(Path(folder))
        card = gx.encoder("galileo-nano", weights=weights / "encoder.pt")
        card = replace(card, chip=CHIP, patch=PATCH, margin=MARGIN, seam=())
        area = scene(side + (count - 1) * PATCH)
        ways = {"geoemb_xr": ours(card), **peers(card, weights if given.weights else None)}
        found = {name: under_tilings(tiler, area, side, count) for name, tiler in ways.items()}
    own = found["geoemb_xr"][2]
    rows = [
        [name, f"{np.median(largest):.4f}", f"{largest.max():.4f}", f"{beside:.1f}", f"{seconds / own:.2f} ×"]
        for name, (largest, beside, seconds) in found.items()
    ]
    which = "published" if given.weights else "random"
    table(
        f"Largest angle between the vectors of one place under {count} tilings, in degrees, {which} weights",
        ["", "median of places", "largest", "neighbours, median", "CPU time of a window"],
        rows,
    )
    return {name: float(largest.max()) for name, (largest, *_) in found.items()}


def scene(side: int) -> xr.DataArray:
    """Sentinel-2 of two months as digital numbers, on a grid that begins with a chip."""
    from affine import Affine

    from geoemb_xr.core import geometry

    grid = geometry.make_geobox((side, side), Affine(10, 0, 640_000, 0, -10, 5_280_000), "EPSG:32632")
    return (images(dates=DATES, bands=BANDS, grid=grid) * 1e4).astype(np.float32)


def random_weights(folder: Path) -> Path:
    """The folder, with weights at random."""
    import torch

    torch.manual_seed(0)
    state = galileo._network(gx.encoder("galileo-nano"), 4).state_dict()
    torch.save(
        {name: torch.randn(values.shape) * 0.2 for name, values in state.items()}, folder / "encoder.pt"
    )
    return folder


def under_tilings(tiler: Tiler, area: xr.DataArray, side: int, count: int) -> tuple[np.ndarray, float, float]:
    """The largest angle of each place between tilings, the median one between neighbours, and CPU s per window.

    Places lie a chip or more inside every window, so that no edge of an image plays a part.
    """
    found, seconds = [], []
    for number in range(count):
        shift = slice(number * PATCH, number * PATCH + side)
        start = time.process_time()
        vectors = tiler(area.isel(y=shift, x=shift))
        seconds.append(time.process_time() - start)
        inside = slice(CHIP // PATCH + count - 1 - number, (side - CHIP) // PATCH - number)
        found.append(vectors[inside, inside].astype(np.float64))
    stacked = np.stack(found)
    stacked /= np.linalg.norm(stacked, axis=-1, keepdims=True)
    pairs = [angles(stacked[i], stacked[j]) for i in range(count) for j in range(i)]
    return (
        np.max(pairs, axis=0),
        float(np.median(angles(stacked[0][1:], stacked[0][:-1]))),
        float(np.median(seconds)),
    )


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between unit vectors, exact for small ones."""
    return 2 * np.degrees(np.arcsin(np.clip(np.linalg.norm(a - b, axis=-1) / 2, 0, 1)))


def ours(card: gx.Encoder) -> Tiler:
    """Through ``embed``, whose chips are anchored to the grid of the images."""

    def tile(window: xr.DataArray) -> np.ndarray:
        made = gx.embed(window.chunk(y=96, x=96), card)
        return made.transpose("y", "x", ..., "band").squeeze().values

    return tile


def peers(card: gx.Encoder, weights: Path | None) -> dict[str, Tiler]:
    """Those that are installed."""
    found: dict[str, Tiler] = {}
    try:
        from terratorch.tasks.tiled_inference import tiled_inference
    except ImportError:
        print("terratorch is not installed: left out")
    else:
        found["terratorch, tiled_inference"] = blended(card, tiled_inference)
    try:
        import rs_embed
    except ImportError:
        print("rs-embed is not installed: left out")
    else:
        if weights is not None:
            os.environ |= {
                "RS_EMBED_GALILEO_MODEL_SIZE": "nano",
                "RS_EMBED_GALILEO_MODEL_PATH": str(weights),
                "RS_EMBED_GALILEO_NORM": "official_stats",
            }
            found["rs-embed"] = joined(rs_embed)
    return found


def blended(card: gx.Encoder, tiled_inference: Any) -> Tiler:
    """Through terratorch: the same network, each vector spread over the pixels of its patch, as its outputs are."""
    import torch

    network = batches.network(card, "cpu", "auto")
    present = tuple(card.bands.index(band) for band in BANDS)
    months = torch.tensor([int(date[5:7]) - 1 for date in DATES])
    rows = CHIP // PATCH

    def forward(chips: Any) -> Any:
        given, absent = batches.masked(chips.transpose(1, 2), card, present)
        n = len(given)
        lonlat = torch.tensor([[11.0, 47.6]]).expand(n, 2)
        made = network(given, absent=absent, months=months.expand(n, -1), lonlat=lonlat)[:, card.prefix :]
        grid = made.transpose(1, 2).unflatten(2, (rows, rows))
        return grid.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)

    def tile(window: xr.DataArray) -> np.ndarray:
        pictures = torch.from_numpy(window.transpose("band", "time", "y", "x").values)[None]
        with torch.inference_mode():
            made = tiled_inference(
                forward, pictures, crop=CHIP, stride=CHIP - 3 * PATCH, delta=PATCH, batch_size=16
            )
        return made[0, :, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].permute(1, 2, 0).numpy()

    return tile


def joined(rs_embed: Any) -> Tiler:
    """Through rs-embed's own network and tiles, from the same files of weights."""

    def tile(window: xr.DataArray) -> np.ndarray:
        data = rs_embed.UserData(
            data=window.values,
            collection="COPERNICUS/S2_SR_HARMONIZED",
            bands=tuple(b.replace("B0", "B") for b in BANDS),
            spatial=rs_embed.PointBuffer(lon=11.0, lat=47.0, buffer_m=1000),
            temporal=rs_embed.TemporalSpec.range("2024-04-01", "2024-08-01"),
            scale_m=10,
        )
        made = rs_embed.get_embedding_from_data("galileo", data, output=rs_embed.OutputSpec.grid())
        return np.asarray(made.data).transpose(1, 2, 0)

    return tile


if __name__ == "__main__":
    main()
