"""Checks of values: norms, missing pixels, broken scales, and seams where tiles meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoemb_xr.core import areas, geometry
from geoemb_xr.core.arrays import decode, map_bands
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.model import BAND, check_embedding
from geoemb_xr.core.notes import say
from geoemb_xr.execution.computing import computed
from geoemb_xr.execution.reads import stored_objects
from geoemb_xr.stores.absence import absent_note

if TYPE_CHECKING:
    import pandas as pd

#: A norm so many times the median is an outlier: real ones of a product lie within a factor of two.
_OUTLIER = 16.0
#: A step across the edge of two blocks is a seam that is so many times those on both sides of it.
_SEAM, _LEAST_PIXELS = 2.0, 50
#: Share of a tile along each of its edges that is not looked at for whether the tile is lost.
_EDGE = 1 / 8


def check(array: xr.DataArray, *, coverage: pd.DataFrame | None = None) -> dict[str, Any]:
    """Look at an embedding's values: missing pixels, norms, outliers, seams, and lost tiles. Computes.

    Seams are looked for where dask's blocks meet, which :func:`geoemb_xr.open` lays on the edges of stored tiles,
    and between all rows and columns of an array in memory.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Encoded or decoded.
    coverage : DataFrame, optional
        Published tiles, as :func:`geoemb_xr.coverage` lists it: a tile of it that lies on the array and of which
        no pixel has data is lost. Rasters only.

    Returns
    -------
    dict
        ``missing`` (share of pixels), ``absent`` (share of the stored blocks that do not exist, in stores of
        others, which do not say which were written), ``norm_min``, ``norm_mean``, ``norm_max``, ``outliers``
        (number of pixels with a norm of about 16 times the median or more), ``seams`` (dimension, pixel, and how
        many times the steps beside it the step is), ``lost`` (address and year of tiles that are published and
        have no data here), ``ok`` and ``problems``.

    Raises
    ------
    EmbeddingError
        If ``coverage`` is not a list of tiles with their bounds, or the array has no grid.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> gx.testing.synthetic("alphaearth", shape=(8, 8)).emb.check()["ok"]
    True
    """
    found = check_embedding(array, "check")
    norms = map_bands(_norms, array, dtype=np.float32)
    edges = {dim: _edges(array, dim) for dim in ("y", "x") if dim in array.dims}
    steps = {dim: _steps(array, dim, each) for dim, each in edges.items() if each.size}
    variables = {"missing": norms.isnull().mean(), "low": norms.min(), "mean": norms.mean(), "high": norms.max(),
                 "orders": _orders(norms)}  # fmt: skip
    variables |= {
        f"{dim} {name}": each
        for dim, (_, *both) in steps.items()
        for name, each in zip("an", both, strict=True)
    }
    listed = [] if coverage is None else _listed(norms, coverage)
    variables |= {f"tile {i}": norms.isel(where).notnull().any() for i, (_, where) in enumerate(listed)}
    values = computed(xr.Dataset(variables))
    absent, note = _absent_blocks(array)
    if note:
        say(note)
    missing, low, mean, high = (float(values[name]) for name in ("missing", "low", "mean", "high"))
    outliers = _outliers(values["orders"].values)
    seams = [
        (dim, int(row), round(float(ratio), 2))
        for dim, (rows, *_) in steps.items()
        for row, ratio in _seams(rows, values[f"{dim} a"].values, values[f"{dim} n"].values)
    ]
    lost = [tile for i, (tile, _) in enumerate(listed) if not values[f"tile {i}"]]
    problems = []
    # Two int8 codes a band put a decoded norm at most 1.2 % off: more means a wrong formula or averaged codes.
    if found.unit_norm and missing < 1 and max(abs(low - 1), abs(high - 1)) > 0.012:
        problems.append(
            f"norms {low:.4f}–{high:.4f} are not 1 ± 0.012: codes were averaged, decoded with "
            "another formula, or these are means"
        )
    if missing == 1:
        problems.append("every pixel is missing")
    if outliers:
        problems.append(
            f"{outliers} pixels have {_OUTLIER:.0f} times the median norm or more, up to {high:,.6g}: "
            "broken scales?"
        )
    if seams:
        said = ", ".join(f"{dim} = {row} ({ratio:g} times)" for dim, row, ratio in seams[:3])
        problems.append(f"{len(seams)} seams, where neighbours differ more than those beside them: {said}")
    if lost:
        said = ", ".join(f"{url} of {year}" for url, year in lost[:3])
        problems.append(f"{len(lost)} of {len(listed)} tiles that are published here have no data: {said}")
    return {
        "missing": missing,
        "absent": absent,
        "norm_min": low,
        "norm_mean": mean,
        "norm_max": high,
        "outliers": outliers,
        "seams": seams,
        "lost": lost,
        "ok": not problems,
        "problems": problems,
    }


def _absent_blocks(array: xr.DataArray) -> tuple[float, str]:
    """Share of the stored blocks under an array that do not exist, and what is said of them."""
    sources = stored_objects(array)
    of_source: dict[int, list[str]] = {}
    for name, source in sources.items():
        of_source.setdefault(id(source), []).append(name)
    absent = [name for names in of_source.values() for name in sources[names[0]].absent(names)]
    if not absent:
        return 0.0, ""
    return len(absent) / len(sources), absent_note(absent, len(sources), "this array")


def _norms(block: np.ndarray, axis: int) -> np.ndarray:
    square = np.einsum("i...,i...->...", *[np.moveaxis(block, axis, 0)] * 2, dtype=np.float64)
    return np.asarray(np.sqrt(square), np.float32)


# --- outliers -------------------------------------------------------------------------------------------------


def _orders(norms: xr.DataArray) -> xr.DataArray:
    """Counts of norms by their binary order of magnitude, −64 to 64: a median of any array in one pass."""
    logs: xr.DataArray = xr.apply_ufunc(np.log2, norms.clip(min=1e-30), dask="allowed")
    orders = logs.fillna(np.inf)  # what is missing falls out of the histogram, and so do zeros
    edges = np.arange(-64, 65)
    if norms.chunks is None:
        counts: Any = np.histogram(orders.values, edges)[0]
    else:
        import dask.array as da

        counts = da.histogram(orders.data, edges)[0]
    return xr.DataArray(counts, dims="order")


def _outliers(counts: np.ndarray) -> int:
    """How many norms lie at least four orders above the median's."""
    if not counts.sum():
        return 0
    median = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    return int(counts[median + int(np.log2(_OUTLIER)) + 1 :].sum())


