"""Tiles of one lattice behind NumPy's slicing: each window from the tiles that hold it, absent blocks counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from geoemb_xr.core import buffers
from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.notes import say
from geoemb_xr.execution.threads import side_by_side
from geoemb_xr.stores.absence import absent_note, noticing, share_of
from geoemb_xr.stores.objects import is_remote, object_size
from geoemb_xr.stores.storage import current, using

if TYPE_CHECKING:
    from geoemb_xr.readers.tiles import Tile

#: How many objects of a local store are looked for when it is opened.
_MOST_OBJECTS = 4096
#: Pixels closer together than this many in a square of that side are read by one window.
_SPARSE, _SQUARE = 1024, 512
#: Number of tiles whose headers or sizes are read for a plan.
_MOST_TILES = 4
#: Further than any two pixels are apart, squared, and small enough that quarters are kept beside it.
_FAR = 2.0**50


@runtime_checkable
class Objects(Protocol):
    """A reader of a store that does not say which of its objects were written."""

    def objects(self, time: int, rows: slice, cols: slice) -> Iterator[str]:
        """Paths of the objects that a window is stored in."""
        ...


@runtime_checkable
class PointReader(Protocol):
    """A reader that takes single pixels without the windows around them."""

    def read_at(self, time: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Pixels ``(band, n)``, or ``(n,)`` of a plane; those that were never written as missing."""
        ...


@runtime_checkable
class Transfers(Protocol):
    """A reader that tells what windows (step, rows, columns) cost, all of them together."""

    def transfer(self, spans: Sequence[tuple[int, slice, slice]]) -> tuple[int, int]:
        """Requests and bytes."""
        ...


@runtime_checkable
class Keeps(Protocol):
    """A reader that keeps what it read."""

    def kept(self, transferred: int, read: int) -> int:
        """Bytes that stay after so many came and were read."""
        ...


