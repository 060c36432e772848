"""Running a network: it is loaded once, run in batches that fit the memory, and its result is reshaped."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from geoemb_xr.core.errors import EmbeddingError, require
from geoemb_xr.embedding.cards import Encoder, Output, Pooling
from geoemb_xr.execution import devices, lanes, threads

#: Pixels of one batch on a processor, and on a GPU: few enough to stay near the caches, enough to fill the cores.
_PIXELS = {"cpu": 1 << 20, "cuda": 1 << 24}
#: What a series of a pixel, and a pixel of a month of a cube, take as if they were pixels of a picture.
_SERIES, _CUBE = 1024, 16
#: Bytes of a GPU's memory that a pixel of a batch takes while large networks work on it, generously.
_BYTES = 512

#: A batch: from places in the order of what is encoded to what the network takes, and what else it takes by name.
Take = Callable[[slice], tuple[Any, dict[str, Any]]]


def normalised(chips: Any, encoder: Encoder, *, whole: bool = False) -> Any:
    """Chips ``(n, band, y, x)`` less the card's mean, by its deviation; missing pixels become the mean.

    Without a mean on the card it is that of the chip's own valid pixels. Changed in place. Nothing is missing of
    what is ``whole``.
    """
    if encoder.mean:
        chips -= _per_band(encoder.mean, chips)
    elif not whole:
        own = chips.double().nanmean((2, 3), keepdim=True).nan_to_num_(0.0).to(chips.dtype)
        chips = chips.where(~chips.isnan(), own)
    if encoder.std:
        chips /= _per_band(encoder.std, chips)
    return chips.nan_to_num_(0.0) if encoder.mean and not whole else chips


def masked(some: Any, encoder: Encoder, present: tuple[int, ...]) -> tuple[Any, Any]:
    """Normalised series ``(n, time, band, …)`` in all the encoder's bands, and a mask of what is absent.

    Parameters
    ----------
    some : Tensor of float32 (n, time, band, …)
        Values in the encoder's unit, NaN where missing.
    encoder : Encoder
        Card of the encoder.
    present : tuple of int
        Those of the encoder's bands that they are.
    """
    torch = require("torch", "encoders")
    shape = (*some.shape[:2], len(encoder.bands), *some.shape[3:])
    given = torch.zeros(shape, dtype=torch.float32, device=some.device)
    absent = torch.ones(shape, dtype=torch.bool, device=some.device)
    given[:, :, present], absent[:, :, present] = some, ~some.isfinite()
    if encoder.mean:
        given -= _per_band(encoder.mean, given)
    if encoder.std:
        given /= _per_band(encoder.std, given)
    return given.masked_fill_(absent, 0.0), absent


def _per_band(values: tuple[float, ...], chips: Any) -> Any:
    """Numbers per band, shaped to broadcast with chips ``(n, band, y, x)``, series ``(n, time, band)`` or cubes."""
    torch = require("torch", "encoders")
    is_series = chips.ndim == 3
    count = chips.shape[2 if chips.ndim in (3, 5) else 1]
    own = torch.tensor(values, dtype=torch.float32, device=chips.device).expand(count)
    return own if is_series else own[:, None, None]


def network(encoder: Encoder, device: str, precision: str = "float32") -> Any:
    """The encoder's network, loaded once in a process, device and precision.

    Parameters
    ----------
    encoder : Encoder
        Card of the encoder.
    device : str
        Device of torch.
    precision : {"auto", "float32", "bfloat16"}
        The choice of the user. Its weights are bfloat16 only where its card says that this is safe.
    """
    own = getattr(encoder.make, "__qualname__", "")
    half = is_half(encoder, device, precision) and encoder.bfloat16
    token = f"encoder {encoder.name} {encoder.version} {','.join(encoder.bands)} {own} {half}"

    def load() -> Any:
        torch, made = require("torch", "encoders"), encoder.load(device)
        if half:
            made = made.to(torch.bfloat16)
        # convolutions on a GPU are faster where the channels of a pixel lie side by side
        return made.to(memory_format=torch.channels_last) if is_flat(encoder, device) else made

    return devices.kept(token, device, load)


def is_half(encoder: Encoder, device: str, precision: str) -> bool:
    """Whether a network runs in half precision: if asked for, or on a GPU if its card allows it."""
    return precision == "bfloat16" or (precision == "auto" and device.startswith("cuda") and encoder.bfloat16)


def is_flat(encoder: Encoder, device: str) -> bool:
    """Whether a network is given pictures on a GPU."""
    return encoder.kind == "image" and device.startswith("cuda")


def size(shape: tuple[int, ...], device: str) -> int:
    """How many chips ``(band, y, x)``, series ``(time, band)`` or cubes ``(time, band, y, x)`` go in one batch."""
    if len(shape) == 3:
        cost = shape[1] * shape[2]
    else:
        cost = _SERIES if len(shape) == 2 else shape[0] * shape[2] * shape[3] * _CUBE
    kind = device.partition(":")[0]
    pixels = _PIXELS.get(kind, _PIXELS["cpu"])
    if kind == "cuda":
        pixels = min(pixels, _free(device) // (lanes.SHARED * _BYTES))
    return max(1, pixels // cost)


def _free(device: str) -> int:
    """Free memory of a GPU in bytes: unallocated, or held by torch and unused."""
    cuda = require("torch", "encoders").cuda
    free, _ = cuda.mem_get_info(device)
    return int(free) + int(cuda.memory_reserved(device)) - int(cuda.memory_allocated(device))


def run(
    module: Any,
    count: int,
    take: Take,
    encoder: Encoder,
    output: Output,
    pooling: Pooling,
    *,
    device: str,
    precision: str,
    batch: int,
) -> Any:
    """Run the network in batches: vectors ``(count, dims)``, or tokens ``(count, dims, rows, columns)``.

    Out of memory on a GPU halves the batch and goes on.

    Parameters
    ----------
    module : torch.nn.Module
        Takes a batch and gives vectors ``(n, dims)``, tokens ``(n, token, dims)`` or maps ``(n, dims, y, x)``.
    count : int
        Number of chips, at least one.
    take : callable
        Gives a batch on the device; see :data:`Take`.
    encoder : Encoder
        Encoder of the network.
    output, pooling : str
        The kind of result that is made of the network's output.
    device, precision : str
        A device of torch; as the user gave it.
    batch : int
        Number of chips in a batch.

    Returns
    -------
    Tensor of float32
        Vectors on the device.
    """
    torch = require("torch", "encoders")
    kind = device.partition(":")[0]
    half = is_half(encoder, device, precision)
    found: list[Any] = []
    done = 0
    # the threads are dask's
    exact = threads.one_thread() if kind == "cpu" else _full_precision() if kind == "cuda" else nullcontext()
    # a module may have its own way to one vector per chip
    is_own = hasattr(module, "chips") and output == "chips" and pooling == encoder.pooling
    call = module.chips if is_own else module
    known = _input_names(module.chips if is_own else module.forward)
    mixed = torch.autocast(kind, torch.bfloat16) if half and not encoder.bfloat16 else nullcontext()
    with exact, torch.inference_mode():
        while done < count:
            some = slice(done, min(done + batch, count))
            try:
                given, extra = take(some)
                extra = extra if known is None else {k: v for k, v in extra.items() if k in known}
                sides = tuple(given.shape[-2:]) if given.ndim > 3 else ()
                if is_flat(encoder, device):  # both at once: what is made ready takes the network's own time
                    dtype = torch.bfloat16 if half and encoder.bfloat16 else given.dtype
                    given = given.to(dtype, memory_format=torch.channels_last)
                elif half and encoder.bfloat16:
                    given = given.to(torch.bfloat16)
                with mixed:
                    made = _call(call, given, extra, encoder)
                found.append(shaped(made.float(), encoder, output, pooling, sides))
            except torch.cuda.OutOfMemoryError:
                if batch == 1:
                    raise
                torch.cuda.empty_cache()
                batch = max(1, batch // 2)
            else:
                done = some.stop
        return found[0] if len(found) == 1 else torch.cat(found)


def _call(call: Callable[..., Any], given: Any, extra: Mapping[str, Any], encoder: Encoder) -> Any:
    """Run a network, whose own errors get a note of what it was given."""
    try:
        return call(given, **extra)
    except Exception as error:  # any error of a network is raised again, with a note
        error.add_note(
            f"The network of the encoder {encoder.name!r} was given a batch of shape {tuple(given.shape)}, of the "
            f"bands {', '.join(encoder.bands) or 'of the images'}."
        )
        raise


def _input_names(call: Callable[..., Any]) -> set[str] | None:
    """Names of the further inputs of a network; None if it takes all. Of one of TorchScript none are known."""
    try:
        found = inspect.signature(call).parameters.values()
    except ValueError:
        return set()
    return None if any(p.kind is p.VAR_KEYWORD for p in found) else {p.name for p in found}


def shaped(made: Any, encoder: Encoder, output: Output, pooling: Pooling, sides: tuple[int, ...]) -> Any:
    """The output of a network as vectors ``(n, dims)`` or as tokens ``(n, dims, rows, columns)``.

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
    more = shape[1] - rows * columns if made.ndim == 3 and shape[2] == encoder.dims else 0
    raise EmbeddingError(
        f"the network of {encoder.name!r} gave {shape} for chips of {sides} pixels; for {output} it must give "
        f"{expected}(n, {encoder.dims}, {rows}, {columns})"
        + ("" if output == "tokens" else f", or vectors (n, {encoder.dims})")
        + (
            f". If {more} of its tokens come before those of the patches, say prefix={more}"
            if more > 0
            else ""
        )
    )


_lock = threading.Lock()
_inside = 0
_found: list[bool] = []


@contextmanager
def _full_precision() -> Iterator[None]:
    """Convolutions and products on a GPU in whole float32: torch may round their input to 10 bits (TF32).

    The switches belong to the process: the first to come turns them, and the last to go turns them back.
    """
    global _inside, _found
    backends = require("torch", "encoders").backends
    switches = (backends.cudnn, backends.cuda.matmul)
    with _lock:
        if _inside == 0:
            _found = [each.allow_tf32 for each in switches]
            for each in switches:
                each.allow_tf32 = False
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                for each, was in zip(switches, _found, strict=True):
                    each.allow_tf32 = was
