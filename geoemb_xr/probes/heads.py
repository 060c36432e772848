"""The methods of a probe: how each is fitted on vectors, and what it gives for others.

A head is two functions. ``fit`` turns vectors and targets into a few arrays; ``scores`` turns vectors
``(band, n)`` into one number a class, ``(classes, n)``, whose softmax are the probabilities (or into the value,
``(1, n)``, for regression). Nothing here knows of rasters, labels' names or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from geoemb_xr.core.errors import EmbeddingError, check_choice, require
from geoemb_xr.execution.neighbours import nearest

Task = Literal["classification", "regression"]
Parameters = Mapping[str, np.ndarray]


class Data(NamedTuple):
    """What a head is fitted on.

    Parameters
    ----------
    x : ndarray of float32 (n, band)
        Vectors.
    y : ndarray (n,)
        Positions of classes, 0 to ``classes`` − 1, each at least once; or values.
    weights : ndarray of float64 (n,)
        Of the samples.
    groups : ndarray of int (n,)
        No split parts a group.
    classes : int
        How many; 0 for regression.
    seed : int
        Of whatever is drawn.
    places : ndarray of float64 (n, 2), optional
        East and north in metres, to block by.
    """

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    classes: int
    seed: int
    places: np.ndarray | None = None

    def at(self, index: np.ndarray) -> Data:
        """Some of the samples; the classes keep their positions."""
        return self._replace(
            x=self.x[index],
            y=self.y[index],
            weights=self.weights[index],
            groups=self.groups[index],
            places=None if self.places is None else self.places[index],
        )


@dataclass(frozen=True)
class Head:
    """A method: its two functions, what it is for, and its options.

    Parameters
    ----------
    fit : callable
        ``(data, **options) -> parameters``.
    scores : callable
        ``(parameters, vectors) -> (classes, n)`` or ``(1, n)``, float32, for vectors ``(band, n)``.
    tasks : tuple of str
        What it can do.
    options : mapping
        Names and defaults, scikit-learn's where it has the method.
    temperature : float
        Of the scores where there is nothing to calibrate it with.
    """

    fit: Callable[..., dict[str, np.ndarray]]
    scores: Callable[[Parameters, np.ndarray], np.ndarray]
    tasks: tuple[Task, ...]
    options: Mapping[str, Any]
    temperature: float = 1.0


# --- standardisation ----------------------------------------------------------------------------------------


def moments(x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and standard deviation of each band, float64; a constant band has deviation 1."""
    total = weights.sum()
    mean = weights @ x.astype(np.float64) / total
    deviation = np.sqrt(weights @ (x - mean) ** 2 / total)
    return mean, np.where(deviation > 0, deviation, 1.0)


