"""A network at work on the chips of a block: cut, filled, normalised, run in batches, laid where they belong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from geoemb_xr.core.errors import EmbeddingError, require
from geoemb_xr.embedding.cards import Encoder, Output, Pooling
from geoemb_xr.execution import devices, threads

#: Pixels of one batch on a processor, and on a GPU: few enough to stay near the caches, enough to fill the cores.
_PIXELS = {"cpu": 1 << 20, "cuda": 1 << 24}
#: What a series of a pixel, and a pixel of a month of a cube, take as if they were pixels of a picture.
_SERIES, _CUBE = 1024, 16
#: Pixels of chips that are copied out of a block at a time.
_HELD = 1 << 23


def group(side: int) -> int:
    """Chips of a side that are held at a time."""
    return max(1, _HELD // side**2)


def cost(shape: tuple[int, ...]) -> int:
    """Work for one of a batch ``(n, band, y, x)``, ``(n, time, band)`` or ``(n, time, band, y, x)``, in pixels."""
    if len(shape) == 4:
        return shape[2] * shape[3]
    return _SERIES if len(shape) == 3 else shape[1] * shape[3] * shape[4] * _CUBE


def normalised(chips: np.ndarray, encoder: Encoder) -> np.ndarray:
    """Chips ``(n, band, y, x)`` less the card's mean, by its deviation; missing pixels become the mean.

    Without a mean on the card it is that of the chip's own valid pixels. Changed in place.
    """
    count = chips.shape[1]
    mean = _per_band(encoder.mean, count)
    if mean is None:
        holes = np.isnan(chips)
        if holes.any():
            sums = np.where(holes, 0, chips).sum((2, 3), dtype=np.float64)
            own = sums / np.maximum((~holes).sum((2, 3)), 1)
            np.copyto(chips, own[:, :, None, None].astype(np.float32), where=holes)
    else:
        chips -= mean
    std = _per_band(encoder.std, count)
    if std is not None:
        chips /= std
    return np.nan_to_num(chips, copy=False, nan=0.0) if mean is not None else chips


def _per_band(values: tuple[float, ...], count: int) -> np.ndarray | None:
    if not values:
        return None
    return np.broadcast_to(np.asarray(values, np.float32), (count,))[:, None, None]


def network(encoder: Encoder, device: str) -> Any:
    """The encoder's network, loaded once in a process and device."""
    own = getattr(encoder.make, "__qualname__", "")
    token = f"encoder {encoder.name} {encoder.version} {','.join(encoder.bands)} {own}"
    return devices.kept(token, device, lambda: encoder.load(device))


def run(
    module: Any,
    chips: np.ndarray,
    encoder: Encoder,
    output: Output,
    pooling: Pooling,
    *,
    device: str,
    precision: str,
    batch_size: int | str,
    extra: dict[str, np.ndarray] | None = None,
) -> np.ndarray:
    """Vectors of chips, in batches: ``(n, dims)``, or ``(n, dims, rows, columns)`` of tokens.

    Out of memory on a GPU halves the batch and goes on.

    Parameters
    ----------
    module : torch.nn.Module
        Takes a batch and gives vectors ``(n, dims)``, tokens ``(n, token, dims)`` or maps ``(n, dims, y, x)``.
    chips : ndarray of float32 (n, …)
        Normalised.
    encoder : Encoder
        Whose network it is.
    output, pooling : str
        What is made of what it gives.
    device, precision : str
        A device of torch; ``"float32"`` or ``"bfloat16"``.
    batch_size : int or "auto"
        Chips at a time.
    extra : mapping of str to ndarray (n, …), optional
        What else the module takes, by name.
    """
    torch = require("torch", "encoders")
    pixels = cost(chips.shape)
    kind = device.partition(":")[0]
    batch = max(1, _PIXELS.get(kind, _PIXELS["cpu"]) // pixels) if batch_size == "auto" else int(batch_size)
    half = precision == "bfloat16" or (precision == "auto" and kind == "cuda" and encoder.bfloat16)
    found, done = [], 0
    # the threads are dask's
    exact = threads.one_thread() if kind == "cpu" else _full_precision() if kind == "cuda" else nullcontext()
    with exact, torch.inference_mode(), torch.autocast(kind, torch.bfloat16) if half else nullcontext():
        while done < len(chips):
            some = slice(done, done + batch)
            try:
                given = torch.from_numpy(chips[some]).to(device)
                more = {k: torch.from_numpy(v[some]).to(device) for k, v in (extra or {}).items()}
                sides = tuple(chips.shape[-2:]) if chips.ndim > 3 else ()
                made = shaped(module(given, **more), encoder, output, pooling, sides)
                found.append(made.float().cpu().numpy())
            except torch.cuda.OutOfMemoryError:
                if batch == 1:
                    raise
                torch.cuda.empty_cache()
                batch = max(1, batch // 2)
            else:
                done += batch
    return np.concatenate(found)


def shaped(made: Any, encoder: Encoder, output: Output, pooling: Pooling, sides: tuple[int, ...]) -> Any:
    """What a network gave as vectors ``(n, dims)``, or as tokens ``(n, dims, rows, columns)``.

    Raises
    ------
    EmbeddingError
        If its shape is not one that the card promises.
    """
    shape = tuple(made.shape)
    rows, columns = (sides[0] // encoder.patch, sides[1] // encoder.patch) if len(sides) == 2 else (1, 1)
    if made.ndim == 2 and output != "tokens" and shape[1] == encoder.dims:
        return made
    if made.ndim == 3 and shape[2] == encoder.dims and shape[1] == encoder.prefix + rows * columns:
        if output == "chips" and pooling == "cls":
            return made[:, 0]
        patches = made[:, encoder.prefix :].transpose(1, 2).reshape(shape[0], encoder.dims, rows, columns)
        return patches if output == "tokens" else patches.mean((2, 3))
    if made.ndim == 4 and shape[1] == encoder.dims and (output != "tokens" or shape[2:] == (rows, columns)):
        return made if output == "tokens" else made.mean((2, 3))
    expected = f"tokens (n, {encoder.prefix} + {rows * columns}, {encoder.dims}) or maps "
    raise EmbeddingError(
        f"the network of {encoder.name!r} gave {shape} for chips of {sides} pixels; for {output} it must give "
        f"{expected}(n, {encoder.dims}, {rows}, {columns})"
        + ("" if output == "tokens" else f", or vectors (n, {encoder.dims})")
    )


_lock = threading.Lock()
_inside = 0
_found = True


@contextmanager
def _full_precision() -> Iterator[None]:
    """Convolutions on a GPU in whole float32: torch rounds their input to 10 bits (TF32) unless it is told not to.

    The switch belongs to the process: the first to come turns it, and the last to go turns it back.
    """
    global _inside, _found
    switches = require("torch", "encoders").backends.cudnn
    with _lock:
        if _inside == 0:
            _found = switches.allow_tf32
            switches.allow_tf32 = False
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                switches.allow_tf32 = _found