class TileArray:
    """Tiles of one lattice behind NumPy's slicing, for :func:`dask.array.from_array`.

    Where tiles overlap, a pixel comes from the tile whose centre is nearest of those that have data there, so that
    seams fall midway and do not depend on the window read.

    Parameters
    ----------
    tiles : sequence of Tile
        Tiles of one lattice.
    places : ndarray of int (tile, 4)
        First row, first column, stop row and stop column of each on the common grid.
    window : (slice, slice)
        Rows and columns of the common grid that this array shows.
    times : sequence of str
        ISO dates along the first axis.
    """

    def __init__(
        self, tiles: Sequence[Tile], places: np.ndarray, window: tuple[slice, slice], times: Sequence[str]
    ) -> None:
        self.tiles = tuple(tiles)
        rows, cols = window
        self.places = places - np.array([rows.start, cols.start] * 2)
        self.times = tuple(times)
        first = tiles[0]
        self.storage = current()
        self.absence = ""  # which share of blocks was found absent, once that is known and said
        self.dtype = np.dtype(first.dtype)
        self.fill = first.fill
        pixels = (rows.stop - rows.start, cols.stop - cols.start)
        self.bands = len(first.bands)
        self.shape = (len(times), *((self.bands,) if self.bands else ()), *pixels)
        self.ndim = len(self.shape)
        # which tiles hold a time, and at which of their own steps
        self._at = [
            [(i, t.times.index(time)) for i, t in enumerate(tiles) if time in t.times] for time in times
        ]

    def __getitem__(self, key: Any) -> np.ndarray:
        slices = [range(*k.indices(n)) for k, n in zip(_full_key(key, self.ndim), self.shape, strict=True)]
        steps, *band, rows, cols = slices
        planes = [self._read(t, _as_slice(rows), _as_slice(cols)) for t in steps]
        out = planes[0][None] if len(planes) == 1 else np.stack(planes)
        if band and len(band[0]) != self.bands:
            out = out[:, _as_slice(band[0])]
        return out

    def _read(self, time: int, rows: slice, cols: slice) -> np.ndarray:
        """One time of a window, all bands."""
        hits = self._hits(time, rows, cols)
        if len(hits) == 1 and hits[0][2] == rows and hits[0][3] == cols:
            return self._read_tile(*hits[0])
        lead = (self.bands,) if self.bands else ()
        size = (rows.stop - rows.start, cols.stop - cols.start)
        out = buffers.empty((*lead, *size), self.dtype)
        out[...] = self.fill
        best = np.full(size, np.inf) if _any_overlap(hits) else None
        for i, step, r, c in hits:
            values = self._read_tile(i, step, r, c)
            at = (
                slice(r.start - rows.start, r.stop - rows.start),
                slice(c.start - cols.start, c.stop - cols.start),
            )
            if best is None:
                out[..., at[0], at[1]] = values
                continue
            # further than any tile is what no tile has: a missing pixel lets the others through
            rank = self._distance(i, r, c) + np.where(self._missing(i, step, r, c, values), _FAR, 0.0)
            wins = rank < best[at]
            best[at] = np.where(wins, rank, best[at])
            out[..., at[0], at[1]] = np.where(wins, values, out[..., at[0], at[1]])
        return out

    def at(self, time: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """One time at single pixels, ``(band, n)`` or ``(n,)``: the values that windows around them would give.

        A tile that can read single pixels does so where it alone holds them. What it lacks is read again with a
        window, which knows whether a pixel is missing, absent or lost, and so are pixels that lie close together.
        """
        out = np.full((*self.shape[1:-2], rows.size), self.fill, self.dtype)
        by_window = np.zeros(rows.size, bool)
        for members in _in_squares(rows, cols, np.arange(rows.size), _SQUARE):
            by_window[members] = members.size > _SPARSE
        held = np.array([self._holds(i, rows, cols) for i, _ in self._at[time]]).reshape(-1, rows.size)
        by_window |= held.sum(axis=0) > 1
        for (i, step), own in zip(self._at[time], held, strict=True):
            alone = np.flatnonzero(own & ~by_window)
            if not isinstance(self.tiles[i].reader, PointReader):
                by_window[alone] = True
            elif alone.size:
                values = self._read_pixels(i, step, rows[alone], cols[alone])
                out[..., alone] = values
                by_window[alone] = self.tiles[i].missing(values[..., None])[:, 0]
        for members in _in_squares(rows, cols, np.flatnonzero(by_window), _SQUARE):
            r, c = rows[members], cols[members]
            window = self._read(time, slice(r.min(), r.max() + 1), slice(c.min(), c.max() + 1))
            out[..., members] = window[..., r - r.min(), c - c.min()]
        return out

    def _holds(self, i: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Return which pixels lie in a tile."""
        top, left, bottom, right = self.places[i]
        return np.asarray((rows >= top) & (rows < bottom) & (cols >= left) & (cols < right))

    def _read_pixels(self, i: int, step: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Single pixels of a tile that can read them."""
        tile = self.tiles[i]
        top, left, bottom, right = self.places[i]
        own_rows = bottom - 1 - rows if tile.geobox.affine.e > 0 else rows - top
        own_cols = right - 1 - cols if tile.geobox.affine.a < 0 else cols - left
        with using(self.storage), _named_as_unread(tile, f"{rows.size} pixels"):
            values = tile.reader.read_at(step, own_rows, own_cols)  # type: ignore[attr-defined]  # at() asked
        return np.asarray(values, tile.dtype)

    def _hits(self, time: int, rows: slice, cols: slice) -> list[tuple[int, int, slice, slice]]:
        """Return the tiles that hold a part of a window: number, step, rows and columns."""
        hits = []
        for i, step in self._at[time]:
            top, left, bottom, right = self.places[i]
            r0, r1 = max(rows.start, top), min(rows.stop, bottom)
            c0, c1 = max(cols.start, left), min(cols.stop, right)
            if r0 < r1 and c0 < c1:
                hits.append((i, step, slice(int(r0), int(r1)), slice(int(c0), int(c1))))
        return hits

    # --- what is stored, and may be absent --------------------------------------------------------------------

    def objects(self, window: tuple[slice, ...]) -> Iterator[str]:
        """Paths of the objects that a window is stored in, where the store does not say which were written."""
        times, rows, cols = window[0], window[-2], window[-1]
        for time in range(times.start, times.stop):
            for i, step, r, c in self._hits(time, rows, cols):
                reader = self.tiles[i].reader
                if isinstance(reader, Objects):
                    with using(self.storage):
                        found = reader.objects(step, *self._stored(i, r, c)[:2])
                    yield from found

    def transfer(self, windows: Sequence[tuple[slice, ...]]) -> tuple[int, int]:
        """Requests and bytes with which some windows are read; of many tiles some are looked at."""
        spans: dict[int, list[tuple[int, slice, slice]]] = {}
        for window in windows:
            for time in range(window[0].start, window[0].stop):
                for i, step, r, c in self._hits(time, window[-2], window[-1]):
                    spans.setdefault(i, []).append((step, *self._stored(i, r, c)[:2]))
        looked_at = list(spans)[:: -(-len(spans) // _MOST_TILES)] if spans else []
        with using(self.storage):
            found = [self._transfer_of(i, spans[i]) for i in looked_at]
        pixels = sum(_area(spans[i]) for i in spans) / max(sum(_area(spans[i]) for i in looked_at), 1)
        return round(sum(n for n, _ in found) * pixels), round(sum(size for _, size in found) * pixels)

    def kept(self, transferred: int, read: int) -> int:
        """Bytes of blocks that readers keep after so many came and were read."""
        reader = self.tiles[0].reader
        return reader.kept(transferred, read) if isinstance(reader, Keeps) else 0

    def _transfer_of(self, i: int, spans: Sequence[tuple[int, slice, slice]]) -> tuple[int, int]:
        tile = self.tiles[i]
        if isinstance(tile.reader, Transfers):
            return tile.reader.transfer(spans)
        itemsize = np.dtype(tile.dtype).itemsize * max(len(tile.bands), 1)
        return len(spans), _area(spans) * itemsize

    def absent(self, names: Sequence[str]) -> list[str]:
        """Ask the store which of some objects do not exist."""
        with using(self.storage):
            sizes = side_by_side(object_size, names)
        return [name for name, size in zip(names, sizes, strict=True) if size is None]

    def look_for_objects(self) -> None:
        """Say which stored blocks of this array are absent, where looking costs next to nothing: on a disk."""
        if any(is_remote(tile.name) for tile in self.tiles):
            return
        whole = tuple(slice(0, n) for n in self.shape)
        names = list(dict.fromkeys(islice(self.objects(whole), _MOST_OBJECTS + 1)))
        if len(names) <= _MOST_OBJECTS and (absent := self.absent(names)):
            self._say_absent(absent, len(names), self.tiles[0].name)

    def _say_absent(self, names: Sequence[str], total: int, what: str) -> None:
        self.absence = share_of(names, total)
        say(absent_note(names, total, what))

    def _missing(self, i: int, step: int, rows: slice, cols: slice, values: np.ndarray) -> np.ndarray:
        """Where a tile has no data, by its own values or by those of the tile that decides."""
        decider = self.tiles[i].decider
        if decider is None:
            return self.tiles[i].missing(values)
        return decider.missing(self._read_tile(i, step, rows, cols, decider))

    def _distance(self, i: int, rows: slice, cols: slice) -> np.ndarray:
        """Squared distance of pixels to a tile's centre, in pixels."""
        top, left, bottom, right = self.places[i]
        dy = np.arange(rows.start, rows.stop) + 0.5 - (top + bottom) / 2
        dx = np.arange(cols.start, cols.stop) + 0.5 - (left + right) / 2
        return np.asarray(dy[:, None] ** 2 + dx**2)

    def _read_tile(
        self, i: int, step: int, rows: slice, cols: slice, other: Tile | None = None
    ) -> np.ndarray:
        """A window of a tile, or of another one in its place, turned north-up, contiguous."""
        tile = other or self.tiles[i]
        own_rows, own_cols, flip_rows, flip_cols = self._stored(i, rows, cols)
        what = f"rows {own_rows.start}-{own_rows.stop}, columns {own_cols.start}-{own_cols.stop}"
        with using(self.storage), _named_as_unread(tile, what), noticing() as absent:
            values = tile.reader.read(step, own_rows, own_cols)
            if absent and not self.absence and isinstance(tile.reader, Objects):
                total = sum(1 for _ in tile.reader.objects(step, own_rows, own_cols))
                self._say_absent(absent, total, f"a window of {tile.name}")
        lead = (len(tile.bands),) if tile.bands else ()
        expected = (*lead, rows.stop - rows.start, cols.stop - cols.start)
        if values.shape != expected:
            raise SourceError(f"{tile.name} gave a window of shape {values.shape} instead of {expected}")
        values = values[..., :: -1 if flip_rows else 1, :: -1 if flip_cols else 1]
        values = np.ascontiguousarray(values.astype(tile.dtype, copy=False))
        return values if values.flags.writeable else values.copy()  # others read what a cache keeps

    def _stored(self, i: int, rows: slice, cols: slice) -> tuple[slice, slice, bool, bool]:
        """A window of the common grid as a tile stores it: rows, columns, and which of them are turned."""
        top, left, bottom, right = (int(v) for v in self.places[i])
        affine = self.tiles[i].geobox.affine
        own_rows, flip_rows = _stored(rows, top, bottom, affine.e > 0)
        own_cols, flip_cols = _stored(cols, left, right, affine.a < 0)
        return own_rows, own_cols, flip_rows, flip_cols


@contextmanager
def _named_as_unread(tile: Tile, what: str) -> Iterator[None]:
    """Name the tile in what a read raises: unread pixels never become nodata, since absent is not unread."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0][:300]  # some add where in their own code
        raise SourceError(f"{tile.name} could not be read ({what}): {reason}") from error


def _in_squares(rows: np.ndarray, cols: np.ndarray, members: np.ndarray, side: int) -> list[np.ndarray]:
    """Pixels by the square of the common grid that they lie in."""
    if not members.size:
        return []
    square = rows[members] // side * (1 << 32) + cols[members] // side
    order = np.argsort(square, kind="stable")
    return np.split(members[order], np.flatnonzero(np.diff(square[order])) + 1)


def _area(spans: Sequence[tuple[int, slice, slice]]) -> int:
    return sum((r.stop - r.start) * (c.stop - c.start) for _, r, c in spans)


def _full_key(key: Any, ndim: int) -> list[slice]:
    given = list(key) if isinstance(key, tuple) else [key]
    return given + [slice(None)] * (ndim - len(given))


def _as_slice(steps: range) -> slice:
    return slice(steps.start, steps.stop, None if steps.step == 1 else steps.step)


def _stored(window: slice, start: int, stop: int, flipped: bool) -> tuple[slice, bool]:
    """A window of the common grid in a tile's own stored order."""
    if flipped:
        return slice(stop - window.stop, stop - window.start), True
    return slice(window.start - start, window.stop - start), False


def _any_overlap(hits: Sequence[tuple[int, int, slice, slice]]) -> bool:
    for i, (_, _, r, c) in enumerate(hits):
        for _, _, q, d in hits[i + 1 :]:
            if max(r.start, q.start) < min(r.stop, q.stop) and max(c.start, d.start) < min(c.stop, d.stop):
                return True
    return False
