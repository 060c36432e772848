"""Explanations of a probe: the bands that matter, how few would do, and the labels behind a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core.errors import EmbeddingError, check_choice, require
from geoemb_xr.core.fitted import check_model, decoded_bands
from geoemb_xr.core.notes import say
from geoemb_xr.execution import progress, sampling
from geoemb_xr.execution.neighbours import nearest
from geoemb_xr.execution.threads import one_thread
from geoemb_xr.geo.points import sample
from geoemb_xr.probes import validation
from geoemb_xr.probes.classes import data_of, encoded
from geoemb_xr.probes.heads import Data
from geoemb_xr.probes.probe import Probe
from geoemb_xr.probes.samples import Samples, plain_samples, samples_of

#: Share of the score of all bands that fewer must keep.
_ENOUGH = 0.98
_SAMPLES = 5000
_COLOUR, _SECOND, _QUIET = "#1b6ca8", "#d1793a", "#777777"


@dataclass(frozen=True)
class Explanation:
    """What :func:`explain` found.

    Parameters
    ----------
    contributions : DataFrame (class, band)
        Exact contributions of a linear probe: what each band adds to a class's score at the class's mean vector,
        against the mean of all. A row adds up to the difference of the two scores. Empty for other probes.
    permutation : DataFrame
        One row per band: how much the score on held-out blocks falls where the band is shuffled (``drop``), and the
        standard deviation over repeats. Empty without labels.
    fewer : DataFrame
        One row per number of dimensions: the score on held-out blocks of so many principal components
        (``components``) and of so many first bands (``prefix``). Empty without labels.
    layers : DataFrame (band, layer)
        Spearman's correlation of each band with given layers. Empty where none are given.
    score : str
        Name of the score.
    base : float
        The score of all bands on held-out blocks; NaN without labels.
    probe : Probe
        Class or value that is explained.
    samples : Samples or None
        The labels, for :meth:`examples`.
    mean : ndarray (band,)
        Mean vector, which contributions are told against.
    """

    contributions: pd.DataFrame
    permutation: pd.DataFrame
    fewer: pd.DataFrame
    layers: pd.DataFrame
    score: str
    base: float
    probe: Probe
    samples: Samples | None
    mean: np.ndarray

    def enough(self, kind: Literal["components", "prefix"] = "components", share: float = _ENOUGH) -> int:
        """Least number of dimensions whose score is at least a share of that of all bands."""
        check_choice("kind", kind, ("components", "prefix"))
        if self.fewer.empty:
            raise EmbeddingError("explain needs labels= to tell how few dimensions are enough")
        kept = self.fewer[self.fewer[kind] >= share * self.base]
        return int(kept.index.min() if len(kept) else self.fewer.index.max())

    def of(self, vectors: Any) -> pd.DataFrame:
        """Contributions of each band to each class's score for vectors ``(n, band)``, against the mean vector.

        Returns
        -------
        DataFrame
            A row per vector and class, a column per band; with the class's score at the mean vector a row adds up
            to the score.
        """
        weights, names = _linear(self.probe), _names(self.probe)
        if weights is None:
            raise EmbeddingError(
                f"a {self.probe.method} probe is not linear: its bands have no share of a score"
            )
        away = np.atleast_2d(np.asarray(vectors, np.float64)) - self.mean
        parts = (away[:, None] * weights).reshape(-1, away.shape[1])
        index = pd.MultiIndex.from_product([range(len(away)), names], names=["vector", "class"])
        return pd.DataFrame(
            parts, index, self.permutation.index if len(self.permutation) else self.contributions.columns
        )

    def examples(self, array: xr.DataArray, place: Any, k: int = 5) -> pd.DataFrame:
        """The labels nearest to the vectors of places, in the space of the embedding.

        Parameters
        ----------
        array : DataArray
            The embedding that was explained.
        place : pair, points or table
            Places, as :func:`geoemb_xr.sample` takes them.
        k : int
            Number of labels for each.

        Returns
        -------
        DataFrame
            One row per place and label: ``predicted``, ``label``, ``distance`` and ``row`` (of the labels that were
            used).

        Raises
        ------
        EmbeddingError
            If no labels were given to :func:`explain`, or no place has data.
        """
        if self.samples is None:
            raise EmbeddingError("explain needs labels= to show the nearest of them")
        there = sample(array, place)
        found = there if there.dtype.kind == "f" else there.emb.decode()
        vectors = np.asarray(found.transpose("location", "band").values, np.float32)
        present = np.isfinite(vectors).all(axis=1)
        if not present.any():
            raise EmbeddingError("no place has data")
        distance, index = nearest(vectors[present].T, self.samples.vectors, min(k, len(self.samples.vectors)))
        output = "value" if self.probe.legend is None else "label"
        predicted: Any = self.probe.apply(vectors[present], output)
        if self.probe.legend is not None:
            known = dict(zip(self.probe.legend.values, self.probe.legend.names, strict=True))
            predicted = [known[int(each)] for each in predicted]
        return pd.DataFrame(
            {
                "place": np.repeat(there.indexes["location"][present], len(index)),
                "predicted": np.repeat(predicted, len(index)),
                "label": _label_texts(self.samples)[index.T.ravel()],
                "distance": distance.T.ravel(),
                "row": index.T.ravel(),
            }
        )

    def __str__(self) -> str:
        lines = [repr(self.probe)]
        for name, row in self.contributions.iterrows():
            best = row[row.abs().sort_values(ascending=False).index[:4]]
            lines.append(f"{name}: " + ", ".join(f"{band} {value:+.2f}" for band, value in best.items()))
        if len(self.permutation):
            top = self.permutation.sort_values("drop", ascending=False).head(5)
            lines.append(
                "shuffled: " + ", ".join(f"{band} −{row['drop']:.3f}" for band, row in top.iterrows())
            )
            lines.append(
                f"{_ENOUGH:.0%} of {self.score} {self.base:.3f}: {self.enough()} components, or the first "
                f"{self.enough('prefix')} bands"
            )
        return "\n".join(lines)

    __repr__ = __str__

    def plot(
        self,
        ax: Any = None,
        *,
        what: Literal["contributions", "permutation", "fewer", "layers"] = "contributions",
    ) -> Any:
        """Draw what was found.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw on; a new figure by default.
        what : {"contributions", "permutation", "fewer", "layers"}
            The table to draw.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        EmbeddingError
            If there is no such table: it takes a linear probe, ``labels=`` or ``layers=``.
        ValueError
            For an unknown picture.
        """
        check_choice("what", what, ("contributions", "permutation", "fewer", "layers"))
        table: pd.DataFrame = getattr(self, what)
        if table.empty:
            needs = {"contributions": "a linear probe (logistic or ridge)", "layers": "layers="}
            raise EmbeddingError(
                f"there is nothing to draw for {what!r}: it takes {needs.get(what, 'labels=')}"
            )
        plt = require("matplotlib.pyplot", "viz")
        if ax is None:
            _, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
        if what in ("contributions", "layers"):
            _heatmap(ax, table if what == "contributions" else table.T, what)
        elif what == "permutation":
            top = table.sort_values("drop", ascending=False).head(20)
            ax.bar(range(len(top)), top["drop"], yerr=top["sd"], color=_COLOUR, ecolor=_QUIET)
            ax.set_xticks(range(len(top)), top.index, rotation=60, fontsize=8)
            ax.set_ylabel(f"drop of {self.score.replace('_', ' ')}")
        else:
            ax.plot(table.index, table["components"], marker="o", color=_COLOUR, label="principal components")
            ax.plot(table.index, table["prefix"], marker="o", color=_SECOND, label="first bands")
            ax.axhline(self.base, color=_QUIET, linewidth=1)
            ax.text(table.index[0], self.base, "all bands", va="bottom", color=_QUIET, fontsize=8)
            ax.set_xscale("log", base=2)
            ax.set_xticks(table.index, [str(each) for each in table.index])
            ax.set(xlabel="dimensions", ylabel=f"{self.score.replace('_', ' ')}, held-out blocks")
            ax.legend(frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
        return ax


def explain(
    array: Any,
    probe: Probe,
    *,
    labels: Any = None,
    target: str | None = None,
    time: Any = None,
    group: Any = None,
    layers: Mapping[str, xr.DataArray] | None = None,
    cv: int = 5,
    repeats: int = 5,
    seed: int = 0,
) -> Explanation:
    """Explain what a probe relies on: bands, number of dimensions, labels. Computes.

    Parameters
    ----------
    array : DataArray (…, band, …) or ndarray (n, band)
        The embedding that the probe is for; or plain vectors, with an array of labels.
    probe : Probe
        Fitted by :func:`geoemb_xr.fit_probe`.
    labels, target, time, group
        See :func:`geoemb_xr.fit_probe`. Without labels only contributions and layers are told.
    layers : mapping of str to DataArray, optional
        Layers such as elevation; each is looked up at the places of pixels of the array.
    cv : int
        Number of blocked folds.
    repeats : int
        Number of times each band is shuffled.
    seed : int
        Seed of whatever is drawn.

    Returns
    -------
    Explanation
        Tables, pictures (``plot``), contributions of single pixels (``of``) and the labels behind a prediction
        (``examples``).

    Raises
    ------
    ComparabilityError
        If the array is of another product or version than the probe.
    EmbeddingError
        If the labels are of classes that the probe does not know.

    Notes
    -----
    A linear probe's score is w · x + b, so that band j adds w_j (x_j − mean_j) to it, exactly. Permutation
    importance (Breiman 2001; Fisher et al. 2019) is told on blocks that were held out: the probe's method is fitted
    on the other blocks with its options, and a band of the held-out vectors is shuffled among them. Bands of
    embeddings share what they know: shuffled one by one, each may matter little where all matter much.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    >>> points = gx.testing.scene().points(120, radius=300)
    >>> probe = da.emb.fit_probe(points, target="land_cover", method="ridge")
    >>> found = da.emb.explain(probe, labels=points, target="land_cover", repeats=1)
    >>> found.contributions.shape[1], found.enough() <= 64
    (64, True)
    """
    if not isinstance(probe, Probe):
        raise EmbeddingError(f"explain takes a probe that gx.fit_probe fitted; got {type(probe).__name__}")
    if isinstance(array, xr.DataArray):
        check_model(probe, array, "explain")
        bands = list(map(str, decoded_bands(array)))
    else:
        bands = [f"band {i}" for i in range(np.asarray(array).shape[1])]
    samples = None if labels is None else _samples(array, labels, target or probe.target, time, group)
    drawn = _random_vectors(array, seed) if samples is None or layers else np.empty((0, len(bands)))
    data = None if samples is None else _data(samples, probe, seed)
    vectors = drawn if samples is None else samples.vectors
    mean = vectors.mean(axis=0, dtype=np.float64)
    empty = pd.DataFrame()
    score = "r2" if probe.legend is None else "balanced_accuracy"
    permutation, fewer, base = empty, empty, float("nan")
    if data is not None:
        with one_thread(), progress.shown("explain"):
            permutation, fewer, base = _held_out(probe, data, bands, score, cv, repeats, seed)
    return Explanation(
        contributions=_contributions(probe, data, vectors, mean, bands),
        permutation=permutation,
        fewer=fewer,
        layers=_along(array, layers, bands, seed) if layers else empty,
        score=score,
        base=base,
        probe=probe,
        samples=samples,
        mean=mean,
    )


# --- labels ---------------------------------------------------------------------------------------------------


def _samples(array: Any, labels: Any, target: str, time: Any, group: Any) -> Samples:
    if isinstance(array, xr.DataArray):
        return samples_of(array, labels, target, time, group, None)[0]
    return plain_samples(array, labels, group, None)


def _label_texts(samples: Samples) -> np.ndarray:
    """Labels as text: the names of codes where the legend has them."""
    if samples.labels.dtype.kind == "f":
        return samples.labels
    positions, legend = encoded(samples.labels, samples.legend)
    return np.asarray(np.array(legend.names, dtype=object)[positions])


def _data(samples: Samples, probe: Probe, seed: int) -> Data:
    """Labels with the positions of the probe's classes."""
    if probe.legend is None:
        return data_of(samples, seed)[1]
    _, data, legend = data_of(samples, seed)
    if legend is None:
        raise EmbeddingError("the probe knows classes; the labels are floats (values)")
    place = {name: i for i, name in enumerate(probe.legend.names)}
    unknown = sorted(set(legend.names) - set(place))
    if unknown:
        raise EmbeddingError(f"the labels have classes {unknown} that the probe does not know: {list(place)}")
    positions = np.array([place[name] for name in legend.names])
    return data._replace(y=positions[data.y], classes=len(place))


