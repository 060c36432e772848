"""Products side by side on one task: the same labels, folds and probes, and the controls that a number needs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.comparing import scoring
from geoemb_xr.comparing.controls import controls_of
from geoemb_xr.comparing.scoring import Split
from geoemb_xr.comparing.support import Support, names_of, support_of
from geoemb_xr.core.errors import EmbeddingError, check_choice, require
from geoemb_xr.core.notes import one_call, say
from geoemb_xr.execution import progress
from geoemb_xr.execution.threads import one_thread
from geoemb_xr.probes import validation
from geoemb_xr.probes.heads import HEADS, Data

SplitName = Literal["blocks", "random", "groups"]
_ANSWERS = {
    "blocks": "transfer: whole regions are left out",
    "groups": "transfer: one group is left out at a time",
    "random": "optimistic: groups are drawn at random, so test places have neighbours among the training places",
}


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found.

    Parameters
    ----------
    scores : DataFrame
        One row per product or control, method, split, number of labels and score: ``value``, its standard deviation
        over draws (``sd``, NaN for a single one) and ``n``, the number of labels that were predicted.
    differences : DataFrame
        One row per pair of products and method: the paired difference of balanced accuracy (or R²) over blocks,
        with interval, p-value after Holm's correction, and the number of blocks.
    groups : DataFrame
        With ``by=``: the score of each group.
    facts : DataFrame
        One row per product: dimensions, footprint in metres, whether the labels are among those it was trained on,
        and attribution.
    target : str
        What was predicted.
    n : int
        Number of labels that all products cover.
    dropped : mapping of str to int
        How many labels were left out, by reason.
    """

    scores: pd.DataFrame
    differences: pd.DataFrame
    groups: pd.DataFrame
    facts: pd.DataFrame
    target: str
    n: int
    dropped: Mapping[str, int]

    @property
    def main_score(self) -> str:
        """The score that pictures show: balanced accuracy, or R²."""
        return "balanced_accuracy" if (self.scores.score == "balanced_accuracy").any() else "r2"

    def table(self) -> pd.DataFrame:
        """The main score with all labels: a row per product and method, a column per split."""
        shown = self.scores[(self.scores.score == self.main_score) & self.scores.n_labels.isna()]
        table = shown.pivot_table(index=["product", "method"], columns="split", values="value", sort=False)
        return table.rename_axis(columns=None)

    def beaten(self) -> dict[str, list[str]]:
        """For each product the controls that its best probe does not beat where regions or groups are left out."""
        table = self.table()
        split = next((name for name in ("blocks", "groups", "random") if name in table.columns), None)
        if split is None:
            return {}
        best = table[split].groupby(level="product").max()
        controls = [name for name in best.index if name not in self.facts.index and name != "permuted labels"]
        return {
            str(name): [control for control in controls if best[name] <= best[control]]
            for name in self.facts.index
        }

    def __str__(self) -> str:
        lines = [
            f"{self.target}: {self.main_score.replace('_', ' ')} on {self.n} labels",
            str(self.table().round(3)),
        ]
        lines += [
            f"{name} does not beat {', '.join(those)}" for name, those in self.beaten().items() if those
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        notes = [f"<b>{escape(self.target)}</b>: {self.main_score.replace('_', ' ')} on {self.n} labels"]
        notes += [f"{k}: {_ANSWERS[k]}" for k in self.scores["split"].unique()]
        notes += [
            f"{escape(name)} does not beat {escape(', '.join(those))}"
            for name, those in self.beaten().items()
            if those
        ]
        return "<br>".join(notes) + str(self.table().round(3).to_html())

    def plot(self, ax: Any = None) -> Any:
        """Draw the main score of every product and control, one colour per split.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        """
        plt = require("matplotlib.pyplot", "viz")
        table = self.table()
        if ax is None:
            _, ax = plt.subplots(figsize=(7, 0.8 + 0.32 * len(table)), layout="constrained")
        rows = np.arange(len(table))[::-1]
        for number, split in enumerate(table.columns):
            colour = ("#1b6ca8", "#b0b0b0", "#d1793a")[number]
            ax.scatter(table[split], rows - 0.16 * number, s=36, color=colour, label=split, zorder=3)
        ax.set_yticks(rows, [f"{name}, {method}" for name, method in table.index])
        ax.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        ax.set_axisbelow(True)
        controls = [name not in self.facts.index for name, _ in table.index]
        for label, is_control in zip(ax.get_yticklabels(), controls, strict=True):
            label.set_color("#777777" if is_control else "black")
        ax.set_xlabel(f"{self.main_score.replace('_', ' ')}: {self.target}, {self.n} labels")
        ax.legend(frameon=False, loc="best")
        return ax

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a page: one file that opens without a network.

        Parameters
        ----------
        path : path
            File to write.

        Returns
        -------
        Path
            Where it is.
        """
        target = Path(path)
        target.write_text(_page(self), encoding="utf-8")
        return target


@one_call()
def evaluate(
    arrays: Mapping[str, xr.DataArray],
    labels: Any,
    *,
    target: str | None = None,
    time: Any = None,
    group: Any = None,
    by: str | None = None,
    previous: str | None = None,
    splits: Sequence[SplitName] = ("blocks", "random"),
    methods: Sequence[str] = ("logistic", "knn"),
    n_labels: Sequence[int | None] = (1, 10, 100, None),
    cv: int = 5,
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Compare products on one task, with the same labels, folds and probes for each. Computes.

    A label counts if all products have data there. Pixels of a polygon are averaged first, so that a product of
    fine pixels has no more votes than a coarse one. Whole regions are left out in ``"blocks"``, with a buffer as
    wide as the largest footprint among the products; ``"random"`` is shown beside it and is optimistic.

    Parameters
    ----------
    arrays : mapping of str to DataArray
        Embeddings by name: products, versions, or what :func:`geoemb_xr.fuse` stacked.
    labels : table, GeoDataFrame, path or DataArray
        As in :func:`geoemb_xr.fit_probe`: points, polygons or a label raster. Strings, booleans and integers are
        classes, floats are values.
    target : str, optional
        Column of the labels; may be left out where there is only one.
    time : int, str or column, optional
        As in :func:`geoemb_xr.fit_probe`.
    group : str or array, optional
        What no split may part; by default labels at one place.
    by : str, optional
        Column, such as a country, by which scores are told apart as well.
    previous : str, optional
        Column of earlier labels of the same places: the control "persistence".
    splits : sequence of {"blocks", "random", "groups"}
        How labels are held out; ``"groups"`` leaves out one value of ``group`` at a time.
    methods : sequence of str
        Probes, as in :func:`geoemb_xr.fit_probe`, with their default options. Methods that cannot do the task are
        left out.
    n_labels : sequence of int or None
        Number of training labels per class (in all for values); None is all of them. Few labels are drawn anew up
        to 30 times; smaller draws are parts of larger ones, and the test labels stay as they are.
    cv : int
        Number of folds.
    level : float
        Coverage of intervals of differences.
    seed : int
        Seed of folds and draws.

    Returns
    -------
    Evaluation
        Tables, a picture (``plot``) and a page (``to_html``).

    Raises
    ------
    EmbeddingError
        If no label is covered by all products, an option is unknown, or there are too few places to split.

    Notes
    -----
    Held-out predictions of all folds are pooled and then scored. Differences are paired over spatial blocks:
    Student's interval below 30 blocks, none below six, a bootstrap over blocks above; p-values are corrected by
    Holm (1979).
    Controls are scored like products: coordinates alone (the nearest label; a smooth surface), a constant, labels
    permuted among groups, which must score chance, and the earlier label where ``previous`` is given.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> scene = gx.testing.scene()
    >>> arrays = {name: gx.testing.synthetic(name, shape=(80, 80)) for name in ("alphaearth", "tessera")}
    >>> labels = gx.labels(scene.truth(gx.testing.geobox((80, 80)), 2018), per_class=20)
    >>> found = gx.evaluate(arrays, labels, methods=["knn"], n_labels=[None])
    >>> sorted(found.table().columns)
    ['blocks', 'random']
    """
    names_of(arrays)
    for split in splits:
        check_choice("splits", split, ("blocks", "random", "groups"))
    for method in methods:
        check_choice("methods", method, HEADS)
    if "groups" in splits and group is None:
        raise EmbeddingError(
            "splits='groups' leaves out one value of group= at a time: say group='region', or so"
        )
    support = support_of(arrays, labels, target=target, time=time, group=group, by=by, previous=previous)
    able = _able(methods, support.classes)
    data = {name: support.data(x, seed) for name, x in support.vectors.items()}
    first = next(iter(data.values()))
    with one_thread(), progress.shown("evaluate"):
        held = _Held(support, data, _splits(splits, first, cv, support), seed)
        for (name, one), method in itertools.product(data.items(), able):
            held.score(name, method, one, scoring.probe_predictor(one, method), n_labels)
        for (name, method), (one, predict) in controls_of(support, first, able[0]).items():
            held.score(name, method, one, predict, [None])
        differences = _differences(held, data, able, level, seed)
    facts = _facts(support)
    if support.dropped:
        say(f"evaluate left out labels: {', '.join(f'{n} {why}' for why, n in support.dropped.items())}")
    return Evaluation(
        scores=pd.DataFrame(held.rows),
        differences=differences,
        groups=pd.DataFrame(held.group_rows),
        facts=facts,
        target=support.target,
        n=len(support.y),
        dropped=support.dropped,
    )


def _able(methods: Sequence[str], classes: int) -> list[str]:
    task = "classification" if classes else "regression"
    able = [name for name in methods if task in HEADS[name].tasks]
    if not able:
        raise EmbeddingError(
            f"none of methods={list(methods)} does {task}; use "
            f"{[name for name, each in HEADS.items() if task in each.tasks]}"
        )
    return able


def _splits(names: Sequence[str], data: Data, cv: int, support: Support) -> list[Split]:
    buffer = max(support.footprints.values())
    found = [scoring.split_of(name, data, cv, buffer) for name in names]
    if None in found:
        raise EmbeddingError(
            f"the {len(data.y)} labels lie at too few places for splits={names[found.index(None)]!r} with cv={cv}"
        )
    return [each for each in found if each is not None]


class _Held:
    """Held-out predictions as they come, and the rows of the tables."""

    def __init__(
        self, support: Support, data: Mapping[str, Data], splits: Sequence[Split], seed: int
    ) -> None:
        self.support, self.splits, self.seed = support, splits, seed
        self.rows: list[dict[str, Any]] = []
        self.group_rows: list[dict[str, Any]] = []
        self.scores: dict[tuple[str, str, str], np.ndarray] = {}

    def score(
        self, name: str, method: str, data: Data, predict: scoring.Predictor, n_labels: Sequence[int | None]
    ) -> None:
        """Predict what is held out, for each split and number of labels, and score it."""
        for split, n in itertools.product(self.splits, n_labels):
            draws = [
                scoring.held_out(predict, data, split, n, self.seed + draw)
                for draw in range(scoring.draws_for(n))
            ]
            found = pd.DataFrame([scoring.measures(data, each, self.support.by) for each in draws])
            where = {"product": name, "method": method, "split": split.name}
            for score in found.columns:
                values = found[score]
                self.rows.append(
                    {
                        **where,
                        "n_labels": np.nan if n is None else n,
                        "score": score,
                        "value": float(values.mean()),
                        "sd": float(values.std(ddof=1)) if len(values) > 1 else np.nan,
                        "n": int(np.isfinite(draws[0]).any(axis=0).sum()),
                    }
                )
            if n is None:
                self.scores[name, method, split.name] = draws[0]
                if self.support.by.size:
                    groups = scoring.by_groups(data, draws[0], self.support.by)
                    self.group_rows += [
                        {**where, "group": group, "value": value, "n": count}
                        for group, (value, count) in groups.items()
                    ]


def _differences(
    held: _Held, data: Mapping[str, Data], methods: Sequence[str], level: float, seed: int
) -> pd.DataFrame:
    """Each pair of products, method by method, where regions (or groups) are left out."""
    split = held.splits[0].name
    first = next(iter(data.values()))
    blocks = validation.regions_of(first, scoring.REGIONS)
    rows = []
    for (a, b), method in itertools.product(itertools.combinations(data, 2), methods):
        keys = [(name, method, split) for name in (a, b)]
        if blocks is None or not all(key in held.scores for key in keys):
            continue
        mine, other = (scoring.correctness(first, held.scores[key]) for key in keys)
        found = scoring.difference(mine, other, blocks, level, seed)
        rows.append({"a": a, "b": b, "method": method, "split": split, "difference": found.value,
                     "low": found.low, "high": found.high, "p": found.p, "blocks": found.blocks})  # fmt: skip
    table = pd.DataFrame(rows)
    if len(table):
        known = table["p"].notna()
        table.loc[known, "p"] = scoring.holm(table.loc[known, "p"].to_numpy())
    return table


def _facts(support: Support) -> pd.DataFrame:
    rows = {
        name: {
            "product": product.name,
            "dims": support.vectors[name].shape[1],
            "footprint_m": support.footprints[name],
            "label_seen_in_training": _is_seen(support.target, product.trained_on),
            "trained_on": ", ".join(product.trained_on),
            "licence": product.licence_line,
            "attribution": product.attribution,
        }
        for name, product in support.products.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _is_seen(target: str, trained_on: Sequence[str]) -> bool:
    """Whether labels are named like a source that a product was trained on (``nlcd_2019`` and ``NLCD``)."""
    words = target.lower().replace("_", " ")
    return any(source.lower() in words or words in source.lower() for source in trained_on)


# --- the page -------------------------------------------------------------------------------------------------

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:.6em 0 1.6em;display:block;overflow-x:auto}"
    "th,td{padding:3px 12px 3px 0;text-align:left;border-bottom:1px solid #e4e4e4;font-size:13px}"
    "img{max-width:100%}"
)


