"""Distillation: vectors of a teacher's space, predicted from what a student can see.

One pass over the blocks brings all that is needed: sums for ridge, which add up on any worker in any order, and a
sample of pixels chosen by their hash, on which students are scored, each pixel by one that was fitted without its
region.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.compression.probing import probed
from geoemb_xr.core.arrays import decode
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.fitted import Fitted, Output, decoded_bands
from geoemb_xr.core.model import BAND, Product, attribution_of, check_embedding, comparability_key, product
from geoemb_xr.core.notes import one_call
from geoemb_xr.core.onnx_graph import Value
from geoemb_xr.execution import blocks
from geoemb_xr.execution.threads import one_thread
from geoemb_xr.probes.heads import HEADS, Data, PerLabel, RidgeSums, penalty
from geoemb_xr.probes.labelling import Drawn
from geoemb_xr.probes.samples import samples_of

Method = Literal["ridge", "mlp"]
#: Regions along each side of the area, dealt to folds as on a shifted chessboard.
_SIDE, _FOLDS = 10, 5
#: Penalty of ridge as a share of the pixels: they are many, and a space is learnt, not a few classes.
_PENALTY = PerLabel(1e-3)
_MLP = {"max_iter": 60, "n_iter_no_change": 8, "alpha": 1e-3, "batch_size": 1024}


@dataclass(frozen=True, eq=False)
class Student(Fitted):
    """A model from vectors of one space to another's; made by :func:`fit_student`.

    Parameters
    ----------
    product, version, bands
        Those of its inputs, as in :class:`~geoemb_xr.core.fitted.Fitted`.
    attribution : str
        Attribution of what it takes and of the teacher.
    teacher, teacher_version, teacher_bands
        Product, version and bands of the vectors that it learnt to make.
    method : {"ridge", "mlp"}
        Kind of student.
    neighbourhood : int
        Number of pixels around each pixel that it looks at.
    parameters : mapping of str to ndarray
        Parameters of the method.
    n : int
        Pixels that it was fitted on.
    card : mapping of str to mapping
        By left-out region, and of ``all``: ``n`` pixels, ``error`` (root mean square distance to the teacher's
        vector), ``explained`` (share of the squared distance to the teacher's mean), ``cosine`` (mean, to the
        teacher's vector). ``probe``, where labels were given: what probes score in left-out regions with the
        vectors of the ``student``, of the ``teacher`` and of the ``inputs``.
    """

    teacher: str
    teacher_version: str
    teacher_bands: tuple[str, ...]
    method: Method
    neighbourhood: int
    parameters: Mapping[str, np.ndarray]
    n: int
    card: Mapping[str, Mapping[str, float]]

    default_output: ClassVar[str] = "vectors"

    def __post_init__(self) -> None:
        last = "bias" if self.method == "ridge" else f"bias{len(self.parameters) // 2 - 1}"
        if len(self.parameters.get(last, ())) != len(self.teacher_bands):
            raise EmbeddingError(
                f"this Student has {len(self.teacher_bands)} bands to give, and its {last!r} another length"
            )

    @classmethod
    def shapes(cls, names: Iterable[str]) -> Mapping[str, tuple[str | int, ...]]:
        """Dimensions of its arrays."""
        found: dict[str, tuple[str | int, ...]] = {}
        layers = {name for name in names if re.fullmatch(r"parameters/weights\d*", name)}
        for i, name in enumerate(sorted(layers)):
            out = f"layer {i}" if i + 1 < len(layers) else "vector"
            found[name] = (out, f"layer {i - 1}" if i else "feature")
            found[name.replace("weights", "bias")] = (out,)
        return found

    @property
    def key(self) -> tuple[str, str]:
        """Product and version of what it gives: the version says that it is distilled, and by what."""
        made = hashlib.sha256(f"{self.method} {self.neighbourhood}".encode())
        for name in sorted(self.parameters):
            made.update(np.ascontiguousarray(self.parameters[name], "<f4").tobytes())
        origin = " ".join(filter(None, (self.product, self.version)))
        version = f"{self.teacher_version}+distilled by {self.method} from {origin} {made.hexdigest()[:8]}"
        return self.teacher, version.lstrip("+")

    @property
    def table(self) -> pd.DataFrame:
        """The card by regions, the last row of all."""
        rows = {name: row for name, row in self.card.items() if name != "probe"}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("region")

    def prepared(self, array: xr.DataArray) -> xr.DataArray:
        """What it looks at: the vectors, or those of each pixel's neighbourhood."""
        return neighbours(array, self.neighbourhood)

    def outputs(self) -> Mapping[str, Output]:
        """One output: ``vectors``, an embedding of its own."""
        return {"vectors": Output("float32", BAND, self.teacher_bands, space=self.key)}

    def apply(self, vectors: np.ndarray, output: str = "vectors") -> np.ndarray:
        """Vectors ``(n, band)`` of the teacher's space, of what it takes, ``(n, feature)``."""
        found = HEADS[self.method].scores(self.parameters, np.asarray(vectors, np.float32).T).T
        return _unit(found) if product(self.teacher).unit_norm else found

    def as_onnx(self, vectors: Value) -> Mapping[str, Value]:
        """``distilled``: the vectors."""
        formula = HEADS[self.method].scores_onnx
        if self.neighbourhood or formula is None:
            raise EmbeddingError(
                "a Student that looks at neighbours takes windows of pixels, and a graph takes rows: fit one with "
                "neighbourhood=0"
            )
        found = formula(self.parameters, vectors)
        return {"distilled": found.unit() if product(self.teacher).unit_norm else found}

    def __repr__(self) -> str:
        seen = (
            f", {2 * self.neighbourhood + 1} × {2 * self.neighbourhood + 1} pixels"
            if self.neighbourhood
            else ""
        )
        scored = self.card.get("all")
        share = f"; explains {scored['explained']:.1%} in left-out regions" if scored else ""
        return (
            f"<Student of {self.teacher}: {self.method} from {self.product}{seen}, {self.n:,} pixels{share}>"
        )

    def _repr_html_(self) -> str:
        probe = self.card.get("probe", {})
        scores = ", ".join(f"{name} {value:.3f}" for name, value in probe.items())
        return self.table.round(4).to_html() + (
            f"<p>probes in left-out regions: {scores}</p>" if scores else ""
        )


@one_call()
def fit_student(
    inputs: xr.DataArray,
    targets: xr.DataArray,
    *,
    method: Method = "ridge",
    neighbourhood: int = 0,
    labels: Any = None,
    target: str | None = None,
    n_samples: int = 20_000,
    seed: int = 0,
    **options: Any,
) -> Student:
    """Learn to make vectors of one space from another's. Computes: reads both arrays once.

    Parameters
    ----------
    inputs : DataArray (…, band, …)
        Inputs of the student: an embedding, also one of :func:`geoemb_xr.embed`, or reflectances that
        ``gx.wrap(bands, gx.Product("reflectance", dims=…))`` made one.
    targets : DataArray (…, band, …)
        The teacher's vectors on the same grid (see :func:`geoemb_xr.align`) or at the same locations.
    method : {"ridge", "mlp"}
        A linear map, fitted on every pixel; or a network (needs the extra ``torch`` to be fitted, not to be
        applied), fitted on the sample.
    neighbourhood : int
        Number of pixels around each pixel that the student looks at, too: 1 is 3 × 3. One that is missing counts as
        the pixel itself.
    labels, target
        See :func:`geoemb_xr.fit_probe`: what probes score with the student's vectors stands on the card.
    n_samples : int
        Number of pixels that the card is made of, and that a network learns from.
    seed : int
        Seed of the choice of pixels.
    **options
        Options of the method, as in :func:`geoemb_xr.fit_probe`: ``alpha`` (0.001 for each pixel by default), or
        those of ``mlp``.

    Returns
    -------
    Student
        A model for ``inputs.emb.predict(student)``. The version of the result says what made it.

    Raises
    ------
    EmbeddingError
        If the arrays lie on different grids, or fewer than 50 pixels have data in both.
    ValueError
        For an unknown method.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> tessera = gx.testing.synthetic("tessera", shape=(48, 48)).emb.year(2018)
    >>> alphaearth = gx.testing.synthetic("alphaearth", shape=(48, 48)).emb.year(2018)
    >>> student = gx.fit_student(tessera, alphaearth)
    >>> made = tessera.emb.predict(student)
    >>> made.attrs["product"], "distilled by ridge from tessera" in made.attrs["version"]
    ('alphaearth', True)
    """
    check_choice("method", method, ("ridge", "mlp"))
    for each in (inputs, targets):
        check_embedding(each, "fit_student")
    if neighbourhood < 0 or (neighbourhood and not {"y", "x"} <= set(inputs.dims)):
        raise EmbeddingError(
            f"neighbourhood is a number of pixels around each, of a raster; got {neighbourhood!r} of {inputs.dims}"
        )
    own = {"alpha": _PENALTY} if method == "ridge" else {**HEADS["mlp"].options, **_MLP}
    unknown = sorted(set(options) - set(own))
    if unknown:
        raise EmbeddingError(f"method={method!r} has no option {unknown}; it has {list(own)}")
    features = neighbours(inputs, neighbourhood)
    both, width = _joined_bands(features, targets), features.sizes[BAND]
    sums, drawn = _streamed(both, width, n_samples, seed)
    if len(drawn.x) < 50:
        raise EmbeddingError(
            f"fit_student needs 50 pixels with data in both arrays; got {len(drawn.x)} of "
            f"{both.size // both.sizes[BAND]}"
        )
    learner = _Learner(
        method, {**own, **options}, sums, drawn, product(targets.attrs["product"]).unit_norm, seed
    )
    with one_thread():
        met = np.unique(drawn.fold) if len(sums) > 1 else ()  # one region alone tells nothing of others
        folds = {int(fold): learner.fit(without=int(fold)) for fold in met}
        card = _card(learner, folds) if folds else {}
        if labels is not None and folds:
            labelled = samples_of(both, labels, target, None, None, None)[0]
            card["probe"] = _probes(learner, folds, labelled, width, seed)
        parameters = learner.fit()
    (name, version), (teacher, teacher_version) = comparability_key(inputs), comparability_key(targets)
    texts = dict.fromkeys([attribution_of(inputs), attribution_of(targets)])
    return Student(
        product=name,
        version=version,
        bands=decoded_bands(inputs),
        attribution="; ".join(filter(None, texts)),
        teacher=teacher,
        teacher_version=teacher_version,
        teacher_bands=decoded_bands(targets),
        method=method,
        neighbourhood=int(neighbourhood),
        parameters=parameters,
        n=sum(each.count for each in sums.values()) if method == "ridge" else len(drawn.x),
        card=card,
    )


# --- what a student sees ------------------------------------------------------------------------------------------


def neighbours(array: xr.DataArray, reach: int) -> xr.DataArray:
    """Add the vectors of neighbouring pixels as further bands. Lazy.

    Parameters
    ----------
    array : DataArray (…, band, y, x)
        Codes or vectors.
    reach : int
        Number of pixels to each side; 0 leaves the array as it is. Neighbours without data count as the pixel
        itself.
    """
    if not reach:
        return array
    vectors = decode(array)
    steps = list(itertools.product(range(-reach, reach + 1), repeat=2))
    labels = [f"{band}({dy},{dx})" for dy, dx in steps for band in vectors.coords[BAND].values.astype(str)]
    parts = [vectors.shift(y=-dy, x=-dx).fillna(vectors) for dy, dx in steps]
    window = xr.concat(parts, BAND, coords="minimal", compat="override", join="override")
    window = window.assign_coords({BAND: labels})
    if vectors.chunks is not None:
        window = window.chunk(
            {**{d: vectors.variable.chunksizes[d] for d in vectors.dims if d != BAND}, BAND: -1}
        )
    base = product(array.attrs["product"])
    side = 2 * reach + 1
    made = product(
        Product(
            f"{base.name}-{side}x{side}",
            dims=len(labels),
            title=f"{base.title or base.name}, {side} × {side} pixels",
            bands=tuple(labels),
            kind=base.kind,
            licence=base.licence,
            attribution=base.attribution,
        )
    )
    return window.assign_attrs({**vectors.attrs, "product": made.name})


def _joined_bands(inputs: xr.DataArray, targets: xr.DataArray) -> xr.DataArray:
    """Both arrays' vectors, float32, and the fold of each pixel's region, as bands of one array."""
    first, second = decode(inputs), decode(targets)
    if set(first.dims) != set(second.dims):
        raise EmbeddingError(
            f"fit_student takes two arrays of the same dimensions; got {inputs.dims} and {targets.dims}"
        )
    for dim in first.dims:
        if dim != BAND and not first[dim].equals(second[dim]):
            raise EmbeddingError(
                f"fit_student takes two arrays with the same {dim!r}: bring them together with gx.align(…)"
            )
    folds = _folds(first).astype(np.float32)
    parts = [
        each.assign_coords({BAND: [f"{i}:{name}" for name in each.coords[BAND].values]}).drop_attrs(
            deep=False
        )
        for i, each in enumerate((first, second.transpose(*first.dims)))
    ]
    parts.append(folds.broadcast_like(parts[0].isel({BAND: 0}, drop=True)).expand_dims({BAND: ["fold"]}))
    both = xr.concat(
        [each.transpose(*first.dims) for each in parts],
        BAND,
        coords="minimal",
        compat="override",
        join="override",
    )
    if first.chunks is not None or second.chunks is not None:
        chunks = first.variable.chunksizes if first.chunks is not None else second.variable.chunksizes
        both = both.chunk({**{d: chunks[d] for d in first.dims if d != BAND}, BAND: -1})
    names = tuple(both.coords[BAND].values.astype(str).tolist())
    made = product(
        Product(f"{inputs.attrs['product']}-beside-{targets.attrs['product']}", dims=len(names), bands=names)
    )
    return both.assign_attrs(product=made.name)


def _folds(array: xr.DataArray) -> xr.DataArray:
    """The fold of the region that a pixel lies in: neighbouring regions are of different folds."""
    across, down = (_part(array.coords[dim]) for dim in ("x", "y"))
    return (across + 2 * down) % _FOLDS


def _part(places: xr.DataArray) -> xr.DataArray:
    low, high = float(places.min()), float(places.max())
    share = (places - low) / ((high - low) or 1.0)
    return (share * _SIDE).astype(np.int64).clip(max=_SIDE - 1).reset_coords(drop=True)


# --- one pass -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _StudentSample:
    """A sample of pixels: the student's inputs, the teacher's vectors, and the folds of their regions."""

    x: np.ndarray
    y: np.ndarray
    fold: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, width: int) -> _StudentSample:
        return cls(rows[:, :width], rows[:, width:-1], rows[:, -1].astype(np.int64))


