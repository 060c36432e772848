"""The column of widgets at the side of the app: what there is to choose, not what it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geoemb_xr.display import app_words
from geoemb_xr.display.app_tools import BOX, PIXEL, POLYGON

#: Width of the column, in pixels of the screen.
SIDE = 230
LOOK = "look at it"


def make(pn: Any, state: Any) -> dict[str, Any]:
    """Widgets around an explorer's state, by name; those that do not apply are there and invisible."""
    wide, several = SIDE - 20, len(state.periods) > 1
    steps = {name: i for i, name in enumerate(state.periods)} or {"": 0}
    walk = state.walk
    made = {
        "period": pn.widgets.DiscreteSlider(
            label="year", options=steps, value=state.step, width=wide - 10, visible=several
        ),
        "answer": pn.widgets.RadioBoxGroup(options=_answers(state), value="similarity", margin=(2, 10)),
        "other": pn.widgets.Select(options=steps, value=state.other, width=wide, visible=False),
        "swipe": pn.widgets.Toggle(label="swipe it over the left map", width=wide),
        "mode": pn.widgets.RadioButtonGroup(
            options=[LOOK, *state.classes],
            value=LOOK,
            orientation="vertical",
            width=wide,
            stylesheets=[app_words.swatches(list(state.classes.values()))],
        ),
        "shape": pn.widgets.RadioButtonGroup(options=[PIXEL, BOX, POLYGON], value=PIXEL, width=wide),
        "name": pn.widgets.TextInput(placeholder="name of a class", width=wide - 75),
        "add": pn.widgets.Button(label="add", width=55),
        "undo": pn.widgets.Button(label="undo last label", width=wide),
        "rename": pn.widgets.Button(label="rename", width=65),
        "delete": pn.widgets.Button(label="delete", width=60),
        "colour": pn.widgets.ColorPicker(width=36, margin=(5, 0)),
        "save": pn.widgets.FileDownload(filename="labels.geojson", label="save labels", width=wide),
        "load": pn.widgets.FileInput(accept=".geojson,.json,.gpkg,.csv,.parquet", width=wide),
        "walk": pn.pane.HTML("", width=wide, margin=(2, 10)),
        "back": pn.widgets.Button(label="back", width=50),
        "name_place": pn.widgets.Button(label="it is the class", color="primary", width=90),
        "skip": pn.widgets.Button(label="skip", width=50),
        "save_design": pn.widgets.FileDownload(
            filename="sample.csv", label="save sample", width=wide, visible=walk is not None
        ),
    }
    made["edit"] = pn.Row(*(made[name] for name in ("rename", "delete", "colour")), margin=0, visible=False)
    return made


def _answers(state: Any) -> dict[str, str]:
    """What the right map may show, in words."""
    answers = {"similar to the pixel": "similarity", "classes of your labels": "classes"}
    if len(state.periods) > 1:
        answers[f"change since {state.periods[0]}"] = "change"
        answers["another year"] = "year"
    if state.compared is not None:
        answers[state.compared.name] = "compared"
    return answers


def column(pn: Any, widgets: Mapping[str, Any], below: Sequence[Any]) -> Any:
    """Lay the widgets out."""
    w, wide = widgets, SIDE - 20
    walk = pn.Column(
        app_words.heading(pn, "A sample to be labelled", wide),
        w["walk"],
        pn.Row(w["back"], w["name_place"], w["skip"], margin=0),
        margin=0,
        visible=w["save_design"].visible,
    )
    return pn.Column(
        w["period"],
        app_words.heading(pn, "The right map shows", wide),
        w["answer"],
        w["other"],
        w["swipe"],
        app_words.heading(pn, "A click on a map means", wide),
        w["mode"],
        pn.Row(w["name"], w["add"], margin=0),
        w["edit"],
        w["shape"],
        walk,
        w["undo"],
        w["save"],
        w["save_design"],
        w["load"],
        *below,
        width=SIDE,
        margin=0,
    )
