"""The work of one task: assemble a window of the images, check its values, encode its chips."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import require
from geoemb_xr.embedding import batches, inputs
from geoemb_xr.embedding.cards import Encoder, Output, Pooling
from geoemb_xr.embedding.chips import Chip
from geoemb_xr.execution import devices, lanes
from geoemb_xr.execution.lanes import Lane
from geoemb_xr.geo.lattice import Grid

Window = tuple[int, int]
#: Number of values of a block, about, that are looked at to tell their unit.
_LOOKED_AT = 4096


@dataclass(frozen=True)
class Cutout:
    """Which part of a block of the images becomes which part of a window.

    Parameters
    ----------
    into, of : tuple of slice
        Slices of the window, and of the block.
    """

    into: tuple[slice, ...]
    of: tuple[slice, ...]


@dataclass(frozen=True)
class Place:
    """Where a block of the result lies.

    Parameters
    ----------
    rows, cols : tuple of Chip
        Its chips along y and x.
    window : ((int, int), (int, int))
        Rows and columns of the images that are read for it.
    days : float
        Days of the images since 1970, NaN where no date is known.
    beside : (tuple of Chip, tuple of Chip), optional
        All chips along y and x that see something of the block, where they are blended.
    """

    rows: tuple[Chip, ...]
    cols: tuple[Chip, ...]
    window: tuple[Window, Window]
    days: float = math.nan
    beside: tuple[tuple[Chip, ...], tuple[Chip, ...]] | None = None

    @property
    def looked_at(self) -> tuple[tuple[Chip, ...], tuple[Chip, ...]]:
        """Chips along y and x that are encoded."""
        return self.beside or (self.rows, self.cols)


@dataclass(frozen=True)
class Job:
    """All that the tasks of one call have in common.

    Parameters
    ----------
    encoder : Encoder
        Encoder with its bands.
    output, pooling : str
        The kind of result that is made of the network's output.
    side : int
        Side of a chip; 1 for encoders of pixels.
    missing : float
        Share of missing pixels above which there is no vector.
    present : tuple of int
        Those of the encoder's bands that the images have.
    nodata : float or None
        The value that is missing besides NaN.
    scale, offset : float
        Factors from the images' numbers to the encoder's unit.
    months : tuple of int
        Months of a series, January being 0.
    grid : Grid, optional
        Grid of the images; a stack of chips has none.
    device, precision : str
        The choice of the user.
    batch_size : int or "auto"
        Chips at a time.
    quality : bool
        Whether the valid share comes as one more band.
    """

    encoder: Encoder
    output: Output
    pooling: Pooling
    side: int
    missing: float
    present: tuple[int, ...]
    nodata: float | None
    scale: float
    offset: float
    months: tuple[int, ...]
    grid: Grid | None
    device: str
    precision: str
    batch_size: int | str
    quality: bool

    @property
    def length(self) -> int:
        """Bands of a block."""
        return self.encoder.dims + self.quality


def encode_block(job: Job, place: Place, pieces: Sequence[Cutout], *blocks: np.ndarray) -> np.ndarray:
    """Vectors of a block ``(time?, band, y, x)``, float32; band last in memory, as kernels take it."""
    device = devices.place_for(job.device, True)
    with lanes.borrowed(device) as lane:
        raw = _window(lane, pieces, blocks)
        _check(job, raw)
        window = _in_units(job, lane, raw)
        if job.encoder.kind == "series":
            found = _series(job, lane, place, window)
        else:
            flat = window if job.months else window.reshape(window.shape[-3:])
            found = _pictures(job, lane, place, flat, _valid_pixels(job, flat, raw))
    out = np.moveaxis(found, -1, 0)
    return out[None] if raw.ndim == 4 else out


def encode_stack(block: np.ndarray, job: Job, *told: np.ndarray, names: tuple[str, ...] = ()) -> np.ndarray:
    """Vectors ``(location, band)`` of a block of chips ``(location, time?, band, y, x)`` or series of pixels.

    Parameters
    ----------
    block : ndarray
        Block of the images.
    job : Job
        The facts that all blocks have in common.
    *told : ndarray (location, …)
        What the encoder is told besides.
    names : tuple of str
        Names of the arguments.
    """
    device = devices.place_for(job.device, True)
    with lanes.borrowed(device) as lane:
        _check(job, block)
        chips = _in_units(job, lane, block)
        seen = _valid_pixels(job, chips, raw=block)
        share = np.ones(len(block), np.float32)
        if seen is not None:
            share = _to_host(lane, "share", seen.flatten(1).float().mean(1)).copy()
        out = np.full((len(block), job.length), np.nan, np.float32)
        wanted = np.flatnonzero((share > 0) & (1 - share <= job.missing))
        if wanted.size:
            at = lane.over("wanted", wanted)
            extra = {name: each[wanted] for name, each in zip(names, told, strict=True)}
            made = _encoded(job, lane, wanted.size, lambda some: chips[at[some]], extra)
            out[wanted, : job.encoder.dims] = _to_host(lane, "vectors", made)
    if job.quality:
        out[:, -1] = share
    return out


# --- what goes over to the device ---------------------------------------------------------------------------------


def _window(lane: Lane, pieces: Sequence[Cutout], blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Copy a window of the images ``(time?, band, y, x)``, in their own type, to where a GPU can read it."""
    shape = tuple(max(p.into[k].stop for p in pieces) for k in range(blocks[0].ndim))
    if len(pieces) == 1 and not lane.is_cuda:
        return np.asarray(blocks[0][pieces[0].of])
    out = lane.room("window", shape, _type_to_send(blocks[0].dtype))
    for piece, block in zip(pieces, blocks, strict=True):
        out[piece.into] = block[piece.of]
    return out


