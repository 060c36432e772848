"""Sketches: one bit for each of 64 signs of a vector, scanned in place of the vectors.

The signs of a vector less the mean agree in most places with those of its neighbours. Weighing where they differ
takes 8 bytes per vector; the best are then scored exactly. On real AlphaEarth pixels signs about the mean find more
than plain ones, or those of random directions, and 64 of these serve a space of any length.
"""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr._version import __version__
from geoemb_xr.core import arrays, kernels, npz
from geoemb_xr.core.codecs import pack_signs
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.core.fitted import decoded_bands
from geoemb_xr.core.local_paths import existing, with_ending
from geoemb_xr.core.model import (
    BAND,
    attribution_of,
    check_comparable,
    check_embedding,
    comparability_key,
    is_encoded,
)
from geoemb_xr.core.notes import one_call, say
from geoemb_xr.execution import blocks
from geoemb_xr.execution.computing import computed
from geoemb_xr.retrieval import hits
from geoemb_xr.retrieval.best import Best, Collector
from geoemb_xr.retrieval.scanning import Candidates, Scan, Scorer, after, directions_of, mean_vector

_FORMAT = "geoemb_xr-sketch-1"
BITS = 64
#: A search scores at least so many candidates exactly, and for 100 hits at most this share of all.
_LEAST, _MOST = 1000, 1 / 8
#: So many candidates are scored that this share of the true best is among them, if they are not too many.
_AIM = 0.99
#: Words looked at at a time: 8 MB, and what is made of them.
_PART = 1 << 20
#: The level of what has no data.
_NOWHERE = (1 << 16) - 1
#: Queries on which recall is measured, and hits of each.
_QUERIES, _HITS = 32, 100
#: Bits in which signs made again may differ on the mean: sums are rounded otherwise in other blocks.
_ROUNDED = 0.5


