"""Pictures with matplotlib, right by default for each kind of array.

Nothing beyond the screen's pixels is computed for a picture of an embedding: of a larger array every n-th pixel
is taken, of codes before they are decoded, and of a map (change, similarity, classes, colours) before it is made. A
mean would read as much and blur what classes and vectors mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import EmbeddingError, require
from geoemb_xr.core.model import check_embedding, kind_of
from geoemb_xr.display import backdrop, furniture, layers
from geoemb_xr.display.interactive import interactive_plot
from geoemb_xr.display.windows import thin
from geoemb_xr.execution import progress
from geoemb_xr.execution.computing import computed

if TYPE_CHECKING:
    from geoemb_xr.analysis.components import PCA

#: Pixels along the longer side of a panel; a figure of several panels gives each its share.
PIXELS = 1000
#: More panels than this are a mistake.
MOST_PANELS = 24
#: Inches that a single panel may be high: a screen shows no more at once.
_TALLEST = 7.0


def plot(
    array: xr.DataArray,
    *,
    model: PCA | None = None,
    limits: tuple[float, float] | Sequence[tuple[float, float]] | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    cmap: Any = None,
    cols: int = 4,
    pixels: int = PIXELS,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Any = None,
    basemap: Any = None,
    interactive: bool = False,
) -> Any:
    """Draw an array as a map. Computes what is shown, every n-th pixel of a large array.

    An embedding is drawn as the first three principal components of what is shown, or of ``model``; pictures as
    they are; class maps with a legend; everything else with a colour bar; points where they lie. Years, components
    and categories become panels.

    Parameters
    ----------
    array : DataArray
        An embedding or a map, a raster or points.
    model : PCA, optional
        PCA for embeddings: one palette for several pictures.
    limits : (low, high), optional
        Limits of the colour bar, or of the three colours; by default the 2nd and 98th percentile of what is shown.
    vmin, vmax : float, optional
        Lower and upper end of the limits, with matplotlib's names.
    cmap : str or matplotlib Colormap, optional
        Colour map of numbers.
    cols : int
        Panels per row.
    pixels : int
        Most pixels along the longer side of a panel.
    title : str, optional
        Text above the picture; by default what is shown, in a few words.
    figsize : (width, height), optional
        Size of the figure, in inches.
    ax : matplotlib Axes, optional
        Axes to draw one panel on. What was drawn there before is kept.
    basemap : True, str or xyzservices.TileProvider, optional
        Tiles from the network under the map, which lets them shine through: satellite pictures, or the name of a
        provider such as ``"OpenStreetMap.Mapnik"``. Needs contextily.
    interactive : bool
        Whether to return a HoloViews object to pan and zoom, with a slider of years, in place of a picture: see
        Notes.

    Returns
    -------
    matplotlib Axes, or an array of them
        One per panel; ``.figure`` is the figure. With ``interactive=True`` a HoloViews object.

    Raises
    ------
    EmbeddingError
        If the array has no place, or makes more than 24 panels.
    ValueError
        If ``limits`` and ``vmin`` or ``vmax`` are both given, or an option does not go with ``interactive``.
    SourceError
        If no tiles come for ``basemap``.
    MissingExtraError
        If matplotlib, or for ``interactive=True`` hvPlot, or for ``basemap`` contextily, is not installed.

    Notes
    -----
    With ``interactive=True`` the picture is a HoloViews element: ``RGB`` of an embedding, ``Image`` of a class map
    (names on hover) or of numbers, ``Points``, or ``Polygons`` of patches. ``a * b`` overlays two, ``a + b`` puts
    them side by side and links the axes of one CRS. Years, components and categories become sliders. Of a raster
    with more than ``pixels`` along a side every n-th pixel of the view is read, anew at each zoom. More than 20,000
    points are rasterised by datashader. ``holoviews.save(picture, "page.html", resources="inline")`` writes a page
    that opens without a network and keeps the sliders; a large raster is then shown as thinned to ``pixels``.

    Examples
    --------
    >>> import geoemb_xr as gx, matplotlib
    >>> matplotlib.use("agg")
    >>> da = gx.testing.synthetic("alphaearth", shape=(32, 32), years=[2018, 2024])
    >>> da.emb.plot().shape
    (2,)
    >>> da.emb.change(2018, 2024).emb.plot().get_title(loc="left")
    'angle between 2018 and 2024'
    """
    if limits is not None and (vmin, vmax) != (None, None):
        raise ValueError("limits= and vmin=, vmax= say the same; pass one of them")
    stretch = (vmin, vmax) if (vmin, vmax) != (None, None) else limits
    if interactive:
        if ax is not None or basemap is not None:
            raise ValueError("interactive=True draws no matplotlib Axes; leave out ax= and basemap=")
        return interactive_plot(
            array, model=model, limits=stretch, cmap=cmap, pixels=pixels, title=title, figsize=figsize
        )
    require("matplotlib", "viz")
    if not {"y", "x"} <= set(array.dims) and "location" not in array.dims:
        raise EmbeddingError(f"plot needs 'y' and 'x', or 'location'; got dims {tuple(array.dims)}")
    if kind_of(array) != "map":
        check_embedding(array, "plot")
    facet = layers.facets(array)
    count = math.prod(array.sizes[d] for d in facet)
    if count > MOST_PANELS:
        raise EmbeddingError(
            f"plot would draw {count} panels of {facet}, more than {MOST_PANELS}; select some first"
        )
    if ax is not None and count > 1:
        raise EmbeddingError(f"ax= takes one panel, but {facet} make {count}; select one first")
    columns = min(cols, count)
    with progress.shown("plot"):
        shown = computed(thin(array, max(pixels // columns, 200) if count > 1 else pixels))
    palette = layers.palette_of(shown, model=model, limits=stretch, cmap=cmap)
    panels = layers.panels(palette.apply(shown), facet)
    return _draw(palette, panels, columns, shown, title=title, figsize=figsize, ax=ax, basemap=basemap)


# --- drawing ---------------------------------------------------------------------------------------------------


def _draw(
    palette: layers.Palette,
    panels: list[tuple[str, xr.DataArray]],
    columns: int,
    array: xr.DataArray,
    *,
    title: str | None,
    figsize: tuple[float, float] | None,
    ax: Any,
    basemap: Any,
) -> Any:
    own = ax is None
    aspect, ratio = furniture.aspect_of(panels[0][1])
    axes = _new_axes(len(panels), columns, ratio, palette.has_key, figsize) if own else np.array([ax])
    figure = axes[0].figure
    for each in axes[len(panels) :]:
        each.set_visible(False)
    for each, (name, data) in zip(axes, panels, strict=False):
        artist = _draw_panel(each, data, palette)
        backdrop.draw_world(each, array)
        if basemap is not None and basemap is not False:
            backdrop.draw_basemap(each, array, basemap)
        each.set_aspect(aspect)
        each.set_title(name, loc="left", fontsize=10)
    shown = axes[: len(panels)]
    furniture.label_axes(shown, columns, array, ratio, own=own)
    furniture.draw_scale_bar(shown[(len(panels) - 1) // columns * columns], array)
    heading = title if title is not None else layers.map_title(array)
    if len(panels) > 1 and heading:
        figure.suptitle(heading, fontsize=11, x=0.01, ha="left")
    elif heading:
        name = panels[0][0]
        axes[0].set_title(f"{heading}, {name}" if name else heading, loc="left", fontsize=11)
    values = np.stack([data.values for _, data in panels]) if palette.has_key else np.empty(0)
    if palette.legend is not None:
        furniture.draw_legend(figure, axes[0], palette.legend, values, own=own)
    elif palette.limits is not None:
        furniture.draw_bar(figure, shown, artist, array, values, palette.limits)
    furniture.draw_credit(figure, axes[0], furniture.credit(array), own=own)
    if own:  # the layout knows the tick labels' room, which depends on itself, the second time only: at the drawing
        figure.get_layout_engine().execute(figure)
    return axes[0] if len(panels) == 1 else shown


def _new_axes(
    count: int, columns: int, ratio: float, has_key: bool, figsize: tuple[float, float] | None
) -> np.ndarray:
    """Axes of a new figure for panels ``ratio`` times as high as wide, with room for a legend or bar."""
    rows = -(-count // columns)
    width = min(5.5, max(2.6, _TALLEST / ratio)) if count == 1 else max(2.6, 11 / columns)
    side = max(width * columns, 3.8) + (1.2 if has_key else 0)  # 3.8 hold a title
    _, grid = require("matplotlib.pyplot", "viz").subplots(
        rows,
        columns,
        figsize=figsize or (side, max((width - 0.5) * ratio, 1.2) * rows + 0.35 * (rows - 1) + 0.95),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    axes: np.ndarray = grid.ravel()
    return axes


def _draw_panel(ax: Any, data: xr.DataArray, palette: layers.Palette) -> Any:
    values = data.values
    options: dict[str, Any] = {}
    if palette.legend is not None:
        table = palette.legend.rgba()
        values = table[np.where(values < len(table), values, 0)]
    elif palette.limits is not None:
        options = {"cmap": palette.cmap, "vmin": palette.limits[0], "vmax": palette.limits[1]}
    if "location" in data.dims:
        x, y = data.coords["x"].values, data.coords["y"].values
        size = float(np.clip(6000 / max(x.size, 1), 3, 40))
        there = np.isfinite(values)
        if values.ndim == 2:
            there, values = values[:, 3] > 0, values / 255
        # a pale point is seen by its rim; a missing one has none
        rim = {"linewidths": np.where(there, 0.4 if size > 10 else 0.0, 0.0), "edgecolors": "0.35"}
        return ax.scatter(x, y, s=size, c=values, **rim, **options)
    return ax.imshow(values, extent=furniture.extent_of(data), interpolation="nearest", **options)
