"""Interactive pictures: HoloViews elements that pan and zoom, overlay with ``*`` and stand side by side with ``+``.

A raster that is larger than the screen is read for each view anew: every n-th pixel of the part that is looked at.
A mean, as datashader takes it, would read every block and blur what classes and vectors mean. Of many points,
datashader draws the first one in each pixel of the screen.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.areas import Bounds
from geoemb_xr.core.errors import EmbeddingError, require
from geoemb_xr.core.model import check_embedding, kind_of
from geoemb_xr.core.notes import in_notebook
from geoemb_xr.display import furniture, layers
from geoemb_xr.display.windows import thin, view_window
from geoemb_xr.execution import progress
from geoemb_xr.execution.computing import computed
from geoemb_xr.geo import footprints

if TYPE_CHECKING:
    from geoemb_xr.analysis.components import PCA

#: Pixels of the screen: the width of a frame where ``figsize`` does not say, and its greatest height.
_WIDTH, _TALLEST = 480, 640
_PIXELS_PER_INCH = 96
#: More points than a browser draws one by one.
_MANY = 20_000
#: Columns that ride along with points and are told on hover, at most.
_HOVER_COLUMNS = 8


def interactive_plot(
    array: xr.DataArray,
    *,
    model: PCA | None = None,
    limits: Any = None,
    cmap: Any = None,
    pixels: int = 1000,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Any:
    """Make a HoloViews object of an array; parameters as of :func:`geoemb_xr.plot`. Computes what is shown.

    Returns
    -------
    holoviews object
        ``RGB``, ``Image``, ``Points`` or ``Polygons``; a ``HoloMap`` with a slider where there are several years,
        components or categories; a ``DynamicMap`` that draws each view anew where a raster is larger than
        ``pixels`` or where there are more than 20,000 points.
    """
    hv = holoviews()
    if kind_of(array) != "map":
        check_embedding(array, "plot")
    raster = {"y", "x"} <= set(array.dims)
    if not raster and "location" not in array.dims:
        raise EmbeddingError(f"plot needs 'y' and 'x', or 'location'; got dims {tuple(array.dims)}")
    facet = layers.facets(array)
    if not facet and "time" in array.dims:
        array = array.isel(time=0)
    with progress.shown("plot"):
        overview = computed(thin(array, pixels))
    palette = layers.palette_of(overview, model=model, limits=limits, cmap=cmap)
    look = _Look.of(overview, palette, title, figsize, stepped=bool(facet))
    steps = {
        tuple(_step(array, d, i) for d, i in zip(facet, at, strict=True)): dict(zip(facet, at, strict=True))
        for at in itertools.product(*(range(array.sizes[d]) for d in facet))
    }
    kdims = [hv.Dimension(d, label="year" if d == "time" else d) for d in facet]
    if raster and max(array.sizes["y"], array.sizes["x"]) > pixels:
        overview = geometry.north_up_array(overview)
        return _read_as_looked_at(geometry.north_up_array(array), overview, steps, kdims, look, pixels)
    many = not raster and array.sizes["location"] > _MANY
    draw = look.raster if raster else look.dots if many else look.points
    drawn = {key: draw(palette.apply(overview.isel(at))) for key, at in steps.items()}
    shown = hv.HoloMap(drawn, kdims=kdims) if facet else drawn[()]
    return look.rasterised(shown) if many else shown


def _read_as_looked_at(
    array: xr.DataArray,
    overview: xr.DataArray,
    steps: Mapping[tuple[str | int, ...], Mapping[str, int]],
    kdims: list[Any],
    look: _Look,
    pixels: int,
) -> Any:
    """A raster that is larger than the screen: each view is read when it is shown, except that of the whole."""
    hv = holoviews()
    grid = geometry.geobox_of(array, "plot")
    whole, _ = view_window(array, grid, None, None, (pixels, pixels))

    def view(*key: str, **ranges: Any) -> Any:
        window, _ = view_window(array, grid, ranges["x_range"], ranges["y_range"], (pixels, pixels))
        if window == whole:
            return look.raster(look.palette.apply(overview.isel(steps[key])))
        part = array.isel({"y": window.rows.pixels, "x": window.cols.pixels, **steps[key]})
        return look.raster(computed(look.palette.apply(part)), window.bounds(grid))

    values = [list(dict.fromkeys(key[i] for key in steps)) for i in range(len(kdims))]
    kdims = [
        each.clone(values=own, range=(min(own), max(own))) for each, own in zip(kdims, values, strict=True)
    ]
    box = grid.boundingbox
    found = hv.DynamicMap(view, kdims=kdims, streams=[hv.streams.RangeXY()])
    return found.opts(xlim=(box.left, box.right), ylim=(box.bottom, box.top))


def _step(array: xr.DataArray, dim: str, i: int) -> str | int:
    """The label of a step of a slider: years are numbers, so that sliders of two pictures agree."""
    name = str(layers.label(array, dim, i))
    return int(name) if name.isdigit() else name


def holoviews() -> Any:
    """HoloViews with the Bokeh backend, as hvPlot sets it up.

    hvPlot is imported anew in each cell of a notebook, and loads its scripts there. They come from the installed
    packages: a page without a network is not blank.
    """
    hv = require("holoviews", "viz")
    inline = in_notebook() and "hvplot.xarray" not in sys.modules
    with hv.extension.param.update(inline=True) if inline else nullcontext():
        require("hvplot.xarray", "viz")
    return hv


@dataclass(frozen=True)
class _Look:
    """Options that all elements of a picture share.

    Parameters
    ----------
    palette : Palette
        Palette of the values.
    name : str
        Name of the numbers, with their unit.
    title, credit : str
        Text above and below the picture.
    axes : (str, str)
        Labels of the axes.
    frame : (int, int)
        Width and height in pixels of the screen.
    """

    palette: layers.Palette
    name: str
    title: str
    credit: str
    axes: tuple[str, str]
    frame: tuple[int, int]

    @classmethod
    def of(
        cls,
        array: xr.DataArray,
        palette: layers.Palette,
        title: str | None,
        figsize: tuple[float, float] | None,
        *,
        stepped: bool,
    ) -> _Look:
        """The look of an array in memory."""
        _, ratio = furniture.aspect_of(array)
        width = min(_WIDTH, int(_TALLEST / ratio))
        frame = width, int(width * ratio)
        if figsize is not None:
            frame = int(figsize[0] * _PIXELS_PER_INCH), int(figsize[1] * _PIXELS_PER_INCH)
        heading = (
            (title if title is not None else layers.map_title(array)).replace("{", "{{").replace("}", "}}")
        )
        heading += " {dimensions}" if stepped else ""  # HoloViews writes the step there
        axes = furniture.axis_names(geometry.crs_of(array))
        return cls(
            palette, furniture.quantity(array) or "value", heading, furniture.credit(array), axes, frame
        )

    def raster(self, data: xr.DataArray, bounds: Bounds | None = None) -> Any:
        """An element of a raster: colours, classes or numbers ``(y, x)``."""
        if bounds is None:
            left, right, bottom, top = furniture.extent_of(data)
            bounds = left, bottom, right, top
        if "rgb" in data.dims:
            return self._pixels(data.values, bounds)
        return self._pixels(self._numbers(data.transpose("y", "x").values), bounds)

    def _pixels(self, values: np.ndarray, bounds: Bounds) -> Any:
        """An element of colours ``(y, x, 4)`` or of numbers ``(y, x)``, north up."""
        hv = holoviews()
        if values.ndim == 3:
            vdims = [*hv.RGB.vdims, hv.RGB.alpha_dimension]
            return hv.RGB(values, self._kdims(), vdims, bounds=bounds).opts(**self._options())
        legend = self.palette.legend
        options = self._options(names=() if legend is None else legend.names)
        if legend is None:
            options["tools"] = ["hover"]
        return hv.Image(values, self._kdims(), self._value(), bounds=bounds).opts(**options, **self._bar())

    def dots(self, data: xr.DataArray) -> Any:
        """Points with one number each, for :meth:`rasterised`; colours are 0xRRGGBB."""
        if "rgb" in data.dims:
            red, green, blue, alpha = np.moveaxis(data.values.astype(np.int64), -1, 0)
            values = np.where(alpha > 0, red << 16 | green << 8 | blue, np.nan)
        else:
            values = self._numbers(data.values)
        table = pd.DataFrame({"x": data["x"].values, "y": data["y"].values, "value": values.astype(float)})
        return holoviews().Points(table.dropna(), self._kdims(), self._value())

    def rasterised(self, dots: Any) -> Any:
        """Rasterise dots to the screen's pixels, for any view."""
        hv, datashader = holoviews(), require("datashader", "viz")
        operations = require("holoviews.operation.datashader", "viz")
        width, height = self.frame
        first = datashader.first("value")  # a mean of classes or of colours has no meaning
        pixels = operations.rasterize(dots, aggregator=first, width=width, height=height)
        return hv.util.Dynamic(operations.dynspread(pixels, how="source"), operation=self._of_dots)

    def _of_dots(self, image: Any) -> Any:
        """The element of an image that datashader made of dots."""
        values = image.dimension_values(2, flat=False)[::-1]
        if self.palette.has_key:
            return self._pixels(values, image.bounds.lbrt())
        there = np.isfinite(values)
        codes = np.where(there, values, 0).astype(np.int64)
        colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255, 255 * there], axis=-1)
        return self._pixels(colours.astype(np.uint8), image.bounds.lbrt())

    def points(self, data: xr.DataArray) -> Any:
        """An element of points, or of patches where their sizes are known; further columns are shown on hover."""
        hv = holoviews()
        if "rgb" in data.dims:
            value = np.array([f"#{r:02x}{g:02x}{b:02x}" for r, g, b, _ in data.values])
            there = data.values[:, 3] > 0
        elif self.palette.legend is not None:
            names = dict(zip(self.palette.legend.values, self.palette.legend.names, strict=True))
            colours = dict(zip(self.palette.legend.values, self.palette.legend.colours, strict=True))
            value = np.array([colours.get(int(v), "#00000000") for v in data.values])
            there = np.isin(data.values, self.palette.legend.values)
            data = data.assign_coords({"class": ("location", [names.get(int(v), "") for v in data.values])})
        else:
            value, there = data.values, np.isfinite(data.values)
        table = _hover_columns(data).assign(**{self.name: value})[there]
        data = data.isel(location=there)
        numbers = self.palette.limits is not None
        shown = {
            "color": self.name,
            "tools": ["hover"],
            **self._options(),
            **(self._bar() if numbers else {}),
        }
        if footprints.has_footprints(data):
            crs = geometry.crs_of(data)
            assert crs is not None
            squares = footprints.squares_of(footprints.patches_of(data, "plot"), crs)
            told = [str(c) for c in table.columns if c not in ("x", "y")]
            rings = [
                {"x": x, "y": y, **row}
                for shape, row in zip(squares, table[told].to_dict("records"), strict=True)
                for x, y in _rings(shape)
            ]
            return hv.Polygons(rings, self._kdims(), told).opts(
                line_color="#00000040", line_width=0.5, **shown
            )
        size = float(np.clip(1500 / max(len(table), 1), 4, 9))
        told = [self.name, *(str(c) for c in table.columns if c not in ("x", "y", self.name))]
        return hv.Points(table, self._kdims(), told).opts(size=size, line_color="#00000059", **shown)

    def _kdims(self) -> list[Any]:
        """The axes: pictures in one CRS are linked, pictures in two are not."""
        dimension = holoviews().Dimension
        return [dimension(name, label=label) for name, label in zip(("x", "y"), self.axes, strict=True)]

    def _value(self) -> Any:
        return holoviews().Dimension("value", label=self.name)

    def _numbers(self, values: np.ndarray) -> np.ndarray:
        """Numbers as they are; classes as positions in the legend, NaN where there is none."""
        if self.palette.legend is None:
            return values
        table = np.full(int(max(*self.palette.legend.values, values.max(initial=0))) + 1, np.nan, np.float32)
        table[list(self.palette.legend.values)] = np.arange(len(self.palette.legend.values))
        return np.asarray(table[values])

    def _options(self, names: tuple[str, ...] = ()) -> dict[str, Any]:
        formatter = None if "[°]" in self.axes[0] or self.axes[0] == "x" else "%.0f"
        plain = {"xformatter": formatter, "yformatter": formatter} if formatter else {}
        return {
            "title": self.title,
            "frame_width": self.frame[0],
            "frame_height": self.frame[1],
            "active_tools": ["pan", "wheel_zoom"],
            "bgcolor": "#f4f4f4",
            "fontsize": {"title": 10, "labels": 8, "xticks": 7, "yticks": 7},
            "hooks": [_Below(self.credit, names)],
            **plain,
        }

    def _bar(self) -> dict[str, Any]:
        """A colour bar: of numbers, or the legend of classes."""
        legend, limits = self.palette.legend, self.palette.limits
        if legend is not None:
            models = require("bokeh.models", "viz")
            count = len(legend.names)
            return {
                "cmap": list(legend.colours),
                "clim": (-0.5, count - 0.5),
                "colorbar": True,
                "clabel": "",
                "colorbar_opts": {
                    "ticker": models.FixedTicker(ticks=list(range(count))),
                    "major_label_overrides": dict(enumerate(legend.names)),
                    "major_tick_line_color": None,
                },
            }
        return {"cmap": self.palette.cmap, "clim": limits, "colorbar": True, "clabel": self.name}


