"""Answers drawn token by token, each from numbers of its own: the same however rows are batched or shared among workers.

The n-th token of an answer is where the cumulated distribution passes the n-th of its uniform numbers. A stage that is killed and
resumed draws the same answers, since the numbers follow from seed, update and row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmcl.models.generation.decoding import answering, stop_tokens
from lmmcl.models.processing.answers import control_tokens
from lmmcl.models.processing.padding import IGNORED, PER_TOKEN, pad

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, ProcessorMixin

_STREAM = 29
"""Keeps these draws apart from others of the same seed."""


def uniforms(seed: int, update: int, row: int, answer: int, count: int) -> list[float]:
    """The numbers from 0 to 1 that decide the tokens of one answer: they depend on nothing else."""
    return np.random.default_rng([seed, _STREAM, update, row, answer]).random(count).tolist()


def draw(probabilities: Tensor, numbers: Tensor) -> Tensor:
    """The token of each row of `probabilities` (rows, vocabulary) that `numbers` (rows,), from 0 to 1, decide: (rows,)."""
    import torch

    cumulated = probabilities.double().cumsum(-1)
    targets = (numbers.to(cumulated) * cumulated[:, -1])[:, None]
    return torch.searchsorted(cumulated, targets, right=True)[:, 0].clamp(max=cumulated.shape[-1] - 1)


def sample_answers(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prompts: Sequence[dict[str, Tensor]],
    numbers: Sequence[Sequence[float]],
    *,
    temperature: float,
    prepare: Callable[[dict[str, Tensor]], dict[str, Any]],
) -> list[list[int]]:
    """The tokens of an answer to each of the encoded `prompts`, with the one that ends it where it ends within its numbers.

    Control tokens but those that end an answer are not drawn: a model that says an image's token could not read its own answer.
    `prepare` places a batch where the model is. The model comes back in the mode it was in.
    """
    import torch
    from transformers import LogitsProcessor, LogitsProcessorList

    silent = sorted(control_tokens(processor) - stop_tokens(processor))
    decided = torch.tensor(numbers, dtype=torch.float64)
    batch = pad(processor, prompts)
    length = batch["input_ids"].shape[1]

    class Draw(LogitsProcessor):
        """Leaves the drawn token alone for the greedy choice that follows."""

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            at = input_ids.shape[1] - length
            spoken = scores.float().index_fill(-1, torch.tensor(silent, device=scores.device), float("-inf"))
            tokens = draw((spoken / temperature).softmax(-1), decided[:, at].to(scores.device))
            return torch.full_like(scores, float("-inf")).scatter(-1, tokens[:, None], 0.0)

    with torch.no_grad(), answering(model, processor):
        ends = set(model.generation_config.eos_token_id)
        generate: Any = model.generate
        sequences = generate(
            **prepare(batch), max_new_tokens=decided.shape[1], logits_processor=LogitsProcessorList([Draw()])
        )
    return [_ended(row, ends) for row in sequences[:, length:].tolist()]


def _ended(tokens: list[int], ends: set[int]) -> list[int]:
    """The tokens up to the first that ends the answer; a row that ended early was filled up."""
    return tokens[: next((at + 1 for at, token in enumerate(tokens) if token in ends), len(tokens))]


def continued(prompt: dict[str, Tensor], tokens: Sequence[int]) -> dict[str, Tensor]:
    """An encoded prompt with an answer after it, whose tokens alone are labels."""
    import torch

    answer = torch.tensor(tokens, dtype=prompt["input_ids"].dtype)
    longer = dict(prompt)
    for name, value in prompt.items():
        if not PER_TOKEN.fullmatch(name):
            continue
        if name == "input_ids":
            more = answer
        elif name == "attention_mask":
            more = torch.ones_like(answer, dtype=value.dtype)
        elif name == "cross_attention_mask":
            more = value[-1:].expand(len(tokens), *value.shape[1:])
        else:
            more = value.new_zeros(len(tokens), *value.shape[1:])
        longer[name] = torch.cat([value, more])
    longer["labels"] = torch.cat([torch.full_like(prompt["input_ids"], IGNORED), answer])
    return longer
