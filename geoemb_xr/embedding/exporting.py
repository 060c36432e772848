"""An encoder of time series, and what is fitted on its vectors, as one ONNX graph: from images to labels.

The network goes through torch's own exporter and onnxruntime's quantiser (weights as int8, products in whole
numbers); the units of its bands and what is missing are part of it: numbers go in as a composite has them.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoemb_xr.core.errors import ComparabilityError, EmbeddingError, require
from geoemb_xr.core.fitted import Fitted
from geoemb_xr.core.local_paths import with_ending
from geoemb_xr.core.onnx_graph import IR, OPSET, write_model

if TYPE_CHECKING:
    from geoemb_xr.embedding.cards import Encoder

_INPUTS = ("series", "months", "lonlat")


def export(encoder: Encoder, path: str | os.PathLike[str], model: Fitted | None, *, quantize: bool) -> Path:
    """Write an encoder, and a fitted model after it; see :meth:`geoemb_xr.Encoder.to_onnx`."""
    if encoder.kind != "series":
        raise EmbeddingError(
            f"{encoder.name} cannot be written as ONNX here: only encoders of the series of a pixel are, as presto"
        )
    if model is not None and (model.product, model.version) != (encoder.product.name, encoder.version):
        raise ComparabilityError(
            f"the model was fitted on {model.product} {model.version}, not on {encoder.product.name} "
            f"{encoder.version}, which this encoder makes"
        )
    onnx = require("onnx", "onnx")
    with tempfile.TemporaryDirectory() as folder:
        made = _network(encoder, Path(folder), quantize)
    facts = {
        "encoder": encoder.name,
        "version": encoder.version,
        "bands": ", ".join(encoder.bands),
        "units": ", ".join(encoder.units),
        "attribution": encoder.attribution,
        "licence": encoder.licence,
    }
    if model is not None:
        graph, own = model.graph(codec=None)
        after = graph.model(type(model).__name__)
        made = onnx.compose.merge_models(made, after, [("vectors", "vectors")], prefix2="model_")
        for each in made.graph.output:
            _rename(made.graph, each.name, each.name.removeprefix("model_"))
        facts |= own | {"attribution": f"{encoder.attribution} {model.attribution}".strip()}
    del made.metadata_props[:]
    return write_model(made, with_ending(path, ".onnx"), facts)


def _rename(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
    for value in graph.output:
        if value.name == old:
            value.name = new


def _network(encoder: Encoder, folder: Path, quantize: bool) -> Any:
    """The network as a graph from numbers in their own units to vectors, NaN where nothing was seen."""
    onnx, torch = require("onnx", "onnx"), require("torch", "encoders")
    count, steps, examples = len(encoder.bands), 3, 2
    mean, std = (torch.tensor(each, dtype=torch.float32) for each in (encoder.mean, encoder.std))

    class FromImages(torch.nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """Series ``(n, time, band)`` in the encoder's units, NaN where absent, to vectors ``(n, dims)``."""

        def __init__(self) -> None:
            super().__init__()
            self.net = encoder.load()

        def forward(self, series: Any, months: Any, lonlat: Any) -> Any:
            absent = ~torch.isfinite(series)
            given = ((series - mean) / std).masked_fill(absent, 0.0)
            found = self.net(given, absent=absent, months=months, lonlat=lonlat)
            return found.masked_fill(absent.flatten(1).all(1, keepdim=True), float("nan"))

    example = (
        torch.zeros(examples, steps, count),
        torch.zeros(examples, steps, dtype=torch.int64),
        torch.zeros(examples, 2),
    )
    axes = {name: {0: "n", 1: "time"} if name != "lonlat" else {0: "n"} for name in _INPUTS}
    path = folder / "network.onnx"
    torch.onnx.export(
        FromImages().eval(),
        example,
        str(path),
        input_names=list(_INPUTS),
        output_names=["vectors"],
        dynamic_axes={**axes, "vectors": {0: "n"}},
        opset_version=OPSET,
        dynamo=False,  # the newer exporter needs one more package
    )
    if quantize:
        quantization = require("onnxruntime.quantization", "onnx")
        small = folder / "small.onnx"
        quantization.quantize_dynamic(
            str(path), str(small), weight_type=quantization.QuantType.QInt8, per_channel=True
        )
        path = small
    made = onnx.load(str(path))
    made.ir_version = IR
    return made
