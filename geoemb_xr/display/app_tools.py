"""Interactions of the app: swipe between two maps, draw boxes and polygons, press keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import shapely

from geoemb_xr.core.errors import require

PIXEL, BOX, POLYGON = "pixel", "box", "polygon"
#: Columns of an image's source.
IMAGE = ("image", "x", "y", "dw", "dh")
_SLIDER_HEIGHT = 24

# What lies right of the line is laid over the left map: cut in the browser, so that nothing is sent meanwhile.
_SWIPE = """
    const whole = answer.data, at = x.start + slider.value * (x.end - x.start)
    line.location = at
    if (!slider.visible || !whole.image.length) { laid.setv({data: none.data}, {sync: false}); return }
    const image = whole.image[0], [rows, columns] = image.shape
    const cut = Math.round((at - whole.x[0]) / whole.dw[0] * columns)
    const kept = new image.constructor(image, image.shape)
    for (let row = 0; row < rows; row++)
        kept.fill(0, row * columns, row * columns + Math.min(Math.max(cut, 0), columns))
    laid.setv({data: {...whole, image: [kept]}}, {sync: false})
"""

# Keys count while the mouse is over a map, wherever the focus is, but not while somebody writes. A notebook would
# take the arrows for itself, so the window takes them first.
_ENTER = """
    const send = (event) => {
        let focus = document.activeElement
        while (focus?.shadowRoot?.activeElement) focus = focus.shadowRoot.activeElement
        if (["INPUT", "TEXTAREA", "SELECT"].includes(focus?.tagName) && focus.type != "range") return
        if (event.ctrlKey || event.altKey || event.metaKey) return
        if (!/^(Arrow(Left|Right)|Escape|Enter|[1-9])$/.test(event.key)) return
        event.preventDefault()
        event.stopPropagation()
        keys.data = {key: [event.key], count: [(keys.data.count[0] ?? 0) + 1]}
    }
    window.removeEventListener("keydown", keys._send, true)
    keys._send = send
    window.addEventListener("keydown", send, true)
"""
_LEAVE = 'window.removeEventListener("keydown", keys._send, true)'


class Swipe:
    """A line on the left map, right of which the right map is laid over it.

    Parameters
    ----------
    figure : bokeh figure
        The left map.
    answer : ColumnDataSource
        The image of the right map.
    """

    def __init__(self, figure: Any, answer: Any) -> None:
        models = require("bokeh.models", "viz")
        self.slider = models.Slider(
            start=0, end=1, step=0.005, value=0.5, show_value=False, title="", visible=False,
            height=_SLIDER_HEIGHT, sizing_mode="stretch_width", margin=(0, 0, 0, figure.min_border_left),
            tooltips=False, name="swipe",
        )  # fmt: skip
        #: As high as the slider, over the other map.
        self.gap = models.Spacer(height=_SLIDER_HEIGHT, visible=False)
        self.line = models.Span(dimension="height", line_color="white", line_width=2, visible=False)
        laid, none = (models.ColumnDataSource({column: [] for column in IMAGE}) for _ in range(2))
        figure.image_rgba(**{column: column for column in IMAGE}, source=laid, level="glyph")
        figure.add_layout(self.line)
        args = {
            "answer": answer, "laid": laid, "none": none, "line": self.line, "slider": self.slider,
            "x": figure.x_range,
        }  # fmt: skip
        cut = models.CustomJS(args=args, code=_SWIPE)
        for model, names in (
            (self.slider, ("value", "visible")),
            (answer, ("data",)),
            (figure.x_range, ("start", "end")),
        ):
            for name in names:
                model.js_on_change(name, cut)

    def show(self, shown: bool) -> None:
        """Lay the right map over the left one, or take it away."""
        self.slider.visible = self.gap.visible = self.line.visible = shown


class Shapes:
    """Boxes by dragging, and polygons by clicking corners, on either map.

    Parameters
    ----------
    figures : sequence of bokeh figures
        The maps.
    done : callable
        Gets each finished polygon, in the CRS of the maps.
    """

    def __init__(self, figures: Sequence[Any], done: Callable[[Any], None]) -> None:
        models = require("bokeh.models", "viz")
        self.kind = PIXEL
        self.corners: list[tuple[float, float]] = []
        self._done = done
        self._source = models.ColumnDataSource({"x": [], "y": []})
        self._tools: list[tuple[Any, Any, Any]] = []
        for figure in figures:
            for width, colour in ((4, "black"), (2, "white")):
                figure.line("x", "y", source=self._source, line_color=colour, line_width=width)
            figure.scatter("x", "y", source=self._source, size=6, fill_color="white", line_color="black")
            pan, box = figure.select_one(models.PanTool), models.BoxSelectTool(renderers=[])
            figure.add_tools(box)
            self._tools.append((figure.toolbar, pan, box))
            figure.on_event("selectiongeometry", self._select)

    def use(self, kind: str) -> None:
        """Take pixels, boxes or polygons from now on."""
        self.kind = kind
        self.clear()
        for toolbar, pan, box in self._tools:
            toolbar.active_drag = box if kind == BOX else pan

    def corner(self, x: float, y: float, *, twice: bool, near: float) -> None:
        """Take a click as the next corner; a second one at the same place closes the polygon."""
        again = bool(self.corners) and max(abs(self.corners[-1][0] - x), abs(self.corners[-1][1] - y)) <= near
        if twice and again:
            self.close()
            return
        self.corners.append((x, y))
        self._draw()

    def close(self) -> None:
        """Finish the polygon, if it has three corners."""
        corners = self.corners
        if len(corners) > 2:
            self.clear()
            self._done(shapely.make_valid(shapely.Polygon(corners)))

    def clear(self) -> None:
        """Forget the corners."""
        self.corners = []
        self._draw()

    def _draw(self) -> None:
        self._source.data = {"x": [x for x, _ in self.corners], "y": [y for _, y in self.corners]}

    def _select(self, event: Any) -> None:
        geometry = event.geometry
        if event.final and geometry.get("type") == "rect":
            self._done(shapely.box(*(geometry[side] for side in ("x0", "y0", "x1", "y1"))))


def listen(figures: Sequence[Any], press: Callable[[str], None]) -> Any:
    """Listen to keys that are pressed while the mouse is over a map; return the source that carries them."""
    models = require("bokeh.models", "viz")
    keys = models.ColumnDataSource({"key": [], "count": []})
    for figure in figures:
        figure.js_on_event("mouseenter", models.CustomJS(args={"keys": keys}, code=_ENTER))
        figure.js_on_event("mouseleave", models.CustomJS(args={"keys": keys}, code=_LEAVE))
    keys.on_change("data", lambda attr, old, new: press(new["key"][0]) if len(new["key"]) else None)
    return keys
