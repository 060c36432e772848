"""NeuCo-Bench: its files in and out, its linear protocol, its score Q and its leaderboard.

Vinge et al. (2025), arXiv 2510.17914. The protocol is the benchmark's own, its peculiarities included: one mean
and one deviation scale all numbers at once, labels of classes are scaled like values, and the score of a split is
that of the best epoch on the very samples that it is tested on, so it is optimistic.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core.arrays import decode
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.core.local_paths import local_path
from geoemb_xr.core.model import BAND
from geoemb_xr.core.whole_files import replacing
from geoemb_xr.execution import progress

_TYPES = {"classification": "classification", "cls": "classification", "regression": "regression",
          "regr": "regression", "reg": "regression"}  # fmt: skip
_BETAS, _EPSILON, _DECAY = (0.9, 0.999), 1e-8, 0.01


@dataclass(frozen=True)
class Task:
    """Labels of a task.

    Parameters
    ----------
    kind : {"classification", "regression"}
        Kind of answer that it asks for.
    labels : Series of float64
        Labels by id; rows without a label are left out.
    """

    kind: str
    labels: pd.Series[float]


# --- files ----------------------------------------------------------------------------------------------------


def read_embeddings(path: str | os.PathLike[str], *, dims: int | None = None) -> pd.DataFrame:
    """Read embeddings as the benchmark does: ids without ``.zarr``, gaps and texts as 0, padded with zeros.

    Parameters
    ----------
    path : path
        CSV with a column ``id`` and one column per dimension, whose names are numbers.
    dims : int, optional
        Number of dimensions; by default as many as there are.

    Returns
    -------
    DataFrame of float32 (id, dimension)

    Raises
    ------
    SourceError
        If the file is missing, has no column ``id``, or has more dimensions than ``dims``.
    """
    if not local_path(path).exists():
        raise SourceError(f"no such file of embeddings: {path}")
    table = pd.read_csv(path, dtype={"id": str})
    if "id" not in table.columns:
        raise SourceError(f"{path} has no column 'id'; it has {list(table.columns[:5])}")
    table = table.assign(id=_plain_ids(table["id"])).set_index("id")
    numbered = sorted((name for name in table.columns if name.isdigit()), key=int)
    table = table[numbered or list(table.columns)]
    found = table.apply(pd.to_numeric, errors="coerce").fillna(0.0).to_numpy(np.float32)
    wanted = found.shape[1] if dims is None else dims
    if found.shape[1] > wanted:
        raise SourceError(f"{path} has {found.shape[1]} dimensions; {wanted} are expected")
    padded = np.pad(found, ((0, 0), (0, wanted - found.shape[1])))
    return pd.DataFrame(padded, table.index, pd.RangeIndex(wanted))


def _plain_ids(ids: pd.Series[str]) -> pd.Series[str]:
    return ids.str.replace(".zarr.zip", "", regex=False).str.replace(".zarr", "", regex=False)


def vectors_by_id(embeddings: Any) -> pd.DataFrame:
    """Vectors by id, from a DataFrame or from an array of locations, whose index is the id."""
    if isinstance(embeddings, xr.DataArray):
        if set(embeddings.dims) != {"location", BAND}:
            raise EmbeddingError(f"embeddings have dims ('location', 'band'); got {tuple(embeddings.dims)}")
        plain = decode(embeddings) if "codec" in embeddings.attrs else embeddings
        values = plain.transpose("location", BAND).values
        return pd.DataFrame(values, plain.indexes["location"].astype(str), pd.RangeIndex(values.shape[1]))
    if not isinstance(embeddings, pd.DataFrame):
        raise EmbeddingError(
            f"embeddings are a DataFrame by id, or an array of locations; got {type(embeddings).__name__}"
        )
    return embeddings


def write_embeddings(embeddings: Any, path: str | os.PathLike[str]) -> Path:
    """Write vectors as a submission: ``id`` and columns 0 to D − 1.

    Parameters
    ----------
    embeddings : DataFrame or DataArray (location, band)
        Embeddings by id.
    path : path
        CSV to write; whole or not at all.
    """
    table = vectors_by_id(embeddings)
    target = local_path(path)
    with replacing(target) as file:
        table.set_axis(pd.RangeIndex(table.shape[1]), axis=1).to_csv(file, index_label="id")
    return target


def read_labels(folder: str | os.PathLike[str]) -> dict[str, Task]:
    """Read all tasks of a folder: files ``<task>__<type>.csv`` with the columns ``id`` and ``label``.

    Ids lose ``.zarr`` and ``.zarr.zip``, as those of embeddings do.

    Raises
    ------
    SourceError
        If there are none, or one is of an unknown type or lacks a column.
    """
    files = sorted(local_path(folder).glob("*__*.csv"))
    if not files:
        raise SourceError(f"no labels '<task>__<type>.csv' in {folder}")
    tasks = {}
    for path in files:
        name, _, kind = path.stem.rpartition("__")
        table = pd.read_csv(path, dtype={"id": str})
        if kind not in _TYPES or not {"id", "label"} <= set(table.columns):
            raise SourceError(
                f"{path} is not a file of labels: its type is one of {', '.join(_TYPES)}, its columns id and "
                f"label; got {kind!r}, {list(table.columns)}"
            )
        plain = table.assign(id=_plain_ids(table["id"])).set_index("id")
        labels = pd.to_numeric(plain["label"], errors="coerce").dropna()
        tasks[name] = Task(_TYPES[kind], labels)
    return tasks


# --- scores -----------------------------------------------------------------------------------------------------


def q_score(scores: Sequence[float] | np.ndarray) -> float:
    """The score of a task: Q = 2 · mean / (0.02 + sd), over the scores of its splits, at most 100.

    Examples
    --------
    >>> round(q_score([0.5, 0.7]), 6)
    10.0
    """
    values = np.asarray(scores, np.float64)
    if np.isnan(values).all():
        raise EmbeddingError("Q is of the scores of splits; got none that is a number")
    return float(2 * np.nanmean(values) / (0.02 + np.nanstd(values)))


def evaluate(
    embeddings: Any,
    tasks: Mapping[str, Task],
    *,
    splits: int = 40,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    normalize_labels: bool = True,
    seed: int = 42,
) -> pd.DataFrame:
    """Run the linear protocol: 40 shuffled splits, a tenth of the samples held out, AdamW. Computes.

    Parameters
    ----------
    embeddings : DataFrame or DataArray (location, band)
        Embeddings by id, as :func:`read_embeddings` gives them.
    tasks : mapping of str to Task
        The result of :func:`read_labels`.
    splits, epochs, batch_size, learning_rate
        The benchmark's own by default.
    normalize_labels : bool
        Whether labels are scaled to 0…1, those of classes too.
    seed : int
        Seed of splits, weights and batches.

    Returns
    -------
    DataFrame
        One row per task: ``q_stat``, ``mean_score`` (R², or F1 of class 1), ``std_dev``, ``n`` and
        ``scores``, the score of each split. Its attrs hold the hyperparameters.

    Raises
    ------
    EmbeddingError
        If a task has fewer than twenty labels with an embedding.

    Notes
    -----
    Weights and batches are drawn with NumPy's generator, so that scores agree with the benchmark's up to the seed.
    """
    table = vectors_by_id(embeddings)
    known = pd.Index([]).append([task.labels.index for task in tasks.values()]).unique()
    table = table.loc[table.index.intersection(known, sort=False)]
    values = table.to_numpy(np.float32)
    if not len(values):
        raise EmbeddingError("no id of the embeddings has a label")
    scaled = pd.DataFrame((values - values.mean()) / (values.std() or 1.0), table.index)
    rows = {}
    with progress.shown("NeuCo-Bench"):
        for name, task in tasks.items():
            ids = task.labels.index.intersection(scaled.index, sort=False)
            if len(ids) < 20:
                raise EmbeddingError(f"task {name!r} has {len(ids)} labels with an embedding; 20 are needed")
            y = task.labels.loc[ids].to_numpy(np.float64)
            if normalize_labels:
                y = (y - y.min()) / (np.ptp(y) or 1.0)
            x = scaled.loc[ids].to_numpy(np.float32)
            scores = _linear(x, y, task.kind, splits, epochs, batch_size, learning_rate, seed)
            rows[name] = {"q_stat": q_score(scores), "mean_score": float(np.nanmean(scores)),
                          "std_dev": float(np.nanstd(scores)), "n": len(y), "scores": scores.tolist()}  # fmt: skip
    found = pd.DataFrame.from_dict(rows, orient="index")
    found.attrs["hyperparameters"] = {
        "k_folds": splits,
        "probe_type": "linear",
        "batch_size": batch_size,
        "epochs": epochs,
        "learning_rate": learning_rate,
    }
    return found


def _linear(
    x: np.ndarray, y: np.ndarray, kind: str, splits: int, epochs: int, batch: int, rate: float, seed: int
) -> np.ndarray:
    """The best epoch's score of each split; all splits are trained at once, as they are equally large."""
    from sklearn.model_selection import ShuffleSplit

    parts = list(ShuffleSplit(splits, test_size=0.1, random_state=seed).split(x))
    train, test = (np.stack([part[i] for part in parts]) for i in (0, 1))
    rng = np.random.default_rng(seed)
    bound = 1 / np.sqrt(x.shape[1])
    weights = rng.uniform(-bound, bound, (splits, x.shape[1] + 1)).astype(
        np.float32
    )  # the last one is the bias
    ones = np.column_stack([x, np.ones(len(x), np.float32)])
    step = AdamW(weights, rate)
    best = np.full(splits, -np.inf)
    for _ in range(epochs):
        order = rng.permuted(train, axis=1)
        for start in range(0, order.shape[1], batch):
            chosen = order[:, start : start + batch]
            here = ones[chosen]
            predicted = np.einsum("sbd,sd->sb", here, weights)
            step(np.einsum("sbd,sb->sd", here, _slope(predicted, y[chosen], kind)) / chosen.shape[1])
        found = np.einsum("sbd,sd->sb", ones[test], weights)
        best = np.fmax(best, [_metric(p, t, kind) for p, t in zip(found, y[test], strict=True)])
    return best


