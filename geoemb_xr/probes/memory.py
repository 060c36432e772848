"""The memory of a ridge probe that can be updated: sums over its labels by fold, and some labels for scoring.

Sums add up, so a probe that is updated equals one that was fitted on all labels at once, without the old ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from geoemb_xr.probes import validation
from geoemb_xr.probes.heads import Data, RidgeSums, targets_of

#: Labels that are kept to be scored on, drawn at random from more.
KEPT = 5_000


@dataclass(frozen=True)
class Memory:
    """Sums of all labels, and some of the labels.

    Parameters
    ----------
    sums : mapping of int to RidgeSums
        Sums by fold; a single one where there are no folds.
    known : Data
        Labels to be scored on.
    folds : ndarray of int (n,)
        Theirs.
    """

    sums: Mapping[int, RidgeSums]
    known: Data
    folds: np.ndarray

    @classmethod
    def of(cls, data: Data, folds: np.ndarray | None) -> Memory:
        """Make the memory of a probe from labelled vectors."""
        folds = np.zeros(len(data.y), np.int64) if folds is None else folds
        targets = targets_of(data)
        sums = {
            int(fold): RidgeSums.of(
                data.x[folds == fold], targets[folds == fold], data.weights[folds == fold]
            )
            for fold in np.unique(folds)
        }
        return cls(sums, data, folds).thinned()

    def thinned(self) -> Memory:
        """With no more than :data:`KEPT` labels."""
        if len(self.folds) <= KEPT:
            return self
        kept = np.sort(np.random.default_rng(0).permutation(len(self.folds))[:KEPT])
        return Memory(self.sums, self.known.at(kept), self.folds[kept])

    @property
    def scored(self) -> bool:
        """Whether there are folds to score on."""
        return len(self.sums) > 1

    def total(self) -> RidgeSums:
        """Sums of all labels."""
        every = list(self.sums.values())
        return sum(every[1:], every[0])

    def beside(self, new: Memory) -> Memory:
        """Join two memories: new labels get folds of their own, so that none is both seen and scored on."""
        shift = max(self.sums) + 1
        sums = {**self.sums, **{fold + shift: each for fold, each in new.sums.items()}}
        both: dict[str, Any] = {
            name: np.concatenate([getattr(self.known, name), getattr(new.known, name)])
            for name in ("x", "y", "weights")
        }
        groups = np.concatenate([self.known.groups, new.known.groups + self.known.groups.max() + 1])
        known = self.known._replace(**both, groups=groups, places=None)
        return Memory(sums, known, np.concatenate([self.folds, new.folds + shift]))

    def held_out(self, alpha: float | None, others: RidgeSums | None = None) -> np.ndarray:
        """Scores ``(classes, n)`` of the known labels, each from the sums of the other folds, and of ``others``."""

        def seen(fold: int) -> RidgeSums:
            parts = [each for key, each in self.sums.items() if key != fold]
            return sum(parts[1:], parts[0]) if others is None else sum(parts, others)

        return validation.held_out_by_sums(self.known, self.folds, seen, lambda _: alpha)

    # --- as arrays of a file ----------------------------------------------------------------------------------

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it as arrays by name; of symmetric sums one half."""
        half = np.triu_indices(len(self.total().x))
        found = {
            f"sums_{each.name}": np.stack([np.asarray(getattr(own, each.name)) for own in self.sums.values()])
            for each in fields(RidgeSums)
        }
        found["sums_xx"] = found["sums_xx"][:, half[0], half[1]]
        known = {name: getattr(self.known, name) for name in ("x", "y", "weights", "groups")}
        return {"sums_fold": np.array(list(self.sums)), **found, **known, "folds": self.folds}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], classes: int) -> Memory:
        """What :meth:`arrays` gave."""
        bands = arrays["sums_x"].shape[1]
        half = np.triu_indices(bands)
        sums = {}
        for i, fold in enumerate(arrays["sums_fold"].tolist()):
            own: dict[str, Any] = {each.name: arrays[f"sums_{each.name}"][i] for each in fields(RidgeSums)}
            whole = np.zeros((bands, bands))
            whole[half] = own["xx"]
            own |= {
                "xx": whole + np.triu(whole, 1).T,
                "count": int(own["count"]),
                "weight": float(own["weight"]),
            }
            sums[fold] = RidgeSums(**own)
        known = Data(arrays["x"], arrays["y"], arrays["weights"], arrays["groups"], classes, seed=0)
        return cls(sums, known, arrays["folds"])
