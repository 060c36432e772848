"""From samples to the data of a head: classes become positions, named by a legend."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.legend import Legend, encode_classes
from geoemb_xr.probes.heads import Data, Task
from geoemb_xr.probes.samples import Samples

if TYPE_CHECKING:
    from geoemb_xr.probes.probe import Probe


def data_of(samples: Samples, seed: int) -> tuple[Task, Data, Legend | None]:
    """Return the task of labels, the targets of a head, and the legend of its classes (None for values)."""
    y = samples.labels
    rest: Any = {
        "weights": samples.weights,
        "groups": _regrouped(samples.groups),
        "places": samples.places,
        "named": samples.named,
    }
    if y.dtype.kind == "f":
        return "regression", Data(samples.vectors, y.astype(np.float64), classes=0, seed=seed, **rest), None
    positions, legend = encoded(y, samples.legend)
    data = Data(samples.vectors, positions, classes=len(legend.values), seed=seed, **rest)
    return "classification", data, legend


def known_data(probe: Probe, samples: Samples) -> Data:
    """New labels with the positions of a probe's classes."""
    bands = probe.memory["x"].shape[1]
    if samples.vectors.shape[1] != bands:
        raise EmbeddingError(
            f"the probe takes {bands} bands; the new vectors have {samples.vectors.shape[1]}"
        )
    groups = _regrouped(samples.groups)
    rest = (samples.weights, groups, 0, 0, samples.places, samples.named)
    if (probe.legend is None) != (samples.labels.dtype.kind == "f"):
        raise EmbeddingError(f"the probe does {probe.task}; the new labels are {samples.labels.dtype}")
    if probe.legend is None:
        return Data(samples.vectors, samples.labels.astype(np.float64), *rest)
    coded = samples.labels.dtype.kind in "iu" and not set(map(str, samples.labels)) <= set(probe.legend.names)
    known = probe.legend.values if coded else probe.legend.names
    place = {each: i for i, each in enumerate(known)}
    written = samples.labels.tolist() if coded else list(map(str, samples.labels))
    unknown = sorted(set(written) - set(place), key=str)
    if unknown:
        raise EmbeddingError(
            f"the new labels have classes {unknown} that the probe does not know: {list(known)}; fit anew on all"
        )
    positions = np.array([place[each] for each in written])
    return Data(samples.vectors, positions, *rest)._replace(classes=len(known))


def encoded(labels: np.ndarray, known: Legend | None) -> tuple[np.ndarray, Legend]:
    """Positions of labels among the classes that they are of, and those classes.

    Parameters
    ----------
    labels : ndarray of str, bool or int (n,)
    known : Legend, optional
        Names of codes, and colours of codes and names.

    Raises
    ------
    EmbeddingError
        If there are codes that it does not name, only one class, or hardly two labels of a class.
    """
    colours = {} if known is None else dict(zip(known.names, known.colours, strict=True))
    codes, legend = encode_classes(labels, colours=colours)
    if len(legend.values) < 2:
        raise EmbeddingError(
            f"all {len(labels)} labels are of one class, {legend.names[0]!r}; a probe needs two"
        )
    if len(labels) > 20 and len(legend.values) > len(labels) / 2:
        raise EmbeddingError(
            f"{len(labels)} labels are of {len(legend.values)} classes ({', '.join(legend.names[:3])}, …), so most "
            "classes have one label: is this the column of labels? For values give floats (regression)"
        )
    positions = np.searchsorted(legend.values, codes)
    if known is None or labels.dtype.kind not in "iu":  # texts name themselves
        return positions, legend
    entries = {v: (v, n, c) for v, n, c in zip(known.values, known.names, known.colours, strict=True)}
    unnamed = [v for v in legend.values if v not in entries]
    if unnamed:
        raise EmbeddingError(
            f"the labels have classes {unnamed} that their legend does not name: {known.values}"
        )
    return positions, Legend(
        *(tuple(column) for column in zip(*(entries[v] for v in legend.values), strict=True))
    )


def _regrouped(groups: np.ndarray) -> np.ndarray:
    """Groups numbered without gaps, after labels were dropped."""
    return np.unique(groups, return_inverse=True)[1]


def by_position(given: Any, legend: Legend) -> Any:
    """Weights of classes by their position, where they are given by name or by code; anything else as it is.

    Parameters
    ----------
    given : mapping of class to number, or anything else
        The value of ``class_weight``; a list holds several to choose from.
    legend : Legend
        The classes, in the order of their positions.

    Raises
    ------
    EmbeddingError
        If one names a class that the labels do not have, or is not a number.

    Examples
    --------
    >>> by_position({"rye": 2.0}, Legend.of_names(["oats", "rye"]))
    {1: 2.0}
    """
    if isinstance(given, list | tuple):
        return [by_position(each, legend) for each in given]
    if not isinstance(given, Mapping):
        return given
    keys = [str(int(k)) if isinstance(k, float | np.floating) and k.is_integer() else str(k) for k in given]
    places = {str(code): i for i, code in enumerate(legend.values)}
    if set(keys) & set(legend.names) or not set(keys) <= set(places):
        places = {name: i for i, name in enumerate(legend.names)}
    unknown = [key for key in keys if key not in places]
    if unknown:
        raise EmbeddingError(
            f"class_weight has the classes {unknown}, which are not among those of the labels: "
            f"{list(legend.names[:20])}"
        )
    wrong = [each for each in given.values() if not (isinstance(each, Real) and 0 <= float(each) < np.inf)]
    if wrong:
        raise EmbeddingError(f"class_weight has a finite number of 0 or more per class; got {wrong[0]!r}")
    return dict(zip((places[key] for key in keys), given.values(), strict=True))


def counts_of(data: Data, legend: Legend | None) -> dict[str, int]:
    """Labels per class, or in all."""
    return by_name(np.bincount(data.y, minlength=data.classes) if legend else np.array([len(data.y)]), legend)


def by_name(numbers: np.ndarray, legend: Legend | None) -> dict[str, int]:
    """A number per class by its name, or the one of all."""
    names = legend.names if legend is not None else ("all",)
    return {name: int(n) for name, n in zip(names, numbers, strict=True)}


def describe_labels(data: Data, legend: Legend | None, target: str) -> str:
    """Describe how the labels were interpreted."""
    if legend is None:
        return f"{target!r} is floats: regression on {len(data.y)} labels (whole numbers would be classes)"
    return f"{target!r}: classification of {len(data.y)} labels in {data.classes} classes"


def left_out(dropped: Mapping[str, int]) -> str:
    """How many labels were left out and why, in words."""
    reasons = ", ".join(f"{n} ({reason})" for reason, n in dropped.items() if n)
    return f"; left out: {reasons}" if reasons else ""
