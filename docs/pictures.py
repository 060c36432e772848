"""Draw the pictures of README and documentation that are kept in the repository, so that both need no build.

``python docs/pictures.py`` draws ``images/seamless.png`` of the synthetic scene, and where ``GEOEMB_REAL_DATA``
names a folder with real samples (an AlphaEarth chip in Wisconsin, points with labels in Iowa) all that opens README
and documentation. The pixels themselves stay out of the repository. ``python docs/pictures.py notebooks`` runs the
notebooks and keeps the picture of the cell that each has tagged ``picture``; ``notebooks 01 04`` runs these two.
"""

import base64
import io
import json
import os
import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import xarray as xr

import geoemb_xr as gx

IMAGES = Path(__file__).parent / "images"
YEARS = (2018, 2024)
CHIP = "alphaearth-raster/aef_wi_2024_int8_northup.tif"
POINTS = "alphaearth-points/alphaearth_s1_dw_samples_iowa_ag_2024.csv"
#: Dynamic World's classes by code, and the probability from which on a point of a class is taken.
CLASSES = (
    "water",
    "trees",
    "grass",
    "flooded_vegetation",
    "crops",
    "shrub_and_scrub",
    "built",
    "bare",
    "snow_and_ice",
)
SOUND = {"water": 0.4, "trees": 0.4, "grass": 0.33, "crops": 0.4, "built": 0.4}
#: Row and column of the pixel that is clicked: a field.
CLICK = 82, 72


def main(what: list[str]) -> None:
    """Draw what is asked for."""
    matplotlib.use("agg")
    if what[:1] == ["notebooks"]:
        drawn = notebooks(tuple(what[1:]))
    else:
        drawn = [seamless(IMAGES / "seamless.png")]
        if "GEOEMB_REAL_DATA" in os.environ:
            drawn += real(Path(os.environ["GEOEMB_REAL_DATA"]))
    print(*drawn, sep="\n")


# --- real pixels ------------------------------------------------------------------------------------------------


def real(data: Path) -> list[Path]:
    """Draw the real chip: its colours, clusters and likeness to a click; a land-cover map and where it holds."""
    chip = gx.open("alphaearth", data / CHIP).emb.year(2024).load()
    row, col = CLICK
    clicked = chip.isel(y=row, x=col)
    maps = chip.emb.predict(land_cover(data / POINTS), output=["label", "aoa", "entropy"]).compute()
    pictures = {
        "colours": chip.emb.rgb(chip.emb.fit_pca(3)),
        "clusters": chip.emb.predict(chip.emb.fit_clusters(7, seed=0)).compute(),
        "similarity": chip.emb.similarity(clicked).compute(),
        "land-cover": maps["label"],
        "applicability": pale(maps["aoa"]),
        "doubt": maps["entropy"],
    }
    titles = {
        "colours": "Three components as colours",
        "clusters": "Seven clusters",
        "similarity": "Similar to a click",
        "land-cover": "Land cover from labels in Iowa",
        "applicability": "Where those labels apply",
        "doubt": "Doubt: entropy of the classes",
    }
    place = float(chip.x[col]), float(chip.y[row])
    drawn = [thumbnail(pictures[name], name, place if name == "similarity" else None) for name in pictures]
    first, second = list(titles)[:3], list(titles)[3:]
    drawn.append(beside({titles[n]: pictures[n] for n in first}, IMAGES / "look.png", place))
    drawn.append(beside({titles[n]: pictures[n] for n in second}, IMAGES / "map.png"))
    return drawn


def land_cover(path: Path) -> gx.Probe:
    """Fit a probe to points in Iowa, 600 km from the chip, whose Dynamic World class is sure and sound."""
    table = pd.read_csv(path)
    table["land cover"] = np.array(CLASSES)[table["dw_label"]]
    sure = table[list(CLASSES)].max(axis=1) > table["land cover"].map(SOUND)
    kept = table[sure].drop(columns=list(CLASSES))
    return gx.fit_probe(kept, target="land cover")


