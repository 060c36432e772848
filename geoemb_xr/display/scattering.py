"""The space of an embedding as a scatter plot: each dot is a vector, near dots are alike."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr

from geoemb_xr.core.arrays import decode
from geoemb_xr.core.errors import EmbeddingError, check_choice, require
from geoemb_xr.core.legend import default_colour, is_class_map, legend_of
from geoemb_xr.core.model import BAND, check_embedding
from geoemb_xr.display import furniture, layers
from geoemb_xr.display.windows import thin
from geoemb_xr.execution import progress
from geoemb_xr.execution.computing import computed

Projection = Literal["pca", "umap"]
#: Pixels of a thumbnail's side, on the array and on the screen.
_CHIP, _CHIP_INCHES = 15, 0.45


def scatter(
    array: xr.DataArray,
    *,
    by: xr.DataArray | str | None = None,
    method: Projection = "pca",
    n_samples: int = 2500,
    thumbnails: int = 10,
    seed: int = 0,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Any = None,
) -> Any:
    """Draw the space of an embedding: two dimensions in which near dots are alike. Computes what is shown.

    Parameters
    ----------
    array : DataArray
        An embedding of one period, a raster or points.
    by : DataArray or str, optional
        Colours of the dots: a map on the same grid, such as classes, or the name of a column that rides along
        with points.
    method : {"pca", "umap"}
        The first two principal components, or UMAP (McInnes et al. 2018, arXiv:1802.03426), which keeps neighbours
        together and whose axes mean nothing. Needs umap-learn.
    n_samples : int
        About how many vectors are drawn, evenly over a raster.
    thumbnails : int
        Number of dots of a raster that show a small picture of what is around them, in the colours of :func:`plot`.
    seed : int
        Seed of the choice among points, and of UMAP.
    title : str, optional
        Text above the picture; by default the product and the period.
    figsize : (width, height), optional
        Size of the figure, in inches.
    ax : matplotlib Axes, optional
        Axes to draw on.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    EmbeddingError
        If the array is not an embedding of one period, has fewer than three vectors with data, or ``by`` lies on
        another grid.
    MissingExtraError
        If matplotlib, or for ``method="umap"`` umap-learn, is not installed.
    ValueError
        For an unknown method, or ``figsize`` beside ``ax``.

    Examples
    --------
    >>> import geoemb_xr as gx, matplotlib
    >>> matplotlib.use("agg")
    >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64))
    >>> truth = gx.testing.scene().truth(da.emb.geobox, 2024)
    >>> da.isel(time=0).emb.scatter(by=truth).get_xlabel()[:9]
    'component'
    """
    check_embedding(array, "scatter")
    check_choice("method", method, ("pca", "umap"))
    plt = require("matplotlib.pyplot", "viz")
    array = _one_period(array)
    by = _values_for_colours(array, by)
    with progress.shown("scatter"):
        chosen = _choose(array, n_samples, seed)
        vectors, values = computed(decode(chosen(array))), None if by is None else computed(chosen(by))
    rows = _rows(vectors)
    there = np.isfinite(rows).all(axis=1)
    if there.sum() < 3:
        raise EmbeddingError(f"scatter needs three vectors with data; got {int(there.sum())}")
    at, names = _flattened(vectors, rows[there], method, seed)
    if ax is None:
        _, ax = plt.subplots(figsize=figsize or (6.5, 5.5), layout="constrained")
    elif figsize is not None:
        raise ValueError("figsize= is of a figure of our own; leave it out with ax=")
    _draw_dots(ax, at, None if values is None else values.values.ravel()[there], values)
    if thumbnails and "y" in array.dims:
        _draw_thumbnails(ax, at, array, vectors, np.flatnonzero(there), thumbnails)
    ax.set_xlabel(names[0], fontsize=8, color="0.3")
    ax.set_ylabel(names[1], fontsize=8, color="0.3")
    ax.tick_params(labelsize=7, length=2.5, color="0.6", labelcolor="0.3")
    for spine in ax.spines.values():
        spine.set(color="0.6", linewidth=0.6)
    ax.set_title(title if title is not None else layers.map_title(array), loc="left", fontsize=11)
    text = furniture.credit(array)
    ax.annotate(
        text,
        (1, 0),
        (0, -28),
        "axes fraction",
        "offset points",
        fontsize=6,
        color="0.45",
        ha="right",
        va="top",
    )
    return ax


def _one_period(array: xr.DataArray) -> xr.DataArray:
    if "time" not in array.dims:
        return array
    if array.sizes["time"] > 1:
        raise EmbeddingError("scatter draws one period; select one first, as .emb.year(2024)")
    return array.isel(time=0)


def _values_for_colours(array: xr.DataArray, by: xr.DataArray | str | None) -> xr.DataArray | None:
    """Return the values that colour the dots, in the order of the array's places."""
    if isinstance(by, str):
        if by not in array.coords:
            riding = [str(name) for name, c in array.coords.items() if c.dims == ("location",)]
            raise EmbeddingError(f"by={by!r} is not a column of the points; there are {riding}")
        found: xr.DataArray = array.coords[by]
        return found
    if by is None:
        return None
    places = [d for d in array.dims if d != BAND]
    if "time" in by.dims and by.sizes["time"] == 1:
        by = by.isel(time=0)
    if set(by.dims) != set(places) or any(by.sizes[d] != array.sizes[d] for d in places):
        raise EmbeddingError(
            f"by= needs the grid of the array, {dict(array.sizes)}; got {dict(by.sizes)}. "
            "Bring it there with .emb.reproject(array)."
        )
    if "y" in array.dims and not all(np.allclose(by[d].values, array[d].values) for d in ("y", "x")):
        raise EmbeddingError(
            "by= lies on another grid of as many pixels; bring it there with .emb.reproject(array)"
        )
    return by.transpose(*places)


