"""The labels that all products cover, with one vector of each product for each label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import shapely
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.arrays import decode
from geoemb_xr.core.errors import EmbeddingError, MissingExtraError
from geoemb_xr.core.geometry import on_sphere
from geoemb_xr.core.legend import SOURCE, Legend
from geoemb_xr.core.model import BAND, Product, check_embedding, registered
from geoemb_xr.core.times import parse_dates, pick_times
from geoemb_xr.geo import footprints, places, polygons, tables
from geoemb_xr.geo.lattice import source_grid
from geoemb_xr.geo.points import sample
from geoemb_xr.probes import labelling
from geoemb_xr.probes.classes import encoded
from geoemb_xr.probes.heads import Data
from geoemb_xr.probes.label_values import without_gaps
from geoemb_xr.probes.samples import aligned, column_of, groups_of, guess_target, samples_of

_ROW = "geoemb_xr row"
#: Products are of unlike footprint from this ratio of sides on.
_UNLIKE = 1.5
#: Labels that a cell needs before its purity is told from them.
_LEAST_IN_CELL = 4
_TIME_COLUMNS = ("time", "date", "year")


@dataclass(frozen=True)
class Support:
    """Labels for which every product has a vector.

    Parameters
    ----------
    vectors : mapping of str to ndarray of float32 (n, band)
        Vectors by the name of the product, without NaN.
    common : mapping of str to ndarray of float32 (n, band)
        Vectors of products finer than the coarsest: means over the coarsest one's footprint, else NaN.
    products : mapping of str to Product
        Facts of each.
    footprints : mapping of str to float
        Side, in metres, of the ground that a vector tells of.
    y : ndarray (n,)
        Positions of classes, or values.
    legend : Legend or None
        The classes; None for regression.
    groups, by : ndarray (n,)
        Groups that each split keeps together, and groups that scores are reported by (empty where not asked for).
    lonlat : ndarray of float64 (n, 2)
        Places in degrees.
    previous : ndarray (n,)
        Positions of earlier labels, or earlier values; empty where there are none.
    years : ndarray of int (n,)
        Year of each label; empty where labels have none.
    weights : ndarray of float64 (n,)
        Weights of a probability sample; ones where there is none.
    features : mapping of str to ndarray of float32 (n, feature)
        Features of controls, such as raw bands and location encoders; NaN where there is none.
    extent : float
        Metres: side of the largest label, 0 for points.
    purity : ndarray of float64 (n,)
        Share of the labels in the coarsest product's cell that are of the same class; NaN where it is not known.
    dropped : mapping of str to int
        Number of labels that were left out, by reason.
    target : str
        Name of the labels.
    source : str
        Source of the labels, as :func:`geoemb_xr.labels` says; empty where that is not known.
    """

    vectors: Mapping[str, np.ndarray]
    common: Mapping[str, np.ndarray]
    products: Mapping[str, Product]
    footprints: Mapping[str, float]
    y: np.ndarray
    legend: Legend | None
    groups: np.ndarray
    by: np.ndarray
    lonlat: np.ndarray
    previous: np.ndarray
    years: np.ndarray
    weights: np.ndarray
    features: Mapping[str, np.ndarray]
    extent: float
    purity: np.ndarray
    dropped: Mapping[str, int]
    target: str
    source: str

    @property
    def classes(self) -> int:
        """How many; 0 for regression."""
        return 0 if self.legend is None else len(self.legend.values)

    @property
    def metres(self) -> np.ndarray:
        """Places in metres from the centre of the earth (n, 3): what blocks and buffers are measured on."""
        return on_sphere(self.lonlat)

    def data(self, x: np.ndarray, seed: int) -> Data:
        """Return what a probe is fitted on, with these vectors."""
        ones = np.ones(len(self.y))
        return Data(x, self.y, ones, self.groups, self.classes, seed, self.metres)


def support_of(
    arrays: Mapping[str, xr.DataArray],
    labels: Any,
    *,
    target: str | None = None,
    time: Any = None,
    group: Any = None,
    by: str | None = None,
    previous: str | None = None,
    design: Any = None,
    features: Mapping[str, Any] | None = None,
) -> Support:
    """Look labels up in every array; those that one of them lacks are left out. Computes.

    Raises
    ------
    EmbeddingError
        If no label is left, or they are of one class.
    """
    products = {name: check_embedding(each, f"evaluate: {name!r}") for name, each in arrays.items()}
    table = _table(labels, next(iter(arrays.values())))
    columns = [each for each in (features or {}).values() if not isinstance(each, xr.DataArray)]
    used = {each for each in (time, group, by, previous, design) if isinstance(each, str)}
    used |= {name for names in columns for name in np.atleast_1d(names)} | places.read_places(
        table
    ).place_columns
    target = guess_target(table, target, used | ({"stratum", "stratum_ha"} if design is not None else set()))
    values = column_of(table, target, "target")
    found = {name: _vectors(name, each, products[name], table, time) for name, each in arrays.items()}
    covered = {name: np.isfinite(x).all(axis=1) for name, x in found.items()}
    labelled = ~pd.isna(values)
    parted = None if by is None else column_of(table, by, "by")
    nowhere = np.zeros(len(values), bool) if parted is None else pd.isna(parted) & labelled
    keep = labelled & ~nowhere & np.logical_and.reduce(list(covered.values()))
    dropped = {"without a label": int((~labelled).sum()), f"without a value of by={by!r}": int(nowhere.sum())}
    dropped |= {
        f"without data in {name}": int((~inside & labelled).sum()) for name, inside in covered.items()
    }
    if not keep.any():
        raise EmbeddingError(f"no label has data in all products; left out: {dropped}")
    y, legend = _encoded(
        without_gaps(values[keep], gaps=not labelled.all()), labelling.legend_for(table, target)
    )
    everywhere = _lonlat(table)
    lonlat = everywhere[keep]
    cell, squares = _cells(arrays, everywhere)
    default = np.unique(lonlat.round(9), axis=0, return_inverse=True)[1].reshape(-1)
    if cell is not None:  # places in one cell have one vector
        inside = cell[keep]
        default = np.where(inside >= 0, inside, inside.max(initial=-1) + 1 + default)
    groups = groups_of(None if group is None else column_of(table, group, "group")[keep], default)
    common = {}
    if cell is not None and squares is not None:
        common = _over_cells(arrays, products, table, cell, squares, time)
    return Support(
        vectors={name: np.ascontiguousarray(x[keep], np.float32) for name, x in found.items()},
        common={name: np.ascontiguousarray(x[keep], np.float32) for name, x in common.items()},
        products=products,
        footprints={name: _footprint(each, products[name]) for name, each in arrays.items()},
        y=y,
        legend=legend,
        groups=groups,
        by=np.array([]) if parted is None else parted[keep].astype(str),
        lonlat=lonlat,
        previous=_previous(table, previous, keep, legend),
        years=_years(table, time, keep),
        weights=_design_weights(table, design, labelled)[keep],
        features=_of_places(lonlat, {*arrays, *(features or {})})
        | {name: _features(name, each, table)[keep] for name, each in (features or {}).items()},
        extent=_extent(table),
        purity=_purity(cell, keep, y if legend is not None else None),
        dropped={reason: n for reason, n in dropped.items() if n},
        target=target,
        source=str(getattr(labels, "attrs", {}).get(SOURCE, "")),
    )


def _table(labels: Any, first: xr.DataArray) -> Any:
    given = labelling.read_labels(labels)
    return labelling.drawn_points(aligned(given, first)) if isinstance(given, xr.DataArray) else given


# --- vectors --------------------------------------------------------------------------------------------------


def _vectors(name: str, array: xr.DataArray, product: Product, table: Any, time: Any) -> np.ndarray:
    """One vector per label (n, band): of its place, or the mean over its polygon; NaN where there is none."""
    if footprints.has_footprints(array):
        return _of_patches(name, array, product, table, time)
    numbered = table.assign(**{_ROW: np.arange(len(table))})
    try:
        samples, _ = samples_of(array, numbered, _ROW, time, None, None)
    except EmbeddingError as error:
        raise type(error)(f"evaluate: {name!r}: {error}") from error
    rows = samples.labels.astype(np.int64)
    return _means(samples.vectors, rows, len(table), product)


def _means(vectors: np.ndarray, rows: np.ndarray, n: int, product: Product) -> np.ndarray:
    """Means of the vectors of each row (n, band); of unit vectors again of unit length."""
    count = np.bincount(rows, minlength=n)
    sums = np.zeros((n, vectors.shape[1]))
    np.add.at(sums, rows, vectors)
    with np.errstate(invalid="ignore"):
        mean = sums / count[:, None]
        if product.unit_norm:
            several = count > 1
            mean[several] /= np.linalg.norm(mean[several], axis=1, keepdims=True)
    return mean


def _of_patches(name: str, array: xr.DataArray, product: Product, table: Any, time: Any) -> np.ndarray:
    """The vector of the patch that holds each label."""
    if "time" in array.dims:
        steps = pick_times(array.coords["time"].values, None if isinstance(time, str) else time)
        if steps.size != 1:
            raise EmbeddingError(f"evaluate: {name!r} has {steps.size} times: take one with .emb.year(…)")
        array = array.isel(time=int(steps[0]))
    lonlat = _lonlat(table)
    there = np.isfinite(lonlat).all(axis=1)
    chosen = np.full(len(table), -1)
    chosen[there] = footprints.nearest_patch(array, lonlat[there])
    x = np.full((len(table), len(product.decoded_bands or array.coords[BAND])), np.nan)
    if (chosen >= 0).any():
        own, position = np.unique(chosen[chosen >= 0], return_inverse=True)
        vectors = decode(array.isel(location=own)).transpose("location", BAND).values
        x = np.full((len(table), vectors.shape[1]), np.nan)
        x[chosen >= 0] = vectors[position]
    return x


def _of_places(lonlat: np.ndarray, taken: set[str]) -> dict[str, np.ndarray]:
    """Return the vectors of the installed location encoders at the labels' places, by name."""
    found = {}
    for each in registered():
        if each.place is not None and each.name not in taken:
            with suppress(MissingExtraError):  # not installed: a comparison needs none
                found[each.name] = np.asarray(each.place(lonlat), np.float32)
    return found


