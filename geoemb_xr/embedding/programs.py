"""Networks that come as whole programs: files of ``torch.export`` (``.pt2``) and of ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from geoemb_xr.core.errors import SourceError, require

#: How the names of such files end.
SUFFIXES = (".pt2", ".onnx")


def load_program(path: Path) -> Any:
    """A module that runs a file.

    Parameters
    ----------
    path : Path
        File of ``torch.export.save``, or of ONNX with one output (its first is taken).

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    return _of_onnx(path) if path.suffix == ".onnx" else _of_export(path)


def _of_export(path: Path) -> Any:
    torch = require("torch", "encoders")
    try:
        exported = torch.export.load(path)
        program, batch = exported.module(), _batch_of(exported)
    except Exception as error:  # torch's own are of many kinds
        raise SourceError(
            f"{path} is not a file of torch.export: {str(error).partition(chr(10))[0]}"
        ) from error

    class ExportedProgram(torch.nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """An exported program: it is as it was exported, and has no modes."""

        def __init__(self) -> None:
            super().__init__()
            self.program = program

        def forward(self, given: Any, **told: Any) -> Any:
            return _in_batches(self.program, batch, given, told)

        def train(self, mode: bool = True) -> Any:
            return self

    return ExportedProgram()


def _batch_of(exported: Any) -> int | None:
    """The one size of batch that a program was exported for; None where it takes any."""
    names = set(exported.graph_signature.user_inputs)
    shapes = [n.meta["val"].shape for n in exported.graph.nodes if n.name in names and n.op == "placeholder"]
    size = shapes[0][0] if shapes and len(shapes[0]) else None
    return size if type(size) is int else None  # a dimension that may change is a symbol


def _in_batches(call: Any, size: int | None, given: Any, told: dict[str, Any]) -> Any:
    """Run a network of fixed batch size on any number of inputs: the last batch is filled up."""
    torch = require("torch", "encoders")
    count = len(given)
    if size is None or count == size:
        return call(given, **told)
    found = []
    for start in range(0, count, size):
        at = torch.arange(start, start + size, device=given.device).clamp_max(count - 1)
        found.append(call(given[at], **{name: value[at] for name, value in told.items()}))
    return torch.cat(found)[:count]


def _of_onnx(path: Path) -> Any:
    torch, onnx = require("torch", "encoders"), require("onnxruntime", "onnx")
    try:
        session = onnx.InferenceSession(str(path), providers=onnx.get_available_providers())
    except Exception as error:
        raise SourceError(f"{path} is not a network of ONNX: {str(error).partition(chr(10))[0]}") from error
    names = [each.name for each in session.get_inputs()]
    first = session.get_inputs()[0].shape[0]
    batch = first if isinstance(first, int) else None

    def run(given: Any, **told: Any) -> Any:
        values = {names[0]: given, **{name: value for name, value in told.items() if name in names}}
        fed = {name: np.ascontiguousarray(value.cpu().float().numpy()) for name, value in values.items()}
        return torch.from_numpy(session.run(None, fed)[0]).to(given.device)

    class OnnxProgram(torch.nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """A network that onnxruntime runs; its output goes back to the device of its input."""

        def forward(self, given: Any, **told: Any) -> Any:
            return _in_batches(run, batch, given, told)

    return OnnxProgram()
