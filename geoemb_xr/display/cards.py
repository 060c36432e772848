"""Cards of arrays, made from coordinates, attributes and the graph; nothing is computed or read."""

from __future__ import annotations

import math
from html import escape

import numpy as np
import xarray as xr

from geoemb_xr.core import areas, geometry, html
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.fitted import decoded_bands
from geoemb_xr.core.legend import is_class_map, legend_of
from geoemb_xr.core.model import BAND, attribution_of, check_embedding, is_encoded, kind_of
from geoemb_xr.core.times import describe_times
from geoemb_xr.execution.reads import absence_of

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
    source = str(array.attrs.get("source", ""))
    rows = [
        (name, f'<span title="{escape(source)}">{value}</span>' if name == "source" else value)
        for name, value in rows
    ]
    if is_class_map(array):
        legend = legend_of(array)
        swatches = (
            f'<i class="swatch" style="background:{escape(colour)}"></i>{escape(name)}'
            for name, colour in zip(legend.names, legend.colours, strict=True)
        )
        rows = [
            (name, value) if name != "classes" else (name, " &nbsp; ".join(swatches)) for name, value in rows
        ]
    return html.card(_title(array), rows)


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


def _array_rows(array: xr.DataArray) -> html.Rows:
    rows: html.Rows = []
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


def _vector_rows(array: xr.DataArray) -> html.Rows:
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
        rows.append(("source", html.short_path(str(array.attrs["source"]))))
    return rows + ([("licence", found.licence_line)] if found.licence else [])


def _place_rows(array: xr.DataArray) -> html.Rows:
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
    rows.append(("grid", f"{box.shape[1]:,} × {box.shape[0]:,} pixels of {size}, {areas.covers(box)}"))
    return rows


def _memory_rows(array: xr.DataArray) -> html.Rows:
    size = html.human_bytes(array.nbytes)
    if is_encoded(array):
        pixels = array.size // max(array.sizes[BAND], 1)
        size += f" as codes, {html.human_bytes(pixels * len(decoded_bands(array)) * 4)} decoded"
    if array.chunks is None:
        return [("in memory", size)]
    block = " × ".join(str(max(c)) for c in array.chunks)
    tasks = len(array.data.__dask_graph__())
    rows = [("lazy", f"{size} in {array.data.npartitions:,} blocks of up to {block}; {tasks:,} tasks")]
    absence = absence_of(array)
    return rows + ([("absent", f"{absence}, read as missing")] if absence else [])
