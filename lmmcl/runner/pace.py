"""How long what is missing will take, from what recorded steps of the same store took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from lmmcl.ledger import Ledger
from lmmcl.ledger.record import KINDS
from lmmcl.spec.steps import Evaluate, Examine, Finetune, Merge, Step


@dataclass(frozen=True)
class Pace:
    """Seconds of work (one step after the other), the steps they are of, and how many steps nothing like them is recorded of."""

    seconds: float
    steps: int
    unmeasured: int

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def estimate_pace(missing: Iterable[Step], ledger: Ledger) -> Pace:
    """Sum the medians of recorded steps that are alike: recipe and skill first, else the same model and kind."""
    measured = _measured(ledger)
    seconds, steps, unmeasured = 0.0, 0, 0
    for step in missing:
        known = next((measured[name] for name in _names(step) if name in measured), None)
        if known is None:
            unmeasured += 1
        else:
            seconds, steps = seconds + known, steps + 1
    return Pace(seconds, steps, unmeasured)


def _names(step: Step) -> list[tuple[str, ...]]:
    """What recorded steps a step may be compared with, the nearest first."""
    if isinstance(step, Evaluate | Examine):
        model = step.checkpoint.model.label
        return [(model, step.kind, step.label), (model, step.kind)]
    if not isinstance(step, Finetune | Merge):
        return [(step.model.label, step.kind)]
    tuned = step.tuned if isinstance(step, Merge) else step
    return [(step.model.label, step.kind, tuned.skill.name, tuned.recipe.label), (step.model.label, step.kind)]


def _measured(ledger: Ledger) -> Mapping[tuple[str, ...], float]:
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for kind in KINDS:
        for path in ledger.paths(kind):
            record = ledger.read(path)
            if record is None or "seconds" not in record.fields:
                continue
            model = path.split("/")[1]
            found[model, record["kind"]].append(record["seconds"])
            if kind != "checkpoints":
                found[model, record["kind"], record["label"]].append(record["seconds"])
            elif len(parts := record["label"].split("-")) >= 3:
                found[model, record["kind"], parts[1], parts[2]].append(record["seconds"])
    return {name: median(seconds) for name, seconds in found.items()}
