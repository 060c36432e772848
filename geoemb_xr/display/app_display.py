"""One display of the app: Bokeh figures and Panel widgets around an explorer's state."""

from __future__ import annotations

import html
import importlib
import io
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoemb_xr.core import geometry, times
from geoemb_xr.core.errors import EmbeddingError, require
from geoemb_xr.core.legend import is_class_map, legend_of
from geoemb_xr.display import app_drawing, app_figures, app_layout, app_tools, app_widgets, app_words
from geoemb_xr.display.app_drawing import FAINT
from geoemb_xr.display.app_widgets import LOOK
from geoemb_xr.display.compared import is_picture

if TYPE_CHECKING:
    from geoemb_xr.display.explorer import Answer, Explorer
    from geoemb_xr.display.windows import Pixel, Window

#: So many pixels tell how far a map's colours are stretched.
_STRETCH_PIXELS = 100_000
#: Pixels of the array to either side of a place of a design.
_AROUND = 40


def ground_stretch(array: xr.DataArray) -> float:
    """Ground length of a unit of y over that of x, since degrees of longitude shrink with latitude."""
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
        State that is shown.
    size : (int, int)
        Greatest width and height of a map on the screen.
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
        self._warming: threading.Thread | None = None
        empty = {
            "picture": app_tools.IMAGE, "answer": app_tools.IMAGE, "view": ("x0", "x1", "y0", "y1"),
            "ring": ("x", "y"), "place": ("x", "y"), "labels": ("x", "y", "colour"),
            "vector": ("band", "value"), "course": ("year", "angle"),
        }  # fmt: skip
        self.sources = {
            name: models.ColumnDataSource({column: [] for column in columns})
            for name, columns in empty.items()
        }
        self.figures = self._make_figures(tiles)
        self.widgets = app_widgets.make(pn, state)
        self._busy = pn.indicators.LoadingSpinner(value=False, size=18, margin=(6, 10), visible=False)
        self._watch()
        self._heads = [
            pn.pane.HTML("", sizing_mode="stretch_width", margin=(0, right, 0, left))
            for left, right in (app_layout.PICTURE_BORDERS, app_layout.ANSWER_BORDERS)
        ]
        self._status = pn.pane.HTML("", sizing_mode="stretch_width", margin=(6, 10))
        self.layout = self._lay_out(pn)
        if state.walk is not None:
            self._show_place()
        self.refresh()

    # --- layout ------------------------------------------------------------------------------------------------

    def _make_figures(self, tiles: bool) -> dict[str, Any]:
        state, sources, size = self.state, self.sources, self._size
        models = require("bokeh.models", "viz")
        ranges = tuple(models.Range1d(*ends) for ends in self._start())
        made = {
            name: app_figures.make_map(state, sources, name, ranges, size, tiles=tiles)
            for name in ("picture", "answer")
        }
        maps = list(made.values())
        self.swipe = app_tools.Swipe(made["picture"], sources["answer"])
        for figure in maps:
            app_figures.mark(figure, sources)
            # two clicks in short order, wherever, are a tap and a double tap
            figure.on_event("tap", lambda at: self.tap(at.x, at.y))
            figure.on_event("doubletap", lambda at: self.tap(at.x, at.y, twice=True))
        self.shapes = app_tools.Shapes(maps, self.label_area)
        self.keys = app_tools.listen(maps, self.press)
        app_figures.follow(made["picture"], sources["view"], self.move)
        bands = [str(name) for name in state.product.decoded_bands]
        made["vector"] = app_figures.make_vector(sources["vector"], bands)
        if len(state.periods) > 1:
            assert state.times is not None
            years = [app_drawing.decimal_year(t) for t in state.times]
            made["course"], self._now = app_figures.make_course(sources["course"], years)
        return made

    def _start(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Ranges of x and y around what is shown first, in the shape of the frame."""
        left, bottom, right, top = self.state.shown
        stretch = ground_stretch(self.state.array)
        unit = max((right - left) / self._size[0], (top - bottom) * stretch / self._size[1])
        x, y = (left + right) / 2, (bottom + top) / 2
        dx, dy = unit * self._size[0] / 2, unit * self._size[1] / 2 / stretch
        return (x - dx, x + dx), (y - dy, y + dy)

    def _lay_out(self, pn: Any) -> Any:
        f = self.figures
        left, self._pane = app_layout.half(pn, self._heads[0], self.swipe.slider, f["picture"], f["vector"])
        courses = [f["course"]] if "course" in f else []
        right, _ = app_layout.half(pn, self._heads[1], self.swipe.gap, f["answer"], *courses)
        return app_layout.whole(
            pn,
            app_words.head_html(self.state),
            app_layout.controls(pn, self.widgets, [self._busy, self._status]),
            [left, right],
            app_words.credit_html(self.state),
            app_layout.width_of(self._size),
        )

    def _watch(self) -> None:
        """Tell the widgets what to do."""
        w = self.widgets
        for name, act in {
            "add": self._add_class, "rename": self._rename, "delete": self._delete, "undo": self._undo,
            "back": lambda: self._walk(-1), "skip": lambda: self._walk(1), "name_place": self._name_place,
        }.items():  # fmt: skip
            w[name].on_click(lambda _, act=act: act())
        for name, change in {
            "colour": self._recolour, "load": lambda _: self._load(), "answer": lambda _: self._choose_answer(),
            "other": self._go_to_other, "swipe": self.swipe.show, "mode": lambda _: self._choose(),
            "shape": self._choose_shape,
            "name": lambda _: self._add_class() if self._adding else None,
        }.items():  # fmt: skip
            w[name].param.watch(lambda event, change=change: change(event.new), "value")
        w["name"].param.watch(lambda _: self._add_class(), "enter_pressed")
        w["save"].callback, w["save_design"].callback = self._labels_file, self._design_file
        # what must be read first is read when the slider is let go
        on = "value" if self.state.array.chunks is None else "value_throttled"
        w["period"].param.watch(lambda event: self._go_to(event.new), on)

    # --- events ------------------------------------------------------------------------------------------------

    def move(self, view: Mapping[str, Sequence[float]]) -> None:
        """Show another part of the array at the screen's resolution."""
        before = self.state.window
        self.state.look((view["x0"][0], view["x1"][0]), (view["y0"][0], view["y1"][0]), *self._size)
        if self.state.window != before:
            self.refresh()

    def tap(self, x: float, y: float, *, twice: bool = False) -> None:
        """Handle a click: look at the pixel, label it, or add it as a corner of a polygon."""
        name = self.widgets["mode"].value
        if name != LOOK and self.shapes.kind == app_tools.POLYGON:
            left, _, right, _ = self.state.shown
            self.shapes.corner(x, y, twice=twice, near=2 * (right - left) / self._size[0])
            self._push()
            return
        if name == LOOK:
            self.state.click(x, y)
        elif self.shapes.kind == app_tools.PIXEL:
            self.state.label(x, y, name)
        self._labelled(name)

    def label_area(self, shape: Any) -> None:
        """Label the pixels of a box or polygon that was drawn."""
        name = self.widgets["mode"].value
        if name == LOOK:
            self.state.note = "Choose a class first, then draw."
            self._say()
            return
        self.state.label_area(shape, name)
        self._labelled(name)

    def _labelled(self, name: str) -> None:
        if self._warming is not None:
            self._warming.join()
        self._limits.pop("similarity", None)
        answer = self.widgets["answer"]
        if name != LOOK and self.state.probe is not None and answer.value == "similarity":
            answer.value = "classes"  # which redraws
        else:
            self.refresh()

    def press(self, key: str) -> None:
        """Handle a key: the year before or after, look, finish a polygon or label, choose a class."""
        mode, walk = self.widgets["mode"], self.state.walk
        if key in ("ArrowLeft", "ArrowRight") and len(self.state.periods) > 1:
            step = self.state.step + (1 if key == "ArrowRight" else -1)
            if 0 <= step < len(self.state.periods):
                self.widgets["period"].value = step
                self._go_to(step)
        elif key == "Escape":
            if self.shapes.corners:
                self.shapes.clear()
            else:
                mode.value = LOOK
        elif key == "Enter":
            if self.shapes.corners:
                self.shapes.close()
            elif walk is not None:
                self._name_place()
            elif mode.value != LOOK and self.state.pixel is not None:
                self.tap(self.state.pixel.x, self.state.pixel.y)
        elif key.isdigit() and int(key) <= len(self.state.classes):
            mode.value = list(self.state.classes)[int(key) - 1]
            if walk is not None:
                self._name_place()
        self._push()

    # --- a sample design -----------------------------------------------------------------------------------------

    def _show_place(self) -> None:
        """Move to the place of the design that is next."""
        assert self.state.walk is not None
        x, y = self.state.walk.place
        self.sources["place"].data = {"x": [x], "y": [y]}
        affine, picture = self.state.grid.affine, self.figures["picture"]
        dx, dy = _AROUND * abs(affine.a), _AROUND * abs(affine.e) * self._size[1] / self._size[0]
        picture.x_range.update(start=x - dx, end=x + dx)
        picture.y_range.update(start=y - dy, end=y + dy)
        self.state.look((x - dx, x + dx), (y - dy, y + dy), *self._size)
        self.state.click(x, y)
        self.widgets["walk"].object = app_words.text(html.escape(self.state.walk.say()), size=12)

    def _walk(self, by: int) -> None:
        if self.state.walk is not None:
            self.state.walk.step(by)
            self._show_place()
            self.refresh()

    def _name_place(self) -> None:
        name, walk = self.widgets["mode"].value, self.state.walk
        if walk is None or name == LOOK:
            self.state.note = "Choose a class first; then the button, Enter or its number names the place."
            self._say()
            return
        walk.label(name)
        self._show_place()
        self.refresh()

    def _design_file(self) -> io.StringIO:
        """The design as CSV, for the browser to save."""
        assert self.state.walk is not None
        return io.StringIO(self.state.walk.table.to_csv(index=False))

    # --- widgets -------------------------------------------------------------------------------------------------

    def _choose_shape(self, kind: str) -> None:
        self.shapes.use(kind)
        self._say()

    def _choose_answer(self) -> None:
        self.widgets["other"].visible = self.widgets["answer"].value == "year"
        self.refresh()

    def _go_to_other(self, step: int) -> None:
        self.state.other = step
        self.refresh()

    def _go_to(self, step: int) -> None:
        self.state.go_to(step)
        self.refresh()

    def _add_class(self) -> None:
        field = self.widgets["name"]
        name = (field.value_input or field.value).strip()
        self._adding = not name  # a notebook may tell of the click before it tells of the text
        if not name or name == LOOK:
            return
        if name not in self.state.classes:
            self.state.add_class(name)
        if self._warming is None:
            self._warming = threading.Thread(target=_warm_up, daemon=True)
            self._warming.start()
        field.param.update(value="", value_input="")
        self._list_classes(name)

    def _list_classes(self, chosen: str) -> None:
        self.widgets["mode"].param.update(
            options=[LOOK, *self.state.classes],
            value=chosen,
            stylesheets=[app_words.swatches(list(self.state.classes.values()))],
        )
        self._say()

    def _choose(self) -> None:
        """Show that a class, or looking, was chosen."""
        name = self.widgets["mode"].value
        self.widgets["edit"].visible = name in self.state.classes
        if name in self.state.classes:
            self.widgets["colour"].value = self.state.classes[name]
        self._say()

    def _rename(self) -> None:
        field, name = self.widgets["name"], self.widgets["mode"].value
        new = (field.value_input or field.value).strip()
        if name in self.state.classes and new and new not in (*self.state.classes, LOOK):
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
            self._list_classes(LOOK)
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
        """Show the busy sign inside the block."""
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
        self._push()

    def _push(self) -> None:
        """Send what changed to a notebook; a server sends it by itself."""
        require("panel", "viz").io.push_notebook(self._pane)

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
        if is_picture(found):
            self._heads[1].object = app_words.map_head(app_words.describe(kind, self.state)[0])
            self._put_image("answer", app_drawing.packed(found.transpose("y", "x", "rgb").values))
            return
        values = found.transpose("y", "x").values
        if is_class_map(found):
            legend = legend_of(found)
            title = "Classes" if kind == "classes" else app_words.describe(kind, self.state)[0]
            self._heads[1].object = app_words.map_head(title, app_words.legend_html(legend))
            self._put_image("answer", app_drawing.packed(legend.rgba())[values])
            return
        limits = self._stretch_of(values, kind)
        title, palette = app_words.describe(kind, self.state)
        self._heads[1].object = app_words.map_head(title, app_words.bar_html(palette, limits, found))
        self._put_image("answer", app_drawing.coloured(values, palette, limits))

    def _stretch_of(self, values: np.ndarray, kind: Answer) -> tuple[float, float]:
        """Return the limits that the colours of an answer are stretched over."""
        if kind not in self._limits:
            step = max(int(np.sqrt(values.size / _STRETCH_PIXELS)), 1)
            some = values[::step, ::step]
            some = some[np.isfinite(some)]
            if not some.size:
                return 0.0, 1.0
            # changes are rare: a 98th percentile would be noise
            low, high = np.percentile(some, (2, 98))
            if kind == "change":
                low, high = 0.0, np.percentile(some, 99.8)
            elif kind == "similarity":
                high = 1.0
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
        chart.title.text = f"Its course: degrees from {first}"
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
        if mode == LOOK:
            lines.append("Click a pixel to see what is similar to it. Name a class to label pixels.")
        else:
            how = {
                app_tools.BOX: "Drag a box over",
                app_tools.POLYGON: "Click the corners of a polygon around",
            }
            lines.append(f"{how.get(self.shapes.kind, 'Click')} pixels that are <b>{html.escape(mode)}</b>.")
            if self.shapes.kind == app_tools.POLYGON:
                lines.append("A double click or Enter closes it, Escape starts again.")
        counts = ", ".join(f"{html.escape(name)} {n}" for name, n in state.counts().items())
        lines += [f"Labels: {counts}."] if counts else []
        if counts and state.probe is None:
            lines.append("Once two classes have labels, the right map shows classes.")
        self._status.object = app_words.text("<br>".join(lines), size=12, colour=FAINT)


def _warm_up() -> None:
    """Import what the first label needs in the background, since it takes seconds.

    Not earlier: two threads that import packages with circles at once may lock each other out, and until the first
    class is named, cells of a notebook import.
    """
    for name in ("sklearn.linear_model", "geoemb_xr.probes.fitting", "geoemb_xr.predicting.maps"):
        importlib.import_module(name)
