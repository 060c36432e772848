"""The cost of fewer bytes: ways to store vectors, fitted in some regions and compared in others."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.compression import quantizers
from geoemb_xr.compression.probing import SIDE, probed, regions
from geoemb_xr.core.arrays import decode, encode_with, matryoshka_of
from geoemb_xr.core.errors import EmbeddingError, require
from geoemb_xr.core.fitted import decoded_bands
from geoemb_xr.core.model import BAND, check_embedding, comparability_key, is_encoded, product
from geoemb_xr.core.notes import one_call
from geoemb_xr.execution.computing import computed
from geoemb_xr.probes.samples import samples_of

#: Vectors whose neighbours are looked for.
_QUERIES = 300
#: Vectors closer than this share of the area's width are a query's own neighbourhood and are not counted.
_NEAR = 0.01


@dataclass(frozen=True)
class Losses:
    """A table of losses, and its picture.

    Parameters
    ----------
    table : DataFrame
        A row for each way to store a vector. ``bytes`` a vector as it is, ``stored`` after zstd, ``cosine_error``
        (1 less the cosine to the first vector), ``change_noise`` (root mean square error of the angle of change, in
        degrees), ``recall_10`` and ``recall_100`` (share of the true nearest that are found), ``probe`` (balanced
        accuracy, or R² of values, in left-out regions) and ``worst_class`` (recall of the class that is found
        worst). NaN where it cannot be measured.
    n : int
        Number of vectors that it was measured on.
    """

    table: pd.DataFrame
    n: int

    def __repr__(self) -> str:
        return f"{self.table.round(4)}\nmeasured on {self.n:,} vectors of regions that nothing was fitted on"

    def _repr_html_(self) -> str:
        return self.table.round(4).to_html() + f"<p>measured on {self.n:,} vectors</p>"

    def plot(self, ax: Any = None, *, what: str = "recall_10") -> Any:
        """Draw a column of the table against the bytes that are stored.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.
        what : str
            The column to draw.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        EmbeddingError
            If the column was not measured.
        """
        if what not in self.table or self.table[what].isna().all():
            known = ", ".join(str(name) for name in self.table if not self.table[name].isna().all())
            raise EmbeddingError(f"there is nothing to draw for {what!r}; measured are {known}")
        plt = require("matplotlib.pyplot", "viz")
        if ax is None:
            _, ax = plt.subplots(figsize=(7, 4), layout="constrained")
        for name, row in self.table.iterrows():
            ax.plot(row["stored"], row[what], "o", color="#1b6ca8" if "pca" in str(name) else "#d1793a")
        ax.set_xscale("log", base=2)
        ax.set_xlabel("bytes per vector, after zstd")
        ax.set_ylabel(what.replace("_", " "))
        ax.spines[["top", "right"]].set_visible(False)
        drawn = self.table.dropna(subset=[what])
        _name_points(ax, dict(zip(drawn.index, drawn[["stored", what]].to_numpy(), strict=True)))
        return ax


def _name_points(ax: Any, points: dict[str, np.ndarray]) -> None:
    """Write a name beside each point, where it overlaps neither another name or point nor the edge."""
    box_of = require("matplotlib.transforms", "viz").Bbox.from_bounds
    ax.figure.canvas.draw()  # lays out the axes, in which names are measured
    taken = [box_of(x - 4, y - 4, 8, 8) for x, y in ax.transData.transform(list(points.values()))]
    for name, point in points.items():
        text = ax.annotate(name, point, xytext=(0, 0), textcoords="offset points", fontsize=8)
        for up, (align, right) in itertools.product((4, -10, -22, -34, -46), (("left", 6), ("right", -6))):
            text.set_horizontalalignment(align)
            text.xyann = (right, up)
            box = text.get_window_extent()
            if box.x1 < ax.bbox.x1 and box.x0 > ax.bbox.x0 and not box.count_overlaps(taken):
                break
        taken.append(box)


@one_call()
def losses(
    array: xr.DataArray,
    labels: Any = None,
    *,
    target: str | None = None,
    dims: Sequence[int] = (8, 16, 32),
    n_samples: int = 6000,
    seed: int = 0,
) -> Losses:
    """Measure what fewer components and fewer bits cost. Computes.

    Every way is fitted on half of the regions, laid out as on a chessboard, and measured on the other half.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Codes or vectors, with x and y; with several years the noise of change between the first and the last is
        measured too.
    labels : table, GeoDataFrame, path or DataArray, optional
        See :func:`geoemb_xr.fit_probe`: what a probe scores with the vectors.
    target : str, optional
        Column of the labels.
    dims : sequence of int
        Numbers of principal components; a prefix of the same length stands beside them where the product has one.
    n_samples : int
        About how many vectors are looked at.
    seed : int
        Seed of their choice.

    Returns
    -------
    Losses
        ``.table``, a row for each way; ``.plot()`` draws it.

    Raises
    ------
    EmbeddingError
        If fewer than 50 vectors are there to be measured on.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> found = gx.testing.synthetic("alphaearth", shape=(48, 48)).emb.losses(dims=[8])
    >>> float(found.table.loc["pca8 int8", "bytes"])
    12.0
    """
    check_embedding(array, "losses")
    points = _drawn_vectors(array, n_samples, seed)
    places = np.column_stack([points.coords["x"].values, points.coords["y"].values])
    region = regions(places)
    fitting = (region // SIDE + region % SIDE) % 2 == 0
    measured = np.flatnonzero(~fitting)
    if len(measured) < 50 or fitting.sum() < 50:
        raise EmbeddingError(
            f"losses needs 50 vectors to fit on and 50 to measure on, in regions of their own; got {fitting.sum()} "
            f"and {len(measured)}"
        )
    labelled = None if labels is None else samples_of(array, labels, target, None, None, None)[0]
    train, test = points.isel(location=np.flatnonzero(fitting)), points.isel(location=measured)
    first = test.isel(time=0) if "time" in test.dims else test
    true = _rows(first)
    near = _nearest(true, places[measured], seed)
    angles = _change(test)
    rows = {}
    for name, way in _ways(train, [d for d in dims if d < points.sizes[BAND]]):
        codes, scale = way.stored(first)
        back = way.restored(first)
        rows[name] = {
            "bytes": way.bytes(codes, scale),
            "stored": _zstd(codes, scale),
            "cosine_error": float("nan") if back is None else float((1 - _cosine(true, back)).mean()),
            "change_noise": float("nan") if angles is None or back is None else _noise(angles, way, test),
            "recall_10": _recall(way.rows(first), near, 10),
            "recall_100": _recall(way.rows(first), near, 100),
            **_probed(way, labelled, array, seed),
        }
    return Losses(pd.DataFrame.from_dict(rows, orient="index").rename_axis("way"), len(measured))


# --- ways to store a vector ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Way:
    """Codes of vectors, their meaning, and the vectors of the original space that they stand for."""

    codes: Callable[[xr.DataArray], xr.DataArray]
    back: Callable[[xr.DataArray], xr.DataArray] | None = None
    bits: bool = False

    def stored(self, array: xr.DataArray) -> tuple[np.ndarray, np.ndarray | None]:
        codes = self.codes(array)
        scale = codes.coords["scale"].values if "scale" in codes.coords else None
        return codes.transpose(BAND, ...).values, scale

    def bytes(self, codes: np.ndarray, scale: np.ndarray | None) -> float:
        own = len(codes) / 8 if self.bits else len(codes) * codes.dtype.itemsize
        return float(own + (0 if scale is None else scale.dtype.itemsize))

    def rows(self, array: xr.DataArray) -> np.ndarray:
        return _rows(decode(_floats(self.codes(array))))

    def restored(self, array: xr.DataArray) -> np.ndarray | None:
        return None if self.back is None else _rows(self.back(_floats(self.codes(array))))


def _ways(train: xr.DataArray, dims: Sequence[int]) -> Iterator[tuple[str, _Way]]:
    found = product(train.attrs["product"])
    yield "float32", _Way(lambda a: a, lambda a: a)
    yield "float16", _Way(lambda a: a.astype(np.float16), lambda a: a)
    if found.codec is not None and not found.codec.bands:
        codec = found.codec
        yield f"as published ({codec.name})", _Way(lambda a: encode_with(a, codec), decode)
    for codec_name in quantizers.CODEC_OF:
        if found.codec is None or found.codec != quantizers.CODEC_OF[codec_name]:
            model = quantizers.fit_compressor(train, codec=codec_name)  # type: ignore[arg-type]  # a key of it
            yield codec_name, _compressed(model)
    prefixes = matryoshka_of(found, comparability_key(train)[1])
    for d in dims:
        for codec_name in ("int8", "bit"):
            model = quantizers.fit_compressor(train, dims=d, codec=codec_name)  # type: ignore[arg-type]  # as above
            yield f"pca{model.dims} {codec_name}", _compressed(model)
        if d in prefixes:
            model = quantizers.fit_compressor(train, dims=d, method="prefix")
            yield f"prefix{d} int8", _compressed(model)


def _compressed(model: quantizers.Compressor) -> _Way:
    back = model.whole or model.method == "pca"
    return _Way(
        lambda a: quantizers.compress(a, model),
        (lambda a: quantizers.decompress(a, model)) if back else None,
        bits=model.codec == "bit",
    )


def _floats(array: xr.DataArray) -> xr.DataArray:
    return array if is_encoded(array) else array.astype(np.float32)


def _zstd(codes: np.ndarray, scale: np.ndarray | None) -> float:
    """Bytes per vector of one chunk, band-first, after zstd at the level that stores are written with."""
    from numcodecs import Zstd

    squeezed = len(Zstd(level=3).encode(np.ascontiguousarray(codes)))
    squeezed += 0 if scale is None else len(Zstd(level=3).encode(np.ascontiguousarray(scale)))
    return float(squeezed / codes.shape[1])


# --- what is measured ---------------------------------------------------------------------------------------------


def _drawn_vectors(array: xr.DataArray, n: int, seed: int) -> xr.DataArray:
    """Some decoded vectors along ``location``, those missing in any year left out, in order of their places."""
    rng = np.random.default_rng(seed)
    dims = [d for d in ("location", "y", "x") if d in array.dims]
    shape = tuple(array.sizes[d] for d in dims)
    size = int(np.prod(shape))
    chosen = np.sort(rng.choice(size, min(n, size), replace=False))
    where = dict(zip(dims, np.unravel_index(chosen, shape), strict=True))
    some = array.isel({d: xr.DataArray(i, dims="location") for d, i in where.items()})
    some = computed(decode(some))
    there = np.isfinite(some.transpose("location", ...).values.reshape(some.sizes["location"], -1)).all(
        axis=1
    )
    return some.isel(location=np.flatnonzero(there))


def _rows(vectors: xr.DataArray) -> np.ndarray:
    return np.asarray(vectors.transpose("location", BAND).values, np.float32)


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.einsum("ij,ij->i", a, b) / np.maximum(lengths, 1e-12))


@dataclass(frozen=True)
class _Near:
    """Queries, which vectors are too close to them on the ground, and the true order of the others."""

    queries: np.ndarray
    close: np.ndarray
    order: np.ndarray


def _scores(rows: np.ndarray, queries: np.ndarray, close: np.ndarray) -> np.ndarray:
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.where(close, -2.0, unit[queries] @ unit.T)


def _nearest(true: np.ndarray, places: np.ndarray, seed: int) -> _Near:
    queries = np.random.default_rng(seed).choice(len(true), min(_QUERIES, len(true)), replace=False)
    gap = np.linalg.norm(places[queries, None] - places[None], axis=2)
    close = gap <= _NEAR * float(np.ptp(places, axis=0).max())
    return _Near(queries, close, np.argsort(-_scores(true, queries, close), axis=1)[:, :100])


def _recall(rows: np.ndarray, near: _Near, k: int) -> float:
    if len(rows) <= k:
        return float("nan")
    found = np.argpartition(-_scores(rows, near.queries, near.close), k, axis=1)[:, :k]
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(near.order[:, :k], found, strict=True)]))


def _change(test: xr.DataArray) -> np.ndarray | None:
    """Angles of change of vectors between the first and the last year, in degrees."""
    if test.sizes.get("time", 1) < 2:
        return None
    cosine = _cosine(_rows(test.isel(time=0)), _rows(test.isel(time=-1)))
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _noise(angles: np.ndarray, way: _Way, test: xr.DataArray) -> float:
    parts = [way.restored(test.isel(time=i)) for i in (0, -1)]
    assert parts[0] is not None
    assert parts[1] is not None
    own = np.degrees(np.arccos(np.clip(_cosine(parts[0], parts[1]), -1, 1)))
    return float(np.sqrt(np.mean((own - angles) ** 2)))


def _probed(way: _Way, labelled: Any, array: xr.DataArray, seed: int) -> dict[str, float]:
    """What a probe scores on left-out regions with the stored vectors."""
    if labelled is None:
        return {"probe": float("nan"), "worst_class": float("nan")}
    vectors = xr.DataArray(
        labelled.vectors,
        dims=("location", BAND),
        coords={BAND: list(decoded_bands(array))},
        attrs={key: value for key, value in array.attrs.items() if key in ("product", "version")},
    )
    return probed(way.rows(vectors), labelled, seed)