def _random_vectors(array: Any, seed: int) -> np.ndarray:
    """Vectors drawn from the array, to estimate a mean."""
    if not isinstance(array, xr.DataArray):
        return np.asarray(array, np.float32)
    return sampling.sample_vectors([array], _SAMPLES, seed=seed, masks=[None], label="explain").vectors


def _names(probe: Probe) -> list[str]:
    return [probe.target] if probe.legend is None else list(probe.legend.names)


# --- contributions --------------------------------------------------------------------------------------------


def _linear(probe: Probe) -> np.ndarray | None:
    """Weights ``(class, band)`` of a linear probe, a row per class even if one score serves two; else None."""
    if set(probe.parameters) != {"weights", "bias"}:
        return None
    return probe.parameters["weights"].astype(np.float64)


def _contributions(
    probe: Probe, data: Data | None, vectors: np.ndarray, mean: np.ndarray, bands: list[str]
) -> pd.DataFrame:
    """Return what each band adds to the score of a class at its mean vector, or to a value per deviation."""
    weights = _linear(probe)
    if weights is None:
        say(f"a {probe.method} probe is not linear: explain gives no contributions, only results from labels")
        return pd.DataFrame()
    if probe.legend is None:
        return pd.DataFrame(weights * vectors.std(axis=0), [probe.target], bands)
    if data is None:
        scores = probe.head.scores(probe.parameters, vectors.T)
        positions = scores.argmax(axis=0)
    else:
        positions = data.y
    rows = []
    for number in range(len(probe.legend.names)):
        own = positions == number
        rows.append(weights[number] * (vectors[own].mean(axis=0, dtype=np.float64) - mean) if own.any()
                    else np.full(len(bands), np.nan))  # fmt: skip
    return pd.DataFrame(rows, pd.Index(_names(probe), name="class"), bands)