def _streamed(
    both: xr.DataArray, width: int, n_samples: int, seed: int
) -> tuple[dict[int, RidgeSums], _StudentSample]:
    parts = blocks.per_block(_on_block, both, width, n_samples, seed)
    sums, drawn = blocks.merged(parts, _MergeSamples(n_samples), label="fit_student")
    return sums, _StudentSample.of(drawn.beside[0], width)


_Part = tuple[dict[int, RidgeSums], Drawn]


def _on_block(block: blocks.Block, width: int, n_samples: int, seed: int) -> _Part:
    sums: dict[int, RidgeSums] = {}
    known = np.zeros(block.pixels, bool)
    for where, rows in block.pieces():
        known[where] = np.isfinite(rows).all(axis=0)
        some = _StudentSample.of(rows[:, known[where]].T, width)
        for fold in np.unique(some.fold).tolist():
            own = some.fold == fold
            part = RidgeSums.of(some.x[own], some.y[own].astype(np.float64), np.ones(int(own.sum())))
            sums[fold] = sums[fold] + part if fold in sums else part
    hashes, at = block.hashes(seed), np.flatnonzero(known)
    at = at[np.argsort(hashes[at], kind="stable")[:n_samples]]
    rows = block.at(at)
    return sums, Drawn(np.zeros(len(at), np.int8), hashes[at], (rows,))


