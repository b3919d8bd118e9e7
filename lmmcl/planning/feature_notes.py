"""What kept features of images save a sweep: stages and evaluations that need no vision tower, because another one made them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from lmmcl.config.cluster import Cluster
from lmmcl.models.lmm import LMM
from lmmcl.steps import Evaluate, Finetune
from lmmcl.steps.frozen_vision import FAMILIES, can_cache, sees_as_base, trains_vision
from lmmcl.steps.keys import canonical_json


def feature_notes(missing: Iterable[Any], cluster: Cluster) -> tuple[str, ...]:
    """A sentence for each of training and evaluation whose features the cluster file keeps; nothing where it keeps none."""
    steps = list(missing)
    kept: dict[str, tuple[str | None, list[Any]]] = {
        "stages": (cluster.training.features, [step for step in steps if isinstance(step, Finetune)]),
        "evaluations": (cluster.evaluation.features, [step for step in steps if isinstance(step, Evaluate)]),
    }
    return tuple(_note(word, group) for word, (folder, group) in kept.items() if folder and group)


def _note(word: str, steps: list[Any]) -> str:
    frozen = [step for step in steps if _is_frozen(step)]
    firsts = len({_calls(step) for step in frozen})
    text = f"image features: {len(frozen) - firsts} of {len(steps)} {word} read those that {firsts} others make"
    if rest := len(steps) - len(frozen):
        families = sorted({_lmm(step).family for step in steps if not can_cache(_lmm(step))})
        unknown = f" or their family ({', '.join(families)}) is not one of {', '.join(FAMILIES)}" if families else ""
        text += f"; {rest} make their own: their tower or projector is trained{unknown}"
    return text


def _is_frozen(step: Finetune | Evaluate) -> bool:
    if not can_cache(_lmm(step)):
        return False
    if isinstance(step, Evaluate):
        return sees_as_base(step.checkpoint)
    return sees_as_base(step.parent) and not trains_vision(step)


def _calls(step: Finetune | Evaluate) -> Hashable:
    """Equal for steps that show the same batches of pictures to the same tower."""
    model = canonical_json(_lmm(step).identity())
    if isinstance(step, Evaluate):
        return model, canonical_json(step.fields())
    training = step.training
    batches = (training.global_batch_size, training.examples, training.epochs, training.max_steps, training.precision)
    return model, canonical_json(step.skill.identity()), step.seed, batches


def _lmm(step: Finetune | Evaluate) -> LMM:
    model: LMM = step.checkpoint.model if isinstance(step, Evaluate) else step.model
    return model
