"""Which checkpoints see images as their base does: neither its vision tower nor its projector was trained on the way to them."""

from __future__ import annotations

from lmmcl.models.lmm import LMM
from lmmcl.models.roles import select
from lmmcl.steps.checkpoints import Checkpoint, Finetune, Pretrained

VISION = ("vision", "projector")
"""Parts (first words of roles) that make features of an image."""
FAMILIES = ("llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl")
"""Whose features of all images are worked out in one call and then put in the place of the image tokens, one picture's after
another's (see `lmmcl.weights.image_features.pictures`)."""


def is_vision(role: str) -> bool:
    """Whether a role is of the vision tower or the projector."""
    return role.partition(".")[0] in VISION


def sees_as_base(checkpoint: Checkpoint) -> bool:
    """Whether nothing of the vision tower and the projector was trained on the way to a checkpoint."""
    if isinstance(checkpoint, Pretrained):
        return True
    own = not isinstance(checkpoint, Finetune) or not trains_vision(checkpoint)
    return own and all(sees_as_base(parent) for parent in checkpoint.parents)


def trains_vision(step: Finetune) -> bool:
    """Whether a stage trains the vision tower or the projector, itself or by an adapter."""
    roles = {role: role for role in step.model.role_counts()}
    recipe = step.recipe
    chosen = set(select(roles, recipe.train, model=step.model.name)) if recipe.train else set()
    if recipe.adapter:
        chosen |= set(select(roles, recipe.adapter.targets, model=step.model.name))
    return any(map(is_vision, chosen))


def can_cache(lmm: LMM) -> bool:
    """Whether features of images can be kept for a model."""
    return lmm.family in FAMILIES