def _page(found: Evaluation) -> str:
    parts = [f"<h1>{escape(found.target)}</h1>", f"<p>{escape(str(found).splitlines()[0])}.</p>"]
    parts += [f"<p>{escape(name)} does not beat {escape(', '.join(those))}.</p>"
              for name, those in found.beaten().items() if those]  # fmt: skip
    parts.append(_picture(found))
    parts.append(
        "<ul>" + "".join(f"<li>{k}: {_ANSWERS[k]}</li>" for k in found.scores["split"].unique()) + "</ul>"
    )
    for title, table in (
        ("Scores with all labels", found.table()),
        ("Differences between products", found.differences),
        ("By group", found.groups),
        ("Few labels", _few_labels(found)),
        ("Products", found.facts),
    ):
        if len(table):
            parts += [f"<h2>{title}</h2>", str(table.round(3).to_html(na_rep="–", border=0))]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f"<title>{escape(found.target)}</title>"
    return (
        f"<!doctype html><html><head>{head}<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _few_labels(found: Evaluation) -> pd.DataFrame:
    shown = found.scores[(found.scores.score == found.main_score) & found.scores.n_labels.notna()]
    if shown.empty:
        return shown
    columns = ["split", "n_labels"]
    return shown.pivot_table(index=["product", "method"], columns=columns, values="value", sort=False)


def _picture(found: Evaluation) -> str:
    """The plot inside the page; nothing where matplotlib is not installed."""
    import base64
    import io

    try:
        figure_class = require("matplotlib.figure", "viz").Figure
    except ImportError:
        return ""
    figure = figure_class(figsize=(8, 0.8 + 0.32 * len(found.table())), layout="constrained")
    found.plot(figure.subplots())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return f'<img alt="scores" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