def _type_to_send(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which numbers are sent: their own, which is small, unless torch lacks it."""
    known = "biuf" if dtype.itemsize <= 2 else "if"
    return dtype.newbyteorder("=") if dtype.kind in known else np.dtype(np.float64)


def _in_units(job: Job, lane: Lane, raw: np.ndarray) -> Any:
    """Images in the encoder's unit, float32, NaN where missing: a new tensor on the device."""
    torch = require("torch", "encoders")
    there = lane.over("window", raw.astype(_type_to_send(raw.dtype), copy=False))
    is_wide = raw.dtype.itemsize > 2 and raw.dtype != np.float32  # float32 would round the numbers themselves
    given = there.to(torch.float64 if is_wide else torch.float32)
    out = (given * float(np.float32(job.scale))).float()
    if job.offset:
        out += float(np.float32(job.offset))
    if job.nodata is not None:
        out[given == job.nodata] = torch.nan
    if raw.dtype.kind == "f":
        out[torch.isinf(out)] = torch.nan
    return out


def _check(job: Job, raw: np.ndarray) -> None:
    """Look at some values of each band: wrong units raise."""
    units = job.encoder.units
    for k, index in enumerate(job.present):
        unit = units if isinstance(units, str) else units[index]
        if unit in ("any", "index", "m", "degrees"):
            continue
        band = raw[..., k, :, :] if job.grid is not None or raw.ndim > 3 else raw[..., k]
        step = max(1, math.isqrt(band.size // _LOOKED_AT))
        values = band[..., ::step, ::step].astype(np.float64).ravel()
        if job.nodata is not None:
            values = values[values != job.nodata]
        values = values[np.isfinite(values)] * job.scale + job.offset
        name = job.encoder.bands[index] if job.encoder.bands else str(index)
        inputs.check_range(values, name, unit)


def _to_host(lane: Lane, name: str, found: Any) -> np.ndarray:
    """Copy a result from the device to host memory, valid until the next of the same name."""
    held = lane.back(name, found)
    lane.wait()
    out: np.ndarray = held.numpy()
    return out


# --- pictures -----------------------------------------------------------------------------------------------------


def _pictures(job: Job, lane: Lane, place: Place, window: Any, seen: Any) -> np.ndarray:
    """Vectors of chips, ``(y, x, band)``."""
    sides = tuple(group[-1].stop - group[0].first for group in (place.rows, place.cols))
    out = np.full((*sides, job.length), np.nan, np.float32)
    spots = [(row, col) for row in place.looked_at[0] for col in place.looked_at[1]]
    own, shares = _shares(job, lane, place, seen)
    whole = bool((own == 1).all())
    if job.quality:
        out[..., -1] = shares
    spots = [spot for spot, share in zip(spots, own, strict=True) if share > 0 and 1 - share <= job.missing]
    if not spots:
        return out
    (top, _), (left, _) = place.window
    starts = np.array([(row.start - top, col.start - left) for row, col in spots])
    padded, starts = _padded(window, starts, job.side)
    extra: dict[str, np.ndarray] = {}
    if job.months:
        months = np.broadcast_to(np.asarray(job.months, np.int64), (len(spots), len(job.months)))
        extra = {"months": months, "lonlat": _centres(job, spots)}
    elif job.encoder.takes:
        extra = {"lonlat": _centres(job, spots), "days": np.full(len(spots), place.days)}
    made = _encoded(
        job, lane, len(spots), lambda some: _cut(padded, starts[some], job.side), extra, whole=whole
    )
    vectors = _to_host(lane, "vectors", made)
    if job.output == "chips":
        first, left = place.rows[0].first, place.cols[0].first
        at = np.array([(row.first - first, col.first - left) for row, col in spots])
        out[at[:, 0], at[:, 1], : job.encoder.dims] = vectors
        return out
    if place.beside is not None:
        out[..., : job.encoder.dims] = _blended(place, spots, vectors)
        out[shares == 0, : job.encoder.dims] = np.nan
        return out
    for (row, col), each in zip(spots, vectors, strict=True):
        out[_spot(place, row, col)][..., : job.encoder.dims] = np.moveaxis(
            each[:, _owned_outputs(row), _owned_outputs(col)], 0, -1
        )
    out[shares == 0, : job.encoder.dims] = np.nan  # a token that saw no pixel of its own is missing
    return out


def _padded(window: Any, starts: np.ndarray, side: int) -> tuple[Any, np.ndarray]:
    """Pad the window with missing values where chips reach beyond it, and return where the chips begin."""
    torch = require("torch", "encoders")
    before = np.maximum(-starts.min(axis=0), 0)
    after = np.maximum(starts.max(axis=0) + side - np.array(window.shape[-2:]), 0)
    if before.any() or after.any():
        edges = (before[1], after[1], before[0], after[0])
        window = torch.nn.functional.pad(window, [int(e) for e in edges], value=torch.nan)
    return window, starts + before


def _cut(window: Any, starts: np.ndarray, side: int) -> Any:
    """Cut chips ``(n, …, y, x)`` out of a window, as a new tensor."""
    torch = require("torch", "encoders")
    if not window.is_cuda:
        return torch.stack([window[..., y : y + side, x : x + side] for y, x in starts.tolist()])
    return _cut_by_gather(window, starts, side)


def _cut_by_gather(window: Any, starts: np.ndarray, side: int) -> Any:
    """The same by one gather, since a GPU takes longer to start a kernel per chip than to copy the chip."""
    torch = require("torch", "encoders")
    along = torch.arange(side, device=window.device)
    rows, cols = (torch.from_numpy(starts[:, k, None]).to(window.device) + along for k in (0, 1))
    return window[..., rows[:, :, None], cols[:, None, :]].movedim(-3, 0)


def _valid_pixels(job: Job, window: Any, raw: np.ndarray) -> Any:
    """Pixels that have all bands, or over time any data; None where nothing can be missing."""
    if raw.dtype.kind != "f" and job.nodata is None:
        return None
    seen = window.isfinite()
    if job.encoder.kind == "series":
        return seen
    axis = window.ndim - 3
    return seen.all(axis) if job.encoder.kind == "image" else seen.any(axis).any(axis - 1)


def _shares(job: Job, lane: Lane, place: Place, seen: Any) -> tuple[np.ndarray, np.ndarray]:
    """The valid share of each chip, and of the area of each pixel of the result ``(y, x)``."""
    sizes = [stop - start for start, stop in place.window]
    counts = None if seen is None or bool(seen.all()) else _running(seen)
    (top, _), (left, _) = place.window
    spans = [
        np.array([(chip.start, chip.start + job.side) for chip in group]) - first
        for group, first in zip(place.looked_at, (top, left), strict=True)
    ]
    own = _counted(lane, "of chips", counts, spans, sizes) / job.side**2
    if job.output == "chips":
        return own.ravel(), own.astype(np.float32)
    patch = job.encoder.patch
    spans = []
    for group, first in ((place.rows, top), (place.cols, left)):
        begin = group[0].start - first + group[0].skip * patch
        edges = begin + patch * np.arange(group[-1].stop - group[0].first + 1)
        spans.append(np.stack([edges[:-1], edges[1:]], axis=1))
    return own.ravel(), (_counted(lane, "of tokens", counts, spans, sizes) / patch**2).astype(np.float32)


def _running(seen: Any) -> Any:
    """Cumulative sums of a mask along both axes, from 0: the count in any box is a sum of four of them."""
    torch = require("torch", "encoders")
    return (
        torch.nn.functional.pad(seen.int(), (1, 0, 1, 0))
        .cumsum(0, dtype=torch.int32)
        .cumsum(1, dtype=torch.int32)
    )


def _counted(
    lane: Lane, name: str, counts: Any, spans: Sequence[np.ndarray], sizes: Sequence[int]
) -> np.ndarray:
    """How many pixels of a mask lie in each of the boxes that spans of rows and of columns make.

    The mask comes as its running sums; without them all are there, and only the window's ``sizes`` count.
    """
    (low, high), (left, right) = (span.clip(0, size).T for span, size in zip(spans, sizes, strict=True))
    if counts is None:
        return np.asarray(np.multiply.outer(high - low, right - left))
    at = [lane.over(f"{name} {k}", each) for k, each in enumerate((low, high, left, right))]
    some = counts[at[1]] - counts[at[0]]
    return _to_host(lane, name, some[:, at[3]] - some[:, at[2]])


def _encoded(
    job: Job,
    lane: Lane,
    count: int,
    take: Callable[[Any], Any],
    extra: dict[str, np.ndarray] | None = None,
    *,
    whole: bool = False,
) -> Any:
    """Run the network on chips or series in the encoder's unit, on the device.

    Parameters
    ----------
    job : Job
        Job of the call.
    lane : Lane
        Lane to the device.
    count : int
        Number of chips.
    take : callable
        From a slice of them to a tensor ``(n, …)`` that may be changed.
    extra : mapping of str to ndarray (n, …), optional
        For encoders of time, their months and places.
    whole : bool
        Whether nothing of any chip is missing.
    """
    told = {name: lane.over(name, np.ascontiguousarray(values)) for name, values in (extra or {}).items()}

    def batch(some: slice) -> tuple[Any, dict[str, Any]]:
        chips = take(some)
        if job.encoder.kind == "image":
            return batches.normalised(chips, job.encoder, whole=whole), {
                k: told[k][some] for k in job.encoder.takes
            }
        given, absent = batches.masked(chips, job.encoder, job.present)
        return given, {"absent": absent, **{name: each[some] for name, each in told.items()}}

    card, device = job.encoder, lane.device
    each = take(slice(0, 1)).shape[1:]
    return batches.run(
        batches.network(card, device, job.precision),
        count,
        batch,
        card,
        job.output,
        job.pooling,
        device=device,
        precision=job.precision,
        batch=batches.size(each, device) if job.batch_size == "auto" else int(job.batch_size),
    )


def _spot(place: Place, row: Chip, col: Chip) -> tuple[slice, slice]:
    first, left = place.rows[0].first, place.cols[0].first
    return slice(row.first - first, row.stop - first), slice(col.first - left, col.stop - left)


def _blended(place: Place, spots: Sequence[tuple[Chip, Chip]], vectors: np.ndarray) -> np.ndarray:
    """Blend tokens ``(y, x, band)``: means over all chips that contain them, weighted by distance to the edge.

    Sums are float64 and in the order of the chips in the image, so that they are the same in every block.
    """
    sides = [group[-1].stop - group[0].first for group in (place.rows, place.cols)]
    taper = [np.minimum(k := np.arange(n) + 0.5, n - k) for n in vectors.shape[2:]]
    total, weight = np.zeros((*sides, vectors.shape[1])), np.zeros(sides)
    for (row, col), each in zip(spots, vectors, strict=True):
        (ys, own_y), (xs, own_x) = (
            _overlap(chip, group[0].first, side, len(along))
            for chip, group, side, along in zip(
                (row, col), (place.rows, place.cols), sides, taper, strict=True
            )
        )
        share = np.outer(taper[0][own_y], taper[1][own_x])
        total[ys, xs] += share[..., None] * np.moveaxis(each[:, own_y, own_x], 0, -1).astype(np.float64)
        weight[ys, xs] += share
    with np.errstate(invalid="ignore"):
        return np.asarray(total / weight[..., None], np.float32)


def _overlap(chip: Chip, first: int, side: int, count: int) -> tuple[slice, slice]:
    """The overlap of a block's outputs with a chip's tokens."""
    begin = chip.first - chip.skip - first
    low, high = max(begin, 0), min(begin + count, side)
    return slice(low, high), slice(low - begin, high - begin)


def _owned_outputs(chip: Chip) -> slice:
    return slice(chip.skip, chip.skip + chip.stop - chip.first)


# --- series -------------------------------------------------------------------------------------------------------


def _series(job: Job, lane: Lane, place: Place, window: Any) -> np.ndarray:
    """Vectors ``(y, x, band)`` of the time series of pixels; missing values and absent bands are masked."""
    steps, bands, height, width = window.shape
    pixels = window.reshape(steps, bands, -1).permute(2, 0, 1)
    share = _to_host(lane, "share", pixels.isfinite().float().mean((1, 2))).copy()
    out = np.full((height * width, job.length), np.nan, np.float32)
    wanted = np.flatnonzero((share > 0) & (1 - share <= job.missing))
    if wanted.size:
        at = lane.over("wanted", wanted)
        months = np.broadcast_to(np.asarray(job.months, np.int64), (wanted.size, steps))
        extra = {"months": months, "lonlat": _lonlat(job, place)[wanted]}
        made = _encoded(job, lane, wanted.size, lambda some: pixels[at[some]], extra)
        out[wanted, : job.encoder.dims] = _to_host(lane, "vectors", made)
    if job.quality:
        out[:, -1] = share
    return out.reshape(height, width, -1)


def _lonlat(job: Job, place: Place) -> np.ndarray:
    """Longitude and latitude of the centres of a window's pixels, float32 ``(pixel, 2)``."""
    rows, cols = (np.arange(*window) + 0.5 for window in place.window)
    y, x = np.meshgrid(rows, cols, indexing="ij")
    return _lonlat_at(job, y.ravel(), x.ravel())


def _centres(job: Job, spots: Sequence[tuple[Chip, Chip]]) -> np.ndarray:
    """Longitude and latitude of the centres of chips, float32 ``(chip, 2)``."""
    rows, cols = (np.array([spot[axis].start + job.side / 2 for spot in spots]) for axis in (0, 1))
    return _lonlat_at(job, rows, cols)


def _lonlat_at(job: Job, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Longitude and latitude of positions in pixels from the images' first edge."""
    assert job.grid is not None
    py, px = (
        (along.start + at) * along.step
        for along, at in zip((job.grid.y, job.grid.x), (rows, cols), strict=True)
    )
    to_lonlat = geometry.transformer(geometry.as_crs(job.grid.crs), geometry.as_crs(geometry.LONLAT))
    return np.stack(to_lonlat.transform(px, py), axis=-1).astype(np.float32)
