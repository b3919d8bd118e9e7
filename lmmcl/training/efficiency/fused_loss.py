"""Head and cross entropy in one kernel (Liger's), so that the logits of a large vocabulary are never all in memory.

The loss is computed where the model runs its head, so that whatever happens around that layer (gradients that workers exchange,
weights in another precision) happens as ever; the model's `logits` are then the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.models.head import SCALES, SOFT_CAP, head_layer
from lmmcl.models.processing.padding import IGNORED
from lmmcl.steps.strategy_fit import why_loss_apart

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""From a head's weight (vocabulary, width), hidden states (tokens, width), targets (tokens,) and the head's bias to the sum of
their cross entropies."""


def liger_kernel() -> Kernel:
    """Liger's, which goes through the vocabulary a part at a time and computes its gradients on the way forward."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    fused = LigerFusedLinearCrossEntropyLoss(reduction="sum")
    return lambda weight, hidden, targets, bias: fused(weight, hidden, targets, bias)


def choose_kernel(
    placement: TrainingPlacement, mitigation: TrainingMitigation | None, model: Any
) -> tuple[Kernel | None, str | None]:
    """What computes head and loss in one where `liger` is set, or why nothing does."""
    if not placement.liger:
        return None, None
    note = why_loss_apart(mitigation, placement) or why_not_fused(model)
    return (None, f"no: {note}") if note else (liger_kernel(), None)


def why_not_fused(model: Any) -> str | None:
    """Why a model's loss cannot be computed in its head, in words; None if it can."""
    try:
        head = head_layer(model)
    except UserError as error:
        return error.message
    if type(head) is not nn.Linear:
        return f"its head is a {type(head).__name__}"
    config = model.config.get_text_config()
    after = [name for name in (SOFT_CAP, *SCALES) if getattr(config, name, None) not in (None, 0, 1, 1.0)]
    return f"it computes {after[0]} after its head" if after else None


@contextmanager
def fused_head(model: Any, kernel: Kernel, targets_of: Callable[[int], Tensor]) -> Iterator[None]:
    """Inside the `with`, the model's `logits` are the sum of the cross entropies of its answers, of shape (1, 1, 1).

    `targets_of` gives the targets (batch, predicting positions) for a number of kept positions; see `answer_targets`.
    """
    head = head_layer(model)

    def forward(hidden: Tensor) -> Tensor:
        targets = targets_of(hidden.shape[1])
        taught = targets != IGNORED
        states, wanted = hidden[:, : targets.shape[1]][taught], targets[taught]
        loss = kernel(head.weight, states, wanted, head.bias) if len(wanted) else 0.0 * hidden.sum()
        return loss.float().reshape(1, 1, 1)

    head.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del head.forward
