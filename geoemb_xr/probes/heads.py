"""The methods of a probe: how each is fitted, and how it scores other vectors.

A head is two functions. ``fit`` turns vectors and targets into a few arrays; ``scores`` turns vectors
``(band, n)`` into one number per class, ``(classes, n)``, whose softmax are the probabilities (or into the value,
``(1, n)``, for regression). Nothing here knows of rasters, labels' names or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from geoemb_xr.core.errors import EmbeddingError, check_choice, require
from geoemb_xr.core.onnx_graph import Value
from geoemb_xr.execution.neighbours import nearest

Task = Literal["classification", "regression"]
Parameters = Mapping[str, np.ndarray]


class Data(NamedTuple):
    """The data that a head is fitted on.

    Parameters
    ----------
    x : ndarray of float32 (n, band)
        Vectors.
    y : ndarray (n,)
        Positions of classes, 0 to ``classes`` − 1, each at least once; or values, for ``mlp`` also ``(n, value)``.
    weights : ndarray of float64 (n,)
        Weights of the samples.
    groups : ndarray of int (n,)
        No split parts a group.
    classes : int
        Number of classes; 0 for regression.
    seed : int
        Seed of all that is drawn.
    places : ndarray of float64 (n, 2), optional
        East and north in metres, to block by.
    named : bool
        Whether the groups were named by the user: regions, fields, years.
    """

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    classes: int
    seed: int
    places: np.ndarray | None = None
    named: bool = False

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
        Tasks of the method.
    options : mapping
        Names and defaults, scikit-learn's where it has the method.
    temperature : float
        Temperature of the scores where there is nothing to calibrate it with.
    penalties : mapping of str to sequence of float
        Values that ``"auto"`` of an option tries, the strongest first.
    scores_onnx : callable, optional
        ``(parameters, vectors) -> (n, classes)``, ``scores`` as a formula of an ONNX graph
        (:mod:`geoemb_xr.core.onnx_graph`).
    """

    fit: Callable[..., dict[str, np.ndarray]]
    scores: Callable[[Parameters, np.ndarray], np.ndarray]
    tasks: tuple[Task, ...]
    options: Mapping[str, Any]
    temperature: float = 1.0
    penalties: Mapping[str, Sequence[float]] = MappingProxyType({})
    scores_onnx: Callable[[Parameters, Value], Value] | None = None


#: Largest condition number of ridge's equations that are solved without singular values.
_WELL_CONDITIONED = 1e5


# --- one scale for all bands ----------------------------------------------------------------------------------


