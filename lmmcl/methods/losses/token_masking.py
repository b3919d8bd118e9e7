"""STM, selective token masking: answer tokens that surprise the start model are not taught.

Wu et al. 2025, "Mitigating Forgetting in LLM Fine-Tuning via Low-Perplexity Token Learning" (arXiv 2501.14315): a token
with perplexity 1 / p(token | what comes before it) above a threshold, 2.5 in the paper, is left out of the loss. p is that
of the model at the start of the stage, measured once before the first update with the true tokens before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, Field

from lmmcl.errors import UserError
from lmmcl.methods.losses.start_model import answer_logits, score_rows
from lmmcl.methods.mitigation import ROWS, StageContext, TrainingMitigation
from lmmcl.models.processing.padding import IGNORED

if TYPE_CHECKING:
    from torch import Tensor


class TokenMasking(TrainingMitigation["dict[int, Tensor]"]):
    """Leaves out answer tokens whose perplexity under the start model is above `threshold`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "token_masking"
    keeps_state: ClassVar[bool] = True
    version: ClassVar[int] = 1

    threshold: float = Field(default=2.5, gt=1, description="perplexity above which a token is not taught")

    def start(self, context: StageContext) -> dict[int, Tensor]:
        """For every row: which of its answer tokens are taught, (answer tokens,). Raises UserError when none is in the stage."""
        taught = score_rows(context, self._taught)
        if not any(bool(mask.any()) for mask in taught.values()):
            raise UserError(
                f"no answer token has a perplexity of {self.threshold:g} or less", place="token_masking.threshold"
            )
        return taught

    def _taught(self, outputs: Any, labels: Tensor) -> tuple[Tensor, list[int]]:
        logits, tokens, counts = answer_logits(outputs.logits, labels)
        perplexity = (-logits.log_softmax(dim=-1).gather(-1, tokens[:, None])[:, 0]).exp()
        return perplexity <= self.threshold, counts

    def batch(self, state: dict[int, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with the labels (batch, length) of surprising tokens set to -100."""
        import torch

        labels = batch["labels"].clone()
        answers = labels[:, 1:] != IGNORED
        taught = torch.cat([state[row] for row in batch[ROWS].tolist()])
        labels[:, 1:][answers] = labels[:, 1:][answers].where(taught, IGNORED)
        return {**batch, "labels": labels}


MITIGATIONS = (TokenMasking,)
