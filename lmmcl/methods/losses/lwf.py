"""LwF, learning without forgetting: stay near what the stage's start model would have said on the new examples.

Li and Hoiem 2016, "Learning without Forgetting" (arXiv 1606.09282), in the form that LMM-CL (arXiv 2510.08564) compares:

    loss = CE + λ · T² · KL(p ‖ q),   p = softmax(teacher / T),  q = softmax(student / T)

averaged over the answer tokens of the update, as the cross entropy is. T² keeps the size of the gradient when T changes
(Hinton, Vinyals, Dean 2015, section 2). The teacher is the model at the start of the stage.

The teacher passes over the stage's examples once, before the first update, and no second model is needed. What is kept of it:

- by default its last hidden states of the answer tokens. They go through its head, some tokens at a time, beside the student's,
  and the divergence is the full one (see `divergence.py`). Where the head itself trains, a frozen copy of it is kept.
- with `top_k` its likeliest tokens alone, for models with another kind of head. All other tokens are one further outcome, whose
  probability is what is left: nothing is renormalised. The divergence over these k + 1 outcomes is never above the full one.
  On a language model it is far below: with 64 tokens of 49,152 at T = 2, 0.29 to 0.38 of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, Field

from lmmcl.methods.losses.start_head import divergence_from_start, hidden_states
from lmmcl.methods.losses.start_model import answer_logits, kept_of, score_rows
from lmmcl.methods.mitigation import StageContext, TrainingMitigation

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

REMEDY = "; lwf with top_k (such as top_k: 1024) compares the likeliest tokens alone and needs no head"


class LwF(TrainingMitigation[dict[str, Any]]):
    """Learning without forgetting: adds λ·T²·KL(start model ‖ model) on the answer tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "lwf"
    keeps_state: ClassVar[bool] = True
    version: ClassVar[int] = 2
    needs_all_logits: ClassVar[bool] = False

    weight: float = Field(default=1.0, ge=0, description="λ")
    temperature: float = Field(default=2.0, gt=0, description="T")
    top_k: int | None = Field(
        default=None,
        ge=1,
        description="compare only this number of the start model's likeliest tokens, and all others as one; default: the whole "
        "vocabulary",
    )

    def identity(self) -> dict[str, Any]:
        """What enters a key. With `top_k` what is computed is what it was before the whole vocabulary became the default."""
        return super().identity() | ({} if self.top_k is None else {"version": 1})

    @property
    def runs_head(self) -> bool:
        return self.top_k is None

    @property
    def compares_logits(self) -> bool:
        return self.top_k is not None

    def start(self, context: StageContext) -> dict[str, Any]:
        """What the teacher says about every row (see `hidden_states` and `_spoken`), and what else is needed to read it."""
        if self.top_k is not None:
            covered: list[Tensor] = []
            rows = score_rows(context, lambda outputs, labels: self._spoken(outputs, labels, covered))
            return {"rows": rows, "covered": _means(covered)}
        return hidden_states(context, self.name, REMEDY)

    def _spoken(self, outputs: Any, labels: Tensor, covered: list[Tensor]) -> tuple[Tensor, list[int]]:
        """The k largest log-probabilities at temperature T, then the tail's, then the k ids, and how many tokens each row has.

        Shape (tokens, 2k + 1), fp32, in which ids below 2²⁴ are exact. For k = vocabulary the tail is −inf.
        """
        import torch

        assert self.top_k is not None
        logits, _, counts = answer_logits(outputs.logits, labels)
        spoken = (logits / self.temperature).log_softmax(dim=-1)
        kept, ids = spoken.topk(min(self.top_k, spoken.shape[-1]), dim=-1)
        covered.append(kept.exp().sum(dim=-1).cpu())
        return torch.cat([kept, _tail(spoken, ids), ids.float()], dim=-1), counts

    def token_penalty(
        self, state: dict[str, Any], model: PreTrainedModel, outputs: Any, batch: Mapping[str, Tensor]
    ) -> Tensor:
        """λ·T²·KL in nats, summed over the answer tokens of the batch: a scalar."""
        taught = kept_of(state["rows"], batch)
        if self.top_k is not None:
            return self.weight * self.temperature**2 * self._kept_divergence(taught, outputs, batch)
        divergence = divergence_from_start(state, model, batch, taught, temperature=self.temperature)
        return self.weight * self.temperature**2 * divergence

    def _kept_divergence(self, taught: Tensor, outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """KL over the kept tokens and one outcome for all others."""
        import torch

        logits, _, _ = answer_logits(outputs.logits, batch["labels"])
        taught = taught.to(logits.device)
        k = taught.shape[-1] // 2
        teacher, ids = taught[:, : k + 1], taught[:, k + 1 :].long()
        spoken = (logits / self.temperature).log_softmax(dim=-1)
        student = spoken.gather(-1, ids)
        if k < spoken.shape[-1]:
            student = torch.cat([student, _tail(spoken, ids)], dim=-1)
        else:
            teacher = teacher[:, :k]
        return (teacher.exp() * (teacher - student)).sum()

    def findings(self, state: dict[str, Any]) -> dict[str, Any]:
        """What was kept of the start model: with `top_k` the share of its probability (at temperature T) that is covered."""
        kept = sum(piece.nbytes for piece in state["rows"].values())
        if self.top_k is not None:
            return {"top_k": self.top_k, "covered_probability": state["covered"], "kept_bytes": kept}
        return {"vocabulary": "whole", "kept_bytes": kept, "head": "copied" if "head" in state else "shared"}


def _means(pieces: list[Tensor]) -> float:
    import torch

    return float(torch.cat(pieces).mean()) if pieces else 0.0


def _tail(spoken: Tensor, ids: Tensor) -> Tensor:
    """The log-probability of all tokens but `ids`; shape (tokens, 1)."""
    return spoken.scatter(-1, ids, float("-inf")).logsumexp(dim=-1, keepdim=True)


MITIGATIONS = (LwF,)
