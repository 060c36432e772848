"""Texts of the app as HTML: titles, legends, colour bars, credits."""

from __future__ import annotations

import base64
import html
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoemb_xr.core import geometry, times
from geoemb_xr.core.errors import require
from geoemb_xr.core.legend import Legend
from geoemb_xr.display.app_drawing import FAINT

if TYPE_CHECKING:
    from geoemb_xr.display.explorer import Answer, Explorer

_THEMED = "var(--jp-ui-font-color1, #333333)"  # light letters in a dark JupyterLab
_FONT = "font-family: Helvetica, Arial, sans-serif;"


def describe(kind: Answer, state: Explorer) -> tuple[str, Sequence[str]]:
    """Title and palette of an answer; both palettes read the same in grey and to colour-blind eyes."""
    palettes = require("bokeh.palettes", "viz")
    if kind == "change":
        return f"Change from {state.periods[0]} to {state.period}", palettes.Magma256
    if kind == "year":
        return f"Embedding {state.periods[state.other]}", ()
    if kind == "compared":
        assert state.compared is not None
        time = None if state.times is None else state.times[state.step]
        return f"{state.compared.name} {state.compared.year(time)}".strip(), palettes.Viridis256
    pixel = state.pixel
    if pixel is None or pixel.time is None:
        return "Similar to the pixel", palettes.Viridis256
    year = times.describe_times(np.array([pixel.time]))
    own = "" if year == state.period else f" of {year}"
    return f"{state.period}: similar to the pixel{own}", palettes.Viridis256


def missing(kind: Answer, state: Explorer) -> str:
    """Tell the user what is needed for an answer that cannot be shown yet."""
    if kind == "similarity":
        return "Click a pixel to see what is similar to it"
    if kind == "change":
        return f"Choose another year than {state.period}"
    return "Label pixels of two classes to see a map of them"


def text(content: str, *, size: int, colour: str = _THEMED, more: str = "") -> str:
    """HTML of a text in the font of the app."""
    return f'<div style="{_FONT}font-size:{size}px;color:{colour};line-height:1.35;{more}">{content}</div>'


def heading(pn: Any, content: str) -> Any:
    """Return a small heading of the side column."""
    return pn.pane.HTML(text(content, size=12, colour=FAINT), margin=(10, 10, 0, 10))


def title(state: Explorer) -> str:
    """Return the name of the product that is shown."""
    return state.product.title or state.product.name


def head_html(state: Explorer) -> str:
    """HTML of the title: the product, the grid, and a badge where the data are synthetic."""
    rows, cols = state.grid.shape
    facts = [f"{cols:,} × {rows:,} pixels", geometry.crs_name(geometry.as_crs(state.grid.crs))]
    version = str(state.array.attrs.get("version", ""))
    facts += [f"version {version}"] if version and version != "synthetic" else []
    style = "background:#e69f00;color:black;border-radius:3px;padding:1px 6px;font-size:11px"
    badge = f' <span style="{style}">synthetic</span>' if version == "synthetic" else ""
    name = text(html.escape(title(state)) + badge, size=18)
    return name + text(html.escape(" · ".join(facts)), size=12, colour=FAINT)


def credit_html(state: Explorer) -> str:
    """HTML of the line of attribution."""
    from geoemb_xr.display.furniture import credit

    return text(html.escape(credit(state.array)), size=11, colour=FAINT)


def map_head(title: str, detail: str = "") -> str:
    """HTML above a map: its title over a line of detail."""
    below = text(detail or "&nbsp;", size=11, colour=FAINT, more="height:30px")
    return text(html.escape(title), size=13) + below


def rgb_html(state: Explorer) -> str:
    """HTML that explains the colours of the picture."""
    shares = [f"{share:.0%}" for share in state.model.explained_variance_ratio[:3]]
    return f"red, green, blue: three principal components, {', '.join(shares)} of variance"


def bar_html(palette: Sequence[str], limits: tuple[float, float], found: xr.DataArray) -> str:
    """HTML of a colour bar with its limits and unit."""
    colours = ",".join(palette[:: len(palette) // 16])
    unit = {"degree": "°"}.get(str(found.attrs.get("units", "")), "")
    what = html.escape(str(found.attrs.get("metric", "")))
    low, high = (f"{value:.3g}{unit}" for value in limits)
    bar = f'<span style="flex:1;max-width:220px;height:10px;background:linear-gradient(to right,{colours})"></span>'
    return f'<div style="display:flex;gap:6px;align-items:center">{what} {low} {bar} {high}</div>'


def legend_html(legend: Legend) -> str:
    """HTML of a legend: names beside their colours."""
    swatch = (
        '<span style="display:inline-block;width:10px;height:10px;margin-right:4px;background:{}"></span>'
    )
    return " ".join(
        f'<span style="white-space:nowrap;margin-right:8px">{swatch.format(colour)}{html.escape(name)}</span>'
        for name, colour in zip(legend.names, legend.colours, strict=True)
    )


def swatches(colours: list[str]) -> str:
    """A bar of its colour at the left of each class's button; the first button is for looking."""
    return "".join(
        f".bk-btn-group .bk-btn:nth-child({i}) {{border-left: 14px solid {colour};}}"
        for i, colour in enumerate(colours, start=2)
    )


def over_picture(data: Mapping[str, Any], png: bytes) -> dict[str, Any]:
    """The live app as a notebook takes it, with a picture for as long as no script has drawn it.

    Parameters
    ----------
    data : mapping of str to str
        By MIME type: HTML with its script, or JupyterLab's way, which runs the script apart.
    png : bytes
        The picture.
    """
    name = f"geoemb-{uuid.uuid4().hex}"
    image = base64.b64encode(png).decode()
    hint = text("This is a picture of the app. Run the cell to use it.", size=12, colour=FAINT)
    source = f"data:image/png;base64,{image}"
    picture = f'<div class="picture"><img alt="picture of the app" src="{source}"/>{hint}</div>'
    watch = (
        "(() => {let tries = 0; const timer = setInterval(() => {"
        f"const box = document.getElementById('{name}'); if (++tries > 1200) clearInterval(timer);"
        "const root = box && box.querySelector('[data-root-id]');"
        "if (root && root.childElementCount) "
        "{box.querySelector('.picture').style.display = 'none'; clearInterval(timer)}"
        "}, 100)})()"
    )
    script = "application/javascript"
    made = {**data, "text/html": f'<div id="{name}">{picture}{data["text/html"]}</div>'}
    if script in data:
        made[script] = f"{data[script]};{watch}"
    else:
        made["text/html"] += f"<script>{watch}</script>"
    return made