def spread(x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Weighted mean of each band, and the root of the bands' mean variance (1 where nothing varies), float64.

    One number for all bands: a band that hardly varies stays small. Divided by its own deviation it would
    weigh as much as any, and with a region left out so much noise costs half of the score.
    """
    mean = weights @ x.astype(np.float64) / weights.sum()
    variance = float(weights @ ((x - mean) ** 2).mean(axis=1) / weights.sum())
    return mean, np.sqrt(variance) if variance > 0 else 1.0


def folded(weights: np.ndarray, bias: np.ndarray, mean: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    """A linear map of centred and scaled vectors as one of plain vectors."""
    plain = weights / scale
    return {"weights": plain.astype(np.float32), "bias": (bias - plain @ mean).astype(np.float32)}


def linear_scores(parameters: Parameters, x: np.ndarray) -> np.ndarray:
    """``W · x + b``."""
    scores = parameters["weights"] @ x
    scores += parameters["bias"][:, None]
    return np.asarray(scores)


def _linear_onnx(parameters: Parameters, x: Value) -> Value:
    return x.linear(parameters["weights"], parameters["bias"])


# --- ridge ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RidgeSums:
    """The sums that ridge needs of the data. Sums of parts add up, in any order and on any machine.

    Parameters
    ----------
    count : int
        Number of labels.
    weight : float
        Σw.
    x, y : ndarray (band,), (target,)
        Σwx and Σwy.
    xx, xy : ndarray (band, band), (band, target)
        Σwxxᵀ and Σwxyᵀ, float64.
    """

    count: int
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
        return cls(len(x), float(weights.sum()), weighted.sum(0), weights @ y, weighted.T @ x, weighted.T @ y)

    def __add__(self, other: RidgeSums) -> RidgeSums:
        return RidgeSums(
            self.count + other.count,
            self.weight + other.weight,
            self.x + other.x,
            self.y + other.y,
            self.xx + other.xx,
            self.xy + other.xy,
        )

    def solve(self, alpha: float) -> dict[str, np.ndarray]:
        """Weights and bias with penalty ``alpha``; the bias is not penalised.

        Hoerl and Kennard (1970): W = (ZᵀZ + αI)⁻¹ ZᵀY, Z centred and divided by one number so that the mean
        variance of a band is 1, the samples' weights by their mean.
        """
        mean, target = self.x / self.weight, self.y / self.weight
        xx = self.xx / self.weight - np.outer(mean, mean)
        xy = self.xy / self.weight - np.outer(mean, target)
        variance = max(float(np.trace(xx)) / len(mean), 0.0) or 1.0
        gram = xx + variance * alpha / self.count * np.eye(len(mean))
        solution = _solution(gram, xy, alpha / self.count).T
        return {"weights": solution.astype(np.float32), "bias": (target - solution @ mean).astype(np.float32)}


def _solution(gram: np.ndarray, xy: np.ndarray, share: float) -> np.ndarray:
    """Solve ``gram @ solution = xy``, by the shortest solution where there are many.

    By Cholesky's factors, a thirtieth of the time of singular values (128 bands: 0.4 ms for 13), where the penalty
    holds the condition number, at most 1 + bands / share, so low that both agree to 1e-12.
    """
    from scipy import linalg

    if share * _WELL_CONDITIONED < len(gram):
        return np.asarray(np.linalg.lstsq(gram, xy, rcond=None)[0])
    return np.asarray(linalg.solve(gram, xy, assume_a="pos"))


class PerLabel(float):
    """A penalty as a share of the number of labels, so that it is as strong in a fold as on all."""


def penalty(alpha: float | None, count: int, classes: int) -> float:
    """The penalty of ridge as a number; None means the number of labels for classes, 0.03 of it for values.

    With a region left out of real AlphaEarth vectors classes score best from 0.3 to 3 times their number.
    """
    if alpha is None:
        alpha = PerLabel(1.0 if classes else 0.03)
    return float(alpha * count if isinstance(alpha, PerLabel) else alpha)


def targets_of(data: Data) -> np.ndarray:
    """Return the targets of ridge, float64 ``(n, target)``: a column of 0 and 1 per class, or the values."""
    y = data.y[:, None].astype(np.float64)
    return (y == np.arange(data.classes)).astype(np.float64) if data.classes else y


def fit_ridge(data: Data, *, alpha: float | None) -> dict[str, np.ndarray]:
    """Least squares with an L2 penalty; classes as one column of 0 and 1 each."""
    sums = RidgeSums.of(data.x, targets_of(data), data.weights)
    return sums.solve(penalty(alpha, sums.count, data.classes))


# --- logistic -------------------------------------------------------------------------------------------------


def fit_logistic(
    data: Data, *, C: float, class_weight: Any, max_iter: int, tol: float
) -> dict[str, np.ndarray]:
    """Multinomial logistic regression, L2, L-BFGS to convergence: scikit-learn's, of two classes too.

    On vectors that are centred and divided by one number so that their total variance is 1, as that of unit
    vectors is at most; weights are divided by their mean.
    """
    from scipy.optimize import minimize

    _check_options(C=C, tol=tol, max_iter=max_iter)
    mean, scale = spread(data.x, data.weights)
    scale *= np.sqrt(data.x.shape[1])
    weights = data.weights / data.weights.mean()
    if class_weight is not None:
        weights = weights * _class_weights(data, weights, class_weight)[data.y]
    free = data.classes if data.classes > 2 else 1  # of two classes the first has score 0
    loss = _logistic_loss((data.x - mean) / scale, data.y, weights, data.classes, free, C)
    options = {"maxiter": max_iter, "maxls": 50, "gtol": tol, "ftol": 64 * np.finfo(float).eps}
    start = np.zeros(free * (data.x.shape[1] + 1))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    if found.nit >= max_iter:
        raise EmbeddingError(
            f"logistic did not converge in max_iter={max_iter} steps: raise max_iter, or lower C={C}"
        )
    all_classes = np.zeros((data.classes, data.x.shape[1] + 1))
    all_classes[-free:] = found.x.reshape(free, -1)
    return folded(all_classes[:, :-1], all_classes[:, -1], mean, scale)


def _check_options(**options: Any) -> None:
    for name, value in options.items():
        kind, number = (Integral, "a whole number") if name == "max_iter" else (Real, "a number")
        if not (isinstance(value, kind) and float(value) > 0):
            raise EmbeddingError(f"logistic: {name} is {number} above 0; got {value!r}")


def _class_weights(data: Data, weights: np.ndarray, given: Any) -> np.ndarray:
    from sklearn.utils import compute_class_weight

    classes = np.arange(data.classes)
    return np.asarray(compute_class_weight(given, classes=classes, y=data.y, sample_weight=weights))


def _logistic_loss(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, classes: int, free: int, C: float
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """The mean loss and its gradient, as a function of the last ``free`` classes' weights and biases.

    A second door to scikit-learn's: importing ``sklearn.linear_model`` takes 1.5 s of a first fit, and this is as
    fast.
    """
    rows, share = np.arange(len(y)), weights / weights.sum()
    penalty = 1 / (C * weights.sum())

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        slopes, biases = np.split(flat.reshape(free, -1), [x.shape[1]], axis=1)
        scores = np.zeros((len(y), classes))
        scores[:, -free:] = x @ slopes.T
        scores[:, -free:] += biases.T
        scores -= scores.max(axis=1, keepdims=True)
        true = scores[rows, y]
        np.exp(scores, out=scores)
        total = scores.sum(axis=1)
        value = share @ (np.log(total) - true) + penalty / 2 * float(np.vdot(slopes, slopes))
        scores *= (share / total)[:, None]
        scores[rows, y] -= share
        residual = scores[:, -free:]
        gradient = np.column_stack([residual.T @ x + penalty * slopes, residual.sum(axis=0)])
        return float(value), gradient.ravel()

    return loss


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


def _knn_onnx(parameters: Parameters, x: Value) -> Value:
    x = x.unit() if parameters["cosine"] else x
    # half the squared distance, less half the square of x, which the ranks and the weights can do without
    half, index = (-x.nearness(parameters["vectors"])).smallest(int(parameters["k"]))
    weight = ((half.first(1) - half) / parameters["temperature"]).exp() * index.of(parameters["votes"])
    if not parameters["classes"]:
        return (weight * index.of(parameters["targets"])).sum() / weight.sum()
    member = np.eye(int(parameters["classes"]), dtype=np.float32)[parameters["targets"]]
    share = weight.spread_over(index.of(member)) / weight.sum()
    return share.clip(1e-6, 1).log()


# --- centroids ------------------------------------------------------------------------------------------------


def fit_centroid(data: Data) -> dict[str, np.ndarray]:
    """Mean direction of each class: enough for a few labels per class."""
    directions = unit(data.x.T).T.astype(np.float64)
    member = (data.y == np.arange(data.classes)[:, None]) * data.weights
    return {"centres": unit((member @ directions).T).T.astype(np.float32)}


def centroid_scores(parameters: Parameters, x: np.ndarray) -> np.ndarray:
    """Cosine to each class's mean direction."""
    return np.asarray(parameters["centres"] @ unit(x))


def _centroid_onnx(parameters: Parameters, x: Value) -> Value:
    return x.unit() @ parameters["centres"].T


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors ``(band, n)`` of unit length; zeros stay zeros."""
    length = np.sqrt(np.einsum("ij,ij->j", x, x))
    return np.asarray(x / np.where(length > 0, length, 1).astype(x.dtype))


# --- multilayer perceptron --------------------------------------------------------------------------------------


def fit_mlp(
    data: Data,
    *,
    hidden_layer_sizes: Sequence[int],
    alpha: float | None,
    learning_rate_init: float,
    batch_size: int,
    max_iter: int,
    n_iter_no_change: int,
    validation_fraction: float,
) -> dict[str, np.ndarray]:
    """Linear layers with ReLU between them, by AdamW; stops when the loss on left-out groups gets no better.

    On vectors of total variance 1, as logistic has them, and values of variance 1. The decay ``alpha`` is 5 for
    classes and 0.15 for values where it is None: with a region left out real AlphaEarth vectors score 0.64 so, and
    0.41 with a decay of 0.01, usual elsewhere, on standardised bands.

    Needs torch; what it gives does not.
    """
    torch = require("torch", "torch")
    mean, scale = spread(data.x, data.weights)
    scale *= np.sqrt(data.x.shape[1])
    values = data.y.reshape(len(data.y), -1)
    middle, unit_of = (np.zeros(1), 1.0) if data.classes else spread(values, data.weights)
    target = data.y if data.classes else ((values - middle) / unit_of).astype(np.float32)
    decay = alpha if alpha is not None else 5.0 if data.classes else 0.15
    stop = _left_out(data, validation_fraction)
    generator = torch.Generator().manual_seed(data.seed)  # the process's own, on every device, is left alone
    x = torch.from_numpy(((data.x - mean) / scale).astype(np.float32))
    y = torch.from_numpy(target)
    weight = torch.from_numpy((data.weights / data.weights.mean()).astype(np.float32))
    sizes = [x.shape[1], *hidden_layer_sizes, data.classes or values.shape[1]]
    layers = [_layer(a, b, generator) for a, b in pairwise(sizes)]
    between = [each for layer in layers for each in (layer, torch.nn.ReLU())]
    net = torch.nn.Sequential(*between[:-1])
    optimiser = torch.optim.AdamW(net.parameters(), lr=learning_rate_init, weight_decay=decay)

    def loss(rows: Any) -> Any:
        out = net(x[rows])
        if data.classes:
            each = torch.nn.functional.cross_entropy(out, y[rows], reduction="none")
        else:
            each = ((out - y[rows]) ** 2).mean(dim=1)
        return (each * weight[rows]).sum() / weight[rows].sum()

    train = torch.from_numpy(np.flatnonzero(~stop))
    check = torch.from_numpy(np.flatnonzero(stop))
    best, kept, waited = np.inf, None, 0
    for _ in range(max_iter):
        net.train()
        for rows in train[torch.randperm(len(train), generator=generator)].split(batch_size):
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
    if not data.classes:
        kept[-1] = (
            kept[-1][0] * np.float32(unit_of),
            kept[-1][1] * np.float32(unit_of) + middle.astype(np.float32),
        )
    first = folded(kept[0][0].astype(np.float64), kept[0][1].astype(np.float64), mean, scale)
    parameters = {"weights0": first["weights"], "bias0": first["bias"]}
    for i, (weights, bias) in enumerate(kept[1:], start=1):
        parameters |= {f"weights{i}": weights, f"bias{i}": bias}
    return parameters


def _layer(inputs: int, outputs: int, generator: Any) -> Any:
    """A linear layer with weights as torch draws them, from a generator of its own."""
    torch = require("torch", "torch")
    layer = torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs)
    with torch.no_grad():
        for each in (layer.weight, layer.bias):
            each.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


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


def _mlp_onnx(parameters: Parameters, x: Value) -> Value:
    layers = len(parameters) // 2
    for i in range(layers):
        x = x.linear(parameters[f"weights{i}"], parameters[f"bias{i}"])
        x = x.relu() if i < layers - 1 else x
    return x


_BOTH: tuple[Task, ...] = ("classification", "regression")
HEADS: Mapping[str, Head] = MappingProxyType(
    {
        "ridge": Head(
            fit_ridge,
            linear_scores,
            _BOTH,
            {"alpha": None},
            0.2,
            {"alpha": [PerLabel(each) for each in np.logspace(2, -4, 13)]},
            scores_onnx=_linear_onnx,
        ),
        "logistic": Head(
            fit_logistic,
            linear_scores,
            ("classification",),
            {"C": 1.0, "class_weight": None, "max_iter": 1000, "tol": 1e-6},
            penalties={"C": [float(each) for each in np.logspace(-2, 2, 9)]},
            scores_onnx=_linear_onnx,
        ),
        "knn": Head(
            fit_knn,
            knn_scores,
            _BOTH,
            {"n_neighbors": 20, "metric": "cosine", "temperature": "auto"},
            scores_onnx=_knn_onnx,
        ),
        "mlp": Head(
            fit_mlp,
            mlp_scores,
            _BOTH,
            {
                "hidden_layer_sizes": (128,),
                "alpha": None,
                "learning_rate_init": 3e-3,
                "batch_size": 256,
                "max_iter": 300,
                "n_iter_no_change": 20,
                "validation_fraction": 0.15,
            },
            scores_onnx=_mlp_onnx,
        ),
        "centroid": Head(
            fit_centroid,
            centroid_scores,
            ("classification",),
            {},
            temperature=0.1,
            scores_onnx=_centroid_onnx,
        ),
    }
)
