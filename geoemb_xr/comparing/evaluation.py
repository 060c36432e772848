"""Products side by side on one task: the same labels, folds and probes, and the controls that a number needs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.comparing import scoring
from geoemb_xr.comparing.contrasts import correctness, difference, holm
from geoemb_xr.comparing.controls import controls_of
from geoemb_xr.comparing.findings import Evaluation
from geoemb_xr.comparing.folds import ANSWERS, SPLITS, WEIGHTED, Split, SplitGround, SplitName, domain_places
from geoemb_xr.comparing.grouping import by_groups, where_labels_are
from geoemb_xr.comparing.residuals import Range, autocorrelation_range
from geoemb_xr.comparing.seen import is_seen
from geoemb_xr.comparing.support import Support, names_of, support_of
from geoemb_xr.core.checks import is_count
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.legend import Legend
from geoemb_xr.core.notes import one_call, say
from geoemb_xr.execution import progress
from geoemb_xr.execution.threads import one_thread
from geoemb_xr.probes import estimators, validation
from geoemb_xr.probes.heads import HEADS, Data, Head
from geoemb_xr.probes.scores import softmax

#: Labels in a cell are of one class for this share of them in a pure cell.
_PURE = 0.9


@one_call()
def evaluate(
    arrays: Mapping[str, xr.DataArray],
    labels: Any,
    *,
    target: str | None = None,
    time: Any = None,
    group: Any = None,
    by: str | None = None,
    design: Any = None,
    domain: Any = None,
    splits: Sequence[SplitName] = ("blocks", "random"),
    methods: Sequence[Any] = ("logistic", "knn"),
    n_labels: Sequence[int | None] | int | None = (1, 10, 100, None),
    previous: str | None = None,
    features: Mapping[str, Any] | None = None,
    contrasts: Sequence[tuple[str, str]] | None = None,
    cv: int = 5,
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Compare products on one task, with the same labels, folds and probes for each. Computes.

    A label counts if all products have data there. Pixels of a polygon are averaged first, so that a product of
    fine pixels has no more votes than a coarse one. Whole regions are left out in ``"blocks"``, with a buffer as
    wide as the largest footprint among the products and the largest label together; ``"random"`` is shown beside
    it and is optimistic for transfer.

    Parameters
    ----------
    arrays : mapping of str to DataArray
        Embeddings by name: products, versions, or what :func:`geoemb_xr.fuse` stacked.
    labels : table, GeoDataFrame, path or DataArray
        See :func:`geoemb_xr.fit_probe`: points, polygons or a label raster. Strings, booleans and integers are
        classes, floats are values.
    target : str, optional
        Column of the labels; may be left out where there is only one, or one called ``label``.
    time : int, str or column, optional
        See :func:`geoemb_xr.fit_probe`.
    group : str or array, optional
        Groups that each split keeps together; by default the labels at one place.
    by : str, optional
        Column, such as a country, by which scores are told apart as well.
    design : str or array, optional
        If the labels are a probability sample: the area that each stands for, as a column or an array, or
        ``"stratified"`` for the columns that :func:`geoemb_xr.sample_design` writes. The split ``"random"`` is then
        weighted and estimates the accuracy of a map of that area.
    domain : bbox, polygons, GeoBox or array, optional
        The area to be mapped. Adds the split ``"knndm"``.
    splits : sequence of str
        Ways to hold out labels. ``"blocks"``: square blocks as wide as the errors of a probe are alike (or twenty
        regions where that cannot be told). ``"regions"``: one value of ``by`` at a time. ``"groups"``: one value of
        ``group`` at a time. ``"years"``: one year at a time. ``"places_years"``: a block in one year, trained on
        other blocks in other years. ``"knndm"``: folds as far from training labels as the pixels of ``domain`` are
        from labels (Linnenbrink et al. 2024). ``"random"``: groups at random.
    methods : sequence of str or estimator
        Probes, as in :func:`geoemb_xr.fit_probe`, with their default options. Methods that cannot do the task are
        left out. Estimators of scikit-learn go by the name of their class.
    n_labels : sequence of int or None, or one
        Number of training labels per class (in all for values); None is all of them. Few labels are drawn anew up
        to 30 times; smaller draws are parts of larger ones, and the test labels stay as they are.
    previous : str, optional
        Column of earlier labels of the same places: the control "persistence".
    features : mapping, optional
        More controls by name: columns of the labels, such as raw bands, or a raster, such as a seasonal composite.
    contrasts : sequence of (str, str), optional
        Pairs of products to be compared; all pairs by default. P-values are corrected for their number.
    cv : int
        Number of folds.
    level : float
        Coverage of intervals and of conformal sets.
    seed : int
        Seed of folds and draws.

    Returns
    -------
    Evaluation
        Tables, pictures (``plot``) and a page (``to_html``).

    Raises
    ------
    EmbeddingError
        If no label is covered by all products, an option is unknown, or there are too few places to split.

    Notes
    -----
    Held-out predictions of all folds are pooled and then scored. Differences are paired over spatial blocks:
    Student's interval below 30 blocks, none below six, a bootstrap over blocks above; p-values are corrected by
    Holm (1979). Probabilities are calibrated inside each training part.

    Products of unlike footprint get a second row, ``support="common"``, in which the finer ones are averaged over
    the pixel or patch of the coarsest; products of unlike length get one of ``"equal dims"``. All vectors of one
    such pixel are one group, so that no split parts them.

    Controls are scored like products: coordinates alone (the nearest label; a smooth surface), a constant, labels
    permuted among groups, which must score chance (the mean of five permutations, learnt by the first method from
    the first product, and their deviation), the earlier label and given features where there are any, and a
    probe on what a location encoder (GeoCLIP, with the extra ``locations``) makes of the coordinates.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> scene = gx.testing.scene()
    >>> arrays = {name: gx.testing.synthetic(name, shape=(80, 80)) for name in ("alphaearth", "tessera")}
    >>> labels = gx.labels(scene.truth(gx.testing.geobox((80, 80)), 2018), per_class=20)
    >>> found = gx.evaluate(arrays, labels, methods=["knn"], n_labels=[None])
    >>> sorted(found.table().columns)
    ['blocks', 'random']
    """
    names_of(arrays)
    wanted = _wanted(splits, group, by, domain, design)
    heads, counts = _heads(methods), _counts(n_labels)
    if isinstance(cv, bool) or cv < 2:
        raise EmbeddingError(f"cv is a number of folds, 2 or more; got {cv!r}")
    if not 0 < level < 1:
        raise EmbeddingError(f"level is the coverage of intervals, between 0 and 1; got {level!r}")
    pairs = _declared(contrasts, arrays)
    support = support_of(
        arrays, labels, target=target, time=time, group=group, by=by, previous=previous, design=design,
        features=features,
    )  # fmt: skip
    able = _able(heads if support.legend is None else _heads(methods, support.legend), support.classes)
    data = {name: support.data(x, seed) for name, x in support.vectors.items()}
    first = next(iter(data.values()))
    with one_thread(), progress.shown("evaluate"):
        blocked = by is not None or {"blocks", "places_years"} & set(wanted)
        reach = _reach(data, next(iter(able.values())), cv) if blocked else None
        layout = SplitGround(
            first, support.lonlat, cv, max(support.footprints.values()) + support.extent, support.by,
            support.years, reach, None if domain is None else domain_places(domain),
        )  # fmt: skip
        held = _ScoreTables(
            support,
            [layout.split(name) for name in wanted],
            level,
            seed,
            weighted=design is not None,
            blocks=layout.blocks(),
        )
        for (name, one), (method, head) in itertools.product(data.items(), able.items()):
            held.score(name, method, [(one, scoring.probe_predictor(one, head))], counts)
        for name, kind, one, dims in _variants(support, data):
            for method, head in able.items():
                predict = scoring.probe_predictor(one, head, dims)
                held.score(name, method, [(one, predict)], [None], support=kind)
        for (name, method), draws in controls_of(support, first, *next(iter(able.items()))).items():
            held.score(name, method, draws, [None])
    if not held.rows:
        raise EmbeddingError(
            f"no fold can be held out: what is left of the {len(support.y)} labels is of one class, or within the "
            f"buffer of {layout.buffer:,.0f} m. Give labels at more places, or other splits="
        )
    if support.dropped:
        say(f"evaluate left out labels: {', '.join(f'{n} {why}' for why, n in support.dropped.items())}")
    facts = _facts(support)
    seen = facts.index[facts.label_seen_in_training]
    return Evaluation(
        scores=pd.DataFrame(held.rows).assign(label_seen_in_training=lambda rows: rows["product"].isin(seen)),
        differences=_differences(held, data, list(able), pairs, level, seed),
        groups=pd.DataFrame(held.tables["groups"]),
        facts=facts,
        target=support.target,
        n=len(support.y),
        dropped=support.dropped,
        splits=_split_table(held.splits, weighted=design is not None),
        labels=_label_table(support, data, cv),
        level=level,
        **{name: pd.DataFrame(rows) for name, rows in held.tables.items() if name != "groups"},
    )


