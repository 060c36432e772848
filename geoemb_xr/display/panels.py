"""Several variables side by side, each drawn as what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import require
from geoemb_xr.display.plotting import plot

#: Width and height of a panel, in inches.
_PANEL = (5.0, 4.2)


def plot_each(arrays: Mapping[str, xr.DataArray], *, cols: int, pixels: int, title: str | None) -> np.ndarray:
    """Draw a panel an array, each by its own rule. Computes what is shown.

    Parameters
    ----------
    arrays : mapping of str to DataArray
        Rasters or points; each makes one panel.
    cols : int
        Panels a row.
    pixels : int
        Along the longer side of a panel, at most.
    title : str, optional
        Above the figure.

    Returns
    -------
    ndarray of matplotlib Axes
        One an array, in their order.

    Raises
    ------
    EmbeddingError
        If an array makes more than one panel, as several years do.
    """
    require("matplotlib", "viz")
    import matplotlib.pyplot as plt

    cols = min(cols, len(arrays))
    rows = -(-len(arrays) // cols)
    size = _PANEL[0] * cols, _PANEL[1] * rows
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
