"""The stages of a checkpoint as its model card names them: what was taught, on which data, with which settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmmcl.inspection.stored_lineage import StoredStage, identity_of, rules_of, stored_stages
from lmmcl.ledger import Ledger


@dataclass(frozen=True)
class Stage:
    """A stage as its fine-tune was recorded. `targets` are the benchmarks of what it taught; `scores` are of the checkpoint
    that was evaluated after it, in points by benchmark."""

    number: int
    skill: str
    data: str
    training: Mapping[str, Any]
    seed: int
    recipe: str
    mitigation: str | None
    targets: Sequence[str]
    scores: Mapping[str, float] = field(default_factory=dict)


def stages_on_the_way(ledger: Ledger, path: str, trial: Mapping[str, Any]) -> list[StoredStage]:
    """The stages that the weights in `path` come from. Where the checkpoint is one that `trial` evaluates after a stage, each ends
    in what the trial evaluated, as its report has it."""
    stages = stored_stages(ledger, path)
    steps: Mapping[str, str] = trial.get("steps", {})
    if stages and steps.get(str(len(stages))) == path.rsplit("-", 1)[1]:
        return [StoredStage(stage.tuned, _path(ledger, steps[str(n)])) for n, stage in enumerate(stages, start=1)]
    return stages


def card_stage(
    ledger: Ledger, number: int, stored: StoredStage, trial: Mapping[str, Any], scores: Mapping[str, float]
) -> Stage:
    """The stage with this number, as its fine-tune and the merges after it were recorded."""
    identity = identity_of(ledger, stored.tuned)
    if identity["kind"] == "snapshot" and (paths := ledger.checkpoint_paths(identity["finetune"])):
        identity = identity_of(ledger, paths[0])
    rules = rules_of(ledger, stored.end) if stored.end else []
    skill = identity.get("skill") or {"name": stored.tuned.rsplit("/", 1)[1].split("-")[1]}
    parts = [str(part["name"]) for part in (skill.get("skills", [skill]) if "pool" not in skill else [skill])]
    targets = dict(zip(trial.get("skills", []), trial.get("targets", []), strict=False))
    return Stage(
        number=number,
        skill=" + ".join(parts),
        data=_data(skill),
        training=identity.get("training") or {},
        seed=int(identity.get("seed", 0)),
        recipe=_recipe(identity.get("recipe") or {}),
        mitigation=" + ".join(map(_settings, filter(None, [identity.get("mitigation"), *rules]))) or None,
        targets=targets.get(skill["name"], parts),
        scores=scores,
    )


def _path(ledger: Ledger, key: str) -> str | None:
    paths = ledger.checkpoint_paths(key)
    return paths[0] if paths else None


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
    """Where a skill's training data are from: a data set of the hub at a commit, the digest of files, or what lmmcl draws; of
    skills that were taught together each."""
    if "skills" in skill:
        return "; ".join(f"{part['name']}: {_data(part)}" for part in skill["skills"])
    data = skill.get("data")
    if data is None:
        return f"made by lmmcl (version {skill['version']})" if "version" in skill else "not recorded"
    parts = [f"{name} {value}" for name, value in data.items() if isinstance(value, str | int) and value]
    return ", ".join(parts) or str(data)
