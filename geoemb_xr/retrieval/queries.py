"""Queries: places, vectors or words as vectors of an array's space, and the positions of places in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import areas, geometry, times
from geoemb_xr.core.arrays import decode
from geoemb_xr.core.errors import CoverageError, EmbeddingError
from geoemb_xr.core.fitted import decoded_bands
from geoemb_xr.core.model import (
    BAND,
    check_comparable,
    check_embedding,
    comparability_key,
    product,
)
from geoemb_xr.geo import footprints, ground, places, polygons, tables

#: How names of files with places begin or end, where there is no such file: a mistyped path is not text.
_FILES = (
    ".csv",
    ".parquet",
    ".geoparquet",
    ".gpq",
    ".geojson",
    ".json",
    ".gpkg",
    ".shp",
    ".fgb",
    ".kml",
    ".zip",
)


def query_vectors(array: xr.DataArray, query: Any, time: times.TimeLike) -> Any:
    """Vectors ``(n, band)`` of a query: in memory, or lazy where the array is.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Array in whose space they are, and where places are looked up.
    query, time
        See :func:`geoemb_xr.similarity`.
    """
    direct = _direct(array, query)
    if direct is not None:
        return direct
    given = places.read_places(query).present("the query")
    where, rows = covered_positions(array, given)
    check_found([array], given, [rows])
    return _flat(_pixels(array, where, time))


@dataclass(frozen=True)
class Asked:
    """Vectors that are looked for, read.

    Parameters
    ----------
    vectors : ndarray of float32 (n, band)
        NaN where a pixel has no data.
    group : ndarray of int (n,)
        Query that each vector belongs to.
    labels : ndarray (queries,)
        Names of the queries.
    centres : ndarray of float64 (m, 3)
        Centres of the pixels or patches that they were read at, in metres from the centre of the Earth.
    centre_group : ndarray of int (m,)
        Query that each centre belongs to.
    """

    vectors: np.ndarray
    group: np.ndarray
    labels: np.ndarray
    centres: np.ndarray
    centre_group: np.ndarray


def read(many: Sequence[xr.DataArray], query: Any, time: times.TimeLike, *, each: bool) -> Asked:
    """A query as vectors, looked up in whichever of several arrays of one space holds its places. Computes.

    Parameters
    ----------
    many : sequence of DataArray
        Arrays of one product, version and bands.
    query, time
        See :func:`geoemb_xr.similarity`.
    each : bool
        Whether each vector, place or text is a query of its own; else all are one.
    """
    direct = _direct(many[0], query)
    nowhere = np.empty((0, 3)), np.empty(0, np.int64)
    if direct is not None:
        vectors = np.asarray(direct.compute() if hasattr(direct, "__dask_graph__") else direct, np.float32)
        group = np.arange(len(vectors)) if each else np.zeros(len(vectors), np.int64)
        return Asked(
            vectors, group, _labels(query, len(vectors)) if each else np.zeros(1, np.int64), *nowhere
        )
    given = places.read_places(query).present("the query")
    found = [covered_positions(array, given, each=each) for array in many]
    check_found(many, given, [rows for _, rows in found], each=each)
    parts, groups, centres, centre_groups = [], [], [], []
    for array, (where, rows) in zip(many, found, strict=True):
        if not rows.size:
            continue
        own = rows if each else np.zeros_like(rows)
        vectors = _pixels(array, where, time).transpose(..., "pixel", BAND).values
        parts.append(vectors.reshape(-1, vectors.shape[-1]))
        groups.append(np.tile(own, len(parts[-1]) // len(own)))
        x, y = (array.coords[c].values[where.get("location", where.get(c))] for c in ("x", "y"))
        centres.append(ground.geocentric(geometry.crs_of(array), x, y).T)
        centre_groups.append(own)
    labels = given.table.index.to_numpy() if each else np.zeros(1, np.int64)
    return Asked(
        np.concatenate(parts),
        np.concatenate(groups),
        labels,
        np.concatenate(centres),
        np.concatenate(centre_groups),
    )


def _labels(query: Any, n: int) -> np.ndarray:
    if isinstance(query, xr.DataArray) and "location" in query.dims and query.ndim == 2:
        return np.asarray(query.coords["location"].values) if "location" in query.coords else np.arange(n)
    if _is_text(query):
        return np.asarray([query] if isinstance(query, str) else list(query), dtype=object)
    return np.arange(n)


# --- vectors and words --------------------------------------------------------------------------------------------


def _direct(array: xr.DataArray, query: Any) -> Any:
    """Vectors ``(n, band)`` of a query that is not a place; None of one that is."""
    bands = decoded_bands(array)
    if isinstance(query, xr.DataArray):
        check_embedding(query, "similarity")
        check_comparable("similarity", comparability_key(query), comparability_key(array))
        if decoded_bands(query) != bands:
            raise EmbeddingError("the query's bands are not those of the array")
        return _flat(decode(query))
    if _is_text(query):
        return _of_text(array, [query] if isinstance(query, str) else list(query))
    if _is_vector(query, len(bands)):
        return _plain_vectors(array, query, bands)
    return None


def _plain_vectors(array: xr.DataArray, query: Any, bands: Sequence[str]) -> np.ndarray:
    """Vectors ``(n, band)`` without a product, taken as the array's: by the names of bands where they have some."""
    names = list(map(str, getattr(query, "index", ()))) if isinstance(query, pd.Series) else []
    if names and set(names) == set(bands) and len(names) == len(bands):
        query = query.set_axis(names)[list(bands)]
    if np.ma.isMaskedArray(query):
        query = np.ma.filled(query.astype(np.float64), np.nan)
    vectors = np.asarray(query).reshape(-1, len(bands))
    codec = product(array.attrs["product"]).codec
    if codec is not None and vectors.dtype == codec.dtype:
        raise EmbeddingError(
            f"the query is {codec.dtype}, as the codes of {array.attrs['product']!r} are, and is compared with "
            "vectors: decode it first, or take it from the array (.isel, .sel), which knows what it holds"
        )
    return vectors.astype(np.float32)


