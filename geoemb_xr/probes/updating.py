"""Updates of a ridge probe: its sums and those of more labels make the next one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from geoemb_xr.core.notes import say
from geoemb_xr.execution.threads import one_thread
from geoemb_xr.probes import heads, validation
from geoemb_xr.probes.checking import checked
from geoemb_xr.probes.classes import counts_of, known_data
from geoemb_xr.probes.heads import HEADS
from geoemb_xr.probes.memory import Memory
from geoemb_xr.probes.samples import Samples

if TYPE_CHECKING:
    from geoemb_xr.probes.probe import Probe


def updated(probe: Probe, samples: Samples) -> Probe:
    """A ridge probe with the sums of more labels: what :meth:`Probe.update` gives."""
    old = Memory.from_arrays(probe.memory, len(probe.legend.names) if probe.legend is not None else 0)
    new = known_data(probe, samples)
    regions = validation.blocked_folds(new, len(old.sums)) if old.scored else None
    added = Memory.of(new, regions)
    both = old.beside(added)
    alpha = probe.options["alpha"]
    total = both.total()
    with one_thread():
        tested: dict[str, Any] = {"scores": {}}
        if old.scored:
            kind = "blocked" if "blocked" in probe.scores else "random"
            tested = checked(both.known, HEADS["ridge"], {kind: both.folds}, {kind: both.held_out(alpha)})
            tested["scores"] |= {
                "old regions before": validation.measures(old.known, old.held_out(alpha)),
                "old regions after": validation.measures(old.known, old.held_out(alpha, added.total())),
            }
            name = "balanced_accuracy" if old.known.classes else "r2"
            before, after = (tested["scores"][f"old regions {when}"][name] for when in ("before", "after"))
            say(
                f"update with {len(new.y)} labels: {name} of the old regions {before:.3f} before, {after:.3f} after"
            )
        parameters = total.solve(heads.penalty(alpha, total.count, new.classes))
    more = counts_of(new, probe.legend)
    return replace(
        probe,
        parameters=parameters,
        counts={name: n + more[name] for name, n in probe.counts.items()},
        dropped={
            k: probe.dropped.get(k, 0) + samples.dropped.get(k, 0)
            for k in {**probe.dropped, **samples.dropped}
        },
        memory=both.thinned().arrays(),
        **tested,
    )