def pale(aoa: xr.DataArray) -> xr.DataArray:
    """The area of applicability in colours that no land cover has."""
    legend = json.loads(aoa.attrs["legend"])
    colours = {"inside": "#dfe7ec", "outside": "#7a6f9b"}
    return aoa.assign_attrs(legend=json.dumps([{**each, "colour": colours[each["name"]]} for each in legend]))


def thumbnail(array: xr.DataArray, name: str, ring: tuple[float, float] | None) -> Path:
    """Draw nothing but the pixels, four by four each."""
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots()
    array.emb.plot(ax=ax, title="")
    (image,) = ax.images
    rgba = image.to_rgba(image.get_array(), bytes=True)
    plt.close(figure)
    large = np.kron(rgba, np.ones((4, 4, 1), np.uint8))
    if ring is not None:
        large = ringed(large, array, ring)
    return save(large, IMAGES / f"{name}.png", colours=128)


def ringed(pixels: np.ndarray, array: xr.DataArray, place: tuple[float, float]) -> np.ndarray:
    """The pixels with a ring, black around white, at a place."""
    row = 4 * int(np.abs(array.y.values - place[1]).argmin()) + 2
    col = 4 * int(np.abs(array.x.values - place[0]).argmin()) + 2
    rows, cols = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    distance = np.hypot(rows - row, cols - col)
    drawn = pixels.copy()
    drawn[(distance > 7) & (distance < 13)] = (0, 0, 0, 255)
    drawn[(distance > 8.5) & (distance < 11.5)] = (255, 255, 255, 255)
    return drawn


def beside(arrays: dict[str, xr.DataArray], path: Path, ring: tuple[float, float] | None = None) -> Path:
    """Draw three maps beside each other, the last one with a ring where something was clicked."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(arrays), figsize=(12, 4.1), layout="compressed")
    for ax, (title, array) in zip(axes, arrays.items(), strict=True):
        array.emb.plot(ax=ax, title=title)
        ax.texts[-1].set_visible(ax is axes[-1])  # one credit line
        ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
    if ring is not None:
        for colour, width in (("black", 4), ("white", 2)):
            axes[-1].plot(*ring, "o", markersize=11, mfc="none", mec=colour, mew=width)
    return save_figure(figure, path)


# --- the synthetic scene -----------------------------------------------------------------------------------------


def seamless(path: Path) -> Path:
    """Draw colours of two neighbouring tiles and two years, fitted once and fitted for each."""
    from matplotlib import pyplot as plt

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
    return save_figure(figure, path)


# --- notebooks ----------------------------------------------------------------------------------------------------


def notebooks(numbers: tuple[str, ...] = ()) -> list[Path]:
    """Run the notebooks that have a cell tagged ``picture``, and keep the last picture of that cell."""
    import nbformat
    from nbclient import NotebookClient

    drawn = []
    for path in sorted((IMAGES.parent.parent / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        tagged = [cell for cell in notebook.cells if "picture" in cell.metadata.get("tags", [])]
        if not tagged or (numbers and not path.stem.startswith(numbers)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()
        found = [o.data["image/png"] for o in tagged[0].outputs if "image/png" in o.get("data", {})]
        drawn.append(shrunk(base64.b64decode(found[-1]), IMAGES / f"notebook-{path.stem[:2]}.png"))
    return drawn


def shrunk(png: bytes, path: Path, width: int = 640) -> Path:
    """Save a picture no wider than a page needs."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    return save(np.asarray(image), path, colours=256, dithered=True)


# --- files --------------------------------------------------------------------------------------------------------


def save_figure(figure: object, path: Path) -> Path:
    """Save a figure with a palette."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110)
    return save(np.asarray(Image.open(drawn).convert("RGB")), path, colours=200)


def save(pixels: np.ndarray, path: Path, *, colours: int, dithered: bool = False) -> Path:
    """Save pixels as a small PNG with a palette; what is transparent becomes white."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    palette = image.quantize(colours)
    dither = Image.Dither.FLOYDSTEINBERG if dithered else Image.Dither.NONE
    image.quantize(colours, palette=palette, dither=dither).save(path, optimize=True)
    return path


if __name__ == "__main__":
    main(sys.argv[1:])
