"""From labels to vectors with a label, a weight and a group each.

A group is what no split may part: a polygon's pixels, or one place in several years.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import areas, geometry
from geoemb_xr.core.arrays import decode
from geoemb_xr.core.checks import is_count
from geoemb_xr.core.errors import CoverageError, EmbeddingError
from geoemb_xr.core.legend import Legend, is_class_map
from geoemb_xr.core.model import BAND, product, registered
from geoemb_xr.core.notes import say
from geoemb_xr.core.times import describe_times, parse_dates, pick_times
from geoemb_xr.execution.computing import computed
from geoemb_xr.geo import places, polygons
from geoemb_xr.geo.wrapping import wrap
from geoemb_xr.probes import labelling, matching
from geoemb_xr.probes.label_values import as_labels, without_gaps

if TYPE_CHECKING:
    import pyproj
    from odc.geo.geobox import GeoBox

#: Number of pixels that are taken of a larger polygon, evenly over it.
PIXELS_PER_POLYGON = 1000
#: Number of pixels that are drawn from a label raster: of each class, or in all where it holds values.
PER_CLASS = 500
#: Codes of label rasters on another grid begin at 0 and are fewer than this.
_MOST_CLASSES = 65_535
_TIME_COLUMNS = ("time", "date", "year")


@dataclass(frozen=True)
class Samples:
    """Labelled vectors.

    Parameters
    ----------
    vectors : ndarray of float32 (n, band)
        Decoded, without NaN.
    labels : ndarray (n,)
        The labels as the user wrote them.
    weights : ndarray of float64 (n,)
        1 where none are given.
    groups : ndarray of int (n,)
        Groups that each split keeps together.
    places : ndarray of float64 (n, 2), optional
        East and north in metres, to block by; None where they are unknown.
    dropped : mapping of str to int
        Number of labels that were left out, by reason.
    legend : Legend, optional
        Names and colours that the labels brought.
    named : bool
        Whether the user said what the groups are.
    """

    vectors: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    places: np.ndarray | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    legend: Legend | None = None
    named: bool = False


def plain_samples(vectors: Any, labels: Any, group: Any, weights: Any) -> Samples:
    """Samples from arrays ``(n, band)`` and ``(n,)``; rows with a missing band or label are dropped."""
    x, y = np.asarray(vectors, np.float32), as_labels(labels)
    if x.ndim != 2 or y.shape != (len(x),):
        raise EmbeddingError(f"fit_probe(X, y) takes shapes (n, band) and (n,); got {x.shape} and {y.shape}")
    groups = groups_of(group, np.arange(len(x)))
    return _clean(x, y, _weights(weights, len(x)), groups, None, {}, None, group is not None)


def points_of_table(table: Any) -> xr.DataArray:
    """A table with a column per band as an array of points, its product told by the names of its columns.

    Raises
    ------
    EmbeddingError
        If its columns are the bands of no product, or of several.
    """
    columns = set(map(str, table.columns))
    fitting = [each for each in registered() if each.decoded_bands and set(each.decoded_bands) <= columns]
    most = max((len(each.decoded_bands) for each in fitting), default=0)
    fitting = [each for each in fitting if len(each.decoded_bands) == most]
    if len(fitting) != 1:
        names = sorted(each.name for each in fitting)
        raise EmbeddingError(
            f"the table has the bands of {'several products: ' + ', '.join(names) if names else 'no product'}; "
            "say which with gx.wrap(table, 'alphaearth'), and give what comes of it"
        )
    return wrap(table, fitting[0])


def _weights(weights: Any, n: int) -> np.ndarray:
    if weights is None:
        return np.ones(n)
    found = pd.to_numeric(pd.Series(np.ravel(weights)), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    if found.shape != (n,) or not np.isfinite(found).all() or (found < 0).any() or not found.any():
        zeros = ", all zero" if found.size and not found.any() else ""
        raise EmbeddingError(
            f"weights are {n} finite numbers, none negative and some above zero; got shape {found.shape}{zeros}"
        )
    return found


def groups_of(group: Any, default: np.ndarray) -> np.ndarray:
    """Group numbers of labels, or the default groups where none are given."""
    if group is None:
        return np.unique(default, return_inverse=True)[1]
    found = pd.factorize(np.asarray(group))[0]
    if found.shape != default.shape or (found < 0).any():
        raise EmbeddingError(f"group needs one value for each of the {len(default)} labels, none missing")
    return found


def _clean(
    x: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    groups: np.ndarray,
    places: np.ndarray | None,
    dropped: Mapping[str, int],
    legend: Legend | None,
    named: bool,
) -> Samples:
    unlabelled = pd.isna(y)
    empty = np.isnan(x).any(axis=1) & ~unlabelled
    keep = ~(unlabelled | empty) & (weights > 0)
    counts = {**dropped, "no label": int(unlabelled.sum()), "no data there": int(empty.sum())}
    counts = {reason: n for reason, n in counts.items() if n}
    if not keep.any():
        raise EmbeddingError(f"no label is left to learn from; dropped: {counts or 'none, there were none'}")
    y = without_gaps(y[keep], gaps=bool(unlabelled.any()))
    return Samples(
        x[keep],
        y,
        weights[keep],
        groups[keep],
        None if places is None else places[keep],
        counts,
        legend,
        named,
    )


# --- tables ---------------------------------------------------------------------------------------------------


def column_of(table: Any, name: Any, what: str) -> np.ndarray:
    """A column by its name, a Series by the table's index, or an array of the table's length as it is."""
    if not isinstance(name, str) and not (np.isscalar(name) and name in table.columns):
        if isinstance(name, pd.Series) and not name.index.equals(table.index):
            order = name.index.get_indexer_for(table.index)
            if len(order) == len(name) and (order >= 0).all():  # the same rows in another order
                name = name.iloc[order]
        values = as_labels(name)
        values = values[:, 0] if values.shape == (len(table), 1) else values  # a table of one column
        if values.shape != (len(table),):
            raise EmbeddingError(
                f"{what} is a column's name, or a value for each of the {len(table)} rows; got shape {values.shape}"
            )
        return values
    if name not in table.columns:
        raise EmbeddingError(
            f"{what}={name!r} is not a column of the labels; they have {list(map(str, table.columns))}"
        )
    return as_labels(table[name])


#: The column of labels in what :func:`geoemb_xr.labels` and :func:`geoemb_xr.sample_design` give.
LABEL = "label"


def _name_of(target: Any) -> str:
    """What a target is called that was given by name, or as its values."""
    name = target if np.isscalar(target) else getattr(target, "name", None)
    return LABEL if name is None else str(name)


def guess_target(table: Any, target: str | None, used: set[str]) -> str:
    """Find the column of labels: the one that was named, the only one left, or one with a usual name."""
    if target is not None:
        return target
    taken = used | {"lon", "lat", "longitude", "latitude", "lng", "x", "y", *_TIME_COLUMNS}
    shapes = {str(table.geometry.name)} if hasattr(table, "crs") else set()
    left = [str(c) for c in table.columns if str(c).lower() not in taken and str(c) not in shapes]
    if LABEL in left:
        return LABEL
    if len(left) != 1:
        raise EmbeddingError(f"target= must name the column of labels, one of {left or list(table.columns)}")
    return left[0]


def aligned(raster: xr.DataArray, array: xr.DataArray) -> xr.DataArray:
    """A label raster on an array's grid: the majority class of each pixel, or the mean of values.

    What the raster does not reach has no label, whatever its codes are.
    """
    grid = geometry.geobox_of(array, "fit_probe")
    if geometry.same_grid(geometry.geobox_of(raster, "labels"), grid):
        return raster.assign_coords({d: array.coords[d].values for d in ("y", "x")})
    from geoemb_xr.geo.warp import reproject

    if is_class_map(raster) or raster.dtype.kind not in "iub":
        found: xr.DataArray = reproject(
            raster, grid, resampling="average" if raster.dtype.kind == "f" else "mode"
        )
        return found
    # 0 is no data where a grid changes, but may be a class of labels
    nodata = labelling.nodata_of(raster)
    if raster.chunks is None:
        counted = raster.copy(data=_from_one(raster.values, nodata))
    else:
        counted = raster.copy(data=raster.data.map_blocks(_from_one, nodata, dtype=np.uint16))
    counted.attrs = {}  # what they say is no data may be the number of a class now
    moved: xr.DataArray = reproject(counted, grid, resampling="mode").astype(np.int32) - np.int32(1)
    return moved.assign_attrs({**raster.attrs, "_FillValue": -1}).rename(raster.name)


def _from_one(block: np.ndarray, nodata: Any) -> np.ndarray:
    """Codes of classes that begin at 1, and 0 where there is no label."""
    codes = block.astype(np.int64)
    missing = np.zeros(codes.shape, bool) if nodata is None else codes == nodata
    known = codes[~missing]
    if known.size and not 0 <= known.min() <= known.max() < _MOST_CLASSES:
        raise EmbeddingError(
            f"labels on another grid than the array's have codes from 0 to {_MOST_CLASSES - 1:,}; got "
            f"{known.min()} to {known.max()}. Give them other codes, declare which is no data (_FillValue), or put "
            "them on the grid of the array first"
        )
    return np.where(missing, 0, codes + 1).astype(np.uint16)


def date_of(raster: xr.DataArray) -> str | None:
    """The date of a label raster, where it has one."""
    if "time" not in raster.coords or raster.coords["time"].ndim or raster.coords["time"].dtype.kind != "M":
        return None
    return str(raster.coords["time"].values.astype("datetime64[D]"))


def _count(n_samples: Any) -> int:
    if not is_count(n_samples):
        raise EmbeddingError(
            f"n_samples is how many pixels of each class are drawn, a whole number of 1 or more, or 'all'; "
            f"got {n_samples!r}"
        )
    return int(n_samples)


def _drawn_labels(raster: xr.DataArray, array: xr.DataArray, per_class: int) -> pd.DataFrame:
    """A stratified sample of a label raster, brought to the array's grid first."""
    table = labelling.drawn_points(aligned(raster, array), per_class=per_class)
    if table.empty:
        grid = geometry.geobox_of(array, "fit_probe")
        raise CoverageError(f"no label of the raster lies in the array, which {areas.covers(grid)}")
    each = "in all" if table.iloc[:, -1].dtype.kind == "f" else "per class"
    say(
        f"labels from a raster: {len(table)} pixels, at most {per_class} {each}; n_samples=… draws more or "
        "fewer, and with method='ridge' n_samples='all' takes every pixel"
    )
    return table


