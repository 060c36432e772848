"""One display of the app: Bokeh figures and Panel widgets around an explorer's state."""

from __future__ import annotations

import html
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoemb_xr.core import geometry, times
from geoemb_xr.core.errors import EmbeddingError, require
from geoemb_xr.core.legend import legend_of
from geoemb_xr.display import app_drawing, app_words
from geoemb_xr.display.app_drawing import FAINT
from geoemb_xr.display.app_words import INK

if TYPE_CHECKING:
    from geoemb_xr.display.explorer import Answer, Explorer
    from geoemb_xr.display.windows import Pixel, Window

#: Width of the column of widgets, and what axes and gaps take beside the two maps, in pixels.
SIDE, MARGINS = 230, 150
_AXIS, _GAP = 50, 45
_CHART_HEIGHT = 150
#: A view is at rest, and read again, when its ranges have not changed for so many milliseconds.
_REST_MS = 120
#: So many pixels tell how far a map's colours are stretched.
_STRETCH_PIXELS = 100_000
_IMAGE = ("image", "x", "y", "dw", "dh")
_ACCENT = "#0072b2"
_LOOK = "look at it"


def ground_stretch(array: xr.DataArray) -> float:
    """How much longer a unit of y is on the ground than one of x: degrees of longitude shrink with latitude."""
    crs = geometry.crs_of(array)
    if crs is None or not crs.is_geographic:
        return 1.0
    return 1 / max(float(np.cos(np.radians(np.mean(array.coords["y"].values)))), 0.05)


