"""Estimators and pipelines of scikit-learn as methods of a probe: folds, scores and calibration as ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.legend import Legend
from geoemb_xr.probes.classes import by_position
from geoemb_xr.probes.heads import HEADS, Data, Head, Parameters, Task


def named(method: Any) -> tuple[str, Head]:
    """Resolve ``method=``: the name of a built-in method, or an estimator and its head.

    Raises
    ------
    EmbeddingError
        If it is neither.
    """
    if isinstance(method, str):
        try:
            return method, HEADS[check_choice("method", method, HEADS)]
        except ValueError as error:
            raise ValueError(
                f"{error} Estimators of scikit-learn do too, such as method=LinearSVC()"
            ) from None
    head = head_of(method)
    return name_of(method), head


def head_of(estimator: Any) -> Head:
    """An estimator as a head; it is copied for every fit, and itself left as it is.

    A ``random_state`` that is not given is the seed of the probe, so that the same call gives the same probe.

    Parameters
    ----------
    estimator : object
        A classifier or regressor of scikit-learn's interface, or a pipeline that ends in one.

    Raises
    ------
    EmbeddingError
        If it is none.
    """
    from sklearn.base import is_classifier, is_regressor

    if isinstance(estimator, type) or not (hasattr(estimator, "fit") and hasattr(estimator, "get_params")):
        name = estimator.__name__ if isinstance(estimator, type) else type(estimator).__name__
        raise EmbeddingError(
            "method= is the name of a method, or an estimator or pipeline of scikit-learn such as "
            f"RandomForestClassifier(); got {name}" + ("; call it" if isinstance(estimator, type) else "")
        )
    tasks: tuple[Task, ...] = ("classification",) if is_classifier(estimator) else ()
    if is_regressor(estimator):
        tasks = (*tasks, "regression")
    if not tasks:
        raise EmbeddingError(
            f"{name_of(estimator)} is neither a classifier nor a regressor; a probe needs one"
        )

    def fit(data: Data) -> dict[str, Any]:
        from sklearn.base import clone

        own = clone(estimator)
        drawn = {name for name, value in own.get_params().items() if value is None}
        own.set_params(**{name: data.seed for name in drawn if name.split("__")[-1] == "random_state"})
        own.fit(data.x, data.y, **_weights(own, data.weights))
        return {"estimator": own}

    return Head(fit, estimator_scores, tasks, {})


def with_class_weights(method: Any, legend: Legend) -> Any:
    """An estimator, or a pipeline of some, whose ``class_weight`` by class is by position, as it is fitted."""
    stated = {k: v for k, v in method.get_params().items() if k.split("__")[-1] == "class_weight"}
    if not any(isinstance(each, Mapping) for each in stated.values()):
        return method
    from sklearn.base import clone

    return clone(method).set_params(**{name: by_position(each, legend) for name, each in stated.items()})


def name_of(estimator: Any) -> str:
    """The class of an estimator, of a pipeline that of its last step."""
    return type(estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator).__name__


@contextmanager
def naming_method(method: str) -> Iterator[None]:
    """Turn an error of scikit-learn into one of ours that names the method."""
    try:
        yield
    except EmbeddingError:
        raise
    except (TypeError, ValueError) as error:
        raise EmbeddingError(f"method={method!r} cannot be fitted so: {error}") from error


def _weights(estimator: Any, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Weights as keywords of ``fit``; none where they are equal."""
    if np.ptp(weights) == 0:
        return {}
    keyword = _keyword(estimator)
    if keyword is None:
        raise EmbeddingError(
            f"{name_of(estimator)} takes no weights; leave weights= out, or use another method"
        )
    return {keyword: weights / weights.mean()}


def _keyword(estimator: Any) -> str | None:
    """The keyword by which ``fit`` takes weights, through pipelines and searches; None where it takes none."""
    from sklearn.utils.validation import has_fit_parameter

    if {"estimator", "refit"} <= estimator.get_params(
        deep=False
    ).keys():  # a search, which hands on what it gets
        return _keyword(estimator.estimator)
    if hasattr(estimator, "steps"):
        name, last = estimator.steps[-1]
        inner = _keyword(last)
        return None if inner is None else f"{name}__{inner}"
    return "sample_weight" if has_fit_parameter(estimator, "sample_weight") else None


def estimator_scores(parameters: Parameters, x: np.ndarray) -> np.ndarray:
    """Log of probabilities, or what the decision rests on, or the value."""
    from sklearn.base import is_classifier

    estimator: Any = parameters["estimator"]
    rows = np.ascontiguousarray(x.T)
    if not is_classifier(estimator):
        return np.asarray(estimator.predict(rows), np.float32).reshape(1, len(rows))
    if hasattr(estimator, "predict_proba"):
        found = np.log(np.maximum(estimator.predict_proba(rows), 1e-6))
    elif hasattr(estimator, "decision_function"):
        found = np.asarray(estimator.decision_function(rows))
        found = np.column_stack([-found / 2, found / 2]) if found.ndim == 1 else found
    else:
        found = np.log(np.maximum(estimator.predict(rows)[:, None] == estimator.classes_, 1e-6))
    return np.ascontiguousarray(found.T, np.float32)
