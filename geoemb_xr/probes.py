"""Probes: a few labels, and what a linear (or as plain) model makes of the embedding with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from geoemb_xr import heads, labelling
from geoemb_xr.fitted import Fitted, Output, decoded_bands
from geoemb_xr.heads import HEADS, Data
from geoemb_xr.legend import Legend, encode_classes
from geoemb_xr.model import (
    EmbeddingError,
    attribution_of,
    check_choice,
    check_embedding,
    comparability_key,
    say,
)

Method = Literal["ridge", "logistic"]


@dataclass(frozen=True, eq=False)
class Probe(Fitted):
    """A fitted probe: what :func:`fit_probe` gives and ``predict`` applies.

    Parameters
    ----------
    product, version, bands, attribution
        As in :class:`~geoemb_xr.fitted.Fitted`.
    method : str
        A name in :data:`geoemb_xr.heads.HEADS`.
    task : {"classification", "regression"}
        What it does.
    target : str
        What was labelled.
    legend : Legend or None
        The classes; None for regression.
    parameters : mapping of str to ndarray
        Of the method.
    options : mapping
        Of the method, as fitted.
    temperature : float
        Scores are divided by it before they become probabilities.
    counts : mapping of str to int
        Labels a class (or in all).
    dropped : mapping of str to int
        Labels that were left out, by reason.
    scores : mapping of str to mapping
        ``blocked`` and ``random``: held-out scores.
    """

    method: str
    task: heads.Task
    target: str
    legend: Legend | None
    parameters: Mapping[str, np.ndarray]
    options: Mapping[str, Any]
    temperature: float
    counts: Mapping[str, int]
    dropped: Mapping[str, int]
    scores: Mapping[str, Mapping[str, float]]

    default_output: ClassVar[str] = "label"

    def outputs(self) -> Mapping[str, Output]:
        """What ``predict`` can give with it."""
        if self.legend is None:
            return {"value": Output("float32", attrs={"long_name": self.target})}
        legend = self.legend
        return {
            "label": Output(str(legend.dtype), missing=0, attrs={"long_name": self.target, **legend.attrs()}),
            "proba": Output("float32", "category", legend.names, attrs={"long_name": "probability"}),
            "margin": Output("float32", attrs={"long_name": "best probability minus the second"}),
            "entropy": Output("float32", attrs={"long_name": "entropy of the probabilities", "units": "nat"}),
        }

    def apply(self, vectors: np.ndarray, output: str) -> np.ndarray:
        """An output for vectors ``(n, band)``."""
        return self.derive(HEADS[self.method].scores(self.parameters, vectors), output)

    def derive(self, scores: np.ndarray, output: str) -> np.ndarray:
        """An output from the scores ``(n, classes)`` of a block."""
        if self.legend is None:
            return scores[:, 0]
        if output == "label":
            return np.asarray(self.legend.values, self.legend.dtype)[scores.argmax(axis=1)]
        proba = softmax(scores / np.float32(self.temperature))
        if output == "proba":
            return proba
        if output == "margin":
            best = np.partition(proba, -2, axis=1)
            return np.asarray(best[:, -1] - best[:, -2])
        return -np.sum(proba * np.log(np.maximum(proba, np.finfo(np.float32).tiny)), axis=1)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities ``(n, classes)`` of scores."""
    exp = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


def fit_probe(
    array: Any,
    labels: Any = None,
    *,
    target: str | None = None,
    method: Method = "logistic",
    time: Any = None,
    group: Any = None,
    weights: Any = None,
    cv: int = 5,
    seed: int = 0,
    **options: Any,
) -> Probe:
    """Fit a probe on labels. Computes: reads the blocks that hold labels.

    Parameters
    ----------
    array : DataArray (…, band, …) or ndarray (n, band)
        An embedding, encoded or decoded; or plain vectors.
    labels : table with lon and lat, GeoDataFrame, path, or array (n,)
        What is known. Texts, booleans and whole numbers are classes, floats are values (regression).
        Labels without data are dropped and counted. None takes the coordinate ``target`` of points.
    target : str, optional
        The column of labels; the only one left, by default.
    method : {"ridge", "logistic"}
        Of classification both; of regression ``ridge``.
    time : str, int, optional
        The column of dates of labels, or the one year they all hold for. Needed where the array has several.
    group : str or array, optional
        What no split parts; by default the polygon, or the pixel whatever the year.
    weights : str or array, optional
        Of the labels.
    cv : int
        Number of folds for the scores; 0 for none.
    seed : int
        Of whatever is drawn.
    **options
        Of the method, with scikit-learn's names: ``C``, ``class_weight``, ``alpha``.

    Returns
    -------
    Probe
        Small, frozen, saved with ``save``.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(128, 128)).emb.year(2018)
    >>> probe = da.emb.fit_probe(gx.testing.scene().points(120, radius=600), target="land_cover")
    >>> probe.legend.names[:2]
    ('built-up', 'forest')
    """
    check_choice("method", method, HEADS)
    if isinstance(array, xr.DataArray):
        check_embedding(array, "fit_probe")
        samples, target = labelling.samples_of(array, labels, target, time, group, weights)
        product, version = comparability_key(array)
        bands, attribution = decoded_bands(array), attribution_of(array)
    else:
        samples = labelling.plain_samples(array, labels, group, weights)
        product = version = attribution = ""
        bands, target = (), target or "label"
    task, data, legend = _data_of(samples, seed)
    head = HEADS[method]
    if task not in head.tasks:
        able = [name for name, each in HEADS.items() if task in each.tasks]
        raise EmbeddingError(
            f"method={method!r} does no {task} (labels are {samples.labels.dtype}); use {able}"
        )
    unknown = sorted(set(options) - set(head.options))
    if unknown:
        raise EmbeddingError(f"method={method!r} has no option {unknown}; it has {list(head.options)}")
    settings = {**head.options, **options}
    say(_what(task, data, legend, target))
    return Probe(
        product=product,
        version=version,
        bands=bands,
        attribution=attribution,
        method=method,
        task=task,
        target=target,
        legend=legend,
        parameters=head.fit(data, **settings),
        options=settings,
        temperature=1.0,
        counts=_counts(data, legend),
        dropped=dict(samples.dropped),
        scores={},
    )


def _data_of(samples: labelling.Samples, seed: int) -> tuple[heads.Task, Data, Legend | None]:
    y = samples.labels
    rest = (samples.weights, samples.groups)
    if y.dtype.kind == "f":
        return "regression", Data(samples.vectors, y.astype(np.float64), *rest, 0, seed), None
    codes, legend = encode_classes(y)
    if samples.legend is not None:
        legend = samples.legend
    if len(legend.values) < 2:
        raise EmbeddingError(f"all {len(y)} labels are of one class, {legend.names[0]!r}; a probe needs two")
    positions = np.searchsorted(legend.values, codes)
    return "classification", Data(samples.vectors, positions, *rest, len(legend.values), seed), legend


def _what(task: heads.Task, data: Data, legend: Legend | None, target: str) -> str:
    if legend is None:
        return f"{target!r} is floats: regression on {len(data.y)} labels (whole numbers would be classes)"
    return f"{target!r}: classification of {len(data.y)} labels in {data.classes} classes"


def _counts(data: Data, legend: Legend | None) -> dict[str, int]:
    if legend is None:
        return {"all": len(data.y)}
    numbers = np.bincount(data.y, minlength=data.classes)
    return {name: int(n) for name, n in zip(legend.names, numbers, strict=True)}