def _features(name: str, given: Any, table: Any) -> np.ndarray:
    """Return the features ``(n, feature)`` of a control: columns of the labels, or values of a raster."""
    if not isinstance(given, xr.DataArray):
        columns = [column_of(table, each, f"features[{name!r}]") for each in np.atleast_1d(given)]
        try:
            return np.column_stack(columns).astype(np.float32)
        except (TypeError, ValueError) as error:
            raise EmbeddingError(f"features[{name!r}] are numbers; {error}") from error
    lonlat = pd.DataFrame(_lonlat(table), columns=["lon", "lat"])
    found = decode(given) if "codec" in given.attrs else given
    values = sample(found, lonlat).reindex(location=lonlat.index)
    return np.asarray(values.transpose("location", ...).values, np.float32).reshape(len(table), -1)


# --- unlike footprints ------------------------------------------------------------------------------------------


def _cell(array: xr.DataArray) -> float:
    """Side in metres of the ground that one vector stands for."""
    if "location" not in array.dims:
        return float(source_grid(array).metres)
    if not footprints.has_footprints(array):
        return 0.0
    return float(np.median(footprints.patches_of(array, "evaluate").side))


def _footprint(array: xr.DataArray, product: Product) -> float:
    return max(_cell(array) or product.resolution or 0.0, product.context_m or 0.0)


