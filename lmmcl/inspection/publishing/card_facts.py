"""What a model card says of a checkpoint, read from the store: base, stages, scores, and what computed them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmmcl.inspection.step_details import identity_of, scores_of, step_facts
from lmmcl.inspection.stored_trials import stored_sweeps
from lmmcl.ledger import Ledger
from lmmcl.masking import mask
from lmmcl.measures import MEASURES, Run, Undefined
from lmmcl.models.hub import HubLMM
from lmmcl.models.quantized.base_settings import BaseSettings
from lmmcl.steps import Checkpoint


@dataclass(frozen=True)
class Stage:
    """A stage as its fine-tune was recorded; `scores` are of the checkpoint that it ends in, in points by benchmark."""

    number: int
    skill: str
    data: str
    training: Mapping[str, Any]
    seed: int
    recipe: str
    mitigation: str | None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CardFacts:
    """`hub` and `revision` name the base on the hub, where it is one of the hub. `trial` is a name, `command` computes it again.

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
    trial: str | None
    command: str | None
    adapter: str | None
    updates: int | None = None
    quantized: BaseSettings | None = None

    def measure(self, name: str) -> float | None:
        """A measure after the last stage; None where a score that it needs was not measured."""
        rows = [self.base_scores, *(stage.scores for stage in self.stages)]
        scores = {(number, benchmark): score for number, row in enumerate(rows) for benchmark, score in row.items()}
        run = Run(tuple(stage.skill for stage in self.stages), tuple(self.held_out), scores)
        try:
            return float(MEASURES[name](run, len(self.stages)))
        except Undefined:
            return None

    def benchmarks(self) -> list[str]:
        """Skills in the order they were taught, then held-out benchmarks."""
        scored = {name for row in (self.base_scores, *(stage.scores for stage in self.stages)) for name in row}
        names = dict.fromkeys([*(stage.skill for stage in self.stages), *sorted(scored)])
        return [name for name in names if name in scored]


def card_facts(step: Checkpoint, ledger: Ledger) -> CardFacts:
    """What is recorded of a checkpoint and of those before it."""
    facts = step_facts(ledger, step.key)
    wanted = facts["wanted_by"][0] if facts["wanted_by"] else {}
    chain = [{"path": step.path, "kind": facts["record"]["kind"]}, *facts["chain"]]
    base = chain[-1]
    base_scores = scores_of(ledger, base["path"])
    stages = list(_stages(chain, ledger))
    taught = {stage.skill for stage in stages}
    last = stages[-1].scores if stages else base_scores
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
        held_out=_held_out(ledger, wanted) or sorted(set(last) - taught),
        versions={n: str(v) for n, v in record["provenance"].items() if v and n not in ("host", "started", "finished")},
        hardware=_hardware(strategy) if isinstance(strategy, dict) else None,
        sweep=wanted.get("sweep"),
        trial=wanted.get("trial"),
        command=_command(wanted),
        adapter=(record.get("adapter") or {}).get("kind"),
        updates=facts["identity"].get("update"),
        quantized=model.settings.base,
        **_asked(ledger, step.path),
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


def _stages(chain: Sequence[Mapping[str, Any]], ledger: Ledger) -> Iterator[Stage]:
    """The stages, first to last; a merge belongs to the stage of the fine-tune that it merges."""
    number, merge, end = 0, None, None
    for link in reversed(chain):
        if link["kind"] in ("finetune", "snapshot"):
            if end is not None:
                yield _stage(number, *end, ledger)
            number, end = number + 1, (link["path"], link["path"])
        elif link["kind"] == "merge" and end is not None:
            merge = link["path"]
            end = (end[0], merge)
    if end is not None:
        yield _stage(number, *end, ledger)


def _stage(number: int, tuned: str, end: str, ledger: Ledger) -> Stage:
    """The stage of the fine-tune in `tuned` that ends in the checkpoint in `end`, which a merge may have made."""
    identity = identity_of(ledger, tuned)
    if identity["kind"] == "snapshot" and (paths := ledger.checkpoint_paths(identity["finetune"])):
        identity = identity_of(ledger, paths[0])
    rule = identity_of(ledger, end).get("rule") if end != tuned else None
    used = [method for method in (identity.get("mitigation"), rule) if method]
    skill = identity.get("skill") or {"name": end.rsplit("/", 1)[1].split("-")[1]}
    recipe = identity.get("recipe") or {}
    return Stage(
        number=number,
        skill=str(skill["name"]),
        data=_data(skill),
        training=identity.get("training") or {},
        seed=int(identity.get("seed", 0)),
        recipe=_recipe(recipe),
        mitigation=" + ".join(map(_settings, used)) or None,
        scores=scores_of(ledger, end),
    )


def _recipe(recipe: Mapping[str, Any]) -> str:
    adapter = recipe.get("adapter")
    return ", ".join([*([_settings(adapter)] if adapter else []), *recipe.get("train", [])]) or "not recorded"


def _settings(identity: Mapping[str, Any]) -> str:
    """`wise_ft (alpha 0.5)`: the name of a method, and its settings."""
    name = identity.get("name") or identity.get("kind") or "adapter"
    rest = [f"{key} {_value(value)}" for key, value in identity.items() if key not in ("name", "kind", "version")]
    return f"{name} ({', '.join(rest)})" if rest else str(name)


def _value(value: Any) -> str:
    return (" + ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _data(skill: Mapping[str, Any]) -> str:
    """Where a skill's training data are from: a data set of the hub at a commit, the digest of files, or what lmmcl draws."""
    data = skill.get("data")
    if data is None:
        return f"made by lmmcl (version {skill['version']})" if "version" in skill else "not recorded"
    parts = [f"{name} {value}" for name, value in data.items() if isinstance(value, str | int) and value]
    return ", ".join(parts) or str(data)


def _held_out(ledger: Ledger, wanted: Mapping[str, Any]) -> list[str]:
    """The held-out benchmarks of the trial that has this checkpoint."""
    trials = (trial for sweep in stored_sweeps(ledger) for trial in sweep["trials"])
    return next((list(trial["held_out"]) for trial in trials if trial["key"] == wanted.get("trial_key")), [])


def _asked(ledger: Ledger, path: str) -> dict[str, dict[str, Any]]:
    """Number of questions and metric of each benchmark that the checkpoint was asked."""
    questions: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    for score in ledger.paths(f"scores/{path.removeprefix('checkpoints/')}"):
        record = ledger.read(score)
        if record is not None:
            questions[record["label"]] = len(record["sample_scores"])
            metrics[record["label"]] = identity_of(ledger, score)["benchmark"]["metric"]["name"]
    return {"questions": questions, "metrics": metrics}


def _hardware(strategy: Mapping[str, Any]) -> str:
    workers = int(strategy.get("workers") or 1)
    return f"{workers} process{'es' * (workers > 1)} on {strategy.get('device')}"
