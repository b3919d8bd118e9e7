"""What is frozen computes in training what it computes in evaluation: no dropout, no running statistics.

The Trainer puts the whole model into training mode before every batch. Dropout in a frozen part (InstructBLIP's Q-Former is
shipped with 0.1) would then give other features for the same image each time. Modules in which nothing learns stay in
evaluation mode; a module without parameters follows the one that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


def keep_frozen_in_evaluation(model: nn.Module) -> None:
    """From now on `model.train()` leaves in evaluation mode what holds nothing that learns (by `requires_grad`)."""
    was_training = model.training
    nn.Module.train(model, False)
    model.train = partial(_train, model)  # type: ignore[method-assign]  # of this one model, also inside DDP and DeepSpeed
    model.train(was_training)


def _train(model: nn.Module, mode: bool = True) -> nn.Module:
    if mode and model.training:  # asked for before every batch
        return model
    nn.Module.train(model, False)
    if mode:
        for module in model.modules():
            if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
                _checkpoint_frozen(module)
        for module in learning_modules(model):
            module.training = True
    return model


def learning_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that are in training mode while `model` learns."""
    modules: dict[int, nn.Module] = {}

    def visit(module: nn.Module, holder_learns: bool) -> None:
        parameters = list(module.parameters())
        learns = any(parameter.requires_grad for parameter in parameters) if parameters else holder_learns
        if learns:
            modules[id(module)] = module
        for child in module.children():
            visit(child, learns)

    visit(model, False)
    return list(modules.values())


def describe_modes(model: nn.Module) -> dict[str, Any]:
    """For the record: how many modules are in which mode while the stage trains, and the dropout that is in force, by place."""
    learning = {id(module) for module in learning_modules(model)}
    dropout = {
        re.sub(r"(^|\.)\d+(?=\.)", r"\1*", f"{name}.{what}".strip(".")): share
        for name, module in model.named_modules()
        if id(module) in learning
        for what, share in _dropout(module)
    }
    modules = sum(1 for _ in model.modules())
    return {"train": len(learning), "eval": modules - len(learning), "dropout": dropout}


def _dropout(module: nn.Module) -> Iterator[tuple[str, float]]:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        if module.p > 0:
            yield "p", module.p
        return
    for name, value in vars(module).items():
        if "drop" in name and isinstance(value, float) and 0 < value <= 1:
            yield name, value


def _checkpoint_frozen(layer: nn.Module) -> None:
    """Let a layer save memory as one that learns does, while what it computes is what it computes in evaluation.

    transformers checkpoints layers in training mode only; gradients pass through frozen layers on their way to what learns.
    """
    layer.training = True
    if any(parameter.requires_grad for parameter in layer.parameters()):
        return
    checkpoint: Any = layer._gradient_checkpointing_func
    if not isinstance(checkpoint, _InEvaluation):
        layer._gradient_checkpointing_func = _InEvaluation(layer, checkpoint)  # type: ignore[assignment]


class _InEvaluation:
    """A layer's checkpointing function, with the layer itself in evaluation mode when it is run, and run again."""

    def __init__(self, layer: nn.Module, checkpoint: Callable[..., Any]) -> None:
        self._layer, self._checkpoint = layer, checkpoint

    def __call__(self, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        return self._checkpoint(partial(self._run, function), *args, **more)

    def _run(self, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        self._layer.training = False
        try:
            return function(*args, **more)
        finally:
            self._layer.training = True
