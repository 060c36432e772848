"""Pictures of a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from geoemb_xr.core.errors import EmbeddingError, check_choice, require

if TYPE_CHECKING:
    from geoemb_xr.comparing.findings import Evaluation

PICTURES = ("scores", "learning", "distance", "calibration", "groups")
_COLOURS = ("#1b6ca8", "#d1793a", "#2f7d4f", "#8a5aa3", "#b03a48", "#5f8f9e", "#8c7a3d")
_QUIET = "#777777"
#: A bin of fewer labels tells no calibration, and is left out of the picture.
_LEAST_IN_BIN = 5


def draw_picture(found: Evaluation, what: str, ax: Any = None) -> Any:
    """Draw one of :data:`PICTURES` into axes, or into a new figure."""
    check_choice("what", what, PICTURES)
    plt = require("matplotlib.pyplot", "viz")
    if ax is None:
        height = 0.8 + 0.34 * len(found.table()) if what == "scores" else 4.0
        _, ax = plt.subplots(figsize=(7, height), layout="constrained")
    {"scores": _scores, "learning": _learning, "distance": _distance, "calibration": _calibration,
     "groups": _groups}[what](found, ax)  # fmt: skip
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def available(found: Evaluation) -> list[str]:
    """Pictures for which there is something to draw."""
    have = {
        "scores": found.scores,
        "learning": found.scores[found.scores.n_labels.notna()],
        "distance": found.distances,
        "calibration": found.coverage,
        "groups": found.groups,
    }
    return [
        name for name in PICTURES if len(have[name]) and have[name]["product"].isin(found.facts.index).any()
    ]


def _score(found: Evaluation) -> str:
    return {"balanced_accuracy": "balanced accuracy", "r2": "R²"}[found.main_score]


def _need(found: Evaluation, what: str) -> None:
    if what not in available(found):
        reason = {"learning": "n_labels= has numbers", "groups": "by= names a column and n_labels= has None"}
        raise EmbeddingError(f"there is nothing to draw for {what!r}; it is there where "
                             f"{reason.get(what, 'n_labels= has None, for all labels')}")  # fmt: skip


def _scores(found: Evaluation, ax: Any) -> None:
    table = found.table()
    rows = np.arange(len(table))[::-1]
    step = 0.5 / len(table.columns)
    for number, split in enumerate(table.columns):
        colour = "#b0b0b0" if split == "random" else _COLOURS[number % len(_COLOURS)]
        shifted = rows + step * ((len(table.columns) - 1) / 2 - number)
        ax.scatter(table[split], shifted, s=34, color=colour, label=split, zorder=3)
    ax.set_yticks(rows, [f"{name}, {method}" for name, method in table.index])
    ax.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    ax.set_axisbelow(True)
    for label, (name, _) in zip(ax.get_yticklabels(), table.index, strict=True):
        label.set_color("black" if name in found.facts.index else _QUIET)
    lowest = float(np.nanmin(table.to_numpy()))
    if found.main_score == "r2" and lowest < -1:
        ax.set_xlim(left=-1.05)
        ax.text(-1.05, rows[-1] - 0.8, "R² below −1 is not shown", color=_QUIET, fontsize=8)
    ax.set_xlabel(f"{_score(found)}: {found.target}, {found.n} labels")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _lines(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Rows of each product and method."""
    return [(f"{name}, {method}", rows) for (name, method), rows in
            table.groupby(["product", "method"], sort=False)]  # fmt: skip


