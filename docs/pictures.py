"""Draw ``images/seamless.png``: colours of two neighbouring tiles and two years, fitted once and fitted each.

Run it as ``python docs/pictures.py``; the picture is kept in the repository, so that the README needs no build.
"""

import io
from pathlib import Path

import matplotlib
import xarray as xr

import geoemb_xr as gx

YEARS = (2018, 2024)


def seamless(path: Path) -> Path:
    """Write the picture: a row a way to fit, a column a year."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    scene = gx.testing.synthetic("alphaearth", shape=(300, 440), years=YEARS, decode=False)
    tiles = [scene.isel(x=slice(0, 220)), scene.isel(x=slice(220, None))]
    once = gx.fit_pca(tiles, 3)
    figure, axes = plt.subplots(2, 2, figsize=(9, 7.4), layout="constrained")
    for year, (above, below) in zip(YEARS, axes.T, strict=True):
        parts = [tile.emb.year(year) for tile in tiles]
        fits = {
            f"{year}: one fit for both tiles and years": [once, once],
            f"{year}: a fit for each tile and year": [part.emb.fit_pca(3) for part in parts],
        }
        for ax, (title, models) in zip((above, below), fits.items(), strict=True):
            pictures = [part.emb.rgb(model) for part, model in zip(parts, models, strict=True)]
            xr.concat(pictures, "x").emb.plot(ax=ax, title=title)
            border = float(tiles[1].x[0] - 5)
            ax.annotate("tile | tile", (border, 0), (0, 2), ("data", "axes fraction"), "offset points",
                        ha="center", va="bottom", fontsize=7)  # fmt: skip
    figure.suptitle("Two neighbouring tiles of a synthetic scene, the first three components as colours")
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    Image.open(drawn).convert("RGB").quantize(200, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


if __name__ == "__main__":
    print(seamless(Path(__file__).parent / "images" / "seamless.png"))
