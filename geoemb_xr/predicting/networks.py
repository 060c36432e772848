"""Models on torch: users' own networks and probes, for :mod:`geoemb_xr.execution.devices` to run.

Vectors are ``(band, n)`` and scores ``(classes, n)``, as in :mod:`geoemb_xr.probes.heads`: codes lie so in blocks,
and a transpose on the device would cost as much as the product. Torch is imported only inside functions.
"""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from geoemb_xr.core.errors import EmbeddingError, require
from geoemb_xr.core.fitted import Output
from geoemb_xr.core.legend import Legend
from geoemb_xr.core.model import Codec
from geoemb_xr.core.notes import say
from geoemb_xr.execution import lanes
from geoemb_xr.execution.devices import kept
from geoemb_xr.predicting import fused
from geoemb_xr.probes.scores import quantile


@dataclass(frozen=True)
class Network:
    """A ``torch.nn.Module`` in the shape of a model.

    Parameters
    ----------
    module : torch.nn.Module
        A network in evaluation mode: ``(n, band)`` to scores ``(n, classes)``, or to values ``(n, 1)`` or ``(n,)``.
    legend : Legend or None
        Legend of its classes; None for regression.
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
            given = torch.from_numpy(np.ascontiguousarray(vectors)).T
            found = self.derive(given, [output])[output]
            return np.asarray(found.numpy())

    def derive(self, vectors: Any, names: Sequence[str]) -> dict[str, Any]:
        """Outputs ``(n,)`` or ``(n, k)`` of a tensor ``(band, n)``, by name."""
        scores = self.module(vectors.T.contiguous()).reshape(vectors.shape[1], -1).T
        return {name: derived(scores, name, self.legend, 1.0) for name in names}

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        weights = [(k, v.numpy().tobytes()) for k, v in self.module.state_dict().items()]
        return type(self.module).__qualname__, repr(self.module), weights, self.legend

    def to(self, device: str) -> Network:
        """A copy on a device."""
        import copy

        return Network(copy.deepcopy(self.module).to(device), self.legend)


def as_network(module: Any, bands: int) -> Network:
    """Wrap a module as a model: its outputs are inferred from one vector.

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


def derived(scores: Any, output: str, legend: Legend | None, temperature: float) -> Any:
    """An output ``(n,)`` or ``(n, classes)`` of scores ``(classes, n)``, as tensors on their device."""
    torch = require("torch", "torch")
    if legend is None:
        return scores[0]
    if output == "label":
        values = torch.as_tensor(np.asarray(legend.values, np.int32), device=scores.device)
        return values[scores.argmax(dim=0)]
    proba = (scores / temperature).softmax(dim=0)
    if output == "proba":
        return proba.T
    if output == "margin":
        best = proba.topk(2, dim=0).values
        return best[0] - best[1]
    return torch.special.entr(proba).sum(dim=0)


# --- on a device ------------------------------------------------------------------------------------------------


def on_device(model: Any, token: str, device: str) -> Any:
    """A copy of a model on a device, kept there: a :class:`Network` or a :class:`Prober`."""
    return kept(
        token, device, lambda: model.to(device) if isinstance(model, Network) else prober(model, device)
    )


def work_of(
    model: Any, codec: Codec | None, unit: bool, names: Sequence[str], token: str, device: str
) -> lanes.Work:
    """Return what :func:`geoemb_xr.execution.lanes.fill_in_batches` runs: from codes to a model's outputs."""
    there = on_device(model, token, device)
    missing = {name: spec.missing for name, spec in model.outputs().items()}
    return partial(outputs, codec=codec, unit=unit, model=there, names=names, missing=missing)


def outputs(
    codes: Any,
    scale: Any,
    *,
    codec: Codec | None,
    unit: bool,
    model: Any,
    names: Sequence[str],
    missing: Mapping[str, float],
) -> dict[str, Any]:
    """Outputs ``(n,)`` or ``(n, k)`` of codes ``(band, n)``, all tensors on one device.

    Parameters
    ----------
    codes, scale : Tensor (band, n), Tensor (n,) or None
        Codes or vectors as they are stored.
    codec : Codec or None
        The codec of codes; None for vectors.
    unit : bool
        Whether vectors have unit length, so that one of zeros is missing.
    model : Prober or Network
        Model on the device.
    names : sequence of str
        Names of the outputs.
    missing : mapping of str to float
        Value of a pixel without data.

    Returns
    -------
    dict of str to Tensor
        Outputs by name.
    """
    kernel = getattr(model, "kernel", None)
    if kernel is not None and tuple(names) == ("label",) and fused.can_fuse(codec, model.probe, names):
        return {"label": kernel(codes, unit)}
    vectors = (codes if codec is None else codec.decode_torch(codes, scale, 0)).float()
    # decoded codes are NaN in every band where they are in one; what comes as floats may be anything
    empty = vectors[0].isnan() if codec is not None else ~vectors.sum(dim=0).isfinite()
    if unit:
        empty |= (codes == 0).all(dim=0)
    found = model.derive(vectors, names)
    return {
        name: each.masked_fill(empty.reshape(-1, *(1,) * (each.ndim - 1)), missing[name])
        for name, each in found.items()
    }


