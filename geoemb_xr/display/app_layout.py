"""The layout of the app: maps beside the controls, above them in a narrow window, stacked on a phone.

The width of the app's own box decides, not that of the window: a cell of a notebook is narrower than its page. Each
style reaches one element, since every part of Bokeh's has a shadow tree of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geoemb_xr.core.errors import require
from geoemb_xr.display import app_words

#: What stands at the left and at the right of a map within its half, in pixels of the screen: axes or tools, and a
#: gap. Both halves take as much in all, so that both maps are as wide.
PICTURE_BORDERS, ANSWER_BORDERS = (50, 5), (25, 30)
#: What the two maps leave of the width beside the controls.
MARGINS = sum(PICTURE_BORDERS) + sum(ANSWER_BORDERS)
#: Width of the controls where they stand beside the maps.
SIDE = 230

_NARROW, _PHONE = "@container (max-width: 899px)", "@container (max-width: 559px)"
_ROOT = ":host { container-type: inline-size; }"
_BODY = f"{_NARROW} {{ :host {{ flex-direction: column-reverse; }} }}"
_ALONE = "flex: none !important; width: 100% !important;"
_CONTROLS = f"{_NARROW} {{ :host {{ {_ALONE} max-width: 460px; }} }}"
_MAPS = f"""
:host {{ min-width: 0; }}
{_NARROW} {{ :host {{ {_ALONE} }} }}
{_PHONE} {{ :host {{ flex-direction: column; }} }}
"""
_HALF = f":host {{ flex: 1 1 0 !important; min-width: 0; }} {_PHONE} {{ :host {{ {_ALONE} }} }}"
# the height of a map follows its width, so that pixels keep their shape
_SHAPE = "const height = Math.round(cb_obj.inner_width * ratio); if (height > 0) cb_obj.frame_height = height"


def width_of(size: tuple[int, int]) -> int:
    """Width of the app whose maps are of a size."""
    return SIDE + MARGINS + 2 * size[0]


def keep_shape(figure: Any, size: tuple[int, int]) -> None:
    """Let a map grow to the available width, keeping its aspect ratio."""
    follow = require("bokeh.models", "viz").CustomJS(args={"ratio": size[1] / size[0]}, code=_SHAPE)
    figure.js_on_change("inner_width", follow)


def controls(pn: Any, widgets: Mapping[str, Any], below: Sequence[Any]) -> Any:
    """The column of controls."""
    w = widgets
    walk = pn.Column(
        app_words.heading(pn, "A sample to be labelled"),
        w["walk"],
        pn.Row(w["back"], w["name_place"], w["skip"], margin=0),
        margin=0,
        visible=w["save_design"].visible,
    )
    return pn.Column(
        w["period"],
        app_words.heading(pn, "The right map shows"),
        w["answer"],
        w["other"],
        w["swipe"],
        app_words.heading(pn, "A click on a map means"),
        w["mode"],
        pn.Row(w["name"], w["add"], margin=0, sizing_mode="stretch_width"),
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
        stylesheets=[_CONTROLS],
    )


def half(pn: Any, head: Any, *figures: Any) -> tuple[Any, Any]:
    """A map under its title and over its chart; and the pane of its figures."""
    stretch = {"sizing_mode": "stretch_width", "margin": 0}
    drawn = require("bokeh.layouts", "viz").column(*figures, sizing_mode="stretch_width", spacing=0)
    pane = pn.pane.Bokeh(drawn, **stretch)
    return pn.Column(head, pane, stylesheets=[_HALF], **stretch), pane


def whole(pn: Any, head: str, side: Any, halves: Sequence[Any], foot: str, width: int) -> Any:
    """The app: maps and controls between a title and a line of credit."""
    stretch = {"sizing_mode": "stretch_width"}
    maps = pn.Row(*halves, margin=0, stylesheets=[_MAPS], **stretch)
    return pn.Column(
        pn.pane.HTML(head, margin=(0, 10, 6, 10), **stretch),
        pn.Row(side, maps, margin=0, stylesheets=[_BODY], **stretch),
        pn.pane.HTML(foot, margin=(0, 10), **stretch),
        max_width=width,
        stylesheets=[_ROOT],
        **stretch,
    )
