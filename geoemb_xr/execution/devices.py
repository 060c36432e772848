"""Blocks on a device of torch: codes go over in batches and are decoded there, and the map comes back.

Codes are a quarter of the bytes of float32, and the bus is the limit, not the processor. Each thread has two
lanes, a stream and page-locked buffers each, so that one batch is on its way while another is worked on; dask's
threads overlap likewise. Measured on an H100 (``benchmarks/RESULTS.md``): through buffers that are held, 8 threads
send 2.7 times as much as by plain copies, of which the driver makes one at a time. Labels come back as bytes;
probabilities as float32, since NumPy takes five times as long to widen float16 as the bus saves.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from geoemb_xr.core import kernels
from geoemb_xr.core.model import Codec, EmbeddingError, require
from geoemb_xr.execution.blocks import Block
from geoemb_xr.predicting import fused, networks

#: Bytes of codes a batch: enough to fill the bus, few enough that two batches overlap.
BATCH_BYTES = 1 << 25
_SMALLEST = 1024
_LANES = 2


# --- where ----------------------------------------------------------------------------------------------------


def place_for(device: str, model: Any) -> str:
    """``"auto"`` as the first GPU where there is one, torch is installed and the model can, else ``"cpu"``.

    Raises
    ------
    EmbeddingError
        If a GPU that was asked for is not there.
    """
    if device == "auto":
        return "cuda:0" if networks.can_run(model) and _has_gpu() else "cpu"
    if device.startswith("cuda"):
        cuda = require("torch", "torch").cuda
        count = cuda.device_count() if cuda.is_available() else 0
        number = int(device.partition(":")[2] or 0)
        if number >= count:
            raise EmbeddingError(
                f"device={device!r} is not there: torch sees {count} GPUs in this process; use device='auto', or "
                "send the work to workers that have one (resources=)"
            )
    return device


def check_device(device: Any) -> None:
    """Raise unless this is a way to name a device.

    Raises
    ------
    ValueError
        If it is not.
    """
    kind, _, number = device.partition(":") if isinstance(device, str) else ("", "", "")
    if kind not in ("auto", "cpu", "cuda", "mps", "xpu") or not (number == "" or number.isdigit()):
        raise ValueError(f"device is 'auto', 'cpu', or a device of torch such as 'cuda:0'; got {device!r}")


def _has_gpu() -> bool:
    # torch takes seconds to import: it is not asked where no driver for a GPU is there.
    if importlib.util.find_spec("torch") is None or not ("torch" in sys.modules or _has_driver()):
        return False
    return bool(require("torch", "torch").cuda.is_available())


@lru_cache(maxsize=1)
def _has_driver() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists()


_copies: OrderedDict[tuple[str, str], Any] = OrderedDict()
_copies_lock = threading.Lock()
_KEPT = 8


def on_device(model: Any, token: str, device: str) -> Any:
    """A model's copy on a device, one a process and content: workers keep the last few."""
    key = (token, device)
    with _copies_lock:
        if key not in _copies:
            is_network = isinstance(model, networks.Network)
            _copies[key] = model.to(device) if is_network else networks.prober(model, device)
            if device.startswith("cuda"):  # lanes do not wait for the stream that it was made on
                require("torch", "torch").cuda.synchronize(device)
            while len(_copies) > _KEPT:
                _copies.popitem(last=False)
        _copies.move_to_end(key)
        return _copies[key]


# --- a block --------------------------------------------------------------------------------------------------


def fill(
    block: Block,
    model: Any,
    out: np.ndarray,
    device: str,
    batch_size: int | str = "auto",
    token: str | None = None,
) -> None:
    """Fill a structured array with a model's outputs, in batches on a device.

    Out of memory halves the batch and goes on.

    Parameters
    ----------
    block : Block
        Codes or vectors.
    model : Network or Probe
        In host memory; its copy on the device is kept.
    out : structured ndarray (pixel,)
        A field an output, in C order of the pixels.
    device : str
        Of torch.
    batch_size : int or "auto"
        Pixels at a time.
    token : str, optional
        Names the model's content; told from it where not given.
    """
    from dask.base import tokenize

    torch = require("torch", "torch")
    there = on_device(model, token or tokenize(model), device)
    missing = {name: spec.missing for name, spec in model.outputs().items()}
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
                lane.send(codes, scale, is_last, block.codec, there, out[done:stop], missing)
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


