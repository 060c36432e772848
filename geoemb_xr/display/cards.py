"""What an array or a product is, at a glance, and what a computation would read before it runs.

Nothing here computes or reads: everything is told from coordinates, attributes and the graph.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.arrays import describe_times
from geoemb_xr.core.fitted import decoded_bands
from geoemb_xr.core.legend import is_class_map, legend_of
from geoemb_xr.core.model import (
    BAND,
    EmbeddingError,
    Product,
    attribution_of,
    check_embedding,
    is_encoded,
    kind_of,
)

Rows = list[tuple[str, str]]
_STYLE = (
    "<style>.geoemb{font-size:13px;line-height:1.45;max-width:56em}"
    ".geoemb b.title{font-size:14px}"
    ".geoemb table{border-collapse:collapse;margin:.3em 0 0}"
    ".geoemb td{padding:1px 14px 1px 0;text-align:left;vertical-align:top;border:none;background:none}"
    ".geoemb td:first-child{opacity:.6;white-space:nowrap}"
    ".geoemb i.swatch{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 0;border-radius:2px}</style>"
)


# --- arrays -------------------------------------------------------------------------------------------------


def array_summary(array: xr.DataArray) -> str:
    """The text that ``repr(array.emb)`` shows.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> print(array_summary(gx.testing.synthetic("alphaearth", shape=(32, 48), chunks=16)))
    <alphaearth synthetic: raster of 1 × 64 × 32 × 48 (time, band, y, x)>
    ...
    """
    rows = _array_rows(array)
    width = max(len(name) for name, _ in rows)
    return "\n".join([f"<{_title(array)}>", *(f"  {name:<{width}}  {value}" for name, value in rows)])


def array_card(array: xr.DataArray) -> str:
    """The HTML that a notebook shows for ``array.emb``."""
    rows = [(name, escape(value)) for name, value in _array_rows(array)]
    if is_class_map(array):
        legend = legend_of(array)
        swatches = (
            f'<i class="swatch" style="background:{escape(colour)}"></i>{escape(name)}'
            for name, colour in zip(legend.names, legend.colours, strict=True)
        )
        rows = [
            (name, value) if name != "classes" else (name, " &nbsp; ".join(swatches)) for name, value in rows
        ]
    return _html(_title(array), rows)


def _title(array: xr.DataArray) -> str:
    sizes = " × ".join(f"{size:,}" for size in array.sizes.values())
    dims = ", ".join(map(str, array.dims))
    kind = kind_of(array)
    if kind == "map":
        name = array.attrs.get("long_name") or array.name
        what = "map" if name is None else f"map of {str(name).replace('_', ' ')}"
        return f"{what}: {sizes} ({dims})"
    version = str(array.attrs.get("version", ""))
    return f"{array.attrs['product']} {version}".strip() + f": {kind} of {sizes} ({dims})"


def _array_rows(array: xr.DataArray) -> Rows:
    rows: Rows = []
    if kind_of(array) != "map":
        rows += _vector_rows(array)
    elif "derived_from" in array.attrs:
        rows.append(("made from", str(array.attrs["derived_from"])))
    if is_class_map(array):
        rows.append(("classes", ", ".join(legend_of(array).names)))
    rows += _place_rows(array)
    if "time" in array.coords:
        rows.append(("time", describe_times(np.atleast_1d(array.coords["time"].values))))
    rows += _memory_rows(array)
    attribution = attribution_of(array)
    return rows + ([("attribution", attribution)] if attribution else [])


def _vector_rows(array: xr.DataArray) -> Rows:
    try:
        found = check_embedding(array, "this")
    except EmbeddingError as error:
        return [("not usable", str(error))]
    state = (
        f"codes ({array.attrs['codec']}, {array.dtype})" if is_encoded(array) else f"decoded ({array.dtype})"
    )
    length = "unit length" if found.unit_norm else "free length"
    rows = [("product", found.title or found.name), ("vectors", f"{state}, {found.dims} bands, {length}")]
    if array.attrs.get("source"):
        rows.append(("source", str(array.attrs["source"])))
    return rows + ([("licence", _licence(found))] if found.licence else [])


def _licence(found: Product) -> str:
    return found.licence + (", share alike" if found.share_alike else "")


def _place_rows(array: xr.DataArray) -> Rows:
    crs = geometry.crs_of(array)
    rows = [("CRS", geometry.crs_name(crs) if crs is not None else "none")]
    if "location" in array.dims:
        return rows
    try:
        box = geometry.geobox_of(array)
    except EmbeddingError:
        return rows
    unit = "°" if crs is not None and crs.is_geographic else " m"
    dx, dy = abs(box.affine.a), abs(box.affine.e)
    size = f"{dx:.6g}{unit}" if math.isclose(dx, dy) else f"{dx:.6g} × {dy:.6g}{unit}"
    rows.append(("grid", f"{box.shape[1]:,} × {box.shape[0]:,} pixels of {size}, {geometry.covers(box)}"))
    return rows


def _memory_rows(array: xr.DataArray) -> Rows:
    size = human_bytes(array.nbytes)
    if is_encoded(array):
        pixels = array.size // max(array.sizes[BAND], 1)
        size += f" as codes, {human_bytes(pixels * len(decoded_bands(array)) * 4)} decoded"
    if array.chunks is None:
        return [("in memory", size)]
    block = " × ".join(str(max(c)) for c in array.chunks)
    tasks = len(array.data.__dask_graph__())
    return [("lazy", f"{size} in {array.data.npartitions:,} blocks of up to {block}; {tasks:,} tasks")]


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


# --- products -----------------------------------------------------------------------------------------------


def product_card(found: Product) -> str:
    """The HTML that a notebook shows for a product."""
    storage = f"{found.dtype}, codec {found.codec.name}" if found.codec else found.dtype
    length = "unit length" if found.unit_norm else "free length"
    ground = f"{found.resolution:g} m" if found.resolution else ""
    facts: Sequence[tuple[str, str]] = (
        ("vectors", f"{found.dims} bands, {length}, stored as {storage}"),
        (
            "one for",
            " ".join(filter(None, ({"location": "any place"}.get(found.kind, f"a {found.kind}"), ground))),
        ),
        ("where", found.extent),
        ("when", ", ".join(filter(None, (found.period, found.cadence)))),
        ("model", ", ".join(filter(None, (found.model, found.encoder)))),
        ("inputs", found.inputs),
        ("versions", ", ".join((*found.versions, *found.variants))),
        ("stores", ", ".join(found.stores)),
        ("access", found.access),
        ("licence", " – ".join(filter(None, (_licence(found), found.licence_notes)))),
        ("attribution", found.attribution),
        ("reference", found.citation),
    )
    rows = [(name, escape(value)) for name, value in facts if value]
    if found.doi:
        link = escape(f"https://doi.org/{found.doi.removeprefix('https://doi.org/')}", quote=True)
        rows.append(("DOI", f'<a href="{link}">{escape(found.doi)}</a>'))
    if found.quirks:
        rows.append(("note", "<br>".join(map(escape, found.quirks))))
    return _html(f"{found.name}: {found.title}" if found.title else found.name, rows)


def _html(title: str, rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{value}</td></tr>" for name, value in rows)
    return f'{_STYLE}<div class="geoemb"><b class="title">{escape(title)}</b><table>{cells}</table></div>'


# --- plan ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What computing an array would take.

    Parameters
    ----------
    blocks : int
        Blocks of the result.
    result_bytes : int
        Of the result, in memory.
    tasks : int
        After blockwise fusion.
    reads : int
        Tasks that read from a source.
    read_bytes : int
        What they hold once read, before decoding; compressed stores transfer less.
    requests : int
        Stored blocks that the reads touch, where the source tells its blocks; else as many as reads. Readers that
        join neighbouring blocks need fewer.
    workers : int
        Tasks that run at once on this machine.
    peak_memory : int
        Estimate in bytes: for every worker what it reads, its float32 vectors and its result, and the whole result
        once.
    """

    blocks: int
    result_bytes: int
    tasks: int
    reads: int
    read_bytes: int
    requests: int
    workers: int
    peak_memory: int

    def _rows(self) -> Rows:
        if not self.tasks:
            return [("result", f"{human_bytes(self.result_bytes)}, in memory already: nothing to read")]
        return [
            ("result", f"{human_bytes(self.result_bytes)} in {self.blocks:,} blocks"),
            (
                "reads",
                f"{human_bytes(self.read_bytes)} in {self.reads:,} reads, about {self.requests:,} requests",
            ),
            ("tasks", f"{self.tasks:,}, {self.workers} at once"),
            ("peak memory", f"about {human_bytes(self.peak_memory)}"),
        ]

    def __str__(self) -> str:
        return "\n".join(f"{name:<12}{value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        return _html("plan", [(name, escape(value)) for name, value in self._rows()])


def plan(array: xr.DataArray) -> Plan:
    """Tell what computing an array would read and hold, without computing anything.

    Parameters
    ----------
    array : DataArray
        An embedding or a map, lazy or not.

    Returns
    -------
    Plan
        Prints as a short table. With a cluster, ``workers`` and ``peak_memory`` speak of this machine alone.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64), years=[2018, 2024], chunks=32)
    >>> da.emb.change(2018, 2024).emb.plan().blocks
    4
    """
    if array.chunks is None:
        return Plan(1, array.nbytes, 0, 0, 0, 0, 0, array.nbytes)
    from dask.blockwise import optimize_blockwise
    from dask.core import flatten

    keys = list(flatten(array.data.__dask_keys__()))
    graph = array.data.__dask_graph__().cull(set(keys))
    fused = optimize_blockwise(graph, keys=keys)
    reads = [read for layer in graph.layers.values() for read in _reads(layer, graph)]
    # codes of a byte become float32 of four while a task runs
    held = max((read.nbytes * (1 + 4 // read.itemsize) for read in reads), default=0)
    block = math.prod(max(c) for c in array.chunks) * array.dtype.itemsize
    workers = min(os.cpu_count() or 1, array.data.npartitions)
    return Plan(
        blocks=array.data.npartitions,
        result_bytes=array.nbytes,
        tasks=sum(len(layer) for layer in fused.layers.values()),
        reads=len(reads),
        read_bytes=sum(read.nbytes for read in reads),
        requests=sum(read.requests for read in reads),
        workers=workers,
        peak_memory=workers * (held + block) + array.nbytes,
    )


@dataclass(frozen=True)
class _Read:
    nbytes: int
    itemsize: int
    requests: int


def _reads(layer: Any, graph: Any) -> list[_Read]:
    """What the tasks of a layer read: dask keeps slices of a source beside the layers of ``from_array``."""
    from dask.blockwise import Blockwise
    from dask.layers import ArraySliceDep

    if not isinstance(layer, Blockwise):
        return []
    slices = next((dep for dep in layer.io_deps.values() if isinstance(dep, ArraySliceDep)), None)
    name = f"original-{layer.output}"
    holder = next((each for each in graph.layers.values() if name in each), None)
    if slices is None or holder is None:
        return []
    source = getattr(holder[name], "value", holder[name])
    itemsize = np.dtype(source.dtype).itemsize
    windows = [slices[key[1:]] for key in layer.get_output_keys()]
    return [
        _Read(math.prod(w.stop - w.start for w in window) * itemsize, itemsize, _requests(source, window))
        for window in windows
    ]


def _requests(source: Any, window: Sequence[slice]) -> int:
    """Stored blocks that a window of tiles touches; 1 for other sources."""
    if not hasattr(source, "tiles") or not hasattr(source, "places"):
        return 1
    steps, rows, cols = window[0], window[-2], window[-1]
    count = 0
    for tile, place in zip(source.tiles, source.places, strict=True):
        top, left, bottom, right = (int(v) for v in place)
        held = sum(source.times[t] in tile.times for t in range(steps.start, steps.stop))
        count += (
            held * _touched(rows, top, bottom, tile.block[0]) * _touched(cols, left, right, tile.block[1])
        )
    return count


def _touched(span: slice, start: int, stop: int, block: int) -> int:
    """Blocks, counted from ``start``, that a span of pixels touches."""
    first, last = max(span.start, start) - start, min(span.stop, stop) - start
    return -(-last // block) - first // block if first < last else 0
