"""Fitted models: small frozen objects of NumPy arrays, saved to one npz file without pickles.

A subclass is a frozen dataclass whose fields are arrays, mappings of arrays, numbers, strings, tuples of
strings, mappings as JSON has them, or a :class:`~geoemb_xr.core.legend.Legend`. It says what it can give
(:meth:`Fitted.outputs`) and computes it for rows of vectors (:meth:`Fitted.apply`); ``predict`` does the rest
for every kind of model alike.
"""

from __future__ import annotations

import base64
import inspect
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

import numpy as np
import xarray as xr

from geoemb_xr.core import npz, onnx_graph
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.core.legend import Legend
from geoemb_xr.core.local_paths import existing, with_ending
from geoemb_xr.core.model import BAND, Codec, check_comparable, comparability_key, is_encoded, product
from geoemb_xr.core.synonyms import answering, answering_methods, no_such

_FORMAT = "geoemb_xr-model-1"
#: Keys of the header that are not fields; a field of such a name is written with a prefix.
_RESERVED = frozenset({"format", "kind", "module", "geoemb_xr", "header", "file", "allow_pickle"})
_ESCAPE = "field:"
#: Key of the header under which all arrays of the file are named: one that is gone is missed.
_ARRAYS = "__arrays__"
_classes: dict[tuple[str, str], type[Fitted]] = {}


@dataclass(frozen=True)
class Output:
    """An output of a model.

    Parameters
    ----------
    dtype : str
        Data type of the map.
    dim : str or None
        Name of the dimension beside y and x (``component``, ``category``), None for a plain map.
    labels : sequence
        Labels along ``dim``.
    missing : float
        Value of a pixel without data: 0 in a class map, NaN elsewhere.
    attrs : mapping
        Attributes of the map.
    space : (str, str), optional
        Product and version, where what it gives are vectors, along ``band``.
    """

    dtype: str
    dim: str | None = None
    labels: Sequence[Any] = ()
    missing: float = float("nan")
    attrs: Mapping[str, Any] | None = None
    space: tuple[str, str] | None = None


