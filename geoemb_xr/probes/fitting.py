"""Fitting of probes: from labels to a fitted probe with held-out scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.fitted import decoded_bands
from geoemb_xr.core.model import attribution_of, check_embedding, comparability_key
from geoemb_xr.core.notes import say
from geoemb_xr.execution.threads import one_thread
from geoemb_xr.geo import tables
from geoemb_xr.probes import estimators, heads, labelling, streaming, validation
from geoemb_xr.probes.checking import checked
from geoemb_xr.probes.classes import (
    by_name,
    by_position,
    counts_of,
    data_of,
    describe_labels,
    left_out,
)
from geoemb_xr.probes.heads import HEADS, Data
from geoemb_xr.probes.memory import Memory
from geoemb_xr.probes.probe import Method, Probe
from geoemb_xr.probes.samples import plain_samples, points_of_table, samples_of


def fit_probe(
    array: Any,
    labels: Any = None,
    *,
    target: str | None = None,
    method: Method | Any = "logistic",
    time: Any = None,
    group: Any = None,
    weights: Any = None,
    n_samples: int | Literal["all"] | None = None,
    cv: int = 5,
    seed: int = 0,
    **options: Any,
) -> Probe:
    """Fit a probe on labels. Computes: reads the blocks that hold labels.

    Parameters
    ----------
    array : DataArray (…, band, …), DataFrame or ndarray (n, band)
        An embedding, encoded or decoded; a table with a column per band, places and labels; or plain vectors.
    labels : table with lon and lat, GeoDataFrame, path, raster, or array (n,)
        Labels. Texts, booleans and whole numbers are classes, floats are values (regression).
        Labels without data are dropped and counted. None takes the coordinate ``target`` of points.
    target : str, optional
        The column of labels; the only one left, or the one called ``label``, by default.
    method : {"ridge", "logistic", "knn", "centroid", "mlp"} or estimator
        All but ``logistic`` and ``centroid`` do regression too; ``centroid`` is for a few labels per class,
        ``mlp`` needs the extra ``torch`` to be fitted (not to be applied). A classifier or regressor of
        scikit-learn, or a pipeline, gets the same folds, scores, calibration and area of applicability.
    time : str, int, optional
        The column of dates of labels, or the one year they all hold for. Needed where the array has several.
    group : str or array, optional
        Groups that each split keeps together; by default each polygon, or each pixel over all years.
    weights : str or array, optional
        Weights of the labels.
    n_samples : int or "all", optional
        With a label raster: how many pixels of each class (or in all, of values) are drawn, 500 by default.
        ``"all"``, with ``method="ridge"``, takes every labelled pixel in one pass of sums over the blocks, on a
        cluster's workers too, and scores it on 500 of each class.
    cv : int
        Number of folds, of left-out regions and of random groups, for scores, calibration and the area of
        applicability; 0 for none.
    seed : int
        Seed of all that is drawn.
    **options
        Options of the method, with scikit-learn's names: ``C`` and ``class_weight`` (logistic; a number per class
        by its name, or ``"balanced"``), ``alpha`` (ridge),
        ``n_neighbors``, ``metric`` and ``temperature`` (knn). Penalties act on vectors that are divided by one
        number, so that one penalty suits all products: ``C`` where their total variance is 1, ``alpha`` where the
        mean variance of a band is 1. By default ``alpha`` is the number of labels for classes, and 0.03 of it for
        values. Nothing is tuned by default, since a penalty that is tuned in one region fits that region only.
        An option that is a list is tuned inside the training part of each fold. ``C="auto"`` and
        ``alpha="auto"`` take the strongest penalty within one standard error of the best. Tuning leaves out the
        groups that ``group`` names where there are three or more, else regions.

    Returns
    -------
    Probe
        Small, frozen, saved with ``save``.

    Raises
    ------
    EmbeddingError
        If there is nothing to learn from, labels of several years have no date, or the method cannot do it.
    CoverageError
        If no label lies in the array.
    SourceError
        If a file of labels is missing or of another kind.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(128, 128)).emb.year(2018)
    >>> probe = da.emb.fit_probe(gx.testing.scene().points(120, radius=600), target="land_cover")
    >>> probe.legend.names[:2]
    ('built-up', 'forest')
    """
    given, (method, head) = method, estimators.named(method)
    if isinstance(cv, bool) or cv < 0 or cv == 1:
        raise EmbeddingError(f"cv is a number of folds, 2 or more, or 0 for none; got {cv!r}")
    streamed: streaming.Streamed | None = None
    if labels is None and tables.is_table(array):
        array = points_of_table(array)
    if isinstance(array, xr.DataArray):
        check_embedding(array, "fit_probe")
        if n_samples == "all":
            raster = _raster_for_sums(labels, method, time=time, group=group, weights=weights)
            streamed = streaming.stream(array, raster, cv, seed)
            samples, target = streamed.samples, target or str("label" if raster.name is None else raster.name)
        else:
            samples, target = samples_of(array, labels, target, time, group, weights, n_samples)
    else:
        if n_samples is not None:
            raise EmbeddingError("n_samples draws from a label raster; plain arrays are all used")
        samples, target = plain_samples(array, labels, group, weights), target or "label"
    task, data, legend = data_of(samples, seed)
    _check_task(head, method, task, samples.labels.dtype)
    settings = _settings(head, method, options)
    if legend is not None and "class_weight" in settings:
        settings["class_weight"] = by_position(settings["class_weight"], legend)
    elif legend is not None and not isinstance(given, str):
        head = estimators.head_of(estimators.with_class_weights(given, legend))
    say(describe_labels(data, legend, target) + left_out(samples.dropped))

    # what is fitted is small: threads would cost more than they give
    with one_thread(), estimators.naming_method(method):
        if streamed is None:
            learnt = _learn(data, head, settings, cv)
        else:
            learnt = _learn_from_sums(streamed, data, head, settings, cv)
        tested = checked(data, head, learnt.folds, learnt.held_out)
    return Probe(
        **_space_of(array),
        method=method,
        task=task,
        target=target,
        legend=legend,
        parameters=learnt.parameters,
        options=json.loads(json.dumps(learnt.options, default=str)),  # as a file would give them back
        counts=counts_of(data, legend) if streamed is None else by_name(streamed.counts, legend),
        dropped=dict(samples.dropped),
        memory=_memory(data, learnt.folds, streamed).arrays() if method == "ridge" else {},
        **tested,
    )


def _check_task(head: heads.Head, method: str, task: heads.Task, dtype: np.dtype[Any]) -> None:
    """Raise unless a method does what labels of a data type ask for."""
    if task in head.tasks:
        return
    able = [name for name, each in HEADS.items() if task in each.tasks]
    hint = "; codes of classes are whole numbers: .astype(int), gaps filled and declared first"
    raise EmbeddingError(
        f"method={method!r} does no {task} (labels are {dtype}); use {able}"
        + (hint if task == "regression" else "")
    )


def _settings(head: heads.Head, method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a method: those that were given, and the defaults of the others."""
    unknown = sorted(set(options) - set(head.options))
    if unknown:
        raise EmbeddingError(f"method={method!r} has no option {unknown}; it has {list(head.options)}")
    return {**head.options, **options}