def folded(
    weights: np.ndarray, bias: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> dict[str, np.ndarray]:
    """A linear map of standardised vectors as one of plain vectors."""
    plain = weights / scale
    return {"weights": plain.astype(np.float32), "bias": (bias - plain @ mean).astype(np.float32)}


def linear_scores(parameters: Parameters, x: np.ndarray) -> np.ndarray:
    """``W · x + b``."""
    scores = parameters["weights"] @ x
    scores += parameters["bias"][:, None]
    return np.asarray(scores)


# --- ridge ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RidgeSums:
    """What ridge needs of the data: sums that add up, so that parts can be fitted anywhere in any order.

    Parameters
    ----------
    weight : float
        Σw.
    x, y : ndarray (band,), (target,)
        Σwx and Σwy.
    xx, xy : ndarray (band, band), (band, target)
        Σwxxᵀ and Σwxyᵀ, float64.
    """

    weight: float
    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> RidgeSums:
        """The sums of vectors ``(n, band)`` and targets ``(n, target)``."""
        x = x.astype(np.float64)
        weighted = x * weights[:, None]
        return cls(float(weights.sum()), weighted.sum(0), weights @ y, weighted.T @ x, weighted.T @ y)

    def __add__(self, other: RidgeSums) -> RidgeSums:
        return RidgeSums(
            self.weight + other.weight,
            self.x + other.x,
            self.y + other.y,
            self.xx + other.xx,
            self.xy + other.xy,
        )

    def solve(self, alpha: float) -> dict[str, np.ndarray]:
        """Weights and bias with penalty ``alpha`` on standardised bands; the bias is not penalised.

        Hoerl and Kennard (1970): W = (ZᵀZ + αI)⁻¹ ZᵀY.
        """
        mean, target = self.x / self.weight, self.y / self.weight
        xx = self.xx - self.weight * np.outer(mean, mean)
        xy = self.xy - self.weight * np.outer(mean, target)
        deviation = np.sqrt(np.maximum(np.diag(xx), 0) / self.weight)
        scale = np.where(deviation > 0, deviation, 1.0)
        gram = xx / np.outer(scale, scale) + alpha * np.eye(len(mean))
        solution = np.linalg.lstsq(gram, xy / scale[:, None], rcond=None)[0]
        return folded(solution.T, target, mean, scale)


def fit_ridge(data: Data, *, alpha: float) -> dict[str, np.ndarray]:
    """Least squares with an L2 penalty; classes as one column of 0 and 1 each."""
    y = data.y[:, None].astype(np.float64)
    targets = (y == np.arange(data.classes)).astype(np.float64) if data.classes else y
    return RidgeSums.of(data.x, targets, data.weights).solve(alpha)


# --- logistic -------------------------------------------------------------------------------------------------


def fit_logistic(
    data: Data, *, C: float, class_weight: Any, max_iter: int, tol: float
) -> dict[str, np.ndarray]:
    """Multinomial logistic regression, L2, L-BFGS to convergence: scikit-learn's, on standardised bands."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = moments(data.x, data.weights)
    model = LogisticRegression(C=C, class_weight=class_weight, max_iter=max_iter, tol=tol)
    model.fit((data.x - mean) / scale, data.y, sample_weight=data.weights)
    # scikit-learn warns; a filter that made it an error would hold in every thread of the process
    if model.n_iter_.max() >= max_iter:
        raise EmbeddingError(
            f"logistic did not converge in max_iter={max_iter} steps: raise max_iter, or lower C={C}"
        )
    weights, bias = model.coef_, model.intercept_
    if len(weights) == 1:  # two classes: the first has score 0
        weights, bias = np.vstack([0 * weights, weights]), np.concatenate([[0.0], bias])
    return folded(weights, bias, mean, scale)


# --- nearest neighbours ---------------------------------------------------------------------------------------


def fit_knn(
    data: Data, *, n_neighbors: int, metric: str, temperature: float | str | None
) -> dict[str, np.ndarray]:
    """Keep the vectors, of unit length for ``metric="cosine"``.

    Neighbours vote with weight exp(s / temperature), s their cosine, as in DINO (Caron et al. 2021, k = 20,
    temperature 0.07); without a temperature (and with ``metric="euclidean"``) their votes are equal.
    """
    check_choice("metric", metric, ("cosine", "euclidean"))
    if temperature == "auto":
        temperature = 0.07 if metric == "cosine" else None
    if n_neighbors < 1:
        raise EmbeddingError(f"n_neighbors is 1 or more; got {n_neighbors!r}")
    cosine = metric == "cosine"
    return {
        "vectors": unit(data.x.T).T if cosine else data.x,
        "targets": data.y if data.classes else data.y.astype(np.float32),
        "votes": data.weights.astype(np.float32),
        "classes": np.array(data.classes),
        "k": np.array(min(n_neighbors, len(data.x))),
        "temperature": np.array(np.inf if temperature is None else temperature, np.float32),
        "cosine": np.array(cosine),
    }


def knn_scores(parameters: Parameters, x: np.ndarray) -> np.ndarray:
    """Log of each class's share of the votes, or the neighbours' mean value."""
    x = unit(x) if parameters["cosine"] else x
    distance, index = nearest(x, parameters["vectors"], int(parameters["k"]))
    # s = 1 − d²/2; less that of the nearest, so that the largest weight is 1
    weight = np.exp((distance[0] ** 2 - distance**2) / (2 * parameters["temperature"]))
    weight *= parameters["votes"][index]
    target, total = parameters["targets"][index], weight.sum(axis=0)
    if not parameters["classes"]:
        return np.asarray((weight * target).sum(axis=0) / total)[None]
    share = np.zeros((int(parameters["classes"]), x.shape[1]), np.float32)
    pixels = np.arange(x.shape[1])
    for each, own in zip(target, weight, strict=True):
        share[each, pixels] += own
    return np.asarray(np.log(np.maximum(share / total, np.float32(1e-6))))


# --- centroids ------------------------------------------------------------------------------------------------


def fit_centroid(data: Data) -> dict[str, np.ndarray]:
    """Mean direction of each class: enough for a few labels a class."""
    directions = unit(data.x.T).T.astype(np.float64)
    member = (data.y == np.arange(data.classes)[:, None]) * data.weights
    return {"centres": unit((member @ directions).T).T.astype(np.float32)}


def centroid_scores(parameters: Parameters, x: np.ndarray) -> np.ndarray:
    """Cosine to each class's mean direction."""
    return np.asarray(parameters["centres"] @ unit(x))


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors ``(band, n)`` of unit length; zeros stay zeros."""
    length = np.sqrt(np.einsum("ij,ij->j", x, x))
    return np.asarray(x / np.where(length > 0, length, 1).astype(x.dtype))


# --- multilayer perceptron --------------------------------------------------------------------------------------


def fit_mlp(
    data: Data,
    *,
    hidden_layer_sizes: Sequence[int],
    alpha: float,
    learning_rate_init: float,
    batch_size: int,
    max_iter: int,
    n_iter_no_change: int,
    validation_fraction: float,
) -> dict[str, np.ndarray]:
    """Linear layers with ReLU between them, by AdamW; stops when the loss on left-out groups gets no better.

    Needs torch; what it gives does not.
    """
    torch = require("torch", "torch")
    mean, scale = moments(data.x, data.weights)
    stop = _left_out(data, validation_fraction)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(data.seed)
        x = torch.from_numpy(((data.x - mean) / scale).astype(np.float32))
        y = torch.from_numpy(data.y if data.classes else data.y.astype(np.float32))
        weight = torch.from_numpy((data.weights / data.weights.mean()).astype(np.float32))
        sizes = [x.shape[1], *hidden_layer_sizes, data.classes or 1]
        layers = [torch.nn.Linear(a, b) for a, b in pairwise(sizes)]
        between = [each for layer in layers for each in (layer, torch.nn.ReLU())]
        net = torch.nn.Sequential(*between[:-1])
        optimiser = torch.optim.AdamW(net.parameters(), lr=learning_rate_init, weight_decay=alpha)

        def loss(rows: Any) -> Any:
            out = net(x[rows])
            if data.classes:
                each = torch.nn.functional.cross_entropy(out, y[rows], reduction="none")
            else:
                each = (out[:, 0] - y[rows]) ** 2
            return (each * weight[rows]).sum() / weight[rows].sum()

        train = torch.from_numpy(np.flatnonzero(~stop))
        check = torch.from_numpy(np.flatnonzero(stop))
        best, kept, waited = np.inf, None, 0
        for _ in range(max_iter):
            net.train()
            for rows in train[torch.randperm(len(train))].split(batch_size):
                optimiser.zero_grad()
                loss(rows).backward()
                optimiser.step()
            with torch.no_grad():
                now = float(loss(check if len(check) else train))
            if now < best - 1e-4:
                best, waited = now, 0
                kept = [(p.weight.numpy(force=True).copy(), p.bias.numpy(force=True).copy()) for p in layers]
            else:
                waited += 1
                if waited >= n_iter_no_change:
                    break
    if kept is None:
        raise EmbeddingError(
            "mlp: the loss is not finite; standardise the values, or lower learning_rate_init"
        )
    first = folded(kept[0][0].astype(np.float64), kept[0][1].astype(np.float64), mean, scale)
    parameters = {"weights0": first["weights"], "bias0": first["bias"]}
    for i, (weights, bias) in enumerate(kept[1:], start=1):
        parameters |= {f"weights{i}": weights, f"bias{i}": bias}
    return parameters


def _left_out(data: Data, share: float) -> np.ndarray:
    """Samples of some groups drawn at random, each class still there among the others."""
    groups = np.unique(data.groups)
    chosen = np.random.default_rng(data.seed).permutation(groups)[: int(len(groups) * share)]
    out = np.isin(data.groups, chosen)
    if data.classes and len(np.unique(data.y[~out])) < data.classes:
        return np.zeros(len(out), bool)
    return out


def mlp_scores(parameters: Parameters, x: np.ndarray) -> np.ndarray:
    """Layer by layer, ReLU between them."""
    layers = len(parameters) // 2
    for i in range(layers):
        x = parameters[f"weights{i}"] @ x + parameters[f"bias{i}"][:, None]
        if i < layers - 1:
            np.maximum(x, 0, out=x)
    return x


_BOTH: tuple[Task, ...] = ("classification", "regression")
HEADS: Mapping[str, Head] = MappingProxyType(
    {
        "ridge": Head(fit_ridge, linear_scores, _BOTH, {"alpha": 1.0}, temperature=0.2),
        "logistic": Head(
            fit_logistic,
            linear_scores,
            ("classification",),
            {"C": 1.0, "class_weight": None, "max_iter": 1000, "tol": 1e-6},
        ),
        "knn": Head(
            fit_knn, knn_scores, _BOTH, {"n_neighbors": 20, "metric": "cosine", "temperature": "auto"}
        ),
        "mlp": Head(
            fit_mlp,
            mlp_scores,
            _BOTH,
            {
                "hidden_layer_sizes": (128,),
                "alpha": 1e-2,
                "learning_rate_init": 3e-3,
                "batch_size": 256,
                "max_iter": 300,
                "n_iter_no_change": 20,
                "validation_fraction": 0.15,
            },
        ),
        "centroid": Head(fit_centroid, centroid_scores, ("classification",), {}, temperature=0.1),
    }
)
