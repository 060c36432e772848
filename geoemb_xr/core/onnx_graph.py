"""Fitted models as ONNX graphs, written as formulas.

A :class:`Value` is what one node of a graph gives, a table ``(n, k)``: it adds up, multiplies and compares as an
array does, and each step adds a node. So a codec says how its codes are decoded (``Codec.decode_onnx``), and a
model what it gives (:meth:`geoemb_xr.core.fitted.Fitted.as_onnx`), without an import of ``onnx``.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geoemb_xr.core.errors import SourceError, require
from geoemb_xr.core.model import Codec
from geoemb_xr.core.whole_files import replacing

#: Read by onnxruntime since 1.12 (2022); ReduceMax takes its axes as an attribute up to here.
OPSET, IR = 17, 8
#: The metadata that holds the model itself.
MODEL = "geoemb_xr"


class Graph:
    """A graph as it grows."""

    def __init__(self) -> None:
        self._onnx = require("onnx", "onnx")
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, dtype: Any, *shape: int | str) -> Value:
        """Declare an input; a length that is a text may be any."""
        self._inputs.append(self._declared(name, dtype, shape))
        return Value(self, name, np.dtype(dtype))

    def output(self, name: str, value: Value) -> None:
        """Declare an output."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [value.name], [name]))
        self._outputs.append(self._declared(name, value.dtype, None))

    def constant(self, value: Any, dtype: Any) -> Value:
        """Numbers that are part of the graph."""
        name = f"constant{len(self._constants)}"
        array = np.ascontiguousarray(value, dtype)  # makes a number a list of one
        self._constants.append(self._onnx.numpy_helper.from_array(array.reshape(np.shape(value)), name))
        return Value(self, name, array.dtype)

    def node(self, op: str, *inputs: Value, dtype: Any = None, **attrs: Any) -> Value:
        """Add a node of one output, of the first input's type unless it is said."""
        (found,) = self.nodes(op, *inputs, dtypes=[inputs[0].dtype if dtype is None else dtype], **attrs)
        return found

    def nodes(self, op: str, *inputs: Value, dtypes: Sequence[Any], **attrs: Any) -> list[Value]:
        """Add a node of several outputs."""
        names = [f"{op.lower()}{len(self._nodes)}_{i}" for i in range(len(dtypes))]
        self._nodes.append(self._onnx.helper.make_node(op, [each.name for each in inputs], names, **attrs))
        return [Value(self, name, np.dtype(dtype)) for name, dtype in zip(names, dtypes, strict=True)]

    def type_of(self, dtype: Any) -> int:
        """The ONNX number of a type."""
        return int(self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def _declared(self, name: str, dtype: Any, shape: Sequence[int | str] | None) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, self.type_of(dtype), shape)

    def model(self, name: str) -> Any:
        """The graph as a model of onnx, its shapes filled in."""
        onnx = self._onnx
        graph = onnx.helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._constants)
        opset = onnx.helper.make_opsetid("", OPSET)
        made = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR, producer_name="geoemb_xr")
        return onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True)

    def write(self, path: Path, name: str, facts: Mapping[str, str]) -> Path:
        """Check the graph and write it, whole or not at all.

        Parameters
        ----------
        path : Path
            The file.
        name : str
            Name of the graph.
        facts : mapping
            The file's metadata.
        """
        return write_model(self.model(name), path, facts, full_check=True)


def write_model(model: Any, path: Path, facts: Mapping[str, str], *, full_check: bool = False) -> Path:
    """Check a model of onnx and write it with its metadata, whole or not at all."""
    onnx = require("onnx", "onnx")
    onnx.helper.set_model_props(model, {key: value for key, value in facts.items() if value})
    onnx.checker.check_model(model, full_check=full_check)
    with replacing(path) as file:
        file.write(model.SerializeToString())
    return path