# --- labels on an array ---------------------------------------------------------------------------------------


def samples_of(
    array: xr.DataArray,
    labels: Any,
    target: str | None,
    time: Any,
    group: Any,
    weights: Any,
    n_samples: int | None = None,
) -> tuple[Samples, str]:
    """Vectors under labels, and the name of what they label. Reads only blocks that hold labels."""
    if "location" in array.dims:
        return _at_locations(array, labels, target, time, group, weights)
    grid = geometry.geobox_of(array, "fit_probe")
    table = labelling.read_labels(labels)
    if isinstance(table, xr.DataArray):
        raster = table if target is None else table.rename(target)
        date = date_of(raster)
        table = _drawn_labels(raster, array, PER_CLASS if n_samples is None else _count(n_samples))
        if time is None and date is not None and "time" in array.coords:
            table["time"], time = date, "time"
    elif n_samples is not None:
        raise EmbeddingError("n_samples draws from a label raster; a table's labels are all used")
    given = places.read_places(table)
    table = given.table
    if not len(table):
        raise EmbeddingError("no label is left to learn from: the table of labels has no rows")
    used = {*given.place_columns, *(v for v in (time, group, weights) if isinstance(v, str))}
    target = guess_target(table, target, used)
    values = column_of(table, target, "target")
    target = _name_of(target)
    weight = _weights(None if weights is None else column_of(table, weights, "weights"), len(table))
    own = None if group is None else column_of(table, group, "group")
    steps, other_time = _steps(array, table, time, target)
    given.say_missing("fit_probe leaves out")
    rows, cols, of, default, shared = pixels_of(grid, given)
    dropped = {
        "no geometry": int(given.missing.sum()),
        "outside the array": int((~given.missing).sum() - len(np.unique(of))) - shared,
        "all pixels in other polygons too": shared,
        "other time": int(np.isin(np.flatnonzero(other_time), of).sum()),
    }
    dropped = {reason: n for reason, n in dropped.items() if n}
    keep = ~other_time[of]
    rows, cols, of, default = rows[keep], cols[keep], of[keep], default[keep]
    if not of.size:
        raise CoverageError(
            f"no label lies in the array, which {areas.covers(grid)}{_of_times(array)}; dropped: {dropped}"
        )
    x = pixel_vectors(array, rows, cols, None if steps is None else steps[of])
    groups = groups_of(None if own is None else own[of], default)
    at = metres(grid, rows, cols)
    named = own is not None
    return _clean(
        x, values[of], weight[of], groups, at, dropped, labelling.legend_for(table, target), named
    ), target


