"""Several variables side by side, each drawn as what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import require
from geoemb_xr.display.interactive import holoviews, interactive_plot
from geoemb_xr.display.plotting import plot

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
        Rasters or points; each makes one panel.
    cols : int
        Panels per row.
    pixels : int
        Along the longer side of a panel, at most.
    title : str, optional
        Above the figure.
    figsize : (width, height), optional
        Of the figure, in inches; of each panel where it is interactive.
    interactive : bool
        Whether to return a HoloViews layout with linked axes.

    Returns
    -------
    ndarray of matplotlib Axes, or a HoloViews Layout
        One per array, in their order.

    Raises
    ------
    EmbeddingError
        If an array makes more than one panel, as several years do.
    """
    if interactive:
        return _side_by_side(arrays, cols, pixels, title, figsize)
    plt = require("matplotlib.pyplot", "viz")
    cols = min(cols, len(arrays))
    rows = -(-len(arrays) // cols)
    size = figsize or (_PANEL[0] * cols, _PANEL[1] * rows)
    figure, grid = plt.subplots(rows, cols, squeeze=False, figsize=size, layout="constrained")
    axes: list[Any] = list(grid.flat)
    try:
        for (name, array), ax in zip(arrays.items(), axes, strict=False):
            plot(array, ax=ax, title=name, pixels=pixels)
    except BaseException:
        plt.close(figure)
        raise
    for ax in axes[len(arrays) :]:
        ax.remove()
    if title is not None:
        figure.suptitle(title)
    return np.array(axes[: len(arrays)], object)


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
