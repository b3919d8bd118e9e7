"""MoFO against Adam written out entry by entry, and against AdamW where the filter lets everything through."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from stage_parts import difference, stage, weights

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.methods.optimizers.mofo import MoFO
from lmmcl.training.finetune import finetune

RATE, BETAS, EPSILON, DECAY = 0.1, (0.9, 0.99), 1e-8, 0.05


def gradients(step: int, size: int) -> list[float]:
    return torch.randn(size, generator=torch.Generator().manual_seed(step), dtype=torch.float64).tolist()


def by_hand(start: list[float], alpha: float, steps: int) -> list[float]:
    """AdamW with the filter, one number at a time."""
    theta, m, v = list(start), [0.0] * len(start), [0.0] * len(start)
    for step in range(1, steps + 1):
        for i, g in enumerate(gradients(step, len(start))):
            m[i] = BETAS[0] * m[i] + (1 - BETAS[0]) * g
            v[i] = BETAS[1] * v[i] + (1 - BETAS[1]) * g * g
        order = sorted(range(len(m)), key=lambda i: -abs(m[i]))
        for i in order[: round(alpha * len(m))]:
            theta[i] -= RATE * DECAY * theta[i]
            first, second = m[i] / (1 - BETAS[0] ** step), v[i] / (1 - BETAS[1] ** step)
            theta[i] -= RATE * first / (math.sqrt(second) + EPSILON)
    return theta


def trained(start: list[float], alpha: float | None, steps: int, dtype: torch.dtype) -> torch.Tensor:
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.tensor(start, dtype=dtype).reshape(6, -1))
    model.idle = torch.nn.Parameter(torch.ones(3, dtype=dtype))
    fused = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY, fused=True)
    if alpha is not None:
        MoFO(alpha=alpha).optimizer(None, model, fused)
    for step in range(1, steps + 1):
        model.weight.grad = torch.tensor(gradients(step, len(start)), dtype=dtype).reshape(6, -1)
        fused.step()
    assert model.idle.tolist() == [1, 1, 1]
    return model.weight.detach().flatten()


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_it_is_adam_of_the_entries_with_the_largest_momentum(alpha: float) -> None:
    start = gradients(99, 30)
    found = trained(start, alpha, 7, torch.float64)
    assert found.tolist() == pytest.approx(by_hand(start, alpha, 7), rel=1e-9)


def test_with_alpha_one_it_is_adamw_to_the_bit() -> None:
    start = gradients(99, 30)
    assert torch.equal(trained(start, 1.0, 7, torch.float32), trained(start, None, 7, torch.float32))
    assert trained(start, 1.0, 7, torch.float64).tolist() == pytest.approx(by_hand(start, 1.0, 7), rel=1e-9)


def test_nearly_everything_let_through_differs_from_adamw_in_what_was_held_alone() -> None:
    start = gradients(99, 30)
    one, all_of_them = trained(start, 29 / 30, 1, torch.float32), trained(start, None, 1, torch.float32)
    held = (one != all_of_them).nonzero().flatten().tolist()
    assert held == [min(range(30), key=lambda i: abs(gradients(1, 30)[i]))]
    assert float(one[held[0]]) == pytest.approx(start[held[0]])


def test_one_update_of_a_stage_moves_the_share_of_every_tensor(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    settings = {"max_steps": 1, "warmup_ratio": 0, "lr_scheduler_type": "constant"}
    whole, none, some = stage(**settings), stage(MoFO(alpha=1), **settings), stage(MoFO(alpha=0.25), **settings)
    for step in (whole, none, some):
        finetune(step, ledger, TrainingPlacement())
    start, free, same, part = (weights(step, ledger) for step in (whole.parent, whole, none, some))
    assert difference(free, same) == 0
    names = [name for name in free if not torch.equal(free[name], start[name]) and name.endswith("weight")]
    assert len(names) >= 12
    for name in names:
        moved = part[name] != start[name]
        assert int(moved.sum()) <= round(0.25 * moved.numel())
        assert int(moved.sum()) > 0.2 * moved.numel()
        assert torch.equal(part[name][moved], free[name][moved])


@pytest.mark.parametrize("alpha", [0, 1.5, -0.1, float("nan")])
def test_a_share_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(UserError, match=r"mofo\.alpha"):
        get_mitigation({"mofo": {"alpha": alpha}})
