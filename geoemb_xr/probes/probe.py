"""Probes: linear and other simple models that are fitted on a few labels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.fitted import Fitted, Output, check_model
from geoemb_xr.core.legend import Legend
from geoemb_xr.core.onnx_graph import Value
from geoemb_xr.geo import tables
from geoemb_xr.probes import estimators, heads
from geoemb_xr.probes.applicability import dissimilarity, dissimilarity_onnx
from geoemb_xr.probes.heads import HEADS
from geoemb_xr.probes.samples import plain_samples, points_of_table, samples_of
from geoemb_xr.probes.scores import best_class, quantile, softmax
from geoemb_xr.probes.updating import updated

Method = Literal["ridge", "logistic", "knn", "centroid", "mlp"]
#: How far a map may be trusted, as a class map.
AOA = Legend((1, 2), ("inside", "outside"), ("#2f6b3a", "#b5483a"))


@dataclass(frozen=True, eq=False)
class Probe(Fitted):
    """A fitted probe: what :func:`fit_probe` gives and ``predict`` applies.

    Parameters
    ----------
    product, version, bands, attribution
        See :class:`~geoemb_xr.core.fitted.Fitted`.
    method : str
        A name in :data:`geoemb_xr.probes.heads.HEADS`.
    task : {"classification", "regression"}
        Task of the probe.
    target : str
        Name of what was labelled.
    legend : Legend or None
        The classes; None for regression.
    parameters : mapping of str to ndarray
        Parameters of the method.
    options : mapping
        Options of the method, as fitted.
    temperature : float
        Scores are divided by it before they become probabilities.
    counts : mapping of str to int
        Labels per class (or in all).
    dropped : mapping of str to int
        Labels that were left out, by reason.
    scores : mapping of str to mapping
        ``blocked`` and ``random``: held-out scores, of left-out regions and of groups drawn at random (which
        are optimistic where a map goes beyond the labelled places). ``coverage``: share of labels in the
        conformal set, by left-out region, the set calibrated on the others.
    confusion : ndarray (class, class)
        Held-out weights by true class (rows) and predicted class, of the blocked folds where there are any.
    applicability : mapping of str to ndarray
        See :mod:`geoemb_xr.probes.applicability`.
    conformal : ndarray
        Sorted nonconformity of held-out labels: 1 less the true class's probability (Sadinle et al. 2019), or
        the absolute error. Sets and intervals from it hold only for what is exchangeable with the labels.
    memory : mapping of str to ndarray
        For ridge: what :meth:`update` adds new labels to, see :mod:`geoemb_xr.probes.memory`.
    coverage : float
        Coverage of the sets; ``dataclasses.replace(probe, coverage=0.8)`` makes another.
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
    confusion: np.ndarray
    applicability: Mapping[str, np.ndarray]
    conformal: np.ndarray
    coverage: float = 0.9
    memory: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def head(self) -> heads.Head:
        """The method."""
        estimator: Any = self.parameters.get("estimator")
        return HEADS[self.method] if estimator is None else estimators.head_of(estimator)

    @classmethod
    def shapes(cls, names: Iterable[str]) -> Mapping[str, tuple[str | int, ...]]:
        """Dimensions of what it applies, whatever its method."""
        linear: dict[str, tuple[str | int, ...]] = {"weights": ("score", "band"), "bias": ("score",)}
        stored = {"vectors": ("sample", "band"), "targets": ("sample",), "votes": ("sample",)}
        near = {"references": ("reference", "band"), "mean": ("band",), "scale": ("band",), "threshold": ()}
        have = set(names)
        layers = {name for name in have if re.fullmatch(r"parameters/weights\d+", name)}
        for i in range(len(layers)):
            out = f"layer {i}" if i + 1 < len(layers) else "score"
            linear |= {f"weights{i}": (out, f"layer {i - 1}" if i else "band"), f"bias{i}": (out,)}
        every = {
            f"parameters/{key}": dims
            for key, dims in {**linear, **stored, "centres": ("score", "band")}.items()
        }
        every |= {f"applicability/{key}": dims for key, dims in near.items()}
        return {name: dims for name, dims in every.items() if name in have}

    def outputs(self) -> Mapping[str, Output]:
        """The outputs that ``predict`` can give with it."""
        found = self._values() if self.legend is None else self._classes(self.legend)
        if self.applicability:
            index = "dissimilarity index (Meyer and Pebesma 2021)"
            found["distance"] = Output("float32", attrs={"long_name": index})
            inside = {"long_name": "area of applicability", **AOA.attrs()}
            found["aoa"] = Output("uint8", missing=0, attrs=inside)
        return found

    def _values(self) -> dict[str, Output]:
        found = {"value": Output("float32", attrs={"long_name": self.target})}
        if self.conformal.size:
            for end in ("lower", "upper"):
                text = f"{end} end of the {self.coverage:.0%} conformal interval of {self.target}"
                found[end] = Output("float32", attrs={"long_name": text})
        return found

    def _classes(self, legend: Legend) -> dict[str, Output]:
        found = {
            "label": Output(str(legend.dtype), missing=0, attrs={"long_name": self.target, **legend.attrs()}),
            "proba": Output("float32", "category", legend.names, attrs={"long_name": "probability"}),
            "margin": Output("float32", attrs={"long_name": "best probability minus the second"}),
            "entropy": Output("float32", attrs={"long_name": "entropy of the probabilities", "units": "nat"}),
        }
        if self.conformal.size:
            text = f"whether the {self.coverage:.0%} conformal set holds the class, 255 without data"
            found["set"] = Output("uint8", "category", legend.names, 255, {"long_name": text})
        return found

    def apply(self, vectors: np.ndarray, output: str) -> np.ndarray:
        """An output for vectors ``(n, band)``."""
        if output in ("distance", "aoa"):
            index = dissimilarity(self.applicability, vectors.T)
            return index if output == "distance" else np.where(index <= self.applicability["threshold"], 1, 2)
        return self.derive(self.head.scores(self.parameters, vectors.T), output)

    def as_linear(self, output: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Weights and bias of ridge and logistic, whose scores all outputs but the applicability are made of."""
        if self.method not in ("ridge", "logistic") or output in ("distance", "aoa"):
            return None
        return self.parameters["weights"], self.parameters["bias"]

    def derive(self, scores: np.ndarray, output: str) -> np.ndarray:
        """An output from scores ``(classes, n)`` or values ``(1, n)``."""
        if self.legend is None:
            if output == "value":
                return np.asarray(scores[0])
            reach = np.float32(quantile(self.conformal, self.coverage))
            return np.asarray(scores[0] - reach if output == "lower" else scores[0] + reach)
        if output == "label":
            return best_class(scores, np.asarray(self.legend.values, self.legend.dtype))
        proba = softmax(scores / np.float32(self.temperature))
        if output == "proba":
            return np.asarray(proba.T)
        if output == "set":
            return np.asarray((1 - proba <= quantile(self.conformal, self.coverage)).T)
        if output == "margin":
            best = np.partition(proba, -2, axis=0)
            return np.asarray(best[-1] - best[-2])
        return np.asarray(-np.sum(proba * np.log(np.maximum(proba, np.finfo(np.float32).tiny)), axis=0))

    def save(self, path: str | os.PathLike[str], *, private: bool = False) -> Path:
        """Write the probe to one npz file, whole or not at all.

        Parameters
        ----------
        path : path
            ``.npz`` is added where it has no ending.
        private : bool
            Leave out the training vectors, each of which tells its place to whoever searches for it: there is no
            area of applicability then, and no :meth:`update`. What is learnt, its scores and its counts stay.

        Returns
        -------
        Path
            The path of the file.

        Raises
        ------
        EmbeddingError
            If the probe is an estimator of scikit-learn, or ``private`` and made of nothing but training vectors.
        """
        if "estimator" in self.parameters:
            raise EmbeddingError(
                f"{self.method} is Python code, which no file without pickles holds: keep the estimator "
                "(probe.parameters['estimator']) with joblib or skops, or fit one of our methods"
            )
        return Fitted.save(self._without_vectors() if private else self, path)

    def _without_vectors(self) -> Probe:
        if self.method == "knn" or (self.method == "centroid" and min(self.counts.values()) < 2):
            raise EmbeddingError(
                f"a {self.method} probe of these labels holds training vectors, which reveal their places; "
                "private=True is for logistic, ridge and mlp, and for centroid with two labels per class or more"
            )
        return replace(self, applicability={}, memory={})

    def as_onnx(self, vectors: Value) -> Mapping[str, Value]:
        """``label`` and ``probabilities``, or ``value``; and ``distance``, the dissimilarity index."""
        formula = self.head.scores_onnx
        if formula is None:
            raise EmbeddingError(
                f"{self.method} is an estimator of scikit-learn: export probe.parameters['estimator'] with "
                "skl2onnx, or fit one of our methods"
            )
        scores = formula(self.parameters, vectors)
        if self.legend is None:
            found = {"value": scores.flat()}
        else:
            values = np.asarray(self.legend.values, self.legend.dtype)
            label = scores.argmax().of(values).flat()
            found = {"label": label, "probabilities": (scores / self.temperature).softmax()}
        if self.applicability:
            found["distance"] = dissimilarity_onnx(self.applicability, vectors).flat()
        return found

    def to_onnx(self, path: str | os.PathLike[str], *, private: bool = False) -> Path:
        """Write the probe as an ONNX graph, whole or not at all; see :meth:`Fitted.to_onnx`.

        It gives ``label (n,)`` and ``probabilities (n, class)``, or ``value (n,)``, and ``distance (n,)``, the
        dissimilarity index, where there is an area of applicability. Labels are those of ``predict``, but for ties.

        Parameters
        ----------
        path : path
            ``.onnx`` is added where it has no ending.
        private : bool
            Leave out the training vectors, as :meth:`save` does: there is no ``distance`` then.

        Returns
        -------
        Path
            The path of the file.

        Raises
        ------
        EmbeddingError
            If the probe is an estimator of scikit-learn, or ``private`` and made of nothing but training vectors.
        MissingExtraError
            If the package ``onnx`` is not installed.
        """
        return Fitted.to_onnx(self._without_vectors() if private else self, path)

    def to_earth_engine(self, *, year: int = 2024) -> str:
        """Write the probe as a script for Earth Engine, where the vectors of AlphaEarth lie for the whole world.

        Parameters
        ----------
        year : int
            Year of the map that the script shows; its functions take any.

        Returns
        -------
        str
            JavaScript for the Code Editor: ``exports.scores``, ``exports.probabilities`` and ``exports.label`` of
            an image of vectors, which ``exports.vectors(year)`` takes from the catalogue, and ``exports.decode``
            makes of codes. Scores are those of the probe to 1e-5 on the same vectors.

        Raises
        ------
        EmbeddingError
            If the probe is not linear (``ridge``, ``logistic``, ``centroid``), or of another product.

        Examples
        --------
        >>> import geoemb_xr as gx
        >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
        >>> probe = da.emb.fit_probe(gx.testing.scene().points(120, radius=300), target="land_cover")
        >>> "ee.ImageCollection" in probe.to_earth_engine()
        True
        """
        from geoemb_xr.probes.earth_engine import script

        return script(self, year)

    def update(
        self,
        array: Any,
        labels: Any = None,
        *,
        target: str | None = None,
        time: Any = None,
        group: Any = None,
        weights: Any = None,
    ) -> Probe:
        """Go on learning from new labels: a ridge probe as if it had been fitted on old and new at once. Computes.

        The old regions' held-out scores before and after are said, and stand in ``scores``.

        Parameters
        ----------
        array, labels, target, time, group, weights
            The new labels, as :func:`fit_probe` takes them.

        Returns
        -------
        Probe
            A new one; this one stays as it is.

        Raises
        ------
        EmbeddingError
            If the probe is not a ridge probe or has no memory, or the labels are of classes that it does not know.
        ComparabilityError
            If the array is of another product or version.

        Examples
        --------
        >>> import geoemb_xr as gx
        >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
        >>> points = gx.testing.scene().points(120, radius=300)
        >>> first = da.emb.fit_probe(points[:80], target="land_cover", method="ridge")
        >>> sum(first.update(da, points[80:], target="land_cover").counts.values())
        120
        """
        if not self.memory:
            raise EmbeddingError(
                f"this {self.method} probe cannot go on learning: only one of method='ridge' can, saved by 0.2 or "
                "later and not private; fit anew on all labels"
            )
        if labels is None and tables.is_table(array):
            array = points_of_table(array)
        if isinstance(array, xr.DataArray):
            check_model(self, array, "update")
            samples, _ = samples_of(array, labels, target or self.target, time, group, weights)
        else:
            samples = plain_samples(array, labels, group, weights)
        return updated(self, samples)

    def __repr__(self) -> str:
        what = f"{len(self.legend.names)} classes" if self.legend else "regression"
        labels = f"{sum(self.counts.values())} labels{self._scores_text()}"
        return f"<Probe {self.target!r}: {self.method}, {what}, {labels}>"

    def _scores_text(self) -> str:
        name = "r2" if self.legend is None else "balanced_accuracy"
        parts = [f"{kind} {each[name]:.3f}" for kind, each in self.scores.items() if name in each]
        return f"; {name} {', '.join(parts)}" if parts else ""

    def _repr_html_(self) -> str:
        from geoemb_xr.probes.card import card

        return card(self)