def _flat(vectors: xr.DataArray) -> Any:
    rest = [d for d in vectors.dims if d != BAND]
    data = vectors.transpose(*rest, BAND).data
    return data.reshape(-1, data.shape[-1])


def _is_text(query: Any) -> bool:
    """Whether a query is words, and not GeoJSON, WKT or the path of a file with places."""
    if isinstance(query, str):
        return (
            not tables.is_written(query)
            and not query.partition(tables.LAYER)[0].lower().endswith(_FILES)
            and not Path(query).exists()
        )
    return isinstance(query, list | tuple) and bool(query) and all(map(_is_words, query))


def _is_words(each: Any) -> bool:
    return isinstance(each, str) and not tables.is_written(each)


def _of_text(array: xr.DataArray, texts: list[str]) -> np.ndarray:
    name, version = comparability_key(array)
    encode = product(name).text
    if encode is None:
        raise EmbeddingError(
            f"{texts[0]!r} is no file, and words can be searched only where a space has a text encoder: "
            f"{f'{name} {version}'.strip()} has none. Give a place, a polygon or a vector."
        )
    vectors = np.asarray(encode(texts, version), np.float32)
    bands = decoded_bands(array)
    if vectors.shape != (len(texts), len(bands)):
        raise EmbeddingError(
            f"the text encoder of {name!r} gave vectors of shape {vectors.shape} for {len(texts)} texts; "
            f"the array has {len(bands)} bands"
        )
    return vectors


def _is_vector(query: Any, bands: int) -> bool:
    """Whether a query is vectors and not places: as many numbers as bands, where these are not 2 or 4."""
    if isinstance(query, str | Mapping) or hasattr(query, "columns") or hasattr(query, "geom_type"):
        return False
    try:
        shape = np.shape(query)
    except ValueError:  # geometries and the like of several lengths
        return False
    is_place = shape in ((0,), (4,)) or shape[-1:] == (2,)  # no rows, a box, or pairs
    if len(shape) in (1, 2) and shape[-1] == bands:
        if is_place and not isinstance(query, pd.Series):
            raise EmbeddingError(
                f"{bands} numbers can be a place or a vector of {bands} bands here: give a place as a shapely "
                "geometry or a table, and a vector as a DataArray (array.isel(y=…, x=…)) or a Series"
            )
        return np.asarray(query).dtype.kind in "fiu"
    if len(shape) in (1, 2) and not is_place and np.asarray(query).dtype.kind in "fiu":
        raise EmbeddingError(
            f"a query is a point (lon, lat), points, a polygon, or a vector of {bands} bands; "
            f"got {type(query).__name__} of shape {shape}"
        )
    return False


# --- places -------------------------------------------------------------------------------------------------------