class Display:
    """Figures and widgets around an explorer's state.

    Bokeh's figures are used as they are: an update is new data in a source, which takes milliseconds, where
    HoloViews rebuilds plots at each click.

    Parameters
    ----------
    state : Explorer
        What is shown.
    size : (int, int)
        Width and height of a map on the screen.
    tiles : bool
        Whether pictures from the network lie underneath.
    """

    def __init__(self, state: Explorer, size: tuple[int, int], *, tiles: bool = False) -> None:
        pn, models = require("panel", "viz"), require("bokeh.models", "viz")
        self.state = state
        self._size = size
        #: What colours are stretched over: kept while the view and the year change, so that maps compare.
        self._limits: dict[Answer, tuple[float, float]] = {}
        self._pictured: tuple[int, Window] | None = None
        self._adding = False
        empty = {
            "picture": _IMAGE, "answer": _IMAGE, "ring": ("x", "y"), "labels": ("x", "y", "colour"),
            "vector": ("band", "value"), "course": ("year", "angle"), "view": ("x0", "x1", "y0", "y1"),
        }  # fmt: skip
        self.sources = {
            name: models.ColumnDataSource({column: [] for column in columns})
            for name, columns in empty.items()
        }
        self.figures = self._make_figures(tiles)
        self.widgets = self._make_widgets(pn)
        self._heads = [pn.pane.HTML("", width=size[0], margin=0) for _ in range(2)]
        self._status = pn.pane.HTML("", width=SIDE - 20, margin=(6, 10))
        self.layout = self._lay_out(pn)
        self.refresh()

    # --- layout ------------------------------------------------------------------------------------------------

    def _make_figures(self, tiles: bool) -> dict[str, Any]:
        models = require("bokeh.models", "viz")
        x, y = (models.Range1d(*ends) for ends in self._start())
        maps = {name: self._make_map(name, x, y, tiles) for name in ("picture", "answer")}
        self._follow(maps["picture"])
        made = {**maps, "vector": self._make_vector()}
        if len(self.state.periods) > 1:
            made["course"] = self._make_course()
        return made

    def _start(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Ranges of x and y around what is shown first, in the shape of the frame."""
        left, bottom, right, top = self.state.shown
        stretch = ground_stretch(self.state.array)
        unit = max((right - left) / self._size[0], (top - bottom) * stretch / self._size[1])
        x, y = (left + right) / 2, (bottom + top) / 2
        dx, dy = unit * self._size[0] / 2, unit * self._size[1] / 2 / stretch
        return (x - dx, x + dx), (y - dy, y + dy)

    def _make_map(self, name: str, x_range: Any, y_range: Any, tiles: bool) -> Any:
        first = name == "picture"
        figure = require("bokeh.plotting", "viz").figure(
            x_range=x_range, y_range=y_range, frame_width=self._size[0], frame_height=self._size[1],
            tools="pan,wheel_zoom,reset", active_scroll="wheel_zoom", toolbar_location=None if first else "right",
            min_border_left=_AXIS if first else _GAP, min_border_right=0,
            background_fill_color="#f4f4f4", outline_line_color="#bbbbbb", name=name,
        )  # fmt: skip
        if tiles:
            figure.add_tile("Esri World Imagery", retina=True)
        figure.image_rgba(
            **{column: column for column in _IMAGE},
            source=self.sources[name],
            global_alpha=0.75 if tiles else 1.0,
        )
        points = {"x": "x", "y": "y", "marker": "circle"}
        figure.scatter(
            **points,
            source=self.sources["labels"],
            size=9,
            fill_color="colour",
            line_color="white",
            line_width=1.5,
        )
        for colour, thickness in (("black", 4), ("white", 2)):
            figure.scatter(
                **points, source=self.sources["ring"], size=15, fill_color=None, line_color=colour,
                line_width=thickness,
            )  # fmt: skip
        app_drawing.style(figure)
        figure.grid.visible = False
        crs = geometry.as_crs(self.state.grid.crs)
        for axis in figure.axis:
            axis.formatter = require("bokeh.models", "viz").NumeralTickFormatter(
                format="0.000" if crs.is_geographic else "0,0"
            )
            axis.ticker.desired_num_ticks = 4
        figure.yaxis.major_label_orientation = "vertical"
        figure.yaxis.visible = first
        for event in ("tap", "doubletap"):  # two clicks in short order, wherever, are a tap and a double tap
            figure.on_event(event, lambda at: self.tap(at.x, at.y))
        return figure

    def _follow(self, figure: Any) -> None:
        """Re-read when the view has come to rest: the browser waits until then, and sends its ranges once."""
        wait = require("bokeh.models", "viz").CustomJS(
            args={"view": self.sources["view"], "x": figure.x_range, "y": figure.y_range, "rest": _REST_MS},
            code="""
                const send = () => view.data = {x0: [x.start], x1: [x.end], y0: [y.start], y1: [y.end]}
                clearTimeout(view._waiting)
                view._waiting = setTimeout(send, rest)
            """,
        )
        for limits in (figure.x_range, figure.y_range):
            limits.js_on_change("start", wait)
            limits.js_on_change("end", wait)
        self.sources["view"].on_change("data", lambda attr, old, new: self.move(new))

    def _make_vector(self) -> Any:
        bars = self._make_chart(_AXIS)
        bars.vbar(x="band", top="value", width=0.8, source=self.sources["vector"], color=_ACCENT)
        names = [str(name) for name in self.state.product.decoded_bands]
        bars.x_range.range_padding = 0.01
        if not names[0].isdigit():
            bars.xaxis.major_label_overrides = {i: names[i] for i in range(len(names))}
        return bars

    def _make_course(self) -> Any:
        models = require("bokeh.models", "viz")
        course = self._make_chart(_GAP)
        self._now = models.Span(dimension="height", line_color=FAINT, line_dash="dashed", line_width=1)
        course.add_layout(self._now)
        course.line("year", "angle", source=self.sources["course"], color=_ACCENT, line_width=1.5)
        course.scatter("year", "angle", source=self.sources["course"], color=_ACCENT, size=7)
        assert self.state.times is not None
        years = [app_drawing.decimal_year(t) for t in self.state.times]
        course.x_range = models.Range1d(min(years) - 0.4, max(years) + 0.4)
        course.y_range = models.Range1d(0, 5)
        course.xaxis.ticker = app_drawing.year_ticks(years)
        course.yaxis.axis_label = "degrees"
        return course

    def _make_chart(self, left: int) -> Any:
        chart = require("bokeh.plotting", "viz").figure(
            frame_width=self._size[0], frame_height=_CHART_HEIGHT, toolbar_location=None, tools="", title=" ",
            outline_line_color=None, min_border_left=left, min_border_right=0,
        )  # fmt: skip
        app_drawing.style(chart)
        chart.yaxis.ticker.desired_num_ticks = 4
        chart.xgrid.visible = False
        chart.ygrid.grid_line_color = "#eeeeee"
        chart.title.update(text_color=INK, text_font_style="normal", text_font_size="13px")
        return chart

    def _make_widgets(self, pn: Any) -> dict[str, Any]:
        state, wide = self.state, SIDE - 20
        answers = {"similar to the pixel": "similarity", "classes of your labels": "classes"}
        if len(state.periods) > 1:
            answers[f"change since {state.periods[0]}"] = "change"
        w = {
            "answer": pn.widgets.RadioBoxGroup(options=answers, value="similarity", margin=(2, 10)),
            "mode": pn.widgets.RadioButtonGroup(
                options=[_LOOK, *state.classes],
                value=_LOOK,
                orientation="vertical",
                width=wide,
                stylesheets=[app_words.swatches(list(state.classes.values()))],
            ),
            "name": pn.widgets.TextInput(placeholder="name of a class", width=wide - 75),
            "add": pn.widgets.Button(label="add", width=55),
            "undo": pn.widgets.Button(label="undo last label", width=wide),
            "rename": pn.widgets.Button(label="rename", width=65),
            "delete": pn.widgets.Button(label="delete", width=60),
            "colour": pn.widgets.ColorPicker(width=36, margin=(5, 0)),
            "save": pn.widgets.FileDownload(
                callback=self._labels_file, filename="labels.geojson", label="save labels", width=wide
            ),
            "load": pn.widgets.FileInput(accept=".geojson,.json,.gpkg,.csv,.parquet", width=wide),
        }
        self._edit = pn.Row(w["rename"], w["delete"], w["colour"], margin=0, visible=False)
        self._busy = pn.indicators.LoadingSpinner(value=False, size=18, margin=(6, 10), visible=False)
        w["rename"].on_click(lambda _: self._rename())
        w["delete"].on_click(lambda _: self._delete())
        w["colour"].param.watch(lambda event: self._recolour(event.new), "value")
        w["load"].param.watch(lambda _: self._load(), "value")
        w["answer"].param.watch(lambda _: self.refresh(), "value")
        w["mode"].param.watch(lambda _: self._choose(), "value")
        w["add"].on_click(lambda _: self._add_class())
        w["name"].param.watch(lambda _: self._add_class(), "enter_pressed")
        w["name"].param.watch(lambda _: self._add_class() if self._adding else None, "value")
        w["undo"].on_click(lambda _: self._undo())
        if len(state.periods) > 1:
            options = {name: i for i, name in enumerate(state.periods)}
            w["period"] = pn.widgets.DiscreteSlider(
                label="year", options=options, value=state.step, width=wide - 10
            )
            # what must be read first is read when the slider is let go
            on = "value" if state.array.chunks is None else "value_throttled"
            w["period"].param.watch(lambda event: self._go_to(event.new), on)
        return w

    def _lay_out(self, pn: Any) -> Any:
        w, wide = self.widgets, SIDE - 20
        side = pn.Column(
            *([w["period"]] if "period" in w else []),
            app_words.heading(pn, "The right map shows", wide),
            w["answer"],
            app_words.heading(pn, "A click on a map means", wide),
            w["mode"],
            pn.Row(w["name"], w["add"], margin=0),
            self._edit,
            w["undo"],
            w["save"],
            w["load"],
            self._busy,
            self._status,
            width=SIDE,
            margin=0,
        )
        layouts = require("bokeh.layouts", "viz")
        f = self.figures
        maps = layouts.row(f["picture"], f["answer"])
        charts = layouts.row([chart for name, chart in f.items() if name in ("vector", "course")])
        self._pane = pn.pane.Bokeh(layouts.column(maps, charts), margin=0)
        titles = pn.Row(
            pn.Spacer(width=_AXIS), self._heads[0], pn.Spacer(width=_GAP), self._heads[1], margin=0
        )
        return pn.Column(
            pn.pane.HTML(app_words.head_html(self.state), margin=(0, 10, 6, 10)),
            pn.Row(side, pn.Column(titles, self._pane, margin=0), margin=0),
            pn.pane.HTML(app_words.credit_html(self.state), margin=(0, 10)),
        )

    # --- events ------------------------------------------------------------------------------------------------

    def move(self, view: Mapping[str, Sequence[float]]) -> None:
        """Show another part of the array at the screen's resolution."""
        before = self.state.window
        self.state.look((view["x0"][0], view["x1"][0]), (view["y0"][0], view["y1"][0]), *self._size)
        if self.state.window != before:
            self.refresh()

    def tap(self, x: float, y: float) -> None:
        """Look at the pixel under a click, or label it."""
        name = self.widgets["mode"].value
        if name == _LOOK:
            self.state.click(x, y)
        else:
            self.state.label(x, y, name)
        self._limits.pop("similarity", None)
        answer = self.widgets["answer"]
        if name != _LOOK and self.state.probe is not None and answer.value != "classes":
            answer.value = "classes"  # which redraws
        else:
            self.refresh()

    def _go_to(self, step: int) -> None:
        self.state.go_to(step)
        self.refresh()

    def _add_class(self) -> None:
        field = self.widgets["name"]
        name = (field.value_input or field.value).strip()
        self._adding = not name  # a notebook may tell of the click before it tells of the text
        if not name or name == _LOOK:
            return
        if name not in self.state.classes:
            self.state.add_class(name)
        field.param.update(value="", value_input="")
        self._list_classes(name)

    def _list_classes(self, chosen: str) -> None:
        self.widgets["mode"].param.update(
            options=[_LOOK, *self.state.classes],
            value=chosen,
            stylesheets=[app_words.swatches(list(self.state.classes.values()))],
        )
        self._say()

    def _choose(self) -> None:
        """A class was chosen, or to look: its buttons are shown."""
        name = self.widgets["mode"].value
        self._edit.visible = name in self.state.classes
        if name in self.state.classes:
            self.widgets["colour"].value = self.state.classes[name]
        self._say()

    def _rename(self) -> None:
        field, name = self.widgets["name"], self.widgets["mode"].value
        new = (field.value_input or field.value).strip()
        if name in self.state.classes and new and new not in (*self.state.classes, _LOOK):
            self.state.rename_class(name, new)
            field.param.update(value="", value_input="")
            self._list_classes(new)
            self.refresh()
        else:
            self.state.note = "Write the new name into the field above, then press rename."
            self._say()

    def _delete(self) -> None:
        name = self.widgets["mode"].value
        if name in self.state.classes:
            self.state.remove_class(name)
            self._list_classes(_LOOK)
            self.refresh()

    def _recolour(self, colour: str | None) -> None:
        name = self.widgets["mode"].value
        if colour and name in self.state.classes and self.state.classes[name] != colour:
            self.state.recolour_class(name, colour)
            self._list_classes(name)
            self.refresh()

    def _labels_file(self) -> io.BytesIO:
        """The labels as GeoJSON, for the browser to save."""
        labels = self.state.labels.to_crs(geometry.LONLAT)
        if "time" in labels:
            labels["time"] = labels["time"].dt.strftime("%Y-%m-%d")  # JSON has no dates
        return io.BytesIO(labels.to_json(drop_id=True).encode())

    def _load(self) -> None:
        field = self.widgets["load"]
        if not field.value:
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"labels{Path(field.filename).suffix}"
            path.write_bytes(field.value)
            try:
                count = self.state.load_labels(path)
                self.state.note = f"Read {count} labelled pixels of {field.filename}."
            except (EmbeddingError, ValueError) as error:
                self.state.note = str(error)
        note = self.state.note
        self._list_classes(self.widgets["mode"].value)
        self.refresh()
        self.state.note = note
        self._say()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """The sign that something is computed is on meanwhile."""
        self._busy.param.update(value=True, visible=True)
        try:
            yield
        finally:
            self._busy.param.update(value=False, visible=False)

    def _undo(self) -> None:
        self.state.undo()
        self.refresh()

    # --- pictures ----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Draw everything as the state now is."""
        with self._working():
            self._draw()

    def _draw(self) -> None:
        state = self.state
        if self._pictured != (state.step, state.window):
            self._put_image("picture", app_drawing.packed(state.picture().transpose("y", "x", "rgb").values))
            self._pictured = state.step, state.window
        self._draw_answer()
        pixel, labelled = state.pixel, state.labelled
        self.sources["ring"].data = (
            {"x": [pixel.x], "y": [pixel.y]} if pixel is not None else {"x": [], "y": []}
        )
        self.sources["labels"].data = {
            "x": [at.x for at, _ in labelled],
            "y": [at.y for at, _ in labelled],
            "colour": [state.classes[name] for _, name in labelled],
        }
        if pixel is not None:
            self._draw_vector(pixel)
            if "course" in self.figures:
                self._draw_course(pixel)
        self._say()
        require("panel", "viz").io.push_notebook(self._pane)

    def _put_image(self, name: str, rgba: np.ndarray) -> None:
        """Packed RGBA ``(y, x)``, the first row at the top, over the shown window."""
        left, bottom, right, top = self.state.shown
        self.sources[name].data = {
            "image": [rgba[::-1]], "x": [left], "y": [bottom], "dw": [right - left], "dh": [top - bottom],
        }  # fmt: skip

    def _draw_answer(self) -> None:
        kind: Answer = self.widgets["answer"].value
        found = self.state.answer(kind)
        if found is None:
            self._heads[1].object = app_words.map_head(app_words.missing(kind, self.state))
            self._put_image("answer", np.zeros((1, 1), np.uint32))
            return
        values = found.transpose("y", "x").values
        if kind == "classes":
            legend = legend_of(found)
            self._heads[1].object = app_words.map_head("Classes", app_words.legend_html(legend))
            self._put_image("answer", app_drawing.packed(legend.rgba())[values])
            return
        limits = self._stretch_of(values, kind)
        title, palette = app_words.describe(kind, self.state)
        self._heads[1].object = app_words.map_head(title, app_words.bar_html(palette, limits, found))
        self._put_image("answer", app_drawing.coloured(values, palette, limits))

    def _stretch_of(self, values: np.ndarray, kind: Answer) -> tuple[float, float]:
        """What the colours of an answer are stretched over."""
        if kind not in self._limits:
            step = max(int(np.sqrt(values.size / _STRETCH_PIXELS)), 1)
            some = values[::step, ::step]
            some = some[np.isfinite(some)]
            if not some.size:
                return 0.0, 1.0
            # changes are rare: a 98th percentile would be noise
            low, high = (
                (0.0, np.percentile(some, 99.8)) if kind == "change" else (np.percentile(some, 2), 1.0)
            )
            self._limits[kind] = float(low), max(float(high), float(low) + 1e-6)
        return self._limits[kind]

    def _draw_vector(self, pixel: Pixel) -> None:
        self.sources["vector"].data = {"band": np.arange(pixel.vector.size), "value": pixel.vector}
        when = "" if pixel.time is None else f", {times.describe_times(np.array([pixel.time]))}"
        self.figures["vector"].title.text = f"Vector of the pixel{when}"

    def _draw_course(self, pixel: Pixel) -> None:
        course, chart = self.state.course(pixel), self.figures["course"]
        self.sources["course"].data = {
            "year": [app_drawing.decimal_year(t) for t in course.index],
            "angle": course.to_numpy(),
        }
        there = course.dropna()
        first = times.describe_times(there.index.values[:1]) if len(there) else ""
        chart.title.text = f"Its course: angle to {first}"
        high = max(1.15 * float(there.max()), 5.0) if len(there) else 5.0
        chart.y_range.update(start=-0.04 * high, end=high)
        assert self.state.times is not None
        self._now.location = app_drawing.decimal_year(self.state.times[self.state.step])

    # --- words -------------------------------------------------------------------------------------------------

    def _say(self) -> None:
        state, mode = self.state, self.widgets["mode"].value
        self._heads[0].object = app_words.map_head(
            f"Embedding {state.period}".strip(), app_words.rgb_html(state)
        )
        lines = [f"<b>{html.escape(state.note)}</b>"] if state.note else []
        if mode == _LOOK:
            lines.append("Click a pixel to see what is similar to it. Name a class to label pixels.")
        else:
            lines.append(f"Click pixels that are <b>{html.escape(mode)}</b>.")
        counts = ", ".join(f"{html.escape(name)} {n}" for name, n in state.counts().items())
        lines += [f"Labels: {counts}."] if counts else []
        if counts and state.probe is None:
            lines.append("Once two classes have labels, the right map shows classes.")
        self._status.object = app_words.text("<br>".join(lines), size=12, colour=FAINT)
