"""KL to the start model on the stage's own prompts and answers: stay near what the stage's start model said there.

    loss = CE + weight · mean_t KL_t

over the whole vocabulary, averaged over the answer tokens of the update. `forward` is KL(start ‖ model), the divergence that RL's
Razor (Shenfeld, Pari, Agrawal 2025, arXiv 2509.04259) finds to go with forgetting, and what LwF at T = 1 adds; it is dear to miss
what the start model would have said. `reverse` is KL(model ‖ start), the penalty of reinforcement learning from feedback; it is
dear to say what the start model would not have said. On answers that the model samples itself: `kl_on_samples`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from lmmcl.methods.losses.start_head import divergence_from_start, hidden_states
from lmmcl.methods.losses.start_model import kept_of
from lmmcl.methods.mitigation import StageContext, TrainingMitigation

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class KLToStart(TrainingMitigation[dict[str, Any]]):
    """Adds weight · KL between the start model and the model on the answer tokens, in the direction that is set."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "kl_to_start"
    keeps_state: ClassVar[bool] = True
    version: ClassVar[int] = 1
    needs_all_logits: ClassVar[bool] = False

    weight: float = Field(default=1.0, ge=0, description="of the divergence, in nats a token")
    direction: Literal["forward", "reverse"] = Field(
        default="forward", description="KL(start ‖ model), or KL(model ‖ start)"
    )

    @property
    def runs_head(self) -> bool:
        return True

    @property
    def compares_logits(self) -> bool:
        return False

    def start(self, context: StageContext) -> dict[str, Any]:
        """The start model's hidden states of every answer token, and how they become logits."""
        return hidden_states(context, self.name)

    def token_penalty(
        self, state: dict[str, Any], model: PreTrainedModel, outputs: Any, batch: Mapping[str, Tensor]
    ) -> Tensor:
        """weight · KL in nats, summed over the answer tokens of the batch."""
        taught = kept_of(state["rows"], batch)
        return self.weight * divergence_from_start(state, model, batch, taught, reverse=self.direction == "reverse")

    def findings(self, state: dict[str, Any]) -> dict[str, Any]:
        """What was kept of the start model."""
        kept = sum(piece.nbytes for piece in state["rows"].values())
        return {"kept_bytes": kept, "head": "copied" if "head" in state else "shared"}


MITIGATIONS = (KLToStart,)
