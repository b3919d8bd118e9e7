"""The loss of a stage: cross entropy at answer tokens, from the logits of those positions alone where a model lets them be cut."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lmmcl.models.processing.padding import IGNORED

TokenWeights = Callable[[Tensor, Tensor], Tensor | None]
"""From the logits of answer tokens and these tokens to a factor for each."""


def answer_span(labels: Tensor) -> int:
    """Columns from the first answer token of a left-padded batch, of shape (batch, tokens), to the end."""
    return labels.shape[1] - int((labels != IGNORED).any(dim=0).int().argmax())


def answer_columns(labels: Tensor) -> Tensor:
    """The columns (n,) of a batch (batch, tokens) whose next token is an answer's in some row: whose logits are needed."""
    return (labels[:, 1:] != IGNORED).any(dim=0).nonzero().flatten()


def answer_targets(labels: Tensor, kept: int, columns: Tensor | None = None) -> Tensor:
    """What the first of `kept` positions are to predict (IGNORED where nothing), of shape (batch, predicting positions).

    The kept positions are the last columns of `labels` (batch, all tokens), where the very last predicts nothing; or those that
    `columns` names first.
    """
    if columns is not None:
        return labels[:, columns + 1]
    return labels[:, labels.shape[1] - kept + 1 :]


def answer_loss(
    logits: Tensor,
    labels: Tensor,
    tokens: Tensor | int,
    columns: Tensor | None = None,
    token_weights: TokenWeights | None = None,
) -> Tensor:
    """Sum of the cross entropies of the answer tokens, each times its factor, divided by `tokens`, those of the global batch.

    `logits` (batch, kept, vocabulary) are those of the positions that `answer_targets` speaks of.
    """
    targets = answer_targets(labels, logits.shape[1], columns)
    taught = targets != IGNORED
    answers, targets = logits[:, : targets.shape[1]][taught], targets[taught]
    answers = answers.to(torch.promote_types(answers.dtype, torch.float32))
    factors = token_weights(answers.detach(), targets) if token_weights else None
    if factors is None:
        return cross_entropy(answers, targets, reduction="sum") / tokens
    return (factors * cross_entropy(answers, targets, reduction="none")).sum() / tokens
