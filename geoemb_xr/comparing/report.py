"""A comparison as a page: one file that opens without a network."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

import pandas as pd

from geoemb_xr._version import __version__
from geoemb_xr.comparing.pictures import available, draw
from geoemb_xr.core.errors import require

if TYPE_CHECKING:
    from geoemb_xr.comparing.findings import Evaluation

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:.6em 0 1.6em;display:block;overflow-x:auto}"
    "th,td{padding:3px 12px 3px 0;text-align:left;border-bottom:1px solid #e4e4e4;font-size:13px}"
    "img{max-width:100%;display:block;margin:1em 0}.missing{color:#777}"
)
_TITLES = {
    "scores": "Scores",
    "learning": "Few labels",
    "distance": "Distance from training labels",
    "calibration": "Probabilities and conformal sets",
    "groups": "By group",
}


def page(found: Evaluation) -> str:
    """The page as text."""
    title = f"{found.target}: {found.main_score.replace('_', ' ')} on {found.n} labels"
    parts = [f"<h1>{escape(title)}</h1>"]
    parts.append("<ul>" + "".join(f"<li>{escape(note)}</li>" for note in found.notes()) + "</ul>")
    shown = available(found)
    for name in shown:
        parts += [f"<h2>{_TITLES[name]}</h2>", _picture(found, name)]
        parts += [_table(table) for table in _beside(found, name)]
    for heading, table in (
        ("All scores in the hardest split", _all_scores(found)),
        ("Differences between products", found.differences),
        ("Native and common support, equal dimensions", found.supports()),
        ("Pure and mixed cells", found.strata),
        (
            "Classes",
            found.classes[found.classes["split"] == found.main_split]
            if len(found.classes)
            else found.classes,
        ),
        ("Labels and area of applicability", found.labels),
        ("Splits", found.splits),
        ("Products", found.facts),
    ):
        if len(table):
            parts += [f"<h2>{heading}</h2>", _table(table)]
    parts.append(f'<p class="missing">geoemb_xr {escape(__version__)}</p>')
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f"<title>{escape(found.target)}</title>"
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>"
    )


def _beside(found: Evaluation, name: str) -> list[pd.DataFrame]:
    """Tables under a picture."""
    if name == "scores":
        return [found.table()]
    if name == "learning":
        shown = found.scores[(found.scores.score == found.main_score) & found.scores.n_labels.notna()]
        columns = ["split", "n_labels"]
        return [shown.pivot_table(index=["product", "method"], columns=columns, values="value", sort=False)]
    return [found.groups, found.worst_groups()] if name == "groups" else []


def _all_scores(found: Evaluation) -> pd.DataFrame:
    scores = found.fullest()
    shown = scores[(scores["split"] == found.main_split) & (scores.support == "native")]
    table = shown.pivot_table(index=["product", "method"], columns="score", values="value", sort=False)
    return table.rename_axis(columns=None)


def _table(table: pd.DataFrame) -> str:
    return str(table.round(3).to_html(na_rep="–", border=0))


def _picture(found: Evaluation, name: str) -> str:
    """A picture inside the page; nothing where matplotlib is not installed."""
    try:
        figure_class = require("matplotlib.figure", "viz").Figure
    except ImportError:
        return ""
    height = 0.8 + 0.34 * len(found.table()) if name == "scores" else 4.0
    figure = figure_class(figsize=(8.6, height))
    draw(found, name, figure.subplots())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
