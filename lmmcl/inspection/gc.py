"""Free space in a store: weights that no planned step still needs, and what killed stages left. Scores are never touched.

A step that is still to be computed needs the weights of all checkpoints on its way (a delta lies over its parents').
Dropped weights are computed again when something new asks for them, and when a run needed them that was not named.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmmcl.config.cluster import ClaimSettings
from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.ledger.index.view import RecordView
from lmmcl.ledger.leases import Lease, Leases
from lmmcl.ledger.node import bytes_in
from lmmcl.ledger.owners import STALE
from lmmcl.ledger.packs.packing import maintenance
from lmmcl.ledger.record import WEIGHTS
from lmmcl.ledger.stale_files import stale_files
from lmmcl.reports import formatting
from lmmcl.search.run_context import RunContext
from lmmcl.steps import CheckpointStep, Step

RUNS = "runs"


@dataclass
class Freed:
    """What was (or, in a dry run, would be) removed: bytes by folder, below the store if not on this node.

    `weights` are of checkpoints, `runs` what stages kept for being resumed, `abandoned` what killed processes were writing;
    `kept` is how many checkpoints keep their weights, `others` the runs that compute steps of sweeps that were not named.
    """

    weights: dict[str, int] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    abandoned: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    others: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """All together."""
        return sum(sum(part.values()) for part in (self.weights, self.runs, self.abandoned))

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

    `everything` looks at all checkpoints and runs of the store, not only at those of `sweeps`. `keep` names checkpoints (see
    `Ledger.checkpoint`) to keep with all that they lie over. What is being computed now stays, with what it reads. Raises
    UserError for a name that no checkpoint has, where there is no store, and when `everything` would take the ground from
    under a sweep that runs and was not named.
    """
    ledger.check_exists()
    contexts = [RunContext.resolve(sweep, ledger) for sweep in sweeps]
    steps = {key: step for context in contexts for key, step in context.sweep.steps.items()}
    walked = {key: step for context in contexts for key, step in context.steps().items()}
    living = Leases(ledger.files, ClaimSettings()).active()
    freed = Freed(others=_others(living, steps))
    if freed.others and everything and not dry_run:
        raise UserError(
            f"{freed.others[0]} is computing steps of a sweep that is not named; name that sweep too, or wait until it ends",
            file=f"store {ledger.store}",
        )
    running = {key: steps[key] for key in living if key in steps}
    needed = needed_weights({**walked, **running}.values(), ledger, running=running) | {
        path for name in keep for path in _with_parents(ledger.checkpoint(name))
    }
    mine = None if everything else {step.path for step in steps.values() if isinstance(step, CheckpointStep)}
    with nullcontext() if dry_run else maintenance(ledger):  # a record that is being packed must not change
        _free_weights(ledger, freed, needed, mine, dry_run=dry_run)
    _free_runs(ledger, freed, {*living, *ledger.being_written()}, walked, everything=everything, dry_run=dry_run)
    freed.abandoned |= {_name(ledger, folder): bytes_in(folder) for folder in stale_files(ledger)}
    if not dry_run:
        ledger.remove_abandoned()
    return freed


def _free_weights(
    ledger: Ledger, freed: Freed, needed: Collection[str], mine: Collection[str] | None, *, dry_run: bool
) -> None:
    """Those of the checkpoints `mine` (None: of all) that are not `needed`."""
    for path in ledger.paths():
        size = sum(size for name, size in ledger.sizes(path).items() if name.endswith(WEIGHTS))
        if not size or not (mine is None or path in mine):
            continue
        if path not in needed:
            freed.weights[path] = size if dry_run else ledger.drop_weights(path)
            continue
        freed.kept += 1
        if not ledger.is_local:
            _free_late_uploads(ledger, freed, path, dry_run=dry_run)


def needed_weights(steps: Iterable[Step], ledger: Ledger, *, running: Collection[str] = ()) -> set[str]:
    """Folders of the checkpoints whose weights the steps that are not recorded yet, or are `running` (keys), will read."""
    needed, steps, view = set[str](), list(steps), RecordView(ledger)
    view.prefetch(steps)
    for step in steps:
        if step.key in running or not view.has(step):
            for parent in step.parents:
                needed |= _with_parents(parent)
    return needed


def _with_parents(step: CheckpointStep) -> set[str]:
    return {step.path}.union(*(_with_parents(parent) for parent in step.parents))


def _others(living: Mapping[str, Lease], steps: Collection[str]) -> list[str]:
    """The runs that compute what is not among `steps`."""
    return sorted({str(claim) for key, claim in living.items() if key not in steps})


def _free_runs(
    ledger: Ledger, freed: Freed, running: Collection[str], wanted: Collection[str], *, everything: bool, dry_run: bool
) -> None:
    """Checkpoints inside a stage are for resuming it: once it is recorded, or no sweep asks for it, nobody will."""
    done = {path.rsplit("-", 1)[1] for path in ledger.paths()}
    sizes: dict[str, int] = {}
    for name, size in ledger.sizes(RUNS).items():
        run = name.split("/")[0]
        sizes[run] = sizes.get(run, 0) + size
    for run in sorted(sizes.keys() - set(running)):
        if run in done or (everything and run not in wanted):
            freed.runs[f"{RUNS}/{run}"] = sizes[run]
            if not dry_run:
                ledger.remove_run(run)


def _free_late_uploads(ledger: Ledger, freed: Freed, path: str, *, dry_run: bool) -> None:
    """Files of a step in an object store that its record does not mean: of an upload that was cut off, and then made again.

    Only after a week, for one may be on its way.
    """
    record, sizes = ledger.read(path), ledger.sizes(path)
    for at in sorted({name.split("/")[0] for name in sizes if "/" in name}):
        names = [name for name in sizes if name.startswith(f"{at}/")]
        if record is None or record.folder == f"{path}/{at}":
            continue
        if time.time() - max(ledger.files.changed(f"{path}/{name}") for name in names) > STALE:
            freed.abandoned[f"{path}/{at}"] = sum(sizes[name] for name in names)
            if not dry_run:
                ledger.files.remove_folder(f"{path}/{at}")


def _name(ledger: Ledger, folder: Path) -> str:
    return str(folder.relative_to(ledger.store)) if ledger.is_local else str(folder)


def freed_text(freed: Freed, *, dry_run: bool) -> str:
    """For the terminal: a line for each folder, then the sum."""
    sizes = {**freed.weights, **freed.runs, **freed.abandoned}
    lines = [f"{formatting.size(size):>10}  {path}" for path, size in sizes.items()]
    lines += [
        f"{other} is computing steps of a sweep that is not named; it will recompute what it needs of these"
        for other in freed.others
        if freed.weights
    ]
    of = [
        f"{len(part)} {what}{'' if len(part) == 1 else 's'}"
        for what, part in {
            "checkpoint": freed.weights,
            "unfinished run": freed.runs,
            "abandoned folder": freed.abandoned,
        }.items()
        if part
    ]
    verb, parts = "would be freed" if dry_run else "freed", f" ({', '.join(of)})" if of else ""
    lines.append(f"{formatting.size(freed.bytes)} {verb}{parts}; checkpoints still needed: {freed.kept}")
    return "\n".join(lines)