def _of_times(array: xr.DataArray) -> str:
    return (
        f" in {describe_times(np.atleast_1d(array.coords['time'].values))}" if "time" in array.coords else ""
    )


def pixels_of(
    grid: GeoBox, given: places.Places
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Rows and columns of labelled pixels, the label of each, and its group: the polygon or the place.

    And the number of polygons that have no pixel of their own, since others hold all of theirs.
    """
    if given.points is None:
        return _pixels_in(grid, given.polygons_on(grid))
    rows, cols, inside = places.pixels_at(grid, *given.xy(grid.crs))
    of = np.flatnonzero(inside)
    return rows[of], cols[of], of, rows[of] * grid.shape[1] + cols[of], 0


def _pixels_in(
    grid: GeoBox, shapes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Pixels with their centre in a polygon, or the one that holds a smaller polygon's inner point.

    Of a polygon with more than :data:`PIXELS_PER_POLYGON` those with the smallest hashes are taken. A pixel in
    two polygons has two groups, so it is left out.
    """
    found = []
    for number, shape in enumerate(shapes):
        window = None if shape is None else areas.window_of(grid, shape.bounds)
        if window is None:
            continue
        ys, xs = (_centres(grid, axis, window[axis]) for axis in (0, 1))
        inside = (
            polygons.covered_shares(shape, ys, xs, (abs(grid.affine.e), abs(grid.affine.a)), "centre") > 0
        )
        row, col = (index + cut.start for index, cut in zip(np.nonzero(inside), window, strict=True))
        if not row.size:
            point = shape.representative_point()
            row, col, on_grid = places.pixels_at(grid, np.array([point.x]), np.array([point.y]))
            row, col = row[on_grid], col[on_grid]
        if row.size > PIXELS_PER_POLYGON:
            first = np.argsort(
                labelling.pixel_hashes(_centres(grid, 0)[row], _centres(grid, 1)[col], grid, 0)
            )
            first = np.sort(first[:PIXELS_PER_POLYGON])
            row, col = row[first], col[first]
        found.append((row, col, np.full(row.size, number)))
    if not found:
        none = np.empty(0, np.int64)
        return none, none, none, none, 0
    rows, cols, of = (np.concatenate(parts) for parts in zip(*found, strict=True))
    _, inverse, times = np.unique(rows * grid.shape[1] + cols, return_inverse=True, return_counts=True)
    alone = times[inverse] == 1
    shared = len(np.unique(of)) - len(np.unique(of[alone]))
    return rows[alone], cols[alone], of[alone], of[alone], shared


def _centres(grid: GeoBox, axis: int, window: slice | None = None) -> np.ndarray:
    """Centres of rows (axis 0) or columns."""
    a = grid.affine
    origin, step = (a.f, a.e) if axis == 0 else (a.c, a.a)
    start, stop = (window.start, window.stop) if window else (0, grid.shape[axis])
    return geometry.pixel_centres(origin, step, start, stop)


def pixel_vectors(
    array: xr.DataArray, rows: np.ndarray, cols: np.ndarray, steps: np.ndarray | None
) -> np.ndarray:
    """Decoded vectors of pixels, read block by block."""
    where = {"y": rows, "x": cols, **({"time": steps} if steps is not None else {})}
    found = array.isel({dim: xr.DataArray(index, dims="location") for dim, index in where.items()})
    return _rows(found)


def _rows(points: xr.DataArray) -> np.ndarray:
    """Decoded vectors ``(location, band)``; an all-zero one of a product of unit vectors is missing."""
    x = np.array(computed(decode(points).transpose("location", BAND)).values, np.float32)
    if product(points.attrs["product"]).unit_norm:
        x[~x.any(axis=1)] = np.nan
    return x


def metres(grid: GeoBox, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """East and north of pixels, in metres or close to it."""
    x, y = grid.affine.c + cols * grid.affine.a, grid.affine.f + rows * grid.affine.e
    return _metres(x, y, geometry.as_crs(grid.crs))


def _metres(x: np.ndarray, y: np.ndarray, crs: pyproj.CRS | None) -> np.ndarray:
    """East and north ``(n, 2)``: numbers as they are, unless they are degrees."""
    if crs is not None and crs.is_geographic:
        return np.column_stack([x * np.cos(np.radians(y)), y]) * geometry.METRES_PER_DEGREE
    return np.column_stack([x, y])


# --- time -----------------------------------------------------------------------------------------------------


def _steps(array: xr.DataArray, table: Any, time: Any, target: str) -> tuple[np.ndarray | None, np.ndarray]:
    """Time step of each label (None if the array has no ``time``), and which labels have none.

    A column of dates is looked at even where the array has one time: labels of 1999 say nothing of 2018.
    """
    n = len(table)
    times = np.atleast_1d(array.coords["time"].values) if "time" in array.coords else None
    if times is None or times.ndim != 1:
        return None, np.zeros(n, bool)
    named = time if isinstance(time, str) and time in table.columns else None
    if named is None and time is None:
        own = (c for c in table.columns if str(c).lower() in _TIME_COLUMNS and c != target)
        named = next(own, None)
        if named is None and times.size > 1:
            raise EmbeddingError(
                f"the array has {times.size} times ({describe_times(times)}), but the labels have no date: "
                "take one year (.emb.year(2024)), say which with time=2024, or name a column with time='…'"
            )
    if named is not None:
        steps = period_index(times, table[named], f"labels' column {str(named)!r}")
    elif time is None:
        steps = np.zeros(n, np.int64)
    else:
        found = pick_times(times, time)
        if found.size != 1:
            raise EmbeddingError(
                f"time={time!r} means {found.size} of the array's times; labels have one each"
            )
        steps = np.full(n, found[0])
    return (steps if "time" in array.dims else None), steps < 0


def period_index(times: np.ndarray, dates: Any, what: str = "the labels' dates") -> np.ndarray:
    """Return the period that holds each date, and −1 where none does.

    A period ends where the next one starts, or after a year.

    Parameters
    ----------
    times : ndarray of datetime64 (time,)
        Starts of periods, ascending.
    dates : array of years, texts or dates (n,)
        Dates of labels, as :func:`geoemb_xr.core.times.parse_dates` takes them.
    what : str
        The name of the dates in a message.
    """
    when = parse_dates(dates, what).astype("datetime64[s]")
    starts = times.astype("datetime64[s]")
    order = np.argsort(starts)
    starts = starts[order]
    ends = (pd.DatetimeIndex(starts) + pd.DateOffset(years=1)).to_numpy("datetime64[s]")
    if starts.size > 1:  # months differ by a tenth
        step = int(np.diff(starts).min().astype(int) * 1.15)
        ends = np.minimum(ends, starts + np.timedelta64(step, "s"))
    last = np.searchsorted(starts, when, side="right") - 1
    at = np.maximum(last, 0)
    held = (last >= 0) & ~np.isnat(when) & (when < ends[at])
    return np.where(held, order[at], -1)


# --- labels on locations --------------------------------------------------------------------------------------


def _at_locations(
    array: xr.DataArray, labels: Any, target: str | None, time: Any, group: Any, weights: Any
) -> tuple[Samples, str]:
    """Labels of an array of points: a coordinate of it, or one value per location."""
    if "time" in array.dims:
        steps = pick_times(array.coords["time"].values, time)
        if steps.size != 1:
            raise EmbeddingError(
                f"the points have {steps.size} times ({describe_times(array.coords['time'].values)}): "
                "take one with .emb.year(…)"
            )
        array = array.isel(time=int(steps[0]))
    dropped: dict[str, int] = {}
    legend = None
    if labels is None:
        if target is None:
            raise EmbeddingError("target= must name the coordinate of labels, or give the labels")
        labels = _coordinate(array, target, "target")
    elif not matching.are_values(labels):
        table = labelling.read_labels(labels)
        if isinstance(table, xr.DataArray):
            raise EmbeddingError(
                "labels of points are one value each, a coordinate or a table; got a raster: sample it at the "
                "points and give the values, raster.emb.sample(array).values"
            )
        used = {v for v in (time, group, weights) if isinstance(v, str) and v in table.columns}
        target = guess_target(table, target, used)
        rows = matching.points_of(array, table)
        if len(rows) and (rows < 0).all():
            raise CoverageError(
                f"none of the {len(rows)} labels is of a point of the array: labels of points go by their index, "
                f"which begins {list(table.index[:3])}; location begins {array.indexes['location'][:3].tolist()}"
            )
        dropped["no point of their own"] = int((rows < 0).sum())
        table, array = table[rows >= 0], array.isel(location=rows[rows >= 0])
        labels, legend = column_of(table, target, "target"), labelling.legend_for(table, target)
        group, weights = (
            table[name].to_numpy() if isinstance(name, str) and name in table.columns else name
            for name in (group, weights)
        )
    values = as_labels(labels)
    other = _of_another_time(array, time, target)
    if values.shape != (array.sizes["location"],):
        raise EmbeddingError(f"labels need shape ({array.sizes['location']},); got {values.shape}")
    x = _rows(array)
    own = _coordinate(array, group, "group") if isinstance(group, str) else group
    weight = _coordinate(array, weights, "weights") if isinstance(weights, str) else weights
    if other.all():
        raise CoverageError(
            f"no label is of the array's time{_of_times(array)}; dropped: {len(other)} of other times"
        )
    weight = np.where(other, 0.0, _weights(weight, len(x)))
    dropped["other time"] = int(other.sum())
    dropped = {reason: n for reason, n in dropped.items() if n}
    at = _metres(array.coords["x"].values, array.coords["y"].values, geometry.crs_of(array))
    default = np.unique(at, axis=0, return_inverse=True)[1].reshape(-1)
    groups = groups_of(own, default)
    named = own is not None
    return _clean(x, values, weight, groups, at, dropped, legend, named), target or "label"


def _of_another_time(array: xr.DataArray, time: Any, target: str | None) -> np.ndarray:
    """Return which points have a date or year of their own that does not match the array's time."""
    along = {str(k).lower(): v for k, v in array.coords.items() if v.dims == ("location",)}
    name = next((c for c in _TIME_COLUMNS if c in along and along[c].name != target), None)
    if name is None or time is not None or "time" not in array.coords or array.coords["time"].ndim:
        return np.zeros(array.sizes["location"], bool)
    times = np.atleast_1d(array.coords["time"].values)
    return period_index(times, along[name].values, f"the points' coordinate {name!r}") < 0


def _coordinate(array: xr.DataArray, name: str, what: str) -> np.ndarray:
    if name not in array.coords or array.coords[name].dims != ("location",):
        known = [str(k) for k, v in array.coords.items() if v.dims == ("location",)]
        raise EmbeddingError(f"{what}={name!r} is not a coordinate along 'location'; it has {known}")
    return np.asarray(array.coords[name].values)
