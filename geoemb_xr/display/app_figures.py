"""Bokeh figures of the app: two maps that move together, and two charts below them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import require
from geoemb_xr.display import app_drawing, app_layout
from geoemb_xr.display.app_drawing import FAINT
from geoemb_xr.display.app_tools import IMAGE

_CHART_HEIGHT = 150
#: A view is at rest, and read again, when its ranges have not changed for so many milliseconds.
_REST_MS = 120
_ACCENT = "#0072b2"


def make_map(
    state: Any,
    sources: Mapping[str, Any],
    name: str,
    ranges: tuple[Any, Any],
    size: tuple[int, int],
    *,
    tiles: bool,
) -> Any:
    """A map: an image, labels, a ring around the chosen pixel and a cross at a place of a design."""
    first = name == "picture"
    left, right = app_layout.PICTURE_BORDERS if first else app_layout.ANSWER_BORDERS
    figure = require("bokeh.plotting", "viz").figure(
        x_range=ranges[0], y_range=ranges[1], sizing_mode="stretch_width", frame_height=size[1],
        tools="pan,wheel_zoom,reset", active_scroll="wheel_zoom", toolbar_location=None if first else "right",
        min_border_left=left, min_border_right=right,
        background_fill_color="#f4f4f4", outline_line_color="#bbbbbb", name=name,
    )  # fmt: skip
    if tiles:
        figure.add_tile("Esri World Imagery", retina=True)
    figure.image_rgba(
        **{column: column for column in IMAGE}, source=sources[name], global_alpha=0.75 if tiles else 1.0
    )
    app_drawing.style(figure)
    figure.grid.visible = False
    crs = geometry.as_crs(state.grid.crs)
    for axis in figure.axis:
        axis.formatter = require("bokeh.models", "viz").NumeralTickFormatter(
            format="0.000" if crs.is_geographic else "0,0"
        )
        axis.ticker.desired_num_ticks = 4
    figure.yaxis.major_label_orientation = "vertical"
    figure.yaxis.visible = first
    app_layout.keep_shape(figure, size)
    return figure


def mark(figure: Any, sources: Mapping[str, Any]) -> None:
    """Draw labels, the chosen pixel and the place of a design over everything else on a map."""
    points = {"x": "x", "y": "y"}
    figure.scatter(
        **points, marker="circle", source=sources["labels"], size=9, fill_color="colour",
        line_color="white", line_width=1.5,
    )  # fmt: skip
    for colour, thickness in (("black", 4), ("white", 2)):
        look = {"fill_color": None, "line_color": colour, "line_width": thickness}
        figure.scatter(**points, marker="circle", source=sources["ring"], size=15, **look)
        figure.scatter(**points, marker="cross", source=sources["place"], size=34, **look)


def follow(figure: Any, view: Any, move: Callable[[Any], None]) -> None:
    """Re-read when the view has come to rest: the browser waits until then, and sends its ranges once."""
    wait = require("bokeh.models", "viz").CustomJS(
        args={"view": view, "x": figure.x_range, "y": figure.y_range, "rest": _REST_MS},
        code="""
            const send = () => view.data = {x0: [x.start], x1: [x.end], y0: [y.start], y1: [y.end]}
            clearTimeout(view._waiting)
            view._waiting = setTimeout(send, rest)
        """,
    )
    for limits in (figure.x_range, figure.y_range):
        limits.js_on_change("start", wait)
        limits.js_on_change("end", wait)
    view.on_change("data", lambda attr, old, new: move(new))


def make_vector(source: Any, names: Sequence[str]) -> Any:
    """Bars of the chosen pixel's vector."""
    bars = _make_chart(app_layout.PICTURE_BORDERS)
    bars.vbar(x="band", top="value", width=0.8, source=source, color=_ACCENT)
    bars.x_range.range_padding = 0.01
    if not names[0].isdigit():
        bars.xaxis.major_label_overrides = dict(enumerate(names))
    return bars


def make_course(source: Any, years: Sequence[float]) -> tuple[Any, Any]:
    """The angle of the chosen pixel over the years, and the line at the shown year."""
    models = require("bokeh.models", "viz")
    course = _make_chart(app_layout.ANSWER_BORDERS, y_axis_location="right")
    now = models.Span(dimension="height", line_color=FAINT, line_dash="dashed", line_width=1)
    course.add_layout(now)
    course.line("year", "angle", source=source, color=_ACCENT, line_width=1.5)
    course.scatter("year", "angle", source=source, color=_ACCENT, size=7)
    course.x_range = models.Range1d(min(years) - 0.4, max(years) + 0.4)
    course.y_range = models.Range1d(0, 5)
    course.xaxis.ticker = app_drawing.year_ticks(list(years))
    return course, now


def _make_chart(borders: tuple[int, int], **options: Any) -> Any:
    chart = require("bokeh.plotting", "viz").figure(
        sizing_mode="stretch_width", frame_height=_CHART_HEIGHT, toolbar_location=None, tools="", title=" ",
        outline_line_color=None, background_fill_color=None,
        min_border_left=borders[0], min_border_right=borders[1], **options,
    )  # fmt: skip
    app_drawing.style(chart)
    chart.yaxis.ticker.desired_num_ticks = 4
    chart.xgrid.visible = False
    chart.ygrid.update(grid_line_color=FAINT, grid_line_alpha=0.2)
    chart.title.update(text_color=FAINT, text_font_style="normal", text_font_size="13px")
    return chart
