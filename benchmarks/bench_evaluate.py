"""``evaluate`` beside the same protocol written with scikit-learn: two products, blocked and random folds, ridge.

The rival fits the same number of ridge classifiers on the same folds and scores them with scikit-learn's functions.
It has no controls, no differences and no calibration, which ours are timed with and without. All run on one thread
of BLAS, as ``evaluate`` does by itself: these products of matrices are small, and two threads wait for each other.
"""

from __future__ import annotations

import harness
import numpy as np
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, f1_score

import geoemb_xr as gx
from geoemb_xr.comparing import scoring
from geoemb_xr.comparing.folds import Layout
from geoemb_xr.comparing.support import Support, support_of
from geoemb_xr.execution.threads import one_thread


def by_hand(support: Support, layout: Layout) -> dict[tuple[str, str], float]:
    """The protocol as a user of scikit-learn writes it."""
    found = {}
    for name, x in support.vectors.items():
        for split in (layout.split(each) for each in ("blocks", "random")):
            label = np.full(len(support.y), -1)
            for train, test in split.parts(layout.data.places):
                label[test] = (
                    RidgeClassifier(alpha=len(train)).fit(x[train], support.y[train]).predict(x[test])
                )
            found[name, split.name] = balanced_accuracy_score(support.y, label)
            f1_score(support.y, label, average="macro")
            cohen_kappa_score(support.y, label)
    return found


def ours(support: Support, layout: Layout) -> dict[tuple[str, str], float]:
    """The same folds and scores with this package's probes."""
    found = {}
    for name, x in support.vectors.items():
        data = support.data(x, 0)
        for split in (layout.split(each) for each in ("blocks", "random")):
            scores = scoring.held_out(scoring.probe_predictor(data, "ridge"), data, split, None, 0)
            found[name, split.name] = scoring.measures(data, scores, np.array([]))["balanced_accuracy"]
    return found


def main(argv: list[str] | None = None) -> None:
    """Print a table of seconds and scores."""
    args = harness.options(__doc__, argv)
    side, per_class = (80, 15) if args.small else (260, 200)
    arrays = {
        name: gx.testing.synthetic(name, shape=(side, side)).emb.year(2018)
        for name in ("alphaearth", "tessera")
    }
    labels = gx.labels(gx.testing.scene().truth(gx.testing.geobox((side, side)), 2018), per_class=per_class)
    support = support_of(arrays, labels)
    data = support.data(support.vectors["alphaearth"], 0)
    none = np.array([], int)
    layout = Layout(data, support.lonlat, 5, 10.0, none, none, None, None)
    whole = {"methods": ["ridge"], "n_labels": [None]}
    runs = {
        "scikit-learn by hand": lambda: by_hand(support, layout),
        "the same folds, ours": lambda: ours(support, layout),
        "evaluate, with controls and differences": lambda: gx.evaluate(arrays, labels, **whole),
    }
    with one_thread():
        times = harness.compare(runs, repeat=args.repeat)
        scores = by_hand(support, layout), ours(support, layout)
    least = times["scikit-learn by hand"]
    harness.table(
        f"evaluate: 2 products, {len(support.y)} labels, 5 folds, blocks and random",
        ("protocol", "seconds", "of scikit-learn"),
        [(name, each, f"{each / least:.2f} ×") for name, each in times.items()],
    )
    harness.table(
        "balanced accuracy",
        ("product, split", "scikit-learn", "ours"),
        [(" ".join(key), value, scores[1][key]) for key, value in scores[0].items()],
    )


if __name__ == "__main__":
    main()