# --- seams ----------------------------------------------------------------------------------------------------


def _edges(array: xr.DataArray, dim: str) -> np.ndarray:
    """Rows that start a block, with three rows on both sides; all rows of an array in memory."""
    size = array.sizes[dim]
    edges = np.arange(size) if array.chunks is None else np.cumsum(array.variable.chunksizes[dim])
    return np.asarray(edges[(edges >= 3) & (edges <= size - 3)])


def _steps(array: xr.DataArray, dim: str, edges: np.ndarray) -> tuple[np.ndarray, xr.DataArray, xr.DataArray]:
    """Mean distance between rows ``i − 1`` and ``i`` at edges and beside them, and over how many pixels."""
    rows = np.unique(np.concatenate([edges - 2, edges, edges + 2]))
    before, after = (
        decode(array.isel({dim: rows + shift})).drop_vars(dim, errors="ignore") for shift in (-1, 0)
    )
    apart: xr.DataArray = ((after - before) ** 2).sum(BAND, skipna=False) ** 0.5
    others = [d for d in apart.dims if d != dim]
    mean, count = (
        each.reset_coords(drop=True).rename({dim: f"{dim} step"})
        for each in (apart.mean(others), apart.count(others))
    )
    return rows, mean, count


def _seams(rows: np.ndarray, step: np.ndarray, count: np.ndarray) -> list[tuple[int, float]]:
    """Rows across which the step is larger than the ones two rows before and after."""
    place = {int(row): i for i, row in enumerate(rows)}
    found = []
    for row, i in place.items():
        beside = [place[row + d] for d in (-2, 2) if row + d in place]
        if len(beside) == 2 and min(count[i], *count[beside]) >= _LEAST_PIXELS:
            least = float(max(step[beside]))
            if step[i] > _SEAM * least > 0:
                found.append((row, step[i] / least))
    return found


# --- what is published ----------------------------------------------------------------------------------------


def _listed(norms: xr.DataArray, coverage: pd.DataFrame) -> list[tuple[tuple[str, int], dict[str, Any]]]:
    """Address and year of each tile on the array, and where its inner pixels are."""
    needed = ["url", "year", "west", "south", "east", "north"]
    lacking = [name for name in needed if name not in getattr(coverage, "columns", ())]
    if lacking:
        raise EmbeddingError(
            f"coverage is a table with the columns {', '.join(needed)}, as gx.coverage(product, bbox=…) gives it; "
            f"it lacks {', '.join(lacking)}"
        )
    grid = geometry.geobox_of(norms, "check")
    years = np.atleast_1d(norms["time"].dt.year.values) if "time" in norms.coords else None
    found = []
    for url, year, *bounds in coverage[needed].itertuples(index=False):
        if years is not None and year not in years:
            continue
        when = {"time": np.flatnonzero(years == year)} if "time" in norms.dims else {}
        for box in areas.parse_bbox(_inner(*bounds)).bounds_in(grid.crs):
            window = areas.window_of(grid, box)
            if window is not None:
                found.append(((str(url), int(year)), {**when, "y": window[0], "x": window[1]}))
    return found


def _inner(west: float, south: float, east: float, north: float) -> tuple[float, float, float, float]:
    """Bounds without their edges: those of a tile in degrees reach into its neighbours."""
    dx, dy = (east - west) % 360 * _EDGE, (north - south) * _EDGE
    return west + dx, south + dy, east - dx, north - dy