@dataclass(frozen=True, eq=False)
class Value:
    """The output of a node: a table ``(n, k)``, one row per vector; sums over a row give ``(n, 1)``.

    Parameters
    ----------
    graph : Graph
        The graph of the value.
    name : str
        The name in the graph.
    dtype : dtype
        Data type of its numbers.
    missing : float or None
        What stands in an output where there is no data: by default NaN, and 0 among whole numbers.
    is_flat : bool
        Whether an output is ``(n,)``, not ``(n, 1)``.
    """

    graph: Graph
    name: str
    dtype: np.dtype[Any]
    missing: float | None = None
    is_flat: bool = False

    def _binary(self, op: str, other: Any, dtype: Any = None, *, swapped: bool = False) -> Value:
        if not isinstance(other, Value):
            other = self.graph.constant(other, self.dtype)
        pair = (other, self) if swapped else (self, other)
        return self.graph.node(op, *pair, dtype=dtype)

    def _unary(self, op: str, **attrs: Any) -> Value:
        return self.graph.node(op, self, **attrs)

    def __add__(self, other: Any) -> Value:
        return self._binary("Add", other)

    def __sub__(self, other: Any) -> Value:
        return self._binary("Sub", other)

    def __rsub__(self, other: Any) -> Value:
        return self._binary("Sub", other, swapped=True)

    def __mul__(self, other: Any) -> Value:
        return self._binary("Mul", other)

    def __truediv__(self, other: Any) -> Value:
        return self._binary("Div", other)

    def __matmul__(self, other: Any) -> Value:
        return self._binary("MatMul", other)

    def __mod__(self, other: Any) -> Value:
        return self._binary("Mod", other)

    def __gt__(self, other: Any) -> Value:
        return self._binary("Greater", other, bool)

    def __lt__(self, other: Any) -> Value:
        return self._binary("Less", other, bool)

    def __or__(self, other: Value) -> Value:
        return self._binary("Or", other)

    def __and__(self, other: Value) -> Value:
        return self._binary("And", other)

    def __invert__(self) -> Value:
        return self._unary("Not")

    def __neg__(self) -> Value:
        return self._unary("Neg")

    def __abs__(self) -> Value:
        return self._unary("Abs")

    def equals(self, other: Any) -> Value:
        """Where two tables are equal; ``==`` compares the objects."""
        return self._binary("Equal", other, bool)

    def sqrt(self) -> Value:
        """Square root."""
        return self._unary("Sqrt")

    def sign(self) -> Value:
        """−1, 0 or 1."""
        return self._unary("Sign")

    def exp(self) -> Value:
        """Exponential."""
        return self._unary("Exp")

    def log(self) -> Value:
        """Natural logarithm."""
        return self._unary("Log")

    def arctan(self) -> Value:
        """Angle in radians."""
        return self._unary("Atan")

    def relu(self) -> Value:
        """Zero where it is negative."""
        return self._unary("Relu")

    def rint(self) -> Value:
        """The nearest whole number, the even one of two."""
        return self._unary("Round")

    def softmax(self) -> Value:
        """Probabilities of scores, along a row."""
        return self._unary("Softmax", axis=1)

    def clip(self, low: float, high: float) -> Value:
        """Not below and not above."""
        ends = (self.graph.constant(each, self.dtype) for each in (low, high))
        return self.graph.node("Clip", self, *ends)

    def isfinite(self) -> Value:
        """Where it is neither NaN nor infinite."""
        return ~(self._unary("IsNaN", dtype=bool) | self._unary("IsInf", dtype=bool))

    def cast(self, dtype: Any) -> Value:
        """Return the value as another type."""
        return self._unary("Cast", dtype=dtype, to=self.graph.type_of(dtype))

    def sum(self) -> Value:
        """Sum of each row."""
        return self.graph.node("ReduceSum", self, self.graph.constant([1], np.int64), keepdims=1)

    def max(self) -> Value:
        """The largest number of each row."""
        return self._unary("ReduceMax", axes=[1], keepdims=1)

    def any(self) -> Value:
        """Whether any of a row is true."""
        return self.cast(np.float32).max() > 0.5

    def all(self) -> Value:
        """Whether all of a row are true."""
        return ~(~self).any()

    def argmax(self) -> Value:
        """Position of the largest number of each row; of equal ones the first."""
        return self._unary("ArgMax", dtype=np.int64, axis=1, keepdims=1)

    def smallest(self, k: int) -> tuple[Value, Value]:
        """The k smallest numbers of each row, ascending, and their positions."""
        count, types = self.graph.constant([k], np.int64), [self.dtype, np.int64]
        least, index = self.graph.nodes("TopK", self, count, dtypes=types, axis=1, largest=0, sorted=1)
        return least, index

    def first(self, k: int) -> Value:
        """The first columns."""
        bounds = (self.graph.constant([each], np.int64) for each in (0, k, 1))
        return self.graph.node("Slice", self, *bounds)

    def of(self, table: np.ndarray) -> Value:
        """The entries ``(n, k)`` of a list of numbers at these positions."""
        return self.graph.node("Gather", self.graph.constant(table, table.dtype), self, dtype=table.dtype)

    def spread_over(self, members: Value) -> Value:
        """Sums ``(n, c)`` of a row's numbers over what each belongs to, ``(n, k, c)``."""
        wide = self.graph.node("Unsqueeze", self, self.graph.constant([2], np.int64))
        return self.graph.node("ReduceSum", wide * members, self.graph.constant([1], np.int64), keepdims=0)

    def rows(self, table: np.ndarray) -> Value:
        """The rows of a table at the positions ``(n, 1)``."""
        axis = self.graph.constant([1], np.int64)
        return self.graph.node("Squeeze", self, axis).of(table)

    def where(self, condition: Value, other: Any) -> Value:
        """These numbers where a condition holds, else another."""
        return self.graph.node(
            "Where", condition, self, self.graph.constant(other, self.dtype), dtype=self.dtype
        )

    def column(self) -> Value:
        """An input of one number per row as a table of one column."""
        return self.graph.node("Unsqueeze", self, self.graph.constant([1], np.int64))

    def flat(self) -> Value:
        """The same as an output of one number per row."""
        return replace(self, is_flat=True)

    def standing(self, missing: float) -> Value:
        """The same as an output with ``missing`` where there is no data."""
        return replace(self, missing=missing)

    # --- what several models need -------------------------------------------------------------------------------

    def length(self) -> Value:
        """Length of each row."""
        return (self * self).sum().sqrt()

    def unit(self) -> Value:
        """Rows of length 1; zeros stay zeros."""
        length = self.length()
        return self / length.where(length > 0, 1)

    def linear(self, weights: np.ndarray, bias: np.ndarray) -> Value:
        """``W · x + b`` of each row."""
        return self @ weights.T + bias

    def nearness(self, references: np.ndarray) -> Value:
        """``x · r − |r|² / 2``, largest for the nearest of some vectors."""
        return self.linear(references, -0.5 * np.einsum("ij,ij->i", references, references, dtype=np.float64))

    def distance(self, references: np.ndarray, index: Value) -> Value:
        """Euclidean distance of each row to one of some vectors, without the cancellation of products."""
        return (self - index.rows(references.astype(np.float32))).length()