def _wanted(splits: Sequence[str], group: Any, by: Any, domain: Any, design: Any) -> list[str]:
    """Names of the splits, with those that ``domain`` and ``design`` add."""
    if isinstance(splits, str):
        splits = (splits,)
    for split in splits:
        check_choice("splits", split, SPLITS)
    needs = {"groups": (group, "group='region'"), "regions": (by, "by='country'"),
             "knndm": (domain, "domain=(west, south, east, north)")}  # fmt: skip
    for split, (given, example) in needs.items():
        if split in splits and given is None:
            raise EmbeddingError(f"splits={split!r} needs to know what is left out: say {example}, or so")
    wanted = list(dict.fromkeys(splits))
    if domain is not None and "knndm" not in wanted:
        wanted = ["knndm", *wanted]
    if design is not None and "random" not in wanted:
        wanted.append("random")
    if not wanted:
        raise EmbeddingError(f"splits= names at least one of {', '.join(SPLITS)}")
    return wanted


def _declared(
    contrasts: Sequence[tuple[str, str]] | None, arrays: Mapping[str, Any]
) -> list[tuple[str, str]]:
    if contrasts is None:
        return list(itertools.combinations(arrays, 2))
    pairs = [tuple(each) for each in contrasts]
    wrong = [pair for pair in pairs if len(pair) != 2 or not set(pair) <= set(arrays)]
    if wrong:
        raise EmbeddingError(f"contrasts are pairs of the arrays' names {list(arrays)}; got {wrong[0]}")
    return [(a, b) for a, b in pairs]


