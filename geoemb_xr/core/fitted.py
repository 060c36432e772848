"""Fitted models: small frozen objects of NumPy arrays, saved to one npz file without pickles.

A subclass is a frozen dataclass whose fields are arrays, mappings of arrays, numbers, strings, tuples of
strings, mappings as JSON has them, or a :class:`~geoemb_xr.core.legend.Legend`. It says what it can give
(:meth:`Fitted.outputs`) and computes it for rows of vectors (:meth:`Fitted.apply`); ``predict`` does the rest
for every kind of model alike.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.core.legend import Legend
from geoemb_xr.core.model import BAND, check_comparable, comparability_key, is_encoded, product

_FORMAT = "geoemb_xr-model-1"
_classes: dict[str, type[Fitted]] = {}


@dataclass(frozen=True)
class Output:
    """What a model gives for a vector.

    Parameters
    ----------
    dtype : str
        Of the map.
    dim : str or None
        Name of the dimension beside y and x (``component``, ``category``), None for a plain map.
    labels : sequence
        Along ``dim``.
    missing : float
        What a pixel without data gets: 0 in a class map, NaN elsewhere.
    attrs : mapping
        Of the map.
    """

    dtype: str
    dim: str | None = None
    labels: Sequence[Any] = ()
    missing: float = float("nan")
    attrs: Mapping[str, Any] | None = None


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
        What must travel with it.
    """

    product: str
    version: str
    bands: tuple[str, ...]
    attribution: str

    default_output: ClassVar[str] = "label"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _classes[cls.__name__] = cls

    def outputs(self) -> Mapping[str, Output]:
        """What :meth:`apply` can give, by name."""
        raise NotImplementedError  # the base class alone is no model

    def apply(self, vectors: np.ndarray, output: str) -> np.ndarray:
        """Compute an output for vectors ``(n, band)``, float32 without NaN: shape (n,) or (n, k)."""
        raise NotImplementedError  # the base class alone is no model

    def predict(self, array: xr.DataArray, **options: Any) -> Any:
        """The same as ``array.emb.predict(model, …)``."""
        return array.emb.predict(self, **options)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(
            _same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)
        )

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.product, self.version, self.bands))

    # --- one file ------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to one npz file, whole or not at all.

        Parameters
        ----------
        path : path
            ``.npz`` is added where it has no ending.

        Returns
        -------
        Path
            Where it is.
        """
        from geoemb_xr._version import __version__

        target = Path(path)
        target = target if target.suffix else target.with_suffix(".npz")
        arrays: dict[str, np.ndarray] = {}
        header: dict[str, Any] = {"format": _FORMAT, "kind": type(self).__name__, "geoemb_xr": __version__}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, np.ndarray):
                arrays[each.name] = value
            elif _holds_arrays(value):
                arrays |= {f"{each.name}/{key}": array for key, array in value.items()}
            else:
                header[each.name] = {"legend": asdict(value)} if isinstance(value, Legend) else value
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, allow_pickle=False, header=np.array(json.dumps(header)), **arrays)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return target

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
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return (
            isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.array_equal(a, b, equal_nan=True)
        )
    return bool(a == b)


def read_model(path: str | os.PathLike[str]) -> Fitted:
    """Read a model of any class that is imported, those of other packages included.

    Parameters
    ----------
    path : path
        An npz file. Pickles in it are refused.

    Raises
    ------
    SourceError
        If it is no model of ours, or of a class that is not imported.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            header = json.loads(str(stored["header"]))
            arrays = {name: stored[name] for name in stored.files if name != "header"}
    except (ValueError, KeyError, zipfile.BadZipFile, TypeError) as error:
        raise SourceError(f"{path} is not a model that geoemb_xr saved ({error})") from error
    if not isinstance(header, dict) or header.pop("format", None) != _FORMAT:
        raise SourceError(f"{path} is not a model that geoemb_xr saved in a format this version reads")
    kind = str(header.pop("kind"))
    header.pop("geoemb_xr", None)
    if kind not in _classes:
        raise SourceError(
            f"{path} holds a {kind!r}; known are {', '.join(sorted(_classes))}: import the package that defines it"
        )
    values: dict[str, Any] = {}
    for name, array in arrays.items():
        field, _, key = name.partition("/")
        values |= {field: {**values.get(field, {}), key: array} if key else array}
    for name, value in header.items():
        if isinstance(value, dict) and set(value) == {"legend"}:
            value = Legend(*(tuple(value["legend"][f.name]) for f in fields(Legend)))
        values[name] = tuple(value) if isinstance(value, list) else value
    try:
        return _classes[kind](**values)
    except TypeError as error:
        raise SourceError(f"{path} holds a {kind} of another version of geoemb_xr ({error})") from error


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
