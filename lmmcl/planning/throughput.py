"""How long what is missing will take, from the rate of recorded steps like it in the same store."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from lmmcl.config.cluster import Cluster
from lmmcl.ledger.index.view import RecordView
from lmmcl.ledger.record import Record
from lmmcl.planning.flops import known_size, trained_examples
from lmmcl.steps import Evaluate, Finetune, ProbeStep, Snapshot, Step, alike
from lmmcl.tasks.hub.hub_data import HubSkill


@dataclass(frozen=True)
class Pace:
    """Estimated seconds of work, the number of steps they cover, and of those for which no similar step has been timed.

    `seconds` are of all steps in sequence; `chain` of the critical path: the longest chain of steps that need each other;
    `wall` on a cluster that starts here with its number of CPUs, None where the plan cannot know how many run at once.
    """

    seconds: float
    steps: int
    unmeasured: int
    chain: float = 0.0
    wall: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.steps and self.unmeasured:
            return "Estimated time: unknown (no similar step has been recorded yet)"
        if not self.steps:
            return "Estimated time: nothing to run."
        text = f"Estimated time (from recorded steps): {_time(self.seconds)} sequential"
        text += f", about {_time(self.wall)} on this machine" if self.wall is not None else ""
        text += f", critical path {_time(self.chain)}"
        untimed = f"; excludes {self.unmeasured} steps for which no similar step has been timed"
        return f"{text}{untimed if self.unmeasured else ''}."


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


@dataclass(frozen=True)
class _Taken:
    """What a recorded step took: beside its examples or questions, and for each of them (None: not told apart)."""

    seconds: float
    beside: float = 0.0
    per_item: float | None = None


def estimate_pace(missing: Sequence[Step], view: RecordView, cluster: Cluster | None = None) -> Pace:
    """What `missing` (parents before children) takes: the median of what is recorded of the same recipe and skill, or else of the
    same model and kind, for as many examples or questions as each has."""
    measured = _measured(view) if missing else {}
    taken: dict[str, float] = {}
    ends: dict[str, float] = {}
    for step in missing:
        names = _names(step.kind, step_model(step), alike(step))
        known = next((measured[name] for name in names if name in measured), None)
        if known is not None:
            taken[step.key] = _seconds(known, _units(step))
        begin = max((ends.get(parent.key, 0.0) for parent in step.parents), default=0.0)
        ends[step.key] = begin + taken.get(step.key, 0.0)
    seconds, chain = sum(taken.values()), max(ends.values(), default=0.0)
    at_once = _at_once(cluster) if cluster else None
    wall = max(chain, seconds / at_once) if at_once else None
    return Pace(seconds, len(taken), len(missing) - len(taken), chain, wall)


def _at_once(cluster: Cluster) -> int | None:
    """Steps that run side by side on a cluster that starts here for CPUs alone."""
    place, asked = cluster.training, cluster.evaluation
    if cluster.ray.address != "local" or place.gpus_per_worker or asked.gpus or os.environ.get("RAY_ADDRESS"):
        return None
    cpus = cluster.ray.cpus or os.cpu_count() or 1
    return max(1, int(cpus // max(place.cpus_per_worker * max(1, place.workers), asked.cpus)))


def step_model(step: Step) -> str:
    """The label of the model that a step is of."""
    return (step.checkpoint.model if isinstance(step, Evaluate | ProbeStep) else step.model).label


def _names(kind: str, model: str, work: Sequence[str]) -> list[tuple[str, ...]]:
    """What recorded steps a step may be compared with, the nearest first: any place in a trial, learning rate and seed."""
    return [(model, kind, *work), (model, kind)] if work else [(model, kind)]


def _units(step: Step) -> float | None:
    """Examples that a stage passes, or questions; None where that depends on data which are not at hand."""
    if isinstance(step, Evaluate):
        size = known_size(step.benchmark)
        limit = step.evaluation.limit
        return min(size, limit or size) if size else limit
    if isinstance(step, Snapshot):
        return step.update * step.finetune.training.global_batch_size
    if not isinstance(step, Finetune):
        return None
    if isinstance(step.skill, HubSkill):
        return trained_examples(step.skill, step.training)
    return step.updates * step.training.global_batch_size if step.updates else None


def _seconds(known: Sequence[_Taken], units: float | None) -> float:
    rates = [taken.per_item for taken in known if taken.per_item is not None]
    if units is None or not rates:
        return median(taken.seconds for taken in known)
    return median(taken.beside for taken in known) + units * median(rates)


def _measured(view: RecordView) -> Mapping[tuple[str, ...], list[_Taken]]:
    measured: dict[tuple[str, ...], list[_Taken]] = defaultdict(list)
    for path in view.paths():
        record = view.read(path)
        if record is not None and "seconds" in record.fields:
            for name in _names(record["kind"], path.split("/")[1], record.fields.get("alike", ())):
                measured[name].append(_taken(record))
    return measured


def _taken(record: Record) -> _Taken:
    seconds, fields = record["seconds"], record.fields
    if fields.get("examples") and "train_seconds" in fields:
        training = min(seconds, fields["train_seconds"])
        return _Taken(seconds, seconds - training, training / fields["examples"])
    if questions := len(fields.get("sample_scores", ())):
        return _Taken(seconds, 0.0, seconds / questions)
    return _Taken(seconds)
