"""What a stage's forward pass keeps for the way back, block by block, and how often each block runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from stage_parts import made_skill, parts, shades, stage
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.methods.recipes.recipe import Recipe
from lmmcl.models import get_model
from lmmcl.steps import Finetune, Pretrained
from lmmcl.training.efficiency.checkpointing import NoGradientOfInputs
from lmmcl.training.stage.trainer import StageTrainer

ON = TrainingPlacement(gradient_checkpointing=True)
RECIPES = {
    "sa_proj of the last block": ("llm.blocks.last-1.attention",),
    "head": ("llm.head",),
    "llm": ("llm",),
    "vision": ("vision",),
}
"""What trains, by name; the tower of vision is frozen in all but the last."""


def recipe_stage(name: str) -> Finetune:
    model = "tiny-next" if name == "head" else "tiny-qwen"  # whose head is one with its embeddings
    step = stage(skill=made_skill("shades", shades(8)), parent=Pretrained(get_model(model)))
    recipe = Recipe(name=name, train=RECIPES[name])
    return Finetune(step.parent, recipe, None, step.skill, step.training, step.seed)


def ready(name: str, folder: Path) -> StageTrainer:
    return parts(recipe_stage(name), folder).trainer


def blocks_of(model: Any) -> dict[str, nn.Module]:
    """Blocks of both towers by name, with the parts of the model outside them."""
    return {name: module for name, module in model.named_modules() if isinstance(module, GradientCheckpointingLayer)}


@contextmanager
def counted(model: Any) -> Iterator[tuple[Counter[str], Counter[str]]]:
    """Inside the `with`, by block: numbers kept for the way back (weights not counted), and how often it ran."""
    kept: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    own = {parameter.data_ptr() for parameter in model.parameters()}
    where: list[str] = ["outside"]
    handles = []
    for name, block in blocks_of(model).items():
        handles += [
            block.register_forward_pre_hook(lambda *_, name=name: where.append(name)),
            block.register_forward_hook(lambda *_: where.__delitem__(-1)),
            next(iter(block.children())).register_forward_hook(lambda *_, name=name: runs.update([name])),
        ]

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[where[-1]] += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept, runs
    for handle in handles:
        handle.remove()


def passed(trainer: StageTrainer) -> tuple[Counter[str], Counter[str], dict[str, Tensor]]:
    """One forward and backward pass of the stage's loss: what was kept, what ran how often, and the gradients."""
    data: Any = trainer.train_dataset
    batch = trainer.prepare_batch(trainer.data_collator([data[position] for position in range(4)]))
    model = trainer.taught
    trainer.last_mlp = None  # as in a stage with checkpointing
    with counted(model) as (kept, runs):
        loss = trainer.compute_loss(model, batch, num_items_in_batch=torch.tensor(11))
        before = Counter(kept)
        loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return before, runs, gradients


def switch_on(model: Any, *, ours: bool = True) -> None:
    """Checkpointing as the Trainer switches it on, and our callback after it."""
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    if ours:
        NoGradientOfInputs(model).on_train_begin(None, None, None)  # type: ignore[arg-type]
    model.eval()
    model.train()
