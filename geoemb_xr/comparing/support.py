"""The labels that all products cover, with one vector of each product for each label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.legend import Legend, encode_classes
from geoemb_xr.core.model import Product, check_embedding
from geoemb_xr.geo import places
from geoemb_xr.geo.lattice import source_grid
from geoemb_xr.probes import labelling
from geoemb_xr.probes.heads import Data
from geoemb_xr.probes.samples import aligned, column_of, guess_target, samples_of

_ROW = "geoemb_xr row"
_RADIUS = 6_371_000.0


@dataclass(frozen=True)
class Support:
    """Labels with a vector of every product.

    Parameters
    ----------
    vectors : mapping of str to ndarray of float32 (n, band)
        By the name of the product, without NaN.
    products : mapping of str to Product
        Facts of each.
    footprints : mapping of str to float
        Side, in metres, of the ground that a vector tells of.
    y : ndarray (n,)
        Positions of classes, or values.
    legend : Legend or None
        The classes; None for regression.
    groups, by : ndarray (n,)
        What no split may part, and what scores are told apart by (empty where not asked for).
    lonlat : ndarray of float64 (n, 2)
        Places in degrees.
    previous : ndarray (n,)
        Positions of earlier labels, or earlier values; empty where there are none.
    dropped : mapping of str to int
        How many labels were left out, by reason.
    target : str
        Name of the labels.
    """

    vectors: Mapping[str, np.ndarray]
    products: Mapping[str, Product]
    footprints: Mapping[str, float]
    y: np.ndarray
    legend: Legend | None
    groups: np.ndarray
    by: np.ndarray
    lonlat: np.ndarray
    previous: np.ndarray
    dropped: Mapping[str, int]
    target: str

    @property
    def classes(self) -> int:
        """How many; 0 for regression."""
        return 0 if self.legend is None else len(self.legend.values)

    @property
    def metres(self) -> np.ndarray:
        """Places in metres on a local plane (n, 2): what blocks and buffers are measured on."""
        lon, lat = np.radians(self.lonlat).T
        middle = float(np.median(lat))
        east = np.angle(np.exp(1j * (lon - lon[0])))  # the short way across the antimeridian
        return np.column_stack([east * np.cos(middle), lat]) * _RADIUS

    def data(self, x: np.ndarray, seed: int) -> Data:
        """What a probe is fitted on, with these vectors."""
        ones = np.ones(len(self.y))
        return Data(x, self.y, ones, self.groups, self.classes, seed, self.metres)


def support_of(
    arrays: Mapping[str, xr.DataArray],
    labels: Any,
    *,
    target: str | None,
    time: Any,
    group: Any,
    by: str | None,
    previous: str | None,
) -> Support:
    """Look labels up in every array; those that one of them lacks are left out. Computes.

    Raises
    ------
    EmbeddingError
        If no label is left, or they are of one class.
    """
    products = {name: check_embedding(each, f"evaluate: {name!r}") for name, each in arrays.items()}
    table = _table(labels, next(iter(arrays.values())))
    used = {each for each in (time, group, by, previous) if isinstance(each, str)}
    target = guess_target(table, target, used)
    values = pd.Series(column_of(table, target, "target"))
    found = {name: _vectors(name, each, products[name], table, time) for name, each in arrays.items()}
    covered = {name: np.isfinite(x).all(axis=1) for name, x in found.items()}
    labelled = values.notna().to_numpy()
    keep = labelled & np.logical_and.reduce(list(covered.values()))
    dropped = {"without a label": int((~labelled).sum())}
    dropped |= {
        f"without data in {name}": int((~inside & labelled).sum()) for name, inside in covered.items()
    }
    if not keep.any():
        raise EmbeddingError(f"no label has data in all products; left out: {dropped}")
    kept = values[keep].to_numpy()
    y, legend = _encoded(kept)
    lonlat = _lonlat(table)[keep]
    default = np.unique(lonlat.round(9), axis=0, return_inverse=True)[1].reshape(-1)
    groups = default if group is None else pd.factorize(column_of(table, group, "group")[keep])[0]
    return Support(
        vectors={name: np.ascontiguousarray(x[keep], np.float32) for name, x in found.items()},
        products=products,
        footprints={name: _footprint(each, products[name]) for name, each in arrays.items()},
        y=y,
        legend=legend,
        groups=groups,
        by=np.array([]) if by is None else column_of(table, by, "by")[keep].astype(str),
        lonlat=lonlat,
        previous=_previous(table, previous, keep, legend),
        dropped={reason: n for reason, n in dropped.items() if n},
        target=target,
    )


def _table(labels: Any, first: xr.DataArray) -> Any:
    given = labelling.read_labels(labels)
    if isinstance(given, xr.DataArray):
        return labelling.labels(aligned(given, first))
    if not hasattr(given, "columns"):
        raise EmbeddingError(
            f"evaluate takes labels as a table with lon and lat, a GeoDataFrame, a path or a raster; got "
            f"{type(given).__name__}"
        )
    return given


def _vectors(name: str, array: xr.DataArray, product: Product, table: Any, time: Any) -> np.ndarray:
    """One vector per label (n, band): of its place, or the mean over its polygon; NaN where there is none."""
    numbered = table.assign(**{_ROW: np.arange(len(table))})
    try:
        samples, _ = samples_of(array, numbered, _ROW, time, None, None)
    except EmbeddingError as error:
        raise type(error)(f"evaluate: {name!r}: {error}") from error
    rows = samples.labels.astype(np.int64)
    count = np.bincount(rows, minlength=len(table))
    sums = np.zeros((len(table), samples.vectors.shape[1]))
    np.add.at(sums, rows, samples.vectors)
    with np.errstate(invalid="ignore"):
        mean = sums / count[:, None]
        if product.unit_norm:
            several = count > 1
            mean[several] /= np.linalg.norm(mean[several], axis=1, keepdims=True)
    return mean


def _encoded(values: np.ndarray) -> tuple[np.ndarray, Legend | None]:
    if values.dtype.kind == "f":
        return values.astype(np.float64), None
    codes, legend = encode_classes(values)
    if len(legend.values) < 2:
        raise EmbeddingError(
            f"all {len(values)} labels are of one class, {legend.names[0]!r}; two are needed"
        )
    return np.searchsorted(legend.values, codes), legend


def _previous(table: Any, name: str | None, keep: np.ndarray, legend: Legend | None) -> np.ndarray:
    if name is None:
        return np.array([])
    given = column_of(table, name, "previous")[keep]
    if legend is None:
        return np.asarray(given, np.float64)
    position = {key: i for i, key in enumerate(legend.names)} | {v: i for i, v in enumerate(legend.values)}
    return np.array([position.get(each, -1) for each in given])


def _lonlat(table: Any) -> np.ndarray:
    """Places of labels in degrees; a polygon has a point inside it."""
    if hasattr(table, "geom_type") and set(table.geom_type.dropna()) - {"Point"}:
        table = table.set_geometry(table.geometry.representative_point())
    return np.column_stack(places.points_xy(table, geometry.LONLAT))


def _footprint(array: xr.DataArray, product: Product) -> float:
    size = product.resolution or 0.0 if "location" in array.dims else source_grid(array).metres
    return max(size, product.context_m or 0.0)


def names_of(arrays: Mapping[str, Any] | Sequence[Any]) -> None:
    """Raise unless arrays come by name."""
    if not isinstance(arrays, Mapping) or not arrays:
        raise EmbeddingError(
            "evaluate takes a mapping of names to arrays, such as {'alphaearth': a, 'tessera': t}; got "
            f"{type(arrays).__name__}"
        )
