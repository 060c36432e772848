"""A small builder of cards: a title over a table of names and values."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

Rows = list[tuple[str, str]]
_STYLE = (
    "<style>.geoemb{font-size:13px;line-height:1.45;max-width:56em}"
    ".geoemb b.title{font-size:14px}"
    ".geoemb table{border-collapse:collapse;margin:.3em 0 0}"
    ".geoemb td{padding:1px 14px 1px 0;text-align:left;vertical-align:top;border:none;background:none}"
    ".geoemb td:first-child{opacity:.6;white-space:nowrap}"
    ".geoemb i.swatch{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 0;border-radius:2px}</style>"
)


def card(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """HTML of a title and of rows; values are HTML already, names are escaped."""
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{value}</td></tr>" for name, value in rows)
    return f'{_STYLE}<div class="geoemb"><b class="title">{escape(title)}</b><table>{cells}</table></div>'


def human_bytes(n: float) -> str:
    """A number of bytes as text, in powers of 1000.

    Examples
    --------
    >>> human_bytes(4_294_967_296)
    '4.29 GB'
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n < 1000:
            return f"{n:.0f} B" if unit == "B" else f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:,.3g} PB"
