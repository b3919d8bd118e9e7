"""What a model card says of a checkpoint, read from the store: base, stages, scores, and what computed them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmmcl.config.settings import Evaluation
from lmmcl.inspection.publishing.card_stages import Stage, card_stage, stages_on_the_way
from lmmcl.inspection.step_details import step_facts
from lmmcl.inspection.stored_lineage import base_of
from lmmcl.inspection.stored_scores import comparable_scores, stored_scores
from lmmcl.inspection.stored_trials import stored_sweeps
from lmmcl.ledger import Ledger
from lmmcl.masking import mask
from lmmcl.measures import MEASURES, Run, Undefined
from lmmcl.models.hub import HubLMM
from lmmcl.models.quantized.base_settings import BaseSettings
from lmmcl.steps import Checkpoint


@dataclass(frozen=True)
class CardFacts:
    """`hub` and `revision` name the base on the hub, where it is one of the hub. `questions` and `metrics` are of the benchmarks
    that the checkpoint itself was evaluated on. `command` computes it again.

    `updates` says after which of a stage's updates the weights were taken, where they are not those of its end. `quantized` is how
    the base was held while adapters trained on it, where that was in 4 bits.
    """

    key: str
    label: str
    family: str
    base: str
    hub: str | None
    revision: str | None
    base_scores: Mapping[str, float]
    stages: Sequence[Stage]
    held_out: Sequence[str]
    questions: Mapping[str, int]
    metrics: Mapping[str, str]
    versions: Mapping[str, str]
    hardware: str | None
    sweep: str | None
    title: str
    command: str | None
    adapter: str | None
    updates: int | None = None
    quantized: BaseSettings | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """The benchmarks of what was taught, in the order of learning."""
        return tuple(dict.fromkeys(name for stage in self.stages for name in stage.targets))

    def measure(self, name: str) -> float | None:
        """A measure after the last stage; None where a score that it needs was not measured."""
        rows = [self.base_scores, *(stage.scores for stage in self.stages)]
        scores = {(number, benchmark): score for number, row in enumerate(rows) for benchmark, score in row.items()}
        run = Run(tuple(tuple(stage.targets) for stage in self.stages), tuple(self.held_out), scores)
        try:
            return float(MEASURES[name](run, len(self.stages)))
        except Undefined:
            return None

    def benchmarks(self) -> list[str]:
        """Those of the skills in the order they were taught, then the others."""
        scored = {name for row in (self.base_scores, *(stage.scores for stage in self.stages)) for name in row}
        names = dict.fromkeys([*self.targets, *sorted(scored)])
        return [name for name in names if name in scored]


def card_facts(step: Checkpoint, ledger: Ledger) -> CardFacts:
    """What is recorded of a checkpoint and of those before it."""
    facts = step_facts(ledger, step.key)
    trial, wanted = _wanting(ledger, step, facts["wanted_by"])
    on_the_way = stages_on_the_way(ledger, step.path, trial)
    evaluated = [base_of(ledger, step.path), *(stage.end for stage in on_the_way)]
    rows = comparable_scores([stored_scores(ledger, path) if path else [] for path in evaluated], _settings_of(trial))
    base_scores, *scores = [{name: score.score for name, score in row.items()} for row in rows]
    stages = [
        card_stage(ledger, number, stage, trial, own)
        for number, (stage, own) in enumerate(zip(on_the_way, scores, strict=True), start=1)
    ]
    taught = {name for stage in stages for name in stage.targets}
    model, hub = step.model, step.model if isinstance(step.model, HubLMM) else None
    record = facts["record"]
    strategy = record.get("strategy")
    return CardFacts(
        key=step.key,
        label=step.label,
        family=model.family,
        base=model.name,
        hub=hub.hub if hub else None,
        revision=hub.commit if hub else None,
        base_scores=base_scores,
        stages=stages,
        held_out=list(trial.get("held_out", [])) or sorted(rows[-1].keys() - taught),
        versions={n: str(v) for n, v in record["provenance"].items() if v and n not in ("host", "started", "finished")},
        hardware=_hardware(strategy) if isinstance(strategy, dict) else None,
        sweep=wanted.get("sweep"),
        title=_title(step, trial, wanted),
        command=_command(wanted),
        adapter=(record.get("adapter") or {}).get("kind"),
        updates=facts["identity"].get("update"),
        quantized=model.settings.base,
        questions={name: score.questions for name, score in rows[-1].items()},
        metrics={name: score.metric for name, score in rows[-1].items()},
    )


def _command(wanted: Mapping[str, Any]) -> str | None:
    """How the trial is computed again; without places of this machine, which are nobody else's business."""
    if not wanted:
        return None
    file = Path(wanted["file"])
    words = [
        file.name if file.is_absolute() else str(file),
        *(part for pair in wanted["set"] for part in ("--set", pair)),
    ]
    return mask(f"lmmcl run {shlex.join(words)}")


def _wanting(
    ledger: Ledger, step: Checkpoint, wanted_by: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The trial whose result the checkpoint is, as its sweep wrote it down, and where it wants it: one that ends with the
    checkpoint, else one that evaluates it, else one that needs it on the way; nothing where no sweep is known to want it."""
    trials = {(sweep["name"], trial["key"]): trial for sweep in stored_sweeps(ledger) for trial in sweep["trials"]}
    places = [(trials[place["sweep"], place["trial_key"]], dict(place)) for place in wanted_by]
    if not places:
        return {}, {}
    return max(places, key=lambda pair: (pair[0]["key"] == step.key, step.key in pair[0].get("steps", {}).values()))


def _title(step: Checkpoint, trial: Mapping[str, Any], place: Mapping[str, Any]) -> str:
    """The trial's name for what it ends with, with the stage for what it evaluates before; else the checkpoint's own label."""
    steps: Mapping[str, str] = trial.get("steps", {})
    if trial.get("key") == step.key:
        return str(trial["name"])
    if steps.get(str(place.get("stage"))) == step.key:
        return f"{trial['name']}, after stage {place['stage']} of {max(map(int, steps))}"
    return step.label


def _settings_of(trial: Mapping[str, Any]) -> dict[str, Any] | None:
    """How the trial evaluates its checkpoints, as keys of scores have it; None where no trial is known."""
    return Evaluation.model_validate(trial["evaluation"]).identity() if trial else None


def _hardware(strategy: Mapping[str, Any]) -> str:
    workers = int(strategy.get("workers") or 1)
    return f"{workers} process{'es' * (workers > 1)} on {strategy.get('device')}"
