"""What is frozen computes in training what it computes in evaluation, and the record says which dropout was in force."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from stage_parts import parts, stage
from torch import nn

from lmmcl.training.stage.module_modes import describe_modes, keep_frozen_in_evaluation, learning_modules


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(4, 4), nn.Dropout(0.5)
        self.attention_dropout = 0.25

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.linear(x))


def two_blocks() -> nn.Sequential:
    model = nn.Sequential(Block(), nn.BatchNorm1d(4), Block())
    for parameter in [*model[0].parameters(), *model[1].parameters()]:
        parameter.requires_grad_(False)
    keep_frozen_in_evaluation(model)
    return model


def test_frozen_modules_stay_in_evaluation_mode_and_those_without_parameters_follow_their_holder() -> None:
    model = two_blocks()
    assert model.train() is model
    assert [module.training for module in model.modules()] == [True, False, False, False, False, True, True, True]
    assert model.training and not model[0].drop.training and model[2].drop.training
    model.eval()
    assert not any(module.training for module in model.modules())
    model.train()
    assert model[2].drop.training


def test_running_statistics_of_a_frozen_norm_stand_still() -> None:
    model = two_blocks().train()
    before = model[1].running_mean.clone()
    model(torch.randn(8, 4))
    assert torch.equal(model[1].running_mean, before)


def test_the_record_says_how_many_modules_train_and_with_which_dropout() -> None:
    assert describe_modes(two_blocks()) == {
        "train": 4,
        "eval": 4,
        "dropout": {"*.attention_dropout": 0.25, "*.drop.p": 0.5},
    }


def test_a_wrapper_and_a_copy_keep_it() -> None:
    model = two_blocks()
    wrapped, copied = nn.ModuleList([model]), copy.deepcopy(model)
    wrapped.train()
    assert not model[0].training and model[2].training
    model.eval()
    copied.train()
    assert copied[2].training and not copied[0].training and not model[2].training


def losses(recipe: str, tmp_path: Path, **placement: Any) -> tuple[Any, list[torch.Tensor]]:
    """Of one batch, twice, in a model whose tower and language model have dropout in their attention."""
    trainer = parts(stage(recipe=recipe), tmp_path, **placement).trainer
    model = trainer.taught
    for layer in model.model.vision_tower.encoder.layers:
        layer.self_attn.dropout = 0.5
    if placement:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    data = trainer.train_dataset
    batch = trainer.data_collator([data[n] for n in range(4)])
    found = []
    for _ in range(2):
        model.train()
        found.append(trainer.compute_loss(model, batch, num_items_in_batch=torch.tensor(10)))
    return model, found


def test_a_frozen_tower_sees_the_same_in_one_image_each_time(tmp_path: Path) -> None:
    model, (one, other) = losses("sa_proj", tmp_path)
    assert torch.equal(one, other)
    assert describe_modes(model)["dropout"] == {}


def test_a_tower_that_learns_has_its_dropout(tmp_path: Path) -> None:
    model, (one, other) = losses("vision", tmp_path)
    assert not torch.equal(one, other)
    assert describe_modes(model)["dropout"] == {"model.vision_tower.encoder.layers.*.self_attn.dropout": 0.5}


def test_a_frozen_language_model_saves_memory_too_and_computes_the_same(tmp_path: Path) -> None:
    """Gradients pass through it on their way to the projector."""

    def gradients(**placement: Any) -> tuple[int, list[torch.Tensor]]:
        model, (loss, _) = losses("projector", tmp_path, **placement)
        layers, calls = model.model.language_model.layers, []
        for layer in layers:
            layer.self_attn.attention_dropout = 0.5
            layer.register_forward_hook(lambda *_: calls.append(1))
            inner = layer.self_attn.forward
            layer.self_attn.forward = lambda *a, _inner=inner, **k: (calls.append(1), _inner(*a, **k))[1]
        calls.clear()
        loss.backward()
        return len(calls), [p.grad for p in model.parameters() if p.grad is not None]

    plain, saving = gradients(), gradients(gradient_checkpointing=True)
    assert plain[0] == 0 and saving[0] > 0  # computed again in the backward pass
    assert all(torch.equal(one, other) for one, other in zip(plain[1], saving[1], strict=True))


def test_only_what_holds_something_that_learns_is_found() -> None:
    names = {name for name, module in two_blocks().named_modules() if module in learning_modules(two_blocks())}
    assert not names  # of another model
    model = two_blocks()
    learning = learning_modules(model)
    assert [name for name, module in model.named_modules() if module in learning] == ["", "2", "2.linear", "2.drop"]