@dataclass(frozen=True)
class _MergeSamples:
    """Several parts as one."""

    n_samples: int

    def __call__(self, parts: Sequence[_Part]) -> _Part:
        sums: dict[int, RidgeSums] = {}
        for part, _ in parts:
            for fold, each in part.items():
                sums[fold] = sums[fold] + each if fold in sums else each
        return dict(sorted(sums.items())), Drawn.merge([each for _, each in parts], self.n_samples)


# --- fitting and scoring ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Learner:
    """What fits a student on all folds but one."""

    method: Method
    options: Mapping[str, Any]
    sums: Mapping[int, RidgeSums]
    drawn: _StudentSample
    unit: bool
    seed: int

    def fit(self, without: int | None = None) -> dict[str, np.ndarray]:
        if self.method == "ridge":
            kept = [each for fold, each in self.sums.items() if fold != without]
            total = sum(kept[1:], kept[0])
            return total.solve(penalty(self.options["alpha"], total.count, 0))
        own = self.drawn.fold != without
        data = Data(
            self.drawn.x[own], self.drawn.y[own], np.ones(int(own.sum())), self.drawn.fold[own], 0, self.seed
        )
        # pixels, not folds, tell when to stop: of four folds a share of 0.15 is none
        return HEADS["mlp"].fit(data._replace(groups=np.arange(len(data.x))), **self.options)

    def vectors(self, parameters: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        found = HEADS[self.method].scores(parameters, x.T).T
        return _unit(found) if self.unit else found

    def unseen(self, folds: Mapping[int, Mapping[str, np.ndarray]], some: _StudentSample) -> np.ndarray:
        """Predictions of students that were not fitted on the region."""
        out = np.empty(some.y.shape, np.float32)
        for fold in np.unique(some.fold).tolist():
            own = some.fold == fold
            out[own] = self.vectors(folds[fold] if fold in folds else self.fit(), some.x[own])
        return out


def _card(learner: _Learner, folds: Mapping[int, Mapping[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    some = learner.drawn
    found = learner.unseen(folds, some)
    gap = ((found - some.y) ** 2).sum(axis=1)
    plain = np.empty(len(gap))
    for fold in folds:
        own = some.fold == fold
        plain[own] = ((some.y[own] - some.y[~own].mean(axis=0)) ** 2).sum(axis=1)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(some.y, axis=1)
    cosine = np.einsum("ij,ij->i", found, some.y) / np.maximum(lengths, 1e-12)
    rows = {f"region {fold + 1}": some.fold == fold for fold in folds} | {"all": np.ones(len(gap), bool)}
    return {
        name: {
            "n": int(own.sum()),
            "error": float(np.sqrt(gap[own].mean())),
            "explained": float(1 - gap[own].sum() / max(plain[own].sum(), 1e-30)),
            "cosine": float(cosine[own].mean()),
        }
        for name, own in rows.items()
    }


def _probes(
    learner: _Learner, folds: Mapping[int, Mapping[str, np.ndarray]], labelled: Any, width: int, seed: int
) -> dict[str, float]:
    some = _StudentSample.of(labelled.vectors, width)
    each = {"student": learner.unseen(folds, some), "teacher": some.y, "inputs": some.x}
    return {name: probed(vectors, labelled, seed)["probe"] for name, vectors in each.items()}


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), np.float32)
