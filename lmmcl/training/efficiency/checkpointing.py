"""Activation checkpointing where something is kept for the way back, and nowhere else.

A block that holds nothing that trains, with nothing that trains before it, keeps no activations and is never computed again.
transformers would have it otherwise: with checkpointing it lets the embeddings of text and of image patches require a gradient,
which checkpoints with `use_reentrant` need and ours do not, so that a frozen tower keeps its activations and is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer_callback import TrainerControl, TrainerState

from lmmcl.config.cluster import TrainingPlacement


class NoGradientOfInputs(TrainerCallback):
    """Takes the gradient from frozen embeddings again once the Trainer has switched checkpointing on."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._model.disable_input_require_grads()


@contextmanager
def checkpoint_what_learns(model: nn.Module, placement: TrainingPlacement) -> Iterator[None]:
    """Inside the `with`, blocks for which checkpointing is switched on use it only if a gradient passes through them.

    A compiled model checkpoints all of them: what is decided at each pass would break its graph.
    """
    decides = placement.gradient_checkpointing and not placement.compile
    blocks = [block for block in model.modules() if decides and isinstance(block, GradientCheckpointingLayer)]
    handles = [block.register_forward_pre_hook(_decide, with_kwargs=True) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _decide(block: Any, inputs: tuple[Any, ...], more: Mapping[str, Any]) -> None:
    """Before a block runs. Positional and named inputs are tensors, or tuples of them (rotary embeddings), or neither."""
    block.gradient_checkpointing = _needs_gradient([inputs, *more.values()]) or any(
        parameter.requires_grad for parameter in block.parameters()
    )


def _needs_gradient(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.requires_grad
    return isinstance(value, tuple | list) and any(_needs_gradient(part) for part in value)
