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


def answer_logits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """What predicts the answer tokens of a batch: (logits, tokens, how many of them each example has).

    Shapes: logits (batch, kept, vocabulary) of the last `kept` columns of labels (batch, length) → (answer tokens,
    vocabulary) in fp32 (doubles stay doubles) and (answer tokens,), example after example. The logits at a position predict the
    token after it.
    Raises ValueError when an answer token has no logits, or logits no label: a model then expanded its images by itself.
    """
    import torch

    cut = labels.shape[1] - logits.shape[1] + 1
    if cut < 1 or bool((labels[:, 1:cut] != IGNORED).any()):
        raise ValueError(f"{logits.shape[1]} positions have logits, {labels.shape[1]} have labels")
    labels = labels[:, cut:].to(logits.device)
    taught = labels != IGNORED
    spoken = logits[:, :-1][taught]
    return spoken.to(torch.promote_types(spoken.dtype, torch.float32)), labels[taught], taught.sum(dim=1).tolist()


def score_rows(context: StageContext, score: Callable[[Tensor, Tensor], Tensor]) -> dict[int, Tensor]:
    """`score` of the answer tokens of every row that the stage trains on, by row, on the CPU.

    `score` maps (logits, tokens) as `answer_logits` gives them to a tensor with one entry (of any shape) for each token.
    """
    import torch
    from torch import distributed

    shared = distributed.is_available() and distributed.is_initialized()
    workers, rank = (distributed.get_world_size(), distributed.get_rank()) if shared else (1, 0)
    mine = sorted(set(context.rows))[rank::workers]
    found: dict[int, Tensor] = {}
    context.model.eval()
    with torch.no_grad():
        for at in range(0, len(mine), context.batch_size):
            rows = mine[at : at + context.batch_size]
            batch = context.batch_of(rows)
            logits, tokens, counts = answer_logits(context.forward(batch).logits, batch["labels"])
            # Clones: pieces of one tensor would each keep all of it alive.
            pieces = score(logits, tokens).cpu().split(counts)
            found.update((row, piece.clone()) for row, piece in zip(rows, pieces, strict=True))
    if workers > 1:
        parts: list[Any] = [None] * workers
        distributed.all_gather_object(parts, found)
        found = {row: piece for part in parts for row, piece in part.items()}
    return found


def kept_of(memory: Mapping[int, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """What `score_rows` kept of the answer tokens of a batch, example after example: of those that the batch still teaches.

    A mitigation that it is combined with may have masked some (then LABELS holds all), which are in no mean.
    """
    import torch

    kept = torch.cat([memory[row] for row in batch[ROWS].tolist()])
    if LABELS not in batch:
        return kept
    before, after = batch[LABELS][:, 1:], batch["labels"][:, 1:]
    return kept[(after[before != IGNORED] != IGNORED).to(kept.device)]
