"""The checkpoint after a stage that merges, or whose mitigation keeps an expert for each skill and a router among them.

Each skill counts once: where one came again, its latest fine-tune replaces the earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmmcl.methods.merging.mr_lora import MRLoRA
from lmmcl.methods.merging.task_arithmetic import TaskArithmetic
from lmmcl.methods.mitigation import MergeMitigation
from lmmcl.steps.checkpoints import Checkpoint, Finetune, Merge
from lmmcl.steps.keys import canonical_json
from lmmcl.tasks.routing import pool_of, router_skill


def merge_of(anchor: Checkpoint, finetunes: Sequence[Finetune], rule: MergeMitigation[Any]) -> Merge:
    """The merge of the latest of `finetunes` for each skill; with a router where the rule routes and there are several experts."""
    finetunes = _latest(finetunes)
    router = _router(anchor, finetunes, rule) if isinstance(rule, MRLoRA) and len(finetunes) > 1 else None
    return Merge(anchor, tuple(finetunes), rule, router=router)


def _latest(finetunes: Sequence[Finetune]) -> list[Finetune]:
    """The last fine-tune of every skill, oldest first."""
    latest: dict[str, Finetune] = {}
    for finetune in finetunes:
        skill = canonical_json(finetune.skill.identity())
        latest.pop(skill, None)  # so that it comes last
        latest[skill] = finetune
    return list(latest.values())


def _router(anchor: Checkpoint, finetunes: Sequence[Finetune], rule: MRLoRA) -> Finetune:
    """It starts from the mean of the experts, and is trained as the last of them but for what the rule says."""
    last = finetunes[-1]
    mean = Merge(anchor, tuple(finetunes), TaskArithmetic(scale=1 / len(finetunes)))
    own = {"learning_rate": rule.learning_rate, "epochs": rule.epochs, "max_steps": None, "examples": None}
    skills = [finetune.skill for finetune in finetunes]
    skill = router_skill(skills, pool_of(skills, dict(rule.descriptions)), rule.examples)
    return Finetune(mean, last.recipe, None, skill, last.training.model_copy(update=own), last.seed)
