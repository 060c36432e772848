"""Map decorations: axes with units, a scale bar, a legend or a colour bar, and the credit line."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
import pyproj
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import require
from geoemb_xr.core.legend import Legend
from geoemb_xr.core.model import attribution_of

#: Points below the frame: the row of the axis label and the scale bar, and the credit line on axes of others.
_LABEL_ROW, _CREDIT_ROW = 17, 32


def extent_of(data: xr.DataArray) -> tuple[float, float, float, float]:
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


def aspect_of(data: xr.DataArray) -> tuple[float, float]:
    """The axes' aspect (degrees of longitude shrink with latitude), and a panel's height over its width."""
    crs = geometry.crs_of(data)
    ys, xs = data.coords["y"].values, data.coords["x"].values
    aspect = 1.0
    if crs is not None and crs.is_geographic and ys.size:
        aspect = 1 / max(math.cos(math.radians(float(np.mean(ys)))), 0.05)
    width, height = float(np.ptp(xs)) or 1.0, (float(np.ptp(ys)) or 1.0) * aspect
    return aspect, float(np.clip(height / width, 0.25, 3.0))


# --- axes -----------------------------------------------------------------------------------------------------


def label_axes(axes: Any, columns: int, array: xr.DataArray, ratio: float, *, own: bool) -> None:
    """Set ticks, labels and frames of a grid of panels; a user's axes keep what they share with others."""
    crs = geometry.crs_of(array)
    degrees = crs is not None and crs.is_geographic
    names = axis_names(crs)
    box = axes[0].get_position()
    across, up = axes[0].figure.get_size_inches() * (box.width, box.height)
    across, up = min(across, up / ratio), min(up, across * ratio)
    for i, each in enumerate(axes):
        for axis, length, group in (
            (each.xaxis, across, each.get_shared_x_axes()),
            (each.yaxis, up, each.get_shared_y_axes()),
        ):
            if own or len(group.get_siblings(each)) == 1:  # shared axes share their ticks
                _set_ticks(axis, length, plain=degrees or crs is None)
        each.tick_params(labelsize=7, length=2.5, color="0.6", labelcolor="0.3")
        each.tick_params(axis="y", labelrotation=90)
        for label in each.get_yticklabels():
            label.set_verticalalignment("center")
        for spine in each.spines.values():
            spine.set(color="0.6", linewidth=0.6)
        if own:
            each.label_outer()
        if i + columns >= len(axes):
            each.set_xlabel(names[0], fontsize=8, color="0.3", loc="left")
            each.tick_params(labelbottom=True)
        if i % columns == 0:
            each.set_ylabel(names[1], fontsize=8, color="0.3", loc="bottom")


def axis_names(crs: pyproj.CRS | None) -> tuple[str, str]:
    """Names of x and y, with their unit and the CRS."""
    if crs is None:
        return "x", "y"
    if crs.is_geographic:
        return "longitude [°]", "latitude [°]"
    unit = crs.axis_info[0].unit_name if crs.axis_info else "metre"
    unit = {"metre": "m", "US survey foot": "ft", "foot": "ft"}.get(unit, unit)
    return f"easting [{unit}], {geometry.crs_name(crs)}", f"northing [{unit}]"


def _set_ticks(axis: Any, length: float, *, plain: bool) -> None:
    """Return as many ticks as have room for their labels in a length of inches."""
    ticker = require("matplotlib.ticker", "viz")
    most = int(np.clip(length / 0.8, 1, 4))  # a label takes two thirds of an inch
    axis.set_major_locator(ticker.MaxNLocator(most, min_n_ticks=min(most, 2)))
    axis.set_major_formatter(ticker.ScalarFormatter(useOffset=False) if plain else "{x:,.0f}")


def draw_scale_bar(ax: Any, array: xr.DataArray) -> None:
    """Draw a round ground distance, true at the map's middle, below the frame where it hides nothing."""
    crs = geometry.crs_of(array)
    xs, ys = array.coords["x"].values, array.coords["y"].values
    if crs is None or not np.ptp(xs) > 0:
        return
    metres = metres_per_unit(crs, float(np.mean(xs)), float(np.mean(ys)), float(np.ptp(xs)))
    if not math.isfinite(metres) or metres <= 0:
        return
    wanted = float(np.ptp(xs)) * metres / 5
    power = 10.0 ** math.floor(math.log10(wanted))
    length = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    transforms = require("matplotlib.transforms", "viz")
    below = transforms.ScaledTranslation(0, -_LABEL_ROW / 72, ax.figure.dpi_scale_trans)
    bar = require("mpl_toolkits.axes_grid1.anchored_artists", "viz").AnchoredSizeBar(
        ax.transData,
        length / metres,
        f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m",
        loc="upper right",
        pad=0,
        borderpad=0,
        sep=2,
        frameon=False,
        label_top=False,
        fontproperties=require("matplotlib.font_manager", "viz").FontProperties(size=7),
        color="0.3",
        bbox_to_anchor=(1, 0),
        bbox_transform=ax.transAxes + below,
    )
    ax.add_artist(bar)