def _slope(predicted: np.ndarray, y: np.ndarray, kind: str) -> np.ndarray:
    """Derivative of each sample's loss: squared error, or binary cross-entropy of a logit."""
    if kind == "regression":
        return np.asarray(2 * (predicted - y), np.float32)
    return np.asarray(1 / (1 + np.exp(-predicted)) - y, np.float32)


def _metric(predicted: np.ndarray, y: np.ndarray, kind: str) -> float:
    """R², or F1 of class 1; logits that all lie in 0…1 count as probabilities, as torchmetrics has it."""
    if kind == "regression":
        spread = ((y - y.mean()) ** 2).sum()
        return float(1 - ((y - predicted) ** 2).sum() / spread) if spread > 0 else np.nan
    is_logit = ((predicted < 0) | (predicted > 1)).any()
    said = predicted > (0.0 if is_logit else 0.5)
    true = y > 0.5
    both, either = int((said & true).sum()), int(said.sum()) + int(true.sum())
    return 2 * both / max(either, 1)


class AdamW:
    """Loshchilov and Hutter (2019), with PyTorch's defaults; changes the weights in place."""

    def __init__(self, weights: np.ndarray, rate: float) -> None:
        self.weights, self.rate, self.count = weights, rate, 0
        self.first, self.second = np.zeros_like(weights), np.zeros_like(weights)

    def __call__(self, slope: np.ndarray) -> None:
        """One step down the slope."""
        a, b = _BETAS
        self.count += 1
        self.weights *= 1 - self.rate * _DECAY
        self.first += (1 - a) * (slope - self.first)
        self.second += (1 - b) * (slope * slope - self.second)
        size = self.rate / (1 - a**self.count)
        self.weights -= size * self.first / (np.sqrt(self.second / (1 - b**self.count)) + _EPSILON)


