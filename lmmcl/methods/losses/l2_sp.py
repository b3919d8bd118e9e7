"""L2-SP: hold the weights near where the stage started (Li, Grandvalet, Davoine 2018, "Explicit Inductive Bias", eq. 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lmmcl.methods.mitigation import StageContext, TrainingMitigation, total

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class L2SP(TrainingMitigation["dict[str, Tensor]"]):
    """Adds (weight / 2)·‖θ − θ₀‖² over the trained parameters θ, where θ₀ are their values at the start of the stage."""

    name = "l2_sp"
    version = 1
    copies = 1
    needs_all_logits = False

    weight: float = Field(default=0.01, ge=0, description="of the penalty")

    def start(self, context: StageContext) -> dict[str, Tensor]:
        """Copies of the trained parameters, by name: θ₀."""
        own = dict(context.model.named_parameters())
        return {name: own[name].detach().clone() for name in context.trained}

    def penalty(
        self, state: dict[str, Tensor], model: PreTrainedModel, outputs: Any, batch: Mapping[str, Tensor]
    ) -> Tensor:
        """The penalty, a scalar: the same for every batch of an update, so that it does not depend on how the update is cut."""
        own = dict(model.named_parameters())
        return self.weight / 2 * total((own[name] - start).square().sum() for name, start in state.items())


MITIGATIONS = (L2SP,)
