"""Teacher forcing: reference answers fed to a model, and the positions at which each of their tokens is predicted.

Positions are those of the encoded tokens, in which an image stands as often as it has features: nothing moves when the
images are put in, and padding lies on the left.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from lmmcl.evaluation.encodings import Row
from lmmcl.models.processing.padding import IGNORED, pad


@dataclass(frozen=True)
class Answers:
    """A padded batch with, for each answer token: its row, the position that predicts it, and the token; all (tokens,)."""

    batch: dict[str, Tensor]
    row: Tensor
    position: Tensor
    token: Tensor

    @property
    def first(self) -> int:
        """The earliest predicting position of the batch."""
        return int(self.position.min())


def answers(processor: ProcessorMixin, rows: Sequence[Row]) -> Answers:
    """The batch of rows that were encoded with their answers (`labels`), which are taken out of it."""
    batch = pad(processor, [encoded for _, encoded in rows])
    labels = batch.pop("labels")
    row, at = (labels != IGNORED).nonzero(as_tuple=True)
    return Answers(batch, row, at - 1, labels[row, at])


@torch.inference_mode()
def forward(model: PreTrainedModel, answered: Answers) -> Tensor:
    """Logits (tokens, vocabulary) that predict each answer token, on the model's device in its precision.

    Only the end of the sequences, from the first position needed, passes the LM head where the model supports that: with
    thousands of image tokens the logits of all positions would not fit in memory. Raises ValueError for a model that
    does not keep the positions of the encoded tokens.
    """
    placed = {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in answered.batch.items()
    }
    length = answered.batch["input_ids"].shape[1]
    keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
    first = answered.first if keeps else 0
    kept = {"logits_to_keep": length - first} if keeps else {}
    logits = model(**placed, use_cache=False, **kept).logits
    if logits.shape[1] != length - first:
        raise ValueError(
            f"{type(model).__name__} gave logits of {logits.shape[1]} positions for {length - first} tokens"
        )
    return logits[answered.row.to(logits.device), (answered.position - first).to(logits.device)]


def per_row(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """Means of `values` (…, tokens) over the tokens of each row, as (…, rows); `row` (tokens,) says which row a token is of."""
    counts = torch.bincount(row, minlength=rows).to(values.dtype)
    sums = values.new_zeros(*values.shape[:-1], rows).index_add_(-1, row, values)
    return sums / counts
