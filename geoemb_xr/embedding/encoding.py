"""What one task does: put a window of the images together, look at its numbers, encode its chips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geoemb_xr.core import geometry
from geoemb_xr.embedding import batches, inputs
from geoemb_xr.embedding.cards import Encoder, Output, Pooling
from geoemb_xr.embedding.chips import Chip
from geoemb_xr.execution import devices
from geoemb_xr.geo.lattice import Grid

Window = tuple[int, int]
#: Series of pixels that are put together at a time.
_SERIES = 16_384
#: Of a block's values about so many are looked at, to tell their unit.
_LOOKED_AT = 4096


@dataclass(frozen=True)
class Piece:
    """Which part of a block of the images becomes which part of a window.

    Parameters
    ----------
    into, of : tuple of slice
        Of the window, and of the block.
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
    """

    rows: tuple[Chip, ...]
    cols: tuple[Chip, ...]
    window: tuple[Window, Window]


@dataclass(frozen=True)
class Job:
    """All that the tasks of one call have in common.

    Parameters
    ----------
    encoder : Encoder
        With its bands.
    output, pooling : str
        What is made of what it gives.
    side : int
        Of a chip; 1 for encoders of pixels.
    missing : float
        Share of missing pixels above which there is no vector.
    present : tuple of int
        Which of the encoder's bands the images have.
    nodata : float or None
        What is missing besides NaN.
    scale, offset : float
        From the images' numbers to the encoder's unit.
    months : tuple of int
        Of a series, January being 0.
    grid : Grid, optional
        Of the images; a stack of chips has none.
    device, precision : str
        As the user gave them.
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


def encode_block(job: Job, place: Place, pieces: Sequence[Piece], *blocks: np.ndarray) -> np.ndarray:
    """Vectors of a block ``(time?, band, y, x)``, float32; band last in memory, as kernels take it."""
    window = _window(job, place, pieces, blocks)
    _check(job, window)
    if job.encoder.kind == "series":
        found = _series(job, place, window)
    else:
        found = _pictures(job, place, window if job.months else window.reshape(window.shape[-3:]))
    out = np.moveaxis(found, -1, 0)
    return out[None] if window.ndim == 4 else out


def _window(job: Job, place: Place, pieces: Sequence[Piece], blocks: Sequence[np.ndarray]) -> np.ndarray:
    """The images' part of a window in the encoder's unit, float32 ``(time?, band, y, x)``, NaN where missing."""
    shape = tuple(max(p.into[k].stop for p in pieces) for k in range(blocks[0].ndim))
    out = np.empty(shape, np.float32)
    for piece, block in zip(pieces, blocks, strict=True):
        part = block[piece.of]
        into = out[piece.into]
        _fill_in_units(job, part, into)
    return out


def _fill_in_units(job: Job, part: np.ndarray, into: np.ndarray) -> None:
    """Fill with images in the encoder's unit, NaN where missing."""
    np.multiply(part, np.float32(job.scale), out=into, casting="unsafe")
    if job.offset:
        into += np.float32(job.offset)
    if job.nodata is not None:
        into[part == job.nodata] = np.nan
    np.copyto(into, np.nan, where=np.isinf(into))