def _heads(methods: Sequence[Any], legend: Legend | None = None) -> dict[str, Head]:
    """Methods by name; a second estimator of a class is numbered. Class weights are by the names of a legend."""
    found: dict[str, Head] = {}
    for method in [methods] if isinstance(methods, str) or hasattr(methods, "fit") else methods:
        if legend is not None and not isinstance(method, str):
            method = estimators.with_class_weights(method, legend)
        name, head = estimators.named(method)
        again = sum(each.split(" ")[0] == name for each in found)
        if not isinstance(method, str) and again:
            name = f"{name} {again + 1}"
        found[name] = head
    return found


def _counts(n_labels: Any) -> list[int | None]:
    """Numbers of labels as a list. Refused if none can be drawn, since a product would vanish from the table."""
    counts = [n_labels] if n_labels is None or isinstance(n_labels, Integral) else list(n_labels)
    wrong = [n for n in counts if n is not None and not is_count(n)]
    if wrong or not counts:
        raise EmbeddingError(
            f"n_labels are numbers of labels per class, 1 or more, or None for all; got {(wrong or [counts])[0]!r}"
        )
    return [None if n is None else int(n) for n in counts]


def _able(heads: Mapping[str, Head], classes: int) -> dict[str, Head]:
    task = "classification" if classes else "regression"
    able = {name: head for name, head in heads.items() if task in head.tasks}
    if not able:
        raise EmbeddingError(
            f"none of methods={list(heads)} does {task}; use "
            f"{[name for name, each in HEADS.items() if task in each.tasks]}"
        )
    return able


def _reach(data: Mapping[str, Data], head: Head, cv: int) -> Range | None:
    """The longest range of autocorrelation of the products' residuals."""
    found: Range | None = None
    for one in data.values():
        folds = validation.random_folds(one, cv)
        if folds is None:
            return None
        scores = scoring.held_out(
            scoring.probe_predictor(one, head), one, Split("random", folds, 0.0), None, 0
        )
        done = np.flatnonzero(~np.isnan(scores).any(axis=0))
        if not done.size:
            return None
        if one.classes:
            errors = (np.arange(one.classes)[:, None] == one.y[done]) - softmax(scores[:, done])
        else:
            errors = one.y[done][None] - scores[:, done]
        assert one.places is not None
        here = autocorrelation_range(one.places[done], errors.T, one.seed)
        if found is None or (here.metres or 0.0) > (found.metres or 0.0):
            found = here
    return found


