"""Which of two maps is better, and how wrong a map can be: exact answers from few labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.comparing.areas import REFERENCE_SEED, SIZE, STRATUM
from geoemb_xr.core import geometry, html
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.legend import is_class_map, legend_of
from geoemb_xr.core.notes import say
from geoemb_xr.geo.points import sample
from geoemb_xr.probes.label_values import class_names
from geoemb_xr.probes.labelling import drawn_points, read_labels


def disagreements(first: xr.DataArray, second: xr.DataArray, n: int, *, seed: int = 0) -> pd.DataFrame:
    """Draw places where two maps differ, to be labelled for :func:`better_map`. Computes.

    Parameters
    ----------
    first, second : DataArray (y, x)
        Class maps on one grid.
    n : int
        Number of places, drawn at random among all pixels where both have a class and they differ.
    seed : int
        Seed of the draw, which is by a hash of each pixel's place.

    Returns
    -------
    pandas.DataFrame
        ``lon``, ``lat`` and an empty column ``label``, to be filled in without looking at the maps.

    Raises
    ------
    EmbeddingError
        If the maps are on different grids, or agree everywhere.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> truth = gx.testing.scene().truth(gx.testing.geobox((80, 80)), 2018)
    >>> wrong = truth.where(truth.x < truth.x.mean(), 1).astype("uint8").assign_attrs(truth.attrs)
    >>> gx.disagreements(truth, wrong, 30).shape
    (30, 3)
    """
    _check_maps(first, second)
    names = [_names(each) for each in (first, second)]
    differ = _differ(first, second, *names)
    attrs = {"flag_values": [1], "flag_meanings": "differ"}
    raster = differ.astype(np.uint8).assign_attrs(attrs).rename("differ")
    drawn = drawn_points(raster, per_class=n, seed=seed + REFERENCE_SEED)
    if drawn.empty:
        raise EmbeddingError("the two maps agree wherever both have a class")
    table = drawn[["lon", "lat"]].copy()
    table["label"] = None
    return table


@dataclass(frozen=True)
class Better:
    """What :func:`better_map` found.

    Parameters
    ----------
    first, second, neither : int
        Number of labels where the first map is right, where the second one is, and where neither is.
    p : float
        Two-sided, of an exact binomial test that both are right equally often.
    share, low, high : float
        Share of the first map among the labels where one map is right, with its interval (Clopper and
        Pearson 1934).
    level : float
        Coverage of the interval.
    """

    first: int
    second: int
    neither: int
    p: float
    share: float
    low: float
    high: float
    level: float

    @property
    def winner(self) -> str | None:
        """``"first"`` or ``"second"``; None where the labels do not tell."""
        if self.p > 1 - self.level:
            return None
        return "first" if self.first > self.second else "second"

    def __str__(self) -> str:
        verdict = (
            f"the {self.winner} map is better" if self.winner else "the labels do not tell which is better"
        )
        return (
            f"where the maps differ the first is right {self.first} times, the second {self.second}, neither "
            f"{self.neither}: {verdict} (p = {self.p:.3g})"
        )

    def _repr_html_(self) -> str:
        rows = [("first is right", str(self.first)), ("second is right", str(self.second)),
                ("neither", str(self.neither)), ("better", str(self.winner)), ("p", f"{self.p:.3g}"),
                ("share of the first", f"{self.share:.3f} ({self.low:.3f} to {self.high:.3f})")]  # fmt: skip
        return html.card("where two maps differ", rows)


def better_map(
    first: xr.DataArray, second: xr.DataArray, labels: Any, *, target: str = "label", level: float = 0.95
) -> Better:
    """Tell which of two maps is better, from labels where they differ. Computes.

    Where the maps agree they are equally right, so that labels there say nothing of their difference and are left
    out.

    Parameters
    ----------
    first, second : DataArray (y, x)
        Class maps on one grid.
    labels : DataFrame, GeoDataFrame or path
        Places drawn at random, or by :func:`disagreements`, and what is there.
    target : str
        Column of the labels: names as in the legends, or codes of the first map.
    level : float
        Level of the verdict and of the interval.

    Returns
    -------
    Better

    Raises
    ------
    EmbeddingError
        If no label lies where the maps differ.

    Notes
    -----
    An exact binomial test of the labels for which one map is right (McNemar 1947).

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> truth = gx.testing.scene().truth(gx.testing.geobox((80, 80)), 2018)
    >>> wrong = truth.where(truth.x < truth.x.mean(), 1).astype("uint8").assign_attrs(truth.attrs)
    >>> places = gx.disagreements(truth, wrong, 30)
    >>> names = dict(enumerate(gx.testing.scene().names, start=1))
    >>> visited = places.assign(label=[names[int(v)] for v in gx.sample(truth, places).values])
    >>> gx.better_map(truth, wrong, visited).winner
    'first'
    """
    from scipy.stats import binomtest

    _check_maps(first, second)
    _check_level(level)
    said, there = _looked_up([first, second], labels, target)
    known = np.array([a is not None and b is not None and a != b for a, b in said.T])
    known &= np.array([each is not None for each in there])
    if not known.any():
        raise EmbeddingError(
            "no label lies where the two maps differ: gx.disagreements(first, second, n) draws places to label "
            "there, or says that they agree everywhere"
        )
    if not known.all():
        say(
            f"better_map leaves out {int((~known).sum())} labels where the maps agree, or something is missing"
        )
    right = np.array([[a == t for a, t in zip(row[known], there[known], strict=True)] for row in said])
    a, b = int(right[0].sum()), int(right[1].sum())
    test = binomtest(a, a + b) if a + b else None
    low, high = test.proportion_ci(level) if test else (0.0, 1.0)
    return Better(a, b, int(known.sum()) - a - b, float(test.pvalue) if test else 1.0,
                  a / (a + b) if test else float("nan"), float(low), float(high), level)  # fmt: skip


def error_bound(array: xr.DataArray, reference: Any, *, target: str = "label", level: float = 0.95) -> float:
    """The largest share of a map's area that can be wrong, exactly, from a random sample of labels. Computes.

    Parameters
    ----------
    array : DataArray (y, x)
        A class map.
    reference : DataFrame, GeoDataFrame or path
        Places drawn at random over the map, or by :func:`geoemb_xr.sample_design`, and what is there.
    target : str
        Column of the labels.
    level : float
        Confidence of the bound: the true share is larger in at most 1 − level of all samples.

    Returns
    -------
    float
        Largest share of the map's area that is wrong.

    Raises
    ------
    EmbeddingError
        If no label lies where the map has data.

    Notes
    -----
    The one-sided bound of Clopper and Pearson (1934). Of a stratified sample the strata's bounds, each at the level
    1 − (1 − level) / strata, are weighted by area (Bonferroni), which is safe and not tight. A stratum without any
    label may be wrong everywhere. Pixels of a stratum count alike: of a map in degrees it is the share of pixels.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> truth = gx.testing.scene().truth(gx.testing.geobox((80, 80)), 2018)
    >>> places = gx.labels(truth, per_class=None).sample(59, random_state=0)
    >>> names = dict(enumerate(gx.testing.scene().names, start=1))
    >>> round(gx.error_bound(truth, places.assign(label=places.land_cover.map(names))), 4)
    0.0495
    """
    _check_maps(array)
    _check_level(level)
    table = read_labels(reference)
    said, there = _looked_up([array], table, target)
    known = np.array([a is not None and t is not None for a, t in zip(said[0], there, strict=True)])
    if not known.any():
        raise EmbeddingError("no label lies where the map has data")
    wrong = np.array([a != t for a, t in zip(said[0], there, strict=True)])[known]
    if {STRATUM, SIZE} <= set(getattr(table, "columns", ())):
        sizes = dict(table.groupby(STRATUM)[SIZE].first())
        stratum = table[STRATUM].to_numpy()[known]
    else:
        sizes, stratum = {"all": 1.0}, np.full(int(known.sum()), "all")
    areas = np.array(list(sizes.values()), np.float64)
    each = 1 - (1 - level) / len(sizes)
    bounds = [
        upper_bound(int(wrong[stratum == name].sum()), int((stratum == name).sum()), each) for name in sizes
    ]
    return float(areas @ np.array(bounds) / areas.sum())


def upper_bound(wrong: int, n: int, level: float = 0.95) -> float:
    """The exact one-sided upper bound of a share, from ``wrong`` of ``n`` (Clopper and Pearson 1934).

    Examples
    --------
    >>> round(upper_bound(0, 59), 4)
    0.0495
    """
    from scipy.stats import beta

    if not 0 <= wrong <= n:
        raise EmbeddingError(f"upper_bound needs 0 ≤ wrong ≤ n; got {wrong} of {n}")
    return 1.0 if wrong == n else float(beta.ppf(level, wrong + 1, n - wrong))


# --- looking up -------------------------------------------------------------------------------------------------


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is a share between 0 and 1; got {level!r}")


def _check_maps(*maps: xr.DataArray) -> None:
    for each in maps:
        if not is_class_map(each) or set(each.dims) != {"y", "x"}:
            raise EmbeddingError(
                f"this needs class maps with dims (y, x): integers with a legend; got {each.dtype}, "
                f"{tuple(each.dims)}"
            )
    grids = [geometry.geobox_of(each, "maps") for each in maps]
    if any(not geometry.same_grid(grids[0], other) for other in grids[1:]):
        raise EmbeddingError(
            "the two maps are on different grids; bring them to one with gx.align(first, second)"
        )


def _names(array: xr.DataArray) -> dict[int, str]:
    legend = legend_of(array)
    return dict(zip(legend.values, legend.names, strict=True))


def _differ(
    first: xr.DataArray, second: xr.DataArray, names: dict[int, str], others: dict[int, str]
) -> xr.DataArray:
    """Where both maps have a class and the names differ."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys([*names.values(), *others.values()]), start=1)}
    second = second.transpose(*first.dims).assign_coords({d: first.coords[d] for d in ("y", "x")})

    def numbered(array: xr.DataArray, known: dict[int, str]) -> xr.DataArray:
        table = np.zeros(65_536, np.uint16)
        table[list(known)] = [numbers[name] for name in known.values()]
        found: xr.DataArray = xr.apply_ufunc(
            lambda codes: table[codes], array, dask="parallelized", output_dtypes=[np.uint16]
        )
        return found

    a, b = numbered(first, names), numbered(second, others)
    return (a > 0) & (b > 0) & (a != b)


def _looked_up(maps: list[xr.DataArray], labels: Any, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Class names of the maps at the labels ``(map, n)`` and of the labels ``(n,)``; None where there is none."""
    table = read_labels(labels)
    if isinstance(table, xr.DataArray) or target not in table.columns:
        got = "a raster" if isinstance(table, xr.DataArray) else list(map(str, table.columns))
        raise EmbeddingError(f"this needs a table with a column {target!r} (target=); got {got}")
    table = table.reset_index(drop=True)
    said = np.empty((len(maps), len(table)), object)
    for row, array in enumerate(maps):
        names = _names(array)
        there = sample(array, table).reindex(location=table.index, fill_value=0).values
        said[row] = [names.get(int(code)) if np.isfinite(code) else None for code in there]
    return said, class_names(table[target], legend_of(maps[0]))
