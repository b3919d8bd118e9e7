"""Learning rates by role: what the optimizer is really given, and what moves by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from killed_stage import finetune_killed_once
from stage_parts import BASE, stage, weights

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.training.finetune import finetune

SEEN: list[dict[str, Any]] = []


class Watch(TrainingMitigation):
    """Writes down the optimizer's groups as they are at each update."""

    name = "watch"
    version = 1

    def optimizer(self, state: Any, model: Any, optimizer: torch.optim.Optimizer) -> None:
        names = {id(parameter): name for name, parameter in model.named_parameters()}

        def look(*_: Any) -> None:
            SEEN.append({names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]})

        optimizer.register_step_pre_hook(look)


RECIPE = {
    "name": "mixed",
    "train": ["llm.blocks.*.mlp", "vision"],
    "learning_rates": {"vision": 1e-5, "llm.blocks.last-1": 2e-3},
}


def test_each_part_is_trained_at_its_own_rate_and_follows_the_schedule(tmp_path: Path) -> None:
    SEEN.clear()
    step = stage(Watch(), recipe=RECIPE, lr_scheduler_type="linear", warmup_ratio=0, weight_decay=0.01)
    finetune(step, Ledger(str(tmp_path)), TrainingPlacement())
    assert len(SEEN) == 4
    for update, rates in enumerate(SEEN):
        assert {"vision_tower" in name for name in rates} == {True, False}
        for name, rate in rates.items():
            peak = 1e-5 if "vision_tower" in name or "image_newline" in name else 2e-3 if "layers.2" in name else 1e-3
            assert abs(rate - peak * (1 - update / 4)) < 1e-12


def test_the_curve_shows_the_trials_own_rate(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    step = stage(recipe=RECIPE, lr_scheduler_type="constant", warmup_ratio=0)
    finetune(step, ledger, TrainingPlacement())
    assert {row["learning_rate"] for row in ledger.read_lines(step.path, "curve.jsonl")} == {1e-3}


def test_a_part_with_a_low_rate_moves_less(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    even, low = (
        stage(recipe="mlp+projector"),
        stage(
            recipe={"name": "low", "train": ["llm.blocks.*.mlp", "projector"], "learning_rates": {"projector": 1e-6}}
        ),
    )
    start = weights(BASE, ledger)
    moved = {}
    for step in (even, low):
        finetune(step, ledger, TrainingPlacement())
        after = weights(step, ledger)
        moved[step.key] = max(
            float((after[n] - start[n]).detach().abs().max()) for n in start if "multi_modal_projector" in n
        )
    assert 0 < moved[low.key] < 0.01 * moved[even.key]


def test_a_killed_stage_with_several_rates_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole, killed = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "killed"))
    step, placement = stage(recipe=RECIPE), TrainingPlacement(save_every=2)
    finetune(step, whole, placement)
    finetune_killed_once(step, killed, placement)
    one, other = weights(step, whole), weights(step, killed)
    assert all(torch.equal(one[name], other[name]) for name in one)