def _fitting(device: str, bands: np.ndarray) -> int:
    """Pixels a batch; where memory is short, what fits an eighth of what is free, as codes, vectors and scores."""
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


def outputs(
    codes: Any,
    scale: Any,
    codec: Codec | None,
    model: Any,
    names: Sequence[str],
    missing: Mapping[str, float],
) -> dict[str, Any]:
    """Outputs ``(n,)`` or ``(n, k)`` of codes ``(band, n)``, all tensors on one device.

    Parameters
    ----------
    codes, scale : Tensor (band, n), Tensor (n,) or None
        As stored.
    codec : Codec or None
        None for vectors.
    model : Prober or Network
        On the device.
    names : sequence of str
        Of the outputs.
    missing : mapping of str to float
        What a pixel without data gets.

    Returns
    -------
    dict of str to Tensor
        By name.
    """
    kernel = getattr(model, "kernel", None)
    if kernel is not None and fused.can_fuse(codec, model.probe, tuple(names)):
        return {"label": kernel(codes)}
    vectors = (codes if codec is None else codec.decode_torch(codes, scale, 0)).float()
    # decoded codes are NaN in every band where they are in one; what comes as floats may be anything
    empty = vectors[0].isnan() if codec is not None else ~vectors.sum(dim=0).isfinite()
    found = model.derive(vectors, names)
    return {
        name: each.masked_fill(empty.reshape(-1, *(1,) * (each.ndim - 1)), missing[name])
        for name, each in found.items()
    }


# --- lanes ----------------------------------------------------------------------------------------------------


class _Lane:
    """One way to a device and back, with at most one batch on it.

    Parameters
    ----------
    device : str
        Of torch.
    """

    def __init__(self, device: str) -> None:
        self.torch = require("torch", "torch")
        self.device = device
        self.is_cuda = device.startswith("cuda")
        self.stream = self.torch.cuda.Stream(device) if self.is_cuda else None
        self.buffers: dict[str, Any] = {}
        self.coming: tuple[np.ndarray, dict[str, Any]] | None = None

    def send(
        self,
        codes: np.ndarray,
        scale: np.ndarray | None,
        last: bool,
        codec: Codec | None,
        model: Any,
        out: np.ndarray,
        missing: Mapping[str, float],
    ) -> None:
        """Start a batch: ``out`` is filled when it is taken."""
        names = out.dtype.names or ()
        on = self.torch.cuda.stream(self.stream) if self.is_cuda else nullcontext()
        with self.torch.inference_mode(), on:
            there = self._over("codes", codes)
            scales = None if scale is None else self._over("scale", scale)
            found = outputs(there.T if last else there, scales, codec, model, names, missing)
            self.coming = out, {name: self._back(name, each, out.dtype[name]) for name, each in found.items()}

    def take(self) -> None:
        """Wait for the batch on its way, if there is one, and lay it where it belongs."""
        if self.stream is not None:
            self.stream.synchronize()
        if self.coming is not None:
            (out, found), self.coming = self.coming, None
            for name, each in found.items():
                out[name] = each.numpy()

    def _over(self, name: str, values: np.ndarray) -> Any:
        """A copy on the device, not waited for: through a buffer, unless the values' own pages are locked."""
        if not self.is_cuda:
            return self.torch.from_numpy(np.require(values, requirements=["C", "W"])).to(self.device)
        given = self.torch.from_numpy(values) if values.flags.writeable else None
        if given is not None and given.is_pinned():
            there = self.torch.empty(given.shape, dtype=given.dtype, device=self.device)
            whole = given.is_contiguous()  # else row by row: torch would copy a part of a block first
            for row, into in [(given, there)] if whole else zip(given, there, strict=True):
                into.copy_(row, non_blocking=True)
            return there
        kind = self.torch.from_numpy(np.empty(0, values.dtype)).dtype
        staged = self._buffer(name, values.shape, kind)
        staged.numpy()[...] = values
        return staged.to(self.device, non_blocking=True)

    def _back(self, name: str, found: Any, dtype: np.dtype[Any]) -> Any:
        """What becomes of a result in host memory, not waited for; labels as the bytes they are."""
        if dtype.base == np.uint8:
            found = found.to(self.torch.uint8)
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


_own = threading.local()


def _lanes(device: str) -> list[_Lane]:
    """Lanes to a device, those of the calling thread."""
    held: dict[str, list[_Lane]] = _own.__dict__.setdefault("lanes", {})
    if device not in held:
        held[device] = [_Lane(device) for _ in range(_LANES)]
    return held[device]
