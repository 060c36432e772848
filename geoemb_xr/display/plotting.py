"""Static pictures with matplotlib, right by default for each kind of array.

Nothing beyond the screen's pixels is computed for a picture of an embedding: of a larger array every n-th pixel
is taken, of codes before they are decoded. A mean would read as much and blur what classes and vectors mean. A lazy
map made of an embedding is computed in whole blocks before it is thinned: of a very large one, thin the embedding,
``array[..., ::8, ::8].emb.change(2018, 2024).emb.plot()``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyproj
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError, require
from geoemb_xr.core.legend import Legend, is_class_map, legend_of
from geoemb_xr.core.model import BAND, attribution_of, check_embedding, kind_of
from geoemb_xr.execution import progress

if TYPE_CHECKING:
    from geoemb_xr.analysis.components import PCA

#: Pixels along the longer side of a panel; a figure of several panels gives each its share.
PIXELS = 1000
#: More panels than this are a mistake.
MOST_PANELS = 24
#: Inches that a single panel may be high: a screen shows no more at once.
_TALLEST = 7.0
_FACETS = ("time", "component", "category", "group")
_CMAPS = {"angle": "magma", "euclidean": "magma", "cosine": "viridis"}
_ROBUST = (2.0, 98.0)


@dataclass(frozen=True)
class _Layer:
    """What is drawn: values in memory, and how they become colours.

    Parameters
    ----------
    data : DataArray
        ``(…, y, x)`` or ``(…, location)``; with a last dimension ``rgb`` where it holds colours already.
    legend : Legend, optional
        Of classes.
    limits : (float, float), optional
        Of a colour bar.
    cmap : str
        Of a colour bar.
    """

    data: xr.DataArray
    legend: Legend | None = None
    limits: tuple[float, float] | None = None
    cmap: str = "viridis"

    @property
    def coloured(self) -> bool:
        """Whether the values are colours."""
        return "rgb" in self.data.dims


def plot(
    array: xr.DataArray,
    *,
    model: PCA | None = None,
    limits: tuple[float, float] | Sequence[tuple[float, float]] | None = None,
    cmap: str | None = None,
    cols: int = 4,
    pixels: int = PIXELS,
    title: str | None = None,
    ax: Any = None,
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
        For embeddings: one palette for several pictures.
    limits : (low, high), optional
        Of the colour bar, or of the three colours; else the 2nd and 98th percentile of what is shown.
    cmap : str, optional
        matplotlib colour map, for a colour bar.
    cols : int
        Panels a row.
    pixels : int
        Along the longer side of a panel, at most.
    title : str, optional
        Above the picture.
    ax : matplotlib Axes, optional
        To draw on; for one panel.

    Returns
    -------
    matplotlib Axes, or an array of them
        One a panel; ``.figure`` is the figure.

    Raises
    ------
    EmbeddingError
        If the array has no place, or makes more than 24 panels.
    MissingExtraError
        If matplotlib is not installed.

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
    require("matplotlib", "viz")
    if not {"y", "x"} <= set(array.dims) and "location" not in array.dims:
        raise EmbeddingError(f"plot needs 'y' and 'x', or 'location'; got dims {tuple(array.dims)}")
    facet = [d for d in array.dims if d in _FACETS and not (d == "component" and array.sizes[d] >= 3)]
    facet = [d for d in facet if array.sizes[d] > 1 or d != "time"]
    count = math.prod(array.sizes[d] for d in facet)
    if count > MOST_PANELS:
        raise EmbeddingError(
            f"plot would draw {count} panels of {facet}, more than {MOST_PANELS}; select some first"
        )
    if ax is not None and count > 1:
        raise EmbeddingError(f"ax= takes one panel, but {facet} make {count}; select one first")
    columns = min(cols, count)
    thinned = _thin(array, max(pixels // columns, 200) if count > 1 else pixels)
    layer = _layer(thinned, model, limits, cmap)
    panels = _panels(layer.data, [str(d) for d in facet])
    return _draw(layer, panels, columns, array, title, ax)


def _thin(array: xr.DataArray, pixels: int) -> xr.DataArray:
    """North-up, every n-th pixel from the middle of the first n: lazy, before anything is decoded."""
    if "location" in array.dims:
        return array
    array = geometry.north_up_array(array)
    steps = {d: -(-array.sizes[d] // pixels) for d in ("y", "x")}
    step = max(steps.values())
    if step == 1:
        return array
    # strips of an array narrower than a step keep one pixel
    return array.isel({d: slice(min(step, array.sizes[d]) // 2, None, step) for d in ("y", "x")})


def _layer(array: xr.DataArray, model: PCA | None, limits: Any, cmap: str | None) -> _Layer:
    """Compute what is shown."""
    with progress.shown("plot"):
        if kind_of(array) != "map":
            check_embedding(array, "plot")
            return _Layer(_embedding_colours(array.compute(), model, limits))
        if "rgb" in array.dims:
            return _Layer(_colours_last(array))
        if array.sizes.get("component", 0) >= 3:
            return _Layer(_component_colours(array.compute(), limits))
        if BAND in array.dims:
            raise EmbeddingError(
                "plot got a 'band' dimension without the attribute 'product': wrap it with gx.wrap, or "
                "select one band"
            )
        values = array.compute()
    if is_class_map(array):
        return _Layer(values, legend=legend_of(array))
    if "missing_value" in array.attrs:
        values = values.where(values != array.attrs["missing_value"])
    metric = str(array.attrs.get("metric", ""))
    low, high = _limits(values) if limits is None else (float(v) for v in np.asarray(limits, float))
    if limits is None and metric in ("angle", "euclidean") and high > 0:
        low = 0.0  # no change is the dark end
    chosen = cmap or _CMAPS.get(metric, "viridis")
    return _Layer(values, limits=(low, high), cmap=chosen)


def _limits(values: xr.DataArray) -> tuple[float, float]:
    there = values.values[np.isfinite(values.values)]
    if not there.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(there, _ROBUST))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _embedding_colours(array: xr.DataArray, model: PCA | None, limits: Any) -> xr.DataArray:
    from geoemb_xr.analysis.components import fit_pca, of_three, rgb

    shown = model if model is not None else of_three(fit_pca(array, 3))
    return _colours_last(rgb(array, shown, limits=limits))


def _component_colours(array: xr.DataArray, limits: Any) -> xr.DataArray:
    from geoemb_xr.analysis.components import rgb

    if limits is None:
        limits = [_limits(array.isel(component=i)) for i in range(3)]
    return _colours_last(rgb(array, limits=limits))


def _colours_last(picture: xr.DataArray) -> xr.DataArray:
    place = ("y", "x") if "y" in picture.dims else ("location",)
    return picture.transpose(..., *place, "rgb").compute()


def _panels(data: xr.DataArray, facet: list[str]) -> list[tuple[str, xr.DataArray]]:
    """What each panel shows, and its title."""
    panels = [("", data)]
    for dim in facet:
        panels = [
            (", ".join(filter(None, (name, _label(part, dim, i)))), part.isel({dim: i}))
            for name, part in panels
            for i in range(part.sizes[dim])
        ]
    if not facet and "time" in data.dims:
        return [(_label(data, "time", 0), data.isel(time=0))]
    return panels


def _label(data: xr.DataArray, dim: str, i: int) -> str:
    if dim not in data.coords:
        return f"{dim} {i}"
    value = data.coords[dim].values[i]
    return _period(value) if dim == "time" else str(value)


def _period(value: np.datetime64) -> str:
    stamp = pd.Timestamp(value)
    return str(stamp.year) if (stamp.month, stamp.day) == (1, 1) else f"{stamp:%Y-%m-%d}"


# --- drawing ---------------------------------------------------------------------------------------------------


def _draw(
    layer: _Layer,
    panels: list[tuple[str, xr.DataArray]],
    columns: int,
    array: xr.DataArray,
    title: str | None,
    ax: Any,
) -> Any:
    plt = require("matplotlib.pyplot", "viz")
    own = ax is None
    aspect, ratio = _aspect(panels[0][1])
    if own:
        rows = -(-len(panels) // columns)
        width = min(5.5, max(2.6, _TALLEST / ratio)) if len(panels) == 1 else max(2.6, 11 / columns)
        side = max(width * columns, 3.8) + (1.2 if not layer.coloured else 0)  # 3.8 hold a title
        figure, grid = plt.subplots(
            rows,
            columns,
            figsize=(side, max((width - 0.5) * ratio, 1.2) * rows + 0.35 * (rows - 1) + 0.95),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        axes = grid.ravel()
    else:
        figure, axes = ax.figure, np.array([ax])
    for each in axes[len(panels) :]:
        each.set_visible(False)
    for each, (name, data) in zip(axes, panels, strict=False):
        artist = _draw_panel(each, data, layer)
        each.set_aspect(aspect)
        each.set_title(name, loc="left", fontsize=10)
    _label_axes(axes[: len(panels)], columns, array, ratio)
    _scale_bar(axes[0], array)
    heading = title if title is not None else _heading(array)
    if len(panels) > 1 and heading:
        figure.suptitle(heading, fontsize=11, x=0.01, ha="left")
    elif heading:
        name = panels[0][0]
        axes[0].set_title(f"{heading}, {name}" if name else heading, loc="left", fontsize=11)
    if layer.legend is not None:
        _draw_legend(figure, axes[0], layer, own)
    elif layer.limits is not None:
        _draw_bar(figure, axes[: len(panels)], artist, array, layer)
    _draw_credit(figure, axes[0], credit(array), own)
    if own:  # the layout knows the tick labels' room, which depends on itself, at the second drawing only
        figure.draw_without_rendering()
    return axes[0] if len(panels) == 1 else axes[: len(panels)]


def _draw_panel(ax: Any, data: xr.DataArray, layer: _Layer) -> Any:
    values = data.values
    options: dict[str, Any] = {}
    if layer.legend is not None:
        table = layer.legend.rgba()
        values = table[np.where(values < len(table), values, 0)]
    elif not layer.coloured:
        assert layer.limits is not None
        options = {"cmap": layer.cmap, "vmin": layer.limits[0], "vmax": layer.limits[1]}
    if "location" in data.dims:
        x, y = data.coords["x"].values, data.coords["y"].values
        size = float(np.clip(6000 / max(x.size, 1), 3, 40))
        there = np.isfinite(values)
        if values.ndim == 2:
            there, values = values[:, 3] > 0, values / 255
        # a pale point is seen by its rim; a missing one has none
        rim = {"linewidths": np.where(there, 0.4 if size > 10 else 0.0, 0.0), "edgecolors": "0.35"}
        return ax.scatter(x, y, s=size, c=values, **rim, **options)
    return ax.imshow(values, extent=_extent(data), interpolation="nearest", **options)


def _extent(data: xr.DataArray) -> tuple[float, float, float, float]:
    """Left, right, bottom, top edges, as imshow takes them: the first row is at the top."""
    left, right = _edges(data, "x")
    top, bottom = _edges(data, "y")
    return left, right, bottom, top


def _edges(data: xr.DataArray, dim: str) -> tuple[float, float]:
    values = data.coords[dim].values.astype(np.float64)
    other = data.coords["x" if dim == "y" else "y"].values.astype(np.float64)
    if values.size > 1:
        step = (values[-1] - values[0]) / (values.size - 1)
    else:
        step = (abs(other[1] - other[0]) if other.size > 1 else 1.0) * (-1 if dim == "y" else 1)
    return float(values[0] - step / 2), float(values[-1] + step / 2)


def _aspect(data: xr.DataArray) -> tuple[float, float]:
    """The axes' aspect (degrees of longitude shrink with latitude), and a panel's height over its width."""
    crs = geometry.crs_of(data)
    ys, xs = data.coords["y"].values, data.coords["x"].values
    aspect = 1.0
    if crs is not None and crs.is_geographic and ys.size:
        aspect = 1 / max(math.cos(math.radians(float(np.mean(ys)))), 0.05)
    width, height = float(np.ptp(xs)) or 1.0, (float(np.ptp(ys)) or 1.0) * aspect
    return aspect, float(np.clip(height / width, 0.25, 3.0))


def _label_axes(axes: Any, columns: int, array: xr.DataArray, ratio: float) -> None:
    ticker = require("matplotlib.ticker", "viz")
    crs = geometry.crs_of(array)
    names = ("x", "y")
    degrees = crs is not None and crs.is_geographic
    if crs is not None:
        unit = "°" if degrees else _unit(crs)
        names = (
            (f"longitude [{unit}]", f"latitude [{unit}]")
            if degrees
            else (f"easting [{unit}], {geometry.crs_name(crs)}", f"northing [{unit}]")
        )
    box = axes[0].get_position()
    across, up = axes[0].figure.get_size_inches() * (box.width, box.height)
    across, up = min(across, up / ratio), min(up, across * ratio)
    for i, each in enumerate(axes):
        for axis, length in ((each.xaxis, across), (each.yaxis, up)):  # a label takes two thirds of an inch
            most = int(np.clip(length / 0.8, 1, 4))
            axis.set_major_locator(ticker.MaxNLocator(most, min_n_ticks=min(most, 2)))
            formatter = ticker.ScalarFormatter(useOffset=False) if degrees or crs is None else "{x:,.0f}"
            axis.set_major_formatter(formatter)
        each.tick_params(labelsize=7, length=2.5, color="0.6", labelcolor="0.3")
        each.tick_params(axis="y", labelrotation=90)
        for label in each.get_yticklabels():
            label.set_verticalalignment("center")
        for spine in each.spines.values():
            spine.set(color="0.6", linewidth=0.6)
        each.label_outer()
        if i + columns >= len(axes):
            each.set_xlabel(names[0], fontsize=8, color="0.3")
            each.tick_params(labelbottom=True)
        if i % columns == 0:
            each.set_ylabel(names[1], fontsize=8, color="0.3")


def _unit(crs: pyproj.CRS) -> str:
    name = crs.axis_info[0].unit_name if crs.axis_info else "metre"
    return {"metre": "m", "US survey foot": "ft", "foot": "ft"}.get(name, name)


def _scale_bar(ax: Any, array: xr.DataArray) -> None:
    """A bar of a round ground distance, about a fifth of the map's width, true at its middle."""
    crs = geometry.crs_of(array)
    xs, ys = array.coords["x"].values, array.coords["y"].values
    if crs is None or not np.ptp(xs) > 0:
        return
    metres = _metres_a_unit(crs, float(np.mean(xs)), float(np.mean(ys)), float(np.ptp(xs)))
    if not math.isfinite(metres) or metres <= 0:
        return
    anchored = require("mpl_toolkits.axes_grid1.anchored_artists", "viz")
    wanted = float(np.ptp(xs)) * metres / 5
    power = 10.0 ** math.floor(math.log10(wanted))
    length = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    name = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    bar = anchored.AnchoredSizeBar(
        ax.transData,
        length / metres,
        name,
        loc="lower left",
        pad=0.4,
        borderpad=0.6,
        sep=3,
        label_top=True,
        fontproperties=require("matplotlib.font_manager", "viz").FontProperties(size=7),
        color="0.15",
    )
    bar.patch.set(alpha=0.75, edgecolor="none", boxstyle="round,pad=0,rounding_size=0.15")
    ax.add_artist(bar)


