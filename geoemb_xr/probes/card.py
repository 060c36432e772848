"""A probe's card in a notebook: what it learnt from, and what it scores on what it has not seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoemb_xr.probes.probe import Probe

_NOTES = {
    "blocked": "left-out regions: what to expect where there are no labels",
    "random": "groups drawn at random: optimistic beyond the labelled places",
    "old regions before": "labels known before the update, without it",
    "old regions after": "the same labels, with the new ones learnt too",
}


def card(probe: Probe) -> str:
    """HTML of a probe."""
    title = f"Probe <b>{escape(probe.target)}</b>: {escape(probe.method)}, {probe.task}"
    facts = [
        ("product", f"{probe.product} {probe.version}".strip() or "plain arrays"),
        ("options", ", ".join(f"{k}={v}" for k, v in probe.options.items()) or "none"),
        ("labels", _pairs(probe.counts)),
        ("dropped", _pairs(probe.dropped) or "none"),
        ("attribution", probe.attribution),
    ]
    parts = [f"<div>{title}</div>", _table([("", "")], [f for f in facts if f[1]])]
    kinds = [kind for kind in _NOTES if kind in probe.scores]
    if kinds:
        names = list(probe.scores[kinds[0]])
        rows = [(k, *(f"{probe.scores[k][n]:.3f}" for n in names), _NOTES[k]) for k in kinds]
        parts.append(_table([("held out", *(n.replace("_", " ") for n in names), "")], rows))
    if "coverage" in probe.scores:
        low, high = (f(probe.scores["coverage"].values()) for f in (min, max))
        parts.append(
            f"<div>conformal sets at 90 %: {low:.0%} to {high:.0%} of the labels of a left-out fold are in theirs; "
            "promised only for what is exchangeable with the labels</div>"
        )
    if probe.legend is not None and probe.confusion.size:
        names = [escape(n) for n in probe.legend.names]
        rows = [(n, *(f"{v:g}" for v in row)) for n, row in zip(names, probe.confusion, strict=True)]
        parts.append("<details><summary>confusion: true (rows), predicted (columns)</summary>")
        parts.append(_table([("", *names)], rows) + "</details>")
    return "".join(parts)


def _pairs(counts: Any) -> str:
    return ", ".join(f"{escape(str(name))} {n}" for name, n in counts.items())


def _table(head: Sequence[Sequence[str]], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag} style='text-align:left'>{c}</{tag}>" for c in cells) + "</tr>"

    heading = "".join(line(cells, "th") for cells in head if any(cells))
    return f"<table>{heading}{''.join(line(row, 'td') for row in rows)}</table>"