def vectors(graph: Graph, codec: Codec | None, bands: int, unit: bool) -> tuple[Value, Value]:
    """Declare inputs; return vectors, zero where there is no data, and a mask of where there is.

    Parameters
    ----------
    graph : Graph
        Graph to add to.
    codec : Codec or None
        Codec of the codes that come in: ``codes``, with ``scale`` where it has one. None, and a codec without
        ``decode_onnx``, stand for ``vectors`` of float32.
    bands : int
        Number of bands of decoded vectors; 0 where the model does not say.
    unit : bool
        Whether a vector of zeros is none, as in a product of unit vectors.
    """
    width: int | str = bands or "band"
    if codec is None or codec.decode_onnx is None:
        found = graph.input("vectors", np.float32, "n", width)
        valid = found.isfinite().all()
    else:
        codes = graph.input("codes", codec.dtype, "n", 1 if codec.bands else width)
        scale = None if codec.scale is None else graph.input("scale", np.float32, "n").column()
        found, valid = codec.decode_onnx(codes, scale)
    if unit:
        valid &= abs(found).max() > 0
    return found.where(valid, 0), valid


def declare(graph: Graph, outputs: Mapping[str, Value], valid: Value) -> None:
    """Declare outputs, with the value for missing data."""
    for name, value in outputs.items():
        missing = value.missing
        if missing is None:
            missing = float("nan") if value.dtype.kind == "f" else 0
        found = value.where(valid, missing)
        if value.is_flat:
            found = graph.node("Squeeze", found, graph.constant([1], np.int64))
        graph.output(name, found)


def embedded(path: str | os.PathLike[str]) -> bytes:
    """The model that lies in a file which :meth:`geoemb_xr.core.fitted.Fitted.to_onnx` wrote.

    Raises
    ------
    SourceError
        If it is no such file.
    """
    onnx = require("onnx", "onnx")
    try:
        held = onnx.load(os.fspath(path), load_external_data=False)
    except OSError:
        raise
    except Exception as error:  # protobuf's own kinds of errors differ by version
        raise SourceError(f"{path} is not an ONNX file, or damaged: {error}") from error
    facts = {each.key: each.value for each in held.metadata_props}
    if MODEL not in facts:
        raise SourceError(
            f"{path} is an ONNX graph without a model of this package in it, which to_onnx puts there; "
            "a network for images is an encoder: gx.Encoder(…, weights=path)"
        )
    try:
        return base64.b64decode(facts[MODEL], validate=True)
    except ValueError as error:
        raise SourceError(f"the model in {path} is damaged: {error}") from error
