"""Areas and accuracies of a class map with intervals, from a probability sample of reference labels.

A count of pixels carries the errors of the map. A probability sample of places, labelled by someone who looked,
corrects it: :func:`sample_design` draws the places, :func:`area_estimate` makes areas of the labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import shapely
import xarray as xr

from geoemb_xr.analysis.class_maps import Unit, area
from geoemb_xr.core import geometry, html
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.legend import is_class_map, legend_of
from geoemb_xr.core.notes import quiet, say
from geoemb_xr.geo import ground, places, polygons
from geoemb_xr.geo.points import sample
from geoemb_xr.probes.label_values import class_names
from geoemb_xr.probes.labelling import drawn_points, read_labels

#: Columns that a sample brings along, so that it can be filled in anywhere and read again.
STRATUM, SIZE = "stratum", "stratum_ha"
#: Added to the seed of what is drawn for reference: by the hash that :func:`geoemb_xr.labels` draws by, it would be
#: the very pixels that a map was trained on.
REFERENCE_SEED = 1 << 32
#: Olofsson et al. (2014) recommend 50 to 100 for rare classes.
LEAST_PER_CLASS = 50


# --- what to label ------------------------------------------------------------------------------------------


def sample_design(array: xr.DataArray, n: int, *, least: int | None = None, seed: int = 0) -> pd.DataFrame:
    """Draw places to be labelled: a sample that is stratified by the classes of a map. Computes.

    Each class gets ``least`` places, and the rest is shared out in proportion to area: between equal and
    proportional allocation, as Olofsson et al. (2014, section 5.1.2) recommend.

    Parameters
    ----------
    array : DataArray (y, x)
        A class map.
    n : int
        Number of places in all.
    least : int, optional
        Number of places for each class; 50 by default, or fewer where ``n`` is small. A class with fewer pixels
        gives all of them, and the others more.
    seed : int
        Seed of the draw, which is by a hash of each pixel's place: chunks never change it.

    Returns
    -------
    GeoDataFrame, or DataFrame without geopandas
        One row per place, a point in longitude and latitude, in random order: ``lon``, ``lat``, ``stratum`` (the
        mapped class), ``stratum_ha`` (the area of that class) and an empty column ``label``, to be filled in
        without looking at ``stratum``. It can be written to a file and read again.

    Raises
    ------
    EmbeddingError
        If the array is not a class map, ``n`` is smaller than the number of classes, or ``least`` is negative.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> truth = gx.testing.scene().truth(gx.testing.geobox((200, 200)), 2018)
    >>> design = gx.sample_design(truth, 100)
    >>> len(design), list(design.columns)
    (100, ['lon', 'lat', 'stratum', 'stratum_ha', 'label', 'geometry'])
    """
    sizes = _sizes_of(array, "sample_design")
    if n != int(n) or n < len(sizes):
        raise EmbeddingError(f"n is a whole number of at least one place per class ({len(sizes)}); got {n!r}")
    if least is not None and (least != int(least) or least < 0):
        raise EmbeddingError(f"least is a whole number of places per class, 0 or more; got {least!r}")
    drawn = drawn_points(array, per_class=int(n), seed=seed + REFERENCE_SEED)
    classes = legend_of(array)
    names = dict(zip(classes.values, classes.names, strict=True))
    stratum = drawn.iloc[:, -1].map(names)
    counts = _allocated(sizes, stratum.value_counts(), int(n), least)
    kept = drawn.groupby(stratum).cumcount() < stratum.map(counts)
    table = drawn.loc[kept, ["lon", "lat"]]
    table[STRATUM] = stratum[kept]
    table[SIZE] = table[STRATUM].map(sizes)
    table["label"] = None
    return _with_points(table.reset_index(drop=True))


def _with_points(table: pd.DataFrame) -> pd.DataFrame:
    """The sample as a GeoDataFrame of points where geopandas is installed, else as a DataFrame."""
    try:
        import geopandas
    except ImportError:
        return table
    points = geopandas.points_from_xy(table["lon"], table["lat"])
    found: pd.DataFrame = geopandas.GeoDataFrame(table, geometry=points, crs=geometry.LONLAT)
    return found


def _allocated(sizes: pd.Series[float], there: pd.Series[int], n: int, least: int | None) -> pd.Series[int]:
    """How many places each class gets: ``least`` each, the rest by area, and none more than are ``there``."""
    each = min(LEAST_PER_CLASS if least is None else int(least), n // len(sizes))
    exact = each + (n - each * len(sizes)) * sizes / sizes.sum()
    counts = exact.astype(int)  # rounds down
    rest = (exact - counts).sort_values(ascending=False).index[: n - int(counts.sum())]
    counts[rest] += 1
    most = there.reindex(sizes.index, fill_value=0)
    few = counts > most
    if few.any() and not few.all():
        others = ~few
        counts[few] = most[few]
        counts[others] = _allocated(sizes[others], there, n - int(most[few].sum()), least)
    return counts.clip(upper=most)


def _sizes_of(array: xr.DataArray, what: str) -> pd.Series[float]:
    """Area of each class of the map in hectares, by name."""
    if not is_class_map(array) or set(array.dims) != {"y", "x"}:
        raise EmbeddingError(
            f"{what} needs a class map with dims (y, x): integers with a legend; got {array.dtype}, "
            f"{tuple(array.dims)}"
        )
    with quiet():  # no note that areas of a map are not estimates: estimates are made of them here
        found = area(array, "ha")
    assert isinstance(found, pd.Series)
    return found[found > 0]


# --- what the labels say --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AreaEstimate:
    """Areas and accuracies with their uncertainty.

    Parameters
    ----------
    table : DataFrame
        One row per class: ``mapped`` (area counted on the map), ``area`` with ``area_low`` and ``area_high``,
        ``users`` and ``producers`` accuracy with their standard errors ``users_se`` and ``producers_se``, and
        ``references`` (the number of reference labels).
    matrix : DataFrame
        Shares of the area by mapped class (rows) and reference class (columns); they add up to 1.
    overall, overall_se : float
        Overall accuracy and its standard error.
    level : float
        Coverage of the intervals.
    unit : str
        Unit of the areas.
    """

    table: pd.DataFrame
    matrix: pd.DataFrame
    overall: float
    overall_se: float
    level: float
    unit: str

    def _rows(self) -> list[tuple[str, str]]:
        rows = [("overall accuracy", f"{self.overall:.3f} ± {self.overall_se:.3f} (standard error)")]
        for name, row in self.table.iterrows():
            rows.append(
                (
                    str(name),
                    f"{row.area:,.6g} {self.unit} ({row.area_low:,.6g} to {row.area_high:,.6g}); mapped "
                    f"{row.mapped:,.6g}; user's {row.users:.3f}, producer's {row.producers:.3f}",
                )
            )
        return rows

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self._rows())
        return "\n".join(f"{name:<{width}}  {value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        return html.card(f"areas at {self.level:.0%}", self._rows())


def area_estimate(
    array: xr.DataArray,
    reference: Any,
    *,
    target: str = "label",
    design: Literal["stratified", "random"] | None = None,
    cluster: str | None = None,
    training: Any = None,
    level: float = 0.95,
    unit: Unit = "ha",
) -> AreaEstimate:
    """Estimate the area of each class, and the accuracy of a map, from reference labels. Computes.

    Parameters
    ----------
    array : DataArray (y, x)
        A class map.
    reference : DataFrame, GeoDataFrame or path
        Places and what is really there. What :func:`sample_design` drew brings its strata along.
    target : str
        Column of the reference classes: names as in the legend, or codes. A class that the map does not have may
        occur. Rows without a label are left out and counted.
    design : {"stratified", "random"}, optional
        Way in which the places were drawn, if they do not come from :func:`sample_design`: at random within each
        class of this map, or at random over the whole map. Labels that were collected in any other way, or used for
        training, give no estimate.
    cluster : str, optional
        Column of clusters, where places were drawn in groups (all places of a drawn tile, say): standard errors are
        told from clusters then. Each stratum needs two of them.
    training : DataFrame, GeoDataFrame or path, optional
        The labels that the map was trained on: references in the pixel of a point, or in a polygon, are refused.
    level : float
        Coverage of the intervals, between 0 and 1.
    unit : {"ha", "km2", "m2"}
        Unit of the areas.

    Returns
    -------
    AreaEstimate
        Prints as a table.

    Raises
    ------
    EmbeddingError
        If the references do not say how they were drawn, are among the training labels, a stratum has fewer than
        two of them (or of clusters), or a column is missing.
    ValueError
        For an unknown unit, or a level that is not between 0 and 1.

    Notes
    -----
    The estimators are those of Stehman (2014, doi:10.1080/01431161.2014.930207), which hold also where the strata
    are not the classes of the map, such as a sample drawn for an older map. Where they are, areas and accuracies
    equal those of Olofsson et al. (2014, doi:10.1016/j.rse.2014.02.015); the standard errors also have the
    correction for finite populations. Of clusters they are those of ratios of cluster totals (Cochran 1977, section
    9.6). Pixels are drawn with equal chances, and count by their ground area, which matters for maps in degrees.
    Intervals are normal.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> truth = gx.testing.scene().truth(gx.testing.geobox((200, 200)), 2018)
    >>> design = gx.sample_design(truth, 100)
    >>> labelled = design.assign(label=design.stratum)
    >>> gx.area_estimate(truth, labelled).overall
    1.0
    """
    if not 0 < level < 1:
        raise ValueError(f"level is a share between 0 and 1; got {level!r}")
    check_choice("unit", unit, _PER_HA)
    mapped_ha = _sizes_of(array, "area_estimate")
    table = _labelled(array, reference, target, cluster)
    if training is not None:
        _refuse_training(array, reference, training)
    stratum, sizes = _strata(table, mapped_ha, design)
    clusters = None if cluster is None else table[cluster].to_numpy()
    pixel_ha = table["pixel_ha"].to_numpy()
    _check_counts(stratum, sizes, pixel_ha, clusters)
    found = stratified(
        stratum, table["mapped"].to_numpy(), table["reference"].to_numpy(), sizes, pixel_ha, clusters
    )
    total = float(mapped_ha.sum()) * _PER_HA[unit]
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + level / 2))
    rows = found.table
    result = pd.DataFrame(
        {
            "mapped": (mapped_ha * _PER_HA[unit]).reindex(rows.index, fill_value=0.0),
            "area": rows["share"] * total,
            "area_low": ((rows["share"] - z * rows["share_se"]) * total).clip(lower=0.0),
            "area_high": (rows["share"] + z * rows["share_se"]) * total,
            **{name: rows[name] for name in ("users", "users_se", "producers", "producers_se")},
            "references": table["reference"].value_counts().reindex(rows.index, fill_value=0),
        }
    )
    return AreaEstimate(result, found.matrix, found.overall, found.overall_se, level, unit)


_PER_HA: Mapping[Unit, float] = {"ha": 1.0, "km2": 0.01, "m2": 10_000.0}


def _labelled(array: xr.DataArray, reference: Any, target: str, cluster: str | None = None) -> pd.DataFrame:
    """Mapped and reference class of each place, by name, with the columns of the sample."""
    given = read_labels(reference)
    if isinstance(given, xr.DataArray) or target not in given.columns:
        got = "a raster" if isinstance(given, xr.DataArray) else list(map(str, given.columns))
        raise EmbeddingError(f"area_estimate needs a table with a column {target!r} (target=); got {got}")
    if cluster is not None and cluster not in given.columns:
        raise EmbeddingError(
            f"cluster={cluster!r} is not a column of the references; they have {list(given.columns)}"
        )
    classes = legend_of(array)
    names = dict(zip(classes.values, classes.names, strict=True))
    given = given.reset_index(drop=True)
    found = sample(array, given)
    pixel_ha = pd.Series(_pixel_ha(array, found), found.coords["location"].values)
    there = found.reindex(location=given.index, fill_value=0).values  # rows without a place too
    beside = [name for name in (STRATUM, SIZE, cluster) if name in given.columns]
    table = pd.DataFrame(
        {
            "mapped": [names.get(int(code)) if np.isfinite(code) else None for code in there],
            "reference": class_names(given[target], classes),
            "pixel_ha": pixel_ha.reindex(given.index).to_numpy(),
            **{str(name): given[name].to_numpy() for name in beside},
        }
    )
    left_out = {
        "without a label": int(table["reference"].isna().sum()),
        "where the map has no data": int(table["mapped"].isna().sum()),
    }
    if any(left_out.values()):
        say(
            "area_estimate left out " + ", ".join(f"{n} references {why}" for why, n in left_out.items() if n)
        )
    kept = table.dropna(subset=["mapped", "reference"])
    if kept.empty:
        raise EmbeddingError(
            f"no reference has a label and lies on the map: fill the column {target!r} first"
        )
    if {STRATUM, SIZE} <= set(table.columns):  # one without any label has its area all the same
        kept.attrs["strata"] = dict(table.groupby(STRATUM)[SIZE].first())
    return kept


def _strata(
    table: pd.DataFrame, mapped_ha: pd.Series[float], design: str | None
) -> tuple[np.ndarray, Mapping[str, float]]:
    """Stratum of each reference, and hectares of each stratum."""
    if design == "random":
        return np.full(len(table), "all"), {"all": float(mapped_ha.sum())}
    if design == "stratified":
        return table["mapped"].to_numpy(), dict(mapped_ha)
    if design is not None:
        raise ValueError(f"design is 'stratified' or 'random'; got {design!r}")
    if {STRATUM, SIZE} <= set(table.columns):
        return table[STRATUM].to_numpy(), table.attrs["strata"]
    raise EmbeddingError(
        "area_estimate needs a probability sample, and these references do not say how they were drawn: draw them "
        "with gx.sample_design(map, n), or say design='stratified' (at random within each class of this map) or "
        "design='random' (at random over the map)"
    )


def _check_counts(
    stratum: np.ndarray, sizes: Mapping[str, float], pixel_ha: np.ndarray, clusters: np.ndarray | None
) -> None:
    """Raise if a stratum has one reference or none, unless that one is all there is of it."""
    what = "references" if clusters is None else "clusters"
    units = pd.DataFrame(
        {
            "stratum": stratum,
            "unit": np.arange(len(stratum)) if clusters is None else clusters,
            "ha": pixel_ha,
        }
    ).groupby("stratum")
    counts, sampled = units["unit"].nunique(), units["ha"].sum()
    few = [
        f"{name} ({counts.get(name, 0)})"
        for name, size in sizes.items()
        if counts.get(name, 0) < 2 and sampled.get(name, 0.0) < 0.99 * size
    ]
    if few:
        raise EmbeddingError(f"each stratum needs two or more {what}; too few in: {', '.join(few)}")


def _refuse_training(array: xr.DataArray, reference: Any, training: Any) -> None:
    """Raise if a reference lies in a pixel or polygon that was used as a training label."""
    grid = geometry.geobox_of(array, "area_estimate")
    learnt = read_labels(training)
    if isinstance(learnt, xr.DataArray):
        raise EmbeddingError(
            "training= takes points or polygons; of a label raster give those that were drawn: gx.labels(raster)"
        )
    at = [places.points_xy(read_labels(reference), grid.crs)]
    given = places.read_places(learnt)
    if given.shapes is not None:
        both = int(
            shapely.contains_xy(polygons.union(given.polygons(geometry.as_crs(grid.crs))), *at[0]).sum()
        )
    else:
        at.append(given.xy(grid.crs))
        taken: list[set[tuple[int, int]]] = []
        for xy in at:
            rows, cols, inside = places.pixels_at(grid, *xy)
            taken.append(set(zip(rows[inside].tolist(), cols[inside].tolist(), strict=True)))
        both = len(taken[0] & taken[1])
    if both:
        raise EmbeddingError(
            f"{both} references lie in pixels that the map was trained on, where it is better than elsewhere: "
            "leave them out, and draw others with gx.sample_design(map, n, seed=1)"
        )


def _pixel_ha(array: xr.DataArray, found: xr.DataArray) -> np.ndarray:
    """Hectares of the pixels of a map that places lie in."""
    affine = geometry.geobox_of(array, "area_estimate").affine
    corner = np.floor(~affine * np.stack([found.coords["x"].values, found.coords["y"].values]))
    return ground.pixel_areas(geometry.crs_of(array), affine, *corner) / 10_000


# --- the estimators -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stratified:
    """Estimates from a stratified sample: see :func:`stratified`."""

    table: pd.DataFrame
    matrix: pd.DataFrame
    overall: float
    overall_se: float


def _variance_of_mean(values: np.ndarray, weights: np.ndarray, unit: np.ndarray) -> float:
    """Variance of the weighted mean of a random sample, as that of a ratio of totals of its units.

    Of single units of equal weight that of any mean; of clusters, that of a ratio of their totals to their sizes.
    """
    clusters = np.unique(unit, return_inverse=True)[1]
    rest = np.bincount(clusters, weights * (values - np.average(values, weights=weights)))
    return float(len(rest) / max(len(rest) - 1, 1) * (rest**2).sum() / weights.sum() ** 2)


def stratified(
    stratum: Sequence[Any] | np.ndarray,
    mapped: Sequence[Any] | np.ndarray,
    reference: Sequence[Any] | np.ndarray,
    sizes: Mapping[Any, float],
    unit_size: float | np.ndarray = 1.0,
    clusters: np.ndarray | None = None,
) -> Stratified:
    """Area shares and accuracies from a stratified random sample (Stehman 2014, equations 1 to 28).

    Parameters
    ----------
    stratum, mapped, reference : array (n,)
        Stratum, mapped class and reference class of each unit of the sample.
    sizes : mapping
        Size of each stratum.
    unit_size : float or array (n,)
        Size of each unit of the sample, drawn with equal chances: it counts for as much, and the correction for
        finite populations follows from it.
    clusters : array (n,), optional
        Cluster of each unit, where they were drawn in clusters.

    Returns
    -------
    Stratified
        ``table`` has a row per class with ``share``, ``users``, ``producers`` and their standard errors (``…_se``);
        ``matrix`` has area shares by mapped and reference class.
    """
    mapped, reference = np.asarray(mapped, object), np.asarray(reference, object)
    weights = np.broadcast_to(np.asarray(unit_size, np.float64), mapped.shape)
    unit = np.arange(len(mapped)) if clusters is None else clusters
    strata = [np.asarray([s == name for s in stratum]) for name in sizes]
    areas = np.array(list(sizes.values()), np.float64)
    sampled = np.array([weights[inside].sum() for inside in strata])
    factor = areas**2 * (1 - np.minimum(sampled / areas, 1))  # of the variance of a stratum's mean
    total = float(areas.sum())

    def sums(y: np.ndarray) -> float:
        means = [np.average(y[inside], weights=weights[inside]) for inside in strata]
        return float(areas @ np.array(means))

    def error(y: np.ndarray) -> float:
        spread = [_variance_of_mean(y[inside], weights[inside], unit[inside]) for inside in strata]
        return float(np.sqrt(factor @ np.array(spread)))

    def mean(y: np.ndarray) -> tuple[float, float]:
        return sums(y) / total, error(y) / total

    def ratio(y: np.ndarray, x: np.ndarray) -> tuple[float, float]:
        below = sums(x)
        if below == 0:  # a class that is nowhere on the map, or nowhere in the references
            return np.nan, np.nan
        found = sums(y) / below
        # var(y) + R² var(x) − 2 R cov(x, y) is the variance of y − R x
        return found, error(y - found * x) / below

    correct = (mapped == reference).astype(np.float64)
    classes = sorted({*mapped, *reference}, key=str)
    rows, cells = [], np.zeros((len(classes), len(classes)))
    for i, each in enumerate(classes):
        on_map, there = ((side == each).astype(np.float64) for side in (mapped, reference))
        rows.append((*mean(there), *ratio(correct * on_map, on_map), *ratio(correct * there, there)))
        for j, other in enumerate(classes):
            cells[i, j] = mean(on_map * (reference == other))[0]
    names = ["share", "share_se", "users", "users_se", "producers", "producers_se"]
    index = pd.Index(classes, name="class")
    overall, overall_se = mean(correct)
    return Stratified(
        pd.DataFrame(rows, index, names),
        pd.DataFrame(cells, index.rename("mapped"), pd.Index(classes, name="reference")),
        overall,
        overall_se,
    )