# --- held-out blocks ------------------------------------------------------------------------------------------


def _held_out(
    probe: Probe, data: Data, bands: list[str], score: str, cv: int, repeats: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """Permutation importance, the score of fewer dimensions, and that of all bands."""
    folds = validation.blocked_folds(data, cv)
    folds = validation.random_folds(data, cv) if folds is None else folds
    if folds is None:
        raise EmbeddingError(f"the {len(data.y)} labels are of one group or place: no block can be held out")
    parts = [(np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in range(int(folds.max()) + 1)]
    head, options = probe.head, dict(probe.options)

    def fit(part: Data) -> Any:
        return head, head.fit(part, **options)

    def scored(change: Any = None, dims: int | None = None, prefix: bool = False) -> float:
        scores = np.empty((data.classes or 1, len(data.y)), np.float32)
        for fold, (train, test) in enumerate(parts):
            part, x = data.at(train), data.x[test]
            if dims is not None:
                axes = np.eye(x.shape[1])[:, :dims] if prefix else _axes(part.x, dims)
                centre = part.x.mean(axis=0)
                part = part._replace(x=np.ascontiguousarray((part.x - centre) @ axes, np.float32))
                x = ((x - centre) @ axes).astype(np.float32)
            scores[:, test] = validation.scores_of(fit, part, x) if change is None else change(fold, x)
        return validation.measures(data, scores)[score]

    base = scored()
    models = [_fitted(fit, data.at(train)) for train, _ in parts]
    rng = np.random.default_rng(seed)
    drops = np.empty((len(bands), repeats))
    for band in range(len(bands)):
        for repeat in range(repeats):

            def shuffled(fold: int, x: np.ndarray, band: int = band) -> np.ndarray:
                x = x.copy()
                x[:, band] = rng.permutation(x[:, band])
                return np.asarray(models[fold](x))

            drops[band, repeat] = base - scored(shuffled)
    sd = drops.std(axis=1, ddof=1) if repeats > 1 else np.full(len(bands), np.nan)
    permutation = pd.DataFrame({"drop": drops.mean(axis=1), "sd": sd}, pd.Index(bands, name="band"))
    most = min(len(bands), min(len(train) for train, _ in parts))
    numbers = sorted({2**i for i in range(12) if 2**i < most} | {most})
    rows = [(scored(dims=n), scored(dims=n, prefix=True)) for n in numbers]
    fewer = pd.DataFrame(rows, pd.Index(numbers, name="dims"), ["components", "prefix"])
    return permutation, fewer, base


def _fitted(fit: Any, train: Data) -> Any:
    """Fit once, and return a function from vectors to the scores of all classes."""
    if not train.classes:
        head, parameters = fit(train)
        return lambda x: head.scores(parameters, x.T)
    present, positions = np.unique(train.y, return_inverse=True)
    if len(present) == 1:
        return lambda x: (
            np.where(np.arange(train.classes)[:, None] == present, np.float32(0), validation.NEVER)
            + np.zeros(len(x))
        )
    head, parameters = fit(train._replace(y=positions, classes=len(present)))

    def scores(x: np.ndarray) -> np.ndarray:
        out: np.ndarray = np.full((train.classes, len(x)), validation.NEVER)
        out[present] = head.scores(parameters, x.T)
        return out

    return scores


def _axes(x: np.ndarray, dims: int) -> np.ndarray:
    """Principal axes of vectors ``(band, dims)``."""
    return np.asarray(np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][:dims].T)


# --- layers ---------------------------------------------------------------------------------------------------


def _along(
    array: xr.DataArray, layers: Mapping[str, xr.DataArray], bands: list[str], seed: int
) -> pd.DataFrame:
    """Spearman's correlation of each band with layers, at pixels drawn over the array."""
    from scipy import stats

    places = _some_places(array, seed)
    vectors = sample(array, places)
    own = (
        (vectors if vectors.dtype.kind == "f" else vectors.emb.decode()).transpose("location", "band").values
    )
    found = {}
    for name, layer in layers.items():
        values = np.asarray(sample(layer, places).values, np.float64).reshape(len(own), -1)[:, 0]
        both = np.isfinite(values) & np.isfinite(own).all(axis=1)
        if both.sum() < 3:
            raise EmbeddingError(
                f"layers[{name!r}] has data at {int(both.sum())} of {len(own)} pixels of the array"
            )
        ranks = stats.rankdata(np.column_stack([own[both], values[both]]), axis=0)
        with np.errstate(invalid="ignore"):
            found[name] = np.corrcoef(ranks.T)[-1, :-1]
    return pd.DataFrame(found, pd.Index(bands, name="band"))


def _some_places(array: xr.DataArray, seed: int) -> pd.DataFrame:
    """Places of pixels or locations, as longitude and latitude."""
    from geoemb_xr.core import geometry

    crs, rng = geometry.crs_of(array), np.random.default_rng(seed)
    if crs is None:
        raise EmbeddingError("layers are looked up at places: the array has no coordinate 'spatial_ref'")
    x, y = array.coords["x"].values, array.coords["y"].values
    if "location" not in array.dims:
        chosen = rng.permutation(len(x) * len(y))[: _SAMPLES // 2]
        x, y = x[chosen % len(x)], y[chosen // len(x)]
    lon, lat = geometry.transformer(crs, geometry.as_crs(geometry.LONLAT)).transform(x, y)
    return pd.DataFrame({"lon": lon, "lat": lat})


def _heatmap(ax: Any, table: pd.DataFrame, what: str) -> None:
    top = float(np.nanmax(np.abs(table.to_numpy()))) or 1.0
    drawn = ax.imshow(
        table.to_numpy(), cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto", interpolation="nearest"
    )
    ax.set_yticks(range(len(table)), table.index, fontsize=8)
    step = max(len(table.columns) // 16, 1)
    ax.set_xticks(range(0, len(table.columns), step), table.columns[::step], rotation=60, fontsize=8)
    label = "adds to the class's score" if what == "contributions" else "Spearman's correlation"
    ax.figure.colorbar(drawn, ax=ax, label=label)
