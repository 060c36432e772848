"""Lanes: transfer of blocks to a torch device and back, in batches, with copies beside the work.

Codes are a quarter of the bytes of float32, and the bus is the limit, not the processor. Each thread has two
lanes, a stream and page-locked buffers each, so that one batch is on its way while another is worked on; dask's
threads overlap likewise. Measured on an H100 (``benchmarks/RESULTS.md``): through buffers that are held, 8 threads
send 2.7 times as much as by plain copies, of which the driver makes one at a time. Labels come back as bytes;
probabilities as float32, since NumPy takes five times as long to widen float16 as the bus saves.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from geoemb_xr.core import kernels
from geoemb_xr.core.errors import require
from geoemb_xr.execution.blocks import Block

#: What runs on the device: tensors of codes ``(band, n)`` and scale ``(n,)`` (or None) to results by name.
Work = Callable[[Any, Any], Mapping[str, Any]]

#: Bytes of codes per batch: enough to fill the bus, few enough that two batches overlap.
BATCH_BYTES = 1 << 25
_SMALLEST = 1024
_LANES = 2


def fill_in_batches(
    block: Block, work: Work, out: np.ndarray, device: str, batch_size: int | str = "auto"
) -> None:
    """Fill a structured array with results from a device, in batches.

    Out of memory halves the batch and goes on.

    Parameters
    ----------
    block : Block
        Codes or vectors, in host memory.
    work : callable
        From tensors on the device to results there, by field of ``out``; see :data:`Work`.
    out : structured ndarray (pixel,)
        One field per result, in C order of the pixels.
    device : str
        A device of torch.
    batch_size : int or "auto"
        Pixels per batch.
    """
    torch = require("torch", "torch")
    bands = kernels.as_bands(block.data, block.axis)
    is_last = bands.shape[2] == 1
    batch = _fitting(device, bands) if batch_size == "auto" else int(batch_size)
    lanes = _lanes(device)
    done = turn = 0
    try:
        while done < block.pixels:
            codes, stop = _piece(bands, done, batch)
            scale = None if block.scale is None else block.scale.reshape(-1)[done:stop]
            lane = lanes[turn % _LANES]
            try:
                lane.take()
                lane.send(codes, scale, is_last, work, out[done:stop])
            except torch.cuda.OutOfMemoryError:
                if batch <= _SMALLEST:
                    raise
                for each in lanes:
                    each.take()
                torch.cuda.empty_cache()
                batch //= 2
            else:
                done, turn = stop, turn + 1
    finally:
        for each in lanes:
            each.take()


def each[T](block: Block, work: Callable[[Any, Any, slice], T], device: str) -> list[T]:
    """What work on a device gives for each batch of a block, one after the other, on a lane that tasks share.

    Parameters
    ----------
    block : Block
        Codes or vectors, in host memory.
    work : callable
        From codes ``(band, n)`` and scale ``(n,)`` or None, as tensors on the device, and which pixels they are.
        What it returns lies in host memory: the next batch takes the place of this one.
    device : str
        A device of torch.
    """
    bands = kernels.as_bands(block.data, block.axis)
    batch, found, done = _fitting(device, bands), [], 0
    with borrowed(device) as lane:
        while done < block.pixels:
            codes, stop = _piece(bands, done, batch)
            scale = None if block.scale is None else block.scale.reshape(-1)[done:stop]
            found.append(work(*lane.vectors_over(codes, scale, bands.shape[2] == 1), slice(done, stop)))
            lane.wait()
            done = stop
    return found


def _fitting(device: str, bands: np.ndarray) -> int:
    """Pixels per batch; where memory is short, what fits an eighth of what is free: codes, vectors and scores."""
    count = bands.shape[1]
    pixels = BATCH_BYTES // (count * bands.dtype.itemsize)
    if device.startswith("cuda"):
        free, _ = require("torch", "torch").cuda.mem_get_info(device)
        pixels = min(pixels, free // 8 // (count * 16))
    return max(int(pixels), _SMALLEST)


def _piece(bands: np.ndarray, start: int, batch: int) -> tuple[np.ndarray, int]:
    """Codes of pixels from a number on, ``(band, n)`` or ``(n, band)`` as they lie, and where the next begin."""
    outer, _, inner = bands.shape
    if inner == 1:  # band-last
        stop = min(start + batch, outer)
        return bands[start:stop, :, 0], stop
    row, first = divmod(start, inner)
    stop = min(first + batch, inner)
    return bands[row, :, first:stop], row * inner + stop


# --- lanes ----------------------------------------------------------------------------------------------------


class Lane:
    """A lane to a device and back: a stream with its page-locked buffers.

    Parameters
    ----------
    device : str
        Device of torch.
    """

    def __init__(self, device: str) -> None:
        self.torch = require("torch", "torch")
        self.device = device
        self.is_cuda = device.startswith("cuda")
        self.stream = self.torch.cuda.Stream(device) if self.is_cuda else None
        self.buffers: dict[str, Any] = {}

    @contextmanager
    def working(self) -> Iterator[None]:
        """Run what is inside on the lane's stream, without gradients, and wait for it at the end."""
        on = self.torch.cuda.stream(self.stream) if self.is_cuda else nullcontext()
        try:
            with self.torch.inference_mode(), on:
                yield
        finally:
            self.wait()

    def wait(self) -> None:
        """Wait until everything that was started on the lane is done."""
        if self.stream is not None:
            self.stream.synchronize()

    def room(self, name: str, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """Host memory to fill and send: page-locked for a GPU, kept from task to task."""
        if not self.is_cuda:
            return np.empty(shape, dtype)
        kind = self.torch.from_numpy(np.empty(0, dtype)).dtype
        held: np.ndarray = self._buffer(name, shape, kind).numpy()
        return held

    def over(self, name: str, values: np.ndarray) -> Any:
        """Start a copy to the device: through a buffer, unless the values are in page-locked memory already."""
        if not self.is_cuda:
            return self.torch.from_numpy(np.require(values, requirements=["C", "W"])).to(self.device)
        given = self.torch.from_numpy(values) if values.flags.writeable else None
        if given is not None and given.is_pinned():
            there = self.torch.empty(given.shape, dtype=given.dtype, device=self.device)
            whole = given.is_contiguous()  # else row by row: torch would copy a part of a block first
            for row, into in [(given, there)] if whole else zip(given, there, strict=True):
                into.copy_(row, non_blocking=True)
            return there
        staged = self.room(name, values.shape, values.dtype)
        staged[...] = values
        return self.torch.from_numpy(staged).to(self.device, non_blocking=True)

    def vectors_over(self, codes: np.ndarray, scale: np.ndarray | None, last: bool) -> tuple[Any, Any]:
        """Start copies of codes, bands ``last`` or first, and of scales: ``(band, n)``, and ``(n,)`` or None."""
        there = self.over("codes", codes)
        return there.T if last else there, None if scale is None else self.over("scale", scale)

    def back(self, name: str, found: Any) -> Any:
        """Start a copy of a result to host memory, complete after :meth:`wait`."""
        if not self.is_cuda:
            return found.cpu()
        return self._buffer(f"{name} back", found.shape, found.dtype).copy_(found, non_blocking=True)

    def _buffer(self, name: str, shape: Sequence[int], dtype: Any) -> Any:
        """Page-locked memory that is kept from batch to batch."""
        size = int(np.prod(shape))
        held = self.buffers.get(name)
        if held is None or held.dtype != dtype or held.numel() < size:
            held = self.buffers[name] = self.torch.empty(size, dtype=dtype, pin_memory=True)
        return held[:size].view(tuple(shape))


class _Batches(Lane):
    """A lane with at most one batch on it, which is collected before the next is sent."""

    coming: tuple[np.ndarray, dict[str, Any]] | None = None

    def send(
        self, codes: np.ndarray, scale: np.ndarray | None, last: bool, work: Work, out: np.ndarray
    ) -> None:
        """Start a batch: ``out`` is filled when it is taken."""
        on = self.torch.cuda.stream(self.stream) if self.is_cuda else nullcontext()
        with self.torch.inference_mode(), on:
            found = work(*self.vectors_over(codes, scale, last))
            self.coming = (
                out,
                {name: self._result(name, each, out.dtype[name]) for name, each in found.items()},
            )

    def take(self) -> None:
        """Wait for the batch that is under way, if there is one, and store it in its place."""
        self.wait()
        if self.coming is not None:
            (out, found), self.coming = self.coming, None
            for name, each in found.items():
                out[name] = each.numpy()

    def _result(self, name: str, found: Any, dtype: np.dtype[Any]) -> Any:
        """Convert a result to its type in host memory; labels are bytes."""
        return self.back(name, found.to(self.torch.uint8) if dtype.base == np.uint8 else found)


#: Lanes that tasks of all threads share: enough that one is filled and one emptied while others work, few enough
#: that the device's memory holds what is on them.
SHARED = 4
_shared: dict[str, queue.LifoQueue[Lane]] = {}
_shared_lock = threading.Lock()


@contextmanager
def borrowed(device: str) -> Iterator[Lane]:
    """Borrow one of the few lanes that tasks of all threads share; wait until one is free.

    Parameters
    ----------
    device : str
        Device of torch. To a processor each task has a lane of its own: nothing travels.
    """
    if not device.startswith("cuda"):
        lane = Lane(device)
        with lane.working():
            yield lane
        return
    with _shared_lock:
        if device not in _shared:
            _shared[device] = queue.LifoQueue()
            for _ in range(SHARED):
                _shared[device].put(Lane(device))
    lane = _shared[device].get()
    try:
        with lane.working():
            yield lane
    finally:
        _shared[device].put(lane)


_own = threading.local()


def _lanes(device: str) -> list[_Batches]:
    """Lanes to a device, those of the calling thread."""
    held: dict[str, list[_Batches]] = _own.__dict__.setdefault("lanes", {})
    if device not in held:
        held[device] = [_Batches(device) for _ in range(_LANES)]
    return held[device]
