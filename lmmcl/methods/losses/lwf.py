"""LwF, learning without forgetting: stay near what the stage's start model would have said on the new examples.

Li and Hoiem 2016, "Learning without Forgetting" (arXiv 1606.09282), in the form that LMM-CL (arXiv 2510.08564) compares:

    loss = CE + λ · T² · KL(p ‖ q),   p = softmax(teacher / T),  q = softmax(student / T)

averaged over the answer tokens of the update, as the cross entropy is. T² keeps the size of the gradient when T changes
(Hinton, Vinyals, Dean 2015, section 2). The teacher is the model at the start of the stage.

The teacher speaks once, before the first update, and only its `top_k` most likely tokens are kept. All other tokens are one
further outcome, whose probability is what is left: nothing is renormalised, and the kept probabilities are those over the whole
vocabulary. The divergence over these k + 1 outcomes is never above the full one, and equals it for k = vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, Field

from lmmcl.methods.losses.start_model import answer_logits, kept_of, score_rows
from lmmcl.methods.mitigation import StageContext, TrainingMitigation

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class LwF(TrainingMitigation):
    """Learning without forgetting: adds λ·T²·KL(start model ‖ model) on the answer tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "lwf"
    keeps_state: ClassVar[bool] = True
    version: ClassVar[int] = 1
    needs_all_logits: ClassVar[bool] = False

    weight: float = Field(default=1.0, ge=0, description="λ")
    temperature: float = Field(default=2.0, gt=0, description="T")
    top_k: int | None = Field(
        default=64,
        ge=1,
        description="tokens kept of the teacher for each answer token (8 bytes each); null: the whole vocabulary",
    )

    def start(self, context: StageContext) -> dict[int, Tensor]:
        """What the teacher says about every row, see `_spoken`."""
        return score_rows(context, lambda logits, tokens: self._spoken(logits))

    def _spoken(self, logits: Tensor) -> Tensor:
        """Of (tokens, vocabulary): the k largest log-probabilities at temperature T, then the tail's, then the k ids.

        Shape (tokens, 2k + 1), fp32, in which ids below 2²⁴ are exact. For k = vocabulary the tail is −inf.
        """
        import torch

        spoken = (logits / self.temperature).log_softmax(dim=-1)
        kept, ids = spoken.topk(min(self.top_k or spoken.shape[-1], spoken.shape[-1]), dim=-1)
        return torch.cat([kept, _tail(spoken, ids), ids.float()], dim=-1)

    def token_penalty(self, memory: Any, model: PreTrainedModel, outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """λ·T²·KL, summed over the answer tokens of the batch."""
        import torch

        logits, _, _ = answer_logits(outputs.logits, batch["labels"])
        taught = kept_of(memory, batch).to(logits.device)
        k = taught.shape[-1] // 2
        teacher, ids = taught[:, : k + 1], taught[:, k + 1 :].long()
        spoken = (logits / self.temperature).log_softmax(dim=-1)
        student = spoken.gather(-1, ids)
        if k < spoken.shape[-1]:
            student = torch.cat([student, _tail(spoken, ids)], dim=-1)
        else:
            teacher = teacher[:, :k]
        divergence = (teacher.exp() * (teacher - student)).sum()
        return self.weight * self.temperature**2 * divergence


def _tail(spoken: Tensor, ids: Tensor) -> Tensor:
    """The log-probability of all tokens but `ids`; shape (tokens, 1)."""
    return spoken.scatter(-1, ids, float("-inf")).logsumexp(dim=-1, keepdim=True)


MITIGATIONS = (LwF,)