# --- probes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prober:
    """A probe on a device: its parameters as tensors there.

    Parameters
    ----------
    probe : Probe
        The probe whose vectors they are.
    parameters, applicability : mapping of str to Tensor
        The probe's.
    kernel : callable or None
        Codes straight to labels, where :mod:`geoemb_xr.predicting.fused_cuda` can.
    """

    probe: Any
    parameters: Mapping[str, Any]
    applicability: Mapping[str, Any]
    kernel: Any = None

    def derive(self, vectors: Any, names: Sequence[str]) -> dict[str, Any]:
        """Outputs ``(n,)`` or ``(n, k)`` of a tensor ``(band, n)``, by name."""
        found = {}
        if not set(names) <= {"distance", "aoa"}:
            scores = _SCORES[self.probe.method](self.parameters, vectors)
        if {"distance", "aoa"} & set(names):
            index = _dissimilarity(self.applicability, vectors)
        for name in names:
            if name == "distance":
                found[name] = index
            elif name == "aoa":
                found[name] = 2 - (index <= self.applicability["threshold"]).int()
            else:
                found[name] = self._of_scores(scores, name)
        return found

    def _of_scores(self, scores: Any, name: str) -> Any:
        probe = self.probe
        if name in ("set", "lower", "upper"):
            reach = quantile(probe.conformal, probe.coverage)
            if name == "set":
                inside = 1 - derived(scores, "proba", probe.legend, probe.temperature) <= reach
                return inside.byte()
            return scores[0] - reach if name == "lower" else scores[0] + reach
        return derived(scores, name, probe.legend, probe.temperature)


