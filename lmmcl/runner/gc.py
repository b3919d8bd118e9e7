"""Free space in a store: weights that no planned step still needs, and what killed stages left. Scores are never touched.

A step that is still to be computed needs the weights of all checkpoints on its way (a delta lies over its parents').
Dropped weights are computed again when something new asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lmmcl.evaluation.walked import walks_of, wanted_steps
from lmmcl.ledger import Ledger
from lmmcl.ledger.record import WEIGHTS
from lmmcl.ledger.searches import with_proposals
from lmmcl.reports import words
from lmmcl.spec.steps import CheckpointStep, Step
from lmmcl.spec.sweep import Sweep

RUNS = "runs"


@dataclass
class Freed:
    """What was (or, in a dry run, would be) removed: bytes by folder below the store, and how many checkpoints keep theirs."""

    weights: dict[str, int] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    abandoned: int = 0
    kept: int = 0

    @property
    def bytes(self) -> int:
        """All together."""
        return sum(self.weights.values()) + sum(self.runs.values())

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "bytes": self.bytes}


def collect_garbage(
    sweeps: Sequence[Sweep],
    ledger: Ledger,
    *,
    keep: Iterable[str] = (),
    everything: bool = False,
    dry_run: bool = False,
) -> Freed:
    """Drop the weights of the checkpoints of `sweeps` that none of their planned steps needs, and runs of recorded stages.

    `everything` looks at all checkpoints of the store, not only at those of `sweeps`. `keep` names checkpoints (see
    `Ledger.checkpoint`) to keep with all that they lie over. Raises UserError for a name that no checkpoint has.
    """
    sweeps = [with_proposals(sweep, ledger) for sweep in sweeps]
    steps = {key: step for sweep in sweeps for key, step in sweep.steps.items()}
    walked = {key: step for sweep in sweeps for key, step in wanted_steps(sweep, walks_of(sweep, ledger)).items()}
    needed = needed_weights(walked.values(), ledger) | {
        path for name in keep for path in _with_parents(ledger.checkpoint(name))
    }
    mine = {step.path for step in steps.values() if isinstance(step, CheckpointStep)}
    freed = Freed()
    for path in ledger.paths():
        size = sum(size for name, size in ledger.sizes(path).items() if name.endswith(WEIGHTS))
        if not size or not (everything or path in mine):
            continue
        if path in needed:
            freed.kept += 1
            continue
        freed.weights[path] = size if dry_run else ledger.drop_weights(path)
    _finished_runs(ledger, freed, dry_run=dry_run)
    if not dry_run:
        freed.abandoned = ledger.remove_abandoned()
    return freed


def needed_weights(steps: Iterable[Step], ledger: Ledger) -> set[str]:
    """Folders of the checkpoints whose weights the steps that are not recorded yet will read."""
    needed: set[str] = set()
    for step in steps:
        if ledger.find(step) is None:
            for parent in step.parents:
                needed |= _with_parents(parent)
    return needed


def _with_parents(step: CheckpointStep) -> set[str]:
    return {step.path}.union(*(_with_parents(parent) for parent in step.parents))


def _finished_runs(ledger: Ledger, freed: Freed, *, dry_run: bool) -> None:
    """Checkpoints inside a stage are for resuming it; once it is recorded, nobody asks for them."""
    done = {path.rsplit("-", 1)[1] for path in ledger.paths()}
    sizes: dict[str, int] = {}
    for name, size in ledger.sizes(RUNS).items():
        run = name.split("/")[0]
        sizes[run] = sizes.get(run, 0) + size
    for run in sorted(sizes.keys() & done):
        freed.runs[f"{RUNS}/{run}"] = sizes[run]
        if not dry_run:
            ledger.remove_run(run)


def freed_text(freed: Freed, *, dry_run: bool) -> str:
    """For the terminal: a line for each folder, then the sum."""
    lines = [f"{words.size(size):>10}  {path}" for path, size in {**freed.weights, **freed.runs}.items()]
    verb = "would be freed" if dry_run else "freed"
    lines.append(
        f"{words.size(freed.bytes)} {verb}: weights of {len(freed.weights)} checkpoints, {len(freed.runs)} runs; "
        f"{freed.kept} checkpoints are still needed"
    )
    return "\n".join(lines)
