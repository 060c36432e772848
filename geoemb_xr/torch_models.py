"""Models on torch: networks of the user's own, and probes on a GPU, where codes are decoded on the device.

A block goes over as codes (a quarter of the bytes of float32) in batches from one page-locked buffer, and comes
back as what the map is made of. Torch is imported only inside functions.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoemb_xr import kernels
from geoemb_xr.blocks import Block
from geoemb_xr.fitted import Output
from geoemb_xr.legend import Legend
from geoemb_xr.model import Codec, EmbeddingError, require

#: Pixels a batch where nothing else is known; halved until they fit.
BATCH = 1 << 20
_SMALLEST = 1024


@dataclass(frozen=True)
class Network:
    """A ``torch.nn.Module`` in the shape of a model.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode: ``(n, band)`` to scores ``(n, classes)``, or to values ``(n, 1)`` or ``(n,)``.
    legend : Legend or None
        Of its classes; None for regression.
    """

    module: Any
    legend: Legend | None

    def outputs(self) -> dict[str, Output]:
        """Labels and probabilities, or the value."""
        if self.legend is None:
            return {"value": Output("float32")}
        label = {"long_name": "class", **self.legend.attrs()}
        return {
            "label": Output(str(self.legend.dtype), missing=0, attrs=label),
            "proba": Output("float32", "category", self.legend.names, attrs={"long_name": "probability"}),
        }

    def apply(self, vectors: np.ndarray, output: str) -> np.ndarray:
        """An output for vectors ``(n, band)``."""
        torch = require("torch", "torch")
        with torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(vectors))
            return np.asarray(self.derive(self.scores(given), output).numpy())

    def scores(self, vectors: Any) -> Any:
        """Scores ``(n, classes)`` of a tensor ``(n, band)``."""
        found = self.module(vectors)
        return found.reshape(len(vectors), -1)

    def derive(self, scores: Any, output: str) -> Any:
        """An output of scores, both tensors."""
        return derived(scores, output, self.legend, 1.0)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        weights = [(k, v.numpy().tobytes()) for k, v in self.module.state_dict().items()]
        return type(self.module).__qualname__, repr(self.module), weights, self.legend

    def to(self, device: str) -> Network:
        """A copy on a device."""
        import copy

        return Network(copy.deepcopy(self.module).to(device), self.legend)


def network(module: Any, bands: int) -> Network:
    """A module in the shape of a model: what it gives is told from one vector.

    Raises
    ------
    EmbeddingError
        If it does not take vectors of so many bands.
    """
    import copy

    torch = require("torch", "torch")
    own = copy.deepcopy(module).cpu().eval()
    try:
        with torch.inference_mode():
            found = own(torch.zeros(2, bands))
    except RuntimeError as error:
        raise EmbeddingError(f"the module does not take vectors of shape (n, {bands}): {error}") from error
    if found.ndim > 2 or len(found) != 2:
        raise EmbeddingError(
            f"the module must give (n, classes) or (n, 1); for n = 2 it gave {tuple(found.shape)}"
        )
    count = found.numel() // 2
    if count == 1:
        return Network(own, None)
    names = getattr(module, "classes_", None)
    return Network(own, Legend.of_names(list(names) if names is not None else range(1, count + 1)))


_DERIVED = ("label", "proba", "margin", "entropy", "value")


def derived(scores: Any, output: str, legend: Legend | None, temperature: float) -> Any:
    """An output of scores ``(n, classes)``, as tensors on their device."""
    torch = require("torch", "torch")
    if legend is None:
        return scores[:, 0]
    if output == "label":
        values = torch.as_tensor(np.asarray(legend.values, np.int32), device=scores.device)
        return values[scores.argmax(dim=1)]
    proba = (scores / temperature).softmax(dim=1)
    if output == "proba":
        return proba
    if output == "margin":
        best = proba.topk(2, dim=1).values
        return best[:, 0] - best[:, 1]
    return torch.special.entr(proba).sum(dim=1)


# --- probes on a device -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prober:
    """A probe's scores on a device: its parameters as tensors there.

    Parameters
    ----------
    probe : Probe
        Whose.
    tensors : mapping of str to Tensor
        Its parameters.
    """

    probe: Any
    tensors: Mapping[str, Any]

    def scores(self, vectors: Any) -> Any:
        """Scores ``(n, classes)`` of a tensor ``(n, band)``."""
        return _SCORES[self.probe.method](self.tensors, vectors)

    def derive(self, scores: Any, output: str) -> Any:
        """An output of scores, both tensors."""
        return derived(scores, output, self.probe.legend, self.probe.temperature)


def prober(probe: Any, device: str) -> Prober:
    """A probe on a device."""
    torch = require("torch", "torch")
    tensors = {k: torch.as_tensor(np.asarray(v), device=device) for k, v in probe.parameters.items()}
    return Prober(probe, tensors)


def _linear(parameters: Mapping[str, Any], x: Any) -> Any:
    return x @ parameters["weights"].T + parameters["bias"]


def _centroid(parameters: Mapping[str, Any], x: Any) -> Any:
    return _unit(x) @ parameters["centres"].T


def _knn(parameters: Mapping[str, Any], x: Any) -> Any:
    """Log of the shares of votes, pixels in parts so that their scores fit beside them."""
    torch = require("torch", "torch")
    vectors, target = parameters["vectors"], parameters["targets"].long()
    classes, k = int(parameters["classes"]), int(parameters["k"])
    half = (vectors * vectors).sum(1) / 2
    out = []
    for part in x.split(max(1, (1 << 26) // len(vectors))):
        part = _unit(part) if bool(parameters["cosine"]) else part
        best, index = (part @ vectors.T - half).topk(k, dim=1)
        # |v − r|² / 2 = |v|² / 2 − (v·r − |r|² / 2), less that of the nearest
        weight = ((best - best[:, :1]) / parameters["temperature"]).exp() * parameters["votes"][index]
        if not classes:
            value = parameters["targets"][index]
            out.append(((weight * value).sum(1) / weight.sum(1))[:, None])
            continue
        share = torch.zeros(len(part), classes, device=x.device).scatter_add_(1, target[index], weight)
        out.append((share / weight.sum(1, keepdim=True)).clamp_min(1e-6).log())
    return torch.cat(out)


def _mlp(parameters: Mapping[str, Any], x: Any) -> Any:
    layers = len(parameters) // 2
    for i in range(layers):
        x = x @ parameters[f"weights{i}"].T + parameters[f"bias{i}"]
        x = x.relu() if i < layers - 1 else x
    return x


def _unit(x: Any) -> Any:
    length = x.norm(dim=1, keepdim=True)
    return x / length.masked_fill(length == 0, 1.0)


_SCORES = {"ridge": _linear, "logistic": _linear, "centroid": _centroid, "knn": _knn, "mlp": _mlp}


# --- blocks on a device -----------------------------------------------------------------------------------------

_cache: OrderedDict[tuple[str, str], Any] = OrderedDict()
_cache_lock = threading.Lock()
_KEPT = 8


def on_device(model: Any, token: str, device: str) -> Any:
    """A model's copy on a device, one a process and content: workers keep the last few."""
    key = (token, device)
    with _cache_lock:
        if key not in _cache:
            _cache[key] = model.to(device) if isinstance(model, Network) else prober(model, device)
            while len(_cache) > _KEPT:
                _cache.popitem(last=False)
        _cache.move_to_end(key)
        return _cache[key]


