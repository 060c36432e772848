"""Longitudes lie on a circle: past 180°, a turn away, or west of where they began, they are the same places.

An *arc* runs eastwards from ``west`` to ``east``, both included; where east < west it crosses the antimeridian, and
it may also run on past 180 (179 … 181). Everything that compares longitudes of two sources does so through this
module.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: Two arcs as they are written differ by so many turns at most: sources count −180 … 180 or 0 … 360.
_TURNS = (0.0, -360.0, 360.0, -720.0, 720.0)
#: Degrees beyond a pole that are rounding: centres and affines in single precision, or in four decimals, end there.
_POLE = 1e-3


def turned(lon: Any, middle: float = 0.0) -> Any:
    """Longitudes written within half a turn of a middle; those that are already are left as they are.

    Parameters
    ----------
    lon : float or ndarray
        Degrees.
    middle : float
        The result lies in ``middle - 180 <= lon < middle + 180``.

    Examples
    --------
    >>> float(turned(180.5)), float(turned(-179.5, 180.0)), float(turned(12.25))
    (-179.5, 180.5, 12.25)
    """
    lon = np.asarray(lon, np.float64)
    with np.errstate(invalid="ignore"):  # what is not finite has no place, and stays so
        return lon - 360.0 * np.floor((lon - middle + 180.0) / 360.0)


def beyond_poles(lat: Any) -> float | None:
    """The latitude that is farthest beyond a pole; None where all are on the Earth, up to rounding.

    Examples
    --------
    >>> beyond_poles([47.2, -91.0, 190.0]), beyond_poles([90 + 3e-12, np.nan])
    (190.0, None)
    """
    lat = np.ravel(np.asarray(lat, np.float64))
    beyond = lat[np.abs(lat) > 90.0 + _POLE]
    return float(beyond[np.abs(beyond).argmax()]) if beyond.size else None


def width(west: Any, east: Any) -> Any:
    """Degrees from west eastwards to east, 360 at most.

    Examples
    --------
    >>> float(width(179.5, -179.0)), float(width(179.5, 181.0)), float(width(-180.0, 180.0))
    (1.5, 1.5, 360.0)
    """
    west, east = np.asarray(west, np.float64), np.asarray(east, np.float64)
    return np.where(east < west, (east - west) % 360.0, np.minimum(east - west, 360.0))


def touch(west: Any, east: Any, other_west: Any, other_east: Any, *, ends: bool = True) -> Any:
    """Whether two arcs share a longitude.

    Parameters
    ----------
    west, east, other_west, other_east : float or ndarray
        Degrees from −360 to 540, shapes that broadcast.
    ends : bool
        Whether arcs that only meet at an end do.

    Returns
    -------
    ndarray of bool

    Examples
    --------
    >>> bool(touch(179.99, 180.01, -180.0, -179.9)), bool(touch(170.0, 175.0, 179.0, -179.0))
    (True, False)
    """
    west, east, other_west, other_east = (
        np.asarray(each, np.float64) for each in (west, east, other_west, other_east)
    )
    east = np.where(east < west, east + 360.0, east)
    other_east = np.where(other_east < other_west, other_east + 360.0, other_east)
    if ends:
        hits = [(west + turn <= other_east) & (east + turn >= other_west) for turn in _TURNS]
    else:
        hits = [(west + turn < other_east) & (east + turn > other_west) for turn in _TURNS]
    return np.logical_or.reduce(hits)


def within(west: Any, east: Any, other_west: Any, other_east: Any) -> Any:
    """Whether the first arc lies wholly in the other; ends may meet.

    Examples
    --------
    >>> bool(within(180.1, 180.2, -180.0, -179.0)), bool(within(179.0, -179.0, 179.5, -178.0))
    (True, False)
    """
    west, east, other_west, other_east = (
        np.asarray(each, np.float64) for each in (west, east, other_west, other_east)
    )
    east = np.where(east < west, east + 360.0, east)
    other_east = np.where(other_east < other_west, other_east + 360.0, other_east)
    hits = [(west + turn >= other_west) & (east + turn <= other_east) for turn in _TURNS]
    return np.logical_or.reduce(hits) | (other_east - other_west >= 360.0)


def around(west: Any, east: Any = None) -> tuple[float, float]:
    """The shortest arc that holds some longitudes or arcs: west and east, each within −180 … 180.

    Parameters
    ----------
    west : ndarray
        Degrees, at least one, finite.
    east : ndarray, optional
        Where arcs end; without it they are longitudes alone.

    Examples
    --------
    >>> around([179.0, -178.5, 179.5])
    (179.0, -178.5)
    >>> around([11.0, 12.0])
    (11.0, 12.0)
    >>> around([179.0, -180.0], [180.0, -178.0])
    (179.0, -178.0)
    """
    west = np.asarray(west, np.float64).ravel()
    east = west if east is None else np.asarray(east, np.float64).ravel()
    low, high = float(west.min()), float(east.max())
    if (west <= east).all() and high - low <= 180.0 and low >= -180.0 and high <= 180.0:
        return low, high
    starts = turned(west)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], (starts + width(west, east))[order]
    # twice around, so that arcs that began a turn ago are seen where they end
    starts, reach = np.append(starts, starts + 360.0), np.maximum.accumulate(np.append(ends, ends + 360.0))
    gaps = (starts[1:] - reach[:-1])[order.size - 1 :]
    widest = int(np.argmax(gaps)) + order.size - 1
    if gaps[widest - order.size + 1] <= 0:
        return -180.0, 180.0
    last = float(turned(reach[widest]))
    return float(turned(starts[widest + 1])), 180.0 if last == -180.0 else last


def in_one_piece(shapes: Any) -> Any:
    """Geometries in degrees that cross the antimeridian, written in one piece: 179 … 181, not 179 … −179.

    A ring from 179 to −179 runs on past 180, and parts on both sides of ±180 are written side by side. What goes
    all around the world, and what is narrower than half a turn as written, is left as it is.

    Parameters
    ----------
    shapes : shapely geometry or ndarray of those

    Examples
    --------
    >>> import shapely
    >>> in_one_piece(
    ...     shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)])
    ... ).bounds
    (179.0, 0.0, 181.0, 1.0)
    """
    import shapely

    given = np.asarray(shapes, dtype=object)
    each = given.ravel().copy()
    boxes = shapely.bounds(each).reshape(-1, 4)
    with np.errstate(invalid="ignore"):  # of an empty geometry
        wide = np.flatnonzero(boxes[:, 2] - boxes[:, 0] > 180.0)
    for i in wide:
        each[i] = _side_by_side(each[i])
    return each.reshape(given.shape) if given.ndim else each[0]


def _side_by_side(shape: Any) -> Any:
    """The parts of a wide geometry within the shortest arc that holds them, where that is narrower."""
    import shapely
    from shapely import affinity

    parts = [_run_on(part) for part in shapely.get_parts(shape) if not part.is_empty]
    if not hasattr(shape, "geoms"):
        return parts[0]
    boxes = shapely.bounds(parts)
    west, _ = around(boxes[:, 0], boxes[:, 2])
    by = turned(boxes[:, 0], west + 180.0 - 1e-9) - boxes[:, 0]
    whole = type(shape)([affinity.translate(part, shift) for part, shift in zip(parts, by, strict=True)])
    return whole if _span(whole) < _span(shape) else shape


def _run_on(part: Any) -> Any:
    """One ring or line from 179 to −179, written 179 … 181."""
    import shapely

    if _span(part) <= 180.0:
        return part
    on = shapely.transform(part, lambda xy: np.where([True, False] & (xy < 0), xy + 360.0, xy))
    # what a turn makes a line has met itself: it goes all around
    return on if 0 < _span(on) < _span(part) else part


def _span(shape: Any) -> float:
    west, _, east, _ = shape.bounds
    return float(east - west)