def _choose(array: xr.DataArray, n_samples: int, seed: int) -> Any:
    """Return a function that takes some places of an array, or of values beside it."""
    if "location" in array.dims:
        count = array.sizes["location"]
        rng = np.random.default_rng(seed)
        order = np.sort(rng.permutation(count)[:n_samples])
        return lambda each: each.isel(location=order)
    longer = max(array.sizes["y"], array.sizes["x"])
    shape = longer / min(array.sizes["y"], array.sizes["x"])
    return lambda each: thin(each, max(int(np.sqrt(n_samples * shape)), 2)).transpose(..., "y", "x")


def _rows(vectors: xr.DataArray, dim: str = BAND) -> np.ndarray:
    """Places as rows ``(n, dim)``."""
    last = np.moveaxis(vectors.values, vectors.get_axis_num(dim), -1)
    return np.asarray(last.reshape(-1, vectors.sizes[dim]))


def _flattened(
    vectors: xr.DataArray, rows: np.ndarray, method: Projection, seed: int
) -> tuple[np.ndarray, tuple[str, str]]:
    """Places in the plane ``(n, 2)``, and the names of its axes."""
    if method == "umap":
        found = require("umap", package="umap-learn").UMAP(random_state=seed).fit_transform(rows)
        return np.asarray(found), ("UMAP 1", "UMAP 2")
    from geoemb_xr.analysis.components import fit_pca

    model = fit_pca(vectors, min(2, vectors.sizes[BAND]))
    shares = [
        f"component {i + 1} ({share:.0%} of variance)"
        for i, share in enumerate(model.explained_variance_ratio)
    ]
    flat = _rows(model.transform(vectors), "component")
    return flat[np.isfinite(flat).all(axis=1)], (shares[0], shares[1])


def _draw_dots(ax: Any, at: np.ndarray, values: np.ndarray | None, given: xr.DataArray | None) -> None:
    dots = {"s": float(np.clip(8000 / len(at), 4, 25)), "linewidths": 0, "alpha": 0.8}
    if values is None or given is None:
        ax.scatter(*at.T, c="#0072b2", **dots)
        return
    if is_class_map(given):
        legend = legend_of(given)
        classes: list[tuple[Any, str, str]] = list(
            zip(legend.values, legend.names, legend.colours, strict=True)
        )
    elif values.dtype.kind in "OUSb":
        names = sorted({str(each) for each in values})
        values = np.array([str(each) for each in values])
        classes = [(name, name, default_colour(i)) for i, name in enumerate(names)]
    else:
        artist = ax.scatter(*at.T, c=values, **dots)
        bar = ax.figure.colorbar(artist, ax=ax, shrink=0.8, aspect=28, pad=0.02)
        bar.set_label(furniture.quantity(given), fontsize=8, color="0.3")
        bar.ax.tick_params(labelsize=7)
        return
    for value, name, colour in classes:
        own = values == value
        if own.any():
            ax.scatter(*at[own].T, color=colour, label=name, **dots)
    ax.legend(fontsize=8, frameon=False, markerscale=2, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _draw_thumbnails(
    ax: Any, at: np.ndarray, array: xr.DataArray, vectors: xr.DataArray, rows: np.ndarray, count: int
) -> None:
    """Draw what is around some dots, far from each other in the plane."""
    offset = require("matplotlib.offsetbox", "viz")
    palette = layers.palette_of(vectors, model=None, limits=None, cmap=None)
    size = vectors.sizes["x"]
    for n in _spread(at, count):
        i, j = divmod(int(rows[n]), size)
        chip = _around(array, float(vectors["y"][i]), float(vectors["x"][j]))
        picture = offset.OffsetImage(
            palette.apply(chip).values, zoom=_CHIP_INCHES * 72 / max(chip.sizes["y"], 1)
        )
        picture.image.set_interpolation("nearest")
        box = offset.AnnotationBbox(picture, at[n], pad=0.1, bboxprops={"edgecolor": "0.3", "linewidth": 0.6})
        ax.add_artist(box)


def _around(array: xr.DataArray, y: float, x: float) -> xr.DataArray:
    """A chip of the array around a place, in memory."""
    half = _CHIP // 2
    cuts = {}
    for dim, value in (("y", y), ("x", x)):
        middle = int(np.abs(array[dim].values - value).argmin())
        first = min(max(middle - half, 0), max(array.sizes[dim] - _CHIP, 0))
        cuts[dim] = slice(first, first + _CHIP)
    return computed(thin(array.isel(cuts), _CHIP))


def _spread(at: np.ndarray, count: int) -> list[int]:
    """Rows far from each other: first the nearest to the middle, then always the farthest from those before."""
    scaled = (at - at.mean(axis=0)) / np.maximum(at.std(axis=0), 1e-12)
    chosen = [int(np.linalg.norm(scaled, axis=1).argmin())]
    nearest = np.linalg.norm(scaled - scaled[chosen[0]], axis=1)
    while len(chosen) < min(count, len(at)):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
    return chosen