def _space_of(array: Any) -> dict[str, Any]:
    """Product, version, bands and attribution of what a probe is fitted on; empty for plain vectors."""
    if not isinstance(array, xr.DataArray):
        return {"product": "", "version": "", "bands": (), "attribution": ""}
    product, version = comparability_key(array)
    bands, attribution = decoded_bands(array), attribution_of(array)
    return {"product": product, "version": version, "bands": bands, "attribution": attribution}


@dataclass(frozen=True)
class _Learnt:
    """Parameters, the options that were chosen for them, and held-out scores by kind of folds."""

    parameters: Mapping[str, np.ndarray]
    options: Mapping[str, Any]
    folds: Mapping[str, np.ndarray]
    held_out: Mapping[str, np.ndarray]


def _learn(data: Data, head: heads.Head, settings: Mapping[str, Any], cv: int) -> _Learnt:
    """Fit on all samples, and on all but each fold."""

    def fit(train: Data) -> tuple[heads.Head, Mapping[str, np.ndarray]]:
        return head, head.fit(train, **validation.tuned(head, train, settings, cv))

    chosen = validation.tuned(head, data, settings, cv)
    both = {"blocked": validation.blocked_folds(data, cv), "random": validation.random_folds(data, cv)}
    folds = {name: each for name, each in both.items() if each is not None}
    held_out = {name: validation.held_out(fit, data, each) for name, each in folds.items()}
    return _Learnt(head.fit(data, **chosen), _for_labels(chosen, len(data.y)), folds, held_out)


def _learn_from_sums(
    streamed: streaming.Streamed, data: Data, head: heads.Head, settings: Mapping[str, Any], cv: int
) -> _Learnt:
    """Fit ridge on the sums of all pixels; ``data`` are some of them, on which it is scored."""
    chosen, total = validation.tuned(head, data, settings, cv), streamed.total()
    held_out = streamed.held_out(data, lambda train: validation.tuned(head, train, settings, cv)["alpha"])
    parameters = total.solve(heads.penalty(chosen["alpha"], total.count, data.classes))
    options = _for_labels(chosen, int(streamed.counts.sum()))
    return _Learnt(parameters, options, dict(streamed.folds), held_out)


def _for_labels(options: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Options with penalties for a number of labels as numbers."""
    return {k: v * count if isinstance(v, heads.PerLabel) else v for k, v in options.items()}


def _memory(data: Data, folds: Mapping[str, np.ndarray], streamed: streaming.Streamed | None) -> Memory:
    own = folds.get("blocked", folds.get("random"))
    if streamed is None:
        return Memory.of(data, own)
    return Memory(streamed.by_fold(), data, np.zeros(len(data.y), np.int64) if own is None else own)


def _raster_for_sums(labels: Any, method: str, **others: Any) -> xr.DataArray:
    """The label raster of ``n_samples="all"``; an error for what cannot be summed."""
    if method != "ridge":
        raise EmbeddingError(
            f"n_samples='all' adds up sums block by block, which only method='ridge' is made of; got {method!r}: "
            "give a number, or draw with gx.labels(raster, per_class=…)"
        )
    given = sorted(name for name, value in others.items() if value is not None)
    raster = labelling.read_labels(labels)
    if not isinstance(raster, xr.DataArray) or given:
        what = f"with {given}" if given else f"with {type(raster).__name__}"
        raise EmbeddingError(f"n_samples='all' takes a label raster (y, x) and nothing else; got it {what}")
    return raster