def prober(probe: Any, device: str) -> Prober:
    """A probe on a device."""
    torch = require("torch", "torch")

    def there(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {k: torch.as_tensor(np.asarray(v), device=device) for k, v in arrays.items()}

    parameters, applicability = there(probe.parameters), there(probe.applicability)
    if probe.method == "knn":
        parameters["table"] = _References.of(parameters["vectors"])
    if applicability:
        applicability["table"] = _References.of(applicability["references"])
    kernel = None
    if probe.method in ("ridge", "logistic") and probe.legend is not None:
        kernel = _compiled(device, lambda: _labels_of(probe, device))
    return Prober(probe, parameters, applicability, kernel)


def _compiled(device: str, make: Callable[[], Any]) -> Any:
    """A Triton kernel; None without a GPU, without Triton, or without the C compiler that Triton needs."""
    if not device.startswith("cuda") or importlib.util.find_spec("triton") is None:
        return None
    try:
        return make()
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        say(f"maps on {device} are made with torch, which is slower: Triton cannot compile here ({error})")
        return None


def _labels_of(probe: Any, device: str) -> Any:
    from geoemb_xr.predicting import fused_cuda

    return fused_cuda.Labels.of(probe, device)


def _nearest_of(vectors: Any, offset: Any) -> Any:
    from geoemb_xr.predicting import nearest_cuda

    return nearest_cuda.Nearest.of(vectors, offset)


def can_run(model: Any) -> bool:
    """Whether a model is computed on a device of torch."""
    return isinstance(model, Network) or getattr(model, "method", None) in _SCORES


def _linear(parameters: Mapping[str, Any], x: Any) -> Any:
    return parameters["bias"][:, None].addmm(parameters["weights"], x)


def _centroid(parameters: Mapping[str, Any], x: Any) -> Any:
    return parameters["centres"] @ _unit(x)


def _mlp(parameters: Mapping[str, Any], x: Any) -> Any:
    layers = len(parameters) // 2
    for i in range(layers):
        x = parameters[f"bias{i}"][:, None].addmm(parameters[f"weights{i}"], x)
        x = x.relu_() if i < layers - 1 else x
    return x


def _unit(x: Any) -> Any:
    length = x.norm(dim=0)
    return x / length.masked_fill(length == 0, 1.0)


# --- nearest neighbours ---------------------------------------------------------------------------------------

#: Scores that are held at a time: 256 MB of float32.
_HELD = 1 << 26
#: References whose best is found first.
_GROUP = 128
#: What the kernel of :mod:`geoemb_xr.predicting.nearest_cuda` can do, and vectors that it is given at a time.
MOST_BANDS, MOST_NEIGHBOURS, _VECTORS = 128, 16, 1 << 20


@dataclass(frozen=True)
class _References:
    """References to be near to.

    Parameters
    ----------
    vectors : Tensor (m, band)
        The references.
    columns : Tensor (band, padded m)
        The same, padded to whole groups.
    offset : Tensor (padded m,)
        −|r|² / 2, minus infinity where padded: the largest of v·r − |r|²/2 is the nearest.
    kernel : Nearest or None
        The same by :mod:`geoemb_xr.predicting.nearest_cuda`, where it can.
    """

    vectors: Any
    columns: Any
    offset: Any
    kernel: Any = None

    @classmethod
    def of(cls, vectors: Any) -> _References:
        """A table of vectors ``(m, band)``."""
        pad = -len(vectors) % _GROUP
        columns = vectors.new_zeros(vectors.shape[1], len(vectors) + pad)
        columns[:, : len(vectors)] = vectors.T
        offset = vectors.new_full((len(vectors) + pad,), float("-inf"))
        offset[: len(vectors)] = -(vectors.double() ** 2).sum(1) / 2
        own = offset[: len(vectors)]
        fits = vectors.shape[1] <= MOST_BANDS
        kernel = _compiled(str(vectors.device), lambda: _nearest_of(vectors, own)) if fits else None
        return cls(vectors, columns, offset, kernel)

    def nearest(self, x: Any, k: int) -> Any:
        """Scores v·r − |r|²/2 and numbers of the k nearest of each vector ``(band, n)``, in parts of n.

        The best k are looked for in the k groups with the best bests, which hold them all: 1.6 times as fast on
        an H100 as one look at all.
        """
        groups = len(self.offset) // _GROUP
        if self.kernel is not None and k <= MOST_NEIGHBOURS and groups > 2 * k:
            for part in x.split(_VECTORS, dim=1):
                found, index = self.kernel(part, k)
                yield part, found, index.clamp_max_(len(self.vectors) - 1)
            return
        for part in x.split(max(1, _HELD // len(self.offset)), dim=1):
            scores = self.offset.addmm(part.T, self.columns)
            if groups <= 2 * k:
                found, index = scores.topk(k, dim=1)
                yield part, found, index.clamp_max_(len(self.vectors) - 1)
                continue
            grouped = scores.view(len(scores), groups, _GROUP)
            best = grouped.amax(2).topk(k, dim=1).indices
            few = grouped.gather(1, best[:, :, None].expand(-1, -1, _GROUP)).flatten(1)
            found, at = few.topk(k, dim=1)
            index = best.gather(1, at // _GROUP) * _GROUP + at % _GROUP
            yield (
                part,
                found,
                index.clamp_max_(len(self.vectors) - 1),
            )  # a missing vector may find the padding


def _knn(parameters: Mapping[str, Any], x: Any) -> Any:
    """Log of each class's share of the votes, or the neighbours' mean value."""
    torch = require("torch", "torch")
    target, classes, k = parameters["targets"], int(parameters["classes"]), int(parameters["k"])
    x = _unit(x) if bool(parameters["cosine"]) else x
    out = []
    for part, best, index in parameters["table"].nearest(x, k):
        # |v − r|² / 2 = |v|² / 2 − (v·r − |r|² / 2), less that of the nearest
        weight = ((best - best[:, :1]) / parameters["temperature"]).exp() * parameters["votes"][index]
        total = weight.sum(1)
        if not classes:
            out.append(((weight * target[index]).sum(1) / total)[None])
            continue
        share = torch.zeros(part.shape[1], classes, device=x.device)
        share.scatter_add_(1, target[index].long(), weight)
        out.append((share / total[:, None]).clamp_min(1e-6).log().T)
    return torch.cat(out, dim=1)


def _dissimilarity(parameters: Mapping[str, Any], x: Any) -> Any:
    """The dissimilarity index ``(n,)`` of vectors ``(band, n)``: see :mod:`geoemb_xr.probes.applicability`."""
    torch = require("torch", "torch")
    scaled = (x - parameters["mean"][:, None]) / parameters["scale"][:, None]
    table = parameters["table"]
    # without the cancellation of the products' way
    found = [(part - table.vectors[index[:, 0]].T).norm(dim=0) for part, _, index in table.nearest(scaled, 1)]
    return torch.cat(found)


_SCORES = {"ridge": _linear, "logistic": _linear, "centroid": _centroid, "knn": _knn, "mlp": _mlp}