def _cells(
    arrays: Mapping[str, xr.DataArray], lonlat: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The cell of the coarsest product that holds each label (−1: none), and the cells' squares in degrees.

    None where products are of like footprint.
    """
    sides = {name: _cell(each) for name, each in arrays.items()}
    known = [side for side in sides.values() if side > 0]
    if len(known) < 2 or max(known) < _UNLIKE * min(known):
        return None, None
    coarse = arrays[max(sides, key=lambda name: sides[name])]
    there = np.isfinite(lonlat).all(axis=1)
    cell = np.full(len(lonlat), -1)
    degrees = geometry.as_crs(geometry.LONLAT)
    if "location" in coarse.dims:
        patches = footprints.patches_of(coarse, "evaluate")
        chosen = footprints.nearest_patch(coarse, lonlat[there])
        found, position = np.unique(chosen, return_inverse=True)
        squares = footprints.squares_of(patches.take(found[found >= 0]), degrees)
        cell[there] = position - int(found[0] < 0)
        return cell, squares
    grid = geometry.geobox_of(coarse, "evaluate")
    to_grid = geometry.transformer(degrees, geometry.as_crs(grid.crs))
    x, y = to_grid.transform(lonlat[there, 0], lonlat[there, 1], errcheck=False)
    rows, cols, inside = places.pixels_at(grid, np.asarray(x), np.asarray(y))
    found, position = np.unique(rows[inside] * grid.shape[1] + cols[inside], return_inverse=True)
    cell[np.flatnonzero(there)[inside]] = position
    corners = [
        grid.affine * (found % grid.shape[1] + dx, found // grid.shape[1] + dy) for dx, dy in ((0, 0), (1, 1))
    ]
    boxes = shapely.box(*(np.minimum(*pair) for pair in zip(*corners, strict=True)),
                        *(np.maximum(*pair) for pair in zip(*corners, strict=True)))  # fmt: skip
    return cell, polygons.projected(boxes, geometry.as_crs(grid.crs), degrees)


def _over_cells(
    arrays: Mapping[str, xr.DataArray],
    products: Mapping[str, Product],
    table: Any,
    cell: np.ndarray,
    squares: np.ndarray,
    time: Any,
) -> dict[str, np.ndarray]:
    """Means of the finer products over the cells of the coarsest, for each label."""
    sides = {name: _cell(each) for name, each in arrays.items()}
    finer = [name for name, side in sides.items() if 0 < side < max(sides.values()) / _UNLIKE]
    first = np.unique(cell, return_index=True)[1]
    first = first[cell[first] >= 0]  # one label per cell brings its date along
    own = pd.DataFrame(table).iloc[first].reset_index(drop=True)
    own = own[[c for c in own.columns if str(c).lower() in _TIME_COLUMNS or c == time]]
    own = own.assign(geometry=tables.column_of_objects(list(squares)))
    found = {}
    for name in finer:
        array = arrays[name]
        if "location" in array.dims:  # small patches in a large cell: not averaged
            continue
        vectors = _vectors(name, array, products[name], own, time)
        found[name] = np.where((cell >= 0)[:, None], vectors[np.maximum(cell, 0)], np.nan)
    return found


def _purity(cell: np.ndarray | None, keep: np.ndarray, y: np.ndarray | None) -> np.ndarray:
    """Share of the labels in one cell that are of the same class."""
    if cell is None or y is None:
        return np.full(int(keep.sum()), np.nan)
    own = cell[keep]
    cells = np.where(own >= 0, own, own.max(initial=0) + 1)
    counts = np.zeros((int(cells.max()) + 1, int(y.max()) + 1))
    np.add.at(counts, (cells, y), 1)
    total = counts.sum(axis=1)[cells]
    return np.where((own >= 0) & (total >= _LEAST_IN_CELL), counts[cells, y] / total, np.nan)


# --- what stands beside the labels --------------------------------------------------------------------------------


def _encoded(values: np.ndarray, known: Legend | None) -> tuple[np.ndarray, Legend | None]:
    if values.dtype.kind == "f":
        return values.astype(np.float64), None
    return encoded(values, known)


def _previous(table: Any, name: str | None, keep: np.ndarray, legend: Legend | None) -> np.ndarray:
    if name is None:
        return np.array([])
    given = column_of(table, name, "previous")[keep]
    if legend is None:
        return np.asarray(given, np.float64)
    position = {key: i for i, key in enumerate(legend.names)} | {v: i for i, v in enumerate(legend.values)}
    return np.array([position.get(each, -1) for each in given])


def _years(table: Any, time: Any, keep: np.ndarray) -> np.ndarray:
    """Year of each label, of the column of dates that ``time`` names or that is called so."""
    name = time if isinstance(time, str) and time in table.columns else None
    if name is None and time is None:
        name = next((c for c in table.columns if str(c).lower() in _TIME_COLUMNS), None)
    if name is None:
        return np.array([], np.int64)
    dates = parse_dates(table[name], f"labels' column {str(name)!r}")[keep]
    return np.asarray(dates.astype("datetime64[Y]").astype(np.int64) + 1970)


def _design_weights(table: Any, design: Any, labelled: np.ndarray) -> np.ndarray:
    """Weights of a probability sample: a column, an array, or what the strata of ``sample_design`` say."""
    n = len(table)
    if design is None:
        return np.ones(n)
    if isinstance(design, str) and design == "stratified" and design not in table.columns:
        stratum, area = (column_of(table, name, "design") for name in ("stratum", "stratum_ha"))
        counts = pd.Series(stratum[labelled]).value_counts()
        found = np.asarray(area, np.float64) / pd.Series(stratum).map(counts).fillna(np.inf).to_numpy()
    else:
        found = pd.to_numeric(pd.Series(column_of(table, design, "design")), errors="coerce").to_numpy(
            np.float64
        )
    if found.shape != (n,) or not (np.isfinite(found) & (found >= 0))[labelled].all():
        raise EmbeddingError(
            f"design= gives each of the {n} labels the area that it stands for, a number that is not negative: a "
            "column, an array, or 'stratified' for the columns of gx.sample_design"
        )
    return np.where(labelled, found, 0.0)


def _lonlat(table: Any) -> np.ndarray:
    """Places of labels in degrees; a polygon has a point inside it."""
    if hasattr(table, "geom_type") and set(table.geom_type.dropna()) - {"Point"}:
        table = table.set_geometry(table.geometry.representative_point())
    elif not hasattr(table, "geom_type") and (given := places.read_places(table)).shapes is not None:
        inner = shapely.point_on_surface(given.polygons(geometry.as_crs(geometry.LONLAT)))
        return np.column_stack([shapely.get_x(inner), shapely.get_y(inner)])
    return np.column_stack(places.points_xy(table, geometry.LONLAT))


def _extent(table: Any) -> float:
    """Side in metres of the largest label: of the box around a polygon, 0 for points."""
    given = places.read_places(table)
    if given.shapes is None:
        return 0.0
    west, south, east, north = shapely.bounds(given.polygons(geometry.as_crs(geometry.LONLAT))).T
    wide = (east - west) * np.cos(np.radians((south + north) / 2))
    return float(np.nanmax(np.maximum(wide, north - south)) * geometry.METRES_PER_DEGREE)


def names_of(arrays: Mapping[str, Any] | Sequence[Any]) -> None:
    """Return the names of the products; raise unless arrays are given by name."""
    if not isinstance(arrays, Mapping) or not arrays:
        raise EmbeddingError(
            "evaluate takes a mapping of names to arrays, such as {'alphaearth': a, 'tessera': t}; got "
            f"{type(arrays).__name__}"
        )
    for name, each in arrays.items():
        if not isinstance(each, xr.DataArray):
            raise EmbeddingError(
                f"evaluate: {name!r} is not a DataArray of embeddings, but {type(each).__name__}"
            )