def _variants(support: Support, data: Mapping[str, Data]) -> list[tuple[str, str, Data, int | None]]:
    """Products averaged to the coarsest footprint, and cut to the fewest dimensions of any of them."""
    found: list[tuple[str, str, Data, int | None]] = []
    if support.common:
        for name, one in data.items():
            x = support.common.get(name, one.x)
            found.append((name, "common", one._replace(x=np.where(np.isfinite(x), x, one.x)), None))
    dims = {name: one.x.shape[1] for name, one in data.items()}
    least = min(dims.values())
    if least < max(dims.values()):
        found += [
            (name, "equal dims", one, least if dims[name] > least else None) for name, one in data.items()
        ]
    return found


class _ScoreTables:
    """Collects held-out predictions, and the rows of the tables."""

    def __init__(
        self,
        support: Support,
        splits: Sequence[Split],
        level: float,
        seed: int,
        *,
        weighted: bool,
        blocks: np.ndarray,
    ) -> None:
        self.support, self.splits, self.level, self.seed = support, splits, level, seed
        self.weighted, self.blocks = weighted, blocks
        self.rows: list[dict[str, Any]] = []
        names = ("groups", "classes", "distances", "calibration", "coverage", "strata")
        self.tables: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        self.scores: dict[tuple[str, str, str], np.ndarray] = {}

    def score(
        self,
        name: str,
        method: str,
        several: Sequence[tuple[Data, scoring.Predictor]],
        n_labels: Sequence[int | None],
        support: str = "native",
    ) -> None:
        """Predict what is held out, for each split and number of labels, and score it.

        The score is the mean over several labellings; details and draws of few labels are of the first.
        """
        data, predict = several[0]
        for split, n in itertools.product(self.splits, n_labels):
            one = self._weighed(data, split)
            where = {"product": name, "support": support, "method": method, "split": split.name}
            if n is None:
                is_probe = name in self.support.vectors or name in self.support.features
                whole = [scoring.held(by, own, split, calibrate=is_probe) for own, by in several]
                scored = [
                    scoring.measures(
                        self._weighed(own, split), each.scores, self._means_of(split), each.proba
                    )
                    for (own, _), each in zip(several, whole, strict=True)
                ]
                self._add(where, None, scored, int(whole[0].done.sum()))
                self._detail(where, one, whole[0], split)
                continue
            draws = [
                scoring.held_out(predict, data, split, n, self.seed + draw)
                for draw in range(scoring.draws_for(n))
            ]
            self._add(where, n, [scoring.measures(one, each, self._means_of(split)) for each in draws],
                      int((~np.isnan(draws[0]).any(axis=0)).sum()))  # fmt: skip

    def _weighed(self, data: Data, split: Split) -> Data:
        """The data with the weights of a design, which say the accuracy of a map in random folds."""
        return (
            data._replace(weights=self.support.weights) if self.weighted and split.name == "random" else data
        )

    def _means_of(self, split: Split) -> np.ndarray:
        """The regions for whose means R² is reported as well."""
        if self.support.by.size:
            return self.support.by
        return np.array([]) if split.units is None else split.units

    def _add(
        self, where: dict[str, Any], n: int | None, draws: list[dict[str, float]], predicted: int
    ) -> None:
        found = pd.DataFrame(draws)
        for score in found.columns:
            values = found[score]
            self.rows.append(
                {
                    **where,
                    "n_labels": np.nan if n is None else n,
                    "score": score,
                    "value": float(values.mean()),
                    "sd": float(values.std(ddof=1)) if len(values) > 1 else np.nan,
                    "n": predicted,
                }
            )

    def _detail(self, where: dict[str, Any], data: Data, found: scoring.HeldOut, split: Split) -> None:
        """Add the parts of the score by class, distance, block, group and purity to the tables."""
        if not found.done.any():
            return
        support = self.support
        if where["support"] == "native":
            self.scores[where["product"], where["method"], split.name] = found.scores
            self._extend("distances", where, scoring.by_distance(data, found))
            if support.by.size:
                rows = by_groups(data, found, support.by, self.blocks, self.level, self.seed)
                self._extend("groups", where, rows)
            if where["product"] in support.vectors:
                if support.legend is not None:
                    names = support.legend.names
                    self._extend("classes", where, scoring.by_class(data, found, names))
                    done = np.flatnonzero(found.done)
                    curve = scoring.calibration_curve(data.at(done), found.proba[:, done])
                    self._extend("calibration", where, curve)
                self._extend("coverage", where, scoring.coverage_by_unit(data, found, split, self.level))
        if where["product"] in support.vectors:
            self._extend("strata", where, _strata(data, found, support.purity))

    def _extend(self, table: str, where: dict[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        self.tables[table] += [{**where, **row} for row in rows]


def _strata(data: Data, found: scoring.HeldOut, purity: np.ndarray) -> list[dict[str, Any]]:
    """Scores of labels in pure and in mixed cells."""
    rows = []
    for stratum, inside in (("pure", purity >= _PURE), ("mixed", purity < _PURE)):
        own = np.flatnonzero(inside & found.done)
        if len(own) > 1:
            value = validation.measures(data.at(own), found.scores[:, own])["balanced_accuracy"]
            rows.append({"cell": stratum, "value": value, "n": len(own)})
    return rows


# --- tables -----------------------------------------------------------------------------------------------------


def _differences(
    held: _ScoreTables,
    data: Mapping[str, Data],
    methods: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    level: float,
    seed: int,
) -> pd.DataFrame:
    """Each declared contrast, method by method, in the split that pictures show."""
    split = min(held.splits, key=lambda each: SPLITS.index(each.name))
    first = next(iter(data.values()))
    if held.weighted and split.name == "random":
        first = first._replace(weights=held.support.weights)
    blocks = split.units
    rows = []
    for (a, b), method in itertools.product(pairs, methods):
        keys = [(name, method, split.name) for name in (a, b)]
        if blocks is None or not all(key in held.scores for key in keys):
            continue
        mine, other = (correctness(first, held.scores[key]) for key in keys)
        found = difference(mine, other, blocks, level, seed)
        rows.append({"a": a, "b": b, "method": method, "split": split.name, "difference": found.value,
                     "low": found.low, "high": found.high, "p": found.p, "blocks": found.blocks})  # fmt: skip
    table = pd.DataFrame(rows)
    if len(table):
        known = table["p"].notna()
        table.loc[known, "p"] = holm(table.loc[known, "p"].to_numpy())
    return table


def _split_table(splits: Sequence[Split], *, weighted: bool) -> pd.DataFrame:
    rows = {
        split.name: {
            "answers": WEIGHTED if weighted and split.name == "random" else ANSWERS[split.name],
            "folds": len(np.unique(split.tests())),
            "blocks": np.nan if split.units is None else len(np.unique(split.units)),
            "buffer_m": split.buffer,
            **{name: split.facts.get(name, np.nan) for name in ("side_m", "range_m", "w_m")},
            "note": split.facts.get("note", ""),
        }
        for split in splits
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _label_table(support: Support, data: Mapping[str, Data], cv: int) -> pd.DataFrame:
    """With ``by``: labels by class and group, and the share that other groups' labels cover."""
    if not support.by.size:
        return pd.DataFrame()
    names = support.legend.names if support.legend is not None else ()
    rows = []
    for product, one in data.items():
        folds = validation.random_folds(one, cv)
        folds = one.groups if folds is None else folds
        rows += [{"product": product, **row} for row in where_labels_are(one, support.by, names, folds)]
    return pd.DataFrame(rows)


def _facts(support: Support) -> pd.DataFrame:
    rows = {
        name: {
            "product": product.name,
            "dims": support.vectors[name].shape[1],
            "footprint_m": support.footprints[name],
            "label_seen_in_training": is_seen(f"{support.target} {support.source}", product.trained_on),
            "trained_on": ", ".join(product.trained_on),
            "licence": product.licence_line,
            "attribution": product.attribution,
        }
        for name, product in support.products.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")
