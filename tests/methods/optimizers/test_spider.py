"""SPIDER against its rule written out entry by entry, and resumed in the middle of a stage."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_parts import BASE, difference, stage, weights

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.methods.optimizers.spider import Spider, importance, soft_mask
from lmmcl.training.finetune import finetune


def gradients(step: int, size: int) -> list[float]:
    return torch.randn(size, generator=torch.Generator().manual_seed(step), dtype=torch.float64).tolist()


def ranks(values: list[float]) -> list[float]:
    sizes = [abs(value) for value in values]
    mean, spread = statistics.mean(sizes), statistics.stdev(sizes)
    return [1 / (1 + math.exp(-(size - mean) / spread)) for size in sizes]


def masks(old: list[float], new: list[float]) -> list[float]:
    raw = [n / (o + n) if n > o else 0.0 for o, n in zip(old, new, strict=True)]
    mean = statistics.mean(value for value in raw if value)
    return [min(1.0, value / mean) for value in raw]


def by_hand(start: list[float], steps: int, rate: float) -> list[float]:
    """Plain gradient descent with the soft mask, one number at a time."""
    theta, total = list(start), [0.0] * len(start)
    for step in range(1, steps + 1):
        g = gradients(step, len(start))
        total = [t + each for t, each in zip(total, g, strict=True)]
        stepped = [t - rate * each for t, each in zip(theta, g, strict=True)]
        kept = masks(ranks(start), ranks(total))
        theta = [s * (1 - k) + t * k for s, t, k in zip(start, stepped, kept, strict=True)]
    return theta


def test_weights_are_drawn_back_as_the_rule_says() -> None:
    start = gradients(99, 24)
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64).reshape(4, 6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = {"weight": model.weight.detach().clone()}
    Spider().optimizer(state, model, optimizer)
    for step in range(1, 7):
        model.weight.grad = torch.tensor(gradients(step, 24), dtype=torch.float64).reshape(4, 6)
        optimizer.step()
    assert model.weight.detach().flatten().tolist() == pytest.approx(by_hand(start, 6, 0.1), rel=1e-9)
    assert (model.weight.detach().flatten() == torch.tensor(start, dtype=torch.float64)).any(), "a weight is back at θ0"


def test_tensors_that_cannot_be_standardised_have_a_defined_importance() -> None:
    assert importance(torch.zeros(4)).tolist() == [0, 0, 0, 0]
    assert importance(torch.full((4,), -3.0)).tolist() == [0.5] * 4
    assert importance(torch.tensor([2.0])).tolist() == [0.5]
    assert soft_mask(torch.zeros(2), torch.tensor([0.2, 0.9])).tolist() == [1, 1], "what was zero is free"
    assert soft_mask(torch.tensor([0.9, 0.9]), torch.tensor([0.2, 0.0])).tolist() == [0, 0]


def test_a_stage_leaves_part_of_the_weights_where_they_were(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    step = stage(Spider())
    record = finetune(step, ledger, TrainingPlacement())
    assert record["updates"] == 4
    start, after = weights(BASE, ledger), weights(step, ledger)
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    still = (start[name] == after[name]).float().mean()
    assert 0.2 < still < 0.8


class Killed(BaseException):
    """Stands for the end of the process: no handler of Exception sees it."""


def test_a_killed_stage_goes_on_with_the_gradients_it_had_added_up(tmp_path: Path) -> None:
    whole, killed = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "killed"))
    placement = TrainingPlacement(save_every=2)
    step = stage(Spider(), max_steps=5)
    finetune(step, whole, placement)

    def die(shown: dict[str, Any]) -> None:
        if shown["update"] == 3:
            raise Killed

    with pytest.raises(Killed):
        finetune(step, killed, placement, progress=die)
    seen: list[int] = []
    finetune(step, killed, placement, progress=lambda shown: seen.append(shown["update"]))
    assert seen == [3, 4, 5]
    assert difference(weights(step, whole), weights(step, killed)) == 0


def test_it_has_no_settings() -> None:
    with pytest.raises(UserError, match="spider: unknown setting 'alpha'"):
        get_mitigation({"spider": {"alpha": 1}})
