"""One pass of the model that a stage starts from over the stage's examples, for mitigations that compare with it.

The pass runs before the first update, on the very model that will train; what is kept of it is small and lies on the CPU, so
that no second model is needed. Worker groups share the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from lmmcl.methods.mitigation import LABELS, ROWS, StageContext
from lmmcl.models.processing.padding import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def answer_positions(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """What predicts the answer tokens of a batch: (values, tokens, how many of them each example has).

    Shapes: values (batch, kept, size), logits or hidden states, of the last `kept` columns of labels (batch, length) → (answer
    tokens, size) and (answer tokens,), example after example. The values at a position predict the token after it.
    Raises ValueError when an answer token has no values, or values no label: a model then expanded its images by itself.
    """
    cut = labels.shape[1] - values.shape[1] + 1
    if cut < 1 or bool((labels[:, 1:cut] != IGNORED).any()):
        raise ValueError(f"{values.shape[1]} positions have logits, {labels.shape[1]} have labels")
    labels = labels[:, cut:].to(values.device)
    taught = labels != IGNORED
    return values[:, :-1][taught], labels[taught], taught.sum(dim=1).tolist()


def answer_logits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """`answer_positions` of logits (batch, length, vocabulary): (answer tokens, vocabulary) in fp32; doubles stay doubles."""
    import torch

    spoken, tokens, counts = answer_positions(logits, labels)
    return spoken.to(torch.promote_types(spoken.dtype, torch.float32)), tokens, counts


def score_rows(context: StageContext, score: Callable[[Any, Tensor], tuple[Tensor, list[int]]]) -> dict[int, Tensor]:
    """`score` of the answer tokens of every row that the stage trains on, by row, on the CPU.

    `score` maps (the model's outputs, labels) of a batch to a tensor with one entry (of any shape) for each answer token, and how
    many of them each example has.
    """
    import torch
    from torch import distributed

    shared = distributed.is_available() and distributed.is_initialized()
    workers, rank = (distributed.get_world_size(), distributed.get_rank()) if shared else (1, 0)
    mine = sorted(set(context.rows))[rank::workers]
    by_row: dict[int, Tensor] = {}
    context.model.eval()
    with torch.no_grad():
        for at in range(0, len(mine), context.batch_size):
            rows = mine[at : at + context.batch_size]
            batch = context.batch_of(rows)
            values, counts = score(context.forward(batch), batch["labels"])
            # Clones: pieces of one tensor would each keep all of it alive.
            by_row.update((row, piece.clone()) for row, piece in zip(rows, values.cpu().split(counts), strict=True))
    if workers > 1:
        parts: list[Any] = [None] * workers
        distributed.all_gather_object(parts, by_row)
        by_row = {row: piece for part in parts for row, piece in part.items()}
    return by_row


def kept_of(state: Mapping[int, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """What `score_rows` kept of the answer tokens of a batch, example after example: of those that the batch still teaches.

    A mitigation that it is combined with may have masked some (then LABELS holds all), which are in no mean.
    """
    import torch

    kept = torch.cat([state[row] for row in batch[ROWS].tolist()])
    if LABELS not in batch:
        return kept
    before, after = batch[LABELS][:, 1:], batch["labels"][:, 1:]
    return kept[(after[before != IGNORED] != IGNORED).to(kept.device)]
