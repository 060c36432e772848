"""What a comparison found: tables, and how they are shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from geoemb_xr.comparing.folds import SPLITS
from geoemb_xr.comparing.grouping import LEAST_LABELS
from geoemb_xr.core import html
from geoemb_xr.core.local_paths import local_path

Picture = Literal["scores", "learning", "distance", "calibration", "groups"]


def _none() -> pd.DataFrame:
    return pd.DataFrame()


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found.

    Parameters
    ----------
    scores : DataFrame
        One row per product or control, support, method, split, number of labels and score: ``value``, its standard
        deviation over draws (``sd``, NaN for a single one), ``n``, the number of labels that were predicted, and
        ``label_seen_in_training``, whether the product was trained on such labels.
        ``support`` is ``"native"``, ``"common"`` (finer products averaged over the coarsest one's footprint) or
        ``"equal dims"`` (as many principal components as the shortest product has bands).
    differences : DataFrame
        One row per declared contrast and method: the paired difference of balanced accuracy (or R²) over blocks,
        with interval, p-value after Holm's correction, and the number of blocks.
    groups : DataFrame
        With ``by=``: the score of each group, its interval, and the score over classes that all groups have.
    facts : DataFrame
        One row per product: dimensions, footprint in metres, whether the labels are among those it was trained on,
        and attribution.
    target : str
        Name of the column that was predicted.
    n : int
        Number of labels that all products cover.
    dropped : mapping of str to int
        Number of labels that were left out, by reason.
    splits : DataFrame
        One row per split: the question that it answers, folds, blocks, their side, the range of the residuals'
        autocorrelation, the buffer, W of kNNDM, and notes.
    classes : DataFrame
        Precision, recall and average precision (AUPRC) of each class.
    distances : DataFrame
        Scores against the distance from training labels.
    calibration, coverage : DataFrame
        Calibration curves, and the coverage of conformal sets by block.
    strata : DataFrame
        Scores of labels in pure and in mixed cells of the coarsest product.
    labels : DataFrame
        With ``by=``: labels per class and group, and the share inside the area of applicability of the others.
    level : float
        Coverage of intervals and conformal sets.
    """

    scores: pd.DataFrame
    differences: pd.DataFrame
    groups: pd.DataFrame
    facts: pd.DataFrame
    target: str
    n: int
    dropped: Mapping[str, int]
    splits: pd.DataFrame = field(default_factory=_none)
    classes: pd.DataFrame = field(default_factory=_none)
    distances: pd.DataFrame = field(default_factory=_none)
    calibration: pd.DataFrame = field(default_factory=_none)
    coverage: pd.DataFrame = field(default_factory=_none)
    strata: pd.DataFrame = field(default_factory=_none)
    labels: pd.DataFrame = field(default_factory=_none)
    level: float = 0.95

    @property
    def main_score(self) -> str:
        """The score that pictures show: balanced accuracy, or R²."""
        return "balanced_accuracy" if (self.scores.score == "balanced_accuracy").any() else "r2"

    @property
    def main_split(self) -> str:
        """The split that pictures show: the first that leaves places, groups or years out, of those asked for."""
        return str(next(name for name in SPLITS if (self.scores["split"] == name).any()))

    def fullest(self) -> pd.DataFrame:
        """The scores of each product from the most labels that were asked for: all, where ``n_labels`` has None."""
        keys = [self.scores[name] for name in ("product", "method", "support", "split")]
        count = self.scores.n_labels.fillna(np.inf)
        return self.scores[count == count.groupby(keys).transform("max")]

    def table(self, support: str = "native") -> pd.DataFrame:
        """The main score with all labels: a row per product and method, a column per split."""
        scores = self.fullest()
        shown = scores[(scores.score == self.main_score) & (scores.support == support)]
        table = shown.pivot_table(index=["product", "method"], columns="split", values="value", sort=False)
        return table.rename_axis(columns=None)

    def supports(self) -> pd.DataFrame:
        """The main score of the main split: a row per product and method, a column per support."""
        scores = self.fullest()
        shown = scores[
            (scores.score == self.main_score)
            & (scores["split"] == self.main_split)
            & scores["product"].isin(self.facts.index)
        ]
        table = shown.pivot_table(index=["product", "method"], columns="support", values="value", sort=False)
        return table.rename_axis(columns=None)

    def beaten(self) -> dict[str, list[str]]:
        """For each product the controls that its best probe does not beat where regions or groups are left out."""
        best = self.table()[self.main_split].groupby(level="product").max()
        controls = [name for name in best.index if name not in self.facts.index and name != "permuted labels"]
        return {
            str(name): [control for control in controls if best[name] <= best[control]]
            for name in self.facts.index
        }

    def worst_groups(self) -> pd.DataFrame:
        """With ``by=``: the group with the lowest score over common classes, of those with 20 labels or more."""
        if self.groups.empty:
            return self.groups
        kept = self.groups[self.groups.n >= LEAST_LABELS]
        score = kept.common.fillna(kept.value)
        rows = score.groupby([kept["product"], kept["method"], kept["split"]], sort=False).idxmin()
        return kept.loc[rows].assign(score=score.loc[rows]).reset_index(drop=True)

    def notes(self) -> list[str]:
        """The caveats of a comparison, one sentence each."""
        return [text if name == "note" else f"{name}: {text}" for name, text in self._rows()]

    def _rows(self) -> list[tuple[str, str]]:
        """The caveats of a comparison, by the split that each is about."""
        found = []
        for row in self.splits.itertuples():
            said = [str(row.answers)]
            said += [
                f"{label} {getattr(row, name):,.0f} m"
                for name, label in (("side_m", "blocks of"), ("range_m", "residuals alike up to"),
                                    ("buffer_m", "buffer of"), ("w_m", "W is"))
                if np.isfinite(getattr(row, name)) and (name != "buffer_m" or getattr(row, name))
            ]  # fmt: skip
            said += [str(row.note)] if row.note else []
            found.append((str(row.Index), said[0] + (f" ({'; '.join(said[1:])})" if said[1:] else "")))
        most = self.scores.n_labels.max()
        if not self.scores.n_labels[self.scores["product"].isin(self.facts.index)].isna().any():
            of = "labels" if self.main_score == "r2" else "labels per class"
            found.append(("note", f"products learnt from {most:g} {of}, controls from all"))
        found += [
            ("note", f"{name} does not beat {', '.join(those)}")
            for name, those in self.beaten().items()
            if those
        ]
        found += [
            ("note", f"{name} was trained on such labels ({row.trained_on}): no fair test of it")
            for name, row in self.facts.iterrows()
            if row.label_seen_in_training
        ]
        if self.dropped:
            found.append(("left out", ", ".join(f"{n} labels {why}" for why, n in self.dropped.items())))
        return found

    def _title(self) -> str:
        return f"{self.target}: {self.main_score.replace('_', ' ')} on {self.n} labels"

    def __str__(self) -> str:
        return "\n".join([self._title(), str(self.table().round(3)), *self.notes()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        scores = self.table().round(3).to_html(border=0)
        return html.card(self._title(), [(name, escape(text)) for name, text in self._rows()], scores)

    def plot(self, ax: Any = None, *, what: Picture = "scores") -> Any:
        """Draw what was found.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw on; a new figure by default.
        what : {"scores", "learning", "distance", "calibration", "groups"}
            The main score of every product and control, one colour per split; against the number of labels; against
            the distance from training labels; calibration curves with the coverage of conformal sets by block; or
            by group.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        EmbeddingError
            If there is nothing of the kind to draw.
        """
        from geoemb_xr.comparing.pictures import draw_picture

        return draw_picture(self, what, ax)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a page: one file that opens without a network.

        Parameters
        ----------
        path : path
            File to write.

        Returns
        -------
        Path
            The path of the file.
        """
        from geoemb_xr.comparing.report import page

        target = local_path(path)
        target.write_text(page(self), encoding="utf-8")
        return target
