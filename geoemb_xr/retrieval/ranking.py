"""Search for the most similar places: scores are made piece by piece, the best are kept, and then looked up.

Nothing but the best of a block leaves a task, so that memory does not grow with the arrays, and many queries are
answered while the vectors are in the cache.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import times
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.fitted import decoded_bands
from geoemb_xr.core.notes import one_call
from geoemb_xr.execution import blocks, devices
from geoemb_xr.geo import places
from geoemb_xr.retrieval import hits, queries, scores, sketches
from geoemb_xr.retrieval.best import Best
from geoemb_xr.retrieval.scanning import Candidates, Scan, Scorer, mean_vector
from geoemb_xr.retrieval.scores import Metric

How = Literal["mean", "max", "each"]
#: Candidates of all queries together that one pass keeps.
_ROOM = 1 << 20
#: Centres closer than this, in metres, are one place.
_SAME_PLACE = 0.1


@one_call()
def search(
    array: xr.DataArray | Sequence[xr.DataArray] | Mapping[str, xr.DataArray],
    query: Any,
    k: int = 10,
    *,
    negatives: Any = None,
    exclude_query: bool = True,
    min_distance: float | None = None,
    how: How = "mean",
    metric: Metric = "cosine",
    time: times.TimeLike = None,
    background: Any = None,
    sketch: sketches.Sketch | str | os.PathLike[str] | None = None,
    crs: object = None,
    device: str = "cpu",
) -> pd.DataFrame:
    """Find the k places that look most like a place, a vector or words. Computes; exact.

    Scores are looked at block by block and the best kept, so that memory does not grow with the array.

    Parameters
    ----------
    array : DataArray (…, band, …), sequence or mapping of them
        Codes or vectors, rasters or points: several tiles, zones or years of one product and version.
    query : (lon, lat), points, polygon, vector or words
        See :func:`similarity`. A place is looked up in every array that holds it.
    k : int
        Number of hits per query.
    negatives : as query, optional
        Examples of what is not looked for: the score is the similarity to the query less that to these.
    exclude_query : bool
        Whether the places that the query was read at are left out, in every year and array. Vectors have no place.
    min_distance : float, optional
        Hits lie at least so many metres apart on the ground, and from the query where that is left out; of two
        that are closer, in whichever year or array, the better stays.
    how : {"mean", "max", "each"}
        The mean similarity to several places or vectors, the best, or a search for each, all in one pass.
    metric : {"cosine", "euclidean"}
        See :func:`similarity`. Negatives and a background have a meaning for ``cosine`` only.
    time : year or date, optional
        The period of the arrays in which places are looked up; all of them by default.
    background : "mean" or vector, optional
        Part that all vectors of a region have in common, subtracted from vectors and queries before they are
        compared: "mean" is the mean of the arrays, which takes one more pass.
    sketch : Sketch or path, optional
        Sketch by :func:`build_sketch`: only the candidates that it names are scored, exactly. One array then.
    crs : CRS, optional
        CRS of a query and negatives that are places and bring none; longitude and latitude by default.
    device : str
        ``"cpu"``, ``"auto"`` for a GPU where there is one, or a device of torch such as ``"cuda:0"``, where
        vectors are scored: faster for many queries.

    Returns
    -------
    GeoDataFrame, or DataFrame without geopandas
        The best first: ``similarity`` (or ``distance``), ``lon``, ``lat``, ``x``, ``y`` in the array's CRS,
        ``time`` or ``location`` where the array has them, what else it knows of a location, and as ``geometry``
        the footprint of the pixel or patch. ``query`` says which of several, for ``how="each"``; ``array`` says
        which of several. Of equal scores the first in the array.

    Raises
    ------
    EmbeddingError
        If the array is empty of data, words are searched in a space without a text encoder, or a device is not
        there.
    CoverageError
        If a place lies outside all arrays.
    ComparabilityError
        If arrays, or a vector, are of different products or versions.
    ValueError
        For an unknown ``how`` or metric, negatives or a background with another metric than ``cosine``, or a sketch
        beside several arrays.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(32, 32)).emb.year(2018)
    >>> found = da.emb.search((11.37, 47.25), 3, min_distance=50)
    >>> found.columns.tolist()
    ['similarity', 'lon', 'lat', 'x', 'y', 'geometry']
    """
    _check_numbers(k, min_distance)
    check_choice("how", how, ("mean", "max", "each"))
    check_choice("metric", metric, ("cosine", "euclidean"))
    devices.check_device(device)
    names, given = _named(array)
    many, _ = blocks.one_space(given, "search")
    many = [hits.in_order(each) for each in many]
    if hasattr(negatives, "__len__") and not len(negatives):  # a loop that has found none yet
        negatives = None
    if crs is not None:
        query = places.read_places(query, crs=crs)
        negatives = None if negatives is None else places.read_places(negatives, crs=crs)
    asked = queries.read(many, query, time, each=how == "each")
    against = None if negatives is None else queries.read(many, negatives, time, each=False)
    if metric != "cosine" and (against is not None or background is not None):
        raise ValueError(
            "negatives and background are about directions: use metric='cosine', or leave them out"
        )
    scorer = replace(_scorer(many, asked, against, how, metric, _shift(many, background)), device=device)
    if sketch is not None and len(many) > 1:
        raise ValueError(f"a sketch is of one array; got {len(many)}: search them one by one")
    source: Candidates = Scan(many, scorer)
    if sketch is not None:
        source = sketches.Shortlist(many[0], sketches.opened(sketch), scorer)
    chosen = _chosen(many, source, scorer, asked, k, exclude_query, min_distance)
    if not chosen.scores.size:
        near = exclude_query and min_distance  # what is left out around the query
        beside = (
            f" {min_distance:g} m or more from the query"
            if near
            else " beside the query"
            if exclude_query
            else ""
        )
        raise EmbeddingError(f"search found no pixel with data{beside}")
    labels = asked.labels if how == "each" else None
    return hits.hits_table(many, chosen, metric, labels, names)


def _check_numbers(k: int, min_distance: float | None) -> None:
    if k < 1:
        raise ValueError(f"k is how many to find, at least 1; got {k}")
    if min_distance is not None and not 0 <= min_distance < np.inf:
        raise ValueError(f"min_distance is a distance in metres, 0 or more; got {min_distance!r}")


def _named(array: Any) -> tuple[list[Any] | None, xr.DataArray | list[xr.DataArray]]:
    """Return the names of several arrays: their keys, or their numbers."""
    if isinstance(array, xr.DataArray):
        return None, array
    if isinstance(array, Mapping):
        return list(array), list(array.values())
    return list(range(len(array))), list(array)


# --- scores -----------------------------------------------------------------------------------------------------


def _scorer(
    many: Sequence[xr.DataArray],
    asked: queries.Asked,
    against: queries.Asked | None,
    how: str,
    metric: str,
    shift: np.ndarray | None,
) -> Scorer:
    none = np.empty((0, asked.vectors.shape[1]), np.float32)
    less = np.float32(0) if shift is None else shift
    scores.say_normalised(many[0], metric)
    negatives = none if against is None else scores.prepared(against.vectors - less, how, metric)
    if how == "each":
        positives = np.concatenate(
            [
                _single_vector(asked.vectors[asked.group == i] - less, metric, label)
                for i, label in enumerate(asked.labels)
            ]
        )
    else:
        positives = scores.prepared(asked.vectors - less, how, metric)
    if len(negatives) and how != "max":  # cosines are linear in the direction: one product for both
        positives, negatives = positives - negatives.mean(axis=0), none
    positives = np.ascontiguousarray(positives, np.float32)
    return Scorer(positives, negatives, how, metric, shift, contrast=against is not None)


def _single_vector(vectors: np.ndarray, metric: str, label: object) -> np.ndarray:
    """Reduce a query to one vector: the mean direction of its pixels, or their mean."""
    try:
        rows = scores.prepared(vectors, "mean", metric)
    except EmbeddingError as error:
        raise EmbeddingError(f"query {label}: {error}") from error
    return rows.mean(axis=0, keepdims=True)


def _shift(many: Sequence[xr.DataArray], background: Any) -> np.ndarray | None:
    """The vector that is subtracted from all others."""
    if background is None:
        return None
    bands = len(decoded_bands(many[0]))
    if isinstance(background, str):
        check_choice("background", background, ("mean",))
        return mean_vector(many, "search")
    shift = np.asarray(background.values if isinstance(background, xr.DataArray) else background, np.float32)
    if shift.shape != (bands,):
        raise ValueError(f"background is 'mean' or a vector of {bands} bands; got shape {shift.shape}")
    return shift


# --- the choice -------------------------------------------------------------------------------------------------


def _chosen(
    many: Sequence[xr.DataArray],
    source: Candidates,
    scorer: Scorer,
    asked: queries.Asked,
    k: int,
    exclude_query: bool,
    min_distance: float | None,
) -> Best:
    """The k best of each query that lie far enough apart, and from the query.

    Candidates come in the order of their scores, so that what is taken of them stays taken however many follow.
    """
    centres = [
        asked.centres[asked.centre_group == i] if exclude_query else np.empty((0, 3))
        for i in range(scorer.count)
    ]
    reach = max(_SAME_PLACE if any(map(len, centres)) else 0.0, min_distance or 0.0)
    most = max(map(len, centres))
    room = k if not reach else _room(many, k + most, min_distance or 0.0)
    room = max(k, min(room, _ROOM // scorer.count))
    taken: list[Best] = [Best.nothing()] * scorer.count
    held = [np.empty((0, 3))] * scorer.count
    before: Best | None = None
    for turn in count():
        found, more = source.best(room, before, turn)
        if not reach:
            return found.cut(k)
        for i in range(scorer.count):
            own = found.take(found.query == i)
            xyz = hits.centres_of(many, own.positions)
            keep = hits.spaced_rows(
                xyz, [(centres[i], reach), (held[i], min_distance or 0.0)], k - len(held[i])
            )
            taken[i] = Best.joined([taken[i], own.take(keep)])
            held[i] = np.concatenate([held[i], xyz[keep]])
        if not more or all(len(each) >= k for each in held):
            break
        before = found
    return Best.joined(taken)


def _room(many: Sequence[xr.DataArray], places: int, metres: float) -> int:
    """The number of candidates needed for k places: each may bring all pixels around it, in every array."""
    layers = sum(array.sizes.get("time", 1) for array in many)
    pixel = min((hits.pixel_metres(array) for array in many), default=np.inf)
    return int(min(places * layers * (1 + np.pi * (metres / pixel) ** 2), _ROOM)) + 1