def fill(block: Block, model: Any, out: np.ndarray, device: str, batch_size: int | str = "auto") -> None:
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
    """
    from dask.base import tokenize

    torch = require("torch", "torch")
    bands = kernels.as_bands(block.data, block.axis)
    bands = bands.transpose(2, 1, 0) if bands.shape[2] == 1 else bands  # band-last is one row of pixels
    inner = bands.shape[2]
    scale = None if block.scale is None else block.scale.reshape(-1, inner)
    there = on_device(model, tokenize(model), device)
    missing = {name: spec.missing for name, spec in model.outputs().items()}
    batch = fitting_batch(device, bands.shape[1]) if batch_size == "auto" else int(batch_size)
    i = start = 0
    while i < len(bands):
        part = slice(start, min(start + batch, inner))
        rows = out[i * inner + part.start : i * inner + part.stop]
        own = None if scale is None else scale[i, part]
        try:
            with torch.inference_mode():
                _batch(bands[i, :, part], own, block.codec, there, rows, missing, device)
        except torch.cuda.OutOfMemoryError:
            if batch <= _SMALLEST:
                raise
            torch.cuda.empty_cache()
            batch //= 2
            continue
        i, start = (i, part.stop) if part.stop < inner else (i + 1, 0)


def _batch(
    codes: np.ndarray,
    scale: np.ndarray | None,
    codec: Codec | None,
    model: Any,
    out: np.ndarray,
    missing: Mapping[str, float],
    device: str,
) -> None:
    vectors = _to_device(codes, device)
    if codec is not None:
        own = None if scale is None else _to_device(scale, device)
        vectors = codec.decode_torch(vectors, own, 0)
    vectors = vectors.float().T
    empty = ~vectors.sum(dim=1).isfinite()
    scores = model.scores(vectors.masked_fill(empty[:, None], 0.0))
    for name in out.dtype.names or ():
        found = model.derive(scores, name)
        mask = empty.reshape(-1, *(1,) * (found.ndim - 1))
        out[name] = found.masked_fill(mask, missing[name]).cpu().numpy()


_buffers = threading.local()


def _to_device(values: np.ndarray, device: str) -> Any:
    """A copy on a device, through a page-locked buffer of this thread that is kept from batch to batch."""
    torch = require("torch", "torch")
    if not str(device).startswith("cuda"):
        return torch.from_numpy(np.ascontiguousarray(values))
    held = getattr(_buffers, "held", None)
    if held is None:
        held = _buffers.held = {}
    buffer = held.get(values.dtype.str)
    if buffer is None or buffer.numel() < values.size:
        kind = torch.from_numpy(np.empty(0, values.dtype)).dtype
        buffer = held[values.dtype.str] = torch.empty(values.size, dtype=kind, pin_memory=True)
    staged = buffer[: values.size].view(values.shape)
    staged.numpy()[...] = values
    # not asynchronous: the buffer is filled anew for the next batch
    return staged.to(device)


def fitting_batch(device: str, bands: int) -> int:
    """Pixels that fit a quarter of the free memory, as codes, vectors and what is made of them."""
    if not str(device).startswith("cuda"):
        return BATCH
    free, _ = require("torch", "torch").cuda.mem_get_info(device)
    return int(max(_SMALLEST, min(BATCH * 16, free // 4 // (bands * 16))))


def place_for(device: str, model: Any, names: Sequence[str]) -> str:
    """``"auto"`` as the first GPU where there is one, torch is installed and the model can, else ``"cpu"``."""
    if device != "auto":
        return device
    if not can_run(model, names) or importlib.util.find_spec("torch") is None:
        return "cpu"
    # torch takes seconds to import: it is not asked where no driver for a GPU is there.
    if (
        "torch" not in sys.modules
        and shutil.which("nvidia-smi") is None
        and not Path("/dev/nvidiactl").exists()
    ):
        return "cpu"
    return "cuda:0" if require("torch", "torch").cuda.is_available() else "cpu"


def can_run(model: Any, names: Sequence[str]) -> bool:
    """Whether a model's outputs are computed on a device of torch."""
    if isinstance(model, Network):
        return True
    return getattr(model, "method", None) in _SCORES and set(names) <= set(_DERIVED)