def _pixels(array: xr.DataArray, where: dict[str, np.ndarray], time: times.TimeLike) -> xr.DataArray:
    pixels = array.isel({dim: xr.DataArray(index, dims="pixel") for dim, index in where.items()})
    if "time" in array.dims:
        pixels = pixels.isel(time=times.pick_times(array.coords["time"].values, time))
    elif time is not None:
        times.year(array, time)  # raises where that is not its year
    return decode(pixels)


def covered_positions(
    array: xr.DataArray, given: places.Places, *, each: bool = False
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Positions of the pixels, or patches, that places cover, by dimension, and which place each belongs to.

    Parameters
    ----------
    array : DataArray
        Raster or patches.
    given : Places
        Those that lie outside have no pixel.
    each : bool
        Whether polygons are taken one by one: pixels in two count twice. Else they are one area, place 0.

    Raises
    ------
    EmbeddingError
        If there is no place, or the array has no grid and no patches to look one up in.
    """
    if not len(given):
        raise EmbeddingError("the query has no place: a table without rows")
    if "location" in array.dims:
        if not footprints.has_footprints(array):
            raise EmbeddingError(
                "points have no grid to look up a place in: give the query as a vector, "
                "for example one of the array's own, array.sel(location=…)"
            )
        index, rows = _patches(array, given, each)
        return {"location": index}, rows
    grid = geometry.geobox_of(array, "similarity")
    if given.shapes is None:
        row, column, inside = places.pixels_at(grid, *given.xy(grid.crs))
        return {"y": row[inside], "x": column[inside]}, np.flatnonzero(inside)
    shapes = given.polygons_on(grid)
    found = [_pixels_in(array, grid, shape) for shape in (shapes if each else [polygons.union(shapes)])]
    ys, xs = (np.concatenate([one[axis] for one in found]) for axis in (0, 1))
    return {"y": ys, "x": xs}, np.repeat(np.arange(len(found)), [len(one[0]) for one in found])


def _pixels_in(array: xr.DataArray, grid: Any, shape: Any) -> tuple[np.ndarray, np.ndarray]:
    window = areas.window_of(grid, tuple(shape.bounds))
    if window is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    ys, xs = array.coords["y"].values[window[0]], array.coords["x"].values[window[1]]
    size = abs(grid.affine.e), abs(grid.affine.a)
    rows, columns = np.nonzero(polygons.covered_shares(shape, ys, xs, size, "centre") > 0)
    return rows + window[0].start, columns + window[1].start


def _patches(array: xr.DataArray, given: places.Places, each: bool) -> tuple[np.ndarray, np.ndarray]:
    """Patches whose footprint holds points, or whose centre polygons hold, and which place each belongs to."""
    if given.shapes is None:
        index = footprints.nearest_patch(array, given, what="a query by place")
        rows = np.flatnonzero(index >= 0)
        return index[rows], rows
    single = [given.take(np.array([i])) for i in range(len(given))] if each else [given]
    found = [footprints.patches_in(array, one, "centre") for one in single]
    return np.concatenate(found), np.repeat(np.arange(len(found)), [len(one) for one in found])


def check_found(
    many: Sequence[xr.DataArray], given: places.Places, found: Sequence[np.ndarray], *, each: bool = False
) -> None:
    """Raise unless every place has a pixel or patch in one of several arrays.

    Raises
    ------
    CoverageError
        Saying what the arrays cover.
    """
    wanted = len(given) if given.shapes is None or each else 1
    lost = wanted - len(np.unique(np.concatenate(list(found))))
    if not lost:
        return
    first = many[0]
    patches = "location" in first.dims
    if given.shapes is not None:
        what = "patch's centre" if patches else "pixel's centre"
        covers = "" if patches else f", which {areas.covers(geometry.geobox_of(first, 'similarity'))}"
        subject = "the polygon holds" if wanted == 1 else f"{lost} of {wanted} polygons hold"
        raise CoverageError(f"{subject} no {what} of {_named(many)}{covers if len(many) == 1 else ''}")
    if patches and len(many) == 1:
        raise CoverageError(
            f"{lost} of {wanted} query points lie in none of the {first.sizes['location']} patches"
        )
    covers = "" if len(many) > 1 else f", which {areas.covers(geometry.geobox_of(first, 'similarity'))}"
    raise CoverageError(f"{lost} of {wanted} query points lie outside {_named(many)}{covers}")


def _named(many: Sequence[xr.DataArray]) -> str:
    return "the array" if len(many) == 1 else f"all {len(many)} arrays"
