"""From a checkpoint back to where it came from: the stages and the skills on the way; which steps do alike work."""

from __future__ import annotations

from lmmcl.steps.checkpoints import Checkpoint, Finetune, Merge, Snapshot, StepBase
from lmmcl.tasks.skills import Skill


def stages_of(checkpoint: Checkpoint, since: Checkpoint | None = None) -> list[Checkpoint]:
    """The fine-tunes on the way to `checkpoint` (from `since` on), oldest first; of a merge its latest. A checkpoint that was
    read back from the ledger stands for itself, for it knows no more."""
    stages: list[Checkpoint] = []
    at = checkpoint
    while at.parents and (since is None or at.key != since.key):
        stage = at.tuned if isinstance(at, Merge) else at
        stages.append(stage)
        at = stage.parents[0]
    return stages[::-1]


def skills_of(checkpoint: Checkpoint, since: Checkpoint | None = None) -> list[Skill]:
    """The skills taught on the way to `checkpoint` (from `since` on), oldest first."""
    return [stage.skill for stage in stages_of(checkpoint, since) if isinstance(stage, Finetune)]


def examples_of(checkpoint: Checkpoint, since: Checkpoint | None = None) -> list[int | None]:
    """How many examples of each of `skills_of` were taught at most (None: all), in the same order."""
    return [stage.training.examples for stage in stages_of(checkpoint, since) if isinstance(stage, Finetune)]


def alike(step: StepBase) -> list[str]:
    """What a step shares with those that take as long: of a stage skill, recipe and mitigation; not its place, rate and seed."""
    match step:
        case Finetune():
            protected = [step.mitigation.name] if step.mitigation else []
            return [step.skill.name, step.recipe.label, *protected]
        case Snapshot():
            return [*alike(step.finetune), f"u{step.update}"]
        case Merge():
            return [*alike(step.finetunes[-1]), step.rule.name]
    return [step.label]
