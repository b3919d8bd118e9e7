"""From a checkpoint back to where it came from: the stages and the skills on the way."""

from __future__ import annotations

from lmmcl.spec.steps.checkpoints import Checkpoint, Finetune, Merge
from lmmcl.tasks.base import Skill


def stages_of(checkpoint: Checkpoint, since: Checkpoint | None = None) -> list[Checkpoint]:
    """The fine-tunes on the way to `checkpoint` (from `since` on), oldest first; of a merge its latest. A checkpoint that was
    read back from the ledger stands for itself, for it knows no more."""
    found: list[Checkpoint] = []
    at = checkpoint
    while at.parents and (since is None or at.key != since.key):
        stage = at.tuned if isinstance(at, Merge) else at
        found.append(stage)
        at = stage.parents[0]
    return found[::-1]


def skills_of(checkpoint: Checkpoint, since: Checkpoint | None = None) -> list[Skill]:
    """The skills taught on the way to `checkpoint` (from `since` on), oldest first."""
    return [stage.skill for stage in stages_of(checkpoint, since) if isinstance(stage, Finetune)]
