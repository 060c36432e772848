"""Several variables side by side, each drawn by its own kind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import EmbeddingError, require
from geoemb_xr.display import layers
from geoemb_xr.display.interactive import holoviews, interactive_plot
from geoemb_xr.display.plotting import MOST_PANELS, plot
from geoemb_xr.display.windows import thin
from geoemb_xr.execution.computing import computed

#: Width and height of a panel, in inches.
_PANEL = (5.0, 4.2)


def plot_each(
    arrays: Mapping[str, xr.DataArray],
    *,
    cols: int,
    pixels: int,
    title: str | None,
    figsize: tuple[float, float] | None = None,
    interactive: bool = False,
) -> Any:
    """Draw a panel per array, each by its own rule. Computes what is shown.

    Parameters
    ----------
    arrays : mapping of str to DataArray
        Rasters or points; each makes a panel, or one per year, component or category.
    cols : int
        Panels per row.
    pixels : int
        Largest number of pixels along the longer side of a panel.
    title : str, optional
        Text above the figure.
    figsize : (width, height), optional
        Size of the figure, in inches; of each panel where it is interactive.
    interactive : bool
        Whether to return a HoloViews layout with linked axes.

    Returns
    -------
    ndarray of matplotlib Axes, or a HoloViews Layout
        One per panel, in their order.

    Raises
    ------
    EmbeddingError
        If there are more panels than anybody looks at.
    """
    if interactive:
        return _side_by_side(arrays, cols, pixels, title, figsize)
    _check_count(arrays)
    plt = require("matplotlib.pyplot", "viz")
    panels = [panel for name, each in arrays.items() for panel in _panels_of(name, each, pixels)]
    cols = min(cols, len(panels))
    rows = -(-len(panels) // cols)
    size = figsize or (_PANEL[0] * cols, _PANEL[1] * rows)
    figure, grid = plt.subplots(rows, cols, squeeze=False, figsize=size, layout="constrained")
    axes: list[Any] = list(grid.flat)
    try:
        for (name, array, options), ax in zip(panels, axes, strict=False):
            plot(array, ax=ax, title=name, pixels=pixels, **options)
    except BaseException:
        plt.close(figure)
        raise
    for ax in axes[len(panels) :]:
        ax.remove()
    if title is not None:
        figure.suptitle(title)
    return np.array(axes[: len(panels)], object)


def _panels_of(name: str, array: xr.DataArray, pixels: int) -> list[tuple[str, xr.DataArray, dict[str, Any]]]:
    """Title, array and options of each panel of an array; those of several years or categories share a palette."""
    facets = layers.facets(array)
    if not facets:
        return [(name, array, {})]
    shown = computed(thin(array, pixels))
    palette = layers.palette_of(shown, model=None, limits=None, cmap=None)
    options = {"model": palette.model, "limits": palette.limits or palette.stretch}
    return [(f"{name}: {said}", one, options) for said, one in layers.panels(shown, facets)]


def _check_count(arrays: Mapping[str, xr.DataArray]) -> None:
    count = sum(math.prod(each.sizes[d] for d in layers.facets(each)) for each in arrays.values())
    if count > MOST_PANELS:
        raise EmbeddingError(
            f"plot would draw {count} panels of {list(arrays)}, more than {MOST_PANELS}; select some first"
        )


def _side_by_side(
    arrays: Mapping[str, xr.DataArray],
    cols: int,
    pixels: int,
    title: str | None,
    figsize: tuple[float, float] | None,
) -> Any:
    each = [
        interactive_plot(array, pixels=pixels, title=name, figsize=figsize) for name, array in arrays.items()
    ]
    layout = holoviews().Layout(each).cols(min(cols, len(each)))
    return layout if title is None else layout.opts(title=title)