@answering_methods
@dataclass(frozen=True, eq=False)
class Fitted:
    """Base of all fitted models.

    Parameters
    ----------
    product, version : str
        The comparability key of what it was fitted on; empty where it was plain arrays.
    bands : tuple of str
        The bands it takes, in order.
    attribution : str
        Attribution that must travel with it.
    """

    product: str
    version: str
    bands: tuple[str, ...]
    attribution: str

    default_output: ClassVar[str] = "label"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, method in vars(cls).copy().items():
            if inspect.isfunction(method) and not name.startswith("_"):
                setattr(cls, name, answering(method))
        _classes[cls.__module__, cls.__name__] = cls

    @classmethod
    def shapes(cls, names: Iterable[str]) -> Mapping[str, tuple[str | int, ...]]:
        """Dimensions of arrays by ``field`` or ``field/key``: those of one name have one length.

        ``band`` is as long as the bands are many, ``score`` as the classes of ``legend`` (1 without). A file is
        checked against it before its arrays are read.

        Parameters
        ----------
        names : iterable of str
            Names of the arrays that there are.
        """
        return {}

    def outputs(self) -> Mapping[str, Output]:
        """What :meth:`apply` can give, by name."""
        raise NotImplementedError  # the base class alone is not a model

    def apply(self, vectors: np.ndarray, output: str) -> np.ndarray:
        """Compute an output for vectors ``(n, band)``, float32 without NaN: shape (n,) or (n, k)."""
        raise NotImplementedError  # the base class alone is not a model

    def as_linear(self, output: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Weights ``(k, band)`` and a bias ``(k,)``, float32, of the sums that :meth:`derive` makes an output of.

        None where it takes more than sums.
        """
        return None

    def derive(self, sums: np.ndarray, output: str) -> np.ndarray:
        """An output, ``(n,)`` or ``(n, k)``, of sums ``(k, n)`` by :meth:`as_linear`."""
        raise NotImplementedError  # called for models alone whose `as_linear` gives sums

    if not TYPE_CHECKING:  # for a checker of types, what is not there must stay an error

        def __getattr__(self, name: str) -> NoReturn:
            known = [*dir(type(self)), *(each.name for each in fields(self))]
            raise AttributeError(no_such(name, known, type(self).__name__))

    def predict(self, array: xr.DataArray, **options: Any) -> Any:
        """The same as ``array.emb.predict(model, …)``."""
        if not hasattr(array, "dims"):
            raise EmbeddingError(
                f"predict takes an embedding array; got a {type(array).__name__}. For plain vectors (n, band) of "
                f"float32 call model.apply(vectors, {self.default_output!r})"
            )
        return array.emb.predict(self, **options)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(
            _same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)
        )

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.product, self.version, self.bands))

    def prepared(self, array: xr.DataArray) -> xr.DataArray:
        """What :meth:`apply` takes vectors of: the array itself, unless a model looks at more than a pixel."""
        return array

    def as_onnx(self, vectors: onnx_graph.Value) -> Mapping[str, onnx_graph.Value]:
        """What an ONNX graph gives for vectors ``(n, band)``, by name: see :mod:`geoemb_xr.core.onnx_graph`.

        Parameters
        ----------
        vectors : Value
            Decoded, zeros where there is no data: what stands there in the end is the graph's business.

        Raises
        ------
        EmbeddingError
            If this kind of model has no such formula.
        """
        raise EmbeddingError(
            f"a {type(self).__name__} cannot be written as ONNX: its class has no formula (as_onnx)"
        )

    # --- one file ------------------------------------------------------------------------------------------

    def to_onnx(self, path: str | os.PathLike[str]) -> Path:
        """Write the model as an ONNX graph, whole or not at all: codes in, what it gives out, decoding inside.

        The input is ``codes (n, band)`` as the product stores them, with ``scale (n,)`` where it has one, or
        ``vectors (n, band)`` of float32 where vectors are stored as floats. Labels are 0 and numbers NaN where
        there is no data. Product, version, bands, classes, attribution and licence stand in the file's metadata,
        and so does the model itself: :func:`geoemb_xr.load_model` reads it back. Needs the extra ``onnx``.

        Parameters
        ----------
        path : path
            ``.onnx`` is added where it has no ending.

        Returns
        -------
        Path
            The path of the file.

        Raises
        ------
        EmbeddingError
            If this kind of model has no such formula.
        MissingExtraError
            If the package ``onnx`` is not installed.
        """
        graph, facts = self.graph(product(self.product).codec if self.product else None)
        return graph.write(with_ending(path, ".onnx"), type(self).__name__, facts)

    def graph(self, codec: Codec | None) -> tuple[onnx_graph.Graph, dict[str, str]]:
        """The model as an ONNX graph that takes codes, or vectors, and what its file says of it.

        Parameters
        ----------
        codec : Codec, optional
            Codec of what comes in.
        """
        from geoemb_xr._version import __version__

        found = product(self.product) if self.product else None
        graph = onnx_graph.Graph()
        unit = found is not None and found.unit_norm
        vectors, valid = onnx_graph.vectors(graph, codec, len(self.bands), unit)
        onnx_graph.declare(graph, self.as_onnx(vectors), valid)
        held = io.BytesIO()
        npz.dump(held, *self._document())
        legend = getattr(self, "legend", None)
        return graph, {
            "product": self.product,
            "version": self.version,
            "bands": json.dumps(self.bands),
            "classes": "" if legend is None else json.dumps(asdict(legend)),
            "attribution": self.attribution,
            "licence": "" if found is None else found.licence_line,
            "software": f"geoemb_xr {__version__}",
            onnx_graph.MODEL: base64.b64encode(held.getvalue()).decode(),
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to one npz file, whole or not at all.

        Parameters
        ----------
        path : path
            ``.npz`` is added where it has no ending.

        Returns
        -------
        Path
            The path of the file.

        Raises
        ------
        EmbeddingError
            If a field holds what neither NumPy nor JSON can write; nothing is written then.
        FileExistsError
            If the path is a folder.
        """
        return npz.write(with_ending(path, ".npz"), *self._document())

    def _document(self) -> tuple[str, dict[str, np.ndarray]]:
        """The header of a file, and its arrays."""
        from geoemb_xr._version import __version__

        arrays: dict[str, np.ndarray] = {}
        header: dict[str, Any] = {"format": _FORMAT, "kind": type(self).__name__, "geoemb_xr": __version__}
        if not _is_own(type(self)):
            header["module"] = type(self).__module__
        for each in fields(self):
            value = getattr(self, each.name)
            name = f"{_ESCAPE}{each.name}" if each.name in _RESERVED else each.name
            if isinstance(value, np.ndarray):
                arrays[name] = value
            elif _holds_arrays(value):
                arrays |= {f"{name}/{key}": np.asarray(array) for key, array in value.items()}
            else:
                header[name] = {"legend": asdict(value)} if isinstance(value, Legend) else value
        header[_ARRAYS] = sorted(arrays)
        try:
            text = json.dumps(header, default=_number)
            _check_arrays(type(self), self.__dict__, arrays)
        except (TypeError, ValueError) as error:
            raise EmbeddingError(f"this {type(self).__name__} cannot be saved: {error}") from error
        return text, arrays

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a model of this class; :func:`geoemb_xr.load_model` reads any."""
        model = read_model(path)
        if not isinstance(model, cls):
            raise SourceError(f"{path} holds a {type(model).__name__}, not a {cls.__name__}")
        return model


def _holds_arrays(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(each, np.ndarray) for each in value.values())


def _same(a: Any, b: Any) -> bool:
    if _holds_arrays(a) and _holds_arrays(b):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f")
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return False
    return bool(a == b)


def read_model(path: str | os.PathLike[str]) -> Fitted:
    """Read a model of any class that is imported, those of other packages included.

    What the headers in the file claim is checked before any array is read: sizes against the file's own, and shapes
    against the bands and classes.

    Parameters
    ----------
    path : path
        An npz file, whose ending may be left out, or one that :meth:`Fitted.to_onnx` wrote. Pickles in it are
        refused.

    Raises
    ------
    SourceError
        If it is not a model of ours, of a class that is not imported, or if its parts do not fit each other.
    """
    try:
        path = existing(path, "file of a model", ".npz", ".onnx")
        source = io.BytesIO(onnx_graph.embedded(path)) if path.suffix == ".onnx" else path
        with npz.opened(source) as (text, shapes, read):
            header = json.loads(text)
            lost = sorted(set(header.pop(_ARRAYS, ())) - set(shapes))  # files of earlier versions name none
            if lost:
                raise ValueError(f"it has lost {', '.join(lost)}")
            kind, values = _class_of(header), _values_of(header)
            _check_shapes(kind, values, shapes)
            arrays = {name: read(name) for name in shapes}
        _check_arrays(kind, values, arrays)
        for name, array in arrays.items():
            field, _, key = name.removeprefix(_ESCAPE).partition("/")
            values |= {field: {**values.get(field, {}), key: array} if key else array}
        return kind(**values)
    except IsADirectoryError as error:
        raise SourceError(f"{path} is a folder, not the file of a model") from error
    except (EmbeddingError, ImportError, MemoryError, OSError):
        raise
    except Exception as error:  # of zip, zlib, or NumPy, which reads headers as Python
        raise SourceError(f"{path} is not a model that this version of geoemb_xr reads: {error}") from error


def _class_of(header: dict[str, Any]) -> type[Fitted]:
    """Remove from a header its class and all else that is not a field, and return the class."""
    if header.pop("format", None) != _FORMAT:
        raise ValueError("it has another format")
    header.pop("geoemb_xr", None)
    name, module = str(header.pop("kind")), str(header.pop("module", ""))
    own = [each for each in _classes.values() if each.__name__ == name]
    exact = [each for each in own if each.__module__ == module or (not module and _is_own(each))]
    for each in exact or own:
        return each
    known = sorted({each.__name__ for each in _classes.values()})
    raise ValueError(
        f"it holds a {name!r}; known are {', '.join(known)}: import {module or 'the package of it'} first"
    )


def _is_own(kind: type[Fitted]) -> bool:
    return kind.__module__.partition(".")[0] == __name__.partition(".")[0]


def _values_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """Restore fields from a header: lists become tuples, and the legend is rebuilt."""
    values = {}
    for name, value in header.items():
        if isinstance(value, dict) and set(value) == {"legend"} and isinstance(value["legend"], dict):
            value = Legend(*(tuple(value["legend"][f.name]) for f in fields(Legend)))
        values[name.removeprefix(_ESCAPE)] = tuple(value) if isinstance(value, list) else value
    return values


def _check_shapes(
    kind: type[Fitted], values: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise a ValueError unless the shapes of a model's arrays fit each other, its bands and its classes."""
    lengths: dict[str, int] = {}
    if values.get("bands"):
        lengths["band"] = len(values["bands"])
    if "legend" in values:
        lengths["score"] = 1 if values["legend"] is None else len(values["legend"].values)
    for name, dims in kind.shapes(shapes).items():
        shape = shapes.get(name, ())
        fitting = tuple(
            each if isinstance(each, int) else lengths.setdefault(each, size)
            for each, size in zip(dims, shape, strict=False)
        )
        if len(dims) != len(shape) or fitting != shape:
            known = ", ".join(
                f"{dim} {lengths[dim]}" for dim in dims if isinstance(dim, str) and dim in lengths
            )
            raise ValueError(f"its {name!r} has shape {shape}, which does not fit the others ({known})")


def _check_arrays(kind: type[Fitted], values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Raise a ValueError unless a model's arrays fit each other, hold no objects, and what it applies is finite.

    A single number may be infinite, as a temperature is.
    """
    _check_shapes(kind, values, {name: each.shape for name, each in arrays.items()})
    applied = kind.shapes(arrays)
    for name, each in arrays.items():
        if each.dtype.hasobject:
            raise ValueError(f"its {name!r} holds Python objects")
        if name not in applied or each.dtype.kind != "f":
            continue
        if np.isnan(each).any() or (each.ndim and not np.isfinite(each).all()):
            raise ValueError(f"its {name!r} has values that are not finite")


def _number(value: Any) -> Any:
    """NumPy's numbers as JSON has them."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(
        f"a field holds a {type(value).__name__}; it may be an array, a number, text, or what JSON has"
    )


def check_model(model: Fitted, array: xr.DataArray, what: str) -> None:
    """Raise unless a model was fitted on the same product, version and bands as an array has.

    Raises
    ------
    ComparabilityError
        If product or version differ.
    EmbeddingError
        If the bands differ.
    """
    if model.product:
        check_comparable(what, (model.product, model.version), comparability_key(array))
    own = decoded_bands(array)
    if model.bands and own != model.bands:
        raise EmbeddingError(
            f"{what}: the model takes {len(model.bands)} bands {list(model.bands[:3])}…, the array has "
            f"{len(own)}: {list(own[:3])}…; select them in the model's order first"
        )


def decoded_bands(array: xr.DataArray) -> tuple[str, ...]:
    """Band labels that an array has once decoded."""
    if is_encoded(array):
        codec = product(array.attrs["product"]).codec
        if codec is not None and codec.bands:
            return codec.bands
    return tuple(array.coords[BAND].values.astype(str).tolist())
