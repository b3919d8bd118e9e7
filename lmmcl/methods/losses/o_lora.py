"""O-LoRA: each skill learns in a subspace orthogonal to those of the skills before (Wang et al. 2023, arXiv 2310.14152)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from lmmcl.errors import UserError
from lmmcl.methods.mitigation import StageContext, TrainingMitigation, total

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from lmmcl.methods.recipes.recipe import Recipe


class OLoRA(TrainingMitigation["list[tuple[Tensor, Tensor]]"]):
    """Adds weight · Σ ‖Aᵢ·Aᵀ‖² (eq. 8) over the adapted layers and the adapters i of earlier stages; goes with LoRA recipes.

    A (rank × inputs) is the adapter's first matrix. The first stage has nothing to be orthogonal to.
    """

    name = "o_lora"
    version = 1
    needs_all_logits: ClassVar[bool] = False

    weight: float = Field(default=0.5, ge=0, description="of the penalty")

    def check_recipe(self, recipe: Recipe) -> None:
        if recipe.adapter is None or recipe.adapter.kind != "lora":
            raise UserError(f"o_lora needs a recipe with a LoRA adapter, and {recipe.name!r} has none; try lora")

    def start(self, context: StageContext) -> list[tuple[Tensor, Tensor]]:
        """For each adapted layer: the A that will train, and the earlier ones below each other."""
        import torch

        own = dict(context.model.named_parameters())
        earlier = context.earlier_adapters()
        pairs: list[tuple[Tensor, Tensor]] = []
        for name in context.trained:
            if ".lora_A." in name and (before := [adapter[name] for adapter in earlier if name in adapter]):
                pairs.append((own[name], torch.cat(before).to(own[name])))
        return pairs

    def penalty(
        self, state: list[tuple[Tensor, Tensor]], model: PreTrainedModel, outputs: Any, batch: Mapping[str, Tensor]
    ) -> Tensor | None:
        """The same for every batch of an update."""
        if not state:
            return None
        return self.weight * total((before @ own.T).square().sum() for own, before in state)


MITIGATIONS = (OLoRA,)
