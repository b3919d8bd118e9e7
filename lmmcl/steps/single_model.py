"""Whether a checkpoint has the weights of one plain model, which can be exported and which other engines can load."""

from __future__ import annotations

from lmmcl.steps.checkpoints import Checkpoint, Finetune, Merge
from lmmcl.steps.lineage import stages_of


def why_no_single_model(checkpoint: Checkpoint) -> str | None:
    """Why it has not, as the end of a sentence; None where it has."""
    if isinstance(checkpoint, Merge) and checkpoint.rule.routes:
        return f"answers with several experts ({checkpoint.rule.name})"
    recipes = [stage.recipe for stage in stages_of(checkpoint) if isinstance(stage, Finetune)]
    growing = any(recipe.adapter and recipe.adapter.adds_experts for recipe in recipes)
    return "has experts that its recipe added" if growing else None
