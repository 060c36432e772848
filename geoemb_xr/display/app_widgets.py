"""The column of widgets at the side of the app; what they do is decided elsewhere."""

from __future__ import annotations

from typing import Any

from geoemb_xr.display import app_words
from geoemb_xr.display.app_tools import BOX, PIXEL, POLYGON

LOOK = "look at it"


def make(pn: Any, state: Any) -> dict[str, Any]:
    """Widgets around an explorer's state, by name; those that do not apply are there and invisible."""
    several = len(state.periods) > 1
    steps = {name: i for i, name in enumerate(state.periods)} or {"": 0}
    walk, wide = state.walk, {"sizing_mode": "stretch_width"}
    made = {
        "period": pn.widgets.DiscreteSlider(
            label="year", options=steps, value=state.step, **wide, visible=several
        ),
        "answer": pn.widgets.RadioBoxGroup(options=_answers(state), value="similarity", margin=(2, 10)),
        "other": pn.widgets.Select(options=steps, value=state.other, **wide, visible=False),
        "swipe": pn.widgets.Toggle(label="swipe it over the left map", **wide),
        "mode": pn.widgets.RadioButtonGroup(
            options=[LOOK, *state.classes],
            value=LOOK,
            orientation="vertical",
            **wide,
            stylesheets=[app_words.swatches(list(state.classes.values()))],
        ),
        "shape": pn.widgets.RadioButtonGroup(options=[PIXEL, BOX, POLYGON], value=PIXEL, **wide),
        "name": pn.widgets.TextInput(placeholder="name of a class", **wide),
        "add": pn.widgets.Button(label="add", width=55),
        "undo": pn.widgets.Button(label="undo last label", **wide),
        "rename": pn.widgets.Button(label="rename", width=65),
        "delete": pn.widgets.Button(label="delete", width=60),
        "colour": pn.widgets.ColorPicker(width=36, margin=(5, 0)),
        "save": pn.widgets.FileDownload(filename="labels.geojson", label="save labels", **wide),
        "load": pn.widgets.FileInput(accept=".geojson,.json,.gpkg,.csv,.parquet", **wide),
        "walk": pn.pane.HTML("", **wide, margin=(2, 10)),
        "back": pn.widgets.Button(label="back", width=50),
        "name_place": pn.widgets.Button(label="it is the class", color="primary", width=90),
        "skip": pn.widgets.Button(label="skip", width=50),
        "save_design": pn.widgets.FileDownload(
            filename="sample.csv", label="save sample", **wide, visible=walk is not None
        ),
    }
    made["edit"] = pn.Row(*(made[name] for name in ("rename", "delete", "colour")), margin=0, visible=False)
    return made


def _answers(state: Any) -> dict[str, str]:
    """Return the choices of the right map, in words."""
    answers = {"similar to the pixel": "similarity", "classes of your labels": "classes"}
    if len(state.periods) > 1:
        answers[f"change since {state.periods[0]}"] = "change"
        answers["another year"] = "year"
    if state.compared is not None:
        answers[state.compared.name] = "compared"
    return answers
