"""A comparison as a page: one file that opens without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

import pandas as pd

from geoemb_xr._version import __version__
from geoemb_xr.comparing.pictures import available, draw_picture
from geoemb_xr.core.errors import require

if TYPE_CHECKING:
    from geoemb_xr.comparing.findings import Evaluation

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:.6em 0 1.6em;display:block;overflow-x:auto}"
    "th,td{padding:3px 12px 3px 0;text-align:left;border-bottom:1px solid #e4e4e4;font-size:13px}"
    "img{max-width:100%;display:block;margin:1em 0}.missing{color:#777}details{margin:1em 0}summary{cursor:pointer}"
)
#: Heading of each picture, and how it is read.
_PICTURES = {
    "scores": (
        "Scores",
        "A dot per split. Products are black; controls, which a product must beat, are grey.",
    ),
    "learning": ("Few labels", "Mean over draws of labels, and one standard deviation around it."),
    "distance": ("Distance from training labels", "How far from the nearest training label a score holds."),
    "calibration": (
        "Probabilities and conformal sets",
        "On the grey line, predictions of 80 % confidence are right in 80 % of the cases.",
    ),
    "groups": ("By group", "Intervals are from blocks."),
}


def page(found: Evaluation) -> str:
    """The page as text."""
    title = f"{found.target}: {found.main_score.replace('_', ' ')} on {found.n} labels"
    parts = [f"<h1>{escape(title)}</h1>"]
    parts.append("<ul>" + "".join(f"<li>{escape(note)}</li>" for note in found.notes()) + "</ul>")
    for name in available(found):
        parts += [_heading(*_PICTURES[name]), _picture(found, name), *_tables_under_pictures(found, name)]
    for heading, about, table in _tables(found):
        if len(table):
            parts += [_heading(heading, about), _table(table)]
    parts.append(f'<p class="missing">geoemb_xr {escape(__version__)}</p>')
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f"<title>{escape(found.target)}</title>"
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>"
    )


def _tables(found: Evaluation) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Tables without a picture: heading, how it is read, and the table."""
    split = found.main_split
    yield f"All scores, {split}", "", _all_scores(found)
    yield (
        "Differences between products",
        f"a less b, with an interval of {found.level:.0%} from blocks, and p after Holm's correction; neither "
        "below six blocks.",
        _with_p(found.differences),
    )
    yield (
        "Native and common support, equal dimensions",
        "Common: finer products are averaged over the coarsest one's footprint. Equal dims: as many principal "
        "components as the shortest product has bands.",
        found.supports(),
    )
    yield "Pure and mixed cells", "Whether labels in one cell are of one class.", found.strata
    yield f"Classes, {split}", "", _in_split(found.classes, split)
    yield (
        "Labels and area of applicability",
        "Labels per class, and the share of a group inside the area of applicability of all other groups.",
        found.labels,
    )
    yield "Splits", "", found.splits
    yield "Products", "", found.facts


def _heading(heading: str, about: str) -> str:
    return f"<h2>{escape(heading)}</h2>" + (f'<p class="missing">{escape(about)}</p>' if about else "")


def _tables_under_pictures(found: Evaluation, name: str) -> list[str]:
    """Tables under a picture."""
    if name == "scores":
        return [_table(found.table())]
    if name == "learning":
        shown = found.scores[(found.scores.score == found.main_score) & found.scores.n_labels.notna()]
        columns = ["split", "n_labels"]
        shown = shown.astype({"n_labels": int})
        return [
            _table(
                shown.pivot_table(index=["product", "method"], columns=columns, values="value", sort=False)
            )
        ]
    if name != "groups":
        return []
    worst = found.worst_groups()
    worst = _in_split(worst[worst["product"].isin(found.facts.index)], found.main_split)
    every = f"<details><summary>All groups, splits and controls</summary>{_table(found.groups)}</details>"
    about = '<p class="missing">The worst group of each product, over classes that all groups have:</p>'
    return [*([about, _table(worst)] if len(worst) else []), every]


def _in_split(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Rows of one split; an empty table stays empty."""
    return table[table["split"] == split].drop(columns=["split", "support"]) if len(table) else table


def _with_p(table: pd.DataFrame) -> pd.DataFrame:
    """Format p-values so that small ones do not round to zero."""
    if not len(table):
        return table
    return table.assign(p=["–" if p != p else "< 0.001" if p < 0.001 else f"{p:.3f}" for p in table.p])


def _all_scores(found: Evaluation) -> pd.DataFrame:
    scores = found.fullest()
    shown = scores[(scores["split"] == found.main_split) & (scores.support == "native")]
    table = shown.pivot_table(index=["product", "method"], columns="score", values="value", sort=False)
    return table.rename_axis(columns=None)


def _table(table: pd.DataFrame) -> str:
    numbered = isinstance(table.index, pd.RangeIndex) or table.index.dtype.kind == "i"
    return str(table.round(3).to_html(na_rep="–", border=0, index=not numbered))


def _picture(found: Evaluation, name: str) -> str:
    """A picture inside the page; nothing where matplotlib is not installed."""
    try:
        figure_class = require("matplotlib.figure", "viz").Figure
    except ImportError:
        return ""
    height = 0.8 + 0.34 * len(found.table()) if name == "scores" else 4.0
    figure = figure_class(figsize=(8.6, height))
    draw_picture(found, name, figure.subplots())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
