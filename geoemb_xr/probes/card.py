"""The card of a probe in a notebook: its training labels and its held-out scores."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from geoemb_xr.core import html

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
    facts = [
        ("product", escape(f"{probe.product} {probe.version}".strip()) or "plain arrays"),
        ("options", escape(", ".join(f"{k}={v}" for k, v in probe.options.items())) or "none"),
        ("labels", _pairs(probe.counts)),
        ("left out", _pairs(probe.dropped, ": ") or "none"),
        ("attribution", escape(probe.attribution)),
    ]
    parts = []
    kinds = [kind for kind in _NOTES if kind in probe.scores]
    if kinds:
        names = list(probe.scores[kinds[0]])
        rows = [(k, *(f"{probe.scores[k][n]:.3f}" for n in names)) for k in kinds]
        parts.append(html.table(rows, ("held out", *(n.replace("_", " ") for n in names))))
        parts.append(html.table((k, _NOTES[k]) for k in kinds))
    if "coverage" in probe.scores:
        low, high = (f(probe.scores["coverage"].values()) for f in (min, max))
        parts.append(
            f"<div>Conformal sets at 90% contain {low:.0%} to {high:.0%} of the labels of a left-out fold. Their "
            "promise of 90% holds only for places that are exchangeable with the labels.</div>"
        )
    if probe.legend is not None and probe.confusion.size:
        names = [escape(n) for n in probe.legend.names]
        rows = [(n, *(f"{v:g}" for v in row)) for n, row in zip(names, probe.confusion, strict=True)]
        summary = "<summary>Confusion matrix: true classes in rows, predicted ones in columns</summary>"
        parts.append(f"<details>{summary}{html.table(rows, ('', *names))}</details>")
    return html.card(
        f"Probe {probe.target}: {probe.method}, {probe.task}", [f for f in facts if f[1]], *parts
    )


def _pairs(counts: Any, between: str = " ") -> str:
    return ", ".join(f"{escape(str(name))}{between}{n}" for name, n in counts.items())