def _check(job: Job, window: np.ndarray) -> None:
    """Look at some values of each band: wrong units raise."""
    units = job.encoder.units
    for k, index in enumerate(job.present):
        unit = units if isinstance(units, str) else units[index]
        if unit in ("any", "index", "m", "degrees"):
            continue
        values = window[..., k, :, :].ravel()
        values = values[:: max(1, values.size // _LOOKED_AT)]
        name = job.encoder.bands[index] if job.encoder.bands else str(index)
        inputs.check_range(values[np.isfinite(values)], name, unit)


# --- pictures ---------------------------------------------------------------------------------------------------


def _pictures(job: Job, place: Place, window: np.ndarray) -> np.ndarray:
    """Vectors of chips, ``(y, x, band)``."""
    (top, left), side = (w[0] for w in place.window), job.side
    shape = tuple(group[-1].stop - group[0].first for group in (place.rows, place.cols))
    out = np.full((*shape, job.length), np.nan, np.float32)
    if job.quality:
        out[..., -1] = 0
    spots, cut = [], []
    for row in place.rows:
        for col in place.cols:
            chip = _cut(window, row.start - top, col.start - left, side)
            share = _valid(job, chip).mean()
            if share > 0 and 1 - share <= job.missing:
                spots.append((row, col))
                cut.append(chip)
            elif job.quality:
                _lay_share(job, place, row, col, chip, out)
    # few at a time, so that what is cut twice at margins is not all in memory at once
    count = batches.group(cut[0].size) if cut else 1
    for start in range(0, len(cut), count):
        some = slice(start, start + count)
        raw = np.stack(cut[some])
        seen = _valid(job, raw)
        made = _encoded(job, raw, _centres(job, spots[some]) if job.months else None)
        for (row, col), vectors, mask in zip(spots[some], made, seen, strict=True):
            _lay(job, place, row, col, vectors, mask, out)
    return out


def _encoded(job: Job, chips: np.ndarray, lonlat: np.ndarray | None = None) -> np.ndarray:
    """What the network gives for chips in the encoder's unit; they are changed in place."""
    device = devices.place_for(job.device, True)
    extra: dict[str, np.ndarray] = {}
    if lonlat is None:
        given = batches.normalised(chips, job.encoder)
    else:
        given, extra = _masked(job, chips, lonlat)
    return batches.run(
        batches.network(job.encoder, device),
        given,
        job.encoder,
        job.output,
        job.pooling,
        device=device,
        precision=job.precision,
        batch_size=job.batch_size,
        extra=extra,
    )


def _masked(job: Job, some: np.ndarray, lonlat: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What was seen over time ``(n, time, band, …)``, in all of the encoder's bands, and which of it is absent."""
    count = len(job.encoder.bands)
    shape = (*some.shape[:2], count, *some.shape[3:])
    given, absent = np.zeros(shape, np.float32), np.ones(shape, np.bool_)
    present = list(job.present)
    given[:, :, present], absent[:, :, present] = some, ~np.isfinite(some)
    per_band = (count, *(1 for _ in shape[3:]))
    for values, work in ((job.encoder.mean, np.subtract), (job.encoder.std, np.divide)):
        if values:
            work(given, np.broadcast_to(np.asarray(values, np.float32), count).reshape(per_band), out=given)
    given[absent] = 0
    months = np.broadcast_to(np.asarray(job.months, np.int64), shape[:2]).copy()
    return given, {"absent": absent, "months": months, "lonlat": lonlat}


def encode_stack(block: np.ndarray, job: Job) -> np.ndarray:
    """Vectors ``(location, band)`` of a block of chips ``(location, band, y, x)``."""
    chips = np.empty(block.shape, np.float32)
    _fill_in_units(job, block, chips)
    _check(job, chips)
    share = _valid(job, chips).mean((1, 2), dtype=np.float32)
    out = np.full((len(chips), job.length), np.nan, np.float32)
    wanted = np.flatnonzero((share > 0) & (1 - share <= job.missing))
    count = batches.group(chips[0].size) if wanted.size else 1
    for start in range(0, wanted.size, count):
        some = wanted[start : start + count]
        out[some, : job.encoder.dims] = _encoded(job, chips[some])
    if job.quality:
        out[:, -1] = share
    return out


def _cut(window: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """A chip of a window, NaN where it looks beyond."""
    height, width = window.shape[-2:]
    rows, cols = slice(max(top, 0), min(top + side, height)), slice(max(left, 0), min(left + side, width))
    part = window[..., rows, cols]
    if part.shape[-2:] == (side, side):
        return part
    out = np.full((*window.shape[:-2], side, side), np.nan, np.float32)
    out[..., rows.start - top : rows.stop - top, cols.start - left : cols.stop - left] = part
    return out


def _valid(job: Job, chips: np.ndarray) -> np.ndarray:
    """Pixels that have all bands; over time those that have anything."""
    seen = np.isfinite(chips)
    return np.asarray(seen.any(axis=(-4, -3)) if job.months else seen.all(axis=-3))


def _spot(place: Place, row: Chip, col: Chip) -> tuple[slice, slice]:
    first, left = place.rows[0].first, place.cols[0].first
    return slice(row.first - first, row.stop - first), slice(col.first - left, col.stop - left)


def _own(chip: Chip) -> slice:
    return slice(chip.skip, chip.skip + chip.stop - chip.first)


def _shares(job: Job, row: Chip, col: Chip, mask: np.ndarray) -> np.ndarray:
    """The valid share of what each output pixel of a chip shows."""
    if job.output == "chips":
        return np.full((1, 1), mask.mean(), np.float32)
    patch = job.encoder.patch
    shares = mask.reshape(len(mask) // patch, patch, -1, patch).mean((1, 3), dtype=np.float32)
    return np.asarray(shares[_own(row), _own(col)])


def _lay(
    job: Job, place: Place, row: Chip, col: Chip, vectors: np.ndarray, mask: np.ndarray, out: np.ndarray
) -> None:
    """Put what a chip owns where it belongs; a token that saw no pixel of its own is missing."""
    spot = out[_spot(place, row, col)]
    shares = _shares(job, row, col, mask)
    if job.output == "chips":
        spot[..., : job.encoder.dims] = vectors
    else:
        spot[..., : job.encoder.dims] = np.moveaxis(vectors[:, _own(row), _own(col)], 0, -1)
        spot[shares == 0, : job.encoder.dims] = np.nan
    if job.quality:
        spot[..., -1] = shares


def _lay_share(job: Job, place: Place, row: Chip, col: Chip, chip: np.ndarray, out: np.ndarray) -> None:
    out[_spot(place, row, col)][..., -1] = _shares(job, row, col, _valid(job, chip))


# --- series -----------------------------------------------------------------------------------------------------


def _series(job: Job, place: Place, window: np.ndarray) -> np.ndarray:
    """Vectors of the series of pixels, ``(y, x, band)``; missing values and absent bands are masked."""
    steps, _, height, width = window.shape
    pixels = np.moveaxis(window.reshape(steps, window.shape[1], -1), -1, 0)
    seen = np.isfinite(pixels)
    share = seen.mean((1, 2), dtype=np.float32)
    out = np.full((height * width, job.length), np.nan, np.float32)
    wanted = np.flatnonzero((share > 0) & (1 - share <= job.missing))
    lonlat = _lonlat(job, place)
    for start in range(0, wanted.size, _SERIES):
        some = wanted[start : start + _SERIES]
        out[some, : job.encoder.dims] = _encoded(job, pixels[some], lonlat[some])
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
    """Longitude and latitude of positions in pixels, counted from the images' first edge."""
    assert job.grid is not None
    py, px = (
        (along.start + at) * along.step
        for along, at in zip((job.grid.y, job.grid.x), (rows, cols), strict=True)
    )
    to_lonlat = geometry.transformer(geometry.as_crs(job.grid.crs), geometry.as_crs(geometry.LONLAT))
    return np.stack(to_lonlat.transform(px, py), axis=-1).astype(np.float32)
