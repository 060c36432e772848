"""``evaluate`` on a scene whose truth is known and on real points: what it finds, and how long it takes.

The scene has two products, one noisier than the other, and labels of an earlier year: the better product has to
win, permuted labels to score chance, and random folds to flatter what follows places. The real points are of
AlphaEarth in two regions, with Dynamic World's sound classes. Every control is on.

The rival in time is the same protocol as a user of scikit-learn writes it: as many ridge classifiers on the same
folds, scored with scikit-learn's functions, without controls, differences and calibration. All run on one thread of
BLAS, as ``evaluate`` does by itself: these products of matrices are small, and two threads wait for each other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pandas as pd
import xarray as xr
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, f1_score

import geoemb_xr as gx
from geoemb_xr.comparing import scoring
from geoemb_xr.comparing.folds import Split
from geoemb_xr.comparing.support import Support, support_of
from geoemb_xr.execution.threads import one_thread
from geoemb_xr.probes import validation

#: Dynamic World's classes that are sound in the real points.
SOUND = {0: "water", 1: "trees", 4: "crops", 6: "built", 7: "bare"}


WHOLE = "evaluate: three splits, every control, calibration, differences"


@dataclass(frozen=True)
class Case:
    """A comparison: its name, the products, the labels, and further arguments of ``evaluate``."""

    name: str
    arrays: Mapping[str, xr.DataArray]
    labels: pd.DataFrame
    more: Mapping[str, Any]


def scene(side: int, per_class: int) -> Case:
    """Two products with planted noise, labels of 2024 with those of 2018 beside them, and a raw picture."""
    grid, truth = gx.testing.geobox((side, side)), gx.testing.scene().truth
    arrays = {}
    for seed, (name, share) in enumerate({"alphaearth": 2.5, "tessera": 4.5}.items()):
        clean = gx.testing.synthetic(name, shape=(side, side), years=[2024]).emb.year(2024).load()
        noise = np.random.default_rng(seed).normal(0, share * float(clean.std()), clean.shape)
        arrays[name] = (clean + noise.astype("f4")).assign_attrs(clean.attrs)
    arrays["alphaearth"] = arrays["alphaearth"].emb.normalize()
    labels = gx.labels(truth(grid, 2024), per_class=per_class)
    labels["before"] = truth(grid, 2018).emb.sample(labels).values
    labels["half"] = np.where(labels.lon > labels.lon.median(), "east", "west")
    more = {"by": "half", "previous": "before", "features": {"raw picture": gx.testing.images(grid=grid)}}
    return Case("scene", arrays, labels, {"target": "land_cover", **more})


def real(folder: Path) -> Case | None:
    """Points of two regions, with raw Sentinel-1 beside them; None where the files are not there."""
    files = sorted(folder.glob("alphaearth-points/*.csv"))
    if not files:
        print(f"no alphaearth-points/*.csv in {folder}: left out")
        return None
    points = pd.concat([pd.read_csv(path) for path in files], ignore_index=True)
    points = points[points.dw_label.isin(SOUND)].reset_index(drop=True)
    vectors = points[list(gx.product("alphaearth").bands)].to_numpy(np.float32)
    array = gx.wrap(vectors, "alphaearth", dims=("location", "band"), x=points.longitude, y=points.latitude,
                    crs="EPSG:4326", version="v1")  # fmt: skip
    labels = points[["region", "S1_VH", "S1_VV"]].assign(
        lon=points.longitude, lat=points.latitude, cover=points.dw_label.map(SOUND)
    )
    more = {"target": "cover", "by": "region", "features": {"raw Sentinel-1": ["S1_VH", "S1_VV"]}}
    return Case("real points", {"alphaearth": array}, labels, more)


def folds_of(support: Support) -> dict[str, Split]:
    """Regions left out, and groups at random: the folds that all protocols are timed on."""
    data = support.data(next(iter(support.vectors.values())), 0)
    regions = np.unique(support.by, return_inverse=True)[1]
    random = validation.random_folds(data, 5)
    assert random is not None
    return {"regions": Split("regions", regions, 0.0), "random": Split("random", random, 0.0)}


def by_hand(support: Support, splits: Mapping[str, Split]) -> dict[tuple[str, str], float]:
    """The protocol as a user of scikit-learn writes it."""
    found = {}
    for name, x in support.vectors.items():
        for kind, split in splits.items():
            label = np.full(len(support.y), -1)
            for train, test in split.parts(support.metres):
                spread = np.sqrt(x[train].var(axis=0).mean())  # one number: no band outweighs what it is
                head = RidgeClassifier(alpha=len(train)).fit(x[train] / spread, support.y[train])
                label[test] = head.predict(x[test] / spread)
            found[name, kind] = balanced_accuracy_score(support.y, label)
            f1_score(support.y, label, average="macro")
            cohen_kappa_score(support.y, label)
    return found


def ours(support: Support, splits: Mapping[str, Split]) -> dict[tuple[str, str], float]:
    """The same folds and scores with this package's probes."""
    found = {}
    for name, x in support.vectors.items():
        data = support.data(x, 0)
        for kind, split in splits.items():
            scores = scoring.held_out(scoring.probe_predictor(data, "ridge"), data, split, None, 0)
            found[name, kind] = scoring.measures(data, scores, np.array([]))["balanced_accuracy"]
    return found


def compare(case: Case, repeat: int) -> None:
    """Time the protocols, and print what ``evaluate`` found."""
    asked = {key: each for key, each in case.more.items() if key != "features"}
    support = support_of(case.arrays, case.labels, **asked)
    splits = folds_of(support)

    def whole() -> Any:
        kinds = ("blocks", "regions", "random")
        return gx.evaluate(
            case.arrays, case.labels, splits=kinds, methods=["ridge"], n_labels=[None], **case.more
        )

    runs = {
        "scikit-learn by hand": lambda: by_hand(support, splits),
        "the same folds and scores, ours": lambda: ours(support, splits),
        WHOLE: whole,
    }
    with one_thread():
        times = harness.compare(runs, repeat=5 * repeat, slow={WHOLE: repeat})
        scores = by_hand(support, splits), ours(support, splits)
    least = times["scikit-learn by hand"]
    harness.table(
        f"{case.name}: {len(support.y)} labels",
        ("protocol", "seconds", "of scikit-learn"),
        [(name, each, f"{each / least:.2f} ×") for name, each in times.items()],
    )
    harness.table(
        f"{case.name}: balanced accuracy of both",
        ("product, split", "scikit-learn", "ours"),
        [(", ".join(key), value, scores[1][key]) for key, value in scores[0].items()],
    )
    found = whole()
    table = found.table()
    harness.table(
        f"{case.name}: balanced accuracy by evaluate",
        ("product or control", *table.columns),
        [(", ".join(key), *row) for key, row in zip(table.index, table.to_numpy(), strict=True)],
    )
    print("\n".join(found.notes()))


def main(argv: Sequence[str] | None = None) -> None:
    """Print tables of seconds and scores."""
    args = harness.options(__doc__, argv)
    cases = [
        scene(80, 15) if args.small else scene(260, 120),
        real(Path(os.environ.get("GEOEMB_REAL_DATA", "."))),
    ]
    for case in cases:
        if case is not None:
            compare(case, args.repeat)


if __name__ == "__main__":
    main()