def leaderboard(scores: pd.DataFrame) -> pd.DataFrame:
    """Rank methods: by task, weighted by how far apart the methods are on it; the lowest weighted rank wins.

    Parameters
    ----------
    scores : DataFrame (method, task)
        Q of each task; methods that lack one are left out.

    Returns
    -------
    DataFrame
        One row per method, the best first: ``mean_score``, ``weighted_score``, ``aggregated_rank`` and the scores.

    Raises
    ------
    EmbeddingError
        If no method has a score for every task.

    Examples
    --------
    >>> leaderboard(pd.DataFrame({"a": [3.0, 1.0], "b": [1.0, 1.5]}, index=["x", "y"])).index.tolist()
    ['x', 'y']
    """
    from scipy.stats import rankdata

    kept = scores.dropna()
    if kept.empty:
        raise EmbeddingError("no method has a score for every task")
    ranks = rankdata(-kept.to_numpy(), method="min", axis=0)
    spread = kept.std(axis=0, ddof=1).to_numpy() if len(kept) > 1 else np.ones(kept.shape[1])
    weights = spread / spread.sum() if spread.sum() > 0 else np.full(len(spread), 1 / len(spread))
    found = kept.assign(mean_score=kept.mean(axis=1), weighted_score=ranks @ weights)
    found["aggregated_rank"] = rankdata(found["weighted_score"], method="min")
    first = ["mean_score", "weighted_score", "aggregated_rank"]
    return found.sort_values("weighted_score", kind="stable")[[*first, *kept.columns]]


def write_results(results: pd.DataFrame, folder: str | os.PathLike[str], name: str) -> Path:
    """Write results as the benchmark does: ``<task>_result.json`` and ``results_summary.json``.

    The score of each split stays in the table: the files hold their mean and deviation.

    Parameters
    ----------
    results : DataFrame
        Results of :func:`evaluate`.
    folder : path
        Folder to write into; it is made.
    name : str
        Name of the method.
    """
    target = local_path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for task, row in results.iterrows():
        own: dict[str, Any] = {key: float(row[key]) for key in ("q_stat", "mean_score", "std_dev")}
        own["hyperparamaters"] = results.attrs.get("hyperparameters", {})  # the benchmark's own spelling
        (target / f"{task}_result.json").write_text(json.dumps(own, indent=2), encoding="utf-8")
    summary = {
        "experiment": name,
        "overall_score": float(results["q_stat"].mean()),
        "task_results": {str(task): float(q) for task, q in results["q_stat"].items()},
    }
    path = target / "results_summary.json"
    path.write_text(json.dumps(summary, indent=2), encoding="utf-8")
    return path
