"""Put into a model what the recipe of a stage adds to it."""

from __future__ import annotations

from transformers import PreTrainedModel

from lmmcl.methods.recipes.adapters import MoE
from lmmcl.methods.recipes.moelora import MoELoRA
from lmmcl.steps import Finetune
from lmmcl.training.attaching.expert_models import MoELoRAModel, MoEModel
from lmmcl.training.stage.trainable import Adapted, TrainableModel


def attach(step: Finetune, model: PreTrainedModel) -> TrainableModel:
    """`model` with what the recipe of `step` adds to it (in place). Raises UserError when a selector matches nothing."""
    match step.recipe.adapter:
        case None:
            return TrainableModel(step, model)
        case MoE() as experts:
            return MoEModel(step, model, experts)
        case MoELoRA() as experts:
            return MoELoRAModel(step, model, experts)
        case adapter:
            return Adapted(step, model, adapter)