@dataclass(frozen=True, eq=False)
class Sketch:
    """64 sign bits for each vector of an array, made by :func:`build_sketch`.

    Parameters
    ----------
    product, version : str
        Product and version of the array.
    bands : tuple of str
        Bands of the vectors.
    dims : tuple of str
        Dimensions along which vectors are counted.
    shape : tuple of int
        The lengths of these dimensions.
    attribution : str
        Attribution that must travel with it.
    candidates : int
        Number of vectors that a search for 100 hits scores exactly.
    recall : float
        Share of the true 100 that are among those, measured when it was made.
    bits : ndarray of uint64 (n,)
        The signs.
    present : ndarray of uint8 (n / 8,)
        Mask of the vectors that have data, one bit per vector.
    mean : ndarray of float32 (band,)
        Mean direction, taken off before signs are.
    planes : ndarray of float32 (band, 64)
        Directions whose signs are taken; (0, 64) where these are the bands.
    """

    product: str
    version: str
    bands: tuple[str, ...]
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    attribution: str
    candidates: int
    recall: float
    bits: np.ndarray
    present: np.ndarray
    mean: np.ndarray
    planes: np.ndarray

    def __repr__(self) -> str:
        return (
            f"<Sketch of {self.bits.size:,} vectors of {self.product} {self.version}, "
            f"{self.bits.nbytes / 1e6:.1f} MB, recall {self.recall:.3f}>"
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to one npz file, whole or not at all; ``.npz`` is added where the name has no ending."""
        header = {"format": _FORMAT, "geoemb_xr": __version__}
        header |= {name: getattr(self, name) for name in _FACTS}
        kept = {name: getattr(self, name) for name in _ARRAYS}
        return npz.write(with_ending(path, ".npz"), json.dumps(header), kept)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sketch:
        """Read the file that :meth:`save` wrote.

        Raises
        ------
        SourceError
            If it is not a sketch, or its parts do not fit each other.
        """
        try:
            with npz.opened(existing(path, "file of a sketch", ".npz")) as (text, shapes, read):
                header = json.loads(text)
                if header.get("format") != _FORMAT:
                    raise ValueError("it has another format")
                facts: dict[str, Any] = {name: _fact(header[name]) for name in _FACTS}
                n, band = int(np.prod(facts["shape"], dtype=np.int64)), len(facts["bands"])
                planes = 0 if band == BITS else band
                expected = {"bits": (n,), "present": (-(-n // 8),), "mean": (band,), "planes": (planes, BITS)}
                if shapes != expected:
                    raise ValueError(f"its arrays have shapes {shapes}, not {expected}")
                facts |= {name: read(name) for name in _ARRAYS}
                return cls(**facts)
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise SourceError(
                f"{path} is not a sketch that this version of geoemb_xr reads: {error}"
            ) from error

    def nearest(self, aim: np.ndarray, n: int) -> np.ndarray:
        """Positions of the n vectors, about, whose signs agree best with a direction ``(band,)``, in order."""
        levels, at_most = self.levels(aim)
        limit = int(np.searchsorted(at_most, min(n, at_most[-1])))
        near = levels < limit
        left = n - int(at_most[limit - 1]) if limit else n
        near[np.flatnonzero(levels == limit)[:left]] = True
        return np.flatnonzero(near)

    def levels(self, aim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far the signs of each vector are from a direction, and how many are at level 0, 1, … at most.

        A sign that differs counts by how far the direction is from zero there: what is near zero is of either sign
        by chance. Half as many candidates hold the true best as where all signs count alike.
        """
        levels, counts = np.empty(self.bits.size, np.uint16), np.zeros(_NOWHERE + 1, np.int64)
        tables = _tables(aim @ self.planes if len(self.planes) else aim)
        _levels(self.bits, self.present, tables, levels, counts)
        return levels, np.cumsum(counts[:_NOWHERE])


def _tables(aim: np.ndarray) -> np.ndarray:
    """Return what each byte of eight signs adds to the level of a vector ``(8, 256)``."""
    weights = np.abs(aim, dtype=np.float64).reshape(8, 8)
    if weights.any():
        weights *= (_NOWHERE - BITS) / weights.sum()
    own = (aim > 0).reshape(8, 1, 8)
    signs = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little") > 0
    return np.asarray(((signs != own) * np.rint(weights)[:, None]).sum(axis=2), np.uint16)


@kernels.jit
def _levels(bits: Any, present: Any, tables: Any, out: Any, counts: Any) -> None:
    for i in range(bits.size):
        word, total = bits[i], 0
        for part in range(8):
            total += tables[part, (word >> np.uint64(8 * part)) & np.uint64(255)]
        if not (present[i >> 3] >> (i & 7)) & 1:
            total = _NOWHERE
        out[i] = total
        counts[total] += 1


@_levels.in_numpy
def _levels_numpy(bits: Any, present: Any, tables: Any, out: Any, counts: Any) -> None:
    there = np.unpackbits(present, count=bits.size, bitorder="little").view(np.bool_)
    for start in range(0, bits.size, _PART):
        part = slice(start, start + _PART)
        own = tables[0][bits[part] & np.uint64(255)]
        for i in range(1, 8):
            own += tables[i][(bits[part] >> np.uint64(8 * i)) & np.uint64(255)]
        own[~there[part]] = _NOWHERE
        counts += np.bincount(own, minlength=counts.size)
        out[part] = own


_FACTS = ("product", "version", "bands", "dims", "shape", "attribution", "candidates", "recall")
_ARRAYS = ("bits", "present", "mean", "planes")


def _fact(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def opened(sketch: Sketch | str | os.PathLike[str]) -> Sketch:
    """The sketch itself, or the one in a file."""
    return sketch if isinstance(sketch, Sketch) else Sketch.load(sketch)


# --- making one ---------------------------------------------------------------------------------------------------


@one_call()
def build_sketch(array: xr.DataArray, path: str | os.PathLike[str] | None = None, *, seed: int = 0) -> Sketch:
    """Make a sketch of an array, with which :func:`search` looks at 8 bytes per vector first. Computes.

    Three passes: one for the mean, one for the signs, one to measure what share of the true best it finds.

    Parameters
    ----------
    array : DataArray (…, band, …)
        Codes or vectors, raster or points; best the whole store, so that it is made once.
    path : path, optional
        Path of its file, beside the store; ``.npz`` is added where the name has no ending. Else it is only
        returned.
    seed : int
        Seed of the vectors that recall is measured with, and of the directions.

    Returns
    -------
    Sketch
        8 bytes per vector, and a bit for whether there is one.

    Raises
    ------
    EmbeddingError
        If the array is empty of data.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    >>> sketch = da.emb.build_sketch()
    >>> len(da.emb.search((11.37, 47.25), 5, sketch=sketch))
    5
    """
    check_embedding(array, "build_sketch")
    array = hits.in_order(array)
    bands = decoded_bands(array)
    mean = mean_vector([array], "build_sketch", directions=True)
    planes = np.empty((0, BITS), np.float32)
    if len(bands) != BITS:
        planes = np.random.default_rng(seed).standard_normal((len(bands), BITS)).astype(np.float32)
    dims = hits.dims_of(array)
    shape = tuple(array.sizes[d] for d in dims)
    parts = blocks.merged(
        blocks.per_block(_signs_of_block, array, mean, planes, keyed=False),
        _as_one_list,
        label="build_sketch: signs",
    )
    bits, there = np.zeros(shape, np.uint64), np.zeros(shape, np.bool_)
    for start, own, present in parts:
        where = tuple(slice(a, a + n) for a, n in zip(start, own.shape, strict=True))
        bits[where], there[where] = own, present
    name, version = comparability_key(array)
    packed = np.packbits(there.reshape(-1), bitorder="little")
    facts = (name, version, bands, tuple(map(str, dims)), shape, attribution_of(array))
    sketch = Sketch(*facts, 0, 0.0, bits.reshape(-1), packed, mean, planes)
    candidates, recall = _measured(array, sketch, np.flatnonzero(there), seed)
    sketch = replace(sketch, candidates=candidates, recall=recall)
    scored = min(candidates, sketch.bits.size)
    say(
        f"build_sketch: {sketch.bits.nbytes / 1e6:.1f} MB for {sketch.bits.size:,} vectors; a search for {_HITS} "
        f"scores {scored:,} of them and finds {recall:.3f} of the true ones (measured on {_QUERIES} vectors)"
    )
    if path is not None:
        sketch.save(path)
    return sketch


def _signs(vectors: np.ndarray, mean: np.ndarray, planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bits of vectors ``(band, n)``, and which have data."""
    rows, there = directions_of(vectors)
    rows = rows - mean
    return pack_signs(rows @ planes if len(planes) else rows)[:, 0], there


_Signs = tuple[tuple[int, ...], np.ndarray, np.ndarray]


def _signs_of_block(block: blocks.Block, mean: np.ndarray, planes: np.ndarray) -> list[_Signs]:
    bits, there = np.empty(block.pixels, np.uint64), np.empty(block.pixels, np.bool_)
    for where, vectors in block.pieces():
        bits[where], there[where] = _signs(vectors, mean, planes)
    sides = tuple(np.delete(block.data.shape, block.axis))
    return [(block.start, bits.reshape(sides), there.reshape(sides))]


def _as_one_list(parts: list[list[_Signs]]) -> list[_Signs]:
    return [one for part in parts for one in part]


def _measured(array: xr.DataArray, sketch: Sketch, there: np.ndarray, seed: int) -> tuple[int, float]:
    """Measure on some of the array's own vectors how many candidates are needed, and the recall with them."""
    some = np.sort(np.random.default_rng(seed).choice(there, min(_QUERIES, there.size), replace=False))
    rows, _ = directions_of(
        np.concatenate([vectors for _, vectors in _vectors_at(array, some).pieces()], axis=1)
    )
    true, _ = Scan([array], Scorer(np.ascontiguousarray(rows), rows[:0], "each", "cosine")).best(_HITS)
    ranks = np.empty(true.positions.size, np.int64)
    for i, row in enumerate(rows):
        levels, at_most = sketch.levels(row - sketch.mean)
        own = true.query == i
        ranks[own] = at_most[levels[true.positions[own]]]
    wanted = int(np.quantile(ranks, _AIM, method="higher"))
    candidates = min(max(wanted, _LEAST), max(int(there.size * _MOST), _LEAST))
    return candidates, float((ranks <= candidates).mean())


# --- looking with one ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shortlist(Candidates):
    """Candidates that a sketch finds near, scored exactly.

    Parameters
    ----------
    array : DataArray
        The array that the sketch was made of.
    sketch : Sketch
        Checked to be of the array.
    scorer : Scorer
        The queries.
    """

    array: xr.DataArray
    sketch: Sketch
    scorer: Scorer

    def __post_init__(self) -> None:
        sketch, array = self.sketch, self.array
        check_comparable("search", (sketch.product, sketch.version), comparability_key(array))
        dims = tuple(map(str, hits.dims_of(array)))
        own = dict(zip(dims, (array.sizes[d] for d in dims), strict=True)), len(decoded_bands(array))
        made = dict(zip(sketch.dims, sketch.shape, strict=True)), len(sketch.bands)
        if own != made or decoded_bands(array) != sketch.bands:
            raise EmbeddingError(
                f"the sketch was made of {made[1]} bands of {made[0]}, the array has {own[1]} of {own[0]}: open "
                "what it was made of, or make one with build_sketch"
            )
        if self.scorer.metric != "cosine":
            raise ValueError("a sketch holds directions: use metric='cosine', or search without it")

    def best(self, room: int, before: Best | None = None, turn: int = 0) -> tuple[Best, bool]:
        """See :meth:`Candidates.best`; each turn looks at eight times as many candidates."""
        n = max(self.sketch.candidates * room // _HITS, _LEAST) * 8**turn
        n = min(n, self.sketch.bits.size)
        near = np.zeros(self.sketch.bits.size, np.bool_)
        for aim in self._aims():
            near[self.sketch.nearest(aim, n)] = True
        rows = np.flatnonzero(near)
        block = _vectors_at(self.array, rows)
        self._check(rows, block)
        collector = Collector(self.scorer.count, room)
        last = None if before is None else before.last(self.scorer.count)
        for start, scores in self.scorer(block):
            collector.offer(start, after(last, scores, rows[start : start + scores.shape[1]]))
        best = collector.best()
        return Best(best.query, best.scores, rows[best.positions]), n < self.sketch.bits.size

    def _aims(self) -> np.ndarray:
        """Directions to look in: vectors less the mean; a query that is a direction stays as it is."""
        aims = self.scorer.positives
        if self.scorer.shift is not None or self.scorer.contrast:
            return aims
        return np.asarray(aims / np.linalg.norm(aims, axis=1, keepdims=True) - self.sketch.mean)

    def _check(self, rows: np.ndarray, block: blocks.Block) -> None:
        """Raise if the vectors are not those that the sketch was made of."""
        mean, planes, bits = self.sketch.mean, self.sketch.planes, self.sketch.bits
        off = [
            np.bitwise_count(_signs(vectors, mean, planes)[0] ^ bits[rows[where]])
            for where, vectors in block.pieces()
        ]
        if rows.size and np.concatenate(off).mean() > _ROUNDED:
            raise SourceError(
                "the array holds other vectors than the sketch was made of, as after a new version of the store; "
                "make it again with build_sketch"
            )


def _vectors_at(array: xr.DataArray, positions: np.ndarray) -> blocks.Block:
    """Vectors at some positions, as they are stored."""
    dims = hits.dims_of(array)
    places = np.unravel_index(positions, tuple(array.sizes[d] for d in dims))
    where = {d: xr.DataArray(each, dims="pixel") for d, each in zip(dims, places, strict=True)}
    picked = computed(array.isel(where).transpose("pixel", BAND))
    codec = arrays.codec_of(array) if is_encoded(array) else None
    scale = None if codec is None else arrays.scale_of(picked, codec)
    return blocks.Block(picked.values, 1, None if scale is None else scale.values, codec)