def _metres_a_unit(crs: pyproj.CRS, x: float, y: float, width: float) -> float:
    half = width / 100
    to_lonlat = geometry.transformer(crs, geometry.as_crs(geometry.LONLAT))
    lon, lat = to_lonlat.transform([x - half, x + half], [y, y])
    geod = crs.get_geod() or pyproj.Geod(ellps="WGS84")
    distance = geod.inv(lon[0], lat[0], lon[1], lat[1])[2]
    return float(distance) / (2 * half)


def _heading(array: xr.DataArray) -> str:
    """What is shown, in a few words."""
    if kind_of(array) != "map":
        name, version = str(array.attrs["product"]), str(array.attrs.get("version", ""))
        what = f"{name} {version}".strip()
    else:
        what = str(array.attrs.get("long_name") or _name(array).replace("_", " "))
        what = str(array.attrs.get("derived_from", "")) if "rgb" in array.dims else what
    stamp = array.coords.get("time")
    if stamp is not None and stamp.ndim == 0 and stamp.dtype.kind == "M":
        what = f"{what}, {_period(stamp.values)}" if what else _period(stamp.values)
    return what


def _name(array: xr.DataArray) -> str:
    return "" if array.name is None else str(array.name)


def _draw_legend(figure: Any, ax: Any, layer: _Layer, own: bool) -> None:
    """The classes that are shown."""
    patches = require("matplotlib.patches", "viz")
    assert layer.legend is not None
    there = set(np.unique(layer.data.values).tolist())
    entries = zip(layer.legend.values, layer.legend.names, layer.legend.colours, strict=True)
    handles = [patches.Patch(color=colour, label=name) for value, name, colour in entries if value in there]
    options: dict[str, Any] = {"fontsize": 8, "frameon": False, "handlelength": 1.2, "handleheight": 1.2}
    options["ncols"] = -(-len(handles) // 24) or 1
    if own:
        figure.legend(handles=handles, loc="outside right upper", **options)
    else:
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, **options)