def metres_per_unit(crs: pyproj.CRS, x: float, y: float, width: float) -> float:
    """Ground distance of one unit of x at a place, measured on the ellipsoid over a hundredth of the width."""
    half = width / 100
    to_lonlat = geometry.transformer(crs, geometry.as_crs(geometry.LONLAT))
    lon, lat = to_lonlat.transform([x - half, x + half], [y, y])
    geod = crs.get_geod() or pyproj.Geod(ellps="WGS84")
    distance = geod.inv(lon[0], lat[0], lon[1], lat[1])[2]
    return float(distance) / (2 * half)


# --- keys to the colours --------------------------------------------------------------------------------------


def draw_legend(figure: Any, ax: Any, legend: Legend, shown: np.ndarray, *, own: bool) -> None:
    """Draw names and colours of the classes that are shown."""
    patches = require("matplotlib.patches", "viz")
    there = set(np.unique(shown).tolist())
    entries = zip(legend.values, legend.names, legend.colours, strict=True)
    handles = [patches.Patch(color=colour, label=name) for value, name, colour in entries if value in there]
    options: dict[str, Any] = {"fontsize": 8, "frameon": False, "handlelength": 1.2, "handleheight": 1.2}
    options["ncols"] = -(-len(handles) // 24) or 1
    if own:
        figure.legend(handles=handles, loc="outside right upper", **options)
        return
    before = ax.get_legend()
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, **options)
    if before is not None:  # axes have one legend; another stays as an artist
        ax.add_artist(before)


def draw_bar(
    figure: Any,
    axes: Any,
    artist: Any,
    array: xr.DataArray,
    shown: np.ndarray,
    limits: tuple[float, float],
) -> None:
    """Draw a colour bar with the name and unit of what it measures."""
    there = shown[np.isfinite(shown)]
    below = bool(there.size) and float(there.min()) < limits[0]
    above = bool(there.size) and float(there.max()) > limits[1]
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[int(below), int(above)]
    bar = figure.colorbar(artist, ax=list(axes), extend=extend, shrink=0.8, aspect=28, pad=0.02)
    if array.dtype.kind in "iu":
        bar.locator = require("matplotlib.ticker", "viz").MaxNLocator(8, integer=True)
    bar.set_label(quantity(array), fontsize=8, color="0.3")
    bar.ax.tick_params(labelsize=7, length=2.5, color="0.6", labelcolor="0.3")
    bar.outline.set(color="0.6", linewidth=0.6)


def quantity(array: xr.DataArray) -> str:
    """Name and unit of a map's values, for the colour bar."""
    given = str(array.attrs.get("units", ""))
    unit = {"degree": "°", "1": "", "percent": "%"}.get(given, given)
    name = str(array.attrs.get("metric") or ("" if array.name is None else array.name))
    return f"{name} [{unit}]" if unit else name


def credit(array: xr.DataArray) -> str:
    """The credit line under a picture: who made the data, or that they are synthetic."""
    made_of = f"{array.attrs.get('version', '')} {array.attrs.get('derived_from', '')}"
    if "synthetic" in made_of:
        like = str(array.attrs.get("product") or made_of.replace("synthetic", "").strip())
        return f"synthetic data in the form of {like}" if like and like != "scene" else "synthetic data"
    return attribution_of(array)


def draw_credit(figure: Any, ax: Any, text: str, *, own: bool) -> None:
    """Draw the credit line at the foot of our own figure, or under a user's axes."""
    if not text:
        return
    if own:
        figure.supxlabel(text, fontsize=6, color="0.45", x=0.99, ha="right")
        return
    points = ax.get_window_extent().width / figure.dpi * 72
    lines = textwrap.fill(text, max(int(points / 3.2), 20))  # a letter is some 3 points wide
    at = (1, 0), (0, -_CREDIT_ROW), "axes fraction", "offset points"
    ax.annotate(lines, *at, fontsize=6, color="0.45", ha="right", va="top")