def _learning(found: Evaluation, ax: Any) -> None:
    _need(found, "learning")
    shown = found.scores[
        (found.scores.score == found.main_score)
        & (found.scores["split"] == found.main_split)
        & (found.scores.support == "native")
        & found.scores["product"].isin(found.facts.index)
    ]
    most = 3 * float(shown.n_labels.max())
    for number, (name, rows) in enumerate(_lines(shown)):
        x = rows.n_labels.fillna(most).to_numpy()
        colour = _COLOURS[number % len(_COLOURS)]
        sd = rows.sd.fillna(0).to_numpy()
        ax.plot(x, rows.value, marker="o", color=colour, label=name)
        ax.fill_between(x, rows.value - sd, rows.value + sd, color=colour, alpha=0.15, linewidth=0)
    ax.set_xscale("log")
    ticks = sorted(shown.n_labels.dropna().unique())
    whole = [most] if shown.n_labels.isna().any() else []
    ax.set_xticks([*ticks, *whole], [*(f"{tick:g}" for tick in ticks), *(["all"] if whole else [])])
    ax.minorticks_off()
    ax.set_xlabel("training labels per class" if found.main_score != "r2" else "training labels")
    ax.set_ylabel(f"{_score(found)}, {found.main_split}")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _distance(found: Evaluation, ax: Any) -> None:
    """Colours are products, dashes are splits."""
    _need(found, "distance")
    ticker = require("matplotlib.ticker", "viz")
    shown = found.distances[found.distances["product"].isin(found.facts.index)]
    styles = dict(zip(shown["split"].unique(), ("-", "--", ":", "-.", "-", "--", ":"), strict=False))
    colours = dict(zip(shown["product"].unique(), _COLOURS, strict=False))
    first = shown["method"].iloc[0]
    scale, unit = (1, "m") if shown.metres.max() < 10_000 else (1000, "km")
    for (name, split), rows in shown[shown["method"] == first].groupby(["product", "split"], sort=False):
        ax.plot(rows.metres / scale, rows.value, styles[split], marker="o", markersize=4, color=colours[name])
    if (shown.metres > 0).all():
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
        ax.xaxis.set_minor_locator(ticker.NullLocator())
    for name, colour in colours.items():
        ax.plot([], [], color=colour, label=name)
    for split, style in styles.items():
        ax.plot([], [], style, color=_QUIET, label=split)
    ax.set_xlabel(f"{unit} from the nearest training label ({first})")
    ax.set_ylabel(_score(found))
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _calibration(found: Evaluation, ax: Any) -> None:
    """Calibration curves; in an inset the coverage of each block's conformal sets."""
    _need(found, "calibration")
    split = found.main_split
    curves = (
        found.calibration[found.calibration["split"] == split]
        if len(found.calibration)
        else found.calibration
    )
    blocks = found.coverage[found.coverage["split"] == split]
    names = list(dict.fromkeys(zip(blocks["product"], blocks["method"], strict=True)))
    inner = ax
    if len(curves):
        ax.plot([0, 1], [0, 1], color=_QUIET, linewidth=1)
        for number, (name, method) in enumerate(names):
            own = curves[(curves["product"] == name) & (curves["method"] == method)]
            own = own[own.n >= _LEAST_IN_BIN]
            ax.plot(own.confidence, own.accuracy, marker="o", markersize=4, color=_COLOURS[number % len(_COLOURS)],
                    label=f"{name}, {method}")  # fmt: skip
        ax.set(xlabel=f"confidence ({split})", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
        ax.legend(frameon=False, fontsize=8, loc="upper left")
        inner = ax.inset_axes((1.12, 0.0, 0.6, 1.0))
        inner.spines[["top", "right"]].set_visible(False)
    for number, (name, method) in enumerate(names):
        own = blocks[(blocks["product"] == name) & (blocks["method"] == method)]
        spread = np.linspace(-0.15, 0.15, len(own)) if len(own) > 1 else np.zeros(1)
        inner.scatter(number + spread, own.coverage, s=14, color=_COLOURS[number % len(_COLOURS)], alpha=0.7)
    inner.axhline(found.level, color=_QUIET, linewidth=1)
    inner.set_xticks(range(len(names)), [f"{name}\n{method}" for name, method in names], fontsize=7)
    inner.set_ylim(0, 1.03)
    inner.set_title(f"coverage of {found.level:.0%} sets, a dot per block", fontsize=9)


def _groups(found: Evaluation, ax: Any) -> None:
    _need(found, "groups")
    shown = found.groups[
        (found.groups["split"] == found.main_split) & found.groups["product"].isin(found.facts.index)
    ]
    names = list(shown.group.unique())
    lines = _lines(shown)
    for number, (name, rows) in enumerate(lines):
        x = np.array([names.index(each) for each in rows.group]) + 0.5 * ((number + 0.5) / len(lines) - 0.5)
        bars = np.vstack([rows.value - rows.low, rows.high - rows.value])
        ax.errorbar(x, rows.value, np.maximum(np.nan_to_num(bars), 0), fmt="o", markersize=5, capsize=2,
                    color=_COLOURS[number % len(_COLOURS)], label=name)  # fmt: skip
    counts = shown.groupby("group").n.first()
    ax.set_xticks(range(len(names)), [f"{name}\n{counts[name]} labels" for name in names])
    ax.set_ylabel(f"{_score(found)}, {found.main_split}")
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
