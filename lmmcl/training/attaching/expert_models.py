"""Models of a stage with experts, which stay in them: an MLP's copy, or LoRA adapters in linear layers."""

from __future__ import annotations

from transformers import PreTrainedModel

from lmmcl.methods.recipes.adapters import MoE
from lmmcl.methods.recipes.moelora import MoELoRA
from lmmcl.models.experts import grow, roles_in
from lmmcl.models.experts.lora_experts import LoRAExperts, added_names, expert_layers
from lmmcl.models.experts.two_experts import mlp_modules
from lmmcl.models.linears import linear_modules
from lmmcl.models.roles import select
from lmmcl.steps import Finetune
from lmmcl.training.stage.trainable import TrainableModel, module_of, stage_seed
from lmmcl.training.stage_errors import StageError
from lmmcl.weights.quantized_base import named_tensors


class MoEModel(TrainableModel):
    """A model with two experts in some MLPs: those that its parent gave it, or fresh ones."""

    def __init__(self, step: Finetune, model: PreTrainedModel, adapter: MoE) -> None:
        had = set(named_tensors(model))
        chosen = select(roles_in(step.model, model), adapter.targets, model=step.model.name)
        grow(model, mlp_modules(roles_in(step.model, model), chosen))
        super().__init__(step, model)
        own = adapter.trained_roles({self.roles[name] for name in chosen})
        self.trained = sorted([*self.trained, *(name for name, role in self.roles.items() if role in own)])
        self.saved_names = list(self.trained)
        self.added_names = [name for name in named_tensors(model) if name not in had]


class MoELoRAModel(TrainableModel):
    """A model with LoRA experts in some linear layers: those that its parent gave it, or fresh ones."""

    def __init__(self, step: Finetune, model: PreTrainedModel, adapter: MoELoRA) -> None:
        had, there = set(named_tensors(model)), expert_layers(model)
        chosen = select(roles_in(step.model, model), adapter.targets, model=step.model.name)
        weights = linear_modules(model).keys() | {f"{layer}.weight" for layer in there}
        layers = [module_of(name) for name in sorted(chosen & weights)]
        experts = LoRAExperts(adapter.experts, adapter.expert_rank, adapter.scale, adapter.dropout, stage_seed(step))
        if wrong := [
            name for name, had_experts in there.items() if name in layers and not had_experts.is_like(experts)
        ]:
            raise StageError.of(step, f"{len(wrong)} layers have other experts than {adapter.label}: {wrong[0]}")
        grow(model, [experts.entry(layer) for layer in layers])
        super().__init__(step, model)
        self.trained = sorted([*self.trained, *added_names(layers)])
        self.saved_names = list(self.trained)
        self.added_names = [name for name in named_tensors(model) if name not in had]