@dataclass(frozen=True)
class _Below:
    """A hook of HoloViews that adds to a Bokeh figure, once, the credit line and the names of classes on hover."""

    credit: str
    names: tuple[str, ...] = ()

    def __call__(self, plot: Any, element: Any) -> None:
        models, figure = require("bokeh.models", "viz"), plot.state
        lines = {each.text for each in figure.below if isinstance(each, models.Title)}
        if self.credit and self.credit not in lines:
            small: dict[str, Any] = {"text_font_size": "7pt", "text_color": "#777777", "align": "right"}
            line = models.Title(text=self.credit, text_font_style="normal", **small)
            figure.add_layout(line, "below")
        if self.names and not figure.select({"type": models.HoverTool}):
            to_name = models.CustomJSHover(
                args={"names": list(self.names)}, code="return names[Math.round(value)] ?? 'no data'"
            )
            told = [("class", "@image{custom}"), ("x, y", "$x{0,0.[000]}, $y{0,0.[000]}")]
            figure.add_tools(models.HoverTool(tooltips=told, formatters={"@image": to_name}))


def _hover_columns(data: xr.DataArray) -> pd.DataFrame:
    """Place, identity and some further columns, one row per location."""
    beside = [
        str(name)
        for name, coord in data.coords.items()
        if coord.dims == ("location",) and name not in ("location", "x", "y", "patch_m")
    ]
    columns = {name: data.coords[name].values for name in ("x", "y", *beside[:_HOVER_COLUMNS])}
    if "location" in data.coords:
        columns["location"] = data.coords["location"].values
    return pd.DataFrame(columns)


def _rings(shape: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return x and y of the outer rings of a polygon, or of each part of several."""
    outer = [shapely.get_coordinates(part.exterior) for part in getattr(shape, "geoms", [shape])]
    return [(ring[:, 0], ring[:, 1]) for ring in outer]
