"""A small builder of cards: a title over a table of names and values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

Rows = list[tuple[str, str]]
#: The class twice: JupyterLab's own rules for tables, which centre and stripe them, are as specific as one.
_STYLE = (
    "<style>.geoemb{font-size:13px;line-height:1.45;max-width:56em;text-align:left;overflow-x:auto}"
    ".geoemb b.title{font-size:14px}"
    ".geoemb.geoemb table{border-collapse:collapse;margin:.3em 0 0;margin-right:auto;table-layout:auto;border:none;"
    "color:inherit;font-size:inherit}"
    ".geoemb.geoemb tbody tr,.geoemb.geoemb tbody tr:nth-child(even),.geoemb.geoemb tbody tr:hover{background:none}"
    ".geoemb.geoemb td,.geoemb.geoemb th{padding:1px 14px 1px 0;text-align:left;vertical-align:top;border:none;"
    "background:none;font-weight:inherit;"
    "color:inherit;max-width:none;overflow-wrap:anywhere}"
    ".geoemb.geoemb td:first-child,.geoemb.geoemb th{opacity:.6;white-space:nowrap}"
    ".geoemb i.swatch{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 0;border-radius:2px}</style>"
)
#: Repeated in each cell: JupyterLab drops the style sheet of a notebook that it does not trust.
_LEFT = ' style="text-align:left;vertical-align:top"'
#: A path longer than this is told by its ends.
_LONGEST = 60


def card(title: str, rows: Iterable[tuple[str, str]], *below: str) -> str:
    """HTML of a title, of rows and of what stands below; values are HTML already, names are escaped."""
    facts = table((escape(name), value) for name, value in rows)
    return f'{_STYLE}<div class="geoemb"><b class="title">{escape(title)}</b>{facts}{"".join(below)}</div>'


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """HTML of a table in a card; its cells are HTML already."""
    lines = [(head, "th")] if head else []
    lines += [(row, "td") for row in rows]
    body = "".join(
        "<tr>" + "".join(f"<{tag}{_LEFT}>{cell}</{tag}>" for cell in cells) + "</tr>" for cells, tag in lines
    )
    return f'<table style="margin-left:0">{body}</table>'


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


def human_number(value: float, digits: int = 6) -> str:
    """A number as people write it: whole thousands apart, no exponent.

    Examples
    --------
    >>> human_number(5_234_390.0), human_number(-88.77523), human_number(0.00012)
    ('5 234 390', '-88.7752', '0.00012')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    text = f"{value:.{digits}g}"
    return f"{value:.10f}".rstrip("0") if "e" in text else text


def short_path(path: str) -> str:
    """A path with the home folder as ``~``, and of a long one its beginning and its end.

    Examples
    --------
    >>> short_path("https://data.source.coop/" + 20 * "folder/" + "tile.tif")
    'https://data.source.coop/…/folder/folder/folder/tile.tif'
    """
    home = str(Path.home())
    if path.startswith(home + "/") and len(home) > 1:
        path = "~" + path[len(home) :]
    if len(path) <= _LONGEST:
        return path
    scheme, colon, rest = path.rpartition("://")
    parts = rest.split("/")
    start = scheme + colon + parts[0] + ("/" + parts[1] if not parts[0] else "")
    end = parts[-1]
    for part in reversed(parts[2:-1]):
        if len(start) + len(end) + len(part) + 4 > _LONGEST:
            break
        end = f"{part}/{end}"
    return f"{start}/…/{end}"