def _draw_bar(figure: Any, axes: Any, artist: Any, array: xr.DataArray, layer: _Layer) -> None:
    assert layer.limits is not None
    there = layer.data.values[np.isfinite(layer.data.values)]
    below = bool(there.size) and float(there.min()) < layer.limits[0]
    above = bool(there.size) and float(there.max()) > layer.limits[1]
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[int(below), int(above)]
    bar = figure.colorbar(artist, ax=list(axes), extend=extend, shrink=0.8, aspect=28, pad=0.02)
    unit = {"degree": "°", "1": "", "percent": "%"}.get(
        str(array.attrs.get("units", "")), str(array.attrs.get("units", ""))
    )
    name = str(array.attrs.get("metric") or _name(array))
    if array.dtype.kind in "iu":
        bar.locator = require("matplotlib.ticker", "viz").MaxNLocator(8, integer=True)
    bar.set_label(f"{name} [{unit}]" if unit else name, fontsize=8, color="0.3")
    bar.ax.tick_params(labelsize=7, length=2.5, color="0.6", labelcolor="0.3")
    bar.outline.set(color="0.6", linewidth=0.6)


def credit(array: xr.DataArray) -> str:
    """The small line under a picture: who made the data, or that nobody did."""
    made_of = f"{array.attrs.get('version', '')} {array.attrs.get('derived_from', '')}"
    if "synthetic" in made_of:
        like = str(array.attrs.get("product") or made_of.replace("synthetic", "").strip())
        return f"synthetic data in the form of {like}" if like and like != "scene" else "synthetic data"
    return attribution_of(array)


def _draw_credit(figure: Any, ax: Any, text: str, own: bool) -> None:
    if not text:
        return
    if own:
        figure.supxlabel(text, fontsize=6, color="0.45", x=0.99, ha="right")
    else:
        ax.annotate(
            text, (1, 0), (0, -28), "axes fraction", "offset points", fontsize=6, color="0.45", ha="right", va="top"
        )  # fmt: skip
